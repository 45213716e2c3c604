//! `Form`: the tokenizer as it encodes the first run of a document, or a later run.
//!
//! Repeats the steps inside `encode` of `tokenizers` (added tokens out, normalize, pre-tokenize,
//! model) with one difference: an added token is matched only where the template spells it. The
//! post-processor, truncation and padding are left out.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;
use tokenizers::normalizer::Range as NormalizedRange;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, Token, Tokenizer,
};

use super::added::{Matcher, Piece};
use super::draft::{Added, Draft};
use super::fast::{Engine, Session};
use super::spell;
use super::steps::Steps;
use crate::error::{Error, Result};
use crate::panics::caught;
use crate::schema::{DropReason, Refusal, Role};
use crate::segment::{Controls, Span, TextRun};

/// A tokenizer whose added tokens are prepared for matching.
#[derive(Debug)]
pub(crate) struct Form {
    tokenizer: Tokenizer,
    /// Added tokens that are matched before normalization, and after it.
    pub(super) raw: Matcher,
    pub(super) normalized: Matcher,
    /// By id: the kind of each added token. Text must not become any of them.
    pub(super) controls: Vec<Option<Control>>,
    /// The added tokens that each finished document is checked against.
    added: Added,
    /// The normalizers and pre-tokenizers, if they need bounds.
    steps: Option<Steps>,
    /// Whether two added tokens have one spelling after normalization. The library then takes now
    /// one, now the other.
    is_ambiguous: bool,
    /// The fast encoder, if it replaces the library.
    pub(super) engine: Option<Engine>,
}

/// The kind of an added token, for text that the model gives its id to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A special token.
    Special,
    /// An added token that is not special.
    Ordinary,
    /// The model's unknown token.
    Unknown,
}

impl Form {
    /// Builds the form for text that continues a text: no prefix space, no prepended character.
    pub(crate) fn continuation(first: &Self, json: &Value) -> Result<Self> {
        let mut tokenizer = first.tokenizer.clone();
        // A target is no start of a text: anything put before a text would be wrong there.
        let left = without_prepend(json["normalizer"].clone()).unwrap_or_default();
        let normalizer = match left.clone() {
            Value::Null => None,
            value => Some(
                serde_json::from_value::<tokenizers::NormalizerWrapper>(value).map_err(unusable)?,
            ),
        };
        tokenizer.with_normalizer(normalizer).map_err(unusable)?;
        let mut pre_tokenizer = json["pre_tokenizer"].clone();
        without_prefix(&mut pre_tokenizer);
        // The bounds must be those of the changed normalizer and pre-tokenizer, not of the file's
        // own.
        let steps = Steps::of(&left, &pre_tokenizer).map_err(unusable)?;
        let pre_tokenizer = match pre_tokenizer {
            Value::Null => None,
            value => Some(
                serde_json::from_value::<tokenizers::PreTokenizerWrapper>(value)
                    .map_err(unusable)?,
            ),
        };
        tokenizer.with_pre_tokenizer(pre_tokenizer);
        Ok(Self { steps, ..Self::new(tokenizer, json)? })
    }

    /// Builds the form of the tokenizer as it is.
    pub(crate) fn new(tokenizer: Tokenizer, json: &Value) -> Result<Self> {
        let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        // There is a table by id: a hostile file must not make it huge.
        if let Some((id, token)) = added.last().filter(|(id, _)| *id >= MOST_IDS) {
            return Err(unusable(format!(
                "its added token {:?} has the id {id}, more than {MOST_IDS}",
                token.content
            )));
        }
        let unknown = unknown_id(&tokenizer, json);
        let barred = barred_ids(&tokenizer, &added, unknown);
        let controls = kinds_by_id(&added, unknown);
        let (raw, normalized) = spellings(&tokenizer, added)?;
        let spelled: HashSet<&str> =
            normalized.iter().map(|(spelling, ..)| spelling.as_str()).collect();
        let is_ambiguous = spelled.len() < normalized.len();
        let (raw, normalized) = (Matcher::new(raw), Matcher::new(normalized));
        let steps = Steps::of(&json["normalizer"], &json["pre_tokenizer"]).map_err(unusable)?;
        Ok(Self {
            tokenizer,
            raw,
            normalized,
            controls,
            added: barred,
            steps,
            is_ambiguous,
            engine: None,
        })
    }

