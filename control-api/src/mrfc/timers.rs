//! What the MRFC has deadlines for.

use mrfp_core::mp::{ContextId, TerminationId};

use super::{CallId, SubscriptionId};
use crate::deadlines::Deadlines;

/// What a deadline belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// The KMS or a shard owes this call an answer.
    Call(CallId),
    /// The connection of this call was lost, and its session may be re-created until then.
    Recovery(CallId),
    /// This call is to get another key.
    Rekeying(CallId),
    /// A shard owes `Subtracted`.
    Subtract(TerminationId),
    /// A room has changes to tell.
    Notify(ContextId),
    /// A subscription ends.
    Subscription(SubscriptionId),
}

pub(super) type Timers = Deadlines<Timer>;
