//! The request that begins a call: over which next hop it goes, and what its responses make of it.

use rsipstack::sip::{Header, Headers, HeadersExt, Method, Request, Response, Version};
use rsipstack::transaction::transaction::Transaction;
use tokio::time::{Duration, Instant};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::super::{Event, ExchangeId, Leg, Refusal};
use super::super::dialogs::{Branch, Reliable, cseq_of, new_tag};
use super::super::headers::{cross, hide_host, values};
use super::super::next_hops::is_answer;
use super::super::passing::Target;
use super::super::side::source_of;
use super::super::transactions::{Server, keep_client, keep_server, set_body};
use super::{
    BRANCHES_MAX, Call, Passage, answer, caller_of, contact, description, drop_description,
    forwards_left, refusal_headers, refusal_status,
};
use crate::sip::dialing::Sent;
use crate::sip::peer::{Peer, contact_of};

impl Call {
    /// Takes the request that begins the call.
    pub(super) async fn start(&mut self, mut transaction: Transaction) {
        let found = if self.has_media {
            description(&transaction.original.headers, &transaction.original.body)
        } else {
            Ok(None)
        };
        let Ok(described) = found else {
            self.over = Some(Instant::now());
            return answer(&mut transaction, 415, Vec::new()).await;
        };
        let number = self.next_number();
        let server = Server::new(&transaction);
        let method = transaction.original.method;
        keep_server(&self.sides[0], transaction, number, self.myself.clone());
        self.passages.push(Passage {
            number,
            client: 0,
            client_open: false,
            from: Leg::Caller,
            method,
            branch: None,
            server,
            sent: None,
            provisional: false,
            concluded: false,
            cancel: None,
            cancelled: false,
            offer: None,
            ack_due: None,
        });
        if self.has_media {
            self.shared.metrics.calls.increment();
            let caller = {
                let connection = self.passages.first().and_then(|it| it.server.connection.as_ref());
                caller_of(&self.sides[0], self.source, connection)
            };
            if let Some(target) = self.targets.front() {
                let callee = target.party(&self.sides[1]);
                self.begun = true;
                self.tell(Event::Begun { call: self.id, caller, callee }).await;
            }
        }
        if let Some(range) = described {
            let sdp = self.body[range.clone()].to_vec();
            match self.offer(Leg::Caller, sdp).await {
                Ok((exchange, sdp)) => {
                    self.body.splice(range, sdp);
                    self.passages[0].offer = Some(exchange);
                }
                Err(refusal) => return self.refuse_call(&refusal).await,
            }
        }
        self.attempt(None).await;
    }

    /// What the border does not want ends as it says.
    async fn refuse_call(&mut self, refusal: &Refusal) {
        self.shared.metrics.calls_refused.increment();
        let headers = refusal_headers(refusal, &self.sides[0]);
        let status = refusal_status(refusal);
        self.give_up(status, headers, &format!("SIP;cause={status}")).await;
    }

    /// Sends the request to the next target that can be reached; without one, the last answer goes back.
    async fn attempt(&mut self, last: Option<Response>) {
        let mut again = last.is_some();
        while let Some(target) = self.targets.pop_front() {
            if std::mem::replace(&mut again, true) {
                self.shared.metrics.reroutes.increment();
                if self.begun {
                    let callee = target.party(&self.sides[1]);
                    self.tell(Event::Rerouted { call: self.id, callee }).await;
                }
            }
            if self.send_to(&target).await {
                return;
            }
            if let Some(next_hop) = target.next_hop {
                self.sides[1].next_hops.saw(next_hop, false);
            }
        }
        let Some(at) = self.passages.iter().position(|it| it.branch.is_none()) else { return };
        self.shared.metrics.calls_refused.increment();
        match last {
            Some(response) => {
                let passed = self.passed_response(&self.passages[at], &response, Some(&self.tag));
                self.passages[at].server.respond(passed);
            }
            None => {
                let tag = self.tag.clone();
                self.passages[at].server.refuse(503, &tag, Vec::new());
            }
        }
        self.end().await;
    }

