//! The keys an engineer gives, and those that messages yield with them.

use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::{Config, Secret};
use crate::inspect::field::hex;
use crate::mikey::codec::KeyData;

/// Keys to try, in the order they were given.
#[derive(Default)]
pub struct Keys {
    /// Shared with the KMS.
    pub(super) users: Vec<Key>,
    /// Protect tickets.
    pub(super) tickets: Vec<Key>,
    /// MPKi, or the MPK it is derived from.
    pub(super) message_protection: Vec<Key>,
}

/// A key with what it is called in what is told.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) name: String,
    /// The IDRpsk that names it in messages, where that is known.
    pub(super) identity: Option<Vec<u8>>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// The file of keys.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct KeyFile {
    psk: Vec<Secret>,
    ticket_key: Vec<Secret>,
    mpk: Vec<Secret>,
}

/// Keys that protect the messages of a transfer.
#[derive(Clone)]
pub(super) struct MessageProtection {
    pub(super) name: String,
    /// MPKi.
    pub(super) initiator: Zeroizing<Vec<u8>>,
    /// MPKr before forking, where it is known.
    pub(super) responder: Option<Zeroizing<Vec<u8>>>,
    /// MPKr' as the KMS forked it.
    pub(super) forked: Option<Zeroizing<Vec<u8>>>,
}

/// A key that a crypto session may start with.
pub(super) struct SessionKey {
    pub(super) data: KeyData,
    /// As the KMS forked it for the responder.
    pub(super) forked: bool,
}

impl Keys {
    /// No keys: nothing is verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tickets.is_empty() && self.message_protection.is_empty()
    }

    /// Adds those of the KMS in a configuration.
    pub fn add_config(&mut self, config: &Config) {
        let key = |key: &crate::config::KmsKey| Key {
            name: format!("{:?} of the configuration", key.id),
            identity: Some(key.id.clone().into_bytes()),
            key: Zeroizing::new(key.key.expose().to_vec()),
        };
        self.users.extend(config.kms.users.iter().map(key));
        self.tickets.extend(config.kms.ticket_keys.iter().map(key));
    }

    /// Adds those of a file: TOML with the lists `psk`, `ticket_key` and `mpk` of keys in hex.
    ///
    /// # Errors
    /// What is wrong with the file, without quoting it.
    pub fn add_file(&mut self, path: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let file: KeyFile = toml::from_str(&text).map_err(|error| {
            // The error's own Display quotes the line, which may hold a key.
            format!("{}: {}", path.display(), error.message())
        })?;
        self.add(Purpose::User, "of the file", &file.psk);
        self.add(Purpose::Ticket, "of the file", &file.ticket_key);
        self.add(Purpose::MessageProtection, "of the file", &file.mpk);
        Ok(())
    }

    /// Adds one in hex.
    ///
    /// # Errors
    /// It is no hex.
    pub fn add_hex(&mut self, purpose: Purpose, text: &str) -> Result<(), String> {
        let key = Secret::from_hex(text).ok_or("a key is an even number of hex digits")?;
        self.add(purpose, "of the command line", &[key]);
        Ok(())
    }

    fn add(&mut self, purpose: Purpose, source: &str, keys: &[Secret]) {
        let (list, what) = match purpose {
            Purpose::User => (&mut self.users, "psk"),
            Purpose::Ticket => (&mut self.tickets, "ticket key"),
            Purpose::MessageProtection => (&mut self.message_protection, "mpk"),
        };
        list.extend(keys.iter().enumerate().map(|(index, key)| Key {
            name: format!("{what} {} {source}", index + 1),
            identity: None,
            key: Zeroizing::new(key.expose().to_vec()),
        }));
    }
}

/// What a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Shared with the KMS.
    User,
    /// Protects tickets.
    Ticket,
    /// Protects a transfer.
    MessageProtection,
}

/// Those whose identity the message names first, then those without one.
pub(super) fn ranked<'a>(keys: &'a [Key], identity: Option<&[u8]>) -> Vec<&'a Key> {
    let mut ranked: Vec<&Key> = keys.iter().collect();
    // Stable, so that the given order decides between equals.
    ranked.sort_by_key(|key| key.identity.as_deref() != identity);
    ranked
}

/// A secret, or only its length.
pub(super) fn told(key: &[u8], show: bool) -> String {
    if show { hex(key) } else { format!("{} byte(s), hidden", key.len()) }
}
