//! Memory for bytes on their way out: a pool that is filled once and never grows.

use std::net::{SocketAddr, SocketAddrV6};
use std::ops::Range;

/// Which of the two sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendBufferClass {
    /// For chat messages and responses.
    Small,
    /// One full TLS record.
    Large,
}

/// Sizes and counts of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendBuffersConfig {
    /// Bytes of a small buffer.
    pub small_size_bytes: usize,
    /// How many small ones.
    pub small_count_max: usize,
    /// Bytes of a large buffer.
    pub large_size_bytes: usize,
    /// How many large ones.
    pub large_count_max: usize,
}

/// One buffer: memory and the range of it that holds bytes.
#[derive(Debug)]
pub struct SendBuffer {
    memory: Box<[u8]>,
    range: Range<usize>,
    class: SendBufferClass,
    note: u32,
    /// It is a datagram with a destination, which the end of the memory holds: buffers are moved for
    /// every message, and hardly one of them is such a datagram.
    is_addressed: bool,
}

/// Bytes at the end of the memory of a buffer that has a destination.
pub const DESTINATION_BYTES: usize = 23;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

impl SendBuffer {
    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }

    /// Where the bytes lie in the memory.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Moves the range, e.g. to the sealed record that now surrounds the plaintext. Panics if it
    /// does not fit the memory.
    pub fn set_range(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end);
        assert!(range.end <= self.memory.len());
        self.range = range;
    }

    /// The whole memory, to write or seal in place.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Drops `count` bytes from the front (a short send). Panics if there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.range.len());
        self.range.start += count;
    }

    /// Bytes of memory, used or not.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.memory.len()
    }

    /// What the owner has noted last: a word that comes back from the kernel with the buffer.
    #[must_use]
    pub fn note(&self) -> u32 {
        self.note
    }

    /// Notes a word.
    pub fn set_note(&mut self, note: u32) {
        self.note = note;
    }

    /// Where it goes as a datagram, on a socket that has no peer.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        let (_, kept) = self.memory.split_last_chunk().filter(|_| self.is_addressed)?;
        let [family, address @ .., s0, s1, s2, s3, p0, p1]: [u8; DESTINATION_BYTES] = *kept;
        let port = u16::from_be_bytes([p0, p1]);
        Some(match (family, address) {
            (FAMILY_V4, [a, b, c, d, ..]) => SocketAddr::from(([a, b, c, d], port)),
            (_, address) => {
                let scope = u32::from_be_bytes([s0, s1, s2, s3]);
                SocketAddrV6::new(address.into(), port, 0, scope).into()
            }
        })
    }

    /// Addresses it. Panics if its bytes reach into the last [`DESTINATION_BYTES`] of the memory.
    pub fn set_destination(&mut self, destination: SocketAddr) {
        let start = self.memory.len() - DESTINATION_BYTES;
        assert!(self.range.end <= start);
        let kept = &mut self.memory[start..];
        match destination {
            SocketAddr::V4(it) => {
                kept[0] = FAMILY_V4;
                kept[1..5].copy_from_slice(&it.ip().octets());
            }
            SocketAddr::V6(it) => {
                kept[0] = FAMILY_V6;
                kept[1..17].copy_from_slice(&it.ip().octets());
                kept[17..21].copy_from_slice(&it.scope_id().to_be_bytes());
            }
        }
        kept[21..].copy_from_slice(&destination.port().to_be_bytes());
        self.is_addressed = true;
    }

    /// Which size this is.
    #[must_use]
    pub fn class(&self) -> SendBufferClass {
        self.class
    }
}

/// The pool. Buffers are made lazily up to the counts and then only reused.
#[derive(Debug)]
pub struct SendBuffers {
    config: SendBuffersConfig,
    free: [Vec<SendBuffer>; 2],
    made: [usize; 2],
}

impl SendBuffers {
    /// A pool of the given shape.
    #[must_use]
    pub fn new(config: SendBuffersConfig) -> Self {
        Self {
            config,
            free: [
                Vec::with_capacity(config.small_count_max),
                Vec::with_capacity(config.large_count_max),
            ],
            made: [0, 0],
        }
    }

    /// An empty buffer whose range starts (and ends) at `headroom_bytes`; `None` when the class is
    /// exhausted, which is the caller's back-pressure.
    pub fn take(&mut self, class: SendBufferClass, headroom_bytes: usize) -> Option<SendBuffer> {
        let (size, count_max) = match class {
            SendBufferClass::Small => (self.config.small_size_bytes, self.config.small_count_max),
            SendBufferClass::Large => (self.config.large_size_bytes, self.config.large_count_max),
        };
        let mut buffer = match self.free[class as usize].pop() {
            Some(buffer) => buffer,
            None if self.made[class as usize] < count_max => {
                self.made[class as usize] += 1;
                let memory = vec![0; size].into_boxed_slice();
                SendBuffer { memory, range: 0..0, class, note: 0, is_addressed: false }
            }
            None => return None,
        };
        buffer.set_range(headroom_bytes..headroom_bytes);
        buffer.is_addressed = false;
        Some(buffer)
    }

    /// Takes a buffer back.
    pub fn put(&mut self, buffer: SendBuffer) {
        let free = &mut self.free[buffer.class as usize];
        assert!(free.len() < self.made[buffer.class as usize]);
        free.push(buffer);
    }

    /// Large buffers that are out, of how many there may be: the measure of memory pressure, as
    /// whoever finds no small buffer takes a large one.
    #[must_use]
    pub fn large_in_use(&self) -> (usize, usize) {
        let class = SendBufferClass::Large as usize;
        (self.made[class] - self.free[class].len(), self.config.large_count_max)
    }

    /// Buffers that can still be taken, both classes.
    #[must_use]
    pub fn available(&self) -> usize {
        self.config.small_count_max + self.config.large_count_max - self.outstanding()
    }

    /// Buffers that are out, both classes.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.made[0] + self.made[1] - self.free[0].len() - self.free[1].len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_kept_as_it_was_given_until_the_buffer_is_taken_again() {
        let mut pool = SendBuffers::new(SendBuffersConfig {
            small_size_bytes: 64,
            small_count_max: 1,
            large_size_bytes: 64,
            large_count_max: 0,
        });
        for to in ["192.0.2.1:5060", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:2", "[fe80::1%3]:4"] {
            let mut buffer = pool.take(SendBufferClass::Small, 0).expect("there is one");
            assert_eq!(buffer.destination(), None);
            let to: SocketAddr = to.parse().expect("an address");
            buffer.set_destination(to);
            assert_eq!(buffer.destination(), Some(to));
            pool.put(buffer);
        }
    }
}
