//! A chat room (RFC 7701): who takes part in it, and by which rules messages pass among them.
//!
//! `route.rs` reads the CPIM head of a message once and says whom the message is for; `opening.rs`
//! asks it where a message begins, and holds a head that has not arrived whole. `acceptance.rs`
//! says which participants take a message, and `rendition.rs` writes it with or without its wrapper,
//! as they understand it. `known_head.rs` saves all of that for a message that is like the last one.
//! `nickname.rs` keeps the names apart.

mod acceptance;
mod known_head;
mod nickname;
mod opening;
mod participant;
mod rendition;
mod requests;
mod route;

use std::collections::HashMap;

use mrfp_io::Key;
use mrfp_protocol::user_uri;

use crate::floor_control::RoomFloors;
use crate::mp::{ChatRoomPolicy, CpimPolicy};
use crate::table::Table;

pub(crate) use acceptance::{Acceptance, Verdict};
pub(crate) use nickname::Nickname;
pub(crate) use opening::{Opening, class};
pub(crate) use participant::Participant;
pub(crate) use rendition::{Passage, Rendition};
pub(crate) use route::{Audience, Destination, Route, in_session};

use acceptance::TypeList;
use nickname::Nicknames;
use participant::is_unidentifying;

/// A chat room as its shard holds it.
pub(crate) struct Room {
    /// By which names it is written to; the first is its own.
    uris: Vec<Uri>,
    private_messages: bool,
    cpim: CpimPolicy,
    types: Option<TypeList>,
    wrapped_types: Option<TypeList>,
    /// Largest message it passes on.
    pub(crate) message_bytes_max: u64,
    nicknames: Nicknames,
    /// Its floors, where it has any.
    pub(crate) floors: Option<Box<RoomFloors>>,
    /// The URIs of the participants that are there.
    addresses: Table<Address>,
    address_by_uri: HashMap<Vec<u8>, Key>,
    acceptances: Vec<Acceptance>,
    /// Grows when the acceptances change.
    acceptances_version: u64,
    /// Reused for every URI that is looked up.
    normal: Vec<u8>,
}

/// A URI and the form in which it compares.
#[derive(Clone, Debug)]
pub(crate) struct Uri {
    pub(crate) text: Vec<u8>,
    normal: Vec<u8>,
}

/// A URI under which participants are found.
struct Address {
    uri: Uri,
    /// Several where somebody has come with several devices (RFC 7701 section 6.1).
    sessions: Vec<AddressSession>,
}

/// A session found under a URI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressSession {
    pub(crate) session: Key,
    /// It can show a private message as one.
    pub(crate) private_messages: bool,
}

impl Room {
    pub(crate) fn new(policy: ChatRoomPolicy) -> Self {
        Self {
            uris: policy.uris.into_iter().filter_map(Uri::new).collect(),
            private_messages: policy.private_messages,
            cpim: policy.cpim,
            types: TypeList::new(policy.accept_types),
            wrapped_types: TypeList::new(policy.accept_wrapped_types),
            message_bytes_max: policy.message_bytes_max.unwrap_or(u64::MAX),
            nicknames: Nicknames::new(policy.nicknames, &policy.nicknames_reserved),
            floors: policy.floors.map(|control| Box::new(RoomFloors::new(&control))),
            addresses: Table::new(Key::INDEX_MAX as usize),
            address_by_uri: HashMap::new(),
            acceptances: Vec::new(),
            acceptances_version: 0,
            normal: Vec::new(),
        }
    }

    /// A participant has come: it is found under its URIs from now on. The number of the acceptance
    /// it shares with others.
    fn join(&mut self, session: Key, participant: &Participant) -> u32 {
        let can_tell = participant.private_messages && participant.accepts.takes_cpim(self.cpim);
        for uri in participant.uris.iter().filter(|uri| !is_unidentifying(&uri.normal)) {
            let key = match self.address_by_uri.get(&uri.normal) {
                Some(&key) => key,
                None => {
                    let address = Address { uri: uri.clone(), sessions: Vec::new() };
                    let Ok(key) = self.addresses.insert(address) else { continue };
                    self.address_by_uri.insert(uri.normal.clone(), key);
                    key
                }
            };
            let Some(address) = self.addresses.get_mut(key) else { continue };
            if address.sessions.iter().all(|known| known.session != session) {
                address.sessions.push(AddressSession { session, private_messages: can_tell });
            }
        }
        self.acceptances_version += 1;
        acceptance::intern(&mut self.acceptances, &participant.accepts, self.cpim)
    }

