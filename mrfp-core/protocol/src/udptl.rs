//! UDPTL (T.38 clause 9.1): how fax travels in datagrams. Each has a sequence number, one packet of the
//! Internet fax protocol, and something to make up for those before it that were lost: copies of them, or
//! their parity.
//!
//! A gateway passes datagrams on as they are; this is for those at the ends of them.

use std::collections::VecDeque;

/// A datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Begins anew after 65,535.
    pub sequence: u16,
    /// The packet of the fax protocol it is for.
    pub primary: &'a [u8],
    /// What makes up for others.
    pub recovery: Recovery<'a>,
}

/// Error recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery<'a> {
    /// Primaries of the datagrams before it, the last one first.
    Redundancy(Entries<'a>),
    /// Parities: entry m of e is that of the `span` primaries every e datagrams apart, of which the last is
    /// the one e - m datagrams before.
    Parity {
        /// Primaries in each.
        span: u8,
        /// The parities.
        entries: Entries<'a>,
    },
}

/// A list of byte strings, checked.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// Not a datagram of UDPTL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl<'a> Packet<'a> {
    /// Reads a datagram; nothing may be left of it.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (&sequence, rest) = datagram.split_first_chunk::<2>().ok_or(Malformed)?;
        let sequence = u16::from_be_bytes(sequence);
        let (primary, rest) = string(rest).ok_or(Malformed)?;
        let (&choice, rest) = rest.split_first().ok_or(Malformed)?;
        let (recovery, rest) = match choice & PARITY {
            0 => {
                let (entries, rest) = Entries::parse(rest).ok_or(Malformed)?;
                (Recovery::Redundancy(entries), rest)
            }
            _ => {
                // An INTEGER: its length, and the number itself.
                let &[1, span, ref rest @ ..] = rest else { return Err(Malformed) };
                let (entries, rest) = Entries::parse(rest).ok_or(Malformed)?;
                (Recovery::Parity { span, entries }, rest)
            }
        };
        if rest.is_empty() { Ok(Self { sequence, primary, recovery }) } else { Err(Malformed) }
    }
}

impl<'a> Entries<'a> {
    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (count, bytes) = length(bytes)?;
        let mut rest = bytes;
        for _ in 0..count {
            rest = string(rest)?.1;
        }
        Some((Self { bytes: &bytes[..bytes.len() - rest.len()], count }, rest))
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count == 0
    }
}

impl<'a> IntoIterator for Entries<'a> {
    type Item = &'a [u8];
    type IntoIter = EntriesIter<'a>;

    fn into_iter(self) -> EntriesIter<'a> {
        EntriesIter(self)
    }
}

/// Goes through [`Entries`].
#[derive(Clone, Debug)]
pub struct EntriesIter<'a>(Entries<'a>);

impl<'a> Iterator for EntriesIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.0.count = self.0.count.checked_sub(1)?;
        let (entry, rest) = string(self.0.bytes)?;
        self.0.bytes = rest;
        Some(entry)
    }
}

/// Makes up for what is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redundancy {
    /// The last so many primaries come along (t38UDPRedundancy); 0: none (t38UDPNoEC).
    Copies(u8),
    /// Parities come along (t38UDPFEC).
    Parity {
        /// Primaries in each.
        span: u8,
        /// How many.
        entries: u8,
    },
}

/// Writes the datagrams of one direction.
#[derive(Debug)]
pub struct Sender {
    redundancy: Redundancy,
    next: u16,
    /// The last primaries, oldest first.
    past: VecDeque<Vec<u8>>,
}

impl Sender {
    /// Begins at `first`.
    #[must_use]
    pub fn new(redundancy: Redundancy, first: u16) -> Self {
        Self { redundancy, next: first, past: VecDeque::new() }
    }

    /// The datagram for the next primary, which has at most [`STRING_BYTES_MAX`] bytes, appended to `out`.
    pub fn write(&mut self, primary: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.next.to_be_bytes());
        self.next = self.next.wrapping_add(1);
        put_string(primary, out);
        let kept = match self.redundancy {
            Redundancy::Copies(wanted) => {
                let copies = usize::from(wanted).min(self.past.len());
                out.push(0);
                put_length(copies, out);
                self.past.iter().rev().take(copies).for_each(|copy| put_string(copy, out));
                usize::from(wanted)
            }
            Redundancy::Parity { span, entries } => {
                let (span_length, count) = (usize::from(span), usize::from(entries));
                // Before there have been enough of them a parity is of fewer.
                out.extend_from_slice(&[PARITY, 1, span]);
                put_length(count, out);
                let all = span_length * count;
                for entry in 0..count {
                    let mut parity = Vec::new();
                    let back = (1..=all).filter(|back| (all - back) % count == entry);
                    for index in back.filter_map(|back| self.past.len().checked_sub(back)) {
                        add(&mut parity, &self.past[index]);
                    }
                    put_string(&parity, out);
                }
                all
            }
        };
        self.past.push_back(primary.to_vec());
        while self.past.len() > kept {
            self.past.pop_front();
        }
    }
}

