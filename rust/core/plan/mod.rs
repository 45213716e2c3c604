//! `Plan`: a run, with every file found, every default filled in and every value checked.
//!
//! Takes a corpus folder and the options of the run; gives plain data that the stages read.
//! Templates and tokenizers are compiled by their own modules.

mod augment;
mod by_field;
mod by_file;
mod chat;
mod clean;
mod documents;
mod files;
mod filter;
mod find;
mod guess;
mod hub;
mod inputs;
mod language;
mod mix;
mod near;
mod options;
mod pack;
mod placeholder;
mod saved;
mod sides;
mod source;
mod spec;
mod tagged;
mod ways;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use augment::Augment;
pub(crate) use augment::{AugmentTask, Made, NUMBER, Noise, Underdots, language_shown};
pub use chat::{ChatSpec, TrainOn, TrainWord};
pub(crate) use chat::{FoundTemplate, TokenizerChats};
#[cfg(test)]
pub(crate) use clean::Apostrophe;
pub use clean::CleanSpec;
pub(crate) use clean::{Invisible, Underdot, UnicodeForm};
pub use documents::Choose;
pub use filter::FilterSpec;
pub(crate) use filter::{Limits, Measured, Rule};
pub(crate) use guess::Guess;
pub use hub::HubFiles;
pub(crate) use language::{UNDETERMINED, code_of, language_name, near_code};
pub(crate) use mix::MixPlan;
pub use near::{Near, NearSpec};
pub use options::{PackOptions, SPOOL_BYTES};
pub use pack::PackPlan;
pub use source::{Input, Source};
pub use spec::PlanSpec;
pub(crate) use spec::{
    MixBy, MixSpec, PackSpec, SegmentSpec, SourceSpec, TokenizerSpec, Unit, nearest,
};
pub use tagged::TaggedSpec;
pub(crate) use ways::ITEM;

use by_file::{Places, by_file};

use crate::error::{Error, Result};
use crate::schema::Duplicates;
use crate::storage::{Stamp, Storage, below};

/// The name of the configuration in a corpus folder.
pub(crate) const CONFIG_FILE: &str = "corpus.toml";
/// The tokenizer that is taken if the corpus folder has it, and nothing else names one.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// A corpus, resolved.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The corpus folder.
    pub root: PathBuf,
    /// The name of the configuration in errors.
    pub config_file: String,
    /// The tokenizer file and the control tokens asked for.
    pub tokenizer: TokenizerPlan,
    /// The settings of packing.
    pub pack: PackPlan,
    /// The mix of the sources without `epochs`, if they are mixed.
    pub mix: Option<MixPlan>,
    /// The sources, in order; a source's id is its index.
    pub sources: Vec<Source>,
    /// Indices in [`Plan::inputs`] of the files that training is kept clean of.
    pub decontaminate: Vec<usize>,
    /// Every file that is read, each once, in order of first use.
    pub inputs: Vec<Input>,
    /// The size of an input split in bytes.
    pub split_bytes: u64,
    /// The inputs in which languages were looked for, each as it was before.
    pub(crate) looked_at: Vec<(usize, Stamp)>,
    /// The files of the Hugging Face Hub that it may name.
    hub: HubFiles,
    /// What was guessed from the files, a sentence each. Empty where there is a `corpus.toml`.
    pub(crate) guessed: Vec<String>,
}

/// The tokenizer and the control tokens, as they are asked for.
#[derive(Debug, Clone)]
pub struct TokenizerPlan {
    /// The path of the tokenizer file.
    pub file: Option<PathBuf>,
    /// The BOS token as written.
    pub bos: Option<String>,
    /// The EOS token as written.
    pub eos: Option<String>,
    /// The pad token as written.
    pub pad: Option<String>,
}

/// Returns whether the folder `root` has a `corpus.toml`, or is none. A fault of a store is an error.
pub(crate) fn is_configured(root: &Path, storage: &dyn Storage) -> Result<bool> {
    Ok(storage.is_surely_there(&root.join(CONFIG_FILE))? || !storage.is_folder(root))
}

