//! Opens a store, with credentials from the environment.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::CredentialProvider;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::place::{Place, Scheme};
use super::runtime::wait;
use super::trouble::in_short;
use crate::error::Fault;

/// How long a failing request is tried again, unless the environment says otherwise.
const PATIENCE: Duration = Duration::from_secs(180);
/// The variable that says otherwise, in seconds.
const PATIENCE_VARIABLE: &str = "SABIPREP_RETRY_SECONDS";
/// How long a store may keep silent, and how long one request may take: a slow line must be able to
/// carry one part of an upload.
const SILENCE: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(300);
/// How long credentials are asked for.
const ASKING: Duration = Duration::from_secs(15);

/// Returns how long a failing request is tried again.
pub(super) fn patience() -> io::Result<Duration> {
    let Some(text) = std::env::var_os(PATIENCE_VARIABLE) else { return Ok(PATIENCE) };
    let seconds = text.to_str().and_then(|text| text.trim().parse::<u32>().ok());
    seconds.map(|seconds| Duration::from_secs(seconds.into())).ok_or_else(|| {
        Fault::carried(
            io::ErrorKind::InvalidInput,
            format!("the variable {PATIENCE_VARIABLE} is no number of seconds"),
            format!("set {PATIENCE_VARIABLE} to a whole number, or unset it"),
        )
    })
}

/// Returns the rules by which a request is tried again: as long as `patience` lasts.
fn retries(patience: Duration) -> RetryConfig {
    RetryConfig { max_retries: usize::MAX, retry_timeout: patience, ..RetryConfig::default() }
}

/// Returns the rules by which credentials are asked for: without waiting for an answer that no
/// machine outside a cloud gives.
fn few_retries() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: ASKING / 3, ..RetryConfig::default() }
}

/// Returns the settings of connections, before the environment changes them.
fn options() -> ClientOptions {
    ClientOptions::new().with_read_timeout(SILENCE).with_timeout(REQUEST)
}

/// Returns the variables of the environment that begin with `prefix`, in lower case.
fn variables(prefix: &'static str) -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        // An empty variable is one that is unset.
        let is_one = name.starts_with(prefix) && !value.is_empty();
        is_one.then(|| (name.to_ascii_lowercase(), value))
    })
}

/// Returns whether a variable says yes.
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| {
        ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str())
    })
}

/// Opens the store of a place.
pub(super) fn connect(place: &Place, patience: Duration) -> io::Result<Arc<dyn ObjectStore>> {
    // Fails where it is done already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match place.scheme {
        Scheme::S3 => s3(place.store(), patience),
        Scheme::Gs => gs(place.store(), patience),
        Scheme::Az => az(place.store(), patience),
        Scheme::Http => http(&place.root, patience),
    }
}

/// Opens a bucket of S3.
fn s3(bucket: &str, patience: Duration) -> io::Result<Arc<dyn ObjectStore>> {
    let advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure \
                  export-credentials --format env` prints them), or AWS_SKIP_SIGNATURE=true for a \
                  public bucket: docs/storage.md";
    let mut builder = AmazonS3Builder::new().with_client_options(options());
    for (name, value) in variables("AWS_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    builder = builder.with_bucket_name(bucket);
    let built = |builder: AmazonS3Builder| builder.build().map_err(|error| wrong(&error, advice));
    if !is_set("AWS_SKIP_SIGNATURE") {
        let asked = built(builder.clone().with_retry(few_retries()))?;
        ask(asked.credentials().as_ref(), "S3", advice)?;
    }
    Ok(Arc::new(built(builder.with_retry(retries(patience)))?))
}

/// Opens a bucket of Google.
fn gs(bucket: &str, patience: Duration) -> io::Result<Arc<dyn ObjectStore>> {
    let advice = "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run \
                  `gcloud auth application-default login`; GOOGLE_SKIP_SIGNATURE=true for a public \
                  bucket: docs/storage.md";
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(options());
    for (name, value) in variables("GOOGLE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(bucket);
    let built =
        |builder: GoogleCloudStorageBuilder| builder.build().map_err(|error| wrong(&error, advice));
    if !is_set("GOOGLE_SKIP_SIGNATURE") {
        let asked = built(builder.clone().with_retry(few_retries()))?;
        ask(asked.credentials().as_ref(), "Google Cloud Storage", advice)?;
    }
    Ok(Arc::new(built(builder.with_retry(retries(patience)))?))
}

/// Opens a container of Azure.
fn az(container: &str, patience: Duration) -> io::Result<Arc<dyn ObjectStore>> {
    let advice = "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or \
                  AZURE_STORAGE_SAS_TOKEN; AZURE_SKIP_SIGNATURE=true for a public container: \
                  docs/storage.md";
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(options());
    for (name, value) in variables("AZURE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = builder.get_config_value(&object_store::azure::AzureConfigKey::Endpoint);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    builder = builder.with_container_name(container);
    let built =
        |builder: MicrosoftAzureBuilder| builder.build().map_err(|error| wrong(&error, advice));
    if !is_set("AZURE_SKIP_SIGNATURE") {
        let asked = built(builder.clone().with_retry(few_retries()))?;
        ask(asked.credentials().as_ref(), "Azure", advice)?;
    }
    Ok(Arc::new(built(builder.with_retry(retries(patience)))?))
}

/// Opens a web server.
fn http(address: &str, patience: Duration) -> io::Result<Arc<dyn ObjectStore>> {
    let builder = HttpBuilder::new()
        .with_url(address)
        .with_client_options(options().with_allow_http(true))
        .with_retry(retries(patience));
    let advice = "write the address as a browser would: https://SERVER/FILE";
    Ok(Arc::new(builder.build().map_err(|error| wrong(&error, advice))?))
}

/// Asks for credentials once, so that their absence is told at once and in plain words.
fn ask<C: fmt::Debug + Send + Sync>(
    provider: &dyn CredentialProvider<Credential = C>,
    service: &str,
    advice: &str,
) -> io::Result<()> {
    wait(async {
        match tokio::time::timeout(ASKING, provider.get_credential()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Fault::carried(
                io::ErrorKind::PermissionDenied,
                format!("no credentials for {service} are found in the environment"),
                advice,
            )),
        }
    })
}

/// Returns the error of settings that open no store.
fn wrong(error: &object_store::Error, advice: &str) -> io::Error {
    let what =
        format!("the settings in the environment open no store: {}", in_short(&error.to_string()));
    Fault::carried(io::ErrorKind::InvalidInput, what, advice)
}
