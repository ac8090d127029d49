//! What comes from participants: the checks of RFC 8855 section 13, in the order of a server that
//! tells a stranger as little as it can, and the way to whoever carries it out.

use mrfp_io::Key;
use mrfp_protocol::bfcp::{
    ClientMessage, ClientMessageError, ErrorCode, Header, Payload, Primitive, TooLong, Transport,
    UnknownAttributes, write_error,
};

use super::association::{Association, Novelty};
use super::member::Presence;
use super::notify::send_datagrams;
use super::output::Output;
use super::policy::{Channel, REQUEST_BYTES_MAX};
use super::request::Tell;
use super::{FloorServer, Participant, compose};

/// What is to become of the connection a message came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Received {
    /// It goes on.
    GoOn,
    /// It ends, after what has been sent: over TCP since what comes cannot be read
    /// (RFC 8855 section 6.1), over UDP since the participant has said Goodbye.
    Close,
}

/// A request of a participant that is being carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    /// Who asks.
    pub(super) member: Key,
    pub(super) conference: Key,
    /// What its message began with.
    pub(super) header: Header,
    pub(super) transport: Transport,
    pub(super) now_ns: u64,
}

impl Asking {
    /// The header of the answer.
    pub(super) fn response(&self, primitive: Primitive) -> Header {
        self.header.response(self.transport, primitive)
    }
}

/// Why a request is not carried out, in the protocol's words and, where they say too little, in
/// words for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) info: &'static str,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, info: "" }
    }
}

impl FloorServer {
    /// Whose a message is that came in the clear by a connection, or from an address, that is
    /// nobody's yet: it names conference and user. `None`: nobody's; what is in `reply` then, if
    /// anything, is to be sent back.
    ///
    /// A user that is connected is not given away to another TCP connection (RFC 8855 section 6.1: a
    /// client has one), as nobody knows who that is. Over UDP a Hello may come from a new address.
    pub fn identify(
        &mut self,
        message: &[u8],
        channel: Channel,
        reply: &mut Vec<u8>,
    ) -> Option<Participant> {
        reply.clear();
        let header = Header::parse(message, channel.transport)?;
        if header.responder {
            return None;
        }
        match self.find(&header, message, channel) {
            Ok(member) => Some(Participant(member)),
            Err(None) => None,
            Err(Some(code)) => {
                self.refuse_stranger(&header, channel, code, reply);
                None
            }
        }
    }

    /// Writes an Error for somebody who is nobody's connection: it is to be sent back.
    pub fn refuse_stranger(
        &mut self,
        header: &Header,
        channel: Channel,
        code: ErrorCode,
        reply: &mut Vec<u8>,
    ) {
        reply.clear();
        let length = self.write_refusal(header, channel.transport, code.into());
        self.counters.sent[usize::from(Primitive::Error.code())] += 1;
        reply.extend_from_slice(&self.scratch[..length]);
    }

    fn find(
        &self,
        header: &Header,
        message: &[u8],
        channel: Channel,
    ) -> Result<Key, Option<ErrorCode>> {
        let primitive = check_header(header, message, channel.transport)?;
        let conference = self.conference_by_id.get(&header.conference_id);
        let conference = *conference.ok_or(ErrorCode::ConferenceDoesNotExist)?;
        let member = self.conferences[conference].user(header.user_id);
        let member = member.ok_or(ErrorCode::UserDoesNotExist)?;
        check_secured(self.members[member].user.secured, channel)?;
        let connected = self.members[member].channel().is_some();
        let moved = channel.transport == Transport::Unreliable && primitive == Primitive::Hello;
        if connected && !moved {
            return Err(Some(ErrorCode::UnauthorizedOperation));
        }
        Ok(member)
    }

