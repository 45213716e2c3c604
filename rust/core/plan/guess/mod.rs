//! `Guess`: the sources of a folder without `corpus.toml`, guessed from its files.
//!
//! Takes a folder; gives the text of a `corpus.toml` and what it understood, in words. A file whose
//! fields it does not know is never guessed at. Only the first records of each file are read.

mod by_language;
mod codes;
mod documents;
mod family;
mod folder;
mod look;
mod names;
mod parallel;
mod patterns;
mod shape;
mod source;
mod written;

use std::collections::HashSet;
use std::io::ErrorKind::NotFound;
use std::path::Path;

use serde::Deserialize;

use by_language::by_language;
use documents::mark_documents;
use family::{Family, Open, families};
use folder::{Folder, NO_RECORD, TEST_FILES};
use parallel::parallel_sources;
use patterns::as_patterns;
use shape::Shape;
use source::{GuessedSource, Unrecognised};

use super::files::Files;
use super::{PackOptions, PlanSpec, SegmentSpec, TOKENIZER_FILE};
use crate::error::{Error, Result};
use crate::read::{FormatName, FormatOptions};
use crate::storage::Storage;

/// Spellings of tokens that close a document. One of them among the added tokens of a tokenizer is
/// taken for EOS; two leave it open.
const EOS: [&str; 7] =
    ["</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|eos|>", "[EOS]", "<EOS>"];

/// The sources of a folder, guessed.
#[derive(Debug, Default)]
pub(crate) struct Guess {
    /// The tokenizer, relative to the folder, if it lies in it.
    tokenizer: Option<String>,
    /// The token that closes a document, if the tokenizer has one usual one.
    eos: Option<String>,
    /// The sources, in order of their files.
    pub(crate) sources: Vec<GuessedSource>,
    /// Files whose fields are not known, those that differ by a language together.
    to_fill_in: Vec<Unrecognised>,
    /// Files whose fields are not known.
    pub(crate) unrecognised: Vec<Unrecognised>,
    /// Sentences on files that no source reads.
    pub(crate) passed_over: Vec<String>,
}

impl Guess {
    /// Guesses the sources of the folder `root`. The tokenizer of `options` is asked for its EOS.
    pub(crate) fn of(root: &Path, options: &PackOptions, storage: &dyn Storage) -> Result<Self> {
        let mut folder = Folder::list(root, storage)?;
        let mut guess = Self::default();
        guess.find_tokenizer(root, options, storage);
        let mut files = std::mem::take(&mut folder.files);
        mark_documents(&mut files, storage);
        for mut family in families(files, &mut folder, storage) {
            let without_record = folder.passed_over_for(NO_RECORD);
            for files in [&mut family.train, &mut family.validation] {
                *files = as_patterns(files, &without_record, root, storage);
            }
            guess.add(family, &mut folder);
        }
        guess.sources = by_language(guess.sources, root, storage);
        for mut source in parallel_sources(&mut folder, storage) {
            source.name = guess.free_name(&source.name, &source.task);
            guess.sources.push(source);
        }
        guess.to_fill_in = by_language(guess.unrecognised.clone(), root, storage);
        guess.passed_over = folder.passed_over();
        Ok(guess)
    }

    /// Returns the guess as the text of a `corpus.toml`, with comments for its owner.
    pub(crate) fn commented(&self) -> String {
        written::text_of(self, true)
    }

    /// Returns the guess as a configuration; errors name `root`.
    pub(crate) fn spec(&self, root: &str) -> Result<PlanSpec> {
        PlanSpec::parse(&written::text_of(self, false), root)
    }

    /// Returns what was understood and what was passed over, a sentence each.
    pub(crate) fn said(&self) -> Vec<String> {
        let understood = self.sources.iter().map(|source| {
            format!("no corpus.toml: source '{}': {}", source.name, source.understood)
        });
        let eos =
            self.eos.iter().map(|eos| format!("no corpus.toml: `{eos}` closes every document"));
        let passed_over = self.passed_over.iter().map(|text| format!("no corpus.toml: {text}"));
        understood.chain(eos).chain(passed_over).collect()
    }

