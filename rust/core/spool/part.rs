//! `Part`: some documents of a split as one block of bytes, ordered by virtual bucket, in memory or
//! in a file.
//!
//! The block holds, one after another: the documents' tokens (ids in the dataset's type, then role
//! run-lengths), their metas, their content keys in order of key, for each group of buckets the
//! index of its first meta, and their band hashes in order. Every question to a part is answered
//! from that block alone, so its place makes no difference.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BUCKETS, Band, DocMeta, Key, Sorted};
use crate::error::Result;
use crate::storage::Storage;

/// Buckets in a group: metas are found by the group of their bucket.
pub(super) const GROUP: u32 = 16;
/// Groups of buckets.
pub(super) const GROUPS: usize = (BUCKETS / GROUP) as usize;
/// Metas that are held in memory at a time.
const METAS_AT_ONCE: usize = 1 << 14;
/// The largest gap, in bytes, between documents that one read fetches together.
const GAP: u64 = 64 << 10;

/// The division of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// The number of bytes of tokens.
    pub payload: u64,
    /// The number of documents.
    pub documents: u32,
    /// The number of content keys: one for each record, or none at all.
    pub keys: u32,
    /// The number of band hashes: as many for each record, or none at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bands: u32,
}

/// Returns whether a count is left out of an index.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Layout {
    /// Returns the byte at which the metas start.
    fn metas_at(&self) -> u64 {
        self.payload
    }

    /// Returns the byte at which the content keys start.
    pub(super) fn keys_at(&self) -> u64 {
        self.metas_at() + u64::from(self.documents) * DocMeta::BYTES as u64
    }

    /// Returns the byte at which the bounds of the groups start.
    fn groups_at(&self) -> u64 {
        self.keys_at() + u64::from(self.keys) * Key::BYTES as u64
    }

    /// Returns the byte at which the band hashes start.
    pub(super) fn bands_at(&self) -> u64 {
        self.groups_at() + (GROUPS as u64 + 1) * 4
    }

    /// Returns the size of the block in bytes.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.bands_at() + u64::from(self.bands) * Band::BYTES as u64
    }

    /// Returns the size of the block of a layout read from a file; `None` if no block can have
    /// this layout.
    #[must_use]
    pub(crate) fn checked_bytes(&self) -> Option<u64> {
        // Metas count bytes of tokens in 32 bits; a record has a document at least.
        let is_possible = u32::try_from(self.payload).is_ok() && self.keys <= self.documents;
        is_possible.then(|| self.bytes())
    }
}

/// The place of a block.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// In memory.
    Memory(Arc<Vec<u8>>),
    /// In a file, from this offset on.
    File(Arc<PathBuf>, u64),
}

/// Documents of a split.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The division of its block.
    pub layout: Layout,
    /// The block that holds everything.
    pub block: Block,
}

impl Part {
    /// Returns the part of this layout in a file, from `offset` on.
    #[must_use]
    pub(crate) fn in_file(layout: Layout, file: Arc<PathBuf>, offset: u64) -> Self {
        Self { layout, block: Block::File(file, offset) }
    }

    /// Returns the file of the part, and its offset there; `None` if it is in memory.
    #[must_use]
    pub(crate) fn file(&self) -> Option<(&Path, u64)> {
        match &self.block {
            Block::Memory(_) => None,
            Block::File(file, offset) => Some((file.as_path(), *offset)),
        }
    }

    /// Reads a range of the block.
    pub(super) fn read(&self, storage: &dyn Storage, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        match &self.block {
            Block::Memory(bytes) => Ok(bytes[range.start as usize..range.end as usize].into()),
            Block::File(path, offset) => {
                let len = (range.end - range.start) as usize;
                Ok(storage.bytes_at(path, offset + range.start, len)?.into())
            }
        }
    }

