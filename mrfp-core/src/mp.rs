//! The Mp reference point: the only door between the control plane and the shards. Its commands are
//! the procedures of TS 23.333 (Reserve and Configure, Modify, Subtract), its notifications the
//! ones that clause 5.20 asks for. As the plane of a gateway it is Iq (TS 23.334) and Ix (TS 29.162).

mod connection_point;
mod floor_control;

use std::net::SocketAddr;

use mrfp_io::Key;
use mrfp_protocol::tls::{Fingerprint, Psk};

pub use crate::statistics::{ContextStatistics, REALMS_MAX, RESPONSE_CODES, Statistics, Traffic};
pub use connection_point::{
    Bearer, ConfigureConnectionPoint, Establishment, InterfaceId, MsrpPaths, RemoteConnectionPoint,
    ReserveConnectionPoint, Source,
};
pub use floor_control::{
    Floor, FloorAction, FloorControl, FloorStream, FloorTransport, FloorsAnswer, FloorsView,
    ModifyFloorControl, ReplaceFloorControl, ReserveFloorControl, TlsRole,
};

/// Which shard of this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A conference or two-party call. Chosen by the controller, unique in the node's life; the shard
/// creates the Context with its first Termination and ends it with its last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContextId(pub u64);

/// One media stream of one party. Chosen by the controller, unique in the node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TerminationId(pub u64);

/// A realm: one of the networks of the operator whose traffic is counted on its own. An index into
/// the configured list, below [`REALMS_MAX`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RealmId(pub u16);

/// One look-up of a name, within one shard.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResolutionId(u64);

impl ResolutionId {
    /// The connection that waits for it.
    pub(crate) fn new(connection: Key) -> Self {
        Self(u64::from(connection.generation) << 32 | u64::from(connection.index))
    }

    pub(crate) fn key(self) -> Key {
        Key { index: self.0 as u32, generation: (self.0 >> 32) as u32 }
    }
}

/// What the controller asks of a shard.
#[derive(Debug)]
pub enum Command {
    /// TS 23.333 "Reserve and Configure IMS Resources". Answered by `Reserved` or `Refused`.
    ReserveAndConfigure(Box<ReserveAndConfigure>),
    /// TS 23.333 "Modify": the remote side or the direction changed. Answered by `Modified` or
    /// `Refused`.
    Modify(Box<Modify>),
    /// TS 23.333 "Modify", for a session whose connection was lost, or whose peer has moved: a new
    /// one in its place, after a new SDP exchange (RFC 4975 section 5.4). Whatever is left of the old
    /// one ends, the member stays who it is. Answered by `Reserved` or `Refused`.
    ReplaceSession(Box<ReplaceSession>),
    /// TS 23.333 "Modify": a session that stands gets another key, and moves to a connection under it
    /// once there is one (RFC 6043 section 5.2). Answered by `Modified` or `Refused`, and
    /// `Rekeyed` or `RekeyingFailed` follows unless the session ends; a key that is withdrawn gets none
    /// of them.
    Rekey(Box<Rekey>),
    /// TS 23.333 "Subtract". Answered by `Subtracted` once the connection is gone, also where the
    /// Termination is not known (any more).
    Subtract {
        /// Which.
        termination: TerminationId,
    },
    /// TS 23.333 "Configure BFCP Termination": a user of the floors of a Context. Answered by `Reserved`
    /// or `Refused`; from then on as with every other Termination.
    ReserveFloorControl(Box<ReserveFloorControl>),
    /// The answer to an offer of ours for such a Termination. Answered by `Modified` or `Refused`.
    ModifyFloorControl(Box<ModifyFloorControl>),
    /// Another connection for such a Termination. Answered by `Reserved` or `Refused`.
    ReplaceFloorControl(Box<ReplaceFloorControl>),
    /// TS 23.334 "Reserve (and Configure) AGW Connection Point". Answered by `ConnectionPointReserved` or
    /// `Refused`.
    ReserveConnectionPoint(Box<ReserveConnectionPoint>),
    /// TS 23.334 "Configure AGW Connection Point". Answered by `Modified` or `Refused`.
    ConfigureConnectionPoint(Box<ConfigureConnectionPoint>),
    /// Something about the floors of a Context. Answered by `Floors`.
    Floors {
        /// Which.
        context: ContextId,
        /// What.
        action: Box<FloorAction>,
    },
    /// "AuditValue" (H.248.1 clause 7.2.5): what a Context has carried so far. Answered by
    /// `Audited`.
    Audit {
        /// Which.
        context: ContextId,
    },
    /// What a name was resolved to; empty: nothing. Answers `Event::Resolve`.
    Resolved {
        /// Which.
        id: ResolutionId,
        /// Addresses with the port to connect to, the preferred first.
        addresses: Vec<SocketAddr>,
    },
    /// Stop accepting, end what is left, answer `Stopped`.
    Stop,
}

