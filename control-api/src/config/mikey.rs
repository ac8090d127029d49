//! Section `[mikey]`: the values 3GPP has assigned, the readings of RFC 6043, and the keys we share with
//! others than the KMS that resolves for us. `docs/mikey.md` says what each is about.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Check, Finding, Step, ensure};
use super::kms_keys::check_key_bytes;
use super::{Config, KmsMode, Secret, UriPattern};
use crate::mikey::Parameters;
use crate::mikey::codec::code_point;
use crate::mikey::{Authorities, KeyPair};

/// Section `[mikey]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mikey {
    /// MIKEY protocol type that stands for TLS. IANA has assigned none and TS 33.328 Annex H.3 is
    /// where 3GPP says it, so it must be settable; the default lies in the private range 241-255.
    pub prot_type_tls: u8,
    /// Protocol types that stand for TLS in what callers send.
    pub prot_types_accepted: Vec<u8>,
    /// CS ID of the one crypto session we offer.
    pub crypto_session_id: u8,
    /// Number of the security policy we offer.
    pub security_policy_number: u8,
    /// Content of that policy, hex: type, length, value triples.
    pub security_policy_parameters: Hex,
    /// What the TLS client calls itself.
    pub psk_identity: PskIdentity,
    /// ID type of the identities we send (RFC 3830 section 6.7).
    pub identity_type: u8,
    /// Length of the TLS pre-shared key; that of the TGK it is derived from where not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_key_bytes: Option<usize>,
    /// Type of the tickets we make or ask for (RFC 6043 section 6.10).
    pub ticket_type: u16,
    /// Their subtype.
    pub ticket_subtype: u8,
    /// Their version.
    pub ticket_version: u8,
    /// Ticket types taken.
    pub ticket_types_accepted: Vec<u16>,
    /// Algorithms of what we begin.
    pub suite: MikeySuite,
    /// Algorithms taken in what we receive.
    pub suites_accepted: Vec<MikeySuite>,
    /// Validity of the tickets we make or ask for.
    pub ticket_lifetime_seconds: u64,
    /// How far a peer's timestamp may be from ours (RFC 3830 section 5.4).
    pub clock_skew_seconds: u64,
    /// Messages remembered against replay; where there are so many, nothing more is accepted.
    pub replay_cache_entries_max: usize,
    /// Senders whose COUNTER timestamps are followed, each for ever.
    pub counter_senders_max: usize,
    /// Resolved tickets that are remembered, for those that may be used again.
    pub resolved_tickets_max: usize,
    /// Send the list of protocols, against bidding down (RFC 4567 section 4.1.4.1).
    pub send_sdp_ids: bool,
    /// Refuse tickets that want no TRANSFER_RESP.
    pub transfer_response_required: bool,
    /// As responder, choose the session key where the ticket allows it.
    pub responder_session_keys: bool,
    /// The timestamp that enters the IV of KEMAC in responses.
    pub response_iv_time: IvTime,
    /// The MAC of TRANSFER_RESP covers the Initiator Data in TRANSFER_INIT.
    pub response_covers_initiator_data: bool,
    /// Next-payload field of Vi in Initiator Data.
    pub initiator_proof_next: u8,
    /// Set the V flag where an answer is due.
    pub send_response_wanted: bool,
    /// Give MPKs an SPI.
    pub spi_on_message_protection_keys: bool,
    /// Take only what is sent as we would send it.
    pub strict: bool,
    /// Keys of tickets that are opened without a KMS.
    #[serde(rename = "ticket_key", skip_serializing_if = "Vec::is_empty")]
    pub ticket_keys: Vec<MikeyTicketKey>,
    /// Proves to the KMS who asks, in place of a key shared with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<MikeyCertificate>,
}

/// `mikey.suite`: algorithms that belong together (RFC 6043 section 12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum MikeySuite {
    /// AES-CM-128, HMAC-SHA-1-160, MIKEY-1.
    #[serde(rename = "aes-128")]
    Aes128,
    /// AES-CM-256, HMAC-SHA-256-256, PRF-HMAC-SHA-256.
    #[serde(rename = "aes-256")]
    Aes256,
}

/// `mikey.psk_identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum PskIdentity {
    /// CSB ID in hex, a dot, CS ID.
    #[serde(rename = "csb-id.cs-id")]
    CsbIdAndCsId,
    /// CSB ID in hex.
    #[serde(rename = "csb-id")]
    CsbId,
}

/// `mikey.response_iv_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IvTime {
    /// T of the response itself.
    Response,
    /// T of the message it answers.
    Initial,
}

/// One `[[mikey.ticket_key]]`: a ticket protection key for tickets that no KMS is asked about.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MikeyTicketKey {
    /// Name of the key in tickets (IDRpsk).
    pub id: String,
    /// The key, hex.
    #[serde(skip_serializing)]
    pub key: Secret,
    /// Who else has it.
    pub shared_with: SharedWith,
    /// Whose tickets it protects where users make them: as whom they may call, and who can be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UriPattern>,
}

