//! REGISTER and what follows from it, other requests outside of calls, and what is refused.

mod border_world;

use border_world::{
    ACCESS_HOST, ANSWER, CORE_HOST, Dialog, Heard, NETWORK_HOST, OFFER, Received, Refuses, UE_HOST,
    Ua, World,
};
use control_api::border::{Leg, MediaSecurity, SideRole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const MECHANISMS: &str = "Security-Client: ipsec-3gpp;alg=x, msrp-tls;mediasec, udptl-dtls;mediasec\r\n\
                          Require: mediasec\r\nProxy-Require: mediasec\r\nSupported: path, mediasec\r\n";

/// REGISTER, 401, REGISTER, 200; what the network got last, and what the UE got.
async fn register(world: &mut World, call: &mut Dialog, expires: u32) -> (Received, Received) {
    call.target = "sip:ims.example".to_owned();
    call.to = "<sip:alice@ims.example>".to_owned();
    call.from = call.to.clone();
    let headers = format!("{MECHANISMS}Expires: {expires}\r\n");
    world.ue.send(&call.request("REGISTER", &headers, "")).await;
    let register = world.network.request("REGISTER").await;
    let challenge = "WWW-Authenticate: Digest realm=\"ims\", nonce=\"n\"\r\n";
    world.network.reply(&register, "401 Unauthorized", "net", challenge, "").await;
    let challenged = world.ue.response(401).await;
    assert_eq!(challenged.header("WWW-Authenticate"), Some("Digest realm=\"ims\", nonce=\"n\""));
    let server = challenged.header("Security-Server").expect("mechanisms");
    for mechanism in ["msrp-tls;mediasec", "bfcp-tls;mediasec", "udptl-dtls;mediasec"] {
        assert!(server.contains(mechanism), "{server}");
    }
    // What it repeats of ours is not what it does.
    let headers = format!(
        "{headers}Authorization: Digest username=\"alice\"\r\nSecurity-Verify: {server}\r\n"
    );
    world.ue.send(&call.request("REGISTER", &headers, "")).await;
    let authorized = world.network.request("REGISTER").await;
    assert_eq!(authorized.header("Authorization"), Some("Digest username=\"alice\""));
    // Same Call-ID, greater number: the registrar sees the order.
    assert_eq!(authorized.header("Call-ID"), register.header("Call-ID"));
    assert_ne!(authorized.header("CSeq"), register.header("CSeq"));
    let contact = authorized.header("Contact").expect("a Contact");
    let headers = format!(
        "Contact: {contact};expires={expires}\r\nP-Associated-URI: <sip:alice@ims.example>, <tel:+49>\r\n\
         Service-Route: <sip:scscf@{NETWORK_HOST};lr>\r\nPath: <sip:{CORE_HOST}>\r\n"
    );
    world.network.reply(&authorized, "200 OK", "net", &headers, "").await;
    let ok = world.ue.response(200).await;
    (authorized, ok)
}

#[tokio::test]
async fn a_registered_ue_is_called_where_it_is_with_what_it_has_agreed() {
    let mut world = World::start().await;
    let mut registration = Dialog::new(&world.ue, "register");
    let (register, ok) = register(&mut world, &mut registration, 600).await;
    assert_eq!(register.header("Security-Client"), Some("ipsec-3gpp;alg=x"));
    assert_eq!((register.header("Require"), register.header("Proxy-Require")), (None, None));
    assert_eq!(register.header("Supported"), Some("path"));
    for host in [UE_HOST, ACCESS_HOST] {
        assert!(!register.text().contains(host), "{}", register.text());
    }
    for host in [NETWORK_HOST, CORE_HOST] {
        assert!(!ok.text().contains(host), "{}", ok.text());
    }
    let own = world.ue.local().to_string();
    let contact = ok.header("Contact").expect("a Contact");
    assert!(contact.contains(&own) && contact.contains("expires=600"), "{contact}");
    assert_eq!(world.b2bua.registrations(), 1);

    // The network calls the contact it knows.
    world.network.peer = register.source;
    let mut call = Dialog::new(&world.network, "terminating");
    call.target = register.contact_uri();
    call.to = "<sip:alice@ims.example>".to_owned();
    let headers =
        "P-Asserted-Identity: <sip:bob@ims.example>\r\nP-Charging-Vector: icid-value=x\r\n";
    world.network.send(&call.request("INVITE", headers, OFFER)).await;
    let invite = world.ue.request("INVITE").await;
    assert!(invite.head.starts_with(&format!("INVITE sip:alice@{own} SIP/2.0")), "{}", invite.head);
    assert_eq!(invite.header("P-Asserted-Identity"), Some("<sip:bob@ims.example>"));
    assert_eq!(invite.header("P-Charging-Vector"), None);
    let (_, begun) = world.heard().await;
    let Heard::Begun { caller, callee } = begun else { panic!("{begun:?}") };
    assert_eq!((caller.side, callee.side), (SideRole::Core, SideRole::Access));
    assert_eq!(callee.signalling, Some(world.ue.local().ip()));
    let agreed = MediaSecurity { msrp_tls: true, udptl_dtls: true, ..MediaSecurity::default() };
    assert_eq!((caller.security, callee.security), (MediaSecurity::default(), agreed));
    world.ue.reply(&invite, "200 OK", "ue", "", ANSWER).await;
    let ok = world.network.response(200).await;
    call.remote_tag = Some(ok.to_tag().to_owned());
    world.network.send(&call.request("ACK", "", "")).await;
    world.ue.request("ACK").await;
}

#[tokio::test]
async fn a_registered_caller_is_asserted_and_one_that_hides_is_not_shown() {
    let mut world = World::start().await;
    let mut registration = Dialog::new(&world.ue, "register");
    let (_, _) = register(&mut world, &mut registration, 600).await;
    let mut call = Dialog::new(&world.ue, "asserted");
    let preferred = "P-Preferred-Identity: <tel:+49>\r\n";
    world.ue.send(&call.request("INVITE", preferred, OFFER)).await;
    let invite = world.network.request("INVITE").await;
    assert_eq!(invite.header("P-Asserted-Identity"), Some("<tel:+49>"));
    assert!(invite.header("Route").is_some_and(|it| it.contains("scscf")));
    let hidden = "P-Asserted-Identity: <sip:bob@ims.example>\r\nPrivacy: id\r\n";
    world.network.reply(&invite, "180 Ringing", "net", hidden, "").await;
    let ringing = world.ue.response(180).await;
    assert_eq!(ringing.header("P-Asserted-Identity"), None);
    let (_, begun) = world.heard().await;
    assert!(matches!(begun, Heard::Begun { caller, .. } if caller.security.msrp_tls));
    assert_eq!(world.heard().await.1, Heard::Offer(Leg::Caller));
}

/// A registrar that says nothing of identities: the address of record is the one.
async fn register_plainly(world: &mut World, name: &str, to: &str) -> Received {
    let mut registration = Dialog::new(&world.ue, name);
    registration.target = "sip:ims.example".to_owned();
    registration.to = to.to_owned();
    let more = format!("Contact: <sip:{name}@192.0.2.1>\r\n");
    world.ue.send(&registration.request("REGISTER", &more, "")).await;
    let register = world.network.request("REGISTER").await;
    let contacts = register.all("Contact").into_iter();
    let contact: String =
        contacts.map(|contact| format!("Contact: {contact};expires=600\r\n")).collect();
    world.network.reply(&register, "200 OK", "net", &contact, "").await;
    world.ue.response_to("REGISTER", 200).await;
    register
}

#[tokio::test]
async fn no_display_name_passes_for_an_identity() {
    let mut world = World::start().await;
    let mut registration = Dialog::new(&world.ue, "register");
    register(&mut world, &mut registration, 600).await;
    let mut call = Dialog::new(&world.ue, "preferred");
    let preferred =
        "P-Preferred-Identity: \"x<sip:alice@ims.example>\" <sip:victim@ims.example>\r\n";
    world.ue.send(&call.request("INVITE", preferred, OFFER)).await;
    let invite = world.network.request("INVITE").await;
    assert_eq!(invite.all("P-Asserted-Identity"), ["<sip:alice@ims.example>"]);

    let mut world = World::start().await;
    let to = "\"<sip:victim@ims.example>\" <sip:mallory@ims.example>";
    register_plainly(&mut world, "register", to).await;
    let mut call = Dialog::new(&world.ue, "registered");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    assert_eq!(invite.all("P-Asserted-Identity"), ["<sip:mallory@ims.example>"]);
}

#[tokio::test]
async fn users_of_one_socket_are_told_apart() {
    let mut world = World::start().await;
    for user in ["alice", "bob"] {
        register_plainly(&mut world, user, &format!("<sip:{user}@ims.example>")).await;
    }
    for user in ["alice", "bob"] {
        let mut call = Dialog::new(&world.ue, &format!("of-{user}"));
        call.from = format!("<sip:{user}@ims.example>");
        world.ue.send(&call.request("MESSAGE", "", "hello")).await;
        let message = world.network.request("MESSAGE").await;
        let asserted = format!("<sip:{user}@ims.example>");
        assert_eq!(message.header("P-Asserted-Identity"), Some(asserted.as_str()));
        world.network.reply(&message, "200 OK", "net", "", "").await;
    }
    // One that goes leaves the other where it is.
    let mut registration = Dialog::new(&world.ue, "bob-again");
    registration.to = "<sip:bob@ims.example>".to_owned();
    let all = "Contact: <sip:bob@192.0.2.1>\r\nExpires: 0\r\n";
    world.ue.send(&registration.request("REGISTER", all, "")).await;
    let gone = world.network.request("REGISTER").await;
    world.network.reply(&gone, "200 OK", "net", "X-None: x\r\n", "").await;
    world.ue.response_to("REGISTER", 200).await;
    let mut call = Dialog::new(&world.ue, "left");
    world.ue.send(&call.request("MESSAGE", "", "hello")).await;
    let message = world.network.request("MESSAGE").await;
    assert_eq!(message.header("P-Asserted-Identity"), Some("<sip:alice@ims.example>"));
}

#[tokio::test]
async fn a_datagram_is_not_of_whom_a_connection_is() {
    let mut world = World::start().await;
    let access = world.b2bua.addresses(SideRole::Access).expect("configured").tcp;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(world.ue.local()).expect("free");
    let mut stream = socket.connect(access).await.expect("listens");
    let over_stream = |message: String| message.replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let mut registration = Dialog::new(&world.ue, "stream");
    registration.to = "<sip:alice@ims.example>".to_owned();
    let register = over_stream(registration.request("REGISTER", "", ""));
    stream.write_all(register.as_bytes()).await.expect("open");
    let register = world.network.request("REGISTER").await;
    let contact = register.header("Contact").expect("a Contact");
    let contact = format!("Contact: {contact};expires=600\r\n");
    world.network.reply(&register, "200 OK", "net", &contact, "").await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"SIP/2.0 200 ");

    let mut spoofed = Dialog::new(&world.ue, "spoofed");
    world.ue.send(&spoofed.request("MESSAGE", "", "hello")).await;
    let message = world.network.request("MESSAGE").await;
    assert_eq!(message.header("P-Asserted-Identity"), None);
    world.network.reply(&message, "403 Forbidden", "net", "", "").await;
    let mut own = Dialog::new(&world.ue, "own");
    let message = over_stream(own.request("MESSAGE", "", "hello"));
    stream.write_all(message.as_bytes()).await.expect("open");
    let message = world.network.request("MESSAGE").await;
    assert_eq!(message.header("P-Asserted-Identity"), Some("<sip:alice@ims.example>"));
}

