//! What an operator has set of key exchange and key management.

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::{
    self, Config, KmsGroup, KmsKey, MikeyCertificate, MikeySuite, MikeyTicketKey, PskIdentity,
    Secret, SharedWith,
};
use crate::kms::{Kms, KmsConfig, SharedTicketKey};
use crate::mikey::{
    HeldTicketKey, IvTime, Parameters, PreSharedKey, PskIdentityForm, Responder, ResponderConfig,
    Suite, TicketMaker, TicketProtectionKey, UriPattern,
};
use crate::mrfc::{Certified, InitiatorConfig};

/// Our side of ticket transfers.
pub(in crate::node) fn responder(config: &Config) -> Responder {
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
pub(in crate::node) fn initiator(config: &Config) -> Result<InitiatorConfig, String> {
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
pub(in crate::node) fn kms(config: &Config) -> Result<Kms, String> {
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

/// What an operator has set of section `[mikey]`.
fn parameters(config: &Config) -> Parameters {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Config {
        Config::parse("mrf.toml", text).expect("valid")
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
        let documentation = include_str!("../../../../docs/mikey.md");
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
}
