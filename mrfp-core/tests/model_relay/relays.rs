//! One run from its seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mrfp_core::Limits;
use mrfp_core::mp::Command;
use mrfp_protocol::msrp::FailureReport;

use crate::common::Ue;
use crate::message::{Message, Report};
use crate::network::{DEAD, HOSTS, Network, SILENT};
use crate::oracle;
use crate::random::Random;
use crate::watch::{Delivery, Heard, Watch};
use crate::world::{KNOWN_PORT, Peer, authenticate};

/// A run in progress.
pub struct Relays {
    pub network: Network,
    pub random: Random,
    pub parties: Vec<Party>,
    pub messages: Vec<Message>,
    /// Whom each message is for.
    pub targets: Vec<Target>,
    pub tight: bool,
    step: u64,
    chosen: usize,
    transactions: BTreeMap<String, (usize, usize)>,
    reports_written: usize,
    closing: bool,
}

/// A client of a relay, or the peer outside as one of them reaches it.
pub struct Party {
    /// Its relay.
    pub relay: usize,
    pub ue: Ue,
    /// The relay's URI that leads to it; none outside.
    pub through: Option<String>,
    pub watch: Watch,
    open: Vec<usize>,
    wire: Vec<u8>,
    sending: Option<usize>,
    responses: VecDeque<Vec<u8>>,
    /// It never answers anything.
    pub silent: bool,
    /// It answers with an error now and then.
    moody: bool,
    pub ended: bool,
    /// Message-IDs it has refused.
    pub declined: BTreeSet<String>,
}

/// Whom a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Client(usize),
    Outside,
    /// Nobody listens there.
    Dead,
    /// Connections there never come about.
    Silent,
}

const STEPS: usize = 500;
const MESSAGES_OPEN_MAX: usize = 4;
const CLIENTS_PER_RELAY: usize = 2;
const ROUNDS_MAX: usize = 2_000;
const OUTSIDE_URI: &str = "msrp://192.0.2.200:7000/outside;tcp";

pub fn run(seed: u64) {
    let mut relays = Relays::begin(seed);
    for _ in 0..STEPS {
        relays.act();
    }
    relays.come_to_rest();
    oracle::judge(&relays);
    relays.end();
}

