//! The head reader goes for speed; here it is held against one that goes for simplicity.

use std::collections::HashSet;

use mrfp_protocol::msrp::Framer;
use proptest::prelude::*;

/// Whether a message that is whole begins with a head by RFC 4975 section 9, as far as it is checked.
fn is_well_formed(stream: &[u8]) -> bool {
    let Ok(text) = String::from_utf8(stream.to_vec()) else { return false };
    let lines: Vec<&str> = text.split("\r\n").collect();
    let Some(end) = lines.iter().position(|line| line.is_empty() || line.starts_with("-------"))
    else {
        return false;
    };
    if lines[..=end].iter().any(|line| line.chars().any(|c| c.is_ascii_control() && c != '\t')) {
        return false;
    }
    let [start, to, from, headers @ ..] = &lines[..end] else { return false };
    let Some((id, is_response)) = start_line(start) else { return false };
    let Some(has_content) = content_type(headers) else { return false };
    path(to, "to-path") && path(from, "from-path") && {
        if lines[end].is_empty() {
            has_content && !is_response
        } else {
            !has_content
                && ["$", "+", "#"]
                    .map(|flag| format!("-------{id}{flag}"))
                    .contains(&lines[end].to_owned())
        }
    }
}

fn start_line(line: &str) -> Option<(&str, bool)> {
    let (id, rest) = line.strip_prefix("MSRP ")?.split_once(' ')?;
    let is_ident = (4..=32).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || ".-+%=".contains(c));
    let is_method = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_uppercase());
    let is_code = code(rest).is_some();
    (is_ident && (is_method || is_code)).then_some((id, is_code))
}

fn code(text: &str) -> Option<&str> {
    let (code, rest) = text.split_at_checked(3)?;
    let is_number = code.chars().all(|c| c.is_ascii_digit());
    (is_number && (rest.is_empty() || rest.starts_with(' '))).then(|| rest.get(1..).unwrap_or(""))
}

fn path(line: &str, name: &str) -> bool {
    line.split_once(": ").is_some_and(|(found, value)| {
        found.eq_ignore_ascii_case(name)
            && value
                .split(' ')
                .all(|uri| !uri.is_empty() && uri.chars().all(|c| c.is_ascii_graphic()))
    })
}

/// Whether there is a Content-Type; `None`: a line is wrong.
fn content_type(lines: &[&str]) -> Option<bool> {
    let mut seen = HashSet::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.to_ascii_lowercase(), value.strip_prefix(' ')?);
        let right = match name.as_str() {
            "message-id" => {
                (1..=64).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic())
            }
            "byte-range" => byte_range(value).is_some(),
            "success-report" => ["yes", "no"].contains(&&*value.to_ascii_lowercase()),
            "failure-report" => ["yes", "no", "partial"].contains(&&*value.to_ascii_lowercase()),
            "status" => code(value).is_some_and(|rest| code(rest).is_some()),
            "content-type" => {
                let at = value.find(['/', ';'])?;
                at > 0
                    && value.as_bytes()[0] > b' '
                    && value[at..].starts_with('/')
                    && !matches!(value[at..].chars().nth(1), None | Some(';'))
            }
            "to-path" | "from-path" => false,
            _ => {
                name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.chars().all(|c| c.is_ascii_graphic())
            }
        };
        let known = !matches!(name.as_str(), "x-any" | "m");
        if !right || seen.contains("content-type") || (known && !seen.insert(name)) {
            return None;
        }
    }
    Some(seen.contains("content-type"))
}

