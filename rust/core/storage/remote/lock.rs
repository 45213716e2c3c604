//! `RemoteLock`: a lock that is an object, written only where there is none and renewed while it is
//! held.
//!
//! No store releases a lock for a process that was killed. So a lock that was not renewed for a
//! while, by the clock of the store, is taken over. Whoever holds a lock and could not renew it in
//! time writes nothing more: another run may have it.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};

use super::Bucket;
use super::runtime::{Running, wait};
use super::trouble::{Trouble, kind_of};
use crate::error::Fault;
use crate::storage::Lock;

/// How often a lock is renewed, and the age at which it counts as left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub renewed: Duration,
    pub left: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { renewed: Duration::from_secs(10), left: Duration::from_secs(60) }
    }
}

/// The content of a lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    id: String,
    host: String,
    process: u32,
    renewals: u64,
}

impl Holder {
    /// Returns this process as a holder.
    fn new() -> Self {
        Self { id: random_id(), host: host(), process: std::process::id(), renewals: 0 }
    }

    /// Returns the content of the lock.
    fn payload(&self) -> PutPayload {
        serde_json::to_vec(self).expect("a holder is plain data").into()
    }
}

/// Returns an id that no other holder has.
fn random_id() -> String {
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// Returns the name of this machine.
#[expect(clippy::disallowed_methods, reason = "the system tells its name by a file")]
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    if name.trim().is_empty() { "an unknown machine".to_owned() } else { name.trim().to_owned() }
}

/// The state of a held lock that its renewal shares.
#[derive(Debug)]
struct Held {
    version: UpdateVersion,
    /// The last time that the lock was known to be ours.
    since: Instant,
    is_lost: bool,
}

/// A held lock: what lies beside it may be written.
#[derive(Debug)]
struct Guarded {
    root: String,
    key: Key,
    left: Duration,
    held: Mutex<Held>,
}

impl Guarded {
    /// Locks the shared state.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The locks that are held by a storage.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<Vec<Arc<Guarded>>>);

impl Locks {
    /// Returns the list of locks.
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Guarded>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a change to `key` if a lock in its store was lost, or may have been.
    pub(super) fn check(&self, root: &str, key: &Key) -> io::Result<()> {
        for lock in self.all().iter().filter(|lock| lock.root == root) {
            let held = lock.held();
            if held.is_lost || held.since.elapsed() >= lock.left {
                return Err(Fault::carried(
                    io::ErrorKind::Other,
                    format!(
                        "{key} is not written: the lock {}/{} could not be renewed for {} s, and \
                         another run may have taken it",
                        lock.root,
                        lock.key,
                        lock.left.as_secs()
                    ),
                    "see that no other run packs into it, then pass --resume",
                ));
            }
        }
        Ok(())
    }
}

/// A lock held by this process.
pub(super) struct RemoteLock {
    bucket: Arc<Bucket>,
    locks: Arc<Locks>,
    guarded: Option<Arc<Guarded>>,
    renewing: Option<Running<()>>,
}

impl fmt::Debug for RemoteLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteLock").field("guarded", &self.guarded).finish_non_exhaustive()
    }
}

impl Lock for RemoteLock {}

impl RemoteLock {
    /// Takes the lock `key`; an error where another process holds it.
    pub(super) fn take(
        bucket: &Arc<Bucket>,
        locks: &Arc<Locks>,
        key: &Key,
        terms: Terms,
    ) -> io::Result<Self> {
        let holder = Holder::new();
        let version = match wait(bucket.put_if(key, &holder, PutMode::Create))? {
            Put::Done(version) => {
                refuse_unconditional(bucket, key)?;
                version
            }
            // Whoever sets this says that no other run writes here.
            Put::Unsupported if is_switched_off() => {
                return Ok(Self {
                    bucket: Arc::clone(bucket),
                    locks: Arc::clone(locks),
                    guarded: None,
                    renewing: None,
                });
            }
            Put::Unsupported => return Err(no_conditions()),
            Put::Refused => take_over(bucket, key, &holder, terms)?,
        };
        let held = Mutex::new(Held { version, since: Instant::now(), is_lost: false });
        let guarded = Arc::new(Guarded {
            root: bucket.root.clone(),
            key: key.clone(),
            left: terms.left,
            held,
        });
        let renewing =
            Running::start(renew(Arc::clone(bucket), Arc::clone(&guarded), holder, terms.renewed))?;
        locks.all().push(Arc::clone(&guarded));
        Ok(Self {
            bucket: Arc::clone(bucket),
            locks: Arc::clone(locks),
            guarded: Some(guarded),
            renewing: Some(renewing),
        })
    }
}

impl Drop for RemoteLock {
    fn drop(&mut self) {
        self.renewing = None;
        let Some(guarded) = self.guarded.take() else { return };
        self.locks.all().retain(|lock| !Arc::ptr_eq(lock, &guarded));
        let e_tag = guarded.held().version.e_tag.clone();
        // Best effort: a lock that stays counts as left after a while.
        let _ = wait(async {
            let store = &self.bucket.store;
            let ours = store.head(&guarded.key).await.is_ok_and(|object| object.e_tag == e_tag);
            if ours {
                let _ = store.delete(&guarded.key).await;
            }
            Ok(())
        });
    }
}

/// Renews a lock until it is dropped or lost.
async fn renew(
    bucket: Arc<Bucket>,
    guarded: Arc<Guarded>,
    mut holder: Holder,
    every: Duration,
) -> io::Result<()> {
    loop {
        tokio::time::sleep(every).await;
        let asked = Instant::now();
        holder.renewals += 1;
        let version = guarded.held().version.clone();
        match bucket.put_if(&guarded.key, &holder, PutMode::Update(version)).await {
            Ok(Put::Done(version)) => {
                let mut held = guarded.held();
                held.version = version;
                held.since = asked;
            }
            Ok(Put::Refused) => {
                guarded.held().is_lost = true;
                return Ok(());
            }
            // Tried again; in time the lock counts as lost.
            Ok(Put::Unsupported) | Err(_) => {}
        }
    }
}

