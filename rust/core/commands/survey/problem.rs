//! `Problem`: what is wrong with a corpus, or may be, with its place and its remedy.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use serde::Serialize;

use super::resolve::Bench;
use super::sample::{Dropped, Sampled};
use super::source::place_of;
use crate::context::Context;
use crate::error::{Error, Place};
use crate::pipeline::allowed_unfit;
use crate::plan::{Augment, Plan, UNDETERMINED, code_of, nearest};
use crate::schema::{DropReason, Overflow, RecordId};
use crate::segment::{Step, names_in};
use crate::storage::Compression;

/// Tokens for each word above which a tokenizer does not fit a language, if there are enough words.
const TOKENS_A_WORD: f64 = 4.0;
/// Where words are longer than this, the language writes no spaces: then tokens for each letter.
const LETTERS_A_WORD: f64 = 15.0;
const TOKENS_A_LETTER: f64 = 1.5;
const ENOUGH_WORDS: u64 = 100;
/// The letters of a record that are quoted, and the names that are listed.
const QUOTED: usize = 60;
const NAMED: usize = 3;

/// The kind of a corpus that leaves nothing to train on.
const NOTHING: &str = "nothing to train";

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Packing would fail.
    Error,
    /// Packing would lose records, or may not do what is meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// A problem of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind, one of a fixed list of words.
    pub kind: &'static str,
    /// The source that it is about.
    pub source: Option<String>,
    /// The file that it is about.
    pub file: Option<String>,
    /// The line in that file, or the row: `line` or `row`, from 1.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// The problem in words.
    pub message: String,
    /// The advice to the user.
    pub remedy: Option<String>,
}

impl Problem {
    /// Returns the problem that an error is.
    pub(super) fn of_error(kind: &'static str, error: Error) -> Self {
        Self {
            severity: Severity::Error,
            kind,
            source: error.source_name,
            file: error.file,
            place: error.place,
            message: error.message,
            remedy: error.remedy,
        }
    }

    /// Returns whether packing would fail for it.
    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The problems of one source, as they are found.
struct Found<'a> {
    plan: &'a Plan,
    index: usize,
    sampled: &'a Sampled,
    problems: &'a mut Vec<Problem>,
    context: &'a Context<'a>,
}

/// Adds the problems that the sample of a source shows.
pub(super) fn of_source(
    bench: &Bench,
    index: usize,
    sampled: &Sampled,
    problems: &mut Vec<Problem>,
    context: &Context<'_>,
) {
    let faults = sampled.faults.iter().cloned();
    problems.extend(faults.map(|fault| Problem::of_error("file", fault)));
    let mut found = Found { plan: bench.plan(), index, sampled, problems, context };
    found.fields(bench);
    found.unfit();
    found.drops();
    found.repeated();
    found.empty_files();
    found.language();
    if bench.job().is_some() {
        found.control_tokens();
        found.long_documents();
        found.tokenizer();
    }
}

