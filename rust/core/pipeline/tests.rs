//! Properties of whole runs that need the inside of the pipeline: tasks as data, several documents
//! a record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::*;
use crate::commands::train_tokenizer;
use crate::monitor::Monitor;
use crate::report::ShardSums;
use crate::schema::{DocId, Refusal};
use crate::segment::{Each, Fields, Rendered, SegmentBuilder, Step};
use crate::settle::{Decisions, Sums};
use crate::storage::{LOCAL, Storage};
use crate::tasks::Helpers;
use crate::verify::{row_of, verify};
use crate::write::SourceEntry;

/// A corpus of records with two texts, in a folder of its own.
#[derive(Debug)]
struct Place {
    folder: TempDir,
}

impl Place {
    /// Writes a corpus and a tokenizer. `pack` and `source` are lines of the configuration.
    fn new(pack: &str, source: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let mut records = String::new();
        for nth in 0..400_u64 {
            // Some long, some said twice, in both of their texts or in one.
            let a = format!("first {} ", nth % 311).repeat(1 + (nth % 17) as usize);
            let b = format!("second {} ", nth % 311).repeat(1 + (nth % 311 % 5) as usize);
            records += &serde_json::json!({ "a": a, "b": b }).to_string();
            records.push('\n');
        }
        records += "{\n{\"a\": \"alone\"}\n";
        place.write("a.jsonl", &records);
        place.write("clean.jsonl", "{\"t\": \"first 7 first 7 first 7\"}\n");
        let config = format!(
            "[tokenizer]\nfile = \"tokenizer.json\"\neos = \"</s>\"\n[pack]\nseq_len = 64\n\
             shard_tokens = 4000\n{pack}\n[[source]]\nname = \"s\"\nfiles = [\"a.jsonl\"]\n\
             segments = [{{ prompt = \"{{{{ a }}}}:\" }}, {{ target = \" {{{{ b }}}}\" }}]\n\
             {source}"
        );
        place.write("corpus.toml", &config);
        let file = place.at("tokenizer.json");
        train_tokenizer(place.folder.path(), &file, 300, false, &context(LOCAL)).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        LOCAL.write_file(&self.at(name), text.as_bytes()).unwrap();
    }

    fn pack(&self, runner: &dyn Runner, out: &str) -> Report {
        let options = PackOptions { split_bytes: Some(4000), ..PackOptions::default() };
        let (corpus, out) = (self.folder.path(), self.at(out));
        pack_by(runner, Some(corpus), &out, &options, &context(LOCAL)).unwrap()
    }
}

fn context(storage: &dyn Storage) -> Context<'_> {
    static MONITOR: std::sync::LazyLock<Monitor> = std::sync::LazyLock::new(Monitor::default);
    Context { threads: 2, monitor: &MONITOR, storage }
}

/// Returns the bytes of every file of a dataset.
fn contents(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for name in LOCAL.list(&folder).unwrap() {
            let path = folder.join(name);
            if LOCAL.is_folder(&path) {
                folders.push(path);
            } else {
                let name = path.strip_prefix(out).unwrap().to_owned();
                found.insert(name, LOCAL.whole_bytes(&path).unwrap());
            }
        }
    }
    found
}

/// Returns a value after it was written as JSON and read again.
fn sent<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

/// Runs every task after it was written down and read again, the last first, one by one; so are
/// the decisions that reduce tasks work by.
#[derive(Debug)]
struct WrittenDown;

impl Runner for WrittenDown {
    fn map(&self, stage: &MapStage<'_>, tasks: &[MapTask]) -> Result<Vec<bool>> {
        let mut done = Vec::new();
        for task in tasks.iter().rev() {
            let read: MapTask = sent(task);
            assert_eq!(read, *task);
            done.push(stage.run(&read, &Helpers::none())?);
        }
        done.reverse();
        Ok(done)
    }

    fn reduce(&self, stage: &ReduceStage<'_>, tasks: &[ReduceTask]) -> Result<Vec<ShardSums>> {
        let decisions: Decisions = sent(stage.decisions);
        assert_eq!(decisions, *stage.decisions);
        let stage = ReduceStage { decisions: &decisions, ..*stage };
        let mut done = Vec::new();
        for task in tasks.iter().rev() {
            done.push(stage.run(&sent(task))?);
        }
        done.reverse();
        Ok(done)
    }
}

