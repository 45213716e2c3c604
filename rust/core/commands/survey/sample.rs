//! Samples a source: the starts of its files, and a few places of long ones.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::budget::{Budget, PLACE};
use super::problem::Problem;
use super::resolve::Bench;
use super::sampled::{Sampled, SampledInput, TRAINED};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Contents, Scratch};
use crate::plan::{Plan, Source};
use crate::read::{InputSplit, MAX_LINE};
use crate::segment::Rendered;
use crate::spool::Doubts;
use crate::storage::{Bounded, Compression, Storage};

/// The most records that are read at the start of a file.
const RECORDS: u64 = 1000;
/// The records that are read of a place however large they are, up to so many bytes.
const FEW: u64 = 4;
const FEW_BYTES: u64 = 4 << 20;
/// The most bytes of content that are read at the start of a file.
const HEAD: u64 = 1 << 20;
/// The places of a long file that are read beside its start.
const PLACES: usize = 4;
/// The bytes of content from which the ratio of a compressed file is judged.
const UNPACKED: u64 = 4 << 20;
/// The most files of a source that are read.
const FILES: usize = 32;
/// Bytes that may be read beyond a place, for its last record.
const BEYOND: u64 = 18 << 20;

/// The input splits of each input of each source.
pub(super) type Splits = HashMap<(usize, usize), Vec<InputSplit>>;

/// Returns the input splits of every input, in order.
pub(super) fn splits_by_input(
    plan: &Plan,
    problems: &mut Vec<Problem>,
    context: &Context<'_>,
) -> Splits {
    let mut by_input = Splits::new();
    for source in 0..plan.sources.len() {
        match plan.splits_of(source, context.storage) {
            Ok(splits) => splits.into_iter().for_each(|split| {
                by_input.entry((split.source, split.nth_input)).or_default().push(split);
            }),
            Err(error) => problems.push(Problem::of_error("file", error)),
        }
    }
    by_input
}

/// Samples the source `index`, or reads it whole where its budget allows for it.
pub(super) fn sample(
    bench: &Bench,
    index: usize,
    splits: &Splits,
    budget: Budget,
    context: &Context<'_>,
) -> Result<Sampled> {
    let whole = match budget.whole {
        Some(content) => Some(Sampler::new(bench, index, budget, context).whole(content, splits)?),
        None => None,
    };
    match whole {
        Some(whole) if whole.is_whole() || !whole.faults.is_empty() => Ok(whole),
        // There was more than its files' sizes told: a start of the source alone says less of it
        // than places all over.
        whole => {
            let mut sampled = Sampler::new(bench, index, budget, context).places(splits)?;
            sampled.read_bytes += whole.map_or(0, |whole| whole.read_bytes);
            Ok(sampled)
        }
    }
}

/// Returns the bytes that are read of a compressed file for the start of its content, and the bytes
/// of that content.
fn unpacked(path: &Path, storage: &dyn Storage) -> (u64, u64) {
    let bounded = Bounded::new(storage, UNPACKED);
    let Ok(content) = (&bounded as &dyn Storage).open_content(path, 0) else { return (0, 0) };
    // What comes before a fault counts as well.
    let mut counted = content.take(UNPACKED);
    let _ = std::io::copy(&mut counted, &mut std::io::sink());
    (bounded.read(), UNPACKED - counted.limit())
}

/// Returns up to `most` indices below `count`, evenly spread, the first among them.
fn spread(count: usize, most: usize) -> Vec<usize> {
    let chosen = count.min(most);
    (0..chosen).map(|nth| nth * count / chosen).collect()
}

/// A place of an input.
struct Place<'a> {
    split: &'a InputSplit,
    /// The most bytes of content that are read, and that are tokenized.
    most: u64,
    tokenized: u64,
    /// The most records that are read.
    records: u64,
}

