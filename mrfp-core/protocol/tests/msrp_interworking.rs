//! The interworking function: messages come out as they went in, but for their two paths.

mod msrp_interworking_support;

use mrfp_protocol::msrp::{Interworking, Passage, Paths};
use msrp_interworking_support::{FAR, NEAR, Outcome, convert, way_back, way_in};
use proptest::prelude::*;

fn text(path: &[u8]) -> &str {
    std::str::from_utf8(path).unwrap()
}

/// A message with these paths; `rest` is what follows From-Path up to the end-line.
fn message(id: &str, start: &str, paths: Paths<'_>, rest: &str, flag: char) -> String {
    let (to, from) = (text(paths.to), text(paths.from));
    format!(
        "MSRP {id} {start}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{rest}-------{id}{flag}\r\n"
    )
}

/// The first URI of each path.
fn hop(paths: Paths<'static>) -> Paths<'static> {
    let first = |path: &'static [u8]| path.split(|byte| *byte == b' ').next().unwrap();
    Paths { to: first(paths.to), from: first(paths.from) }
}

fn whole(interworking: Interworking, stream: &str) -> Outcome {
    convert(interworking, [stream.as_bytes()])
}

const CHUNK: &str = "Message-ID: 4\r\nByte-Range: 1-*/8\r\nSuccess-Report: yes\r\n\
     Failure-Report: partial\r\nX-Private: kept \r\nContent-Type: a/b;c=\"d\"\r\n\r\nabcd\r\n";

/// One message of each kind.
fn conversation(paths: Paths<'static>) -> String {
    [
        message("d93kswow", "SEND", paths, "Message-ID: 1\r\nByte-Range: 1-0/0\r\n", '$'),
        message("dkei38sd", "SEND", paths, CHUNK, '+'),
        message("dkei38se", "SEND", paths, "Message-ID: 4\r\nContent-Type: a/b\r\n\r\n", '#'),
        message("d93kswow", "200 OK", paths, "", '$'),
        message("d93kswoy", "413 Stop Sending", paths, "", '$'),
        message("dkei38ia", "REPORT", paths, "Message-ID: 4\r\nStatus: 000 200 OK\r\n", '$'),
        message("xy12", "NICKNAME", paths, "Use-Nickname: \"Alice\"\r\n", '$'),
        message("xy13", "TOMORROW", paths, "", '$'),
    ]
    .concat()
}

#[test]
fn changes_the_paths_and_nothing_else_at_every_cut() {
    let (sent, expected) = (conversation(NEAR), conversation(FAR));
    for cut in 0..=sent.len() {
        let (one, other) = sent.as_bytes().split_at(cut);
        let outcome = convert(way_in(), [one, other]);
        assert_eq!(text(&outcome.left), expected, "cut at {cut}");
        assert_eq!((outcome.refused.len(), outcome.malformed), (0, 0));
    }
}

#[test]
fn takes_paths_of_other_writing_for_the_same() {
    let written = Paths {
        to: b"MSRP://192.0.2.1:7000/gatewaynear;TCP",
        from: b"msrp://u%65.Example.com:7654/iau39soe2843z;tcp;since=2007",
    };
    assert_eq!(text(&whole(way_in(), &conversation(written)).left), conversation(FAR));
}

#[test]
fn refuses_requests_of_strangers_and_drops_what_else_they_say() {
    let strange = [
        Paths { to: b"msrp://192.0.2.1:7000/somebodyelse;tcp", ..NEAR },
        Paths { from: b"msrp://ue.example.com:7654/IAU39soe2843z;tcp", ..NEAR },
        Paths { from: b"msrps://ue.example.com:7654/iau39soe2843z;tcp", ..NEAR },
        Paths {
            from: b"msrp://relay.example.com;tcp msrp://ue.example.com:7654/iau39soe2843z;tcp",
            ..NEAR
        },
        Paths { to: b"not a URI", ..NEAR },
    ];
    let quiet = "Message-ID: 9\r\nFailure-Report: no\r\n";
    for paths in strange {
        let stream = [
            message("dkei38sd", "SEND", paths, CHUNK, '+'),
            message("quiet123", "SEND", paths, quiet, '$'),
            message("d93kswow", "200 OK", paths, "", '$'),
            message("dkei38ia", "REPORT", paths, "Message-ID: 4\r\nStatus: 000 200 OK\r\n", '$'),
            conversation(NEAR),
        ]
        .concat();
        let hop = hop(paths);
        let answer = [b"dkei38sd", hop.from, hop.to].join(&b' ');
        for step in [1, 7, stream.len()] {
            let outcome = convert(way_in(), stream.as_bytes().chunks(step));
            assert_eq!(outcome.refused, std::slice::from_ref(&answer));
            assert_eq!(text(&outcome.left), conversation(FAR));
        }
    }
}

/// RFC 4975 section 7.2: a response to a SEND names one hop.
#[test]
fn answers_of_one_hop_stay_answers_of_one_hop() {
    const RELAYED: Paths<'_> = Paths {
        to: b"msrp://192.0.2.1:7000/gatewaynear;tcp",
        from: b"msrps://relay.example.com:2855/k3;tcp msrps://ue.example.com:7654/iau3;tcp",
    };
    const OTHER: Paths<'_> = Paths {
        to: b"msrps://other.example.com:2855/z9;tcp msrps://bob.example.com:8888/9di4;tcp",
        from: b"msrp://198.51.100.1:7002/gatewayfar;tcp",
    };
    let interworking = || Interworking::new(RELAYED, OTHER).unwrap();
    let response = |paths| message("d93kswow", "200 OK", paths, "", '$');
    let request = |paths| message("d93kswow", "SEND", paths, "Message-ID: 1\r\n", '$');
    assert_eq!(text(&whole(interworking(), &response(hop(RELAYED))).left), response(hop(OTHER)));
    let back = Interworking::new(OTHER, RELAYED).unwrap();
    assert_eq!(
        text(&whole(back, &response(OTHER)).left),
        response(Paths { from: hop(RELAYED).from, ..RELAYED })
    );
    assert_eq!(text(&whole(interworking(), &request(RELAYED)).left), request(OTHER));
    let refused = whole(interworking(), &request(hop(RELAYED)));
    assert_eq!((refused.left.len(), refused.refused.len()), (0, 1), "a request names them all");
}

