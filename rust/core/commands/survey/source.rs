//! A source as a survey shows it: its files, its fields, its first records.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::estimate::Estimate;
use super::fields::SurveyedField;
use super::labels;
use super::resolve::Bench;
use super::sampled::Sampled;
use crate::commands::explain::{explain_fields, spans_of};
use crate::context::Context;
use crate::error::{Place, Result};
use crate::plan::{Augment, ChatSpec, Plan, SegmentSpec, Source, TaggedSpec, language_name};
use crate::read::Fields;
use crate::schema::{RecordId, Role};
use crate::segment::Rendered;
use crate::storage::{BOM, Bounded, Compression, Storage};

/// The names of files that are listed.
const NAMED: usize = 3;
/// The letters of a record, and its tokens, that are shown.
const LETTERS: usize = 2000;
const TOKENS: usize = 200;
/// Bytes of content within which the line of a record is looked up.
const LINES: u64 = 4 << 20;

/// A source of a surveyed corpus.
#[derive(Debug, Clone, Serialize)]
pub struct SurveyedSource {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: String,
    /// Its language, as written.
    pub lang: String,
    /// The English name of that language, if it is known.
    pub language: Option<&'static str>,
    /// The files that are trained on.
    pub files: SurveyedFiles,
    /// The files that are held out.
    pub validation_files: SurveyedFiles,
    /// The name of its format.
    pub format: String,
    /// The format in words, with its dialect.
    pub described: String,
    /// The encoding of its files.
    pub encoding: String,
    /// How its files are compressed; none if they are plain.
    pub compression: Option<String>,
    /// The templates of its prompts and targets.
    pub segments: Vec<SegmentSpec>,
    /// The conversations of its records, in place of segments.
    pub chat: Option<ChatSpec>,
    /// The task that is made from its texts.
    pub augment: Option<Augment>,
    /// The tagged texts of its records, in place of segments.
    pub tagged: Option<TaggedSpec>,
    /// Its templates, where it has several.
    pub templates: Vec<Vec<SegmentSpec>>,
    /// The condition of a document.
    pub when: Option<String>,
    /// The list of which each element makes a document.
    pub each: Option<String>,
    /// The fields of the sampled records.
    pub fields: Vec<SurveyedField>,
    /// Its first records, as documents.
    pub records: Vec<ShownRecord>,
    /// The numbers of the sample.
    pub sample: SampleFacts,
    /// What would come of it; none without a tokenizer.
    pub estimate: Option<Estimate>,
}

/// Some files.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SurveyedFiles {
    /// Their number.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The names of the first ones.
    pub names: Vec<String>,
}

/// The numbers of a sample.
#[derive(Debug, Clone, Serialize)]
pub struct SampleFacts {
    /// Files that were read.
    pub files: usize,
    /// Records that were read.
    pub records: u64,
    /// Records that were tokenized too.
    pub tokenized: u64,
    /// Whether every record of every file was read.
    pub whole: bool,
    /// Dropped records by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Records that cleaning changed, by the key of `clean` that asked for the change.
    pub cleaned: BTreeMap<&'static str, u64>,
}

/// A record, rendered and tokenized.
#[derive(Debug, Clone, Serialize)]
pub struct ShownRecord {
    /// Its file.
    pub file: String,
    /// Its line or row (`line` or `row`), from 1, if it lies near the start of its file.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Its text, span by span.
    pub spans: Vec<ShownSpan>,
    /// Its first tokens.
    pub tokens: Vec<ShownPiece>,
    /// The number of its tokens, and of those that are trained.
    pub token_count: usize,
    /// The number of its trained tokens.
    pub trained: usize,
    /// Whether text or tokens go on beyond what is shown.
    pub cut: bool,
    /// The reason why it makes no document, if it makes none.
    pub dropped: Option<String>,
    #[serde(skip)]
    id: u64,
}

/// A span of a shown record.
#[derive(Debug, Clone, Serialize)]
pub struct ShownSpan {
    /// Its role, by number.
    pub role: u8,
    /// Whether the template spelled it.
    pub literal: bool,
    /// Its text.
    pub text: String,
}

/// A token of a shown record.
#[derive(Debug, Clone, Serialize)]
pub struct ShownPiece {
    /// The text that it adds.
    pub text: String,
    /// Its role, by number.
    pub role: u8,
    /// Whether it is trained.
    pub trained: bool,
}

impl ShownRecord {
    /// Shows the record `id` of the source `index`. Its file and line are found later.
    pub(super) fn of(bench: &Bench, index: usize, id: u64, fields: &Fields) -> Result<Self> {
        let mut shown = Self {
            file: String::new(),
            place: None,
            spans: Vec::new(),
            tokens: Vec::new(),
            token_count: 0,
            trained: 0,
            cut: false,
            dropped: None,
            id,
        };
        let (spans, dropped) = if let Some(job) = bench.job() {
            let mut documents = explain_fields(job, index, Some(id), Ok(fields.clone()))?;
            let tokens = || documents.iter().flat_map(|document| &document.tokens);
            shown.token_count = tokens().count();
            shown.trained = tokens().filter(|token| token.trained).count();
            shown.cut = shown.token_count > TOKENS;
            let dropped = documents.iter_mut().find_map(|document| document.dropped.take());
            let (spans, tokens): (Vec<_>, Vec<_>) =
                documents.into_iter().map(|document| (document.spans, document.tokens)).unzip();
            let first = tokens.into_iter().flatten().take(TOKENS);
            shown.tokens = first
                .map(|token| ShownPiece {
                    text: token.piece,
                    role: token.role as u8,
                    trained: token.trained,
                })
                .collect();
            (spans.concat(), dropped)
        } else {
            let mut rendered = Rendered::default();
            rendered.begin(id);
            let mut spans = Vec::new();
            let builder = bench.builder(index);
            let made = builder.build(fields, &mut rendered, &mut |rendered| {
                spans.extend(spans_of(rendered));
                builder.refuse(rendered)
            });
            (spans, made.err())
        };
        shown.dropped =
            dropped.map(|refusal| format!("{}: {}", refusal.reason.name(), refusal.why));
        shown.add_spans(spans);
        Ok(shown)
    }

