//! Section `[border]`: IMS-ALG towards an access network, or IBCF towards other networks, with the gateway
//! for its media. Without the section there is none.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use mrfp_core::GatewayProfile;
use mrfp_protocol::tls::{AnnouncedProfile, dtls};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Config;
use super::check::{Check, Finding, Step, ensure};
use crate::border::sdp::Overhead;
use crate::border::{Nat, SideRole};
use crate::mrfc::REALM_DEFAULT;

/// Section `[border]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Border {
    /// What it is, which names its sides.
    pub role: BorderRole,
    /// Calls through it at a time; the next gets 503.
    #[serde(default = "calls_max")]
    pub calls_max: u32,
    /// Media is protected up to the access edge for UEs that have agreed on nothing at their registration,
    /// too (RCS 5.1).
    #[serde(default)]
    pub rcs_compat: bool,
    /// When the TCP connections that are ours to make are made.
    #[serde(default)]
    pub establishment: BorderEstablishment,
    /// What becomes of media that is neither MSRP, BFCP nor T.38.
    #[serde(default)]
    pub other_media: OtherMedia,
    /// Addresses of one side do not appear on the other.
    #[serde(default = "yes")]
    pub hide_topology: bool,
    /// DTLS associations are named `a=dtls-id` in offers, as they were called before RFC 8842.
    #[serde(default)]
    pub dtls_id: bool,
    /// Certificates each shard keeps ready, one for every stream that is protected.
    #[serde(default = "certificates_ready")]
    pub certificates_ready: u32,
    /// Of an IMS-ALG: where the UEs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<BorderSide>,
    /// Of an IMS-ALG: the network that serves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<BorderSide>,
    /// Of an IBCF: the own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<BorderSide>,
    /// Of an IBCF: another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<BorderSide>,
    /// What is spoken where TLS or DTLS ends.
    #[serde(default)]
    pub tls: BorderTls,
    /// What protection costs.
    #[serde(default)]
    pub bandwidth: BorderBandwidth,
}

/// Section `[border.tls]`: the TLS profile of TS 33.310 Annex E and TS 33.328 Annex M as this node has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BorderTls {
    /// Suites of TLS by OpenSSL name, most wanted first; a version is spoken if one of them is of it.
    pub suites: Vec<String>,
    /// The same of DTLS, which is 1.2.
    pub dtls_suites: Vec<String>,
    /// Whose keys the certificates of media streams are for.
    pub certificate_key: CertificateKey,
}

/// `border.tls.certificate_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum CertificateKey {
    /// A new key on P-256 for each certificate.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// One RSA key for all certificates since the node has started.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

impl Default for BorderTls {
    fn default() -> Self {
        let GatewayProfile { tls_suites, dtls_suites, .. } = GatewayProfile::default();
        Self { suites: tls_suites, dtls_suites, certificate_key: CertificateKey::EcdsaP256 }
    }
}

/// `border.role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BorderRole {
    /// TS 23.334.
    ImsAlg,
    /// TS 29.162.
    Ibcf,
}

/// `border.establishment`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BorderEstablishment {
    /// As soon as the answer says where to.
    #[default]
    AtOnce,
    /// When the connection of the other side has come in (TS 23.334 clause 5.11.2.2.1).
    IncomingTriggers,
}

/// `border.other_media`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OtherMedia {
    /// Its m-line goes through as it is, and its media past the node.
    #[default]
    Pass,
    /// Its m-line is answered with port 0.
    Refuse,
}

/// Section `[border.bandwidth]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BorderBandwidth {
    /// Mean bytes of an MSRP message, heads included.
    pub msrp_payload_bytes: u32,
    /// The same of a BFCP message.
    pub bfcp_payload_bytes: u32,
    /// The same of a UDPTL datagram.
    pub t38_payload_bytes: u32,
    /// What TLS adds to a record.
    pub tls_record_bytes: u32,
    /// What DTLS adds to a datagram.
    pub dtls_record_bytes: u32,
}

