//! The MSRP interworking function of a Context (TR 29.828): where the two parties know each other by
//! different URIs, To-Path and From-Path of every message are changed on its way. Each direction begins with
//! the first bytes that can be passed on, as both sides are known then; where the URIs are the same
//! crosswise no message is looked at.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Interworking, Malformed, Passage, Path, Paths, Refusal, Uri, comment};

use super::point::ConnectionPoint;
use crate::carry::{CarryBuffer, CarryBuffers};
use crate::connection::Life;
use crate::egress::{Lane, PoolExhausted};
use crate::mp::{MsrpPaths, ReleaseCause};
use crate::plane::{Ending, Plane};
use crate::request::Decimal;

/// How what comes in at a connection point is passed on.
pub(super) enum Passing {
    /// Nothing has been, since its connection came up.
    Undecided,
    /// As it is.
    Bytes,
    /// Messages get other paths.
    Msrp(Box<Direction>),
}

/// What comes in at one side.
pub(super) struct Direction {
    interworking: Interworking,
    /// The beginning of a head, or what may be that of an end-line.
    carry: Option<CarryBuffer>,
    /// Responses of ours to who sends here. They wait for the end of the message that is leaving to it.
    answers: Option<CarryBuffer>,
}

/// Why a direction cannot go on.
enum Stopped {
    /// No send buffers: a hole in the stream would be worse than its end.
    Exhausted,
    /// Where the next message begins cannot be told.
    Lost,
    /// The sender gets more refusals than it reads.
    Refusals,
}

/// Whether both are lists of MSRP URIs.
pub(super) fn are_paths(paths: &MsrpPaths) -> bool {
    let is_path = |path: &str| Path(path.as_bytes()).iter().all(|uri| Uri::parse(uri).is_ok());
    is_path(&paths.presented) && is_path(&paths.remote)
}

/// What changes the messages of one side on their way to the other. `None`: they need nothing.
fn interworking(source: &ConnectionPoint, taker: &ConnectionPoint) -> Option<Interworking> {
    let near = source.remote.as_ref()?.msrp.as_ref()?;
    let far = taker.remote.as_ref()?.msrp.as_ref()?;
    if near.presented == far.remote && near.remote == far.presented {
        return None;
    }
    let expected = Paths { to: near.presented.as_bytes(), from: near.remote.as_bytes() };
    let given = Paths { to: far.remote.as_bytes(), from: far.presented.as_bytes() };
    Some(Interworking::new(expected, given).expect("paths are looked at when they are given"))
}

impl Plane {
    /// A connection point has got its connection: what comes from it begins afresh, and what goes to it may
    /// have other paths from here on.
    pub(super) fn renew_passing(&mut self, key: Key) {
        self.drop_passing(key);
        let Some(other) = self.gateway.other(key) else { return };
        let (Some(source), Some(taker)) = (self.gateway.point(other), self.gateway.point(key))
        else {
            return;
        };
        if !matches!(source.passing, Passing::Msrp(_)) {
            return;
        }
        let Some(changed) = interworking(source, taker) else { return self.drop_passing(other) };
        if let Some(direction) = self.direction(other) {
            direction.interworking.go_on_as(changed);
        }
    }

    /// Nothing of what has come in at a connection point is gone on with.
    pub(super) fn drop_passing(&mut self, key: Key) {
        let Some(point) = self.gateway.point_mut(key) else { return };
        if let Passing::Msrp(direction) = std::mem::replace(&mut point.passing, Passing::Undecided)
        {
            direction.discard(&mut self.carry_buffers);
        }
    }

    /// Passes on what has come in at `source` to the connection `taker`. Returns how many bytes leave.
    pub(super) fn pass(
        &mut self,
        source: Key,
        taker: Key,
        bytes: &[u8],
    ) -> Result<usize, PoolExhausted> {
        if self.is_interworking(source) {
            return self.interwork(source, taker, bytes);
        }
        if let Some(taker) = self.connections.get_mut(taker) {
            taker.egress.append_to(Lane::First, &mut self.send_buffers, &[bytes])?;
        }
        Ok(bytes.len())
    }

