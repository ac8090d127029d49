//! What protection adds to `b=AS` and `b=TIAS` (TS 23.334 clauses 5.11.2.2.1 and 5.11.2.3.1).
//!
//! A stream of B bits per second in packets of P bytes payload has B / 8P of them in a second, and every
//! one of them gets a record of its own in the worst case. `b=TIAS` (RFC 3890) counts the payload, so with
//! R bytes of record overhead it grows by (P + R) / P. `b=AS` counts IP and TCP or UDP headers of H bytes,
//! too, and grows by (P + H + R) / (P + H). Towards the UE it is rounded up, towards the core down, and
//! never below 1. Zero stays zero.

use super::read::Kind;

/// Mean payload of a packet, for each kind of media: the smaller, the more protection adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overhead {
    /// Bytes of an MSRP message, heads included, as it is sent in one record. A file comes in chunks of
    /// kilobytes, a chat message has some 300 bytes; the default lies between.
    pub msrp_payload_bytes: u32,
    /// Bytes of a BFCP message.
    pub bfcp_payload_bytes: u32,
    /// Bytes of a UDPTL datagram: at 14.4 kbit/s and 40 ms 72 bytes are new, and as much again or twice
    /// is redundancy.
    pub t38_payload_bytes: u32,
    /// What TLS adds to a record: header, explicit nonce and tag of AES-GCM in TLS 1.2 (5 + 8 + 16). In
    /// TLS 1.3 it is 22 (5 + 1 + 16); which one it will be is not known when the SDP is written.
    pub tls_record_bytes: u32,
    /// What DTLS adds to a datagram: header, explicit nonce and tag of AES-GCM in DTLS 1.2 (13 + 8 + 16).
    pub dtls_record_bytes: u32,
}

impl Default for Overhead {
    fn default() -> Self {
        Self {
            msrp_payload_bytes: 1_000,
            bfcp_payload_bytes: 40,
            t38_payload_bytes: 180,
            tls_record_bytes: 29,
            dtls_record_bytes: 37,
        }
    }
}

/// Which way a description goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Towards {
    /// To where the media is protected: protection is added.
    Protected,
    /// To where it is not: protection is subtracted.
    Plain,
}

impl Overhead {
    /// A `b=` line as it is on the other side; `None` where it is about something else.
    pub(super) fn changed(
        &self,
        line: &str,
        kind: Kind,
        is_ipv6: bool,
        towards: Towards,
    ) -> Option<String> {
        let (modifier, value) = line.strip_prefix("b=")?.split_once(':')?;
        let headers = match modifier {
            "AS" => kind.header_bytes(is_ipv6),
            "TIAS" => 0,
            _ => return None,
        };
        let (payload, record) = self.of(kind)?;
        let plain = u128::from(payload.max(1)) + u128::from(headers);
        let protected = plain + u128::from(record);
        let value = u128::from(value.trim().parse::<u64>().ok()?);
        let value = match towards {
            Towards::Protected => (value * protected).div_ceil(plain).min(u64::MAX.into()),
            // RFC 3264 section 5: zero says that nothing is to be sent, and only zero does.
            Towards::Plain => (value * plain / protected).max(value.min(1)),
        };
        Some(format!("b={modifier}:{value}"))
    }

    fn of(&self, kind: Kind) -> Option<(u32, u32)> {
        match kind {
            Kind::Msrp => Some((self.msrp_payload_bytes, self.tls_record_bytes)),
            Kind::Bfcp => Some((self.bfcp_payload_bytes, self.tls_record_bytes)),
            Kind::T38 => Some((self.t38_payload_bytes, self.dtls_record_bytes)),
            Kind::Other => None,
        }
    }
}

impl Kind {
    /// IP and TCP or UDP, without options.
    fn header_bytes(self, is_ipv6: bool) -> u32 {
        let transport = if self.is_datagrams() { 8 } else { 20 };
        transport + if is_ipv6 { 40 } else { 20 }
    }
}
