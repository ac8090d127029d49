//! Random event sequences: nothing panics, every offer and every answer gets exactly one word back, the
//! shards are asked only for what they have, and nothing is left at the end.

mod border_shards;

use std::collections::BTreeMap;

use border_shards::*;
use control_api::border::{Action, BorderCallId, Event, ExchangeId, Leg};
use mrfp_core::mp::{Event as Mp, Refusal, ReleaseCause, ShardId};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Begin { from_access: bool },
    Offer { call: u64, from_caller: bool, lines: u8, version: u32 },
    Answer { call: u64, lines: u8, version: u32 },
    Withdraw { call: u64 },
    End { call: u64 },
    ShardAnswers { refuse: bool },
    ShardReleases { point: usize, cause: u8 },
    ShardStops { shard: u16 },
    Wait { seconds: u64 },
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<bool>().prop_map(|from_access| Step::Begin { from_access }),
        8 => (1..12u64, any::<bool>(), 0..32u8, 1..4u32).prop_map(
            |(call, from_caller, lines, version)| Step::Offer { call, from_caller, lines, version }
        ),
        8 => (1..12u64, 0..32u8, 1..4u32)
            .prop_map(|(call, lines, version)| Step::Answer { call, lines, version }),
        2 => (1..12u64).prop_map(|call| Step::Withdraw { call }),
        3 => (1..12u64).prop_map(|call| Step::End { call }),
        20 => prop::bool::weighted(0.1).prop_map(|refuse| Step::ShardAnswers { refuse }),
        3 => (0..20usize, 0..4u8).prop_map(|(point, cause)| Step::ShardReleases { point, cause }),
        1 => (0..2u16).prop_map(|shard| Step::ShardStops { shard }),
        2 => (0..8u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Shutdown),
    ]
}

/// Three m-lines, each of which may be there, switched off or protected.
fn description(lines: u8, version: u32) -> String {
    let port = |bit: u8, port: u16| if lines & bit == 0 { 0 } else { port + version as u16 };
    let (tls, scheme, security) = if lines & 8 == 0 {
        ("", "msrp", String::new())
    } else {
        ("TLS/", "msrps", format!("a=3ge2ae:requested\r\na=fingerprint:{FINGERPRINT}\r\n"))
    };
    let (t38, fax) = if lines & 16 == 0 { ("udptl", "") } else { ("UDP/TLS/UDPTL", &*security) };
    format!(
        "v=0\r\no=- 1 {version} IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
         m=message {message} TCP/{tls}MSRP *\r\na=setup:actpass\r\na=accept-types:*\r\n\
         a=path:{scheme}://192.0.2.9:{message}/session{version};tcp\r\n{security}\
         m=application {floor} TCP/{tls}BFCP *\r\na=setup:actpass\r\na=connection:new\r\n\
         a=floorctrl:c-s\r\n{security}m=image {image} {t38} t38\r\na=setup:actpass\r\n{fax}",
        message = port(1, 40_000),
        floor = port(2, 41_000),
        image = port(4, 42_000),
    )
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Offer,
    Answer,
}

