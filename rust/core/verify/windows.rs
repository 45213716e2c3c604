//! Checks M6 across rows: the windows of a split document make one document.

use std::collections::BTreeMap;

use crate::mask::Row;
use crate::schema::{DocId, Role};

/// One window of a split document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    /// The index of the window in its document.
    pub number: u32,
    /// The id of its first token.
    pub first_id: u32,
    /// The id of its last token.
    pub last_id: u32,
    /// Whether it ends with the closing EOS.
    pub closes: bool,
    /// Whether any of its tokens is trained.
    pub is_trained: bool,
    /// Its targets, if its source trains the last one of a document alone.
    pub turns: Option<Turns>,
}

/// Checks M6 across rows: adjacent windows of a document share one token, and only the last window
/// has the closing EOS.
pub(super) fn verify_windows(windows: &BTreeMap<DocId, Vec<Window>>, failures: &mut Vec<String>) {
    for (DocId { source, record, .. }, windows) in windows {
        let mut windows = windows.clone();
        windows.sort_unstable();
        let last = windows.len() - 1;
        let numbered =
            windows.iter().enumerate().all(|(nth, window)| window.number as usize == nth);
        let closed = windows.iter().enumerate().all(|(nth, window)| window.closes == (nth == last));
        let joined = windows.windows(2).all(|pair| pair[0].last_id == pair[1].first_id);
        if !is_last_turn(&windows) {
            failures.push(format!(
                "last_turn: of record {record} of source {source} not the last target is trained"
            ));
        }
        if !windows.iter().any(|window| window.is_trained) {
            failures.push(format!("M3: nothing is trained of record {record} of source {source}"));
        }
        if !(numbered && closed && joined) {
            failures.push(format!(
                "M6: the windows of record {record} of source {source} do not make one document"
            ));
        }
    }
}

/// The targets in a window of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turns {
    /// Whether each is trained; `None` of one that shows only the window's first token, which no
    /// window trains (M1).
    trained: Vec<Option<bool>>,
    /// Whether the window begins within a target.
    begins: bool,
    /// Whether the window ends within a target.
    ends: bool,
}

impl Turns {
    /// Returns the targets among the tokens `start..end` of a row that was checked.
    pub(super) fn of(row: &Row, start: usize, end: usize) -> Self {
        let mut turns = Self::default();
        let mut from = 0;
        for (&len, &role) in row.segment_lengths.iter().zip(&row.segment_roles) {
            let run = from..from + len as usize;
            from = run.end;
            if run.start < start || run.end > end || role != Role::Target as u8 {
                continue;
            }
            turns.begins |= run.start == start;
            turns.ends |= run.end == end;
            let is_shown = run.start > start || run.len() > 1;
            turns.trained.push(is_shown.then(|| row.mask[run.end - 1]));
        }
        turns
    }
}

/// Returns whether of the targets of a document, whose windows come in order, the last is trained
/// and no other. True of windows whose source trains others too.
fn is_last_turn(windows: &[Window]) -> bool {
    let mut all: Vec<Option<bool>> = Vec::new();
    let mut ends = false;
    for window in windows {
        let Some(turns) = &window.turns else { return true };
        let mut trained = turns.trained.as_slice();
        // The token that two windows share is of one target in both.
        if ends
            && turns.begins
            && let (Some(last), [first, rest @ ..]) = (all.last_mut(), trained)
        {
            if last.zip(*first).is_some_and(|(last, first)| last != first) {
                return false;
            }
            *last = last.or(*first);
            trained = rest;
        }
        all.extend_from_slice(trained);
        ends = turns.ends;
    }
    let last = all.pop();
    // A target of the document's first token alone is trained by nothing (M1).
    last.flatten() != Some(false) && !all.contains(&Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::push_piece_mask;
    use crate::schema::{LossPolicy, Run};
    use proptest::prelude::*;

    /// Returns a window of a row that holds nothing else.
    fn window(roles: &[u8], mask: &[bool], number: u32) -> Window {
        let row = Row {
            mask: mask.to_vec(),
            segment_lengths: vec![1; roles.len()],
            segment_roles: roles.to_vec(),
            ..Row::default()
        };
        let mut joined = Row { segment_lengths: vec![], segment_roles: vec![], ..row };
        for chunk in roles.chunk_by(|a, b| a == b) {
            joined.segment_lengths.push(chunk.len() as i32);
            joined.segment_roles.push(chunk[0]);
        }
        let turns = Some(Turns::of(&joined, 0, roles.len()));
        let is_trained = mask.contains(&true);
        Window { number, first_id: 0, last_id: 0, closes: false, is_trained, turns }
    }

    proptest! {
        #[test]
        fn windows_train_the_last_target_and_no_other_mask_passes(
            roles in prop::collection::vec(1u8..4, 3..12),
            cuts in prop::collection::btree_set(1usize..11, 0..3),
            flip: prop::sample::Index,
        ) {
            prop_assume!(roles[1..].contains(&3));
            let runs: Vec<Run> =
                roles.iter().map(|&role| Run { len: 1, role: Role::from_u8(role).unwrap() }).collect();
            let mut ends: Vec<usize> = cuts.into_iter().filter(|&cut| cut < roles.len() - 1).collect();
            ends.push(roles.len() - 1);
            let mut start = 0;
            let (mut windows, mut masks) = (Vec::new(), Vec::new());
            for (number, &last) in (0..).zip(&ends) {
                let mut mask = Vec::new();
                push_piece_mask(&runs, start..last + 1, LossPolicy::LastTurn, &mut mask);
                windows.push(window(&roles[start..=last], &mask, number));
                masks.push((start..last + 1, mask));
                start = last;
            }
            prop_assert!(is_last_turn(&windows));
            // The last token of any target, where its window shows it, gives a wrong mask away.
            let nth = flip.index(windows.len());
            let (range, mask) = &mut masks[nth];
            let end = (1..mask.len()).rev().find(|&index| roles[range.start + index] == 3);
            if let Some(end) = end {
                mask[end] = !mask[end];
                windows[nth] = window(&roles[range.clone()], mask, nth as u32);
                prop_assert!(!is_last_turn(&windows));
            }
        }
    }
}
