//! The KMS's own ticket protection keys: the newest makes tickets, older ones open those that live.

use std::time::Duration;

use super::{OWN_KEY_BYTES, OWN_KEY_IDENTITY_BYTES};
use crate::mikey::exchange::{random_bytes, random_key};
use crate::mikey::{NtpTime, Random, TicketProtectionKey};

/// Keys, oldest first.
#[derive(Clone, Default, Debug)]
pub(super) struct OwnKeys(pub(super) Vec<OwnKey>);

/// A key and its time.
#[derive(Clone, Debug)]
pub(super) struct OwnKey {
    pub(super) key: TicketProtectionKey,
    /// When it was made.
    pub(super) made: NtpTime,
    /// When the last ticket it protects has expired; `None` for the newest.
    pub(super) retires: Option<NtpTime>,
}

impl OwnKeys {
    /// The key for new tickets, made with the first of them where nobody has made one.
    pub(super) fn newest(&mut self, now: NtpTime, random: Random<'_>) -> &TicketProtectionKey {
        if self.0.is_empty() {
            self.0.push(OwnKey::make(now, random));
        }
        &self.0.last().expect("just made").key
    }

    /// The key of that identity.
    pub(super) fn find(&self, identity: &[u8]) -> Option<&TicketProtectionKey> {
        self.0.iter().map(|own| &own.key).find(|key| key.identity == identity)
    }

    /// With a new key for new tickets; those from before stay for `overlap`.
    pub(super) fn rotated(&self, now: NtpTime, overlap: Duration, random: Random<'_>) -> Self {
        let mut keys = self.0.clone();
        if let Some(last) = keys.last_mut() {
            last.retires = Some(now.after(overlap));
        }
        keys.push(OwnKey::make(now, random));
        Self(keys)
    }

    /// Without the keys of tickets that have all expired.
    pub(super) fn unexpired(&self, now: NtpTime) -> Self {
        let lives = |own: &&OwnKey| own.retires.is_none_or(|retires| !retires.is_before(now));
        Self(self.0.iter().filter(lives).cloned().collect())
    }
}

impl OwnKey {
    fn make(now: NtpTime, random: Random<'_>) -> Self {
        let identity = random_bytes(random, OWN_KEY_IDENTITY_BYTES);
        let key = TicketProtectionKey { identity, key: random_key(random, OWN_KEY_BYTES) };
        Self { key, made: now, retires: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> NtpTime {
        NtpTime(seconds << 32 | 1 << 63)
    }

    #[test]
    fn a_replaced_key_stays_as_long_as_its_tickets() {
        let mut byte = 0;
        let mut random = |out: &mut [u8]| {
            byte += 1;
            out.fill(byte);
        };
        let mut keys = OwnKeys::default();
        let first = keys.newest(at(10), &mut random).identity.clone();
        assert_eq!(keys.newest(at(11), &mut random).identity, first, "made once");
        let mut keys = keys.rotated(at(20), Duration::from_secs(5), &mut random);
        assert_ne!(keys.newest(at(20), &mut random).identity, first);
        assert!(keys.unexpired(at(25)).find(&first).is_some());
        let left = keys.unexpired(at(26));
        assert!(left.find(&first).is_none());
        assert_eq!(left.0.len(), 1);
    }
}
