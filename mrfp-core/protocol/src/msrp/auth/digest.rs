//! The computation of RFC 7616 section 3.4, for qop=auth and the method AUTH.

use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::credentials::push_hex;
use super::{Algorithm, Authorization, Credentials};

/// A digest in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof(String);

impl Proof {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the client has shown to know the password. `uri` is the digest-uri: what stands in the
/// header, or the rightmost URI of the To-Path (RFC 4976 section 9.1).
///
/// Takes the same time whatever the response is; to take the same time for users that do not exist,
/// hand in credentials made up once.
#[must_use]
pub fn is_valid(credentials: &Credentials, authorization: &Authorization<'_>, uri: &[u8]) -> bool {
    let Some(expected) = digest(credentials, authorization, b"AUTH", uri) else { return false };
    let given = authorization.response.to_ascii_lowercase();
    expected.0.as_bytes().ct_eq(&given).into()
}

/// `rspauth`: the relay's proof that it knows the password as well; `None` where the algorithm's
/// hash is not stored.
#[must_use]
pub fn response_proof(
    credentials: &Credentials,
    authorization: &Authorization<'_>,
    uri: &[u8],
) -> Option<Proof> {
    // RFC 7616 section 3.5: A2 without the method.
    digest(credentials, authorization, b"", uri)
}

fn digest(
    credentials: &Credentials,
    authorization: &Authorization<'_>,
    method: &[u8],
    uri: &[u8],
) -> Option<Proof> {
    let algorithm = authorization.algorithm;
    let ha1 = credentials.ha1(algorithm)?;
    let ha2 = hash(algorithm, &[method, uri]);
    Some(Proof(hash(
        algorithm,
        &[
            ha1.as_bytes(),
            authorization.nonce,
            authorization.nonce_count_text,
            authorization.cnonce,
            b"auth",
            ha2.as_bytes(),
        ],
    )))
}

/// H of the parts joined by colons, in hexadecimal digits.
fn hash(algorithm: Algorithm, parts: &[&[u8]]) -> String {
    match algorithm {
        Algorithm::Sha256 => hash_with::<Sha256>(parts),
        Algorithm::Md5 => hash_with::<Md5>(parts),
    }
}

fn hash_with<H: Digest>(parts: &[&[u8]]) -> String {
    let mut hasher = H::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    let output = hasher.finalize();
    let mut text = Zeroizing::new(String::with_capacity(2 * output.len()));
    push_hex(&output, &mut text);
    std::mem::take(&mut *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 section 3.9.1: the same values for both algorithms.
    fn example(algorithm: Algorithm) -> Authorization<'static> {
        Authorization {
            username: b"Mufasa",
            realm: b"http-auth@example.org",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            uri: None,
            algorithm,
            cnonce: b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            nonce_count_text: b"00000001",
            nonce_count: 1,
            response: b"",
        }
    }

    #[test]
    fn computes_the_examples_of_rfc_7616() {
        let credentials =
            Credentials::derive(b"Mufasa", b"http-auth@example.org", b"Circle of Life");
        for (algorithm, expected) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let proof = digest(&credentials, &example(algorithm), b"GET", b"/dir/index.html");
            assert_eq!(proof, Some(Proof(expected.to_owned())));
        }
    }

    #[test]
    fn computes_the_example_of_rfc_2617() {
        let credentials = Credentials::derive(b"Mufasa", b"testrealm@host.com", b"Circle Of Life");
        let authorization = Authorization {
            realm: b"testrealm@host.com",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            cnonce: b"0a4f113b",
            ..example(Algorithm::Md5)
        };
        let proof = digest(&credentials, &authorization, b"GET", b"/dir/index.html");
        assert_eq!(proof, Some(Proof("6629fae49393a05397450978507c4ef1".to_owned())));
    }
}
