//! re-INVITEs of ours: a new offer for a call that stands (RFC 3261 section 14.1).

use std::sync::Arc;

use rsipstack::sip::{Header, HeadersExt, Method, Response, SipMessage};
use tokio::time::{Instant, timeout};

use super::agent::Agent;
use super::dialog::{Dialog, Phase};
use super::gate::{ALLOW, SUPPORTED};
use super::peer::{Peer, contact_of};
use super::sending::{ADDED_SIZE_ESTIMATE, way_to};
use super::session::Terms;
use crate::mrfc::{CallId, Event};

impl Agent {
    /// Offers the peer of a call something new.
    pub(super) fn reinvite(self: &Arc<Self>, call: CallId, sdp: Vec<u8>) {
        let agent = Arc::clone(self);
        let mut table = self.table();
        // Where the call has ended the MRFC learns that anyway.
        let Some(dialog) = table.get_mut(call) else { return };
        if !may_invite(dialog) {
            drop(table);
            self.spawn(async move { agent.reanswered(call, Err(REQUEST_PENDING)).await });
            return;
        }
        let (peer, contact, terms) =
            (Arc::clone(&dialog.peer), dialog.contact.clone(), dialog.terms);
        drop(table);
        self.metrics.reinvites_sent.increment();
        self.spawn(async move {
            let limit = agent.config.t1 * 64;
            let offered = agent.run_reoffer(call, &peer, contact, terms, sdp);
            match timeout(limit, offered).await {
                Ok(Some(Ok(answer))) => agent.reanswered(call, Ok(answer)).await,
                //= RFC 3261 section 12.2.1.2: If the response for a request within a dialog is a 481
                //= [...] or a 408 [...], the UAC SHOULD terminate the dialog. A UAC SHOULD also
                //= terminate a dialog if no response at all is received
                Ok(Some(Err(408 | 481)) | None) | Err(_) => {
                    agent.lost(call, "SIP;cause=408;text=\"No answer to a re-INVITE\"").await;
                }
                Ok(Some(Err(status))) => agent.reanswered(call, Err(status)).await,
            }
        });
    }

    async fn reanswered(&self, call: CallId, answer: Result<Vec<u8>, u16>) {
        self.send(Event::Reanswered { call, answer }).await;
    }

    /// From the INVITE to its ACK; `None` where there is no answer.
    async fn run_reoffer(
        self: &Arc<Self>,
        call: CallId,
        peer: &Peer,
        contact: String,
        terms: Option<Terms>,
        sdp: Vec<u8>,
    ) -> Option<Result<Vec<u8>, u16>> {
        let cseq = peer.next_cseq();
        let mut request = peer.numbered(Method::Invite, cseq);
        request.headers.push(Header::Contact(contact.into()));
        request.headers.push(Header::Allow(ALLOW.into()));
        request.headers.push(Header::Supported(SUPPORTED.into()));
        // It refreshes the session, too, and without this it would end the session timer.
        request.headers.extend(terms.iter().map(Terms::asked).collect());
        request.headers.push(Header::ContentType("application/sdp".into()));
        request.body = sdp;
        let size = request.to_string().len() + ADDED_SIZE_ESTIMATE;
        let (connection, next_hop) = way_to(self, &peer.connection, peer.next_hop(), size).await?;
        let mut transaction = self.transaction(request, connection, next_hop)?;
        transaction.send().await.ok()?;
        while let Some(message) = transaction.receive().await {
            let SipMessage::Response(response) = message else { continue };
            match response.status_code.code() {
                100..=199 => {}
                200..=299 => {
                    peer.retarget_to(contact_in(&response));
                    let ack = self.acknowledge(peer, cseq).await?;
                    let mut table = self.table();
                    if let Some(dialog) = table.get_mut(call) {
                        dialog.ack = Some(ack);
                    }
                    table.start_session(call, terms, Instant::now());
                    return Some(Ok(response.body));
                }
                status => return Some(Err(status)),
            }
        }
        None
    }
}

/// RFC 3261 section 14.1: not while another INVITE is under way in either direction.
fn may_invite(dialog: &Dialog) -> bool {
    dialog.phase == Phase::Confirmed && dialog.pending.is_none()
}

fn contact_in(response: &Response) -> Option<rsipstack::sip::Uri> {
    contact_of(response.contact_header().ok()?.value())
}

/// What a peer would answer that has an INVITE of its own under way.
const REQUEST_PENDING: u16 = 491;
