//! Reading: files become records, each with its place in its file: the
//! offset of its first byte in the (decompressed) content, or the number of its row.
//!
//! Takes a file, its format and a range; gives [`Records`]. A reader returns all fields of a
//! record, or fills the slots of the fields that templates show. A format is a file in `formats/`
//! and a line of the table there; no other module asks for the format of a file.

mod changed;
mod class_labels;
mod columnar;
mod columns;
mod content;
mod decoded;
mod dialect;
mod encoding;
mod field_path;
mod format;
mod formats;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod head;
mod json;
mod json_parser;
mod json_slots;
mod line_reader;
mod lines;
mod literals;
mod needed;
mod python_literal;
mod record;
mod request;
mod sample;
mod slots;
mod split;
mod view;

pub(crate) use class_labels::{ClassLabels, class_labels, names_shown, resolve_labels};
pub(crate) use content::Found;
pub(crate) use dialect::{dialect_in_words, resolve_dialect};
pub(crate) use encoding::Encoding;
pub(crate) use field_path::field_path;
pub(crate) use format::{FormatName, FormatOptions, TextUnit, guess, refuse_other_content};
pub(crate) use head::{encoding_of, small_text};
pub use json::Fields;
pub(crate) use json::{Number, Value};
pub(crate) use lines::{MAX_LINE, count_lines};
pub(crate) use needed::Needed;
pub use record::Record;
pub(crate) use record::{DetachedRecord, Records, for_each_text, parse_json};
pub(crate) use request::{Request, SideFile};
pub(crate) use slots::{FieldTree, Slots};
pub(crate) use split::{InputSplit, Part, parts};
pub use view::Only;
pub(crate) use view::{Renames, renamed};
