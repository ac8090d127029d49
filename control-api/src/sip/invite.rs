//! New calls: an INVITE becomes a dialog, and its 2xx is repeated until the ACK.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rsipstack::sip::{self, Header, HeadersExt, Method, Request, SipMessage, ToTypedHeader, Uri};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::time::Instant;

use super::agent::Agent;
use super::dialog::{Asked, Dialog, Invitation, Pending, Phase, Within};
use super::incoming::{Refusal, is_ack, respond};
use super::peer::{Peer, RemoteEnd, contact_uri, unescape, unescape_user};
use super::repeats::RequestName;
use super::reply::{self, Identity};
use super::session::{IntervalTooSmall, Terms};
use super::station::Reply;
use super::way::{self, Arrival, Way};
use super::wire::{self, Message, Name};
use crate::mrfc::{CallId, Caller, Event};
use crate::random;

impl Agent {
    /// An INVITE outside a dialog; what is returned goes back at once.
    pub(super) async fn receive_invite(
        self: &Arc<Self>,
        arrival: Arrival<'_>,
        message: &Message<'_>,
        body: &[u8],
    ) -> Option<Reply> {
        let now = Instant::now();
        let known = {
            let mut table = self.table();
            let name = Identity::of(message).map(|identity| table.repeats.name(identity));
            name.map(|name| (name, table.repeats.get(name), table.shed.contains(name, now)))
        };
        let Some((name, known, shed)) = known else {
            return self.not_understood(arrival);
        };
        if let Some(call) = known {
            self.metrics.retransmissions.increment();
            self.repeat_provisional(call);
            return None;
        }
        // Refused before, and repeated: its transaction answers it, whatever the load.
        if self.is_known(arrival.bytes) {
            return self.receive_by_stack(arrival, body).await;
        }
        if shed || self.is_overloaded(true) {
            if shed {
                self.metrics.retransmissions.increment();
            }
            self.table().shed.insert(name, now);
            return self.shed(arrival, message);
        }
        let parsed = SipMessage::try_from(arrival.bytes);
        let Ok(SipMessage::Request(mut request)) = parsed else {
            return self.not_understood(arrival);
        };
        // Without a Content-Length the stack takes no body; the gate knows better.
        body.clone_into(&mut request.body);
        let invite = Invite { request, name, arrival };
        match self.admit(invite, message) {
            Ok(()) => None,
            Err(refused) => {
                let (invite, refusal) = *refused;
                self.metrics.count_answer(refusal.status);
                let Invite { request, arrival, .. } = invite;
                let connection = arrival.connection.clone();
                let begun = self.refuse_invite(request, arrival.source, connection, refusal);
                if begun { None } else { self.not_understood(arrival) }
            }
        }
    }

    /// The caller asks again: what it has not heard yet it is told again.
    fn repeat_provisional(&self, call: CallId) {
        let mut table = self.table();
        let Some(dialog) = table.get_mut(call) else { return };
        // Answered, the 2xx is repeated until its ACK anyway.
        if let Some(Pending { request: Asked::Call(invitation), .. }) = &mut dialog.pending {
            let Invitation { provisional, head, way, .. } = &mut **invitation;
            let provisional =
                provisional.get_or_insert_with(|| reply::response(100, "Trying", head, "", b""));
            self.send_response(way, provisional.clone());
        }
    }

    /// Refuses an INVITE; its transaction begins here and repeats the refusal until the ACK. False: the
    /// stack makes none of it.
    pub(super) fn refuse_invite(
        self: &Arc<Self>,
        mut request: Request,
        source: SocketAddr,
        connection: SipConnection,
        refusal: Refusal,
    ) -> bool {
        let Ok(key) = TransactionKey::from_request(&request, TransactionRole::Server) else {
            return false;
        };
        let transport = match connection {
            SipConnection::Udp(_) => sip::Transport::Udp,
            _ => sip::Transport::Tcp,
        };
        if way::mark_source(&mut request, source, transport).is_err() {
            tracing::debug!("the Via takes no address");
        }
        let endpoint = self.endpoint.clone();
        let mut transaction = Transaction::new_server(key, request, endpoint, Some(connection));
        self.spawn(async move {
            respond(&mut transaction, refusal.status, refusal.headers).await;
            while transaction.receive().await.is_some_and(|message| !is_ack(&message)) {}
        });
        true
    }

