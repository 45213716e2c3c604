//! `Encoding`: how the bytes of a text file stand for characters, where that is not UTF-8.
//!
//! Takes the start of a file, and refuses one that is plainly in another encoding than its source
//! says; takes a line that is not text, and says why. `Decoded` reads a file in an encoding.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::storage::BOM;

/// The fewest bytes of ASCII that are surely not UTF-16.
const SURELY: usize = 64;
/// The fewest bytes that an encoding is guessed from.
const GUESSABLE: usize = 3;
/// The bytes of a file's start in which NULs show its encoding.
const SHOWING: usize = 4096;

/// The remedy for a file that is not in the encoding that its source says, or does not say.
pub(super) const NAME_ENCODING: &str = "say the encoding of the file in its source: encoding = \"windows-1252\" or another, see \
     docs/formats.md";

/// The encoding of a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// The encoding of files whose source names none.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16 in the byte order that its mark tells.
    #[serde(rename = "utf-16")]
    Utf16,
    /// UTF-16, the low byte of each unit first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, the high byte of each unit first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// ISO 8859-1: each byte is the character of its number.
    #[serde(rename = "latin-1")]
    Latin1,
    /// The Western code page of Windows.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

use Encoding::{Latin1, Utf8, Utf16, Utf16Be, Utf16Le, Windows1252};

impl Encoding {
    /// Returns the names of all encodings in `corpus.toml`.
    pub(crate) fn names() -> &'static [&'static str] {
        &["utf-8", "utf-16", "utf-16le", "utf-16be", "latin-1", "windows-1252"]
    }

    /// Returns the name in `corpus.toml`.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        Self::names()[self as usize]
    }

    /// Refuses a file that begins with `stored` and is plainly in another encoding than this.
    pub(super) fn refuse(self, stored: &[u8]) -> Result<()> {
        let found = Found::of(stored);
        match (self, found) {
            (Utf8, Some(found)) => Err(found.refused()),
            (Utf16, Some(Found { is_marked: true, encoding: Some(_), .. })) => Ok(()),
            (Utf16, _) if stored.is_empty() => Ok(()),
            (_, Some(found)) if found.encoding.is_none() => Err(found.refused()),
            (Utf16, found) => Err(no_mark(found, stored)),
            (_, Some(Found { encoding: Some(found), .. })) if found == self => Ok(()),
            (_, Some(Found { encoding: Some(found), .. })) => Err(self
                .looks_like(found)
                .remedy(format!("say encoding = \"{}\" in its source", found.name()))),
            (Utf16Le | Utf16Be, None) if is_ascii_like(stored) => Err(self.looks_like_utf8()),
            (Latin1 | Windows1252, None) if has_multibyte(stored) => Err(self.looks_like_utf8()),
            (Latin1, None) if has_controls(stored) => Err(self
                .looks_like(Windows1252)
                .remedy("say encoding = \"windows-1252\" in its source")),
            _ => Ok(()),
        }
    }

    /// Returns the error of a file that is in another encoding than its source says.
    fn looks_like(self, other: Self) -> Error {
        let [says, is] = [self, other].map(Self::name);
        Error::input(format!("looks like text in {is}, and its source says encoding = \"{says}\""))
    }

    /// Returns the error of a file that is in UTF-8, which its source does not say.
    fn looks_like_utf8(self) -> Error {
        self.looks_like(Utf8).remedy("remove `encoding` from its source")
    }
}

/// Returns the error of a file without a mark, whose source counts on one.
fn no_mark(found: Option<Found>, stored: &[u8]) -> Error {
    let error = Error::input(
        "has no byte order mark, and its source says encoding = \"utf-16\": which byte of a \
         character comes first is open",
    );
    match found.and_then(|found| found.encoding) {
        Some(found) => error.remedy(format!("say encoding = \"{}\" (a guess)", found.name())),
        None if is_ascii_like(stored) => Utf16.looks_like_utf8(),
        None => error.remedy("say encoding = \"utf-16le\" or \"utf-16be\", whichever it is"),
    }
}

/// Returns whether a file begins with enough bytes of text in UTF-8, which hold no NUL: UTF-16
/// has one in every space, digit and end of line.
fn is_ascii_like(stored: &[u8]) -> bool {
    stored.len() >= SURELY && !stored.contains(&0) && is_utf8(stored)
}

/// Returns whether a file begins with text in UTF-8 of more characters than those of ASCII. In
/// other encodings the bytes beyond ASCII do not form such sequences, every one of them.
fn has_multibyte(stored: &[u8]) -> bool {
    !stored.is_ascii() && is_utf8(stored)
}

