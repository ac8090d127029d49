//! Cookies (RFC 6347 section 4.2.1): a source that has not shown that it receives what we send there
//! costs one short datagram and no memory.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{hmac, rand};

use super::super::numbers::{CONTENT_HANDSHAKE, MESSAGE_CLIENT_HELLO};
use super::{HEADER_BYTES, Header, VERSION_OF_FIRST};

/// Makes cookies, and knows its own again.
pub struct Cookies {
    key: hmac::Key,
}

/// What comes from somebody who has not been heard of.
#[derive(Debug)]
pub enum Greeting {
    /// No ClientHello that lies whole in its datagram: nobody to answer.
    Nothing,
    /// A ClientHello without a cookie of ours. This goes back.
    Verify(Vec<u8>),
    /// A ClientHello that returns our cookie.
    Proven(ProvenHello),
}

/// A ClientHello from an address that receives what is sent there.
#[derive(Debug)]
pub struct ProvenHello {
    /// The ClientHello that our cookie answered, as it must have been: it differs in the cookie alone.
    pub(super) first: Vec<u8>,
    /// The one that returns the cookie.
    pub(super) second: Vec<u8>,
    pub(super) cookie: [u8; COOKIE_BYTES],
    /// Of the second one's record; the next flight goes on from there (RFC 6347 section 4.2.1).
    pub(super) record_sequence: u64,
}

impl Cookies {
    /// With a key of its own.
    #[must_use]
    pub fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        Self { key: key.expect("the system has randomness") }
    }

    /// Looks at a datagram from `source`, whom no association is known with.
    #[must_use]
    pub fn greet(&self, source: SocketAddr, datagram: &[u8]) -> Greeting {
        let Some(hello) = Hello::parse(datagram) else { return Greeting::Nothing };
        let cookie = self.cookie(source, &hello);
        // Whoever could measure a comparison would have to receive there in the first place.
        if hello.cookie != cookie {
            return Greeting::Verify(verify_request(hello.header.sequence, &cookie));
        }
        // One that comes back is never the first record of its sender.
        let Some(before) = hello.header.sequence.checked_sub(1) else { return Greeting::Nothing };
        Greeting::Proven(ProvenHello {
            first: hello.written(before, 0, &[]),
            second: hello.written(hello.header.sequence, 1, &cookie),
            cookie,
            record_sequence: hello.header.sequence,
        })
    }

    fn cookie(&self, source: SocketAddr, hello: &Hello<'_>) -> [u8; COOKIE_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        match source.ip() {
            IpAddr::V4(address) => context.update(&address.octets()),
            IpAddr::V6(address) => context.update(&address.octets()),
        }
        context.update(&source.port().to_be_bytes());
        context.update(&(hello.before_cookie.len() as u64).to_be_bytes());
        context.update(hello.before_cookie);
        context.update(hello.behind_cookie);
        let tag = context.sign();
        std::array::from_fn(|at| tag.as_ref()[at])
    }
}

impl Default for Cookies {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(redacted)")
    }
}

/// A ClientHello that is alone in its datagram and in one piece.
struct Hello<'a> {
    header: Header,
    /// Version, random, session_id.
    before_cookie: &'a [u8],
    cookie: &'a [u8],
    /// Suites, compression methods, extensions.
    behind_cookie: &'a [u8],
}

impl<'a> Hello<'a> {
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let header = Header::parse(datagram)?;
        let record = &datagram[HEADER_BYTES..];
        let &[message_type, l2, l1, l0, _, _, 0, 0, 0, f2, f1, f0, ref body @ ..] = record else {
            return None;
        };
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        let is_whole = [l2, l1, l0] == [f2, f1, f0] && length == body.len();
        let is_hello = header.content_type == CONTENT_HANDSHAKE
            && header.version[0] == VERSION_OF_FIRST[0]
            && header.epoch == 0
            && header.sequence < SEQUENCE_MAX
            && header.length == record.len()
            && message_type == MESSAGE_CLIENT_HELLO;
        if !is_hello || !is_whole {
            return None;
        }
        // client_version and random stand before the session_id.
        let session_id_bytes = usize::from(*body.get(34)?);
        let (before_cookie, rest) = body.split_at_checked(35 + session_id_bytes)?;
        let (&cookie_bytes, rest) = rest.split_first()?;
        let (cookie, behind_cookie) = rest.split_at_checked(usize::from(cookie_bytes))?;
        Some(Self { header, before_cookie, cookie, behind_cookie })
    }

    /// The same with other numbers and another cookie.
    fn written(&self, record_sequence: u64, message_sequence: u16, cookie: &[u8]) -> Vec<u8> {
        let body = [self.before_cookie, &[cookie.len() as u8], cookie, self.behind_cookie].concat();
        let header = Header { sequence: record_sequence, ..self.header };
        record(header, MESSAGE_CLIENT_HELLO, message_sequence, &body)
    }
}

/// RFC 6347 section 4.2.1: it carries the sequence number of what it answers, and version 1.0.
fn verify_request(record_sequence: u64, cookie: &[u8]) -> Vec<u8> {
    let body = [&VERSION_OF_FIRST, &[cookie.len() as u8][..], cookie].concat();
    let header = Header {
        content_type: CONTENT_HANDSHAKE,
        version: VERSION_OF_FIRST,
        epoch: 0,
        sequence: record_sequence,
        length: 0,
    };
    record(header, MESSAGE_HELLO_VERIFY_REQUEST, 0, &body)
}

/// A record with one message in one piece.
fn record(header: Header, message_type: u8, message_sequence: u16, body: &[u8]) -> Vec<u8> {
    let [_, l2, l1, l0] = (body.len() as u32).to_be_bytes();
    let [s1, s0] = message_sequence.to_be_bytes();
    let message = [message_type, l2, l1, l0, s1, s0, 0, 0, 0, l2, l1, l0];
    let header = Header { length: message.len() + body.len(), ..header };
    [&header.to_bytes()[..], &message, body].concat()
}

/// Our records count on from those of a ClientHello, and there must be numbers left for them.
const SEQUENCE_MAX: u64 = 1 << 47;
pub(super) const COOKIE_BYTES: usize = 32;
const MESSAGE_HELLO_VERIFY_REQUEST: u8 = 3;
