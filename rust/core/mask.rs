//! Masks: makes the mask of each document from its roles and a policy, and checks each row, M1 to
//! M6.
//!
//! The check shares no code with the making: it walks a finished row token by token.

mod policy;

use std::ops::Range;

use crate::schema::{DocId, LossPolicy, Role, Run, Weight};
use policy::check_document;

/// Appends the mask of a document: the policy applied to its roles. The first token is never
/// trained.
pub(crate) fn push_document_mask(runs: &[Run], policy: LossPolicy, out: &mut Vec<bool>) {
    let start = out.len();
    let last_turn = last_turn_of(runs);
    for (nth, run) in runs.iter().enumerate() {
        // A control run that is not the first one closes the document.
        let closes = run.role == Role::Control && nth > 0;
        let trained = match policy {
            LossPolicy::Full => true,
            LossPolicy::TargetOnly => run.role == Role::Target || closes,
            LossPolicy::TemplateMasked => run.role != Role::Template,
            LossPolicy::LastTurn => last_turn.contains(&nth) || closes,
        };
        out.resize(out.len() + run.len as usize, trained);
    }
    // No token of the document predicts it (M1).
    if let Some(first) = out.get_mut(start) {
        *first = false;
    }
}

/// Returns the runs of the last target of a document.
fn last_turn_of(runs: &[Run]) -> Range<usize> {
    let is_target = |run: &Run| run.role == Role::Target;
    let end = runs.iter().rposition(is_target).map_or(0, |last| last + 1);
    let start = runs[..end].iter().rposition(|run| !is_target(run)).map_or(0, |last| last + 1);
    start..end
}

/// Appends the mask of the tokens `range` of the document with these `runs`: which target is the
/// last cannot be seen in a piece.
pub(crate) fn push_piece_mask(
    runs: &[Run],
    range: Range<usize>,
    policy: LossPolicy,
    out: &mut Vec<bool>,
) {
    let (start, mut whole) = (out.len(), Vec::new());
    push_document_mask(runs, policy, &mut whole);
    out.extend_from_slice(&whole[range]);
    // Its first token is predicted in the piece before, or by nothing (M1).
    if let Some(first) = out.get_mut(start) {
        *first = false;
    }
}

/// Returns the number of trained tokens in a document.
#[must_use]
pub(crate) fn count_targets(runs: &[Run], policy: LossPolicy) -> u32 {
    let mut mask = Vec::new();
    push_document_mask(runs, policy, &mut mask);
    mask.into_iter().map(u32::from).sum()
}

/// A row as it is stored in a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The `seq_len` token ids.
    pub ids: Vec<u32>,
    /// The `seq_len` flags of the loss mask.
    pub mask: Vec<bool>,
    /// The length of each document.
    pub seq_lengths: Vec<i32>,
    /// The run-lengths of roles.
    pub segment_lengths: Vec<i32>,
    /// The role of each run.
    pub segment_roles: Vec<u8>,
    /// The source of each document.
    pub source_ids: Vec<u16>,
    /// The record of each document.
    pub record_ids: Vec<u64>,
    /// `copy << 24 | document << 16 | window` of each document.
    pub doc_parts: Vec<u32>,
    /// The number of true flags in the mask.
    pub n_targets: i32,
    /// The weight of each document in the loss; empty in a dataset without weights.
    pub doc_weights: Vec<Weight>,
}

impl Row {
    /// Empties every column and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.mask.clear();
        self.seq_lengths.clear();
        self.segment_lengths.clear();
        self.segment_roles.clear();
        self.source_ids.clear();
        self.record_ids.clear();
        self.doc_parts.clear();
        self.n_targets = 0;
        self.doc_weights.clear();
    }

    /// Returns whether 95 % or more of the row's tokens come from one source.
    #[must_use]
    pub(crate) fn is_single_source(&self) -> bool {
        let total: i64 = self.seq_lengths.iter().map(|&len| i64::from(len)).sum();
        let of = |source: u16| -> i64 {
            let documents = self.seq_lengths.iter().zip(&self.source_ids);
            documents.filter(|(_, id)| **id == source).map(|(&len, _)| i64::from(len)).sum()
        };
        self.source_ids.iter().any(|&source| of(source) * 100 >= total * 95)
    }
}

