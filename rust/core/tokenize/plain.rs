//! `TextEncoder`: a tokenizer.json for text alone, without a configuration.
//!
//! Its ids are those of the `tokenizers` library's `encode` without special tokens added,
//! truncation or padding.

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

/// Texts that a thread takes at once, in bytes.
const SHARE: usize = 1 << 17;

/// The ids of many texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// One text's after the other's.
    pub flat: Vec<u32>,
    /// How many are each text's.
    pub lengths: Vec<usize>,
}

impl Ids {
    /// Takes the ids of `more`, which follow.
    fn append(&mut self, more: &mut Self) {
        if self.lengths.is_empty() {
            std::mem::swap(self, more);
        } else {
            self.flat.append(&mut more.flat);
            self.lengths.append(&mut more.lengths);
        }
    }
}

/// A tokenizer for text alone.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    form: Form,
    chosen: Chosen,
}

impl TextEncoder {
    /// Loads a tokenizer.json.
    pub fn load(path: &Path, storage: &dyn Storage) -> Result<Self> {
        let shown = path.display().to_string();
        let bytes = storage
            .whole_bytes(path)
            .map_err(|error| Error { kind: ErrorKind::Tokenizer, ..error })?;
        Self::from_bytes(&bytes).map_err(|error| error.file(shown))
    }

    /// The encoder of a tokenizer.json's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let load = || -> Result<_> {
            let loaded = choice::load(bytes, 1)?;
            let mut form = Form::plain(loaded.tokenizer, &loaded.json)?;
            let mut tokenizer = form.tokenizer().clone();
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(form::unusable)?;
            let mut chosen = choice::choose(loaded.engine, &form, 1, |engine, text| {
                let (mut ids, mut session) = (Vec::new(), engine.session());
                let own = form.plain_ids(engine, text, &mut session, &mut ids);
                if own.is_ok_and(|done| !done) {
                    return true;
                }
                let Ok(library) = by_library(&form, &tokenizer, text) else { return false };
                // Among others too, as most texts come.
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

    /// What encodes, and why.
    #[must_use]
    pub fn engine(&self) -> &Chosen {
        &self.chosen
    }

    /// Encodes texts on up to `threads` threads; the order of the ids is that of the texts.
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

    /// Encodes the texts that `next` gives, on up to `threads` threads and not more than `count`,
    /// which is how many texts there are. Whichever thread is free asks for more, one at a time,
    /// until none are added; the ids have the order of the texts.
    pub fn encode_from(
        &self,
        count: usize,
        threads: usize,
        next: impl FnMut(&mut Share) -> Result<()> + Send,
    ) -> Result<Ids> {
        let threads = threads.min(count).max(1);
        let (source, ordered) =
            (Mutex::new(Source { next: Some(next), given: 0 }), Mutex::new(Ordered::default()));
        let fill = |share: &mut Share| lock(&source).fill(share);
        let put = |nth: usize, ids: &mut Ids| lock(&ordered).put(nth, ids);
        tasks::run(threads, threads, |_| {
            // A session is made for who has something to encode: it costs megabytes.
            let mut session = None;
            let (mut share, mut ids) = (Share::default(), Ids::default());
            while let Some(nth) = fill(&mut share)? {
                let session =
                    session.get_or_insert_with(|| self.form.engine.as_ref().map(Engine::session));
                let encoded = self.encode_share(&share, session.as_deref_mut(), &mut ids);
                encoded.inspect_err(|_| lock(&source).next = None)?;
                if threads > 1 {
                    put(nth, &mut ids);
                }
            }
            if threads == 1 {
                put(0, &mut ids);
            }
            Ok(())
        })?;
        Ok(ordered.into_inner().unwrap_or_else(PoisonError::into_inner).ids)
    }

    /// Adds the ids of the texts of a share.
    fn encode_share(
        &self,
        share: &Share,
        mut session: Option<&mut Session>,
        ids: &mut Ids,
    ) -> Result<()> {
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
            out.truncate(known);
        }
        out.extend(by_library(&self.form, &self.tokenizer, text)?);
        Ok(())
    }
}

/// The ids that the library gives a text, or with care the parts of it. A panic of it is the
/// tokenizer's fault.
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

/// Texts that a thread encodes at once, one after the other.
#[derive(Debug, Default)]
pub struct Share {
    text: String,
    /// Where each text ends.
    ends: Vec<usize>,
}

impl Share {
    /// Adds a text.
    #[inline]
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Adds the next of `texts`, as many as it takes.
    pub fn fill<'a>(&mut self, texts: &mut impl Iterator<Item = &'a str>) {
        while !self.is_full()
            && let Some(text) = texts.next()
        {
            self.push(text);
        }
    }

    /// Whether it has texts enough.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.text.len() >= SHARE || self.ends.len() >= SHARE / 8
    }
}

/// Where texts come from, and how many shares of them were given.
struct Source<F> {
    /// None once it has given all, or something has failed.
    next: Option<F>,
    given: usize,
}

impl<F: FnMut(&mut Share) -> Result<()>> Source<F> {
    /// Puts the next texts into `share` in the place of what it holds, and gives its number; none
    /// if there are no more.
    fn fill(&mut self, share: &mut Share) -> Result<Option<usize>> {
        share.text.clear();
        share.ends.clear();
        let Some(next) = &mut self.next else { return Ok(None) };
        let filled = next(share);
        if filled.is_err() || share.ends.is_empty() {
            self.next = None;
            return filled.map(|()| None);
        }
        self.given += 1;
        Ok(Some(self.given - 1))
    }
}

/// Ids put in the order of their shares as they come.
#[derive(Debug, Default)]
struct Ordered {
    ids: Ids,
    /// The share that goes on from `ids`.
    next: usize,
    /// Those that came before their turn.
    early: BTreeMap<usize, Ids>,
    /// Empty lists whose memory can be used again.
    spare: Ids,
}

impl Ordered {
    /// Puts the ids of share `nth` where they belong; `ids` is empty afterwards.
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
        fn shares_come_out_in_order_however_they_come(order in Just((0..20_u32).collect::<Vec<_>>()).prop_shuffle()) {
            let mut ordered = Ordered::default();
            for nth in order {
                let mut ids = Ids { flat: vec![nth; nth as usize % 3], lengths: vec![nth as usize % 3] };
                ordered.put(nth as usize, &mut ids);
                prop_assert_eq!(ids, Ids::default());
            }
            prop_assert_eq!(ordered.ids.flat, (0..20).flat_map(|nth| vec![nth; nth as usize % 3]).collect::<Vec<u32>>());
            prop_assert_eq!(ordered.ids.lengths, (0..20).map(|nth| nth % 3).collect::<Vec<_>>());
        }
    }
}
