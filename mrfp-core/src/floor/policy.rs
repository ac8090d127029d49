//! What is allowed, and how much of it.

use mrfp_io::Key;
use mrfp_protocol::bfcp::Transport;

/// How much a shard holds. What goes beyond is refused, as is said with each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorLimits {
    /// Conferences with floors; [`Refusal::Exhausted`].
    pub conferences_max: usize,
    /// Users of all of them; [`Refusal::Exhausted`].
    pub users_max: usize,
    /// Floor requests of all of them that are ongoing or whose end has not been told; Error 8.
    pub requests_max: usize,
    /// Ongoing requests of one user in its conference, over all floors; Error 8. What a floor
    /// allows is [`FloorPolicy::requests_per_user_max`].
    pub requests_per_user_max: usize,
    /// Longest datagram, for UDP; longer messages are sent in fragments (RFC 8855 section 6.2.3).
    pub datagram_bytes_max: usize,
}

impl Default for FloorLimits {
    fn default() -> Self {
        Self {
            conferences_max: 20_000,
            users_max: 100_000,
            requests_max: 100_000,
            requests_per_user_max: 16,
            datagram_bytes_max: 1200,
        }
    }
}

/// Floors of one conference: what a user is subscribed to is one word.
pub const FLOORS_PER_CONFERENCE_MAX: usize = 64;
/// Floors of one request: their states fit FLOOR-REQUEST-INFORMATION, whose length is one byte.
/// Beyond that Error 14.
pub const FLOORS_PER_REQUEST_MAX: usize = 16;
/// Ongoing requests for one floor: a FloorStatus lists them, and a queue position is one byte.
/// Beyond that Error 8.
pub const REQUESTS_PER_FLOOR_MAX: usize = 64;
/// Longest message of a client: a request for the most floors, or a chair's action about them,
/// with the longest texts and room for extensions. Beyond that Error 13.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// Longest display name or URI of a user that is told to others; longer ones are not told. Each
/// fits, alone, into FLOOR-REQUEST-INFORMATION beside what must stand there.
pub const NAME_BYTES_MAX: usize = 200;

/// What holds for a conference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConferencePolicy {
    /// How long a participant whose connection is lost keeps its requests and floors.
    pub grace_ns: u64,
    /// Who may ask for a floor for somebody else (BENEFICIARY-ID); anybody else gets Error 5.
    pub third_party_requests: ThirdPartyRequests,
}

/// Who may request floors for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThirdPartyRequests {
    /// Nobody.
    Nobody,
    /// The chairs of all floors that are requested.
    Chairs,
    /// Every user.
    Everybody,
}

/// By which rules a floor is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorPolicy {
    /// Who gets it next.
    pub order: FloorOrder,
    /// How many may hold it at the same time; at least 1.
    pub holders_max: u16,
    /// Ongoing requests of one user for this floor; Error 8. At least 1.
    pub requests_per_user_max: u16,
    /// After so long it is taken away; `None`: never.
    pub holding_max_ns: Option<u64>,
}

/// Who gets a floor next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloorOrder {
    /// Who asked first.
    FirstComeFirstServed,
    /// Who asked with the highest PRIORITY, among those who asked first.
    Priority,
    /// Every request is for the chair to decide, or for the control plane where there is none.
    /// What the chair accepts is served in the order it says.
    Chair,
}

/// A user of a conference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// `a=userid` of its SDP, unique in the conference.
    pub user_id: u16,
    /// What others see of it; empty: nothing.
    pub display_name: String,
    /// Where others may reach it; empty: nowhere.
    pub uri: String,
    /// It negotiated TLS or DTLS: what comes for it in the clear gets Error 9 or 11.
    pub secured: bool,
    /// The Termination that [`Output`](super::Output) is to send to.
    pub termination: Key,
}

/// How a participant is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channel {
    /// TCP or UDP.
    pub transport: Transport,
    /// There is TLS or DTLS on it.
    pub secured: bool,
}

/// Why the control plane did not get what it asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is as much of it as there may be.
    Exhausted,
    /// That number is taken.
    InUse,
    /// There is no such conference, floor or user.
    Unknown,
    /// A number that must be at least 1 is 0.
    Policy,
}
