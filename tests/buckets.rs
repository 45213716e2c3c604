//! Packing into a bucket whose store fails at any request: the run goes on, and ends with the bytes
//! of a run on a disk. A dataset is there whole or not at all.

#![expect(clippy::disallowed_methods, reason = "it looks at the files that the core leaves")]
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use sabiprep::commands::train_tokenizer;
use sabiprep::context::Context;
use sabiprep::error::Result;
use sabiprep::monitor::Monitor;
use sabiprep::pipeline::pack;
use sabiprep::plan::{PackOptions, SPOOL_BYTES};
use sabiprep::storage::{Places, Remote};

#[path = "support/dying_store.rs"]
mod dying_store;

use dying_store::{Death, Dying};

const CORPUS: &str = r#"
[tokenizer]
file = "tokenizer.json"
eos = "</s>"
[pack]
seq_len = 64
validation = 0.1
shard_tokens = 1000
[[source]]
name = "pairs"
files = ["pairs.jsonl"]
segments = [{ prompt = "{{ a }}:" }, { target = " {{ b }}" }]
epochs = 1.5
[[source]]
name = "text"
files = ["text/*.txt"]
"#;
const OUT: &str = "s3://b/out";

/// Writes a corpus of some records.
fn write_corpus(folder: &Path) {
    let (mut pairs, mut text) = (String::new(), String::new());
    for nth in 0..60 {
        let _ = writeln!(
            pairs,
            r#"{{"a": "one {nth} and {} more", "b": "{}"}}"#,
            nth * 7 % 13,
            nth * nth % 1009
        );
        let _ = writeln!(text, "{}", format!("line {nth} of the text, ").repeat(1 + nth % 9));
    }
    pairs.push_str("{\n");
    fs::create_dir_all(folder.join("text")).unwrap();
    fs::write(folder.join("pairs.jsonl"), pairs).unwrap();
    fs::write(folder.join("text/a.txt"), text).unwrap();
    fs::write(folder.join("corpus.toml"), CORPUS).unwrap();
    run(Remote::default(), |context| {
        train_tokenizer(folder, &folder.join("tokenizer.json"), 300, false, context)
    })
    .unwrap();
}

