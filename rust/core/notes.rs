//! Notes: sentences about a corpus that was packed as asked but may not be as meant.
//!
//! Takes the decisions of settle and the sums of shards. Gives sentences that name the source or
//! file, the reason and the remedy. Nothing here changes a dataset's rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::contamination::HeldOut;
use crate::context::Context;
use crate::error::Result;
use crate::plan::{Plan, Source, code_of, near_code};
use crate::read::names_shown;
use crate::report::{ShardSums, utilisation};
use crate::schema::{DropReason, RecordId, Split};
use crate::segment::{SegmentBuilder, Segmenter, Step};
use crate::settle::{Decisions, SourceTotals};
use crate::spool::Doubts;
use crate::tokenize::{Encoder, Marks, tags_of};

/// The most names listed in one note.
const NAMED: usize = 3;
/// Rows less full than this are worth a note, if the cause is copies kept apart.
const WELL_FILLED: f64 = 0.95;

/// Returns the notes of a run.
pub(crate) fn notes(
    encoder: &Encoder,
    plan: &Plan,
    decisions: &Decisions,
    shards: &[ShardSums],
    held_out: Option<&HeldOut>,
    context: &Context<'_>,
) -> Result<Vec<String>> {
    let mut notes = plan.guessed.clone();
    notes.extend(tokenizer_notes(encoder, plan, decisions));
    notes.extend(unknown_languages(plan));
    for (index, source) in plan.sources.iter().enumerate() {
        let totals = &decisions.sources[index];
        notes.extend(without_training(plan, source, totals, decisions.epochs[index].made));
        notes.extend(idle_files(plan, source, totals));
        notes.extend(doubtful_records(plan, source, totals, context)?);
        notes.extend(unmet_fields(plan, index, context));
    }
    notes.extend(held_out.into_iter().flat_map(|held_out| {
        held_out
            .files()
            .iter()
            .filter_map(|file| short_file(&file.name, file.records, file.short, held_out.n()))
    }));
    notes.extend(kept_apart(plan, shards));
    Ok(notes)
}

/// Returns the notes about the tokenizer: its own, then those of each source.
fn tokenizer_notes(encoder: &Encoder, plan: &Plan, decisions: &Decisions) -> Vec<String> {
    let mut notes = encoder.disagreements();
    for (source, totals) in plan.sources.iter().zip(&decisions.sources) {
        let own =
            unknown_tags(encoder, source).into_iter().chain(marked(encoder, &totals.tally.marks));
        notes.extend(own.map(|note| format!("source '{}': {note}", source.name)));
    }
    notes
}

/// Notes the languages of sources that are none.
fn unknown_languages(plan: &Plan) -> Vec<String> {
    let mut unknown: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in plan.sources.iter().filter(|source| code_of(&source.lang).is_none()) {
        unknown.entry(&source.lang).or_default().push(format!("'{}'", source.name));
    }
    let (near, far): (Vec<_>, Vec<_>) = unknown
        .into_iter()
        .map(|(lang, sources)| (lang, sources, near_code(lang)))
        .partition(|(.., near)| near.is_some());
    let mut notes: Vec<String> = near
        .into_iter()
        .map(|(lang, sources, near)| {
            format!(
                "'{lang}' is no language that ISO 639-3 knows (`lang` of {}): did you mean '{}'?",
                listed(&sources),
                near.unwrap_or_default()
            )
        })
        .collect();
    if !far.is_empty() {
        let (langs, sources): (Vec<String>, Vec<Vec<String>>) =
            far.into_iter().map(|(lang, sources, _)| (format!("'{lang}'"), sources)).unzip();
        let are = if langs.len() == 1 { "is no language" } else { "are no languages" };
        notes.push(format!(
            "{} {are} that ISO 639-3 knows (`lang` of {})",
            listed(&langs),
            listed(&sources.concat())
        ));
    }
    notes
}

/// Notes the tags of a source's templates that the tokenizer does not know as one token.
fn unknown_tags(encoder: &Encoder, source: &Source) -> Option<String> {
    let blank = source.augment.as_ref().and_then(|augment| augment.blank(0));
    let mut unknown = tags_of(Segmenter::literals(source).chain(blank.as_deref()));
    unknown.retain(|tag| !encoder.is_one_token(tag));
    if unknown.is_empty() {
        return None;
    }
    let tags: Vec<String> = unknown.iter().map(|tag| format!("`{tag}`")).collect();
    Some(format!(
        "its templates spell {}, which the tokenizer does not know as one token: \
         it takes several, as for any text; to make tags tokens, \
         add them to the tokenizer's `added_tokens`, \
         or train one with `sabiprep tokenizer train`",
        tags.join(", ")
    ))
}

