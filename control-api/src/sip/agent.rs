//! The user agent: requests from the stack become events, actions become responses and requests.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rsipstack::EndpointBuilder;
use rsipstack::sip;
use rsipstack::sip::{Header, HeadersExt, Method, Request, SipMessage, StatusCode, Uri};
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::endpoint::{EndpointInnerRef, EndpointOption};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::transport_layer::TransportLayer;
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SipConfig;
use super::dialog::{
    Dialog, Identity, MergeKey, Pending, Phase, Table, contact_uri, unescape, unescape_user,
};
use super::gate::{self, ALLOW, Ignored, Verdict};
use super::metrics::{Gauge, SipMetrics};
use super::outgoing::finish;
use super::session::{IntervalTooSmall, Terms};
use super::wire;
use crate::mrfc::{CallId, Event};

/// The state every task shares.
pub(super) struct Agent {
    pub(super) config: SipConfig,
    pub(super) metrics: Arc<SipMetrics>,
    pub(super) cancel: CancellationToken,
    pub(super) endpoint: EndpointInnerRef,
    incoming: Mutex<TransactionReceiver>,
    pub(super) table: Mutex<Table>,
    events: mpsc::Sender<Event>,
    tasks: TaskTracker,
    pub(super) byes_open: Gauge,
    /// `host:port` of our Contact, by transport.
    pub(super) contact_udp: String,
    pub(super) contact_tcp: String,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agent").field("contact", &self.contact_udp).finish_non_exhaustive()
    }
}

impl Agent {
    pub(super) fn new(
        config: SipConfig,
        events: mpsc::Sender<Event>,
        udp: SocketAddr,
        tcp: SocketAddr,
        cancel: CancellationToken,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let option = EndpointOption {
            t1: config.t1,
            t2: config.t1 * 8,
            t4: config.t1 * 10,
            t1x64: config.t1 * 64,
            ..EndpointOption::default()
        };
        let endpoint = EndpointBuilder::new()
            .with_user_agent(&config.user_agent)
            .with_transport_layer(TransportLayer::new(cancel.clone()))
            .with_cancel_token(cancel.clone())
            .with_option(option)
            .build();
        let incoming = endpoint.incoming_transactions().expect("a new endpoint has its receiver");
        let contact = |bound: SocketAddr| match &config.contact_host {
            Some(host) => format!("{host}:{}", bound.port()),
            None => SipConnection::resolve_bind_address(bound).to_string(),
        };
        Arc::new(Self {
            contact_udp: contact(udp),
            contact_tcp: contact(tcp),
            config,
            metrics: Arc::default(),
            cancel,
            endpoint: endpoint.inner,
            incoming: Mutex::new(incoming),
            table: Mutex::default(),
            events,
            tasks,
            byes_open: Gauge::default(),
        })
    }

    /// Runs a task until it ends or the front shuts down.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        // Some 5 KB; an async block that captures a future and then awaits it holds it twice.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// A panic with the lock held left at most one call inconsistent: the others go on.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One message from a socket. What is returned goes back at once, past the stack.
    pub(super) async fn receive(
        self: &Arc<Self>,
        bytes: &[u8],
        transport: gate::Transport,
        source: SocketAddr,
        connection: SipConnection,
    ) -> Option<Vec<u8>> {
        let body = match gate::check(bytes, transport, source) {
            Verdict::Accept { body } => body,
            Verdict::Reject { status, response, .. } => {
                self.metrics.messages.increment();
                self.metrics.count_rejection(status);
                return Some(response);
            }
            Verdict::Ignore(why) => {
                self.count_ignored(why);
                return None;
            }
        };
        self.metrics.messages.increment();
        if bytes.starts_with(b"INVITE ") && self.is_overloaded(bytes) && !self.is_known(bytes) {
            // Without a transaction: a flood beyond the limits must not cost memory.
            self.metrics.overloads.increment();
            let extra = format!("Retry-After: {}\r\n", self.config.retry_after.as_secs());
            return gate::refuse(bytes, 503, "Service Unavailable", &extra, source);
        }
        let body = &bytes[body];
        if self.give_to_stack(bytes, body, transport, source, connection).await.is_err() {
            self.metrics.stack_refused.increment();
            return gate::refuse(bytes, 400, "Bad Request", "", source);
        }
        let transactions = self.handle_incoming().await;
        let starts_one = !bytes.starts_with(b"SIP/")
            && !bytes.starts_with(b"ACK ")
            && !bytes.starts_with(b"CANCEL ");
        if starts_one && transactions == 0 {
            self.metrics.retransmissions.increment();
        }
        None
    }

