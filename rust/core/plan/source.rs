//! `Source`: a `[[source]]` with its files found and every default filled in.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::augment::AugmentSpec;
use super::by_field::lang_field;
use super::files::Files;
use super::language::{UNDETERMINED, code_or_text};
use super::sides::{Found, Side};
use super::ways::{all_plain, resolve_overflow, resolve_ways};
use super::{
    Augment, ChatSpec, Choose, CleanSpec, FilterSpec, PackSpec, Plan, SegmentSpec, SourceSpec,
    TaggedSpec, mix,
};
use crate::error::{Error, Result};
use crate::read::{self, ClassLabels, FormatName, FormatOptions};
use crate::schema::{Duplicates, LossPolicy, OFFSET_BITS, Overflow, SpecialInData};
use crate::storage::Storage;

/// The format of files in a table.
const PARALLEL: &str = "parallel";

/// A source, resolved.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// The name, unique in the corpus.
    pub name: String,
    /// The name as written, which all document tables of a source share.
    #[serde(skip)]
    pub record_name: String,
    /// The name of its document table; `None` for a source of one document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// The task that it trains.
    pub task: String,
    /// The language of its texts by its code, or as written if it is unknown.
    #[serde(skip)]
    pub lang: String,
    /// The language as written.
    #[serde(rename = "lang")]
    pub written_lang: String,
    /// The field that holds the language, before the source is divided by it.
    #[serde(skip)]
    pub lang_field: Option<Vec<String>>,
    /// Indices of its inputs in [`Plan::inputs`], in order.
    #[serde(skip)]
    pub inputs: Vec<usize>,
    /// Files as written.
    pub files: Files,
    /// Files that are held out, as written.
    #[serde(skip_serializing_if = "Files::is_empty")]
    pub validation_files: Files,
    /// The fields of parallel text and their files; none for other formats.
    #[serde(skip)]
    pub(crate) sides: Vec<Side>,
    /// The number of its inputs that are not held out; these come first.
    #[serde(skip)]
    pub training_inputs: usize,
    /// The format of its inputs.
    pub format: FormatName,
    /// Options for reading its inputs, beside their format.
    #[serde(flatten)]
    pub options: FormatOptions,
    /// The class labels of its first file.
    #[serde(skip)]
    pub(crate) class_labels: ClassLabels,
    /// The dialect of its files in words; `None` for formats without dialects.
    #[serde(skip)]
    pub dialect: Option<String>,
    /// The templates of its prompts and targets, in order.
    pub segments: Vec<SegmentSpec>,
    /// The conversations of its records, in place of segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatSpec>,
    /// The task that is made from its texts; its segments show what is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// The tagged texts of its records, in place of segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tagged: Option<TaggedSpec>,
    /// Several templates of one task, in place of segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<Vec<SegmentSpec>>,
    /// How many of its templates a record takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choose: Option<Choose>,
    /// The expression that must hold for a document, as a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The path of the list of which each element makes a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// Copies of each record, on average; `None` if the mix decides.
    pub epochs: Option<f64>,
    /// The weight in the mix; `None` if its size counts.
    pub weight: Option<f64>,
    /// The policy for records longer than a row.
    pub overflow: Overflow,
    /// The policy that chooses trained tokens.
    pub loss: LossPolicy,
    /// The field with the spans of the target's text that are trained; `None` if all of it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<String>,
    /// The field with the weight of a document in the loss; `None` if every document counts the
    /// same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_weight: Option<String>,
    /// The policy for data that spells a control token.
    pub special_in_data: SpecialInData,
    /// The policy for duplicates.
    pub duplicates: Duplicates,
    /// The changes of its texts before they are rendered; `None` if they stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<CleanSpec>,
    /// The limits beyond which a record is dropped for its text; `None` if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterSpec>,
    /// The largest share of its records that may be unfit, if the configuration says so. It guards
    /// a run and shapes no dataset, so it is not recorded.
    #[serde(skip)]
    pub max_bad_fraction: Option<f64>,
}

impl Source {
    /// Returns whether its input `nth` is held out.
    #[must_use]
    pub(crate) fn holds_out(&self, nth: usize) -> bool {
        nth >= self.training_inputs
    }

