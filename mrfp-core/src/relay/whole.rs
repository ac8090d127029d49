//! Passing on a SEND that has come whole, which nearly all do: nothing has to be remembered between its
//! pieces, and all that stands behind its paths goes on as it came.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Continuation, FailureReport, Head, Method, Piece};

use super::forward::{lane_of, send_range};
use super::outstanding::Sent;
use crate::answer::append_whole;
use crate::connection::Life;
use crate::incoming::Identifier;
use crate::plane::Plane;

/// A SEND that has been admitted.
pub(super) struct WholeSend<'a> {
    head: &'a Head<'a>,
    piece: &'a Piece<'a>,
    end: Continuation,
    message_id: Identifier,
    route: Key,
    chunk: u64,
}

impl WholeSend<'_> {
    /// Whether a SEND is in one piece and has the Byte-Range that we would give it.
    pub(super) fn passes_unchanged(head: &Head<'_>, piece: &Piece<'_>) -> bool {
        piece.end.is_some()
            && head.content_type.is_some()
            && head.byte_range.is_some_and(|it| it == send_range(it.start, piece, it.total))
    }
}

impl Plane {
    /// Passes a SEND on and answers it, or refuses it.
    pub(super) fn relay_whole_send(&mut self, key: Key, head: &Head<'_>, piece: &Piece<'_>) {
        self.metrics.messages_received += 1;
        let (route, chunk) = match self.admit(key, head, Method::Send) {
            Ok(admitted) => admitted,
            Err(status) => return self.refuse_head(key, head, Method::Send, status),
        };
        let message_id = head.message_id.and_then(Identifier::new);
        let (Some(message_id), Some(end)) = (message_id, piece.end) else {
            return self.refuse_head(key, head, Method::Send, 400);
        };
        let send = WholeSend { head, piece, end, message_id, route, chunk };
        match self.pass_whole_on(key, &send) {
            Ok(()) => {
                if head.failure_report == FailureReport::Yes {
                    self.answer_whole(key, &send);
                }
                self.metrics.relay_requests_forwarded += u64::from(end != Continuation::Abort);
            }
            Err(status) => {
                if head.failure_report != FailureReport::No {
                    let (to, from) = (head.from_path.first(), head.to_path.first());
                    self.relay_respond(key, head.transaction_id, status, to, from, b"");
                }
            }
        }
    }

    /// Queues it on the connection of its route.
    fn pass_whole_on(&mut self, key: Key, send: &WholeSend<'_>) -> Result<(), u16> {
        let WholeSend { head, piece, .. } = *send;
        let relay = self.relay.as_ref().ok_or(481u16)?;
        let route = relay.routes.get(send.route).ok_or(481u16)?;
        let egress_key = route.egress;
        let egress = self.connections.get_mut(egress_key).ok_or(408u16)?;
        if egress.life >= Life::Draining || egress.relay.is_none() {
            return Err(408);
        }
        let range = head.byte_range.ok_or(400u16)?;
        let lane = lane_of(range.start, range.total);
        let own = self.identifiers.transaction();
        let flag = [send.end.as_byte(), b'\r', b'\n'];
        let parts: [&[u8]; 7] = [
            b"MSRP ",
            own.as_bytes(),
            &route.send_lines,
            piece.after_paths,
            b"\r\n-------",
            own.as_bytes(),
            &flag,
        ];
        let queued = egress.append_to(lane, &mut self.send_buffers, &parts);
        self.metrics.messages_sent += 1;
        let (left, mark) = (egress.egress.left(), egress.egress.position(lane));
        if let Some(link) = egress.relay.as_deref_mut()
            && head.failure_report != FailureReport::No
        {
            let sent = Sent {
                transaction: own,
                route: send.route,
                chunk: send.chunk,
                message_id: send.message_id,
                start: range.start,
                next: range.start.saturating_add(piece.body.len() as u64),
                total: range.total,
                answer_expected: head.failure_report == FailureReport::Yes,
                mark,
                deadline_ns: None,
            };
            link.outstanding.push(sent, relay.config.limits.outstanding_max, left);
        }
        self.relay_passed(key, egress_key, queued);
        Ok(())
    }

    /// Says that the next hop has it queued.
    fn answer_whole(&mut self, key: Key, send: &WholeSend<'_>) {
        let Some(route) = self.relay.as_ref().and_then(|relay| relay.routes.get(send.route)) else {
            return;
        };
        let transaction = send.head.transaction_id;
        let parts: [&[u8]; 5] = [b"MSRP ", transaction, &route.ok_lines, transaction, b"$\r\n"];
        let queued = append_whole(&mut self.connections, &mut self.send_buffers, key, &parts);
        self.relay_responded(key, 200, queued);
    }
}
