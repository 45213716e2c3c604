//! `Form`: the tokenizer as it encodes the first run of a document, or a later one.
//!
//! Follows what `tokenizers` does inside `encode` (added tokens out, normalize, pre-tokenize, model), with one
//! difference: an added token is taken only where the template spells it. The post-processor, truncation and
//! padding have no part in it.

use std::ops::Range;

use serde_json::Value;
use tokenizers::normalizer::Range as NormalizedRange;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Token,
    Tokenizer,
};

use super::Document;
use super::added::{Matcher, Piece};
use super::fast::{Engine, Session};
use crate::error::{Error, Result};
use crate::schema::{Drop, Refusal, Role};
use crate::segment::{Controls, Span, TextRun};

/// A tokenizer with its added tokens laid out for matching.
#[derive(Debug)]
pub struct Form {
    tokenizer: Tokenizer,
    /// Added tokens matched before normalization, and after.
    pub(super) raw: Matcher,
    pub(super) normalized: Matcher,
    /// By id: the added tokens, which text must not become.
    controls: Vec<Option<Control>>,
    /// What encodes in the place of the library.
    pub(super) engine: Option<Engine>,
}

/// What an added token is to text that the model gives its id to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
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
        let normalizer = match without_prepend(json["normalizer"].clone()) {
            Some(value) => Some(serde_json::from_value::<tokenizers::NormalizerWrapper>(value).map_err(unusable)?),
            None => None,
        };
        tokenizer.with_normalizer(normalizer).map_err(unusable)?;
        let mut pre_tokenizer = json["pre_tokenizer"].clone();
        without_prefix(&mut pre_tokenizer);
        let pre_tokenizer = match pre_tokenizer {
            Value::Null => None,
            value => Some(serde_json::from_value::<tokenizers::PreTokenizerWrapper>(value).map_err(unusable)?),
        };
        tokenizer.with_pre_tokenizer(pre_tokenizer);
        Self::new(tokenizer, json)
    }

    /// The tokenizer as it is.
    pub fn new(tokenizer: Tokenizer, json: &Value) -> Result<Self> {
        let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let unknown = unknown_id(&tokenizer, json);
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
        let (raw, normalized) = (Matcher::new(raw), Matcher::new(normalized));
        Ok(Self { tokenizer, raw, normalized, controls, engine: None })
    }

    /// By id: whether it is an added token.
    pub fn guarded(&self) -> Vec<bool> {
        self.controls.iter().map(Option::is_some).collect()
    }

    /// The tokenizer for text alone: added tokens are matched anywhere, and the model's ids stand as they are.
    pub fn plain(tokenizer: Tokenizer, json: &Value) -> Result<Self> {
        Ok(Self { controls: Vec::new(), ..Self::new(tokenizer, json)? })
    }

    /// The tokenizer behind it.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids of a text that is all data.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let span = Span { end: text.len(), role: Role::Data, literal: false };
        let mut document = Document::default();
        let run = TextRun { text, start: 0, spans: &[span] };
        self.encode_by_library(&run, &mut document).map_err(|refusal| unusable(refusal.why))?;
        Ok(document.ids)
    }

    /// Encodes a run of text, adding to `document`. A token has the role of its first byte.
    pub fn encode(
        &self,
        run: &TextRun<'_>,
        session: Option<&mut Session>,
        document: &mut Document,
    ) -> std::result::Result<(), Refusal> {
        if let (Some(engine), Some(session)) = (&self.engine, session)
            && self.encode_by(engine, run, session, document)?
        {
            return Ok(());
        }
        self.encode_by_library(run, document)
    }

    /// The same, by the library.
    pub fn encode_by_library(&self, run: &TextRun<'_>, document: &mut Document) -> std::result::Result<(), Refusal> {
        let tokens = self.tokenize(run).map_err(|why| Refusal::new(Drop::Refused, why))?;
        let [span] = run.spans else {
            let encoding = tokens.into_encoding(None, 0, OffsetType::Byte).map_err(refused)?;
            let mut spans = run.spans.iter().peekable();
            for (&id, &(start, _)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
                // Offsets of a normalized text may step back within a character: then the role stays.
                while spans.peek().is_some_and(|span| span.end <= run.start + start) && spans.len() > 1 {
                    spans.next();
                }
                document.push(id, spans.peek().map_or(Role::Data, |span| span.role));
            }
            return Ok(());
        };
        for (_, _, tokens) in tokens.get_splits(OffsetReferential::Original, OffsetType::None) {
            for token in tokens.iter().flatten() {
                document.push(token.id, span.role);
            }
        }
        Ok(())
    }

    fn tokenize(&self, run: &TextRun<'_>) -> std::result::Result<PreTokenizedString, String> {
        let literals = literals(run);
        let describe = |error: tokenizers::Error| format!("the tokenizer failed: {error}");
        let mut text = PreTokenizedString::from(run.text);
        if !self.raw.is_empty() {
            text.split(|_, piece| Ok(cut(&piece, &self.raw.find(piece.get(), &literals)))).map_err(describe)?;
        }
        let normalizer = self.tokenizer.get_normalizer();
        text.split(|_, mut piece| {
            let from = piece.offsets_original().0;
            if let Some(normalizer) = normalizer {
                normalizer.normalize(&mut piece)?;
            }
            if self.normalized.is_empty() {
                return Ok(vec![(piece, None)]);
            }
            let literals = normalized_ranges(&piece, from, &literals);
            Ok(cut(&piece, &self.normalized.find(piece.get(), &literals)))
        })
        .map_err(describe)?;
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut text).map_err(describe)?;
        }
        text.tokenize(|piece| self.ordinary(piece.get())).map_err(describe)?;
        Ok(text)
    }

    /// The model's tokens for a piece of ordinary text, none of them a control token.
    ///
    /// Some models hold their control tokens as pieces like any other (Unigram gives them the best score), so text
    /// could become one without any matching. Such text is cut after the first character of each and its pieces are tried
    /// again: few times, since what a cut leaves is shorter than a control token. Single characters that are added
    /// tokens too (a line feed, say) are ordinary unless they are special.
    pub(super) fn ordinary(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        let tokens = self.tokenizer.get_model().tokenize(text)?;
        let mut cuts = Vec::new();
        for token in &tokens {
            let Some(&Some(kind)) = self.controls.get(token.id as usize) else { continue };
            let (start, end) = token.offsets;
            let spelled = text.get(start..end).unwrap_or_default();
            let first = spelled.chars().next().map_or(0, char::len_utf8);
            match kind {
                // The unknown token stands for what the model does not know, unless that spells it.
                Control::Unknown if self.tokenizer.id_to_token(token.id).as_deref() != Some(spelled) => {}
                _ if first < spelled.len() => cuts.push(start + first),
                Control::Special => {
                    let why = format!("its model has no ordinary token for {spelled:?}, which is a special token too");
                    return Err(why.into());
                }
                _ => {}
            }
        }
        if cuts.is_empty() {
            return Ok(tokens);
        }
        let mut tokens = Vec::new();
        let mut from = 0;
        for at in cuts.into_iter().chain([text.len()]) {
            for token in self.ordinary(&text[from..at])? {
                tokens.push(Token::new(token.id, token.value, (token.offsets.0 + from, token.offsets.1 + from)));
            }
            from = at;
        }
        Ok(tokens)
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
        if let Some(normalizer) = self.tokenizer.get_normalizer() {
            normalizer.normalize(&mut text).ok()?;
        }
        let original = |range: Range<usize>| text.convert_offsets(NormalizedRange::Normalized(range));
        self.normalized
            .occurrences(text.get())
            .filter_map(original)
            .find(foreign)
            .map(|range| run.text[range].to_owned())
    }
}

