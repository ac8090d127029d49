//! From the key to the keys (RFC 5246 sections 6.3, 7.4.9 and 8.1).

use zeroize::Zeroizing;

use super::super::keys::{Prf, Role, TrafficKeys, tls12_traffic_keys};
use super::super::suite::{Aead, Hash, Suite};

/// Bytes of the master secret.
const MASTER_SECRET_BYTES: usize = 48;
pub(super) const VERIFY_DATA_BYTES: usize = 12;
/// What a Finished says.
pub(super) type VerifyData = Zeroizing<[u8; VERIFY_DATA_BYTES]>;

/// RFC 4279 section 2: as many zeros as the key has bytes, then the key; RFC 5489 section 2: what was
/// agreed on in place of the zeros. Each with its length before it.
pub(super) fn premaster_secret(agreed: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let other_bytes = if agreed.is_empty() { key.len() } else { agreed.len() };
    // At once in full: a vector that grew would leave a copy behind.
    let mut premaster = Zeroizing::new(Vec::with_capacity(2 + other_bytes + 2 + key.len()));
    premaster.extend_from_slice(&(other_bytes as u16).to_be_bytes());
    premaster.extend_from_slice(agreed);
    premaster.resize(2 + other_bytes, 0);
    premaster.extend_from_slice(&(key.len() as u16).to_be_bytes());
    premaster.extend_from_slice(key);
    premaster
}

/// The secret of one session, set up for the PRF.
pub(super) struct MasterSecret {
    prf: Prf,
}

impl MasterSecret {
    /// RFC 5246 section 8.1; `randoms`: the client's, the server's.
    pub(super) fn plain(hash: Hash, premaster: &[u8], randoms: &[[u8; 32]; 2]) -> Self {
        Self::derive(hash, premaster, b"master secret", randoms.as_flattened())
    }

    /// RFC 7627 section 4.
    pub(super) fn extended(hash: Hash, premaster: &[u8], session_hash: &[u8]) -> Self {
        Self::derive(hash, premaster, b"extended master secret", session_hash)
    }

    fn derive(hash: Hash, premaster: &[u8], label: &[u8], seed: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; MASTER_SECRET_BYTES]);
        Prf::new(hash, premaster).fill(label, seed, bytes.as_mut_slice());
        Self { prf: Prf::new(hash, bytes.as_slice()) }
    }

    pub(super) fn verify_data(&self, label: &[u8], transcript_hash: &[u8]) -> VerifyData {
        let mut verify_data = VerifyData::default();
        self.prf.fill(label, transcript_hash, verify_data.as_mut_slice());
        verify_data
    }

    pub(super) fn traffic_keys(
        &self,
        suite: &'static Suite,
        aead: Aead,
        role: Role,
        client_random: &[u8; 32],
        server_random: &[u8; 32],
    ) -> TrafficKeys {
        tls12_traffic_keys(&self.prf, suite, aead, role, client_random, server_random)
    }
}
