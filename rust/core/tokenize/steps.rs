//! `Steps`: the normalizers and pre-tokenizers of a file, run one by one with a bound on each.
//!
//! A tokenizer.json may come from anywhere. Its normalizer may write a megabyte for a letter, or
//! double a text forty times; its patterns may search for years. The worst case can be read off the
//! steps. Where it is small, as in every tokenizer in use, the library runs all steps at once.
//! Otherwise the size after each step is computed before the step runs, and a pattern that may
//! search long is tried with a limit first. Bounds count bytes and searches, never time, so every
//! machine refuses the same texts.

use onig::{MatchParam, Regex, Region, SearchOptions};
use serde_json::Value;
use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
};

use super::backtrack::may_search_long;

/// The most growth of a text for which the library runs all steps at once.
const FREE_GROWTH: u64 = 16;
/// The longest text that Unicode's own foldings write for a character, with a margin.
const LONGEST_FOLD: usize = 64;
/// The most parts that a file may list.
const PARTS: usize = 256;
/// The most growth otherwise: this factor, and this many bytes more.
const GROWTH: usize = 64;
const SLACK: usize = 1 << 16;
/// The most tries of a search in a whole text; at least [`TRIES_A_PLACE`] for each position.
const TRIES: usize = 50_000_000;
const TRIES_A_PLACE: usize = 1000;

/// The steps of a tokenizer that needs care.
#[derive(Debug)]
pub(crate) struct Steps {
    normalizers: Vec<Step<NormalizerWrapper>>,
    pre_tokenizers: Vec<Step<PreTokenizerWrapper>>,
}

/// A normalizer or a pre-tokenizer with its bounds.
#[derive(Debug)]
struct Step<T> {
    part: T,
    /// The pattern that the step searches for, if it has one.
    pattern: Option<Regex>,
    /// The bytes that the step writes for each match, or once before the text if it has no pattern.
    written: usize,
    /// Whether the step writes that many bytes for each character.
    is_by_character: bool,
}

/// A description of the fault in a text or a file, for people.
pub(crate) type Refused = String;

impl Steps {
    /// Returns the steps of a normalizer and a pre-tokenizer; none if the library may run them at
    /// once.
    pub(crate) fn of(normalizer: &Value, pre_tokenizer: &Value) -> Result<Option<Self>, Refused> {
        let (mut normalizers, mut pre_tokenizers) = (Vec::new(), Vec::new());
        flatten(normalizer, "normalizers", &mut normalizers);
        flatten(pre_tokenizer, "pretokenizers", &mut pre_tokenizers);
        if normalizers.len().max(pre_tokenizers.len()) > PARTS {
            return Err(format!("it has more than {PARTS} normalizers or pre-tokenizers"));
        }
        // The library would allocate the claimed size at once, whatever it is.
        if normalizers.iter().any(|part| is_torn(part)) {
            return Err(
                "its precompiled_charsmap is damaged: it says that it is longer than it is"
                    .to_owned(),
            );
        }
        // Nearly every tokenizer is free: then the library runs without any bound of ours.
        let is_free = |parts: &[&Value]| {
            let growth = parts.iter().map(|part| growth(part)).fold(1, u64::saturating_mul);
            growth <= FREE_GROWTH
                && !parts.iter().any(|part| regex(part).is_some_and(may_search_long))
        };
        if is_free(&normalizers) && is_free(&pre_tokenizers) {
            return Ok(None);
        }
        Ok(Some(Self {
            normalizers: steps(&normalizers)?,
            pre_tokenizers: steps(&pre_tokenizers)?,
        }))
    }

    /// Normalizes a stretch of a text of `whole` bytes.
    pub(crate) fn normalize(
        &self,
        piece: &mut NormalizedString,
        whole: usize,
    ) -> Result<(), Refused> {
        let most = most(whole);
        for step in &self.normalizers {
            // The size is computed before the step runs: a step may write gigabytes at once.
            let matches = match &step.pattern {
                Some(regex) => count_matches(regex, piece.get())?,
                None if step.is_by_character => piece.get().chars().count(),
                None => 1,
            };
            let size = piece.len().saturating_add(matches.saturating_mul(step.written));
            refuse_growth("normalizer", size, most, whole)?;
            step.part.normalize(piece).map_err(|error| error.to_string())?;
            refuse_growth("normalizer", piece.len(), most, whole)?;
        }
        Ok(())
    }

    /// Splits a text of `whole` bytes into words.
    pub(crate) fn pre_tokenize(
        &self,
        text: &mut PreTokenizedString,
        whole: usize,
    ) -> Result<(), Refused> {
        let most = most(whole);
        for step in &self.pre_tokenizers {
            refuse_growth("pre-tokenizer", size_of(text), most, whole)?;
            if let Some(regex) = &step.pattern {
                for (word, _, tokens) in
                    text.get_splits(OffsetReferential::Normalized, OffsetType::None)
                {
                    // Words that are tokens already are not searched again.
                    if tokens.is_none() {
                        count_matches(regex, word)?;
                    }
                }
            }
            step.part.pre_tokenize(text).map_err(|error| error.to_string())?;
        }
        refuse_growth("pre-tokenizer", size_of(text), most, whole)
    }
}

/// Returns the bytes of a text's words at this point.
fn size_of(text: &PreTokenizedString) -> usize {
    text.get_splits(OffsetReferential::Normalized, OffsetType::None)
        .iter()
        .map(|(word, ..)| word.len())
        .sum()
}

