//! What the media plane is told at start: where it listens and how much it may use. Every limit is
//! named here with its reason, and the ones that depend on each other are tied by assertions.

use std::net::{IpAddr, SocketAddr};

use mrfp_protocol::tls::{
    AnnouncedProfile, CertificateConfig, PLAINTEXT_BYTES_MAX, ProfileConfig, RECORD_BYTES_MAX,
    SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, dtls,
};

use crate::relay::RelayConfig;

/// The media plane of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// One entry per shard.
    pub shards: Vec<ShardConfig>,
    /// The same for every shard.
    pub limits: Limits,
    /// TLS suites and versions.
    pub profile: ProfileConfig,
    /// TLS with certificates, if there is to be any.
    pub certificate: Option<CertificateConfig>,
    /// The MSRP relay (RFC 4976), where the node is one.
    pub relay: Option<RelayConfig>,
    /// The gateway (IMS-AGW, TrGW), where the node is one.
    pub gateway: Option<GatewayConfig>,
}

/// What the media plane of a gateway has besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayConfig {
    /// Its own media addresses, one for each side; an [`InterfaceId`](crate::mp::InterfaceId) is an index
    /// into them.
    pub interfaces: Vec<Interface>,
    /// Certificates that each shard keeps ready, one for each new Termination that protects media: as many
    /// as may be asked for at once. They are made on a thread of their own, some 5,000 a second.
    pub certificates_ready: usize,
    /// What is spoken where TLS or DTLS ends.
    pub profile: GatewayProfile,
}

/// The TLS and the DTLS of a gateway ("locally provisioned TLS profile parameters", TS 23.334 clause
/// 5.11.2.2.1). Suites are named as OpenSSL names them, most wanted first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayProfile {
    /// Of [`AnnouncedProfile::SUITES`].
    pub tls_suites: Vec<String>,
    /// Of [`dtls::Profile::SUITES`].
    pub dtls_suites: Vec<String>,
    /// Certificates are RSA's, for peers that know nothing else (RFC 7345 section 4.1 names suites of RSA
    /// alone), instead of ECDSA's.
    pub rsa_certificates: bool,
}

impl Default for GatewayProfile {
    fn default() -> Self {
        Self {
            tls_suites: AnnouncedProfile::SUITES.map(str::to_owned).to_vec(),
            dtls_suites: dtls::Profile::SUITES.map(str::to_owned).to_vec(),
            rsa_certificates: false,
        }
    }
}

/// One of the node's own media addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Address to listen on and to connect from; every Termination has a port of its own.
    pub listen: IpAddr,
    /// Address to announce instead.
    pub advertise: Option<IpAddr>,
}

/// Where one shard lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardConfig {
    /// Core to pin the thread to; `None` leaves it to the kernel.
    pub core: Option<mrfp_io::Core>,
    /// The shared media port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Address to announce to peers instead, where the one listened on is not theirs to reach
    /// (`0.0.0.0`, or behind a one-to-one NAT). The port stays.
    pub advertise: Option<IpAddr>,
}

