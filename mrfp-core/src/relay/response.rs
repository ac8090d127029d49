//! Responses: ours, and those of the next hops.

use mrfp_io::{Key, SendBuffers};
use mrfp_protocol::msrp::{Head, comment};

use super::link::Pending;
use super::path::split_first;
use crate::answer::append_whole;
use crate::connection::Connection;
use crate::egress::PoolExhausted;
use crate::plane::Plane;
use crate::request::Decimal;
use crate::table::Table;

/// A response of ours.
pub(super) struct Response<'a> {
    pub(super) transaction: &'a [u8],
    pub(super) status: u16,
    pub(super) to: &'a [u8],
    pub(super) from: &'a [u8],
    /// Further header lines, each with its CRLF.
    pub(super) lines: &'a [u8],
}

impl Response<'_> {
    /// Queues it, interrupting a chunk that is open towards the peer (RFC 4975 section 7.1).
    pub(super) fn append(
        &self,
        connections: &mut Table<Connection>,
        send_buffers: &mut SendBuffers,
        key: Key,
    ) -> Result<(), PoolExhausted> {
        let mut number = Decimal::default();
        let parts: [&[u8]; 12] = [
            b"MSRP ",
            self.transaction,
            b" ",
            number.format(Some(u64::from(self.status))),
            b" ",
            comment(self.status),
            b"\r\nTo-Path: ",
            self.to,
            b"\r\nFrom-Path: ",
            self.from,
            b"\r\n",
            self.lines,
        ];
        append_without_body(connections, send_buffers, key, &parts, self.transaction)
    }
}

/// Queues a message without a body, interrupting a chunk that is open towards the peer. `parts`: all
/// but the end-line.
pub(super) fn append_without_body(
    connections: &mut Table<Connection>,
    send_buffers: &mut SendBuffers,
    key: Key,
    parts: &[&[u8]],
    transaction: &[u8],
) -> Result<(), PoolExhausted> {
    const PARTS_MAX: usize = 20;
    let mut all: [&[u8]; PARTS_MAX] = [b""; PARTS_MAX];
    all[..parts.len()].copy_from_slice(parts);
    let end: [&[u8]; 3] = [b"-------", transaction, b"$\r\n"];
    all[parts.len()..parts.len() + 3].copy_from_slice(&end);
    append_whole(connections, send_buffers, key, &all[..parts.len() + 3])
}

impl Plane {
    /// Answers a request from what stood in its head.
    pub(super) fn relay_respond(
        &mut self,
        key: Key,
        transaction: &[u8],
        status: u16,
        to: &[u8],
        from: &[u8],
        lines: &[u8],
    ) {
        let response = Response { transaction, status, to, from, lines };
        let queued = response.append(&mut self.connections, &mut self.send_buffers, key);
        self.relay_responded(key, status, queued);
    }

    pub(super) fn relay_responded(
        &mut self,
        key: Key,
        status: u16,
        queued: Result<(), PoolExhausted>,
    ) {
        if status != 200 {
            self.metrics.responses_error_sent += 1;
        }
        self.relay_said(key, queued);
    }

    /// Something of ours has been queued, or could not be.
    pub(super) fn relay_said(&mut self, key: Key, queued: Result<(), PoolExhausted>) {
        if !self.is_linked(key) {
            return;
        }
        // Whoever reads no answers gets nothing more to answer.
        self.relay_passed(key, key, queued);
    }

    /// What came by one connection has been queued on another, or could not be.
    pub(super) fn relay_passed(
        &mut self,
        ingress: Key,
        egress: Key,
        queued: Result<(), PoolExhausted>,
    ) {
        if queued.is_err() {
            return self.unserved.push(egress);
        }
        self.mark(egress);
        self.relay_fed(ingress, egress);
    }

    /// A response of a next hop: the end of a SEND of ours, or the answer to a request of somebody
    /// else, which goes back on its way.
    pub(super) fn relay_response(
        &mut self,
        key: Key,
        head: &Head<'_>,
        status: u16,
        comment: &[u8],
    ) {
        self.metrics.responses_error_received += u64::from(status != 200);
        let Some(link) = self.link_mut(key) else { return };
        if let Some(sent) = link.outstanding.answered(head.transaction_id) {
            self.relay_drained(key);
            if status != 200 {
                // RFC 4975 section 7.1: what is still under way ends with `#`.
                let connection = self.connections.get(key);
                let open = connection.and_then(|connection| connection.outgoing);
                if open.is_some_and(|open| open.transaction == sent.transaction) {
                    self.close_chunk(key);
                }
                self.relay_undelivered(&sent, status);
            }
            return;
        }
        let pending = &mut link.pending;
        let at = pending.iter().position(|it| it.transaction.as_bytes() == head.transaction_id);
        let Some(pending) = at.and_then(|at| pending.remove(at)) else { return };
        self.pass_response_on(&pending, head, status, comment);
    }

    /// RFC 4976 section 6.4.3: the response goes to the next URI of its To-Path, over the connection
    /// the request came by; where that is gone, so is the response.
    fn pass_response_on(
        &mut self,
        pending: &Pending,
        head: &Head<'_>,
        status: u16,
        comment: &[u8],
    ) {
        let Some(relay) = &self.relay else { return };
        let Some(route) = relay.routes.get(pending.route) else { return };
        let ingress = route.ingress;
        let mut rest = Some(head.to_path.0);
        let mut from = Vec::with_capacity(head.to_path.0.len() + head.from_path.0.len() + 1);
        let mut own: Vec<&[u8]> = Vec::new();
        for _ in 0..route.hops {
            let Some(path) = rest else { return };
            let (first, after) = split_first(path);
            if relay.named(first, self.now_ns).is_none() {
                return;
            }
            own.push(first);
            rest = after;
        }
        let Some(to) = rest else { return };
        for uri in own.iter().rev() {
            from.extend_from_slice(uri);
            from.push(b' ');
        }
        from.extend_from_slice(head.from_path.0);
        let transaction = pending.original.as_bytes();
        let mut number = Decimal::default();
        let parts: [&[u8]; 12] = [
            b"MSRP ",
            transaction,
            b" ",
            number.format(Some(u64::from(status))),
            if comment.is_empty() { b"" } else { b" " },
            comment,
            b"\r\nTo-Path: ",
            to,
            b"\r\nFrom-Path: ",
            &from,
            b"\r\n",
            head.header_lines,
        ];
        let queued = append_without_body(
            &mut self.connections,
            &mut self.send_buffers,
            ingress,
            &parts,
            transaction,
        );
        self.relay_responded(ingress, status, queued);
        // RFC 4976 section 6.3: neither must a far relay's users be tried out through us.
        if pending.proves && status == 401 && !says_stale(head) {
            self.relay_failure(ingress);
        }
    }

    /// The far end has not answered a request in time.
    pub(super) fn answer_pending(&mut self, pending: &Pending, status: u16) {
        let Some(route) = self.relay.as_ref().and_then(|relay| relay.routes.get(pending.route))
        else {
            return;
        };
        let ingress = route.ingress;
        let response = Response {
            transaction: pending.original.as_bytes(),
            status,
            to: &route.from_path,
            from: route.own_uri(),
            lines: b"",
        };
        let queued = response.append(&mut self.connections, &mut self.send_buffers, ingress);
        self.relay_responded(ingress, status, queued);
    }
}

/// Whether a challenge says that only the nonce was wrong.
fn says_stale(head: &Head<'_>) -> bool {
    head.header(b"WWW-Authenticate").is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.windows(10).any(|window| window == b"stale=true")
    })
}
