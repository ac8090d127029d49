//! One connection to the target.

use mrfp_io::Socket;

use super::auth::Registration;
use super::end::End;
use super::lobby::Invitation;
use super::participant::Participant;
use crate::media::channel::Channel;

/// One connection.
pub(super) struct Link {
    pub(super) stage: Stage,
    /// Tells the tenants of a slot apart.
    pub(super) generation: u32,
    pub(super) socket: Option<Socket>,
    /// Whose key it uses.
    pub(super) identity: u32,
    pub(super) recv_armed: bool,
    pub(super) channel: Channel,
    /// Plain bytes of an incomplete message.
    pub(super) plain_carry: Vec<u8>,
    /// When what it is at must be done.
    pub(super) deadline_ns: u64,
    /// When it was begun, or spoke first.
    pub(super) begun_ns: u64,
    /// What its call was answered.
    pub(super) invitation: Option<Box<Invitation>>,
    /// The peer may close: it was told goodbye.
    pub(super) released: bool,
    pub(super) registration: Option<Box<Registration>>,
    pub(super) end: Option<Box<End>>,
    pub(super) participant: Option<Box<Participant>>,
    /// Open loop: when the next message is due.
    pub(super) due_ns: u64,
}

/// Life of a link, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// Not begun.
    Waiting,
    /// The target is to connect to us.
    Expected,
    /// TCP is being set up.
    Connecting,
    /// TLS is being set up.
    Securing,
    /// Up, but nothing was said: everybody will at once.
    Silent,
    /// Its first word is not answered: AUTH, Hello.
    Introducing,
    /// It can be used.
    Ready,
    /// It ends; what is with the kernel is awaited.
    Closing,
    /// The descriptor is being freed, or is.
    Closed,
}

/// Bytes of an incomplete message that are kept.
pub(super) const CARRY_BYTES_MAX: usize = 256 * 1024;

impl Link {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Waiting,
            generation: 0,
            socket: None,
            identity: 0,
            recv_armed: false,
            channel: Channel::new(None),
            plain_carry: Vec::new(),
            deadline_ns: u64::MAX,
            begun_ns: 0,
            released: false,
            invitation: None,
            registration: None,
            end: None,
            participant: None,
            due_ns: 0,
        }
    }

    /// Ready for its next tenant.
    pub(super) fn renew(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::new() };
    }
}
