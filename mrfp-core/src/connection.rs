//! The life of a TCP connection. Ending it is a protocol of its own: terminate (say goodbye, flush),
//! join (every operation in the kernel has come back), close. Only close frees the slot.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use mrfp_io::{Key, SendBuffers, Socket};
use mrfp_protocol::msrp::{Continuation, Framer, TransactionId};
use mrfp_protocol::tls::{Handshake, PeerCertificate, Session};

use crate::carry::CarryBuffer;
use crate::egress::{Egress, Lane, PoolExhausted};
use crate::incoming::Incoming;
use crate::outstanding::OutstandingRequests;
use crate::relay::Link;
use crate::request::EndLine;

/// A connection as its shard holds it. Small when idle: no buffer, no OpenSSL object, no expanded key,
/// no [`Passage`].
pub(crate) struct Connection {
    /// `None`: a connection of the relay whose address is still being looked up.
    pub(crate) socket: Option<Socket>,
    pub(crate) life: Life,
    pub(crate) transport: Transport,
    pub(crate) spoken: Spoken,
    /// The Terminations it carries: bound, or (as client) the one it was opened for. In the clear
    /// there may be several (RFC 4975 section 5.4), a pre-shared key serves one.
    pub(crate) sessions: Sessions,
    /// How it came about; most need not know once they are bound.
    origin: Option<Box<Origin>>,
    /// The relay's side of it, where it came in by a port of the relay or was made by it. It then
    /// carries no sessions.
    pub(crate) relay: Option<Box<Link>>,
    /// What passes through it; `None` while nothing does.
    passage: Option<Box<Passage>>,
    /// Since when the egress is above its limit.
    pub(crate) lagging_since_ns: Option<u64>,
    /// Contexts in which receivers must catch up before anything more is read; at a gateway 1 where the
    /// other side must.
    pub(crate) paused: u32,
    /// Nothing is read until the shard has buffers to spare.
    pub(crate) pressed: bool,
    pub(crate) recv: Recv,
    /// What comes is a file that the other side of a gateway gets inside the kernel.
    pub(crate) is_bulk: bool,
    pub(crate) connect_in_flight: bool,
    /// On the list of connections to attend to at the end of the turn.
    pub(crate) dirty: bool,
    /// The goodbye of the record layer has been queued.
    pub(crate) close_notify_queued: bool,
    /// When the current stage of life must be over; `u64::MAX` where it may last.
    pub(crate) deadline_ns: u64,
    /// When bytes last arrived.
    pub(crate) received_ns: u64,
    /// When a send last started or ended.
    pub(crate) sent_ns: u64,
}

/// Where a connection comes from or leads, and what is known of its peer.
#[derive(Default)]
pub(crate) struct Origin {
    /// As client: where it leads.
    pub(crate) connected_to: Option<SocketAddr>,
    /// The Termination whose own port it came in by.
    pub(crate) own_port_of: Option<Key>,
    /// The Termination whose key the peer's identity claims, until the handshake proves it.
    pub(crate) claimed: Option<Claim>,
    /// As TLS server: the certificate the peer has shown.
    pub(crate) peer_certificate: Option<PeerCertificate>,
    /// Counted against this source until bound.
    pub(crate) unbound_source: Option<IpAddr>,
}

/// What a connection is in the middle of. It is read and written as if it were part of the connection:
/// made when something is first written to it, and dropped when nothing has happened for a while.
#[derive(Default)]
pub(crate) struct Passage {
    pub(crate) framer: Framer,
    /// The request whose body is being received.
    pub(crate) incoming: Incoming,
    /// The messages whose chunks are being received, between their chunks too: RFC 4975 section
    /// 7.1 lets a sender put others in between.
    pub(crate) messages: Vec<Key>,
    /// The chunk that is open towards the peer.
    pub(crate) outgoing: Option<OpenChunk>,
    /// Receiving Terminations and messages in progress they do not get the rest of.
    pub(crate) declined: Vec<(Key, Key)>,
    /// What we have sent and the peer has not answered.
    pub(crate) outstanding: OutstandingRequests,
    /// Incomplete TLS record.
    pub(crate) carry_record: Option<CarryBuffer>,
    /// Incomplete MSRP head or end-line.
    pub(crate) carry_message: Option<CarryBuffer>,
    pub(crate) egress: Egress,
    /// It was made for a handshake or a greeting that is over now; what follows may be long in coming.
    pub(crate) of_handshake: bool,
}

