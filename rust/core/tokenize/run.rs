//! A run of text encoded by the engine of our own: what `form` has the library do.

use std::cell::Cell;
use std::ops::{Range, RangeInclusive};

use super::added::Piece;
use super::draft::Draft;
use super::fast::{Edit, Engine, Session, Word};
use super::form::{Form, literals, panicked, refused};
use crate::panics::caught;
use crate::schema::{Refusal, Role, Run, push_run};
use crate::segment::{Span, TextRun};

/// The roles of a run's tokens, from where each starts.
struct Roles<'a> {
    run: &'a TextRun<'a>,
    /// The span that the last token lies in.
    span: usize,
    runs: Vec<Run>,
}

impl Roles<'_> {
    /// Adds the role of a token that starts at `start` in the run's text.
    fn put(&mut self, start: usize) {
        self.advance(start);
        push_run(&mut self.runs, 1, self.run.spans[self.span].role);
    }

    /// Adds the role of the `tokens` of a stretch of the run's text, if it lies in one span; else
    /// gives false.
    fn put_within(&mut self, stretch: RangeInclusive<usize>, tokens: usize) -> bool {
        self.advance(*stretch.start());
        let span = &self.run.spans[self.span];
        let within =
            self.span + 1 == self.run.spans.len() || self.run.start + stretch.end() < span.end;
        if within {
            push_run(&mut self.runs, tokens as u32, span.role);
        }
        within
    }

    /// Goes on to the span of a token that starts at `start`.
    fn advance(&mut self, start: usize) {
        while self.span + 1 < self.run.spans.len()
            && self.run.spans[self.span].end <= self.run.start + start
        {
            self.span += 1;
        }
    }

    /// Whether a stretch of the run's text lies in one span.
    fn has_whole(&self, stretch: &Range<usize>) -> bool {
        !self
            .run
            .spans
            .iter()
            .any(|span| (stretch.start + 1..stretch.end).contains(&(span.end - self.run.start)))
    }
}

impl Form {
    /// Encodes a run by `engine`. Gives false, and adds nothing, where the library has to.
    pub(super) fn encode_by(
        &self,
        engine: &Engine,
        run: &TextRun<'_>,
        session: &mut Session,
        draft: &mut Draft,
    ) -> Result<bool, Refusal> {
        let literals = if self.raw.is_empty() && self.normalized.is_empty() {
            Vec::new()
        } else {
            literals(run)
        };
        let (known, placed) = (draft.ids.len(), draft.placed.len());
        let mut roles = (run.spans.len() > 1).then(|| Roles { run, span: 0, runs: Vec::new() });
        let done = self.ids_of(engine, run.text, &literals, session, draft, roles.as_mut());
        if !matches!(done, Ok(true)) {
            draft.ids.truncate(known);
            draft.placed.truncate(placed);
            return done.map_err(refused);
        }
        match roles {
            None => {
                let count = (draft.ids.len() - known) as u32;
                let role = run.spans.first().map_or(Role::Data, |span| span.role);
                push_run(&mut draft.runs, count, role);
            }
            Some(roles) => {
                roles.runs.iter().for_each(|run| push_run(&mut draft.runs, run.len, run.role));
            }
        }
        Ok(true)
    }

    /// Adds the ids of a text to `out`; added tokens are taken inside `literals` only. Gives false
    /// where the library has to be asked: what was added is then without meaning.
    fn ids_of(
        &self,
        engine: &Engine,
        text: &str,
        literals: &[Range<usize>],
        session: &mut Session,
        out: &mut Draft,
        mut roles: Option<&mut Roles<'_>>,
    ) -> Result<bool, String> {
        let (whole, found);
        let pieces = if literals.iter().any(|literal| self.raw.is_in(&text[literal.clone()])) {
            found = self.raw.find(text, literals);
            &found
        } else {
            whole = [Piece { range: 0..text.len(), id: None }];
            whole.as_slice()
        };
        for piece in pieces {
            if piece.range.start > piece.range.end {
                return Ok(false);
            }
            if let Some(id) = piece.id {
                if piece.range.is_empty() {
                    continue;
                }
                out.ids.push(id);
                out.placed.push(id);
                if let Some(roles) = &mut roles {
                    roles.put(piece.range.start);
                }
                continue;
            }
            let from = piece.range.start;
            let original = &text[piece.range.clone()];
            let normal = engine.normalize(original, session);
            let (normal, edits) =
                normal.as_ref().map_or((original, [].as_slice()), |(text, edits)| (text, edits));
            let apart = |edit: &Edit| edit.original.start + from..edit.original.end + from;
            if roles
                .as_ref()
                .is_some_and(|roles| !edits.iter().all(|edit| roles.has_whole(&apart(edit))))
            {
                return Ok(false);
            }
            let (whole, found);
            let parts = if literals.is_empty() || !self.normalized.is_in(normal) {
                whole = [Piece { range: 0..normal.len(), id: None }];
                whole.as_slice()
            } else {
                let literal_in =
                    |literal: &Range<usize>| literal.start < piece.range.end && literal.end > from;
                let inside = literals.iter().filter(|literal| literal_in(literal));
                let inside = inside.map(|literal| {
                    literal.start.max(from) - from..literal.end.min(piece.range.end) - from
                });
                let mut inside: Vec<Range<usize>> = inside.collect();
                if !edits.is_empty() && inside == [0..original.len()] {
                    // Where all is literal, so is all that it becomes.
                    inside = vec![0..normal.len()];
                } else if !edits.is_empty() && !inside.is_empty() {
                    return Ok(false);
                }
                found = self.normalized.find(normal, &inside);
                &found
            };
            for part in parts {
                let start = |at: usize| from + original_place(edits, part.range.start + at);
                if part.range.start > part.range.end {
                    return Ok(false);
                }
                if let Some(id) = part.id {
                    if part.range.is_empty() {
                        continue;
                    }
                    out.ids.push(id);
                    out.placed.push(id);
                    if let Some(roles) = &mut roles {
                        roles.put(start(0));
                    }
                    continue;
                }
                let mut failure = None;
                let unspelled = Cell::new(out.unspelled);
                let lacks_letters = engine.lacks_letters();
                engine.encode(&normal[part.range.clone()], session, &mut out.ids, |word, out| {
                    if lacks_letters
                        && !word.guarded
                        && engine.spelled_bytes(&out[word.from..]) < word.bytes.len()
                    {
                        unspelled.set(unspelled.get() + 1);
                    }
                    if word.guarded
                        && let Err(why) = self.respell(engine, word, out, &unspelled)
                    {
                        failure = Some(Err(why));
                    }
                    if let Some(roles) = &mut roles
                        && !put_word(engine, word, &out[word.from..], roles, start)
                    {
                        failure.get_or_insert(Ok(false));
                    }
                });
                out.unspelled = unspelled.get();
                if let Some(failure) = failure {
                    return failure;
                }
            }
        }
        Ok(true)
    }

