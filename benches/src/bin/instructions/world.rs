//! A shard on the simulated network, and the phones that use it.

use std::sync::Arc;

use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::mp::{
    ChatRoomPolicy, Command, ContextId, CpimPolicy, Direction, Event, Member, RealmId,
    ReserveAndConfigure, Security, Setup, Switching, TerminationId,
};
use mrfp_core::{Limits, Psk, RelayParts, Shard, ShardParts};
use mrfp_io::{Consumer, Driver, Faults, Producer, Simulator, SimulatorConfig, doorbell, queue};
use mrfp_protocol::tls::{Handshake, Profile, ProfileConfig};

use crate::boundary::Boundary;
use crate::counted;
use crate::phone::{Phone, Say};

pub(crate) const ROOM: &str = "sip:room@example.com";
/// What a turn takes, roughly; so that timers run as often as they would.
const TURN_NS: u64 = 200_000;
/// Messages of each talking phone before anything is counted.
const WARM_UP_MESSAGES: usize = 64;

/// What the members of a Context have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Two parties, everything passes as it comes.
    Transparent,
    /// A chat room whose messages carry CPIM.
    Wrapped,
}

pub(crate) struct World {
    shard: Shard<Boundary>,
    commands: Producer<Command>,
    events: Consumer<Event>,
    profile: Profile,
    protected: bool,
    pub(crate) phones: Vec<Phone>,
}

pub(crate) fn user(number: u64) -> String {
    format!("sip:user{number}@example.com")
}

impl World {
    /// With a TLS suite all phones use, or in the clear.
    pub(crate) fn new(suite: Option<&str>) -> Self {
        let config = ProfileConfig {
            suites: suite.map_or_else(|| ProfileConfig::default().suites, |it| vec![it.to_owned()]),
            tls13: false,
        };
        let profile = Profile::new(&config).expect("a suite OpenSSL has");
        Self::with(profile, suite.is_some(), None)
    }

    pub(crate) fn with(profile: Profile, protected: bool, relay: Option<RelayParts>) -> Self {
        let (commands, shard_commands) = queue(64);
        let (shard_events, events) = queue(4096);
        let parts = ShardParts {
            limits: Limits::default(),
            profile: profile.clone(),
            listen: "127.0.0.1:2855".parse().expect("an address"),
            advertise: None,
            relay,
            gateway: None,
            seed: [7; 32],
            commands: shard_commands,
            events: shard_events,
            doorbell: doorbell().expect("a descriptor").0,
            metrics: Arc::new(PublishedMetrics::default()),
        };
        let config = SimulatorConfig {
            faults: Faults::NONE,
            recv_buffer_count: 2_048,
            ..SimulatorConfig::default()
        };
        let simulator = Boundary(Simulator::with_config(0, config));
        let shard = Shard::new(simulator, parts).expect("a shard");
        Self { shard, commands, events, profile, protected, phones: Vec::new() }
    }

