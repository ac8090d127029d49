//! The BFCP stream of a call (RFC 8856): how it was offered, what keys it, and where the shard has it.

use std::net::SocketAddr;

use mrfp_core::mp::{self, FloorTransport, Setup, TerminationId, TlsRole};

use super::config::{FloorsPolicy, MrfcConfig};
use super::keying::SessionKeys;
use crate::sdp::{
    ConnectionReuse, Fingerprint, FloorConference, FloorDescription, FloorProtocol,
    LocalDescription, LocalFloor, LocalMedia, MediaLine, OfferedSetup,
};

/// The BFCP stream of a call.
#[derive(Debug)]
pub(super) struct FloorSession {
    /// Which m-line.
    pub(super) index: usize,
    protocol: FloorProtocol,
    /// The peer's end; `None` while an offer of ours is unanswered.
    pub(super) peer: Option<Box<FloorDescription>>,
    /// What keys it, until the shard has it.
    pub(super) keys: SessionKeys,
    /// `a=key-mgmt` of ours, base64.
    key_management: Option<String>,
    /// Of our certificate, where it protects the stream.
    fingerprint: Option<Fingerprint>,
    /// `a=connection` of ours.
    pub(super) connection: ConnectionReuse,
    tls_role: TlsRole,
    pub(super) own_port: bool,
    /// Where the shard has it, or is asked to have it.
    pub(super) place: Option<FloorPlace>,
    /// What the shard owes an answer to.
    pub(super) asked: Option<FloorAsked>,
}

/// Where a shard has the BFCP stream of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FloorPlace {
    pub(super) termination: TerminationId,
    /// `a=userid`.
    pub(super) user_id: u16,
    /// Where the peer connects or sends to; known with the shard's answer.
    pub(super) address: Option<SocketAddr>,
}

/// What a shard is asked about the BFCP stream of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FloorAsked {
    Reserve,
    Replace,
    Modify,
}

/// What is to become of the BFCP stream of a call.
#[derive(Debug)]
pub(super) enum FloorChange {
    /// It ends.
    End,
    /// It begins, or gets another connection.
    Renewed(Box<FloorSession>),
    /// The peer has answered our offer of it.
    Answered { peer: Box<FloorDescription>, psk: Option<mrfp_core::Psk> },
}

impl FloorSession {
    /// A stream that a peer offers; we answer, and that makes us the TLS server (RFC 8856 section 8).
    pub(super) fn offered(index: usize, peer: Box<FloorDescription>, config: &MrfcConfig) -> Self {
        let protocol = peer.protocol;
        Self {
            fingerprint: peer.needs_certificate().then(|| config.certificate.clone()).flatten(),
            own_port: protocol == FloorProtocol::Udp,
            peer: Some(peer),
            ..Self::new(index, protocol)
        }
    }

    /// A stream that we offer, over TCP: with TLS where it has a key. Which of us connects is for the
    /// answer to say; if that is the peer, nothing but the port tells whose connection has come, as we
    /// speak first in TLS.
    pub(super) fn offering(index: usize, secure: bool) -> Self {
        let protocol = if secure { FloorProtocol::Tls } else { FloorProtocol::Tcp };
        Self { own_port: secure, tls_role: TlsRole::Client, ..Self::new(index, protocol) }
    }

    fn new(index: usize, protocol: FloorProtocol) -> Self {
        Self {
            index,
            protocol,
            peer: None,
            keys: SessionKeys::None,
            key_management: None,
            fingerprint: None,
            connection: ConnectionReuse::New,
            tls_role: TlsRole::Server,
            own_port: false,
            place: None,
            asked: None,
        }
    }

    /// TCP/TLS/BFCP.
    pub(super) fn is_secure(&self) -> bool {
        self.protocol == FloorProtocol::Tls
    }

    /// Takes its key, and with it what our line says of that.
    pub(super) fn set_keys(&mut self, keys: SessionKeys) {
        self.key_management = match &keys {
            SessionKeys::None => None,
            SessionKeys::Agreed(keys) => Some(keys.transfer_response.clone()),
            SessionKeys::Offered(transfer) => Some(transfer.message().to_owned()),
        };
        self.keys = keys;
    }

    /// The key is with the shard now; what the answer to an offer of ours is checked with stays.
    pub(super) fn forget_key(&mut self) {
        if matches!(self.keys, SessionKeys::Agreed(_)) {
            self.keys = SessionKeys::None;
        }
    }

