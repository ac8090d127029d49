//! One side: what comes from its sockets goes to the call it belongs to, or begins something.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rsipstack::sip::{
    Header, HeadersExt, Method, Request, Response, SipMessage, StatusCode, ToTypedHeader, Transport,
};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::{BorderCallId, SideRole};
use super::call::{self, Input};
use super::next_hops::NextHops;
use super::{Addresses, Shared, SideConfig};
use crate::sip::gate::{self, METHODS_PASSED, Verdict};
use crate::sip::repeats::{Repeats, Shed};
use crate::sip::reply::{self, Identity};
use crate::sip::sending::{ADDED_SIZE_ESTIMATE, connection_to, way_to};
use crate::sip::station::{Front, Reply, Station};
use crate::sip::way::Arrival;
use crate::sip::wire::{self, Message, Name};

/// The state of one side.
pub(super) struct Side {
    station: Station,
    /// 0 or 1.
    pub(super) number: usize,
    pub(super) role: SideRole,
    pub(super) trusted: bool,
    pub(super) probe_interval: std::time::Duration,
    pub(super) next_hops: NextHops,
    pub(super) shared: Arc<Shared>,
    other: OnceLock<Weak<Self>>,
    /// Requests refused without a transaction.
    shed: Mutex<(Repeats, Shed)>,
    /// Where requests came from whose transaction is just being made: whoever empties the queue of the stack
    /// may take what another socket has received.
    sources: Mutex<HashMap<TransactionKey, SocketAddr>>,
    /// Names on the other side what has a name on this one.
    hashing: RandomState,
}

impl Deref for Side {
    type Target = Station;

    fn deref(&self) -> &Station {
        &self.station
    }
}

impl std::fmt::Debug for Side {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Side").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Front for Side {
    async fn receive(self: &Arc<Self>, arrival: Arrival<'_>) -> Option<Reply> {
        let Arrival { bytes, transport, source, received, .. } = arrival;
        let waited_too_long = self.has_waited_too_long(received);
        let message = Message::scan(bytes);
        let begins = begins_something(&message);
        if begins && waited_too_long && message.method() == b"INVITE" && !self.is_known(bytes) {
            return self.shed(arrival, &message);
        }
        let body = match gate::check_to_pass(&message, bytes, transport, source) {
            Verdict::Accept { body } => &bytes[body],
            Verdict::Reject { status, response, .. } => {
                self.metrics.messages.increment();
                self.metrics.count_rejection(status);
                return Some(Reply { bytes: response, to: source });
            }
            Verdict::Ignore(why) => {
                self.count_ignored(why);
                return None;
            }
        };
        self.metrics.messages.increment();
        if message.method() == b"ACK" && self.has_shed(&message) {
            return None;
        }
        if begins && !self.is_known(bytes) {
            if self.has_shed(&message) || self.is_overloaded() {
                return self.shed(arrival, &message);
            }
            if self.has_passed_us(&message) {
                self.shared.metrics.loops.increment();
                let response = reply::build(&message, 482, "Loop Detected", "", source)?;
                return Some(Reply { bytes: response, to: source });
            }
        }
        let Ok(message) = self.read(arrival, body) else { return self.not_understood(arrival) };
        if let SipMessage::Response(response) = &message
            && let Some(call) = call_of(response)
        {
            self.tell(call, Input::Response { response: response.clone() });
        }
        let key = self.new_key(&message);
        if let Some(key) = &key {
            self.sources().insert(key.clone(), source);
        }
        if self.give_to_stack(arrival, message).await.is_err() {
            if let Some(key) = &key {
                self.sources().remove(key);
            }
            return self.not_understood(arrival);
        }
        loop {
            let next = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok();
            let transaction = next?;
            let source = self.sources().remove(&transaction.key);
            self.handle(transaction, source.unwrap_or(arrival.source)).await;
        }
    }
}

