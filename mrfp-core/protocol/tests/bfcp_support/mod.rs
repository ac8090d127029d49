//! What the tests of BFCP have in common.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use mrfp_protocol::bfcp::{Header, Payload, Transport, Writer};

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0);
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// A message that is whole; `None` where anything about it is wrong.
pub fn read(bytes: &[u8], transport: Transport) -> Option<(Header, Payload<'_>)> {
    let header = Header::parse(bytes, transport)?;
    let payload = Payload::parse(header.content(bytes)?).ok()?;
    Some((header, payload))
}

/// Reads a message and writes it again, attribute by attribute.
pub fn again(bytes: &[u8], transport: Transport) -> Vec<u8> {
    let (header, payload) = read(bytes, transport).expect("sound");
    let mut out = vec![0xaa; bytes.len()];
    let mut writer = Writer::new(&mut out, &header).expect("it fits");
    for attribute in payload.attributes {
        writer.put_with(attribute.mandatory, &attribute.value).expect("it fits");
    }
    let length = writer.finish();
    out.truncate(length);
    out
}