    async fn send_to(&mut self, target: &Target) -> bool {
        let number = self.next_number();
        let local_tag = new_tag(self.id.0);
        let Some(at) = self.passages.iter().position(|it| it.branch.is_none()) else {
            return false;
        };
        let side = Arc::clone(&self.sides[1]);
        let request = &self.passages[at].server.request;
        let Some(request) = self.first_request(request, target, &local_tag) else { return false };
        let transaction = side.client(request, &target.destination, target.flow.as_ref()).await;
        let Some(transaction) = transaction else { return false };
        let Some(connection) = transaction.connection.clone() else { return false };
        let next_hop =
            transaction.destination.clone().unwrap_or_else(|| target.destination.clone());
        let passage = &mut self.passages[at];
        let sent = Sent { request: transaction.original.clone(), connection, next_hop };
        self.attempts.push(sent.clone());
        passage.sent = Some(sent);
        passage.client = number;
        passage.client_open = true;
        passage.provisional = false;
        passage.concluded = false;
        self.target = Some(target.clone());
        keep_client(&side, transaction, number, self.myself.clone());
        true
    }

    /// The request as it leaves towards a target, in dialogs of its own.
    fn first_request(&self, request: &Request, target: &Target, tag: &str) -> Option<Request> {
        let (caller, callee) = (&self.sides[0], &self.sides[1]);
        let from = bare_value(request.from_header().ok()?.value());
        let to = bare_value(request.to_header().ok()?.value());
        let cseq = if self.has_media { CSEQ_FIRST } else { cseq_of(request) };
        let mut headers = vec![
            Header::From(format!("{};tag={tag}", hide_host(&from, callee)).into()),
            Header::To(hide_host(&to, callee).into()),
            Header::CallId(new_tag(0).into()),
            Header::CSeq(format!("{cseq} {}", request.method).into()),
            Header::MaxForwards(forwards_left(&request.headers).to_string().into()),
            contact(&callee.contact_uri("", target.destination.r#type), &request.headers),
        ];
        headers.extend(target.routes.iter().map(|route| Header::Route(route.clone().into())));
        headers.extend(cross(&request.headers, caller, callee));
        headers.extend(target.identity.clone());
        Some(Request {
            method: request.method,
            uri: target.uri.clone(),
            version: Version::V2,
            headers: headers.into(),
            body: self.body.clone(),
        })
    }

    /// A final response to the request that began the call.
    pub(super) async fn first_answered(&mut self, at: usize, mut response: Response) {
        let status = response.status_code.code();
        match status {
            200..=299 => {
                self.saw_next_hop(true);
                self.succeeded(at, response).await;
            }
            _ => {
                self.saw_next_hop(is_answer(status));
                drop_description(&mut response);
                self.failed(at, response).await;
            }
        }
    }

    fn saw_next_hop(&self, alive: bool) {
        if let Some(next_hop) = self.target.as_ref().and_then(|target| target.next_hop) {
            self.sides[1].next_hops.saw(next_hop, alive);
        }
    }

    pub(super) fn provisional(&mut self, at: usize) {
        self.passages[at].provisional = true;
        if let Some(headers) = self.passages[at].cancel.take() {
            self.cancel_passage(at, headers);
        }
    }

    /// 18x: an early dialog on both legs, perhaps media, perhaps reliable.
    pub(super) async fn progress(&mut self, at: usize, mut response: Response) {
        let Some(branch) = self.branch_of(at, &response) else {
            // It makes no dialog, or one too many: said is only that there is progress.
            let (headers, body) = (&mut response.headers, &mut response.body);
            set_body(headers, body, Vec::new());
            let passed = self.passed_response(&self.passages[at], &response, Some(&self.tag));
            return self.passages[at].server.respond(passed);
        };
        let reliable = reliable_number(&response);
        if let Some(number) = reliable {
            //= RFC 3262 section 4: If the UAC receives another reliable provisional response to the same
            //= request, and its RSeq value is not one higher than the value of the sequence number, that
            //= response MUST NOT be acknowledged with a PRACK, and MUST NOT be processed further
            let last = &mut self.branches[branch].reliable;
            if last.is_some_and(|last| last.checked_add(1) != Some(number)) {
                return;
            }
            *last = Some(number);
        }
        let Ok(found) = description(&response.headers, &response.body) else {
            return self.refuse_call(&unreadable()).await;
        };
        if let Some(range) = found {
            let sdp = response.body[range.clone()].to_vec();
            let changed = match (self.passages[at].offer, reliable) {
                _ if self.branches[branch].settled => Ok(Vec::new()),
                (Some(exchange), _) => self.answer(exchange, sdp).await.inspect(|_| {
                    if reliable.is_some() {
                        self.branches[branch].settled = true;
                        self.offers.retain(|(open, _)| *open != exchange);
                    }
                }),
                (None, Some(_)) => self.offer(Leg::Callee, sdp).await.map(|(exchange, sdp)| {
                    self.branches[branch].offered = Some(exchange);
                    sdp
                }),
                // RFC 3261 section 13.2.1: the offer of who was called is in a reliable response. An
                // unreliable one gets no answer.
                (None, None) => Ok(Vec::new()),
            };
            match changed {
                Ok(sdp) => drop(response.body.splice(range, sdp)),
                Err(refusal) => return self.refuse_call(&refusal).await,
            }
        }
        if self.over.is_some() {
            return;
        }
        let tag = self.branches[branch].caller.local_tag.clone();
        let mut passed = self.passed_response(&self.passages[at], &response, Some(&tag));
        passed.headers.extend(self.branches[branch].caller.record_route().collect());
        if let Some(number) = reliable {
            let interval = self.sides[0].config.t1;
            let now = Instant::now();
            let next = now + interval;
            let until = now + interval * 64;
            let response = passed.clone();
            let unacknowledged = &mut self.branches[branch].unacknowledged;
            unacknowledged.retain(|earlier| earlier.number != number);
            if unacknowledged.len() < UNACKNOWLEDGED_MAX {
                unacknowledged.push(Reliable { number, response, interval, next, until });
            }
        }
        self.passages[at].server.respond(passed);
    }

    //= RFC 3262 section 3: retransmitted with an exponential backoff
    /// What the callee repeats its stack does not tell us, and it may be lost on our way alone.
    pub(super) async fn repeat_reliable(&mut self, now: Instant) {
        let Some(passage) = self.passages.iter_mut().find(|it| it.branch.is_none()) else { return };
        let mut given_up = false;
        for reliable in self.branches.iter_mut().flat_map(|it| it.unacknowledged.iter_mut()) {
            if reliable.next > now {
                continue;
            }
            given_up |= reliable.until <= now;
            reliable.interval *= 2;
            reliable.next = now + reliable.interval;
            passage.server.respond(reliable.response.clone());
        }
        if given_up {
            //= RFC 3262 section 3: If a reliable provisional response is retransmitted for 64*T1
            //= seconds without reception of a corresponding PRACK, the UAS SHOULD reject the original
            //= request with a 5xx response.
            self.give_up(504, Vec::new(), "SIP;cause=504;text=\"no PRACK\"").await;
        }
    }

    /// 2xx: the first of all branches is the call.
    async fn succeeded(&mut self, at: usize, mut response: Response) {
        let late = self.over.is_some() || self.passages[at].server.is_answered();
        let branch = if late { None } else { self.branch_of(at, &response) };
        let Some(branch) = branch else {
            if self.passages[at].method == Method::Invite {
                self.reject_branch(at, &response, "SIP;cause=487;text=\"call is over\"").await;
            }
            if !late {
                self.give_up(502, Vec::new(), "SIP;cause=502").await;
            }
            return;
        };
        self.replace_callee(at, branch, &response);
        // Nobody waits for another branch any more, either.
        for branch in &mut self.branches {
            branch.unacknowledged.clear();
        }
        if !self.has_media {
            return self.subscribed(at, branch, response);
        }
        let offer = match self.describe_success(at, branch, &mut response).await {
            Ok(offer) => offer,
            Err(refusal) => {
                let reason = format!("SIP;cause={}", refusal_status(&refusal));
                self.reject_branch(at, &response, &reason).await;
                return self.refuse_call(&refusal).await;
            }
        };
        self.branches[branch].confirmed = true;
        self.shared.metrics.calls_answered.increment();
        self.restart_session(&response);
        let tag = self.branches[branch].caller.local_tag.clone();
        let mut passed = self.passed_response(&self.passages[at], &response, Some(&tag));
        passed.headers.extend(self.branches[branch].caller.record_route().collect());
        let passage = &mut self.passages[at];
        passage.branch = Some(branch);
        passage.ack_due = Some(super::AckDue { branch, offer, passed: false, hang_up: None });
        passage.server.respond(passed);
    }

    /// Has the border look at the description in a 2xx to an INVITE. What is returned is the offer in it, if
    /// it is one.
    pub(super) async fn describe_success(
        &mut self,
        at: usize,
        branch: usize,
        response: &mut Response,
    ) -> Result<Option<ExchangeId>, Refusal> {
        let found = description(&response.headers, &response.body);
        let found = found.map_err(|_| unreadable())?;
        let offered = self.passages[at].offer;
        let Some(range) = found else {
            if let Some(exchange) = offered {
                self.close_offer(exchange);
            }
            return Ok(None);
        };
        let sdp = response.body[range.clone()].to_vec();
        let asked = self.passages[at].from.other();
        let first = self.passages[at].branch.is_none();
        let (sdp, offer) = match offered {
            _ if first && self.branches[branch].settled => {
                offered.map(|exchange| self.close_offer(exchange));
                (Vec::new(), None)
            }
            Some(exchange) => {
                self.close_offer(exchange);
                (self.answer(exchange, sdp).await?, None)
            }
            // The callee's offer was in a reliable response: this one says it again.
            None if self.branches[branch].offered.is_some() => (Vec::new(), None),
            None => {
                let (exchange, sdp) = self.offer(asked, sdp).await?;
                (sdp, Some(exchange))
            }
        };
        response.body.splice(range, sdp);
        Ok(offer)
    }

    /// 3xx to 6xx: another next hop, or the end.
    async fn failed(&mut self, at: usize, response: Response) {
        let status = response.status_code.code();
        let given_up = self.over.is_some() || self.passages[at].server.is_answered();
        if given_up {
            return;
        }
        if status == 408 && self.passages[at].provisional {
            // The stack's timer C: who rings is told that it is over (RFC 3261 section 16.8).
            self.passages[at].concluded = false;
            self.cancel_passage(at, Vec::new());
        } else if !is_answer(status) && self.branches.is_empty() {
            return self.attempt(Some(response)).await;
        }
        if self.has_media {
            self.shared.metrics.calls_refused.increment();
        }
        let passed = self.passed_response(&self.passages[at], &response, Some(&self.tag));
        self.passages[at].server.respond(passed);
        self.end().await;
    }

    /// A 2xx that belongs to no transaction: it comes again, or from another branch of a fork.
    pub(super) async fn late_success(&mut self, response: &Response) {
        if response.cseq_header().and_then(|cseq| cseq.method()).ok() != Some(Method::Invite) {
            return;
        }
        let tag = |tag: rsipstack::Result<Option<rsipstack::sip::param::Tag>>| {
            tag.ok().flatten().map(|tag| tag.value().to_owned())
        };
        let remote = tag(response.to_header().and_then(|to| to.tag()).map_err(Into::into));
        let local = tag(response.from_header().and_then(|from| from.tag()).map_err(Into::into));
        let (Some(remote), Some(local)) = (remote, local) else { return };
        let cseq = response.cseq_header().and_then(|cseq| cseq.seq()).ok();
        for branch in self.branches.iter().filter(|branch| branch.confirmed) {
            for leg in [Leg::Caller, Leg::Callee] {
                let peer = branch.peer(leg);
                if peer.remote_tag != remote || peer.local_tag != local {
                    continue;
                }
                let ack = branch.acks[leg as usize].as_ref();
                if let Some(ack) = ack.filter(|ack| ack.cseq() == cseq) {
                    ack.send().await;
                }
                return;
            }
        }
        // Of another branch, or of a next hop that was given up before.
        let attempt = self.attempts.iter().find(|it| {
            let call_id =
                |headers: &Headers| values(headers, "Call-ID").first().map(ToString::to_string);
            call_id(&it.request.headers) == call_id(&response.headers)
        });
        if let Some(attempt) = attempt {
            self.reject(attempt, response, "SIP;cause=487;text=\"answered elsewhere\"").await;
        }
    }

    async fn reject_branch(&self, at: usize, response: &Response, reason: &str) {
        if let Some(sent) = &self.passages[at].sent {
            self.reject(sent, response, reason).await;
        }
    }

    /// ACK and BYE for a dialog that nobody wants (RFC 3261 section 13.2.2.4).
    async fn reject(&self, sent: &Sent, response: &Response, reason: &str) {
        let Some(local) = tag_of_from(&sent.request) else { return };
        let Sent { request, connection, next_hop } = sent.clone();
        let peer = Peer::answered(&request, response, local, connection, next_hop);
        let Some(peer) = peer.map(Arc::new) else { return };
        let cseq = cseq_of(&request);
        self.sides[1].acknowledge(&peer, peer.numbered(Method::Ack, cseq)).await;
        self.sides[1].hang_up(&peer, vec![Header::Reason(reason.to_owned().into())]);
    }

    /// The branch of a response, a new one where its To tag is new.
    pub(super) fn branch_of(&mut self, at: usize, response: &Response) -> Option<usize> {
        let remote = response.to_header().ok()?.tag().ok()??.value().to_owned();
        let sent = self.passages[at].sent.clone()?;
        let local = tag_of_from(&sent.request)?;
        let known = self.branches.iter().position(|branch| {
            branch.callee.remote_tag == remote && branch.callee.local_tag == local
        });
        if known.is_some() {
            return known;
        }
        if self.branches.len() >= BRANCHES_MAX {
            return None;
        }
        let callee =
            Peer::answered(&sent.request, response, local, sent.connection, sent.next_hop)?;
        let caller = self.caller_peer(at)?;
        self.branches.push(Branch::new(caller, callee));
        Some(self.branches.len() - 1)
    }

    /// The caller's end of another branch.
    pub(super) fn caller_peer(&self, at: usize) -> Option<Peer> {
        // The first branch has the tag that responses without a dialog had.
        let tag = if self.branches.is_empty() { self.tag.clone() } else { new_tag(self.id.0) };
        let mut request = self.passages[at].server.request.clone();
        let to = format!("{};tag={tag}", request.to_header().ok()?.value());
        request.headers.unique_push(Header::To(to.into()));
        let connection = self.passages[at].server.connection.clone()?;
        let source = source_of(&request, self.source);
        Peer::new(&request, tag, connection, source)
    }

    /// RFC 3261 section 13.2.2.4: the 2xx says the route anew.
    fn replace_callee(&mut self, at: usize, branch: usize, response: &Response) {
        let Some(sent) = self.passages[at].sent.clone() else { return };
        let before = Arc::clone(&self.branches[branch].callee);
        let local = before.local_tag.clone();
        let Some(peer) =
            Peer::answered(&sent.request, response, local, sent.connection, sent.next_hop)
        else {
            return;
        };
        peer.local_cseq.fetch_max(before.local_cseq.load(Ordering::Relaxed), Ordering::Relaxed);
        peer.remote_cseq_min
            .fetch_max(before.remote_cseq_min.load(Ordering::Relaxed), Ordering::Relaxed);
        self.branches[branch].callee = Arc::new(peer);
    }

    /// A 2xx to SUBSCRIBE or REFER.
    fn subscribed(&mut self, at: usize, branch: usize, response: Response) {
        self.branches[branch].confirmed = true;
        self.extend_lease(&response);
        let tag = self.branches[branch].caller.local_tag.clone();
        let mut passed = self.passed_response(&self.passages[at], &response, Some(&tag));
        passed.headers.extend(self.branches[branch].caller.record_route().collect());
        self.passages[at].server.respond(passed);
    }

    /// How long a subscription lasts without another word.
    pub(super) fn extend_lease(&mut self, response: &Response) {
        let expires = values(&response.headers, "Expires");
        let seconds = expires.first().and_then(|value| value.parse::<u32>().ok());
        let lease = Duration::from_secs(u64::from(seconds.unwrap_or(LEASE_DEFAULT_SECONDS)));
        // The last NOTIFY comes when it is over.
        self.deadline = Some(Instant::now() + lease + self.patience());
    }

    /// The clock of RFC 4028 starts with each 2xx to an INVITE or UPDATE, and stops with one that names no
    /// interval.
    pub(super) fn restart_session(&mut self, response: &Response) {
        let named = |name: &str| values(&response.headers, name).first().map(ToString::to_string);
        let value = named("Session-Expires").or_else(|| named("x"));
        let seconds = value.and_then(|value| value.split(';').next()?.trim().parse::<u32>().ok());
        self.deadline =
            seconds.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds)));
    }
}

