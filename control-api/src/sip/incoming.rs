//! What comes from the sockets: past the gate, through the stack, to whoever handles the request.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use rsipstack::sip;
use rsipstack::sip::{Header, HeadersExt, Method, Request, SipMessage, StatusCode};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};

use super::agent::Agent;
use super::gate::{self, ALLOW, ALLOW_EVENTS, Ignored, SUPPORTED, Verdict};
use super::wire;

impl Agent {
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
        let begins = [&b"INVITE "[..], b"SUBSCRIBE ", b"REFER "]
            .iter()
            .any(|method| bytes.starts_with(method));
        if begins && self.is_overloaded(bytes) && !self.is_known(bytes) {
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

    /// No room for another transaction or, where this is an INVITE that begins a call, for another
    /// call.
    fn is_overloaded(&self, request: &[u8]) -> bool {
        let open = self.endpoint.transactions.len();
        let held = open + self.endpoint.finished_transactions.len();
        let begins_call = || {
            let message = wire::Message::scan(request);
            request.starts_with(b"INVITE ")
                && !message.first(wire::Name::To).is_some_and(wire::has_tag)
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
        match &message {
            SipMessage::Request(request) if request.method == Method::Ack => {
                self.acknowledged(request).await;
            }
            SipMessage::Response(response) => self.repeat_ack(response).await,
            SipMessage::Request(_) => {}
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
            (Method::Subscribe | Method::Refer, _) => self.handle_subscribe(transaction).await,
            (Method::Options, _) => {
                let mut headers = vec![
                    Header::Allow(ALLOW.into()),
                    Header::Other("Allow-Events".into(), ALLOW_EVENTS.into()),
                    Header::Accept(gate::ACCEPT.into()),
                    Header::Supported(SUPPORTED.into()),
                ];
                //= RFC 4579 section 4.1: the focus indicates "isfocus" in its Contact
                if let Some(connection) = &transaction.connection {
                    let user = request.uri.user().unwrap_or_default();
                    headers.push(Header::Contact(self.contact(user, connection).into()));
                }
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
}

/// A final answer the MRFC is not asked for.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: Vec<Header>,
}

impl Refusal {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }
}

pub(super) async fn respond(transaction: &mut Transaction, status: u16, headers: Vec<Header>) {
    if let Err(error) = transaction.reply_with(StatusCode::from(status), headers, None).await {
        tracing::debug!(%error, status, "response not sent");
    }
}

pub(super) fn is_ack(message: &SipMessage) -> bool {
    matches!(message, SipMessage::Request(request) if request.method == Method::Ack)
}

pub(super) fn offer(request: &Request) -> Option<Vec<u8>> {
    (!request.body.is_empty()).then(|| request.body.clone())
}
