//! Files: every file the core reads is opened here, with `read`, never mapped, in bounded memory.
//!
//! Only regular files are read, and no further than their size: a FIFO would wait for ever,
//! `/dev/zero` never ends. The open descriptor is looked at, so that a path cannot change in
//! between. A leaf below the stages: it knows bytes, gzip and what a file looks like, nothing of
//! records.

#![expect(clippy::disallowed_methods, reason = "this is where files are opened for reading")]

mod looks;

use std::ffi::OsString;
use std::fs::{File, FileType, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use xxhash_rust::xxh3::Xxh3Default;

pub(crate) use looks::Head;

use crate::error::{Error, ErrorKind, Result};

const BUFFER: usize = 256 << 10;
/// The byte order mark some programs begin a text file with.
pub const BOM: &[u8] = "\u{feff}".as_bytes();

/// The largest file that is read whole: tokenizers of a million entries and manifests of a million
/// inputs are smaller.
const MAX_WHOLE: u64 = 512 << 20;
/// The largest file that people write by hand.
const MAX_SMALL: u64 = 64 << 20;

/// Opens a regular file, with its size; refuses whatever else `path` leads to, without waiting for
/// it.
fn open_as(kind: ErrorKind, path: &Path) -> Result<(File, u64)> {
    let failed = |error: io::Error| Error::io(kind, path, &error);
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NONBLOCK | libc::O_NOCTTY,
    );
    let mut file = options.open(path).map_err(failed)?;
    let size = regular_size(kind, path, &file.metadata().map_err(failed)?)?;
    if size == 0 && file.read(&mut [0]).map_err(failed)? > 0 {
        let what = "has content but no size, as files of /proc have";
        return Err(Error { kind, ..Error::input(what) }.file(path.display().to_string()).remedy(
            "copy what it holds to a regular file and name that, once nothing writes to it",
        ));
    }
    Ok((file, size))
}

fn open(path: &Path) -> Result<(File, u64)> {
    open_as(ErrorKind::Input, path)
}

/// The size of a regular file; anything else is refused by what it is.
fn regular_size(kind: ErrorKind, path: &Path, metadata: &Metadata) -> Result<u64> {
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    if metadata.is_dir() {
        return Err(Error::io(kind, path, &io::ErrorKind::IsADirectory.into()));
    }
    let what = format!("is {}, not a regular file", name_of(metadata.file_type()));
    Err(Error { kind, ..Error::input(what) }.file(path.display().to_string()).remedy(
        "name a regular file; what a program or a device gives has to be written to one first",
    ))
}

/// What a file is that is neither regular nor a folder.
fn name_of(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_symlink() { "a link" } else { "something else" }
}

/// Whether `path` leads to a regular file, rather than to a folder; anything else is refused, a
/// link to nowhere too.
pub fn is_regular(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(false),
        Ok(metadata) => regular_size(ErrorKind::Input, path, &metadata).map(|_| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            Err(Error::input("is a link that leads nowhere")
                .file(path.display().to_string())
                .remedy("remove the link, or put back the file that it names"))
        }
        Err(error) => Err(Error::io(ErrorKind::Input, path, &error)),
    }
}

/// Whether a file is gzip, by its suffix.
#[must_use]
pub fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gz"))
}

/// A reader of the file's content from `start`, decompressed if its suffix says so (then `start` is
/// 0).
pub fn open_content(path: &Path, start: u64) -> Result<Box<dyn BufRead + Send>> {
    let (mut file, size) = open(path)?;
    if is_gzip(path) {
        debug_assert_eq!(start, 0, "a compressed input is one split");
        return Ok(Box::new(BufReader::with_capacity(
            BUFFER,
            MultiGzDecoder::new(BufReader::new(file.take(size))),
        )));
    }
    file.seek(SeekFrom::Start(start)).map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, file.take(size.saturating_sub(start)))))
}

/// The error of a file whose content cannot be read on from `offset`.
#[must_use]
pub fn unreadable(path: &Path, offset: u64, error: &io::Error) -> Error {
    if !is_gzip(path) {
        return Error::io(ErrorKind::Input, path, error);
    }
    Error::input(format!("damaged gzip after {offset} bytes of content: {error}"))
        .file(path.display().to_string())
        .remedy("fetch or compress the file again; `gzip -t` tells whether it is whole")
}

