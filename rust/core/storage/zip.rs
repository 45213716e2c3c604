//! Reads a zip archive that holds one file.
//!
//! The `zip` crate reads the directory at the archive's end, through a reader that gives it no more
//! bytes than the directory of some files takes. The file itself is read from its place, in a
//! stream, and held against the length and the checksum of the directory.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use ::zip::result::ZipError;
use ::zip::{CompressionMethod, ZipArchive};
use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::StoredFile;
use super::compression::{Content, Flaw};

/// The bytes that are read of an archive to find its directory and to read it: there is one file to
/// find. Ten thousand entries are some 1 MiB.
const MAX_DIRECTORY: u64 = 4 << 20;
/// The record at an archive's end, up to its comment: how it begins, and its bytes.
const END_MARK: [u8; 4] = *b"PK\x05\x06";
const END_RECORD: u64 = 22;
/// The files that an error lists.
const LISTED: usize = 5;
/// What to do about an archive that is not read as it is.
const UNPACK: &str = "unpack it: unzip FILE -d FOLDER; then name the files in the folder";

/// The place of the one file in an archive.
struct Entry {
    name: String,
    start: u64,
    stored: u64,
    size: u64,
    crc: u32,
    is_deflated: bool,
}

/// Opens the one file of an archive of `size` bytes.
pub(super) fn open(file: Box<dyn StoredFile>, size: u64) -> io::Result<Content> {
    if size == 0 {
        let what = "is empty, as no zip archive is";
        return Err(Flaw::new(what, "fetch or compress the file again").into());
    }
    let mut directory = Directory { file, left: MAX_DIRECTORY };
    let entry = match only_entry(&mut directory) {
        Err(_) if directory.left == 0 => {
            let what = "is a zip archive of more files than are looked through";
            return Err(Flaw::new(what, UNPACK).into());
        }
        entry => entry?,
    };
    let mut file = directory.file;
    file.seek(SeekFrom::Start(entry.start))?;
    let stored = BufReader::new(file.take(entry.stored));
    let reader: Box<dyn Read + Send> =
        if entry.is_deflated { Box::new(DeflateDecoder::new(stored)) } else { Box::new(stored) };
    let checked = Checked { reader, crc: Crc::new(), read: 0, entry: (entry.size, entry.crc) };
    Ok(Content { reader: Box::new(checked), name: Some(entry.name) })
}

/// Returns the place of the one file of an archive.
fn only_entry(directory: &mut Directory) -> io::Result<Entry> {
    let mut archive = ZipArchive::new(directory).map_err(explained)?;
    // The directory of the last of several archives lists its own files alone.
    if archive.offset() > 0 {
        return Err(damaged("other bytes come before the archive, such as another archive"));
    }
    let listed = archive.metadata();
    let mut names = Vec::new();
    let mut only = None;
    for index in 0..listed.len() {
        let member = listed.entry(index).map_err(explained)?;
        let name = member.name().map_err(explained)?.into_owned();
        // Folders, and what macOS adds beside each file.
        if !member.is_dir() && !name.starts_with("__MACOSX/") && !name.ends_with(".DS_Store") {
            only = Some((index, member));
            names.push(name);
        }
    }
    let (Some((index, member)), [name]) = (only, names.as_slice()) else {
        return Err(not_one(&names));
    };
    if listed.has_duplicate_names() {
        return Err(Flaw::new("is a zip archive that holds a file twice", UNPACK).into());
    }
    if member.encrypted() {
        return Err(Flaw::new("is an encrypted zip archive", UNPACK).into());
    }
    if member.is_symlink() {
        return Err(Flaw::new("is a zip archive of a link, not of a file", UNPACK).into());
    }
    let method = member.compression();
    if ![CompressionMethod::Deflated, CompressionMethod::Stored].contains(&method) {
        let what = format!("is a zip archive packed by the method {method}, which is not read");
        return Err(Flaw::new(what, UNPACK).into());
    }
    let start = archive.by_index_raw(index).map_err(explained)?.data_start();
    let comment = archive.comment().len() as i64;
    let directory = archive.into_inner();
    let mut end = [0; 4];
    directory.seek(SeekFrom::End(-(END_RECORD as i64) - comment))?;
    directory.read_exact(&mut end)?;
    if end != END_MARK {
        return Err(damaged("other bytes follow the archive"));
    }
    Ok(Entry {
        name: name.clone(),
        start: start.ok_or_else(|| damaged("its file has no place"))?,
        stored: member.compressed_size(),
        size: member.size(),
        crc: member.crc32(),
        is_deflated: method == CompressionMethod::Deflated,
    })
}

/// Returns the error of an archive of no file, or of several.
fn not_one(names: &[String]) -> io::Error {
    if names.is_empty() {
        let what = "is a zip archive without a file in it";
        return Flaw::new(what, "name the files that it was to hold").into();
    }
    let listed = names[..names.len().min(LISTED)].join(", ");
    let more = names.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = format!("is a zip archive of {} files: {listed}{rest}", names.len());
    Flaw::new(what, UNPACK).into()
}

/// Returns the error of an archive that breaks its format.
fn damaged(why: &str) -> io::Error {
    let remedy = "fetch or compress the file again; `unzip -t FILE` tells whether it is whole";
    Flaw::new(format!("damaged zip: {why}"), remedy).into()
}

/// Returns an error of the crate as one of the file.
fn explained(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            damaged("it is cut off, or is no zip")
        }
        ZipError::Io(error) => error,
        ZipError::InvalidArchive(why) => {
            damaged(&format!("it is cut off, or is no zip ({})", why.trim_end_matches('.')))
        }
        other => damaged(&other.to_string()),
    }
}

/// An archive whose directory is looked for, up to a number of bytes.
struct Directory {
    file: Box<dyn StoredFile>,
    left: u64,
}

impl Read for Directory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = (into.len() as u64).min(self.left) as usize;
        let len = self.file.read(&mut into[..most])?;
        self.left -= len as u64;
        Ok(len)
    }
}

impl Seek for Directory {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// The content of a file, held against what the directory says of it.
struct Checked {
    reader: Box<dyn Read + Send>,
    crc: Crc,
    read: u64,
    /// The length and the checksum of the content, as the directory has them.
    entry: (u64, u32),
}

impl Read for Checked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(into)?;
        self.crc.update(&into[..len]);
        self.read += len as u64;
        let (size, crc) = self.entry;
        // A bomb that gives more than it said is left where it passes its size.
        let is_wrong = self.read > size
            || len == 0 && !into.is_empty() && (self.read, self.crc.sum()) != (size, crc);
        if is_wrong {
            let why = format!("its file is not the {size} bytes that its directory says");
            return Err(damaged(&why));
        }
        Ok(len)
    }
}
