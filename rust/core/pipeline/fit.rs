//! Fitting: a document no longer than a row, by its source's `overflow`.

use std::ops::Range;

use super::Job;
use super::map::{Scratch, prepare};
use crate::plan::PackPlan;
use crate::schema::{DropReason, MAX_WINDOWS, Overflow, Packing, Refusal, window_count};
use crate::segment::{Fields, Step, value_at_mut};
use crate::tokenize::Document;

/// A document with the windows of it that fit a row.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The whole document.
    pub document: Document,
    /// Its windows; one that covers it all unless it was split.
    pub windows: Vec<Range<usize>>,
    /// Whether data was shortened.
    pub truncated: bool,
}

/// The document of a record as the rows have it, or why there is none. `scratch` then holds the
/// text of what was kept.
pub fn fit(
    job: &Job<'_>,
    source: usize,
    fields: Fields,
    scratch: &mut Scratch,
) -> Result<Fitted, Refusal> {
    let seq_len = job.plan.pack.seq_len;
    let document = prepare(job, source, &fields, scratch)?;
    let len = document.ids.len();
    let whole = |document: Document, truncated| Fitted {
        windows: vec![0..document.ids.len()],
        document,
        truncated,
    };
    if len <= seq_len {
        return Ok(whole(document, false));
    }
    match job.plan.sources[source].overflow {
        Overflow::Split if job.plan.pack.most_windows(len) > MAX_WINDOWS as usize => {
            Err(too_long(len, seq_len, ", more windows than a record may have"))
        }
        Overflow::Split => {
            Ok(Fitted { windows: windows_of(&job.plan.pack, len), document, truncated: false })
        }
        Overflow::Truncate => Ok(whole(truncate(job, source, fields, scratch, len)?, true)),
        Overflow::Drop | Overflow::Error => Err(too_long(len, seq_len, "")),
    }
}

fn too_long(len: usize, seq_len: usize, why: &str) -> Refusal {
    Refusal::new(DropReason::TooLong, format!("{len} tokens, a row holds {seq_len}{why}"))
}

/// The windows that a document is split into before it is packed: all of it, where it is cut by
/// packing only.
#[must_use]
pub fn windows_of(pack: &PackPlan, len: usize) -> Vec<Range<usize>> {
    if pack.pack == Packing::Concat {
        std::iter::once(0..len).collect()
    } else {
        windows(len, pack.seq_len)
    }
}

/// The windows of a document of `len` tokens; one where it fits a row of `seq_len`.
///
/// Window k starts with the last token of window k−1, so each brings at most `seq_len` − 1 new
/// ones; all are full but the last two, which share what is left as evenly as can be.
#[must_use]
pub fn windows(len: usize, seq_len: usize) -> Vec<Range<usize>> {
    let fresh = seq_len - 1;
    let count = window_count(len, seq_len);
    if count == 1 {
        return vec![0..len];
    }
    let mut ends: Vec<usize> = (1..count.saturating_sub(1)).map(|nth| 1 + nth * fresh).collect();
    let left = len - ends.last().copied().unwrap_or(1);
    ends.extend([len - left / 2, len]);
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end - 1));
    starts.zip(&ends).map(|(start, &end)| start..end).collect()
}

