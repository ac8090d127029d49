//! How a call comes to its key: at once, or by way of the KMS, in either role of MIKEY-TICKET.

use mrfp_core::mp::TerminationId;

use super::admission::Refusal;
use super::call::{Call, Reservation, Stage};
use super::config::KMS_TIMEOUT_NS;
use super::counters::{HangUpCause, count};
use super::dialling::{DialPolicy, TicketSource};
use super::engine::{Now, Turn};
use super::floor_session::FloorChange;
use super::kept_tickets::Names;
use super::keys::{self, Agreement, KeyFailure, KeySource, Keys, Parties, Pending};
use super::tickets::{Certified, InitiatorConfig, PendingTicket, Transfer};
use super::timers::Timer;
use super::{Action, CallId, Mrfc, ResolveId};
use crate::mikey::{self, GrantedTicket, NtpTime};
use crate::sdp::KeyManagement;

/// What keys a session.
#[derive(Debug)]
pub(super) enum SessionKeys {
    /// Nothing.
    None,
    /// The key of an offer that was made to us.
    Agreed(Box<Keys>),
    /// The key that the answer to our offer will yield.
    Offered(Box<Transfer>),
}

/// How far a key is.
pub(super) enum Keying {
    /// Nobody has to be asked.
    Ready(SessionKeys),
    /// The KMS is to be asked first.
    Ask { asked: Asked, message: Vec<u8> },
}

/// What the KMS is asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// What is in a caller's ticket.
    Resolve(Box<Pending>),
    /// A ticket for a call of ours.
    Ticket(Box<PendingTicket>),
}

/// What the KMS is to be asked, and the message that asks it.
pub(super) type Question = (Asked, Vec<u8>);

impl Keying {
    pub(super) const UNKEYED: Self = Self::Ready(SessionKeys::None);
}

impl SessionKeys {
    /// The key of an offer that was made to us.
    pub(super) fn into_agreed(self) -> Option<Box<Keys>> {
        match self {
            Self::Agreed(keys) => Some(keys),
            Self::None | Self::Offered(_) => None,
        }
    }

    /// Takes it, and leaves nothing.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::None)
    }

    /// The key of the floor stream that was made with that of the messages, for a call of ours.
    pub(super) fn take_floor(&mut self) -> Self {
        let floor = match self {
            Self::Offered(transfer) => transfer.take_floor(),
            Self::None | Self::Agreed(_) => None,
        };
        floor.map_or(Self::None, Self::Offered)
    }

    /// Our TRANSFER_INIT.
    pub(super) fn into_transfer(self) -> Option<Box<Transfer>> {
        match self {
            Self::Offered(transfer) => Some(transfer),
            Self::None | Self::Agreed(_) => None,
        }
    }
}

impl Mrfc {
    /// MIKEY-TICKET as responder, where an m-line asks for it.
    pub(super) fn respond(
        &mut self,
        turn: &mut Turn<'_>,
        parties: &Parties<'_>,
        offered: Option<&KeyManagement>,
    ) -> Result<Keying, Refusal> {
        let Some(offered) = offered else {
            return Ok(Keying::UNKEYED);
        };
        let Some(responder) = &mut self.responder else {
            return Err(Refusal::with_text(488, "No key management here"));
        };
        let (now, random) = (turn.now.ntp, &mut *turn.random);
        let source = match &self.kms {
            Some(kms) => KeySource::Here(&**kms),
            None => {
                let certificate = self.initiator.as_ref().and_then(|it| it.certificate.as_ref());
                KeySource::Elsewhere(certificate.map(Certified::credentials))
            }
        };
        let keying = keys::agree(responder, source, offered, parties, now, random);
        let keying = keying.map(|agreement| match agreement {
            Agreement::Reached(keys) => Keying::Ready(SessionKeys::Agreed(Box::new(keys))),
            Agreement::Ask(pending, message) => {
                Keying::Ask { asked: Asked::Resolve(pending), message }
            }
        });
        keying.map_err(|failure| self.key_failure(&failure))
    }

    /// Whether calls of ours to this user can be keyed with such tickets.
    pub(super) fn can_initiate(&self, policy: &DialPolicy, called: &str) -> bool {
        self.initiator.as_ref().is_some_and(|initiator| initiator.can_call(policy, called))
    }

