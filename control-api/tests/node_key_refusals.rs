//! Key exchanges that the node as responder refuses, over real sockets: each is answered with its
//! status and Warning, counted by its reason, and leaves nothing (TS 23.333 clause 5.20.2, RFC 4567
//! section 5.2).

mod mikey_plain;
mod mikey_world;
mod node_ue;
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use control_api::config::{Config, UriPattern};
use control_api::mikey::codec::{self, CsIdMap, MacAlgorithm, Message, Payload, TicketFlags};
use control_api::mikey::{GrantedTicket, Initiator, NtpTime, Parameters, TicketProtectionKey};
use control_api::node::Node;
use node_ue::{
    Phone, TICKET_KEY, assert_becomes_empty, config, line, metric, now, protected_offer, status,
    stop,
};
use support::http::request;

const ALICE: &str = "sip:alice@example.com";
const ROOM: &str = "sip:lobby@conference.example";

/// A TRANSFER_INIT with a ticket of the caller's own making, sound but for what a test changes.
struct Transfer {
    parameters: Parameters,
    caller: &'static str,
    /// Whom the ticket is for, and whom the message.
    ticket_for: &'static str,
    message_for: &'static str,
    kms: &'static str,
    key_identity: &'static [u8],
    key: &'static [u8],
    /// Seconds before now that the ticket and the message were made.
    ticket_age: u64,
    message_age: u64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            parameters: Parameters::default(),
            caller: ALICE,
            ticket_for: ROOM,
            message_for: ROOM,
            kms: "sip:kms@localhost",
            key_identity: b"development-tpk",
            key: TICKET_KEY,
            ticket_age: 0,
            message_age: 0,
        }
    }
}

impl Transfer {
    fn message(&self) -> Vec<u8> {
        let ago = |seconds: u64| NtpTime(now().0 - (seconds << 32));
        let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("random bytes");
        let key = TicketProtectionKey {
            identity: self.key_identity.to_vec(),
            key: self.key.to_vec().into(),
        };
        let (parameters, ticket_time) = (&self.parameters, ago(self.ticket_age));
        let ticket = GrantedTicket::make(
            parameters,
            self.caller,
            self.ticket_for,
            self.kms,
            &key,
            ticket_time,
            &mut random,
        );
        let (_, message) = Initiator::with_granted_ticket(
            parameters,
            &ticket.expect("a ticket"),
            self.message_for,
            ago(self.message_age),
            &mut random,
        )
        .expect("a message");
        message
    }
}

fn parameters(change: impl FnOnce(&mut Parameters)) -> Parameters {
    let mut parameters = Parameters::default();
    change(&mut parameters);
    parameters
}

/// A sound message with a bit changed at some distance before the end of a part of it.
fn changed(part: &[u8], before: usize) -> Vec<u8> {
    let mut message = Transfer::default().message();
    let at = message.windows(part.len().max(1)).position(|at| at == part);
    let end = at.unwrap_or(message.len());
    message[end - before] ^= 1;
    message
}

/// A sound message changed by who has the keys: its MAC is right.
fn sealed(change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let key = TicketProtectionKey {
        identity: b"development-tpk".to_vec(),
        key: TICKET_KEY.to_vec().into(),
    };
    let keys = mikey_plain::Keys { users: Vec::new(), tickets: vec![key] };
    let turn = |message: &mut Message, way| mikey_plain::turn_by(message, &keys, way);
    let message = Transfer::default().message();
    assert_eq!(mikey_plain::changed(&message, turn, |_| {}), message);
    mikey_plain::changed(&message, turn, change)
}

fn flags(message: &mut Message) -> &mut TicketFlags {
    let ticket = mikey_plain::ticket_of(message).expect("TICKET");
    &mut ticket.policy.flags
}

fn sessions(message: &mut Message) -> &mut Vec<codec::CryptoSession> {
    match &mut message.header.map {
        CsIdMap::GenericId(sessions) => sessions,
        _ => panic!("GENERIC-ID"),
    }
}

