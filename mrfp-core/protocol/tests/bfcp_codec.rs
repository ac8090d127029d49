//! The format of BFCP: what is written is read again, what is broken is said to be, and nothing
//! from the wire does harm.

mod bfcp_support;

use bfcp_support::{again, hex, read};
use mrfp_protocol::bfcp::{
    AttributeType, ClientMessage, ClientMessageError, ERROR_BYTES_MAX, ErrorCode, Fragment,
    Fragments, Framer, GROUP_BYTES_MAX, Group, Header, Inconsistent, MalformedReason, Overflow,
    Payload, Primitive, Priority, Reassembly, RequestStatus, TEXT_BYTES_MAX, TooLong, Transport,
    Value, Writer, write_error,
};
use proptest::prelude::*;

const TRANSPORTS: [Transport; 2] = [Transport::Reliable, Transport::Unreliable];

fn header(transport: Transport, primitive: Primitive) -> Header {
    Header::new(transport, primitive, 4321, 7, 1234)
}

fn message(fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let header = header(Transport::Reliable, Primitive::FloorStatus);
    let mut writer = Writer::new(&mut out, &header).unwrap();
    fill(&mut writer);
    let length = writer.finish();
    out.truncate(length);
    out
}

#[test]
fn every_primitive_is_written_as_read_in_both_versions() {
    for transport in TRANSPORTS {
        for &primitive in Primitive::ALL {
            let header = header(transport, primitive);
            let header = Header { responder: transport == Transport::Unreliable, ..header };
            let mut out = [0; 64];
            let mut writer = Writer::new(&mut out, &header).unwrap();
            writer.put(&Value::FloorId(0xabcd)).unwrap();
            let length = writer.finish();
            let bytes = &out[..length];
            assert_eq!(bytes[0], if header.responder { 0x50 } else { 0x20 });
            assert_eq!(bytes[1], primitive.code());
            assert_eq!(read(bytes, transport).unwrap().0, Header { payload_words: 1, ..header });
            assert_eq!(again(bytes, transport), bytes);
        }
    }
}

#[test]
fn codes_are_those_of_the_tables() {
    let codes = |count: u8| (1..=count).collect::<Vec<_>>();
    assert_eq!(Primitive::ALL.iter().map(|it| it.code()).collect::<Vec<_>>(), codes(17));
    assert_eq!(AttributeType::ALL.iter().map(|it| it.code()).collect::<Vec<_>>(), codes(18));
    assert_eq!(RequestStatus::ALL.iter().map(|it| it.code()).collect::<Vec<_>>(), codes(7));
    assert_eq!(ErrorCode::ALL.iter().map(|it| it.code()).collect::<Vec<_>>(), codes(14));
    assert_eq!(Primitive::from_code(0), None);
    assert_eq!(Primitive::from_code(18), None);
    assert_eq!(Primitive::from_code(14).map(Primitive::name), Some("FloorRequestStatusAck"));
    assert_eq!(Priority::understood(1), Priority::Low);
    assert_eq!(Priority::understood(7), Priority::Highest);
    assert!(AttributeType::ALL.iter().all(|it| it.is_grouped() == (it.code() >= 14)));
}

#[test]
fn flags_mean_nothing_on_a_reliable_transport() {
    let bytes = hex("3f0b0000000010e1000504d2");
    let header = Header::parse(&bytes, Transport::Reliable).unwrap();
    assert!(!header.responder);
    assert_eq!((header.version, header.fragment), (1, None));
    assert_eq!(header.content(&bytes), Some(&[][..]));
    assert_eq!(Header::parse(&bytes, Transport::Unreliable), None, "a fragment's is longer");
}

#[test]
fn a_length_that_is_not_that_of_the_message_is_noticed() {
    let bytes = hex("20020001000010e1000204d207040315");
    for (length, sound) in [(16, true), (12, false), (15, false)] {
        let header = Header::parse(&bytes[..length], Transport::Reliable).unwrap();
        assert_eq!(header.content(&bytes[..length]).is_some(), sound);
    }
    let longer = [&bytes[..], &[0; 4]].concat();
    assert_eq!(Header::parse(&longer, Transport::Reliable).unwrap().content(&longer), None);
}

