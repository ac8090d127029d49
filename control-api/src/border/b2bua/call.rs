//! A call: one task, which owns the dialogs of both legs and carries each message from one to the other. A
//! subscription outside of a call is the same without media.
//!
//! What asks the border waits for its outcome before it looks at the next message, so that nothing overtakes
//! an offer or an answer.

mod initial;
mod within;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::{Header, Headers, Method, Request, Response};
use rsipstack::transaction::transaction::Transaction;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::{Action, BorderCallId, Event, ExchangeId, Leg, Refusal};
use super::Shared;
use super::dialogs::{Branch, new_tag};
use super::headers::{contact_parameters, cross, made};
use super::passing::{Target, caller_of};
use super::side::{Side, answer};
use super::transactions::Server;
use crate::sip::dialing::{Sent, cancel};
use crate::sip::multipart::{Unreadable, session_description_among};
use crate::sip::peer::{Peer, contact_uri};
pub(super) use initial::bare_value;

/// What happens to a call.
pub(super) enum Input {
    /// A request within one of its dialogs.
    Request {
        side: usize,
        transaction: Box<Transaction>,
    },
    /// To an INVITE that was answered by us.
    Ack {
        server: u32,
        request: Request,
    },
    Cancel {
        server: u32,
        request: Request,
    },
    /// The transaction of a request of a peer is over.
    ServerGone {
        server: u32,
    },
    /// A response to a request of ours, as it came.
    Response {
        response: Response,
    },
    /// A request of ours had none, or its connection broke: what the stack makes of that (RFC 3261 section
    /// 8.1.3.1).
    Failed {
        client: u32,
        response: Response,
    },
    /// The transaction of a request of ours is over.
    ClientGone {
        client: u32,
    },
    Border(Action),
}

/// A request on its way from one leg to the other, and its responses back.
struct Passage {
    /// Names the transaction of the peer that asks.
    number: u32,
    /// Names that of ours; another one with each next hop.
    client: u32,
    client_open: bool,
    from: Leg,
    method: Method,
    /// Within which dialogs; none of the request that begins the call.
    branch: Option<usize>,
    server: Server,
    /// As it went out.
    sent: Option<Sent>,
    /// Something but a final response has come.
    provisional: bool,
    /// A final one has.
    concluded: bool,
    /// It is to be cancelled, with these headers, as soon as that may be.
    cancel: Option<Vec<Header>>,
    cancelled: bool,
    /// The offer in it.
    offer: Option<ExchangeId>,
    /// A 2xx went back whose ACK is due.
    ack_due: Option<AckDue>,
}

/// What is to be done when an ACK comes, or does not.
struct AckDue {
    branch: usize,
    /// The 2xx had an offer; the ACK has its answer.
    offer: Option<ExchangeId>,
    /// Who was asked has its ACK already.
    passed: bool,
    /// Who asked is to be hung up, which must wait for the ACK (RFC 3261 section 15).
    hang_up: Option<Vec<Header>>,
}

/// The task's state.
pub(super) struct Call {
    id: BorderCallId,
    shared: Arc<Shared>,
    /// That of the caller and that of the callee.
    sides: [Arc<Side>; 2],
    inbox: UnboundedReceiver<Input>,
    myself: UnboundedSender<Input>,
    /// What came while the border was asked.
    deferred: VecDeque<Input>,
    /// It has media, and is an INVITE's.
    has_media: bool,
    branches: Vec<Branch>,
    passages: Vec<Passage>,
    /// Offers without an answer, and whose they are.
    offers: Vec<(ExchangeId, Leg)>,
    targets: VecDeque<Target>,
    /// The one in use.
    target: Option<Target>,
    /// The request that began it as it went out, to one target after the other.
    attempts: Vec<Sent>,
    /// Of the request that began it, with what the border has made of its offer.
    body: Vec<u8>,
    source: SocketAddr,
    last_number: u32,
    last_exchange: u32,
    /// Of dialogs that no response has named.
    tag: String,
    /// When the call is given up unanswered, the session not refreshed, or the subscription over.
    deadline: Option<Instant>,
    /// Since when nothing is left but transactions.
    over: Option<Instant>,
    /// The border knows of it.
    begun: bool,
}

