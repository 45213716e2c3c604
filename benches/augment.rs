//! The cost of making tasks from plain text: `cargo bench --bench augment`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sabiprep::commands::train_tokenizer;
use sabiprep::context::Context;
use sabiprep::job::Job;
use sabiprep::monitor::Monitor;
use sabiprep::plan::{PackOptions, Plan};
use sabiprep::read::Record;
use sabiprep::segment::Rendered;
use sabiprep::storage::Local;

/// The tasks; none for the text as it is.
const TASKS: [&str; 7] =
    ["", "diacritize", "denoise", "continue", "span_fill", "language_id", "order"];

/// Every task of Yoruba text, read and rendered, by bytes of this text.
#[expect(clippy::disallowed_methods, reason = "a benchmark makes its own files")]
fn augment(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/corpus");
    let text = std::fs::read_to_string(examples.join("text-yor.txt")).expect("text");
    // Records of some sentences each, as paragraphs are.
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let records: Vec<String> = lines.chunks(4).map(|lines| lines.join(" ")).collect();
    let text = (records.join("\n") + "\n").repeat(1 + 4_000_000 / text.len());
    std::fs::write(folder.path().join("text.txt"), &text).expect("a file");
    let mut toml = "[tokenizer]\neos = '</s>'\n".to_owned();
    for task in TASKS {
        toml.extend(["[[source]]\nname = 'x", task, "'\nlang = 'yor'\nfiles = ['text.txt']\n"]);
        if !task.is_empty() {
            toml.extend(["augment = '", task, "'\n"]);
        }
    }
    std::fs::write(folder.path().join("corpus.toml"), toml).expect("a file");
    let tokenizer = folder.path().join("tokenizer.json");
    let monitor = Monitor::default();
    let context = Context { threads: 1, monitor: &monitor, storage: &Local };
    train_tokenizer(&examples, &tokenizer, 2048, false, &context).expect("a tokenizer");
    let options = PackOptions { tokenizer: Some(tokenizer), ..PackOptions::default() };
    let plan = Plan::load(folder.path(), &options, &Local).expect("a plan");
    let job = Job::prepare(plan, &context).expect("a job");

    let read_all = |source: usize, each: &mut dyn FnMut(&Record<'_>)| {
        let splits = job.plan.splits(&Local).expect("the inputs can be read");
        for split in splits.iter().filter(|split| split.source == source) {
            let mut records = job.open(split, &context).expect("a split");
            while let Some(record) = records.advance().expect("a record") {
                each(&record);
            }
        }
    };
    let mut group = criterion.benchmark_group("augment, by bytes of text");
    group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
    for (source, task) in TASKS.into_iter().enumerate() {
        let mut out = Rendered::default();
        let name = if task.is_empty() { "the text as it is" } else { task };
        group.bench_function(name, |bench| {
            bench.iter(|| {
                read_all(source, &mut |record| {
                    // A text without marks, or of one sentence, is refused.
                    let each = &mut |_: &Rendered| Ok(());
                    let _ = black_box(job.builders[source].build_record(record, &mut out, each));
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, augment);
criterion_main!(benches);
