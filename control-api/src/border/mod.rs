//! The border: IMS-ALG towards an access network (TS 23.334), IBCF towards other networks (TS 29.162). Two
//! parts that meet here. [`Border`] knows media: offers and answers go through it, are changed as
//! the clauses say, and its commands make the media plane follow. It knows no SIP, as the MRFC does
//! not; whoever feeds it (the B2BUA, later others) speaks in these terms, and it does no I/O.
//!
//! A call has two legs, each on a side. Whatever a party offers is told with [`Event::Offer`], and goes on
//! to the other party as [`Action::Offer`] says; what that answers with [`Event::Answer`], and back as
//! [`Action::Answer`] says. Which message carries it (INVITE, UPDATE, PRACK, a reliable provisional response,
//! 200, ACK) is the front's affair.

pub mod b2bua;
mod call;
mod config;
mod counters;
mod ending;
mod engine;
mod exchange;
mod media_plane;
pub mod sdp;
mod view;

use std::net::IpAddr;
use std::time::Duration;

use mrfp_core::mp;

pub use call::PointState;
pub use config::{BorderConfig, Nat, Side};
pub use counters::{BorderCounters, Carried};
pub use ending::release_name;
pub use engine::Border;
pub use view::{CallState, CallView, PointView, StreamView};

/// One call through the border, named by the front that owns it; unique in the node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BorderCallId(pub u64);

/// One of the configured sides: 0 and 1, in the order of [`SideRole`]s.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SideRole {
    /// Of an IMS-ALG: where the UEs are.
    Access,
    /// Of an IMS-ALG: the network that serves them.
    Core,
    /// Of an IBCF: the own network.
    Own,
    /// Of an IBCF: another one.
    Foreign,
}

/// One end of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Leg {
    /// Who called.
    Caller,
    /// Who was called.
    Callee,
}

impl Leg {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// One exchange of an offer and its answer; unique within its call, later ones greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExchangeId(pub u32);

/// What the registration of a UE has agreed of media security (the `mediasec` mechanisms of TS 24.229
/// clause 5.2.2), for the end of a call on the access side.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MediaSecurity {
    /// `msrp-tls`.
    pub msrp_tls: bool,
    /// `bfcp-tls`.
    pub bfcp_tls: bool,
    /// `udptl-dtls`.
    pub udptl_dtls: bool,
}

/// What is known of the ends of a call when it begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Party {
    /// On which side.
    pub side: SideRole,
    /// Where its signalling comes from or goes to; media from there is the party's own, whatever its SDP says.
    pub signalling: Option<IpAddr>,
    /// What its registration has agreed; nothing where there was none, and on sides without UEs.
    pub security: MediaSecurity,
}

/// What happens to the border's media.
#[derive(Debug)]
pub enum Event {
    /// A call begins, its SDP may still be to come.
    Begun {
        /// The new call.
        call: BorderCallId,
        /// Who calls.
        caller: Party,
        /// Who is called.
        callee: Party,
    },
    /// The next hop is another one than the call began with (fail-over): where the callee's signalling
    /// goes now.
    Rerouted {
        /// Which.
        call: BorderCallId,
        /// The party as it is now.
        callee: Party,
    },
    /// A party offers. Answered by exactly one [`Action::Offer`].
    Offer {
        /// Which call.
        call: BorderCallId,
        /// Names the exchange.
        exchange: ExchangeId,
        /// Whose offer.
        from: Leg,
        /// The SDP.
        sdp: Vec<u8>,
    },
    /// The other party answers the offer it was sent. Answered by exactly one [`Action::Answer`]. The same
    /// exchange may be answered again (an unreliable provisional response and the 200; another branch of a
    /// fork): the last one holds.
    Answer {
        /// Which call.
        call: BorderCallId,
        /// Which exchange.
        exchange: ExchangeId,
        /// The SDP.
        sdp: Vec<u8>,
    },
    /// The offer was refused by the other party, or taken back: everything is as it was before it.
    Withdrawn {
        /// Which call.
        call: BorderCallId,
        /// Which exchange.
        exchange: ExchangeId,
    },
    /// The call is over, however; nothing is due any more.
    Ended {
        /// Which.
        call: BorderCallId,
    },
    /// A shard answered or notified.
    Mp {
        /// Which shard.
        shard: mp::ShardId,
        /// What.
        event: mp::Event,
    },
    /// The operator stops the node: new calls are refused with 503, the rest is released.
    Shutdown,
}

/// What the border wants done.
#[derive(Debug)]
pub enum Action {
    /// What becomes of an offer.
    Offer {
        /// Which call.
        call: BorderCallId,
        /// Which exchange.
        exchange: ExchangeId,
        /// The SDP for the other party; or the refusal for the one that has offered.
        outcome: Result<Vec<u8>, Refusal>,
    },
    /// What becomes of an answer.
    Answer {
        /// Which call.
        call: BorderCallId,
        /// Which exchange.
        exchange: ExchangeId,
        /// The SDP for the party that has offered; or why the answer cannot be used: the front gives up
        /// the change, or, where the session has not been established before, the call.
        outcome: Result<Vec<u8>, Refusal>,
    },
    /// Release both legs: CANCEL or BYE, whatever is due. [`Event::Ended`] follows.
    Release {
        /// Which.
        call: BorderCallId,
        /// Reason header value (RFC 3326), e.g. `Q.850;cause=41;text="TLS handshake failed"`.
        reason: String,
    },
    /// Give a command to a shard.
    Command {
        /// Which shard.
        shard: mp::ShardId,
        /// What.
        command: mp::Command,
    },
    /// After [`Event::Shutdown`]: no call and no Termination is left.
    Drained,
}

/// Why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// SIP status code: 488, 503, …
    pub status: u16,
    /// Warning header: code and text (RFC 3261 section 20.43).
    pub warning: Option<(u16, String)>,
    /// Retry-After.
    pub retry_after: Option<Duration>,
}
