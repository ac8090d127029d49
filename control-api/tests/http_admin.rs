//! The admin listener over real sockets: health, readiness, metrics, contexts, limits.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_api::http::{
    AdminServices, ContextView, Family, HttpServer, HttpServerConfig, MemberView, Query, Readiness,
    ReadinessState, Sample, admin_router,
};
use mrfp_core::metrics::{MetricKind, PublishedMetrics, ShardMetrics};
use mrfp_core::mp::ShardId;
use support::http::{request, request_raw};
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
        Query::Rooms { .. }
        | Query::Administer { .. }
        | Query::Dial { .. }
        | Query::RoomStatistics { .. } => {
            panic!("nobody asks for that")
        }
    }
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
