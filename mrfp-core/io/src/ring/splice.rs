//! From one stream to another inside the kernel: a pipe takes references to the pages that hold what was
//! received, and the other stream takes them out of it. The pipe is empty between two calls, so one serves
//! all sockets; what a stream does not take is read back.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, RawFd};

use crate::driver::Spliced;

/// The most that is moved at once: some ten times what a call costs, and what a stream that has become slow
/// makes us read back.
const SPLICED_BYTES_MAX: usize = 256 * 1024;

/// Room for as many pages, however little of each is used: a received segment may have one for itself. No
/// more is allowed without privileges.
const PIPE_BYTES: i32 = 1024 * 1024;

pub(super) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    rest: Vec<u8>,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // With fewer pages less is moved at once, which is all that is lost where this fails.
        // SAFETY: changes the size of a pipe of our own, and names no memory.
        let _ = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        Ok(Self { reader, writer, rest: Vec::new() })
    }

    pub(super) fn splice(
        &mut self,
        from: &socket2::Socket,
        to: &socket2::Socket,
    ) -> io::Result<Option<Spliced<'_>>> {
        self.rest.clear();
        let taken = match without_waiting(from, |from| {
            move_pages(from, self.writer.as_raw_fd(), SPLICED_BYTES_MAX)
        }) {
            Ok(0) => return Ok(None),
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let mut passed = 0;
        if taken > 0 {
            let pipe = self.reader.as_raw_fd();
            // Why it takes none shows when the rest is sent.
            passed = without_waiting(to, |to| move_pages(pipe, to, taken)).unwrap_or(0);
            self.rest.resize(taken - passed, 0);
            self.reader.read_exact(&mut self.rest)?;
        }
        Ok(Some(Spliced { passed, rest: &self.rest }))
    }
}

/// The kernel goes by the descriptor's own flag, which operations on a ring must not have, as they would fail
/// then rather than wait.
fn without_waiting(
    socket: &socket2::Socket,
    act: impl FnOnce(RawFd) -> io::Result<usize>,
) -> io::Result<usize> {
    socket.set_nonblocking(true)?;
    let done = act(socket.as_raw_fd());
    socket.set_nonblocking(false)?;
    done
}

fn move_pages(from: RawFd, to: RawFd, bytes: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open as their owners are borrowed, and without offsets no memory of
    // ours is named.
    let count = unsafe { libc::splice(from, none, to, none, bytes, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
