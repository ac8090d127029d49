//! The media plane of a gateway (IMS-AGW of TS 23.334, TrGW of TS 29.162). A Context has two connection
//! points, one on each side, each with a port of its own; what arrives at one leaves at the other. Where
//! TLS ends here the conversion is that of the record layer: records are opened where they arrived, and
//! what a turn has gathered for the other side is sealed when it leaves.
//!
//! `commands`: what the controller asks. `establishment`: how a connection comes to its connection point.
//! `stream`: what passes between the two, and who waits for whom. `ending`: how one end becomes the
//! other's. `bulk`: what passes inside the kernel. `msrp`: messages whose paths are changed on the way.
//! `datagrams`: the same without connections, and DTLS. `certificates`: one for each connection point where TLS
//! or DTLS ends.

mod bulk;
mod certificates;
mod commands;
mod datagrams;
mod ending;
mod establishment;
mod msrp;
mod point;
mod stream;

use mrfp_io::Key;
use mrfp_protocol::tls::{AnnouncedProfile, Identity, dtls};

use datagrams::Dtls;

use crate::config::{Interface, Limits};
use crate::mp::{Bearer, ContextId, InterfaceId, ReleaseCause, TerminationId};
use crate::plane::Plane;
use crate::table::{Index, Table};

pub(crate) use certificates::CertificateMaker;
pub use certificates::Certificates;
pub(crate) use point::{ConnectionPoint, Stage};

/// What a shard's part of a gateway is made of.
#[derive(Debug)]
pub struct GatewayParts {
    /// The node's own media addresses.
    pub interfaces: Vec<Interface>,
    /// For the connection points where TLS or DTLS ends.
    pub certificates: Certificates,
    /// What TLS speaks there.
    pub tls: AnnouncedProfile,
    /// What DTLS speaks there.
    pub dtls: dtls::Profile,
}

/// The connection points of one shard.
pub(crate) struct Gateway {
    points: Table<ConnectionPoint>,
    point_by_id: Index<ConnectionPoint, TerminationId>,
    pairs: Table<Pair>,
    pair_by_id: Index<Pair, ContextId>,
    interfaces: Vec<Interface>,
    certificates: Option<Certificates>,
    /// Connection points whose connection the shard is to start.
    to_connect: Vec<Key>,
    /// Where the node is none, or OpenSSL has no DTLS, there is none.
    dtls: Option<Dtls>,
    tls: AnnouncedProfile,
}

/// A Context of a gateway.
struct Pair {
    id: ContextId,
    points: [Option<Key>; 2],
}

impl Gateway {
    /// Where the node is none.
    pub(crate) fn none() -> Self {
        Self::with_room(0)
    }

    pub(crate) fn new(parts: GatewayParts, limits: &Limits) -> Self {
        Self {
            interfaces: parts.interfaces,
            certificates: Some(parts.certificates),
            dtls: Some(Dtls::new(parts.dtls)),
            tls: parts.tls,
            ..Self::with_room(limits.terminations_max)
        }
    }

    fn with_room(points_max: usize) -> Self {
        Self {
            points: Table::reserved(points_max),
            point_by_id: Index::reserved(points_max, |it: &ConnectionPoint| &it.id),
            pairs: Table::reserved(points_max),
            pair_by_id: Index::reserved(points_max, |it: &Pair| &it.id),
            interfaces: Vec::new(),
            certificates: None,
            to_connect: Vec::new(),
            dtls: None,
            tls: AnnouncedProfile::default(),
        }
    }

    /// Slots of the table of connection points, for the timers.
    pub(crate) fn slots(&self) -> u32 {
        self.points.slots()
    }

    pub(crate) fn point(&self, key: Key) -> Option<&ConnectionPoint> {
        self.points.get(key)
    }

    pub(crate) fn point_mut(&mut self, key: Key) -> Option<&mut ConnectionPoint> {
        self.points.get_mut(key)
    }

    /// The connection point with that name, also one that is subtracted.
    pub(crate) fn named(&self, id: TerminationId) -> Option<Key> {
        self.point_by_id.get(&self.points, &id)
    }

    /// The one on the other side of a connection point.
    pub(crate) fn other(&self, key: Key) -> Option<Key> {
        self.points.get(key)?.other
    }

