//! What the UEs say: SEND requests whose text carries who sent it, as which message, and when.
//!
//! A UE's head and CPIM wrapper are written once; only the figures inside are overwritten per
//! message. What follows is the same for the whole fleet, so that a receiver can compare it.

mod content;
mod inspection;

use std::fmt::Write as _;
use std::ops::Range;

pub use content::{Content, Contents, TextSizes};
pub use inspection::Inspection;

/// What a text says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Session that sent it.
    pub session: u32,
    /// Its number among that session's messages.
    pub sequence: u32,
    /// When it was meant to be sent, in nanoseconds of the media clock.
    pub intended_ns: u64,
}

/// Bytes of a stamp in a text: `mrf-load SSSSSSSS QQQQQQQQ TTTTTTTTTTTTTTTT `, figures in hex.
pub const STAMP_BYTES: usize = 9 + 9 + 9 + 17;
const STAMP_MARK: &[u8; 9] = b"mrf-load ";

/// Body bytes of one chunk of a text: with its head it fits one TLS record.
pub const CHUNK_BODY_BYTES: usize = 8 * 1024;
/// Body bytes of one chunk of a file. A chat message of the same UE waits for no more than that.
pub const FILE_CHUNK_BODY_BYTES: usize = 32 * 1024;

/// Bodies up to here name the end of their range; RFC 4975 section 7.1.1 wants `*` above, so that
/// the chunk can be interrupted.
const UNINTERRUPTIBLE_BYTES_MAX: usize = 2048;

/// Sequence number in the transaction identifier of the binding SEND; no message reaches it.
pub const BINDING_SEQUENCE: u32 = u32::MAX;
/// Set in the sequence numbers of files, which are counted apart.
pub const FILE_BIT: u32 = 1 << 31;

/// What a transaction identifier of ours says: `NNNNNNNNSSSSSSSSCCCCCCCC`, connection nonce,
/// sequence and chunk in hex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Message.
    pub sequence: u32,
    /// Chunk of the message.
    pub chunk: u32,
}

const TRANSACTION_ID_BYTES: usize = 8 + 8 + 8;

impl Transaction {
    /// Reads an identifier back; `None`: it is none of this connection's.
    #[must_use]
    pub fn parse(identifier: &[u8], nonce: u32) -> Option<Self> {
        if identifier.len() != TRANSACTION_ID_BYTES
            || parse_hex(&identifier[..8])? != u64::from(nonce)
        {
            return None;
        }
        Some(Self {
            sequence: parse_hex(&identifier[8..16])? as u32,
            chunk: parse_hex(&identifier[16..24])? as u32,
        })
    }

    fn write(self, nonce: u32) -> [u8; TRANSACTION_ID_BYTES] {
        let mut identifier = [0; TRANSACTION_ID_BYTES];
        write_hex(&mut identifier[..8], nonce.into());
        write_hex(&mut identifier[8..16], self.sequence.into());
        write_hex(&mut identifier[16..24], self.chunk.into());
        identifier
    }
}

/// Who writes to whom.
#[derive(Clone, Debug)]
pub struct Author<'a> {
    /// Session number.
    pub session: u32,
    /// Unguessable part of the transaction identifiers.
    pub nonce: u32,
    /// SIP URI of the UE.
    pub from: &'a str,
    /// SIP URI of the room.
    pub to: &'a str,
    /// Our MSRP path.
    pub local_path: &'a str,
    /// The node's MSRP path.
    pub remote_path: &'a str,
    /// CPIM DateTime (RFC 3339); one for the whole run, the stamp carries the real time.
    pub date_time: &'a str,
}

/// How far a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkOf {
    /// Message.
    pub sequence: u32,
    /// Its chunk.
    pub chunk: u32,
    /// Its stamp.
    pub intended_ns: u64,
}

