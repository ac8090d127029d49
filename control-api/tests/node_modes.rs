//! Every mode of MIKEY-TICKET over real sockets: a phone calls a node, a node calls a phone, and a node
//! calls another; the KMS is elsewhere. Each call ends in messages over TLS-PSK, and the KMS is asked no
//! more than the mode has it (RFC 6043 section 4.1.1).

mod node_ue;
mod rsa_certificates;
mod support;

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use control_api::config::{
    Config, DEVELOPMENT_KEY, DEVELOPMENT_KEY_ID, DEVELOPMENT_TICKET_KEY, DEVELOPMENT_TICKET_KEY_ID,
    KmsIssuingKey, KmsMode, KmsServer, KmsSharedTicketKey, KmsSignedRequests, MikeyCertificate,
    MikeySuite, MikeyTicketKey, Secret, SharedWith, UriPattern,
};
use control_api::mikey::codec::{self, Ticket, TicketFlags};
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    self, Credentials, Established, GrantedTicket, HeldTicketKey, Initiator, KeyPair, Parameters,
    PreSharedKey, Responder, ResponderConfig, Suite, TicketMaker, TicketProtectionKey, TicketWish,
    TransferOptions,
};
use control_api::mrfc::{DialSecurity, TicketOpener, TicketSource};
use control_api::node::{Node, StandaloneKms, Stopped};
use node_ue::callee::{Callee, ask_kms, body, key_management, keyed_answer};
use node_ue::member::{Member, cpim, message};
use node_ue::{
    Phone, Protected, assert_becomes_empty, authority, binding_send, config, dial, line, now,
    protected_offer, status, stop,
};
use rsa_certificates::{Issuer, authority_until, issue};
use support::http::request;

const ALICE: &str = "sip:alice@example.com";
const TEA: &str = "sip:tea@a.example";
const LOBBY: &str = "sip:lobby@b.example";
const KMS_URI: &str = "sip:kms@localhost";

/// How calls are keyed, and what that asks of the KMS.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    suite: MikeySuite,
    ticket: TicketSource,
    opener: TicketOpener,
    key_forking: bool,
    /// The second call has the ticket of the first.
    reused: bool,
    /// The KMS is asked with certificates.
    signed: bool,
    /// Tickets issued and resolved, for all calls of one kind.
    asked: (u64, u64),
}

const MODE_1: Case = Case {
    name: "mode 1",
    suite: MikeySuite::Aes128,
    ticket: TicketSource::Kms,
    opener: TicketOpener::Kms,
    key_forking: false,
    reused: false,
    signed: false,
    asked: (1, 1),
};
const MODE_2: Case = Case { name: "mode 2", opener: TicketOpener::Callee, asked: (1, 0), ..MODE_1 };
const MODE_3: Case = Case { name: "mode 3", ticket: TicketSource::Own, asked: (0, 1), ..MODE_1 };
const MODE_4: Case = Case { name: "mode 4", ticket: TicketSource::Own, asked: (0, 0), ..MODE_2 };

const CASES: [Case; 12] = [
    MODE_1,
    MODE_2,
    MODE_3,
    MODE_4,
    Case { name: "mode 1, 256 bits", suite: MikeySuite::Aes256, ..MODE_1 },
    Case { name: "mode 2, 256 bits", suite: MikeySuite::Aes256, ..MODE_2 },
    Case { name: "mode 3, 256 bits", suite: MikeySuite::Aes256, ..MODE_3 },
    Case { name: "mode 4, 256 bits", suite: MikeySuite::Aes256, ..MODE_4 },
    Case { name: "forked keys", key_forking: true, ..MODE_1 },
    Case { name: "used again", reused: true, ..MODE_1 },
    Case { name: "forked keys, used again", key_forking: true, reused: true, ..MODE_1 },
    Case { name: "signed requests", signed: true, ..MODE_1 },
];

impl Case {
    fn calls(&self) -> usize {
        if self.reused { 2 } else { 1 }
    }

    fn parameters(&self) -> Parameters {
        let suite = match self.suite {
            MikeySuite::Aes128 => Suite::S128,
            MikeySuite::Aes256 => Suite::S256,
        };
        Parameters { suite, ..Parameters::default() }
    }

    fn flags(&self) -> TicketFlags {
        let mut flags = TicketWish::new(KMS_URI, ALICE, &[LOBBY]).flags;
        if self.opener == TicketOpener::Callee {
            flags = flags.without(TicketFlags::RESOLVE_MANDATORY);
        }
        if self.key_forking { flags.with(TicketFlags::KEY_FORKING) } else { flags }
    }

