//! The KMS with its listener: in the node, and alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{StartError, ntp_now, settings};
use crate::config::{Config, KmsMode};
use crate::http::{
    HttpServer, HttpServerConfig, KmsAdmin, KmsHandler, Readiness, ReadinessState, Reload,
    TlsIdentity, kms_admin_router, kms_router,
};
use crate::kms::{AskError, ClientConfig, KmsClient, KmsService};
use crate::mrfc::{Event, ResolveId};
use crate::random;

/// A KMS that takes requests.
pub(super) struct KmsFront {
    pub(super) service: Arc<KmsService>,
    pub(super) server: HttpServer,
    /// Reads the configuration again.
    pub(super) reload: Reload,
    keys: JoinHandle<()>,
}

impl KmsFront {
    /// Goes on with the state there is, and listens. `file` is what a reload reads.
    pub(super) async fn start(config: &Config, file: Option<PathBuf>) -> Result<Self, StartError> {
        let kms = settings::kms(config).map_err(StartError::Kms)?;
        let policy = settings::kms_policy(config);
        let service = match &config.kms.state_directory {
            None => KmsService::new(kms, policy),
            Some(path) => KmsService::open(kms, policy, path, ntp_now(), &mut random::fill)
                .map_err(|error| StartError::Kms(error.to_string()))?,
        };
        let service = Arc::new(service);
        let tls = config.kms.server_tls().map_err(StartError::Kms)?.map(TlsIdentity::new);
        let mut http = HttpServerConfig::new(config.kms.listen, config.http.connections_max);
        http.tls = tls.clone();
        let binding = config.kms.binding().map_err(|why| StartError::Kms(why.to_owned()))?;
        let server = HttpServer::start(http, kms_router(binding, handler(&service))).await;
        let server = server.map_err(|error| StartError::kms(config, error))?;
        let keys = tokio::spawn(look_after_keys(Arc::clone(&service)));
        let reload = reload(Arc::clone(&service), tls, config.clone(), file);
        Ok(Self { service, server, reload, keys })
    }

    /// Takes no more requests, and writes down what was accepted.
    pub(super) async fn stop(self) {
        let Self { service, server, keys, .. } = self;
        server.stop().await;
        keys.abort();
        if let Err(error) = service.close().await {
            tracing::error!(%error, "the state of the KMS could not be written at the end");
        }
    }
}

/// The KMS behind its HTTP binding.
fn handler(service: &Arc<KmsService>) -> KmsHandler {
    let service = Arc::clone(service);
    Arc::new(move |message| {
        let service = Arc::clone(&service);
        Box::pin(async move { service.handle(&message, ntp_now(), &mut random::fill).await })
    })
}

async fn look_after_keys(service: Arc<KmsService>) {
    loop {
        if let Err(error) = service.look_after_keys(ntp_now(), &mut random::fill).await {
            tracing::error!(%error, "the ticket protection keys of the KMS stay as they are");
        }
        tokio::time::sleep(KEYS_INTERVAL).await;
    }
}

/// What reads the configuration again: users, groups, ticket protection keys, policies and the
/// certificate are taken over. One that is wrong changes nothing.
fn reload(
    service: Arc<KmsService>,
    tls: Option<TlsIdentity>,
    started: Config,
    file: Option<PathBuf>,
) -> Reload {
    Arc::new(move || {
        let file = file.as_deref().ok_or("started without a configuration file")?;
        let config = Config::load(file).map_err(|problem| problem.to_string())?;
        let stays = needs_restart(&started, &config);
        let mut effective = config;
        // The messages of the node itself name the KMS by the URI it was started with.
        effective.kms.uri.clone_from(&started.kms.uri);
        effective.mikey = started.mikey.clone();
        let (new, certificate) = (settings::kms(&effective)?, effective.kms.server_tls()?);
        service.reload(new, settings::kms_policy(&effective));
        if let (Some(tls), Some(certificate)) = (&tls, certificate) {
            tls.replace(certificate);
        }
        let kms = &effective.kms;
        let (users, keys, groups) = (kms.users.len(), kms.ticket_keys.len(), kms.groups.len());
        tracing::info!(users, keys, groups, ?stays, "the configuration of the KMS was reloaded");
        let taken = format!("reloaded: {users} user(s), {keys} ticket key(s), {groups} group(s)\n");
        Ok(if stays.is_empty() {
            taken
        } else {
            format!("{taken}only a restart takes over: {}\n", stays.join(", "))
        })
    })
}

/// Settings that differ and are read at the start only.
fn needs_restart(started: &Config, now: &Config) -> Vec<&'static str> {
    let (old, new) = (&started.kms, &now.kms);
    let settings = [
        ("kms.mode", old.mode == new.mode),
        ("kms.listen", old.listen == new.listen),
        ("kms.uri", old.uri == new.uri),
        ("kms.resolver", old.resolver == new.resolver),
        ("kms.target", old.binding() == new.binding()),
        ("kms.state_directory", old.state_directory == new.state_directory),
        ("kms.certificate", old.certificate.is_some() == new.certificate.is_some()),
        ("mikey", started.mikey == now.mikey),
    ];
    settings.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// Questions to a KMS that is elsewhere, asked beside the control loop.
