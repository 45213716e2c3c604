//! `Head`: the start of a file, which shows whether the file is text, and in which encoding.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use super::decoded::Decoded;
use super::encoding::{self, Encoding, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BOM, Compression, Storage, unreadable};

/// The bytes that are read of a file's content.
const HEAD: usize = 64 << 10;
/// The fewest `\r` alone that outweigh a `\n`.
const SURELY_ENDS: usize = 4;
/// The bytes in which a NUL shows that a file is binary.
const BINARY: usize = 4096;
/// The bytes that tell the kind of a file: those of a tar archive are the farthest.
const KIND: u64 = 512;

/// Kinds of files that are no text: their first bytes, their name, and the remedy.
const MAGIC: [(&[u8], &str, &str); 8] = [
    (b"\x04\x22\x4d\x18", "compressed by lz4", "unpack it: lz4 -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: 7z x FILE"),
    (b"Rar!\x1a\x07", "a rar archive", "unpack it: unrar x FILE"),
    (b"SQLite format 3\0", "an SQLite database", "export its rows as JSON Lines"),
    (b"\x89HDF\r\n", "HDF5", "export its texts as JSON Lines"),
    (b"%PDF-", "a PDF", "extract its text: pdftotext FILE"),
    (b"\x93NUMPY", "a NumPy array", "export its texts as JSON Lines"),
    (b"\x7fELF", "a program", "name a file of text"),
];
/// Kinds of files of columns: their first bytes, their name, and their format here.
const COLUMNAR: [(&[u8], &str, &str); 3] = [
    (b"PAR1", "Parquet", "parquet"),
    (b"ARROW1\0\0", "Arrow", "arrow"),
    (b"\xff\xff\xff\xff", "Arrow", "arrow"),
];

/// The start of a file.
pub(crate) struct Head {
    /// The name of the file, without its folder.
    name: String,
    /// The compression that its suffix names.
    compression: Option<&'static Compression>,
    /// The name of its content, whose suffix tells the format.
    content_name: PathBuf,
    /// The encoding that its source names.
    encoding: Encoding,
    /// The first bytes, decompressed.
    stored: Vec<u8>,
    /// What these stand for, in UTF-8.
    content: Vec<u8>,
}

