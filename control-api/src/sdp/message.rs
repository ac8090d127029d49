//! One `m=message` description: what it says, and whether this node can serve it.

use std::net::SocketAddr;

use mrfp_core::mp::Direction;
use sdp_types::{Attribute, Media, Session};

use super::attributes::{self, KeyManagement, OfferedSetup};
use super::uri::{Host, MsrpUri};
use super::{MediaLine, Warning};

/// An MSRP session as one end describes it (RFC 4975 section 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageDescription {
    /// TCP/TLS/MSRP.
    pub secure: bool,
    /// `a=path` as written, one space between URIs.
    pub path: String,
    /// Its first URI: where a peer without CEMA connects.
    pub first_uri: MsrpUri,
    /// More than one URI: the end uses a relay (RFC 4976).
    pub behind_relay: bool,
    /// `a=accept-types` as written.
    pub accept_types: String,
    /// `a=accept-wrapped-types` as written, empty where absent.
    pub accept_wrapped_types: String,
    /// `a=max-size`.
    pub max_size_bytes: Option<u64>,
    /// `a=setup`.
    pub setup: OfferedSetup,
    /// Direction as seen from whoever wrote the description.
    pub direction: Direction,
    /// `a=msrp-cema` (RFC 6714).
    pub cema: bool,
    /// `a=chatroom` (RFC 7701).
    pub chatroom: bool,
    /// Address of the c-line in effect.
    pub connection_host: Host,
    /// Port of the m-line, not 0.
    pub connection_port: u16,
    /// `a=key-mgmt` in effect.
    pub key_management: Option<KeyManagement>,
}

/// Why a media description is answered with port 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unservable {
    /// The offerer itself set port 0.
    Disabled,
    /// Not `message`.
    MediaType,
    /// Not TCP/MSRP or TCP/TLS/MSRP.
    TransportProtocol,
    /// The format of an MSRP m-line is `*`.
    MediaFormat,
    /// No usable c-line.
    Connection,
    /// `a=path` is absent, doubled or malformed, or its scheme contradicts the m-line.
    Path,
    /// `a=accept-types` is absent or malformed, or holds nothing that a conference could send.
    AcceptTypes,
    /// `a=max-size` is not a number.
    MaxSize,
    /// `a=setup` has an unknown value.
    Setup,
    /// c=/m= and path name different places, and there is no `a=msrp-cema`.
    AddressMismatch,
    /// We were to connect to a domain name.
    DomainName,
    /// `a=key-mgmt` is malformed or names no protocol we know.
    KeyManagement,
    /// TCP/TLS/MSRP without `a=key-mgmt`: no key to authenticate with.
    KeyManagementMissing,
    /// `a=key-mgmt` for TCP/MSRP, which has nothing to key.
    KeyManagementOnPlain,
    /// The operator admits protected sessions only.
    ProtectionRequired,
    /// Another m-line of the offer is served.
    AnotherServed,
}

impl MessageDescription {
    /// Reads what an m-line and its attributes say, without judging whether it can be served.
    pub(super) fn parse(session: &Session, media: &Media) -> Result<Self, Unservable> {
        if !media.media.eq_ignore_ascii_case("message") {
            return Err(Unservable::MediaType);
        }
        let secure = if media.proto.eq_ignore_ascii_case(PROTOCOL_PLAIN) {
            false
        } else if media.proto.eq_ignore_ascii_case(PROTOCOL_TLS) {
            true
        } else {
            return Err(Unservable::TransportProtocol);
        };
        if media.fmt.trim() != "*" {
            return Err(Unservable::MediaFormat);
        }
        if media.port == 0 {
            return Err(Unservable::Disabled);
        }
        let (path, first_uri, behind_relay) = parse_path(&media.attributes, secure)?;
        let accept_types = list(&media.attributes, "accept-types")?;
        Ok(Self {
            secure,
            path,
            first_uri,
            behind_relay,
            accept_types: accept_types.ok_or(Unservable::AcceptTypes)?,
            accept_wrapped_types: list(&media.attributes, "accept-wrapped-types")?
                .unwrap_or_default(),
            max_size_bytes: max_size(&media.attributes)?,
            // RFC 4145 section 4 allows a=setup at session level.
            setup: OfferedSetup::parse(
                value(&media.attributes, "setup").or_else(|| value(&session.attributes, "setup")),
            )?,
            direction: attributes::direction(&session.attributes, &media.attributes),
            cema: media.has_attribute("msrp-cema"),
            chatroom: media.has_attribute("chatroom"),
            connection_host: connection_host(session, media)?,
            connection_port: media.port,
            key_management: KeyManagement::in_effect(&session.attributes, &media.attributes)?,
        })
    }

