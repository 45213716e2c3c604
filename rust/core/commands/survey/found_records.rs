//! Problems of records: those that are dropped, repeat others, spell control tokens or are long, and a
//! tokenizer that does not fit them.

use super::found::Found;
use super::problem::{Severity, listed};
use super::sampled::{Dropped, Sampled, SampledInput};
use super::source::place_of;
use crate::notes::doubt_of;
use crate::pipeline::allowed_unfit;
use crate::schema::{DropReason, Overflow, RecordId};
use crate::spool::Doubts;
use crate::storage::Compression;

/// Tokens for each word above which a tokenizer does not fit a language, if there are enough words.
const TOKENS_A_WORD: f64 = 4.0;
/// Where words are longer than this, the language writes no spaces: then tokens for each letter.
const LETTERS_A_WORD: f64 = 15.0;
const TOKENS_A_LETTER: f64 = 1.5;
const ENOUGH_WORDS: u64 = 100;
/// The letters of a record that are quoted.
const QUOTED: usize = 60;

impl Found<'_> {
    /// Finds more unfit records than packing allows.
    pub(super) fn unfit(&mut self) {
        let Sampled { unfit, .. } = *self.sampled;
        let records = self.sampled.chosen();
        let share = unfit as f64 / records.max(1) as f64;
        let is_whole = self.sampled.is_whole();
        // Of a source that goes on, the sample stands for many records.
        let all = if is_whole { records } else { u64::MAX };
        let most = allowed_unfit(&self.plan.sources[self.index], all);
        if share > most || unfit > 0 && unfit == records {
            let limit = if most < 1.0 {
                format!("packing stops above {:.0} %", most * 100.0)
            } else {
                "nothing would be left".to_owned()
            };
            let called = if records < self.sampled.records { "chosen " } else { "" };
            let what = format!(
                "{unfit} of {} ({:.0} %) cannot be used; {limit}",
                self.records_called(records, called),
                share * 100.0
            );
            // A record that is most of what was read says little of the others.
            let is_uneven = self.sampled.inputs.iter().any(SampledInput::is_uneven);
            self.add(
                if is_uneven { Severity::Warning } else { Severity::Error },
                "unfit",
                what,
                "check its `segments` and `format` against the file",
            );
        }
    }

    /// Finds dropped records, by reason.
    pub(super) fn drops(&mut self) {
        let overflow = self.plan.sources[self.index].overflow;
        for (reason, (count, first)) in &self.sampled.drops {
            let words = self.words(first);
            let what = format!(
                "{count} of {} dropped: {}: {}{words}",
                self.records(),
                reason.name(),
                first.why
            );
            let fails = *reason == DropReason::TooLong && overflow == Overflow::Error;
            let severity = match reason {
                _ if fails => Severity::Error,
                // As it was asked for, unless nothing is left.
                DropReason::NotChosen if *count < self.sampled.records => Severity::Note,
                _ => Severity::Warning,
            };
            self.add(severity, "dropped", what, "");
            self.at(first.record_id);
        }
    }

    /// Finds records that may have been read the wrong way.
    pub(super) fn doubts(&mut self) {
        let Doubts { count, first: Some(first) } = self.sampled.doubts else { return };
        let (what, remedy) = doubt_of(&self.plan.sources[self.index]);
        let what = format!("{count} of {} {what}", self.records());
        self.add(Severity::Warning, "doubt", what, remedy);
        self.at(first);
    }

    /// Returns the first words of a dropped record, as the end of a sentence.
    pub(super) fn words(&self, dropped: &Dropped) -> String {
        let words = dropped.words.clone().or_else(|| self.raw_words(dropped));
        match words.map(|words| on_one_line(&words)).filter(|words| !words.is_empty()) {
            None => String::new(),
            Some(words) => {
                let first: String = words.chars().take(QUOTED).collect();
                let more = if first.len() < words.len() { "…" } else { "" };
                format!(" (it begins \"{first}{more}\")")
            }
        }
    }

    /// Returns the first bytes of a dropped record as text, if its file is plain.
    fn raw_words(&self, dropped: &Dropped) -> Option<String> {
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
        // A record ends where its format says, which may be in the middle of a line or after many.
        Some(String::from_utf8_lossy(source.format.get().cut(&bytes)).into_owned())
    }

    /// Finds records with the text of an earlier one.
    pub(super) fn repeated(&mut self) {
        let Some((count, id, first)) = self.sampled.repeated else { return };
        let (file, place) = place_of(self.plan, self.index, first, self.context);
        let place = place.map_or_else(|| file.clone(), |place| format!("{file}{place}"));
        let what = format!(
            "{count} of {} repeat an earlier one; the first repeats {place}",
            self.records()
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
    pub(super) fn empty_files(&mut self) {
        let source = &self.plan.sources[self.index];
        let inputs = self.sampled.inputs.iter().zip(&source.inputs);
        let is_empty =
            |(sampled, _): &(&SampledInput, &usize)| sampled.is_whole && sampled.records == 0;
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

    /// Finds control tokens that data spells.
    pub(super) fn control_tokens(&mut self) {
        let Some((count, token, id)) = &self.sampled.control else { return };
        let what = format!("data of {count} tokenized records spells the control token `{token}`");
        let remedy = "it is encoded as ordinary text; special_in_data = \"error\" refuses such \
                      records instead";
        self.add(Severity::Note, "control token", what, remedy);
        self.at(*id);
    }

    /// Finds documents that are longer than a row.
    pub(super) fn long_documents(&mut self) {
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
    pub(super) fn tokenizer(&mut self) {
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

/// Returns a text with each run of white space as one space.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
