//! The keys of `corpus.toml`, table by table, each with the values that it takes.

use std::sync::LazyLock;

use crate::pack::Packing;
use crate::plan::{AugmentTask, Choose, TrainOn};
use crate::read::{Encoding, FormatName};

/// The values that a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Texts,
    /// A list of texts, or a table with a text or a list of texts for each field.
    Files,
    /// A whole number, 0 or above.
    Whole,
    Number,
    /// A number, or a field's name that is no number.
    NumberOrField,
    Truth,
    /// One of these words.
    Word(fn() -> &'static [&'static str]),
    /// A list of these words.
    Words(fn() -> &'static [&'static str]),
    Segments,
    /// A list of lists of segments.
    Templates,
    /// One of these words, or a list of texts.
    WordOrTexts(&'static [&'static str]),
    /// A table of texts.
    Renames,
    /// A list of lists of a whole number and a number.
    Pairs,
    Table(&'static [Key]),
    /// A table in braces, of these keys.
    Inner(&'static [Key]),
    /// One of these words, or a table in braces, of these keys.
    WordOrInner(&'static [&'static str], &'static [Key]),
    Tables(&'static [Key]),
    /// Tables within a source, of these keys.
    Documents(fn() -> &'static [Key]),
    /// A table of these keys.
    Shared(fn() -> &'static [Key]),
    /// Named tables of these keys.
    Named(fn() -> &'static [Key]),
}

/// A key of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) example: &'static str,
    pub(super) is_needed: bool,
}

/// Returns a key that may be left out.
const fn key(name: &'static str, kind: Kind, example: &'static str) -> Key {
    Key { name, kind, example, is_needed: false }
}

/// Returns a key that must be there.
const fn needed(name: &'static str, kind: Kind, example: &'static str) -> Key {
    Key { name, kind, example, is_needed: true }
}

pub(super) const SEGMENTS: &str =
    "[{ prompt = \"{{ question }}\" }, { target = \" {{ answer }}\" }]";
/// The place of the keys of a document table, in errors.
pub(super) const IN_DOCUMENT: &str = " in a [[source.document]]";
const TEMPLATES: &str = "[[{ prompt = \"Q: {{ q }}\" }, { target = \" {{ a }}\" }], \
                         [{ prompt = \"{{ q }}\" }, { target = \" {{ a }}\" }]]";
/// The keys of a source that say how its records are read.
const READING: [&str; 14] = [
    "template",
    "files",
    "validation_files",
    "format",
    "columns",
    "header",
    "delimiter",
    "rename",
    "unit",
    "records",
    "literals",
    "labels",
    "encoding",
    "document",
];
const DUPLICATES: Kind = Kind::Word(|| &["keep", "exact", "normalised", "near"]);
const SPECIAL_IN_DATA: Kind = Kind::Word(|| &["text", "error"]);

pub(super) const TOP: &[Key] = &[
    key("tokenizer", Kind::Table(TOKENIZER), ""),
    key("pack", Kind::Table(PACK), ""),
    key("mix", Kind::Table(MIX), ""),
    key("defaults", Kind::Shared(defaults), ""),
    key("template", Kind::Named(template), ""),
    key("source", Kind::Tables(SOURCE), ""),
];
const TOKENIZER: &[Key] = &[
    key("file", Kind::Text, "\"tokenizer.json\""),
    key("bos", Kind::Text, "\"<s>\""),
    key("eos", Kind::Text, "\"</s>\""),
    key("pad", Kind::Text, "\"<pad>\""),
];
const PACK: &[Key] = &[
    key("seq_len", Kind::Whole, "2048"),
    key("pack", Kind::Word(Packing::names), "\"best_fit\""),
    key("validation", Kind::Number, "0.01"),
    key("seed", Kind::Whole, "0"),
    key("special_in_data", SPECIAL_IN_DATA, "\"text\""),
    key("shard_tokens", Kind::Whole, "16777216"),
    key("decontaminate", Kind::Texts, "[\"tests/*.jsonl\"]"),
    key("decontaminate_ngram", Kind::Whole, "13"),
    key("duplicates", DUPLICATES, "\"exact\""),
    key("near", Kind::Inner(NEAR), "{ ngram = 5 }"),
    key("max_bad_fraction", Kind::Number, "0.05"),
];
const NEAR: &[Key] = &[
    key("ngram", Kind::Whole, "5"),
    key("bands", Kind::Whole, "14"),
    key("rows", Kind::Whole, "8"),
];
const MIX: &[Key] = &[
    key("by", Kind::Word(|| &["task", "lang", "source"]), "\"task\""),
    key("temperature", Kind::Number, "2.0"),
    key("unit", Kind::Word(|| &["examples", "tokens", "targets"]), "\"targets\""),
    key("max_epochs", Kind::Number, "4.0"),
];
const CHAT: &[Key] = &[
    needed("messages", Kind::Text, "\"messages\""),
    key("template", Kind::Text, "\"chatml\""),
    key("train_on", Kind::WordOrTexts(&TrainOn::WORDS), "\"assistant\""),
    key("tools", Kind::Text, "\"tools\""),
    key("documents", Kind::Text, "\"documents\""),
];
const TAGGED: &[Key] = &[
    key("text", Kind::Text, "\"text\""),
    needed("open", Kind::Texts, "[\"<translate>\"]"),
    needed("action", Kind::Texts, "[\"<yor>:\"]"),
];
pub(super) const SOURCE: &[Key] = &[
    needed("name", Kind::Text, "\"sum-yor\""),
    key("template", Kind::Text, "\"sum\""),
    key("task", Kind::Text, "\"sum\""),
    key("lang", Kind::Text, "\"yor\""),
    needed("files", Kind::Files, "[\"sum/yor.jsonl\"]"),
    key("validation_files", Kind::Files, "[\"sum/yor-test.jsonl\"]"),
    key("format", Kind::Word(FormatName::all), "\"jsonl\""),
    key("columns", Kind::Texts, "[\"question\", \"answer\"]"),
    key("header", Kind::Truth, "true"),
    key("delimiter", Kind::Text, "\";\""),
    key("rename", Kind::Renames, "{ \"Tweet text\" = \"tweet\" }"),
    key("unit", Kind::Word(|| &["line", "paragraph", "file"]), "\"paragraph\""),
    key("records", Kind::Text, "\"data[].paragraphs[]\""),
    key("literals", Kind::Texts, "[\"answers\"]"),
    key("labels", Kind::Texts, "[\"label\"]"),
    key("encoding", Kind::Word(Encoding::names), "\"windows-1252\""),
    key("segments", Kind::Segments, SEGMENTS),
    key("chat", Kind::Inner(CHAT), "{ messages = \"messages\" }"),
    key("augment", Kind::WordOrInner(&AugmentTask::NAMES, AUGMENT), "\"denoise\""),
    key("tagged", Kind::Inner(TAGGED), "{ open = [\"<translate>\"], action = [\"<yor>:\"] }"),
    key("templates", Kind::Templates, TEMPLATES),
    key("choose", Kind::Word(|| &Choose::WORDS), "\"one\""),
    key("document", Kind::Documents(document), ""),
    key("when", Kind::Text, "\"{{ rating > 3 }}\""),
    key("each", Kind::Text, "\"answers\""),
    key("epochs", Kind::Number, "2.0"),
    key("weight", Kind::NumberOrField, "1.0"),
    key("overflow", Kind::Word(|| &["split", "truncate", "drop", "error"]), "\"truncate\""),
    key("loss", Kind::Word(policies), "\"target_only\""),
    key("spans", Kind::Text, "\"char_spans\""),
    key("loss_weight", Kind::Text, "\"w\""),
    key("special_in_data", SPECIAL_IN_DATA, "\"text\""),
    key("duplicates", DUPLICATES, "\"exact\""),
    key("clean", Kind::Inner(CLEAN), "{ unicode = \"nfc\", invisible = \"remove\" }"),
    key("filter", Kind::Inner(FILTER), "{ min_words = 5, min_letters = 0.6 }"),
    key("max_bad_fraction", Kind::Number, "0.05"),
];
const AUGMENT: &[Key] = &[
    needed("task", Kind::Word(|| &AugmentTask::NAMES), "\"denoise\""),
    key("field", Kind::Text, "\"text\""),
    key("underdots", Kind::Word(|| &["keep", "strip"]), "\"keep\""),
    key("char_drop", Kind::Number, "0.01"),
    key("char_swap", Kind::Number, "0.01"),
    key("char_repeat", Kind::Number, "0.01"),
    key("char_replace", Kind::Number, "0.02"),
    key("word_drop", Kind::Number, "0.01"),
    key("word_swap", Kind::Number, "0.01"),
    key("word_join", Kind::Number, "0.02"),
    key("space_split", Kind::Number, "0.01"),
    key("space_double", Kind::Number, "0.01"),
    key("min_share", Kind::Number, "0.2"),
    key("max_share", Kind::Number, "0.8"),
    key("rate", Kind::Number, "0.15"),
    key("span", Kind::Number, "3.0"),
    key("blank", Kind::Text, "\"<extra_id_{n}>\""),
    key("first", Kind::Whole, "0"),
    key("language", Kind::Word(|| &["code", "name", "written"]), "\"name\""),
    key("min_sentences", Kind::Whole, "3"),
];
const CLEAN: &[Key] = &[
    key("unicode", Kind::Word(|| &["nfc", "nfd", "nfkc", "as-is"]), "\"nfc\""),
    key("invisible", Kind::Word(|| &["keep", "remove"]), "\"remove\""),
    key("apostrophes", Kind::Word(|| &["'", "’", "ʼ"]), "\"’\""),
    key("underdots", Kind::Word(|| &["dot", "line"]), "\"dot\""),
];
const FILTER: &[Key] = &[
    key("of", Kind::Word(|| &["text", "prompt", "target"]), "\"target\""),
    key("min_chars", Kind::Whole, "20"),
    key("max_chars", Kind::Whole, "100000"),
    key("min_words", Kind::Whole, "5"),
    key("max_words", Kind::Whole, "20000"),
    key("min_tokens", Kind::Whole, "8"),
    key("max_tokens", Kind::Whole, "4096"),
    key("min_letters", Kind::Number, "0.6"),
    key("min_script", Kind::Number, "0.8"),
    key("script", Kind::Text, "\"Latn\""),
    key("min_language", Kind::Number, "0.5"),
    key("language", Kind::Text, "\"swa\""),
    key("max_repeated_lines", Kind::Number, "0.3"),
    key("max_repeated_ngrams", Kind::Number, "0.15"),
    key("ngram", Kind::Whole, "5"),
    key("rules", Kind::Words(rules), "[\"gopher-quality\"]"),
    key("limits", Kind::Inner(LIMITS), "{ dup_line_frac = 0.486 }"),
];
const LIMITS: &[Key] = &[
    key("dup_line_frac", Kind::Number, "0.486"),
    key("top_n_grams", Kind::Pairs, "[[2, 0.245], [3, 0.319]]"),
    key("dup_n_grams", Kind::Pairs, "[[5, 0.355], [6, 0.336]]"),
    key("line_punct_thr", Kind::Number, "0.5"),
    key("new_line_ratio", Kind::Number, "0.143"),
    key("min_avg_word_length", Kind::Number, "2"),
    key("max_avg_word_length", Kind::Number, "12"),
    key("max_non_alpha_words_ratio", Kind::Number, "0.86"),
    key("stopwords", Kind::Texts, "[\"ní\", \"ni\"]"),
];

/// Returns the policies that choose trained tokens.
fn policies() -> &'static [&'static str] {
    &["target_only", "full", "template_masked", "last_turn"]
}

/// Returns the names of published rules.
fn rules() -> &'static [&'static str] {
    &["gopher-repetition", "gopher-quality", "fineweb-quality", "fineweb-2"]
}

/// Returns the keys of a source without those in `own`.
fn without(own: &[&str]) -> Vec<Key> {
    SOURCE.iter().filter(|key| !own.contains(&key.name)).copied().collect()
}

/// Returns the keys that sources may share by `[defaults]`.
fn defaults() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> =
        LazyLock::new(|| without(&["name", "template", "files", "validation_files"]));
    &KEYS
}

/// Returns the keys that sources may share by a template.
fn template() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| without(&["name", "template", "files"]));
    &KEYS
}

/// Returns the keys of a document table.
fn document() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let named = |key: Key| Key { is_needed: false, ..key };
        without(&READING).into_iter().map(named).collect()
    });
    &KEYS
}

/// Returns whether a key says how the records of a source are read.
pub(super) fn is_of_reading(name: &str) -> bool {
    READING.contains(&name)
}