pub(super) struct Questions {
    /// `None`: the KMS is in the process.
    client: Option<Arc<KmsClient>>,
    asked: JoinSet<Event>,
}

impl Questions {
    pub(super) fn new(client: Option<KmsClient>) -> Self {
        Self { client: client.map(Arc::new), asked: JoinSet::new() }
    }

    /// Asks. What cannot be asked counts as not answered.
    pub(super) fn ask(&mut self, resolve: ResolveId, message: Vec<u8>) {
        let client = self.client.as_ref().expect("the MRFC asks where the KMS is not in here");
        let client = (self.asked.len() < QUESTIONS_MAX).then(|| Arc::clone(client));
        self.asked.spawn(async move {
            let response = match client {
                Some(client) => client.ask(message).await,
                None => Err(AskError::NoAnswer("too many questions wait".to_owned())),
            };
            if let Err(error) = &response {
                tracing::debug!(%error, "a ticket is not resolved");
            }
            Event::Resolved { resolve, response: response.ok() }
        });
    }

    /// The next answer; `None` where no question is on its way.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.asked.join_next().await.map(answer_of)
    }

    /// An answer that is there.
    pub(super) fn poll(&mut self) -> Option<Event> {
        self.asked.try_join_next().map(answer_of)
    }
}

fn answer_of(joined: Result<Event, JoinError>) -> Event {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Asks the KMS that is elsewhere.
pub(super) fn client(config: &Config) -> Result<KmsClient, StartError> {
    let kms = &config.kms;
    let binding = kms.binding().map_err(|why| StartError::Kms(why.to_owned()))?;
    KmsClient::new(ClientConfig {
        servers: kms.servers.iter().map(|server| server.url.clone()).collect(),
        binding,
        connect_timeout: Duration::from_millis(kms.client.connect_timeout_milliseconds),
        response_timeout: Duration::from_millis(kms.client.response_timeout_milliseconds),
        timeout: Duration::from_millis(kms.client.timeout_milliseconds),
        connections_max: kms.client.connections_max,
        tls: kms.client_tls().map_err(StartError::Kms)?,
    })
    .map_err(StartError::Kms)
}

/// A KMS that stands alone: `mrf kms`.
pub struct StandaloneKms {
    front: KmsFront,
    admin: HttpServer,
    secure: bool,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
}

impl StandaloneKms {
    /// Starts it; returns once everything listens. Must be called on a tokio runtime with I/O and
    /// time enabled. `file` is what a reload reads.
    ///
    /// # Errors
    /// Says which part could not be started, why, and what to do about it.
    pub async fn start(config: Config, file: Option<&Path>) -> Result<Self, StartError> {
        if config.kms.mode == KmsMode::Remote {
            let why = "kms.mode = \"remote\" is for a node that asks; a KMS has \"embedded\"";
            return Err(StartError::Kms(why.to_owned()));
        }
        let front = KmsFront::start(&config, file.map(Path::to_owned)).await?;
        let readiness = Readiness::new();
        let admin = KmsAdmin {
            service: Arc::clone(&front.service),
            reload: Arc::clone(&front.reload),
            readiness: Arc::clone(&readiness),
        };
        let http = HttpServerConfig::new(config.http.listen, config.http.connections_max);
        let admin = HttpServer::start(http, kms_admin_router(admin)).await;
        let admin = admin.map_err(|error| StartError::http(&config, error))?;
        readiness.set(ReadinessState::Ready);
        let secure = config.kms.certificate.is_some();
        Ok(Self { front, admin, secure, readiness, stop: CancellationToken::new() })
    }

    /// The line that scripts wait for.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let (kms, http) = (self.front.server.address(), self.admin.address());
        format!("mrf ready kms={kms} http={http} scheme={scheme}")
    }

    /// Something that asks it to stop, for whoever watches for signals.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// What reads its configuration again.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Arc::clone(&self.front.reload)
    }

    /// Serves until it is told to stop.
    pub async fn wait(self) {
        self.stop.cancelled().await;
        self.readiness.set(ReadinessState::Draining);
        self.front.stop().await;
    }
}

impl std::fmt::Debug for KmsFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KmsFront").field("service", &self.service).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StandaloneKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.ready_line())
    }
}

/// Questions on their way: what a KMS at ten thousand a second answers in a second's half. A call
/// beyond is refused at once, as the KMS is behind anyway.
const QUESTIONS_MAX: usize = 4096;
/// How often it is looked whether a key's time has come; both times are far longer.
const KEYS_INTERVAL: Duration = Duration::from_secs(30);
