//! Encodes a run of text with the fast encoder. `form` does the same with the library.

use std::cell::Cell;
use std::ops::{Range, RangeInclusive};

use super::added::Piece;
use super::draft::Draft;
use super::fast::{Edit, Engine, Session, Word};
use super::form::{Form, literals, panicked, refused};
use crate::panics::caught;
use crate::schema::{Refusal, Role, Run, push_run};
use crate::segment::{Span, TextRun};

/// The roles of a run's tokens, found from the start of each token.
struct Roles<'a> {
    run: &'a TextRun<'a>,
    /// The index of the span that holds the last token.
    span: usize,
    runs: Vec<Run>,
}

impl Roles<'_> {
    /// Appends the role of a token that starts at `start` of the run's text.
    fn put(&mut self, start: usize) {
        self.advance(start);
        push_run(&mut self.runs, 1, self.run.spans[self.span].role);
    }

    /// Appends the role of the `tokens` of a stretch if the stretch lies in one span; otherwise
    /// returns false.
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

    /// Moves on to the span of a token that starts at `start`.
    fn advance(&mut self, start: usize) {
        while self.span + 1 < self.run.spans.len()
            && self.run.spans[self.span].end <= self.run.start + start
        {
            self.span += 1;
        }
    }

    /// Returns whether a stretch of the run's text lies in one span.
    fn has_whole(&self, stretch: &Range<usize>) -> bool {
        !self
            .run
            .spans
            .iter()
            .any(|span| (stretch.start + 1..stretch.end).contains(&(span.end - self.run.start)))
    }
}

