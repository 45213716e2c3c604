//! The table of compressions: by which suffix and which first bytes each is known, how its content
//! is read, and which command tests a file. A new compression is one line of the table.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::StoredFile;
use super::members::{Member, Members};
use super::stored::Stored;
use super::zip;
use crate::error::{Error, ErrorKind, Fault};

/// Returns whether a compressed file begins with these bytes, ten of them or all that there are.
pub(super) type Begins = fn(&[u8]) -> bool;

/// Opens a stored file of some size in bytes.
type Open = fn(&'static Compression, Box<dyn StoredFile>, u64) -> io::Result<Content>;

/// A compression of files.
pub(crate) struct Compression {
    /// The name in sentences.
    pub(crate) name: &'static str,
    /// The suffix of its files, in lower case.
    pub(crate) suffix: &'static str,
    begins: Begins,
    open: Open,
    /// The command that tells whether a file is whole.
    test: &'static str,
    /// The command that unpacks a file.
    pub(crate) unpack: &'static str,
}

/// The decompressed content of a file.
pub(super) struct Content {
    pub(super) reader: Box<dyn Read + Send>,
    /// The name under which the file holds it, if it has one.
    pub(super) name: Option<String>,
}

/// A stored file, no further than its size when it was opened.
type Bounded = io::Take<Box<dyn StoredFile>>;

type Gzip = GzDecoder<Stored<Bounded>>;
type Zstd = ZstdDecoder<'static, Stored<Bounded>>;
type Bzip2 = BzDecoder<Stored<Bounded>>;
type Xz = XzDecoder<Stored<Bounded>>;

/// Every compression: its name, suffix, start and reader, and the commands that test and unpack.
static COMPRESSIONS: [Compression; 5] = [
    known("gzip", "gz", is_gzip, open::<Gzip>, "gzip -t", "gzip -dk"),
    known("zstd", "zst", is_zstd, open::<Zstd>, "zstd -t", "zstd -d"),
    known("bzip2", "bz2", is_bzip2, open::<Bzip2>, "bzip2 -t", "bzip2 -dk"),
    known("xz", "xz", is_xz, open::<Xz>, "xz -t", "xz -dk"),
    known("zip", "zip", is_zip, |_, file, size| zip::open(file, size), "unzip -t", "unzip"),
];

/// Returns a line of the table.
const fn known(
    name: &'static str,
    suffix: &'static str,
    begins: Begins,
    open: Open,
    test: &'static str,
    unpack: &'static str,
) -> Compression {
    Compression { name, suffix, begins, open, test, unpack }
}

impl Compression {
    /// Returns the compression of a file, by its suffix.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Option<&'static Self> {
        let suffix = path.extension()?;
        COMPRESSIONS.iter().find(|known| suffix.eq_ignore_ascii_case(known.suffix))
    }

    /// Returns the compression of a file that begins with these bytes.
    #[must_use]
    pub(crate) fn by_start(stored: &[u8]) -> Option<&'static Self> {
        COMPRESSIONS.iter().find(|known| (known.begins)(stored))
    }

    /// Returns the suffixes of all compressions, as a sentence lists them.
    #[must_use]
    pub(crate) fn suffixes() -> String {
        let suffixes = COMPRESSIONS.each_ref().map(|known| format!(".{}", known.suffix));
        let (last, others) = suffixes.split_last().expect("the table is not empty");
        format!("{} and {last}", others.join(", "))
    }

    /// Opens the content of a file of `size` bytes.
    pub(super) fn open(&'static self, file: Box<dyn StoredFile>, size: u64) -> io::Result<Content> {
        (self.open)(self, file, size)
    }
}

/// Returns the content of the members of a file.
#[expect(clippy::unnecessary_wraps, reason = "archives are opened with errors")]
fn open<M: Member<Bounded> + Send + 'static>(
    compression: &'static Compression,
    file: Box<dyn StoredFile>,
    size: u64,
) -> io::Result<Content> {
    let Compression { name, begins, .. } = compression;
    let members = Members::<_, M>::new(file.take(size), name, *begins);
    Ok(Content { reader: Box::new(members), name: None })
}

/// Returns whether a file begins like gzip.
fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(b"\x1f\x8b")
}

