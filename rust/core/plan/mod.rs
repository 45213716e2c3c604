//! `Plan`: what will run. Every file found, every default filled in, every value checked.
//!
//! Takes a corpus folder and the options of the run; gives plain data that the stages read.
//! Templates and tokenizers are compiled by their own modules.

mod find;
mod inputs;
mod mix;
mod options;
mod spec;
mod written;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub(crate) use mix::MixPlan;
pub use options::{PackOptions, SPOOL_BYTES};
pub use spec::PlanSpec;
pub(crate) use spec::{MixBy, MixSpec, PackSpec, SegmentSpec, SourceSpec, Unit, nearest};

use find::{find_files, portable_name};

use crate::error::{Error, Result};
use crate::pack::{Packing, window_count, windows};
use crate::read::{self, FormatName, FormatOptions};
use crate::schema::{
    Duplicates, LossPolicy, MAX_SEQ_LEN, OFFSET_BITS, Overflow, SEQ_LEN_MULTIPLE, SpecialInData,
};
use crate::storage::Storage;

/// The name of the configuration in a corpus folder.
pub(crate) const CONFIG_FILE: &str = "corpus.toml";

/// Words in a run that tells of contamination, by default: as Brown et al. 2020 (GPT-3), appendix
/// C, took at most.
const NGRAM: usize = 13;
const MAX_NGRAM: usize = 1000;

/// A corpus, resolved.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The corpus folder.
    pub root: PathBuf,
    /// The configuration's name in errors.
    pub config_file: String,
    /// The tokenizer file and the control tokens asked for.
    pub tokenizer: TokenizerPlan,
    /// How rows are made.
    pub pack: PackPlan,
    /// How sources without `epochs` are mixed, if they are.
    pub mix: Option<MixPlan>,
    /// The sources, in order; a source's id is its index.
    pub sources: Vec<Source>,
    /// Indices in [`Plan::inputs`] of the files that training is kept clean of.
    pub decontaminate: Vec<usize>,
    /// Every file that is read, each once, in order of first use.
    pub inputs: Vec<Input>,
    /// Bytes of an input split.
    pub split_bytes: u64,
}

/// The tokenizer asked for.
#[derive(Debug, Clone)]
pub struct TokenizerPlan {
    /// The file, if any is named.
    pub file: Option<PathBuf>,
    /// BOS as written.
    pub bos: Option<String>,
    /// EOS as written.
    pub eos: Option<String>,
    /// Pad as written.
    pub pad: Option<String>,
}

/// `[pack]`, resolved.
#[derive(Debug, Clone, Serialize)]
pub struct PackPlan {
    /// Tokens in a row.
    pub seq_len: usize,
    /// How documents are put into rows.
    pub pack: Packing,
    /// The share of records held out.
    pub validation: f64,
    /// The seed of every random choice.
    pub seed: u64,
    /// Tokens a shard is planned to hold.
    pub shard_tokens: u64,
    /// Files that training is kept clean of, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decontaminate: Vec<String>,
    /// Words in a run that training may not share with them, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate_ngram: Option<usize>,
}

impl PackPlan {
    /// Returns how many windows a document of `len` tokens is split into before it is packed.
    #[must_use]
    pub(crate) fn window_count(&self, len: usize) -> usize {
        self.pack.window_count(len, self.seq_len)
    }

    /// Returns the windows that a document of `len` tokens is split into before it is packed.
    #[must_use]
    pub(crate) fn windows(&self, len: usize) -> Vec<Range<usize>> {
        if self.window_count(len) == 1 {
            return std::iter::once(0..len).collect();
        }
        windows(len, self.seq_len)
    }

    /// Returns the most windows that a document of `len` tokens is in, cuts by rows included.
    #[must_use]
    pub(crate) fn most_windows(&self, len: usize) -> usize {
        window_count(len, self.seq_len) + usize::from(self.pack.may_cut())
    }
}

