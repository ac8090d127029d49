//! What is agreed on: the ClientHello read strictly, and our answer to it.

use aws_lc_rs::agreement::{Algorithm, ECDH_P256, ECDH_P384, X25519};

use super::super::Profile;
use super::super::client_hello::{HelloMessage, Reader};
use super::super::numbers::{
    CONTENT_HANDSHAKE, MESSAGE_SERVER_HELLO, MESSAGE_SERVER_HELLO_DONE, MESSAGE_SERVER_KEY_EXCHANGE,
};
use super::super::suite::{Aead, KeyExchange, Protection, Suite};

/// What this handshake is going to be.
pub(super) struct Negotiated {
    pub(super) suite: &'static Suite,
    pub(super) aead: Aead,
    /// With Diffie-Hellman.
    pub(super) group: Option<Group>,
    pub(super) extended_master_secret: bool,
    /// The client knows of RFC 5746.
    secure_renegotiation: bool,
    /// The client has said what kinds of points it takes.
    point_formats: bool,
    pub(super) client_random: [u8; RANDOM_BYTES],
}

/// A group for Diffie-Hellman, most wanted first: those OpenSSL is configured with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    X25519,
    Secp256r1,
    Secp384r1,
}

impl Group {
    const ALL: [Self; 3] = [Self::X25519, Self::Secp256r1, Self::Secp384r1];

    pub(super) fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::X25519 => &X25519,
            Self::Secp256r1 => &ECDH_P256,
            Self::Secp384r1 => &ECDH_P384,
        }
    }

    /// Whether a public key is written as it has to be: 32 bytes, or both coordinates of a point (RFC 8422
    /// section 5.4.1). Nothing is said of its value; AWS-LC would read other forms as well.
    pub(super) fn is_encoded(self, public: &[u8]) -> bool {
        let point = |bytes: usize| public.len() == bytes && public[0] == POINT_UNCOMPRESSED;
        match self {
            Self::X25519 => public.len() == 32,
            Self::Secp256r1 => point(1 + 2 * 32),
            Self::Secp384r1 => point(1 + 2 * 48),
        }
    }

    /// RFC 8422 section 5.1.1.
    const fn number(self) -> u16 {
        match self {
            Self::X25519 => 29,
            Self::Secp256r1 => 23,
            Self::Secp384r1 => 24,
        }
    }
}

/// A ClientHello as far as it concerns this engine.
#[derive(Default)]
struct Offer<'a> {
    random: [u8; RANDOM_BYTES],
    suites: &'a [u8],
    groups: Option<&'a [u8]>,
    point_formats: Option<&'a [u8]>,
    versions: Option<&'a [u8]>,
    extended_master_secret: bool,
    secure_renegotiation: bool,
}

impl<'a> Offer<'a> {
    /// `None`: it is not well formed, or not of TLS 1.2.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.u16()? != VERSION_TLS12 {
            return None;
        }
        let mut offer =
            Self { random: reader.take(RANDOM_BYTES)?.try_into().ok()?, ..Self::default() };
        if reader.vector8()?.len() > 32 {
            return None;
        }
        offer.suites = numbers(reader.vector16()?)?;
        let compressions = reader.vector8()?;
        if !compressions.contains(&COMPRESSION_NULL) {
            return None;
        }
        offer.secure_renegotiation = offer.contains(SUITE_EMPTY_RENEGOTIATION_INFO);
        // RFC 5246 section 7.4.1.2: a client may have no extensions at all.
        if !reader.0.is_empty() {
            let extensions = reader.vector16()?;
            offer.read_extensions(extensions)?;
        }
        reader.0.is_empty().then_some(offer)
    }

    fn read_extensions(&mut self, bytes: &'a [u8]) -> Option<()> {
        let mut extensions = Reader(bytes);
        let mut seen = 0_u64;
        while !extensions.0.is_empty() {
            let number = extensions.u16()?;
            let body = extensions.vector16()?;
            // RFC 5246 section 7.4.1.4: there must not be two of a type.
            let bit = match number {
                0..=62 => 1 << number,
                EXTENSION_RENEGOTIATION_INFO => 1 << 63,
                _ => 0,
            };
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
            let mut reader = Reader(body);
            match number {
                EXTENSION_SUPPORTED_GROUPS => self.groups = Some(numbers(reader.vector16()?)?),
                EXTENSION_POINT_FORMATS => self.point_formats = Some(reader.vector8()?),
                EXTENSION_SUPPORTED_VERSIONS => self.versions = Some(numbers(reader.vector8()?)?),
                EXTENSION_EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
                EXTENSION_RENEGOTIATION_INFO => {
                    // RFC 5746 section 3.6: empty in a first handshake.
                    self.secure_renegotiation = reader.vector8()?.is_empty();
                    if !self.secure_renegotiation {
                        return None;
                    }
                }
                _ => continue,
            }
            if !reader.0.is_empty() {
                return None;
            }
        }
        Some(())
    }

    fn contains(&self, suite: u16) -> bool {
        contains(self.suites, suite)
    }

    /// Whether TLS 1.2 is what it comes to, as far as the version goes.
    fn agrees_on_tls12(&self, tls13: bool) -> bool {
        // RFC 7507: who falls back is for the engine that knows all versions to judge.
        let falls_back = self.contains(SUITE_FALLBACK);
        self.versions
            .map_or(!(falls_back && tls13), |versions| contains(versions, VERSION_TLS12) && !tls13)
    }

    /// The group both ends have. A client that names none may be given any (RFC 8422 section 4).
    fn group(&self) -> Option<Group> {
        let uncompressed = self.point_formats.is_none_or(|formats| formats.contains(&UNCOMPRESSED));
        Group::ALL.into_iter().find(|group| match (group, self.groups) {
            (Group::X25519, Some(groups)) => contains(groups, group.number()),
            (Group::Secp256r1 | Group::Secp384r1, Some(groups)) => {
                uncompressed && contains(groups, group.number())
            }
            (Group::X25519, None) => false,
            (Group::Secp256r1 | Group::Secp384r1, None) => uncompressed,
        })
    }
}

