//! `InputSplit`: the part of an input that one map task reads.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::files::is_gzip;
use crate::plan::Plan;

/// A byte range of one input of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSplit {
    /// The source's index.
    pub source: usize,
    /// The input's index within its source: the upper bits of its record ids.
    pub nth_input: usize,
    /// The input's index in [`Plan::inputs`].
    pub input: usize,
    /// The bytes in which its records start; everything for a compressed input.
    pub range: Range<u64>,
}

/// Every split of the plan, by source, input and offset.
#[must_use]
pub fn splits(plan: &Plan) -> Vec<InputSplit> {
    let mut splits = Vec::new();
    for (source, spec) in plan.sources.iter().enumerate() {
        for (nth_input, &input) in spec.inputs.iter().enumerate() {
            let file = &plan.inputs[input];
            if is_gzip(&file.path) {
                splits.push(InputSplit { source, nth_input, input, range: 0..u64::MAX });
                continue;
            }
            let mut start = 0;
            while start < file.size {
                let end = (start + plan.split_bytes).min(file.size);
                splits.push(InputSplit { source, nth_input, input, range: start..end });
                start = end;
            }
        }
    }
    splits
}
