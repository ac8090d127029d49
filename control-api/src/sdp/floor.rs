//! One `m=application` description of a BFCP stream (RFC 8856): what it says, and whether this node can
//! be the floor control server of it.

use std::net::SocketAddr;

use mrfp_protocol::tls::Fingerprint;
use sdp_types::{Attribute, Media, Session};

use super::attributes::{self, KeyManagement, OfferedSetup};
use super::message::{Half, LIST_SIZE_MAX, OfferRules, Unservable, connection_host, value};
use super::uri::Host;

/// A BFCP stream as one end describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorDescription {
    /// What carries it.
    pub protocol: FloorProtocol,
    /// `a=setup`, or what its absence means.
    pub setup: OfferedSetup,
    /// `a=connection`; absent it is a new one (RFC 4145 section 5).
    pub connection: ConnectionReuse,
    /// `a=floorctrl`, where it is there.
    pub roles: Option<FloorRoles>,
    /// `a=confid`.
    pub conference_id: Option<u32>,
    /// `a=userid`.
    pub user_id: Option<u16>,
    /// `a=floorid`, in order.
    pub floors: Vec<FloorMedia>,
    /// `a=bfcpver`, or what its absence means.
    pub versions: Vec<u8>,
    /// Address of the c-line in effect.
    pub connection_host: Host,
    /// Port of the m-line, not 0.
    pub connection_port: u16,
    /// `a=key-mgmt` under the m-line: the session's is for its messages, and one key is for one
    /// stream (TS 23.333 clause 5.20.2).
    pub key_management: Option<KeyManagement>,
    /// `a=fingerprint` in effect, of a TLS session.
    pub fingerprints: Vec<Fingerprint>,
}

/// What carries BFCP (RFC 8856 section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloorProtocol {
    /// TCP/BFCP.
    Tcp,
    /// TCP/TLS/BFCP.
    Tls,
    /// UDP/BFCP.
    Udp,
}

/// `a=connection` (RFC 4145 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionReuse {
    /// There is to be a new one.
    New,
    /// The one there is goes on.
    Existing,
}

/// The roles an end is willing to take (RFC 8856 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FloorRoles {
    /// Floor control client.
    pub client: bool,
    /// Floor control server.
    pub server: bool,
}

/// `a=floorid`: a floor, and the media it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorMedia {
    /// The floor.
    pub floor_id: u16,
    /// `a=label` of their m-lines.
    pub labels: Vec<String>,
}

impl FloorDescription {
    /// An m-line of BFCP, over whatever.
    pub(super) fn is_one(media: &Media) -> bool {
        let last = media.proto.rsplit('/').next().unwrap_or_default();
        media.media.eq_ignore_ascii_case("application") && last.eq_ignore_ascii_case("BFCP")
    }

    /// Reads what an m-line and its attributes say, without judging whether it can be served. Of
    /// its formats nothing is read (RFC 8856 section 4).
    pub(super) fn parse(session: &Session, media: &Media, half: Half) -> Result<Self, Unservable> {
        let protocol = FloorProtocol::parse(&media.proto).ok_or(Unservable::TransportProtocol)?;
        if media.port == 0 {
            return Err(Unservable::Disabled);
        }
        let own = &media.attributes;
        // RFC 4145 sections 4 and 5 allow both at session level.
        let either = |name| value(own, name).or_else(|| value(&session.attributes, name));
        Ok(Self {
            protocol,
            setup: OfferedSetup::parse(either("setup"), half)?,
            connection: ConnectionReuse::parse(either("connection"))?,
            roles: value(own, "floorctrl").map(FloorRoles::parse).transpose()?,
            conference_id: number(own, "confid")?,
            user_id: number(own, "userid")?,
            floors: FloorMedia::parse_all(own)?,
            versions: match value(own, "bfcpver") {
                Some(text) => parse_versions(text)?,
                None => vec![protocol.version()],
            },
            connection_host: connection_host(session, media)?,
            connection_port: media.port,
            key_management: KeyManagement::of_media(own)?,
            fingerprints: match protocol {
                FloorProtocol::Tls => attributes::fingerprints(&session.attributes, own)?,
                FloorProtocol::Tcp | FloorProtocol::Udp => Vec::new(),
            },
        })
    }

    /// The rules for an offer this node is to answer.
    pub(super) fn check_offer(&self, rules: &OfferRules) -> Result<(), Unservable> {
        // Without the attribute the offerer is client.
        if self.roles.is_some_and(|roles| !roles.client) {
            return Err(Unservable::FloorControl);
        }
        let secure = self.protocol == FloorProtocol::Tls;
        if rules.protection_required && !secure {
            return Err(Unservable::ProtectionRequired);
        }
        match (&self.key_management, secure) {
            (None, true) if !rules.certificate => return Err(Unservable::KeyManagementMissing),
            (Some(_), false) => return Err(Unservable::KeyManagementOnPlain),
            (Some(offered), true) if offered.mikey().is_none() => {
                return Err(Unservable::KeyManagement);
            }
            (Some(_) | None, true) | (None, false) => (),
        }
        self.check_stream()
    }

