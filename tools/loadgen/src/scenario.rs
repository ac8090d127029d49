//! What the fleet does: how many UEs, in which rooms, on which threads, saying what, for how long.

use std::time::Duration;

use crate::media::Traffic;

/// A scenario, checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Calls.
    pub sessions: u32,
    /// Calls set up (and torn down) per second.
    pub rate_per_second: f64,
    /// How long the UEs talk.
    pub duration: Duration,
    /// What they say.
    pub traffic: Traffic,
    /// Media threads.
    pub threads: u32,
    /// Members of each room.
    pub room_sizes: Vec<u32>,
    /// What the first room, the first UE are called; other processes have the others.
    pub first_room: u32,
    /// The same of UEs.
    pub first_session: u32,
    /// Nothing is measured before that has passed.
    pub warmup: Duration,
    /// Calls follow each other instead of staying.
    pub churn: Option<Churn>,
}

/// Whole calls, one after the other: INVITE, key, TLS, first message, BYE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Churn {
    /// Calls under way at a time; the rate of the scenario holds as well.
    pub concurrency: u32,
}

/// How sessions are put into rooms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rooms {
    /// That many rooms of (nearly) equal size.
    Count(u32),
    /// Rooms of the smallest size, the next one, … the largest, the smallest again.
    Sizes {
        /// Members of the smallest room.
        min: u32,
        /// Members of the largest.
        max: u32,
    },
}

/// Where one session belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Room.
    pub room: u32,
    /// Media thread, the same for the whole room.
    pub thread: u32,
}

/// Members a room may have: a ledger keeps a figure for each pair of them.
pub const ROOM_MEMBERS_MAX: u32 = 2000;

impl Rooms {
    /// The members of each room; sums to `sessions`. No room is left with a single member to whom
    /// nobody speaks, unless there is but one session.
    #[must_use]
    pub fn sizes(self, sessions: u32) -> Vec<u32> {
        let mut sizes = Vec::new();
        match self {
            Self::Count(count) => {
                let count = count.clamp(1, sessions.max(1));
                let (each, more) = (sessions / count, sessions % count);
                sizes.extend((0..count).map(|room| each + u32::from(room < more)));
            }
            Self::Sizes { min, max } => {
                assert!(min >= 1);
                assert!(min <= max);
                let mut left = sessions;
                for size in (min..=max).cycle() {
                    if left == 0 {
                        break;
                    }
                    let size = size.min(left);
                    sizes.push(size);
                    left -= size;
                }
                if sizes.len() > 1 && sizes.last() == Some(&1) && min > 1 {
                    sizes.pop();
                    *sizes.last_mut().expect("there were two") += 1;
                }
            }
        }
        assert_eq!(sizes.iter().sum::<u32>(), sessions);
        sizes
    }
}

impl Scenario {
    /// The place of every session. Members of a room follow one another, so that rooms fill up one
    /// by one.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.sessions as usize);
        for (room, size) in (0_u32..).zip(&self.room_sizes) {
            let place = Place { room, thread: room % self.threads };
            places.extend(std::iter::repeat_n(place, *size as usize));
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::message::TextSizes;

    #[test]
    fn pairs_are_rooms_of_two() {
        let pairs = Rooms::Sizes { min: 2, max: 2 };
        assert_eq!(pairs.sizes(6), [2, 2, 2]);
        assert_eq!(pairs.sizes(7), [2, 2, 3]);
    }

    #[test]
    fn sizes_go_round() {
        let rooms = Rooms::Sizes { min: 2, max: 4 };
        assert_eq!(rooms.sizes(14), [2, 3, 4, 2, 3]);
    }

    #[test]
    fn a_count_of_rooms_shares_evenly() {
        assert_eq!(Rooms::Count(3).sizes(10), [4, 3, 3]);
        assert_eq!(Rooms::Count(9).sizes(2), [1, 1]);
    }

    proptest! {
        #[test]
        fn every_session_has_a_place_and_a_room_one_thread(
            sessions in 1_u32..500, min in 1_u32..9, more in 0_u32..9, threads in 1_u32..5,
        ) {
            let scenario = Scenario {
                sessions,
                rate_per_second: 1.0,
                duration: Duration::ZERO,
                traffic: Traffic {
                    interval_ns: None,
                    window: 1,
                    over_when_answered: false,
                    senders: u32::MAX,
                    speaks_once: false,
                    texts: TextSizes::new(vec![100]),
                    drain_timeout: Duration::ZERO,
                    files: None,
                    stall: None,
                    burst: false,
                },
                threads,
                room_sizes: Rooms::Sizes { min, max: min + more }.sizes(sessions),
                first_room: 0,
                first_session: 0,
                warmup: Duration::ZERO,
                churn: None,
            };
            let places = scenario.places();
            prop_assert_eq!(places.len(), sessions as usize);
            for pair in places.windows(2) {
                prop_assert!(pair[0].room != pair[1].room || pair[0].thread == pair[1].thread);
            }
        }
    }
}