    /// MIKEY-TICKET as initiator: `caller` is the conference. With `floors` there is a key for its floor
    /// stream, too.
    pub(super) fn initiate(
        &mut self,
        turn: &mut Turn<'_>,
        parties: &Parties<'_>,
        policy: &DialPolicy,
        floors: bool,
    ) -> Result<Keying, KeyFailure> {
        let initiator = self.initiator.as_ref().expect("the policy was checked");
        let now = turn.now.ntp;
        let offered = |transfer| Keying::Ready(SessionKeys::Offered(Box::new(transfer)));
        if policy.ticket == TicketSource::Own {
            return initiator.make(policy, parties, floors, now, turn.random).map(offered);
        }
        if let Some(ticket) = self.kept_tickets.take(parties, &initiator.parameters, now) {
            let names = Names::from(parties);
            return initiator.with_granted(names, ticket, floors, now, turn.random).map(offered);
        }
        let (pending, message) = initiator.request(policy, parties, now, turn.random)?;
        let Some(kms) = &self.kms else {
            return Ok(Keying::Ask { asked: Asked::Ticket(Box::new(pending)), message });
        };
        let response = kms.request_here(&message, now, turn.random);
        let response = response.map_err(KeyFailure::Mikey)?;
        initiator.granted(pending, &response, floors, now, turn.random).map(offered)
    }

    /// A call of ours was answered by whom it was for: what its ticket has proved good for.
    pub(super) fn keep_ticket(&mut self, kept: Option<(Names, GrantedTicket)>, now: NtpTime) {
        let (Some((names, ticket)), Some(initiator)) = (kept, &self.initiator) else { return };
        let InitiatorConfig { kept_tickets_max, parameters, .. } = initiator;
        self.kept_tickets.keep(names, ticket, *kept_tickets_max, parameters, now);
    }

    /// Takes a call that is in every index on to the KMS, or to its shard.
    pub(super) fn begin_call(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        termination: TerminationId,
        keying: Keying,
        call: impl FnOnce(Stage) -> Call,
    ) {
        match keying {
            Keying::Ready(keys) => {
                let reservation = Reservation::new(turn, keys);
                self.keyed(turn, id, call(Stage::AwaitReserved(reservation)));
            }
            Keying::Ask { asked, message } => {
                let resolve = ResolveId(termination.0);
                self.keep(id, call(Stage::AwaitKms { resolve, asked, reservation: None }));
                self.ask_kms(turn.now, id, resolve, message);
            }
        }
    }

    fn ask_kms(&mut self, now: Now, id: CallId, resolve: ResolveId, message: Vec<u8>) {
        self.by_resolve.insert(resolve, id);
        self.timers.set(Timer::Call(id), now.monotonic_ns + KMS_TIMEOUT_NS);
        self.actions.push_back(Action::Resolve { resolve, message });
    }

    /// The message stream has its key: it is the floor stream's turn, then the shard's.
    fn keyed(&mut self, turn: &mut Turn<'_>, id: CallId, mut call: Call) {
        match self.key_first_floor(turn, &mut call) {
            Ok(Keying::Ready(keys)) => {
                if let Some(floor) = &mut call.floor {
                    floor.set_keys(keys);
                }
                self.reserve(turn.now, id, call);
            }
            Ok(Keying::Ask { asked, message }) => {
                let Stage::AwaitReserved(reservation) = call.stage else {
                    unreachable!("the caller made it so");
                };
                self.last_id += 1;
                let resolve = ResolveId(self.last_id);
                call.stage = Stage::AwaitKms { resolve, asked, reservation: Some(reservation) };
                self.keep(id, call);
                self.ask_kms(turn.now, id, resolve, message);
            }
            Err(refusal) => self.abandon(id, &call, refusal),
        }
    }

    /// Carries a change of a session out, or asks the KMS first.
    pub(super) fn begin_change(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        mut call: Call,
        ask: Option<Question>,
    ) {
        let Some((asked, message)) = ask else { return self.change(turn.now, id, call) };
        let Stage::AwaitModified(_, change) = &mut call.stage else {
            unreachable!("the caller made it so");
        };
        self.last_id += 1;
        let resolve = ResolveId(self.last_id);
        change.asked = Some((resolve, asked));
        self.keep(id, call);
        self.ask_kms(turn.now, id, resolve, message);
    }

    /// The KMS answered, or will not.
    pub(super) fn resolved(
        &mut self,
        turn: &mut Turn<'_>,
        resolve: ResolveId,
        response: Option<&[u8]>,
    ) {
        // The call may have ended, or the answer may come after its time.
        let Some(id) = self.by_resolve.remove(&resolve) else {
            return;
        };
        let mut call = self.calls.remove(&id).expect("a question belongs to a call");
        self.timers.clear(Timer::Call(id));
        let (asked, reservation) = match call.stage {
            Stage::AwaitKms { asked, reservation, .. } => (asked, reservation),
            stage => {
                call.stage = stage;
                return self.change_resolved(turn, id, call, response);
            }
        };
        let floors = call.floor.is_some();
        let keys = match response {
            Some(response) => self.take_response(turn, asked, response, &call.caller.uri, floors),
            None => Err(self.kms_silent()),
        };
        match (keys, reservation) {
            (Ok(keys), None) => {
                call.stage = Stage::AwaitReserved(Reservation::new(turn, keys));
                self.keyed(turn, id, call);
            }
            (Ok(keys), Some(reservation)) => {
                call.floor.as_mut().expect("the key is for it").set_keys(keys);
                call.stage = Stage::AwaitReserved(reservation);
                self.reserve(turn.now, id, call);
            }
            (Err(refusal), _) => {
                // For the indices it makes no difference what the shard was to be asked for.
                call.stage = Stage::AwaitReserved(Reservation::new(turn, SessionKeys::None));
                self.abandon(id, &call, refusal);
            }
        }
    }

