//! The one error of the core: a fault, its place and its remedy.
//!
//! A leaf: every module imports it, and it imports none. Bad records are not errors (they are
//! counted, see [`crate::schema::DropReason`]); an [`Error`] ends the run.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The result of every fallible function of the core.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an error; each kind is one exception class in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// `corpus.toml` or an option cannot be right.
    Config,
    /// An input cannot be read, or a record's policy is to stop the run.
    Input,
    /// A tokenizer cannot be loaded, or cannot serve this configuration.
    Tokenizer,
    /// A packed dataset is unfinished, damaged, or of another format version.
    Dataset,
    /// A place cannot, or must not, be written to.
    Output,
    /// The user stopped the run.
    Interrupted,
    /// The system has no thread or memory left to work with.
    System,
    /// The core breaks its own promise, such as a row that fails its check: a bug.
    Internal,
}

/// A place in a file, counted from 1. Files of columns have rows instead of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A line.
    Line(u64),
    /// A row.
    Row(u64),
}

impl Place {
    /// Returns the number of the line or the row.
    #[must_use]
    pub(crate) fn number(&self) -> &u64 {
        let (Self::Line(number) | Self::Row(number)) = self;
        number
    }
}

/// Writes what follows the name of a file: `:5`, or `, row 5`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, ":{line}"),
            Self::Row(row) => write!(f, ", row {row}"),
        }
    }
}

/// An error with its place and its remedy. Made by the constructor of its kind; [`Error::file`] and
/// similar methods add to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct Error {
    /// The kind of error.
    pub kind: ErrorKind,
    /// The fault in words, without its place.
    pub message: String,
    /// The file with the fault, as the user wrote it.
    pub file: Option<String>,
    /// The line or the row in that file.
    pub place: Option<Place>,
    /// The source of `corpus.toml` with the fault.
    pub source_name: Option<String>,
    /// The advice to the user.
    pub remedy: Option<String>,
    /// The failure of the operating system behind it; Python has classes of its own for some.
    #[serde(serialize_with = "write_kind", deserialize_with = "read_kind")]
    pub io_kind: Option<io::ErrorKind>,
}

/// The failures of the operating system that an error keeps when another process reads it.
const SENT_KINDS: [(&str, io::ErrorKind); 7] = [
    ("timed out", io::ErrorKind::TimedOut),
    ("not found", io::ErrorKind::NotFound),
    ("permission denied", io::ErrorKind::PermissionDenied),
    ("already exists", io::ErrorKind::AlreadyExists),
    ("is a directory", io::ErrorKind::IsADirectory),
    ("not a directory", io::ErrorKind::NotADirectory),
    ("storage full", io::ErrorKind::StorageFull),
];

/// Writes a failure of the operating system by its name.
#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn write_kind<S: Serializer>(
    kind: &Option<io::ErrorKind>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let is_it = |(_, known): &&(&str, io::ErrorKind)| Some(*known) == *kind;
    SENT_KINDS.iter().find(is_it).map(|(name, _)| *name).serialize(serializer)
}

/// Reads a failure of the operating system by its name.
fn read_kind<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<io::ErrorKind>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    let is_it = |(known, _): &&(&str, io::ErrorKind)| Some(*known) == name.as_deref();
    Ok(SENT_KINDS.iter().find(is_it).map(|(_, kind)| *kind))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            f.write_str(file)?;
            if let Some(place) = &self.place {
                write!(f, "{place}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(name) = &self.source_name {
            write!(f, "source '{name}': ")?;
        }
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\nRemedy: {remedy}"),
            None => Ok(()),
        }
    }
}

/// A fault of a storage that an `io::Error` carries, with its remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Fault {
    /// The fault in words, without its place.
    pub what: String,
    /// The advice to the user.
    pub remedy: String,
}

