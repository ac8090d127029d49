//! One call and its stages.

use std::net::SocketAddr;

use mrfp_core::mp::{ContextId, Direction, Member, ReleaseCause, ShardId, TerminationId};

use super::conference_state::{Endpoint, Joining, Status};
use super::config::FocusConfig;
use super::engine::{Turn, random_session_id};
use super::floor_session::FloorSession;
use super::keying::{Asked, SessionKeys};
use super::offers::{Change, Negotiation};
use super::rekeying::Rekeying;
use super::rooms::{MemberState, MemberView};
use super::tickets::Transfer;
use super::{CallId, Caller, ResolveId};
use crate::mikey::Bundle;
use crate::sdp::{LocalDescription, Offering};

/// A call from its admission to its end.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) room: String,
    /// Who is at the other end, whoever called.
    pub(super) caller: Caller,
    /// What the others in the conference know it as.
    pub(super) entity: String,
    pub(super) joining: Joining,
    /// The URI of the conference as the other end knows it, which its tickets are for.
    pub(super) called: String,
    /// The URI to call with its parameters, where we call.
    pub(super) target: Option<String>,
    pub(super) referred_by: Option<String>,
    pub(super) nickname: Option<String>,
    pub(super) muted: bool,
    pub(super) since_ns: u64,
    pub(super) context: ContextId,
    pub(super) termination: TerminationId,
    pub(super) shard: ShardId,
    /// What was agreed last, or is about to be; `None` while an offer of ours is unanswered.
    pub(super) negotiation: Option<Negotiation>,
    /// Its BFCP stream.
    pub(super) floor: Option<Box<FloorSession>>,
    /// What updates of its key begin with, where MIKEY has keyed it.
    pub(super) bundle: Option<Box<Bundle>>,
    pub(super) stage: Stage,
}

/// How far a call is, in the order it goes.
#[derive(Debug)]
pub(super) enum Stage {
    /// The KMS is asked; the shard does not know of the call. What that is to be asked for is there where
    /// it is the key of the floor stream that is missing.
    AwaitKms { resolve: ResolveId, asked: Asked, reservation: Option<Box<Reservation>> },
    /// The shard is asked; the INVITE is unanswered.
    AwaitReserved(Box<Reservation>),
    /// Our offer is out, in an INVITE or in the 200 to one.
    AwaitAnswer(Box<Offered>),
    /// Answered 200.
    Established(Box<Agreed>),
    /// The shard is asked to carry a re-INVITE out; the re-INVITE is unanswered.
    AwaitModified(Box<Agreed>, Box<Change>),
    /// A new key is on its way, by a re-INVITE of ours.
    Rekeying(Box<Agreed>, Box<Rekeying>),
}

/// What the shard was asked for.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) session_id: String,
    pub(super) keys: SessionKeys,
    pub(super) own_port: bool,
    /// Where the shard listens, once it has answered; the floor stream is asked for then.
    pub(super) address: Option<SocketAddr>,
    /// Where we connect we may have done so before the floor stream is there.
    pub(super) bearer: Bearer,
}

/// An offer of ours.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) offering: Offering,
    pub(super) description: LocalDescription,
    /// What the key in the answer is checked with, where it is to have one.
    pub(super) transfer: Option<Box<Transfer>>,
    /// It rings at whom we call.
    pub(super) alerting: bool,
}

/// The description in force and its sess-version.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) description: LocalDescription,
    pub(super) version: u64,
    pub(super) bearer: Bearer,
}

/// The peer's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bearer {
    /// It is to come.
    Awaited,
    /// It is bound to the session.
    Bound,
    /// It is gone, and a new session may take the place of the one it carried.
    Lost(ReleaseCause),
}

impl Call {
    pub(super) fn view(&self, call: CallId) -> MemberView<'_> {
        MemberView {
            call,
            uri: &self.caller.uri,
            nickname: self.nickname.as_deref(),
            muted: self.muted,
            state: match &self.stage {
                Stage::AwaitKms { .. } => MemberState::AwaitingKeys,
                Stage::AwaitReserved(_) => MemberState::Reserving,
                Stage::AwaitAnswer(_) => MemberState::Calling,
                Stage::Established(agreed) => match agreed.bearer {
                    Bearer::Awaited => MemberState::Answered,
                    Bearer::Bound => MemberState::Connected,
                    Bearer::Lost(_) => MemberState::Recovering,
                },
                Stage::AwaitModified(..) | Stage::Rekeying(..) => MemberState::Modifying,
            },
            secure: self.negotiation.as_ref().is_some_and(|agreed| agreed.message.secure),
            keyed: self
                .negotiation
                .as_ref()
                .is_some_and(|agreed| agreed.message.key_management.is_some()),
            floor_user: self
                .floor
                .as_ref()
                .and_then(|floor| floor.place)
                .map(|place| place.user_id),
            since_ns: self.since_ns,
        }
    }
}

impl Reservation {
    pub(super) fn new(turn: &mut Turn<'_>, keys: SessionKeys) -> Box<Self> {
        let session_id = random_session_id(turn.random);
        let bearer = Bearer::Awaited;
        Box::new(Self { session_id, keys, own_port: false, address: None, bearer })
    }
}

