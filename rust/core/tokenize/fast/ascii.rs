//! Many bytes at a time: what they are, and which of them are Latin letters.

use super::machine;

/// What `of` makes of the sixteen bytes of `text` from `at` on; zeros follow the last.
#[inline]
pub fn window<T>(text: &[u8], at: usize, of: impl Fn(&[u8; 16]) -> T) -> T {
    #[inline(never)]
    fn last<T>(text: &[u8], at: usize, of: impl Fn(&[u8; 16]) -> T) -> T {
        of(&last_window(text, at))
    }
    match text.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => of(chunk),
        None => last(text, at, of),
    }
}

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

/// Bytes that are looked at together.
const WIDTH: usize = 64;

/// The letters among up to 64 bytes: a bit each, the first byte lowest. Of the last of 64 nothing
/// is said: it counts as neither a letter nor ASCII. What follows fewer counts as ASCII.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Letters {
    all: u64,
    small: u64,
    ascii: u64,
}

impl Letters {
    /// The letters of the bytes of `text` from `at` on; with `latin`, Latin letters beyond ASCII
    /// too, and with `marks` the marks above and below them, where they lie there whole.
    pub fn at(text: &[u8], at: usize, latin: bool, marks: bool) -> Self {
        let rest = text.get(at..).unwrap_or_default();
        if let Some(chunk) = rest.first_chunk() {
            return Self::of(chunk, latin, marks, true);
        }
        if let Some(chunk) = text.last_chunk().filter(|_| !rest.is_empty()) {
            // What lies before is pushed out; what follows the text is ASCII and no letter.
            let (Self { all, small, ascii }, out) =
                (Self::of(chunk, latin, marks, false), WIDTH - rest.len());
            return Self { all: all >> out, small: small >> out, ascii: !(!ascii >> out) };
        }
        let mut padded = [0; WIDTH];
        padded[..rest.len()].copy_from_slice(rest);
        Self::of(&padded, latin, marks, false)
    }

    /// The letters of a chunk, which may start within a character; if there may be `more` after it,
    /// its last byte does not count.
    #[inline]
    fn of(chunk: &[u8; WIDTH], latin: bool, marks: bool, more: bool) -> Self {
        let (parts, _) = chunk.as_chunks::<16>();
        let mut found = Self::default();
        for (nth, part) in parts.iter().enumerate() {
            let (all, small, ascii) = machine::letters(part);
            found.all |= u64::from(all) << (16 * nth);
            found.small |= u64::from(small) << (16 * nth);
            found.ascii |= u64::from(ascii) << (16 * nth);
        }
        if latin && found.ascii != u64::MAX {
            found.all |= Self::beyond_ascii(parts, marks, u32::from(more));
        }
        if more {
            (found.all, found.ascii) = (found.all & u64::MAX >> 1, found.ascii & u64::MAX >> 1);
        }
        found
    }

    /// The bytes of Latin letters beyond ASCII that lie whole; `last`: how many bytes at the end do
    /// not count.
    fn beyond_ascii(parts: &[[u8; 16]], marks: bool, last: u32) -> u64 {
        let within = |from, to| {
            let bits = parts
                .iter()
                .enumerate()
                .map(|(nth, part)| u64::from(machine::within(part, from, to)) << (16 * nth));
            bits.fold(0, |all, bits| all | bits)
        };
        let is_sign = (within(0x97, 0x97) | within(0xb7, 0xb7)) >> 1;
        let marks = if marks { within(MARK_LEAD, MARK_LEAD) } else { 0 };
        let two =
            (within(0xc3, 0xca) & !(within(0xc3, 0xc3) & is_sign) | marks) & u64::MAX >> (1 + last);
        let three = within(0xe1, 0xe1) & within(0xb8, 0xbb) >> 1 & u64::MAX >> (2 + last);
        two | two << 1 | three | three << 1 | three << 2
    }

    /// Whether byte `at` is ASCII.
    #[inline]
    pub fn is_ascii(self, at: usize) -> bool {
        self.ascii >> at & 1 == 1
    }

    /// Whether byte `at` is one.
    #[inline]
    pub fn has(self, at: usize) -> bool {
        self.all >> at & 1 == 1
    }

