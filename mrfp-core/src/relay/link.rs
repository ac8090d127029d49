//! What the relay knows of one of its connections.

use std::collections::VecDeque;
use std::net::SocketAddr;

use mrfp_io::Key;
use mrfp_protocol::msrp::{ByteRange, FailureReport, TransactionId, Uri};
use mrfp_protocol::tls::PeerCertificate;

use super::outstanding::Outstanding;
use super::path::same_host;
use crate::carry::CarryBuffer;
use crate::incoming::Identifier;
use crate::plane::Plane;

/// The relay's side of a connection.
#[derive(Default)]
pub(crate) struct Link {
    /// As client: where it leads.
    pub(super) target: Option<Target>,
    /// As client: addresses not tried yet.
    pub(crate) addresses: VecDeque<SocketAddr>,
    /// Who has authenticated on it: index of the user.
    pub(super) user: Option<usize>,
    /// As server: the certificate the client has shown (RFC 4976 section 6.1).
    pub(super) certificate: Option<PeerCertificate>,
    /// The URIs handed out on it.
    pub(super) registrations: Vec<Key>,
    /// Requests refused since the last success.
    pub(super) failures: u8,
    /// The message being received.
    pub(super) incoming: Incoming,
    /// The route of the last message: nearly always that of the next.
    pub(super) last_route: Option<Key>,
    /// The connection fed last, and until when this one counts as shared because it was another
    /// before.
    pub(super) last_egress: Option<Key>,
    pub(super) shared_until_ns: u64,
    /// SENDs passed on over it.
    pub(super) outstanding: Outstanding,
    /// Other requests passed on over it.
    pub(super) pending: VecDeque<Pending>,
    /// Connections held back until this one has caught up.
    pub(super) feeders: Vec<Key>,
}

/// Where a connection of ours leads.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Target {
    pub(super) secure: bool,
    /// In lower case, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// What happens to the bytes up to the next end-line.
#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation per message")]
pub(super) enum Incoming {
    #[default]
    Idle,
    /// Nothing of it matters.
    Discard,
    /// This chunk has been answered with an error, which stands for all that was passed on of it.
    Refused(u64),
    Forward(Forward),
}

/// A request on its way through.
pub(super) struct Forward {
    pub(super) route: Key,
    /// Number of this chunk, see [`Sent::chunk`](super::outstanding::Sent).
    pub(super) chunk: u64,
    pub(super) method: ForwardMethod,
    /// Its transaction on the connection it came by.
    pub(super) transaction: Identifier,
    /// Its transaction on the connection it leaves by, where that has begun.
    pub(super) own: Option<TransactionId>,
    pub(super) message_id: Identifier,
    pub(super) failure_report: FailureReport,
    pub(super) has_body: bool,
    /// Next byte to come, 1-based.
    pub(super) next: u64,
    pub(super) total: Option<u64>,
    /// Its Byte-Range as received.
    pub(super) ranged: Option<ByteRange>,
    /// Header lines for the next hop, kept while the body outlasts one receive.
    pub(super) lines: Option<CarryBuffer>,
}

/// Methods by how they are answered.
#[derive(Clone, Copy)]
pub(super) enum ForwardMethod {
    /// Hop by hop.
    Send,
    /// Never.
    Report,
    /// By the far end: AUTH, NICKNAME and whatever is still to be invented. `proves`: an AUTH with
    /// credentials.
    Other { name: Identifier, proves: bool },
}

/// A request other than SEND that waits for the far end's answer.
pub(super) struct Pending {
    /// Our transaction.
    pub(super) transaction: TransactionId,
    /// The one to answer.
    pub(super) original: Identifier,
    pub(super) route: Key,
    /// An AUTH with credentials: its 401 counts (RFC 4976 section 6.3).
    pub(super) proves: bool,
    pub(super) deadline_ns: u64,
}

impl Link {
    /// A connection that came in.
    pub(crate) fn accepted() -> Self {
        Self::default()
    }

    /// A connection of ours.
    pub(super) fn outbound(target: Target) -> Self {
        Self { target: Some(target), ..Self::default() }
    }
}

impl Link {
    /// Whether the peer is proven to be the relay of this URI (RFC 4976 section 6.3).
    pub(super) fn is_proven(&self, uri: &[u8]) -> bool {
        let Ok(uri) = Uri::parse(uri) else { return false };
        // As client we have asked for just that proof.
        let connected = self
            .target
            .as_ref()
            .is_some_and(|target| target.secure && same_host(target.host.as_bytes(), uri.host));
        let shown = self.certificate.as_ref().is_some_and(|certificate| {
            std::str::from_utf8(uri.host).is_ok_and(|host| certificate.proves(host))
        });
        connected || shown
    }

    /// Whether something passed on over it by that route has not been answered.
    pub(super) fn awaits_answer(&self, route: Key) -> bool {
        self.outstanding.holds(route) || self.pending.iter().any(|pending| pending.route == route)
    }
}

impl Plane {
    pub(super) fn link(&self, key: Key) -> Option<&Link> {
        self.connections.get(key)?.relay.as_deref()
    }

    pub(super) fn link_mut(&mut self, key: Key) -> Option<&mut Link> {
        self.connections.get_mut(key)?.relay.as_deref_mut()
    }
}
