//! The border's part of the configuration.

use std::time::Duration;

use mrfp_core::mp::{InterfaceId, RealmId};
use mrfp_core::{GatewayConfig, GatewayProfile, Interface, Port};

use crate::border::b2bua::{self, B2buaConfig, SideConfig, Transport};
use crate::border::sdp::{Overhead, Rules, Start};
use crate::border::{BorderConfig, Side, SideRole};
use crate::config::{
    Border, BorderEstablishment, BorderSide, CertificateKey, Config, NextHop, OtherMedia,
};
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
        profile: GatewayProfile {
            tls_suites: border.tls.suites.clone(),
            dtls_suites: border.tls.dtls_suites.clone(),
            rsa_certificates: border.tls.certificate_key == CertificateKey::Rsa2048,
        },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::border::Nat;

    #[test]
    fn every_setting_of_a_border_reaches_its_part() {
        let text = "[[realm]]\nname = \"lab\"\nnetworks = [\"192.0.2.0/24\"]\n\
            [timers]\nrecovery_seconds = 7\n\
            [border]\nrole = \"ibcf\"\ncalls_max = 5\nrcs_compat = true\n\
            establishment = \"incoming-triggers\"\nother_media = \"refuse\"\n\
            hide_topology = false\ndtls_id = true\ncertificates_ready = 3\n\
            [border.own]\nudp = \"127.0.0.1:5070\"\ntcp = \"127.0.0.1:5071\"\n\
            contact_host = \"own.example.com\"\nmedia = \"127.0.0.2\"\n\
            media_advertised = \"192.0.2.2\"\nnext_hops = [\"sip:192.0.2.1\"]\ntrusted = true\n\
            [border.foreign]\nudp = \"127.0.0.1:5080\"\ntcp = \"127.0.0.1:5081\"\n\
            media = \"127.0.0.3\"\nnext_hops = [\"sip:[2001:db8::1]:5065;transport=tcp\"]\n\
            probe_seconds = 3\nnat = \"host\"\ncema = false\nrealm = \"lab\"\n\
            [border.bandwidth]\nmsrp_payload_bytes = 1\nbfcp_payload_bytes = 2\n\
            t38_payload_bytes = 3\ntls_record_bytes = 4\ndtls_record_bytes = 5\n";
        let config = Config::parse("mrf.toml", text).expect("valid");
        let (media, signalling) = border(&config, &[]).expect("it is one");
        let side = |role, interface, realm, nat, cema| Side {
            role,
            interface: InterfaceId(interface),
            realm: RealmId(realm),
            nat,
            cema,
        };
        let sides = [
            side(SideRole::Own, 0, 0, Nat::Off, true),
            side(SideRole::Foreign, 1, 1, Nat::Host, false),
        ];
        assert_eq!(media.sides, sides);
        assert_eq!((media.calls_max, media.recovery), (5, Duration::from_secs(7)));
        let rules = Rules {
            rcs_compat: true,
            refuse_other_media: true,
            hide_topology: false,
            start: Start::IncomingTriggers,
            dtls_id: true,
            overhead: Overhead {
                msrp_payload_bytes: 1,
                bfcp_payload_bytes: 2,
                t38_payload_bytes: 3,
                tls_record_bytes: 4,
                dtls_record_bytes: 5,
            },
        };
        assert_eq!(media.rules, rules);
        assert_eq!(signalling.calls_max, 5);
        let [own, foreign] = &signalling.sides;
        assert_eq!((own.role, own.trusted), (SideRole::Own, true));
        assert_eq!(own.sip.udp.port(), 5070);
        assert_eq!(own.sip.tcp.port(), 5071);
        assert_eq!(own.sip.contact_host.as_deref(), Some("own.example.com"));
        let next_hop = |address: &str, transport| b2bua::NextHop {
            address: address.parse().expect("an address"),
            transport,
        };
        assert_eq!(own.next_hops, [next_hop("192.0.2.1:5060", Transport::Udp)]);
        assert_eq!(foreign.next_hops, [next_hop("[2001:db8::1]:5065", Transport::Tcp)]);
        assert_eq!((foreign.trusted, foreign.probe_interval), (false, Duration::from_secs(3)));
        let gateway = gateway(&config).expect("it is one");
        assert_eq!(gateway.certificates_ready, 3);
        let address = |text: &str| text.parse().expect("an address");
        let [first, second] = gateway.interfaces.as_slice() else { panic!("one for each side") };
        assert_eq!(first.listen, address("127.0.0.2"));
        assert_eq!(first.advertise, Some(address("192.0.2.2")));
        assert_eq!((second.listen, second.advertise), (address("127.0.0.3"), None));
    }

    #[test]
    fn a_node_without_the_section_is_no_border() {
        assert!(border(&Config::default(), &[]).is_none());
        assert!(gateway(&Config::default()).is_none());
    }
}
