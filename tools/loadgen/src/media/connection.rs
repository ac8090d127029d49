//! One UE's MSRP connection: TLS, framing, the answers it owes, the messages it sends.

mod incoming;

use std::collections::VecDeque;

use mrfp_io::{SendBuffers, Socket};
use mrfp_protocol::msrp::{Framer, HEAD_BYTES_MAX};
use mrfp_protocol::tls::{self, Handshake};

use self::incoming::{Incoming, Partial};
use super::channel::{Channel, Failure, Opened, joined};
use super::message::{BINDING_SEQUENCE, ChunkOf, Contents, Stamp, Template, Transaction};

/// Life of a connection, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// TCP is being set up.
    Connecting,
    /// TLS is being set up, or the binding SEND is on its way.
    Binding,
    /// Ready to bind, but to speak only when everybody does.
    Silent,
    /// Bound: the UE may send.
    Bound,
    /// It ends; what is in flight with the kernel is awaited.
    Closing,
    /// The descriptor is being freed, or is.
    Closed,
}

/// What the node said that the fleet must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The connection is up, and its UE waits for the word to speak.
    Silent,
    /// The binding SEND was answered.
    Binding {
        /// Status.
        status: u16,
    },
    /// A chunk was answered.
    Answer {
        /// Which.
        transaction: Transaction,
        /// Status.
        status: u16,
    },
    /// A response to nothing of ours.
    StrayAnswer,
    /// A message is complete.
    Message(Stamp),
    /// A message is complete but is not what any UE sent.
    Corrupted,
    /// A message was given up by its sender.
    Aborted,
}

/// One connection.
pub struct Connection {
    /// Session number in the fleet.
    pub session: u32,
    /// Its room, as an index of the worker.
    pub room: u32,
    /// Number among the members of the room's ledger.
    pub member: u32,
    /// Where it stands.
    pub stage: Stage,
    /// The call is over or about to be: a close is what is expected.
    pub released: bool,
    /// Socket of the driver.
    pub socket: Socket,
    /// A multishot receive is armed.
    pub recv_armed: bool,
    /// Protection and output.
    pub channel: Channel,
    /// Prepared messages.
    pub template: Template,
    /// Sequence, next chunk and stamp of a message that is not yet sent whole.
    pub sending: Option<ChunkOf>,
    /// The files it sends.
    pub file: Option<FileSender>,
    /// It does not speak before everybody does.
    pub waits: bool,
    /// The binding SEND is a message.
    speaks_once: bool,
    /// When it spoke first, together with the others.
    pub spoke_ns: u64,
    /// It reads nothing.
    pub stalled: bool,
    /// When the next message is due (open loop), in nanoseconds of the media clock.
    pub next_intended_ns: u64,
    /// When it must be bound, in nanoseconds of the media clock.
    pub bind_deadline_ns: u64,
    /// The node's first URI must be answered to our own URI.
    local_path: Vec<u8>,
    nonce: u32,
    framer: Framer,
    /// Plain bytes the framer could not use yet.
    plain_carry: Vec<u8>,
    /// The transaction whose end has not come.
    incoming: Option<Box<Incoming>>,
    /// Messages of which more chunks follow.
    partial: VecDeque<Partial>,
}

/// What a UE needs to send files, one after the other.
#[derive(Debug)]
pub struct FileSender {
    /// Its prepared file.
    pub template: Template,
    /// Files begun.
    pub begun: u32,
    /// The file that is not yet sent whole, and its next chunk.
    pub sending: Option<ChunkOf>,
}

/// Bytes of an incomplete head, or of one record, that are kept.
const CARRY_BYTES_MAX: usize = tls::RECORD_BYTES_MAX + HEAD_BYTES_MAX;

/// Surroundings of a connection while it works.
pub struct Surroundings<'a> {
    /// Memory for output.
    pub pool: &'a mut SendBuffers,
    /// For composing.
    pub scratch: &'a mut Vec<u8>,
    /// The fleet's texts and files.
    pub contents: &'a Contents,
    /// What the node said, in order.
    pub heard: &'a mut Vec<Heard>,
}

/// How a connection begins.
pub struct Beginning {
    /// Session number in the fleet.
    pub session: u32,
    /// Its room, as an index of the worker.
    pub room: u32,
    /// Socket of the driver.
    pub socket: Socket,
    /// Protection, if any: a handshake that has not begun.
    pub handshake: Option<Handshake>,
    /// Prepared messages.
    pub template: Template,
    /// Our own MSRP URI.
    pub local_path: String,
    /// The files it sends.
    pub file: Option<FileSender>,
    /// The nonce of the templates.
    pub nonce: u32,
    /// It does not speak before everybody does.
    pub waits: bool,
    /// The binding SEND is a message.
    pub speaks_once: bool,
    /// When it must be bound.
    pub bind_deadline_ns: u64,
}

