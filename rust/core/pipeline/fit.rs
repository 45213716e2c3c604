//! Fitting: makes documents no longer than a row, by the `overflow` of their source.

use super::document::{Scratch, prepare, prepare_if};
use super::units::drop_units;
use crate::job::Job;
use crate::schema::{DropReason, MAX_WINDOWS, Overflow, Refusal};
use crate::segment::{Fields, Step, value_at_mut};

/// Makes the documents of the record `record_id` in `scratch`, ready for rows. Returns whether data
/// was shortened; refuses a record that has no documents.
pub(crate) fn fit(
    job: &Job,
    source: usize,
    record_id: u64,
    fields: Fields,
    scratch: &mut Scratch,
) -> Result<bool, Refusal> {
    let pack = &job.plan.pack;
    scratch.rendered.record_id = record_id;
    prepare(job, source, &fields, scratch)?;
    let len = scratch.longest();
    if len <= pack.seq_len {
        return Ok(false);
    }
    match job.plan.sources[source].overflow {
        Overflow::Split if pack.most_windows(len) > MAX_WINDOWS as usize => {
            Err(too_long(len, pack.seq_len, ", more windows than a record may have"))
        }
        Overflow::Split => Ok(false),
        Overflow::Truncate => {
            let touched = std::mem::take(&mut scratch.rendered.touched);
            let left_out = std::mem::take(&mut scratch.rendered.left_out);
            let origin = scratch.rendered.origin.take();
            let made = truncate(job, source, fields, len, scratch).map(|()| true);
            // Of the whole record, not of the shortened one.
            (scratch.rendered.touched, scratch.rendered.origin) = (touched, origin);
            scratch.rendered.left_out = left_out;
            made
        }
        Overflow::Drop | Overflow::Error => Err(too_long(len, pack.seq_len, "")),
    }
}

/// Returns the refusal of a record with a document of `len` tokens.
pub(super) fn too_long(len: usize, seq_len: usize, why: &str) -> Refusal {
    Refusal::new(DropReason::TooLong, format!("{len} tokens, a row holds {seq_len}{why}"))
}

/// Shortens the longest data field, from its end, at a word boundary, until every document of the
/// record at hand fits; then the next longest.
///
/// At least a word of each field stays. Targets are not shortened, but for plain text, which is
/// all target. The longest whole document has `whole_len` tokens; `scratch` holds the shortened
/// documents afterwards.
pub(crate) fn truncate(
    job: &Job,
    source: usize,
    mut fields: Fields,
    whole_len: usize,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let seq_len = job.plan.pack.seq_len;
    if let Some(most) = job.builders[source].units(&fields) {
        return drop_units(job, source, &fields, (whole_len, &most), scratch);
    }
    let targets = targets_of(job, source, &fields, scratch)?;
    let mut longest = whole_len;
    for (path, text) in candidates(job, source, &mut fields) {
        let attempt = |cut: &str, scratch: &mut Scratch| -> Option<usize> {
            let mut shortened = fields.clone();
            *value_at_mut(&mut shortened, &path).expect("the path was found before") = cut.into();
            attempt_of(job, source, &shortened, targets.as_deref(), scratch)
        };
        // A field of one word cannot be shortened.
        let cuts = word_ends(&text);
        let Some(&first) = cuts.first().filter(|&&first| first < text.len()) else { continue };
        // A field that also shapes a target is left alone.
        let Some(least) = attempt(&text[..first], scratch) else { continue };
        // Even one word is too much: it stays at that, and the next field is shortened too.
        if least > seq_len {
            longest = least;
            *value_at_mut(&mut fields, &path).expect("the path was found before") =
                text[..first].into();
            continue;
        }
        let best =
            longest_cut((&text, &cuts), (least, longest), seq_len, |cut| attempt(cut, scratch));
        // The last attempt may not have been the best: `scratch` must hold the best.
        attempt(&text[..best], scratch);
        return Ok(());
    }
    Err(too_long(whole_len, seq_len, " and its target leaves no room for its data"))
}

