//! What a connection has to send: buffers of the pool, gathered, sealed at the last moment, given to the
//! kernel together.

use std::collections::{VecDeque, vec_deque};

use mrfp_io::{SendBuffer, SendBufferClass, SendBuffers};
use mrfp_protocol::tls::{self, Session};

/// Output of one connection.
#[derive(Debug, Default)]
pub struct Egress {
    filling: Option<SendBuffer>,
    sealed: VecDeque<SendBuffer>,
    /// Buffers with the kernel.
    in_flight: usize,
    /// Those of `sealed` that it has given back, not wholly sent.
    unsent: usize,
}

/// The output cannot take more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EgressError {
    /// The pool, or this connection's share of it, is used up.
    Exhausted,
    /// The TLS session refused to seal.
    Seal(tls::RecordError),
}

impl Egress {
    /// Buffers that may wait before a UE holds its own messages back: what leaves together.
    pub const WAITING_BUFFERS_WANTED: usize = 4;
    /// Buffers that may wait at all: a node that sends but does not read ends here.
    const WAITING_BUFFERS_MAX: usize = 64;

    /// There is room for the UE's own messages.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.sealed.len() < Self::WAITING_BUFFERS_WANTED
    }

    /// Nothing waits and nothing is with the kernel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filling.is_none() && self.sealed.is_empty() && !self.in_flight()
    }

    /// Something is with the kernel.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Gathers `bytes`, sealing what no longer fits with them into one buffer.
    pub fn append(
        &mut self,
        mut bytes: &[u8],
        pool: &mut SendBuffers,
        session: Option<&mut Session>,
    ) -> Result<(), EgressError> {
        let mut session = session;
        while !bytes.is_empty() {
            let class = if self.filling.is_none() && self.sealed.is_empty() {
                SendBufferClass::Small
            } else {
                SendBufferClass::Large
            };
            let mut buffer = match self.filling.take() {
                Some(buffer) => buffer,
                None => take(pool, class).ok_or(EgressError::Exhausted)?,
            };
            let range = buffer.range();
            let room = (buffer.capacity_bytes() - tls::SEAL_TAILROOM_BYTES - range.end)
                .min(tls::PLAINTEXT_BYTES_MAX - range.len());
            // A message that fits a buffer of its own is not torn between two.
            let fits_alone = bytes.len() <= tls::PLAINTEXT_BYTES_MAX;
            let torn = room < bytes.len() && !range.is_empty() && fits_alone;
            let count = if torn { 0 } else { room.min(bytes.len()) };
            buffer.memory_mut()[range.end..range.end + count].copy_from_slice(&bytes[..count]);
            buffer.set_range(range.start..range.end + count);
            bytes = &bytes[count..];
            self.filling = Some(buffer);
            if !bytes.is_empty() {
                self.seal(session.as_deref_mut())?;
            }
        }
        Ok(())
    }

    /// Ends the buffer that is being filled: what follows goes out under other protection.
    pub fn seal(&mut self, session: Option<&mut Session>) -> Result<(), EgressError> {
        let Some(mut buffer) = self.filling.take() else {
            return Ok(());
        };
        if let Some(session) = session {
            let range = buffer.range();
            match session.seal(buffer.memory_mut(), range) {
                Ok(record) => buffer.set_range(record),
                Err(error) => {
                    self.filling = Some(buffer);
                    return Err(EgressError::Seal(error));
                }
            }
        }
        self.sealed.push_back(buffer);
        if self.sealed.len() > Self::WAITING_BUFFERS_MAX {
            return Err(EgressError::Exhausted);
        }
        Ok(())
    }

    /// What waits, for the kernel, in order; nothing before it has given back what it has.
    pub fn take_waiting(
        &mut self,
        session: Option<&mut Session>,
    ) -> Result<vec_deque::Drain<'_, SendBuffer>, EgressError> {
        if self.in_flight() {
            return Ok(self.sealed.drain(..0));
        }
        // A buffer that is not full waits for more behind those that are.
        if self.sealed.is_empty() {
            self.seal(session)?;
        }
        self.in_flight = self.sealed.len();
        self.unsent = 0;
        Ok(self.sealed.drain(..))
    }

    /// The kernel gave a buffer back after taking `count` bytes of it.
    pub fn completed(&mut self, mut buffer: SendBuffer, count: usize, pool: &mut SendBuffers) {
        assert!(self.in_flight());
        self.in_flight -= 1;
        buffer.advance(count.min(buffer.range().len()));
        if buffer.range().is_empty() {
            pool.put(buffer);
        } else {
            self.sealed.insert(self.unsent, buffer);
            self.unsent += 1;
        }
    }

    /// Gives everything that waits back: the connection is lost.
    pub fn discard(&mut self, pool: &mut SendBuffers) {
        for buffer in self.filling.take().into_iter().chain(self.sealed.drain(..)) {
            pool.put(buffer);
        }
    }
}

fn take(pool: &mut SendBuffers, class: SendBufferClass) -> Option<SendBuffer> {
    pool.take(class, tls::SEAL_HEADROOM_BYTES)
        .or_else(|| pool.take(SendBufferClass::Large, tls::SEAL_HEADROOM_BYTES))
}
