//! Problems that show between sources, and in the folder around their files.

use std::collections::HashSet;
use std::path::Path;

use super::estimate::{self, Estimate};
use super::problem::{Problem, Severity, listed};
use super::sampled::{Sampled, Text};
use crate::context::Context;
use crate::error::Error;
use crate::plan::{Plan, Source};
use crate::schema::Duplicates;

/// The kind of a corpus that leaves nothing to train on.
const NOTHING: &str = "nothing to train";
/// The documents of a drawn validation split below which it may well be empty.
const FEW: f64 = 5.0;

/// Adds the problems that show between sources: texts that are trained on and held out, and a corpus
/// that leaves nothing to train on. An estimate is no longer exact where some would be dropped.
pub(super) fn across(
    plan: &Plan,
    sampled: &[Sampled],
    estimates: &mut [Estimate],
    problems: &mut Vec<Problem>,
) {
    let held_out: HashSet<u128> = sampled
        .iter()
        .flat_map(|sampled| sampled.texts.values())
        .filter_map(|text| text.held_out.then_some(text.content))
        .collect();
    let drops_more = !plan.decontaminate.is_empty()
        || plan.sources.iter().any(|source| source.duplicates != Duplicates::Keep);
    for ((source, sampled), estimate) in plan.sources.iter().zip(sampled).zip(estimates) {
        let is_leak = |text: &&Text| text.trained && held_out.contains(&text.content);
        let leaks = sampled.texts.values().filter(is_leak).count();
        estimate.exact &= leaks == 0 && !drops_more;
        if leaks > 0 {
            problems.push(Problem {
                severity: Severity::Note,
                kind: "leak",
                source: Some(source.name.clone()),
                file: None,
                place: None,
                message: format!(
                    "{leaks} sampled {} trained on and held out too: packing drops {} from training",
                    if leaks == 1 { "text is" } else { "texts are" },
                    if leaks == 1 { "it" } else { "them" },
                ),
                remedy: None,
            });
        }
    }
    let trains = |(source, sampled): (&Source, &Sampled)| {
        sampled.inputs[..source.training_inputs]
            .iter()
            .any(|input| !input.is_whole || input.records > 0)
    };
    let mut texts = sampled.iter().flat_map(|sampled| sampled.texts.values());
    let all_leak = is_whole(sampled)
        && !held_out.is_empty()
        && texts.all(|text| !text.trained || held_out.contains(&text.content));
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

/// Adds the problem of a validation split that is empty, or may be, if its records are drawn.
/// `estimate` says how many of its documents are held out.
pub(super) fn validation(
    plan: &Plan,
    sampled: &[Sampled],
    estimates: &[Estimate],
    problems: &mut Vec<Problem>,
) {
    let has_files = plan.sources.iter().any(|source| source.training_inputs < source.inputs.len());
    let share = plan.pack.validation;
    let at_least = estimates.iter().any(|estimate| estimate.at_least);
    let drawn = estimate::held_out(estimates);
    if share == 0.0 || has_files || plan.sources.is_empty() || at_least || drawn >= FEW {
        return;
    }
    let records: u64 = estimates.iter().map(|estimate| estimate.records).sum();
    let (severity, message) = if !is_whole(sampled) {
        let what = format!(
            "validation = {share} of about {records} records holds out about {drawn:.0}, by chance: \
             only a sample was read, so that there may be none"
        );
        (Severity::Note, what)
    } else if drawn == 0.0 && records > 0 {
        let what = format!(
            "validation = {share} holds out no document of {records} records: the dataset would \
             have no validation split"
        );
        (Severity::Warning, what)
    } else {
        return;
    };
    let remedy = "write a larger share, name `validation_files`, or try another `seed`";
    problems.push(Problem {
        severity,
        kind: "validation",
        source: None,
        file: Some(plan.config_file.clone()),
        place: None,
        message,
        remedy: Some(remedy.to_owned()),
    });
}

/// Returns whether every record of every source was read.
fn is_whole(sampled: &[Sampled]) -> bool {
    sampled.iter().all(Sampled::is_whole)
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
