//! The focus of a whole node, over real sockets: event package, factory, and a storm of members.

mod node_ue;
mod roster;
mod support;

use std::net::SocketAddr;

use control_api::node::Node;
use node_ue::{Phone, assert_becomes_empty, config, line, metric, plain_offer, status, stop};
use roster::Roster;
use support::http::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A subscriber over TCP: what it is sent may be larger than a datagram.
struct Subscriber {
    stream: TcpStream,
    buffer: Vec<u8>,
    target: String,
    from: String,
    to_tag: String,
    cseq: u32,
    roster: Roster,
    notifications: usize,
}

impl Subscriber {
    async fn connect(node: SocketAddr, target: &str, from: &str) -> Self {
        Self {
            stream: TcpStream::connect(node).await.expect("connects"),
            buffer: Vec::new(),
            target: target.to_owned(),
            from: from.to_owned(),
            to_tag: String::new(),
            cseq: 0,
            roster: Roster::default(),
            notifications: 0,
        }
    }

    async fn subscribe(&mut self, expires: u32) -> String {
        self.cseq += 1;
        let local = self.stream.local_addr().expect("bound");
        let Self { target, from, to_tag, cseq, .. } = &*self;
        let request = format!(
            "SUBSCRIBE {target} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bKs{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <{from}>;tag=s1\r\nTo: <{target}>{to_tag}\r\n\
             Call-ID: subscription-{port}\r\nCSeq: {cseq} SUBSCRIBE\r\n\
             Contact: <sip:subscriber@{local};transport=tcp>\r\nEvent: conference\r\n\
             Accept: application/conference-info+xml\r\nExpires: {expires}\r\n\
             Content-Length: 0\r\n\r\n",
            port = local.port(),
        );
        self.stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = self.receive().await.0;
        if let Some((_, tag)) = line(&answer, "To: ").split_once(";tag=") {
            self.to_tag = format!(";tag={tag}");
        }
        answer
    }

    async fn receive(&mut self) -> (String, String) {
        let message = async {
            loop {
                if let Some(message) = self.take() {
                    return message;
                }
                let length = self.stream.read_buf(&mut self.buffer).await.expect("reads");
                assert!(length > 0, "the node has closed the connection");
            }
        };
        timeout(node_ue::PATIENCE, message).await.expect("a message in time")
    }

    fn take(&mut self) -> Option<(String, String)> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.buffer[..end].to_vec()).expect("text");
        let length: usize = line(&head, "Content-Length:").parse().expect("a number");
        let body = self.buffer.get(end..end + length)?.to_vec();
        self.buffer.drain(..end + length);
        Some((head, String::from_utf8(body).expect("UTF-8")))
    }

    /// Takes the next NOTIFY, answers it; its Subscription-State.
    async fn notified(&mut self) -> String {
        let (head, body) = self.receive().await;
        assert!(head.starts_with("NOTIFY "), "{head}");
        let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let kept = head.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        let kept: Vec<_> = kept.collect();
        let ok = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", kept.join("\r\n"));
        self.stream.write_all(ok.as_bytes()).await.expect("sent");
        self.roster.take(&body);
        self.notifications += 1;
        line(&head, "Subscription-State:").to_owned()
    }
}

