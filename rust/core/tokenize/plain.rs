//! `TextEncoder`: encodes plain text with a tokenizer.json, without a configuration.
//!
//! Its ids equal those of the `tokenizers` library's `encode` without special tokens, truncation
//! and padding.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokenizers::Tokenizer;

use super::choice::{self, Chosen};
use super::fast::{Engine, Session};
use super::form::{self, Form};
use crate::error::{Error, ErrorKind, Result};
use crate::panics::caught;
use crate::storage::Storage;
use crate::tasks::{self, lock};

/// Bytes of text that a thread takes at once.
const SHARE: usize = 1 << 17;

/// The ids of many texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The ids of all texts, concatenated.
    pub flat: Vec<u32>,
    /// The number of ids of each text.
    pub lengths: Vec<usize>,
}

impl Ids {
    /// Appends the ids of the texts that follow, and empties `following`.
    fn append(&mut self, following: &mut Self) {
        // The first share gives its memory away instead of being copied.
        if self.lengths.is_empty() {
            std::mem::swap(self, following);
        } else {
            self.flat.append(&mut following.flat);
            self.lengths.append(&mut following.lengths);
        }
    }
}

/// A tokenizer for plain text.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    form: Form,
    chosen: Chosen,
}

impl TextEncoder {
    /// Loads a tokenizer.json file.
    pub fn load(path: &Path, storage: &dyn Storage) -> Result<Self> {
        let shown = path.display().to_string();
        let bytes = storage
            .whole_bytes(path)
            .map_err(|error| Error { kind: ErrorKind::Tokenizer, ..error })?;
        Self::from_bytes(&bytes).map_err(|error| error.file(shown))
    }

    /// Builds an encoder from the bytes of a tokenizer.json.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let load = || -> Result<_> {
            let loaded = choice::load(bytes, 1)?;
            let mut form = Form::plain(loaded.tokenizer, &loaded.json)?;
            // Only this copy encodes whole texts: a file's own padding and truncation would change
            // the ids.
            let mut tokenizer = form.tokenizer().clone();
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(form::unusable)?;
            let mut chosen = choice::choose(loaded.engine, &form, 1, |engine, text| {
                let (mut ids, mut session) = (Vec::new(), engine.session());
                let own = form.plain_ids(engine, text, &mut session, &mut ids);
                // A text that the fast encoder leaves to the library cannot differ.
                if own.is_ok_and(|done| !done) {
                    return true;
                }
                let Ok(library) = by_library(&form, &tokenizer, text) else { return false };
                // Two copies in a row as well: most texts are encoded in one batch with others.
                if form.is_plain(engine, text, &mut session) {
                    let (mut twice, ends) = (Ids::default(), [text.len(), 2 * text.len()]);
                    engine.encode_each(
                        &text.repeat(2),
                        &ends,
                        &mut session,
                        &mut twice.flat,
                        &mut twice.lengths,
                    );
                    if twice != (Ids { flat: library.repeat(2), lengths: vec![library.len(); 2] }) {
                        return false;
                    }
                }
                library == ids
            })?;
            form.engine = chosen.take();
            Ok(Self { tokenizer, form, chosen })
        };
        caught(load).unwrap_or_else(|panic| Err(form::unusable(form::panicked(&panic))))
    }

    /// Returns the encoder in use and the reason for its choice.
    #[must_use]
    pub fn engine(&self) -> &Chosen {
        &self.chosen
    }

    /// Encodes texts on up to `threads` threads. The ids have the order of the texts.
    pub fn encode<'a>(
        &self,
        mut texts: impl ExactSizeIterator<Item = &'a str> + Send,
        threads: usize,
    ) -> Result<Ids> {
        let count = texts.len();
        self.encode_from(count, threads, |share| {
            share.fill(&mut texts);
            Ok(())
        })
    }

    /// Encodes the `count` texts that `next` supplies, on up to `threads` threads. A free thread
    /// calls `next` for its next share, one thread at a time, until `next` adds no text. The ids
    /// have the order of the texts.
    pub fn encode_from(
        &self,
        count: usize,
        threads: usize,
        next: impl FnMut(&mut Share) -> Result<()> + Send,
    ) -> Result<Ids> {
        // A thread without a text would only cost a session.
        let threads = threads.min(count).max(1);
        // Two locks: a thread that stores its ids does not keep others from their next share.
        let (source, ordered) =
            (Mutex::new(Source { next: Some(next), given: 0 }), Mutex::new(Ordered::default()));
        let fill = |share: &mut Share| lock(&source).fill(share);
        let put = |nth: usize, ids: &mut Ids| lock(&ordered).put(nth, ids);
        tasks::run(threads, threads, |_| {
            // A session costs megabytes, so a thread makes one only when it has something to
            // encode.
            let mut session = None;
            let (mut share, mut ids) = (Share::default(), Ids::default());
            while let Some(nth) = fill(&mut share)? {
                let session =
                    session.get_or_insert_with(|| self.form.engine.as_ref().map(Engine::session));
                let encoded = self.encode_share(&share, session.as_deref_mut(), &mut ids);
                // Other threads stop at their next share: the first error decides the result.
                encoded.inspect_err(|_| lock(&source).next = None)?;
                if threads > 1 {
                    put(nth, &mut ids);
                }
            }
            // One thread keeps all ids in one list, so that nothing is copied.
            if threads == 1 {
                put(0, &mut ids);
            }
            Ok(())
        })?;
        Ok(ordered.into_inner().unwrap_or_else(PoisonError::into_inner).ids)
    }

    /// Appends the ids of the texts of a share.
    fn encode_share(
        &self,
        share: &Share,
        mut session: Option<&mut Session>,
        ids: &mut Ids,
    ) -> Result<()> {
        // Nothing happens to these texts before the split, so they are encoded back to back.
        if let (Some(engine), Some(session)) = (&self.form.engine, session.as_deref_mut())
            && self.form.is_plain(engine, &share.text, session)
        {
            engine.encode_each(&share.text, &share.ends, session, &mut ids.flat, &mut ids.lengths);
            return Ok(());
        }
        let mut from = 0;
        for &end in &share.ends {
            let known = ids.flat.len();
            self.encode_one(&share.text[from..end], session.as_deref_mut(), &mut ids.flat)?;
            ids.lengths.push(ids.flat.len() - known);
            from = end;
        }
        Ok(())
    }

    /// Appends the ids of a text.
    fn encode_one(
        &self,
        text: &str,
        session: Option<&mut Session>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let known = out.len();
        if let (Some(engine), Some(session)) = (&self.form.engine, session) {
            if self.form.plain_ids(engine, text, session, out).map_err(Error::tokenizer)? {
                return Ok(());
            }
            // The fast encoder gave up in the middle of the text; the library starts again.
            out.truncate(known);
        }
        out.extend(by_library(&self.form, &self.tokenizer, text)?);
        Ok(())
    }
}

