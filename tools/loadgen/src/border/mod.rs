//! Calls through a border (IMS-ALG, IBCF), of which the generator is both ends: UEs on its access side,
//! peers on its core side, where it is the border's next hop.
//!
//! - [`Fleet`]: registrations, calls, and their end; what they carry is a [`Media`]'s affair.
//! - `endpoint`: the sockets of a side; `callee`: who is called there, and the registrar of the core;
//!   `registration`: the UEs' REGISTERs. Who calls is a [`UserAgents`], as everywhere.
//! - `messages`: MSRP, over TLS on the access side.
//! - `fax`: UDPTL, over DTLS on the access side.
//! - [`report`]: what became of the calls.

mod callee;
mod endpoint;
mod fax;
pub(crate) mod messages;
mod registration;
pub mod report;
mod sdp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use self::callee::{Callees, Event as CalleeEvent};
use self::endpoint::{Endpoint, Reply};
use self::fax::Fax;
use self::messages::Messages;
use self::registration::Registrations;
use self::report::{CallBook, CallsThrough};
use mrfp_protocol::tls::Identity;
use mrfp_protocol::tls::dtls::Credentials;

use crate::accounting::Processes;
use crate::cli::{E2aeRun, ThroughBorder};
use crate::display::{Display, Figures};
use crate::expectation::Violation;
use crate::signalling::message::{Message, Start};
use crate::signalling::{Config, Event as CallEvent, Invite, UserAgents};
use crate::wire::plan::Protection;
use crate::wire::{self, Plan, WireReport};

/// Messages through a border. An error means that it could not be run; what the border did wrong is in the
/// reports.
pub(crate) async fn run_e2ae(
    options: &E2aeRun,
    plan: Plan,
    identities: &[Identity],
    node: &Processes,
) -> io::Result<(CallsThrough, WireReport)> {
    let (links, lobby) = wire::Run::with_lobby(plan, node)?;
    let through = Options::of(&options.border)?;
    let run = getrandom::u32().map_err(io::Error::other)?;
    let addresses = (through.access.ip(), through.core.ip());
    let media = Messages::new(lobby, identities, run, addresses, options.cema);
    let fleet = Fleet::new(through, media).await?;
    tokio::try_join!(fleet.drive(), links.drive())
}

/// The same with faxes.
pub(crate) async fn run_fax(
    through: &ThroughBorder,
    bit_rate: u32,
    plan: Plan,
    node: &Processes,
) -> io::Result<(CallsThrough, WireReport)> {
    let fingerprints = match &plan.protection {
        Protection::Datagrams { credentials, .. } => {
            credentials.iter().map(Credentials::fingerprint).collect()
        }
        _ => Vec::new(),
    };
    let (links, lobby) = wire::Run::with_lobby(plan, node)?;
    let run = getrandom::u32().map_err(io::Error::other)?;
    let media = Fax::new(lobby, fingerprints, run, bit_rate);
    let fleet = Fleet::new(Options::of(through)?, media).await?;
    tokio::try_join!(fleet.drive(), links.drive())
}

/// A side of the border.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Where the UEs are.
    Access,
    /// Where their peers are.
    Core,
}

/// What the calls carry. Each call has an end on each side; each end is told once what the border has
/// said to it, or that it will not come.
pub(crate) trait Media {
    /// What the caller on that side offers.
    fn offer(&mut self, call: u32, side: Side) -> Vec<u8>;
    /// What the callee on that side answers; its end may begin.
    fn answer(&mut self, call: u32, side: Side, offer: &[u8]) -> Result<Vec<u8>, String>;
    /// The caller on that side was answered; its end may begin.
    fn answered(&mut self, call: u32, side: Side, answer: &[u8]) -> Result<(), String>;
    /// The end on that side will not begin.
    fn dismiss(&mut self, call: u32, side: Side);
    /// All is said: the calls may end.
    fn is_served(&self) -> bool;
    /// The calls are over.
    fn close(&mut self);
}

