//! The operator's configuration in the terms of each part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mrfp_core::mp::{CpimPolicy, RealmId};
use mrfp_core::{Limits, Port, ShardConfig};
use mrfp_protocol::tls::ProfileConfig;
use zeroize::Zeroizing;

use crate::config::{
    self, Certificate, CertificateProblem, Config, Cpim, Creation, KmsAudit, KmsGroup, KmsKey,
    MikeyCertificate, MikeySuite, MikeyTicketKey, Plain, PortMode, PskIdentity, Referrers, Room,
    Secret, SharedWith, Subscribers,
};
use crate::kms::{Kms, KmsConfig, ServicePolicy, SharedTicketKey};
use crate::mikey::uri::normalise;
use crate::mikey::{
    HeldTicketKey, IvTime, Parameters, PreSharedKey, PskIdentityForm, Responder, ResponderConfig,
    Suite, TicketMaker, TicketProtectionKey, UriPattern,
};
use crate::mrfc::{
    Certified, ChatPolicy, DialPolicies, FocusConfig, InitiatorConfig, MrfcConfig, Realms,
    ReferPolicy, RoomPolicy, SecurityPolicy, ShardDescription, SubscriptionPolicy,
};
use crate::sdp::Fingerprint;
use crate::sip::SipConfig;

use super::relay;

/// The media plane's part.
pub(super) fn media(config: &Config) -> Result<mrfp_core::Config, CertificateProblem> {
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
    Ok(mrfp_core::Config {
        shards,
        limits: media_limits(config),
        profile: profile(config),
        certificate: config.tls.certificate.as_ref().map(Certificate::load).transpose()?,
        relay: relay::config(config),
    })
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
        context_members_max: members_max(config) as usize,
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
        outbound_proxy: config.conference.outbound_proxy,
        user_agent: concat!("mrf/", env!("CARGO_PKG_VERSION")).to_owned(),
        calls_max: config.limits.calls_max as usize,
        connections_max: config.sip.connections_max,
        ..SipConfig::default()
    }
}

/// The MRFC's part.
pub(crate) fn mrfc(
    config: &Config,
    ports: &[Port],
    certificate: Option<Fingerprint>,
) -> MrfcConfig {
    let shard = |port: &Port| ShardDescription { id: port.shard(), address: port.address() };
    let domains = config.sip.domains.iter().map(|domain| domain.to_ascii_lowercase());
    MrfcConfig {
        shards: ports.iter().map(shard).collect(),
        rooms: rooms(config),
        calls_max: config.limits.calls_max as usize,
        user_calls_max: config.limits.calls_per_user_max as usize,
        security: match config.security.plain {
            Plain::Allow => SecurityPolicy::PlainAllowed,
            Plain::Refuse => SecurityPolicy::TlsRequired,
        },
        domains: domains.collect(),
        cema: config.media.cema,
        realms: realms(config),
        certificate,
        recovery: Duration::from_secs(config.timers.recovery_seconds),
        focus: focus(config),
    }
}

fn focus(config: &Config) -> FocusConfig {
    let conference = &config.conference;
    FocusConfig {
        factory: conference.factory.clone(),
        contact_hosts: Vec::new(),
        rooms_max: conference.rooms_max as usize,
        subscribers: match conference.subscribers {
            Subscribers::Members => SubscriptionPolicy::Members,
            Subscribers::Anyone => SubscriptionPolicy::Anyone,
        },
        referrers: match conference.referrers {
            Referrers::Members => ReferPolicy::Members,
            Referrers::Operators => ReferPolicy::Operators,
        },
        dials_max: conference.dials_max as usize,
        dialling: dialling(config),
        operators: conference.operators.iter().map(|uri| normalise(uri)).collect(),
        subscriptions_max: conference.subscriptions_max as usize,
        room_subscriptions_max: conference.subscriptions_per_room_max as usize,
        subscription_expires_min: Duration::from_secs(conference.subscription_seconds_min.into()),
        subscription_expires_max: Duration::from_secs(conference.subscription_seconds_max.into()),
        notify_interval: Duration::from_millis(conference.notify_interval_milliseconds),
    }
}

fn dialling(config: &Config) -> DialPolicies {
    let realms = config.realms.iter().zip(1..);
    let realms = realms.map(|(realm, number)| (RealmId(number), config.dial_policy(Some(realm))));
    DialPolicies {
        default: config.dial_policy(None),
        realms: realms.collect(),
        proxy: config.conference.outbound_proxy.map(|proxy| proxy.ip()),
    }
}