    /// Puts ordinary ids in the place of a word's that are control tokens'.
    fn respell(
        &self,
        engine: &Engine,
        word: &Word<'_>,
        out: &mut Vec<u32>,
        unspelled: &Cell<u64>,
    ) -> Result<(), String> {
        let tokens = caught(|| self.ordinary(&engine.spelled(word.bytes), unspelled))
            .map_err(|panic| panicked(&panic))?;
        let tokens = tokens.map_err(|error| format!("the tokenizer failed: {error}"))?;
        out.truncate(word.from);
        out.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }

    /// Whether `engine` gives what the library gives for `text`, be it data, literal, or both by
    /// turns.
    pub(super) fn agrees(&self, engine: &Engine, text: &str) -> bool {
        let span = |end: usize, literal: bool| Span {
            end,
            role: if literal { Role::Template } else { Role::Data },
            literal,
        };
        let cuts = (1..text.len())
            .filter(|&at| text.is_char_boundary(at) && at % 7 == 3)
            .chain([text.len()]);
        let mixed: Vec<Span> = cuts.enumerate().map(|(nth, at)| span(at, nth % 2 == 1)).collect();
        let mut session = engine.session();
        [vec![span(text.len(), false)], vec![span(text.len(), true)], mixed].iter().all(|spans| {
            let run = TextRun { text, start: 0, spans };
            let (mut own, mut library) = (Draft::default(), Draft::default());
            let of_library = self.encode_by_library(&run, &mut library);
            match (self.encode_by(engine, &run, &mut session, &mut own), of_library) {
                // It leaves such text to the library.
                (Ok(false), _) => true,
                (Ok(true), Ok(())) => own == library,
                (Err(own), Err(library)) => own == library,
                _ => false,
            }
        })
    }

    /// Whether no text within `text` has more to it than its words: no added token, no space put
    /// before, nothing to normalize.
    pub(super) fn is_plain(&self, engine: &Engine, text: &str, session: &mut Session) -> bool {
        !self.raw.is_in(text) && !self.normalized.is_in(text) && engine.is_plain(text, session)
    }

    /// Adds the ids of a text in which added tokens are matched anywhere. Gives false where the
    /// library has to.
    pub(super) fn plain_ids(
        &self,
        engine: &Engine,
        text: &str,
        session: &mut Session,
        out: &mut Vec<u32>,
    ) -> Result<bool, String> {
        let mut draft = Draft { ids: std::mem::take(out), ..Draft::default() };
        let done = self.ids_of(engine, text, &[0..text.len()], session, &mut draft, None);
        *out = draft.ids;
        done
    }
}

/// Adds the roles of a word's tokens; false where its tokens do not tell where they start.
/// `original` gives the place in the run's text of a place in the word's.
fn put_word(
    engine: &Engine,
    word: &Word<'_>,
    ids: &[u32],
    roles: &mut Roles<'_>,
    original: impl Fn(usize) -> usize,
) -> bool {
    let last = word.place.end.saturating_sub(1).max(word.place.start);
    if roles.put_within(original(word.place.start)..=original(last), ids.len()) {
        return true;
    }
    // A space put before the word has the place of what follows it.
    let put = word.bytes.len() - word.place.len();
    let mut at = 0;
    for &id in ids {
        roles.put(original(word.place.start + at.max(put) - put));
        at += engine.length(id);
    }
    at == word.bytes.len()
}

/// Where a place in a normalized text lies in the original.
fn original_place(edits: &[Edit], at: usize) -> usize {
    let before = edits.partition_point(|edit| edit.normal.start <= at);
    match before.checked_sub(1).map(|last| &edits[last]) {
        None => at,
        Some(edit) if at < edit.normal.end => edit.original.start,
        Some(edit) => at - edit.normal.end + edit.original.end,
    }
}
