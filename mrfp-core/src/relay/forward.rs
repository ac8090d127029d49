//! Passing a request on, piece by piece as it arrives.

use mrfp_io::Key;
use mrfp_protocol::msrp::{ByteRange, Continuation, FailureReport, Piece};

use super::link::{Forward, ForwardMethod, Incoming, Pending};
use super::outstanding::Sent;
use super::response::Response;
use crate::config::{INTERRUPTIBLE_BYTES_MIN, LARGE_MESSAGE_BYTES_MIN, TRANSACTION_TIMEOUT_NS};
use crate::connection::{Life, OpenChunk};
use crate::egress::Lane;
use crate::plane::Plane;
use crate::request::EndLine;

/// `Byte-Range: ` with three numbers of 20 digits and the line end.
const RANGE_LINE_BYTES_MAX: usize = 80;

impl Plane {
    /// Passes a piece on to the next hop and, at the end of a SEND, answers it: the next hop has it
    /// queued, and whatever happens to it from now on becomes a REPORT.
    pub(super) fn relay_forward(&mut self, key: Key, mut forward: Forward, piece: &Piece<'_>) {
        let sendable = !piece.body.is_empty() || piece.end.is_some();
        if sendable && let Err(status) = self.pass_piece_on(key, &mut forward, piece) {
            return self.refuse_forwarding(key, forward, piece.end, status);
        }
        let Some(end) = piece.end else { return self.keep_forwarding(key, forward) };
        forward.lines.take().into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
        let answered = matches!(forward.method, ForwardMethod::Send)
            && forward.failure_report == FailureReport::Yes;
        if answered {
            self.answer_forward(key, &forward, 200);
        }
        self.metrics.relay_requests_forwarded += u64::from(end != Continuation::Abort);
    }

    /// Queues a piece on the connection of the route.
    fn pass_piece_on(
        &mut self,
        key: Key,
        forward: &mut Forward,
        piece: &Piece<'_>,
    ) -> Result<(), u16> {
        let relay = self.relay.as_mut().ok_or(481u16)?;
        let route = relay.routes.get(forward.route).ok_or(481u16)?;
        if !route.is_valid(&relay.registrations, self.now_ns) {
            return Err(481);
        }
        let egress_key = route.egress;
        let egress = self.connections.get_mut(egress_key).ok_or(408u16)?;
        let open = egress.outgoing;
        let continues = open.is_some_and(|open| Some(open.transaction) == forward.own);
        let bytes = open.filter(|_| continues).map_or(0, |open| open.bytes) + piece.body.len();
        let lane = match open {
            Some(open) if continues => open.lane,
            Some(_) | None => forward.lane(),
        };
        let makes_room = egress.egress.chunk_makes_room(lane, bytes);
        let end = piece.end.or(makes_room.then_some(Continuation::More));
        let own = match open {
            Some(open) if continues => open.transaction,
            Some(_) | None => self.identifiers.transaction(),
        };
        let Some(link) = egress.relay.as_deref().filter(|_| egress.life < Life::Draining) else {
            return Err(408);
        };
        if !continues
            && forward.own.is_none()
            && matches!(forward.method, ForwardMethod::Other { .. })
            && link.pending.len() >= relay.config.limits.requests_pending_max
        {
            self.metrics.relay_refused_limit += 1;
            return Err(413);
        }
        let end_line = EndLine::new(&own, end, forward.has_body);
        let next = forward.next.saturating_add(piece.body.len() as u64);
        let queued = if continues {
            egress.egress.extend(lane, &mut self.send_buffers, &[piece.body, end_line.bytes()])
        } else {
            let mut memory = [0; RANGE_LINE_BYTES_MAX];
            let range_line = range_line(&mut memory, forward, piece);
            let lines = match &forward.lines {
                Some(kept) => kept.bytes(),
                None => self.scratch.lines.as_slice(),
            };
            let blank: &[u8] = if forward.has_body { b"\r\n" } else { b"" };
            let parts: &[&[u8]] = &[
                b"MSRP ",
                own.as_bytes(),
                b" ",
                forward.method.name(),
                b"\r\n",
                route.lines(),
                range_line,
                lines,
                blank,
                piece.body,
                end_line.bytes(),
            ];
            egress.append_to(lane, &mut self.send_buffers, parts)
        };
        let mark = egress.egress.position(lane);
        egress.outgoing = match end {
            None => Some(OpenChunk {
                receiver: forward.route,
                message: forward.route,
                transaction: own,
                lane,
                bytes,
            }),
            Some(_) => None,
        };
        let left = egress.egress.left();
        let Some(link) = egress.relay.as_deref_mut() else { return Err(408) };
        if continues {
            if matches!(forward.method, ForwardMethod::Send) {
                link.outstanding.extend(&own, next, mark);
            }
        } else {
            self.metrics.messages_sent += u64::from(matches!(forward.method, ForwardMethod::Send));
            match forward.method {
                ForwardMethod::Send => {
                    if forward.failure_report != FailureReport::No {
                        let sent = Sent {
                            transaction: own,
                            route: forward.route,
                            chunk: forward.chunk,
                            message_id: forward.message_id,
                            start: forward.next,
                            next,
                            total: forward.total,
                            answer_expected: forward.failure_report == FailureReport::Yes,
                            mark,
                            deadline_ns: None,
                        };
                        let outstanding_max = relay.config.limits.outstanding_max;
                        link.outstanding.push(sent, outstanding_max, left);
                    }
                }
                ForwardMethod::Report => {}
                ForwardMethod::Other { proves, .. } => {
                    if forward.own.is_none() {
                        link.pending.push_back(Pending {
                            transaction: own,
                            original: forward.transaction,
                            route: forward.route,
                            proves,
                            deadline_ns: self.now_ns + TRANSACTION_TIMEOUT_NS,
                        });
                    }
                }
            }
        }
        forward.own = Some(own);
        forward.next = next;
        self.relay_passed(key, egress_key, queued);
        Ok(())
    }