    fn count_ignored(&self, why: Ignored) {
        match why {
            Ignored::KeepAlive => {}
            Ignored::Response | Ignored::Ack => {
                self.metrics.messages.increment();
                self.metrics.dropped_malformed.increment();
            }
            Ignored::Unanswerable => {
                self.metrics.messages.increment();
                self.metrics.dropped_unanswerable.increment();
            }
        }
    }

    /// No room for another transaction or, where this INVITE begins a call, for another call.
    fn is_overloaded(&self, invite: &[u8]) -> bool {
        let open = self.endpoint.transactions.len();
        let held = open + self.endpoint.finished_transactions.len();
        let begins_call = || {
            let message = wire::Message::scan(invite);
            !message.first(wire::Name::To).is_some_and(wire::has_tag)
        };
        open >= self.config.transactions_open_max
            || held >= self.config.transactions_max
            || (self.table().len() >= self.config.calls_max && begins_call())
    }

    /// A request received before: its transaction answers it, whatever the load.
    fn is_known(&self, bytes: &[u8]) -> bool {
        let Ok(SipMessage::Request(request)) = SipMessage::try_from(bytes) else { return false };
        TransactionKey::from_request(&request, TransactionRole::Server).is_ok_and(|key| {
            self.endpoint.transactions.contains_key(&key)
                || self.endpoint.finished_transactions.contains_key(&key)
        })
    }

    async fn give_to_stack(
        self: &Arc<Self>,
        bytes: &[u8],
        body: &[u8],
        transport: gate::Transport,
        source: SocketAddr,
        connection: SipConnection,
    ) -> rsipstack::Result<()> {
        let mut message = SipMessage::try_from(bytes)?;
        // Without a Content-Length the stack takes no body; the gate knows better.
        match &mut message {
            SipMessage::Request(request) => body.clone_into(&mut request.body),
            SipMessage::Response(response) => body.clone_into(&mut response.body),
        }
        let transport = match transport {
            gate::Transport::Udp => sip::Transport::Udp,
            gate::Transport::Tcp => sip::Transport::Tcp,
        };
        if let SipMessage::Request(request) = &message
            && request.method == Method::Ack
        {
            self.acknowledged(request);
        }
        let message = SipConnection::update_msg_received(message, source, transport)?;
        let from = SipAddr::new(transport, source.into());
        self.endpoint.on_received_message(message, connection, &from).await
    }

    /// Takes what the stack made of the message: with every message given to it the queue is
    /// emptied, so it can not grow.
    async fn handle_incoming(self: &Arc<Self>) -> usize {
        let mut count = 0;
        loop {
            let next = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok();
            let Some(transaction) = next else {
                return count;
            };
            self.handle(transaction).await;
            count += 1;
        }
    }

