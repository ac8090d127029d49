//! The floor control server (RFC 8855; TS 23.333 clause 5.20.4): who may speak, for all conferences
//! of a shard. It does no I/O and reads no clock: time is an argument, and what it has to say goes
//! to an [`Output`].
//!
//! # Who calls what
//!
//! **The control plane**, by commands of the shard. [`FloorServer::open_conference`],
//! [`add_floor`](FloorServer::add_floor), then for each party that negotiated BFCP
//! [`add_user`](FloorServer::add_user) with the user ID of its SDP (`a=userid`), which gives the
//! [`Participant`] that everything else is said about; [`remove_user`](FloorServer::remove_user) when
//! its call ends, [`close_conference`](FloorServer::close_conference) with the Context. While it runs:
//! [`floors`](FloorServer::floors) lists, [`grant`](FloorServer::grant),
//! [`revoke`](FloorServer::revoke), [`set_chair`](FloorServer::set_chair) and
//! [`set_policy`](FloorServer::set_policy) decide. Conference, floor and user are named by the
//! numbers they have in SDP and on the wire.
//!
//! **The connections of the shard.** A connection by TLS-PSK (or with a certificate) is known by its
//! Termination, so its participant is known from the start. One in the clear, and a datagram from an
//! address nobody knows, names conference and user in its first message: [`FloorServer::identify`] finds the
//! participant, or writes the Error that is to be sent back. Then:
//!
//! - [`connect`](FloorServer::connect) once, when connection and participant have found each other,
//!   with the [`Channel`] they have;
//! - [`receive`](FloorServer::receive) for every message [`Framer`](mrfp_protocol::bfcp::Framer) cuts
//!   from a stream (`REQUEST_BYTES_MAX` at most), and for every datagram; its answer says whether to go on or to close
//!   after what has been sent. [`receive_too_long`](FloorServer::receive_too_long) where the framer
//!   refuses;
//! - [`disconnect`](FloorServer::disconnect) when the connection is gone;
//! - [`flush`](FloorServer::flush) at the end of a turn in which anything was called: notifications
//!   are of states, not of steps, so that what changed several times in a turn is told once;
//! - [`expire`](FloorServer::expire) as soon as [`next_deadline_ns`](FloorServer::next_deadline_ns) has
//!   passed (holding times, graces, retransmissions); nothing is due earlier.
//!
//! **The room.** [`FloorServer::holds`] says whether a user holds a floor now; and
//! [`Output::holder_changed`] tells of every change at the moment it takes effect, before any message
//! about it leaves.
//!
//! # What it does
//!
//! A request names one floor or several and gets all of them at once or none. It is *Pending* while
//! a chair has to decide, *Accepted* in the queue of each of its floors, then *Granted*. A floor that
//! is free is never kept from somebody who waits for nothing else: a request for several floors
//! that cannot have all of them is passed by those behind it. A member that is away is passed, too,
//! and keeps its place.
//!
//! A participant whose connection is lost keeps requests and floors for a grace, and takes up where
//! it was by connecting again: what it subscribed to, and its own requests, are told anew. A Goodbye
//! gives everything back at once.
//!
//! A chair is subscribed to its floor as long as it is the chair. What it may do to a request
//! concerns its own floors; a floor it grants that is full is taken from whoever has held it longest
//! (RFC 8855 section 4.2).
//!
//! # Over UDP
//!
//! Version 2. The server's own transactions have identifiers of their own, one is under way at a
//! time for each participant, repeated until it is acknowledged (T1, adaptive); the answer to a
//! participant's last request is kept for T2 and repeated when the request is. What cannot be told
//! while a transaction is under way is told afterwards as it is then. A participant that does not
//! acknowledge is lost like one whose connection broke ([`Output::close`]).

mod association;
mod chair;
mod compose;
mod conference;
mod control;
mod counters;
mod granting;
mod member;
mod notify;
mod output;
mod policy;
mod receive;
mod request;
mod requests;
mod timers;

use std::collections::HashMap;

use mrfp_io::Key;