impl Call {
    /// The peer's connection is there.
    pub(super) fn is_bound(&self) -> bool {
        match &self.stage {
            Stage::Established(agreed)
            | Stage::AwaitModified(agreed, _)
            | Stage::Rekeying(agreed, _) => agreed.bearer == Bearer::Bound,
            Stage::AwaitKms { .. } | Stage::AwaitReserved(_) | Stage::AwaitAnswer(_) => false,
        }
    }

    /// The session has been agreed.
    pub(super) fn is_answered(&self) -> bool {
        match &self.stage {
            Stage::Established(_) | Stage::AwaitModified(..) | Stage::Rekeying(..) => true,
            Stage::AwaitKms { .. } | Stage::AwaitReserved(_) | Stage::AwaitAnswer(_) => false,
        }
    }

    /// What was agreed last; only a call whose offer is unanswered has nothing yet.
    pub(super) fn agreed(&self) -> &Negotiation {
        self.negotiation.as_ref().expect("an answer has come")
    }

    /// Who the media plane is to take it for. The first URI is the one the others see.
    pub(super) fn member(&self) -> Member {
        let mut uris = vec![self.entity.clone()];
        if self.entity != self.caller.uri {
            uris.push(self.caller.uri.clone());
        }
        // Of whom we call nothing is known before its answer.
        let private_messages =
            self.negotiation.as_ref().is_some_and(|agreed| agreed.message.private_messages());
        Member { uris, private_messages, muted: self.muted }
    }

    /// What the conference event package tells of it; nothing before it is answered, unless we
    /// call.
    pub(super) fn endpoint(&self, config: &FocusConfig) -> Option<Endpoint> {
        let (status, direction) = match &self.stage {
            Stage::AwaitKms { .. } | Stage::AwaitReserved(_) => return None,
            Stage::AwaitAnswer(offered) => (offered.status(self.joining), None),
            Stage::Established(agreed)
            | Stage::AwaitModified(agreed, _)
            | Stage::Rekeying(agreed, _) => {
                let direction = self.agreed().message.direction;
                (self.status(agreed, direction), Some(direction))
            }
        };
        let role = if config.operators.contains(&self.entity) { "operator" } else { "participant" };
        let shown = !self.caller.anonymous;
        Some(Endpoint {
            display_text: self.caller.display_name.clone().filter(|_| shown),
            nickname: self.nickname.clone(),
            role,
            status,
            joining: self.joining,
            referred_by: self.referred_by.clone(),
            direction,
        })
    }

    fn status(&self, agreed: &Agreed, direction: Direction) -> Status {
        match direction {
            // Section 5.7.3: it "is not yet in the session, but it is anticipated".
            _ if agreed.bearer != Bearer::Bound => Status::Pending,
            Direction::Inactive => Status::OnHold,
            _ if self.muted => Status::MutedViaFocus,
            Direction::SendRecv | Direction::SendOnly | Direction::RecvOnly => Status::Connected,
        }
    }
}

impl Offered {
    fn status(&self, joining: Joining) -> Status {
        match joining {
            Joining::DialedIn => Status::Pending,
            Joining::DialedOut if self.alerting => Status::Alerting,
            Joining::DialedOut => Status::DialingOut,
        }
    }
}

impl Stage {
    /// The description in force, once there is one.
    pub(super) fn agreed_mut(&mut self) -> Option<&mut Agreed> {
        match self {
            Self::Established(agreed)
            | Self::AwaitModified(agreed, _)
            | Self::Rekeying(agreed, _) => Some(agreed),
            Self::AwaitKms { .. } | Self::AwaitReserved(_) | Self::AwaitAnswer(_) => None,
        }
    }

    /// The peer's connection is there.
    pub(super) fn set_bound(&mut self) {
        match self {
            Self::AwaitReserved(reservation) => reservation.bearer = Bearer::Bound,
            Self::Established(agreed)
            | Self::AwaitModified(agreed, _)
            | Self::Rekeying(agreed, _) => agreed.bearer = Bearer::Bound,
            Self::AwaitKms { .. } | Self::AwaitAnswer(_) => (),
        }
    }

    /// What the KMS is asked.
    pub(super) fn question(&self) -> Option<ResolveId> {
        match self {
            Self::AwaitKms { resolve, .. } => Some(*resolve),
            Self::AwaitModified(_, change) => change.asked.as_ref().map(|(resolve, _)| *resolve),
            Self::AwaitReserved(_)
            | Self::AwaitAnswer(_)
            | Self::Established(_)
            | Self::Rekeying(..) => None,
        }
    }

    /// The shard has heard of the call.
    pub(super) fn has_termination(&self) -> bool {
        match self {
            Self::AwaitKms { .. } => false,
            Self::AwaitReserved(_)
            | Self::AwaitAnswer(_)
            | Self::Established(_)
            | Self::AwaitModified(..)
            | Self::Rekeying(..) => true,
        }
    }
}
