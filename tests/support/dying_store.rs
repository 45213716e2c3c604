//! A store that dies: at a chosen change it stops, as its run does when it is killed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// The end of a store, at one of its changes, counted from 1.
#[derive(Debug, Clone, Copy)]
pub enum Death {
    /// The change is not made.
    Before(u64),
    /// The change is made, and nobody hears of it.
    After(u64),
}

/// A store in memory, and when it dies.
#[derive(Debug, Clone)]
pub struct Dying {
    inner: Arc<InMemory>,
    death: Death,
    changes: Arc<AtomicU64>,
}

/// Returns the error of every request to a dead store.
fn dead() -> Error {
    Error::Generic { store: "dying", source: "it is dead".into() }
}

impl Dying {
    /// Returns the store `inner` with a `death`.
    pub fn new(inner: Arc<InMemory>, death: Death) -> Self {
        Self { inner, death, changes: Arc::default() }
    }

    /// Returns whether the store is dead.
    fn is_dead(&self) -> bool {
        let changes = self.changes.load(SeqCst);
        match self.death {
            Death::Before(nth) | Death::After(nth) => changes >= nth,
        }
    }

    /// Fails if the store is dead.
    fn look(&self) -> Result<()> {
        if self.is_dead() { Err(dead()) } else { Ok(()) }
    }

    /// Counts a change. Returns whether its answer is lost.
    fn change(&self) -> Result<bool> {
        let now = self.changes.fetch_add(1, SeqCst) + 1;
        match self.death {
            Death::Before(nth) if now >= nth => Err(dead()),
            Death::After(nth) if now > nth => Err(dead()),
            Death::After(nth) => Ok(now == nth),
            Death::Before(_) => Ok(false),
        }
    }
}

/// Returns the answer of a change, unless it is lost.
fn answer<T>(made: Result<T>, is_lost: bool) -> Result<T> {
    if is_lost { Err(dead()) } else { made }
}

impl fmt::Display for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dying")
    }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let is_lost = self.change()?;
        answer(self.inner.put_opts(at, payload, options).await, is_lost)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.look()?;
        let inner = self.inner.put_multipart_opts(at, options).await?;
        Ok(Box::new(DyingUpload { inner, store: self.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.look()?;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .then(move |path| {
                let store = store.clone();
                async move {
                    let is_lost = store.change()?;
                    let path = stream::once(async { path }).boxed();
                    let gone = store.inner.delete_stream(path).next().await;
                    answer(gone.unwrap_or_else(|| Err(dead())), is_lost)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.look() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.look()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let is_lost = self.change()?;
        answer(self.inner.copy_opts(from, to, options).await, is_lost)
    }
}

/// An upload to a store that dies.
#[derive(Debug)]
struct DyingUpload {
    inner: Box<dyn MultipartUpload>,
    store: Dying,
}

#[async_trait]
impl MultipartUpload for DyingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.store.look() {
            Ok(()) => self.inner.put_part(data),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let is_lost = self.store.change()?;
        answer(self.inner.complete().await, is_lost)
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.look()?;
        self.inner.abort().await
    }
}
