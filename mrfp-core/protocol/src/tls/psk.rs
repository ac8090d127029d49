//! Pre-shared keys, and finding the identity a client names before OpenSSL asks for its key.

use zeroize::Zeroize;

use super::client_hello::{ClientHello, Reader};
use super::numbers::{
    CONTENT_ALERT, CONTENT_HANDSHAKE, MESSAGE_CLIENT_HELLO, MESSAGE_CLIENT_KEY_EXCHANGE,
};

/// A pre-shared key: the TEK of one MIKEY crypto session. Zeroised on drop, never printed.
#[derive(Clone)]
pub struct Psk(Vec<u8>);

impl Psk {
    /// Takes the key over. 16 to 64 bytes (RFC 4279 section 5.3 demands support up to 64).
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Option<Self> {
        if (16..=64).contains(&bytes.len()) {
            Some(Self(bytes))
        } else {
            bytes.zeroize();
            None
        }
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Psk {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Psk(redacted)")
    }
}

/// Reads the client's plaintext handshake messages ahead of OpenSSL, whose key callback cannot
/// borrow the caller's index: the key must be at hand before OpenSSL sees the identity.
pub(super) struct IdentityScanner {
    /// Handshake bytes whose message is not whole yet.
    partial: Vec<u8>,
    /// A TLS 1.3 identity stands in the ClientHello; look for it there too.
    tls13: bool,
    /// The client's messages are encrypted from now on, or everything was found.
    done: bool,
}

/// A handshake message longer than any a PSK client has reason to send.
#[derive(Debug)]
pub(super) struct MessageTooLong;

impl IdentityScanner {
    pub(super) const fn new(tls13: bool) -> Self {
        Self { partial: Vec::new(), tls13, done: false }
    }

    /// Takes one whole record (header included); the identity if this record completes the message
    /// that names it.
    pub(super) fn scan(&mut self, record: &[u8]) -> Result<Option<Vec<u8>>, MessageTooLong> {
        if self.done {
            return Ok(None);
        }
        match record[0] {
            CONTENT_HANDSHAKE => self.partial.extend_from_slice(&record[5..]),
            CONTENT_ALERT => return Ok(None),
            // ChangeCipherSpec or TLS 1.3 ciphertext: nothing after it is plaintext.
            _ => {
                self.finish();
                return Ok(None);
            }
        }
        let mut at = 0;
        let mut found = None;
        while found.is_none() {
            let rest = &self.partial[at..];
            let &[message_type, high, middle, low, ..] = rest else {
                break;
            };
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(MessageTooLong);
            }
            let Some(body) = rest.get(4..4 + length) else {
                break;
            };
            found = match message_type {
                MESSAGE_CLIENT_HELLO if self.tls13 => {
                    ClientHello::parse(body).and_then(ClientHello::psk_identity).map(<[u8]>::to_vec)
                }
                MESSAGE_CLIENT_KEY_EXCHANGE => {
                    self.done = true;
                    identity_in_client_key_exchange(body)
                }
                _ => None,
            };
            at += 4 + length;
        }
        self.partial.drain(..at);
        if self.done {
            self.finish();
        }
        Ok(found)
    }

    fn finish(&mut self) {
        self.done = true;
        self.partial = Vec::new();
    }
}

/// RFC 4279 section 2: every PSK key exchange begins with `opaque psk_identity<0..2^16-1>`.
fn identity_in_client_key_exchange(body: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(body);
    reader.vector16().map(<[u8]>::to_vec)
}

/// Longest handshake message read ahead. A PSK ClientHello has a few hundred bytes, a
/// ClientKeyExchange an identity and at most one DH value.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024;
