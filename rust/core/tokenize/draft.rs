//! `Draft`: a document while it is encoded, and the list of added tokens that the template placed.

use serde::{Deserialize, Serialize};

use super::Document;
use super::form::Form;
use crate::schema::{DropReason, Refusal, Role, Run, push_run};

/// The ids and roles of a document while it is encoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Token ids.
    pub(crate) ids: Vec<u32>,
    /// Run-lengths of the roles of `ids`.
    pub(crate) runs: Vec<Run>,
    /// The added tokens that the template or the configuration placed, in order.
    pub(crate) placed: Vec<u32>,
    /// The number of words from which the model left out unknown letters.
    pub(crate) unspelled: u64,
}

/// Counts about documents for the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// Unknown tokens that stand for text.
    pub(crate) unknown: u64,
    /// Words from which the tokenizer left out unknown letters.
    pub(crate) unspelled: u64,
    /// Documents whose template begins with the BOS that the configuration also puts there.
    pub(crate) bos: u64,
    /// Documents whose template ends with the EOS that the configuration also puts there.
    pub(crate) eos: u64,
    /// Documents whose weight in the loss is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) weightless: u64,
}

/// Returns whether a count is zero.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Marks {
    /// Returns whether every count is zero.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the counts of other documents.
    pub(crate) fn add(&mut self, other: &Self) {
        self.unknown += other.unknown;
        self.unspelled += other.unspelled;
        self.bos += other.bos;
        self.eos += other.eos;
        self.weightless += other.weightless;
    }
}

impl Draft {
    /// Appends an ordinary token.
    pub(crate) fn push(&mut self, id: u32, role: Role) {
        self.ids.push(id);
        push_run(&mut self.runs, 1, role);
    }

    /// Appends a control token that the template or the configuration asks for.
    pub(crate) fn place(&mut self, id: u32, role: Role) {
        self.push(id, role);
        self.placed.push(id);
    }

    /// Removes the last token, which must be a placed one.
    fn take_placed(&mut self) {
        self.placed.pop();
        self.ids.pop();
        if let Some(last) = self.runs.last_mut() {
            last.len -= 1;
            if last.len == 0 {
                self.runs.pop();
            }
        }
    }

    /// Removes each EOS that the template put at the end, since the configuration adds its own.
    /// Keeps the first `least` tokens. Returns whether an EOS was removed.
    pub(crate) fn without_end(&mut self, least: usize, eos: u32, added: &Added) -> bool {
        let mut doubled = false;
        let is_last = |list: &[u32]| list.len() > least && list.last() == Some(&eos);
        while added.is_barred(eos) && is_last(&self.ids) && self.placed.last() == Some(&eos) {
            self.take_placed();
            doubled = true;
        }
        doubled
    }

    /// Removes each BOS that the template put after the configuration's own. Returns whether a BOS
    /// was removed.
    pub(crate) fn without_beginning(&mut self, bos: u32, added: &Added) -> bool {
        let again = self.ids.iter().skip(1).take_while(|&&id| id == bos).count();
        let placed = self.placed.iter().skip(1).take_while(|&&id| id == bos).count();
        // Fewer placed than found: text became BOS. `finish` must see and refuse it.
        if again == 0 || placed < again || !added.is_barred(bos) {
            return false;
        }
        self.ids.drain(1..=again);
        self.placed.drain(1..=again);
        // Run 0 is the configuration's BOS; the removed tokens are at the start of the runs after
        // it.
        let mut left = again as u32;
        let mut runs = self.runs.split_off(1);
        for run in &mut runs {
            let taken = run.len.min(left);
            run.len -= taken;
            left -= taken;
        }
        for run in runs {
            push_run(&mut self.runs, run.len, run.role);
        }
        true
    }

    /// Returns the finished document and counts its unknown tokens. Refuses a document in which
    /// text became an added token.
    pub(crate) fn finish(self, form: &Form, marks: Marks) -> Result<Document, Refusal> {
        let added = form.added();
        // Nearly every document has as many tokens in this range as were placed: then the ids need
        // no closer look, since placed tokens are never lost.
        if added.count_near(&self.ids) == added.count_near(&self.placed) {
            let marks = Marks { unspelled: self.unspelled, ..marks };
            return Ok(Document { ids: self.ids, runs: self.runs, marks, weight: None });
        }
        // The barred ids of the document must be the placed ones, in the same order.
        let mut placed = self.placed.iter().filter(|&&id| added.has(id));
        let mut unknown = 0;
        for &id in &self.ids {
            if !added.has(id) {
                continue;
            }
            if added.is_barred(id) {
                if placed.by_ref().find(|&&placed| added.is_barred(placed)) != Some(&id) {
                    return Err(from_data(form, id));
                }
            } else {
                unknown += 1;
            }
        }
        // A placed token that the ids lack shows that the two lists went apart: refuse as well.
        if let Some(&id) = placed.find(|&&id| added.is_barred(id)) {
            return Err(from_data(form, id));
        }
        // The template may spell the unknown token itself; such tokens stand for no lost text.
        let spelled = self.placed.iter().filter(|&&id| added.is_unknown(id)).count() as u64;
        let marks = Marks {
            unknown: u64::saturating_sub(unknown, spelled),
            unspelled: self.unspelled,
            ..marks
        };
        Ok(Document { ids: self.ids, runs: self.runs, marks, weight: None })
    }
}

