//! A piece of a message as its receivers get it: as its sender wrote it, or converted, with a CPIM
//! wrapper put in front or taken off. A wrapper shifts every byte behind it, so every Byte-Range of
//! the message moves by its length.

use super::route::is_content_line;
use super::{Route, Verdict};
use crate::context::Context;
use crate::termination::Termination;

/// Whether a message has a CPIM head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Wrapped,
    Bare,
}

/// The next bytes of a message as its sender numbers them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage<'a> {
    /// Number of the first byte, 1-based.
    pub(crate) at: u64,
    /// Bytes that were held until the head was whole, maybe none; the body comes behind them.
    pub(crate) front: &'a [u8],
    pub(crate) body: &'a [u8],
    /// Size of the message, where it is known.
    pub(crate) total: Option<u64>,
}

/// The same as a receiver gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rendition<'a> {
    /// Number of the first byte.
    pub(crate) start: u64,
    pub(crate) front: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) total: Option<u64>,
}

/// Which bytes of a message those are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) start: u64,
    /// Number of the last byte; one less than `start` where there is none.
    pub(super) end: u64,
    pub(super) total: Option<u64>,
}

impl<'a> Passage<'a> {
    /// As the sender wrote it.
    pub(crate) fn as_sent(&self) -> Rendition<'a> {
        Rendition { start: self.at, front: self.front, body: self.body, total: self.total }
    }

    /// In the other form. `wrapper` is what goes in front of a message that has none.
    pub(crate) fn converted(&self, route: &Route, wrapper: &'a [u8]) -> Rendition<'a> {
        let head_bytes = u64::from(route.head_bytes);
        match route.form {
            Form::Bare if self.at == 1 => Rendition {
                start: 1,
                front: wrapper,
                body: self.body,
                total: self.total.map(|total| total.saturating_add(head_bytes)),
            },
            Form::Bare => Rendition {
                start: self.at.saturating_add(head_bytes),
                front: self.front,
                body: self.body,
                total: self.total.map(|total| total.saturating_add(head_bytes)),
            },
            Form::Wrapped => {
                let of_head = (head_bytes + 1).saturating_sub(self.at) as usize;
                let front = &self.front[of_head.min(self.front.len())..];
                let of_body = of_head.saturating_sub(self.front.len());
                let body = &self.body[of_body.min(self.body.len())..];
                Rendition {
                    start: self.at.max(head_bytes + 1) - head_bytes,
                    front,
                    body,
                    total: self.total.map(|total| total.saturating_sub(head_bytes)),
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_empty() && self.body.is_empty()
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.front.len() + self.body.len()
    }

    pub(super) fn extent(&self) -> Extent {
        let length = (self.front.len() + self.body.len()) as u64;
        Extent {
            start: self.at,
            end: self.at.saturating_add(length).saturating_sub(1),
            total: self.total,
        }
    }

    pub(super) fn converted_extent(&self, route: &Route) -> Extent {
        let converted = self.converted(route, b"");
        let wrapper_bytes = match route.form {
            Form::Bare if self.at == 1 => u64::from(route.head_bytes),
            Form::Bare | Form::Wrapped => 0,
        };
        let length = wrapper_bytes + converted.bytes_len();
        Extent {
            start: converted.start,
            end: converted.start.saturating_add(length).saturating_sub(1),
            total: converted.total,
        }
    }
}

impl Rendition<'_> {
    /// Bytes of the message in it.
    pub(crate) fn bytes_len(&self) -> u64 {
        (self.front.len() + self.body.len()) as u64
    }

    /// Number of the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes_len()).saturating_sub(1)
    }
}

impl Context {
    /// Judges a piece of a message for everybody in a room. Where somebody gets it converted: that
    /// rendition, its header lines in `converted_lines` and its wrapper in `wrapper`.
    pub(crate) fn convert<'a>(
        &self,
        verdicts: &mut Vec<Verdict>,
        sender: &Termination,
        route: &Route,
        passage: &Passage<'a>,
        lines: &[u8],
        (converted_lines, wrapper): (&mut Vec<u8>, &'a mut Vec<u8>),
    ) -> Option<Rendition<'a>> {
        verdicts.clear();
        converted_lines.clear();
        wrapper.clear();
        let (room, participant) = (self.room.as_ref()?, sender.participant.as_ref()?);
        room.judge(route, passage, verdicts);
        if !verdicts.contains(&Verdict::Converted) {
            return None;
        }
        let foreign = lines.split_inclusive(|&byte| byte == b'\n').filter(|l| !is_content_line(l));
        foreign.for_each(|line| converted_lines.extend_from_slice(line));
        match route.form {
            _ if lines.is_empty() => {}
            Form::Wrapped => converted_lines.extend_from_slice(route.content.as_bytes()),
            Form::Bare => {
                converted_lines.extend_from_slice(b"Content-Type: message/cpim\r\n");
                if passage.at == 1
                    && let Some(new) = room.wrapper(participant, route)
                {
                    new.append_to(wrapper);
                }
            }
        }
        Some(passage.converted(route, wrapper))
    }
}
