//! Keys of protected sessions: MIKEY-TICKET in mode 3, where the UE makes its own ticket under a
//! key it shares with the KMS (RFC 6043 section 4.1.1).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use control_api::mikey::{Error, Initiator, NtpTime, Parameters, TicketProtectionKey};
use mrfp_protocol::tls::{Authorities, Fingerprint, Profile, ProfileConfig, Psk};
use zeroize::Zeroizing;

/// What protects one session.
#[derive(Debug)]
pub enum Protection {
    /// Nothing.
    Plain,
    /// Identity and key.
    Psk(Vec<u8>, Psk),
    /// The node's certificate is one of these (`a=fingerprint`).
    Certificate(Vec<Fingerprint>),
}

/// TLS in which the node shows a certificate that its answer has announced.
pub fn certificate_profile() -> io::Result<Arc<Profile>> {
    let profile = crate::wire::plan::certificate_profile(Authorities::web(), &[]);
    profile.map(Arc::new).map_err(io::Error::other)
}

/// What the whole fleet shares.
pub struct Credential {
    parameters: Parameters,
    ticket_key: TicketProtectionKey,
    kms_uri: String,
    profile: Arc<Profile>,
}

/// Options about the KMS.
#[derive(clap::Args, Clone)]
pub struct KmsOptions {
    /// Key under which the UEs make their tickets, as the node's KMS knows it. The default is the
    /// development key of a node without configuration.
    #[arg(long = "kms-tpk", value_name = "ID:HEX", value_parser = parse_ticket_key,
        default_value = DEVELOPMENT_TICKET_KEY, hide_default_value = true)]
    pub ticket_key: TicketKey,

    /// URI of the KMS, named in the tickets.
    #[arg(long, value_name = "URI", default_value = "sip:kms@localhost")]
    pub kms_uri: String,
}

/// A ticket protection key and its name.
#[derive(Clone)]
pub struct TicketKey(TicketProtectionKey);

/// `mrf` without a configuration file knows this key; it is public, and `mrf` refuses it wherever
/// it listens beyond loopback. In words: "MRF tickets: dev".
const DEVELOPMENT_TICKET_KEY: &str = "development-tpk:4d5246207469636b6574733a20646576";

/// A key exchange whose TRANSFER_INIT is on its way.
pub struct KeyExchange(Initiator);

impl Credential {
    /// Prepares. An error means that TLS could not be set up on this machine.
    pub fn new(options: &KmsOptions) -> io::Result<Self> {
        let profile = Profile::new(&ProfileConfig::default())
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(Self {
            parameters: Parameters::default(),
            ticket_key: options.ticket_key.0.clone(),
            kms_uri: options.kms_uri.clone(),
            profile: Arc::new(profile),
        })
    }

    /// TLS parameters.
    #[must_use]
    pub fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.profile)
    }

    /// Begins a key exchange: TRANSFER_INIT for the offer.
    pub fn begin(&self, from: &str, to: &str) -> Result<(KeyExchange, Vec<u8>), Error> {
        let mut random = |bytes: &mut [u8]| {
            getrandom::fill(bytes).expect("the system has randomness since it has booted");
        };
        let (initiator, message) = Initiator::with_own_ticket(
            &self.parameters,
            from,
            to,
            &self.kms_uri,
            &self.ticket_key,
            now(),
            &mut random,
        )?;
        Ok((KeyExchange(initiator), message))
    }
}

impl KeyExchange {
    /// Takes TRANSFER_RESP of the answer: the TLS identity and key, or in words why not.
    pub fn finish(self, transfer_response: &[u8]) -> Result<(Vec<u8>, Psk), String> {
        match self.0.finish(transfer_response, now()) {
            Ok(established) => Ok((established.psk_identity.into_bytes(), established.psk)),
            Err(error) => Err(format!("key exchange: {error:?}")),
        }
    }
}

impl fmt::Debug for KmsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsOptions")
            .field("ticket_key", &self.ticket_key.0)
            .field("kms_uri", &self.kms_uri)
            .finish()
    }
}

fn now() -> NtpTime {
    NtpTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn parse_ticket_key(text: &str) -> Result<TicketKey, String> {
    let (identity, digits) = text.split_once(':').ok_or("it must be ID:HEX")?;
    let key = parse_hex(digits.as_bytes());
    let key = key.ok_or("the key must be in hex digits")?;
    if !matches!(key.len(), 16 | 32) {
        return Err("the key must have 16 or 32 bytes".to_owned());
    }
    Ok(TicketKey(TicketProtectionKey { identity: identity.as_bytes().to_vec(), key }))
}

/// Bytes of a key in hex digits.
pub(crate) fn parse_hex(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    bytes.map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_development_key() {
        let TicketKey(key) = parse_ticket_key(DEVELOPMENT_TICKET_KEY).unwrap();
        assert_eq!(key.identity, b"development-tpk");
        assert_eq!(key.key.as_slice(), b"MRF tickets: dev");
    }

    #[test]
    fn refuses_what_is_no_key() {
        for text in ["x", "x:", "x:12", "x:zz", "x:4d5246207469636b6574733a2064657"] {
            assert!(parse_ticket_key(text).is_err(), "{text}");
        }
    }
}
