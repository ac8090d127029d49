//! The UE's side of the exchange: an offer for one MSRP session, and the answer to it read.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_core::mp::Direction;
use sdp_types::{Attribute, Connection, Origin, Session, Time};

use super::MediaLine;
use super::answer::{media_of, written};
use super::attributes::{OfferedSetup, direction_name};
use super::message::{MessageDescription, PROTOCOL_PLAIN, PROTOCOL_TLS, Unservable};
use super::offer::{SdpError, parse_session};

/// What a UE offers.
#[derive(Clone, Copy, Debug)]
pub struct MessageSessionOffer<'a> {
    /// sess-id of the o-line.
    pub session_id: u64,
    /// sess-version of the o-line.
    pub session_version: u64,
    /// Address of o=, c= and path, port of m= and path.
    pub address: SocketAddr,
    /// Session-id part of the UE's MSRP URI.
    pub msrp_session_id: &'a str,
    /// TCP/TLS/MSRP.
    pub secure: bool,
    /// `a=setup`.
    pub setup: OfferedSetup,
    /// `a=accept-types`.
    pub accept_types: &'a str,
    /// `a=accept-wrapped-types`, left out where empty.
    pub accept_wrapped_types: &'a str,
    /// `a=max-size`.
    pub max_size_bytes: Option<u64>,
    /// Direction; `sendrecv` is left unsaid.
    pub direction: Direction,
    /// `a=msrp-cema`.
    pub cema: bool,
    /// A MIKEY message for a media level `a=key-mgmt`.
    pub mikey: Option<&'a [u8]>,
}

/// The answer as the UE reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageSessionAnswer {
    /// `a=path` of the conference.
    pub path: String,
    /// Where to connect when the answer says `passive`; `None` for a domain name.
    pub connect_to: Option<SocketAddr>,
    /// The conference connects to us (`a=setup:active`).
    pub peer_is_active: bool,
    /// TCP/TLS/MSRP.
    pub secure: bool,
    /// Direction as the conference sees it.
    pub direction: Direction,
    /// `a=accept-types`.
    pub accept_types: String,
    /// `a=max-size`.
    pub max_size_bytes: Option<u64>,
    /// `a=msrp-cema`.
    pub cema: bool,
    /// The MIKEY message of `a=key-mgmt`.
    pub mikey: Option<Vec<u8>>,
}

/// The text of an offer for one MSRP session (RFC 4975 section 8, RFC 6135, RFC 4567).
#[must_use]
pub fn offer_for_message_session(offer: &MessageSessionOffer<'_>) -> Vec<u8> {
    let ip = offer.address.ip();
    let origin = Origin::with_ip_addr(offer.session_id, offer.session_version, ip);
    let mut session = Session::new(origin, "-");
    session.set_connection(Connection::from_ip_addr(ip));
    session.add_time(Time::new(0, 0));
    let line = MediaLine {
        media: "message".to_owned(),
        protocol: if offer.secure { PROTOCOL_TLS } else { PROTOCOL_PLAIN }.to_owned(),
        format: "*".to_owned(),
    };
    let mut media = media_of(&line, offer.address.port());
    let scheme = if offer.secure { "msrps" } else { "msrp" };
    let path = format!("{scheme}://{}/{};tcp", offer.address, offer.msrp_session_id);
    media.add_attribute(Attribute::with_value("setup", offer.setup.as_str()));
    media.add_attribute(Attribute::with_value("accept-types", offer.accept_types));
    if !offer.accept_wrapped_types.is_empty() {
        let types = offer.accept_wrapped_types;
        media.add_attribute(Attribute::with_value("accept-wrapped-types", types));
    }
    if let Some(max_size_bytes) = offer.max_size_bytes {
        media.add_attribute(Attribute::with_value("max-size", max_size_bytes.to_string()));
    }
    media.add_attribute(Attribute::with_value("path", path));
    if offer.direction != Direction::SendRecv {
        media.add_attribute(Attribute::new(direction_name(offer.direction)));
    }
    if offer.cema {
        media.add_attribute(Attribute::new("msrp-cema"));
    }
    if let Some(mikey) = offer.mikey {
        let value = format!("mikey {}", STANDARD.encode(mikey));
        media.add_attribute(Attribute::with_value("key-mgmt", value));
    }
    session.add_media(media);
    written(&session)
}

/// Reads the answer to [`offer_for_message_session`].
///
/// # Errors
/// The text is no session description, or the message stream was refused in it.
pub fn parse_answer(text: &[u8]) -> Result<MessageSessionAnswer, SdpError> {
    let session = parse_session(text)?;
    let media = session.medias.first().ok_or(SdpError::Refused(Unservable::Disabled))?;
    let message = MessageDescription::parse(&session, media).map_err(SdpError::Refused)?;
    Ok(MessageSessionAnswer {
        connect_to: message.connect_to(),
        // RFC 4145 section 4.1: in an answer, absent means passive.
        peer_is_active: media.get_first_attribute_value("setup").flatten() == Some("active"),
        secure: message.secure,
        direction: message.direction,
        max_size_bytes: message.max_size_bytes,
        cema: message.cema,
        mikey: message.key_management.as_ref().and_then(|k| k.mikey()).map(<[u8]>::to_vec),
        path: message.path,
        accept_types: message.accept_types,
    })
}
