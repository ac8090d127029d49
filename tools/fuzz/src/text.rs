//! Protocols of lines: SDP, SIP, MSRP, CPIM.

use std::net::SocketAddr;

use control_api::mikey::sdp_attribute;
use control_api::sdp::{KeyManagement, Offer, OfferRules, parse_answer, parse_floor_answer};
use control_api::sip::framer::{Frame, Framer};
use control_api::sip::gate::{self, Transport, Verdict};
use mrfp_protocol::cpim;

use crate::mikey_world::{World, now};
use crate::msrp_interworking_support::{convert, way_back, way_in};
use crate::msrp_support::{Event, in_steps, whole};

const RULES: OfferRules = OfferRules {
    protection_required: false,
    certificate: true,
    cpim_required: false,
    cema: true,
    message_bytes_max: Some(1 << 30),
};

/// The attribute alone, and what a responder says to the message in it.
pub(crate) fn key_mgmt(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Some(message) = sdp_attribute::decode(text) else { return false };
    assert_eq!(sdp_attribute::decode(&sdp_attribute::encode(&message)), Some(message.clone()));
    let mut world = World::plain();
    let refused = world.responder.check(&message, sdp_attribute::PROTOCOL, now()).err();
    refused.is_none_or(|error| error.to_string().is_empty())
}

/// An offer, and the same text as an answer.
pub(crate) fn sdp(bytes: &[u8]) -> bool {
    let mut is_served = false;
    let strict = OfferRules { protection_required: true, cpim_required: true, ..RULES };
    for rules in [RULES, strict] {
        let Ok(offer) = Offer::parse(bytes, &rules) else { continue };
        if let Ok(index) = offer.select() {
            is_served = true;
            let media = offer.media[index].message.as_ref().expect("it can be served");
            check_key(media.key_management.as_ref());
        }
        if let Some(index) = offer.select_floor() {
            let floor = offer.media[index].floor.as_ref().expect("it is BFCP");
            check_key(floor.as_ref().expect("it can be served").key_management.as_ref());
        }
    }
    let _ = (parse_answer(bytes), parse_floor_answer(bytes));
    is_served
}

/// What a responder says to the message in a `key-mgmt`.
fn check_key(offered: Option<&KeyManagement>) {
    let Some(offered) = offered else { return };
    let protocols = offered.offered_protocols();
    if let Some(message) = offered.mikey() {
        let _ = World::plain().responder.check(message, &protocols, now()).err();
    }
}

/// A datagram, and the same bytes from a connection in pieces.
pub(crate) fn sip(bytes: &[u8]) -> bool {
    let source: SocketAddr = "192.0.2.1:5060".parse().expect("an address");
    let is_accepted = judge(bytes, Transport::Udp, source);
    let whole = frames(bytes, bytes.len().max(1), source);
    for step in [1, 7] {
        assert_eq!(frames(bytes, step, source), whole, "in steps of {step}");
    }
    is_accepted
}

/// Whether the gate lets it pass.
fn judge(bytes: &[u8], transport: Transport, source: SocketAddr) -> bool {
    let _ = gate::refuse(bytes, 503, "Service Unavailable", "", source);
    match gate::check(bytes, transport, source) {
        Verdict::Accept { body } => {
            assert!(body.start <= body.end && body.end <= bytes.len());
            true
        }
        Verdict::Ignore(_) => false,
        Verdict::Reject { status, response, .. } => {
            assert!(response.starts_with(format!("SIP/2.0 {status} ").as_bytes()));
            assert!(response.windows(4).any(|end| end == b"\r\n\r\n"));
            false
        }
    }
}

/// The messages in a stream, up to where it is lost.
fn frames(bytes: &[u8], step: usize, source: SocketAddr) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        framer.push(piece);
        loop {
            match framer.poll() {
                Frame::Message { length } => {
                    let message = framer.peek(length).to_vec();
                    judge(&message, Transport::Tcp, source);
                    messages.push(message);
                    framer.take(length);
                }
                Frame::Ping => {}
                Frame::Incomplete => break,
                Frame::Lost { length } => {
                    assert!(length <= bytes.len());
                    return messages;
                }
            }
        }
    }
    messages
}

/// A stream says the same however it is cut.
pub(crate) fn msrp(bytes: &[u8]) -> bool {
    let events = whole(bytes);
    for step in [1, 3, 64] {
        assert_eq!(in_steps(bytes, step), events, "in steps of {step}");
    }
    matches!(events.last(), Some(Event::End(_)))
}

/// What leaves does not depend on how the stream was cut, has no other paths than it should, and is the
/// same after a way back and in again.
pub(crate) fn msrp_iwf(bytes: &[u8]) -> bool {
    let once = convert(way_in(), [bytes]);
    for step in [1, 7, 64] {
        assert_eq!(convert(way_in(), bytes.chunks(step)), once, "in steps of {step}");
    }
    let back = convert(way_back(), [&once.left[..]]);
    assert_eq!((back.refused.len(), back.malformed), (0, 0), "only what can be read leaves");
    let again = convert(way_in(), [&back.left[..]]);
    assert!(once.left.starts_with(&again.left), "the same, but for what is incomplete");
    !once.left.is_empty()
}

/// Two messages behind each other with a NUL between: the second may be like the first.
pub(crate) fn cpim(bytes: &[u8]) -> bool {
    let (first, second) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &bytes[..0]),
    };
    let _ = cpim::ContentClass::of_unread(first);
    let Ok(Some((head, length))) = cpim::Head::parse(first) else { return false };
    assert!(length <= first.len());
    let _ = cpim::ContentClass::of_wrapped(&head);
    assert!(head.to().count() <= head.to_count);
    let (_, _, _) = (head.cc().count(), head.require().count(), head.namespaces().count());
    for end in 0..length {
        // What is incomplete is not taken for whole.
        assert!(!matches!(cpim::Head::parse(&first[..end]), Ok(Some((_, read))) if read > end));
    }
    let mut pattern = cpim::Pattern::default();
    if pattern.learn(&first[..length]) {
        assert_eq!(pattern.matches(first), Some(length));
        if let Some(known) = pattern.matches(second) {
            let (_, read) = cpim::Head::parse(second).expect("like the first").expect("whole");
            assert_eq!(read, known);
        }
    }
    true
}
