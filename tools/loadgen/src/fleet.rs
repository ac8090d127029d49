//! One run: calls come up, UEs talk, calls go down, and everything is booked.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc;

use crate::cli::{Run, SecurityName, TransportName};
use crate::display::{Display, Figures};
use crate::expectation::{Violation, Violations};
use crate::media::worker::{Command, Connect, Event as MediaEvent, WorkerConfig};
use crate::media::{Progress, Thread, WorkerReport, cpu_ticks};
use crate::report::{CallsReport, ConfigReport, CpuReport, MessagesReport, Percentiles, Report};
use crate::scenario::{Place, Scenario};
use crate::security::{Credential, KeyExchange};
use crate::signalling::transport::Transport;
use crate::signalling::{Config, Event as CallEvent, Invite, UserAgents, sdp};

/// Runs a scenario. An error means that it could not be run; what the node did wrong is in the
/// report.
pub async fn run(options: &Run, scenario: &Scenario) -> io::Result<Report> {
    let mut fleet = Fleet::new(options, scenario).await?;
    fleet.drive().await?;
    fleet.finish().await
}

struct Fleet<'a> {
    options: &'a Run,
    scenario: &'a Scenario,
    credential: Option<Credential>,
    local_ip: IpAddr,
    transport: Transport,
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
    drained: u32,
    over: u32,
    calls: CallsReport,
    setup_latency: Histogram<u64>,
    bound_latency: Histogram<u64>,
    violations: Violations,
    media_reports: Vec<WorkerReport>,
    steady: Steady,
    display: Display,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Calls are being set up.
    SettingUp,
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
    local_path: String,
    exchange: Option<KeyExchange>,
    /// Counted in `Fleet::settled`.
    settled: bool,
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

/// What is measured while there is traffic.
#[derive(Default)]
struct Steady {
    begun: Option<Instant>,
    seconds: f64,
    sent: u64,
    delivered: u64,
    generator_ticks: u64,
    node_ticks: Option<u64>,
}

/// Calls that may wait for their answer at once: what one socket's buffer can hold.
const PENDING_CALLS_MAX: u32 = 1000;
/// How long a media thread may take to say that it has drained (past the time it waits for
/// deliveries) or ended.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(20);
/// Linux shows processor time in hundredths of a second on every architecture (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// A thread busier than that waits for its processor, and latencies are its own.
const BUSY_SHARE_MAX: f64 = 0.85;
/// Messages sent that late were not the load that was asked for.
const SLIP_US_MAX: f64 = 5_000.0;

impl<'a> Fleet<'a> {
    async fn new(options: &'a Run, scenario: &'a Scenario) -> io::Result<Self> {
        let transport = match options.transport {
            TransportName::Udp => Transport::udp(options.target.address).await?,
            TransportName::Tcp => Transport::tcp(options.target.address).await?,
        };
        let credential = match options.security {
            SecurityName::Plain => None,
            SecurityName::Psk => Some(Credential::new(&options.kms)?),
        };
        let local_address = local_address_towards(options, &transport)?;
        let config = Config {
            local_address: local_address.to_string(),
            transport: match options.transport {
                TransportName::Udp => "UDP",
                TransportName::Tcp => "TCP",
            },
            run: getrandom::u32().map_err(io::Error::other)?,
            unreliable: options.transport == TransportName::Udp,
        };
        let now = Instant::now();
        let (events, media) = mpsc::unbounded_channel();
        let threads = spawn_threads(scenario, credential.as_ref(), now, &events)?;
        let session = |place| Session {
            place,
            state: SessionState::Waiting,
            invited: now,
            local_path: String::new(),
            exchange: None,
            settled: false,
        };
        Ok(Self {
            options,
            scenario,
            credential,
            local_ip: local_address.ip(),
            transport,
            agents: UserAgents::new(config, scenario.sessions, now),
            threads,
            media,
            sessions: scenario.places().into_iter().map(session).collect(),
            phase: Phase::SettingUp,
            since: now,
            begun: now,
            interrupted: false,
            next_to_end: 0,
            launched: 0,
            settled: 0,
            drained: 0,
            over: 0,
            calls: CallsReport::default(),
            setup_latency: latency_histogram(),
            bound_latency: latency_histogram(),
            violations: Violations::default(),
            media_reports: Vec::new(),
            steady: Steady::default(),
            display: Display::new(scenario.sessions),
        })
    }

