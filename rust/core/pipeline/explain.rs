//! Explaining: one record at every stage, as `pack` would treat it.

use super::Job;
use super::fit::fit;
use super::map::{Scratch, cut_runs};
use crate::error::{Error, Result};
use crate::mask::push_document_mask;
use crate::plan::{Plan, nearest};
use crate::read;
use crate::schema::{Refusal, Role};

/// A record at every stage.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The source's name.
    pub source: String,
    /// The rendered text, span by span: its role, whether the template spelled it, and the text.
    pub spans: Vec<(Role, bool, String)>,
    /// The texts that are encoded each by itself.
    pub runs: Vec<String>,
    /// The tokens, window after window.
    pub tokens: Vec<ShownToken>,
    /// Whether data was shortened to fit a row.
    pub truncated: bool,
    /// Why there is no document, if there is none.
    pub dropped: Option<Refusal>,
}

/// A token of an explained record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownToken {
    /// Its id.
    pub id: u32,
    /// The text it adds.
    pub piece: String,
    /// Its role.
    pub role: Role,
    /// Whether it is trained.
    pub trained: bool,
    /// The window it is in.
    pub window: u32,
}

/// Explains the line `record` of the source named `source`.
pub fn explain(plan: &Plan, source: &str, record: &[u8]) -> Result<Explanation> {
    let Some(index) = plan.sources.iter().position(|known| known.name == source) else {
        let names = plan.sources.iter().map(|known| known.name.as_str());
        let hint = nearest(source, names.clone())
            .map(|near| format!("did you mean '{near}'? "))
            .unwrap_or_default();
        let names: Vec<&str> = names.collect();
        return Err(Error::config(format!("no source is named '{source}'"))
            .file(plan.config_file.clone())
            .remedy(format!("{hint}sources: {}", names.join(", "))));
    };
    let job = Job::prepare(plan, 1)?;
    let mut out = Explanation {
        source: source.to_owned(),
        spans: vec![],
        runs: vec![],
        tokens: vec![],
        truncated: false,
        dropped: None,
    };
    let mut scratch = Scratch::new(&job);
    let fitted = read::parse_json(record).and_then(|fields| fit(&job, index, fields, &mut scratch));
    let mut start = 0;
    for span in &scratch.rendered.spans {
        out.spans.push((
            span.role,
            span.literal,
            scratch.rendered.text[start..span.end].to_owned(),
        ));
        start = span.end;
    }
    out.runs = scratch.rendered.runs().iter().map(|run| run.text.to_owned()).collect();
    let fitted = match fitted {
        Ok(fitted) => fitted,
        Err(refusal) => {
            out.dropped = Some(refusal);
            return Ok(out);
        }
    };
    out.truncated = fitted.truncated;
    for (window, range) in fitted.windows.iter().enumerate() {
        let ids = &fitted.document.ids[range.clone()];
        let runs = cut_runs(&fitted.document.runs, range.start, range.end);
        let mut mask = Vec::new();
        push_document_mask(&runs, plan.sources[index].loss, &mut mask);
        let roles = runs.iter().flat_map(|run| std::iter::repeat_n(run.role, run.len as usize));
        let pieces = job.encoder.pieces(ids)?;
        for (((&id, piece), role), trained) in ids.iter().zip(pieces).zip(roles).zip(mask) {
            out.tokens.push(ShownToken { id, piece, role, trained, window: window as u32 });
        }
    }
    Ok(out)
}
