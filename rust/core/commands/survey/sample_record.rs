//! One record of a sample: rendered, tokenized and compared with those before it.

use xxhash_rust::xxh3::Xxh3Default;

use super::sample::Sampler;
use super::sampled::{DRAWN, Dropped, HELD_OUT, TRAINED, Text};
use super::source::ShownRecord;
use crate::error::Result;
use crate::job::Job;
use crate::mask::count_targets;
use crate::pipeline::{Scratch, fit};
use crate::read::{Fields, InputSplit};
use crate::schema::{DropReason, Refusal};

/// Records that are shown of each source.
const SHOWN: usize = 2;

impl Sampler<'_> {
    /// Returns the index of the sums that a record of a split counts in.
    fn side(&self, split: &InputSplit, id: u64) -> usize {
        if self.source.holds_out(split.nth_input) {
            HELD_OUT
        } else if self.bench.plan().draws(split.input, id) {
            DRAWN
        } else {
            TRAINED
        }
    }

    /// Counts a record.
    pub(super) fn add(
        &mut self,
        id: u64,
        fields: std::result::Result<Fields, Refusal>,
        bytes: u64,
        is_tokenized: bool,
        split: &InputSplit,
    ) -> Result<()> {
        let side = self.side(split, id);
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
            Ok(digests) => self.compare(digests, id, side != TRAINED),
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
    ) -> std::result::Result<Digests, Refusal> {
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
        let text = hasher.digest128();
        // Settling compares contents across the splits alone.
        let holds_out = self.bench.plan().holds_out();
        let content = if holds_out { self.contents.key(scratch.content()) } else { text };
        Ok(Digests { text, content })
    }

    /// Renders a record and returns the hash of its text.
    fn render(&mut self, fields: &Fields, id: u64) -> std::result::Result<Digests, Refusal> {
        self.rendered.begin(id);
        let mut hasher = Xxh3Default::new();
        let builder = self.bench.builder(self.index);
        builder.build(fields, &mut self.rendered, &mut |rendered| {
            builder.refuse(rendered)?;
            let text = rendered.origin.as_ref().unwrap_or(&rendered.text);
            hasher.update(text.as_bytes());
            hasher.update(b"\0");
            Ok(())
        })?;
        let text = hasher.digest128();
        Ok(Digests { text, content: text })
    }

    /// Compares the text of a record with those before it.
    fn compare(&mut self, Digests { text, content }: Digests, id: u64, held_out: bool) {
        let new = Text { first: id, content, ..Text::default() };
        let known = self.out.texts.entry(text).or_insert(new);
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

/// The hashes of a record's texts.
struct Digests {
    /// That of the texts as they are.
    text: u128,
    /// That of what settling compares.
    content: u128,
}

/// Returns the first text among the fields of a record.
fn first_text(fields: &Fields) -> Option<String> {
    fields.values().find_map(|value| value.as_str()).map(|text| text.chars().take(80).collect())
}
