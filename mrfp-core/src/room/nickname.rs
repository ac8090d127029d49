//! Nicknames (RFC 7701 section 7): one user each, for as long as one of its sessions goes by it.

use std::borrow::Cow;
use std::collections::HashMap;

use mrfp_protocol::msrp::{Head, UseNickname};
use precis_profiles::Nickname as Profile;
use precis_profiles::precis_core::Error;
use precis_profiles::precis_core::profile::{Profile as _, Rules, stabilize};

use super::{Participant, Room};

/// A nickname a participant goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Nickname {
    /// As the participant wrote it, spaces apart (RFC 8266 section 2.3).
    shown: String,
    /// As it compares (RFC 8266 section 2.4).
    compared: String,
}

/// The nicknames of a room.
pub(super) struct Nicknames {
    allowed: bool,
    reserved: Vec<String>,
    taken: HashMap<String, Holder>,
}

/// Who goes by a nickname.
struct Holder {
    /// The user, by the URI the room knows it by; none where that may be anybody's.
    user: Vec<u8>,
    sessions: usize,
}

impl Nicknames {
    pub(super) fn new(allowed: bool, reserved: &[String]) -> Self {
        // What is no nickname cannot be taken anyway.
        let compared = reserved.iter().filter_map(|name| Nickname::new(name)).map(|n| n.compared);
        Self { allowed, reserved: compared.collect(), taken: HashMap::new() }
    }

    /// Lets a participant go by a nickname, and lays down the one it had.
    fn take(&mut self, participant: &mut Participant, nickname: &Nickname) -> Result<(), u16> {
        if participant.nickname.as_deref() == Some(&nickname.compared) {
            return Ok(());
        }
        if self.reserved.contains(&nickname.compared) {
            return Err(425);
        }
        match self.taken.get_mut(&nickname.compared) {
            //= RFC 7701 section 7.1: the same user may use it over a second session.
            Some(holder) if participant.is_same_user(&holder.user) => holder.sessions += 1,
            Some(_) => return Err(425),
            None => {
                let user = participant.uris.first().map(|uri| uri.normal.clone());
                let holder = Holder { user: user.unwrap_or_default(), sessions: 1 };
                self.taken.insert(nickname.compared.clone(), holder);
            }
        }
        //= RFC 7701 section 7.2: the old one is released once the new one is granted.
        self.release(participant);
        participant.nickname = Some(nickname.compared.clone());
        Ok(())
    }

    /// Lays a nickname down. True: there was one.
    pub(super) fn release(&mut self, participant: &mut Participant) -> bool {
        let Some(nickname) = participant.nickname.take() else { return false };
        if let Some(holder) = self.taken.get_mut(&nickname) {
            holder.sessions -= 1;
            if holder.sessions == 0 {
                self.taken.remove(&nickname);
            }
        }
        true
    }
}

impl Nickname {
    /// `None`: the profile does not allow it.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let profile = Profile::new();
        let shown = profile.enforce(text).ok()?.into_owned();
        let compared = stabilize(text, comparison_rules).ok()?.into_owned();
        Some(Self { shown, compared })
    }

    pub(crate) fn into_shown(self) -> String {
        self.shown
    }
}

/// RFC 8266 section 2.4.
fn comparison_rules(text: &str) -> Result<Cow<'_, str>, Error> {
    let profile = Profile::new();
    let text = profile.prepare(text)?;
    let text = profile.additional_mapping_rule(text)?;
    let text = profile.case_mapping_rule(text)?;
    profile.normalization_rule(text)
}

impl Room {
    /// Grants the nickname a request asks for, or takes it away; otherwise the status to refuse it
    /// with. The nickname the participant goes by from now on.
    pub(crate) fn nickname(
        &mut self,
        participant: &mut Participant,
        head: &Head<'_>,
    ) -> Result<Option<Nickname>, u16> {
        if !self.nicknames.allowed {
            return Err(403);
        }
        //= RFC 7701 section 7.1: the request MUST include a Use-Nickname header.
        match UseNickname::of(head).map_err(|_| 424u16)?.ok_or(400u16)? {
            UseNickname::Take(text) => {
                let nickname = Nickname::new(&text).ok_or(424u16)?;
                self.nicknames.take(participant, &nickname)?;
                Ok(Some(nickname))
            }
            UseNickname::Remove => {
                self.nicknames.release(participant);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(text: &str) -> Option<String> {
        Nickname::new(text).map(|nickname| nickname.compared)
    }

    #[test]
    fn compares_as_the_examples_of_rfc_8266_section_3_do() {
        for (nickname, output) in [
            ("Foo", "foo"),
            ("foo", "foo"),
            ("Foo Bar", "foo bar"),
            ("foo bar", "foo bar"),
            ("\u{3a3}", "\u{3c3}"),
            ("\u{3c3}", "\u{3c3}"),
            ("\u{3c2}", "\u{3c2}"),
            ("\u{3d4}", "\u{3cb}"),
            ("\u{221e}", "\u{221e}"),
            ("Richard \u{2163}", "richard iv"),
        ] {
            assert_eq!(compared(nickname).as_deref(), Some(output), "{nickname}");
        }
    }

    #[test]
    fn spaces_do_not_make_another_name() {
        assert_eq!(compared("  Alice\u{a0}\u{2003}the  great "), compared("alice the great"));
        assert_eq!(Nickname::new(" Al  ice ").map(Nickname::into_shown).as_deref(), Some("Al ice"));
    }

    #[test]
    fn what_the_profile_disallows_is_no_nickname() {
        for nickname in ["", " ", "\u{3000}", "a\tb", "a\u{0}b", "a\u{200b}b", "a\u{1100}"] {
            assert_eq!(compared(nickname), None, "{nickname:?}");
        }
    }
}