    /// The rules for an offer this node is to answer.
    pub(super) fn check_offer(&self) -> Result<(), Unservable> {
        match (&self.key_management, self.secure) {
            (None, true) => return Err(Unservable::KeyManagementMissing),
            (Some(_), false) => return Err(Unservable::KeyManagementOnPlain),
            (Some(offered), true) if offered.mikey().is_none() => {
                return Err(Unservable::KeyManagement);
            }
            (Some(_), true) | (None, false) => (),
        }
        if !self.takes_conference_messages() {
            return Err(Unservable::AcceptTypes);
        }
        // RFC 6714 section 4.3: without msrp-cema a difference means that a middlebox moved the
        // c-line and will not move the path.
        if !self.cema && !self.addresses_match() {
            return Err(Unservable::AddressMismatch);
        }
        if self.setup == OfferedSetup::Passive && self.connect_to().is_none() {
            return Err(Unservable::DomainName);
        }
        Ok(())
    }

    /// RFC 6714 section 4.3: the answer names CEMA except where a relay on the other side will
    /// connect to us. We never use a relay, so criteria 1 and 3 cannot hold.
    #[must_use]
    pub fn answer_with_cema(&self) -> bool {
        !(self.behind_relay && self.setup == OfferedSetup::Active)
    }

    /// Where to connect when we are active: c=/m= under CEMA (RFC 6714 section 4.3), else the
    /// path. `None`: a domain name or no port; the MRFC has no resolver.
    #[must_use]
    pub fn connect_to(&self) -> Option<SocketAddr> {
        let (host, port) = if self.cema {
            (&self.connection_host, self.connection_port)
        } else {
            (&self.first_uri.host, self.first_uri.port?)
        };
        match host {
            Host::Ip(address) => Some(SocketAddr::new(*address, port)),
            Host::Name(_) => None,
        }
    }

    /// RFC 7701 sends every room message as message/cpim; a plain client that takes text can be
    /// served with the wrapper taken off. Anything else could never be sent a message.
    fn takes_conference_messages(&self) -> bool {
        self.accept_types.split(' ').any(|entry| {
            let entry = entry.to_ascii_lowercase();
            entry == "*" || entry == "message/cpim" || entry.starts_with("text/")
        })
    }

    /// RFC 6714 section 4.4. A name on one side and an address on the other cannot be compared
    /// without a resolver; such a pair counts as a match if the ports do.
    fn addresses_match(&self) -> bool {
        let hosts_match = match (&self.connection_host, &self.first_uri.host) {
            (Host::Ip(connection), Host::Ip(path)) => connection == path,
            (Host::Name(connection), Host::Name(path)) => connection == path,
            (Host::Ip(_), Host::Name(_)) | (Host::Name(_), Host::Ip(_)) => true,
        };
        // RFC 6135 section 4.2.2: an active end should write port 9 in its m-line.
        let discard = self.setup == OfferedSetup::Active && self.connection_port == PORT_DISCARD;
        hosts_match && (discard || Some(self.connection_port) == self.first_uri.port)
    }
}

impl Unservable {
    /// What a 488 says about it (RFC 3261 section 20.43).
    #[must_use]
    pub fn warning(self) -> Warning {
        let (code, text) = match self {
            Self::Disabled => (304, "No media stream is offered"),
            Self::MediaType => (304, "Media type not available"),
            Self::TransportProtocol => (302, "Incompatible transport protocol"),
            Self::MediaFormat => (305, "Incompatible media format"),
            Self::Connection => (301, "Incompatible network address format"),
            Self::Path => (306, "Attribute not understood: path"),
            Self::AcceptTypes => (305, "Incompatible media format: accept-types"),
            Self::MaxSize => (306, "Attribute not understood: max-size"),
            Self::Setup => (306, "Attribute not understood: setup"),
            Self::AddressMismatch => (399, "Connection address differs from path"),
            Self::DomainName => (301, "Domain name where an address is needed"),
            Self::KeyManagement => (306, "Attribute not understood: key-mgmt"),
            Self::KeyManagementMissing => (399, "TCP/TLS/MSRP needs key-mgmt"),
            Self::KeyManagementOnPlain => (399, "key-mgmt without TLS"),
            Self::ProtectionRequired => (302, "TCP/TLS/MSRP is required"),
            Self::AnotherServed => (304, "One message stream is served"),
        };
        (code, text.to_owned())
    }
}

