//! Errors of a store, in words for the user. They hold no secret and no raw answer.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use super::place::Scheme;
use crate::error::Fault;

/// The page that tells what the environment must hold.
const PAGE: &str = "docs/storage.md";
/// The most characters of a store's own words.
const SHOWN: usize = 200;
/// The beginnings of variables that hold credentials.
const PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// What a store's error comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing is there.
    Missing,
    /// A condition of the request did not hold.
    Condition,
    /// Something is there that should not be.
    Exists,
    /// The store knows no such request.
    Unsupported,
    /// The store refused, and will again.
    Refused,
    /// It may go better later.
    Passing,
}

/// Returns what an error comes to.
pub(super) fn kind_of(error: &object_store::Error) -> Trouble {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => Trouble::Missing,
        E::Precondition { .. } | E::NotModified { .. } => Trouble::Condition,
        E::AlreadyExists { .. } => Trouble::Exists,
        E::NotSupported { .. } | E::NotImplemented { .. } => Trouble::Unsupported,
        E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => Trouble::Refused,
        _ => match status_of(&whole_text(error)) {
            Some(501) => Trouble::Unsupported,
            // A condition on an object that does not change, as some servers answer it.
            Some(412) => Trouble::Condition,
            Some(408 | 429 | 500..) => Trouble::Passing,
            Some(_) => Trouble::Refused,
            None if gives_no_ranges(&whole_text(error)) => Trouble::Unsupported,
            None if is_definite(&whole_text(error)) => Trouble::Refused,
            None => Trouble::Passing,
        },
    }
}

/// Returns the error of an operation on a store, which had been tried for `patience`.
pub(super) fn explained(
    scheme: Scheme,
    error: &object_store::Error,
    patience: Duration,
) -> io::Error {
    let text = whole_text(error);
    let code = code_of(&text);
    let said = said_by(&text);
    let told = if said.is_empty() { String::new() } else { format!(" ({said})") };
    let credentials = format!(
        "check the credentials in the environment and what they allow{}: {PAGE}",
        variables(scheme)
    );
    match code.as_deref() {
        Some("NoSuchBucket" | "ContainerNotFound") => {
            return Fault::carried(
                io::ErrorKind::NotFound,
                format!("there is no such bucket{told}"),
                "check its name, and make it first: sabiprep makes no buckets",
            );
        }
        Some(
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraint",
        ) => {
            return wrong_region(&told);
        }
        Some(
            "ExpiredToken"
            | "RequestTimeTooSkewed"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch",
        ) => {
            return Fault::carried(
                io::ErrorKind::PermissionDenied,
                format!("the store refuses the credentials{told}"),
                credentials,
            );
        }
        _ => {}
    }
    if text.contains("Received redirect without LOCATION") {
        return wrong_region(&told);
    }
    if gives_no_ranges(&text) {
        return Fault::carried(
            io::ErrorKind::Unsupported,
            "the server gives whole files alone, and ranges of them are read",
            "fetch the file and name the local one, or put it on a server that knows Range",
        );
    }
    if text.contains("Content-Length Header missing") || text.contains("MissingContentLength") {
        return Fault::carried(
            io::ErrorKind::Unsupported,
            "the server does not tell how large the file is",
            "fetch the file and name the local one",
        );
    }
    match kind_of(error) {
        Trouble::Missing => io::ErrorKind::NotFound.into(),
        Trouble::Condition => Fault::carried(
            io::ErrorKind::InvalidData,
            "was changed while it was read",
            "run the command again once nothing writes to it",
        ),
        Trouble::Exists => Fault::carried(
            io::ErrorKind::AlreadyExists,
            format!("another program writes to it{told}"),
            "wait until it has ended, or name another place",
        ),
        Trouble::Unsupported => Fault::carried(
            io::ErrorKind::Unsupported,
            format!("the store does not know how to do this{told}"),
            format!("{PAGE} tells what a store must know"),
        ),
        Trouble::Refused => match status_of(&text) {
            Some(401 | 403) => Fault::carried(
                io::ErrorKind::PermissionDenied,
                format!("the store denies access{told}"),
                credentials,
            ),
            _ if matches!(
                error,
                object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
            ) =>
            {
                Fault::carried(
                    io::ErrorKind::PermissionDenied,
                    format!("the store denies access{told}"),
                    credentials,
                )
            }
            _ => Fault::carried(
                io::ErrorKind::Other,
                format!("the store refuses this request{told}"),
                format!("check the path and the settings in the environment: {PAGE}"),
            ),
        },
        Trouble::Passing => unreachable(&failure_of(error, &text), patience),
    }
}