/// Begins a call or a subscription with the request of this transaction.
pub(super) async fn begin(side: &Arc<Side>, mut transaction: Transaction, source: SocketAddr) {
    let request = &transaction.original;
    let Some(other) = side.other() else { return };
    if contact_uri(request).is_none() {
        return answer(&mut transaction, 400, Vec::new()).await;
    }
    let targets = match other.targets(side, request, source, transaction.connection.as_ref()) {
        Ok(targets) => targets,
        Err(status) => {
            let after = side.retry_after_seconds(u64::from(source.port()));
            let headers = match status {
                503 => vec![Header::RetryAfter(after.to_string().into())],
                _ => Vec::new(),
            };
            return answer(&mut transaction, status, headers).await;
        }
    };
    let has_media = request.method == Method::Invite;
    if has_media && transaction.send_trying().await.is_err() {
        return;
    }
    let shared = Arc::clone(&side.shared);
    let id = shared.next_call();
    let (myself, inbox) = unbounded_channel();
    shared.calls().insert(id, myself.clone());
    let call = Call {
        id,
        sides: [Arc::clone(side), other],
        inbox,
        myself,
        deferred: VecDeque::new(),
        has_media,
        branches: Vec::new(),
        passages: Vec::new(),
        offers: Vec::new(),
        targets: targets.into(),
        target: None,
        attempts: Vec::new(),
        body: transaction.original.body.clone(),
        source,
        last_number: 0,
        last_exchange: 0,
        tag: new_tag(id.0),
        deadline: Some(Instant::now() + shared.config.unanswered_max),
        over: None,
        begun: false,
        shared,
    };
    side.spawn(call.run(transaction));
}