/// What passes through an idle connection.
static NOTHING: LazyLock<Passage> = LazyLock::new(Passage::default);

/// What an idle connection may cost in its shard's table; there are tens of thousands of them.
const CONNECTION_SIZE_MAX: usize = 120;
const _: () = assert!(size_of::<Connection>() <= CONNECTION_SIZE_MAX);

/// Stages of life, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Life {
    /// Our connect is under way.
    Connecting,
    /// Up, but not known to belong to any Termination (or its handshake is not done).
    Unbound,
    /// Bound.
    Open,
    /// Ending: what is queued still leaves; what arrives is discarded.
    Draining,
    /// Ending: to be shut down at the end of the turn, whatever is queued.
    Terminating,
    /// Shut down; waits for the operations in the kernel.
    Joining,
    /// The close has been submitted.
    Closing,
}

/// The Terminations of one connection, in the order they came. Nearly always there is one.
pub(crate) enum Sessions {
    None,
    One(Key),
    Several(Box<Several>),
    /// It is the bearer of a connection point of a gateway, and carries no sessions.
    OfGateway(Key),
}

/// As many as it takes; behind one pointer, since it is rare.
pub(crate) struct Several {
    keys: Vec<Key>,
}

impl Sessions {
    pub(crate) fn push(&mut self, session: Key) {
        match self {
            Self::None => *self = Self::One(session),
            Self::One(first) => {
                *self = Self::Several(Box::new(Several { keys: vec![*first, session] }));
            }
            Self::Several(several) => several.keys.push(session),
            Self::OfGateway(_) => unreachable!("sessions are bound to what came in by other ports"),
        }
    }

    pub(crate) fn remove(&mut self, session: Key) {
        match self {
            Self::One(only) if *only == session => *self = Self::None,
            Self::None | Self::One(_) | Self::OfGateway(_) => {}
            Self::Several(several) => several.keys.retain(|&other| other != session),
        }
    }
}

impl Deref for Sessions {
    type Target = [Key];

    fn deref(&self) -> &[Key] {
        match self {
            Self::None | Self::OfGateway(_) => &[],
            Self::One(session) => std::slice::from_ref(session),
            Self::Several(several) => &several.keys,
        }
    }
}

/// What lies on top of TCP.
pub(crate) enum Transport {
    /// No byte has been seen.
    Unknown,
    /// In the clear.
    Plain,
    /// The handshake is under way.
    Handshaking(Box<Handshake>),
    /// Application data in TLS records.
    Tls(Session),
    /// No stream at all: each buffer is a datagram (UDP), in both directions.
    Datagrams,
}

/// What is spoken on top of that. It never changes once it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spoken {
    /// Nothing has been said.
    Unknown,
    Msrp,
    Bfcp,
}

/// Whose key a TLS client says it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(crate) termination: Key,
    /// Which of the Termination's sessions, one after the other: each has a key of its own.
    pub(crate) session_number: u32,
}

/// Where the multishot receive stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recv {
    Idle,
    Armed,
    /// It is only waited for something to come, which is not to be received into memory.
    Awaited,
    Cancelling,
    /// The peer has ended its direction (or the connection broke): there is nothing to arm for.
    Ended,
}

/// A chunk that has begun and not ended towards a receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenChunk {
    /// The receiving Termination.
    pub(crate) receiver: Key,
    pub(crate) message: Key,
    pub(crate) transaction: TransactionId,
    /// Where it is queued.
    pub(crate) lane: Lane,
    /// Bytes of the message in it.
    pub(crate) bytes: usize,
}

impl Connection {
    pub(crate) fn new(socket: Socket, life: Life, now_ns: u64, deadline_ns: u64) -> Self {
        Self { socket: Some(socket), life, ..Self::unconnected(now_ns, deadline_ns) }
    }

