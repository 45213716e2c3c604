//! Spells ordinary text with the model's tokens, none of them a control token.
//!
//! Some models hold their control tokens as ordinary entries (Unigram gives them the best score),
//! so text could become one without any matching. Such text is cut after the first character of
//! each such token, and the parts are tried again. A few rounds are enough, since each part is
//! shorter than a control token. An added token of one character (a line feed, say) is ordinary
//! unless it is special.

use std::cell::Cell;

use tokenizers::{Model, Token};

use super::form::{Control, Form};

/// The depth of nested cuts beyond which a text is cut into characters.
const DEEPEST: u32 = 32;

/// Returns the tokens of a stretch of text. Adds to `unspelled` if the model left out letters.
pub(crate) fn ordinary(
    form: &Form,
    text: &str,
    depth: u32,
    unspelled: &Cell<u64>,
) -> tokenizers::Result<Vec<Token>> {
    let mut tokens = form.tokenizer().get_model().tokenize(text)?;
    // The tokens end before the text does: the model left letters out, and the offsets are wrong.
    if tokens.last().map_or(0, |token| token.offsets.1) < text.len() {
        place(&mut tokens, text);
        unspelled.set(unspelled.get() + u64::from(depth == 0));
    }
    let cuts = cuts_in(form, text, depth, &tokens)?;
    if cuts.is_empty() {
        return Ok(tokens);
    }
    // Each part is encoded by itself; offsets count from the start of the whole text.
    let mut tokens = Vec::new();
    let mut from = 0;
    for end in cuts.into_iter().chain([text.len()]) {
        for token in ordinary(form, &text[from..end], depth + 1, unspelled)? {
            tokens.push(Token::new(
                token.id,
                token.value,
                (token.offsets.0 + from, token.offsets.1 + from),
            ));
        }
        from = end;
    }
    Ok(tokens)
}

/// Returns the positions at which a text is cut because one of its tokens is a control token.
fn cuts_in(
    form: &Form,
    text: &str,
    depth: u32,
    tokens: &[Token],
) -> tokenizers::Result<Vec<usize>> {
    let mut cuts = Vec::new();
    for token in tokens {
        let Some(kind) = form.control(token.id) else { continue };
        let spelled = text.get(token.offsets.0..token.offsets.1).unwrap_or_default();
        let first = spelled.chars().next().map_or(0, char::len_utf8);
        match kind {
            // The unknown token stands for unknown text, unless the text itself spells that token.
            Control::Unknown
                if form.tokenizer().id_to_token(token.id).as_deref() != Some(spelled) => {}
            _ if first < spelled.len() && depth < DEEPEST => cuts.push(token.offsets.0 + first),
            _ if !form.added().is_barred(token.id) => {}
            // The position of the token is unknown, or cutting does not help: cut into characters.
            _ if text.chars().nth(1).is_some() && (first == 0 || depth >= DEEPEST) => {
                return Ok(text.char_indices().map(|(end, _)| end).skip(1).collect());
            }
            _ => {
                let why = format!(
                    "its model has no ordinary token for {spelled:?}, which is an added token too"
                );
                return Err(why.into());
            }
        }
    }
    Ok(cuts)
}

/// Finds the offsets of tokens in a text from which the model left out letters; the model counts as
/// if those letters did not exist.
///
/// A left-out letter is never part of a token, so each character of a token is the next one of its
/// kind in the text.
fn place(tokens: &mut [Token], text: &str) {
    let mut from = 0;
    for token in tokens {
        let mut bounds: Option<(usize, usize)> = None;
        for char in token.value.chars() {
            // The model writes a prefix or a suffix to its tokens that the text does not have.
            let Some(found) = text[from..].find(char) else { continue };
            let start = from + found;
            from = start + char.len_utf8();
            bounds = Some((bounds.map_or(start, |(first, _)| first), from));
        }
        token.offsets = bounds.unwrap_or((from, from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_again_where_letters_are_left_out() {
        let mut tokens = [("a", 0), ("b/s", 1), ("c", 2)]
            .map(|(value, id)| Token::new(id, value.to_owned(), (0, 0)));
        place(&mut tokens, "\u{105}a\u{105}b\u{105}/s\u{105}c\u{105}");
        assert_eq!(tokens.map(|token| token.offsets), [(2, 3), (5, 10), (12, 13)]);
    }
}
