//! `Members`: the content of a file of one compressed member or several, one after another.
//!
//! Each library reads one member; what follows a member is looked at here, the same way for all:
//! another member, zeros (tapes and disks pad with them), or anything else, which is refused.
//! Memory is bounded by the library's window, whatever the file claims.

use std::io::{self, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::compression::{Begins, Flaw};
use super::stored::Stored;

/// The largest window of zstd, as a power of two: the bound of the command `zstd`.
const ZSTD_WINDOW: u32 = 27;
/// The memory that xz may take: a window as large as that of zstd, and its tables.
const XZ_MEMORY: u64 = (1 << ZSTD_WINDOW) + (8 << 20);
/// The bytes of a member's start that tell it from anything else.
const START: usize = 10;

/// The decompressor of one member.
pub(super) trait Member<R>: Read + Sized {
    /// Begins a member at the next unread byte.
    fn begin(stored: Stored<R>) -> io::Result<Self>;

    /// Returns the bytes that follow the member, once it is read to its end.
    fn end(self) -> Stored<R>;

    /// Returns an error of the library in words of our own where it has none for the user.
    fn explained(error: io::Error) -> io::Error {
        error
    }
}

/// Returns the error of a member that needs more memory to be read than there may be.
fn too_large(command: &str) -> io::Error {
    let what = "needs more than 128 MiB of memory to be unpacked";
    Flaw::new(what, format!("unpack it: {command}; then name what comes of it")).into()
}

impl<R: Read> Member<R> for GzDecoder<Stored<R>> {
    fn begin(stored: Stored<R>) -> io::Result<Self> {
        Ok(Self::new(stored))
    }

    fn end(self) -> Stored<R> {
        self.into_inner()
    }
}

impl<R: Read> Member<R> for BzDecoder<Stored<R>> {
    fn begin(stored: Stored<R>) -> io::Result<Self> {
        Ok(Self::new(stored))
    }

    fn end(self) -> Stored<R> {
        self.into_inner()
    }
}

impl<R: Read> Member<R> for XzDecoder<Stored<R>> {
    fn begin(stored: Stored<R>) -> io::Result<Self> {
        Ok(Self::new_stream(stored, Stream::new_stream_decoder(XZ_MEMORY, 0)?))
    }

    fn end(self) -> Stored<R> {
        self.into_inner()
    }

    fn explained(error: io::Error) -> io::Error {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(liblzma::stream::Error::MemLimit) => too_large("xz -dk FILE"),
            _ => error,
        }
    }
}

impl<R: Read> Member<R> for ZstdDecoder<'static, Stored<R>> {
    fn begin(stored: Stored<R>) -> io::Result<Self> {
        let mut decoder = Self::with_buffer(stored)?.single_frame();
        decoder.window_log_max(ZSTD_WINDOW)?;
        Ok(decoder)
    }

    fn end(self) -> Stored<R> {
        self.finish()
    }

    fn explained(error: io::Error) -> io::Error {
        // The library tells its errors apart by their words alone.
        if error.to_string().contains("too much memory") {
            return too_large("zstd -d --long=31 FILE");
        }
        error
    }
}

/// The content of the members of a file.
pub(super) struct Members<R, M> {
    state: State<R, M>,
    name: &'static str,
    begins: Begins,
}

/// The place of a cursor over members.
enum State<R, M> {
    /// Before the first member.
    Before(Stored<R>),
    Inside(M),
    End,
    /// After an error.
    Broken,
}

impl<R: Read, M: Member<R>> Members<R, M> {
    /// Returns the content of a file of the compression `name`, whose members start as `begins`
    /// knows.
    pub(super) fn new(file: R, name: &'static str, begins: Begins) -> Self {
        Self { state: State::Before(Stored::new(file)), name, begins }
    }

    /// Reads content, or nothing and goes on to the next member. Returns `None` in that case.
    fn step(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Before(mut stored) => {
                if stored.peek(1)?.is_empty() {
                    return Err(self.empty());
                }
                if !(self.begins)(stored.peek(START)?) {
                    return Err(self.other());
                }
                self.state = State::Inside(M::begin(stored)?);
                Ok(None)
            }
            State::Inside(mut member) => {
                let len = member.read(into).map_err(M::explained)?;
                if len > 0 {
                    self.state = State::Inside(member);
                    return Ok(Some(len));
                }
                let mut stored = member.end();
                self.state = if !stored.skip_zeros()? {
                    State::End
                } else if (self.begins)(stored.peek(START)?) {
                    State::Inside(M::begin(stored)?)
                } else {
                    return Err(self.garbage(stored.offset()));
                };
                Ok(None)
            }
            State::End => {
                self.state = State::End;
                Ok(Some(0))
            }
            State::Broken => Err(io::Error::other("read again after an error")),
        }
    }

    /// Returns the error of a file without a byte.
    fn empty(&self) -> io::Error {
        let what = format!("is empty, as no {} file is", self.name);
        Flaw::new(what, "fetch or compress the file again").into()
    }

    /// Returns the error of a file that begins with no member.
    fn other(&self) -> io::Error {
        let what = format!("is not {}, though its name says so", self.name);
        Flaw::new(what, "give it the suffix of what it holds; `file FILE` tells what it is").into()
    }

    /// Returns the error of a file with something else after its last member.
    fn garbage(&self, offset: u64) -> io::Error {
        let what = format!(
            "goes on after the end of its {}, from its byte {} on, with something else",
            self.name,
            offset + 1
        );
        let remedy = format!("fetch the file again, or cut it off: head -c {offset} FILE > NEW");
        Flaw::new(what, remedy).into()
    }
}

impl<R: Read, M: Member<R>> Read for Members<R, M> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(len) = self.step(into)? {
                return Ok(len);
            }
        }
    }
}
