//! What comes from the sockets: past the gate, through the stack, to whoever handles the request.

use std::sync::{Arc, PoisonError};

use rsipstack::sip::{Header, HeadersExt, Method, Request, SipMessage, StatusCode};
use rsipstack::transaction::transaction::Transaction;

use super::agent::Agent;
use super::dialog::Within;
use super::gate::{self, ALLOW, ALLOW_EVENTS, SUPPORTED, Verdict};
use super::reply::{self, Identity};
use super::station::{Front, Reply};
use super::way::Arrival;
use super::wire::{self, Message, Name};
use crate::mrfc::CallId;
use tokio::time::Instant;

impl Front for Agent {
    async fn receive(self: &Arc<Self>, arrival: Arrival<'_>) -> Option<Reply> {
        let Arrival { bytes, transport, source, received, .. } = arrival;
        let waited_too_long = self.has_waited_too_long(received);
        let message = Message::scan(bytes);
        // Before all else, as the less a refusal costs the more time is left for calls.
        match message.method() {
            b"INVITE" if waited_too_long => {
                if let Some(reply) = self.shed_invite(arrival, &message) {
                    return Some(reply);
                }
            }
            b"ACK" if self.has_shed(&message) => {
                self.metrics.messages.increment();
                return None;
            }
            _ => {}
        }
        let body = match gate::check_scanned(&message, bytes, transport, source) {
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
        tracing::trace!(
            %source, kind = %message.method().escape_ascii(), size = bytes.len(), "SIP message"
        );
        match message.method() {
            b"INVITE" if !message.first(Name::To).is_some_and(wire::has_tag) => {
                return self.receive_invite(arrival, &message, body).await;
            }
            b"ACK" => {
                if let Some(within) = Within::of(&message)
                    && self.acknowledged(&within, body).await
                {
                    return None;
                }
            }
            b"BYE" => {
                if let Some(reply) = self.receive_bye(arrival, &message).await {
                    return Some(reply);
                }
            }
            b"CANCEL" => {
                if let Some(call) = self.cancelled_call(&message) {
                    return self.cancel(call, arrival, &message).await;
                }
            }
            b"INVITE" | b"SUBSCRIBE" | b"REFER"
                if self.is_overloaded(false) && !self.is_known(bytes) =>
            {
                return self.shed(arrival, &message);
            }
            _ => {}
        }
        self.receive_by_stack(arrival, body).await
    }
}

impl Agent {
    /// Gives a message to the stack and takes what it makes of it.
    pub(super) async fn receive_by_stack(
        self: &Arc<Self>,
        arrival: Arrival<'_>,
        body: &[u8],
    ) -> Option<Reply> {
        let Ok(message) = self.read(arrival, body) else { return self.not_understood(arrival) };
        if let SipMessage::Response(response) = &message {
            self.repeat_ack(response).await;
        }
        if self.give_to_stack(arrival, message).await.is_err() {
            return self.not_understood(arrival);
        }
        let transactions = self.handle_incoming().await;
        let bytes = arrival.bytes;
        let starts_one = !bytes.starts_with(b"SIP/")
            && !bytes.starts_with(b"ACK ")
            && !bytes.starts_with(b"CANCEL ");
        if starts_one && transactions == 0 {
            self.metrics.retransmissions.increment();
        }
        None
    }

    /// Refuses a request for want of room or time, without a transaction: a flood beyond the limits must
    /// not cost memory.
    pub(super) fn shed(&self, arrival: Arrival<'_>, message: &Message<'_>) -> Option<Reply> {
        self.metrics.overloads.increment();
        let name = self.table().repeats.name(Identity::of(message)?);
        // Without state it must be the same for a repetition (RFC 3261 section 8.2.7).
        let extra = format!("Retry-After: {}\r\n", self.retry_after_seconds(name.spread()));
        let bytes = reply::build(message, 503, "Service Unavailable", &extra, arrival.source)?;
        Some(Reply { bytes, to: arrival.source })
    }

    /// Refuses an INVITE that has waited too long, if it is to begin a call and was not received before.
    fn shed_invite(&self, arrival: Arrival<'_>, message: &Message<'_>) -> Option<Reply> {
        if message.first(Name::To).is_none_or(wire::has_tag) {
            return None;
        }
        let now = Instant::now();
        let repeated = {
            let mut table = self.table();
            let name = table.repeats.name(Identity::of(message)?);
            if table.repeats.get(name).is_some() {
                return None;
            }
            let repeated = table.shed.contains(name, now);
            if !repeated {
                drop(table);
                if self.is_known(arrival.bytes) {
                    return None;
                }
                table = self.table();
            }
            table.shed.insert(name, now);
            repeated
        };
        self.metrics.messages.increment();
        if repeated {
            self.metrics.retransmissions.increment();
        } else {
            self.metrics.invites_shed.increment();
        }
        self.shed(arrival, message)
    }

    /// Of an ACK: it is for a refusal without a transaction, which waits for none.
    fn has_shed(&self, message: &Message<'_>) -> bool {
        let mut table = self.table();
        if table.shed.is_empty() {
            return false;
        }
        let name = Identity::of(message).map(|identity| table.repeats.name(identity));
        name.is_some_and(|name| table.shed.contains(name, Instant::now()))
    }

    pub(super) fn user_agent_line(&self) -> String {
        format!("User-Agent: {}\r\n", self.config.user_agent)
    }

    /// No room for another transaction or, where this begins one, for another call.
    pub(super) fn is_overloaded(&self, begins_call: bool) -> bool {
        let (calls, unfinished, repeats) = {
            let table = self.table();
            (table.len(), table.open(), table.repeats.len())
        };
        let open = self.endpoint.transactions.len() + unfinished;
        let held = open + self.endpoint.finished_transactions.len() + repeats;
        open >= self.config.transactions_open_max
            || held >= self.config.transactions_max
            || (begins_call && calls >= self.config.calls_max)
    }

    /// The call whose INVITE a CANCEL is for, where no transaction of the stack has it.
    fn cancelled_call(&self, message: &Message<'_>) -> Option<CallId> {
        let table = self.table();
        table.repeats.get(table.repeats.name(Identity::of(message)?))
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
