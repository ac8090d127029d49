//! A member: what it has to send, how it answers, what has befallen it.

use std::collections::{BTreeSet, VecDeque};

use mrfp_core::mp::{Direction, ReleaseCause};

use crate::common::Ue;
use crate::random::Random;
use crate::watch::{Delivery, Watch};

/// Contexts of two parties have even numbers.
pub fn is_between_two(context: u64) -> bool {
    context.is_multiple_of(2)
}

/// The URI of every room.
pub const ROOM_URI: &str = "sip:room@example.com";

/// One member and everything the judgement must know of it.
pub struct Party {
    pub ue: Ue,
    pub context: u64,
    pub termination: u64,
    pub watch: Watch,
    /// The other one of two parties, or a room.
    pub between_two: bool,
    /// Step at which it was known to be bound.
    pub bound: u64,
    /// Indices of the messages it is in the middle of.
    pub open: Vec<usize>,
    /// What is left of the request or response it is sending.
    pub wire: Vec<u8>,
    /// The message whose chunk is on the wire.
    pub sending: Option<usize>,
    /// Responses that wait for the end of a chunk.
    pub responses: VecDeque<Vec<u8>>,
    pub answering: Answering,
    /// It has ended its connection, or its half of it.
    pub ended: bool,
    /// It has told the node that its session is gone.
    pub renounced: bool,
    /// The controller subtracts it.
    pub kicked: bool,
    /// What the node told the controller.
    pub released: Option<ReleaseCause>,
    /// It has stopped reading at least once.
    pub stalled: bool,
    /// It may not send, or not receive: on hold.
    pub mute: Windows,
    pub deaf: Windows,
    /// Modify commands without their answer.
    pub modifies: usize,
    pub direction: Direction,
    /// Message-IDs (the node's) that it wanted no more of.
    pub declined: BTreeSet<String>,
}

/// How a member answers what it receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answering {
    Always,
    /// With an error now and then.
    Moodily,
    Never,
}

/// Steps from which and up to which something was so.
#[derive(Debug, Default)]
pub struct Windows(Vec<(u64, u64)>);

impl Windows {
    pub fn open(&mut self, step: u64) {
        if self.0.last().is_none_or(|&(_, end)| end != u64::MAX) {
            self.0.push((step, u64::MAX));
        }
    }

    pub fn close(&mut self, step: u64) {
        if let Some((_, end)) = self.0.last_mut() {
            *end = (*end).min(step);
        }
    }

    /// It was so at some time between the two.
    pub fn overlap(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|&(start, end)| start <= to && from <= end)
    }
}

impl Party {
    pub fn new(ue: Ue, context: u64, termination: u64, bound: u64, random: &mut Random) -> Self {
        Self {
            ue,
            context,
            termination,
            between_two: is_between_two(context),
            watch: Watch::default(),
            bound,
            open: Vec::new(),
            wire: Vec::new(),
            sending: None,
            responses: VecDeque::new(),
            answering: random.pick(&[
                Answering::Always,
                Answering::Always,
                Answering::Always,
                Answering::Moodily,
                Answering::Never,
            ]),
            ended: false,
            renounced: false,
            kicked: false,
            released: None,
            stalled: false,
            mute: Windows::default(),
            deaf: Windows::default(),
            modifies: 0,
            direction: Direction::SendRecv,
            declined: BTreeSet::new(),
        }
    }

    /// It has been there all the time and still is.
    pub fn is_steady(&self) -> bool {
        !self.ended && !self.renounced && !self.kicked && self.released.is_none()
    }

    /// What its messages begin with: in a room a CPIM head (RFC 7701 section 6.1).
    pub fn body_head(&self) -> String {
        if self.between_two {
            return String::new();
        }
        let termination = self.termination;
        format!(
            "From: <sip:ue{termination}@example.com>\r\nTo: <{ROOM_URI}>\r\n\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
    }

    /// Queues a REPORT of success on what has arrived.
    pub fn report(&mut self, transaction: &str, delivery: &Delivery) {
        let (to, from) = (&self.ue.remote_uri, &self.ue.local_uri);
        let end = delivery.start + delivery.length - 1;
        let report = format!(
            "MSRP {transaction} REPORT\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: {}\r\nByte-Range: {}-{end}/*\r\nStatus: 000 200 OK\r\n\
             -------{transaction}$\r\n",
            delivery.message_id, delivery.start
        );
        self.responses.push_back(report.into_bytes());
    }

    /// Queues a response to a request of the node.
    pub fn respond(&mut self, transaction: &str, status: u16) {
        let (to, from) = (&self.ue.remote_uri, &self.ue.local_uri);
        let response = format!(
            "MSRP {transaction} {status} -\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             -------{transaction}$\r\n"
        );
        self.responses.push_back(response.into_bytes());
    }
}
