//! Commands beside packing. They are built on the pipeline, which does not know them.

mod derive;
mod explain;
mod init;
mod survey;
mod train_tokenizer;

pub use derive::{Against, verify_against};
pub use explain::{Explanation, explain};
pub use init::init;
pub use survey::{Survey, survey};
pub use train_tokenizer::{train_tokenizer, train_tokenizer_with};