impl Relays {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let tight = random.once_in(5);
        let limits = Limits {
            egress_bytes_max: random.pick(&[8_000, 30_000, 1 << 20]),
            send_buffers_small_max: if tight { 60 } else { 4_000 },
            send_buffers_large_max: if tight { 30 } else { 2_000 },
            carry_buffers_max: if tight { 32 } else { 200 },
            ..Limits::default()
        };
        let mut network = Network::new(seed, &mut random, limits);
        let mut parties = Vec::new();
        for (relay, host) in HOSTS.iter().enumerate() {
            for number in 0..CLIENTS_PER_RELAY {
                let uri = format!("msrp://client.example:9/{relay}{number};tcp");
                let world = &mut network.worlds[relay];
                let mut peer = Peer::connect(world, KNOWN_PORT);
                let user = ["alice", "bob"][number];
                let to = format!("msrp://{host};tcp");
                let through = authenticate(world, &mut peer, user, &to, &uri);
                let mut ue = world.ue(0, KNOWN_PORT.parse().unwrap(), None, peer.id);
                ue.local_uri = uri;
                parties.push(Party::new(relay, ue, Some(through), &mut random));
            }
        }
        Self {
            network,
            random,
            parties,
            messages: Vec::new(),
            targets: Vec::new(),
            tight,
            step: 0,
            chosen: 0,
            transactions: BTreeMap::new(),
            reports_written: 0,
            closing: false,
        }
    }

    fn act(&mut self) {
        self.step += 1;
        self.adopt_outside();
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
            25 if self.random.once_in(20) => self.break_off(index),
            26 if self.random.once_in(20) => self.network.cut(),
            27 if self.random.once_in(4) => (0..20).for_each(|_| self.network.turn(30_000_000)),
            _ => {
                let count = 1 + self.random.below(4);
                let step_ns = self.random.pick(&[0, 1_000_000, 20_000_000]);
                (0..count).for_each(|_| self.network.turn(step_ns));
            }
        }
    }

    /// A relay has connected to the peer outside.
    fn adopt_outside(&mut self) {
        for (relay, mut ue) in std::mem::take(&mut self.network.outside) {
            ue.local_uri = OUTSIDE_URI.to_owned();
            self.parties.push(Party::new(relay, ue, None, &mut self.random));
        }
    }

    fn say(&mut self, index: usize) {
        let party = &self.parties[index];
        if party.ended || party.wire.is_empty() && !self.next_on_the_wire(index) {
            return;
        }
        let party = &mut self.parties[index];
        let most = self.random.pick(&[50, 1_000, 10_000, 100_000]).min(party.wire.len());
        let count = 1 + self.random.below(most);
        let part: Vec<u8> = party.wire.drain(..count).collect();
        party.ue.send_raw(&mut self.network.worlds[party.relay], &part);
        if party.wire.is_empty()
            && let Some(message) = party.sending.take()
        {
            self.messages[message].chunks.last_mut().expect("being sent").sent = true;
        }
    }

    fn next_on_the_wire(&mut self, index: usize) -> bool {
        let party = &mut self.parties[index];
        if let Some(response) = party.responses.pop_front() {
            party.wire = response;
            return true;
        }
        party.open.retain(|&message| !self.messages[message].is_said());
        let more = party.open.len() < MESSAGES_OPEN_MAX;
        let begins = more && (party.open.is_empty() || self.random.once_in(3));
        if !self.closing && begins && party.through.is_some() {
            let serial = self.messages.len();
            let mut message = Message::draw(&mut self.random, index, serial, serial, "");
            message.began = self.step;
            let target = self.random.below(12);
            self.targets.push(match target {
                0 => Target::Dead,
                1 => Target::Silent,
                2 => Target::Outside,
                other => {
                    let clients = HOSTS.len() * CLIENTS_PER_RELAY;
                    let far = index + 1 + other % (clients - 1);
                    Target::Client(far % clients)
                }
            });
            self.messages.push(message);
            self.parties[index].open.push(serial);
        }
        let party = &self.parties[index];
        if party.open.is_empty() {
            return false;
        }
        let chosen = party.open[self.random.below(party.open.len())];
        let to = self.to_path(index, self.targets[chosen]);
        let from = party.ue.local_uri.clone();
        let transaction = format!("t{:07}", self.transactions.len());
        let message = &mut self.messages[chosen];
        self.transactions.insert(transaction.clone(), (chosen, message.chunks.len()));
        let party = &mut self.parties[index];
        party.wire = message.next_chunk(&to, &from, transaction);
        party.sending = Some(chosen);
        true
    }

    /// Through the sender's relay and, where it has one, the receiver's.
    fn to_path(&self, sender: usize, target: Target) -> String {
        let through = self.parties[sender].through.as_deref().expect("a client");
        match target {
            Target::Client(index) => {
                let party = &self.parties[index];
                let theirs = party.through.as_deref().expect("a client");
                format!("{through} {theirs} {}", party.ue.local_uri)
            }
            Target::Outside => format!("{through} {OUTSIDE_URI}"),
            Target::Dead => format!("{through} msrp://{DEAD}/dead;tcp"),
            Target::Silent => format!("{through} msrp://{SILENT}/silent;tcp"),
        }
    }

    /// The path a message has come by.
    fn path_of(&self, serial: usize, receiver: usize) -> String {
        let sender = &self.parties[self.messages[serial].sender];
        let through = sender.through.as_deref().expect("a client");
        let theirs = self.parties[receiver].through.as_ref();
        let first = theirs.map_or(String::new(), |theirs| format!("{theirs} "));
        format!("{first}{through} {}", sender.ue.local_uri)
    }

    fn hear(&mut self, index: usize) {
        let relay = self.parties[index].relay;
        self.parties[index].ue.read(&mut self.network.worlds[relay]);
        let received = std::mem::take(&mut self.parties[index].ue.received);
        for message in received {
            let from = message.from_path.clone();
            let party = &mut self.parties[index];
            let to = party.ue.local_uri.clone();
            // The peer outside may be reached anew where it has broken off, and what was refused may
            // be followed by what its sender had said before it heard.
            party.watch.broken = self.network.cut
                || self.tight
                || party.through.is_none()
                || !party.declined.is_empty();
            match party.watch.hear(&to, &from, message) {
                Heard::Send(delivery) => {
                    let serial = serial(&delivery.message_id);
                    assert_eq!(from, self.path_of(serial, index), "From-Path");
                    self.answer(index, &from, &delivery);
                }
                Heard::Response { transaction, status } => {
                    assert_eq!(Some(from), party.through, "an answer comes from the next hop");
                    self.answered(index, &transaction, status);
                }
                Heard::Report { message_id, start, end, code } => {
                    let through = party.through.as_deref().expect("nobody else sends");
                    assert!(from.starts_with(through), "{from}");
                    let range = start as usize - 1..end as usize;
                    self.reported(index, &message_id, Report { range, code });
                }
            }
        }
    }

    fn answer(&mut self, index: usize, from: &str, delivery: &Delivery) {
        let party = &mut self.parties[index];
        if party.silent {
            return;
        }
        let wants_error = delivery.failure_report != FailureReport::No && delivery.length > 0;
        let status = match self.random.below(40) {
            0 if party.moody && wants_error => 413,
            1 if party.moody && wants_error => 400,
            _ => 200,
        };
        if delivery.success_report && delivery.length > 0 && status == 200 {
            let number = self.reports_written;
            self.reports_written += 1;
            party.report(&format!("r{number:07}"), from, delivery);
        }
        if status != 200 {
            party.declined.insert(delivery.message_id.clone());
        }
        let due = match delivery.failure_report {
            FailureReport::Yes => true,
            FailureReport::Partial => status != 200,
            FailureReport::No => false,
        };
        if due {
            party.respond(&delivery.transaction, from, status);
        }
    }

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
        message.abandoned |= status != 200;
    }

    fn reported(&mut self, index: usize, message_id: &str, report: Report) {
        let message = &mut self.messages[serial(message_id)];
        assert_eq!(message.sender, index, "a REPORT on somebody else's message");
        assert!(report.range.end <= message.cut(), "{message_id}: a REPORT on what was not sent");
        match report.code {
            200 => assert!(message.success_report, "{message_id}: success is of no interest"),
            _ => assert_ne!(message.failure_report, FailureReport::No, "{message_id}: {report:?}"),
        }
        message.abandoned |= report.code != 200;
        message.reports.push(report);
    }

    fn limit_window(&mut self, index: usize, window_bytes: usize) {
        let party = &self.parties[index];
        let driver = self.network.worlds[party.relay].shard.driver_mut();
        driver.peer_limit_window(party.ue.peer, window_bytes);
    }

    fn break_off(&mut self, index: usize) {
        let party = &mut self.parties[index];
        if std::mem::replace(&mut party.ended, true) {
            return;
        }
        let driver = self.network.worlds[party.relay].shard.driver_mut();
        match self.random.once_in(2) {
            true => driver.peer_reset(party.ue.peer),
            false => driver.peer_close(party.ue.peer),
        }
    }

    fn come_to_rest(&mut self) {
        self.closing = true;
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            self.step += 1;
            self.adopt_outside();
            let mut moved = false;
            for index in 0..self.parties.len() {
                self.limit_window(index, usize::MAX);
                self.hear(index);
                // Many a chunk is cut small, and each piece has an answer and a report.
                (0..20).for_each(|_| self.say(index));
                let party = &self.parties[index];
                let unsaid = party.open.iter().any(|&message| !self.messages[message].is_said());
                let silent = party.wire.is_empty() && party.responses.is_empty() && !unsaid;
                moved |= !party.ended && !silent;
            }
            self.network.settle();
            quiet = if moved { 0 } else { quiet + 1 };
            match quiet {
                // Every timer runs out, hop after hop.
                10 | 20 => self.network.pass(70),
                30 => return,
                _ => {}
            }
        }
        panic!("it does not come to rest");
    }

    /// Everybody goes; nothing stays behind.
    fn end(&mut self) {
        for party in self.parties.iter().filter(|party| !party.ended) {
            let driver = self.network.worlds[party.relay].shard.driver_mut();
            driver.peer_close(party.ue.peer);
        }
        self.network.cut();
        self.network.pass(400);
        self.adopt_outside();
        for party in &self.parties {
            let driver = self.network.worlds[party.relay].shard.driver_mut();
            driver.peer_close(party.ue.peer);
        }
        self.network.cut();
        self.network.pass(400);
        for world in &mut self.network.worlds {
            let metrics = world.measure();
            assert_eq!(metrics.relay_registrations, 0);
            assert_eq!(metrics.relay_routes, 0);
            assert_eq!(metrics.send_buffers_outstanding, 0);
            assert_eq!(metrics.carry_buffers_outstanding, 0);
            assert_eq!(metrics.connections, 0);
            world.commands.push(Command::Stop).unwrap();
            for _ in 0..10_000 {
                world.shard.driver_mut().advance_ns(25_000_000);
                if !world.shard.turn().unwrap() {
                    break;
                }
            }
        }
    }
}

