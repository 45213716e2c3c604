//! `WorkFolder`: a dataset folder while the dataset in it is being made, and what is known of it if that stopped.
//!
//! Everything is made under `OUT/.work`; `state.json` there says of what, so that a run that was stopped can go on, and
//! only if nothing it depends on has changed. Once the dataset is whole it is moved into place, the manifest last; a
//! move that was stopped is ended by the next run. Nothing outside OUT is touched.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::{InputEntry, MANIFEST_FILE, Manifest, Program};
use super::{TOKENIZER_FILE, failed, shard_name, write_file};
use crate::disk;
use crate::error::{Error, Result};
use crate::files;
use crate::schema::Side;

/// The folder of unfinished work inside OUT.
pub const WORK: &str = ".work";
const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const SPOOL: &str = "spool";
/// Where what is known of finished shards is.
const DONE: &str = "done";

/// Everything that the bytes of a dataset depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The program.
    pub program: Program,
    /// The sha256 of the tokenizer's bytes.
    pub tokenizer: String,
    /// BOS, EOS and pad.
    pub controls: (Option<u32>, u32, u32),
    /// The resolved configuration.
    pub config: Value,
    /// The inputs.
    pub inputs: Vec<InputEntry>,
}

impl Identity {
    /// That of a finished dataset.
    #[must_use]
    pub fn of_dataset(manifest: &Manifest) -> Self {
        let tokenizer = &manifest.tokenizer;
        Self {
            program: manifest.program.clone(),
            tokenizer: tokenizer.sha256.clone(),
            controls: (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id),
            config: manifest.config.clone(),
            inputs: manifest.inputs.clone(),
        }
    }

    /// What is different in `now`, in words; `None` if nothing is.
    #[must_use]
    pub fn change(&self, now: &Self) -> Option<String> {
        if self.program != now.program {
            let version = |program: &Program| format!("{} {}", program.name, program.version);
            return Some(format!("the program was {}, it is {}", version(&self.program), version(&now.program)));
        }
        if self.tokenizer != now.tokenizer {
            return Some("the tokenizer file was changed".to_owned());
        }
        if self.controls != now.controls {
            return Some("the tokenizer's BOS, EOS or pad was changed".to_owned());
        }
        if let Some(what) = changed_value(&self.config, &now.config, "") {
            return Some(format!("the configuration was changed: {what}"));
        }
        let paths = |inputs: &[InputEntry]| inputs.iter().map(|input| input.path.clone()).collect::<Vec<_>>();
        if paths(&self.inputs) != paths(&now.inputs) {
            return Some("the list of inputs was changed".to_owned());
        }
        let changed = self.inputs.iter().zip(&now.inputs).find(|(was, is)| was != is);
        changed.map(|(was, _)| format!("the input {} was changed", was.path))
    }

    /// Refuses to go on in `out` with what is no longer the same.
    pub fn refuse_changes(&self, now: &Self, out: &Path) -> Result<()> {
        match self.change(now) {
            None => Ok(()),
            Some(what) => Err(Error::output(format!("cannot be resumed: {what}"))
                .file(out.display().to_string())
                .remedy("undo the change, or pass --overwrite without --resume to start again")),
        }
    }
}

/// The first value of two configurations that differs, with its path.
fn changed_value(was: &Value, is: &Value, path: &str) -> Option<String> {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().find_map(|key| changed_value(&was[key], &is[key], &at(key)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            // A source is known by its name.
            let key = |nth: usize, value: &Value| value["name"].as_str().map_or(nth.to_string(), str::to_owned);
            a.iter().zip(b).enumerate().find_map(|(nth, (a, b))| changed_value(a, b, &at(&key(nth, a))))
        }
        _ if was == is => None,
        _ => Some(format!("{path} was {was}, it is {is}")),
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Spools or shards are being made.
    Working,
    /// The dataset is whole and on its way into place.
    Moving,
    /// The dataset is in place; its spool was kept.
    Kept,
}

/// What is known of a run in its work folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// What it makes.
    pub identity: Identity,
    /// Bytes of its input splits.
    pub split_bytes: u64,
    /// Whether its spool is to be kept.
    pub keep_spool: bool,
    /// Where its corpus is.
    pub corpus: PathBuf,
    /// Where its tokenizer is.
    pub tokenizer: Option<PathBuf>,
    /// How far it has come.
    pub stage: Stage,
}

