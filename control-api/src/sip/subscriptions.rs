//! SUBSCRIBE, REFER and NOTIFY (RFC 6665, RFC 3515), for the conference event package (RFC 4575)
//! and for what becomes of a REFER.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::{Header, HeadersExt, Method, Param, Request, Scheme, StatusCode, Uri};
use rsipstack::transaction::transaction::Transaction;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::dialog::{Table, dialog_number};
use super::gate::{ALLOW, ALLOW_EVENTS};
use super::incoming::{Refusal, respond};
use super::invite::{self, add_to_tag, caller, new_tag, room, source_of};
use super::peer::{Peer, contact_uri, unescape_user};
use crate::mrfc::{
    CONFERENCE_INFO, CallId, Caller, Content, Event, Notice, ReferMethod, SubscribeAnswer,
    SubscriptionId,
};

/// One subscription.
pub(super) struct Subscription {
    peer: Arc<Peer>,
    /// Of the dialog it is in.
    dialog: u64,
    /// Event header value of our notifications, as the subscriber wrote it.
    event: String,
    /// Our Contact header value.
    contact: String,
    /// The SUBSCRIBE that waits for the MRFC's answer.
    pending: Option<oneshot::Sender<Reply>>,
    /// Cancelled once that is on its way: a notification may overtake it (RFC 6665 section 4.4.1),
    /// but it would confuse many.
    answered: CancellationToken,
    /// It was granted once.
    established: bool,
    /// A REFER began it: that is answered 202 (RFC 3515 section 2.4.2).
    refer: bool,
    /// Its subscriber does not want to be notified (RFC 4488).
    silent: bool,
}

/// The answer to a SUBSCRIBE.
struct Reply {
    status: u16,
    headers: Vec<Header>,
}

/// All subscriptions.
#[derive(Default)]
pub(super) struct SubscriptionTable {
    subscriptions: HashMap<SubscriptionId, Subscription>,
    /// By dialog and event: RFC 6665 section 4.5.1 tells subscriptions in one dialog apart so.
    by_dialog: BTreeMap<(u64, String), SubscriptionId>,
}

/// What a SUBSCRIBE or REFER wants.
struct Wanted {
    event: String,
    expires: Option<Duration>,
    refer: Option<Refer>,
}

/// What a REFER wants.
struct Refer {
    target: String,
    method: ReferMethod,
    silent: bool,
}

/// Of what, by whom and in which call.
struct Asked {
    room: String,
    from: Caller,
    within: Option<CallId>,
}

impl Wanted {
    fn read(request: &Request) -> Result<Self, Refusal> {
        if request.method != Method::Refer {
            let event = event(request).ok_or(Refusal::new(489))?;
            return Ok(Self { event, expires: expires(request)?, refer: None });
        }
        let refer = Refer::read(request)?;
        // RFC 3515 section 2.4.6: the number of the REFER tells its notifications from others'.
        let cseq = request.cseq_header().and_then(|cseq| cseq.seq());
        let event = format!("refer;id={}", cseq.map_err(|_| Refusal::new(400))?);
        Ok(Self { event, expires: None, refer: Some(refer) })
    }

    fn into_event(self, subscription: SubscriptionId, asked: Asked, table: &mut Table) -> Event {
        let Asked { room, from, within } = asked;
        match self.refer {
            None => Event::Subscribe { subscription, room, from, within, expires: self.expires },
            Some(Refer { target, method, .. }) => {
                let call = CallId(table.next_number());
                Event::Refer { subscription, room, from, within, call, target, method }
            }
        }
    }
}

