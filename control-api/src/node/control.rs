//! The control loop: events of SIP, of the shards and of time go into the MRFC, its actions come
//! out and are carried out.
//!
//! Every queue is bounded. A shard that does not take its commands fast enough has them kept here
//! in order; while too many are kept no further SIP event is taken, the SIP queue fills, and the
//! SIP front sheds new calls.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mrfp_core::Port;
use mrfp_core::mp::{Command, Event as MpEvent};
use mrfp_io::DoorbellReceiver;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::border::{BorderFront, is_of_border};
use super::floors::{FloorControl, Held, Reply};
use super::kms::Questions;
use super::relay::{Resolved, Resolver};
use super::statistics::Windows;
use super::{Stopped, counters, floors, ntp_now};
use crate::border;
use crate::http::{
    ContextView, FloorQuery, FloorsError, HttpServer, MemberDetail, MemberView, Query, Readiness,
    ReadinessState, RoomDetail,
};
use crate::mrfc::{Action, DialRequest, Event, MemberState, Mrfc, Now};
use crate::random;
use crate::sip::SipHandle;

/// What the loop is given.
pub(super) struct Parts {
    pub(super) mrfc: Mrfc,
    pub(super) ports: Vec<Port>,
    /// Rung by the shards after events.
    pub(super) bell: AsyncFd<DoorbellReceiver>,
    pub(super) sip: SipHandle,
    pub(super) sip_events: mpsc::Receiver<Event>,
    pub(super) queries: mpsc::Receiver<Query>,
    pub(super) readiness: Arc<Readiness>,
    /// Looks up the hosts the relay has to connect to.
    pub(super) resolver: Resolver,
    /// Traffic in windows.
    pub(super) windows: Windows,
    /// Who asks for floors and who is told of them.
    pub(super) floors: FloorControl,
    /// The border, where the node is one.
    pub(super) border: Option<BorderFront>,
    pub(super) stop: CancellationToken,
    /// Kept until the end, so that health and metrics can be watched while the node drains.
    pub(super) server: HttpServer,
    /// The KMS, where it is elsewhere.
    pub(super) questions: Questions,
    /// Every Termination gets a port of its own.
    pub(super) own_ports: bool,
    pub(super) shutdown_timeout: Duration,
}

/// The loop and what it owns.
pub(super) struct Control {
    parts: Parts,
    shards: Vec<ShardState>,
    /// The MRFC's clock starts here.
    started: Instant,
    shards_checked: Instant,
    /// When a node that was told to stop leaves without the calls that are left.
    give_up: Option<Instant>,
    drained: bool,
}

/// What the loop keeps for one shard.
#[derive(Default)]
struct ShardState {
    /// Commands the shard's queue had no room for, oldest first.
    outbox: VecDeque<Command>,
    /// The shard's turns when they were last seen to grow.
    turns: u64,
    /// Checks since then.
    checks_without_turn: u32,
    /// Its thread has ended, and the MRFC knows.
    ended: bool,
}

/// Why the loop woke up.
enum Wake {
    /// A shard has events, a timer has run out, or a queue is to be tried again.
    Look,
    Sip(Option<Event>),
    Query(Query),
    Resolved(Resolved),
    /// A KMS has answered, or will not.
    Asked(Event),
    /// A call through the border.
    Border(border::Event),
    Stop,
}

