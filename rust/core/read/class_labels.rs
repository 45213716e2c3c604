//! `ClassLabels`: the names behind the numbers that `datasets` stores for labels, and
//! records whose labels are shown by name.
//!
//! A file of columns keeps the names in its schema; `save_to_disk` also writes them beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::changed::Changed;
use super::format::FormatName;
use super::json::{Number, Value};
use super::record::{Reader, malformed};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// The key of a schema's metadata that holds the features of `datasets`.
pub(super) const METADATA: &str = "huggingface";
/// The files that `save_to_disk` writes beside its data; the first one holds the features.
const SAVED: [&str; 2] = ["dataset_info.json", "state.json"];
/// The names that a sentence lists.
const NAMED: usize = 6;

/// The names of labels in order of their numbers, by the path of their field, with dots.
pub(crate) type ClassLabels = BTreeMap<String, Vec<String>>;

/// Returns the class labels of a file; none where it, or what lies beside it, describes none.
pub(crate) fn class_labels(
    storage: &dyn Storage,
    format: FormatName,
    path: &Path,
) -> Result<ClassLabels> {
    // Like `datasets`, which takes the description of the folder before that of the file.
    let beside = SAVED.map(|name| path.with_file_name(name));
    if !format.get().is_text() && beside.iter().all(|file| storage.is_file(file)) {
        let text = storage.small_bytes(&beside[0])?;
        return Ok(labels_in(&text, "/features"));
    }
    format.get().class_labels(path, storage)
}

/// Returns the class labels that the metadata of a schema describes.
pub(super) fn labels_of_metadata(metadata: &str) -> ClassLabels {
    labels_in(metadata.as_bytes(), "/info/features")
}

/// Returns the class labels of the features at `pointer` of a JSON text.
fn labels_in(text: &[u8], pointer: &str) -> ClassLabels {
    /// Adds the labels of a feature, which lies at `path`.
    fn add(feature: &Json, path: &mut Vec<String>, out: &mut ClassLabels) {
        let Json::Object(keys) = feature else {
            // A list of one feature is a list of such values.
            feature.as_array().into_iter().flatten().for_each(|item| add(item, path, out));
            return;
        };
        match keys.get("_type").and_then(Json::as_str) {
            Some("ClassLabel") => {
                let names = keys.get("names").and_then(Json::as_array);
                let names: Option<Vec<String>> = names.and_then(|names| {
                    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
                });
                out.extend(
                    names.filter(|names| !names.is_empty()).map(|all| (path.join("."), all)),
                );
            }
            Some(_) => keys.get("feature").into_iter().for_each(|item| add(item, path, out)),
            None => {
                for (name, feature) in keys {
                    path.push(name.clone());
                    add(feature, path, out);
                    path.pop();
                }
            }
        }
    }
    let mut labels = ClassLabels::new();
    let text: Option<Json> = serde_json::from_slice(text).ok();
    let features = text.as_ref().and_then(|text| text.pointer(pointer));
    if let Some(features) = features {
        add(features, &mut Vec::new(), &mut labels);
    }
    labels
}

/// Returns the names of the `wanted` labels in some files, each with its name. Refuses a field that
/// holds no class labels, and files whose labels differ.
pub(crate) fn resolve_labels(
    storage: &dyn Storage,
    format: FormatName,
    wanted: &ClassLabels,
    files: &[(&Path, &str)],
) -> Result<ClassLabels> {
    let mut first: Option<(ClassLabels, &str)> = None;
    for &(path, name) in files {
        let mut known = class_labels(storage, format, path).map_err(|error| error.file(name))?;
        if let Some(field) = wanted.keys().find(|field| !known.contains_key(*field)) {
            return Err(no_labels(field, &known).file(name));
        }
        known.retain(|field, _| wanted.contains_key(field));
        match &first {
            None => first = Some((known, name)),
            Some((labels, other)) => refuse_different(labels, other, &known, name)?,
        }
    }
    Ok(first.map(|(labels, _)| labels).unwrap_or_default())
}

/// Returns the error of a field that holds no class labels in its file, which has the `known` ones.
fn no_labels(field: &str, known: &ClassLabels) -> Error {
    let error = Error::input(format!("`labels` names `{field}`, which holds no class labels here"));
    if known.is_empty() {
        return error.remedy(
            "only files that `datasets` wrote know the names of labels; elsewhere a template \
             spells them: {{ [\"negative\", \"positive\"][label] }}",
        );
    }
    let fields: Vec<String> =
        known.iter().map(|(field, names)| format!("`{field}` ({})", names_shown(names))).collect();
    error.remedy(format!("its fields of class labels are {}", fields.join(", ")))
}

/// Refuses two files whose labels have other names, or other numbers.
fn refuse_different(one: &ClassLabels, file: &str, two: &ClassLabels, other: &str) -> Result<()> {
    let mut pairs = one.iter().zip(two.values());
    let Some(((field, names), others)) = pairs.find(|((_, names), others)| names != others) else {
        return Ok(());
    };
    let [names, others] = [names, others].map(|names| names_shown(names));
    Err(Error::input(format!(
        "the labels of `{field}` are {names} in {file}, and {others} in {other}"
    ))
    .remedy("make them two sources: a number stands for another label in each"))
}

