//! One end of a pair: what it sends, and what it hears from the target.
//!
//! The first SEND and the first 200 are parsed; what follows is compared with them, hole by hole, so
//! that every byte is checked and nothing is parsed. Whatever is not like the first one (a message
//! in chunks, one cut by the end of a segment) goes through the parser.

use std::collections::VecDeque;
use std::ops::Range;

use mrfp_protocol::msrp::{Continuation, FailureReport, Framer, Head, Method, Piece, Start};

use super::flights::Flights;
use super::pattern::{Pattern, from_hex, hex};
use crate::media::message::write_response;

/// One end of a pair.
#[derive(Debug)]
pub(super) struct End {
    /// The other one, as a link of the same worker.
    pub(super) partner: u32,
    pub(super) flights: Flights,
    /// Messages of this end that were over while it was measured.
    pub(super) over: u64,
    /// Of its messages that came while it was measured: their latencies' sum, and how many.
    pub(super) latency_ns: u64,
    pub(super) deliveries: u64,
    /// What its transaction identifiers begin with.
    nonce: [u8; 8],
    /// Its SEND; the sequence number fills the holes.
    send: Pattern,
    /// What the partner's messages carry.
    expected: Body,
    /// What it hears, once learned.
    heard_send: Option<HeardSend>,
    heard_ok: Option<Pattern>,
    framer: Framer,
    incoming: Option<Box<Incoming>>,
    /// Messages of which more chunks follow.
    partial: VecDeque<Incoming>,
}

/// Who says what to whom.
#[derive(Clone, Debug)]
pub(super) struct Address<'a> {
    /// Digits that make the transaction identifiers unlike others'.
    pub(super) nonce: u32,
    pub(super) to_path: &'a str,
    pub(super) from_path: &'a str,
    pub(super) body_bytes: usize,
}

/// The body of one end's messages: its nonce, the sequence number, letters.
#[derive(Clone, Debug)]
struct Body {
    pattern: Pattern,
    message_id: [u8; 8],
}

/// A SEND as it comes, and our 200 to it.
#[derive(Debug)]
struct HeardSend {
    /// Holes: transaction, sequence in the Message-ID, sequence in the body, transaction.
    send: Pattern,
    /// Holes: transaction, transaction.
    ok: Pattern,
}

/// What the target said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// A SEND of this end was answered.
    Answer { sequence: u32, status: u16 },
    /// A message of the partner is here.
    Message { sequence: u32 },
    /// An answer to nothing.
    Stray,
    /// A message that the partner did not write so.
    Corrupted,
    /// A message was given up.
    Aborted,
    /// A REPORT: a message that had been answered with 200 did not reach the partner.
    Report,
}

/// A SEND while it arrives in pieces.
#[derive(Debug, Default)]
struct Incoming {
    message_id: Vec<u8>,
    transaction_id: Vec<u8>,
    to_path: Vec<u8>,
    from_path: Vec<u8>,
    kind: Kind,
    respond: bool,
    body: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Kind {
    #[default]
    Send,
    Report,
    Other,
}

/// Bytes of a body before its letters: `mrf-load NNNNNNNN SSSSSSSS `.
pub(super) const STAMP_BYTES: usize = 27;
/// Where the sequence number lies in it.
const STAMP_SEQUENCE: Range<usize> = 18..26;
/// A message that comes in chunks may be as long as a whole one, no longer.
const PARTIAL_MESSAGES_MAX: usize = 64;

impl End {
    /// An end that writes to `address` and hears what `partner_nonce` writes.
    pub(super) fn new(partner: u32, address: &Address<'_>, partner_nonce: u32) -> Self {
        Self {
            partner,
            flights: Flights::default(),
            over: 0,
            latency_ns: 0,
            deliveries: 0,
            nonce: hex(address.nonce.into()),
            send: send_pattern(address),
            expected: Body::new(partner_nonce, address.body_bytes),
            heard_send: None,
            heard_ok: None,
            framer: Framer::default(),
            incoming: None,
            partial: VecDeque::new(),
        }
    }

    /// The SEND with that sequence number.
    pub(super) fn write_send(&mut self, sequence: u32) -> &[u8] {
        let digits = hex::<8>(sequence.into());
        for hole in 0..4 {
            self.send.fill(hole, &digits);
        }
        self.send.bytes()
    }