#[tokio::test]
async fn a_ue_does_not_say_what_only_the_network_may() {
    let mut world = World::start().await;
    let mut registration = Dialog::new(&world.ue, "protected");
    let headers = "Authorization: Digest integrity-protected=\"yes\", username=\"a,\\\"b\", \
                   Integrity-Protected = yes,uri=\"sip:x\"\r\n\
                   P-Access-Network-Info: 3GPP-E-UTRAN-FDD;x=1, 3GPP-NR;network-provided\r\n";
    world.ue.send(&registration.request("REGISTER", headers, "")).await;
    let register = world.network.request("REGISTER").await;
    let authorization = Some("Digest username=\"a,\\\"b\", uri=\"sip:x\"");
    assert_eq!(register.header("Authorization"), authorization);
    assert_eq!(register.header("P-Access-Network-Info"), Some("3GPP-E-UTRAN-FDD;x=1"));
}

#[tokio::test]
async fn a_registration_ends_with_its_time_or_at_the_ues_wish() {
    let mut world = World::start().await;
    let mut registration = Dialog::new(&world.ue, "register");
    register(&mut world, &mut registration, 600).await;
    world.ue.send(&registration.request("REGISTER", "Expires: 0\r\n", "")).await;
    let gone = world.network.request("REGISTER").await;
    world.network.reply(&gone, "200 OK", "net", "Contact-Not: x\r\n", "").await;
    world.ue.response_to("REGISTER", 200).await;
    assert_eq!(world.b2bua.registrations(), 0);
    register(&mut world, &mut registration, 1).await;
    while world.b2bua.registrations() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.b2bua.metrics().registrations_expired.get(), 1);
    // Who is not registered is not there.
    world.network.peer = gone.source;
    let mut call = Dialog::new(&world.network, "gone");
    call.target = gone.contact_uri();
    world.network.send(&call.request("INVITE", "", OFFER)).await;
    world.network.response(404).await;
    world.await_empty().await;
}