    async fn handle(self: &Arc<Self>, mut transaction: Transaction) {
        let request = &transaction.original;
        let Ok(to_tag) = request.to_header().and_then(|to| to.tag()) else {
            return respond(&mut transaction, 400, Vec::new()).await;
        };
        let in_dialog = to_tag.is_some();
        match (request.method, in_dialog) {
            (Method::Invite, false) => self.handle_invite(transaction).await,
            (Method::Invite | Method::Update, true) => self.handle_reinvite(transaction).await,
            (Method::Bye, true) => self.handle_bye(transaction).await,
            (Method::Options, _) => {
                let headers = vec![
                    Header::Allow(ALLOW.into()),
                    Header::Accept("application/sdp".into()),
                    Header::Supported("timer".into()),
                ];
                respond(&mut transaction, 200, headers).await;
            }
            (Method::Bye | Method::Update, false) => {
                respond(&mut transaction, 481, Vec::new()).await;
            }
            // The gate lets no other method through.
            (_, _) => {
                let headers = vec![Header::Allow(ALLOW.into())];
                respond(&mut transaction, 405, headers).await;
            }
        }
    }

    async fn handle_invite(self: &Arc<Self>, mut transaction: Transaction) {
        let refusal = match self.admit(&mut transaction) {
            Ok((call, key)) => {
                // 100 at once: the caller stops retransmitting while the MRFC works.
                if transaction.send_trying().await.is_err() {
                    tracing::debug!("100 could not be sent");
                }
                let agent = Arc::clone(self);
                return self.spawn(agent.run_invite(transaction, call, Some(key)));
            }
            Err(refusal) => refusal,
        };
        self.metrics.count_answer(refusal.status);
        let agent = Arc::clone(self);
        respond(&mut transaction, refusal.status, refusal.headers).await;
        // The transaction repeats the refusal until its ACK.
        self.spawn(async move {
            let _agent = agent;
            while transaction.receive().await.is_some_and(|message| !is_ack(&message)) {}
        });
    }

    /// Makes a dialog of an INVITE and tells the MRFC.
    fn admit(&self, transaction: &mut Transaction) -> Result<(CallId, MergeKey), Refusal> {
        let request = &mut transaction.original;
        let bad = |_| Refusal::new(400);
        let cseq = request.cseq_header().and_then(|cseq| cseq.seq()).map_err(bad)?;
        let remote_tag = request.from_header().and_then(|from| from.tag()).map_err(bad)?;
        let key = MergeKey {
            call_id: request.call_id_header().map_err(bad)?.value().to_owned(),
            remote_tag: remote_tag.ok_or(Refusal::new(400))?.value().to_owned(),
            cseq,
        };
        let room = room(&request.uri).ok_or(Refusal::new(404))?;
        let terms = self.terms(request)?;
        if contact_uri(request).is_none() {
            return Err(Refusal::new(400));
        }
        let connection = transaction.connection.clone().ok_or(Refusal::new(500))?;
        let mut table = self.table();
        //= RFC 3261 section 8.2.2.2: the UAS core SHOULD generate a 482 (Loop Detected)
        if table.is_merged(&key) {
            return Err(Refusal::new(482));
        }
        if table.len() >= self.config.calls_max {
            self.metrics.overloads.increment();
            return Err(self.overload());
        }
        let Ok(permit) = self.events.try_reserve() else {
            self.metrics.overloads.increment();
            return Err(self.overload());
        };
        let call = table.next_call();
        let local_tag = new_tag(call);
        add_to_tag(request, &local_tag);
        let event = invite_event(call, room, request);
        let identity = Identity {
            local_tag,
            source: source_of(request, &connection),
            contact: self.contact(request, &connection),
            connection,
        };
        let pending = Pending {
            sender: transaction.tu_sender.clone(),
            template: self.endpoint.make_response(&transaction.original, StatusCode::OK, None),
            method: Method::Invite,
            cseq,
            terms,
        };
        let dialog =
            Dialog::new(&transaction.original, identity, pending).ok_or(Refusal::new(400))?;
        table.insert(call, dialog);
        self.metrics.dialogs_active.add(1);
        self.metrics.invites.increment();
        permit.send(event);
        Ok((call, key))
    }