    /// The end of the letters from `at`.
    #[inline]
    pub fn end(self, at: usize) -> usize {
        at + (self.all >> at).trailing_ones() as usize
    }

    /// The end of the capitals from `at`, all ASCII: for letters without `latin`.
    #[inline]
    pub fn upper_end(self, at: usize) -> usize {
        at + ((self.all & !self.small) >> at).trailing_ones() as usize
    }

    /// The end of the small letters from `at`, all ASCII: for letters without `latin`.
    #[inline]
    pub fn lower_end(self, at: usize) -> usize {
        at + ((self.all & self.small) >> at).trailing_ones() as usize
    }
}

/// What `Letters` takes for Latin letters beyond ASCII: U+00C0 to U+02BF but × and ÷, and U+1E00 to
/// U+1EFF.
pub fn is_latin(char: char) -> bool {
    matches!(char, '\u{c0}'..='\u{2bf}' | '\u{1e00}'..='\u{1eff}') && char != '×' && char != '÷'
}

/// The first byte of the marks U+0300 to U+033F.
pub const MARK_LEAD: u8 = 0xcc;

/// What `Letters` takes for the marks above and below Latin letters.
pub fn is_latin_mark(char: char) -> bool {
    matches!(char, '\u{300}'..='\u{33f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letters, character by character.
    fn oracle(text: &str, latin: bool, marks: bool) -> Vec<bool> {
        let mut found = vec![false; WIDTH];
        let known = if text.len() < WIDTH { WIDTH } else { WIDTH - 1 };
        for (at, char) in text.char_indices().filter(|(at, char)| at + char.len_utf8() <= known) {
            let is_one = char.is_ascii_alphabetic()
                || (latin && (is_latin(char) || (marks && is_latin_mark(char))));
            found[at..at + char.len_utf8()].fill(is_one);
        }
        found
    }

    fn check(text: &str) {
        let with_more_before = format!("{}{text}", "ẹa".repeat(20));
        let more = with_more_before.len() - text.len();
        for (latin, marks) in [(false, false), (true, false), (true, true)] {
            let found = Letters::at(text.as_bytes(), 0, latin, marks);
            assert_eq!(
                Letters::at(with_more_before.as_bytes(), more, latin, marks),
                found,
                "{text:?}"
            );
            let letters = oracle(text, latin, marks);
            let byte = |at: usize| text.as_bytes().get(at).copied().unwrap_or_default();
            let run = |at: usize, is: fn(&u8) -> bool| {
                (at..WIDTH).find(|&at| !letters[at] || !is(&byte(at))).unwrap_or(WIDTH)
            };
            for (at, &is_one) in letters.iter().enumerate() {
                let is_known = text.len() < WIDTH || at + 1 < WIDTH;
                assert_eq!(found.has(at), is_one, "{text:?} at {at}");
                assert_eq!(found.end(at), run(at, |_| true), "{text:?} at {at}");
                assert_eq!(found.is_ascii(at), is_known && byte(at).is_ascii(), "{text:?} at {at}");
                if !latin {
                    assert_eq!(
                        found.upper_end(at),
                        run(at, u8::is_ascii_uppercase),
                        "{text:?} at {at}"
                    );
                    assert_eq!(
                        found.lower_end(at),
                        run(at, u8::is_ascii_lowercase),
                        "{text:?} at {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_character_at_the_start_and_at_the_end() {
        for char in '\0'..=char::MAX {
            check(&format!("{char}a{char}"));
            if char < '\u{3000}' {
                for at in 58..64 {
                    check(&format!("{}{char}a{char}{char}", "a".repeat(at)));
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn random_texts(text in "([a-zA-Z]{0,9}|[@\\[`{ m]|[\u{80}-\u{340}\u{1dff}-\u{1f01}]{0,3}|.){0,20}") {
            check(&text);
        }

        #[test]
        fn a_window_shows_the_text_and_zeros(text in proptest::collection::vec(1_u8.., 0..40)) {
            for at in 0..=text.len() {
                let shown: Vec<u8> = text[at..].iter().copied().chain([0; 16]).take(16).collect();
                assert_eq!(window(&text, at, |window| window.to_vec()), shown, "{at} of {text:?}");
            }
        }
    }
}