impl Head {
    /// Reads the start of a file, whose source names `encoding` or nothing.
    pub(crate) fn read(
        storage: &dyn Storage,
        path: &Path,
        encoding: Option<Encoding>,
    ) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let compression = Compression::of(path);
        if let Some(compression) = compression {
            // A file of another kind under this suffix must not be called damaged.
            let failed = |_, error: &_| Error::io(ErrorKind::Input, path, error);
            let (file, _) = storage.open_regular(ErrorKind::Input, path)?;
            refuse_other_kind(compression, &first(file, KIND, failed)?, &name)?;
        }
        let failed = |read, error: &io::Error| unreadable(path, read, error);
        let (content, content_name) = storage.open_named_content(path)?;
        let stored = first(content, HEAD as u64, failed)?;
        let encoding = encoding.unwrap_or(Encoding::Utf8);
        let mut head =
            Self { name, compression, content_name, encoding, stored, content: Vec::new() };
        if encoding != Encoding::Utf8 {
            // In another encoding than its source says, the start would be read as anything.
            head.refuse_encoded()?;
        }
        let stored = Box::new(Cursor::new(head.stored.clone()));
        let decoded = Decoded::open(encoding, stored).map_err(|error| failed(0, &error))?;
        head.content = first(decoded, HEAD as u64, failed)?;
        Ok(head)
    }

    /// Returns the start of the content, without a byte order mark of UTF-8.
    pub(crate) fn text(&self) -> &[u8] {
        self.content.strip_prefix(BOM).unwrap_or(&self.content)
    }

    /// Returns whether the whole file is compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Returns the suffix that tells the format, in lower case.
    pub(crate) fn suffix(&self) -> String {
        self.content_name.extension().unwrap_or_default().to_string_lossy().to_lowercase()
    }

    /// Refuses a file that is compressed, an archive, or in another encoding than its source says.
    pub(crate) fn refuse_encoded(&self) -> Result<()> {
        let Self { name, stored, .. } = self;
        if let Some(inner) = Compression::by_start(stored) {
            return Err(self.compressed(inner));
        }
        refuse_magic(stored, name)?;
        self.encoding.refuse(stored).map_err(|error| {
            let remedy = error.remedy.as_deref().unwrap_or_default().replace("FILE", name);
            error.remedy(remedy)
        })
    }

    /// Returns the error of a file that is compressed by `inner`, which its name does not say.
    fn compressed(&self, inner: &Compression) -> Error {
        let (name, Compression { name: kind, suffix, .. }) = (&self.name, inner);
        if let Some(outer) = self.compression {
            let what = format!("is compressed twice, by {} and by {kind}", outer.name);
            let unpack = outer.unpack;
            return Error::input(what)
                .remedy(format!("unpack it once: {unpack} {name}; then name what comes of it"));
        }
        if *suffix == "zip" {
            return Error::input("is a zip archive, which its name does not say").remedy(format!(
                "rename it if it holds one file of text: mv {name} {name}.zip; export a \
                 spreadsheet as CSV"
            ));
        }
        Error::input(format!("is compressed by {kind}, which its name does not say"))
            .remedy(format!("rename it: mv {name} {name}.{suffix}"))
    }

    /// Refuses a file that is not text, or that holds NUL bytes.
    pub(crate) fn refuse_binary(&self) -> Result<()> {
        self.refuse_encoded()?;
        if self.content[..self.content.len().min(BINARY)].contains(&0) {
            let what = "holds NUL bytes: it is binary, or text of another encoding than UTF-8";
            return Err(Error::input(what).remedy(
                "name a file of text; `file` tells what it is, `encoding` in its source names \
                 other encodings",
            ));
        }
        Ok(())
    }

    /// Refuses a file of lines that end with `\r` alone: it would be one record.
    pub(crate) fn refuse_carriage_returns(&self) -> Result<()> {
        // The `\n` that belongs to the last `\r` may be cut off.
        let start = &self.content[..self.content.len().min(HEAD - 1)];
        let ends = memchr::memchr_iter(b'\n', &self.content).count();
        let alone = memchr::memchr_iter(b'\r', start);
        let alone = alone.filter(|at| self.content.get(at + 1) != Some(&b'\n')).count();
        // One `\r` or another may be part of a text whose lines end otherwise.
        if alone == 0 || ends > 0 && (alone <= ends || alone < SURELY_ENDS) {
            return Ok(());
        }
        let name = &self.name;
        let what = "has lines that end with \\r alone, as on old Macs: it would be one record";
        Err(Error::input(what).remedy(format!("convert it: tr '\\r' '\\n' < {name} > NEW")))
    }
}

/// Returns the encoding that the source of a file should name, as far as its start shows it; `None`
/// for UTF-8, and where none is likely.
pub(crate) fn encoding_of(storage: &dyn Storage, path: &Path) -> Option<Encoding> {
    let (content, _) = storage.open_named_content(path).ok()?;
    let failed = |read, error: &io::Error| unreadable(path, read, error);
    encoding::encoding_of(&first(content, HEAD as u64, failed).ok()?)
}

/// Returns the first bytes of a file. `failed` makes the error of a file that breaks off after so
/// many bytes.
fn first(file: impl Read, len: u64, failed: impl Fn(u64, &io::Error) -> Error) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.take(len).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(failed(bytes.len() as u64, &error)),
    }
}

/// Refuses a file that has the suffix of `compression` and begins like a file of another kind.
fn refuse_other_kind(compression: &Compression, start: &[u8], name: &str) -> Result<()> {
    let Some(other) = Compression::by_start(start).filter(|other| other.name != compression.name)
    else {
        return refuse_magic(start, name);
    };
    let stem = Path::new(name).with_extension("");
    let what = format!("is compressed by {}, not by {}", other.name, compression.name);
    Err(Error::input(format!("{what} as its name says")).remedy(format!(
        "rename it: mv {name} {}.{}",
        stem.display(),
        other.suffix
    )))
}

