//! Our end of a BFCP stream, written (RFC 8856 section 10).

use std::net::{IpAddr, SocketAddr};

use mrfp_protocol::tls::Fingerprint;
use sdp_types::{Attribute, Connection, Media};

use super::attributes::OfferedSetup;
use super::floor::{ConnectionReuse, FloorMedia, FloorProtocol};
use super::local::media_of;
use super::offer::MediaLine;

/// Our end of a BFCP stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalFloor {
    /// What carries it.
    pub protocol: FloorProtocol,
    /// Where the peer connects or sends to.
    pub address: SocketAddr,
    /// `a=setup`, over TCP.
    pub setup: OfferedSetup,
    /// `a=connection`, over TCP.
    pub connection: ConnectionReuse,
    /// What a floor control server has to say; `None`: we are client.
    pub conference: Option<FloorConference>,
    /// `a=fingerprint`: of the certificate we show, where it is that which protects the stream.
    pub fingerprint: Option<Fingerprint>,
    /// The MIKEY message of its `a=key-mgmt`, base64.
    pub key_management: Option<String>,
}

/// What a floor control server tells its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorConference {
    /// `a=confid`.
    pub conference_id: u32,
    /// `a=userid`: who the client is.
    pub user_id: u16,
    /// `a=floorid`.
    pub floors: Vec<FloorMedia>,
}

impl LocalFloor {
    /// The m-line and what stands under it; the c-line of the session has `session_ip`.
    pub(super) fn media(&self, session_ip: IpAddr) -> Media {
        let over_tcp = self.protocol != FloorProtocol::Udp;
        let port = match self.setup {
            OfferedSetup::Active if over_tcp => PORT_DISCARD,
            _ => self.address.port(),
        };
        let mut media = media_of(&MediaLine::floor(self.protocol), port);
        if self.address.ip() != session_ip {
            media.add_connection(Connection::from_ip_addr(self.address.ip()));
        }
        let mut add = |name: &str, value: &str| {
            media.add_attribute(Attribute::with_value(name, value));
        };
        if over_tcp {
            add("setup", self.setup.as_str());
            add("connection", self.connection.as_str());
        }
        add("floorctrl", if self.conference.is_some() { "s-only" } else { "c-only" });
        if let Some(conference) = &self.conference {
            add("confid", &conference.conference_id.to_string());
            add("userid", &conference.user_id.to_string());
            for floor in &conference.floors {
                add("floorid", &floor.value());
            }
        }
        add("bfcpver", &self.protocol.version().to_string());
        if let Some(fingerprint) = &self.fingerprint {
            add("fingerprint", &fingerprint.to_string());
        }
        if let Some(message) = &self.key_management {
            add("key-mgmt", &format!("mikey {message}"));
        }
        media
    }
}

impl MediaLine {
    /// The m-line of a BFCP stream.
    #[must_use]
    pub fn floor(protocol: FloorProtocol) -> Self {
        Self {
            media: "application".to_owned(),
            protocol: protocol.as_str().to_owned(),
            format: "*".to_owned(),
            file: Vec::new(),
        }
    }
}

/// RFC 8856 section 4: whoever connects has no port to name.
const PORT_DISCARD: u16 = 9;
