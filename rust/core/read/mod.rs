//! Reading: files become records, each with its place in the (decompressed) content of its file.
//!
//! Takes a file, its format and a range; gives [`Records`], whose fields are read all together, or
//! into the slots of those that templates show. A format is a file in `formats/` and a line of the
//! table there; nothing elsewhere asks which format a file has.

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

pub(crate) use format::{FormatName, FormatOptions};
pub(crate) use format::{Request, guess, refuse_other_content};
pub(crate) use head::small_text;
pub use json::Fields;
pub(crate) use json::{Number, Value};
pub use record::Record;
pub(crate) use record::{Records, parse_json};
pub(crate) use slots::{FieldTree, Slots};
pub(crate) use split::{InputSplit, ranges};
