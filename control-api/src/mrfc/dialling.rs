//! Calls that the focus makes (RFC 4579 section 5.5): for a member that refers it to somebody, and for
//! the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mrfp_core::mp::{self, RealmId};
use serde::{Deserialize, Serialize};

use super::admission::{Refusal, host_of};
use super::call::Call;
use super::conference_state::Joining;
use super::config::SecurityPolicy;
use super::engine::{Now, Turn};
use super::keying::Keying;
use super::keys::Parties;
use super::rooms::Place;
use super::{CallId, Caller, Mrfc};
use crate::mikey::uri::normalise;

/// How calls of the focus are protected.
#[derive(Clone, Debug, Default)]
pub struct DialPolicies {
    /// Where the realm has none of its own.
    pub default: DialPolicy,
    /// By the realm of the address that the INVITE goes to.
    pub realms: BTreeMap<RealmId, DialPolicy>,
    /// Where all of them go, whatever the host of the callee.
    pub proxy: Option<IpAddr>,
}

/// How a call of the focus is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DialPolicy {
    /// What is offered.
    pub security: DialSecurity,
    /// Who makes the ticket.
    pub ticket: TicketSource,
    /// Who opens it.
    pub opener: TicketOpener,
    /// Each responder gets keys of its own (RFC 6043 section 5.1.1): for calls to a group.
    pub key_forking: bool,
}

/// What a call of the focus offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DialSecurity {
    /// TCP/MSRP.
    Plain,
    /// TCP/TLS/MSRP, keyed by MIKEY-TICKET (TS 23.333 clause 5.20.2).
    Mikey,
}

/// Who makes the ticket of a call of the focus ("depending on the KMS and a local policy", TS 23.333
/// clause 5.20.2, note 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketSource {
    /// The KMS: modes 1 and 2 of RFC 6043 section 4.1.1.
    Kms,
    /// The MRFC: modes 3 and 4.
    Own,
}

/// Who opens the ticket of a call of the focus.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketOpener {
    /// The KMS, for the callee: modes 1 and 3 of RFC 6043 section 4.1.1.
    Kms,
    /// The callee, which shares the key of the ticket: modes 2 and 4.
    Callee,
}

/// Whom the operator wants called, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DialRequest {
    /// The room to call them into; made where it does not exist.
    pub room: String,
    /// The call this leads to.
    pub call: CallId,
    /// The URI to call, with its parameters.
    pub target: String,
    /// Another protection than the policy has.
    pub security: Option<DialSecurity>,
}

/// A call that may be made.
pub(super) struct Dialling {
    pub(super) place: Place,
    pub(super) callee: Caller,
    policy: DialPolicy,
}

/// What is known of a call besides.
pub(super) struct Dialled {
    pub(super) room: String,
    pub(super) call: CallId,
    pub(super) target: String,
    pub(super) referred_by: Option<String>,
}

/// Calls of ours that are unanswered.
#[derive(Debug, Default)]
pub(super) struct Dials(BTreeSet<CallId>);

impl Default for DialPolicy {
    fn default() -> Self {
        Self {
            security: DialSecurity::Plain,
            ticket: TicketSource::Kms,
            opener: TicketOpener::Kms,
            key_forking: false,
        }
    }
}

impl Dials {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remove(&mut self, call: CallId) {
        self.0.remove(&call);
    }
}

impl Mrfc {
    /// Calls somebody into a room, at the operator's wish. What becomes of it the room tells.
    ///
    /// # Errors
    /// The SIP status that a REFER would be refused with, or 404 for a room that cannot be made.
    pub fn dial(
        &mut self,
        now: Now,
        random: &mut dyn FnMut(&mut [u8]),
        request: DialRequest,
    ) -> Result<(), u16> {
        let DialRequest { room, call, target, security } = request;
        let place = match self.rooms.get(&room) {
            Some(_) => None,
            None => Some(self.place_of_new(&room).ok_or(404u16)?),
        };
        let dialling = self.check_dial(&room, place, &target, security)?;
        let mut turn = Turn { now, random };
        self.call_out(&mut turn, dialling, Dialled { room, call, target, referred_by: None });
        self.settle(now);
        Ok(())
    }

