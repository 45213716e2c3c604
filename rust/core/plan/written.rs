//! Keys of `corpus.toml`: the values that each may hold. They are checked on the text, so that an
//! error names its line and its remedy.
//!
//! Takes the text; gives nothing, or the first error in it. Serde reads the text afterwards and
//! finds no fault. A test compares the keys and words listed here with those that serde knows.

use std::ops::Range;
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::nearest;
use crate::error::{Error, Result};
use crate::pack::Packing;
use crate::plan::TrainOn;
use crate::read::{Encoding, FormatName};

/// The values that a key takes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Texts,
    /// A list of texts, or a table with a text or a list of texts for each field.
    Files,
    /// A whole number, 0 or above.
    Whole,
    Number,
    Truth,
    /// One of these words.
    Word(fn() -> &'static [&'static str]),
    /// A list of these words.
    Words(fn() -> &'static [&'static str]),
    Segments,
    /// One of these words, or a list of texts.
    WordOrTexts(&'static [&'static str]),
    /// A table of texts.
    Renames,
    /// A list of lists of a whole number and a number.
    Pairs,
    Table(&'static [Key]),
    /// A table in braces, of these keys.
    Inner(&'static [Key]),
    Tables(&'static [Key]),
    /// A table of these keys.
    Shared(fn() -> &'static [Key]),
    /// Named tables of these keys.
    Named(fn() -> &'static [Key]),
}

/// A key of a table.
#[derive(Debug, Clone, Copy)]
struct Key {
    name: &'static str,
    kind: Kind,
    example: &'static str,
    is_needed: bool,
}

/// Returns a key that may be left out.
const fn key(name: &'static str, kind: Kind, example: &'static str) -> Key {
    Key { name, kind, example, is_needed: false }
}

/// Returns a key that must be there.
const fn needed(name: &'static str, kind: Kind, example: &'static str) -> Key {
    Key { name, kind, example, is_needed: true }
}

const SEGMENTS: &str = "[{ prompt = \"{{ question }}\" }, { target = \" {{ answer }}\" }]";
/// The place of the keys of a chat, in errors.
const IN_CHAT: &str = " in `chat`";
const DUPLICATES: Kind = Kind::Word(|| &["keep", "exact", "normalised"]);
const SPECIAL_IN_DATA: Kind = Kind::Word(|| &["text", "error"]);

const TOP: &[Key] = &[
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
    key("max_bad_fraction", Kind::Number, "0.05"),
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
const SOURCE: &[Key] = &[
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
    key("encoding", Kind::Word(Encoding::names), "\"windows-1252\""),
    key("segments", Kind::Segments, SEGMENTS),
    key("chat", Kind::Inner(CHAT), "{ messages = \"messages\" }"),
    key("epochs", Kind::Number, "2.0"),
    key("weight", Kind::Number, "1.0"),
    key("overflow", Kind::Word(|| &["split", "truncate", "drop", "error"]), "\"truncate\""),
    key("loss", Kind::Word(|| &["target_only", "full"]), "\"target_only\""),
    key("special_in_data", SPECIAL_IN_DATA, "\"text\""),
    key("duplicates", DUPLICATES, "\"exact\""),
    key("clean", Kind::Inner(CLEAN), "{ unicode = \"nfc\", invisible = \"remove\" }"),
    key("filter", Kind::Inner(FILTER), "{ min_words = 5, min_letters = 0.6 }"),
    key("max_bad_fraction", Kind::Number, "0.05"),
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

/// A fault in the text, its remedy, and its position.
struct Fault {
    message: String,
    remedy: String,
    span: Range<usize>,
}

type Checked = std::result::Result<(), Fault>;

/// Returns a fault.
fn fault(span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) -> Checked {
    Err(Fault { message: message.into(), remedy: remedy.into(), span })
}

/// Refuses a text that is no TOML, or that has a key or a value that `corpus.toml` does not know.
/// Errors name `file`.
pub(crate) fn check(text: &str, file: &str) -> Result<()> {
    let checked = match DeTable::parse(text) {
        Ok(table) => check_table(table.get_ref(), table.span(), TOP, "")
            .and_then(|()| check_templates(table.get_ref())),
        Err(error) => Err(not_toml(text, error.message(), error.span().unwrap_or(0..0))),
    };
    checked.map_err(|Fault { message, remedy, span }| {
        let line = 1 + text[..span.start.min(text.len())].matches('\n').count() as u64;
        Error::config(message).file(file).line(line).remedy(remedy)
    })
}

/// Returns the fault of a text that is no TOML.
fn not_toml(text: &str, message: &str, span: Range<usize>) -> Fault {
    let line = text[..span.start].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line..].lines().next().unwrap_or_default().trim();
    // The parser's own words for common mistakes do not say what to write instead.
    let (message, remedy) = if message.contains("duplicate key") {
        match line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            Some(name) if name.trim_start_matches('[').trim() == "source" => (
                "[source] is there twice".to_owned(),
                "write [[source]], brackets doubled, at the head of every source".to_owned(),
            ),
            Some(table) => (
                format!("the table [{table}] is there twice"),
                "put its keys under one of them".to_owned(),
            ),
            None => {
                let key = text.get(span.clone()).unwrap_or_default().trim();
                (
                    format!("the key `{key}` is there twice in its table"),
                    "keep one of them".to_owned(),
                )
            }
        }
    } else if message.contains("must be quoted") {
        ("a text without quotes".to_owned(), "put it in quotes: lang = \"yor\"".to_owned())
    } else {
        (
            format!("this line cannot be read as TOML: {message}"),
            "a key is written name = value, a text in quotes, a list in brackets; \
             [[source]] begins a source"
                .to_owned(),
        )
    };
    Fault { message, remedy, span }
}

/// Checks the keys of a table. `place` names the table in errors, for example ` under [pack]`.
fn check_table(
    table: &DeTable<'_>,
    span: Range<usize>,
    keys: &'static [Key],
    place: &str,
) -> Checked {
    // In order of the text, so that the first fault in the file is reported.
    let mut written: Vec<_> = table.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in written {
        match keys.iter().find(|key| key.name == &**name.get_ref()) {
            Some(key) => check_value(value, name.span(), key, place)?,
            None => return unknown_key(name.get_ref(), name.span(), keys, place),
        }
    }
    match keys.iter().find(|key| key.is_needed && !table.contains_key(key.name)) {
        Some(Key { name, example, .. }) => fault(
            span,
            format!("{} has no `{name}`", if place == IN_CHAT { "`chat`" } else { "a source" }),
            format!("give it one: {name} = {example}"),
        ),
        None => Ok(()),
    }
}

/// Checks that every source names a template that is there.
fn check_templates(table: &DeTable<'_>) -> Checked {
    let known: Vec<&str> = match table.get("template").map(Spanned::get_ref) {
        Some(DeValue::Table(templates)) => {
            templates.iter().map(|(name, _)| &**name.get_ref()).collect()
        }
        _ => Vec::new(),
    };
    let Some(DeValue::Array(sources)) = table.get("source").map(Spanned::get_ref) else {
        return Ok(());
    };
    for source in sources.iter().filter_map(|source| source.get_ref().as_table()) {
        let Some(named) = source.get("template") else { continue };
        let name = named.get_ref().as_str().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        if name.contains(['{', ' ']) {
            let message = "`template` names a [template.NAME]; this is the text of one";
            return fault(named.span(), message.to_owned(), format!("write segments = {SEGMENTS}"));
        }
        let remedy = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => {
                format!("write its keys below a line [template.{name}]")
            }
            None => format!("the templates here are {}", quoted(known.iter().copied())),
        };
        return fault(named.span(), format!("there is no [template.{name}]"), remedy);
    }
    Ok(())
}

/// Returns the fault of a key that is not known, with the most likely remedy.
fn unknown_key(name: &str, span: Range<usize>, keys: &[Key], place: &str) -> Checked {
    let elsewhere = |key: &&Key| match key.kind {
        Kind::Table(inner) | Kind::Tables(inner) => inner.iter().any(|inner| inner.name == name),
        _ => false,
    };
    let names = || keys.iter().map(|key| key.name);
    let is_own = ["name", "template", "files", "validation_files"].contains(&name);
    let remedy = match (nearest(name, names()), TOP.iter().find(elsewhere)) {
        // Of a source, and looked for where sources share their keys.
        _ if is_own && !place.is_empty() && SOURCE.iter().any(|key| key.name == name) => {
            "each source has its own: write it below its [[source]]".to_owned()
        }
        _ if ["prompt", "target"].contains(&name) => {
            format!("a source lists its segments: segments = {SEGMENTS}")
        }
        _ if name == "file" && place.contains("source") => "did you mean `files`?".to_owned(),
        (_, Some(Key { name: "source", .. })) => {
            "it is a key of a source: write it below its [[source]]".to_owned()
        }
        (_, Some(table)) => format!("it is a key of [{}]: write it there", table.name),
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, None) => format!("the keys here are {}", quoted(names())),
    };
    fault(span, format!("no key `{name}` is known{place}"), remedy)
}

/// Returns names in backquotes, separated by commas.
fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Checks the value of a known key.
fn check_value(
    value: &Spanned<DeValue<'_>>,
    name_span: Range<usize>,
    key: &Key,
    place: &str,
) -> Checked {
    let Key { name, example, .. } = key;
    // Every fault of a value is mended by the example of its key.
    let remedy = format!("write it as {name} = {example}");
    let refuse = |what: &str| {
        let message = format!("`{name}`{place} takes {what}, not {}", described(value.get_ref()));
        fault(value.span(), message, remedy.clone())
    };
    match (key.kind, value.get_ref()) {
        (Kind::Word(words), DeValue::String(text)) => {
            check_word(text, words(), value.span(), &format!("`{name}`{place}"))
        }
        (Kind::Whole, DeValue::Integer(number)) => match whole(number) {
            Some(_) => Ok(()),
            None => refuse("a whole number, 0 or above and not too large"),
        },
        (Kind::Whole, _) => refuse("a whole number"),
        // An integer is a number as well: `temperature = 2` is what people write.
        (Kind::Number, DeValue::Integer(number))
            if i64::from_str_radix(number.as_str(), number.radix()).is_ok() =>
        {
            Ok(())
        }
        (Kind::Text | Kind::Files, DeValue::String(_))
        | (Kind::Number, DeValue::Float(_))
        | (Kind::Truth, DeValue::Boolean(_)) => Ok(()),
        (Kind::Text | Kind::Word(_), _) => refuse("a text in quotes"),
        (Kind::Number, _) => refuse("a number"),
        (Kind::Truth, _) => refuse("true or false"),
        (Kind::Files, DeValue::Table(sides)) => {
            let is_text = |text: &Spanned<DeValue<'_>>| text.get_ref().is_str();
            let is_side = |value: &DeValue<'_>| match value {
                DeValue::Array(texts) => texts.iter().all(is_text),
                value => value.is_str(),
            };
            match sides.iter().find(|(_, side)| !is_side(side.get_ref())) {
                None => Ok(()),
                Some((field, side)) => {
                    let field = field.get_ref();
                    let found = described(side.get_ref());
                    let message = format!("`{name}`{place} names {found} for '{field}'");
                    let remedy =
                        format!("write {name} = {{ en = \"train.en\", yo = \"train.yo\" }}");
                    fault(side.span(), message, remedy)
                }
            }
        }
        (Kind::Texts | Kind::Files | Kind::Words(_), DeValue::Array(texts)) => {
            match texts.iter().find(|text| !text.get_ref().is_str()) {
                None => check_words(texts, key.kind, &format!("`{name}`{place}")),
                Some(other) => {
                    let found = described(other.get_ref());
                    let message = format!("`{name}`{place} lists texts in quotes, not {found}");
                    fault(other.span(), message, remedy.clone())
                }
            }
        }
        (Kind::Renames, DeValue::Table(names)) => {
            match names.iter().find(|(_, new)| !new.get_ref().is_str()) {
                None => Ok(()),
                Some((old, new)) => {
                    let (old, found) = (old.get_ref(), described(new.get_ref()));
                    let message = format!("`{name}`{place} gives '{old}' {found}, not a name");
                    fault(new.span(), message, remedy.clone())
                }
            }
        }
        (Kind::WordOrTexts(words), DeValue::String(text)) => {
            check_word(text, words, value.span(), &format!("`{name}`{place}"))
        }
        (Kind::WordOrTexts(_), DeValue::Array(texts))
            if texts.iter().all(|text| text.get_ref().is_str()) =>
        {
            Ok(())
        }
        (Kind::WordOrTexts(_), _) => refuse("a word in quotes, or a list of texts in brackets"),
        (Kind::Renames, _) => refuse("a table in braces, the old names before the new ones"),
        (Kind::Texts | Kind::Words(_), _) => refuse("a list of texts in brackets"),
        (Kind::Files, _) => refuse("a text in quotes, or a list of them in brackets"),
        (Kind::Segments, DeValue::Array(segments)) => segments.iter().try_for_each(check_segment),
        (Kind::Segments, _) => refuse("a list in brackets, a table in braces for each segment"),
        (Kind::Inner(keys), DeValue::Table(table)) => {
            check_table(table, name_span, keys, &format!(" in `{name}`"))
        }
        (Kind::Inner(_), _) => refuse("a table in braces"),
        (Kind::Pairs, DeValue::Array(pairs)) if pairs.iter().all(is_pair) => Ok(()),
        (Kind::Pairs, _) => refuse("a list of pairs in brackets"),
        (Kind::Table(_) | Kind::Tables(_) | Kind::Shared(_) | Kind::Named(_), _) => {
            check_section(value, name_span, key)
        }
    }
}

/// Returns whether a value is a list of a whole number, 0 or above, and a number.
fn is_pair(value: &Spanned<DeValue<'_>>) -> bool {
    let DeValue::Array(pair) = value.get_ref() else { return false };
    let mut values = pair.iter();
    let (Some(first), Some(second), None) = (values.next(), values.next(), values.next()) else {
        return false;
    };
    matches!(first.get_ref(), DeValue::Integer(number) if whole(number).is_some())
        && matches!(second.get_ref(), DeValue::Integer(_) | DeValue::Float(_))
}

/// Checks that a text is one of `words`. `key` names its key in errors.
fn check_word(text: &str, words: &[&str], span: Range<usize>, key: &str) -> Checked {
    if words.contains(&text) {
        return Ok(());
    }
    let known = words.join(", ");
    let remedy = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write one of {known}"),
    };
    fault(span, format!("{key} cannot be \"{text}\": it is one of {known}"), remedy)
}