/// Returns the first names of some labels, in order of their numbers.
pub(crate) fn names_shown(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Refuses a list of labels that names no field.
pub(super) fn refuse_no_field(labels: &ClassLabels) -> Result<()> {
    if labels.is_empty() || labels.keys().any(String::is_empty) {
        return Err(Error::config("`labels` names no field, or one by an empty name")
            .remedy("name the fields whose labels are shown by name: labels = [\"label\"]"));
    }
    Ok(())
}

/// Returns the records of `reader` with the names of `labels` in place of their numbers.
pub(super) fn with_names(reader: Box<dyn Reader>, labels: Option<&ClassLabels>) -> Box<dyn Reader> {
    let Some(labels) = labels else { return reader };
    let path = |field: &str| field.split('.').map(str::to_owned).collect();
    let labels: Vec<(Vec<String>, Vec<String>)> =
        labels.iter().map(|(field, names)| (path(field), names.clone())).collect();
    Changed::over(reader, move |fields| {
        for (path, names) in &labels {
            let Some((first, rest)) = path.split_first() else { continue };
            let Some(value) = fields.get_mut(first) else { continue };
            name(value, rest, names)
                .map_err(|why| malformed(format!("field '{}' is {why}", path.join("."))))?;
        }
        Ok(())
    })
}

/// Puts names in the place of the numbers at `path` of a value, in lists too. A label of -1 is
/// missing.
fn name(value: &mut Value, path: &[String], names: &[String]) -> std::result::Result<(), String> {
    match (&mut *value, path.split_first()) {
        (Value::Array(items), _) => items.iter_mut().try_for_each(|item| name(item, path, names)),
        (Value::Object(fields), Some((first, rest))) => {
            fields.get_mut(first).map_or(Ok(()), |value| name(value, rest, names))
        }
        (Value::Number(number), None) => {
            *value = named(number, names)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Returns the name of a label.
fn named(number: &Number, names: &[String]) -> std::result::Result<Value, String> {
    let Number::Int(index) = *number else { return Err("no whole number, as labels are".into()) };
    if index == -1 {
        return Ok(Value::Null);
    }
    let name = usize::try_from(index).ok().and_then(|index| names.get(index));
    name.map(|name| Value::from(name.as_str())).ok_or_else(|| {
        format!("{index}, and its labels are 0 to {}: {}", names.len() - 1, names_shown(names))
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse_json;
    use super::*;

    const FEATURES: &str = r#"{"info": {"features": {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"num_classes": 2, "names": ["neg", "pos"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O", "B"], "_type": "ClassLabel"}, "_type": "Sequence"},
        "old": [{"names": ["a"], "_type": "ClassLabel"}],
        "answers": {"feature": {"kind": {"names": ["x"], "_type": "ClassLabel"}}, "_type": "List"},
        "_type": {"names": ["odd"], "_type": "ClassLabel"},
        "unnamed": {"num_classes": 3, "_type": "ClassLabel"},
        "broken": {"names": [1, 2], "_type": "ClassLabel"}
    }}}"#;

    #[test]
    fn labels_are_found_in_lists_and_objects() {
        let found = labels_of_metadata(FEATURES);
        let shown: Vec<_> = found.iter().map(|(field, all)| (field.as_str(), all.len())).collect();
        let expected = [("_type", 1), ("answers.kind", 1), ("label", 2), ("old", 1), ("tags", 2)];
        assert_eq!(shown, expected);
        for text in ["", "{", "[]", r#"{"info": {"features": 3}}"#, r#"{"info": null}"#] {
            assert!(labels_of_metadata(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn numbers_become_names_wherever_they_lie() {
        let names = ["neg", "pos"].map(str::to_owned);
        let named = |text: &str, path: &[&str]| {
            let mut fields = parse_json(format!("{{\"v\": {text}}}").as_bytes()).unwrap();
            let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
            name(&mut fields["v"], &path, &names).map(|()| fields["v"].clone())
        };
        let value = |text: &str| parse_json(format!("{{\"v\": {text}}}").as_bytes()).unwrap();
        for (text, path, expected) in [
            ("1", vec![], r#""pos""#),
            ("-1", vec![], "null"),
            ("null", vec![], "null"),
            ("[[0, -1], [1]]", vec![], r#"[["neg", null], ["pos"]]"#),
            (r#"[{"k": 0}, {}]"#, vec!["k"], r#"[{"k": "neg"}, {}]"#),
            (r#"{"k": [1, 0]}"#, vec!["k"], r#"{"k": ["pos", "neg"]}"#),
            (r#""pos""#, vec![], r#""pos""#),
            ("1", vec!["k"], "1"),
        ] {
            assert_eq!(named(text, &path).unwrap(), value(expected)["v"], "{text}");
        }
        for text in ["2", "-2", "0.5", "[0, 7]"] {
            assert!(named(text, &[]).is_err(), "{text}");
        }
    }
}
