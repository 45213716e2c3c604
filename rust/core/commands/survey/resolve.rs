//! Resolves as much of a corpus as can be: every error of its configuration is a problem, and the
//! sources without one are looked at all the same.

use std::path::Path;

use super::problem::Problem;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::plan::{Guess, PackOptions, PackSpec, Plan, PlanSpec, is_configured};
use crate::segment::{Controls, SegmentBuilder, Segmenter, TokenNames, builder_of, find_named};
use crate::storage::Storage;
use crate::tokenize::Encoder;

/// The part of a corpus that can be resolved.
pub(super) struct Resolved {
    /// The plan of the sources without an error; none if there is no such source.
    pub(super) plan: Option<Plan>,
    /// Whether the folder has a `corpus.toml`.
    pub(super) is_configured: bool,
    /// What was guessed, a sentence each.
    pub(super) understood: Vec<String>,
    /// An error of the configuration each.
    pub(super) problems: Vec<Problem>,
}

/// Resolves the corpus folder `root`.
pub(super) fn resolve(
    root: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<Resolved> {
    let storage = context.storage;
    let is_configured = is_configured(root, storage)?;
    let mut resolved =
        Resolved { plan: None, is_configured, understood: Vec::new(), problems: Vec::new() };
    if is_configured {
        match PlanSpec::read(root, storage) {
            Ok(spec) => resolved.salvage(&spec, root, options, storage)?,
            Err(error) if !storage.is_folder(root) => return Err(error),
            Err(error) => resolved.problems.push(Problem::of_error("configuration", error)),
        }
        return Ok(resolved);
    }
    let guess = Guess::of(root, options, storage)?;
    resolved.understood = guess.said();
    for file in &guess.unrecognised {
        resolved.problems.push(Problem::of_error("unrecognised", file.error(root)));
    }
    if guess.sources.is_empty() {
        if guess.unrecognised.is_empty()
            && let Err(error) = guess.refuse_open(root)
        {
            resolved.problems.push(Problem::of_error("unrecognised", error));
        }
        return Ok(resolved);
    }
    let folder = root.display().to_string();
    resolved.salvage(&guess.spec(&folder)?, root, options, storage)?;
    if let Some(plan) = &mut resolved.plan {
        plan.config_file = folder;
    }
    Ok(resolved)
}

impl Resolved {
    /// Resolves `spec`, or as many of its sources as have no error.
    fn salvage(
        &mut self,
        spec: &PlanSpec,
        root: &Path,
        options: &PackOptions,
        storage: &dyn Storage,
    ) -> Result<()> {
        let first = match Plan::resolve(spec.clone(), root, options, storage) {
            Ok(plan) => {
                self.plan = Some(plan);
                return Ok(());
            }
            Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
            Err(error) => error,
        };
        // Without what spans sources, each source shows its own error; with the defaults of [pack]
        // too, if the error lies there.
        let alone = PlanSpec { mix: None, sources: Vec::new(), ..spec.clone() };
        let pack = PackSpec { decontaminate: Vec::new(), ..spec.pack.clone() };
        let alone = PlanSpec { pack, ..alone };
        let default = PlanSpec { pack: PackSpec::default(), ..alone.clone() };
        let plain = PackOptions { seq_len: None, ..options.clone() };
        let (mut errors, mut sound) = (vec![first], Vec::new());
        for source in &spec.sources {
            let one = |spec: &PlanSpec, options: &PackOptions| {
                let one = PlanSpec { sources: vec![source.clone()], ..spec.clone() };
                Plan::resolve(one, root, options, storage)
            };
            let mut result = one(&alone, options);
            if result.as_ref().is_err_and(|error| error.source_name.is_none()) {
                errors.extend(result.err());
                result = one(&default, &plain);
            }
            match result {
                Ok(_) => sound.push(source.clone()),
                Err(error) => errors.push(error),
            }
        }
        self.problems
            .extend(errors.into_iter().map(|error| Problem::of_error(kind(&error), error)));
        let whole = PlanSpec { sources: sound.clone(), ..spec.clone() };
        let alone = PlanSpec { sources: sound.clone(), ..alone };
        let default = PlanSpec { sources: sound, ..default };
        self.plan = [(whole, options), (alone, options), (default, &plain)]
            .into_iter()
            .find_map(|(spec, options)| Plan::resolve(spec, root, options, storage).ok());
        Ok(())
    }
}

/// Returns the kind of the problem that an error of the configuration is.
fn kind(error: &Error) -> &'static str {
    if error.kind == ErrorKind::Input { "file" } else { "configuration" }
}

