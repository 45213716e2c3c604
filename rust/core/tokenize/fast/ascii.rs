//! Looks at many bytes at a time: which of them are ASCII, and which are Latin letters.

use super::machine;

/// Returns the result of `of` on the sixteen bytes of `text` from `position` on. Zeros follow the
/// last byte.
#[inline]
pub(crate) fn window<T>(text: &[u8], position: usize, of: impl Fn(&[u8; 16]) -> T) -> T {
    // A closure, and a rare path of its own: sixteen bytes returned by value would go by the stack.
    #[inline(never)]
    fn last<T>(text: &[u8], position: usize, of: impl Fn(&[u8; 16]) -> T) -> T {
        of(&last_window(text, position))
    }
    match text.get(position..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => of(chunk),
        None => last(text, position, of),
    }
}

/// Returns fewer than sixteen bytes at the end of `text`, padded with zeros.
fn last_window(text: &[u8], position: usize) -> [u8; 16] {
    let left = text.len().saturating_sub(position);
    match text.last_chunk::<16>() {
        Some(chunk) if left > 0 => (u128::from_le_bytes(*chunk) >> (8 * (16 - left))).to_le_bytes(),
        _ => {
            let mut chunk = [0; 16];
            chunk[..left].copy_from_slice(&text[text.len() - left..]);
            chunk
        }
    }
}

/// The number of bytes that are looked at together.
const WIDTH: usize = 64;

/// The letters among up to 64 bytes, a bit each, the first byte lowest. The last of 64 bytes counts
/// as neither a letter nor ASCII, since its character may go on. Bytes beyond a shorter text count
/// as ASCII.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Letters {
    all: u64,
    small: u64,
    ascii: u64,
}

impl Letters {
    /// Finds the letters of the bytes of `text` from `position` on. With `latin`, Latin letters
    /// beyond ASCII count too; with `marks`, the marks above and below them. Only whole characters
    /// count.
    pub(crate) fn at(text: &[u8], position: usize, latin: bool, marks: bool) -> Self {
        let rest = text.get(position..).unwrap_or_default();
        if let Some(chunk) = rest.first_chunk() {
            return Self::of(chunk, latin, marks, true);
        }
        if let Some(chunk) = text.last_chunk().filter(|_| !rest.is_empty()) {
            // Shifts out the bytes before `position`. Beyond the text all bytes are ASCII and no
            // letters.
            let (Self { all, small, ascii }, out) =
                (Self::of(chunk, latin, marks, false), WIDTH - rest.len());
            return Self { all: all >> out, small: small >> out, ascii: !(!ascii >> out) };
        }
        let mut padded = [0; WIDTH];
        padded[..rest.len()].copy_from_slice(rest);
        Self::of(&padded, latin, marks, false)
    }

    /// Finds the letters of a chunk, which may start inside a character. If there may be `has_rest`
    /// text after it, its last byte does not count.
    #[inline]
    fn of(chunk: &[u8; WIDTH], latin: bool, marks: bool, has_rest: bool) -> Self {
        let (parts, _) = chunk.as_chunks::<16>();
        let mut found = Self::default();
        for (nth, part) in parts.iter().enumerate() {
            let (all, small, ascii) = machine::letters(part);
            found.all |= u64::from(all) << (16 * nth);
            found.small |= u64::from(small) << (16 * nth);
            found.ascii |= u64::from(ascii) << (16 * nth);
        }
        // Most English text has no byte beyond ASCII and skips this.
        if latin && found.ascii != u64::MAX {
            found.all |= Self::beyond_ascii(parts, marks, u32::from(has_rest));
        }
        if has_rest {
            (found.all, found.ascii) = (found.all & u64::MAX >> 1, found.ascii & u64::MAX >> 1);
        }
        found
    }

    /// Returns the bytes of Latin letters beyond ASCII that are whole. The `last` bytes at the end
    /// do not count.
    fn beyond_ascii(parts: &[[u8; 16]], marks: bool, last: u32) -> u64 {
        let within = |from, to| {
            let bits = parts
                .iter()
                .enumerate()
                .map(|(nth, part)| u64::from(machine::within(part, from, to)) << (16 * nth));
            bits.fold(0, |all, bits| all | bits)
        };
        // × and ÷ lie among the letters of two bytes. A lead byte counts only if its character is
        // whole.
        let is_sign = (within(0x97, 0x97) | within(0xb7, 0xb7)) >> 1;
        let marks = if marks { within(MARK_LEAD, MARK_LEAD) } else { 0 };
        let two =
            (within(0xc3, 0xca) & !(within(0xc3, 0xc3) & is_sign) | marks) & u64::MAX >> (1 + last);
        let three = within(0xe1, 0xe1) & within(0xb8, 0xbb) >> 1 & u64::MAX >> (2 + last);
        two | two << 1 | three | three << 1 | three << 2
    }