/// Checks that each of some texts is a word of `kind`, if it is a list of words.
fn check_words(texts: &[Spanned<DeValue<'_>>], kind: Kind, key: &str) -> Checked {
    let Kind::Words(words) = kind else { return Ok(()) };
    let mut listed = texts.iter().filter_map(|text| Some((text.get_ref().as_str()?, text.span())));
    listed.try_for_each(|(text, span)| check_word(text, words(), span, key))
}

/// Checks the value of a key that is a table, or a list of tables.
fn check_section(value: &Spanned<DeValue<'_>>, name_span: Range<usize>, key: &Key) -> Checked {
    let name = key.name;
    match (key.kind, value.get_ref()) {
        (Kind::Table(keys), DeValue::Table(table)) => {
            check_table(table, name_span, keys, &format!(" under [{name}]"))
        }
        (Kind::Shared(keys), DeValue::Table(table)) => {
            check_table(table, name_span, keys(), &format!(" under [{name}]"))
        }
        (Kind::Named(keys), DeValue::Table(tables)) => check_named(tables, name, keys()),
        (Kind::Named(_), other) => fault(
            value.span(),
            format!("`{name}` is a table of named tables, not {}", described(other)),
            format!("write [{name}.NAME] on a line of its own, and its keys below it"),
        ),
        (Kind::Tables(keys), DeValue::Array(tables)) => {
            tables.iter().try_for_each(|table| match table.get_ref() {
                DeValue::Table(inner) => check_table(inner, table.span(), keys, " in a [[source]]"),
                other => fault(
                    table.span(),
                    format!("a source is a table, not {}", described(other)),
                    "write [[source]] on a line of its own, and the source's keys below it",
                ),
            })
        }
        (Kind::Tables(_), _) => fault(
            name_span,
            format!("[{name}] is one table; sources are a list"),
            format!("write [[{name}]], brackets doubled, at the head of every source"),
        ),
        (_, other) => {
            let remedy = format!("write [{name}] on a line of its own, and its keys below it");
            fault(value.span(), format!("`{name}` is a table, not {}", described(other)), remedy)
        }
    }
}

/// Checks the tables of `section`, each with a name of its own.
fn check_named(tables: &DeTable<'_>, section: &str, keys: &'static [Key]) -> Checked {
    let mut written: Vec<_> = tables.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, table) in written {
        let place = format!("[{section}.{}]", name.get_ref());
        match table.get_ref() {
            DeValue::Table(inner) => {
                check_table(inner, name.span(), keys, &format!(" under {place}"))?;
            }
            other => {
                return fault(
                    name.span(),
                    format!("{place} is a table, not {}", described(other)),
                    format!("write [{section}.NAME] on a line of its own, and its keys below it"),
                );
            }
        }
    }
    Ok(())
}

