//! Masks: which tokens are trained, made from roles and a policy; and the check of every row, M1 to
//! M6.
//!
//! The check shares no code with the making: it walks a finished row token by token.

use crate::schema::{DocId, LossPolicy, Role, Run};

/// Appends the mask of a document: the policy on its roles, and never its first token.
pub fn push_document_mask(runs: &[Run], policy: LossPolicy, out: &mut Vec<bool>) {
    let start = out.len();
    for (nth, run) in runs.iter().enumerate() {
        let trained = match policy {
            LossPolicy::Full => true,
            // A control run that is not the first closes the document.
            LossPolicy::TargetOnly => {
                run.role == Role::Target || run.role == Role::Control && nth > 0
            }
        };
        out.resize(out.len() + run.len as usize, trained);
    }
    if let Some(first) = out.get_mut(start) {
        *first = false;
    }
}

/// Tokens trained of a document.
#[must_use]
pub fn count_targets(runs: &[Run], policy: LossPolicy) -> u32 {
    let mut mask = Vec::new();
    push_document_mask(runs, policy, &mut mask);
    mask.into_iter().map(u32::from).sum()
}

/// A row as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// `seq_len` token ids.
    pub ids: Vec<u32>,
    /// `seq_len` flags.
    pub mask: Vec<bool>,
    /// Document lengths.
    pub seq_lengths: Vec<i32>,
    /// Role run-lengths.
    pub segment_lengths: Vec<i32>,
    /// The role of each run.
    pub segment_roles: Vec<u8>,
    /// The source of each document.
    pub source_ids: Vec<u16>,
    /// The record of each document.
    pub record_ids: Vec<u64>,
    /// `copy << 24 | document << 16 | window` of each document.
    pub doc_parts: Vec<u32>,
    /// True flags of the mask.
    pub n_targets: i32,
}

impl Row {
    /// Empties every column, keeping their room.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.mask.clear();
        self.seq_lengths.clear();
        self.segment_lengths.clear();
        self.segment_roles.clear();
        self.source_ids.clear();
        self.record_ids.clear();
        self.doc_parts.clear();
        self.n_targets = 0;
    }

    /// Whether 95 % or more of its tokens are of one source.
    #[must_use]
    pub fn is_single_source(&self) -> bool {
        let total: i64 = self.seq_lengths.iter().map(|&len| i64::from(len)).sum();
        let of = |source: u16| -> i64 {
            let documents = self.seq_lengths.iter().zip(&self.source_ids);
            documents.filter(|(_, id)| **id == source).map(|(&len, _)| i64::from(len)).sum()
        };
        self.source_ids.iter().any(|&source| of(source) * 100 >= total * 95)
    }
}

/// What rows must fit.
#[derive(Debug, Clone)]
pub struct RowRules {
    /// Tokens in a row.
    pub seq_len: usize,
    /// The id that opens every document, if any does.
    pub bos: Option<u32>,
    /// The id that closes every document.
    pub eos: u32,
    /// The padding's id.
    pub pad: u32,
    /// Ids are below this.
    pub vocab_size: usize,
    /// The policy of each source.
    pub policies: Vec<LossPolicy>,
    /// Whether documents may be cut anywhere, so that a piece of one may have nothing to learn.
    pub cuts: bool,
}

/// A rule that a row breaks, as `M4: token 17 of document 2 …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

fn rule(holds: bool, rule: &str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(format!("{rule}: {}", what()))) }
}