#[test]
fn every_prefix_of_a_stream_yields_the_messages_that_are_whole() {
    let one = hex("20020001000010e1000204d207040315");
    let two = hex("200b0000000010e1000504d2");
    let stream = [&one[..], &two, &one].concat();
    let ends = [16, 28, 44];
    let framer = Framer::new(16);
    for end in 0..=stream.len() {
        let mut found = Vec::new();
        let mut rest = &stream[..end];
        while let Some(message) = framer.next(rest).unwrap() {
            rest = &rest[message.len()..];
            found.push(message);
        }
        let whole = ends.iter().filter(|it| **it <= end).count();
        assert_eq!(found, [&one[..], &two, &one][..whole], "{end} bytes");
    }
}

#[test]
fn a_message_that_is_too_long_is_not_waited_for() {
    let bytes = hex("20020002000010e1000204d2");
    let TooLong { header } = Framer::new(19).next(&bytes).unwrap_err();
    assert_eq!((header.transaction_id, header.payload_words), (2, 2));
    assert_eq!(Framer::new(19).next(&bytes[..11]), Ok(None));
    assert_eq!(Framer::new(20).next(&bytes), Ok(None));
}

#[test]
fn no_prefix_of_attributes_is_taken_for_the_whole() {
    let bytes = message(|writer| {
        let filled = writer.group(Group::FloorRequestInformation(1), |writer| {
            writer.group(Group::OverallRequestStatus(1), |writer| {
                writer.put(&Value::StatusInfo(b"a word"))
            })?;
            writer.put(&Value::ParticipantProvidedInfo(b"why"))
        });
        filled.unwrap();
    });
    let payload = &bytes[12..];
    assert!(Payload::parse(payload).is_ok());
    for end in 1..payload.len() {
        let malformed = Payload::parse(&payload[..end]).unwrap_err();
        let expected = if end == 1 { MalformedReason::Truncated } else { MalformedReason::Overrun };
        assert_eq!((malformed.offset, malformed.reason), (0, expected), "{end} bytes");
    }
}

#[test]
fn broken_attributes_are_named_by_place_and_reason() {
    for (payload, offset, reason) in [
        ("0504021f 05", 4, MalformedReason::Truncated),
        ("0500021f", 0, MalformedReason::Length),
        ("0501021f", 0, MalformedReason::Length),
        ("0503021f", 0, MalformedReason::Length),
        ("0506021f00000000", 0, MalformedReason::Length),
        ("0902 0000", 0, MalformedReason::Length),
        ("0b03 0100", 0, MalformedReason::Length),
        ("0d02 0000", 0, MalformedReason::Length),
        ("1f03 0000", 0, MalformedReason::Length),
        ("0f05 6161", 0, MalformedReason::Overrun),
        // Inside of a group, which ends before it does.
        ("1f08 0315 0508021f 00000000", 4, MalformedReason::Overrun),
        ("0504021f 1f0c 0315 25080315 0b050100", 12, MalformedReason::Overrun),
        ("1f0c0001 25080001 0f07", 0, MalformedReason::Overrun),
    ] {
        let bytes = hex(payload);
        let malformed = Payload::parse(&bytes).expect_err(payload);
        assert_eq!((malformed.offset, malformed.reason), (offset, reason), "{payload}");
    }
}

#[test]
fn groups_are_followed_as_deep_as_they_mean_anything() {
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for level in (1..=depth).rev() {
            bytes.extend([0x1f, (level * 4) as u8, 0, 1]);
        }
        bytes
    };
    assert!(Payload::parse(&nested(4)).is_ok());
    for depth in [5, 63] {
        let bytes = nested(depth);
        assert_eq!(Payload::parse(&bytes).unwrap_err().reason, MalformedReason::Depth);
    }
}