impl Negotiated {
    /// What it comes to, where that is what this engine can do.
    pub(super) fn from_hello(profile: &Profile, hello: &HelloMessage<'_>) -> Option<Self> {
        if !hello.ends_record {
            return None;
        }
        let offer = Offer::parse(hello.body())?;
        if !offer.agrees_on_tls12(profile.tls13) {
            return None;
        }
        let group = offer.group();
        let possible = |suite: &&&'static Suite| {
            offer.contains(suite.number)
                && !(suite.exchange == KeyExchange::EcdhePsk && group.is_none())
        };
        let suite = *profile.suites.iter().find(possible)?;
        let Protection::Aead(aead) = suite.protection else { return None };
        let group = match suite.exchange {
            KeyExchange::Psk => None,
            KeyExchange::EcdhePsk => group,
            KeyExchange::DhePsk | KeyExchange::Other => return None,
        };
        Some(Self {
            suite,
            aead,
            group,
            extended_master_secret: offer.extended_master_secret,
            secure_renegotiation: offer.secure_renegotiation,
            point_formats: offer.point_formats.is_some(),
            client_random: offer.random,
        })
    }

    /// Appends one record: ServerHello, with Diffie-Hellman ServerKeyExchange, ServerHelloDone.
    pub(super) fn write_flight(
        &self,
        random: &[u8; RANDOM_BYTES],
        public: Option<(Group, &[u8])>,
        output: &mut Vec<u8>,
    ) {
        let record = output.len();
        output.extend_from_slice(&[CONTENT_HANDSHAKE, 3, 3, 0, 0]);
        let hello = begin_message(output, MESSAGE_SERVER_HELLO);
        output.extend_from_slice(&VERSION_TLS12.to_be_bytes());
        output.extend_from_slice(random);
        // No session that could be resumed.
        output.push(0);
        output.extend_from_slice(&self.suite.number.to_be_bytes());
        output.push(COMPRESSION_NULL);
        self.write_extensions(output);
        end_message(output, hello);
        if let Some((group, public)) = public {
            let exchange = begin_message(output, MESSAGE_SERVER_KEY_EXCHANGE);
            // RFC 5489 section 2: no hint, then the parameters of RFC 8422 section 5.4.
            output.extend_from_slice(&[0, 0, NAMED_CURVE]);
            output.extend_from_slice(&group.number().to_be_bytes());
            output.push(public.len() as u8);
            output.extend_from_slice(public);
            end_message(output, exchange);
        }
        let done = begin_message(output, MESSAGE_SERVER_HELLO_DONE);
        end_message(output, done);
        let length = (output.len() - record - 5) as u16;
        output[record + 3..record + 5].copy_from_slice(&length.to_be_bytes());
    }

    fn write_extensions(&self, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&[0, 0]);
        if self.secure_renegotiation {
            output.extend_from_slice(&EXTENSION_RENEGOTIATION_INFO.to_be_bytes());
            output.extend_from_slice(&[0, 1, 0]);
        }
        if self.group.is_some() && self.point_formats {
            output.extend_from_slice(&EXTENSION_POINT_FORMATS.to_be_bytes());
            output.extend_from_slice(&[0, 2, 1, UNCOMPRESSED]);
        }
        if self.extended_master_secret {
            output.extend_from_slice(&EXTENSION_EXTENDED_MASTER_SECRET.to_be_bytes());
            output.extend_from_slice(&[0, 0]);
        }
        let length = output.len() - start - 2;
        if length == 0 {
            // A client that has none must not get an empty list.
            return output.truncate(start);
        }
        output[start..start + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// A list of two-byte numbers; `None` where one is half there.
fn numbers(bytes: &[u8]) -> Option<&[u8]> {
    bytes.len().is_multiple_of(2).then_some(bytes)
}

fn contains(numbers: &[u8], number: u16) -> bool {
    numbers.chunks_exact(2).any(|bytes| bytes == number.to_be_bytes())
}

fn begin_message(output: &mut Vec<u8>, message_type: u8) -> usize {
    output.extend_from_slice(&[message_type, 0, 0, 0]);
    output.len()
}

fn end_message(output: &mut [u8], start: usize) {
    let length = (output.len() - start) as u16;
    output[start - 2..start].copy_from_slice(&length.to_be_bytes());
}

pub(super) const RANDOM_BYTES: usize = 32;

const VERSION_TLS12: u16 = 0x0303;
const COMPRESSION_NULL: u8 = 0;
const UNCOMPRESSED: u8 = 0;
/// What such a point begins with (SEC 1 section 2.3.3).
const POINT_UNCOMPRESSED: u8 = 4;
const NAMED_CURVE: u8 = 3;

/// RFC 5746 section 3.3.
const SUITE_EMPTY_RENEGOTIATION_INFO: u16 = 0x00ff;
/// RFC 7507.
const SUITE_FALLBACK: u16 = 0x5600;

const EXTENSION_SUPPORTED_GROUPS: u16 = 10;
const EXTENSION_POINT_FORMATS: u16 = 11;
const EXTENSION_EXTENDED_MASTER_SECRET: u16 = 23;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const EXTENSION_RENEGOTIATION_INFO: u16 = 0xff01;
