//! What the border does to session descriptions: which profile each m-line gets, what the other party
//! reads in it, and what the media plane is told. Pure code: text in, text out. Lines that no clause touches
//! stay as they are, byte for byte and in their order.
//!
//! The walk of an exchange. [`read`] takes the offer apart; [`Exchange::decide`] gives every m-line its
//! [`Profile`]; [`bearer`] says what to reserve for it on either side. With our ends known (a [`Plan`] for
//! each m-line) [`Exchange::offer`] writes what the answerer is sent. Its answer, read, goes into
//! [`Exchange::answer`], which writes what the offerer is sent and says how both connection points are
//! configured. In a later exchange [`is_afresh`] tells whether a party has asked for a new connection.

mod bandwidth;
mod lines;
mod profile;
mod read;
mod rewriting;
mod roles;

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mrfp_core::mp::{RemoteConnectionPoint, Source};
use mrfp_protocol::tls::Fingerprint;

use super::{Refusal, SideRole};

pub use bandwidth::Overhead;
pub use lines::Change;
pub use profile::{Profile, bearer};
pub use read::{Description, EndToAccessEdge, Kind, Media, Msrp, is_afresh, read};
pub use roles::{Setup, Start};

/// What the operator has decided, for all calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// MSRP is protected up to the access edge also where no registration has said so (TR 29.828 clause
    /// 4.1.1 b, the option for RCS 5.1).
    pub rcs_compat: bool,
    /// m-lines that are neither MSRP, BFCP nor T.38 are refused; otherwise they pass as they are.
    pub refuse_other_media: bool,
    /// The address in `o=` is ours, too.
    pub hide_topology: bool,
    /// When we connect where it is up to us.
    pub start: Start,
    /// Offers carry `a=dtls-id`, as TS 23.334 has it from a draft, in place of `a=tls-id` (RFC 8842).
    pub dtls_id: bool,
    /// What protection adds to the bandwidth.
    pub overhead: Overhead,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rcs_compat: false,
            refuse_other_media: false,
            hide_topology: true,
            start: Start::AtOnce,
            dtls_id: false,
            overhead: Overhead::default(),
        }
    }
}

/// One of the two parties of an exchange, as the border sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// On which side it is.
    pub role: SideRole,
    /// From where its media may come. Anything but [`Source::Address`] means that it may be behind a NAT:
    /// it is made to connect wherever it agrees to.
    pub source: Source,
    /// Where CEMA is offered, this party sees the other one's path as it is, but for its scheme. An answerer
    /// that may be behind a NAT, and then turns out to know no CEMA, is not reached before the offerer has
    /// offered again (RFC 6714 section 4.2). Otherwise it always sees our path, and messages are changed.
    pub keeps_path: bool,
}

/// One exchange of an offer and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The operator's.
    pub rules: &'a Rules,
    /// Who offers.
    pub offerer: Peer,
    /// Who answers.
    pub answerer: Peer,
}

/// What is done with one m-line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How.
    pub profile: Profile,
    /// Our ends; `None` where the media is not anchored here ([`Profile::is_anchored`]).
    pub ends: Option<Ends>,
}

/// Our ends of one media stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The one that the offerer reaches.
    pub offerer: End,
    /// The one that the answerer reaches.
    pub answerer: End,
}

/// A connection point of ours, as `ConnectionPointReserved` told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Where the peer is to connect or send to.
    pub address: SocketAddr,
    /// Of our certificate, where (D)TLS ends there.
    pub fingerprint: Option<Fingerprint>,
    /// Names the (D)TLS association ([`new_tls_id`]); changed whenever it begins afresh.
    pub tls_id: String,
}

/// An `o=` line that the border is answerable for: what a party was sent last. Whoever sends a changed
/// description increases its version (RFC 3264 section 8), and the border changes what others have sent.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sent {
    version: u64,
    origin: Option<IpAddr>,
    sdp: Vec<u8>,
}

/// A description as the other party is to see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewritten {
    text: lines::Text,
}

impl Rewritten {
    /// What is sent.
    #[must_use]
    pub fn sdp(&self) -> Vec<u8> {
        self.text.written()
    }

    /// Every line in order, with what became of it and why.
    #[must_use]
    pub fn lines(&self) -> Vec<Change> {
        self.text.changes()
    }
}

/// How the connection points of one media stream are configured. Where the connection of a BFCP stream stays
/// ([`is_afresh`]), so does its role in TLS, whoever has offered this time (RFC 8856 section 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    /// The offerer's side.
    pub offerer: RemoteConnectionPoint,
    /// The answerer's.
    pub answerer: RemoteConnectionPoint,
}

/// The outcome of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// For the party that has offered.
    pub rewritten: Rewritten,
    /// One for each m-line of the offer; `None` where the stream does not exist after this exchange, or is
    /// not anchored here.
    pub media: Vec<Option<Configured>>,
}

/// A value for `a=tls-id` (RFC 8842 section 4): 144 bits of `random`, as 24 characters.
pub fn new_tls_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 18];
    random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// 488 with what is wrong (RFC 3261 sections 21.4.26 and 20.43).
fn not_acceptable(text: impl Into<String>) -> Refusal {
    Refusal { status: 488, warning: Some((399, text.into())), retry_after: None }
}
