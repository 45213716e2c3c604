//! The table of formats. A format is one file here and one line of the table.

mod arrow;
mod conll;
mod csv;
mod json_array;
mod jsonl;
mod nested;
mod parallel;
mod parquet;
mod spans;
mod text;
mod text_unit;
mod tsv;

use super::format::Format;
pub(super) use nested::{Step, steps_of};

/// Every format, in the order in which messages name them. If two formats are equally likely, the
/// first is taken.
pub(super) static FORMATS: [&dyn Format; 9] = [
    &json_array::JsonArray,
    &jsonl::Jsonl,
    &tsv::Tsv,
    &csv::Csv,
    &conll::Conll,
    &text::Text,
    &parallel::Parallel,
    &parquet::Parquet,
    &arrow::Arrow,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::monitor::Monitor;
    use crate::read::format::{FormatName, FormatOptions, Request, SideFile, TextUnit};
    use crate::read::record::Records;
    use proptest::prelude::*;

    /// Reads every record of some files in every way. Returns the number of records.
    fn read_all(content: &[u8], other: &[u8]) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        crate::storage::LOCAL.write_file(&paths[0], content).unwrap();
        crate::storage::LOCAL.write_file(&paths[1], other).unwrap();
        let context =
            &Context { threads: 1, monitor: &Monitor::default(), storage: crate::storage::LOCAL };
        let sides = [("x", &paths[0]), ("y", &paths[1])].map(|(field, path)| SideFile {
            field,
            path,
            name: field,
        });
        let records = |path: &str| FormatOptions {
            records: Some(path.to_owned()),
            ..FormatOptions::default()
        };
        let all = [
            FormatOptions::default(),
            FormatOptions { unit: Some(TextUnit::Paragraph), ..FormatOptions::default() },
            FormatOptions { unit: Some(TextUnit::File), ..FormatOptions::default() },
            records("a[]"),
            records("a.b[].a[]"),
        ];
        let mut count = 0;
        for (format, options) in
            FORMATS.iter().flat_map(|format| all.iter().map(move |o| (format, o)))
        {
            let options =
                &FormatOptions { literals: Some(vec!["a".to_owned()]), ..options.clone() };
            let path = &paths[0];
            let (range, sides) = (0..u64::MAX, &sides[..]);
            let request = Request { path, range, options, wanted: None, sides, context };
            let format = FormatName::find(format.name()).unwrap();
            let Ok(mut records) = Records::open(format, &request, 0) else { continue };
            let mut last = None;
            while let Ok(Some(record)) = records.advance() {
                // Each record has an offset of its own, in the order of the file.
                assert!(last < Some(record.offset), "{format}: {content:?}");
                last = Some(record.offset);
                let _ = (record.fields(), record.is_doubtful());
                count += 1;
            }
        }
        count
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_for_any_format(
            text in "(\\{|\\}|\\[|\\]|\"a\":|\"b\":|\"|,|:|1|\n|\t|a|O|B-X| |# |'|\\\\|NaN){0,40}",
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            other in "[a\n]{0,20}",
        ) {
            read_all(text.as_bytes(), other.as_bytes());
            read_all(&bytes, other.as_bytes());
            read_all(format!("{{\"a\":[{{\"a\":{text}").as_bytes(), &bytes);
        }
    }

    #[test]
    fn the_records_of_an_ordinary_file_are_read() {
        let json = br#"{"a": [{"a": "[1]"}, {"a": "x"}]}"#;
        assert!(read_all(json, b"one") > 10);
    }
}
