//! Commands: what is asked beside packing. They stand on the pipeline; it does not know them.

mod derive;
mod explain;
mod train_tokenizer;

pub use derive::{Against, verify_against};
pub use explain::{Explanation, explain};
pub use train_tokenizer::train_tokenizer;