impl Default for BorderBandwidth {
    fn default() -> Self {
        let overhead = Overhead::default();
        Self {
            msrp_payload_bytes: overhead.msrp_payload_bytes,
            bfcp_payload_bytes: overhead.bfcp_payload_bytes,
            t38_payload_bytes: overhead.t38_payload_bytes,
            tls_record_bytes: overhead.tls_record_bytes,
            dtls_record_bytes: overhead.dtls_record_bytes,
        }
    }
}

/// One side: `[border.access]`, `[border.core]`, `[border.own]`, `[border.foreign]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BorderSide {
    /// UDP socket for SIP.
    pub udp: SocketAddr,
    /// TCP listener for SIP.
    pub tcp: SocketAddr,
    /// Host written into Contact and Via, where it is not the address listened on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_host: Option<String>,
    /// Address of this side's media; every stream has a port of its own.
    pub media: IpAddr,
    /// Address written into SDP, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_advertised: Option<IpAddr>,
    /// Where requests to this side go, unless to a registered UE: the first that answers.
    #[serde(default)]
    pub next_hops: Vec<NextHop>,
    /// How often each of them is asked whether it lives (OPTIONS).
    #[serde(default = "probe_seconds")]
    pub probe_seconds: u64,
    /// Identities that come from here are believed and others' are told (RFC 3325).
    #[serde(default)]
    pub trusted: bool,
    /// From where media may come.
    #[serde(default)]
    pub nat: Nat,
    /// Its parties know CEMA (RFC 6714) as far as is known; otherwise their MSRP paths are always changed.
    #[serde(default = "yes")]
    pub cema: bool,
    /// Where its traffic is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

/// Where requests go: `sip:192.0.2.1:5060;transport=tcp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// Its address.
    pub address: SocketAddr,
    /// TCP whatever the size of a request; otherwise UDP where it fits.
    pub tcp: bool,
}

fn yes() -> bool {
    true
}

fn calls_max() -> u32 {
    20_000
}

fn certificates_ready() -> u32 {
    256
}

fn probe_seconds() -> u64 {
    10
}

impl Border {
    /// Its two sides, those first that calls out of a network come from.
    #[must_use]
    pub fn sides(&self) -> Vec<(SideRole, &BorderSide)> {
        let sides = match self.role {
            BorderRole::ImsAlg => [(SideRole::Access, &self.access), (SideRole::Core, &self.core)],
            BorderRole::Ibcf => [(SideRole::Own, &self.own), (SideRole::Foreign, &self.foreign)],
        };
        sides.into_iter().filter_map(|(role, side)| Some((role, side.as_ref()?))).collect()
    }
}

impl SideRole {
    /// Its name in the configuration and in views.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Core => "core",
            Self::Own => "own",
            Self::Foreign => "foreign",
        }
    }
}

impl FromStr for NextHop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not as in \"sip:192.0.2.1:5060;transport=tcp\"");
        let rest = text.strip_prefix("sip:").ok_or_else(wrong)?;
        let (host, transport) = match rest.split_once(";transport=") {
            Some((host, transport)) => (host, transport),
            None => (rest, "udp"),
        };
        let tcp = match transport {
            "tcp" => true,
            "udp" => false,
            _ => return Err(wrong()),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let with_default = || bare.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, SIP_PORT));
        let address = host.parse().ok().or_else(with_default).ok_or_else(wrong)?;
        Ok(Self { address, tcp })
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = if self.tcp { "tcp" } else { "udp" };
        write!(out, "sip:{};transport={transport}", self.address)
    }
}

