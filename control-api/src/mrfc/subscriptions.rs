//! The conference event package (RFC 4575, RFC 6665): who may know of a conference, and what it is
//! told when.
//!
//! A room has a state to tell (a *watch*) while somebody subscribes to it. Changes are gathered:
//! the first one after a quiet time is told at once, the next ones together when the interval is
//! over. A subscriber that has not answered the last notification gets no partial one until it
//! has; what happened meanwhile comes with the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mrfp_core::mp::ContextId;

use super::call::Call;
use super::conference_document::{Extent, document, full_content, partial_content};
use super::conference_state::{ConferenceState, Disconnection};
use super::config::SubscriptionPolicy;
use super::counters::count;
use super::engine::Now;
use super::timers::Timer;
use super::{Action, CallId, Caller, Content, Mrfc, Notice, SubscribeAnswer, SubscriptionId};

/// The subscriptions of the node and the rooms they are to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    watches: BTreeMap<ContextId, Watch>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    /// Rooms that something happened in since they were last looked at.
    touched: BTreeSet<ContextId>,
}

/// A room somebody subscribes to.
#[derive(Debug)]
struct Watch {
    state: ConferenceState,
    subscriptions: BTreeSet<SubscriptionId>,
    /// When changes were last told.
    told_ns: Option<u64>,
    /// Somebody who could be told something has not been.
    behind: bool,
    /// Endpoints that are gone and how long they are shown; those just gone have no time yet.
    departures: VecDeque<Departure>,
    departures_undated: Vec<(String, CallId)>,
}

#[derive(Debug)]
struct Departure {
    until_ns: u64,
    entity: String,
    call: CallId,
}

#[derive(Debug)]
struct Subscription {
    context: ContextId,
    /// The user that subscribes, as the conference knows it.
    entity: String,
    expires_ns: u64,
    /// Of the next document.
    version: u32,
    /// How much of the conference's history has been told.
    seen: u64,
    /// Notifications that are not answered.
    unanswered: u32,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.watches.is_empty()
    }

    pub(super) fn of_room(&self, context: ContextId) -> usize {
        self.watches.get(&context).map_or(0, |watch| watch.subscriptions.len())
    }
}

impl Subscription {
    fn next_version(&mut self) -> u32 {
        let version = self.version;
        self.version = version.wrapping_add(1);
        version
    }

    fn remaining(&self, now: Now) -> Duration {
        Duration::from_nanos(self.expires_ns.saturating_sub(now.monotonic_ns))
    }
}

/// A request to subscribe.
pub(super) struct Request {
    pub(super) id: SubscriptionId,
    pub(super) room: String,
    pub(super) from: Caller,
    pub(super) within: Option<CallId>,
    pub(super) expires: Option<Duration>,
}

impl Mrfc {
    /// SUBSCRIBE outside a subscription.
    pub(super) fn subscribe(&mut self, now: Now, request: Request) {
        let id = request.id;
        match self.admit_subscription(&request) {
            Ok((context, entity, expires)) => self.begin(now, id, context, entity, expires),
            Err(answer) => {
                if let SubscribeAnswer::Refused { status, .. } = &answer {
                    count(&mut self.counters.subscriptions_refused, *status);
                }
                self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
            }
        }
    }

    fn admit_subscription(
        &self,
        request: &Request,
    ) -> Result<(ContextId, String, Duration), SubscribeAnswer> {
        let refuse = |status| SubscribeAnswer::Refused { status, retry: false };
        if self.is_shutting_down() {
            return Err(SubscribeAnswer::Refused { status: 503, retry: true });
        }
        let expires = self.subscription_expires(request.expires)?;
        let context = self.rooms.get(&request.room).ok_or_else(|| refuse(404))?.context;
        let entity = self.member(&request.room, &request.from, request.within);
        let entity = match (entity, self.config.focus.subscribers) {
            (Some(entity), _) => entity,
            // RFC 6665 section 4.2.1.2: 403 for who may not know.
            (None, SubscriptionPolicy::Members) if !self.is_operator(&request.from) => {
                return Err(refuse(403));
            }
            (None, SubscriptionPolicy::Members | SubscriptionPolicy::Anyone) => request.from.key(),
        };
        let focus = &self.config.focus;
        if self.subscriptions.len() >= focus.subscriptions_max {
            return Err(SubscribeAnswer::Refused { status: 503, retry: true });
        }
        if self.subscriptions.of_room(context) >= focus.room_subscriptions_max {
            return Err(SubscribeAnswer::Refused { status: 480, retry: true });
        }
        Ok((context, entity, expires))
    }

