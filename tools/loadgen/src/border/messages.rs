//! Messages through a border: a UE that connects over TLS with a certificate of its own, a core peer that
//! connects over TCP; both ends of each call are links of one run without SIP.

use std::net::{IpAddr, SocketAddr};

use mrfp_protocol::tls::{Fingerprint, Identity};

use super::{Media, Side, sdp};
use crate::wire::plan::own_identity;
use crate::wire::{Invitation, Lobby, Stream};

/// The streams of all calls.
pub(crate) struct Messages {
    lobby: Lobby,
    /// Of the UEs in turn, as the links have certificates.
    fingerprints: Vec<Fingerprint>,
    /// Session-ids of this run.
    run: u32,
    access: IpAddr,
    core: IpAddr,
    /// UEs and core peers know CEMA (RFC 6714).
    cema: bool,
}

/// Certificates of the fleet; more UEs than that share them.
pub(crate) fn identities(sessions: u32) -> Vec<Identity> {
    (0..sessions.min(CERTIFICATES_MAX)).map(|_| own_identity()).collect()
}

/// More are no other load.
pub(crate) const CERTIFICATES_MAX: u32 = 256;
/// Both ends connect and listen nowhere: RFC 4145 section 4.1.
const DISCARD_PORT: u16 = 9;

impl Messages {
    pub(crate) fn new(
        lobby: Lobby,
        identities: &[Identity],
        run: u32,
        (access, core): (IpAddr, IpAddr),
        cema: bool,
    ) -> Self {
        let fingerprints = identities.iter().map(Identity::fingerprint).collect();
        Self { lobby, fingerprints, run, access, core, cema }
    }

    fn path(&self, call: u32, side: Side) -> String {
        let (scheme, ip, letter) = match side {
            Side::Access => ("msrps", self.access, 'a'),
            Side::Core => ("msrp", self.core, 'c'),
        };
        let address = SocketAddr::new(ip, DISCARD_PORT);
        format!("{scheme}://{address}/{letter}{:08x}{call:08x};tcp", self.run)
    }

    fn describe(&self, call: u32, side: Side, is_offer: bool) -> Vec<u8> {
        let path = format!("path:{}", self.path(call, side));
        let known_by = &self.fingerprints[call as usize % self.fingerprints.len()];
        let known_by = format!("fingerprint:{known_by}");
        let mut attributes = vec![path.as_str(), "accept-types:text/plain", "setup:active"];
        let (ip, media) = match side {
            Side::Access => (self.access, "message TCP/TLS/MSRP *"),
            Side::Core => (self.core, "message TCP/MSRP *"),
        };
        if side == Side::Access {
            attributes.push(&known_by);
            // TS 24.229 clause 6.1.2: only who offers asks for it.
            attributes.extend(is_offer.then_some("3ge2ae:requested"));
        }
        attributes.extend(self.cema.then_some("msrp-cema"));
        sdp::write(SocketAddr::new(ip, DISCARD_PORT), media, &attributes)
    }

    /// The end on one side of a call connects where the border has said.
    fn admit(&self, call: u32, side: Side, said: &[u8]) -> Result<(), String> {
        let described = sdp::read(said)?;
        if described.setup.as_deref() == Some("active") {
            return Err("the border wants to connect as well".to_owned());
        }
        let fingerprint = match side {
            Side::Access => Some(described.fingerprint.ok_or("no fingerprint that can be read")?),
            Side::Core => None,
        };
        let is_protected = described.protocol.eq_ignore_ascii_case("TCP/TLS/MSRP");
        if is_protected != (side == Side::Access) {
            return Err(format!("{} is not what belongs on this side", described.protocol));
        }
        let to_path = described.path.ok_or("no a=path")?;
        let invitation = Invitation {
            address: described.address,
            psk: None,
            fingerprint,
            stream: Stream::Messages { to_path, from_path: self.path(call, side) },
        };
        self.lobby.admit(link(call, side), invitation);
        Ok(())
    }
}

/// Even links are on the access side.
fn link(call: u32, side: Side) -> u32 {
    2 * call + u32::from(side == Side::Core)
}

impl Media for Messages {
    fn offer(&mut self, call: u32, side: Side) -> Vec<u8> {
        self.describe(call, side, true)
    }

    fn answer(&mut self, call: u32, side: Side, offer: &[u8]) -> Result<Vec<u8>, String> {
        self.admit(call, side, offer)?;
        Ok(self.describe(call, side, false))
    }

    fn answered(&mut self, call: u32, side: Side, answer: &[u8]) -> Result<(), String> {
        self.admit(call, side, answer)
    }

    fn dismiss(&mut self, call: u32, side: Side) {
        self.lobby.dismiss(link(call, side));
    }

    fn is_served(&self) -> bool {
        self.lobby.is_served()
    }

    fn close(&mut self) {
        self.lobby.close();
    }
}