async fn invite(sip: SocketAddr, offer: &[u8]) -> String {
    let mut phone = Phone::new(sip).await;
    phone.to = ROOM.to_owned();
    phone.invite(offer).await
}

/// The reasons that were counted.
async fn reasons(http: SocketAddr) -> BTreeMap<String, u64> {
    let metrics = request(http, "GET", "/metrics").await.text();
    let counted = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("mrf_mikey_failures_total{reason=\"")?;
        let (reason, count) = rest.split_once("\"} ")?;
        Some((reason.to_owned(), count.parse().expect("a number")))
    });
    counted.collect()
}

/// A node on which every offer is refused; each with its reason.
async fn assert_refused(adjust: impl FnOnce(&mut Config), offers: &[(Vec<u8>, u16, &str)]) {
    let mut settings = config();
    settings.sip.domains = vec!["conference.example".to_owned()];
    adjust(&mut settings);
    let node = Node::start(settings).await.expect("starts");
    let (sip, http) = (node.addresses().sip_udp, node.addresses().http);
    let mut expected = BTreeMap::new();
    for (offer, refusal, reason) in offers {
        let answer = invite(sip, offer).await;
        assert_eq!(status(&answer), *refusal, "{reason}: {answer}");
        let text = match *reason {
            "OtherCaller" => "The key is not the caller's",
            "OtherRoom" => "The ticket is for another room",
            _ => "Key management failed",
        };
        let warning = line(&answer, "Warning: ");
        assert!(
            warning.starts_with("399 ") && warning.ends_with(&format!("\"{text}\"")),
            "{answer}"
        );
        *expected.entry((*reason).to_owned()).or_insert(0) += 1;
        assert_eq!(reasons(http).await, expected, "{answer}");
    }
    assert_becomes_empty(http).await;
    // No shard has heard of any of it.
    assert_eq!(metric(http, "mrf_terminations_subtracted_total").await, 0);
    stop(node).await;
}

#[tokio::test]
async fn each_failure_of_a_transfer_has_its_answer_and_its_reason() {
    let mail = |transfer: Transfer| protected_offer(&transfer.message());
    let two_protocols = {
        let offer = String::from_utf8(mail(Transfer::default())).expect("text");
        format!("{offer}a=key-mgmt:keyp1 AQID\r\n").into_bytes()
    };
    let offers = [
        (protected_offer(&changed(b"", 1)), 488, "WrongMac"),
        // In the keys of the ticket, which end a few bytes before the name of the key they are under.
        (protected_offer(&changed(b"development-tpk", 10)), 488, "WrongTicketMac"),
        (mail(Transfer { key: b"another key: 16 ", ..Transfer::default() }), 488, "WrongTicketMac"),
        (
            mail(Transfer { key_identity: b"nobody's", ..Transfer::default() }),
            488,
            "UnknownKeyIdentity",
        ),
        (
            mail(Transfer {
                parameters: parameters(|it| it.ticket_lifetime = Duration::from_secs(20)),
                ticket_age: 50,
                message_age: 40,
                ..Transfer::default()
            }),
            488,
            "TicketExpired",
        ),
        (
            mail(Transfer { ticket_age: 600, message_age: 600, ..Transfer::default() }),
            488,
            "ClockSkew",
        ),
        (
            mail(Transfer { ticket_for: "sip:kitchen@conference.example", ..Transfer::default() }),
            488,
            "ResponderNotInTicket",
        ),
        (
            mail(Transfer {
                ticket_for: "sip:kitchen@conference.example",
                message_for: "sip:kitchen@conference.example",
                ..Transfer::default()
            }),
            488,
            "OtherRoom",
        ),
        (
            mail(Transfer {
                ticket_for: "sip:lobby@elsewhere.example",
                message_for: "sip:lobby@elsewhere.example",
                ..Transfer::default()
            }),
            488,
            "NotForUs",
        ),
        (
            mail(Transfer { caller: "sip:eve@example.com", ..Transfer::default() }),
            403,
            "OtherCaller",
        ),
        (
            mail(Transfer { kms: "sip:kms@elsewhere.example", ..Transfer::default() }),
            488,
            "OtherKms",
        ),
        (
            mail(Transfer {
                parameters: parameters(|it| it.protection_type_tls = 242),
                ..Transfer::default()
            }),
            488,
            "ProtectionTypeNotAccepted",
        ),
        (two_protocols, 488, "ProtocolListMismatch"),
    ];
    assert_refused(|_| {}, &offers).await;
}

