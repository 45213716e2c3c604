//! Compares the tokens that a post-processor puts around a text with those of the configuration.

use tokenizers::{Encoding, PostProcessor, Token, Tokenizer};

use super::ControlIds;
use crate::panics::caught;

/// An id that no token has: it marks the place of the text.
const TEXT: u32 = u32::MAX;

/// Returns a sentence for each edge at which the post-processor and the configuration differ. The
/// configuration wins. A post-processor that adds no tokens at all says nothing about edges and is
/// skipped.
pub(crate) fn disagreements(tokenizer: &Tokenizer, controls: ControlIds) -> Vec<String> {
    let Some((before, after)) = added_around(tokenizer) else { return Vec::new() };
    let spelled = |ids: &[u32]| {
        let token = |id: &u32| {
            format!("`{}`", tokenizer.id_to_token(*id).unwrap_or_else(|| id.to_string()))
        };
        if ids.is_empty() {
            "nothing".to_owned()
        } else {
            ids.iter().map(token).collect::<Vec<_>>().join(" ")
        }
    };
    let mut notes = Vec::new();
    // As lists, so that no token and several tokens compare alike.
    let bos: Vec<u32> = controls.bos.into_iter().collect();
    if before != bos {
        notes.push(format!(
            "tokenizer.json's post-processor begins a text with {}, \
             the configuration begins a document with {}: \
             documents begin as the configuration says; \
             set `bos` under [tokenizer] to change that",
            spelled(&before),
            spelled(&bos)
        ));
    }
    // A missing EOS is usual: most files leave it to the program that packs documents.
    if !after.is_empty() && after != [controls.eos] {
        notes.push(format!(
            "tokenizer.json's post-processor ends a text with {}, \
             the configuration ends a document with {}: \
             documents end as the configuration says; \
             set `eos` under [tokenizer] to change that",
            spelled(&after),
            spelled(&[controls.eos])
        ));
    }
    notes
}

/// Returns the ids that the post-processor puts before and after a text, if it adds any.
fn added_around(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let processor = tokenizer.get_post_processor()?;
    // A made-up token stands for the text: whatever surrounds it afterwards was added.
    let text = Encoding::from_tokens(vec![Token::new(TEXT, "text".to_owned(), (0, 4))], 0);
    let around = caught(|| processor.process(text, None, true)).ok()?.ok()?;
    let ids = around.get_ids();
    let position = ids.iter().position(|&id| id == TEXT)?;
    let (before, after) = (ids[..position].to_vec(), ids[position + 1..].to_vec());
    (!before.is_empty() || !after.is_empty()).then_some((before, after))
}
