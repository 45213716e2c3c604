//! The fast encoder for byte-level BPE: gives the ids of the `tokenizers` library, without its
//! strings.
//!
//! Takes a tokenizer.json that it knows character for character (`recognise`, `pattern`), and text.
//! Gives ids. It never matches added tokens: its caller cuts them out first. Whenever a file is
//! loaded, the library itself confirms that the ids are right (`stress`).
//!
//! # How a text becomes ids
//!
//! 1. NFC, if the file asks for it, where a quick check finds that something may change (`nfc`).
//! 2. `split` finds the next word. A bit mask says which of the next 64 bytes are Latin letters
//!    (`ascii`, `machine`); a word of letters ends at the first bit that is not set. All other
//!    characters go through a table of classes (`classes`). Oniguruma fills the table once a
//!    process; `tokenizers` links the same engine, so the Unicode versions cannot differ. (A
//!    pattern that tells capitals from small letters, as o200k's, uses the mask for ASCII only.)
//!    Texts that do not change before the split lie one after the other: one look at 64 bytes may
//!    reach into the next text.
//! 3. `cache` knows the ids of most words. A word of up to 15 bytes with four ids lies in one slot
//!    of 32 bytes, which is read and compared whole; a word of up to 64 bytes lies in a ring. The
//!    cache never holds more than 13.5 MiB a thread. Thirty-two words are cut and prefetched before
//!    the first is looked up, so that the waits for memory overlap.
//! 4. `merges` computes the ids of all other words: with a plain vector up to 32 symbols, with a
//!    queue beyond. A longer word is cut between two bytes that no merge joins. The ranks of pairs
//!    of bytes are a table of 256 KiB; the other pairs are words of 64 bits in open addressing,
//!    which hold both ids and the rank.
//!
//! # What decides the speed, and which experiments lost
//!
//! Known before this was written (measured for the issue that asked for it, on one core of a
//! similar machine): a cache finds 94 to 97 % of the words of English, but 81 to 93 % of
//! African-language text. So the missed words decide there (250 to 300 ns each), and the splitter
//! elsewhere. A plain vector with linear search beats a heap up to about 30 bytes; merges in fixed
//! SIMD lanes lost 10 to 30 %; a cache of 4 to 8 MB is the knee of its curve.
//!
//! Tried here, on 4.1 MB of English and 31 MB of naija text in short documents, with a vocabulary
//! of 32,000, on one core (the least of five rounds by turns; first the first pass, then later
//! passes over the same texts):
//! - *One word at a time*, cut and looked up: 67 and 51 ms English, 655 and 630 naija. In batches
//!   of 32: 45 and 29, 433 and 407. With a prefetch for each word of a batch: 37 and 24, 380 and
//!   319. Waiting for memory was half of the time.
//! - *SSE2 for letters* instead of arithmetic on `u128`: the splitter alone from 370 to 500 MB/s on
//!   English, from 262 to 320 on naija. The arithmetic stays as its twin, for other processors.
//! - *The letters of 64 bytes at once*, beyond ASCII too, instead of sixteen bytes for each word:
//!   the end of a word no longer waits for sixteen bytes to be loaded and compared, and no branch
//!   depends on letters beyond ASCII. In a fast hour: the splitter alone on naija from 448 to 640
//!   MB/s, the whole encoder from 188 to 158 ms there.
//! - *Latin letters beyond ASCII* by sixteen bytes, in the code for ASCII: the values to keep made
//!   every word slower (English from 17.4 to 19.8 ms). In a function of its own: naija from 168 to
//!   165 ms.
//! - *Which of two slots* holds a word, found without a branch; a mask by length from a table; the
//!   index kept from the prefetch to the lookup: English from 18.4 to 17.0 ms, naija from 184 to
//!   169.
//! - *Sixteen bytes returned by value* from a function with a rare second path through memory: they
//!   go by the stack, and a word takes 1.5 ns more. The result is computed in each of the two paths
//!   instead.
//! - *Texts one after the other*, 256 KiB of them, searched at once for added tokens and for
//!   changes by NFC: naija from 158 to 142 ms, English from 18.4 to 16.4; the ids of Python strings
//!   from 288 to 244 ms for naija, before any change above but SSE2. With 128 KiB, which stay in a
//!   near cache with their ids: naija on two threads from 114 to 110 ms. 32 or 64 KiB are no
//!   better.
//! - *Both pairs of a merge loaded before either is compared*: misses from 318 to 292 ns.
//! - *Merges without moving symbols*, in 16 fixed lanes with the dead ones masked: 423 ns instead
//!   of 302; four bytes written and sixteen read at once wait for one another. A second attempt,
//!   with lanes read one by one, the living ones as bits of an integer, two pairs to a bucket and
//!   hardly a branch: misses alone from 153 to 139 ns, but naija takes 1 % longer and English 3 %.
//!   With the buckets alone naija takes 1 % less. Neither was kept.
//! - *The slots of short words shared by all threads*, without locks, each key mixed with its ids
//!   so that a half-written slot is not found: the second thread need not repeat the work of the
//!   first, but two threads took as long as before (138 to 157 ms for naija), and one took 6 %
//!   longer, 9 % on English. Not kept. *Threads that send one another new words*, some hundred at a
//!   time: two take as long as without it (92 and 91 ms). Not kept.
//! - *Zeros written to a new cache*, instead of zeros from the system: two threads that start at
//!   once took 119 ms for naija from an Arrow array, and take 107; the first 256 KiB of one of them
//!   took 14 to 24 ms, and take 2 (`cache` says why).
//! - *Slots of 11 MiB* instead of 8: naija has 240,000 short words. A second pass over it computes
//!   100,000 of them again, not 143,000, and takes 114 ms, not 124; the first pass takes 1 % less,
//!   and English no longer. *The newer of two words* pushed out of a full line as often as the
//!   older: 85,000, and 1 % less time. Not kept.
//! - *Merges numbered as they are listed* need no table of products: English from 17.3 to 16.8 ms.
//! - *Huge pages*: for the cache no difference beyond noise. For the ids of naija, 28 MB, they took
//!   14 ms off 236 in the median, but 60 ms more where the machine had not used such pages before.
//!   Not kept.
//! - *A separate loop for words beyond ASCII*, decoding four bytes at once: 328 MB/s instead of
//!   324. Not kept.
//! - *A binary heap for huge words*: its cache misses grow with the word. A radix heap reads
//!   buckets from end to end, but moves each key through some twenty of them. Positions listed by
//!   rank are sorted once, and each rank goes through the word from left to right. With all facts
//!   about a symbol in one place, not in four arrays, 20 MB of one letter went from 1.3 to 6.7
//!   MB/s, of random letters from 1.0 to 2.4 (both beside other work). This needs each merge to
//!   come after those that make its parts; files where that does not hold (merges listed twice,
//!   say) keep the binary heap.
//! - *Long words in parts*, cut between bytes that no merge joins: 50 MB of random letters from 15
//!   to 55 MB/s, of line feeds from 51 to 149, of one CJK character from 75 to 130.
//!
//! `benches/README.md` keeps the measurements.