    /// The ticket is the one of the table, whoever made it.
    fn assert_made(&self, ticket: &Ticket) {
        let flags = ticket.policy.flags;
        let has = |flag| flags.has(flag);
        assert_eq!(
            has(TicketFlags::MADE_BY_KMS),
            self.ticket == TicketSource::Kms,
            "{}",
            self.name
        );
        let by_kms = self.opener == TicketOpener::Kms;
        assert_eq!(has(TicketFlags::RESOLVE_MANDATORY), by_kms, "{}", self.name);
        assert_eq!(has(TicketFlags::KEY_FORKING), self.key_forking, "{}", self.name);
        assert_eq!(ticket.policy.prf, self.parameters().suite.prf().code(), "{}", self.name);
    }

    fn assert_keyed(&self, established: &Established) {
        let bytes = self.parameters().suite.key_bytes();
        assert_eq!(established.psk.expose().len(), bytes, "{}", self.name);
    }
}

/// A KMS, and certificates for everybody.
struct World {
    kms: StandaloneKms,
    kms_address: SocketAddr,
    kms_http: SocketAddr,
    root: Issuer,
    kms_certificate: Vec<u8>,
    folder: tempfile::TempDir,
}

fn address_in(line: &str, name: &str) -> SocketAddr {
    let value = line.split(' ').find_map(|word| word.strip_prefix(name)).expect("named");
    value.parse().expect("an address")
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("fits")
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("random bytes");
}

fn secret(fill: u8) -> Secret {
    Secret::from_bytes(vec![fill; 32])
}

fn ticket_key(id: &str, fill: u8) -> TicketProtectionKey {
    TicketProtectionKey { identity: id.as_bytes().to_vec(), key: vec![fill; 32].into() }
}