    /// Whether paths are changed in what comes in; decides it with the first of it.
    pub(super) fn is_interworking(&mut self, source: Key) -> bool {
        let Some(point) = self.gateway.point(source) else { return false };
        match &point.passing {
            Passing::Msrp(_) => return true,
            Passing::Bytes => return false,
            Passing::Undecided => {}
        }
        let other = point.other.and_then(|other| self.gateway.point(other));
        let passing = match other.and_then(|other| interworking(point, other)) {
            Some(interworking) => {
                Passing::Msrp(Box::new(Direction { interworking, carry: None, answers: None }))
            }
            None => Passing::Bytes,
        };
        let is_interworking = matches!(passing, Passing::Msrp(_));
        if let Some(point) = self.gateway.point_mut(source) {
            point.passing = passing;
        }
        is_interworking
    }

    fn interwork(&mut self, source: Key, taker: Key, bytes: &[u8]) -> Result<usize, PoolExhausted> {
        let mut left = 0;
        let done = self.convert(source, taker, bytes, &mut left);
        // A message has come to its end on one of the two ways, or nothing has begun.
        self.send_answers(source);
        if let Some(other) = self.gateway.other(source) {
            self.send_answers(other);
        }
        let ending = match done {
            Ok(()) => return Ok(left),
            Err(Stopped::Exhausted) => return Err(PoolExhausted),
            Err(Stopped::Lost) => Ending::Graceful,
            Err(Stopped::Refusals) => Ending::Abort,
        };
        if let Some(connection) = self.gateway.point(source).and_then(|point| point.connection) {
            self.release(connection, ReleaseCause::ProtocolViolation, ending);
        }
        Ok(left)
    }

    /// Converts a run of bytes, with what was kept of those before it, and keeps what is incomplete.
    fn convert(
        &mut self,
        source: Key,
        taker: Key,
        bytes: &[u8],
        left: &mut usize,
    ) -> Result<(), Stopped> {
        let carry = self.direction(source).and_then(|direction| direction.carry.take());
        let Some(mut carry) = carry else {
            let taken = self.convert_run(source, taker, bytes, left)?;
            return self.keep(source, &bytes[taken..]);
        };
        let mut rest = bytes;
        loop {
            let before = carry.len();
            let appended = carry.append(rest);
            let taken = match self.convert_run(source, taker, carry.bytes(), left) {
                Ok(taken) => taken,
                Err(stopped) => {
                    self.carry_buffers.put(carry);
                    return Err(stopped);
                }
            };
            if taken >= before {
                // What remains lies in the received bytes again.
                self.carry_buffers.put(carry);
                let rest = &rest[taken - before..];
                let taken = self.convert_run(source, taker, rest, left)?;
                return self.keep(source, &rest[taken..]);
            }
            carry.consume(taken);
            rest = &rest[appended..];
            if rest.is_empty() {
                match self.direction(source) {
                    Some(direction) => direction.carry = Some(carry),
                    None => self.carry_buffers.put(carry),
                }
                return Ok(());
            }
            // No head is as long as this.
            assert!(taken > 0 || appended > 0);
        }
    }

    /// Handles every piece of a run of bytes; returns how many were consumed.
    fn convert_run(
        &mut self,
        source: Key,
        taker: Key,
        bytes: &[u8],
        left: &mut usize,
    ) -> Result<usize, Stopped> {
        let mut taken = 0;
        loop {
            let point = self.gateway.point_mut(source);
            let Some(Passing::Msrp(direction)) = point.map(|point| &mut point.passing) else {
                return Ok(bytes.len());
            };
            let Some(taker) = self.connections.get_mut(taker) else { return Ok(bytes.len()) };
            let Direction { interworking, answers, .. } = &mut **direction;
            let mut append = |parts: &[&[u8]]| {
                *left += parts.iter().map(|part| part.len()).sum::<usize>();
                let queued = taker.egress.append_to(Lane::First, &mut self.send_buffers, parts);
                queued.map_err(|PoolExhausted| Stopped::Exhausted)
            };
            let input = &bytes[taken..];
            match interworking.next(input) {
                Ok(None) => return Ok(taken),
                Ok(Some(step)) => {
                    taken += step.consumed;
                    match step.passage {
                        Passage::Begins(parts) => append(&parts)?,
                        Passage::GoesOn(bytes) => append(&[bytes])?,
                        Passage::Nothing => {}
                        Passage::Refused(refusal) => {
                            answer(answers, &mut self.carry_buffers, 481, &refusal)?;
                        }
                    }
                }
                Err(malformed) => {
                    tracing::debug!(reason = ?malformed.reason, "malformed MSRP");
                    self.metrics.messages_malformed += 1;
                    if let Some(refusal) = refusal(input, &malformed) {
                        answer(answers, &mut self.carry_buffers, 400, &refusal)?;
                    }
                    taken += malformed.consumed.ok_or(Stopped::Lost)?;
                }
            }
        }
    }

