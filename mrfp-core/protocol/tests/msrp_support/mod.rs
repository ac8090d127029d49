//! Runs a stream through the framer in given segments and writes down what comes out.

use mrfp_protocol::msrp::{Continuation, Framer, MalformedReason, Piece};

/// What a stream says, however it was cut: runs of one body are one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The head, as its Debug text.
    Head(String),
    /// All of the body since the last event.
    Body(Vec<u8>),
    End(Continuation),
    /// The reason, and the bytes of transaction id, From and To where a 400 can be sent.
    Malformed(MalformedReason, Option<[Vec<u8>; 3]>),
}

#[derive(Default)]
pub(crate) struct Stream {
    framer: Framer,
    carry: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) lost: bool,
}

impl Stream {
    pub(crate) fn feed(&mut self, segment: &[u8]) {
        if self.lost {
            return;
        }
        self.carry.extend_from_slice(segment);
        let mut at = 0;
        loop {
            let input = &self.carry[at..];
            match self.framer.next(input) {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    assert!(piece.consumed > 0);
                    assert!(piece.consumed <= input.len());
                    at += piece.consumed;
                    note(&mut self.events, &piece);
                }
                Err(malformed) => {
                    let answer = malformed.answer.map(|answer| {
                        [answer.transaction_id, answer.from_first, answer.to_first]
                            .map(|range| input[range].to_vec())
                    });
                    self.events.push(Event::Malformed(malformed.reason, answer));
                    self.lost = true;
                    break;
                }
            }
        }
        self.carry.drain(..at);
    }

    /// Bytes that were presented and not consumed.
    pub(crate) fn unconsumed(&self) -> usize {
        self.carry.len()
    }
}

fn note(events: &mut Vec<Event>, piece: &Piece<'_>) {
    if let Some(head) = &piece.head {
        events.push(Event::Head(format!("{head:?}")));
    }
    if !piece.body.is_empty() {
        match events.last_mut() {
            Some(Event::Body(body)) => body.extend_from_slice(piece.body),
            _ => events.push(Event::Body(piece.body.to_vec())),
        }
    }
    if let Some(end) = piece.end {
        events.push(Event::End(end));
    }
}

pub(crate) fn whole(stream: &[u8]) -> Vec<Event> {
    let mut run = Stream::default();
    run.feed(stream);
    run.events
}

pub(crate) fn in_steps(stream: &[u8], step: usize) -> Vec<Event> {
    let mut run = Stream::default();
    stream.chunks(step).for_each(|segment| run.feed(segment));
    run.events
}

pub(crate) fn split_at(stream: &[u8], cuts: &[usize]) -> Vec<Event> {
    let mut run = Stream::default();
    let mut from = 0;
    for &cut in cuts.iter().chain([&stream.len()]) {
        run.feed(&stream[from..cut]);
        from = cut;
    }
    run.events
}
