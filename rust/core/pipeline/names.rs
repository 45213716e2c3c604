//! `SpoolNames`: the names of a split's spools, made of everything that their content depends on.
//! So a spool found under a name has the bytes that mapping would make.

use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use crate::job::Job;
use crate::read::InputSplit;
use crate::schema::Overflow;
use crate::write::InputEntry;

/// The names of a split's spools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpoolNames {
    /// The name of the spool of whole documents.
    pub whole: String,
    /// The name of the spool of fitted documents, if the source shortens documents.
    pub fitted: Option<String>,
}

impl SpoolNames {
    /// Returns the names of the spools of `split`, of the files `inputs`.
    pub(crate) fn of(job: &Job, split: &InputSplit, inputs: &[InputEntry]) -> Self {
        let source = &job.plan.sources[split.source];
        let fact = |input: usize| json!([inputs[input].size, inputs[input].xxh3_128]);
        let files = source.files_of(split.nth_input).skip(1);
        let controls = job.encoder.controls();
        let held_out = job.held_out.as_ref();
        let mut whole = json!({
            "program": env!("CARGO_PKG_VERSION"),
            "tokenizer": job.encoder.sha256(),
            "controls": [controls.bos, Some(controls.eos), Some(controls.pad)],
            "source": source.name,
            "format": source.format,
            "options": source.options,
            "segments": source.segments,
            "chat": source.chat,
            "special_in_data": source.special_in_data,
            "loss": source.loss,
            "seed": job.plan.pack.seed,
            "nth_input": split.nth_input,
            "input": fact(split.input),
            "sides": files.map(fact).collect::<Vec<_>>(),
            "fields": source.sides.iter().map(|side| &side.field).collect::<Vec<_>>(),
            "range": [split.range.start, split.range.end],
            "keyed": job.keyed,
            "held_out": held_out.map(|n_grams| format!("{:032x}", n_grams.digest())),
        });
        if let Some(near) = job.plan.pack.near {
            whole["near"] = json!(near);
        }
        if let Some(clean) = &source.clean {
            whole["clean"] = json!(clean);
        }
        // A task may name the language.
        if let Some(augment) = &source.augment {
            whole["augment"] = json!([augment, source.lang, source.written_lang]);
        }
        if let Some(spans) = &source.spans {
            whole["spans"] = json!(spans);
        }
        if let Some(weight) = &source.loss_weight {
            whole["loss_weight"] = json!(weight);
        }
        for (key, value) in [
            ("record_name", source.document.as_ref().map(|_| json!(source.record_name))),
            ("tagged", source.tagged.as_ref().map(|tagged| json!(tagged))),
            ("templates", (!source.templates.is_empty()).then(|| json!(source.templates))),
            ("choose", source.choose.map(|choose| json!(choose))),
            ("when", source.when.as_ref().map(|when| json!(when))),
            ("each", source.each.as_ref().map(|each| json!(each))),
        ] {
            if let Some(value) = value {
                whole[key] = value;
            }
        }
        // The script that is expected depends on the language.
        if let Some(filter) = &source.filter {
            whole["filter"] = json!([filter, source.written_lang]);
        }
        // Fitted documents depend on the length of rows, whole ones do not.
        let fitted = (source.overflow == Overflow::Truncate)
            .then(|| format!("{}.fit", digest(&json!([whole, job.plan.pack.seq_len]))));
        Self { whole: format!("{}.map", digest(&whole)), fitted }
    }
}

/// Returns the xxh3-128 of a value as JSON, in hexadecimal.
fn digest(facts: &serde_json::Value) -> String {
    format!("{:032x}", xxh3_128(facts.to_string().as_bytes()))
}
