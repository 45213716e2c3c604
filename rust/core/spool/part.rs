//! `Part`: some documents of a split as one block of bytes, ordered by virtual bucket, in memory or
//! in a file.
//!
//! The block holds, one after another: the documents' tokens (ids in the dataset's type, then role
//! run-lengths), their metas, their content keys in order of key, and where each group of buckets
//! begins among the metas. Whatever is asked of a part is read out of that block, so that it makes
//! no difference where the block lies.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BUCKETS, DocMeta, Key};
use crate::error::Result;
use crate::files;
use crate::schema::{IdType, Role, Run, push_run};
use crate::tokenize::Document;

/// Buckets are found by groups of this many.
const GROUP: u32 = 16;
const GROUPS: usize = (BUCKETS / GROUP) as usize;
/// Documents this close together are read at once.
const GAP: u64 = 64 << 10;

/// How a block is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes of tokens.
    pub payload: u64,
    /// Documents.
    pub documents: u32,
    /// Content keys: as many as documents, or none.
    pub keys: u32,
}

impl Layout {
    fn metas_at(&self) -> u64 {
        self.payload
    }

    fn keys_at(&self) -> u64 {
        self.metas_at() + u64::from(self.documents) * DocMeta::BYTES as u64
    }

    fn groups_at(&self) -> u64 {
        self.keys_at() + u64::from(self.keys) * Key::BYTES as u64
    }

    /// Bytes of the block.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.groups_at() + (GROUPS as u64 + 1) * 4
    }

    /// The same of a layout that was read, if a block can be divided so.
    #[must_use]
    pub fn checked_bytes(&self) -> Option<u64> {
        let is_possible =
            u32::try_from(self.payload).is_ok() && (self.keys == 0 || self.keys == self.documents);
        is_possible.then(|| self.bytes())
    }
}

/// Where a block lies.
#[derive(Debug, Clone)]
pub enum Block {
    /// In memory.
    Memory(Arc<Vec<u8>>),
    /// In a file, from an offset on.
    File(Arc<PathBuf>, u64),
}

/// Documents of a split.
#[derive(Debug, Clone)]
pub struct Part {
    /// How its block is divided.
    pub layout: Layout,
    /// Its block.
    pub block: Block,
}

impl Part {
    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        match &self.block {
            Block::Memory(bytes) => Ok(bytes[range.start as usize..range.end as usize].into()),
            Block::File(path, offset) => {
                Ok(files::bytes_at(path, offset + range.start, (range.end - range.start) as usize)?
                    .into())
            }
        }
    }

    /// The whole block.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        self.read(0..self.layout.bytes())
    }

    /// The metas at `range`.
    pub fn metas(&self, range: Range<usize>) -> Result<Vec<DocMeta>> {
        let at = self.layout.metas_at();
        let bytes = self.read(
            at + (range.start * DocMeta::BYTES) as u64..at + (range.end * DocMeta::BYTES) as u64,
        )?;
        Ok(bytes.as_chunks().0.iter().map(DocMeta::from_bytes).collect())
    }

    /// The metas whose bucket lies in `buckets`, each with its index.
    pub fn in_buckets(&self, buckets: Range<u32>) -> Result<Vec<(u32, DocMeta)>> {
        if buckets.is_empty() || self.layout.documents == 0 {
            return Ok(Vec::new());
        }
        let at = self.layout.groups_at();
        let first = u64::from(buckets.start / GROUP);
        let end = u64::from((buckets.end - 1) / GROUP) + 1;
        let bytes = self.read(at + first * 4..at + end * 4 + 4)?;
        let bounds = bytes.as_chunks().0;
        let index = |bound: Option<&[u8; 4]>| {
            u32::from_le_bytes(*bound.expect("a group has two bounds")) as usize
        };
        let range = index(bounds.first())..index(bounds.last());
        let metas = (range.start as u32..).zip(self.metas(range)?);
        Ok(metas.filter(|(_, meta)| buckets.contains(&u32::from(meta.bucket))).collect())
    }

    /// Bytes that hold the stored documents of `metas`, which come in the part's order: the block,
    /// if it is in memory; else theirs, one after another. Calls `place` with where each starts.
    pub fn documents<'a>(
        &self,
        metas: impl Iterator<Item = &'a DocMeta>,
        mut place: impl FnMut(u32),
    ) -> Result<Cow<'_, [u8]>> {
        if let Block::Memory(bytes) = &self.block {
            metas.for_each(|meta| place(meta.at));
            return Ok(bytes.as_slice().into());
        }
        let mut out = Vec::new();
        let mut metas = metas.peekable();
        let mut held: Vec<&DocMeta> = Vec::new();
        while let Some(first) = metas.next() {
            held.clear();
            held.push(first);
            let mut end = first.end();
            while let Some(next) = metas.next_if(|next| u64::from(next.at) <= end + GAP) {
                end = next.end();
                held.push(next);
            }
            let start = u64::from(first.at);
            let bytes = self.read(start..end)?;
            for meta in &held {
                place(out.len() as u32);
                out.extend_from_slice(
                    &bytes[(u64::from(meta.at) - start) as usize..(meta.end() - start) as usize],
                );
            }
        }
        Ok(out.into())
    }

    /// The content keys whose content lies in `contents`, in order of key, read `at_once` at a
    /// time.
    pub fn keys(&self, contents: &RangeInclusive<u128>, at_once: u64) -> Result<Keys<'_>> {
        let next = self.key_where(|content| content >= *contents.start())?;
        let end = self.key_where(|content| content > *contents.end())?;
        Ok(Keys { part: self, next, end, at_once, held: Vec::new().into_iter() })
    }

    /// The index of the first key whose content `is_past`, as all later ones are.
    fn key_where(&self, is_past: impl Fn(u128) -> bool) -> Result<u64> {
        let (mut first, mut end) = (0, u64::from(self.layout.keys));
        // The bounds of all contents that there can be need no search.
        if is_past(0) {
            return Ok(0);
        }
        if !is_past(u128::MAX) {
            return Ok(end);
        }
        while first < end {
            let middle = first.midpoint(end);
            let is_past =
                self.read_keys(middle..middle + 1)?.iter().all(|key| is_past(key.content));
            if is_past { end = middle } else { first = middle + 1 }
        }
        Ok(first)
    }

    fn read_keys(&self, range: Range<u64>) -> Result<Vec<Key>> {
        let (at, size) = (self.layout.keys_at(), Key::BYTES as u64);
        let bytes = self.read(at + range.start * size..at + range.end * size)?;
        Ok(bytes.as_chunks().0.iter().map(Key::from_bytes).collect())
    }
}

