//! Trains a tokenizer on every text that the records of a corpus render to, without its tags.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::monitor::Phase;
use crate::plan::{HubFiles, PackOptions, Plan, TokenizerChats};
use crate::read::{InputSplit, Records};
use crate::report;
use crate::schema::{DropReason, Refusal};
use crate::segment::{
    Controls, Rendered, SegmentBuilder, Segmenter, TokenNames, builder_of, find_named,
};
use crate::spool::Tally;
use crate::tokenize::{tags_of, train_bpe};
use crate::write::ExampleEntry;

/// A trained tokenizer, with the counts of the records it was trained on.
#[derive(Debug, Clone)]
pub struct TokenizerReport {
    /// The bytes of its tokenizer.json.
    pub json: Vec<u8>,
    /// The number of entries in its vocabulary.
    pub vocab_size: usize,
    /// Its special tokens; EOS is the first.
    pub specials: Vec<String>,
    /// Records it was trained on.
    pub records: u64,
    /// Records passed over (malformed, a field missing…).
    pub passed_over: u64,
    /// Records passed over, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The lowest records passed over for each reason, source by source.
    pub examples: Vec<ExampleEntry>,
}

/// Trains a byte-level BPE of `vocab_size` entries on the folder `corpus` and writes it to `file`.
/// Returns the tokenizer with its counts.
pub fn train_tokenizer(
    corpus: &Path,
    file: &Path,
    vocab_size: usize,
    overwrite: bool,
    context: &Context<'_>,
) -> Result<TokenizerReport> {
    train_tokenizer_with(corpus, HubFiles::default(), file, (vocab_size, overwrite), context)
}

/// Trains a tokenizer as [`train_tokenizer`] does. `hub` has the files of the Hugging Face Hub that
/// the corpus names.
pub fn train_tokenizer_with(
    corpus: &Path,
    hub: HubFiles,
    file: &Path,
    (vocab_size, overwrite): (usize, bool),
    context: &Context<'_>,
) -> Result<TokenizerReport> {
    if context.storage.exists(file) && !overwrite {
        return Err(Error::output("exists already")
            .file(file.display().to_string())
            .remedy("pass --overwrite to replace it")
            .io_kind(std::io::ErrorKind::AlreadyExists));
    }
    let options = PackOptions { hub, ..PackOptions::default() };
    let plan = Plan::load(corpus, &options, context.storage)?.with_languages(context)?;
    // Better to know now whether the file can be written than after minutes of training.
    context.storage.make_parent(file)?;
    let report = train(plan, vocab_size, context)?;
    context.storage.write_file(file, &report.json)?;
    Ok(report)
}

/// Trains on the corpus of `plan`.
fn train(plan: Plan, vocab_size: usize, context: &Context<'_>) -> Result<TokenizerReport> {
    let mut plan = plan;
    let names = names_of(&plan);
    for source in &mut plan.sources {
        find_named(source, &TokenizerChats::default(), &names)
            .map_err(|error| error.file(plan.config_file.clone()))?;
    }
    let plan = &plan;
    let specials = specials_of(plan);
    let spellings = Controls::new(specials.iter().map(String::as_str));
    let builders = builders_of(plan, &names, &spellings)?;
    let inputs = plan.sources.iter().flat_map(|source| &source.inputs);
    let bytes = inputs.map(|&input| plan.inputs[input].size).sum();
    context.monitor.begin(Phase::Train, bytes);
    // An iterator cannot return an error, so it is put here.
    let stopped: Mutex<Option<Error>> = Mutex::new(None);
    let mut texts = Texts {
        plan,
        builders: &builders,
        spellings: &spellings,
        splits: plan.splits(context.storage)?.into_iter(),
        open: None,
        pending: Vec::new(),
        context,
        stopped: &stopped,
        tallies: vec![Tally::default(); plan.sources.len()],
    };
    let trained = train_bpe(&mut texts, vocab_size, &specials)?;
    // A tokenizer trained on half of the texts is of no use.
    context.monitor.check()?;
    let tallies = std::mem::take(&mut texts.tallies);
    if let Some(error) = stopped.into_inner().expect("nothing panics while it holds the error") {
        return Err(error);
    }
    let (drops, examples) = passed_over(plan, &tallies, context)?;
    let passed_over = drops.values().sum();
    let records = context.monitor.records.load(Relaxed) - passed_over;
    if records == 0 {
        return Err(no_text(plan, passed_over, examples.first()));
    }
    let (json, vocab_size) = (trained.json, trained.vocab_size);
    Ok(TokenizerReport { json, vocab_size, specials, records, passed_over, drops, examples })
}

/// The blanks that are made tokens, as many as T5 has.
const BLANKS: u64 = 100;

/// Returns the special tokens: EOS, the other control tokens of the plan, the tags of templates.
fn specials_of(plan: &Plan) -> Vec<String> {
    let named = &plan.tokenizer;
    let mut specials = vec![eos_of(plan)];
    let controls =
        [&named.bos, &named.pad].into_iter().flatten().filter(|token| !token.is_empty()).cloned();
    let made = plan.sources.iter().filter_map(|source| source.augment.as_ref());
    let blanks: Vec<String> =
        made.flat_map(|made| (0..BLANKS).filter_map(|nth| made.blank(nth))).collect();
    let literals = plan.sources.iter().flat_map(Segmenter::literals);
    let tags = tags_of(literals.chain(blanks.iter().map(String::as_str)));
    for token in controls.chain(tags) {
        if !specials.contains(&token) {
            specials.push(token);
        }
    }
    specials
}

