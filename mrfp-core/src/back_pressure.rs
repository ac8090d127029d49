//! Who is held back, and who is dropped, when bytes come faster than they leave: receivers that lag
//! pause the senders of their Contexts, and a shard short of buffers holds every sender back.

use mrfp_io::{Key, SendBuffers};

use crate::config::{
    EVENTS_WAITING_MAX, MESSAGES_MAX, OUTSTANDING_MAX, PRESSED_STALL_NS, SLOW_MEMBER_GRACE_FACTOR,
};
use crate::connection::{Connection, Life, Spoken};
use crate::mp::ReleaseCause;
use crate::plane::{Ending, Plane};
use crate::table::Table;
use crate::termination::{Stage, Termination};

impl Plane {
    /// The egress of a connection has grown: whoever feeds it is held back once it is too long.
    pub(crate) fn check_egress(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.relay.is_some() {
            return self.relay_check_egress(key);
        }
        if let Some(point) = connection.point() {
            return self.gateway_check_egress(key, point);
        }
        let keeps_up = connection.egress.bytes() <= self.limits.egress_bytes_max
            && connection.outstanding.len() <= OUTSTANDING_MAX;
        if keeps_up || connection.lagging_since_ns.is_some() {
            return;
        }
        if connection.life != Life::Open {
            // Nobody has vouched for it, and it reads no answers.
            return self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
        connection.lagging_since_ns = Some(self.now_ns);
        self.lagging.push(key);
        if connection.spoken == Spoken::Bfcp {
            // What it asks for is what it does not read; nobody else waits for it.
            connection.paused += 1;
            self.metrics.recv_paused += 1;
            return self.mark(key);
        }
        for context_key in contexts_of(connection, &self.terminations) {
            if let Some(context) = self.contexts.get_mut(context_key) {
                context.lagging += 1;
            }
        }
    }

    /// Reads nothing more from a connection until nobody lags in this Context.
    pub(crate) fn pause(&mut self, key: Key, context_key: Key) {
        if self.is_waited_for(key, context_key) {
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(context) = self.contexts.get_mut(context_key) else { return };
        let is_paused = connection.paused > 0
            && (connection.only_session().is_some() || context.paused.contains(&key));
        if is_paused || connection.life != Life::Open {
            return;
        }
        connection.paused += 1;
        context.paused.push(key);
        self.metrics.recv_paused += 1;
        self.mark(key);
    }

    /// Something has left a connection, or was answered: if it lagged and has caught up, those that
    /// were held back go on.
    pub(crate) fn relax(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.relay.is_some() {
            return self.relay_drained(key);
        }
        if connection.egress.bytes() <= self.limits.egress_bytes_max / 2
            && connection.outstanding.len() <= OUTSTANDING_MAX / 2
        {
            self.catch_up(key);
        }
        self.settle_former(key);
    }

    /// A connection lags no more, or is ending.
    pub(crate) fn catch_up(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.lagging_since_ns.take().is_none() {
            return;
        }
        self.lagging.retain(|&lagging| lagging != key);
        if let Some(point) = connection.point() {
            return self.regulate_other(point);
        }
        if connection.spoken == Spoken::Bfcp {
            connection.paused -= 1;
            let session = connection.only_session();
            self.mark(key);
            return session.into_iter().for_each(|it| self.floor_control_caught_up(it));
        }
        let mut index = 0;
        while let Some(&session) =
            self.connections.get(key).and_then(|connection| connection.sessions.get(index))
        {
            index += 1;
            let bound = self.terminations.get(session).filter(|t| t.stage == Stage::Bound);
            if let Some(context_key) = bound.map(|termination| termination.context) {
                self.caught_up_in(context_key);
            }
        }
    }

    /// A session leaves its Context: nobody waits for its connection there any more, and the
    /// connection waits for nobody there.
    pub(crate) fn settle_back_pressure(&mut self, key: Key, session: Key, context_key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let lags = connection.lagging_since_ns.is_some();
        let stays = connection.sessions.iter().any(|&other| {
            other != session
                && self.terminations.get(other).is_some_and(|other| {
                    other.stage == Stage::Bound && other.context == context_key
                })
        });
        if connection.paused > 0
            && !stays
            && let Some(context) = self.contexts.get_mut(context_key)
            && let Some(at) = context.paused.iter().position(|&paused| paused == key)
        {
            context.paused.swap_remove(at);
            connection.paused -= 1;
            self.mark(key);
        }
        if lags {
            self.caught_up_in(context_key);
        }
    }

    /// One laggard fewer in a Context; after the last its senders go on.
    fn caught_up_in(&mut self, context_key: Key) {
        let Some(context) = self.contexts.get_mut(context_key) else { return };
        context.lagging -= 1;
        if context.lagging > 0 {
            return self.resume_waited_for(context_key);
        }
        let mut paused = std::mem::take(&mut context.paused);
        for &key in &paused {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.paused -= 1;
            }
            self.mark(key);
        }
        paused.clear();
        if let Some(context) = self.contexts.get_mut(context_key) {
            context.paused = paused;
        }
    }

    /// Reads again from those that everybody waits for who still lags in a Context.
    fn resume_waited_for(&mut self, context_key: Key) {
        let mut index = 0;
        while let Some(&key) =
            self.contexts.get(context_key).and_then(|context| context.paused.get(index))
        {
            if !self.is_waited_for(key, context_key) {
                index += 1;
                continue;
            }
            if let Some(context) = self.contexts.get_mut(context_key) {
                context.paused.swap_remove(index);
            }
            if let Some(connection) = self.connections.get_mut(key) {
                connection.paused -= 1;
            }
            self.mark(key);
        }
    }

    /// In a conference of more than two a member may hold up the others for a moment only; between
    /// two parties the slower one sets the pace, as long as there is memory to wait in.
    pub(crate) fn drop_slow_members(&mut self) {
        let pressed = self.is_pressed();
        let mut lagging = std::mem::take(&mut self.lagging);
        for &key in &lagging {
            self.drop_if_slow(key, pressed);
        }
        // Whoever has caught up meanwhile, or was dropped, lags no more.
        lagging.retain(|&key| {
            self.connections
                .get(key)
                .is_some_and(|connection| connection.lagging_since_ns.is_some())
        });
        lagging.append(&mut self.lagging);
        self.lagging = lagging;
    }

    /// Judged by what the peer takes, not by how busy we are: a send that is under way for long
    /// means that the peer does not read.
    fn drop_if_slow(&mut self, key: Key, pressed: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(since_ns) = connection.lagging_since_ns else { return };
        if connection.relay.is_some() {
            return self.relay_drop_if_slow(key, pressed);
        }
        let lagged_ns = self.now_ns - since_ns;
        let stalled_ns =
            if connection.egress.is_in_flight() { self.now_ns - connection.sent_ns } else { 0 };
        if pressed && stalled_ns >= PRESSED_STALL_NS {
            return self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
        let grace_ns = self.limits.slow_member_grace_ns;
        let is_slow = lagged_ns >= grace_ns
            && (stalled_ns >= grace_ns
                || lagged_ns >= grace_ns.saturating_mul(SLOW_MEMBER_GRACE_FACTOR));
        if !is_slow {
            return;
        }
        if connection.spoken == Spoken::Bfcp {
            return self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
        // From the last: a session that is dropped leaves the list.
        let mut index = connection.sessions.len();
        while index > 0 {
            index -= 1;
            let Some(connection) = self.connections.get(key) else { return };
            let Some(&session) = connection.sessions.get(index) else { continue };
            let members = self
                .terminations
                .get(session)
                .and_then(|termination| self.contexts.get(termination.context))
                .map_or(0, |context| context.members.len());
            match (members > 2, connection.only_session()) {
                (true, Some(_)) => self.release(key, ReleaseCause::TooSlow, Ending::Abort),
                (true, None) => {
                    self.release_session(session, ReleaseCause::TooSlow, Ending::Abort);
                }
                (false, _) => {}
            }
        }
    }

    /// Drops the connections that missed something, before anything more is sent to them.
    pub(crate) fn drop_unserved(&mut self) {
        while let Some(key) = self.unserved.pop() {
            self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
    }

    /// Whether so many buffers are out, or messages unanswered, that senders must be held back.
    pub(crate) fn is_pressed(&self) -> bool {
        are_scarce(&self.send_buffers) || self.messages.len() > MESSAGES_MAX / 4 * 3
    }

    /// Reads nothing more from a connection until the pool has buffers to spare.
    pub(crate) fn press(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.pressed || connection.life != Life::Open {
            return;
        }
        connection.pressed = true;
        self.pressed.push(key);
        self.metrics.recv_paused += 1;
        self.mark(key);
    }

    /// Lets the senders go on once half of the pool is free, and the controller keeps up.
    pub(crate) fn relieve(&mut self) {
        let (in_use, all) = self.send_buffers.large_in_use();
        if in_use > all / 2 {
            return;
        }
        self.resume_telling_of_floors();
        if self.pressed.is_empty()
            || self.messages.len() > MESSAGES_MAX / 2
            || self.events.len() > EVENTS_WAITING_MAX
        {
            return;
        }
        while let Some(key) = self.pressed.pop() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.pressed = false;
            }
            self.mark(key);
        }
    }
}

/// Whether so many buffers are out that nothing is to be sent but what must be.
pub(crate) fn are_scarce(send_buffers: &SendBuffers) -> bool {
    let (in_use, all) = send_buffers.large_in_use();
    in_use > all / 4 * 3
}

/// The Contexts a connection talks into, once for each session.
fn contexts_of<'a>(
    connection: &'a Connection,
    terminations: &'a Table<Termination>,
) -> impl Iterator<Item = Key> + 'a {
    connection.sessions.iter().filter_map(|&session| {
        terminations
            .get(session)
            .filter(|termination| termination.stage == Stage::Bound)
            .map(|termination| termination.context)
    })
}