/// A source, resolved.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// What is to be trained.
    pub task: String,
    /// The language.
    pub lang: String,
    /// Indices of its inputs in [`Plan::inputs`], in order.
    #[serde(skip)]
    pub inputs: Vec<usize>,
    /// Files as written.
    pub files: Vec<String>,
    /// Files that are held out, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validation_files: Vec<String>,
    /// How many of its inputs are not held out; those come first.
    #[serde(skip)]
    pub training_inputs: usize,
    /// The format of its inputs.
    pub format: FormatName,
    /// How its inputs are read, beside their format.
    #[serde(flatten)]
    pub options: FormatOptions,
    /// Prompts and targets.
    pub segments: Vec<SegmentSpec>,
    /// Copies of each record, on average; none where the mix says.
    pub epochs: Option<f64>,
    /// Its part in the mix; its size if none is given.
    pub weight: Option<f64>,
    /// What becomes of a record longer than a row.
    pub overflow: Overflow,
    /// Which tokens are trained.
    pub loss: LossPolicy,
    /// What becomes of data that spells a control token.
    pub special_in_data: SpecialInData,
    /// Which duplicates are dropped.
    pub duplicates: Duplicates,
}

impl Source {
    /// Whether its input `nth` is held out.
    #[must_use]
    pub(crate) fn holds_out(&self, nth: usize) -> bool {
        nth >= self.training_inputs
    }

