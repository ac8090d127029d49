//! What goes out at the MRFC's wish or by the clock: final answers, BYE, session refreshes.

use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::{Header, Method, Response, StatusCode};
use rsipstack::transaction::transaction::TransactionEvent;
use tokio::time::Instant;

use super::agent::Agent;
use super::dialog::{Deadline, Dialog, Pending, Phase};
use super::gate::{ALLOW, ALLOW_EVENTS, SUPPORTED};
use super::session::Terms;
use crate::mrfc::{Answer, CallId};

/// How often sessions are looked at: far below any Session-Expires.
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_millis(100);

impl Agent {
    /// The MRFC's answer to an INVITE or re-INVITE. Too late is no error.
    pub(super) fn answer(&self, call: CallId, answer: Answer) {
        let mut table = self.table();
        let Some(dialog) = table.get_mut(call) else {
            return;
        };
        let Some(pending) = dialog.pending.take() else {
            return;
        };
        match answer {
            Answer::Accepted { sdp } => {
                let terms = pending.terms;
                let mut headers = vec![
                    Header::Contact(dialog.contact.clone().into()),
                    Header::Allow(ALLOW.into()),
                    Header::Other("Allow-Events".into(), ALLOW_EVENTS.into()),
                    Header::Supported(SUPPORTED.into()),
                    Header::ContentType("application/sdp".into()),
                ];
                headers.extend(terms.iter().flat_map(Terms::headers));
                if pending.method == Method::Invite {
                    headers.extend(dialog.peer.record_route());
                    dialog.ack_due = Some(pending.cseq);
                }
                if dialog.phase == Phase::Early {
                    dialog.phase = Phase::Answered { hang_up: None };
                }
                self.metrics.count_answer(200);
                finish(pending, 200, headers, sdp);
                table.start_session(call, terms, Instant::now());
            }
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
                if dialog.phase == Phase::Early {
                    table.remove(call);
                    self.metrics.dialogs_active.add(-1);
                }
                self.metrics.count_answer(status);
                finish(pending, status, headers, Vec::new());
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
        match dialog.phase {
            Phase::Early => {
                if let Some(pending) = pending {
                    self.metrics.count_answer(480);
                    finish(pending, 480, vec![Header::Reason(reason.into())], Vec::new());
                }
            }
            Phase::Answered { .. } | Phase::Confirmed => {
                if let Some(pending) = pending {
                    finish(pending, 487, Vec::new(), Vec::new());
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

    /// Refreshes the sessions that are ours to refresh and ends those that were not refreshed.
    pub(super) async fn run_sessions(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SESSION_SWEEP_INTERVAL);
        loop {
            tick.tick().await;
            self.ring();
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
            let Some(pending) = &dialog.pending else { continue };
            let mut headers = vec![Header::Contact(dialog.contact.clone().into())];
            headers.extend(dialog.peer.record_route());
            let mut response = pending.template.clone();
            complete(&mut response, 180, headers, Vec::new());
            self.metrics.ringing.increment();
            // A transaction that is gone rings no more.
            let _ = pending.sender.send(TransactionEvent::Respond(response));
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
        // The roles of RFC 4028 are those of the refresh request: here we are the UAC.
        let value = format!("{};refresher=uac", terms.interval.as_secs());
        request.headers.push(Header::SessionExpires(value.into()));
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
pub(super) fn finish(pending: Pending, status: u16, headers: Vec<Header>, body: Vec<u8>) {
    let mut response: Response = pending.template;
    complete(&mut response, status, headers, body);
    if pending.sender.send(TransactionEvent::Respond(response)).is_err() {
        tracing::debug!(status, "the transaction is gone");
    }
}

fn complete(response: &mut Response, status: u16, headers: Vec<Header>, body: Vec<u8>) {
    response.status_code = StatusCode::from(status);
    response.headers.retain(|header| !matches!(header, Header::ContentLength(_)));
    response.headers.extend(headers);
    response.headers.push(Header::ContentLength(body.len().to_string().into()));
    response.body = body;
}
