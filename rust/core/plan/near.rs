//! `Near`: how near duplicates are found. One set of values for a corpus, since texts of all sources
//! are compared.

use serde::{Deserialize, Serialize};

use super::Source;
use crate::error::{Error, Result};
use crate::schema::Duplicates;

/// The most words of an n-gram.
const MAX_NGRAM: usize = 64;
/// The most hash functions of a signature.
const MAX_VALUES: usize = 1024;

/// The table `near` of `[pack]`, as written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearSpec {
    /// The number of words in an n-gram.
    pub ngram: Option<usize>,
    /// The number of bands of a signature.
    pub bands: Option<usize>,
    /// The number of values in a band.
    pub rows: Option<usize>,
}

/// How near duplicates are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Near {
    /// The number of words in an n-gram.
    pub ngram: usize,
    /// The number of bands of a signature.
    pub bands: usize,
    /// The number of values in a band.
    pub rows: usize,
}

impl Default for Near {
    /// Returns the values of `FineWeb` (Penedo et al. 2024, 3.4): 5-grams, 14 bands of 8 values.
    fn default() -> Self {
        Self { ngram: 5, bands: 14, rows: 8 }
    }
}

/// Returns how near duplicates of these sources are found; `None` if no source drops them.
pub(super) fn resolve(spec: Option<NearSpec>, sources: &[Source]) -> Result<Option<Near>> {
    let is_used = sources.iter().any(|source| source.duplicates == Duplicates::Near);
    let Some(spec) = spec else { return Ok(is_used.then(Near::default)) };
    if !is_used {
        return Err(Error::config(
            "`near` says how near duplicates are found, but no source drops any",
        )
        .remedy("set duplicates = \"near\" in [pack] or in a source, or remove `near`"));
    }
    let usual = Near::default();
    let near = Near {
        ngram: spec.ngram.unwrap_or(usual.ngram),
        bands: spec.bands.unwrap_or(usual.bands),
        rows: spec.rows.unwrap_or(usual.rows),
    };
    if !(1..=MAX_NGRAM).contains(&near.ngram) {
        return Err(Error::config(format!("near.ngram must be from 1 to {MAX_NGRAM} words"))
            .remedy(format!("leave it out for n-grams of {} words", usual.ngram)));
    }
    let values = near.bands.checked_mul(near.rows);
    if !values.is_some_and(|values| (1..=MAX_VALUES).contains(&values)) {
        return Err(Error::config(format!(
            "near.bands × near.rows = {} × {}: a signature has from 1 to {MAX_VALUES} values",
            near.bands, near.rows
        ))
        .remedy(format!("leave them out for {} bands of {} rows", usual.bands, usual.rows)));
    }
    Ok(Some(near))
}