    /// Hears all that stands whole in the input, answers with `reply`, and returns how much of the
    /// input that was.
    pub(super) fn hear(
        &mut self,
        input: &[u8],
        reply: &mut impl FnMut(&[u8]),
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String> {
        let mut at = 0;
        loop {
            if self.incoming.is_none() {
                at += self.hear_learned(&input[at..], reply, heard);
            }
            let rest = &input[at..];
            if rest.is_empty() {
                break;
            }
            let next = self.framer.next(rest).map_err(|error| format!("{:?}", error.reason))?;
            let Some(piece) = next else {
                if self.incoming.is_none() {
                    // Whoever looks at these bytes next need not be the parser.
                    self.framer = Framer::default();
                }
                break;
            };
            let whole = &rest[..piece.consumed];
            at += piece.consumed;
            self.hear_piece(piece, whole, reply, heard);
        }
        Ok(at)
    }

    /// As long as all is like what was learned.
    fn hear_learned(
        &mut self,
        input: &[u8],
        reply: &mut impl FnMut(&[u8]),
        heard: &mut Vec<Heard>,
    ) -> usize {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if let Some(ok) = self.heard_ok.as_ref().filter(|ok| ok.matches(rest)) {
                at += ok.length();
                let (first, second) = (ok.hole(0, rest), ok.hole(1, rest));
                heard.push(match from_hex(first) {
                    Some(sequence) if first == second => {
                        Heard::Answer { sequence: sequence as u32, status: 200 }
                    }
                    _ => Heard::Stray,
                });
                continue;
            }
            let learned = self.heard_send.as_mut().filter(|learned| learned.send.matches(rest));
            let Some(HeardSend { send, ok }) = learned else { return at };
            let transaction = send.hole(0, rest);
            let (message_id, stamp) = (send.hole(1, rest), send.hole(2, rest));
            if transaction != send.hole(3, rest) {
                // The end-line is somebody else's: the message goes on.
                return at;
            }
            at += send.length();
            ok.fill(0, transaction);
            ok.fill(1, transaction);
            reply(ok.bytes());
            heard.push(match from_hex(stamp) {
                Some(sequence) if message_id == stamp => {
                    Heard::Message { sequence: sequence as u32 }
                }
                _ => Heard::Corrupted,
            });
        }
    }

    fn hear_piece(
        &mut self,
        piece: Piece<'_>,
        whole: &[u8],
        reply: &mut impl FnMut(&[u8]),
        heard: &mut Vec<Heard>,
    ) {
        if let Some(head) = &piece.head {
            if let Start::Response(status, _) = head.start {
                return heard.push(self.answer(head.transaction_id, status, whole));
            }
            if piece.end == Some(Continuation::Last) {
                self.learn_send(head, piece.body, whole);
            }
            self.incoming = Some(Box::new(self.begin(head)));
        }
        let Some(incoming) = &mut self.incoming else { return };
        let room = (self.expected.pattern.length() + 1).saturating_sub(incoming.body.len());
        incoming.body.extend_from_slice(&piece.body[..piece.body.len().min(room)]);
        let Some(end) = piece.end else { return };
        let Some(incoming) = self.incoming.take() else { return };
        if incoming.respond {
            let status: &[u8] =
                if incoming.kind == Kind::Send { b"200 OK" } else { b"501 Not Implemented" };
            let mut response = Vec::new();
            write_response(
                &mut response,
                &incoming.transaction_id,
                status,
                &incoming.from_path,
                &incoming.to_path,
            );
            reply(&response);
        }
        match (incoming.kind, end) {
            (Kind::Report, _) => heard.push(Heard::Report),
            (Kind::Other, _) => {}
            (Kind::Send, Continuation::Abort) => heard.push(Heard::Aborted),
            (Kind::Send, Continuation::Last) => heard.push(self.expected.read(&incoming)),
            (Kind::Send, Continuation::More) => {
                if self.partial.len() == PARTIAL_MESSAGES_MAX {
                    self.partial.pop_front();
                    heard.push(Heard::Corrupted);
                }
                self.partial.push_back(*incoming);
            }
        }
    }