/// Limits of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections, bound or not. Bounded by the descriptors a process gets (20,000 is a common
    /// hard limit) less what listeners, SIP and HTTP need.
    pub connections_max: usize,
    /// Terminations: one per media stream of a call.
    pub terminations_max: usize,
    /// Members of one Context. A message is copied to each of them in one turn, so this bounds the
    /// longest turn.
    pub context_members_max: usize,
    /// Connections that have not yet named their Termination. They cost a handshake each, and
    /// nobody has vouched for them.
    pub connections_unbound_max: usize,
    /// The same for one source address, so that a single source cannot use them all up.
    pub connections_unbound_per_source_max: usize,
    /// Bytes queued for one receiver before its senders are paused. Large enough for the
    /// bandwidth-delay product of a national path (100 Mbit/s at 80 ms is 1 MB).
    pub egress_bytes_max: usize,
    /// How long a lagging member of a conference of more than two may take nothing at all before it
    /// is dropped. One that reads, but too slowly, has ten times as long to catch up: a healthy
    /// member drains half of `egress_bytes_max` in two seconds at 2 Mbit/s.
    pub slow_member_grace_ns: u64,
    /// A connection whose kernel buffer takes nothing for this long is broken (any party).
    pub send_stall_timeout_ns: u64,
    /// From accept to the completed TLS handshake or, in the clear, the first request.
    pub unbound_timeout_ns: u64,
    /// From Reserve to a bound connection; covers the answer's way to the peer and its connect.
    pub establishment_timeout_ns: u64,
    /// A bound connection on which nothing arrives for this long is released.
    pub idle_timeout_ns: u64,
    /// How long the last bytes of an ending connection may take to leave.
    pub drain_timeout_ns: u64,
    /// Receive buffers of the ring, a power of two. One turn's burst must fit, or connections wait
    /// a turn (ENOBUFS).
    pub recv_buffers: u16,
    /// Bytes of each. Holds a chat message with its TLS record many times over; larger ones would
    /// lie mostly empty, as every burst of bytes takes a whole buffer.
    pub recv_buffer_size_bytes: usize,
    /// Small send buffers: one per receiver with a chat message or a response under way.
    pub send_buffers_small_max: usize,
    /// Large send buffers, each one full TLS record, made as they are needed. A burst of 256 KiB
    /// from one member (what the kernel hands over at once) must find room for every member of a
    /// full Context; beyond three quarters senders are held back.
    pub send_buffers_large_max: usize,
    /// Carry buffers: connections that may stand in the middle of a record or head at once.
    pub carry_buffers_max: usize,
    /// [`FloorLimits::requests_max`](crate::floor::FloorLimits::requests_max).
    pub floor_requests_max: usize,
    /// [`FloorLimits::requests_per_user_max`](crate::floor::FloorLimits::requests_per_user_max).
    pub floor_requests_per_user_max: usize,
    /// [`FloorLimits::datagram_bytes_max`](crate::floor::FloorLimits::datagram_bytes_max).
    pub floor_datagram_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            terminations_max: 16_384,
            context_members_max: 2_048,
            connections_unbound_max: 8_192,
            connections_unbound_per_source_max: 6_144,
            egress_bytes_max: 1024 * 1024,
            slow_member_grace_ns: 200_000_000,
            send_stall_timeout_ns: 60_000_000_000,
            unbound_timeout_ns: 5_000_000_000,
            establishment_timeout_ns: 32_000_000_000,
            idle_timeout_ns: 3_600_000_000_000,
            drain_timeout_ns: 2_000_000_000,
            recv_buffers: 2_048,
            recv_buffer_size_bytes: 8 * 1024,
            send_buffers_small_max: 32_768,
            send_buffers_large_max: 32_768,
            carry_buffers_max: 8_192,
            floor_requests_max: 100_000,
            floor_requests_per_user_max: 16,
            floor_datagram_bytes_max: 1_200,
        }
    }
}

