//! What goes out at the MRFC's wish or by the clock: final answers, BYE, session refreshes.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::{Header, Method, Response, StatusCode};
use rsipstack::transaction::transaction::{TransactionEvent, TransactionEventSender};
use rsipstack::transport::SipConnection;
use tokio::time::Instant;

use super::agent::Agent;
use super::dialog::{
    Asked, Deadline, Dialog, Invitation, Overdue, Pending, Phase, Table, Unacknowledged,
};
use super::gate::{ALLOW, ALLOW_EVENTS, SUPPORTED};
use super::incoming::Refusal;
use super::invite::ACK_MISSING;
use super::reply;
use super::session::Terms;
use crate::mrfc::{Answer, CallId};

/// How often sessions are looked at: far below any Session-Expires.
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_millis(100);

impl Agent {
    /// The MRFC's answer to an INVITE or re-INVITE. Too late is no error.
    pub(super) fn answer(self: &Arc<Self>, call: CallId, answer: Answer) {
        let mut table = self.table();
        let Some(dialog) = table.get_mut(call) else {
            return;
        };
        let Some(pending) = dialog.pending.take() else {
            return;
        };
        match answer {
            Answer::Accepted { sdp } => self.accept(&mut table, call, pending, sdp),
            Answer::Refused { status, warning, retry_after } => {
                // A refusal of 1xx or 2xx would leave the caller hanging: our own mistake.
                let status = if (300..=699).contains(&status) { status } else { 500 };
                let mut headers = Vec::new();
                if let Some((code, text)) = warning {
                    let agent = self.contact_udp.as_str();
                    let text = text.replace(['"', '\\', '\r', '\n'], " ");
                    headers.push(Header::Warning(format!("{code:03} {agent} \"{text}\"").into()));
                }
                if let Some(after) = retry_after {
                    headers.push(Header::RetryAfter(after.as_secs().to_string().into()));
                }
                let connection = dialog.peer.connection.clone();
                if dialog.phase == Phase::Early {
                    table.remove(call);
                    self.metrics.dialogs_active.add(-1);
                }
                drop(table);
                self.metrics.count_answer(status);
                self.refuse(connection, pending, Refusal { status, headers });
            }
        }
    }

    /// 200.
    fn accept(&self, table: &mut Table, call: CallId, pending: Pending, sdp: Vec<u8>) {
        let Some(dialog) = table.get_mut(call) else { return };
        let now = Instant::now();
        let Pending { cseq, terms, request } = pending;
        self.metrics.count_answer(200);
        if dialog.phase == Phase::Early {
            dialog.phase = Phase::Answered { hang_up: None };
        }
        match request {
            Asked::Call(invitation) => {
                dialog.ack_due = Some(cseq);
                let extra = self.accepted_lines(dialog, terms.as_ref());
                let Invitation { head, way, name, .. } = *invitation;
                let response = reply::response(200, "OK", &head, &extra, &sdp);
                self.send_response(&way, response.clone());
                let until = now + self.config.t1 * 64;
                table.repeats.forget_at(name, until);
                let interval = self.config.t1;
                let sent = Unacknowledged { response, way, interval, until };
                table.await_ack(call, sent, now);
            }
            Asked::Change { sender, template, method } => {
                let mut headers = vec![
                    Header::Contact(dialog.contact.clone().into()),
                    Header::Allow(ALLOW.into()),
                    Header::Other("Allow-Events".into(), ALLOW_EVENTS.into()),
                    Header::Supported(SUPPORTED.into()),
                    Header::ContentType("application/sdp".into()),
                ];
                headers.extend(terms.iter().flat_map(Terms::headers));
                if method == Method::Invite {
                    headers.extend(dialog.peer.record_route());
                    dialog.ack_due = Some(cseq);
                }
                finish(&sender, template, 200, headers, sdp);
            }
        }
        table.start_session(call, terms, now);
    }