#[tokio::test]
async fn more_contacts_than_a_user_may_have_are_refused() {
    let mut world =
        World::start_with(|config| config.contacts_per_user_max = 0, Refuses::default()).await;
    let mut registration = Dialog::new(&world.ue, "many");
    world.ue.send(&registration.request("REGISTER", "", "")).await;
    world.ue.response(403).await;
    let mut world =
        World::start_with(|config| config.registrations_max = 0, Refuses::default()).await;
    let mut registration = Dialog::new(&world.ue, "full");
    world.ue.send(&registration.request("REGISTER", "", "")).await;
    assert!(world.ue.response(503).await.header("Retry-After").is_some());
    // In one request they are no fewer.
    let mut world =
        World::start_with(|config| config.contacts_per_user_max = 2, Refuses::default()).await;
    let mut registration = Dialog::new(&world.ue, "at-once");
    let more = "Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.1>\r\n";
    world.ue.send(&registration.request("REGISTER", more, "")).await;
    world.ue.response(403).await;
    world.network.gets_no("REGISTER").await;
}

#[tokio::test]
async fn requests_outside_of_calls_are_passed_and_answered() {
    let mut world = World::start().await;
    for method in ["MESSAGE", "PUBLISH", "OPTIONS"] {
        let mut request = Dialog::new(&world.ue, method);
        let text = "Content-Type: text/plain\r\n";
        world.ue.send(&request.request(method, text, "hello")).await;
        let passed = world.network.request(method).await;
        assert_eq!(passed.body, "hello");
        assert!(!passed.text().contains(UE_HOST), "{}", passed.text());
        world.network.reply(&passed, "202 Accepted", "net", "X-Answer: yes\r\n", "").await;
        let answer = world.ue.response_to(method, 202).await;
        assert_eq!(answer.header("X-Answer"), Some("yes"));
        assert!(!answer.text().contains(NETWORK_HOST), "{}", answer.text());
    }
    // What is asked of us we answer.
    let mut request = Dialog::new(&world.ue, "ourselves");
    request.target = format!("sip:{}", world.ue.peer);
    world.ue.send(&request.request("OPTIONS", "", "")).await;
    let ok = world.ue.response_to("OPTIONS", 200).await;
    assert!(ok.header("Allow").is_some_and(|allow| allow.contains("PRACK")));
    world.network.gets_no("OPTIONS").await;
    world.await_empty().await;
}