impl Fault {
    /// Returns an error of the operating system's `kind` that carries a fault.
    pub(crate) fn carried(
        kind: io::ErrorKind,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> io::Error {
        io::Error::new(kind, Self { what: what.into(), remedy: remedy.into() })
    }

    /// Returns the fault that an error carries, if any.
    #[must_use]
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

/// Returns the name of a file without what an address may keep secret: a name and a password before
/// the server, and everything after a question mark.
fn without_secrets(name: String) -> String {
    let Some((scheme, rest)) = name.split_once("://") else { return name };
    let (server, inner) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let cut = query_at(scheme.starts_with("http"), inner);
    if scheme.contains('/') || (!server.contains('@') && cut.is_none()) {
        return name;
    }
    let server =
        server.rsplit_once('@').map_or_else(|| server.to_owned(), |(_, s)| format!("…@{s}"));
    match cut {
        Some(cut) => format!("{scheme}://{server}{}?…", &inner[..cut]),
        None => format!("{scheme}://{server}{inner}"),
    }
}

/// Returns the byte at which the query of an address begins, which may hold a signature. In the names of
/// a bucket a question mark alone is no query: it may stand there, or for any character in a pattern.
pub(crate) fn query_at(is_http: bool, inner: &str) -> Option<usize> {
    if is_http {
        inner.find(['?', '#'])
    } else {
        inner.find('?').filter(|&at| inner[at..].contains('='))
    }
}

macro_rules! constructors {
    ($($name:ident $kind:ident),*) => {$(
        #[doc = concat!("Returns an error of [`ErrorKind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// Returns an error without place and remedy.
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            file: None,
            place: None,
            source_name: None,
            remedy: None,
            io_kind: None,
        }
    }

    constructors!(
        config Config,
        input Input,
        tokenizer Tokenizer,
        dataset Dataset,
        output Output,
        system System,
        internal Internal
    );

    /// Returns the error of a run that its user stopped.
    #[must_use]
    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "stopped by the user")
    }

    /// Returns the operating system's `error` about `path` as an error of `kind`. A fault that the
    /// error carries has words and advice of its own.
    #[must_use]
    pub(crate) fn io(kind: ErrorKind, path: &Path, error: &io::Error) -> Self {
        if let Some(Fault { what, remedy }) = Fault::of(error) {
            return Self::new(kind, what)
                .file(path.display().to_string())
                .remedy(remedy)
                .io_kind(error.kind());
        }
        // Words of our own where the system's would not tell the user what to do.
        let (message, remedy) = match error.kind() {
            io::ErrorKind::NotFound => {
                ("no such file or folder", "check the path and the working folder")
            }
            io::ErrorKind::PermissionDenied => {
                ("permission denied", "check who owns it and what its mode allows")
            }
            io::ErrorKind::NotADirectory => {
                ("a part of its path is a file, not a folder", "name another path")
            }
            io::ErrorKind::IsADirectory => ("is a folder, not a file", "name a file in it"),
            io::ErrorKind::StorageFull => {
                ("the disk is full", "make room, or name a folder on another disk")
            }
            // Of Rust's kinds, that of a link in a circle is not stable yet.
            _ if error.to_string().contains("levels of symbolic links") => (
                "is a link that leads back to itself",
                "remove it, or let it lead to the file (`ls -l` shows where it leads)",
            ),
            _ => {
                return Self::new(kind, error.to_string())
                    .file(path.display().to_string())
                    .io_kind(error.kind());
            }
        };
        Self::new(kind, message)
            .file(path.display().to_string())
            .remedy(remedy)
            .io_kind(error.kind())
    }

    /// Returns the error with its file.
    #[must_use]
    pub(crate) fn file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(without_secrets(file.into()));
        self
    }

    /// Returns the error with its line, from 1.
    #[must_use]
    pub(crate) fn line(self, line: u64) -> Self {
        self.place(Place::Line(line))
    }

    /// Returns the error with its line or its row.
    #[must_use]
    pub(crate) fn place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Returns the error with its source.
    #[must_use]
    pub(crate) fn source(mut self, name: impl Into<String>) -> Self {
        self.source_name = Some(name.into());
        self
    }

    /// Returns the error with the failure of the operating system that it amounts to.
    #[must_use]
    pub(crate) fn io_kind(mut self, kind: io::ErrorKind) -> Self {
        self.io_kind = Some(kind);
        self
    }

    /// Returns the error with advice to the user, in place of any other.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