fn patterns(patterns: &[&str]) -> Vec<UriPattern> {
    patterns.iter().map(|pattern| UriPattern((*pattern).to_owned())).collect()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = authority_until("root", unix_now() - 3600..unix_now() + 86_400);
        let own = issue("kms", Some(KMS_URI), &root);
        let (chain, key) = own.write(folder.path(), "kms");
        let authorities = folder.path().join("root");
        std::fs::write(&authorities, root.certificate.to_pem().expect("PEM")).expect("written");
        let mut config = config();
        config.kms.issuing_keys =
            vec![KmsIssuingKey { id: "issuing".to_owned(), key: secret(0x11) }];
        let shared = |id: &str, fill, responders: &[&str]| KmsSharedTicketKey {
            id: id.to_owned(),
            key: secret(fill),
            responders: patterns(responders),
        };
        config.kms.shared_ticket_keys = vec![
            shared("kms-b", 0x12, &["*@b.example"]),
            shared("kms-bob", 0x13, &["*@127.0.0.1"]),
        ];
        let authorities = vec![authorities];
        config.kms.signed_requests = Some(KmsSignedRequests { chain, key, authorities });
        let kms = StandaloneKms::start(config, None).await.expect("starts");
        let line = kms.ready_line();
        Self {
            kms_address: address_in(&line, "kms="),
            kms_http: address_in(&line, "http="),
            kms,
            root,
            kms_certificate: own.certificate.to_der().expect("DER"),
            folder,
        }
    }

    /// A node that asks the KMS there is, and calls as the case says.
    fn node_config(&self, case: &Case, room: &str) -> Config {
        let mut config = config();
        let host = room.rsplit('@').next().expect("a host");
        config.sip.domains = vec![host.to_owned()];
        config.mikey.suite = case.suite;
        config.kms.mode = KmsMode::Remote;
        config.kms.servers = vec![KmsServer { url: format!("http://{}", self.kms_address) }];
        config.kms.client.response_timeout_milliseconds = 4000;
        config.kms.client.timeout_milliseconds = 4900;
        config.conference.dial_security = DialSecurity::Mikey;
        config.conference.dial_ticket = case.ticket;
        config.conference.dial_ticket_opened_by = case.opener;
        config.conference.dial_ticket_key = Some(DEVELOPMENT_TICKET_KEY_ID.to_owned());
        config.conference.dial_key_forking = case.key_forking;
        config.conference.dial_tickets_kept_max = usize::from(case.reused);
        if case.signed {
            // The node has no other way to be known.
            config.kms.users.clear();
            let own = issue(room, Some(room), &self.root);
            let (chain, key) = own.write(self.folder.path(), host);
            let kms = self.folder.path().join("kms");
            config.mikey.certificate = Some(MikeyCertificate { chain, key, kms });
        }
        config
    }

    /// The node that is called: it shares keys with the KMS and with both who call it.
    async fn called(&self, case: &Case) -> Node {
        let mut config = self.node_config(case, LOBBY);
        let users = |id: &str, fill, users: &[&str]| MikeyTicketKey {
            id: id.to_owned(),
            key: secret(fill),
            shared_with: SharedWith::Users,
            users: patterns(users),
        };
        config.mikey.ticket_keys = vec![
            MikeyTicketKey { shared_with: SharedWith::Kms, ..users("kms-b", 0x12, &[]) },
            users("alice-b", 0x21, &[ALICE]),
            users("a-b", 0x22, &["*@a.example"]),
        ];
        Node::start(config).await.expect("starts")
    }

    /// The node that calls; by way of a proxy, where those it calls have no numeric address.
    async fn caller(&self, case: &Case, proxy: Option<SocketAddr>) -> Node {
        let mut config = self.node_config(case, TEA);
        config.conference.outbound_proxy = proxy;
        let users = |id: &str, fill, user: &str| MikeyTicketKey {
            id: id.to_owned(),
            key: secret(fill),
            shared_with: SharedWith::Users,
            users: patterns(&[user]),
        };
        config.mikey.ticket_keys =
            vec![users("a-b", 0x22, "*@b.example"), users("a-bob", 0x23, "*@127.0.0.1")];
        Node::start(config).await.expect("starts")
    }

    fn key_pair(&self, uri: &str) -> KeyPair {
        let issued = issue("phone", Some(uri), &self.root);
        let key = issued.key.private_key_to_pem_pkcs8().expect("PEM");
        KeyPair::from_pem(&issued.certificate.to_pem().expect("PEM"), &key).expect("a pair")
    }

    /// Tickets the KMS has issued and resolved.
    async fn asked(&self) -> (u64, u64) {
        let metrics = request(self.kms_http, "GET", "/metrics").await.text();
        let of = |message: &str| {
            let line = format!("mrf_kms_requests_total{{message=\"{message}");
            let lines = metrics.lines().filter(|text| text.starts_with(&line));
            let answered = lines.filter(|text| text.contains("outcome=\"answered\""));
            let counts = answered.filter_map(|text| text.rsplit(' ').next()?.parse::<u64>().ok());
            counts.sum()
        };
        (of("request_init"), of("resolve_init"))
    }

    async fn assert_asked(&self, case: &Case, before: (u64, u64), kind: &str) {
        let after = self.asked().await;
        let asked = (after.0 - before.0, after.1 - before.1);
        assert_eq!(asked, case.asked, "{}, {kind}: tickets issued and resolved", case.name);
    }

    /// Alice's ticket for the lobby.
    async fn ticket(&self, case: &Case) -> GrantedTicket {
        let parameters = case.parameters();
        let wish = TicketWish { flags: case.flags(), ..TicketWish::new(KMS_URI, ALICE, &[LOBBY]) };
        if case.ticket == TicketSource::Own {
            let key = match case.opener {
                TicketOpener::Kms => TicketProtectionKey {
                    identity: DEVELOPMENT_TICKET_KEY_ID.as_bytes().to_vec(),
                    key: DEVELOPMENT_TICKET_KEY.to_vec().into(),
                },
                TicketOpener::Callee => ticket_key("alice-b", 0x21),
            };
            let made = GrantedTicket::make_as_wished(&parameters, &wish, &key, now(), &mut random);
            return made.expect("a ticket");
        }
        let (own, key) = (self.key_pair(ALICE), kms_key());
        let credentials = self.credentials(case, &own, &key);
        let asked = request_ticket(&parameters, &wish, credentials, now(), &mut random);
        let (pending, message) = asked.expect("a request");
        let answer = ask_kms(self.kms_address, "ticketrequest", &message).await;
        pending.finish(&answer, now()).expect("granted")
    }

    fn credentials<'a>(
        &'a self,
        case: &Case,
        own: &'a KeyPair,
        key: &'a PreSharedKey,
    ) -> Credentials<'a> {
        if case.signed {
            Credentials::PublicKey { own, kms_certificate: &self.kms_certificate }
        } else {
            Credentials::PreShared(key)
        }
    }

    /// A phone calls a room of a node.
    async fn dial_in(&self, case: &Case) {
        let node = self.called(case).await;
        let sip = node.addresses().sip_udp;
        let mut carol = Member::call(sip, LOBBY, Some("sip:carol@example.com")).await;
        let before = self.asked().await;
        let ticket = self.ticket(case).await;
        case.assert_made(ticket.ticket());
        for _ in 0..case.calls() {
            let (initiator, transfer_init) = Initiator::begin(
                &case.parameters(),
                &ticket,
                LOBBY,
                TransferOptions::default(),
                now(),
                &mut random,
            )
            .expect("a call");
            let mut phone = Phone::new(sip).await;
            LOBBY.clone_into(&mut phone.to);
            let answer = phone.invite(&protected_offer(&transfer_init)).await;
            assert_eq!(status(&answer), 200, "{}: {answer}", case.name);
            let finished = initiator.finish(&key_management(&answer), now());
            let established = finished.expect("TRANSFER_RESP is sound");
            case.assert_keyed(&established);
            let identity = established.psk_identity.as_bytes();
            let mut media =
                Protected::connect(authority(&answer), identity, &established.psk).await;
            media.send(&binding_send(&answer)).await;
            media.receive("200 OK").await;
            let own = "msrps://127.0.0.1:9/phoneSession1;tcp";
            let text = cpim(ALICE, LOBBY, "from the phone");
            let path = line(&answer, "a=path:");
            media.send(&message("from0phone", path, own, "message/cpim", &text)).await;
            media.receive("MSRP from0phone 200").await;
            carol.hear("from the phone").await;
            let text = cpim("sip:carol@example.com", LOBBY, "to the phone");
            carol.say("message/cpim", &text).await;
            media.receive("to the phone").await;
            assert_eq!(status(&phone.ask("BYE", b"").await), 200);
        }
        self.assert_asked(case, before, "a phone calls").await;
        carol.leave().await;
        assert_becomes_empty(node.addresses().http).await;
        stop(node).await;
    }

    /// A node calls a phone.
    async fn dial_out(&self, case: &Case) {
        let node = self.caller(case, None).await;
        let sip = node.addresses().sip_udp;
        let mut alice = Member::call(sip, TEA, None).await;
        let bob = Callee::new(sip).await;
        let mut phone = Answering::new(self, case, &bob.uri());
        let before = self.asked().await;
        let mut tickets: Vec<Vec<u8>> = Vec::new();
        for _ in 0..case.calls() {
            dial(node.addresses().http, &bob.uri()).await;
            let invite = bob.receive("INVITE ").await;
            let offer = body(&invite);
            let transfer_init = codec::parse(&key_management(offer)).expect("TRANSFER_INIT");
            let ticket = transfer_init.ticket().expect("TICKET");
            case.assert_made(ticket);
            tickets.push(ticket.data.clone());
            let (established, transfer_resp) = phone.answer(&key_management(offer)).await;
            case.assert_keyed(&established);
            let nowhere = "127.0.0.1:9".parse().expect("an address");
            let answer = keyed_answer("active", nowhere, &transfer_resp);
            bob.respond(&invite, "200 OK", &answer).await;
            bob.receive("ACK ").await;
            let identity = established.psk_identity.as_bytes();
            let mut media = Protected::connect(authority(offer), identity, &established.psk).await;
            let (room, own) = (line(offer, "a=path:"), "msrps://127.0.0.1:9/calleeSession1;tcp");
            media.send(&message("from0bob", room, own, "text/plain", "from the callee")).await;
            media.receive("MSRP from0bob 200").await;
            alice.hear("from the callee").await;
            alice.say("text/plain", "to the callee").await;
            media.receive("to the callee").await;
            drop(media);
            let bye = bob.receive("BYE ").await;
            bob.respond(&bye, "200 OK", "").await;
            wait_for_members(&node, 1).await;
        }
        tickets.dedup();
        assert_eq!(tickets.len(), 1, "{}: the ticket is used again", case.name);
        self.assert_asked(case, before, "a phone is called").await;
        alice.leave().await;
        assert_becomes_empty(node.addresses().http).await;
        stop(node).await;
    }

    /// A node calls a room of another.
    async fn between_nodes(&self, case: &Case) {
        let called = self.called(case).await;
        let before = self.asked().await;
        let proxy = called.addresses().sip_udp;
        let caller = self.caller(case, Some(proxy)).await;
        // Each room knows the other one as a participant, and lets nobody else speak on that session.
        let mut alice = Member::call(caller.addresses().sip_udp, TEA, Some(TEA)).await;
        let mut bob = Member::call(proxy, LOBBY, Some(LOBBY)).await;
        for call in 0..case.calls() {
            dial(caller.addresses().http, LOBBY).await;
            wait_for_members(&caller, 2).await;
            wait_for_members(&called, 2).await;
            for node in [&caller, &called] {
                let rooms = request(node.addresses().http, "GET", "/api/v1/rooms").await.text();
                assert_eq!(rooms.matches("\"security\":\"tls-psk\"").count(), 1, "{rooms}");
            }
            let there = format!("from one room, {call}");
            alice.say("message/cpim", &cpim(TEA, LOBBY, &there)).await;
            bob.hear(&there).await;
            let back = format!("to the other, {call}");
            bob.say("message/cpim", &cpim(LOBBY, TEA, &back)).await;
            alice.hear(&back).await;
            kick(&called, "lobby", TEA).await;
            wait_for_members(&called, 1).await;
            wait_for_members(&caller, 1).await;
        }
        self.assert_asked(case, before, "a node calls a node").await;
        alice.leave().await;
        bob.leave().await;
        for node in [caller, called] {
            assert_becomes_empty(node.addresses().http).await;
            assert_eq!(node.stop().await, Stopped::Drained);
        }
    }
}

