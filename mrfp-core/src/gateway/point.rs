//! One side of a Context of a gateway.

use mrfp_io::Key;
use mrfp_protocol::tls::{Fingerprint, Identity};

use super::datagrams::Association;
use super::msrp::Passing;
use crate::egress::Egress;
use crate::mp::{
    Bearer, Establishment, InterfaceId, RealmId, RemoteConnectionPoint, ReserveConnectionPoint,
    TerminationId, TerminationStatistics,
};
use crate::termination::known_realm;

/// A Termination of a gateway, as its shard holds it.
pub(crate) struct ConnectionPoint {
    pub(crate) id: TerminationId,
    /// Its Context's slot.
    pub(super) pair: Key,
    /// The other one of its Context.
    pub(super) other: Option<Key>,
    pub(crate) realm: RealmId,
    pub(crate) interface: InterfaceId,
    pub(crate) bearer: Bearer,
    /// The listener of its port.
    pub(crate) listener: Option<Key>,
    /// Its certificate, where TLS ends here.
    pub(crate) identity: Option<Identity>,
    /// The peer's side, once it is known.
    pub(crate) remote: Option<Box<RemoteConnectionPoint>>,
    /// Its connection: on its way, or up.
    pub(crate) connection: Option<Key>,
    /// Those that have come in unasked and unread, in their order: a peer may be faster than the answer that
    /// announces it, and a stranger faster than the peer.
    pub(super) early: Vec<Key>,
    pub(crate) stage: Stage,
    /// Until when there must be a connection.
    pub(crate) deadline_ns: u64,
    /// What it has received that the other side cannot take yet.
    pub(super) held: Option<Box<Egress>>,
    /// How what it receives is passed on.
    pub(super) passing: Passing,
    /// Its peer has ended its direction.
    pub(super) received_end: bool,
    /// Our direction towards its peer is to end once everything has left, or has ended.
    pub(super) end: SendingEnd,
    /// Who it exchanges datagrams with, where it does.
    pub(super) association: Option<Box<Association>>,
    pub(crate) statistics: TerminationStatistics,
}

/// Life of a connection point, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// The peer's side is not known.
    Reserved,
    /// It is, and a connection is to come, or its handshake to be over.
    Establishing,
    /// The bearer carries media.
    Up,
    /// The bearer is gone, or did not come up.
    Released,
    /// Subtracted; waits for its connection to end.
    Subtracted,
}

/// Where the end of our direction stands, on a connection whose directions end one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SendingEnd {
    /// There is more to come.
    No,
    /// Behind what is queued.
    Due,
    /// The peer has been told.
    Sent,
}

impl ConnectionPoint {
    pub(super) fn new(reserve: &ReserveConnectionPoint, identity: Option<Identity>) -> Self {
        Self {
            id: reserve.termination,
            pair: NO_PAIR,
            other: None,
            realm: known_realm(reserve.realm),
            interface: reserve.interface,
            bearer: reserve.bearer,
            listener: None,
            identity,
            remote: None,
            connection: None,
            early: Vec::new(),
            stage: Stage::Reserved,
            deadline_ns: u64::MAX,
            held: None,
            passing: Passing::Undecided,
            received_end: false,
            end: SendingEnd::No,
            association: reserve.bearer.is_datagrams().then(Box::default),
            statistics: TerminationStatistics::default(),
        }
    }

    /// "Local certificate fingerprint".
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.identity.as_ref().map(Identity::fingerprint)
    }

    /// Who is to connect, once that is known.
    pub(super) fn establishment(&self) -> Option<Establishment> {
        self.remote.as_ref().map(|remote| remote.establishment)
    }

    /// Whether it waits for a connection, and has none.
    pub(super) fn awaits_connection(&self) -> bool {
        self.stage == Stage::Establishing && self.connection.is_none()
    }
}

/// Before it is listed it has none.
const NO_PAIR: Key = Key { index: Key::INDEX_MAX, generation: 0 };
