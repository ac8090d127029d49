//! The request that is being received: what is kept of its head while its body passes through.

use mrfp_io::Key;
use mrfp_protocol::msrp::{FailureReport, MessageId};

use crate::carry::CarryBuffer;

/// Longest transaction identifier or Message-ID (RFC 4975 section 9: `ident`).
const IDENTIFIER_BYTES_MAX: usize = 32;

/// What to do with the bytes up to the next end-line.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Between messages.
    Idle,
    /// A response, a REPORT, or a request that was answered from its head: nothing of it matters.
    Discard,
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
    /// The sender's own Message-ID, for reports.
    pub(crate) message_id: Identifier,
    pub(crate) success_report: bool,
    /// First byte of this chunk in the message, 1-based.
    pub(crate) start: u64,
    /// Next byte to come.
    pub(crate) next: u64,
    /// Size of the message, where the sender knows it.
    pub(crate) total: Option<u64>,
    /// Header lines for the receivers, kept while the body outlasts one receive.
    pub(crate) lines: Option<CarryBuffer>,
}

/// The message a sender is in the middle of, from its first chunk to its last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageInProgress {
    /// The sending Termination.
    pub(crate) sender: Key,
    /// Its Message-ID towards the receivers.
    pub(crate) id: MessageId,
    /// Whose turn it was to receive when it began.
    pub(crate) epoch: u64,
    /// Next byte, for the chunk that gives it up.
    pub(crate) next: u64,
    pub(crate) total: Option<u64>,
}

/// A short identifier, inline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identifier {
    bytes: [u8; IDENTIFIER_BYTES_MAX],
    length: u8,
}

impl Identifier {
    /// `None` where it is longer than the grammar allows.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let mut identifier = Self { bytes: [0; IDENTIFIER_BYTES_MAX], length: 0 };
        identifier.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        identifier.length = bytes.len() as u8;
        Some(identifier)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}