/// The size in bytes of a regular file.
pub fn file_size(path: &Path) -> Result<u64> {
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
    regular_size(ErrorKind::Input, path, &metadata)
}

/// A file's size in bytes and when it was last changed, if its file system tells.
pub type Stamp = (u64, Option<std::time::SystemTime>);

/// The stamp of a file.
pub fn stamp(path: &Path) -> Result<Stamp> {
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// Whether two paths lead to one file.
#[must_use]
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A text file of ours, whole.
pub fn whole_text(path: &Path) -> Result<String> {
    text_of(path, whole_bytes(path)?)
}

/// A text file that somebody wrote, whole.
pub fn small_text(path: &Path) -> Result<String> {
    text_of(path, small_bytes(path)?)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let otherwise = || Error::input("is not UTF-8");
        looks::other_encoding(error.as_bytes())
            .unwrap_or_else(otherwise)
            .file(path.display().to_string())
    })
}

/// A file, whole, if it is no larger than any such file would be.
pub fn whole_bytes(path: &Path) -> Result<Vec<u8>> {
    bytes_up_to(path, MAX_WHOLE)
}

/// A file that somebody wrote, whole, if it is no larger than any such file would be.
pub fn small_bytes(path: &Path) -> Result<Vec<u8>> {
    bytes_up_to(path, MAX_SMALL)
}

fn bytes_up_to(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open(path)?;
    if size > most {
        return Err(Error::input(format!(
            "{} MiB: no such file is larger than {} MiB",
            size >> 20,
            most >> 20
        ))
        .file(path.display().to_string())
        .remedy("look at what it holds: it is not what its name says"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(size)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
    Ok(bytes)
}

/// The error of a file of ours that is not as it was written.
fn disturbed(path: &Path, error: &io::Error) -> Error {
    Error::io(ErrorKind::Dataset, path, error)
        .remedy("something changed the folder .work while it was in use")
}

/// `len` bytes of a file of ours, from `offset` on.
pub fn bytes_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
    let (mut file, size) = open_as(ErrorKind::Dataset, path)?;
    if offset.checked_add(len as u64).is_none_or(|end| end > size) {
        return Err(disturbed(path, &io::ErrorKind::UnexpectedEof.into()));
    }
    let mut bytes = vec![0; len];
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|error| disturbed(path, &error))
}

/// The xxh3-64 of ranges of a file of ours that follow each other from its start. `check` is asked
/// now and then whether to go on.
pub fn xxh3_64_of_ranges(
    path: &Path,
    ranges: &[Range<u64>],
    check: impl Fn() -> Result<()>,
) -> Result<Vec<u64>> {
    let (mut file, _) = open_as(ErrorKind::Dataset, path)?;
    let mut buffer = vec![0; BUFFER];
    let mut sums = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut hasher = Xxh3Default::new();
        let mut left = range.end - range.start;
        while left > 0 {
            check()?;
            let piece = &mut buffer[..left.min(BUFFER as u64) as usize];
            file.read_exact(piece).map_err(|error| disturbed(path, &error))?;
            hasher.update(piece);
            left -= piece.len() as u64;
        }
        sums.push(hasher.digest());
    }
    Ok(sums)
}

/// The names in a folder, sorted, as the file system has them.
pub fn list(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The names in a folder, sorted; none where it cannot be listed.
#[must_use]
pub fn names_in(folder: &Path) -> Vec<String> {
    let names = list(folder).unwrap_or_default();
    names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// The xxh3-128 of a file's bytes, in hexadecimal. `check` is asked now and then whether to go on.
pub fn xxh3_128_of_file(path: &Path, check: impl Fn() -> Result<()>) -> Result<String> {
    let (file, size) = open(path)?;
    let mut file = file.take(size);
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(format!("{:032x}", hasher.digest128())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(ErrorKind::Input, path, &error)),
        }
    }
}

/// A buffered reader of a shard, for the Arrow library.
pub fn open_shard(path: &Path) -> Result<BufReader<File>> {
    let (file, _) = open_as(ErrorKind::Dataset, path)?;
    Ok(BufReader::with_capacity(BUFFER, file))
}
