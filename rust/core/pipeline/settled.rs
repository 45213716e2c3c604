//! `Settled`: the mapped corpus and the decisions over it in a file, for processes that make shards.
//!
//! The file holds a mark, the length of a JSON text, the text, a bit for each record that is dropped
//! for its content, and the xxh3-64 of all this.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::settle::{Corpus, Decisions, PartOf};
use crate::spool::{Layout, Listing, Part};
use crate::storage::Storage;
use crate::write::any_path;

/// The first eight bytes of the file.
const MAGIC: &[u8; 8] = b"sabiset1";

/// A path in JSON.
#[derive(Debug, Serialize, Deserialize)]
struct File(#[serde(with = "any_path")] PathBuf);

/// A part of a spool, as the file names it.
#[derive(Debug, Serialize, Deserialize)]
struct SentPart {
    /// Source, index of the input within it, and index of the input.
    place: (usize, usize, usize),
    fitted: bool,
    layout: Layout,
    /// The index of its file, and the offset in it.
    block: (usize, u64),
    /// The number of its words of bits.
    words: usize,
}

/// The text of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    files: Vec<File>,
    parts: Vec<SentPart>,
    decisions: Decisions,
}

/// The mapped corpus and the decisions over it, as read from a file.
#[derive(Debug)]
pub(super) struct Settled {
    parts: Vec<(SentPart, Part)>,
    decisions: Decisions,
}

/// Writes the mapped corpus and the decisions over it to `path`.
pub(super) fn write_settled(
    storage: &dyn Storage,
    path: &Path,
    corpus: &Corpus<'_>,
    decisions: &Decisions,
) -> Result<()> {
    let (decisions, bits) = decisions.without_bits();
    let (mut files, mut known) = (Vec::new(), HashMap::new());
    let mut parts = Vec::with_capacity(corpus.parts.len());
    for (of, bits) in corpus.parts.iter().zip(bits) {
        let (file, offset) = of.part.file().ok_or_else(|| {
            Error::internal("a spool in memory was to be read by another process")
                .remedy("this is a bug in sabiprep: please report it")
        })?;
        let index = *known.entry(file.to_owned()).or_insert_with(|| {
            files.push(File(file.to_owned()));
            files.len() - 1
        });
        parts.push(SentPart {
            place: (of.source, of.nth_input, of.input),
            fitted: of.fitted,
            layout: of.part.layout,
            block: (index, offset),
            words: bits.len(),
        });
    }
    let text = serde_json::to_vec(&Text { files, parts, decisions }).expect("it is plain data");
    let mut bytes = Vec::with_capacity(text.len() + bits.iter().map(Vec::len).sum::<usize>() * 8);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&text);
    bytes.extend(bits.iter().flatten().flat_map(|word| word.to_le_bytes()));
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    storage.write_file(path, &bytes)
}

impl Settled {
    /// Reads the file `path`.
    pub(super) fn read(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let bytes = storage.whole_bytes(path)?;
        let broken = || {
            Error::dataset("was damaged, or is of another version of sabiprep")
                .file(path.display().to_string())
                .remedy("remove it, and settle the corpus again")
        };
        let (head, sum) = bytes.split_last_chunk().ok_or_else(broken)?;
        if xxh3_64(head) != u64::from_le_bytes(*sum) {
            return Err(broken());
        }
        let rest = head.strip_prefix(MAGIC).ok_or_else(broken)?;
        let (len, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let len = u64::from_le_bytes(*len) as usize;
        let (text, bits) = rest.split_at_checked(len).ok_or_else(broken)?;
        let text: Text = serde_json::from_slice(text).map_err(|_| broken())?;
        let Text { files, parts, mut decisions } = text;
        let files: Vec<Arc<PathBuf>> = files.into_iter().map(|file| Arc::new(file.0)).collect();
        let mut words = bits.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        decisions
            .set_bits(parts.iter().map(|part| words.by_ref().take(part.words).collect()).collect());
        let part = |sent: SentPart| {
            let (file, offset) = sent.block;
            let file = files.get(file).ok_or_else(broken)?;
            let part = Part::in_file(sent.layout, Arc::clone(file), offset);
            Ok((sent, part))
        };
        let parts = parts.into_iter().map(part).collect::<Result<_>>()?;
        Ok(Self { parts, decisions })
    }

    /// Returns the decisions.
    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Returns the mapped corpus, without its counts.
    pub(super) fn corpus<'a>(&'a self, plan: &'a Plan) -> Corpus<'a> {
        let part_of = |(sent, part): &'a (SentPart, Part)| {
            let (source, nth_input, input) = sent.place;
            PartOf { source, nth_input, input, fitted: sent.fitted, part }
        };
        Corpus {
            plan,
            parts: self.parts.iter().map(part_of).collect(),
            tallies: Vec::new(),
            listing: Listing::new(plan.sources.len()),
        }
    }
}
