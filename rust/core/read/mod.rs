//! Reading: files become records, each with its place in the (decompressed) content of its file.
//!
//! Takes a file, its format and a range; gives [`Records`]. A reader returns all fields of a
//! record, or fills the slots of the fields that templates show. A format is a file in `formats/`
//! and a line of the table there; no other module asks for the format of a file.

mod columns;
mod content;
mod format;
mod formats;
mod head;
mod json;
mod json_slots;
mod line_reader;
mod lines;
mod record;
mod slots;
mod split;

pub(crate) use format::{FormatName, FormatOptions, Request, guess, refuse_other_content};
pub(crate) use head::small_text;
pub use json::Fields;
pub(crate) use json::{Number, Value};
pub use record::Record;
pub(crate) use record::{Records, parse_json};
pub(crate) use slots::{FieldTree, Slots};
pub(crate) use split::{InputSplit, ranges};
