//! `Decoded`: the content of a file in another encoding, as UTF-8.
//!
//! What the encoding does not define becomes a byte that no text in UTF-8 holds, never a character:
//! the record that it stands in is malformed, as if it were damaged UTF-8.

use std::io::{self, BufRead, Cursor, Read};

use super::encoding::Encoding;
use crate::storage::Flaw;

/// The stored bytes that are decoded at once.
const PIECE: usize = 32 << 10;
/// The room that they take in UTF-8, at most three bytes for each, and for what was left undecided
/// before.
const ROOM: usize = 3 * PIECE + 16;
/// The byte in place of what the encoding does not define.
const MALFORMED: u8 = 0xff;
/// The bytes that windows-1252 does not define.
const UNDEFINED: &[u8] = b"\x81\x8d\x8f\x90\x9d";

/// The content of a file, decoded.
pub(super) struct Decoded {
    stored: Box<dyn BufRead + Send>,
    decoder: Decoder,
    /// Decoded bytes, of which those from `start` on are unread.
    content: Vec<u8>,
    start: usize,
    is_at_end: bool,
}

/// The state of decoding.
enum Decoder {
    Latin1,
    Library {
        decoder: encoding_rs::Decoder,
        /// Bytes that the library maps to control characters, though nothing defines them.
        undefined: &'static [u8],
        scratch: Vec<u8>,
    },
}

impl Decoded {
    /// Opens the content of a file in `encoding`, from its start. A byte order mark of UTF-16 tells
    /// how the content is stored, and is no part of it.
    pub(super) fn open(
        encoding: Encoding,
        mut stored: Box<dyn BufRead + Send>,
    ) -> io::Result<Box<dyn BufRead + Send>> {
        let library = |encoding: &'static encoding_rs::Encoding, undefined| Decoder::Library {
            decoder: encoding.new_decoder_without_bom_handling(),
            undefined,
            scratch: vec![0; ROOM],
        };
        let units = |is_big_endian| {
            let order = if is_big_endian { encoding_rs::UTF_16BE } else { encoding_rs::UTF_16LE };
            library(order, b"")
        };
        let decoder = match encoding {
            Encoding::Utf8 => return Ok(stored),
            Encoding::Latin1 => Decoder::Latin1,
            Encoding::Windows1252 => library(encoding_rs::WINDOWS_1252, UNDEFINED),
            Encoding::Utf16 | Encoding::Utf16Le | Encoding::Utf16Be => {
                let mut first = Vec::new();
                stored.by_ref().take(2).read_to_end(&mut first)?;
                let mark = match first.as_slice() {
                    [0xff, 0xfe] => Some(false),
                    [0xfe, 0xff] => Some(true),
                    _ => None,
                };
                let order = match encoding {
                    Encoding::Utf16Le => Some(false),
                    Encoding::Utf16Be => Some(true),
                    // A file of nothing has no order.
                    _ => mark.or(first.is_empty().then_some(false)),
                };
                let Some(order) = order else {
                    let what = "has no byte order mark of UTF-16 any more: it was changed";
                    return Err(Flaw::new(what, "pack again once nothing writes to it").into());
                };
                if mark != Some(order) {
                    stored = Box::new(Cursor::new(first).chain(stored));
                }
                units(order)
            }
        };
        Ok(Box::new(Self { stored, decoder, content: Vec::new(), start: 0, is_at_end: false }))
    }
}

impl Decoder {
    /// Adds the next stored bytes to `content`; no bytes end the file.
    fn decode(&mut self, mut stored: &[u8], content: &mut Vec<u8>) {
        let Self::Library { decoder, undefined, scratch } = self else {
            content.resize(2 * stored.len(), 0);
            let len = encoding_rs::mem::convert_latin1_to_utf8(stored, content);
            content.truncate(len);
            return;
        };
        let is_last = stored.is_empty();
        loop {
            let is_undefined = |byte: &u8| undefined.contains(byte);
            let end = stored.iter().position(is_undefined).unwrap_or(stored.len());
            decode_all(decoder, &stored[..end], is_last, scratch, content);
            if end == stored.len() {
                return;
            }
            content.push(MALFORMED);
            stored = &stored[end + 1..];
        }
    }
}

/// Adds what bytes stand for to `content`.
fn decode_all(
    decoder: &mut encoding_rs::Decoder,
    mut stored: &[u8],
    is_last: bool,
    scratch: &mut [u8],
    content: &mut Vec<u8>,
) {
    use encoding_rs::DecoderResult::{InputEmpty, Malformed, OutputFull};
    loop {
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(stored, scratch, is_last);
        content.extend_from_slice(&scratch[..written]);
        stored = &stored[read..];
        match result {
            InputEmpty => return,
            OutputFull => {}
            Malformed(_, _) => content.push(MALFORMED),
        }
    }
}