    /// A connection of ours that has no socket yet.
    pub(crate) fn unconnected(now_ns: u64, deadline_ns: u64) -> Self {
        Self {
            socket: None,
            life: Life::Connecting,
            transport: Transport::Unknown,
            spoken: Spoken::Unknown,
            sessions: Sessions::None,
            origin: None,
            relay: None,
            passage: None,
            lagging_since_ns: None,
            paused: 0,
            pressed: false,
            recv: Recv::Idle,
            is_bulk: false,
            connect_in_flight: false,
            dirty: false,
            close_notify_queued: false,
            deadline_ns,
            received_ns: now_ns,
            sent_ns: now_ns,
        }
    }

    /// The bearer of a connection point. Nothing is read before it is known what becomes of it.
    pub(crate) fn of_gateway(mut self, point: Key) -> Self {
        self.sessions = Sessions::OfGateway(point);
        self.paused = 1;
        self
    }

    /// The socket of a connection point for datagrams. Whatever comes is looked at.
    pub(crate) fn of_datagram_point(self, point: Key) -> Self {
        Self { transport: Transport::Datagrams, paused: 0, ..self.of_gateway(point) }
    }

    /// How it came about, as far as it still matters.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// The same, to be added to.
    pub(crate) fn origin_mut(&mut self) -> &mut Origin {
        self.origin.get_or_insert_default()
    }

    /// It is bound, or ending: nobody claims anything any more. Returns the source it was counted
    /// against, if it was.
    pub(crate) fn settle(&mut self) -> Option<IpAddr> {
        let origin = self.origin.as_deref_mut()?;
        origin.claimed = None;
        let source = origin.unbound_source.take();
        if origin.is_forgettable() {
            self.origin = None;
        }
        source
    }

    /// Whether there is no TCP below it.
    pub(crate) fn is_of_datagrams(&self) -> bool {
        matches!(self.transport, Transport::Datagrams)
    }

    /// Ends the chunk that is open towards the peer, if there is one.
    pub(crate) fn end_chunk(
        &mut self,
        send_buffers: &mut SendBuffers,
        end: Continuation,
    ) -> Result<(), PoolExhausted> {
        if self.outgoing.is_none() {
            return Ok(());
        }
        let passage = &mut **self;
        let Some(open) = passage.outgoing.take() else { return Ok(()) };
        let end_line = EndLine::new(&open.transaction, Some(end), true);
        passage.egress.extend(open.lane, send_buffers, &[end_line.bytes()])?;
        passage.outstanding.close(passage.egress.position(open.lane));
        Ok(())
    }

    /// Queues a message of ours that is whole; it interrupts the chunk that is open.
    pub(crate) fn append(
        &mut self,
        send_buffers: &mut SendBuffers,
        parts: &[&[u8]],
    ) -> Result<(), PoolExhausted> {
        self.append_to(Lane::First, send_buffers, parts)
    }

    /// The same, or the beginning of one, in a lane.
    pub(crate) fn append_to(
        &mut self,
        lane: Lane,
        send_buffers: &mut SendBuffers,
        parts: &[&[u8]],
    ) -> Result<(), PoolExhausted> {
        self.end_chunk(send_buffers, Continuation::More)?;
        self.egress.append_to(lane, send_buffers, parts)
    }

    /// Once the last flight of its handshake has left: what that needed is the next one's. Only then, as
    /// what is under way afterwards would have to expand the keys again for every message.
    pub(crate) fn rest_after_handshake(&mut self) {
        if self.of_handshake && self.egress.is_empty() && !self.egress.is_in_flight() {
            self.of_handshake = false;
            self.rest();
        }
    }

    /// Gives back what a connection does not need that nothing has happened on for a while.
    pub(crate) fn rest(&mut self) {
        if let Transport::Tls(session) = &mut self.transport {
            session.rest();
        }
        // The relay counts what has left a connection for as long as it lives.
        if self.relay.is_some() || self.lagging_since_ns.is_some() {
            return;
        }
        if self.passage.as_ref().is_some_and(|passage| passage.is_over()) {
            self.passage = None;
        }
    }

    /// Whether nothing passes through it.
    pub(crate) fn is_resting(&self) -> bool {
        self.passage.is_none()
    }

    /// Its only session, where it has no other.
    pub(crate) fn only_session(&self) -> Option<Key> {
        match *self.sessions {
            [session] => Some(session),
            [] | [_, ..] => None,
        }
    }

