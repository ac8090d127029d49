//! Sections `[floors]` and `[[floor]]`: floor control by BFCP, and the floors that rooms may have.

use mrfp_core::floor::{
    FLOORS_PER_CONFERENCE_MAX, FloorLimits, FloorOrder, REQUESTS_PER_FLOOR_MAX,
};
use serde::{Deserialize, Serialize};

use super::check::{Check, Finding, SECONDS_MAX, Step, ensure};
use super::{Config, Room};

/// Section `[floors]`: what holds for the floors of all rooms.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Floors {
    /// How long a participant whose connection was lost keeps its floors and requests.
    pub grace_seconds: u64,
    /// Who may ask for a floor on behalf of others.
    pub third_party_requests: ThirdParties,
    /// Ongoing requests of one participant in its room, over all floors; Error 8 beyond.
    pub requests_per_user_max: usize,
    /// Ongoing requests of all participants on one shard; Error 8 beyond.
    pub requests_per_shard_max: usize,
    /// Longest datagram; longer messages go in fragments.
    pub datagram_bytes_max: usize,
}

/// One `[[floor]]`: what rooms name in `floors`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// What rooms call it.
    pub name: String,
    /// `a=floorid`; no two floors of a room have the same.
    pub number: u16,
    /// Label of the medium it is for, which somebody else mixes. `None`: it is for the messages of the
    /// room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Who gets it next.
    #[serde(default)]
    pub order: Order,
    /// How many may hold it at a time.
    #[serde(default = "one")]
    pub holders_max: u16,
    /// Ongoing requests of one participant for it; Error 8 beyond.
    #[serde(default = "one")]
    pub requests_per_user_max: u16,
    /// After so long it is taken away; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding_seconds_max: Option<u64>,
}

/// `floors.third_party_requests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ThirdParties {
    /// Nobody.
    Nobody,
    /// The chairs of all floors that are asked for.
    Chairs,
    /// Everybody in the room.
    Everybody,
}

/// `floor.order`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Who asked first.
    #[default]
    FirstComeFirstServed,
    /// Who asked with the highest priority.
    Priority,
    /// Whom the chair wants.
    Chair,
}

impl From<Order> for FloorOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::FirstComeFirstServed => Self::FirstComeFirstServed,
            Order::Priority => Self::Priority,
            Order::Chair => Self::Chair,
        }
    }
}

impl From<FloorOrder> for Order {
    fn from(order: FloorOrder) -> Self {
        match order {
            FloorOrder::FirstComeFirstServed => Self::FirstComeFirstServed,
            FloorOrder::Priority => Self::Priority,
            FloorOrder::Chair => Self::Chair,
        }
    }
}

impl Default for Floors {
    fn default() -> Self {
        let limits = FloorLimits::default();
        Self {
            grace_seconds: 30,
            third_party_requests: ThirdParties::Chairs,
            requests_per_user_max: limits.requests_per_user_max,
            requests_per_shard_max: limits.requests_max,
            datagram_bytes_max: limits.datagram_bytes_max,
        }
    }
}

impl Floor {
    /// The floor that is there without being listed: one member at a time may write.
    fn messages() -> Self {
        Self {
            name: "messages".to_owned(),
            number: 1,
            label: None,
            order: Order::FirstComeFirstServed,
            holders_max: 1,
            requests_per_user_max: 1,
            holding_seconds_max: None,
        }
    }
}

fn one() -> u16 {
    1
}

impl Config {
    /// The floors of a room, by what is said of it, else of all rooms. A name nobody knows is left out.
    #[must_use]
    pub fn floors_of(&self, room: &Room) -> Vec<Floor> {
        let names = room.floors.as_ref().unwrap_or(&self.rooms.floors);
        names.iter().filter_map(|name| self.floor(name)).collect()
    }

    fn floor(&self, name: &str) -> Option<Floor> {
        let listed = self.floor_list.iter().find(|floor| floor.name == name).cloned();
        let known = Floor::messages();
        listed.or_else(|| (known.name == name).then_some(known))
    }

