//! RFC 4475 and RFC 5118 against the gate, and against a running node over both transports.

mod sip_ua;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use control_api::mrfc::Event;
use control_api::sip::gate::{self, Transport, Verdict};
use sip_ua::{Caller, Link, Node, OFFER, SILENCE, config};

/// Not answerable, or answered with 400 or 505.
const REJECTED: [&str; 12] = [
    "clerr",
    "ncl",
    "scalar02",
    "scalarlg",
    "badvers",
    "mismatch01",
    "mismatch02",
    "bigcode",
    "insuf",
    "multi01",
    "mcl01",
    "ipv6-bad",
];

/// The RFC lets an element be liberal. The body of `ipv6-in-sdp` is shorter than it says.
const EITHER: [&str; 12] = [
    "badinv01",
    "quotbal",
    "ltgtruri",
    "lwsruri",
    "lwsstart",
    "trws",
    "escruri",
    "baddate",
    "regbadct",
    "badaspec",
    "baddn",
    "ipv6-in-sdp",
];

/// Well-formed, but not for us: what we answer.
const POLICY: [(&str, u16); 6] = [
    ("unkscm", 416),
    ("novelsc", 416),
    ("bext01", 420),
    ("invut", 415),
    ("sdp01", 406),
    ("intmeth", 501),
];

fn messages() -> BTreeMap<String, Vec<u8>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torture");
    let mut messages = BTreeMap::new();
    for directory in ["rfc4475", "rfc5118"] {
        for entry in std::fs::read_dir(data.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            messages.insert(name, std::fs::read(&path).unwrap());
        }
    }
    assert_eq!(messages.len(), 61);
    messages
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5060))
}

fn is_malformed(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Ignore(_) | Verdict::Reject { status: 400 | 505, .. })
}

#[test]
fn gate_gives_the_expected_verdict_on_every_message() {
    for (name, bytes) in messages() {
        let verdict = gate::check(&bytes, Transport::Udp, source());
        println!("{name}: {verdict:?}");
        if REJECTED.contains(&name.as_str()) {
            assert!(is_malformed(&verdict), "{name}: {verdict:?}");
        } else if !EITHER.contains(&name.as_str()) {
            assert!(!is_malformed(&verdict), "{name}: {verdict:?}");
        }
    }
}

#[test]
fn gate_answers_well_formed_messages_by_policy() {
    let messages = messages();
    for (name, expected) in POLICY {
        match gate::check(&messages[name], Transport::Udp, source()) {
            Verdict::Reject { status, .. } => assert_eq!(status, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn gate_answers_another_version_with_505() {
    let verdict = gate::check(&messages()["badvers"], Transport::Udp, source());
    assert!(matches!(verdict, Verdict::Reject { status: 505, .. }), "{verdict:?}");
}

#[test]
fn gate_survives_every_prefix_and_every_changed_byte() {
    for bytes in messages().values() {
        for end in 0..bytes.len() {
            let _ = gate::check(&bytes[..end], Transport::Udp, source());
        }
        let mut changed = bytes.clone();
        for at in 0..bytes.len() {
            for value in [0, b'\r', b'\n', b'"', b'%', 0xff] {
                changed[at] = value;
                let _ = gate::check(&changed, Transport::Tcp, source());
            }
            changed[at] = bytes[at];
        }
    }
}

async fn answers_options(link: Link) {
    let mut caller = Caller::new(link, "still-there");
    caller.cseq = 77;
    caller.send("OPTIONS", "still-there", b"").await;
    loop {
        let reply = caller.link.receive().await;
        if reply.header("Call-ID") == Some("still-there") {
            assert_eq!(reply.status(), 200);
            assert_eq!(reply.header("Accept"), Some(gate::ACCEPT));
            return;
        }
    }
}

/// Refuses every call, as an MRFC would that knows none of the rooms.
fn refuse_all(
    node: Node,
) -> (std::sync::Arc<control_api::sip::SipMetrics>, tokio::task::JoinHandle<()>) {
    let metrics = node.sip.metrics();
    let Node { sip, mut events } = node;
    let task = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Invite { call, .. } = event {
                let answer = control_api::mrfc::Answer::Refused {
                    status: 404,
                    warning: None,
                    retry_after: None,
                };
                sip.act(control_api::mrfc::Action::Answer { call, answer });
            }
        }
    });
    (metrics, task)
}

#[tokio::test]
async fn node_survives_every_message_over_udp() {
    let node = Node::start(config()).await;
    for (name, bytes) in messages() {
        let mut link = Link::udp(&node).await;
        link.send(&bytes).await;
        let verdict = gate::check(&bytes, Transport::Udp, link.local());
        if let Verdict::Reject { status, .. } = verdict {
            assert_eq!(link.receive().await.status(), status, "{name}");
        }
        answers_options(Link::udp(&node).await).await;
    }
    let (metrics, task) = refuse_all(node);
    assert!(metrics.messages.get() >= 122);
    task.abort();
}

#[tokio::test]
async fn node_survives_every_message_over_tcp() {
    let node = Node::start(config()).await;
    for (name, bytes) in messages() {
        let mut link = Link::tcp(&node).await;
        link.send(&bytes).await;
        if let Link::Tcp(stream, _) = &mut link {
            use tokio::io::AsyncWriteExt;
            stream.shutdown().await.unwrap();
        }
        let first = link.receive_within(SILENCE).await;
        if REJECTED.contains(&name.as_str()) {
            // Silence: a response, or a message that waits for the rest of its body.
            let status = first.map(|reply| reply.status());
            assert!(matches!(status, None | Some(400 | 505)), "{name}: {status:?}");
        }
        answers_options(Link::tcp(&node).await).await;
    }
}

#[tokio::test]
async fn node_takes_a_call_after_random_datagrams() {
    let mut node = Node::start(config()).await;
    let mut noise = Link::udp(&node).await;
    let seeds: Vec<_> = messages().into_values().collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    for round in 0..3000 {
        let mut bytes: Vec<u8> = if round % 2 == 0 {
            (0..random() % 600).map(|_| (random() & 0xff) as u8).collect()
        } else {
            seeds[random() % seeds.len()].clone()
        };
        for _ in 0..random() % 8 {
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(random() % length) {
                *byte = (random() & 0xff) as u8;
            }
        }
        noise.send(&bytes).await;
        if round % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    answers_options(Link::udp(&node).await).await;
    while node.events.try_recv().is_ok() {}
    let mut caller = Caller::new(Link::udp(&node).await, "after-noise");
    caller.send("INVITE", "noise", OFFER).await;
    let call = loop {
        if let Event::Invite { call, from, .. } = node.event().await
            && from.uri == "sip:alice@example.com"
        {
            break call;
        }
    };
    node.accept(call);
    caller.link.response(200).await;
}
