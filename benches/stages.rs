//! The cost of each stage on the example corpus: `cargo bench`.

use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sabiprep::commands::train_tokenizer;
use sabiprep::context::Context;
use sabiprep::job::Job;
use sabiprep::mask::{Row, RowRules, check_row};
use sabiprep::monitor::Monitor;
use sabiprep::pack::{Item, Packing, Sorting};
use sabiprep::pipeline::pack as pack_corpus;
use sabiprep::plan::{PackOptions, Plan};
use sabiprep::read::Record;
use sabiprep::schema::{DocId, LossPolicy};
use sabiprep::segment::{Fields, Rendered};
use sabiprep::storage::Local;

/// The example corpus and a tokenizer trained on it.
struct Bench {
    folder: tempfile::TempDir,
    corpus: PathBuf,
    tokenizer: PathBuf,
    monitor: Monitor,
}

impl Bench {
    /// Trains a tokenizer on the example corpus.
    fn of_example() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/corpus");
        let tokenizer = folder.path().join("tokenizer.json");
        let monitor = Monitor::default();
        let context = Context { threads: 1, monitor: &monitor, storage: &Local };
        train_tokenizer(&corpus, &tokenizer, 2048, false, &context).expect("a tokenizer");
        Self { folder, corpus, tokenizer, monitor }
    }
}

fn stages(criterion: &mut Criterion) {
    let Bench { folder, corpus, tokenizer, monitor } = Bench::of_example();
    let context = Context { threads: 1, monitor: &monitor, storage: &Local };
    let options = PackOptions {
        tokenizer: Some(tokenizer),
        threads: 1,
        overwrite: true,
        ..PackOptions::default()
    };
    let plan = Plan::load(&corpus, &options, &Local).expect("a plan");
    let job = Job::prepare(plan, &context).expect("a job");
    let plan = &job.plan;

    let read_all = |each: &mut dyn FnMut(usize, &Record<'_>, Rendered)| {
        for split in plan.splits(&Local).expect("the inputs can be read") {
            let builder = &job.builders[split.source];
            let mut records = job.open(&split, &context).expect("a split");
            while let Some(record) = records.advance().expect("a record") {
                let mut out = Rendered::default();
                builder.build_record(&record, &mut out, &mut |_| Ok(())).expect("text");
                each(split.source, &record, out);
            }
        }
    };
    let mut fields: Vec<(usize, Fields)> = Vec::new();
    read_all(&mut |source, record, _| fields.push((source, record.fields().expect("fields"))));
    let render = |source: usize, fields: &Fields| {
        let mut out = Rendered::default();
        job.builders[source].build(fields, &mut out, &mut |_| Ok(())).expect("text");
        out
    };
    let rendered: Vec<Rendered> =
        fields.iter().map(|(source, fields)| render(*source, fields)).collect();
    let bytes: usize = rendered.iter().map(|rendered| rendered.text.len()).sum();

    let mut group = criterion.benchmark_group("stage, by bytes of rendered text");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
    group.bench_function("read and segment, directly", |bench| {
        bench.iter(|| read_all(&mut |_, _, rendered| drop(black_box(rendered))));
    });
    group.bench_function("parse into fields", |bench| {
        bench.iter(|| read_all(&mut |_, record, _| drop(black_box(record.fields()))));
    });
    group.bench_function("segment, from fields", |bench| {
        bench.iter(|| {
            for (source, fields) in &fields {
                drop(black_box(render(*source, fields)));
            }
        });
    });
    group.bench_function("tokenize", |bench| {
        let mut session = job.encoder.session();
        let mut encode = |rendered| drop(black_box(job.encoder.encode(rendered, &mut session)));
        bench.iter(|| rendered.iter().for_each(&mut encode));
    });
    let out = folder.path().join("out");
    group.bench_function("everything, one thread", |bench| {
        bench.iter(|| pack_corpus(Some(&corpus), &out, &options, &context).expect("a dataset"));
    });
    group.finish();
}

