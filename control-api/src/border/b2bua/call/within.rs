//! What happens within the dialogs of a call, either way.

use std::sync::Arc;

use rsipstack::sip::{Header, HeadersExt, Method, Request, Response};
use rsipstack::transaction::transaction::Transaction;

use super::super::super::{ExchangeId, Leg, Refusal};
use super::super::dialogs::{Branch, cseq_of};
use super::super::headers::{cross, values};
use super::super::side::source_of;
use super::super::transactions::{Server, keep_client, keep_server};
use super::initial::unreadable;
use super::{
    AckDue, Call, PASSAGES_MAX, Passage, answer, description, drop_description, refusal_headers,
    refusal_status,
};
use crate::sip::dialing::Sent;
use crate::sip::peer::{Peer, RemoteEnd, contact_of};

impl Call {
    /// A request within a dialog.
    pub(super) async fn asked(&mut self, side: usize, mut transaction: Transaction) {
        let from = if side == self.sides[0].number { Leg::Caller } else { Leg::Callee };
        let request = &transaction.original;
        let method = request.method;
        let known = self.branches.iter().position(|it| it.peer(from).matches(request));
        let branch = match known {
            Some(branch) => Some(branch),
            None if method == Method::Notify => self.branch_by_notify(from, &transaction),
            None => None,
        };
        let Some(branch) = branch.filter(|_| self.over.is_none() || method == Method::Bye) else {
            return answer(&mut transaction, 481, Vec::new()).await;
        };
        let peer = self.branches[branch].peer(from);
        if !peer.advance(cseq_of(request)) {
            return answer(&mut transaction, 500, Vec::new()).await;
        }
        let number = self.next_number();
        let mut server = Server::new(&transaction);
        if let Err(refused) = self.check_order(from, branch, &server.request) {
            let Refusal { status, .. } = refused;
            let headers = refusal_headers(&refused, self.side(from));
            keep_server(self.side(from), transaction, number, self.myself.clone());
            return server.refuse(status, "", headers);
        }
        if method == Method::Invite && transaction.send_trying().await.is_err() {
            tracing::debug!("100 not sent");
        }
        keep_server(self.side(from), transaction, number, self.myself.clone());
        if method == Method::Bye {
            return self.hung_up(from, branch, server).await;
        }
        if matches!(method, Method::Invite | Method::Update) {
            peer_of(self, branch, from).retarget(&server.request);
        }
        let passage = Passage {
            number,
            client: 0,
            client_open: false,
            from,
            method,
            branch: Some(branch),
            server,
            sent: None,
            provisional: false,
            concluded: false,
            cancel: None,
            cancelled: false,
            offer: None,
            ack_due: None,
        };
        self.passages.push(passage);
        let at = self.passages.len() - 1;
        if let Err(refusal) = self.pass_on(at, branch).await
            && let Some(at) = self.passages.iter().position(|it| it.number == number)
        {
            if let Some(exchange) = self.passages[at].offer.take() {
                self.withdraw(exchange).await;
            }
            let headers = refusal_headers(&refusal, self.side(from));
            self.passages[at].server.refuse(refusal_status(&refusal), "", headers);
        }
    }

