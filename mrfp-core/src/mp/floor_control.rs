//! Floor control over Mp (TS 23.333 clause 5.20.4, "Configure BFCP Termination"): what the controller
//! says of the floors of a conference, and of the streams of those who ask for them.

use std::net::SocketAddr;

use mrfp_protocol::tls::Psk;

use super::{ContextId, RealmId, Security, Setup, TerminationId};
use crate::floor::{ConferencePolicy, FloorPolicy, FloorView, Refusal};

/// The floors of a conference. They are there from the first Termination of the Context to its last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorControl {
    /// `a=confid`; unique among the Contexts of the shard.
    pub conference_id: u32,
    /// What holds for the conference.
    pub policy: ConferencePolicy,
    /// Its floors; none with the number of another.
    pub floors: Vec<Floor>,
    /// Only who holds the floor that is for the messages may send them.
    pub moderated: bool,
}

/// A floor and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Floor {
    /// `a=floorid`.
    pub floor_id: u16,
    /// By which rules it is given.
    pub policy: FloorPolicy,
    /// It is for the messages of the conference: its label is that of the message stream. At most one
    /// of the floors is.
    pub governs_messages: bool,
    /// It is for media that somebody else mixes: every change of who holds it is told with
    /// [`Event::FloorChanged`](super::Event::FloorChanged).
    pub reported: bool,
}

/// Everything a shard needs to know of a new Termination for BFCP. Its Context exists, and has floors.
#[derive(Debug)]
pub struct ReserveFloorControl {
    /// The Context.
    pub context: ContextId,
    /// The new Termination.
    pub termination: TerminationId,
    /// How its user is connected.
    pub stream: FloorStream,
    /// An offer of ours is unanswered: nothing is connected or bound before `ModifyFloorControl`.
    pub unanswered: bool,
    /// `a=userid`, unique in the conference.
    pub user_id: u16,
    /// What others see of the user; empty: nothing.
    pub display_name: String,
    /// Where others may reach it; empty: nowhere.
    pub uri: String,
    /// The Termination of the same Context whose messages pass while the user holds the floor that is
    /// for them.
    pub speaks_by: Option<TerminationId>,
    /// Where its traffic is counted.
    pub realm: RealmId,
    /// A port of its own instead of the shard's shared one. With UDP it always has one; so it must
    /// where we are TCP server and TLS client, as nothing else tells whose connection has come.
    pub own_port: bool,
}

/// How a user is connected.
#[derive(Debug)]
pub struct FloorStream {
    /// What carries it.
    pub transport: FloorTransport,
    /// In the clear, or with what TLS. Over UDP in the clear.
    pub security: Security,
    /// Which side of TLS we are. It follows from who made the first offer, whatever `a=setup` says
    /// (RFC 8856 section 8): the offerer is the client.
    pub tls_role: TlsRole,
}

/// What carries BFCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloorTransport {
    /// TCP/BFCP and TCP/TLS/BFCP, version 1. Who connects follows `a=setup`.
    Tcp(Setup),
    /// UDP/BFCP, version 2. Datagrams are taken from that address and sent there; `None` while an
    /// offer of ours is unanswered.
    Udp {
        /// The address in the peer's SDP.
        remote: Option<SocketAddr>,
    },
}

/// A side of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsRole {
    /// We send the ClientHello.
    Client,
    /// The peer does.
    Server,
}

/// The answer to an offer of ours.
#[derive(Debug)]
pub struct ModifyFloorControl {
    /// Which.
    pub termination: TerminationId,
    /// As it was agreed.
    pub transport: FloorTransport,
    /// The TEK that was awaited (`Security::TlsPskAwaited`).
    pub psk: Option<Psk>,
}

/// Another connection for a user whose connection was lost, or who has moved, after a new SDP exchange
/// (RFC 8856 section 10.4). The user stays who it is, with its requests and floors.
#[derive(Debug)]
pub struct ReplaceFloorControl {
    /// Which.
    pub termination: TerminationId,
    /// How it is connected from now on; a key is a new one.
    pub stream: FloorStream,
    /// As with `ReserveFloorControl`.
    pub unanswered: bool,
    /// As with `ReserveFloorControl`.
    pub own_port: bool,
}

/// Something about the floors of a Context. Each is answered, in the order of the commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FloorAction {
    /// How they are.
    List,
    /// As [`FloorServer::grant`](crate::floor::FloorServer::grant).
    Grant {
        /// Which floor.
        floor_id: u16,
        /// To whom.
        user_id: u16,
    },
    /// As [`FloorServer::revoke`](crate::floor::FloorServer::revoke).
    Revoke {
        /// Which floor.
        floor_id: u16,
        /// From whom.
        user_id: u16,
    },
    /// As [`FloorServer::set_chair`](crate::floor::FloorServer::set_chair).
    SetChair {
        /// Of which floor.
        floor_id: u16,
        /// Who; nobody with `None`.
        user_id: Option<u16>,
    },
    /// As [`FloorServer::set_policy`](crate::floor::FloorServer::set_policy).
    SetPolicy {
        /// Of which floor.
        floor_id: u16,
        /// The new one.
        policy: FloorPolicy,
    },
    /// Whether only who holds the floor that is for the messages may send them.
    Moderate(bool),
}

/// The floors of a Context after a [`FloorAction`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorsView {
    /// Only who holds the floor that is for the messages may send them.
    pub moderated: bool,
    /// The floor that is for the messages.
    pub message_floor_id: Option<u16>,
    /// All floors.
    pub floors: Vec<FloorView>,
}

/// What has become of a [`FloorAction`]; [`Refusal::Unknown`] where there is no such Context, or it
/// has no floors.
pub type FloorsAnswer = Result<Box<FloorsView>, Refusal>;
