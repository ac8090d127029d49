//! Call and conference logic, sans-IO: events in, actions out. It knows no SIP: whoever feeds it
//! (the SIP adapter, an HTTP API, later H.248) speaks in these terms.

mod admission;
mod call;
mod config;
mod counters;
mod ending;
mod engine;
mod keys;
mod offers;
mod realms;
mod reinvite;
mod rooms;
mod timers;

use std::time::Duration;

use mrfp_core::mp;

pub use config::{
    ChatPolicy, KMS_TIMEOUT_NS, MrfcConfig, RETRY_AFTER, ROOM_NAME_SIZE_MAX, RoomPolicy,
    SHARD_TIMEOUT_NS, SUBTRACT_TIMEOUT_NS, SecurityPolicy, ShardDescription,
};
pub use counters::{HangUpCause, MrfcCounters};
pub use engine::{Mrfc, Now};
pub use realms::{Network, REALM_DEFAULT, Realms};
pub use rooms::{MemberState, MemberView, RoomView};

/// One call, named by the front end that owns it; unique in the node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// One pending question to the KMS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResolveId(pub u64);

/// What happens to the MRFC.
#[derive(Debug)]
pub enum Event {
    /// A party calls. Answered by exactly one [`Action::Answer`].
    Invite {
        /// The new call.
        call: CallId,
        /// User part of the Request-URI, unescaped: the room.
        room: String,
        /// The caller's URI without parameters (`sip:alice@example.com`).
        from: String,
        /// The called URI without parameters.
        to: String,
        /// The SDP offer, already known to be `application/sdp`; `None`: INVITE without a body.
        offer: Option<Vec<u8>>,
    },
    /// A party changes its session. Answered by exactly one [`Action::Answer`]; a refusal leaves
    /// the session as it was.
    Reinvite {
        /// An answered call.
        call: CallId,
        /// The new offer; `None`: re-INVITE without a body.
        offer: Option<Vec<u8>>,
    },
    /// The caller gave up before an answer, hung up, or was lost (no ACK, session timer).
    /// No answer is due; an Answer still pending is not given any more.
    Ended {
        /// Which.
        call: CallId,
    },
    /// A shard answered or notified.
    Mp {
        /// Which shard.
        shard: mp::ShardId,
        /// What.
        event: mp::Event,
    },
    /// The KMS answered (or did not).
    Resolved {
        /// Which question.
        resolve: ResolveId,
        /// RESOLVE_RESP or a MIKEY Error message, `None` where there was no answer.
        response: Option<Vec<u8>>,
    },
    /// The operator stops the node: refuse new calls with 503, hang up the rest.
    Shutdown,
}

/// What the MRFC wants done.
#[derive(Debug)]
pub enum Action {
    /// Answer the (re-)INVITE of a call.
    Answer {
        /// Which.
        call: CallId,
        /// How.
        answer: Answer,
    },
    /// Hang an answered call up.
    HangUp {
        /// Which.
        call: CallId,
        /// Reason header value (RFC 3326), e.g. `Q.850;cause=41;text="media lost"`.
        reason: String,
    },
    /// Give a command to a shard.
    Command {
        /// Which shard.
        shard: mp::ShardId,
        /// What.
        command: mp::Command,
    },
    /// Ask the KMS.
    Resolve {
        /// Names the question.
        resolve: ResolveId,
        /// RESOLVE_INIT.
        message: Vec<u8>,
    },
    /// After [`Event::Shutdown`]: no call and no Termination is left.
    Drained,
}

/// The answer to an INVITE in the terms every front end has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 200 with this SDP.
    Accepted {
        /// The SDP answer (or offer, where the INVITE had none).
        sdp: Vec<u8>,
    },
    /// Not this time.
    Refused {
        /// SIP status code: 403, 404, 486, 488, 503, …
        status: u16,
        /// Warning header: code and text (RFC 3261 section 20.43).
        warning: Option<(u16, String)>,
        /// Retry-After.
        retry_after: Option<Duration>,
    },
}