/// Who calls whom.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum Direction {
    /// The UEs call.
    #[default]
    Originating,
    /// The UEs register and are called.
    Terminating,
    /// Of two calls, one each.
    Both,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The border, on its access side.
    pub(crate) border: SocketAddr,
    /// User and domain of whom the UEs call.
    pub(crate) user: String,
    pub(crate) domain: String,
    /// Where the border sends what goes to the core.
    pub(crate) core: SocketAddr,
    /// Our address on the access side.
    pub(crate) access: SocketAddr,
    pub(crate) sessions: u32,
    pub(crate) rate_per_second: f64,
    pub(crate) direction: Direction,
}

impl Options {
    fn of(through: &ThroughBorder) -> io::Result<Self> {
        let ThroughBorder { target, core, sessions, rate, direction } = through;
        Ok(Self {
            border: target.address,
            user: target.user.clone(),
            domain: target.host_port.clone(),
            core: *core,
            access: (address_towards(target.address)?, 0).into(),
            sessions: *sessions,
            rate_per_second: *rate,
            direction: *direction,
        })
    }
}

/// Our address where the kernel would send from.
pub(crate) fn address_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let unspecified: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = std::net::UdpSocket::bind((unspecified, 0))?;
    probe.connect(peer)?;
    Ok(probe.local_addr()?.ip())
}

/// All calls.
pub(crate) struct Fleet<M> {
    options: Options,
    media: M,
    sides: [Ends; 2],
    registrations: Registrations,
    calls: Vec<Call>,
    phase: Phase,
    since: Instant,
    begun: Instant,
    heard: bool,
    launched: u32,
    settled: u32,
    up: u32,
    over: u32,
    next_to_end: u32,
    over_since: Option<Instant>,
    book: CallBook,
    display: Display,
}

/// What there is on one side.
struct Ends {
    endpoint: Endpoint,
    callers: UserAgents,
    callees: Callees,
    /// Where requests of ours go.
    peer: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Registering,
    SettingUp,
    Talking,
    Ending,
    Over,
}

