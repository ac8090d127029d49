//! The keys of section `[kms]`: who may ask, and what protects tickets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Check, Finding, Step, ensure};
use super::mikey::{CERTIFICATE_REMEDY, load_key_pair};
use super::{Config, KmsMode, Secret, UriPattern};
use crate::kms::PublicKeyService;
use crate::mikey::Authorities;

/// One `[[kms.user]]` or `[[kms.ticket_key]]`: a key somebody shares with the KMS.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsKey {
    /// Name of the key in messages (IDRpsk).
    pub id: String,
    /// The key, hex.
    #[serde(skip_serializing)]
    pub key: Secret,
    /// As whom its owner may act.
    pub may_act_as: Vec<UriPattern>,
    /// Requests of this user in a second, where it differs from the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second_max: Option<u32>,
}

/// One `[[kms.issuing_key]]`: protects the tickets that the KMS issues.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsIssuingKey {
    /// Name of the key in tickets (IDRpsk).
    pub id: String,
    /// The key, hex.
    #[serde(skip_serializing)]
    pub key: Secret,
}

/// One `[[kms.shared_ticket_key]]`: protects tickets that their responders open themselves (mode 2).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsSharedTicketKey {
    /// Name of the key in tickets (IDRpsk).
    pub id: String,
    /// The key, hex.
    #[serde(skip_serializing)]
    pub key: Secret,
    /// Everybody who has it.
    pub responders: Vec<UriPattern>,
}

/// Section `[kms.signed_requests]`: users with certificates (RFC 6043 section 4.2.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KmsSignedRequests {
    /// PEM file: the certificate of the KMS that keys are enclosed for.
    pub chain: PathBuf,
    /// PEM file with its private key, RSA.
    pub key: PathBuf,
    /// PEM files with certificates of the authorities of users.
    pub authorities: Vec<PathBuf>,
}

impl KmsSignedRequests {
    /// Reads the files.
    ///
    /// # Errors
    /// Which setting is wrong, and how.
    pub fn load(&self) -> Result<PublicKeyService, (&'static str, String)> {
        let own = load_key_pair(&self.chain, &self.key)?;
        let mut pem = Vec::new();
        for path in &self.authorities {
            let wrong = |why: String| ("authorities", format!("{}: {why}", path.display()));
            let file = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            Authorities::from_pem(&file).map_err(|error| wrong(error.to_string()))?;
            pem.extend(file);
            pem.push(b'\n');
        }
        let authorities = Authorities::from_pem(&pem);
        let authorities = authorities.map_err(|error| ("authorities", error.to_string()))?;
        Ok(PublicKeyService { own, authorities })
    }
}

impl Config {
    /// Keys that the node itself proves who it is with, or opens tickets with.
    pub(super) fn node_secrets(&self) -> impl Iterator<Item = &Secret> {
        let users = self.kms.users.iter().map(|user| &user.key);
        users.chain(self.mikey.ticket_keys.iter().map(|key| &key.key))
    }

    /// Keys that protect the tickets of a KMS.
    pub(super) fn kms_secrets(&self) -> impl Iterator<Item = &Secret> {
        let kms = &self.kms;
        let issuing = kms.issuing_keys.iter().map(|key| &key.key);
        let shared = kms.shared_ticket_keys.iter().map(|key| &key.key);
        kms.ticket_keys.iter().map(|key| &key.key).chain(issuing).chain(shared)
    }

    pub(super) fn check_kms(&self) -> Check {
        let kms = &self.kms;
        for (table, keys) in [("user", &kms.users), ("ticket_key", &kms.ticket_keys)] {
            for (index, key) in keys.iter().enumerate() {
                check_key_bytes(&key.key, || key_path(table, index, "key"))?;
                check_owners(&key.may_act_as, || key_path(table, index, "may_act_as"))?;
            }
        }
        for (index, key) in kms.issuing_keys.iter().enumerate() {
            check_key_bytes(&key.key, || key_path("issuing_key", index, "key"))?;
        }
        for (index, key) in kms.shared_ticket_keys.iter().enumerate() {
            check_key_bytes(&key.key, || key_path("shared_ticket_key", index, "key"))?;
            check_owners(&key.responders, || key_path("shared_ticket_key", index, "responders"))?;
        }
        let users = kms.users.iter().map(|user| ("user", user.id.as_str()));
        let tickets = kms.ticket_keys.iter().map(|key| ("ticket_key", key.id.as_str()));
        // By its name the KMS knows as whom the owner of a key may act.
        check_ids(users.chain(tickets.clone()))?;
        // What protects tickets is found by one name, whoever makes them.
        let issuing = kms.issuing_keys.iter().map(|key| ("issuing_key", key.id.as_str()));
        let shared =
            kms.shared_ticket_keys.iter().map(|key| ("shared_ticket_key", key.id.as_str()));
        check_ids(tickets.chain(issuing).chain(shared))?;
        self.check_signed_requests()?;
        ensure(
            self.mikey.certificate.is_some()
                || kms.users.iter().any(|user| user.id == kms.resolver),
            &["kms", "resolver"],
            || format!("no [[kms.user]] has the id {:?}", kms.resolver),
            || "name the key with which the node has tickets resolved".to_owned(),
        )
    }

    fn check_signed_requests(&self) -> Check {
        let Some(signed) = &self.kms.signed_requests else { return Ok(()) };
        ensure(
            self.kms.mode == KmsMode::Embedded,
            &["kms", "signed_requests"],
            || "there is no KMS here to take requests".to_owned(),
            || "give this section to the KMS; the node's own is [mikey.certificate]".to_owned(),
        )?;
        signed.load().map(|_| ()).map_err(|(setting, message)| Finding {
            path: ["kms", "signed_requests", setting].map(Step::Name).to_vec(),
            message,
            remedy: CERTIFICATE_REMEDY.to_owned(),
        })
    }
}

/// AES-128 and AES-256, the algorithms of RFC 6043's messages and tickets.
pub(super) fn check_key_bytes(key: &Secret, path: impl FnOnce() -> Vec<Step>) -> Check {
    let bytes = key.expose().len();
    if KEY_BYTES.contains(&bytes) {
        return Ok(());
    }
    Err(Finding {
        path: path(),
        message: format!("a key of {bytes} bytes"),
        remedy: "use 16 or 32 bytes; make one with: openssl rand -hex 32".to_owned(),
    })
}

fn check_owners(owners: &[UriPattern], path: impl FnOnce() -> Vec<Step>) -> Check {
    if !owners.is_empty() {
        return Ok(());
    }
    Err(Finding {
        path: path(),
        message: "a key nobody may use".to_owned(),
        remedy: "list SIP URIs, \"*@host\" for all of a host, or \"*\" for all".to_owned(),
    })
}

/// Each with the table it is in.
fn check_ids<'a>(ids: impl Iterator<Item = (&'static str, &'a str)>) -> Check {
    let mut earlier: Vec<(&str, &str)> = Vec::new();
    for (table, id) in ids {
        if earlier.iter().any(|(_, other)| *other == id) {
            let index = earlier.iter().filter(|(other, _)| *other == table).count();
            return Err(Finding {
                path: key_path(table, index, "id"),
                message: format!("a second key named {id:?}"),
                remedy: "give each key its own id: messages name keys by it".to_owned(),
            });
        }
        earlier.push((table, id));
    }
    Ok(())
}

fn key_path(table: &'static str, index: usize, name: &'static str) -> Vec<Step> {
    vec![Step::Name("kms"), Step::Name(table), Step::Index(index), Step::Name(name)]
}

const KEY_BYTES: [usize; 2] = [16, 32];