/// A sample under way.
pub(super) struct Sampler<'a> {
    pub(super) bench: &'a Bench,
    pub(super) index: usize,
    pub(super) source: &'a Source,
    budget: Budget,
    pub(super) context: &'a Context<'a>,
    pub(super) scratch: Option<Scratch>,
    pub(super) rendered: Rendered,
    pub(super) contents: Contents,
    pub(super) out: Sampled,
}

impl<'a> Sampler<'a> {
    /// Returns a sample of nothing yet.
    fn new(bench: &'a Bench, index: usize, budget: Budget, context: &'a Context<'a>) -> Self {
        let source = &bench.plan().sources[index];
        let inputs = vec![SampledInput::default(); source.inputs.len()];
        Self {
            bench,
            index,
            source,
            budget,
            context,
            scratch: bench.job().map(Scratch::new),
            rendered: Rendered::default(),
            contents: Contents::default(),
            out: Sampled {
                index,
                inputs,
                unmet: source.options.named_fields(),
                ..Sampled::default()
            },
        }
    }

    /// Reads every record, but no more than `content` bytes of them.
    fn whole(mut self, content: u64, splits: &Splits) -> Result<Sampled> {
        let mut left = content;
        for nth in 0..self.source.inputs.len() {
            self.begin(nth);
            let of_input = splits.get(&(self.index, nth)).map_or(&[][..], Vec::as_slice);
            for split in of_input {
                let place = Place { split, most: left, tokenized: left, records: u64::MAX };
                if !self.try_read(&place)? {
                    break;
                }
                left = content.saturating_sub(self.out.content());
            }
            self.end(nth, of_input.len());
            if left == 0 || Instant::now() > self.budget.until {
                break;
            }
        }
        Ok(self.out)
    }

    /// Reads the starts of files, and a few places of long ones.
    fn places(mut self, splits: &Splits) -> Result<Sampled> {
        let chosen = spread(self.source.inputs.len(), FILES);
        let head = (self.budget.read / chosen.len().max(1) as u64).clamp(16 << 10, HEAD);
        let places = chosen.len() * (1 + PLACES);
        let tokenized = (self.budget.tokenized / places as u64).max(4 << 10);
        self.budget.until += Duration::from_secs(3600);
        for nth in chosen {
            self.begin(nth);
            let of_input = splits.get(&(self.index, nth)).map_or(&[][..], Vec::as_slice);
            for at in spread(of_input.len(), 1 + PLACES) {
                let is_only = of_input.len() == 1;
                let most = if at == 0 { head } else { (head / 4).clamp(8 << 10, PLACE) };
                let place = Place {
                    split: &of_input[at],
                    most,
                    // The place of a file that is one place may take the share of the others.
                    tokenized: if is_only { tokenized * (1 + PLACES as u64) } else { tokenized },
                    records: RECORDS,
                };
                if !self.try_read(&place)? {
                    break;
                }
            }
            self.end(nth, of_input.len());
        }
        Ok(self.out)
    }

    /// Begins an input.
    fn begin(&mut self, nth: usize) {
        let path = &self.bench.plan().inputs[self.source.inputs[nth]].path;
        let input = &mut self.out.inputs[nth];
        input.is_read = true;
        input.is_compressed = Compression::of(path).is_some();
        input.stated = self.source.format.get().stated_records(path, self.context);
    }

    /// Ends an input, which has so many splits.
    fn end(&mut self, nth: usize, splits: usize) {
        let path = &self.bench.plan().inputs[self.source.inputs[nth]].path;
        let input = &mut self.out.inputs[nth];
        input.is_whole = input.ended == splits;
        if input.is_compressed && !input.is_whole {
            (input.packed, input.unpacked) = unpacked(path, self.context.storage);
            self.out.read_bytes += input.packed;
        }
    }

