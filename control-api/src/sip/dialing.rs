//! Calls of ours: INVITE, its provisional and final responses, ACK, CANCEL (RFC 3261 sections 9.1
//! and 13.2). Each has a task until it is answered; then it is a dialog like any other.

use std::sync::Arc;

use rsipstack::sip::{
    Header, HeadersExt, Method, Param, Request, Response, SipMessage, Transport, Uri, Version,
};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};

use super::agent::Agent;
use super::dialog::Dialog;
use super::gate::{ALLOW, ALLOW_EVENTS};
use super::invite::{new_tag, random_u64};
use super::peer::{Peer, unescape_user};
use super::sending::{connection_to, way_to};
use crate::mrfc::{CallId, Event};

/// Whom to call, and as whom.
pub(super) struct Wanted {
    pub(super) target: String,
    /// User part of our Contact.
    pub(super) room: String,
    /// The conference URI.
    pub(super) uri: String,
    pub(super) referred_by: Option<String>,
    pub(super) sdp: Vec<u8>,
}

/// A request that went out, and where to.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) request: Request,
    pub(crate) connection: SipConnection,
    pub(crate) next_hop: SipAddr,
}

/// A call of ours that is unanswered.
#[derive(Default)]
pub(super) struct Dial {
    /// The INVITE as it went out.
    sent: Option<Sent>,
    /// RFC 3261 section 9.1: no CANCEL before a provisional response.
    provisional: bool,
    cancelled: bool,
}

impl Agent {
    /// Begins a call.
    pub(super) fn dial(self: &Arc<Self>, call: CallId, wanted: Wanted) {
        self.table().dials.insert(call, Dial::default());
        self.metrics.dials.increment();
        let agent = Arc::clone(self);
        self.spawn(async move {
            let outcome = agent.run_dial(call, wanted).await;
            let event = {
                let mut table = agent.table();
                let cancelled = table.dials.remove(&call).is_none_or(|dial| dial.cancelled);
                match outcome {
                    Ok((dialog, answer)) if !cancelled => {
                        agent.metrics.dialogs_active.add(1);
                        table.insert(call, dialog);
                        Some(Event::Answered { call, answer: Some(answer) })
                    }
                    Ok((dialog, _)) => {
                        drop(table);
                        // RFC 3261 section 9.1: the 200 was faster than the CANCEL.
                        agent.send_bye(dialog, "SIP;cause=487;text=\"given up\"");
                        None
                    }
                    Err(status) => (!cancelled).then_some(Event::DialFailed { call, status }),
                }
            };
            if let Some(event) = event {
                agent.send(event).await;
            }
        });
    }

    /// From INVITE to ACK; the status of the refusal where there is no dialog.
    async fn run_dial(
        self: &Arc<Self>,
        call: CallId,
        wanted: Wanted,
    ) -> Result<(Dialog, Vec<u8>), u16> {
        let mut target = Uri::try_from(wanted.target.as_str()).map_err(|_| NOT_FOUND)?;
        unescape_user(&mut target);
        let size = wanted.sdp.len() + INVITE_HEAD_SIZE_ESTIMATE;
        let (connection, next_hop) = self.way_to_callee(&target, size).await.ok_or(NO_WAY)?;
        let contact = self.contact(&wanted.room, &connection);
        let local_tag = new_tag(call.0);
        let request = invite(&wanted, target, &local_tag, &contact);
        let transaction = self.transaction(request, connection.clone(), next_hop.clone());
        let mut transaction = transaction.ok_or(NO_WAY)?;
        let request = transaction.original.clone();
        let sent = Sent { request, connection: connection.clone(), next_hop: next_hop.clone() };
        if let Some(dial) = self.table().dials.get_mut(&call) {
            dial.sent = Some(sent);
        }
        transaction.send().await.map_err(|_| NO_WAY)?;
        while let Some(message) = transaction.receive().await {
            let SipMessage::Response(response) = message else { continue };
            match response.status_code.code() {
                status @ 100..=199 => self.provisional(call, status).await,
                200..=299 => {
                    let invite = &transaction.original;
                    let peer = Peer::answered(invite, &response, local_tag, connection, next_hop);
                    let peer = Arc::new(peer.ok_or(BAD_GATEWAY)?);
                    let ack = self.acknowledge(&peer, CSEQ_FIRST).await.ok_or(BAD_GATEWAY)?;
                    let dialog = Dialog::confirmed(peer, contact, ack);
                    return Ok((dialog, response.body));
                }
                status => return Err(status),
            }
        }
        // RFC 3261 section 8.1.3.1: a timeout is a 408.
        Err(408)
    }

