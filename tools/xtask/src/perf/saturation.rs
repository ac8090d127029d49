//! What a subject carries in the open loop: the search for the highest rate at which it keeps up.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::results::figure;

/// What was found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Saturation {
    /// The highest rate tried that was carried, of all senders together.
    pub(crate) messages_per_second: f64,
    /// Why the lowest rate above it was not.
    pub(crate) limit: String,
}

/// Looks for the rate between one that is carried and one that is not, both found by going up or down
/// in steps.
#[derive(Debug)]
pub(crate) struct Search {
    next: f64,
    carried: Option<f64>,
    refused: Option<(f64, String)>,
    tries_left: u32,
}

impl Search {
    /// Begins at this rate.
    pub(crate) fn from(first: f64) -> Self {
        Self { next: first, carried: None, refused: None, tries_left: TRIES_MAX }
    }

    /// The rate to try next; `None`: it is over.
    pub(crate) fn next(&self) -> Option<f64> {
        let is_found = match (self.carried, &self.refused) {
            (Some(carried), Some((refused, _))) => refused / carried < RESOLUTION,
            _ => false,
        };
        (self.tries_left > 0 && !is_found).then_some(self.next)
    }

    /// What became of it.
    pub(crate) fn tried(&mut self, outcome: Result<(), String>) {
        self.tries_left -= 1;
        match outcome {
            Ok(()) => self.carried = Some(self.next),
            Err(why) => self.refused = Some((self.next, why)),
        }
        self.next = match (self.carried, &self.refused) {
            (Some(carried), Some((refused, _))) => (carried * refused).sqrt(),
            (Some(carried), None) => carried * STEP,
            (None, Some((refused, _))) => refused / STEP,
            (None, None) => self.next,
        };
    }

    /// `Err`: no rate was carried, or none was too much.
    pub(crate) fn found(self) -> Result<Saturation, String> {
        match (self.carried, self.refused) {
            (Some(messages_per_second), Some((_, limit))) => {
                Ok(Saturation { messages_per_second, limit })
            }
            (None, Some((rate, why))) => Err(format!("not even {rate:.0} per second: {why}")),
            (_, None) => Err("no rate was too much".to_owned()),
        }
    }
}

/// Whether a subject has carried a rate: what arrives keeps up with what is due, without a queue, and
/// it is the subject that was seen and not the generator.
pub(crate) fn keeps_up(figures: &Json, rate: f64, senders: u32) -> Result<(), String> {
    let arrived = figure(figures, "messages_per_second").unwrap_or(0.0);
    if arrived < ARRIVED_MIN * rate {
        return Err(format!("{:.0} % of what was due arrived", 100.0 * arrived / rate));
    }
    // By Little's law more than one message of each sender is under way then: they wait for each
    // other, and leave in batches that the wait has made.
    let interval_us = 1e6 * f64::from(senders) / rate;
    let median_us = figure(figures, "latency_us.p50").unwrap_or(f64::INFINITY);
    if median_us > interval_us {
        return Err(format!(
            "a message takes {median_us:.0} us, and its sender's next is due after {interval_us:.0} us"
        ));
    }
    if figures["generator_bound"].as_bool() == Some(true) {
        return Err("the generator is the bottleneck".to_owned());
    }
    Ok(())
}

/// Runs of a search: a few steps each way, then halves.
const TRIES_MAX: u32 = 12;
/// From one rate to the next while only one side is known.
const STEP: f64 = 1.25;
/// Near enough: half of it is known to 6 %, and latencies at half of saturation hardly depend on it.
const RESOLUTION: f64 = 1.13;
/// Of what was due: counting begins and ends between two messages, at a moment known to a millisecond.
const ARRIVED_MIN: f64 = 0.98;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn search(first: f64, limit: f64) -> (Result<Saturation, String>, u32) {
        let mut search = Search::from(first);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            tries += 1;
            search.tried(if rate <= limit { Ok(()) } else { Err("too much".to_owned()) });
        }
        (search.found(), tries)
    }

    #[test]
    fn finds_the_limit_from_above_and_from_below() {
        for first in [20_000.0, 99_000.0, 101_000.0, 230_000.0] {
            let (found, tries) = search(first, 100_000.0);
            let Saturation { messages_per_second, limit } = found.unwrap();
            assert!(messages_per_second <= 100_000.0 && messages_per_second > 88_000.0);
            assert_eq!(limit, "too much");
            assert!(tries <= TRIES_MAX, "{tries}");
        }
    }

    #[test]
    fn says_so_where_there_is_no_limit_or_nothing_is_carried() {
        assert!(search(1_000.0, f64::INFINITY).0.unwrap_err().contains("no rate was too much"));
        let (found, tries) = search(1_000.0, 0.0);
        assert!(found.unwrap_err().contains("too much"));
        assert_eq!(tries, TRIES_MAX);
    }

    #[test]
    fn a_queue_a_loss_and_a_busy_generator_each_end_it() {
        let figures = |arrived: f64, p50: f64, bound: bool| {
            json!({
                "messages_per_second": arrived,
                "latency_us": {"p50": p50},
                "generator_bound": bound,
            })
        };
        // 400 senders at 100,000 a second: one message each in 4 ms.
        let keeps_up = |figures: &Json| keeps_up(figures, 100_000.0, 400);
        assert_eq!(keeps_up(&figures(99_000.0, 3_900.0, false)), Ok(()));
        assert!(keeps_up(&figures(97_000.0, 100.0, false)).unwrap_err().contains("97 %"));
        assert!(keeps_up(&figures(100_000.0, 4_100.0, false)).unwrap_err().contains("4000 us"));
        assert!(keeps_up(&figures(100_000.0, 100.0, true)).unwrap_err().contains("generator"));
        assert!(keeps_up(&json!({})).is_err());
    }
}