/// Everything a shard needs to know of a new Termination.
#[derive(Debug)]
pub struct ReserveAndConfigure {
    /// The Context, made where it does not exist.
    pub context: ContextId,
    /// How the Context passes messages on; its first Termination decides.
    pub switching: Switching,
    /// The new Termination.
    pub termination: TerminationId,
    /// In the clear, or with what TLS.
    pub security: Security,
    /// TCP server (and TLS server), or client with the address to connect to.
    pub setup: Setup,
    /// Session-id part of our own MSRP URI; unique and unguessable (>= 80 bits, RFC 4975 14.1).
    pub session_id: String,
    /// The peer's `a=path`, as in its SDP, leftmost URI first. `None` while an offer of ours is
    /// unanswered: it follows with `Modify`, and until then nothing can be bound.
    pub remote_path: Option<String>,
    /// Who the member is.
    pub member: Member,
    /// Where its traffic is counted.
    pub realm: RealmId,
    /// The stream was negotiated for a file (`a=file-selector`, RFC 5547).
    pub file_transfer: bool,
    /// What the member is willing to receive (`a=accept-types`), as in its SDP.
    pub accept_types: String,
    /// What it takes inside a container (`a=accept-wrapped-types`), empty where absent.
    pub accept_wrapped_types: String,
    /// What it may do.
    pub direction: Direction,
    /// Largest message it takes (`a=max-size`).
    pub max_size_bytes: Option<u64>,
    /// A port of its own instead of the shard's shared one (then any psk_identity is accepted).
    pub own_port: bool,
}

/// How a Context passes messages on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Switching {
    /// Between two parties, end to end: reports are theirs to give.
    TwoParty,
    /// Among the participants of a chat room (RFC 7701).
    ChatRoom(Box<ChatRoomPolicy>),
}

/// What a chat room allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatRoomPolicy {
    /// The conference URI, and whatever else participants may write in the To of a regular message.
    pub uris: Vec<String>,
    /// Participants may take a nickname.
    pub nicknames: bool,
    /// Nicknames nobody may take.
    pub nicknames_reserved: Vec<String>,
    /// Participants may write to one another.
    pub private_messages: bool,
    /// What becomes of a message without a CPIM wrapper.
    pub cpim: CpimPolicy,
    /// What may be said without a wrapper (`a=accept-types` of our SDP), a space between entries;
    /// empty or with `*`: everything. That somebody types, and what became of a message, always may.
    pub accept_types: String,
    /// The same for what is in a wrapper (`a=accept-wrapped-types`).
    pub accept_wrapped_types: String,
    /// Largest message, with its wrapper (`a=max-size`); `None` names no limit.
    pub message_bytes_max: Option<u64>,
    /// Its floors, where it has any.
    pub floors: Option<Box<FloorControl>>,
}

/// What becomes of a message without a CPIM wrapper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpimPolicy {
    /// It is refused with 415 (RFC 7701 section 6.3).
    Required,
    /// It is wrapped, from its sender and to the room, for those who list `message/cpim` in their
    /// accept-types; whoever does not gets every message without its wrapper.
    Wrap,
}

/// Who a member of a chat room is.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Member {
    /// The URIs it may write in From and is found under in To; the first is how the room knows it.
    /// Whoever came anonymously has its anonymous URI here and no other.
    pub uris: Vec<String>,
    /// Its client understands private messages (`a=chatroom:private-messages`).
    pub private_messages: bool,
    /// Nobody is to hear it.
    pub muted: bool,
}