impl Plan {
    /// Returns whether the rows have the weights of their documents in the loss: whether any source
    /// has some.
    #[must_use]
    pub(crate) fn is_weighted(&self) -> bool {
        self.sources.iter().any(|source| source.loss_weight.is_some())
    }

    /// Reads and resolves the configuration of the corpus folder `root`.
    pub fn load(root: &Path, options: &PackOptions, storage: &dyn Storage) -> Result<Self> {
        if !is_configured(root, storage)? {
            let guess = Guess::of(root, options, storage)?;
            guess.refuse_open(root)?;
            return Self::of_guess(&guess, root, options, storage);
        }
        Self::resolve(PlanSpec::read(root, storage)?, root, options, storage)
    }

    /// Resolves a guess about the corpus folder `root`. Errors name the folder.
    pub(crate) fn of_guess(
        guess: &Guess,
        root: &Path,
        options: &PackOptions,
        storage: &dyn Storage,
    ) -> Result<Self> {
        let folder = shown(root);
        let plan = Self::resolve(guess.spec(&folder)?, root, options, storage)?;
        Ok(Self { config_file: folder, guessed: guess.said(), ..plan })
    }

    /// Resolves `spec` against the corpus folder `root`.
    pub fn resolve(
        spec: PlanSpec,
        root: &Path,
        options: &PackOptions,
        storage: &dyn Storage,
    ) -> Result<Self> {
        let config_file = shown(&root.join(CONFIG_FILE));
        let in_config = |error: Error| error.file(config_file.clone());
        // The fault may lie in `--seq-len`, which no file spells.
        let pack = pack::resolve(&spec.pack, options)
            .map_err(|error| if options.seq_len.is_some() { error } else { in_config(error) })?;
        let split_bytes = options.split_bytes.unwrap_or(8 << 20);
        if split_bytes == 0 {
            return Err(Error::config("the split size must be at least one byte"));
        }
        refuse_source_count(spec.sources.len()).map_err(in_config)?;
        let mut plan = Self {
            root: root.to_owned(),
            tokenizer: TokenizerPlan::resolve(spec.tokenizer, root, options, storage),
            pack,
            mix: mix::resolve(spec.mix.as_ref(), &spec.sources).map_err(in_config)?,
            config_file: config_file.clone(),
            sources: Vec::new(),
            decontaminate: Vec::new(),
            inputs: Vec::new(),
            split_bytes,
            looked_at: Vec::new(),
            hub: options.hub.clone(),
            guessed: Vec::new(),
        };
        // An error about an input names that file already.
        let in_file = |error: Error| if error.file.is_none() { in_config(error) } else { error };
        for source in spec.sources {
            let name = source.full_name();
            let places = Places { root, storage, hub: &options.hub };
            let sources = by_file(source, places).map_err(|error| in_file(error.source(name)))?;
            for source in sources {
                let name = source.full_name();
                plan.add_source(source, &spec.pack, storage)
                    .map_err(|error| in_file(error.source(name)))?;
            }
        }
        refuse_source_count(plan.sources.len()).map_err(in_config)?;
        plan.pack.near = near::resolve(spec.pack.near, &plan.sources).map_err(in_config)?;
        plan.add_decontaminate(storage).map_err(in_config)?;
        plan.refuse_both_splits(storage).map_err(in_config)?;
        plan.refuse_other_records().map_err(in_config)?;
        Ok(plan)
    }

    /// Returns whether records may be held out.
    #[must_use]
    pub(crate) fn holds_out(&self) -> bool {
        self.pack.validation > 0.0
            || self.sources.iter().any(|source| source.holds_out(source.inputs.len() - 1))
    }

    /// Returns whether settling compares the contents of records.
    #[must_use]
    pub(crate) fn looks_at_content(&self) -> bool {
        self.holds_out() || self.sources.iter().any(|source| source.duplicates != Duplicates::Keep)
    }

