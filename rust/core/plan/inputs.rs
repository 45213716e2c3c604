//! Cuts the inputs of a plan into splits, and opens their records.

use std::sync::Arc;

use super::{Plan, Source};
use crate::context::Context;
use crate::error::{Place, Result};
use crate::read::{self, FieldTree, Found, InputSplit, Part, Records, Request, SideFile};
use crate::schema::RecordId;
use crate::storage::Storage;

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
            splits.extend(parts.into_iter().map(|Part { range, bytes }| InputSplit {
                source,
                nth_input,
                input,
                range,
                bytes,
            }));
        }
        Ok(splits)
    }

    /// Opens the records of `split`, to be read by way of all their fields. Reading ends with an
    /// error once the run is stopped.
    pub(crate) fn open(&self, split: &InputSplit, context: &Context<'_>) -> Result<Records> {
        self.open_for(split, None, context)
    }

    /// Opens the records of `split`, to be read by way of the `wanted` fields where possible.
    pub(crate) fn open_for(
        &self,
        split: &InputSplit,
        wanted: Option<&Arc<FieldTree>>,
        context: &Context<'_>,
    ) -> Result<Records> {
        let (source, input) = (&self.sources[split.source], &self.inputs[split.input]);
        let (range, options) = (split.range.clone(), &source.options);
        let sides = self.side_files(split);
        let request = Request { path: &input.path, range, options, wanted, sides: &sides, context };
        Records::open(source.format, &request, split.nth_input)
            .map_err(|error| error.file(input.name.clone()).source(source.name.clone()))
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
        let (path, options, range) = (&input.path, &source.options, 0..u64::MAX);
        let request = Request { path, range, options, wanted: None, sides: &[], context };
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
        let options = &source.options;
        let range = 0..u64::MAX;
        let request = Request { path, range, options, wanted: None, sides: &[], context };
        source.format.get().locate(&request, offset)
    }
}
