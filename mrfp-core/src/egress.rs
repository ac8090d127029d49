//! What waits to be sent on one connection: buffers in order, gathered so that one send (and one TLS
//! record) carries everything a turn has produced.

use std::collections::VecDeque;
use std::net::SocketAddr;

use mrfp_io::{SendBuffer, SendBufferClass, SendBuffers};
use mrfp_protocol::tls::{SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, dtls};

use crate::config::{
    IN_FLIGHT_BYTES_MAX, INTERRUPTIBLE_BYTES_MIN, LARGE_CHUNK_BYTES, OVERTAKING_BYTES_MAX,
    SEND_BUFFER_LARGE_SIZE_BYTES, SEND_BUFFER_SMALL_SIZE_BYTES,
};

/// Bytes of payload a small and a large buffer take. The same for plain connections, so that one
/// arithmetic serves both.
const SMALL_PAYLOAD_BYTES: usize =
    SEND_BUFFER_SMALL_SIZE_BYTES - SEAL_HEADROOM_BYTES - SEAL_TAILROOM_BYTES;
const LARGE_PAYLOAD_BYTES: usize =
    SEND_BUFFER_LARGE_SIZE_BYTES - SEAL_HEADROOM_BYTES - SEAL_TAILROOM_BYTES;

/// Entries of queue memory a quiet connection keeps.
const QUEUE_CAPACITY_KEPT: usize = 8;

/// The queue of one connection. Large messages wait in a lane of their own, and everything else
/// overtakes them wherever one of their chunks ends.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    first: VecDeque<Queued>,
    large: VecDeque<Queued>,
    /// Bytes in the lanes and in flight, as queued (before sealing).
    bytes: usize,
    /// Bytes of the buffers in flight, as queued; 0 when none is.
    in_flight_bytes: usize,
    /// Those of all bytes that are in the lane of the large ones, or in flight out of it.
    large_bytes: usize,
    left: Left,
    /// Bytes that have overtaken what waits in `large`.
    overtaken_bytes: usize,
}

/// Which way through the queue.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Lane {
    /// In order, and before what is large.
    #[default]
    First,
    /// Parts of large messages.
    Large,
}

/// A place in what goes through a lane. Where one lane overtakes the other, only its own bytes tell
/// what has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) lane: Lane,
    pub(crate) bytes: u64,
}

/// Bytes that have left through each lane, as queued.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Left {
    pub(crate) first: u64,
    pub(crate) large: u64,
}

impl Left {
    /// Whether everything up to `position` has left.
    pub(crate) fn reaches(self, position: Position) -> bool {
        position.bytes
            <= match position.lane {
                Lane::First => self.first,
                Lane::Large => self.large,
            }
    }
}

#[derive(Debug)]
struct Queued {
    buffer: SendBuffer,
    form: Form,
    /// A message begins with it; otherwise it continues what was before it in its lane.
    begins: bool,
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

    /// Behind everything that is queued in a lane.
    pub(crate) fn position(&self, lane: Lane) -> Position {
        let bytes = match lane {
            Lane::First => self.left.first + (self.bytes - self.large_bytes) as u64,
            Lane::Large => self.left.large + self.large_bytes as u64,
        };
        Position { lane, bytes }
    }

    /// How far the lanes have left.
    pub(crate) fn left(&self) -> Left {
        self.left
    }

    /// Form of the next buffer.
    pub(crate) fn next_form(&self) -> Option<Form> {
        let next = match self.next_lane() {
            Lane::First => self.first.front(),
            Lane::Large => self.large.front(),
        };
        next.map(|queued| queued.form)
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight_bytes > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.large.is_empty()
    }

    /// Whether something waits in a lane.
    pub(crate) fn has_waiting(&self, lane: Lane) -> bool {
        match lane {
            Lane::First => !self.first.is_empty(),
            Lane::Large => !self.large.is_empty(),
        }
    }