/// How the stream is protected.
#[derive(Debug)]
pub enum Security {
    /// TCP/MSRP.
    Plain,
    /// TCP/TLS/MSRP with a pre-shared key (TS 23.333 5.20.2).
    TlsPsk {
        /// The identity the TLS client names.
        identity: Vec<u8>,
        /// The TEK.
        psk: Psk,
    },
    /// The same while an offer of ours is unanswered: the key is known with the answer and follows
    /// with `Modify`. A client that is faster than the answer waits for it in its handshake.
    TlsPskAwaited {
        /// The identity the TLS client names.
        identity: Vec<u8>,
    },
    /// TCP/TLS/MSRP with certificates (RFC 4975 section 14.2). As TLS server we show ours, and the
    /// first request binds the connection; as TLS client we want one for the host of the peer's URI.
    TlsCertificate {
        /// What the peer's certificate is known by (`a=fingerprint`, RFC 4975 section 14.4). Where
        /// there are any, that and nothing else is asked of it, in both roles.
        fingerprints: Vec<Fingerprint>,
    },
}

/// a=setup as it concerns us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// The peer connects; for MSRP we are also TLS server.
    Passive,
    /// We connect; for MSRP we are also TLS client.
    Active {
        /// Where to.
        remote: SocketAddr,
    },
}

/// Direction of the stream as seen from the member (hold, RFC 3264 section 8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Sends and receives.
    SendRecv,
    /// The member only sends.
    SendOnly,
    /// The member only receives.
    RecvOnly,
    /// Neither: on hold.
    Inactive,
}

/// What may change while a Termination lives.
#[derive(Debug)]
pub struct Modify {
    /// Which.
    pub termination: TerminationId,
    /// New direction.
    pub direction: Direction,
    /// Nobody is to hear it.
    pub muted: bool,
    /// The peer's end, where it changed or has become known.
    pub remote: Option<Remote>,
    /// The TEK that was awaited (`Security::TlsPskAwaited`). It is for this Termination and serves
    /// one connection (TS 23.333 clause 5.20.2).
    pub psk: Option<Psk>,
}

/// A session in the place of another.
#[derive(Debug)]
pub struct ReplaceSession {
    /// Which.
    pub termination: TerminationId,
    /// As before, with a new key where there is one.
    pub security: Security,
    /// Session-id part of our own MSRP URI; never one that was used before.
    pub session_id: String,
    /// The peer's end. `None` while an offer of ours is unanswered, as with `ReserveAndConfigure`.
    pub remote: Option<Remote>,
}

/// Another key for a session that stands.
#[derive(Debug)]
pub struct Rekey {
    /// Which.
    pub termination: TerminationId,
    /// The key.
    pub key: NextKey,
}

/// How far the next key of a session is. Like the first it serves one connection (TS 23.333 clause
/// 5.20.2); the running connection stays until that is there.
#[derive(Debug)]
pub enum NextKey {
    /// An offer of ours is unanswered: a TLS client that names the identity waits in its handshake.
    Awaited {
        /// The identity the TLS client names.
        identity: Vec<u8>,
    },
    /// Agreed. It has as long as a first connection may take.
    Agreed {
        /// The identity the TLS client names.
        identity: Vec<u8>,
        /// The TEK.
        psk: Psk,
        /// Who makes the new connection.
        setup: Setup,
    },
    /// There is to be none; where the session has moved already, that is no more to be undone.
    Withdrawn,
}

/// The peer's end of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Its `a=path`, leftmost URI first.
    pub path: String,
    /// Who connects; decided once in the life of a connection.
    pub setup: Setup,
    /// What it takes, where it has said that anew.
    pub capabilities: Option<Capabilities>,
}

/// What a peer takes, as in its SDP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// `a=accept-types`.
    pub accept_types: String,
    /// `a=accept-wrapped-types`, empty where absent.
    pub accept_wrapped_types: String,
    /// `a=max-size`.
    pub max_size_bytes: Option<u64>,
    /// It understands private messages (`a=chatroom:private-messages`).
    pub private_messages: bool,
}

