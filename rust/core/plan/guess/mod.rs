//! `Guess`: the sources of a folder without `corpus.toml`, guessed from its files.
//!
//! Takes a folder; gives the text of a `corpus.toml` and what it understood, in words. A file whose
//! fields it does not know is never guessed at. Only the first records of each file are read.

mod by_language;
mod codes;
mod folder;
mod names;
mod shape;
mod written;

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind::NotFound;
use std::path::Path;

use serde::Deserialize;

use by_language::by_language;
use folder::{Folder, Found};
use names::{Named, NamedSplit};
use shape::{Chat, Shape, shapes_of};

use super::{PackOptions, PlanSpec, SegmentSpec, TOKENIZER_FILE};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::read::{self, Fields, FormatName, FormatOptions, Records, Request};
use crate::storage::{Bounded, Storage};

/// The records of a file that are looked at, and the bytes of its content in which they begin.
const RECORDS: usize = 200;
const CONTENT: u64 = 256 << 10;
/// The most bytes that are read of a file for that: a record may be 16 MiB long.
const READ: u64 = 20 << 20;
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

/// A source, guessed.
#[derive(Debug)]
pub(crate) struct GuessedSource {
    name: String,
    task: String,
    lang: Option<String>,
    /// The language as the names of its files have it; `None` where `{lang}` stands in them.
    path_lang: Option<String>,
    files: Vec<String>,
    validation_files: Vec<String>,
    segments: Option<Vec<SegmentSpec>>,
    chat: Option<Chat>,
    /// What was recognised, in a sentence.
    understood: String,
}

/// Files of one family whose fields are not known, or that cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Unrecognised {
    /// The name that their source would have.
    name: String,
    lang: Option<String>,
    pub(crate) files: Vec<String>,
    /// The names of their fields.
    pub(crate) fields: Vec<String>,
    /// Why they are not recognised; empty if none of their fields is known.
    pub(crate) why: String,
    /// The error of a file that cannot be read.
    error: Option<Box<Error>>,
    /// The format, where the suffix does not tell it.
    format: Option<&'static str>,
}

