//! The admin listener over real sockets: health, readiness, metrics, contexts, limits.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_api::config::Order;
use control_api::http::{
    AdminServices, ContextView, Family, FloorDetail, FloorQuery, FloorsDetail, FloorsError,
    HttpServer, HttpServerConfig, MemberView, PolicyDetail, Query, Readiness, ReadinessState,
    RequestDetail, Sample, UserDetail, admin_router,
};
use control_api::mrfc::CallId;
use mrfp_core::floor::{FloorOrder, FloorPolicy};
use mrfp_core::metrics::{MetricKind, PublishedMetrics, ShardMetrics};
use mrfp_core::mp::ShardId;
use support::http::{request, request_json, request_raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

struct Admin {
    server: HttpServer,
    readiness: Arc<Readiness>,
}

impl Admin {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

async fn start_with(limit: impl FnOnce(&mut HttpServerConfig)) -> Admin {
    let (queries, mut asked) = mpsc::channel(16);
    let readiness = Readiness::new();
    let shards = [0, 1].map(|shard| (ShardId(shard), Arc::new(PublishedMetrics::default())));
    let services = AdminServices {
        readiness: Arc::clone(&readiness),
        shards: Arc::new(shards),
        queries,
        kms: None,
    };
    tokio::spawn(async move {
        while let Some(query) = asked.recv().await {
            answer(query);
        }
    });
    let mut config = HttpServerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), 16);
    limit(&mut config);
    let server = HttpServer::start(config, admin_router(services)).await.expect("binds");
    Admin { server, readiness }
}

async fn start() -> Admin {
    start_with(|_| {}).await
}

/// One room with one member; one family with a label that needs escaping.
fn answer(query: Query) {
    match query {
        Query::Contexts(reply) => {
            let member = MemberView {
                uri: "sip:alice@example.com".to_owned(),
                state: "connected",
                security: "tls-psk",
            };
            let room = "a \"quoted\" room".to_owned();
            let context = ContextView { context: 7, room, shard: 1, members: vec![member] };
            let _ = reply.send(vec![context]);
        }
        Query::Realms(reply) => {
            let _ = reply.send((300, Vec::new()));
        }
        Query::Counters(reply) => {
            let labels = vec![("status", "4\"88\n".to_owned())];
            let refused = Family {
                name: "calls_refused",
                help: "INVITEs refused",
                kind: MetricKind::Counter,
                samples: vec![Sample { labels, value: 3 }],
            };
            let calls = Family::single("calls", "Calls", MetricKind::Gauge, 5);
            let _ = reply.send(vec![refused, calls]);
        }
        Query::Floors { room, query, reply } => {
            let _ = reply.send(floors(room, query));
        }
        Query::Border(reply) => {
            let _ = reply.send(None);
        }
        Query::Rooms { .. }
        | Query::Administer { .. }
        | Query::Dial { .. }
        | Query::RoomStatistics { .. } => {
            panic!("nobody asks for that")
        }
    }
}

/// A room with one floor that call 5 holds, which everything can be done to; every other room refuses in
/// a way of its own.
fn floors(room: String, query: FloorQuery) -> Result<Box<FloorsDetail>, FloorsError> {
    match room.as_str() {
        "board" => {}
        "floorless" => return Err(FloorsError::NoFloor),
        "deaf" => return Err(FloorsError::NoParticipant),
        "crowded" => return Err(FloorsError::Exhausted),
        "strict" => return Err(FloorsError::Policy),
        "hung" => return Err(FloorsError::Busy),
        _ => return Err(FloorsError::NotFound),
    }
    let bob = || UserDetail { user: 2, call: Some(5), uri: Some("sip:bob@x".to_owned()) };
    let request = RequestDetail {
        request: 3,
        user: bob(),
        requested_by: None,
        status: "granted",
        position: 0,
        priority: Some("high"),
        seconds: 1.5,
    };
    let call = CallId(5);
    let mut policy = FloorPolicy {
        order: FloorOrder::Chair,
        holders_max: 1,
        requests_per_user_max: 1,
        holding_max_ns: Some(60_000_000_000),
    };
    let (mut holders, mut chair, mut moderated) = (vec![request], None, true);
    match query {
        FloorQuery::List => {}
        FloorQuery::Grant { floor, call: other } => assert_eq!((floor, other), (1, call)),
        FloorQuery::Revoke { floor, call: other } => {
            assert_eq!((floor, other), (1, call));
            holders.clear();
        }
        FloorQuery::Chair { floor, call: other } => {
            assert_eq!(floor, 1);
            chair = other.map(|other| (other == call).then(bob).expect("bob's call"));
        }
        FloorQuery::Policy { floor, policy: new } => {
            assert_eq!(floor, 1);
            policy = new;
        }
        FloorQuery::Moderate(wanted) => moderated = wanted,
    }
    let floor = FloorDetail {
        floor: 1,
        label: Some("10".to_owned()),
        policy: PolicyDetail::from(&policy),
        chair,
        holders,
        queue: Vec::new(),
    };
    Ok(Box::new(FloorsDetail {
        room,
        conference: Some(77),
        moderated,
        message_floor: Some(1),
        floors: vec![floor],
    }))
}

