//! The SIP front: turns SIP into [`mrfc::Event`](crate::mrfc::Event) and
//! [`mrfc::Action`](crate::mrfc::Action) into SIP.
//!
//! Every datagram and every framed TCP message passes the [`gate`] before the SIP stack sees it.
//! The stack (`rsipstack`) keeps transactions: matching, retransmission, timers. Dialogs are one
//! table here. What the user agent core has to do by itself (RFC 3261 sections 13.3.1.4 and 15.1.2)
//! it does without a transaction of the stack, as every call takes this way: it repeats the 2xx to an
//! INVITE until the ACK, and answers a BYE (`repeats` knows both when they come again). An INVITE
//! that is refused or cancelled gets its transaction then.

mod agent;
pub(crate) mod dialing;
mod dialog;
pub mod framer;
pub mod gate;
mod in_dialog;
mod incoming;
pub(crate) mod invite;
mod metrics;
pub(crate) mod multipart;
mod outgoing;
mod overload;
pub(crate) mod peer;
mod received;
mod reinviting;
pub(crate) mod repeats;
pub(crate) mod reply;
pub(crate) mod sending;
mod session;
pub(crate) mod station;
mod subscriptions;
mod timers;
pub(crate) mod transport;
pub(crate) mod way;
pub mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mrfc::{Action, CallId, Event};
use agent::Agent;
use dialing::Wanted;
pub use metrics::{Counter, Gauge, SipMetrics};
use transport::Sockets;

/// How the SIP front is set up.
#[derive(Clone, Debug)]
pub struct SipConfig {
    /// UDP address to bind; port 0: any.
    pub udp: SocketAddr,
    /// TCP address to bind; port 0: any.
    pub tcp: SocketAddr,
    /// Host of our Contact URI; `None`: the bound address, or the first interface where that is
    /// a wildcard.
    pub contact_host: Option<String>,
    /// Where calls of ours go; `None`: only callees whose URI has a numeric host are reached.
    pub outbound_proxy: Option<SocketAddr>,
    /// User-Agent of what we send.
    pub user_agent: String,
    /// Calls at once; a further INVITE gets 503.
    pub calls_max: usize,
    /// Transactions that may be held, 32 s beyond their answer: 1.5 KB for one of the stack, 60 bytes
    /// for the INVITE and the BYE of a call. A further INVITE, also one within a call, gets 503 without
    /// a transaction.
    pub transactions_max: usize,
    /// Of those, the ones that are unanswered or unacknowledged: those of the stack have a task and
    /// a queue each, and take some 20 KB; the INVITE of a call takes a tenth of that. A further INVITE gets 503 without a transaction.
    pub transactions_open_max: usize,
    /// TCP connections at once; a further one is closed.
    pub connections_max: usize,
    /// Session-Expires where the caller knows session timers but names no interval.
    pub session_expires_default: Duration,
    /// The smallest Session-Expires we take (RFC 4028 section 5: at least 90 s).
    pub min_se: Duration,
    /// Retry-After of a 503, at least; at most twice that, so that not all come back at once.
    pub retry_after: Duration,
    /// A new INVITE that has waited longer than this since the kernel received it gets 503 as long as
    /// messages keep waiting; zero: none does.
    pub queue_delay_max: Duration,
    /// They keep waiting when none has waited less than half of that for so long.
    pub queue_delay_interval: Duration,
    /// RFC 3261 T1; all transaction timers follow it.
    pub t1: Duration,
    /// SO_RCVBUF of the UDP socket, bytes: a burst of INVITEs waits here.
    pub udp_receive_buffer_bytes: usize,
    /// A TCP connection without a message for this long is closed.
    pub tcp_idle_timeout: Duration,
    /// A TCP message must be complete this long after its first byte, the first one of a
    /// connection this long after the connection.
    pub tcp_message_timeout: Duration,
}

