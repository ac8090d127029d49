//! The KMS's HTTP binding over real sockets.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_api::http::{HttpServer, HttpServerConfig, KmsHandler, KmsResponse, kms_router};
use control_api::kms::HttpBinding;
use support::http::{Response, request_raw};

/// Answers every message with its own bytes reversed, but refuses those that end in 0xff.
async fn start() -> HttpServer {
    start_with(|_| ()).await
}

async fn start_with(limit: impl FnOnce(&mut HttpServerConfig)) -> HttpServer {
    let handler: KmsHandler = Arc::new(|message| {
        let response = match message.last() {
            Some(0xff) => KmsResponse::Malformed,
            Some(0xfe) => KmsResponse::TooMany { retry_after: Duration::from_millis(2500) },
            Some(0xfd) => KmsResponse::Unavailable,
            _ => KmsResponse::Message(message.iter().rev().copied().collect()),
        };
        Box::pin(async { response })
    });
    let target = "/keymanagement?requesttype={type}";
    let binding = HttpBinding::parse(target, "ticketrequest", "ticketresolve").expect("good");
    let mut config = HttpServerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), 16);
    limit(&mut config);
    HttpServer::start(config, kms_router(binding, handler)).await.expect("binds")
}

async fn post(server: &HttpServer, query: &str, content_type: &str, body: &[u8]) -> Response {
    let mut bytes = format!(
        "POST /keymanagement{query} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    request_raw(server.address(), &bytes).await
}

const REQUEST_INIT_PSK: u8 = 11;
const RESOLVE_INIT_PSK: u8 = 16;

#[tokio::test]
async fn passes_a_message_to_the_kms_and_its_answer_back() {
    let server = start().await;
    let cases = [("ticketrequest", REQUEST_INIT_PSK), ("ticketresolve", RESOLVE_INIT_PSK)];
    for (request_type, data_type) in cases {
        let query = format!("?requesttype={request_type}");
        let response = post(&server, &query, "application/mikey", &[1, data_type, 0, 9]).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/mikey"));
        assert_eq!(response.body, [9, 0, data_type, 1]);
    }
}

#[tokio::test]
async fn refuses_what_the_kms_cannot_read() {
    let server = start().await;
    let body = [1, RESOLVE_INIT_PSK, 0xff];
    let query = "?requesttype=ticketresolve";
    assert_eq!(post(&server, query, "application/mikey", &body).await.status, 400);
}

#[tokio::test]
async fn tells_a_user_when_to_ask_again() {
    let server = start().await;
    let query = "?requesttype=ticketresolve";
    let body = [1, RESOLVE_INIT_PSK, 0xfe];
    let response = post(&server, query, "application/mikey", &body).await;
    assert_eq!((response.status, response.header("retry-after")), (429, Some("3")));
    let body = [1, RESOLVE_INIT_PSK, 0xfd];
    assert_eq!(post(&server, query, "application/mikey", &body).await.status, 503);
}

#[tokio::test]
async fn refuses_a_message_that_is_not_what_the_query_says() {
    let server = start().await;
    for (query, body) in [
        ("?requesttype=ticketrequest", &[1, RESOLVE_INIT_PSK, 0][..]),
        ("?requesttype=ticketresolve", &[1, REQUEST_INIT_PSK, 0]),
        ("?requesttype=ticketresolve", &[]),
        ("?requesttype=somethingelse", &[1, RESOLVE_INIT_PSK, 0]),
        ("", &[1, RESOLVE_INIT_PSK, 0]),
    ] {
        let status = post(&server, query, "application/mikey", body).await.status;
        assert_eq!(status, 400, "{query} {body:?}");
    }
}

#[tokio::test]
async fn refuses_other_media_types() {
    let server = start().await;
    let query = "?requesttype=ticketresolve";
    let body = [1, RESOLVE_INIT_PSK, 0];
    assert_eq!(post(&server, query, "text/plain", &body).await.status, 415);
    assert_eq!(post(&server, query, "Application/MIKEY; x=y", &body).await.status, 200);
}

#[tokio::test]
async fn refuses_a_body_longer_than_any_message() {
    let server = start().await;
    let mut body = vec![0; 64 * 1024 + 1];
    body[1] = RESOLVE_INIT_PSK;
    let response = post(&server, "?requesttype=ticketresolve", "application/mikey", &body).await;
    assert_eq!(response.status, 413);
}

#[tokio::test]
async fn gives_up_on_a_body_that_does_not_come() {
    let server = start_with(|config| config.request_timeout = Duration::from_millis(50)).await;
    let head = b"POST /keymanagement?requesttype=ticketresolve HTTP/1.1\r\nHost: kms\r\n\
        Content-Type: application/mikey\r\nContent-Length: 1000\r\n\r\nhalf";
    // Returns only because the server closes the connection.
    assert_eq!(request_raw(server.address(), head).await.status, 503);
}
