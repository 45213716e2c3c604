//! `WorkFolder`: a dataset folder while the dataset in it is being made, and what is known of it if
//! that stopped.
//!
//! Everything is made under `OUT/.work`; `state.json` there says of what, so that a run that was
//! stopped can go on, and only if nothing it depends on has changed. Once the dataset is whole it
//! is moved into place, the manifest last; a move that was stopped is ended by the next run.
//! Nothing outside OUT is touched: OUT may be a link to a folder, but nothing of the work folder
//! may be one, and links in a dataset are removed, never followed.

use std::io::ErrorKind::{AlreadyExists, NotADirectory};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::manifest::{MANIFEST_FILE, Manifest};
use super::seal::{sealed_text, unsealed};
use super::state::{Stage, State};
use super::{TOKENIZER_FILE, failed, shard_name};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::schema::Split;
use crate::storage::{Lock, Storage, is_temporary};
use crate::tokenize::hex;

/// The folder of unfinished work inside OUT.
pub(crate) const WORK: &str = ".work";
/// What is known of the run.
pub(super) const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const SPOOL: &str = "spool";
/// Where what is known of finished shards is.
const DONE: &str = "done";

/// What is to be done in a folder.
#[derive(Debug)]
pub(crate) enum Survey {
    /// A dataset is made anew; if a spool was kept in the folder, this is its state.
    Fresh(Option<State>),
    /// A run was stopped there, and is to go on.
    Unfinished(State),
    /// A dataset is there, and a run that would make it again is to go on.
    Finished,
}