/// What a shard tells the controller, answers and notifications in one stream, in order.
#[derive(Debug)]
pub enum Event {
    /// Answer to `ReserveAndConfigure`.
    Reserved {
        /// Which.
        termination: TerminationId,
        /// Where the peer is to connect to (its port is the shard's, or the Termination's own).
        address: SocketAddr,
    },
    /// Answer to `ReserveConnectionPoint`.
    ConnectionPointReserved {
        /// Which.
        termination: TerminationId,
        /// Where the peer is to connect or send to ("Local Connection Address").
        address: SocketAddr,
        /// "Local certificate fingerprint", where (D)TLS ends here.
        fingerprint: Option<Fingerprint>,
    },
    /// The command could not be carried out; nothing is left of it.
    Refused {
        /// Which.
        termination: TerminationId,
        /// Why.
        reason: Refusal,
    },
    /// Answer to `Modify`.
    Modified {
        /// Which.
        termination: TerminationId,
    },
    /// Answer to `Subtract`: connection closed, everything given back.
    Subtracted {
        /// Which.
        termination: TerminationId,
        /// What it carried.
        statistics: TerminationStatistics,
    },
    /// The peer's connection is bound to its Termination and, where asked, secured.
    Bound {
        /// Which.
        termination: TerminationId,
    },
    /// A session has moved to a connection under its next key.
    Rekeyed {
        /// Which.
        termination: TerminationId,
    },
    /// "Notify" (TS 23.333 5.20): no connection under the next key came up. The session stays with the
    /// one it has; the next key is forgotten.
    RekeyingFailed {
        /// Which.
        termination: TerminationId,
        /// Why.
        cause: ReleaseCause,
    },
    /// "Notify" (TS 23.333 5.20): the bearer of a Termination is gone or did not come up. The
    /// Termination stays until it is subtracted.
    BearerReleased {
        /// Which.
        termination: TerminationId,
        /// Why.
        cause: ReleaseCause,
    },
    /// A participant has taken a nickname, or laid it down (RFC 7701 section 7). Not sent for one that
    /// leaves: its nickname is free with it.
    NicknameChanged {
        /// Whose.
        termination: TerminationId,
        /// As it wrote it.
        nickname: Option<String>,
    },
    /// Answer to `Floors`, in the order of those.
    Floors {
        /// Which.
        context: ContextId,
        /// How they are now.
        answer: FloorsAnswer,
    },
    /// Somebody holds a floor from now on, or no longer (TS 23.333 clause 5.20.4); of those floors of
    /// which it was asked for.
    FloorChanged {
        /// Which.
        context: ContextId,
        /// Which floor.
        floor_id: u16,
        /// Who.
        user_id: u16,
        /// From now on.
        holds: bool,
    },
    /// Answer to `Audit`.
    Audited {
        /// Which.
        context: ContextId,
        /// What it has carried; `None` where there is no such Context.
        statistics: Option<Box<ContextStatistics>>,
    },
    /// The relay has to connect to a host it knows by name (RFC 4976 section 8). Answered by
    /// `Command::Resolved`.
    Resolve {
        /// Which.
        id: ResolutionId,
        /// The name.
        host: String,
        /// The port of the URI; without one the service is to be looked up, and 2855 is the default.
        port: Option<u16>,
        /// Whether TLS is going to be spoken (`_msrps._tcp`).
        secure: bool,
    },
    /// Answer to `Stop`; the shard's thread ends.
    Stopped,
}

/// Why a command was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The shard's table of Terminations is full.
    TerminationsExhausted,
    /// The Context has as many members as one may have.
    ContextFull,
    /// The identity or session-id is in use on this shard, or was used before.
    IdentityInUse,
    /// The identifier is in use, or not known.
    TerminationId,
    /// No port of its own could be had, or no connection started.
    Transport,
    /// The session does not stand, or has only just moved to another connection.
    Busy,
    /// No certificate is ready to be given to one more Termination.
    CertificatesExhausted,
    /// The shard is stopping.
    Stopping,
}

/// Why a bearer was released.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ReleaseCause {
    /// No TCP connection came up (as client), or none was bound in time (as server).
    TcpEstablishmentFailure,
    /// The TLS handshake failed.
    TlsEstablishmentFailure,
    /// The peer of a gateway has shown another certificate than was announced, or none (TS 23.334 clause
    /// 5.11.2.2.1).
    PeerNotAuthenticated,
    /// The peer closed, TLS first where there is TLS.
    PeerClosed,
    /// The connection broke.
    ConnectionLost,
    /// The peer violated a protocol.
    ProtocolViolation,
    /// The member did not keep up with the conference.
    TooSlow,
    /// Nothing was received for longer than allowed.
    Idle,
}

/// Counters of one Termination.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TerminationStatistics {
    /// SEND requests received.
    pub messages_received: u64,
    /// SEND requests sent.
    pub messages_sent: u64,
    /// Body bytes received.
    pub bytes_received: u64,
    /// Body bytes sent.
    pub bytes_sent: u64,
}
