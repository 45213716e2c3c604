//! Reads any bytes in every way that a format can be read, and checks what must hold of any file.
//!
//! The tests here give it made-up files; the targets of `fuzz/` run it for as long as one likes.

use std::path::Path;
use std::sync::Arc;

use super::format::{FormatName, FormatOptions, TextUnit, guess};
use super::json::Value;
use super::record::{Record, Records};
use super::request::{Request, SideFile};
use super::slots::{FieldTree, Slots};
use crate::context::Context;
use crate::monitor::Monitor;
use crate::schema::RecordId;
use crate::storage::Memory;

/// The field whose text is asked for.
const FIELD: &str = "a";

/// Reads `content` as a file of the format called `format`, and gives the name of the file `suffix`
/// too: `.gz` and the like are decompressed. Returns the number of records, over all ways of
/// reading.
///
/// # Panics
/// If what must hold of any file does not: offsets ascend, and a record has the same text whichever
/// way it is read.
#[must_use]
pub fn read_all(format: &str, content: &[u8], suffix: &str) -> usize {
    let path = &format!("a{suffix}");
    // The other side of parallel text.
    let other = &content[content.len() / 2..];
    let storage = &Memory::new([(path.as_str(), content), ("b", other)]);
    let context = &Context { threads: 1, monitor: &Monitor::default(), storage };
    let path = Path::new(path);
    let sides = [("a", path), ("b", Path::new("b"))];
    let sides = &sides.map(|(field, path)| SideFile { field, path, name: field });
    let format = FormatName::find(format).expect("fuzz targets name formats of the table");
    let all = ways();
    let count = |options: &FormatOptions| {
        let request = Request { sides, ..Request::all(path, options, context) };
        let slow = read(format, &request);
        // The fast path gives the same records.
        let mut tree = FieldTree::new(None);
        let slot = tree.slot_of(&[FIELD.to_owned()]);
        assert_eq!(slot, Some(0), "the first slot of a tree");
        let tree = Arc::new(tree);
        let fast = read(format, &Request { wanted: Some(&tree), ..request.clone() });
        // Of files of columns, the fault of a column is seen by those who read it.
        if format.get().is_text() || slow.is_whole && fast.is_whole {
            assert_eq!(slow.offsets, fast.offsets, "{format}");
        }
        for (slow, fast) in slow.texts.iter().zip(&fast.texts) {
            if let (Some(slow), Some(fast)) = (slow, fast) {
                assert_eq!(slow, fast, "{format}");
            }
        }
        if let Some(&last) = slow.offsets.last() {
            // A place may not be found, but it is asked for without harm.
            let _ = format.get().locate(&request, last);
            let _ = format.get().places(&request, &slow.offsets);
        }
        slow.offsets.len()
    };
    let _ = guess(storage, path, &FormatOptions::default());
    let _ = format.get().stated_records(path, context);
    all.iter().map(count).sum()
}

/// Returns the options under which each format is read; a format passes over those of others.
fn ways() -> Vec<FormatOptions> {
    let plain = FormatOptions::default;
    let records = |path: &str| FormatOptions { records: Some(path.to_owned()), ..plain() };
    vec![
        plain(),
        FormatOptions { unit: Some(TextUnit::Paragraph), ..plain() },
        FormatOptions { unit: Some(TextUnit::File), ..plain() },
        FormatOptions { delimiter: Some("\t".to_owned()), ..plain() },
        FormatOptions { literals: Some(vec![FIELD.to_owned()]), ..plain() },
        records("a[]"),
        records("a.b[].a[]"),
    ]
}

/// The records of a file: their offsets, and the text of the field as far as it is one.
#[derive(Default)]
struct Seen {
    offsets: Vec<u64>,
    texts: Vec<Option<String>>,
    /// Whether the file was read to its end.
    is_whole: bool,
}

/// Reads the records of a file up to its first fault.
fn read(format: FormatName, request: &Request<'_>) -> Seen {
    let mut seen = Seen::default();
    let Ok(mut records) = Records::open(format, request, 0) else { return seen };
    loop {
        let record = match records.advance() {
            Ok(Some(record)) => record,
            Ok(None) => break seen.is_whole = true,
            Err(_) => break,
        };
        let ascends = seen.offsets.last().is_none_or(|&last| last < record.offset);
        assert!(ascends, "{format}: two records at {}", record.offset);
        assert_eq!(RecordId::unpack(record.id).offset, record.offset);
        let text = text_of(&record, request);
        // A record apart from its file is the same, and may leave its text to the fields.
        let apart = record.detach();
        let text_apart = text_of(&apart.record(), request);
        assert!(text_apart.is_none() || text_apart == text, "{format}: {text_apart:?}");
        assert_eq!(record.fields(), apart.record().fields(), "{format}");
        let _ = record.is_doubtful();
        seen.offsets.push(record.offset);
        seen.texts.push(text);
    }
    seen
}