    /// A participant has a connection. What it had before is in its place again: it will be told
    /// of the floors it is subscribed to, and of its requests.
    pub fn connect(&mut self, participant: Participant, channel: Channel) {
        let key = participant.0;
        if self.members.get(key).is_none() {
            return;
        }
        self.dissolve(key);
        let member = &mut self.members[key];
        let returns = member.presence != Presence::Away;
        member.presence = Presence::Connected(channel);
        member.association = match channel.transport {
            Transport::Reliable => None,
            Transport::Unreliable => Some(Box::<Association>::default()),
        };
        self.members[key].stale |= self.members[key].subscribed | self.chaired(key);
        if returns {
            for at in 0..self.members[key].requests.len() {
                let request = self.members[key].requests[at];
                let beneficiary = self.requests[request].beneficiary.member == key;
                let tell = Tell { beneficiary, requested_by: !beneficiary };
                self.request_changed(request, tell);
            }
            self.resumed.push(key);
        }
        self.member_behind(key);
    }

    /// The connection of a participant is gone.
    pub fn disconnect(&mut self, participant: Participant, now_ns: u64) {
        self.lost(participant.0, now_ns);
    }

    /// Takes a message, over UDP a datagram, that has come for a participant by its connection.
    pub fn receive(
        &mut self,
        participant: Participant,
        bytes: &[u8],
        now_ns: u64,
        out: &mut impl Output,
    ) -> Received {
        let key = participant.0;
        let Some(member) = self.members.get_mut(key) else { return Received::GoOn };
        let Some(Channel { transport, .. }) = member.channel() else { return Received::GoOn };
        let Some(header) = Header::parse(bytes, transport) else { return Received::GoOn };
        let asking =
            Asking { member: key, conference: member.conference, header, transport, now_ns };
        if header.fragment.is_none() || header.version != transport.version() {
            return self.receive_message(asking, bytes, out);
        }
        let association = member.association.as_mut().expect("fragments come by UDP only");
        let mut reassembly = std::mem::take(&mut association.reassembly);
        if !reassembly.is_begun() {
            association.reassembly_begins(now_ns);
        }
        let content = header.content(bytes).unwrap_or_default();
        let whole = reassembly.take(&header, content, REQUEST_BYTES_MAX);
        let received = match whole {
            Ok(Some(message)) => {
                let header = Header { fragment: None, ..header };
                self.receive_message(Asking { header, ..asking }, message, out)
            }
            Ok(None) => Received::GoOn,
            Err(_) => {
                self.refuse(&asking, ErrorCode::IncorrectMessageLength.into(), out);
                Received::GoOn
            }
        };
        if reassembly.is_begun()
            && let Some(association) = &mut self.members[key].association
        {
            association.reassembly = reassembly;
        }
        self.arm_member(key);
        received
    }

    /// A message that is longer than is taken was announced over TCP. It is answered, and where
    /// the next one begins nobody knows: the connection is to be closed.
    pub fn receive_too_long(
        &mut self,
        participant: Participant,
        too_long: &TooLong,
        now_ns: u64,
        out: &mut impl Output,
    ) {
        let member = participant.0;
        let Some(conference) = self.members.get(member).map(|it| it.conference) else { return };
        let (header, transport) = (too_long.header, Transport::Reliable);
        let asking = Asking { member, conference, header, transport, now_ns };
        self.refuse(&asking, ErrorCode::IncorrectMessageLength.into(), out);
    }

    fn receive_message(&mut self, asking: Asking, bytes: &[u8], out: &mut impl Output) -> Received {
        let Asking { member, header, transport, now_ns, .. } = asking;
        if header.version == transport.version() && acknowledges(&header, transport) {
            self.acknowledged(member, header.transaction_id, now_ns);
            return Received::GoOn;
        }
        let known = Primitive::from_code(header.primitive).map_or(0, Primitive::code);
        self.counters.received[usize::from(known)] += 1;
        if let Some(association) = &self.members[member].association {
            match association.novelty(header.transaction_id) {
                Novelty::New => {}
                Novelty::Late => return Received::GoOn,
                Novelty::Repeated(answer) => {
                    let termination = self.members[member].user.termination;
                    send_datagrams(termination, answer, &mut self.datagram, out);
                    return Received::GoOn;
                }
            }
        }
        let primitive = match self.check(&asking, bytes) {
            Ok(primitive) => primitive,
            Err(None) => return Received::GoOn,
            Err(Some(code)) => {
                self.refuse(&asking, code.into(), out);
                return Received::GoOn;
            }
        };
        self.read(&asking, primitive, header.content(bytes).unwrap_or_default(), out)
    }

