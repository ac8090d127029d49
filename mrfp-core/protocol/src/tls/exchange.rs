//! What OpenSSL's callbacks and a handshake tell each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::ssl::Ssl;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Psk;
use super::keys::TrafficSecrets;
use super::profile::EXCHANGE_INDEX;

/// Hangs on one OpenSSL object, because callbacks are `'static` and reach nothing else. The locks
/// are never contended: OpenSSL calls back only inside our own call, on the same thread; they are
/// there since OpenSSL hands the callbacks a shared reference.
#[derive(Default)]
pub(super) struct Exchange {
    credential: Mutex<Option<Credential>>,
    secrets: Mutex<TrafficSecrets>,
}

/// An identity and its key.
pub(super) struct Credential {
    pub(super) identity: Vec<u8>,
    pub(super) key: Psk,
}

impl Exchange {
    /// Hangs an empty exchange on `ssl`.
    pub(super) fn attach(ssl: &mut Ssl, credential: Option<Credential>) {
        let exchange = Self { credential: Mutex::new(credential), secrets: Mutex::default() };
        ssl.set_ex_data(*EXCHANGE_INDEX, exchange);
    }

    pub(super) fn set_credential(&self, credential: Credential) {
        *lock(&self.credential) = Some(credential);
    }

    pub(super) fn take_secrets(&self) -> TrafficSecrets {
        std::mem::take(&mut *lock(&self.secrets))
    }

    /// The server's key callback: the key looked up for the identity we read ahead. If OpenSSL read
    /// another one (which takes a broken message), a key nobody knows.
    pub(super) fn server_key(
        &self,
        identity: Option<&[u8]>,
        out: &mut [u8],
    ) -> Result<usize, ErrorStack> {
        let credential = lock(&self.credential);
        match (credential.as_ref(), identity) {
            (Some(credential), Some(identity))
                if bool::from(credential.identity.ct_eq(identity)) =>
            {
                Ok(copy_key(&credential.key, out))
            }
            _ => {
                let key = &mut out[..DUMMY_KEY_BYTES];
                rand_bytes(key)?;
                Ok(DUMMY_KEY_BYTES)
            }
        }
    }

    /// The client's key callback. OpenSSL zeroes the identity buffer, which ends the string.
    pub(super) fn client_key(&self, identity: &mut [u8], out: &mut [u8]) -> usize {
        let credential = lock(&self.credential);
        let Some(credential) = credential.as_ref() else {
            return 0;
        };
        let length = credential.identity.len();
        let Some(target) = identity.get_mut(..length) else {
            return 0;
        };
        target.copy_from_slice(&credential.identity);
        if let Some(end) = identity.get_mut(length) {
            *end = 0;
        }
        copy_key(&credential.key, out)
    }

    /// The key log callback (NSS format: label, client random, secret).
    pub(super) fn record_secret(&self, line: &str) {
        let mut words = line.split(' ');
        if let Some(label) = words.next().filter(|label| TrafficSecrets::wants(label))
            && let Some(secret) = words.nth(1).and_then(decode_secret)
        {
            lock(&self.secrets).record(label, secret.as_ref());
        }
    }
}

/// A key for an identity nobody has: the handshake goes on and fails as for a wrong key.
pub(super) fn dummy_key() -> Result<Psk, ErrorStack> {
    let mut bytes = vec![0; DUMMY_KEY_BYTES];
    rand_bytes(&mut bytes)?;
    Ok(Psk::new(bytes).expect("a dummy key has a key's length"))
}

fn copy_key(key: &Psk, out: &mut [u8]) -> usize {
    let key = key.expose();
    match out.get_mut(..key.len()) {
        Some(target) => {
            target.copy_from_slice(key);
            key.len()
        }
        None => 0,
    }
}

fn decode_secret(hex: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    if hex.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(secret)
}

/// A poisoned lock is still ours alone: the data are set in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as the TEKs MIKEY derives at most, so that a dummy key costs what a real one costs.
const DUMMY_KEY_BYTES: usize = 32;
