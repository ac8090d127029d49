//! The framer on messages as they are meant to be, and as they are not.

mod msrp_support;

use mrfp_protocol::msrp::{
    ByteRange, Continuation, FailureReport, Framer, HEAD_BYTES_MAX, Head, MalformedReason, Method,
    Paths, Piece, Start,
};
use msrp_support::{Event, Stream, in_steps, split_at, whole};

const TO: &str = "msrps://203.0.113.5:2855/Zr81hYp0LLw3tQe6;tcp";
const FROM: &str = "msrps://198.51.100.10:40210/q7Fz0K2m9XbA4cD1;tcp";

/// A SEND with the given headers behind the paths (each with CRLF) and the given rest.
fn send(headers: &str, rest: &str) -> String {
    format!("MSRP d93kswow SEND\r\nTo-Path: {TO}\r\nFrom-Path: {FROM}\r\n{headers}{rest}")
}

fn hello() -> String {
    send(
        "Message-ID: 12339sdqwer\r\nByte-Range: 1-5/5\r\nContent-Type: text/plain\r\n",
        "\r\nhello\r\n-------d93kswow$\r\n",
    )
}

fn with_body(body: &str, end: &str) -> String {
    send("Content-Type: text/plain\r\n", &format!("\r\n{body}\r\n{end}\r\n"))
}

fn only_piece(stream: &str) -> Piece<'_> {
    let piece = Framer::default().next(stream.as_bytes()).expect("well formed").expect("complete");
    assert_eq!(piece.consumed, stream.len());
    piece
}

fn only_head(stream: &str) -> Head<'_> {
    only_piece(stream).head.expect("a head")
}

fn refusal(stream: &str) -> MalformedReason {
    let events = whole(stream.as_bytes());
    assert_eq!(events, in_steps(stream.as_bytes(), 1));
    match events.as_slice() {
        [Event::Malformed(reason, _)] => *reason,
        other => panic!("{other:?}"),
    }
}

fn answer(stream: &str) -> Option<[Vec<u8>; 3]> {
    match whole(stream.as_bytes()).as_slice() {
        [Event::Malformed(_, answer)] => answer.clone(),
        other => panic!("{other:?}"),
    }
}

