//! `Found`: the problems of one source, as its sample shows them.

use super::problem::{Problem, Severity};
use super::resolve::Bench;
use super::sampled::Sampled;
use super::source::place_of;
use crate::context::Context;
use crate::plan::Plan;

/// The problems of one source, as they are found.
pub(super) struct Found<'a> {
    pub(super) plan: &'a Plan,
    pub(super) index: usize,
    pub(super) sampled: &'a Sampled,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) context: &'a Context<'a>,
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
    found.unmet();
    found.unfit();
    found.drops();
    found.doubts();
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
    pub(super) fn add(
        &mut self,
        severity: Severity,
        kind: &'static str,
        message: String,
        remedy: &str,
    ) {
        let source = Some(self.plan.sources[self.index].name.clone());
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        let problem = Problem { severity, kind, source, file: None, place: None, message, remedy };
        self.problems.push(problem);
    }

    /// Returns the records that were read, in words.
    pub(super) fn records(&self) -> String {
        self.records_called(self.sampled.records, "")
    }

    /// Returns so many of these records, which `called` tells from others, in words.
    pub(super) fn records_called(&self, count: u64, called: &str) -> String {
        let sampled = if self.sampled.is_whole() { "" } else { "sampled " };
        format!("{count} {sampled}{called}records")
    }

    /// Returns that no record has a field, as far as records were read.
    pub(super) fn none_has(&self) -> &'static str {
        if self.sampled.is_whole() { "no record has" } else { "no sampled record has" }
    }

    /// Adds the place of the record `id` to the last problem.
    pub(super) fn at(&mut self, id: u64) {
        let (file, place) = place_of(self.plan, self.index, id, self.context);
        if let Some(problem) = self.problems.last_mut() {
            (problem.file, problem.place) = (Some(file), place);
        }
    }
}
