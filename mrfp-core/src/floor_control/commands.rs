//! What the controller asks for, as far as no socket is concerned.

use mrfp_io::Key;

use super::RoomFloors;
use super::moderation::FloorUser;
use crate::floor::{self, FloorLimits, FloorServer, User};
use crate::mp::{
    ContextId, FloorAction, FloorControl, FloorStream, FloorTransport, FloorsAnswer, FloorsView,
    ModifyFloorControl, Refusal, ReplaceFloorControl, ReserveFloorControl, Security, Setup,
    TerminationId, TlsRole,
};
use crate::plane::Plane;
use crate::termination::{OwnPort, Termination};

impl Plane {
    /// The floors of a Context that has just been made.
    pub(crate) fn open_floors(
        &mut self,
        context: Key,
        control: &FloorControl,
    ) -> Result<(), Refusal> {
        let limits = FloorLimits {
            conferences_max: self.limits.terminations_max,
            users_max: self.limits.terminations_max,
            requests_max: self.limits.floor_requests_max,
            requests_per_user_max: self.limits.floor_requests_per_user_max,
            datagram_bytes_max: self.limits.floor_datagram_bytes_max,
        };
        let new = || Box::new(FloorServer::new(limits));
        let server = self.floors.server.get_or_insert_with(new);
        let conference_id = control.conference_id;
        server.open_conference(conference_id, control.policy.clone()).map_err(refusal)?;
        self.floors.contexts.insert(conference_id, context);
        for floor in &control.floors {
            let added = server.add_floor(conference_id, floor.floor_id, floor.policy.clone());
            added.map_err(refusal)?;
        }
        Ok(())
    }

    /// A Context ends: its conference, if that is open.
    pub(crate) fn close_floors(&mut self, context: Key) {
        let Some(conference_id) = self.room_floors(context).map(|it| it.conference_id) else {
            return;
        };
        if self.floors.contexts.get(&conference_id) != Some(&context) {
            return;
        }
        self.with_floor_server(|server, now_ns, out| {
            server.close_conference(conference_id, now_ns, out);
        });
        self.floors.contexts.remove(&conference_id);
    }

    /// Makes a Termination for BFCP.
    pub(crate) fn reserve_floor_control(
        &mut self,
        mut reserve: ReserveFloorControl,
        own_port: Option<OwnPort>,
    ) -> Result<Key, Refusal> {
        if self.termination_by_id.get(&self.terminations, &reserve.termination).is_some() {
            return Err(Refusal::TerminationId);
        }
        let context = self.context_by_id.get(&self.contexts, &reserve.context);
        let context = context.ok_or(Refusal::TerminationId)?;
        let floors = self.room_floors(context).ok_or(Refusal::TerminationId)?;
        if reserve.speaks_by.is_some_and(|speaks_by| floors.speaker(speaks_by).is_some()) {
            return Err(Refusal::IdentityInUse);
        }
        let conference_id = floors.conference_id;
        let by_identity = self.check_floor_stream(&reserve.stream, reserve.own_port, None)?;
        let key = self.terminations.vacant().ok_or(Refusal::TerminationsExhausted)?;
        let user = User {
            user_id: reserve.user_id,
            display_name: std::mem::take(&mut reserve.display_name),
            uri: std::mem::take(&mut reserve.uri),
            secured: is_tls(&reserve.stream.security),
            termination: key,
        };
        let added = self.with_floor_server(|server, _, _| server.add_user(conference_id, user));
        let participant = added.unwrap_or(Err(floor::Refusal::Unknown)).map_err(refusal)?;
        let security = std::mem::replace(&mut reserve.stream.security, Security::Plain);
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let mut termination =
            Termination::floor_control(&reserve, security, context, participant, deadline_ns);
        termination.own_port = own_port.map(Box::new);
        assert!(self.terminations.insert(termination).is_ok_and(|made| made == key));
        self.termination_by_id.insert(&self.terminations, key);
        if by_identity {
            self.by_identity.insert(&self.terminations, key);
        }
        if let Some(context) = self.contexts.get_mut(context) {
            context.terminations += 1;
        }
        if let Some(floors) = self.room_floors_mut(context) {
            let (user_id, speaks_by) = (reserve.user_id, reserve.speaks_by);
            floors.add_user(FloorUser { user_id, termination: key, speaks_by });
        }
        Ok(key)
    }