/// Said of a file that makes no sense to the library, which takes it and panics: the file's fault, not ours.
pub const PANIC: &str = "it makes the library panic";

/// The error of a file that the `tokenizers` library cannot use.
pub fn unusable(error: impl std::fmt::Display) -> Error {
    Error::tokenizer(format!("not a usable tokenizer.json: {error}"))
        .remedy("name a tokenizer.json of the Hugging Face `tokenizers` library; `sabiprep tokenizer train` makes one")
}

pub fn refused(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Drop::Refused, format!("the tokenizer failed: {error}"))
}

/// The stretches that the template spells, in bytes of the run's text. Stretches that meet have an empty field between.
pub fn literals(run: &TextRun<'_>) -> Vec<Range<usize>> {
    let starts = std::iter::once(run.start).chain(run.spans.iter().map(|span| span.end));
    let stretches = starts.zip(run.spans).filter(|(_, span)| span.literal);
    stretches.map(|(start, span)| start - run.start..span.end - run.start).collect()
}

/// Where `literals`, of the original text, lie in a normalized piece of it that starts at `from`.
fn normalized_ranges(piece: &NormalizedString, from: usize, literals: &[Range<usize>]) -> Vec<Range<usize>> {
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
            let token = piece.id.map(|id| vec![Token::new(id, slice.get().to_owned(), (0, slice.len()))]);
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
        return Ok(Some("a WordPiece model marks where words continue, not where they start".to_owned()));
    }
    if let Some(prefix) = model["continuing_subword_prefix"].as_str().filter(|prefix| !prefix.is_empty()) {
        return Ok(Some(format!("its model marks continuations with '{prefix}'")));
    }
    // What the tokenizer makes of a word and the space before it, inside a text, against what a target makes of them.
    let (mut tells_spaces, mut keeps_them) = (false, false);
    for word in ["the", "b", "1", "na", "ẹ", "\u{e0}"] {
        let (before, inside) = (first.ids("a")?, first.ids(&format!("a {word}"))?);
        let bare = continuation.ids(word)?;
        tells_spaces |= inside.strip_prefix(before.as_slice()).is_some_and(|tail| tail != bare);
        keeps_them |= continuation.ids(&format!(" {word}"))? != bare;
    }
    Ok((tells_spaces && !keeps_them)
        .then(|| "without its prefix it loses the space that a target starts with".to_owned()))
}