    /// Returns whether the source is plain text: targets alone, trained whole.
    #[must_use]
    pub(crate) fn is_plain(&self) -> bool {
        self.spans.is_none()
            && self.chat.is_none()
            && self.tagged.is_none()
            && all_plain(&self.segments, &self.templates)
    }

    /// Returns the segments of all of its templates, in order.
    pub(crate) fn all_segments(&self) -> impl Iterator<Item = &SegmentSpec> {
        self.segments.iter().chain(self.templates.iter().flatten())
    }
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The path to open.
    pub path: PathBuf,
    /// The path within the corpus, with `/`. It identifies the file for the validation split.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
}

impl Plan {
    /// Resolves a source and adds it to the plan. `defaults` holds the policies of `[pack]`.
    pub(super) fn add_source(
        &mut self,
        spec: SourceSpec,
        defaults: &PackSpec,
        storage: &dyn Storage,
    ) -> Result<()> {
        self.refuse_name(&spec.full_name())?;
        refuse_no_name(spec.document.as_deref())?;
        let found = self.find_inputs(&spec.files, &spec.validation_files, storage)?;
        if found.inputs.is_empty() {
            return Err(Error::config("has no files").remedy("name its files in `files = [\"…\"]`"));
        }
        let (task, options) = (spec.task(), options_of(&spec));
        let all = found.all();
        let Found { inputs, training_inputs, sides } = found;
        let given = given_format(spec.format, !sides.is_empty())?;
        let format = self.resolve_format(given, &options, &all, storage)?;
        let files: Vec<_> = inputs.iter().map(|&index| &self.inputs[index]).collect();
        let files: Vec<_> =
            files.iter().map(|input| (input.path.as_path(), input.name.as_str())).collect();
        let format = (format, given.is_some());
        let (format, options) = read::resolve_dialect(storage, format, options, &files)?;
        let mut options = options.resolve(format)?;
        let class_labels = resolve_labels(storage, format, &mut options, &files)?;
        let written_lang = spec.lang.clone().unwrap_or_else(|| UNDETERMINED.to_owned());
        let augment = spec.augment.as_ref().map(AugmentSpec::resolve).transpose()?;
        let by_field = lang_field(&written_lang)?;
        let is_by_field = by_field.is_some();
        augment.iter().try_for_each(|made| made.refuse_no_language(&written_lang, is_by_field))?;
        let made = augment.as_ref().map(|made| made.segments(&written_lang, is_by_field));
        let (name, record_name) = (spec.full_name(), spec.name.clone());
        let segments = resolve_ways(&spec, made, format)?;
        let templates = spec.templates.unwrap_or_default();
        let is_plain =
            spec.chat.is_none() && spec.tagged.is_none() && all_plain(&segments, &templates);
        let overflow = resolve_overflow(spec.overflow, is_plain)?;
        // In a mix, a source without `epochs` is left to the mix.
        let epochs = if self.mix.is_none() { spec.epochs.or(Some(1.0)) } else { spec.epochs };
        mix::refuse_epochs("epochs", epochs)?;
        refuse_no_share(spec.max_bad_fraction)?;
        spec.filter.iter().try_for_each(FilterSpec::check)?;
        self.sources.push(Source {
            task,
            name,
            record_name,
            document: spec.document,
            lang: code_or_text(&written_lang),
            lang_field: by_field,
            written_lang,
            inputs,
            files: spec.files,
            validation_files: spec.validation_files,
            training_inputs,
            sides,
            format,
            class_labels,
            dialect: read::dialect_in_words(format, &options),
            options,
            segments,
            chat: spec.chat,
            augment,
            tagged: spec.tagged,
            templates,
            choose: spec.choose,
            when: spec.when,
            each: spec.each,
            epochs,
            weight: spec.weight,
            overflow,
            loss: spec.loss.unwrap_or_default(),
            spans: spec.spans,
            loss_weight: spec.loss_weight,
            special_in_data: spec.special_in_data.or(defaults.special_in_data).unwrap_or_default(),
            duplicates: spec.duplicates.or(defaults.duplicates).unwrap_or_default(),
            clean: spec.clean,
            filter: spec.filter,
            max_bad_fraction: spec.max_bad_fraction.or(defaults.max_bad_fraction),
        });
        Ok(())
    }

