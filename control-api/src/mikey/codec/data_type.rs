//! Which message it is.

use std::fmt;

/// Which message (IANA "MIKEY Payload Name Spaces", data type). Others than these are not understood:
/// their payloads have length rules of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are the registry's own")]
pub enum DataType {
    PreShared = 0,
    PreSharedVerification = 1,
    PublicKey = 2,
    PublicKeyVerification = 3,
    DiffieHellmanInit = 4,
    DiffieHellmanResp = 5,
    Error = 6,
    DiffieHellmanHmacInit = 7,
    DiffieHellmanHmacResp = 8,
    RsaReverseInit = 9,
    RsaReverseResp = 10,
    RequestInitPsk = 11,
    RequestInitPk = 12,
    RequestResp = 13,
    TransferInit = 14,
    TransferResp = 15,
    ResolveInitPsk = 16,
    ResolveInitPk = 17,
    ResolveResp = 18,
}

impl DataType {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 19] = [
        Self::PreShared,
        Self::PreSharedVerification,
        Self::PublicKey,
        Self::PublicKeyVerification,
        Self::DiffieHellmanInit,
        Self::DiffieHellmanResp,
        Self::Error,
        Self::DiffieHellmanHmacInit,
        Self::DiffieHellmanHmacResp,
        Self::RsaReverseInit,
        Self::RsaReverseResp,
        Self::RequestInitPsk,
        Self::RequestInitPk,
        Self::RequestResp,
        Self::TransferInit,
        Self::TransferResp,
        Self::ResolveInitPsk,
        Self::ResolveInitPk,
        Self::ResolveResp,
    ];

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreShared => "I_MESSAGE (pre-shared key)",
            Self::PreSharedVerification => "R_MESSAGE (pre-shared key)",
            Self::PublicKey => "I_MESSAGE (public key)",
            Self::PublicKeyVerification => "R_MESSAGE (public key)",
            Self::DiffieHellmanInit => "I_MESSAGE (Diffie-Hellman)",
            Self::DiffieHellmanResp => "R_MESSAGE (Diffie-Hellman)",
            Self::Error => "Error",
            Self::DiffieHellmanHmacInit => "I_MESSAGE (Diffie-Hellman with HMAC)",
            Self::DiffieHellmanHmacResp => "R_MESSAGE (Diffie-Hellman with HMAC)",
            Self::RsaReverseInit => "I_MESSAGE (RSA-R)",
            Self::RsaReverseResp => "R_MESSAGE (RSA-R)",
            Self::RequestInitPsk => "REQUEST_INIT_PSK",
            Self::RequestInitPk => "REQUEST_INIT_PK",
            Self::RequestResp => "REQUEST_RESP",
            Self::TransferInit => "TRANSFER_INIT",
            Self::TransferResp => "TRANSFER_RESP",
            Self::ResolveInitPsk => "RESOLVE_INIT_PSK",
            Self::ResolveInitPk => "RESOLVE_INIT_PK",
            Self::ResolveResp => "RESOLVE_RESP",
        })
    }
}
