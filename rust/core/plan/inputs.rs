//! Cuts the inputs of a plan into splits, and opens their records.

use std::sync::Arc;

use super::{Plan, Source};
use crate::context::Context;
use crate::error::Result;
use crate::read::{self, FieldTree, InputSplit, Records, Request};
use crate::schema::RecordId;

impl Plan {
    /// Returns every input split, by source, input and offset.
    #[must_use]
    pub fn splits(&self) -> Vec<InputSplit> {
        let mut splits = Vec::new();
        for (source, spec) in self.sources.iter().enumerate() {
            for (nth_input, &input) in spec.inputs.iter().enumerate() {
                let file = &self.inputs[input];
                let ranges = read::ranges(spec.format, &file.path, file.size, self.split_bytes);
                splits.extend(ranges.into_iter().map(|range| InputSplit {
                    source,
                    nth_input,
                    input,
                    range,
                }));
            }
        }
        splits
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
        let request = Request { path: &input.path, range, options, wanted, context };
        Records::open(source.format, &request, split.nth_input)
            .map_err(|error| error.file(input.name.clone()).source(source.name.clone()))
    }

    /// Returns the line of its file on which a record of `source` begins, from 1.
    pub(crate) fn line_of(
        &self,
        source: &Source,
        record_id: u64,
        context: &Context<'_>,
    ) -> Result<u64> {
        let RecordId { nth_input, offset } = RecordId::unpack(record_id);
        let input = &self.inputs[source.inputs[nth_input]];
        source.format.get().locate(&input.path, offset, context)
    }
}