    /// What can be wrong before the attributes are looked at.
    fn check(&self, asking: &Asking, bytes: &[u8]) -> Result<Primitive, Option<ErrorCode>> {
        let Asking { header, transport, .. } = *asking;
        let primitive = check_header(&header, bytes, transport)?;
        let conference = &self.conferences[asking.conference];
        if header.conference_id != conference.conference_id {
            return Err(Some(ErrorCode::ConferenceDoesNotExist));
        }
        let member = &self.members[asking.member];
        //= RFC 8855 section 9.1: messages over an authenticated connection use a user ID that
        //= whoever has established it may use.
        if header.user_id != member.user.user_id {
            let known = conference.user(header.user_id).is_some();
            return Err(Some(match known {
                true => ErrorCode::UnauthorizedOperation,
                false => ErrorCode::UserDoesNotExist,
            }));
        }
        check_secured(member.user.secured, member.channel().expect("it has sent this"))?;
        Ok(primitive)
    }

    fn read(
        &mut self,
        asking: &Asking,
        primitive: Primitive,
        content: &[u8],
        out: &mut impl Output,
    ) -> Received {
        //= RFC 8855 section 6.1: whoever receives what cannot be parsed closes the connection.
        let unreadable = match asking.transport {
            Transport::Reliable => Received::Close,
            Transport::Unreliable => Received::GoOn,
        };
        let Ok(payload) = Payload::parse(content) else {
            self.refuse(asking, ErrorCode::UnableToParse.into(), out);
            return unreadable;
        };
        if !payload.unknown_mandatory.is_empty() {
            self.refuse_unknown(asking, payload.unknown_mandatory, out);
            return Received::GoOn;
        }
        match ClientMessage::read(primitive, &payload) {
            Ok(message) => self.carry_out(asking, message, out),
            Err(ClientMessageError::Incomplete) => {
                self.refuse(asking, ErrorCode::UnableToParse.into(), out);
                unreadable
            }
            Err(ClientMessageError::NotForServers) => {
                self.refuse(asking, ErrorCode::UnknownPrimitive.into(), out);
                Received::GoOn
            }
        }
    }

    fn carry_out(
        &mut self,
        asking: &Asking,
        message: ClientMessage<'_>,
        out: &mut impl Output,
    ) -> Received {
        let carried_out = match message {
            ClientMessage::FloorRequest { .. } => self.floor_request(asking, message, out),
            ClientMessage::FloorRelease { request } => self.floor_release(asking, request, out),
            ClientMessage::FloorRequestQuery { request } => {
                self.floor_request_query(asking, request, out)
            }
            ClientMessage::UserQuery { beneficiary } => self.user_query(asking, beneficiary, out),
            ClientMessage::FloorQuery { floors } => self.floor_query(asking, floors, out),
            ClientMessage::ChairAction { request, information } => {
                self.chair_action(asking, request, information, out)
            }
            ClientMessage::Hello => {
                let header = asking.response(Primitive::HelloAck);
                let length = compose::hello_ack(&mut self.scratch, &header, asking.transport);
                self.respond(asking, length, out);
                Ok(())
            }
            ClientMessage::Goodbye => {
                self.goodbye(asking, out);
                return Received::Close;
            }
            // They answer, and what answers has been taken care of.
            ClientMessage::FloorRequestStatusAck
            | ClientMessage::FloorStatusAck
            | ClientMessage::GoodbyeAck => Ok(()),
        };
        if let Err(refused) = carried_out {
            self.refuse(asking, refused, out);
        }
        Received::GoOn
    }