/// The content keys of a part, in order, read as they are needed.
#[derive(Debug)]
pub struct Keys<'a> {
    part: &'a Part,
    next: u64,
    end: u64,
    at_once: u64,
    held: std::vec::IntoIter<Key>,
}

impl Keys<'_> {
    /// The next key, or `None` after the last.
    pub fn advance(&mut self) -> Result<Option<Key>> {
        if let Some(key) = self.held.next() {
            return Ok(Some(key));
        }
        let next = (self.next + self.at_once).min(self.end);
        self.held = self.part.read_keys(self.next..next)?.into_iter();
        self.next = next;
        Ok(self.held.next())
    }
}

/// Collects documents in reading order.
#[derive(Debug)]
pub struct PartWriter {
    id_type: IdType,
    metas: Vec<DocMeta>,
    keys: Vec<Key>,
    payload: Vec<u8>,
}

impl PartWriter {
    /// An empty part.
    #[must_use]
    pub fn new(id_type: IdType) -> Self {
        Self { id_type, metas: Vec::new(), keys: Vec::new(), payload: Vec::new() }
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.payload.len() + self.metas.len() * DocMeta::BYTES + self.keys.len() * Key::BYTES
    }

    /// Adds a document. `meta` and `key` say everything but where its tokens lie; a part has a key
    /// for each document or for none.
    pub fn push(&mut self, mut meta: DocMeta, key: Option<Key>, document: &Document) {
        let start = self.payload.len();
        match self.id_type {
            IdType::U16 => {
                self.payload.extend(document.ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
            }
            IdType::U32 => self.payload.extend(document.ids.iter().flat_map(|id| id.to_le_bytes())),
        }
        for run in &document.runs {
            push_varint(&mut self.payload, u64::from(run.len) << 2 | run.role as u64);
        }
        meta.at = start as u32;
        meta.size = (self.payload.len() - start) as u32;
        meta.tokens = document.ids.len() as u32;
        self.keys.extend(key.map(|key| Key {
            meta: self.metas.len() as u32,
            tokens: meta.tokens,
            ..key
        }));
        self.metas.push(meta);
    }

    /// The block, and how it is divided. The writer is empty afterwards.
    pub fn finish(&mut self) -> (Layout, Vec<u8>) {
        let layout = Layout {
            payload: self.payload.len() as u64,
            documents: self.metas.len() as u32,
            keys: self.keys.len() as u32,
        };
        let mut order: Vec<u32> = (0..layout.documents).collect();
        order.sort_by_key(|&at| self.metas[at as usize].bucket);
        let mut block = Vec::with_capacity(layout.bytes() as usize);
        let mut starts = [0_u32; GROUPS + 1];
        let mut place_of = vec![0_u32; order.len()];
        let mut sorted = Vec::with_capacity(order.len());
        for (nth, &at) in order.iter().enumerate() {
            let meta = self.metas[at as usize];
            place_of[at as usize] = nth as u32;
            sorted.push(DocMeta { at: block.len() as u32, ..meta });
            block.extend_from_slice(&self.payload[meta.at as usize..meta.end() as usize]);
            starts[(u32::from(meta.bucket) / GROUP) as usize + 1] += 1;
        }
        for meta in &sorted {
            meta.push_bytes(&mut block);
        }
        self.keys.sort_unstable_by_key(|key| (key.content, key.record_id));
        for key in &self.keys {
            Key { meta: place_of[key.meta as usize], ..*key }.push_bytes(&mut block);
        }
        let mut before = 0;
        for start in starts {
            before += start;
            block.extend_from_slice(&before.to_le_bytes());
        }
        (self.metas, self.keys, self.payload) = (Vec::new(), Vec::new(), Vec::new());
        (layout, block)
    }
}

/// Tokens `range` of a stored document of `tokens` tokens: appends their ids, and puts their role
/// runs into `runs`.
pub fn decode(
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
    let mut at = 0;
    while at < range.end {
        let word = take_varint(&mut bytes);
        let (next, role) = (
            at + (word >> 2) as usize,
            Role::from_u8((word & 3) as u8).expect("two bits are a role"),
        );
        push_run(runs, next.min(range.end).saturating_sub(at.max(range.start)) as u32, role);
        at = next;
    }
}

/// LEB128.
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document(ids: &[u32]) -> Document {
        let mut document = Document::default();
        for (at, &id) in ids.iter().enumerate() {
            document.ids.push(id);
            push_run(&mut document.runs, 1, if at % 3 == 0 { Role::Data } else { Role::Target });
        }
        document
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_by_bucket_from_memory_and_from_a_file(
            documents in prop::collection::vec((prop::collection::vec(0u32..65_536, 1..9), 0u16..60, any::<u8>()), 0..40),
            wide: bool, keyed: bool, buckets in (0u32..60, 0u32..61), split in 0u128..256,
        ) {
            let id_type = if wide { IdType::U32 } else { IdType::U16 };
            let mut writer = PartWriter::new(id_type);
            for (nth, (ids, bucket, content)) in documents.iter().enumerate() {
                let meta = DocMeta { record_id: nth as u64, bucket: *bucket, ..DocMeta::default() };
                let key = Key { content: u128::from(*content), record_id: nth as u64, ..Key::default() };
                writer.push(meta, keyed.then_some(key), &document(ids));
            }
            let (layout, block) = writer.finish();
            prop_assert_eq!(layout.bytes(), block.len() as u64);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("block");
            crate::write::write_file(&path, &[&[7; 5], block.as_slice()].concat()).unwrap();
            let in_file = Part { layout, block: Block::File(Arc::new(path), 5) };
            let in_memory = Part { layout, block: Block::Memory(Arc::new(block)) };
            for part in [in_file, in_memory] {
                let metas = part.metas(0..documents.len()).unwrap();
                prop_assert!(metas.is_sorted_by_key(|meta| (meta.bucket, meta.record_id)));
                let buckets = buckets.0..buckets.1.max(buckets.0);
                let found = part.in_buckets(buckets.clone()).unwrap();
                let expected: Vec<(u32, DocMeta)> = (0..).zip(metas.iter().copied())
                    .filter(|(_, meta)| buckets.contains(&u32::from(meta.bucket))).collect();
                prop_assert_eq!(&found, &expected);
                let mut places = Vec::new();
                let bytes = part.documents(found.iter().map(|(_, meta)| meta), |at| places.push(at)).unwrap();
                let (mut ids, mut runs) = (Vec::new(), Vec::new());
                for ((_, meta), at) in found.iter().zip(places) {
                    let (bytes, expected) = (&bytes[at as usize..], document(&documents[meta.record_id as usize].0));
                    let tokens = meta.tokens as usize;
                    for range in [0..tokens, tokens / 3..tokens, 0..tokens.div_ceil(2)] {
                        ids.clear();
                        decode(bytes, tokens, range.clone(), id_type, &mut ids, &mut runs);
                        prop_assert_eq!(&ids[..], &expected.ids[range.clone()]);
                        let roles = |runs: &[Run]| -> Vec<Role> {
                            runs.iter().flat_map(|run| std::iter::repeat_n(run.role, run.len as usize)).collect()
                        };
                        prop_assert_eq!(&roles(&runs)[..], &roles(&expected.runs)[range]);
                    }
                }
                let mut seen = Vec::new();
                for contents in [0..=split, split + 1..=u128::MAX] {
                    let mut keys = part.keys(&contents, 3).unwrap();
                    while let Some(key) = keys.advance().unwrap() {
                        prop_assert_eq!(metas[key.meta as usize].record_id, key.record_id);
                        prop_assert_eq!(metas[key.meta as usize].tokens, key.tokens);
                        prop_assert_eq!(u128::from(documents[key.record_id as usize].2), key.content);
                        prop_assert!(contents.contains(&key.content));
                        seen.push((key.content, key.record_id));
                    }
                }
                prop_assert_eq!(seen.len(), if keyed { documents.len() } else { 0 });
                prop_assert!(seen.is_sorted());
            }
        }
    }
}