impl Party {
    fn new(relay: usize, ue: Ue, through: Option<String>, random: &mut Random) -> Self {
        Self {
            relay,
            ue,
            through,
            watch: Watch::default(),
            open: Vec::new(),
            wire: Vec::new(),
            sending: None,
            responses: VecDeque::new(),
            silent: random.once_in(8),
            moody: random.once_in(4),
            ended: false,
            declined: BTreeSet::new(),
        }
    }

    /// RFC 4975 section 7.2: to the first URI of the From-Path only.
    fn respond(&mut self, transaction: &str, from: &str, status: u16) {
        let to = from.split(' ').next().expect("a path is not empty");
        let own = &self.ue.local_uri;
        let response = format!(
            "MSRP {transaction} {status} -\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\n\
             -------{transaction}$\r\n"
        );
        self.responses.push_back(response.into_bytes());
    }

    fn report(&mut self, transaction: &str, from: &str, delivery: &Delivery) {
        let own = &self.ue.local_uri;
        let end = delivery.start + delivery.length - 1;
        let report = format!(
            "MSRP {transaction} REPORT\r\nTo-Path: {from}\r\nFrom-Path: {own}\r\n\
             Message-ID: {}\r\nByte-Range: {}-{end}/*\r\nStatus: 000 200 OK\r\n\
             -------{transaction}$\r\n",
            delivery.message_id, delivery.start
        );
        self.responses.push_back(report.into_bytes());
    }
}

/// The number in a Message-ID: the relay leaves it as it is.
pub fn serial(message_id: &str) -> usize {
    message_id.strip_prefix("message-").expect("a Message-ID of ours").parse().unwrap()
}