/// The sources of a plan with their builders, and a job where the tokenizer can be used.
pub(super) struct Bench {
    with: With,
}

/// The means that a bench has.
enum With {
    /// A tokenizer and templates compiled for it.
    Job(Box<Job>),
    /// Templates alone.
    Builders(Box<Plan>, Vec<Box<dyn SegmentBuilder>>),
}

impl Bench {
    /// Loads the tokenizer and compiles the templates of `plan`. Errors become problems; a source
    /// whose templates have one is left out.
    pub(super) fn of(
        mut plan: Plan,
        problems: &mut Vec<Problem>,
        context: &Context<'_>,
    ) -> Result<Self> {
        let mut encoder = match Encoder::load(&plan.tokenizer, &plan.config_file, context) {
            Ok(encoder) => Some(encoder),
            Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                problems.push(Problem::of_error("tokenizer", error));
                None
            }
        };
        if let Some(loaded) = &encoder {
            let with_prompt = plan.sources.iter().filter(|source| !source.is_plain());
            let mut continued = with_prompt.map(|source| loaded.check_continuation(&source.name));
            if let Some(error) = continued.find_map(Result::err) {
                problems.push(Problem::of_error("tokenizer", error));
                encoder = None;
            }
        }
        let (none, names) = (Controls::new([]), names_without(&plan));
        let names = encoder.as_ref().map_or(names, Encoder::token_names);
        let spellings = encoder.as_ref().map_or(&none, |encoder| encoder.spellings());
        let mut builders = Vec::new();
        let chats = encoder.as_ref().map(Encoder::chats).cloned().unwrap_or_default();
        let (config_file, seed) = (plan.config_file.clone(), plan.pack.seed);
        plan.sources.retain_mut(|source| {
            let built = find_named(source, &chats, &names)
                .and_then(|()| builder_of(source, spellings, &names, seed))
                .and_then(|built| Segmenter::refuse_constant(source).map(|()| built));
            match built {
                Ok(built) => {
                    builders.push(built);
                    true
                }
                Err(error) => {
                    problems.push(Problem::of_error("template", error.file(config_file.clone())));
                    false
                }
            }
        });
        let with = match encoder {
            Some(encoder) => {
                With::Job(Box::new(Job { plan, encoder, builders, keyed: false, held_out: None }))
            }
            None => With::Builders(Box::new(plan), builders),
        };
        Ok(Self { with })
    }

    /// Returns the plan of the sources that can be looked at.
    pub(super) fn plan(&self) -> &Plan {
        match &self.with {
            With::Job(job) => &job.plan,
            With::Builders(plan, _) => plan,
        }
    }

    /// Returns the job, if there is a tokenizer.
    pub(super) fn job(&self) -> Option<&Job> {
        match &self.with {
            With::Job(job) => Some(job),
            With::Builders(..) => None,
        }
    }

    /// Returns the builder of a source.
    pub(super) fn builder(&self, source: usize) -> &dyn SegmentBuilder {
        match &self.with {
            With::Job(job) => &*job.builders[source],
            With::Builders(_, builders) => &*builders[source],
        }
    }
}

/// Returns the control tokens by their names in templates, as far as the configuration says them.
fn names_without(plan: &Plan) -> TokenNames {
    let named = &plan.tokenizer;
    let tokens = [("bos_token", &named.bos), ("eos_token", &named.eos), ("pad_token", &named.pad)];
    // A name that only a tokenizer could tell stands for itself.
    let spelled = |(name, token): (&str, &Option<String>)| {
        (name.to_owned(), token.clone().unwrap_or_else(|| format!("<{name}>")))
    };
    tokens.into_iter().map(spelled).collect()
}
