//! Makes the documents of a record, of any length: renders and encodes them.

use crate::job::Job;
use crate::read::Record;
use crate::schema::{DropReason, MAX_PARTS, Refusal, SpecialInData, Weight};
use crate::segment::{Each, Fields, Rendered, Way, refuse_tokens};
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
    /// The way to each document made last, and its tokens: they may be taken already.
    ways: Vec<(Way, usize)>,
    /// The way to each document of the whole record; other texts are left out of it.
    kept: Vec<Way>,
    /// The buffers of the tokenizer.
    session: Session,
    /// The rendered texts of the documents, if they are to be shown.
    shown: Option<Vec<Rendered>>,
}

impl Scratch {
    /// Returns empty buffers.
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            rendered: Rendered::default(),
            documents: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            ways: Vec::new(),
            kept: Vec::new(),
            session: job.encoder.session(),
            shown: None,
        }
    }

    /// Returns empty buffers that keep the rendered texts.
    pub(crate) fn showing(job: &Job) -> Self {
        Self { shown: Some(Vec::new()), ..Self::new(job) }
    }

    /// Returns the rendered texts of the documents at hand, if they are kept.
    pub(crate) fn shown(&self) -> &[Rendered] {
        self.shown.as_deref().unwrap_or_default()
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

    /// Returns whether the documents at hand are all those of the whole record.
    pub(crate) fn is_complete(&self) -> bool {
        self.ways.len() == self.kept.len()
    }

    /// Returns the tokens of the document of an element of a list, 0 where no list is taken apart;
    /// `None` if it makes none.
    pub(crate) fn len_of(&self, element: usize) -> Option<usize> {
        let mut ways = self.ways.iter();
        ways.find(|(way, _)| way.element.unwrap_or(0) == element).map(|(_, len)| *len)
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
    let build =
        |rendered: &mut Rendered, each: &mut Each<'_>| builder.build_record(record, rendered, each);
    scratch.rendered.begin(record.id);
    make_whole(job, source, scratch, build)
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
    scratch.rendered.begin(scratch.rendered.record_id);
    make_whole(job, source, scratch, build)
}

/// Makes the documents of the record at hand again, of shortened `fields`, if `is_wanted` holds for
/// every rendered text. Returns whether it does. No filter judges shortened texts.
pub(crate) fn prepare_if(
    job: &Job,
    source: usize,
    fields: &Fields,
    scratch: &mut Scratch,
    mut is_wanted: impl FnMut(&Rendered) -> bool,
) -> Result<bool, Refusal> {
    let Scratch { rendered, documents, text, ends, ways, kept, session, shown } = scratch;
    let mut texts = Texts { text, ends, shown };
    documents.clear();
    texts.clear();
    ways.clear();
    let mut all_wanted = true;
    rendered.begin_again();
    job.builders[source].build(fields, rendered, &mut |rendered| {
        all_wanted = all_wanted && is_wanted(rendered);
        // What the whole record left out stays out.
        if all_wanted && kept.contains(&rendered.way) {
            let document = encode(job, source, rendered, session)?;
            texts.push(rendered);
            ways.push((rendered.way, document.ids.len()));
            documents.push(document);
        }
        Ok(())
    })?;
    Ok(all_wanted && documents.len() == kept.len())
}

/// Makes the documents whose texts `build` renders. Refuses texts that the source filters out, and
/// a record of too many documents.
fn make_whole(
    job: &Job,
    source: usize,
    scratch: &mut Scratch,
    build: impl FnOnce(&mut Rendered, &mut Each<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Scratch { rendered, documents, text, ends, ways, kept, session, shown } = scratch;
    let mut texts = Texts { text, ends, shown };
    documents.clear();
    texts.clear();
    ways.clear();
    let mut are_too_many = false;
    build(rendered, &mut |rendered| {
        if documents.len() == MAX_PARTS as usize {
            are_too_many = true;
            return Ok(());
        }
        texts.push(rendered);
        // A builder of several documents goes on without those that are refused.
        let document = judged(job, source, rendered, session);
        let document = document.inspect_err(|_| texts.forget_last())?;
        ways.push((rendered.way, document.ids.len()));
        documents.push(document);
        Ok(())
    })?;
    kept.clear();
    kept.extend(ways.iter().map(|(way, _)| *way));
    if are_too_many {
        let why = format!("it makes more than {MAX_PARTS} documents, the most of a record");
        return Err(Refusal::new(DropReason::TooManyDocuments, why));
    }
    Ok(())
}

/// Encodes a rendered text, unless its source filters it out.
fn judged(
    job: &Job,
    source: usize,
    rendered: &Rendered,
    session: &mut Session,
) -> Result<Document, Refusal> {
    job.builders[source].refuse(rendered)?;
    let document = encode(job, source, rendered, session)?;
    if let Some(filter) = &job.plan.sources[source].filter {
        refuse_tokens(filter, document.ids.len())?;
    }
    Ok(document)
}

/// The texts of the documents of a record.
struct Texts<'a> {
    text: &'a mut String,
    ends: &'a mut Vec<usize>,
    /// The documents as they were rendered, if they are to be shown.
    shown: &'a mut Option<Vec<Rendered>>,
}

impl Texts<'_> {
    /// Removes every text.
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.shown.iter_mut().for_each(Vec::clear);
    }

    /// Appends the text of a document.
    fn push(&mut self, rendered: &Rendered) {
        if !self.ends.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&rendered.text);
        self.ends.push(self.text.len());
        self.shown.iter_mut().for_each(|shown| shown.push(rendered.clone()));
    }

    /// Removes the last text.
    fn forget_last(&mut self) {
        self.ends.pop();
        self.shown.iter_mut().for_each(|shown| drop(shown.pop()));
        self.text.truncate(self.ends.last().copied().unwrap_or(0));
    }
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
    let mut document = job.encoder.encode(rendered, session)?;
    document.weight = rendered.weight;
    document.marks.weightless = rendered.weight.is_some_and(Weight::is_zero).into();
    Ok(document)
}