    /// The answer to an offer of ours. Its key.
    pub(crate) fn modify_floor_control(
        &mut self,
        modify: &ModifyFloorControl,
    ) -> Result<Key, Refusal> {
        let key = self.living_for_floors(modify.termination)?;
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let awaits_peer = self.awaits_datagram_peer(key);
        let termination = self.terminations.get_mut(key).ok_or(Refusal::TerminationId)?;
        let is_reachable = match modify.transport {
            FloorTransport::Tcp(Setup::Active { .. }) => awaits_peer.is_none(),
            FloorTransport::Tcp(Setup::Passive) => {
                awaits_peer.is_none()
                    && (termination.tls_role(false) != Some(TlsRole::Client)
                        || termination.own_port.is_some())
            }
            // Of whom it takes datagrams is decided once in the life of a socket.
            FloorTransport::Udp { remote } => awaits_peer == Some(true) && remote.is_some(),
        };
        if !is_reachable {
            return Err(Refusal::Transport);
        }
        if let Some(psk) = &modify.psk {
            termination.set_psk(psk);
        }
        if !termination.knows_remote() {
            termination.establishment_deadline_ns = deadline_ns;
        }
        if let Some(seat) = termination.floor_seat_mut() {
            seat.unanswered = false;
        }
        Ok(key)
    }

    /// Takes the connection from a user, who is to get another one. Its key.
    pub(crate) fn replace_floor_control(
        &mut self,
        replace: ReplaceFloorControl,
    ) -> Result<Key, Refusal> {
        let key = self.living_for_floors(replace.termination)?;
        let by_identity = self.check_floor_stream(&replace.stream, replace.own_port, Some(key))?;
        self.leave_context(key);
        self.unlink(key);
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let FloorStream { security, tls_role, .. } = replace.stream;
        let secured = is_tls(&security);
        let termination = self.terminations.get_mut(key).ok_or(Refusal::TerminationId)?;
        termination.renew_floor_control(tls_role, security, replace.unanswered, deadline_ns);
        if let Some(participant) = termination.floor_seat().map(|seat| seat.participant) {
            self.with_floor_server(|server, _, _| server.set_secured(participant, secured));
        }
        if by_identity {
            self.by_identity.insert(&self.terminations, key);
        }
        Ok(key)
    }

    /// The port a Termination has of its own.
    pub(crate) fn own_port(&self, id: TerminationId) -> Option<OwnPort> {
        let key = self.termination_by_id.get(&self.terminations, &id)?;
        self.terminations.get(key)?.own_port.as_deref().copied()
    }

    /// Whether a user can be connected like this: where it can, whether its TLS client is found by the
    /// identity it names. `session`: who may have that identity already.
    fn check_floor_stream(
        &self,
        stream: &FloorStream,
        own_port: bool,
        session: Option<Key>,
    ) -> Result<bool, Refusal> {
        let setup = match (stream.transport, &stream.security) {
            (FloorTransport::Tcp(setup), _) => setup,
            (FloorTransport::Udp { .. }, Security::Plain) => return Ok(false),
            (FloorTransport::Udp { .. }, _) => return Err(Refusal::Transport),
        };
        let passive = setup == Setup::Passive;
        let client = stream.tls_role == TlsRole::Client;
        let identity = match &stream.security {
            Security::Plain => return Ok(false),
            // We speak first, and nothing but the port says to whom.
            _ if passive && client && !own_port => return Err(Refusal::Transport),
            Security::TlsCertificate { .. } if !self.profile.has_certificates() => {
                return Err(Refusal::Transport);
            }
            Security::TlsCertificate { .. } => return Ok(false),
            Security::TlsPsk { identity, .. } | Security::TlsPskAwaited { identity } => identity,
        };
        let by_identity = passive && !client && !own_port;
        if by_identity && self.session_by_identity(identity).is_some_and(|it| Some(it) != session) {
            return Err(Refusal::IdentityInUse);
        }
        Ok(by_identity)
    }

