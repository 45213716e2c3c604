//! `Store`: the spools of a run, in memory up to a budget, files beyond it.
//!
//! The name of a spool is made of everything that its content depends on (tokenizer, templates,
//! input, range…). So a file left by a killed run, or kept by an earlier run, serves as it is, once
//! every byte of it was checked. A file appears under its name when it is whole. Once the budget is
//! passed, every spool becomes a file: memory is freed, and mapped documents outlive the process.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::part::{Block, Layout};
use super::{DocMeta, Dropped, Key, Listing, Lowest, Part, PartWriter, Tally};
use crate::error::{Error, ErrorKind, Result};
use crate::monitor::Monitor;
use crate::schema::{DropReason, IdType};
use crate::storage::{NewFile, Storage, finish};
use crate::tokenize::Document;

/// The size at which a part is closed.
const PART_BYTES: usize = 16 << 20;
/// The size of parts that processes of their own make: shards read less often of fewer parts.
const SHARED_PART_BYTES: usize = 64 << 20;
/// The last eight bytes of every spool file.
const MAGIC: &[u8; 8] = b"sabispl3";
/// The size of the end of a spool file: checksum and length of the index, and [`MAGIC`].
const END: u64 = 24;
/// The largest index (80 bytes for each part, and examples of dropped records), and the largest
/// list of dropped records.
const MAX_INDEX: u64 = 256 << 20;

/// The whole documents of an input split, or its fitted ones, with the counts of its records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spool {
    /// The parts that hold the documents.
    pub parts: Vec<Part>,
    /// The counts of the records.
    pub tally: Tally,
    /// The lowest dropped records of each reason.
    drops: Drops,
}

/// The place of a list of dropped records.
#[derive(Debug, Clone)]
enum Drops {
    /// In memory.
    Memory(Arc<Vec<Dropped>>),
    /// In a file, as JSON: its offset and length.
    File(Arc<PathBuf>, u64, u64),
}

impl Default for Drops {
    fn default() -> Self {
        Self::Memory(Arc::default())
    }
}

/// The index near the end of a spool file.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// Offset, layout and xxh3-64 of the block of each part.
    parts: Vec<(u64, Layout, u64)>,
    tally: Tally,
    /// Length and xxh3-64 of the list of dropped records, which follows the parts.
    drops: Option<(u64, u64)>,
}

impl Spool {
    /// Returns the spool with `path` as the name of its file.
    fn moved_to(mut self, path: &Arc<PathBuf>) -> Self {
        for part in &mut self.parts {
            if let Block::File(file, _) = &mut part.block {
                *file = Arc::clone(path);
            }
        }
        if let Drops::File(file, ..) = &mut self.drops {
            *file = Arc::clone(path);
        }
        self
    }

    /// Adds the dropped records, which are of `source`, to a listing.
    pub(crate) fn list_drops(
        &self,
        source: usize,
        listing: &Listing,
        storage: &dyn Storage,
    ) -> Result<()> {
        let read: Vec<Dropped>;
        let dropped = match &self.drops {
            Drops::Memory(dropped) => dropped,
            Drops::File(path, offset, len) => {
                let bytes = storage.bytes_at(path, *offset, *len as usize)?;
                let list = serde_json::from_slice(&bytes);
                read = list.map_err(|_| broken(path, "its list of drops cannot be read"))?;
                &read
            }
        };
        for Dropped { reason, record_id, why } in dropped {
            listing.add(source, *reason, *record_id, || why.clone());
        }
        Ok(())
    }
}

/// Returns the bytes that a list of dropped records takes in memory, roughly.
fn bytes_of(dropped: &[Dropped]) -> u64 {
    let bytes = |dropped: &Dropped| size_of::<Dropped>() + dropped.why.len();
    dropped.iter().map(bytes).sum::<usize>() as u64
}

/// The spools of a run.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    storage: &'a dyn Storage,
    /// The folder of spool files.
    folder: PathBuf,
    /// Folders of other datasets whose kept spools may serve.
    others: Vec<PathBuf>,
    id_type: IdType,
    /// Bytes that may be held in memory.
    budget: u64,
    part_bytes: usize,
    /// Whether files are synced.
    synced: bool,
    held: Mutex<Held>,
}