    fn begin(&mut self, head: &Head<'_>) -> Incoming {
        let message_id = head.message_id.unwrap_or(b"").to_vec();
        let known = self.partial.iter().position(|partial| partial.message_id == message_id);
        let continues = head.byte_range.is_some_and(|range| range.start > 1);
        let body = known.filter(|_| continues).and_then(|index| self.partial.remove(index));
        Incoming {
            message_id,
            transaction_id: head.transaction_id.to_vec(),
            to_path: head.to_path.0.to_vec(),
            from_path: head.from_path.first().to_vec(),
            kind: match head.start {
                Start::Request(Method::Send) => Kind::Send,
                Start::Request(Method::Report) => Kind::Report,
                _ => Kind::Other,
            },
            respond: !matches!(head.start, Start::Request(Method::Report))
                && head.failure_report == FailureReport::Yes,
            body: body.map_or_else(Vec::new, |partial| partial.body),
        }
    }

    /// An answer that is parsed; further ones will be like it.
    fn answer(&mut self, transaction_id: &[u8], status: u16, whole: &[u8]) -> Heard {
        let sequence = transaction_id.strip_prefix(&self.nonce).filter(|digits| digits.len() == 8);
        let Some(sequence) = sequence.and_then(from_hex) else { return Heard::Stray };
        if status == 200 && self.heard_ok.is_none() {
            let (first, last) = transaction_holes(whole, transaction_id);
            let skip = self.nonce.len();
            let holes = vec![first.start + skip..first.end, last.start + skip..last.end];
            self.heard_ok = Some(Pattern::new(whole.to_vec(), holes));
        }
        Heard::Answer { sequence: sequence as u32, status }
    }

    /// Further SENDs will be like this one, if it is one of the partner's at all.
    fn learn_send(&mut self, head: &Head<'_>, body: &[u8], whole: &[u8]) {
        let is_send = matches!(head.start, Start::Request(Method::Send));
        let from_start = head.byte_range.is_none_or(|range| range.start == 1);
        let answered = head.failure_report == FailureReport::Yes;
        let Some(message_id) = head.message_id else { return };
        let good = self.expected.sequence(message_id, body).is_some();
        if self.heard_send.is_some() || !(is_send && from_start && answered && good) {
            return;
        }
        let offset = |part: &[u8]| part.as_ptr() as usize - whole.as_ptr() as usize;
        let (first, last) = transaction_holes(whole, head.transaction_id);
        let (id_at, body_at) = (offset(message_id), offset(body));
        let (id_end, stamp) = (id_at + message_id.len(), body_at + STAMP_SEQUENCE.start);
        let holes = vec![first, id_end - 8..id_end, stamp..stamp + 8, last];
        let send = Pattern::new(whole.to_vec(), holes);
        let mut response = Vec::new();
        let (to_path, from_path) = (head.from_path.first(), head.to_path.0);
        write_response(&mut response, head.transaction_id, b"200 OK", to_path, from_path);
        let (first, last) = transaction_holes(&response, head.transaction_id);
        let ok = Pattern::new(response, vec![first, last]);
        self.heard_send = Some(HeardSend { send, ok });
    }
}

impl Body {
    fn new(nonce: u32, bytes: usize) -> Self {
        assert!(bytes >= STAMP_BYTES);
        let digits = hex::<8>(nonce.into());
        let mut sample = b"mrf-load ".to_vec();
        sample.extend_from_slice(&digits);
        sample.extend_from_slice(b" 00000000 ");
        sample.extend((b'a'..=b'z').cycle().take(bytes - STAMP_BYTES));
        Self { pattern: Pattern::new(sample, vec![STAMP_SEQUENCE]), message_id: digits }
    }

    fn read(&self, incoming: &Incoming) -> Heard {
        match self.sequence(&incoming.message_id, &incoming.body) {
            Some(sequence) => Heard::Message { sequence },
            None => Heard::Corrupted,
        }
    }