impl Refer {
    fn read(request: &Request) -> Result<Self, Refusal> {
        let value = request.headers.iter().find_map(|header| match header {
            Header::ReferTo(value) => Some(value.value().to_owned()),
            Header::Other(name, value)
                if name.eq_ignore_ascii_case("refer-to") || name.eq_ignore_ascii_case("r") =>
            {
                Some(value.clone())
            }
            _ => None,
        });
        let value = value.ok_or(Refusal::new(400))?;
        let uri = match value.split_once('<') {
            Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
            None => value.split(';').next().unwrap_or_default(),
        };
        let mut uri = Uri::try_from(uri.trim()).map_err(|_| Refusal::new(400))?;
        if !matches!(uri.scheme, Some(Scheme::Sip)) {
            return Err(Refusal::new(416));
        }
        let mut method = None;
        uri.params.retain(|parameter| match parameter {
            Param::Method(value) => {
                method = Some(value.to_string());
                false
            }
            Param::Other(name, value) if name.value().eq_ignore_ascii_case("method") => {
                method = value.as_ref().map(|value| value.value().to_owned());
                false
            }
            _ => true,
        });
        uri.headers.clear();
        unescape_user(&mut uri);
        let method = match method.as_deref() {
            None | Some("INVITE") => ReferMethod::Invite,
            Some("BYE") => ReferMethod::Bye,
            // RFC 4579 section 5.7 has others; none is supported.
            Some(_) => return Err(Refusal::new(501)),
        };
        let silent = request.headers.iter().any(|header| {
            matches!(header, Header::Other(name, value)
                if name.eq_ignore_ascii_case("refer-sub")
                    && value.trim().eq_ignore_ascii_case("false"))
        });
        Ok(Self { target: uri.to_string(), method, silent })
    }
}

impl Subscription {
    fn new(
        peer: Arc<Peer>,
        dialog: u64,
        contact: String,
        wanted: &Wanted,
        pending: Option<oneshot::Sender<Reply>>,
        answered: CancellationToken,
    ) -> Self {
        Self {
            peer,
            dialog,
            event: wanted.event.clone(),
            contact,
            pending,
            answered,
            established: false,
            refer: wanted.refer.is_some(),
            silent: wanted.refer.as_ref().is_some_and(|refer| refer.silent),
        }
    }
}

/// A SUBSCRIBE on its way through the MRFC.
struct Admitted {
    event: Event,
    reply: oneshot::Receiver<Reply>,
    answered: CancellationToken,
}

impl SubscriptionTable {
    fn insert(&mut self, id: SubscriptionId, subscription: Subscription) {
        let key = (subscription.dialog, subscription.event.clone());
        self.by_dialog.insert(key, id);
        self.subscriptions.insert(id, subscription);
    }

    fn remove(&mut self, id: SubscriptionId) -> Option<Subscription> {
        let subscription = self.subscriptions.remove(&id)?;
        self.by_dialog.remove(&(subscription.dialog, subscription.event.clone()));
        Some(subscription)
    }

    /// The peer of a dialog that has subscriptions.
    fn peer(&self, dialog: u64) -> Option<Arc<Peer>> {
        let mut of_dialog = self.by_dialog.range((dialog, String::new())..);
        let ((number, _), id) = of_dialog.next()?;
        (*number == dialog).then(|| Arc::clone(&self.subscriptions[id].peer))
    }
}

impl Agent {
    pub(super) async fn handle_subscribe(self: &Arc<Self>, mut transaction: Transaction) {
        let refusal = match self.events.try_reserve() {
            Ok(permit) => match self.admit_subscribe(&mut transaction) {
                Ok(Admitted { event, reply, answered }) => {
                    permit.send(event);
                    let answered = answered.drop_guard();
                    return self.spawn(async move {
                        if let Ok(Reply { status, headers }) = reply.await {
                            respond(&mut transaction, status, headers).await;
                        }
                        drop(answered);
                        // The transaction repeats the answer as often as it is asked again.
                        while transaction.receive().await.is_some() {}
                    });
                }
                Err(refusal) => refusal,
            },
            Err(_) => self.overload(),
        };
        self.metrics.count_subscribe(refusal.status);
        respond(&mut transaction, refusal.status, refusal.headers).await;
    }

