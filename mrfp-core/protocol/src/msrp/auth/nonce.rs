//! Nonces that need no memory until they are used: time and serial number under a keyed hash. What
//! is remembered is the highest nonce-count of the nonces used last.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::credentials::push_hex;

/// Nonces whose use is remembered. A nonce whose place has been taken by a later one counts as
/// stale, so this many clients may be between their challenge and their last use of its nonce.
const USES_REMEMBERED_MAX: usize = 4_096;
/// Bytes of the keyed hash that are kept.
const TAG_BYTES: usize = 16;
/// Bytes of time and serial number before it.
const STAMP_BYTES: usize = 16;
/// Characters of a nonce.
const NONCE_BYTES: usize = 2 * (STAMP_BYTES + TAG_BYTES);

/// Makes and checks nonces.
pub struct Nonces {
    key: Zeroizing<[u8; 32]>,
    lifetime_seconds: u64,
    serial: u64,
    /// By serial number modulo its length; written only for proven users, so that nobody else can
    /// push a use out of memory.
    uses: Vec<Use>,
}

#[derive(Clone, Copy, Default)]
struct Use {
    serial: u64,
    nonce_count: u32,
}

/// What is known of the nonce of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NonceState {
    /// Ours, young enough, and not yet used with this count. To be handed to [`Nonces::used`] once
    /// the digest has proved right.
    Fresh(NonceCount),
    /// Not ours (any more), or used with this count before. With a right digest the client gets a
    /// new challenge that says `stale=true` and needs no new password.
    Stale,
}

/// One use of one nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NonceCount {
    serial: u64,
    nonce_count: u32,
}

impl Nonces {
    /// `key`: random and secret. A nonce may be used for `lifetime_seconds`.
    #[must_use]
    pub fn new(key: [u8; 32], lifetime_seconds: u64) -> Self {
        let uses = vec![Use::default(); USES_REMEMBERED_MAX];
        Self { key: Zeroizing::new(key), lifetime_seconds, serial: 0, uses }
    }

    /// A new nonce. `now_seconds` counts from any fixed point.
    pub fn issue(&mut self, now_seconds: u64) -> String {
        self.serial += 1;
        let stamp = u128::from(now_seconds) << 64 | u128::from(self.serial);
        let stamp = stamp.to_be_bytes();
        let mut nonce = String::with_capacity(NONCE_BYTES);
        push_hex(&stamp, &mut nonce);
        let tag = self.tag(&stamp).finalize().into_bytes();
        push_hex(&tag[..TAG_BYTES], &mut nonce);
        nonce
    }

    /// What is known of a nonce.
    #[must_use]
    pub fn check(&self, nonce: &[u8], nonce_count: u32, now_seconds: u64) -> NonceState {
        let Some(bytes) = decode(nonce) else { return NonceState::Stale };
        let (stamp, tag) = bytes.split_at(STAMP_BYTES);
        if self.tag(stamp).verify_truncated_left(tag).is_err() {
            return NonceState::Stale;
        }
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let (made_seconds, serial) = (word(&stamp[..8]), word(&stamp[8..]));
        if now_seconds.saturating_sub(made_seconds) > self.lifetime_seconds {
            return NonceState::Stale;
        }
        let last = self.uses[self.place(serial)];
        if last.serial > serial || (last.serial == serial && nonce_count <= last.nonce_count) {
            return NonceState::Stale;
        }
        NonceState::Fresh(NonceCount { serial, nonce_count })
    }

    /// Remembers a use whose digest was right: neither it nor an earlier count is taken again
    /// (RFC 7616 section 5.5).
    pub fn used(&mut self, count: NonceCount) {
        let place = self.place(count.serial);
        self.uses[place] = Use { serial: count.serial, nonce_count: count.nonce_count };
    }

    fn place(&self, serial: u64) -> usize {
        (serial % self.uses.len() as u64) as usize
    }

    fn tag(&self, stamp: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice())
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(stamp);
        mac
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(redacted)")
    }
}

fn decode(nonce: &[u8]) -> Option<[u8; STAMP_BYTES + TAG_BYTES]> {
    if nonce.len() != NONCE_BYTES {
        return None;
    }
    let mut bytes = [0; STAMP_BYTES + TAG_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(nonce.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(bytes)
}