/// Returns the refusal of a document in which text became the control token `id`.
fn from_data(form: &Form, id: u32) -> Refusal {
    let token = form.tokenizer().id_to_token(id).unwrap_or_default();
    Refusal::new(
        DropReason::Refused,
        format!(
            "the tokenizer makes the control token '{token}' of text in which the template does \
             not spell it"
        ),
    )
}

/// Sets of added tokens, a bit for each id.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// The barred ids and the unknown id.
    looked_at: Vec<u64>,
    /// The lowest of these ids, and the distance from it to the highest.
    lowest: u32,
    span: u32,
    /// The unknown token, which replaces text that the model cannot spell.
    unknown: Option<u32>,
}

impl Added {
    /// Builds the set from the ids that text must not become, and the model's unknown id.
    pub(crate) fn new(barred: impl Iterator<Item = u32>, unknown: Option<u32>) -> Self {
        let mut looked_at: Vec<u64> = Vec::new();
        let (mut lowest, mut highest) = (u32::MAX, 0);
        for id in barred.chain(unknown) {
            (lowest, highest) = (lowest.min(id), highest.max(id));
            let index = id as usize / 64;
            if looked_at.len() <= index {
                looked_at.resize(index + 1, 0);
            }
            looked_at[index] |= 1 << (id % 64);
        }
        Self { looked_at, lowest, span: highest.saturating_sub(lowest), unknown }
    }

    /// Returns how many of `ids` are between the lowest and the highest id of the set. The count is
    /// never below the number of members: it is a fast upper bound.
    fn count_near(&self, ids: &[u32]) -> usize {
        ids.iter().filter(|&&id| id.wrapping_sub(self.lowest) <= self.span).count()
    }

    /// Returns whether an id is barred or unknown.
    #[inline]
    pub(crate) fn has(&self, id: u32) -> bool {
        self.looked_at.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Returns whether text must not become this id.
    pub(crate) fn is_barred(&self, id: u32) -> bool {
        self.has(id) && !self.is_unknown(id)
    }

    /// Returns the id of the unknown token.
    pub(crate) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Returns whether an id is the unknown token.
    pub(crate) fn is_unknown(&self, id: u32) -> bool {
        self.unknown == Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokenizers::Tokenizer;

    /// Builds a tokenizer with the special tokens 0, 1 and 9, and an added letter 5 that is not
    /// special; 2 is unknown.
    fn form() -> Form {
        let token = |id: u32, content: &str, special: bool| {
            let flags = json!({
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            });
            let mut token = json!({ "id": id, "content": content, "special": special });
            token.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
            token
        };
        let words = ["<s>", "</s>", "<unk>", "a", "b", "x", "c", "d", "e", "<t>"];
        let vocab: serde_json::Map<_, _> =
            words.iter().zip(0..).map(|(&word, id)| (word.to_owned(), id.into())).collect();
        let added = [
            token(0, "<s>", true),
            token(1, "</s>", true),
            token(5, "x", false),
            token(9, "<t>", true),
        ];
        let model = json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" });
        let file = json!({ "added_tokens": added, "model": model });
        let tokenizer = Tokenizer::from_bytes(file.to_string()).unwrap();
        Form::new(tokenizer, &file).unwrap()
    }

    fn finished(ids: &[u32], placed: &[u32]) -> Result<Document, Refusal> {
        let draft = Draft { ids: ids.to_vec(), placed: placed.to_vec(), ..Draft::default() };
        draft.finish(&form(), Marks::default())
    }

    #[test]
    fn a_document_with_an_added_token_that_was_not_placed_is_refused() {
        for (ids, placed) in [
            (vec![0, 3, 1, 1], vec![0, 1]),
            (vec![0, 3, 9, 1], vec![0, 1]),
            // Other tokens than the placed ones, or fewer.
            (vec![0, 3, 1], vec![5, 0]),
            (vec![5, 9], vec![5]),
            (vec![0, 1], vec![0, 1, 9]),
        ] {
            let refusal = finished(&ids, &placed).expect_err("not as placed");
            assert!(
                refusal.why.contains("the tokenizer makes the control token"),
                "{}",
                refusal.why
            );
        }
        for (ids, placed, unknown) in [
            (vec![0, 3, 4, 1], vec![0, 1], 0),
            (vec![0, 2, 5, 2, 9, 1], vec![0, 9, 1], 2),
            (vec![0, 2, 5, 2, 1], vec![0, 2, 5, 1], 1),
            (vec![], vec![], 0),
        ] {
            let document = finished(&ids, &placed).expect("as placed");
            assert_eq!((document.ids, document.marks.unknown), (ids, unknown));
        }
    }

    #[test]
    fn what_the_template_doubles_is_taken_out_with_its_roles() {
        let form = form();
        let mut draft = Draft::default();
        draft.place(0, Role::Control);
        for (id, role) in [(0, Role::Template), (0, Role::Template)] {
            draft.place(id, role);
        }
        draft.push(3, Role::Template);
        draft.push(4, Role::Target);
        draft.place(1, Role::Target);
        assert!(draft.without_beginning(0, form.added()) && draft.without_end(1, 1, form.added()));
        assert!(
            !draft.without_beginning(0, form.added()) && !draft.without_end(1, 1, form.added())
        );
        assert_eq!(
            (draft.ids.as_slice(), draft.placed.as_slice()),
            ([0, 3, 4].as_slice(), [0].as_slice())
        );
        let runs: Vec<_> = draft.runs.iter().map(|run| (run.len, run.role)).collect();
        assert_eq!(runs, [(1, Role::Control), (1, Role::Template), (1, Role::Target)]);
    }
}
