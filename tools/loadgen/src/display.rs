//! Progress while a run lasts: bars on a terminal, a line per second elsewhere.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::report::show_us;

/// What is shown.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// What the fleet is doing.
    pub phase: Cow<'static, str>,
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

impl Figures {
    /// Of several processes: counts add up, of latencies the worst stands.
    #[must_use]
    pub fn together(all: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> u64| all.iter().map(of).sum::<u64>();
        let most = |of: fn(&Self) -> u64| all.iter().map(of).max().unwrap_or(0);
        Self {
            phase: all
                .iter()
                .map(|it| it.phase.clone())
                .find(|it| !it.is_empty())
                .unwrap_or_default(),
            calls_up: all.iter().map(|it| it.calls_up).sum(),
            calls_bound: all.iter().map(|it| it.calls_bound).sum(),
            messages: sum(|it| it.messages),
            deliveries: sum(|it| it.deliveries),
            p50_ns: most(|it| it.p50_ns),
            p99_ns: most(|it| it.p99_ns),
            violations: sum(|it| it.violations),
        }
    }
}

/// Where it is shown: on standard error, so that the summary can be piped.
pub struct Display {
    form: Form,
    calls: u32,
    last: Figures,
    last_at: Instant,
}

/// For whom.
enum Form {
    /// A terminal.
    Bar(ProgressBar),
    /// A file or a pipe.
    Lines,
    /// The process that has started this one.
    Json,
}

const INTERVAL: Duration = Duration::from_secs(1);

impl Display {
    /// For so many calls.
    #[must_use]
    pub fn new(sessions: u32) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::of(Form::Lines, sessions);
        }
        let style =
            ProgressStyle::with_template("{elapsed:>5} [{bar:30}] {pos}/{len} calls up, {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self::of(Form::Bar(ProgressBar::new(sessions.into()).with_style(style)), sessions)
    }

    /// For the process that has started this one.
    #[must_use]
    pub fn for_parent() -> Self {
        Self::of(Form::Json, 0)
    }

    fn of(form: Form, calls: u32) -> Self {
        Self { form, calls, last: Figures::default(), last_at: Instant::now() }
    }

    /// A second has passed since the last time.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.last_at + INTERVAL
    }

    /// Shows.
    pub fn show(&mut self, figures: &Figures, now: Instant) {
        let seconds = (now - self.last_at).as_secs_f64();
        let last = std::mem::replace(&mut self.last, figures.clone());
        self.last_at = now;
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let mut text = figures.phase.clone().into_owned();
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
        match &self.form {
            Form::Bar(bar) => {
                bar.set_position(figures.calls_up.into());
                bar.set_message(text);
            }
            Form::Lines => eprintln!("{}/{} calls up, {text}", figures.calls_up, self.calls),
            Form::Json => eprintln!("{}", serde_json::json!(figures)),
        }
    }

    /// Says something that stays.
    pub fn note(&self, text: &str) {
        match &self.form {
            Form::Bar(bar) => bar.println(text),
            Form::Lines | Form::Json => eprintln!("{text}"),
        }
    }

    /// Makes room for the summary.
    pub fn finish(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}