    /// Reads the records of a place. Returns whether it is sound; a fault of its file is kept.
    fn try_read(&mut self, place: &Place<'_>) -> Result<bool> {
        match self.read(place) {
            Ok(()) => Ok(true),
            Err(error) if error.kind == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.out.faults.push(error);
                Ok(false)
            }
        }
    }

    /// Reads the records of a place.
    fn read(&mut self, place: &Place<'_>) -> Result<()> {
        let bounded = Bounded::new(self.context.storage, place.most.saturating_add(BEYOND));
        let result = self.read_by(place, &bounded);
        self.out.read_bytes += bounded.read();
        match result {
            // A record that goes on and on is no fault of the file.
            Err(error) if bounded.is_exhausted() && error.kind != ErrorKind::Interrupted => {
                self.out.inputs[place.split.nth_input].stuck += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// Reads the records of a place from `storage`.
    fn read_by(&mut self, place: &Place<'_>, storage: &Bounded<'_>) -> Result<()> {
        let plan = self.bench.plan();
        let context = &Context { storage, ..*self.context };
        let split = place.split;
        let name = &plan.inputs[split.input].name;
        let in_place = |error: Error| error.file(name.clone()).source(self.source.name.clone());
        let started = Instant::now();
        let needed = self.bench.builder(self.index).needed();
        let mut records = plan.open_for(split, None, needed, context)?;
        let has_offsets = self.source.format.get().is_text();
        let (mut size, mut timed, mut ended) = (Size::default(), Some(started), false);
        let few = |size: &Size| size.records < FEW && size.content < FEW_BYTES;
        while size.records < place.records && (size.content < place.most || few(&size)) {
            let Some(record) = records.advance().map_err(in_place)? else {
                ended = true;
                break;
            };
            self.context.monitor.check()?;
            if Instant::now() > self.budget.until {
                break;
            }
            let is_tokenized = size.content < place.tokenized;
            let bytes = record.bytes() as u64 + 1;
            // Of a line that is too long, no reader tells how long it is.
            let is_endless = has_offsets && record.bytes() == 0;
            let least = if is_endless { MAX_LINE as u64 } else { bytes };
            size.add(least, has_offsets.then_some(record.offset));
            if record.is_doubtful() {
                self.out.doubts.add(Doubts { count: 1, first: Some(record.id) });
            }
            record.meet(&mut self.out.unmet);
            self.add(record.id, record.fields(), bytes, is_tokenized, split)?;
            if size.content >= place.tokenized {
                self.add_time(timed.take());
            }
        }
        self.add_time(timed);
        self.add_size(split.nth_input, &size, ended);
        Ok(())
    }

    /// Adds the time of tokenizing, which began then.
    fn add_time(&mut self, started: Option<Instant>) {
        let seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        self.out.tokenized[TRAINED].seconds += seconds;
    }

    /// Adds the size of the records of a place, which was read to its end or not.
    fn add_size(&mut self, nth: usize, size: &Size, ended: bool) {
        let input = &mut self.out.inputs[nth];
        input.records += size.records;
        input.content += size.content;
        input.largest = input.largest.max(size.largest);
        input.ended += usize::from(ended);
        if size.records > 0 {
            input.densities.push(size.records as f64 / size.content as f64);
        }
    }
}

/// The size of the records of a place.
#[derive(Default)]
struct Size {
    records: u64,
    content: u64,
    /// The bytes of the largest record.
    largest: u64,
    /// The offset after the last record, if records are found by their bytes.
    end: Option<u64>,
}

impl Size {
    /// Adds a record of so many bytes, at this offset if records are found by their bytes.
    ///
    /// Where one ends tells its size too: a line that is too long is passed over, and has none.
    fn add(&mut self, bytes: u64, offset: Option<u64>) {
        let between = offset.zip(self.end).map_or(0, |(offset, end)| offset.saturating_sub(end));
        self.records += 1;
        self.content += bytes + between;
        self.largest = self.largest.max(bytes).max(between);
        self.end = offset.map(|offset| offset + bytes);
    }
}