    /// Makes a dialog of an INVITE and tells the MRFC.
    fn admit<'a>(
        &self,
        mut invite: Invite<'a>,
        message: &Message<'_>,
    ) -> Result<(), Box<(Invite<'a>, Refusal)>> {
        let refused = |invite, refusal| Err(Box::new((invite, refusal)));
        let wanted = match self.check_invite(&invite, message) {
            Ok(wanted) => wanted,
            Err(refusal) => return refused(invite, refusal),
        };
        let mut table = self.table();
        let merge_name = table.repeats.name(&wanted.merged);
        //= RFC 3261 section 8.2.2.2: the UAS core SHOULD generate a 482 (Loop Detected)
        if table.is_merged(merge_name) {
            return refused(invite, Refusal::new(482));
        }
        if table.len() >= self.config.calls_max {
            self.metrics.overloads.increment();
            return refused(invite, self.overload());
        }
        let Ok(permit) = self.events.try_reserve() else {
            self.metrics.overloads.increment();
            return refused(invite, self.overload());
        };
        let call = CallId(table.next_number());
        let local_tag = new_tag(call.0);
        let source = invite.arrival.source;
        let head = reply::head(message, Some(&local_tag), source);
        let (Some(head), Some(way)) = (head, invite.arrival.way_back(message)) else {
            return refused(invite, Refusal::new(400));
        };
        add_to_tag(&mut invite.request, &local_tag);
        let connection = invite.arrival.connection;
        let hop = match (&way, connection) {
            (Way::Datagram(address), _) => SipAddr::new(sip::Transport::Udp, (*address).into()),
            (Way::Stream(_), connection) => connection.get_addr().clone(),
        };
        let remote = wanted.merged.remote_end();
        let peer = Peer::of(&invite.request, local_tag, remote, connection.clone(), hop);
        let Some(peer) = peer else {
            return refused(invite, Refusal::new(400));
        };
        let Invite { mut request, name, .. } = invite;
        let offer = (!request.body.is_empty()).then(|| std::mem::take(&mut request.body));
        let contact = self.contact(request.uri.user().unwrap_or_default(), connection);
        let offered = offer.is_none();
        let Wanted { room, terms, merged } = wanted;
        let event = Event::Invite {
            call,
            room,
            from: caller(&request, source.ip()),
            to: bare_uri(request.uri.clone()),
            offer,
        };
        let invitation = Invitation { request, name, source, way, head, provisional: None };
        let pending =
            Pending { cseq: merged.cseq, terms, request: Asked::Call(Box::new(invitation)) };
        let mut dialog = Dialog::new(Arc::new(peer), contact, pending, merge_name);
        dialog.offered = offered;
        table.insert(call, dialog);
        table.repeats.insert(name, call);
        drop(table);
        self.metrics.dialogs_active.add(1);
        self.metrics.invites.increment();
        permit.send(event);
        Ok(())
    }

    /// What can be said of an INVITE by itself.
    fn check_invite<'a>(
        &self,
        invite: &Invite<'_>,
        message: &Message<'a>,
    ) -> Result<Wanted<'a>, Refusal> {
        let request = &invite.request;
        let bad = || Refusal::new(400);
        // Neither has white space in it, nor a fold: they are written as they are read.
        let text = |bytes: &'a [u8]| {
            std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_whitespace))
        };
        let merged = Merged {
            call_id: message.first(Name::CallId).and_then(text).ok_or_else(bad)?,
            remote_tag: message
                .first(Name::From)
                .and_then(wire::tag)
                .and_then(text)
                .filter(|tag| !tag.is_empty())
                .ok_or_else(bad)?,
            cseq: message.first(Name::CSeq).and_then(wire::cseq).ok_or_else(bad)?,
        };
        let room = room(&request.uri).ok_or(Refusal::new(404))?;
        let terms = self.terms(request)?;
        if contact_uri(request).is_none() {
            return Err(bad());
        }
        Ok(Wanted { room, terms, merged })
    }

    pub(super) fn terms(&self, request: &Request) -> Result<Option<Terms>, Refusal> {
        let default = self.config.session_expires_default;
        let min_se = self.config.min_se;
        Terms::negotiate(&request.headers, default, min_se).map_err(|IntervalTooSmall| Refusal {
            status: 422,
            headers: vec![Header::MinSE(min_se.as_secs().to_string().into())],
        })
    }

    pub(super) fn overload(&self) -> Refusal {
        let seconds = self.retry_after_seconds(random_u64());
        Refusal { status: 503, headers: vec![Header::RetryAfter(seconds.to_string().into())] }
    }

    /// Our Contact as that user.
    pub(super) fn contact(&self, user: &str, connection: &SipConnection) -> String {
        let at = if user.is_empty() { "" } else { "@" };
        //= RFC 4579 section 4.1: the focus indicates "isfocus" in its Contact header field
        match connection {
            SipConnection::Udp(_) => format!("<sip:{user}{at}{}>;isfocus", self.contact_udp),
            _ => format!("<sip:{user}{at}{};transport=tcp>;isfocus", self.contact_tcp),
        }
    }

    /// Keeps the transaction of a re-INVITE or an UPDATE until it needs nothing more.
    pub(super) async fn run_reinvite(self: Arc<Self>, mut transaction: Transaction, call: CallId) {
        loop {
            match transaction.receive().await {
                Some(message) if is_ack(&message) => break,
                Some(SipMessage::Request(request)) if request.method == Method::Cancel => {
                    let cseq = transaction.original.cseq_header().and_then(|cseq| cseq.seq()).ok();
                    if self.take_cancelled(call, cseq).is_some() {
                        self.metrics.cancels.increment();
                        self.metrics.count_answer(487);
                        respond(&mut transaction, 487, Vec::new()).await;
                    }
                }
                Some(_) => {}
                None => {
                    let invite = transaction.original.method == Method::Invite;
                    if invite && is_answered(&transaction) {
                        self.metrics.acks_missing.increment();
                        self.lost(call, ACK_MISSING).await;
                    }
                    break;
                }
            }
        }
    }

    /// The request that a CANCEL is for; `None` where it is answered already, the CANCEL came too
    /// late.
    fn take_cancelled(&self, call: CallId, cseq: Option<u32>) -> Option<Pending> {
        let mut table = self.table();
        let dialog = table.get_mut(call)?;
        dialog.pending.take_if(|pending| Some(pending.cseq) == cseq)
    }

    /// A CANCEL for the INVITE that began this call; what is returned goes back.
    pub(super) async fn cancel(
        self: &Arc<Self>,
        call: CallId,
        arrival: Arrival<'_>,
        message: &Message<'_>,
    ) -> Option<Reply> {
        //= RFC 3261 section 9.2: the To tag of the response to the CANCEL and the To tag in the
        //= response to the original request SHOULD be the same
        let tag = self.table().get_mut(call).map(|dialog| dialog.peer.local_tag.clone());
        let head = reply::head(message, tag.as_deref(), arrival.source)?;
        let extra = self.user_agent_line();
        let ok = reply::response(200, "OK", &head, &extra, b"");
        let way = arrival.way_back(message)?;
        self.send_response(&way, ok);
        let cseq = message.first(Name::CSeq).and_then(wire::cseq);
        if let Some(pending) = self.take_cancelled(call, cseq) {
            let connection = {
                let mut table = self.table();
                let dialog = table.remove(call);
                dialog.map(|dialog| dialog.peer.connection.clone())
            };
            self.metrics.cancels.increment();
            self.metrics.count_answer(487);
            if let Some(connection) = connection {
                self.metrics.dialogs_active.add(-1);
                self.refuse(connection, pending, Refusal::new(487));
                self.send(Event::Ended { call }).await;
            }
        }
        None
    }

    /// An ACK, looked at before the stack queues it for its transaction: a request right behind
    /// it must find the dialog confirmed. True: it was for a 2xx of ours, and the stack knows nothing
    /// of it.
    pub(super) async fn acknowledged(self: &Arc<Self>, within: &Within<'_>, answer: &[u8]) -> bool {
        let (call, offered, bye, ours) = {
            let mut table = self.table();
            let Some(call) = table.find_within(within) else { return false };
            let ours = table.get_mut(call).is_some_and(|dialog| dialog.awaits_ack());
            let Some(dialog) = table.acknowledge(call, within.cseq) else { return false };
            let offered = std::mem::take(&mut dialog.offered);
            let bye = match std::mem::replace(&mut dialog.phase, Phase::Confirmed) {
                Phase::Answered { hang_up: Some(reason) } => {
                    table.remove(call).map(|dialog| (dialog, reason))
                }
                Phase::Answered { hang_up: None } | Phase::Confirmed | Phase::Early => None,
            };
            (call, offered, bye, ours)
        };
        if let Some((dialog, reason)) = bye {
            self.metrics.dialogs_active.add(-1);
            self.send_bye(dialog, &reason);
        } else if offered {
            let answer = (!answer.is_empty()).then(|| answer.to_vec());
            self.send(Event::Answered { call, answer }).await;
        }
        ours
    }
}