/// Returns the error of a store that did not do what it was asked for, though asked again and again.
pub(super) fn unreachable(failure: &str, patience: Duration) -> io::Error {
    let seconds = patience.as_secs().max(1);
    Fault::carried(
        io::ErrorKind::TimedOut,
        format!("the store fails, tried again for {seconds} s: {failure}"),
        format!(
            "see that the store can be reached, then run the same command again: `pack` goes on from \
             what is finished with --resume ({PAGE}: how long it is tried)"
        ),
    )
}

/// Returns the error of a bucket that lies elsewhere.
fn wrong_region(told: &str) -> io::Error {
    Fault::carried(
        io::ErrorKind::Other,
        format!("the bucket is in another region than the one asked{told}"),
        format!("set AWS_REGION to the region of the bucket: {PAGE}"),
    )
}

/// Returns the variables of credentials of a scheme, in words.
fn variables(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => " (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN)",
        Scheme::Gs => " (GOOGLE_APPLICATION_CREDENTIALS)",
        Scheme::Az => " (AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY)",
        Scheme::Http => "",
    }
}

/// Returns the words of an error and of everything behind it.
fn whole_text(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push('\n');
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Returns the status of the answer behind an error, if any.
fn status_of(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Returns whether an error is that of a server which gives the whole of what a range was asked of:
/// in the words for stores, and for web servers.
fn gives_no_ranges(text: &str) -> bool {
    text.contains("non-partial response") || text.contains("Range request not supported")
}

/// Returns whether an error without an answer is one that no later try would mend.
fn is_definite(text: &str) -> bool {
    ["Invalid", "must be specified", "Missing ", "builder error", "URL scheme is not allowed"]
        .iter()
        .any(|word| text.contains(word))
}

/// Returns the content of an element of an XML answer.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
}

/// Returns the code that a store gives an error.
fn code_of(text: &str) -> Option<String> {
    let code = element(text, "Code")?;
    let is_code = !code.is_empty() && code.chars().all(|c| c.is_ascii_alphanumeric());
    is_code.then(|| code.to_owned())
}

/// Returns what a store said, in short: status and code.
fn said_by(text: &str) -> String {
    let status = status_of(text).map(|status| status.to_string());
    [status, code_of(text)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Returns the failure of a request in a few words.
fn failure_of(error: &object_store::Error, text: &str) -> String {
    let said = said_by(text);
    if !said.is_empty() {
        return format!("it answers {said}");
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = source {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Connect => "no connection can be made",
                HttpErrorKind::Timeout => "it does not answer in time",
                HttpErrorKind::Interrupted | HttpErrorKind::Request => "the connection breaks off",
                HttpErrorKind::Decode => "its answer cannot be read",
                _ => "the request fails",
            }
            .to_owned();
        }
        source = inner.source();
    }
    in_short(text)
}

/// Returns the first line of an error without anything that the environment keeps secret.
pub(super) fn in_short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut line = line.to_owned();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if value.len() >= 6 && PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            line = line.replace(value, "…");
        }
    }
    if line.chars().count() > SHOWN {
        line = line.chars().take(SHOWN).chain(['…']).collect();
    }
    line
}
