//! The operator's configuration in the terms of each part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mrfp_core::{Limits, Port, ShardConfig};
use mrfp_protocol::tls::ProfileConfig;
use zeroize::Zeroizing;

use crate::config::{Config, Creation, KmsKey, Plain, PortMode};
use crate::kms::KmsConfig;
use crate::mikey::{Parameters, PreSharedKey, ResponderConfig, TicketProtectionKey, UriPattern};
use crate::mrfc::{ChatPolicy, MrfcConfig, RoomPolicy, SecurityPolicy, ShardDescription};
use crate::sip::SipConfig;

/// The media plane's part.
pub(super) fn media(config: &Config) -> mrfp_core::Config {
    let cores = mrfp_io::available_cores();
    let count = config.media.shards.count(cores.len());
    // The first core is left to the control plane where there is another.
    let shard_cores = cores.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(&cores);
    let shards = (0..count)
        .map(|index| ShardConfig {
            core: config.media.pin.then(|| shard_cores.get(index).copied()).flatten(),
            listen: SocketAddr::new(config.media.listen, media_port(config, index)),
            advertise: config.media.advertised,
        })
        .collect();
    mrfp_core::Config { shards, limits: media_limits(config), profile: profile(config) }
}

fn media_port(config: &Config, shard: usize) -> u16 {
    match config.media.port {
        0 => 0,
        // The check of the configuration made sure that the ports fit.
        first => first.saturating_add(u16::try_from(shard).unwrap_or(u16::MAX)),
    }
}

fn media_limits(config: &Config) -> Limits {
    let (limits, timers) = (&config.limits, &config.timers);
    Limits {
        connections_max: limits.connections_per_shard_max as usize,
        terminations_max: limits.terminations_per_shard_max as usize,
        context_members_max: config.rooms.members_max as usize,
        connections_unbound_max: limits.unbound_per_shard_max as usize,
        connections_unbound_per_source_max: limits.unbound_per_source_max as usize,
        egress_bytes_max: limits.egress_bytes_max as usize,
        slow_member_grace_ns: timers.slow_member_milliseconds * 1_000_000,
        send_stall_timeout_ns: timers.send_stall_seconds * NANOSECONDS,
        unbound_timeout_ns: timers.unbound_seconds * NANOSECONDS,
        establishment_timeout_ns: timers.establishment_seconds * NANOSECONDS,
        idle_timeout_ns: timers.idle_seconds * NANOSECONDS,
        ..Limits::default()
    }
}

fn profile(config: &Config) -> ProfileConfig {
    ProfileConfig { suites: config.tls.suites.clone(), tls13: config.tls.tls13 }
}

/// Whether every Termination gets a port of its own.
pub(super) fn own_ports(config: &Config) -> bool {
    match config.media.port_mode {
        PortMode::Shared => false,
        PortMode::PerTermination => true,
    }
}

/// The SIP front's part.
pub(super) fn sip(config: &Config) -> SipConfig {
    SipConfig {
        udp: config.sip.udp,
        tcp: config.sip.tcp,
        contact_host: config.sip.contact_host.clone(),
        user_agent: concat!("mrf/", env!("CARGO_PKG_VERSION")).to_owned(),
        calls_max: config.limits.calls_max as usize,
        connections_max: config.sip.connections_max,
        ..SipConfig::default()
    }
}

/// The MRFC's part.
pub(super) fn mrfc(config: &Config, ports: &[Port]) -> MrfcConfig {
    let shard = |port: &Port| ShardDescription { id: port.shard(), address: port.address() };
    let domains = config.sip.domains.iter().map(|domain| domain.to_ascii_lowercase());
    MrfcConfig {
        shards: ports.iter().map(shard).collect(),
        rooms: RoomPolicy {
            open: config.rooms.creation == Creation::Open,
            names: config.rooms.list.iter().cloned().collect(),
            chat: ChatPolicy {
                message_bytes_max: Some(config.limits.message_bytes_max).filter(|bytes| *bytes > 0),
                ..ChatPolicy::default()
            },
            exceptions: BTreeMap::new(),
        },
        room_members_max: config.rooms.members_max as usize,
        calls_max: config.limits.calls_max as usize,
        user_calls_max: config.limits.calls_per_user_max as usize,
        security: match config.security.plain {
            Plain::Allow => SecurityPolicy::PlainAllowed,
            Plain::Refuse => SecurityPolicy::PskRequired,
        },
        domains: domains.collect(),
        cema: true,
    }
}

/// Our side of ticket transfers.
pub(super) fn responder(config: &Config) -> ResponderConfig {
    let resolver = config.kms.users.iter().find(|user| user.id == config.kms.resolver);
    let accepted = match config.sip.domains.as_slice() {
        [] => vec![UriPattern::Any],
        domains => domains.iter().cloned().map(UriPattern::Host).collect(),
    };
    ResponderConfig {
        accepted,
        answer_as: None,
        kms_uri: config.kms.uri.clone(),
        kms_key: pre_shared_key(resolver.expect("the configuration was checked")),
        parameters: parameters(config),
    }
}

/// The embedded KMS's part.
pub(super) fn kms(config: &Config) -> KmsConfig {
    let keys = config.kms.users.iter().chain(&config.kms.ticket_keys);
    let may_act_as: BTreeMap<_, _> = keys
        .map(|key| (key.id.clone().into_bytes(), key.may_act_as.iter().map(pattern).collect()))
        .collect();
    let parameters = parameters(config);
    KmsConfig {
        uri: config.kms.uri.clone(),
        users: config.kms.users.iter().map(pre_shared_key).collect(),
        ticket_protection_keys: config
            .kms
            .ticket_keys
            .iter()
            .map(|key| TicketProtectionKey {
                identity: key.id.clone().into_bytes(),
                key: Zeroizing::new(key.key.expose().to_vec()),
            })
            .collect(),
        ticket_lifetime: parameters.ticket_lifetime,
        may_act_as,
        groups: BTreeMap::new(),
        parameters,
    }
}

fn parameters(config: &Config) -> Parameters {
    Parameters {
        protection_type_tls: config.mikey.prot_type_tls,
        accepted_protection_types_tls: config.mikey.prot_types_accepted.clone(),
        clock_skew_max: Duration::from_secs(config.mikey.clock_skew_seconds),
        ..Parameters::default()
    }
}

fn pre_shared_key(key: &KmsKey) -> PreSharedKey {
    PreSharedKey {
        identity: key.id.clone().into_bytes(),
        key: Zeroizing::new(key.key.expose().to_vec()),
    }
}

fn pattern(pattern: &crate::config::UriPattern) -> UriPattern {
    match pattern.0.as_str() {
        "*" => UriPattern::Any,
        text => match text.strip_prefix("*@") {
            Some(host) => UriPattern::Host(host.to_owned()),
            None => UriPattern::Exact(text.to_owned()),
        },
    }
}

const NANOSECONDS: u64 = 1_000_000_000;