    /// Whether a chunk in a lane ought to end now that it has so many bytes. In the first lane none
    /// stays open while something waits that is large: that leaves whenever the lane is empty.
    pub(crate) fn chunk_makes_room(&self, lane: Lane, bytes: usize) -> bool {
        match lane {
            Lane::First => self.has_waiting(Lane::Large),
            Lane::Large if self.has_waiting(Lane::First) => bytes >= INTERRUPTIBLE_BYTES_MIN,
            Lane::Large => bytes.min(self.bytes()) >= LARGE_CHUNK_BYTES,
        }
    }

    /// Queues a message, or the beginning of one, given in parts: all of them or, where the pool is
    /// exhausted, nothing. In the lane of the large ones every chunk begins in a buffer of its own,
    /// so that it can be overtaken.
    pub(crate) fn append_to(
        &mut self,
        lane: Lane,
        pool: &mut SendBuffers,
        parts: &[&[u8]],
    ) -> Result<(), PoolExhausted> {
        self.queue(lane, pool, parts, true)
    }

    /// Queues more of what was last appended to the lane.
    pub(crate) fn extend(
        &mut self,
        lane: Lane,
        pool: &mut SendBuffers,
        parts: &[&[u8]],
    ) -> Result<(), PoolExhausted> {
        self.queue(lane, pool, parts, false)
    }

    fn queue(
        &mut self,
        lane: Lane,
        pool: &mut SendBuffers,
        parts: &[&[u8]],
        begins: bool,
    ) -> Result<(), PoolExhausted> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let others_wait = !self.large.is_empty();
        let queue = match lane {
            Lane::First => &mut self.first,
            Lane::Large => &mut self.large,
        };
        // Where one lane may overtake the other, it does so between buffers.
        let afresh = match lane {
            Lane::First => begins && others_wait && !fits_behind(queue, length),
            Lane::Large => begins,
        };
        let start = match queue.back() {
            // Nearly always.
            Some(tail)
                if !afresh && tail.form == Form::Plaintext && room(&tail.buffer) >= length =>
            {
                queue.len() - 1
            }
            Some(_) | None => tail_with_room(queue, pool, length, begins, afresh)?,
        };
        self.bytes += length;
        if lane == Lane::Large {
            self.large_bytes += length;
        }
        if start + 1 == queue.len() {
            fill_whole(&mut queue[start].buffer, parts);
            return Ok(());
        }
        let mut index = start;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let queued = &mut queue[index];
                let taken = fill(&mut queued.buffer, rest);
                rest = &rest[taken..];
                if taken == 0 {
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes over what waits in another queue, of which nothing is in flight, behind everything else.
    pub(crate) fn adopt(&mut self, mut other: Self) {
        assert!(!other.is_in_flight() && other.large.is_empty());
        self.bytes += other.bytes;
        self.first.append(&mut other.first);
    }

    /// Queues wire bytes behind everything else.
    pub(crate) fn append_wire(
        &mut self,
        pool: &mut SendBuffers,
        bytes: &[u8],
    ) -> Result<(), PoolExhausted> {
        let position = self.first.len();
        self.insert_wire(pool, bytes, position)
    }

    /// Queues wire bytes in front of everything that is not sealed yet: what the record layer has
    /// sealed by itself carries a lower sequence number than what is sealed later.
    pub(crate) fn insert_wire_first(
        &mut self,
        pool: &mut SendBuffers,
        bytes: &[u8],
    ) -> Result<(), PoolExhausted> {
        let position = self.first.iter().take_while(|queued| queued.form == Form::Wire).count();
        self.insert_wire(pool, bytes, position)
    }

    /// Queues a datagram, as a record of DTLS where there is a session. Without a buffer for it, or
    /// where the keys may protect no more, it is lost.
    pub(crate) fn append_datagram(
        &mut self,
        pool: &mut SendBuffers,
        bytes: &[u8],
        destination: SocketAddr,
        session: Option<&mut dtls::Session>,
    ) -> Result<(), PoolExhausted> {
        let mut buffer = take(pool, dtls::SEAL_HEADROOM_BYTES + bytes.len())?;
        let start = dtls::SEAL_HEADROOM_BYTES;
        let range = start..start + bytes.len();
        buffer.memory_mut()[range.clone()].copy_from_slice(bytes);
        let range = match session {
            Some(session) => session.seal(buffer.memory_mut(), range).ok(),
            None => Some(range),
        };
        let Some(range) = range else {
            pool.put(buffer);
            return Err(PoolExhausted);
        };
        buffer.set_range(range);
        buffer.set_destination(destination);
        self.bytes += buffer.range().len();
        self.first.push_back(Queued { buffer, form: Form::Wire, begins: true });
        Ok(())
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
            let queued = Queued { buffer, form: Form::Wire, begins: true };
            self.first.insert(position + offset, queued);
        }
        Ok(())
    }

