//! One run: calls come up, UEs talk, calls go down, and everything is booked.

mod calls;
mod clock;
mod figures;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mrfp_protocol::tls::Profile;
use tokio::sync::mpsc;

use self::clock::date_time_now;
use self::figures::Steady;
use crate::accounting::Processes;
use crate::cli::{Run, SecurityName, Share, TransportName};
use crate::display::Display;
use crate::expectation::{Violation, Violations};
use crate::media::worker::{Command, Event as MediaEvent, WorkerConfig};
use crate::media::{Progress, Thread, WorkerReport};
use crate::processes::interrupted;
use crate::report::{CallsReport, Report};
use crate::scenario::{Churn, Place, Scenario};
use crate::security::{Credential, KeyExchange, certificate_profile};
use crate::signalling::transport::Transport;
use crate::signalling::{Config, UserAgents};
use crate::wire::{self, Lobby, Plan, WireReport};

/// Runs a scenario. An error means that it could not be run; what the node did wrong is in the
/// report.
pub async fn run(
    options: &Run,
    scenario: &Scenario,
    sources: Vec<IpAddr>,
    node: &Processes,
) -> io::Result<Report> {
    let mut fleet = Fleet::new(options, scenario, sources, node).await?;
    fleet.drive().await?;
    fleet.finish().await
}

/// The same in rooms with floors: participants as the plan says, each in a call of its own.
pub async fn run_with_floors(
    options: &Run,
    scenario: &Scenario,
    sources: Vec<IpAddr>,
    node: &Processes,
    plan: Plan,
) -> io::Result<(Report, WireReport)> {
    let (floors, lobby) = wire::Run::with_lobby(plan, node)?;
    let mut fleet = Fleet::new(options, scenario, sources, node).await?;
    fleet.lobby = Some(lobby);
    let calls = async {
        fleet.drive().await?;
        if let Some(lobby) = &fleet.lobby {
            lobby.close();
        }
        fleet.finish().await
    };
    tokio::try_join!(calls, floors.drive())
}

struct Fleet<'a> {
    options: &'a Run,
    scenario: &'a Scenario,
    credential: Option<Credential>,
    /// TLS of the media, whatever secures it.
    profile: Option<Arc<Profile>>,
    transport: Transport,
    /// Our addresses, dealt out to the calls in turn; none: the kernel chooses.
    sources: Vec<IpAddr>,
    agents: UserAgents,
    threads: Vec<Thread>,
    media: mpsc::UnboundedReceiver<(u32, MediaEvent)>,
    sessions: Vec<Session>,
    phase: Phase,
    /// When the phase began.
    since: Instant,
    begun: Instant,
    interrupted: bool,
    /// Sessions whose call is to be ended, taken in order.
    next_to_end: u32,
    launched: u32,
    settled: u32,
    /// Sessions whose media is up.
    present: u32,
    drained: u32,
    over: u32,
    calls: CallsReport,
    setup_latency: Histogram<u64>,
    bound_latency: Histogram<u64>,
    violations: Violations,
    media_reports: Vec<WorkerReport>,
    /// From BYE to its answer.
    ending_latency: Histogram<u64>,
    /// Where the participants of floor control wait for their calls.
    lobby: Option<Lobby>,
    steady: Steady,
    display: Display,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Calls are being set up.
    SettingUp,
    /// UEs talk, and it is not measured yet.
    WarmingUp,
    /// UEs talk.
    Talking,
    /// What is on its way is awaited.
    Draining,
    /// Calls are being torn down.
    Ending,
    /// All calls are over.
    Over,
}

struct Session {
    place: Place,
    state: SessionState,
    invited: Instant,
    /// When its BYE was sent.
    ended: Option<Instant>,
    local_path: String,
    exchange: Option<KeyExchange>,
    /// The same of its floors.
    floor_exchange: Option<KeyExchange>,
    /// It is decided whether it asks for floors.
    announced: bool,
    /// Counted in `Fleet::settled`.
    settled: bool,
    /// Counted in `Fleet::present`.
    present: bool,
}

