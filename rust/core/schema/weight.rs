//! `Weight`: the weight of a document in the loss.

use std::fmt;

/// The weight of a document in the loss: finite, 0 or above. A document of weight 0 is kept, and
/// adds nothing to the loss.
///
/// Held as the bits of a float, so that equal weights are equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(u32);

impl Weight {
    /// The weight of a document whose source has no weights.
    pub(crate) const ONE: Self = Self(1.0_f32.to_bits());

    /// Returns the weight nearest to `value`; `None` if it is negative, not finite, or beyond what
    /// a float of 32 bits holds, on either side.
    #[must_use]
    pub(crate) fn of(value: f64) -> Option<Self> {
        let stored = value as f32;
        // A weight that is not 0 must not become 0: its document would not be trained.
        let is_lost = stored == 0.0 && value != 0.0;
        // Adding 0 makes a zero of -0, which is less than no weight.
        (stored.is_finite() && stored >= 0.0 && !is_lost).then(|| Self((stored + 0.0).to_bits()))
    }

    /// Returns the weight as it is stored in a column.
    #[must_use]
    pub(crate) fn value(self) -> f32 {
        f32::from_bits(self.0)
    }

    /// Returns whether the document adds nothing to the loss.
    #[must_use]
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns the bytes of the weight in a spool.
    #[must_use]
    pub(crate) fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// Returns the weight with these bytes in a spool.
    #[must_use]
    pub(crate) fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_finite_and_never_lost_by_rounding() {
        for (value, expected) in [(0.0, 0.0), (-0.0, 0.0), (1.0, 1.0), (0.1, 0.1_f32), (3e38, 3e38)]
        {
            let weight = Weight::of(value).unwrap();
            assert_eq!(weight.value().to_bits(), expected.to_bits(), "{value}");
            assert_eq!(Weight::from_bytes(weight.to_bytes()), weight);
        }
        for value in [-1.0, -1e-300, f64::NAN, f64::INFINITY, 1e39, 1e-60] {
            assert_eq!(Weight::of(value), None, "{value}");
        }
        assert!(Weight::of(-0.0).unwrap().is_zero() && !Weight::ONE.is_zero());
    }
}