impl Connection {
    /// A connection that is being set up.
    #[must_use]
    pub fn new(beginning: Beginning) -> Self {
        Self {
            session: beginning.session,
            room: beginning.room,
            member: 0,
            stage: Stage::Connecting,
            released: false,
            socket: beginning.socket,
            recv_armed: false,
            channel: Channel::new(beginning.handshake),
            template: beginning.template,
            sending: None,
            file: beginning.file,
            waits: beginning.waits,
            speaks_once: beginning.speaks_once,
            spoke_ns: 0,
            stalled: false,
            next_intended_ns: 0,
            bind_deadline_ns: beginning.bind_deadline_ns,
            local_path: beginning.local_path.into_bytes(),
            nonce: beginning.nonce,
            framer: Framer::default(),
            plain_carry: Vec::new(),
            incoming: None,
            partial: VecDeque::new(),
        }
    }

    /// TCP is up: begins TLS, or binds at once.
    pub fn connected(&mut self, with: &mut Surroundings<'_>) -> Result<(), Failure> {
        self.stage = Stage::Binding;
        if self.channel.is_plain() {
            return self.bind(with);
        }
        self.channel.begin(with.pool, with.scratch)
    }

    /// Bytes arrived.
    pub fn receive(
        &mut self,
        bytes: &mut [u8],
        with: &mut Surroundings<'_>,
    ) -> Result<(), Failure> {
        if self.channel.is_plain() {
            return self.receive_plain(bytes, with);
        }
        let mut carry = self.channel.take_carry();
        let input = joined(&mut carry, bytes);
        let taken = self.receive_sealed(input, with)?;
        self.channel.keep(&input[taken..])
    }

    /// Appends one chunk of a message; `true` when it was the last.
    pub fn send_chunk(
        &mut self,
        sending: ChunkOf,
        with: &mut Surroundings<'_>,
    ) -> Result<bool, Failure> {
        with.scratch.clear();
        self.template.write_chunk(sending, with.contents, with.scratch);
        self.append_scratch(with)?;
        let last = sending.chunk + 1 == self.template.chunks();
        self.sending = (!last).then_some(ChunkOf { chunk: sending.chunk + 1, ..sending });
        Ok(last)
    }

    /// The same for a file.
    pub fn send_file_chunk(
        &mut self,
        sending: ChunkOf,
        with: &mut Surroundings<'_>,
    ) -> Result<bool, Failure> {
        let Some(file) = &mut self.file else { return Ok(true) };
        with.scratch.clear();
        file.template.write_chunk(sending, with.contents, with.scratch);
        let last = sending.chunk + 1 == file.template.chunks();
        file.sending = (!last).then_some(ChunkOf { chunk: sending.chunk + 1, ..sending });
        self.append_scratch(with)?;
        Ok(last)
    }

    fn receive_sealed(
        &mut self,
        input: &mut [u8],
        with: &mut Surroundings<'_>,
    ) -> Result<usize, Failure> {
        let mut at = 0;
        loop {
            match self.channel.open(input, &mut at, with.pool, with.scratch)? {
                Opened::NeedInput => return Ok(at),
                Opened::Secured => self.bind(with)?,
                Opened::Text(range) => self.receive_plain(&input[range], with)?,
            }
        }
    }

    fn receive_plain(&mut self, bytes: &[u8], with: &mut Surroundings<'_>) -> Result<(), Failure> {
        if self.plain_carry.is_empty() {
            let taken = self.frame(bytes, with)?;
            self.plain_carry.extend_from_slice(&bytes[taken..]);
        } else {
            let mut carry = std::mem::take(&mut self.plain_carry);
            carry.extend_from_slice(bytes);
            let taken = self.frame(&carry, with)?;
            carry.drain(..taken);
            if !carry.is_empty() {
                self.plain_carry = carry;
            }
        }
        if self.plain_carry.len() > CARRY_BYTES_MAX {
            return Err(Failure::Malformed("no end of a head".to_owned()));
        }
        Ok(())
    }

    fn frame(&mut self, input: &[u8], with: &mut Surroundings<'_>) -> Result<usize, Failure> {
        let mut at = 0;
        while at < input.len() {
            let next = self.framer.next(&input[at..]);
            let next = next.map_err(|error| Failure::Malformed(format!("{:?}", error.reason)))?;
            let Some(piece) = next else {
                break;
            };
            at += piece.consumed;
            self.piece(piece, with)?;
        }
        Ok(at)
    }

    /// Binds the connection, or lets it wait for the moment when everybody does.
    fn bind(&mut self, with: &mut Surroundings<'_>) -> Result<(), Failure> {
        if self.waits {
            self.stage = Stage::Silent;
            with.heard.push(Heard::Silent);
            return Ok(());
        }
        self.speak(with)
    }

    /// Sends the SEND that binds the connection.
    pub fn speak(&mut self, with: &mut Surroundings<'_>) -> Result<(), Failure> {
        self.stage = Stage::Binding;
        with.scratch.clear();
        if self.speaks_once && self.template.chunks() == 1 {
            let first = ChunkOf { sequence: BINDING_SEQUENCE, chunk: 0, intended_ns: 0 };
            self.template.write_chunk(first, with.contents, with.scratch);
        } else {
            self.template.write_binding(with.scratch);
        }
        self.append_scratch(with)
    }

    fn append_scratch(&mut self, with: &mut Surroundings<'_>) -> Result<(), Failure> {
        self.channel.append(with.scratch, with.pool)
    }
}