/// Returns whether a file begins with bytes that Latin-1 has for controls, and windows-1252 for
/// quotes, dashes and letters.
fn has_controls(stored: &[u8]) -> bool {
    stored.iter().any(|byte| matches!(byte, 0x80..=0x84 | 0x86..=0x9f))
}

/// Returns whether bytes are text in UTF-8, the last character cut off or not.
fn is_utf8(stored: &[u8]) -> bool {
    std::str::from_utf8(stored)
        .map_or_else(|error| error.error_len().is_none() && error.valid_up_to() > 0, |_| true)
}

/// An encoding of 16 or 32 bits that the start of a file shows.
pub(super) struct Found {
    /// Its name in sentences, and for `iconv`.
    name: &'static str,
    iconv: &'static str,
    /// The encoding, if it is read.
    encoding: Option<Encoding>,
    /// Whether a byte order mark shows it.
    is_marked: bool,
}

impl Found {
    /// Returns the encoding of a file that begins with `stored`, by its byte order mark or by where
    /// its NULs are.
    pub(super) fn of(stored: &[u8]) -> Option<Self> {
        let marked = |name, encoding| Some(Self { name, iconv: name, encoding, is_marked: true });
        match stored {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => marked("UTF-32", None),
            [0xff, 0xfe, ..] => marked("UTF-16", Some(Utf16Le)),
            [0xfe, 0xff, ..] => marked("UTF-16", Some(Utf16Be)),
            _ if stored.starts_with(BOM) => None,
            _ => Self::by_nuls(&stored[..stored.len().min(SHOWING)]),
        }
    }

    /// Returns the encoding of text without a mark.
    ///
    /// Text of Latin letters has a NUL in one fixed byte of nearly every unit of UTF-16, and in two
    /// or more bytes of every unit of UTF-32.
    fn by_nuls(head: &[u8]) -> Option<Self> {
        // NULs by their place among four bytes: one unit of UTF-32, or two of UTF-16.
        let mut nuls = [0; 4];
        let places = head.iter().enumerate().filter(|(_, byte)| **byte == 0);
        places.for_each(|(place, _)| nuls[place % 4] += 1);
        let units = head.len() / 4;
        let most = |place: usize| nuls[place] * 2 > units;
        let few = |place: usize| nuls[place] * 4 <= units;
        if units == 0 {
            return None;
        }
        let (name, iconv, encoding) = if most(2) && most(3) && few(0) {
            ("UTF-32", "UTF-32LE", None)
        } else if most(0) && most(1) && few(3) {
            ("UTF-32", "UTF-32BE", None)
        } else if most(1) && most(3) && few(0) && few(2) {
            ("UTF-16", "UTF-16LE", Some(Utf16Le))
        } else if most(0) && most(2) && few(1) && few(3) {
            ("UTF-16", "UTF-16BE", Some(Utf16Be))
        } else {
            return None;
        };
        Some(Self { name, iconv, encoding, is_marked: false })
    }

    /// Returns the error of a file in this encoding that is to be UTF-8, and that no source can say
    /// more about.
    pub(super) fn refused_alone(&self) -> Error {
        self.error().remedy(format!("convert it: {}", self.conversion()))
    }

    /// Returns the error of an input in this encoding whose source does not say so.
    pub(super) fn refused(&self) -> Error {
        let Some(encoding) = self.encoding else { return self.refused_alone() };
        let encoding = if self.is_marked { Utf16 } else { encoding };
        self.error().remedy(format!(
            "say encoding = \"{}\" in its source, or convert it: {}",
            encoding.name(),
            self.conversion()
        ))
    }

    /// Returns the error without a remedy.
    fn error(&self) -> Error {
        Error::input(format!("is text in {}, not in UTF-8", self.name))
    }

    /// Returns the command that converts a file.
    fn conversion(&self) -> String {
        format!("iconv -f {} -t UTF-8 FILE > NEW", self.iconv)
    }
}

/// Returns in words where bytes stop being text, and a guess at their encoding if their source names
/// none. `whose` is how a sentence counts in them: `"byte"`, or `"its byte"`.
pub(super) fn not_text(bytes: &[u8], encoding: Option<Encoding>, its: &str) -> String {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    match encoding {
        // The bytes of the file are not those at hand; its characters are.
        Some(encoding) => {
            format!("not {} from {its}character {} on", encoding.name(), valid.chars().count() + 1)
        }
        None => format!("not UTF-8 from {its}byte {} on{}", valid.len() + 1, guess(bytes)),
    }
}

/// Returns the encoding that the source of a file should name, which begins with `stored`; `None` for
/// UTF-8, an encoding that is not read, and where none is likely.
pub(super) fn encoding_of(stored: &[u8]) -> Option<Encoding> {
    if let Some(found) = Found::of(stored) {
        return found.encoding.map(|encoding| if found.is_marked { Utf16 } else { encoding });
    }
    // Windows-1252 has the letters of Latin-1, and quotes where that has controls.
    let is_western = !is_utf8(stored) && detected(stored)? == encoding_rs::WINDOWS_1252;
    is_western.then_some(Windows1252)
}

