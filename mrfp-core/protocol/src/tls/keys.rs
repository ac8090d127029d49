//! Traffic keys: how they come out of a handshake, and in what small shape they can be kept.

use aws_lc_rs::{aead, hkdf, hmac};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Session;
use super::record::RecordLayer;
use super::suite::{Aead, Hash, Protection, Suite, Version};

/// Which end of the connection we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Client,
    Server,
}

/// Bytes of the longest TLS 1.3 secret (SHA-384).
pub(super) const SECRET_BYTES_MAX: usize = 48;

/// A TLS 1.3 traffic secret; a shorter one fills the front.
pub(super) type Secret = Zeroizing<[u8; SECRET_BYTES_MAX]>;

/// The TLS 1.3 application traffic secrets of both directions, as far as a key log has told them.
#[derive(Default)]
pub(super) struct TrafficSecrets {
    client: Option<Secret>,
    server: Option<Secret>,
}

impl TrafficSecrets {
    /// Whether a key log line of this label (NSS format) is of interest.
    pub(super) fn wants(label: &str) -> bool {
        matches!(label, CLIENT_TRAFFIC_SECRET | SERVER_TRAFFIC_SECRET)
    }

    /// Takes one key log line.
    pub(super) fn record(&mut self, label: &str, bytes: &[u8]) {
        let mut secret = Secret::new([0; SECRET_BYTES_MAX]);
        let Some(target) = secret.get_mut(..bytes.len()) else { return };
        target.copy_from_slice(bytes);
        match label {
            CLIENT_TRAFFIC_SECRET => self.client = Some(secret),
            SERVER_TRAFFIC_SECRET => self.server = Some(secret),
            _ => {}
        }
    }

    /// The traffic keys at the first record after the handshake, if both secrets are known.
    pub(super) fn traffic_keys(&self, suite: &'static Suite, role: Role) -> Option<TrafficKeys> {
        assert_eq!(suite.version, Version::Tls13);
        let client = DirectionKeys::tls13(self.client.as_ref()?, suite.hash);
        let server = DirectionKeys::tls13(self.server.as_ref()?, suite.hash);
        Some(TrafficKeys::new(suite, role, client, server))
    }
}

/// The raw keys and sequence numbers of an established AEAD session: what an idle session is
/// reduced to, or what one shard hands to another. Zeroised on drop, never printed.
pub struct TrafficKeys {
    pub(super) suite: &'static Suite,
    pub(super) role: Role,
    pub(super) read: DirectionKeys,
    pub(super) write: DirectionKeys,
    /// Cipher blocks protected with the key we write with so far.
    pub(super) blocks_written: u64,
}

impl TrafficKeys {
    pub(super) fn new(
        suite: &'static Suite,
        role: Role,
        client: DirectionKeys,
        server: DirectionKeys,
    ) -> Self {
        let (read, write) = match role {
            Role::Client => (server, client),
            Role::Server => (client, server),
        };
        Self::of_directions(suite, role, read, write)
    }

    pub(super) fn of_directions(
        suite: &'static Suite,
        role: Role,
        read: DirectionKeys,
        write: DirectionKeys,
    ) -> Self {
        let blocks_written = match suite.version {
            // Our Finished.
            Version::Tls12 => 2,
            Version::Tls13 => 0,
        };
        Self { suite, role, read, write, blocks_written }
    }

    /// A second copy; it must replace the first, or nonces would repeat.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            suite: self.suite,
            role: self.role,
            read: self.read.clone(),
            write: self.write.clone(),
            blocks_written: self.blocks_written,
        }
    }

    /// Expands the keys again; the session goes on where it stopped.
    #[must_use]
    pub fn into_session(self) -> Session {
        Session::from_record_layer(Box::new(RecordLayer::new(self)))
    }
}

impl std::fmt::Debug for TrafficKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrafficKeys({}, redacted)", self.suite.name)
    }
}

/// The keys of one direction.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct DirectionKeys {
    /// TLS 1.2: the key. TLS 1.3: the traffic secret. Of its own length, as tens of thousands are
    /// kept.
    pub(super) secret: Box<[u8]>,
    /// TLS 1.2 AES-GCM: four bytes of salt, then the explicit nonce of sequence number 0. Else the
    /// value the sequence number is XORed into.
    pub(super) iv: [u8; 12],
    /// Of the next record.
    pub(super) sequence: u64,
}

impl DirectionKeys {
    /// A TLS 1.2 direction after its Finished, which was sequence number 0.
    pub(super) fn tls12(key: &[u8], iv: &[u8]) -> Self {
        let mut keys = Self { secret: key.into(), iv: [0; 12], sequence: 1 };
        keys.iv[..iv.len()].copy_from_slice(iv);
        keys
    }

    /// A TLS 1.3 direction at its first record.
    pub(super) fn tls13(secret: &Secret, hash: Hash) -> Self {
        let secret = secret[..hash.output_bytes()].into();
        let mut keys = Self { secret, iv: [0; 12], sequence: 0 };
        hkdf_expand_label(hash, &keys.secret, b"iv", &mut keys.iv);
        keys
    }

    /// The next generation (RFC 8446 section 7.2).
    pub(super) fn update(&mut self, hash: Hash) {
        let mut next = Secret::new([0; SECRET_BYTES_MAX]);
        hkdf_expand_label(hash, &self.secret, b"traffic upd", &mut next[..hash.output_bytes()]);
        *self = Self::tls13(&next, hash);
    }