impl Control {
    pub(super) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            shards: parts.ports.iter().map(|_| ShardState::default()).collect(),
            parts,
            started: now,
            shards_checked: now,
            give_up: None,
            drained: false,
        }
    }

    /// Runs until the node was told to stop and every call has ended, or the time for that is up.
    pub(super) async fn run(mut self) -> Stopped {
        while !self.is_drained() && self.give_up.is_none_or(|deadline| Instant::now() < deadline) {
            match self.wake().await {
                Wake::Look => {}
                Wake::Sip(Some(event)) => self.take_sip(event),
                // The front ended under us: no call can come or go any more.
                Wake::Sip(None) => break,
                Wake::Query(query) => self.answer(query),
                Wake::Resolved(resolved) => self.take_resolved(resolved),
                Wake::Asked(event) => self.take_asked(event),
                Wake::Border(event) => self.take_border(event),
                Wake::Stop => self.begin_stop(),
            }
            self.receive();
            self.check_shards();
            let now = self.now();
            self.parts.mrfc.handle_timeout(now, &mut random::fill);
            self.border_timeout(now);
            self.act();
        }
        self.finish().await
    }

    /// Waits for something to do.
    async fn wake(&mut self) -> Wake {
        // Armed: whatever a shard pushes from here on makes the descriptor readable. Not armed:
        // something came since the queues were emptied.
        if !self.parts.bell.get_ref().arm() {
            self.parts.bell.get_ref().disarm();
            return Wake::Look;
        }
        let deadline = self.deadline();
        let takes_calls = self.deferred() < DEFERRED_COMMANDS_MAX;
        let stopping = self.give_up.is_some();
        let wake = tokio::select! {
            biased;
            () = self.parts.stop.cancelled(), if !stopping => Wake::Stop,
            readable = self.parts.bell.readable() => {
                if let Ok(mut guard) = readable {
                    guard.clear_ready();
                }
                Wake::Look
            }
            event = self.parts.sip_events.recv(), if takes_calls => Wake::Sip(event),
            Some(event) = next(&mut self.parts.border), if takes_calls => Wake::Border(event),
            Some(query) = self.parts.queries.recv() => Wake::Query(query),
            resolved = self.parts.resolver.next() => Wake::Resolved(resolved),
            Some(event) = self.parts.questions.next() => Wake::Asked(event),
            () = sleep_until(deadline) => Wake::Look,
        };
        // tokio waits for edges, so what was written needs no reading.
        self.parts.bell.get_ref().disarm();
        wake
    }

    /// The next moment something is due without an event.
    fn deadline(&self) -> Instant {
        let mut deadline = self.shards_checked + SHARD_CHECK_INTERVAL;
        if let Some(timeout_ns) = self.parts.mrfc.poll_timeout() {
            deadline = deadline.min(self.started + Duration::from_nanos(timeout_ns));
        }
        if let Some(timeout_ns) = self.parts.border.as_ref().and_then(BorderFront::timeout_ns) {
            deadline = deadline.min(self.started + Duration::from_nanos(timeout_ns));
        }
        if self.deferred() > 0 {
            deadline = deadline.min(Instant::now() + OUTBOX_RETRY);
        }
        self.give_up.map_or(deadline, |give_up| deadline.min(give_up))
    }

    fn deferred(&self) -> usize {
        self.shards.iter().map(|shard| shard.outbox.len()).sum()
    }

    fn now(&self) -> Now {
        let elapsed = self.started.elapsed().as_nanos();
        Now { monotonic_ns: u64::try_from(elapsed).unwrap_or(u64::MAX), ntp: ntp_now() }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.parts.mrfc.handle(now, &mut random::fill, event);
        self.act();
    }

    /// Takes one SIP event and those that wait behind it, so that a burst costs one wake-up.
    fn take_sip(&mut self, event: Event) {
        self.handle(event);
        for _ in 1..SIP_EVENTS_PER_TURN_MAX {
            if self.deferred() >= DEFERRED_COMMANDS_MAX {
                return;
            }
            let Ok(event) = self.parts.sip_events.try_recv() else { return };
            self.handle(event);
        }
    }

    /// Takes one event of the B2BUA and those that wait behind it.
    fn take_border(&mut self, event: border::Event) {
        self.handle_border(event);
        for _ in 1..SIP_EVENTS_PER_TURN_MAX {
            if self.deferred() >= DEFERRED_COMMANDS_MAX {
                return;
            }
            let waiting = self.parts.border.as_mut().and_then(BorderFront::try_next);
            let Some(event) = waiting else { return };
            self.handle_border(event);
        }
    }

    fn handle_border(&mut self, event: border::Event) {
        let now_ns = self.now().monotonic_ns;
        let Some(border) = &mut self.parts.border else { return };
        let shards = &mut self.shards;
        border.handle(now_ns, event, |shard, command| {
            shards[usize::from(shard.0)].outbox.push_back(command);
        });
        self.flush();
    }

    fn border_timeout(&mut self, now: Now) {
        let Some(border) = &mut self.parts.border else { return };
        let shards = &mut self.shards;
        border.handle_timeout(now.monotonic_ns, |shard, command| {
            shards[usize::from(shard.0)].outbox.push_back(command);
        });
    }

    /// Nothing is left of what the node was doing when it was told to stop.
    fn is_drained(&self) -> bool {
        self.drained && self.parts.border.as_ref().is_none_or(BorderFront::is_drained)
    }

    /// Takes what the shards have to tell.
    fn receive(&mut self) {
        for index in 0..self.parts.ports.len() {
            let shard = self.parts.ports[index].shard();
            while let Some(event) = self.parts.ports[index].receive() {
                if matches!(event, MpEvent::Stopped) {
                    self.shards[index].ended = true;
                    self.forget_shard(index);
                    self.handle_border(border::Event::Mp { shard, event: MpEvent::Stopped });
                }
                match event {
                    MpEvent::Resolve { id, host, port, secure: _ } => {
                        self.parts.resolver.ask(index, id, host, port);
                    }
                    MpEvent::Audited { context, statistics } => {
                        self.parts.windows.audited(context, statistics.map(|it| *it));
                    }
                    MpEvent::Floors { context, answer } => {
                        if let Ok(view) = &answer {
                            self.parts.mrfc.set_moderated(context, view.moderated);
                        }
                        let room = self.parts.mrfc.room_of(context);
                        self.parts.floors.answered(index, answer, room.as_ref());
                    }
                    MpEvent::FloorChanged { context, floor_id, user_id, holds } => {
                        let held = Held { context, floor: floor_id, user: user_id };
                        let room = self.parts.mrfc.room_of(context);
                        self.parts.floors.changed(shard, held, holds, room.as_ref());
                    }
                    event if is_of_border(&event) => {
                        self.handle_border(border::Event::Mp { shard, event });
                    }
                    event => self.handle(Event::Mp { shard, event }),
                }
            }
        }
        while let Some(resolved) = self.parts.resolver.poll() {
            self.take_resolved(resolved);
        }
    }

    /// Nobody will answer what a shard that has ended was asked.
    fn forget_shard(&mut self, index: usize) {
        self.parts.windows.forget_questions();
        self.parts.floors.shard_ended(index, self.parts.ports[index].shard());
    }

    fn take_resolved(&mut self, resolved: Resolved) {
        let Resolved { shard, id, addresses } = resolved;
        self.shards[shard].outbox.push_back(Command::Resolved { id, addresses });
    }

    /// Carries out what the MRFC wants.
    fn act(&mut self) {
        while let Some(action) = self.parts.mrfc.poll_action() {
            match action {
                Action::Answer { .. }
                | Action::HangUp { .. }
                | Action::Room { .. }
                | Action::Dial { .. }
                | Action::Reinvite { .. }
                | Action::AnswerSubscribe { .. }
                | Action::Notify { .. } => {
                    let left = self.parts.sip.act(action);
                    assert!(left.is_none(), "what concerns peers is for the SIP front");
                }
                Action::Command { shard, mut command } => {
                    // The MRFC asks for one where another holds the identity, and where nothing else would
                    // tell whose connection has come.
                    if let Some(own_port) = own_port(&mut command) {
                        *own_port |= self.parts.own_ports;
                    }
                    self.shards[usize::from(shard.0)].outbox.push_back(command);
                }
                Action::Resolve { resolve, message } => self.parts.questions.ask(resolve, message),
                Action::Drained => self.drained = true,
            }
        }
        self.flush();
    }

    /// Takes one answer of a KMS and those that wait behind it.
    fn take_asked(&mut self, event: Event) {
        self.handle(event);
        while let Some(event) = self.parts.questions.poll() {
            self.handle(event);
        }
    }

    /// Gives the shards what their queues have room for, in order.
    fn flush(&mut self) {
        for (port, shard) in self.parts.ports.iter_mut().zip(&mut self.shards) {
            if shard.ended {
                // Nobody will ever take them; the MRFC has been told.
                shard.outbox.clear();
            }
            while let Some(command) = shard.outbox.pop_front() {
                if let Err(command) = port.send(command) {
                    shard.outbox.push_front(command);
                    break;
                }
            }
        }
    }

    /// Looks once a second whether the shards live.
    fn check_shards(&mut self) {
        if self.shards_checked.elapsed() < SHARD_CHECK_INTERVAL {
            return;
        }
        self.shards_checked = Instant::now();
        let rooms = self.parts.mrfc.rooms().map(|room| (room.shard, room.context));
        self.parts.windows.turn(&self.parts.ports, rooms);
        for (shard, context) in self.parts.windows.due() {
            self.shards[usize::from(shard.0)].outbox.push_back(Command::Audit { context });
        }
        let mut answering = true;
        for index in 0..self.parts.ports.len() {
            let port = &self.parts.ports[index];
            let (id, turns) = (port.shard(), port.metrics().read().turns);
            let gone = port.is_finished() && !self.shards[index].ended;
            let shard = &mut self.shards[index];
            shard.checks_without_turn =
                if turns == shard.turns { shard.checks_without_turn + 1 } else { 0 };
            shard.turns = turns;
            answering &= !shard.ended && shard.checks_without_turn < CHECKS_WITHOUT_TURN_MAX;
            if gone {
                shard.ended = true;
                self.forget_shard(index);
                answering = false;
                tracing::error!(shard = id.0, "the shard has ended; its calls are lost");
                self.handle(Event::Mp { shard: id, event: MpEvent::Stopped });
                self.handle_border(border::Event::Mp { shard: id, event: MpEvent::Stopped });
            }
        }
        if self.give_up.is_none() {
            let state = if answering { ReadinessState::Ready } else { ReadinessState::ShardLost };
            self.parts.readiness.set(state);
        }
    }

    fn answer(&mut self, query: Query) {
        // Who asked may have gone meanwhile.
        match query {
            Query::Contexts(reply) => {
                let _ = reply.send(self.contexts());
            }
            Query::Rooms { name, reply } => {
                let _ = reply.send(self.rooms(name.as_deref()));
            }
            Query::Administer { room, administration, reply } => {
                let now = self.now();
                let outcome =
                    self.parts.mrfc.administer(now, &mut random::fill, &room, administration);
                self.act();
                let _ = reply.send(outcome);
            }
            Query::Dial { room, target, security, reply } => {
                let (now, call) = (self.now(), self.parts.sip.new_call());
                let request = DialRequest { room, call, target, security };
                let outcome = self.parts.mrfc.dial(now, &mut random::fill, request);
                self.act();
                let _ = reply.send(outcome.map(|()| call));
            }
            Query::Realms(reply) => {
                let _ = reply.send(self.parts.windows.realms(&self.parts.ports));
            }
            Query::RoomStatistics { room, reply } => {
                let mut rooms = self.parts.mrfc.rooms();
                let place = rooms.find(|view| view.name == room).map(|it| (it.shard, it.context));
                drop(rooms);
                let live = place.filter(|(shard, _)| !self.shards[usize::from(shard.0)].ended);
                match live {
                    Some((shard, context)) => {
                        if self.parts.windows.ask(context, reply) {
                            let outbox = &mut self.shards[usize::from(shard.0)].outbox;
                            outbox.push_back(Command::Audit { context });
                        }
                    }
                    None => {
                        let _ = reply.send(None);
                    }
                }
                self.flush();
            }
            Query::Border(reply) => {
                let detail = self.parts.border.as_ref().map(|border| Box::new(border.detail()));
                let _ = reply.send(detail);
            }
            Query::Floors { room, query, reply } => self.ask_floors(&room, query, reply),
            Query::Counters(reply) => {
                let deferred = self.deferred() as u64;
                let sip = &self.parts.sip;
                let (counters, delay) = (sip.metrics(), sip.queue_delay());
                let mrfc = &self.parts.mrfc;
                let mut families = counters::families(mrfc, &counters, delay, deferred);
                families.extend(self.parts.floors.webhook.families());
                families.extend(self.parts.border.iter().flat_map(BorderFront::families));
                let _ = reply.send(families);
            }
        }
    }

    /// Asks the shard of a room; its answer finds who asked.
    fn ask_floors(&mut self, room: &str, query: FloorQuery, reply: Reply) {
        let found = self.parts.mrfc.room(room).ok_or(FloorsError::NotFound);
        let found = found.and_then(|view| {
            let action = floors::action(query, &view)?;
            Ok((usize::from(view.shard.0), view.context, action))
        });
        match found {
            Ok((shard, _, _)) if self.shards[shard].ended => {
                let _ = reply.send(Err(FloorsError::Busy));
            }
            Ok((shard, context, action)) => {
                if self.parts.floors.ask(shard, room, reply) {
                    let action = Box::new(action);
                    self.shards[shard].outbox.push_back(Command::Floors { context, action });
                    self.flush();
                }
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn contexts(&self) -> Vec<ContextView> {
        let rooms = self.parts.mrfc.rooms().take(CONTEXTS_SHOWN_MAX);
        rooms
            .map(|room| ContextView {
                context: room.context.0,
                room: room.name.to_owned(),
                shard: room.shard.0,
                members: room
                    .members
                    .iter()
                    .map(|member| MemberView {
                        uri: member.uri.to_owned(),
                        state: state_name(member.state),
                        security: security_name(member.secure, member.keyed),
                    })
                    .collect(),
            })
            .collect()
    }

    fn rooms(&self, name: Option<&str>) -> Vec<RoomDetail> {
        let rooms =
            self.parts.mrfc.rooms().filter(|room| name.is_none_or(|name| name == room.name));
        rooms
            .take(CONTEXTS_SHOWN_MAX)
            .map(|room| RoomDetail {
                room: room.name.to_owned(),
                uri: room.uri.to_owned(),
                locked: room.locked,
                moderated: room.moderated,
                subscriptions: room.subscriptions,
                members: room
                    .members
                    .iter()
                    .map(|member| MemberDetail {
                        call: member.call.0,
                        uri: member.uri.to_owned(),
                        nickname: member.nickname.map(str::to_owned),
                        state: state_name(member.state),
                        muted: member.muted,
                        floor_user: member.floor_user,
                        security: security_name(member.secure, member.keyed),
                    })
                    .collect(),
            })
            .collect()
    }

    fn begin_stop(&mut self) {
        self.give_up = Some(Instant::now() + self.parts.shutdown_timeout);
        self.parts.readiness.set(ReadinessState::Draining);
        tracing::info!(calls = self.calls(), "stopping: no new calls, hanging up");
        self.handle(Event::Shutdown);
        self.handle_border(border::Event::Shutdown);
    }

    /// Calls of conferences and through the border.
    fn calls(&self) -> usize {
        self.parts.mrfc.calls() + self.parts.border.as_ref().map_or(0, BorderFront::calls)
    }

    /// Ends the SIP front, then the shards, then HTTP.
    async fn finish(mut self) -> Stopped {
        let (calls, drained) = (self.calls(), self.is_drained());
        let give_up = self.give_up.unwrap_or_else(Instant::now) + FINISH_GRACE;
        // Nobody takes calls any more: from here on the front answers a new one 503 by itself. Those
        // that came in while the last call ended get theirs now.
        self.parts.sip_events.close();
        while let Ok(event) = self.parts.sip_events.try_recv() {
            self.take_sip(event);
            self.act();
        }
        let sip = timeout_at(give_up, self.parts.sip.shutdown()).await;
        let border = match self.parts.border {
            Some(border) => timeout_at(give_up, border.shutdown()).await,
            None => Ok(()),
        };
        let stopped = stop_shards(self.parts.ports).await;
        self.parts.floors.webhook.finish(give_up).await;
        drop(self.parts.server);
        if drained && sip.is_ok() && border.is_ok() && stopped.is_ok() {
            return Stopped::Drained;
        }
        Stopped::CutOff { calls }
    }
}

/// Tells every shard to stop and waits for its thread.
///
/// # Errors
/// A shard failed, or did not end in time; its thread is then left behind.
pub(super) async fn stop_shards(mut ports: Vec<Port>) -> io::Result<()> {
    let deadline = Instant::now() + SHARD_STOP_TIMEOUT;
    let mut told = vec![false; ports.len()];
    while ports.iter().any(|port| !port.is_finished()) {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for (port, told) in ports.iter_mut().zip(&mut told) {
            // Its last events are of no more interest, but must not fill the queue.
            while port.receive().is_some() {}
            if !*told {
                *told = port.send(Command::Stop).is_ok();
            }
        }
        sleep(SHARD_STOP_POLL).await;
    }
    ports.into_iter().try_for_each(Port::join)
}

/// What the B2BUA has to tell; never, where there is none.
async fn next(border: &mut Option<BorderFront>) -> Option<border::Event> {
    match border {
        Some(border) => border.next().await,
        None => std::future::pending().await,
    }
}

/// Where a command says whether its Termination has a port of its own.
fn own_port(command: &mut Command) -> Option<&mut bool> {
    match command {
        Command::ReserveAndConfigure(reserve) => Some(&mut reserve.own_port),
        Command::ReserveFloorControl(reserve) => Some(&mut reserve.own_port),
        Command::ReplaceFloorControl(replace) => Some(&mut replace.own_port),
        _ => None,
    }
}

fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::AwaitingKeys => "awaiting-keys",
        MemberState::Reserving => "reserving",
        MemberState::Calling => "calling",
        MemberState::Answered => "answered",
        MemberState::Connected => "connected",
        MemberState::Recovering => "recovering",
        MemberState::Modifying => "modifying",
    }
}

