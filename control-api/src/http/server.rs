//! An HTTP/1.1 listener with a limit on everything a peer can make it spend.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running HTTP listener; ends when dropped, and its connections with it once they have answered
/// what they were asked.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    task: JoinHandle<()>,
    connections: TaskTracker,
    stop: CancellationToken,
    request_timeout: Duration,
}

/// How a listener is set up.
#[derive(Clone, Debug)]
pub struct HttpServerConfig {
    /// Address to bind; port 0: any.
    pub listen: SocketAddr,
    /// Connections at a time; a further one waits in the kernel's backlog.
    pub connections_max: usize,
    /// A request head must be complete this long after the connection, or the answer before it.
    pub head_timeout: Duration,
    /// A request must be answered this long after its head, its body included.
    pub request_timeout: Duration,
    /// A connection lasts at most this long, whatever it does.
    pub connection_timeout: Duration,
    /// TLS, where the listener is not in the clear.
    pub tls: Option<TlsIdentity>,
}

/// The certificate of a listener, which may be replaced while it serves.
#[derive(Clone, Debug)]
pub struct TlsIdentity(Arc<RwLock<Arc<rustls::ServerConfig>>>);

impl TlsIdentity {
    /// One that shows this certificate.
    #[must_use]
    pub fn new(config: Arc<rustls::ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// New connections are shown this one.
    pub fn replace(&self, config: Arc<rustls::ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

impl HttpServerConfig {
    /// The usual timeouts: a head comes in one packet, a scraper keeps its connection for minutes.
    #[must_use]
    pub fn new(listen: SocketAddr, connections_max: usize) -> Self {
        Self {
            listen,
            connections_max,
            head_timeout: Duration::from_secs(10),
            // The control loop answers in microseconds; one that needs longer is in trouble, and
            // a health check that waits for it would hide that. A body comes with its head.
            request_timeout: Duration::from_secs(5),
            connection_timeout: Duration::from_secs(300),
            tls: None,
        }
    }
}

impl HttpServer {
    /// Binds, and serves `router` on the current tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(config: HttpServerConfig, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let limit = config.request_timeout;
        let router = router
            .layer(middleware::from_fn(move |request, next| limit_time(limit, request, next)));
        let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
        let task =
            tokio::spawn(accept(listener, config, router, connections.clone(), stop.clone()));
        Ok(Self { address, task, connections, stop, request_timeout: limit })
    }

    /// Takes no more requests, and waits for the answers to those there are.
    pub async fn stop(self) {
        self.task.abort();
        self.stop.cancel();
        self.connections.close();
        // Each has its own time limit, so they end by then.
        let _ = tokio::time::timeout(self.request_timeout, self.connections.wait()).await;
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
        self.stop.cancel();
    }
}

async fn limit_time(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too slow\n").into_response(),
    }
}

async fn accept(
    listener: TcpListener,
    config: HttpServerConfig,
    router: Router,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(config.connections_max));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, config) = (router.clone(), config.clone());
                let stop = stop.clone();
                connections.spawn(async move {
                    secure(stream, config, router, &stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when somebody hangs up.
                tracing::warn!(%error, "HTTP accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Performs the handshake, where there is to be one, in the time a head may take.
async fn secure(
    stream: TcpStream,
    config: HttpServerConfig,
    router: Router,
    stop: &CancellationToken,
) {
    let Some(tls) = &config.tls else {
        return serve(stream, config, router, stop).await;
    };
    match tokio::time::timeout(config.head_timeout, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, config, router, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake of HTTP failed"),
        Err(_) => tracing::debug!("TLS handshake of HTTP outlived its time"),
    }
}

async fn serve<S>(stream: S, config: HttpServerConfig, router: Router, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let served = async {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match tokio::time::timeout(config.connection_timeout, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "HTTP connection ended"),
        Err(_) => tracing::debug!("HTTP connection outlived its time"),
    }
}

/// A request head of ours has a few hundred bytes; browsers send 1 to 2 KB. (hyper's own minimum
/// is 8 KiB.)
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