/// Returns the token that closes every document.
fn eos_of(plan: &Plan) -> String {
    plan.tokenizer.eos.clone().unwrap_or_else(|| "</s>".to_owned())
}

/// Compiles the templates of every source for the tokenizer to come.
fn builders_of(
    plan: &Plan,
    names: &TokenNames,
    spellings: &Controls,
) -> Result<Vec<Box<dyn SegmentBuilder>>> {
    let compile = |source| builder_of(source, spellings, names, plan.pack.seed);
    let builders = plan.sources.iter().map(compile).collect::<Result<_>>();
    builders.map_err(|error| error.file(plan.config_file.clone()))
}

/// Returns the tokens that templates know by name.
fn names_of(plan: &Plan) -> TokenNames {
    let (named, eos) = (&plan.tokenizer, &eos_of(plan));
    let pad = named.pad.as_ref().unwrap_or(eos);
    let names =
        [("bos_token", named.bos.as_ref()), ("eos_token", Some(eos)), ("pad_token", Some(pad))];
    let named = |(name, token): (&str, Option<&String>)| Some((name.to_owned(), token?.clone()));
    names.into_iter().filter_map(named).collect()
}

/// Returns the counts of records passed over by reason, and the lowest of each source and reason.
fn passed_over(
    plan: &Plan,
    tallies: &[Tally],
    context: &Context<'_>,
) -> Result<(BTreeMap<String, u64>, Vec<ExampleEntry>)> {
    let mut drops: BTreeMap<String, u64> = BTreeMap::new();
    let mut examples = Vec::new();
    for (source, tally) in plan.sources.iter().zip(tallies) {
        let counts = DropReason::ALL.into_iter().zip(tally.drops);
        for (reason, count) in counts.filter(|(_, count)| *count > 0) {
            *drops.entry(reason.name().to_owned()).or_default() += count;
        }
        for example in &tally.examples {
            examples.push(report::example_entry(plan, source, example, context)?);
        }
    }
    Ok((drops, examples))
}

/// Returns the error of a corpus whose records all were passed over.
fn no_text(plan: &Plan, passed_over: u64, first: Option<&ExampleEntry>) -> Error {
    let shown = |example: &ExampleEntry| {
        let ExampleEntry { reason, file, place, why } = example;
        format!("; the first: {file}{place}: {reason}: {why}")
    };
    let first = first.map(shown).unwrap_or_default();
    Error::input(format!(
        "no record gave any text to train on (records read: {passed_over}){first}"
    ))
    .file(plan.config_file.clone())
    .remedy("check `files`, `format` and `segments`")
}

/// The texts of a corpus, one split after another. An error ends them and is put in `stopped`.
struct Texts<'a> {
    plan: &'a Plan,
    builders: &'a [Box<dyn SegmentBuilder>],
    spellings: &'a Controls,
    splits: std::vec::IntoIter<InputSplit>,
    /// The records of the split being read, with their source.
    open: Option<(usize, Records)>,
    /// Texts of the last record that were not yet returned.
    pending: Vec<String>,
    context: &'a Context<'a>,
    stopped: &'a Mutex<Option<Error>>,
    /// Counts of the records passed over, by source.
    tallies: Vec<Tally>,
}

impl Texts<'_> {
    /// Reads on until there is a text. Returns `false` at the end of the corpus.
    fn advance(&mut self) -> Result<bool> {
        let mut rendered = Rendered::default();
        while self.pending.is_empty() {
            self.context.monitor.check()?;
            let Some((source, records)) = &mut self.open else {
                let Some(split) = self.splits.next() else { return Ok(false) };
                let builder = &self.builders[split.source];
                let (wanted, needed) = (builder.wanted(), builder.needed());
                let records = self.plan.open_for(&split, wanted, needed, self.context)?;
                self.open = Some((split.source, records));
                continue;
            };
            let Some(record) = records.advance()? else {
                self.open = None;
                continue;
            };
            self.context.monitor.records.fetch_add(1, Relaxed);
            self.context.monitor.done.fetch_add(record.bytes() as u64 + 1, Relaxed);
            // Apart from `pending`: a record that is refused after its first document gives none.
            let mut texts = Vec::new();
            let builder = &*self.builders[*source];
            rendered.begin(record.id);
            let built = builder.build_record(&record, &mut rendered, &mut |rendered| {
                builder.refuse(rendered)?;
                // What is made of a text is noise, or the text again.
                if let Some(text) = &rendered.origin {
                    texts.extend(self.spellings.between(text).map(str::to_owned));
                    return Ok(());
                }
                for run in rendered.runs() {
                    texts.extend(self.spellings.between(run.text).map(str::to_owned));
                }
                Ok(())
            });
            match built {
                Ok(()) => self.pending.append(&mut texts),
                Err(Refusal { reason, why }) => {
                    self.tallies[*source].drop_record(reason, record.id, || why);
                }
            }
        }
        Ok(true)
    }
}

impl Iterator for Texts<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if let Err(error) = self.advance() {
            *self.stopped.lock().expect("nothing panics while it holds the error") = Some(error);
            return None;
        }
        self.pending.pop()
    }
}
