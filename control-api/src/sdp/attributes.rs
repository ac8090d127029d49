//! Attributes that have a grammar of their own: `a=key-mgmt`, `a=setup` and the direction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_core::mp::Direction;
use mrfp_protocol::tls::Fingerprint;
use sdp_types::Attribute;

use super::message::{Half, Unservable};

/// What is offered with `a=key-mgmt` for one m-line (RFC 4567 section 3.1), best first, not empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyManagement {
    /// Where it stands; the answer stands there too.
    pub level: KeyManagementLevel,
    /// The protocols.
    pub entries: Vec<KeyManagementEntry>,
}

/// One `a=key-mgmt` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyManagementEntry {
    /// Protocol identifier, `mikey` being the one we know.
    pub protocol: String,
    /// Its message, base64 taken off.
    pub data: Vec<u8>,
}

/// Session part or media part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyManagementLevel {
    /// Before the first m-line.
    Session,
    /// Under the m-line.
    Media,
}

/// `a=setup` (RFC 4145 section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfferedSetup {
    /// Whoever says so connects. In an offer also what no attribute means, as in RFC 4975 the
    /// offerer always connects.
    Active,
    /// The other side connects. In an answer also what no attribute means. RFC 6135 forbids it in
    /// offers; taken all the same.
    Passive,
    /// Either, in offers only.
    ActPass,
}

/// The certificates a peer has announced (RFC 8122 section 5): under the m-line or, where there are
/// none, for the session. Those of hashes we do not take are passed over, but not all of them.
pub(crate) fn fingerprints(
    session: &[Attribute],
    media: &[Attribute],
) -> Result<Vec<Fingerprint>, Unservable> {
    for attributes in [media, session] {
        let announced = attributes.iter().filter(|attribute| attribute.attribute == "fingerprint");
        let mut announced = announced.peekable();
        if announced.peek().is_some() {
            let known: Vec<Fingerprint> = announced
                .filter_map(|attribute| Fingerprint::parse(attribute.value.as_deref()?).ok())
                .collect();
            return if known.is_empty() { Err(Unservable::Fingerprint) } else { Ok(known) };
        }
    }
    Ok(Vec::new())
}

impl KeyManagement {
    /// The offered protocol identifiers as RFC 4567 section 7.1 wants them authenticated against
    /// bidding down: in order, joined with `;`.
    #[must_use]
    pub fn offered_protocols(&self) -> String {
        let protocols: Vec<&str> =
            self.entries.iter().map(|entry| entry.protocol.as_str()).collect();
        protocols.join(";")
    }

    /// The first MIKEY message.
    #[must_use]
    pub fn mikey(&self) -> Option<&[u8]> {
        let entry = self.entries.iter().find(|entry| entry.protocol == "mikey")?;
        Some(&entry.data)
    }

    /// The list that counts for a media description: its own where it has one, else the
    /// session's (RFC 4567 section 3.1).
    pub(super) fn in_effect(
        session: &[Attribute],
        media: &[Attribute],
    ) -> Result<Option<Self>, Unservable> {
        if let Some(own) = Self::parse(media, KeyManagementLevel::Media)? {
            return Ok(Some(own));
        }
        Self::parse(session, KeyManagementLevel::Session)
    }

    /// The media description's own.
    pub(super) fn of_media(media: &[Attribute]) -> Result<Option<Self>, Unservable> {
        Self::parse(media, KeyManagementLevel::Media)
    }

    fn parse(
        attributes: &[Attribute],
        level: KeyManagementLevel,
    ) -> Result<Option<Self>, Unservable> {
        let mut entries = Vec::new();
        for attribute in attributes.iter().filter(|a| a.attribute == "key-mgmt") {
            if entries.len() == KEY_MANAGEMENT_COUNT_MAX {
                return Err(Unservable::KeyManagement);
            }
            let value = attribute.value.as_deref().ok_or(Unservable::KeyManagement)?;
            entries.push(KeyManagementEntry::parse(value).ok_or(Unservable::KeyManagement)?);
        }
        Ok((!entries.is_empty()).then_some(Self { level, entries }))
    }
}

impl KeyManagementEntry {
    fn parse(value: &str) -> Option<Self> {
        let (protocol, data) = value.trim().split_once(' ')?;
        let data = data.trim();
        let is_token = !protocol.is_empty()
            && protocol.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(&byte));
        if !is_token || data.len() > KEY_MANAGEMENT_SIZE_MAX {
            return None;
        }
        let data = STANDARD.decode(data).ok()?;
        Some(Self { protocol: protocol.to_ascii_lowercase(), data })
    }
}

impl OfferedSetup {
    pub(super) fn parse(value: Option<&str>, half: Half) -> Result<Self, Unservable> {
        match (value.map(str::trim), half) {
            // RFC 6135 section 4.2.1: holdconn is to be ignored "as if it did not contain an
            // a=setup attribute".
            (None | Some("active" | "holdconn"), Half::Offer) | (Some("active"), Half::Answer) => {
                Ok(Self::Active)
            }
            (Some("passive"), _) | (None | Some("holdconn"), Half::Answer) => Ok(Self::Passive),
            (Some("actpass"), Half::Offer) => Ok(Self::ActPass),
            (Some(_), _) => Err(Unservable::Setup),
        }
    }

    /// The attribute's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }
}

/// The direction in effect: the media's own, else the session's, else `sendrecv` (RFC 3264
/// section 5.1).
pub(super) fn direction(session: &[Attribute], media: &[Attribute]) -> Direction {
    let of = |attributes: &[Attribute]| {
        attributes.iter().find_map(|attribute| match attribute.attribute.as_str() {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        })
    };
    of(media).or_else(|| of(session)).unwrap_or(Direction::SendRecv)
}

/// The attribute for a direction.
pub(super) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}

/// The same stream seen from the other end (RFC 3264 section 6.1).
#[must_use]
pub fn reversed(direction: Direction) -> Direction {
    match direction {
        Direction::SendRecv => Direction::SendRecv,
        Direction::SendOnly => Direction::RecvOnly,
        Direction::RecvOnly => Direction::SendOnly,
        Direction::Inactive => Direction::Inactive,
    }
}

/// Lines of `a=key-mgmt` at one level: one protocol is in use, a few more may be tried.
pub const KEY_MANAGEMENT_COUNT_MAX: usize = 8;

/// Base64 characters of one key management message. A TRANSFER_INIT with its ticket takes a few
/// hundred bytes; certificates could make it some thousands.
pub const KEY_MANAGEMENT_SIZE_MAX: usize = 16 * 1024;