    /// Expands the key schedule.
    pub(super) fn expand(&self, aead: Aead, suite: &Suite) -> aead::LessSafeKey {
        let mut bytes = Zeroizing::new([0; 32]);
        let bytes = &mut bytes[..aead.key_bytes()];
        match suite.version {
            Version::Tls12 => bytes.copy_from_slice(&self.secret),
            Version::Tls13 => hkdf_expand_label(suite.hash, &self.secret, b"key", bytes),
        }
        let key = aead::UnboundKey::new(aead.algorithm(), bytes)
            .expect("the key has the algorithm's length");
        aead::LessSafeKey::new(key)
    }
}

/// Derives the record keys with the PRF that has taken a TLS 1.2 master secret (RFC 5246 section 6.3).
pub(super) fn tls12_traffic_keys(
    prf: &Prf,
    suite: &'static Suite,
    aead: Aead,
    role: Role,
    client_random: &[u8; 32],
    server_random: &[u8; 32],
) -> TrafficKeys {
    assert_eq!(suite.version, Version::Tls12);
    assert_eq!(suite.protection, Protection::Aead(aead));
    let mut seed = [0; 64];
    seed[..32].copy_from_slice(server_random);
    seed[32..].copy_from_slice(client_random);
    let mut key_block = Zeroizing::new([0; 2 * (32 + 12)]);
    let (key, iv) = (aead.key_bytes(), aead.tls12_fixed_iv_bytes());
    let key_block = &mut key_block[..2 * (key + iv)];
    prf.fill(b"key expansion", &seed, key_block);
    let (client_key, rest) = key_block.split_at(key);
    let (server_key, rest) = rest.split_at(key);
    let (client_iv, server_iv) = rest.split_at(iv);
    let client = DirectionKeys::tls12(client_key, client_iv);
    let server = DirectionKeys::tls12(server_key, server_iv);
    TrafficKeys::new(suite, role, client, server)
}

/// The TLS 1.2 PRF (RFC 5246 section 5) that has taken its secret. AWS-LC clears a key of HMAC that is
/// dropped.
pub(super) struct Prf {
    key: hmac::Key,
}

impl Prf {
    pub(super) fn new(hash: Hash, secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hash.hmac_algorithm(), secret) }
    }

    pub(super) fn fill(&self, label: &[u8], seed: &[u8], out: &mut [u8]) {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(label);
        context.update(seed);
        let mut a = context.sign();
        let mut chunks = out.chunks_mut(a.as_ref().len()).peekable();
        while let Some(chunk) = chunks.next() {
            let mut context = hmac::Context::with_key(&self.key);
            context.update(a.as_ref());
            context.update(label);
            context.update(seed);
            chunk.copy_from_slice(&context.sign().as_ref()[..chunk.len()]);
            if chunks.peek().is_some() {
                a = hmac::sign(&self.key, a.as_ref());
            }
        }
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn hkdf_expand_label(hash: Hash, secret: &[u8], label: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(out.len()).expect("a key is short");
    let label_bytes = u8::try_from(6 + label.len()).expect("a label is short");
    hkdf::Prk::new_less_safe(hash.hkdf_algorithm(), secret)
        .expand(&[&length.to_be_bytes(), &[label_bytes], b"tls13 ", label, &[0]], Length(out.len()))
        .and_then(|material| material.fill(out))
        .expect("the output is within HKDF's limit");
}

const CLIENT_TRAFFIC_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_TRAFFIC_SECRET: &str = "SERVER_TRAFFIC_SECRET_0";

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn master_secret(premaster: &str) -> Vec<u8> {
        let client_random = "4922c6b1e4ed94aea9c46bbd10536bdb8691171dfffe4425cd1a52b124406af8";
        let server_random = "2c2e9ef2390195a160393f8c25e89d84a40e367e9c7e234346ef5d5845e865b7";
        let seed = bytes(&[client_random, server_random].concat());
        let mut out = vec![0; 48];
        Prf::new(Hash::Sha256, &bytes(premaster)).fill(b"master secret", &seed, &mut out);
        out
    }

    #[test]
    fn prf_derives_the_master_secret_of_a_plain_psk() {
        let premaster = "00100000000000000000000000000000000000101a4512035d19ccf94d3c47366b0b9872";
        let expected = "5d2f8059dc47dcbaf51a5fc254f82e3a6ba6f00517f5dff2c2b6fc8874a1726c\
                        962fc1d3cc0d3074204364f6b8e9ee90";
        assert_eq!(master_secret(premaster), bytes(expected));
    }

    #[test]
    fn prf_derives_the_master_secret_of_an_ecdhe_psk() {
        let premaster = "00201c045ba1fc95030ce520d270f2a94f65d736ea1b8c6bf4bdee9a3967e9003870\
                         00101a4512035d19ccf94d3c47366b0b9872";
        let expected = "54256d472074eb62ca043fc47a00542328e7ee6afd7f803d54dde6896bc2cbf2\
                        0fe500f62f10856c7002771696fd0d4d";
        assert_eq!(master_secret(premaster), bytes(expected));
    }

    #[test]
    fn raw_keys_stay_small() {
        assert!(size_of::<TrafficKeys>() <= 104);
        let keys = DirectionKeys::tls12(&[1; 16], &[2; 4]);
        assert_eq!(keys.secret.len(), 16);
        let secret = Secret::new([3; SECRET_BYTES_MAX]);
        assert_eq!(DirectionKeys::tls13(&secret, Hash::Sha256).secret.len(), 32);
        assert_eq!(DirectionKeys::tls13(&secret, Hash::Sha384).secret.len(), 48);
    }
}