    /// Makes a subscription of a SUBSCRIBE or REFER, or finds the one it is for.
    fn admit_subscribe(&self, transaction: &mut Transaction) -> Result<Admitted, Refusal> {
        let wanted = Wanted::read(&transaction.original)?;
        if dialog_number(&transaction.original).is_none() {
            return self.admit_new_subscription(transaction, wanted);
        }
        let request = &transaction.original;
        let mut table = self.table();
        let number = dialog_number(request).ok_or(Refusal::new(481))?;
        let call = table.find(request);
        let peer = match call.and_then(|call| table.get_mut(call)) {
            Some(dialog) => Arc::clone(&dialog.peer),
            None => table.subscriptions.peer(number).ok_or(Refusal::new(481))?,
        };
        if !peer.matches(request) {
            return Err(Refusal::new(481));
        }
        let cseq = request.cseq_header().and_then(|cseq| cseq.seq());
        if !peer.advance(cseq.map_err(|_| Refusal::new(400))?) {
            return Err(Refusal::new(500));
        }
        peer.retarget(request);
        let (sender, reply) = oneshot::channel();
        let pending = Some(sender);
        let answered = CancellationToken::new();
        let known = table.subscriptions.by_dialog.get(&(number, wanted.event.clone())).copied();
        if let Some(id) = known {
            let subscription = table.subscriptions.subscriptions.get_mut(&id);
            let subscription = subscription.expect("the tables agree");
            if subscription.pending.is_some() {
                // The MRFC answers in no time: this one came in the same breath.
                return Err(self.overload());
            }
            subscription.pending = pending;
            subscription.answered = answered.clone();
            let event = Event::Resubscribe { subscription: id, expires: wanted.expires };
            return Ok(Admitted { event, reply, answered });
        }
        // A subscription that was never there, in a dialog that is no call's (any more).
        let call = call.ok_or(Refusal::new(481))?;
        let id = SubscriptionId(table.next_number());
        let room = room(&transaction.original.uri).ok_or(Refusal::new(404))?;
        let contact = self.contact(&room_user(&transaction.original), &peer.connection);
        let subscription =
            Subscription::new(peer, number, contact, &wanted, pending, answered.clone());
        table.subscriptions.insert(id, subscription);
        let asked = Asked {
            room,
            from: caller(&transaction.original, invite::source(&transaction.original)),
            within: Some(call),
        };
        let event = wanted.into_event(id, asked, &mut table);
        Ok(Admitted { event, reply, answered })
    }

    fn admit_new_subscription(
        &self,
        transaction: &mut Transaction,
        wanted: Wanted,
    ) -> Result<Admitted, Refusal> {
        let request = &mut transaction.original;
        if contact_uri(request).is_none() {
            return Err(Refusal::new(400));
        }
        let room = room(&request.uri).ok_or(Refusal::new(404))?;
        let from = caller(request, invite::source(request));
        let connection = transaction.connection.clone().ok_or(Refusal::new(500))?;
        let mut table = self.table();
        let number = table.next_number();
        let local_tag = new_tag(number);
        add_to_tag(request, &local_tag);
        let source = source_of(request, &connection);
        let contact = self.contact(&room_user(request), &connection);
        let peer = Peer::new(&transaction.original, local_tag, connection, source);
        let peer = Arc::new(peer.ok_or(Refusal::new(400))?);
        let (sender, reply) = oneshot::channel();
        let answered = CancellationToken::new();
        let id = SubscriptionId(number);
        let subscription =
            Subscription::new(peer, number, contact, &wanted, Some(sender), answered.clone());
        table.subscriptions.insert(id, subscription);
        let event = wanted.into_event(id, Asked { room, from, within: None }, &mut table);
        Ok(Admitted { event, reply, answered })
    }

    /// The MRFC's answer to a SUBSCRIBE.
    pub(super) fn answer_subscribe(&self, id: SubscriptionId, answer: SubscribeAnswer) {
        let mut table = self.table();
        let Some(subscription) = table.subscriptions.subscriptions.get_mut(&id) else {
            return;
        };
        let Some(pending) = subscription.pending.take() else {
            return;
        };
        let mut headers = Vec::new();
        let status = match answer {
            SubscribeAnswer::Granted { expires } => {
                headers.push(Header::Contact(subscription.contact.clone().into()));
                headers.push(Header::Expires(expires.as_secs().to_string().into()));
                headers.push(Header::Allow(ALLOW.into()));
                headers.push(Header::Other("Allow-Events".into(), ALLOW_EVENTS.into()));
                headers.extend(subscription.peer.record_route());
                if subscription.silent {
                    headers.push(Header::Other("Refer-Sub".into(), "false".into()));
                }
                if subscription.refer && !subscription.established { 202 } else { 200 }
            }
            SubscribeAnswer::TooBrief { expires_min } => {
                headers.push(Header::MinExpires(expires_min.as_secs().to_string().into()));
                423
            }
            SubscribeAnswer::Refused { status, retry } => {
                if retry {
                    let seconds = self.config.retry_after.as_secs();
                    headers.push(Header::RetryAfter(seconds.to_string().into()));
                }
                status
            }
        };
        let granted = (200..300).contains(&status);
        subscription.established |= granted;
        // A refused refresh leaves the subscription as it was (RFC 6665 section 4.2.1.3); one that
        // never came to be is forgotten.
        if !subscription.established {
            table.subscriptions.remove(id);
        }
        drop(table);
        self.metrics.count_subscribe(status);
        // A transaction that is gone needs no answer.
        let _ = pending.send(Reply { status, headers });
    }

