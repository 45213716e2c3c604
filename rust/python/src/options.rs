//! Converts `sabiprep.PackOptions` to the options of the core.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use sabiprep::plan::{HubFiles, PackOptions};

/// The files of the Hugging Face Hub by pattern: local path and name.
pub type Hub = BTreeMap<String, Vec<(PathBuf, String)>>;

/// Returns files of the Hugging Face Hub for the core.
pub fn hub_files(hub: Option<Hub>) -> HubFiles {
    HubFiles::new(hub.unwrap_or_default())
}

/// Makes `Options`, its conversion and `NAMES` from one list. The conversion names every field, so
/// a field that the core has and the list has not is a compile error.
macro_rules! options {
    ($($name:ident: $type:ty),* $(,)?) => {
        /// A `sabiprep.PackOptions`, read attribute by attribute.
        #[derive(FromPyObject)]
        pub struct Options {
            $($name: $type),*
        }

        impl Options {
            /// Returns the options of the core, with the files of the Hugging Face Hub.
            pub fn with_hub(self, hub: Option<Hub>) -> PackOptions {
                let (Self { $($name),* }, hub) = (self, hub_files(hub));
                PackOptions { $($name,)* hub }
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
    strict: bool,
    overwrite: bool,
    resume: bool,
    keep_spool: bool,
    reuse: Option<PathBuf>,
}
