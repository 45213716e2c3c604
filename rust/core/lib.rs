//! sabiprep's core: from raw multitask corpora to packed rows with exact loss masks.
//!
//! The data goes `read → segment → tokenize → spool ║ settle ║ pack → mask → write`; `pipeline`
//! alone knows them all. See ARCHITECTURE.md.

pub mod choice;
pub mod commands;
pub mod contamination;
pub mod context;
pub mod error;
pub mod job;
pub mod mask;
pub mod monitor;
pub mod notes;
pub mod pack;
pub mod panics;
pub mod pipeline;
pub mod plan;
pub mod read;
pub mod report;
pub mod schema;
pub mod segment;
pub mod settle;
pub mod spool;
pub mod storage;
pub mod tasks;
pub mod tokenize;
pub mod verify;
pub mod write;