    /// Header lines of the 2xx that begins a call.
    fn accepted_lines(&self, dialog: &Dialog, terms: Option<&Terms>) -> String {
        let mut lines = String::with_capacity(ACCEPTED_LINES_SIZE_USUAL);
        push_record_route(&mut lines, dialog);
        // Writing to a string does not fail.
        let _ = write!(
            lines,
            "Contact: {}\r\nAllow: {ALLOW}\r\nAllow-Events: {ALLOW_EVENTS}\r\nSupported: {SUPPORTED}\r\n\
             User-Agent: {}\r\nContent-Type: application/sdp\r\n",
            dialog.contact, self.config.user_agent,
        );
        for header in terms.iter().flat_map(|terms| terms.headers()) {
            let _ = write!(lines, "{header}\r\n");
        }
        lines
    }

    /// Gives a request that waits a final response other than a 2xx.
    pub(super) fn refuse(
        self: &Arc<Self>,
        connection: SipConnection,
        pending: Pending,
        refusal: Refusal,
    ) {
        match pending.request {
            Asked::Call(invitation) => {
                let Invitation { request, name, source, .. } = *invitation;
                // From here on the stack knows it.
                self.table().repeats.forget(name);
                if !self.refuse_invite(request, source, connection, refusal) {
                    tracing::debug!("the stack makes no transaction of the INVITE");
                }
            }
            Asked::Change { sender, template, .. } => {
                finish(&sender, template, refusal.status, refusal.headers, Vec::new());
            }
        }
    }

    /// The room a call to the factory has made.
    pub(super) fn room(&self, call: CallId, room: &str) {
        if let Some(dialog) = self.table().get_mut(call) {
            dialog.contact = self.contact(room, &dialog.peer.connection);
        }
    }

    /// The MRFC ends a call.
    pub(super) fn hang_up(self: &Arc<Self>, call: CallId, reason: &str) {
        if self.cancel_dial(call) {
            return;
        }
        let mut table = self.table();
        let Some(dialog) = table.get_mut(call) else {
            return;
        };
        let reason = reason.replace(['\r', '\n'], " ");
        if let Phase::Answered { hang_up } = &mut dialog.phase {
            *hang_up = Some(reason);
            return;
        }
        let Some(mut dialog) = table.remove(call) else {
            return;
        };
        drop(table);
        self.metrics.dialogs_active.add(-1);
        let pending = dialog.pending.take();
        let connection = dialog.peer.connection.clone();
        match dialog.phase {
            Phase::Early => {
                if let Some(pending) = pending {
                    self.metrics.count_answer(480);
                    let headers = vec![Header::Reason(reason.into())];
                    self.refuse(connection, pending, Refusal { status: 480, headers });
                }
            }
            Phase::Answered { .. } | Phase::Confirmed => {
                if let Some(pending) = pending {
                    self.refuse(connection, pending, Refusal::new(487));
                }
                self.send_bye(dialog, &reason);
            }
        }
    }

    pub(super) fn send_bye(self: &Arc<Self>, dialog: Dialog, reason: &str) {
        let mut request = dialog.peer.request(Method::Bye);
        request.headers.push(Header::Reason(reason.to_owned().into()));
        self.metrics.byes_sent.increment();
        self.requests_open.add(1);
        let agent = Arc::clone(self);
        self.spawn(async move {
            agent.transact(request, &dialog.peer).await;
            agent.requests_open.add(-1);
        });
    }

