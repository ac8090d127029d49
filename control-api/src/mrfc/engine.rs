//! The machine: one handler per event, transitions by value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mrfp_core::mp;

use super::admission::Refusal;
use super::call::{Call, Stage};
use super::conference_state::Joining;
use super::config::{MrfcConfig, SHARD_TIMEOUT_NS, SecurityPolicy};
use super::counters::MrfcCounters;
use super::dialling::Dials;
use super::kept_tickets::KeptTickets;
use super::keying::{Keying, SessionKeys};
use super::keys::Parties;
use super::offers::Negotiation;
use super::refer::{self, Referrals};
use super::rooms::{Place, Rooms};
use super::shards::Shards;
use super::subscriptions::{self, Subscriptions};
use super::tickets::InitiatorConfig;
use super::timers::{Timer, Timers};
use super::{Action, CallId, Caller, Event, ResolveId};
use crate::kms::TicketResolver;
use crate::mikey::uri::normalise;
use crate::mikey::{NtpTime, Responder};

/// The MRFC: events in, actions out. After every `handle` and `handle_timeout`, poll actions until
/// there are none.
pub struct Mrfc {
    pub(super) config: MrfcConfig,
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) rooms: Rooms,
    pub(super) shards: Shards,
    pub(super) responder: Option<Responder>,
    pub(super) initiator: Option<InitiatorConfig>,
    pub(super) kept_tickets: KeptTickets,
    /// The KMS, where it is in this process.
    pub(super) kms: Option<Arc<dyn TicketResolver>>,
    pub(super) counters: MrfcCounters,
    /// By normalised URI, so that another spelling is not another user.
    pub(super) user_calls: BTreeMap<String, usize>,
    pub(super) by_termination: BTreeMap<mp::TerminationId, CallId>,
    pub(super) by_resolve: BTreeMap<ResolveId, CallId>,
    /// Terminations whose call is gone and whose `Subtracted` is due.
    pub(super) subtracting: BTreeMap<mp::TerminationId, mp::ShardId>,
    pub(super) subscriptions: Subscriptions,
    pub(super) referrals: Referrals,
    pub(super) dials: Dials,
    pub(super) timers: Timers,
    pub(super) actions: VecDeque<Action>,
    pub(super) last_id: u64,
    pub(super) shutdown: Shutdown,
}

/// An INVITE that begins a call.
struct Invitation {
    room: String,
    from: Caller,
    to: String,
    offer: Option<Vec<u8>>,
}

/// The time, read once per turn by whoever drives the MRFC.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub monotonic_ns: u64,
    /// Wall clock.
    pub ntp: NtpTime,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shutdown {
    No,
    Draining,
    Drained,
}

/// What a handler needs from outside.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) random: &'a mut dyn FnMut(&mut [u8]),
}