struct Call {
    /// Of the caller.
    side: Side,
    state: CallState,
    invited: Instant,
    ended: Option<Instant>,
    /// Its ends that were told where to begin, or that they will not: access, core.
    told: [bool; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallState {
    Waiting,
    Calling,
    Up,
    Ending,
    Over,
}

/// Calls that may wait for their answer at once.
const PENDING_CALLS_MAX: u32 = 1000;
/// A border that has not said a word by then is not there.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(8);
/// A BYE has reached the callee so long after it was answered.
const BYE_GRACE: Duration = Duration::from_secs(4);
/// How often phases are looked after.
const INTERVAL: Duration = Duration::from_millis(2);
const MESSAGES_PER_TURN_MAX: usize = 64;

impl Side {
    const BOTH: [Self; 2] = [Self::Access, Self::Core];

    fn index(self) -> usize {
        usize::from(self == Self::Core)
    }
}

impl Ends {
    async fn open(
        address: SocketAddr,
        peer: Option<SocketAddr>,
        calls: u32,
        run: u32,
    ) -> io::Result<Self> {
        let endpoint = Endpoint::open(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        let local = endpoint.address().to_string();
        let config = Config {
            local_addresses: vec![local.clone()],
            transport: "UDP",
            run,
            unreliable: true,
        };
        let callers = UserAgents::new(config, calls, Instant::now());
        Ok(Self { endpoint, callers, callees: Callees::new(local, run), peer })
    }
}

impl<M: Media> Fleet<M> {
    pub(crate) async fn new(options: Options, media: M) -> io::Result<Self> {
        let random = || getrandom::u32().map_err(io::Error::other);
        let calls = options.sessions;
        let access = Ends::open(options.access, Some(options.border), calls, random()?).await?;
        let core = Ends::open(options.core, None, calls, random()?).await?;
        let registers = options.direction != Direction::Originating;
        let ues = if registers { calls } else { 0 };
        let registrations =
            Registrations::new(ues, access.endpoint.address(), options.domain.clone(), random()?);
        let now = Instant::now();
        let side = |number: u32| match options.direction {
            Direction::Originating => Side::Access,
            Direction::Terminating => Side::Core,
            Direction::Both if number.is_multiple_of(2) => Side::Access,
            Direction::Both => Side::Core,
        };
        let call = |number| Call {
            side: side(number),
            state: CallState::Waiting,
            invited: now,
            ended: None,
            told: [false; 2],
        };
        Ok(Self {
            media,
            sides: [access, core],
            registrations,
            calls: (0..calls).map(call).collect(),
            phase: Phase::Registering,
            since: now,
            begun: now,
            heard: false,
            launched: 0,
            settled: 0,
            up: 0,
            over: 0,
            next_to_end: 0,
            over_since: None,
            book: CallBook::default(),
            display: Display::new(calls),
            options,
        })
    }

    /// Until all calls are over. An error: the border is not there.
    pub(crate) async fn drive(mut self) -> io::Result<CallsThrough> {
        let outcome = self.drive_calls().await;
        self.media.close();
        self.display.finish();
        outcome.map(|()| self.book.report(self.registrations.counts()))
    }

    async fn drive_calls(&mut self) -> io::Result<()> {
        while self.phase != Phase::Over {
            let [access, core] = &mut self.sides;
            let (side, message) = tokio::select! {
                message = access.endpoint.receive() => (Side::Access, message),
                message = core.endpoint.receive() => (Side::Core, message),
                () = tokio::time::sleep(INTERVAL) => (Side::Access, None),
            };
            let now = Instant::now();
            let mut next = message;
            for _ in 0..MESSAGES_PER_TURN_MAX {
                let Some((bytes, reply)) = next else { break };
                self.heard = true;
                self.message(side, &bytes, &reply, now);
                next = self.sides[side.index()].endpoint.try_receive();
            }
            self.turn(now)?;
        }
        Ok(())
    }

    fn message(&mut self, side: Side, bytes: &[u8], reply: &Reply, now: Instant) {
        let Some(message) = Message::parse(bytes) else {
            self.book.add(Violation::Malformed, || format!("{side:?} side: this is not SIP"));
            return;
        };
        let ends = &mut self.sides[side.index()];
        if side == Side::Core
            && let Reply::Datagram(from) = reply
            && ends.peer.is_none()
        {
            // Where the border sends from on that side it listens as well.
            ends.peer = Some(*from);
        }
        if side == Side::Access && self.registrations.handle(&message) {
            return;
        }
        if ends.callers.knows(&message) || !matches!(message.start, Start::Request(_)) {
            return ends.callers.handle_message(0, bytes, now);
        }
        let (media, calls, book) = (&mut self.media, &mut self.calls, &mut self.book);
        ends.callees.handle(&message, reply, now, |number, offer| {
            let call = calls.get_mut(number as usize).filter(|call| call.side != side);
            let call = call.ok_or_else(|| "nobody is called so".to_owned())?;
            if std::mem::replace(&mut call.told[side.index()], true) {
                return Err("called before".to_owned());
            }
            media.answer(number, side, offer).inspect_err(|why| {
                media.dismiss(number, side);
                book.add(Violation::AnswerUnusable, || {
                    format!("call {number}: offer to the {side:?} side: {why}")
                });
            })
        });
    }

    fn turn(&mut self, now: Instant) -> io::Result<()> {
        for request in self.registrations.poll(now) {
            self.sides[0].endpoint.send(&request, self.options.border);
        }
        for side in Side::BOTH {
            let ends = &mut self.sides[side.index()];
            ends.callers.handle_timeout(now);
            ends.callees.handle_timeout(now);
            for event in ends.callees.take_events() {
                self.callee_event(side, event);
            }
            while let Some(event) = self.sides[side.index()].callers.poll_event() {
                self.caller_event(event, now);
            }
        }
        if !self.heard && now >= self.begun + SILENCE_TIMEOUT {
            return Err(io::Error::other(format!(
                "nobody answers SIP over UDP at {}: no answer in {} s (is the border running, and is \
                 that its address on the access side?)",
                self.options.border,
                SILENCE_TIMEOUT.as_secs()
            )));
        }
        match self.phase {
            Phase::Registering if self.registrations.is_over() => {
                self.enter(Phase::SettingUp, now);
            }
            Phase::Registering | Phase::SettingUp | Phase::Talking if self.media.is_served() => {
                self.enter(Phase::Ending, now);
            }
            Phase::SettingUp => self.set_up(now),
            Phase::Ending => self.tear_down(now),
            Phase::Registering | Phase::Talking | Phase::Over => {}
        }
        for ends in &mut self.sides {
            while let Some((_, request)) = ends.callers.poll_transmit() {
                if let Some(peer) = ends.peer {
                    ends.endpoint.send(&request, peer);
                }
            }
            for (answer, reply) in ends.callees.take_transmit() {
                ends.endpoint.reply(answer, &reply);
            }
        }
        if self.display.is_due(now) {
            self.display.show(&self.figures(), now);
        }
        Ok(())
    }

    fn figures(&self) -> Figures {
        Figures {
            phase: match self.phase {
                Phase::Registering => "registering",
                Phase::SettingUp => "setting up",
                Phase::Talking => "media flows",
                Phase::Ending | Phase::Over => "ending",
            }
            .into(),
            calls_up: self.up,
            calls_bound: self.book.answered(),
            violations: self.book.violations(),
            ..Figures::default()
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    /// When the call with that number is to be set up or ended.
    fn due(&self, number: u32) -> Instant {
        self.since + Duration::from_secs_f64(f64::from(number) / self.options.rate_per_second)
    }

    fn set_up(&mut self, now: Instant) {
        while self.launched < self.options.sessions
            && self.due(self.launched) <= now
            && self.launched - self.settled < PENDING_CALLS_MAX
        {
            self.launched += 1;
            self.call(self.launched - 1, now);
        }
        if self.settled == self.options.sessions {
            self.enter(Phase::Talking, now);
        }
    }

    fn call(&mut self, number: u32, now: Instant) {
        let Options { user, domain, .. } = &self.options;
        let side = self.calls[number as usize].side;
        let ue = format!("sip:ue-{number}@{domain}");
        let peer = format!("sip:{user}-{number}@{domain}");
        let (from, to) = match side {
            Side::Access => (ue, peer),
            Side::Core => {
                let contact = self.registrations.outcome(number).and_then(|()| {
                    let contact = self.sides[side.index()].callees.contact(&format!("ue-{number}"));
                    contact.map(str::to_owned).ok_or_else(|| "no REGISTER came through".to_owned())
                });
                match contact {
                    Ok(contact) => {
                        // Where the border listens on that side; it may have sent from elsewhere.
                        let host = contact.split(['@', ';']).nth(1).and_then(|it| it.parse().ok());
                        let ends = &mut self.sides[side.index()];
                        ends.peer = host.or(ends.peer);
                        (peer, contact)
                    }
                    Err(why) => {
                        self.book.add(Violation::CallRefused, || format!("call {number}: {why}"));
                        return self.lost(number);
                    }
                }
            }
        };
        let sdp = self.media.offer(number, side);
        let call = &mut self.calls[number as usize];
        call.state = CallState::Calling;
        call.invited = now;
        self.book.attempted();
        self.sides[side.index()].callers.invite(number, Invite { from, to, sdp }, now);
    }

    fn caller_event(&mut self, event: CallEvent, now: Instant) {
        match event {
            CallEvent::Answered { call: number, sdp } => {
                let call = &mut self.calls[number as usize];
                let side = call.side;
                call.state = CallState::Up;
                self.book.set_up(now - call.invited);
                self.settled += 1;
                self.up += 1;
                call.told[side.index()] = true;
                if let Err(why) = self.media.answered(number, side, &sdp) {
                    self.media.dismiss(number, side);
                    self.book.add(Violation::AnswerUnusable, || {
                        format!("call {number}: answer to the {side:?} side: {why}")
                    });
                }
                self.dismiss(number);
            }
            CallEvent::Refused { call, status, warning, .. } => {
                self.book.refused(status);
                self.book.add(Violation::CallRefused, || {
                    format!("call {call}: answered {status} {warning}")
                });
                self.lost(call);
            }
            CallEvent::Unanswered { call } => {
                self.book.add(Violation::CallUnanswered, || {
                    format!("call {call}: no final answer to INVITE")
                });
                self.lost(call);
            }
            CallEvent::HungUp { call, reason } => {
                self.book.add(Violation::HungUp, || {
                    format!("call {call}: BYE to the caller, Reason: {reason}")
                });
                self.call_over(call);
            }
            CallEvent::Ended { call, status } => {
                match status {
                    200..=299 => {
                        let ended = self.calls[call as usize].ended;
                        self.book.ended(ended.map(|ended| now - ended));
                    }
                    487 => {}
                    _ => self.book.add(Violation::ByeRefused, || {
                        format!("call {call}: BYE answered {status}")
                    }),
                }
                self.call_over(call);
            }
            CallEvent::EndUnanswered { call } => {
                self.book.add(Violation::ByeUnanswered, || {
                    format!("call {call}: no answer to BYE or CANCEL")
                });
                self.call_over(call);
            }
        }
    }

    fn callee_event(&mut self, side: Side, event: CalleeEvent) {
        match event {
            CalleeEvent::Ended { call, reason } => {
                let state = self.calls[call as usize].state;
                // Otherwise it is the caller's BYE, passed on.
                if !matches!(state, CallState::Ending | CallState::Over) {
                    self.book.add(Violation::HungUp, || {
                        format!(
                            "call {call}: BYE to the callee on the {side:?} side, Reason: {reason}"
                        )
                    });
                }
                self.book.passed_on();
            }
            CalleeEvent::Unacknowledged { call } => {
                self.book.add(Violation::CallUnanswered, || {
                    format!("call {call}: the 200 of the {side:?} side was never acknowledged")
                });
            }
        }
    }

    /// The call did not come up.
    fn lost(&mut self, number: u32) {
        self.settled += 1;
        self.call_over(number);
        self.dismiss(number);
    }

    /// Ends that were not told anything will not be.
    fn dismiss(&mut self, number: u32) {
        for side in Side::BOTH {
            if !std::mem::replace(&mut self.calls[number as usize].told[side.index()], true) {
                self.media.dismiss(number, side);
            }
        }
    }

    fn call_over(&mut self, number: u32) {
        let call = &mut self.calls[number as usize];
        if matches!(call.state, CallState::Up | CallState::Ending) {
            self.up = self.up.saturating_sub(1);
        }
        if std::mem::replace(&mut call.state, CallState::Over) != CallState::Over {
            self.over += 1;
        }
    }

    fn tear_down(&mut self, now: Instant) {
        while self.next_to_end < self.options.sessions && self.due(self.next_to_end) <= now {
            let number = self.next_to_end;
            self.next_to_end += 1;
            let call = &mut self.calls[number as usize];
            match call.state {
                CallState::Waiting => self.call_over(number),
                CallState::Calling | CallState::Up => {
                    call.state = CallState::Ending;
                    call.ended = Some(now);
                    self.sides[call.side.index()].callers.end(number, now);
                }
                CallState::Ending | CallState::Over => {}
            }
        }
        if self.over < self.options.sessions {
            return;
        }
        // A border answers a BYE before it has passed it on.
        let over_since = *self.over_since.get_or_insert(now);
        let missing = self.book.byes_missing();
        if missing > 0 && now < over_since + BYE_GRACE {
            return;
        }
        self.book.add_many(Violation::ByeUnanswered, missing, || {
            format!("{missing} callees were never told that their calls had ended")
        });
        self.enter(Phase::Over, now);
    }
}