#[test]
fn tasks_and_decisions_can_be_written_down_sent_and_run_in_any_order() {
    let pack = "validation = 0.1\nduplicates = \"normalised\"";
    let place = Place::new(pack, "epochs = 1.5");
    let report = place.pack(&Threads, "here");
    assert!(report.reused_splits.1 > 4, "several map tasks");
    assert!(report.manifest.splits["train"].shards.len() > 2, "several reduce tasks");
    place.pack(&WrittenDown, "there");
    assert!(contents(&place.at("here")) == contents(&place.at("there")));
}

/// Workers that do orders one by one, the last first, each by a worker that has just joined.
#[derive(Debug)]
struct OneByOne<'a> {
    place: &'a Place,
    out: &'a str,
    /// The number of orders that were done, by kind.
    done: std::sync::Mutex<BTreeMap<&'static str, usize>>,
}

impl Workers for OneByOne<'_> {
    fn run(&self, orders: &[Order], take: &mut Take<'_>) -> Result<()> {
        let (corpus, out) = (self.place.folder.path(), self.place.at(self.out));
        let options = PackOptions { threads: 1, ..PackOptions::default() };
        for (index, Order { kind, tasks, .. }) in orders.iter().enumerate().rev() {
            take(None)?;
            let monitor = Monitor::default();
            let context = Context { threads: 1, monitor: &monitor, storage: LOCAL };
            let worker = || Worker::join(corpus, &out, &options, &context);
            let outcome = match *kind {
                "inputs" => sum_inputs(corpus, &options, tasks, &context),
                "map" => worker()?.map(tasks, &context),
                _ => worker()?.reduce(tasks, &context),
            };
            *tasks::lock(&self.done).entry(kind).or_default() += 1;
            take(Some((index, &outcome)))?;
        }
        Ok(())
    }
}

#[test]
fn workers_that_see_the_same_folders_make_the_same_dataset() {
    let place = Place::new("validation = 0.1\nduplicates = \"normalised\"", "epochs = 1.5");
    // Several files, since an order is of one.
    let lines = String::from_utf8(LOCAL.whole_bytes(&place.at("a.jsonl")).unwrap()).unwrap();
    for (nth, lines) in lines.split_inclusive('\n').collect::<Vec<_>>().chunks(60).enumerate() {
        place.write(&format!("b{nth}.jsonl"), &lines.concat());
    }
    let config = String::from_utf8(LOCAL.whole_bytes(&place.at("corpus.toml")).unwrap()).unwrap();
    place.write("corpus.toml", &config.replace("a.jsonl", "b*.jsonl"));
    place.pack(&Threads, "here");
    let workers = OneByOne { place: &place, out: "there", done: std::sync::Mutex::default() };
    let report = place.pack(&Cluster::new(&workers), "there");
    let done = tasks::lock(&workers.done).clone();
    assert!(done["inputs"] > 4 && done["map"] > 4 && done["reduce"] > 2, "{done:?}");
    assert_eq!(report.manifest.sources[0].records, 402);
    assert!(contents(&place.at("here")) == contents(&place.at("there")));
}

/// Packs `place` into `out` with `threads` threads. Returns the dataset's files, or the error.
fn packed_with(
    place: &Place,
    out: &str,
    threads: usize,
) -> std::result::Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let (out, context) = (place.at(out), context(LOCAL).with_threads(threads));
    let options = PackOptions::default();
    pack_by(&Threads, Some(place.folder.path()), &out, &options, &context)
        .map(|_| contents(&out))
        .map_err(|error| error.to_string())
}

