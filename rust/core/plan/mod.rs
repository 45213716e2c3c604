//! `Plan`: what will run. Every file found, every default filled in, every value checked.
//!
//! Takes a corpus folder and the caller's overrides; gives plain data that the stages read. Templates and
//! tokenizers are compiled by their own modules.

mod spec;

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

pub use spec::{PackSpec, PlanSpec, SegmentSpec, SourceSpec, TokenizerSpec, nearest};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::schema::{
    Format, LossPolicy, MAX_COPIES, MAX_SEQ_LEN, OFFSET_BITS, Overflow, SEQ_LEN_MULTIPLE, SpecialInData,
};

/// The name of the configuration in a corpus folder.
pub const CONFIG_FILE: &str = "corpus.toml";

/// What the caller sets over `corpus.toml`.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Tokens in a row.
    pub seq_len: Option<usize>,
    /// The tokenizer file, relative to the working folder.
    pub tokenizer: Option<PathBuf>,
    /// The seed of every random choice.
    pub seed: Option<u64>,
    /// Bytes of an input split; a matter of speed, never of output.
    pub split_bytes: Option<u64>,
}

/// A corpus, resolved.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The corpus folder.
    pub root: PathBuf,
    /// The configuration's name in errors.
    pub config_file: String,
    /// The tokenizer file and the control tokens asked for.
    pub tokenizer: TokenizerPlan,
    /// How rows are made.
    pub pack: PackPlan,
    /// The sources, in order; a source's id is its index.
    pub sources: Vec<Source>,
    /// Every file that a source reads, each once, in order of first use.
    pub inputs: Vec<Input>,
    /// Bytes of an input split.
    pub split_bytes: u64,
}

/// The tokenizer asked for.
#[derive(Debug, Clone)]
pub struct TokenizerPlan {
    /// The file, if any is named.
    pub file: Option<PathBuf>,
    /// BOS as written.
    pub bos: Option<String>,
    /// EOS as written.
    pub eos: Option<String>,
    /// Pad as written.
    pub pad: Option<String>,
}

/// `[pack]`, resolved.
#[derive(Debug, Clone, Serialize)]
pub struct PackPlan {
    /// Tokens in a row.
    pub seq_len: usize,
    /// The share of records held out.
    pub validation: f64,
    /// The seed of every random choice.
    pub seed: u64,
    /// Tokens a shard is planned to hold.
    pub shard_tokens: u64,
}

/// A source, resolved.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// What is to be learnt.
    pub task: String,
    /// The language.
    pub lang: String,
    /// Indices of its inputs in [`Plan::inputs`], in order.
    #[serde(skip)]
    pub inputs: Vec<usize>,
    /// Files as written.
    pub files: Vec<String>,
    /// The format of its inputs.
    pub format: Format,
    /// Column names of a TSV without a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Prompts and targets.
    pub segments: Vec<SegmentSpec>,
    /// Copies of each record, on average.
    pub epochs: f64,
    /// What becomes of a record longer than a row.
    pub overflow: Overflow,
    /// Which tokens are learnt.
    pub loss: LossPolicy,
    /// What becomes of data that spells a control token.
    pub special_in_data: SpecialInData,
}