impl Found<'_> {
    /// Adds a problem without a place.
    fn add(&mut self, severity: Severity, kind: &'static str, message: String, remedy: &str) {
        let source = Some(self.plan.sources[self.index].name.clone());
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        let problem = Problem { severity, kind, source, file: None, place: None, message, remedy };
        self.problems.push(problem);
    }

    /// Adds the place of the record `id` to the last problem.
    fn at(&mut self, id: u64) {
        let (file, place) = place_of(self.plan, self.index, id, self.context);
        if let Some(problem) = self.problems.last_mut() {
            (problem.file, problem.place) = (Some(file), place);
        }
    }

    /// Finds fields that templates name and no record has.
    fn fields(&mut self, bench: &Bench) {
        let fields = &self.sampled.fields;
        if fields.records() == 0 || !fields.is_complete() {
            return;
        }
        let source = &self.plan.sources[self.index];
        let made = source.augment.as_ref().map_or(&[][..], Augment::fields);
        let mut known = Vec::new();
        for path in bench.builder(self.index).named_fields() {
            let keys = path.iter().filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            });
            // Deeper fields than two are not counted.
            let name = keys.take(2).collect::<Vec<_>>().join(".");
            if fields.has(&name) {
                self.list(&name);
                continue;
            }
            let near = nearest(&name, fields.names().chain(made.iter().copied()));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let names: Vec<String> = fields.names().map(|name| format!("`{name}`")).collect();
            let remedy = format!("{near}The fields are {}", names.join(", "));
            let what =
                format!("its templates name the field `{name}`, which no sampled record has");
            self.add(Severity::Error, "field", what, &remedy);
            known.push(name);
        }
        // Templates that do without a field may have its name wrong all the same.
        let asked = source.segments.iter().flat_map(|segment| names_in(segment.template()));
        for name in asked.collect::<BTreeSet<String>>() {
            let is_made =
                source.augment.is_some() && (name == "text" || made.contains(&name.as_str()));
            let is_named = known.iter().any(|known| known.split('.').next() == Some(&name));
            if fields.has(&name) || is_named || is_made {
                continue;
            }
            let near = nearest(&name, fields.names());
            let remedy = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            let what = format!("its templates ask for `{name}`, which no sampled record has");
            self.add(Severity::Warning, "field", what, &remedy);
        }
    }

    /// Finds a list or an object that templates show as Python would.
    fn list(&mut self, name: &str) {
        let fields = &self.sampled.fields;
        if fields.are_lists(name) {
            let what = format!("`{name}` is a list or an object, and is shown as Python writes it");
            let remedy = format!(
                "show its parts: {{{{ {name} | join(', ') }}}}, {{{{ {name}[0] }}}} or a loop"
            );
            self.add(Severity::Warning, "list", what, &remedy);
        } else if fields.are_literals(name) {
            let what = format!("`{name}` is text that looks like a list or an object written out");
            let remedy = format!("literals = [\"{name}\"] in its source makes it one");
            self.add(Severity::Warning, "list", what, &remedy);
        }
    }

    /// Finds more unfit records than packing allows.
    fn unfit(&mut self) {
        let Sampled { records, unfit, .. } = *self.sampled;
        let share = unfit as f64 / records.max(1) as f64;
        let is_whole = self.sampled.inputs.iter().all(|input| input.is_whole);
        // Of a source that goes on, the sample stands for many records.
        let all = if is_whole { records } else { u64::MAX };
        let most = allowed_unfit(&self.plan.sources[self.index], all);
        if share > most || unfit > 0 && unfit == records {
            let limit = if most < 1.0 {
                format!("packing stops above {:.0} %", most * 100.0)
            } else {
                "nothing would be left".to_owned()
            };
            let what = format!(
                "{unfit} of {records} sampled records ({:.0} %) cannot be used; {limit}",
                share * 100.0
            );
            self.add(
                Severity::Error,
                "unfit",
                what,
                "check its `segments` and `format` against the file",
            );
        }
    }

    /// Finds dropped records, by reason.
    fn drops(&mut self) {
        let overflow = self.plan.sources[self.index].overflow;
        for (reason, (count, first)) in &self.sampled.drops {
            let records = self.sampled.records;
            let words = self.words(first);
            let what = format!(
                "{count} of {records} sampled records dropped: {}: {}{words}",
                reason.name(),
                first.why
            );
            let fails = *reason == DropReason::TooLong && overflow == Overflow::Error;
            let severity = if fails { Severity::Error } else { Severity::Warning };
            self.add(severity, "dropped", what, "");
            self.at(first.record_id);
        }
    }

    /// Returns the first words of a dropped record, as the end of a sentence.
    fn words(&self, dropped: &Dropped) -> String {
        let raw = || {
            let source = &self.plan.sources[self.index];
            let RecordId { nth_input, offset } = RecordId::unpack(dropped.record_id);
            let input = &self.plan.inputs[source.inputs[nth_input]];
            let len = input.size.saturating_sub(offset).min(4 * QUOTED as u64) as usize;
            if Compression::of(&input.path).is_some()
                || source.options.encoding.is_some()
                || !source.format.get().is_text()
                || len == 0
            {
                return None;
            }
            let bytes = self.context.storage.bytes_at(&input.path, offset, len).ok()?;
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            Some(String::from_utf8_lossy(line).trim().to_owned())
        };
        match dropped.words.clone().or_else(raw).filter(|words| !words.is_empty()) {
            None => String::new(),
            Some(words) => {
                let first: String = words.chars().take(QUOTED).collect();
                let more = if first.len() < words.len() { "…" } else { "" };
                format!(" (it begins \"{first}{more}\")")
            }
        }
    }

    /// Finds records with the text of an earlier one.
    fn repeated(&mut self) {
        let Some((count, id, first)) = self.sampled.repeated else { return };
        let (file, place) = place_of(self.plan, self.index, first, self.context);
        let place = place.map_or_else(|| file.clone(), |place| format!("{file}{place}"));
        let records = self.sampled.records;
        let what = format!(
            "{count} of {records} sampled records repeat an earlier one; \
             the first repeats {place}"
        );
        self.add(
            Severity::Note,
            "duplicates",
            what,
            "duplicates = \"exact\" drops them, if they are not meant",
        );
        self.at(id);
    }

    /// Finds files without a record.
    fn empty_files(&mut self) {
        let source = &self.plan.sources[self.index];
        let inputs = self.sampled.inputs.iter().zip(&source.inputs);
        let is_empty = |(sampled, _): &(&super::sample::SampledInput, &usize)| {
            sampled.is_whole && sampled.records == 0
        };
        let empty: Vec<String> = inputs
            .filter(is_empty)
            .map(|(_, &input)| self.plan.inputs[input].name.clone())
            .collect();
        let all = empty.len() == source.inputs.len();
        if !empty.is_empty() {
            let what = format!("no record is in {}", listed(&empty));
            let severity = if all { Severity::Error } else { Severity::Warning };
            self.add(severity, "empty", what, "remove them from `files`, or fill them");
        }
    }

    /// Finds a language that is not known.
    fn language(&mut self) {
        let source = &self.plan.sources[self.index];
        let lang = source.lang.clone();
        // What a field holds is looked up when the corpus is packed.
        if let Some(path) = &source.lang_field {
            let (name, fields) = (path.join("."), &self.sampled.fields);
            let is_there = path.len() > 2 || fields.has(&name);
            if fields.records() > 0 && fields.is_complete() && !is_there {
                let names: Vec<String> = fields.names().map(|name| format!("`{name}`")).collect();
                let what = format!("lang names the field `{name}`, which no sampled record has");
                let remedy = format!("the fields are {}", names.join(", "));
                self.add(Severity::Error, "language", what, &remedy);
            }
            return;
        }
        if code_of(&lang).is_some_and(|code| code != UNDETERMINED) {
            return;
        }
        let (what, remedy) = if lang == UNDETERMINED {
            ("says no language".to_owned(), "say lang = \"yor\", for reports and mixes")
        } else {
            let what = format!("lang = \"{lang}\" is no language of ISO 639");
            (what, "write its code of three letters, such as \"yor\", or leave it out")
        };
        self.add(Severity::Note, "language", what, remedy);
    }

    /// Finds control tokens that data spells.
    fn control_tokens(&mut self) {
        let Some((count, token, id)) = &self.sampled.control else { return };
        let what = format!("data of {count} sampled records spells the control token `{token}`");
        let remedy = "it is encoded as ordinary text; special_in_data = \"error\" refuses such \
                      records instead";
        self.add(Severity::Note, "control token", what, remedy);
        self.at(*id);
    }

    /// Finds documents that are longer than a row.
    fn long_documents(&mut self) {
        let sums = self.sampled.sums();
        if sums.long == 0 {
            return;
        }
        let seq_len = self.plan.pack.seq_len;
        let fate = match self.plan.sources[self.index].overflow {
            Overflow::Split => "they are split into windows",
            Overflow::Truncate => "their longest field is shortened",
            Overflow::Drop => "they are dropped",
            Overflow::Error => "the run stops at the first",
        };
        let what = format!(
            "{} of {} tokenized records are longer than a row of {seq_len} tokens: {fate}",
            sums.long, sums.records
        );
        // A text that is split loses nothing.
        let is_split = self.plan.sources[self.index].overflow == Overflow::Split;
        let severity = if is_split { Severity::Note } else { Severity::Warning };
        self.add(severity, "too long", what, "a longer `seq_len` or another `overflow` may serve");
    }

    /// Finds a tokenizer that does not fit the texts.
    fn tokenizer(&mut self) {
        let sums = self.sampled.sums();
        let remedy = "`sabiprep tokenizer train` makes one for these texts";
        if sums.unknown > 0 || sums.unspelled > 0 {
            let what = format!(
                "the tokenizer does not know all letters: {} of {} sampled tokens are unknown, \
                 {} words lose letters",
                sums.unknown, sums.tokens, sums.unspelled
            );
            self.add(Severity::Warning, "tokenizer fit", what, remedy);
        }
        if sums.words < ENOUGH_WORDS {
            return;
        }
        let a_word = sums.tokens as f64 / sums.words as f64;
        let a_letter = sums.tokens as f64 / sums.letters.max(1) as f64;
        let no_spaces = sums.letters as f64 / sums.words as f64 > LETTERS_A_WORD;
        if no_spaces && a_letter > TOKENS_A_LETTER || !no_spaces && a_word > TOKENS_A_WORD {
            let what = format!(
                "the tokenizer makes {a_word:.1} tokens of a word ({a_letter:.1} of a letter): \
                 it was made for other languages"
            );
            self.add(Severity::Warning, "tokenizer fit", what, remedy);
        }
    }
}

