//! What a relay stores of a user: H(user:realm:password), not the password.

use std::fmt;

use md5::Md5;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Digest algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// RFC 7616.
    Sha256,
    /// RFC 2617; what RFC 4976 was written for.
    Md5,
}

impl Algorithm {
    /// The token of the `algorithm` parameter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }
}

/// H(A1) of one user in one realm, under one or both algorithms (RFC 7616 section 3.4.2).
///
/// As good as the password within its realm: zeroised when dropped, redacted in `Debug`.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct Credentials {
    sha256: Option<[u8; 32]>,
    md5: Option<[u8; 16]>,
}

impl Credentials {
    /// Both hashes of a user. `user` and `realm` are what stands between the quotes in the headers.
    #[must_use]
    pub fn derive(user: &[u8], realm: &[u8], password: &[u8]) -> Self {
        let parts: [&[u8]; 5] = [user, b":", realm, b":", password];
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        for part in parts {
            sha256.update(part);
            md5.update(part);
        }
        Self { sha256: Some(sha256.finalize().into()), md5: Some(md5.finalize().into()) }
    }

    /// From stored hashes. `None`: a hash has not the length of its kind, or there is none.
    #[must_use]
    pub fn from_hashes(sha256: Option<&[u8]>, md5: Option<&[u8]>) -> Option<Self> {
        let credentials = Self {
            sha256: sha256.map(TryInto::try_into).transpose().ok()?,
            md5: md5.map(TryInto::try_into).transpose().ok()?,
        };
        (credentials.sha256.is_some() || credentials.md5.is_some()).then_some(credentials)
    }

    /// Whether a response under this algorithm can be checked.
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Sha256 => self.sha256.is_some(),
            Algorithm::Md5 => self.md5.is_some(),
        }
    }

    /// A hash in hexadecimal digits, as the digest is made of; `None` where it is not stored.
    #[must_use]
    pub fn ha1(&self, algorithm: Algorithm) -> Option<Zeroizing<String>> {
        let hash: &[u8] = match algorithm {
            Algorithm::Sha256 => self.sha256.as_ref()?,
            Algorithm::Md5 => self.md5.as_ref()?,
        };
        let mut text = Zeroizing::new(String::with_capacity(2 * hash.len()));
        push_hex(hash, &mut text);
        Some(text)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// Appends lower-case hexadecimal digits.
pub(super) fn push_hex(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
