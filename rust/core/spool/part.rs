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
use crate::storage::Storage;

/// Buckets are found by groups of this many.
pub(super) const GROUP: u32 = 16;
pub(super) const GROUPS: usize = (BUCKETS / GROUP) as usize;
/// Metas that are held at once.
const METAS_AT_ONCE: usize = 1 << 14;
/// Documents this close together are read at once.
const GAP: u64 = 64 << 10;

/// How a block is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// Bytes of tokens.
    pub payload: u64,
    /// Documents.
    pub documents: u32,
    /// Content keys: one for each record, or none.
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
    pub(crate) fn bytes(&self) -> u64 {
        self.groups_at() + (GROUPS as u64 + 1) * 4
    }

    /// The same of a layout that was read, if a block can be divided so.
    #[must_use]
    pub(crate) fn checked_bytes(&self) -> Option<u64> {
        let is_possible = u32::try_from(self.payload).is_ok() && self.keys <= self.documents;
        is_possible.then(|| self.bytes())
    }
}

/// Where a block lies.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// In memory.
    Memory(Arc<Vec<u8>>),
    /// In a file, from an offset on.
    File(Arc<PathBuf>, u64),
}

/// Documents of a split.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// How its block is divided.
    pub layout: Layout,
    /// Its block.
    pub block: Block,
}

impl Part {
    fn read(&self, storage: &dyn Storage, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        match &self.block {
            Block::Memory(bytes) => Ok(bytes[range.start as usize..range.end as usize].into()),
            Block::File(path, offset) => {
                let len = (range.end - range.start) as usize;
                Ok(storage.bytes_at(path, offset + range.start, len)?.into())
            }
        }
    }

    /// The whole block.
    pub(crate) fn bytes(&self, storage: &dyn Storage) -> Result<Cow<'_, [u8]>> {
        self.read(storage, 0..self.layout.bytes())
    }

    /// Calls `each` with the documents of every record, in the part's order, and with the index of
    /// the first of them.
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

    /// The metas at `range`.
    pub(crate) fn metas(&self, storage: &dyn Storage, range: Range<usize>) -> Result<Vec<DocMeta>> {
        let at = self.layout.metas_at();
        let bytes = self.read(
            storage,
            at + (range.start * DocMeta::BYTES) as u64..at + (range.end * DocMeta::BYTES) as u64,
        )?;
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
        let at = self.layout.groups_at();
        let first = u64::from(buckets.start / GROUP);
        let end = u64::from((buckets.end - 1) / GROUP) + 1;
        let bytes = self.read(storage, at + first * 4..at + end * 4 + 4)?;
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

    /// Bytes that hold the stored documents of `metas`, which come in the part's order: the block,
    /// if it is in memory; else theirs, one after another. Calls `place` with where each starts.
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
            while let Some(next) = metas.next_if(|next| u64::from(next.at) <= end + GAP) {
                end = next.end();
                held.push(next);
            }
            let start = u64::from(first.at);
            let bytes = self.read(storage, start..end)?;
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
    pub(crate) fn keys<'a>(
        &'a self,
        storage: &'a dyn Storage,
        contents: &RangeInclusive<u128>,
        at_once: u64,
    ) -> Result<Keys<'a>> {
        let next = self.key_where(storage, |content| content >= *contents.start())?;
        let end = self.key_where(storage, |content| content > *contents.end())?;
        Ok(Keys { part: self, storage, next, end, at_once, held: Vec::new().into_iter() })
    }

    /// The index of the first key whose content `is_past`, as all later ones are.
    fn key_where(&self, storage: &dyn Storage, is_past: impl Fn(u128) -> bool) -> Result<u64> {
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
                self.read_keys(storage, middle..middle + 1)?.iter().all(|key| is_past(key.content));
            if is_past { end = middle } else { first = middle + 1 }
        }
        Ok(first)
    }

    fn read_keys(&self, storage: &dyn Storage, range: Range<u64>) -> Result<Vec<Key>> {
        let (at, size) = (self.layout.keys_at(), Key::BYTES as u64);
        let bytes = self.read(storage, at + range.start * size..at + range.end * size)?;
        Ok(bytes.as_chunks().0.iter().map(Key::from_bytes).collect())
    }
}

/// The content keys of a part, in order, read as they are needed.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    part: &'a Part,
    storage: &'a dyn Storage,
    next: u64,
    end: u64,
    at_once: u64,
    held: std::vec::IntoIter<Key>,
}

impl Keys<'_> {
    /// The next key, or `None` after the last.
    pub(crate) fn advance(&mut self) -> Result<Option<Key>> {
        if let Some(key) = self.held.next() {
            return Ok(Some(key));
        }
        let next = (self.next + self.at_once).min(self.end);
        self.held = self.part.read_keys(self.storage, self.next..next)?.into_iter();
        self.next = next;
        Ok(self.held.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{IdType, Role, Run, push_run};
    use crate::spool::{PartWriter, decode};
    use crate::storage::Local;
    use crate::tokenize::Document;
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
                writer.push([(meta, &document(ids))], keyed.then_some(key));
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
                let expected: Vec<(u32, DocMeta)> = (0..).zip(metas.iter().copied())
                    .filter(|(_, meta)| buckets.contains(&u32::from(meta.bucket))).collect();
                prop_assert_eq!(&found, &expected);
                let mut places = Vec::new();
                let bytes = part.documents(&Local, found.iter().map(|(_, meta)| meta), |at| places.push(at)).unwrap();
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
                    let mut keys = part.keys(&Local, &contents, 3).unwrap();
                    while let Some(key) = keys.advance().unwrap() {
                        prop_assert_eq!(metas[key.meta as usize].record_id, key.record_id);
                        prop_assert_eq!(metas[key.meta as usize].tokens, key.longest);
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