/// The prepared SEND of one session.
#[derive(Debug)]
pub struct Template {
    nonce: u32,
    /// `To-Path` and `From-Path` lines and the beginning of the `Message-ID` line.
    paths: Vec<u8>,
    /// CPIM and MIME heads and the stamp.
    wrapper: Vec<u8>,
    /// Where the stamp's figures lie in `wrapper`.
    stamp: Range<usize>,
    content: Content,
    /// Bytes of what the wrapper carries, stamp included.
    content_bytes: usize,
    /// Body bytes of a chunk.
    chunk_bytes: usize,
}

impl Template {
    /// Prepares for contents of `content_bytes`, at least [`STAMP_BYTES`].
    #[must_use]
    pub fn new(author: &Author<'_>, content: Content, content_bytes: usize) -> Self {
        assert!(content_bytes >= STAMP_BYTES);
        let paths = format!(
            "To-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {:08x}",
            author.remote_path, author.local_path, author.nonce
        );
        let mut wrapper = format!(
            "From: <{}>\r\nTo: <{}>\r\nDateTime: {}\r\n\r\n\
             Content-Type: {}\r\n\r\n",
            author.from,
            author.to,
            author.date_time,
            content.media_type()
        );
        let start = wrapper.len();
        let _ = write!(wrapper, "mrf-load {:08x} {:08x} {:016x} ", author.session, 0, 0);
        let stamp = start..wrapper.len();
        assert_eq!(stamp.len(), STAMP_BYTES);
        Self {
            nonce: author.nonce,
            paths: paths.into_bytes(),
            wrapper: wrapper.into_bytes(),
            stamp,
            content,
            content_bytes,
            chunk_bytes: match content {
                Content::Text => CHUNK_BODY_BYTES,
                Content::File => FILE_CHUNK_BODY_BYTES,
            },
        }
    }

    /// The same in chunks of that size.
    #[must_use]
    pub fn in_chunks_of(self, chunk_bytes: usize) -> Self {
        Self { chunk_bytes, ..self }
    }

    /// Bytes of the whole message body, CPIM included.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.wrapper.len() - STAMP_BYTES + self.content_bytes
    }

    /// SEND requests one message takes.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.body_bytes().div_ceil(self.chunk_bytes) as u32
    }

    /// Writes the empty SEND that binds the connection (RFC 4975 section 5.4).
    pub fn write_binding(&self, out: &mut Vec<u8>) {
        let transaction = Transaction { sequence: BINDING_SEQUENCE, chunk: 0 };
        let identifier = transaction.write(self.nonce);
        self.write_start(transaction, &identifier, out);
        out.extend_from_slice(b"Byte-Range: 1-0/0\r\n-------");
        out.extend_from_slice(&identifier);
        out.extend_from_slice(b"$\r\n");
    }

    /// Writes one chunk of a message. `contents` are the fleet's.
    pub fn write_chunk(&mut self, of: ChunkOf, contents: &Contents, out: &mut Vec<u8>) {
        let ChunkOf { sequence, chunk, intended_ns } = of;
        let figures = &mut self.wrapper[self.stamp.clone()];
        write_hex(&mut figures[18..26], sequence.into());
        write_hex(&mut figures[27..43], intended_ns);
        let transaction = Transaction { sequence, chunk };
        let identifier = transaction.write(self.nonce);
        self.write_start(transaction, &identifier, out);

        let total = self.body_bytes();
        let start = chunk as usize * self.chunk_bytes;
        let end = total.min(start + self.chunk_bytes);
        assert!(start < end);
        out.extend_from_slice(b"Byte-Range: ");
        write_decimal(out, start + 1);
        out.push(b'-');
        if end - start > UNINTERRUPTIBLE_BYTES_MAX {
            out.push(b'*');
        } else {
            write_decimal(out, end);
        }
        out.push(b'/');
        write_decimal(out, total);
        out.extend_from_slice(b"\r\nContent-Type: message/cpim\r\n\r\n");
        self.write_body(start..end, contents, out);
        out.extend_from_slice(b"\r\n-------");
        out.extend_from_slice(&identifier);
        out.extend_from_slice(if end == total { b"$\r\n" } else { b"+\r\n" });
    }

    fn write_start(&self, transaction: Transaction, identifier: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"MSRP ");
        out.extend_from_slice(identifier);
        out.extend_from_slice(b" SEND\r\n");
        out.extend_from_slice(&self.paths);
        let mut sequence = [0; 8];
        write_hex(&mut sequence, transaction.sequence.into());
        out.extend_from_slice(&sequence);
        out.extend_from_slice(b"\r\n");
    }

    fn write_body(&self, range: Range<usize>, contents: &Contents, out: &mut Vec<u8>) {
        let wrapper_end = self.wrapper.len();
        if range.start < wrapper_end {
            out.extend_from_slice(&self.wrapper[range.start..range.end.min(wrapper_end)]);
        }
        if range.end > wrapper_end {
            let from = range.start.max(wrapper_end) - wrapper_end;
            contents.write(self.content, from..range.end - wrapper_end, out);
        }
    }
}

