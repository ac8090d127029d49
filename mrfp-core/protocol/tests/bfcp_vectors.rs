//! Messages made by another program, read and written to the byte.

mod bfcp_support;

use bfcp_support::{again, hex, read};
use mrfp_protocol::bfcp::{
    AttributeType, Group, Header, Primitive, Reassembly, Transport, Value, Writer,
};
use serde_json::Value as Json;

fn vectors() -> Vec<(String, Vec<u8>)> {
    let vectors: Json = serde_json::from_str(include_str!("data/bfcp_vectors.json")).unwrap();
    let each = vectors.as_object().unwrap().iter();
    each.map(|(name, text)| (name.clone(), hex(text.as_str().unwrap()))).collect()
}

fn vector(name: &str) -> Vec<u8> {
    vectors().into_iter().find(|(it, _)| it == name).expect("one of them").1
}

fn transport(name: &str) -> Transport {
    if name.contains("udp") { Transport::Unreliable } else { Transport::Reliable }
}

#[test]
fn every_vector_is_written_as_it_was_read() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 17);
    for (name, bytes) in vectors.iter().filter(|(name, _)| !name.starts_with("Fragment")) {
        assert_eq!(again(bytes, transport(name)), *bytes, "{name}");
    }
}

#[test]
fn fragments_of_the_vectors_make_one_message() {
    let (first, second) = (vector("Fragment1_udp"), vector("Fragment2_udp"));
    let header = |bytes: &[u8]| Header::parse(bytes, Transport::Unreliable).unwrap();
    let mut reassembly = Reassembly::default();
    for (one, other) in [(&first, &second), (&second, &first)] {
        let content = |bytes| header(bytes).content(bytes).unwrap();
        assert_eq!(reassembly.take(&header(one), content(one), 64), Ok(None));
        let message = reassembly.take(&header(other), content(other), 64).unwrap().unwrap();
        let expected = [&hex("40010006000010e1000904d2")[..], &first[16..], &second[16..]];
        assert_eq!(message, expected.concat());
    }
}

/// A vector beside what is in it.
fn assert_is(
    name: &str,
    (primitive, transaction_id, user_id): (Primitive, u16, u16),
    fill: impl FnOnce(&mut Writer<'_>),
) {
    let bytes = vector(name);
    let transport = transport(name);
    let header = Header::new(transport, primitive, 4321, transaction_id, user_id);
    let header = Header { responder: name == "HelloAck_udp", ..header };
    let mut out = [0; 256];
    let mut writer = Writer::new(&mut out, &header).unwrap();
    fill(&mut writer);
    let length = writer.finish();
    assert_eq!(out[..length], bytes, "{name}");
    let (read, payload) = read(&bytes, transport).unwrap();
    let payload_words = u16::try_from((bytes.len() - 12) / 4).unwrap();
    assert_eq!(read, Header { payload_words, ..header }, "{name}");
    assert!(payload.unknown_mandatory.is_empty());
}

fn put(writer: &mut Writer<'_>, values: &[Value<'_>]) {
    values.iter().for_each(|value| writer.put(value).unwrap());
}

fn status(status: u8, queue_position: u8) -> Value<'static> {
    Value::RequestStatus { status, queue_position }
}

#[test]
fn requests_of_the_vectors_say_what_they_say() {
    assert_is("FloorRequest_tcp", (Primitive::FloorRequest, 1, 1234), |writer| {
        let info = "Préz".as_bytes();
        let values = [Value::FloorId(543), Value::ParticipantProvidedInfo(info)];
        put(writer, &values);
        put(writer, &[Value::Priority(3)]);
    });
    assert_is("FloorRelease_tcp", (Primitive::FloorRelease, 2, 1234), |writer| {
        put(writer, &[Value::FloorRequestId(789)]);
    });
    assert_is("FloorQuery_tcp", (Primitive::FloorQuery, 3, 1234), |writer| {
        put(writer, &[Value::FloorId(543)]);
    });
    assert_is("ChairAction_tcp", (Primitive::ChairAction, 4, 357), |writer| {
        let group = Group::FloorRequestInformation(789);
        let filled = writer.group(group, |writer| {
            writer.group(Group::FloorRequestStatus(543), |writer| writer.put(&status(3, 0)))
        });
        filled.unwrap();
    });
    assert_is("Hello_tcp", (Primitive::Hello, 5, 1234), |_| {});
    assert_is("Hello_udp", (Primitive::Hello, 1, 1234), |_| {});
    assert_is("Goodbye_udp", (Primitive::Goodbye, 2, 1234), |_| {});
}

#[test]
fn answers_of_the_vectors_say_what_they_say() {
    for (name, transaction, code) in [
        ("FloorRequestStatus_pending_tcp", 1, 1),
        ("FloorRequestStatus_granted_tcp_notification", 0, 3),
    ] {
        assert_is(name, (Primitive::FloorRequestStatus, transaction, 1234), |writer| {
            let filled = writer.group(Group::FloorRequestInformation(789), |writer| {
                let overall = status(code, 0);
                let floor = status(code, 0);
                writer.group(Group::OverallRequestStatus(789), |writer| writer.put(&overall))?;
                writer.group(Group::FloorRequestStatus(543), |writer| writer.put(&floor))
            });
            filled.unwrap();
        });
    }
    assert_is("FloorStatus_tcp", (Primitive::FloorStatus, 3, 1234), |writer| {
        put(writer, &[Value::FloorId(543)]);
        let filled = writer.group(Group::FloorRequestInformation(789), |writer| {
            writer.group(Group::OverallRequestStatus(789), |writer| writer.put(&status(3, 0)))?;
            writer.group(Group::FloorRequestStatus(543), |writer| {
                writer.put(&Value::StatusInfo(b"on air"))
            })?;
            writer.group(Group::BeneficiaryInformation(99), |writer| {
                writer.put(&Value::UserDisplayName(b"Bob"))?;
                writer.put(&Value::UserUri(b"sip:bob@example.com"))
            })
        });
        filled.unwrap();
    });
    assert_is("ChairActionAck_tcp", (Primitive::ChairActionAck, 4, 357), |_| {});
    assert_is("Error_invalid_floor_tcp", (Primitive::Error, 6, 1234), |writer| {
        let details = &[][..];
        put(writer, &[Value::ErrorCode { code: 6, details }, Value::ErrorInfo(b"no such floor")]);
    });
    assert_is("Error_unknown_mandatory_attr_tcp", (Primitive::Error, 7, 1234), |writer| {
        put(writer, &[Value::ErrorCode { code: 4, details: &[0x50, 0x52] }]);
    });
    for (name, transaction) in [("HelloAck_tcp", 5), ("HelloAck_udp", 1)] {
        let primitives = if name == "HelloAck_tcp" { 13 } else { 17 };
        let primitives: Vec<u8> = (1..=primitives).collect();
        let attributes: Vec<u8> = AttributeType::ALL.iter().map(|it| it.code() << 1).collect();
        assert_is(name, (Primitive::HelloAck, transaction, 1234), |writer| {
            put(writer, &[Value::SupportedPrimitives(&primitives)]);
            put(writer, &[Value::SupportedAttributes(&attributes)]);
        });
    }
}