    /// What a participant takes has changed while it is here; its new acceptance.
    pub(crate) fn renegotiate(
        &mut self,
        session: Key,
        participant: &Participant,
        acceptance: u32,
    ) -> u32 {
        let can_tell = participant.private_messages && participant.accepts.takes_cpim(self.cpim);
        for uri in &participant.uris {
            let key = self.address_by_uri.get(&uri.normal).copied();
            let Some(address) = key.and_then(|key| self.addresses.get_mut(key)) else { continue };
            let own = address.sessions.iter_mut().filter(|known| known.session == session);
            own.for_each(|known| known.private_messages = can_tell);
        }
        self.acceptances_version += 1;
        acceptance::give_back(&mut self.acceptances, acceptance);
        acceptance::intern(&mut self.acceptances, &participant.accepts, self.cpim)
    }

    /// A participant has gone.
    fn leave(&mut self, session: Key, participant: &mut Participant, acceptance: u32) {
        self.acceptances_version += 1;
        acceptance::give_back(&mut self.acceptances, acceptance);
        for uri in &participant.uris {
            let Some(&key) = self.address_by_uri.get(&uri.normal) else { continue };
            let Some(address) = self.addresses.get_mut(key) else { continue };
            address.sessions.retain(|known| known.session != session);
            if address.sessions.is_empty() {
                self.addresses.remove(key);
                self.address_by_uri.remove(&uri.normal);
            }
        }
        self.nicknames.release(participant);
    }

    /// What becomes of a piece of a message, for every acceptance.
    pub(crate) fn judge(&self, route: &Route, passage: &Passage<'_>, verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        let policy = self.cpim;
        let each = self.acceptances.iter();
        verdicts.extend(each.map(|acceptance| acceptance.judge(policy, route, passage)));
    }

    /// The largest message with this route that everybody takes as it is sent; `None` where some do
    /// not take such at all, or in another form.
    fn taken_as_sent(&self, route: &Route) -> Option<u64> {
        let present = self.acceptances.iter().filter(|acceptance| acceptance.is_in_use());
        present
            .map(|each| each.takes_as_sent(self.cpim, route))
            .try_fold(u64::MAX, |least, max| Some(least.min(max?)))
    }

    /// The sessions found under a URI.
    pub(crate) fn sessions(&self, address: Key) -> &[AddressSession] {
        self.addresses.get(address).map_or(&[], |address| &address.sessions)
    }

    fn is_named(&mut self, uri: &[u8]) -> bool {
        if self.uris.first().is_some_and(|own| own.text == uri) {
            return true;
        }
        self.normal.clear();
        user_uri::normalise(uri, &mut self.normal);
        self.uris.iter().any(|own| own.normal == self.normal)
    }

    fn address(&mut self, uri: &[u8]) -> Option<Key> {
        self.normal.clear();
        user_uri::normalise(uri, &mut self.normal);
        self.address_by_uri.get(&self.normal).copied()
    }
}

impl Uri {
    /// `None`: it could not stand in a CPIM header (RFC 3862 section 4.1).
    fn new(text: String) -> Option<Self> {
        let text = text.into_bytes();
        if text.iter().any(|&byte| byte <= b' ' || matches!(byte, b'<' | b'>' | 0x7f)) {
            return None;
        }
        let mut normal = Vec::new();
        user_uri::normalise(&text, &mut normal);
        Some(Self { text, normal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node has rooms by the thousand, and most are small.
    #[test]
    fn a_room_nobody_is_in_takes_little_memory() {
        let policy = ChatRoomPolicy {
            uris: vec!["sip:room@mrf.example.com".to_owned()],
            nicknames: true,
            nicknames_reserved: Vec::new(),
            private_messages: true,
            cpim: CpimPolicy::Wrap,
            accept_types: "text/plain *".to_owned(),
            accept_wrapped_types: "*".to_owned(),
            message_bytes_max: None,
            floors: None,
        };
        let mut room = None;
        let allocated = allocation_counter::measure(|| room = Some(Room::new(policy)));
        assert!(room.is_some() && allocated.bytes_max < 4096, "{allocated:?}");
    }
}
