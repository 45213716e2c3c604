//! Reading: input splits become records with their place in the (decompressed) input.

mod lines;
mod record;
mod split;

pub use record::{Record, Records, parse_json};
pub use split::{Split, splits};
