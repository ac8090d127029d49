//! However a stream is cut, it says the same; whatever it holds, nothing panics.

mod msrp_support;

use mrfp_protocol::msrp::{
    ByteRange, Continuation, FailureReport, MessageId, Method, RequestHead, TransactionId,
    write_end_line, write_response,
};
use msrp_support::{Event, Stream, in_steps, split_at, whole};
use proptest::prelude::*;

/// The messages of RFC 4975 section 11, one connection's worth.
const RFC_4975_SAMPLES: &str = concat!(
    "MSRP d93kswow SEND\r\n",
    "To-Path: msrp://bob.example.com:8888/9di4eae923wzd;tcp\r\n",
    "From-Path: msrp://alicepc.example.com:7777/iau39soe2843z;tcp\r\n",
    "Message-ID: 12339sdqwer\r\nByte-Range: 1-16/16\r\nContent-Type: text/plain\r\n\r\n",
    "Hi, I'm Alice!\r\n\r\n-------d93kswow$\r\n",
    "MSRP d93kswow 200 OK\r\n",
    "To-Path: msrp://alicepc.example.com:7777/iau39soe2843z;tcp\r\n",
    "From-Path: msrp://bob.example.com:8888/9di4eae923wzd;tcp\r\n",
    "-------d93kswow$\r\n",
    "MSRP dsdfoe38sd SEND\r\n",
    "To-Path: msrp://alice.example.com:7777/iau39soe2843z;tcp\r\n",
    "From-Path: msrp://bob.example.com:8888/9di4eae923wzd;tcp\r\n",
    "Message-ID: 456so39s\r\nByte-Range: 1-374/374\r\nContent-Type: application/xhtml+xml\r\n\r\n",
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!DOCTYPE html\r\n",
    "PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\"\r\n",
    "\"_http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd_\">\r\n</html>\r\n",
    "-------dsdfoe38sd$\r\n",
    "MSRP d93kswow SEND\r\n",
    "To-Path: msrp://bobpc.example.com:8888/9di4eae923wzd;tcp\r\n",
    "From-Path: msrp://alicepc.example.com:7654/iau39soe2843z;tcp\r\n",
    "Message-ID: 12339sdqwer\r\nByte-Range: 1-137/148\r\nContent-Type: message/cpim\r\n\r\n",
    "To: Bob <sip:bob@example.com>\r\nFrom: Alice <sip:alice@example.com>\r\n",
    "DateTime: 2006-05-15T15:02:31-03:00\r\nContent-Type: text/plain\r\n\r\nABCD\r\n",
    "-------d93kswow+\r\n",
    "MSRP op2nc9a SEND\r\n",
    "To-Path: msrp://bobpc.example.com:8888/9di4eae923wzd;tcp\r\n",
    "From-Path: msrp://alicepc.example.com:7654/iau39soe2843z;tcp\r\n",
    "Message-ID: 12339sdqwer\r\nByte-Range: 138-148/148\r\nContent-Type: message/cpim\r\n\r\n",
    "1234567890\r\n-------op2nc9a$\r\n",
    "MSRP d93kswow SEND\r\n",
    "To-Path: msrp://alicepc.example.com:8888/9di4eae923wzd;tcp\r\n",
    "From-Path: msrp://example.com:7777/iau39soe2843z;tcp\r\n",
    "Message-ID: 12339sdqwer\r\nByte-Range: 1-38/38\r\nFailure-Report: no\r\n",
    "Success-Report: no\r\nContent-Type: text/plain\r\n\r\n",
    "This conference will end in 5 minutes\r\n-------d93kswow$\r\n",
    "MSRP dkei38sd REPORT\r\n",
    "To-Path: msrp://alicepc.example.com:7777/iau39soe2843z;tcp\r\n",
    "From-Path: msrp://bob.example.com:8888/9di4eae923wzd;tcp\r\n",
    "Message-ID: 12339sdqwer\r\nByte-Range: 1-106/106\r\nStatus: 000 200 OK\r\n",
    "-------dkei38sd$\r\n",
);

#[test]
fn reads_the_sample_messages_of_rfc_4975() {
    let events = whole(RFC_4975_SAMPLES.as_bytes());
    let heads = events.iter().filter(|event| matches!(event, Event::Head(_))).count();
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::End(flag) => Some(*flag),
            Event::Head(_) | Event::Body(_) | Event::Malformed(..) => None,
        })
        .collect();
    assert_eq!(heads, 7);
    let (last, more) = (Continuation::Last, Continuation::More);
    assert_eq!(ends, [last, last, last, more, last, last, last]);
    assert_eq!(events[1], Event::Body(b"Hi, I'm Alice!\r\n".to_vec()));
    let cpim = events.iter().find_map(|event| match event {
        Event::Body(body) if body.starts_with(b"To: Bob") => Some(body.len()),
        Event::Body(_) | Event::Head(_) | Event::End(_) | Event::Malformed(..) => None,
    });
    // As its Byte-Range says.
    assert_eq!(cpim, Some(137));
}

#[test]
fn says_the_same_at_every_cut() {
    let stream = RFC_4975_SAMPLES.as_bytes();
    let events = whole(stream);
    for cut in 0..=stream.len() {
        assert_eq!(split_at(stream, &[cut]), events, "cut at {cut}");
    }
    for step in 1..80 {
        assert_eq!(in_steps(stream, step), events, "steps of {step}");
    }
}

