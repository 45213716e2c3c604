//! `WorkFolder`: a dataset folder while its dataset is being made.
//!
//! Everything is made under `OUT/.work`. Its `state.json` lets a stopped run go on, if nothing that
//! the dataset depends on has changed. Once the dataset is whole it is moved into place, the
//! manifest last; the next run ends a move that was stopped. Nothing outside OUT is touched: OUT
//! may be a link to a folder, but nothing in the work folder may be a link, and links in a dataset
//! are removed, never followed.

use std::io::ErrorKind::{AlreadyExists, NotADirectory};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::manifest::{DroppedEntry, MANIFEST_FILE, Manifest};
use super::seal::{sealed_text, unsealed};
use super::shard::Summing;
use super::state::{Stage, State};
use super::{DROPPED_FILE, TOKENIZER_FILE, failed, shard_name};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::schema::Split;
use crate::storage::{Lock, Storage, is_listed, is_temporary};
use crate::tasks;
use crate::tokenize::hex;

/// The folder of unfinished work inside OUT.
pub(crate) const WORK: &str = ".work";
/// The file with the state of the run.
pub(super) const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const SPOOL: &str = "spool";
/// The folder of lists about dropped records.
const LISTS: &str = "dropped";
/// The file with the records that are contaminated, in their folder.
const CONTAMINATED: &str = "contaminated.jsonl";
/// Files that are moved at a time where each is copied.
const MOVES: usize = 8;
/// The folder with a sealed note for each finished shard.
const DONE: &str = "done";
/// The folder with a sealed note for each input whose checksum is known.
const INPUTS: &str = "inputs";
/// The file with the mapped corpus and the decisions over it, for other processes.
const SETTLED: &str = "settled";

/// The task that a run has in its folder.
#[derive(Debug)]
pub(crate) enum Survey {
    /// To make a dataset anew. If the folder keeps a spool, its state is given.
    Fresh(Option<State>),
    /// To go on with a stopped run, whose state is given.
    Unfinished(State),
    /// To check a finished dataset that the run would make again.
    Finished,
}

/// Looks at `out` and returns the task that a run has there.
///
/// Refuses a folder that must not be written to: it must be missing or empty, or with `overwrite`
/// or `resume` a folder of ours.
pub(crate) fn survey(
    storage: &dyn Storage,
    out: &Path,
    overwrite: bool,
    resume: bool,
) -> Result<Survey> {
    // An empty path leads to no folder, and joined with a name to the working folder: its own files
    // would be taken for ours.
    if out.as_os_str().is_empty() {
        return Err(Error::output("the folder of the dataset has an empty name")
            .remedy("name a folder; \".\" is the working folder"));
    }
    let shown = out.display().to_string();
    if !is_listed(out) {
        return Err(Error::output("is on a web server, which is only read from")
            .file(shown)
            .remedy("name a local folder, or one that begins with s3://, gs:// or az://"));
    }
    // What a store cannot tell is no empty folder.
    let is_there = storage.surely_exists(out).map_err(|error| failed(out, &error))?;
    if is_there && !storage.is_folder(out) {
        return Err(Error::output("is not a folder")
            .file(shown)
            .remedy("name another folder for the dataset")
            .io_kind(NotADirectory));
    }
    if !is_there && storage.is_link(out) {
        return Err(Error::output("is a link that leads nowhere")
            .file(shown)
            .remedy("remove the link, or make the folder that it names"));
    }
    let state = state_of_ours(storage, out)?;
    // A kept spool belongs to a finished dataset, which is looked at below.
    if let Some(state) = state.clone().filter(|state| state.stage != Stage::Kept) {
        return match (resume, overwrite) {
            (true, _) => Ok(Survey::Unfinished(state)),
            (false, true) => Ok(Survey::Fresh(None)),
            (false, false) => Err(Error::output("holds an unfinished run")
                .file(shown)
                .remedy("pass --resume to go on with it, or --overwrite to start again")
                .io_kind(AlreadyExists)),
        };
    }
    if storage.is_file(&out.join(MANIFEST_FILE)) && Manifest::is_ours(storage, out) {
        return match (resume, overwrite) {
            (true, _) => Ok(Survey::Finished),
            (false, true) => Ok(Survey::Fresh(state)),
            (false, false) => Err(Error::output("holds a dataset")
                .file(shown)
                .remedy("pass --overwrite to replace it")
                .io_kind(AlreadyExists)),
        };
    }
    if storage.names_surely_in(out)?.iter().any(|name| name != WORK) {
        return Err(Error::output("is not empty and holds no dataset of sabiprep")
            .file(shown)
            .remedy(
                "name an empty or a new folder; --overwrite replaces only a folder with a dataset \
                 of sabiprep",
            )
            .io_kind(AlreadyExists));
    }
    Ok(Survey::Fresh(state))
}