    /// Returns the added tokens that each finished document is checked against.
    pub(crate) fn added(&self) -> &Added {
        &self.added
    }

    /// Returns whether the library must not encode a whole text at once. Of added tokens with one
    /// spelling, a careful form takes the token with the lowest id.
    pub(crate) fn is_careful(&self) -> bool {
        self.steps.is_some() || self.is_ambiguous
    }

    /// Returns by id whether it is an added token.
    pub(crate) fn guarded(&self) -> Vec<bool> {
        self.controls.iter().map(Option::is_some).collect()
    }

    /// Builds the form for plain text: added tokens are matched anywhere, and the model's ids are
    /// kept as they are.
    pub(crate) fn plain(tokenizer: Tokenizer, json: &Value) -> Result<Self> {
        Ok(Self { controls: Vec::new(), ..Self::new(tokenizer, json)? })
    }

    /// Returns the tokenizer of the `tokenizers` library.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the ids of a text. In a `literal` text added tokens are matched.
    pub(super) fn ids(&self, text: &str, literal: bool) -> Result<Vec<u32>> {
        let span = Span { end: text.len(), role: Role::Data, literal };
        let mut draft = Draft::default();
        let run = TextRun { text, start: 0, spans: &[span] };
        self.encode_by_library(&run, &mut draft).map_err(|refusal| unusable(refusal.why))?;
        Ok(draft.ids)
    }

    /// Encodes a run of text and appends it to `draft`. A token has the role of its first byte.
    pub(crate) fn encode(
        &self,
        run: &TextRun<'_>,
        session: Option<&mut Session>,
        draft: &mut Draft,
    ) -> std::result::Result<(), Refusal> {
        if let (Some(engine), Some(session)) = (&self.engine, session)
            && self.encode_by(engine, run, session, draft)?
        {
            return Ok(());
        }
        self.encode_by_library(run, draft)
    }

    /// Encodes a run of text with the library. A panic becomes a refusal that blames the tokenizer.
    pub(crate) fn encode_by_library(
        &self,
        run: &TextRun<'_>,
        draft: &mut Draft,
    ) -> std::result::Result<(), Refusal> {
        caught(|| self.add_by_library(run, draft))
            .unwrap_or_else(|panic| Err(refused(panicked(&panic))))
    }

    fn add_by_library(
        &self,
        run: &TextRun<'_>,
        draft: &mut Draft,
    ) -> std::result::Result<(), Refusal> {
        // One span is the usual case: every token has its role, and offsets are not computed.
        let tokens =
            self.tokenize(run, draft).map_err(|why| Refusal::new(DropReason::Refused, why))?;
        let [span] = run.spans else {
            let encoding = tokens.into_encoding(None, 0, OffsetType::Byte).map_err(refused)?;
            let mut spans = run.spans.iter().peekable();
            for (&id, &(start, _)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
                // Offsets of a normalized text may step back inside a character: the role stays
                // then.
                while spans.peek().is_some_and(|span| span.end <= run.start + start)
                    && spans.len() > 1
                {
                    spans.next();
                }
                draft.push(id, spans.peek().map_or(Role::Data, |span| span.role));
            }
            return Ok(());
        };
        for (_, _, tokens) in tokens.get_splits(OffsetReferential::Original, OffsetType::None) {
            for token in tokens.iter().flatten() {
                draft.push(token.id, span.role);
            }
        }
        Ok(())
    }