/// Reading alone, of the same lines as they are and compressed.
#[expect(clippy::disallowed_methods, reason = "a benchmark makes its own files")]
fn reading(criterion: &mut Criterion) {
    let Bench { folder, corpus, tokenizer, monitor } = Bench::of_example();
    let context = Context { threads: 1, monitor: &monitor, storage: &Local };
    let options = PackOptions { tokenizer: Some(tokenizer), ..PackOptions::default() };
    let texts = ["eng", "hau", "ibo", "yor"]
        .map(|lang| std::fs::read_to_string(corpus.join(format!("text-{lang}.txt"))).expect("text"))
        .concat();
    let mut lines = Vec::new();
    for (nth, text) in texts.lines().cycle().enumerate() {
        writeln!(lines, "{}", serde_json::json!({ "nth": nth, "text": text })).expect("memory");
        if lines.len() > 8_000_000 {
            break;
        }
    }
    let gzip = {
        let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        file.write_all(&lines).expect("memory");
        file.finish().expect("memory")
    };
    let zstd = zstd::encode_all(&lines[..], 0).expect("memory");
    let mut group = criterion.benchmark_group("read, by bytes of content");
    group.throughput(Throughput::Bytes(lines.len() as u64)).sample_size(20);
    for (name, bytes) in [("a.jsonl", lines), ("a.jsonl.gz", gzip), ("a.jsonl.zst", zstd)] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let toml = format!(
            "[[source]]\nname = 'a'\nfiles = '{name}'\nsegments = [{{ target = '{{{{ text }}}}' }}]\n"
        );
        std::fs::write(folder.path().join("corpus.toml"), toml).expect("a file");
        let plan = Plan::load(folder.path(), &options, &Local).expect("a plan");
        let job = Job::prepare(plan, &context).expect("a job");
        group.bench_function(name, |bench| {
            bench.iter(|| {
                for split in job.plan.splits(&Local).expect("the file can be read") {
                    let mut records = job.open(&split, &context).expect("a split");
                    while let Some(record) = records.advance().expect("a record") {
                        black_box(&record);
                    }
                }
            });
        });
    }
    group.finish();
}

fn packing(criterion: &mut Criterion) {
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    // Lengths as in a multitask corpus: many short, some long.
    let items: Vec<Item> = (0..200_000)
        .map(|record| {
            let len = if random() % 10 == 0 { 200 + random() % 1800 } else { 10 + random() % 120 };
            Item {
                len: len as u32,
                order: random() << 31 | random(),
                id: DocId { record, ..DocId::default() },
            }
        })
        .collect();
    let mut group = criterion.benchmark_group("pack, by documents");
    group.throughput(Throughput::Elements(items.len() as u64)).sample_size(20);
    group.bench_function("best fit, rows of 2048", |bench| {
        bench.iter(|| {
            black_box(Packing::default().pack(&items, 2048, Sorting::on(1)).expect("rows"))
        });
    });
    group.finish();

    let rules = RowRules {
        seq_len: 2048,
        bos: None,
        eos: 1,
        pad: 0,
        vocab_size: 100,
        policies: vec![LossPolicy::TargetOnly],
        spans: vec![false],
        is_weighted: false,
        cuts: false,
    };
    let mut row = Row { ids: vec![1; 2048], mask: vec![false; 2048], ..Row::default() };
    for document in 0..32 {
        row.mask[document * 64 + 40..(document + 1) * 64].fill(true);
        row.seq_lengths.push(64);
        row.segment_lengths.extend([40, 23, 1]);
        row.segment_roles.extend([2, 3, 0]);
        row.source_ids.push(0);
        row.record_ids.push(0);
        row.doc_parts.push(0);
    }
    row.n_targets = 32 * 24;
    let mut group = criterion.benchmark_group("check, by tokens");
    group.throughput(Throughput::Elements(2048));
    group.bench_function("row of 32 documents", |bench| {
        bench.iter(|| check_row(black_box(&row), &rules).expect("a right row"));
    });
    group.finish();
}

criterion_group!(benches, stages, reading, packing);
criterion_main!(benches);
