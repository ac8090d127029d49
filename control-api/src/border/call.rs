//! What the border knows of one call.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use mrfp_core::mp::{self, ContextId, ReleaseCause, RemoteConnectionPoint, TerminationId};
use mrfp_protocol::tls::Fingerprint;

use super::exchange::{Agreed, Exchange, profile_name};
use super::sdp::{Kind, Profile};
use super::{ExchangeId, Leg, Party, SideRole};

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Party,
    pub(super) callee: Party,
    /// Why its offers are refused, where there was no room for it.
    pub(super) not_admitted: Option<&'static str>,
    /// Where its Contexts are, once it has any.
    pub(super) shard: Option<mp::ShardId>,
    pub(super) agreed: Agreed,
    /// The last exchange; it can be withdrawn until the next.
    pub(super) exchange: Option<Exchange>,
    /// Of the bearers that are lost, the first.
    pub(super) lost: Option<(SideRole, ReleaseCause)>,
    /// Terminations of which the shard owes an answer.
    pub(super) awaiting: BTreeSet<TerminationId>,
    /// What came meanwhile.
    pub(super) waiting: VecDeque<Waiting>,
    /// The front was told to release it; `Ended` is due.
    pub(super) releasing: bool,
}

/// An event that waits until the shard has answered.
#[derive(Debug)]
pub(super) enum Waiting {
    Offer { exchange: ExchangeId, from: Leg, sdp: Vec<u8> },
    Answer { exchange: ExchangeId, sdp: Vec<u8> },
    Withdrawn { exchange: ExchangeId },
}

/// One media stream: a Context with a Termination for each leg.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) context: ContextId,
    pub(super) kind: Kind,
    pub(super) profile: Profile,
    pub(super) caller: Point,
    pub(super) callee: Point,
}

/// One connection point of ours.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) termination: TerminationId,
    pub(super) bearer: mp::Bearer,
    /// Where the party reaches it, once the shard has said so.
    pub(super) address: Option<SocketAddr>,
    /// What our certificate is known by.
    pub(super) fingerprint: Option<Fingerprint>,
    /// Names the (D)TLS association in SDP.
    pub(super) tls_id: String,
    /// The party's side, as the shard knows it.
    pub(super) remote: Option<RemoteConnectionPoint>,
    pub(super) state: PointState,
}

/// How far a bearer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointState {
    /// It is to come up.
    Waiting,
    /// It stands.
    Established,
    /// It was closed or lost.
    Lost,
}

impl Call {
    pub(super) fn new(caller: Party, callee: Party, not_admitted: Option<&'static str>) -> Self {
        Self {
            caller,
            callee,
            not_admitted,
            shard: None,
            agreed: Agreed::default(),
            exchange: None,
            lost: None,
            awaiting: BTreeSet::new(),
            waiting: VecDeque::new(),
            releasing: false,
        }
    }

    pub(super) fn party(&self, leg: Leg) -> &Party {
        match leg {
            Leg::Caller => &self.caller,
            Leg::Callee => &self.callee,
        }
    }

    /// Every stream the shard has, those included that are not agreed on.
    pub(super) fn all_streams(&self) -> impl Iterator<Item = &Stream> {
        let new = self.exchange.iter().flat_map(Exchange::new_streams);
        self.agreed.streams.values().chain(new)
    }

    /// The connection point of that name, its leg, and what the profile of its stream is called.
    pub(super) fn point_mut(
        &mut self,
        termination: TerminationId,
    ) -> Option<(Leg, &mut Point, &'static str)> {
        let new = self.exchange.iter_mut().flat_map(Exchange::new_streams_mut);
        let mut streams = self.agreed.streams.values_mut().chain(new);
        streams.find_map(|stream| {
            let profile = profile_name(&stream.profile);
            let leg = [Leg::Caller, Leg::Callee]
                .into_iter()
                .find(|leg| stream.point(*leg).termination == termination)?;
            Some((leg, stream.point_mut(leg), profile))
        })
    }

    /// A bearer that stood is no more.
    pub(super) fn has_lost_bearer(&self) -> bool {
        self.agreed.streams.values().any(Stream::has_lost_bearer)
    }
}

impl Stream {
    /// One of its bearers that stood is no more.
    pub(super) fn has_lost_bearer(&self) -> bool {
        [&self.caller, &self.callee].into_iter().any(|point| point.state == PointState::Lost)
    }

    pub(super) fn point(&self, leg: Leg) -> &Point {
        match leg {
            Leg::Caller => &self.caller,
            Leg::Callee => &self.callee,
        }
    }

    pub(super) fn point_mut(&mut self, leg: Leg) -> &mut Point {
        match leg {
            Leg::Caller => &mut self.caller,
            Leg::Callee => &mut self.callee,
        }
    }
}

impl Point {
    pub(super) fn new(termination: TerminationId, bearer: mp::Bearer) -> Self {
        Self {
            termination,
            bearer,
            address: None,
            fingerprint: None,
            tls_id: String::new(),
            remote: None,
            state: PointState::Waiting,
        }
    }
}