#[test]
fn unknown_attributes_are_ignored_unless_they_are_mandatory() {
    // Type 40 without the M bit, 41 with it, 19 with it within a group, 41 again.
    let bytes = hex("5004aaaa 53040000 1f0c0001 27080000 00000000 5302 0000 0504021f");
    let payload = Payload::parse(&bytes).unwrap();
    assert_eq!(payload.unknown_mandatory.types().collect::<Vec<_>>(), [19, 41]);
    assert!(payload.attributes.clone().any(|it| it.value == Value::FloorId(0x021f)));
    let known = payload.attributes.filter(|it| !matches!(it.value, Value::Unknown { .. }));
    assert_eq!(known.count(), 2);

    let mut out = [0; ERROR_BYTES_MAX];
    let request = header(Transport::Reliable, Primitive::FloorQuery);
    let code = ErrorCode::UnknownMandatoryAttribute;
    let unknown = payload.unknown_mandatory;
    let length = write_error(&mut out, &request, Transport::Reliable, code, unknown, "").unwrap();
    assert_eq!(out[..length], hex("200d0002000010e1000704d2 0d05 04 26 52 000000"));
}

#[test]
fn an_error_with_everything_in_it_fits() {
    let all: Vec<u8> = (0..128).filter(|kind| !(1..=18).contains(kind)).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|kind| [kind << 1 | 1, 2, 0, 0]).collect();
    let unknown = Payload::parse(&bytes).unwrap().unknown_mandatory;
    assert!(unknown.types().eq(all.iter().copied()));
    let info = "x".repeat(TEXT_BYTES_MAX);
    let mut out = [0; ERROR_BYTES_MAX];
    for transport in TRANSPORTS {
        let request = header(transport, Primitive::Hello);
        for &code in ErrorCode::ALL {
            let length = write_error(&mut out, &request, transport, code, unknown, &info).unwrap();
            let (read, payload) = read(&out[..length], transport).unwrap();
            assert_eq!(read.responder, transport == Transport::Unreliable);
            assert_eq!(read.transaction_id, request.transaction_id);
            let first = payload.attributes.clone().next().unwrap().value;
            let Value::ErrorCode { code: read, details } = first else { panic!("{first:?}") };
            assert_eq!((read, details.len()), (code.code(), all.len()));
        }
    }
}

#[test]
fn what_does_not_fit_into_an_attribute_is_refused_whole() {
    let text = "x".repeat(300);
    let bytes = message(|writer| {
        let put = |writer: &mut Writer<'_>, length: usize| {
            writer.put(&Value::StatusInfo(&text.as_bytes()[..length]))
        };
        assert_eq!(put(writer, TEXT_BYTES_MAX + 1), Err(Overflow::Attribute));
        // A group is 252 bytes at most, its header included.
        let group = Group::FloorRequestInformation(1);
        for (length, fits) in [(GROUP_BYTES_MAX - 6, true), (GROUP_BYTES_MAX - 5, false)] {
            let filled = writer.group(group, |writer| put(writer, length));
            assert_eq!(filled.is_ok(), fits, "{length}");
        }
        // Nor may a group inside make the outer one too long; what fitted stays.
        let filled = writer.group(group, |writer| {
            put(writer, 100)?;
            let inner = Group::OverallRequestStatus(1);
            assert_eq!(writer.group(inner, |writer| put(writer, 150)), Err(Overflow::Attribute));
            writer.group(inner, |writer| put(writer, 100))
        });
        assert_eq!(filled, Ok(()));
        assert_eq!(put(writer, TEXT_BYTES_MAX), Ok(()));
    });
    let payload = Payload::parse(&bytes[12..]).unwrap();
    let lengths: Vec<usize> = payload.attributes.map(|it| it.offset).collect();
    assert_eq!(lengths, [0, 252, 252 + 4 + 104 + 4 + 104]);
}

