//! Writes the `corpus.toml` that is guessed from the files of a folder.

use std::io::ErrorKind::AlreadyExists;
use std::path::Path;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::{CONFIG_FILE, Guess, PackOptions};

/// Returns the text of a `corpus.toml` for the folder `corpus`, guessed from its files. With
/// `write`, also writes it there; one that is there already is replaced only by
/// `options.overwrite`.
pub fn init(
    corpus: &Path,
    options: &PackOptions,
    write: bool,
    context: &Context<'_>,
) -> Result<String> {
    let storage = context.storage;
    let file = corpus.join(CONFIG_FILE);
    if !storage.is_surely_there(corpus)? || !storage.is_folder(corpus) {
        return Err(Error::config("no such corpus folder")
            .file(corpus.display().to_string())
            .remedy("name the folder that holds your files")
            .io_kind(std::io::ErrorKind::NotFound));
    }
    if write && !options.overwrite && storage.is_there(&file) {
        return Err(Error::output("exists already")
            .file(file.display().to_string())
            .remedy("pass --overwrite to replace it, or --print to see what would be written")
            .io_kind(AlreadyExists));
    }
    let guess = Guess::of(corpus, options, storage)?;
    if guess.unrecognised.is_empty() {
        guess.refuse_open(corpus)?;
    }
    let text = guess.commented();
    if write {
        storage.write_file(&file, text.as_bytes())?;
    }
    Ok(text)
}