    /// Splits a run into words with their tokens, as `encode` of the library does inside.
    fn tokenize(
        &self,
        run: &TextRun<'_>,
        draft: &mut Draft,
    ) -> std::result::Result<PreTokenizedString, String> {
        let mut text = self.match_added(run).map_err(failed)?;
        // Tokens found so far are added tokens of the template: `Draft::finish` expects to see
        // them.
        let matched = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
        let matched = matched.iter().filter_map(|(_, _, tokens)| tokens.as_ref()).flatten();
        draft.placed.extend(matched.map(|token| token.id));
        match (&self.steps, self.tokenizer.get_pre_tokenizer()) {
            (Some(steps), _) => steps.pre_tokenize(&mut text, run.text.len()).map_err(failed)?,
            (None, Some(pre_tokenizer)) => {
                pre_tokenizer.pre_tokenize(&mut text).map_err(failed)?;
            }
            (None, None) => {}
        }
        let unspelled = Cell::new(0);
        text.tokenize(|piece| self.ordinary(piece.get(), &unspelled)).map_err(failed)?;
        draft.unspelled += unspelled.get();
        Ok(text)
    }

    /// Normalizes a run and matches the added tokens in it.
    fn match_added(&self, run: &TextRun<'_>) -> tokenizers::Result<PreTokenizedString> {
        let literals = literals(run);
        let mut text = PreTokenizedString::from(run.text);
        // Tokens that are matched in raw text leave it before the normalizer can change their
        // spelling.
        if !self.raw.is_empty() {
            text.split(|_, piece| Ok(cut(&piece, &self.raw.find(piece.get(), &literals))))?;
        }
        // Then each stretch is normalized, and the other added tokens are matched in the result.
        text.split(|_, mut piece| {
            let from = piece.offsets_original().0;
            self.normalize(&mut piece, run.text.len())?;
            if self.normalized.is_empty() {
                return Ok(vec![(piece, None)]);
            }
            let literals = normalized_ranges(&piece, from, &literals);
            Ok(cut(&piece, &self.normalized.find(piece.get(), &literals)))
        })?;
        Ok(text)
    }

    /// Normalizes a stretch of a text of `whole` bytes.
    fn normalize(&self, piece: &mut NormalizedString, whole: usize) -> tokenizers::Result<()> {
        match (&self.steps, self.tokenizer.get_normalizer()) {
            (Some(steps), _) => Ok(steps.normalize(piece, whole)?),
            (None, Some(normalizer)) => normalizer.normalize(piece),
            (None, None) => Ok(()),
        }
    }

    /// Returns the model's tokens for a stretch of ordinary text, none of them a control token.
    /// Adds to `unspelled` if the model left out letters.
    pub(super) fn ordinary(
        &self,
        text: &str,
        unspelled: &Cell<u64>,
    ) -> tokenizers::Result<Vec<Token>> {
        spell::ordinary(self, text, 0, unspelled)
    }

    /// Returns the kind of an id, if it belongs to an added token.
    pub(super) fn control(&self, id: u32) -> Option<Control> {
        self.controls.get(id as usize).copied().flatten()
    }

    /// Returns a control token that the run's data spells or helps to spell, if there is one.
    pub(crate) fn control_in_data(
        &self,
        run: &TextRun<'_>,
        spellings: &Controls,
    ) -> Option<String> {
        let literals = literals(run);
        // Inside one literal the template alone spells the token; any other occurrence touches
        // data.
        let foreign = |range: &Range<usize>| {
            !literals.iter().any(|literal| literal.start <= range.start && range.end <= literal.end)
        };
        if let Some(found) = spellings.occurrences(run.text).find(foreign) {
            return Some(run.text[found].to_owned());
        }
        // Without such tokens normalization could not complete any.
        if self.normalized.is_empty() {
            return None;
        }
        let mut text = NormalizedString::from(run.text);
        // A text that cannot be normalized is refused later, when it is encoded.
        caught(|| self.normalize(&mut text, run.text.len())).ok()?.ok()?;
        let original =
            |range: Range<usize>| text.convert_offsets(NormalizedRange::Normalized(range));
        self.normalized
            .occurrences(text.get())
            .filter_map(original)
            .find(foreign)
            .map(|range| run.text[range].to_owned())
    }
}