/// Returns the text of the field in a record: from its slot if there are slots, else from all
/// fields.
fn text_of(record: &Record<'_>, request: &Request<'_>) -> Option<String> {
    if let Some(tree) = request.wanted {
        let mut slots = Slots::default();
        return record.fill(tree, &mut slots).then(|| slots[0].take()).flatten().map(Into::into);
    }
    match record.fields().ok()?.swap_remove(FIELD) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow_array::{Int64Array, RecordBatch, StringArray};
    use flate2::write::GzEncoder;
    use parquet::arrow::ArrowWriter;
    use proptest::prelude::*;

    use super::*;

    /// Returns some rows.
    fn rows() -> RecordBatch {
        let texts = StringArray::from(vec![Some("ọ̀rọ̀"), None, Some("two"), Some("three")]);
        let numbers = Int64Array::from(vec![1, 2, 3, 4]);
        RecordBatch::try_from_iter([
            (FIELD, Arc::new(texts) as arrow_array::ArrayRef),
            ("n", Arc::new(numbers)),
        ])
        .unwrap()
    }

    /// Returns a sound file of each format, with the suffix of its name.
    fn sound_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
        let rows = rows();
        let mut parquet = ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
        parquet.write(&rows).unwrap();
        let parquet = parquet.into_inner().unwrap();
        let mut file = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &rows.schema()).unwrap();
        file.write(&rows).unwrap();
        let mut stream =
            arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
        stream.write(&rows).unwrap();
        let lines = b"{\"a\": \"one\", \"n\": 1}\n{\"a\": \"\\u1ecd\"}\n".to_vec();
        let packed = |kind: &str| {
            let mut out = Vec::new();
            match kind {
                ".gz" => {
                    let mut writer = GzEncoder::new(&mut out, flate2::Compression::fast());
                    writer.write_all(&lines).unwrap();
                    writer.finish().unwrap();
                }
                ".bz2" => {
                    let level = bzip2::Compression::fast();
                    let mut writer = bzip2::write::BzEncoder::new(&mut out, level);
                    writer.write_all(&lines).unwrap();
                    writer.finish().unwrap();
                }
                ".xz" => {
                    let mut writer = liblzma::write::XzEncoder::new(&mut out, 0);
                    writer.write_all(&lines).unwrap();
                    writer.finish().unwrap();
                }
                _ => out = zstd::encode_all(lines.as_slice(), 1).unwrap(),
            }
            out
        };
        let mut files = vec![
            ("jsonl", lines.clone(), ""),
            ("json", b"[{\"a\": \"x\"}, {\"a\": [1]},\n{\"a\": \"z\"}]".to_vec(), ""),
            ("json", b"{\"a\": [{\"b\": [{\"a\": [{\"a\": \"x\"}]}], \"a\": \"y\"}]}".to_vec(), ""),
            ("tsv", b"a\tb\nx\t\"y\n\"x\"\t\"\"\n".to_vec(), ""),
            ("csv", b"a,b\n\"x \"\"y\"\"\",z\nx,\"1\n2\"\n".to_vec(), ""),
            ("conll", b"-DOCSTART- O\n\na B-X\nb I-X\n\n# c\nd O\n".to_vec(), ""),
            ("text", b"one\n\ntwo\nthree\n".to_vec(), ""),
            ("parallel", b"one\n\ntwo\nthree\n".to_vec(), ""),
            ("parquet", parquet, ""),
            ("arrow", file.into_inner().unwrap(), ""),
            ("arrow", stream.into_inner().unwrap(), ""),
        ];
        files.extend([".gz", ".bz2", ".xz", ".zst"].map(|kind| ("jsonl", packed(kind), kind)));
        files
    }

    #[test]
    fn sound_files_of_every_format_have_records() {
        let files = sound_files();
        for name in FormatName::all() {
            let mut of_format = files.iter().filter(|(format, ..)| format == name);
            let (format, content, suffix) = of_format.next().expect("a file of each format");
            assert!(read_all(format, content, suffix) > 0 || *name == "parallel", "{name}");
        }
        for (format, content, suffix) in files.iter().filter(|(.., suffix)| !suffix.is_empty()) {
            assert_eq!(read_all(format, content, suffix), read_all(format, &files[0].1, ""));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_for_any_format(
            text in "(\\{|\\}|\\[|\\]|\"a\":|\"b\":|\"|,|:|1|\n|\r|\t|a|O|B-X| |# |'|\\\\|NaN|\u{feff}){0,40}",
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            suffix in prop::sample::select(vec!["", "", "", ".gz", ".zst", ".bz2", ".xz", ".zip"]),
        ) {
            for format in FormatName::all() {
                let _ = read_all(format, text.as_bytes(), "");
                let _ = read_all(format, &bytes, suffix);
                let _ = read_all(format, format!("{{\"a\":[{{\"a\":{text}").as_bytes(), "");
            }
        }

        #[test]
        fn damaged_files_of_any_format_do_no_harm(
            nth in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
            more in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let files = sound_files();
            let (format, mut content, suffix) = files[nth.index(files.len())].clone();
            for (place, byte) in changes {
                let place = place.index(content.len());
                content[place] = byte;
            }
            if let Some(cut) = cut {
                content.truncate(cut.index(content.len() + 1));
            }
            content.extend(more);
            let _ = read_all(format, &content, suffix);
        }
    }
}
