//! Connection establishment for media anchoring (RFC 6714): who connects to which of the two
//! addresses that a description has, its path or its c= and m= lines.
//!
//! We never use a relay for our own end, so the criteria about ours cannot hold. There is no
//! resolver here: where one place is given as a name and the other as an address, equal ports count
//! as a match.

use std::net::SocketAddr;

use super::attributes::OfferedSetup;
use super::message::MessageDescription;
use super::uri::{Host, MsrpUri};

/// What an offerer makes of an answer (RFC 6714 section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchoring {
    /// Whoever connects to the answerer connects to its c= and m= lines.
    ConnectionLine,
    /// To its path, as RFC 4975 has it.
    Path,
    /// The offer has to be made again, without `a=msrp-cema`.
    OfferAgain,
}

impl MessageDescription {
    /// Section 4.3: whether our answer has `a=msrp-cema`, unless the operator has switched it off.
    /// It has, also where the offer has not, except where a relay on the other side will connect.
    #[must_use]
    pub fn answer_with_cema(&self) -> bool {
        !(self.behind_relay() && self.setup == OfferedSetup::Active)
    }

    /// Section 4.3: without `a=msrp-cema` in the offer a difference means that a middlebox moved
    /// the c-line and will not move the path. The offer is to be rejected.
    #[must_use]
    pub fn is_moved_without_cema(&self) -> bool {
        !self.cema && !self.addresses_match()
    }

    /// Where to connect if we are active: to c= and m= under CEMA, else to the path. `None`: a
    /// domain name, or no port.
    #[must_use]
    pub fn connect_to(&self, cema: bool) -> Option<SocketAddr> {
        let first = self.first_uri();
        let (host, port) = if cema {
            (&self.connection_host, self.connection_port)
        } else {
            (&first.host, first.port?)
        };
        match host {
            Host::Ip(address) => Some(SocketAddr::new(*address, port)),
            Host::Name(_) => None,
        }
    }

    /// Section 4.2 applied to this answer. `offered`: our offer had `a=msrp-cema`.
    pub(super) fn anchoring(&self, offered: bool) -> Anchoring {
        if !offered {
            return Anchoring::Path;
        }
        if self.cema {
            return Anchoring::ConnectionLine;
        }
        let offerer_is_passive = self.setup == OfferedSetup::Active;
        match (self.addresses_match(), offerer_is_passive, self.behind_relay()) {
            // Criteria 1 and 3.
            (false, true, _) | (false, false, true) => Anchoring::OfferAgain,
            (true, _, true) => Anchoring::Path,
            (true, _, false) | (false, false, false) => Anchoring::ConnectionLine,
        }
    }

    /// Section 4.4, against any URI of the path: RFC 4975 section 8.1 has the endpoint's own URI in
    /// c= and m=, which is the last one, CEMA that of the relay, which is the first.
    fn addresses_match(&self) -> bool {
        self.uris.iter().any(|uri| self.address_matches(uri))
    }

    fn address_matches(&self, uri: &MsrpUri) -> bool {
        let hosts_match = match (&self.connection_host, &uri.host) {
            (Host::Ip(connection), Host::Ip(path)) => connection == path,
            (Host::Name(connection), Host::Name(path)) => connection == path,
            (Host::Ip(_), Host::Name(_)) | (Host::Name(_), Host::Ip(_)) => true,
        };
        // RFC 6135 section 4.2.2: an active end should write port 9 in its m-line.
        let discard = self.setup == OfferedSetup::Active && self.connection_port == PORT_DISCARD;
        hosts_match && (discard || Some(self.connection_port) == uri.port)
    }
}

/// The discard port: "no port here" (RFC 4145 section 4.1).
const PORT_DISCARD: u16 = 9;