/// Looks at `out`, and refuses what must not be written to: it must be missing or empty, or with
/// `overwrite` or `resume` a folder of ours.
pub(crate) fn survey(
    storage: &dyn Storage,
    out: &Path,
    overwrite: bool,
    resume: bool,
) -> Result<Survey> {
    let shown = out.display().to_string();
    if storage.exists(out) && !storage.is_folder(out) {
        return Err(Error::output("is not a folder")
            .file(shown)
            .remedy("name another folder for the dataset")
            .io_kind(NotADirectory));
    }
    if !storage.exists(out) && storage.is_link(out) {
        return Err(Error::output("is a link that leads nowhere")
            .file(shown)
            .remedy("remove the link, or make the folder that it names"));
    }
    let work = out.join(WORK);
    refuse_links(storage, &work)?;
    let state = State::of(storage, out)?;
    // What a run leaves that was killed before it could say anything.
    let is_ours = |name: &String| name == LOCK_FILE || is_temporary(name);
    if storage.exists(&work) && state.is_none() && !storage.names_in(&work).iter().all(is_ours) {
        return Err(Error::output("was not made by sabiprep, and its name is needed")
            .file(work.display().to_string())
            .remedy("move it away, or name another folder for the dataset"));
    }
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
    if storage.names_in(out).iter().any(|name| name != WORK) {
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

/// Refuses a work folder that leads out of OUT.
fn refuse_links(storage: &dyn Storage, work: &Path) -> Result<()> {
    let folders =
        Split::ALL.map(Split::name).into_iter().chain([SPOOL, DONE, LOCK_FILE, STATE_FILE]);
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

/// The work folder of a run; no other run works in it at the same time.
#[derive(Debug)]
pub(crate) struct WorkFolder<'a> {
    storage: &'a dyn Storage,
    out: PathBuf,
    /// The folders that did not exist before, the innermost first.
    made: Vec<PathBuf>,
    state: State,
    /// The state of the kept spool that was there before.
    kept: Option<State>,
    _lock: Box<dyn Lock>,
}

impl<'a> WorkFolder<'a> {
    /// Begins a run in `out`, or goes on with the one that `survey` found there.
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
        let folder = Self { storage, out: out.to_owned(), made, state, kept, _lock: lock };
        let clear = || -> std::io::Result<()> {
            if !matches!(survey, Survey::Unfinished(_)) {
                for name in Split::ALL.map(Split::name).into_iter().chain([
                    DONE,
                    TOKENIZER_FILE,
                    MANIFEST_FILE,
                ]) {
                    storage.remove_all(&work.join(name))?;
                }
            }
            for folder in [".", SPOOL, DONE].into_iter().chain(Split::ALL.map(Split::name)) {
                let folder = work.join(folder);
                for name in storage.names_in(&folder).iter().filter(|name| is_temporary(name)) {
                    storage.remove_if_there(&folder.join(name))?;
                }
            }
            Ok(())
        };
        clear().map_err(|error| at(&error))?;
        folder.write_state()?;
        for name in Split::ALL.map(Split::name).into_iter().chain([SPOOL, DONE]) {
            // A dataset on its way into place may have left already.
            if folder.state.stage == Stage::Working {
                storage.create_folder(&work.join(name)).map_err(|error| at(&error))?;
            }
        }
        Ok(folder)
    }

    fn write_state(&self) -> Result<()> {
        self.storage.write_file(&self.work().join(STATE_FILE), self.state.to_text().as_bytes())
    }

    fn work(&self) -> PathBuf {
        self.out.join(WORK)
    }

    /// Where spools are.
    #[must_use]
    pub(crate) fn spool(&self) -> PathBuf {
        spool_of(&self.out)
    }

    /// Where shard `index` of `split` is written.
    #[must_use]
    pub(crate) fn shard_path(&self, split: Split, index: usize) -> PathBuf {
        self.work().join(shard_name(split, index))
    }

    fn done_path(&self, split: Split, index: usize) -> PathBuf {
        self.work().join(DONE).join(format!("{}-{index:05}.json", split.name()))
    }

    /// Notes what is known of a finished shard.
    pub(crate) fn save(&self, split: Split, index: usize, sums: &impl Serialize) -> Result<()> {
        let text = sealed_text(sums).expect("sums are plain data");
        self.storage.write_file(&self.done_path(split, index), text.as_bytes())
    }

    /// What [`WorkFolder::save`] noted of a shard, if it was finished, and the note is as it was
    /// written.
    #[must_use]
    pub(crate) fn saved<T: DeserializeOwned>(&self, split: Split, index: usize) -> Option<T> {
        let path = self.done_path(split, index);
        if self.storage.is_file(&path) {
            unsealed(&self.storage.whole_text(&path).ok()?).ok()
        } else {
            None
        }
    }

    /// Removes what the run made, since it can never go on; a spool that was kept before stays.
    pub(crate) fn abandon(self) {
        let work = self.work();
        // Best effort: what cannot be removed is an unfinished run, and --overwrite takes it.
        let remove = || -> Result<()> {
            if let Some(kept) = &self.kept {
                for name in Split::ALL.map(Split::name).into_iter().chain([DONE]) {
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
        self.state.stage = Stage::Moving;
        self.write_state()?;
        let folder = self.spool();
        // Of a spool that is kept, what this dataset is not made of goes.
        for name in self.storage.names_in(&folder).iter().filter(|name| !spools.contains(*name)) {
            self.storage
                .remove_if_there(&folder.join(name))
                .map_err(|error| failed(&folder, &error))?;
        }
        self.end_move()
    }

    /// Refuses to go on with a move of what was damaged since it was made.
    pub(crate) fn check_move(&self, monitor: &Monitor) -> Result<()> {
        let work = self.work();
        if !self.storage.exists(&work.join(MANIFEST_FILE)) {
            return Ok(());
        }
        let again = "pass --overwrite without --resume to pack it again";
        let refuse = |path: &Path| {
            Err(Error::output("was damaged before it came into place: its checksum does not fit")
                .file(path.display().to_string())
                .remedy(again))
        };
        // What is not in the work folder any more is in place.
        let find = |name: &str| {
            Some(work.join(name))
                .filter(|path| self.storage.exists(path))
                .unwrap_or_else(|| self.out.join(name))
        };
        let manifest = Manifest::read(self.storage, &work).map_err(|error| error.remedy(again))?;
        for shard in manifest.splits.values().flat_map(|split| &split.shards) {
            let path = find(&shard.file);
            if self.storage.xxh3_128_of_file(&path, || monitor.check())? != shard.xxh3_128 {
                return refuse(&path);
            }
        }
        let tokenizer = find(TOKENIZER_FILE);
        if hex(&Sha256::digest(self.storage.whole_bytes(&tokenizer)?)) == manifest.tokenizer.sha256
        {
            return Ok(());
        }
        refuse(&tokenizer)
    }

    /// Ends a move, wherever it stopped.
    pub(crate) fn end_move(mut self) -> Result<()> {
        let (out, work) = (self.out.clone(), self.work());
        let moved = || -> std::io::Result<()> {
            if self.storage.exists(&work.join(MANIFEST_FILE)) {
                // From here on the folder is unfinished until its manifest is back.
                self.storage.remove_if_there(&out.join(MANIFEST_FILE))?;
                for name in Split::ALL.map(Split::name).into_iter().chain([TOKENIZER_FILE]) {
                    if self.storage.exists(&work.join(name)) {
                        self.storage.remove_all(&out.join(name))?;
                        self.storage.rename(&work.join(name), &out.join(name))?;
                    }
                }
                self.storage.sync_folder(&out);
                self.storage.rename(&work.join(MANIFEST_FILE), &out.join(MANIFEST_FILE))?;
                self.storage.sync_folder(&out);
            }
            Ok(())
        };
        moved()
            .and_then(|()| self.storage.remove_all(&work.join(DONE)))
            .map_err(|error| failed(&out, &error))?;
        if self.state.keep_spool {
            self.state.stage = Stage::Kept;
            return self.write_state();
        }
        let clear = || -> std::io::Result<()> {
            self.storage.remove_all(&work.join(SPOOL))?;
            // The last to go is what makes the folder ours.
            self.storage.remove_if_there(&work.join(STATE_FILE))?;
            self.storage.remove_all(&work)
        };
        clear().map_err(|error| failed(&out, &error))?;
        self.storage.sync_folder(&out);
        Ok(())
    }
}

/// Removes what a run left in `out` that was killed while it cleared its work folder away.
pub(crate) fn clear_leftover(storage: &dyn Storage, out: &Path) -> Result<()> {
    match State::of(storage, out)? {
        Some(_) => Ok(()),
        None => storage.remove_all(&out.join(WORK)).map_err(|error| failed(out, &error)),
    }
}

/// Where the spools of the dataset `out` are.
#[must_use]
pub(crate) fn spool_of(out: &Path) -> PathBuf {
    out.join(WORK).join(SPOOL)
}

/// The folders of `path` that do not exist, the innermost first.
fn missing_folders(storage: &dyn Storage, path: &Path) -> Vec<PathBuf> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !storage.exists(folder);
    path.ancestors().take_while(is_missing).map(Path::to_owned).collect()
}