    /// Keeps what is incomplete.
    fn keep(&mut self, source: Key, rest: &[u8]) -> Result<(), Stopped> {
        if rest.is_empty() || self.direction(source).is_none() {
            return Ok(());
        }
        let mut carry = self.carry_buffers.take().ok_or(Stopped::Exhausted)?;
        assert_eq!(carry.append(rest), rest.len(), "heads are bounded");
        if let Some(direction) = self.direction(source) {
            direction.carry = Some(carry);
        }
        Ok(())
    }

    /// Sends our own responses to the peer of a connection point, unless a message of the other party is
    /// on its way to it.
    fn send_answers(&mut self, key: Key) {
        let Some(point) = self.gateway.point(key) else { return };
        let Passing::Msrp(direction) = &point.passing else { return };
        if direction.answers.is_none() {
            return;
        }
        let connection = point.connection;
        let other = point.other.and_then(|other| self.gateway.point(other));
        if let Some(Passing::Msrp(other)) = other.map(|other| &other.passing)
            && !other.interworking.is_between_messages()
        {
            return;
        }
        let answers = self.direction(key).and_then(|direction| direction.answers.take());
        let Some(answers) = answers else { return };
        let open = connection.and_then(|key| Some((key, self.connections.get_mut(key)?)));
        if let Some((connection_key, connection)) = open
            && connection.life == Life::Open
        {
            let parts = &[answers.bytes()];
            let queued = connection.egress.append_to(Lane::First, &mut self.send_buffers, parts);
            if queued.is_err() {
                self.release(connection_key, ReleaseCause::TooSlow, Ending::Abort);
            } else {
                self.mark(connection_key);
                self.check_egress(connection_key);
            }
        }
        self.carry_buffers.put(answers);
    }

    fn direction(&mut self, key: Key) -> Option<&mut Direction> {
        match &mut self.gateway.point_mut(key)?.passing {
            Passing::Msrp(direction) => Some(direction),
            Passing::Undecided | Passing::Bytes => None,
        }
    }
}

impl Direction {
    fn discard(self, pool: &mut CarryBuffers) {
        [self.carry, self.answers].into_iter().flatten().for_each(|buffer| pool.put(buffer));
    }
}

/// What a 400 takes, where it may be sent.
fn refusal<'a>(input: &'a [u8], malformed: &Malformed) -> Option<Refusal<'a>> {
    let answer = malformed.answer.as_ref()?;
    Some(Refusal {
        transaction_id: &input[answer.transaction_id.clone()],
        to: &input[answer.from_first.clone()],
        from: &input[answer.to_first.clone()],
    })
}

/// Puts a response behind those that wait. There is room for some dozens: whoever sends more requests for
/// others in the time of one message is not worth waiting for.
fn answer(
    answers: &mut Option<CarryBuffer>,
    pool: &mut CarryBuffers,
    status: u16,
    refusal: &Refusal<'_>,
) -> Result<(), Stopped> {
    if answers.is_none() {
        *answers = pool.take();
    }
    let room = answers.as_mut().ok_or(Stopped::Exhausted)?;
    let mut number = Decimal::default();
    let parts: [&[u8]; 13] = [
        b"MSRP ",
        refusal.transaction_id,
        b" ",
        number.format(Some(u64::from(status))),
        b" ",
        comment(status),
        b"\r\nTo-Path: ",
        refusal.to,
        b"\r\nFrom-Path: ",
        refusal.from,
        b"\r\n-------",
        refusal.transaction_id,
        b"$\r\n",
    ];
    let has_fit = parts.iter().all(|part| room.append(part) == part.len());
    has_fit.then_some(()).ok_or(Stopped::Refusals)
}