impl Guess {
    /// Guesses the sources of the folder `root`. The tokenizer of `options` is asked for its EOS.
    pub(crate) fn of(root: &Path, options: &PackOptions, storage: &dyn Storage) -> Result<Self> {
        let mut folder = Folder::list(root, storage)?;
        let mut guess = Self::default();
        guess.find_tokenizer(root, options, storage);
        for family in families(std::mem::take(&mut folder.files), &mut folder, storage) {
            guess.add(family, &mut folder);
        }
        guess.sources = by_language(guess.sources, root, storage);
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
                "write a corpus.toml that lists the sources of this folder; `sabiprep init` begins \
             one, README.md shows one",
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
    fn add(&mut self, family: Family, folder: &mut Folder) {
        let Family { named, train, validation, test, format, found } = family;
        for name in test {
            folder.pass_over("test files: no training sees them", name);
        }
        if train.is_empty() && validation.is_empty() {
            return;
        }
        let shapes = match found {
            Ok(shapes) => shapes,
            Err(Open { fields, why, error, format }) => {
                let files = train.into_iter().chain(validation).collect();
                let lang = named.lang().map(str::to_owned);
                let name = self.free_name(&named.name(), "unnamed");
                self.unrecognised.push(Unrecognised {
                    name,
                    lang,
                    files,
                    fields,
                    why,
                    error,
                    format,
                });
                return;
            }
        };
        for shape in shapes {
            let task = named.task().unwrap_or(shape.task);
            let stem = [named.name(), shape.suffix.clone()];
            let stem: Vec<String> = stem.into_iter().filter(|word| !word.is_empty()).collect();
            let name = self.free_name(&stem.join("-"), task);
            let first = train.first().or(validation.first()).map_or("", String::as_str);
            let more = match train.len() + validation.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let held_out =
                if validation.is_empty() { "" } else { "; its validation files are held out" };
            let understood = format!(
                "{} in {first}{more} ({}){held_out}",
                shape.understood,
                format
                    .map(|format| format.get().described(&FormatOptions::default()))
                    .unwrap_or_default()
            );
            self.sources.push(GuessedSource {
                name,
                task: task.to_owned(),
                path_lang: named.lang().map(str::to_owned),
                lang: shape.lang.or_else(|| named.lang().map(str::to_owned)),
                files: train.clone(),
                validation_files: validation.clone(),
                // What a format does by itself need not be written.
                segments: Some(shape.segments)
                    .filter(|segments| shape.chat.is_none() && !is_default(segments, format)),
                chat: shape.chat,
                understood,
            });
        }
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

impl Unrecognised {
    /// Returns the error of these files.
    pub(crate) fn error(&self, root: &Path) -> Error {
        if let Some(error) = &self.error {
            return (**error).clone();
        }
        let fields = self.fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>();
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        Error::input(format!(
            "no corpus.toml, and its fields are not recognised{why}; it has {}",
            fields.join(", ")
        ))
        .file(self.files.first().cloned().unwrap_or_default())
        .remedy(format!(
            "`sabiprep init {}` writes a corpus.toml; say in it which fields are prompt and target",
            root.display()
        ))
    }
}

/// Returns whether a format makes these segments without being told.
fn is_default(segments: &[SegmentSpec], format: Option<FormatName>) -> bool {
    let default = format.and_then(|format| format.get().default_target());
    matches!(segments, [SegmentSpec::Target(target)] if Some(target.as_str()) == default)
}

/// Files of one folder that make one source, or one for each of their shapes.
struct Family {
    named: Named,
    /// The format; `None` if the files cannot be read.
    format: Option<FormatName>,
    found: std::result::Result<Vec<Shape>, Open>,
    train: Vec<String>,
    validation: Vec<String>,
    test: Vec<String>,
}

/// Why the fields of a file are not recognised.
#[derive(Debug, Clone)]
struct Open {
    fields: Vec<String>,
    why: String,
    error: Option<Box<Error>>,
    format: Option<&'static str>,
}

/// Groups files into families: of one folder, with names that differ only by a split or a shard,
/// with one format and the same shapes. Passes over files without records.
///
/// Files that differ by a language alone stay apart here.
fn families(files: Vec<Found>, folder: &mut Folder, storage: &dyn Storage) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    for file in files {
        let named = Named::of(&file.stem);
        let (format, found) = match look_at(&file, storage) {
            Ok(None) => {
                folder.pass_over("no record in them", file.name);
                continue;
            }
            Ok(Some((format, records))) => (Some(format), recognise(format, &records)),
            Err(error) => {
                let error = Some(Box::new(error.file(file.name.clone())));
                let why = "it cannot be read".to_owned();
                (None, Err(Open { fields: Vec::new(), why, error, format: None }))
            }
        };
        let key = match (&format, &found) {
            (Some(format), Ok(shapes)) => {
                let understood: Vec<&str> =
                    shapes.iter().map(|shape| shape.understood.as_str()).collect();
                format!("{}|{format}|{}", named.family(), understood.join("|"))
            }
            (Some(format), Err(open)) => {
                format!("{}|{format}|{:?}|{}", named.family(), open.fields, open.why)
            }
            (None, _) => file.name.clone(),
        };
        let split = named.split;
        let index = index_of.get(&key).copied();
        let index = index.unwrap_or_else(|| {
            index_of.insert(key, families.len());
            let (train, validation, test) = (Vec::new(), Vec::new(), Vec::new());
            let found = found.clone();
            families.push(Family { named, format, found, train, validation, test });
            families.len() - 1
        });
        let family = &mut families[index];
        // One file may lack a field in some records that others have in all: the templates that
        // allow for that are the longer ones.
        if let (Ok(known), Ok(new)) = (&mut family.found, found)
            && length(&new) > length(known)
        {
            *known = new;
        }
        match split {
            NamedSplit::Train => family.train.push(file.name),
            NamedSplit::Validation => family.validation.push(file.name),
            NamedSplit::Test => family.test.push(file.name),
        }
    }
    families
}

/// Returns the length of the templates of some shapes.
fn length(shapes: &[Shape]) -> usize {
    let segments = shapes.iter().flat_map(|shape| &shape.segments);
    segments.map(|segment| segment.template().len()).sum()
}

/// Returns the shapes of records. Tokens with tags are none: what they are to become is open.
fn recognise(format: FormatName, records: &[Fields]) -> std::result::Result<Vec<Shape>, Open> {
    let has_tags = records.iter().any(|fields| fields.contains_key("tokens"));
    if format.get().name() == "text" && are_tagged(records) {
        let fields = ["tokens", "tags", "text", "entities"].map(str::to_owned).to_vec();
        let why = "its lines are tokens with tags, as in CoNLL".to_owned();
        return Err(Open { fields, why, error: None, format: Some("conll") });
    }
    let shapes = if format.get().name() == "conll" && has_tags {
        Err("its tokens have tags: say how they are written".to_owned())
    } else {
        shapes_of(records)
    };
    shapes.map_err(|why| {
        let mut fields: Vec<String> = Vec::new();
        for name in records.iter().flat_map(Fields::keys) {
            if !fields.contains(name) {
                fields.push(name.clone());
            }
        }
        Open { fields, why, error: None, format: None }
    })
}

/// Returns whether lines of text are those of `CoNLL`: a token and its columns, the last a tag.
fn are_tagged(records: &[Fields]) -> bool {
    let is_tag = |word: &str| {
        let (kind, label) = word.split_once('-').unwrap_or((word, ""));
        word == "O" || matches!(kind, "B" | "I" | "E" | "S" | "L" | "U") && !label.is_empty()
    };
    let is_tagged = |fields: &&Fields| {
        let text = fields.get("text").and_then(read::Value::as_str).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.len() > 1 && words.last().is_some_and(|word| is_tag(word))
    };
    // Lines of another form, such as `-DOCSTART-`, are few.
    records.iter().filter(is_tagged).count() * 10 > records.len() * 9
}

/// Returns the format of a file and its first records; `None` if it has none.
fn look_at(file: &Found, storage: &dyn Storage) -> Result<Option<(FormatName, Vec<Fields>)>> {
    let bounded = &Bounded::new(storage, READ);
    let size = storage.file_size(&file.path)?;
    if size == 0 {
        return Ok(None);
    }
    let options = FormatOptions::default();
    let format = read::guess(bounded, &file.path, &options)?;
    let monitor = &Monitor::default();
    let context = Context { threads: 1, monitor, storage: bounded };
    let given = (format, &options);
    let parts = read::parts(given, &file.path, size, CONTENT, bounded as &dyn Storage)?;
    let range = parts.into_iter().next().map_or(0..size, |part| part.range);
    let request = Request {
        path: &file.path,
        range,
        options: &options,
        wanted: None,
        sides: &[],
        context: &context,
    };
    let (mut records, mut refused) = (Vec::new(), None);
    let mut read = || -> Result<()> {
        let mut reader = Records::open(format, &request, 0)?;
        let mut content = 0;
        while records.len() < RECORDS && content < CONTENT {
            let Some(record) = reader.advance()? else { break };
            content += record.bytes() as u64 + 1;
            match record.fields() {
                Ok(fields) => records.push(fields),
                Err(refusal) => refused = refused.take().or(Some(refusal)),
            }
        }
        Ok(())
    };
    match (read(), refused) {
        // What was read before a fault further on is enough to recognise.
        (Err(_), _) if !records.is_empty() => Ok(Some((format, records))),
        (Err(error), _) => Err(error),
        (Ok(()), Some(refusal)) if records.is_empty() => {
            let records = if format.get().options().contains(&"records") {
                "; of one object over many lines, `records` names the list to read"
            } else {
                ""
            };
            Err(Error::input(format!("none of its first records can be read: {}", refusal.why))
                .remedy(format!(
                    "it was read as {format}, by its suffix: name it in a corpus.toml with the \
                     right `format`, or move it elsewhere{records}"
                )))
        }
        (Ok(()), _) => Ok((!records.is_empty()).then_some((format, records))),
    }
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
