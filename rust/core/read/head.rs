//! `Head`: the start of a file, which shows whether the file is text in UTF-8.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BOM, Storage, is_gzip, unreadable};

/// The number of bytes that are read of a file's start.
const HEAD: u64 = 4096;

/// The first bytes of gzip.
const GZIP: &[u8] = b"\x1f\x8b";
/// Kinds of files that are no text: their first bytes, their name, and the remedy.
const MAGIC: [(&[u8], &str, &str); 16] = [
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: zstd -d FILE"),
    (b"BZh", "compressed by bzip2", "unpack it: bzip2 -dk FILE"),
    (b"\xfd7zXZ\0", "compressed by xz", "unpack it: xz -dk FILE"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "unpack it: lz4 -d FILE"),
    (b"PK\x03\x04", "a zip archive", "unpack it: unzip FILE"),
    (b"PK\x05\x06", "an empty zip archive", "name the files that it was to hold"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: 7z x FILE"),
    (b"Rar!\x1a\x07", "a rar archive", "unpack it: unrar x FILE"),
    (b"PAR1", "Parquet, which is not read yet", EXPORT_PARQUET),
    (b"ARROW1\0\0", "Arrow, which is not read yet", EXPORT_ARROW),
    (b"\xff\xff\xff\xff", "Arrow, which is not read yet", EXPORT_ARROW),
    (b"SQLite format 3\0", "an SQLite database", "export its rows as JSON Lines"),
    (b"\x89HDF\r\n", "HDF5", "export its texts as JSON Lines"),
    (b"%PDF-", "a PDF", "extract its text: pdftotext FILE"),
    (b"\x93NUMPY", "a NumPy array", "export its texts as JSON Lines"),
    (b"\x7fELF", "a program", "name a file of text"),
];
const EXPORT_PARQUET: &str = "export it as JSON Lines: \
     python -c \"import datasets; datasets.Dataset.from_parquet('FILE').to_json('FILE.jsonl')\"";
const EXPORT_ARROW: &str = "export it as JSON Lines: \
     python -c \"import datasets; datasets.Dataset.from_file('FILE').to_json('FILE.jsonl')\"";

/// The start of a file.
pub(crate) struct Head {
    /// The name of the file, without its folder.
    name: String,
    /// Whether its suffix is that of gzip.
    is_gzip: bool,
    /// The first bytes, decompressed if the suffix is that of gzip.
    content: Vec<u8>,
}

impl Head {
    /// Reads the start of a file.
    pub(crate) fn read(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut stored = Vec::new();
        let failed = |error| Error::io(ErrorKind::Input, path, &error);
        let (file, _) = storage.open_regular(ErrorKind::Input, path)?;
        file.take(HEAD).read_to_end(&mut stored).map_err(failed)?;
        if !is_gzip(path) {
            return Ok(Self { name, is_gzip: false, content: stored });
        }
        // A file of another kind under this suffix must not be called damaged gzip.
        refuse_magic(&stored, &name)?;
        let mut content = Vec::new();
        storage
            .open_content(path, 0)?
            .take(HEAD)
            .read_to_end(&mut content)
            .map_err(|error| unreadable(path, 0, &error))?;
        Ok(Self { name, is_gzip: true, content })
    }

    /// Returns the start of the content, without a byte order mark of UTF-8.
    pub(crate) fn text(&self) -> &[u8] {
        self.content.strip_prefix(BOM).unwrap_or(&self.content)
    }

    /// Refuses a file that is compressed, an archive or in another encoding than UTF-8.
    pub(crate) fn refuse_encoded(&self) -> Result<()> {
        let Self { name, is_gzip, content } = self;
        if !is_gzip && content.starts_with(GZIP) {
            return Err(Error::input("is compressed by gzip, which its name does not say")
                .remedy(format!("rename it: mv {name} {name}.gz")));
        }
        refuse_magic(content, name)?;
        other_encoding(content).map_or(Ok(()), Err)
    }

    /// Refuses a file that is not text in UTF-8, or that holds NUL bytes.
    pub(crate) fn refuse_binary(&self) -> Result<()> {
        self.refuse_encoded()?;
        if self.content.contains(&0) {
            let what = "holds NUL bytes: it is binary, or text of another encoding than UTF-8";
            return Err(Error::input(what).remedy(
                "name a file of text; `file` tells what it is, `iconv` brings other encodings to \
                 UTF-8",
            ));
        }
        Ok(())
    }
}

/// Refuses a file that begins like a kind of [`MAGIC`] or like a tar archive.
fn refuse_magic(head: &[u8], name: &str) -> Result<()> {
    // bzip2's own three letters could begin a text; the block after them could not.
    let is = |magic: &[u8]| {
        head.starts_with(magic) && (magic != b"BZh" || head.get(4..10) == Some(b"1AY&SY"))
    };
    let found =
        MAGIC.iter().find(|(magic, _, _)| is(magic)).map(|&(_, what, remedy)| (what, remedy));
    let tar = (head.get(257..262) == Some(b"ustar"))
        .then_some(("a tar archive", "unpack it: tar xf FILE"));
    match found.or(tar) {
        None => Ok(()),
        Some((what, remedy)) => {
            let next = "name what comes of it; compressed, only gzip is read (.gz)";
            Err(Error::input(format!("is {what}"))
                .remedy(format!("{}; then {next}", remedy.replace("FILE", name))))
        }
    }
}

/// Reads a file that a person wrote, as text.
pub(crate) fn small_text(storage: &dyn Storage, path: &Path) -> Result<String> {
    String::from_utf8(storage.small_bytes(path)?).map_err(|error| {
        let otherwise = || Error::input("is not UTF-8");
        let error = other_encoding(error.as_bytes()).unwrap_or_else(otherwise);
        error.file(path.display().to_string())
    })
}

/// Returns the error of text in UTF-16 or UTF-32, by its byte order mark or by where its NULs are.
fn other_encoding(head: &[u8]) -> Option<Error> {
    let by_mark = match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => None,
    };
    let (found, from) = match by_mark {
        Some(name) => (name, name),
        None => by_nuls(&head[..head.len().min(HEAD as usize)])?,
    };
    Some(
        Error::input(format!("is text in {found}, not in UTF-8"))
            .remedy(format!("convert it: iconv -f {from} -t UTF-8 FILE > NEW")),
    )
}