/// `shared_with` of a `[[mikey.ticket_key]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SharedWith {
    /// The KMS: it makes the tickets, and vouches for their initiators (mode 2).
    Kms,
    /// Users: they and we make tickets for one another (mode 4).
    Users,
}

/// Section `[mikey.certificate]`: ticket requests and resolves are signed (RFC 6043 section 4.2.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MikeyCertificate {
    /// PEM file: our own certificate first, then those that lead to its authority.
    pub chain: PathBuf,
    /// PEM file with the certificate's private key, RSA.
    pub key: PathBuf,
    /// PEM file with the certificate of the KMS, whom the keys of answers are enclosed for.
    pub kms: PathBuf,
}

/// Bytes, written as hex in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Default for Mikey {
    fn default() -> Self {
        let parameters = Parameters::default();
        Self {
            prot_type_tls: parameters.protection_type_tls,
            prot_types_accepted: parameters.accepted_protection_types_tls,
            crypto_session_id: parameters.crypto_session_id,
            security_policy_number: parameters.security_policy_number,
            security_policy_parameters: Hex(parameters.security_policy_parameters),
            psk_identity: PskIdentity::CsbIdAndCsId,
            identity_type: parameters.identity_type,
            traffic_key_bytes: parameters.traffic_key_bytes,
            ticket_type: parameters.ticket_type,
            ticket_subtype: parameters.ticket_subtype,
            ticket_version: parameters.ticket_version,
            ticket_types_accepted: parameters.accepted_ticket_types,
            suite: MikeySuite::Aes128,
            suites_accepted: vec![MikeySuite::Aes128, MikeySuite::Aes256],
            ticket_lifetime_seconds: parameters.ticket_lifetime.as_secs(),
            clock_skew_seconds: parameters.clock_skew_max.as_secs(),
            replay_cache_entries_max: parameters.replay_cache_entries_max,
            counter_senders_max: parameters.counter_senders_max,
            resolved_tickets_max: parameters.resolved_tickets_max,
            send_sdp_ids: parameters.send_sdp_ids,
            transfer_response_required: parameters.transfer_response_required,
            responder_session_keys: parameters.responder_session_keys,
            response_iv_time: IvTime::Response,
            response_covers_initiator_data: parameters.response_covers_initiator_data,
            initiator_proof_next: parameters.initiator_proof_next,
            send_response_wanted: parameters.send_response_wanted,
            spi_on_message_protection_keys: parameters.spi_on_message_protection_keys,
            strict: parameters.strict,
            ticket_keys: Vec::new(),
            certificate: None,
        }
    }
}

impl MikeyCertificate {
    /// Reads the files: what we sign with, and the certificate of the KMS, DER.
    ///
    /// # Errors
    /// Which setting is wrong, and how.
    pub fn load(&self) -> Result<(KeyPair, Vec<u8>), (&'static str, String)> {
        let own = load_key_pair(&self.chain, &self.key)?;
        let read = |path| super::kms::certificates(path).map_err(|why| ("kms", why));
        let kms = read(&self.kms)?.swap_remove(0).to_vec();
        // One that nothing can be enclosed for is found out here and not with the first call.
        Authorities::check_recipient(&kms)
            .map_err(|error| ("kms", format!("{}: {error}", self.kms.display())))?;
        Ok((own, kms))
    }
}

/// A certificate with its key, and the setting to blame where they are none.
pub(super) fn load_key_pair(
    chain: &std::path::Path,
    key: &std::path::Path,
) -> Result<KeyPair, (&'static str, String)> {
    let read = |setting, path: &std::path::Path| {
        std::fs::read(path)
            .map(zeroize::Zeroizing::new)
            .map_err(|error| (setting, format!("{}: {error}", path.display())))
    };
    let (chain_pem, key_pem) = (read("chain", chain)?, read("key", key)?);
    let wrong = |error: crate::mikey::Error| ("chain", format!("{}: {error}", chain.display()));
    KeyPair::from_pem(&chain_pem, &key_pem).map_err(wrong)
}

