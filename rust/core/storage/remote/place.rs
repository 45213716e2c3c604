//! `Place`: a path that names a store, as `s3://bucket/key` does.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use object_store::path::Path as Key;

use crate::error::{Fault, query_at};

/// The kind of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// S3, and the services that speak its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A web server, whose files are only read.
    Http,
}

/// The schemes by their names.
const SCHEMES: [(&str, Scheme); 5] = [
    ("s3", Scheme::S3),
    ("gs", Scheme::Gs),
    ("az", Scheme::Az),
    ("http", Scheme::Http),
    ("https", Scheme::Http),
];

/// A place in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The kind of the store.
    pub scheme: Scheme,
    /// The store: `s3://bucket`, or the address of a server.
    pub root: String,
    /// The name of the object in it.
    pub key: Key,
}

/// Returns whether a path names a place in a store, or tries to, rather than a local file.
pub(crate) fn is_remote(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let Some((scheme, rest)) = text.split_once(":/") else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme && (rest.starts_with('/') || SCHEMES.iter().any(|(known, _)| *known == scheme))
}

/// Returns the path that `name` means below `root`: a name with a scheme, and an absolute path,
/// stand for themselves.
pub(crate) fn below(root: &Path, name: impl AsRef<Path>) -> PathBuf {
    let name = name.as_ref();
    if is_remote(name) { name.to_owned() } else { root.join(name) }
}

/// Returns whether the files of a folder can be listed: those of a web server cannot.
pub(crate) fn is_listed(folder: &Path) -> bool {
    !matches!(Place::of(folder), Ok(place) if place.scheme == Scheme::Http)
}

/// Returns the store of a pattern of files, and the pattern in it, where it names a store.
pub(crate) fn split_store(pattern: &str) -> Option<(PathBuf, &str)> {
    if !is_remote(Path::new(pattern)) {
        return None;
    }
    let (scheme, rest) = pattern.split_once("://")?;
    let (store, inner) = rest.split_once('/')?;
    Some((format!("{scheme}://{store}").into(), inner.trim_start_matches('/')))
}

impl Place {
    /// Returns the place that a path names.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let refuse = |what: &str, remedy: &str| {
            Err(Fault::carried(io::ErrorKind::InvalidInput, what, remedy))
        };
        let text = path.to_str().unwrap_or_default();
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse(
                "has one slash after its scheme, and there must be two",
                "give the whole address as text: pathlib.Path takes a slash away",
            );
        };
        let Some(&(name, scheme)) = SCHEMES.iter().find(|(known, _)| *known == scheme) else {
            return refuse(
                "begins with a scheme that is not known",
                "name a local path, or one that begins with s3://, gs://, az://, http:// or \
                 https://",
            );
        };
        let (store, inner) = rest.split_once('/').unwrap_or((rest, ""));
        if store.is_empty() {
            return refuse(
                "names no bucket",
                "write it so: s3://BUCKET/FOLDER, or https://SERVER/FILE",
            );
        }
        if store.contains('@') || (scheme != Scheme::Http && store.contains(':')) {
            return refuse(
                "holds a name and a password, or a key, which a dataset would keep",
                "leave them out of the address and give them by the environment: docs/storage.md",
            );
        }
        if query_at(scheme == Scheme::Http, inner).is_some() {
            return refuse(
                "goes on with ? or #, as addresses that hold a key do, which a dataset would keep",
                "name the file by its plain address: s3://, gs:// or az:// with credentials in the \
                 environment, or fetch the file first",
            );
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in inner.split('/') {
            match part {
                ".." if parts.pop().is_none() => {
                    return refuse("leads out of its bucket by ..", "leave .. out");
                }
                "" | "." | ".." => {}
                part => parts.push(part),
            }
        }
        let joined = parts.join("/");
        let key = match scheme {
            Scheme::Http => Key::from_url_path(&joined),
            _ => Key::parse(&joined),
        };
        let Ok(key) = key else {
            return refuse(
                "holds characters that no name in a store may have",
                "rename the object: no control characters, no lone . or ..",
            );
        };
        Ok(Self { scheme, root: format!("{name}://{store}"), key })
    }

    /// Returns the path that names this place, in its shortest form.
    pub(super) fn path(&self) -> PathBuf {
        let mut text = self.root.clone();
        if !self.key.as_ref().is_empty() {
            let _ = write!(text, "/{}", self.key);
        }
        text.into()
    }

    /// Returns the bucket, or the server.
    pub(super) fn store(&self) -> &str {
        self.root.split_once("://").map_or("", |(_, store)| store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_place_or_local_or_refused() {
        for (text, root, key) in [
            ("s3://b/a/c.jsonl", "s3://b", "a/c.jsonl"),
            ("s3://b", "s3://b", ""),
            ("gs://b/", "gs://b", ""),
            ("az://b/./a//x/../c d%20", "az://b", "a/c d%20"),
            ("s3://b/ọ̀rọ̀ #1?.txt", "s3://b", "ọ̀rọ̀ #1?.txt"),
            ("https://h:8080/a%20b.txt", "https://h:8080", "a b.txt"),
        ] {
            let place = Place::of(Path::new(text)).unwrap();
            assert_eq!((place.root.as_str(), place.key.as_ref()), (root, key), "{text}");
            assert!(is_remote(Path::new(text)), "{text}");
        }
        for text in ["a/b", "/a://b", "./s3://b", "a:b", "C:/x", "hf:/x", "lm-eval:x", ""] {
            assert!(!is_remote(Path::new(text)), "{text}");
        }
        for (text, what) in [
            ("s4://b/a", "scheme"),
            ("s3:/b/a", "one slash"),
            ("s3://", "no bucket"),
            ("s3://b/../a", "out of its bucket"),
            ("s3://key:secret@b/a", "password"),
            ("https://me:secret@h/a", "password"),
            ("https://h/a?sig=secret", "?"),
            ("s3://b/a\u{7}", "characters"),
            ("s3://b/a?X-Amz-Signature=secret", "?"),
            ("gs://b/a?x=1&sig=secret", "?"),
        ] {
            assert!(is_remote(Path::new(text)), "{text}");
            let error = Place::of(Path::new(text)).unwrap_err();
            assert!(error.to_string().contains(what), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn names_with_a_scheme_stand_for_themselves() {
        let root = Path::new("s3://b/corpus");
        assert_eq!(below(root, "a/b"), Path::new("s3://b/corpus/a/b"));
        assert_eq!(below(root, "gs://c/d").to_str(), Some("gs://c/d"));
        assert_eq!(below(Path::new("c"), "s3://c/d").to_str(), Some("s3://c/d"));
        assert_eq!(split_store("s3://b/a/*.txt"), Some(("s3://b".into(), "a/*.txt")));
        assert_eq!(split_store("a/*.txt"), None);
    }
}