    /// The next buffer to send, `None` when nothing waits or [`IN_FLIGHT_BYTES_MAX`] are in flight.
    /// The caller reports the end of each with [`Egress::sent`] or [`Egress::lost`].
    pub(crate) fn next(&mut self) -> Option<(SendBuffer, Form)> {
        if self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX {
            return None;
        }
        let lane = self.next_lane();
        let Queued { mut buffer, form, .. } = match lane {
            Lane::First => {
                let queued = self.first.pop_front()?;
                if !self.large.is_empty() {
                    self.overtaken_bytes += queued.buffer.range().len();
                }
                queued
            }
            Lane::Large => {
                self.overtaken_bytes = 0;
                self.large.pop_front()?
            }
        };
        let bytes = buffer.range().len();
        assert!(bytes > 0);
        self.in_flight_bytes += bytes;
        buffer.set_note(note(lane, bytes));
        Some((buffer, form))
    }

    fn next_lane(&self) -> Lane {
        match (self.first.front(), self.large.front()) {
            // What the record layer has sealed must go before anything that is sealed later.
            (Some(Queued { form: Form::Wire, .. }), _) | (_, None) => Lane::First,
            (None, Some(_)) => Lane::Large,
            // The chunk that has begun to leave comes to its end first.
            (Some(_), Some(Queued { begins: false, .. })) => Lane::Large,
            // Nobody is overtaken for ever; but the last chunk may not be at its end.
            (Some(Queued { begins: true, .. }), Some(_))
                if self.overtaken_bytes >= OVERTAKING_BYTES_MAX
                    && self.large.iter().skip(1).any(|queued| queued.begins) =>
            {
                Lane::Large
            }
            (Some(_), Some(_)) => Lane::First,
        }
    }

    /// A buffer that was in flight has left.
    pub(crate) fn sent(&mut self, buffer: &SendBuffer) {
        match self.lost(buffer) {
            Position { lane: Lane::First, bytes } => self.left.first += bytes,
            Position { lane: Lane::Large, bytes } => self.left.large += bytes,
        }
    }

    /// A buffer that was in flight has not left, or not whole, and will not be sent again. Says how
    /// long it was as queued, and in which lane.
    pub(crate) fn lost(&mut self, buffer: &SendBuffer) -> Position {
        let (lane, bytes) = noted(buffer.note());
        assert!(bytes > 0);
        assert!(bytes <= self.in_flight_bytes);
        self.in_flight_bytes -= bytes;
        self.bytes -= bytes;
        if lane == Lane::Large {
            self.large_bytes -= bytes;
        }
        Position { lane, bytes: bytes as u64 }
    }

    /// Buffers that wait.
    pub(crate) fn queued_buffers(&self) -> usize {
        self.first.len() + self.large.len()
    }

    /// Gives back the memory a burst has left behind, once it is over.
    pub(crate) fn shrink(&mut self) {
        for queue in [&mut self.first, &mut self.large] {
            if queue.is_empty() && queue.capacity() > QUEUE_CAPACITY_KEPT {
                *queue = VecDeque::new();
            }
        }
    }

