//! The KMS as a service: rates, audit, metrics and state around the messages.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mrfp_core::metrics::MetricKind;

use super::audit::{self, Subject};
use super::own_keys::{OwnKey, OwnKeys};
use super::rate::{Bucket, RateLimiter};
use super::state::{State, StateDirectory, StateError, later};
use super::{Kms, Refusal, TicketResolver};
use crate::http::{Family, KmsResponse, Sample};
use crate::mikey::codec::{self, Ticket};
use crate::mikey::ticket::TicketContent;
use crate::mikey::{Error, NtpTime, Random};

/// How the service is run.
#[derive(Clone, Debug)]
pub struct ServicePolicy {
    /// Requests of one user in a second, where `user_requests` does not say otherwise.
    pub requests_per_user_per_second_max: u32,
    /// The same for single users, by the identity of their key.
    pub user_requests: BTreeMap<Vec<u8>, u32>,
    /// How long our own ticket protection key makes tickets before the next one does.
    pub rotation: Duration,
    /// Write a line of audit for tickets that are resolved in this process, too.
    pub audit_resolved_here: bool,
}

/// A KMS that many may ask at once.
pub struct KmsService {
    kms: Mutex<Kms>,
    policy: Mutex<ServicePolicy>,
    limiter: Mutex<RateLimiter>,
    /// By message and outcome.
    exchanges: Mutex<BTreeMap<(&'static str, String), u64>>,
    resolved_here: AtomicU64,
    refused_lines: Mutex<RefusedLines>,
    /// The monotonic clock starts here.
    started: Instant,
    keeper: Option<Keeper>,
}

/// Keeps the state where a restart finds it.
struct Keeper {
    /// As it was when we started: what came before.
    loaded: State,
    /// Later than every request that was accepted since.
    floor: Mutex<Option<NtpTime>>,
    /// The latest of each user that was.
    accepted: Mutex<BTreeMap<Vec<u8>, NtpTime>>,
    /// Whoever writes the file.
    directory: tokio::sync::Mutex<Arc<StateDirectory>>,
}

/// Lines about refusals are bounded, as anybody can cause them.
struct RefusedLines {
    bucket: Bucket,
    left_out: u64,
}

impl KmsService {
    /// A service whose keys and memory end with the process.
    #[must_use]
    pub fn new(kms: Kms, policy: ServicePolicy) -> Self {
        Self {
            kms: Mutex::new(kms),
            policy: Mutex::new(policy),
            limiter: Mutex::default(),
            exchanges: Mutex::default(),
            resolved_here: AtomicU64::new(0),
            refused_lines: Mutex::new(RefusedLines {
                bucket: Bucket::full(REFUSED_LINES_PER_SECOND_MAX, Duration::ZERO),
                left_out: 0,
            }),
            started: Instant::now(),
            keeper: None,
        }
    }

    /// A service that goes on with what is in this directory.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(
        kms: Kms,
        policy: ServicePolicy,
        directory: &Path,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Self, StateError> {
        let directory = StateDirectory::open(directory)?;
        let mut loaded = directory.load()?.unwrap_or_default();
        loaded.own_keys = loaded.own_keys.unexpired(now);
        let service = Self::new(kms, policy);
        {
            let mut kms = lock(&service.kms);
            kms.own_keys = loaded.own_keys.clone();
            // A key that makes tickets is on the disk before the first of them leaves.
            if kms.issuing_keys.is_empty() {
                kms.own_keys.newest(now, random);
            }
            let state = State { own_keys: kms.own_keys.clone(), ..loaded.clone() };
            directory.store(&state)?;
        }
        let keeper = Keeper {
            floor: Mutex::new(loaded.floor),
            loaded,
            accepted: Mutex::default(),
            directory: tokio::sync::Mutex::new(Arc::new(directory)),
        };
        Ok(Self { keeper: Some(keeper), ..service })
    }

