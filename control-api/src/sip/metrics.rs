//! Counters of the SIP front.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// One counter that only grows.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds so many.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Default, Debug)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `by`, which may be negative.
    pub fn add(&self, by: i64) -> i64 {
        self.0.fetch_add(by, Ordering::Relaxed) + by
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the SIP front counts. All since start, except the gauges.
#[derive(Default, Debug)]
pub struct SipMetrics {
    /// Messages received, keep-alives not included.
    pub messages: Counter,
    /// New calls that reached the MRFC.
    pub invites: Counter,
    /// re-INVITEs and UPDATEs with an offer that reached the MRFC.
    pub reinvites: Counter,
    /// re-INVITEs of ours.
    pub reinvites_sent: Counter,
    /// 180 sent, because the answer took its time.
    pub ringing: Counter,
    /// Final answers to INVITE and UPDATE with 2xx.
    pub answers_2xx: Counter,
    /// The same with 4xx.
    pub answers_4xx: Counter,
    /// The same with 5xx.
    pub answers_5xx: Counter,
    /// The same with 3xx or 6xx.
    pub answers_other: Counter,
    /// Calls of ours.
    pub dials: Counter,
    /// SUBSCRIBE answered with 2xx.
    pub subscribes_accepted: Counter,
    /// SUBSCRIBE answered otherwise.
    pub subscribes_refused: Counter,
    /// NOTIFY sent.
    pub notifies_sent: Counter,
    /// NOTIFY that was refused or not answered.
    pub notifies_failed: Counter,
    /// BYE received.
    pub byes_received: Counter,
    /// BYE sent.
    pub byes_sent: Counter,
    /// CANCEL that ended a call.
    pub cancels: Counter,
    /// Answered calls whose 2xx was never acknowledged.
    pub acks_missing: Counter,
    /// Sessions that were not refreshed in time (RFC 4028).
    pub sessions_expired: Counter,
    /// Requests shed with 503, for whatever reason and however often.
    pub overloads: Counter,
    /// New INVITEs among them that had waited too long.
    pub invites_shed: Counter,
    /// Datagrams the kernel dropped, because the socket's buffer was full.
    pub datagrams_dropped: Counter,
    /// Gate: 400.
    pub gate_malformed: Counter,
    /// Gate: 405 and 501.
    pub gate_method: Counter,
    /// Gate: 406, 415 and 489.
    pub gate_content: Counter,
    /// Gate: 416.
    pub gate_scheme: Counter,
    /// Gate: 420.
    pub gate_extension: Counter,
    /// Gate: 505.
    pub gate_version: Counter,
    /// Dropped without an answer: malformed responses and ACKs.
    pub dropped_malformed: Counter,
    /// Dropped without an answer: no usable Via to answer to.
    pub dropped_unanswerable: Counter,
    /// Passed the gate and was refused by the stack.
    pub stack_refused: Counter,
    /// Requests received again, which the stack answers or absorbs by itself. Two sockets at
    /// work at once may take one for the other's.
    pub retransmissions: Counter,
    /// TCP connections refused over the limit.
    pub connections_refused: Counter,
    /// TCP connections that ended, whoever closed them.
    pub connections_closed: Counter,
    /// Open TCP connections.
    pub connections_active: Gauge,
    /// Calls between INVITE and their end.
    pub dialogs_active: Gauge,
}

impl SipMetrics {
    /// Counts an answer to an INVITE or UPDATE by its class.
    pub(super) fn count_answer(&self, status: u16) {
        match status {
            200..=299 => self.answers_2xx.increment(),
            400..=499 => self.answers_4xx.increment(),
            500..=599 => self.answers_5xx.increment(),
            _ => self.answers_other.increment(),
        }
    }

    /// Counts an answer to a SUBSCRIBE.
    pub(super) fn count_subscribe(&self, status: u16) {
        match status {
            200..=299 => self.subscribes_accepted.increment(),
            _ => self.subscribes_refused.increment(),
        }
    }

    /// Counts a rejection by the gate.
    pub(crate) fn count_rejection(&self, status: u16) {
        match status {
            405 | 501 => self.gate_method.increment(),
            406 | 415 | 489 => self.gate_content.increment(),
            416 => self.gate_scheme.increment(),
            420 => self.gate_extension.increment(),
            505 => self.gate_version.increment(),
            _ => self.gate_malformed.increment(),
        }
    }
}
