//! The beginning of a run: the plan that it follows, and plans that are refused.

use std::path::Path;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::{PackOptions, Plan};
use crate::storage::is_listed;
use crate::write::{Stage, State};

/// Loads the plan of a run.
///
/// With a reused dataset, corpus and tokenizer default to the paths that it was packed from. The
/// size of its input splits is taken, since its spools serve no other splits.
pub(super) fn load_plan(
    corpus: Option<&Path>,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<Plan> {
    let Some(reused) = &options.reuse else {
        let corpus = corpus.ok_or_else(|| {
            Error::config("no corpus is named").remedy("name the folder with corpus.toml")
        })?;
        return Plan::load(corpus, options, context.storage)?.with_languages(context);
    };
    if !context.storage.is_folder(reused) {
        return Err(Error::dataset("no such folder")
            .file(reused.display().to_string())
            .remedy("name a dataset that was packed with --keep-spool")
            .io_kind(std::io::ErrorKind::NotFound));
    }
    let kept = State::of(context.storage, reused)?.filter(|state| state.stage == Stage::Kept);
    let kept = kept.ok_or_else(|| {
        Error::dataset("keeps no spool to mix again")
            .file(reused.display().to_string())
            .remedy("pack it with --keep-spool")
    })?;
    let options = PackOptions { split_bytes: Some(kept.split_bytes), ..options.clone() };
    let mut plan = Plan::load(corpus.unwrap_or(&kept.corpus), &options, context.storage)?;
    plan.tokenizer.file = plan.tokenizer.file.or(kept.tokenizer);
    plan.with_languages(context)
}

/// The most input splits of a run: each is a spool, whose entry is held in memory.
const MAX_SPLITS: u64 = 1 << 22;

/// Refuses input splits so small that their number would pass [`MAX_SPLITS`].
pub(super) fn refuse_many_splits(plan: &Plan) -> Result<()> {
    let inputs = plan.sources.iter().flat_map(|source| &source.inputs);
    let splits: u64 = inputs.map(|&input| plan.inputs[input].size.div_ceil(plan.split_bytes)).sum();
    if splits <= MAX_SPLITS {
        return Ok(());
    }
    let split_bytes = plan.split_bytes;
    Err(Error::config(format!(
        "split_bytes = {split_bytes} makes {splits} splits, at most {MAX_SPLITS} can be"
    ))
    .file(plan.config_file.clone())
    .remedy("leave --split-bytes out, or raise it; --overwrite starts an unfinished run again"))
}

/// Refuses a dataset folder that holds the corpus, or a file of the corpus: packing would change
/// its own input.
pub(super) fn refuse_nesting(plan: &Plan, out: &Path, context: &Context<'_>) -> Result<()> {
    let storage = context.storage;
    if !is_listed(out) {
        // No run writes there, as is told when it would begin.
        return Ok(());
    }
    let Ok(real_out) = storage.canonicalize(out) else { return Ok(()) };
    if !storage.is_folder(&real_out) {
        return Ok(());
    }
    let is_below =
        |path: &Path| storage.canonicalize(path).is_ok_and(|path| path.starts_with(&real_out));
    let refuse = |what: String, remedy: &str| {
        Err(Error::output(what).file(out.display().to_string()).remedy(remedy))
    };
    if is_below(&plan.root) {
        return refuse(
            "is, or holds, the corpus itself".to_owned(),
            "name a folder outside the corpus",
        );
    }
    match plan.inputs.iter().find(|input| is_below(&input.path)) {
        None => Ok(()),
        Some(input) => refuse(
            format!("holds {}, which a source reads", input.name),
            "name a folder outside the corpus, or patterns that do not take it in",
        ),
    }
}
