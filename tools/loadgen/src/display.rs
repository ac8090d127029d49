//! Progress while a run lasts: bars on a terminal, a line per second elsewhere.

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
                ProgressStyle::with_template("{elapsed:>5} [{bar:30}] {pos}/{len} up  {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(sessions.into()).with_style(style)
        });
        Self { bar, last: Figures::default(), last_at: Instant::now() }
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
        let text = format!(
            "{}: {:.0} set-ups/s, {:.0} messages/s, {:.0} deliveries/s, p50 {}, p99 {}, {} violations",
            figures.phase,
            rate(figures.calls_bound.into(), last.calls_bound.into()),
            rate(figures.messages, last.messages),
            rate(figures.deliveries, last.deliveries),
            show_us(figures.p50_ns as f64 / 1e3),
            show_us(figures.p99_ns as f64 / 1e3),
            figures.violations
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(figures.calls_up.into());
                bar.set_message(text);
            }
            None => eprintln!("{} up, {text}", figures.calls_up),
        }
    }

    /// Makes room for the summary.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
