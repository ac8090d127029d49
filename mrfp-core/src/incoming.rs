//! The request that is being received: what is kept of its head while its body passes through.

use mrfp_io::Key;
use mrfp_protocol::msrp::{FailureReport, MESSAGE_ID_BYTES_MAX};

use crate::carry::CarryBuffer;

/// What to do with the bytes up to the next end-line.
#[derive(Debug, Default)]
pub(crate) enum Incoming {
    /// Between messages.
    #[default]
    Idle,
    /// A response, a REPORT, or a request that was answered from its head: nothing of it matters.
    Discard,
    /// The rest of a chunk that was answered with an error: only the end of its message matters.
    Refused(Key),
    /// A SEND that goes to the other members.
    Forward(Forward),
    /// A SEND without a body: binds, or keeps alive. Answered at its end.
    Empty(Transaction),
}

/// What the answer to a request needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction {
    /// The Termination whose session the request belongs to.
    pub(crate) session: Key,
    pub(crate) id: Identifier,
    pub(crate) failure_report: FailureReport,
}

/// A SEND on its way through.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) transaction: Transaction,
    /// The message it is a chunk of.
    pub(crate) message: Key,
    /// Its success is ours to report.
    pub(crate) success_report: bool,
    /// First byte of this chunk in the message, 1-based.
    pub(crate) start: u64,
    /// Next byte to come.
    pub(crate) next: u64,
    /// Size of the message, where the sender knows it.
    pub(crate) total: Option<u64>,
    /// Counted as a request of its kind.
    pub(crate) counted: bool,
    /// Header lines for the receivers, kept while the body outlasts one receive.
    pub(crate) lines: Option<CarryBuffer>,
}

/// A transaction identifier or Message-ID, inline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identifier {
    bytes: [u8; MESSAGE_ID_BYTES_MAX],
    length: u8,
}

impl Identifier {
    /// `None` where it is longer than any that is accepted.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let mut identifier = Self { bytes: [0; MESSAGE_ID_BYTES_MAX], length: 0 };
        identifier.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        identifier.length = bytes.len() as u8;
        Some(identifier)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}
