//! A border with shards that do as they are told.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use control_api::border::sdp::Rules;
use control_api::border::{
    Action, Border, BorderCallId, BorderConfig, Event, ExchangeId, Leg, MediaSecurity, Nat, Party,
    Refusal, Side, SideRole,
};
use control_api::mrfc::ShardDescription;
use mrfp_core::mp::{
    Command, Event as Mp, InterfaceId, RealmId, Refusal as MpRefusal, ReleaseCause,
    RemoteConnectionPoint, ReserveConnectionPoint, ShardId, TerminationId, TerminationStatistics,
};
use mrfp_protocol::tls::Fingerprint;

pub(crate) const SECOND_NS: u64 = 1_000_000_000;
pub(crate) const CALL: BorderCallId = BorderCallId(1);
pub(crate) const UE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// What a peer's or our certificate is known by, in SDP.
pub(crate) const FINGERPRINT: &str = "sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:\
    10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";

pub(crate) struct World {
    pub(crate) border: Border,
    pub(crate) now_ns: u64,
    /// What the border has asked of the shards and they have not answered.
    pub(crate) asked: VecDeque<(ShardId, Command)>,
    /// Everything else it wanted, in order.
    pub(crate) wanted: VecDeque<Action>,
    /// What is reserved, and how it was configured last.
    pub(crate) points: BTreeMap<TerminationId, Point>,
    pub(crate) stopped: BTreeSet<ShardId>,
    random: u8,
}

pub(crate) struct Point {
    pub(crate) shard: ShardId,
    pub(crate) reserved: ReserveConnectionPoint,
    pub(crate) remote: Option<RemoteConnectionPoint>,
    /// The last configuration asked for a new connection.
    pub(crate) afresh: bool,
    pub(crate) configured: usize,
}

pub(crate) fn config() -> BorderConfig {
    let shard = |id| ShardDescription {
        id: ShardId(id),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 2855)),
    };
    let side = |role, interface, nat| Side {
        role,
        interface: InterfaceId(interface),
        realm: RealmId(interface),
        nat,
        cema: true,
    };
    BorderConfig {
        shards: vec![shard(0), shard(1)],
        sides: [side(SideRole::Access, 0, Nat::Latch), side(SideRole::Core, 1, Nat::Off)],
        calls_max: 4,
        rules: Rules::default(),
        recovery: Duration::ZERO,
    }
}

pub(crate) fn access() -> Party {
    let security = MediaSecurity { msrp_tls: true, bfcp_tls: true, udptl_dtls: true };
    Party { side: SideRole::Access, signalling: Some(UE), security }
}

pub(crate) fn core() -> Party {
    Party { side: SideRole::Core, signalling: None, security: MediaSecurity::default() }
}