/// The state of a store that its writers share.
#[derive(Debug, Default)]
struct Held {
    /// Bytes let into memory so far.
    bytes: u64,
    /// Whether the budget was passed: every spool becomes a file.
    spilling: bool,
    /// Slot and name of each finished spool.
    spools: Vec<(usize, String, Spool)>,
}

impl<'a> Store<'a> {
    /// Returns a store that spills into `folder` once it holds more than `budget` bytes; 0 spills
    /// everything.
    #[must_use]
    pub(crate) fn new(
        storage: &'a dyn Storage,
        folder: PathBuf,
        others: Vec<PathBuf>,
        id_type: IdType,
        budget: u64,
    ) -> Self {
        let held = Held { spilling: budget == 0, ..Held::default() };
        let part_bytes = PART_BYTES;
        let synced = true;
        Self {
            storage,
            folder,
            others,
            id_type,
            budget,
            part_bytes,
            synced,
            held: Mutex::new(held),
        }
    }

    /// Returns a store whose spools are files in `folder`, for other processes to read.
    #[must_use]
    pub(crate) fn shared(
        storage: &'a dyn Storage,
        folder: PathBuf,
        others: Vec<PathBuf>,
        id_type: IdType,
    ) -> Self {
        let store = Self::new(storage, folder, others, id_type, 0);
        Self { part_bytes: SHARED_PART_BYTES, ..store }
    }

    /// Returns the store, whose files are synced or not. They need not be where no dataset keeps them: a
    /// run that goes on looks at each of their bytes.
    #[must_use]
    pub(crate) fn synced(self, synced: bool) -> Self {
        Self { synced, ..self }
    }

