//! Sixteen bytes at a time: which are ASCII letters, and of which case.

/// Every byte's highest bit.
const HIGH: u128 = u128::MAX / 255 * 0x80;

/// The letters among sixteen bytes: the highest bit of each, the first byte lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letters {
    all: u128,
    lower: u128,
}

impl Letters {
    /// The letters of `chunk`.
    #[inline]
    pub fn of(chunk: u128) -> Self {
        let each = |byte: u8| u128::MAX / 255 * u128::from(byte);
        let lowered = chunk & !HIGH | each(0x20);
        // The sum reaches the highest bit from the first letter on, and from what follows the last.
        let (from_a, after_z) = (lowered + each(0x80 - b'a'), lowered + each(0x7f - b'z'));
        let all = from_a & !after_z & !chunk & HIGH;
        // The bit that tells the case becomes each byte's highest.
        Self { all, lower: all & chunk << 2 }
    }

    /// Whether byte `at` is one.
    #[inline]
    pub fn has(self, at: usize) -> bool {
        self.all >> (8 * at) & 0x80 != 0
    }

    /// The end of the letters from `at`, below 16.
    #[inline]
    pub fn end(self, at: usize) -> usize {
        first(!self.all, at)
    }

    /// The end of the capitals from `at`, below 16.
    #[inline]
    pub fn upper_end(self, at: usize) -> usize {
        first(!self.all | self.lower, at)
    }

    /// The end of the small letters from `at`, at most 16.
    #[inline]
    pub fn lower_end(self, at: usize) -> usize {
        if at < 16 { first(!self.lower, at) } else { at }
    }
}

/// The first byte from `at` on whose highest bit is set.
#[inline]
fn first(mask: u128, at: usize) -> usize {
    at + (((mask & HIGH) >> (8 * at)).trailing_zeros() as usize / 8).min(16 - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: [u8; 16]) {
        let found = Letters::of(u128::from_le_bytes(bytes));
        let run = |at: usize, is: fn(&u8) -> bool| at + bytes[at..].iter().take_while(|&byte| is(byte)).count();
        for at in 0..16 {
            assert_eq!(found.has(at), bytes[at].is_ascii_alphabetic(), "{bytes:?}");
            assert_eq!(found.end(at), run(at, u8::is_ascii_alphabetic), "{bytes:?}");
            assert_eq!(found.upper_end(at), run(at, u8::is_ascii_uppercase), "{bytes:?}");
            assert_eq!(found.lower_end(at), run(at, u8::is_ascii_lowercase), "{bytes:?}");
        }
        assert_eq!(found.lower_end(16), 16);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes(bytes: [u8; 16]) {
            check(bytes);
            check(bytes.map(|byte| b"azAZ@[`{ m"[byte as usize % 10]));
        }
    }

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..16 {
                let mut bytes = [b'k'; 16];
                bytes[place] = byte;
                check(bytes);
            }
        }
    }
}