    /// Adds spans, up to so many letters.
    fn add_spans(&mut self, spans: Vec<(Role, bool, String)>) {
        let mut left = LETTERS;
        for (role, literal, text) in spans {
            let kept: String = text.chars().take(left).collect();
            self.cut |= kept.len() < text.len();
            left -= kept.chars().count();
            if !kept.is_empty() {
                self.spans.push(ShownSpan { role: role as u8, literal, text: kept });
            }
        }
    }
}

/// Returns the file of a record and its line, if that can be found without reading much.
pub(super) fn place_of(
    plan: &Plan,
    source: usize,
    id: u64,
    context: &Context<'_>,
) -> (String, Option<Place>) {
    let source = &plan.sources[source];
    let RecordId { nth_input, offset } = RecordId::unpack(id);
    let name = plan.inputs[source.inputs[nth_input]].name.clone();
    if offset > LINES {
        return (name, None);
    }
    let bounded = Bounded::new(context.storage, 2 * LINES);
    let place = plan.place_of(source, id, &Context { storage: &bounded, ..*context });
    (name, place.ok())
}

/// Returns a source of `plan` as the survey shows it.
pub(super) fn surveyed(
    plan: &Plan,
    index: usize,
    sampled: Sampled,
    estimate: Option<Estimate>,
    context: &Context<'_>,
) -> SurveyedSource {
    let source = &plan.sources[index];
    let (training, held_out) = source.inputs.split_at(source.training_inputs);
    let (sums, whole) = (sampled.sums(), sampled.is_whole());
    let mut records = sampled.shown;
    for record in &mut records {
        (record.file, record.place) = place_of(plan, index, record.id, context);
    }
    let (encoding, compression) = content_of(plan, source, context);
    let mut fields = sampled.fields.listed();
    labels::add_names(source, &mut fields);
    let drops = sampled.drops.iter().map(|(reason, (count, _))| (reason.name(), *count));
    SurveyedSource {
        name: source.name.clone(),
        task: source.task.clone(),
        lang: source.lang.clone(),
        language: language_name(&source.lang),
        files: files_of(plan, training),
        validation_files: files_of(plan, held_out),
        format: source.format.to_string(),
        described: source
            .dialect
            .clone()
            .unwrap_or_else(|| source.format.get().described(&source.options)),
        encoding,
        compression,
        segments: source.segments.clone(),
        chat: source.chat.clone(),
        augment: source.augment.clone(),
        tagged: source.tagged.clone(),
        templates: source.templates.clone(),
        when: source.when.clone(),
        each: source.each.clone(),
        fields,
        records,
        sample: SampleFacts {
            files: sampled.inputs.iter().filter(|input| input.is_read).count(),
            records: sampled.records,
            tokenized: sums.records,
            whole,
            drops: drops.collect(),
            cleaned: sampled
                .cleaned
                .iter()
                .map(|(change, count)| (change.name(), *count))
                .collect(),
        },
        estimate,
    }
}

/// Returns the number, the bytes and the first names of some inputs.
fn files_of(plan: &Plan, inputs: &[usize]) -> SurveyedFiles {
    let inputs = || inputs.iter().map(|&input| &plan.inputs[input]);
    SurveyedFiles {
        count: inputs().count(),
        bytes: inputs().map(|input| input.size).sum(),
        names: inputs().take(NAMED).map(|input| input.name.clone()).collect(),
    }
}

/// Returns the encoding of some inputs and how they are compressed, in words.
fn content_of(plan: &Plan, source: &Source, context: &Context<'_>) -> (String, Option<String>) {
    let (inputs, given) = (&source.inputs, source.options.encoding);
    let inputs = || inputs.iter().map(|&input| &plan.inputs[input]);
    let has_mark = |path: &std::path::Path| {
        let bounded = Bounded::new(context.storage, HEAD);
        let storage: &dyn Storage = &bounded;
        let mut content = storage.open_content(path, 0).ok()?;
        content.fill_buf().ok().map(|start| start.starts_with(BOM))
    };
    let marked = inputs().next().and_then(|input| has_mark(&input.path)) == Some(true);
    let encoding = match given {
        Some(encoding) => encoding.name().to_owned(),
        None if marked => "UTF-8 with a byte order mark".to_owned(),
        None => "UTF-8".to_owned(),
    };
    let all: Vec<Option<&str>> = inputs()
        .map(|input| Compression::of(&input.path).map(|compression| compression.name))
        .collect();
    let names: BTreeSet<&str> = all.iter().copied().flatten().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let compression = match names.as_slice() {
        [] => None,
        [one] if all.iter().all(Option::is_some) => Some((*one).to_owned()),
        some => Some(format!("some by {}", some.join(" or "))),
    };
    (encoding, compression)
}

/// The most bytes that are read of a file to see how it begins.
const HEAD: u64 = 1 << 20;
