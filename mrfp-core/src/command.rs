//! What the controller asks of a shard, as far as no socket is concerned.

use std::net::SocketAddr;

use mrfp_io::Key;

use crate::connection::OpenChunk;
use crate::context::Context;
use crate::mp::{
    ContextId, Event, Modify, Refusal, ReserveAndConfigure, Security, TerminationId,
    TerminationStatistics,
};
use crate::plane::{Ending, Plane};
use crate::room::Participant;
use crate::termination::{Protection, Stage, Termination};

impl Plane {
    /// Makes a Termination (and its Context, where it is the first). `address` is where the peer
    /// is to connect to.
    pub(crate) fn reserve(
        &mut self,
        reserve: ReserveAndConfigure,
        address: SocketAddr,
    ) -> Result<Key, Refusal> {
        self.check_reserve(&reserve)?;
        let id = reserve.termination;
        let session_id = reserve.session_id.clone().into_bytes();
        let identity = match &reserve.security {
            // On a port of its own the port is the binding.
            Security::TlsPsk { identity, .. } if !reserve.own_port => Some(identity.clone()),
            Security::TlsPsk { .. } | Security::TlsCertificate { .. } | Security::Plain => None,
        };
        let context_id = reserve.context;
        let context_key = match self.context_by_id.get(&context_id) {
            Some(&key) => key,
            None => {
                let made =
                    self.contexts.insert(Context::new(context_id, reserve.switching.clone()));
                made.map_err(|_| Refusal::TerminationsExhausted)?
            }
        };
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let in_room = self.contexts.get(context_key).is_some_and(|context| context.room.is_some());
        let participant = in_room.then(|| Box::new(Participant::new(&reserve)));
        let made = Termination::new(reserve, context_key, participant, address, deadline_ns)
            .map_err(|_| Refusal::Transport)
            .and_then(|termination| {
                self.terminations.insert(termination).map_err(|_| Refusal::TerminationsExhausted)
            });
        let key = match made {
            Ok(key) => key,
            Err(refusal) => {
                if !self.context_by_id.contains_key(&context_id) {
                    self.contexts.remove(context_key);
                }
                return Err(refusal);
            }
        };
        self.context_by_id.insert(context_id, context_key);
        if let Some(context) = self.contexts.get_mut(context_key) {
            context.terminations += 1;
        }
        self.termination_by_id.insert(id, key);
        self.by_session_id.insert(session_id, key);
        identity.map(|identity| self.by_identity.insert(identity, key));
        Ok(key)
    }

    fn check_reserve(&self, reserve: &ReserveAndConfigure) -> Result<(), Refusal> {
        if self.termination_by_id.contains_key(&reserve.termination) {
            return Err(Refusal::TerminationId);
        }
        if self.by_session_id.contains_key(reserve.session_id.as_bytes()) {
            return Err(Refusal::IdentityInUse);
        }
        let members = self
            .context_by_id
            .get(&reserve.context)
            .and_then(|&key| self.contexts.get(key))
            .map_or(0, |context| context.terminations);
        if members >= self.limits.context_members_max {
            return Err(Refusal::ContextFull);
        }
        match &reserve.security {
            Security::TlsPsk { identity, .. }
                if !reserve.own_port && self.by_identity.contains_key(identity.as_slice()) =>
            {
                Err(Refusal::IdentityInUse)
            }
            Security::TlsCertificate { .. } if !self.profile.has_certificates() => {
                Err(Refusal::Transport)
            }
            Security::TlsPsk { .. } | Security::TlsCertificate { .. } | Security::Plain => Ok(()),
        }
    }

    /// Takes a Termination back that could not be completed; nothing of it is left.
    pub(crate) fn unreserve(&mut self, key: Key) {
        self.leave_context(key);
        let events = self.events.len();
        self.finish_subtract(key);
        self.events.truncate(events);
    }

    /// Changes what may change while a Termination lives.
    pub(crate) fn modify(&mut self, modify: &Modify) {
        let id = modify.termination;
        let event = match self.try_modify(modify) {
            Ok(()) => Event::Modified { termination: id },
            Err(reason) => Event::Refused { termination: id, reason },
        };
        self.events.push_back(event);
    }

    fn try_modify(&mut self, modify: &Modify) -> Result<(), Refusal> {
        let key = *self.termination_by_id.get(&modify.termination).ok_or(Refusal::TerminationId)?;
        let termination = self
            .terminations
            .get_mut(key)
            .filter(|termination| termination.stage < Stage::Subtracted)
            .ok_or(Refusal::TerminationId)?;
        if let Some(remote) = &modify.remote {
            termination.set_remote_path(remote.path.as_bytes()).map_err(|_| Refusal::Transport)?;
        }
        let (received, sent) = (termination.may_receive(), termination.may_send());
        termination.direction = modify.direction;
        termination.muted = modify.muted;
        let (receives, sends) = (termination.may_receive(), termination.may_send());
        let connection = termination.connection.filter(|_| termination.stage == Stage::Bound);
        if receives
            && !received
            && let Some(context) = self.contexts.get_mut(termination.context)
        {
            // As if it had just joined: no tail of a message without its beginning.
            context.epoch += 1;
            termination.joined_epoch = context.epoch;
        }
        if let Some(connection) = connection {
            let towards_it = |open: OpenChunk| open.receiver == key;
            if received
                && !receives
                && self.connections.get(connection).and_then(|c| c.outgoing).is_some_and(towards_it)
            {
                self.close_chunk(connection);
            }
            if sent && !sends {
                self.silence(connection, key);
            }
        }
        Ok(())
    }

    /// Subtracts a Termination; the event follows once its connection is gone. Returns its
    /// listener, which the shard must end.
    pub(crate) fn subtract(&mut self, id: TerminationId) -> Option<Key> {
        let key = self.termination_by_id.get(&id).copied();
        let found = key.and_then(|key| Some((key, self.terminations.get(key)?)));
        let Some((key, termination)) = found else {
            let statistics = TerminationStatistics::default();
            self.events.push_back(Event::Subtracted { termination: id, statistics });
            return None;
        };
        if termination.stage == Stage::Subtracted {
            return None;
        }
        self.leave_context(key);
        let termination = self.terminations.get_mut(key)?;
        termination.stage = Stage::Subtracted;
        let listener = termination.listener.take();
        self.detach(key, Ending::Graceful);
        if self.terminations.get(key).is_some_and(|termination| termination.connection.is_none()) {
            self.finish_subtract(key);
        }
        listener
    }

    /// Tells what a Context has carried.
    pub(crate) fn audit(&mut self, id: ContextId) {
        let context = self.context_by_id.get(&id).and_then(|&key| self.contexts.get(key));
        let statistics = context.map(|context| Box::new(context.statistics));
        self.events.push_back(Event::Audited { context: id, statistics });
    }

    /// Whether a Termination is protected by TLS.
    pub(crate) fn is_protected(&self, key: Key) -> bool {
        self.terminations.get(key).is_some_and(|termination| match termination.protection {
            Protection::TlsPsk { .. } | Protection::TlsCertificate { .. } => true,
            Protection::Plain => false,
        })
    }
}