/// Works with the stores of `remote`.
fn run<T>(remote: Remote, work: impl FnOnce(&Context<'_>) -> Result<T>) -> Result<T> {
    let storage = Places::over(remote);
    work(&Context { threads: 1, monitor: &Monitor::default(), storage: &storage })
}

/// Packs a corpus into a dataset by way of `store`.
fn pack_into(
    store: Arc<dyn ObjectStore>,
    corpus: &Path,
    out: &Path,
    options: &PackOptions,
) -> Result<()> {
    run(Remote::over("s3://b", store), |context| {
        pack(Some(corpus), out, options, context).map(|_| ())
    })
}

/// Every object below `prefix`, by its name there.
async fn objects(store: &InMemory, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![object_store::path::Path::from(prefix)];
    while let Some(folder) = folders.pop() {
        let list = store.list_with_delimiter(Some(&folder)).await.unwrap();
        folders.extend(list.common_prefixes);
        for object in list.objects {
            let name = object.location.as_ref()[prefix.len() + 1..].to_owned();
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            found.insert(name, bytes.to_vec());
        }
    }
    found
}

/// Every file below a folder, by its name there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Waits for a future.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Removes the lock of a run that is dead, as a minute does.
fn forget_lock(store: &InMemory) {
    let _ = wait(store.delete(&object_store::path::Path::from("out/.work/lock")));
}

struct Case {
    corpus: PathBuf,
    /// The files of the dataset, as a run on a disk makes them.
    reference: BTreeMap<String, Vec<u8>>,
    /// The objects of another dataset.
    other: BTreeMap<String, Vec<u8>>,
}

impl Case {
    fn new(folder: &Path) -> Self {
        let corpus = folder.join("corpus");
        write_corpus(&corpus);
        let reference = folder.join("reference");
        let local = |out: &Path| {
            run(Remote::default(), |context| {
                pack(Some(&corpus), out, &PackOptions::default(), context).map(|_| ())
            })
        };
        local(&reference).unwrap();
        // One with more shards and one list less.
        let text = CORPUS.replace("epochs = 1.5", "epochs = 4.0");
        fs::write(corpus.join("corpus.toml"), text).unwrap();
        let other = folder.join("other");
        local(&other).unwrap();
        fs::write(corpus.join("corpus.toml"), CORPUS).unwrap();
        Self { corpus, reference: files(&reference), other: files(&other) }
    }

    /// A store, with the other dataset in the place of the new one if `overwrite`.
    fn store(&self, overwrite: bool) -> Arc<InMemory> {
        let store = Arc::new(InMemory::new());
        for (name, bytes) in self.other.iter().filter(|_| overwrite) {
            let key = object_store::path::Path::from(format!("out/{name}"));
            wait(store.put(&key, bytes.clone().into())).unwrap();
        }
        store
    }

    /// Lets a run die at the first change, another at the second, and so on until one does not die.
    /// Returns the number of changes.
    fn die_at_every_change(&self, options: &PackOptions, death: fn(u64) -> Death) -> u64 {
        for nth in 1.. {
            let store = self.store(options.overwrite);
            let dying = Arc::new(Dying::new(store.clone(), death(nth)));
            let ran = pack_into(dying, &self.corpus, Path::new(OUT), options);
            let now = wait(objects(&store, "out"));
            // A dataset is whole, this one or the one before, or not there.
            if now.contains_key("manifest.json") {
                let seen: BTreeMap<_, _> = now
                    .iter()
                    .filter(|(name, _)| !name.starts_with(".work/"))
                    .map(|(name, bytes)| (name.clone(), bytes.clone()))
                    .collect();
                assert!(seen == self.reference || seen == self.other, "{nth}: half a dataset");
            }
            if ran.is_ok() {
                assert!(nth > 20, "{nth}: hardly anything was changed");
                self.expect_whole(&store, options, "a run that did not die");
                return nth - 1;
            }
            forget_lock(&store);
            let again = PackOptions { resume: true, ..options.clone() };
            pack_into(store.clone(), &self.corpus, Path::new(OUT), &again)
                .unwrap_or_else(|error| panic!("{nth}: cannot be resumed: {error}"));
            self.expect_whole(&store, options, &format!("died at change {nth}"));
        }
        unreachable!("some run does not die")
    }

    fn expect_whole(&self, store: &InMemory, options: &PackOptions, case: &str) {
        let mut seen = wait(objects(store, "out"));
        let is_work = |name: &str| name.starts_with(".work/");
        assert_eq!(seen.keys().any(|name| is_work(name)), options.keep_spool, "{case}");
        seen.retain(|name, _| !is_work(name));
        assert_eq!(
            seen.keys().collect::<Vec<_>>(),
            self.reference.keys().collect::<Vec<_>>(),
            "{case}"
        );
        for (name, bytes) in &seen {
            let expected = &self.reference[name];
            assert!(
                bytes == expected,
                "{case}: {name} differs:\n{}\n-- and not\n{}",
                String::from_utf8_lossy(bytes),
                String::from_utf8_lossy(expected)
            );
        }
    }
}

/// Options of two threads and of splits so small that a corpus makes many objects.
fn spilling() -> PackOptions {
    PackOptions { threads: 2, split_bytes: Some(2000), spool_bytes: 0, ..PackOptions::default() }
}

/// Lets runs die at every change, before and after it.
fn die_at_every_change(options: &PackOptions) {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path());
    for death in [Death::Before as fn(u64) -> Death, Death::After] {
        case.die_at_every_change(options, death);
    }
}

#[test]
fn a_run_that_dies_at_any_change_of_a_bucket_goes_on_to_the_same_bytes() {
    die_at_every_change(&spilling());
}

#[test]
fn a_run_that_dies_while_it_replaces_a_dataset_leaves_one_of_the_two_or_none() {
    die_at_every_change(&PackOptions { overwrite: true, spool_bytes: SPOOL_BYTES, ..spilling() });
}

#[test]
fn a_run_that_dies_while_it_keeps_its_spool_goes_on_to_the_same_bytes() {
    die_at_every_change(&PackOptions { overwrite: true, keep_spool: true, ..spilling() });
}

#[test]
fn a_corpus_in_a_bucket_gives_the_bytes_of_a_local_one() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path());
    let store = Arc::new(InMemory::new());
    for (name, bytes) in files(&case.corpus) {
        let key = object_store::path::Path::from(format!("corpora/c/{name}"));
        wait(store.put(&key, bytes.into())).unwrap();
    }
    let options = PackOptions::default();
    for (corpus, out) in [
        ("s3://b/corpora/c", OUT.to_owned()),
        ("s3://b/corpora/../corpora/c/", folder.path().join("local").display().to_string()),
    ] {
        pack_into(store.clone(), Path::new(corpus), Path::new(&out), &options).unwrap();
    }
    case.expect_whole(&store, &options, "a corpus in a bucket");
    assert!(files(&folder.path().join("local")) == case.reference);
    let error = pack_into(
        store.clone(),
        Path::new("s3://b/corpora/c"),
        Path::new("s3://b/corpora"),
        &options,
    )
    .unwrap_err();
    assert!(error.message.contains("the corpus itself"), "{error}");
}