    /// Sends the answer that is in the scratch memory. Over UDP it is kept for when the request
    /// is repeated.
    pub(super) fn respond(&mut self, asking: &Asking, length: usize, out: &mut impl Output) {
        let Self { members, scratch, datagram, spare_memory, counters, .. } = self;
        let message = &scratch[..length];
        counters.sent[usize::from(message[1])] += 1;
        let Some(member) = members.get_mut(asking.member) else { return };
        let Some(association) = &mut member.association else {
            out.send(member.user.termination, message);
            return;
        };
        let id = asking.header.transaction_id;
        let earlier = association.answer(id, message, spare_memory.take(), asking.now_ns);
        earlier.into_iter().for_each(|memory| spare_memory.give(memory));
        send_datagrams(member.user.termination, message, datagram, out);
        self.arm_member(asking.member);
    }

    fn refuse(&mut self, asking: &Asking, refused: Refused, out: &mut impl Output) {
        let length = self.write_refusal(&asking.header, asking.transport, refused);
        self.respond(asking, length, out);
    }

    fn refuse_unknown(
        &mut self,
        asking: &Asking,
        unknown: UnknownAttributes,
        out: &mut impl Output,
    ) {
        let code = ErrorCode::UnknownMandatoryAttribute;
        self.counters.errors[usize::from(code.code())] += 1;
        let (header, transport) = (&asking.header, asking.transport);
        let length = write_error(&mut self.scratch, header, transport, code, unknown, "");
        self.respond(asking, length.expect("room for an error"), out);
    }

    fn write_refusal(&mut self, header: &Header, transport: Transport, refused: Refused) -> usize {
        let Refused { code, info } = refused;
        self.counters.errors[usize::from(code.code())] += 1;
        let none = UnknownAttributes::default();
        let length = write_error(&mut self.scratch, header, transport, code, none, info);
        length.expect("room for an error")
    }
}

/// Version, length, primitive. `Err(None)`: nothing is to be answered.
fn check_header(
    header: &Header,
    bytes: &[u8],
    transport: Transport,
) -> Result<Primitive, Option<ErrorCode>> {
    if header.version != transport.version() {
        return Err(Some(ErrorCode::UnsupportedVersion));
    }
    if header.fragment.is_none() && header.content(bytes).is_none() {
        return Err(Some(ErrorCode::IncorrectMessageLength));
    }
    let primitive = Primitive::from_code(header.primitive);
    let primitive = primitive.ok_or(ErrorCode::UnknownPrimitive)?;
    // Two who answer each other's errors with errors would never end.
    if primitive == Primitive::Error {
        return Err(None);
    }
    if is_of_version_2(primitive) && transport == Transport::Reliable {
        return Err(Some(ErrorCode::UnknownPrimitive));
    }
    Ok(primitive)
}

fn is_of_version_2(primitive: Primitive) -> bool {
    primitive.code() > Primitive::Error.code()
}

/// Whether a message answers one of ours; also one that forgets to say so in its header.
fn acknowledges(header: &Header, transport: Transport) -> bool {
    let primitive = Primitive::from_code(header.primitive);
    let by_name = matches!(
        primitive,
        Some(Primitive::FloorRequestStatusAck | Primitive::FloorStatusAck | Primitive::GoodbyeAck)
    );
    header.responder || by_name && transport == Transport::Unreliable
}

/// RFC 8855 section 9.1: who comes in the clear is asked to come back with TLS.
fn check_secured(secured: bool, channel: Channel) -> Result<(), ErrorCode> {
    match channel.transport {
        _ if channel.secured || !secured => Ok(()),
        Transport::Reliable => Err(ErrorCode::UseTls),
        Transport::Unreliable => Err(ErrorCode::UseDtls),
    }
}