impl Mrfc {
    /// An MRFC without calls. Without a responder every `a=key-mgmt` is refused.
    #[must_use]
    pub fn new(config: MrfcConfig, responder: Option<Responder>) -> Self {
        Self {
            shards: Shards::new(&config.shards),
            config,
            responder,
            initiator: None,
            kept_tickets: KeptTickets::default(),
            kms: None,
            calls: BTreeMap::new(),
            rooms: Rooms::default(),
            counters: MrfcCounters::default(),
            user_calls: BTreeMap::new(),
            by_termination: BTreeMap::new(),
            by_resolve: BTreeMap::new(),
            subtracting: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            referrals: Referrals::default(),
            dials: Dials::default(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            last_id: 0,
            shutdown: Shutdown::No,
        }
    }

    /// Tickets are resolved and issued by a KMS in this process; [`Action::Resolve`] comes no more.
    #[must_use]
    pub fn with_kms(self, kms: Arc<dyn TicketResolver>) -> Self {
        Self { kms: Some(kms), ..self }
    }

    /// Takes an event in. `random` is the node's source of key material and session-ids.
    pub fn handle(&mut self, now: Now, random: &mut dyn FnMut(&mut [u8]), event: Event) {
        let mut turn = Turn { now, random };
        match event {
            Event::Invite { call, room, from, to, offer } => {
                self.counters.calls_invited += 1;
                let invitation = Invitation { room, from, to, offer };
                if let Err(refusal) = self.invite(&mut turn, call, invitation) {
                    self.refuse(call, refusal);
                }
            }
            Event::Reinvite { call, offer } => self.reinvite(&mut turn, call, offer.as_deref()),
            Event::Ended { call } => self.ended(&turn, call),
            Event::Mp { shard, event } => self.media_plane(&mut turn, shard, event),
            Event::Resolved { resolve, response } => {
                self.resolved(&mut turn, resolve, response.as_deref());
            }
            Event::Subscribe { subscription: id, room, from, within, expires } => {
                self.subscribe(now, subscriptions::Request { id, room, from, within, expires });
            }
            Event::Resubscribe { subscription, expires } => {
                self.resubscribe(now, subscription, expires);
            }
            Event::Notified { subscription, delivered } => self.notified(subscription, delivered),
            Event::Refer { subscription: id, room, from, within, call, target, method } => {
                let request = refer::Request { id, room, from, within, call, target, method };
                self.refer(&mut turn, request);
            }
            Event::Ringing { call } => self.ringing(call),
            Event::Reanswered { call, answer } => self.reanswered(&mut turn, call, answer),
            Event::Answered { call, answer } => self.answered(now, call, answer.as_deref()),
            Event::DialFailed { call, status } => self.dial_failed(now, call, status),
            Event::Shutdown => self.shut_down(&turn),
        }
        self.settle(now);
        self.check_drained();
    }

    /// Takes note that time has passed. `random` as for [`Self::handle`].
    pub fn handle_timeout(&mut self, now: Now, random: &mut dyn FnMut(&mut [u8])) {
        let mut turn = Turn { now, random };
        while let Some(timer) = self.timers.expired(now.monotonic_ns) {
            match timer {
                Timer::Call(call) => self.call_timed_out(&mut turn, call),
                Timer::Rekeying(call) => self.rekeying_due(&mut turn, call),
                Timer::Recovery(call) => self.recovery_over(now, call),
                Timer::Subtract(termination) => {
                    // The shard is past help; what it holds is not ours to count any more.
                    self.counters.shard_timeouts += 1;
                    let shard = self.subtracting.remove(&termination);
                    self.shards.remove_termination(shard.expect("a timer has its Termination"));
                }
                Timer::Notify(context) => self.notify_due(now, context),
                Timer::Subscription(subscription) => self.subscription_expired(subscription),
            }
        }
        self.settle(now);
        self.check_drained();
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], on the monotonic clock in nanoseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &MrfcCounters {
        &self.counters
    }

    /// Calls in progress, the unanswered ones included.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// No call, no room, no Termination, nothing asked and unanswered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let empty = self.calls.is_empty() && self.subtracting.is_empty();
        if empty {
            assert!(self.rooms.is_empty());
            assert!(self.user_calls.is_empty());
            assert!(self.by_termination.is_empty());
            assert!(self.by_resolve.is_empty());
            assert!(self.subscriptions.is_empty());
            assert!(self.referrals.is_empty());
            assert!(self.dials.is_empty());
            assert!(self.timers.next_ns().is_none());
        }
        empty
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown != Shutdown::No
    }

    pub(super) fn user_calls(&self, from: &str) -> usize {
        self.user_calls.get(&normalise(from)).copied().unwrap_or(0)
    }

    fn invite(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        invitation: Invitation,
    ) -> Result<(), Refusal> {
        assert!(!self.calls.contains_key(&id), "a CallId names one call");
        let Invitation { room: called, from, to, offer } = invitation;
        let makes_room = self.config.focus.factory.as_deref() == Some(called.as_str());
        let room = if makes_room { random_session_id(turn.random) } else { called };
        self.check_admission(&room, makes_room, &from.uri, &to)?;
        let mut negotiation = match &offer {
            Some(offer) => Some(Negotiation::begin(Some(offer), &self.config, &room)?),
            // What we offer has no keys.
            None if self.config.security != SecurityPolicy::PlainAllowed => {
                return Err(Refusal::offer_missing());
            }
            None => None,
        };
        let place = self.place(&room, &to, makes_room)?;
        let keying = match &negotiation {
            Some(negotiation) => {
                let parties = Parties { caller: &from.uri, called: &to };
                let offered = negotiation.message.key_management.as_ref();
                self.respond(turn, &parties, offered)?
            }
            None => Keying::UNKEYED,
        };
        if makes_room {
            self.actions.push_back(Action::Room { call: id, room: room.clone() });
        }

        self.last_id += 2;
        let termination = mp::TerminationId(self.last_id);
        let Place { context, shard, .. } = place;
        self.enter(&room, &place, id, &from.uri, termination);
        self.open_floors(turn, &room);
        let floor = self.first_floor(&room, negotiation.as_mut(), false);
        let since_ns = turn.now.monotonic_ns;
        self.begin_call(turn, id, termination, keying, |stage| Call {
            room,
            entity: from.entity(id),
            caller: from,
            joining: Joining::DialedIn,
            called: to,
            target: None,
            referred_by: None,
            nickname: None,
            muted: false,
            since_ns,
            context,
            termination,
            shard,
            negotiation,
            floor,
            bundle: None,
            stage,
        });
        Ok(())
    }