/// Returns whether a file begins like zstd: with a frame, or with one that is passed over.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xb5\x2f\xfd")
        || matches!(start, [first, b'\x2a', b'\x4d', b'\x18', ..] if first & 0xf0 == 0x50)
}

/// Returns whether a file begins like bzip2. Its own three letters could begin a text; the block or
/// the end that follows them could not.
fn is_bzip2(start: &[u8]) -> bool {
    let block = start.get(4..10);
    start.starts_with(b"BZh")
        && (block == Some(b"1AY&SY") || block == Some(b"\x17\x72\x45\x38\x50\x90"))
}

/// Returns whether a file begins like xz.
fn is_xz(start: &[u8]) -> bool {
    start.starts_with(b"\xfd7zXZ\0")
}

/// Returns whether a file begins like a zip archive, of some files or none.
fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// A fault of a file that an `io::Error` carries, with its remedy. `FILE` in the remedy stands for
/// the name of the file.
#[derive(Debug, Clone)]
pub(crate) struct Flaw {
    what: String,
    remedy: String,
}

impl Flaw {
    /// Returns a fault.
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Flaw {}

impl From<Flaw> for io::Error {
    fn from(flaw: Flaw) -> Self {
        Self::new(io::ErrorKind::InvalidData, flaw)
    }
}

/// Returns the error of a file whose content cannot be read on from `offset`.
#[must_use]
pub(crate) fn unreadable(path: &Path, offset: u64, error: &io::Error) -> Error {
    let file = path.display().to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(Flaw { what, remedy }) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return Error::input(what).file(file).remedy(remedy.replace("FILE", &name));
    }
    let Some(Compression { name: kind, test, .. }) = Compression::of(path)
        .filter(|_| error.raw_os_error().is_none() && Fault::of(error).is_none())
    else {
        return Error::io(ErrorKind::Input, path, error);
    };
    let what = if error.kind() == io::ErrorKind::UnexpectedEof {
        format!("is cut off: its {kind} breaks off after {offset} bytes of content")
    } else {
        format!("damaged {kind} after {offset} bytes of content: {error}")
    };
    Error::input(what).file(file).remedy(format!(
        "fetch or compress the file again; `{test} {name}` tells whether it is whole"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Result;
    use crate::storage::LOCAL;

    /// Compresses a content, once for each suffix but that of zip.
    fn packed(content: &[u8]) -> [(&'static str, Vec<u8>); 4] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        gzip.write_all(content).unwrap();
        bzip2.write_all(content).unwrap();
        xz.write_all(content).unwrap();
        [
            ("gz", gzip.finish().unwrap()),
            ("zst", zstd::encode_all(content, 1).unwrap()),
            ("bz2", bzip2.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
        ]
    }

    /// Makes a zip archive of some entries.
    fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = ::zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, content) in entries {
            archive.start_file(*name, ::zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    /// Reads a file that holds `stored`, in pieces of `piece` bytes.
    fn read(suffix: &str, stored: &[u8], piece: usize) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("a.{suffix}"));
        LOCAL.write_file(&path, stored).unwrap();
        let mut reader = LOCAL.open_content(&path, 0)?;
        let (mut content, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(content),
                Ok(len) => content.extend_from_slice(&buffer[..len]),
                Err(error) => return Err(unreadable(&path, content.len() as u64, &error)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn members_and_zeros_between_and_after_them_are_read_as_one_content(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
            zeros in 0..9_usize,
            piece in 1..500_usize,
        ) {
            let packed: Vec<_> = contents.iter().map(|content| packed(content)).collect();
            for nth in 0..4 {
                let mut stored = Vec::new();
                for member in &packed {
                    stored.extend_from_slice(&member[nth].1);
                    stored.resize(stored.len() + zeros, 0);
                }
                let content = read(packed[0][nth].0, &stored, piece).unwrap();
                prop_assert_eq!(content, contents.concat());
            }
        }

        #[test]
        fn a_file_that_is_cut_off_or_damaged_is_never_read_to_its_end(
            content in prop::collection::vec(any::<u8>(), 1..300),
            place in any::<prop::sample::Index>(),
        ) {
            let mut files = packed(&content).to_vec();
            files.push(("zip", zipped(&[("a.txt", &content)])));
            for (suffix, stored) in files {
                let error = read(suffix, &stored[..place.index(stored.len())], 64).unwrap_err();
                prop_assert!(error.remedy.is_some() && error.file.is_some(), "{error}");
                // A byte that is changed is found by a checksum, or changes nothing.
                let mut changed = stored.clone();
                changed[place.index(stored.len())] ^= 0x20;
                if let Ok(read) = read(suffix, &changed, 64) {
                    // Frames of zstd have no checksum unless they are asked to.
                    prop_assert!(suffix == "zst" || read == content, "{suffix}");
                }
            }
        }

        #[test]
        fn any_bytes_end_in_content_or_in_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            for known in &COMPRESSIONS {
                let stored = packed(b"one").into_iter().find(|(suffix, _)| *suffix == known.suffix);
                let begun = stored.map_or(b"PK\x03\x04".to_vec(), |(_, stored)| stored);
                for stored in [bytes.clone(), [&begun[..begun.len().min(10)], &bytes].concat()] {
                    let _ = read(known.suffix, &stored, 64);
                }
            }
        }
    }

    #[test]
    fn what_follows_the_last_member_is_named_by_its_place() {
        for (suffix, stored) in packed(b"one") {
            let longer = [&stored[..], b"\0\0\0\0garbage"].concat();
            let error = read(suffix, &longer, 64).unwrap_err();
            let place = stored.len() + 4;
            assert!(error.message.contains(&format!("from its byte {} on", place + 1)), "{error}");
            assert!(error.remedy.unwrap().contains(&format!("head -c {place} a.{suffix} > NEW")));
            let error = read(suffix, b"one\n", 64).unwrap_err();
            assert!(error.message.contains("though its name says so"), "{error}");
            assert!(read(suffix, b"", 64).unwrap_err().message.contains("is empty"));
        }
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused_however_small_the_file() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(30).unwrap();
        encoder.write_all(b"one").unwrap();
        let error = read("zst", &encoder.finish().unwrap(), 64).unwrap_err();
        assert!(error.message.contains("more than 128 MiB"), "{error}");
        assert_eq!(
            error.remedy.as_deref(),
            Some("unpack it: zstd -d --long=31 a.zst; then name what comes of it")
        );
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(1 << 28);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let check = liblzma::stream::Check::Crc32;
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(b"one").unwrap();
        let error = read("xz", &encoder.finish().unwrap(), 64).unwrap_err();
        assert!(error.message.contains("more than 128 MiB"), "{error}");
    }

    #[test]
    fn a_frame_of_zstd_that_is_to_be_passed_over_is() {
        let frame = zstd::encode_all(&b"one"[..], 1).unwrap();
        let skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
        let stored = [&skippable[..], &frame, skippable, &frame].concat();
        assert_eq!(read("zst", &stored, 64).unwrap(), b"oneone");
    }

    #[test]
    fn one_file_of_an_archive_is_read_and_no_other_archive_is() {
        let stored = zipped(&[("__MACOSX/._a", b"x"), ("d/a.jsonl", b"one"), (".DS_Store", b"x")]);
        assert_eq!(read("zip", &stored, 2).unwrap(), b"one");
        let several: Vec<String> = (0..9).map(|nth| format!("{nth}.txt")).collect();
        let entries: Vec<(&str, &[u8])> =
            several.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        let error = read("zip", &zipped(&entries), 64).unwrap_err();
        assert!(error.message.contains("9 files: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"));
        assert!(error.remedy.unwrap().contains("unzip a.zip"));
        assert!(read("zip", &zipped(&[]), 64).unwrap_err().message.contains("without a file"));
        let names: Vec<String> =
            (0..40_000).map(|nth| format!("{}{nth}", "x".repeat(60))).collect();
        let entries: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let error = read("zip", &zipped(&entries), 64).unwrap_err();
        assert!(error.message.contains("more files than are looked through"), "{error}");
    }

    #[test]
    fn a_start_tells_a_compression_from_text() {
        for (suffix, stored) in packed(b"").into_iter().chain(packed(b"one")) {
            assert_eq!(Compression::by_start(&stored).unwrap().suffix, suffix);
        }
        for text in [&b"BZh is a name\n"[..], b"PKzip\n", b"", b"P", b"\x1f"] {
            assert!(Compression::by_start(text).is_none());
        }
    }
}