impl<'de> Deserialize<'de> for NextHop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for NextHop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Config {
    pub(super) fn check_border(&self) -> Check {
        let Some(border) = &self.border else { return Ok(()) };
        let (named, others) = match border.role {
            BorderRole::ImsAlg => (
                [("access", &border.access), ("core", &border.core)],
                [("own", &border.own), ("foreign", &border.foreign)],
            ),
            BorderRole::Ibcf => (
                [("own", &border.own), ("foreign", &border.foreign)],
                [("access", &border.access), ("core", &border.core)],
            ),
        };
        for (name, side) in named {
            ensure(
                side.is_some(),
                &["border", "role"],
                || format!("a border of this role has a side \"{name}\""),
                || format!("describe it under [border.{name}]"),
            )?;
        }
        for (name, side) in others {
            ensure(
                side.is_none(),
                &["border", name],
                || format!("a border of this role has no side \"{name}\""),
                || "an \"ims-alg\" has access and core, an \"ibcf\" own and foreign".to_owned(),
            )?;
        }
        for (name, count) in
            [("calls_max", border.calls_max), ("certificates_ready", border.certificates_ready)]
        {
            ensure(
                count >= 1,
                &["border", name],
                || "0 is less than 1".to_owned(),
                || "use 1 or more".to_owned(),
            )?;
        }
        let tls = AnnouncedProfile::new(&border.tls.suites).err();
        let dtls = dtls::Profile::with_suites(&border.tls.dtls_suites).err();
        for (name, problem) in [("suites", tls), ("dtls_suites", dtls)] {
            ensure(
                problem.is_none(),
                &["border", "tls", name],
                || problem.map_or_else(String::new, |problem| problem.to_string()),
                || "leave the line out for all there are".to_owned(),
            )?;
        }
        for (name, bytes) in [
            ("msrp_payload_bytes", border.bandwidth.msrp_payload_bytes),
            ("bfcp_payload_bytes", border.bandwidth.bfcp_payload_bytes),
            ("t38_payload_bytes", border.bandwidth.t38_payload_bytes),
            ("tls_record_bytes", border.bandwidth.tls_record_bytes),
            ("dtls_record_bytes", border.bandwidth.dtls_record_bytes),
        ] {
            ensure(
                (1..=PAYLOAD_BYTES_MAX).contains(&bytes),
                &["border", "bandwidth", name],
                || format!("{bytes} bytes is outside 1 to {PAYLOAD_BYTES_MAX}"),
                || "a TLS record carries no more".to_owned(),
            )?;
        }
        border.sides().into_iter().try_for_each(|(role, side)| self.check_side(role, side))
    }

    fn check_side(&self, role: SideRole, side: &BorderSide) -> Check {
        let at = |name| ["border", role.name(), name];
        for (name, address) in [("udp", side.udp.ip()), ("tcp", side.tcp.ip())] {
            ensure(
                !address.is_unspecified() || side.contact_host.is_some(),
                &at(name),
                || format!("peers cannot connect to {address}"),
                || "listen on one address, or set contact_host to the one peers use".to_owned(),
            )?;
        }
        ensure(
            !side.media.is_unspecified() || side.media_advertised.is_some(),
            &at("media"),
            || format!("peers cannot connect to {}", side.media),
            || "use one address, or set media_advertised to the one to write into SDP".to_owned(),
        )?;
        ensure(
            side.media_advertised.is_none_or(|address| !address.is_unspecified()),
            &at("media_advertised"),
            || "peers cannot connect to an unspecified address".to_owned(),
            || "name the address under which peers reach this side".to_owned(),
        )?;
        ensure(
            role == SideRole::Access || !side.next_hops.is_empty(),
            &at("next_hops"),
            || "calls to this side have nowhere to go".to_owned(),
            || "name at least one, as in [\"sip:192.0.2.1:5060;transport=tcp\"]".to_owned(),
        )?;
        ensure(
            (1..=super::check::SECONDS_MAX).contains(&side.probe_seconds),
            &at("probe_seconds"),
            || format!("{} seconds is outside 1 to a day", side.probe_seconds),
            || "10 finds a dead one before many calls do".to_owned(),
        )?;
        let Some(realm) = &side.realm else { return Ok(()) };
        let known = self.realms.iter().map(|realm| realm.name.as_str()).chain([REALM_DEFAULT]);
        if known.clone().all(|name| name != realm) {
            let known: Vec<_> = known.collect();
            return Err(Finding {
                path: at("realm").into_iter().map(Step::Name).collect(),
                message: format!("there is no realm {realm:?}"),
                remedy: format!("use one of {}, or add a [[realm]]", known.join(", ")),
            });
        }
        Ok(())
    }
}

/// RFC 3261 section 19.1.2.
const SIP_PORT: u16 = 5060;
/// RFC 8446 section 5.1.
const PAYLOAD_BYTES_MAX: u32 = 16_384;