    /// Begins the file of the spool `name`.
    fn create(&self, name: &str) -> Result<SpoolFile<'a>> {
        SpoolFile::create(self.storage, &self.folder.join(name), self.synced)
    }

    /// Locks the shared state.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds the spools")
    }

    /// Puts the spool `name` into its slot if an earlier run made it. Returns whether it did.
    ///
    /// A spool of another dataset is linked into the folder if `keep`. A damaged spool of another
    /// dataset is an error, since this run must not mend it.
    pub(crate) fn take_finished(
        &self,
        slot: usize,
        name: &str,
        keep: bool,
        monitor: &Monitor,
    ) -> Result<bool> {
        let Some(place) = self.place_of(name) else { return Ok(false) };
        let own = self.folder.join(name);
        let spool = match read_spool(self.storage, &place, monitor) {
            // The spool is made again, in the place of the damaged file.
            Err(error) if place == own && error.kind != ErrorKind::Interrupted => return Ok(false),
            Ok(spool) if place != own && keep => {
                let linked = self.storage.link(&place, &own);
                linked.map_err(|error| Error::io(ErrorKind::Output, &own, &error))?;
                spool.moved_to(&Arc::new(own))
            }
            spool => spool?,
        };
        self.held().spools.push((slot, name.to_owned(), spool));
        Ok(true)
    }

    /// Returns the path of the spool `name`, of this dataset or of another; `None` if nobody made
    /// it.
    #[must_use]
    pub(crate) fn place_of(&self, name: &str) -> Option<PathBuf> {
        let folders = std::iter::once(&self.folder).chain(&self.others);
        folders.map(|folder| folder.join(name)).find(|path| self.storage.is_file(path))
    }

    /// Puts the spool `name` into its slot, which another process made or checked in this run. Only
    /// its index is read.
    pub(crate) fn take_made(&self, slot: usize, name: &str) -> Result<()> {
        let path = self.place_of(name).unwrap_or_else(|| self.folder.join(name));
        let (index, _) = read_index(self.storage, &path)?;
        self.held().spools.push((slot, name.to_owned(), index.into_spool(&Arc::new(path))));
        Ok(())
    }

    /// Begins the spool `name`, which takes `slot` when it is finished.
    #[must_use]
    pub(crate) fn begin(&self, slot: usize, name: String) -> SpoolWriter<'_> {
        let open = PartWriter::new(self.id_type);
        SpoolWriter {
            store: self,
            slot,
            name,
            open,
            parts: Vec::new(),
            tally: Tally::default(),
            lowest: Lowest::default(),
            file: None,
        }
    }

    /// Returns whether `bytes` more may be held in memory. If not, every finished spool becomes a
    /// file.
    fn admit(&self, bytes: u64) -> Result<bool> {
        let mut held = self.held();
        held.bytes += bytes;
        if !held.spilling && held.bytes > self.budget {
            held.spilling = true;
        }
        if held.spilling {
            self.spill(&mut held)?;
        }
        Ok(!held.spilling)
    }

    /// Writes the finished spools that are in memory to files.
    fn spill(&self, held: &mut Held) -> Result<()> {
        for (_, name, spool) in &mut held.spools {
            if spool.parts.iter().any(|part| matches!(part.block, Block::Memory(_))) {
                let mut file = self.create(name)?;
                for part in &spool.parts {
                    file.push(part)?;
                }
                let Drops::Memory(drops) = std::mem::take(&mut spool.drops) else { continue };
                *spool = file.finish(std::mem::take(&mut spool.tally), &drops)?;
            }
        }
        Ok(())
    }

    /// Writes all spools to files, so that they outlive the process.
    pub(crate) fn keep(&self) -> Result<()> {
        let mut held = self.held();
        held.spilling = true;
        self.spill(&mut held)
    }

    /// Returns the finished spools by slot; a slot that was never filled has an empty spool.
    #[must_use]
    pub(crate) fn spools(&self, slots: usize) -> Vec<Spool> {
        let mut spools = vec![Spool::default(); slots];
        for (slot, _, spool) in &self.held().spools {
            spools[*slot] = spool.clone();
        }
        spools
    }

    /// Returns the finished spool of a slot, while others are being made.
    ///
    /// # Panics
    /// If the slot was not filled.
    #[must_use]
    pub(crate) fn spool(&self, slot: usize) -> Spool {
        let held = self.held();
        let found = held.spools.iter().find(|(known, _, _)| *known == slot);
        found.map(|(_, _, spool)| spool.clone()).expect("the slot was filled")
    }
}

/// A spool being made.
#[derive(Debug)]
pub(crate) struct SpoolWriter<'a> {
    store: &'a Store<'a>,
    slot: usize,
    name: String,
    /// The part that documents are added to.
    open: PartWriter,
    /// Closed parts in memory; none once there is a file.
    parts: Vec<Part>,
    tally: Tally,
    /// The lowest dropped records of each reason.
    lowest: Lowest,
    /// The file, once the store spills.
    file: Option<SpoolFile<'a>>,
}

impl SpoolWriter<'_> {
    /// Returns the counts, to be added to.
    pub(crate) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Counts a dropped record, and lists it if it is among the lowest of its reason.
    pub(crate) fn drop_record(&mut self, reason: DropReason, record_id: u64, why: String) {
        self.tally.drop_record(reason, record_id, || why.clone());
        self.lowest.add(reason, record_id, || why);
    }

    /// Adds the documents of a record. The place of their tokens is filled in.
    pub(crate) fn push<'d>(
        &mut self,
        documents: impl IntoIterator<Item = (DocMeta, &'d Document)>,
        key: Option<Key>,
        bands: &[u64],
    ) -> Result<()> {
        self.open.push(documents, key, bands);
        // A record's documents lie in one part, so that settling finds them together.
        if self.open.held() >= self.store.part_bytes { self.close_part() } else { Ok(()) }
    }

    /// Closes the open part, and keeps it in memory or writes it.
    fn close_part(&mut self) -> Result<()> {
        let (layout, block) = self.open.finish();
        self.open = PartWriter::new(self.store.id_type);
        let part = Part { layout, block: Block::Memory(Arc::new(block)) };
        let in_memory = self.file.is_none() && self.store.admit(layout.bytes())?;
        self.parts.push(part);
        if in_memory { Ok(()) } else { self.flush() }
    }

    /// Moves the parts in memory to the file.
    fn flush(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(self.store.create(&self.name)?),
        };
        self.parts.drain(..).try_for_each(|part| file.push(&part))
    }

    /// Ends the spool and puts it into its slot.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.close_part()?;
        let drops = self.lowest.into_records();
        let spool = if let Some(file) = self.file {
            file.finish(self.tally, &drops)?
        } else {
            self.store.admit(bytes_of(&drops))?;
            let drops = Drops::Memory(Arc::new(drops));
            Spool { parts: self.parts, tally: self.tally, drops }
        };
        let mut held = self.store.held();
        held.spools.push((self.slot, self.name, spool));
        // Another spool may have passed the budget since this one's last part was let in.
        if held.spilling { self.store.spill(&mut held) } else { Ok(()) }
    }
}