    /// Sends a NOTIFY.
    pub(super) fn notify(self: &Arc<Self>, id: SubscriptionId, notice: Notice) {
        let mut table = self.table();
        let Some(subscription) = table.subscriptions.subscriptions.get(&id) else {
            return;
        };
        if subscription.silent {
            if matches!(notice, Notice::Terminated { .. }) {
                table.subscriptions.remove(id);
            }
            return;
        }
        let peer = Arc::clone(&subscription.peer);
        let answered = subscription.answered.clone();
        let mut request = peer.request(Method::Notify);
        request.headers.push(Header::Contact(subscription.contact.clone().into()));
        request.headers.push(Header::Event(subscription.event.clone().into()));
        let (state, content, last) = match notice {
            Notice::Active { expires, content } => {
                (format!("active;expires={}", expires.as_secs()), Some(content), false)
            }
            Notice::Terminated { reason, content } => {
                (format!("terminated;reason={reason}"), content, true)
            }
        };
        request.headers.push(Header::SubscriptionState(state.into()));
        match content {
            Some(Content::ConferenceInfo(document)) => {
                request.headers.push(Header::ContentType(CONFERENCE_INFO.into()));
                request.body = document;
            }
            Some(Content::Status(status)) => {
                // RFC 3515 section 2.4.5 and RFC 3420.
                let status = StatusCode::from(status);
                request.headers.push(Header::ContentType("message/sipfrag;version=2.0".into()));
                request.body = format!("SIP/2.0 {} {}\r\n", status.code(), status.text()).into();
            }
            None => {}
        }
        if last {
            table.subscriptions.remove(id);
        }
        drop(table);
        self.metrics.notifies_sent.increment();
        self.requests_open.add(1);
        let agent = Arc::clone(self);
        self.spawn(async move {
            answered.cancelled().await;
            let status = agent.transact(request, &peer).await;
            agent.requests_open.add(-1);
            let delivered = matches!(status, Some(200..=299));
            if !delivered {
                agent.metrics.notifies_failed.increment();
                agent.table().subscriptions.remove(id);
            }
            if !last {
                agent.send(Event::Notified { subscription: id, delivered }).await;
            }
        });
    }
}

/// Expires (RFC 3261 section 20.19), zero to 2**32-1 seconds.
fn expires(request: &Request) -> Result<Option<Duration>, Refusal> {
    let header = request.headers.iter().find_map(|header| match header {
        Header::Expires(value) => Some(value.value().trim().to_owned()),
        _ => None,
    });
    let Some(value) = header else { return Ok(None) };
    let seconds = value.parse::<u32>().map_err(|_| Refusal::new(400))?;
    Ok(Some(Duration::from_secs(u64::from(seconds))))
}

/// The Event value: package and `id`, which name a subscription in its dialog. Other parameters
/// are none of ours (RFC 6665 section 8.4).
fn event(request: &Request) -> Option<String> {
    let value = request.headers.iter().find_map(|header| match header {
        Header::Event(value) => Some(value.value()),
        Header::Other(name, value)
            if name.eq_ignore_ascii_case("event") || name.eq_ignore_ascii_case("o") =>
        {
            Some(value.as_str())
        }
        _ => None,
    })?;
    let mut parts = value.split(';').map(str::trim);
    let package = parts.next()?.to_ascii_lowercase();
    let id = parts.find_map(|part| part.strip_prefix("id="));
    Some(match id {
        Some(id) => format!("{package};id={id}"),
        None => package,
    })
}

/// The user part as it is in the Request-URI.
fn room_user(request: &Request) -> String {
    request.uri.user().unwrap_or_default().to_owned()
}