    /// Where a room goes that nobody has called yet, and what its URI is.
    fn place_of_new(&self, room: &str) -> Option<Place> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let hosts = self.config.domains.iter().chain(&self.config.focus.contact_hosts);
        let host = hosts.into_iter().next().filter(|_| room.bytes().all(is_plain))?;
        self.place(room, &format!("sip:{room}@{host}"), false).ok()
    }

    /// Whether somebody may be called into a room, and how; the status of the refusal.
    pub(super) fn check_dial(
        &self,
        room: &str,
        new: Option<Place>,
        target: &str,
        security: Option<DialSecurity>,
    ) -> Result<Dialling, u16> {
        let known = self.rooms.get(room).map(|known| Place {
            context: known.context,
            shard: known.shard,
            uri: known.uri.clone(),
        });
        let is_known = known.is_some();
        let place = known.or(new).ok_or(404u16)?;
        let callee = self.callee(target);
        let mut policy = self.dial_policy(&callee);
        policy.security = security.unwrap_or(policy.security);
        let possible = match policy.security {
            DialSecurity::Plain => self.config.security == SecurityPolicy::PlainAllowed,
            DialSecurity::Mikey => self.can_initiate(&policy, &callee.uri),
        };
        if !possible {
            return Err(488);
        }
        // A conference that is a member of itself would hear its own echo.
        let own = |uri: &String| normalise(uri) == callee.uri;
        if is_known && self.uris(room).iter().any(own) || own(&place.uri) {
            return Err(482);
        }
        let refused = |refusal: Refusal| refusal.status();
        self.check_admission(room, false, &callee.uri, &place.uri).map_err(refused)?;
        let rings = |call: &&Call| call.joining == Joining::DialedOut && !call.is_answered();
        let called = self.rooms.calls(room).map(|call| &self.calls[&call]);
        if called.filter(rings).any(|call| call.entity == callee.uri) {
            // It rings already.
            return Err(486);
        }
        if self.dials.0.len() >= self.config.focus.dials_max {
            return Err(503);
        }
        Ok(Dialling { place, callee, policy })
    }

    /// Whom a URI names; its signalling is where the INVITE goes.
    fn callee(&self, target: &str) -> Caller {
        let host = || host_of(target).parse().ok();
        let source = self.config.focus.dialling.proxy.or_else(host);
        Caller { source, ..Caller::from(normalise(target).as_str()) }
    }

    fn dial_policy(&self, callee: &Caller) -> DialPolicy {
        let policies = &self.config.focus.dialling;
        let own = policies.realms.get(&self.realm(callee));
        own.copied().unwrap_or(policies.default)
    }

    /// Begins a call of ours.
    pub(super) fn call_out(&mut self, turn: &mut Turn<'_>, dialling: Dialling, dialled: Dialled) {
        let Dialling { place, callee, policy } = dialling;
        let Dialled { room, call: id, target, referred_by } = dialled;
        let parties = Parties { caller: &place.uri, called: &callee.uri };
        let floors = self.config.rooms.chat(&room).floors.is_some();
        let keying = match policy.security {
            DialSecurity::Plain => Ok(Keying::UNKEYED),
            DialSecurity::Mikey => self.initiate(turn, &parties, &policy, floors),
        };
        let keying = match keying {
            Ok(keying) => keying,
            Err(failure) => {
                let refusal = self.ticket_failure(&failure);
                return self.refuse_or_report(id, Joining::DialedOut, refusal);
            }
        };
        self.last_id += 2;
        let termination = mp::TerminationId(self.last_id);
        self.enter(&room, &place, id, &callee.uri, termination);
        self.dials.0.insert(id);
        self.open_floors(turn, &room);
        let floor = self.first_floor(&room, None, policy.security == DialSecurity::Mikey);
        let since_ns = turn.now.monotonic_ns;
        self.begin_call(turn, id, termination, keying, |stage| Call {
            room,
            entity: callee.uri.clone(),
            caller: callee,
            joining: Joining::DialedOut,
            called: place.uri,
            target: Some(target),
            referred_by,
            nickname: None,
            muted: false,
            since_ns,
            context: place.context,
            termination,
            shard: place.shard,
            negotiation: None,
            floor,
            bundle: None,
            stage,
        });
    }
}