    /// What is due by the clock: a 2xx or a 180 to be sent, a session to be refreshed or ended.
    pub(super) async fn run_sessions(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SESSION_SWEEP_INTERVAL.min(self.config.t1 / 2));
        loop {
            tick.tick().await;
            self.ring();
            self.table().repeats.expire(Instant::now());
            loop {
                let interval_max = self.config.t1 * 8;
                let overdue = self.table().pop_unacknowledged(Instant::now(), interval_max);
                match overdue {
                    Overdue::Repeat(way, response) => self.send_response(&way, response),
                    Overdue::GiveUp(call) => {
                        self.metrics.acks_missing.increment();
                        self.lost(call, ACK_MISSING).await;
                    }
                    Overdue::None => break,
                }
            }
            loop {
                let due = self.table().pop_due(Instant::now());
                match due {
                    Some((call, Deadline::Expire)) => {
                        self.metrics.sessions_expired.increment();
                        self.lost(call, "SIP;cause=408;text=\"Session expired\"").await;
                    }
                    Some((call, Deadline::Refresh)) => self.refresh(call),
                    None => break,
                }
            }
        }
    }

    /// 180 to the callers whose answer takes its time.
    fn ring(&self) {
        let mut table = self.table();
        let now = Instant::now();
        while let Some(dialog) = table.pop_ringing(now) {
            let mut extra = String::new();
            push_record_route(&mut extra, dialog);
            let _ = write!(extra, "Contact: {}\r\n{}", dialog.contact, self.user_agent_line());
            let Some(Pending { request: Asked::Call(invitation), .. }) = &mut dialog.pending else {
                continue;
            };
            let ringing = reply::response(180, "Ringing", &invitation.head, &extra, b"");
            self.metrics.ringing.increment();
            self.send_response(&invitation.way, ringing.clone());
            invitation.provisional = Some(ringing);
        }
    }

    fn refresh(self: &Arc<Self>, call: CallId) {
        let mut table = self.table();
        let Some(dialog) = table.get_mut(call) else {
            return;
        };
        let Some(terms) = dialog.terms else { return };
        let mut request = dialog.peer.request(Method::Update);
        request.headers.push(Header::Contact(dialog.contact.clone().into()));
        request.headers.push(Header::Supported(SUPPORTED.into()));
        request.headers.push(terms.asked());
        let peer = Arc::clone(&dialog.peer);
        let expires = Instant::now() + terms.expires_after() - terms.refresh_after();
        table.set_deadline(call, Some((expires, Deadline::Expire)));
        drop(table);
        let agent = Arc::clone(self);
        self.spawn(async move {
            match agent.transact(request, &peer).await {
                Some(200..=299) => {
                    agent.table().start_session(call, Some(terms), Instant::now());
                }
                //= RFC 4028 section 10: if the response is 408 or 481 the UA sends BYE
                Some(408 | 481) | None => {
                    agent.lost(call, "SIP;cause=408;text=\"Session expired\"").await;
                }
                // Another refusal ends the session at its expiry.
                Some(_) => {}
            }
        });
    }

    /// The last BYEs: those that wait for an ACK get T1 more, then go out without it. RFC 3261
    /// section 15 would have us wait for 64 * T1, but a BYE that comes early is better than none.
    pub(super) async fn send_last_byes(self: &Arc<Self>) {
        let until = Instant::now() + self.config.t1;
        while self.table().has_unacknowledged() && Instant::now() < until {
            tokio::time::sleep(self.config.t1 / 10).await;
        }
        let left = self.table().take_unacknowledged();
        for (dialog, reason) in left {
            self.metrics.dialogs_active.add(-1);
            self.send_bye(dialog, &reason);
        }
    }

    /// Waits a little for the answers to our BYEs and NOTIFYs.
    pub(super) async fn await_requests(&self) {
        let until = Instant::now() + self.config.t1 * 4;
        while self.requests_open.get() > 0 && Instant::now() < until {
            tokio::time::sleep(self.config.t1 / 10).await;
        }
    }
}

/// Gives the final response to a transaction another task keeps.
fn finish(
    sender: &TransactionEventSender,
    mut response: Response,
    status: u16,
    headers: Vec<Header>,
    body: Vec<u8>,
) {
    complete(&mut response, status, headers, body);
    if sender.send(TransactionEvent::Respond(response)).is_err() {
        tracing::debug!(status, "the transaction is gone");
    }
}

/// What a response that makes the dialog returns to the proxies (RFC 3261 section 12.1.1).
fn push_record_route(lines: &mut String, dialog: &Dialog) {
    for header in dialog.peer.record_route() {
        let _ = write!(lines, "{header}\r\n");
    }
}

fn complete(response: &mut Response, status: u16, headers: Vec<Header>, body: Vec<u8>) {
    response.status_code = StatusCode::from(status);
    response.headers.retain(|header| !matches!(header, Header::ContentLength(_)));
    response.headers.extend(headers);
    response.headers.push(Header::ContentLength(body.len().to_string().into()));
    response.body = body;
}

/// Without Record-Route.
const ACCEPTED_LINES_SIZE_USUAL: usize = 512;