/// The bound on ids of added tokens: tables are indexed by id.
const MOST_IDS: u32 = 1 << 24;

/// Describes a file that makes the library panic: the fault is the file's, not ours.
pub(crate) fn panicked(message: &str) -> String {
    format!("it makes the library panic: {message}")
}

/// Returns the error about a file that the `tokenizers` library cannot use.
pub(crate) fn unusable(error: impl std::fmt::Display) -> Error {
    Error::tokenizer(format!("not a usable tokenizer.json: {error}")).remedy(
        "name a tokenizer.json of the Hugging Face `tokenizers` library; \
         `sabiprep tokenizer train` makes one",
    )
}

/// Returns the reason for a text on which the tokenizer failed.
fn failed(error: impl std::fmt::Display) -> String {
    format!("the tokenizer failed: {error}")
}

/// Returns the refusal of a record on which the tokenizer failed.
pub(crate) fn refused(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(DropReason::Refused, failed(error))
}

/// Returns the stretches that the template spells, in bytes of the run's text. Two stretches that
/// meet have an empty field between them.
pub(crate) fn literals(run: &TextRun<'_>) -> Vec<Range<usize>> {
    // A span knows only its end: it starts where the one before it ends.
    let starts = std::iter::once(run.start).chain(run.spans.iter().map(|span| span.end));
    let stretches = starts.zip(run.spans).filter(|(_, span)| span.literal);
    stretches.map(|(start, span)| start - run.start..span.end - run.start).collect()
}

/// Returns the ranges of `literals` in a normalized stretch that starts at `from` of the original
/// text.
fn normalized_ranges(
    piece: &NormalizedString,
    from: usize,
    literals: &[Range<usize>],
) -> Vec<Range<usize>> {
    let to = from + piece.len_original();
    let inside = literals.iter().filter(|literal| literal.start < to && literal.end > from);
    inside
        .filter_map(|literal| {
            let range = literal.start.max(from) - from..literal.end.min(to) - from;
            piece.convert_offsets(NormalizedRange::Original(range))
        })
        .collect()
}

/// Cuts a text into its stretches; control tokens are tokens already.
fn cut(text: &NormalizedString, pieces: &[Piece]) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
    let slice = |range: &Range<usize>| text.slice(NormalizedRange::Normalized(range.clone()));
    pieces
        .iter()
        .filter_map(|piece| {
            let slice = slice(&piece.range)?;
            let token =
                piece.id.map(|id| vec![Token::new(id, slice.get().to_owned(), (0, slice.len()))]);
            Some((slice, token))
        })
        .collect()
}

/// Returns the ids that text must not become, and the model's unknown id.
fn barred_ids(tokenizer: &Tokenizer, added: &[(u32, AddedToken)], unknown: Option<u32>) -> Added {
    let is_barred = |(id, token): &(u32, AddedToken)| {
        // A single character that the model itself spells (a line feed, say) is ordinary text.
        let is_letter = !token.special && token.content.chars().nth(1).is_none();
        Some(*id) != unknown
            && !(is_letter
                && tokenizer.get_model().id_to_token(*id).as_ref() == Some(&token.content))
    };
    let barred = added.iter().filter(|added| is_barred(added)).map(|(id, _)| *id);
    Added::new(barred, unknown.filter(|&id| id < MOST_IDS))
}

/// Returns by id the kind of each added token.
fn kinds_by_id(added: &[(u32, AddedToken)], unknown: Option<u32>) -> Vec<Option<Control>> {
    let mut kinds = vec![None; added.last().map_or(0, |(id, _)| *id as usize + 1)];
    for (id, token) in added {
        kinds[*id as usize] = Some(match token.special {
            _ if Some(*id) == unknown => Control::Unknown,
            true => Control::Special,
            false => Control::Ordinary,
        });
    }
    kinds
}

