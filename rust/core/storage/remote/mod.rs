//! `Remote`: buckets of S3, Google and Azure, and files of web servers, by the crate
//! `object_store`.
//!
//! A store has objects and no folders: a folder is there as long as an object lies below it. Each
//! object appears whole. A folder is renamed one object after another, and a stopped rename goes on
//! where it stopped. Nothing connects before the first path of a store is touched.

mod connect;
mod lock;
mod place;
mod read;
mod runtime;
#[cfg(test)]
mod tests;
mod trouble;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::{FileKind, Lock, Metadata, NewFile, Storage, StoredFile};
use crate::error::Fault;
use lock::{Locks, RemoteLock, Terms};
use place::{Place, Scheme};
pub(crate) use place::{below, is_listed, is_remote, split_store};
use read::{RemoteFile, described, head, range_of};
use runtime::wait;
use trouble::{Trouble, explained, kind_of};
use write::NewRemoteFile;

/// The pauses before a request that failed is made again.
const PAUSES: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(15);
/// The largest object that a store copies in one request.
const MAX_COPY: u64 = 5 << 30;

/// An open store.
#[derive(Debug)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    scheme: Scheme,
    root: String,
    /// How long a failing request is tried again.
    patience: Duration,
}

impl Bucket {
    /// Returns an error of the store in words for the user.
    fn explained(&self, error: &object_store::Error) -> io::Error {
        explained(self.scheme, error, self.patience)
    }

    /// Asks the store, again and again where that fails, as long as the patience lasts. The request
    /// must be one that may be made twice: an answer may be lost.
    async fn ask<T, F>(&self, request: impl Fn() -> F) -> io::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let (mut pause, since) = (PAUSES.start, Instant::now());
        loop {
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(error)
                    if kind_of(&error) == Trouble::Passing && since.elapsed() < self.patience =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.end);
                }
                Err(error) => return Err(self.explained(&error)),
            }
        }
    }

    /// Returns whether any object lies below `key`.
    fn has_below(&self, key: &Key) -> io::Result<bool> {
        let prefix = (!key.as_ref().is_empty()).then_some(key);
        wait(self.ask(|| async { Ok(self.store.list(prefix).next().await.transpose()?.is_some()) }))
    }

    /// Returns every object below `key`, sorted.
    fn all_below(&self, key: &Key) -> io::Result<Vec<ObjectMeta>> {
        let mut objects: Vec<ObjectMeta> =
            wait(self.ask(|| self.store.list(Some(key)).try_collect()))?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }

    /// Removes an object.
    fn remove(&self, key: &Key) -> io::Result<()> {
        wait(self.ask(|| self.store.delete(key)))
    }
}

/// The stores that this machine reaches by the network.
#[derive(Debug, Default)]
pub struct Remote {
    /// Open stores by their roots.
    open: Mutex<HashMap<String, Arc<Bucket>>>,
    locks: Arc<Locks>,
    terms: Terms,
}

impl Remote {
    /// Returns a storage in which `root`, such as `s3://bucket`, is the open `store`. A request that
    /// fails is not tried again.
    #[must_use]
    pub fn over(root: &str, store: Arc<dyn ObjectStore>) -> Self {
        let bucket =
            Bucket { store, scheme: Scheme::S3, root: root.to_owned(), patience: Duration::ZERO };
        let open = Mutex::new(HashMap::from([(root.to_owned(), Arc::new(bucket))]));
        Self { open, ..Self::default() }
    }

    /// Returns the store and the key of a path; opens the store where it is not open.
    fn at(&self, path: &Path) -> io::Result<(Arc<Bucket>, Key)> {
        let place = Place::of(path)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = open.get(&place.root) {
            return Ok((Arc::clone(bucket), place.key));
        }
        let patience = connect::patience()?;
        let store = connect::connect(&place, patience)?;
        let Place { scheme, root, key } = place;
        let bucket = Arc::new(Bucket { store, scheme, root: root.clone(), patience });
        open.insert(root, Arc::clone(&bucket));
        Ok((bucket, key))
    }

    /// Returns the store and the key of a path that is to be changed.
    fn to_change(&self, path: &Path) -> io::Result<(Arc<Bucket>, Key)> {
        let (bucket, key) = self.at(path)?;
        if bucket.scheme == Scheme::Http {
            return Err(Fault::carried(
                io::ErrorKind::Unsupported,
                "a web server is only read from",
                "name a local folder, or one that begins with s3://, gs:// or az://",
            ));
        }
        self.locks.check(&bucket.root, &key)?;
        Ok((bucket, key))
    }

    /// Copies an object within its store.
    fn copy(&self, bucket: &Arc<Bucket>, from: &ObjectMeta, to: &Key) -> io::Result<()> {
        if from.size < MAX_COPY {
            return wait(bucket.ask(|| bucket.store.copy(&from.location, to)));
        }
        let mut content = RemoteFile::new(Arc::clone(bucket), from.clone());
        let mut copy: Box<dyn NewFile> =
            Box::new(NewRemoteFile::new(Arc::clone(bucket), Arc::clone(&self.locks), to.clone()));
        io::copy(&mut content, &mut copy)?;
        copy.publish()
    }

