//! Fuzz targets of the node: functions of bytes that must not panic and assert what holds of any bytes,
//! and the inputs they begin with.
//!
//! MIKEY messages are given to the targets of the key exchange in a *plain form*: keys unencrypted and
//! MACs of no matter. The target encrypts and authenticates them with the keys of the party that would
//! have sent them (`mikey_plain`), so that what is changed arrives behind the checks of a MAC.
#![forbid(unsafe_code)]

mod bfcp;
#[path = "../../../mrfp-core/protocol/tests/bfcp_support/mod.rs"]
mod bfcp_support;
mod exchange;
mod floor;
mod mikey;
#[path = "../../../control-api/tests/mikey_certificates/mod.rs"]
mod mikey_certificates;
#[path = "../../../control-api/tests/mikey_plain/mod.rs"]
mod mikey_plain;
#[path = "../../../control-api/tests/mikey_world/mod.rs"]
mod mikey_world;
#[path = "../../../mrfp-core/protocol/tests/msrp_interworking_support/mod.rs"]
mod msrp_interworking_support;
#[allow(dead_code, reason = "a part of it is needed here")]
#[path = "../../../mrfp-core/protocol/tests/msrp_support/mod.rs"]
mod msrp_support;
mod mutation;
mod public_key;
mod seeds;
mod text;
mod tls;

/// A change of an input that leaves it one, where it can be read; the number decides which.
pub type Mutation = fn(&[u8], u64) -> Option<Vec<u8>>;

/// Something to be fuzzed.
pub struct Target {
    /// Its name, and that of its directory in the corpus.
    pub name: &'static str,
    /// Whether the input was taken by whoever got it. Panics where something is wrong.
    pub run: fn(&[u8]) -> bool,
    /// Inputs to begin with, all of which are taken.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How an input is changed, beside its bytes.
    pub mutate: Option<Mutation>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "mikey_codec",
        run: mikey::codec,
        seeds: seeds::codec,
        mutate: Some(mutation::message),
    },
    Target {
        name: "mikey_transfer_init",
        run: exchange::transfer_init,
        seeds: seeds::transfer_init,
        mutate: Some(mutation::behind_options),
    },
    Target {
        name: "mikey_transfer_resp",
        run: exchange::transfer_resp,
        seeds: seeds::transfer_resp,
        mutate: Some(mutation::behind_options),
    },
    Target {
        name: "mikey_kms",
        run: exchange::kms,
        seeds: seeds::kms,
        mutate: Some(mutation::behind_options),
    },
    Target {
        name: "mikey_kms_resp",
        run: exchange::kms_resp,
        seeds: seeds::kms_resp,
        mutate: Some(mutation::behind_options),
    },
    Target {
        name: "mikey_public_key",
        run: public_key::request,
        seeds: seeds::public_key,
        mutate: Some(mutation::behind_options),
    },
    Target {
        name: "mikey_update",
        run: exchange::update,
        seeds: seeds::update,
        mutate: Some(mutation::behind_options),
    },
    Target { name: "mikey_inspect", run: mikey::inspect, seeds: seeds::inspect, mutate: None },
    Target { name: "key_mgmt", run: text::key_mgmt, seeds: seeds::key_mgmt, mutate: None },
    Target { name: "sdp", run: text::sdp, seeds: seeds::sdp, mutate: None },
    Target { name: "sip", run: text::sip, seeds: seeds::sip, mutate: None },
    Target { name: "msrp", run: text::msrp, seeds: seeds::msrp, mutate: None },
    Target { name: "msrp_iwf", run: text::msrp_iwf, seeds: seeds::msrp_iwf, mutate: None },
    Target { name: "cpim", run: text::cpim, seeds: seeds::cpim, mutate: None },
    Target { name: "bfcp_codec", run: bfcp::codec, seeds: bfcp::codec_seeds, mutate: None },
    Target { name: "bfcp_inspect", run: bfcp::inspect, seeds: bfcp::inspect_seeds, mutate: None },
    Target { name: "bfcp_server", run: floor::server, seeds: floor::seeds, mutate: None },
    Target {
        name: "tls_handshake",
        run: tls::handshake,
        seeds: seeds::tls_handshake,
        mutate: None,
    },
    Target { name: "tls_record", run: tls::record, seeds: seeds::tls_record, mutate: None },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
