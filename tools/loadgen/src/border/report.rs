//! What became of calls through a border.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::expectation::{Violation, Violations};
use crate::media::worker::latency_histogram;
use crate::report::{Percentiles, show_us};

/// Calls through a border.
#[derive(Clone, Debug, Serialize)]
pub struct CallsThrough {
    /// Every expectation held.
    pub passed: bool,
    /// UEs that asked to be registered.
    pub registering: u32,
    /// UEs whose registration went through.
    pub registered: u32,
    /// INVITEs begun.
    pub attempted: u32,
    /// Answered with 2xx.
    pub answered: u32,
    /// Ended with an answered BYE.
    pub ended: u32,
    /// BYEs that the other end got.
    pub byes_passed_on: u32,
    /// Other final answers to INVITE, by status.
    pub refused_by_status: BTreeMap<u16, u32>,
    /// From an INVITE to its 200.
    pub setup_latency: Percentiles,
    /// From a BYE to its answer.
    pub ending_latency: Percentiles,
    /// What did not hold.
    pub violations: Violations,
}

/// While it goes on.
pub(super) struct CallBook {
    calls: CallsThrough,
    setup: Histogram<u64>,
    ending: Histogram<u64>,
}

impl Default for CallBook {
    fn default() -> Self {
        let calls = CallsThrough {
            passed: false,
            registering: 0,
            registered: 0,
            attempted: 0,
            answered: 0,
            ended: 0,
            byes_passed_on: 0,
            refused_by_status: BTreeMap::new(),
            setup_latency: Percentiles::default(),
            ending_latency: Percentiles::default(),
            violations: Violations::default(),
        };
        Self { calls, setup: latency_histogram(), ending: latency_histogram() }
    }
}

impl CallBook {
    pub(super) fn attempted(&mut self) {
        self.calls.attempted += 1;
    }

    pub(super) fn set_up(&mut self, latency: Duration) {
        self.calls.answered += 1;
        self.setup.saturating_record(latency.as_nanos() as u64);
    }

    pub(super) fn ended(&mut self, latency: Option<Duration>) {
        self.calls.ended += 1;
        if let Some(latency) = latency {
            self.ending.saturating_record(latency.as_nanos() as u64);
        }
    }

    pub(super) fn passed_on(&mut self) {
        self.calls.byes_passed_on += 1;
    }

    pub(super) fn refused(&mut self, status: u16) {
        *self.calls.refused_by_status.entry(status).or_default() += 1;
    }

    pub(super) fn add(&mut self, violation: Violation, describe: impl FnOnce() -> String) {
        self.calls.violations.add(violation, describe);
    }

    pub(super) fn add_many(
        &mut self,
        violation: Violation,
        count: u64,
        describe: impl FnOnce() -> String,
    ) {
        self.calls.violations.add_many(violation, count, describe);
    }

    /// Calls that the caller has ended and the callee has not heard of.
    pub(super) fn byes_missing(&self) -> u64 {
        self.calls.ended.saturating_sub(self.calls.byes_passed_on).into()
    }

    pub(super) fn answered(&self) -> u32 {
        self.calls.answered
    }

    pub(super) fn violations(&self) -> u64 {
        self.calls.violations.total()
    }

    /// With how many UEs have registered, of how many.
    pub(super) fn report(self, (registered, registering): (u32, u32)) -> CallsThrough {
        CallsThrough {
            passed: self.calls.violations.total() == 0,
            registering,
            registered,
            setup_latency: Percentiles::of_ns(&self.setup),
            ending_latency: Percentiles::of_ns(&self.ending),
            ..self.calls
        }
    }
}

impl CallsThrough {
    /// The table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if self.registering > 0 {
            let _ = writeln!(
                text,
                "\n  UEs         {} of {} registered",
                self.registered, self.registering
            );
        }
        let _ = writeln!(
            text,
            "\n  calls       {} attempted, {} answered, {} ended, {} BYEs passed on",
            self.attempted, self.answered, self.ended, self.byes_passed_on
        );
        for (status, count) in &self.refused_by_status {
            let _ = writeln!(text, "              {count} answered {status}");
        }
        for (name, it) in
            [("INVITE to 200", &self.setup_latency), ("BYE to 200", &self.ending_latency)]
        {
            if it.count > 0 {
                let _ = writeln!(
                    text,
                    "  {name:<20}p50 {}, p99 {}, max {}",
                    show_us(it.p50_us),
                    show_us(it.p99_us),
                    show_us(it.max_us)
                );
            }
        }
        self.violations.write_verdict(
            &mut text,
            self.passed,
            "every call came up, and ended when it should",
        );
        text
    }
}