#[test]
fn a_buffer_that_is_too_short_is_said_to_be() {
    let header = header(Transport::Reliable, Primitive::FloorQuery);
    for length in 0..12 {
        assert_eq!(Writer::new(&mut vec![0; length], &header).err(), Some(Overflow::Message));
    }
    let mut out = [0; 23];
    let mut writer = Writer::new(&mut out, &header).unwrap();
    assert_eq!(writer.put(&Value::FloorId(1)), Ok(()));
    let filled = writer.group(Group::FloorRequestStatus(1), |writer| {
        writer.put(&Value::RequestStatus { status: 1, queue_position: 0 })
    });
    assert_eq!(filled, Err(Overflow::Message));
    assert_eq!(writer.put(&Value::FloorId(2)), Ok(()));
    assert_eq!(writer.put(&Value::FloorId(3)), Err(Overflow::Message));
    let length = writer.finish();
    assert_eq!(out[..length], hex("20070002000010e1000704d2 05040001 05040002"));
}

#[test]
fn clients_are_understood_by_primitive() {
    let read = |primitive, payload: &str| {
        let bytes = hex(payload);
        let payload = Payload::parse(&bytes).unwrap();
        match ClientMessage::read(primitive, &payload) {
            Ok(ClientMessage::FloorRequest { floors, beneficiary, info, priority }) => {
                let floors: Vec<u16> = floors.collect();
                Ok(format!("{floors:?} {beneficiary:?} {info:?} {priority:?}"))
            }
            Ok(ClientMessage::FloorQuery { floors }) => {
                Ok(format!("{:?}", floors.collect::<Vec<_>>()))
            }
            Ok(ClientMessage::ChairAction { request, information }) => {
                Ok(format!("{request} {}", information.count()))
            }
            Ok(other) => Ok(format!("{other:?}")),
            Err(error) => Err(error),
        }
    };
    let all = "05040001 11046161 05040002 03040009 0904e000 09040000 03040008";
    let expected = "[1, 2] Some(9) [97, 97] Some(Highest)";
    assert_eq!(read(Primitive::FloorRequest, all).as_deref(), Ok(expected));
    assert_eq!(read(Primitive::FloorQuery, all).as_deref(), Ok("[1, 2]"));
    assert_eq!(read(Primitive::FloorQuery, "").as_deref(), Ok("[]"));
    let action = "1f0c0007 23080001 0b040300";
    assert_eq!(read(Primitive::ChairAction, action).as_deref(), Ok("7 1"));
    let expected = "FloorRelease { request: 5 }";
    assert_eq!(read(Primitive::FloorRelease, "07040005").as_deref(), Ok(expected));
    for primitive in [Primitive::FloorRequest, Primitive::FloorRelease, Primitive::ChairAction] {
        assert_eq!(read(primitive, "03040001"), Err(ClientMessageError::Incomplete));
    }
    for &primitive in Primitive::ALL {
        let refused = read(primitive, "05040001 07040001 1f040001").err();
        let by_server = [4, 6, 8, 10, 12, 13].contains(&primitive.code());
        assert_eq!(refused, by_server.then_some(ClientMessageError::NotForServers));
    }
}

fn datagrams(message: &[u8], bytes_max: usize) -> Vec<Vec<u8>> {
    let mut fragments = Fragments::new(message, bytes_max);
    let mut out = vec![0; bytes_max];
    let mut datagrams = Vec::new();
    while let Some(length) = fragments.next(&mut out) {
        datagrams.push(out[..length].to_vec());
    }
    datagrams
}

fn long_message(floors: u16) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let header = header(Transport::Unreliable, Primitive::FloorRequest);
    let mut writer = Writer::new(&mut out, &header).unwrap();
    (0..floors).for_each(|floor| writer.put(&Value::FloorId(floor)).unwrap());
    let length = writer.finish();
    out.truncate(length);
    out
}

#[test]
fn a_message_that_fits_a_datagram_is_not_cut() {
    let message = long_message(5);
    assert_eq!(datagrams(&message, message.len()), [message.as_slice()]);
    let cut = datagrams(&message, message.len() - 1);
    assert_eq!(cut.len(), 2);
    assert!(cut.iter().all(|datagram| datagram.len() < message.len()));
}

