//! The Iq and Ix reference points: what the controller of a gateway (IMS-ALG, IBCF) asks of its media
//! plane (IMS-AGW, TrGW). The commands are the procedures of TS 23.334 clause 6.2 and TS 29.162 clause
//! 10.2: "Reserve Connection Point", "Reserve and Configure Connection Point", "Configure Connection
//! Point"; "Release" is [`Command::Subtract`](super::Command::Subtract).
//!
//! A gateway's Context has two Terminations, one on each side, and passes between them what arrives:
//! bytes of a TCP connection, or datagrams. Each of them has a port of its own, which is its binding.

use std::net::{IpAddr, SocketAddr};

use mrfp_protocol::tls::Fingerprint;

use super::{ContextId, RealmId, TerminationId, TlsRole};

/// One of the node's own media addresses: an index into the configured list.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InterfaceId(pub u16);

/// Everything a shard needs to know of a new Termination of a gateway. The Context is made where it
/// does not exist; it has at most two. Answered by `ConnectionPointReserved` or `Refused`.
#[derive(Debug)]
pub struct ReserveConnectionPoint {
    /// The Context.
    pub context: ContextId,
    /// The new Termination.
    pub termination: TerminationId,
    /// Where its traffic is counted.
    pub realm: RealmId,
    /// On which of the node's addresses it is reached ("Local IP Resources").
    pub interface: InterfaceId,
    /// What carries the media.
    pub bearer: Bearer,
    /// The peer's side, where it is known already: "Reserve and Configure". Otherwise
    /// `ConfigureConnectionPoint` follows, and until then nothing that arrives is passed on or answered; what
    /// has come is held within the limits.
    pub remote: Option<RemoteConnectionPoint>,
}

/// What carries the media of one Termination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bearer {
    /// TCP, passed on byte by byte: "TCP/MSRP", "TCP/BFCP" and, where TLS is the peers' own affair,
    /// "TCP/TLS" (TR 29.828 clause 5.2.2.1).
    Tcp,
    /// TLS over TCP that ends here (TS 23.334 clause 5.11.2.2). The Termination gets a certificate of
    /// its own, whose fingerprint the answer names ("Local certificate fingerprint Request").
    TlsOverTcp,
    /// UDP, passed on datagram by datagram.
    Udp,
    /// DTLS over UDP that ends here (TS 23.334 clause 5.11.2.3), with a certificate as for
    /// [`Bearer::TlsOverTcp`].
    DtlsOverUdp,
}

impl Bearer {
    /// Whether TLS or DTLS ends here.
    #[must_use]
    pub fn is_protected(self) -> bool {
        matches!(self, Self::TlsOverTcp | Self::DtlsOverUdp)
    }

    /// Whether it carries datagrams.
    #[must_use]
    pub fn is_datagrams(self) -> bool {
        matches!(self, Self::Udp | Self::DtlsOverUdp)
    }
}

/// The peer's side has become known, or has changed. Answered by `Modified` or `Refused`.
#[derive(Debug)]
pub struct ConfigureConnectionPoint {
    /// Which.
    pub termination: TerminationId,
    /// The peer's side.
    pub remote: RemoteConnectionPoint,
    /// The connection that stands (or is on its way) is given up for a new one: the peer has moved, or
    /// asked for another (`a=connection:new`, a new `a=tls-id`). Otherwise a connection that fits stays.
    pub afresh: bool,
}

/// The peer's side of a Termination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteConnectionPoint {
    /// Where the peer is reached: `c=` and `m=`, or the first URI of its path ("Remote Connection
    /// Address"). `None` where it only ever comes to us and is not told from others by its address.
    pub address: Option<SocketAddr>,
    /// Who connects, over TCP ("state-aware TCP handling"). Of no meaning to datagrams.
    pub establishment: Establishment,
    /// Which side of TLS or DTLS we are; as client we begin as soon as we can ("Establish (D)TLS
    /// session"). Of no meaning where neither ends here.
    pub tls_role: TlsRole,
    /// "Remote certificate fingerprint": what the peer's certificate is known by, in both roles. Where
    /// TLS or DTLS ends here there is at least one.
    pub fingerprints: Vec<Fingerprint>,
    /// From where the peer may come.
    pub source: Source,
    /// The MSRP interworking function of this side, where paths are changed in messages.
    pub msrp: Option<MsrpPaths>,
}

/// Who makes the TCP connection of a Termination. A SYN is never passed on (TS 23.334 clause 5.11.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Establishment {
    /// The peer.
    Incoming,
    /// We do, at once.
    AtOnce,
    /// We do, when the connection of the other Termination has come in: "use an incoming TCP connection
    /// establishment request as a trigger".
    WhenOtherComesIn,
}

/// From where a peer may come: connections over TCP, datagrams over UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// From anywhere. Over DTLS the peer is where the first handshake succeeds ("latching"), in the clear
    /// where the first datagram comes from.
    Any,
    /// From this host, whatever the port, which is latched onto. Behind a NAT it is where the peer's
    /// signalling comes from.
    Host(IpAddr),
    /// From `address` and nowhere else.
    Address,
}

/// What a side sees in messages in place of the other party (MSRP IWF "media plane", TR 29.828). On the
/// way from this side to the other, To-Path `presented` becomes the other side's `remote`, and From-Path
/// `remote` becomes the other side's `presented`. Where both sides have the same URIs crosswise, nothing
/// changes and nothing is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsrpPaths {
    /// The `a=path` in the SDP that this side was sent.
    pub presented: String,
    /// The `a=path` in this side's own SDP.
    pub remote: String,
}