/// Returns the library's ids for a text; a careful form encodes it step by step. A panic becomes an
/// error about the tokenizer file.
fn by_library(form: &Form, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    if form.is_careful() {
        return form.ids(text, true);
    }
    let encoding = caught(|| tokenizer.encode_fast(text, false));
    let encoding = encoding.map_err(|panic| form::unusable(form::panicked(&panic)))?;
    let encoding =
        encoding.map_err(|error| Error::tokenizer(format!("the tokenizer failed: {error}")))?;
    Ok(encoding.get_ids().to_vec())
}

/// The texts that a thread encodes at once, concatenated.
#[derive(Debug, Default)]
pub struct Share {
    text: String,
    /// The end of each text in `text`.
    ends: Vec<usize>,
}

impl Share {
    /// Appends a text.
    #[inline]
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Appends texts from `texts` until the share is full.
    pub fn fill<'a>(&mut self, texts: &mut impl Iterator<Item = &'a str>) {
        while !self.is_full()
            && let Some(text) = texts.next()
        {
            self.push(text);
        }
    }

    /// Returns whether the share has enough texts. Empty texts count too, so that a share stays
    /// bounded.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.text.len() >= SHARE || self.ends.len() >= SHARE / 8
    }
}

/// The supplier of texts, and the number of shares it has filled.
struct Source<F> {
    /// None once the supplier is exhausted or an error occurred.
    next: Option<F>,
    given: usize,
}

impl<F: FnMut(&mut Share) -> Result<()>> Source<F> {
    /// Replaces the content of `share` with the next texts and returns its number; none if no text
    /// is left.
    fn fill(&mut self, share: &mut Share) -> Result<Option<usize>> {
        share.text.clear();
        share.ends.clear();
        let Some(next) = &mut self.next else { return Ok(None) };
        let filled = next(share);
        // Once only: `next` is never called again after its end or an error.
        if filled.is_err() || share.ends.is_empty() {
            self.next = None;
            return filled.map(|()| None);
        }
        self.given += 1;
        Ok(Some(self.given - 1))
    }
}

/// The ids of shares, put in order as they arrive.
#[derive(Debug, Default)]
struct Ordered {
    ids: Ids,
    /// The number of the share that comes after `ids`.
    next: usize,
    /// Shares that arrived before their turn.
    early: BTreeMap<usize, Ids>,
    /// Empty lists whose memory is reused.
    spare: Ids,
}

impl Ordered {
    /// Adds the ids of share `nth` at their place; leaves `ids` empty.
    fn put(&mut self, nth: usize, ids: &mut Ids) {
        if nth != self.next {
            self.early.insert(nth, std::mem::replace(ids, std::mem::take(&mut self.spare)));
            return;
        }
        self.ids.append(ids);
        self.next += 1;
        while let Some(mut ids) = self.early.remove(&self.next) {
            self.ids.append(&mut ids);
            self.spare = ids;
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_come_out_in_order_however_they_come(
            order in Just((0..20_u32).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let ids_of = |nth: u32| vec![nth; nth as usize % 3];
            let mut ordered = Ordered::default();
            for nth in order {
                let mut ids = Ids { flat: ids_of(nth), lengths: vec![nth as usize % 3] };
                ordered.put(nth as usize, &mut ids);
                prop_assert_eq!(ids, Ids::default());
            }
            prop_assert_eq!(ordered.ids.flat, (0..20).flat_map(ids_of).collect::<Vec<u32>>());
            prop_assert_eq!(ordered.ids.lengths, (0..20).map(|nth| nth % 3).collect::<Vec<_>>());
        }
    }
}