#[tokio::test]
async fn a_subscription_has_its_notifications() {
    let mut world = World::start().await;
    let mut subscription = Dialog::new(&world.ue, "subscribe");
    world.ue.send(&subscription.request("SUBSCRIBE", "Event: reg\r\nExpires: 600\r\n", "")).await;
    let subscribe = world.network.request("SUBSCRIBE").await;
    let mut notifier = Dialog::of_callee(&world.network, &subscribe, "net");
    world.network.peer = subscribe.source;
    // It may be faster than the 200.
    let state = "Event: reg\r\nSubscription-State: active\r\n";
    world.network.send(&notifier.request("NOTIFY", state, "")).await;
    let notify = world.ue.request("NOTIFY").await;
    world.ue.reply(&notify, "200 OK", "", "", "").await;
    world.network.response_to("NOTIFY", 200).await;
    world.network.reply(&subscribe, "200 OK", "net", "Expires: 600\r\n", "").await;
    let ok = world.ue.response_to("SUBSCRIBE", 200).await;
    assert_eq!(ok.to_tag(), notify.sender_tag());
    let state = "Event: reg\r\nSubscription-State: terminated\r\n";
    world.network.send(&notifier.request("NOTIFY", state, "")).await;
    let notify = world.ue.request("NOTIFY").await;
    assert_eq!(notify.header("Subscription-State"), Some("terminated"));
    world.ue.reply(&notify, "200 OK", "", "", "").await;
    world.network.response_to("NOTIFY", 200).await;
    world.await_empty().await;
}

/// The request as a proxy sends it on, with that start line.
fn proxied(proxy: &Ua, request: &Received, line: &str) -> String {
    let via = format!("Via: SIP/2.0/UDP {};branch=z9hG4bKproxied\r\n", proxy.local());
    let (_, headers) = request.head.split_once("\r\n").expect("headers");
    format!("{line}\r\n{via}{headers}\r\n\r\n{}", request.body)
}