/// Returns the records of a file of JSON Lines as one input split: gzip, a JSON array, quoted CSV.
fn as_one_split(lines: &str) -> [(&'static str, Vec<u8>); 3] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, lines.as_bytes()).unwrap();
    let array = format!("[{}]", lines.trim_end().replace('\n', ",\n"));
    let mut csv = "a,b\n".to_owned();
    for line in lines.lines() {
        let Ok(fields) = crate::read::parse_json(line.as_bytes()) else { continue };
        let quoted: Vec<String> = fields
            .values()
            .map(|value| format!("\"{}\"", value.as_str().unwrap().replace('"', "\"\"\n")))
            .collect();
        csv.extend([&quoted.join(","), "\n"]);
    }
    [("jsonl.gz", gzip.finish().unwrap()), ("json", array.into_bytes()), ("csv", csv.into_bytes())]
}

#[test]
fn an_input_split_is_mapped_by_many_threads_as_by_one() {
    for (pack, source) in [
        ("validation = 0.1\nduplicates = \"normalised\"", "epochs = 1.5"),
        ("decontaminate = [\"clean.jsonl\"]\ndecontaminate_ngram = 6", "overflow = \"drop\""),
    ] {
        let place = Place::new(pack, source);
        let lines = String::from_utf8(LOCAL.whole_bytes(&place.at("a.jsonl")).unwrap()).unwrap();
        // A malformed element would take the rest of the array with it.
        let lines = lines.replace("\n{\n", "\n{]\n");
        let config = String::from_utf8(LOCAL.whole_bytes(&place.at("corpus.toml")).unwrap());
        let config = config.unwrap();
        for (suffix, content) in as_one_split(&lines) {
            let name = format!("one.{suffix}");
            LOCAL.write_file(&place.at(&name), &content).unwrap();
            place.write("corpus.toml", &config.replace("a.jsonl", &name));
            let expected = packed_with(&place, &format!("{suffix}-1"), 1).unwrap();
            for threads in [2, 5] {
                let seen = packed_with(&place, &format!("{suffix}-{threads}"), threads).unwrap();
                assert!(seen == expected, "{name} with {threads} threads");
            }
        }
    }
}

#[test]
fn of_two_faults_in_a_file_the_first_stops_the_run_with_any_number_of_threads() {
    let place = Place::new("", "overflow = \"error\"");
    let config = String::from_utf8(LOCAL.whole_bytes(&place.at("corpus.toml")).unwrap()).unwrap();
    place.write("corpus.toml", &config.replace("a.jsonl", "a.jsonl.gz"));
    let line = "{\"a\": \"one\", \"b\": \"two\"}\n";
    let long = format!("{{\"a\": \"one\", \"b\": \"{}\"}}\n", "three ".repeat(200));
    for (lines, fault) in [
        (line.repeat(4000) + &long + &line.repeat(4000), "a row holds 64"),
        (line.repeat(8000), "its gzip breaks off"),
    ] {
        let [(_, mut gzip), ..] = as_one_split(&lines);
        // The checksum and the length of the content are lost.
        gzip.truncate(gzip.len() - 8);
        LOCAL.write_file(&place.at("a.jsonl.gz"), &gzip).unwrap();
        let expected = packed_with(&place, "out", 1).unwrap_err();
        assert!(expected.contains(fault), "{expected}");
        for threads in [2, 5] {
            assert_eq!(packed_with(&place, "out", threads).unwrap_err(), expected);
        }
    }
}

/// Makes two documents of a record.
#[derive(Debug)]
struct TwoDocuments(Segmenter);

impl SegmentBuilder for TwoDocuments {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        self.0.render(fields, rendered)?;
        each(rendered)?;
        // The second document shows the second text twice.
        let mut fields = fields.clone();
        if let Some(second) = fields.get("b").cloned() {
            fields.insert("a".to_owned(), second);
        }
        self.0.render(&fields, rendered)?;
        each(rendered)
    }

    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.0.shortenable_fields(fields)
    }

    fn unmarked(&self) -> u64 {
        self.0.unmarked()
    }
}