fn rooms(config: &Config) -> RoomPolicy {
    let exceptions = config.room_exceptions.iter();
    let listed = config.rooms.list.iter().cloned();
    RoomPolicy {
        open: config.rooms.creation == Creation::Open,
        names: listed.chain(exceptions.clone().map(|room| room.name.clone())).collect(),
        chat: chat(config, &Room::default()),
        exceptions: exceptions.map(|room| (room.name.clone(), chat(config, room))).collect(),
    }
}

/// What goes in a room: what is said of it, else of all rooms.
fn chat(config: &Config, room: &Room) -> ChatPolicy {
    let rooms = &config.rooms;
    let types = |own: &Option<Vec<String>>, all: &[String]| own.as_deref().unwrap_or(all).join(" ");
    let reserved = room.nicknames_reserved.as_ref().unwrap_or(&rooms.nicknames_reserved);
    let message_bytes_max = room.message_bytes_max.unwrap_or(config.limits.message_bytes_max);
    ChatPolicy {
        members_max: room.members_max.unwrap_or(rooms.members_max) as usize,
        nicknames: room.nicknames.unwrap_or(rooms.nicknames),
        nicknames_reserved: reserved.clone(),
        private_messages: room.private_messages.unwrap_or(rooms.private_messages),
        cpim: match room.cpim.unwrap_or(rooms.cpim) {
            Cpim::Required => CpimPolicy::Required,
            Cpim::Wrap => CpimPolicy::Wrap,
        },
        accept_types: types(&room.accept_types, &rooms.accept_types),
        accept_wrapped_types: types(&room.accept_wrapped_types, &rooms.accept_wrapped_types),
        message_bytes_max: Some(message_bytes_max).filter(|bytes| *bytes > 0),
    }
}

/// The most members any room may have.
fn members_max(config: &Config) -> u32 {
    let exceptions = config.room_exceptions.iter().filter_map(|room| room.members_max);
    exceptions.fold(config.rooms.members_max, u32::max)
}

fn realms(config: &Config) -> Realms {
    Realms::new(config.realms.iter().map(|realm| (realm.name.clone(), realm.networks.clone())))
}

/// Our side of ticket transfers.
pub(super) fn responder(config: &Config) -> Responder {
    let accepted = match config.sip.domains.as_slice() {
        [] => vec![UriPattern::Any],
        domains => domains.iter().cloned().map(UriPattern::Host).collect(),
    };
    let mut responder = Responder::new(ResponderConfig {
        accepted,
        answer_as: None,
        kms_uri: config.kms.uri.clone(),
        kms_key: resolver(config),
        parameters: parameters(config),
    });
    config.mikey.ticket_keys.iter().map(held).for_each(|held| responder.hold_ticket_key(held));
    responder
}

/// The key we share with the KMS; none that anybody would take where we have a certificate instead.
fn resolver(config: &Config) -> PreSharedKey {
    let resolver = config.kms.users.iter().find(|user| user.id == config.kms.resolver);
    let none = || PreSharedKey { identity: Vec::new(), key: Zeroizing::default() };
    resolver.map_or_else(none, pre_shared_key)
}

fn held(key: &MikeyTicketKey) -> HeldTicketKey {
    let maker = match key.shared_with {
        SharedWith::Kms => TicketMaker::Kms,
        SharedWith::Users => TicketMaker::Initiators(key.users.iter().map(pattern).collect()),
    };
    HeldTicketKey { key: ticket_protection_key(&key.id, &key.key), maker }
}

/// Our side of ticket transfers that we begin. The error says what is wrong with the certificate.
pub(super) fn initiator(config: &Config) -> Result<InitiatorConfig, String> {
    let id = config.conference.dial_ticket_key.as_ref();
    let ticket_key = config.kms.ticket_keys.iter().find(|key| Some(&key.id) == id);
    let certificate = config.mikey.certificate.as_ref().map(MikeyCertificate::load);
    let certificate = certificate.transpose().map_err(|(_, why)| why)?;
    Ok(InitiatorConfig {
        kms_uri: config.kms.uri.clone(),
        kms_key: resolver(config),
        certificate: certificate.map(|(own, kms_certificate)| Certified { own, kms_certificate }),
        ticket_key: ticket_key.map(|key| ticket_protection_key(&key.id, &key.key)),
        held_keys: config.mikey.ticket_keys.iter().map(held).collect(),
        kept_tickets_max: config.conference.dial_tickets_kept_max,
        groups: config.kms.groups.iter().map(group).collect(),
        parameters: parameters(config),
    })
}