/// An added token with its spelling at matching and its id.
type Spelled = (String, u32, AddedToken);

/// Returns the added tokens that are matched before normalization, and those matched after it.
fn spellings(
    tokenizer: &Tokenizer,
    added: Vec<(u32, AddedToken)>,
) -> Result<(Vec<Spelled>, Vec<Spelled>)> {
    let (mut raw, mut normalized) = (Vec::new(), Vec::new());
    for (id, token) in added {
        if token.normalized {
            let mut content = NormalizedString::from(token.content.as_str());
            if let Some(normalizer) = tokenizer.get_normalizer() {
                normalizer.normalize(&mut content).map_err(unusable)?;
            }
            normalized.push((content.get().to_owned(), id, token));
        } else {
            raw.push((token.content.clone(), id, token));
        }
    }
    Ok((raw, normalized))
}

/// Returns the id that the model gives to unknown text.
fn unknown_id(tokenizer: &Tokenizer, json: &Value) -> Option<u32> {
    let model = &json["model"];
    match model["unk_id"].as_u64() {
        Some(id) => u32::try_from(id).ok(),
        None => tokenizer.token_to_id(model["unk_token"].as_str()?),
    }
}

/// Returns a normalizer without its Prepend parts; none if nothing is left.
fn without_prepend(mut normalizer: Value) -> Option<Value> {
    match normalizer["type"].as_str() {
        None | Some("Prepend") => None,
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array().cloned().unwrap_or_default();
            let kept: Vec<Value> = parts.into_iter().filter_map(without_prepend).collect();
            normalizer["normalizers"] = Value::from(kept);
            Some(normalizer)
        }
        Some(_) => Some(normalizer),
    }
}

/// Turns off every prefix in a pre-tokenizer.
fn without_prefix(pre_tokenizer: &mut Value) {
    match pre_tokenizer["type"].as_str() {
        Some("Sequence") => {
            if let Some(parts) = pre_tokenizer["pretokenizers"].as_array_mut() {
                parts.iter_mut().for_each(without_prefix);
            }
        }
        Some("ByteLevel") => pre_tokenizer["add_prefix_space"] = false.into(),
        Some("Metaspace") => {
            pre_tokenizer["add_prefix_space"] = false.into();
            pre_tokenizer["prepend_scheme"] = "never".into();
        }
        _ => {}
    }
}

/// Returns the reason why the tokenizer has no continuation form, if it has none.
pub(crate) fn no_continuation(
    json: &Value,
    first: &Form,
    continuation: &Form,
) -> Result<Option<String>> {
    let model = &json["model"];
    if model["type"] == "WordPiece" {
        return Ok(Some(
            "a WordPiece model marks where words continue, not where they start".to_owned(),
        ));
    }
    if let Some(prefix) =
        model["continuing_subword_prefix"].as_str().filter(|prefix| !prefix.is_empty())
    {
        return Ok(Some(format!("its model marks continuations with '{prefix}'")));
    }
    // Compares a word with and without a space before it: inside a text, and as the start of a
    // target. A tokenizer that shows spaces inside a text must show them there too.
    let (mut tells_spaces, mut keeps_them) = (false, false);
    for word in ["the", "b", "1", "na", "ẹ", "\u{e0}"] {
        let (before, inside) = (first.ids("a", false)?, first.ids(&format!("a {word}"), false)?);
        let bare = continuation.ids(word, false)?;
        tells_spaces |= inside.strip_prefix(before.as_slice()).is_some_and(|tail| tail != bare);
        keeps_them |= continuation.ids(&format!(" {word}"), false)? != bare;
    }
    Ok((tells_spaces && !keeps_them)
        .then(|| "without its prefix it loses the space that a target starts with".to_owned()))
}