/// Checks M1 to M6 on a row, from its stored roles.
pub fn check_row(row: &Row, rules: &RowRules) -> Result<(), Violation> {
    let (seq_len, documents) = (rules.seq_len, row.seq_lengths.len());
    let shape = row.ids.len() == seq_len
        && row.mask.len() == seq_len
        && row.segment_lengths.len() == row.segment_roles.len()
        && [row.source_ids.len(), row.record_ids.len(), row.doc_parts.len()] == [documents; 3]
        && row.seq_lengths.iter().chain(&row.segment_lengths).all(|&len| len > 0);
    rule(shape, "shape", || {
        "columns of different lengths, or a length that is not positive".to_owned()
    })?;
    let total: i64 = row.seq_lengths.iter().map(|&len| i64::from(len)).sum();
    rule(total <= seq_len as i64, "M6", || {
        format!("documents of {total} tokens in a row of {seq_len}")
    })?;
    let used = total as usize;
    for at in used..seq_len {
        rule(!row.mask[at], "M2", || format!("padding at {at} is trained"))?;
        rule(row.ids[at] == rules.pad, "M6", || {
            format!("id {} at {at}, where padding belongs", row.ids[at])
        })?;
    }
    let mut roles = Vec::with_capacity(used);
    for (&len, &role) in row.segment_lengths.iter().zip(&row.segment_roles) {
        let Some(role) = Role::from_u8(role) else {
            return Err(Violation(format!("shape: role {role} is none")));
        };
        rule(roles.len() + len as usize <= used, "shape", || {
            "roles beyond the documents".to_owned()
        })?;
        roles.resize(roles.len() + len as usize, role);
    }
    rule(roles.len() == used, "shape", || format!("roles for {} of {used} tokens", roles.len()))?;
    let mut run_ends = row.segment_lengths.iter().scan(0, |end, &len| {
        *end += len as usize;
        Some(*end)
    });
    let mut start = 0;
    for (nth, &len) in row.seq_lengths.iter().enumerate() {
        let end = start + len as usize;
        rule(run_ends.by_ref().find(|&run_end| run_end >= end) == Some(end), "shape", || {
            format!("document {nth} ends inside a run of roles")
        })?;
        let Some(&policy) = rules.policies.get(usize::from(row.source_ids[nth])) else {
            return Err(Violation(format!("shape: document {nth} is of no known source")));
        };
        let ids = &row.ids[start..end];
        let opens = roles[start] == Role::Control && end - start > 1;
        rule(!opens || Some(ids[0]) == rules.bos, "shape", || {
            format!("document {nth} opens with id {}", ids[0])
        })?;
        let closes = roles[end - 1] == Role::Control && end - start > 1;
        rule(!closes || ids[ids.len() - 1] == rules.eos, "shape", || {
            format!("document {nth} is not closed by EOS")
        })?;
        let id = DocId::of_row(row.source_ids[nth], row.record_ids[nth], row.doc_parts[nth]);
        let is_cut = rules.cuts && (id.window > 0 || !closes);
        let learns = row.mask[start..end].contains(&true);
        rule(learns || is_cut, "M3", || format!("nothing is trained (document {nth})"))?;
        check_document(&row.mask[start..end], &roles[start..end], policy)
            .map_err(|Violation(what)| Violation(format!("{what} (document {nth})")))?;
        start = end;
    }
    if let Some(at) = row.ids.iter().position(|&id| id as usize >= rules.vocab_size) {
        return Err(Violation(format!(
            "shape: id {} at {at} is outside the vocabulary",
            row.ids[at]
        )));
    }
    let targets = row.mask.iter().filter(|&&trained| trained).count();
    rule(targets as i64 == i64::from(row.n_targets), "shape", || {
        format!("n_targets is {}, the mask holds {targets}", row.n_targets)
    })
}

fn check_document(mask: &[bool], roles: &[Role], policy: LossPolicy) -> Result<(), Violation> {
    rule(!mask[0], "M1", || "the first token is trained".to_owned())?;
    for at in 1..mask.len() {
        let is_closing = at + 1 == mask.len() && roles[at] == Role::Control;
        match (policy, roles[at]) {
            (_, Role::Target) => {
                rule(mask[at], "M5", || format!("token {at} of a target is not trained"))?;
            }
            (_, Role::Control) if is_closing => {
                rule(mask[at], "M5", || "the closing EOS is not trained".to_owned())?;
            }
            (LossPolicy::Full, _) => {
                rule(mask[at], "full", || format!("token {at} is not trained"))?;
            }
            (LossPolicy::TargetOnly, Role::Template | Role::Data) => {
                rule(!mask[at], "M4", || format!("token {at} of a prompt is trained"))?;
            }
            (LossPolicy::TargetOnly, Role::Control) => {
                return Err(Violation(format!(
                    "shape: control token {at} stands inside a document"
                )));
            }
        }
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
                cuts: false,
            },
        )
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
            runs in prop::collection::vec((1u32..4, 1u8..4), 1..6), full: bool, bos: bool, flip in 0usize..64,
        ) {
            let mut runs: Vec<Run> =
                runs.into_iter().map(|(len, role)| run(len, Role::from_u8(role).unwrap())).collect();
            if bos {
                runs.insert(0, run(1, Role::Control));
            }
            runs.push(run(1, Role::Control));
            let policy = if full { LossPolicy::Full } else { LossPolicy::TargetOnly };
            let mut mask = Vec::new();
            push_document_mask(&runs, policy, &mut mask);
            let len = mask.len();
            mask.resize(64, false);
            let mut row = Row {
                ids: (0..64).map(|at| u32::from(at < len)).collect(),
                n_targets: count_targets(&runs, policy) as i32,
                mask,
                seq_lengths: vec![len as i32],
                segment_lengths: runs.iter().map(|run| run.len as i32).collect(),
                segment_roles: runs.iter().map(|run| run.role as u8).collect(),
                source_ids: vec![0],
                record_ids: vec![0],
                doc_parts: vec![0],
            };
            let rules = RowRules { seq_len: 64, bos: Some(1), eos: 1, pad: 0, vocab_size: 2, policies: vec![policy], cuts: false };
            prop_assert_eq!(check_row(&row, &rules), Ok(()));
            row.mask[flip] = !row.mask[flip];
            row.n_targets += if row.mask[flip] { 1 } else { -1 };
            prop_assert!(check_row(&row, &rules).is_err());
        }
    }
}