/// The tag of ours in a request.
fn tag_of_from(request: &Request) -> Option<String> {
    Some(request.from_header().ok()?.tag().ok()??.value().to_owned())
}

/// From or To as a new dialog has it: the URI and its display name, without tag.
pub(in super::super) fn bare_value(value: &str) -> String {
    match value.rfind('>') {
        Some(end) => value[..=end].to_owned(),
        None => match contact_of(value) {
            // Without brackets what follows a semicolon belongs to the header.
            Some(_) => format!("<{}>", value.split(';').next().unwrap_or_default().trim()),
            None => value.to_owned(),
        },
    }
}

/// RSeq, where the response is reliable (RFC 3262 section 4).
fn reliable_number(response: &Response) -> Option<u32> {
    let required = values(&response.headers, "Require");
    let reliable = required.iter().any(|tag| tag.eq_ignore_ascii_case("100rel"));
    let number = values(&response.headers, "RSeq").first().and_then(|value| value.parse().ok());
    number.filter(|_| reliable)
}

pub(super) fn unreadable() -> Refusal {
    let warning = Some((399, "session description not readable".to_owned()));
    Refusal { status: 488, warning, retry_after: None }
}

/// Reliable responses of one branch that are repeated; RFC 3262 section 3 has a UAS send one at a time.
const UNACKNOWLEDGED_MAX: usize = 8;

/// Of the INVITE that begins a call.
const CSEQ_FIRST: u32 = 1;

/// RFC 6665 leaves it to the package; none of those in IMS lasts longer unless it says so.
const LEASE_DEFAULT_SECONDS: u32 = 3600;