/// Returns the state in the work folder of `out`, if any. Refuses a work folder of other programs.
fn state_of_ours(storage: &dyn Storage, out: &Path) -> Result<Option<State>> {
    let work = out.join(WORK);
    refuse_links(storage, &work)?;
    let state = State::of(storage, out)?;
    // A run that is killed before it writes its state leaves no other files.
    let is_ours = |name: &String| name == LOCK_FILE || is_temporary(name);
    let others = || storage.names_surely_in(&work).map(|names| !names.iter().all(is_ours));
    if state.is_none() && storage.is_surely_there(&work)? && others()? {
        return Err(Error::output("was not made by sabiprep, and its name is needed")
            .file(work.display().to_string())
            .remedy("move it away, or name another folder for the dataset"));
    }
    Ok(state)
}

/// Refuses a work folder that leads out of OUT by a link.
fn refuse_links(storage: &dyn Storage, work: &Path) -> Result<()> {
    let folders =
        Split::ALL.map(Split::name).into_iter().chain([SPOOL, DONE, LISTS, INPUTS, SETTLED]);
    let folders = folders.chain([LOCK_FILE, STATE_FILE]);
    let paths = std::iter::once(work.to_owned()).chain(folders.map(|name| work.join(name)));
    match paths.into_iter().find(|path| storage.is_link(path)) {
        None => Ok(()),
        Some(link) => {
            Err(Error::output("is a link: what a run makes and removes must lie in its own folder")
                .file(link.display().to_string())
                .remedy("remove the link; what it leads to stays"))
        }
    }
}

/// The work folder of a run, locked against other runs.
#[derive(Debug)]
pub(crate) struct WorkFolder<'a> {
    storage: &'a dyn Storage,
    /// The dataset folder.
    out: PathBuf,
    /// The folders that did not exist before, the innermost first.
    made: Vec<PathBuf>,
    state: State,
    /// The state of the kept spool that the folder held before.
    kept: Option<State>,
    /// None for a process that takes part in the run of another.
    _lock: Option<Box<dyn Lock>>,
}

impl<'a> WorkFolder<'a> {
    /// Begins a run in `out`, or goes on with the run that `survey` found.
    pub(crate) fn open(
        storage: &'a dyn Storage,
        out: &Path,
        survey: &Survey,
        state: State,
    ) -> Result<Self> {
        let work = out.join(WORK);
        let made = missing_folders(storage, out);
        let at = |error: &std::io::Error| failed(out, error);
        storage.create_folder(&work).map_err(|error| at(&error))?;
        let lock =
            storage.lock(&work.join(LOCK_FILE)).map_err(|error| at(&error))?.ok_or_else(|| {
                Error::output("another sabiprep is packing into it")
                    .file(out.display().to_string())
                    .remedy("wait until it has ended, or name another folder")
            })?;
        let kept = match survey {
            Survey::Fresh(kept) => kept.clone(),
            Survey::Unfinished(_) | Survey::Finished => None,
        };
        let folder = Self { storage, out: out.to_owned(), made, state, kept, _lock: Some(lock) };
        let goes_on = matches!(survey, Survey::Unfinished(_));
        folder.clear(goes_on).map_err(|error| at(&error))?;
        folder.write_state()?;
        // A dataset on its way into place may have left its folders already.
        if folder.state.stage == Stage::Working {
            folder.make_folders()?;
        }
        Ok(folder)
    }