/// Checks that a segment has one prompt or one target.
fn check_segment(segment: &Spanned<DeValue<'_>>) -> Checked {
    let remedy = || format!("a segment is one prompt or one target: segments = {SEGMENTS}");
    let DeValue::Table(table) = segment.get_ref() else {
        return fault(
            segment.span(),
            format!("a segment is a table in braces, not {}", described(segment.get_ref())),
            remedy(),
        );
    };
    let mut written: Vec<_> = table.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, template) in &written {
        let part = &**name.get_ref();
        // A segment has one key of two: a third is most likely a misspelled one.
        if !["prompt", "target"].contains(&part) {
            let near = nearest(part, ["prompt", "target"].into_iter());
            let remedy = near.map_or_else(remedy, |near| format!("did you mean `{near}`?"));
            return fault(name.span(), format!("no key `{part}` is known in a segment"), remedy);
        }
        if !template.get_ref().is_str() {
            let message = format!(
                "`{part}` takes a template in quotes, not {}",
                described(template.get_ref())
            );
            return fault(template.span(), message, remedy());
        }
    }
    // Two keys would leave the order of prompt and target open.
    match written.len() {
        1 => Ok(()),
        0 => fault(segment.span(), "a segment is empty", remedy()),
        _ => fault(
            segment.span(),
            "a segment holds both `prompt` and `target`",
            remedy().replacen("a segment", "each segment", 1),
        ),
    }
}