    /// Finds the files that training is kept clean of; refuses one that is trained on.
    fn add_decontaminate(&mut self, storage: &dyn Storage) -> Result<()> {
        for pattern in self.pack.decontaminate.clone() {
            for path in self.find(&pattern, storage)? {
                let trains = |source: &&Source| {
                    let is_same =
                        |input: usize| storage.is_same_file(&self.inputs[input].path, &path);
                    (0..source.training_inputs).any(|nth| source.files_of(nth).any(is_same))
                };
                if let Some(source) = self.sources.iter().find(trains) {
                    let what =
                        format!("trains on {}, which `decontaminate` names", self.name_of(&path));
                    return Err(Error::config(what)
                        .source(source.name.clone())
                        .remedy("nothing of it would be left: name it in one of them"));
                }
                let input = self.intern_input(&path, storage)?;
                if !self.decontaminate.contains(&input) {
                    self.decontaminate.push(input);
                }
            }
        }
        Ok(())
    }

    /// Refuses a file that one source holds out and another trains on.
    fn refuse_both_splits(&self, storage: &dyn Storage) -> Result<()> {
        let mut first: BTreeMap<PathBuf, (&Source, bool)> = BTreeMap::new();
        for source in &self.sources {
            let files = |nth| source.files_of(nth).map(move |input| (nth, input));
            for (nth, input) in (0..source.inputs.len()).flat_map(files) {
                let Input { path, name, .. } = &self.inputs[input];
                let file = storage.real_path(path);
                let (other, held_out) =
                    *first.entry(file).or_insert((source, source.holds_out(nth)));
                if held_out != source.holds_out(nth) {
                    let [holding, training] =
                        if held_out { [other, source] } else { [source, other] };
                    let what =
                        format!("trains on {name}, which source '{}' holds out", holding.name);
                    return Err(Error::config(what)
                        .source(training.name.clone())
                        .remedy("name it in `validation_files` of both, or of none"));
                }
            }
        }
        Ok(())
    }
}

impl TokenizerPlan {
    /// Returns the tokenizer asked for. A file in `options` wins over the configuration's, which
    /// wins over that of the corpus folder. A folder, as of a checkpoint, stands for the file in it.
    fn resolve(
        spec: TokenizerSpec,
        root: &Path,
        options: &PackOptions,
        storage: &dyn Storage,
    ) -> Self {
        let TokenizerSpec { file, bos, eos, pad } = spec;
        let from_config = || file.map(|file| below(root, file));
        let own = root.join(TOKENIZER_FILE);
        let in_folder = |file: PathBuf| {
            if storage.is_folder(&file) { file.join(TOKENIZER_FILE) } else { file }
        };
        let file = options.tokenizer.clone().or_else(from_config).map(in_folder);
        Self { file: file.or_else(|| storage.is_file(&own).then_some(own)), bos, eos, pad }
    }
}

/// Refuses a corpus of no sources, or of more than a row can number.
fn refuse_source_count(count: usize) -> Result<()> {
    if count == 0 {
        return Err(Error::config("no [[source]]")
            .remedy("list at least one source with its name and files"));
    }
    if count > usize::from(u16::MAX) {
        return Err(Error::config("more than 65,535 sources"));
    }
    Ok(())
}

/// Returns a path as the user would name it.
fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn values_that_cannot_be_right_are_refused() {
        for text in
            ["[pack]\nseq_len = 100", "[pack]\nvalidation = 1.0", "[pack]\nshard_tokens = 5", ""]
        {
            let spec = PlanSpec::parse(text, CONFIG_FILE).unwrap();
            let error = Plan::resolve(
                spec,
                Path::new("."),
                &PackOptions::default(),
                &crate::storage::Local,
            )
            .unwrap_err();
            assert_eq!(error.kind, ErrorKind::Config, "{text}");
        }
    }
}