    /// Whether a request may come now.
    fn check_order(&self, from: Leg, branch: usize, request: &Request) -> Result<(), Refusal> {
        let refusal = |status, retry_after| Err(Refusal { status, warning: None, retry_after });
        let retry = Some(std::time::Duration::from_secs(1));
        if self.passages.len() >= PASSAGES_MAX && request.method != Method::Bye {
            return refusal(503, retry);
        }
        if !matches!(request.method, Method::Invite | Method::Update) {
            return Ok(());
        }
        // A subscription has no session to change.
        if !self.has_media {
            return refusal(481, None);
        }
        let inviting = self.passages.iter().find(|passage| passage.method == Method::Invite);
        if request.method == Method::Invite
            && let Some(passage) = inviting.or_else(|| {
                self.passages.iter().find(|it| it.method == Method::Update && it.offer.is_some())
            })
        {
            //= RFC 3261 section 14.2: A UAS that receives a second INVITE before it sends the final
            //= response to a first INVITE with a lower CSeq sequence number on the same dialog MUST
            //= return a 500 (Server Internal Error) response [...] and MUST include a Retry-After
            //= header field
            return if passage.from == from { refusal(500, retry) } else { refusal(491, None) };
        }
        let offers = description(&request.headers, &request.body).is_ok_and(|it| it.is_some());
        if !offers {
            return Ok(());
        }
        //= RFC 3311 section 5.2: the UAS MUST reject the UPDATE with a 491 response [...] if an UPDATE is
        //= received that contains an offer, and the UAS has generated an offer [...] to which it has not
        //= yet received an answer
        let open = self.offers.iter().map(|(_, whose)| *whose);
        let unanswered = open.chain(self.branches[branch].offered.map(|_| Leg::Callee)).next();
        match unanswered {
            Some(whose) if whose == from => refusal(500, retry),
            Some(_) => refusal(491, None),
            None => Ok(()),
        }
    }

    /// Sends a request on to the other leg, its description as the border has it.
    async fn pass_on(&mut self, at: usize, branch: usize) -> Result<(), Refusal> {
        let passage = &self.passages[at];
        let (from, method, number) = (passage.from, passage.method, passage.number);
        let peer = Arc::clone(self.branches[branch].peer(from.other()));
        let mut request = self.passed_request(&passage.server.request, from, &peer);
        if matches!(method, Method::Invite | Method::Update | Method::PRack) {
            if let Some(range) =
                description(&request.headers, &request.body).map_err(|_| unreadable())?
            {
                let sdp = request.body[range.clone()].to_vec();
                let offered = self.branches[branch].offered.filter(|_| method == Method::PRack);
                let sdp = match offered {
                    Some(exchange) => {
                        self.branches[branch].offered = None;
                        self.close_offer(exchange);
                        let answer = self.answer(exchange, sdp).await?;
                        self.branches[branch].settled = true;
                        answer
                    }
                    None => {
                        let (exchange, sdp) = self.offer(from, sdp).await?;
                        if let Some(passage) = self.passage(|it| it.number == number) {
                            passage.offer = Some(exchange);
                        }
                        sdp
                    }
                };
                request.body.splice(range, sdp);
            }
            if method == Method::PRack {
                let unacknowledged = self.acknowledge_reliable(branch, from, &mut request);
                unacknowledged.ok_or(refused(481))?;
            }
        }
        let side = Arc::clone(self.side(from.other()));
        let to = side.next_hop_of(&peer);
        let transaction = side.client(request, &to, Some(&peer.connection)).await;
        let transaction = transaction.ok_or(refused(503))?;
        let connection = transaction.connection.clone().ok_or(refused(503))?;
        let client = self.next_number();
        let passage = self.passage(|it| it.number == number).ok_or(refused(481))?;
        let next_hop = transaction.destination.clone().unwrap_or(to);
        passage.sent = Some(Sent { request: transaction.original.clone(), connection, next_hop });
        passage.client = client;
        passage.client_open = true;
        keep_client(&side, transaction, client, self.myself.clone());
        Ok(())
    }

    /// Translates RAck: the response has its number on both legs, the INVITE another one on each.
    fn acknowledge_reliable(
        &mut self,
        branch: usize,
        from: Leg,
        prack: &mut Request,
    ) -> Option<()> {
        let invites = |it: &&Passage| it.method == Method::Invite && it.from == from;
        let asked = self.passages.iter().find(invites)?;
        let cseq = asked.sent.as_ref()?.cseq()?;
        let asker = &self
            .passages
            .iter()
            .rev()
            .find(|it| it.method == Method::PRack && it.from == from && !it.client_open)?;
        let said = values(&asker.server.request.headers, "RAck").first()?.to_string();
        let number: u32 = said.split_ascii_whitespace().next()?.parse().ok()?;
        let own_cseq: u32 = said.split_ascii_whitespace().nth(1)?.parse().ok()?;
        if own_cseq != cseq_of(&asked.server.request) {
            return None;
        }
        self.branches[branch].unacknowledged.retain(|reliable| reliable.number != number);
        prack.headers.push(Header::RAck(format!("{number} {cseq} INVITE").into()));
        Some(())
    }