    /// How long a subscription lasts. RFC 6665 section 4.2.1.1: the notifier may shorten what was
    /// asked for; too short is refused only below an hour, and never where it says 0.
    fn subscription_expires(&self, asked: Option<Duration>) -> Result<Duration, SubscribeAnswer> {
        let focus = &self.config.focus;
        match asked {
            None => Ok(SUBSCRIPTION_EXPIRES_DEFAULT.min(focus.subscription_expires_max)),
            Some(Duration::ZERO) => Ok(Duration::ZERO),
            Some(asked) if asked < focus.subscription_expires_min => {
                Err(SubscribeAnswer::TooBrief { expires_min: focus.subscription_expires_min })
            }
            Some(asked) => Ok(asked.min(focus.subscription_expires_max)),
        }
    }

    /// The entity of the member that asks, by the call it asks in or by its name. Anonymous members
    /// share a name, so only their calls tell them.
    pub(super) fn member(
        &self,
        room: &str,
        from: &Caller,
        within: Option<CallId>,
    ) -> Option<String> {
        if let Some(call) = within {
            let call = self.calls.get(&call)?;
            return (call.room == room && call.is_answered()).then(|| call.entity.clone());
        }
        if from.anonymous {
            return None;
        }
        let key = from.key();
        let mut members = self.rooms.calls(room).map(|call| &self.calls[&call]);
        members.any(|call| call.entity == key && call.is_answered()).then_some(key)
    }

    /// May do what every member may.
    pub(super) fn is_operator(&self, from: &Caller) -> bool {
        !from.anonymous && self.config.focus.operators.contains(&from.key())
    }

    fn begin(
        &mut self,
        now: Now,
        id: SubscriptionId,
        context: ContextId,
        entity: String,
        expires: Duration,
    ) {
        self.counters.subscriptions_accepted += 1;
        self.watch(context);
        let expires_ns = now.monotonic_ns + nanoseconds(expires);
        let subscription =
            Subscription { context, entity, expires_ns, version: 0, seen: 0, unanswered: 0 };
        self.subscriptions.subscriptions.insert(id, subscription);
        let watch = self.subscriptions.watches.get_mut(&context).expect("just made sure");
        watch.subscriptions.insert(id);
        self.timers.set(Timer::Subscription(id), expires_ns);
        self.grant(now, id, expires);
    }

    /// SUBSCRIBE within a subscription: a refresh, or its end.
    pub(super) fn resubscribe(&mut self, now: Now, id: SubscriptionId, asked: Option<Duration>) {
        if self.resubscribe_refer(id, asked) {
            return;
        }
        if !self.subscriptions.subscriptions.contains_key(&id) {
            let answer = SubscribeAnswer::Refused { status: 481, retry: false };
            return self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
        }
        match self.subscription_expires(asked) {
            Ok(expires) => self.grant(now, id, expires),
            Err(answer) => {
                self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
            }
        }
    }

    /// RFC 6665 section 4.2.1.2: the answer, and right behind it a notification with all there is.
    fn grant(&mut self, now: Now, id: SubscriptionId, expires: Duration) {
        let answer = SubscribeAnswer::Granted { expires };
        self.actions.push_back(Action::AnswerSubscribe { subscription: id, answer });
        if expires.is_zero() {
            return self.finish_subscription(id, "timeout");
        }
        let subscription = self.subscription_mut(id);
        subscription.expires_ns = now.monotonic_ns + nanoseconds(expires);
        subscription.unanswered += 1;
        let (context, expires_ns) = (subscription.context, subscription.expires_ns);
        self.timers.set(Timer::Subscription(id), expires_ns);
        let (point, body) = self.full_document(id);
        self.subscription_mut(id).seen = point;
        self.counters.notifications_full += 1;
        let notice = Notice::Active { expires, content: Content::ConferenceInfo(body) };
        self.actions.push_back(Action::Notify { subscription: id, notice });
        self.arm(context);
    }

    fn full_document(&mut self, id: SubscriptionId) -> (u64, Vec<u8>) {
        let context = self.subscription_mut(id).context;
        let version = self.subscription_mut(id).next_version();
        let state = &self.subscriptions.watches[&context].state;
        (state.point(), document(&state.uri, Extent::Full, version, &full_content(state)))
    }

    /// A notification was answered, or came to nothing.
    pub(super) fn notified(&mut self, id: SubscriptionId, delivered: bool) {
        let Some(subscription) = self.subscriptions.subscriptions.get_mut(&id) else {
            if !delivered {
                self.refer_forgotten(id);
            }
            return;
        };
        if !delivered {
            //= RFC 6665 section 4.2.2: If the NOTIFY request fails [...] the notifier MUST remove
            //= the corresponding subscription
            self.counters.notifications_failed += 1;
            return self.drop_subscription(id);
        }
        subscription.unanswered = subscription.unanswered.saturating_sub(1);
        let context = subscription.context;
        let watch = self.subscriptions.watches.get_mut(&context).expect("it has a subscription");
        watch.behind |= subscription.unanswered == 0 && subscription.seen < watch.state.point();
        self.subscriptions.touched.insert(context);
    }