impl State {
    /// That of the run whose work folder is in `out`, if there is one.
    pub fn of(out: &Path) -> Result<Option<Self>> {
        let path = out.join(WORK).join(STATE_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        serde_json::from_str(&files::whole_text(&path)?).map(Some).map_err(|error| {
            Error::output(format!("is of another version of sabiprep, or damaged: {error}"))
                .file(path.display().to_string())
                .remedy("remove the folder .work, then pack again")
        })
    }
}

/// What is to be done in a folder.
#[derive(Debug)]
pub enum Survey {
    /// A dataset is made anew; if a spool was kept in the folder, this is its state.
    Fresh(Option<State>),
    /// A run was stopped there, and is to go on.
    Unfinished(State),
    /// A dataset is there, and a run that would make it again is to go on.
    Finished,
}

/// Looks at `out`, and refuses what must not be written to: it must be missing or empty, or with `overwrite` or
/// `resume` a folder of ours.
pub fn survey(out: &Path, overwrite: bool, resume: bool) -> Result<Survey> {
    let shown = out.display().to_string();
    if out.exists() && !out.is_dir() {
        return Err(Error::output("is not a folder").file(shown).remedy("name another folder for the dataset"));
    }
    let work = out.join(WORK);
    let state = State::of(out)?;
    // What a run leaves that was killed before it could say anything.
    let is_ours = |name: &String| name == LOCK_FILE || disk::is_temporary(name);
    if work.exists() && state.is_none() && !files::names_in(&work).iter().all(is_ours) {
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
                .remedy("pass --resume to go on with it, or --overwrite to start again")),
        };
    }
    if out.join(MANIFEST_FILE).is_file() && Manifest::is_ours(out) {
        return match (resume, overwrite) {
            (true, _) => Ok(Survey::Finished),
            (false, true) => Ok(Survey::Fresh(state)),
            (false, false) => {
                Err(Error::output("holds a dataset").file(shown).remedy("pass --overwrite to replace it"))
            }
        };
    }
    if files::names_in(out).iter().any(|name| name != WORK) {
        return Err(Error::output("is not empty and holds no dataset of sabiprep")
            .file(shown)
            .remedy("name an empty or a new folder; --overwrite replaces only a folder with a dataset of sabiprep"));
    }
    Ok(Survey::Fresh(state))
}

/// The work folder of a run; no other run works in it at the same time.
#[derive(Debug)]
pub struct WorkFolder {
    out: PathBuf,
    /// The folders that did not exist before, the innermost first.
    made: Vec<PathBuf>,
    state: State,
    /// The state of the kept spool that was there before.
    kept: Option<State>,
    _lock: File,
}

impl WorkFolder {
    /// Begins a run in `out`, or goes on with the one that `survey` found there.
    pub fn open(out: &Path, survey: &Survey, state: State) -> Result<Self> {
        let work = out.join(WORK);
        let made = missing_folders(out);
        let at = |error: &std::io::Error| failed(out, error);
        disk::create_folder(&work).map_err(|error| at(&error))?;
        let lock = disk::lock(&work.join(LOCK_FILE)).map_err(|error| at(&error))?.ok_or_else(|| {
            Error::output("another sabiprep is packing into it")
                .file(out.display().to_string())
                .remedy("wait until it has ended, or name another folder")
        })?;
        let kept = match survey {
            Survey::Fresh(kept) => kept.clone(),
            Survey::Unfinished(_) | Survey::Finished => None,
        };
        let folder = Self { out: out.to_owned(), made, state, kept, _lock: lock };
        let clear = || -> std::io::Result<()> {
            if !matches!(survey, Survey::Unfinished(_)) {
                for name in Side::ALL.map(Side::name).into_iter().chain([DONE, TOKENIZER_FILE, MANIFEST_FILE]) {
                    disk::remove(&work.join(name))?;
                }
            }
            for folder in [".", SPOOL, DONE].into_iter().chain(Side::ALL.map(Side::name)) {
                let folder = work.join(folder);
                for name in files::names_in(&folder).iter().filter(|name| disk::is_temporary(name)) {
                    disk::remove_file(&folder.join(name))?;
                }
            }
            Ok(())
        };
        clear().map_err(|error| at(&error))?;
        folder.write_state()?;
        for name in Side::ALL.map(Side::name).into_iter().chain([SPOOL, DONE]) {
            // A dataset on its way into place may have left already.
            if folder.state.stage == Stage::Working {
                disk::create_folder(&work.join(name)).map_err(|error| at(&error))?;
            }
        }
        Ok(folder)
    }

