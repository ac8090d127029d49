//! Our own description of a session, written: the answer to an offer, or an offer of ours.

use std::net::SocketAddr;

use mrfp_core::mp::Direction;
use mrfp_protocol::tls::Fingerprint;
use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};

use super::MediaLine;
use super::attributes::{KeyManagementLevel, OfferedSetup, direction_name};
use super::chatroom::Chatroom;
use super::local_floor::LocalFloor;
use super::message::{PROTOCOL_PLAIN, PROTOCOL_TLS};

/// Everything a description says but its version, so that two of them can be compared: the version
/// goes up by one exactly when something else changes (RFC 3264 section 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalDescription {
    /// sess-id of the o-line, constant for the life of the call.
    pub session_id: u64,
    /// Where the peer is to connect to.
    pub address: SocketAddr,
    /// The t-lines; an answer repeats those of the offer.
    pub times: Vec<Time>,
    /// `a=key-mgmt` of the MSRP session, base64, and at which level; an answer has it where the offer had
    /// it.
    pub key_management: Option<(KeyManagementLevel, String)>,
    /// One entry per m-line, in the order of the offer.
    pub media: Vec<LocalMedia>,
}

/// One m-line of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalMedia {
    /// An MSRP session.
    Served(Box<LocalMessage>),
    /// A BFCP stream.
    Floor(Box<LocalFloor>),
    /// Port 0.
    Refused(MediaLine),
}

/// Our end of an MSRP session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalMessage {
    /// TCP/TLS/MSRP.
    pub secure: bool,
    /// `a=fingerprint`: of the certificate we show, where it is that which protects the session.
    pub fingerprint: Option<Fingerprint>,
    /// `a=label`, which a floor that is for the messages points to (RFC 8856 section 5.4).
    pub label: Option<String>,
    /// Session-id part of our URI.
    pub session_id: String,
    /// `a=setup`.
    pub setup: OfferedSetup,
    /// Direction as seen from our side.
    pub direction: Direction,
    /// `a=msrp-cema`.
    pub cema: bool,
    /// What we take.
    pub capabilities: Capabilities,
    /// Attributes of RFC 5547, where the session transfers a file.
    pub file: Vec<Attribute>,
}

/// What an end is ready to receive, as its description says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// `a=accept-types`.
    pub accept_types: String,
    /// `a=accept-wrapped-types`, left out where empty.
    pub accept_wrapped_types: String,
    /// `a=max-size`: the largest message it takes.
    pub max_size_bytes: Option<u64>,
    /// `a=chatroom`.
    pub chatroom: Option<Chatroom>,
}

impl LocalDescription {
    /// The text with this sess-version.
    #[must_use]
    pub fn to_bytes(&self, version: u64) -> Vec<u8> {
        let origin = Origin::with_ip_addr(self.session_id, version, self.address.ip());
        let mut session = Session::new(origin, "-");
        session.set_connection(Connection::from_ip_addr(self.address.ip()));
        session.add_times(self.times.iter().cloned());
        if let Some((KeyManagementLevel::Session, message)) = &self.key_management {
            session.add_attribute_with_value("key-mgmt", format!("mikey {message}"));
        }
        for media in &self.media {
            session.add_media(match media {
                LocalMedia::Served(message) => self.message_media(message),
                LocalMedia::Floor(floor) => floor.media(self.address.ip()),
                LocalMedia::Refused(line) => refused_media(line),
            });
        }
        let mut text = Vec::new();
        session.write(&mut text).expect("a Vec takes every write");
        text
    }

    /// RFC 6135 section 4.2.2 would have an active end write port 9. We write the port we listen
    /// on all the same: RFC 4975 section 8.1 wants the m-line to match the path, and CEMA takes a
    /// difference for the work of a middlebox (RFC 6714 section 4.2).
    fn message_media(&self, message: &LocalMessage) -> Media {
        let line = MediaLine::message(message.secure);
        let mut media = media_of(&line, self.address.port());
        let scheme = if message.secure { "msrps" } else { "msrp" };
        let mut add = |name: &str, value: &str| {
            media.add_attribute(Attribute::with_value(name, value));
        };
        add("setup", message.setup.as_str());
        let capabilities = &message.capabilities;
        add("accept-types", &capabilities.accept_types);
        if !capabilities.accept_wrapped_types.is_empty() {
            add("accept-wrapped-types", &capabilities.accept_wrapped_types);
        }
        if let Some(max_size_bytes) = capabilities.max_size_bytes {
            add("max-size", &max_size_bytes.to_string());
        }
        add("path", &format!("{scheme}://{}/{};tcp", self.address, message.session_id));
        media.add_attribute(Attribute::new(direction_name(message.direction)));
        if let Some(label) = &message.label {
            media.add_attribute(Attribute::with_value("label", label));
        }
        if message.cema {
            media.add_attribute(Attribute::new("msrp-cema"));
        }
        if let Some(chatroom) = capabilities.chatroom {
            media.add_attribute(chatroom.attribute());
        }
        for attribute in &message.file {
            media.add_attribute(attribute.clone());
        }
        if let Some(fingerprint) = &message.fingerprint {
            let value = fingerprint.to_string();
            media.add_attribute(Attribute::with_value("fingerprint", value));
        }
        if let Some((KeyManagementLevel::Media, message)) = &self.key_management {
            media.add_attribute(Attribute::with_value("key-mgmt", format!("mikey {message}")));
        }
        media
    }
}

impl MediaLine {
    /// The m-line of an MSRP session.
    #[must_use]
    pub fn message(secure: bool) -> Self {
        Self {
            media: "message".to_owned(),
            protocol: if secure { PROTOCOL_TLS } else { PROTOCOL_PLAIN }.to_owned(),
            format: "*".to_owned(),
            file: Vec::new(),
        }
    }
}

fn refused_media(line: &MediaLine) -> Media {
    let mut media = media_of(line, 0);
    for attribute in &line.file {
        media.add_attribute(attribute.clone());
    }
    media
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