    /// BYE: both legs are over. It is answered at once, and the other one hears the same.
    async fn hung_up(&mut self, from: Leg, branch: usize, mut server: Server) {
        let response = server.response(rsipstack::sip::StatusCode::OK, None);
        server.respond(response);
        if self.over.is_some() {
            return;
        }
        let carried = cross(&server.request.headers, self.side(from), self.side(from.other()));
        // The ACK that this leg has not sent does not come any more, or the 2xx was its BYE's.
        for passage in &mut self.passages {
            if passage.from == from
                && let Some(due) = &mut passage.ack_due
            {
                due.hang_up = None;
            }
        }
        self.hang_up_leg(branch, from.other(), carried).await;
        let tag = self.tag.clone();
        for at in 0..self.passages.len() {
            let passage = &mut self.passages[at];
            if passage.from == from {
                passage.ack_due = None;
            }
            if !passage.server.is_answered() {
                //= RFC 3261 section 15.1.2: The UAS MUST still respond to any pending requests received
                //= for that dialog. It is RECOMMENDED that a 487 (Request Terminated) response
                passage.server.refuse(487, &tag, Vec::new());
            }
            self.cancel_passage(at, Vec::new());
        }
        self.end().await;
    }

    /// A response of the leg that was asked, as it came.
    pub(super) async fn responded(&mut self, response: Response) {
        let found = self.passages.iter().position(|passage| {
            let sent = passage.sent.as_ref().map(|sent| &sent.request);
            passage.client_open
                && !passage.concluded
                && sent.is_some_and(|request| answers(&response, request))
        });
        let status = response.status_code.code();
        match found {
            Some(at) => self.answered(at, response).await,
            None if (200..300).contains(&status) => self.late_success(&response).await,
            None => {}
        }
    }

    /// What the stack says for one that does not come.
    pub(super) async fn failed_to_send(&mut self, client: u32, response: Response) {
        let found = self.passages.iter().position(|it| it.client == client && !it.concluded);
        if let Some(at) = found {
            self.answered(at, response).await;
        }
    }

    async fn answered(&mut self, at: usize, mut response: Response) {
        let status = response.status_code.code();
        if status < 200 {
            self.provisional(at);
            if status == 100 || self.over.is_some() || self.passages[at].server.is_answered() {
                return;
            }
            if self.passages[at].branch.is_none() && self.has_media {
                return self.progress(at, response).await;
            }
            // Of a change the border knows what its 2xx describes.
            drop_description(&mut response);
            let passed = self.passed_response(&self.passages[at], &response, None);
            return self.passages[at].server.respond(passed);
        }
        self.passages[at].concluded = true;
        if self.passages[at].branch.is_none() {
            return self.first_answered(at, response).await;
        }
        match self.passages[at].method {
            Method::Invite if status < 300 => self.change_accepted(at, response).await,
            Method::Update | Method::PRack if status < 300 => {
                self.update_accepted(at, response).await;
            }
            _ => {
                if let Some(exchange) = self.passages[at].offer.take() {
                    self.withdraw(exchange).await;
                }
                drop_description(&mut response);
                let passed = self.passed_response(&self.passages[at], &response, None);
                let asked = self.passages[at].from.other();
                let lost = matches!(status, 408 | 481)
                    && matches!(self.passages[at].method, Method::Invite | Method::Update);
                self.passages[at].server.respond(passed);
                self.after_final(at, &response).await;
                //= RFC 3261 section 12.2.1.2: If the response for a request within a dialog is a 481
                //= [...] or a 408 [...], the UAC SHOULD terminate the dialog.
                if lost && self.over.is_none() && self.has_media {
                    let leg = if asked == Leg::Caller { "caller" } else { "callee" };
                    self.release(&format!("SIP;cause={status};text=\"{leg} is gone\"")).await;
                }
            }
        }
    }

