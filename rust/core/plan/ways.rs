//! The ways from a record to its text: segments, a chat, tagged text, several templates. A source
//! has one of them.

use super::{SegmentSpec, SourceSpec, TaggedSpec};
use crate::error::{Error, Result};
use crate::read::{FormatName, field_path};
use crate::schema::{LossPolicy, Overflow};

/// The name of the element of a list that `each` takes apart.
pub(crate) const ITEM: &str = "item";

/// Checks the way of a source. Returns its segments, as given or by default, which are those `made`
/// for its `augment`, if there are any; none for other ways.
pub(super) fn resolve_ways(
    spec: &SourceSpec,
    made: Option<Vec<SegmentSpec>>,
    format: FormatName,
) -> Result<Vec<SegmentSpec>> {
    let ways = [
        ("segments", spec.segments.is_some()),
        ("chat", spec.chat.is_some()),
        ("tagged", spec.tagged.is_some()),
        ("templates", spec.templates.is_some()),
    ];
    let given: Vec<&str> = ways.iter().filter(|(_, is_given)| *is_given).map(|way| way.0).collect();
    if let [first, second, ..] = given[..] {
        return Err(two_ways(first, second));
    }
    refuse_beside_augment(spec)?;
    refuse_beside_spans(spec)?;
    spec.tagged.as_ref().map_or(Ok(()), TaggedSpec::check)?;
    refuse_condition(spec.when.as_deref())?;
    refuse_list(spec.each.as_deref())?;
    refuse_same_text(spec)?;
    refuse_templates(spec)?;
    match given[..] {
        [] | ["segments"] => resolve_segments(spec.segments.clone().or(made), format),
        _ => Ok(Vec::new()),
    }
}

/// Returns the error of a source with two ways from its records to text.
fn two_ways(first: &str, second: &str) -> Error {
    let what = format!("has both `{first}` and `{second}`");
    let remedy = match second {
        "chat" => "`chat` makes the whole text of a conversation: leave out one of them",
        "tagged" => "`tagged` takes a text whose tags stand in it: leave out one of them",
        _ => "each of `templates` has segments of its own: leave out one of them",
    };
    Error::config(what).remedy(remedy)
}

/// Refuses an `augment` of a source whose text is found in another way.
fn refuse_beside_augment(spec: &SourceSpec) -> Result<()> {
    let others = [
        (spec.chat.is_some(), "chat", "`chat` makes the whole text of a conversation"),
        (spec.tagged.is_some(), "tagged", "`tagged` takes a text whose tags stand in it"),
        (spec.templates.is_some(), "templates", "a made task has one template, its `segments`"),
        (spec.each.is_some(), "each", "a task is made of one text of a record"),
    ];
    refuse_beside("augment", spec.augment.is_some(), &others)
}

/// Refuses spans of a source in which another key chooses what is trained.
fn refuse_beside_spans(spec: &SourceSpec) -> Result<()> {
    let others = [
        (
            spec.chat.is_some(),
            "chat",
            "spans are of a target's text; of a conversation, `train_on` chooses the messages",
        ),
        (spec.augment.is_some(), "augment", "a made task trains its own target"),
        (spec.tagged.is_some(), "tagged", "`tagged` trains what follows the action tag"),
        (spec.templates.is_some(), "templates", "spans are of the text of one template"),
        (spec.each.is_some(), "each", "spans are of one text of a record"),
    ];
    refuse_beside("spans", spec.spans.is_some(), &others)?;
    match spec.loss {
        Some(loss) if spec.spans.is_some() && loss != LossPolicy::TargetOnly => {
            Err(Error::config("has `spans`, and a `loss` that trains other text")
                .remedy("leave out `loss`: nothing but the spans and the closing EOS is trained"))
        }
        _ => Ok(()),
    }
}

/// Refuses `key`, if it is given, beside the first of other keys that is: whether it is, its name,
/// and why the two exclude each other.
fn refuse_beside(key: &str, is_given: bool, others: &[(bool, &str, &str)]) -> Result<()> {
    match others.iter().find(|(is_other, ..)| is_given && *is_other) {
        Some((_, other, why)) => Err(Error::config(format!("has both `{key}` and `{other}`"))
            .remedy(format!("{why}: leave out one of them"))),
        None => Ok(()),
    }
}