/// Returns a note for each kind of mark on the documents of a source.
fn marked(encoder: &Encoder, marks: &Marks) -> Vec<String> {
    let controls = encoder.controls();
    let spelling =
        |id: Option<u32>| id.map(|id| format!("`{}`", encoder.spelling(id))).unwrap_or_default();
    let mut notes = Vec::new();
    // A template that spells a control token is seldom wrong, but its tokens would be doubled.
    if marks.bos > 0 {
        let (count, token) = (marks.bos, spelling(controls.bos));
        notes.push(format!(
            "its templates begin with {token}, which the configuration puts there too: \
             one stands in each of {count} documents; \
             leave it out of the templates, or set bos = \"\" under [tokenizer]"
        ));
    }
    if marks.eos > 0 {
        let (count, token) = (marks.eos, spelling(Some(controls.eos)));
        notes.push(format!(
            "its templates end with {token}, which the configuration puts there too: \
             one closes each of {count} documents, and is trained; \
             leave it out of the templates"
        ));
    }
    if marks.unknown > 0 {
        let (count, token) = (marks.unknown, spelling(encoder.unknown()));
        notes.push(format!(
            "{count} tokens of its documents are {token}, \
             which stands for text that the tokenizer does not know; \
             a tokenizer with byte fallback, or one of bytes (`sabiprep tokenizer train`), \
             knows all text"
        ));
    }
    if marks.unspelled > 0 {
        let count = marks.unspelled;
        notes.push(format!(
            "the tokenizer has no tokens for letters in {count} of its words, \
             and leaves them out; a tokenizer with an unknown token, \
             or one of bytes (`sabiprep tokenizer train`), loses none"
        ));
    }
    if marks.weightless > 0 {
        let count = marks.weightless;
        notes.push(format!(
            "{count} of its documents have the weight 0: they take room in rows, and nothing is \
             learnt from them"
        ));
    }
    notes
}

/// Notes that a source adds nothing to the training split, with the reason.
fn without_training(
    plan: &Plan,
    source: &Source,
    totals: &SourceTotals,
    epochs: f64,
) -> Option<String> {
    if totals.sums[Split::Train as usize].documents > 0 || source.training_inputs == 0 {
        return None;
    }
    let name = &source.name;
    let unique = totals.unique.documents;
    // The remedy for a mixed source is in the mix, not in its data.
    let is_mixed = plan.mix.is_some() && source.epochs.is_none();
    Some(if is_mixed && unique > 0 {
        let (key, other) = match source.weight {
            Some(_) => ("raise its `weight`", "remove the source"),
            None => ("set a higher `temperature` under [mix]", "give the source `epochs`"),
        };
        format!(
            "Source '{name}' gives training nothing: \
             its share of the mix comes to {epochs} copies of each record, \
             and none of its {unique} documents is made. {}, or {other}.",
            capitalised(key)
        )
    } else if totals.tally.records == 0 {
        format!("Source '{name}' gives training nothing: its files hold no record.")
    } else {
        format!("Source '{name}' gives training nothing: {}.", whereabouts(totals))
    })
}

/// Returns the number of records of a source by their end: dropped for a reason, or held out.
fn whereabouts(totals: &SourceTotals) -> String {
    let drops = DropReason::ALL.into_iter().zip(totals.tally.drops).filter(|(_, count)| *count > 0);
    let mut places: Vec<String> =
        drops.map(|(reason, count)| format!("{count} {}", reason.name())).collect();
    if totals.kept > 0 {
        places.push(format!("{} held out for validation", totals.kept));
    }
    format!("of its {} records, {}", totals.tally.records, places.join(", "))
}

/// Notes the files of a source that add no document, if other files of the source do.
fn idle_files(plan: &Plan, source: &Source, totals: &SourceTotals) -> Option<String> {
    if totals.kept == 0 {
        return None;
    }
    let inputs = source.inputs.iter().zip(&totals.kept_of_inputs);
    let idle: Vec<String> =
        inputs
            .filter(|(_, kept)| **kept == 0)
            .map(|(&input, _)| &plan.inputs[input])
            .map(|input| {
                if input.size == 0 { format!("{} (empty)", input.name) } else { input.name.clone() }
            })
            .collect();
    let gives = if idle.len() == 1 { "gives" } else { "give" };
    (!idle.is_empty()).then(|| {
        format!("Source '{}': {} {gives} the dataset no document.", source.name, listed(&idle))
    })
}

/// Notes records whose quotes may have been read the wrong way, with the first of them.
fn doubtful_records(
    plan: &Plan,
    source: &Source,
    totals: &SourceTotals,
    context: &Context<'_>,
) -> Result<Option<String>> {
    let Doubts { count, first: Some(first) } = totals.tally.doubts else { return Ok(None) };
    let input = source.inputs[RecordId::unpack(first).nth_input];
    let place = plan.place_of(source, first, context)?;
    let place = format!("{}{place}", plan.inputs[input].name);
    Ok(Some(doubt(source, count, &place)))
}

/// Notes fields that `rename` and `literals` name and none of the first records has.
fn unmet_fields(plan: &Plan, index: usize, context: &Context<'_>) -> Vec<String> {
    let source = &plan.sources[index];
    let mut named = source.options.named_fields();
    // What cannot be read any more is noted elsewhere.
    let read = named.is_empty() || plan.meet_first(index, &mut named, context).is_err();
    let unmet = if read { BTreeSet::new() } else { named };
    let note = |(key, name): (&str, String)| {
        format!(
            "Source '{}': `{key}` names the field '{name}', which none of its first records has. \
             `sabiprep plan` shows the fields that they have.",
            source.name
        )
    };
    unmet.into_iter().map(note).collect()
}