/// Bob's phone as the responder of MIKEY-TICKET.
struct Answering<'a> {
    world: &'a World,
    case: &'a Case,
    responder: Responder,
    own: KeyPair,
}

impl<'a> Answering<'a> {
    fn new(world: &'a World, case: &'a Case, uri: &str) -> Self {
        let mut responder = Responder::new(ResponderConfig {
            accepted: vec![mikey::UriPattern::Any],
            answer_as: Some(uri.to_owned()),
            kms_uri: KMS_URI.to_owned(),
            kms_key: kms_key(),
            parameters: case.parameters(),
        });
        let (kms, nodes) = (TicketMaker::Kms, mikey::UriPattern::Host("a.example".to_owned()));
        responder.hold_ticket_key(HeldTicketKey { key: ticket_key("kms-bob", 0x13), maker: kms });
        let nodes = TicketMaker::Initiators(vec![nodes]);
        responder.hold_ticket_key(HeldTicketKey { key: ticket_key("a-bob", 0x23), maker: nodes });
        Self { world, case, responder, own: world.key_pair(uri) }
    }

    async fn answer(&mut self, transfer_init: &[u8]) -> (Established, Vec<u8>) {
        let Self { world, case, responder, own } = self;
        let transfer = responder.check(transfer_init, "mikey", now()).expect("acceptable");
        if let Some(content) = responder.open(&transfer).expect("sound") {
            return transfer.finish(responder, content, now(), &mut random).expect("authentic");
        }
        let key = kms_key();
        let credentials = world.credentials(case, own, &key);
        let asked = responder.ask_with(credentials, transfer, now(), &mut random);
        let (pending, message) = asked.expect("a question");
        let answer = ask_kms(world.kms_address, "ticketresolve", &message).await;
        pending.finish(responder, &answer, now(), &mut random).expect("resolved")
    }
}

