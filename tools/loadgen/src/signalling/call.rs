//! One call: its dialog, its transaction, and how its requests begin.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::Config;

/// One call: a dialog and at most one client transaction at a time.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) state: State,
    /// Raised with every state that sets a timer; an older timer finds another number.
    pub(super) timer: u32,
    /// Time to the next retransmission but one.
    pub(super) interval: Duration,
    /// The next retransmission.
    pub(super) next: Instant,
    /// The end of the transaction.
    pub(super) deadline: Instant,
    pub(super) cseq: u32,
    pub(super) from: String,
    pub(super) request_uri: String,
    pub(super) sdp: Vec<u8>,
    /// To header of the peer with its tag.
    pub(super) remote: String,
    pub(super) routes: Vec<String>,
    pub(super) cancelled: bool,
    /// What is retransmitted: INVITE, BYE.
    pub(super) request: Vec<u8>,
    /// The ACK to the 2xx, for its retransmissions.
    pub(super) ack: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not begun.
    Idle,
    /// INVITE sent, nothing heard.
    Calling,
    /// 1xx received.
    Proceeding,
    /// 2xx received and acknowledged.
    Up,
    /// BYE sent.
    Ending,
    /// Over.
    Over,
}

/// RFC 3261 section 17.1.1.1.
pub(super) const T1: Duration = Duration::from_millis(500);
/// Timers B and F: 64 times T1.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);

impl Call {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Idle,
            timer: 0,
            interval: T1,
            next: now,
            deadline: now,
            cseq: 1,
            from: String::new(),
            request_uri: String::new(),
            sdp: Vec::new(),
            remote: String::new(),
            routes: Vec::new(),
            cancelled: false,
            request: Vec::new(),
            ack: Vec::new(),
        }
    }

    pub(super) fn begin_transaction(&mut self, config: &Config, now: Instant) {
        self.deadline = now + TRANSACTION_TIMEOUT;
        self.interval = if config.unreliable { T1 } else { TRANSACTION_TIMEOUT };
        self.next = now + self.interval;
    }

    pub(super) fn over(&mut self) {
        self.state = State::Over;
        self.timer += 1;
        self.request = Vec::new();
        // Whoever makes calls without end keeps only what answers a late 2xx.
        self.sdp = Vec::new();
    }

    /// Start line and the headers every request has.
    pub(super) fn head(
        &self,
        config: &Config,
        call: u32,
        method: &str,
        transaction: u32,
    ) -> String {
        let mut head = String::with_capacity(1024);
        let run = config.run;
        let _ = write!(
            head,
            "{method} {} SIP/2.0\r\n\
             Via: SIP/2.0/{} {};branch=z9hG4bK{run:08x}.{call}.{transaction};rport\r\n\
             Max-Forwards: 70\r\n",
            self.request_uri,
            config.transport,
            config.local_address(call),
        );
        for route in &self.routes {
            let _ = write!(head, "Route: {route}\r\n");
        }
        let _ = write!(
            head,
            "From: <{}>;tag={run:08x}.{call}\r\nTo: {}\r\n\
             Call-ID: {call}-{run:08x}@mrf-load\r\nCSeq: {} {method}\r\n",
            self.from, self.remote, self.cseq,
        );
        head
    }
}

pub(super) fn contact(config: &Config, call: u32) -> String {
    let transport = config.transport.to_ascii_lowercase();
    format!("<sip:ue-{call}@{};transport={transport}>", config.local_address(call))
}
