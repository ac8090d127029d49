//! What the node says in MSRP, and the answers it is owed.

use mrfp_protocol::msrp::{ByteRange, Continuation, FailureReport, Head, Method, Piece, Start};

use super::{Connection, Failure, Heard, Surroundings};
use crate::media::message::{self, BINDING_SEQUENCE, Inspection, Transaction};

/// What a SEND needs for its answer, and its message so far.
#[derive(Default)]
pub(super) struct Incoming {
    /// Its end has not come; false while the memory waits for the next one.
    pub(super) open: bool,
    pub(super) transaction_id: Vec<u8>,
    pub(super) reply_to: Vec<u8>,
    pub(super) respond: bool,
    pub(super) is_send: bool,
    pub(super) has_body: bool,
    pub(super) message_id: Vec<u8>,
    pub(super) inspection: Inspection,
}

pub(super) struct Partial {
    pub(super) message_id: Vec<u8>,
    pub(super) inspection: Inspection,
}

/// Messages a node may interleave towards one UE; one more drops the oldest, which then counts as
/// corrupted when it goes on.
const PARTIAL_MESSAGES_MAX: usize = 64;

impl Connection {
    pub(super) fn piece(
        &mut self,
        piece: Piece<'_>,
        with: &mut Surroundings<'_>,
    ) -> Result<(), Failure> {
        if let Some(head) = piece.head {
            match head.start {
                Start::Response(status, _) => {
                    with.heard.push(self.response(head.transaction_id, status));
                    return Ok(());
                }
                Start::Request(method) => self.request(&head, method),
            }
        }
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.open) else {
            return Ok(());
        };
        if !piece.body.is_empty() {
            incoming.inspection.feed(piece.body, with.contents);
        }
        match piece.end {
            Some(end) => self.request_ended(end, with),
            None => Ok(()),
        }
    }

    pub(super) fn response(&self, transaction_id: &[u8], status: u16) -> Heard {
        match Transaction::parse(transaction_id, self.nonce) {
            None => Heard::StrayAnswer,
            Some(transaction) if transaction.sequence == BINDING_SEQUENCE => {
                Heard::Binding { status }
            }
            Some(transaction) => Heard::Answer { transaction, status },
        }
    }

    pub(super) fn request(&mut self, head: &Head<'_>, method: Method<'_>) {
        // The box is kept from message to message: no allocation per message.
        let incoming = self.incoming.get_or_insert_default();
        let is_send = matches!(method, Method::Send);
        incoming.open = true;
        incoming.transaction_id.clear();
        incoming.transaction_id.extend_from_slice(head.transaction_id);
        incoming.reply_to.clear();
        let path = head.from_path.0;
        // A response to a SEND goes one hop, to others all the way (RFC 4975 section 7.2).
        let first = path.split(|&byte| byte == b' ').next().unwrap_or(path);
        incoming.reply_to.extend_from_slice(if is_send { first } else { path });
        incoming.is_send = is_send;
        incoming.respond =
            !matches!(method, Method::Report) && matches!(head.failure_report, FailureReport::Yes);
        incoming.has_body = head.content_type.is_some();
        incoming.message_id.clear();
        incoming.message_id.extend_from_slice(head.message_id.unwrap_or(b""));
        incoming.inspection = Inspection::default();
        let start = head.byte_range.map_or(1, |range: ByteRange| range.start);
        if start > 1 {
            let known =
                self.partial.iter().position(|partial| partial.message_id == incoming.message_id);
            if let Some(partial) = known.and_then(|index| self.partial.remove(index)) {
                // Chunks of one connection arrive in order; a hole shows as a wrong length.
                incoming.inspection = partial.inspection;
            }
        }
    }

    pub(super) fn request_ended(
        &mut self,
        end: Continuation,
        with: &mut Surroundings<'_>,
    ) -> Result<(), Failure> {
        let Some(incoming) = &mut self.incoming else {
            return Ok(());
        };
        incoming.open = false;
        if incoming.is_send && incoming.has_body {
            match end {
                Continuation::Last => with.heard.push(
                    incoming
                        .inspection
                        .finish(with.contents)
                        .map_or(Heard::Corrupted, Heard::Message),
                ),
                Continuation::More => {
                    if self.partial.len() == PARTIAL_MESSAGES_MAX {
                        self.partial.pop_front();
                    }
                    self.partial.push_back(Partial {
                        message_id: incoming.message_id.clone(),
                        inspection: std::mem::take(&mut incoming.inspection),
                    });
                }
                Continuation::Abort => with.heard.push(Heard::Aborted),
            }
        }
        if !incoming.respond {
            return Ok(());
        }
        let status: &[u8] = if incoming.is_send { b"200 OK" } else { b"501 Not Implemented" };
        with.scratch.clear();
        message::write_response(
            with.scratch,
            &incoming.transaction_id,
            status,
            &incoming.reply_to,
            &self.local_path,
        );
        self.append_scratch(with)
    }
}