mod ascii;
mod cache;
mod classes;
mod machine;
mod merges;
mod model;
mod nfc;
mod pattern;
mod queue;
mod recognise;
mod split;
#[cfg(test)]
mod split_tests;
mod stress;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use serde_json::Value;

use cache::{Cache, Key};
use merges::Merges;
pub(crate) use nfc::{Composer, Edit};
use recognise::{Prefix, Recipe};
use split::{Cut, Splitter};
pub(super) use stress::texts as stress_texts;

use crate::tasks::lock;

/// The number of words that are looked up together.
const BATCH: usize = 32;

/// A fast encoder: text to ids, for one tokenizer.json.
#[derive(Debug)]
pub struct Engine {
    nfc: bool,
    prefix: Prefix,
    splitter: Splitter,
    words: Arc<Words>,
}

/// A model, with the sessions that its users share.
#[derive(Debug)]
struct Words {
    merges: Merges,
    /// By id: whether words with this id are flagged.
    guarded: Vec<bool>,
    idle: Mutex<Vec<(ThreadId, Box<Session>)>>,
}

/// The memory that one thread keeps between texts.
#[derive(Debug, Default)]
pub(crate) struct Session {
    cache: Cache,
    composer: Composer,
}

/// A session on loan. It goes back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    words: Arc<Words>,
    session: Option<Box<Session>>,
}

/// An encoded word.
#[derive(Debug)]
pub(crate) struct Word<'a> {
    /// The bytes of the word, with the space put before it.
    pub(crate) bytes: &'a [u8],
    /// The bytes of the word in the text.
    pub(crate) place: Range<usize>,
    /// The index of its first id.
    pub(crate) from: usize,
    /// Whether one of its ids is guarded.
    pub(crate) guarded: bool,
}

