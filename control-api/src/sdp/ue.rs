//! The UE's side of the exchange: an offer for one MSRP session, with or without a BFCP stream beside it,
//! and the answer to it read.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_core::mp::Direction;
use sdp_types::Time;

use super::attributes::{KeyManagementLevel, OfferedSetup};
use super::chatroom::Chatroom;
use super::floor::{ConnectionReuse, FloorDescription, FloorMedia, FloorProtocol};
use super::local::{Capabilities, LocalDescription, LocalMedia, LocalMessage};
use super::local_floor::LocalFloor;
use super::message::{Half, MessageDescription, Unservable};
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
    /// Direction as seen from the UE.
    pub direction: Direction,
    /// `a=msrp-cema`.
    pub cema: bool,
    /// `a=chatroom`.
    pub chatroom: Option<Chatroom>,
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
    /// `a=chatroom`.
    pub chatroom: Option<Chatroom>,
    /// `a=fingerprint`, as written.
    pub fingerprint: Option<String>,
    /// The MIKEY message of `a=key-mgmt`.
    pub mikey: Option<Vec<u8>>,
}

/// What a UE offers for floor control.
#[derive(Clone, Copy, Debug)]
pub struct FloorStreamOffer<'a> {
    /// Where it listens, or receives datagrams.
    pub address: SocketAddr,
    /// What is to carry it.
    pub protocol: FloorProtocol,
    /// `a=setup`, over TCP.
    pub setup: OfferedSetup,
    /// `a=connection`, over TCP.
    pub connection: ConnectionReuse,
    /// A MIKEY message for its own `a=key-mgmt`.
    pub mikey: Option<&'a [u8]>,
}

/// What the answer says of floor control, as the UE reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorStreamAnswer {
    /// What carries it.
    pub protocol: FloorProtocol,
    /// Where to connect when the answer says `passive`, and where to send datagrams; `None` for a
    /// domain name.
    pub connect_to: Option<SocketAddr>,
    /// The conference connects to us (`a=setup:active`). In TLS we are client all the same.
    pub peer_is_active: bool,
    /// `a=connection`.
    pub connection: ConnectionReuse,
    /// `a=confid`.
    pub conference_id: u32,
    /// `a=userid`.
    pub user_id: u16,
    /// `a=floorid`.
    pub floors: Vec<FloorMedia>,
    /// The MIKEY message of its `a=key-mgmt`.
    pub mikey: Option<Vec<u8>>,
}

/// The text of an offer for one MSRP session (RFC 4975 section 8, RFC 6135, RFC 4567).
#[must_use]
pub fn offer_for_message_session(offer: &MessageSessionOffer<'_>) -> Vec<u8> {
    description(offer).to_bytes(offer.session_version)
}

/// The same with a second m-line: a BFCP stream whose client the UE is (RFC 8856 section 10.1).
#[must_use]
pub fn offer_for_message_session_and_floors(
    offer: &MessageSessionOffer<'_>,
    floors: &FloorStreamOffer<'_>,
) -> Vec<u8> {
    let mut description = description(offer);
    description.media.push(LocalMedia::Floor(Box::new(LocalFloor {
        protocol: floors.protocol,
        address: floors.address,
        setup: floors.setup,
        connection: floors.connection,
        conference: None,
        fingerprint: None,
        key_management: floors.mikey.map(|message| STANDARD.encode(message)),
    })));
    description.to_bytes(offer.session_version)
}

fn description(offer: &MessageSessionOffer<'_>) -> LocalDescription {
    let message = LocalMessage {
        secure: offer.secure,
        fingerprint: None,
        label: None,
        session_id: offer.msrp_session_id.to_owned(),
        setup: offer.setup,
        direction: offer.direction,
        cema: offer.cema,
        capabilities: Capabilities {
            accept_types: offer.accept_types.to_owned(),
            accept_wrapped_types: offer.accept_wrapped_types.to_owned(),
            max_size_bytes: offer.max_size_bytes,
            chatroom: offer.chatroom,
        },
        file: Vec::new(),
    };
    LocalDescription {
        session_id: offer.session_id,
        address: offer.address,
        times: vec![Time::new(0, 0)],
        key_management: offer
            .mikey
            .map(|message| (KeyManagementLevel::Media, STANDARD.encode(message))),
        media: vec![LocalMedia::Served(Box::new(message))],
    }
}

/// Reads the answer to [`offer_for_message_session`].
///
/// # Errors
/// The text is no session description, or the message stream was refused in it.
pub fn parse_answer(text: &[u8]) -> Result<MessageSessionAnswer, SdpError> {
    let session = parse_session(text)?;
    let media = session.medias.first().ok_or(SdpError::Refused(Unservable::Disabled))?;
    let message = MessageDescription::parse(&session, media, Half::Answer);
    let message = message.map_err(SdpError::Refused)?;
    Ok(MessageSessionAnswer {
        connect_to: message.connect_to(message.cema),
        peer_is_active: message.setup == OfferedSetup::Active,
        secure: message.secure,
        direction: message.direction,
        max_size_bytes: message.max_size_bytes,
        cema: message.cema,
        chatroom: message.chatroom,
        fingerprint: media.get_first_attribute_value("fingerprint").flatten().map(str::to_owned),
        mikey: message.key_management.as_ref().and_then(|k| k.mikey()).map(<[u8]>::to_vec),
        path: message.path,
        accept_types: message.accept_types,
    })
}

/// Reads what the answer to [`offer_for_message_session_and_floors`] says of floor control.
///
/// # Errors
/// The text is no session description, or the BFCP stream was refused in it or is not that of a floor
/// control server.
pub fn parse_floor_answer(text: &[u8]) -> Result<FloorStreamAnswer, SdpError> {
    let session = parse_session(text)?;
    let media = session.medias.iter().find(|media| FloorDescription::is_one(media));
    let media = media.ok_or(SdpError::Refused(Unservable::Disabled))?;
    let floor = FloorDescription::parse(&session, media, Half::Answer);
    let floor = floor.map_err(SdpError::Refused)?;
    let served = floor.conference_id.zip(floor.user_id);
    let (conference_id, user_id) = served.ok_or(SdpError::Refused(Unservable::FloorControl))?;
    Ok(FloorStreamAnswer {
        protocol: floor.protocol,
        connect_to: floor.remote(),
        peer_is_active: floor.setup == OfferedSetup::Active,
        connection: floor.connection,
        conference_id,
        user_id,
        mikey: floor.key_management.as_ref().and_then(|k| k.mikey()).map(<[u8]>::to_vec),
        floors: floor.floors,
    })
}
