//! Finding messages in what an engineer has at hand: hex, base64, the payload of packets.

use mrfp_protocol::bfcp::{Header, Transport};

use crate::inspect::text::{decode_text, is_text};

/// A message, and where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// In words.
    pub(super) place: String,
}

/// Every message in the input, in its order.
///
/// # Errors
/// Why there is none, and what to do about it.
pub(super) fn find(input: &[u8], name: &str) -> Result<Vec<Found>, String> {
    let Some(text) = std::str::from_utf8(input).ok().filter(|text| is_text(text)) else {
        return Ok(cut(input, name));
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A packet a line, each with whole messages; or packets, or one message, cut wherever it was.
    let each: Option<Vec<Vec<u8>>> = lines.iter().map(|line| decode_text(line)).collect();
    let whole = |bytes: &Vec<u8>| messages(bytes).1.is_empty();
    if let Some(each) = each.filter(|each| each.len() > 1 && each.iter().all(whole)) {
        let lines = each.iter().enumerate();
        let found = lines.flat_map(|(at, bytes)| cut(bytes, &format!("{name}, line {}", at + 1)));
        return Ok(found.collect());
    }
    match decode_text(text) {
        Some(bytes) => Ok(cut(&bytes, name)),
        None => Err(format!("{name}: no BFCP message in it. {REMEDY}")),
    }
}

/// The messages in these bytes; what is no whole one is the last.
fn cut(bytes: &[u8], name: &str) -> Vec<Found> {
    let (whole, rest) = messages(bytes);
    let mut found = Vec::new();
    let mut at = 0;
    for message in whole.into_iter().chain((!rest.is_empty()).then_some(rest)) {
        let place = format!("{name}, byte {at}");
        at += message.len();
        found.push(Found { bytes: message.to_vec(), place });
    }
    found
}

/// One message behind the other, and what is left.
fn messages(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while let Some(header) = Header::parse(rest, transport(rest)) {
        let length = header.bytes() + header.content_bytes();
        let Some((message, behind)) = rest.split_at_checked(length) else { break };
        messages.push(message);
        rest = behind;
    }
    (messages, rest)
}

/// What a message was carried by, going by its version: 1 over a stream, 2 in datagrams.
pub(super) fn transport(message: &[u8]) -> Transport {
    match message.first().map(|first| first >> 5) {
        Some(2) => Transport::Unreliable,
        _ => Transport::Reliable,
    }
}

const REMEDY: &str = "Give hex, base64 or the payload itself. Of a capture: \
    tshark -r trace.pcap -Y bfcp -T fields -e tcp.payload -e udp.payload | mrf inspect bfcp";

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "200b0000000010e1000504d2";
    const RELEASE: &str = "20020001000010e1000204d207040315";

    fn found(input: &[u8]) -> Vec<usize> {
        find(input, "x").expect("found").iter().map(|found| found.bytes.len()).collect()
    }

    #[test]
    fn finds_messages_however_they_are_written() {
        for text in [
            "200b0000 000010e1 000504d2",
            "20:0b:00:00:00:00:10:e1:00:05:04:d2\n",
            "IAsAAAAAEOEABQTS",
            "200b0000\n000010e1\n000504d2\n",
        ] {
            assert_eq!(found(text.as_bytes()), [12], "{text:?}");
        }
        assert_eq!(found(format!("{HELLO}\n{RELEASE}{HELLO}\n").as_bytes()), [12, 16, 12]);
        // A packet that ends within a message.
        let (first, second) = RELEASE.split_at(20);
        assert_eq!(found(format!("{HELLO}{first}\n{second}{HELLO}\n").as_bytes()), [12, 16, 12]);
        let binary = decode_text(RELEASE).unwrap();
        assert_eq!(found(&binary), [16]);
        assert_eq!(found(&[&binary[..], &binary[..9]].concat()), [16, 9]);
    }

    #[test]
    fn says_what_it_can_read_where_there_is_nothing() {
        for input in [&b""[..], b"hello!", b"123"] {
            let problem = find(input, "x").expect_err("nothing");
            assert!(problem.contains("Give hex"), "{problem}");
        }
    }
}