    /// Puts a call into every index.
    pub(super) fn enter(
        &mut self,
        room: &str,
        place: &Place,
        id: CallId,
        user: &str,
        termination: mp::TerminationId,
    ) {
        self.rooms.join(room, place, id);
        self.shards.add_termination(place.shard);
        *self.user_calls.entry(normalise(user)).or_insert(0) += 1;
        self.by_termination.insert(termination, id);
    }

    /// Whatever members may call their room: its URI, and its Contacts, which the factory's rooms
    /// are known by.
    pub(super) fn uris(&self, room: &str) -> Vec<String> {
        let uri = &self.rooms.get(room).expect("a call's room exists").uri;
        let contacts = self.config.focus.contact_hosts.iter();
        let contacts = contacts.map(|host| format!("sip:{room}@{host}"));
        let others: BTreeSet<String> = contacts.filter(|contact| contact != uri).collect();
        std::iter::once(uri.clone()).chain(others).collect()
    }

    /// Where the traffic of that party is counted.
    pub(super) fn realm(&self, caller: &Caller) -> mp::RealmId {
        caller.source.map_or(mp::RealmId::default(), |source| self.config.realms.of(source))
    }

    /// Where a call to that room goes.
    pub(super) fn place(
        &self,
        room: &str,
        called: &str,
        makes_room: bool,
    ) -> Result<Place, Refusal> {
        if let Some(room) = self.rooms.get(room) {
            return Ok(Place { context: room.context, shard: room.shard, uri: room.uri.clone() });
        }
        let shard = self.shards.choose().ok_or_else(|| Refusal::unavailable("No media plane"))?;
        let uri = if makes_room { with_user(called, room) } else { called.to_owned() };
        Ok(Place { context: mp::ContextId(self.last_id + 1), shard, uri })
    }

    /// Sends the reservation that `call.stage` holds.
    pub(super) fn reserve(&mut self, now: Now, id: CallId, call: Call) {
        let Stage::AwaitReserved(reservation) = &call.stage else {
            unreachable!("only a reservation is sent");
        };
        let message = call.negotiation.as_ref().map(|negotiation| &negotiation.message);
        let secure = message.is_some_and(|message| message.secure);
        let keyed = message.is_some_and(|message| message.key_management.is_some());
        let security = match &reservation.keys {
            SessionKeys::Agreed(keys) => {
                // Key management on an m-line in the clear is refused with the offer.
                assert!(secure);
                mp::Security::TlsPsk { identity: keys.identity.clone(), psk: keys.psk.clone() }
            }
            SessionKeys::Offered(transfer) => {
                mp::Security::TlsPskAwaited { identity: transfer.psk_identity() }
            }
            SessionKeys::None => {
                // A Termination that is to have a key is never reserved without it.
                assert!(!keyed);
                call.negotiation.as_ref().map_or(mp::Security::Plain, Negotiation::unkeyed_security)
            }
        };
        let command = mp::Command::ReserveAndConfigure(Box::new(mp::ReserveAndConfigure {
            context: call.context,
            switching: self
                .config
                .rooms
                .chat(&call.room)
                .switching(self.uris(&call.room), self.floor_control(&call.room)),
            termination: call.termination,
            security,
            setup: call.negotiation.as_ref().map_or(mp::Setup::Passive, Negotiation::setup),
            session_id: reservation.session_id.clone(),
            remote_path: message.map(|message| message.path.clone()),
            member: call.member(),
            realm: self.realm(&call.caller),
            file_transfer: message.is_some_and(|message| message.file.is_some()),
            accept_types: message.map_or_else(String::new, |m| m.accept_types.clone()),
            accept_wrapped_types: message
                .map_or_else(String::new, |m| m.accept_wrapped_types.clone()),
            direction: message.map_or(mp::Direction::SendRecv, |message| message.direction),
            max_size_bytes: message.and_then(|message| message.max_size_bytes),
            own_port: reservation.own_port,
        }));
        self.actions.push_back(Action::Command { shard: call.shard, command });
        self.timers.set(Timer::Call(id), now.monotonic_ns + SHARD_TIMEOUT_NS);
        self.keep(id, call);
    }
}

/// 120 bits in characters that a URI takes as they are (RFC 4975 section 14.1 asks for 80).
pub(super) fn random_session_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 15];
    random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Globally unique (RFC 8866 section 5.2); 63 bits, as some peers read it as a signed number.
pub(super) fn random_sdp_session_id(random: &mut dyn FnMut(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_be_bytes(bytes) >> 1
}

/// The URI of another user at the same host.
fn with_user(uri: &str, user: &str) -> String {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("sip", uri));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}:{user}@{host}")
}
