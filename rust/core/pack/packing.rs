//! `Packing`: a policy known by its name, in configurations and in other modules.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::windows::window_count;
use super::{Items, Packed, Packer, Sorting, best_fit, concat, none};
use crate::error::Result;

/// Every policy; the first is the default.
pub(crate) static PACKERS: [&dyn Packer; 3] =
    [&best_fit::BestFit, &concat::Concat, &none::NoPacking];

/// A packing policy, known by its name.
#[derive(Clone, Copy)]
pub struct Packing(&'static dyn Packer);

impl Packing {
    /// Returns the policy called `name`.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Self> {
        PACKERS.into_iter().find(|packer| packer.name() == name).map(Self)
    }

    /// Returns the names of all policies.
    pub(crate) fn names() -> &'static [&'static str] {
        static NAMES: LazyLock<Vec<&'static str>> =
            LazyLock::new(|| PACKERS.iter().map(|packer| packer.name()).collect());
        &NAMES
    }

    /// Returns the name of the policy.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns the number of windows that a document of `len` tokens is split into before packing.
    #[must_use]
    pub(crate) fn window_count(self, len: usize, seq_len: usize) -> usize {
        if self.may_cut() { 1 } else { window_count(len, seq_len) }
    }

    /// Returns whether rows cut documents anywhere, so that a piece of one may hold no target.
    #[must_use]
    pub(crate) fn may_cut(self) -> bool {
        self.0.may_cut()
    }

    /// Packs `items` into rows of `seq_len` tokens.
    pub fn pack(self, items: &dyn Items, seq_len: usize, sorting: Sorting) -> Result<Packed> {
        self.0.pack(items, seq_len, sorting)
    }
}

impl Default for Packing {
    fn default() -> Self {
        Self(PACKERS[0])
    }
}

impl PartialEq for Packing {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Packing {}

impl fmt::Debug for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Packing {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Packing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::unknown_variant(&name, Self::names());
        Self::named(&name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_table() {
        assert_eq!(Packing::names(), ["best_fit", "concat", "none"]);
        for &name in Packing::names() {
            let read: Packing = serde_json::from_value(name.into()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), name);
        }
        assert!(serde_json::from_value::<Packing>("bestfit".into()).is_err());
        assert_eq!(Packing::default().name(), "best_fit");
    }
}
