//! `PartWriter`: collects documents into a part. `decode` reads a stored document back.

use std::ops::Range;

use super::part::{GROUP, GROUPS, Layout};
use super::{Band, DocMeta, Key, Sorted};
use crate::schema::{IdType, Role, Run, Weight, push_run};
use crate::tokenize::Document;

/// Collects documents in reading order.
#[derive(Debug)]
pub(crate) struct PartWriter {
    id_type: IdType,
    metas: Vec<DocMeta>,
    keys: Vec<Key>,
    bands: Vec<Band>,
    payload: Vec<u8>,
}

impl PartWriter {
    /// Returns a writer without documents.
    #[must_use]
    pub(crate) fn new(id_type: IdType) -> Self {
        let (metas, keys, bands, payload) = Default::default();
        Self { id_type, metas, keys, bands, payload }
    }

    /// Returns the number of bytes held.
    #[must_use]
    pub(crate) fn held(&self) -> usize {
        self.payload.len()
            + self.metas.len() * DocMeta::BYTES
            + self.keys.len() * Key::BYTES
            + self.bands.len() * Band::BYTES
    }

    /// Adds the documents of a record, which share a bucket. The place of their tokens is filled
    /// in. A part has a key for each record, or no keys, and as many bands for each.
    pub(crate) fn push<'d>(
        &mut self,
        documents: impl IntoIterator<Item = (DocMeta, &'d Document)>,
        key: Option<Key>,
        bands: &[u64],
    ) {
        let (first, mut longest) = (self.metas.len() as u32, 0);
        for (mut meta, document) in documents {
            let start = self.payload.len();
            let ids = document.ids.iter();
            match self.id_type {
                IdType::U16 => self.payload.extend(ids.flat_map(|&id| (id as u16).to_le_bytes())),
                IdType::U32 => self.payload.extend(ids.flat_map(|id| id.to_le_bytes())),
            }
            // A role takes the two lowest bits.
            for run in &document.runs {
                push_varint(&mut self.payload, u64::from(run.len) << 2 | run.role as u64);
            }
            if let Some(weight) = document.weight {
                self.payload.extend(weight.to_bytes());
            }
            meta.at = start as u32;
            meta.size = (self.payload.len() - start) as u32;
            meta.tokens = document.ids.len() as u32;
            longest = longest.max(meta.tokens);
            self.metas.push(meta);
        }
        self.keys.extend(key.map(|key| Key { meta: first, longest, ..key }));
        self.bands.extend(bands.iter().map(|&hash| Band { hash, meta: first }));
    }

    /// Returns the block and its layout, and leaves the writer empty.
    pub(crate) fn finish(&mut self) -> (Layout, Vec<u8>) {
        let layout = Layout {
            payload: self.payload.len() as u64,
            documents: self.metas.len() as u32,
            keys: self.keys.len() as u32,
            bands: self.bands.len() as u32,
        };
        // A stable sort: within a bucket, documents stay in reading order.
        let mut order: Vec<u32> = (0..layout.documents).collect();
        order.sort_by_key(|&index| self.metas[index as usize].bucket);
        let mut block = Vec::with_capacity(layout.bytes() as usize);
        // Counts of documents by group, shifted by one so that their sums are the starts.
        let mut starts = [0_u32; GROUPS + 1];
        let mut place_of = vec![0_u32; order.len()];
        let mut sorted = Vec::with_capacity(order.len());
        for (nth, &index) in order.iter().enumerate() {
            let meta = self.metas[index as usize];
            place_of[index as usize] = nth as u32;
            sorted.push(DocMeta { at: block.len() as u32, ..meta });
            block.extend_from_slice(&self.payload[meta.at as usize..meta.end() as usize]);
            starts[(u32::from(meta.bucket) / GROUP) as usize + 1] += 1;
        }
        for meta in &sorted {
            meta.push_bytes(&mut block);
        }
        self.keys.sort_unstable_by_key(|key| (key.content, key.record_id));
        // Keys and bands name documents by reading order until now.
        for key in &self.keys {
            Key { meta: place_of[key.meta as usize], ..*key }.push_bytes(&mut block);
        }
        let mut before = 0;
        for start in starts {
            before += start;
            block.extend_from_slice(&before.to_le_bytes());
        }
        for band in &mut self.bands {
            band.meta = place_of[band.meta as usize];
        }
        self.bands.sort_unstable();
        self.bands.iter().for_each(|band| band.push_bytes(&mut block));
        *self = Self::new(self.id_type);
        (layout, block)
    }
}

/// Reads the tokens `range` of a stored document of `tokens` tokens. Appends their ids to `ids`,
/// and replaces `runs` by the run-lengths of their roles.
pub(crate) fn decode(
    mut bytes: &[u8],
    tokens: usize,
    range: Range<usize>,
    id_type: IdType,
    ids: &mut Vec<u32>,
    runs: &mut Vec<Run>,
) {
    let width = id_type.width();
    let stored = bytes.split_off(..tokens * width).expect("a stored document holds its ids");
    let stored = &stored[range.start * width..range.end * width];
    match id_type {
        IdType::U16 => {
            ids.extend(stored.as_chunks().0.iter().map(|id| u32::from(u16::from_le_bytes(*id))));
        }
        IdType::U32 => ids.extend(stored.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id))),
    }
    runs.clear();
    // The runs before the range are walked over too: only their sum tells where it starts.
    let mut start = 0;
    while start < range.end {
        let word = take_varint(&mut bytes);
        let end = start + (word >> 2) as usize;
        let role = Role::from_u8((word & 3) as u8).expect("two bits are a role");
        push_run(runs, end.min(range.end).saturating_sub(start.max(range.start)) as u32, role);
        start = end;
    }
}

/// Returns the weight of a stored document of `tokens` tokens, whose source has weights. It lies
/// behind the role run-lengths.
#[must_use]
pub(crate) fn weight_of(bytes: &[u8], tokens: usize, id_type: IdType) -> Weight {
    let mut rest = &bytes[tokens * id_type.width()..];
    let mut seen = 0;
    while seen < tokens {
        seen += (take_varint(&mut rest) >> 2) as usize;
    }
    Weight::from_bytes(*rest.first_chunk().expect("a stored document holds its weight"))
}

/// Appends a number in LEB128: seven bits a byte, the lowest first.
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number in LEB128 and moves past it.
fn take_varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}
