//! Surveys a corpus before it is packed: what its files are, how records become documents, how much
//! comes of them, and every problem that the start of its files shows.
//!
//! A survey reads small sources whole, the starts of files and a few places of others, never more of a
//! corpus than seconds allow.

mod across;
mod budget;
mod estimate;
mod fields;
mod found;
mod found_fields;
mod found_records;
mod labels;
mod problem;
mod resolve;
mod sample;
mod sample_record;
mod sampled;
mod source;

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;

pub use estimate::Estimate;
pub use problem::Problem;
pub use source::SurveyedSource;

use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::monitor::Phase;
use crate::plan::{PackOptions, Plan};
use crate::tasks;
use crate::tokenize::Encoder;
use budget::Budget;
use resolve::{Bench, Resolved};
use sampled::Sampled;

/// The version of the survey's JSON: keys are added, never renamed, within a version.
const VERSION: u32 = 1;
/// The most bytes of files that are read through for the languages that a field holds.
const READ_FOR_LANGUAGES: u64 = 64 << 20;

/// A corpus before it is packed.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// The version of this object's keys.
    pub version: u32,
    /// The corpus folder, as the user named it.
    pub corpus: String,
    /// Whether the folder has a `corpus.toml`; otherwise its sources are guessed.
    pub configured: bool,
    /// What was guessed and passed over, a sentence each.
    pub understood: Vec<String>,
    /// The tokenizer; none if there is none that can be used.
    pub tokenizer: Option<TokenizerFacts>,
    /// The tokens in a row; none if the configuration cannot be right.
    pub seq_len: Option<usize>,
    /// The threads that the time is estimated for.
    pub threads: usize,
    /// Every source that can be looked at, in order.
    pub sources: Vec<SurveyedSource>,
    /// What packing would give and take, if there is a tokenizer.
    pub estimate: Option<Estimate>,
    /// Every problem, errors first.
    pub problems: Vec<Problem>,
    /// The bytes that the survey read of the inputs.
    pub read_bytes: u64,
    /// Whether packing would fail.
    pub would_fail: bool,
}

/// A tokenizer in a few words.
#[derive(Debug, Clone, Serialize)]
pub struct TokenizerFacts {
    /// Its file.
    pub file: String,
    /// Its largest id + 1.
    pub vocab_size: usize,
    /// The spelling of the token that closes every document.
    pub eos: String,
    /// The spelling of the token that opens every document, if there is one.
    pub bos: Option<String>,
    /// The encoder that works for it.
    pub engine: String,
}

/// Surveys the folder `corpus`. Problems are part of the result; only a folder that is not there,
/// and a user who stops the survey, are errors.
pub fn survey(corpus: &Path, options: &PackOptions, context: &Context<'_>) -> Result<Survey> {
    let context = &context.with_threads(options.threads);
    context.monitor.begin(Phase::Plan, 0);
    let Resolved { plan, is_configured, understood, mut problems } =
        resolve::resolve(corpus, options, context)?;
    let mut survey = Survey {
        version: VERSION,
        corpus: corpus.display().to_string(),
        configured: is_configured,
        understood,
        tokenizer: None,
        seq_len: None,
        threads: context.threads,
        sources: Vec::new(),
        estimate: None,
        problems: Vec::new(),
        read_bytes: 0,
        would_fail: false,
    };
    if let Some(plan) = plan {
        survey.seq_len = Some(plan.pack.seq_len);
        survey.look(plan, &mut problems, context)?;
    }
    survey.close(problems);
    Ok(survey)
}

impl Survey {
    /// Looks at the sources of `plan` and at its tokenizer.
    fn look(
        &mut self,
        mut plan: Plan,
        problems: &mut Vec<Problem>,
        context: &Context<'_>,
    ) -> Result<()> {
        plan = with_languages(plan, problems, context)?;
        plan.split_bytes = budget::split_bytes(&plan);
        let bench = Bench::of(plan, problems, context)?;
        let plan = bench.plan();
        self.tokenizer = bench.job().map(|job| facts(&job.encoder, plan));
        let budgets = Budget::of(&bench);
        let splits = sample::splits_by_input(plan, problems, context);
        let sampled: Vec<Sampled> = tasks::run(context.threads, plan.sources.len(), |source| {
            sample::sample(&bench, source, &splits, budgets[source], context)
        })?;
        let mut estimates: Vec<Estimate> =
            sampled.iter().map(|sampled| estimate::of_source(&bench, sampled)).collect();
        for (index, sampled) in sampled.iter().enumerate() {
            found::of_source(&bench, index, sampled, problems, context);
            labels::of_source(&bench, index, problems, context);
        }
        across::across(plan, &sampled, &mut estimates, problems);
        across::leftovers(plan, problems, context);
        self.read_bytes = sampled.iter().map(|sampled| sampled.read_bytes).sum();
        if let Some(job) = bench.job() {
            self.estimate = Some(estimate::of_corpus(job, &estimates, context.threads));
            across::untrained(plan, &sampled, estimate::trained(&estimates), problems);
            across::validation(plan, &sampled, &estimates, problems);
        }
        let has_job = bench.job().is_some();
        self.sources = (sampled.into_iter().zip(estimates).enumerate())
            .map(|(index, (sampled, estimate))| {
                source::surveyed(plan, index, sampled, has_job.then_some(estimate), context)
            })
            .collect();
        Ok(())
    }

    /// Takes the problems, errors first, each once.
    fn close(&mut self, problems: Vec<Problem>) {
        let mut known = HashSet::new();
        self.problems = problems;
        self.problems.retain(|problem| known.insert(problem.clone()));
        self.problems.sort_by_key(|problem| problem.severity);
        self.would_fail = self.problems.iter().any(Problem::is_error);
    }
}

/// Returns the plan with a source for each language that a field holds, as packing makes them, where
/// the files are small enough to be read for it.
fn with_languages(plan: Plan, problems: &mut Vec<Problem>, context: &Context<'_>) -> Result<Plan> {
    let by_field = plan.sources.iter().filter(|source| source.lang_field.is_some());
    let inputs = by_field.flat_map(|source| &source.inputs);
    let bytes: u64 = inputs.map(|&input| plan.inputs[input].size).sum();
    if bytes == 0 || bytes > READ_FOR_LANGUAGES {
        return Ok(plan);
    }
    match plan.clone().with_languages(context) {
        Ok(plan) => Ok(plan),
        Err(error) if error.kind == ErrorKind::Interrupted => Err(error),
        Err(error) => {
            problems.push(Problem::of_error("language", error));
            Ok(plan)
        }
    }
}

/// Returns a tokenizer in a few words.
fn facts(encoder: &Encoder, plan: &Plan) -> TokenizerFacts {
    let controls = encoder.controls();
    let file = plan.tokenizer.file.as_ref();
    TokenizerFacts {
        file: file.map(|file| file.display().to_string()).unwrap_or_default(),
        vocab_size: encoder.vocab_size(),
        eos: encoder.spelling(controls.eos),
        bos: controls.bos.map(|bos| encoder.spelling(bos)),
        engine: encoder.engine().0,
    }
}