    /// Whether a later offer leaves it as it is: `repeated` where the whole description is the one
    /// before (RFC 3264 section 8). One key serves one connection, so that a key that is
    /// repeated asks for none.
    pub(super) fn goes_on(&self, offered: &FloorDescription, repeated: bool) -> bool {
        let Some(peer) = &self.peer else { return false };
        let is_repeated_key =
            offered.key_management.is_some() && offered.key_management == peer.key_management;
        repeated
            || offered.protocol == self.protocol
                && match self.protocol {
                    FloorProtocol::Udp => offered.remote() == peer.remote(),
                    FloorProtocol::Tcp => offered.connection == ConnectionReuse::Existing,
                    FloorProtocol::Tls => {
                        offered.connection == ConnectionReuse::Existing || is_repeated_key
                    }
                }
    }

    /// What the shard is to be told of its connection.
    pub(super) fn stream(&self) -> mp::FloorStream {
        let offered = self.peer.as_ref();
        let security = match (&self.keys, self.protocol) {
            (SessionKeys::Agreed(keys), _) => {
                mp::Security::TlsPsk { identity: keys.identity.clone(), psk: keys.psk.clone() }
            }
            (SessionKeys::Offered(transfer), _) => {
                mp::Security::TlsPskAwaited { identity: transfer.psk_identity() }
            }
            (SessionKeys::None, FloorProtocol::Tls) => {
                // A stream that is to have a key is never reserved without it.
                assert!(offered.is_some_and(|peer| peer.key_management.is_none()));
                let fingerprints = offered.map(|peer| peer.fingerprints.clone());
                mp::Security::TlsCertificate { fingerprints: fingerprints.unwrap_or_default() }
            }
            (SessionKeys::None, FloorProtocol::Tcp | FloorProtocol::Udp) => mp::Security::Plain,
        };
        mp::FloorStream { transport: self.transport(), security, tls_role: self.tls_role }
    }

    /// Who connects, or where datagrams go.
    pub(super) fn transport(&self) -> FloorTransport {
        let remote = self.peer.as_ref().and_then(|peer| peer.remote());
        if self.protocol == FloorProtocol::Udp {
            return FloorTransport::Udp { remote };
        }
        FloorTransport::Tcp(match self.setup() {
            OfferedSetup::Active => {
                let remote = remote.expect("a description without an address is not taken");
                Setup::Active { remote }
            }
            OfferedSetup::Passive | OfferedSetup::ActPass => Setup::Passive,
        })
    }

    /// Our role: we connect only where the peer will not.
    fn setup(&self) -> OfferedSetup {
        match self.peer.as_ref().map(|peer| peer.setup) {
            None => OfferedSetup::ActPass,
            Some(OfferedSetup::Passive) => OfferedSetup::Active,
            Some(OfferedSetup::Active | OfferedSetup::ActPass) => OfferedSetup::Passive,
        }
    }

    /// Our line, once the shard has the stream.
    pub(super) fn local(&self, policy: &FloorsPolicy, conference_id: u32) -> LocalFloor {
        let place = self.place.as_ref().expect("the shard has it");
        LocalFloor {
            protocol: self.protocol,
            address: place.address.expect("the shard has answered"),
            setup: self.setup(),
            connection: self.connection,
            conference: Some(FloorConference {
                conference_id,
                user_id: place.user_id,
                floors: policy.media(),
            }),
            fingerprint: self.fingerprint.clone(),
            key_management: self.key_management.clone(),
        }
    }

    /// The same in a later offer of ours about other things. TRANSFER_RESP answers an offer; our
    /// TRANSFER_INIT was one.
    pub(super) fn local_again(&self, policy: &FloorsPolicy, conference_id: u32) -> LocalFloor {
        let ours = self.tls_role == TlsRole::Client;
        LocalFloor {
            connection: ConnectionReuse::Existing,
            key_management: self.key_management.clone().filter(|_| ours),
            ..self.local(policy, conference_id)
        }
    }
}

/// Puts our line in its place, and the label that it points to.
pub(super) fn describe(
    description: &mut LocalDescription,
    index: usize,
    floor: LocalFloor,
    label: Option<&str>,
) {
    description.media[index] = LocalMedia::Floor(Box::new(floor));
    for media in &mut description.media {
        if let LocalMedia::Served(message) = media {
            message.label = label.map(str::to_owned);
        }
    }
}

/// Takes our line out of a description whose floor stream has come to nothing.
pub(super) fn describe_none(description: &mut LocalDescription) {
    for media in &mut description.media {
        if let LocalMedia::Floor(floor) = media {
            *media = LocalMedia::Refused(MediaLine::floor(floor.protocol));
        }
    }
}
