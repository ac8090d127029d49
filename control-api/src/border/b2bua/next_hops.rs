//! The next hops of a side: which of them live, and which comes next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rsipstack::sip::{self, Header, Method, Request, SipMessage, Uri, Version};
use rsipstack::transport::SipAddr;
use tokio::time::timeout;

use super::dialogs::new_tag;
use super::side::Side;

/// Where requests go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NextHop {
    /// The address.
    pub address: SocketAddr,
    /// What carries a request that is small enough for a datagram.
    pub transport: Transport,
}

/// What carries SIP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// Datagrams; TCP nevertheless for what is larger than 1300 bytes.
    Udp,
    /// A stream.
    Tcp,
}

/// What is known of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHopState {
    /// Which.
    pub next_hop: NextHop,
    /// It answers, as far as is known.
    pub alive: bool,
    /// Requests that it has not answered, or with 503.
    pub failures: u64,
}

/// All of a side.
#[derive(Debug)]
pub(super) struct NextHops(Vec<Watched>);

#[derive(Debug)]
struct Watched {
    next_hop: NextHop,
    alive: AtomicBool,
    failures: AtomicU64,
}

impl NextHops {
    pub(super) fn new(next_hops: &[NextHop]) -> Self {
        let watched = next_hops.iter().map(|next_hop| Watched {
            next_hop: *next_hop,
            alive: AtomicBool::new(true),
            failures: AtomicU64::new(0),
        });
        Self(watched.collect())
    }

    /// In the order to try them: those that live first, the others as a last resort.
    pub(super) fn in_order(&self) -> Vec<NextHop> {
        let alive = |watched: &&Watched| watched.alive.load(Ordering::Relaxed);
        let (alive, dead): (Vec<_>, Vec<_>) = self.0.iter().partition(alive);
        alive.into_iter().chain(dead).map(|watched| watched.next_hop).collect()
    }

    /// A request to it was answered, with anything but 503 and 408; or was not.
    pub(super) fn saw(&self, next_hop: NextHop, alive: bool) {
        for watched in self.0.iter().filter(|watched| watched.next_hop == next_hop) {
            if !alive {
                watched.failures.fetch_add(1, Ordering::Relaxed);
            }
            if watched.alive.swap(alive, Ordering::Relaxed) != alive {
                tracing::info!(address = %next_hop.address, alive, "next hop");
            }
        }
    }

    pub(super) fn states(&self) -> Vec<NextHopState> {
        let state = |watched: &Watched| NextHopState {
            next_hop: watched.next_hop,
            alive: watched.alive.load(Ordering::Relaxed),
            failures: watched.failures.load(Ordering::Relaxed),
        };
        self.0.iter().map(state).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl NextHop {
    pub(super) fn destination(&self) -> SipAddr {
        let transport = match self.transport {
            Transport::Udp => sip::Transport::Udp,
            Transport::Tcp => sip::Transport::Tcp,
        };
        SipAddr::new(transport, self.address.into())
    }
}

/// Asks each next hop of the side again and again whether it lives.
pub(super) async fn probe(side: Arc<Side>) {
    if side.probe_interval.is_zero() {
        return;
    }
    loop {
        for NextHopState { next_hop, .. } in side.next_hops.states() {
            let asking = Arc::clone(&side);
            side.spawn(async move {
                let alive = timeout(asking.probe_interval, asking.ask(next_hop)).await;
                asking.next_hops.saw(next_hop, alive.unwrap_or(false));
            });
        }
        tokio::time::sleep(side.probe_interval.max(PROBE_INTERVAL_MIN)).await;
    }
}

impl Side {
    /// OPTIONS (RFC 3261 section 11): any answer will do, but that there is no time for one.
    async fn ask(self: &Arc<Self>, next_hop: NextHop) -> bool {
        let Ok(uri) = Uri::try_from(format!("sip:{}", next_hop.address)) else { return false };
        let headers = vec![
            Header::From(format!("<sip:{}>;tag={}", self.contact_udp, new_tag(0)).into()),
            Header::To(format!("<{uri}>").into()),
            Header::CallId(new_tag(0).into()),
            Header::CSeq("1 OPTIONS".into()),
            Header::MaxForwards("70".into()),
        ];
        let request = Request {
            method: Method::Options,
            uri,
            version: Version::V2,
            headers: headers.into(),
            body: Vec::new(),
        };
        let Some(mut transaction) = self.client(request, &next_hop.destination(), None).await
        else {
            return false;
        };
        if transaction.send().await.is_err() {
            return false;
        }
        while let Some(message) = transaction.receive().await {
            if let SipMessage::Response(response) = message
                && response.status_code.code() >= 200
            {
                return is_answer(response.status_code.code());
            }
        }
        false
    }
}

/// What comes from a next hop that lives. 408 and 503 are also what the stack makes of silence and of a broken
/// connection (RFC 3261 section 8.1.3.1).
pub(super) fn is_answer(status: u16) -> bool {
    !matches!(status, 408 | 503)
}

/// However short the configured interval: a probe must be cheaper than what it protects.
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(50);