    /// The rules for an answer to an offer of ours, in which we are floor control server.
    pub(super) fn check_answer(&self, offered: FloorProtocol) -> Result<(), Unservable> {
        if self.protocol != offered {
            return Err(Unservable::TransportProtocol);
        }
        if self.roles.is_some_and(|roles| roles.server) {
            return Err(Unservable::FloorControl);
        }
        self.check_stream()
    }

    fn check_stream(&self) -> Result<(), Unservable> {
        if !self.versions.contains(&self.protocol.version()) {
            return Err(Unservable::BfcpVersion);
        }
        let sent_to = self.protocol == FloorProtocol::Udp || self.setup == OfferedSetup::Passive;
        if sent_to && self.remote().is_none() { Err(Unservable::DomainName) } else { Ok(()) }
    }

    /// TLS without a key: what proves its ends are certificates.
    #[must_use]
    pub fn needs_certificate(&self) -> bool {
        self.protocol == FloorProtocol::Tls && self.key_management.is_none()
    }

    /// TLS with neither a key nor a fingerprint: whoever came with the conference's number and the user's,
    /// which are no secrets among members, would be taken for the user.
    #[must_use]
    pub fn is_unproved(&self) -> bool {
        self.needs_certificate() && self.fingerprints.is_empty()
    }

    /// Where to connect or to send to; `None`: a domain name.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        match &self.connection_host {
            Host::Ip(address) => Some(SocketAddr::new(*address, self.connection_port)),
            Host::Name(_) => None,
        }
    }
}

impl FloorProtocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::Udp];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()))
    }

    /// As the m-line has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP/BFCP",
            Self::Tls => "TCP/TLS/BFCP",
            Self::Udp => "UDP/BFCP",
        }
    }

    /// The one version that goes with it (RFC 8855 section 5.1).
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Tcp | Self::Tls => 1,
            Self::Udp => 2,
        }
    }
}

impl ConnectionReuse {
    fn parse(value: Option<&str>) -> Result<Self, Unservable> {
        match value.map(str::trim) {
            None | Some("new") => Ok(Self::New),
            Some("existing") => Ok(Self::Existing),
            Some(_) => Err(Unservable::ConnectionAttribute),
        }
    }

    /// The attribute's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Existing => "existing",
        }
    }
}

impl FloorRoles {
    /// RFC 8856 section 5.1: `c-s` of RFC 4583 is taken for "one or the other".
    fn parse(text: &str) -> Result<Self, Unservable> {
        let mut roles = Self { client: false, server: false };
        for role in text.split_ascii_whitespace() {
            match role {
                "c-only" => roles.client = true,
                "s-only" => roles.server = true,
                "c-s" => roles = Self { client: true, server: true },
                _ => return Err(Unservable::FloorControl),
            }
        }
        if roles.client || roles.server { Ok(roles) } else { Err(Unservable::FloorControl) }
    }
}

impl FloorMedia {
    fn parse_all(attributes: &[Attribute]) -> Result<Vec<Self>, Unservable> {
        let floors = attributes.iter().filter(|attribute| attribute.attribute == "floorid");
        let floors: Option<Vec<Self>> = floors
            .take(FLOORS_MAX + 1)
            .map(|attribute| Self::parse(attribute.value.as_deref()?))
            .collect();
        floors.filter(|floors| floors.len() <= FLOORS_MAX).ok_or(Unservable::FloorAttribute)
    }

    /// RFC 8856 section 5.4, with the name that an example of RFC 4583 has made common.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (floor_id, media) = text.split_once(' ').unwrap_or((text, ""));
        let media = media.trim();
        let labels = ["mstrm:", "m-stream:"].iter().find_map(|prefix| media.strip_prefix(prefix));
        let labels = if media.is_empty() { "" } else { labels? };
        if labels.len() > LIST_SIZE_MAX
            || !labels.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        {
            return None;
        }
        let labels = labels.split_ascii_whitespace().map(str::to_owned).collect();
        Some(Self { floor_id: parse_number(floor_id)?, labels })
    }

    /// The attribute's value.
    pub(super) fn value(&self) -> String {
        if self.labels.is_empty() {
            return self.floor_id.to_string();
        }
        format!("{} mstrm:{}", self.floor_id, self.labels.join(" "))
    }
}

fn number<T: std::str::FromStr>(
    attributes: &[Attribute],
    name: &str,
) -> Result<Option<T>, Unservable> {
    let Some(text) = value(attributes, name) else { return Ok(None) };
    parse_number(text.trim()).map(Some).ok_or(Unservable::FloorAttribute)
}

/// Digits only, as the grammars have it.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn parse_versions(text: &str) -> Result<Vec<u8>, Unservable> {
    let versions: Option<Vec<u8>> =
        text.split_ascii_whitespace().take(VERSIONS_MAX).map(parse_number).collect();
    versions.filter(|versions| !versions.is_empty()).ok_or(Unservable::BfcpVersion)
}

/// Floors of one description: as many as a conference has
/// ([`FLOORS_PER_CONFERENCE_MAX`](mrfp_core::floor::FLOORS_PER_CONFERENCE_MAX)).
const FLOORS_MAX: usize = mrfp_core::floor::FLOORS_PER_CONFERENCE_MAX;

/// Versions that are looked at: the field on the wire has three bits (RFC 8855 section 5.1).
const VERSIONS_MAX: usize = 8;