    /// The connection point of a gateway whose bearer it is, or was.
    #[inline(always)]
    pub(crate) fn point(&self) -> Option<Key> {
        match self.sessions {
            Sessions::OfGateway(point) => Some(point),
            Sessions::None | Sessions::One(_) | Sessions::Several(_) => None,
        }
    }

    /// Whether what arrives still matters.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Unbound | Life::Open)
    }

    /// Whether the receive ought to be armed: also while draining, as bytes left unread would turn
    /// our FIN into a reset that destroys what we sent last.
    pub(crate) fn wants_recv(&self) -> bool {
        match self.life {
            Life::Unbound | Life::Open => self.paused == 0 && !self.pressed,
            Life::Draining => true,
            Life::Connecting | Life::Terminating | Life::Joining | Life::Closing => false,
        }
    }

    /// Whether nothing has come of a message that is not whole.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.framer.is_between_messages()
            && matches!(self.incoming, Incoming::Idle)
            && self.carry_record.is_none()
            && self.carry_message.is_none()
    }

    /// Whether nothing of this connection is in the kernel.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.recv, Recv::Idle | Recv::Ended)
            && !self.connect_in_flight
            && !self.egress.is_in_flight()
    }
}

impl Origin {
    /// Whether nothing in it is asked for once the connection is bound.
    fn is_forgettable(&self) -> bool {
        self.connected_to.is_none() && self.own_port_of.is_none() && self.peer_certificate.is_none()
    }
}

impl Deref for Connection {
    type Target = Passage;

    fn deref(&self) -> &Passage {
        self.passage.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Passage {
        self.passage.get_or_insert_default()
    }
}

impl Passage {
    /// Whether a new one would do as well.
    fn is_over(&self) -> bool {
        self.framer.is_between_messages()
            && matches!(self.incoming, Incoming::Idle)
            && self.messages.is_empty()
            && self.outgoing.is_none()
            && self.declined.is_empty()
            && self.outstanding.len() == 0
            && self.carry_record.is_none()
            && self.carry_message.is_none()
            && self.egress.is_empty()
            && !self.egress.is_in_flight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_rests_after_its_handshake() {
        let mut connection = Connection::unconnected(0, 0);
        connection.of_handshake = true;
        connection.rest_after_handshake();
        assert!(connection.is_resting());
    }

    #[test]
    fn a_connection_in_use_rests_after_its_handshake_at_most_once() {
        let mut connection = Connection::unconnected(0, 0);
        connection.of_handshake = true;
        connection.messages.push(Key { index: 0, generation: 0 });
        connection.rest_after_handshake();
        assert!(!connection.is_resting());
        connection.messages.clear();
        connection.rest_after_handshake();
        assert!(!connection.is_resting(), "not again: the timers see to it");
    }

    #[test]
    fn nothing_of_a_settled_connection_is_kept_but_what_is_asked_for() {
        let source = "192.0.2.1".parse().ok();
        let mut connection = Connection::unconnected(0, 0);
        assert_eq!(connection.settle(), None);
        connection.origin_mut().unbound_source = source;
        assert_eq!(connection.settle(), source);
        assert!(connection.origin().is_none());
        let own = Key { index: 1, generation: 0 };
        *connection.origin_mut() =
            Origin { unbound_source: source, own_port_of: Some(own), ..Origin::default() };
        assert_eq!(connection.settle(), source);
        assert_eq!(connection.settle(), None, "it is counted once");
        assert_eq!(connection.origin().and_then(|origin| origin.own_port_of), Some(own));
    }

    #[test]
    fn sessions_keep_their_order_and_leave_one_by_one() {
        let [a, b, c] = [1, 2, 3].map(|index| Key { index, generation: 0 });
        let mut sessions = Sessions::None;
        sessions.remove(a);
        sessions.push(a);
        assert_eq!(*sessions, [a]);
        sessions.remove(b);
        sessions.push(b);
        sessions.push(c);
        assert_eq!(*sessions, [a, b, c]);
        sessions.remove(a);
        assert_eq!(*sessions, [b, c]);
        sessions.remove(c);
        sessions.remove(b);
        assert!(sessions.is_empty());
        sessions.push(a);
        sessions.remove(a);
        assert!(sessions.is_empty());
    }
}