impl BufRead for Decoded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.start == self.content.len() && !self.is_at_end {
            let piece = self.stored.fill_buf()?;
            let piece = &piece[..piece.len().min(PIECE)];
            self.content.clear();
            self.start = 0;
            self.decoder.decode(piece, &mut self.content);
            let len = piece.len();
            self.is_at_end = len == 0;
            self.stored.consume(len);
        }
        Ok(&self.content[self.start..])
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
    }
}

impl Read for Decoded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let unread = self.fill_buf()?;
        let len = unread.len().min(into.len());
        into[..len].copy_from_slice(&unread[..len]);
        self.consume(len);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// Decodes bytes that come in pieces of `piece`.
    fn decoded(encoding: Encoding, stored: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let stored = BufReader::with_capacity(piece, Cursor::new(stored.to_vec()));
        let mut content = Vec::new();
        Decoded::open(encoding, Box::new(stored))?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Decodes units by the standard library; what is no character becomes a byte that no text has.
    fn expected(units: &[u16], is_odd: bool) -> Vec<u8> {
        let mut content = Vec::new();
        for unit in char::decode_utf16(units.iter().copied()) {
            match unit {
                Ok(char) => content.extend_from_slice(char.to_string().as_bytes()),
                Err(_) => content.push(MALFORMED),
            }
        }
        // A half of a pair and the byte after it are one sequence that nothing defines.
        let ends_in_half = units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit));
        if is_odd && !ends_in_half {
            content.push(MALFORMED);
        }
        content
    }

    /// Units among which many are halves of pairs, or a mark.
    fn units() -> impl Strategy<Value = Vec<u16>> {
        let unit = prop_oneof![any::<u16>(), 0xd7f0..0xe010_u16, 0..0x80_u16, Just(0xfeff)];
        prop::collection::vec(unit, 0..60)
    }

    proptest! {
        #[test]
        fn utf_16_is_read_as_the_standard_library_reads_it(
            units in units(), is_odd in any::<bool>(), is_marked in any::<bool>(),
            piece in 1..7_usize,
        ) {
            type Bytes = fn(u16) -> [u8; 2];
            let orders: [(Encoding, Bytes); 2] =
                [(Encoding::Utf16Le, u16::to_le_bytes), (Encoding::Utf16Be, u16::to_be_bytes)];
            for (encoding, bytes) in orders {
                let mark = is_marked.then_some(0xfeff);
                let all: Vec<u16> = mark.into_iter().chain(units.iter().copied()).collect();
                let mut stored: Vec<u8> = all.iter().flat_map(|&unit| bytes(unit)).collect();
                stored.extend(is_odd.then_some(b'x'));
                let expected = expected(all.strip_prefix(&[0xfeff]).unwrap_or(&all), is_odd);
                prop_assert_eq!(&decoded(encoding, &stored, piece).unwrap(), &expected);
                if all.first() == Some(&0xfeff) {
                    let by_mark = decoded(Encoding::Utf16, &stored, piece).unwrap();
                    prop_assert_eq!(by_mark, expected);
                }
            }
        }

        #[test]
        fn latin_1_is_the_character_of_each_byte(
            stored in prop::collection::vec(any::<u8>(), 0..200), piece in 1..9_usize,
        ) {
            let text: String = stored.iter().map(|&byte| char::from(byte)).collect();
            prop_assert_eq!(decoded(Encoding::Latin1, &stored, piece).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn windows_1252_has_five_bytes_that_stand_for_nothing() {
        let stored: Vec<u8> = (0..=255).collect();
        for piece in [1, 300] {
            let content = decoded(Encoding::Windows1252, &stored, piece).unwrap();
            let len = content.len();
            let kept: Vec<u8> = content.into_iter().filter(|byte| *byte != MALFORMED).collect();
            assert_eq!(len - kept.len(), 5);
            let text = String::from_utf8(kept).unwrap();
            assert_eq!(text.chars().count(), 251);
            assert!(
                text.contains("\u{7f}€‚ƒ") && text.contains("›œžŸ\u{a0}") && text.ends_with('ÿ')
            );
        }
    }

    #[test]
    fn utf_16_without_a_mark_is_refused_and_nothing_is_nothing() {
        assert!(decoded(Encoding::Utf16, b"a\0", 10).is_err());
        for encoding in [Encoding::Utf16, Encoding::Utf16Le, Encoding::Latin1] {
            assert_eq!(decoded(encoding, b"", 10).unwrap(), b"");
        }
    }

    #[test]
    fn much_that_is_malformed_costs_no_more_than_text() {
        let halves = vec![0xd8; 1 << 20];
        let content = decoded(Encoding::Utf16Be, &halves, 1 << 16).unwrap();
        assert!(content.iter().all(|byte| *byte == MALFORMED) && content.len() == 1 << 19);
    }
}