    /// Returns whether byte `position` is ASCII.
    #[inline]
    pub(crate) fn is_ascii(self, position: usize) -> bool {
        self.ascii >> position & 1 == 1
    }

    /// Returns whether byte `position` belongs to a letter.
    #[inline]
    pub(crate) fn has(self, position: usize) -> bool {
        self.all >> position & 1 == 1
    }

    /// Returns the end of the letters from `position`.
    #[inline]
    pub(crate) fn end(self, position: usize) -> usize {
        position + (self.all >> position).trailing_ones() as usize
    }

    /// Returns the end of the capitals from `position`, all ASCII. Needs letters without `latin`.
    #[inline]
    pub(crate) fn upper_end(self, position: usize) -> usize {
        position + ((self.all & !self.small) >> position).trailing_ones() as usize
    }

    /// Returns the end of the lower-case letters from `position`, all ASCII. Needs letters without
    /// `latin`.
    #[inline]
    pub(crate) fn lower_end(self, position: usize) -> usize {
        position + ((self.all & self.small) >> position).trailing_ones() as usize
    }
}

/// Returns whether `Letters` counts a character beyond ASCII as a Latin letter: U+00C0 to U+02BF
/// except × and ÷, and U+1E00 to U+1EFF.
pub(crate) fn is_latin(char: char) -> bool {
    matches!(char, '\u{c0}'..='\u{2bf}' | '\u{1e00}'..='\u{1eff}') && char != '×' && char != '÷'
}

/// The first byte of the marks U+0300 to U+033F.
pub(crate) const MARK_LEAD: u8 = 0xcc;

/// Returns whether `Letters` counts a character as a mark above or below a Latin letter.
pub(crate) fn is_latin_mark(char: char) -> bool {
    matches!(char, '\u{300}'..='\u{33f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the letters character by character.
    fn oracle(text: &str, latin: bool, marks: bool) -> Vec<bool> {
        let mut found = vec![false; WIDTH];
        let known = if text.len() < WIDTH { WIDTH } else { WIDTH - 1 };
        for (position, char) in
            text.char_indices().filter(|(position, char)| position + char.len_utf8() <= known)
        {
            let is_one = char.is_ascii_alphabetic()
                || (latin && (is_latin(char) || (marks && is_latin_mark(char))));
            found[position..position + char.len_utf8()].fill(is_one);
        }
        found
    }

    fn check(text: &str) {
        let with_more_before = format!("{}{text}", "ẹa".repeat(20));
        let has_rest = with_more_before.len() - text.len();
        for (latin, marks) in [(false, false), (true, false), (true, true)] {
            let found = Letters::at(text.as_bytes(), 0, latin, marks);
            assert_eq!(
                Letters::at(with_more_before.as_bytes(), has_rest, latin, marks),
                found,
                "{text:?}"
            );
            let letters = oracle(text, latin, marks);
            let byte = |position: usize| text.as_bytes().get(position).copied().unwrap_or_default();
            let run = |position: usize, is: fn(&u8) -> bool| {
                (position..WIDTH)
                    .find(|&position| !letters[position] || !is(&byte(position)))
                    .unwrap_or(WIDTH)
            };
            for (position, &is_one) in letters.iter().enumerate() {
                let is_known = text.len() < WIDTH || position + 1 < WIDTH;
                assert_eq!(found.has(position), is_one, "{text:?} at {position}");
                assert_eq!(found.end(position), run(position, |_| true), "{text:?} at {position}");
                assert_eq!(
                    found.is_ascii(position),
                    is_known && byte(position).is_ascii(),
                    "{text:?} at {position}"
                );
                if !latin {
                    assert_eq!(
                        found.upper_end(position),
                        run(position, u8::is_ascii_uppercase),
                        "{text:?} at {position}"
                    );
                    assert_eq!(
                        found.lower_end(position),
                        run(position, u8::is_ascii_lowercase),
                        "{text:?} at {position}"
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
                for position in 58..64 {
                    check(&format!("{}{char}a{char}{char}", "a".repeat(position)));
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn random_texts(
            text in concat!(
                "([a-zA-Z]{0,9}|[@\\[`{ m]|",
                "[\u{80}-\u{340}\u{1dff}-\u{1f01}]{0,3}|.){0,20}",
            ),
        ) {
            check(&text);
        }

        #[test]
        fn a_window_shows_the_text_and_zeros(text in proptest::collection::vec(1_u8.., 0..40)) {
            for position in 0..=text.len() {
                let rest = text[position..].iter().copied();
                let shown: Vec<u8> = rest.chain([0; 16]).take(16).collect();
                let found = window(&text, position, |window| window.to_vec());
                assert_eq!(found, shown, "{position} of {text:?}");
            }
        }
    }
}
