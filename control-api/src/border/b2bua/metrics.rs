//! Counters of the B2BUA, beside those of each side's sockets.

use crate::sip::{Counter, Gauge};

/// What is counted for both sides together. All since start, except the gauges.
#[derive(Default, Debug)]
pub struct B2buaMetrics {
    /// Calls that were begun.
    pub calls: Counter,
    /// Of those, answered with 2xx.
    pub calls_answered: Counter,
    /// Of those, refused by the callee's side or by the border.
    pub calls_refused: Counter,
    /// Cancelled by the caller.
    pub calls_cancelled: Counter,
    /// Released by the border.
    pub calls_released: Counter,
    /// Sessions that were not refreshed in time (RFC 4028).
    pub sessions_expired: Counter,
    /// Answered calls whose 2xx the caller never acknowledged.
    pub acks_missing: Counter,
    /// Calls for which another next hop had to be taken.
    pub reroutes: Counter,
    /// Requests outside of calls that were passed on, REGISTER not included.
    pub requests_passed: Counter,
    /// REGISTERs that were passed on.
    pub registers: Counter,
    /// Registrations whose time ran out.
    pub registrations_expired: Counter,
    /// Requests shed with 503 for want of room or time.
    pub overloads: Counter,
    /// Requests that had been here before (482).
    pub loops: Counter,
    /// Offers and answers that the border refused.
    pub refusals: Counter,
    /// BYEs and CANCELs of ours without a final response.
    pub requests_open: Gauge,
}
