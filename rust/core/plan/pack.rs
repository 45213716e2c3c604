//! `PackPlan`: the section `[pack]`, checked and filled in.

use std::ops::Range;

use serde::Serialize;

use super::source::refuse_no_share;
use super::{Near, PackOptions, PackSpec, mix};
use crate::error::{Error, Result};
use crate::pack::{Packing, window_count, windows};
use crate::schema::{MAX_SEQ_LEN, SEQ_LEN_MULTIPLE};

/// The default size of n-grams for `decontaminate`, in words: the largest of Brown et al. 2020
/// (GPT-3), appendix C.
const NGRAM: usize = 13;
/// The largest size of n-grams.
const MAX_NGRAM: usize = 1000;

/// The section `[pack]`, resolved.
#[derive(Debug, Clone, Serialize)]
pub struct PackPlan {
    /// The number of tokens in a row.
    pub seq_len: usize,
    /// The policy that puts documents into rows.
    pub pack: Packing,
    /// The share of records held out.
    pub validation: f64,
    /// The seed of every random choice.
    pub seed: u64,
    /// The number of tokens that a shard is planned to hold.
    pub shard_tokens: u64,
    /// Files that training is kept clean of, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decontaminate: Vec<String>,
    /// The size of the n-grams that training may not share with these files, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate_ngram: Option<usize>,
    /// How near duplicates are found, if a source drops them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

impl PackPlan {
    /// Returns the number of windows that a document of `len` tokens is split into before packing.
    #[must_use]
    pub(crate) fn window_count(&self, len: usize) -> usize {
        self.pack.window_count(len, self.seq_len)
    }

    /// Returns the windows that a document of `len` tokens is split into before packing.
    #[must_use]
    pub(crate) fn windows(&self, len: usize) -> Vec<Range<usize>> {
        if self.window_count(len) == 1 {
            return std::iter::once(0..len).collect();
        }
        windows(len, self.seq_len)
    }

    /// Returns the most windows of a document of `len` tokens, cuts by rows included.
    #[must_use]
    pub(crate) fn most_windows(&self, len: usize) -> usize {
        window_count(len, self.seq_len) + usize::from(self.pack.may_cut())
    }
}

/// Checks `[pack]` and fills in its defaults. Values in `options` win over it.
pub(super) fn resolve(spec: &PackSpec, options: &PackOptions) -> Result<PackPlan> {
    let seq_len = options.seq_len.or(spec.seq_len).unwrap_or(2048);
    if seq_len == 0 || !seq_len.is_multiple_of(SEQ_LEN_MULTIPLE) || seq_len > MAX_SEQ_LEN {
        return Err(Error::config(format!(
            "seq_len = {seq_len}: must be a multiple of 64, at most {MAX_SEQ_LEN}"
        ))
        .remedy(format!("the nearest is {}", (seq_len.div_ceil(64) * 64).clamp(64, MAX_SEQ_LEN))));
    }
    let validation = spec.validation.unwrap_or(0.0);
    if !(0.0..1.0).contains(&validation) {
        let what =
            format!("validation = {}: must be at least 0 and below 1", mix::shown(validation));
        return Err(Error::config(what)
            .remedy("it is a share of the records: 0.01 holds out one in a hundred"));
    }
    let shard_tokens = spec.shard_tokens.unwrap_or(1 << 24);
    if shard_tokens < seq_len as u64 {
        return Err(Error::config(format!(
            "shard_tokens = {shard_tokens}: less than a row of {seq_len} tokens"
        ))
        .remedy("leave it out for shards of 16777216 tokens"));
    }
    refuse_no_share(spec.max_bad_fraction)?;
    let seed = options.seed.or(spec.seed).unwrap_or(0);
    let pack = spec.pack.unwrap_or_default();
    // No size without files: the manifest then says nothing of n-grams.
    let decontaminate = spec.decontaminate.clone();
    let decontaminate_ngram =
        (!decontaminate.is_empty()).then(|| spec.decontaminate_ngram.unwrap_or(NGRAM));
    if spec.decontaminate_ngram.is_some_and(|n| n == 0 || n > MAX_NGRAM) {
        return Err(Error::config(format!(
            "decontaminate_ngram must be at least 1 and at most {MAX_NGRAM}"
        ))
        .remedy(format!("leave it out for n-grams of {NGRAM} words")));
    }
    Ok(PackPlan {
        seq_len,
        pack,
        validation,
        seed,
        shard_tokens,
        decontaminate,
        decontaminate_ngram,
        // The sources say whether there is any.
        near: None,
    })
}