struct Model {
    world: World,
    calls: BTreeMap<BorderCallId, u32>,
    due: BTreeMap<(BorderCallId, ExchangeId, Due), usize>,
    released: Vec<BorderCallId>,
    last_call: u64,
    drained: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            world: World::new(config()),
            calls: BTreeMap::new(),
            due: BTreeMap::new(),
            released: Vec::new(),
            last_call: 0,
            drained: 0,
        }
    }

    fn event(&mut self, event: Event) {
        self.world.event(event);
        self.look();
    }

    fn look(&mut self) {
        while let Some(action) = self.world.wanted.pop_front() {
            match action {
                Action::Offer { call, exchange, .. } => self.answered(call, exchange, Due::Offer),
                Action::Answer { call, exchange, .. } => self.answered(call, exchange, Due::Answer),
                Action::Release { call, .. } => {
                    assert!(self.calls.contains_key(&call), "it is there");
                    assert!(!self.released.contains(&call), "released once");
                    self.released.push(call);
                }
                Action::Drained => self.drained += 1,
                Action::Command { .. } => unreachable!("the world takes them"),
            }
        }
    }

    fn answered(&mut self, call: BorderCallId, exchange: ExchangeId, due: Due) {
        let left = self.due.get_mut(&(call, exchange, due)).expect("it was due");
        *left = left.checked_sub(1).expect("one answer each");
    }

    fn take(&mut self, step: &Step) {
        let known = |call: u64| BorderCallId(call);
        match *step {
            Step::Begin { from_access } => {
                self.last_call += 1;
                let call = BorderCallId(self.last_call);
                self.calls.insert(call, 0);
                let (caller, callee) =
                    if from_access { (access(), core()) } else { (core(), access()) };
                self.event(Event::Begun { call, caller, callee });
            }
            Step::Offer { call, from_caller, lines, version } => {
                let call = known(call);
                let Some(last) = self.calls.get_mut(&call) else { return };
                *last += 1;
                let exchange = ExchangeId(*last);
                *self.due.entry((call, exchange, Due::Offer)).or_insert(0) += 1;
                let from = if from_caller { Leg::Caller } else { Leg::Callee };
                let sdp = description(lines, version).into();
                self.event(Event::Offer { call, exchange, from, sdp });
            }
            Step::Answer { call, lines, version } => {
                let call = known(call);
                let Some(last) = self.calls.get(&call) else { return };
                let exchange = ExchangeId(*last);
                *self.due.entry((call, exchange, Due::Answer)).or_insert(0) += 1;
                let sdp = description(lines, version).replace("setup:actpass", "setup:passive");
                self.event(Event::Answer { call, exchange, sdp: sdp.into() });
            }
            Step::Withdraw { call } => {
                let Some(last) = self.calls.get(&known(call)) else { return };
                let exchange = ExchangeId(*last);
                self.event(Event::Withdrawn { call: known(call), exchange });
            }
            Step::End { call } => self.end(known(call)),
            Step::ShardAnswers { refuse } => {
                // What was subtracted cannot be refused.
                let refuse = refuse.then_some(Refusal::Transport);
                self.world.shard_answers(refuse);
                self.look();
            }
            Step::ShardReleases { point, cause } => {
                let Some((termination, at)) = self.world.points.iter().nth(point) else { return };
                let (termination, shard) = (*termination, at.shard);
                let causes = [
                    ReleaseCause::PeerClosed,
                    ReleaseCause::ConnectionLost,
                    ReleaseCause::PeerNotAuthenticated,
                ];
                let event = match causes.get(usize::from(cause)) {
                    Some(cause) => Mp::BearerReleased { termination, cause: *cause },
                    None => Mp::Bound { termination },
                };
                self.event(Event::Mp { shard, event });
            }
            Step::ShardStops { shard } => {
                let shard = ShardId(shard);
                if self.world.stopped.insert(shard) {
                    self.world.asked.retain(|(to, _)| *to != shard);
                    self.world.points.retain(|_, point| point.shard != shard);
                    self.event(Event::Mp { shard, event: Mp::Stopped });
                }
            }
            Step::Wait { seconds } => {
                self.world.wait(seconds);
                self.look();
            }
            Step::Shutdown => self.event(Event::Shutdown),
        }
    }

    fn end(&mut self, call: BorderCallId) {
        if self.calls.remove(&call).is_some() {
            // Nothing is due any more.
            self.due.retain(|(of, _, _), _| *of != call);
            self.event(Event::Ended { call });
        }
    }

    /// The shards answer everything, the front ends everything.
    fn finish(mut self) {
        while self.world.shard_answers(None) {
            self.look();
        }
        self.look();
        assert!(self.due.values().all(|left| *left == 0), "{:?}", self.due);
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            self.end(call);
        }
        while self.world.shard_answers(None) {
            self.look();
        }
        assert!(self.world.points.is_empty());
        self.world.wait(60);
        assert!(self.world.border.is_empty());
        self.event(Event::Shutdown);
        assert_eq!(self.drained, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_answered_twice_and_nothing_is_left(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
        model.finish();
    }
}