impl Session {
    fn new(place: Place, now: Instant) -> Self {
        Self {
            place,
            state: SessionState::Waiting,
            invited: now,
            ended: None,
            local_path: String::new(),
            exchange: None,
            floor_exchange: None,
            announced: false,
            settled: false,
            present: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SessionState {
    /// Not called yet.
    Waiting,
    /// Call in progress or up.
    Called,
    /// BYE or CANCEL under way.
    Ending,
    /// Nothing left of the call.
    Over,
}

/// Calls that may wait for their answer at once: what one socket's buffer can hold.
const PENDING_CALLS_MAX: u32 = 1000;
/// How long a media thread may take to say that it has drained (past the time it waits for
/// deliveries) or ended.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(20);

impl<'a> Fleet<'a> {
    async fn new(
        options: &'a Run,
        scenario: &'a Scenario,
        sources: Vec<IpAddr>,
        node: &Processes,
    ) -> io::Result<Self> {
        let transport = match options.transport {
            TransportName::Udp => Transport::udp(options.target.address, &sources).await?,
            TransportName::Tcp => Transport::tcp(options.target.address, &sources)
                .await
                .map_err(|error| unreachable(options, &error.to_string()))?,
        };
        let credential = match options.security {
            SecurityName::Plain | SecurityName::Certificate => None,
            SecurityName::Psk => Some(Credential::new(&options.kms)?),
        };
        let config = Config {
            local_addresses: transport.local_addresses().iter().map(ToString::to_string).collect(),
            transport: match options.transport {
                TransportName::Udp => "UDP",
                TransportName::Tcp => "TCP",
            },
            run: getrandom::u32().map_err(io::Error::other)?,
            unreliable: options.transport == TransportName::Udp,
        };
        let now = Instant::now();
        let (events, media) = mpsc::unbounded_channel();
        let profile = match options.security {
            SecurityName::Plain => None,
            SecurityName::Psk => credential.as_ref().map(Credential::profile),
            SecurityName::Certificate => Some(certificate_profile()?),
        };
        let threads =
            spawn_threads(options.spread.own(), scenario, profile.as_ref(), now, &events)?;
        let sessions = if scenario.churn.is_some() { 0 } else { scenario.sessions };
        let places = if sessions > 0 { scenario.places() } else { Vec::new() };
        Ok(Self {
            options,
            scenario,
            credential,
            profile,
            transport,
            sources,
            agents: UserAgents::new(config, sessions, now),
            threads,
            media,
            sessions: places.into_iter().map(|place| Session::new(place, now)).collect(),
            phase: Phase::SettingUp,
            since: now,
            begun: now,
            interrupted: false,
            next_to_end: 0,
            launched: 0,
            settled: 0,
            present: 0,
            drained: 0,
            over: 0,
            calls: CallsReport::default(),
            setup_latency: latency_histogram(),
            bound_latency: latency_histogram(),
            ending_latency: latency_histogram(),
            lobby: None,
            violations: Violations::default(),
            media_reports: Vec::new(),
            steady: Steady::of(node),
            display: match options.spread.share {
                None => Display::new(scenario.sessions),
                Some(_) => Display::for_parent(),
            },
        })
    }

    async fn drive(&mut self) -> io::Result<()> {
        let interrupt = interrupted();
        tokio::pin!(interrupt);
        while self.phase != Phase::Over {
            let next = self.next_wake();
            tokio::select! {
                biased;
                () = &mut interrupt => {
                    interrupt.set(interrupted());
                    self.interrupt()?;
                }
                (place, message) = self.transport.receive() => {
                    let now = Instant::now();
                    self.agents.handle_message(place, message, now);
                    for _ in 0..MESSAGES_PER_TURN_MAX {
                        let Some((place, message)) = self.transport.try_receive() else { break };
                        self.agents.handle_message(place, message, now);
                    }
                }
                Some((thread, event)) = self.media.recv() => {
                    self.media_event(thread, event);
                    for _ in 0..MESSAGES_PER_TURN_MAX {
                        let Ok((thread, event)) = self.media.try_recv() else { break };
                        self.media_event(thread, event);
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
            self.turn(Instant::now())?;
        }
        Ok(())
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + DISPLAY_INTERVAL;
        if let Some(timeout) = self.agents.next_timeout() {
            next = next.min(timeout);
        }
        match self.phase {
            Phase::SettingUp if self.launched < self.scenario.sessions => {
                next = next.min(self.due(self.launched));
            }
            Phase::WarmingUp => next = next.min(self.since + self.scenario.warmup),
            Phase::Talking if self.lobby.is_some() => {}
            Phase::Talking => next = next.min(self.since + self.scenario.duration),
            Phase::Ending if self.next_to_end < self.scenario.sessions => {
                next = next.min(self.due(self.next_to_end));
            }
            Phase::SettingUp | Phase::Draining | Phase::Ending | Phase::Over => {}
        }
        // Where a limit holds launches back, the clock must not spin.
        next.max(now + Duration::from_millis(1))
    }

    /// When the call with that number is to be set up or ended.
    fn due(&self, number: u32) -> Instant {
        self.since + Duration::from_secs_f64(f64::from(number) / self.scenario.rate_per_second)
    }

    fn turn(&mut self, now: Instant) -> io::Result<()> {
        self.agents.handle_timeout(now);
        self.watch_transport(now)?;
        while let Some(event) = self.agents.poll_event() {
            self.call_event(event, now);
        }
        match self.phase {
            Phase::SettingUp if self.scenario.churn.is_some() => self.churn(now),
            Phase::SettingUp => self.set_up(now),
            Phase::WarmingUp if now >= self.since + self.scenario.warmup => self.measure(),
            Phase::WarmingUp if self.present == 0 => self.measure(),
            Phase::Talking if self.has_talked(now) => self.stop(now),
            // Nobody is left who could talk.
            Phase::Talking if self.present == 0 => self.stop(now),
            Phase::Draining
                if now >= self.since + self.scenario.traffic.drain_timeout + MEDIA_TIMEOUT =>
            {
                self.violations.add(Violation::Lost, || "a media thread did not drain".to_owned());
                self.enter(Phase::Ending, now);
            }
            Phase::Ending => self.tear_down(now),
            Phase::WarmingUp | Phase::Talking | Phase::Draining | Phase::Over => {}
        }
        while let Some((place, message)) = self.agents.poll_transmit() {
            self.transport.send(place, &message);
        }
        if matches!(self.phase, Phase::Talking | Phase::Draining) {
            self.steady.sample_memory();
        }
        if self.display.is_due(now) {
            let figures = self.figures();
            self.display.show(&figures, now);
        }
        Ok(())
    }

    /// What there was to be said is said.
    fn has_talked(&self, now: Instant) -> bool {
        match &self.lobby {
            None => now >= self.since + self.scenario.duration,
            Some(lobby) => lobby.is_served(),
        }
    }

    /// Ends the waiting for a node that is not there: the run, where it never was; the open
    /// transactions, where it has gone.
    fn watch_transport(&mut self, now: Instant) -> io::Result<()> {
        let gone = self.transport.gone();
        let gone = gone.filter(|(since, _)| now >= *since + UNREACHABLE_TIMEOUT);
        if self.transport.has_heard() {
            if gone.is_some() {
                self.agents.abandon();
            }
            return Ok(());
        }
        let why = match gone {
            Some((_, error)) => error.to_string(),
            None if now >= self.begun + SILENCE_TIMEOUT => {
                format!("no answer in {} s", SILENCE_TIMEOUT.as_secs())
            }
            None => return Ok(()),
        };
        Err(unreachable(self.options, &why))
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    fn interrupt(&mut self) -> io::Result<()> {
        if self.interrupted {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "interrupted twice: calls are left as they are",
            ));
        }
        self.interrupted = true;
        self.display.note("interrupted: ending the calls (again: leave at once)");
        let now = Instant::now();
        match self.phase {
            Phase::SettingUp if self.scenario.churn.is_some() => {}
            Phase::SettingUp | Phase::WarmingUp | Phase::Talking => self.stop(now),
            Phase::Draining | Phase::Ending | Phase::Over => {}
        }
        Ok(())
    }

    fn set_up(&mut self, now: Instant) {
        while self.launched < self.scenario.sessions
            && self.due(self.launched) <= now
            && self.launched - self.settled < PENDING_CALLS_MAX
        {
            self.call(self.launched, now);
            self.launched += 1;
        }
        if self.settled == self.scenario.sessions {
            let seconds = (now - self.begun).as_secs_f64();
            self.calls.setup_seconds = seconds;
            self.calls.setups_per_second = f64::from(self.calls.bound) / seconds;
            if self.present == 0 {
                return self.enter(Phase::Ending, now);
            }
            for thread in &self.threads {
                thread.command(Command::Start);
            }
            self.enter(Phase::WarmingUp, now);
            if self.scenario.warmup.is_zero() {
                self.measure();
            }
        }
    }

    /// What was before is not in the figures.
    /// What was used is read before anything counts: that takes milliseconds of the generator's time.
    fn measure(&mut self) {
        self.steady.begin(&self.threads, self.calls.ended);
        if !self.scenario.warmup.is_zero() {
            for thread in &self.threads {
                thread.command(Command::Measure);
            }
        }
        self.enter(Phase::Talking, Instant::now());
    }

    /// Calls follow each other until their time is over, and all have ended.
    fn churn(&mut self, now: Instant) {
        let Some(Churn { concurrency }) = self.scenario.churn else { return };
        let measured_from = self.begun + self.scenario.warmup;
        let measured_to = measured_from + self.scenario.duration;
        if !self.steady.has_begun() && now >= measured_from {
            for histogram in
                [&mut self.setup_latency, &mut self.bound_latency, &mut self.ending_latency]
            {
                histogram.reset();
            }
            for thread in &self.threads {
                thread.command(Command::Measure);
            }
            self.steady.begin(&self.threads, self.calls.ended);
        }
        let over = now >= measured_to || self.interrupted;
        if over && self.steady.seconds <= 0.0 {
            self.steady.end(&self.threads, self.calls.ended, now);
            self.calls.setup_seconds = (now - self.begun).as_secs_f64();
            for thread in &self.threads {
                thread.command(Command::Stop);
            }
        }
        while !over
            && self.launched - self.over < concurrency
            && self.launched < self.scenario.sessions
            && self.due(self.launched) <= now
        {
            let number = self.launched;
            let thread = number % self.scenario.threads;
            self.sessions.push(Session::new(Place { room: number, thread }, now));
            self.agents.add(now);
            self.call(number, now);
            self.launched += 1;
        }
        if over && self.over == self.launched {
            self.enter(Phase::Over, now);
        }
    }

    /// A call of a run of calls has had its word, or will not.
    fn hang_up(&mut self, number: u32, now: Instant) {
        let session = &mut self.sessions[number as usize];
        if session.state != SessionState::Called {
            return;
        }
        session.state = SessionState::Ending;
        session.ended = Some(now);
        session.local_path = String::new();
        self.thread(number).command(Command::Release { session: number });
        self.agents.end(number, now);
    }

    /// The other way round: nobody is due any more while it is read.
    fn stop(&mut self, now: Instant) {
        for thread in &self.threads {
            thread.command(Command::Stop);
        }
        self.steady.end(&self.threads, self.calls.ended, now);
        self.enter(Phase::Draining, now);
    }

    fn tear_down(&mut self, now: Instant) {
        while self.next_to_end < self.scenario.sessions && self.due(self.next_to_end) <= now {
            let number = self.next_to_end;
            self.next_to_end += 1;
            match self.sessions[number as usize].state {
                SessionState::Waiting => self.call_over(number),
                SessionState::Called => {
                    self.sessions[number as usize].state = SessionState::Ending;
                    self.thread(number).command(Command::Release { session: number });
                    self.agents.end(number, now);
                }
                SessionState::Ending | SessionState::Over => {}
            }
        }
        while let Some(event) = self.agents.poll_event() {
            self.call_event(event, now);
        }
        if self.over == self.scenario.sessions {
            self.enter(Phase::Over, now);
        }
    }

    async fn finish(mut self) -> io::Result<Report> {
        self.display.finish();
        for thread in &self.threads {
            thread.command(Command::Finish);
        }
        while self.media_reports.len() < self.threads.len() {
            match tokio::time::timeout(MEDIA_TIMEOUT, self.media.recv()).await {
                Ok(Some((_, MediaEvent::Finished(report)))) => self.media_reports.push(*report),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    return Err(io::Error::other("a media thread did not end"));
                }
            }
        }
        let (mut sent_total, mut delivered_total) = (0, 0);
        let mut busiest_ns = 0;
        for thread in std::mem::take(&mut self.threads) {
            let progress = Arc::clone(&thread.progress);
            thread.join()?;
            sent_total += progress.messages.load(Ordering::Relaxed);
            delivered_total += progress.deliveries.load(Ordering::Relaxed);
            busiest_ns = progress.thread_cpu_ns.load(Ordering::Relaxed).max(busiest_ns);
        }
        Ok(self.report(sent_total, delivered_total, busiest_ns))
    }
}

/// Where and how the node was sought in vain.
fn unreachable(options: &Run, why: &str) -> io::Error {
    let transport = match options.transport {
        TransportName::Udp => "UDP",
        TransportName::Tcp => "TCP",
    };
    io::Error::other(format!(
        "nobody answers SIP over {transport} at {}: {why} (is the node running, and is that its \
         address?)",
        options.target.address
    ))
}

/// A node that is being started may refuse for a moment; INVITEs are repeated twice meanwhile.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that has not said a word by then, not even 100 Trying after four repetitions, is not one.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(8);
/// Of one kind, before the others have their turn.
const MESSAGES_PER_TURN_MAX: usize = 64;
/// How often the display is looked after.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(100);

fn spawn_threads(
    share: Share,
    scenario: &Scenario,
    profile: Option<&Arc<Profile>>,
    origin: Instant,
    events: &mpsc::UnboundedSender<(u32, MediaEvent)>,
) -> io::Result<Vec<Thread>> {
    let mut by_thread = BTreeMap::<u32, u32>::new();
    match scenario.churn {
        // Some more than are under way: the node may be slow to close.
        Some(Churn { concurrency }) => {
            by_thread.extend((0..scenario.threads).map(|thread| (thread, 4 * concurrency + 64)));
        }
        None => {
            for place in scenario.places() {
                *by_thread.entry(place.thread).or_default() += 1;
            }
        }
    }
    let date_time = date_time_now();
    (0..)
        .zip(crate::media::cores(share, scenario.threads))
        .map(|(number, core)| {
            let config = WorkerConfig {
                traffic: scenario.traffic.clone(),
                sessions: if scenario.churn.is_some() { 0 } else { scenario.sessions },
                connections_max: by_thread.get(&number).copied().unwrap_or(0),
                date_time: date_time.clone(),
                profile: profile.cloned(),
                origin,
                progress: Arc::new(Progress::default()),
            };
            let events = events.clone();
            Thread::spawn(config, core, move |event| {
                // A fleet that has given up does not listen any more.
                let _ = events.send((number, event));
            })
        })
        .collect()
}

fn latency_histogram() -> Histogram<u64> {
    crate::media::worker::latency_histogram()
}