/// Returns the value of a whole number, 0 or above; none if it is negative or too large.
fn whole(number: &DeInteger<'_>) -> Option<u64> {
    let (digits, radix) = (number.as_str(), number.radix());
    // TOML's integers are signed; larger seeds are accepted as well.
    let signed = i64::from_str_radix(digits, radix).ok().and_then(|value| value.try_into().ok());
    signed.or_else(|| u64::from_str_radix(digits, radix).ok())
}

/// Returns a value as an error names it.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 40 => "a text".to_owned(),
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;
    use crate::plan::PlanSpec;

    /// Returns the names in backquotes of serde's "expected one of `a`, `b`".
    fn expected(text: &str) -> Vec<String> {
        let error = toml::from_str::<PlanSpec>(text).unwrap_err();
        let list = error.message().split_once("expected ").unwrap().1.to_owned();
        let list = list.lines().next().unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    const NEEDED: &str = "name = 'a'\nfiles = []\n";

    fn listed_as_serde_has_them(keys: &'static [Key], head: &str) {
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        assert_eq!(names, expected(&format!("{head}no_such_key = 1\n")));
        for Key { name, kind, example, .. } in keys {
            let others: String = NEEDED
                .lines()
                .filter(|line| head.ends_with("]]\n") && !line.starts_with(name))
                .fold(String::new(), |all, line| all + line + "\n");
            match kind {
                Kind::Word(words) | Kind::Words(words) => {
                    let wrong =
                        if matches!(kind, Kind::Words(_)) { "['no word']" } else { "'no word'" };
                    let mut known = expected(&format!("{head}{others}{name} = {wrong}\n"));
                    known.sort();
                    let mut words = words().to_vec();
                    words.sort_unstable();
                    assert_eq!(words, known, "{name}");
                }
                Kind::Table(inner) => listed_as_serde_has_them(inner, &format!("[{name}]\n")),
                Kind::Inner(inner) => {
                    let table = head.rsplit('[').next().unwrap_or_default();
                    let table = table.trim_end_matches(['\n', ']']);
                    let head = format!("{head}{others}[{table}.{name}]\n");
                    listed_as_serde_has_them(inner, &head);
                }
                Kind::Tables(inner) => listed_as_serde_has_them(inner, &format!("[[{name}]]\n")),
                _ => {}
            }
            if !example.is_empty() {
                let text = format!("{head}{others}{name} = {example}\n[template.sum]\n");
                check(&text, "corpus.toml").unwrap();
                toml::from_str::<PlanSpec>(&text).unwrap();
            }
        }
    }

    #[test]
    fn keys_and_words_are_those_that_serde_knows() {
        listed_as_serde_has_them(TOP, "");
    }

    #[test]
    fn what_was_written_wrong_is_named_with_its_line_and_a_remedy() {
        let source = "[[source]]\nname = 'a'\nfiles = ['a']\n";
        for (text, line, message, remedy) in [
            (
                "[source]\nname = 'a'\n[source]\nname = 'b'\n",
                3,
                "[source] is there twice",
                "[[source]]",
            ),
            ("[source]\nname = 'a'\n", 1, "[source] is one table", "[[source]]"),
            ("[pack]\nseq_len = 64\n[pack]\nseed = 1\n", 3, "[pack] is there twice", "under one"),
            ("[pack]\nseed = 2\nseed = 1\n", 3, "`seed` is there twice", "keep one"),
            (
                "[pack]\nseq_len = -64\n",
                2,
                "`seq_len` under [pack] takes a whole number, 0 or above",
                "seq_len = 2048",
            ),
            ("[pack]\nseed = 99999999999999999999\n", 2, "99999999999999999999", "seed = 0"),
            ("[pack]\nseq_len = 64.0\n", 2, "not the number 64.0", "seq_len = 2048"),
            ("[pack]\nvalidation = true\n", 2, "takes a number, not true", "validation = 0.01"),
            ("[pack]\ndecontaminate = 'a'\n", 2, "a list of texts", "decontaminate = ["),
            (
                "[pack]\npack = 'bestfit'\n",
                2,
                "cannot be \"bestfit\"",
                "did you mean \"best_fit\"?",
            ),
            ("seq_len = 64\n", 1, "no key `seq_len`", "a key of [pack]"),
            (
                "[tokenizer]\nweight = 1\n",
                2,
                "no key `weight` is known under [tokenizer]",
                "below its [[source]]",
            ),
            ("mix = 'task'\n", 1, "`mix` is a table", "[mix]"),
            ("source = ['a']\n", 1, "a source is a table", "[[source]]"),
            ("[[source]]\nname = 'a'\n", 1, "a source has no `files`", "files = ["),
            ("[[source]\n", 1, "cannot be read as TOML", "[[source]]"),
            ("[pack]\nx = y\n", 2, "without quotes", "quotes"),
            ("[defaults]\nfiles = ['a']\n", 2, "under [defaults]", "each source has its own"),
            ("[defaults]\nlnag = 'a'\n", 2, "no key `lnag`", "did you mean `lang`?"),
            ("[template.t]\nname = 'a'\n", 2, "under [template.t]", "each source has its own"),
            ("[template.t]\nlang = 1\n", 2, "`lang` under [template.t]", "lang = \"yor\""),
            ("[template]\nlang = 'a'\n", 2, "[template.lang] is a table", "[template.NAME]"),
            ("template = 'a'\n", 1, "a table of named tables", "[template.NAME]"),
            (
                "[template.sum]\nlang = 'a'\n[[source]]\nname = 'a'\nfiles = ['a']\n\
                 template = 'sun'\n",
                6,
                "no [template.sun]",
                "did you mean \"sum\"?",
            ),
        ] {
            let error = check(text, "corpus.toml").unwrap_err();
            assert_eq!(error.place, Some(Place::Line(line)), "{error}");
            assert!(error.message.contains(message), "{error}");
            assert!(error.remedy.as_ref().unwrap().contains(remedy), "{error}");
        }
        for (added, message, remedy) in [
            (
                "segments = [{ prompt = 'x', target = 'y' }]",
                "holds both `prompt` and `target`",
                "{ target =",
            ),
            ("segments = [{}]", "a segment is empty", "one prompt or one target"),
            (
                "segments = ['x']",
                "a segment is a table in braces, not the text \"x\"",
                "one prompt or one target",
            ),
            ("segments = [{ prompt = 1 }]", "`prompt` takes a template in quotes", "{ prompt ="),
            ("segments = [{ promt = 'x' }]", "no key `promt`", "did you mean `prompt`?"),
            ("prompt = 'x'", "no key `prompt`", "segments = ["),
            ("template = 't'", "no [template.t]", "below a line [template.t]"),
            ("template = '{{ text }}'", "this is the text of one", "segments = ["),
            ("epochs = 2020-01-01", "not a date", "epochs = 2.0"),
            ("lang = 1", "a text in quotes, not the number 1", "lang = \"yor\""),
            ("header = 'yes'", "true or false, not the text \"yes\"", "header = true"),
            ("rename = ['a']", "a table in braces", "{ \"Tweet text\" = \"tweet\" }"),
            ("rename = { 'a b' = 1 }", "gives 'a b' the number 1, not a name", "rename = {"),
            ("columns = [1]", "lists texts in quotes, not the number 1", "columns = ["),
        ] {
            let error = check(&format!("{source}{added}\n"), "corpus.toml").unwrap_err();
            assert_eq!(error.place, Some(Place::Line(4)), "{error}");
            assert!(
                error.message.contains(message) && error.remedy.as_ref().unwrap().contains(remedy),
                "{error}"
            );
        }
    }
}
