//! MSRP traffic per realm and room: since the beginning, and in the last whole window.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use mrfp_core::Port;
use mrfp_core::mp::{ContextId, ContextStatistics, RealmId, ShardId, Traffic};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::http::{RealmStatistics, RoomStatistics};

/// What is remembered to tell windows from lifetimes.
pub(super) struct Windows {
    length: Duration,
    /// Names of the realms, by number.
    realm_names: Vec<String>,
    begun: Instant,
    /// Every realm when the window began, and what the one before it had.
    realms: Vec<(Traffic, Option<Traffic>)>,
    rooms: HashMap<ContextId, RoomWindow>,
    /// Rooms to look at for the new window.
    due: VecDeque<(ShardId, ContextId)>,
    /// Who waits for a look at a room.
    asked: HashMap<ContextId, Vec<oneshot::Sender<Option<RoomStatistics>>>>,
}

#[derive(Clone, Copy)]
struct RoomWindow {
    at_begin: ContextStatistics,
    last: Option<ContextStatistics>,
}

impl Windows {
    pub(super) fn new(length: Duration, realm_names: Vec<String>) -> Self {
        Self {
            length,
            realms: vec![(Traffic::default(), None); realm_names.len()],
            realm_names,
            begun: Instant::now(),
            rooms: HashMap::new(),
            due: VecDeque::new(),
            asked: HashMap::new(),
        }
    }

    /// Begins a new window where the old one is over; `rooms` are those that exist.
    pub(super) fn turn(
        &mut self,
        ports: &[Port],
        rooms: impl Iterator<Item = (ShardId, ContextId)>,
    ) {
        if self.begun.elapsed() < self.length {
            return;
        }
        self.begun = Instant::now();
        for (number, (at_begin, last)) in (0..).zip(&mut self.realms) {
            let now = lifetime(ports, RealmId(number));
            *last = Some(now.since(*at_begin));
            *at_begin = now;
        }
        self.due = rooms.collect();
        let exist: HashSet<_> = self.due.iter().map(|&(_, context)| context).collect();
        self.rooms.retain(|context, _| exist.contains(context));
    }

    /// The next rooms to audit, a few at a time so that calls never wait for them.
    pub(super) fn due(&mut self) -> impl Iterator<Item = (ShardId, ContextId)> + '_ {
        let count = self.due.len().min(AUDITS_PER_TURN_MAX);
        self.due.drain(..count)
    }

    pub(super) fn realms(&self, ports: &[Port]) -> (u64, Vec<RealmStatistics>) {
        let realm = |(number, name): (u16, &String)| RealmStatistics {
            realm: name.clone(),
            lifetime: lifetime(ports, RealmId(number)),
            window: self.realms[usize::from(number)].1,
        };
        (self.length.as_secs(), (0..).zip(&self.realm_names).map(realm).collect())
    }

    /// Somebody waits for the audit of a room. True: it has to be asked for.
    pub(super) fn ask(
        &mut self,
        context: ContextId,
        reply: oneshot::Sender<Option<RoomStatistics>>,
    ) -> bool {
        let waiting = self.asked.entry(context).or_default();
        waiting.push(reply);
        waiting.len() == 1
    }

    /// A shard has answered.
    pub(super) fn audited(&mut self, context: ContextId, now: Option<ContextStatistics>) {
        if let Some(waiting) = self.asked.remove(&context) {
            let window = self.rooms.get(&context).and_then(|room| room.last);
            let window_seconds = self.length.as_secs();
            let answer = now.map(|lifetime| RoomStatistics { lifetime, window, window_seconds });
            for reply in waiting {
                // Who asked may have gone meanwhile.
                let _ = reply.send(answer);
            }
            return;
        }
        let Some(now) = now else { return };
        let room = match self.rooms.get(&context) {
            Some(before) => RoomWindow { at_begin: now, last: Some(now.since(before.at_begin)) },
            None => RoomWindow { at_begin: now, last: None },
        };
        self.rooms.insert(context, room);
    }

    /// A shard has ended: nobody will answer for its rooms.
    pub(super) fn forget_questions(&mut self) {
        self.asked.clear();
        self.due.clear();
    }
}

/// What a realm has carried on all shards.
fn lifetime(ports: &[Port], realm: RealmId) -> Traffic {
    ports.iter().fold(Traffic::default(), |sum, port| sum.plus(port.metrics().realm(realm)))
}

/// Rooms audited at a time.
const AUDITS_PER_TURN_MAX: usize = 128;
