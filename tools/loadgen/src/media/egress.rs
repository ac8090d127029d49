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

#[cfg(test)]
mod tests {
    use super::*;
    use mrfp_io::SendBuffersConfig;

    fn pool() -> SendBuffers {
        let large_size_bytes =
            tls::SEAL_HEADROOM_BYTES + tls::PLAINTEXT_BYTES_MAX + tls::SEAL_TAILROOM_BYTES;
        SendBuffers::new(SendBuffersConfig {
            small_size_bytes: 1024,
            small_count_max: 8,
            large_size_bytes,
            large_count_max: 8,
        })
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length as u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
    }

    #[test]
    fn what_fills_more_than_a_buffer_leaves_none_half_empty() {
        let (mut pool, mut egress) = (pool(), Egress::default());
        let chunk = pattern(tls::PLAINTEXT_BYTES_MAX + 300);
        let small = b"a message";
        egress.append(small, &mut pool, None).unwrap();
        egress.append(&chunk, &mut pool, None).unwrap();
        egress.append(&chunk, &mut pool, None).unwrap();
        let waiting: Vec<_> = egress.take_waiting(None).unwrap().collect();
        assert_eq!(waiting[1].range().len(), tls::PLAINTEXT_BYTES_MAX);
        let mut sent: Vec<u8> = waiting.iter().flat_map(|it| it.bytes().to_vec()).collect();
        waiting.into_iter().for_each(|it| egress.completed(it, usize::MAX, &mut pool));
        let rest: Vec<_> = egress.take_waiting(None).unwrap().collect();
        assert_eq!(rest.len(), 1);
        sent.extend(rest.iter().flat_map(|it| it.bytes().to_vec()));
        assert!(sent == [small.as_slice(), &chunk, &chunk].concat());
    }

    #[test]
    fn what_the_kernel_has_not_taken_leaves_first_and_in_order() {
        let (mut pool, mut egress) = (pool(), Egress::default());
        let bytes = pattern(3 * tls::PLAINTEXT_BYTES_MAX);
        egress.append(&bytes, &mut pool, None).unwrap();
        let mut sent = Vec::new();
        // Of each buffer that was to follow nothing has been taken.
        for taken in [5_000, usize::MAX] {
            let waiting: Vec<_> = egress.take_waiting(None).unwrap().collect();
            assert_eq!(egress.take_waiting(None).unwrap().len(), 0, "one batch at a time");
            let mut left = taken;
            for buffer in waiting {
                let count = left.min(buffer.range().len());
                left -= count;
                sent.extend_from_slice(&buffer.bytes()[..count]);
                egress.completed(buffer, count, &mut pool);
            }
        }
        while !egress.is_empty() {
            let waiting: Vec<_> = egress.take_waiting(None).unwrap().collect();
            for buffer in waiting {
                sent.extend_from_slice(buffer.bytes());
                egress.completed(buffer, usize::MAX, &mut pool);
            }
        }
        assert!(sent == bytes);
        assert_eq!(pool.outstanding(), 0);
    }
}
