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

/// The text is no stored credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CredentialsError;

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not of the form sha-256:<64 hex digits>,md5:<32 hex digits> (one may be absent)",
        )
    }
}

impl std::error::Error for CredentialsError {}

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

    /// Reads the stored form, `sha-256:<hex>,md5:<hex>` in any order, one of them may be absent.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let mut credentials = Self::default();
        for part in text.split(',') {
            let (name, hex) = part.trim().split_once(':').ok_or(CredentialsError)?;
            if name.eq_ignore_ascii_case("sha-256") && credentials.sha256.is_none() {
                credentials.sha256 = Some(from_hex(hex)?);
            } else if name.eq_ignore_ascii_case("md5") && credentials.md5.is_none() {
                credentials.md5 = Some(from_hex(hex)?);
            } else {
                return Err(CredentialsError);
            }
        }
        Ok(credentials)
    }

    /// The stored form, as [`parse`](Self::parse) reads it.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(128));
        let mut put = |name: &str, hash: &[u8]| {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push(':');
            push_hex(hash, &mut text);
        };
        if let Some(hash) = &self.sha256 {
            put("sha-256", hash);
        }
        if let Some(hash) = &self.md5 {
            put("md5", hash);
        }
        text
    }

    /// Whether a response under this algorithm can be checked.
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Sha256 => self.sha256.is_some(),
            Algorithm::Md5 => self.md5.is_some(),
        }
    }

    /// H(A1) in the hexadecimal form the digest is made of; `None` where it is not stored.
    pub(super) fn ha1(&self, algorithm: Algorithm) -> Option<Zeroizing<String>> {
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

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], CredentialsError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(CredentialsError);
    let text = text.trim().as_bytes();
    if text.len() != 2 * N {
        return Err(CredentialsError);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(bytes)
}
