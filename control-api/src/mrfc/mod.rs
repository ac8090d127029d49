//! Call and conference logic, sans-IO: events in, actions out. It knows no SIP: whoever feeds it
//! (the SIP adapter, an HTTP API, later H.248) speaks in these terms.

mod administration;
mod admission;
mod call;
mod conference_document;
mod conference_state;
mod config;
mod counters;
mod dialling;
mod ending;
mod engine;
mod floor_session;
mod floors;
mod kept_tickets;
mod keying;
mod keys;
mod media_plane;
mod offering;
mod offers;
mod realms;
mod recovery;
mod refer;
mod reinvite;
mod rekeying;
mod rooms;
mod shards;
mod subscriptions;
mod tickets;
mod timers;

use std::net::IpAddr;
use std::time::Duration;

use mrfp_core::mp;

use crate::mikey::uri::normalise;

pub use administration::{Administration, AdministrationError};
pub use conference_document::CONFERENCE_INFO;
pub use config::{
    ChatPolicy, FloorsPolicy, FocusConfig, KMS_TIMEOUT_NS, MrfcConfig, RETRY_AFTER,
    ROOM_NAME_SIZE_MAX, ReferPolicy, RoomFloor, RoomPolicy, SHARD_TIMEOUT_NS, SUBTRACT_TIMEOUT_NS,
    SecurityPolicy, ShardDescription, SubscriptionPolicy,
};
pub use counters::{HangUpCause, MrfcCounters};
pub use dialling::{
    DialPolicies, DialPolicy, DialRequest, DialSecurity, TicketOpener, TicketSource,
};
pub use engine::{Mrfc, Now};
pub use offering::DIAL_TIMEOUT_NS;
pub use realms::{Network, REALM_DEFAULT, Realms};
pub use rekeying::REANSWER_TIMEOUT_NS;
pub use rooms::{MemberState, MemberView, RoomView};
pub(crate) use shards::Shards;
pub use subscriptions::DEPARTED_SHOWN_NS;
pub use tickets::{Certified, InitiatorConfig};

/// One call, named by the front end that owns it; unique in the node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// One subscription, named by the front end that owns it; unique in the node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriptionId(pub u64);

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The URI without parameters (`sip:alice@example.com`).
    pub uri: String,
    /// The name for people that came with it.
    pub display_name: Option<String>,
    /// Others are not to learn the URI (RFC 3323).
    pub anonymous: bool,
    /// Where its signalling comes from, which tells its realm.
    pub source: Option<IpAddr>,
}

impl From<&str> for Caller {
    fn from(uri: &str) -> Self {
        Self { uri: uri.to_owned(), display_name: None, anonymous: false, source: None }
    }
}

impl Caller {
    /// One user, however its URI is spelt.
    fn key(&self) -> String {
        normalise(&self.uri)
    }

