//! The transport OpenSSL sees: one record in, whatever it writes out.

use std::io::{self, Read, Write};

/// Bytes in memory, in both directions.
#[derive(Default)]
pub(super) struct MemoryStream {
    inbound: Vec<u8>,
    inbound_read: usize,
    pub(super) outbound: Vec<u8>,
}

impl MemoryStream {
    /// Gives OpenSSL one more record to read.
    pub(super) fn feed(&mut self, record: &[u8]) {
        if self.is_drained() {
            self.inbound.clear();
            self.inbound_read = 0;
        }
        self.inbound.extend_from_slice(record);
    }

    /// OpenSSL has read everything it was given.
    pub(super) fn is_drained(&self) -> bool {
        self.inbound_read == self.inbound.len()
    }

    /// Frees the memory of both directions; an idle session needs none.
    pub(super) fn release(&mut self) {
        if self.is_drained() {
            self.inbound = Vec::new();
            self.inbound_read = 0;
        }
        if self.outbound.is_empty() {
            self.outbound = Vec::new();
        }
    }
}

impl Read for MemoryStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.inbound[self.inbound_read..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.inbound_read += length;
        Ok(length)
    }
}

impl Write for MemoryStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbound.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
