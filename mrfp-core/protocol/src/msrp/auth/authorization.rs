//! The Authorization header of an AUTH request.

use super::Algorithm;

/// A read Authorization header, borrowed. Quoted values stand without their quotes and with their
/// escapes, which is how they enter the digest (RFC 7616 section 3.4.1, `unq`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authorization<'a> {
    /// Who wants to be taken for whom.
    pub username: &'a [u8],
    /// Realm the credentials are for.
    pub realm: &'a [u8],
    /// Nonce of the challenge, or the `nextnonce` of an earlier 200.
    pub nonce: &'a [u8],
    /// Where the client computed the digest for, where it says so.
    pub uri: Option<&'a [u8]>,
    /// Algorithm; absent means MD5.
    pub algorithm: Algorithm,
    /// The client's own nonce.
    pub cnonce: &'a [u8],
    /// How often the nonce has been used, this time included, 8 hexadecimal digits as received.
    pub nonce_count_text: &'a [u8],
    /// The same as a number.
    pub nonce_count: u32,
    /// The proof, in hexadecimal digits.
    pub response: &'a [u8],
}

/// Why an Authorization header is not even checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthorizationError {
    /// Not the grammar, or something mandatory is missing: username, realm, nonce, cnonce, nc, qop
    /// and response (RFC 4976 section 9.1).
    Malformed,
    /// A scheme other than Digest.
    Scheme,
    /// An algorithm that is not offered, or a `-sess` one (RFC 4976 section 9.1).
    Algorithm,
    /// A qop other than auth.
    Qop,
    /// The user name is hashed (RFC 7616 section 3.4.4), which no challenge of ours allows.
    UserHash,
}

impl<'a> Authorization<'a> {
    /// Reads the value of the header: parameters in any order, names without regard to case,
    /// unknown ones are skipped, none may stand twice.
    ///
    /// # Errors
    ///
    /// As [`AuthorizationError`] says.
    pub fn parse(value: &'a [u8]) -> Result<Self, AuthorizationError> {
        let value = trim(value);
        let end = value.iter().position(|&byte| is_space(byte)).unwrap_or(value.len());
        if !value[..end].eq_ignore_ascii_case(b"Digest") {
            return Err(AuthorizationError::Scheme);
        }
        let mut found = Found::default();
        let mut rest = &value[end..];
        while let Some((name, parameter, after)) = next_parameter(rest)? {
            found.add(name, parameter)?;
            rest = after;
        }
        found.finish()
    }
}

#[derive(Default)]
struct Found<'a> {
    username: Option<&'a [u8]>,
    realm: Option<&'a [u8]>,
    nonce: Option<&'a [u8]>,
    uri: Option<&'a [u8]>,
    algorithm: Option<&'a [u8]>,
    cnonce: Option<&'a [u8]>,
    nonce_count: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    qop: Option<&'a [u8]>,
    userhash: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    fn add(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), AuthorizationError> {
        let slot = match name.to_ascii_lowercase().as_slice() {
            b"username" => &mut self.username,
            b"realm" => &mut self.realm,
            b"nonce" => &mut self.nonce,
            b"uri" => &mut self.uri,
            b"algorithm" => &mut self.algorithm,
            b"cnonce" => &mut self.cnonce,
            b"nc" => &mut self.nonce_count,
            b"response" => &mut self.response,
            b"qop" => &mut self.qop,
            b"userhash" => &mut self.userhash,
            _ => return Ok(()),
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(AuthorizationError::Malformed),
        }
    }

    fn finish(self) -> Result<Authorization<'a>, AuthorizationError> {
        const MISSING: AuthorizationError = AuthorizationError::Malformed;
        if self.userhash.is_some_and(|value| !value.eq_ignore_ascii_case(b"false")) {
            return Err(AuthorizationError::UserHash);
        }
        if !self.qop.ok_or(MISSING)?.eq_ignore_ascii_case(b"auth") {
            return Err(AuthorizationError::Qop);
        }
        let algorithm = match self.algorithm {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case(b"MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case(b"SHA-256") => Algorithm::Sha256,
            Some(_) => return Err(AuthorizationError::Algorithm),
        };
        let nonce_count_text = self.nonce_count.ok_or(MISSING)?;
        Ok(Authorization {
            username: self.username.ok_or(MISSING)?,
            realm: self.realm.ok_or(MISSING)?,
            nonce: self.nonce.ok_or(MISSING)?,
            uri: self.uri,
            algorithm,
            cnonce: self.cnonce.ok_or(MISSING)?,
            nonce_count_text,
            nonce_count: nonce_count(nonce_count_text).ok_or(MISSING)?,
            response: self.response.ok_or(MISSING)?,
        })
    }
}

/// Name, value and what follows.
type Parameter<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// `name = (token / quoted-string)` up to a comma or the end; `Ok(None)` where nothing is left.
fn next_parameter(bytes: &[u8]) -> Result<Option<Parameter<'_>>, AuthorizationError> {
    // Empty list elements are allowed (RFC 7230 section 7).
    let start = bytes.iter().position(|&byte| !is_space(byte) && byte != b',');
    let Some(start) = start else { return Ok(None) };
    let bytes = &bytes[start..];
    let equals =
        bytes.iter().position(|&byte| byte == b'=').ok_or(AuthorizationError::Malformed)?;
    let name = trim(&bytes[..equals]);
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(AuthorizationError::Malformed);
    }
    let after = skip_spaces(&bytes[equals + 1..]);
    let (value, rest) = match after {
        [b'"', quoted @ ..] => quoted_string(quoted).ok_or(AuthorizationError::Malformed)?,
        _ => {
            let end = after.iter().position(|&byte| !is_token(byte)).unwrap_or(after.len());
            if end == 0 {
                return Err(AuthorizationError::Malformed);
            }
            after.split_at(end)
        }
    };
    match skip_spaces(rest) {
        [] => Ok(Some((name, value, &[]))),
        [b',', rest @ ..] => Ok(Some((name, value, rest))),
        [_, ..] => Err(AuthorizationError::Malformed),
    }
}

/// What stands up to the closing quote, and what follows it.
fn quoted_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&bytes[..index], &bytes[index + 1..])),
            _ => {}
        }
    }
    None
}

/// `8LHEX`; upper case is let pass.
fn nonce_count(text: &[u8]) -> Option<u32> {
    if text.len() != 8 {
        return None;
    }
    text.iter().try_fold(0, |number: u32, &byte| {
        char::from(byte).to_digit(16).map(|digit| number << 4 | digit)
    })
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte)
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| !is_space(byte)).unwrap_or(bytes.len());
    &bytes[start..]
}

fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = skip_spaces(bytes);
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
    &bytes[..end]
}
