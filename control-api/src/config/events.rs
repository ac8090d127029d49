//! Section `[events]`: what an application is told.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Config;
use super::check::{Check, Finding, SECONDS_MAX, Step, ensure};
use super::kms::trusting;

/// Section `[events]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Where events are posted to; `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// PEM files with certificates of the authorities of an https: one.
    pub authorities: Vec<PathBuf>,
    /// Events that may wait; what comes beyond is dropped and counted.
    pub waiting_max: usize,
    /// From an attempt to the end of the answer.
    pub timeout_milliseconds: u64,
    /// How long after it has happened an event is worth telling; it is tried again until then.
    pub age_seconds_max: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            webhook: None,
            authorities: Vec::new(),
            waiting_max: 4096,
            timeout_milliseconds: 2000,
            age_seconds_max: 30,
        }
    }
}

impl Events {
    /// Whom the webhook is trusted by.
    ///
    /// # Errors
    /// A file cannot be read, or has no certificate.
    pub fn client_tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        trusting(&self.authorities)
    }
}

impl Config {
    pub(super) fn check_events(&self) -> Check {
        let events = &self.events;
        if let Some(webhook) = &events.webhook {
            let uri = webhook.parse::<axum::http::Uri>().ok();
            let scheme = uri.as_ref().and_then(|uri| uri.scheme_str());
            ensure(
                matches!(scheme, Some("http" | "https")),
                &["events", "webhook"],
                || "no URL of HTTP".to_owned(),
                || "write it like \"https://app.example.com/floors\"".to_owned(),
            )?;
            ensure(
                scheme != Some("https") || !events.authorities.is_empty(),
                &["events", "webhook"],
                || "no certificate of its server would be taken".to_owned(),
                || "name its authorities in events.authorities".to_owned(),
            )?;
        }
        ensure(
            events.waiting_max >= 1,
            &["events", "waiting_max"],
            || "nothing would ever be told".to_owned(),
            || "use 1 or more".to_owned(),
        )?;
        ensure(
            (1..=TIMEOUT_MILLISECONDS_MAX).contains(&events.timeout_milliseconds),
            &["events", "timeout_milliseconds"],
            || format!("outside 1 to {TIMEOUT_MILLISECONDS_MAX} milliseconds"),
            || "events wait for one another: a second or two is long".to_owned(),
        )?;
        ensure(
            (1..=SECONDS_MAX).contains(&events.age_seconds_max),
            &["events", "age_seconds_max"],
            || format!("outside 1 to {SECONDS_MAX} seconds"),
            || "what is older is better read with GET /api/v1/rooms/ROOM/floors".to_owned(),
        )?;
        events.client_tls().map(|_| ()).map_err(|message| Finding {
            path: ["events", "authorities"].map(Step::Name).to_vec(),
            message,
            remedy: "name PEM files with certificates of authorities".to_owned(),
        })
    }
}

/// Beyond a minute an application is not there.
const TIMEOUT_MILLISECONDS_MAX: u64 = 60_000;