    async fn drive(&mut self) -> io::Result<()> {
        let interrupt = interrupts();
        tokio::pin!(interrupt);
        while self.phase != Phase::Over {
            let next = self.next_wake();
            tokio::select! {
                biased;
                () = &mut interrupt => {
                    interrupt.set(interrupts());
                    self.interrupt()?;
                }
                message = self.transport.receive() => {
                    self.agents.handle_message(message?, Instant::now());
                }
                Some((thread, event)) = self.media.recv() => self.media_event(thread, event),
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
        while let Some(event) = self.agents.poll_event() {
            self.call_event(event, now);
        }
        match self.phase {
            Phase::SettingUp => self.set_up(now),
            Phase::Talking if now >= self.since + self.scenario.duration => self.stop(now),
            Phase::Draining
                if now >= self.since + self.scenario.traffic.drain_timeout + MEDIA_TIMEOUT =>
            {
                self.violations.add(Violation::Lost, || "a media thread did not drain".to_owned());
                self.enter(Phase::Ending, now);
            }
            Phase::Ending => self.tear_down(now),
            Phase::Talking | Phase::Draining | Phase::Over => {}
        }
        while let Some(message) = self.agents.poll_transmit() {
            self.transport.send(&message)?;
        }
        if self.display.is_due(now) {
            let figures = self.figures();
            self.display.show(&figures, now);
        }
        Ok(())
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
        let now = Instant::now();
        match self.phase {
            Phase::SettingUp | Phase::Talking => self.stop(now),
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
            for thread in &self.threads {
                thread.command(Command::Start);
            }
            self.steady.begin(self.options.node_pid, now);
            self.enter(Phase::Talking, now);
        }
    }

    fn call(&mut self, number: u32, now: Instant) {
        let session = &mut self.sessions[number as usize];
        let from = ue_uri(number);
        let to = room_uri(self.options, session.place.room);
        let mut transfer_init = None;
        if let Some(credential) = &self.credential {
            match credential.begin(&from, &to) {
                Ok((exchange, message)) => {
                    session.exchange = Some(exchange);
                    transfer_init = Some(message);
                }
                Err(error) => {
                    session.state = SessionState::Over;
                    self.violations.add(Violation::AnswerUnusable, || {
                        format!("session {number}: own key exchange: {error}")
                    });
                    self.over += 1;
                    return self.settle(number);
                }
            }
        }
        let secure = transfer_init.is_some();
        let session_id = session_id();
        session.local_path = sdp::local_path(self.local_ip, &session_id, secure);
        session.state = SessionState::Called;
        session.invited = now;
        let sdp = sdp::offer(self.local_ip, &session_id, transfer_init.as_deref());
        self.calls.attempted += 1;
        self.agents.invite(number, Invite { from, to, sdp }, now);
    }

    fn call_event(&mut self, event: CallEvent, now: Instant) {
        match event {
            CallEvent::Answered { call, sdp } => self.answered(call, &sdp, now),
            CallEvent::Refused { call, status } => {
                *self.calls.refused_by_status.entry(status).or_default() += 1;
                self.violations.add(Violation::CallRefused, || {
                    format!("session {call}: INVITE answered {status}")
                });
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::Unanswered { call } => {
                self.violations.add(Violation::CallUnanswered, || {
                    format!("session {call}: no final answer to INVITE")
                });
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::HungUp { call, reason } => {
                self.violations.add(Violation::HungUp, || {
                    format!("session {call}: BYE from the node, Reason: {reason}")
                });
                self.thread(call).command(Command::Close { session: call });
                self.call_over(call);
                self.settle(call);
            }
            CallEvent::Ended { call, status } => {
                let cancelled = status == 487;
                if (200..300).contains(&status) {
                    self.calls.ended += 1;
                } else if !cancelled {
                    self.violations.add(Violation::ByeRefused, || {
                        format!("session {call}: BYE answered {status}")
                    });
                }
                self.thread(call).command(Command::Close { session: call });
                self.call_over(call);
            }
            CallEvent::EndUnanswered { call } => {
                self.violations.add(Violation::ByeUnanswered, || {
                    format!("session {call}: no answer to BYE or CANCEL")
                });
                self.thread(call).command(Command::Close { session: call });
                self.call_over(call);
            }
        }
    }

    fn answered(&mut self, call: u32, sdp: &[u8], now: Instant) {
        let secure = self.credential.is_some();
        let session = &mut self.sessions[call as usize];
        self.calls.answered += 1;
        let latency = (now - session.invited).as_nanos() as u64;
        self.setup_latency.saturating_record(latency);
        let answer = match sdp::answer(sdp, secure) {
            Ok(answer) => answer,
            Err(error) => return self.unusable(call, &format!("{error:?}")),
        };
        let psk = match (session.exchange.take(), &answer.transfer_response) {
            (Some(exchange), Some(response)) => match exchange.finish(response) {
                Ok(psk) => Some(psk),
                Err(error) => return self.unusable(call, &error),
            },
            (_, _) => None,
        };
        let connect = Connect {
            session: call,
            room: session.place.room,
            address: answer.address,
            remote_path: answer.path,
            local_path: session.local_path.clone(),
            from: ue_uri(call),
            to: room_uri(self.options, session.place.room),
            psk,
        };
        self.thread(call).command(Command::Connect(Box::new(connect)));
    }

    fn unusable(&mut self, call: u32, why: &str) {
        self.violations.add(Violation::AnswerUnusable, || format!("session {call}: {why}"));
        self.settle(call);
    }

    fn media_event(&mut self, thread: u32, event: MediaEvent) {
        let now = Instant::now();
        match event {
            MediaEvent::Bound { session } => {
                let invited = self.sessions[session as usize].invited;
                let latency = (now - invited).as_nanos() as u64;
                self.bound_latency.saturating_record(latency);
                self.calls.bound += 1;
                self.settle(session);
            }
            // Booked by the thread; its call is ended with the others.
            MediaEvent::Failed { session } => self.settle(session),
            MediaEvent::Drained => {
                self.drained += 1;
                if self.drained as usize == self.threads.len() && self.phase == Phase::Draining {
                    self.enter(Phase::Ending, now);
                }
            }
            MediaEvent::Finished(report) => {
                self.violations.add(Violation::UnexpectedClose, || {
                    format!("media thread {thread} ended on its own")
                });
                self.media_reports.push(*report);
            }
        }
    }

    fn stop(&mut self, now: Instant) {
        self.steady.end(self.options.node_pid, &self.threads, now);
        for thread in &self.threads {
            thread.command(Command::Stop);
        }
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

    fn thread(&self, session: u32) -> &Thread {
        &self.threads[self.sessions[session as usize].place.thread as usize]
    }

    fn call_over(&mut self, call: u32) {
        let session = &mut self.sessions[call as usize];
        if session.state != SessionState::Over {
            session.state = SessionState::Over;
            self.over += 1;
        }
    }

    /// It is decided whether the session takes part.
    fn settle(&mut self, session: u32) {
        let session = &mut self.sessions[session as usize];
        if !std::mem::replace(&mut session.settled, true) {
            self.settled += 1;
        }
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures {
            phase: match self.phase {
                Phase::SettingUp => "setting up",
                Phase::Talking => "talking",
                Phase::Draining => "draining",
                Phase::Ending => "ending",
                Phase::Over => "over",
            },
            calls_up: self.calls.bound - self.calls.ended.min(self.calls.bound),
            calls_bound: self.calls.bound,
            violations: self.violations.total(),
            ..Figures::default()
        };
        for thread in &self.threads {
            let progress = &thread.progress;
            figures.messages += progress.messages.load(Ordering::Relaxed);
            figures.deliveries += progress.deliveries.load(Ordering::Relaxed);
            figures.violations += progress.violations.load(Ordering::Relaxed);
            let p50 = progress.recent_p50_ns.load(Ordering::Relaxed);
            let p99 = progress.recent_p99_ns.load(Ordering::Relaxed);
            figures.p50_ns = figures.p50_ns.max(p50);
            figures.p99_ns = figures.p99_ns.max(p99);
        }
        figures
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
        let mut busiest_ticks = 0;
        for thread in std::mem::take(&mut self.threads) {
            let progress = Arc::clone(&thread.progress);
            thread.join()?;
            sent_total += progress.messages.load(Ordering::Relaxed);
            delivered_total += progress.deliveries.load(Ordering::Relaxed);
            busiest_ticks = progress.thread_cpu_ticks.load(Ordering::Relaxed).max(busiest_ticks);
        }
        Ok(self.report(sent_total, delivered_total, busiest_ticks))
    }

    fn report(mut self, sent_total: u64, delivered_total: u64, busiest_ticks: u64) -> Report {
        let mut delivery = latency_histogram();
        let mut answer = latency_histogram();
        let mut slip = latency_histogram();
        for report in self.media_reports {
            self.violations.merge(report.violations);
            // The target covers every value of the sources: both are bounded alike.
            let _ = delivery.add(&report.delivery_latency);
            let _ = answer.add(&report.answer_latency);
            let _ = slip.add(&report.slip);
        }
        let steady = &self.steady;
        let seconds = steady.seconds;
        let per_second = |count: u64| {
            if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
        };
        let messages = MessagesReport {
            seconds,
            sent: steady.sent,
            delivered: steady.delivered,
            sent_total,
            delivered_total,
            sent_per_second: per_second(steady.sent),
            delivered_per_second: per_second(steady.delivered),
        };
        let cpu = steady.cpu(busiest_ticks);
        let schedule_slip = Percentiles::of_ns(&slip);
        let warnings = warnings(&cpu, &schedule_slip, &messages);
        Report {
            passed: self.violations.total() == 0 && !self.interrupted,
            interrupted: self.interrupted,
            config: config_report(self.options, self.scenario),
            calls: self.calls,
            messages,
            setup_latency: Percentiles::of_ns(&self.setup_latency),
            bound_latency: Percentiles::of_ns(&self.bound_latency),
            delivery_latency: Percentiles::of_ns(&delivery),
            answer_latency: Percentiles::of_ns(&answer),
            schedule_slip,
            cpu,
            violations: self.violations,
            warnings,
        }
    }
}

impl Steady {
    fn begin(&mut self, node_pid: Option<u32>, now: Instant) {
        self.begun = Some(now);
        self.generator_ticks = cpu_ticks("/proc/self/stat").unwrap_or(0);
        self.node_ticks = node_ticks(node_pid);
    }

    fn end(&mut self, node_pid: Option<u32>, threads: &[Thread], now: Instant) {
        let Some(begun) = self.begun else { return };
        self.seconds = (now - begun).as_secs_f64();
        let generator = cpu_ticks("/proc/self/stat").unwrap_or(0);
        self.generator_ticks = generator.saturating_sub(self.generator_ticks);
        self.node_ticks = node_ticks(node_pid)
            .zip(self.node_ticks)
            .map(|(after, before)| after.saturating_sub(before));
        for thread in threads {
            self.sent += thread.progress.messages.load(Ordering::Relaxed);
            self.delivered += thread.progress.deliveries.load(Ordering::Relaxed);
        }
    }

    fn cpu(&self, busiest_ticks: u64) -> CpuReport {
        if self.seconds <= 0.0 {
            return CpuReport::default();
        }
        let processors = |ticks: u64| ticks as f64 / TICKS_PER_SECOND / self.seconds;
        let node_us = self.node_ticks.map(|ticks| ticks as f64 / TICKS_PER_SECOND * 1e6);
        let per = |count: u64| node_us.filter(|_| count > 0).map(|us| us / count as f64);
        CpuReport {
            generator_processors: processors(self.generator_ticks),
            busiest_media_thread: processors(busiest_ticks),
            node_processors: self.node_ticks.map(processors),
            node_us_per_message: per(self.sent),
            node_us_per_delivery: per(self.delivered),
        }
    }
}

/// How often the display is looked after.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(100);

fn spawn_threads(
    scenario: &Scenario,
    credential: Option<&Credential>,
    origin: Instant,
    events: &mpsc::UnboundedSender<(u32, MediaEvent)>,
) -> io::Result<Vec<Thread>> {
    let mut by_thread = BTreeMap::<u32, u32>::new();
    for place in scenario.places() {
        *by_thread.entry(place.thread).or_default() += 1;
    }
    // From the last processor downwards: nodes pin their shards from the first one upwards.
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores = cores.into_iter().rev();
    let date_time = date_time_now();
    (0..scenario.threads)
        .map(|number| {
            let config = WorkerConfig {
                traffic: scenario.traffic.clone(),
                sessions: scenario.sessions,
                connections_max: by_thread.get(&number).copied().unwrap_or(0),
                date_time: date_time.clone(),
                profile: credential.map(Credential::profile),
                origin,
                progress: Arc::new(Progress::default()),
            };
            let events = events.clone();
            Thread::spawn(config, cores.next(), move |event| {
                // A fleet that has given up does not listen any more.
                let _ = events.send((number, event));
            })
        })
        .collect()
}

/// The address the node can reach us at.
fn local_address_towards(options: &Run, transport: &Transport) -> io::Result<std::net::SocketAddr> {
    let local = transport.local_address();
    if !local.ip().is_unspecified() {
        return Ok(local);
    }
    let probe = std::net::UdpSocket::bind(local)?;
    probe.connect(options.target.address)?;
    Ok((probe.local_addr()?.ip(), local.port()).into())
}

async fn interrupts() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without signals the run ends by itself.
        std::future::pending::<()>().await;
    }
}

fn ue_uri(number: u32) -> String {
    format!("sip:ue-{number}@{UE_DOMAIN}")
}

/// RFC 2606: nobody's domain.
const UE_DOMAIN: &str = "load.example";

fn room_uri(options: &Run, room: u32) -> String {
    format!("sip:{}-{room}@{}", options.target.user, options.target.host_port)
}

/// 128 bits: RFC 4975 section 14.1 asks for 80.
fn session_id() -> String {
    let (high, low) = (getrandom::u64(), getrandom::u64());
    format!("{:016x}{:016x}", high.unwrap_or(0), low.unwrap_or(0))
}

fn node_ticks(node_pid: Option<u32>) -> Option<u64> {
    cpu_ticks(&format!("/proc/{}/stat", node_pid?))
}

fn latency_histogram() -> Histogram<u64> {
    crate::media::worker::latency_histogram()
}

fn config_report(options: &Run, scenario: &Scenario) -> ConfigReport {
    let interval_ns = scenario.traffic.interval_ns;
    ConfigReport {
        target: format!("sip:{}@{}", options.target.user, options.target.host_port),
        transport: format!("{:?}", options.transport).to_lowercase(),
        security: format!("{:?}", options.security).to_lowercase(),
        sessions: scenario.sessions,
        rooms: scenario.rooms.sizes(scenario.sessions).len() as u32,
        rate_per_second: scenario.rate_per_second,
        duration_seconds: scenario.duration.as_secs_f64(),
        window: scenario.traffic.window,
        message_rate_per_second: interval_ns.map_or(0.0, |interval| 1e9 / interval as f64),
        message_bytes: scenario.traffic.texts.bytes().to_vec(),
        threads: scenario.threads,
    }
}

fn warnings(cpu: &CpuReport, slip: &Percentiles, messages: &MessagesReport) -> Vec<String> {
    let mut warnings = Vec::new();
    if cpu.busiest_media_thread > BUSY_SHARE_MAX {
        warnings.push(format!(
            "a media thread of the generator was busy {:.0} % of the time: the generator may be \
             the bottleneck, add --threads or another machine",
            cpu.busiest_media_thread * 100.0
        ));
    }
    if slip.p99_us > SLIP_US_MAX {
        warnings.push(format!(
            "1 % of the messages left {:.1} ms or more after they were due: the generator did not \
             keep up",
            slip.p99_us / 1e3
        ));
    }
    if messages.sent_total == 0 {
        warnings.push("no message was sent".to_owned());
    }
    warnings
}

/// RFC 3339, for CPIM.
fn date_time_now() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    date_time(seconds)
}

/// The civil date of a Unix time, by eras of 400 years that begin on 1 March.
fn date_time(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(date_time(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date_time(4_102_444_799), "2099-12-31T23:59:59Z");
    }
}