    pub(super) fn subscription_expired(&mut self, id: SubscriptionId) {
        self.finish_subscription(id, "timeout");
    }

    /// Ends a subscription with a last full notification.
    fn finish_subscription(&mut self, id: SubscriptionId, reason: &'static str) {
        // Who may not know any more is told no more than that.
        let body = (reason != REJECTED).then(|| self.full_document(id).1);
        self.counters.notifications_full += u64::from(body.is_some());
        let content = body.map(Content::ConferenceInfo);
        let notice = Notice::Terminated { reason, content };
        self.actions.push_back(Action::Notify { subscription: id, notice });
        self.drop_subscription(id);
    }

    /// Forgets a subscription, and the watch with its last.
    fn drop_subscription(&mut self, id: SubscriptionId) {
        self.timers.clear(Timer::Subscription(id));
        let Some(gone) = self.subscriptions.subscriptions.remove(&id) else {
            return;
        };
        let watch = self.subscriptions.watches.get_mut(&gone.context).expect("it had one");
        watch.subscriptions.remove(&id);
        if watch.subscriptions.is_empty() {
            self.subscriptions.watches.remove(&gone.context);
            self.timers.clear(Timer::Notify(gone.context));
        }
    }

    /// Makes the state of a room that had nobody to tell it to.
    fn watch(&mut self, context: ContextId) {
        if self.subscriptions.watches.contains_key(&context) {
            return;
        }
        let (name, room) = self.rooms.of_context(context).expect("the room exists");
        let members_max = self.config.rooms.chat(name).members_max;
        let (uri, name) = (room.uri.clone(), name.to_owned());
        let mut state = ConferenceState::new(uri, name, members_max);
        state.set_locked(room.locked);
        for id in &room.members {
            let call = &self.calls[id];
            if let Some(endpoint) = call.endpoint(&self.config.focus) {
                state.set(&call.entity, *id, endpoint);
            }
        }
        let watch = Watch {
            state,
            subscriptions: BTreeSet::new(),
            told_ns: None,
            behind: false,
            departures: VecDeque::new(),
            departures_undated: Vec::new(),
        };
        self.subscriptions.watches.insert(context, watch);
    }

    /// Keeps a call, and tells whoever wants to know what has become of it.
    pub(super) fn keep(&mut self, id: CallId, call: Call) {
        if let Some(watch) = self.subscriptions.watches.get_mut(&call.context)
            && let Some(endpoint) = call.endpoint(&self.config.focus)
        {
            watch.state.set(&call.entity, id, endpoint);
            self.subscriptions.touched.insert(call.context);
        }
        self.calls.insert(id, call);
    }

    /// A call has left its room.
    pub(super) fn departed(&mut self, id: CallId, call: &Call, how: Disconnection) {
        let Some(watch) = self.subscriptions.watches.get_mut(&call.context) else {
            return;
        };
        if watch.state.disconnect(&call.entity, id, how) {
            watch.departures_undated.push((call.entity.clone(), id));
            self.subscriptions.touched.insert(call.context);
        }
        let members_only = self.config.focus.subscribers == SubscriptionPolicy::Members;
        let operator = self.config.focus.operators.contains(&call.entity);
        if !members_only || operator || watch.state.is_present(&call.entity) {
            return;
        }
        let subscriptions = watch.subscriptions.iter().copied();
        let its: Vec<SubscriptionId> = subscriptions
            .filter(|id| self.subscriptions.subscriptions[id].entity == call.entity)
            .collect();
        for subscription in its {
            self.finish_subscription(subscription, REJECTED);
        }
    }

    pub(super) fn room_locked(&mut self, context: ContextId, locked: bool) {
        if let Some(watch) = self.subscriptions.watches.get_mut(&context) {
            watch.state.set_locked(locked);
            self.subscriptions.touched.insert(context);
        }
    }