/// Returns the targets of a record, which shortening must not change; `None` for plain text.
fn targets_of(
    job: &Job,
    source: usize,
    fields: &Fields,
    scratch: &mut Scratch,
) -> Result<Option<Vec<String>>, Refusal> {
    if job.plan.sources[source].is_plain() {
        return Ok(None);
    }
    let mut targets = Vec::new();
    scratch.rendered.begin_again();
    job.builders[source].build(fields, &mut scratch.rendered, &mut |rendered| {
        targets.extend(rendered.targets().into_iter().map(str::to_owned));
        Ok(())
    })?;
    Ok(Some(targets))
}

/// Returns the fields that may be shortened with their texts, the longest text first.
fn candidates(job: &Job, source: usize, fields: &mut Fields) -> Vec<(Vec<Step>, String)> {
    let mut candidates: Vec<(Vec<Step>, String)> = Vec::new();
    for path in job.builders[source].shortenable_fields(fields) {
        if let Some(text) = value_at_mut(fields, &path).and_then(|value| value.as_str()) {
            candidates.push((path.clone(), text.to_owned()));
        }
    }
    candidates.sort_by_key(|(_, text)| std::cmp::Reverse(text.chars().count()));
    candidates
}

/// Makes the documents of shortened fields. Returns the tokens of the longest; `None` if they
/// cannot be made or a target changed.
fn attempt_of(
    job: &Job,
    source: usize,
    fields: &Fields,
    targets: Option<&[String]>,
    scratch: &mut Scratch,
) -> Option<usize> {
    // The targets of the documents to come, in order.
    let mut rest = targets.unwrap_or_default();
    let keeps_targets = targets.is_some();
    let is_wanted = |rendered: &crate::segment::Rendered| {
        if !keeps_targets {
            return true;
        }
        let now = rendered.targets();
        let Some((same, more)) = rest.split_at_checked(now.len()) else { return false };
        rest = more;
        same == now
    };
    let is_made = prepare_if(job, source, fields, scratch, is_wanted).ok()?;
    (is_made && rest.is_empty()).then(|| scratch.longest())
}

/// Returns the end of the longest cut of a text that fits, among the ends of its words.
///
/// The first cut gives `least` tokens, which fit; the whole text gives `most`, which do not.
fn longest_cut(
    (text, cuts): (&str, &[usize]),
    (least, most): (usize, usize),
    seq_len: usize,
    mut attempt: impl FnMut(&str) -> Option<usize>,
) -> usize {
    // Where white space follows the last word, the whole text is a cut of its own.
    let whole = cuts.len() - usize::from(cuts.last() == Some(&text.len()));
    let (mut fits, mut over) = ((0, least), (whole, most));
    let mut halve = false;
    // Between a cut that fits and one that does not: guess by proportion, and halve every other
    // time, since a text may have its tokens at one end.
    while over.0 - fits.0 > 1 {
        let span = over.0 - fits.0;
        let share = (seq_len - fits.1) * span / (over.1 - fits.1).max(1);
        let step = if halve { span / 2 } else { share.clamp(1, span - 1) };
        halve = !halve;
        let index = fits.0 + step;
        let Some(tokens) = attempt(&text[..cuts[index]]) else { break };
        if tokens <= seq_len {
            fits = (index, tokens);
        } else {
            over = (index, tokens);
        }
    }
    cuts[fits.0]
}

/// Returns the ends of the words of `text`.
fn word_ends(text: &str) -> Vec<usize> {
    text.split_whitespace()
        .map(|word| word.as_ptr() as usize - text.as_ptr() as usize + word.len())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_white_space_begins() {
        assert_eq!(word_ends(" a bẹ\u{301}\u{a0}c "), [2, 9, 12]);
    }
}
