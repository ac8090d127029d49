//! What has happened, counted.

use std::collections::BTreeMap;

use mrfp_core::mp::ReleaseCause;

use super::SideRole;

/// Totals since the start.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct BorderCounters {
    /// Calls, by the side they came from.
    pub calls: BTreeMap<SideRole, u64>,
    /// Calls that ended, however.
    pub calls_ended: u64,
    /// Calls that the border released, by why.
    pub calls_released: BTreeMap<&'static str, u64>,
    /// Offers that went on, by the side they came from.
    pub offers: BTreeMap<SideRole, u64>,
    /// Answers that went back, by the side they came from.
    pub answers: BTreeMap<SideRole, u64>,
    /// Offers and answers that did not, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Exchanges taken back.
    pub withdrawn: u64,
    /// Streams begun, by how they are protected.
    pub streams: BTreeMap<&'static str, u64>,
    /// Bearers that came up.
    pub bearers_established: BTreeMap<(SideRole, &'static str), u64>,
    /// Bearers that did not, or were lost.
    pub bearers_released: BTreeMap<(SideRole, &'static str, ReleaseCause), u64>,
    /// Bytes of media that Terminations given back had received and sent.
    pub carried: BTreeMap<SideRole, Carried>,
    /// Commands a shard did not answer in time.
    pub shard_timeouts: u64,
}

/// Bytes of media.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Carried {
    /// From the peers.
    pub bytes_received: u64,
    /// To them.
    pub bytes_sent: u64,
}

/// One more of a kind.
pub(super) fn count<K: Ord>(counters: &mut BTreeMap<K, u64>, key: K) {
    *counters.entry(key).or_insert(0) += 1;
}