impl Call {
    async fn run(mut self, transaction: Transaction) {
        self.start(transaction).await;
        while !self.is_finished() {
            let input = match self.deferred.pop_front() {
                Some(input) => Some(input),
                None => match self.next_moment() {
                    Some(at) => tokio::select! {
                        input = self.inbox.recv() => input,
                        () = sleep_until(at) => None,
                    },
                    None => self.inbox.recv().await,
                },
            };
            match input {
                Some(input) => self.take(input).await,
                None => self.on_time(Instant::now()).await,
            }
        }
        self.shared.calls().remove(&self.id);
        // What found us between two looks at the table.
        self.inbox.close();
        while let Ok(input) = self.inbox.try_recv() {
            if let Input::Request { mut transaction, .. } = input {
                answer(&mut transaction, 481, Vec::new()).await;
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.over
            .is_some_and(|over| self.passages.is_empty() || over + self.patience() < Instant::now())
    }

    /// What a transaction may last at most, and half of that again.
    fn patience(&self) -> Duration {
        self.sides.iter().map(|side| side.config.t1 * 96).max().unwrap_or_default()
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Request { side, transaction } => self.asked(side, *transaction).await,
            Input::Ack { server, request } => self.acknowledged(server, Some(&request)).await,
            Input::ServerGone { server } => self.server_gone(server).await,
            Input::Cancel { server, request } => self.cancelled(server, &request).await,
            Input::Response { response } => self.responded(response).await,
            Input::Failed { client, response } => self.failed_to_send(client, response).await,
            Input::ClientGone { client } => self.client_gone(client).await,
            Input::Border(Action::Release { reason, .. }) => {
                if self.over.is_none() {
                    self.shared.metrics.calls_released.increment();
                    self.release(&reason).await;
                }
            }
            // An outcome that came too late.
            Input::Border(_) => {}
        }
        self.passages.retain(|passage| {
            passage.client_open || passage.ack_due.is_some() || !passage.server.is_answered()
        });
    }

    fn next_moment(&self) -> Option<Instant> {
        let reliable = self.branches.iter().flat_map(|branch| &branch.unacknowledged);
        let repeated = reliable.map(|reliable| reliable.next);
        let lingers = self.over.map(|over| over + self.patience());
        let deadline = self.deadline.filter(|_| self.over.is_none());
        repeated.filter(|_| self.over.is_none()).chain(lingers).chain(deadline).min()
    }

    async fn on_time(&mut self, now: Instant) {
        if self.over.is_some() {
            return;
        }
        self.repeat_reliable(now).await;
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        if !self.has_media {
            self.end().await;
        } else if self.branches.iter().any(|branch| branch.confirmed) {
            self.shared.metrics.sessions_expired.increment();
            //= RFC 4028 section 10: it SHOULD send a BYE
            self.release("SIP;cause=408;text=\"session not refreshed\"").await;
        } else {
            self.give_up(408, Vec::new(), "SIP;cause=408;text=\"not answered\"").await;
        }
    }

    fn side(&self, leg: Leg) -> &Arc<Side> {
        &self.sides[leg as usize]
    }

    fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    fn passage(&mut self, by: impl Fn(&Passage) -> bool) -> Option<&mut Passage> {
        self.passages.iter_mut().find(|passage| by(passage))
    }

    // The border.

    async fn tell(&self, event: Event) {
        if self.shared.events.send(event).await.is_err() {
            tracing::debug!("no border takes the event");
        }
    }

    /// Hands an offer to the border; what goes on to the other leg.
    async fn offer(&mut self, from: Leg, sdp: Vec<u8>) -> Result<(ExchangeId, Vec<u8>), Refusal> {
        self.last_exchange += 1;
        let exchange = ExchangeId(self.last_exchange);
        self.tell(Event::Offer { call: self.id, exchange, from, sdp }).await;
        let outcome = self.outcome(exchange, true).await;
        match outcome {
            Ok(sdp) => {
                self.offers.push((exchange, from));
                Ok((exchange, sdp))
            }
            Err(refusal) => {
                self.shared.metrics.refusals.increment();
                Err(refusal)
            }
        }
    }

    /// The same with an answer.
    async fn answer(&mut self, exchange: ExchangeId, sdp: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        self.tell(Event::Answer { call: self.id, exchange, sdp }).await;
        let outcome = self.outcome(exchange, false).await;
        if outcome.is_err() {
            self.shared.metrics.refusals.increment();
        }
        outcome
    }

    async fn outcome(&mut self, wanted: ExchangeId, of_offer: bool) -> Result<Vec<u8>, Refusal> {
        let until = Instant::now() + BORDER_PATIENCE;
        while let Ok(Some(input)) = timeout_at(until, self.inbox.recv()).await {
            match input {
                Input::Border(Action::Offer { exchange, outcome, .. })
                    if of_offer && exchange == wanted =>
                {
                    return outcome;
                }
                Input::Border(Action::Answer { exchange, outcome, .. })
                    if !of_offer && exchange == wanted =>
                {
                    return outcome;
                }
                other => self.deferred.push_back(other),
            }
        }
        Err(Refusal { status: 500, warning: None, retry_after: None })
    }

    fn close_offer(&mut self, exchange: ExchangeId) -> bool {
        let before = self.offers.len();
        self.offers.retain(|(open, _)| *open != exchange);
        self.offers.len() < before
    }

    /// An offer comes to nothing.
    async fn withdraw(&mut self, exchange: ExchangeId) {
        if self.close_offer(exchange) && self.over.is_none() {
            self.tell(Event::Withdrawn { call: self.id, exchange }).await;
        }
    }

    // Messages as they go on.

    /// A request of a peer as it leaves within the dialog with `peer` on the other leg.
    fn passed_request(&self, request: &Request, from: Leg, peer: &Peer) -> Request {
        let (here, there) = (self.side(from), self.side(from.other()));
        let mut passed = peer.request(request.method);
        passed.headers.retain(|header| !matches!(header, Header::MaxForwards(_)));
        passed
            .headers
            .push(Header::MaxForwards(forwards_left(&request.headers).to_string().into()));
        passed.headers.extend(cross(&request.headers, here, there));
        if request.headers.iter().any(|header| matches!(header, Header::Contact(_))) {
            let uri = there.contact_uri("", self.side(from.other()).next_hop_of(peer).r#type);
            passed.headers.push(contact(&uri, &request.headers));
        }
        passed.body = request.body.clone();
        passed
    }

    /// A response of the leg that was asked, as the one that has asked gets it.
    fn passed_response(
        &self,
        passage: &Passage,
        response: &Response,
        tag: Option<&str>,
    ) -> Response {
        let (asked, asker) = (self.side(passage.from.other()), self.side(passage.from));
        passage.server.passed(response, asked, asker, tag)
    }

    // Ends.

    /// The border, or time, ends the call.
    async fn release(&mut self, reason: &str) {
        let headers = vec![Header::Reason(reason.to_owned().into())];
        self.give_up_with(480, headers.clone(), headers).await;
    }

    /// The request that began the call, if it still waits, is refused with that status; what was begun on
    /// either leg is cancelled or hung up.
    async fn give_up(&mut self, status: u16, headers: Vec<Header>, reason: &str) {
        let reason = vec![Header::Reason(reason.to_owned().into())];
        self.give_up_with(status, headers, reason).await;
    }

    async fn give_up_with(&mut self, status: u16, refusal: Vec<Header>, reason: Vec<Header>) {
        for at in 0..self.passages.len() {
            let tag = self.tag.clone();
            let passage = &mut self.passages[at];
            if !passage.server.is_answered() {
                let status = if passage.branch.is_none() { status } else { 487 };
                passage.server.refuse(status, &tag, refusal.clone());
            }
            self.cancel_passage(at, reason.clone());
        }
        if let Some(branch) = self.branches.iter().position(|branch| branch.confirmed) {
            for leg in [Leg::Caller, Leg::Callee] {
                self.hang_up_leg(branch, leg, reason.clone()).await;
            }
        }
        self.end().await;
    }

    /// Cancels an INVITE of ours, as soon as that may be.
    fn cancel_passage(&mut self, at: usize, headers: Vec<Header>) {
        let passage = &mut self.passages[at];
        let open = passage.client_open && !passage.concluded;
        if passage.method != Method::Invite || !open || passage.cancelled {
            return;
        }
        //= RFC 3261 section 9.1: If no provisional response has been received, the CANCEL request MUST
        //= NOT be sent
        if !passage.provisional {
            passage.cancel = Some(headers);
            return;
        }
        passage.cancelled = true;
        let side = Arc::clone(&self.sides[passage.from.other() as usize]);
        if let Some(sent) = &passage.sent {
            send_cancel(&side, sent.clone(), headers);
        }
    }

    /// BYE to one leg, when the ACK that it waits for or owes has been seen to.
    async fn hang_up_leg(&mut self, branch: usize, leg: Leg, headers: Vec<Header>) {
        let asked_here = |passage: &&mut Passage| passage.from == leg;
        if let Some(due) =
            self.passages.iter_mut().filter(asked_here).find_map(|passage| passage.ack_due.as_mut())
        {
            due.hang_up = Some(headers);
            return;
        }
        let owed = self.passages.iter().position(|passage| {
            passage.from != leg && passage.ack_due.as_ref().is_some_and(|due| !due.passed)
        });
        if let Some(at) = owed {
            self.pass_ack(at, None).await;
        }
        self.side(leg).hang_up(self.branches[branch].peer(leg), headers);
    }

    /// Nothing but transactions is left.
    async fn end(&mut self) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(Instant::now());
        if self.begun {
            self.begun = false;
            self.tell(Event::Ended { call: self.id }).await;
        }
    }
}

/// However the task ends, the table forgets it; a border that was told of the call is told of its end.
impl Drop for Call {
    fn drop(&mut self) {
        self.shared.calls().remove(&self.id);
        if self.begun {
            let _ = self.shared.events.try_send(Event::Ended { call: self.id });
        }
    }
}

fn send_cancel(side: &Arc<Side>, sent: Sent, headers: Vec<Header>) {
    use rsipstack::transaction::key::{TransactionKey, TransactionRole};
    let mut request = cancel(&sent.request);
    request.headers.extend(headers);
    let Ok(key) = TransactionKey::from_request(&request, TransactionRole::Client) else { return };
    let endpoint = side.endpoint.clone();
    let mut transaction = Transaction::new_client(key, request, endpoint, Some(sent.connection));
    transaction.destination = Some(sent.next_hop);
    let metrics = Arc::clone(&side.shared.metrics);
    metrics.requests_open.add(1);
    side.spawn(async move {
        if transaction.send().await.is_ok() {
            while transaction.receive().await.is_some() {}
        }
        metrics.requests_open.add(-1);
    });
}

/// What is left of Max-Forwards; the gate has refused 0.
pub(super) fn forwards_left(headers: &Headers) -> u32 {
    let value = headers.iter().find_map(|header| match header {
        Header::MaxForwards(value) => value.value().trim().parse::<u32>().ok(),
        _ => None,
    });
    value.map_or(FORWARDS_DEFAULT, |value| value.saturating_sub(1))
}

pub(super) fn contact(uri: &str, of: &Headers) -> Header {
    Header::Contact(format!("<{uri}>{}", contact_parameters(of)).into())
}

/// Where the session description is in a body.
pub(super) fn description(
    headers: &Headers,
    body: &[u8],
) -> Result<Option<Range<usize>>, Unreadable> {
    if body.is_empty() {
        return Ok(None);
    }
    let value = |name: &str| {
        let of_name = headers.iter().find(|header| header.name().eq_ignore_ascii_case(name));
        of_name.map(|header| header.value().trim().to_owned())
    };
    let content_type = value("Content-Type").or_else(|| value("c")).unwrap_or_default();
    let found = session_description_among(content_type.as_bytes(), body)?;
    let encoding = value("Content-Encoding").or_else(|| value("e")).unwrap_or_default();
    let plain = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
    if found.is_some() && !plain { Err(Unreadable) } else { Ok(found) }
}

/// What answers no offer describes nothing that the border knows, so it does not go on: the 200 to an OPTIONS.
pub(super) fn drop_description(response: &mut Response) {
    if !matches!(description(&response.headers, &response.body), Ok(None)) {
        response.body.clear();
    }
}

/// Headers of a refusal by the border.
fn refusal_headers(refusal: &Refusal, side: &Side) -> Vec<Header> {
    let mut headers = Vec::new();
    if let Some((code, text)) = &refusal.warning {
        let text = text.replace(['"', '\\', '\r', '\n'], " ");
        let value = format!("{code:03} {} \"{text}\"", side.contact_udp);
        headers.push(made("Warning", value));
    }
    if let Some(after) = refusal.retry_after {
        headers.push(Header::RetryAfter(after.as_secs().to_string().into()));
    }
    headers
}

/// A refusal of 1xx or 2xx would leave who asks hanging: our own mistake.
fn refusal_status(refusal: &Refusal) -> u16 {
    if (300..=699).contains(&refusal.status) { refusal.status } else { 500 }
}

/// RFC 3261 section 8.1.1.6: the initial value SHOULD be 70, one of which is used up.
const FORWARDS_DEFAULT: u32 = 69;

/// The border asks a shard at most, which answers within milliseconds.
const BORDER_PATIENCE: Duration = Duration::from_secs(10);

/// Requests under way in one call, either way.
const PASSAGES_MAX: usize = 32;

/// Early dialogs of one call that are passed through.
const BRANCHES_MAX: usize = 32;
