//! Too small a disk is an error before work starts.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

#[path = "support/faulty.rs"]
#[expect(dead_code, reason = "crash.rs uses the rest")]
mod faulty;

use std::path::Path;

use faulty::{Fault, Faulty};
use sabiprep::commands::train_tokenizer;
use sabiprep::context::Context;
use sabiprep::error::ErrorKind;
use sabiprep::monitor::Monitor;
use sabiprep::pipeline::pack;
use sabiprep::plan::PackOptions;
use sabiprep::storage::{Local, Storage};

const LOCAL: &dyn Storage = &Local;

fn on<'a>(storage: &'a dyn Storage, monitor: &'a Monitor) -> Context<'a> {
    Context { threads: 1, monitor, storage }
}

#[test]
fn too_small_a_disk_is_an_error_before_work_starts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let line = |nth: u32| format!("line {nth} {}\n", nth * 7919 % 104_729);
    let lines = (0..3000).map(line).collect::<Vec<_>>().concat();
    LOCAL.make_parent(&at("corpus/a.txt")).unwrap();
    LOCAL.write_file(&at("corpus/a.txt"), lines.as_bytes()).unwrap();
    let config = "[tokenizer]\nfile = \"tokenizer.json\"\neos = \"</s>\"\n[pack]\nseq_len = 64\n\
                  [[source]]\nname = \"a\"\nfiles = [\"a.txt\"]\n";
    LOCAL.write_file(&at("corpus/corpus.toml"), config.as_bytes()).unwrap();
    train_tokenizer(
        &at("corpus"),
        &at("corpus/tokenizer.json"),
        300,
        false,
        &on(LOCAL, &Monitor::default()),
    )
    .unwrap();
    let pack_with = |free: u64, out: &Path| {
        let disk = Faulty::new(Fault::Free(free));
        pack(Some(&at("corpus")), out, &PackOptions::default(), &on(&disk, &Monitor::default()))
    };

    let error = pack_with(50_000, &at("none")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Output);
    assert!(error.message.contains("the disk has 0 MB free, this needs about 1 MB"), "{error}");
    assert!(!LOCAL.exists(&at("none")));

    let packed = pack_with(u64::MAX, &at("enough")).unwrap();
    let shards = packed.manifest.splits.values().flat_map(|split| &split.shards);
    let needed: u64 = shards.map(|shard| shard.bytes).sum();
    pack_with(3 * needed, &at("again")).unwrap();
}