impl Source {
    /// Whether it is plain text: nothing but targets.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        is_plain(&self.segments)
    }
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Its name: relative to the corpus, with `/`. It identifies the file for the validation split.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Plan {
    /// Reads and resolves the configuration of the corpus folder `root`.
    pub fn load(root: &Path, overrides: &Overrides) -> Result<Self> {
        let path = root.join(CONFIG_FILE);
        let text = files::whole_text(&path).map_err(|error| {
            if root.is_dir() {
                error.remedy("write a corpus.toml that lists the sources of this folder; README.md shows one")
            } else {
                Error::config("no such corpus folder")
                    .file(root.display().to_string())
                    .remedy("name the folder that holds your corpus.toml")
            }
        })?;
        // Line ends are not content: the same file checked out elsewhere must give the same templates.
        Self::resolve(PlanSpec::parse(&text.replace("\r\n", "\n"), &shown(&path))?, root, overrides)
    }

    /// Resolves `spec` against the corpus folder `root`.
    pub fn resolve(spec: PlanSpec, root: &Path, overrides: &Overrides) -> Result<Self> {
        let config_file = shown(&root.join(CONFIG_FILE));
        let at = |error: Error| error.file(config_file.clone());
        let pack = resolve_pack(&spec.pack, overrides)
            .map_err(|error| if overrides.seq_len.is_some() { error } else { at(error) })?;
        let split_bytes = overrides.split_bytes.unwrap_or(8 << 20);
        if split_bytes == 0 {
            return Err(Error::config("the split size must be at least one byte"));
        }
        let from_config = |file: &String| root.join(file);
        let tokenizer = TokenizerPlan {
            file: overrides.tokenizer.clone().or_else(|| spec.tokenizer.file.as_ref().map(from_config)),
            bos: spec.tokenizer.bos,
            eos: spec.tokenizer.eos,
            pad: spec.tokenizer.pad,
        };
        if spec.sources.is_empty() {
            return Err(at(Error::config("no [[source]]").remedy("list at least one source with its name and files")));
        }
        if spec.sources.len() > usize::from(u16::MAX) {
            return Err(at(Error::config("more than 65,535 sources")));
        }
        let mut plan =
            Self { root: root.to_owned(), config_file, tokenizer, pack, sources: vec![], inputs: vec![], split_bytes };
        for source in spec.sources {
            let name = source.name.clone();
            let config_file = plan.config_file.clone();
            let default = spec.pack.special_in_data.unwrap_or_default();
            plan.add_source(source, default).map_err(|error| {
                let error = error.source(name);
                if error.file.is_none() { error.file(config_file) } else { error }
            })?;
        }
        Ok(plan)
    }

    fn add_source(&mut self, spec: SourceSpec, special_in_data: SpecialInData) -> Result<()> {
        if spec.name.is_empty() {
            return Err(Error::config("a source's name is empty"));
        }
        if self.sources.iter().any(|other| other.name == spec.name) {
            return Err(Error::config("two sources have this name").remedy("a name identifies a source: rename one"));
        }
        let mut inputs: Vec<usize> = Vec::new();
        for pattern in &spec.files {
            for path in find_files(&self.root, pattern)? {
                let index = self.intern_input(&path)?;
                if inputs.iter().any(|&other| files::is_same_file(&self.inputs[other].path, &self.inputs[index].path)) {
                    let name = &self.inputs[index].name;
                    return Err(Error::config(format!("reads {name} twice")).remedy("set `epochs` to repeat a source"));
                }
                inputs.push(index);
            }
        }
        if inputs.is_empty() {
            return Err(Error::config("has no files").remedy("name its files in `files = [\"…\"]`"));
        }
        let format = self.resolve_format(spec.format, &inputs)?;
        if let Some(columns) = &spec.columns {
            refuse_repeated(columns)?;
        }
        if spec.columns.is_some() && format != Format::Tsv {
            return Err(Error::config("`columns` is for TSV without a header; this source is not TSV"));
        }
        let segments = resolve_segments(spec.segments, format)?;
        let plain = is_plain(&segments);
        let overflow = spec.overflow.unwrap_or(if plain { Overflow::Split } else { Overflow::Truncate });
        if overflow == Overflow::Split && !plain {
            return Err(Error::config("overflow = \"split\" is for plain text; this source has a prompt")
                .remedy("use \"truncate\", \"drop\" or \"error\""));
        }
        let epochs = spec.epochs.unwrap_or(1.0);
        if !(epochs > 0.0 && epochs <= f64::from(MAX_COPIES)) {
            return Err(Error::config(format!("epochs = {epochs}: must be above 0 and at most {MAX_COPIES}")));
        }
        self.sources.push(Source {
            task: spec.task.unwrap_or_else(|| spec.name.clone()),
            name: spec.name,
            lang: spec.lang.unwrap_or_else(|| "und".to_owned()),
            inputs,
            files: spec.files,
            format,
            columns: spec.columns,
            segments,
            epochs,
            overflow,
            loss: spec.loss.unwrap_or_default(),
            special_in_data: spec.special_in_data.unwrap_or(special_in_data),
        });
        Ok(())
    }

    fn intern_input(&mut self, path: &Path) -> Result<usize> {
        let name = portable_name(&self.root, path);
        if let Some(index) = self.inputs.iter().position(|input| input.name == name) {
            return Ok(index);
        }
        let size = files::file_size(path).map_err(|error| error.file(name.clone()))?;
        if size >> OFFSET_BITS != 0 {
            return Err(Error::input("larger than 1 TiB").file(name).remedy("split it into smaller files"));
        }
        self.inputs.push(Input { path: path.to_owned(), name, size });
        Ok(self.inputs.len() - 1)
    }

    fn resolve_format(&self, given: Option<Format>, inputs: &[usize]) -> Result<Format> {
        if let Some(format) = given {
            return Ok(format);
        }
        let mut formats = inputs.iter().map(|&index| {
            let input = &self.inputs[index];
            Ok((files::guess_format(&input.path).map_err(|error| error.file(input.name.clone()))?, &input.name))
        });
        let (first, first_name) = formats.next().expect("a source has inputs")?;
        for guess in formats {
            let (format, name) = guess?;
            if format != first {
                return Err(Error::config(format!("{first_name} looks like {first:?}, {name} like {format:?}"))
                    .remedy("make them two sources, or say `format = \"…\"`"));
            }
        }
        Ok(first)
    }
}

/// Refuses column names of which two are the same.
pub fn refuse_repeated(names: &[String]) -> Result<()> {
    for (nth, name) in names.iter().enumerate() {
        if names[..nth].contains(name) {
            return Err(Error::input(format!("two columns are named '{name}'"))
                .remedy("rename one, or name the columns of a file without a header: columns = [\"…\"]"));
        }
    }
    Ok(())
}

