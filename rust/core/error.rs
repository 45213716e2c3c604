//! The one error of the core: what went wrong, where, and what to do about it.
//!
//! A leaf: every module names it, it names none. Bad records are not errors (they are counted, see
//! [`crate::schema::DropReason`]); an [`Error`] ends the run.

use std::fmt;
use std::io;
use std::path::Path;

/// The result of everything in the core that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of thing is wrong; each kind is one exception class in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// A promise of ours is broken (a row fails its own check): a bug.
    Internal,
}

/// An error with its place and its remedy. Built by the kind's constructor, then [`Error::file`]
/// and its like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// What sort of thing is wrong.
    pub kind: ErrorKind,
    /// What is wrong, without its place.
    pub message: String,
    /// The file it is about, as the user wrote it.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<u64>,
    /// The source of `corpus.toml` it is about.
    pub source_name: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The failure of the operating system behind it; Python has classes of its own for some.
    pub io_kind: Option<io::ErrorKind>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            _ => {}
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

macro_rules! constructors {
    ($($name:ident $kind:ident),*) => {$(
        #[doc = concat!("An error of [`ErrorKind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            file: None,
            line: None,
            source_name: None,
            remedy: None,
            io_kind: None,
        }
    }

    constructors!(config Config, input Input, tokenizer Tokenizer, dataset Dataset, output Output, system System, internal Internal);

    /// The error of a run that its user stopped.
    #[must_use]
    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "stopped by the user")
    }

    /// Returns the operating system's `error` about `path` as an error of `kind`.
    #[must_use]
    pub(crate) fn io(kind: ErrorKind, path: &Path, error: &io::Error) -> Self {
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

    /// Names the file it is about.
    #[must_use]
    pub(crate) fn file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Names the line it is about, from 1.
    #[must_use]
    pub(crate) fn line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Names the source it is about.
    #[must_use]
    pub(crate) fn source(mut self, name: impl Into<String>) -> Self {
        self.source_name = Some(name.into());
        self
    }

    /// Names the failure of the operating system that it amounts to.
    #[must_use]
    pub(crate) fn io_kind(mut self, kind: io::ErrorKind) -> Self {
        self.io_kind = Some(kind);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
