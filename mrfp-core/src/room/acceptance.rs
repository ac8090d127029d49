//! Which messages a participant takes. A room has many participants and few kinds of clients: what
//! clients accept is kept once, and decided once for all who accept the same.

use mrfp_protocol::cpim::{ContentClass, accepts};

use super::Route;
use super::rendition::{Form, Passage};
use crate::mp::CpimPolicy;

/// What a client has said in its SDP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Accepts {
    /// `a=accept-types`.
    pub(super) types: Vec<u8>,
    /// `a=accept-wrapped-types`, empty where absent.
    pub(super) wrapped_types: Vec<u8>,
    /// `a=max-size`.
    pub(super) size_bytes_max: Option<u64>,
}

/// What may be said in a room that does not take everything.
pub(super) struct TypeList(Vec<u8>);

/// The same for everybody in the room who has said the same.
#[derive(Debug)]
pub(crate) struct Acceptance {
    accepts: Accepts,
    takes_cpim: bool,
    participants: usize,
}

/// What a participant gets of a piece of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It, as the sender wrote it.
    AsSent,
    /// It, wrapped where the sender did not, or without the sender's wrapper.
    Converted,
    /// Nothing, as it does not take content of this type.
    Unacceptable,
    /// Nothing, as the message is too large for it.
    TooLarge,
    /// The end of the message: with this piece it becomes too large.
    Overflow,
    /// Nothing more: it has become too large before.
    Overflown,
}

impl Verdict {
    /// Whether it is the size that keeps a message from a participant.
    pub(crate) fn is_by_size(self) -> bool {
        match self {
            Self::TooLarge | Self::Overflow | Self::Overflown => true,
            Self::AsSent | Self::Converted | Self::Unacceptable => false,
        }
    }
}

impl TypeList {
    /// `None`: everything, so that there is nothing to look up for a message.
    pub(super) fn new(list: String) -> Option<Self> {
        let everything = list.is_empty() || list.split(' ').any(|entry| entry == "*");
        (!everything).then(|| Self(list.into_bytes()))
    }

    /// What is said about a conversation belongs to every conversation, whatever it is held in.
    pub(super) fn takes(&self, class: ContentClass, content_type: &[u8]) -> bool {
        match class {
            ContentClass::IsComposing | ContentClass::Imdn => true,
            ContentClass::Chat | ContentClass::File => accepts(&self.0, content_type),
        }
    }
}

impl Accepts {
    /// Whether its messages come in a wrapper. Where wrappers are not demanded, a `*` is taken for
    /// a client that renders what it gets, and that is better served without.
    pub(super) fn takes_cpim(&self, policy: CpimPolicy) -> bool {
        match policy {
            CpimPolicy::Required => accepts(&self.types, b"message/cpim"),
            CpimPolicy::Wrap => self
                .types
                .split(|&byte| byte == b' ')
                .any(|entry| entry != b"*" && accepts(entry, b"message/cpim")),
        }
    }

    /// Whether it takes content of this type in a wrapper (RFC 4975 section 8.6: what may stand
    /// alone may be wrapped). RFC 7701 section 6.1: what the switch knows not to be acceptable is
    /// not forwarded; a client that lists wrappers and nothing else has not said.
    fn takes_wrapped(&self, media_type: &[u8]) -> bool {
        let says_nothing = self.wrapped_types.is_empty()
            && self.types.split(|&byte| byte == b' ').all(|entry| accepts(entry, b"message/cpim"));
        says_nothing || accepts(&self.wrapped_types, media_type) || accepts(&self.types, media_type)
    }
}

impl Acceptance {
    /// What becomes of a piece of a message for those who accept this.
    pub(super) fn judge(
        &self,
        policy: CpimPolicy,
        route: &Route,
        passage: &Passage<'_>,
    ) -> Verdict {
        let Some(as_sent) = self.takes(policy, route) else { return Verdict::Unacceptable };
        if let Some(max) = self.accepts.size_bytes_max
            && let Some(verdict) = judge_size(max, route, passage, as_sent)
        {
            return verdict;
        }
        if as_sent { Verdict::AsSent } else { Verdict::Converted }
    }

    /// The largest message those who accept this take as it is sent; `None`: they get none like it,
    /// or in another form.
    pub(super) fn takes_as_sent(&self, policy: CpimPolicy, route: &Route) -> Option<u64> {
        let as_sent = self.takes(policy, route)?;
        as_sent.then(|| self.accepts.size_bytes_max.unwrap_or(u64::MAX))
    }

    /// Whether there is anybody who accepts this.
    pub(super) fn is_in_use(&self) -> bool {
        self.participants > 0
    }

    /// Whether those who accept this get a message as it is sent or in the other form; `None`: they
    /// do not take its content.
    fn takes(&self, policy: CpimPolicy, route: &Route) -> Option<bool> {
        let accepts_this = &self.accepts;
        let media_type = route.content.media_type();
        let (form, taken) = match (self.takes_cpim, policy) {
            (true, _) => (Form::Wrapped, accepts_this.takes_wrapped(media_type)),
            (false, CpimPolicy::Wrap) => (Form::Bare, accepts(&accepts_this.types, media_type)),
            (false, CpimPolicy::Required) => (Form::Wrapped, false),
        };
        taken.then_some(route.form == form || route.head_bytes == 0)
    }
}

/// Whether and where a message exceeds what a participant takes. Where its size was announced that is
/// known before it begins, otherwise once it happens.
fn judge_size(max: u64, route: &Route, passage: &Passage<'_>, as_sent: bool) -> Option<Verdict> {
    let announced = Passage { total: route.total, ..*passage };
    let (extent, announced) = match as_sent {
        true => (passage.extent(), announced.extent().total),
        false => (passage.converted_extent(route), announced.converted_extent(route).total),
    };
    let exceeds = |size: Option<u64>| size.is_some_and(|size| size > max);
    match extent.start {
        0 | 1 => (exceeds(extent.total) || extent.end > max).then_some(Verdict::TooLarge),
        start if exceeds(announced) || start > max.saturating_add(1) => Some(Verdict::Overflown),
        _ => (extent.end > max).then_some(Verdict::Overflow),
    }
}

/// The number of the acceptance that says this, made where there is none.
pub(super) fn intern(
    acceptances: &mut Vec<Acceptance>,
    wanted: &Accepts,
    policy: CpimPolicy,
) -> u32 {
    let known = acceptances
        .iter()
        .position(|known| known.participants > 0 && known.accepts == *wanted)
        .or_else(|| acceptances.iter().position(|known| known.participants == 0));
    let takes_cpim = wanted.takes_cpim(policy);
    let new = || Acceptance { accepts: wanted.clone(), takes_cpim, participants: 0 };
    let index = known.unwrap_or(acceptances.len());
    match acceptances.get_mut(index) {
        None => acceptances.push(new()),
        Some(unused) if unused.participants == 0 => *unused = new(),
        Some(_) => {}
    }
    acceptances[index].participants += 1;
    index as u32
}

/// A participant with that acceptance has gone.
pub(super) fn give_back(acceptances: &mut [Acceptance], index: u32) {
    let acceptance = &mut acceptances[index as usize];
    assert!(acceptance.participants > 0);
    acceptance.participants -= 1;
}
