//! What waits to be sent on one connection: buffers in order, gathered so that one send (and one TLS
//! record) carries everything a turn has produced.

use std::collections::VecDeque;

use mrfp_io::{SendBuffer, SendBufferClass, SendBuffers};
use mrfp_protocol::tls::{SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES};

use crate::config::{SEND_BUFFER_LARGE_SIZE_BYTES, SEND_BUFFER_SMALL_SIZE_BYTES};

/// Bytes of payload a small and a large buffer take. The same for plain connections, so that one
/// arithmetic serves both.
const SMALL_PAYLOAD_BYTES: usize =
    SEND_BUFFER_SMALL_SIZE_BYTES - SEAL_HEADROOM_BYTES - SEAL_TAILROOM_BYTES;
const LARGE_PAYLOAD_BYTES: usize =
    SEND_BUFFER_LARGE_SIZE_BYTES - SEAL_HEADROOM_BYTES - SEAL_TAILROOM_BYTES;

/// Entries of queue memory a quiet connection keeps.
const QUEUE_CAPACITY_KEPT: usize = 8;

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    queue: VecDeque<Queued>,
    /// Bytes in `queue` and in flight, as queued (before sealing).
    bytes: usize,
    /// Bytes of the buffer in flight, as queued; 0 when none is.
    in_flight_bytes: usize,
    /// Bytes that have left, as queued.
    position_sent: u64,
}

#[derive(Debug)]
struct Queued {
    buffer: SendBuffer,
    form: Form,
}

/// Whether a buffer still has to be sealed on a TLS connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Application data.
    Plaintext,
    /// Bytes as they go on the wire: a handshake flight, an alert.
    Wire,
}

/// The pool has no buffer left. Nothing was queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolExhausted;

impl Egress {
    /// Bytes queued and in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where in the stream the next byte to be queued will lie.
    pub(crate) fn position(&self) -> u64 {
        self.position_sent + self.bytes as u64
    }

    /// Up to where the stream has left.
    pub(crate) fn position_sent(&self) -> u64 {
        self.position_sent
    }

    /// Form of the next buffer.
    pub(crate) fn next_form(&self) -> Option<Form> {
        self.queue.front().map(|queued| queued.form)
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight_bytes > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues the parts, one behind the other, as application data: all of them or, where the pool
    /// is exhausted, nothing.
    pub(crate) fn append(
        &mut self,
        pool: &mut SendBuffers,
        parts: &[&[u8]],
    ) -> Result<(), PoolExhausted> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.tail_with_room(pool, length)?;
        let mut index = start;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let queued = &mut self.queue[index];
                let taken = fill(&mut queued.buffer, rest);
                rest = &rest[taken..];
                if taken == 0 {
                    index += 1;
                }
            }
        }
        self.bytes += length;
        Ok(())
    }

    /// Queues wire bytes behind everything else.
    pub(crate) fn append_wire(
        &mut self,
        pool: &mut SendBuffers,
        bytes: &[u8],
    ) -> Result<(), PoolExhausted> {
        let position = self.queue.len();
        self.insert_wire(pool, bytes, position)
    }

    /// Queues wire bytes in front of everything that is not sealed yet: what the record layer has
    /// sealed by itself carries a lower sequence number than what is sealed later.
    pub(crate) fn insert_wire_first(
        &mut self,
        pool: &mut SendBuffers,
        bytes: &[u8],
    ) -> Result<(), PoolExhausted> {
        let position = self.queue.iter().take_while(|queued| queued.form == Form::Wire).count();
        self.insert_wire(pool, bytes, position)
    }

    fn insert_wire(
        &mut self,
        pool: &mut SendBuffers,
        bytes: &[u8],
        position: usize,
    ) -> Result<(), PoolExhausted> {
        for (offset, chunk) in bytes.chunks(LARGE_PAYLOAD_BYTES).enumerate() {
            let mut buffer = take(pool, chunk.len())?;
            assert_eq!(fill(&mut buffer, chunk), chunk.len());
            self.bytes += chunk.len();
            self.queue.insert(position + offset, Queued { buffer, form: Form::Wire });
        }
        Ok(())
    }

    /// Makes room for `length` bytes behind what is queued; the index of the first buffer to fill.
    fn tail_with_room(
        &mut self,
        pool: &mut SendBuffers,
        length: usize,
    ) -> Result<usize, PoolExhausted> {
        let queued_before = self.queue.len();
        let (start, mut missing) = match self.queue.back() {
            Some(tail) if tail.form == Form::Plaintext => {
                (queued_before - 1, length.saturating_sub(room(&tail.buffer)))
            }
            _ => (queued_before, length),
        };
        while missing > 0 {
            let buffer = match take(pool, missing) {
                Ok(buffer) => buffer,
                Err(exhausted) => {
                    for queued in self.queue.drain(queued_before..) {
                        pool.put(queued.buffer);
                    }
                    return Err(exhausted);
                }
            };
            missing = missing.saturating_sub(room(&buffer));
            self.queue.push_back(Queued { buffer, form: Form::Plaintext });
        }
        Ok(start)
    }

    /// The next buffer to send, `None` while one is in flight or nothing waits. The caller reports
    /// its end with [`Egress::sent`].
    pub(crate) fn next(&mut self) -> Option<(SendBuffer, Form)> {
        if self.is_in_flight() {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.in_flight_bytes = queued.buffer.range().len();
        assert!(self.in_flight_bytes > 0);
        Some((queued.buffer, queued.form))
    }

    /// The buffer in flight has left (or failed to).
    pub(crate) fn sent(&mut self) {
        assert!(self.in_flight_bytes > 0);
        self.bytes -= self.in_flight_bytes;
        self.position_sent += self.in_flight_bytes as u64;
        self.in_flight_bytes = 0;
    }

    /// Buffers that wait.
    pub(crate) fn queued_buffers(&self) -> usize {
        self.queue.len()
    }

    /// Gives back the memory a burst has left behind, once it is over.
    pub(crate) fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_CAPACITY_KEPT {
            self.queue = VecDeque::new();
        }
    }

    /// Gives everything that waits back to the pool.
    pub(crate) fn discard(&mut self, pool: &mut SendBuffers) {
        for queued in self.queue.drain(..) {
            self.bytes -= queued.buffer.range().len();
            pool.put(queued.buffer);
        }
    }
}

