//! The transport OpenSSL sees: one datagram for each read and each write.

use std::io::{self, Read, Write};

/// Datagrams in memory, in both directions.
#[derive(Default)]
pub(super) struct DatagramStream {
    /// What the next read takes, if anything.
    pub(super) inbound: Option<Vec<u8>>,
    pub(super) outbound: Vec<Vec<u8>>,
}

impl Read for DatagramStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbound.take().ok_or(io::ErrorKind::WouldBlock)?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for DatagramStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbound.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