    /// 2xx to a re-INVITE.
    async fn change_accepted(&mut self, at: usize, mut response: Response) {
        let Some(branch) = self.passages[at].branch else { return };
        let asked = self.passages[at].from.other();
        let number = self.passages[at].number;
        peer_of(self, branch, asked).retarget_to(contact_in(&response));
        let described = self.describe_success(at, branch, &mut response).await;
        let Some(at) = self.passages.iter().position(|it| it.number == number) else { return };
        let due = |offer| AckDue { branch, offer, passed: false, hang_up: None };
        match described {
            Ok(offer) => {
                self.restart_session(&response);
                let passed = self.passed_response(&self.passages[at], &response, None);
                let passage = &mut self.passages[at];
                passage.ack_due = Some(due(offer));
                passage.server.respond(passed);
            }
            Err(refusal) => {
                self.passages[at].ack_due = Some(due(None));
                self.pass_ack(at, None).await;
                self.passages[at].ack_due = None;
                self.refuse_passage(at, &refusal);
            }
        }
    }

    /// 2xx to an UPDATE or a PRACK.
    async fn update_accepted(&mut self, at: usize, mut response: Response) {
        let (number, method) = (self.passages[at].number, self.passages[at].method);
        let asked = self.passages[at].from.other();
        if let (Some(branch), Method::Update) = (self.passages[at].branch, method) {
            peer_of(self, branch, asked).retarget_to(contact_in(&response));
            if self.branches[branch].confirmed {
                self.restart_session(&response);
            }
        }
        let mut refused = None;
        if let Some(exchange) = self.passages[at].offer.take() {
            match description(&response.headers, &response.body) {
                Ok(Some(range)) => {
                    self.close_offer(exchange);
                    let sdp = response.body[range.clone()].to_vec();
                    match self.answer(exchange, sdp).await {
                        Ok(sdp) => drop(response.body.splice(range, sdp)),
                        Err(refusal) => refused = Some(refusal),
                    }
                }
                Ok(None) => self.withdraw(exchange).await,
                Err(_) => refused = Some(unreadable()),
            }
        }
        let Some(at) = self.passages.iter().position(|it| it.number == number) else { return };
        if let Some(refusal) = refused {
            return self.refuse_passage(at, &refusal);
        }
        let passed = self.passed_response(&self.passages[at], &response, None);
        self.passages[at].server.respond(passed);
    }

    fn refuse_passage(&mut self, at: usize, refusal: &Refusal) {
        let headers = refusal_headers(refusal, self.side(self.passages[at].from));
        self.passages[at].server.refuse(refusal_status(refusal), "", headers);
    }

    /// What a final response to anything else means for the dialog.
    async fn after_final(&mut self, at: usize, response: &Response) {
        let status = response.status_code.code();
        let passage = &self.passages[at];
        if self.has_media {
            return;
        }
        let request = &passage.server.request;
        let state = values(&request.headers, "Subscription-State");
        let state = state.first().map(|value| value.split(';').next().unwrap_or_default().trim());
        match passage.method {
            //= RFC 6665 section 4.4.1: a NOTIFY with "terminated" destroys the subscription
            Method::Notify
                if status == 481
                    || state.is_some_and(|it| it.eq_ignore_ascii_case("terminated")) =>
            {
                self.end().await;
            }
            Method::Subscribe if status < 300 => self.extend_lease(response),
            Method::Subscribe if status == 481 => self.end().await,
            _ => {}
        }
    }

