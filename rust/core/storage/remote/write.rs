//! `NewRemoteFile`: an object on its way into a store, which appears whole when it is published.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};

use super::runtime::{Running, wait};
use super::trouble::{Trouble, kind_of};
use super::{Bucket, Locks, PAUSES};
use crate::storage::NewFile;

/// The size of the first parts of an upload. A smaller object is sent in one request.
const PART: usize = 8 << 20;
/// The parts of one size; S3 takes 10,000 parts, so that those of a large object are larger.
const PARTS: usize = 1000;
/// The most parts on their way.
const AHEAD: usize = 3;
/// How long an upload that is given up is cleared away.
const CLEARING: Duration = Duration::from_secs(10);

/// An upload, which one thread at a time may use.
type Upload = Mutex<Box<dyn MultipartUpload>>;

/// Returns the upload for this thread.
fn ours(upload: &mut Upload) -> &mut dyn MultipartUpload {
    &mut **upload.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// An object on its way.
pub(super) struct NewRemoteFile {
    bucket: Arc<Bucket>,
    locks: Arc<Locks>,
    key: Key,
    /// What is not sent yet.
    buffer: Vec<u8>,
    /// The upload, once the object is larger than a part.
    upload: Option<Upload>,
    sent: usize,
    /// The bytes of the object so far.
    len: u64,
    sending: VecDeque<Running<()>>,
}

impl fmt::Debug for NewRemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRemoteFile").field("key", &self.key).finish_non_exhaustive()
    }
}

impl NewRemoteFile {
    /// Begins an object.
    pub(super) fn new(bucket: Arc<Bucket>, locks: Arc<Locks>, key: Key) -> Self {
        Self {
            bucket,
            locks,
            key,
            buffer: Vec::new(),
            upload: None,
            sent: 0,
            len: 0,
            sending: VecDeque::new(),
        }
    }

    /// Returns the size of the next part.
    fn part(&self) -> usize {
        PART * (1 + self.sent / PARTS)
    }

    /// Sends what the buffer holds as the next part.
    fn send(&mut self) -> io::Result<()> {
        let bucket = Arc::clone(&self.bucket);
        let upload = if let Some(upload) = &mut self.upload {
            upload
        } else {
            let begun = wait(bucket.ask(|| bucket.store.put_multipart(&self.key)))?;
            self.upload.insert(Mutex::new(begun))
        };
        if self.sending.len() >= AHEAD
            && let Some(first) = self.sending.pop_front()
        {
            first.join()?;
        }
        let part = ours(upload).put_part(PutPayload::from(std::mem::take(&mut self.buffer)));
        self.sending.push_back(Running::start(async move {
            part.await.map_err(|error| bucket.explained(&error))
        })?);
        self.sent += 1;
        Ok(())
    }
}

impl Write for NewRemoteFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= self.part() {
            self.send()?;
        }
        let room = self.part() - self.buffer.len();
        let len = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..len]);
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for NewRemoteFile {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn publish(mut self: Box<Self>) -> io::Result<()> {
        self.locks.check(&self.bucket.root, &self.key)?;
        if self.upload.is_none() {
            let payload = PutPayload::from(std::mem::take(&mut self.buffer));
            let put = self.bucket.ask(|| self.bucket.store.put(&self.key, payload.clone()));
            return wait(put).map(|_| ());
        }
        if !self.buffer.is_empty() {
            self.send()?;
        }
        while let Some(first) = self.sending.pop_front() {
            first.join()?;
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        wait(complete(&self.bucket, ours(upload), &self.key, self.len))?;
        self.upload = None;
        Ok(())
    }
}

/// Completes an upload of `len` bytes. One that is gone, once an answer was lost, is complete.
async fn complete(
    bucket: &Bucket,
    upload: &mut dyn MultipartUpload,
    key: &Key,
    len: u64,
) -> io::Result<()> {
    let (mut pause, since) = (PAUSES.start, Instant::now());
    let mut is_lost = false;
    loop {
        let Err(error) = upload.complete().await else { return Ok(()) };
        match kind_of(&error) {
            Trouble::Passing if since.elapsed() < bucket.patience => is_lost = true,
            Trouble::Missing if is_lost => {
                let object = bucket.ask(|| bucket.store.head(key)).await?;
                return if object.size == len { Ok(()) } else { Err(bucket.explained(&error)) };
            }
            _ => return Err(bucket.explained(&error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.end);
    }
}

impl Drop for NewRemoteFile {
    fn drop(&mut self) {
        self.sending.clear();
        if let Some(mut upload) = self.upload.take() {
            // Best effort: there is a worse error to report, and a rule of the bucket clears the rest.
            let _ = wait(async {
                let _ = tokio::time::timeout(CLEARING, ours(&mut upload).abort()).await;
                Ok(())
            });
        }
    }
}
