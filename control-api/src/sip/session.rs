//! Session timers (RFC 4028), the UAS side: who refreshes, how often, and when it is over.

use std::time::Duration;

use rsipstack::sip::{Header, Headers};

/// The default of Min-SE where the request names none (RFC 4028 section 5).
const MIN_SE_DEFAULT: Duration = Duration::from_secs(90);

/// The BYE goes out this long before the session expires, or a third of the interval where that
/// is less (RFC 4028 section 10).
const EXPIRY_MARGIN_MAX: Duration = Duration::from_secs(32);

/// What was agreed for one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    pub(super) interval: Duration,
    pub(super) refresher: Refresher,
    /// The peer knows session timers, so `Require: timer` may be put in the answer.
    supported: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refresher {
    Peer,
    Us,
}

/// The request's Session-Expires is below our Min-SE: 422.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IntervalTooSmall;

impl Terms {
    /// Agrees on the terms of a session from an INVITE or UPDATE (RFC 4028 section 9); `None`:
    /// no session timer, the peer does not know them.
    pub(super) fn negotiate(
        headers: &Headers,
        default: Duration,
        min_se: Duration,
    ) -> Result<Option<Self>, IntervalTooSmall> {
        let supported = headers.iter().any(|header| match header {
            Header::Supported(tags) => lists_timer(tags.value()),
            Header::Require(tags) => lists_timer(tags.value()),
            _ => false,
        });
        let Some(value) = field(headers, "Session-Expires", Some("x")) else {
            let floor = field(headers, "Min-SE", None)
                .and_then(|value| delta_seconds(&value))
                .unwrap_or(MIN_SE_DEFAULT);
            let interval = default.max(floor);
            return Ok(supported.then_some(Self {
                interval,
                refresher: Refresher::Peer,
                supported,
            }));
        };
        let Some(interval) = delta_seconds(&value) else {
            return Ok(None);
        };
        if interval < min_se {
            // Only a peer that knows session timers knows 422. With another one a proxy put the
            // header there against the rules; to follow it would let a caller have us send
            // UPDATE as often as it likes.
            return if supported { Err(IntervalTooSmall) } else { Ok(None) };
        }
        let refresher = value
            .split(';')
            .skip(1)
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("refresher"))
            .map(|(_, who)| who.trim().to_ascii_lowercase());
        // RFC 4028 section 9, table 2: the request's choice stands; without one we leave the
        // work to the peer if it can.
        let refresher = match refresher.as_deref() {
            Some("uac") => Refresher::Peer,
            Some("uas") => Refresher::Us,
            Some(_) | None if supported => Refresher::Peer,
            Some(_) | None => Refresher::Us,
        };
        Ok(Some(Self { interval, refresher, supported }))
    }

    /// The headers of our 2xx.
    pub(super) fn headers(&self) -> Vec<Header> {
        let seconds = self.interval.as_secs();
        let mut headers = Vec::with_capacity(2);
        let refresher = match self.refresher {
            Refresher::Peer => "uac",
            Refresher::Us => "uas",
        };
        headers.push(Header::SessionExpires(format!("{seconds};refresher={refresher}").into()));
        if self.refresher == Refresher::Peer && self.supported {
            headers.push(Header::Require("timer".into()));
        }
        headers
    }

    /// The header of a request of ours that refreshes the session on the same terms. The roles are those
    /// of that request: in it we are the UAC (RFC 4028 section 7.4).
    pub(super) fn asked(&self) -> Header {
        let seconds = self.interval.as_secs();
        let refresher = match self.refresher {
            Refresher::Peer => "uas",
            Refresher::Us => "uac",
        };
        Header::SessionExpires(format!("{seconds};refresher={refresher}").into())
    }

    /// From a 2xx until the session is taken as lost.
    pub(super) fn expires_after(&self) -> Duration {
        self.interval - EXPIRY_MARGIN_MAX.min(self.interval / 3)
    }

    /// From a 2xx until we refresh, where that is on us.
    pub(super) fn refresh_after(&self) -> Duration {
        self.interval / 2
    }
}

fn lists_timer(tags: &str) -> bool {
    tags.split(',').any(|tag| tag.trim().eq_ignore_ascii_case("timer"))
}

fn delta_seconds(value: &str) -> Option<Duration> {
    let digits = value.split(';').next().unwrap_or_default().trim();
    digits.parse::<u32>().ok().map(|seconds| Duration::from_secs(u64::from(seconds)))
}

/// The value of a header the stack keeps in one of several variants.
fn field(headers: &Headers, name: &str, compact: Option<&str>) -> Option<String> {
    headers.iter().find_map(|header| match header {
        Header::SessionExpires(value) if name == "Session-Expires" => {
            Some(value.value().to_owned())
        }
        Header::MinSE(value) if name == "Min-SE" => Some(value.value().to_owned()),
        Header::Other(other, value)
            if other.eq_ignore_ascii_case(name)
                || compact.is_some_and(|compact| other.eq_ignore_ascii_case(compact)) =>
        {
            Some(value.clone())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(1800);
    const MIN_SE: Duration = Duration::from_secs(90);

    fn negotiate(headers: Vec<Header>) -> Result<Option<Terms>, IntervalTooSmall> {
        Terms::negotiate(&headers.into(), DEFAULT, MIN_SE)
    }

    #[test]
    fn keeps_the_refresher_the_request_names() {
        let terms = negotiate(vec![
            Header::Supported("timer".into()),
            Header::SessionExpires("600;refresher=uas".into()),
        ]);
        let terms = terms.unwrap().unwrap();
        assert_eq!(terms.refresher, Refresher::Us);
        assert_eq!(terms.interval, Duration::from_secs(600));
        assert_eq!(terms.expires_after(), Duration::from_secs(568));
    }

    #[test]
    fn refuses_an_interval_below_ours() {
        let headers = vec![Header::Supported("timer".into()), Header::SessionExpires("60".into())];
        assert_eq!(negotiate(headers), Err(IntervalTooSmall));
    }

    #[test]
    fn sends_no_refreshes_faster_than_our_minimum_to_a_peer_that_does_not_know_them() {
        for interval in ["0", "1", "89;refresher=uas"] {
            assert_eq!(negotiate(vec![Header::SessionExpires(interval.into())]), Ok(None));
        }
        let terms = negotiate(vec![Header::SessionExpires("90".into())]).unwrap().unwrap();
        assert_eq!(terms.refresher, Refresher::Us);
    }

    #[test]
    fn runs_no_timer_for_a_peer_that_does_not_know_them() {
        assert_eq!(negotiate(vec![Header::Supported("100rel".into())]), Ok(None));
    }

    #[test]
    fn honours_the_min_se_of_the_request_when_choosing() {
        let headers = vec![Header::Supported("timer".into()), Header::MinSE("3600".into())];
        let terms = negotiate(headers).unwrap().unwrap();
        assert_eq!(terms.interval, Duration::from_secs(3600));
        assert_eq!(terms.refresher, Refresher::Peer);
    }
}
