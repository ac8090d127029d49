//! Posting events to an application: one at a time, so that they arrive in their order.
//!
//! An event that may have arrived is posted again where the answer did not come; its number tells the
//! application that it has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mrfp_core::metrics::MetricKind;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Events;
use crate::http::Family;

/// The queue of what is to be posted. Without a webhook nothing is.
pub(super) struct Webhook {
    queue: Option<mpsc::Sender<Waiting>>,
    task: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    /// The last one was dropped, which is in the log.
    full: bool,
}

/// An event on its way.
struct Waiting {
    happened: Instant,
    body: Bytes,
}

#[derive(Default)]
struct Counters {
    told: AtomicU64,
    dropped: AtomicU64,
    attempts_failed: AtomicU64,
}

/// What posts.
struct Poster {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    target: Uri,
    patience: Duration,
    age_max: Duration,
    counters: Arc<Counters>,
    /// The last attempt failed, which is in the log.
    failing: bool,
}

impl Webhook {
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The certificates of authorities cannot be read, or the target is no URI.
    pub(super) fn start(config: &Events) -> Result<Self, String> {
        let counters = Arc::<Counters>::default();
        let mut webhook = Self { queue: None, task: None, counters, full: false };
        if let Some(target) = &config.webhook {
            let (queue, waiting) = mpsc::channel(config.waiting_max);
            let poster = Poster::new(config, target, Arc::clone(&webhook.counters))?;
            webhook.task = Some(tokio::spawn(poster.run(waiting)));
            webhook.queue = Some(queue);
        }
        Ok(webhook)
    }

    /// Somebody is told of what is posted.
    pub(super) fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Posts an event after those before it. Where too many wait it is dropped.
    pub(super) fn post(&mut self, body: Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        let waiting = Waiting { happened: Instant::now(), body: body.into() };
        let dropped = queue.try_send(waiting).is_err();
        if dropped {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if dropped && !self.full {
            tracing::warn!("too many events wait for the webhook: they are dropped");
        }
        self.full = dropped;
    }

    /// What is left is posted, until then.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        self.queue = None;
        let Some(mut task) = self.task.take() else { return };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let waiting =
            self.queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity());
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { told, dropped, attempts_failed } = &*self.counters;
        let counter = |name, help, value| Family::single(name, help, MetricKind::Counter, value);
        vec![
            counter("events_told", "Events the webhook has taken", read(told)),
            counter("events_dropped", "Events that were too many or too old", read(dropped)),
            counter(
                "events_attempts_failed",
                "Attempts to post an event that were not answered 2xx",
                read(attempts_failed),
            ),
            Family::single(
                "events_waiting",
                "Events that wait for the webhook",
                MetricKind::Gauge,
                waiting as u64,
            ),
        ]
    }
}