#[tokio::test]
async fn one_ue_calls_another_through_a_proxy_of_the_network() {
    let mut world = World::start().await;
    let register = register_plainly(&mut world, "register", "<sip:bob@ims.example>").await;
    let mut call = Dialog::new(&world.ue, "spiral");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    let line = format!("INVITE {} SIP/2.0", register.contact_uri());
    world.network.peer = invite.source;
    world.network.send(&proxied(&world.network, &invite, &line)).await;
    let arrived = world.ue.request("INVITE").await;
    assert_eq!(arrived.header("Max-Forwards"), Some("68"));
    assert_eq!(world.b2bua.metrics().loops.get(), 0);
}

#[tokio::test]
async fn what_goes_round_or_has_gone_too_far_is_stopped() {
    let mut world = World::start().await;
    let mut call = Dialog::new(&world.ue, "far");
    world.ue.send(&call.request("INVITE", "Max-Forwards: 0\r\n", OFFER)).await;
    world.ue.response(483).await;
    world.ue.send(&call.request("ACK", "", "")).await;
    let mut call = Dialog::new(&world.ue, "round");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    let invite = world.network.request("INVITE").await;
    world.network.reply(&invite, "100 Trying", "", "", "").await;
    let line = "INVITE sip:bob@ims.example SIP/2.0";
    world.network.peer = invite.source;
    world.network.send(&proxied(&world.network, &invite, line)).await;
    world.network.response(482).await;
    assert_eq!(world.b2bua.metrics().loops.get(), 1);
    let mut call = Dialog::new(&world.ue, "stray");
    call.remote_tag = Some("1-unknown".to_owned());
    world.ue.send(&call.request("BYE", "", "")).await;
    world.ue.response_to("BYE", 481).await;
    world.network.gets_no("INVITE").await;
}

#[tokio::test]
async fn a_call_too_many_is_shed() {
    let mut world = World::start_with(|config| config.calls_max = 1, Refuses::default()).await;
    let mut first = Dialog::new(&world.ue, "first");
    world.establish(&mut first).await;
    let mut second = Dialog::new(&world.ue, "second");
    world.ue.send(&second.request("INVITE", "", OFFER)).await;
    let shed = world.ue.response(503).await;
    assert!(shed.header("Retry-After").is_some());
    world.ue.send(&second.request("ACK", "", "")).await;
    // What is under way goes on.
    world.ue.send(&first.request("BYE", "", "")).await;
    world.ue.response_to("BYE", 200).await;
    let bye = world.network.request("BYE").await;
    world.network.reply(&bye, "200 OK", "", "", "").await;
    world.await_empty().await;
    assert_eq!(world.b2bua.metrics().overloads.get(), 1);
}

#[tokio::test]
async fn a_next_hop_that_does_not_answer_options_is_known_as_dead() {
    let probing = |config: &mut control_api::border::b2bua::B2buaConfig| {
        config.sides[1].probe_interval = std::time::Duration::from_millis(200);
    };
    let mut world = World::start_with(probing, Refuses::default()).await;
    let alive = |world: &World| {
        let states = world.b2bua.next_hops(SideRole::Core);
        states.iter().map(|state| state.alive).collect::<Vec<_>>()
    };
    while alive(&world) != [true, false] {
        let options = world.network.request("OPTIONS").await;
        world.network.reply(&options, "405 Method Not Allowed", "net", "", "").await;
    }
    let mut call = Dialog::new(&world.ue, "alive");
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    world.network.request("INVITE").await;
}

#[tokio::test]
async fn torture_goes_through_or_is_refused_and_breaks_nothing() {
    let mut world = World::start().await;
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/torture");
    let mut sent = 0;
    for rfc in ["rfc4475", "rfc5118"] {
        for entry in std::fs::read_dir(format!("{directory}/{rfc}")).expect("messages") {
            let message = std::fs::read(entry.expect("readable").path()).expect("readable");
            world.ue.send_bytes(&message).await;
            // And to whom answers come.
            let core = world.b2bua.addresses(SideRole::Core).expect("configured").udp;
            world.spare.peer = core;
            world.spare.send_bytes(&message).await;
            sent += 1;
        }
    }
    assert!(sent > 20, "{sent}");
    let mut call = Dialog::new(&world.ue, "after");
    call.target = "sip:after@ims.example".to_owned();
    world.ue.send(&call.request("INVITE", "", OFFER)).await;
    while !world.network.request("INVITE").await.head.starts_with("INVITE sip:after@") {}
    let metrics = world.b2bua.sip_metrics(SideRole::Access).expect("configured");
    assert!(metrics.gate_malformed.get() > 0);
}
