//! Sections `[rooms]` and `[[room]]`: the conferences, and what goes in them (RFC 7701 section 4.1).

use serde::{Deserialize, Serialize};

use super::Config;
use super::check::{Check, Finding, Step};

/// Section `[rooms]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rooms {
    /// Whether a call to a room that is not in the list makes it.
    pub creation: Creation,
    /// Rooms that exist: user parts of the URI to call.
    pub list: Vec<String>,
    /// Members one room may have. A message is copied to each of them in one turn of the shard,
    /// so this bounds the longest turn.
    pub members_max: u32,
    /// Members may take a nickname.
    pub nicknames: bool,
    /// Nicknames nobody may take.
    pub nicknames_reserved: Vec<String>,
    /// Members may write to one another.
    pub private_messages: bool,
    /// What becomes of a message without a CPIM wrapper, and of a caller who knows none.
    pub cpim: Cpim,
    /// What such a caller may send (`a=accept-types`).
    pub accept_types: Vec<String>,
    /// What may be in a wrapper (`a=accept-wrapped-types`).
    pub accept_wrapped_types: Vec<String>,
    /// Floors of every room, by the names of `[[floor]]`; "messages" is always there.
    pub floors: Vec<String>,
    /// Where one of the floors is for the messages, only who holds it may send them.
    pub moderated: bool,
}

/// One `[[room]]`: a room that exists and differs from the rest in what is named here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// User part of the URI to call.
    pub name: String,
    /// As `rooms.members_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members_max: Option<u32>,
    /// As `rooms.nicknames`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nicknames: Option<bool>,
    /// As `rooms.nicknames_reserved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nicknames_reserved: Option<Vec<String>>,
    /// As `rooms.private_messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_messages: Option<bool>,
    /// As `rooms.cpim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpim: Option<Cpim>,
    /// As `rooms.accept_types`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_types: Option<Vec<String>>,
    /// As `rooms.accept_wrapped_types`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_wrapped_types: Option<Vec<String>>,
    /// As `rooms.floors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floors: Option<Vec<String>>,
    /// As `rooms.moderated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moderated: Option<bool>,
    /// As `limits.message_bytes_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<u64>,
}

/// `rooms.creation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Creation {
    /// Any name is a room.
    Open,
    /// Only the list; another name is answered 404.
    Closed,
}

/// `rooms.cpim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cpim {
    /// As RFC 7701 has it: a message without gets 415, a caller without message/cpim 488.
    Required,
    /// It is wrapped for those who know it, and unwrapped for those who do not.
    Wrap,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            creation: Creation::Open,
            list: Vec::new(),
            members_max: 2048,
            nicknames: true,
            nicknames_reserved: Vec::new(),
            private_messages: true,
            cpim: Cpim::Wrap,
            accept_types: vec!["text/plain".to_owned(), "*".to_owned()],
            accept_wrapped_types: vec!["*".to_owned()],
            floors: Vec::new(),
            moderated: true,
        }
    }
}

impl Config {
    pub(super) fn check_rooms(&self) -> Check {
        let rooms = &self.rooms;
        check_members_max(rooms.members_max, || {
            vec![Step::Name("rooms"), Step::Name("members_max")]
        })?;
        for (index, name) in rooms.list.iter().enumerate() {
            let path = || vec![Step::Name("rooms"), Step::Name("list"), Step::Index(index)];
            check_name(name, path)?;
        }
        let path = |name| move || vec![Step::Name("rooms"), Step::Name(name)];
        check_types(&rooms.accept_types, path("accept_types"))?;
        check_types(&rooms.accept_wrapped_types, path("accept_wrapped_types"))?;
        check_nicknames(&rooms.nicknames_reserved, path("nicknames_reserved"))?;
        self.room_exceptions.iter().enumerate().try_for_each(|(index, room)| {
            let earlier = &self.room_exceptions[..index];
            check_room(room, index, earlier)
        })
    }
}

fn check_room(room: &Room, index: usize, earlier: &[Room]) -> Check {
    let path = |name| move || vec![Step::Name("room"), Step::Index(index), Step::Name(name)];
    check_name(&room.name, path("name"))?;
    if earlier.iter().any(|other| other.name == room.name) {
        return Err(Finding {
            path: path("name")(),
            message: format!("a second [[room]] named {:?}", room.name),
            remedy: "say everything about a room in one place".to_owned(),
        });
    }
    if let Some(members_max) = room.members_max {
        check_members_max(members_max, path("members_max"))?;
    }
    let types = [
        ("accept_types", &room.accept_types),
        ("accept_wrapped_types", &room.accept_wrapped_types),
    ];
    for (name, types) in types {
        check_types(types.as_deref().unwrap_or(&["*".to_owned()]), path(name))?;
    }
    check_nicknames(
        room.nicknames_reserved.as_deref().unwrap_or_default(),
        path("nicknames_reserved"),
    )
}

fn check_members_max(members_max: u32, path: impl Fn() -> Vec<Step>) -> Check {
    if members_max >= 2 {
        return Ok(());
    }
    Err(Finding {
        path: path(),
        message: "a room with fewer than 2 members switches nothing".to_owned(),
        remedy: "use 2 or more".to_owned(),
    })
}

fn check_name(name: &str, path: impl Fn() -> Vec<Step>) -> Check {
    if !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '@') {
        return Ok(());
    }
    Err(Finding {
        path: path(),
        message: format!("{name:?} is not the user part of a SIP URI"),
        remedy: "write \"lobby\" for sip:lobby@host".to_owned(),
    })
}

/// RFC 4975 section 9: format-entry. message/cpim goes without saying.
fn check_types(types: &[String], path: impl Fn() -> Vec<Step>) -> Check {
    if types.is_empty() {
        return Err(Finding {
            path: path(),
            message: "nothing could be sent".to_owned(),
            remedy: "list media types, or \"*\" for all".to_owned(),
        });
    }
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-*".contains(&b))
    };
    for (index, entry) in types.iter().enumerate() {
        let sound = entry == "*"
            || entry
                .split_once('/')
                .is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype));
        if sound && !entry.eq_ignore_ascii_case("message/cpim") {
            continue;
        }
        let mut path = path();
        path.push(Step::Index(index));
        return Err(Finding {
            path,
            message: match sound {
                true => "message/cpim is always taken".to_owned(),
                false => format!("{entry:?} is no media type"),
            },
            remedy: "write \"text/plain\", \"image/*\" or \"*\"; leave message/cpim out".to_owned(),
        });
    }
    Ok(())
}

/// RFC 7701 section 7: a nickname has 1 to 1023 octets.
fn check_nicknames(nicknames: &[String], path: impl Fn() -> Vec<Step>) -> Check {
    for (index, nickname) in nicknames.iter().enumerate() {
        if !(1..=1023).contains(&nickname.len()) || nickname.contains(char::is_control) {
            let mut path = path();
            path.push(Step::Index(index));
            return Err(Finding {
                path,
                message: format!("{nickname:?} could be nobody's nickname"),
                remedy: "a nickname has 1 to 1023 bytes and no control characters".to_owned(),
            });
        }
    }
    Ok(())
}