    /// Whether it is plain text: nothing but targets.
    #[must_use]
    pub(crate) fn is_plain(&self) -> bool {
        is_plain(&self.segments)
    }
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Its name: relative to the corpus, with `/`. It identifies the file for the validation split.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Plan {
    /// Reads and resolves the configuration of the corpus folder `root`.
    pub fn load(root: &Path, options: &PackOptions, storage: &dyn Storage) -> Result<Self> {
        let path = root.join(CONFIG_FILE);
        let text = read::small_text(storage, &path).map_err(|error| {
            if storage.is_folder(root) {
                error.remedy("write a corpus.toml that lists the sources of this folder; README.md shows one")
            } else {
                Error { io_kind: error.io_kind, ..Error::config("no such corpus folder") }
                    .file(root.display().to_string())
                    .remedy("name the folder that holds your corpus.toml")
            }
        })?;
        // Line ends are not content: the same file checked out elsewhere must give the same
        // templates.
        Self::resolve(
            PlanSpec::parse(&text.replace("\r\n", "\n"), &shown(&path))?,
            root,
            options,
            storage,
        )
    }

    /// Resolves `spec` against the corpus folder `root`.
    pub fn resolve(
        spec: PlanSpec,
        root: &Path,
        options: &PackOptions,
        storage: &dyn Storage,
    ) -> Result<Self> {
        let config_file = shown(&root.join(CONFIG_FILE));
        let at = |error: Error| error.file(config_file.clone());
        let pack = resolve_pack(&spec.pack, options)
            .map_err(|error| if options.seq_len.is_some() { error } else { at(error) })?;
        let split_bytes = options.split_bytes.unwrap_or(8 << 20);
        if split_bytes == 0 {
            return Err(Error::config("the split size must be at least one byte"));
        }
        let from_config = |file: &String| root.join(file);
        let tokenizer = TokenizerPlan {
            file: options
                .tokenizer
                .clone()
                .or_else(|| spec.tokenizer.file.as_ref().map(from_config)),
            bos: spec.tokenizer.bos,
            eos: spec.tokenizer.eos,
            pad: spec.tokenizer.pad,
        };
        if spec.sources.is_empty() {
            return Err(at(Error::config("no [[source]]")
                .remedy("list at least one source with its name and files")));
        }
        if spec.sources.len() > usize::from(u16::MAX) {
            return Err(at(Error::config("more than 65,535 sources")));
        }
        let mix = mix::resolve(spec.mix.as_ref(), &spec.sources).map_err(at)?;
        let (root, sources, inputs) = (root.to_owned(), Vec::new(), Vec::new());
        let mut plan = Self {
            root,
            config_file,
            tokenizer,
            pack,
            mix,
            sources,
            decontaminate: vec![],
            inputs,
            split_bytes,
        };
        for source in spec.sources {
            let name = source.name.clone();
            let config_file = plan.config_file.clone();
            plan.add_source(source, &spec.pack, storage).map_err(|error| {
                let error = error.source(name);
                if error.file.is_none() { error.file(config_file) } else { error }
            })?;
        }
        plan.add_decontaminate(storage).map_err(|error| error.file(plan.config_file.clone()))?;
        plan.refuse_both_splits(storage).map_err(|error| error.file(plan.config_file.clone()))?;
        Ok(plan)
    }

    /// Whether records may be held out.
    #[must_use]
    pub(crate) fn holds_out(&self) -> bool {
        self.pack.validation > 0.0
            || self.sources.iter().any(|source| source.holds_out(source.inputs.len() - 1))
    }

    /// Whether it matters what else has a record's content.
    #[must_use]
    pub(crate) fn looks_at_content(&self) -> bool {
        self.holds_out() || self.sources.iter().any(|source| source.duplicates != Duplicates::Keep)
    }

    /// Finds the files that training is kept clean of; refuses one that is trained on.
    fn add_decontaminate(&mut self, storage: &dyn Storage) -> Result<()> {
        for pattern in self.pack.decontaminate.clone() {
            for path in find_files(storage, &self.root, &pattern)? {
                let trains = |source: &&Source| {
                    let inputs = &source.inputs[..source.training_inputs];
                    inputs
                        .iter()
                        .any(|&input| storage.is_same_file(&self.inputs[input].path, &path))
                };
                if let Some(source) = self.sources.iter().find(trains) {
                    let what = format!(
                        "trains on {}, which `decontaminate` names",
                        portable_name(&self.root, &path)
                    );
                    return Err(Error::config(what)
                        .source(source.name.clone())
                        .remedy("nothing of it would be left: name it in one of them"));
                }
                let input = self.intern_input(&path, storage)?;
                if !self.decontaminate.contains(&input) {
                    self.decontaminate.push(input);
                }
            }
        }
        Ok(())
    }

    /// Refuses a file that one source holds out and another trains on.
    fn refuse_both_splits(&self, storage: &dyn Storage) -> Result<()> {
        let mut first: BTreeMap<PathBuf, (&Source, bool)> = BTreeMap::new();
        for source in &self.sources {
            for (nth, &input) in source.inputs.iter().enumerate() {
                let Input { path, name, .. } = &self.inputs[input];
                let file = storage.real_path(path);
                let (other, held_out) =
                    *first.entry(file).or_insert((source, source.holds_out(nth)));
                if held_out != source.holds_out(nth) {
                    let [holding, training] =
                        if held_out { [other, source] } else { [source, other] };
                    let what =
                        format!("trains on {name}, which source '{}' holds out", holding.name);
                    return Err(Error::config(what)
                        .source(training.name.clone())
                        .remedy("name it in `validation_files` of both, or of none"));
                }
            }
        }
        Ok(())
    }

    fn add_source(
        &mut self,
        spec: SourceSpec,
        defaults: &PackSpec,
        storage: &dyn Storage,
    ) -> Result<()> {
        if spec.name.trim().is_empty() {
            return Err(Error::config("a source's name is empty")
                .remedy("a name identifies a source: give it one"));
        }
        if self.sources.iter().any(|other| other.name == spec.name) {
            return Err(Error::config("two sources have this name")
                .remedy("a name identifies a source: rename one"));
        }
        let mut inputs: Vec<usize> = Vec::new();
        self.add_inputs(&spec.files, &mut inputs, storage)?;
        let training_inputs = inputs.len();
        self.add_inputs(&spec.validation_files, &mut inputs, storage)?;
        if inputs.is_empty() {
            return Err(Error::config("has no files").remedy("name its files in `files = [\"…\"]`"));
        }
        let options =
            FormatOptions { columns: spec.columns, header: spec.header, delimiter: spec.delimiter };
        let format = self.resolve_format(spec.format, &options, &inputs, storage)?;
        let options = options.resolve(format)?;
        let segments = resolve_segments(spec.segments, format)?;
        let plain = is_plain(&segments);
        let overflow =
            spec.overflow.unwrap_or(if plain { Overflow::Split } else { Overflow::Truncate });
        if overflow == Overflow::Split && !plain {
            return Err(Error::config(
                "overflow = \"split\" is for plain text; this source has a prompt",
            )
            .remedy("use \"truncate\", \"drop\" or \"error\""));
        }
        let epochs = if self.mix.is_none() { spec.epochs.or(Some(1.0)) } else { spec.epochs };
        mix::refuse_epochs("epochs", epochs)?;
        self.sources.push(Source {
            task: spec.task.unwrap_or_else(|| spec.name.clone()),
            name: spec.name,
            lang: spec.lang.unwrap_or_else(|| "und".to_owned()),
            inputs,
            files: spec.files,
            validation_files: spec.validation_files,
            training_inputs,
            format,
            options,
            segments,
            epochs,
            weight: spec.weight,
            overflow,
            loss: spec.loss.unwrap_or_default(),
            special_in_data: spec.special_in_data.or(defaults.special_in_data).unwrap_or_default(),
            duplicates: spec.duplicates.or(defaults.duplicates).unwrap_or_default(),
        });
        Ok(())
    }

    /// Adds the files of some patterns to the inputs of a source.
    fn add_inputs(
        &mut self,
        patterns: &[String],
        inputs: &mut Vec<usize>,
        storage: &dyn Storage,
    ) -> Result<()> {
        for pattern in patterns {
            for path in find_files(storage, &self.root, pattern)? {
                let index = self.intern_input(&path, storage)?;
                if inputs.iter().any(|&other| {
                    storage.is_same_file(&self.inputs[other].path, &self.inputs[index].path)
                }) {
                    let name = &self.inputs[index].name;
                    return Err(Error::config(format!("reads {name} twice"))
                        .remedy("set `epochs` to repeat a source; a file is trained on or held out, not both"));
                }
                inputs.push(index);
            }
        }
        Ok(())
    }

    fn intern_input(&mut self, path: &Path, storage: &dyn Storage) -> Result<usize> {
        let name = portable_name(&self.root, path);
        if let Some(index) = self.inputs.iter().position(|input| input.name == name) {
            return Ok(index);
        }
        let size = storage.file_size(path).map_err(|error| error.file(name.clone()))?;
        if size >> OFFSET_BITS != 0 {
            return Err(Error::input("larger than 1 TiB")
                .file(name)
                .remedy("split it into smaller files"));
        }
        self.inputs.push(Input { path: path.to_owned(), name, size });
        Ok(self.inputs.len() - 1)
    }

    /// Returns the format of a source's inputs, as given or guessed. Refuses inputs that cannot be
    /// of it.
    fn resolve_format(
        &self,
        given: Option<FormatName>,
        options: &FormatOptions,
        inputs: &[usize],
        storage: &dyn Storage,
    ) -> Result<FormatName> {
        let mut first: Option<(FormatName, &str)> = None;
        for input in inputs.iter().map(|&index| &self.inputs[index]) {
            let format = match given {
                Some(format) => {
                    read::refuse_other_content(storage, &input.path, format).map(|()| format)
                }
                None => read::guess(storage, &input.path, options),
            };
            let format = format.map_err(|error: Error| error.file(input.name.clone()))?;
            match first {
                Some((known, name)) if known != format => {
                    let what = format!("{name} looks like {known}, {} like {format}", input.name);
                    return Err(Error::config(what)
                        .remedy("make them two sources, or say `format = \"…\"`"));
                }
                Some(_) => {}
                None => first = Some((format, &input.name)),
            }
        }
        Ok(first.expect("a source has inputs").0)
    }
}

fn is_plain(segments: &[SegmentSpec]) -> bool {
    segments.iter().all(|segment| matches!(segment, SegmentSpec::Target(_)))
}

fn resolve_pack(spec: &PackSpec, options: &PackOptions) -> Result<PackPlan> {
    let seq_len = options.seq_len.or(spec.seq_len).unwrap_or(2048);
    if seq_len == 0 || !seq_len.is_multiple_of(SEQ_LEN_MULTIPLE) || seq_len > MAX_SEQ_LEN {
        return Err(Error::config(format!(
            "seq_len = {seq_len}: must be a multiple of 64, at most {MAX_SEQ_LEN}"
        ))
        .remedy(format!("the nearest is {}", (seq_len.div_ceil(64) * 64).clamp(64, MAX_SEQ_LEN))));
    }
    let validation = spec.validation.unwrap_or(0.0);
    if !(0.0..1.0).contains(&validation) {
        let what =
            format!("validation = {}: must be at least 0 and below 1", mix::shown(validation));
        return Err(Error::config(what)
            .remedy("it is a share of the records: 0.01 holds out one in a hundred"));
    }
    let shard_tokens = spec.shard_tokens.unwrap_or(1 << 24);
    if shard_tokens < seq_len as u64 {
        return Err(Error::config(format!(
            "shard_tokens = {shard_tokens}: less than a row of {seq_len} tokens"
        ))
        .remedy("leave it out for shards of 16777216 tokens"));
    }
    let seed = options.seed.or(spec.seed).unwrap_or(0);
    let pack = spec.pack.unwrap_or_default();
    let decontaminate = spec.decontaminate.clone();
    let decontaminate_ngram =
        (!decontaminate.is_empty()).then(|| spec.decontaminate_ngram.unwrap_or(NGRAM));
    if spec.decontaminate_ngram.is_some_and(|n| n == 0 || n > MAX_NGRAM) {
        return Err(Error::config(format!(
            "decontaminate_ngram must be at least 1 and at most {MAX_NGRAM}"
        ))
        .remedy(format!("leave it out for n-grams of {NGRAM} words")));
    }
    Ok(PackPlan {
        seq_len,
        pack,
        validation,
        seed,
        shard_tokens,
        decontaminate,
        decontaminate_ngram,
    })
}

fn resolve_segments(
    segments: Option<Vec<SegmentSpec>>,
    format: FormatName,
) -> Result<Vec<SegmentSpec>> {
    let segments = match (segments, format.get().default_target()) {
        (Some(segments), _) => segments,
        (None, Some(target)) => vec![SegmentSpec::Target(target.to_owned())],
        (None, None) => {
            return Err(Error::config("has no `segments`")
                .remedy("say what is given and what is trained: segments = [{ prompt = \"…\" }, { target = \"…\" }]"));
        }
    };
    if !segments.iter().any(|segment| matches!(segment, SegmentSpec::Target(_))) {
        return Err(Error::config("has no target: nothing could be trained from it")
            .remedy("add a `{ target = \"…\" }` to its segments"));
    }
    Ok(segments)
}

/// A path as the user would name it.
fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn values_that_cannot_be_right_are_refused() {
        for text in
            ["[pack]\nseq_len = 100", "[pack]\nvalidation = 1.0", "[pack]\nshard_tokens = 5", ""]
        {
            let spec = PlanSpec::parse(text, CONFIG_FILE).unwrap();
            let error = Plan::resolve(
                spec,
                Path::new("."),
                &PackOptions::default(),
                &crate::storage::Local,
            )
            .unwrap_err();
            assert_eq!(error.kind, ErrorKind::Config, "{text}");
        }
    }
}
