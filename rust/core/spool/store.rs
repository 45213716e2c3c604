//! `Store`: the spools of a run, in memory up to a budget, files beyond it.
//!
//! Each spool is named by all that its content depends on (tokenizer, templates, input, range…), so that a file left
//! by a killed run, or kept by an earlier one, is taken as it is. A file appears under its name when it is whole. Once the
//! budget is passed every spool becomes a file: memory is given back, and nothing mapped is lost with the process.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::part::Block;
use super::part::Layout;
use super::{Head, Key, Part, PartWriter, Tally};
use crate::disk::{self, NewFile};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::schema::IdType;
use crate::tokenize::Document;

/// A part is closed once it holds this much.
const PART_BYTES: usize = 16 << 20;
/// Ends every spool file, after the length of the index before it.
const MAGIC: &[u8; 8] = b"sabispl1";

/// The documents of a split, or its fitted documents, and what happened to its records.
#[derive(Debug, Clone, Default)]
pub struct Spool {
    /// The documents.
    pub parts: Vec<Part>,
    /// What happened to the records.
    pub tally: Tally,
}

/// The end of a spool file: what it holds and where.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    parts: Vec<(u64, Layout)>,
    tally: Tally,
}

/// The spools of a run.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Folders of other datasets whose kept spools may serve.
    others: Vec<PathBuf>,
    id_type: IdType,
    budget: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    spilling: bool,
    /// Finished spools by slot.
    spools: Vec<(usize, String, Spool)>,
}

impl Store {
    /// A store that spills into `folder` once it holds more than `budget` bytes; 0 spills everything.
    #[must_use]
    pub fn new(folder: PathBuf, others: Vec<PathBuf>, id_type: IdType, budget: u64) -> Self {
        let held = Held { spilling: budget == 0, ..Held::default() };
        Self { folder, others, id_type, budget, held: Mutex::new(held) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds the spools")
    }

    /// Whether the spool `name` is there already; if so it takes its slot. A spool of another dataset is linked if
    /// spools are to be kept.
    pub fn take_finished(&self, slot: usize, name: &str, keep: bool) -> Result<bool> {
        let own = self.folder.join(name);
        let mut path = own.clone();
        if !own.is_file() {
            let Some(other) = self.others.iter().map(|other| other.join(name)).find(|other| other.is_file()) else {
                return Ok(false);
            };
            path = other;
            if keep {
                disk::link(&path, &own).map_err(|error| Error::io(Kind::Output, &own, &error))?;
                path = own;
            }
        }
        let spool = read_index(&path)?;
        self.held().spools.push((slot, name.to_owned(), spool));
        Ok(true)
    }

    /// Begins the spool `name`, which takes `slot` when it is finished.
    #[must_use]
    pub fn begin(&self, slot: usize, name: String) -> SpoolWriter<'_> {
        let open = PartWriter::new(self.id_type);
        SpoolWriter { store: self, slot, name, open, parts: Vec::new(), tally: Tally::default(), file: None }
    }

    /// Whether `bytes` more may be held in memory. If not, all that is held becomes files.
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

    fn spill(&self, held: &mut Held) -> Result<()> {
        for (_, name, spool) in &mut held.spools {
            if spool.parts.iter().any(|part| matches!(part.block, Block::Memory(_))) {
                let mut file = SpoolFile::create(&self.folder.join(&*name))?;
                for part in &spool.parts {
                    file.push(part)?;
                }
                *spool = file.finish(std::mem::take(&mut spool.tally))?;
            }
        }
        Ok(())
    }

    /// Writes what is in memory to files, so that it outlives the process.
    pub fn keep(&self) -> Result<()> {
        let mut held = self.held();
        held.spilling = true;
        self.spill(&mut held)
    }

    /// The finished spools by slot; those of slots that never were finished are empty.
    #[must_use]
    pub fn spools(&self, slots: usize) -> Vec<Spool> {
        let mut spools = vec![Spool::default(); slots];
        for (slot, _, spool) in &self.held().spools {
            spools[*slot] = spool.clone();
        }
        spools
    }

    /// The finished spool of a slot, while others are being made.
    ///
    /// # Panics
    /// If the slot was not filled.
    #[must_use]
    pub fn spool(&self, slot: usize) -> Spool {
        let held = self.held();
        let found = held.spools.iter().find(|(at, _, _)| *at == slot);
        found.map(|(_, _, spool)| spool.clone()).expect("the slot was filled")
    }
}

/// A spool being made.
#[derive(Debug)]
pub struct SpoolWriter<'a> {
    store: &'a Store,
    slot: usize,
    name: String,
    open: PartWriter,
    /// In memory; none once there is a file.
    parts: Vec<Part>,
    tally: Tally,
    file: Option<SpoolFile>,
}

impl SpoolWriter<'_> {
    /// Its counts.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Adds a document; `head` and `key` say everything but where its tokens lie.
    pub fn push(&mut self, head: Head, key: Option<Key>, document: &Document) -> Result<()> {
        self.open.push(head, key, document);
        if self.open.held() >= PART_BYTES { self.close_part() } else { Ok(()) }
    }

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
            None => self.file.insert(SpoolFile::create(&self.store.folder.join(&self.name))?),
        };
        self.parts.drain(..).try_for_each(|part| file.push(&part))
    }

    /// Ends the spool: it is whole, and takes its slot.
    pub fn finish(mut self) -> Result<()> {
        self.close_part()?;
        let spool = match self.file {
            Some(file) => file.finish(self.tally)?,
            None => Spool { parts: self.parts, tally: self.tally },
        };
        let mut held = self.store.held();
        held.spools.push((self.slot, self.name, spool));
        // Another spool may have passed the budget since this one's last part was let in.
        if held.spilling { self.store.spill(&mut held) } else { Ok(()) }
    }
}

