//! What a ClientHello asks for, read before anybody answers it.

use std::borrow::Cow;

use super::PLAINTEXT_BYTES_MAX;
use super::numbers::{CONTENT_HANDSHAKE, MESSAGE_CLIENT_HELLO};
use super::psk::MESSAGE_BYTES_MAX;

/// What lies at the front of a server's input.
pub(super) enum Front<'a> {
    /// A ClientHello that is not whole yet.
    NeedInput,
    Hello(HelloMessage<'a>),
    /// No ClientHello.
    Other,
}

/// A ClientHello, gathered from its records.
pub(super) struct HelloMessage<'a> {
    /// With its header.
    pub(super) message: Cow<'a, [u8]>,
    /// Bytes of the input its records take.
    pub(super) consumed: usize,
    /// Nothing follows it in its last record.
    pub(super) ends_record: bool,
}

impl HelloMessage<'_> {
    /// Without its header.
    pub(super) fn body(&self) -> &[u8] {
        &self.message[MESSAGE_HEADER_BYTES..]
    }

    /// Whether the client wants the server to prove itself with a key. If it has one for us it says
    /// so: with a PSK suite in TLS 1.2 (RFC 4279 section 2) and, where `tls13` admits it, with a
    /// pre_shared_key in TLS 1.3, which cannot be a ticket, as nobody gets one. It may offer suites
    /// with certificates beside, as OpenSSL's does. Whatever cannot be read wants a certificate and
    /// will be refused.
    pub(super) fn wants_psk(&self, tls13: bool) -> bool {
        ClientHello::parse(self.body()).is_some_and(|hello| {
            hello.offers_psk_suite() || (tls13 && hello.psk_identity().is_some())
        })
    }
}

/// Reads the ClientHello at the front of `input`.
pub(super) fn front(input: &[u8]) -> Front<'_> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut rest = input;
    loop {
        if let &[message_type, high, middle, low, ref body @ ..] = &*message {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if message_type != MESSAGE_CLIENT_HELLO || length > MESSAGE_BYTES_MAX {
                return Front::Other;
            }
            if length <= body.len() {
                let ends_record = length == body.len();
                let length = MESSAGE_HEADER_BYTES + length;
                match &mut message {
                    Cow::Borrowed(message) => *message = &message[..length],
                    Cow::Owned(message) => message.truncate(length),
                }
                let consumed = input.len() - rest.len();
                return Front::Hello(HelloMessage { message, consumed, ends_record });
            }
        }
        let &[content_type, major, _, high, low, ref payload @ ..] = rest else {
            let plausible = rest.first().is_none_or(|&first| first == CONTENT_HANDSHAKE);
            return if plausible { Front::NeedInput } else { Front::Other };
        };
        if content_type != CONTENT_HANDSHAKE || major != 3 {
            return Front::Other;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        // RFC 5246 section 6.2.1.
        if length > PLAINTEXT_BYTES_MAX {
            return Front::Other;
        }
        let Some((payload, behind)) = payload.split_at_checked(length) else {
            return Front::NeedInput;
        };
        if message.is_empty() {
            message = Cow::Borrowed(payload);
        } else {
            message.to_mut().extend_from_slice(payload);
        }
        rest = behind;
    }
}

/// The parts of a ClientHello that matter here (RFC 8446 section 4.1.2).
#[derive(Clone, Copy)]
pub(super) struct ClientHello<'a> {
    suites: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Reads the body of a ClientHello message.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        reader.take(2 + 32)?;
        reader.vector8()?;
        let suites = reader.vector16()?;
        reader.vector8()?;
        // RFC 5246 section 7.4.1.2: a client may have no extensions at all.
        let extensions = reader.vector16().unwrap_or_default();
        Some(Self { suites, extensions })
    }

    fn offers_psk_suite(self) -> bool {
        self.suites
            .chunks_exact(2)
            .any(|suite| is_psk_suite(u16::from_be_bytes([suite[0], suite[1]])))
    }

    /// RFC 8446 section 4.2.11: the first identity of `pre_shared_key`, if the client offers TLS
    /// 1.3. Further identities would only matter for resumption, which is never offered here.
    pub(super) fn psk_identity(self) -> Option<&'a [u8]> {
        let mut extensions = Reader(self.extensions);
        let mut offers_tls13 = false;
        let mut identity = None;
        while let Some(extension_type) = extensions.u16() {
            let mut extension = Reader(extensions.vector16()?);
            match extension_type {
                EXTENSION_SUPPORTED_VERSIONS => {
                    offers_tls13 =
                        extension.vector8()?.chunks_exact(2).any(|version| version == [3, 4]);
                }
                EXTENSION_PRE_SHARED_KEY => {
                    let mut identities = Reader(extension.vector16()?);
                    identity = Some(identities.vector16()?);
                }
                _ => {}
            }
        }
        identity.filter(|_| offers_tls13)
    }
}

/// Whether a TLS 1.2 suite is authenticated by a pre-shared key: the suites of RFC 4785 (NULL),
/// 4279, 5487 (GCM, SHA-2), 5489 (ECDHE), 6655 (CCM), 7905 (ChaCha20) and 8442 (ECDHE with GCM).
const fn is_psk_suite(suite: u16) -> bool {
    matches!(suite,
        0x002c..=0x002e
        | 0x008a..=0x0095
        | 0x00a8..=0x00b9
        | 0xc033..=0xc03b
        | 0xc0a4..=0xc0ab
        | 0xccab..=0xccae
        | 0xd001..=0xd005
    )
}

/// Reads length-prefixed fields from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let &[high, low] = self.take(2)? else {
            return None;
        };
        Some(u16::from_be_bytes([high, low]))
    }

    pub(super) fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length)
    }

    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

/// Type and length of a handshake message.
const MESSAGE_HEADER_BYTES: usize = 4;

const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