    /// The ACK of a 2xx that went back, or none where its transaction has given up.
    pub(super) async fn acknowledged(&mut self, server: u32, ack: Option<&Request>) {
        let found = self.passages.iter().position(|it| it.number == server && it.ack_due.is_some());
        let Some(at) = found else { return };
        if self.passages[at].ack_due.as_ref().is_some_and(|due| !due.passed) {
            self.pass_ack(at, ack).await;
        }
        let Some(at) = self.passages.iter().position(|it| it.number == server) else { return };
        let from = self.passages[at].from;
        if let Some(AckDue { branch, hang_up: Some(headers), .. }) =
            self.passages[at].ack_due.take()
        {
            self.side(from).hang_up(self.branches[branch].peer(from), headers);
        }
    }

    /// Sends who was asked the ACK, with the answer to its offer if there was one.
    pub(super) async fn pass_ack(&mut self, at: usize, ack: Option<&Request>) {
        let passage = &mut self.passages[at];
        let (number, from) = (passage.number, passage.from);
        let Some(cseq) = passage.sent.as_ref().and_then(Sent::cseq) else { return };
        let Some(due) = &mut passage.ack_due else { return };
        due.passed = true;
        let (branch, offer) = (due.branch, due.offer.take());
        let peer = Arc::clone(self.branches[branch].peer(from.other()));
        let mut passed = peer.numbered(Method::Ack, cseq);
        let mut failed = None;
        if let Some(ack) = ack {
            passed.headers.extend(cross(&ack.headers, self.side(from), self.side(from.other())));
            passed.body.clone_from(&ack.body);
            failed = self.describe_ack(&mut passed, offer).await.err();
        }
        let side = Arc::clone(self.side(from.other()));
        let sent = side.acknowledge(&peer, passed).await;
        self.branches[branch].acks[from.other() as usize] = sent;
        if let (Some(refusal), Some(_)) = (failed, self.passage(|it| it.number == number)) {
            let status = refusal_status(&refusal);
            let reason = vec![Header::Reason(format!("SIP;cause={status}").into())];
            if self.over.is_none() {
                // The ACK that this leg waited for is here.
                if let Some(passage) = self.passage(|it| it.number == number) {
                    passage.ack_due = None;
                }
                Box::pin(self.give_up_with(status, Vec::new(), reason)).await;
            }
        }
    }

