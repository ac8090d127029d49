//! Asking a KMS over HTTP: whom, how often, and what counts as an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use control_api::config::Config;
use control_api::http::{HttpServer, HttpServerConfig, KmsHandler, KmsResponse, kms_router};
use control_api::kms::{AskError, ClientConfig, HttpBinding, KmsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const RESOLVE_INIT: [u8; 4] = [1, 16, 0, 7];

fn binding() -> HttpBinding {
    HttpBinding::parse("/mikey?type={type}", "request", "resolve").expect("good")
}

fn client(servers: &[SocketAddr], timeout: Duration) -> KmsClient {
    let config = ClientConfig {
        servers: servers.iter().map(|address| format!("http://{address}/")).collect(),
        binding: binding(),
        connect_timeout: timeout,
        response_timeout: timeout,
        timeout,
        connections_max: 4,
        tls: Config::default().kms.client_tls().expect("no files"),
    };
    KmsClient::new(config).expect("good")
}

/// A KMS that answers with the message backwards, or is overloaded.
async fn kms(overloaded: bool) -> (HttpServer, SocketAddr) {
    let handler: KmsHandler = Arc::new(move |message| {
        let response = if overloaded {
            KmsResponse::TooMany { retry_after: Duration::from_secs(3600) }
        } else {
            KmsResponse::Message(message.iter().rev().copied().collect())
        };
        Box::pin(async { response })
    });
    let config = HttpServerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), 16);
    let server = HttpServer::start(config, kms_router(binding(), handler)).await.expect("binds");
    let address = server.address();
    (server, address)
}

/// Whoever reads a request, says this, and hangs up.
async fn speaker(says: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = Vec::new();
            while !request.ends_with(&RESOLVE_INIT) {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            if request.ends_with(&RESOLVE_INIT) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            let _ = stream.write_all(says).await;
        }
    });
    (address, asked)
}

/// Far beyond what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(20);
const REVERSED: [u8; 4] = [7, 0, 16, 1];

#[tokio::test]
async fn another_kms_is_asked_what_one_has_not_answered() {
    let (silent, asked) = speaker(b"").await;
    let (_server, address) = kms(false).await;
    let (_busy_server, busy) = kms(true).await;
    let client = client(&[silent, busy, address], PATIENCE);
    assert_eq!(client.ask(RESOLVE_INIT.to_vec()).await, Ok(REVERSED.to_vec()));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // On the connection there is.
    for _ in 0..10 {
        assert_eq!(client.ask(RESOLVE_INIT.to_vec()).await, Ok(REVERSED.to_vec()));
    }
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_sent_to_the_same_kms_again() {
    let (silent, asked) = speaker(b"").await;
    let client = client(&[silent], PATIENCE);
    let error = client.ask(RESOLVE_INIT.to_vec()).await.expect_err("nobody answers");
    assert!(matches!(error, AskError::NoAnswer(_)), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn only_mikey_is_an_answer() {
    for (says, why) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"[..], "html"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "\"\""),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "500"),
        (too_long(), "length limit"),
        (b"SIP/2.0 200 OK\r\n\r\n", "invalid"),
    ] {
        let (address, _) = speaker(says).await;
        let error = client(&[address], PATIENCE).ask(RESOLVE_INIT.to_vec()).await;
        let error = error.expect_err("no answer").to_string();
        assert!(error.contains(why), "{why} is missing from {error}");
    }
}

/// More than any message has.
fn too_long() -> &'static [u8] {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/mikey\r\nContent-Length: 70000\r\n\r\n";
    Box::leak(format!("{head}{}", "x".repeat(70_000)).into_bytes().into_boxed_slice())
}

#[tokio::test]
async fn what_is_no_request_is_not_sent() {
    let (address, asked) = speaker(b"").await;
    let client = client(&[address], PATIENCE);
    for message in [&[][..], &[1], &[1, 14, 0]] {
        assert_eq!(client.ask(message.to_vec()).await, Err(AskError::NotARequest));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_time_for_a_question_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    // Nobody accepts, so nothing is ever answered; refused connections are tried again.
    for address in [address, SocketAddr::from(([127, 0, 0, 1], 1))] {
        let client = client(&[address], Duration::from_millis(300));
        assert!(client.ask(RESOLVE_INIT.to_vec()).await.is_err());
    }
}