/// Refuses a `when` that is more or less than one expression.
fn refuse_condition(when: Option<&str>) -> Result<()> {
    let Some(when) = when else { return Ok(()) };
    let inner = when.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    if inner.is_some_and(|inner| !inner.trim().is_empty() && !inner.contains("{{")) {
        return Ok(());
    }
    let expression = when.trim_matches(['{', '}', '%', ' ']);
    let expression = expression.strip_prefix("if ").unwrap_or(expression);
    let expression = if expression.is_empty() { "rating > 3" } else { expression };
    Err(Error::config(format!("when = {when:?} is not one expression in two braces")).remedy(
        format!("write when = \"{{{{ {expression} }}}}\": a document is made where it is true"),
    ))
}

/// Refuses an `each` that names no field.
fn refuse_list(each: Option<&str>) -> Result<()> {
    match each {
        Some(each) if field_path(each).is_none() => {
            Err(Error::config(format!("each = {each:?} is no field"))
                .remedy("name a field that holds a list: each = \"answers\" or \"data.answers\""))
        }
        _ => Ok(()),
    }
}

/// Refuses a `chat` or `tagged` that would read the same text for each element of a list.
fn refuse_same_text(spec: &SourceSpec) -> Result<()> {
    let Some(each) = &spec.each else { return Ok(()) };
    let chat = spec.chat.as_ref().map(|chat| ("chat", "messages", &chat.messages));
    let tagged = spec.tagged.as_ref().map(|tagged| ("tagged", "text", &tagged.text));
    let Some((way, key, field)) = chat.or(tagged) else { return Ok(()) };
    if field_path(field).is_none_or(|path| path[0] == ITEM) {
        return Ok(());
    }
    Err(Error::config(format!(
        "`each` takes `{each}` apart, and `{way}` reads `{field}` beside it"
    ))
    .remedy(format!(
        "an element is called `{ITEM}`: {way} = {{ {key} = \"{ITEM}\" }}, or \"{ITEM}.{field}\" \
             where it is an object"
    )))
}

/// Refuses templates that could not be chosen or trained, and a choice among none.
fn refuse_templates(spec: &SourceSpec) -> Result<()> {
    let Some(templates) = &spec.templates else {
        return match spec.choose {
            Some(_) => Err(Error::config("has `choose` without `templates`")
                .remedy("list what is chosen from: templates = [[{ prompt = \"…\" }, …], […]]")),
            None => Ok(()),
        };
    };
    if templates.is_empty() {
        return Err(Error::config("`templates` is an empty list")
            .remedy("list the segments of each: templates = [[{ prompt = \"…\" }, …], […]]"));
    }
    (0..).zip(templates).try_for_each(|(nth, segments)| {
        refuse_no_target(segments, &format!("template {}", nth + 1))
    })
}

/// Returns whether every segment is a target.
pub(super) fn all_plain(segments: &[SegmentSpec], templates: &[Vec<SegmentSpec>]) -> bool {
    let mut all = segments.iter().chain(templates.iter().flatten());
    all.all(|segment| matches!(segment, SegmentSpec::Target(_)))
}

/// Returns the segments as given, or the default segment of the format.
fn resolve_segments(
    segments: Option<Vec<SegmentSpec>>,
    format: FormatName,
) -> Result<Vec<SegmentSpec>> {
    let segments = match (segments, format.get().default_target()) {
        (Some(segments), _) => segments,
        (None, Some(target)) => vec![SegmentSpec::Target(target.to_owned())],
        (None, None) => {
            return Err(Error::config("has no `segments`").remedy(
                "say what is given and what is trained: segments = [{ prompt = \"…\" }, \
                 { target = \"…\" }]",
            ));
        }
    };
    refuse_no_target(&segments, "")?;
    Ok(segments)
}

/// Refuses segments without a target; `place` names them in the error.
fn refuse_no_target(segments: &[SegmentSpec], place: &str) -> Result<()> {
    if segments.iter().any(|segment| matches!(segment, SegmentSpec::Target(_))) {
        return Ok(());
    }
    let has = if place.is_empty() { "has".to_owned() } else { format!("{place} has") };
    Err(Error::config(format!("{has} no target: nothing could be trained from it"))
        .remedy("add a `{ target = \"…\" }` to its segments"))
}

/// Returns the policy for long records, by default `split` for plain text and else `truncate`.
pub(super) fn resolve_overflow(given: Option<Overflow>, is_plain: bool) -> Result<Overflow> {
    let default = if is_plain { Overflow::Split } else { Overflow::Truncate };
    let overflow = given.unwrap_or(default);
    if overflow == Overflow::Split && !is_plain {
        return Err(Error::config(
            "overflow = \"split\" is for plain text; this source has a prompt",
        )
        .remedy("use \"truncate\", \"drop\" or \"error\""));
    }
    Ok(overflow)
}