impl Poster {
    fn new(config: &Events, target: &str, counters: Arc<Counters>) -> Result<Self, String> {
        let patience = Duration::from_millis(config.timeout_milliseconds);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*config.client_tls()?).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self {
            http,
            target: target.parse().map_err(|error| format!("{target}: {error}"))?,
            patience,
            age_max: Duration::from_secs(config.age_seconds_max),
            counters,
            failing: false,
        })
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        while let Some(waiting) = queue.recv().await {
            let deadline = waiting.happened + self.age_max;
            let in_time = Instant::now() < deadline;
            let told = in_time && timeout_at(deadline, self.insist(&waiting.body)).await.is_ok();
            let counter = if told { &self.counters.told } else { &self.counters.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Until it is taken.
    async fn insist(&mut self, body: &Bytes) {
        let mut pause = BACK_OFF_FIRST;
        while let Err(why) = self.attempt(body.clone()).await {
            self.counters.attempts_failed.fetch_add(1, Ordering::Relaxed);
            if !self.failing {
                tracing::warn!(why, "the webhook takes no events");
            }
            self.failing = true;
            sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
        if self.failing {
            tracing::info!("the webhook takes events again");
        }
        self.failing = false;
    }

    async fn attempt(&self, body: Bytes) -> Result<(), String> {
        let request = Request::post(self.target.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let deadline = Instant::now() + self.patience;
        let response = timeout_at(deadline, self.http.request(request)).await;
        let response = response.map_err(|_| "no answer in time".to_owned())?;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read to its end, so that the connection serves again. Whether it has one is no part of the
        // answer: an event that was taken is not posted again.
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let _ = timeout_at(deadline, body).await;
        if status.is_success() { Ok(()) } else { Err(format!("answers {status}")) }
    }
}

/// Shorter than servers and middleboxes usually keep an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a first failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause, so that an application that is back is found soon.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// Nobody reads it: an application has no more to say than that it took the event.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers one request after the other with these statuses, each on a connection of its own, and
    /// tells the bodies. With 0 the connection is closed without an answer.
    async fn application(listener: TcpListener, statuses: &[u16]) -> Vec<String> {
        let mut bodies = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            bodies.push(request_body(&mut stream).await);
            let answer =
                format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if *status > 0 {
                stream.write_all(answer.as_bytes()).await.expect("sent");
            }
        }
        bodies
    }

    async fn request_body(stream: &mut TcpStream) -> String {
        let mut request = Vec::new();
        loop {
            stream.read_buf(&mut request).await.expect("readable");
            let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("post /floors http/1.1\r\n"), "{head}");
            assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.expect("a length").parse::<usize>().expect("a number") {
                return body.to_owned();
            }
        }
    }

    async fn listen() -> (TcpListener, Events) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        (
            listener,
            Events { webhook: Some(format!("http://{address}/floors")), ..Events::default() },
        )
    }

    fn count(webhook: &Webhook, name: &str) -> u64 {
        let families = webhook.families();
        families.iter().find(|family| family.name == name).expect("a family").samples[0].value
    }

    #[tokio::test]
    async fn events_arrive_in_their_order_and_again_where_they_were_not_taken() {
        let (listener, config) = listen().await;
        let mut webhook = Webhook::start(&config).expect("valid");
        for event in ["one", "two"] {
            webhook.post(event.into());
        }
        let bodies = application(listener, &[503, 0, 200, 204]).await;
        assert_eq!(bodies, ["one", "one", "one", "two"]);
        webhook.finish(Instant::now() + Duration::from_secs(10)).await;
        assert_eq!(count(&webhook, "events_told"), 2);
        assert_eq!(count(&webhook, "events_attempts_failed"), 2);
        assert_eq!(count(&webhook, "events_dropped"), 0);
    }

    #[tokio::test]
    async fn what_is_too_many_or_too_old_is_dropped_and_counted() {
        // It listens, and never answers.
        let (_listener, config) = listen().await;
        let config = Events { waiting_max: 2, age_seconds_max: 1, ..config };
        let mut webhook = Webhook::start(&config).expect("valid");
        for event in ["one", "two", "three"] {
            webhook.post(event.into());
        }
        assert_eq!(count(&webhook, "events_dropped"), 1);
        assert_eq!(count(&webhook, "events_waiting"), 2);
        webhook.finish(Instant::now() + Duration::from_secs(30)).await;
        assert_eq!(count(&webhook, "events_dropped"), 3);
        assert_eq!(count(&webhook, "events_told"), 0);
    }

    #[tokio::test]
    async fn an_event_that_was_taken_is_not_posted_again_however_its_answer_ends() {
        let (listener, config) = listen().await;
        let mut webhook =
            Webhook::start(&Events { timeout_milliseconds: 300, ..config }).expect("valid");
        for event in ["one", "two"] {
            webhook.post(event.into());
        }
        let mut kept = Vec::new();
        for (event, length) in [("one", 10), ("two", ANSWER_BYTES_MAX + 1)] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            assert_eq!(request_body(&mut stream).await, event);
            // Of the body that it announces nothing more comes.
            let answer = format!("HTTP/1.1 200 x\r\nContent-Length: {length}\r\n\r\nbegun");
            stream.write_all(answer.as_bytes()).await.expect("sent");
            kept.push(stream);
        }
        webhook.finish(Instant::now() + Duration::from_secs(10)).await;
        assert_eq!(count(&webhook, "events_told"), 2);
        assert_eq!(count(&webhook, "events_attempts_failed"), 0);
    }

    #[tokio::test]
    async fn without_a_webhook_nothing_waits() {
        let mut webhook = Webhook::start(&Events::default()).expect("valid");
        assert!(!webhook.is_on());
        webhook.post("one".into());
        assert_eq!(count(&webhook, "events_dropped") + count(&webhook, "events_waiting"), 0);
    }
}
