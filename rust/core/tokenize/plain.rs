//! `TextEncoder`: a tokenizer.json for text alone, without a configuration.
//!
//! Its ids are those of the `tokenizers` library's `encode` without special tokens added, truncation or padding.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tokenizers::Tokenizer;

use super::choice::{self, Chosen};
use super::fast::{Engine, Session};
use super::form::{self, Form};
use crate::error::{Error, Kind, Result};
use crate::files;

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
    pub fn encode(&self, texts: &[&str], threads: usize) -> Result<Ids> {
        let shares = shares(texts);
        let threads = threads.clamp(1, shares.len().max(1));
        if threads == 1 {
            return self.encode_share(texts);
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some(share) = shares.get(next.fetch_add(1, Relaxed)) {
                done.push((share.start, self.encode_share(&texts[share.clone()])?));
            }
            Ok(done)
        };
        let mut parts: Vec<(usize, Ids)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, Result<Vec<_>>>| {
                worker.join().unwrap_or_else(|_| Err(Error::internal("a thread panicked")))
            };
            workers.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?
        .into_iter()
        .flatten()
        .collect();
        parts.sort_by_key(|(start, _)| *start);
        let mut all = Ids::default();
        all.flat.reserve_exact(parts.iter().map(|(_, ids)| ids.flat.len()).sum());
        for (_, ids) in parts {
            all.flat.extend_from_slice(&ids.flat);
            all.lengths.extend(ids.lengths);
        }
        Ok(all)
    }

    fn encode_share(&self, texts: &[&str]) -> Result<Ids> {
        let mut ids = Ids { flat: Vec::new(), lengths: Vec::with_capacity(texts.len()) };
        let mut session = self.form.engine.as_ref().map(Engine::session);
        for text in texts {
            let known = ids.flat.len();
            self.encode_one(text, session.as_deref_mut(), &mut ids.flat)?;
            ids.lengths.push(ids.flat.len() - known);
        }
        Ok(ids)
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

/// Stretches of texts of about `SHARE` bytes.
fn shares(texts: &[&str]) -> Vec<std::ops::Range<usize>> {
    let (mut shares, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (nth, text) in texts.iter().enumerate() {
        bytes += text.len();
        if bytes >= SHARE || nth + 1 == texts.len() {
            shares.push(start..nth + 1);
            (start, bytes) = (nth + 1, 0);
        }
    }
    shares
}