impl Engine {
    /// Builds the fast encoder of a tokenizer.json; the error says why there is none.
    pub fn of(json: &Value) -> Result<Self, String> {
        let recipe = Recipe::of(json)?;
        let words = Words {
            merges: Merges::of(&json["model"])?,
            guarded: Vec::new(),
            idle: Mutex::default(),
        };
        let splitter = Splitter::new(recipe.rules);
        Ok(Self { nfc: recipe.nfc, prefix: recipe.prefix, splitter, words: Arc::new(words) })
    }

    /// Returns this encoder with a flag on each word that has an id for which `guarded` holds true.
    #[must_use]
    pub(crate) fn guarding(mut self, guarded: Vec<bool>) -> Self {
        let words = Arc::get_mut(&mut self.words)
            .expect("an engine is told what to guard before its words are shared");
        words.guarded = guarded;
        self
    }

    /// Returns the encoder for text that continues a text: no space goes first. Both share the
    /// cached words.
    #[must_use]
    pub(crate) fn continuing(&self) -> Self {
        Self {
            nfc: self.nfc,
            prefix: Prefix::None,
            splitter: self.splitter.clone(),
            words: Arc::clone(&self.words),
        }
    }

    /// Returns a session, if possible the one that this thread used last.
    #[must_use]
    pub(crate) fn session(&self) -> Lease {
        let mut idle = lock(&self.words.idle);
        // The session that this thread used last comes first: its lines are in a near cache. Any
        // other idle session knows words already.
        let mine = idle.iter().position(|(owner, _)| *owner == thread::current().id());
        let session = mine.or(idle.len().checked_sub(1)).map(|index| idle.swap_remove(index).1);
        // A new session costs megabytes: the lock is released before it is made.
        drop(idle);
        Lease { words: Arc::clone(&self.words), session: Some(session.unwrap_or_default()) }
    }

    /// Returns the text as it will be split, and its edits; none if it does not change.
    pub(crate) fn normalize(
        &self,
        text: &str,
        session: &mut Session,
    ) -> Option<(String, Vec<Edit>)> {
        if self.nfc { session.composer.compose(text) } else { None }
    }

    /// Returns whether a text, and any text cut from it, is split without a change.
    pub(crate) fn is_plain(&self, text: &str, session: &mut Session) -> bool {
        self.prefix == Prefix::None
            && self.words.guarded.is_empty()
            && (!self.nfc || session.composer.is_normal(text))
    }

    /// Appends the ids of plain texts that follow one another, and the number of ids of each text.
    pub(crate) fn encode_each(
        &self,
        texts: &str,
        ends: &[usize],
        session: &mut Session,
        out: &mut Vec<u32>,
        lengths: &mut Vec<usize>,
    ) {
        let mut cut = Cut::of(&self.splitter, texts.as_bytes());
        for &end in ends {
            let known = out.len();
            self.encode_words(&mut cut, end, session, out, |_, _| {});
            lengths.push(out.len() - known);
        }
    }

