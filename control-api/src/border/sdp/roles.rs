//! Who connects and who is client of TLS: `a=setup` (RFC 4145, 6135, 7345), and for BFCP who has
//! offered (RFC 8856 section 8).

use mrfp_core::mp::Establishment;

use super::super::Refusal;
use super::not_acceptable;
use super::read::{Kind, Media};

/// `a=setup` (RFC 4145 section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Whoever says so connects.
    Active,
    /// The other one does.
    Passive,
    /// Either, in offers.
    ActPass,
    /// Nobody, for now.
    HoldConn,
}

/// When we connect, where one party has to be connected to and the other connects to us (TS 23.334 clause
/// 5.11.2.2.1: "either instructing … to start a TCP connection establishment …; or … to use an incoming
/// TCP connection establishment request … as a trigger").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// As soon as we know where to.
    AtOnce,
    /// When the other party's connection has come in.
    IncomingTriggers,
}

impl Setup {
    pub(super) fn parse(value: &str) -> Option<Self> {
        [Self::Active, Self::Passive, Self::ActPass, Self::HoldConn]
            .into_iter()
            .find(|setup| setup.as_str() == value.trim())
    }

    /// The attribute's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
            Self::HoldConn => "holdconn",
        }
    }
}

/// What an offer of this party means.
pub(super) fn offered(media: &Media) -> Setup {
    match media.setup {
        // RFC 6135 section 4.2.1: "as if it did not contain an a=setup attribute".
        Some(Setup::HoldConn) if media.kind != Kind::Bfcp => Setup::Active,
        Some(setup) => setup,
        // RFC 4145 section 4, RFC 4975 section 5.4.
        None => Setup::Active,
    }
}

/// What we offer to the answerer for a stream that ends here: whatever it can do. We connect and can be
/// connected to, and who is behind a NAT chooses `active`. But two parties that both only listen would
/// wait for each other (RFC 4975 section 5.4: who connects sends first). `only_active`: the answerer is not
/// to connect.
pub(super) fn to_offer(offered: Setup, only_active: bool) -> Setup {
    match offered {
        Setup::Active | Setup::ActPass if only_active => Setup::Active,
        Setup::Passive => Setup::Passive,
        Setup::HoldConn => Setup::HoldConn,
        Setup::Active | Setup::ActPass => Setup::ActPass,
    }
}

/// What we offer to the answerer where (D)TLS is the parties' own: what the offerer does, as TLS roles
/// follow from it. An offerer that may be behind a NAT is not given the chance to be passive.
pub(super) fn to_offer_passed(offered: Option<Setup>, is_behind_nat: bool) -> Option<Setup> {
    match offered {
        Some(Setup::ActPass) if is_behind_nat => Some(Setup::Active),
        offered => offered,
    }
}

/// What we answer to the offerer for a stream that ends here: it connects wherever it can, so that a NAT
/// before it is no obstacle.
pub(super) fn to_answer(offered: Setup) -> Setup {
    match offered {
        Setup::Active | Setup::ActPass => Setup::Passive,
        Setup::Passive => Setup::Active,
        Setup::HoldConn => Setup::HoldConn,
    }
}

/// What the other one does.
pub(super) fn reversed(setup: Setup) -> Setup {
    match setup {
        Setup::Active => Setup::Passive,
        Setup::Passive => Setup::Active,
        Setup::ActPass | Setup::HoldConn => setup,
    }
}

/// What the answer means for its party, given what it was offered (RFC 4145 section 4.1).
pub(super) fn answered(media: &Media, offered: Setup) -> Result<Setup, Refusal> {
    let answered = match media.setup {
        None => Setup::Passive,
        Some(Setup::HoldConn) if media.kind != Kind::Bfcp => Setup::Passive,
        Some(setup) => setup,
    };
    let fits = match (offered, answered) {
        (_, Setup::ActPass) => false,
        (_, Setup::HoldConn) | (Setup::ActPass, _) => true,
        (Setup::Active, answered) => answered == Setup::Passive,
        // Who knows nothing of the attribute has not chosen.
        (Setup::Passive, answered) => answered == Setup::Active || media.setup.is_none(),
        (Setup::HoldConn, _) => false,
    };
    if fits {
        return Ok(answered);
    }
    Err(not_acceptable(format!(
        "Line {}: a=setup:{} does not answer a=setup:{}",
        media.line_number,
        answered.as_str(),
        offered.as_str()
    )))
}

/// How the connections of the two sides come about, given what each party does.
pub(super) fn establishment(
    offerer: Setup,
    answerer: Setup,
    start: Start,
) -> (Establishment, Establishment) {
    let is_held = offerer == Setup::HoldConn || answerer == Setup::HoldConn;
    let of = |own: Setup, other: Setup| match own {
        _ if is_held => Establishment::Incoming,
        Setup::Passive if other == Setup::Active && start == Start::IncomingTriggers => {
            Establishment::WhenOtherComesIn
        }
        Setup::Passive => Establishment::AtOnce,
        Setup::Active | Setup::ActPass | Setup::HoldConn => Establishment::Incoming,
    };
    (of(offerer, answerer), of(answerer, offerer))
}