impl Default for SipConfig {
    fn default() -> Self {
        Self {
            udp: SocketAddr::from(([127, 0, 0, 1], 5060)),
            tcp: SocketAddr::from(([127, 0, 0, 1], 5060)),
            contact_host: None,
            outbound_proxy: None,
            user_agent: "mrf".to_owned(),
            calls_max: 100_000,
            // 1.5 GB at worst; 16,000 calls/s for the 32 s they are held, two each.
            transactions_max: 1_000_000,
            // 700 MB at worst. Answered and acknowledged within 200 ms, 16,000 calls/s have a tenth
            // of that open; 1,000 callers a second that never send an ACK fill it.
            transactions_open_max: 1 << 15,
            connections_max: 10_000,
            session_expires_default: Duration::from_secs(1800),
            min_se: Duration::from_secs(90),
            retry_after: Duration::from_secs(5),
            // With what an answer takes by itself well below T1, after which a caller repeats itself, and
            // no more than the buffer above holds of what 10,000 messages a second bring.
            queue_delay_max: Duration::from_millis(100),
            // RFC 8289 section 4.2: long enough for a burst to be worked off.
            queue_delay_interval: Duration::from_millis(100),
            t1: Duration::from_millis(500),
            udp_receive_buffer_bytes: 4 * 1024 * 1024,
            // Longer than a default session, whose refresh shows that the peer is there.
            tcp_idle_timeout: Duration::from_secs(3600),
            tcp_message_timeout: Duration::from_secs(10),
        }
    }
}

/// A running SIP front.
#[derive(Debug)]
pub struct SipHandle {
    agent: Arc<Agent>,
    udp: SocketAddr,
    tcp: SocketAddr,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// Binds both sockets and starts to serve them on the current tokio runtime.
///
/// # Errors
/// Binding failed.
pub async fn start(config: SipConfig, events: mpsc::Sender<Event>) -> io::Result<SipHandle> {
    let sockets = Sockets::bind(&config).await?;
    let (udp, tcp) = (sockets.udp_address, sockets.tcp_address);
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let agent = Agent::new(config, events, udp, tcp, cancel.clone(), tasks.clone());
    sockets.serve(&agent);
    agent.spawn(Arc::clone(&agent).run_sessions());
    Ok(SipHandle { agent, udp, tcp, cancel, tasks })
}

impl SipHandle {
    /// The bound UDP address.
    pub fn udp_address(&self) -> SocketAddr {
        self.udp
    }

    /// The bound TCP address.
    pub fn tcp_address(&self) -> SocketAddr {
        self.tcp
    }

    /// Hosts, with port, of our Contacts.
    pub fn contact_hosts(&self) -> Vec<String> {
        vec![self.agent.contact_udp.clone(), self.agent.contact_tcp.clone()]
    }

    /// A name for a call of ours that nobody in front has asked for.
    pub fn new_call(&self) -> CallId {
        CallId(self.agent.table().next_number())
    }

    /// Does what the MRFC wants of a call or a subscription; never blocks. For one that has ended
    /// it does nothing. Actions that are not for us are returned.
    pub fn act(&self, action: Action) -> Option<Action> {
        match action {
            Action::Answer { call, answer } => {
                self.agent.answer(call, answer);
                None
            }
            Action::HangUp { call, reason } => {
                self.agent.hang_up(call, &reason);
                None
            }
            Action::Dial { call, target, room, uri, referred_by, sdp } => {
                let wanted = Wanted { target, room, uri, referred_by, sdp };
                self.agent.dial(call, wanted);
                None
            }
            Action::Reinvite { call, sdp } => {
                self.agent.reinvite(call, sdp);
                None
            }
            Action::Room { call, room } => {
                self.agent.room(call, &room);
                None
            }
            Action::AnswerSubscribe { subscription, answer } => {
                self.agent.answer_subscribe(subscription, answer);
                None
            }
            Action::Notify { subscription, notice } => {
                self.agent.notify(subscription, notice);
                None
            }
            other @ (Action::Command { .. } | Action::Resolve { .. } | Action::Drained) => {
                Some(other)
            }
        }
    }

    /// How long messages wait at present between the kernel and us.
    pub fn queue_delay(&self) -> Duration {
        self.agent.queue_delay()
    }

    /// The counters.
    pub fn metrics(&self) -> Arc<SipMetrics> {
        Arc::clone(&self.agent.metrics)
    }

    /// Closes both sockets and every connection. The MRFC hangs its calls up first; BYEs and NOTIFYs still
    /// unanswered get T1 * 4 to be, those that wait for an ACK go out after T1.
    pub async fn shutdown(self) {
        self.agent.send_last_byes().await;
        self.agent.await_requests().await;
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
