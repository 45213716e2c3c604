//! Being moved.
mod looks;
use crate::error::{Error, ErrorKind, Result};
pub use crate::storage::{BOM, is_gzip, unreadable};
use crate::storage::{Local, Storage};
pub use looks::{guess_format, refuse_what_is_no_text};
use std::ffi::OsString;
use std::io;
use std::io::BufRead;
use std::path::Path;
const LOCAL: &dyn Storage = &Local;
fn open(path: &Path) -> Result<(Box<dyn crate::storage::StoredFile>, u64)> {
    LOCAL.open_regular(ErrorKind::Input, path)
}
pub fn open_content(path: &Path, start: u64) -> Result<Box<dyn BufRead + Send>> {
    LOCAL.open_content(path, start)
}
pub fn is_regular(path: &Path) -> Result<bool> {
    LOCAL.is_regular(path)
}
pub fn list(path: &Path) -> io::Result<Vec<OsString>> {
    LOCAL.list(path)
}
pub fn names_in(path: &Path) -> Vec<String> {
    LOCAL.names_in(path)
}
pub fn file_size(path: &Path) -> Result<u64> {
    LOCAL.file_size(path)
}
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    LOCAL.is_same_file(a, b)
}
pub fn whole_bytes(path: &Path) -> Result<Vec<u8>> {
    LOCAL.whole_bytes(path)
}
pub fn whole_text(path: &Path) -> Result<String> {
    LOCAL.whole_text(path)
}
pub fn small_bytes(path: &Path) -> Result<Vec<u8>> {
    LOCAL.small_bytes(path)
}
pub fn line_at_unless(path: &Path, offset: u64, check: impl Fn() -> Result<()>) -> Result<u64> {
    LOCAL.line_at(path, offset, check)
}
pub fn small_text(storage: &dyn Storage, path: &Path) -> Result<String> {
    String::from_utf8(storage.small_bytes(path)?).map_err(|error| {
        let otherwise = || Error::input("is not UTF-8");
        looks::other_encoding(error.as_bytes())
            .unwrap_or_else(otherwise)
            .file(path.display().to_string())
    })
}
