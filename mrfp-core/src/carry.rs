//! Memory for the incomplete record or head a connection stands in the middle of. Taken from a pool
//! only while needed: an idle connection owns none.

use crate::config::CARRY_BUFFER_SIZE_BYTES;

/// Bytes kept from one receive to the next.
#[derive(Debug)]
pub(crate) struct CarryBuffer {
    memory: Box<[u8]>,
    length: usize,
}

impl CarryBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.length]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends as much of `bytes` as fits and says how much that was.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.memory.len() - self.length);
        self.memory[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        self.length += count;
        count
    }

    /// Drops `count` bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.length);
        self.memory.copy_within(count..self.length, 0);
        self.length -= count;
    }

    /// Keeps the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }
}

/// The pool; made lazily up to its size and then only reused.
#[derive(Debug)]
pub(crate) struct CarryBuffers {
    free: Vec<CarryBuffer>,
    made: usize,
    count_max: usize,
}

impl CarryBuffers {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { free: Vec::new(), made: 0, count_max }
    }

    /// An empty buffer, `None` when all are out.
    pub(crate) fn take(&mut self) -> Option<CarryBuffer> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        if self.made == self.count_max {
            return None;
        }
        self.made += 1;
        let memory = vec![0; CARRY_BUFFER_SIZE_BYTES].into_boxed_slice();
        Some(CarryBuffer { memory, length: 0 })
    }

    pub(crate) fn put(&mut self, mut buffer: CarryBuffer) {
        buffer.clear();
        self.free.push(buffer);
        assert!(self.free.len() <= self.made);
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.made - self.free.len()
    }
}
