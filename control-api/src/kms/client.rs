//! Asking a KMS that is elsewhere, over HTTP: several of them, kept connections, one deadline.
//!
//! A request that may have arrived is never sent to the same KMS again: it would be refused as a
//! replay (RFC 6043 section 12.4). Another KMS has not seen it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Exchange, HttpBinding};
use crate::http::{CONTENT_TYPE, MESSAGE_BYTES_MAX, is_mikey};

/// What a client has to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Scheme, host and port of each KMS, the one wanted most first.
    pub servers: Vec<String>,
    /// What stands behind them.
    pub binding: HttpBinding,
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// From there to the last byte of the answer, the TLS handshake of a new connection included.
    pub response_timeout: Duration,
    /// For everything together, other servers included.
    pub timeout: Duration,
    /// Questions on the way at a time; HTTP/1.1 needs a connection for each.
    pub connections_max: usize,
    /// Whom to trust.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Asks whichever KMS answers.
pub struct KmsClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    config: ClientConfig,
    servers: Vec<Server>,
    permits: Semaphore,
}

/// One KMS, and whether it makes sense to ask it.
struct Server {
    name: String,
    health: Mutex<Health>,
}

#[derive(Clone, Copy, Default)]
struct Health {
    /// In a row.
    failures: u32,
    /// Not to be asked before, unless there is no other.
    retry_at: Option<Instant>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AskError {
    /// The message is not one for a KMS.
    NotARequest,
    /// No KMS answered in time; the last reason there was.
    NoAnswer(String),
}

/// What became of one attempt.
enum Failure {
    /// It has not been sent: the same server may be asked again.
    NotSent(String),
    /// Only another server may be asked.
    Sent { why: String, retry_after: Option<Duration> },
}

impl KmsClient {
    /// A client without connections.
    ///
    /// # Errors
    /// A URL of a server that is none, or none at all.
    pub fn new(config: ClientConfig) -> Result<Self, String> {
        if config.servers.is_empty() {
            return Err("no server".to_owned());
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*config.tls).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(config.connections_max)
            .build(connector);
        let server = |name: &String| Server { name: name.clone(), health: Mutex::default() };
        let servers: Vec<Server> = config.servers.iter().map(server).collect();
        let client =
            Self { http, permits: Semaphore::new(config.connections_max), config, servers };
        for server in &client.servers {
            client.uri(server, Exchange::Request)?;
        }
        Ok(client)
    }

    fn uri(&self, server: &Server, exchange: Exchange) -> Result<Uri, String> {
        let base = server.name.trim_end_matches('/');
        let text = format!("{base}{}", self.config.binding.target(exchange));
        text.parse().map_err(|error| format!("{}: {error}", server.name))
    }

    /// Asks one KMS after another until one answers.
    ///
    /// # Errors
    /// None does in time.
    pub async fn ask(&self, message: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let exchange = Exchange::of(&message).ok_or(AskError::NotARequest)?;
        let message = Bytes::from(message);
        let deadline = Instant::now() + self.config.timeout;
        let late = || AskError::NoAnswer("too many questions wait".to_owned());
        let permit = timeout_at(deadline, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| late())?.map_err(|_| late())?;
        let mut unasked: Vec<&Server> = self.servers.iter().collect();
        let mut last = "no server".to_owned();
        while let Some(index) = best(&unasked) {
            let server = unasked[index];
            let retry_at = server.health().retry_at;
            if let Some(retry_at) = retry_at.filter(|retry_at| *retry_at > Instant::now()) {
                // All of those left are out of order.
                if retry_at >= deadline {
                    break;
                }
                sleep_until(retry_at).await;
            }
            match timeout_at(deadline, self.attempt(server, exchange, message.clone())).await {
                Ok(Ok(answer)) => {
                    server.set_health(Health::default());
                    return Ok(answer);
                }
                Ok(Err(Failure::NotSent(why))) => {
                    server.failed(&why, None);
                    last = format!("{}: {why}", server.name);
                }
                Ok(Err(Failure::Sent { why, retry_after })) => {
                    server.failed(&why, retry_after);
                    last = format!("{}: {why}", server.name);
                    unasked.remove(index);
                }
                Err(_) => {
                    server.failed("no answer in time", None);
                    last = format!("{}: no answer in time", server.name);
                    break;
                }
            }
        }
        Err(AskError::NoAnswer(last))
    }

    async fn attempt(
        &self,
        server: &Server,
        exchange: Exchange,
        message: Bytes,
    ) -> Result<Vec<u8>, Failure> {
        let request = Request::post(self.uri(server, exchange).map_err(Failure::NotSent)?)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::ACCEPT, CONTENT_TYPE)
            .body(Full::new(message))
            .map_err(|error| Failure::NotSent(error.to_string()))?;
        let sent = |why: String| Failure::Sent { why, retry_after: None };
        // A new connection may be needed, and how long that takes is not seen from here.
        let patience = self.config.connect_timeout + self.config.response_timeout;
        let exchanged = timeout(patience, async {
            let response = self.http.request(request).await.map_err(|error| {
                let why = chain(&error);
                if error.is_connect() { Failure::NotSent(why) } else { sent(why) }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
            let body = body.map_err(|error| sent(error.to_string()))?.to_bytes();
            Ok((head, body))
        });
        let (head, body) = exchanged.await.map_err(|_| sent("no answer in time".to_owned()))??;
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match head.status {
            StatusCode::OK if is_mikey(content_type) => Ok(body.to_vec()),
            StatusCode::OK => Err(sent(format!("answers with {content_type:?}, not MIKEY"))),
            status => Err(Failure::Sent {
                why: format!("answers {status}"),
                retry_after: retry_after(&head.headers),
            }),
        }
    }
}

impl Server {
    fn health(&self) -> Health {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_health(&self, health: Health) {
        let before = std::mem::replace(
            &mut *self.health.lock().unwrap_or_else(PoisonError::into_inner),
            health,
        );
        if before.failures > 0 && health.failures == 0 {
            tracing::info!(server = self.name, "the KMS answers again");
        }
    }

    fn failed(&self, why: &str, retry_after: Option<Duration>) {
        let failures = self.health().failures.saturating_add(1);
        if failures == 1 {
            tracing::warn!(server = self.name, why, "the KMS does not answer");
        }
        let doubled = BACK_OFF_FIRST * 2_u32.saturating_pow((failures - 1).min(DOUBLINGS_MAX));
        let wait = doubled.max(retry_after.unwrap_or_default()).min(BACK_OFF_MAX);
        self.set_health(Health { failures, retry_at: Some(Instant::now() + wait) });
    }
}

/// The first in order, else the one that may be tried again soonest.
fn best(servers: &[&Server]) -> Option<usize> {
    let now = Instant::now();
    let ready_at = |server: &&Server| server.health().retry_at.map_or(now, |at| at.max(now));
    (0..servers.len()).min_by_key(|index| ready_at(&servers[*index]))
}

/// Seconds only: a date would need the KMS's clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An error with its causes, which is where the reason is.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARequest => f.write_str("no message for a KMS"),
            Self::NoAnswer(why) => write!(f, "no KMS answers: {why}"),
        }
    }
}

impl std::error::Error for AskError {}

impl fmt::Debug for KmsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsClient").field("servers", &self.config.servers).finish_non_exhaustive()
    }
}

/// Shorter than servers and middleboxes usually keep an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a first failure: a process that restarts is back after a few of these.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause, so that a KMS that is back is found soon.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// Beyond the longest pause.
const DOUBLINGS_MAX: u32 = 8;