    /// The proxy, or the callee where its URI has an address; this node asks no DNS.
    async fn way_to_callee(
        self: &Arc<Self>,
        target: &Uri,
        size: usize,
    ) -> Option<(SipConnection, SipAddr)> {
        let addr = match self.config.outbound_proxy {
            Some(proxy) => proxy.into(),
            None => target.host_with_port.clone(),
        };
        let next_hop = SipAddr::new(Transport::Udp, addr);
        let address = next_hop.get_socketaddr().ok()?;
        let tcp = target.params.iter().any(|p| matches!(p, Param::Transport(Transport::Tcp)));
        if tcp && self.config.outbound_proxy.is_none() {
            let connection = connection_to(self, address).await?;
            return Some((connection, SipAddr::new(Transport::Tcp, address.into())));
        }
        let udp = self.udp.get().cloned()?;
        way_to(self, &udp, next_hop, size).await
    }

    async fn provisional(self: &Arc<Self>, call: CallId, status: u16) {
        let cancelled = {
            let mut table = self.table();
            let Some(dial) = table.dials.get_mut(&call) else { return };
            let first = !std::mem::replace(&mut dial.provisional, true);
            dial.sent.clone().filter(|_| first && dial.cancelled)
        };
        if let Some(sent) = cancelled {
            self.send_cancel(sent);
        }
        if status == 180 {
            self.send(Event::Ringing { call }).await;
        }
    }

    /// Gives a call of ours up; false where there is none that is unanswered.
    pub(super) fn cancel_dial(self: &Arc<Self>, call: CallId) -> bool {
        let mut table = self.table();
        let Some(dial) = table.dials.get_mut(&call) else { return false };
        dial.cancelled = true;
        let sent = dial.sent.clone().filter(|_| dial.provisional);
        drop(table);
        if let Some(sent) = sent {
            self.send_cancel(sent);
        }
        true
    }

    fn send_cancel(self: &Arc<Self>, sent: Sent) {
        let agent = Arc::clone(self);
        self.spawn(async move {
            let request = cancel(&sent.request);
            let key = TransactionKey::from_request(&request, TransactionRole::Client);
            let Ok(key) = key else { return };
            let endpoint = agent.endpoint.clone();
            let connection = Some(sent.connection);
            let mut transaction = Transaction::new_client(key, request, endpoint, connection);
            transaction.destination = Some(sent.next_hop);
            agent.requests_open.add(1);
            if transaction.send().await.is_ok() {
                while transaction.receive().await.is_some() {}
            }
            agent.requests_open.add(-1);
        });
    }

    /// Sends the ACK of a 2xx, a request of its own (RFC 3261 section 13.2.2.4).
    pub(super) async fn acknowledge(self: &Arc<Self>, peer: &Peer, cseq: u32) -> Option<Sent> {
        let request = peer.numbered(Method::Ack, cseq);
        let size = request.to_string().len();
        let (connection, next_hop) = way_to(self, &peer.connection, peer.next_hop(), size).await?;
        let mut request = self.with_via(request, &connection);
        request.headers.push(Header::ContentLength("0".into()));
        let sent = Sent { request, connection, next_hop };
        sent.send().await;
        Some(sent)
    }

