//! What the node says for itself on a session: responses, reports, the request that binds. Each
//! interrupts a chunk that is open towards the peer, so that none waits for a long message.

use mrfp_io::{Key, SendBuffers};
use mrfp_protocol::msrp::{FailureReport, Head, comment};

use crate::connection::{Connection, Life};
use crate::egress::PoolExhausted;
use crate::incoming::Transaction;
use crate::plane::Plane;
use crate::request::{Decimal, MESSAGE_LINES_BYTES_MAX, keep_report_lines, message_lines};
use crate::table::Table;
use crate::termination::Stage;

/// Four parts before, three behind and at most so many lines between.
const REPORT_PARTS_MAX: usize = 4 + 9 + 3;

impl Plane {
    /// Answers a member's request as its Failure-Report demands (RFC 4975 section 7.1.1).
    pub(crate) fn answer(&mut self, key: Key, transaction: &Transaction, status: u16) {
        let Transaction { session, id, failure_report } = transaction;
        self.answer_request(key, *session, id.as_bytes(), *failure_report, status);
    }

    /// The same from what stood in its head.
    pub(crate) fn answer_request(
        &mut self,
        key: Key,
        session: Key,
        transaction_id: &[u8],
        failure_report: FailureReport,
        status: u16,
    ) {
        let due = match failure_report {
            FailureReport::Yes => true,
            FailureReport::Partial => status != 200,
            FailureReport::No => false,
        };
        if !due {
            return;
        }
        let Some(termination) = self.terminations.get(session) else { return };
        let (to, from) = (termination.remote_first(), termination.local_uri());
        let (connections, send_buffers) = (&mut self.connections, &mut self.send_buffers);
        let queued = match (status, termination.response_paths()) {
            // The one that is given nearly always.
            (200, Some(paths)) => {
                let parts: &[&[u8]] = &[
                    b"MSRP ",
                    transaction_id,
                    b" 200 OK\r\n",
                    paths,
                    b"-------",
                    transaction_id,
                    b"$\r\n",
                ];
                append_whole(connections, send_buffers, key, parts)
            }
            (_, _) => {
                let response = Response { transaction_id, status, to, from };
                append_response(connections, send_buffers, key, &response)
            }
        };
        self.responded(key, Some(session), status, queued);
    }

    /// Answers a request from what stood in its head.
    pub(crate) fn respond(
        &mut self,
        key: Key,
        session: Option<Key>,
        transaction_id: &[u8],
        status: u16,
        to: &[u8],
        from: &[u8],
    ) {
        let response = Response { transaction_id, status, to, from };
        let queued = append_response(&mut self.connections, &mut self.send_buffers, key, &response);
        self.responded(key, session, status, queued);
    }

    fn responded(
        &mut self,
        key: Key,
        session: Option<Key>,
        status: u16,
        queued: Result<(), PoolExhausted>,
    ) {
        if self.connections.get(key).is_none_or(|connection| !connection.is_alive()) {
            return;
        }
        if queued.is_err() {
            return self.unserved.push(key);
        }
        if status != 200 {
            self.metrics.responses_error_sent += 1;
        }
        if let Some(session) = session {
            self.count_sent(session, |sent| sent.count_response(status));
        }
        self.mark(key);
        self.check_egress(key);
        // Whoever reads no answers gets nothing more to answer.
        let Some(connection) = self.connections.get(key) else { return };
        let session = connection.sessions.first().filter(|_| connection.lagging_since_ns.is_some());
        if let Some(termination) = session.and_then(|&session| self.terminations.get(session)) {
            self.pause(key, termination.context);
        }
    }

    /// Tells the sender of a message what became of a range of it (RFC 4975 sections 7.1.3 and
    /// 7.1.4).
    pub(crate) fn report(
        &mut self,
        message: Key,
        start: u64,
        end: u64,
        total: Option<u64>,
        status: u16,
    ) {
        let mut wrapper = std::mem::take(&mut self.scratch.wrapper);
        wrapper.clear();
        self.wrap_report(message, &mut wrapper);
        let Some((sender, id)) = self.messages.get(message).map(|m| (m.sender, m.id)) else {
            self.scratch.wrapper = wrapper;
            return;
        };
        let mut memory = [0; MESSAGE_LINES_BYTES_MAX];
        let lines = message_lines(&mut memory, id.as_bytes(), start, Some(end), total);
        let mut number = Decimal::default();
        let code = number.format(Some(u64::from(status)));
        let status: [&[u8]; 6] = [lines, b"Status: 000 ", code, b" ", comment(status), b"\r\n"];
        let body: [&[u8]; 3] = match wrapper.is_empty() {
            true => [b"", b"", b""],
            false => [b"Content-Type: message/cpim\r\n\r\n", &wrapper, b"\r\n"],
        };
        let mut parts: [&[u8]; 9] = [b""; 9];
        parts[..6].copy_from_slice(&status);
        parts[6..].copy_from_slice(&body);
        self.send_report(sender, &parts);
        self.scratch.wrapper = wrapper;
    }

