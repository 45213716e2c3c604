//! Cuts the inputs of a plan into splits, and opens their records.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{PackPlan, Plan, Source};
use crate::choice::{Purpose, Subject, choice, within};
use crate::context::Context;
use crate::error::{Place, Result};
use crate::read::{self, FieldTree, Found, InputSplit, Needed, Part, Records, Request, SideFile};
use crate::schema::RecordId;
use crate::storage::Storage;

/// The files of a source, and the records of each, that are looked at for the fields that its
/// options name.
const FIRST_FILES: usize = 32;
const FIRST_RECORDS: usize = 1000;

impl Plan {
    /// Returns every input split, by source, input and offset.
    pub fn splits(&self, storage: &dyn Storage) -> Result<Vec<InputSplit>> {
        let splits = (0..self.sources.len()).map(|source| self.splits_of(source, storage));
        Ok(splits.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Returns the input splits of the source at index `source`, by input and offset.
    pub(crate) fn splits_of(
        &self,
        source: usize,
        storage: &dyn Storage,
    ) -> Result<Vec<InputSplit>> {
        let (mut splits, spec) = (Vec::new(), &self.sources[source]);
        for (nth_input, &input) in spec.inputs.iter().enumerate() {
            let file = &self.inputs[input];
            let format = (spec.format, &spec.options);
            let parts = read::parts(format, &file.path, file.size, self.split_bytes, storage);
            let parts =
                parts.map_err(|error| error.file(file.name.clone()).source(spec.name.clone()))?;
            // Files that are read beside each other are one split, of all their bytes.
            let beside: u64 = spec.files_of(nth_input).skip(1).map(|i| self.inputs[i].size).sum();
            splits.extend(parts.into_iter().map(|Part { range, bytes }| InputSplit {
                source,
                nth_input,
                input,
                range,
                bytes: bytes + beside,
            }));
        }
        Ok(splits)
    }

    /// Opens the records of `split`, to be read by way of the `wanted` fields where possible, else by
    /// way of all fields, of which the `needed` ones are whole. Reading ends with an error once the
    /// run is stopped.
    pub(crate) fn open_for(
        &self,
        split: &InputSplit,
        wanted: Option<&Arc<FieldTree>>,
        needed: &Needed,
        context: &Context<'_>,
    ) -> Result<Records> {
        let (source, input) = (&self.sources[split.source], &self.inputs[split.input]);
        let (range, sides) = (split.range.clone(), &self.side_files(split)[..]);
        let all = Request::all(&input.path, &source.options, context);
        let request = Request { range, wanted, needed, sides, ..all };
        Records::open(source.format, &request, split.nth_input)
            .map_err(|error| error.file(input.name.clone()).source(source.name.clone()))
    }

    /// Returns whether a record of an input that is trained on is held out all the same, by a seeded
    /// choice.
    pub(crate) fn draws(&self, input: usize, record_id: u64) -> bool {
        let PackPlan { seed, validation, .. } = self.pack;
        if validation == 0.0 {
            return false;
        }
        // By the input's name, not the source's: every task made from a record of a file falls
        // into the same split.
        let name = &self.inputs[input].name;
        let subject = Subject { name, record: RecordId::unpack(record_id).offset, copy: 0 };
        within(choice(seed, Purpose::Validation, subject), validation)
    }

    /// Removes the fields that some of the first records of a source have from those that its options
    /// name.
    pub(crate) fn meet_first(
        &self,
        source: usize,
        named: &mut BTreeSet<(&'static str, String)>,
        context: &Context<'_>,
    ) -> Result<()> {
        let needed = Needed::of(named.iter().map(|(_, name)| name.clone()));
        for (nth_input, &input) in self.sources[source].inputs.iter().take(FIRST_FILES).enumerate()
        {
            let bytes = self.inputs[input].size;
            let split = InputSplit { source, nth_input, input, range: 0..u64::MAX, bytes };
            let mut records = self.open_for(&split, None, &needed, context)?;
            for _ in 0..FIRST_RECORDS {
                let Some(record) = records.advance()? else { break };
                record.meet(named);
                if named.is_empty() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns the files beside each other from which a split of parallel text is read.
    pub(super) fn side_files(&self, split: &InputSplit) -> Vec<SideFile<'_>> {
        let sides = self.sources[split.source].sides.iter();
        sides
            .map(|side| {
                let input = &self.inputs[side.inputs[split.nth_input]];
                SideFile { field: &side.field, path: &input.path, name: &input.name }
            })
            .collect()
    }

    /// Returns the places of records of `source` that are in one input, in one pass over it. Their
    /// ids ascend.
    pub(crate) fn places_of(
        &self,
        source: &Source,
        record_ids: &[u64],
        context: &Context<'_>,
    ) -> Result<Vec<Found>> {
        let Some(&first) = record_ids.first() else { return Ok(Vec::new()) };
        let input = &self.inputs[source.inputs[RecordId::unpack(first).nth_input]];
        let offset = |&id: &u64| RecordId::unpack(id).offset;
        let offsets: Vec<u64> = record_ids.iter().map(offset).collect();
        let request = Request::all(&input.path, &source.options, context);
        let places = source.format.get().places(&request, &offsets);
        places.map_err(|error| error.file(input.name.clone()).source(source.name.clone()))
    }

    /// Returns the line of its file on which a record of `source` begins, or its row.
    pub(crate) fn place_of(
        &self,
        source: &Source,
        record_id: u64,
        context: &Context<'_>,
    ) -> Result<Place> {
        let RecordId { nth_input, offset } = RecordId::unpack(record_id);
        let path = &self.inputs[source.inputs[nth_input]].path;
        let request = Request::all(path, &source.options, context);
        source.format.get().locate(&request, offset)
    }
}