impl Side {
    pub(super) fn new(
        number: usize,
        config: SideConfig,
        shared: &Arc<Shared>,
        addresses: Addresses,
        cancel: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let SideConfig { role, sip, next_hops, trusted, probe_interval } = config;
        let lifetime = sip.t1 * 10;
        let Addresses { udp, tcp } = addresses;
        Self {
            station: Station::new(sip, udp, tcp, cancel.clone(), tasks.clone()),
            number,
            role,
            trusted,
            probe_interval,
            next_hops: NextHops::new(&next_hops),
            shared: Arc::clone(shared),
            other: OnceLock::new(),
            shed: Mutex::new((Repeats::default(), Shed::new(lifetime))),
            sources: Mutex::default(),
            hashing: RandomState::new(),
        }
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<TransactionKey, SocketAddr>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of the transaction that the stack will make for a message.
    fn new_key(&self, message: &SipMessage) -> Option<TransactionKey> {
        let SipMessage::Request(request) = message else { return None };
        if matches!(request.method, Method::Ack | Method::Cancel) {
            return None;
        }
        let key = TransactionKey::from_request(request, TransactionRole::Server).ok()?;
        let known = self.endpoint.transactions.contains_key(&key)
            || self.endpoint.finished_transactions.contains_key(&key);
        (!known).then_some(key)
    }

    /// Makes the two sides of a B2BUA known to each other.
    pub(super) fn join(&self, other: &Arc<Self>) {
        let _ = self.other.set(Arc::downgrade(other));
    }

    /// The other side; `None` only while the node goes down.
    pub(super) fn other(&self) -> Option<Arc<Self>> {
        self.other.get()?.upgrade()
    }

    /// Who is there is reached where it spoke from, whatever it says.
    pub(super) fn is_symmetric(&self) -> bool {
        self.role == SideRole::Access
    }

    /// A client transaction for a request that goes there: on that connection, or on one that fits.
    pub(super) async fn client(
        self: &Arc<Self>,
        request: Request,
        to: &SipAddr,
        flow: Option<&SipConnection>,
    ) -> Option<Transaction> {
        let size = request.to_bytes().len() + ADDED_SIZE_ESTIMATE;
        let (connection, next_hop) = match (flow, to.r#type) {
            (Some(flow), _) => way_to(self, flow, to.clone(), size).await?,
            (None, Some(Transport::Tcp)) => {
                (connection_to(self, to.get_socketaddr().ok()?).await?, to.clone())
            }
            (None, _) => {
                let udp = self.udp.get().cloned()?;
                way_to(self, &udp, to.clone(), size).await?
            }
        };
        let mark = format!(";{ROUND}={}", self.round(&request.uri.to_string()));
        let mut transaction = self.transaction(request, connection, next_hop)?;
        for header in transaction.original.headers.iter_mut() {
            if let Header::Via(via) = header {
                *via = format!("{}{mark}", via.value()).into();
            }
        }
        Some(transaction)
    }

    /// What a Request-URI of ours is called in our Via.
    fn round(&self, uri: &str) -> String {
        self.name_for((ROUND, uri))
    }

    /// Our Contact on this side, for messages that `flow` or a connection of that transport carries.
    pub(super) fn contact_uri(&self, user: &str, transport: Option<Transport>) -> String {
        let at = if user.is_empty() { "" } else { "@" };
        match transport {
            Some(Transport::Tcp) => format!("sip:{user}{at}{};transport=tcp", self.contact_tcp),
            _ => format!("sip:{user}{at}{}", self.contact_udp),
        }
    }

    /// Whether a host is one that we go by on this side.
    pub(super) fn is_own_host(&self, host: &str) -> bool {
        [&self.contact_udp, &self.contact_tcp].iter().any(|own| {
            own.as_str() == host || own.rsplit_once(':').is_some_and(|(name, _)| name == host)
        })
    }

    /// A name that tells nothing of what it stands for, and is the same for the same.
    pub(super) fn name_for(&self, what: impl Hash) -> String {
        format!("{:016x}", self.hashing.hash_one(what))
    }

    /// Tells a call; false where there is none.
    pub(super) fn tell(&self, call: BorderCallId, input: Input) -> bool {
        self.shared.calls().get(&call).is_some_and(|inbox| inbox.send(input).is_ok())
    }

    async fn handle(self: &Arc<Self>, mut transaction: Transaction, source: SocketAddr) {
        let request = &transaction.original;
        let to_tag = request.to_header().and_then(|to| to.tag()).ok().flatten();
        if let Some(tag) = to_tag {
            let Some(call) = call_of_tag(tag.value()) else {
                return answer(&mut transaction, 481, Vec::new()).await;
            };
            let inbox = self.shared.calls().get(&call).cloned();
            let Some(inbox) = inbox else {
                return answer(&mut transaction, 481, Vec::new()).await;
            };
            // The ACK before it goes through a task of its own; it should not be overtaken.
            tokio::task::yield_now().await;
            let side = self.number;
            if let Err(refused) =
                inbox.send(Input::Request { side, transaction: Box::new(transaction) })
                && let Input::Request { mut transaction, .. } = refused.0
            {
                answer(&mut transaction, 481, Vec::new()).await;
            }
            return;
        }
        match request.method {
            Method::Invite | Method::Subscribe | Method::Refer => {
                call::begin(self, transaction, source).await;
            }
            Method::Register if self.role == SideRole::Access => self.register(transaction, source),
            Method::Options if self.is_for_us(request) => {
                let methods: Vec<_> =
                    METHODS_PASSED.iter().map(|it| String::from_utf8_lossy(it)).collect();
                answer(&mut transaction, 200, vec![Header::Allow(methods.join(", ").into())]).await;
            }
            Method::Bye | Method::Update | Method::PRack | Method::Info => {
                answer(&mut transaction, 481, Vec::new()).await;
            }
            _ => self.pass(transaction, source),
        }
    }

    fn is_for_us(&self, request: &Request) -> bool {
        request.uri.user().is_none_or(str::is_empty)
            && self.is_own_host(&request.uri.host_with_port.to_string())
    }

    /// No room for another transaction or another call.
    fn is_overloaded(&self) -> bool {
        let open = self.endpoint.transactions.len();
        open >= self.config.transactions_open_max
            || open + self.endpoint.finished_transactions.len() >= self.config.transactions_max
            || self.shared.calls().len() >= self.shared.config.calls_max
    }

    /// 503 without a transaction: a flood beyond the limits must not cost memory.
    fn shed(&self, arrival: Arrival<'_>, message: &Message<'_>) -> Option<Reply> {
        self.shared.metrics.overloads.increment();
        self.metrics.overloads.increment();
        let spread = {
            let mut shed = self.shed.lock().unwrap_or_else(PoisonError::into_inner);
            let name = shed.0.name(Identity::of(message)?);
            shed.1.insert(name, Instant::now());
            name.spread()
        };
        let extra = format!("Retry-After: {}\r\n", self.retry_after_seconds(spread));
        let bytes = reply::build(message, 503, "Service Unavailable", &extra, arrival.source)?;
        Some(Reply { bytes, to: arrival.source })
    }

    /// Whether a request was refused without a transaction, or an ACK is for such a refusal.
    fn has_shed(&self, message: &Message<'_>) -> bool {
        let mut shed = self.shed.lock().unwrap_or_else(PoisonError::into_inner);
        if shed.1.is_empty() {
            return false;
        }
        let name = Identity::of(message).map(|identity| shed.0.name(identity));
        name.is_some_and(|name| shed.1.contains(name, Instant::now()))
    }

    //= RFC 3261 section 16.3: If the request contains a Via header field with a sent-by value that equals
    //= a value placed into previous requests by the proxy, the request has been forwarded by this
    //= element before. [...] If the request is a loop, [...] 482
    // One that comes back for somebody else is none (section 16.6, item 8): the call of one UE to another
    // whom the network finds behind us, too.
    fn has_passed_us(&self, message: &Message<'_>) -> bool {
        let uri = message.start_line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let Ok(uri) = std::str::from_utf8(uri) else { return false };
        let other = self.other();
        let marks: Vec<String> = std::iter::once(self)
            .chain(other.as_deref())
            .map(|side| format!("{ROUND}={}", side.round(uri)))
            .collect();
        message.all(Name::Via).any(|value| {
            value
                .split(|&byte| matches!(byte, b',' | b';'))
                .any(|parameter| marks.iter().any(|mark| wire::trim(parameter) == mark.as_bytes()))
        })
    }
}

/// The parameter of our Via by which a request that has gone round is known.
const ROUND: &str = "round";

/// A request that is to begin a call, a subscription or a registration: what may be refused for want of room.
fn begins_something(message: &Message<'_>) -> bool {
    let within = message.first(Name::To).is_some_and(wire::has_tag);
    !within
        && !matches!(message.method(), b"ACK" | b"CANCEL")
        && !message.start_line.starts_with(b"SIP/")
}

/// The call that has asked. It gets each response in the order of arrival, past the stack: that has a task for
/// each transaction, keeps to itself what a branch of a fork says after another one, and knows no INVITE any more
/// whose 2xx comes again.
fn call_of(response: &Response) -> Option<BorderCallId> {
    call_of_tag(response.from_header().ok()?.tag().ok()??.value())
}

/// Our tags begin with the number of the call.
fn call_of_tag(tag: &str) -> Option<BorderCallId> {
    u64::from_str_radix(tag.split('-').next()?, 16).ok().map(BorderCallId)
}

/// A final answer that no call gives. The transaction remembers it for as long as the request may come again.
pub(super) async fn answer(transaction: &mut Transaction, status: u16, headers: Vec<Header>) {
    if let Err(error) = transaction.reply_with(StatusCode::from(status), headers, None).await {
        tracing::debug!(%error, status, "response not sent");
    }
}

/// Where a request came from.
pub(super) fn source_of(request: &Request, source: SocketAddr) -> SipAddr {
    SipAddr::new(transport_of(request).unwrap_or(Transport::Udp), source.into())
}

/// What carried a request, as its Via says.
pub(super) fn transport_of(request: &Request) -> Option<Transport> {
    request.via_header().and_then(|via| via.typed()).ok().map(|via| via.transport)
}
