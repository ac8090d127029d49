//! One `m=message` description: what it says, and whether this node can serve it.

use mrfp_core::mp::Direction;
use mrfp_protocol::tls::Fingerprint;
use sdp_types::{Attribute, Media, Session};

use super::attributes::{self, KeyManagement, OfferedSetup};
use super::chatroom::Chatroom;
use super::file::{self, FileTransfer};
use super::uri::{Host, MsrpUri};
use super::{MediaLine, Warning};

/// An MSRP session as one end describes it (RFC 4975 section 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageDescription {
    /// TCP/TLS/MSRP.
    pub secure: bool,
    /// `a=path` as written, one space between URIs.
    pub path: String,
    /// Its URIs, at least one; more than one: the end uses a relay (RFC 4976).
    pub uris: Vec<MsrpUri>,
    /// `a=accept-types` as written.
    pub accept_types: String,
    /// `a=accept-wrapped-types` as written, empty where absent.
    pub accept_wrapped_types: String,
    /// `a=max-size`.
    pub max_size_bytes: Option<u64>,
    /// `a=setup`, or what its absence means.
    pub setup: OfferedSetup,
    /// Direction as seen from whoever wrote the description.
    pub direction: Direction,
    /// `a=msrp-cema` (RFC 6714).
    pub cema: bool,
    /// `a=chatroom` (RFC 7701).
    pub chatroom: Option<Chatroom>,
    /// The file it is to carry (RFC 5547).
    pub file: Option<FileTransfer>,
    /// Address of the c-line in effect.
    pub connection_host: Host,
    /// Port of the m-line, not 0.
    pub connection_port: u16,
    /// `a=key-mgmt` in effect.
    pub key_management: Option<KeyManagement>,
    /// `a=fingerprint` in effect, of a TLS session.
    pub fingerprints: Vec<Fingerprint>,
}

/// Which half of an exchange a description is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    Offer,
    Answer,
}

/// What the answering side insists on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfferRules {
    /// TCP/TLS/MSRP only.
    pub protection_required: bool,
    /// TCP/TLS/MSRP may do without key management: there is a certificate to show.
    pub certificate: bool,
    /// Only who lists message/cpim is let in (RFC 7701 section 5.2).
    pub cpim_required: bool,
    /// Whether we take part in CEMA; an end that does not looks at nothing but paths.
    pub cema: bool,
    /// The largest file that is taken.
    pub message_bytes_max: Option<u64>,
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
    /// `a=accept-types` does not list message/cpim, and the room insists on it.
    CpimMissing,
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
    /// `a=fingerprint` that cannot be read, or of no hash that proves anything.
    Fingerprint,
    /// `a=key-mgmt` for TCP/MSRP, which has nothing to key.
    KeyManagementOnPlain,
    /// An attribute of RFC 5547 is malformed, or `a=file-transfer-id` is missing.
    FileAttribute,
    /// A file goes one way: `a=sendonly` or `a=recvonly`.
    FileDirection,
    /// A file is asked for, and a conference keeps none.
    FileUnknown,
    /// The file is larger than what is taken.
    FileTooLarge,
    /// The operator admits protected sessions only.
    ProtectionRequired,
    /// Another m-line of the offer is served.
    AnotherServed,
    /// `a=connection` has an unknown value.
    ConnectionAttribute,
    /// `a=floorctrl` is malformed, or leaves us no role: we are floor control server.
    FloorControl,
    /// `a=confid`, `a=userid` or `a=floorid` is malformed.
    FloorAttribute,
    /// `a=bfcpver` is malformed, or lacks the version that goes with the transport.
    BfcpVersion,
}

impl MessageDescription {
    /// Reads what an m-line and its attributes say, without judging whether it can be served.
    pub(super) fn parse(session: &Session, media: &Media, half: Half) -> Result<Self, Unservable> {
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
        let (path, uris) = parse_path(&media.attributes, secure)?;
        let accept_types = list(&media.attributes, "accept-types")?;
        Ok(Self {
            secure,
            path,
            uris,
            accept_types: accept_types.ok_or(Unservable::AcceptTypes)?,
            accept_wrapped_types: list(&media.attributes, "accept-wrapped-types")?
                .unwrap_or_default(),
            max_size_bytes: max_size(&media.attributes)?,
            // RFC 4145 section 4 allows a=setup at session level.
            setup: OfferedSetup::parse(
                value(&media.attributes, "setup").or_else(|| value(&session.attributes, "setup")),
                half,
            )?,
            direction: attributes::direction(&session.attributes, &media.attributes),
            cema: media.has_attribute("msrp-cema"),
            chatroom: Chatroom::of(&media.attributes),
            file: FileTransfer::parse(&media.attributes)?,
            connection_host: connection_host(session, media)?,
            connection_port: media.port,
            key_management: KeyManagement::in_effect(&session.attributes, &media.attributes)?,
            fingerprints: if secure {
                attributes::fingerprints(&session.attributes, &media.attributes)?
            } else {
                Vec::new()
            },
        })
    }