    fn terms(&self, request: &Request) -> Result<Option<Terms>, Refusal> {
        let default = self.config.session_expires_default;
        let min_se = self.config.min_se;
        Terms::negotiate(&request.headers, default, min_se).map_err(|IntervalTooSmall| Refusal {
            status: 422,
            headers: vec![Header::MinSE(min_se.as_secs().to_string().into())],
        })
    }

    fn overload(&self) -> Refusal {
        let seconds = self.config.retry_after.as_secs();
        Refusal { status: 503, headers: vec![Header::RetryAfter(seconds.to_string().into())] }
    }

    fn contact(&self, request: &Request, connection: &SipConnection) -> String {
        let user = request.uri.user().unwrap_or_default();
        let at = if user.is_empty() { "" } else { "@" };
        //= RFC 4579 section 4.1: the focus indicates "isfocus" in its Contact header field
        match connection {
            SipConnection::Udp(_) => format!("<sip:{user}{at}{}>;isfocus", self.contact_udp),
            _ => format!("<sip:{user}{at}{};transport=tcp>;isfocus", self.contact_tcp),
        }
    }

    /// Keeps one INVITE or UPDATE transaction until it needs nothing more.
    async fn run_invite(
        self: Arc<Self>,
        mut transaction: Transaction,
        call: CallId,
        key: Option<MergeKey>,
    ) {
        loop {
            match transaction.receive().await {
                Some(message) if is_ack(&message) => break,
                Some(SipMessage::Request(request)) if request.method == Method::Cancel => {
                    self.cancelled(&mut transaction, call).await;
                }
                Some(_) => {}
                None => {
                    let invite = transaction.original.method == Method::Invite;
                    if invite && is_answered(&transaction) {
                        self.metrics.acks_missing.increment();
                        self.lost(call, "SIP;cause=408;text=\"ACK missing\"").await;
                    }
                    break;
                }
            }
        }
        if let Some(key) = key {
            self.table().unmerge(&key);
        }
    }

    /// A CANCEL came and the stack has answered it with 200.
    async fn cancelled(&self, transaction: &mut Transaction, call: CallId) {
        let cseq = transaction.original.cseq_header().and_then(|cseq| cseq.seq()).ok();
        let initial = {
            let mut table = self.table();
            let Some(dialog) = table.get_mut(call) else {
                return;
            };
            // Answered already, the answer waits behind the CANCEL: the CANCEL came too late.
            if dialog.pending.as_ref().map(|pending| pending.cseq) != cseq {
                return;
            }
            dialog.pending = None;
            let initial = dialog.phase == Phase::Early;
            if initial {
                table.remove(call);
                self.metrics.dialogs_active.add(-1);
            }
            initial
        };
        self.metrics.cancels.increment();
        self.metrics.count_answer(487);
        respond(transaction, 487, Vec::new()).await;
        if initial {
            self.send(Event::Ended { call }).await;
        }
    }

    /// An ACK, looked at before the stack queues it for its transaction: a request right behind
    /// it must find the dialog confirmed.
    fn acknowledged(self: &Arc<Self>, ack: &Request) {
        let Ok(cseq) = ack.cseq_header().and_then(|cseq| cseq.seq()) else {
            return;
        };
        let bye = {
            let mut table = self.table();
            let Some(call) = table.find(ack) else { return };
            let Some(dialog) = table.get_mut(call) else {
                return;
            };
            if dialog.ack_due != Some(cseq) {
                return;
            }
            dialog.ack_due = None;
            match std::mem::replace(&mut dialog.phase, Phase::Confirmed) {
                Phase::Answered { hang_up: Some(reason) } => {
                    table.remove(call).map(|dialog| (dialog, reason))
                }
                Phase::Answered { hang_up: None } | Phase::Confirmed | Phase::Early => None,
            }
        };
        if let Some((dialog, reason)) = bye {
            self.metrics.dialogs_active.add(-1);
            self.send_bye(dialog, &reason);
        }
    }