#[test]
fn fragments_that_contradict_each_other_give_the_message_up() {
    let message = long_message(8);
    let cut = datagrams(&message, 28);
    assert_eq!(cut.len(), 3);
    let mut reassembly = Reassembly::default();
    let mut take = |datagram: &[u8], bytes_max| {
        let header = Header::parse(datagram, Transport::Unreliable).unwrap();
        let content = header.content(datagram).unwrap();
        reassembly.take(&header, content, bytes_max).map(|whole| whole.map(<[u8]>::to_vec))
    };
    assert_eq!(take(&cut[0], 64), Ok(None));
    let mut other = cut[0].clone();
    other[19] ^= 1;
    assert_eq!(take(&other, 64), Err(Inconsistent));
    // Nothing is left of it.
    assert_eq!(take(&cut[1], 64), Ok(None));
    assert_eq!(take(&cut[1], 64), Ok(None), "a fragment may come twice");
    assert_eq!(take(&cut[2], 64), Ok(None));
    assert_eq!(take(&cut[0], 64), Ok(Some(message.clone())));
    assert_eq!(take(&cut[0], message.len() - 1), Err(Inconsistent), "too long");
    // Beyond the payload.
    let header = Header::parse(&cut[2], Transport::Unreliable).unwrap();
    let Fragment { offset_words, length_words } = header.fragment.unwrap();
    let fragment = Some(Fragment { offset_words: offset_words + 1, length_words });
    let beyond = Header { fragment, ..header };
    let content = header.content(&cut[2]).unwrap();
    let mut reassembly = Reassembly::default();
    assert_eq!(reassembly.take(&beyond, content, 64), Err(Inconsistent));
    assert!(!reassembly.is_begun());
}

/// One attribute, groups by their contents.
#[derive(Clone, Debug)]
enum Tree {
    Number(u8, u16),
    Status(u8, u8),
    Bytes(u8, Vec<u8>),
    Group(u8, u16, Vec<(bool, Self)>),
}