/// The outcome of a write with a condition.
pub(super) enum Put {
    /// Written.
    Done(UpdateVersion),
    /// The condition did not hold.
    Refused,
    /// The store knows no conditions.
    Unsupported,
}

impl Bucket {
    /// Writes a lock if the condition of `mode` holds.
    async fn put_if(&self, key: &Key, holder: &Holder, mode: PutMode) -> io::Result<Put> {
        let put = || self.store.put_opts(key, holder.payload(), mode.clone().into());
        let error = match put().await {
            Ok(put) => return Ok(Put::Done(put.into())),
            Err(error) => error,
        };
        match kind_of(&error) {
            Trouble::Unsupported => return Ok(Put::Unsupported),
            Trouble::Exists | Trouble::Condition | Trouble::Passing => {}
            _ => return Err(self.explained(&error)),
        }
        // The lock may have been written, and the answer lost: what lies there tells.
        if let Some((object, found)) = self.holder_of(key).await?
            && found.id == holder.id
        {
            return Ok(Put::Done(UpdateVersion { e_tag: object.e_tag, version: object.version }));
        }
        if kind_of(&error) != Trouble::Passing {
            return Ok(Put::Refused);
        }
        match put().await {
            Ok(put) => Ok(Put::Done(put.into())),
            Err(error) if kind_of(&error) == Trouble::Passing => Err(self.explained(&error)),
            Err(_) => Ok(Put::Refused),
        }
    }

    /// Returns the object of a lock and who holds it; `None` where there is none.
    async fn holder_of(&self, key: &Key) -> io::Result<Option<(ObjectMeta, Holder)>> {
        let read = || async {
            let answer = self.store.get(key).await?;
            let object = answer.meta.clone();
            Ok((object, answer.bytes().await?))
        };
        let (object, bytes) = match self.ask(read).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        // A lock that another program wrote is one of an unknown holder.
        let holder = serde_json::from_slice(&bytes).unwrap_or(Holder {
            id: String::new(),
            host: "an unknown machine".to_owned(),
            process: 0,
            renewals: 0,
        });
        Ok(Some((object, holder)))
    }

    /// Returns the time by the clock of the store: that of an object written now.
    async fn now(&self, beside: &Key) -> io::Result<object_store::ObjectMeta> {
        let folder = beside.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
        let name = crate::storage::change::temporary(std::path::Path::new(&random_id()));
        let key = Key::parse(format!("{folder}/{}", name.display())).map_err(io::Error::other)?;
        self.ask(|| async {
            self.store.put(&key, PutPayload::new()).await?;
            let object = self.store.head(&key).await?;
            self.store.delete(&key).await?;
            Ok(object)
        })
        .await
    }
}

/// Takes a lock over that was left; an error where it is held.
fn take_over(
    bucket: &Arc<Bucket>,
    key: &Key,
    holder: &Holder,
    terms: Terms,
) -> io::Result<UpdateVersion> {
    let Some((object, other)) = wait(bucket.holder_of(key))? else {
        return Err(held_by(None, terms.left));
    };
    let now = wait(bucket.now(key))?;
    let age = (now.last_modified - object.last_modified).to_std().unwrap_or_default();
    if age < terms.left {
        return Err(held_by(Some((&other, age)), terms.left.saturating_sub(age)));
    }
    let version = UpdateVersion { e_tag: object.e_tag, version: object.version };
    match wait(bucket.put_if(key, holder, PutMode::Update(version)))? {
        Put::Done(version) => Ok(version),
        Put::Refused => Err(held_by(None, terms.left)),
        Put::Unsupported => Err(no_conditions()),
    }
}

/// Returns the error of a lock that is held.
fn held_by(other: Option<(&Holder, Duration)>, left: Duration) -> io::Error {
    let who = other.map_or_else(String::new, |(other, age)| {
        format!(
            " (process {} on {}, last heard of {} s ago)",
            other.process,
            other.host,
            age.as_secs()
        )
    });
    Fault::carried(
        io::ErrorKind::WouldBlock,
        format!("another sabiprep is packing into it{who}"),
        format!(
            "wait until it has ended, or name another folder; if it was killed, its lock counts as \
             left in {} s: then run the command again",
            left.as_secs().max(1)
        ),
    )
}

/// Refuses a store that writes whatever the condition: a second write of a new object must fail.
fn refuse_unconditional(bucket: &Bucket, key: &Key) -> io::Result<()> {
    match wait(bucket.put_if(key, &Holder::new(), PutMode::Create))? {
        Put::Refused => Ok(()),
        Put::Done(_) | Put::Unsupported => {
            let _ = wait(async { Ok(bucket.store.delete(key).await) });
            Err(no_conditions())
        }
    }
}

/// Returns whether conditional writes are switched off in the environment.
fn is_switched_off() -> bool {
    std::env::var("AWS_CONDITIONAL_PUT").is_ok_and(|value| value == "disabled")
}

/// Returns the error of a store that knows no conditional writes.
fn no_conditions() -> io::Error {
    Fault::carried(
        io::ErrorKind::Unsupported,
        "the store knows no conditional writes (If-None-Match), which keep two runs apart",
        "pack into a store that knows them, or see yourself that no other run packs into it and set \
         AWS_CONDITIONAL_PUT=disabled",
    )
}