#[test]
fn skips_what_is_malformed_and_goes_on_behind_it() {
    let broken = message(
        "dkei38sd",
        "SEND",
        NEAR,
        "Byte-Range: x\r\nContent-Type: a/b\r\n\r\nabcd\r\n",
        '$',
    );
    let stream = [conversation(NEAR), broken, conversation(NEAR)].concat();
    for step in [1, 5, 64, stream.len()] {
        let outcome = convert(way_in(), stream.as_bytes().chunks(step));
        assert_eq!((outcome.malformed, outcome.is_lost), (1, false));
        assert_eq!(text(&outcome.left), conversation(FAR).repeat(2));
    }
}

#[test]
fn knows_where_a_message_of_ours_may_stand() {
    let mut interworking = way_in();
    let sent = message("dkei38sd", "SEND", NEAR, CHUNK, '$');
    let (head, rest) = sent.split_at(sent.find("cd\r\n---").unwrap());
    // The head is not passed on before it is whole.
    assert!(interworking.next(&head.as_bytes()[..60]).unwrap().is_none());
    assert!(interworking.is_between_messages());
    let step = interworking.next(head.as_bytes()).unwrap().unwrap();
    assert!(matches!(step.passage, Passage::Begins(_)));
    assert!(!interworking.is_between_messages());
    assert!(matches!(
        interworking.next(rest.as_bytes()).unwrap().unwrap().passage,
        Passage::GoesOn(bytes) if bytes == rest.as_bytes()
    ));
    assert!(interworking.is_between_messages());
    // Nor is one begun that is refused.
    let strange = sent.replace("gatewaynear", "other");
    let (head, _) = strange.split_at(strange.find("cd\r\n---").unwrap());
    let step = interworking.next(head.as_bytes()).unwrap().unwrap();
    assert!(matches!(step.passage, Passage::Refused(_)));
    assert!(interworking.is_between_messages());
}

#[test]
fn is_not_made_of_what_are_no_uris() {
    let bad: [&[u8]; 4] = [b"", b"msrp://a", b"msrp://a.example.com:1/x;tcp\r\nX: y", b"sip:a@b"];
    for bad in bad {
        assert!(Interworking::new(Paths { to: bad, ..NEAR }, FAR).is_err());
        assert!(Interworking::new(NEAR, Paths { from: bad, ..FAR }).is_err());
    }
}

/// Any message, without its paths: identifier, start, what follows, flag.
fn any_message() -> impl Strategy<Value = (String, &'static str, Vec<u8>, char)> {
    let id = "[a-z0-9]{4,32}";
    let flag = prop_oneof![Just('$'), Just('+'), Just('#')];
    // Bodies made of what end-lines are made of, so that near misses are common.
    let part = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(b"\r\n-------".to_vec()),
        1 => Just(b"To-Path: msrp://192.0.2.1:7000/gatewaynear;tcp\r\n".to_vec()),
        1 => Just(b"MSRP abcd SEND\r\n".to_vec()),
        1 => Just(b"\r\n-------abc$\r".to_vec()),
    ];
    let body = prop::collection::vec(part, 0..10).prop_map(|parts| {
        let head = b"Message-ID: m1\r\nByte-Range: 1-*/*\r\nContent-Type: x/y\r\n\r\n";
        [&head[..], &parts.concat(), b"\r\n"].concat()
    });
    let kind = prop_oneof![
        3 => body.prop_map(|rest| ("SEND", rest)),
        1 => Just(("SEND", b"Message-ID: m1\r\nByte-Range: 1-0/0\r\n".to_vec())),
        1 => Just(("200 OK", Vec::new())),
        1 => Just(("REPORT", b"Message-ID: m1\r\nStatus: 000 200 OK\r\n".to_vec())),
    ];
    (id, kind, flag).prop_map(|(id, (start, rest), flag)| (id, start, rest, flag))
}

fn stream(messages: &[(String, &'static str, Vec<u8>, char)], paths: Paths<'_>) -> Vec<u8> {
    let one = |(id, start, rest, flag): &(String, &'static str, Vec<u8>, char)| {
        let whole = message(id, start, paths, "", *flag);
        let end = whole.rfind("-------").unwrap();
        [&whole.as_bytes()[..end], rest, &whole.as_bytes()[end..]].concat()
    };
    messages.iter().flat_map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_messages_come_out_as_they_went_in_but_for_their_paths(
        messages in prop::collection::vec(any_message(), 1..8),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let sent = stream(&messages, NEAR);
        cuts.sort_by_key(|cut| cut.index(sent.len()));
        let mut segments = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().map(|cut| cut.index(sent.len())).chain([sent.len()]) {
            segments.push(&sent[from..cut]);
            from = cut;
        }
        let outcome = convert(way_in(), segments);
        prop_assert!(outcome.left == stream(&messages, FAR));
        prop_assert_eq!((outcome.refused.len(), outcome.malformed), (0, 0));
        prop_assert!(convert(way_back(), [&outcome.left[..]]).left == sent);
    }
}