    /// Gives everything that waits back to the pool.
    pub(crate) fn discard(&mut self, pool: &mut SendBuffers) {
        for queued in self.first.drain(..) {
            self.bytes -= queued.buffer.range().len();
            pool.put(queued.buffer);
        }
        for queued in self.large.drain(..) {
            self.bytes -= queued.buffer.range().len();
            self.large_bytes -= queued.buffer.range().len();
            pool.put(queued.buffer);
        }
    }
}

/// What goes with a buffer into the kernel: its lane, and its length before it is sealed.
fn note(lane: Lane, bytes: usize) -> u32 {
    (bytes as u32) << 1 | u32::from(lane == Lane::Large)
}

/// The inverse of [`note`].
fn noted(note: u32) -> (Lane, usize) {
    let lane = if note & 1 == 0 { Lane::First } else { Lane::Large };
    (lane, (note >> 1) as usize)
}

/// Whether the last buffer has room for so many bytes.
fn fits_behind(queue: &VecDeque<Queued>, length: usize) -> bool {
    queue.back().is_some_and(|tail| tail.form == Form::Plaintext && room(&tail.buffer) >= length)
}

/// Makes room for `length` bytes behind what is queued; the index of the first buffer to fill.
fn tail_with_room(
    queue: &mut VecDeque<Queued>,
    pool: &mut SendBuffers,
    length: usize,
    begins: bool,
    afresh: bool,
) -> Result<usize, PoolExhausted> {
    let queued_before = queue.len();
    if !afresh {
        grow_tail(queue, pool);
    }
    let (start, mut missing) = match queue.back() {
        Some(tail) if tail.form == Form::Plaintext && !afresh => {
            (queued_before - 1, length.saturating_sub(room(&tail.buffer)))
        }
        _ => (queued_before, length),
    };
    // Where nothing of it fits into the last buffer, the next one begins with it.
    let mut begins = begins && (start == queued_before || missing == length);
    while missing > 0 {
        let buffer = match take(pool, missing) {
            Ok(buffer) => buffer,
            Err(exhausted) => {
                for queued in queue.drain(queued_before..) {
                    pool.put(queued.buffer);
                }
                return Err(exhausted);
            }
        };
        missing = missing.saturating_sub(room(&buffer));
        queue.push_back(Queued { buffer, form: Form::Plaintext, begins });
        begins = false;
    }
    Ok(start)
}

