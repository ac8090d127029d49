//! One call and its stages.

use mrfp_core::mp::{ContextId, ShardId, TerminationId};

use super::keys::{Keys, Pending};
use super::offers::{Change, Negotiation};
use super::rooms::{MemberState, MemberView};
use super::{CallId, ResolveId};
use crate::sdp::LocalDescription;

/// A call from its admission to its end.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) room: String,
    pub(super) from: String,
    /// The URI it called.
    pub(super) to: String,
    pub(super) since_ns: u64,
    pub(super) context: ContextId,
    pub(super) termination: TerminationId,
    pub(super) shard: ShardId,
    /// What was agreed last, or is about to be.
    pub(super) negotiation: Negotiation,
    pub(super) stage: Stage,
}

/// How far a call is, in the order it goes.
#[derive(Debug)]
pub(super) enum Stage {
    /// The KMS is asked; the shard does not know of the call.
    AwaitKms { resolve: ResolveId, pending: Box<Pending> },
    /// The shard is asked; the INVITE is unanswered.
    AwaitReserved(Box<Reservation>),
    /// Answered 200.
    Established(Box<Agreed>),
    /// The shard is asked to carry a re-INVITE out; the re-INVITE is unanswered.
    AwaitModified(Box<Agreed>, Box<Change>),
}

/// What the shard was asked for.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) session_id: String,
    pub(super) keys: Option<Keys>,
    pub(super) own_port: bool,
}

/// The description in force and its sess-version.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) description: LocalDescription,
    pub(super) version: u64,
    /// The peer's connection stands.
    pub(super) bound: bool,
}

impl Call {
    pub(super) fn view(&self, call: CallId) -> MemberView<'_> {
        MemberView {
            call,
            uri: &self.from,
            state: match &self.stage {
                Stage::AwaitKms { .. } => MemberState::AwaitingKeys,
                Stage::AwaitReserved(_) => MemberState::Reserving,
                Stage::Established(agreed) if agreed.bound => MemberState::Connected,
                Stage::Established(_) => MemberState::Answered,
                Stage::AwaitModified(..) => MemberState::Modifying,
            },
            secure: self.negotiation.message.secure,
            since_ns: self.since_ns,
        }
    }
}

impl Stage {
    /// The shard has heard of the call.
    pub(super) fn has_termination(&self) -> bool {
        match self {
            Self::AwaitKms { .. } => false,
            Self::AwaitReserved(_) | Self::Established(_) | Self::AwaitModified(..) => true,
        }
    }
}
