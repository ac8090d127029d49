//! BFCP: the codec, and the decoder of `mrf inspect bfcp`.

use control_api::inspect::{self, BfcpOptions};
use mrfp_protocol::bfcp::{
    Attributes, ClientMessage, FRAGMENT_HEADER_BYTES, Fragments, Framer, Header, MESSAGE_BYTES_MAX,
    Payload, Primitive, Reassembly, TooLong, Transport, Value,
};

use crate::bfcp_support::{again, read};

/// Prefixes of a payload that are read, too: they cost the square of their number.
const PREFIX_BYTES_MAX: usize = 256;
/// Longest message a stream may have.
const STREAM_BYTES_MAX: usize = 1024;

/// What came by a stream, with the first byte even, or in a datagram; the rest of that byte says
/// how long datagrams may be. What is read is written again, and is the same.
pub(crate) fn codec(bytes: &[u8]) -> bool {
    let Some((&options, bytes)) = bytes.split_first() else { return false };
    let transport = if options & 1 == 0 { Transport::Reliable } else { Transport::Unreliable };
    let whole = messages(bytes, bytes.len().max(1));
    for step in [1, 7] {
        assert_eq!(messages(bytes, step), whole, "in steps of {step}");
    }
    let Some(header) = Header::parse(bytes, transport) else { return false };
    let mut written = [0; FRAGMENT_HEADER_BYTES];
    let length = header.write(&mut written).expect("room for a header");
    assert_eq!(Header::parse(&written[..length], transport), Some(header));
    let Some(content) = header.content(bytes) else { return false };
    if header.fragment.is_some() {
        return Reassembly::default().take(&header, content, MESSAGE_BYTES_MAX).is_ok();
    }
    for end in 0..content.len().min(PREFIX_BYTES_MAX) {
        if let Ok(payload) = Payload::parse(&content[..end]) {
            assert_eq!(same(payload.attributes, payload.attributes), end);
        }
    }
    let Ok(payload) = Payload::parse(content) else { return false };
    for primitive in Primitive::ALL {
        let _ = ClientMessage::read(*primitive, &payload);
    }
    let written = again(bytes, transport);
    let (header_again, payload_again) = read(&written, transport).expect("ours");
    assert_eq!(header_again, header);
    assert_eq!(payload_again.unknown_mandatory, payload.unknown_mandatory);
    assert_eq!(same(payload.attributes, payload_again.attributes), content.len());
    assert_eq!(again(&written, transport), written);
    if transport == Transport::Unreliable {
        in_fragments(&written, FRAGMENT_HEADER_BYTES + 4 + usize::from(options >> 1) * 4);
    }
    true
}

/// Both say the same; they may differ in padding. Returns how long they are.
fn same(one: Attributes<'_>, other: Attributes<'_>) -> usize {
    let mut length = 0;
    let mut others = other;
    for attribute in one {
        let other = others.next().expect("as many");
        assert_eq!((attribute.mandatory, attribute.offset), (other.mandatory, other.offset));
        length += match (attribute.value, other.value) {
            (Value::Grouped(group, inner), Value::Grouped(other, others)) => {
                assert_eq!(group, other);
                4 + same(inner, others)
            }
            (value, other) => {
                assert_eq!(value, other);
                (2 + contents_bytes(&value)).next_multiple_of(4)
            }
        };
    }
    assert_eq!(others.next(), None);
    length
}

fn contents_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::BeneficiaryId(_)
        | Value::FloorId(_)
        | Value::FloorRequestId(_)
        | Value::Priority(_)
        | Value::RequestStatus { .. } => 2,
        Value::ErrorCode { details, .. } => 1 + details.len(),
        Value::ErrorInfo(bytes)
        | Value::ParticipantProvidedInfo(bytes)
        | Value::StatusInfo(bytes)
        | Value::SupportedAttributes(bytes)
        | Value::SupportedPrimitives(bytes)
        | Value::UserDisplayName(bytes)
        | Value::UserUri(bytes)
        | Value::Unknown { contents: bytes, .. } => bytes.len(),
        Value::Grouped(..) => unreachable!("asked of what is in it"),
    }
}

/// A message is the same after it was cut, whatever order its fragments arrive in.
fn in_fragments(message: &[u8], datagram_bytes_max: usize) {
    let mut fragments = Fragments::new(message, datagram_bytes_max);
    let mut datagrams = Vec::new();
    let mut out = vec![0; datagram_bytes_max];
    while let Some(length) = fragments.next(&mut out) {
        datagrams.push(out[..length].to_vec());
    }
    if let [whole] = &datagrams[..] {
        return assert_eq!(whole, message);
    }
    let mut reassembly = Reassembly::default();
    for (index, datagram) in datagrams.iter().enumerate().rev() {
        let header = Header::parse(datagram, Transport::Unreliable).expect("ours");
        let content = header.content(datagram).expect("whole");
        let put_together = reassembly.take(&header, content, MESSAGE_BYTES_MAX).expect("ours");
        assert_eq!(put_together, (index == 0).then_some(message));
    }
}

/// The messages in a stream, and the one at which it is lost.
fn messages(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<TooLong>) {
    let framer = Framer::new(STREAM_BYTES_MAX);
    let mut messages = Vec::new();
    let mut carried = Vec::new();
    for piece in bytes.chunks(step) {
        carried.extend_from_slice(piece);
        loop {
            let message = match framer.next(&carried) {
                Ok(None) => break,
                Ok(Some(message)) => message.to_vec(),
                Err(too_long) => return (messages, Some(too_long)),
            };
            carried.drain(..message.len());
            messages.push(message);
        }
    }
    (messages, None)
}

/// The decoder, which reads what the codec refuses, too.
pub(crate) fn inspect(bytes: &[u8]) -> bool {
    let json = bytes.len() % 2 == 1;
    let options = BfcpOptions { json, colour: !json };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let inputs = [("a".to_owned(), hex.into_bytes()), ("b".to_owned(), bytes.to_vec())];
    let told = inputs.map(|input| inspect::bfcp(&[input], &options, &mut Vec::new()));
    told.iter().any(|told| matches!(told, Ok(true)))
}

/// Messages made by another program, by name.
pub(crate) fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let vectors = include_str!("../../../mrfp-core/protocol/tests/data/bfcp_vectors.json");
    let texts: Vec<&str> = vectors.split('"').skip(1).step_by(2).collect();
    let (pairs, _) = texts.as_chunks::<2>();
    pairs.iter().map(|[name, text]| (*name, crate::bfcp_support::hex(text))).collect()
}

pub(crate) fn codec_seeds() -> Vec<Vec<u8>> {
    let option = |name: &str| u8::from(name.contains("udp"));
    vectors().iter().map(|(name, bytes)| [&[option(name)][..], bytes].concat()).collect()
}

pub(crate) fn inspect_seeds() -> Vec<Vec<u8>> {
    vectors().into_iter().map(|(_, bytes)| bytes).collect()
}
