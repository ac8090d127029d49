//! What could not be delivered is reported to whoever sent it (RFC 4976 section 6.4.1).

use mrfp_io::Key;
use mrfp_protocol::msrp::comment;

use super::link::Incoming;
use super::outstanding::Sent;
use super::response::append_without_body;
use crate::plane::Plane;
use crate::request::{Decimal, MESSAGE_LINES_BYTES_MAX, message_lines};

impl Plane {
    /// A SEND of ours has failed. Its sender learns so from a REPORT, or, while the chunk it belongs
    /// to is still coming in, from the answer to that chunk: one of the two.
    pub(super) fn relay_undelivered(&mut self, sent: &Sent, status: u16) {
        let route = self.relay.as_ref().and_then(|relay| relay.routes.get(sent.route));
        let Some(ingress) = route.map(|route| route.ingress) else { return };
        let Some(link) = self.link_mut(ingress) else { return };
        match std::mem::take(&mut link.incoming) {
            Incoming::Forward(forward) if forward.chunk == sent.chunk => {
                return self.refuse_forwarding(ingress, forward, None, status);
            }
            Incoming::Refused(chunk) if chunk == sent.chunk => {
                link.incoming = Incoming::Refused(chunk);
                return;
            }
            other => link.incoming = other,
        }
        self.relay_report(ingress, sent, status);
    }

    fn relay_report(&mut self, ingress: Key, sent: &Sent, status: u16) {
        let Some(route) = self.relay.as_ref().and_then(|relay| relay.routes.get(sent.route)) else {
            return;
        };
        let transaction = self.identifiers.transaction();
        // A range has at least one byte (RFC 4975 section 9). Where the failed request carried none,
        // what it was to complete has failed.
        let start = if sent.next > sent.start { sent.start } else { 1 };
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let message_lines = message_lines(
            &mut memory,
            sent.message_id.as_bytes(),
            start,
            Some(sent.next - 1),
            sent.total,
        );
        let mut number = Decimal::default();
        let text = comment(status);
        let parts: [&[u8]; 10] = [
            b"MSRP ",
            transaction.as_bytes(),
            b" REPORT\r\n",
            &route.lines_back,
            message_lines,
            b"Status: 000 ",
            number.format(Some(u64::from(status))),
            if text.is_empty() { b"" } else { b" " },
            text,
            b"\r\n",
        ];
        let queued = append_without_body(
            &mut self.connections,
            &mut self.send_buffers,
            ingress,
            &parts,
            transaction.as_bytes(),
        );
        self.metrics.relay_reports_sent += 1;
        self.relay_said(ingress, queued);
    }
}