/// An INVITE outside a dialog.
struct Invite<'a> {
    request: Request,
    name: RequestName,
    arrival: Arrival<'a>,
}

/// What it wants.
struct Wanted<'a> {
    room: String,
    terms: Option<Terms>,
    merged: Merged<'a>,
}

/// What an INVITE that came along two paths has in common with itself.
#[derive(Hash)]
struct Merged<'a> {
    call_id: &'a str,
    remote_tag: &'a str,
    cseq: u32,
}

impl Merged<'_> {
    fn remote_end(&self) -> RemoteEnd {
        let (call_id, tag) = (self.call_id.to_owned(), self.remote_tag.to_owned());
        RemoteEnd { call_id, tag, cseq: self.cseq }
    }
}

fn is_answered(transaction: &Transaction) -> bool {
    let status = transaction.last_response.as_ref().map(|response| response.status_code.code());
    status.is_some_and(|status| (200..300).contains(&status))
}

/// Where the request came from: what the top Via says once RFC 3261 section 18.2.1 has been applied.
pub(super) fn source(request: &Request) -> Option<IpAddr> {
    let via = request.via_header().ok()?.first_value().ok()?.typed().ok()?;
    let received = via.received().and_then(Result::ok);
    received.or_else(|| via.sent_by().host.to_string().trim_matches(['[', ']']).parse().ok())
}

