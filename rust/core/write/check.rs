//! Checks of the values in a manifest: a dataset may be forged.

use super::manifest::{Manifest, RecordsEntry, ShardEntry, SourceEntry, SplitEntry};
use crate::settle::Sums;

/// Success, or the sentence that names the wrong field.
type Checked = std::result::Result<(), String>;

impl Manifest {
    /// Checks bounds, and that every file lies inside the dataset. Returns an error that names a
    /// wrong field. `python/sabiprep/manifest.py` has the rules too.
    pub(super) fn check(&self) -> Checked {
        let tokenizer = &self.tokenizer;
        require("seq_len", (1..1 << 31).contains(&self.seq_len))?;
        require("rows_per_batch", (1..1 << 31).contains(&self.rows_per_batch))?;
        require("id_dtype", matches!(self.id_dtype.as_str(), "uint16" | "uint32"))?;
        require("tokenizer.vocab_size", (1..=1 << 32).contains(&tokenizer.vocab_size))?;
        require(
            "tokenizer.vocab_size",
            self.id_dtype != "uint16" || tokenizer.vocab_size <= 1 << 16,
        )?;
        let is_known = |id: u32| (id as usize) < tokenizer.vocab_size;
        require("tokenizer.bos_id", tokenizer.bos_id.is_none_or(is_known))?;
        require("tokenizer.eos_id", is_known(tokenizer.eos_id))?;
        require("tokenizer.pad_id", is_known(tokenizer.pad_id))?;
        require("tokenizer.file", is_plain(&tokenizer.file))?;
        require("sources", (1..=1 << 16).contains(&self.sources.len()))?;
        self.sources.iter().try_for_each(SourceEntry::check)?;
        let has_weights = self.sources.iter().any(|source| source.loss_weight.is_some());
        require("format_version", has_weights == self.is_weighted())?;
        for RecordsEntry { records, kept, without, .. } in &self.records {
            require("a count of records", [*records, *kept, *without].into_iter().all(is_count))?;
        }
        if let Some(dropped) = &self.dropped {
            require("dropped.file", is_plain(&dropped.file))?;
            require("dropped.records", is_count(dropped.records))?;
        }
        if let Some(list) = &self.contaminated {
            require("contaminated.file", is_plain(&list.file))?;
            require("contaminated.records", is_count(list.records))?;
        }
        let counts = self.benchmarks.iter().flat_map(|task| [task.documents, task.short]);
        require("a count of benchmarks", counts.into_iter().all(is_count))?;
        require("splits", self.splits.keys().eq(["train", "validation"]))?;
        self.splits.iter().try_for_each(|(name, split)| split.check(name))
    }
}

impl SourceEntry {
    /// Checks the counts of a source.
    fn check(&self) -> Checked {
        let Self { unique, train, validation, .. } = self;
        let counts = [self.copies, self.records, self.kept, self.truncated];
        let counts = counts
            .iter()
            .chain(self.drops.values())
            .chain(self.examples.iter().map(|example| example.place.number()));
        let cleaned = self.cleaned.values().flat_map(|cleaned| {
            let places = cleaned.examples.iter().map(|example| example.place.number());
            places.chain([&cleaned.records])
        });
        let left_out = self.left_out.values().flat_map(|left_out| {
            let places = left_out.examples.iter().map(|example| example.place.number());
            places.chain([&left_out.documents])
        });
        let amounts = [self.epochs, self.asked_epochs];
        require("sources.name", !self.name.is_empty())?;
        require(
            "a count of sources",
            counts.chain(cleaned).chain(left_out).copied().all(is_count)
                && [unique, train, validation].into_iter().all(are_counts),
        )?;
        require("epochs of sources", amounts.iter().all(|&epochs| epochs >= 0.0))
    }
}

impl SplitEntry {
    /// Checks the counts and the files of the split `name`.
    fn check(&self, name: &str) -> Checked {
        let Self { rows, documents, tokens, targets, single_source_rows, .. } = *self;
        let counts = [rows, documents, tokens, targets, single_source_rows];
        require(&format!("a count of splits.{name}"), counts.into_iter().all(is_count))?;
        for shard in &self.shards {
            let ShardEntry { rows, documents, tokens, targets, .. } = *shard;
            require(
                &format!("a count of splits.{name}.shards"),
                [rows, documents, tokens, targets].into_iter().all(is_count),
            )?;
            require(&format!("splits.{name}.shards.file"), is_plain(&shard.file))?;
        }
        let sum: u128 = self.shards.iter().map(|shard| u128::from(shard.rows)).sum();
        require(&format!("splits.{name}.rows"), sum == u128::from(rows))
    }
}

