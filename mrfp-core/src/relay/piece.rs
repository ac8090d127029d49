//! Pieces of messages on a connection of the relay: what each head asks for.

use mrfp_io::Key;
use mrfp_protocol::msrp::{FailureReport, Head, Method, Piece, Start, Uri};

use super::link::{Forward, ForwardMethod, Incoming};
use super::path::same_host;
use super::whole::WholeSend;
use crate::connection::Life;
use crate::incoming::Identifier;
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};
use crate::request::keep_relayed_lines;

/// Send buffers that must be free before a message is begun.
const BUFFERS_MIN: usize = 2;

impl Plane {
    /// Takes one piece from the framer.
    pub(crate) fn relay_piece(&mut self, key: Key, piece: &Piece<'_>) {
        if let Some(head) = &piece.head {
            match head.start {
                // It has no body, so there is nothing more of it.
                Start::Response(status, comment) => {
                    return self.relay_response(key, head, status, comment);
                }
                Start::Request(Method::Send) if WholeSend::passes_unchanged(head, piece) => {
                    return self.relay_whole_send(key, head, piece);
                }
                Start::Request(method) => {
                    let incoming = self.relay_begin(key, head, method);
                    let Some(link) = self.link_mut(key) else { return };
                    link.incoming = incoming;
                }
            }
        }
        let Some(link) = self.link_mut(key) else { return };
        match std::mem::take(&mut link.incoming) {
            Incoming::Forward(forward) => self.relay_forward(key, forward, piece),
            other => {
                if piece.end.is_none() {
                    link.incoming = other;
                }
            }
        }
    }

    /// Decides from the head what happens to a message.
    fn relay_begin(&mut self, key: Key, head: &Head<'_>, method: Method<'_>) -> Incoming {
        match method {
            Method::Send => self.metrics.messages_received += 1,
            Method::Auth if head.to_path.count() == 1 => {
                self.authenticate(key, head);
                return Incoming::Discard;
            }
            Method::Auth | Method::Report | Method::Nickname | Method::Unknown(_) => {}
        }
        match self.accept_forward(key, head, method) {
            Ok(forward) => Incoming::Forward(forward),
            Err(status) => {
                self.refuse_head(key, head, method, status);
                Incoming::Discard
            }
        }
    }

    fn accept_forward(
        &mut self,
        key: Key,
        head: &Head<'_>,
        method: Method<'_>,
    ) -> Result<Forward, u16> {
        let name = Identifier::new(method.as_bytes()).ok_or(501u16)?;
        let transaction = Identifier::new(head.transaction_id).ok_or(400u16)?;
        let (route, chunk) = self.admit(key, head, method)?;
        let message_id = match head.message_id {
            Some(id) => Identifier::new(id).ok_or(400u16)?,
            None => transaction,
        };
        let lines = &mut self.scratch.lines;
        lines.clear();
        keep_relayed_lines(head.header_lines, lines);
        let start = head.byte_range.map_or(1, |range| range.start);
        let proves = matches!(method, Method::Auth) && head.header(b"Authorization").is_some();
        Ok(Forward {
            route,
            chunk,
            method: match method {
                Method::Send => ForwardMethod::Send,
                Method::Report => ForwardMethod::Report,
                Method::Auth | Method::Nickname | Method::Unknown(_) => {
                    ForwardMethod::Other { name, proves }
                }
            },
            transaction,
            own: None,
            message_id,
            failure_report: head.failure_report,
            has_body: head.content_type.is_some(),
            next: start,
            total: head.byte_range.and_then(|range| range.total),
            ranged: head.byte_range,
            lines: None,
        })
    }

    /// Finds the route of a request that may be passed on, and numbers it. `Err`: with what to refuse
    /// it.
    pub(super) fn admit(
        &mut self,
        key: Key,
        head: &Head<'_>,
        method: Method<'_>,
    ) -> Result<(Key, u64), u16> {
        if self.send_buffers.available() < BUFFERS_MIN {
            self.metrics.relay_refused_limit += 1;
            return Err(413);
        }
        let route = self.route(key, head)?;
        if matches!(method, Method::Send) && head.message_id.is_none() {
            return Err(400);
        }
        self.relay_open(key);
        if let Some(link) = self.link_mut(key) {
            link.failures = 0;
        }
        let relay = self.relay.as_mut().ok_or(481u16)?;
        relay.chunks += 1;
        Ok((route, relay.chunks))
    }

    /// Refuses a request from its head.
    pub(super) fn refuse_head(
        &mut self,
        key: Key,
        head: &Head<'_>,
        method: Method<'_>,
        status: u16,
    ) {
        self.metrics.relay_refused_path += u64::from(status == 481);
        let from = head.to_path.first();
        match method {
            // RFC 4975 section 7.1.2: a REPORT is never answered.
            Method::Report => {}
            Method::Send if head.failure_report == FailureReport::No => {}
            Method::Send => {
                let to = head.from_path.first();
                self.relay_respond(key, head.transaction_id, status, to, from, b"");
            }
            Method::Auth | Method::Nickname | Method::Unknown(_) => {
                // For the relay itself, which has no use for it.
                let for_us = head.to_path.count() == 1;
                let unknown = for_us && !matches!(method, Method::Auth) && self.is_own(from);
                let status = if unknown { 501 } else { status };
                let to = head.from_path.0;
                self.relay_respond(key, head.transaction_id, status, to, from, b"");
            }
        }
        // Others may use the connection, too, and do better; nor is a lack of buffers its fault.
        let unproven =
            self.connections.get(key).is_some_and(|connection| connection.life == Life::Unbound);
        if !unproven || status == 413 {
            return;
        }
        self.relay_failure(key);
        //= RFC 4976 section 6.2: whoever sends us what is for others is cut off.
        if status == 481 && !self.is_own(from) {
            self.release(key, ReleaseCause::ProtocolViolation, Ending::Graceful);
        }
    }

    /// Whether a URI names this relay, whether or not there is such a session.
    fn is_own(&self, uri: &[u8]) -> bool {
        let Some(relay) = &self.relay else { return false };
        Uri::parse(uri).is_ok_and(|uri| {
            let by_name = same_host(uri.host, relay.config.host.as_bytes());
            let by_port = match uri.port {
                Some(port) => port == relay.port || port == relay.config.listen.port(),
                None => true,
            };
            by_port && (by_name || uri.host_ip().is_some())
        })
    }

    /// A connection has shown what it is for.
    pub(super) fn relay_open(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.life != Life::Unbound {
            return;
        }
        connection.life = Life::Open;
        connection.deadline_ns = u64::MAX;
        let source = connection.settle();
        self.settle_unbound(source);
    }
}