/// A spool file being written.
#[derive(Debug)]
struct SpoolFile {
    path: Arc<PathBuf>,
    file: BufWriter<NewFile>,
    written: u64,
    parts: Vec<(u64, Layout)>,
}

impl SpoolFile {
    fn create(path: &Path) -> Result<Self> {
        let file = NewFile::create(path).map_err(|error| Error::io(Kind::Output, path, &error))?;
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(Self { path: Arc::new(path.to_owned()), file, written: 0, parts: Vec::new() })
    }

    fn push(&mut self, part: &Part) -> Result<()> {
        let bytes = part.bytes()?;
        self.file.write_all(&bytes).map_err(|error| Error::io(Kind::Output, &self.path, &error))?;
        self.parts.push((self.written, part.layout));
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self, tally: Tally) -> Result<Spool> {
        let index = Index { parts: self.parts, tally };
        let end = || -> std::io::Result<()> {
            let text = serde_json::to_vec(&index)?;
            self.file.write_all(&text)?;
            self.file.write_all(&(text.len() as u64).to_le_bytes())?;
            self.file.write_all(MAGIC)?;
            self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
        };
        end().map_err(|error| Error::io(Kind::Output, &self.path, &error))?;
        Ok(index.into_spool(&self.path))
    }
}

impl Index {
    fn into_spool(self, path: &Arc<PathBuf>) -> Spool {
        let part = |(offset, layout)| Part { layout, block: Block::File(Arc::clone(path), offset) };
        Spool { parts: self.parts.into_iter().map(part).collect(), tally: self.tally }
    }
}

/// The spool that the file `path` holds.
fn read_index(path: &Path) -> Result<Spool> {
    let broken = || {
        Error::dataset("is no whole spool of this version")
            .file(path.display().to_string())
            .remedy("remove the folder .work and pack again")
    };
    let size = files::file_size(path)?;
    let before_end = size.checked_sub(16).ok_or_else(broken)?;
    let end = files::bytes_at(path, before_end, 16)?;
    let (len, magic) = end.split_first_chunk().ok_or_else(broken)?;
    let start = before_end.checked_sub(u64::from_le_bytes(*len)).filter(|_| magic == MAGIC).ok_or_else(broken)?;
    let text = files::bytes_at(path, start, (before_end - start) as usize)?;
    let index: Index = serde_json::from_slice(&text).map_err(|_| broken())?;
    let ends = index.parts.iter().map(|(offset, layout)| offset + layout.bytes()).max().unwrap_or(0);
    if ends != start {
        return Err(broken());
    }
    Ok(index.into_spool(&Arc::new(path.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Role;
    use crate::schema::push_run;

    fn documents(spool: &Spool) -> Vec<(u64, Vec<u32>)> {
        let mut found = Vec::new();
        for part in &spool.parts {
            for head in part.heads(0..part.layout.heads as usize).unwrap() {
                let (mut at, mut ids, mut runs) = (0, Vec::new(), Vec::new());
                let bytes = part.documents([&head].into_iter(), |place| at = place as usize).unwrap();
                let tokens = head.tokens as usize;
                super::super::decode(&bytes[at..], tokens, 0..tokens, IdType::U16, &mut ids, &mut runs);
                found.push((head.record_id, ids));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_is_read_does_not_depend_on_the_budget_and_files_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let fill = |store: &Store| {
            for slot in 0..4 {
                let mut writer = store.begin(slot, format!("spool-{slot}"));
                for nth in 0..50_u64 {
                    let mut document = Document { ids: vec![nth as u32; 100], ..Document::default() };
                    push_run(&mut document.runs, 100, Role::Target);
                    let head = Head { record_id: nth, bucket: (nth * 37 % 4096) as u16, ..Head::default() };
                    writer.push(head, None, &document).unwrap();
                }
                writer.tally().records = 50;
                writer.finish().unwrap();
            }
        };
        let store = |budget| Store::new(folder.path().to_owned(), Vec::new(), IdType::U16, budget);
        let in_memory = store(1 << 20);
        fill(&in_memory);
        assert_eq!(files::names_in(folder.path()).len(), 0, "a spool within its budget is no file");
        let expected: Vec<_> = in_memory.spools(4).iter().map(documents).collect();
        for budget in [0, 20_000, 30_000] {
            let spilled = store(budget);
            fill(&spilled);
            assert_eq!(files::names_in(folder.path()).len(), 4);
            let again = store(budget);
            for slot in 0..4 {
                assert!(again.take_finished(slot, &format!("spool-{slot}"), false).unwrap());
            }
            assert!(!again.take_finished(5, "spool-5", false).unwrap());
            for spools in [spilled.spools(4), again.spools(4)] {
                assert!(spools.iter().all(|spool| spool.tally.records == 50));
                assert_eq!(spools.iter().map(documents).collect::<Vec<_>>(), expected);
            }
            for slot in 0..4 {
                disk::remove(&folder.path().join(format!("spool-{slot}"))).unwrap();
            }
        }
    }

    #[test]
    fn a_cut_file_is_no_spool() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        SpoolFile::create(&path).unwrap().finish(Tally::default()).unwrap();
        let whole = crate::files::whole_bytes(&path).unwrap();
        assert!(read_index(&path).is_ok());
        for len in 0..whole.len() {
            crate::write::write_file(&path, &whole[..len]).unwrap();
            assert!(read_index(&path).is_err(), "{len} of {} bytes", whole.len());
        }
    }
}
