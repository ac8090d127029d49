//! The operator's configuration in the terms of each part.

use std::net::SocketAddr;
use std::time::Duration;

use mrfp_core::floor::{ConferencePolicy, FloorPolicy, ThirdPartyRequests};
use mrfp_core::mp::{CpimPolicy, RealmId};
use mrfp_core::{Limits, Port, ShardConfig};
use mrfp_protocol::tls::ProfileConfig;

use crate::config::{
    Certificate, CertificateProblem, Config, Cpim, Creation, Floor, KmsAudit, MESSAGE_LABEL, Plain,
    PortMode, Referrers, Room, Subscribers, ThirdParties,
};
use crate::kms::ServicePolicy;
use crate::mikey::uri::normalise;
use crate::mrfc::{
    ChatPolicy, DialPolicies, FloorsPolicy, FocusConfig, MrfcConfig, Realms, ReferPolicy,
    RoomFloor, RoomPolicy, SecurityPolicy, ShardDescription, SubscriptionPolicy,
};
use crate::sdp::Fingerprint;
use crate::sip::SipConfig;

use super::relay;

mod border;
mod keys;

pub(super) use border::border;
pub(super) use keys::{initiator, kms, responder};

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
        gateway: border::gateway(config),
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
        floor_requests_max: config.floors.requests_per_shard_max,
        floor_requests_per_user_max: config.floors.requests_per_user_max,
        floor_datagram_bytes_max: config.floors.datagram_bytes_max,
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
        queue_delay_max: Duration::from_millis(config.sip.queue_delay_max_milliseconds),
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
        rekeying_interval: Duration::from_secs(config.timers.rekeying_seconds),
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
        floors: floors(config, room),
    }
}

/// The floors of a room, if it has any.
fn floors(config: &Config, room: &Room) -> Option<FloorsPolicy> {
    let floors = config.floors_of(room);
    if floors.is_empty() {
        return None;
    }
    let conference = ConferencePolicy {
        grace_ns: config.floors.grace_seconds * NANOSECONDS,
        third_party_requests: match config.floors.third_party_requests {
            ThirdParties::Nobody => ThirdPartyRequests::Nobody,
            ThirdParties::Chairs => ThirdPartyRequests::Chairs,
            ThirdParties::Everybody => ThirdPartyRequests::Everybody,
        },
    };
    let governed = floors.iter().any(|floor| floor.label.is_none());
    Some(FloorsPolicy {
        conference,
        floors: floors.into_iter().map(room_floor).collect(),
        // Without such a floor nobody could ever say anything.
        moderated: governed && room.moderated.unwrap_or(config.rooms.moderated),
    })
}

fn room_floor(floor: Floor) -> RoomFloor {
    RoomFloor {
        floor_id: floor.number,
        governs_messages: floor.label.is_none(),
        label: floor.label.unwrap_or_else(|| MESSAGE_LABEL.to_owned()),
        policy: FloorPolicy {
            order: floor.order.into(),
            holders_max: floor.holders_max,
            requests_per_user_max: floor.requests_per_user_max,
            holding_max_ns: floor.holding_seconds_max.map(|seconds| seconds * NANOSECONDS),
        },
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

const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mrfp_core::floor::FloorOrder;

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

    #[test]
    fn a_room_has_the_floors_that_are_said_of_it_and_is_moderated_where_one_is_for_its_messages() {
        let config = parsed(
            "[rooms]\nfloors = [\"messages\"]\n[floors]\ngrace_seconds = 7\n\
             third_party_requests = \"everybody\"\n\
             [[floor]]\nname = \"camera\"\nnumber = 2\nlabel = \"c\"\norder = \"chair\"\n\
             holders_max = 4\nrequests_per_user_max = 2\nholding_seconds_max = 60\n\
             [[room]]\nname = \"show\"\nfloors = [\"camera\"]\n\
             [[room]]\nname = \"both\"\nfloors = [\"messages\", \"camera\"]\nmoderated = false\n\
             [[room]]\nname = \"free\"\nfloors = []\n",
        );
        let policy = mrfc(&config, &[], None).rooms;
        let messages = RoomFloor {
            floor_id: 1,
            label: "10".to_owned(),
            policy: FloorPolicy {
                order: FloorOrder::FirstComeFirstServed,
                holders_max: 1,
                requests_per_user_max: 1,
                holding_max_ns: None,
            },
            governs_messages: true,
        };
        let camera = RoomFloor {
            floor_id: 2,
            label: "c".to_owned(),
            policy: FloorPolicy {
                order: FloorOrder::Chair,
                holders_max: 4,
                requests_per_user_max: 2,
                holding_max_ns: Some(60_000_000_000),
            },
            governs_messages: false,
        };
        let of = |floors: &[&RoomFloor], moderated| FloorsPolicy {
            conference: ConferencePolicy {
                grace_ns: 7_000_000_000,
                third_party_requests: ThirdPartyRequests::Everybody,
            },
            floors: floors.iter().map(|floor| (*floor).clone()).collect(),
            moderated,
        };
        assert_eq!(policy.chat("any").floors, Some(of(&[&messages], true)));
        assert_eq!(policy.chat("show").floors, Some(of(&[&camera], false)));
        assert_eq!(policy.chat("both").floors, Some(of(&[&messages, &camera], false)));
        assert_eq!(policy.chat("free").floors, None);
        assert_eq!(mrfc(&Config::default(), &[], None).rooms.chat("any").floors, None);
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
    fn the_limits_of_floors_reach_the_shards() {
        let text = "[floors]\nrequests_per_user_max = 3\nrequests_per_shard_max = 4\n\
            datagram_bytes_max = 500\n";
        let floors = |limits: Limits| {
            let Limits { floor_requests_max, floor_requests_per_user_max, .. } = limits;
            (floor_requests_per_user_max, floor_requests_max, limits.floor_datagram_bytes_max)
        };
        assert_eq!(floors(media_limits(&parsed(text))), (3, 4, 500));
        assert_eq!(floors(media_limits(&Config::default())), floors(Limits::default()));
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
