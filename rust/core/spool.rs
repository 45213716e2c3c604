//! The spool: the documents of one input split, compact, ordered by virtual bucket.
//!
//! Holds one copy of a document: ids in the dataset's type, roles as run-lengths, and a head with what the later
//! stages decide by. Copies are made when rows are.

use crate::schema::{Drop, IdType, Role, Run, Side, push_run};
use crate::tokenize::Document;

/// Virtual buckets of a dataset. A shard is made of whole buckets, so this bounds how evenly shards are filled.
pub const BUCKETS: u32 = 4096;

/// What is known of a document without its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The xxh3-128 of its record's normalised content.
    pub key: u128,
    /// Its record.
    pub record_id: u64,
    /// Where its tokens start in the spool.
    at: u64,
    /// Its tokens.
    pub tokens: u32,
    /// Those that are learnt.
    pub targets: u32,
    /// Which window of its record it is.
    pub window: u32,
    /// Its virtual bucket, below [`BUCKETS`].
    pub bucket: u16,
    /// Its side of the validation split.
    pub side: Side,
    /// Whether its record was shortened to fit a row.
    pub truncated: bool,
}

/// A record that was dropped, as an example for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The reason it is counted under.
    pub reason: Drop,
    /// Its offset in the input.
    pub offset: u64,
    /// The input's index in the plan.
    pub input: usize,
    /// What exactly was wrong.
    pub why: String,
}

/// Examples kept per reason.
pub const EXAMPLES: usize = 3;

/// What happened to the records of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records read.
    pub records: u64,
    /// Records dropped, by the order of [`Drop::ALL`].
    pub drops: [u64; Drop::ALL.len()],
    /// The first of them, by reason.
    pub examples: Vec<Dropped>,
}

impl Tally {
    /// Counts a dropped record.
    pub fn drop_record(&mut self, dropped: Dropped) {
        self.drops[dropped.reason as usize] += 1;
        self.keep_example(dropped);
    }

    fn keep_example(&mut self, dropped: Dropped) {
        if self.examples.iter().filter(|example| example.reason == dropped.reason).count() < EXAMPLES {
            self.examples.push(dropped);
        }
    }

    /// Adds a later split of the same source.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        for (count, more) in self.drops.iter_mut().zip(other.drops) {
            *count += more;
        }
        for example in &other.examples {
            self.keep_example(example.clone());
        }
    }
}

/// The documents of a split, by bucket; within a bucket in the order they were read.
#[derive(Debug)]
pub struct Spool {
    /// The source.
    pub source: usize,
    /// The input's index in the plan.
    pub input: usize,
    /// What happened to its records.
    pub tally: Tally,
    heads: Vec<Head>,
    bytes: Vec<u8>,
    id_type: IdType,
}

/// Collects a split's documents in reading order.
#[derive(Debug)]
pub struct SpoolWriter {
    spool: Spool,
}

impl SpoolWriter {
    /// An empty spool.
    #[must_use]
    pub fn new(source: usize, input: usize, id_type: IdType) -> Self {
        let spool = Spool { source, input, tally: Tally::default(), heads: Vec::new(), bytes: Vec::new(), id_type };
        Self { spool }
    }

    /// The split's counts.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.spool.tally
    }

    /// Adds a document; `head` says everything but where its tokens lie.
    pub fn push(&mut self, head: HeadOf, document: &Document) {
        let spool = &mut self.spool;
        spool.heads.push(Head {
            key: head.key,
            record_id: head.record_id,
            at: spool.bytes.len() as u64,
            tokens: document.ids.len() as u32,
            targets: head.targets,
            window: head.window,
            bucket: head.bucket,
            side: head.side,
            truncated: head.truncated,
        });
        match spool.id_type {
            IdType::U16 => spool.bytes.extend(document.ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
            IdType::U32 => spool.bytes.extend(document.ids.iter().flat_map(|id| id.to_le_bytes())),
        }
        for run in &document.runs {
            push_varint(&mut spool.bytes, u64::from(run.len) << 2 | run.role as u64);
        }
    }

    /// The spool, ordered by bucket.
    #[must_use]
    pub fn finish(self) -> Spool {
        let Self { mut spool } = self;
        let mut ends: Vec<u64> = spool.heads.iter().skip(1).map(|head| head.at).collect();
        ends.push(spool.bytes.len() as u64);
        let mut order: Vec<usize> = (0..spool.heads.len()).collect();
        order.sort_by_key(|&at| spool.heads[at].bucket);
        let mut bytes = Vec::with_capacity(spool.bytes.len());
        let mut heads = Vec::with_capacity(spool.heads.len());
        for at in order {
            let head = spool.heads[at];
            heads.push(Head { at: bytes.len() as u64, ..head });
            bytes.extend_from_slice(&spool.bytes[head.at as usize..ends[at] as usize]);
        }
        (spool.heads, spool.bytes) = (heads, bytes);
        spool
    }
}

