//! Explains one record: shows it at every stage, as `pack` would treat it.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::mask::push_piece_mask;
use crate::pipeline::{Scratch, fit};
use crate::plan::{Plan, Source, nearest};
use crate::read::{self, Fields};
use crate::schema::{Refusal, Role, Run, Weight, push_run};
use crate::segment::{Rendered, Way};
use crate::tokenize::Document;

/// A document of a record at every stage; or the record, if it makes none.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The name of its source.
    pub source: String,
    /// The part of the record that it is made of, in words; empty for the whole record.
    pub part: String,
    /// The rendered text, span by span: its role, whether the template spelled it, and the text.
    pub spans: Vec<(Role, bool, String)>,
    /// The texts that are encoded separately.
    pub runs: Vec<String>,
    /// The tokens, window after window.
    pub tokens: Vec<ShownToken>,
    /// Whether data was shortened to fit a row.
    pub truncated: bool,
    /// The weight of its documents in the loss, if its source has weights.
    pub weight: Option<f32>,
    /// The changes that cleaning made: each by its key, with its first example.
    pub cleaned: Vec<(&'static str, String)>,
    /// The documents of the record that were left out; the first document has them.
    pub left_out: Vec<Refusal>,
    /// The reason why the record makes no document, if it makes none.
    pub dropped: Option<Refusal>,
}

/// A token of an explained record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownToken {
    pub id: u32,
    /// The text that it adds.
    pub piece: String,
    pub role: Role,
    /// Whether the loss counts it.
    pub trained: bool,
    /// The index of its window.
    pub window: u32,
}

/// Explains `record`, a JSON object, as a record of the source named `source`: each of its
/// documents, of every document table.
pub fn explain(
    plan: Plan,
    source: &str,
    record: &[u8],
    context: &Context<'_>,
) -> Result<Vec<Explanation>> {
    let plan = plan.with_languages(context)?;
    let indices = sources_named(&plan, source)?;
    let job = Job::prepare(plan, context)?;
    let mut documents = Vec::new();
    for index in indices {
        let renames = &job.plan.sources[index].options.rename;
        let fields = read::parse_json(record).and_then(|fields| read::renamed(fields, renames));
        documents.extend(explain_fields(&job, index, None, fields)?);
    }
    Ok(documents)
}

/// Explains the record `record_id` of the source `index`, whose fields were read; `None` for one that
/// lies in no file: it is explained as the first of one, by every template. Returns at least one
/// explanation.
pub(super) fn explain_fields(
    job: &Job,
    index: usize,
    record_id: Option<u64>,
    fields: std::result::Result<Fields, Refusal>,
) -> Result<Vec<Explanation>> {
    let mut scratch = Scratch::showing(job);
    scratch.rendered.in_no_file = record_id.is_none();
    let id = record_id.unwrap_or(0);
    let fitted = fields.and_then(|fields| fit(job, index, id, fields, &mut scratch));
    let truncated = match fitted {
        Ok(truncated) => truncated,
        // A record that is dropped after rendering still shows its text.
        Err(refusal) => {
            let dropped = Some(refusal);
            return Ok(vec![Explanation { dropped, ..shown(job, index, &scratch.rendered) }]);
        }
    };
    let mut documents = Vec::new();
    for (rendered, document) in scratch.shown().iter().zip(&scratch.documents) {
        let mut out = Explanation { truncated, ..shown(job, index, rendered) };
        add_tokens(job, index, document, &mut out)?;
        documents.push(out);
    }
    if let Some(first) = documents.first_mut() {
        first.cleaned = cleaned_of(&scratch.rendered);
        first.left_out.clone_from(&scratch.rendered.left_out);
    }
    Ok(documents)
}

/// Returns the explanation of a rendered document, without its tokens.
fn shown(job: &Job, index: usize, rendered: &Rendered) -> Explanation {
    let source = &job.plan.sources[index];
    Explanation {
        source: source.name.clone(),
        part: part_of(source, rendered),
        spans: spans_of(rendered),
        runs: rendered.runs().iter().map(|run| run.text.to_owned()).collect(),
        tokens: vec![],
        truncated: false,
        weight: rendered.weight.map(Weight::value),
        cleaned: cleaned_of(rendered),
        left_out: Vec::new(),
        dropped: None,
    }
}

/// Returns the element and the template that a document is made of, in words.
fn part_of(source: &Source, rendered: &Rendered) -> String {
    let Way { element, template } = rendered.way;
    let list = source.each.as_deref().unwrap_or_default();
    let element = element.map(|nth| format!("element {} of `{list}`", nth + 1));
    let count = source.templates.len();
    let template = template.map(|nth| format!("template {} of {count}", nth + 1));
    element.into_iter().chain(template).collect::<Vec<_>>().join(", ")
}

/// Returns the changes that cleaning made in a rendered record.
fn cleaned_of(rendered: &Rendered) -> Vec<(&'static str, String)> {
    let changes = rendered.touched.iter();
    changes.map(|(change, example)| (change.name(), example.to_owned())).collect()
}

/// Returns the spans of a rendered record: role, whether the template spelled it, and text.
pub(super) fn spans_of(rendered: &Rendered) -> Vec<(Role, bool, String)> {
    let starts = std::iter::once(0).chain(rendered.spans.iter().map(|span| span.end));
    let spans = starts.zip(&rendered.spans);
    spans
        .map(|(start, span)| (span.role, span.literal, rendered.text[start..span.end].to_owned()))
        .collect()
}

/// Appends the tokens of a document, window after window.
fn add_tokens(job: &Job, source: usize, document: &Document, out: &mut Explanation) -> Result<()> {
    for (window, range) in (0..).zip(job.plan.pack.windows(document.ids.len())) {
        let ids = &document.ids[range.clone()];
        let runs = cut_runs(&document.runs, range.start, range.end);
        let mut mask = Vec::new();
        push_piece_mask(&document.runs, range, job.plan.sources[source].loss, &mut mask);
        let roles = runs.iter().flat_map(|run| std::iter::repeat_n(run.role, run.len as usize));
        let pieces = job.encoder.pieces(ids)?;
        for (((&id, piece), role), trained) in ids.iter().zip(pieces).zip(roles).zip(mask) {
            out.tokens.push(ShownToken { id, piece, role, trained, window });
        }
    }
    Ok(())
}

/// Returns the index of the source named `name`; or those of its document tables.
fn sources_named(plan: &Plan, name: &str) -> Result<Vec<usize>> {
    let indices = |is_named: &dyn Fn(&Source) -> bool| -> Vec<usize> {
        let sources = plan.sources.iter().enumerate();
        sources.filter(|(_, source)| is_named(source)).map(|(index, _)| index).collect()
    };
    let mut found = indices(&|source| source.name == name);
    if found.is_empty() {
        found = indices(&|source| source.document.is_some() && source.record_name == name);
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let names = || plan.sources.iter().map(|known| known.name.as_str());
    let near = nearest(name, names());
    let hint = near.map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
    let names: Vec<&str> = names().collect();
    Err(Error::config(format!("no source is named '{name}'"))
        .file(plan.config_file.clone())
        .remedy(format!("{hint}sources: {}", names.join(", "))))
}

/// Returns the role runs of tokens `start..end`.
fn cut_runs(runs: &[Run], start: usize, end: usize) -> Vec<Run> {
    let mut cut = Vec::new();
    let mut from = 0;
    for run in runs {
        let to = from + run.len as usize;
        let len = to.min(end).saturating_sub(from.max(start));
        push_run(&mut cut, len as u32, run.role);
        from = to;
    }
    cut
}
