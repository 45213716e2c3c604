//! What the spool of a split is named by: everything that its content depends on, so that a spool
//! found under the name is the one that mapping would make.

use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::Job;
use crate::read::InputSplit;
use crate::schema::Overflow;
use crate::write::InputEntry;

/// The names of a split's spools.
#[derive(Debug)]
pub struct Names {
    /// That of its whole documents.
    pub whole: String,
    /// That of its documents made to fit a row, where its source shortens them.
    pub fitted: Option<String>,
}

/// The names of the spools of `split`, whose file is `input`.
pub fn names(job: &Job<'_>, split: &InputSplit, input: &InputEntry) -> Names {
    let source = &job.plan.sources[split.source];
    let controls = job.encoder.controls();
    let mut whole = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "tokenizer": job.encoder.sha256(),
        "controls": [controls.bos, Some(controls.eos), Some(controls.pad)],
        "source": source.name,
        "format": source.format,
        "columns": source.options.columns,
        "header": source.options.header,
        "segments": source.segments,
        "special_in_data": source.special_in_data,
        "loss": source.loss,
        "seed": job.plan.pack.seed,
        "nth_input": split.nth_input,
        "input": [json!(input.size), json!(input.xxh3_128)],
        "range": [split.range.start, split.range.end],
        "keyed": job.keyed,
        "held_out": job.held_out.as_ref().map(|held_out| format!("{:032x}", held_out.digest())),
    });
    if let Some(delimiter) = &source.options.delimiter {
        whole["delimiter"] = json!(delimiter);
    }
    let name =
        |facts: &serde_json::Value| format!("{:032x}", xxh3_128(facts.to_string().as_bytes()));
    let fitted = (source.overflow == Overflow::Truncate)
        .then(|| format!("{}.fit", name(&json!([whole, job.plan.pack.seq_len]))));
    Names { whole: format!("{}.map", name(&whole)), fitted }
}
