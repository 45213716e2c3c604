//! `Draws`: the random choices of one record.

use xxhash_rust::xxh3::xxh3_64;

/// Shares of all choices, ready to be drawn by: each ends below a bound of the upper 53 bits.
#[derive(Debug)]
pub(super) struct Shares<const N: usize>([u64; N]);

impl<const N: usize> Shares<N> {
    /// Returns these shares, the rest of the choices left over.
    pub(super) fn new(shares: [f64; N]) -> Self {
        let mut sum = 0.0;
        // Exact, since a power of two scales a float without rounding.
        Self(shares.map(|share| {
            sum += share;
            (sum * 53_f64.exp2()).ceil() as u64
        }))
    }

    /// Returns the index of the share that a draw falls into.
    fn index_of(&self, draw: u64) -> Option<usize> {
        let draw = draw >> 11;
        // Nearly all draws are of the rest.
        if draw >= *self.0.last()? {
            return None;
        }
        self.0.iter().position(|bound| draw < *bound)
    }
}

/// Random numbers in a fixed order: number n is the xxh3-64 of (key, n).
#[derive(Debug)]
pub(super) struct Draws {
    key: [u8; 8],
    next: u64,
}

impl Draws {
    /// Returns the choices that a record has by its `key`.
    pub(super) fn new(key: u64) -> Self {
        Self { key: key.to_le_bytes(), next: 0 }
    }

    /// Returns the next number.
    pub(super) fn draw(&mut self) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.key);
        bytes[8..].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        xxh3_64(&bytes)
    }

    /// Returns a number below `count`, which is above 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.draw()) * count as u128) >> 64) as usize
    }

    /// Returns a number from 0 up to 1, which is never reached.
    pub(super) fn fraction(&mut self) -> f64 {
        // The upper 53 bits fit a float exactly.
        (self.draw() >> 11) as f64 * (-53_f64).exp2()
    }

    /// Returns the index of one of some things that have these shares of all choices; `None` for
    /// the rest of the choices.
    pub(super) fn among<const N: usize>(&mut self, shares: &Shares<N>) -> Option<usize> {
        shares.index_of(self.draw())
    }

    /// Returns which of `count` things are chosen, so that `wanted` of them are.
    pub(super) fn subset(&mut self, count: usize, wanted: usize) -> Vec<bool> {
        let mut left = wanted;
        let choose = |nth: usize| {
            let is_chosen = self.below(count - nth) < left;
            left -= usize::from(is_chosen);
            is_chosen
        };
        (0..count).map(choose).collect()
    }

    /// Returns the numbers below `count` in random order.
    pub(super) fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::within;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_share_is_that_of_the_fractions(
            shares in prop::array::uniform4(prop_oneof![Just(0.0), 0.0..0.3, 0.0..1e-15]),
            draw: u64,
            near in 0usize..4,
            beside in -2i64..3,
        ) {
            let bounds = Shares::new(shares);
            let near = (bounds.0[near].saturating_add_signed(beside) << 11) | (draw & 0x7ff);
            for draw in [draw, near] {
                let mut sum = 0.0;
                let expected = shares.iter().position(|share| {
                    sum += share;
                    within(draw, sum)
                });
                prop_assert_eq!(bounds.index_of(draw), expected);
            }
        }

        #[test]
        fn a_subset_has_its_size_and_an_order_every_number(
            key: u64,
            count in 1usize..40,
            wanted in 0usize..40,
        ) {
            let wanted = wanted.min(count);
            let subset = Draws::new(key).subset(count, wanted);
            prop_assert_eq!(subset.iter().filter(|chosen| **chosen).count(), wanted);
            let mut order = Draws::new(key).shuffled(count);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..count));
        }
    }

    #[test]
    fn shares_are_met() {
        let mut draws = Draws::new(7);
        let mut counts = [0; 3];
        for _ in 0..20_000 {
            counts[draws.among(&Shares::new([0.25, 0.5])).unwrap_or(2)] += 1;
        }
        for (count, expected) in counts.into_iter().zip([5_000, 10_000, 5_000_i32]) {
            assert!((count - expected).abs() < 300, "{counts:?}");
        }
        let firsts = (0..3_000).filter(|_| draws.shuffled(3)[0] == 0).count();
        assert!((900..1_100).contains(&firsts), "{firsts}");
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&draws.fraction()) && draws.below(3) < 3));
    }
}