/// Returns the most bytes that a text of `whole` bytes may grow to.
fn most(whole: usize) -> usize {
    whole.saturating_mul(GROWTH).saturating_add(SLACK)
}

/// Returns an error if `size` is above `most`.
fn refuse_growth(what: &str, size: usize, most: usize, whole: usize) -> Result<(), Refused> {
    if size <= most {
        return Ok(());
    }
    Err(format!(
        "its {what} makes {size} bytes or more of {whole}; {most} are the most that are taken"
    ))
}

/// Collects the parts of a normalizer or a pre-tokenizer in order, however they are nested.
fn flatten<'a>(part: &'a Value, list: &str, out: &mut Vec<&'a Value>) {
    match part[list].as_array() {
        Some(parts) => parts.iter().for_each(|part| flatten(part, list, out)),
        None if part.is_null() => {}
        None => out.push(part),
    }
}

/// Builds the bounded step of each part.
fn steps<T: serde::de::DeserializeOwned>(parts: &[&Value]) -> Result<Vec<Step<T>>, Refused> {
    let step = |part: &&Value| -> Result<_, Refused> {
        let pattern = match (&part["pattern"]["String"], regex(part)) {
            // Plain text is searched as a pattern too, to count its matches in advance.
            (Value::String(text), _) => Some(Regex::new(&regex::escape(text))),
            (_, Some(pattern)) => Some(Regex::new(pattern)),
            _ => None,
        };
        let longest = longest_mapped(part);
        let text = part["content"].as_str().or(part["prepend"].as_str()).unwrap_or_default();
        Ok(Step {
            part: serde_json::from_value((**part).clone()).map_err(|error| error.to_string())?,
            pattern: pattern.transpose().map_err(|error| error.to_string())?,
            written: longest.unwrap_or(text.len()),
            is_by_character: longest.is_some(),
        })
    };
    parts.iter().map(step).collect()
}

/// Returns the factor by which a part may lengthen a text, beyond the foldings of Unicode.
fn growth(part: &Value) -> u64 {
    let length = |key: &str| part[key].as_str().map_or(0, str::len) as u64;
    // Unicode itself writes up to this much for a character, and the library handles that.
    if let Some(longest) = longest_mapped(part) {
        return if longest <= LONGEST_FOLD { 1 } else { longest as u64 };
    }
    match (&part["pattern"]["String"], part["type"].as_str()) {
        (Value::String(text), _) if !text.is_empty() => {
            length("content").div_ceil(text.len() as u64).max(1)
        }
        (_, Some("ByteLevel")) => 2 + u64::from(part["add_prefix_space"] == true),
        // Some older files leave out the type.
        (_, Some("Metaspace") | None) => 4 + length("content") + length("prepend"),
        _ => 1 + length("content") + length("prepend"),
    }
}

/// Returns the length of the longest text that a part's `SentencePiece` table writes for a
/// character, if it has a table.
fn longest_mapped(part: &Value) -> Option<usize> {
    let table = base64(part["precompiled_charsmap"].as_str()?);
    let (size, rest) = table
        .split_first_chunk()
        .map_or((0, &[][..]), |(size, rest)| (u32::from_le_bytes(*size), rest));
    let texts = rest.get(size as usize..).unwrap_or_default();
    texts.split(|&byte| byte == 0).map(<[u8]>::len).max()
}

/// Returns whether a part's table claims to be longer than it is.
fn is_torn(part: &Value) -> bool {
    let Some(text) = part["precompiled_charsmap"].as_str() else { return false };
    let table = base64(text);
    let size = table.first_chunk().map(|size| u32::from_le_bytes(*size) as usize);
    size.is_none_or(|size| size > table.len() - 4)
}

/// Decodes base64 text; skips characters that are no digits.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().filter_map(digit).collect();
    let chunk = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, &digit| bits << 6 | u32::from(digit))
            << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    };
    digits.chunks(4).flat_map(chunk).collect()
}

/// Returns the pattern of a part, if it is a regular expression.
fn regex(part: &Value) -> Option<&str> {
    part["pattern"]["Regex"].as_str()
}

/// Counts the matches of a pattern as the library finds them. Returns an error if a search
/// backtracks too much.
fn count_matches(regex: &Regex, text: &str) -> Result<usize, Refused> {
    // A long text gets fewer tries at each position, so that the whole search is bounded.
    let tries = (TRIES / (text.len() + 1)).max(TRIES_A_PLACE);
    let (mut region, mut count, mut from, mut last) = (Region::new(), 0, 0, None);
    while from <= text.len() {
        let mut limit = MatchParam::default();
        limit.set_retry_limit_in_match(u32::try_from(tries).unwrap_or(u32::MAX));
        region.clear();
        let options = SearchOptions::SEARCH_OPTION_NONE;
        let found =
            regex.search_with_param(text, from, text.len(), options, Some(&mut region), limit);
        let found =
            found.map_err(|error| format!("one of its patterns searches too long: {error}"))?;
        let Some((start, end)) = found.and_then(|_| region.pos(0)) else { break };
        // An empty match right after the last match is none: the library skips it too.
        if start == end && last == Some(end) {
            from += text[from..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        (from, last) = (end, Some(end));
        count += 1;
    }
    Ok(count)
}