/// Commands taken in one turn, so that a burst of calls does not hold up the media.
pub(crate) const COMMANDS_PER_TURN_MAX: usize = 64;
/// Completions handled before what they produced is flushed.
pub(crate) const COMPLETIONS_PER_TURN_MAX: usize = 1_024;
/// Copies of messages to receivers made before what the turn has produced is flushed: some 5 ms, so
/// that one member who talks fast in a room of a thousand does not silence the other rooms. A
/// completion under way is finished.
pub(crate) const COPIES_PER_TURN_MAX: u32 = 16_384;
/// Bytes moved inside the kernel before what the turn has produced is flushed: a millisecond or two. A
/// completion under way is finished.
pub(crate) const SPLICED_BYTES_PER_TURN_MAX: usize = 4 * 1024 * 1024;
/// Flights of TLS handshakes answered before what the turn has produced is flushed: some 60 us each
/// with a plain PSK and 200 us with ECDHE, so that a thousand callers at once do not make the members
/// of a conference wait for all of them.
pub(crate) const HANDSHAKE_FLIGHTS_PER_TURN_MAX: u32 = 32;
/// How often timers are looked at.
pub(crate) const HOUSEKEEPING_INTERVAL_NS: u64 = 50_000_000;
/// Every slot is looked at once in so many housekeeping turns: timers are a second exact, and a
/// turn never scans more than its share of the table.
pub(crate) const HOUSEKEEPING_SLICES: u32 = 16;
/// A lagging member that reads has this many times `slow_member_grace_ns` to catch up.
pub(crate) const SLOW_MEMBER_GRACE_FACTOR: u64 = 10;
/// Under memory pressure a lagging connection that takes nothing for this long is dropped.
pub(crate) const PRESSED_STALL_NS: u64 = 1_000_000_000;
/// A connection that has sent nothing for this long gives back what a burst has left behind; not
/// earlier, as under load the next burst is near.
pub(crate) const EGRESS_QUIET_NS: u64 = 2_000_000_000;
/// Messages one connection may have begun and not finished; the next is answered 413. Two files and a
/// chat in each of twenty sessions.
pub(crate) const MESSAGES_IN_PROGRESS_MAX: usize = 64;
/// Messages a shard knows of at once: in progress, or with an answer outstanding. 100,000 a second
/// over a path of 80 ms come to 8,000; the rest is for receivers that let their time run out.
pub(crate) const MESSAGES_MAX: usize = 262_144;
/// RFC 4975 section 7.1: a chunk longer than this has `*` as its range-end, so that it may be
/// interrupted; and none that is not its message's last should be shorter.
pub(crate) const INTERRUPTIBLE_BYTES_MIN: usize = 2_048;
/// A message larger than this waits where others overtake it. Smaller ones keep their order.
pub(crate) const LARGE_MESSAGE_BYTES_MIN: u64 = 64 * 1024;
/// How long a chunk of a large message becomes where more is queued than leaves: what a new message
/// may find ahead of it (50 ms at 10 Mbit/s), and still much longer than the head of a chunk.
pub(crate) const LARGE_CHUNK_BYTES: usize = 64 * 1024;
/// Bytes that one send may give to the kernel, give or take a buffer: as much as goes through it in
/// one piece. Nothing overtakes there.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that may overtake a large message before a chunk of it has its turn.
pub(crate) const OVERTAKING_BYTES_MAX: usize = 256 * 1024;
/// Unanswered requests on one connection, above which it lags as one does that does not read: 20,000
/// messages a second over a path of 200 ms.
pub(crate) const OUTSTANDING_MAX: usize = 4_096;
/// Of requests whose success is not answered (Failure-Report: partial) the newest so many are
/// remembered for the sake of an error.
pub(crate) const OUTSTANDING_PARTIAL_MAX: usize = 256;
/// How long a request may stay unanswered after its last byte has left (RFC 4975 section 7.1.1).
pub(crate) const TRANSACTION_TIMEOUT_NS: u64 = 30_000_000_000;
/// A connection that a session has left for one under a new key is closed when nothing has come on it
/// for this long: what the peer had under way is here then, however often it was lost before.
pub(crate) const FORMER_QUIET_NS: u64 = 2_000_000_000;
/// The same when the peer goes on using it: by then whatever was sent before the move has been answered
/// or has failed.
pub(crate) const FORMER_CONNECTION_NS: u64 = 2 * TRANSACTION_TIMEOUT_NS;
/// How long the next chunk of a message may be in coming before the message is given up (RFC 7701
/// section 6.1: the chunk reception timer, around 540 seconds).
pub(crate) const CHUNK_RECEPTION_TIMEOUT_NS: u64 = 540_000_000_000;
/// The record layer's own output waits while this many buffers do: a peer that asks for key updates
/// and reads none of them gets no more.
pub(crate) const RECORD_OUTPUT_BUFFERS_MAX: usize = 8;
/// Commands and events a shard's queues hold.
pub(crate) const QUEUE_CAPACITY: usize = 4_096;
/// Events that may wait for room in that queue before participants are read from no more: each of their
/// requests may cause one (`FloorChanged`).
pub(crate) const EVENTS_WAITING_MAX: usize = QUEUE_CAPACITY;

/// A chat message with its head, or a few responses.
pub(crate) const SEND_BUFFER_SMALL_SIZE_BYTES: usize = 2 * 1024;
/// One sealed TLS record must fit one send buffer, or `seal` would have to split it.
pub(crate) const SEND_BUFFER_LARGE_SIZE_BYTES: usize =
    SEAL_HEADROOM_BYTES + PLAINTEXT_BYTES_MAX + SEAL_TAILROOM_BYTES;
/// A carry buffer holds an incomplete TLS record, or an incomplete MSRP head with the run behind it,
/// or an incomplete BFCP message.
pub(crate) const CARRY_BUFFER_SIZE_BYTES: usize = 20 * 1024;

const _: () = assert!(CARRY_BUFFER_SIZE_BYTES >= RECORD_BYTES_MAX);
const _: () = assert!(CARRY_BUFFER_SIZE_BYTES >= crate::floor::REQUEST_BYTES_MAX);
const _: () = assert!(CARRY_BUFFER_SIZE_BYTES >= 2 * mrfp_protocol::msrp::HEAD_BYTES_MAX);
const _: () =
    assert!(SEND_BUFFER_SMALL_SIZE_BYTES > SEAL_HEADROOM_BYTES + SEAL_TAILROOM_BYTES + 1024);