    /// Returns whether two paths lie in one store.
    pub(super) fn share_store(a: &Path, b: &Path) -> bool {
        matches!((Place::of(a), Place::of(b)), (Ok(a), Ok(b)) if a.root == b.root)
    }
}

impl Storage for Remote {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (bucket, key) = self.at(path)?;
        let folder = Metadata { kind: FileKind::Folder, size: 0, modified: None };
        if key.as_ref().is_empty() {
            // The bucket itself is a folder, if there is one.
            if bucket.scheme != Scheme::Http {
                bucket.has_below(&key)?;
            }
            return Ok(folder);
        }
        match head(&bucket, &key)? {
            Some(object) => Ok(described(&object)),
            None if bucket.scheme != Scheme::Http && bucket.has_below(&key)? => Ok(folder),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    // Without a look for a folder, which takes a second request.
    fn is_file(&self, path: &Path) -> bool {
        let object = self.at(path).map(|(bucket, key)| {
            !key.as_ref().is_empty() && matches!(head(&bucket, &key), Ok(Some(_)))
        });
        object.unwrap_or(false)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Place::of(path).map(|place| place.path())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let (bucket, key) = self.at(folder)?;
        if bucket.scheme == Scheme::Http {
            return Err(Fault::carried(
                io::ErrorKind::Unsupported,
                "a web server does not list its files",
                "name each file by its address",
            ));
        }
        let prefix = (!key.as_ref().is_empty()).then_some(&key);
        let found = wait(bucket.ask(|| bucket.store.list_with_delimiter(prefix)))?;
        let objects = found.objects.iter().map(|object| &object.location);
        // An object may stand for the folder itself.
        let inside = objects.chain(&found.common_prefixes).filter(|&inner| *inner != key);
        let names: BTreeSet<OsString> =
            inside.filter_map(|inner| inner.filename().map(OsString::from)).collect();
        if names.is_empty() && !key.as_ref().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let (bucket, key) = self.at(path)?;
        if key.as_ref().is_empty() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        match RemoteFile::open(Arc::clone(&bucket), &key)? {
            Some(file) => Ok(Box::new(file)),
            None if bucket.scheme != Scheme::Http && bucket.has_below(&key)? => {
                Err(io::ErrorKind::IsADirectory.into())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn read_at(&self, path: &Path, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
        // No store gives an answer of no bytes.
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let (bucket, key) = self.at(path)?;
        range_of(bucket, key, range).map(|bytes| Some(bytes.into()))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let (bucket, key) = self.to_change(path)?;
        Ok(Box::new(NewRemoteFile::new(bucket, Arc::clone(&self.locks), key)))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.to_change(path).map(|_| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (bucket, source) = self.to_change(from)?;
        let (_, target) = self.to_change(to)?;
        let objects = match head(&bucket, &source)? {
            Some(object) => vec![object],
            None => bucket.all_below(&source)?,
        };
        if objects.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for object in objects {
            let rest = object.location.as_ref().get(source.as_ref().len()..).unwrap_or_default();
            let key = Key::parse(format!("{target}{rest}")).map_err(io::Error::other)?;
            self.locks.check(&bucket.root, &key)?;
            self.copy(&bucket, &object, &key)?;
            bucket.remove(&object.location)?;
        }
        Ok(())
    }

    fn has_folders(&self, _: &Path) -> bool {
        false
    }

    fn remove_tree(&self, path: &Path) -> io::Result<bool> {
        let (bucket, key) = self.to_change(path)?;
        if key.as_ref().is_empty() {
            return Ok(false);
        }
        let below = bucket.all_below(&key)?.into_iter().map(|object| object.location);
        let all: Vec<Key> = below.chain([key]).collect();
        wait(bucket.ask(|| async {
            let keys = stream::iter(all.clone()).map(Ok).boxed();
            let mut gone = bucket.store.delete_stream(keys);
            while let Some(gone) = gone.next().await {
                match gone {
                    Err(error) if kind_of(&error) == Trouble::Missing => {}
                    gone => drop(gone?),
                }
            }
            Ok(true)
        }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (bucket, source) = self.at(from)?;
        let (_, target) = self.to_change(to)?;
        let object = head(&bucket, &source)?.ok_or(io::ErrorKind::NotFound)?;
        self.copy(&bucket, &object, &target)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (bucket, key) = self.to_change(path)?;
        bucket.remove(&key)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.to_change(path).map(|_| ())
    }

    fn sync_folder(&self, _: &Path) {}

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let (bucket, key) = self.to_change(path)?;
        Ok(Some(Box::new(RemoteLock::take(&bucket, &self.locks, &key, self.terms)?)))
    }

    fn free_bytes(&self, _: &Path) -> Option<u64> {
        None
    }
}