    /// A 2xx that comes again has not been acknowledged as far as the callee knows.
    pub(super) async fn repeat_ack(&self, response: &Response) {
        let success = (200..300).contains(&response.status_code.code());
        let invite = response.cseq_header().ok().filter(|it| it.method() == Ok(Method::Invite));
        let Some(cseq) = invite.and_then(|it| it.seq().ok()).filter(|_| success) else { return };
        let tag = |tag: Option<rsipstack::sip::param::Tag>| tag.map(|tag| tag.value().to_owned());
        let to = response.to_header().and_then(|to| to.tag()).map(tag);
        let from = response.from_header().and_then(|from| from.tag()).map(tag);
        let (Ok(Some(remote)), Ok(Some(local))) = (to, from) else { return };
        let number = local.split('-').next().and_then(|text| u64::from_str_radix(text, 16).ok());
        let ack = number.and_then(|number| {
            let mut table = self.table();
            let dialog = table.get_mut(CallId(number))?;
            let same = dialog.peer.local_tag == local && dialog.peer.remote_tag == remote;
            // The first 2xx to a later INVITE has another number than the last ACK.
            dialog.ack.clone().filter(|ack| same && ack.cseq() == Some(cseq))
        });
        if let Some(ack) = ack {
            ack.send().await;
        }
    }
}

impl Sent {
    pub(crate) fn cseq(&self) -> Option<u32> {
        self.request.cseq_header().ok()?.seq().ok()
    }

    pub(crate) async fn send(&self) {
        let message = SipMessage::Request(self.request.clone());
        if let Err(error) = self.connection.send(message, Some(&self.next_hop)).await {
            tracing::debug!(%error, "ACK not sent");
        }
    }
}

fn invite(wanted: &Wanted, target: Uri, local_tag: &str, contact: &str) -> Request {
    let mut headers = vec![
        Header::From(format!("<{}>;tag={local_tag}", wanted.uri).into()),
        Header::To(format!("<{target}>").into()),
        Header::CallId(format!("{:016x}{:016x}", random_u64(), random_u64()).into()),
        Header::CSeq(format!("{CSEQ_FIRST} INVITE").into()),
        Header::MaxForwards("70".into()),
        Header::Contact(contact.to_owned().into()),
        Header::Allow(ALLOW.into()),
        Header::Other("Allow-Events".into(), ALLOW_EVENTS.into()),
        Header::Supported("norefersub".into()),
        Header::ContentType("application/sdp".into()),
    ];
    if let Some(by) = &wanted.referred_by {
        headers.push(Header::ReferredBy(format!("<{by}>").into()));
    }
    Request {
        method: Method::Invite,
        uri: target,
        version: Version::V2,
        headers: headers.into(),
        body: wanted.sdp.clone(),
    }
}

/// RFC 3261 section 9.1: everything but the method is the INVITE's, so that it meets it on its way.
pub(crate) fn cancel(invite: &Request) -> Request {
    let kept = invite.headers.iter().filter(|header| {
        matches!(
            header,
            Header::Via(_)
                | Header::From(_)
                | Header::To(_)
                | Header::CallId(_)
                | Header::MaxForwards(_)
                | Header::Route(_)
        )
    });
    let mut headers: Vec<Header> = kept.cloned().collect();
    let cseq = invite.cseq_header().and_then(|cseq| cseq.seq()).unwrap_or(CSEQ_FIRST);
    headers.push(Header::CSeq(format!("{cseq} CANCEL").into()));
    Request {
        method: Method::Cancel,
        uri: invite.uri.clone(),
        version: Version::V2,
        headers: headers.into(),
        body: Vec::new(),
    }
}

/// Of the INVITE that begins a call of ours.
const CSEQ_FIRST: u32 = 1;

/// What a call that reaches nobody ends with: 404 where the URI is none, 503 where no way leads to
/// it (RFC 3261 section 16.9), 502 where the 2xx makes no dialog.
const NOT_FOUND: u16 = 404;
const NO_WAY: u16 = 503;
const BAD_GATEWAY: u16 = 502;

/// An INVITE without its body.
const INVITE_HEAD_SIZE_ESTIMATE: usize = 800;
