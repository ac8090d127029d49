//! REFER to a conference (RFC 4579 sections 5.5 and 5.11, RFC 3515): its members bring others in and throw
//! them out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::admission::Refusal;
use super::conference_document::endpoint_entity;
use super::config::ReferPolicy;
use super::counters::{HangUpCause, count};
use super::dialling::Dialled;
use super::engine::Turn;
use super::offering::DIAL_TIMEOUT_NS;
use super::{
    Action, CallId, Caller, Content, Mrfc, Notice, ReferMethod, SubscribeAnswer, SubscriptionId,
};
use crate::mikey::uri::normalise;

/// Who wants to know what becomes of the calls of the focus.
#[derive(Debug, Default)]
pub(super) struct Referrals(BTreeMap<CallId, SubscriptionId>);

/// A REFER to a conference.
pub(super) struct Request {
    pub(super) id: SubscriptionId,
    pub(super) room: String,
    pub(super) from: Caller,
    pub(super) within: Option<CallId>,
    pub(super) call: CallId,
    pub(super) target: String,
    pub(super) method: ReferMethod,
}

impl Referrals {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn call_of(&self, id: SubscriptionId) -> Option<CallId> {
        self.0.iter().find(|(_, subscription)| **subscription == id).map(|(call, _)| *call)
    }
}

impl Mrfc {
    pub(super) fn refer(&mut self, turn: &mut Turn<'_>, request: Request) {
        let id = request.id;
        let done = match request.method {
            ReferMethod::Invite => self.bring_in(turn, request),
            ReferMethod::Bye => self.throw_out(turn, &request),
        };
        if let Err(status) = done {
            count(&mut self.counters.refers_refused, status);
            let answer = SubscribeAnswer::Refused { status, retry: status == 503 };
            self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
        }
    }

    /// The entity of who refers, where it may.
    fn admit_refer(&self, request: &Request) -> Result<String, u16> {
        if self.is_shutting_down() {
            return Err(503);
        }
        if self.rooms.get(&request.room).is_none() {
            return Err(404);
        }
        let member = self.member(&request.room, &request.from, request.within);
        let operator = self.is_operator(&request.from);
        match (member, self.config.focus.referrers) {
            (Some(entity), _) if operator => Ok(entity),
            (Some(entity), ReferPolicy::Members) => Ok(entity),
            (None, _) if operator => Ok(request.from.key()),
            (Some(_), ReferPolicy::Operators) | (None, _) => Err(403),
        }
    }

    fn bring_in(&mut self, turn: &mut Turn<'_>, request: Request) -> Result<(), u16> {
        let by = self.admit_refer(&request)?;
        let Request { id, room, target, call, .. } = request;
        let dialling = self.check_dial(&room, None, &target, None)?;
        self.counters.refers_accepted += 1;
        self.accept_refer(id);
        self.referrals.0.insert(call, id);
        let dialled = Dialled { room, call, target, referred_by: Some(by) };
        self.call_out(turn, dialling, dialled);
        Ok(())
    }

    fn throw_out(&mut self, turn: &Turn<'_>, request: &Request) -> Result<(), u16> {
        self.admit_refer(request)?;
        let target = normalise(&request.target);
        let is_meant = |id: CallId| {
            let entity = &self.calls[&id].entity;
            *entity == target || endpoint_entity(entity, id) == request.target
        };
        let meant: Vec<CallId> =
            self.rooms.calls(&request.room).filter(|call| is_meant(*call)).collect();
        if meant.is_empty() {
            return Err(404);
        }
        self.counters.refers_accepted += 1;
        self.accept_refer(request.id);
        self.report(request.id, 200);
        let refusal = Refusal::with_text(403, "Thrown out of the conference");
        for id in meant {
            let call = self.calls.remove(&id).expect("a member has its call");
            self.end(turn.now, id, call, &refusal, HangUpCause::Kicked);
        }
        Ok(())
    }

    /// 202, and the first notification (RFC 3515 section 2.4.4).
    fn accept_refer(&mut self, id: SubscriptionId) {
        let expires = REFER_EXPIRES;
        let answer = SubscribeAnswer::Granted { expires };
        self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
        let notice = Notice::Active { expires, content: Content::Status(100) };
        self.actions.push_back(Action::Notify { subscription: id, notice });
    }

    /// Tells who referred what has become of it; a final status is the last word.
    pub(super) fn refer_progress(&mut self, call: CallId, status: u16) {
        let Some(id) = self.referrals.0.get(&call).copied() else {
            return;
        };
        if status < 200 {
            let content = Content::Status(status);
            let notice = Notice::Active { expires: REFER_EXPIRES, content };
            return self.actions.push_back(Action::Notify { subscription: id, notice });
        }
        self.referrals.0.remove(&call);
        self.report(id, status);
    }

    fn report(&mut self, id: SubscriptionId, status: u16) {
        let content = Some(Content::Status(status));
        let notice = Notice::Terminated { reason: "noresource", content };
        self.actions.push_back(Action::Notify { subscription: id, notice });
    }

    /// SUBSCRIBE within the subscription that a REFER made; false where it is none.
    pub(super) fn resubscribe_refer(
        &mut self,
        id: SubscriptionId,
        asked: Option<Duration>,
    ) -> bool {
        let Some(call) = self.referrals.call_of(id) else {
            return false;
        };
        let expires = asked.unwrap_or(REFER_EXPIRES).min(REFER_EXPIRES);
        let answer = SubscribeAnswer::Granted { expires };
        self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
        let content = Content::Status(100);
        let notice = if expires.is_zero() {
            self.referrals.0.remove(&call);
            Notice::Terminated { reason: "timeout", content: Some(content) }
        } else {
            Notice::Active { expires, content }
        };
        self.actions.push_back(Action::Notify { subscription: id, notice });
        true
    }

    /// Nobody wants to know any more; the call goes on.
    pub(super) fn refer_forgotten(&mut self, id: SubscriptionId) {
        self.referrals.0.retain(|_, subscription| *subscription != id);
    }
}

/// Longer than a call of ours can be unanswered, so that it never ends before it has its result.
const REFER_EXPIRES: Duration = Duration::from_secs(180);

const _: () = assert!(REFER_EXPIRES.as_secs() * 1_000_000_000 > DIAL_TIMEOUT_NS);