fn kms_key() -> PreSharedKey {
    PreSharedKey {
        identity: DEVELOPMENT_KEY_ID.as_bytes().to_vec(),
        key: DEVELOPMENT_KEY.to_vec().into(),
    }
}

/// Waits until so many members are connected, and there are no others.
async fn wait_for_members(node: &Node, members: usize) {
    let seen = async {
        loop {
            let rooms = request(node.addresses().http, "GET", "/api/v1/rooms").await.text();
            let connected = rooms.matches("\"state\":\"connected\"").count();
            if connected == members && rooms.matches("\"state\":").count() == members {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(node_ue::PATIENCE, seen).await.expect("the members come and go");
}

/// Throws a member out.
async fn kick(node: &Node, room: &str, uri: &str) {
    let http = node.addresses().http;
    let shown = request(http, "GET", &format!("/api/v1/rooms/{room}")).await.text();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let mut members = shown["members"].as_array().expect("members").iter();
    let member = members.find(|member| member["uri"] == uri).expect("a member");
    let path = format!("/api/v1/rooms/{room}/members/{}/kick", member["call"]);
    assert_eq!(request(http, "POST", &path).await.status, 204);
}

#[tokio::test]
async fn every_mode_ends_in_messages_over_tls_whoever_calls() {
    let world = World::new().await;
    for case in CASES {
        world.dial_in(&case).await;
        world.dial_out(&case).await;
        world.between_nodes(&case).await;
    }
    world.kms.stop_token().cancel();
    world.kms.wait().await;
}
