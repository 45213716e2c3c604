//! The golden cases that pytest reads too: boundaries, roles, masks and windows, from plain data.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at anything unexpected"
)]

use std::path::Path;

use sabiprep::commands::explain;
use sabiprep::context::Context;
use sabiprep::monitor::Monitor;
use sabiprep::pack::windows;
use sabiprep::plan::{PackOptions, Plan, PlanSpec};
use sabiprep::storage::Local;
use serde_json::Value;

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A corpus.toml for one case, written as a user would.
fn configuration(case: &Value) -> String {
    let quoted = |value: &Value| toml::Value::from(value.as_str().unwrap()).to_string();
    let mut text = format!("[tokenizer]\neos = {}\n", quoted(&case["eos"]));
    if case["bos"].is_string() {
        text += "bos = ";
        text += &quoted(&case["bos"]);
        text += "\n";
    }
    text += "[[source]]\nname = \"case\"\nfiles = [\"case.jsonl\"]\nsegments = [\n";
    for segment in case["segments"].as_array().unwrap() {
        let (kind, template) = segment.as_object().unwrap().iter().next().unwrap();
        text += &["  { ", kind, " = ", &quoted(template), " },\n"].concat();
    }
    text + "]\n"
}

#[test]
fn every_boundary_case_gives_its_ids_roles_and_mask() {
    let golden = read("boundary.json");
    let folder = tempfile::tempdir().unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let record = case["record"].to_string();
        std::fs::write(folder.path().join("case.jsonl"), &record).unwrap();
        let tokenizer = golden["tokenizers"][case["tokenizer"].as_str().unwrap()].as_str().unwrap();
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(tokenizer);
        let options = PackOptions { tokenizer: Some(tokenizer), ..PackOptions::default() };
        let spec = PlanSpec::parse(&configuration(case), "corpus.toml").unwrap();
        let plan = Plan::resolve(spec, folder.path(), &options, &Local).unwrap();
        let context = Context { threads: 1, monitor: &Monitor::default(), storage: &Local };
        let name = &case["name"];
        let documents = explain(plan, "case", record.as_bytes(), &context).unwrap();
        let [found] = documents.as_slice() else { panic!("{name}: one document") };
        assert_eq!(found.dropped, None, "{name}");
        let ids: Vec<u64> = found.tokens.iter().map(|token| u64::from(token.id)).collect();
        let roles: Vec<u64> = found.tokens.iter().map(|token| token.role as u64).collect();
        let mask: Vec<bool> = found.tokens.iter().map(|token| token.trained).collect();
        assert_eq!(Value::from(ids), case["ids"], "ids of {name}");
        assert_eq!(Value::from(roles), case["roles"], "roles of {name}");
        assert_eq!(Value::from(mask), case["loss_mask"], "mask of {name}");
    }
}

#[test]
fn every_split_gives_its_windows() {
    let golden = read("windows.json");
    let mut split = 0;
    for case in golden.as_array().unwrap() {
        let number = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
        let (len, seq_len) = (number("n"), number("seq_len"));
        if len > seq_len {
            let found: Vec<Vec<usize>> = windows(len, seq_len)
                .into_iter()
                .map(|window| vec![window.start, window.end])
                .collect();
            assert_eq!(Value::from(found), case["windows"], "{len} in {seq_len}");
            split += 1;
        }
    }
    assert!(split > 5);
}