    /// The body goes on in a later receive: keeps the lines its next chunk may need.
    fn keep_forwarding(&mut self, key: Key, mut forward: Forward) {
        if forward.lines.is_none() {
            let Some(mut kept) = self.carry_buffers.take() else {
                self.metrics.relay_refused_limit += 1;
                return self.refuse_forwarding(key, forward, None, 413);
            };
            assert_eq!(kept.append(&self.scratch.lines), self.scratch.lines.len());
            forward.lines = Some(kept);
        }
        match self.link_mut(key) {
            Some(link) => link.incoming = Incoming::Forward(forward),
            None => forward.lines.into_iter().for_each(|buffer| self.carry_buffers.put(buffer)),
        }
    }

    /// Answers a request with an error before it has gone on, or in the middle of it; the next hop
    /// gets `#` for what it has begun to get.
    pub(super) fn refuse_forwarding(
        &mut self,
        key: Key,
        mut forward: Forward,
        end: Option<Continuation>,
        status: u16,
    ) {
        self.abort_forwarding(&mut forward);
        match forward.method {
            ForwardMethod::Report => {}
            ForwardMethod::Send => {
                if forward.failure_report != FailureReport::No {
                    self.answer_forward(key, &forward, status);
                }
            }
            ForwardMethod::Other { .. } => self.answer_forward(key, &forward, status),
        }
        if end.is_none()
            && let Some(link) = self.link_mut(key)
        {
            link.incoming = Incoming::Refused(forward.chunk);
        }
    }

    /// Gives up towards the next hop what has begun there: nothing more of it will come, and whoever
    /// sent it learns that otherwise.
    pub(super) fn abort_forwarding(&mut self, forward: &mut Forward) {
        forward.lines.take().into_iter().for_each(|buffer| self.carry_buffers.put(buffer));
        let Some(own) = forward.own else { return };
        let route = self.relay.as_ref().and_then(|relay| relay.routes.get(forward.route));
        let Some(egress_key) = route.map(|route| route.egress) else { return };
        let Some(egress) = self.connections.get_mut(egress_key) else { return };
        if egress.outgoing.is_some_and(|open| open.transaction == own) {
            self.close_chunk(egress_key);
        }
        if let Some(link) = self.link_mut(egress_key) {
            // Its answer interests nobody.
            link.outstanding.answered(own.as_bytes());
        }
    }

    /// Answers the request that is being passed on.
    pub(super) fn answer_forward(&mut self, key: Key, forward: &Forward, status: u16) {
        let Some(route) = self.relay.as_ref().and_then(|relay| relay.routes.get(forward.route))
        else {
            return;
        };
        let response = Response {
            transaction: forward.transaction.as_bytes(),
            status,
            to: match forward.method {
                ForwardMethod::Send | ForwardMethod::Report => route.previous(),
                ForwardMethod::Other { .. } => &route.from_path,
            },
            from: route.own_uri(),
            lines: b"",
        };
        let queued = response.append(&mut self.connections, &mut self.send_buffers, key);
        self.relay_responded(key, status, queued);
    }
}

impl Forward {
    fn lane(&self) -> Lane {
        match self.method {
            ForwardMethod::Send => lane_of(self.next, self.total),
            ForwardMethod::Report | ForwardMethod::Other { .. } => Lane::First,
        }
    }
}

/// A large message waits where others overtake it, from its first byte or, where nobody has said
/// how large it is, from the byte that makes it large.
pub(super) fn lane_of(next: u64, total: Option<u64>) -> Lane {
    let large = total.unwrap_or(0).max(next) > LARGE_MESSAGE_BYTES_MIN;
    if large { Lane::Large } else { Lane::First }
}

/// The Byte-Range of a SEND that begins with such a piece: where it ends is said of what is short and
/// whole.
pub(super) fn send_range(start: u64, piece: &Piece<'_>, total: Option<u64>) -> ByteRange {
    let short = piece.end.is_some() && piece.body.len() <= INTERRUPTIBLE_BYTES_MIN;
    let after = start.saturating_add(piece.body.len() as u64);
    ByteRange { start, end: short.then_some(after.saturating_sub(1)), total }
}

impl ForwardMethod {
    fn name(&self) -> &[u8] {
        match self {
            Self::Send => b"SEND",
            Self::Report => b"REPORT",
            Self::Other { name, .. } => name.as_bytes(),
        }
    }
}

/// The Byte-Range line of a request that begins with this piece. What is no SEND keeps its own (that
/// of a REPORT is about other bytes) unless it had to be split.
fn range_line<'a>(
    memory: &'a mut [u8; RANGE_LINE_BYTES_MAX],
    forward: &Forward,
    piece: &Piece<'_>,
) -> &'a [u8] {
    let is_send = matches!(forward.method, ForwardMethod::Send);
    let range = match forward.ranged {
        Some(range) if !is_send && forward.own.is_none() => range,
        None if !is_send && forward.own.is_none() => return b"",
        Some(_) | None => send_range(forward.next, piece, forward.total),
    };
    const NAME: &[u8] = b"Byte-Range: ";
    memory[..NAME.len()].copy_from_slice(NAME);
    let written = range.write(&mut memory[NAME.len()..]);
    let length = NAME.len() + written.unwrap_or_else(|| unreachable!("three numbers fit"));
    memory[length..length + 2].copy_from_slice(b"\r\n");
    &memory[..length + 2]
}