/// The embedded KMS. The error says what is wrong with its certificate for signed requests.
pub(super) fn kms(config: &Config) -> Result<Kms, String> {
    let settings = &config.kms;
    let ticket_keys = settings.ticket_keys.iter();
    let may_act_as: BTreeMap<_, _> = settings
        .users
        .iter()
        .chain(ticket_keys.clone())
        .map(|key| (key.id.clone().into_bytes(), key.may_act_as.iter().map(pattern).collect()))
        .collect();
    let mut kms = Kms::new(KmsConfig {
        uri: settings.uri.clone(),
        users: settings.users.iter().map(pre_shared_key).collect(),
        ticket_protection_keys: ticket_keys
            .map(|key| ticket_protection_key(&key.id, &key.key))
            .collect(),
        ticket_lifetime: Duration::from_secs(settings.ticket_lifetime_seconds),
        may_act_as,
        groups: settings.groups.iter().map(group).collect(),
        parameters: parameters(config),
    });
    let issuing = settings.issuing_keys.iter();
    kms.issue_with(issuing.map(|key| ticket_protection_key(&key.id, &key.key)).collect());
    for shared in &settings.shared_ticket_keys {
        let key = ticket_protection_key(&shared.id, &shared.key);
        let responders = shared.responders.iter().map(pattern).collect();
        kms.share_ticket_key(SharedTicketKey { key, responders });
    }
    if let Some(signed) = &settings.signed_requests {
        kms.serve_certificates(signed.load().map_err(|(_, why)| why)?);
    }
    Ok(kms)
}

fn group(group: &KmsGroup) -> (String, Vec<UriPattern>) {
    (group.uri.clone(), group.members.iter().map(pattern).collect())
}

/// How the KMS is run.
pub(super) fn kms_policy(config: &Config) -> ServicePolicy {
    let kms = &config.kms;
    let own = kms.users.iter().filter_map(|user| {
        user.requests_per_second_max.map(|requests| (user.id.clone().into_bytes(), requests))
    });
    ServicePolicy {
        requests_per_user_per_second_max: kms.requests_per_user_per_second_max,
        user_requests: own.collect(),
        rotation: Duration::from_secs(kms.ticket_key_rotation_seconds),
        audit_resolved_here: kms.audit == KmsAudit::All,
    }
}

/// What an operator has set of section `[mikey]`.
pub(crate) fn parameters(config: &Config) -> Parameters {
    let mikey = &config.mikey;
    let suite = |suite: &MikeySuite| match suite {
        MikeySuite::Aes128 => Suite::S128,
        MikeySuite::Aes256 => Suite::S256,
    };
    Parameters {
        protection_type_tls: mikey.prot_type_tls,
        accepted_protection_types_tls: mikey.prot_types_accepted.clone(),
        crypto_session_id: mikey.crypto_session_id,
        security_policy_number: mikey.security_policy_number,
        security_policy_parameters: mikey.security_policy_parameters.0.clone(),
        psk_identity_form: match mikey.psk_identity {
            PskIdentity::CsbIdAndCsId => PskIdentityForm::CsbIdAndCsId,
            PskIdentity::CsbId => PskIdentityForm::CsbId,
        },
        identity_type: mikey.identity_type,
        traffic_key_bytes: mikey.traffic_key_bytes,
        ticket_type: mikey.ticket_type,
        ticket_subtype: mikey.ticket_subtype,
        ticket_version: mikey.ticket_version,
        accepted_ticket_types: mikey.ticket_types_accepted.clone(),
        suite: suite(&mikey.suite),
        accepted_suites: mikey.suites_accepted.iter().map(suite).collect(),
        ticket_lifetime: Duration::from_secs(mikey.ticket_lifetime_seconds),
        clock_skew_max: Duration::from_secs(mikey.clock_skew_seconds),
        replay_cache_entries_max: mikey.replay_cache_entries_max,
        counter_senders_max: mikey.counter_senders_max,
        resolved_tickets_max: mikey.resolved_tickets_max,
        send_sdp_ids: mikey.send_sdp_ids,
        transfer_response_required: mikey.transfer_response_required,
        responder_session_keys: mikey.responder_session_keys,
        response_iv_time: match mikey.response_iv_time {
            config::IvTime::Response => IvTime::Response,
            config::IvTime::Initial => IvTime::Initial,
        },
        response_covers_initiator_data: mikey.response_covers_initiator_data,
        initiator_proof_next: mikey.initiator_proof_next,
        send_response_wanted: mikey.send_response_wanted,
        spi_on_message_protection_keys: mikey.spi_on_message_protection_keys,
        strict: mikey.strict,
    }
}