/// Shortens the longest data field, from its end, at a word boundary, until the document fits; then
/// the next longest. At least a word of each stays, and targets stay as they are (plain text, which
/// is all target, is itself shortened).
pub fn truncate(
    job: &Job<'_>,
    source: usize,
    mut fields: Fields,
    scratch: &mut Scratch,
    len: usize,
) -> Result<Document, Refusal> {
    let seq_len = job.plan.pack.seq_len;
    let segmenter = &job.segmenters[source];
    let keeps_targets = !job.plan.sources[source].is_plain();
    let targets: Vec<String> = scratch.rendered.targets().into_iter().map(str::to_owned).collect();
    let mut candidates: Vec<(Vec<Step>, String)> = Vec::new();
    for path in segmenter.shortenable_fields(&fields) {
        if let Some(text) = value_at_mut(&mut fields, &path).and_then(|value| value.as_str()) {
            candidates.push((path.clone(), text.to_owned()));
        }
    }
    candidates.sort_by_key(|(_, text)| std::cmp::Reverse(text.chars().count()));
    let mut now = len;
    for (path, text) in candidates {
        let cuts = word_ends(&text);
        let attempt = |cut: &str, scratch: &mut Scratch| -> Result<Option<Document>, Refusal> {
            let mut shortened = fields.clone();
            *value_at_mut(&mut shortened, &path).expect("the path was found before") = cut.into();
            segmenter.render(&shortened, &mut scratch.rendered)?;
            if keeps_targets && scratch.rendered.targets() != targets {
                return Ok(None);
            }
            job.encoder.encode(&scratch.rendered, &mut scratch.session).map(Some)
        };
        let Some(&first) = cuts.first().filter(|&&first| first < text.len()) else { continue };
        // A field that also shapes a target is left alone.
        let Ok(Some(least)) = attempt(&text[..first], scratch) else { continue };
        if least.ids.len() > seq_len {
            now = least.ids.len();
            *value_at_mut(&mut fields, &path).expect("the path was found before") =
                text[..first].into();
            continue;
        }
        // Between a cut that fits and one that does not: guess by proportion, and halve where that
        // does not help. The whole text does not; it is a cut of its own where white space follows
        // the last word.
        let whole = cuts.len() - usize::from(cuts.last() == Some(&text.len()));
        let (mut fits, mut over) = ((0, least.ids.len()), (whole, now));
        let mut best = (first, least);
        let mut halve = false;
        while over.0 - fits.0 > 1 {
            let span = over.0 - fits.0;
            let share = (seq_len - fits.1) * span / (over.1 - fits.1).max(1);
            let step = if halve { span / 2 } else { share.clamp(1, span - 1) };
            halve = !halve;
            let at = fits.0 + step;
            let Ok(Some(document)) = attempt(&text[..cuts[at]], scratch) else { break };
            let tokens = document.ids.len();
            if tokens <= seq_len {
                (fits, best) = ((at, tokens), (cuts[at], document));
            } else {
                over = (at, tokens);
            }
        }
        // The last attempt may not have been the best.
        attempt(&text[..best.0], scratch)?;
        return Ok(best.1);
    }
    Err(too_long(len, seq_len, " and its target leaves no room for its data"))
}

/// The ends of the words of `text`.
fn word_ends(text: &str) -> Vec<usize> {
    text.split_whitespace()
        .map(|word| word.as_ptr() as usize - text.as_ptr() as usize + word.len())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_end_where_white_space_begins() {
        assert_eq!(word_ends(" a bẹ\u{301}\u{a0}c "), [2, 9, 12]);
    }

    proptest! {
        #[test]
        fn every_token_is_new_in_one_window_and_the_last_two_are_balanced(len in 2usize..3000, seq_len in 2usize..70) {
            prop_assume!(len > seq_len);
            let windows = windows(len, seq_len);
            prop_assert_eq!((windows[0].start, windows.last().unwrap().end), (0, len));
            for pair in windows.windows(2) {
                prop_assert_eq!(pair[1].start, pair[0].end - 1);
            }
            prop_assert!(windows.iter().all(|window| (2..=seq_len).contains(&window.len())));
            prop_assert_eq!(windows.len(), (len - 1).div_ceil(seq_len - 1));
            let (last_two, full) = (&windows[windows.len() - 2..], &windows[..windows.len() - 2]);
            prop_assert!(full.iter().all(|window| window.len() == seq_len));
            let (a, b) = (last_two[0].len(), last_two[1].len());
            prop_assert!(a == b || a == b + 1, "{a} {b}");
        }
    }
}