    /// The KMS answered about the floor stream of a call that is changing.
    pub(super) fn change_resolved(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        mut call: Call,
        response: Option<&[u8]>,
    ) {
        let Stage::AwaitModified(agreed, mut change) = call.stage else {
            unreachable!("nobody else asks the KMS");
        };
        let (_, asked) = change.asked.take().expect("a question is remembered");
        let keys = match response {
            Some(response) => self.take_response(turn, asked, response, &call.caller.uri, false),
            None => Err(self.kms_silent()),
        };
        match keys {
            Ok(keys) => {
                if let Some(FloorChange::Renewed(floor)) = &mut change.floor {
                    floor.set_keys(keys);
                }
                call.stage = Stage::AwaitModified(agreed, change);
                self.change(turn.now, id, call);
            }
            Err(refusal) => {
                self.refuse_reinvite(id, refusal);
                call.stage = Stage::Established(agreed);
                self.keep(id, call);
            }
        }
    }

    /// A call ends of which the shard has nothing.
    pub(super) fn abandon(&mut self, id: CallId, call: &Call, refusal: Refusal) {
        self.refuse_or_report(id, call.joining, refusal);
        self.forget(id, &call.room, &call.caller.uri, call.termination);
        self.shards.remove_termination(call.shard);
    }

    fn take_response(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        response: &[u8],
        caller: &str,
        floors: bool,
    ) -> Result<SessionKeys, Refusal> {
        let now = turn.now.ntp;
        match asked {
            Asked::Resolve(pending) => {
                let responder = self.responder.as_mut().expect("it asked");
                let keys = pending.finish(responder, response, caller, now, turn.random);
                let agreed = keys.map(|keys| SessionKeys::Agreed(Box::new(keys)));
                agreed.map_err(|failure| self.key_failure(&failure))
            }
            Asked::Ticket(pending) => {
                let initiator = self.initiator.as_ref().expect("it asked");
                let transfer = initiator.granted(*pending, response, floors, now, turn.random);
                let offered = transfer.map(|transfer| SessionKeys::Offered(Box::new(transfer)));
                offered.map_err(|failure| self.ticket_failure(&failure))
            }
        }
    }

    /// RFC 4567 section 5.2: the answerer that cannot accept the key management rejects with 488.
    pub(super) fn key_failure(&mut self, failure: &KeyFailure) -> Refusal {
        count(&mut self.counters.mikey_failures, failure.name());
        match failure {
            KeyFailure::Mikey(_) => Refusal::with_text(488, "Key management failed"),
            KeyFailure::OtherCaller => Refusal::with_text(403, "The key is not the caller's"),
            KeyFailure::OtherRoom => Refusal::with_text(488, "The ticket is for another room"),
        }
    }

    /// There is no ticket for a call of ours; whoever wanted it is not to blame.
    pub(super) fn ticket_failure(&mut self, failure: &KeyFailure) -> Refusal {
        count(&mut self.counters.mikey_failures, failure.name());
        Refusal::with_text(500, "There is no ticket for the call")
    }

    /// What has come in the place of the key that the answer to our offer was to yield.
    pub(super) fn answer_failure(&mut self, failure: &KeyFailure) -> HangUpCause {
        count(&mut self.counters.mikey_failures, failure.name());
        match failure {
            KeyFailure::Mikey(mikey::Error::UnexpectedResponder(_)) => {
                HangUpCause::UnexpectedResponder
            }
            KeyFailure::Mikey(_) | KeyFailure::OtherCaller | KeyFailure::OtherRoom => {
                HangUpCause::KeyManagement
            }
        }
    }

    /// RFC 3261 section 21.5.5: 504 is for a server that we asked and that did not answer. The
    /// offer is not to blame, so it is no 488, and the same INVITE may succeed later.
    pub(super) fn kms_silent(&mut self) -> Refusal {
        self.counters.kms_timeouts += 1;
        Refusal::with_text(504, "The KMS does not answer")
    }

    /// Calls of ours can be keyed by MIKEY-TICKET.
    #[must_use]
    pub fn with_initiator(self, initiator: InitiatorConfig) -> Self {
        Self { initiator: Some(initiator), ..self }
    }
}