fn pre_shared_key(key: &KmsKey) -> PreSharedKey {
    PreSharedKey {
        identity: key.id.clone().into_bytes(),
        key: Zeroizing::new(key.key.expose().to_vec()),
    }
}

fn ticket_protection_key(id: &str, key: &Secret) -> TicketProtectionKey {
    TicketProtectionKey {
        identity: id.as_bytes().to_vec(),
        key: Zeroizing::new(key.expose().to_vec()),
    }
}

fn pattern(pattern: &config::UriPattern) -> UriPattern {
    match pattern.0.as_str() {
        "*" => UriPattern::Any,
        text => match text.strip_prefix("*@") {
            Some(host) => UriPattern::Host(host.to_owned()),
            None => UriPattern::Exact(text.to_owned()),
        },
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mrfc::{DialPolicy, DialSecurity, TicketOpener};

    fn parsed(text: &str) -> Config {
        Config::parse("mrf.toml", text).expect("valid")
    }

    #[test]
    fn a_room_differs_from_the_rest_in_what_is_said_of_it_and_in_nothing_else() {
        let config = parsed(
            "[rooms]\ncreation = \"closed\"\nlist = [\"lobby\"]\nmembers_max = 5\n\
             nicknames_reserved = [\"admin\"]\naccept_types = [\"text/plain\", \"image/*\"]\n\
             [limits]\nmessage_bytes_max = 1000\n\
             [[room]]\nname = \"board\"\nmembers_max = 9\ncpim = \"required\"\n\
             message_bytes_max = 0\n[[room]]\nname = \"tea\"\nprivate_messages = false\n",
        );
        let policy = mrfc(&config, &[], None).rooms;
        for (name, admitted) in [("lobby", true), ("board", true), ("tea", true), ("pub", false)] {
            assert_eq!(policy.admits(name), admitted, "{name}");
        }
        let all = ChatPolicy {
            members_max: 5,
            nicknames_reserved: vec!["admin".to_owned()],
            accept_types: "text/plain image/*".to_owned(),
            message_bytes_max: Some(1000),
            ..ChatPolicy::default()
        };
        assert_eq!(*policy.chat("lobby"), all);
        assert_eq!(*policy.chat("tea"), ChatPolicy { private_messages: false, ..all.clone() });
        let board = ChatPolicy {
            members_max: 9,
            cpim: CpimPolicy::Required,
            message_bytes_max: None,
            ..all
        };
        assert_eq!(*policy.chat("board"), board);
        assert_eq!(media_limits(&config).context_members_max, 9);
    }

    /// A setting of section `[mikey]`, and what it changes.
    type Set = (&'static str, fn(&mut Parameters));

    const SETTINGS: [Set; 28] = [
        ("prot_type_tls = 242", |it| it.protection_type_tls = 242),
        ("prot_types_accepted = [242, 7]", |it| it.accepted_protection_types_tls = vec![242, 7]),
        ("crypto_session_id = 3", |it| it.crypto_session_id = 3),
        ("security_policy_number = 9", |it| it.security_policy_number = 9),
        ("security_policy_parameters = \"0001FF0100\"", |it| {
            it.security_policy_parameters = vec![0, 1, 0xff, 1, 0];
        }),
        ("psk_identity = \"csb-id\"", |it| it.psk_identity_form = PskIdentityForm::CsbId),
        ("identity_type = 0", |it| it.identity_type = 0),
        ("traffic_key_bytes = 32", |it| it.traffic_key_bytes = Some(32)),
        ("ticket_type = 2", |it| it.ticket_type = 2),
        ("ticket_subtype = 4", |it| it.ticket_subtype = 4),
        ("ticket_version = 5", |it| it.ticket_version = 5),
        ("ticket_types_accepted = [1]", |it| it.accepted_ticket_types = vec![1]),
        ("suite = \"aes-256\"", |it| it.suite = Suite::S256),
        ("suites_accepted = [\"aes-128\"]", |it| it.accepted_suites = vec![Suite::S128]),
        ("ticket_lifetime_seconds = 60", |it| it.ticket_lifetime = Duration::from_secs(60)),
        ("clock_skew_seconds = 5", |it| it.clock_skew_max = Duration::from_secs(5)),
        ("replay_cache_entries_max = 6", |it| it.replay_cache_entries_max = 6),
        ("counter_senders_max = 7", |it| it.counter_senders_max = 7),
        ("resolved_tickets_max = 0", |it| it.resolved_tickets_max = 0),
        ("send_sdp_ids = false", |it| it.send_sdp_ids = false),
        ("transfer_response_required = false", |it| it.transfer_response_required = false),
        ("responder_session_keys = true", |it| it.responder_session_keys = true),
        ("response_iv_time = \"initial\"", |it| it.response_iv_time = IvTime::Initial),
        ("response_covers_initiator_data = false", |it| {
            it.response_covers_initiator_data = false;
        }),
        ("initiator_proof_next = 0", |it| it.initiator_proof_next = 0),
        ("send_response_wanted = false", |it| it.send_response_wanted = false),
        ("spi_on_message_protection_keys = false", |it| {
            it.spi_on_message_protection_keys = false;
        }),
        ("strict = true", |it| it.strict = true),
    ];

    #[test]
    fn each_setting_of_mikey_is_one_parameter_and_the_documentation_names_it() {
        let documentation = include_str!("../../../docs/mikey.md");
        let mut names = Vec::new();
        for (text, set) in SETTINGS {
            let mut expected = Parameters::default();
            set(&mut expected);
            assert_ne!(expected, Parameters::default(), "{text}");
            assert_eq!(parameters(&parsed(&format!("[mikey]\n{text}\n"))), expected, "{text}");
            let name = text.split(' ').next().expect("a name");
            assert!(documentation.contains(&format!("`{name}`")), "{name}");
            names.push(name);
        }
        // No setting is left out, and so no parameter, as each has one.
        let settings = toml::Table::try_from(Config::default().mikey).expect("a table");
        for name in settings.keys() {
            assert!(names.contains(&name.as_str()), "{name}");
        }
        assert_eq!(names.len(), settings.len() + 1, "traffic_key_bytes is not set by default");
        assert_eq!(parameters(&Config::default()), Parameters::default());
    }

    #[test]
    fn a_realm_differs_in_how_its_calls_are_keyed() {
        let text = "[conference]\ndial_security = \"mikey\"\ndial_ticket_opened_by = \"callee\"\n\
            [[realm]]\nname = \"lab\"\nnetworks = [\"192.0.2.0/24\"]\n\
            dial_ticket_opened_by = \"kms\"\ndial_key_forking = true\n";
        let dialling = mrfc(&parsed(text), &[], None).focus.dialling;
        let mode_2 = DialPolicy {
            security: DialSecurity::Mikey,
            opener: TicketOpener::Callee,
            ..DialPolicy::default()
        };
        assert_eq!(dialling.default, mode_2);
        let lab = DialPolicy { opener: TicketOpener::Kms, key_forking: true, ..mode_2 };
        assert_eq!(dialling.realms, BTreeMap::from([(RealmId(1), lab)]));
    }

    #[test]
    fn keys_that_others_share_with_us_open_their_tickets_and_protect_ours() {
        let text = format!(
            "[[mikey.ticket_key]]\nid = \"ours-and-the-kms's\"\nkey = \"{}\"\nshared_with = \"kms\"\n\
             [[mikey.ticket_key]]\nid = \"ours-and-carol's\"\nkey = \"{}\"\nshared_with = \"users\"\n\
             users = [\"sip:carol@example.com\"]\n",
            "01".repeat(16),
            "02".repeat(32)
        );
        let initiator = initiator(&parsed(&text)).expect("no certificate");
        let [kms, carol] = initiator.held_keys.as_slice() else { panic!("two keys") };
        assert!(matches!(kms.maker, TicketMaker::Kms));
        assert_eq!((kms.key.key.as_slice(), carol.key.key.len()), (&[1; 16][..], 32));
        let TicketMaker::Initiators(users) = &carol.maker else { panic!("hers") };
        assert!(users[0].matches("sip:carol@example.com") && !users[0].matches("sip:eve@x"));
    }

    #[test]
    fn the_defaults_are_those_of_the_mrfc() {
        let config = mrfc(&Config::default(), &[], None);
        assert_eq!(config.rooms.chat, ChatPolicy::default());
        assert_eq!(config.realms, Realms::default());
        assert!(config.cema);
        assert!(!mrfc(&parsed("[media]\ncema = false\n"), &[], None).cema);
    }

    #[test]
    fn realms_are_numbered_in_the_order_of_the_file() {
        let text = "[[realm]]\nname = \"core\"\nnetworks = [\"10.0.0.0/8\"]\n\
            [[realm]]\nname = \"east\"\nnetworks = [\"10.1.0.0/16\", \"192.0.2.7\"]\n";
        let realms = mrfc(&parsed(text), &[], None).realms;
        let number = |source: &str| realms.of(source.parse().expect("an address")).0;
        assert_eq!((number("10.2.0.1"), number("10.1.0.1"), number("192.0.2.7")), (1, 2, 2));
        assert_eq!(number("192.0.2.8"), 0);
    }
}
