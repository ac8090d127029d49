//! The dialogs of a call: one on each side for every branch of a fork.

use std::sync::Arc;

use rsipstack::sip::{Header, HeadersExt, Method, Request};
use rsipstack::transport::SipAddr;
use tokio::time::{Duration, Instant};

use super::super::{ExchangeId, Leg};
use super::side::Side;
use crate::sip::dialing::Sent;
pub(super) use crate::sip::invite::new_tag;
use crate::sip::peer::Peer;

/// The dialog with the caller and the one with the callee that belongs to it.
pub(super) struct Branch {
    pub(super) caller: Arc<Peer>,
    pub(super) callee: Arc<Peer>,
    /// The session is established: a 2xx was the first of all branches.
    pub(super) confirmed: bool,
    /// An offer of the callee that came in a reliable response and waits for its answer in the PRACK, or
    /// in a 2xx and waits for the ACK.
    pub(super) offered: Option<ExchangeId>,
    /// The offer of the INVITE, or that to it, has had its answer in a reliable response or a PRACK: what
    /// further responses to it describe says nothing (RFC 3261 section 13.2.1).
    pub(super) settled: bool,
    /// The number of the last reliable provisional response.
    pub(super) reliable: Option<u32>,
    /// Reliable provisional responses that the caller has not acknowledged (RFC 3262).
    pub(super) unacknowledged: Vec<Reliable>,
    /// The last ACK that went to either leg, for when the 2xx comes again.
    pub(super) acks: [Option<Sent>; 2],
}

/// A reliable provisional response, repeated until its PRACK.
pub(super) struct Reliable {
    pub(super) number: u32,
    pub(super) response: rsipstack::sip::Response,
    pub(super) interval: Duration,
    pub(super) next: Instant,
    pub(super) until: Instant,
}

impl Branch {
    pub(super) fn new(caller: Peer, callee: Peer) -> Self {
        Self {
            caller: Arc::new(caller),
            callee: Arc::new(callee),
            confirmed: false,
            offered: None,
            settled: false,
            reliable: None,
            unacknowledged: Vec::new(),
            acks: [None, None],
        }
    }

    pub(super) fn peer(&self, leg: Leg) -> &Arc<Peer> {
        match leg {
            Leg::Caller => &self.caller,
            Leg::Callee => &self.callee,
        }
    }
}

impl Side {
    /// Where requests within a dialog go. What an endpoint behind a NAT says of where it is leads nowhere: it
    /// is reached where it spoke from.
    pub(super) fn next_hop_of(&self, peer: &Peer) -> SipAddr {
        if self.is_symmetric() { peer.source.clone() } else { peer.next_hop() }
    }

    /// Sends an ACK; it is kept to be sent again.
    pub(super) async fn acknowledge(
        self: &Arc<Self>,
        peer: &Peer,
        mut ack: Request,
    ) -> Option<Sent> {
        let size = ack.to_bytes().len() + crate::sip::sending::ADDED_SIZE_ESTIMATE;
        let to = self.next_hop_of(peer);
        let (connection, next_hop) =
            crate::sip::sending::way_to(self, &peer.connection, to, size).await?;
        let length = u32::try_from(ack.body.len()).unwrap_or(u32::MAX);
        ack.headers.push(Header::ContentLength(length.into()));
        let request = self.with_via(ack, &connection);
        let sent = Sent { request, connection, next_hop };
        sent.send().await;
        Some(sent)
    }

    /// Sends a request within a dialog whose answer nobody waits for.
    pub(super) fn send_unattended(self: &Arc<Self>, peer: &Arc<Peer>, request: Request) {
        let (side, peer) = (Arc::clone(self), Arc::clone(peer));
        let open = Arc::clone(&self.shared.metrics);
        open.requests_open.add(1);
        self.spawn(async move {
            let to = side.next_hop_of(&peer);
            if let Some(mut transaction) = side.client(request, &to, Some(&peer.connection)).await
                && transaction.send().await.is_ok()
            {
                while transaction.receive().await.is_some() {}
            }
            open.requests_open.add(-1);
        });
    }

    /// BYE with a Reason (RFC 3326).
    pub(super) fn hang_up(self: &Arc<Self>, peer: &Arc<Peer>, carried: Vec<Header>) {
        let mut bye = peer.request(Method::Bye);
        bye.headers.extend(carried);
        self.send_unattended(peer, bye);
    }
}

/// The tag and the number of a request are there: the gate has seen to it.
pub(super) fn cseq_of(request: &Request) -> u32 {
    request.cseq_header().and_then(|cseq| cseq.seq()).unwrap_or_default()
}
