//! `lang = "{{ field }}"`: a source for each language that a field of its records holds.
//!
//! One pass over the inputs finds the languages. Each becomes a source that reads the records with
//! that language alone, of the inputs that have any; records without one become a source as well.
//! So every record belongs to one source.

use std::collections::{BTreeMap, BTreeSet};

use super::documents::full_name;
use super::language::{UNDETERMINED, code_or_text};
use super::placeholder::{LANG, in_segments, in_template, in_text, name_of};
use super::{Plan, Source, refuse_source_count};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::read::{FormatOptions, InputSplit, Only, Request, field_path, for_each_text};
use crate::tasks;

/// The most texts of a field of languages.
const MAX_VALUES: usize = 500;
/// The longest text of a language, in characters.
const MAX_CHARS: usize = 64;

/// The texts of a field; `None` for records without one.
type Values = BTreeSet<Option<String>>;

/// Returns the path of the field that a template of `lang` shows; `None` for a language.
pub(super) fn lang_field(written: &str) -> Result<Option<Vec<String>>> {
    if !written.contains("{{") && !written.contains("{%") {
        return Ok(None);
    }
    let field = written.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let Some(mut path) = field.and_then(field_path) else {
        return Err(Error::config(format!("lang = {written:?} is more than one field"))
            .remedy("write lang = \"{{ language }}\" or lang = \"{{ meta.language }}\""));
    };
    if path.len() > 1 && path[0] == "record" {
        path.remove(0);
    }
    Ok(Some(path))
}

impl Plan {
    /// Puts a source for each language in the place of every source whose language is a field.
    /// Reads the inputs of these sources.
    pub fn with_languages(mut self, context: &Context<'_>) -> Result<Self> {
        if self.sources.iter().all(|source| source.lang_field.is_none()) {
            return Ok(self);
        }
        let found = self.languages(context)?;
        let whole = std::mem::take(&mut self.sources);
        for (index, source) in whole.into_iter().enumerate() {
            let name = source.name.clone();
            let placed = |error: Error| error.source(name.clone()).file(self.config_file.clone());
            let Some(field) = source.lang_field.clone() else {
                self.refuse_name(&source.name).map_err(placed)?;
                self.sources.push(source);
                continue;
            };
            for source in divided(&source, &field, &found[&index]).map_err(placed)? {
                self.refuse_name(&source.name).map_err(placed)?;
                self.sources.push(source);
            }
        }
        refuse_source_count(self.sources.len())
            .map_err(|error| error.file(self.config_file.clone()))?;
        Ok(self)
    }

    /// Returns the texts of the languages' fields by source and input.
    fn languages(
        &mut self,
        context: &Context<'_>,
    ) -> Result<BTreeMap<usize, BTreeMap<usize, Values>>> {
        let is_by_field = |split: &InputSplit| self.sources[split.source].lang_field.is_some();
        let splits: Vec<InputSplit> =
            self.splits(context.storage)?.into_iter().filter(is_by_field).collect();
        let inputs: BTreeSet<usize> = splits.iter().map(|split| split.input).collect();
        for input in inputs {
            self.looked_at.push((input, context.storage.stamp(&self.inputs[input].path)?));
        }
        let values = tasks::run(context.threads, splits.len(), |index| {
            let split = &splits[index];
            let (source, input) = (&self.sources[split.source], &self.inputs[split.input]);
            let placed = |error: Error| error.file(input.name.clone()).source(source.name.clone());
            self.values_of(split, context).map_err(placed)
        })?;
        let mut found: BTreeMap<usize, BTreeMap<usize, Values>> = BTreeMap::new();
        for index in (0..self.sources.len()).filter(|&i| self.sources[i].lang_field.is_some()) {
            found.insert(index, BTreeMap::new());
        }
        for (split, mut values) in splits.iter().zip(values) {
            let inputs = found.entry(split.source).or_default();
            inputs.entry(split.nth_input).or_default().append(&mut values);
        }
        Ok(found)
    }