    /// Answers a message that came from outside.
    pub async fn handle(
        &self,
        bytes: &[u8],
        now: NtpTime,
        random: &mut (dyn FnMut(&mut [u8]) + Send),
    ) -> KmsResponse {
        let message = match codec::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.count("unreadable", "refused");
                let refusal = Refusal::unauthenticated(error.into());
                return KmsResponse::of(refusal.message(bytes, now));
            }
        };
        let subject = Subject::of(&message);
        let per_second_max = lock(&self.policy).requests_of(&subject.user);
        let monotonic = self.started.elapsed();
        if let Some(wait) = lock(&self.limiter).wait(&subject.user, per_second_max, monotonic) {
            self.count(subject.message, "rate-limited");
            return KmsResponse::TooMany { retry_after: wait };
        }
        if self.may_be_replay(&subject) {
            let refusal = Refusal::unauthenticated(Error::Replayed);
            return self.refuse(bytes, &subject, refusal, now);
        }
        let answer = lock(&self.kms).answer(message, bytes, now, random);
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => return self.refuse(bytes, &subject, refusal, now),
        };
        lock(&self.limiter).take(&subject.user, per_second_max, monotonic);
        if let Err(error) = self.accept(&subject).await {
            // An answer that a restart would forget must not leave.
            tracing::error!(%error, "the state of the KMS cannot be kept");
            self.count(subject.message, "state-not-kept");
            return KmsResponse::Unavailable;
        }
        self.count(subject.message, "answered");
        subject.tell_answered(answer.issued.as_ref());
        KmsResponse::Message(answer.response)
    }

    fn refuse(
        &self,
        bytes: &[u8],
        subject: &Subject,
        refusal: Refusal,
        now: NtpTime,
    ) -> KmsResponse {
        self.count(subject.message, &refusal.error.name());
        if lock(&self.refused_lines).allows(self.started.elapsed()) {
            subject.tell_refused(&refusal.error);
        }
        KmsResponse::of(refusal.message(bytes, now))
    }

    /// Whether a process before this one may have accepted the request.
    fn may_be_replay(&self, subject: &Subject) -> bool {
        let floor = self.keeper.as_ref().and_then(|keeper| keeper.loaded.floor_of(&subject.user));
        match (floor, subject.time) {
            (Some(floor), Some(time)) => !floor.is_before(time),
            _ => false,
        }
    }

    /// Sees to it that a restart does not take the request again.
    async fn accept(&self, subject: &Subject) -> Result<(), StateError> {
        let (Some(keeper), Some(time)) = (&self.keeper, subject.time) else {
            return Ok(());
        };
        {
            let mut accepted = lock(&keeper.accepted);
            let mark = accepted.get(&subject.user).copied();
            let mark = later(mark, Some(time)).unwrap_or(time);
            accepted.insert(subject.user.clone(), mark);
        }
        let covered = || lock(&keeper.floor).is_some_and(|floor| !floor.is_before(time));
        if covered() {
            return Ok(());
        }
        let directory = keeper.directory.lock().await;
        // Whoever wrote meanwhile may have done it for us.
        if covered() {
            return Ok(());
        }
        let floor = time.after(FLOOR_AHEAD);
        let own_keys = lock(&self.kms).own_keys.clone();
        let marks = keeper.loaded.marks.clone();
        store(&directory, State { own_keys, floor: Some(floor), marks }).await?;
        *lock(&keeper.floor) = Some(floor);
        Ok(())
    }

    /// To be called now and then: makes the next ticket protection key where it is time, and
    /// forgets those whose tickets have expired.
    ///
    /// # Errors
    /// The state cannot be kept; everything goes on as before.
    pub async fn look_after_keys(
        &self,
        now: NtpTime,
        random: &mut (dyn FnMut(&mut [u8]) + Send),
    ) -> Result<(), StateError> {
        let rotation = lock(&self.policy).rotation;
        let (keys, overlap, given) = {
            let kms = lock(&self.kms);
            let skew = kms.config.parameters.clock_skew_max;
            let given = !kms.issuing_keys.is_empty();
            (kms.own_keys.clone(), kms.config.ticket_lifetime + skew, given)
        };
        let unexpired = keys.unexpired(now);
        // The operator's own keys the operator rotates.
        let old = |own: &OwnKey| own.made.after(rotation).is_before(now);
        let due = !given && keys.0.last().is_some_and(old);
        if !due && unexpired.0.len() == keys.0.len() {
            return Ok(());
        }
        let keys = if due { unexpired.rotated(now, overlap, random) } else { unexpired };
        if due {
            tracing::info!(keys = keys.0.len(), "a new ticket protection key makes tickets");
        }
        self.install(keys).await
    }

    async fn install(&self, own_keys: OwnKeys) -> Result<(), StateError> {
        if let Some(keeper) = &self.keeper {
            let directory = keeper.directory.lock().await;
            let floor = *lock(&keeper.floor);
            let marks = keeper.loaded.marks.clone();
            store(&directory, State { own_keys: own_keys.clone(), floor, marks }).await?;
        }
        lock(&self.kms).own_keys = own_keys;
        Ok(())
    }

    /// Writes down what was really accepted, so that the next start refuses nothing else. No
    /// request is to come any more.
    ///
    /// # Errors
    /// It cannot be written; then the next start refuses as it would after a crash.
    pub async fn close(&self) -> Result<(), StateError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let directory = keeper.directory.lock().await;
        let mut marks = keeper.loaded.marks.clone();
        for (user, time) in lock(&keeper.accepted).iter() {
            let mark = later(marks.get(user).copied(), Some(*time));
            marks.insert(user.clone(), mark.unwrap_or(*time));
        }
        let own_keys = lock(&self.kms).own_keys.clone();
        store(&directory, State { own_keys, floor: keeper.loaded.floor, marks }).await
    }

    /// Takes over users, groups, ticket protection keys, certificates and policies of another KMS; what
    /// was accepted and the keys we made ourselves stay.
    pub fn reload(&self, kms: Kms, policy: ServicePolicy) {
        lock(&self.kms).reconfigure(kms);
        *lock(&self.policy) = policy;
    }

    /// What was asked, and what became of it.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let sample = |((message, outcome), count): (&(&str, String), &u64)| Sample {
            labels: vec![("message", (*message).to_owned()), ("outcome", outcome.clone())],
            value: *count,
        };
        let counter = MetricKind::Counter;
        let mut samples: Vec<Sample> = lock(&self.exchanges).iter().map(sample).collect();
        samples.push(Sample {
            labels: vec![("message", "in-process".to_owned()), ("outcome", "answered".to_owned())],
            value: self.resolved_here.load(Ordering::Relaxed),
        });
        let keys = {
            let kms = lock(&self.kms);
            (kms.own_keys.0.len() + kms.issuing_keys.len()) as u64
        };
        let help = "Requests to the KMS, by message and outcome";
        vec![
            Family { name: "kms_requests", help, kind: counter, samples },
            Family::single(
                "kms_own_keys",
                "Keys that open tickets we issued",
                MetricKind::Gauge,
                keys,
            ),
        ]
    }

    fn count(&self, message: &'static str, outcome: &str) {
        let mut exchanges = lock(&self.exchanges);
        *exchanges.entry((message, outcome.to_owned())).or_insert(0) += 1;
    }
}