/// Returns the encoding of text without a mark, and its name for `iconv`.
///
/// Text of Latin letters has a NUL in one fixed byte of nearly every unit of UTF-16, and in two or
/// more bytes of every unit of UTF-32.
fn by_nuls(head: &[u8]) -> Option<(&'static str, &'static str)> {
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
    if most(2) && most(3) && few(0) {
        Some(("UTF-32", "UTF-32LE"))
    } else if most(0) && most(1) && few(3) {
        Some(("UTF-32", "UTF-32BE"))
    } else if most(1) && most(3) && few(0) && few(2) {
        Some(("UTF-16", "UTF-16LE"))
    } else if most(0) && most(2) && few(1) && few(3) {
        Some(("UTF-16", "UTF-16BE"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_at(name: &str, bytes: &[u8]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        crate::storage::LOCAL.write_file(&path, bytes).unwrap();
        Head::read(crate::storage::LOCAL, &path)?.refuse_binary()
    }

    #[test]
    fn compressed_and_binary_files_are_no_text_whatever_their_source_says() {
        for (magic, what, _) in MAGIC {
            let bytes = if magic == b"BZh" {
                b"BZh91AY&SY rest".to_vec()
            } else {
                [magic, b" rest of it"].concat()
            };
            let error = looked_at("a.txt", &bytes).unwrap_err();
            assert!(error.message.contains(what), "{what}: {error}");
            assert!(!error.remedy.unwrap().contains("FILE"), "{what}");
        }
        let error = looked_at("a.txt", b"\x1f\x8b\x08\0").unwrap_err();
        assert!(error.remedy.unwrap().contains("mv a.txt a.txt.gz"));
        let tar = [&[b'a'; 257][..], b"ustar", &[b'0'; 9]].concat();
        assert!(looked_at("a.txt", &tar).unwrap_err().message.contains("tar"));
        assert!(looked_at("a.txt", b"one\0two\n").unwrap_err().message.contains("NUL"));
        for text in [
            &b"BZh is a name\n"[..],
            b"PKzip\n",
            b"",
            b"a",
            "\u{feff}ọ̀rọ̀".as_bytes(),
            b"\xe9t\xe9\n",
        ] {
            looked_at("a.txt", text).unwrap();
        }
    }

    #[test]
    fn other_encodings_are_named_with_a_mark_and_without() {
        type Unit = fn(u32) -> Vec<u8>;
        let units: [(&str, &str, Unit); 4] = [
            ("UTF-16", "UTF-16LE", |c| (c as u16).to_le_bytes().to_vec()),
            ("UTF-16", "UTF-16BE", |c| (c as u16).to_be_bytes().to_vec()),
            ("UTF-32", "UTF-32LE", |c| c.to_le_bytes().to_vec()),
            ("UTF-32", "UTF-32BE", |c| c.to_be_bytes().to_vec()),
        ];
        for text in ["one two three\r\nfour five\n", "bàtà ọ̀rọ̀ kan\n", "{\"a\": \"b\"}\n", "ab"]
        {
            for (name, from, unit) in units {
                let bytes: Vec<u8> = text.chars().flat_map(|c| unit(u32::from(c))).collect();
                let marked = [unit(0xfeff), bytes.clone()].concat();
                let error = looked_at("a.txt", &marked).unwrap_err();
                assert!(error.message.contains(&format!("{name},")), "{error}");
                let error = looked_at("a.txt", &bytes).unwrap_err();
                assert!(error.message.contains(name), "{text:?} {from}: {error}");
                assert!(
                    error.remedy.unwrap().contains(&format!("iconv -f {from}")),
                    "{text:?} {from}"
                );
            }
        }
    }
}