#[test]
fn says_nothing_wrong_about_a_prefix() {
    let stream = RFC_4975_SAMPLES.as_bytes();
    let events = whole(stream);
    for length in 0..stream.len() {
        let seen = whole(&stream[..length]);
        for (index, event) in seen.iter().enumerate() {
            match (event, &events[index]) {
                // The last body may have come in part.
                (Event::Body(part), Event::Body(body)) if index + 1 == seen.len() => {
                    assert!(body.starts_with(part), "prefix of {length}");
                }
                (event, expected) => assert_eq!(event, expected, "prefix of {length}"),
            }
        }
    }
}

/// Bodies made of what end-lines are made of, so that near misses are common.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(b"\r\n-------".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"-------".to_vec()),
        1 => Just(b"$\r\n".to_vec()),
        1 => Just(b"\r\n-------tid".to_vec()),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

#[derive(Clone, Debug)]
struct Message {
    transaction: u64,
    response: Option<u16>,
    message: Option<u128>,
    range: Option<(u64, Option<u64>)>,
    success: Option<bool>,
    failure: Option<FailureReport>,
    body: Option<Vec<u8>>,
    flag: Continuation,
}

prop_compose! {
    fn message()(
        transaction in any::<u64>(),
        response in prop::option::weighted(0.2, 100u16..700),
        message in prop::option::of(any::<u128>()),
        range in prop::option::of((1u64.., prop::option::of(any::<u64>()))),
        success in prop::option::of(any::<bool>()),
        failure in prop::option::of(prop_oneof![
            Just(FailureReport::Yes),
            Just(FailureReport::Partial),
            Just(FailureReport::No),
        ]),
        body in prop::option::of(body()),
        flag in prop_oneof![
            Just(Continuation::Last),
            Just(Continuation::More),
            Just(Continuation::Abort),
        ],
    ) -> Message {
        Message { transaction, response, message, range, success, failure, body, flag }
    }
}

const TO: &[u8] = b"msrp://[2001:db8::1]:2855/abc;tcp msrp://b.example.com:9/def;tcp";
const FROM: &[u8] = b"msrps://a.example.com:7777/iau39soe2843z;tcp";

impl Message {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![0; 4096];
        let id = TransactionId::from_u64(self.transaction);
        if let Some(status) = self.response {
            let length = write_response(id.as_bytes(), status, TO, FROM, &mut out).expect("fits");
            out.truncate(length);
            return out;
        }
        let message_id = self.message.map(MessageId::from_u128);
        let head = RequestHead {
            transaction_id: id.as_bytes(),
            method: Method::Send,
            to_path: TO,
            from_path: FROM,
            message_id: message_id.as_ref().map(MessageId::as_bytes),
            byte_range: self.range.map(|(start, total)| ByteRange { start, end: None, total }),
            success_report: self.success,
            failure_report: self.failure,
            extra_header_lines: b"X-Toy: 1\r\n",
            content_type: self.body.is_some().then_some(&b"text/plain"[..]),
        };
        let mut length = head.write(&mut out).expect("fits");
        assert!(length <= head.bytes_max());
        if let Some(body) = &self.body {
            out[length..length + body.len()].copy_from_slice(body);
            length += body.len();
        }
        let tail = &mut out[length..];
        length +=
            write_end_line(id.as_bytes(), self.flag, self.body.is_some(), tail).expect("fits");
        out.truncate(length);
        out
    }
}

/// Bytes that get past the first check now and then.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        Just(b"MSRP abcd SEND\r\n".to_vec()),
        Just(b"MSRP abcd 200 OK\r\n".to_vec()),
        Just(b"To-Path: msrp://a:1/b;tcp\r\n".to_vec()),
        Just(b"From-Path: msrp://a:1/b;tcp\r\n".to_vec()),
        Just(b"Byte-Range: ".to_vec()),
        Just(b"Status: 000".to_vec()),
        Just(b"Content-Type: a/b\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"-------abcd$\r\n".to_vec()),
    ];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Event> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    split_at(stream, &cuts)
}

proptest! {
    #[test]
    fn reads_back_what_was_written_at_random_cuts(
        messages in prop::collection::vec(message(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(Message::write).collect();
        let events = whole(&stream);
        prop_assert_eq!(&cut(&stream, &cuts), &events);
        let mut events = events.into_iter();
        for message in &messages {
            let Some(Event::Head(head)) = events.next() else {
                panic!("no head of {message:?}");
            };
            if message.response.is_none() {
                let report = format!("failure_report: {:?}", message.failure.unwrap_or_default());
                prop_assert!(head.contains(&report));
                let start = message.range.map(|(start, _)| format!("start: {start},"));
                prop_assert!(start.is_none_or(|start| head.contains(&start)));
            } else {
                prop_assert!(head.contains("Response("));
                prop_assert_eq!(events.next(), Some(Event::End(Continuation::Last)));
                continue;
            }
            match &message.body {
                Some(body) if !body.is_empty() => {
                    prop_assert_eq!(events.next(), Some(Event::Body(body.clone())));
                }
                Some(_) | None => {}
            }
            prop_assert_eq!(events.next(), Some(Event::End(message.flag)));
        }
        prop_assert_eq!(events.next(), None);
    }

    #[test]
    fn never_panics_on_garbage_and_says_the_same_at_random_cuts(
        stream in garbage(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        prop_assert_eq!(cut(&stream, &cuts), whole(&stream));
    }

    #[test]
    fn survives_one_changed_byte(
        message in message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut stream = message.write();
        let at = at.index(stream.len());
        stream[at] = byte;
        prop_assert_eq!(cut(&stream, &cuts), whole(&stream));
        let mut run = Stream::default();
        run.feed(&stream);
        prop_assert!(run.unconsumed() <= stream.len());
    }
}
