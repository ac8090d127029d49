//! Progress while a run lasts: bars on a terminal, a line per second elsewhere.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::show_us;

/// What is shown.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    /// What the fleet is doing.
    pub phase: &'static str,
    /// Calls that are up.
    pub calls_up: u32,
    /// Calls that came up so far.
    pub calls_bound: u32,
    /// Messages sent so far.
    pub messages: u64,
    /// Deliveries so far.
    pub deliveries: u64,
    /// Median delivery latency of the last second, the worst thread's.
    pub p50_ns: u64,
    /// 99th percentile of the same.
    pub p99_ns: u64,
    /// Violations so far.
    pub violations: u64,
}

/// Where it is shown: on standard error, so that the summary can be piped.
pub struct Display {
    bar: Option<ProgressBar>,
    calls: u32,
    last: Figures,
    last_at: Instant,
}

const INTERVAL: Duration = Duration::from_secs(1);

impl Display {
    /// For so many calls.
    #[must_use]
    pub fn new(sessions: u32) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{elapsed:>5} [{bar:30}] {pos}/{len} calls up, {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(sessions.into()).with_style(style)
        });
        Self { bar, calls: sessions, last: Figures::default(), last_at: Instant::now() }
    }

    /// A second has passed since the last time.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.last_at + INTERVAL
    }

    /// Shows.
    pub fn show(&mut self, figures: &Figures, now: Instant) {
        let seconds = (now - self.last_at).as_secs_f64();
        let last = std::mem::replace(&mut self.last, *figures);
        self.last_at = now;
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let mut text = figures.phase.to_owned();
        let setups = rate(figures.calls_bound.into(), last.calls_bound.into());
        if setups > 0.0 {
            let _ = write!(text, ", {setups:.0} calls/s set up");
        }
        let deliveries = rate(figures.deliveries, last.deliveries);
        if deliveries > 0.0 {
            let messages = rate(figures.messages, last.messages);
            let _ = write!(text, ", {messages:.0} messages/s sent, {deliveries:.0}/s delivered");
        }
        if deliveries > 0.0 && figures.p99_ns > 0 {
            let (p50, p99) = (figures.p50_ns as f64 / 1e3, figures.p99_ns as f64 / 1e3);
            let _ = write!(text, " after p50 {}, p99 {}", show_us(p50), show_us(p99));
        }
        if figures.violations > 0 {
            let _ = write!(text, ", {} violations", figures.violations);
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(figures.calls_up.into());
                bar.set_message(text);
            }
            None => eprintln!("{}/{} calls up, {text}", figures.calls_up, self.calls),
        }
    }

    /// Says something that stays.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Makes room for the summary.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