/// Checks that the body arrives as it is and the message ends, at every cut.
fn body_of(stream: &str) -> Vec<u8> {
    let events = whole(stream.as_bytes());
    for cut in 0..=stream.len() {
        assert_eq!(split_at(stream.as_bytes(), &[cut]), events, "cut at {cut}");
    }
    assert_eq!(in_steps(stream.as_bytes(), 1), events);
    match events.as_slice() {
        [Event::Head(_), Event::Body(body), Event::End(Continuation::Last)] => body.clone(),
        [Event::Head(_), Event::End(Continuation::Last)] => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_a_short_message_as_one_piece() {
    let stream = hello();
    let piece = only_piece(&stream);
    assert_eq!(piece.body, b"hello");
    assert_eq!(piece.end, Some(Continuation::Last));
    let head = piece.head.expect("a head");
    assert_eq!(head.transaction_id, b"d93kswow");
    assert_eq!(head.start, Start::Request(Method::Send));
    assert_eq!(head.to_path.first(), TO.as_bytes());
    assert_eq!(head.from_path.last(), FROM.as_bytes());
    assert_eq!(head.message_id, Some(&b"12339sdqwer"[..]));
    assert_eq!(head.byte_range, Some(ByteRange { start: 1, end: Some(5), total: Some(5) }));
    assert!(!head.success_report);
    assert_eq!(head.failure_report, FailureReport::Yes);
    assert_eq!(head.content_type, Some(&b"text/plain"[..]));
    assert_eq!(
        head.header_lines,
        b"Message-ID: 12339sdqwer\r\nByte-Range: 1-5/5\r\nContent-Type: text/plain\r\n"
    );
}

#[test]
fn reads_the_binding_send_without_body() {
    let stream = send("Message-ID: 12339sdqwer\r\nByte-Range: 1-0/0\r\n", "-------d93kswow$\r\n");
    let piece = only_piece(&stream);
    assert_eq!(piece.body, b"");
    assert_eq!(piece.end, Some(Continuation::Last));
    assert_eq!(piece.head.expect("a head").content_type, None);
    assert_eq!(in_steps(stream.as_bytes(), 1), whole(stream.as_bytes()));
}

#[test]
fn reads_a_response() {
    let stream = format!(
        "MSRP d93kswow 481 No Such Session\r\nTo-Path: {FROM}\r\nFrom-Path: {TO}\r\n\
         -------d93kswow$\r\n"
    );
    assert_eq!(only_head(&stream).start, Start::Response(481, b"No Such Session"));
    let bare = stream.replace(" No Such Session", "");
    assert_eq!(only_head(&bare).start, Start::Response(481, b""));
}

#[test]
fn reads_the_other_methods() {
    let of = |method: &str| send("", "-------d93kswow$\r\n").replace("SEND", method);
    assert_eq!(only_head(&of("REPORT")).start, Start::Request(Method::Report));
    assert_eq!(only_head(&of("AUTH")).start, Start::Request(Method::Auth));
    assert_eq!(only_head(&of("NICKNAME")).start, Start::Request(Method::Nickname));
    assert_eq!(only_head(&of("DANCE")).start, Start::Request(Method::Unknown(b"DANCE")));
}

#[test]
fn reads_all_three_flags() {
    for (flag, expected) in
        [('$', Continuation::Last), ('+', Continuation::More), ('#', Continuation::Abort)]
    {
        let stream = with_body("part", &format!("-------d93kswow{flag}"));
        assert_eq!(only_piece(&stream).end, Some(expected));
        let bodiless = send("", &format!("-------d93kswow{flag}\r\n"));
        assert_eq!(only_piece(&bodiless).end, Some(expected));
    }
}

#[test]
fn keeps_a_body_that_ends_in_crlf() {
    assert_eq!(body_of(&with_body("hello\r\n", "-------d93kswow$")), b"hello\r\n");
    assert_eq!(body_of(&with_body("\r\n\r\n", "-------d93kswow$")), b"\r\n\r\n");
    assert_eq!(body_of(&with_body("\r", "-------d93kswow$")), b"\r");
}

#[test]
fn keeps_hyphens_with_another_transaction_id_in_the_body() {
    for body in [
        "a\r\n-------other123$\r\nb",
        "a\r\n-------d93kswo$\r\nb",
        "a\r\n-------d93kswow1$\r\nb",
        "a\r\n------d93kswow$\r\nb",
        "a\r\n--------d93kswow$\r\nb",
        "a\r\n-------\r\n-------\r\nb",
        "-------other123$\r\n",
    ] {
        assert_eq!(body_of(&with_body(body, "-------d93kswow$")), body.as_bytes());
    }
}

#[test]
fn keeps_an_end_line_with_a_foreign_flag_in_the_body() {
    for body in [
        "a\r\n-------d93kswow!\r\nb",
        "a\r\n-------d93kswow\r\nb",
        "a\r\n-------d93kswow$ \r\nb",
        "a\r\n-------d93kswow$\nb",
        "a\r\n-------d93kswow$\r\r\nb",
        "a\n-------d93kswow$\r\nb",
        "a-------d93kswow$\r\nb",
    ] {
        assert_eq!(body_of(&with_body(body, "-------d93kswow$")), body.as_bytes());
    }
}

#[test]
fn finds_an_end_line_right_behind_one_that_looks_like_it() {
    let body = "a\r\n-------d93kswow";
    assert_eq!(body_of(&with_body(body, "-------d93kswow$")), body.as_bytes());
    let body = "a\r\n-------";
    assert_eq!(body_of(&with_body(body, "-------d93kswow$")), body.as_bytes());
}

#[test]
fn reads_an_empty_body_with_and_without_its_crlf() {
    assert_eq!(body_of(&with_body("", "-------d93kswow$")), b"");
    let short = send("Content-Type: text/plain\r\n", "\r\n-------d93kswow$\r\n");
    assert_eq!(body_of(&short), b"");
}

#[test]
fn reads_a_chunk_of_no_length_that_is_to_be_continued() {
    let stream =
        send("Byte-Range: 5-*/10\r\nContent-Type: text/plain\r\n", "\r\n\r\n-------d93kswow+\r\n");
    let piece = only_piece(&stream);
    assert_eq!(piece.body, b"");
    assert_eq!(piece.end, Some(Continuation::More));
}

#[test]
fn goes_by_the_end_line_whatever_the_range_says() {
    for range in ["1-2/2", "1-500/500", "1-5/3", "1-*/*", "7-9/9"] {
        let stream = hello().replace("1-5/5", range);
        assert_eq!(only_piece(&stream).body, b"hello", "{range}");
    }
}

#[test]
fn reads_overlapping_chunks_as_they_come() {
    let first = hello().replace("1-5/5", "1-*/8").replace("w$\r\n", "w+\r\n");
    let second = hello().replace("1-5/5", "4-*/8").replace("d93kswow", "op2nc9a");
    let events = whole(format!("{first}{second}").as_bytes());
    assert_eq!(events.len(), 6);
    assert_eq!(events[2], Event::End(Continuation::More));
    assert_eq!(events[4], Event::Body(b"hello".to_vec()));
}

#[test]
fn reads_paths_of_several_uris() {
    let stream = hello().replace(TO, &format!("{TO} msrp://b.example.com:1/y;tcp"));
    let path = only_head(&stream).to_path;
    assert_eq!(path.count(), 2);
    assert_eq!(path.first(), TO.as_bytes());
    assert_eq!(path.last(), b"msrp://b.example.com:1/y;tcp");
    assert_eq!(path.iter().collect::<Vec<_>>(), [path.first(), path.last()]);
    assert_eq!(only_head(&stream).from_path.count(), 1);
}

#[test]
fn tolerates_headers_it_does_not_know() {
    let stream = hello().replace("Byte-Range", "X-Toy: \t a:b\r\nEmpty: \r\nByte-Range");
    let head = only_head(&stream);
    assert_eq!(head.header(b"x-toy"), Some(&b"\t a:b"[..]));
    assert_eq!(head.header(b"empty"), Some(&b""[..]));
    assert_eq!(head.header(b"absent"), None);
    assert!(head.byte_range.is_some());
}

#[test]
fn reads_header_names_in_any_case() {
    let stream = hello()
        .replace("To-Path", "TO-PATH")
        .replace("From-Path", "from-path")
        .replace("Message-ID", "message-id")
        .replace("Content-Type", "CONTENT-type");
    let head = only_head(&stream);
    assert_eq!(head.message_id, Some(&b"12339sdqwer"[..]));
    assert_eq!(head.content_type, Some(&b"text/plain"[..]));
}

#[test]
fn reads_report_headers() {
    let stream = send(
        "Success-Report: YES\r\nFailure-Report: partial\r\nStatus: 000 413 Stop now\r\n",
        "-------d93kswow$\r\n",
    );
    let head = only_head(&stream);
    assert!(head.success_report);
    assert_eq!(head.failure_report, FailureReport::Partial);
    let status = head.status.expect("a status");
    assert_eq!((status.namespace, status.code, status.comment), (0, 413, &b"Stop now"[..]));
}

#[test]
fn refuses_transaction_ids_of_3_and_33_characters() {
    for id in ["abc".to_owned(), "a".repeat(33)] {
        let stream = hello().replace("d93kswow", &id);
        assert_eq!(refusal(&stream), MalformedReason::TransactionId);
        assert_eq!(answer(&stream), None);
    }
    for id in ["abcd".to_owned(), "a".repeat(32), "a.-+%=".to_owned()] {
        assert_eq!(only_head(&hello().replace("d93kswow", &id)).transaction_id, id.as_bytes());
    }
    assert_eq!(refusal(&hello().replace("d93kswow", "-d93")), MalformedReason::TransactionId);
}

#[test]
fn refuses_start_lines_that_are_none() {
    let of = |line: &str| hello().replace("MSRP d93kswow SEND", line);
    for line in [
        "GET / HTTP/1.1",
        "msrp d93kswow SEND",
        "MSRP d93kswow",
        "MSRP d93kswow ",
        "MSRP d93kswow send",
        "MSRP d93kswow SEND ",
        "MSRP d93kswow 20",
        "MSRP d93kswow 2000",
        "MSRP d93kswow 2x0",
    ] {
        assert_eq!(refusal(&of(line)), MalformedReason::StartLine, "{line}");
    }
    // Said as soon as it is known, before a line has come.
    let mut run = Stream::default();
    run.feed(b"MS\x16");
    assert!(run.lost);
}

#[test]
fn refuses_a_missing_from_path() {
    let stream = hello().replace(&format!("From-Path: {FROM}\r\n"), "");
    assert_eq!(refusal(&stream), MalformedReason::FromPath);
    assert_eq!(answer(&stream), None);
}

#[test]
fn refuses_paths_in_the_wrong_order_and_can_answer() {
    let stream = hello().replace("To-Path", "x").replace("From-Path", "To-Path");
    let stream = stream.replace("x:", "From-Path:");
    assert_eq!(refusal(&stream), MalformedReason::ToPath);
    let answer = answer(&stream).expect("ids and paths are there");
    assert_eq!(answer, [b"d93kswow".to_vec(), TO.into(), FROM.into()]);
}

#[test]
fn refuses_paths_that_are_no_lists() {
    for (path, other) in [(TO, MalformedReason::ToPath), (FROM, MalformedReason::FromPath)] {
        for bad in [String::new(), format!("{path} "), format!("{path}  {path}")] {
            assert_eq!(refusal(&hello().replace(path, &bad)), other, "{bad}");
        }
    }
}

#[test]
fn refuses_a_tab_after_the_colon() {
    assert_eq!(refusal(&hello().replace("To-Path: ", "To-Path:\t")), MalformedReason::ToPath);
    let stream = hello().replace("Message-ID: ", "Message-ID:\t");
    assert_eq!(refusal(&stream), MalformedReason::Header);
    assert!(answer(&stream).is_some());
}

#[test]
fn refuses_two_spaces_or_none_after_the_colon() {
    assert_eq!(refusal(&hello().replace("To-Path: ", "To-Path:  ")), MalformedReason::ToPath);
    assert_eq!(refusal(&hello().replace("Range: ", "Range:  ")), MalformedReason::ByteRange);
    assert_eq!(refusal(&hello().replace("Range: ", "Range:")), MalformedReason::Header);
    assert_eq!(refusal(&hello().replace("Type: ", "Type:  ")), MalformedReason::ContentType);
}

#[test]
fn refuses_a_folded_header() {
    let stream = hello().replace("12339sdqwer", "12339\r\n sdqwer");
    assert_eq!(refusal(&stream), MalformedReason::Header);
}

#[test]
fn refuses_a_range_that_starts_at_0() {
    let stream = hello().replace("1-5/5", "0-5/5");
    assert_eq!(refusal(&stream), MalformedReason::ByteRange);
    let answer = answer(&stream).expect("a 400 can be sent");
    assert_eq!(answer, [b"d93kswow".to_vec(), FROM.into(), TO.into()]);
}

#[test]
fn refuses_known_headers_twice() {
    for line in [
        "Message-ID: 12339sdqwer\r\n",
        "Byte-Range: 1-5/5\r\n",
        "Success-Report: no\r\n",
        "Failure-Report: yes\r\n",
        "Status: 000 200\r\n",
    ] {
        let stream = send(&line.repeat(2), "-------d93kswow$\r\n");
        assert_eq!(refusal(&stream), MalformedReason::Duplicate, "{line}");
    }
    for name in ["To-Path", "From-Path"] {
        let stream = send(&format!("{name}: {TO}\r\n"), "-------d93kswow$\r\n");
        assert_eq!(refusal(&stream), MalformedReason::Duplicate, "{name}");
    }
}

#[test]
fn refuses_values_that_are_none() {
    for (line, reason) in [
        ("Message-ID: a b\r\n", MalformedReason::MessageId),
        ("Success-Report: maybe\r\n", MalformedReason::SuccessReport),
        ("Failure-Report: \r\n", MalformedReason::FailureReport),
        ("Status: 000\r\n", MalformedReason::Status),
        ("Status: 000 20\r\n", MalformedReason::Status),
        (": nameless\r\n", MalformedReason::Header),
        ("no colon\r\n", MalformedReason::Header),
        ("Bell: \u{7}\r\n", MalformedReason::LineEnd),
        ("Lonely: \r\r\n", MalformedReason::LineEnd),
        ("Bare: line feed\n", MalformedReason::LineEnd),
    ] {
        assert_eq!(refusal(&send(line, "-------d93kswow$\r\n")), reason, "{line}");
    }
}

#[test]
fn refuses_a_header_behind_content_type() {
    let stream = send("Content-Type: text/plain\r\nX-Toy: 1\r\n", "\r\nx\r\n-------d93kswow$\r\n");
    assert_eq!(refusal(&stream), MalformedReason::ContentTypeNotLast);
}

#[test]
fn refuses_bodies_that_do_not_agree_with_content_type() {
    let stream = send("Content-Type: text/plain\r\n", "-------d93kswow$\r\n");
    assert_eq!(refusal(&stream), MalformedReason::BodyMissing);
    let stream = send("", "\r\nx\r\n-------d93kswow$\r\n");
    assert_eq!(refusal(&stream), MalformedReason::BodyUnannounced);
    let stream = hello().replace("SEND", "200 OK");
    assert_eq!(refusal(&stream), MalformedReason::BodyInResponse);
}

#[test]
fn refuses_a_foreign_end_line_behind_the_headers() {
    for end in ["-------other123$", "-------d93kswow!", "-------d93kswow$ ", "-------"] {
        let stream = send("", &format!("{end}\r\n"));
        assert_eq!(refusal(&stream), MalformedReason::EndLine, "{end}");
    }
}

#[test]
fn refuses_a_lone_cr_or_lf_and_control_characters_in_any_line_at_every_cut() {
    let request = hello();
    let response = format!("MSRP d93k 200 OK\r\nTo-Path: {FROM}\r\nFrom-Path: {TO}\r\n");
    let head_bytes = request.find("\r\n\r\n").expect("a body");
    for (stream, last) in [(&request, head_bytes), (&response, response.len() - 2)] {
        for at in 1..last {
            for wrong in ["\r", "\n", "\x01", "\x7f"] {
                let mut stream = stream.clone();
                stream.insert_str(at, wrong);
                stream.push_str("-------d93k$\r\n");
                let events = whole(stream.as_bytes());
                assert!(matches!(events[..], [Event::Malformed(..)]), "{stream:?}: {events:?}");
                assert_eq!(split_at(stream.as_bytes(), &[at]), events, "{stream:?}");
                assert_eq!(split_at(stream.as_bytes(), &[at + 1]), events, "{stream:?}");
            }
        }
    }
}

#[test]
fn never_answers_reports_responses_and_who_asks_for_none() {
    let broken = send("Byte-Range: 0-1/1\r\n", "-------d93kswow$\r\n");
    assert!(answer(&broken).is_some());
    assert_eq!(answer(&broken.replace("SEND", "REPORT")), None);
    assert_eq!(answer(&broken.replace("SEND", "200 OK")), None);
    let quiet = send("Byte-Range: 0-1/1\r\nFailure-Report: no\r\n", "-------d93kswow$\r\n");
    assert_eq!(answer(&quiet), None);
    let illegible = broken.replace(FROM, "http://example.com/");
    assert_eq!(answer(&illegible), None);
}

#[test]
fn accepts_a_head_of_the_greatest_length_and_no_byte_more() {
    let start = send("", "");
    let tail = "Content-Type: text/plain\r\n\r\n";
    let filler = HEAD_BYTES_MAX - start.len() - "X: \r\n".len() - tail.len();
    for (length, fits) in [(filler, true), (filler + 1, false)] {
        let header = format!("X: {}\r\n", "x".repeat(length));
        let stream = format!("{start}{header}{tail}body\r\n-------d93kswow$\r\n");
        if fits {
            assert_eq!(only_piece(&stream).body, b"body");
        } else {
            assert_eq!(refusal(&stream), MalformedReason::HeadTooLong);
            assert!(answer(&stream).is_some());
        }
    }
}

#[test]
fn refuses_a_header_line_of_1_mib_early_and_looks_at_each_byte_once() {
    let stream = send(&format!("X-Long: {}\r\n", "x".repeat(1 << 20)), "-------d93kswow$\r\n");
    let mut run = Stream::default();
    let mut fed = 0;
    for byte in stream.as_bytes() {
        run.feed(&[*byte]);
        fed += 1;
        if run.lost {
            break;
        }
    }
    assert_eq!(fed, HEAD_BYTES_MAX);
    assert_eq!(run.events.len(), 1);
    assert_eq!(run.events, whole(stream.as_bytes()));
}

#[test]
fn carries_next_to_nothing_inside_a_body_of_1_mib_that_comes_byte_by_byte() {
    let id = "a".repeat(32);
    let body = "x\r\n-------".repeat((1 << 20) / 10);
    let stream = with_body(&body, "-------d93kswow$").replace("d93kswow", &id);
    let head_bytes = stream.len() - body.len() - "\r\n-------$\r\n".len() - id.len();
    let mut run = Stream::default();
    for (index, byte) in stream.bytes().enumerate() {
        run.feed(&[byte]);
        if index >= head_bytes {
            assert!(run.unconsumed() <= 43, "{} at {index}", run.unconsumed());
        }
    }
    assert_eq!(run.unconsumed(), 0);
    assert_eq!(run.events, whole(stream.as_bytes()));
    assert_eq!(run.events[1], Event::Body(body.into_bytes()));
}

#[test]
fn repeats_the_reason_once_the_stream_is_lost() {
    let mut framer = Framer::default();
    let first = framer.next(b"nonsense").expect_err("malformed");
    let second = framer.next(hello().as_bytes()).expect_err("still malformed");
    assert_eq!(first.reason, second.reason);
}

#[test]
fn reads_50_messages_in_one_segment() {
    let stream: String = (0..50)
        .map(|number| match number % 3 {
            0 => hello().replace("d93kswow", &format!("tid{number:04}")),
            1 => send("", "-------d93kswow$\r\n").replace("d93kswow", &format!("tid{number:04}")),
            _ => format!(
                "MSRP tid{number:04} 200 OK\r\nTo-Path: {FROM}\r\nFrom-Path: {TO}\r\n\
                 -------tid{number:04}$\r\n"
            ),
        })
        .collect();
    let mut framer = Framer::default();
    let mut rest = stream.as_bytes();
    for number in 0..50 {
        let piece = framer.next(rest).expect("well formed").expect("whole");
        assert_eq!(piece.end, Some(Continuation::Last));
        let head = piece.head.expect("one piece a message");
        assert_eq!(head.transaction_id, format!("tid{number:04}").as_bytes());
        rest = &rest[piece.consumed..];
    }
    assert!(rest.is_empty());
    assert!(framer.next(rest).expect("well formed").is_none());
}

#[test]
fn keeps_little_state() {
    // A quiet connection is to cost a few hundred bytes in all.
    assert!(size_of::<Framer>() <= 64, "{}", size_of::<Framer>());
}

#[test]
fn paths_that_are_expected_change_nothing_but_the_time_it_takes() {
    let expectations = [
        (TO, FROM),
        (FROM, TO),
        (TO, TO),
        (&TO[..TO.len() - 1], FROM),
        (TO, &FROM[..FROM.len() - 1]),
        ("msrp://a:1/b;tcp", "msrp://c:2/d;tcp"),
    ];
    let two_hops = hello().replace("\r\nFrom-Path", " msrp://a:1/b;tcp\r\nFrom-Path");
    let streams = [
        hello(),
        two_hops,
        hello().replace("To-Path", "to-path"),
        hello().replace("\r\nFrom-Path", "\nFrom-Path"),
        hello().replace("\r\nMessage-ID", "\rMessage-ID"),
        format!(
            "MSRP d93kswow 200 OK\r\nTo-Path: {TO}\r\nFrom-Path: {FROM}\r\n-------d93kswow$\r\n"
        ),
        "MSRP d93kswow SEND\r\nTo-Path: \r\nFrom-Path: \r\n-------d93kswow$\r\n".to_owned(),
    ];
    for stream in &streams {
        for (to, from) in expectations {
            let usual = Some(Paths { to: to.as_bytes(), from: from.as_bytes() });
            for length in 0..=stream.len() {
                let input = &stream.as_bytes()[..length];
                let expected = Framer::default().next(input);
                // Whatever was in it before.
                let mut piece = only_piece(&streams[0]);
                let read = Framer::default().read(input, usual, &mut piece);
                let read = read.map(|is_there| is_there.then_some(piece));
                assert_eq!(format!("{read:?}"), format!("{expected:?}"), "{stream} to {length}");
            }
        }
    }
}