/// The smallest buffer that will do; a large one where the small ones are out.
fn take(pool: &mut SendBuffers, length: usize) -> Result<SendBuffer, PoolExhausted> {
    let small = if length <= SMALL_PAYLOAD_BYTES {
        pool.take(SendBufferClass::Small, SEAL_HEADROOM_BYTES)
    } else {
        None
    };
    small.or_else(|| pool.take(SendBufferClass::Large, SEAL_HEADROOM_BYTES)).ok_or(PoolExhausted)
}

fn room(buffer: &SendBuffer) -> usize {
    buffer.capacity_bytes() - SEAL_TAILROOM_BYTES - buffer.range().end
}

/// Appends what fits and says how much that was.
fn fill(buffer: &mut SendBuffer, bytes: &[u8]) -> usize {
    let count = bytes.len().min(room(buffer));
    let range = buffer.range();
    buffer.memory_mut()[range.end..range.end + count].copy_from_slice(&bytes[..count]);
    buffer.set_range(range.start..range.end + count);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrfp_io::SendBuffersConfig;

    fn pool(count: usize) -> SendBuffers {
        SendBuffers::new(SendBuffersConfig {
            small_size_bytes: SEND_BUFFER_SMALL_SIZE_BYTES,
            small_count_max: count,
            large_size_bytes: SEND_BUFFER_LARGE_SIZE_BYTES,
            large_count_max: count,
        })
    }

    fn drain(egress: &mut Egress, pool: &mut SendBuffers) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((buffer, _)) = egress.next() {
            all.extend_from_slice(buffer.bytes());
            pool.put(buffer);
            egress.sent();
        }
        all
    }

    #[test]
    fn gathers_parts_in_order_over_any_number_of_buffers() {
        let mut pool = pool(16);
        let mut egress = Egress::default();
        let long: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        egress.append(&mut pool, &[b"head", b"", &long[..3_000]]).unwrap();
        egress.append(&mut pool, &[&long[3_000..], b"end"]).unwrap();
        let expected = [b"head".as_slice(), &long, b"end"].concat();
        assert_eq!(egress.bytes(), expected.len());
        assert_eq!(drain(&mut egress, &mut pool), expected);
        assert_eq!(egress.bytes(), 0);
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn small_messages_share_one_buffer() {
        let mut pool = pool(1);
        let mut egress = Egress::default();
        for _ in 0..5 {
            egress.append(&mut pool, &[b"message"]).unwrap();
        }
        assert_eq!(pool.outstanding(), 1);
        assert_eq!(drain(&mut egress, &mut pool).len(), 35);
    }

    #[test]
    fn an_exhausted_pool_leaves_the_queue_as_it_was() {
        let mut pool = pool(1);
        let mut egress = Egress::default();
        egress.append(&mut pool, &[b"first"]).unwrap();
        assert_eq!(egress.append(&mut pool, &[&[7; 100_000]]), Err(PoolExhausted));
        assert_eq!(egress.bytes(), 5);
        assert_eq!(drain(&mut egress, &mut pool), b"first");
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn record_layer_output_overtakes_what_is_not_sealed_yet() {
        let mut pool = pool(4);
        let mut egress = Egress::default();
        egress.append_wire(&mut pool, b"1").unwrap();
        egress.append(&mut pool, &[b"3"]).unwrap();
        egress.insert_wire_first(&mut pool, b"2").unwrap();
        egress.append_wire(&mut pool, b"4").unwrap();
        assert_eq!(drain(&mut egress, &mut pool), b"1234");
    }
}
