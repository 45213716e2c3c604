//! Class labels in a survey: their names beside the fields, and a note where a number is shown.

use super::fields::SurveyedField;
use super::problem::{Problem, Severity};
use super::resolve::Bench;
use crate::context::Context;
use crate::notes::{numbered, numbered_labels};
use crate::plan::{Plan, Source};
use crate::read::{class_labels, names_shown};

/// The most files of a source whose labels are compared.
const MOST_FILES: usize = 64;

/// Adds the names of their labels to the fields of `source`.
pub(super) fn add_names(source: &Source, fields: &mut [SurveyedField]) {
    for (field, names) in &source.class_labels {
        let (first, rest) = field.split_at(field.find('.').unwrap_or(field.len()));
        let new = source.options.rename.get(first).map_or(first, String::as_str);
        let name = format!("{new}{rest}");
        if let Some(field) = fields.iter_mut().find(|field| field.name == name) {
            field.labels.clone_from(names);
        }
    }
}

/// Notes the fields that templates show by the numbers of their labels; warns where a number stands
/// for one label in one file and for another in the next.
pub(super) fn of_source(
    bench: &Bench,
    index: usize,
    problems: &mut Vec<Problem>,
    context: &Context<'_>,
) {
    let source = &bench.plan().sources[index];
    for (field, names) in numbered_labels(source, bench.builder(index)) {
        let (message, remedy) = numbered(&field, &names);
        problems.push(problem(source, Severity::Note, message, remedy));
        if let Some(message) = difference(bench.plan(), source, &field, context) {
            let remedy = "make them two sources: one number stands for two labels";
            problems.push(problem(source, Severity::Warning, message, remedy.to_owned()));
        }
    }
}

/// Returns a sentence about the first file whose labels differ from those of the first.
fn difference(plan: &Plan, source: &Source, field: &str, context: &Context<'_>) -> Option<String> {
    let first = source.class_labels.get(field)?;
    let inputs = source.inputs.iter().map(|&input| &plan.inputs[input]);
    let other = inputs.take(MOST_FILES).find_map(|input| {
        let labels = class_labels(context.storage, source.format, &input.path).ok()?;
        labels.get(field).filter(|names| *names != first).map(|names| (input, names_shown(names)))
    });
    let (input, names) = other?;
    let [file, other] = [&plan.inputs[source.inputs[0]].name, &input.name];
    let first = names_shown(first);
    Some(format!("the labels of `{field}` are {first} in {file}, and {names} in {other}"))
}

/// Returns a problem with the labels of a source.
fn problem(source: &Source, severity: Severity, message: String, remedy: String) -> Problem {
    Problem {
        severity,
        kind: "labels",
        source: Some(source.name.clone()),
        file: None,
        place: None,
        message,
        remedy: Some(remedy),
    }
}
