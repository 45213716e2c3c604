//! Random choices: each is a hash of its subject, so that no order of work can change it.

use xxhash_rust::xxh3::Xxh3Default;

/// The subject of a choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The name of the source. For the validation split, the name of the input: every task made
    /// from a record falls into one split.
    pub(crate) name: &'a str,
    /// The id of the record. For the validation split, its offset.
    pub(crate) record: u64,
    /// The number of the copy.
    pub(crate) copy: u32,
}

/// The decision that a choice is made for: choices of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The virtual bucket of a record.
    Bucket,
    /// Whether a record is held out for validation.
    Validation,
    /// Whether a record gets one copy more than the whole part of its source's epochs.
    Epochs,
    /// The template of a record whose source has several.
    Template,
    /// The place of a document in the order that rows are filled in.
    Pack,
    /// The place of a row in its shard.
    Row,
    /// The noise, blanks and order of a task that is made from a record's text.
    Augment,
    /// Whether a record is derived again by `verify --against`.
    Sample,
    /// The pass in which it is derived again.
    Pass,
}

impl Purpose {
    /// Returns the name that is hashed; changing one changes every dataset.
    fn name(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Validation => "validation",
            Self::Epochs => "epochs",
            Self::Template => "template",
            Self::Pack => "pack",
            Self::Row => "row",
            Self::Augment => "augment",
            Self::Sample => "sample",
            Self::Pass => "pass",
        }
    }
}

/// Returns the xxh3-64 of (seed, purpose, name, record, copy). A byte that UTF-8 never holds closes
/// each text.
#[must_use]
pub(crate) fn choice(seed: u64, purpose: Purpose, subject: Subject<'_>) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&seed.to_le_bytes());
    for text in [purpose.name(), subject.name] {
        hasher.update(text.as_bytes());
        hasher.update(&[0xff]);
    }
    hasher.update(&subject.record.to_le_bytes());
    hasher.update(&subject.copy.to_le_bytes());
    hasher.digest()
}

/// Returns whether a choice falls within `share` of all choices.
#[must_use]
pub(crate) fn within(choice: u64, share: f64) -> bool {
    // The upper 53 bits fit a float exactly, so that every machine decides alike.
    (choice >> 11) as f64 * (-53_f64).exp2() < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_and_purposes_are_independent() {
        let pick = |purpose, record| choice(7, purpose, Subject { name: "a", record, copy: 0 });
        let n = 20_000;
        let first: Vec<bool> =
            (0..n).map(|record| within(pick(Purpose::Sample, record), 0.25)).collect();
        let both = (0..n)
            .filter(|&record| first[record as usize] && within(pick(Purpose::Epochs, record), 0.5))
            .count();
        let first = first.iter().filter(|&&picked| picked).count();
        assert!((4_700..5_300).contains(&first), "{first}");
        assert!((2_300..2_700).contains(&both), "{both}");
        assert!(!within(u64::MAX, 1.0 - 1e-9) && within(u64::MAX, 1.0) && !within(0, 0.0));
    }
}
