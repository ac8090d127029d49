//! One member's view of everything the node sends: the rules of RFC 4975, and the messages put together
//! by their Byte-Ranges.

use std::collections::{BTreeMap, BTreeSet};

use mrfp_protocol::msrp::FailureReport;

use crate::common::Received;

/// What a member has received, by the Message-ID the node gave it.
#[derive(Default)]
pub struct Watch {
    transactions: BTreeSet<String>,
    pub messages: BTreeMap<String, Arrived>,
    /// A connection on the way has broken: what comes behind the break is no continuation, and the
    /// sender must have been told.
    pub broken: bool,
}

/// A message on the side of its receiver.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    pub body: Vec<u8>,
    /// `$` or `#`.
    pub end: Option<char>,
    pub total: Option<u64>,
    pub failure_report: Option<FailureReport>,
}

/// What the member has to act on.
#[derive(Debug)]
pub enum Heard {
    Send(Delivery),
    Response { transaction: String, status: u16 },
    Report { message_id: String, start: u64, end: u64, code: u16 },
}

/// A SEND with its end.
#[derive(Debug)]
pub struct Delivery {
    pub transaction: String,
    pub message_id: String,
    pub failure_report: FailureReport,
    pub success_report: bool,
    /// First byte, 1-based.
    pub start: u64,
    pub length: u64,
}

/// RFC 4975 section 7.1: a chunk that is longer must be interruptible.
const INTERRUPTIBLE_BYTES_MIN: u64 = 2_048;

impl Watch {
    /// Checks one complete message of the node.
    pub fn hear(&mut self, to: &str, from: &str, received: Received) -> Heard {
        assert_eq!(received.to_path, to, "To-Path");
        assert_eq!(received.from_path, from, "From-Path");
        if let Some(status) = received.status {
            assert_eq!(received.end, Some('$'), "a response is whole");
            return Heard::Response { transaction: received.transaction_id, status };
        }
        let ours = self.transactions.insert(received.transaction_id.clone());
        assert!(ours, "transaction identifier {} comes twice", received.transaction_id);
        match received.method.as_deref() {
            Some("Send") => self.send(received),
            Some("Report") => report(received),
            other => panic!("a request nobody expects: {other:?}"),
        }
    }

    /// The chunk whose end has not come: its bytes are right already.
    pub fn overhear(&self, received: &Received) -> Option<(String, Vec<u8>)> {
        let id = received.message_id.clone()?;
        let start = received.byte_range?.start;
        let known = self.messages.get(&id).cloned().unwrap_or_default();
        assert_eq!(known.end, None, "{id} goes on after its end");
        assert_eq!(start, known.body.len() as u64 + 1, "{id}: a hole or an overlap");
        Some((id, [known.body, received.body.clone()].concat()))
    }

    fn send(&mut self, received: Received) -> Heard {
        let id = received.message_id.expect("RFC 4975 section 9: every SEND has a Message-ID");
        let range = received.byte_range.expect("every SEND of the node has a Byte-Range");
        let length = received.body.len() as u64;
        assert!(received.content_type.is_some() || length == 0, "{id}: a body without its type");
        let end = received.end.expect("complete");
        let message = self.messages.entry(id.clone()).or_default();
        let heard = Heard::Send(Delivery {
            transaction: received.transaction_id,
            message_id: id.clone(),
            failure_report: received.failure_report,
            success_report: received.success_report,
            start: range.start,
            length,
        });
        let continues = message.end.is_none() && range.start == message.body.len() as u64 + 1;
        if self.broken && !continues {
            return heard;
        }
        assert_eq!(message.end, None, "{id} goes on after its end");
        assert_eq!(range.start, message.body.len() as u64 + 1, "{id}: a hole or an overlap");
        let interruptible = range.end.is_none();
        assert!(interruptible || length <= INTERRUPTIBLE_BYTES_MIN, "{id}: {range:?}");
        if received.content_type.is_some() {
            let wanted = *message.failure_report.get_or_insert(received.failure_report);
            assert_eq!(wanted, received.failure_report, "{id} changes its mind");
        }
        if let Some(last) = range.end {
            // An interruption may come before the end that was announced.
            assert!(range.start + length <= last + 1, "{id}: longer than announced");
            assert!(end != '$' || range.start + length == last + 1, "{id}: shorter than announced");
        }
        message.body.extend_from_slice(&received.body);
        let so_far = message.body.len() as u64;
        message.total = message.total.or(range.total);
        if let Some(total) = range.total {
            assert_eq!(message.total, Some(total), "{id}: the total changes");
            assert!(so_far <= total, "{id}: longer than its total");
            assert!(end != '$' || so_far == total, "{id}: shorter than its total");
        }
        message.end = (end != '+').then_some(end);
        heard
    }
}

fn report(received: Received) -> Heard {
    let range = received.byte_range.expect("RFC 4975 section 7.1.2: a REPORT has a Byte-Range");
    assert!(range.end.is_some_and(|end| end >= range.start), "a REPORT on nothing: {range:?}");
    assert!(received.body.is_empty());
    Heard::Report {
        message_id: received.message_id.expect("a REPORT names its message"),
        start: range.start,
        end: range.end.expect("a REPORT says how far"),
        code: received.report_status.expect("a REPORT has a Status"),
    }
}
