//! Finding messages in what an engineer has at hand: base64, hex, SDP, SIP, HTTP, a capture file.

use std::collections::HashSet;

use super::walk::{Dialect, MESSAGE_BYTES_MAX, walk};
use crate::inspect::text::{decode_base64, decode_text, is_text};

/// A message, and where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// In words.
    pub(super) place: String,
}

/// Every message in the input, in its order; repeated ones (retransmissions) once.
///
/// # Errors
/// Why there is none, and what to do about it.
pub(super) fn find(input: &[u8], name: &str) -> Result<Vec<Found>, String> {
    let mut found = attributes(input, name)?;
    if found.is_empty() {
        found = bare(input, name)?;
    }
    // A capture may have any number of them.
    let mut earlier = HashSet::new();
    found.retain(|message| earlier.insert(message.bytes.clone()));
    Ok(found)
}

/// What stands behind `key-mgmt:mikey` (RFC 4567 section 3.1), in SDP, in SIP, and in capture files
/// whose packets are not cut.
fn attributes(input: &[u8], name: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(next) = position(&input[at..], ATTRIBUTE) {
        let end = at + next + ATTRIBUTE.len();
        line += input[at..end].iter().filter(|byte| **byte == b'\n').count();
        at = end;
        let rest = input[at..].trim_ascii_start();
        let Some(value) = rest.strip_prefix(b"mikey") else { continue };
        let value = value.trim_ascii_start();
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
        let length = value.iter().take_while(|byte| is_base64(byte)).count();
        let place = format!("{name}, a=key-mgmt in line {line}");
        let bytes = decode_base64(&value[..length]).ok_or_else(|| {
            format!("{place}: what follows `mikey` is not base64 of a whole message")
        })?;
        found.push(Found { bytes, place });
    }
    Ok(found)
}

/// A message without anything around it, or the body of an HTTP message.
fn bare(input: &[u8], name: &str) -> Result<Vec<Found>, String> {
    let one =
        |bytes: Vec<u8>, what: &str| Ok(vec![Found { bytes, place: format!("{name}, {what}") }]);
    if position(&input.to_ascii_lowercase(), b"application/mikey").is_some()
        && let Some(head) = position(input, b"\r\n\r\n")
    {
        return one(input[head + 4..].to_vec(), "HTTP body");
    }
    let Some(text) = std::str::from_utf8(input).ok().filter(|text| is_text(text)) else {
        if input.len() <= MESSAGE_BYTES_MAX && input.first() == Some(&1) {
            return one(input.to_vec(), "binary");
        }
        return Err(format!("{name}: neither text nor a MIKEY message. {REMEDY}"));
    };
    // Several messages, a line each; or one that an editor or a terminal has wrapped.
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let each: Option<Vec<_>> = lines.iter().map(|line| decode(line)).collect();
    let whole = |bytes: &Vec<u8>| walk(bytes, Dialect { tls: &[] }).broken.is_empty();
    if let Some(each) = each.filter(|each| each.len() > 1 && each.iter().all(whole)) {
        let place = |index: usize| format!("{name}, message {} of those one a line", index + 1);
        let found = each.into_iter().enumerate();
        return Ok(found.map(|(index, bytes)| Found { bytes, place: place(index) }).collect());
    }
    match decode(text) {
        Some(bytes) => one(bytes, "text"),
        None => Err(format!("{name}: no MIKEY message in it. {REMEDY}")),
    }
}

/// Hex or base64, with or without `mikey` before it.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text.strip_prefix("mikey").unwrap_or(text);
    decode_text(text)
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

const ATTRIBUTE: &[u8] = b"key-mgmt:";
const REMEDY: &str = "Give base64, hex, an SDP body or a SIP message with a=key-mgmt:mikey, or the \
    body of an HTTP message of the KMS. Of a hex dump with addresses: xxd -r | mrf inspect mikey";

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(input: &[u8]) -> Vec<Vec<u8>> {
        find(input, "x").expect("found").into_iter().map(|found| found.bytes).collect()
    }

    #[test]
    fn finds_a_message_however_it_is_written() {
        let bytes = vec![1, 6, 0, 0, 0xa1, 0xb2, 0xc3, 0xd4, 0, 1];
        for text in [
            "01060000a1b2c3d40001",
            "01 06 00 00\n a1:b2:c3:d4 00 01\n",
            "0x01,0x06,0x00,0x00,0xA1,0xB2,0xC3,0xD4,0x00,0x01",
            "AQYAAKGyw9QAAQ==",
            "AQYAAKGyw9QAAQ",
            "AQYAAKGy\nw9QAAQ==\n",
            "mikey AQYAAKGyw9QAAQ==",
            "v=0\r\na=key-mgmt:mikey AQYAAKGyw9QAAQ==\r\na=x\r\n",
            "a=key-mgmt: mikey  AQYAAKGyw9QAAQ==",
        ] {
            assert_eq!(bytes_of(text.as_bytes()), [bytes.as_slice()], "{text:?}");
        }
        assert_eq!(bytes_of(&bytes), [bytes.as_slice()], "binary");
        let capture = b"\xd4\xc3\xb2\xa1\0\0a=key-mgmt:mikey AQYAAKGyw9QAAQ==\r\n\0\xff";
        assert_eq!(bytes_of(capture), [bytes.as_slice()], "capture");
        let http = [&b"HTTP/1.1 200 OK\r\nContent-Type: application/mikey\r\n\r\n"[..], &bytes];
        assert_eq!(bytes_of(&http.concat()), [bytes.as_slice()], "http");
    }

    #[test]
    fn finds_several_messages_and_a_repeated_one_once() {
        let two = "01060000a1b2c3d40001\n01060000000000000001\n01060000a1b2c3d40001\n";
        assert_eq!(bytes_of(two.as_bytes()).len(), 2);
    }

    #[test]
    fn says_what_it_can_read_where_there_is_nothing() {
        for input in [&b""[..], b"hello", b"a=key-mgmt:other AAAA", b"\xff\xfe", b"123"] {
            let problem = find(input, "x").expect_err("nothing");
            assert!(problem.contains("base64, hex"), "{problem}");
        }
        let problem = find(b"a=key-mgmt:mikey !!\r\n", "x").expect_err("broken");
        assert!(problem.contains("line 1") && problem.contains("not base64"), "{problem}");
    }
}
