//! What the controller asks of a shard, as far as no socket is concerned.

use std::net::SocketAddr;

use mrfp_io::Key;

use crate::connection::OpenChunk;
use crate::context::Context;
use crate::mp::{
    ContextId, Event, Modify, Refusal, Remote, ReplaceSession, ReserveAndConfigure, Security,
    Switching, TerminationId, TerminationStatistics,
};
use crate::plane::{Ending, Plane};
use crate::room::Participant;
use crate::termination::{OwnPort, Stage, Termination, check_path};

impl Plane {
    /// Makes a Termination (and its Context, where it is the first).
    pub(crate) fn reserve(
        &mut self,
        reserve: ReserveAndConfigure,
        own_port: Option<OwnPort>,
    ) -> Result<Key, Refusal> {
        self.check_reserve(&reserve)?;
        // On a port of its own the port is the binding.
        let by_identity = !reserve.own_port && is_by_key(&reserve.security);
        let context_key = self.context_for(&reserve)?;
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let in_room = self.contexts.get(context_key).is_some_and(|context| context.room.is_some());
        let participant = in_room.then(|| Box::new(Participant::new(&reserve)));
        let address = own_port.map_or(self.address, |own| own.address);
        let made = Termination::new(reserve, context_key, participant, address, deadline_ns)
            .map_err(|_| Refusal::Transport)
            .and_then(|mut termination| {
                termination.own_port = own_port.map(Box::new);
                self.terminations.insert(termination).map_err(|_| Refusal::TerminationsExhausted)
            });
        let key = match made {
            Ok(key) => key,
            Err(refusal) => {
                self.drop_context_if_empty(context_key);
                return Err(refusal);
            }
        };
        if let Some(context) = self.contexts.get_mut(context_key) {
            context.terminations += 1;
        }
        self.termination_by_id.insert(&self.terminations, key);
        self.by_session_id.insert(&self.terminations, key);
        if by_identity {
            self.by_identity.insert(&self.terminations, key);
        }
        Ok(key)
    }

    /// The Context a Termination is for; made where it is the first.
    fn context_for(&mut self, reserve: &ReserveAndConfigure) -> Result<Key, Refusal> {
        if let Some(key) = self.context_by_id.get(&self.contexts, &reserve.context) {
            return Ok(key);
        }
        let context = Context::new(reserve.context, reserve.switching.clone());
        let key = self.contexts.insert(context).map_err(|_| Refusal::TerminationsExhausted)?;
        self.context_by_id.insert(&self.contexts, key);
        if let Switching::ChatRoom(policy) = &reserve.switching
            && let Some(control) = &policy.floors
            && let Err(refusal) = self.open_floors(key, control)
        {
            self.drop_context_if_empty(key);
            return Err(refusal);
        }
        Ok(key)
    }

    /// A Context ends with its last Termination.
    pub(crate) fn drop_context_if_empty(&mut self, key: Key) {
        if self.contexts.get(key).is_some_and(|context| context.terminations == 0) {
            self.close_floors(key);
            self.context_by_id.remove(&self.contexts, key);
            self.contexts.remove(key);
        }
    }

    fn check_reserve(&self, reserve: &ReserveAndConfigure) -> Result<(), Refusal> {
        if self.termination_by_id.get(&self.terminations, &reserve.termination).is_some() {
            return Err(Refusal::TerminationId);
        }
        if self.session_by_id(reserve.session_id.as_bytes()).is_some() {
            return Err(Refusal::IdentityInUse);
        }
        let members = self
            .context_by_id
            .get(&self.contexts, &reserve.context)
            .and_then(|key| self.contexts.get(key))
            .map_or(0, Context::message_terminations);
        if members >= self.limits.context_members_max {
            return Err(Refusal::ContextFull);
        }
        match &reserve.security {
            Security::TlsPsk { identity, .. } | Security::TlsPskAwaited { identity }
                if !reserve.own_port && self.session_by_identity(identity).is_some() =>
            {
                Err(Refusal::IdentityInUse)
            }
            Security::TlsCertificate { .. } if !self.profile.has_certificates() => {
                Err(Refusal::Transport)
            }
            Security::TlsPsk { .. }
            | Security::TlsPskAwaited { .. }
            | Security::TlsCertificate { .. }
            | Security::Plain => Ok(()),
        }
    }

    /// Takes a Termination back that could not be completed; nothing of it is left.
    pub(crate) fn unreserve(&mut self, key: Key) {
        self.leave_context(key);
        let events = self.events.len();
        self.finish_subtract(key);
        self.events.truncate(events);
    }

    /// Whether a Termination still needs a connection, and knows the peer's end.
    pub(crate) fn awaits_connection(&self, key: Key) -> bool {
        self.terminations.get(key).is_some_and(Termination::awaits_connection)
    }

    /// A Termination for messages that is not subtracted.
    pub(crate) fn living(&self, id: TerminationId) -> Result<Key, Refusal> {
        let key = self.living_of_any_kind(id)?;
        let is_for_floors = self.terminations.get(key).is_some_and(Termination::is_for_floors);
        if is_for_floors { Err(Refusal::TerminationId) } else { Ok(key) }
    }

    pub(crate) fn living_of_any_kind(&self, id: TerminationId) -> Result<Key, Refusal> {
        let key =
            self.termination_by_id.get(&self.terminations, &id).ok_or(Refusal::TerminationId)?;
        let lives = |termination: &Termination| termination.stage < Stage::Subtracted;
        self.terminations
            .get(key)
            .filter(|termination| lives(termination))
            .map(|_| key)
            .ok_or(Refusal::TerminationId)
    }

