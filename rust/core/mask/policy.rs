//! Checks the mask of one document against its roles and its source's policy, token by token.

use super::{Violation, rule};
use crate::schema::{LossPolicy, Role};

/// Checks the mask of one document, or of a piece of one that was cut.
pub(super) fn check_document(
    mask: &[bool],
    roles: &[Role],
    policy: LossPolicy,
) -> Result<(), Violation> {
    rule(!mask[0], "M1", || "the first token is trained".to_owned())?;
    let last_turn = last_turn_of(mask, roles);
    for index in 1..mask.len() {
        let is_closing = index + 1 == mask.len() && roles[index] == Role::Control;
        match (policy, roles[index]) {
            (_, Role::Control) if is_closing => {
                rule(mask[index], "M5", || "the closing EOS is not trained".to_owned())?;
            }
            (LossPolicy::Full, _) => {
                let name = if roles[index] == Role::Target { "M5" } else { "full" };
                rule(mask[index], name, || format!("token {index} is not trained"))?;
            }
            (_, Role::Control) => {
                return Err(Violation(format!(
                    "shape: control token {index} stands inside a document"
                )));
            }
            (LossPolicy::LastTurn, Role::Target) => check_turn(mask, index, &last_turn)?,
            (_, Role::Target) => {
                rule(mask[index], "M5", || format!("token {index} of a target is not trained"))?;
            }
            (LossPolicy::TemplateMasked, Role::Data) => {
                rule(mask[index], "template_masked", || {
                    format!("token {index} of the data is not trained")
                })?;
            }
            (_, Role::Template | Role::Data) => {
                rule(!mask[index], "M4", || format!("token {index} of a prompt is trained"))?;
            }
        }
    }
    Ok(())
}

/// The last target among some tokens.
struct LastTurn {
    /// The index of its first token.
    start: usize,
    /// Whether its tokens must be trained: true of what is known to be the document's last.
    is_trained: bool,
}

/// Returns the last target among some tokens. Where they do not end with EOS, another piece of the
/// document may hold a later one: then its own last token says whether it is trained.
fn last_turn_of(mask: &[bool], roles: &[Role]) -> LastTurn {
    let len = roles.len();
    let is_target = |index: &usize| roles[*index] == Role::Target;
    let end = (0..len).rev().find(is_target).map_or(0, |last| last + 1);
    let start = (0..end).rev().find(|index| !is_target(index)).map_or(0, |before| before + 1);
    let closes = roles[len - 1] == Role::Control;
    LastTurn { start, is_trained: closes || end > 1 && mask[end - 1] }
}

/// Checks a token of a target whose source trains the last one alone.
fn check_turn(mask: &[bool], index: usize, last: &LastTurn) -> Result<(), Violation> {
    if index < last.start {
        return rule(!mask[index], "last_turn", || {
            format!("token {index} of an earlier target is trained")
        });
    }
    let what = if last.is_trained { "is not trained" } else { "is trained, and others are not" };
    rule(mask[index] == last.is_trained, "M5", || {
        format!("token {index} of the last target {what}")
    })
}