impl Tree {
    fn put(&self, writer: &mut Writer<'_>, mandatory: bool) -> Result<(), Overflow> {
        match self {
            Self::Number(0, id) => writer.put_with(mandatory, &Value::BeneficiaryId(*id)),
            Self::Number(1, id) => writer.put_with(mandatory, &Value::FloorId(*id)),
            Self::Number(2, id) => writer.put_with(mandatory, &Value::FloorRequestId(*id)),
            Self::Number(_, id) => writer.put_with(mandatory, &Value::Priority((*id % 8) as u8)),
            Self::Status(status, queue_position) => {
                let (status, queue_position) = (*status, *queue_position);
                writer.put_with(mandatory, &Value::RequestStatus { status, queue_position })
            }
            Self::Bytes(kind, bytes) => writer.put_with(
                mandatory,
                &match kind {
                    0 => Value::ErrorCode { code: 4, details: bytes },
                    1 => Value::ErrorInfo(bytes),
                    2 => Value::ParticipantProvidedInfo(bytes),
                    3 => Value::StatusInfo(bytes),
                    4 => Value::SupportedAttributes(bytes),
                    5 => Value::SupportedPrimitives(bytes),
                    6 => Value::UserDisplayName(bytes),
                    7 => Value::UserUri(bytes),
                    kind => Value::Unknown { attribute_type: kind + 60, contents: bytes },
                },
            ),
            Self::Group(kind, id, inner) => {
                let group = [
                    Group::BeneficiaryInformation,
                    Group::FloorRequestInformation,
                    Group::RequestedByInformation,
                    Group::FloorRequestStatus,
                    Group::OverallRequestStatus,
                ][usize::from(*kind)](*id);
                writer.group(group, |writer| {
                    inner.iter().try_for_each(|(mandatory, tree)| tree.put(writer, *mandatory))
                })
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Vec<(bool, Tree)>> {
    let leaf = prop_oneof![
        (0u8..4, any::<u16>()).prop_map(|(kind, id)| Tree::Number(kind, id)),
        any::<(u8, u8)>().prop_map(|(status, position)| Tree::Status(status, position)),
        (0u8..12, proptest::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(kind, bytes)| Tree::Bytes(kind, bytes)),
    ];
    let tree = leaf.prop_recursive(3, 24, 6, |inner| {
        (0u8..5, any::<u16>(), proptest::collection::vec((any::<bool>(), inner), 0..6))
            .prop_map(|(kind, id, inner)| Tree::Group(kind, id, inner))
    });
    proptest::collection::vec((any::<bool>(), tree), 0..8)
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_written_the_same(
        trees in trees(), primitive in any::<u8>(), ids in any::<(u32, u16, u16)>(),
        flags in any::<(bool, bool)>(),
    ) {
        let transport = if flags.0 { Transport::Unreliable } else { Transport::Reliable };
        let header = Header {
            version: transport.version(),
            responder: flags.0 && flags.1,
            fragment: None,
            primitive,
            payload_words: 0,
            conference_id: ids.0,
            transaction_id: ids.1,
            user_id: ids.2,
        };
        let mut out = vec![0xaa; 8192];
        let mut writer = Writer::new(&mut out, &header).unwrap();
        for (mandatory, tree) in &trees {
            if let Err(overflow) = tree.put(&mut writer, *mandatory) {
                prop_assert_eq!(overflow, Overflow::Attribute);
            }
        }
        let length = writer.finish();
        prop_assert_eq!(again(&out[..length], transport), &out[..length]);
    }

    #[test]
    fn whatever_comes_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for transport in TRANSPORTS {
            if let Some(header) = Header::parse(&bytes, transport) {
                let _ = header.content(&bytes);
            }
        }
        if let Ok(payload) = Payload::parse(&bytes) {
            for &primitive in Primitive::ALL {
                let _ = ClientMessage::read(primitive, &payload);
            }
            // Written again it is the same but for what nobody looks at: reserved bits and padding.
            let mut out = vec![0; 512];
            let header = header(Transport::Reliable, Primitive::Hello);
            let mut writer = Writer::new(&mut out, &header).unwrap();
            for attribute in payload.attributes {
                writer.put_with(attribute.mandatory, &attribute.value).unwrap();
            }
            let length = writer.finish();
            prop_assert_eq!(length, 12 + bytes.len());
            prop_assert_eq!(again(&out[..length], Transport::Reliable), &out[..length]);
        }
        let _ = Framer::new(64).next(&bytes);
    }

    #[test]
    fn attributes_in_any_order_of_bytes_are_sound_or_said_not_to_be(
        parts in proptest::collection::vec((1u8..24, any::<bool>(), 0u8..9, any::<u32>()), 0..8)
    ) {
        let mut bytes = Vec::new();
        for (kind, mandatory, length, contents) in parts {
            bytes.extend([kind << 1 | u8::from(mandatory), length]);
            bytes.extend(&contents.to_be_bytes()[..2]);
            if length > 4 {
                bytes.extend(contents.to_le_bytes());
            }
        }
        if let Err(malformed) = Payload::parse(&bytes) {
            prop_assert!(malformed.offset < bytes.len());
        }
    }

    #[test]
    fn fragments_in_any_order_make_the_message(
        floors in 0u16..200, bytes_max in 20usize..200, seed in any::<u64>()
    ) {
        let message = long_message(floors);
        let mut cut = datagrams(&message, bytes_max);
        prop_assert!(cut.iter().all(|datagram| datagram.len() <= bytes_max));
        if cut.len() == 1 {
            return Ok(());
        }
        let expected = (message.len() - 12).div_ceil((bytes_max - 16) / 4 * 4);
        prop_assert_eq!(cut.len(), expected);
        let length = cut.len() as u64;
        cut.sort_by_key(|datagram| seed.rotate_left(u32::from(datagram[13])) % length);
        let mut reassembly = Reassembly::default();
        let mut whole = None;
        for datagram in &cut {
            prop_assert_eq!(whole, None);
            let header = Header::parse(datagram, Transport::Unreliable).unwrap();
            let content = header.content(datagram).unwrap();
            whole = reassembly.take(&header, content, 4096).unwrap().map(<[u8]>::to_vec);
        }
        prop_assert_eq!(whole, Some(message));
    }
}
