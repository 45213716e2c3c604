//! Leaves units out of long documents whose fields cannot be shortened: exchanges of a conversation,
//! words of a prompt in which tags stand, the end of a text of which a task is made.

use super::document::{Scratch, prepare_if};
use super::fit::too_long;
use crate::job::Job;
use crate::plan::Source;
use crate::schema::Refusal;
use crate::segment::Fields;

/// The bounds of a search for the fewest units that a document must lose.
#[derive(Clone, Copy)]
struct Cut {
    /// A number with which it is too long.
    over: usize,
    /// A number with which it fits.
    fits: usize,
}

impl Cut {
    /// Returns whether numbers between the bounds are untried.
    fn is_open(self) -> bool {
        self.fits > self.over + 1
    }

    /// Returns the number to try next.
    fn middle(self) -> usize {
        if self.is_open() { self.over + (self.fits - self.over) / 2 } else { self.fits }
    }
}

/// A record that is shortened, with the documents made last.
struct Shortening<'a> {
    job: &'a Job,
    source: usize,
    fields: &'a Fields,
    scratch: &'a mut Scratch,
}

impl Shortening<'_> {
    /// Makes the documents without so many units of each element. Returns for each element whether
    /// its document is made and fits.
    fn attempt(&mut self, counts: &[usize]) -> Vec<bool> {
        let (job, source) = (self.job, self.source);
        let shortened = job.builders[source].without_units(self.fields, counts);
        // No filter judges a shortened text.
        let is_made = shortened
            .is_some_and(|fields| prepare_if(job, source, &fields, self.scratch, |_| true).is_ok());
        let fits = |element| is_made && self.len_of(element).is_some_and(|len| !self.is_over(len));
        (0..counts.len()).map(fits).collect()
    }

    /// Returns the tokens of the document of an element, if it makes one.
    fn len_of(&self, element: usize) -> Option<usize> {
        self.scratch.len_of(element)
    }

    /// Returns whether a row does not hold so many tokens.
    fn is_over(&self, len: usize) -> bool {
        len > self.job.plan.pack.seq_len
    }
}

/// Leaves units out of the record at hand: of each document that is too long, as few as let it fit,
/// and at most as many as `most` says of its element. The longest whole document has `whole_len`
/// tokens; `scratch` holds the shortened documents afterwards.
pub(super) fn drop_units(
    job: &Job,
    source: usize,
    fields: &Fields,
    (whole_len, most): (usize, &[usize]),
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let mut record = Shortening { job, source, fields, scratch };
    let bounds = |(element, &most): (usize, &usize)| {
        let is_long = record.len_of(element).is_some_and(|len| record.is_over(len));
        Cut { over: 0, fits: if is_long { most } else { 0 } }
    };
    let mut cuts: Vec<Cut> = most.iter().enumerate().map(bounds).collect();
    let fitting = |cuts: &[Cut]| cuts.iter().map(|cut| cut.fits).collect::<Vec<_>>();
    record.attempt(&fitting(&cuts));
    if record.scratch.longest() > job.plan.pack.seq_len || !record.scratch.is_complete() {
        let least = least_of(&job.plan.sources[source]);
        let why = format!(" and its {least} leaves no room");
        return Err(too_long(whole_len, job.plan.pack.seq_len, &why));
    }
    // All documents at once: a list may have many that are too long.
    while cuts.iter().any(|cut| cut.is_open()) {
        let counts: Vec<usize> = cuts.iter().map(|cut| cut.middle()).collect();
        let fits = record.attempt(&counts);
        for (cut, fits) in cuts.iter_mut().zip(fits).filter(|(cut, _)| cut.is_open()) {
            let middle = cut.middle();
            *if fits { &mut cut.fits } else { &mut cut.over } = middle;
        }
    }
    // The last attempt may not have been the best: `scratch` must hold the best.
    record.attempt(&fitting(&cuts));
    Ok(())
}

/// Returns the least that shortening leaves of a document of a source, in words.
fn least_of(source: &Source) -> &'static str {
    match source {
        Source { chat: Some(_), .. } => "last exchange",
        Source { tagged: Some(_), .. } => "target",
        _ => "shortest text",
    }
}