    /// The rules for an offer this node is to answer.
    pub(super) fn check_offer(&self, rules: &OfferRules) -> Result<(), Unservable> {
        if rules.protection_required && !self.secure {
            return Err(Unservable::ProtectionRequired);
        }
        match (&self.key_management, self.secure) {
            (None, true) if !rules.certificate => return Err(Unservable::KeyManagementMissing),
            (Some(_), false) => return Err(Unservable::KeyManagementOnPlain),
            (Some(offered), true) if offered.mikey().is_none() => {
                return Err(Unservable::KeyManagement);
            }
            (Some(_) | None, true) | (None, false) => (),
        }
        if rules.cpim_required && !self.lists_cpim() {
            return Err(Unservable::CpimMissing);
        }
        match &self.file {
            Some(file) => self.check_file(file, rules.message_bytes_max)?,
            None if !self.takes_conference_messages() => return Err(Unservable::AcceptTypes),
            None => (),
        }
        if rules.cema && self.is_moved_without_cema() {
            return Err(Unservable::AddressMismatch);
        }
        if self.setup == OfferedSetup::Passive && self.connect_to(rules.cema).is_none() {
            return Err(Unservable::DomainName);
        }
        Ok(())
    }

    /// RFC 5547 sections 8.2 and 8.3.
    fn check_file(&self, file: &FileTransfer, bytes_max: Option<u64>) -> Result<(), Unservable> {
        match self.direction {
            Direction::SendOnly => (),
            // A conference passes on what arrives and keeps nothing, so no selector ever points to
            // a file here.
            Direction::RecvOnly => return Err(Unservable::FileUnknown),
            Direction::SendRecv | Direction::Inactive => return Err(Unservable::FileDirection),
        }
        let too_large = file.size_bytes().zip(bytes_max).is_some_and(|(size, max)| size > max);
        if too_large { Err(Unservable::FileTooLarge) } else { Ok(()) }
    }

    /// `a=chatroom` promises that private messages can be told from others.
    #[must_use]
    pub fn private_messages(&self) -> bool {
        self.chatroom.is_some_and(|chatroom| chatroom.private_messages)
    }

    /// The end knows message/cpim by name. A wildcard is no promise: RFC 4975 section 8.6 has it
    /// mean that anything may be tried.
    #[must_use]
    pub fn lists_cpim(&self) -> bool {
        self.accept_types.split(' ').any(|entry| media_type_of(entry) == "message/cpim")
    }

    /// Where whoever reaches this end without CEMA connects.
    pub(super) fn first_uri(&self) -> &MsrpUri {
        self.uris.first().expect("a path has a URI")
    }

    /// The end uses a relay (RFC 4975 section 8.3).
    pub(super) fn behind_relay(&self) -> bool {
        self.uris.len() > 1
    }

    /// RFC 7701 sends every room message as message/cpim; a plain client that takes text can be
    /// served with the wrapper taken off. Anything else could never be sent a message.
    pub(super) fn takes_conference_messages(&self) -> bool {
        self.accept_types.split(' ').any(|entry| {
            let entry = media_type_of(entry);
            entry == "*"
                || entry == "message/cpim"
                || entry == "message/*"
                || entry.starts_with("text/")
        })
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
            Self::CpimMissing => {
                (305, "Incompatible media format: accept-types lacks message/cpim")
            }
            Self::MaxSize => (306, "Attribute not understood: max-size"),
            Self::Setup => (306, "Attribute not understood: setup"),
            Self::AddressMismatch => (399, "Connection address differs from path"),
            Self::DomainName => (301, "Domain name where an address is needed"),
            Self::KeyManagement => (306, "Attribute not understood: key-mgmt"),
            Self::Fingerprint => (399, "Unusable a=fingerprint"),
            Self::KeyManagementMissing => (399, "TCP/TLS/MSRP needs key-mgmt"),
            Self::KeyManagementOnPlain => (399, "key-mgmt without TLS"),
            Self::FileAttribute => (306, "Attribute not understood: file transfer"),
            Self::FileDirection => (399, "A file transfer is sendonly or recvonly"),
            Self::FileUnknown => (399, "No such file"),
            Self::FileTooLarge => (399, "The file is too large"),
            Self::ProtectionRequired => (302, "TCP/TLS/MSRP is required"),
            Self::AnotherServed => (304, "One stream of a kind is served"),
            Self::ConnectionAttribute => (306, "Attribute not understood: connection"),
            Self::FloorControl => (399, "The node is floor control server"),
            Self::FloorAttribute => (306, "Attribute not understood: confid, userid or floorid"),
            Self::BfcpVersion => (399, "No common version of BFCP"),
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
            file: file::mirrored(&media.attributes),
        })
    }
}

/// A format entry without parameters, in lower case (RFC 4975 section 8.6: one with parameters
/// matches the same without).
fn media_type_of(entry: &str) -> String {
    entry.split(';').next().unwrap_or_default().to_ascii_lowercase()
}

pub(super) fn value<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.attribute == name).and_then(|a| a.value.as_deref())
}

fn parse_path(
    attributes: &[Attribute],
    secure: bool,
) -> Result<(String, Vec<MsrpUri>), Unservable> {
    let mut paths = attributes.iter().filter(|a| a.attribute == "path");
    let path = paths.next().and_then(|a| a.value.as_deref()).ok_or(Unservable::Path)?;
    if paths.next().is_some() || path.len() > PATH_SIZE_MAX {
        return Err(Unservable::Path);
    }
    let texts: Vec<&str> = path.split_ascii_whitespace().collect();
    let uris: Option<Vec<MsrpUri>> = texts.iter().map(|text| MsrpUri::parse(text)).collect();
    let uris = uris.ok_or(Unservable::Path)?;
    // RFC 4975 section 8.1: TCP/TLS/MSRP goes with msrps, TCP/MSRP with msrp.
    if uris.first().is_none_or(|first| first.secure != secure) {
        return Err(Unservable::Path);
    }
    Ok((texts.join(" "), uris))
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

pub(super) fn connection_host(session: &Session, media: &Media) -> Result<Host, Unservable> {
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
