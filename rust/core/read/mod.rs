//! Reading: input splits become records with their place in the (decompressed) input.

mod json;
mod lines;
mod record;
mod split;

pub use json::{Fields, Number, Value};
pub use record::{Layout, Record, Records, parse_json, parse_line};
pub use split::{InputSplit, splits};