    /// Returns the texts of the language's field in a split.
    fn values_of(&self, split: &InputSplit, context: &Context<'_>) -> Result<Values> {
        let (source, input) = (&self.sources[split.source], &self.inputs[split.input]);
        let field = source.lang_field.as_deref().unwrap_or_default();
        let (range, sides) = (split.range.clone(), &self.side_files(split)[..]);
        let all = Request::all(&input.path, &source.options, context);
        let request = Request { range, sides, ..all };
        let mut values = Values::new();
        // Most records have the text of the one before.
        let mut last: Option<Option<String>> = None;
        for_each_text(source.format, &request, field, |text| {
            context.monitor.check()?;
            if last.as_ref().is_some_and(|last| last.as_deref() == text) {
                return Ok(());
            }
            if text.is_some_and(|text| text.chars().count() > MAX_CHARS) {
                return Err(no_language(field, &format!("a text of over {MAX_CHARS} characters")));
            }
            values.insert(text.map(str::to_owned));
            last = Some(text.map(str::to_owned));
            refuse_many(field, values.len())
        })?;
        Ok(values)
    }
}

/// Returns the error of a field that holds `what`.
fn no_language(field: &[String], what: &str) -> Error {
    Error::config(format!("`{}` holds {what}: it names no language", field.join(".")))
        .remedy("name the field that holds the language, or the language: lang = \"yor\"")
}

/// Refuses a field with too many texts.
fn refuse_many(field: &[String], count: usize) -> Result<()> {
    if count <= MAX_VALUES {
        return Ok(());
    }
    Err(no_language(field, &format!("more than {MAX_VALUES} different texts")))
}

/// A language of a field: its spellings, and the inputs that have records of it.
#[derive(Default)]
struct Found {
    values: BTreeSet<String>,
    missing: bool,
    inputs: BTreeSet<usize>,
}

/// Returns the sources by language that `source` stands for, in order of language.
fn divided(
    source: &Source,
    field: &[String],
    inputs: &BTreeMap<usize, Values>,
) -> Result<Vec<Source>> {
    let mut languages: BTreeMap<String, Found> = BTreeMap::new();
    for (&nth, values) in inputs {
        for value in values {
            let code = value.as_deref().map_or_else(|| UNDETERMINED.to_owned(), code_or_text);
            let found = languages.entry(code).or_default();
            found.missing |= value.is_none();
            found.values.extend(value.clone());
            found.inputs.insert(nth);
        }
    }
    if languages.is_empty() {
        return Err(
            Error::input("its files hold no record, so no language").remedy("check `files`")
        );
    }
    if languages.values().all(|found| found.values.is_empty()) {
        return Err(Error::config(format!("no record has a text in `{}`", field.join(".")))
            .remedy("check the name of the field in `lang`"));
    }
    refuse_many(field, languages.values().map(|found| found.values.len()).sum())?;
    languages.into_iter().map(|(code, found)| of_language(source, field, code, found)).collect()
}

/// Returns the source that reads one language of `source`.
fn of_language(source: &Source, field: &[String], code: String, found: Found) -> Result<Source> {
    let Found { values, missing, inputs } = found;
    // As it is written where it is always written so: templates may name fields by it.
    let shown = match values.first() {
        Some(only) if values.len() == 1 && !missing => only.clone(),
        _ => code.clone(),
    };
    let holds = |segment: &super::SegmentSpec| segment.template().contains(LANG);
    // A language that no template shows may be any text.
    let put = |segments: &Vec<super::SegmentSpec>| {
        if segments.iter().any(holds) {
            in_segments(segments, &shown)
        } else {
            Ok(segments.clone())
        }
    };
    let record_name = name_of(&source.record_name, &shown);
    let segments = put(&source.segments)?;
    let templates = source.templates.iter().map(put).collect::<Result<_>>()?;
    let when = match &source.when {
        Some(when) if when.contains(LANG) => Some(in_template(when, &shown)?),
        when => when.clone(),
    };
    let values = values.into_iter().collect();
    Ok(Source {
        name: full_name(&record_name, source.document.as_deref()),
        record_name,
        task: in_text(&source.task, &shown),
        lang: code,
        lang_field: None,
        training_inputs: inputs.iter().filter(|&&nth| nth < source.training_inputs).count(),
        inputs: inputs.iter().map(|&nth| source.inputs[nth]).collect(),
        options: FormatOptions {
            only: Some(Only { field: field.to_owned(), values, missing }),
            ..source.options.clone()
        },
        segments,
        templates,
        chat: source.chat.as_ref().map(|chat| chat.with_language(&shown)).transpose()?,
        tagged: source.tagged.as_ref().map(|tagged| tagged.with_language(&shown)),
        when,
        each: source.each.as_ref().map(|each| in_text(each, &shown)),
        written_lang: shown,
        ..source.clone()
    })
}