    fn write_state(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.state).expect("a state is plain data");
        write_file(&self.work().join(STATE_FILE), text.as_bytes())
    }

    fn work(&self) -> PathBuf {
        self.out.join(WORK)
    }

    /// Where spools are.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        spool_of(&self.out)
    }

    /// Where shard `index` of `side` is written.
    #[must_use]
    pub fn shard_path(&self, side: Side, index: usize) -> PathBuf {
        self.work().join(shard_name(side, index))
    }

    fn done_path(&self, side: Side, index: usize) -> PathBuf {
        self.work().join(DONE).join(format!("{}-{index:05}.json", side.name()))
    }

    /// Notes what is known of a finished shard.
    pub fn save(&self, side: Side, index: usize, sums: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(sums).expect("sums are plain data");
        write_file(&self.done_path(side, index), text.as_bytes())
    }

    /// What [`WorkFolder::save`] noted of a shard, if it was finished.
    #[must_use]
    pub fn saved<T: DeserializeOwned>(&self, side: Side, index: usize) -> Option<T> {
        let path = self.done_path(side, index);
        if path.is_file() { serde_json::from_str(&files::whole_text(&path).ok()?).ok() } else { None }
    }

    /// Removes what the run made, since it can never go on; a spool that was kept before stays.
    pub fn abandon(self) {
        let work = self.work();
        // Best effort: what cannot be removed is an unfinished run, and --overwrite takes it.
        let remove = || -> Result<()> {
            if let Some(kept) = &self.kept {
                for name in Side::ALL.map(Side::name).into_iter().chain([DONE]) {
                    disk::remove(&work.join(name)).map_err(|error| failed(&work, &error))?;
                }
                let text = serde_json::to_string_pretty(kept).expect("a state is plain data");
                return write_file(&work.join(STATE_FILE), text.as_bytes());
            }
            disk::remove(&work).map_err(|error| failed(&work, &error))?;
            self.made.iter().try_for_each(|folder| disk::remove_empty_folder(folder).map_err(|e| failed(folder, &e)))
        };
        let _ = remove();
    }

    /// Moves the finished dataset into place, in the stead of an old one.
    pub fn commit(mut self, tokenizer: &[u8], manifest: &Manifest, spools: &[String]) -> Result<()> {
        write_file(&self.work().join(TOKENIZER_FILE), tokenizer)?;
        write_file(&self.work().join(MANIFEST_FILE), manifest.to_text().as_bytes())?;
        self.state.stage = Stage::Moving;
        self.write_state()?;
        let folder = self.spool();
        // Of a spool that is kept, what this dataset is not made of goes.
        for name in files::names_in(&folder).iter().filter(|name| !spools.contains(*name)) {
            disk::remove_file(&folder.join(name)).map_err(|error| failed(&folder, &error))?;
        }
        self.end_move()
    }

    /// Ends a move, wherever it stopped.
    pub fn end_move(mut self) -> Result<()> {
        let (out, work) = (self.out.clone(), self.work());
        let moved = || -> std::io::Result<()> {
            if work.join(MANIFEST_FILE).exists() {
                // From here on the folder is unfinished until its manifest is back.
                disk::remove_file(&out.join(MANIFEST_FILE))?;
                for name in Side::ALL.map(Side::name).into_iter().chain([TOKENIZER_FILE]) {
                    if work.join(name).exists() {
                        disk::remove(&out.join(name))?;
                        disk::rename(&work.join(name), &out.join(name))?;
                    }
                }
                disk::sync_folder(&out);
                disk::rename(&work.join(MANIFEST_FILE), &out.join(MANIFEST_FILE))?;
                disk::sync_folder(&out);
            }
            Ok(())
        };
        moved().and_then(|()| disk::remove(&work.join(DONE))).map_err(|error| failed(&out, &error))?;
        if self.state.keep_spool {
            self.state.stage = Stage::Kept;
            return self.write_state();
        }
        let clear = || -> std::io::Result<()> {
            disk::remove(&work.join(SPOOL))?;
            // The last to go is what makes the folder ours.
            disk::remove_file(&work.join(STATE_FILE))?;
            disk::remove(&work)
        };
        clear().map_err(|error| failed(&out, &error))?;
        disk::sync_folder(&out);
        Ok(())
    }
}

/// Removes what a run left in `out` that was killed while it cleared its work folder away.
pub fn clear_leftover(out: &Path) -> Result<()> {
    match State::of(out)? {
        Some(_) => Ok(()),
        None => disk::remove(&out.join(WORK)).map_err(|error| failed(out, &error)),
    }
}

/// Where the spools of the dataset `out` are.
#[must_use]
pub fn spool_of(out: &Path) -> PathBuf {
    out.join(WORK).join(SPOOL)
}

/// The folders of `path` that do not exist, the innermost first.
fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    path.ancestors().take_while(is_missing).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changed_is_named() {
        let identity = Identity {
            program: Program { name: "sabiprep".to_owned(), version: "1".to_owned() },
            tokenizer: "a".to_owned(),
            controls: (None, 0, 0),
            config: json!({"pack": {"seq_len": 64}, "source": [{"name": "x", "epochs": 1.0}]}),
            inputs: vec![InputEntry { path: "a.txt".to_owned(), size: 3, xxh3_128: "0".to_owned() }],
        };
        assert_eq!(identity.change(&identity.clone()), None);
        let change = |with: &dyn Fn(&mut Identity)| {
            let mut now = identity.clone();
            with(&mut now);
            identity.change(&now).unwrap()
        };
        assert!(change(&|now| now.program.version = "2".to_owned()).contains("sabiprep 2"));
        assert!(change(&|now| now.tokenizer = "b".to_owned()).contains("tokenizer"));
        assert!(change(&|now| now.controls.1 = 7).contains("EOS"));
        assert!(change(&|now| now.inputs[0].xxh3_128 = "1".to_owned()).contains("a.txt"));
        assert!(change(&|now| now.inputs.clear()).contains("list of inputs"));
        let config = change(&|now| now.config["source"][0]["epochs"] = json!(2.0));
        assert!(config.ends_with("source.x.epochs was 1.0, it is 2.0"), "{config}");
        let config = change(&|now| now.config["pack"]["pack"] = json!("none"));
        assert!(config.ends_with("pack.pack was null, it is \"none\""), "{config}");
    }
}