    /// A member that has connected, secured itself and bound its session.
    pub(crate) fn join(&mut self, context: u64, number: u64, talk: Talk) {
        let local = format!("msrp://192.0.2.1:9/ue-{number};tcp");
        let psk = Psk::new(vec![0x5a; 16]).expect("long enough");
        let identity = format!("{number:08x}.1").into_bytes();
        let handshake = self
            .protected
            .then(|| Handshake::client(&self.profile, &identity, &psk).expect("a client"));
        let security = match self.protected {
            true => Security::TlsPsk { identity, psk },
            false => Security::Plain,
        };
        let reserve = ReserveAndConfigure {
            context: ContextId(context),
            switching: switching(talk),
            termination: TerminationId(number),
            security,
            setup: Setup::Passive,
            session_id: format!("session-{number:016}"),
            remote_path: Some(local.clone()),
            member: Member { uris: vec![user(number)], private_messages: true, muted: false },
            realm: RealmId::default(),
            file_transfer: false,
            accept_types: Say::pair(talk).content_type.into(),
            accept_wrapped_types: "*".into(),
            direction: Direction::SendRecv,
            max_size_bytes: None,
            own_port: false,
        };
        assert!(self.commands.push(Command::ReserveAndConfigure(Box::new(reserve))).is_ok());
        self.settle();
        let address = std::iter::from_fn(|| self.events.pop())
            .find_map(|event| match event {
                Event::Reserved { address, .. } => Some(address),
                _ => None,
            })
            .expect("reserved");
        let scheme = if self.protected { "msrps" } else { "msrp" };
        let remote = format!("{scheme}://{address}/session-{number:016};tcp");
        let peer = self.shard.driver_mut().0.peer_connect(address);
        let mut phone = Phone::new(number, peer, (remote, local), handshake);
        while {
            phone.read(self.shard.driver_mut());
            !phone.is_secured()
        } {
            self.settle();
        }
        let bind = format!(
            "MSRP bind0001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: bind{number}\r\n\
             Byte-Range: 1-0/0\r\n-------bind0001$\r\n",
            phone.remote, phone.local
        );
        phone.send(self.shard.driver_mut(), bind.as_bytes());
        self.settle();
        phone.read(self.shard.driver_mut());
        let bound = std::iter::from_fn(|| self.events.pop())
            .any(|event| matches!(event, Event::Bound { .. }));
        assert!(bound, "the binding request has been understood");
        self.phones.push(phone);
    }

    /// A peer that has connected to some port, in the clear.
    pub(crate) fn connect(&mut self, number: u64, port: &str, paths: (String, String)) {
        let address = port.parse().expect("an address");
        let peer = self.shard.driver_mut().0.peer_connect(address);
        self.phones.push(Phone::new(number, peer, paths, None));
    }

    /// A phone says something and reads the answer; the header lines of that.
    pub(crate) fn ask(&mut self, phone: usize, request: &str) -> String {
        self.phones[phone].send(self.shard.driver_mut(), request.as_bytes());
        self.settle();
        self.phones[phone].read(self.shard.driver_mut());
        std::mem::take(&mut self.phones[phone].last_head)
    }

    /// Makes a phone one that talks.
    pub(crate) fn say(&mut self, number: u64, say: Say) {
        let phone = self.phones.iter_mut().find(|phone| phone.number == number);
        phone.expect("it has joined").will_say(say);
    }

    /// Every talking phone says so many messages, in a loop closed by their answers.
    pub(crate) fn measure(&mut self, messages: usize) {
        self.exchange(WARM_UP_MESSAGES);
        let heard = |phones: &[Phone]| phones.iter().map(|phone| phone.heard).sum::<usize>();
        let before = heard(&self.phones);
        counted::from_here();
        self.exchange(messages);
        assert!(heard(&self.phones) - before >= messages, "everybody has been heard");
    }

    fn exchange(&mut self, messages: usize) {
        self.phones.iter_mut().for_each(|phone| phone.grant(messages));
        loop {
            let driver = self.shard.driver_mut();
            self.phones.iter_mut().for_each(|phone| phone.speak(driver));
            // What they have sent arrives in one turn.
            driver.0.advance_ns(TURN_NS);
            driver.0.wait(None).expect("a step");
            counted::turn(&mut self.shard);
            let driver = self.shard.driver_mut();
            self.phones.iter_mut().for_each(|phone| phone.read(driver));
            if self.phones.iter().all(Phone::is_done) && driver.0.is_idle() {
                return;
            }
        }
    }

    pub(crate) fn settle(&mut self) {
        loop {
            counted::turn(&mut self.shard);
            if self.shard.driver_mut().0.is_idle() {
                return;
            }
        }
    }
}

fn switching(talk: Talk) -> Switching {
    match talk {
        Talk::Transparent => Switching::TwoParty,
        Talk::Wrapped => Switching::ChatRoom(Box::new(ChatRoomPolicy {
            uris: vec![ROOM.into()],
            nicknames: true,
            nicknames_reserved: Vec::new(),
            private_messages: true,
            cpim: CpimPolicy::Wrap,
            accept_types: String::new(),
            accept_wrapped_types: String::new(),
            message_bytes_max: None,
            floors: None,
        })),
    }
}