/// Returns whether a count is possible. The bound is far above any dataset, and the sum of such
/// counts over all sources fits 64 bits.
fn is_count(count: u64) -> bool {
    count < 1 << 48
}

/// Returns whether all of some sums are possible counts.
fn are_counts(sums: &Sums) -> bool {
    [sums.documents, sums.tokens, sums.targets].into_iter().all(is_count)
}

/// Returns whether a path is relative, in plain names: no `..`, no `.`, nothing empty, no NUL.
fn is_plain(file: &str) -> bool {
    !file.contains(['\0', '\\']) && file.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

/// Returns an error that names `field` unless `is_right`.
fn require(field: &str, is_right: bool) -> Checked {
    if is_right { Ok(()) } else { Err(format!("{field} cannot be right")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Manifest, is_plain};

    fn manifest() -> Manifest {
        let sums = json!({ "documents": 3, "tokens": 9, "targets": 4 });
        let split = |name: &str| {
            let shard = json!({
                "file": format!("{name}/shard-00000.arrow"),
                "rows": 2, "documents": 3, "tokens": 9, "targets": 4, "bytes": 10, "xxh3_128": "",
            });
            json!({
                "rows": 2, "documents": 3, "tokens": 9, "targets": 4, "utilisation": 0.5,
                "single_source_rows": 1, "shards": [shard],
            })
        };
        let source = json!({
            "name": "a", "task": "a", "lang": "und", "inputs": ["a.jsonl"], "loss": "target_only",
            "overflow": "truncate", "epochs": 1.0, "asked_epochs": 1.0, "copies": 3,
            "unique": sums, "records": 3, "kept": 3, "truncated": 0, "drops": {},
            "train": sums, "validation": sums, "examples": [],
        });
        let tokenizer = json!({
            "file": "tokenizer.json", "sha256": "", "vocab_size": 10, "bos_id": null, "eos_id": 1,
            "pad_id": 1, "engine": "", "unicode": "", "probes": [],
        });
        let manifest = json!({
            "format": "sabiprep", "format_version": 1, "sha256": "",
            "program": { "name": "sabiprep", "version": "0" }, "tokenizer": tokenizer,
            "seq_len": 64, "rows_per_batch": 256, "id_dtype": "uint16", "seed": 0, "config": {},
            "inputs": [], "sources": [source],
            "splits": { "train": split("train"), "validation": split("validation") },
        });
        serde_json::from_value(manifest).expect("a manifest")
    }

    #[test]
    fn a_forged_manifest_is_refused_by_the_field() {
        assert_eq!(manifest().check(), Ok(()));
        let refused = |change: fn(&mut Manifest)| {
            let mut forged = manifest();
            change(&mut forged);
            forged.check().expect_err("it is forged").replace(" cannot be right", "")
        };
        assert_eq!(refused(|forged| forged.seq_len = usize::MAX), "seq_len");
        assert_eq!(refused(|forged| forged.format_version = 2), "format_version");
        let weight = |forged: &mut Manifest| forged.sources[0].loss_weight = Some("w".to_owned());
        assert_eq!(refused(weight), "format_version");
        assert_eq!(refused(|forged| forged.rows_per_batch = 0), "rows_per_batch");
        assert_eq!(refused(|forged| forged.id_dtype = "int8".to_owned()), "id_dtype");
        assert_eq!(refused(|forged| forged.tokenizer.vocab_size = 0), "tokenizer.vocab_size");
        assert_eq!(refused(|forged| forged.tokenizer.vocab_size = 65537), "tokenizer.vocab_size");
        assert_eq!(refused(|forged| forged.tokenizer.eos_id = 10), "tokenizer.eos_id");
        assert_eq!(
            refused(|forged| forged.tokenizer.file = "/etc/passwd".to_owned()),
            "tokenizer.file"
        );
        assert_eq!(refused(|forged| forged.sources.clear()), "sources");
        assert_eq!(refused(|forged| forged.sources[0].records = u64::MAX), "a count of sources");
        assert_eq!(refused(|forged| drop(forged.splits.remove("train"))), "splits");
        let shard = |forged: &mut Manifest, file: &str| {
            forged.splits.get_mut("train").expect("a split").shards[0].file = file.to_owned();
        };
        let mut forged = manifest();
        shard(&mut forged, "../train/shard-00000.arrow");
        assert_eq!(forged.check(), Err("splits.train.shards.file cannot be right".to_owned()));
        assert_eq!(
            refused(|forged| forged.splits.get_mut("train").expect("a split").rows = 3),
            "splits.train.rows"
        );
    }

    #[test]
    fn a_path_is_plain_or_refused() {
        assert!(is_plain("tokenizer.json") && is_plain("train/shard-00000.arrow"));
        for file in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", "a\\b"] {
            assert!(!is_plain(file), "{file:?}");
        }
    }
}
