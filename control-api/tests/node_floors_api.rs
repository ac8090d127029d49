//! What an operator sees of floors and does with them, and what an application is told, over real sockets.

mod node_ue;
mod support;

use std::net::SocketAddr;

use control_api::config::{Config, Floor, Order};
use control_api::node::Node;
use mrfp_protocol::bfcp::RequestStatus;
use node_ue::floors::{Floors, Wire};
use node_ue::member::{Member, cpim, message};
use node_ue::{
    PATIENCE, Phone, assert_becomes_empty, authority, binding_send, config, line, plain_offer,
    status, stop,
};
use serde_json::Value;
use support::http::{Response, request, request_json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// A member of the lobby with a BFCP stream, both in the clear.
struct Speaker {
    phone: Phone,
    media: TcpStream,
    path: String,
    floors: Floors,
    said: u32,
}

impl Speaker {
    async fn join(node: &Node, name: &str) -> Self {
        let mut phone = Phone::new(node.addresses().sip_udp).await;
        phone.from = uri(name);
        let mut offer = plain_offer();
        offer.extend_from_slice(
            b"m=application 9 TCP/BFCP *\r\na=setup:active\r\na=connection:new\r\n\
              a=floorctrl:c-only\r\na=bfcpver:1\r\n",
        );
        let answer = phone.invite(&offer).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let mut media = TcpStream::connect(authority(&answer)).await.expect("connects");
        media.write_all(binding_send(&answer).as_bytes()).await.expect("sent");
        read_until(&mut media, " 200 OK").await;
        let port = line(&answer, "m=application ").split(' ').next().expect("a port");
        let address = SocketAddr::new(node.addresses().sip_udp.ip(), port.parse().expect("one"));
        let wire = TcpStream::connect(address).await.expect("connects");
        let mut floors = Floors::new(Wire::Plain(wire), &answer);
        floors.hello().await;
        Self { phone, media, path: line(&answer, "a=path:").to_owned(), floors, said: 0 }
    }

    /// Says something to the room; the status of the answer.
    async fn say(&mut self) -> u16 {
        self.said += 1;
        let id = format!("said{:04}", self.said);
        let text = cpim(&self.phone.from, &self.phone.to, "hello");
        let own = "msrp://127.0.0.1:9/phoneSession1;tcp";
        let message = message(&id, &self.path, own, "message/cpim", &text);
        self.media.write_all(message.as_bytes()).await.expect("sent");
        let heard = read_until(&mut self.media, &format!("-------{id}$\r\n")).await;
        let (_, answer) = heard.split_once(&format!("MSRP {id} ")).expect("an answer");
        answer[..3].parse().expect("a status")
    }

    async fn leave(mut self) {
        assert_eq!(status(&self.phone.ask("BYE", b"").await), 200);
    }
}

fn uri(name: &str) -> String {
    format!("sip:{name}@example.com")
}

async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut heard = Vec::new();
    loop {
        let read = timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        assert_ne!(read.expect("in time").expect("received"), 0, "{wanted:?}");
        let text = String::from_utf8_lossy(&heard).into_owned();
        if text.contains(wanted) {
            return text;
        }
    }
}

/// The API of the lobby.
struct Lobby(SocketAddr);

impl Lobby {
    async fn ask(&self, method: &str, path: &str) -> Response {
        request(self.0, method, &format!("/api/v1/rooms/lobby{path}")).await
    }