    /// Refuses the name of a new source if it is empty or taken.
    pub(super) fn refuse_name(&self, name: &str) -> Result<()> {
        if name.trim().is_empty() {
            return Err(Error::config("a source's name is empty")
                .remedy("a name identifies a source: give it one"));
        }
        if self.sources.iter().any(|other| other.name == name) {
            return Err(Error::config("two sources have this name")
                .remedy("a name identifies a source: rename one"));
        }
        Ok(())
    }

    /// Adds the files of some patterns to the inputs of a source.
    pub(super) fn add_inputs(
        &mut self,
        patterns: &[String],
        inputs: &mut Vec<usize>,
        storage: &dyn Storage,
    ) -> Result<()> {
        for pattern in patterns {
            for path in self.find(pattern, storage)? {
                let index = self.intern_input(&path, storage)?;
                let Input { path, name, .. } = &self.inputs[index];
                // By way of links a file may have two names.
                let is_same = |&other: &usize| storage.is_same_file(&self.inputs[other].path, path);
                if inputs.iter().any(is_same) {
                    return Err(Error::config(format!("reads {name} twice")).remedy(
                        "set `epochs` to repeat a source; a file is trained on or held out, not \
                         both",
                    ));
                }
                inputs.push(index);
            }
        }
        Ok(())
    }

    /// Returns the index of the input at `path`, and adds it to the plan if it is new.
    pub(super) fn intern_input(&mut self, path: &Path, storage: &dyn Storage) -> Result<usize> {
        let name = self.name_of(path);
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

    /// Returns the format of a source's inputs, as given or guessed. Refuses inputs that cannot
    /// have this format.
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
                Some(format) => read::refuse_other_content(storage, &input.path, format, options)
                    .map(|()| format),
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

/// Refuses a document table whose name is empty.
fn refuse_no_name(document: Option<&str>) -> Result<()> {
    match document {
        Some(name) if name.trim().is_empty() => {
            Err(Error::config("the name of a [[source.document]] is empty")
                .remedy("give it one, or leave `name` out: its number is its name"))
        }
        _ => Ok(()),
    }
}

/// Returns the options for reading a source, as they are given.
fn options_of(spec: &SourceSpec) -> FormatOptions {
    FormatOptions {
        columns: spec.columns.clone(),
        header: spec.header,
        delimiter: spec.delimiter.clone(),
        rename: spec.rename.clone(),
        only: None,
        unit: spec.unit,
        records: spec.records.clone(),
        literals: spec.literals.clone(),
        labels: spec
            .labels
            .clone()
            .map(|fields| fields.into_iter().map(|it| (it, vec![])).collect()),
        encoding: spec.encoding,
    }
}

/// Returns the format of a source as it is given, by name or by a table of files.
fn given_format(given: Option<FormatName>, is_parallel: bool) -> Result<Option<FormatName>> {
    let parallel = FormatName::find(PARALLEL);
    match given {
        None if is_parallel => Ok(parallel),
        Some(format) if is_parallel != (given == parallel) => {
            let what = if is_parallel { "a table" } else { "a list" };
            Err(Error::config(format!("its `files` are {what}, its format is {format}")).remedy(
                "parallel text names a file for each field: \
                 files = { en = \"train.en\", yo = \"train.yo\" }; other formats list their files",
            ))
        }
        given => Ok(given),
    }
}

/// Finds the names of the labels that a source shows by name. Returns all class labels of its first
/// file.
fn resolve_labels(
    storage: &dyn Storage,
    format: FormatName,
    options: &mut FormatOptions,
    files: &[(&Path, &str)],
) -> Result<ClassLabels> {
    if let Some(labels) = &mut options.labels {
        *labels = read::resolve_labels(storage, format, labels, files)?;
    }
    // A file that cannot be read is an error where its records are.
    let labels = files.first().map(|(path, _)| read::class_labels(storage, format, path));
    Ok(labels.and_then(Result::ok).unwrap_or_default())
}

/// Refuses a `max_bad_fraction` that is no share.
pub(super) fn refuse_no_share(share: Option<f64>) -> Result<()> {
    match share {
        Some(share) if !(0.0..=1.0).contains(&share) => {
            let what = format!("max_bad_fraction = {}: must be from 0 to 1", mix::shown(share));
            Err(Error::config(what).remedy(
                "it is a share of a source's records: 0.05 allows one in twenty, 1.0 allows all",
            ))
        }
        _ => Ok(()),
    }
}