/// Packs with two documents a record into `out`, and returns the entry of the one source.
fn pack_two(place: &Place, out: &Path) -> SourceEntry {
    let context = context(LOCAL);
    let options = PackOptions { split_bytes: Some(4000), ..PackOptions::default() };
    let plan = Plan::load(place.folder.path(), &options, LOCAL).unwrap();
    let sum = |plan: &Plan| Threads.inputs(plan, &context);
    let (mut run, inputs) = Run::prepare(plan, options, out, &context, sum).unwrap();
    let (encoder, names) = (&run.job.encoder, run.job.encoder.token_names());
    let segmenter = Segmenter::compile(&run.job.plan.sources[0], encoder.spellings(), &names);
    run.job.builders = vec![Box::new(TwoDocuments(segmenter.unwrap()))];
    let survey = Survey::Fresh(None);
    let state = run.state(&survey, identity(&run.job, &inputs)).unwrap();
    let folder = WorkFolder::open(LOCAL, out, &survey, state).unwrap();
    // A spool that spills, so that documents are read from files too.
    let store = Store::new(LOCAL, folder.spool(), Vec::new(), run.job.encoder.id_type(), 20_000);
    let made = run.make(&Threads, &store, &folder, inputs).unwrap();
    folder.commit(run.job.encoder.bytes(), &made.manifest, &made.spools).unwrap();
    made.manifest.sources[0].clone()
}

/// Returns how often each document is packed, windows put together.
fn packed(out: &Path) -> BTreeMap<(u64, u32, u32), u32> {
    let manifest = Manifest::read(LOCAL, out).unwrap();
    let ids = crate::schema::IdType::for_vocab(manifest.tokenizer.vocab_size);
    let mut found = BTreeMap::new();
    for shard in manifest.splits.values().flat_map(|split| &split.shards) {
        let file = LOCAL.open_shard(&out.join(&shard.file)).unwrap();
        for batch in arrow_ipc::reader::FileReader::try_new(file, None).unwrap() {
            let batch = batch.unwrap();
            for index in 0..batch.num_rows() {
                let row = row_of(&batch, index, ids);
                for (nth, &record) in row.record_ids.iter().enumerate() {
                    let id = DocId::of_row(row.source_ids[nth], record, row.doc_parts[nth]);
                    if id.window == 0 {
                        *found.entry((record, id.copy, id.part)).or_default() += 1;
                    }
                }
            }
        }
    }
    found
}

#[test]
fn a_record_of_two_documents_is_counted_once_and_each_document_packed_once_a_copy() {
    for (pack, source) in [
        ("", ""),
        ("validation = 0.1\nduplicates = \"normalised\"", "epochs = 1.5"),
        ("decontaminate = [\"clean.jsonl\"]\ndecontaminate_ngram = 6", "overflow = \"drop\""),
        ("pack = \"concat\"", "epochs = 2.5"),
        ("pack = \"none\"\nvalidation = 0.2", ""),
    ] {
        let place = Place::new(pack, source);
        let out = place.at("out");
        let entry = pack_two(&place, &out);
        let case = format!("{pack} {source}: {entry:?}");
        // Records: each read once, kept or dropped once. (M7's own check has passed already.)
        assert_eq!(entry.records, 402, "{case}");
        assert_eq!(entry.records, entry.kept + entry.drops.values().sum::<u64>(), "{case}");
        assert!(entry.kept > 100 && entry.drops["missing field"] == 1, "{case}");
        // Documents: two for each copy of a kept record, each there exactly once.
        let found = packed(&out);
        assert!(found.values().all(|&times| times == 1), "{case}");
        let mut parts: BTreeMap<(u64, u32), Vec<u32>> = BTreeMap::new();
        for &(record, copy, part) in found.keys() {
            parts.entry((record, copy)).or_default().push(part);
        }
        assert!(parts.values().all(|parts| *parts == [0, 1]), "{case}");
        let records: std::collections::BTreeSet<u64> =
            parts.keys().map(|(record, _)| *record).collect();
        assert_eq!(records.len() as u64, entry.kept, "{case}");
        let held_out = entry.validation.documents > 0;
        assert_eq!(held_out, pack.contains("validation"), "{case}");
        if !pack.contains("concat") {
            let Sums { documents, .. } = entry.train;
            assert_eq!(documents, 2 * entry.copies, "{case}");
            assert_eq!(parts.len() as u64 * 2, documents + entry.validation.documents, "{case}");
        }
        let found = verify(&out, &context(LOCAL)).unwrap();
        assert_eq!(found.failures, Vec::<String>::new(), "{case}");
    }
}