/// Writes the 200 to a SEND (RFC 4975 section 7.2: To-Path is the first URI of its From-Path).
pub fn write_response(
    out: &mut Vec<u8>,
    transaction_id: &[u8],
    status: &[u8],
    to_path: &[u8],
    from_path: &[u8],
) {
    let parts: [&[u8]; 11] = [
        b"MSRP ",
        transaction_id,
        b" ",
        status,
        b"\r\nTo-Path: ",
        to_path,
        b"\r\nFrom-Path: ",
        from_path,
        b"\r\n-------",
        transaction_id,
        b"$\r\n",
    ];
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Fills `out` with the low digits of `value`.
fn write_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// At most 16 digits.
fn parse_hex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value, &digit| {
        let digit = (digit as char).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

fn write_decimal(out: &mut Vec<u8>, mut value: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text_bytes: usize) -> Template {
        let author = Author {
            session: 0x2a,
            nonce: 0x0bad_cafe,
            from: "sip:ue-42@load.example",
            to: "sip:room-1@node.example",
            local_path: "msrp://192.0.2.1:9/abc;tcp",
            remote_path: "msrp://192.0.2.2:2855/xyz;tcp",
            date_time: "2026-01-01T00:00:00Z",
        };
        Template::new(&author, Content::Text, text_bytes)
    }

    fn contents(text_bytes: usize) -> Contents {
        Contents::new(TextSizes::new(vec![text_bytes]), 0)
    }

    fn chunk_of(sequence: u32, chunk: u32, intended_ns: u64) -> ChunkOf {
        ChunkOf { sequence, chunk, intended_ns }
    }

    /// The body between the empty line and the end-line.
    fn body_of(send: &[u8]) -> &[u8] {
        let start = memchr::memmem::find(send, b"\r\n\r\n").unwrap() + 4;
        let end = memchr::memmem::rfind(send, b"\r\n-------").unwrap();
        &send[start..end]
    }

    #[test]
    fn writes_a_send_as_the_rfc_wants_it() {
        let mut template = template(100);
        let mut out = Vec::new();
        template.write_chunk(chunk_of(7, 0, 0x1234), &contents(100), &mut out);
        let text = String::from_utf8(out).unwrap();
        let total = template.body_bytes();
        assert!(text.starts_with(&format!(
            "MSRP 0badcafe0000000700000000 SEND\r\n\
             To-Path: msrp://192.0.2.2:2855/xyz;tcp\r\n\
             From-Path: msrp://192.0.2.1:9/abc;tcp\r\n\
             Message-ID: 0badcafe00000007\r\n\
             Byte-Range: 1-{total}/{total}\r\n\
             Content-Type: message/cpim\r\n\r\n\
             From: <sip:ue-42@load.example>\r\n"
        )));
        assert!(text.contains("\r\n\r\nmrf-load 0000002a 00000007 0000000000001234 abc"));
        assert!(text.ends_with("\r\n-------0badcafe0000000700000000$\r\n"));
        assert_eq!(body_of(text.as_bytes()).len(), total);
    }

    #[test]
    fn reads_its_own_stamp_back_however_the_body_is_cut() {
        let contents = contents(120);
        let mut out = Vec::new();
        template(120).write_chunk(chunk_of(7, 0, 99), &contents, &mut out);
        let body = body_of(&out);
        for cut in 0..=body.len() {
            let mut inspection = Inspection::default();
            inspection.feed(&body[..cut], &contents);
            inspection.feed(&body[cut..], &contents);
            let stamp = inspection.finish(&contents).unwrap();
            assert_eq!((stamp.session, stamp.sequence, stamp.intended_ns), (0x2a, 7, 99));
        }
    }

    #[test]
    fn finds_the_stamp_where_a_long_fragment_follows_a_short_one() {
        let text_bytes = CHUNK_BODY_BYTES / 2 * 3;
        let contents = contents(text_bytes);
        let mut template = template(text_bytes);
        let mut out = Vec::new();
        template.write_chunk(chunk_of(7, 0, 99), &contents, &mut out);
        let first = body_of(&out).to_vec();
        out.clear();
        template.write_chunk(chunk_of(7, 1, 99), &contents, &mut out);
        let mut inspection = Inspection::default();
        for fragment in [&first[..10], &first[10..], body_of(&out)] {
            inspection.feed(fragment, &contents);
        }
        assert!(inspection.finish(&contents).is_some());
    }

    #[test]
    fn notices_a_changed_byte_a_missing_one_and_one_too_many() {
        let contents = contents(120);
        let mut out = Vec::new();
        template(120).write_chunk(chunk_of(7, 0, 99), &contents, &mut out);
        let body = body_of(&out).to_vec();
        let inspect = |body: &[u8]| {
            let mut inspection = Inspection::default();
            inspection.feed(body, &contents);
            inspection.finish(&contents)
        };
        assert!(inspect(&body).is_some());
        assert!(inspect(&body[..body.len() - 1]).is_none());
        let mut changed = body.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(inspect(&changed).is_none());
        let mut longer = body;
        longer.push(b'a');
        assert!(inspect(&longer).is_none());
    }

    #[test]
    fn expects_of_each_session_its_own_size() {
        let sizes = TextSizes::new(vec![100, 300]);
        let contents = Contents::new(sizes.clone(), 0);
        let inspect = |text_bytes| {
            let mut out = Vec::new();
            template(text_bytes).write_chunk(chunk_of(7, 0, 99), &contents, &mut out);
            let mut inspection = Inspection::default();
            inspection.feed(body_of(&out), &contents);
            inspection.finish(&contents)
        };
        // The template's session, 0x2a, is an even one.
        assert_eq!(sizes.of(0x2a), 100);
        assert!(inspect(100).is_some());
        assert!(inspect(300).is_none());
    }

    #[test]
    fn cuts_a_large_message_into_chunks_that_join_to_the_whole() {
        let text_bytes = 3 * CHUNK_BODY_BYTES;
        let contents = contents(text_bytes);
        let mut template = template(text_bytes);
        assert_eq!(template.chunks(), 4);
        let mut inspection = Inspection::default();
        for chunk in 0..4 {
            let mut out = Vec::new();
            template.write_chunk(chunk_of(1, chunk, 5), &contents, &mut out);
            let flag: &[u8] = if chunk == 3 { b"$\r\n" } else { b"+\r\n" };
            assert!(out.ends_with(flag));
            inspection.feed(body_of(&out), &contents);
        }
        assert_eq!(inspection.finish(&contents).unwrap().sequence, 1);
    }

    #[test]
    fn knows_its_own_transactions_only() {
        let transaction = Transaction { sequence: 77, chunk: 3 };
        let identifier = transaction.write(5);
        assert_eq!(Transaction::parse(&identifier, 5), Some(transaction));
        assert_eq!(Transaction::parse(&identifier, 6), None);
        assert_eq!(Transaction::parse(&identifier[1..], 5), None);
        assert_eq!(Transaction::parse(b"00000005zzzzzzzz00000000", 5), None);
    }
}
