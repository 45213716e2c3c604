//! Files: every file the core reads is opened here, with `read`, never mapped, in bounded memory.
//!
//! A leaf below the stages: it knows bytes, gzip and what a file looks like, nothing of records.

#![expect(clippy::disallowed_methods, reason = "this is where files are opened for reading")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Kind, Result};
use crate::schema::Format;

const BUFFER: usize = 256 << 10;
/// The byte order mark some programs begin a text file with.
pub const BOM: &[u8] = "\u{feff}".as_bytes();

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::io(Kind::Input, path, &error))
}

/// Whether a file is gzip, by its suffix.
#[must_use]
pub fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gz"))
}

/// A reader of the file's content from `start`, decompressed if its suffix says so (then `start` is 0).
pub fn open_content(path: &Path, start: u64) -> Result<Box<dyn BufRead + Send>> {
    let mut file = open(path)?;
    if is_gzip(path) {
        debug_assert_eq!(start, 0, "a compressed input is one split");
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(BufReader::new(file)))));
    }
    file.seek(SeekFrom::Start(start)).map_err(|error| Error::io(Kind::Input, path, &error))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
}

/// The error of a file whose content cannot be read on from `offset`.
#[must_use]
pub fn unreadable(path: &Path, offset: u64, error: &io::Error) -> Error {
    if !is_gzip(path) {
        return Error::io(Kind::Input, path, error);
    }
    Error::input(format!("damaged gzip after {offset} bytes of content: {error}"))
        .file(path.display().to_string())
        .remedy("fetch or compress the file again; `gzip -t` tells whether it is whole")
}

/// The file's size in bytes.
pub fn file_size(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(Kind::Input, path, &error))?;
    Ok(metadata.len())
}

/// A file's size in bytes and when it was last changed, if its file system tells.
pub type Stamp = (u64, Option<std::time::SystemTime>);

/// The stamp of a file.
pub fn stamp(path: &Path) -> Result<Stamp> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(Kind::Input, path, &error))?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// Whether two paths lead to one file.
#[must_use]
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A small text file, whole.
pub fn whole_text(path: &Path) -> Result<String> {
    let bytes = whole_bytes(path)?;
    String::from_utf8(bytes).map_err(|_| Error::input("is not UTF-8").file(path.display().to_string()))
}

/// A small file, whole.
pub fn whole_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(Kind::Input, path, &error))
}

/// `len` bytes of a file of ours, from `offset` on.
pub fn bytes_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = |mut file: File| file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
    File::open(path).and_then(read).map_err(|error| {
        Error::io(Kind::Dataset, path, &error).remedy("something changed the folder .work while it was in use")
    })?;
    Ok(bytes)
}

/// The names in a folder, sorted; none where it cannot be listed.
#[must_use]
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// The xxh3-128 of a file's bytes, in hexadecimal. `check` is asked now and then whether to go on.
pub fn xxh3_128_of_file(path: &Path, check: impl Fn() -> Result<()>) -> Result<String> {
    let mut file = open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(format!("{:032x}", hasher.digest128())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(Kind::Input, path, &error)),
        }
    }
}

/// A buffered reader of a shard, for the Arrow library.
pub fn open_shard(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| Error::io(Kind::Dataset, path, &error))?;
    Ok(BufReader::with_capacity(BUFFER, file))
}

/// The format of a file by its suffix (before `.gz`), else by its first character.
pub fn guess_format(path: &Path) -> Result<Format> {
    let stem = if is_gzip(path) { path.with_extension("") } else { path.to_owned() };
    let suffix = stem.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let first = first_character(path)?;
    match (suffix.as_str(), first) {
        ("json" | "jsonl" | "ndjson", Some(b'[')) => {
            Err(Error::input("is a JSON array, not JSON Lines").remedy("write one object a line: jq -c '.[]'"))
        }
        ("parquet", _) => Err(Error::input("Parquet is not read yet").remedy("export it as JSON Lines")),
        ("csv", _) => Err(Error::input("quoted CSV is not read yet")
            .remedy("export it as TSV or JSON Lines; if it is raw TSV, say format = \"tsv\"")),
        ("tsv" | "tab", _) => Ok(Format::Tsv),
        ("txt" | "text", _) => Ok(Format::Text),
        ("json" | "jsonl" | "ndjson", _) | (_, Some(b'{')) => Ok(Format::Jsonl),
        _ => Err(Error::config("its format cannot be guessed")
            .remedy("say format = \"jsonl\", \"tsv\" or \"text\" in its source")),
    }
}

/// The first character of a file that is not white space.
fn first_character(path: &Path) -> Result<Option<u8>> {
    let mut start = Vec::new();
    open_content(path, 0)?.take(4096).read_to_end(&mut start).map_err(|error| unreadable(path, 0, &error))?;
    let start = start.strip_prefix(BOM).unwrap_or(&start);
    Ok(start.iter().copied().find(|byte| !byte.is_ascii_whitespace()))
}

/// The line, from 1, that the byte `offset` of the decompressed input lies in.
pub fn line_at(path: &Path, offset: u64) -> Result<u64> {
    let mut reader = open_content(path, 0)?.take(offset);
    let mut newlines = 0;
    loop {
        let chunk = reader.fill_buf().map_err(|error| unreadable(path, 0, &error))?;
        if chunk.is_empty() {
            return Ok(1 + newlines);
        }
        newlines += memchr::memchr_iter(b'\n', chunk).count() as u64;
        let len = chunk.len();
        reader.consume(len);
    }
}
