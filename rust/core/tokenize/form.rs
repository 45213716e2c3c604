//! `Form`: the tokenizer as it encodes the first run of a document, or a later one.
//!
//! Follows what `tokenizers` does inside `encode` (added tokens out, normalize, pre-tokenize,
//! model), with one difference: an added token is taken only where the template spells it. The
//! post-processor, truncation and padding have no part in it.

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

/// A tokenizer with its added tokens laid out for matching.
#[derive(Debug)]
pub struct Form {
    tokenizer: Tokenizer,
    /// Added tokens matched before normalization, and after.
    pub(super) raw: Matcher,
    pub(super) normalized: Matcher,
    /// By id: the added tokens, which text must not become.
    pub(super) controls: Vec<Option<Control>>,
    /// The sets of them that every document is held against.
    added: Added,
    /// What it does to a text, where that needs care.
    steps: Option<Steps>,
    /// Whether two added tokens are spelled alike once they are normalized: the library takes now
    /// one, now the other.
    is_ambiguous: bool,
    /// What encodes in the place of the library.
    pub(super) engine: Option<Engine>,
}

/// What an added token is to text that the model gives its id to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Marked as special.
    Special,
    /// Not marked so.
    Ordinary,
    /// The model's own for what it does not know.
    Unknown,
}