    pub(super) fn check_floors(&self) -> Check {
        let floors = &self.floors;
        ensure(
            floors.grace_seconds <= SECONDS_MAX,
            &["floors", "grace_seconds"],
            || format!("{} seconds is more than a day", floors.grace_seconds),
            || "nobody else gets the floor meanwhile: use a minute or less".to_owned(),
        )?;
        let counts = [
            ("requests_per_user_max", floors.requests_per_user_max, 1..=REQUESTS_PER_FLOOR_MAX),
            ("requests_per_shard_max", floors.requests_per_shard_max, 1..=usize::MAX),
            (
                "datagram_bytes_max",
                floors.datagram_bytes_max,
                DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX,
            ),
        ];
        for (name, count, range) in counts {
            ensure(
                range.contains(&count),
                &["floors", name],
                || format!("{count} cannot be had"),
                || match range.end() {
                    &usize::MAX => format!("use {} or more", range.start()),
                    end => format!("use {} to {end}", range.start()),
                },
            )?;
        }
        for (index, floor) in self.floor_list.iter().enumerate() {
            check_floor(floor, index, &self.floor_list[..index])?;
        }
        self.check_floors_of(&self.rooms.floors, &[Step::Name("rooms"), Step::Name("floors")])?;
        for (index, room) in self.room_exceptions.iter().enumerate() {
            let path = |name| [Step::Name("room"), Step::Index(index), Step::Name(name)];
            self.check_floors_of(room.floors.as_deref().unwrap_or_default(), &path("floors"))?;
            let governed = self.floors_of(room).iter().any(|floor| floor.label.is_none());
            if room.moderated == Some(true) && !governed {
                return Err(Finding {
                    path: path("moderated").to_vec(),
                    message: "the room has no floor for its messages: nobody could say anything"
                        .to_owned(),
                    remedy: "add floors = [\"messages\"]".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The floors of one room, named by a list.
    fn check_floors_of(&self, names: &[String], path: &[Step]) -> Check {
        let mut earlier: Vec<Floor> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let finding = |message: String, remedy: &str| {
                let path = path.iter().copied().chain([Step::Index(index)]).collect();
                Err(Finding { path, message, remedy: remedy.to_owned() })
            };
            let Some(floor) = self.floor(name) else {
                let message = format!("no [[floor]] is named {name:?}");
                return finding(message, "\"messages\" is always there; describe any other");
            };
            for other in &earlier {
                let (name, other_name) = (&floor.name, &other.name);
                if floor.number == other.number {
                    let message = format!("{name:?} and {other_name:?} have the same number");
                    return finding(message, "give each floor of a room a number of its own");
                }
                if floor.label == other.label {
                    let message = format!("{name:?} and {other_name:?} are for the same medium");
                    return finding(message, "give one of them another label, or leave it out");
                }
            }
            if index == FLOORS_PER_CONFERENCE_MAX {
                let message = format!("a room has {FLOORS_PER_CONFERENCE_MAX} floors at most");
                return finding(message, "leave some out");
            }
            earlier.push(floor);
        }
        Ok(())
    }
}

fn check_floor(floor: &Floor, index: usize, earlier: &[Floor]) -> Check {
    let finding = |name, message: String, remedy: &str| {
        let path = vec![Step::Name("floor"), Step::Index(index), Step::Name(name)];
        Err(Finding { path, message, remedy: remedy.to_owned() })
    };
    if floor.name.is_empty() || earlier.iter().any(|other| other.name == floor.name) {
        let message = format!("a second [[floor]] named {:?}, or one without a name", floor.name);
        return finding("name", message, "give each floor a name of its own");
    }
    if floor.number == 0 {
        return finding("number", "0 is the number of no floor".to_owned(), "use 1 or more");
    }
    if let Some(label) = &floor.label
        && (!is_token(label) || label == MESSAGE_LABEL)
    {
        let message = format!("{label:?} cannot be the label of another medium");
        let remedy = "use letters, digits and hyphens, but not the label of the messages, \"10\"; \
                      without a label the floor is for the messages";
        return finding("label", message, remedy);
    }
    if floor.holders_max == 0 {
        let message = "a floor that nobody may hold".to_owned();
        return finding("holders_max", message, "use 1 or more");
    }
    if !(1..=REQUESTS_PER_FLOOR_MAX).contains(&usize::from(floor.requests_per_user_max)) {
        let message = format!("{} cannot be had", floor.requests_per_user_max);
        let remedy = format!("use 1 to {REQUESTS_PER_FLOOR_MAX}");
        return finding("requests_per_user_max", message, &remedy);
    }
    let holding = floor.holding_seconds_max;
    if holding.is_some_and(|seconds| !(1..=SECONDS_MAX).contains(&seconds)) {
        let message = format!("{} is outside 1 to {SECONDS_MAX} seconds", holding.unwrap_or(0));
        return finding("holding_seconds_max", message, "leave it out where there is no limit");
    }
    Ok(())
}

/// RFC 4574 section 4: a label is a token (RFC 4566 section 9).
fn is_token(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(sound)
}

/// That of the message stream in our SDP.
pub(crate) const MESSAGE_LABEL: &str = "10";
/// Room for what a fragment must begin with, and for something behind it.
const DATAGRAM_BYTES_MIN: usize = 256;
/// What fits into a frame of Ethernet: anything longer would be fragmented by IP, which firewalls drop.
const DATAGRAM_BYTES_MAX: usize = 1472;