/// The rules that rows must follow.
#[derive(Debug, Clone)]
pub struct RowRules {
    /// The number of tokens in a row.
    pub seq_len: usize,
    /// The id that opens every document; none where documents have no opening token.
    pub bos: Option<u32>,
    /// The id that closes every document.
    pub eos: u32,
    /// The id of padding.
    pub pad: u32,
    /// The bound on ids.
    pub vocab_size: usize,
    /// The policy of each source.
    pub policies: Vec<LossPolicy>,
    /// Whether each source trains spans of its text alone, so that a window may have none.
    pub spans: Vec<bool>,
    /// Whether each document has a weight.
    pub is_weighted: bool,
    /// Whether documents may be cut anywhere, so that a piece may have no trained token.
    pub cuts: bool,
}

/// A rule that a row breaks, for example `M4: token 17 of document 2 …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub(crate) String);

/// Returns a violation of `rule` unless it holds.
fn rule(holds: bool, rule: &str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(format!("{rule}: {}", what()))) }
}

/// Checks M1 to M6 on a row, from its stored roles. Returns the first rule that it breaks.
pub fn check_row(row: &Row, rules: &RowRules) -> Result<(), Violation> {
    let used = check_lengths(row, rules)?;
    check_padding(row, rules, used)?;
    let roles = roles_of(row, used)?;
    check_documents(row, rules, &roles)?;
    if let Some(index) = row.ids.iter().position(|&id| id as usize >= rules.vocab_size) {
        return Err(Violation(format!(
            "shape: id {} at {index} is outside the vocabulary",
            row.ids[index]
        )));
    }
    let targets = row.mask.iter().filter(|&&trained| trained).count();
    rule(targets as i64 == i64::from(row.n_targets), "shape", || {
        format!("n_targets is {}, the mask holds {targets}", row.n_targets)
    })
}

/// Checks that the columns fit each other. Returns the number of tokens in documents.
fn check_lengths(row: &Row, rules: &RowRules) -> Result<usize, Violation> {
    let (seq_len, documents) = (rules.seq_len, row.seq_lengths.len());
    // All later checks index by these lengths: nothing may be assumed about a forged row.
    let shape = row.ids.len() == seq_len
        && row.mask.len() == seq_len
        && row.segment_lengths.len() == row.segment_roles.len()
        && [row.source_ids.len(), row.record_ids.len(), row.doc_parts.len()] == [documents; 3]
        && row.doc_weights.len() == if rules.is_weighted { documents } else { 0 }
        && row.seq_lengths.iter().chain(&row.segment_lengths).all(|&len| len > 0);
    rule(shape, "shape", || {
        "columns of different lengths, or a length that is not positive".to_owned()
    })?;
    // The values of a forged column may be anything.
    let is_weight = |weight: &Weight| Weight::of(f64::from(weight.value())) == Some(*weight);
    rule(row.doc_weights.iter().all(is_weight), "weight", || {
        "a document's weight is negative, or no finite number".to_owned()
    })?;
    let total: i64 = row.seq_lengths.iter().map(|&len| i64::from(len)).sum();
    rule(total <= seq_len as i64, "M6", || {
        format!("documents of {total} tokens in a row of {seq_len}")
    })?;
    Ok(total as usize)
}

/// Checks that the tokens from `used` on are untrained padding.
fn check_padding(row: &Row, rules: &RowRules, used: usize) -> Result<(), Violation> {
    for index in used..rules.seq_len {
        rule(!row.mask[index], "M2", || format!("padding at {index} is trained"))?;
        rule(row.ids[index] == rules.pad, "M6", || {
            format!("id {} at {index}, where padding belongs", row.ids[index])
        })?;
    }
    Ok(())
}

/// Returns the role of each of the `used` tokens, from the stored run-lengths.
fn roles_of(row: &Row, used: usize) -> Result<Vec<Role>, Violation> {
    let mut roles = Vec::with_capacity(used);
    for (&len, &role) in row.segment_lengths.iter().zip(&row.segment_roles) {
        let Some(role) = Role::from_u8(role) else {
            return Err(Violation(format!("shape: role {role} is none")));
        };
        // Before it grows: a forged length must not allocate more than a row.
        rule(roles.len() + len as usize <= used, "shape", || {
            "roles beyond the documents".to_owned()
        })?;
        roles.resize(roles.len() + len as usize, role);
    }
    rule(roles.len() == used, "shape", || format!("roles for {} of {used} tokens", roles.len()))?;
    Ok(roles)
}