    /// Takes part in the run of other processes in `out`: with `state` as its state if it has none
    /// yet. Takes no lock.
    pub(crate) fn join(storage: &'a dyn Storage, out: &Path, state: State) -> Result<Self> {
        let folder =
            Self { storage, out: out.to_owned(), made: Vec::new(), state, kept: None, _lock: None };
        if State::of(storage, out)?.is_none() {
            let work = folder.work();
            storage.create_folder(&work).map_err(|error| failed(out, &error))?;
            // Before any other file: it tells the other processes that the folder is ours.
            folder.write_state()?;
        }
        folder.make_folders()?;
        Ok(folder)
    }

    /// Makes the folders inside the work folder.
    fn make_folders(&self) -> Result<()> {
        for name in Split::ALL.map(Split::name).into_iter().chain([SPOOL, DONE, INPUTS]) {
            self.storage
                .create_folder(&self.work().join(name))
                .map_err(|error| failed(&self.out, &error))?;
        }
        Ok(())
    }

    /// Removes the temporary files of a killed run; unless the run goes on, its results too. Spools
    /// stay: they are named by their content.
    fn clear(&self, goes_on: bool) -> std::io::Result<()> {
        let (storage, work) = (self.storage, self.work());
        let splits = Split::ALL.map(Split::name);
        if !goes_on {
            let files = [DONE, INPUTS, SETTLED, TOKENIZER_FILE, DROPPED_FILE, LISTS, MANIFEST_FILE];
            for name in splits.into_iter().chain(files) {
                storage.remove_all(&work.join(name))?;
            }
        }
        self.clear_temporary([".", SPOOL, DONE, INPUTS, LISTS].into_iter().chain(splits))
    }