    async fn json(&self, method: &str, path: &str) -> Value {
        let answer = self.ask(method, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_str(&answer.text()).expect("JSON")
    }

    /// Does something to the one floor there is; how that is afterwards.
    async fn floor(&self, method: &str, path: &str) -> Value {
        let mut floors = self.json(method, path).await;
        assert_eq!(floors["floors"].as_array().map(Vec::len), Some(1), "{floors}");
        floors["floors"][0].take()
    }

    /// The name of a member's call.
    async fn call(&self, name: &str) -> u64 {
        let room = self.json("GET", "").await;
        let mut members = room["members"].as_array().expect("a list").iter();
        let member = members.find(|member| member["uri"] == uri(name).as_str()).expect("a member");
        member["call"].as_u64().expect("a number")
    }

    async fn set_policy(&self, order: &str, holders_max: u16) -> Response {
        let policy = format!(
            "{{\"order\":\"{order}\",\"holders_max\":{holders_max},\"requests_per_user_max\":1,\
             \"holding_seconds_max\":null}}"
        );
        request_json(self.0, "/api/v1/rooms/lobby/floors/1/policy", &policy).await
    }
}

fn calls(requests: &Value) -> Vec<u64> {
    let requests = requests.as_array().expect("a list").iter();
    requests.map(|request| request["call"].as_u64().expect("a number")).collect()
}

fn moderated() -> Config {
    let mut config = config();
    config.rooms.floors = vec!["messages".to_owned()];
    config
}

#[tokio::test]
async fn an_operator_sees_who_waits_and_decides_who_may_write() {
    let node = Node::start(moderated()).await.expect("starts");
    let http = node.addresses().http;
    let lobby = Lobby(http);
    assert_eq!(lobby.ask("GET", "/floors").await.status, 404);
    let mut alice = Speaker::join(&node, "alice").await;
    let mut bob = Speaker::join(&node, "bob").await;
    let carol = Member::join(&node, "lobby", Some(&uri("carol"))).await;
    let (alice_call, bob_call) = (lobby.call("alice").await, lobby.call("bob").await);
    let room = lobby.json("GET", "").await;
    assert_eq!(room["moderated"], true);
    let users: Vec<_> = room["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["floor_user"].as_u64())
        .collect();
    assert_eq!(users, [Some(1), Some(2), None]);

    // First come, first served.
    let first = alice.floors.request(1).await;
    assert_eq!(first.status, RequestStatus::Granted);
    let second = bob.floors.request(1).await;
    assert_eq!(second.status, RequestStatus::Accepted);
    let floors = lobby.json("GET", "/floors").await;
    assert_eq!((&floors["moderated"], &floors["message_floor"]), (&true.into(), &1.into()));
    assert!(floors["conference"].as_u64().is_some_and(|id| id > 0), "{floors}");
    let floor = &floors["floors"][0];
    assert_eq!((&floor["floor"], &floor["label"]), (&1.into(), &"10".into()));
    assert_eq!(floor["policy"]["order"], "first-come-first-served");
    let (holder, waiting) = (&floor["holders"][0], &floor["queue"][0]);
    for (request, told, name, call, status, position) in [
        (holder, first, "alice", alice_call, "granted", 0),
        (waiting, second, "bob", bob_call, "accepted", 1),
    ] {
        assert_eq!(request["request"], told.request_id, "{floors}");
        assert_eq!(request["uri"], uri(name).as_str(), "{floors}");
        assert_eq!(request["call"], call, "{floors}");
        assert_eq!(request["status"], status, "{floors}");
        assert_eq!(request["position"], position, "{floors}");
        assert!(
            request["seconds"].as_f64().is_some_and(|it| (0.0..60.0).contains(&it)),
            "{floors}"
        );
    }
    assert_eq!((alice.say().await, bob.say().await), (200, 403));

    // The operator gives it to Bob, and takes it from him.
    let floor = lobby.floor("POST", &format!("/floors/1/members/{bob_call}/grant")).await;
    assert_eq!((calls(&floor["holders"]), calls(&floor["queue"]).len()), (vec![bob_call], 0));
    assert_eq!(alice.floors.told().await.status, RequestStatus::Revoked);
    assert_eq!(bob.floors.told().await.status, RequestStatus::Granted);
    assert_eq!((alice.say().await, bob.say().await), (403, 200));
    let floor = lobby.floor("POST", &format!("/floors/1/members/{bob_call}/revoke")).await;
    assert!(calls(&floor["holders"]).is_empty(), "{floor}");
    assert_eq!(bob.floors.told().await.status, RequestStatus::Revoked);
    assert_eq!(bob.say().await, 403);

    // Everybody may write, and nobody without the floor.
    assert_eq!(lobby.json("POST", "/unmoderate").await["moderated"], false);
    assert_eq!(lobby.json("GET", "").await["moderated"], false);
    assert_eq!((alice.say().await, bob.say().await), (200, 200));
    assert_eq!(lobby.json("POST", "/moderate").await["moderated"], true);
    assert_eq!(lobby.json("GET", "").await["moderated"], true);
    assert_eq!((alice.say().await, bob.say().await), (403, 403));

    // A chair decides, then nobody has to.
    assert_eq!(lobby.set_policy("chair", 1).await.status, 200);
    let floor = lobby.floor("POST", &format!("/floors/1/members/{alice_call}/chair")).await;
    assert_eq!(floor["chair"]["call"], alice_call, "{floor}");
    assert_eq!(bob.floors.request(1).await.status, RequestStatus::Pending);
    let floor = lobby.floor("DELETE", "/floors/1/chair").await;
    assert_eq!(floor["chair"], Value::Null);
    assert_eq!(floor["policy"]["order"], "chair");
    assert_eq!(floor["queue"][0]["status"], "pending");
    assert_eq!(lobby.set_policy("first-come-first-served", 1).await.status, 200);
    assert_eq!(bob.floors.told().await.status, RequestStatus::Granted);

    // What cannot be is refused in words, and changes nothing.
    let carol_call = lobby.call("carol").await;
    for (path, status) in [
        (format!("/floors/1/members/{carol_call}/grant"), 409),
        ("/floors/1/members/999999/grant".to_owned(), 404),
        (format!("/floors/9/members/{alice_call}/grant"), 404),
    ] {
        assert_eq!(lobby.ask("POST", &path).await.status, status, "{path}");
    }
    assert_eq!(lobby.set_policy("priority", 0).await.status, 422);
    let floor = lobby.floor("GET", "/floors").await;
    assert_eq!(calls(&floor["holders"]), [bob_call]);
    assert_eq!(floor["policy"]["order"], "first-come-first-served");

    // Three requests of clients, one of which waited until it was granted.
    for expected in [
        "\nmrf_bfcp_messages_total{direction=\"received\",primitive=\"FloorRequest\"} 3\n",
        "\nmrf_bfcp_messages_total{direction=\"sent\",primitive=\"HelloAck\"} 2\n",
        "\nmrf_floor_wait_seconds_count 3\n",
        "\nmrf_floor_streams_reserved_total 2\n",
    ] {
        await_metrics(http, expected).await;
    }
    alice.leave().await;
    bob.leave().await;
    carol.leave().await;
    assert_becomes_empty(http).await;
    stop(node).await;
}

async fn await_metrics(http: SocketAddr, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = request(http, "GET", "/metrics").await.text();
        if text.contains(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{expected} is missing from:\n{text}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Takes the next event, on whatever connection it comes.
async fn event(listener: &TcpListener) -> Value {
    let taken = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = String::new();
        loop {
            let mut bytes = Vec::new();
            assert!(stream.read_buf(&mut bytes).await.expect("readable") > 0, "{request}");
            request.push_str(std::str::from_utf8(&bytes).expect("text"));
            let body = request.split_once("\r\n\r\n").map(|(_, body)| body);
            let event = body.and_then(|body| serde_json::from_str(body).ok());
            if let Some(event) = event {
                let answer = b"HTTP/1.1 204 taken\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.expect("sent");
                return event;
            }
        }
    };
    timeout(PATIENCE, taken).await.expect("an event in time")
}

#[tokio::test]
async fn an_application_is_told_who_holds_the_floor_for_a_medium_it_mixes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let mut config = moderated();
    config.events.webhook =
        Some(format!("http://{}/floors", listener.local_addr().expect("bound")));
    config.floor_list = vec![Floor {
        name: "camera".to_owned(),
        number: 2,
        label: Some("camera".to_owned()),
        order: Order::FirstComeFirstServed,
        holders_max: 1,
        requests_per_user_max: 1,
        holding_seconds_max: None,
    }];
    config.rooms.floors.push("camera".to_owned());
    let node = Node::start(config).await.expect("starts");
    let http = node.addresses().http;
    let mut alice = Speaker::join(&node, "alice").await;
    let mut bob = Speaker::join(&node, "bob").await;
    let call = Lobby(http).call("alice").await;
    // Who may write is no business of the application.
    assert_eq!(alice.floors.request(1).await.status, RequestStatus::Granted);
    assert_eq!(alice.floors.request(2).await.status, RequestStatus::Granted);
    assert_eq!(bob.floors.request(2).await.status, RequestStatus::Accepted);
    let holds = event(&listener).await;
    let expected = serde_json::json!({
        "event": "floor", "number": 1, "time": holds["time"], "room": "lobby", "floor": 2,
        "label": "camera", "user": 1, "call": call, "uri": uri("alice"), "holds": true,
    });
    assert_eq!(holds, expected);
    // She hangs up: it is taken from her before it is given to the next.
    alice.leave().await;
    assert_eq!(bob.floors.told().await.status, RequestStatus::Granted);
    let told = [event(&listener).await, event(&listener).await];
    let told = told.map(|it| (it["uri"].clone(), it["holds"].clone(), it["number"].clone()));
    assert_eq!(
        told,
        [(uri("alice").into(), false.into(), 2.into()), (uri("bob").into(), true.into(), 3.into()),]
    );
    // The node ends, and says that nobody holds it before it does.
    let last = tokio::spawn(async move { event(&listener).await });
    node.stop().await;
    let last = last.await.expect("told");
    assert_eq!((&last["uri"], &last["holds"]), (&uri("bob").into(), &false.into()));
}