/// Refuses a file that begins like a kind of [`MAGIC`] or like a tar archive.
fn refuse_magic(head: &[u8], name: &str) -> Result<()> {
    if let Some((_, what, format)) = COLUMNAR.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Err(Error::input(format!("is {what}"))
            .remedy(format!("say format = \"{format}\" in its source")));
    }
    let is = |magic: &[u8]| head.starts_with(magic);
    let found =
        MAGIC.iter().find(|(magic, _, _)| is(magic)).map(|&(_, what, remedy)| (what, remedy));
    let tar = (head.get(257..262) == Some(b"ustar"))
        .then_some(("a tar archive", "unpack it: tar xf FILE"));
    match found.or(tar) {
        None => Ok(()),
        Some((what, remedy)) => Err(Error::input(format!("is {what}")).remedy(format!(
            "{}; then name what comes of it; compressed, {} are read",
            remedy.replace("FILE", name),
            Compression::suffixes()
        ))),
    }
}

/// Reads a file that a person wrote, as text.
pub(crate) fn small_text(storage: &dyn Storage, path: &Path) -> Result<String> {
    String::from_utf8(storage.small_bytes(path)?).map_err(|error| {
        let otherwise = || Error::input("is not UTF-8");
        let found = Found::of(error.as_bytes());
        let error = found.as_ref().map_or_else(otherwise, Found::refused_alone);
        error.file(path.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_at(name: &str, bytes: &[u8]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        crate::storage::LOCAL.write_file(&path, bytes).unwrap();
        Head::read(crate::storage::LOCAL, &path, None)?.refuse_binary()
    }

    #[test]
    fn compressed_and_binary_files_are_no_text_whatever_their_source_says() {
        let columnar = COLUMNAR.map(|(magic, what, _)| (magic, what, ""));
        for (magic, what, _) in MAGIC.into_iter().chain(columnar) {
            let bytes = [magic, b" rest of it"].concat();
            let error = looked_at("a.txt", &bytes).unwrap_err();
            assert!(error.message.contains(what), "{what}: {error}");
            assert!(!error.remedy.unwrap().contains("FILE"), "{what}");
        }
        for (start, suffix) in [
            (&b"\x1f\x8b\x08\0"[..], "gz"),
            (b"\x28\xb5\x2f\xfd\x24", "zst"),
            (b"BZh91AY&SY rest", "bz2"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"PK\x03\x04", "zip"),
        ] {
            let error = looked_at("a.txt", start).unwrap_err();
            assert!(error.remedy.unwrap().contains(&format!("mv a.txt a.txt.{suffix}")));
            // Under the suffix of another one too.
            let other = if suffix == "gz" { "xz" } else { "gz" };
            let error = looked_at(&format!("a.txt.{other}"), start).unwrap_err();
            assert!(error.message.contains("as its name says"), "{error}");
            assert!(error.remedy.unwrap().ends_with(&format!(" a.txt.{suffix}")));
        }
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
    fn lines_that_end_as_on_old_macs_are_refused_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let cut = [&vec![b'x'; HEAD - 1][..], b"\r\nx\n"].concat();
        let long = [&vec![b'x'; HEAD][..], b"\r"].concat();
        for (content, is_refused) in [
            (&b"one\rtwo\r"[..], true),
            (b"one\r", true),
            (b"one\r\ntwo", false),
            (b"one\rtwo\n", false),
            (b"one", false),
            (b"", false),
            (&cut, false),
            (&long, false),
        ] {
            crate::storage::LOCAL.write_file(&path, content).unwrap();
            let head = Head::read(crate::storage::LOCAL, &path, None).unwrap();
            let refused = head.refuse_carriage_returns();
            assert_eq!(refused.is_err(), is_refused, "{:?}", &content[..content.len().min(9)]);
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
