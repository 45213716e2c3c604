//! `Job`: a plan with its tokenizer loaded and its templates compiled.

use crate::contamination::HeldOut;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::{Plan, Source};
use crate::read::{InputSplit, Records};
use crate::segment::{SegmentBuilder, builder_of, find_named};
use crate::tokenize::Encoder;

/// A plan with its tokenizer loaded and its templates compiled.
#[derive(Debug)]
pub struct Job {
    /// The resolved configuration.
    pub plan: Plan,
    /// The loaded tokenizer.
    pub encoder: Encoder,
    /// The segment builder of each source.
    pub builders: Vec<Box<dyn SegmentBuilder>>,
    /// Whether the spool has content keys.
    pub keyed: bool,
    /// The n-grams that training is kept clean of.
    pub held_out: Option<HeldOut>,
}

impl Job {
    /// Loads the tokenizer of `plan` and compiles its templates.
    ///
    /// Refuses a faulty tokenizer or template, and a pair that cannot work together.
    pub fn prepare(plan: Plan, context: &Context<'_>) -> Result<Self> {
        let encoder = Encoder::load(&plan.tokenizer, &plan.config_file, context)?;
        Self::with_encoder(plan, encoder)
    }

    /// Returns the renders of each source so far in which template text could not be told from
    /// data.
    pub(crate) fn unmarked(&self) -> Vec<u64> {
        self.builders.iter().map(|builder| builder.unmarked()).collect()
    }

    /// Compiles the templates of `plan` for `encoder`.
    pub(crate) fn with_encoder(mut plan: Plan, encoder: Encoder) -> Result<Self> {
        if plan.sources.iter().any(|source| source.lang_field.is_some()) {
            return Err(Error::internal("a source by language is not divided")
                .remedy("this is a bug in sabiprep: please report it"));
        }
        let names = encoder.token_names();
        for source in &mut plan.sources {
            find_named(source, encoder.chats(), &names)
                .map_err(|error| error.file(plan.config_file.clone()))?;
        }
        let seed = plan.pack.seed;
        let build = |source: &Source| builder_of(source, encoder.spellings(), &names, seed);
        let builders = plan.sources.iter().map(build).collect::<Result<_>>();
        let builders = builders.map_err(|error: Error| error.file(plan.config_file.clone()))?;
        for source in plan.sources.iter().filter(|source| !source.is_plain()) {
            encoder.check_continuation(&source.name)?;
        }
        let keyed = plan.looks_at_content();
        Ok(Self { plan, encoder, builders, keyed, held_out: None })
    }

    /// Opens the records of `split` for the builder of their source, which may need few fields.
    pub fn open(&self, split: &InputSplit, context: &Context<'_>) -> Result<Records> {
        let builder = &self.builders[split.source];
        self.plan.open_for(split, builder.wanted(), builder.needed(), context)
    }

    /// Opens the records of `split` as [`Self::open`] does, to be read by way of all their fields.
    pub(crate) fn open_fields(&self, split: &InputSplit, context: &Context<'_>) -> Result<Records> {
        self.plan.open_for(split, None, self.builders[split.source].needed(), context)
    }
}
