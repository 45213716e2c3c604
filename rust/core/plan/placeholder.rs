//! `{lang}` in the name, the task and the templates of a source: replaced by a language.

use unicode_normalization::char::is_combining_mark;

use super::SegmentSpec;
use crate::error::{Error, Result};

/// The placeholder of a language.
pub(super) const LANG: &str = "{lang}";
/// The most characters of a template in an error.
const SHOWN: usize = 80;

/// Returns whether a language may hold `c` where a template shows it.
pub(super) fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-' || is_combining_mark(c)
}

/// Returns the name of the source that reads `lang` of the source named `name`.
pub(super) fn name_of(name: &str, lang: &str) -> String {
    if name.contains(LANG) { in_text(name, lang) } else { format!("{name}-{lang}") }
}

/// Puts a language into a text that is no template.
pub(super) fn in_text(text: &str, lang: &str) -> String {
    text.replace(LANG, lang)
}

/// Puts a language into templates.
pub(super) fn in_segments(segments: &[SegmentSpec], lang: &str) -> Result<Vec<SegmentSpec>> {
    let replaced = |segment: &SegmentSpec| {
        let template = in_template(segment.template(), lang)?;
        Ok(match segment {
            SegmentSpec::Prompt(_) => SegmentSpec::Prompt(template),
            SegmentSpec::Target(_) => SegmentSpec::Target(template),
        })
    };
    segments.iter().map(replaced).collect()
}

/// Returns the text of a template that stands outside its tags.
pub(super) fn outside_tags(template: &str) -> String {
    let (mut out, mut rest) = (String::new(), template);
    while let Some(start) = ["{{", "{%"].into_iter().filter_map(|open| rest.find(open)).min() {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let close = if tag.starts_with("{{") { "}}" } else { "%}" };
        let Some(end) = tag.find(close) else { return out };
        rest = &tag[end + close.len()..];
    }
    out + rest
}

/// The part of a template that a position lies in.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Text of the template.
    Text,
    /// The inside of a tag.
    Tag,
    /// A string inside a tag, between two of this quote.
    Quoted(char),
}

/// Puts a language into a template. `{{lang}}` is no placeholder: it shows the field `lang`.
pub(super) fn in_template(template: &str, lang: &str) -> Result<String> {
    let (mut out, mut rest, mut place) = (String::new(), template, Place::Text);
    while let Some(next) = rest.chars().next() {
        let opens = rest.starts_with("{{") || rest.starts_with("{%");
        let closes = rest.starts_with("}}") || rest.starts_with("%}");
        let taken = match place {
            Place::Text if opens => {
                place = Place::Tag;
                2
            }
            _ if rest.starts_with(LANG) => {
                refuse_unsafe(template, lang, place, &out)?;
                out.push_str(lang);
                rest = &rest[LANG.len()..];
                continue;
            }
            Place::Tag if closes => {
                place = Place::Text;
                2
            }
            Place::Tag if matches!(next, '"' | '\'') => {
                place = Place::Quoted(next);
                1
            }
            Place::Quoted(quote) if next == quote => {
                place = Place::Tag;
                1
            }
            Place::Quoted(_) if next == '\\' => {
                1 + rest[1..].chars().next().map_or(0, char::len_utf8)
            }
            _ => next.len_utf8(),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Ok(out)
}

/// Refuses a language that would not be the text of its template after `before`, or no name there.
fn refuse_unsafe(template: &str, lang: &str, place: Place, before: &str) -> Result<()> {
    if lang.is_empty() || !lang.chars().all(is_plain) {
        return Err(Error::config(format!(
            "the language {lang:?} cannot stand for {LANG} in the template `{}`",
            shortened(template)
        ))
        .remedy("only letters, digits, `_` and `-` can: mend the data, or leave {lang} out"));
    }
    let is_name = |c: char| c != '-' && is_plain(c);
    let goes_on = before.ends_with(is_name);
    let begins = lang.starts_with(|c: char| !c.is_numeric()) || goes_on;
    if place != Place::Tag || (begins && lang.chars().all(is_name)) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the language {lang} is no name that the template `{}` could hold after a dot",
        shortened(template)
    ))
    .remedy("name the field in quotes: {{ translation[\"{lang}\"] }}, {{ record[\"{lang}\"] }}"))
}

/// Returns a template cut to the length that an error shows.
fn shortened(template: &str) -> String {
    let mut chars = template.chars();
    let first: String = chars.by_ref().take(SHOWN).collect();
    if chars.next().is_some() { first + "…" } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_stands_in_text_tags_and_strings() {
        for (template, expected) in [
            ("<{lang}> {{ a.{lang} }}", "<yor> {{ a.yor }}"),
            ("{{a[\"{lang}\"]}}{{lang}}{{ lang }}", "{{a[\"yor\"]}}{{lang}}{{ lang }}"),
            ("{{ {lang}_text }}{{{lang}}}", "{{ yor_text }}{{yor}}"),
            ("{% if x == '\\'{lang}' %}{lang}{% endif %}", "{% if x == '\\'yor' %}yor{% endif %}"),
            ("{ lang } {lang {{ '}}' ~ {lang} }}", "{ lang } {lang {{ '}}' ~ yor }}"),
        ] {
            assert_eq!(in_template(template, "yor").unwrap(), expected);
        }
    }

    #[test]
    fn a_language_that_is_no_name_is_quoted_or_refused() {
        assert_eq!(
            in_template("{{ a[\"{lang}\"] }}", "yor-Latn").unwrap(),
            "{{ a[\"yor-Latn\"] }}"
        );
        assert_eq!(in_template("<{lang}>{{ a_{lang} }}", "2x").unwrap(), "<2x>{{ a_2x }}");
        for (template, lang) in [
            ("{{ a.{lang} }}", "yor-Latn"),
            ("{{ a.{lang} }}", "2x"),
            ("{% for x in {lang} %}", "a-b"),
            ("<{lang}>", "a b"),
            ("{{ a[\"{lang}\"] }}", "\"] }}{{ b"),
        ] {
            let error = in_template(template, lang).unwrap_err();
            assert!(error.remedy.unwrap().contains("{lang}"), "{template}");
        }
    }
}