    /// Puts a new session in the place of an old one; its key, and where the peer is to connect to.
    pub(crate) fn replace_session(
        &mut self,
        replace: ReplaceSession,
    ) -> Result<(Key, SocketAddr), Refusal> {
        let key = self.living(replace.termination)?;
        let session_id = replace.session_id.into_bytes();
        let termination = self.terminations.get(key).ok_or(Refusal::TerminationId)?;
        if self.session_by_id(&session_id).is_some() || termination.session_id() == session_id {
            return Err(Refusal::IdentityInUse);
        }
        let by_identity = termination.own_port.is_none() && is_by_key(&replace.security);
        if let Security::TlsPsk { identity, .. } | Security::TlsPskAwaited { identity } =
            &replace.security
            && by_identity
            && self.session_by_identity(identity).is_some_and(|other| other != key)
        {
            return Err(Refusal::IdentityInUse);
        }
        let path = replace.remote.as_ref().map(|remote| remote.path.as_bytes());
        path.map_or(Ok(()), check_path).map_err(|_| Refusal::Transport)?;
        self.leave_context(key);
        self.unlink(key);
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let termination = self.terminations.get_mut(key).ok_or(Refusal::TerminationId)?;
        let address = termination.own_port.as_ref().map_or(self.address, |own| own.address);
        termination.renew(&session_id, replace.security, path, address, deadline_ns);
        self.by_session_id.insert(&self.terminations, key);
        if by_identity {
            self.by_identity.insert(&self.terminations, key);
        }
        if let Some(remote) = &replace.remote {
            self.set_capabilities(key, remote);
        }
        Ok((key, address))
    }

    /// The peer has said anew what it takes.
    fn set_capabilities(&mut self, key: Key, remote: &Remote) {
        let Some(capabilities) = &remote.capabilities else { return };
        let Some(termination) = self.terminations.get_mut(key) else { return };
        termination.set_accept_types(capabilities.accept_types.as_bytes());
        termination.size_bytes_max = capabilities.max_size_bytes.unwrap_or(u64::MAX);
        let Some(participant) = &mut termination.participant else { return };
        participant.set_capabilities(capabilities);
        let context = self.contexts.get_mut(termination.context);
        if let Some(room) = context.and_then(|context| context.room.as_mut())
            && termination.stage == Stage::Bound
        {
            termination.acceptance = room.renegotiate(key, participant, termination.acceptance);
        }
    }

    /// Parts a session that is over from its connection at once, also where that is ending.
    pub(crate) fn unlink(&mut self, session: Key) {
        self.detach(session, Ending::Graceful);
        let Some(termination) = self.terminations.get_mut(session) else { return };
        let connection = termination.connection.take();
        if let Some(connection) = connection.and_then(|key| self.connections.get_mut(key)) {
            connection.sessions.remove(session);
        }
    }

    /// Changes what may change while a Termination lives; its key.
    pub(crate) fn modify(&mut self, modify: &Modify) -> Result<Key, Refusal> {
        let key = self.living(modify.termination)?;
        let termination = self.terminations.get_mut(key).ok_or(Refusal::TerminationId)?;
        if let Some(remote) = &modify.remote {
            let path = remote.path.as_bytes();
            check_path(path).map_err(|_| Refusal::Transport)?;
            if !termination.knows_remote() {
                termination.establishment_deadline_ns =
                    self.now_ns + self.limits.establishment_timeout_ns;
            }
            termination.set_remote_path(path);
            self.set_capabilities(key, remote);
        }
        if let Some(psk) = &modify.psk
            && let Some(termination) = self.terminations.get_mut(key)
        {
            termination.set_psk(psk);
        }
        let termination = self.terminations.get_mut(key).ok_or(Refusal::TerminationId)?;
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
        Ok(key)
    }

    /// Subtracts a Termination; the event follows once its connection is gone. Returns its
    /// listener, which the shard must end.
    pub(crate) fn subtract(&mut self, id: TerminationId) -> Option<Key> {
        let key = self.termination_by_id.get(&self.terminations, &id);
        let found = key.and_then(|key| Some((key, self.terminations.get(key)?)));
        let Some((key, termination)) = found else {
            let statistics = TerminationStatistics::default();
            self.events.push_back(Event::Subtracted { termination: id, statistics });
            return None;
        };
        if termination.stage == Stage::Subtracted {
            return None;
        }
        // First, while there is a connection for a Goodbye.
        self.remove_floor_user(key);
        self.leave_context(key);
        let termination = self.terminations.get_mut(key)?;
        termination.stage = Stage::Subtracted;
        let listener = termination.own_port.take().map(|own| own.listener);
        self.detach(key, Ending::Graceful);
        if self.terminations.get(key).is_some_and(|termination| termination.connection.is_none()) {
            self.finish_subtract(key);
        }
        listener
    }

    /// Tells what a Context has carried.
    pub(crate) fn audit(&mut self, id: ContextId) {
        let context = self.context_by_id.get(&self.contexts, &id);
        let context = context.and_then(|key| self.contexts.get(key));
        let statistics = context.map(|context| Box::new(context.statistics()));
        self.events.push_back(Event::Audited { context: id, statistics });
    }
}

/// Whether a connection is bound by the key its peer has.
fn is_by_key(security: &Security) -> bool {
    match security {
        Security::TlsPsk { .. } | Security::TlsPskAwaited { .. } => true,
        Security::TlsCertificate { .. } | Security::Plain => false,
    }
}