    /// What the others in a conference know it as (RFC 4575 section 5.6): its own URI, or one that
    /// is as unique and tells nothing.
    fn entity(&self, call: CallId) -> String {
        if self.anonymous {
            return format!("sip:anonymous{}@anonymous.invalid", call.0);
        }
        self.key()
    }
}

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
        /// The caller.
        from: Caller,
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
    /// Somebody wants to know what happens in a conference. Answered by exactly one
    /// [`Action::AnswerSubscribe`] and, where that grants it, notifications.
    Subscribe {
        /// The new subscription.
        subscription: SubscriptionId,
        /// User part of the Request-URI, unescaped: the room.
        room: String,
        /// Who asks.
        from: Caller,
        /// The answered call in whose dialog it asks.
        within: Option<CallId>,
        /// How long; zero: only once.
        expires: Option<Duration>,
    },
    /// A subscription is refreshed, or ended with zero. Answered as the first time.
    Resubscribe {
        /// Which.
        subscription: SubscriptionId,
        /// How long from now.
        expires: Option<Duration>,
    },
    /// What became of a notification: each one that leaves a subscription active has its own.
    Notified {
        /// Whose.
        subscription: SubscriptionId,
        /// It was taken; else the subscription is over.
        delivered: bool,
    },
    /// Somebody refers the conference to somebody else (RFC 3515). Answered like
    /// [`Event::Subscribe`]; the notifications tell how far it is.
    Refer {
        /// The subscription that this makes.
        subscription: SubscriptionId,
        /// User part of the Request-URI, unescaped: the room.
        room: String,
        /// Who asks.
        from: Caller,
        /// The answered call in whose dialog it asks.
        within: Option<CallId>,
        /// The call this leads to, should it lead to one.
        call: CallId,
        /// Whom to call or to throw out; with parameters, without headers and method.
        target: String,
        /// Which of both.
        method: ReferMethod,
    },
    /// It rings where [`Action::Dial`] led.
    Ringing {
        /// Which call.
        call: CallId,
    },
    /// The answer to an offer of ours came: in the 200 to our INVITE, or in the ACK to our 200.
    Answered {
        /// Which call.
        call: CallId,
        /// The SDP answer.
        answer: Option<Vec<u8>>,
    },
    /// What has become of [`Action::Reinvite`].
    Reanswered {
        /// Which call.
        call: CallId,
        /// The SDP answer, or the SIP status of the refusal: the session is as it was.
        answer: Result<Vec<u8>, u16>,
    },
    /// A call of ours came to nothing.
    DialFailed {
        /// Which call.
        call: CallId,
        /// Why: the SIP status.
        status: u16,
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
        /// RESOLVE_RESP, REQUEST_RESP or a MIKEY Error message, `None` where there was no answer.
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
    /// A call to the factory has made this room: its URI is the Contact from now on. Comes before
    /// the answer.
    Room {
        /// Which call.
        call: CallId,
        /// User part of the conference URI.
        room: String,
    },
    /// Answer a request to subscribe.
    AnswerSubscribe {
        /// Which.
        subscription: SubscriptionId,
        /// How.
        answer: SubscribeAnswer,
    },
    /// Notify a subscriber.
    Notify {
        /// Which.
        subscription: SubscriptionId,
        /// Of what.
        notice: Notice,
    },
    /// Call somebody with this offer. [`Event::Answered`] or [`Event::DialFailed`] follows, unless
    /// it is hung up before.
    Dial {
        /// The new call.
        call: CallId,
        /// Whom.
        target: String,
        /// User part of our Contact.
        room: String,
        /// As whom: the conference URI.
        uri: String,
        /// Who wanted it (RFC 3892).
        referred_by: Option<String>,
        /// The SDP offer.
        sdp: Vec<u8>,
    },
    /// Change an answered call by a new offer. [`Event::Reanswered`] follows, unless the call ends.
    Reinvite {
        /// Which.
        call: CallId,
        /// The SDP offer.
        sdp: Vec<u8>,
    },
    /// Hang an answered call up, or give up one of ours that is unanswered.
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
        /// RESOLVE_INIT, or REQUEST_INIT for a call of ours.
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

/// The answer to a request to subscribe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubscribeAnswer {
    /// A notification follows.
    Granted {
        /// How long it lasts.
        expires: Duration,
    },
    /// 423: it is to last too short a time.
    TooBrief {
        /// The shortest that is taken.
        expires_min: Duration,
    },
    /// Not this time.
    Refused {
        /// SIP status code: 403, 404, 480, 481, 503.
        status: u16,
        /// It may be granted later.
        retry: bool,
    },
}

/// What a subscriber is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The subscription goes on.
    Active {
        /// For so long.
        expires: Duration,
        /// What is new.
        content: Content,
    },
    /// The subscription is over; nobody hears what becomes of this notification.
    Terminated {
        /// Why (RFC 6665 section 4.1.3).
        reason: &'static str,
        /// The last word.
        content: Option<Content>,
    },
}

/// Body of a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Document of the type [`CONFERENCE_INFO`].
    ConferenceInfo(Vec<u8>),
    /// How far a REFER is: the SIP status, to be sent as `message/sipfrag`.
    Status(u16),
}

/// What a REFER asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferMethod {
    /// To call somebody.
    Invite,
    /// To throw somebody out.
    Bye,
}