    /// The answer in an ACK; without one the offer comes to nothing, and so does the session.
    async fn describe_ack(
        &mut self,
        ack: &mut Request,
        offer: Option<ExchangeId>,
    ) -> Result<(), Refusal> {
        let found = description(&ack.headers, &ack.body).map_err(|_| unreadable())?;
        match (found, offer) {
            (Some(range), Some(exchange)) => {
                self.close_offer(exchange);
                let sdp = ack.body[range.clone()].to_vec();
                match self.answer(exchange, sdp).await {
                    Ok(sdp) => drop(ack.body.splice(range, sdp)),
                    Err(refusal) => {
                        ack.body.clear();
                        return Err(refusal);
                    }
                }
                Ok(())
            }
            (None, Some(exchange)) => {
                self.withdraw(exchange).await;
                Err(refused(488))
            }
            // It answers nothing, so it says nothing.
            (Some(range), None) => {
                ack.body.drain(range);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// The transaction of a request of a peer is over; if the ACK has not come, it does not any more.
    pub(super) async fn server_gone(&mut self, server: u32) {
        let Some(passage) = self.passage(|it| it.number == server) else { return };
        if passage.ack_due.is_none() {
            return;
        }
        self.shared.metrics.acks_missing.increment();
        //= RFC 3261 section 13.3.1.4: If the server retransmits the 2xx response for 64*T1 seconds without
        //= receiving an ACK, the dialog is confirmed, but the session SHOULD be terminated.
        self.acknowledged(server, None).await;
        if self.over.is_none() {
            self.release("SIP;cause=408;text=\"no ACK\"").await;
        }
    }

    /// CANCEL; the stack has answered it.
    pub(super) async fn cancelled(&mut self, server: u32, request: &Request) {
        let Some(at) = self.passages.iter().position(|it| it.number == server) else { return };
        if self.passages[at].server.is_answered() {
            return;
        }
        let from = self.passages[at].from;
        let mut headers = cross(&request.headers, self.side(from), self.side(from.other()));
        headers.retain(|header| matches!(header, Header::Reason(_)));
        if self.passages[at].branch.is_some() {
            // Whether it came in time says who was asked.
            return self.cancel_passage(at, headers);
        }
        self.shared.metrics.calls_cancelled.increment();
        let tag = self.tag.clone();
        self.passages[at].server.refuse(487, &tag, Vec::new());
        self.cancel_passage(at, headers);
        self.end().await;
    }

    /// The transaction of a request of ours is over; without a final response, that was a timeout.
    pub(super) async fn client_gone(&mut self, client: u32) {
        let Some(at) = self.passages.iter().position(|it| it.client == client) else { return };
        self.passages[at].client_open = false;
        if self.passages[at].server.is_answered() || self.passages[at].ack_due.is_some() {
            return;
        }
        let offer = self.passages[at].offer.take();
        let tag = self.tag.clone();
        self.passages[at].server.refuse(408, &tag, Vec::new());
        if self.passages[at].branch.is_none() {
            self.end().await;
        } else if let Some(exchange) = offer {
            self.withdraw(exchange).await;
        }
    }

    /// A NOTIFY may be faster than the 2xx to what it is for, and makes the dialog then (RFC 6665 section
    /// 4.4.1).
    fn branch_by_notify(&mut self, from: Leg, transaction: &Transaction) -> Option<usize> {
        if self.has_media || from != Leg::Callee {
            return None;
        }
        let at = self.passages.iter().position(|it| it.branch.is_none())?;
        let sent = self.passages[at].sent.clone()?;
        let notify = &transaction.original;
        let local = sent.request.from_header().ok()?.tag().ok()??.value().to_owned();
        if notify.to_header().ok()?.tag().ok()??.value() != local {
            return None;
        }
        let remote = RemoteEnd {
            call_id: notify.call_id_header().ok()?.value().to_owned(),
            tag: notify.from_header().ok()?.tag().ok()??.value().to_owned(),
            cseq: 0,
        };
        if sent.request.call_id_header().ok()?.value() != remote.call_id {
            return None;
        }
        let source = source_of(notify, self.source);
        let source = if self.sides[1].is_symmetric() { source } else { sent.next_hop.clone() };
        let callee = Peer::of(notify, local, remote, sent.connection.clone(), source)?;
        callee.local_cseq.store(cseq_of(&sent.request), std::sync::atomic::Ordering::Relaxed);
        callee.remote_cseq_min.store(0, std::sync::atomic::Ordering::Relaxed);
        let caller = self.caller_peer(at)?;
        self.branches.push(Branch::new(caller, callee));
        Some(self.branches.len() - 1)
    }
}

fn peer_of(call: &Call, branch: usize, leg: Leg) -> &Arc<Peer> {
    call.branches[branch].peer(leg)
}

fn contact_in(response: &Response) -> Option<rsipstack::sip::Uri> {
    contact_of(response.contact_header().ok()?.value())
}

/// Whether a response belongs to a request of ours.
fn answers(response: &Response, request: &Request) -> bool {
    let name = |headers: &rsipstack::sip::Headers, name: &str| {
        values(headers, name).first().map(ToString::to_string)
    };
    ["Call-ID", "CSeq"].iter().all(|it| name(&response.headers, it) == name(&request.headers, it))
}

fn refused(status: u16) -> Refusal {
    Refusal { status, warning: None, retry_after: None }
}
