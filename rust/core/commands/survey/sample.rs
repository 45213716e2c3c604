//! Samples a source: the starts of its files, and a few places of long ones.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3Default;

use super::fields::SeenFields;
use super::problem::Problem;
use super::resolve::Bench;
use super::source::ShownRecord;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::mask::count_targets;
use crate::pipeline::{Scratch, fit};
use crate::plan::{Plan, Source};
use crate::read::{Fields, InputSplit};
use crate::schema::{DropReason, Refusal};
use crate::segment::{Change, Rendered};
use crate::storage::{Bounded, Compression, Storage};

/// The most records that are read at the start of a file.
const RECORDS: u64 = 1000;
/// The most bytes of content that are read at the start of a file.
const HEAD: u64 = 1 << 20;
/// The places of a long file that are read beside its start, and the most bytes of each.
const PLACES: usize = 4;
const PLACE: u64 = 256 << 10;
/// The bytes of content from which the ratio of a compressed file is judged.
const UNPACKED: u64 = 4 << 20;
/// The most files of a source that are read.
const FILES: usize = 32;
/// Bytes of content that are read of all sources together, roughly, and those that are tokenized.
const READ: u64 = 64 << 20;
const TOKENIZED: u64 = 4 << 20;
/// Bytes that may be read beyond a place, for its last record.
const BEYOND: u64 = 18 << 20;
/// Records that are shown of each source.
const SHOWN: usize = 2;
/// The most input splits that places are chosen among.
const SPLITS: u64 = 4096;

/// The bytes of content that may be read and tokenized of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    read: u64,
    tokenized: u64,
}

impl Budget {
    /// Returns the budget of each source of `plan`.
    pub(super) fn of(plan: &Plan) -> Self {
        let sources = plan.sources.len().max(1) as u64;
        Self {
            read: (READ / sources).clamp(128 << 10, 8 << 20),
            tokenized: (TOKENIZED / sources).clamp(16 << 10, 512 << 10),
        }
    }
}

/// Returns the size of input splits among which the places of long files are chosen.
pub(super) fn split_bytes(plan: &Plan) -> u64 {
    let total: u64 = plan.inputs.iter().map(|input| input.size).sum();
    (total / SPLITS).max(PLACE)
}

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

/// What a sample of a source shows.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    /// The index of the source.
    pub(super) index: usize,
    /// Its inputs, read or not.
    pub(super) inputs: Vec<SampledInput>,
    pub(super) fields: SeenFields,
    /// Records read, and those that break their format or template.
    pub(super) records: u64,
    pub(super) unfit: u64,
    /// Dropped records by reason, with the first of each.
    pub(super) drops: BTreeMap<DropReason, (u64, Dropped)>,
    /// Records that cleaning changed, by the kind of change.
    pub(super) cleaned: BTreeMap<Change, u64>,
    pub(super) shown: Vec<ShownRecord>,
    /// Sums over the records that were tokenized too: of training files, and of held-out ones.
    pub(super) tokenized: [Tokenized; 2],
    /// Records whose data spells a control token, and the first such token.
    pub(super) control: Option<(u64, String, u64)>,
    /// The records' texts, by their hashes.
    pub(super) texts: HashMap<u128, Text>,
    /// Records with the text of an earlier one, and the first such record with that earlier one.
    pub(super) repeated: Option<(u64, u64, u64)>,
    /// Errors of inputs.
    pub(super) faults: Vec<Error>,
    /// Bytes read of the inputs.
    pub(super) read_bytes: u64,
}

/// An input in a sample.
#[derive(Debug, Default, Clone)]
pub(super) struct SampledInput {
    /// Whether it was read at all.
    pub(super) is_read: bool,
    /// Whether it was read to its end.
    pub(super) is_whole: bool,
    /// Whether it is compressed, so that its size says little.
    pub(super) is_compressed: bool,
    /// The number of records that the file states, if it does.
    pub(super) stated: Option<u64>,
    pub(super) records: u64,
    /// Input splits that were read to their end.
    ended: usize,
    /// The records for each byte of content, in each place that was read.
    pub(super) densities: Vec<f64>,
    /// Bytes of content that these records take.
    pub(super) content: u64,
    /// Bytes of the start of a compressed file, and of the content that they stand for.
    pub(super) packed: u64,
    pub(super) unpacked: u64,
}