    pub(crate) fn interface(&self, id: InterfaceId) -> Option<Interface> {
        self.interfaces.get(usize::from(id.0)).copied()
    }

    /// The next connection point whose connection is to be started.
    pub(crate) fn next_to_connect(&mut self) -> Option<Key> {
        self.to_connect.pop()
    }

    /// A certificate nobody has had.
    fn take_certificate(&mut self) -> Option<Identity> {
        self.certificates.as_mut()?.take()
    }

    /// Lists a new connection point, in the pair of its Context.
    fn insert(&mut self, context: ContextId, mut point: ConnectionPoint) -> Option<Key> {
        let pair_key = match self.pair_by_id.get(&self.pairs, &context) {
            Some(pair) => pair,
            None => {
                let pair = Pair { id: context, points: [None, None] };
                let key = self.pairs.insert(pair).ok()?;
                self.pair_by_id.insert(&self.pairs, key);
                key
            }
        };
        point.pair = pair_key;
        let key = self.points.insert(point).ok();
        if let (Some(key), Some(pair)) = (key, self.pairs.get_mut(pair_key)) {
            let other = pair.points.iter().flatten().next().copied();
            if let Some(place) = pair.points.iter_mut().find(|place| place.is_none()) {
                *place = Some(key);
            }
            self.point_by_id.insert(&self.points, key);
            self.points[key].other = other;
            if let Some(other) = other {
                self.points[other].other = Some(key);
            }
        }
        self.drop_pair_if_empty(pair_key);
        key
    }

    /// Parts a connection point that is subtracted from its Context; another may take its place at once.
    fn unlink(&mut self, key: Key) {
        let Some(point) = self.points.get_mut(key) else { return };
        let (pair_key, other) = (point.pair, point.other.take());
        if let Some(other) = other.and_then(|other| self.points.get_mut(other)) {
            other.other = None;
        }
        if let Some(pair) = self.pairs.get_mut(pair_key) {
            pair.points.iter_mut().filter(|it| **it == Some(key)).for_each(|it| *it = None);
        }
        self.drop_pair_if_empty(pair_key);
    }

    /// Takes a connection point off the tables.
    fn remove(&mut self, key: Key) -> Option<ConnectionPoint> {
        self.point_by_id.remove(&self.points, key);
        self.points.remove(key)
    }

    fn drop_pair_if_empty(&mut self, key: Key) {
        if self.pairs.get(key).is_some_and(|pair| pair.points == [None, None]) {
            self.pair_by_id.remove(&self.pairs, key);
            self.pairs.discard(key);
        }
    }

    /// What carries the media of the connection points that are in a Context.
    fn bearer_in(&self, context: ContextId) -> Option<Bearer> {
        let pair = self.pairs.get(self.pair_by_id.get(&self.pairs, &context)?)?;
        let first = pair.points.iter().flatten().next()?;
        Some(self.points.get(*first)?.bearer)
    }

    fn is_pair_full(&self, context: ContextId) -> bool {
        let pair = self.pair_by_id.get(&self.pairs, &context).and_then(|key| self.pairs.get(key));
        pair.is_some_and(|pair| pair.points.iter().all(Option::is_some))
    }
}

impl Plane {
    /// How many connection points with that bearer there are.
    fn points_of(&mut self, bearer: Bearer) -> &mut u64 {
        match bearer {
            Bearer::Tcp => &mut self.metrics.gateway_points_tcp,
            Bearer::TlsOverTcp => &mut self.metrics.gateway_points_tls,
            Bearer::Udp => &mut self.metrics.gateway_points_udp,
            Bearer::DtlsOverUdp => &mut self.metrics.gateway_points_dtls,
        }
    }

    /// The timers of one connection point.
    pub(crate) fn check_connection_point(&mut self, index: u32) {
        let Some(key) = self.gateway.points.key_at(index) else { return };
        let point = &self.gateway.points[key];
        if point.bearer.is_datagrams() {
            return self.check_association(key);
        }
        if point.stage == Stage::Establishing
            && point.connection.is_none()
            && self.now_ns >= point.deadline_ns
        {
            self.report_released(key, ReleaseCause::TcpEstablishmentFailure);
        }
    }
}
