//! A run that ends anywhere goes on, and ends with the same bytes.
//!
//! A program of its own, since what it tests is the end of a process: called again with a task in
//! the environment, it packs and is aborted at a step of the disk, finds the disk full there, or is
//! killed.

#![expect(clippy::disallowed_methods, reason = "it looks at the files that the core leaves")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test program tells what it did")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use sabiprep::commands::train_tokenizer;
use sabiprep::context::Context;
use sabiprep::monitor::Monitor;
use sabiprep::pipeline::pack;
use sabiprep::plan::{PackOptions, SPOOL_BYTES};
use sabiprep::storage::{Local, Storage};
use sabiprep::tasks;

#[path = "support/faulty.rs"]
#[expect(dead_code, reason = "room.rs uses the rest")]
mod faulty;

use faulty::{Fault, Faulty};

const TASK: &str = "SABIPREP_CRASH_TASK";
/// The fault of a process's storage, as `abort:N` or `full:N`.
const FAULT: &str = "SABIPREP_CRASH_FAULT";
/// Random moments at which a run is killed.
const KILLS: usize = 100;

const CORPUS: &str = r#"
[tokenizer]
file = "tokenizer.json"
eos = "</s>"
[pack]
seq_len = 64
validation = 0.1
shard_tokens = 6000
[[source]]
name = "pairs"
files = ["pairs.jsonl"]
segments = [{ prompt = "{{ a }}:" }, { target = " {{ b }}" }]
epochs = 1.5
[[source]]
name = "text"
files = ["text.txt"]
"#;

/// What a process is to do.
#[derive(Clone, Copy)]
struct Task {
    resume: bool,
    overwrite: bool,
    keep_spool: bool,
    spool_bytes: u64,
}

const SPILLING: Task = Task { resume: false, overwrite: false, keep_spool: false, spool_bytes: 0 };

