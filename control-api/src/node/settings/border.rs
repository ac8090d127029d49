//! The border's part of the configuration.

use std::time::Duration;

use mrfp_core::mp::{InterfaceId, RealmId};
use mrfp_core::{GatewayConfig, Interface, Port};

use crate::border::b2bua::{self, B2buaConfig, SideConfig, Transport};
use crate::border::sdp::{Overhead, Rules, Start};
use crate::border::{BorderConfig, Side, SideRole};
use crate::config::{Border, BorderEstablishment, BorderSide, Config, NextHop, OtherMedia};
use crate::mrfc::ShardDescription;
use crate::sip::SipConfig;

/// The media plane's part: an address for each side.
pub(in crate::node) fn gateway(config: &Config) -> Option<GatewayConfig> {
    let border = config.border.as_ref()?;
    let interface =
        |side: &BorderSide| Interface { listen: side.media, advertise: side.media_advertised };
    Some(GatewayConfig {
        interfaces: border.sides().into_iter().map(|(_, side)| interface(side)).collect(),
        certificates_ready: border.certificates_ready as usize,
    })
}

/// The part of the media logic, and that of the B2BUA.
pub(in crate::node) fn border(
    config: &Config,
    ports: &[Port],
) -> Option<(BorderConfig, B2buaConfig)> {
    let border = config.border.as_ref()?;
    let sides = border.sides();
    // The check of the configuration made sure that there are two.
    let [first, second] = sides.as_slice() else { return None };
    let shard = |port: &Port| ShardDescription { id: port.shard(), address: port.address() };
    let media = BorderConfig {
        shards: ports.iter().map(shard).collect(),
        sides: [side(config, 0, first), side(config, 1, second)],
        calls_max: border.calls_max as usize,
        rules: rules(border),
        recovery: Duration::from_secs(config.timers.recovery_seconds),
    };
    let signalling = B2buaConfig {
        sides: [sip(config, border, first), sip(config, border, second)],
        calls_max: border.calls_max as usize,
        ..B2buaConfig::default()
    };
    Some((media, signalling))
}

fn side(config: &Config, interface: u16, (role, side): &(SideRole, &BorderSide)) -> Side {
    let named = |name: &String| config.realms.iter().position(|realm| realm.name == *name);
    let realm = side.realm.as_ref().and_then(named).map_or(0, |index| index + 1);
    Side {
        role: *role,
        interface: InterfaceId(interface),
        realm: RealmId(u16::try_from(realm).unwrap_or(0)),
        nat: side.nat,
        cema: side.cema,
    }
}

fn rules(border: &Border) -> Rules {
    let bandwidth = border.bandwidth;
    Rules {
        rcs_compat: border.rcs_compat,
        refuse_other_media: border.other_media == OtherMedia::Refuse,
        hide_topology: border.hide_topology,
        start: match border.establishment {
            BorderEstablishment::AtOnce => Start::AtOnce,
            BorderEstablishment::IncomingTriggers => Start::IncomingTriggers,
        },
        dtls_id: border.dtls_id,
        overhead: Overhead {
            msrp_payload_bytes: bandwidth.msrp_payload_bytes,
            bfcp_payload_bytes: bandwidth.bfcp_payload_bytes,
            t38_payload_bytes: bandwidth.t38_payload_bytes,
            tls_record_bytes: bandwidth.tls_record_bytes,
            dtls_record_bytes: bandwidth.dtls_record_bytes,
        },
    }
}

fn sip(config: &Config, border: &Border, (role, side): &(SideRole, &BorderSide)) -> SideConfig {
    SideConfig {
        role: *role,
        sip: SipConfig {
            udp: side.udp,
            tcp: side.tcp,
            contact_host: side.contact_host.clone(),
            calls_max: border.calls_max as usize,
            ..super::sip(config)
        },
        next_hops: side.next_hops.iter().map(next_hop).collect(),
        trusted: side.trusted,
        probe_interval: Duration::from_secs(side.probe_seconds),
    }
}

fn next_hop(next_hop: &NextHop) -> b2bua::NextHop {
    b2bua::NextHop {
        address: next_hop.address,
        transport: if next_hop.tcp { Transport::Tcp } else { Transport::Udp },
    }
}