/// Adds the problems that show between sources: texts that are trained on and held out, and a corpus
/// that leaves nothing to train on.
pub(super) fn across(plan: &Plan, sampled: &[Sampled], problems: &mut Vec<Problem>) {
    let held_out: HashSet<u128> = sampled
        .iter()
        .flat_map(|sampled| &sampled.texts)
        .filter_map(|(text, of)| of.held_out.then_some(*text))
        .collect();
    for (source, sampled) in plan.sources.iter().zip(sampled) {
        let is_leak =
            |(hash, text): &(&u128, &super::sample::Text)| text.trained && held_out.contains(hash);
        let leaks = sampled.texts.iter().filter(is_leak).count();
        if leaks > 0 {
            problems.push(Problem {
                severity: Severity::Note,
                kind: "leak",
                source: Some(source.name.clone()),
                file: None,
                place: None,
                message: format!(
                    "{leaks} sampled texts are trained on and in validation files too: packing \
                     drops them from training"
                ),
                remedy: None,
            });
        }
    }
    let trains = |(source, sampled): (&crate::plan::Source, &Sampled)| {
        sampled.inputs[..source.training_inputs]
            .iter()
            .any(|input| !input.is_whole || input.records > 0)
    };
    let mut texts = sampled.iter().flat_map(|sampled| &sampled.texts);
    let all_leak = is_whole(sampled)
        && !held_out.is_empty()
        && texts.all(|(text, of)| !of.trained || held_out.contains(text));
    if !plan.sources.is_empty() && (all_leak || !plan.sources.iter().zip(sampled).any(trains)) {
        problems.push(nothing(plan));
    }
}

