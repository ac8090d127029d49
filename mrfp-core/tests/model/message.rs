//! What a member says: a body that no two messages share anywhere, cut into chunks.

use std::ops::Range;

use mrfp_protocol::msrp::FailureReport;

use crate::random::Random;

/// A message from the side of its sender.
pub struct Message {
    /// Index of its sender among the parties.
    pub sender: usize,
    /// Message-ID, unique among the messages of its sender only.
    pub id: String,
    pub body: Vec<u8>,
    /// From so many bytes on the body tells which message it is.
    pub tag_end: usize,
    /// Where its chunks end. The last is where the sender stops.
    cuts: Vec<usize>,
    pub ending: Ending,
    pub failure_report: FailureReport,
    pub success_report: bool,
    range: RangeStyle,
    media_type: &'static str,
    /// The chunks begun so far.
    pub chunks: Vec<Chunk>,
    pub reports: Vec<Report>,
    /// Step at which its first byte was sent.
    pub began: u64,
    /// The sender will say no more of it.
    pub abandoned: bool,
}

/// How a sender ends a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Whole,
    /// `#` after its last chunk.
    Aborted,
    /// The last chunk ends with `+` and nothing follows.
    Unfinished,
}

/// What the sender announces in its Byte-Range.
#[derive(Clone, Copy, Debug)]
enum RangeStyle {
    /// `1-5/10`
    Numbers,
    /// `1-*/10`
    OpenEnd,
    /// `1-*/*`
    Open,
}

/// One SEND request.
#[derive(Debug)]
pub struct Chunk {
    pub transaction: String,
    pub range: Range<usize>,
    pub flag: char,
    /// Its last byte has been sent.
    pub sent: bool,
    pub answers: Vec<u16>,
}

/// A REPORT that the sender got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub range: Range<usize>,
    pub code: u16,
}

/// Bytes that tell which message a text is.
const TAG_BYTES: usize = 12;
const TEXT_BYTES: [usize; 10] = [12, 13, 100, 100, 300, 2_048, 2_049, 5_000, 20_000, 60_000];

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("sender", &self.sender)
            .field("bytes", &self.body.len())
            .field("cuts", &self.cuts)
            .field("ending", &self.ending)
            .field("failure_report", &self.failure_report)
            .field("success_report", &self.success_report)
            .field("chunks", &self.chunks)
            .field("reports", &self.reports)
            .field("abandoned", &self.abandoned)
            .finish()
    }
}

impl Message {
    /// `head`: what the body begins with.
    pub fn draw(
        random: &mut Random,
        sender: usize,
        serial: usize,
        number: usize,
        head: &str,
    ) -> Self {
        let body = [head.as_bytes(), &text(serial, random.pick(&TEXT_BYTES))].concat();
        let length = body.len();
        let ending = match random.below(12) {
            0 => Ending::Aborted,
            1 => Ending::Unfinished,
            _ => Ending::Whole,
        };
        let stop = if ending == Ending::Whole { length } else { 1 + random.below(length) };
        let mut cuts: Vec<usize> = match random.below(3) {
            0 => Vec::new(),
            1 => (0..random.below(4)).map(|_| 1 + random.below(stop)).collect(),
            _ => (1..12).map(|n| n * 2_048).collect(),
        };
        cuts.retain(|&cut| cut < stop);
        cuts.push(stop);
        cuts.sort_unstable();
        cuts.dedup();
        Self {
            sender,
            id: format!("message-{number}"),
            body,
            tag_end: head.len() + TAG_BYTES,
            media_type: if head.is_empty() { "application/octet-stream" } else { "message/cpim" },
            cuts,
            ending,
            failure_report: random.pick(&[
                FailureReport::Yes,
                FailureReport::Yes,
                FailureReport::Yes,
                FailureReport::Partial,
                FailureReport::No,
            ]),
            success_report: random.once_in(4),
            range: random.pick(&[RangeStyle::Numbers, RangeStyle::OpenEnd, RangeStyle::Open]),
            chunks: Vec::new(),
            reports: Vec::new(),
            began: 0,
            abandoned: false,
        }
    }

    /// Bytes handed to chunks so far.
    pub fn cut(&self) -> usize {
        self.chunks.last().map_or(0, |chunk| chunk.range.end)
    }

    /// So much of it was said that it can be told whom it is for.
    pub fn has_whole_head(&self) -> bool {
        self.cut() >= self.tag_end - TAG_BYTES
    }

    /// Nothing is left to begin.
    pub fn is_said(&self) -> bool {
        self.abandoned || self.chunks.len() == self.cuts.len()
    }

    /// Writes the next chunk as it goes on the wire.
    pub fn next_chunk(&mut self, to: &str, from: &str, transaction: String) -> Vec<u8> {
        let range = self.cut()..self.cuts[self.chunks.len()];
        let last = self.chunks.len() + 1 == self.cuts.len();
        let flag = match self.ending {
            Ending::Whole if last => '$',
            Ending::Aborted if last => '#',
            Ending::Whole | Ending::Aborted | Ending::Unfinished => '+',
        };
        let (start, total) = (range.start + 1, self.body.len());
        let byte_range = match self.range {
            // RFC 4975 section 7.1.1: a chunk that long leaves its end open.
            RangeStyle::Numbers if range.len() <= 2_048 => {
                format!("{start}-{}/{total}", range.end)
            }
            RangeStyle::Numbers | RangeStyle::OpenEnd => format!("{start}-*/{total}"),
            RangeStyle::Open => format!("{start}-*/*"),
        };
        let failure = match self.failure_report {
            FailureReport::Yes => "",
            FailureReport::Partial => "Failure-Report: partial\r\n",
            FailureReport::No => "Failure-Report: no\r\n",
        };
        let success = if self.success_report { "Success-Report: yes\r\n" } else { "" };
        let head = format!(
            "MSRP {transaction} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {}\r\n\
             Byte-Range: {byte_range}\r\n{failure}{success}\
             Content-Type: {}\r\n\r\n",
            self.id, self.media_type
        );
        let end = format!("\r\n-------{transaction}{flag}\r\n");
        let bytes = [head.as_bytes(), &self.body[range.clone()], end.as_bytes()].concat();
        self.chunks.push(Chunk { transaction, range, flag, sent: false, answers: Vec::new() });
        bytes
    }
}

/// Every stretch of it tells which message it is of and where it belongs; now and then it looks like
/// the end of a chunk.
fn text(serial: usize, length: usize) -> Vec<u8> {
    let mut text = format!("m{serial:010}|").into_bytes();
    let mut random = Random::new(serial as u64 + 1);
    while text.len() < length {
        match random.below(40) {
            0 => text.extend_from_slice(b"\r\n-------"),
            1 => {
                let other = format!("\r\n-------T{:07}$\r\n", random.below(serial + 1));
                text.extend_from_slice(other.as_bytes());
            }
            _ => text.extend_from_slice(&random.next().to_le_bytes()),
        }
    }
    text.truncate(length);
    text
}
