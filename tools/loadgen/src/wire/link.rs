//! One connection to the target: TLS, and what waits to be sent.

use std::ops::Range;

use mrfp_io::{SendBuffers, Socket};
use mrfp_protocol::tls::{self, Handshake, HandshakeError, Opened, Progress, Session};

use super::auth::Registration;
use super::end::End;
use crate::media::connection::{Failure, Security};
use crate::media::egress::Egress;

/// One connection.
pub(super) struct Link {
    pub(super) stage: Stage,
    /// Tells the tenants of a slot apart.
    pub(super) generation: u32,
    pub(super) socket: Option<Socket>,
    /// Whose key it uses.
    pub(super) identity: u32,
    pub(super) recv_armed: bool,
    pub(super) security: Security,
    pub(super) egress: Egress,
    /// Sealed bytes of an incomplete record.
    sealed_carry: Vec<u8>,
    /// Plain bytes of an incomplete message.
    pub(super) plain_carry: Vec<u8>,
    /// When what it is at must be done.
    pub(super) deadline_ns: u64,
    /// When it was begun, or spoke first.
    pub(super) begun_ns: u64,
    /// The peer may close: it was told goodbye.
    pub(super) released: bool,
    pub(super) registration: Option<Box<Registration>>,
    pub(super) end: Option<Box<End>>,
    /// Open loop: when the next message is due.
    pub(super) due_ns: u64,
}

/// Life of a link, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// Not begun.
    Waiting,
    /// TCP is being set up.
    Connecting,
    /// TLS is being set up.
    Securing,
    /// Up, but nothing was said: everybody will at once.
    Silent,
    /// AUTH is under way.
    Authorising,
    /// It can be used.
    Ready,
    /// It ends; what is with the kernel is awaited.
    Closing,
    /// The descriptor is being freed, or is.
    Closed,
}

/// What the sealed bytes held.
#[derive(Default)]
pub(super) struct Unsealed {
    /// Bytes of whole records.
    pub(super) taken: usize,
    /// The handshake is complete.
    pub(super) secured: bool,
    /// What the peer's last word was.
    pub(super) failure: Option<Failure>,
}

/// Bytes of an incomplete record or message that are kept.
pub(super) const CARRY_BYTES_MAX: usize = 256 * 1024;

impl Link {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Waiting,
            generation: 0,
            socket: None,
            identity: 0,
            recv_armed: false,
            security: Security::Plain,
            egress: Egress::default(),
            sealed_carry: Vec::new(),
            plain_carry: Vec::new(),
            deadline_ns: u64::MAX,
            begun_ns: 0,
            released: false,
            registration: None,
            end: None,
            due_ns: 0,
        }
    }

    /// Ready for its next tenant.
    pub(super) fn renew(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::new() };
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.security, Security::Plain)
    }

    /// Writes the ClientHello.
    pub(super) fn secure(
        &mut self,
        mut handshake: Handshake,
        pool: &mut SendBuffers,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        scratch.clear();
        handshake.advance(&[], scratch).map_err(Failure::Handshake)?;
        self.security = Security::Handshaking(Box::new(handshake));
        self.say(scratch, pool)
    }

    /// Gathers bytes for the next send.
    pub(super) fn say(&mut self, bytes: &[u8], pool: &mut SendBuffers) -> Result<(), Failure> {
        let session = match &mut self.security {
            Security::Established(session) => Some(&mut **session),
            Security::Plain | Security::Handshaking(_) => None,
        };
        self.egress.append(bytes, pool, session).map_err(Failure::Egress)
    }

    /// Both halves, to seal and send.
    pub(super) fn session_and_egress(&mut self) -> (Option<&mut Session>, &mut Egress) {
        let session = match &mut self.security {
            Security::Established(session) => Some(&mut **session),
            Security::Plain | Security::Handshaking(_) => None,
        };
        (session, &mut self.egress)
    }

    /// Says goodbye to TLS, where there is TLS.
    pub(super) fn say_goodbye(&mut self, pool: &mut SendBuffers) {
        let Security::Established(session) = &mut self.security else { return };
        if self.egress.seal(Some(session)).is_ok() {
            let alert = session.close_notify();
            // It ends; an alert for which there is no memory stays unsaid.
            let _ = self.egress.append(&alert, pool, None);
            let _ = self.egress.seal(None);
        }
    }

    /// Takes the rest of the last receive, to be put in front of this one.
    pub(super) fn take_sealed_carry(&mut self) -> Option<Vec<u8>> {
        (!self.sealed_carry.is_empty()).then(|| std::mem::take(&mut self.sealed_carry))
    }

    /// Keeps the rest of this one.
    pub(super) fn keep_sealed(&mut self, rest: &[u8]) -> Result<(), Failure> {
        if rest.len() > tls::RECORD_BYTES_MAX {
            return Err(Failure::Record(tls::RecordError::RecordOverflow));
        }
        self.sealed_carry.extend_from_slice(rest);
        Ok(())
    }

    /// Opens what is sealed, in place; `plain` are the stretches of the input that are plain text
    /// now. A handshake that completes ends the step: what follows must be opened in another one.
    pub(super) fn unseal(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<Range<usize>>,
        pool: &mut SendBuffers,
        scratch: &mut Vec<u8>,
    ) -> Unsealed {
        let mut unsealed = Unsealed::default();
        if let Err(failure) = self.unseal_into(&mut unsealed, input, plain, pool, scratch) {
            unsealed.failure = Some(failure);
        }
        unsealed
    }

    fn unseal_into(
        &mut self,
        unsealed: &mut Unsealed,
        input: &mut [u8],
        plain: &mut Vec<Range<usize>>,
        pool: &mut SendBuffers,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        while unsealed.taken < input.len() {
            let at = unsealed.taken;
            match &mut self.security {
                Security::Plain => unreachable!("there is nothing to open"),
                Security::Handshaking(handshake) => {
                    scratch.clear();
                    let outcome = handshake.advance(&input[at..], scratch);
                    self.egress.append(scratch, pool, None).map_err(Failure::Egress)?;
                    let (taken, progress) = outcome.map_err(Failure::Handshake)?;
                    unsealed.taken += taken;
                    match progress {
                        Progress::NeedInput => return Ok(()),
                        // Only a server is asked for a key.
                        Progress::NeedPsk => {
                            return Err(Failure::Handshake(HandshakeError::Other));
                        }
                        Progress::Done(session) => {
                            self.egress.seal(None).map_err(Failure::Egress)?;
                            self.security = Security::Established(Box::new(session));
                            unsealed.secured = true;
                            return Ok(());
                        }
                    }
                }
                Security::Established(session) => {
                    match session.open(&mut input[at..]).map_err(Failure::Record)? {
                        Opened::NeedInput => return Ok(()),
                        Opened::Data { plaintext, consumed } => {
                            plain.push(at + plaintext.start..at + plaintext.end);
                            unsealed.taken += consumed;
                        }
                        Opened::Handled { consumed } => {
                            unsealed.taken += consumed;
                            let output = session.pending_output();
                            if !output.is_empty() {
                                self.egress.seal(Some(session)).map_err(Failure::Egress)?;
                                self.egress
                                    .append(&output, pool, None)
                                    .and_then(|()| self.egress.seal(None))
                                    .map_err(Failure::Egress)?;
                            }
                        }
                        Opened::CloseNotify { consumed } => {
                            unsealed.taken += consumed;
                            return Err(Failure::CloseNotify);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