    /// Appends the ids of a normalized text. Calls `seen` with each word; its ids are then the last
    /// of the list.
    #[inline]
    pub(crate) fn encode(
        &self,
        text: &str,
        session: &mut Session,
        out: &mut Vec<u32>,
        mut seen: impl FnMut(&Word<'_>, &mut Vec<u32>),
    ) {
        match self.prefix {
            Prefix::Text if !text.is_empty() && !text.starts_with(' ') => {
                // The first word begins one byte before the text: the space there is not in the
                // text.
                let spaced = format!(" {text}");
                self.encode_text(&spaced, session, out, |word, out| {
                    let place = word.place.start.max(1) - 1..word.place.end - 1;
                    seen(&Word { place, ..*word }, out);
                });
            }
            // Each word gets exactly one space, whether the text has one or not.
            Prefix::Words => {
                let mut spaced = vec![b' '];
                self.splitter.each(text, |start, end| {
                    let own = usize::from(text.as_bytes()[start] == b' ');
                    spaced.truncate(1);
                    spaced.extend_from_slice(&text.as_bytes()[start + own..end]);
                    let (from, key) = (out.len(), Key::of(&spaced, 0, spaced.len()));
                    let place = session.cache.expect(key);
                    let guarded = self.words.encode(&spaced, key, place, &mut session.cache, out);
                    seen(&Word { bytes: &spaced, place: start..end, from, guarded }, out);
                });
            }
            _ => self.encode_text(text, session, out, seen),
        }
    }

    /// Appends the ids of the words of a text.
    #[inline]
    fn encode_text(
        &self,
        text: &str,
        session: &mut Session,
        out: &mut Vec<u32>,
        seen: impl FnMut(&Word<'_>, &mut Vec<u32>),
    ) {
        self.encode_words(
            &mut Cut::of(&self.splitter, text.as_bytes()),
            text.len(),
            session,
            out,
            seen,
        );
    }

    /// Appends the ids of the words up to `stop`, a batch at a time. The cache lines of a whole
    /// batch are prefetched before the first lookup, so that the waits for memory overlap.
    #[inline]
    fn encode_words(
        &self,
        cut: &mut Cut<'_>,
        stop: usize,
        session: &mut Session,
        out: &mut Vec<u32>,
        mut seen: impl FnMut(&Word<'_>, &mut Vec<u32>),
    ) {
        // On the stack: no allocation for a text.
        let mut batch = [(0, Key::default(), 0); BATCH];
        loop {
            let first = cut.position();
            let (mut words, mut start) = (0, first);
            for slot in &mut batch {
                let Some(end) = cut.next(stop) else { break };
                let key = Key::of(cut.text(), start, end);
                *slot = (end, key, session.cache.expect(key));
                (words, start) = (words + 1, end);
            }
            if words == 0 {
                return;
            }
            // The prefetched lines have arrived by now, or are on their way.
            let mut start = first;
            for &(end, key, place) in &batch[..words] {
                let (from, bytes) = (out.len(), &cut.text()[start..end]);
                let guarded = self.words.encode(bytes, key, place, &mut session.cache, out);
                seen(&Word { bytes, place: start..end, from, guarded }, out);
                start = end;
            }
        }
    }

    /// Calls `word` with the start and the end of each word of a text.
    pub fn split(&self, text: &str, word: impl FnMut(usize, usize)) {
        self.splitter.each(text, word);
    }

    /// Returns the number of bytes of a token.
    #[must_use]
    pub(crate) fn length(&self, id: u32) -> usize {
        self.words.merges.length(id)
    }

    /// Returns the number of bytes that some tokens spell.
    #[must_use]
    pub(crate) fn spelled_bytes(&self, ids: &[u32]) -> usize {
        ids.iter().map(|&id| self.length(id)).sum()
    }

    /// Returns whether the model leaves out some bytes: it has neither a token for them nor an
    /// unknown token.
    #[must_use]
    pub(crate) fn lacks_letters(&self) -> bool {
        self.words.merges.lacks_letters()
    }

    /// Returns a word as the model's vocabulary spells it.
    #[must_use]
    pub(crate) fn spelled(&self, word: &[u8]) -> String {
        word.iter().map(|&byte| self.words.merges.character(byte)).collect()
    }
}

impl Words {
    /// Appends the ids of a word; returns whether one of them is guarded.
    #[inline]
    fn encode(
        &self,
        word: &[u8],
        key: Key,
        place: usize,
        cache: &mut Cache,
        out: &mut Vec<u32>,
    ) -> bool {
        if key.is_short()
            && let Some(guarded) = cache.short(key, place, out)
        {
            return guarded;
        }
        self.encode_rare(word, key, cache, out)
    }

    /// Does the same for a word that is long or not in the cache.
    #[inline(never)]
    fn encode_rare(&self, word: &[u8], key: Key, cache: &mut Cache, out: &mut Vec<u32>) -> bool {
        // Longer words would push many others out of the ring.
        let is_kept = !key.is_short() && word.len() <= cache::LONG;
        let known = if is_kept { cache.long(word, out) } else { None };
        known.unwrap_or_else(|| self.learn(word, key, cache, out))
    }

    /// Appends the ids of a word that is not in the cache, and stores them there.
    fn learn(&self, word: &[u8], key: Key, cache: &mut Cache, out: &mut Vec<u32>) -> bool {
        let from = out.len();
        self.merges.encode(word, out);
        let ids = &out[from..];
        // Plain encoders guard nothing and skip the search.
        let guarded = !self.guarded.is_empty()
            && ids.iter().any(|&id| self.guarded.get(id as usize) == Some(&true));
        if key.is_short() {
            cache.put_short(key, ids, guarded);
        } else if word.len() <= cache::LONG {
            cache.put_long(word, ids, guarded);
        }
        guarded
    }
}

impl std::ops::Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_deref().expect("a lease holds its session until it is dropped")
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_deref_mut().expect("a lease holds its session until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut idle = lock(&self.words.idle);
        idle.extend(self.session.take().map(|session| (thread::current().id(), session)));
    }
}
