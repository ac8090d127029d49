//! One run from its seed: members join, talk, answer, stall, hold, leave; then everything comes to rest
//! and is judged.

use std::collections::BTreeMap;

use mrfp_core::Limits;
use mrfp_core::mp::{
    ChatRoomPolicy, Command, CpimPolicy, Direction, Event, Modify, Switching, TerminationId,
};
use mrfp_io::{Simulator, SimulatorConfig};
use mrfp_protocol::msrp::FailureReport;

use crate::common::{World, identity, key};
use crate::message::{Message, Report};
use crate::oracle;
use crate::party::{Answering, Party, ROOM_URI, is_between_two};
use crate::random::Random;
use crate::watch::{Delivery, Heard};

/// A run in progress.
pub struct Conference {
    pub world: World,
    pub random: Random,
    pub parties: Vec<Party>,
    pub messages: Vec<Message>,
    /// Buffers are scarce: a message may be refused, and a laggard dropped, for lack of them.
    pub tight: bool,
    /// Counts everything that is done.
    step: u64,
    /// Which message and chunk a transaction identifier belongs to.
    transactions: BTreeMap<String, (usize, usize)>,
    events_taken: usize,
    reports_written: usize,
    /// The member that does something.
    chosen: usize,
    /// Nothing new is begun.
    closing: bool,
}

/// Things that are done in a run.
const STEPS: usize = 500;
const MESSAGES_OPEN_MAX: usize = 4;
const PARTIES_MAX: usize = 16;
/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 2_000;

pub fn run(seed: u64) {
    let mut conference = Conference::begin(seed);
    for _ in 0..STEPS {
        conference.act();
    }
    conference.come_to_rest();
    oracle::judge(&conference);
    conference.end(seed);
}