/// What no longer fits a small buffer goes on in a large one together with what waits in it: one send
/// and one TLS record carry it all, which a copy is worth. Where many of the large ones are out it goes
/// on in the next.
fn grow_tail(queue: &mut VecDeque<Queued>, pool: &mut SendBuffers) {
    let Some(tail) = queue.back_mut() else { return };
    if tail.form != Form::Plaintext || tail.buffer.class() != SendBufferClass::Small {
        return;
    }
    let (in_use, all) = pool.large_in_use();
    if in_use >= all / 4 {
        return;
    }
    let Some(mut large) = pool.take(SendBufferClass::Large, SEAL_HEADROOM_BYTES) else { return };
    fill_whole(&mut large, &[tail.buffer.bytes()]);
    pool.put(std::mem::replace(&mut tail.buffer, large));
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

/// Appends what is known to fit.
fn fill_whole(buffer: &mut SendBuffer, parts: &[&[u8]]) {
    let range = buffer.range();
    let mut end = range.end;
    let memory = buffer.memory_mut();
    for part in parts {
        memory[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    buffer.set_range(range.start..end);
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
            egress.sent(&buffer);
            pool.put(buffer);
        }
        all
    }

    #[test]
    fn gathers_parts_in_order_over_any_number_of_buffers() {
        let mut pool = pool(16);
        let mut egress = Egress::default();
        let long: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        egress.append_to(Lane::First, &mut pool, &[b"head", b"", &long[..3_000]]).unwrap();
        egress.extend(Lane::First, &mut pool, &[&long[3_000..], b"end"]).unwrap();
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
            egress.append_to(Lane::First, &mut pool, &[b"message"]).unwrap();
        }
        assert_eq!(pool.outstanding(), 1);
        assert_eq!(drain(&mut egress, &mut pool).len(), 35);
    }

    #[test]
    fn gives_the_kernel_so_much_at_a_time_and_knows_what_has_left() {
        let mut pool = pool(200);
        let mut egress = Egress::default();
        egress.append_to(Lane::First, &mut pool, &[b"first"]).unwrap();
        egress.append_to(Lane::Large, &mut pool, &[&[7; 200_000]]).unwrap();
        let mut in_flight = Vec::new();
        while let Some((buffer, _)) = egress.next() {
            in_flight.push(buffer);
        }
        let bytes: usize = in_flight.iter().map(|buffer| buffer.range().len()).sum();
        assert!((IN_FLIGHT_BYTES_MAX..IN_FLIGHT_BYTES_MAX + LARGE_PAYLOAD_BYTES).contains(&bytes));
        for buffer in in_flight {
            assert!(egress.is_in_flight());
            egress.sent(&buffer);
            pool.put(buffer);
        }
        assert!(!egress.is_in_flight());
        assert_eq!(egress.left().first, 5);
        assert_eq!(egress.left().large, bytes as u64 - 5);
        egress.discard(&mut pool);
        assert_eq!(egress.bytes(), 0);
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn an_exhausted_pool_leaves_the_queue_as_it_was() {
        let mut pool = pool(1);
        let mut egress = Egress::default();
        egress.append_to(Lane::First, &mut pool, &[b"first"]).unwrap();
        assert_eq!(egress.append_to(Lane::First, &mut pool, &[&[7; 100_000]]), Err(PoolExhausted));
        assert_eq!(egress.bytes(), 5);
        assert_eq!(drain(&mut egress, &mut pool), b"first");
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn record_layer_output_overtakes_what_is_not_sealed_yet() {
        let mut pool = pool(4);
        let mut egress = Egress::default();
        egress.append_wire(&mut pool, b"1").unwrap();
        egress.append_to(Lane::First, &mut pool, &[b"3"]).unwrap();
        egress.insert_wire_first(&mut pool, b"2").unwrap();
        egress.append_wire(&mut pool, b"4").unwrap();
        assert_eq!(drain(&mut egress, &mut pool), b"1234");
    }

    #[test]
    fn what_is_large_is_overtaken_between_its_chunks_and_not_for_ever() {
        let mut pool = pool(200);
        let mut egress = Egress::default();
        let chunk = [b'x'; 20_000];
        for _ in 0..2 {
            egress.append_to(Lane::Large, &mut pool, &[&chunk]).unwrap();
            egress.extend(Lane::Large, &mut pool, &[b"+"]).unwrap();
        }
        // The first chunk has begun to leave.
        let (buffer, _) = egress.next().unwrap();
        let mut all = buffer.bytes().to_vec();
        egress.sent(&buffer);
        pool.put(buffer);
        let small = [b's'; 1_000];
        let count = 2 * OVERTAKING_BYTES_MAX / small.len();
        for _ in 0..count {
            egress.append_to(Lane::First, &mut pool, &[&small]).unwrap();
        }
        all.extend(drain(&mut egress, &mut pool));
        assert!(all.starts_with(&[&chunk[..], b"+ss"].concat()), "a chunk is not cut in two");
        let second = all.iter().rposition(|&byte| byte == b'x').unwrap();
        let overtaken = second + 1 - 2 * chunk.len() - 1;
        assert!((OVERTAKING_BYTES_MAX..2 * OVERTAKING_BYTES_MAX).contains(&overtaken));
        assert_eq!(overtaken % small.len(), 0, "nor is a small message");
        assert_eq!(all.len(), 2 * (chunk.len() + 1) + count * small.len());
        assert_eq!(pool.outstanding(), 0);
    }
}
