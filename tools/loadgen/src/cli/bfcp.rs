//! The command line of floor control.

use std::time::Duration;

use clap::Args;

use super::{Run, ScenarioName, SecurityName, Share, parse_duration};
use crate::scenario::Rooms;
use crate::wire::plan::{FLOORS, Floors, Keys, Plan, Protection, Traffic, Work};

/// `run bfcp`.
#[derive(Args, Clone, Debug)]
pub struct BfcpRun {
    /// Floors of each conference: 1, 2, …; of a node that is called the first ones of its answer.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(FLOORS))]
    pub floors: u16,

    /// How many may hold a floor at a time. Seeing more is a violation.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub holders: u16,

    /// How long a floor is held.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub hold: Duration,

    /// Everybody sends a FloorQuery, and is told of every change from then on.
    #[arg(long)]
    pub subscribe: bool,

    /// Everybody says Hello and nothing else: what does a silent participant cost?
    #[arg(long)]
    pub idle: bool,

    /// The only suite to offer a tcp:// target, by OpenSSL name: `PSK-AES128-GCM-SHA256`. May be
    /// repeated.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,

    /// The rest; --window and --message-rate are of floors. A `tcp://` target makes use of --sessions, --room-size, --window, --message-rate,
    /// --security plain or psk, --threads, the times, and what is on record.
    #[command(flatten)]
    pub run: Run,
}

/// Participants of a conference where the command line does not say.
const USERS: u32 = 10;

impl BfcpRun {
    /// What its calls come to: they talk of nothing. An error is the user's.
    pub fn calls(&self) -> Result<Run, String> {
        let users = self.users()?;
        Ok(Run {
            scenario: ScenarioName::Bfcp,
            room_size: Some(Rooms::Sizes { min: users, max: users }),
            window: None,
            message_rate: None,
            ..self.run.clone()
        })
    }

    /// What the participants of one process do. An error is the user's.
    pub fn plan(&self, share: Share) -> Result<Plan, String> {
        let protection = match self.run.security {
            SecurityName::Plain => Protection::Plain,
            SecurityName::Psk => Protection::psk(Keys::Numbered, &self.suite)?,
            SecurityName::Certificate => {
                return Err(
                    "participants have no use for certificates: --security plain or psk".into()
                );
            }
        };
        let users = self.users()?;
        let conferences = share.of_some(self.run.sessions / users, "conferences")?;
        let links = users * conferences.len() as u32;
        Ok(Plan {
            targets: vec![self.run.target.address],
            work: Work::Floors(Floors {
                users,
                floors: self.floors,
                holders_max: self.holders,
                hold_ns: self.hold.as_nanos() as u64,
                subscribes: self.subscribe,
                idle: self.idle,
                called: self.run.target.is_sip(),
            }),
            protection,
            links,
            first_number: users * conferences.start,
            share,
            identities: links,
            threads: self.run.threads,
            traffic: Traffic {
                window: self.run.window.unwrap_or(1),
                interval_ns: self.run.message_rate.map(|rate| (1e9 / rate) as u64),
                body_bytes: 0,
                ramp_ns: self.run.warmup.as_nanos() as u64 / 2,
            },
            warmup: self.run.warmup,
            duration: self.run.duration,
            drain_timeout: self.run.drain_timeout,
            burst: false,
            sources: self.run.spread.sources(share)?,
        })
    }

    /// Participants of each conference.
    fn users(&self) -> Result<u32, String> {
        let sessions = self.run.sessions;
        let users = match (self.run.rooms, self.run.room_size) {
            (None, None) => USERS.min(sessions),
            (None, Some(Rooms::Sizes { min, max })) if min == max => min,
            _ => return Err("conferences are of one size: --room-size N".to_owned()),
        };
        if !sessions.is_multiple_of(users) {
            return Err(format!("{sessions} --sessions do not fill conferences of {users}"));
        }
        Ok(users)
    }
}
