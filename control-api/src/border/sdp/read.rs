//! A session description, read as far as the border looks at it.

use std::net::{IpAddr, SocketAddr};

use mrfp_protocol::tls::Fingerprint;
use sdp_types::{Attribute, Session};

use super::super::Refusal;
use super::lines::{Section, Text};
use super::not_acceptable;
use super::roles::Setup;
use crate::sdp::{MsrpUri, PATH_SIZE_MAX, fingerprints, parse_text};

/// A session description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// sess-version: whoever repeats it changes nothing (RFC 3264 section 8).
    pub version: u64,
    /// One entry per m-line, in order.
    pub media: Vec<Media>,
    pub(super) text: Text,
}

/// One m-line and what is under it, or holds for it from the session part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// What it is to the border.
    pub kind: Kind,
    /// Whether (D)TLS is part of the transport.
    pub protected: bool,
    /// `message`, `audio`, …
    pub media: String,
    /// `TCP/TLS/MSRP`, … as it is written.
    pub protocol: String,
    /// `*`, `t38`, …
    pub format: String,
    /// 0: switched off.
    pub port: u16,
    /// Of the c-line in effect; `None` where that has a domain name, or where there is none.
    pub address: Option<IpAddr>,
    /// `a=setup`.
    pub setup: Option<Setup>,
    /// `a=connection:new` and `:existing` (RFC 4145 section 5): whether it is `new`.
    pub new_connection: Option<bool>,
    /// `a=fingerprint`, of hashes that are taken.
    pub fingerprints: Vec<Fingerprint>,
    /// `a=tls-id` or, as it was called before, `a=dtls-id`.
    pub tls_id: Option<TlsId>,
    /// `a=3ge2ae`.
    pub e2ae: Option<EndToAccessEdge>,
    /// Whether there is an `a=key-mgmt`.
    pub key_management: bool,
    /// The MSRP session, where this is one that has a valid path.
    pub msrp: Option<Msrp>,
    /// Of the m-line in the text, counted from 1.
    pub line_number: usize,
}

/// What an m-line is to the border.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `TCP/MSRP`, `TCP/TLS/MSRP`.
    Msrp,
    /// `TCP/BFCP`, `TCP/TLS/BFCP`.
    Bfcp,
    /// `udptl`, `UDP/TLS/UDPTL`.
    T38,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether it goes over UDP.
    #[must_use]
    pub fn is_datagrams(self) -> bool {
        self == Self::T38
    }

    fn of(media: &str, protocol: &str) -> (Self, bool) {
        let kinds = [
            ("message", "TCP/MSRP", Self::Msrp, false),
            ("message", "TCP/TLS/MSRP", Self::Msrp, true),
            ("application", "TCP/BFCP", Self::Bfcp, false),
            ("application", "TCP/TLS/BFCP", Self::Bfcp, true),
            ("image", "udptl", Self::T38, false),
            ("image", "UDP/TLS/UDPTL", Self::T38, true),
        ];
        let found = kinds.into_iter().find(|(name, transport, ..)| {
            name.eq_ignore_ascii_case(media) && transport.eq_ignore_ascii_case(protocol)
        });
        found.map_or((Self::Other, false), |(_, _, kind, protected)| (kind, protected))
    }
}

/// `a=3ge2ae` (TS 24.229 clause 7.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndToAccessEdge {
    /// A UE asks for protection up to the access edge.
    Requested,
    /// The access edge has applied it.
    Applied,
}

/// `a=tls-id` (RFC 8842) or `a=dtls-id`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsId {
    /// Whether it has the older name.
    pub is_dtls_id: bool,
    /// The value.
    pub value: String,
}

/// What an MSRP session is known by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msrp {
    /// `a=path`, as it is written.
    pub path: String,
    /// The first URI of it: where whoever goes by the path connects to.
    pub first: MsrpUri,
    /// session-id of the last URI, which is the party itself.
    pub session_id: String,
    /// `a=msrp-cema` (RFC 6714).
    pub cema: bool,
}

/// Reads a session description: an offer or an answer.
///
/// # Errors
/// It is none, or exceeds a limit.
pub fn read(sdp: &[u8]) -> Result<Description, Refusal> {
    if sdp.split(|byte| *byte == b'\n').count() > LINES_MAX {
        return Err(not_acceptable("Too many lines"));
    }
    let session = parse_text(sdp)
        .map_err(|error| Refusal { warning: Some(error.warning()), ..not_acceptable("") })?;
    let text = Text::read(sdp);
    let media = session.medias.iter().enumerate().map(|(index, media)| {
        Media::read(&session, media, text.line_number(Section::Media(index)))
    });
    let media = media.collect::<Result<_, _>>()?;
    Ok(Description { version: session.origin.sess_version, media, text })
}

