//! Identifiers that a peer can neither guess nor collide with: keyed hashes, so that nothing has to
//! be remembered per message.

use std::hash::Hasher;

use mrfp_protocol::msrp::{MessageId, TransactionId};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::mp::TerminationId;

/// Source of the identifiers of one shard.
pub(crate) struct Identifiers {
    transaction_key: (u64, u64),
    message_key: (u64, u64),
    transactions: u64,
    /// The other half of the last hash.
    spare: Option<u64>,
}

impl Identifiers {
    /// `seed` is random and secret in production, fixed in a simulation.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let word = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&seed[index * 8..index * 8 + 8]);
            u64::from_le_bytes(bytes)
        };
        Self {
            transaction_key: (word(0), word(1)),
            message_key: (word(2), word(3)),
            transactions: 0,
            spare: None,
        }
    }

    /// A new transaction identifier. RFC 4975 section 7.1: the end-line must not occur in the body.
    /// 64 bits nobody else knows make sure of that without a scan, also against a sender who
    /// would like to end our chunk early.
    pub(crate) fn transaction(&mut self) -> TransactionId {
        if let Some(spare) = self.spare.take() {
            return TransactionId::from_u64(spare);
        }
        self.transactions += 1;
        let mut hasher = SipHasher24::new_with_keys(self.transaction_key.0, self.transaction_key.1);
        hasher.write_u64(self.transactions);
        let hash = hasher.finish128();
        self.spare = Some(hash.h2);
        TransactionId::from_u64(hash.h1)
    }

    /// The Message-ID under which a member's message goes to the others: the same for every chunk
    /// of it, different for every sender (RFC 4975 section 7.1.1 wants it unique in the session of
    /// the receiver, and two members may choose the same).
    pub(crate) fn message(&self, sender: TerminationId, message_id: &[u8]) -> MessageId {
        let mut hasher = SipHasher24::new_with_keys(self.message_key.0, self.message_key.1);
        hasher.write_u64(sender.0);
        hasher.write(message_id);
        MessageId::from_u128(hasher.finish128().as_u128())
    }
}