/// Adds the problem of a corpus of which no document is left to train on, about `trained` of them.
pub(super) fn untrained(
    plan: &Plan,
    sampled: &[Sampled],
    trained: f64,
    problems: &mut Vec<Problem>,
) {
    // Of a sample, none may mean few.
    let is_known = problems.iter().any(|problem| problem.kind == NOTHING);
    if !plan.sources.is_empty() && trained < 0.5 && is_whole(sampled) && !is_known {
        problems.push(nothing(plan));
    }
}

/// Returns whether every record of every source was read.
fn is_whole(sampled: &[Sampled]) -> bool {
    sampled.iter().flat_map(|sampled| &sampled.inputs).all(|input| input.is_whole)
}

/// Returns the problem of a corpus without a document to train on.
fn nothing(plan: &Plan) -> Problem {
    Problem::of_error(
        NOTHING,
        Error::input("no source has a document to train on").file(plan.config_file.clone()).remedy(
            "name training files in `files`, with records that are kept, copied (`epochs`) and \
                 not all held out",
        ),
    )
}

/// Adds a note about files beside those of a source that are named for validation and that no
/// source reads.
pub(super) fn leftovers(plan: &Plan, problems: &mut Vec<Problem>, context: &Context<'_>) {
    const SPLITS: [&str; 4] = ["dev", "validation", "valid", "val"];
    let known: HashSet<&Path> = plan.inputs.iter().map(|input| input.path.as_path()).collect();
    let mut folders = HashSet::new();
    let mut found = Vec::new();
    for input in &plan.inputs {
        let Some(folder) = input.path.parent().filter(|folder| folders.insert(folder.to_owned()))
        else {
            continue;
        };
        for name in context.storage.names_in(folder) {
            let is_named = name.split(['-', '_', '.']).any(|word| SPLITS.contains(&word));
            let path = folder.join(&name);
            let suffix = |path: &Path| path.extension().map(std::ffi::OsStr::to_owned);
            if is_named
                && !known.contains(path.as_path())
                && suffix(&path) == suffix(&input.path)
                && context.storage.is_file(&path)
            {
                let shown = path.strip_prefix(&plan.root).unwrap_or(&path);
                found.push(shown.display().to_string());
            }
        }
    }
    if !found.is_empty() {
        problems.push(Problem {
            severity: Severity::Note,
            kind: "leftover",
            source: None,
            file: None,
            place: None,
            message: format!("no source reads {}, named for validation", listed(&found)),
            remedy: Some("name them in `validation_files`, if they are to be held out".to_owned()),
        });
    }
}

/// Returns the first few of `names`, and the number of the others.
fn listed(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}