/// A spool file being written.
#[derive(Debug)]
struct SpoolFile<'a> {
    storage: &'a dyn Storage,
    path: Arc<PathBuf>,
    file: BufWriter<Box<dyn NewFile>>,
    written: u64,
    parts: Vec<(u64, Layout, u64)>,
    synced: bool,
}

impl<'a> SpoolFile<'a> {
    /// Begins the file `path`, which is synced or not before it is published.
    fn create(storage: &'a dyn Storage, path: &Path, synced: bool) -> Result<Self> {
        let file =
            storage.create(path).map_err(|error| Error::io(ErrorKind::Output, path, &error))?;
        let file = BufWriter::with_capacity(256 << 10, file);
        let path = Arc::new(path.to_owned());
        Ok(Self { storage, path, file, written: 0, parts: Vec::new(), synced })
    }

    /// Writes the block of a part.
    fn push(&mut self, part: &Part) -> Result<()> {
        let bytes = part.bytes(self.storage)?;
        self.file
            .write_all(&bytes)
            .map_err(|error| Error::io(ErrorKind::Output, &self.path, &error))?;
        self.parts.push((self.written, part.layout, xxh3_64(&bytes)));
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes the dropped records and the index, and publishes the file. Returns the spool that
    /// reads from it.
    fn finish(mut self, tally: Tally, drops: &[Dropped]) -> Result<Spool> {
        let mut index = Index { parts: self.parts, tally, drops: None };
        let end = || -> std::io::Result<()> {
            if !drops.is_empty() {
                let text = serde_json::to_vec(drops)?;
                self.file.write_all(&text)?;
                index.drops = Some((text.len() as u64, xxh3_64(&text)));
            }
            let text = serde_json::to_vec(&index)?;
            self.file.write_all(&text)?;
            self.file.write_all(&xxh3_64(&text).to_le_bytes())?;
            self.file.write_all(&(text.len() as u64).to_le_bytes())?;
            self.file.write_all(MAGIC)?;
            let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            if self.synced { finish(file) } else { file.publish() }
        };
        end().map_err(|error| Error::io(ErrorKind::Output, &self.path, &error))?;
        Ok(index.into_spool(&self.path))
    }
}

impl Index {
    /// Returns the byte after the last part.
    fn parts_end(&self) -> u64 {
        self.parts.last().map_or(0, |(offset, layout, _)| offset + layout.bytes())
    }