/// A text that records have.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The first record with it, one that is trained on if there is one.
    pub(super) first: u64,
    pub(super) trained: bool,
    pub(super) held_out: bool,
}

/// A dropped record.
#[derive(Debug)]
pub(super) struct Dropped {
    pub(super) record_id: u64,
    pub(super) why: String,
    /// The first text of its fields, if they could be read.
    pub(super) words: Option<String>,
}

/// Sums over tokenized records.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tokenized {
    /// Records that were read, tokenized or not, and their bytes.
    pub(super) read: u64,
    pub(super) read_bytes: u64,
    /// Records that were tokenized, kept or not, and their bytes.
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) documents: u64,
    pub(super) tokens: u64,
    pub(super) targets: u64,
    /// Runs of one role.
    pub(super) runs: u64,
    /// Records with a document longer than a row.
    pub(super) long: u64,
    /// Documents longer than half a row, of which a row holds one.
    pub(super) halves: u64,
    /// Tokens that stand for unknown text, and words without some letters.
    pub(super) unknown: u64,
    pub(super) unspelled: u64,
    /// Words and letters of the texts.
    pub(super) words: u64,
    pub(super) letters: u64,
}

impl Tokenized {
    /// Returns the sums of both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            read: self.read + other.read,
            read_bytes: self.read_bytes + other.read_bytes,
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
            seconds: self.seconds + other.seconds,
            documents: self.documents + other.documents,
            tokens: self.tokens + other.tokens,
            targets: self.targets + other.targets,
            runs: self.runs + other.runs,
            long: self.long + other.long,
            halves: self.halves + other.halves,
            unknown: self.unknown + other.unknown,
            unspelled: self.unspelled + other.unspelled,
            words: self.words + other.words,
            letters: self.letters + other.letters,
        }
    }
}

impl Sampled {
    /// Returns the sums over all records that were tokenized.
    pub(super) fn sums(&self) -> Tokenized {
        self.tokenized[0].plus(&self.tokenized[1])
    }
}

/// Samples the source `index`.
pub(super) fn sample(
    bench: &Bench,
    index: usize,
    splits: &Splits,
    budget: Budget,
    context: &Context<'_>,
) -> Result<Sampled> {
    let plan = bench.plan();
    let source = &plan.sources[index];
    let mut sampler = Sampler {
        bench,
        index,
        source,
        context,
        scratch: bench.job().map(Scratch::new),
        rendered: Rendered::default(),
        out: Sampled {
            index,
            inputs: vec![SampledInput::default(); source.inputs.len()],
            ..Sampled::default()
        },
    };
    let chosen = spread(source.inputs.len(), FILES);
    let head = (budget.read / chosen.len().max(1) as u64).clamp(16 << 10, HEAD);
    let places = chosen.len() * (1 + PLACES);
    let tokenized = (budget.tokenized / places as u64).max(4 << 10);
    for nth in chosen {
        let none = Vec::new();
        let of_input = splits.get(&(index, nth)).unwrap_or(&none);
        let input = &mut sampler.out.inputs[nth];
        let path = &plan.inputs[source.inputs[nth]].path;
        input.is_read = true;
        input.is_compressed = Compression::of(path).is_some();
        input.stated = source.format.get().stated_records(path, context);
        if input.is_compressed {
            (input.packed, input.unpacked) = unpacked(path, context.storage);
            sampler.out.read_bytes += input.packed;
        }
        for at in spread(of_input.len(), 1 + PLACES) {
            let is_only = of_input.len() == 1;
            let most = if at == 0 { head } else { (head / 4).clamp(8 << 10, PLACE) };
            let place = Place {
                split: &of_input[at],
                most,
                // The place of a file that is one place may take the share of the others.
                tokenized: if is_only { tokenized * (1 + PLACES as u64) } else { tokenized },
            };
            if let Err(error) = sampler.read(&place) {
                if error.kind == ErrorKind::Interrupted {
                    return Err(error);
                }
                sampler.out.faults.push(error);
                break;
            }
        }
        let input = &mut sampler.out.inputs[nth];
        input.is_whole = input.ended == of_input.len();
    }
    Ok(sampler.out)
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
}