/// Checks each document of a row.
fn check_documents(row: &Row, rules: &RowRules, roles: &[Role]) -> Result<(), Violation> {
    let mut run_ends = row.segment_lengths.iter().scan(0, |end, &len| {
        *end += len as usize;
        Some(*end)
    });
    let mut start = 0;
    for (nth, &len) in row.seq_lengths.iter().enumerate() {
        let end = start + len as usize;
        // Roles must be told document by document: no run may reach into the next.
        rule(run_ends.by_ref().find(|&run_end| run_end >= end) == Some(end), "shape", || {
            format!("document {nth} ends inside a run of roles")
        })?;
        let Some(&policy) = rules.policies.get(usize::from(row.source_ids[nth])) else {
            return Err(Violation(format!("shape: document {nth} is of no known source")));
        };
        let ids = &row.ids[start..end];
        // A lone control token closes its document; it cannot open it as well.
        let opens = roles[start] == Role::Control && end - start > 1;
        rule(!opens || Some(ids[0]) == rules.bos, "shape", || {
            format!("document {nth} opens with id {}", ids[0])
        })?;
        let closes = roles[end - 1] == Role::Control && end - start > 1;
        rule(!closes || ids[ids.len() - 1] == rules.eos, "shape", || {
            format!("document {nth} is not closed by EOS")
        })?;
        let id = DocId::of_row(row.source_ids[nth], row.record_ids[nth], row.doc_parts[nth]);
        // A piece of a cut document may be all prompt: M3 holds for the whole document.
        let may_cut = rules.cuts || rules.spans[usize::from(row.source_ids[nth])];
        let is_cut = may_cut && (id.window > 0 || !closes);
        let trains = row.mask[start..end].contains(&true);
        rule(trains || is_cut, "M3", || format!("nothing is trained (document {nth})"))?;
        check_document(&row.mask[start..end], &roles[start..end], policy)
            .map_err(|Violation(what)| Violation(format!("{what} (document {nth})")))?;
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(len: u32, role: Role) -> Run {
        Run { len, role }
    }

    /// A row of one document, three prompt tokens and two of target, and padding.
    fn row() -> (Row, RowRules) {
        let runs = [
            run(1, Role::Template),
            run(2, Role::Data),
            run(2, Role::Target),
            run(1, Role::Control),
        ];
        let mut mask = Vec::new();
        push_document_mask(&runs, LossPolicy::TargetOnly, &mut mask);
        mask.resize(8, false);
        let row = Row {
            ids: vec![5, 6, 7, 8, 9, 1, 0, 0],
            mask,
            seq_lengths: vec![6],
            segment_lengths: vec![1, 2, 2, 1],
            segment_roles: vec![1, 2, 3, 0],
            source_ids: vec![0],
            record_ids: vec![0],
            doc_parts: vec![0],
            n_targets: 3,
            doc_weights: vec![],
        };
        (
            row,
            RowRules {
                seq_len: 8,
                bos: None,
                eos: 1,
                pad: 0,
                vocab_size: 10,
                policies: vec![LossPolicy::TargetOnly],
                spans: vec![false],
                is_weighted: false,
                cuts: false,
            },
        )
    }

    const POLICIES: [LossPolicy; 4] = [
        LossPolicy::TargetOnly,
        LossPolicy::Full,
        LossPolicy::TemplateMasked,
        LossPolicy::LastTurn,
    ];

    #[test]
    fn each_policy_trains_what_it_says() {
        let roles = [0, 1, 2, 3, 2, 1, 3, 1, 0];
        let runs: Vec<Run> =
            roles.iter().map(|&role| run(1, Role::from_u8(role).unwrap())).collect();
        let trained = |policy| {
            let mut mask = Vec::new();
            push_document_mask(&runs, policy, &mut mask);
            mask.into_iter().map(|trained| if trained { 'x' } else { '.' }).collect::<String>()
        };
        let masks = POLICIES.map(trained);
        assert_eq!(masks, ["...x..x.x", ".xxxxxxxx", "..xxx.x.x", "......x.x"]);
    }

    type Break = fn(&mut Row);

    #[test]
    fn a_right_row_passes_and_each_broken_rule_is_named() {
        let (good, rules) = row();
        assert_eq!(check_row(&good, &rules), Ok(()));
        let broken: [(&str, Break); 14] = [
            ("M1", |row| row.mask[0] = true),
            ("M2", |row| row.mask[7] = true),
            ("M3", |row| row.mask.fill(false)),
            ("M4", |row| row.mask[1] = true),
            ("M5", |row| row.mask[3] = false),
            ("M5", |row| row.mask[5] = false),
            ("M6", |row| row.seq_lengths[0] = 9),
            ("M6", |row| row.ids[6] = 3),
            ("shape", |row| row.n_targets = 2),
            ("shape", |row| row.ids[1] = 10),
            ("shape", |row| row.source_ids[0] = 1),
            ("shape", |row| row.ids[5] = 2),
            ("shape", |row| row.segment_roles[0] = 0),
            ("shape", |row| row.segment_lengths[3] = 2),
        ];
        for (expected, change) in broken {
            let mut row = good.clone();
            change(&mut row);
            let Err(Violation(what)) = check_row(&row, &rules) else {
                panic!("{expected} was not found")
            };
            assert!(what.starts_with(expected), "{expected}: {what}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_passes_and_no_other_mask_does(
            runs in prop::collection::vec((1u32..4, 1u8..4), 1..6),
            policy in 0usize..4, bos: bool, weight in any::<f32>(), flip in 0usize..64,
        ) {
            let run_of = |(len, role)| run(len, Role::from_u8(role).unwrap());
            let mut runs: Vec<Run> = runs.into_iter().map(run_of).collect();
            if bos {
                runs.insert(0, run(1, Role::Control));
            }
            runs.push(run(1, Role::Control));
            let policy = POLICIES[policy];
            let mut mask = Vec::new();
            push_document_mask(&runs, policy, &mut mask);
            let len = mask.len();
            mask.resize(64, false);
            let mut row = Row {
                ids: (0..64).map(|index| u32::from(index < len)).collect(),
                n_targets: count_targets(&runs, policy) as i32,
                mask,
                seq_lengths: vec![len as i32],
                segment_lengths: runs.iter().map(|run| run.len as i32).collect(),
                segment_roles: runs.iter().map(|run| run.role as u8).collect(),
                source_ids: vec![0],
                record_ids: vec![0],
                doc_parts: vec![0],
                doc_weights: vec![Weight::from_bytes(weight.to_le_bytes())],
            };
            let rules = RowRules {
                seq_len: 64, bos: Some(1), eos: 1, pad: 0, vocab_size: 2,
                policies: vec![policy], spans: vec![false], is_weighted: true, cuts: false,
            };
            let is_weight = weight.is_finite() && weight.is_sign_positive();
            prop_assert_eq!(check_row(&row, &rules).is_ok(), is_weight);
            row.doc_weights = vec![Weight::ONE];
            prop_assert_eq!(check_row(&row, &rules), Ok(()));
            row.mask[flip] = !row.mask[flip];
            row.n_targets += if row.mask[flip] { 1 } else { -1 };
            prop_assert!(check_row(&row, &rules).is_err());
        }

        #[test]
        fn pieces_train_what_their_document_trains(
            runs in prop::collection::vec((1u32..4, 1u8..4), 1..6),
            policy in 0usize..4, cut in 1usize..20,
        ) {
            let run_of = |(len, role)| run(len, Role::from_u8(role).unwrap());
            let mut runs: Vec<Run> = runs.into_iter().map(run_of).collect();
            runs.push(run(1, Role::Control));
            let (mut whole, mut pieces) = (Vec::new(), Vec::new());
            push_document_mask(&runs, POLICIES[policy], &mut whole);
            let cut = 1 + cut % (whole.len() - 1);
            push_piece_mask(&runs, 0..cut, POLICIES[policy], &mut pieces);
            let second = pieces.len();
            push_piece_mask(&runs, cut - 1..whole.len(), POLICIES[policy], &mut pieces);
            // The last token of a piece is the first of the next, where it is not trained.
            prop_assert!(!pieces.remove(second));
            prop_assert_eq!(pieces, whole);
        }
    }
}