impl Config {
    pub(super) fn check_mikey(&self) -> Check {
        let mikey = &self.mikey;
        // RFC 3830 section 10: 0 is SRTP, 1 was given to TESLA, the rest of the registry is free.
        ensure(
            mikey.prot_type_tls >= 2,
            &["mikey", "prot_type_tls"],
            || "MIKEY protocol types 0 and 1 stand for SRTP and TESLA".to_owned(),
            || "use the value your UEs use; 241 to 255 is for private use".to_owned(),
        )?;
        ensure(
            !mikey.prot_types_accepted.is_empty(),
            &["mikey", "prot_types_accepted"],
            || "no offer of TLS could be accepted".to_owned(),
            || "list the values your UEs send".to_owned(),
        )?;
        ensure(
            is_policy(&mikey.security_policy_parameters.0),
            &["mikey", "security_policy_parameters"],
            || "not whole type, length, value triples, or longer than 1 KiB".to_owned(),
            || "write each as type and length in one byte and the value, in hex".to_owned(),
        )?;
        ensure(
            mikey.traffic_key_bytes.is_none_or(|bytes| KEY_BYTES.contains(&bytes)),
            &["mikey", "traffic_key_bytes"],
            || "no length of a pre-shared key".to_owned(),
            || "use 16 to 64 bytes, or leave it out for that of the ticket's key".to_owned(),
        )?;
        ensure(
            mikey.ticket_types_accepted.contains(&mikey.ticket_type),
            &["mikey", "ticket_types_accepted"],
            || format!("ticket type {}, which we make, would not be taken", mikey.ticket_type),
            || "list mikey.ticket_type, too".to_owned(),
        )?;
        ensure(
            mikey.suites_accepted.contains(&mikey.suite),
            &["mikey", "suites_accepted"],
            || "the suite that we use would not be taken".to_owned(),
            || "list mikey.suite, too".to_owned(),
        )?;
        for (name, seconds, least, most) in [
            ("ticket_lifetime_seconds", mikey.ticket_lifetime_seconds, 60, LIFETIME_SECONDS_MAX),
            ("clock_skew_seconds", mikey.clock_skew_seconds, 1, SKEW_SECONDS_MAX),
        ] {
            ensure(
                (least..=most).contains(&seconds),
                &["mikey", name],
                || format!("{seconds} seconds is outside {least} to {most}"),
                || "a ticket lives for minutes to days; clocks differ by seconds".to_owned(),
            )?;
        }
        ensure(
            mikey.replay_cache_entries_max > 0,
            &["mikey", "replay_cache_entries_max"],
            || "without memory of replays no message could be accepted".to_owned(),
            || "allow two clock skews' worth of calls".to_owned(),
        )?;
        ensure(
            matches!(mikey.initiator_proof_next, code_point::LAST | code_point::V),
            &["mikey", "initiator_proof_next"],
            || format!("payload {} cannot follow Vi", mikey.initiator_proof_next),
            || "use 9, as Vr follows, or 0, as in TRANSFER_INIT".to_owned(),
        )?;
        self.check_mikey_ticket_keys()?;
        self.check_mikey_certificate()
    }

    fn check_mikey_ticket_keys(&self) -> Check {
        let keys = &self.mikey.ticket_keys;
        for (index, key) in keys.iter().enumerate() {
            let finding = |name, message: String, remedy: &str| {
                let path = ["mikey", "ticket_key"].map(Step::Name);
                let path = path.into_iter().chain([Step::Index(index), Step::Name(name)]);
                Err(Finding { path: path.collect(), message, remedy: remedy.to_owned() })
            };
            check_key_bytes(&key.key, || {
                ["mikey", "ticket_key"]
                    .map(Step::Name)
                    .into_iter()
                    .chain([Step::Index(index), Step::Name("key")])
                    .collect()
            })?;
            if keys[..index].iter().any(|earlier| earlier.id == key.id) {
                let message = format!("a second key named {:?}", key.id);
                return finding("id", message, "give each key its own id: tickets name keys by it");
            }
            match key.shared_with {
                SharedWith::Users if key.users.is_empty() => {
                    let remedy = "list in `users` as whom its other owners may call";
                    return finding("shared_with", "a key of nobody".to_owned(), remedy);
                }
                SharedWith::Kms if !key.users.is_empty() => {
                    let message = "the KMS vouches for everybody it makes a ticket for".to_owned();
                    return finding("users", message, "leave `users` out");
                }
                SharedWith::Users | SharedWith::Kms => {}
            }
        }
        Ok(())
    }

    fn check_mikey_certificate(&self) -> Check {
        let Some(certificate) = &self.mikey.certificate else { return Ok(()) };
        ensure(
            self.kms.mode == KmsMode::Remote,
            &["mikey", "certificate"],
            || "the KMS in the node is not asked by messages".to_owned(),
            || "set kms.mode = \"remote\", or leave the certificate out".to_owned(),
        )?;
        certificate.load().map(|_| ()).map_err(|(setting, message)| Finding {
            path: ["mikey", "certificate", setting].map(Step::Name).to_vec(),
            message,
            remedy: CERTIFICATE_REMEDY.to_owned(),
        })
    }
}

pub(super) const CERTIFICATE_REMEDY: &str = "name PEM files this user may read, with RSA keys of \
    2048 bits or more; a subjectAltName of the certificate has to be the URI of its owner";

/// Whole triples, and no longer than what is worth sending.
fn is_policy(mut bytes: &[u8]) -> bool {
    if bytes.len() > POLICY_BYTES_MAX {
        return false;
    }
    while let [_, length, rest @ ..] = bytes {
        let Some(next) = rest.get(usize::from(*length)..) else { return false };
        bytes = next;
    }
    bytes.is_empty()
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = Secret::from_hex(&text).map(|bytes| bytes.expose().to_vec());
        bytes.map(Self).ok_or_else(|| {
            serde::de::Error::custom("expected an even number of hexadecimal digits")
        })
    }
}

/// What [`crate::mikey`] takes for the key of a crypto session, and TLS for a pre-shared key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// See [`Parameters::security_policy_parameters`].
const POLICY_BYTES_MAX: usize = 1024;
/// A month.
const LIFETIME_SECONDS_MAX: u64 = 31 * 86_400;
/// Replays are remembered for twice this long.
const SKEW_SECONDS_MAX: u64 = 86_400;