impl TicketResolver for KmsService {
    fn resolve_here(
        &self,
        ticket: &Ticket,
        responder: &str,
        key_identity: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<TicketContent, Error> {
        let kms = lock(&self.kms);
        let content = kms.resolve_here(ticket, responder, key_identity, now, random);
        drop(kms);
        match &content {
            Ok(_) => {
                self.resolved_here.fetch_add(1, Ordering::Relaxed);
                if lock(&self.policy).audit_resolved_here {
                    let user = key_identity.escape_ascii().to_string();
                    audit::tell_ticket("resolved", &user, responder, &ticket.policy);
                }
            }
            Err(error) => self.count("in-process", &error.name()),
        }
        content
    }

    fn request_here(
        &self,
        message: &[u8],
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Vec<u8>, Error> {
        let bytes = message;
        let message = codec::parse(bytes)?;
        let subject = Subject::of(&message);
        let answer = lock(&self.kms).answer(message, bytes, now, random);
        match &answer {
            Ok(answer) => {
                self.count("request-in-process", "answered");
                subject.tell_answered(answer.issued.as_ref());
            }
            Err(refusal) => self.count("request-in-process", &refusal.error.name()),
        }
        answer.map(|answer| answer.response).map_err(|refusal| refusal.error)
    }
}

impl Kms {
    /// See [`KmsService::reload`].
    fn reconfigure(&mut self, fresh: Self) {
        // The window against replay is a matter of the start: what is in it must stay.
        self.config = fresh.config;
        self.users = fresh.users;
        self.ticket_protection_keys = fresh.ticket_protection_keys;
        self.issuing_keys = fresh.issuing_keys;
        self.shared_keys = fresh.shared_keys;
        self.public_key_service = fresh.public_key_service;
    }
}

impl ServicePolicy {
    fn requests_of(&self, user: &[u8]) -> u32 {
        let own = self.user_requests.get(user).copied();
        own.unwrap_or(self.requests_per_user_per_second_max)
    }
}

impl RefusedLines {
    fn allows(&mut self, now: Duration) -> bool {
        if self.bucket.wait(REFUSED_LINES_PER_SECOND_MAX, now).is_some() {
            self.left_out += 1;
            return false;
        }
        self.bucket.take(REFUSED_LINES_PER_SECOND_MAX, now);
        if self.left_out > 0 {
            let left_out = std::mem::take(&mut self.left_out);
            tracing::warn!(left_out, "more requests to the KMS were refused than are told");
        }
        true
    }
}

/// Off the thread that answers, as a disk may take its time.
async fn store(directory: &Arc<StateDirectory>, state: State) -> Result<(), StateError> {
    let directory = Arc::clone(directory);
    match tokio::task::spawn_blocking(move || directory.store(&state)).await {
        Ok(stored) => stored,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Whoever panicked with the lock left counters and caches, which are whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far ahead of the requests the floor is written: one write every so often however many there
/// are, and after a crash so long without service.
const FLOOR_AHEAD: Duration = Duration::from_secs(2);
/// Enough to see what is going on.
const REFUSED_LINES_PER_SECOND_MAX: u32 = 10;

impl std::fmt::Debug for KmsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KmsService").field("kept", &self.keeper.is_some()).finish_non_exhaustive()
    }
}
