//! An SDP answer, written.

use std::net::SocketAddr;

use mrfp_core::mp::Direction;
use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};

use super::MediaLine;
use super::attributes::{KeyManagementLevel, direction_name, reversed};
use super::message::{PROTOCOL_PLAIN, PROTOCOL_TLS};

/// Everything an answer says but its version, so that two answers can be compared: the version
/// goes up by one exactly when something else changes (RFC 3264 section 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerDescription {
    /// sess-id of the o-line, constant for the life of the call.
    pub session_id: u64,
    /// Where the peer is to connect to.
    pub address: SocketAddr,
    /// The t-lines of the offer.
    pub times: Vec<Time>,
    /// The answer to `a=key-mgmt`, base64, at the level where the offer had it.
    pub key_management: Option<(KeyManagementLevel, String)>,
    /// One entry per m-line of the offer, in order.
    pub media: Vec<AnswerMedia>,
}

/// The answer to one m-line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerMedia {
    /// An MSRP session.
    Served(ServedMessage),
    /// Port 0.
    Refused(MediaLine),
}

/// Our end of an MSRP session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServedMessage {
    /// TCP/TLS/MSRP.
    pub secure: bool,
    /// Session-id part of our URI.
    pub session_id: String,
    /// We connect.
    pub active: bool,
    /// Direction as the offer had it; the answer says it from our side.
    pub offered_direction: Direction,
    /// `a=msrp-cema`.
    pub cema: bool,
    /// `a=max-size`: the largest message the media plane takes.
    pub max_size_bytes: Option<u64>,
}

impl AnswerDescription {
    /// The text with this sess-version.
    #[must_use]
    pub fn to_bytes(&self, version: u64) -> Vec<u8> {
        let mut origin = Origin::with_ip_addr(self.session_id, version, self.address.ip());
        origin.set_username("mrfc");
        let mut session = Session::new(origin, "-");
        session.set_connection(Connection::from_ip_addr(self.address.ip()));
        session.add_times(self.times.iter().cloned());
        if let Some((KeyManagementLevel::Session, message)) = &self.key_management {
            session.add_attribute_with_value("key-mgmt", format!("mikey {message}"));
        }
        for media in &self.media {
            session.add_media(match media {
                AnswerMedia::Served(served) => self.served_media(served),
                AnswerMedia::Refused(line) => media_of(line, 0),
            });
        }
        written(&session)
    }

    fn served_media(&self, served: &ServedMessage) -> Media {
        let mut media = media_of(
            &MediaLine {
                media: "message".to_owned(),
                protocol: if served.secure { PROTOCOL_TLS } else { PROTOCOL_PLAIN }.to_owned(),
                format: "*".to_owned(),
            },
            self.address.port(),
        );
        let scheme = if served.secure { "msrps" } else { "msrp" };
        let setup = if served.active { "active" } else { "passive" };
        let direction = reversed(served.offered_direction);
        media.add_attribute(Attribute::with_value("setup", setup));
        // RFC 7701 section 5.2: a room speaks message/cpim. `*` because what is inside the
        // wrapper, or comes from a plain client, is the recipients' business.
        media.add_attribute(Attribute::with_value("accept-types", "message/cpim *"));
        media.add_attribute(Attribute::with_value("accept-wrapped-types", "*"));
        if let Some(max_size_bytes) = served.max_size_bytes {
            media.add_attribute(Attribute::with_value("max-size", max_size_bytes.to_string()));
        }
        let path = format!("{scheme}://{}/{};tcp", self.address, served.session_id);
        media.add_attribute(Attribute::with_value("path", path));
        media.add_attribute(Attribute::new(direction_name(direction)));
        if served.cema {
            media.add_attribute(Attribute::new("msrp-cema"));
        }
        if let Some((KeyManagementLevel::Media, message)) = &self.key_management {
            media.add_attribute(Attribute::with_value("key-mgmt", format!("mikey {message}")));
        }
        media
    }
}

/// An m-line without attributes.
pub(super) fn media_of(line: &MediaLine, port: u16) -> Media {
    Media {
        media: line.media.clone(),
        port,
        num_ports: None,
        proto: line.protocol.clone(),
        fmt: line.format.clone(),
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    }
}

/// The text of a session description.
pub(super) fn written(session: &Session) -> Vec<u8> {
    let mut text = Vec::new();
    session.write(&mut text).expect("a Vec takes every write");
    text
}
