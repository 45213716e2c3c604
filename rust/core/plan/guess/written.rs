//! Writes a guess as the text of a `corpus.toml`, which says the same.

use std::fmt::Write;

use super::Guess;
use super::source::{GuessedSource, Unrecognised};
use crate::plan::SegmentSpec;
use crate::plan::files::{Files, Patterns};
use crate::read::{Encoding, TextUnit};

/// The letters that a line of names may have.
const LINE: usize = 90;

/// The templates of fields that are not known, to be filled in.
const OPEN: &str = "segments = [{ prompt = \"{{ … }}\\n\\n\" }, { target = \"{{ … }}\" }]";
/// The field with the spans of `CoNLL`, and templates that write them.
const ENTITIES: &str = "entities";
const SPANS: &str = "segments = [{ prompt = \"{{ text }}\\n\\n\" }, { target = \"{% for e in entities %}\
    {{ e.type }}: {{ e.text }}; {% else %}none{% endfor %}\" }]";

/// Returns a guess as the text of a `corpus.toml`. With `comments`, also for a person to go on with.
pub(super) fn text_of(guess: &Guess, comments: bool) -> String {
    let mut out = String::new();
    if comments {
        out += "# Guessed by `sabiprep init` from the files of this folder. Look at it with\n\
                # `sabiprep plan`, edit it, and pack. Every key: docs/configuration.md\n\n";
    }
    write_tokenizer(guess, comments, &mut out);
    if comments {
        out += "# [pack]\n# seq_len = 2048      # tokens in a row\n\
                # validation = 0.01   # the share of the records that is held out\n\n";
    }
    for source in &guess.sources {
        write_source(source, comments, &mut out);
    }
    if comments {
        guess.to_fill_in.iter().for_each(|file| write_unrecognised(file, &mut out));
        for sentence in &guess.passed_over {
            line(&mut out, &format!("# {}", on_one_line(sentence)));
        }
    }
    out
}

/// Appends a line.
fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Writes `[tokenizer]`.
fn write_tokenizer(guess: &Guess, comments: bool, out: &mut String) {
    if guess.tokenizer.is_none() && guess.eos.is_none() && !comments {
        return;
    }
    line(out, "[tokenizer]");
    match &guess.tokenizer {
        Some(file) => line(out, &format!("file = {}", quoted(file))),
        None if comments => line(out, "# file = \"tokenizer.json\"   # or --tokenizer FILE"),
        None => {}
    }
    match &guess.eos {
        Some(eos) => line(out, &format!("eos = {}", quoted(eos))),
        None if comments => line(out, "# eos = \"</s>\"   # the token that closes every document"),
        None => {}
    }
    out.push('\n');
}

/// Writes a source.
fn write_source(source: &GuessedSource, comments: bool, out: &mut String) {
    if comments {
        line(out, &format!("# {}", on_one_line(&source.understood)));
    }
    line(out, "[[source]]");
    line(out, &format!("name = {}", quoted(&source.name)));
    line(out, &format!("task = {}", quoted(&source.task)));
    match &source.lang {
        Some(lang) => line(out, &format!("lang = {}", quoted(lang))),
        None if source.is_open() => {}
        None if comments => line(out, "# lang = \"yor\"   # no name tells the language"),
        None => {}
    }
    write_files("files", &source.files, out);
    if !source.validation_files.is_empty() {
        write_files("validation_files", &source.validation_files, out);
    }
    if source.unit == Some(TextUnit::File) {
        line(out, "unit = \"file\"");
    }
    write_reading(source.encoding, &source.labels, out);
    if let Some(chat) = &source.chat {
        let tools = if chat.tools { ", tools = \"tools\"" } else { "" };
        if comments {
            line(out, "# Or by name, where the tokenizer has no template: template = \"chatml\"");
        }
        line(out, &format!("chat = {{ messages = {}{tools} }}", quoted(chat.messages)));
    }
    if let Some(segments) = &source.segments {
        line(out, "segments = [");
        for segment in segments {
            let (key, template) = match segment {
                SegmentSpec::Prompt(template) => ("prompt", template),
                SegmentSpec::Target(template) => ("target", template),
            };
            // A template's last end of line is dropped, so that a prompt that ends with one has two.
            line(out, &format!("  {{ {key} = {} }},", quoted(template)));
        }
        line(out, "]");
    }
    out.push('\n');
}

/// Writes how files are read, where they need it.
fn write_reading(encoding: Option<Encoding>, labels: &[String], out: &mut String) {
    if let Some(encoding) = encoding {
        line(out, &format!("encoding = {}", quoted(encoding.name())));
    }
    if !labels.is_empty() {
        let fields: Vec<String> = labels.iter().map(|field| quoted(field)).collect();
        line(out, &format!("labels = [{}]", fields.join(", ")));
    }
}

/// Writes files: a list, or a list for each field of parallel text.
fn write_files(key: &str, files: &Files, out: &mut String) {
    let Files::Sides(sides) = files else { return write_list(key, files.patterns(None), out) };
    let one = |(field, patterns): (&String, &Patterns)| match patterns {
        Patterns::One(file) => Some(format!("{} = {}", bare_or_quoted(field), quoted(file))),
        Patterns::Many(_) => None,
    };
    let all: Option<Vec<String>> = sides.iter().map(one).collect();
    let all = all.map(|all| format!("{key} = {{ {} }}", all.join(", ")));
    match all.filter(|all| all.len() < LINE) {
        Some(all) => line(out, &all),
        None => {
            for field in files.fields().into_iter().flatten() {
                let key = format!("{key}.{}", bare_or_quoted(&field));
                write_list(&key, files.patterns(Some(&field)), out);
            }
        }
    }
}

/// Returns a key, in quotes if TOML needs them.
fn bare_or_quoted(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if key.bytes().all(is_bare) { key.to_owned() } else { quoted(key) }
}

/// Writes a list of files, on one line if it is short.
fn write_list(key: &str, files: &[String], out: &mut String) {
    let names: Vec<String> = files.iter().map(|file| quoted(file)).collect();
    if names.iter().map(String::len).sum::<usize>() + 2 * names.len() + key.len() < LINE {
        return line(out, &format!("{key} = [{}]", names.join(", ")));
    }
    line(out, &format!("{key} = ["));
    for name in &names {
        line(out, &format!("  {name},"));
    }
    line(out, "]");
}

/// Writes files that were not recognised as a source commented out, to be filled in.
fn write_unrecognised(file: &Unrecognised, out: &mut String) {
    let why = if file.why.is_empty() { "no shape of it is known" } else { &file.why };
    line(out, &format!("# Not recognised: {}", on_one_line(why)));
    if !file.fields.is_empty() {
        line(out, &format!("# Its fields: {}", on_one_line(&file.fields.join(", "))));
        line(out, "# Say what is given and what is trained, and remove the marks of comment:");
    }
    let mut source = String::new();
    line(&mut source, "[[source]]");
    line(&mut source, &format!("name = {}", quoted(&file.name)));
    if let Some(lang) = &file.lang {
        line(&mut source, &format!("lang = {}", quoted(lang)));
    }
    write_list("files", &file.files, &mut source);
    write_reading(file.encoding, &file.labels, &mut source);
    if let Some(format) = file.format {
        line(&mut source, &format!("format = {}", quoted(format)));
    }
    line(&mut source, if file.fields.iter().any(|field| field == ENTITIES) { SPANS } else { OPEN });
    source.lines().for_each(|text| line(out, &format!("# {text}")));
    out.push('\n');
}

/// Returns a text on one line, for a comment: control characters become spaces.
fn on_one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// Returns a text as TOML quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            char if char.is_control() => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}
