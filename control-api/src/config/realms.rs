//! Sections `[[realm]]`: networks whose traffic is counted on its own.

use std::net::IpAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Config;
use super::check::{Check, Finding, Step};
use crate::mrfc::{DialSecurity, Network, REALM_DEFAULT, TicketOpener, TicketSource};

/// One `[[realm]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Realm {
    /// What metrics and API call it.
    pub name: String,
    /// Where its members' SIP comes from. Of several networks the smallest around an address wins.
    pub networks: Vec<Network>,
    /// How calls of the focus to its addresses are protected, where that differs from the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_security: Option<DialSecurity>,
    /// Who makes the tickets of such calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_ticket: Option<TicketSource>,
    /// Who opens them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_ticket_opened_by: Option<TicketOpener>,
    /// Each responder gets keys of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_key_forking: Option<bool>,
}

impl Config {
    pub(super) fn check_realms(&self) -> Check {
        let at = |index, name| vec![Step::Name("realm"), Step::Index(index), Step::Name(name)];
        let finding =
            |path, message, remedy: &str| Err(Finding { path, message, remedy: remedy.into() });
        let mut names = vec![REALM_DEFAULT];
        let mut networks: Vec<&Network> = Vec::new();
        if self.realms.len() > REALMS_MAX {
            let message = format!("more than {REALMS_MAX} realms");
            let remedy = "every shard keeps every counter once per realm: join some";
            return finding(at(REALMS_MAX, "name"), message, remedy);
        }
        for (index, realm) in self.realms.iter().enumerate() {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if realm.name.is_empty() || !realm.name.bytes().all(is_name) {
                let message = format!("{:?} cannot be the name of a realm", realm.name);
                return finding(at(index, "name"), message, "use letters, digits, -, _ and .");
            }
            if names.contains(&realm.name.as_str()) {
                let message = format!("a second realm named {:?}", realm.name);
                let remedy = "choose another; \"default\" is what belongs to no other realm";
                return finding(at(index, "name"), message, remedy);
            }
            names.push(&realm.name);
            if realm.networks.is_empty() {
                let message = "a realm without networks counts nothing".to_owned();
                return finding(at(index, "networks"), message, "list networks as \"10.0.0.0/8\"");
            }
            for (place, network) in realm.networks.iter().enumerate() {
                if networks.contains(&network) {
                    let mut path = at(index, "networks");
                    path.push(Step::Index(place));
                    let message = format!("{network} is listed twice");
                    return finding(path, message, "a network belongs to one realm");
                }
                networks.push(network);
            }
        }
        Ok(())
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (address, bits) = text.split_once('/').unwrap_or((&text, ""));
        let address: Option<IpAddr> = address.parse().ok();
        let network = address.and_then(|address| {
            let bits = match bits {
                "" if !text.contains('/') => Some(if address.is_ipv4() { 32 } else { 128 }),
                bits => bits.parse().ok(),
            };
            Self::new(address, bits?)
        });
        network.ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no network: expected one as in \"10.0.0.0/8\""))
        })
    }
}

/// Each realm costs every shard one set of counters, and a scrape of the metrics as many lines.
const REALMS_MAX: usize = 64;

// With the one for everybody else.
const _: () = assert!(REALMS_MAX < mrfp_core::mp::REALMS_MAX);