    /// The peer is gone: BYE, and the MRFC learns of it unless it hung up itself.
    pub(super) async fn lost(self: &Arc<Self>, call: CallId, reason: &str) {
        let Some(dialog) = self.table().remove(call) else {
            return;
        };
        self.metrics.dialogs_active.add(-1);
        let hung_up = matches!(dialog.phase, Phase::Answered { hang_up: Some(_) });
        self.send_bye(dialog, reason);
        if !hung_up {
            self.send(Event::Ended { call }).await;
        }
    }

    async fn handle_bye(self: &Arc<Self>, mut transaction: Transaction) {
        let dialog = {
            let mut table = self.table();
            table.find(&transaction.original).and_then(|call| {
                let dialog = table.remove(call)?;
                Some((call, dialog))
            })
        };
        let Some((call, mut dialog)) = dialog else {
            return respond(&mut transaction, 481, Vec::new()).await;
        };
        self.metrics.dialogs_active.add(-1);
        self.metrics.byes_received.increment();
        respond(&mut transaction, 200, Vec::new()).await;
        //= RFC 3261 section 15.1.2: the UAS MUST still respond to any pending requests
        //= received for that dialog [...] with a 487 (Request Terminated)
        if let Some(pending) = dialog.pending.take() {
            finish(pending, 487, Vec::new(), Vec::new());
        }
        let hung_up = matches!(dialog.phase, Phase::Answered { hang_up: Some(_) });
        if !hung_up {
            self.send(Event::Ended { call }).await;
        }
    }

    async fn handle_reinvite(self: &Arc<Self>, mut transaction: Transaction) {
        match self.admit_reinvite(&mut transaction) {
            Ok(Admitted::Ask { call, event }) => {
                if transaction.original.method == Method::Invite
                    && transaction.send_trying().await.is_err()
                {
                    tracing::debug!("100 could not be sent");
                }
                self.spawn(Arc::clone(self).run_invite(transaction, call, None));
                self.send(event).await;
            }
            Ok(Admitted::Refreshed { headers }) => respond(&mut transaction, 200, headers).await,
            Err(refusal) => {
                self.metrics.count_answer(refusal.status);
                respond(&mut transaction, refusal.status, refusal.headers).await;
                if transaction.original.method == Method::Invite {
                    self.spawn(async move {
                        while transaction.receive().await.is_some_and(|m| !is_ack(&m)) {}
                    });
                }
            }
        }
    }

    fn admit_reinvite(&self, transaction: &mut Transaction) -> Result<Admitted, Refusal> {
        let request = &transaction.original;
        let cseq =
            request.cseq_header().and_then(|cseq| cseq.seq()).map_err(|_| Refusal::new(400))?;
        let mut table = self.table();
        let call = table.find(request).ok_or(Refusal::new(481))?;
        let dialog = table.get_mut(call).ok_or(Refusal::new(481))?;
        //= RFC 3261 section 12.2.2: If [...] the sequence number of the request is lower than
        //= the remote sequence number, the request is out of order and MUST be rejected with a
        //= 500 (Server Internal Error) response.
        if cseq <= dialog.remote_cseq {
            return Err(Refusal::new(500));
        }
        dialog.remote_cseq = cseq;
        let offer = offer(request);
        let update = request.method == Method::Update;
        let refresh_only = update && offer.is_none();
        if !refresh_only {
            //= RFC 3261 section 14.2: [...] before it sends the final response to a first
            //= INVITE [...] MUST return a 500 (Server Internal Error) response to the second
            //= INVITE and MUST include a Retry-After header field
            if dialog.pending.is_some() {
                let seconds = random_u64() % 11;
                let headers = vec![Header::RetryAfter(seconds.to_string().into())];
                return Err(Refusal { status: 500, headers });
            }
            if dialog.ack_due.is_some() || dialog.phase != Phase::Confirmed {
                return Err(Refusal::new(491));
            }
        }
        let terms = self.terms(request)?;
        if let Some(uri) = contact_uri(request) {
            dialog.remote_target = uri;
        }
        if refresh_only {
            let mut headers = vec![
                Header::Contact(dialog.contact.clone().into()),
                Header::Supported("timer".into()),
            ];
            headers.extend(terms.iter().flat_map(Terms::headers));
            if dialog.phase != Phase::Early {
                table.start_session(call, terms, Instant::now());
            }
            return Ok(Admitted::Refreshed { headers });
        }
        dialog.pending = Some(Pending {
            sender: transaction.tu_sender.clone(),
            template: self.endpoint.make_response(&transaction.original, StatusCode::OK, None),
            method: transaction.original.method,
            cseq,
            terms,
        });
        self.metrics.reinvites.increment();
        Ok(Admitted::Ask { call, event: Event::Reinvite { call, offer } })
    }