fn security_name(secure: bool, keyed: bool) -> &'static str {
    match (secure, keyed) {
        (true, true) => "tls-psk",
        (true, false) => "tls-certificate",
        (false, _) => "none",
    }
}

/// SIP events taken before the shards' events are looked at again.
const SIP_EVENTS_PER_TURN_MAX: usize = 64;
/// Commands that may wait for shards with full queues before no more calls are taken. One SIP
/// event yields a handful at most, a stop one per call, which is what this bounds the growth to.
const DEFERRED_COMMANDS_MAX: usize = 1024;
/// When a full queue is tried again if its shard says nothing.
const OUTBOX_RETRY: Duration = Duration::from_millis(1);
/// How often the shards are looked after.
const SHARD_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A shard turns at least twenty times a second; five seconds without a turn are a hang.
const CHECKS_WITHOUT_TURN_MAX: u32 = 5;
/// Contexts in one answer of the API, so that a question never holds up calls for long.
const CONTEXTS_SHOWN_MAX: usize = 10_000;
/// What the SIP front gets beyond the time for calls: a BYE without ACK goes out after T1, and the
/// last of them are waited for 4*T1.
const FINISH_GRACE: Duration = Duration::from_secs(3);
/// A shard that drained has nothing left to wait for.
const SHARD_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const SHARD_STOP_POLL: Duration = Duration::from_millis(5);