impl Form {
    /// The tokenizer for text that continues a text: no prefix space, no prepended character.
    pub fn continuation(first: &Self, json: &Value) -> Result<Self> {
        let mut tokenizer = first.tokenizer.clone();
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

    /// The tokenizer as it is.
    pub fn new(tokenizer: Tokenizer, json: &Value) -> Result<Self> {
        let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        if let Some((id, token)) = added.last().filter(|(id, _)| *id >= MOST_IDS) {
            return Err(unusable(format!(
                "its added token {:?} has the id {id}, more than {MOST_IDS}",
                token.content
            )));
        }
        let unknown = unknown_id(&tokenizer, json);
        let is_barred = |(id, token): &(u32, AddedToken)| {
            let is_letter = !token.special && token.content.chars().nth(1).is_none();
            Some(*id) != unknown
                && !(is_letter
                    && tokenizer.get_model().id_to_token(*id).as_ref() == Some(&token.content))
        };
        let barred = added.iter().filter(|added| is_barred(added)).map(|(id, _)| *id);
        let barred = Added::new(barred, unknown.filter(|&id| id < MOST_IDS));
        let mut controls = vec![None; added.last().map_or(0, |(id, _)| *id as usize + 1)];
        for (id, token) in &added {
            controls[*id as usize] = Some(match token.special {
                _ if Some(*id) == unknown => Control::Unknown,
                true => Control::Special,
                false => Control::Ordinary,
            });
        }
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

    /// The added tokens that every document is held against.
    pub fn added(&self) -> &Added {
        &self.added
    }

    /// Whether it needs care: the library is not to be given a text whole. Of added tokens spelled
    /// alike, the one of the lowest id is taken.
    pub fn is_careful(&self) -> bool {
        self.steps.is_some() || self.is_ambiguous
    }

    /// By id: whether it is an added token.
    pub fn guarded(&self) -> Vec<bool> {
        self.controls.iter().map(Option::is_some).collect()
    }

    /// The tokenizer for text alone: added tokens are matched anywhere, and the model's ids stand
    /// as they are.
    pub fn plain(tokenizer: Tokenizer, json: &Value) -> Result<Self> {
        Ok(Self { controls: Vec::new(), ..Self::new(tokenizer, json)? })
    }

    /// The tokenizer behind it.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids of a text; in one that is `literal`, added tokens are matched.
    pub(super) fn ids(&self, text: &str, literal: bool) -> Result<Vec<u32>> {
        let span = Span { end: text.len(), role: Role::Data, literal };
        let mut draft = Draft::default();
        let run = TextRun { text, start: 0, spans: &[span] };
        self.encode_by_library(&run, &mut draft).map_err(|refusal| unusable(refusal.why))?;
        Ok(draft.ids)
    }

    /// Encodes a run of text, adding to `draft`. A token has the role of its first byte.
    pub fn encode(
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

    /// The same, by the library. A panic of it is the tokenizer's fault, and told as such.
    pub fn encode_by_library(
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
        let tokens =
            self.tokenize(run, draft).map_err(|why| Refusal::new(DropReason::Refused, why))?;
        let [span] = run.spans else {
            let encoding = tokens.into_encoding(None, 0, OffsetType::Byte).map_err(refused)?;
            let mut spans = run.spans.iter().peekable();
            for (&id, &(start, _)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
                // Offsets of a normalized text may step back within a character: then the role
                // stays.
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

    fn tokenize(
        &self,
        run: &TextRun<'_>,
        draft: &mut Draft,
    ) -> std::result::Result<PreTokenizedString, String> {
        let literals = literals(run);
        let describe = |error: tokenizers::Error| format!("the tokenizer failed: {error}");
        let mut text = PreTokenizedString::from(run.text);
        if !self.raw.is_empty() {
            text.split(|_, piece| Ok(cut(&piece, &self.raw.find(piece.get(), &literals))))
                .map_err(describe)?;
        }
        text.split(|_, mut piece| {
            let from = piece.offsets_original().0;
            self.normalize(&mut piece, run.text.len())?;
            if self.normalized.is_empty() {
                return Ok(vec![(piece, None)]);
            }
            let literals = normalized_ranges(&piece, from, &literals);
            Ok(cut(&piece, &self.normalized.find(piece.get(), &literals)))
        })
        .map_err(describe)?;
        let matched = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
        draft.placed.extend(
            matched
                .iter()
                .filter_map(|(_, _, tokens)| tokens.as_ref())
                .flatten()
                .map(|token| token.id),
        );
        match (&self.steps, self.tokenizer.get_pre_tokenizer()) {
            (Some(steps), _) => {
                let cut = steps.pre_tokenize(&mut text, run.text.len());
                cut.map_err(|why| format!("the tokenizer failed: {why}"))?;
            }
            (None, Some(pre_tokenizer)) => {
                pre_tokenizer.pre_tokenize(&mut text).map_err(describe)?;
            }
            (None, None) => {}
        }
        let unspelled = Cell::new(0);
        text.tokenize(|piece| self.ordinary(piece.get(), &unspelled)).map_err(describe)?;
        draft.unspelled += unspelled.get();
        Ok(text)
    }

    /// Normalizes a piece of a text of `whole` bytes.
    fn normalize(&self, piece: &mut NormalizedString, whole: usize) -> tokenizers::Result<()> {
        match (&self.steps, self.tokenizer.get_normalizer()) {
            (Some(steps), _) => Ok(steps.normalize(piece, whole)?),
            (None, Some(normalizer)) => normalizer.normalize(piece),
            (None, None) => Ok(()),
        }
    }

    /// The model's tokens for a piece of ordinary text, none of them a control token; `unspelled`
    /// counts the words of which the model left out letters.
    pub(super) fn ordinary(
        &self,
        text: &str,
        unspelled: &Cell<u64>,
    ) -> tokenizers::Result<Vec<Token>> {
        spell::ordinary(self, text, 0, unspelled)
    }

    /// What an id is to text.
    pub(super) fn control(&self, id: u32) -> Option<Control> {
        self.controls.get(id as usize).copied().flatten()
    }

    /// A control token that the run's data spells or helps to spell.
    pub fn control_in_data(&self, run: &TextRun<'_>, spellings: &Controls) -> Option<String> {
        let literals = literals(run);
        let foreign = |range: &Range<usize>| {
            !literals.iter().any(|literal| literal.start <= range.start && range.end <= literal.end)
        };
        if let Some(found) = spellings.occurrences(run.text).find(foreign) {
            return Some(run.text[found].to_owned());
        }
        if self.normalized.is_empty() {
            return None;
        }
        let mut text = NormalizedString::from(run.text);
        // A text that cannot be normalized is refused when it is encoded.
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

/// Added tokens have ids below this: there is a table by id.
const MOST_IDS: u32 = 1 << 24;

/// Said of a file that makes no sense to the library, which takes it and panics: the file's fault,
/// not ours.
pub fn panicked(message: &str) -> String {
    format!("it makes the library panic: {message}")
}

/// The error of a file that the `tokenizers` library cannot use.
pub fn unusable(error: impl std::fmt::Display) -> Error {
    Error::tokenizer(format!("not a usable tokenizer.json: {error}"))
        .remedy("name a tokenizer.json of the Hugging Face `tokenizers` library; `sabiprep tokenizer train` makes one")
}

pub fn refused(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(DropReason::Refused, format!("the tokenizer failed: {error}"))
}

/// The stretches that the template spells, in bytes of the run's text. Stretches that meet have an
/// empty field between.
pub fn literals(run: &TextRun<'_>) -> Vec<Range<usize>> {
    let starts = std::iter::once(run.start).chain(run.spans.iter().map(|span| span.end));
    let stretches = starts.zip(run.spans).filter(|(_, span)| span.literal);
    stretches.map(|(start, span)| start - run.start..span.end - run.start).collect()
}

/// Where `literals`, of the original text, lie in a normalized piece of it that starts at `from`.
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

/// The pieces of a text, control tokens already tokenized.
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

/// The id that the model gives to what it does not know.
fn unknown_id(tokenizer: &Tokenizer, json: &Value) -> Option<u32> {
    let model = &json["model"];
    match model["unk_id"].as_u64() {
        Some(id) => u32::try_from(id).ok(),
        None => tokenizer.token_to_id(model["unk_token"].as_str()?),
    }
}

/// A normalizer without its Prepend parts.
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

/// Turns off every prefix of a pre-tokenizer.
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

/// Why the tokenizer has no continuation form, if it has none.
pub fn no_continuation(json: &Value, first: &Form, continuation: &Form) -> Result<Option<String>> {
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
    // What the tokenizer makes of a word and the space before it, inside a text, against what a
    // target makes of them.
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