impl World {
    pub(crate) fn new(config: BorderConfig) -> Self {
        Self {
            border: Border::new(config),
            now_ns: 0,
            asked: VecDeque::new(),
            wanted: VecDeque::new(),
            points: BTreeMap::new(),
            stopped: BTreeSet::new(),
            random: 0,
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        let random = &mut self.random;
        let fill = &mut |bytes: &mut [u8]| {
            *random = random.wrapping_add(1);
            bytes.fill(*random);
        };
        self.border.handle(self.now_ns, fill, event);
        self.drain();
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
        self.border.handle_timeout(self.now_ns, &mut |bytes| bytes.fill(7));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.border.poll_action() {
            match action {
                Action::Command { shard, command } => {
                    assert!(!self.stopped.contains(&shard), "a shard that has stopped is asked");
                    self.asked.push_back((shard, command));
                }
                other => self.wanted.push_back(other),
            }
        }
    }

    /// Answers the command that was given first; with `refuse` the shard cannot do it.
    pub(crate) fn shard_answers(&mut self, refuse: Option<MpRefusal>) -> bool {
        let Some((shard, command)) = self.asked.pop_front() else { return false };
        let event = match command {
            Command::ReserveConnectionPoint(reserved) => {
                let termination = reserved.termination;
                match refuse {
                    Some(reason) => Mp::Refused { termination, reason },
                    None => self.reserve(shard, *reserved),
                }
            }
            Command::ConfigureConnectionPoint(configure) => {
                let termination = configure.termination;
                match refuse {
                    Some(reason) => Mp::Refused { termination, reason },
                    None => {
                        let point = self.points.get_mut(&termination).expect("reserved");
                        assert_eq!(point.shard, shard);
                        point.remote = Some(configure.remote);
                        point.afresh = configure.afresh;
                        point.configured += 1;
                        Mp::Modified { termination }
                    }
                }
            }
            Command::Subtract { termination } => {
                self.points.remove(&termination);
                let statistics = TerminationStatistics {
                    bytes_received: 10,
                    bytes_sent: 20,
                    ..TerminationStatistics::default()
                };
                Mp::Subtracted { termination, statistics }
            }
            other => panic!("{other:?} is not the border's"),
        };
        self.event(Event::Mp { shard, event });
        true
    }

    fn reserve(&mut self, shard: ShardId, reserved: ReserveConnectionPoint) -> Mp {
        let termination = reserved.termination;
        assert!(Border::owns(termination));
        let protected = reserved.bearer.is_protected();
        let address = SocketAddr::from((
            Ipv4Addr::new(203, 0, 113, reserved.interface.0 as u8 + 1),
            40_000 + (termination.0 & 0xff) as u16,
        ));
        let point = Point { shard, reserved, remote: None, afresh: false, configured: 0 };
        assert!(self.points.insert(termination, point).is_none(), "names are used once");
        let fingerprint = protected.then(|| Fingerprint::parse(FINGERPRINT).expect("valid"));
        Mp::ConnectionPointReserved { termination, address, fingerprint }
    }

    /// Until nothing is asked any more.
    pub(crate) fn shards_answer(&mut self) {
        while self.shard_answers(None) {}
    }

    pub(crate) fn begin(&mut self, call: BorderCallId, caller: Party, callee: Party) {
        self.event(Event::Begun { call, caller, callee });
    }

    /// An offer, until it goes on.
    pub(crate) fn offer(&mut self, exchange: u32, from: Leg, sdp: &str) -> Result<String, Refusal> {
        let exchange = ExchangeId(exchange);
        self.event(Event::Offer { call: CALL, exchange, from, sdp: sdp.into() });
        self.shards_answer();
        match self.wanted.pop_front() {
            Some(Action::Offer { call: CALL, exchange: told, outcome }) if told == exchange => {
                outcome.map(|sdp| String::from_utf8(sdp).expect("text"))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The answer, until it goes back.
    pub(crate) fn answer(&mut self, exchange: u32, sdp: &str) -> Result<String, Refusal> {
        let exchange = ExchangeId(exchange);
        self.event(Event::Answer { call: CALL, exchange, sdp: sdp.into() });
        self.shards_answer();
        match self.wanted.pop_front() {
            Some(Action::Answer { call: CALL, exchange: told, outcome }) if told == exchange => {
                outcome.map(|sdp| String::from_utf8(sdp).expect("text"))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The connection points on a side, oldest first.
    pub(crate) fn on(&self, side: SideRole) -> Vec<(TerminationId, &Point)> {
        let interface = InterfaceId(u16::from(side == SideRole::Core));
        let points = self.points.iter().filter(|(_, it)| it.reserved.interface == interface);
        points.map(|(termination, point)| (*termination, point)).collect()
    }

    pub(crate) fn bound(&mut self, side: SideRole) {
        let (termination, point) = self.on(side)[0];
        let shard = point.shard;
        self.event(Event::Mp { shard, event: Mp::Bound { termination } });
    }

    pub(crate) fn released(&mut self, side: SideRole, cause: ReleaseCause) {
        let (termination, point) = self.on(side)[0];
        let shard = point.shard;
        self.event(Event::Mp { shard, event: Mp::BearerReleased { termination, cause } });
    }

    /// The reason with which both legs are released.
    pub(crate) fn release(&mut self) -> Option<String> {
        match self.wanted.pop_front() {
            Some(Action::Release { call: CALL, reason }) => Some(reason),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// The front has ended the call; nothing is left of it.
    pub(crate) fn end(&mut self) {
        self.event(Event::Ended { call: CALL });
        self.shards_answer();
        assert!(self.wanted.is_empty(), "{:?}", self.wanted);
        assert!(self.border.is_empty() && self.points.is_empty());
    }
}
