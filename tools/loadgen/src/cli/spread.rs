//! How the load is spread over processes and addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use clap::Args;

/// Who makes the load, and from where.
#[derive(Args, Clone, Default, Debug)]
pub struct Spread {
    /// Processes that share the sessions (whole rooms, whole pairs), the rates and the --source
    /// addresses among them; their reports are merged into one [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=PROCESSES_MAX))]
    pub processes: Option<u32>,

    /// Our addresses, dealt out to the connections in turn: `127.0.1.1-127.0.1.200`. A UE speaks
    /// SIP and MSRP from the same one.
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_sources)]
    pub source: Option<Sources>,

    /// This process is one of several.
    #[arg(long, hide = true, value_parser = parse_share)]
    pub share: Option<Share>,
}

/// Addresses of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sources(pub Vec<IpAddr>);

/// One of several equal parts of the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

/// Addresses of a range: a /16 of 127/8.
const SOURCES_MAX: u32 = 65_536;
/// More than a machine has processors to run them.
const PROCESSES_MAX: i64 = 256;

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// The part of `total` things.
    #[must_use]
    pub fn of(self, total: u32) -> Range<u32> {
        let bound =
            |index: u32| (u64::from(total) * u64::from(index) / u64::from(self.count)) as u32;
        bound(self.index)..bound(self.index + 1)
    }

    /// The part of a rate.
    #[must_use]
    pub fn of_rate(self, rate: f64) -> f64 {
        rate / f64::from(self.count)
    }

    /// The part of `total` things called `what`, of which everybody needs one.
    pub(crate) fn of_some(self, total: u32, what: &str) -> Result<Range<u32>, String> {
        if total < self.count {
            let count = self.count;
            return Err(format!("--processes {count} cannot share {total} {what}"));
        }
        Ok(self.of(total))
    }

    /// Refuses to divide what one process has to do as a whole, and says why.
    pub(crate) fn whole(self, why: &str) -> Result<(), String> {
        match self.count {
            1 => Ok(()),
            _ => Err(format!("--processes: {why}; use --threads")),
        }
    }
}

impl Spread {
    /// What is this process's.
    #[must_use]
    pub fn own(&self) -> Share {
        self.share.unwrap_or(Share::WHOLE)
    }

    /// This process is to start so many that do the work.
    #[must_use]
    pub fn to_start(&self) -> Option<u32> {
        self.processes.filter(|count| *count > 1 && self.share.is_none())
    }

    /// Addresses of one process; none: the kernel chooses. No other process has them.
    pub(crate) fn sources(&self, share: Share) -> Result<Vec<IpAddr>, String> {
        let Some(Sources(all)) = &self.source else { return Ok(Vec::new()) };
        let range = share.of_some(all.len() as u32, "--source addresses")?;
        Ok(all[range.start as usize..range.end as usize].to_vec())
    }
}

fn parse_share(text: &str) -> Result<Share, String> {
    let (index, count) = text.split_once('/').ok_or("a share is INDEX/COUNT")?;
    match (index.parse(), count.parse()) {
        (Ok(index), Ok(count)) if index < count => Ok(Share { index, count }),
        _ => Err("a share is INDEX/COUNT".to_owned()),
    }
}

fn parse_sources(text: &str) -> Result<Sources, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |text: &str| text.parse::<Ipv4Addr>().map_err(|error| format!("{text}: {error}"));
    let (first, last) = (u32::from(parse(first)?), u32::from(parse(last)?));
    if first > last || last - first >= SOURCES_MAX {
        return Err("sources are FIRST-LAST, IPv4, at most 65536".to_owned());
    }
    Ok(Sources((first..=last).map(|number| Ipv4Addr::from(number).into()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deals_out_addresses() {
        let Sources(list) = parse_sources("127.0.1.254-127.0.2.1").unwrap();
        let list: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(list, ["127.0.1.254", "127.0.1.255", "127.0.2.0", "127.0.2.1"]);
        assert!(parse_sources("127.0.2.1-127.0.1.1").is_err());
    }

    #[test]
    fn shares_are_disjoint_and_leave_nothing_over() {
        for (total, count) in [(1, 1), (7, 3), (5_000, 7), (3, 4)] {
            let mut next = 0;
            for index in 0..count {
                let range = Share { index, count }.of(total);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, total);
        }
        assert!(Share { index: 0, count: 4 }.of_some(3, "rooms").is_err());
    }

    #[test]
    fn no_two_processes_have_an_address_in_common() {
        let source = Some(parse_sources("127.0.1.1-127.0.1.5").unwrap());
        let spread = Spread { source, ..Spread::default() };
        let of = |index| spread.sources(Share { index, count: 2 }).unwrap();
        assert_eq!([of(0), of(1)].concat(), spread.sources(Share::WHOLE).unwrap());
        assert!(spread.sources(Share { index: 0, count: 6 }).is_err());
    }
}