fn is_plain(segments: &[SegmentSpec]) -> bool {
    segments.iter().all(|segment| matches!(segment, SegmentSpec::Target(_)))
}

fn resolve_pack(spec: &PackSpec, overrides: &Overrides) -> Result<PackPlan> {
    let seq_len = overrides.seq_len.or(spec.seq_len).unwrap_or(2048);
    if seq_len == 0 || !seq_len.is_multiple_of(SEQ_LEN_MULTIPLE) || seq_len > MAX_SEQ_LEN {
        return Err(Error::config(format!("seq_len = {seq_len}: must be a multiple of 64, at most {MAX_SEQ_LEN}"))
            .remedy(format!("the nearest is {}", (seq_len.div_ceil(64) * 64).clamp(64, MAX_SEQ_LEN))));
    }
    let validation = spec.validation.unwrap_or(0.0);
    if !(0.0..1.0).contains(&validation) {
        return Err(Error::config(format!("validation = {validation}: a share of records, at least 0 and below 1")));
    }
    let shard_tokens = spec.shard_tokens.unwrap_or(1 << 24);
    if shard_tokens < seq_len as u64 {
        return Err(Error::config(format!("shard_tokens = {shard_tokens}: less than one row")));
    }
    let seed = overrides.seed.or(spec.seed).unwrap_or(0);
    Ok(PackPlan { seq_len, validation, seed, shard_tokens })
}

fn resolve_segments(segments: Option<Vec<SegmentSpec>>, format: Format) -> Result<Vec<SegmentSpec>> {
    let segments = match segments {
        Some(segments) => segments,
        None if format == Format::Text => vec![SegmentSpec::Target("{{ text }}".to_owned())],
        None => {
            return Err(Error::config("has no `segments`")
                .remedy("say what is given and what is learnt: segments = [{ prompt = \"…\" }, { target = \"…\" }]"));
        }
    };
    if !segments.iter().any(|segment| matches!(segment, SegmentSpec::Target(_))) {
        return Err(Error::config("has no target: nothing could be learnt from it")
            .remedy("add a `{ target = \"…\" }` to its segments"));
    }
    Ok(segments)
}

/// The files that `pattern` names below `root`, sorted.
fn find_files(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let plain = root.join(pattern);
    if plain.is_file() {
        return Ok(vec![plain]);
    }
    if plain.is_dir() {
        return Err(Error::input("is a folder").file(pattern).remedy(format!("name its files: \"{pattern}/*\"")));
    }
    if !pattern.contains(['*', '?', '[']) {
        return Err(Error::input("no such file").file(pattern).remedy(near_files(root, &plain)));
    }
    let full = Path::new(&glob::Pattern::escape(&root.to_string_lossy())).join(pattern);
    let paths = glob::glob(&full.to_string_lossy())
        .map_err(|error| Error::config(format!("the pattern \"{pattern}\" is wrong: {}", error.msg)))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| Error::io(Kind::Input, error.path(), error.error()))?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::input("no file matches this pattern").file(pattern).remedy(near_files(root, &plain)));
    }
    files.sort();
    Ok(files)
}

/// What the user may have meant instead of the missing `path`.
fn near_files(root: &Path, path: &Path) -> String {
    let folder = path.parent().unwrap_or(root);
    let names = files::names_in(folder);
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean {}?", portable_name(root, &folder.join(name))),
        None => format!("paths are relative to {}", root.display()),
    }
}

/// A path as the user would name it.
fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

/// `path` relative to `root`, with `/`, `.` removed: the same on every machine.
fn portable_name(root: &Path, path: &Path) -> String {
    let Ok(relative) = path.strip_prefix(root) else {
        return path.to_string_lossy().into_owned();
    };
    let mut parts: Vec<String> = Vec::new();
    for component in relative.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if parts.last().is_some_and(|last| last != "..") => {
                parts.pop();
            }
            other => parts.push(other.as_os_str().to_string_lossy().into_owned()),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_inputs_do_not_depend_on_how_they_were_spelled() {
        let root = Path::new("/c");
        assert_eq!(portable_name(root, &root.join("./a/../b/x.json")), "b/x.json");
        assert_eq!(portable_name(root, &root.join("../d/x.json")), "../d/x.json");
    }

    #[test]
    fn values_that_cannot_be_right_are_refused() {
        for text in ["[pack]\nseq_len = 100", "[pack]\nvalidation = 1.0", "[pack]\nshard_tokens = 5", ""] {
            let spec = PlanSpec::parse(text, CONFIG_FILE).unwrap();
            let error = Plan::resolve(spec, Path::new("."), &Overrides::default()).unwrap_err();
            assert_eq!(error.kind, Kind::Config, "{text}");
        }
    }
}
