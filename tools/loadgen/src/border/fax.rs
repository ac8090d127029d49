//! Fax through a border: a UE that speaks UDPTL over DTLS with a certificate of its own, a core peer that
//! speaks UDPTL; both ends of each call are links of one run without SIP.

use std::net::SocketAddr;

use mrfp_protocol::tls::Fingerprint;

use super::{Media, Side, sdp};
use crate::wire::{Invitation, Lobby, Stream};

/// The streams of all calls.
pub(crate) struct Fax {
    lobby: Lobby,
    /// Of the UEs in turn, as the links have certificates.
    fingerprints: Vec<Fingerprint>,
    run: u32,
    bit_rate: u32,
}

impl Fax {
    pub(crate) fn new(
        lobby: Lobby,
        fingerprints: Vec<Fingerprint>,
        run: u32,
        bit_rate: u32,
    ) -> Self {
        Self { lobby, fingerprints, run, bit_rate }
    }

    fn address(&self, call: u32, side: Side) -> SocketAddr {
        self.lobby.bound(link(call, side)).expect("every end is bound before the first call")
    }

    fn describe(&self, call: u32, side: Side, is_offer: bool) -> Vec<u8> {
        let known_by = &self.fingerprints[call as usize % self.fingerprints.len()];
        let known_by = format!("fingerprint:{known_by}");
        let bit_rate = format!("T38MaxBitRate:{}", self.bit_rate);
        let mut attributes = vec!["T38FaxVersion:3", &bit_rate, "T38FaxMaxDatagram:1400"];
        attributes.extend(["T38FaxRateManagement:transferredTCF", "T38FaxUdpEC:t38UDPRedundancy"]);
        let association = format!("tls-id:mrf-load-{:08x}{call:08x}", self.run);
        let media = match side {
            Side::Access => {
                // RFC 8842 section 5: who offers leaves it to the other who is client.
                attributes.push(if is_offer { "setup:actpass" } else { "setup:active" });
                attributes.extend([known_by.as_str(), &association]);
                attributes.extend(is_offer.then_some("3ge2ae:requested"));
                "image UDP/TLS/UDPTL t38"
            }
            Side::Core => "image udptl t38",
        };
        sdp::write(self.address(call, side), media, &attributes)
    }

    fn admit(&self, call: u32, side: Side, said: &[u8]) -> Result<(), String> {
        let described = sdp::read(said)?;
        let fingerprint = match side {
            Side::Access if described.setup.as_deref() == Some("active") => {
                return Err("the border wants to be client of DTLS as well".to_owned());
            }
            Side::Access => Some(described.fingerprint.ok_or("no fingerprint that can be read")?),
            Side::Core => None,
        };
        let is_protected = described.protocol.eq_ignore_ascii_case("UDP/TLS/UDPTL");
        if is_protected != (side == Side::Access) {
            return Err(format!("{} is not what belongs on this side", described.protocol));
        }
        let address = described.address;
        let invitation = Invitation { address, psk: None, fingerprint, stream: Stream::Fax };
        self.lobby.admit(link(call, side), invitation);
        Ok(())
    }
}

/// Even links are on the access side.
fn link(call: u32, side: Side) -> u32 {
    2 * call + u32::from(side == Side::Core)
}

impl Media for Fax {
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