fn main() {
    if let Ok(task) = env::var(TASK) {
        process::exit(run_task(&task));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let small = Place::new(folder.path(), "small", 120);
    let once = contents(&small.reference);
    for (name, task, before) in [
        ("a new folder", SPILLING, None),
        (
            "in the stead of another dataset",
            Task { overwrite: true, ..SPILLING },
            Some(&small.other),
        ),
        (
            "its spool kept",
            Task { keep_spool: true, overwrite: true, ..SPILLING },
            Some(&small.kept),
        ),
    ] {
        for fault in ["abort", "full"] {
            let steps = small.fail_at_every_step(name, task, before, fault, &once);
            println!("{fault} at each of {steps} steps, {name}: resumed to the same bytes");
        }
    }
    let large = Place::new(folder.path(), "large", 6000);
    large.kill_at_random();
    println!("killed {KILLS} times: resumed to the same bytes");
}

/// Packs as `task` says; 1 with the error on stderr where that fails.
fn run_task(task: &str) -> i32 {
    let mut words = task.split('|');
    let mut word = || words.next().expect("a task has six words");
    let (corpus, out) = (PathBuf::from(word()), PathBuf::from(word()));
    let mut flag = || word() == "true";
    let (resume, overwrite, keep_spool) = (flag(), flag(), flag());
    let spool_bytes = word().parse().expect("a number");
    let options = PackOptions {
        threads: 2,
        split_bytes: Some(if spool_bytes == 0 { 4000 } else { 20_000 }),
        spool_bytes,
        overwrite,
        resume,
        keep_spool,
        ..PackOptions::default()
    };
    let fault = env::var(FAULT).ok().and_then(|fault| Fault::parse(&fault));
    let storage: Box<dyn Storage> = match fault {
        Some(fault) => Box::new(Faulty::new(fault)),
        None => Box::new(Local),
    };
    let context = Context { threads: 1, monitor: &Monitor::default(), storage: &*storage };
    match pack(Some(&corpus), &out, &options, &context) {
        Ok(report) => {
            println!("{} of {}", report.reused_splits.0, report.reused_splits.1);
            0
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// A corpus with what is made of it when nothing goes wrong.
struct Place {
    root: PathBuf,
    corpus: PathBuf,
    reference: PathBuf,
    /// Another dataset.
    other: PathBuf,
    /// Another dataset that keeps its spool.
    kept: PathBuf,
}

impl Place {
    fn new(folder: &Path, name: &str, records: u32) -> Self {
        let root = folder.join(name);
        let at = |name: &str| root.join(name);
        let place = Self {
            corpus: at("corpus"),
            reference: at("reference"),
            other: at("other"),
            kept: at("kept"),
            root: root.clone(),
        };
        fs::create_dir_all(&place.corpus).expect("a folder");
        let (mut pairs, mut text) = (String::new(), String::new());
        for nth in 0..records {
            let _ = writeln!(
                pairs,
                r#"{{"a": "one {nth} and {} more", "b": "{}"}}"#,
                nth * 7 % 13,
                nth * nth % 1009
            );
            let _ = writeln!(
                text,
                "{}",
                format!("line {nth} of the text, ").repeat(1 + nth as usize % 9)
            );
        }
        pairs.push_str("{\n");
        fs::write(place.corpus.join("pairs.jsonl"), pairs).expect("a file");
        fs::write(place.corpus.join("text.txt"), text).expect("a file");
        let write_config =
            |text: &str| fs::write(place.corpus.join("corpus.toml"), text).expect("a file");
        write_config(CORPUS);
        let context = Context { threads: 1, monitor: &Monitor::default(), storage: &Local };
        let tokenizer = place.corpus.join("tokenizer.json");
        train_tokenizer(&place.corpus, &tokenizer, 300, false, &context).expect("a tokenizer");
        let in_memory = Task { spool_bytes: SPOOL_BYTES, ..SPILLING };
        write_config(&CORPUS.replace("epochs = 1.5", "epochs = 2.5").replace("6000", "9000"));
        expect_ok(&place.run(&place.other, in_memory, None), "another dataset");
        expect_ok(
            &place.run(&place.kept, Task { keep_spool: true, ..in_memory }, None),
            "one that keeps its spool",
        );
        write_config(CORPUS);
        expect_ok(&place.run(&place.reference, in_memory, None), "the reference");
        place
    }

    fn command(&self, out: &Path, task: Task, fault: Option<&str>) -> Command {
        let Task { resume, overwrite, keep_spool, spool_bytes } = task;
        let (corpus, out) = (self.corpus.display(), out.display());
        let mut command = Command::new(env::current_exe().expect("this program"));
        command
            .env(TASK, format!("{corpus}|{out}|{resume}|{overwrite}|{keep_spool}|{spool_bytes}"));
        command
            .env_remove(FAULT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(fault) = fault {
            command.env(FAULT, fault);
        }
        command
    }

    fn run(&self, out: &Path, task: Task, fault: Option<&str>) -> Output {
        self.command(out, task, fault).output().expect("a process")
    }

    /// Lets a run fail at the first step, another at the second, and so on until one does not fail;
    /// the number of steps.
    fn fail_at_every_step(
        &self,
        name: &str,
        task: Task,
        before: Option<&PathBuf>,
        fault: &str,
        once: &BTreeMap<String, Vec<u8>>,
    ) -> usize {
        // Two at a time, in batches, until a batch has one that came through.
        let mut step = 1;
        loop {
            let failed = tasks::run(2, 16, |at| {
                Ok(self.fail_at(name, step + at, task, before, fault, once))
            });
            let failed = failed.expect("no task fails");
            if let Some(through) = failed.iter().position(|failed| !failed) {
                return step + through - 1;
            }
            step += 16;
        }
    }

    /// Whether a run fails at `step`; it must go on then, and end as one that did not.
    fn fail_at(
        &self,
        name: &str,
        step: usize,
        task: Task,
        before: Option<&PathBuf>,
        fault: &str,
        once: &BTreeMap<String, Vec<u8>>,
    ) -> bool {
        let out = self.root.join(format!("{fault}-{step}"));
        let case = format!("{fault} at step {step}, {name}");
        if let Some(before) = before {
            copy_folder(before, &out);
        }
        let first = self.run(&out, task, Some(&format!("{fault}:{step}")));
        let failed = !first.status.success();
        if failed {
            let why = String::from_utf8_lossy(&first.stderr);
            match fault {
                "full" => assert!(
                    first.status.code() == Some(1) && why.contains("the disk is full"),
                    "{case}: {why}"
                ),
                _ => assert!(first.status.code().is_none(), "{case}: it was not aborted: {why}"),
            }
            expect_ok(&self.run(&out, Task { resume: true, ..task }, None), &case);
        }
        let seen = contents(&out);
        assert_eq!(seen.keys().collect::<Vec<_>>(), once.keys().collect::<Vec<_>>(), "{case}");
        assert!(seen == *once, "{case}: the bytes differ");
        assert_eq!(out.join(".work").exists(), task.keep_spool, "{case}");
        fs::remove_dir_all(out).expect("the folder can be removed");
        failed
    }

    /// Kills runs at random moments after their first byte of spool; each must go on and end as one
    /// that was not.
    fn kill_at_random(&self) {
        let once = contents(&self.reference);
        let task = Task { spool_bytes: 100_000, ..SPILLING };
        let spooled = |out: &Path| {
            fs::read_dir(out.join(".work/spool")).is_ok_and(|mut entries| entries.next().is_some())
        };
        let wait_for_spool = |out: &Path, child: &mut Child| {
            while !spooled(out) && child.try_wait().expect("a process").is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        // How long a run takes from its first byte of spool on.
        let out = self.root.join("timed");
        let mut child = self.command(&out, task, None).spawn().expect("a process");
        wait_for_spool(&out, &mut child);
        let started = Instant::now();
        assert!(child.wait().expect("a process").success(), "a run that is not killed");
        let takes = started.elapsed();
        let (mut state, mut killed, mut reused) = (1_u64, 0, 0);
        for nth in 0.. {
            let out = self.root.join(format!("killed-{nth}"));
            let mut child = self.command(&out, task, None).spawn().expect("a process");
            wait_for_spool(&out, &mut child);
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            thread::sleep(takes.mul_f64((state >> 33) as f64 / f64::from(1_u32 << 31)));
            let _ = child.kill();
            if child.wait().expect("a process").code().is_none() {
                killed += 1;
                let resumed = self.run(&out, Task { resume: true, ..task }, None);
                expect_ok(&resumed, "a run that was killed");
                reused += usize::from(!resumed.stdout.starts_with(b"0 of"));
            }
            assert!(contents(&out) == once, "run {nth}: the bytes differ");
            fs::remove_dir_all(out).expect("the folder can be removed");
            if killed == KILLS {
                break;
            }
            assert!(nth < 20 * KILLS, "runs end before they can be killed");
        }
        assert!(reused > 0, "no run went on from what it had");
    }
}

fn expect_ok(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Every file of a dataset; what a kept spool left is not of it.
fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(out).expect("it is below").display().to_string();
            if path.is_dir() && name != ".work" {
                folders.push(path);
            } else if path.is_file() {
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}
