//! What a ClientHello asks for, read before anybody answers it.

use std::borrow::Cow;

use super::psk::{CONTENT_TYPE_HANDSHAKE, MESSAGE_BYTES_MAX, MESSAGE_CLIENT_HELLO};

/// What a client wants the server to prove itself with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// The ClientHello is not whole yet.
    NeedInput,
    Psk,
    Certificate,
}

/// Reads the ClientHello at the front of `input`. A client that has a key for us says so: with a
/// PSK suite in TLS 1.2 (RFC 4279 section 2) and, where `tls13` admits it, with a pre_shared_key
/// in TLS 1.3, which cannot be a ticket, as nobody gets one. It may offer suites with certificates
/// beside, as OpenSSL's does. Whatever is no ClientHello wants a certificate and will be refused.
pub(super) fn wanted(input: &[u8], tls13: bool) -> Wanted {
    let body = match body(input) {
        Ok(Some(body)) => body,
        Ok(None) => return Wanted::NeedInput,
        Err(NotClientHello) => return Wanted::Certificate,
    };
    match ClientHello::parse(&body) {
        Some(hello) if hello.offers_psk_suite() => Wanted::Psk,
        Some(hello) if tls13 && hello.psk_identity().is_some() => Wanted::Psk,
        Some(_) | None => Wanted::Certificate,
    }
}

/// The bytes begin with something else.
struct NotClientHello;

/// The body of the ClientHello at the front, gathered from its records. `None`: not whole yet.
fn body(input: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotClientHello> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut rest = input;
    loop {
        if let &[message_type, high, middle, low, ref body @ ..] = &*message {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if message_type != MESSAGE_CLIENT_HELLO || length > MESSAGE_BYTES_MAX {
                return Err(NotClientHello);
            }
            if length <= body.len() {
                return Ok(Some(match message {
                    Cow::Borrowed(message) => Cow::Borrowed(&message[4..4 + length]),
                    Cow::Owned(message) => Cow::Owned(message[4..4 + length].to_vec()),
                }));
            }
        }
        let &[content_type, major, _, high, low, ref payload @ ..] = rest else {
            let plausible = rest.first().is_none_or(|&first| first == CONTENT_TYPE_HANDSHAKE);
            return if plausible { Ok(None) } else { Err(NotClientHello) };
        };
        if content_type != CONTENT_TYPE_HANDSHAKE || major != 3 {
            return Err(NotClientHello);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some((payload, behind)) = payload.split_at_checked(length) else {
            return if length > MESSAGE_BYTES_MAX { Err(NotClientHello) } else { Ok(None) };
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
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        let &[high, low] = self.take(2)? else {
            return None;
        };
        Some(u16::from_be_bytes([high, low]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length)
    }

    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
