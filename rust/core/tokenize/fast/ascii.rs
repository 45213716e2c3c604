//! Sixteen bytes at a time: what they are, and which of them are ASCII letters.

use super::machine;

/// The sixteen bytes of `text` from `at` on; zeros follow the last.
#[inline]
pub fn window(text: &[u8], at: usize) -> [u8; 16] {
    text.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied().unwrap_or_else(|| last_window(text, at))
}

#[inline(never)]
fn last_window(text: &[u8], at: usize) -> [u8; 16] {
    let left = text.len().saturating_sub(at);
    match text.last_chunk::<16>() {
        Some(chunk) if left > 0 => (u128::from_le_bytes(*chunk) >> (8 * (16 - left))).to_le_bytes(),
        _ => {
            let mut chunk = [0; 16];
            chunk[..left].copy_from_slice(&text[text.len() - left..]);
            chunk
        }
    }
}

/// The letters among sixteen bytes: a bit each, the first byte lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letters {
    all: u32,
    small: u32,
    ascii: u32,
}

impl Letters {
    /// The letters of the sixteen bytes from `at` on.
    #[inline]
    pub fn at(text: &[u8], at: usize) -> Self {
        match text.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            Some(chunk) => Self::of(chunk),
            None => Self::of_last(text, at),
        }
    }

    #[inline(never)]
    fn of_last(text: &[u8], at: usize) -> Self {
        Self::of(&last_window(text, at))
    }

    #[inline]
    fn of(chunk: &[u8; 16]) -> Self {
        let (all, small, ascii) = machine::letters(chunk);
        Self { all, small, ascii }
    }

    /// Whether byte `at` is ASCII; one beyond the sixteen is not.
    #[inline]
    pub fn is_ascii(self, at: usize) -> bool {
        self.ascii >> at & 1 == 1
    }

    /// Whether byte `at` is one.
    #[inline]
    pub fn has(self, at: usize) -> bool {
        self.all >> at & 1 == 1
    }

    /// The end of the letters from `at`, at most 16.
    #[inline]
    pub fn end(self, at: usize) -> usize {
        at + (self.all >> at).trailing_ones() as usize
    }

    /// The end of the capitals from `at`, at most 16.
    #[inline]
    pub fn upper_end(self, at: usize) -> usize {
        at + ((self.all & !self.small) >> at).trailing_ones() as usize
    }

    /// The end of the small letters from `at`, at most 16.
    #[inline]
    pub fn lower_end(self, at: usize) -> usize {
        at + (self.small >> at).trailing_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn runs_end_where_they_end(bytes: [u8; 16]) {
            let bytes = bytes.map(|byte| b"azAZ@[`{ m\xc3"[byte as usize % 11]);
            let found = Letters::of(&bytes);
            let run = |at: usize, is: fn(&u8) -> bool| at + bytes[at..].iter().take_while(|&byte| is(byte)).count();
            for at in 0..=16 {
                assert_eq!(at < 16 && bytes[at].is_ascii_alphabetic(), found.has(at), "{bytes:?}");
                assert_eq!(at < 16 && bytes[at].is_ascii(), found.is_ascii(at), "{bytes:?}");
                assert_eq!(found.end(at), run(at, u8::is_ascii_alphabetic), "{bytes:?}");
                assert_eq!(found.upper_end(at), run(at, u8::is_ascii_uppercase), "{bytes:?}");
                assert_eq!(found.lower_end(at), run(at, u8::is_ascii_lowercase), "{bytes:?}");
            }
        }

        #[test]
        fn a_window_shows_the_text_and_zeros(text in proptest::collection::vec(1_u8.., 0..40)) {
            for at in 0..=text.len() {
                let shown: Vec<u8> = text[at..].iter().copied().chain([0; 16]).take(16).collect();
                assert_eq!(window(&text, at).as_slice(), shown, "{at} of {text:?}");
            }
        }
    }
}