/// Who sent the request. Nobody is asked to prove it: that is the task of the proxy in front.
pub(super) fn caller(request: &Request, source: impl Into<Option<IpAddr>>) -> Caller {
    let from = request.from_header();
    let uri = from.as_ref().ok().and_then(|from| from.uri().ok());
    let uri = uri.map_or_else(String::new, bare_uri);
    let privacy = request.headers.iter().filter_map(|header| match header {
        Header::Privacy(value) => Some(value.value()),
        _ => None,
    });
    let hides = |value: &str| {
        value.split([';', ',']).any(|part| {
            ["id", "user", "header"].iter().any(|kind| part.trim().eq_ignore_ascii_case(kind))
        })
    };
    // RFC 3323 section 4.1.1.3: the anonymous URI.
    let anonymous = uri.to_ascii_lowercase().ends_with(".invalid");
    Caller {
        anonymous: privacy.into_iter().any(hides) || anonymous,
        display_name: from.ok().and_then(|from| display_name(from.value())),
        source: source.into(),
        uri,
    }
}

/// The display name of a From value (RFC 3261 section 20.10).
fn display_name(value: &str) -> Option<String> {
    let value = value.trim();
    let name = match value.strip_prefix('"') {
        Some(quoted) => {
            let mut name = String::new();
            let mut characters = quoted.chars();
            loop {
                match characters.next()? {
                    '"' => break name,
                    '\\' => name.push(characters.next()?),
                    other => name.push(other),
                }
            }
        }
        None => value.split_once('<')?.0.trim().to_owned(),
    };
    let name: String = name.chars().take(DISPLAY_NAME_LENGTH_MAX).collect();
    (!name.is_empty()).then_some(name)
}

/// A display name is told to every member; what is longer is cut.
const DISPLAY_NAME_LENGTH_MAX: usize = 128;

/// The address the request came from, as the stack wrote it into the top Via.
pub(super) fn source_of(request: &Request, connection: &SipConnection) -> SipAddr {
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

pub(super) fn add_to_tag(request: &mut Request, tag: &str) {
    for header in request.headers.iter_mut() {
        if let Header::To(to) = header {
            let tagged = format!("{};tag={tag}", to.value());
            to.replace(tagged);
        }
    }
}

/// Our tag leads to the call or subscription that began the dialog; its second half can not be guessed (RFC 3261 section 19.3).
pub(crate) fn new_tag(number: u64) -> String {
    format!("{number:x}-{:016x}", random_u64())
}

pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    random::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// The URI without parameters and headers, as the MRFC gets it.
pub(super) fn bare_uri(mut uri: Uri) -> String {
    uri.params.clear();
    uri.headers.clear();
    unescape_user(&mut uri);
    uri.to_string()
}

/// The user part unescaped; `None` where it is not text.
pub(super) fn room(uri: &Uri) -> Option<String> {
    let room = unescape(uri.user().unwrap_or_default())?;
    (!room.chars().any(char::is_control)).then_some(room)
}

/// Why a call ends whose 2xx is never acknowledged.
pub(super) const ACK_MISSING: &str = "SIP;cause=408;text=\"ACK missing\"";