    /// Returns the spool of the file `path`.
    fn into_spool(self, path: &Arc<PathBuf>) -> Spool {
        let part =
            |(offset, layout, _)| Part { layout, block: Block::File(Arc::clone(path), offset) };
        let end = self.parts_end();
        let drops = self.drops.map(|(len, _)| Drops::File(Arc::clone(path), end, len));
        Spool {
            parts: self.parts.into_iter().map(part).collect(),
            tally: self.tally,
            drops: drops.unwrap_or_default(),
        }
    }
}

/// Returns the error of a spool file that cannot be used.
fn broken(path: &Path, what: &str) -> Error {
    Error::dataset(format!("is no whole spool of this version: {what}"))
        .file(path.display().to_string())
        .remedy("remove this file: what it held is tokenized again from the corpus")
}

/// Reads the spool in the file `path` and checks each of its bytes.
fn read_spool(storage: &dyn Storage, path: &Path, monitor: &Monitor) -> Result<Spool> {
    let (index, ranges) = read_index(storage, path)?;
    let sums = storage.xxh3_64_of_ranges(path, &ranges, || monitor.check())?;
    let written = index.parts.iter().map(|(_, _, sum)| *sum);
    let written = written.chain(index.drops.map(|(_, sum)| sum));
    match written.zip(sums).position(|(written, is)| written != is) {
        None => Ok(index.into_spool(&Arc::new(path.to_owned()))),
        Some(nth) => {
            let what = format!("the checksum of its part {nth} does not fit, so it was damaged");
            Err(broken(path, &what))
        }
    }
}

/// Reads the index of the spool file `path`. Returns it with the byte ranges of its parts, and of
/// its list of dropped records if it has one.
fn read_index(storage: &dyn Storage, path: &Path) -> Result<(Index, Vec<Range<u64>>)> {
    let broken = |what| broken(path, what);
    let before_end =
        storage.file_size(path)?.checked_sub(END).ok_or_else(|| broken("it was cut"))?;
    let end = storage.bytes_at(path, before_end, END as usize)?;
    let [sum, len, magic]: [u64; 3] =
        std::array::from_fn(|nth| u64::from_le_bytes(end.as_chunks().0[nth]));
    if magic.to_le_bytes() != *MAGIC {
        return Err(broken("it was cut, or is of another version"));
    }
    let start = before_end
        .checked_sub(len)
        .filter(|_| len <= MAX_INDEX)
        .ok_or_else(|| broken("it has no index"))?;
    let text = storage.bytes_at(path, start, len as usize)?;
    if xxh3_64(&text) != sum {
        return Err(broken("the checksum of its index does not fit, so it was damaged"));
    }
    let index: Index =
        serde_json::from_slice(&text).map_err(|_| broken("its index cannot be read"))?;
    // A sealed index may still be of another program: parts must lie one after another, up to it.
    let mut ranges = Vec::with_capacity(index.parts.len());
    let mut next = 0;
    for (offset, layout, _) in &index.parts {
        let end = layout.checked_bytes().and_then(|bytes| offset.checked_add(bytes));
        let end = end.filter(|end| *offset == next && *end <= start);
        let end = end.ok_or_else(|| broken("its parts are not where its index says"))?;
        ranges.push(next..end);
        next = end;
    }
    if let Some((len, _)) = index.drops {
        let end = next.checked_add(len).filter(|end| len <= MAX_INDEX && *end <= start);
        let end = end.ok_or_else(|| broken("its drops are not where its index says"))?;
        ranges.push(next..end);
        next = end;
    }
    if next == start { Ok((index, ranges)) } else { Err(broken("its parts do not fill it")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Role, push_run};
    use crate::spool::decode;
    use crate::storage::LOCAL;

    fn documents(spool: &Spool) -> Vec<(u64, Vec<u32>)> {
        let mut found = Vec::new();
        for part in &spool.parts {
            for meta in part.metas(LOCAL, 0..part.layout.documents as usize).unwrap() {
                let (mut start, mut ids, mut runs) = (0, Vec::new(), Vec::new());
                let place = |found| start = found as usize;
                let bytes = part.documents(LOCAL, [&meta].into_iter(), place).unwrap();
                let (tokens, bytes) = (meta.tokens as usize, &bytes[start..]);
                decode(bytes, tokens, 0..tokens, IdType::U16, &mut ids, &mut runs);
                found.push((meta.record_id, ids));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_is_read_does_not_depend_on_the_budget_and_files_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let fill = |store: &Store<'_>| {
            for slot in 0..4 {
                let mut writer = store.begin(slot, format!("spool-{slot}"));
                for nth in 0..50_u64 {
                    let mut document =
                        Document { ids: vec![nth as u32; 100], ..Document::default() };
                    push_run(&mut document.runs, 100, Role::Target);
                    let meta = DocMeta {
                        record_id: nth,
                        bucket: (nth * 37 % 4096) as u16,
                        ..DocMeta::default()
                    };
                    writer.push([(meta, &document)], None, &[]).unwrap();
                }
                writer.tally().records = 50;
                writer.finish().unwrap();
            }
        };
        let store =
            |budget| Store::new(LOCAL, folder.path().to_owned(), Vec::new(), IdType::U16, budget);
        let in_memory = store(1 << 20);
        fill(&in_memory);
        assert_eq!(LOCAL.names_in(folder.path()).len(), 0, "a spool within its budget is no file");
        let expected: Vec<_> = in_memory.spools(4).iter().map(documents).collect();
        for budget in [0, 20_000, 30_000] {
            let spilled = store(budget);
            fill(&spilled);
            assert_eq!(LOCAL.names_in(folder.path()).len(), 4);
            let again = store(budget);
            for slot in 0..4 {
                assert!(
                    again
                        .take_finished(slot, &format!("spool-{slot}"), false, &Monitor::default())
                        .unwrap()
                );
            }
            assert!(!again.take_finished(5, "spool-5", false, &Monitor::default()).unwrap());
            for spools in [spilled.spools(4), again.spools(4)] {
                assert!(spools.iter().all(|spool| spool.tally.records == 50));
                assert_eq!(spools.iter().map(documents).collect::<Vec<_>>(), expected);
            }
            for slot in 0..4 {
                LOCAL.remove_all(&folder.path().join(format!("spool-{slot}"))).unwrap();
            }
        }
    }

    /// Writes a spool file of a few documents and returns its bytes.
    fn written(path: &Path) -> Vec<u8> {
        let mut file = SpoolFile::create(LOCAL, path, true).unwrap();
        for nth in 0..2_u64 {
            let mut writer = PartWriter::new(IdType::U16);
            let mut document = Document { ids: vec![7; 5], ..Document::default() };
            push_run(&mut document.runs, 5, Role::Target);
            let key = Key { content: u128::from(nth), record_id: nth, ..Key::default() };
            let meta = DocMeta { record_id: nth, ..DocMeta::default() };
            writer.push([(meta, &document)], Some(key), &[]);
            let (layout, block) = writer.finish();
            file.push(&Part { layout, block: Block::Memory(Arc::new(block)) }).unwrap();
        }
        let dropped = |nth| Dropped {
            reason: DropReason::Malformed,
            record_id: nth,
            why: format!("fault {nth}"),
        };
        file.finish(Tally::default(), &[dropped(3), dropped(5)]).unwrap();
        LOCAL.whole_bytes(path).unwrap()
    }

    #[test]
    fn a_cut_file_is_no_spool() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let whole = written(&path);
        let read = || read_spool(LOCAL, &path, &Monitor::default());
        let spool = read().unwrap();
        assert_eq!(spool.parts.len(), 2);
        let listing = Listing::new(1);
        spool.list_drops(0, &listing, LOCAL).unwrap();
        let ids: Vec<u64> = listing.take(0).iter().map(|dropped| dropped.record_id).collect();
        assert_eq!(ids, [3, 5]);
        for len in (0..whole.len()).step_by(7).chain(whole.len() - 40..whole.len()) {
            LOCAL.write_file(&path, &whole[..len]).unwrap();
            assert!(read().is_err(), "{len} of {} bytes", whole.len());
        }
        LOCAL.write_file(&path, &[whole.as_slice(), b"x"].concat()).unwrap();
        assert!(read().is_err(), "a byte more");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let whole = written(&path);
        let index = whole.len() - 500;
        for byte in (0..index).step_by(13).chain(index..whole.len()) {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            LOCAL.write_file(&path, &flipped).unwrap();
            let error = read_spool(LOCAL, &path, &Monitor::default()).unwrap_err();
            assert!(
                error.message.contains("no whole spool") && error.remedy.is_some(),
                "byte {byte}: {error}"
            );
        }
    }
}
