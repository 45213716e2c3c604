//! Folders that `datasets` saved with `save_to_disk`: the files of one dataset, in their order.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::storage::Storage;

/// Lists the files of a dataset, in their order.
const STATE: &str = "state.json";
/// Describes a dataset.
const INFO: &str = "dataset_info.json";
/// Lists the splits of a folder of datasets.
const SPLITS: &str = "dataset_dict.json";

/// Returns the files of the dataset that was saved in `folder`, which the user calls `name`; `None`
/// for any other folder. Refuses a folder of splits: each is a dataset of its own.
pub(super) fn saved_files(
    storage: &dyn Storage,
    folder: &Path,
    name: &str,
) -> Result<Option<Vec<PathBuf>>> {
    let has = |file: &str| storage.is_file(&folder.join(file));
    if has(SPLITS) {
        return Err(splits_refused(storage, folder, name));
    }
    if !has(STATE) || !has(INFO) {
        return Ok(None);
    }
    let state = folder.join(STATE);
    let shown = format!("{name}/{STATE}");
    let again = "save the dataset again: ds.save_to_disk(FOLDER)";
    let fault = |what: &str| Error::input(what.to_owned()).file(shown.clone()).remedy(again);
    let state: Value = serde_json::from_slice(&storage.small_bytes(&state)?)
        .map_err(|error| fault(&format!("is no JSON: {error}")))?;
    // An order of rows, or a choice of them, that the files do not have.
    let is_given = |value: &Value| match value {
        Value::Null => false,
        Value::Array(files) => !files.is_empty(),
        _ => true,
    };
    let keys = state.as_object().into_iter().flatten();
    if keys.into_iter().any(|(key, value)| key.starts_with("_indices") && is_given(value)) {
        return Err(Error::input("was saved with a selection of its rows, which is not applied")
            .file(name)
            .remedy("save it again without: ds.flatten_indices().save_to_disk(FOLDER)"));
    }
    let Some(listed) = state.get("_data_files").and_then(Value::as_array) else {
        return Err(fault("lists no `_data_files`"));
    };
    let mut files = Vec::with_capacity(listed.len());
    for file in listed {
        let Some(file) = file.get("filename").and_then(Value::as_str) else {
            return Err(fault("lists a file without a `filename`"));
        };
        if file.is_empty() || Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(fault("lists a file outside of its folder"));
        }
        let path = folder.join(file);
        if !storage.is_file(&path) {
            return Err(Error::input("is missing, and the state.json beside it lists it")
                .file(format!("{name}/{file}"))
                .remedy("fetch the whole folder again")
                .io_kind(std::io::ErrorKind::NotFound));
        }
        files.push(path);
    }
    if files.is_empty() {
        return Err(fault("lists no file: the dataset is empty"));
    }
    Ok(Some(files))
}

/// Returns whether a folder holds the splits of a dataset, each a folder of its own.
pub(super) fn holds_splits(storage: &dyn Storage, folder: &Path) -> bool {
    storage.is_file(&folder.join(SPLITS))
}

/// Returns the error of a folder of splits.
fn splits_refused(storage: &dyn Storage, folder: &Path, name: &str) -> Error {
    let listed = storage.small_bytes(&folder.join(SPLITS)).ok();
    let listed = listed.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let splits: Vec<String> = listed
        .as_ref()
        .and_then(|listed| listed.get("splits")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(|split| split.as_str().map(str::to_owned))
        .collect();
    let first = splits.first().map_or("train", String::as_str);
    Error::input(format!("is a folder of the splits {}", splits.join(", ")))
        .file(name)
        .remedy(format!("name the split to read: files = [\"{name}/{first}\"]"))
        .io_kind(std::io::ErrorKind::IsADirectory)
}

/// Returns whether a file in a saved dataset's folder is not one of its data: its description, or
/// what a program cached there.
pub(super) fn is_beside_data(storage: &dyn Storage, path: &Path) -> bool {
    let Some(folder) = path.parent() else { return false };
    let is = |name: &str| path.file_name() == Some(name.as_ref());
    if is(SPLITS) {
        return true;
    }
    match saved_files(storage, folder, "") {
        Ok(Some(files)) => !files.iter().any(|file| file == path),
        _ => false,
    }
}
