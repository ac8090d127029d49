//! NTP time as MIKEY carries it (RFC 3830 section 6.6, RFC 6043 section 6.4).

use std::time::Duration;

use super::codec::Timestamp;

/// Seconds from the NTP epoch, 1900-01-01, to the Unix epoch.
const UNIX_EPOCH_NTP_SECONDS: u64 = 2_208_988_800;

/// A moment: NTP seconds in the high 32 bits, fraction in the low. Seconds with the top bit set
/// count from 1900, others from 2036 (RFC 4330 section 3): 1968 to 2104.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From the time since the Unix epoch.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs().wrapping_add(UNIX_EPOCH_NTP_SECONDS);
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds << 32 | fraction)
    }

    /// The moment a timestamp names, `None` for a counter.
    #[must_use]
    pub fn from_timestamp(timestamp: Timestamp) -> Option<Self> {
        match timestamp {
            Timestamp::NtpUtc(_) | Timestamp::Ntp(_) | Timestamp::NtpUtc32(_) => {
                Some(Self(timestamp.to_bits()))
            }
            Timestamp::Counter(_) => None,
        }
    }

    /// Seconds since the Unix epoch: 1968 to 2104.
    #[must_use]
    pub fn to_unix_seconds(self) -> i64 {
        let era = if self.0 >> 63 == 1 { 0 } else { 1_i64 << 32 };
        i64::from(self.seconds()) + era - UNIX_EPOCH_NTP_SECONDS as i64
    }

    /// Whole seconds, as NTP-UTC-32 carries them.
    #[must_use]
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// This much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.wrapping_add(to_ntp_span(span)))
    }

    /// Whether this is before `other`.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self.order() < other.order()
    }

    /// Whether both are no further apart than `span`.
    #[must_use]
    pub fn is_within(self, span: Duration, other: Self) -> bool {
        self.order().abs_diff(other.order()) <= to_ntp_span(span)
    }

    /// Maps the era rule onto plain order: the half with the top bit set is the earlier one.
    pub(crate) fn order(self) -> u64 {
        self.0 ^ 1 << 63
    }
}

/// At most 136 years, which is as far as NTP time reaches.
pub(crate) fn to_ntp_span(span: Duration) -> u64 {
    let seconds = span.as_secs().min(u64::from(u32::MAX));
    let fraction = (u64::from(span.subsec_nanos()) << 32) / 1_000_000_000;
    (seconds << 32) | fraction
}