    /// Of a message that is one of this end's, unchanged.
    fn sequence(&self, message_id: &[u8], body: &[u8]) -> Option<u32> {
        if body.len() != self.pattern.length() || !self.pattern.matches(body) {
            return None;
        }
        let stamp = self.pattern.hole(0, body);
        if message_id.strip_prefix(&self.message_id[..]) != Some(stamp) {
            return None;
        }
        from_hex(stamp).map(|sequence| sequence as u32)
    }
}

fn send_pattern(address: &Address<'_>) -> Pattern {
    let Address { nonce, to_path, from_path, body_bytes } = address;
    let nonce_digits = hex::<8>((*nonce).into());
    let mut send = Vec::new();
    let mut holes = Vec::new();
    let mut hole_after = |send: &mut Vec<u8>, text: &[u8]| {
        send.extend_from_slice(text);
        send.extend_from_slice(&nonce_digits);
        holes.push(send.len()..send.len() + 8);
        send.extend_from_slice(b"00000000");
    };
    hole_after(&mut send, b"MSRP ");
    send.extend_from_slice(
        format!(" SEND\r\nTo-Path: {to_path}\r\nFrom-Path: {from_path}\r\n").as_bytes(),
    );
    hole_after(&mut send, b"Message-ID: ");
    // RFC 4975 section 7.1.1: what is longer than 2048 bytes can be interrupted.
    let end = if *body_bytes > 2048 { "*".to_owned() } else { body_bytes.to_string() };
    send.extend_from_slice(
        format!("\r\nByte-Range: 1-{end}/{body_bytes}\r\nContent-Type: text/plain\r\n\r\n")
            .as_bytes(),
    );
    let body_at = send.len();
    let body = Body::new(*nonce, *body_bytes);
    send.extend_from_slice(body.pattern.bytes());
    hole_after(&mut send, b"\r\n-------");
    send.extend_from_slice(b"$\r\n");
    holes.insert(2, body_at + STAMP_SEQUENCE.start..body_at + STAMP_SEQUENCE.end);
    Pattern::new(send, holes)
}

/// Where the identifier stands in the start line and in the end-line of a whole message.
fn transaction_holes(whole: &[u8], transaction_id: &[u8]) -> (Range<usize>, Range<usize>) {
    let length = transaction_id.len();
    // `MSRP ID ` in front, `ID$CRLF` at the end.
    let last = whole.len() - 3 - length;
    (5..5 + length, last..last + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (End, End) {
        let address =
            |nonce, to_path, from_path| Address { nonce, to_path, from_path, body_bytes: 200 };
        let alice = End::new(1, &address(0xa, "msrp://b;tcp", "msrp://a;tcp"), 0xb);
        let bob = End::new(0, &address(0xb, "msrp://a;tcp", "msrp://b;tcp"), 0xa);
        (alice, bob)
    }

    fn hear(end: &mut End, input: &[u8]) -> (usize, Vec<u8>, Vec<Heard>) {
        let (mut replies, mut heard) = (Vec::new(), Vec::new());
        let mut reply = |bytes: &[u8]| replies.extend_from_slice(bytes);
        let taken = end.hear(input, &mut reply, &mut heard).unwrap();
        (taken, replies, heard)
    }

    /// As a relay would forward it: another transaction.
    fn forwarded(send: &[u8], transaction: &str) -> Vec<u8> {
        let text = String::from_utf8(send.to_vec()).unwrap();
        let own = text[5..21].to_owned();
        let text = text.replacen(&own, transaction, 1);
        let at = text.rfind(&own).unwrap();
        format!("{}{transaction}$\r\n", &text[..at]).into_bytes()
    }

    #[test]
    fn every_message_is_heard_however_it_is_cut() {
        for cut in 0..400 {
            let (mut alice, mut bob) = ends();
            for sequence in 0..3 {
                let wire = forwarded(alice.write_send(sequence), &format!("relay{sequence:04}"));
                let cut = cut.min(wire.len());
                let (taken, mut replies, mut heard) = hear(&mut bob, &wire[..cut]);
                let (rest, more, then) = hear(&mut bob, &wire[taken..]);
                assert_eq!(taken + rest, wire.len(), "{cut}");
                replies.extend(more);
                heard.extend(then);
                assert_eq!(heard, [Heard::Message { sequence }], "{cut}");
                assert_eq!(
                    String::from_utf8(replies).unwrap(),
                    format!(
                        "MSRP relay{sequence:04} 200 OK\r\nTo-Path: msrp://a;tcp\r\n\
                         From-Path: msrp://b;tcp\r\n-------relay{sequence:04}$\r\n"
                    )
                );
            }
        }
    }

    #[test]
    fn a_run_of_messages_and_answers_is_heard_in_one_go() {
        let (mut alice, mut bob) = ends();
        let mut wire = Vec::new();
        for sequence in 0..10 {
            wire.extend(forwarded(alice.write_send(sequence), &format!("relay{sequence:04}")));
        }
        let (taken, replies, heard) = hear(&mut bob, &wire);
        assert_eq!(taken, wire.len());
        assert_eq!(heard, (0..10).map(|sequence| Heard::Message { sequence }).collect::<Vec<_>>());
        assert!(bob.heard_send.is_some());
        assert_eq!(replies.iter().filter(|byte| **byte == b'$').count(), 10);

        let mut answers = Vec::new();
        for sequence in 0..10 {
            let id = format!("0000000a{sequence:08x}");
            write_response(
                &mut answers,
                id.as_bytes(),
                b"200 OK",
                b"msrp://a;tcp",
                b"msrp://b;tcp",
            );
        }
        let (taken, _, heard) = hear(&mut alice, &answers);
        assert_eq!(taken, answers.len());
        let expected = (0..10).map(|sequence| Heard::Answer { sequence, status: 200 });
        assert_eq!(heard, expected.collect::<Vec<_>>());
    }

    #[test]
    fn chunks_are_joined_and_each_is_answered() {
        let (mut alice, mut bob) = ends();
        let send = forwarded(alice.write_send(0), "relay0000");
        hear(&mut bob, &send);
        let text = String::from_utf8(forwarded(alice.write_send(1), "relay0001")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let first = format!("{head}\r\n\r\n{}\r\n-------relay0001+\r\n", &body[..60]);
        let second = head.replace("relay0001", "relay0002").replace("1-200", "61-200");
        let second = format!("{second}\r\n\r\n{}\r\n-------relay0002$\r\n", &body[60..200]);
        let (taken, replies, heard) = hear(&mut bob, format!("{first}{second}").as_bytes());
        assert_eq!(taken, first.len() + second.len());
        assert_eq!(heard, [Heard::Message { sequence: 1 }]);
        assert_eq!(replies.iter().filter(|byte| **byte == b'$').count(), 2);
    }

    #[test]
    fn what_is_not_as_it_was_sent_is_told_before_and_after_learning() {
        for learned in [false, true] {
            let (mut alice, mut bob) = ends();
            if learned {
                let send = forwarded(alice.write_send(0), "relay0000");
                hear(&mut bob, &send);
            }
            let good = forwarded(alice.write_send(1), "relay0001");
            for at in [good.len() - 40, good.len() - 190] {
                let mut bad = good.clone();
                bad[at] ^= 1;
                let (_, _, heard) = hear(&mut bob, &bad);
                assert_eq!(heard, [Heard::Corrupted], "{learned} {at}");
            }
            let text = String::from_utf8(good.clone()).unwrap();
            let other =
                text.replace("Message-ID: 0000000a00000001", "Message-ID: 0000000a00000002");
            assert_eq!(hear(&mut bob, other.as_bytes()).2, [Heard::Corrupted]);
            let shorter = text.replace("uvw", "uv");
            assert_eq!(hear(&mut bob, shorter.as_bytes()).2, [Heard::Corrupted]);
        }
    }

    #[test]
    fn errors_strays_and_reports_are_told() {
        let (mut alice, _) = ends();
        let response = |id: &str, status: &str| {
            let mut out = Vec::new();
            write_response(
                &mut out,
                id.as_bytes(),
                status.as_bytes(),
                b"msrp://a;tcp",
                b"msrp://b;tcp",
            );
            out
        };
        let heard = hear(&mut alice, &response("0000000a00000007", "481 Gone")).2;
        assert_eq!(heard, [Heard::Answer { sequence: 7, status: 481 }]);
        assert_eq!(hear(&mut alice, &response("0000000b00000007", "200 OK")).2, [Heard::Stray]);
        let report = "MSRP rep00001 REPORT\r\nTo-Path: msrp://a;tcp\r\nFrom-Path: msrp://b;tcp\r\n\
                      Message-ID: x\r\nByte-Range: 1-2/2\r\nStatus: 000 408 x\r\n-------rep00001$\r\n";
        let (_, replies, heard) = hear(&mut alice, report.as_bytes());
        assert_eq!((replies.len(), heard), (0, vec![Heard::Report]));
    }
}
