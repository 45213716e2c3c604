//! `TextEncoder`: a tokenizer.json for text alone, without a configuration.
//!
//! Its ids are those of the `tokenizers` library's `encode` without special tokens added, truncation or padding.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokenizers::Tokenizer;

use super::choice::{self, Chosen};
use super::fast::{Engine, Session};
use super::form::{self, Form};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::tasks;

/// Texts that a thread takes at once, in bytes.
const SHARE: usize = 1 << 18;

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
        self.flat.append(&mut more.flat);
        self.lengths.append(&mut more.lengths);
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
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let bytes = files::whole_bytes(path).map_err(|error| Error { kind: Kind::Tokenizer, ..error })?;
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
                let mut ids = Vec::new();
                let own = form.plain_ids(engine, text, &mut engine.session(), &mut ids);
                let library = by_library(&tokenizer, text).map_err(|error| error.message);
                own.is_ok_and(|done| !done) || library.is_ok_and(|library| library == ids)
            })?;
            form.engine = chosen.take();
            Ok(Self { tokenizer, form, chosen })
        };
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(form::unusable(form::PANIC)))
    }

    /// What encodes, and why.
    #[must_use]
    pub fn engine(&self) -> &Chosen {
        &self.chosen
    }

    /// Encodes texts on up to `threads` threads; the order is that of the texts.
    pub fn encode<'a, I>(&self, texts: &I, threads: usize) -> Result<Ids>
    where
        I: ExactSizeIterator<Item = &'a str> + Clone + Sync,
    {
        let shares = Shares::default();
        self.encode_shares(&shares, texts.len(), threads, || shares.fill(texts.clone().map(Ok)))
    }

    /// Encodes `count` texts that another thread fills in.
    pub fn encode_filled<T: AsRef<str> + Send + Sync>(
        &self,
        shares: &Shares<T>,
        count: usize,
        threads: usize,
    ) -> Result<Ids> {
        self.encode_shares(shares, count, threads, || {
            shares.wait();
            Ok(())
        })
    }

    /// One of the `threads` begins with `fill`, after which all texts are in.
    fn encode_shares<T: AsRef<str> + Send + Sync>(
        &self,
        shares: &Shares<T>,
        count: usize,
        threads: usize,
        fill: impl Fn() -> Result<()> + Sync,
    ) -> Result<Ids> {
        let threads = threads.min(count).max(1);
        if threads == 1 {
            let mut ids = Ids::default();
            fill()?;
            self.drain(shares, &mut ids, |_, _| {})?;
            return Ok(ids);
        }
        let ordered = Mutex::new(Ordered::default());
        let put = |nth: usize, ids: &mut Ids| ordered.lock().unwrap_or_else(PoisonError::into_inner).put(nth, ids);
        tasks::run(threads, threads, |nth| {
            if nth == 0 {
                fill()?;
            }
            self.drain(shares, &mut Ids::default(), put)
        })?;
        Ok(ordered.into_inner().unwrap_or_else(PoisonError::into_inner).ids)
    }

    /// Adds the ids of each stretch that is left to `ids`; then `done` is told its number and may take them.
    fn drain<T: AsRef<str>>(
        &self,
        shares: &Shares<T>,
        ids: &mut Ids,
        mut done: impl FnMut(usize, &mut Ids),
    ) -> Result<()> {
        let mut session = self.form.engine.as_ref().map(Engine::session);
        while let Some((nth, share)) = shares.take() {
            for text in share.iter() {
                let known = ids.flat.len();
                self.encode_one(text.as_ref(), session.as_deref_mut(), &mut ids.flat)?;
                ids.lengths.push(ids.flat.len() - known);
            }
            done(nth, ids);
        }
        Ok(())
    }

    fn encode_one(&self, text: &str, session: Option<&mut Session>, out: &mut Vec<u32>) -> Result<()> {
        let known = out.len();
        if let (Some(engine), Some(session)) = (&self.form.engine, session) {
            if self.form.plain_ids(engine, text, session, out).map_err(Error::tokenizer)? {
                return Ok(());
            }
            out.truncate(known);
        }
        out.extend(by_library(&self.tokenizer, text)?);
        Ok(())
    }
}

fn by_library(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|error| Error::tokenizer(format!("the tokenizer failed: {error}")))?;
    Ok(encoding.get_ids().to_vec())
}

/// Texts on their way to the threads that encode them.
#[derive(Debug)]
pub struct Shares<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// Stretches of texts of about [`SHARE`] bytes. They stay here: who fills them in lets them go.
    shares: Vec<Arc<Vec<T>>>,
    taken: usize,
    closed: bool,
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { shares: Vec::new(), taken: 0, closed: false }), changed: Condvar::new() }
    }
}

impl<T: AsRef<str>> Shares<T> {
    /// Fills in all texts, or those before the first error. To be called once.
    pub fn fill<E>(&self, texts: impl Iterator<Item = std::result::Result<T, E>>) -> std::result::Result<(), E> {
        let (mut share, mut bytes) = (Vec::new(), 0);
        let mut texts = texts.peekable();
        let mut failed = Ok(());
        while let Some(text) = texts.next() {
            match text {
                Ok(text) => {
                    bytes += text.as_ref().len();
                    share.push(text);
                }
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
            if bytes >= SHARE && texts.peek().is_some() {
                self.state().shares.push(Arc::new(std::mem::take(&mut share)));
                self.changed.notify_all();
                bytes = 0;
            }
        }
        let mut state = self.state();
        if !share.is_empty() {
            state.shares.push(Arc::new(share));
        }
        state.closed = true;
        self.changed.notify_all();
        failed
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all texts are filled in.
    fn wait(&self) {
        let closed = self.changed.wait_while(self.state(), |state| !state.closed);
        drop(closed);
    }

    /// The next stretch and its number, once it is there; none after the last.
    fn take(&self) -> Option<(usize, Arc<Vec<T>>)> {
        let is_waiting = |state: &mut State<T>| !state.closed && state.taken == state.shares.len();
        let mut state = self.changed.wait_while(self.state(), is_waiting).unwrap_or_else(PoisonError::into_inner);
        let (nth, share) = (state.taken, state.shares.get(state.taken).cloned()?);
        state.taken += 1;
        Some((nth, share))
    }
}

/// Ids put in the order of their stretches as they come.
#[derive(Debug, Default)]
struct Ordered {
    ids: Ids,
    /// The stretch that goes on from `ids`.
    next: usize,
    /// Those that came before their turn.
    early: BTreeMap<usize, Ids>,
}

impl Ordered {
    /// Puts the ids of stretch `nth` where they belong; `ids` is empty afterwards.
    fn put(&mut self, nth: usize, ids: &mut Ids) {
        if nth != self.next {
            self.early.insert(nth, std::mem::take(ids));
            return;
        }
        self.ids.append(ids);
        self.next += 1;
        while let Some(mut ids) = self.early.remove(&self.next) {
            self.ids.append(&mut ids);
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
        fn stretches_come_out_in_order_however_they_come(order in Just((0..20_u32).collect::<Vec<_>>()).prop_shuffle()) {
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