/// A member's call over UDP.
async fn member(node: SocketAddr, room: &str, number: usize) -> Phone {
    let mut phone = Phone::new(node).await;
    phone.from = format!("sip:member{number}@example.com");
    phone.to = format!("sip:{room}@{node}");
    let answer = phone.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    phone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_members_join_and_a_subscriber_knows_it_at_every_version() {
    const MEMBERS: usize = 500;
    let mut settings = config();
    settings.conference.operators = vec!["sip:watcher@example.com".to_owned()];
    let node = Node::start(settings).await.expect("starts");
    let (udp, tcp) = (node.addresses().sip_udp, node.addresses().sip_tcp);
    let http = node.addresses().http;
    let target = format!("sip:storm@{udp}");
    let mut phones = vec![member(udp, "storm", 0).await];

    let mut subscriber = Subscriber::connect(tcp, &target, "sip:watcher@example.com").await;
    let answer = subscriber.subscribe(3600).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(subscriber.notified().await.starts_with("active;"));
    assert_eq!(subscriber.roster.view().user_count, 1);

    let begun = Instant::now();
    let storm = tokio::spawn(async move {
        let mut joined = Vec::new();
        for number in 1..MEMBERS {
            joined.push(member(udp, "storm", number).await);
        }
        joined
    });
    let mut seen = 1;
    while subscriber.roster.view().user_count < MEMBERS {
        subscriber.notified().await;
        let view = subscriber.roster.view();
        // At every version: who has joined by then, in order, and no one else.
        assert!(view.user_count > seen, "a document that tells nothing");
        seen = view.user_count;
        assert_eq!(view.users.len(), seen);
        for number in 0..seen {
            let entity = format!("sip:member{number}@example.com");
            assert!(view.users.contains_key(&entity), "{entity} of {seen}");
        }
    }
    phones.extend(storm.await.expect("all joined"));
    // Two a second, and the ends: whatever the pace of the storm.
    let intervals = begun.elapsed().as_millis() as usize / 500;
    let notifications = subscriber.notifications;
    assert!(notifications <= intervals + 3, "{notifications} in {intervals} intervals");

    // A newcomer gets in one document what the other one knows.
    let mut late = Subscriber::connect(tcp, &target, "sip:member7@example.com").await;
    assert_eq!(status(&late.subscribe(3600).await), 200);
    late.notified().await;
    assert_eq!(late.roster.view(), subscriber.roster.view());
    assert_eq!(metric(http, "mrf_subscriptions").await, 2);

    for phone in &mut phones {
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    }
    // The member's subscription ends with its membership, the operator's with the room.
    for (subscriber, reason) in [(&mut late, "rejected"), (&mut subscriber, "noresource")] {
        loop {
            let (head, body) = subscriber.receive().await;
            let state = line(&head, "Subscription-State:").to_owned();
            if let Some(ended) = state.strip_prefix("terminated;reason=") {
                assert_eq!(ended, reason);
                break;
            }
            assert!(subscriber.roster.take(&body));
            let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
            let kept = head.lines().filter(|l| names.iter().any(|name| l.starts_with(name)));
            let kept: Vec<_> = kept.collect();
            let ok =
                format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", kept.join("\r\n"));
            subscriber.stream.write_all(ok.as_bytes()).await.expect("sent");
        }
    }
    assert_becomes_empty(http).await;
    assert_eq!(metric(http, "mrf_subscriptions").await, 0);
    stop(node).await;
}

#[tokio::test]
async fn strangers_are_not_told_who_is_in_a_conference() {
    let node = Node::start(config()).await.expect("starts");
    let (udp, tcp) = (node.addresses().sip_udp, node.addresses().sip_tcp);
    let mut phone = member(udp, "lobby", 1).await;
    let target = format!("sip:lobby@{udp}");
    let mut stranger = Subscriber::connect(tcp, &target, "sip:eve@example.com").await;
    assert_eq!(status(&stranger.subscribe(3600).await), 403);
    let elsewhere = format!("sip:nowhere@{udp}");
    let mut lost = Subscriber::connect(tcp, &elsewhere, "sip:member1@example.com").await;
    assert_eq!(status(&lost.subscribe(3600).await), 404);
    let mut brief = Subscriber::connect(tcp, &target, "sip:member1@example.com").await;
    let answer = brief.subscribe(10).await;
    assert_eq!((status(&answer), line(&answer, "Min-Expires:")), (423, "60"));
    // Zero asks once.
    let mut once = Subscriber::connect(tcp, &target, "sip:member1@example.com").await;
    assert_eq!(status(&once.subscribe(0).await), 200);
    assert_eq!(once.notified().await, "terminated;reason=timeout");
    assert_eq!(once.roster.view().users.len(), 1);
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    stop(node).await;
}

#[tokio::test]
async fn a_limit_on_subscriptions_is_kept_and_said() {
    let mut settings = config();
    settings.conference.subscriptions_per_room_max = 1;
    settings.conference.subscriptions_max = 2;
    let node = Node::start(settings).await.expect("starts");
    let (udp, tcp) = (node.addresses().sip_udp, node.addresses().sip_tcp);
    let mut phones = Vec::new();
    let mut answers = Vec::new();
    let mut subscribers = Vec::new();
    for room in ["one", "two", "three"] {
        phones.push(member(udp, room, 1).await);
        for _ in 0..2 {
            let target = format!("sip:{room}@{udp}");
            let member = "sip:member1@example.com";
            let mut subscriber = Subscriber::connect(tcp, &target, member).await;
            answers.push(status(&subscriber.subscribe(3600).await));
            subscribers.push(subscriber);
        }
    }
    assert_eq!(answers, [200, 480, 200, 503, 503, 503]);
    for phone in &mut phones {
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    }
    stop(node).await;
}

#[tokio::test]
async fn the_factory_makes_a_room_of_its_own_for_every_call() {
    let mut settings = config();
    settings.conference.factory = Some("conference-factory".to_owned());
    settings.conference.rooms_max = 2;
    let node = Node::start(settings).await.expect("starts");
    let udp = node.addresses().sip_udp;
    let http = node.addresses().http;
    let mut alice = Phone::new(udp).await;
    alice.to = format!("sip:conference-factory@{udp}");
    let answer = alice.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let contact = line(&answer, "Contact:");
    let uri = contact.strip_prefix('<').and_then(|rest| rest.strip_suffix(">;isfocus"));
    let uri = uri.unwrap_or_else(|| panic!("{contact}")).to_owned();
    let user = uri.strip_prefix("sip:").and_then(|rest| rest.split('@').next()).expect("a user");
    // 120 bits, six to a character: nobody guesses it.
    assert!(user.len() >= 20 && user != "conference-factory", "{user}");

    // Its URI leads others into it.
    let mut bob = Phone::new(udp).await;
    bob.from = "sip:bob@example.com".to_owned();
    bob.to = uri.clone();
    assert_eq!(status(&bob.invite(&plain_offer()).await), 200);
    assert_eq!(metric(http, "mrf_rooms").await, 1);

    // Another call makes another room, as many as there may be.
    let mut carol = Phone::new(udp).await;
    carol.from = "sip:carol@example.com".to_owned();
    carol.to = format!("sip:conference-factory@{udp}");
    let answer = carol.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 200);
    assert_ne!(line(&answer, "Contact:"), contact);
    let mut dave = Phone::new(udp).await;
    dave.to = format!("sip:conference-factory@{udp}");
    let answer = dave.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("Retry-After: "), "{answer}");

    for phone in [&mut alice, &mut bob, &mut carol] {
        phone.to = uri.clone();
        assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn an_operator_mutes_throws_out_and_locks() {
    let mut settings = config();
    settings.conference.operators = vec!["sip:watcher@example.com".to_owned()];
    let node = Node::start(settings).await.expect("starts");
    let (udp, tcp) = (node.addresses().sip_udp, node.addresses().sip_tcp);
    let http = node.addresses().http;
    let mut alice = member(udp, "lobby", 1).await;
    let bob = member(udp, "lobby", 2).await;
    let target = format!("sip:lobby@{udp}");
    let mut watcher = Subscriber::connect(tcp, &target, "sip:watcher@example.com").await;
    assert_eq!(status(&watcher.subscribe(3600).await), 200);
    watcher.notified().await;

    let shown = request(http, "GET", "/api/v1/rooms/lobby").await.text();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["locked"], &shown["subscriptions"]), (&false.into(), &1.into()));
    let call = |number: usize| {
        let uri = format!("sip:member{number}@example.com");
        let members = shown["members"].as_array().expect("members").iter();
        let mut found = members.filter(|member| member["uri"] == *uri);
        found.next().expect("a member")["call"].as_u64().expect("a number")
    };
    let post = async |path: String| request(http, "POST", &path).await.status;
    let member_path = |number, what| format!("/api/v1/rooms/lobby/members/{}/{what}", call(number));

    assert_eq!(post(member_path(1, "mute")).await, 204);
    loop {
        let shown = request(http, "GET", "/api/v1/rooms").await.text();
        if shown.contains("\"muted\":true") {
            break;
        }
    }
    assert_eq!(post(member_path(1, "unmute")).await, 204);
    assert_eq!(post("/api/v1/rooms/lobby/lock".to_owned()).await, 204);
    let mut late = Phone::new(udp).await;
    assert_eq!(status(&late.invite(&plain_offer()).await), 403);
    while !watcher.roster.view().locked {
        watcher.notified().await;
    }
    assert_eq!(post("/api/v1/rooms/lobby/unlock".to_owned()).await, 204);

    assert_eq!(post(member_path(2, "kick")).await, 204);
    let bye = bob.receive("BYE ").await;
    assert!(line(&bye, "Reason:").contains("cause=403"), "{bye}");
    bob.accept(&bye).await;
    let booted = |watcher: &Subscriber| {
        let view = watcher.roster.view();
        let user = view.users.get("sip:member2@example.com");
        user.is_some_and(|user| {
            let mut endpoints = user.endpoints.values();
            endpoints.all(|(status, how, _)| {
                status == "disconnected" && how.as_deref() == Some("booted")
            })
        })
    };
    while !booted(&watcher) {
        watcher.notified().await;
    }
    for path in [member_path(2, "kick"), "/api/v1/rooms/elsewhere/lock".to_owned()] {
        assert_eq!(post(path).await, 404);
    }
    assert_eq!(status(&alice.ask("BYE", b"").await), 200);
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_subscription_nobody_refreshes_ends() {
    let mut settings = config();
    settings.conference.subscription_seconds_min = 1;
    let node = Node::start(settings).await.expect("starts");
    let (udp, tcp) = (node.addresses().sip_udp, node.addresses().sip_tcp);
    let mut phone = member(udp, "lobby", 1).await;
    let target = format!("sip:lobby@{udp}");
    let mut subscriber = Subscriber::connect(tcp, &target, "sip:member1@example.com").await;
    assert_eq!(status(&subscriber.subscribe(1).await), 200);
    assert_eq!(subscriber.notified().await, "active;expires=1");
    assert_eq!(subscriber.notified().await, "terminated;reason=timeout");
    assert_eq!(metric(node.addresses().http, "mrf_subscriptions").await, 0);
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
    stop(node).await;
}
