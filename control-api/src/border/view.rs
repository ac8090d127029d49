//! What an operator sees of the calls through a border.

use std::net::SocketAddr;

use mrfp_core::mp::ShardId;

use super::call::{Call, PointState, Stream};
use super::exchange::profile_name;
use super::sdp::Kind;
use super::{Border, BorderCallId, Leg, SideRole};

/// A call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallView {
    /// Its name.
    pub call: BorderCallId,
    /// From where.
    pub caller: SideRole,
    /// Whereto.
    pub callee: SideRole,
    /// Where its media is, once it has any.
    pub shard: Option<ShardId>,
    /// How far it is.
    pub state: CallState,
    /// What is agreed, with the number of the m-line.
    pub streams: Vec<(usize, StreamView)>,
}

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallState {
    /// Nothing is agreed.
    Begun,
    /// Something is.
    Agreed,
    /// A bearer was closed or lost.
    Recovering,
    /// Both legs are being released.
    Releasing,
}

/// A media stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamView {
    /// `msrp`, `bfcp`, `t38`.
    pub kind: &'static str,
    /// How it is protected.
    pub profile: &'static str,
    /// The caller's side and the callee's.
    pub points: [PointView; 2],
}

/// One connection point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PointView {
    /// On which side.
    pub side: SideRole,
    /// Ours.
    pub address: Option<SocketAddr>,
    /// The party's, as its SDP has it.
    pub remote: Option<SocketAddr>,
    /// Whether it stands.
    pub state: PointState,
}

impl Border {
    /// The calls, by name.
    pub fn views(&self) -> impl Iterator<Item = CallView> {
        self.calls.iter().map(|(id, call)| call.view(*id))
    }
}

impl Call {
    fn view(&self, id: BorderCallId) -> CallView {
        let state = match (self.releasing, self.lost) {
            (true, _) => CallState::Releasing,
            (false, Some(_)) => CallState::Recovering,
            (false, None) if self.agreed.streams.is_empty() => CallState::Begun,
            (false, None) => CallState::Agreed,
        };
        let streams = self.agreed.streams.iter();
        CallView {
            call: id,
            caller: self.caller.side,
            callee: self.callee.side,
            shard: self.shard,
            state,
            streams: streams.map(|(index, stream)| (*index, self.stream_view(stream))).collect(),
        }
    }

    fn stream_view(&self, stream: &Stream) -> StreamView {
        let point = |leg: Leg| {
            let point = stream.point(leg);
            PointView {
                side: self.party(leg).side,
                address: point.address,
                remote: point.remote.as_ref().and_then(|remote| remote.address),
                state: point.state,
            }
        };
        StreamView {
            kind: match stream.kind {
                Kind::Msrp => "msrp",
                Kind::Bfcp => "bfcp",
                Kind::T38 => "t38",
                Kind::Other => "other",
            },
            profile: profile_name(&stream.profile),
            points: [point(Leg::Caller), point(Leg::Callee)],
        }
    }
}
