//! The cost of tokenization by the fast encoder: `cargo bench --bench tokenize`.
//!
//! The vocabulary is trained on the example corpus. Whole documents are those of the naija corpus
//! beside the checkout, where it is, each half of it in turn, so that no text comes twice before
//! the cache has seen as much in between.

#![expect(clippy::print_stderr, reason = "a benchmark says what it skips")]

use std::hint::black_box;
use std::path::Path;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use sabiprep::commands::train_tokenizer;
use sabiprep::context::Context;
use sabiprep::monitor::Monitor;
use sabiprep::storage::{Local, Storage};
use sabiprep::tokenize::TextEncoder;
use sabiprep::tokenize::fast::Engine;
use serde_json::Value;

const MAFAND: &str = "../shared/corpora/naija/mafand";

fn tokenization(criterion: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let context = Context { threads: 1, monitor: &Monitor::default(), storage: &Local };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tokenizer.json");
    let trained = train_tokenizer(&root.join("examples/corpus"), &file, 4096, false, &context);
    let json = trained.expect("a tokenizer").json;
    let encoder = TextEncoder::from_bytes(&json).expect("a tokenizer");
    let engine =
        Engine::of(&serde_json::from_slice(&json).expect("JSON")).expect("a known tokenizer");

    let mut group = criterion.benchmark_group("tokenize, by bytes");
    group.sample_size(20);
    // Some common words again and again, then more words than the cache holds, each once a pass.
    let known =
        "the people of the town said that it is not what they saw ọmọ náà ń kà ìwé ".repeat(2_000);
    let new: String =
        (0..600_000_u64).map(|nth| word(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    group.throughput(Throughput::Bytes(known.len() as u64));
    group.bench_function("split", |bench| {
        bench.iter(|| {
            let mut words = 0;
            engine.split(black_box(&known), |_, _| words += 1);
            words
        });
    });
    texts(&mut group, &encoder, "words seen before", &[&known]);
    texts(&mut group, &encoder, "words not seen before", &[&new]);
    for (name, field) in [("naija", None), ("English", Some("en"))] {
        let found = documents(&root.join(MAFAND), field);
        if found.is_empty() {
            eprintln!("{name}: skipped, no corpus at {MAFAND}");
            continue;
        }
        texts(
            &mut group,
            &encoder,
            &format!("documents, {name}"),
            &found.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    group.finish();
}

fn texts(
    group: &mut BenchmarkGroup<'_, WallTime>,
    encoder: &TextEncoder,
    name: &str,
    texts: &[&str],
) {
    group.throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
    group.bench_function(name, |bench| {
        bench.iter(|| encoder.encode(black_box(texts).iter().copied(), 1).expect("ids"));
    });
}

/// A word of four to eleven letters and the space before it.
fn word(mut random: u64) -> String {
    let len = 4 + random % 8;
    let letters = (0..len).map(|_| {
        random = random.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
        char::from(b'a' + (random >> 40) as u8 % 26)
    });
    std::iter::once(' ').chain(letters.collect::<Vec<_>>()).collect()
}

/// The sentences of MAFAND in one language, or in all.
fn documents(folder: &Path, field: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for pair in ["eng-hau", "eng-ibo", "eng-pcm", "eng-yor"] {
        let Ok(bytes) = (&Local as &dyn Storage).whole_bytes(&folder.join(pair).join("train.json"))
        else {
            continue;
        };
        for line in bytes.split(|&byte| byte == b'\n') {
            let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
            let Some(texts) = record["translation"].as_object() else { continue };
            let wanted = texts.iter().filter(|(key, _)| field.is_none_or(|field| field == *key));
            found.extend(wanted.filter_map(|(_, text)| text.as_str().map(str::to_owned)));
        }
    }
    found
}

criterion_group!(benches, tokenization);
criterion_main!(benches);
