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