/// Returns the sentence about `count` records of a source that may have been read the wrong way.
/// `place` is the file and line of the first.
pub(crate) fn doubt(source: &Source, count: u64, place: &str) -> String {
    let dialect = source.dialect.as_deref().unwrap_or("as its format says");
    let (what, remedy) = doubt_of(source);
    let name = &source.name;
    format!(
        "Source '{name}' is read {dialect}. {count} of its records, first {place}, {what}. {remedy}"
    )
}

/// Returns the fields that the templates of `source` show by the numbers of their labels, each with
/// the names that it could have.
pub(crate) fn numbered_labels(
    source: &Source,
    builder: &dyn SegmentBuilder,
) -> Vec<(String, String)> {
    let by_name = source.options.labels.as_ref();
    let mut found = Vec::new();
    for path in builder.named_fields() {
        let mut keys: Vec<&str> = path
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            })
            .collect();
        let renames = &source.options.rename;
        if let Some(first) = keys.first_mut()
            && let Some((old, _)) = renames.iter().find(|(_, new)| new == first)
        {
            *first = old;
        }
        let field = keys.join(".");
        if by_name.is_some_and(|labels| labels.contains_key(&field)) {
            continue;
        }
        if let Some(names) = source.class_labels.get(&field) {
            found.push((field, names_shown(names)));
        }
    }
    found
}

/// Returns the sentence about a field that is shown by the numbers of its labels, and the remedy.
pub(crate) fn numbered(field: &str, names: &str) -> (String, String) {
    (
        format!("`{field}` is shown by number; its labels are, from 0: {names}"),
        format!("labels = [\"{field}\"] in its source shows the names"),
    )
}

/// Returns what makes one doubt how records of a source are read, and the remedy.
pub(crate) fn doubt_of(source: &Source) -> (&'static str, &'static str) {
    match source.format.get().name() {
        "tsv" => (
            "hold a field in quotes with a quote written twice, as quoted files have it: the quotes \
             became text",
            "If they are not text, say format = \"csv\" and delimiter = \"\\t\".",
        ),
        "conll" => (
            "have a first column that counts their tokens and was read as the tokens, or a line \
             before them that begins with `# ` and ends with a tag and was read as a comment",
            "Name the columns, columns = [\"id\", \"tokens\", \"tags\"] for three, or write a tab \
             between a token `#` and its tag.",
        ),
        _ => (
            "have a quote that closes after many lines, never, or before the end of its field: \
             lines became one field, or quotes are lost",
            "If quotes are text in this file, say so (format = \"tsv\", for tabs), or mend them.",
        ),
    }
}

/// Notes a file whose records are too short to keep training clean of all of them.
fn short_file(name: &str, records: u64, short: u64, n: usize) -> Option<String> {
    let remedy = "lower `decontaminate_ngram`, or compare such records by hand";
    match (records, short) {
        (0, _) => Some(format!("Training is not kept clean of {name}: it holds no record.")),
        (_, 0) => None,
        _ if short == records => Some(format!(
            "Training is not kept clean of {name}: \
             none of its {records} records has {n} words, all fields together; {remedy}."
        )),
        _ => Some(format!(
            "Training is not kept clean of {short} of the {records} records of {name}: \
             they have fewer than {n} words, all fields together; {remedy}."
        )),
    }
}

/// Notes training rows that are not full because two copies of a record never share a row.
fn kept_apart(plan: &Plan, shards: &[ShardSums]) -> Option<String> {
    let shards = || shards.iter().filter(|shard| shard.split == Split::Train);
    let rows: u64 = shards().map(|shard| shard.written.rows).sum();
    let apart: u64 = shards().map(|shard| shard.kept_apart).sum();
    let tokens: u64 = shards().map(|shard| shard.sums.tokens).sum();
    let filled = utilisation(tokens, rows, plan.pack.seq_len);
    // Below a twentieth of the rows the cause lies elsewhere.
    (apart * 20 >= rows && apart > 0 && filled < WELL_FILLED).then(|| {
        format!(
            "Training rows are {:.0} % full: two copies of a record never share a row, \
             and {apart} of {rows} rows were opened only to keep copies apart. \
             Lower `epochs`, set `max_epochs` under [mix], or add records.",
            filled * 100.0
        )
    })
}

/// Returns a text with its first letter in upper case.
fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Returns the first few of `names`, and the number of the others.
fn listed(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_short_records_is_named_and_one_of_long_records_is_not() {
        assert_eq!(short_file("a.txt", 5, 0, 13), None);
        assert!(
            short_file("a.txt", 5, 5, 13).unwrap().contains("none of its 5 records has 13 words")
        );
        assert!(short_file("a.txt", 5, 2, 13).unwrap().contains("2 of the 5 records of a.txt"));
        assert!(short_file("a.txt", 0, 0, 13).unwrap().contains("no record"));
    }

    #[test]
    fn a_few_names_are_listed() {
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(listed(&names[..2]), "a, b");
        assert_eq!(listed(&names), "a, b, c and 2 more");
    }
}