    /// Removes the temporary files that killed processes have left in folders of the work folder.
    fn clear_temporary(&self, folders: impl Iterator<Item = &'static str>) -> std::io::Result<()> {
        for folder in folders.map(|folder| self.work().join(folder)) {
            for name in self.storage.names_in(&folder).iter().filter(|name| is_temporary(name)) {
                self.storage.remove_if_there(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Writes the state to its file.
    fn write_state(&self) -> Result<()> {
        self.storage.write_file(&self.work().join(STATE_FILE), self.state.to_text().as_bytes())
    }

    /// Returns the path of the work folder.
    fn work(&self) -> PathBuf {
        self.out.join(WORK)
    }

    /// Returns the folder of spool files.
    #[must_use]
    pub(crate) fn spool(&self) -> PathBuf {
        spool_of(&self.out)
    }

    /// Returns the path at which shard `index` of `split` is written.
    #[must_use]
    pub(crate) fn shard_path(&self, split: Split, index: usize) -> PathBuf {
        self.work().join(shard_name(split, index))
    }

    /// Returns the path at which the list of dropped records is written.
    #[must_use]
    pub(crate) fn dropped_path(&self) -> PathBuf {
        self.work().join(DROPPED_FILE)
    }

    /// Writes the list of the contaminated records, of as many `records`, and returns its entry in
    /// the manifest.
    pub(crate) fn write_hits(
        &self,
        records: u64,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<DroppedEntry> {
        let folder = self.work().join(LISTS);
        let path = folder.join(CONTAMINATED);
        let made = || {
            self.storage.create_folder(&folder)?;
            let mut out = Summing::create(self.storage, &path)?;
            write(&mut out)?;
            out.publish()
        };
        let (bytes, xxh3_128) = made().map_err(|error| failed(&path, &error))?;
        Ok(DroppedEntry { file: format!("{LISTS}/{CONTAMINATED}"), records, bytes, xxh3_128 })
    }

    /// Returns the path of the note about a finished shard.
    fn done_path(&self, split: Split, index: usize) -> PathBuf {
        self.work().join(DONE).join(format!("{}-{index:05}.json", split.name()))
    }

    /// Writes the note about a finished shard: its `sums`.
    pub(crate) fn save(&self, split: Split, index: usize, sums: &impl Serialize) -> Result<()> {
        let text = sealed_text(sums).expect("sums are plain data");
        self.storage.write_file(&self.done_path(split, index), text.as_bytes())
    }

    /// Reads the note about a shard; `None` if the shard was not finished or the note was changed.
    #[must_use]
    pub(crate) fn saved<T: DeserializeOwned>(&self, split: Split, index: usize) -> Option<T> {
        note(self.storage, &self.done_path(split, index))
    }

    /// Returns the path of the file with the mapped corpus and the decisions over it.
    #[must_use]
    pub(crate) fn settled_path(&self) -> PathBuf {
        self.work().join(SETTLED)
    }

    /// Removes all files of a run that can never go on. A spool that was kept before stays.
    pub(crate) fn abandon(self) {
        let work = self.work();
        // Best effort: files that cannot be removed are an unfinished run, which --overwrite takes.
        let remove = || -> Result<()> {
            if let Some(kept) = &self.kept {
                let files = [DONE, INPUTS, SETTLED, DROPPED_FILE, LISTS];
                for name in Split::ALL.map(Split::name).into_iter().chain(files) {
                    self.storage
                        .remove_all(&work.join(name))
                        .map_err(|error| failed(&work, &error))?;
                }
                return self.storage.write_file(&work.join(STATE_FILE), kept.to_text().as_bytes());
            }
            self.storage.remove_all(&work).map_err(|error| failed(&work, &error))?;
            self.made.iter().try_for_each(|folder| {
                self.storage.remove_folder(folder).map_err(|e| failed(folder, &e))
            })
        };
        let _ = remove();
    }

    /// Moves the finished dataset into place, in the stead of an old one.
    pub(crate) fn commit(
        mut self,
        tokenizer: &[u8],
        manifest: &Manifest,
        spools: &[String],
    ) -> Result<()> {
        self.storage.write_file(&self.work().join(TOKENIZER_FILE), tokenizer)?;
        self.storage.write_file(&self.work().join(MANIFEST_FILE), manifest.to_text().as_bytes())?;
        // Workers may have been killed since the run began; nothing of theirs goes into place.
        let moved = Split::ALL.map(Split::name).into_iter().chain([LISTS]);
        self.clear_temporary(moved).map_err(|error| failed(&self.out, &error))?;
        self.state.stage = Stage::Moving;
        self.write_state()?;
        // Deletes cached spools that this dataset does not use.
        let folder = self.spool();
        for name in self.storage.names_in(&folder).iter().filter(|name| !spools.contains(*name)) {
            self.storage
                .remove_if_there(&folder.join(name))
                .map_err(|error| failed(&folder, &error))?;
        }
        self.end_move()
    }

    /// Refuses to go on with a move if a file was damaged since it was made.
    pub(crate) fn check_move(&self, monitor: &Monitor) -> Result<()> {
        let work = self.work();
        if !self.is_there(&work.join(MANIFEST_FILE))? {
            return Ok(());
        }
        let again = "pass --overwrite without --resume to pack it again";
        let refuse = |path: &Path| {
            Err(Error::output("was damaged before it came into place: its checksum does not fit")
                .file(path.display().to_string())
                .remedy(again))
        };
        // Files that have left the work folder are in place.
        let find = |name: &str| -> Result<PathBuf> {
            let path = work.join(name);
            Ok(if self.is_there(&path)? { path } else { self.out.join(name) })
        };
        let manifest = Manifest::read(self.storage, &work).map_err(|error| error.remedy(again))?;
        for shard in manifest.splits.values().flat_map(|split| &split.shards) {
            let path = find(&shard.file)?;
            if self.storage.xxh3_128_of_file(&path, || monitor.check())? != shard.xxh3_128 {
                return refuse(&path);
            }
        }
        for dropped in manifest.dropped.iter().chain(&manifest.contaminated) {
            let path = find(&dropped.file)?;
            if self.storage.xxh3_128_of_file(&path, || monitor.check())? != dropped.xxh3_128 {
                return refuse(&path);
            }
        }
        let tokenizer = find(TOKENIZER_FILE)?;
        let digest = hex(&Sha256::digest(self.storage.whole_bytes(&tokenizer)?));
        if digest == manifest.tokenizer.sha256 { Ok(()) } else { refuse(&tokenizer) }
    }

    /// Returns whether anything is at `path`; an error where that cannot be told.
    fn is_there(&self, path: &Path) -> Result<bool> {
        self.storage.surely_exists(path).map_err(|error| failed(path, &error))
    }

    /// Moves shards, tokenizer, dropped records and manifest into place; does nothing where that is
    /// done.
    fn move_files(&self) -> Result<()> {
        let work = self.work();
        if !self.is_there(&work.join(MANIFEST_FILE))? {
            return Ok(());
        }
        let manifest = Manifest::read(self.storage, &work)?;
        if !self.storage.has_folders(&self.out) {
            return self.move_each(&manifest);
        }
        let lists = [manifest.dropped.is_some(), manifest.contaminated.is_some()];
        self.move_all(lists).map_err(|error| failed(&self.out, &error))
    }

    /// Moves every file into place. The lists of an older dataset, of dropped records and of
    /// contaminated ones, are removed unless the new one has such a list in its stead.
    fn move_all(&self, has_lists: [bool; 2]) -> std::io::Result<()> {
        let (out, work) = (&self.out, self.work());
        // From here on the folder is unfinished until its manifest is back.
        self.storage.remove_if_there(&out.join(MANIFEST_FILE))?;
        for (name, has_list) in [DROPPED_FILE, LISTS].into_iter().zip(has_lists) {
            if !has_list {
                self.storage.remove_all(&out.join(name))?;
            }
        }
        let files = [TOKENIZER_FILE, DROPPED_FILE, LISTS];
        for name in Split::ALL.map(Split::name).into_iter().chain(files) {
            if self.storage.surely_exists(&work.join(name))? {
                self.storage.remove_all(&out.join(name))?;
                self.storage.rename(&work.join(name), &out.join(name))?;
            }
        }
        // Synced before the manifest moves: it must not outlive a file that it names.
        self.storage.sync_folder(out);
        self.storage.rename(&work.join(MANIFEST_FILE), &out.join(MANIFEST_FILE))?;
        self.storage.sync_folder(out);
        Ok(())
    }

    /// Moves every file into place one by one, where no step renames a folder. Files that have left the
    /// work folder are in place, whenever that was; those of an older dataset go once the new ones
    /// are there, so that none is taken for the other.
    fn move_each(&self, manifest: &Manifest) -> Result<()> {
        let (out, work) = (&self.out, self.work());
        let at = |error: &std::io::Error| failed(out, error);
        let shards = manifest.splits.values().flat_map(|split| &split.shards);
        let lists = manifest.dropped.iter().chain(&manifest.contaminated);
        let mut files: Vec<&str> = shards.map(|shard| shard.file.as_str()).collect();
        files.extend(lists.map(|list| list.file.as_str()));
        files.push(TOKENIZER_FILE);
        // From here on the folder is unfinished until its manifest is back.
        self.storage.remove_if_there(&out.join(MANIFEST_FILE)).map_err(|error| at(&error))?;
        tasks::run(MOVES, files.len(), |nth| {
            let (from, to) = (work.join(files[nth]), out.join(files[nth]));
            if self.is_there(&from)? {
                return self.storage.rename(&from, &to).map_err(|error| failed(&to, &error));
            }
            if self.is_there(&to)? {
                return Ok(());
            }
            Err(Error::output("is gone from the work folder, and not in place")
                .file(from.display().to_string())
                .remedy("pass --overwrite without --resume to pack it again"))
        })?;
        for folder in Split::ALL.map(Split::name).into_iter().chain([LISTS]) {
            for name in self.storage.names_surely_in(&out.join(folder))? {
                let file = format!("{folder}/{name}");
                if !files.contains(&file.as_str()) {
                    self.storage.remove_all(&out.join(file)).map_err(|error| at(&error))?;
                }
            }
        }
        if !files.contains(&DROPPED_FILE) {
            self.storage.remove_if_there(&out.join(DROPPED_FILE)).map_err(|error| at(&error))?;
        }
        let moved = self.storage.rename(&work.join(MANIFEST_FILE), &out.join(MANIFEST_FILE));
        moved.map_err(|error| at(&error))
    }

    /// Ends a move, wherever it stopped, and clears the work folder away.
    pub(crate) fn end_move(mut self) -> Result<()> {
        let (out, work) = (self.out.clone(), self.work());
        self.move_files()?;
        for name in [DONE, INPUTS, SETTLED] {
            self.storage.remove_all(&work.join(name)).map_err(|error| failed(&out, &error))?;
        }
        if self.state.keep_spool {
            self.state.stage = Stage::Kept;
            return self.write_state();
        }
        let clear = || -> std::io::Result<()> {
            self.storage.remove_all(&work.join(SPOOL))?;
            // The state goes last: it marks the folder as ours.
            self.storage.remove_if_there(&work.join(STATE_FILE))?;
            self.storage.remove_all(&work)
        };
        clear().map_err(|error| failed(&out, &error))?;
        self.storage.sync_folder(&out);
        Ok(())
    }
}

/// Removes the work folder in `out` if a run was killed while it removed it.
pub(crate) fn clear_leftover(storage: &dyn Storage, out: &Path) -> Result<()> {
    match State::of(storage, out)? {
        Some(_) => Ok(()),
        None => storage.remove_all(&out.join(WORK)).map_err(|error| failed(out, &error)),
    }
}

/// Returns the folder of the spool files of the dataset `out`.
#[must_use]
pub(crate) fn spool_of(out: &Path) -> PathBuf {
    out.join(WORK).join(SPOOL)
}

/// Reads a sealed note; `None` if there is none, or it was changed.
fn note<T: DeserializeOwned>(storage: &dyn Storage, path: &Path) -> Option<T> {
    if storage.is_file(path) { unsealed(&storage.whole_text(path).ok()?).ok() } else { None }
}

/// Returns the path of the note about an input in the dataset folder `out`.
fn input_path(out: &Path, index: usize) -> PathBuf {
    out.join(WORK).join(INPUTS).join(format!("{index:06}.json"))
}

/// Writes the note about an input: its checksum, with whatever tells that it did not change.
pub(crate) fn save_input(
    storage: &dyn Storage,
    out: &Path,
    index: usize,
    note: &impl Serialize,
) -> Result<()> {
    let text = sealed_text(note).expect("a note is plain data");
    storage.write_file(&input_path(out, index), text.as_bytes())
}

/// Reads the note about an input; `None` if there is none, or it was changed.
pub(crate) fn saved_input<T: DeserializeOwned>(
    storage: &dyn Storage,
    out: &Path,
    index: usize,
) -> Option<T> {
    note(storage, &input_path(out, index))
}

/// Returns the folders of `path` that do not exist, the innermost first.
fn missing_folders(storage: &dyn Storage, path: &Path) -> Vec<PathBuf> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !storage.exists(folder);
    path.ancestors().take_while(is_missing).map(Path::to_owned).collect()
}
