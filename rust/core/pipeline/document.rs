//! Makes the documents of a record, of any length: renders and encodes them.

use crate::job::Job;
use crate::read::Record;
use crate::schema::{DropReason, Refusal, SpecialInData, Weight};
use crate::segment::{Each, Fields, Rendered, refuse_tokens};
use crate::tokenize::{Document, Session};

/// The buffers that one thread uses again for every record.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The text of the last document.
    pub rendered: Rendered,
    /// The documents of the record at hand.
    pub documents: Vec<Document>,
    /// The texts of these documents, one after another, each ended by a line break but the last.
    pub text: String,
    /// The ends of the documents' texts in `text`.
    ends: Vec<usize>,
    /// The buffers of the tokenizer.
    session: Session,
}

impl Scratch {
    /// Returns empty buffers.
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            rendered: Rendered::default(),
            documents: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            session: job.encoder.session(),
        }
    }

    /// Returns the text of each document of the record at hand.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end + 1));
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }

    /// Returns the text by which the record at hand is told from others: that which its task is
    /// made from, else that of its documents.
    pub(crate) fn content(&self) -> &str {
        self.rendered.origin.as_deref().unwrap_or(&self.text)
    }

    /// Returns the tokens of the longest document of the record at hand.
    pub(crate) fn longest(&self) -> usize {
        self.documents.iter().map(|document| document.ids.len()).max().unwrap_or(0)
    }
}

/// Makes the documents of `record` in `scratch.documents`. Refuses the whole record if one of its
/// documents cannot be made.
pub(crate) fn prepare_record(
    job: &Job,
    source: usize,
    record: &Record<'_>,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let builder = &*job.builders[source];
    scratch.rendered.record_id = record.id;
    let build =
        |rendered: &mut Rendered, each: &mut Each<'_>| builder.build_record(record, rendered, each);
    make(job, source, scratch, |_| true, build, true).map(|_| ())
}

/// Makes the documents of the record with these `fields`, as [`prepare_record`] does. The id of the
/// record is that in `scratch.rendered`.
pub(crate) fn prepare(
    job: &Job,
    source: usize,
    fields: &Fields,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let builder = &*job.builders[source];
    let build =
        |rendered: &mut Rendered, each: &mut Each<'_>| builder.build(fields, rendered, each);
    make(job, source, scratch, |_| true, build, true).map(|_| ())
}

/// Makes documents as [`prepare`] does, if `is_wanted` holds for every rendered text. Returns
/// whether it does. The documents are of shortened fields, so that no filter judges them.
pub(crate) fn prepare_if(
    job: &Job,
    source: usize,
    fields: &Fields,
    scratch: &mut Scratch,
    is_wanted: impl FnMut(&Rendered) -> bool,
) -> Result<bool, Refusal> {
    let builder = &*job.builders[source];
    let build =
        |rendered: &mut Rendered, each: &mut Each<'_>| builder.build(fields, rendered, each);
    make(job, source, scratch, is_wanted, build, false)
}

/// Makes the documents whose texts `build` renders. Stops at a text that is not wanted, and returns
/// whether all were wanted. Refuses a record that its source filters out, if `is_whole`.
fn make(
    job: &Job,
    source: usize,
    scratch: &mut Scratch,
    mut is_wanted: impl FnMut(&Rendered) -> bool,
    build: impl FnOnce(&mut Rendered, &mut Each<'_>) -> Result<(), Refusal>,
    is_whole: bool,
) -> Result<bool, Refusal> {
    let Scratch { rendered, documents, text, ends, session } = scratch;
    rendered.weight = None;
    documents.clear();
    text.clear();
    ends.clear();
    let mut all_wanted = true;
    build(rendered, &mut |rendered| {
        all_wanted = all_wanted && is_wanted(rendered);
        if all_wanted {
            if !documents.is_empty() {
                text.push('\n');
            }
            text.push_str(&rendered.text);
            ends.push(text.len());
            if is_whole {
                job.builders[source].refuse(rendered)?;
            }
            let mut document = encode(job, source, rendered, session)?;
            document.weight = rendered.weight;
            document.marks.weightless = rendered.weight.is_some_and(Weight::is_zero).into();
            if is_whole && let Some(filter) = &job.plan.sources[source].filter {
                refuse_tokens(filter, document.ids.len())?;
            }
            documents.push(document);
        }
        Ok(())
    })?;
    Ok(all_wanted)
}

/// Encodes a rendered text. Refuses control tokens in its data, if the source says so.
fn encode(
    job: &Job,
    source: usize,
    rendered: &Rendered,
    session: &mut Session,
) -> Result<Document, Refusal> {
    if job.plan.sources[source].special_in_data == SpecialInData::Error
        && let Some(token) = job.encoder.control_in_data(rendered)
    {
        let why = format!("its data spells the control token '{token}'");
        return Err(Refusal::new(DropReason::Refused, why));
    }
    job.encoder.encode(rendered, session)
}