    /// A user leaves for good: what it holds is revoked.
    pub(crate) fn remove_floor_user(&mut self, session: Key) {
        let Some(termination) = self.terminations.get(session) else { return };
        let Some(&seat) = termination.floor_seat() else { return };
        let context = termination.context;
        self.with_floor_server(|server, now_ns, out| {
            server.remove_user(seat.participant, now_ns, out);
        });
        if let Some(floors) = self.room_floors_mut(context) {
            floors.remove_user(session);
        }
    }

    /// Does something about the floors of a Context.
    pub(crate) fn floors(&mut self, context: ContextId, action: FloorAction) -> FloorsAnswer {
        let context = self.context_by_id.get(&self.contexts, &context);
        let context = context.ok_or(floor::Refusal::Unknown)?;
        let conference = self.room_floors(context).ok_or(floor::Refusal::Unknown)?.conference_id;
        let done = match action {
            FloorAction::List => Some(Ok(())),
            FloorAction::Grant { floor_id, user_id } => {
                self.with_floor_server(|server, now_ns, out| {
                    server.grant(conference, floor_id, user_id, now_ns, out)
                })
            }
            FloorAction::Revoke { floor_id, user_id } => {
                self.with_floor_server(|server, now_ns, out| {
                    server.revoke(conference, floor_id, user_id, now_ns, out)
                })
            }
            FloorAction::SetChair { floor_id, user_id } => self
                .with_floor_server(|server, _, _| server.set_chair(conference, floor_id, user_id)),
            FloorAction::SetPolicy { floor_id, policy } => {
                self.with_floor_server(|server, now_ns, out| {
                    server.set_policy(conference, floor_id, policy, now_ns, out)
                })
            }
            FloorAction::Moderate(moderated) => Some(self.moderate(context, moderated)),
        };
        done.unwrap_or(Err(floor::Refusal::Unknown))?;
        let floors = self.floors.server.as_ref().and_then(|server| server.floors(conference));
        let room = self.room_floors(context).ok_or(floor::Refusal::Unknown)?;
        Ok(Box::new(FloorsView {
            moderated: room.moderated,
            message_floor_id: room.message_floor_id,
            floors: floors.ok_or(floor::Refusal::Unknown)?,
        }))
    }

    fn living_for_floors(&self, id: TerminationId) -> Result<Key, Refusal> {
        let key = self.living_of_any_kind(id)?;
        let is_for_floors = self.terminations.get(key).is_some_and(Termination::is_for_floors);
        if is_for_floors { Ok(key) } else { Err(Refusal::TerminationId) }
    }

    pub(super) fn room_floors(&self, context: Key) -> Option<&RoomFloors> {
        self.contexts.get(context)?.room.as_ref()?.floors.as_deref()
    }

    pub(super) fn room_floors_mut(&mut self, context: Key) -> Option<&mut RoomFloors> {
        self.contexts.get_mut(context)?.room.as_mut()?.floors.as_deref_mut()
    }
}

fn is_tls(security: &Security) -> bool {
    match security {
        Security::Plain => false,
        Security::TlsPsk { .. }
        | Security::TlsPskAwaited { .. }
        | Security::TlsCertificate { .. } => true,
    }
}

/// What the server refuses, in the words of Mp: a number of the controller's that is taken, or says
/// nothing.
fn refusal(refusal: floor::Refusal) -> Refusal {
    match refusal {
        floor::Refusal::Exhausted => Refusal::TerminationsExhausted,
        floor::Refusal::InUse | floor::Refusal::Unknown | floor::Refusal::Policy => {
            Refusal::IdentityInUse
        }
    }
}