#[tokio::test]
async fn is_alive_before_it_is_ready() {
    let admin = start().await;
    assert_eq!(request(admin.address(), "GET", "/healthz").await.status, 200);
    let response = request(admin.address(), "GET", "/readyz").await;
    assert_eq!((response.status, response.text().as_str()), (503, "starting\n"));
}

#[tokio::test]
async fn is_ready_only_while_it_takes_calls() {
    let admin = start().await;
    let states = [
        (ReadinessState::Ready, 200, "ready\n"),
        (ReadinessState::ShardLost, 503, "a shard does not answer\n"),
        (ReadinessState::Draining, 503, "draining\n"),
    ];
    for (state, status, text) in states {
        admin.readiness.set(state);
        let response = request(admin.address(), "GET", "/readyz").await;
        assert_eq!((response.status, response.text().as_str()), (status, text));
    }
}

#[tokio::test]
async fn exports_every_metric_of_every_shard_in_openmetrics_text() {
    let admin = start().await;
    let response = request(admin.address(), "GET", "/metrics").await;
    assert_eq!(response.status, 200);
    let content_type = response.header("content-type").expect("a content type");
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text();
    for (name, _, kind) in ShardMetrics::DESCRIPTIONS {
        let suffix = match kind {
            MetricKind::Counter => "_total",
            MetricKind::Gauge => "",
        };
        for shard in 0..2 {
            let sample = format!("\nmrf_{name}{suffix}{{shard=\"{shard}\"}} 0\n");
            assert!(text.contains(&sample), "{sample} is missing from:\n{text}");
        }
    }
    for expected in [
        "\nmrf_calls_refused_total{status=\"4\\\"88\\n\"} 3\n",
        "\n# TYPE mrf_calls gauge\nmrf_calls 5\n",
        "\nprocess_cpu_seconds_total ",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_start_time_seconds ",
        "\nprocess_open_fds ",
        "\nmrf_build_info{version=\"",
    ] {
        assert!(text.contains(expected), "{expected} is missing from:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn lists_contexts_with_their_members() {
    let admin = start().await;
    let response = request(admin.address(), "GET", "/api/v1/contexts").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let shown: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
    let expected = serde_json::json!({"contexts": [{
        "context": 7, "room": "a \"quoted\" room", "shard": 1,
        "members": [
            {"uri": "sip:alice@example.com", "state": "connected", "security": "tls-psk"}
        ],
    }]});
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn status_page_links_what_there_is() {
    let admin = start().await;
    let page = request(admin.address(), "GET", "/").await;
    assert_eq!(page.status, 200);
    for path in ["/healthz", "/metrics", "/api/v1/contexts"] {
        assert!(page.text().contains(&format!("href=\"{path}\"")));
        assert_eq!(request(admin.address(), "GET", path).await.status, 200);
    }
}

#[tokio::test]
async fn answers_404_and_405_where_they_belong() {
    let admin = start().await;
    assert_eq!(request(admin.address(), "GET", "/nothing").await.status, 404);
    assert_eq!(request(admin.address(), "POST", "/metrics").await.status, 405);
}

#[tokio::test]
async fn refuses_a_head_without_end() {
    let admin = start().await;
    let mut head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    head.resize(64 * 1024, b'a');
    let response = request_raw(admin.address(), &head).await;
    assert_eq!(response.status, 431);
}

#[tokio::test]
async fn closes_a_connection_that_never_completes_its_head() {
    let admin = start_with(|config| config.head_timeout = Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(admin.address()).await.expect("connects");
    stream.write_all(b"GET /healthz HTT").await.expect("sent");
    let mut rest = Vec::new();
    // Ends only because the server closes; what it says before is its business.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn serves_no_more_connections_than_allowed() {
    let admin = start_with(|config| config.connections_max = 1).await;
    let holder = TcpStream::connect(admin.address()).await.expect("connects");
    let address = admin.address();
    let second = tokio::spawn(async move { request(address, "GET", "/healthz").await.status });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    drop(holder);
    assert_eq!(second.await.expect("answered"), 200);
}

async fn floors_after(admin: &Admin, method: &str, path: &str) -> serde_json::Value {
    let path = format!("/api/v1/rooms/board{path}");
    let response = request(admin.address(), method, &path).await;
    assert_eq!(response.status, 200, "{path}");
    serde_json::from_str(&response.text()).expect("JSON")
}

#[tokio::test]
async fn tells_floors_and_does_to_them_what_is_said() {
    let admin = start().await;
    let shown = floors_after(&admin, "GET", "/floors").await;
    let expected = serde_json::json!({
        "room": "board", "conference": 77, "moderated": true, "message_floor": 1,
        "floors": [{
            "floor": 1, "label": "10",
            "policy": {
                "order": "chair", "holders_max": 1, "requests_per_user_max": 1,
                "holding_seconds_max": 60,
            },
            "chair": null,
            "holders": [{
                "request": 3, "user": 2, "call": 5, "uri": "sip:bob@x", "requested_by": null,
                "status": "granted", "position": 0, "priority": "high", "seconds": 1.5,
            }],
            "queue": [],
        }],
    });
    assert_eq!(shown, expected);
    assert_eq!(floors_after(&admin, "POST", "/floors/1/members/5/grant").await, expected);
    let revoked = floors_after(&admin, "POST", "/floors/1/members/5/revoke").await;
    assert_eq!(revoked["floors"][0]["holders"], serde_json::json!([]));
    let chaired = floors_after(&admin, "POST", "/floors/1/members/5/chair").await;
    assert_eq!(chaired["floors"][0]["chair"]["call"], 5);
    assert_eq!(floors_after(&admin, "DELETE", "/floors/1/chair").await, expected);
    assert_eq!(floors_after(&admin, "POST", "/moderate").await["moderated"], true);
    assert_eq!(floors_after(&admin, "POST", "/unmoderate").await["moderated"], false);
}

#[tokio::test]
async fn a_floor_gets_the_whole_policy_that_is_posted_or_none() {
    let admin = start().await;
    let path = "/api/v1/rooms/board/floors/1/policy";
    let policy = PolicyDetail {
        order: Order::Priority,
        holders_max: 2,
        requests_per_user_max: 3,
        holding_seconds_max: None,
    };
    let body = serde_json::to_string(&policy).expect("plain");
    let response = request_json(admin.address(), path, &body).await;
    assert_eq!(response.status, 200);
    let shown: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
    assert_eq!(shown["floors"][0]["policy"], serde_json::to_value(&policy).expect("plain"));
    let cases = [
        (body.replace("null", "0"), 422),
        (body.replace("null", "86401"), 422),
        (body.replace("priority", "random"), 422),
        (body.replace("\"holders_max\":2,", ""), 422),
        (body.replace("holders_max", "holder_max"), 422),
        (body.replace(":2", ":-2"), 422),
        ("{".to_owned(), 400),
        (" ".repeat(2000), 413),
    ];
    for (body, status) in cases {
        assert_eq!(request_json(admin.address(), path, &body).await.status, status, "{body}");
    }
    let response = request(admin.address(), "POST", path).await;
    assert_eq!(response.status, 415);
}

#[tokio::test]
async fn says_why_nothing_is_done_to_a_floor() {
    let admin = start().await;
    let cases = [
        ("nowhere", 404, "no such room or member\n"),
        ("floorless", 404, "the room has no such floor\n"),
        ("deaf", 409, "the member has no BFCP stream: it can hold no floor\n"),
        ("crowded", 409, "too many requests for the floor, or of the member, wait\n"),
        ("hung", 503, "the control plane is busy\n"),
    ];
    for (room, status, text) in cases {
        let path = format!("/api/v1/rooms/{room}/floors/1/members/5/grant");
        let response = request(admin.address(), "POST", &path).await;
        assert_eq!((response.status, response.text().as_str()), (status, text), "{room}");
    }
    let strict = request(admin.address(), "GET", "/api/v1/rooms/strict/floors").await;
    assert_eq!(strict.status, 422);
    assert!(strict.text().starts_with("holders_max"), "{}", strict.text());
    for path in ["/floors/65536/members/5/grant", "/floors/one/chair", "/floors/1/members/x/chair"]
    {
        let path = format!("/api/v1/rooms/board{path}");
        let method = if path.ends_with("one/chair") { "DELETE" } else { "POST" };
        assert_eq!(request(admin.address(), method, &path).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn counts_floor_control_by_primitive_error_and_wait() {
    let admin = start().await;
    let text = request(admin.address(), "GET", "/metrics").await.text();
    for expected in [
        "\nmrf_bfcp_messages_total{direction=\"received\",primitive=\"FloorRequest\"} 0\n",
        "\nmrf_bfcp_messages_total{direction=\"received\",primitive=\"unknown\"} 0\n",
        "\nmrf_bfcp_messages_total{direction=\"sent\",primitive=\"GoodbyeAck\"} 0\n",
        "\nmrf_bfcp_errors_total{code=\"14\"} 0\n",
        "\nmrf_bfcp_retransmissions_total 0\n",
        "\n# TYPE mrf_floor_wait_seconds histogram\n",
        "\nmrf_floor_wait_seconds_bucket{le=\"0.001\"} 0\n",
        "\nmrf_floor_wait_seconds_bucket{le=\"300.0\"} 0\n",
        "\nmrf_floor_wait_seconds_bucket{le=\"+Inf\"} 0\n",
        "\nmrf_floor_wait_seconds_count 0\n",
    ] {
        assert!(text.contains(expected), "{expected} is missing from:\n{text}");
    }
}