use crate::table::Table;
use association::SpareMemory;
use conference::Conference;
use member::Member;
use request::Request;
use timers::Timers;

pub use control::{FloorView, RequestView};
pub(crate) use counters::FLOOR_COUNTERS;
pub use counters::{FloorCounters, WAIT_BOUNDS_NS};
pub use output::{HolderChange, Output};
pub use policy::{
    Channel, ConferencePolicy, FLOORS_PER_CONFERENCE_MAX, FLOORS_PER_REQUEST_MAX, FloorLimits,
    FloorOrder, FloorPolicy, NAME_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_PER_FLOOR_MAX, Refusal,
    ThirdPartyRequests, User,
};
pub use receive::Received;

/// The floors of all conferences of a shard.
pub struct FloorServer {
    limits: FloorLimits,
    conferences: Table<Conference>,
    conference_by_id: HashMap<u32, Key>,
    members: Table<Member>,
    requests: Table<Request>,
    /// Floors whose subscribers are to be told, by conference and place.
    changed_floors: Vec<(Key, usize)>,
    /// Requests whose parties are to be told.
    changed_requests: Vec<Key>,
    /// Members that have something to be told.
    behind: Vec<Key>,
    /// Members that are back, and may be granted what they wait for.
    resumed: Vec<Key>,
    timers: Timers,
    counters: FloorCounters,
    /// Memory of requests that are over.
    spare_requests: Vec<Request>,
    spare_memory: SpareMemory,
    /// Where messages are written.
    scratch: Box<[u8]>,
    /// Where datagrams are, as long as one may be.
    datagram: Box<[u8]>,
}

/// A user of a conference, as long as it is one. Another one with the same user ID is somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Participant(Key);

impl FloorServer {
    /// Without conferences. What it needs for itself it takes at once, and addresses for all users there
    /// may be, so that they never move.
    ///
    /// # Panics
    /// A limit is beyond what a message can express.
    #[must_use]
    pub fn new(limits: FloorLimits) -> Self {
        assert!(limits.requests_per_user_max <= REQUESTS_PER_FLOOR_MAX);
        assert!(limits.datagram_bytes_max >= DATAGRAM_BYTES_MIN);
        Self {
            conferences: Table::new(limits.conferences_max),
            conference_by_id: HashMap::new(),
            members: Table::reserved(limits.users_max),
            requests: Table::new(limits.requests_max),
            changed_floors: Vec::new(),
            changed_requests: Vec::new(),
            behind: Vec::new(),
            resumed: Vec::new(),
            timers: Timers::default(),
            counters: FloorCounters::default(),
            spare_requests: Vec::new(),
            spare_memory: SpareMemory::default(),
            scratch: vec![0; compose::MESSAGE_BYTES_MAX].into(),
            datagram: vec![0; limits.datagram_bytes_max].into(),
            limits,
        }
    }

    /// Conferences that are open.
    #[must_use]
    pub fn conferences(&self) -> usize {
        self.conferences.len()
    }

    /// Users of all conferences, connected or not.
    #[must_use]
    pub fn users(&self) -> usize {
        self.members.len()
    }

    /// The Termination of a user ([`User::termination`]), as long as it is one.
    #[must_use]
    pub fn termination(&self, participant: Participant) -> Option<Key> {
        self.members.get(participant.0).map(|member| member.user.termination)
    }

    /// Whether what comes for a user must come by TLS or DTLS from now on ([`User::secured`]).
    pub fn set_secured(&mut self, participant: Participant, secured: bool) {
        if let Some(member) = self.members.get_mut(participant.0) {
            member.user.secured = secured;
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &FloorCounters {
        &self.counters
    }
}

impl std::fmt::Debug for FloorServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("FloorServer");
        shown.field("conferences", &self.conferences.len()).field("users", &self.members.len());
        shown.field("requests", &self.requests.len()).finish_non_exhaustive()
    }
}

/// RFC 8855 section 6.2.3: room for a header and something behind it, well below any path MTU.
const DATAGRAM_BYTES_MIN: usize = 64;