    /// RFC 4575 section 3.3: all subscriptions end with the conference.
    pub(super) fn conference_ended(&mut self, context: ContextId) {
        let Some(watch) = self.subscriptions.watches.remove(&context) else {
            return;
        };
        self.timers.clear(Timer::Notify(context));
        for id in watch.subscriptions {
            self.timers.clear(Timer::Subscription(id));
            let subscription = self.subscriptions.subscriptions.remove(&id);
            let version = subscription.expect("a watch's subscription exists").next_version();
            let body = document(&watch.state.uri, Extent::Deleted, version, b"");
            let content = Some(Content::ConferenceInfo(body));
            let notice = Notice::Terminated { reason: "noresource", content };
            self.actions.push_back(Action::Notify { subscription: id, notice });
        }
    }

    /// Tells what has happened in this turn, now or when the interval is over.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some(context) = self.subscriptions.touched.pop_first() {
            let Some(watch) = self.subscriptions.watches.get_mut(&context) else {
                continue;
            };
            let until_ns = now.monotonic_ns + DEPARTED_SHOWN_NS;
            for (entity, call) in watch.departures_undated.drain(..) {
                watch.departures.push_back(Departure { until_ns, entity, call });
            }
            let point = watch.state.point();
            let subscriptions = &self.subscriptions.subscriptions;
            watch.behind |= watch.subscriptions.iter().any(|id| {
                let subscription = &subscriptions[id];
                subscription.unanswered == 0 && subscription.seen < point
            });
            let interval_ns = nanoseconds(self.config.focus.notify_interval);
            let due = watch.told_ns.is_none_or(|told| told + interval_ns <= now.monotonic_ns);
            if watch.behind && due {
                self.tell(now, context);
            } else {
                self.arm(context);
            }
        }
    }

    /// The interval is over, or a departure has been shown long enough.
    pub(super) fn notify_due(&mut self, now: Now, context: ContextId) {
        let Some(watch) = self.subscriptions.watches.get_mut(&context) else {
            return;
        };
        while watch.departures.front().is_some_and(|gone| gone.until_ns <= now.monotonic_ns) {
            let gone = watch.departures.pop_front().expect("just seen");
            watch.state.remove(&gone.entity, gone.call);
        }
        self.subscriptions.touched.insert(context);
        self.settle(now);
    }

    /// Sends every subscriber that can take it what it has not seen.
    fn tell(&mut self, now: Now, context: ContextId) {
        let Some(watch) = self.subscriptions.watches.get_mut(&context) else {
            return;
        };
        let point = watch.state.point();
        // Most subscribers have seen the same, so that one content serves them.
        let mut contents: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for id in &watch.subscriptions {
            let subscription = self.subscriptions.subscriptions.get_mut(id).expect("exists");
            if subscription.unanswered > 0 || subscription.seen == point {
                continue;
            }
            let seen = subscription.seen;
            let content =
                contents.entry(seen).or_insert_with(|| partial_content(&watch.state, seen));
            let version = subscription.next_version();
            let body = document(&watch.state.uri, Extent::Partial, version, content);
            subscription.seen = point;
            subscription.unanswered += 1;
            let expires = subscription.remaining(now);
            self.counters.notifications_partial += 1;
            let notice = Notice::Active { expires, content: Content::ConferenceInfo(body) };
            self.actions.push_back(Action::Notify { subscription: *id, notice });
        }
        let subscriptions = &self.subscriptions.subscriptions;
        let seen = watch.subscriptions.iter().map(|id| subscriptions[id].seen);
        watch.state.prune(seen.min().unwrap_or(point));
        watch.behind = false;
        watch.told_ns = Some(now.monotonic_ns);
        self.arm(context);
    }

    /// Sets the clock for what a room has to tell next.
    fn arm(&mut self, context: ContextId) {
        let Some(watch) = self.subscriptions.watches.get(&context) else {
            return;
        };
        let interval_ns = nanoseconds(self.config.focus.notify_interval);
        let tell = watch.behind.then(|| watch.told_ns.unwrap_or(0) + interval_ns);
        let departure = watch.departures.front().map(|gone| gone.until_ns);
        match tell.into_iter().chain(departure).min() {
            Some(deadline_ns) => self.timers.set(Timer::Notify(context), deadline_ns),
            None => self.timers.clear(Timer::Notify(context)),
        }
    }

    fn subscription_mut(&mut self, id: SubscriptionId) -> &mut Subscription {
        self.subscriptions.subscriptions.get_mut(&id).expect("the caller knows it exists")
    }

    /// Subscriptions to conferences of this node.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }
}

/// RFC 6665 section 4.1.3: the authorisation has ended, here with the membership.
const REJECTED: &str = "rejected";

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// RFC 4575 section 3.3: one hour.
const SUBSCRIPTION_EXPIRES_DEFAULT: Duration = Duration::from_secs(3600);

/// An endpoint that has left is shown this long, so that subscribers learn how it went.
pub const DEPARTED_SHOWN_NS: u64 = 5_000_000_000;