impl Form {
    /// Encodes a run with `engine`. Returns false, and appends nothing, where the library has to
    /// encode.
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
        // Remembered so that a failed attempt can be undone.
        let (known, placed, unspelled) = (draft.ids.len(), draft.placed.len(), draft.unspelled);
        // With one span every token has its role, so none is looked up.
        let mut roles = (run.spans.len() > 1).then(|| Roles { run, span: 0, runs: Vec::new() });
        let done = self.ids_of(engine, run.text, &literals, session, draft, roles.as_mut());
        if !matches!(done, Ok(true)) {
            draft.ids.truncate(known);
            draft.placed.truncate(placed);
            draft.unspelled = unspelled;
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

    /// Appends the ids of a text to `out`. Added tokens are matched inside `literals` only. Returns
    /// false where the library has to encode: `out` is then without meaning.
    fn ids_of(
        &self,
        engine: &Engine,
        text: &str,
        literals: &[Range<usize>],
        session: &mut Session,
        out: &mut Draft,
        roles: Option<&mut Roles<'_>>,
    ) -> Result<bool, String> {
        let (whole, found);
        // Nearly every text is one stretch: no list is made for it.
        let stretches = if literals.iter().any(|literal| self.raw.is_in(&text[literal.clone()])) {
            found = self.raw.find(text, literals);
            &found
        } else {
            whole = [Piece { range: 0..text.len(), id: None }];
            whole.as_slice()
        };
        let mut encoding = Encoding { form: self, engine, session, draft: out, roles };
        for Piece { range, id } in stretches {
            // Two tokens with white-space flags overlap: only the library knows what they give.
            if range.start > range.end {
                return Ok(false);
            }
            match id {
                Some(id) => encoding.place(*id, range, range.start),
                None if !encoding.stretch(text, range, literals)? => return Ok(false),
                None => {}
            }
        }
        Ok(true)
    }

    /// Replaces the ids of a word, some of them control tokens', by ordinary ids.
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

    /// Returns whether `engine` and the library give equal results for `text`: as data, as literal,
    /// and as both by turns.
    pub(super) fn agrees(&self, engine: &Engine, text: &str) -> bool {
        let span = |end: usize, literal: bool| Span {
            end,
            role: if literal { Role::Template } else { Role::Data },
            literal,
        };
        // Cuts at odd places put most of them inside words.
        let cuts = (1..text.len())
            .filter(|&index| text.is_char_boundary(index) && index % 7 == 3)
            .chain([text.len()]);
        let mixed: Vec<Span> = cuts.enumerate().map(|(nth, end)| span(end, nth % 2 == 1)).collect();
        let mut session = engine.session();
        [vec![span(text.len(), false)], vec![span(text.len(), true)], mixed].iter().all(|spans| {
            let run = TextRun { text, start: 0, spans };
            let (mut own, mut library) = (Draft::default(), Draft::default());
            let of_library = self.encode_by_library(&run, &mut library);
            match (self.encode_by(engine, &run, &mut session, &mut own), of_library) {
                // The fast encoder leaves such text to the library.
                (Ok(false), _) => true,
                (Ok(true), Ok(())) => own == library,
                (Err(own), Err(library)) => own == library,
                _ => false,
            }
        })
    }

    /// Returns whether any text within `text` is nothing but words: it has no added token, gets no
    /// space before it, and needs no normalization.
    pub(super) fn is_plain(&self, engine: &Engine, text: &str, session: &mut Session) -> bool {
        !self.raw.is_in(text) && !self.normalized.is_in(text) && engine.is_plain(text, session)
    }

    /// Appends the ids of a text in which added tokens are matched anywhere. Returns false where
    /// the library has to encode.
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

/// A run of text on its way through the fast encoder.
struct Encoding<'a, 'r> {
    form: &'a Form,
    engine: &'a Engine,
    session: &'a mut Session,
    draft: &'a mut Draft,
    /// Receives the role of each token; none where one role holds for all.
    roles: Option<&'a mut Roles<'r>>,
}

impl Encoding<'_, '_> {
    /// Appends an added token that matched `range` and starts at `start` of the run's text.
    fn place(&mut self, id: u32, range: &Range<usize>, start: usize) {
        // An empty match is a token that normalization deleted: the library makes none either.
        if range.is_empty() {
            return;
        }
        self.draft.ids.push(id);
        self.draft.placed.push(id);
        if let Some(roles) = &mut self.roles {
            roles.put(start);
        }
    }

    /// Normalizes the stretch `range` of `text`, matches the other added tokens in the result, and
    /// appends the ids. Returns false where the library has to encode.
    fn stretch(
        &mut self,
        text: &str,
        range: &Range<usize>,
        literals: &[Range<usize>],
    ) -> Result<bool, String> {
        let (from, original) = (range.start, &text[range.clone()]);
        let normal = self.engine.normalize(original, self.session);
        let (normal, edits) =
            normal.as_ref().map_or((original, [].as_slice()), |(text, edits)| (text, edits));
        // An edit over two spans mixes their roles: the library's offsets decide there.
        let place = |edit: &Edit| edit.original.start + from..edit.original.end + from;
        if self
            .roles
            .as_ref()
            .is_some_and(|roles| !edits.iter().all(|edit| roles.has_whole(&place(edit))))
        {
            return Ok(false);
        }
        let (whole, found);
        let parts = if literals.is_empty() || !self.form.normalized.is_in(normal) {
            whole = [Piece { range: 0..normal.len(), id: None }];
            whole.as_slice()
        } else {
            let Some(inside) = normal_literals(literals, range, normal.len(), edits) else {
                return Ok(false);
            };
            found = self.form.normalized.find(normal, &inside);
            &found
        };
        for Piece { range: part, id } in parts {
            if part.start > part.end {
                return Ok(false);
            }
            let start = |index: usize| from + original_place(edits, part.start + index);
            match id {
                Some(id) => self.place(*id, part, start(0)),
                None if !self.words(&normal[part.clone()], start)? => return Ok(false),
                None => {}
            }
        }
        Ok(true)
    }

    /// Appends the ids of ordinary text. `start` maps a position in it to the run's text. Returns
    /// false where the library has to encode.
    fn words(&mut self, text: &str, start: impl Fn(usize) -> usize) -> Result<bool, String> {
        let Self { form, engine, session, draft, roles } = self;
        let mut failure = None;
        let unspelled = Cell::new(draft.unspelled);
        let lacks_letters = engine.lacks_letters();
        engine.encode(text, session, &mut draft.ids, |word, out| {
            // `respell` counts for guarded words itself.
            if lacks_letters
                && !word.guarded
                && engine.spelled_bytes(&out[word.from..]) < word.bytes.len()
            {
                unspelled.set(unspelled.get() + 1);
            }
            if word.guarded
                && let Err(why) = form.respell(engine, word, out, &unspelled)
            {
                failure = Some(Err(why));
            }
            // An error weighs more than a word whose roles are not known.
            if let Some(roles) = roles
                && !put_word(engine, word, &out[word.from..], roles, &start)
            {
                failure.get_or_insert(Ok(false));
            }
        });
        draft.unspelled = unspelled.get();
        failure.unwrap_or(Ok(true))
    }
}

/// Returns the ranges of `literals` in the normalized text of the stretch `range`, which has `len`
/// bytes. Returns none if edits leave the ranges unknown.
fn normal_literals(
    literals: &[Range<usize>],
    range: &Range<usize>,
    len: usize,
    edits: &[Edit],
) -> Option<Vec<Range<usize>>> {
    let from = range.start;
    let inside: Vec<Range<usize>> = literals
        .iter()
        .filter(|literal| literal.start < range.end && literal.end > from)
        .map(|literal| literal.start.max(from) - from..literal.end.min(range.end) - from)
        .collect();
    if edits.is_empty() || inside.is_empty() {
        return Some(inside);
    }
    // If all of a stretch is literal, so is all of its normalized text.
    (inside == [0..range.len()]).then(|| vec![0..len])
}

/// Appends the roles of a word's tokens. Returns false if the tokens do not reveal where they
/// start. `original` maps a position in the word's text to the run's text.
fn put_word(
    engine: &Engine,
    word: &Word<'_>,
    ids: &[u32],
    roles: &mut Roles<'_>,
    original: impl Fn(usize) -> usize,
) -> bool {
    let last = word.place.end.saturating_sub(1).max(word.place.start);
    // Most words lie in one span: their tokens need no closer look.
    if roles.put_within(original(word.place.start)..=original(last), ids.len()) {
        return true;
    }
    // A space put before the word has the place of the byte that follows it.
    let put = word.bytes.len() - word.place.len();
    let mut offset = 0;
    for &id in ids {
        roles.put(original(word.place.start + offset.max(put) - put));
        offset += engine.length(id);
    }
    offset == word.bytes.len()
}

/// Returns the position in the original text of a position in the normalized text.
fn original_place(edits: &[Edit], position: usize) -> usize {
    let before = edits.partition_point(|edit| edit.normal.start <= position);
    match before.checked_sub(1).map(|last| &edits[last]) {
        None => position,
        Some(edit) if position < edit.normal.end => edit.original.start,
        Some(edit) => position - edit.normal.end + edit.original.end,
    }
}