/// Whether a party has asked for a new connection or association with this description of an m-line, given
/// the one before: it has moved, has another certificate or path, or says so.
#[must_use]
pub fn is_afresh(before: &Description, now: &Description, index: usize) -> bool {
    let (Some(old), Some(new)) = (before.media.get(index), now.media.get(index)) else {
        return true;
    };
    if before.version == now.version && old == new {
        return false;
    }
    let is_other_media = old.port == 0 || old.kind != new.kind || old.protected != new.protected;
    let path = |media: &Media| media.msrp.as_ref().map(|msrp| msrp.path.clone());
    let has_other_path = path(old) != path(new);
    // RFC 8842 section 4: the identifier tells, together with the fingerprints.
    let has_other_association = (new.tls_id.is_some() && new.tls_id != old.tls_id)
        || old.fingerprints.len() != new.fingerprints.len()
        || !new.fingerprints.iter().all(|one| old.fingerprints.contains(one));
    // RFC 4145 section 5. Who leaves it out in a later offer hardly means what the default says. MSRP
    // ignores it (RFC 6135 section 4.4), and datagrams have no connection.
    let wants_new = new.kind == Kind::Bfcp && new.new_connection == Some(true);
    // Whoever only connects is nowhere. Over DTLS an unchanged identifier keeps the association.
    let is_found_by_address =
        if new.kind.is_datagrams() { true } else { new.setup == Some(Setup::Passive) };
    let is_somewhere = !old.is_held_by_address() && !new.is_held_by_address();
    let has_moved = is_found_by_address
        && is_somewhere
        && new.tls_id.is_none()
        && (old.address, old.port) != (new.address, new.port);
    is_other_media || has_other_path || has_other_association || wants_new || has_moved
}

impl Media {
    fn read(
        session: &Session,
        media: &sdp_types::Media,
        line_number: usize,
    ) -> Result<Self, Refusal> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic());
        if !is_word(&media.media) || !is_word(&media.proto) {
            return Err(not_acceptable(format!("Line {line_number}: malformed media line")));
        }
        let (kind, protected) = Kind::of(&media.media, &media.proto);
        let both = [&media.attributes, &session.attributes];
        let own = |name: &str| find(&media.attributes, name);
        let either = |name: &str| both.into_iter().find_map(|attributes| find(attributes, name));
        let has = |name: &str| both.into_iter().flatten().any(|it| it.attribute == name);
        let connection = media.connections.first().or(session.connection.as_ref());
        let fingerprints = fingerprints(&session.attributes, &media.attributes).unwrap_or_default();
        if fingerprints.len() > FINGERPRINTS_MAX {
            return Err(not_acceptable(format!("Line {line_number}: too many fingerprints")));
        }
        let tls_id = |name: &str| {
            let value = either(name)?.trim().to_owned();
            Some(TlsId { is_dtls_id: name == "dtls-id", value })
        };
        Ok(Self {
            kind,
            protected,
            media: media.media.clone(),
            protocol: media.proto.clone(),
            format: media.fmt.clone(),
            port: media.port,
            address: connection.and_then(|it| it.connection_address.parse().ok()),
            setup: either("setup").and_then(Setup::parse),
            new_connection: either("connection").and_then(|value| match value.trim() {
                "new" => Some(true),
                "existing" => Some(false),
                _ => None,
            }),
            fingerprints,
            tls_id: tls_id("tls-id").or_else(|| tls_id("dtls-id")),
            e2ae: own("3ge2ae").and_then(|value| match value.trim() {
                "requested" => Some(EndToAccessEdge::Requested),
                "applied" => Some(EndToAccessEdge::Applied),
                _ => None,
            }),
            key_management: has("key-mgmt"),
            msrp: own("path")
                .filter(|_| kind == Kind::Msrp)
                .and_then(|path| Msrp::read(path.trim(), has("msrp-cema"))),
            line_number,
        })
    }

    /// Where `c=` and `m=` say it is.
    #[must_use]
    pub fn connection_address(&self) -> Option<SocketAddr> {
        let address = self.address.filter(|address| !address.is_unspecified());
        Some(SocketAddr::new(address?, self.port))
    }

    /// Nobody is to connect for now.
    pub(in crate::border) fn is_on_hold(&self) -> bool {
        let holds_connections = self.kind == Kind::Bfcp && self.setup == Some(Setup::HoldConn);
        holds_connections || self.is_held_by_address()
    }

    /// `c=IN IP4 0.0.0.0`: on hold, as RFC 2543 had it (RFC 3264 section 8.4).
    pub(super) fn is_held_by_address(&self) -> bool {
        self.address.is_some_and(|address| address.is_unspecified())
    }
}

impl Msrp {
    fn read(path: &str, cema: bool) -> Option<Self> {
        if path.len() > PATH_SIZE_MAX {
            return None;
        }
        let uris: Option<Vec<MsrpUri>> = path.split(' ').map(MsrpUri::parse).collect();
        let mut uris = uris?;
        let session_id = uris.last()?.session_id.clone();
        Some(Self { path: path.to_owned(), first: uris.swap_remove(0), session_id, cema })
    }
}

fn find<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    let mut named = attributes.iter().filter(|attribute| attribute.attribute == name);
    named.find_map(|attribute| attribute.value.as_deref())
}

/// Lines of a description, each of which is remembered for as long as the call lasts: the most m-lines
/// that are taken with 32 lines each.
const LINES_MAX: usize = 1024;
/// Certificates of one stream: a few hashes of each of a few.
const FINGERPRINTS_MAX: usize = 16;
