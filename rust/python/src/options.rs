//! Converts `sabiprep.PackOptions` to the options of the core.

use std::path::PathBuf;

use pyo3::prelude::*;
use sabiprep::plan::PackOptions;

/// Makes `Options`, its conversion and `NAMES` from one list. The conversion names every field, so
/// a field that the core has and the list has not is a compile error.
macro_rules! options {
    ($($name:ident: $type:ty),* $(,)?) => {
        /// A `sabiprep.PackOptions`, read attribute by attribute.
        #[derive(FromPyObject)]
        pub struct Options {
            $($name: $type),*
        }

        impl From<Options> for PackOptions {
            fn from(options: Options) -> Self {
                let Options { $($name),* } = options;
                Self { $($name),* }
            }
        }

        /// The names of the core's options, in order.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

options! {
    seq_len: Option<usize>,
    tokenizer: Option<PathBuf>,
    seed: Option<u64>,
    threads: usize,
    split_bytes: Option<u64>,
    spool_bytes: u64,
    overwrite: bool,
    resume: bool,
    keep_spool: bool,
    reuse: Option<PathBuf>,
}