    /// Reads the whole block.
    pub(crate) fn bytes(&self, storage: &dyn Storage) -> Result<Cow<'_, [u8]>> {
        self.read(storage, 0..self.layout.bytes())
    }

    /// Calls `each` with the documents of every record, in the part's order. Its first argument is
    /// the index of the first of these documents.
    pub(crate) fn for_each_record(
        &self,
        storage: &dyn Storage,
        mut each: impl FnMut(u32, &[DocMeta]),
    ) -> Result<()> {
        let count = self.layout.documents as usize;
        let (mut held, mut first) = (Vec::new(), 0);
        for start in (0..count).step_by(METAS_AT_ONCE) {
            let end = (start + METAS_AT_ONCE).min(count);
            held.extend(self.metas(storage, start..end)?);
            let mut done = 0;
            for documents in held.chunk_by(DocMeta::is_of_record_of) {
                // The last record may go on in the next metas.
                if done + documents.len() == held.len() && end < count {
                    break;
                }
                each((first + done) as u32, documents);
                done += documents.len();
            }
            held.drain(..done);
            first += done;
        }
        Ok(())
    }

    /// Reads the metas with these indices.
    pub(crate) fn metas(&self, storage: &dyn Storage, range: Range<usize>) -> Result<Vec<DocMeta>> {
        let place = |index: usize| self.layout.metas_at() + (index * DocMeta::BYTES) as u64;
        let bytes = self.read(storage, place(range.start)..place(range.end))?;
        Ok(bytes.as_chunks().0.iter().map(DocMeta::from_bytes).collect())
    }

    /// Returns the metas whose bucket lies in `buckets`, and the index of the first of them.
    pub(crate) fn in_buckets(
        &self,
        storage: &dyn Storage,
        buckets: Range<u32>,
    ) -> Result<(u32, Vec<DocMeta>)> {
        if buckets.is_empty() || self.layout.documents == 0 {
            return Ok((0, Vec::new()));
        }
        let start = self.layout.groups_at();
        let first = u64::from(buckets.start / GROUP);
        let end = u64::from((buckets.end - 1) / GROUP) + 1;
        // A bound of four bytes for each group, and one more that ends the last group.
        let bytes = self.read(storage, start + first * 4..start + end * 4 + 4)?;
        let bounds = bytes.as_chunks().0;
        let index = |bound: Option<&[u8; 4]>| {
            u32::from_le_bytes(*bound.expect("a group has two bounds")) as usize
        };
        let range = index(bounds.first())..index(bounds.last());
        let mut metas = self.metas(storage, range.clone())?;
        // A group has buckets before and after the wanted ones; metas are in order of bucket.
        let before = metas.partition_point(|meta| u32::from(meta.bucket) < buckets.start);
        metas.truncate(metas.partition_point(|meta| u32::from(meta.bucket) < buckets.end));
        metas.drain(..before);
        Ok(((range.start + before) as u32, metas))
    }

    /// Returns bytes that hold the stored documents of `metas`, which come in the part's order: the
    /// whole block, if it is in memory; else these documents alone, one after another. Calls
    /// `place` with the start of each document in the bytes.
    pub(crate) fn documents<'a>(
        &self,
        storage: &dyn Storage,
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
            // Reading over a gap is faster than another read.
            while let Some(next) = metas.next_if(|next| u64::from(next.at) <= end + GAP) {
                end = next.end();
                held.push(next);
            }
            let start = u64::from(first.at);
            let bytes = self.read(storage, start..end)?;
            for meta in &held {
                place(out.len() as u32);
                let (from, to) = (u64::from(meta.at) - start, meta.end() - start);
                out.extend_from_slice(&bytes[from as usize..to as usize]);
            }
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{IdType, Role, Run, push_run};
    use crate::spool::{Cursor, PartWriter, decode};
    use crate::storage::Local;
    use crate::tokenize::Document;
    use proptest::prelude::*;

    fn document(ids: &[u32]) -> Document {
        let mut document = Document::default();
        for (nth, &id) in ids.iter().enumerate() {
            document.ids.push(id);
            push_run(&mut document.runs, 1, if nth % 3 == 0 { Role::Data } else { Role::Target });
        }
        document
    }

    /// Ids, bucket and content of documents.
    fn documents() -> impl Strategy<Value = Vec<(Vec<u32>, u16, u8)>> {
        let ids = prop::collection::vec(0u32..65_536, 1..9);
        prop::collection::vec((ids, 0u16..60, any::<u8>()), 0..40)
    }

    fn roles(runs: &[Run]) -> Vec<Role> {
        runs.iter().flat_map(|run| std::iter::repeat_n(run.role, run.len as usize)).collect()
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_by_bucket_from_memory_and_from_a_file(
            documents in documents(),
            wide: bool,
            keyed: bool,
            buckets in (0u32..60, 0u32..61),
            split in 0u128..256,
        ) {
            let id_type = if wide { IdType::U32 } else { IdType::U16 };
            let mut writer = PartWriter::new(id_type);
            for (record_id, (ids, bucket, content)) in (0..).zip(&documents) {
                let meta = DocMeta { record_id, bucket: *bucket, ..DocMeta::default() };
                let key = Key { content: u128::from(*content), record_id, ..Key::default() };
                let bands = [u64::from(*content) << 56, record_id];
                let bands: &[u64] = if keyed { &bands } else { &[] };
                writer.push([(meta, &document(ids))], keyed.then_some(key), bands);
            }
            let (layout, block) = writer.finish();
            prop_assert_eq!(layout.bytes(), block.len() as u64);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("block");
            crate::storage::LOCAL.write_file(&path, &[&[7; 5], block.as_slice()].concat()).unwrap();
            let in_file = Part { layout, block: Block::File(Arc::new(path), 5) };
            let in_memory = Part { layout, block: Block::Memory(Arc::new(block)) };
            for part in [in_file, in_memory] {
                let metas = part.metas(&Local, 0..documents.len()).unwrap();
                prop_assert!(metas.is_sorted_by_key(|meta| (meta.bucket, meta.record_id)));
                let buckets = buckets.0..buckets.1.max(buckets.0);
                let (first, found) = part.in_buckets(&Local, buckets.clone()).unwrap();
                let found: Vec<(u32, DocMeta)> = (first..).zip(found).collect();
                let is_wanted =
                    |(_, meta): &(u32, DocMeta)| buckets.contains(&u32::from(meta.bucket));
                let expected: Vec<(u32, DocMeta)> =
                    (0..).zip(metas.iter().copied()).filter(is_wanted).collect();
                prop_assert_eq!(&found, &expected);
                let mut places = Vec::new();
                let place = |start| places.push(start);
                let wanted = found.iter().map(|(_, meta)| meta);
                let bytes = part.documents(&Local, wanted, place).unwrap();
                let (mut ids, mut runs) = (Vec::new(), Vec::new());
                for ((_, meta), start) in found.iter().zip(places) {
                    let bytes = &bytes[start as usize..];
                    let expected = document(&documents[meta.record_id as usize].0);
                    let tokens = meta.tokens as usize;
                    for range in [0..tokens, tokens / 3..tokens, 0..tokens.div_ceil(2)] {
                        ids.clear();
                        decode(bytes, tokens, range.clone(), id_type, &mut ids, &mut runs);
                        prop_assert_eq!(&ids[..], &expected.ids[range.clone()]);
                        prop_assert_eq!(&roles(&runs)[..], &roles(&expected.runs)[range]);
                    }
                }
                let mut seen = Vec::new();
                for contents in [0..=split, split + 1..=u128::MAX] {
                    let mut keys = Cursor::<Key>::new(&part, &Local, &contents, 3).unwrap();
                    while let Some(key) = keys.advance().unwrap() {
                        let meta = &metas[key.meta as usize];
                        prop_assert_eq!(meta.record_id, key.record_id);
                        prop_assert_eq!(meta.tokens, key.longest);
                        let content = documents[key.record_id as usize].2;
                        prop_assert_eq!(u128::from(content), key.content);
                        prop_assert!(contents.contains(&key.content));
                        seen.push((key.content, key.record_id));
                    }
                }
                prop_assert_eq!(seen.len(), if keyed { documents.len() } else { 0 });
                prop_assert!(seen.is_sorted());
                let mut bands = Vec::new();
                let split = split << 120;
                for hashes in [0..=split, split + 1..=u128::MAX] {
                    let mut cursor = Cursor::<Band>::new(&part, &Local, &hashes, 3).unwrap();
                    while let Some(band) = cursor.advance().unwrap() {
                        prop_assert!(hashes.contains(&(u128::from(band.hash) << 64)));
                        bands.push((band.hash, metas[band.meta as usize].record_id));
                    }
                }
                prop_assert!(bands.is_sorted_by_key(|(hash, _)| *hash));
                let records = (0..).zip(&documents);
                let mut expected: Vec<(u64, u64)> = records
                    .flat_map(|(id, (.., content))| [(u64::from(*content) << 56, id), (id, id)])
                    .filter(|_| keyed)
                    .collect();
                expected.sort_unstable();
                bands.sort_unstable();
                prop_assert_eq!(bands, expected);
            }
        }
    }
}