    pub(super) async fn send(&self, event: Event) {
        // The MRFC's side is gone only while the node goes down.
        if self.events.send(event).await.is_err() {
            tracing::debug!("no MRFC takes the event");
        }
    }
}

enum Admitted {
    Ask { call: CallId, event: Event },
    Refreshed { headers: Vec<Header> },
}

/// A final answer the MRFC is not asked for.
struct Refusal {
    status: u16,
    headers: Vec<Header>,
}

impl Refusal {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }
}

async fn respond(transaction: &mut Transaction, status: u16, headers: Vec<Header>) {
    if let Err(error) = transaction.reply_with(StatusCode::from(status), headers, None).await {
        tracing::debug!(%error, status, "response not sent");
    }
}

fn is_ack(message: &SipMessage) -> bool {
    matches!(message, SipMessage::Request(request) if request.method == Method::Ack)
}

fn is_answered(transaction: &Transaction) -> bool {
    let status = transaction.last_response.as_ref().map(|response| response.status_code.code());
    status.is_some_and(|status| (200..300).contains(&status))
}

fn invite_event(call: CallId, room: String, request: &Request) -> Event {
    let from = request.from_header().and_then(|from| from.uri());
    Event::Invite {
        call,
        room,
        from: from.map_or_else(|_| String::new(), bare_uri),
        to: bare_uri(request.uri.clone()),
        offer: offer(request),
    }
}

fn offer(request: &Request) -> Option<Vec<u8>> {
    (!request.body.is_empty()).then(|| request.body.clone())
}

/// The address the request came from, as the stack wrote it into the top Via.
fn source_of(request: &Request, connection: &SipConnection) -> SipAddr {
    if let SipConnection::Channel(channel) = connection {
        return channel.get_addr().clone();
    }
    request
        .via_header()
        .ok()
        .and_then(|via| SipConnection::parse_target_from_via(via).ok())
        .map(|(transport, addr)| SipAddr::new(transport, addr))
        .unwrap_or_default()
}

fn add_to_tag(request: &mut Request, tag: &str) {
    for header in request.headers.iter_mut() {
        if let Header::To(to) = header {
            let tagged = format!("{};tag={tag}", to.value());
            to.replace(tagged);
        }
    }
}

/// Our tag leads to the call; its second half can not be guessed (RFC 3261 section 19.3).
fn new_tag(call: CallId) -> String {
    format!("{:x}-{:016x}", call.0, random_u64())
}

fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_ne_bytes(bytes)
}

/// The URI without parameters and headers, as the MRFC gets it.
fn bare_uri(mut uri: Uri) -> String {
    uri.params.clear();
    uri.headers.clear();
    unescape_user(&mut uri);
    uri.to_string()
}

/// The user part unescaped; `None` where it is not text.
fn room(uri: &Uri) -> Option<String> {
    let room = unescape(uri.user().unwrap_or_default())?;
    (!room.chars().any(char::is_control)).then_some(room)
}