impl MediaLine {
    /// Takes what the answer must repeat. `None`: not printable ASCII, or longer than anyone
    /// needs.
    pub(super) fn parse(media: &Media) -> Option<Self> {
        let size = media.media.len() + media.proto.len() + media.fmt.len();
        let token = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let formats = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let sound = size <= LIST_SIZE_MAX
            && token(&media.media)
            && token(&media.proto)
            && !media.fmt.trim().is_empty()
            && formats(&media.fmt);
        sound.then(|| Self {
            media: media.media.clone(),
            protocol: media.proto.clone(),
            format: media.fmt.clone(),
        })
    }
}

fn value<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.attribute == name).and_then(|a| a.value.as_deref())
}

fn parse_path(
    attributes: &[Attribute],
    secure: bool,
) -> Result<(String, MsrpUri, bool), Unservable> {
    let mut paths = attributes.iter().filter(|a| a.attribute == "path");
    let path = paths.next().and_then(|a| a.value.as_deref()).ok_or(Unservable::Path)?;
    if paths.next().is_some() || path.len() > PATH_SIZE_MAX {
        return Err(Unservable::Path);
    }
    let mut uris = Vec::new();
    for text in path.split_ascii_whitespace() {
        uris.push((text, MsrpUri::parse(text).ok_or(Unservable::Path)?));
    }
    let texts: Vec<&str> = uris.iter().map(|(text, _)| *text).collect();
    let joined = texts.join(" ");
    let behind_relay = uris.len() > 1;
    let (_, first) = uris.into_iter().next().ok_or(Unservable::Path)?;
    // RFC 4975 section 8.1: TCP/TLS/MSRP goes with msrps, TCP/MSRP with msrp.
    if first.secure != secure {
        return Err(Unservable::Path);
    }
    Ok((joined, first, behind_relay))
}

/// A space separated list of media types or `*`.
fn list(attributes: &[Attribute], name: &str) -> Result<Option<String>, Unservable> {
    let Some(attribute) = attributes.iter().find(|a| a.attribute == name) else {
        return Ok(None);
    };
    let text = attribute.value.as_deref().unwrap_or_default();
    let entries: Vec<&str> = text.split_ascii_whitespace().collect();
    let sound = |entry: &&str| entry.bytes().all(|byte| byte.is_ascii_graphic());
    if text.len() > LIST_SIZE_MAX || entries.is_empty() || !entries.iter().all(sound) {
        return Err(Unservable::AcceptTypes);
    }
    Ok(Some(entries.join(" ")))
}

fn max_size(attributes: &[Attribute]) -> Result<Option<u64>, Unservable> {
    let Some(attribute) = attributes.iter().find(|a| a.attribute == "max-size") else {
        return Ok(None);
    };
    let text = attribute.value.as_deref().unwrap_or_default().trim();
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unservable::MaxSize);
    }
    text.parse().map(Some).map_err(|_| Unservable::MaxSize)
}

fn connection_host(session: &Session, media: &Media) -> Result<Host, Unservable> {
    let connection = media.connections.first().or(session.connection.as_ref());
    let connection = connection.ok_or(Unservable::Connection)?;
    let host = Host::parse(&connection.connection_address).ok_or(Unservable::Connection)?;
    let sound = match (&host, connection.addrtype.as_str()) {
        (Host::Ip(address), "IP4") => address.is_ipv4() && !address.is_multicast(),
        (Host::Ip(address), "IP6") => address.is_ipv6() && !address.is_multicast(),
        (Host::Name(_), "IP4" | "IP6") => true,
        (Host::Ip(_) | Host::Name(_), _) => false,
    };
    if connection.nettype.as_str() != "IN" || !sound {
        return Err(Unservable::Connection);
    }
    Ok(host)
}

/// Transport of an unprotected session.
pub const PROTOCOL_PLAIN: &str = "TCP/MSRP";

/// Transport of a session under TLS.
pub const PROTOCOL_TLS: &str = "TCP/TLS/MSRP";

/// Characters of an `a=path`: a handful of relays at most.
pub const PATH_SIZE_MAX: usize = 2048;

/// Characters of a list of types or of an m-line.
pub const LIST_SIZE_MAX: usize = 2048;

/// The discard port: "no port here" (RFC 4145 section 4.1).
const PORT_DISCARD: u16 = 9;