    /// Returns an error for files that were not recognised, or if nothing was.
    pub(crate) fn refuse_open(&self, root: &Path) -> Result<()> {
        if let Some(file) = self.unrecognised.first() {
            return Err(file.error(root));
        }
        if !self.sources.is_empty() {
            return Ok(());
        }
        let what = "no corpus.toml, and no file that would be recognised without one";
        let said: Vec<&str> = self.passed_over.iter().map(String::as_str).collect();
        let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) };
        Err(Error::input(format!("{what}{said}"))
            .file(root.display().to_string())
            .remedy(
                "give its files the suffix of their format (.txt, .jsonl, .csv, .parquet, .conll), so \
                 that `sabiprep init` knows them, or write a corpus.toml that names them with their \
                 `format`; README.md shows one",
            )
            .io_kind(NotFound))
    }

    /// Finds the tokenizer of the folder, and the EOS of the tokenizer in use.
    fn find_tokenizer(&mut self, root: &Path, options: &PackOptions, storage: &dyn Storage) {
        let own = root.join(TOKENIZER_FILE);
        if options.tokenizer.is_none() && storage.is_file(&own) {
            self.tokenizer = Some(TOKENIZER_FILE.to_owned());
        }
        let file = options.tokenizer.as_ref().unwrap_or(&own);
        // A configuration beside the tokenizer names the EOS better than a guess would.
        if !storage.is_there(&file.with_file_name("tokenizer_config.json")) {
            self.eos = eos_of(file, storage);
        }
    }

    /// Adds the sources of a family of files.
    fn add(&mut self, mut family: Family, folder: &mut Folder) {
        for name in std::mem::take(&mut family.test) {
            folder.pass_over(TEST_FILES, name);
        }
        if family.train.is_empty() && family.validation.is_empty() {
            return;
        }
        match std::mem::replace(&mut family.found, Ok(Vec::new())) {
            Err(open) => self.add_unrecognised(family, open),
            Ok(shapes) => shapes.into_iter().for_each(|shape| self.add_source(&family, shape)),
        }
    }

    /// Adds a family whose fields are not known.
    fn add_unrecognised(&mut self, family: Family, open: Open) {
        let Family { named, train, validation, encoding, .. } = family;
        let Open { fields, why, error, format, labels } = open;
        let name = self.free_name(&named.name(), "unnamed");
        let lang = named.lang().map(str::to_owned);
        let files = train.into_iter().chain(validation).collect();
        self.unrecognised.push(Unrecognised {
            name,
            lang,
            files,
            encoding,
            fields,
            labels,
            why,
            error,
            format,
        });
    }

    /// Adds the source that one shape makes of a family.
    fn add_source(&mut self, family: &Family, shape: Shape) {
        let Family { named, train, validation, format, encoding, unit, .. } = family;
        let task = named.task().unwrap_or(shape.task);
        let stem = [named.name(), shape.suffix.clone()];
        let stem: Vec<String> = stem.into_iter().filter(|word| !word.is_empty()).collect();
        let path_lang = named.lang().map(str::to_owned);
        let lang_field = shape.lang_field.filter(|_| path_lang.is_none());
        let by_field = lang_field.map(|field| format!("{{{{ {field} }}}}"));
        self.sources.push(GuessedSource {
            name: self.free_name(&stem.join("-"), task),
            task: task.to_owned(),
            lang: shape.lang.or_else(|| path_lang.clone()).or(by_field),
            path_lang,
            files: Files::List(train.clone()),
            validation_files: Files::List(validation.clone()),
            encoding: *encoding,
            unit: *unit,
            labels: shape.labels.into_keys().collect(),
            // What a format does by itself need not be written.
            segments: Some(shape.segments)
                .filter(|segments| shape.chat.is_none() && !is_default(segments, *format)),
            chat: shape.chat,
            understood: understood(&shape.understood, family),
        });
    }

    /// Returns a name for a source that no other has.
    fn free_name(&self, name: &str, otherwise: &str) -> String {
        let name = if name.is_empty() { otherwise } else { name };
        let taken: HashSet<&str> = self
            .sources
            .iter()
            .map(|source| source.name.as_str())
            .chain(self.unrecognised.iter().map(|file| file.name.as_str()))
            .collect();
        if !taken.contains(name) {
            return name.to_owned();
        }
        let mut numbered = (2..).map(|number| format!("{name}-{number}"));
        numbered.find(|name| !taken.contains(name.as_str())).unwrap_or_default()
    }
}

/// Returns what was understood of a family of files, as a sentence.
fn understood(what: &str, family: &Family) -> String {
    let Family { train, validation, format, encoding, unit, .. } = family;
    let first = train.first().or(validation.first()).map_or("", String::as_str);
    let more = match train.len() + validation.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let held_out = if validation.is_empty() { "" } else { "; its validation files are held out" };
    let options = FormatOptions { unit: *unit, ..FormatOptions::default() };
    let described = format.map(|format| format.get().described(&options)).unwrap_or_default();
    let encoded = encoding.map(|encoding| format!(", {}", encoding.name())).unwrap_or_default();
    format!("{what} in {first}{more} ({described}{encoded}){held_out}")
}

/// Returns whether a format makes these segments without being told.
fn is_default(segments: &[SegmentSpec], format: Option<FormatName>) -> bool {
    let default = format.and_then(|format| format.get().default_target());
    matches!(segments, [SegmentSpec::Target(target)] if Some(target.as_str()) == default)
}

/// Returns the token that closes a document, if a tokenizer has exactly one usual one.
fn eos_of(file: &Path, storage: &dyn Storage) -> Option<String> {
    #[derive(Deserialize)]
    struct Added {
        content: String,
    }
    #[derive(Deserialize)]
    struct Tokenizer {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    // A tokenizer that cannot be read is an error where it is loaded.
    let bytes = storage.whole_bytes(file).ok()?;
    let tokenizer: Tokenizer = serde_json::from_slice(&bytes).ok()?;
    let mut usual = tokenizer.added_tokens.into_iter().map(|added| added.content);
    let first = usual.find(|token| EOS.contains(&token.as_str()))?;
    usual.all(|token| token == first || !EOS.contains(&token.as_str())).then_some(first)
}