/// A sample under way.
struct Sampler<'a> {
    bench: &'a Bench,
    index: usize,
    source: &'a Source,
    context: &'a Context<'a>,
    scratch: Option<Scratch>,
    rendered: Rendered,
    out: Sampled,
}

impl Sampler<'_> {
    /// Reads the records of a place.
    fn read(&mut self, place: &Place<'_>) -> Result<()> {
        let bounded = Bounded::new(self.context.storage, place.most + BEYOND);
        let result = self.read_by(place, &bounded);
        self.out.read_bytes += bounded.read();
        match result {
            // A record that goes on and on is no fault of the file.
            Err(error) if bounded.is_exhausted() && error.kind != ErrorKind::Interrupted => Ok(()),
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
        let mut records = plan.open_for(split, None, context)?;
        let side = self.side(split);
        let (mut content, mut count, mut ended) = (0, 0, false);
        let mut timed = Some(started);
        loop {
            if content >= place.most || count >= RECORDS {
                break;
            }
            let Some(record) = records.advance().map_err(in_place)? else {
                ended = true;
                break;
            };
            self.context.monitor.check()?;
            let bytes = record.bytes() as u64 + 1;
            let is_tokenized = content < place.tokenized;
            (content, count) = (content + bytes, count + 1);
            self.add(record.id, record.fields(), bytes, is_tokenized, split)?;
            if content >= place.tokenized
                && let Some(started) = timed.take()
            {
                self.out.tokenized[side].seconds += started.elapsed().as_secs_f64();
            }
        }
        if let Some(started) = timed {
            self.out.tokenized[side].seconds += started.elapsed().as_secs_f64();
        }
        let input = &mut self.out.inputs[split.nth_input];
        (input.records, input.content) = (input.records + count, input.content + content);
        input.ended += usize::from(ended);
        if count > 0 {
            input.densities.push(count as f64 / content as f64);
        }
        Ok(())
    }

    /// Returns the index of the sums that records of a split count in.
    fn side(&self, split: &InputSplit) -> usize {
        usize::from(self.source.holds_out(split.nth_input))
    }

    /// Counts a record.
    fn add(
        &mut self,
        id: u64,
        fields: std::result::Result<Fields, Refusal>,
        bytes: u64,
        is_tokenized: bool,
        split: &InputSplit,
    ) -> Result<()> {
        let side = self.side(split);
        self.out.records += 1;
        let sums = &mut self.out.tokenized[side];
        (sums.read, sums.read_bytes) = (sums.read + 1, sums.read_bytes + bytes);
        if let Ok(fields) = &fields {
            self.out.fields.add(fields);
            if self.out.shown.len() < SHOWN {
                let shown = ShownRecord::of(self.bench, self.index, id, fields)?;
                self.out.shown.push(shown);
            }
        }
        let words = fields.as_ref().ok().and_then(first_text);
        let made = match (self.bench.job(), is_tokenized) {
            (Some(job), true) => {
                let sums = &mut self.out.tokenized[side];
                (sums.records, sums.bytes) = (sums.records + 1, sums.bytes + bytes);
                fields.and_then(|fields| self.tokenize(job, fields, id, side))
            }
            _ => fields.and_then(|fields| self.render(&fields, id)),
        };
        let rendered = self.scratch.as_ref().filter(|_| is_tokenized);
        let rendered = rendered.map_or(&self.rendered, |scratch| &scratch.rendered);
        for (change, _) in rendered.touched.iter() {
            *self.out.cleaned.entry(change).or_default() += 1;
        }
        match made {
            Ok(text) => self.compare(text, id, split),
            Err(Refusal { reason, why }) => {
                self.out.unfit += u64::from(reason.is_unfit());
                let first = || (0, Dropped { record_id: id, why, words });
                self.out.drops.entry(reason).or_insert_with(first).0 += 1;
            }
        }
        Ok(())
    }

    /// Makes the documents of a record, counts them, and returns the hash of their text.
    fn tokenize(
        &mut self,
        job: &Job,
        fields: Fields,
        id: u64,
        side: usize,
    ) -> std::result::Result<u128, Refusal> {
        let scratch = self.scratch.get_or_insert_with(|| Scratch::new(job));
        let sums = &mut self.out.tokenized[side];
        let seq_len = job.plan.pack.seq_len;
        let was_cut = fit(job, self.index, id, fields, scratch).inspect_err(|refusal| {
            sums.long += u64::from(refusal.reason == DropReason::TooLong);
        })?;
        sums.long += u64::from(was_cut || scratch.longest() > seq_len);
        for document in &scratch.documents {
            let (len, windows) =
                (document.ids.len(), job.plan.pack.windows(document.ids.len()).len());
            sums.documents += windows as u64;
            // Each further window begins with a token of the one before.
            sums.tokens += (len + windows - 1) as u64;
            sums.targets += u64::from(count_targets(&document.runs, self.source.loss));
            sums.runs += (document.runs.len() + windows - 1) as u64;
            let half = len.div_ceil(windows) * 2 > seq_len;
            sums.halves += if half { windows as u64 } else { 0 };
            sums.unknown += document.marks.unknown;
            sums.unspelled += document.marks.unspelled;
        }
        let mut hasher = Xxh3Default::new();
        for text in scratch.texts() {
            sums.words += text.split_whitespace().count() as u64;
            sums.letters += text.chars().count() as u64;
            hasher.update(text.as_bytes());
            hasher.update(b"\0");
        }
        if let Some(origin) = &scratch.rendered.origin {
            hasher = Xxh3Default::new();
            hasher.update(origin.as_bytes());
        }
        if let Some(token) = job.encoder.control_in_data(&scratch.rendered) {
            self.out.control.get_or_insert((0, token, id)).0 += 1;
        }
        Ok(hasher.digest128())
    }

    /// Renders a record and returns the hash of its text.
    fn render(&mut self, fields: &Fields, id: u64) -> std::result::Result<u128, Refusal> {
        self.rendered.record_id = id;
        let mut hasher = Xxh3Default::new();
        let builder = self.bench.builder(self.index);
        builder.build(fields, &mut self.rendered, &mut |rendered| {
            builder.refuse(rendered)?;
            let text = rendered.origin.as_ref().unwrap_or(&rendered.text);
            hasher.update(text.as_bytes());
            hasher.update(b"\0");
            Ok(())
        })?;
        Ok(hasher.digest128())
    }

    /// Compares the text of a record with those before it.
    fn compare(&mut self, text: u128, id: u64, split: &InputSplit) {
        let held_out = self.source.holds_out(split.nth_input);
        let known = self.out.texts.entry(text).or_insert(Text { first: id, ..Text::default() });
        // A text on both sides is a leak, which is another problem.
        let is_repeated = if held_out { known.held_out } else { known.trained };
        if is_repeated {
            let first = known.first;
            self.out.repeated.get_or_insert((0, id, first)).0 += 1;
        }
        if held_out {
            known.held_out = true;
        } else if !known.trained {
            (known.trained, known.first) = (true, id);
        }
    }
}

/// Returns the first text among the fields of a record.
fn first_text(fields: &Fields) -> Option<String> {
    fields.values().find_map(|value| value.as_str()).map(|text| text.chars().take(80).collect())
}
