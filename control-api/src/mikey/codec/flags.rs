//! The flags of a ticket policy (RFC 6043 section 6.10).

use std::fmt;

/// The flags D to O: 17 bits, D the highest, the five reserved ones kept as they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TicketFlags(u32);

impl TicketFlags {
    /// D: made by the KMS, not by the initiator.
    pub const MADE_BY_KMS: Self = Self(1 << 16);
    /// E: the responder must have it resolved.
    pub const RESOLVE_MANDATORY: Self = Self(1 << 15);
    /// F: a TRANSFER_RESP is sent.
    pub const TRANSFER_RESPONSE: Self = Self(1 << 14);
    /// G: the responder generates RANDRr.
    pub const RESPONDER_RAND: Self = Self(1 << 13);
    /// H: RANDRi enters key derivation.
    pub const INITIATOR_RAND: Self = Self(1 << 12);
    /// I: keys are forked per responder.
    pub const KEY_FORKING: Self = Self(1 << 11);
    /// J: the ticket may be used again.
    pub const REUSABLE: Self = Self(1 << 10);
    /// K: the KMS changed what was asked for.
    pub const CHANGED_BY_KMS: Self = Self(1 << 9);
    /// L: the initiator may supply session keys.
    pub const INITIATOR_KEYS: Self = Self(1 << 8);
    /// M: the responder may supply session keys.
    pub const RESPONDER_KEYS: Self = Self(1 << 7);
    /// N: an initiator needs to know no more than RFC 6043.
    pub const PLAIN_INITIATOR: Self = Self(1 << 6);
    /// O: a responder needs to know no more than RFC 6043.
    pub const PLAIN_RESPONDER: Self = Self(1 << 5);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without these.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// D in bit 0 of the byte of the PRF, E to the reserved bits in the two bytes behind it.
    pub(super) fn from_fields(prf: u8, flags: u16) -> Self {
        Self(u32::from(prf & 1) << 16 | u32::from(flags))
    }

    /// Bit 0 of the byte of the PRF, and the two bytes behind it.
    pub(super) fn to_fields(self) -> (u8, u16) {
        ((self.0 >> 16) as u8, self.0 as u16)
    }

    /// The first of the implications of RFC 6043 sections 4.2.2 and 6.10 that does not hold.
    #[must_use]
    pub fn contradiction(self) -> Option<FlagContradiction> {
        use FlagContradiction as Contradiction;
        let rand = self.has(Self::RESPONDER_RAND) || self.has(Self::INITIATOR_RAND);
        let response = self.has(Self::TRANSFER_RESPONSE);
        let made_by_kms = self.has(Self::MADE_BY_KMS);
        let rules = [
            (made_by_kms || self.has(Self::INITIATOR_KEYS), Contradiction::OwnWithoutInitiatorKeys),
            (response || !self.has(Self::RESPONDER_RAND), Contradiction::RandWithoutResponse),
            (rand, Contradiction::NoRand),
            (
                !self.has(Self::KEY_FORKING) || self.has(Self::RESOLVE_MANDATORY),
                Contradiction::ForkingWithoutResolve,
            ),
            (made_by_kms || !self.has(Self::CHANGED_BY_KMS), Contradiction::ChangedByNobody),
            (response || !self.has(Self::RESPONDER_KEYS), Contradiction::KeysWithoutResponse),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, contradiction)| *contradiction)
    }
}

/// Flags that exclude each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagContradiction {
    /// D not set and L not set: whoever makes a ticket chooses its keys.
    OwnWithoutInitiatorKeys,
    /// G set and F not set: RANDRr has no message to travel in.
    RandWithoutResponse,
    /// Neither G nor H set: a TEK would not be fresh.
    NoRand,
    /// I set and E not set: only the KMS can fork keys.
    ForkingWithoutResolve,
    /// K set and D not set: the KMS changed what it did not make.
    ChangedByNobody,
    /// M set and F not set: the responder's keys have no message to travel in.
    KeysWithoutResponse,
}

impl fmt::Display for FlagContradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnWithoutInitiatorKeys => "made by the initiator (no D), yet without L",
            Self::RandWithoutResponse => "G without F",
            Self::NoRand => "neither G nor H",
            Self::ForkingWithoutResolve => "I without E",
            Self::ChangedByNobody => "K without D",
            Self::KeysWithoutResponse => "M without F",
        })
    }
}
