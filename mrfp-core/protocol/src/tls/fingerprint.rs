//! Certificate fingerprints, as SDP carries them (RFC 8122 section 5): how two ends that trust their
//! signalling know each other's certificates without anybody vouching for them (RFC 4975 section 14.4).

use aws_lc_rs::digest;

/// What a certificate hashes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    hash: Hash,
    digest: Vec<u8>,
}

/// Weakest first. MD5 and MD2 must not be used (RFC 8122 section 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Hash {
    /// What RFC 4572 recommended, and older ends still send.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// Not of the form `sha-256 4A:AD:…`, or of a hash that proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFingerprint;

impl Fingerprint {
    /// Reads the value of `a=fingerprint`.
    pub fn parse(text: &str) -> Result<Self, BadFingerprint> {
        let (name, digits) = text.trim().split_once(' ').ok_or(BadFingerprint)?;
        let hash = Hash::ALL.into_iter().find(|hash| name.eq_ignore_ascii_case(hash.name()));
        let hash = hash.ok_or(BadFingerprint)?;
        let byte = |pair: &str| match pair.as_bytes() {
            [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                u8::from_str_radix(pair, 16).ok()
            }
            _ => None,
        };
        let digest: Option<Vec<u8>> = digits.trim().split(':').map(byte).collect();
        let digest = digest.filter(|digest| digest.len() == hash.algorithm().output_len());
        Ok(Self { hash, digest: digest.ok_or(BadFingerprint)? })
    }

    /// That of a certificate (DER), by the hash everybody must know.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let hash = Hash::Sha256;
        Self { hash, digest: digest::digest(hash.algorithm(), certificate).as_ref().to_vec() }
    }

    /// Whether one of several is that of a certificate (DER). Those of the strongest hash count
    /// (RFC 8122 section 5).
    pub(super) fn any_is_of(fingerprints: &[Self], certificate: &[u8]) -> bool {
        let Some(hash) = fingerprints.iter().map(|fingerprint| fingerprint.hash).max() else {
            return false;
        };
        let digest = digest::digest(hash.algorithm(), certificate);
        fingerprints
            .iter()
            .any(|fingerprint| fingerprint.hash == hash && fingerprint.digest == digest.as_ref())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.hash.name())?;
        for (index, byte) in self.digest.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl Hash {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_in_any_case() {
        let fingerprint = Fingerprint::of(b"certificate");
        let text = fingerprint.to_string();
        assert!(text.starts_with("sha-256 "));
        assert_eq!(Fingerprint::parse(&text), Ok(fingerprint.clone()));
        assert_eq!(Fingerprint::parse(&text.to_lowercase()), Ok(fingerprint.clone()));
        assert_eq!(Fingerprint::parse(&text.replace("sha", "SHA")), Ok(fingerprint));
    }

    #[test]
    fn reads_the_example_of_rfc_4975() {
        let text = "SHA-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB";
        assert_eq!(Fingerprint::parse(text).map(|f| f.hash), Ok(Hash::Sha1));
    }

    #[test]
    fn refuses_what_proves_nothing() {
        let good = Fingerprint::of(b"certificate").to_string();
        let bad = [
            "",
            "sha-256",
            "sha-256 ",
            "sha-256 AB",
            "md5 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B",
            "sha-256 é0:AB",
            &good.replace(':', ""),
            &good.replace("sha-256", "sha-512"),
            &format!("{good}:00"),
            &good.replacen(':', ":+", 1),
        ];
        for text in bad {
            assert_eq!(Fingerprint::parse(text), Err(BadFingerprint), "{text}");
        }
    }

    #[test]
    fn the_strongest_hash_decides() {
        let weak = Fingerprint {
            hash: Hash::Sha1,
            digest: digest::digest(Hash::Sha1.algorithm(), b"certificate").as_ref().to_vec(),
        };
        let (own, other) = (Fingerprint::of(b"certificate"), Fingerprint::of(b"other"));
        let matches = |list: &[Fingerprint]| Fingerprint::any_is_of(list, b"certificate");
        assert!(matches(std::slice::from_ref(&weak)));
        assert!(matches(&[other.clone(), own]));
        assert!(!matches(&[weak, other]));
        assert!(!matches(&[]));
    }
}