impl Conference {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let tight = random.once_in(4);
        let limits = Limits {
            egress_bytes_max: random.pick(&[8_000, 30_000, 1 << 20]),
            send_buffers_small_max: if tight { 60 } else { 4_000 },
            send_buffers_large_max: if tight { 30 } else { 2_000 },
            carry_buffers_max: if tight { 16 } else { 200 },
            ..Limits::default()
        };
        let simulator = match random.once_in(4) {
            true => Simulator::without_faults(),
            false => {
                let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
                Simulator::with_config(seed, config)
            }
        };
        let mut conference = Self {
            world: World::new(simulator, limits),
            random,
            parties: Vec::new(),
            messages: Vec::new(),
            tight,
            step: 0,
            transactions: BTreeMap::new(),
            events_taken: 0,
            reports_written: 0,
            chosen: 0,
            closing: false,
        };
        for context in 1..=4 {
            let more = if is_between_two(context) { 0 } else { conference.random.below(4) };
            for _ in 0..2 + more {
                conference.join(context);
            }
        }
        conference
    }

    /// A new member, bound and answered.
    fn join(&mut self, context: u64) {
        let termination = self.parties.len() as u64 + 1;
        let psk = self.random.once_in(2).then(|| key(termination as u8));
        let address = self.world.reserve_with(context, termination, psk.as_ref(), |reserve| {
            if !is_between_two(context) {
                reserve.switching = Switching::ChatRoom(Box::new(policy()));
            }
        });
        let claim = psk.as_ref().map(|psk| (identity(termination), psk));
        let mut ue = self.world.connect(termination, address, claim);
        if psk.is_none() || ue.is_secured() {
            ue.send_raw(&mut self.world, &ue.empty_send("bind0001"));
        }
        self.world.settle();
        ue.read(&mut self.world);
        // Whoever is bound already may get messages before its own answer.
        let answer = ue.received.iter().position(|message| message.status == Some(200));
        if let Some(answer) = answer {
            ue.received.remove(answer);
        }
        self.step += 1;
        let mut party = Party::new(ue, context, termination, self.step, &mut self.random);
        // Whom the scarcity of buffers keeps out takes no part.
        if answer.is_none() {
            party.bound = u64::MAX;
            party.ended = true;
        }
        assert!(
            self.tight || answer.is_some(),
            "{termination}: the binding request is not answered"
        );
        self.parties.push(party);
        self.take_events();
        assert!(self.tight || self.world.is_bound(termination));
    }

    /// Does one thing.
    fn act(&mut self) {
        self.step += 1;
        // Mostly the same one again: things befall a member while it is in the middle of others.
        if self.random.once_in(4) {
            self.chosen = self.random.below(self.parties.len());
        }
        let index = self.chosen;
        match self.random.below(40) {
            0..=15 => self.say(index),
            16..=21 => self.hear(index),
            22 => {
                let window = self.random.pick(&[0, 0, 1_000, 10_000]);
                self.limit_window(index, window);
            }
            23 | 24 => self.limit_window(index, usize::MAX),
            25 => self.hold(index),
            26 => self.decline(index),
            27 if self.random.once_in(12) => self.kick(index),
            28 if self.random.once_in(6) => self.break_off(index),
            29 if self.parties.len() < PARTIES_MAX && self.random.once_in(4) => {
                let context = self.parties[index].context;
                if !is_between_two(context) {
                    self.join(context);
                }
            }
            30 if self.random.once_in(4) => self.turns(20, 30_000_000),
            _ => {
                let count = 1 + self.random.below(4);
                let step_ns = self.random.pick(&[0, 1_000_000, 20_000_000]);
                self.turns(count, step_ns);
            }
        }
    }

    fn turns(&mut self, count: usize, step_ns: u64) {
        for _ in 0..count {
            self.world.shard.driver_mut().advance_ns(step_ns);
            assert!(self.world.shard.turn().unwrap());
            self.take_events();
        }
    }

    /// Hands some bytes of what a member has to say to the network.
    fn say(&mut self, index: usize) {
        let party = &mut self.parties[index];
        if party.ended {
            return;
        }
        if party.wire.is_empty() && !self.next_on_the_wire(index) {
            return;
        }
        let party = &mut self.parties[index];
        let most = self.random.pick(&[50, 1_000, 10_000, 100_000]).min(party.wire.len());
        let count = 1 + self.random.below(most);
        let part: Vec<u8> = party.wire.drain(..count).collect();
        party.ue.send_raw(&mut self.world, &part);
        if party.wire.is_empty()
            && let Some(message) = party.sending.take()
        {
            let message = &mut self.messages[message];
            message.chunks.last_mut().expect("being sent").sent = true;
        }
    }

    /// Chooses what a member sends next: an answer it owes, or a chunk.
    fn next_on_the_wire(&mut self, index: usize) -> bool {
        let party = &mut self.parties[index];
        if let Some(response) = party.responses.pop_front() {
            party.wire = response;
            return true;
        }
        party.open.retain(|&message| !self.messages[message].is_said());
        let more = party.open.len() < MESSAGES_OPEN_MAX;
        if !self.closing && more && (party.open.is_empty() || self.random.once_in(3)) {
            let serial = self.messages.len();
            let number = self.messages.iter().filter(|message| message.sender == index).count();
            let head = party.body_head();
            let mut message = Message::draw(&mut self.random, index, serial, number, &head);
            message.began = self.step;
            self.messages.push(message);
            party.open.push(serial);
        }
        if party.open.is_empty() {
            return false;
        }
        let chosen = party.open[self.random.below(party.open.len())];
        let transaction = format!("t{:07}", self.transactions.len());
        let message = &mut self.messages[chosen];
        self.transactions.insert(transaction.clone(), (chosen, message.chunks.len()));
        party.wire = message.next_chunk(&party.ue.remote_uri, &party.ue.local_uri, transaction);
        party.sending = Some(chosen);
        true
    }

    /// A member reads what has arrived, checks it, and decides on its answers.
    fn hear(&mut self, index: usize) {
        self.parties[index].ue.read(&mut self.world);
        let received = std::mem::take(&mut self.parties[index].ue.received);
        for message in received {
            let party = &mut self.parties[index];
            match party.watch.hear(&party.ue.local_uri, &party.ue.remote_uri, message) {
                Heard::Send(delivery) => self.answer(index, &delivery),
                Heard::Response { transaction, status } => {
                    self.answered(index, &transaction, status);
                }
                Heard::Report { message_id, start, end, code } => {
                    let range = start as usize - 1..end as usize;
                    self.reported(index, &message_id, Report { range, code });
                }
            }
        }
    }

    fn answer(&mut self, index: usize, delivery: &Delivery) {
        let party = &mut self.parties[index];
        let status = match party.answering {
            Answering::Never => return,
            Answering::Always => 200,
            // What is given up, or wants no answer, is not worth a refusal.
            Answering::Moodily
                if delivery.length == 0 || delivery.failure_report == FailureReport::No =>
            {
                200
            }
            Answering::Moodily => match self.random.below(60) {
                0 => 481,
                1 | 2 => 413,
                3 => 400,
                _ => 200,
            },
        };
        if delivery.success_report && delivery.length > 0 && status == 200 {
            let number = self.reports_written;
            self.reports_written += 1;
            party.report(&format!("r{number:07}"), delivery);
        }
        let due = match delivery.failure_report {
            FailureReport::Yes => true,
            FailureReport::Partial => status != 200,
            FailureReport::No => false,
        };
        if !due {
            return;
        }
        party.renounced |= status == 481;
        if status != 200 {
            party.declined.insert(delivery.message_id.clone());
        }
        party.respond(&delivery.transaction, status);
    }

    /// The node has answered a chunk.
    fn answered(&mut self, index: usize, transaction: &str, status: u16) {
        let &(message, chunk) = self.transactions.get(transaction).expect("an answer to nothing");
        let message = &mut self.messages[message];
        assert_eq!(message.sender, index, "an answer to somebody else");
        match message.failure_report {
            FailureReport::Yes => {}
            FailureReport::Partial => assert_ne!(status, 200, "partial wants no 200"),
            FailureReport::No => panic!("{status} though nothing was to be answered"),
        }
        let chunk = &mut message.chunks[chunk];
        assert!(status != 200 || chunk.sent, "{transaction}: 200 before its end");
        chunk.answers.push(status);
        assert_eq!(chunk.answers.len(), 1, "{transaction} answered twice");
        // RFC 4975 section 7.2: whoever is refused stops.
        message.abandoned |= status != 200;
    }

    fn reported(&mut self, index: usize, message_id: &str, report: Report) {
        let own = |message: &&mut Message| message.sender == index && message.id == message_id;
        let message = self.messages.iter_mut().find(own).expect("a REPORT on nothing of ours");
        assert!(report.range.end <= message.cut(), "{message_id}: a REPORT on what was not sent");
        match report.code {
            200 => assert!(message.success_report, "{message_id}: success is of no interest"),
            _ => assert_ne!(message.failure_report, FailureReport::No, "{message_id}: {report:?}"),
        }
        message.abandoned |= report.code != 200;
        message.reports.push(report);
    }

    /// A member does not want to hear the rest of what it is receiving.
    fn decline(&mut self, index: usize) {
        let party = &mut self.parties[index];
        let Some(current) = party.ue.incomplete() else { return };
        if current.method.as_deref() != Some("Send")
            || current.failure_report == FailureReport::No
            || party.answering == Answering::Never
        {
            return;
        }
        let transaction = current.transaction_id.clone();
        let id = current.message_id.clone().expect("every SEND has one");
        if party.declined.insert(id) {
            party.respond(&transaction, 413);
        }
    }

    fn limit_window(&mut self, index: usize, window_bytes: usize) {
        let party = &mut self.parties[index];
        party.stalled |= window_bytes != usize::MAX;
        self.world.shard.driver_mut().peer_limit_window(party.ue.peer, window_bytes);
    }

    fn hold(&mut self, index: usize) {
        let direction = self.random.pick(&[
            Direction::SendRecv,
            Direction::SendRecv,
            Direction::SendOnly,
            Direction::RecvOnly,
            Direction::Inactive,
        ]);
        self.modify(index, direction);
    }

    fn modify(&mut self, index: usize, direction: Direction) {
        let party = &mut self.parties[index];
        if party.kicked {
            return;
        }
        party.direction = direction;
        party.modifies += 1;
        if matches!(direction, Direction::SendOnly | Direction::Inactive) {
            party.deaf.open(self.step);
        }
        if matches!(direction, Direction::RecvOnly | Direction::Inactive) {
            party.mute.open(self.step);
        }
        let modify = Modify {
            termination: TerminationId(party.termination),
            direction,
            muted: false,
            remote: None,
            psk: None,
        };
        self.world.commands.push(Command::Modify(Box::new(modify))).unwrap();
        if self.random.once_in(2) {
            self.turns(1, 0);
        }
    }

    fn kick(&mut self, index: usize) {
        let party = &mut self.parties[index];
        if !std::mem::replace(&mut party.kicked, true) {
            let termination = TerminationId(party.termination);
            self.world.commands.push(Command::Subtract { termination }).unwrap();
        }
    }

    fn break_off(&mut self, index: usize) {
        let party = &mut self.parties[index];
        if std::mem::replace(&mut party.ended, true) {
            return;
        }
        let driver = self.world.shard.driver_mut();
        match self.random.below(3) {
            0 => driver.peer_reset(party.ue.peer),
            1 => driver.peer_close(party.ue.peer),
            _ => driver.peer_shutdown_write(party.ue.peer),
        }
    }

    fn take_events(&mut self) {
        self.world.take_events();
        let new = &self.world.seen[self.events_taken..];
        self.events_taken = self.world.seen.len();
        for event in new {
            match *event {
                Event::BearerReleased { termination, cause } => {
                    self.parties[termination.0 as usize - 1].released = Some(cause);
                }
                Event::Modified { termination } | Event::Refused { termination, .. } => {
                    let party = &mut self.parties[termination.0 as usize - 1];
                    party.modifies -= 1;
                    let receives =
                        matches!(party.direction, Direction::SendRecv | Direction::RecvOnly);
                    let sends =
                        matches!(party.direction, Direction::SendRecv | Direction::SendOnly);
                    if party.modifies == 0 && receives {
                        party.deaf.close(self.step);
                    }
                    if party.modifies == 0 && sends {
                        party.mute.close(self.step);
                    }
                }
                Event::Reserved { .. }
                | Event::Bound { .. }
                | Event::Rekeyed { .. }
                | Event::RekeyingFailed { .. }
                | Event::Subtracted { .. }
                | Event::NicknameChanged { .. }
                | Event::Audited { .. }
                | Event::ConnectionPointReserved { .. }
                | Event::Resolve { .. }
                | Event::Floors { .. }
                | Event::FloorChanged { .. }
                | Event::Stopped => {}
            }
        }
    }

    /// Everybody reads, answers, and finishes what it has begun, until nothing moves any more.
    fn come_to_rest(&mut self) {
        self.closing = true;
        for index in 0..self.parties.len() {
            self.limit_window(index, usize::MAX);
        }
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            self.step += 1;
            let mut moved = false;
            for index in 0..self.parties.len() {
                self.hear(index);
                self.say(index);
                let party = &self.parties[index];
                let unsaid = party.open.iter().any(|&message| !self.messages[message].is_said());
                let silent = party.wire.is_empty() && party.responses.is_empty() && !unsaid;
                moved |= !party.ended && !silent;
            }
            self.world.settle();
            self.take_events();
            quiet = if moved { 0 } else { quiet + 1 };
            // Every timer runs out: 30 seconds for an answer, and for the next chunk.
            match quiet {
                2 => self.outlast_timers(),
                4 => return,
                _ => {}
            }
        }
        panic!("it does not come to rest");
    }

    fn outlast_timers(&mut self) {
        self.world.pass(32);
        for _ in 0..2_000 {
            self.world.shard.driver_mut().advance_ns(300_000_000);
            self.world.shard.turn().unwrap();
        }
        self.world.settle();
        self.take_events();
    }

    /// Nothing stays behind, whichever way it ends.
    fn end(&mut self, seed: u64) {
        if seed.is_multiple_of(2) {
            return self.world.subtract_all(1..=self.parties.len() as u64);
        }
        self.world.commands.push(Command::Stop).unwrap();
        for _ in 0..4_000 {
            self.world.shard.driver_mut().advance_ns(10_000_000);
            let goes_on = self.world.shard.turn().unwrap();
            self.world.take_events();
            if !goes_on {
                break;
            }
        }
        assert!(
            self.world.seen.iter().any(|event| matches!(event, Event::Stopped)),
            "never stopped"
        );
    }
}

fn policy() -> ChatRoomPolicy {
    ChatRoomPolicy {
        uris: vec![ROOM_URI.to_owned()],
        nicknames: true,
        nicknames_reserved: Vec::new(),
        private_messages: true,
        cpim: CpimPolicy::Required,
        accept_types: String::new(),
        accept_wrapped_types: String::new(),
        message_bytes_max: None,
        floors: None,
    }
}