/// Returns the likely encoding of bytes that are not UTF-8; `None` if they are too few, or hold
/// damaged UTF-8.
fn detected(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    if bytes.len() < GUESSABLE || bytes.utf8_chunks().any(|chunk| !chunk.valid().is_ascii()) {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    Some(detector.guess(None, Utf8Detection::Deny))
}

/// Returns a guess at the encoding of bytes that are not UTF-8, as the end of a sentence; nothing
/// if they are too few, or hold damaged UTF-8.
fn guess(bytes: &[u8]) -> String {
    let Some(guessed) = detected(bytes) else { return String::new() };
    if guessed == encoding_rs::WINDOWS_1252 {
        return "; a guess: encoding = \"windows-1252\" or \"latin-1\"".to_owned();
    }
    let name = guessed.name();
    format!("; a guess: it is {name}, which `iconv -f {name} -t UTF-8` converts")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the remedy for a file in another encoding than `self`; `None` if it may be in it.
    fn remedy(encoding: Encoding, stored: &[u8]) -> Option<String> {
        encoding.refuse(stored).err().map(|error| error.remedy.unwrap())
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_file_that_is_plainly_in_another_encoding_is_refused() {
        let text = "one two three, and so on: four five six and seven, eight, nine and ten\n";
        let little = utf16(text, u16::to_le_bytes);
        let big = utf16(text, u16::to_be_bytes);
        let marked = [b"\xff\xfe", &little[..]].concat();
        let accented = "bàtà ọ̀rọ̀\n";
        let wide = utf16("中文中文", u16::to_le_bytes);
        for (encoding, stored, expected) in [
            (Utf8, text.as_bytes(), None),
            (Utf8, b"caf\xe9", None),
            (Utf8, &marked, Some("encoding = \"utf-16\"")),
            (Utf8, &little, Some("encoding = \"utf-16le\"")),
            (Utf8, &big, Some("encoding = \"utf-16be\"")),
            (Utf16, &marked, None),
            (Utf16, b"", None),
            (Utf16, &little, Some("encoding = \"utf-16le\" (a guess)")),
            (Utf16, &big, Some("encoding = \"utf-16be\" (a guess)")),
            (Utf16, text.as_bytes(), Some("remove `encoding`")),
            (Utf16, &wide, Some("\"utf-16le\" or \"utf-16be\"")),
            (Utf16Le, &little, None),
            (Utf16Le, &marked, None),
            (Utf16Le, &wide, None),
            (Utf16Le, &big, Some("encoding = \"utf-16be\"")),
            (Utf16Le, text.as_bytes(), Some("remove `encoding`")),
            (Utf16Be, &marked, Some("encoding = \"utf-16le\"")),
            (Latin1, text.as_bytes(), None),
            (Latin1, b"caf\xe9\n", None),
            (Latin1, accented.as_bytes(), Some("remove `encoding`")),
            // Cut in the middle of a character.
            (Windows1252, &accented.as_bytes()[..8], Some("remove `encoding`")),
            (Latin1, &little, Some("encoding = \"utf-16le\"")),
            (Latin1, "\u{feff}a".as_bytes(), Some("remove `encoding`")),
            (Latin1, b"\0\0\0a\0\0\0b", Some("iconv -f UTF-32BE")),
        ] {
            let found = remedy(encoding, stored);
            let is_expected = match (&found, expected) {
                (Some(found), Some(expected)) => found.contains(expected),
                (None, None) => true,
                _ => false,
            };
            assert!(is_expected, "{encoding:?} of {stored:x?}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn what_is_not_text_is_said_with_a_guess_at_its_encoding() {
        for (bytes, encoding, said) in [
            (
                &b"le caf\xe9 est \xe0 l'\xe9tage"[..],
                None,
                "not UTF-8 from byte 7 on; a guess: encoding = \"windows-1252\" or \"latin-1\"",
            ),
            // Damaged UTF-8 is no other encoding.
            ("ọ̀rọ̀".as_bytes().get(..4).unwrap(), None, "not UTF-8 from byte 4 on"),
            (b"\xe1\xbb\x8dx\xff", Some(Utf16), "not utf-16 from character 3 on"),
        ] {
            assert_eq!(not_text(bytes, encoding, ""), said);
        }
        let russian = b"\xcf\xf0\xe8\xe2\xe5\xf2, \xea\xe0\xea \xe4\xe5\xeb\xe0";
        assert!(not_text(russian, None, "").contains("iconv -f windows-1251 -t UTF-8"));
    }
}