    /// Passes a REPORT of one party on to the other, with everything it says but its body.
    pub(crate) fn pass_report(&mut self, receiver: Key, head: &Head<'_>) {
        let mut lines = std::mem::take(&mut self.scratch.lines);
        lines.clear();
        keep_report_lines(head.header_lines, &mut lines);
        self.send_report(receiver, &[&lines]);
        self.scratch.lines = lines;
    }

    fn send_report(&mut self, receiver: Key, lines: &[&[u8]]) {
        let transaction = self.identifiers.transaction();
        let Some(termination) = self.terminations.get(receiver) else { return };
        let Some(key) = termination.connection.filter(|_| termination.stage == Stage::Bound) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.life != Life::Open {
            return;
        }
        let mut parts: [&[u8]; REPORT_PARTS_MAX] = [b""; REPORT_PARTS_MAX];
        let head: [&[u8]; 4] =
            [b"MSRP ", transaction.as_bytes(), b" REPORT\r\n", termination.request_paths()];
        let tail: [&[u8]; 3] = [b"-------", transaction.as_bytes(), b"$\r\n"];
        let all = head.iter().chain(lines).chain(&tail);
        for (part, from) in parts.iter_mut().zip(all) {
            *part = from;
        }
        if connection.append(&mut self.send_buffers, &parts).is_err() {
            return self.unserved.push(key);
        }
        self.metrics.reports_sent += 1;
        self.count_sent(receiver, |sent| sent.reports += 1);
        self.mark(key);
        self.check_egress(key);
    }

    /// RFC 4975 section 5.4: the side that connects sends a request at once, so that the other can
    /// bind the connection to the session. BFCP has no such.
    pub(crate) fn send_binding_request(&mut self, key: Key, termination_key: Key) {
        let transaction = self.identifiers.transaction();
        let Some(termination) = self.terminations.get(termination_key) else { return };
        if termination.is_for_floors() {
            return;
        }
        let id = self.identifiers.message(termination.id, transaction.as_bytes());
        let Some(connection) = self.connections.get_mut(key) else { return };
        let parts: &[&[u8]] = &[
            b"MSRP ",
            transaction.as_bytes(),
            b" SEND\r\n",
            termination.request_paths(),
            b"Message-ID: ",
            id.as_bytes(),
            b"\r\nByte-Range: 1-0/0\r\n-------",
            transaction.as_bytes(),
            b"$\r\n",
        ];
        if connection.append(&mut self.send_buffers, parts).is_err() {
            return self.unserved.push(key);
        }
        self.count_sent(termination_key, |sent| sent.send_empty += 1);
        self.mark(key);
    }
}

/// What a response says, and to whom.
struct Response<'a> {
    transaction_id: &'a [u8],
    status: u16,
    to: &'a [u8],
    from: &'a [u8],
}

/// Queues a response, interrupting a chunk that is open towards the peer (RFC 4975 section 7.1:
/// responses and reports must not wait for a long message).
fn append_response(
    connections: &mut Table<Connection>,
    send_buffers: &mut SendBuffers,
    key: Key,
    response: &Response<'_>,
) -> Result<(), PoolExhausted> {
    let mut number = Decimal::default();
    let parts: &[&[u8]] = &[
        b"MSRP ",
        response.transaction_id,
        b" ",
        number.format(Some(u64::from(response.status))),
        b" ",
        comment(response.status),
        b"\r\nTo-Path: ",
        response.to,
        b"\r\nFrom-Path: ",
        response.from,
        b"\r\n-------",
        response.transaction_id,
        b"$\r\n",
    ];
    append_whole(connections, send_buffers, key, parts)
}

/// Queues what is whole; on a connection that is ending nothing, as nobody waits for it.
pub(crate) fn append_whole(
    connections: &mut Table<Connection>,
    send_buffers: &mut SendBuffers,
    key: Key,
    parts: &[&[u8]],
) -> Result<(), PoolExhausted> {
    match connections.get_mut(key) {
        Some(connection) if connection.life < Life::Draining => {
            connection.append(send_buffers, parts)
        }
        Some(_) | None => Ok(()),
    }
}
