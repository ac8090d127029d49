//! A whole node among peers that mean no good: nothing they send may stop it, show up where it does
//! not belong, or stay behind.

mod node_ue;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control_api::node::Node;
use node_ue::{
    PATIENCE, Phone, assert_becomes_empty, config, line, metric, plain_offer, status, stop,
};
use support::http::{request, request_raw};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

/// A caller like any other still gets through.
async fn assert_takes_a_call(sip: SocketAddr) {
    let mut phone = Phone::new(sip).await;
    phone.from = "sip:honest@example.com".to_owned();
    let answer = phone.invite(&plain_offer()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(status(&phone.ask("BYE", b"").await), 200);
}

#[tokio::test]
async fn what_a_caller_writes_stays_inside_its_header_and_its_string() {
    let node = Node::start(config()).await.expect("starts");
    let (http, sip) = (node.addresses().http, node.addresses().sip_udp);
    let users = [
        "a%0d%0aX-Injected:%201",
        "a%22b%22",
        "a%00b",
        "a%5c%22%7d%5d",
        "a%3cscript%3e",
        "a;b=c,d",
        "%e2%82%ac",
        "%ff%fe",
    ];
    for (number, user) in users.iter().enumerate() {
        // In the room, and so in Contact and in the API.
        let mut phone = Phone::new(sip).await;
        phone.to = format!("sip:{user}@{sip}");
        let answer = phone.invite(&plain_offer()).await;
        assert!(matches!(status(&answer), 200 | 404), "{user}: {answer}");
        assert!(!answer.contains("\nX-Injected"), "{user}: {answer}");
        let shown = request(http, "GET", "/api/v1/contexts").await.text();
        assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{user}: {shown}");
        if status(&answer) == 200 {
            let contact = line(&answer, "Contact: ");
            assert_eq!(contact, format!("<sip:{user}@{sip}>;isfocus"), "{answer}");
            assert_eq!(status(&phone.ask("BYE", b"").await), 200);
        }
        // In the caller's name, and so in the API and in what other members are told.
        let mut phone = Phone::new(sip).await;
        phone.from = format!("sip:{user}@example.com");
        phone.call_id = format!("{number}-{}", phone.call_id);
        let answer = phone.invite(&plain_offer()).await;
        assert!(matches!(status(&answer), 200 | 400), "{user}: {answer}");
        let shown = request(http, "GET", "/api/v1/contexts").await.text();
        assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{user}: {shown}");
        // JSON writes control characters as \u00XX or \r, \n: none may have got that far.
        for control in ["\\r", "\\n", "\\u00"] {
            assert!(!shown.contains(control), "{user}: {shown}");
        }
        if status(&answer) == 200 {
            assert_eq!(status(&phone.ask("BYE", b"").await), 200);
        }
    }
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn absurd_session_descriptions_are_refused_in_no_time() {
    let node = Node::start(config()).await.expect("starts");
    let (http, sip) = (node.addresses().http, node.addresses().sip_udp);
    let offer = String::from_utf8(plain_offer()).expect("text");
    let head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n";
    let mut nul = offer.clone().into_bytes();
    nul.insert(200, 0);
    let cases: [(&str, Vec<u8>); 7] = [
        ("lines", [offer.as_bytes(), &b"a=x\r\n".repeat(11_000)].concat()),
        ("session lines", [head.as_bytes(), &b"a=key-mgmt:x\r\n".repeat(4_000)].concat()),
        ("m-lines", [offer.as_bytes(), &b"m=message 9 TCP/MSRP *\r\n".repeat(2_000)].concat()),
        (
            "times",
            [&b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"[..], &b"t=0 0\r\n".repeat(7_000)]
                .concat(),
        ),
        ("one line", [offer.as_bytes(), b"a=", &vec![b'x'; 50_000], b"\r\n"].concat()),
        ("NUL", nul),
        ("no SDP", b"\x00\xff\xfe".repeat(10_000)),
    ];
    for (case, offer) in cases {
        let mut phone = Phone::new(sip).await;
        let answer = phone.invite(&offer).await;
        match status(&answer) {
            200 => assert_eq!(status(&phone.ask("BYE", b"").await), 200),
            400 | 488 | 513 => {}
            other => panic!("{case}: {other}: {answer}"),
        }
    }
    assert_takes_a_call(sip).await;
    assert_becomes_empty(http).await;
    stop(node).await;
}

#[tokio::test]
async fn a_thousand_calls_at_once_are_answered_and_a_flood_beyond_the_limit_is_shed() {
    const CALLS: usize = 1000;
    const CALLS_MAX: u32 = 300;
    let mut config = config();
    config.limits.calls_max = CALLS_MAX;
    let node = Node::start(config).await.expect("starts");
    let (http, sip) = (node.addresses().http, node.addresses().sip_udp);
    let mut phone = Phone::new(sip).await;
    // One socket for all, so that the answers can be counted; each INVITE is a call of its own,
    // though all have the same From tag and some the same Call-ID in different dialogs.
    let mut statuses = std::collections::BTreeMap::<String, u16>::new();
    let deadline = Instant::now() + PATIENCE;
    while statuses.len() < CALLS {
        assert!(Instant::now() < deadline, "{} answers", statuses.len());
        for number in 0..CALLS {
            phone.call_id = format!("flood{number}");
            if !statuses.contains_key(&phone.call_id) {
                // Again where the kernel dropped it, as a UE would.
                phone.send("INVITE", &plain_offer()).await;
            }
            collect(&phone.socket, &mut statuses, Duration::ZERO).await;
        }
        collect(&phone.socket, &mut statuses, Duration::from_millis(200)).await;
    }
    let accepted = statuses.values().filter(|status| **status == 200).count();
    assert!(statuses.values().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert_eq!(accepted, CALLS_MAX as usize);
    assert_eq!(metric(http, "mrf_calls").await, u64::from(CALLS_MAX));
    assert!(metric(http, "mrf_sip_overloads_total").await >= (CALLS - accepted) as u64);
    assert_eq!(request(http, "GET", "/readyz").await.status, 200);
    // Hardly anybody answers the BYEs, and nobody has sent an ACK.
    stop(node).await;
}

/// Calls that come faster than they can be taken: some are, some are shed, and when it is over all is as
/// before.
#[tokio::test]
async fn a_flood_the_node_has_no_time_for_is_shed_and_passes() {
    // A call takes that long on no machine, a buffer full of them on any.
    const DELAY_MAX_MILLISECONDS: u64 = 5;
    let mut config = config();
    config.sip.queue_delay_max_milliseconds = DELAY_MAX_MILLISECONDS;
    let node = Node::start(config).await.expect("starts");
    let (http, sip) = (node.addresses().http, node.addresses().sip_udp);
    let phone = Phone::new(sip).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.set_nonblocking(true).expect("set");
    let answers = UdpSocket::from_std(socket.try_clone().expect("cloned")).expect("taken");
    let invite = String::from_utf8(phone.message("INVITE", &plain_offer())).expect("text");
    let own = socket.local_addr().expect("bound").to_string();
    let invite = invite.replace(&phone.socket.local_addr().expect("bound").to_string(), &own);
    let enough = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let (enough, call_id) = (Arc::clone(&enough), phone.call_id.clone());
        move || {
            let until = std::time::Instant::now() + PATIENCE;
            for number in 0.. {
                if enough.load(Ordering::Relaxed) || std::time::Instant::now() > until {
                    return;
                }
                let invite = invite.replace(&call_id, &format!("flood{number}"));
                let _ = socket.send_to(invite.as_bytes(), sip);
            }
        }
    });
    let (mut accepted, mut refused) = (None, None);
    let mut buffer = vec![0; 65_536];
    while accepted.is_none() || refused.is_none() {
        let received = timeout(PATIENCE, answers.recv(&mut buffer)).await;
        let length = received.expect("both 200 and 503 in time").expect("received");
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        match answer.starts_with("SIP/2.0 ").then(|| status(&answer)) {
            Some(200) => accepted = accepted.or(Some(answer)),
            Some(503) => refused = refused.or(Some(answer)),
            // The room fills up (486) where calls are taken fast.
            Some(100..200 | 486) | None => {}
            other => panic!("{other:?}: {answer}"),
        }
    }
    enough.store(true, Ordering::Relaxed);
    flood.join().expect("ends");
    let pause: u64 = line(&refused.expect("seen"), "Retry-After: ").parse().expect("seconds");
    assert!((5..10).contains(&pause), "{pause}");
    assert!(metric(http, "mrf_sip_invites_shed_total").await > 0);
    assert!(metric(http, "mrf_sip_queue_delay_microseconds").await < 1_000_000_000);
    // What is left in the buffer is worked off, and what was taken can be ended.
    let accepted = accepted.expect("seen");
    let mut phone = Phone::new(sip).await;
    phone.call_id = line(&accepted, "Call-ID: ").to_owned();
    phone.to_tag = format!(";{}", line(&accepted, "To: ").split_once(">;").expect("a tag").1);
    phone.cseq = 2;
    loop {
        phone.send("BYE", b"").await;
        // The flood may have left no room for it in the buffer: again, as a UE would.
        if let Ok(answer) = timeout(Duration::from_millis(500), phone.answer()).await {
            assert_eq!(status(&answer), 200, "{answer}");
            break;
        }
    }
    assert_takes_a_call(sip).await;
    // Nobody answers the BYEs of the others, and nobody has sent an ACK.
    let _ = node.stop().await;
}

async fn collect(
    socket: &UdpSocket,
    statuses: &mut std::collections::BTreeMap<String, u16>,
    patience: Duration,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(Ok(length)) = timeout(patience, socket.recv(&mut buffer)).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.starts_with("SIP/2.0 ") && status(&text) >= 200 {
            statuses.insert(line(&text, "Call-ID: ").to_owned(), status(&text));
        }
    }
}

#[tokio::test]
async fn the_kms_gives_nothing_to_strangers() {
    let node = Node::start(config()).await.expect("starts");
    let (http, sip, kms) =
        (node.addresses().http, node.addresses().sip_udp, node.addresses().kms.expect("embedded"));
    let post = |kind: &str, body: &[u8]| {
        let head = format!(
            "POST /keymanagement?requesttype={kind} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\
             Content-Type: application/mikey\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let garbage: [&[u8]; 4] = [b"\x01\x0b", b"\x01\x10\x00", &[16; 4000], &[0xff; 100]];
    for body in garbage {
        for kind in ["ticketrequest", "ticketresolve", "nonsense"] {
            let response = request_raw(kms, &post(kind, body)).await;
            assert_ne!(response.status, 500, "{kind} {body:02x?}");
            // At most an error message of MIKEY: data type 6, never a response with keys.
            let answered = response.status == 200;
            assert!(!answered || response.body.get(1) == Some(&6), "{:02x?}", response.body);
        }
    }
    let huge = vec![1; 100_000];
    assert_eq!(request_raw(kms, &post("ticketresolve", &huge)).await.status, 413);
    assert_takes_a_call(sip).await;
    assert_becomes_empty(http).await;
    stop(node).await;
}
