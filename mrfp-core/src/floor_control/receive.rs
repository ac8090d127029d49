//! Messages from the stream of a participant, or of somebody who is to become one.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{ErrorCode, Framer, Header, Primitive, TooLong};

use super::EGRESS_LIMITS_MAX;
use super::binding::{ClaimByName, channel};
use crate::answer::append_whole;
use crate::config::EVENTS_WAITING_MAX;
use crate::connection::{Life, Spoken};
use crate::floor::{Participant, REQUEST_BYTES_MAX, Received};
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};

/// First bytes of messages of version 1 (RFC 8855 section 5.1). None of MSRP is among them, nor of TLS.
const VERSION_1: std::ops::RangeInclusive<u8> = 0x20..=0x3f;

impl Plane {
    /// What is spoken on a connection on which nothing has been said yet. Where it is not known for whom
    /// it is, its first byte tells.
    pub(crate) fn recognise_spoken(&mut self, key: Key, first: u8) {
        let Some(connection) = self.connections.get(key) else { return };
        let is_bfcp = match self.foreseen(connection) {
            Some(termination) => termination.is_for_floors(),
            None => {
                connection.relay.is_none()
                    && self.floors.server.is_some()
                    && VERSION_1.contains(&first)
            }
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.spoken = if is_bfcp { Spoken::Bfcp } else { Spoken::Msrp };
        }
    }

    /// Handles every message of a run of bytes; returns how many were consumed (all, where the
    /// connection ended meanwhile).
    pub(crate) fn floor_messages(&mut self, key: Key, bytes: &[u8]) -> usize {
        let framer = Framer::new(REQUEST_BYTES_MAX);
        let mut taken = 0;
        loop {
            let connection = self.connections.get(key).filter(|connection| connection.is_alive());
            let Some(connection) = connection else { return bytes.len() };
            if connection.egress.bytes() > EGRESS_LIMITS_MAX * self.limits.egress_bytes_max {
                // It goes on asking and does not read what it is answered.
                self.release(key, ReleaseCause::TooSlow, Ending::Abort);
                return bytes.len();
            }
            let session = connection.only_session().filter(|_| connection.life == Life::Open);
            match framer.next(&bytes[taken..]) {
                Ok(Some(message)) => {
                    match session {
                        Some(session) => self.floor_message(key, session, message),
                        None if self.floor_stranger(key, message) => {}
                        None => break,
                    }
                    taken += message.len();
                }
                Ok(None) => break,
                Err(too_long) => {
                    self.floor_message_too_long(key, session, &too_long);
                    return bytes.len();
                }
            }
        }
        // The controller is told of every change of some floors: nobody may drown it.
        if self.is_pressed() || self.events.len() > EVENTS_WAITING_MAX {
            self.press(key);
        }
        taken
    }

    /// A message of a participant.
    pub(super) fn floor_message(&mut self, key: Key, session: Key, message: &[u8]) {
        let Some(termination) = self.terminations.get_mut(session) else { return };
        termination.statistics.messages_received += 1;
        termination.statistics.bytes_received += message.len() as u64;
        let Some(participant) = self.participant(session) else { return };
        let received = self.with_floor_server(|server, now_ns, out| {
            server.receive(participant, message, now_ns, out)
        });
        match received {
            Some(Received::Close) => {
                self.release(key, ReleaseCause::ProtocolViolation, Ending::Graceful);
            }
            Some(Received::GoOn) | None => {}
        }
        // After its greeting it may be silent for long, as after the handshake, and a crowd greets at once.
        if message.get(1) == Some(&Primitive::Hello.code())
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.of_handshake = true;
        }
    }

    /// The first message of a connection that nobody has vouched for. False: it waits where it is.
    pub(super) fn floor_stranger(&mut self, key: Key, message: &[u8]) -> bool {
        let Some(channel) = self.connections.get(key).map(channel) else { return true };
        let mut reply = std::mem::take(&mut self.scratch.wire);
        let found = self.with_floor_server(|server, _, _| {
            let participant = server.identify(message, channel, &mut reply)?;
            server.termination(participant)
        });
        let claim = found.flatten().map(|session| (session, self.claim_by_name(key, session)));
        if let Some((_, ClaimByName::Refused)) = claim
            && let Some(header) = Header::parse(message, channel.transport)
        {
            let code = ErrorCode::UnauthorizedOperation;
            self.with_floor_server(|server, _, _| {
                server.refuse_stranger(&header, channel, code, &mut reply);
            });
        }
        self.reply_to_stranger(key, &reply);
        self.scratch.wire = reply;
        match claim {
            Some((session, ClaimByName::Bound)) => {
                self.bind(key, session);
                self.floor_message(key, session, message);
                true
            }
            Some((_, ClaimByName::Waits)) => false,
            Some((_, ClaimByName::Refused)) | None => true,
        }
    }

    /// Where the next message begins nobody knows: the connection ends.
    fn floor_message_too_long(&mut self, key: Key, session: Option<Key>, too_long: &TooLong) {
        if let Some(participant) = session.and_then(|session| self.participant(session)) {
            self.with_floor_server(|server, now_ns, out| {
                server.receive_too_long(participant, too_long, now_ns, out);
            });
        } else if let Some(channel) = self.connections.get(key).map(channel) {
            let mut reply = std::mem::take(&mut self.scratch.wire);
            let code = ErrorCode::IncorrectMessageLength;
            self.with_floor_server(|server, _, _| {
                server.refuse_stranger(&too_long.header, channel, code, &mut reply);
            });
            self.reply_to_stranger(key, &reply);
            self.scratch.wire = reply;
        }
        self.release(key, ReleaseCause::ProtocolViolation, Ending::Graceful);
    }

    fn reply_to_stranger(&mut self, key: Key, reply: &[u8]) {
        if reply.is_empty() || self.reply_by_datagram(key, reply) {
            return;
        }
        if append_whole(&mut self.connections, &mut self.send_buffers, key, &[reply]).is_err() {
            return self.unserved.push(key);
        }
        self.mark(key);
        self.check_egress(key);
    }

    pub(super) fn participant(&self, session: Key) -> Option<Participant> {
        self.terminations.get(session)?.floor_seat().map(|seat| seat.participant)
    }
}