/// What is wrong behind a MAC that is right.
#[tokio::test]
async fn a_caller_with_the_keys_who_breaks_the_rules_gets_no_session() {
    let mut unknown_payload = Transfer::default().message();
    // The first payload of HDR: 18 is not assigned.
    unknown_payload[2] = 18;
    let offers = [
        (unknown_payload, "Malformed"),
        (
            sealed(|message| {
                let rands = TicketFlags::INITIATOR_RAND.with(TicketFlags::RESPONDER_RAND);
                *flags(message) = flags(message).without(rands);
            }),
            "UnacceptablePolicy",
        ),
        (
            sealed(|message| *flags(message) = flags(message).with(TicketFlags::MADE_BY_KMS)),
            "UnacceptablePolicy",
        ),
        (
            sealed(|message| {
                let second = sessions(message)[0].clone();
                sessions(message).push(second);
            }),
            "CryptoSessionCount",
        ),
        (sealed(|message| sessions(message)[0].spi = vec![9]), "UnknownSessionKey"),
        (sealed(|message| sessions(message)[0].policy_numbers = vec![7]), "UnknownSecurityPolicy"),
        (sealed(|message| message.header.prf = 9), "UnsupportedPrf"),
        (
            sealed(|message| {
                if let Some(Payload::Verification(verification)) = message.payloads.last_mut() {
                    verification.algorithm = MacAlgorithm::Null;
                    verification.mac.clear();
                }
            }),
            "UnsupportedMac",
        ),
        (
            sealed(|message| {
                message.payloads.retain(|payload| !matches!(payload, Payload::Timestamp(_)));
            }),
            "MissingPayload",
        ),
        (
            sealed(|message| {
                for payload in &mut message.payloads {
                    if let Payload::Randr { rand, .. } = payload {
                        rand.truncate(15);
                    }
                }
            }),
            "RandTooShort",
        ),
    ]
    .map(|(message, reason)| (protected_offer(&message), 488, reason));
    assert_refused(|_| {}, &offers).await;
}

#[tokio::test]
async fn who_may_not_make_or_resolve_a_ticket_gets_no_session() {
    let offers = [(protected_offer(&Transfer::default().message()), 488, "NotAuthorised")];
    let others = || vec![UriPattern("*@elsewhere.example".to_owned())];
    // The caller's key is not for this caller.
    assert_refused(|settings| settings.kms.ticket_keys[0].may_act_as = others(), &offers).await;
    // We are not to resolve tickets for this room.
    assert_refused(|settings| settings.kms.users[0].may_act_as = others(), &offers).await;
}

#[tokio::test]
async fn what_was_sound_once_is_a_replay_the_second_time() {
    let mut settings = config();
    settings.sip.domains = vec!["conference.example".to_owned()];
    let node = Node::start(settings).await.expect("starts");
    let (sip, http) = (node.addresses().sip_udp, node.addresses().http);
    let offer = protected_offer(&Transfer::default().message());
    let mut phone = Phone::new(sip).await;
    phone.to = ROOM.to_owned();
    assert_eq!(status(&phone.invite(&offer).await), 200);
    assert_eq!(status(&invite(sip, &offer).await), 488);
    assert_eq!(reasons(http).await, BTreeMap::from([("Replayed".to_owned(), 1)]));
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}