fn byte_range(value: &str) -> Option<()> {
    let (start, rest) = value.split_once('-')?;
    let (end, total) = rest.split_once('/')?;
    let number = |text: &str| -> Option<u64> {
        text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let or_star = |text: &str| if text == "*" { Some(None) } else { number(text).map(Some) };
    let (start, end, _) = (number(start)?, or_star(end)?, or_star(total)?);
    (start > 0 && end.is_none_or(|end| end >= start - 1)).then_some(())
}

const IDS: &[&str] = &["abcd", "a.b-c+d%e=f", "01234567890123456789012345678901", "abc", "-abcd"];
const STARTS: &[&str] =
    &["SEND", "200 OK", "481", "REPORT", "FOO", "foo", "20x", "2000", "481 a\tb"];
const PATHS: &[&str] = &[
    "msrp://192.0.2.1:2855/session-0000000000000001;tcp",
    "msrp://a.b:1/x;tcp msrps://c.example.com:2855/a-longer-one-of-forty-characters;tcp",
    "x",
    " a",
    "a  b",
    "a ",
    "",
    "a\tb",
];
const LINES: &[&str] = &[
    "Message-ID: abc123",
    "Byte-Range: 1-5/5",
    "Failure-Report: no",
    "Success-Report: yes",
    "X-Any: b\tc",
    "message-id: x",
    "Message-ID: ",
    "byte-range: 1-0/0",
    "Byte-Range: 1-*/*",
    "Byte-Range: 18446744073709551615-*/*",
    "Byte-Range: 18446744073709551616-*/*",
    "Byte-Range: 1-2-3/4",
    "Byte-Range: 05-9/*",
    "Byte-Range: 5-3/9",
    "Failure-Report:no",
    "failure-report: PARTIAL",
    "Status: 000 200 OK",
    "Status: 0 200",
    "M: 1",
    " folded: x",
    "NoColon",
    "To-Path: x",
    "------: 1",
    "Content-Type: text/plain",
    "content-type: x",
];

prop_compose! {
    /// A message, more often right than not, and maybe one byte of it put in, out, or changed.
    fn message()(
        id in prop::sample::select(IDS),
        start in prop::sample::select(STARTS),
        to in prop_oneof![2 => prop::sample::select(&PATHS[..3]), 1 => prop::sample::select(PATHS)],
        from in prop_oneof![2 => prop::sample::select(&PATHS[..3]), 1 => prop::sample::select(PATHS)],
        lines in prop_oneof![
            2 => prop::sample::subsequence(&LINES[..5], 0..=5),
            1 => prop::sample::subsequence(LINES, 0..4),
        ],
        body in prop::option::of(prop::sample::select(&["", "hello", "\r\n-------abc"][..])),
        flag in prop::sample::select(&["$", "+", "#"][..]),
        change in prop::option::weighted(0.4, (any::<prop::sample::Index>(), 0..3u8, prop_oneof![
            any::<u8>(),
            prop::sample::select(&b"\r\n \t:-\0\x7f"[..]),
        ])),
    ) -> Vec<u8> {
        let mut text = format!("MSRP {id} {start}\r\nTo-Path: {to}\r\nfrom-Path: {from}\r\n");
        lines.iter().for_each(|line| text.extend([line, "\r\n"]));
        if let Some(body) = body {
            text.extend(["Content-Type: text/plain\r\n\r\n", body, "\r\n"]);
        }
        let mut stream = format!("{text}-------{id}{flag}\r\n").into_bytes();
        if let Some((at, how, byte)) = change {
            let at = at.index(text.len());
            match how {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                _ => drop(stream.remove(at)),
            }
        }
        stream
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn takes_what_a_simple_reader_takes_and_nothing_else(stream in message()) {
        let first = Framer::default().next(&stream);
        // What a change has left without an end is nobody's concern here.
        prop_assume!(!matches!(first, Ok(None)));
        // Text beyond ASCII may stand in header lines, in whatever bytes.
        prop_assume!(stream.is_ascii());
        prop_assert_eq!(first.is_ok(), is_well_formed(&stream), "{}", stream.escape_ascii());
        if let Ok(Some(piece)) = first {
            let head = piece.head.expect("it begins there");
            let blank = if head.content_type.is_some() { &b"\r\n"[..] } else { b"" };
            prop_assert_eq!(piece.after_paths, [head.header_lines, blank, piece.body].concat());
        }
    }
}
