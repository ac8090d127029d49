//! New calls: an INVITE becomes a dialog, and its transaction is kept until the ACK.

use std::net::IpAddr;
use std::sync::Arc;

use rsipstack::sip::{
    Header, HeadersExt, Method, Request, SipMessage, StatusCode, ToTypedHeader, Uri,
};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};

use super::agent::Agent;
use super::dialog::{Dialog, MergeKey, Pending, Phase};
use super::incoming::{Refusal, is_ack, offer, respond};
use super::peer::{Peer, contact_uri, unescape, unescape_user};
use super::session::{IntervalTooSmall, Terms};
use crate::mrfc::{CallId, Caller, Event};

impl Agent {
    pub(super) async fn handle_invite(self: &Arc<Self>, mut transaction: Transaction) {
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
        let call = CallId(table.next_number());
        let local_tag = new_tag(call.0);
        add_to_tag(request, &local_tag);
        let event = invite_event(call, room, request);
        let contact = self.contact(request.uri.user().unwrap_or_default(), &connection);
        let source = source_of(request, &connection);
        let pending = Pending {
            sender: transaction.tu_sender.clone(),
            template: self.endpoint.make_response(&transaction.original, StatusCode::OK, None),
            method: Method::Invite,
            cseq,
            terms,
        };
        let peer = Peer::new(&transaction.original, local_tag, connection, source);
        let peer = Arc::new(peer.ok_or(Refusal::new(400))?);
        let mut dialog = Dialog::new(peer, contact, pending);
        dialog.offered = transaction.original.body.is_empty();
        table.insert(call, dialog);
        self.metrics.dialogs_active.add(1);
        self.metrics.invites.increment();
        permit.send(event);
        Ok((call, key))
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
        let seconds = self.config.retry_after.as_secs();
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

    /// Keeps one INVITE or UPDATE transaction until it needs nothing more.
    pub(super) async fn run_invite(
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
    pub(super) async fn acknowledged(self: &Arc<Self>, ack: &Request) {
        let Ok(cseq) = ack.cseq_header().and_then(|cseq| cseq.seq()) else {
            return;
        };
        let (call, offered, bye) = {
            let mut table = self.table();
            let Some(call) = table.find(ack) else { return };
            let Some(dialog) = table.get_mut(call) else {
                return;
            };
            if dialog.ack_due != Some(cseq) {
                return;
            }
            dialog.ack_due = None;
            let offered = std::mem::take(&mut dialog.offered);
            let bye = match std::mem::replace(&mut dialog.phase, Phase::Confirmed) {
                Phase::Answered { hang_up: Some(reason) } => {
                    table.remove(call).map(|dialog| (dialog, reason))
                }
                Phase::Answered { hang_up: None } | Phase::Confirmed | Phase::Early => None,
            };
            (call, offered, bye)
        };
        if let Some((dialog, reason)) = bye {
            self.metrics.dialogs_active.add(-1);
            self.send_bye(dialog, &reason);
        } else if offered {
            self.send(Event::Answered { call, answer: offer(ack) }).await;
        }
    }
}

fn is_answered(transaction: &Transaction) -> bool {
    let status = transaction.last_response.as_ref().map(|response| response.status_code.code());
    status.is_some_and(|status| (200..300).contains(&status))
}

fn invite_event(call: CallId, room: String, request: &Request) -> Event {
    Event::Invite {
        call,
        room,
        from: caller(request),
        to: bare_uri(request.uri.clone()),
        offer: offer(request),
    }
}

/// Where the request came from: what the top Via says once RFC 3261 section 18.2.1 has been applied.
fn source(request: &Request) -> Option<IpAddr> {
    let via = request.via_header().ok()?.first_value().ok()?.typed().ok()?;
    let received = via.received().and_then(Result::ok);
    received.or_else(|| via.sent_by().host.to_string().trim_matches(['[', ']']).parse().ok())
}

/// Who sent the request. Nobody is asked to prove it: that is the task of the proxy in front.
pub(super) fn caller(request: &Request) -> Caller {
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
        source: source(request),
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
pub(super) fn new_tag(number: u64) -> String {
    format!("{number:x}-{:016x}", random_u64())
}

pub(super) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
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