/// What the writer of a spool says of a document.
#[derive(Debug, Clone, Copy)]
pub struct HeadOf {
    /// The xxh3-128 of its record's normalised content.
    pub key: u128,
    /// Its record.
    pub record_id: u64,
    /// Its learnt tokens.
    pub targets: u32,
    /// Which window of its record it is.
    pub window: u32,
    /// Its virtual bucket.
    pub bucket: u16,
    /// Its side of the validation split.
    pub side: Side,
    /// Whether its record was shortened to fit a row.
    pub truncated: bool,
}

impl Spool {
    /// The heads, by bucket.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Indices of the heads whose bucket lies in `buckets`.
    #[must_use]
    pub fn in_buckets(&self, buckets: std::ops::Range<u32>) -> std::ops::Range<usize> {
        let from = self.heads.partition_point(|head| u32::from(head.bucket) < buckets.start);
        let to = self.heads.partition_point(|head| u32::from(head.bucket) < buckets.end);
        from..to
    }

    /// Appends a document's ids and gives its role runs in `runs`.
    pub fn read(&self, head: &Head, ids: &mut Vec<u32>, runs: &mut Vec<Run>) {
        let tokens = head.tokens as usize;
        let bytes = &self.bytes[head.at as usize..];
        let (stored, mut rest) = bytes.split_at(tokens * self.id_type.width());
        match self.id_type {
            IdType::U16 => ids.extend(stored.as_chunks().0.iter().map(|id| u32::from(u16::from_le_bytes(*id)))),
            IdType::U32 => ids.extend(stored.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id))),
        }
        runs.clear();
        let mut left = head.tokens;
        while left > 0 {
            let word = take_varint(&mut rest);
            let (len, role) = ((word >> 2) as u32, Role::from_u8((word & 3) as u8).expect("two bits are a role"));
            push_run(runs, len, role);
            left -= len;
        }
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

    proptest! {
        #[test]
        fn what_goes_in_comes_out_by_bucket(
            documents in prop::collection::vec((prop::collection::vec(0u32..65_536, 1..9), 0u16..4), 0..20), wide: bool,
        ) {
            let id_type = if wide { IdType::U32 } else { IdType::U16 };
            let mut writer = SpoolWriter::new(0, 0, id_type);
            let head = |nth: usize, bucket| {
                HeadOf { key: 0, record_id: nth as u64, targets: 0, window: 0, bucket, side: Side::Train, truncated: false }
            };
            let documents: Vec<(Document, u16)> = documents.into_iter().map(|(ids, bucket)| {
                let mut document = Document::default();
                for (at, &id) in ids.iter().enumerate() {
                    document.ids.push(id);
                    push_run(&mut document.runs, 1, if at % 3 == 0 { Role::Data } else { Role::Target });
                }
                (document, bucket)
            }).collect();
            for (nth, (document, bucket)) in documents.iter().enumerate() {
                writer.push(head(nth, *bucket), document);
            }
            let spool = writer.finish();
            prop_assert!(spool.heads().is_sorted_by_key(|head| (head.bucket, head.record_id)));
            prop_assert_eq!(spool.heads().len(), documents.len());
            for head in spool.heads() {
                let mut found = Document::default();
                spool.read(head, &mut found.ids, &mut found.runs);
                prop_assert_eq!(&found, &documents[head.record_id as usize].0);
            }
            prop_assert_eq!(spool.in_buckets(1..3).len(), documents.iter().filter(|(_, b)| (1..3).contains(b)).count());
        }
    }
}