/// Puts the primaries of one direction in order again, and fills the gaps as far as that can be done.
#[derive(Debug, Default)]
pub struct Receiver {
    /// Number of the next one that is to be handed out, counted without end.
    next: Option<u64>,
    /// Those from `next` on that are known, or have been handed out and may be in a parity.
    known: std::collections::BTreeMap<u64, Vec<u8>>,
}

impl Receiver {
    /// Takes a datagram; hands out what is now known in order, each with its number, counted without end.
    /// What is still missing when [`GAP_MAX`] more have come is given up.
    pub fn take(&mut self, packet: &Packet<'_>) -> Vec<(u64, Vec<u8>)> {
        let number = self.number(packet.sequence);
        self.learn(number, packet.primary.to_vec());
        match packet.recovery {
            Recovery::Redundancy(entries) => {
                for (back, copy) in (1..).zip(entries) {
                    if let Some(number) = number.checked_sub(back) {
                        self.learn(number, copy.to_vec());
                    }
                }
            }
            Recovery::Parity { span, entries } => {
                let (span, count) = (u64::from(span), entries.len() as u64);
                for (entry, parity) in (0..).zip(entries) {
                    let first = (number + entry).checked_sub(span * count);
                    let Some(first) = first else { continue };
                    self.learn_by_parity((0..span).map(|step| first + step * count), parity);
                }
            }
        }
        self.hand_out(number)
    }

    /// Of the numbers a sequence number may stand for the one that is nearest.
    fn number(&mut self, sequence: u16) -> u64 {
        let next = *self.next.get_or_insert(BEGIN + u64::from(sequence));
        let ahead = sequence.wrapping_sub(next as u16) as i16;
        next.saturating_add_signed(i64::from(ahead))
    }

    fn learn(&mut self, number: u64, primary: Vec<u8>) {
        let oldest = self.next.unwrap_or_default().saturating_sub(PAST_MAX);
        if number >= oldest {
            self.known.entry(number).or_insert(primary);
        }
    }

    fn learn_by_parity(&mut self, numbers: impl Iterator<Item = u64>, parity: &[u8]) {
        let mut parity = parity.to_vec();
        let mut missing = None;
        for number in numbers {
            match self.known.get(&number) {
                Some(known) => add(&mut parity, known),
                None if missing.is_none() => missing = Some(number),
                None => return,
            }
        }
        // A shorter one than the others ends in zeros, which a fax does not mind.
        if let Some(number) = missing {
            self.learn(number, parity);
        }
    }

    fn hand_out(&mut self, newest: u64) -> Vec<(u64, Vec<u8>)> {
        let mut ready = Vec::new();
        let mut next = self.next.unwrap_or(newest);
        loop {
            if let Some(primary) = self.known.get(&next) {
                ready.push((next, primary.clone()));
            } else if newest < next || newest - next < GAP_MAX {
                break;
            }
            next += 1;
        }
        self.next = Some(next);
        self.known = self.known.split_off(&next.saturating_sub(PAST_MAX));
        ready
    }
}

fn add(sum: &mut Vec<u8>, bytes: &[u8]) {
    if sum.len() < bytes.len() {
        sum.resize(bytes.len(), 0);
    }
    sum.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum ^= byte);
}

/// A length as aligned PER writes it: one byte, or two; longer ones would be cut in parts, which no
/// datagram has room for.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match *bytes {
        [short @ ..=0x7f, ref rest @ ..] => Some((usize::from(short), rest)),
        [high @ 0x80..=0xbf, low, ref rest @ ..] => {
            Some((usize::from(u16::from_be_bytes([high & 0x3f, low])), rest))
        }
        _ => None,
    }
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = length(bytes)?;
    rest.split_at_checked(length)
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    assert!(length <= STRING_BYTES_MAX);
    match length {
        ..=0x7f => out.push(length as u8),
        _ => out.extend_from_slice(&(length as u16 | 0x8000).to_be_bytes()),
    }
}

fn put_string(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The longest byte string that is written in one part.
pub const STRING_BYTES_MAX: usize = 0x3fff;
/// How many more may come before what is missing is given up: four seconds of fax at the most.
pub const GAP_MAX: u64 = 128;
/// So many that have been handed out are kept, as parities are made of them.
const PAST_MAX: u64 = 64;
/// Room for what was sent before the first that came.
const BEGIN: u64 = 1 << 16;
/// The top bit chooses; the rest of its byte is padding.
const PARITY: u8 = 0x80;

#[cfg(test)]
mod tests;
