//! Requests inside a dialog: BYE, re-INVITE, UPDATE; and the peer that is lost.

use std::sync::Arc;

use rsipstack::sip::{Header, HeadersExt, Method, Request, StatusCode};
use rsipstack::transaction::transaction::Transaction;
use tokio::time::Instant;

use super::agent::Agent;
use super::dialog::{Asked, Dialog, Pending, Phase, Within};
use super::gate::SUPPORTED;
use super::incoming::{Refusal, is_ack, offer, respond};
use super::invite::random_u64;
use super::reply;
use super::session::Terms;
use super::station::Reply;
use super::way::Arrival;
use super::wire::{Message, Name};
use crate::mrfc::{CallId, Event};

impl Agent {
    /// The peer is gone: BYE, and the MRFC learns of it unless it hung up itself.
    pub(super) async fn lost(self: &Arc<Self>, call: CallId, reason: &str) {
        let Some(mut dialog) = self.table().remove(call) else {
            return;
        };
        self.metrics.dialogs_active.add(-1);
        // Nobody else answers it any more, and its transaction waits for that without end.
        if let Some(pending) = dialog.pending.take() {
            self.refuse(dialog.peer.connection.clone(), pending, Refusal::new(487));
        }
        let hung_up = matches!(dialog.phase, Phase::Answered { hang_up: Some(_) });
        self.send_bye(dialog, reason);
        if !hung_up {
            self.send(Event::Ended { call }).await;
        }
    }

    /// A BYE whose bytes say enough; what is returned is its answer. `None`: it is the stack's.
    pub(super) async fn receive_bye(
        &self,
        arrival: Arrival<'_>,
        message: &Message<'_>,
    ) -> Option<Reply> {
        let to = reply::destination(message, arrival.source)?;
        let within = Within::of(message)?;
        let head = reply::head(message, None, arrival.source)?;
        let answer = || {
            let extra = self.user_agent_line();
            Some(Reply { bytes: reply::response(200, "OK", &head, &extra, b""), to })
        };
        let call = {
            let mut table = self.table();
            let name = table.repeats.name((b"BYE", &within, message.first(Name::Via)));
            if table.repeats.get(name).is_some() {
                self.metrics.retransmissions.increment();
                return answer();
            }
            let call = table.find_within(&within)?;
            let dialog = table.get_mut(call)?;
            // An unanswered request is answered first (RFC 3261 section 15.1.2), and one that is out
            // of order gets no 200.
            if dialog.pending.is_some() || !dialog.peer.is_next(within.cseq) {
                return None;
            }
            let dialog = table.remove(call)?;
            table.repeats.insert(name, call);
            table.repeats.forget_at(name, Instant::now() + self.config.t1 * 64);
            let hung_up = matches!(dialog.phase, Phase::Answered { hang_up: Some(_) });
            (!hung_up).then_some(call)
        };
        self.metrics.dialogs_active.add(-1);
        self.metrics.byes_received.increment();
        if let Some(call) = call {
            self.send(Event::Ended { call }).await;
        }
        answer()
    }

    pub(super) async fn handle_bye(self: &Arc<Self>, mut transaction: Transaction) {
        let (call, mut dialog) = match self.take_ended(&transaction.original) {
            Ok(ended) => ended,
            Err(status) => return respond(&mut transaction, status, Vec::new()).await,
        };
        self.metrics.dialogs_active.add(-1);
        self.metrics.byes_received.increment();
        respond(&mut transaction, 200, Vec::new()).await;
        //= RFC 3261 section 15.1.2: the UAS MUST still respond to any pending requests
        //= received for that dialog [...] with a 487 (Request Terminated)
        if let Some(pending) = dialog.pending.take() {
            self.refuse(dialog.peer.connection.clone(), pending, Refusal::new(487));
        }
        let hung_up = matches!(dialog.phase, Phase::Answered { hang_up: Some(_) });
        if !hung_up {
            self.send(Event::Ended { call }).await;
        }
    }

    /// Takes out the dialog that a BYE ends; with what the BYE is refused where it ends none.
    fn take_ended(&self, bye: &Request) -> Result<(CallId, Dialog), u16> {
        let cseq = bye.cseq_header().and_then(|cseq| cseq.seq()).map_err(|_| 400_u16)?;
        let mut table = self.table();
        let call = table.find(bye).ok_or(481_u16)?;
        if !table.get_mut(call).is_some_and(|dialog| dialog.peer.is_next(cseq)) {
            return Err(500);
        }
        table.remove(call).map(|dialog| (call, dialog)).ok_or(481)
    }

    pub(super) async fn handle_reinvite(self: &Arc<Self>, mut transaction: Transaction) {
        match self.admit_reinvite(&mut transaction) {
            Ok(Admitted::Ask { call, event }) => {
                if transaction.original.method == Method::Invite
                    && transaction.send_trying().await.is_err()
                {
                    tracing::debug!("100 could not be sent");
                }
                self.spawn(Arc::clone(self).run_reinvite(transaction, call));
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
        if !dialog.peer.advance(cseq) {
            return Err(Refusal::new(500));
        }
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
        dialog.peer.retarget(request);
        if refresh_only {
            let mut headers = vec![
                Header::Contact(dialog.contact.clone().into()),
                Header::Supported(SUPPORTED.into()),
            ];
            headers.extend(terms.iter().flat_map(Terms::headers));
            if dialog.phase != Phase::Early {
                table.start_session(call, terms, Instant::now());
            }
            return Ok(Admitted::Refreshed { headers });
        }
        let template = self.endpoint.make_response(&transaction.original, StatusCode::OK, None);
        let (sender, method) = (transaction.tu_sender.clone(), transaction.original.method);
        let request = Asked::Change { sender, template, method };
        dialog.pending = Some(Pending { cseq, terms, request });
        self.metrics.reinvites.increment();
        Ok(Admitted::Ask { call, event: Event::Reinvite { call, offer } })
    }
}

enum Admitted {
    Ask { call: CallId, event: Event },
    Refreshed { headers: Vec<Header> },
}
