//! Mixing: sets the epochs of each source so that groups of sources have the shares asked for.
//!
//! The size of a source is the sum over its training records, each counted once, in the unit of
//! the mix. A group of sources (by task, language or source) has a share in proportion to r^(1/T):
//! r is its size, or the sum of its weights where weights are given, and T the temperature; above 1
//! it brings shares nearer to each other. Within a group a source's share goes by weight, or by
//! size. The mix is as large as all sources together, so the average is one copy. Where
//! `max_epochs` holds a source back, the others make up for it in proportion to their shares, as
//! far as their own limits allow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Sums;
use crate::error::{Error, Result};
use crate::plan::{MixBy, MixPlan, Plan, Source, Unit};
use crate::schema::MAX_COPIES;

/// Copies of a source's records, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epochs {
    /// The epochs that the configuration asks for.
    pub asked: f64,
    /// The epochs that are made: no more than `max_epochs`.
    pub made: f64,
}

impl Epochs {
    /// Returns epochs that are made as they were asked for.
    #[must_use]
    pub(crate) fn of(epochs: f64) -> Self {
        Self { asked: epochs, made: epochs }
    }
}

/// Returns the epochs of every source. `unique` holds the sums over the training records of each.
pub(crate) fn epochs(plan: &Plan, unique: &[Sums]) -> Result<Vec<Epochs>> {
    let mut epochs: Vec<Epochs> =
        plan.sources.iter().map(|source| Epochs::of(source.epochs.unwrap_or(1.0))).collect();
    let Some(mix) = &plan.mix else { return Ok(epochs) };
    let size = |index: usize| mix.unit.of(unique[index]) as f64;
    // A source with epochs of its own is not mixed; an empty one would divide by zero.
    let mixed: Vec<usize> = (0..epochs.len())
        .filter(|&index| plan.sources[index].epochs.is_none() && size(index) > 0.0)
        .collect();
    let sizes: Vec<f64> = mixed.iter().map(|&index| size(index)).collect();
    let sources: Vec<&Source> = mixed.iter().map(|&index| &plan.sources[index]).collect();
    let shares = shares(mix, &sources, &sizes);
    let total: f64 = sizes.iter().sum();
    let limit = mix.max_epochs.unwrap_or(f64::INFINITY);
    let made = fill(&shares, &sizes, limit);
    for (nth, &index) in mixed.iter().enumerate() {
        let asked = shares[nth] * total / sizes[nth];
        epochs[index] = Epochs { asked: rounded(asked), made: rounded(made[nth]) };
        // The number of a copy has one byte in a row.
        if epochs[index].made > f64::from(MAX_COPIES) {
            return Err(Error::config(format!(
                "the mix repeats it {:.1} times; a record has at most {MAX_COPIES} copies",
                epochs[index].made
            ))
            .file(plan.config_file.clone())
            .source(plan.sources[index].name.clone())
            .remedy(
                "set max_epochs under [mix], a higher temperature for sizes or a lower weight",
            ));
        }
    }
    Ok(epochs)
}

impl Unit {
    /// Returns the sum that is counted in this unit.
    fn of(self, sums: Sums) -> u64 {
        match self {
            Self::Examples => sums.documents,
            Self::Tokens => sums.tokens,
            Self::Targets => sums.targets,
        }
    }
}

impl MixBy {
    /// Returns the name of the group that a source belongs to.
    fn group(self, source: &Source) -> &str {
        match self {
            Self::Task => &source.task,
            Self::Lang => &source.lang,
            Self::Source => &source.name,
        }
    }
}

/// Returns the share of each source; the shares sum to 1.
fn shares(mix: &MixPlan, sources: &[&Source], sizes: &[f64]) -> Vec<f64> {
    let amounts: Vec<f64> =
        sources.iter().zip(sizes).map(|(source, &size)| source.weight.unwrap_or(size)).collect();
    let mut groups: BTreeMap<&str, f64> = BTreeMap::new();
    for (source, amount) in sources.iter().zip(&amounts) {
        *groups.entry(mix.by.group(source)).or_default() += amount;
    }
    // Relative to the largest group, so that no power is out of range.
    let largest = groups.values().copied().fold(0.0, f64::max);
    let power = |amount: f64| (amount / largest).powf(1.0 / mix.temperature);
    let all: f64 = groups.values().map(|&amount| power(amount)).sum();
    let share = |(source, amount): (&&Source, &f64)| {
        let group = groups[mix.by.group(source)];
        power(group) / all * amount / group
    };
    sources.iter().zip(&amounts).map(share).collect()
}

/// Returns the epochs of sources with these shares and sizes. None is above `limit`; if the limit
/// allows, the sources grow to their total size together.
fn fill(shares: &[f64], sizes: &[f64], limit: f64) -> Vec<f64> {
    let total: f64 = sizes.iter().sum();
    let mut held_back = vec![false; shares.len()];
    loop {
        let sum = |values: &[f64], held: bool| -> f64 {
            let chosen = values.iter().zip(&held_back).filter(|(_, is)| **is == held);
            chosen.map(|(value, _)| value).sum()
        };
        let left = total - if limit.is_finite() { limit * sum(sizes, true) } else { 0.0 };
        let free = sum(shares, false);
        let epochs_of = |index: usize| {
            if held_back[index] { limit } else { shares[index] / free * left / sizes[index] }
        };
        let epochs: Vec<f64> = (0..shares.len()).map(epochs_of).collect();
        if epochs.iter().all(|&epochs| epochs <= limit) {
            return epochs;
        }
        // Each round holds back at least one source more, so the loop ends.
        for (held, &epochs) in held_back.iter_mut().zip(&epochs) {
            *held |= epochs > limit;
        }
    }
}

/// Rounds to six decimals: machines that compute a power a little differently then agree.
fn rounded(epochs: f64) -> f64 {
    (epochs * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_held_back_goes_to_the_others_in_proportion(
            sources in prop::collection::vec((1u32..1000, 1u32..1000), 1..8),
            limit in 0.25f64..8.0,
        ) {
            let all: f64 = sources.iter().map(|(share, _)| f64::from(*share)).sum();
            let share_of = |(share, _): &(u32, u32)| f64::from(*share) / all;
            let shares: Vec<f64> = sources.iter().map(share_of).collect();
            let sizes: Vec<f64> = sources.iter().map(|(_, size)| f64::from(*size)).collect();
            let epochs = fill(&shares, &sizes, limit);
            let total: f64 = sizes.iter().sum();
            let made: f64 = epochs.iter().zip(&sizes).map(|(epochs, size)| epochs * size).sum();
            prop_assert!((made - total * limit.min(1.0)).abs() < 1e-6 * total, "{made} {total}");
            prop_assert!(epochs.iter().all(|&epochs| epochs <= limit));
            // All sources below the limit have one amount for each unit of share.
            let level = |nth: usize| epochs[nth] * sizes[nth] / shares[nth];
            let is_free = |nth: &usize| epochs[*nth] < limit;
            let free: Vec<f64> = (0..shares.len()).filter(is_free).map(level).collect();
            let highest = free.iter().copied().fold(0.0, f64::max);
            prop_assert!(free.iter().all(|level| (level - highest).abs() < 1e-6 * highest));
            for nth in (0..shares.len()).filter(|nth| !is_free(nth)) {
                prop_assert!(level(nth) <= highest * (1.0 + 1e-9) || free.is_empty());
            }
        }
    }
}
