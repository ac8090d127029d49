//! What carries MSRP to the other side: TLS or nothing, and the output that waits.

use std::ops::Range;

use mrfp_io::{Driver, Errno, SendBuffers, Socket, Token};
use mrfp_protocol::tls::{self, Handshake, HandshakeError, Progress, Session};

use super::egress::{Egress, EgressError};
use crate::expectation::Violation;

/// One connection's protection and output.
pub struct Channel {
    security: Security,
    /// Output.
    pub egress: Egress,
    /// Sealed bytes of an incomplete record.
    carry: Vec<u8>,
}

enum Security {
    /// MSRP over TCP.
    Plain,
    /// TLS is being set up.
    Handshaking(Box<Handshake>),
    /// MSRP over TLS over TCP.
    Established(Box<Session>),
}

/// Why a connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// TLS could not be set up.
    Handshake(HandshakeError),
    /// A TLS record was refused.
    Record(tls::RecordError),
    /// The other side broke MSRP's grammar.
    Malformed(String),
    /// No room for output.
    Egress(EgressError),
    /// The other side ended TLS.
    CloseNotify,
}

/// What sealed bytes held.
#[derive(Debug)]
pub enum Opened {
    /// Nothing more that is whole.
    NeedInput,
    /// The end of the handshake.
    Secured,
    /// Plain text, in place of the sealed.
    Text(Range<usize>),
}

impl Channel {
    /// Over TCP, or over TLS that [`Channel::begin`] sets up.
    #[must_use]
    pub fn new(handshake: Option<Handshake>) -> Self {
        let handshake = handshake.map(Box::new);
        Self {
            security: handshake.map_or(Security::Plain, Security::Handshaking),
            egress: Egress::default(),
            carry: Vec::new(),
        }
    }

    /// There is no TLS, nor will there be.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.security, Security::Plain)
    }

    /// The suite of TLS, once it is set up.
    #[must_use]
    pub fn suite(&self) -> Option<&'static str> {
        match &self.security {
            Security::Established(session) => Some(session.suite()),
            Security::Plain | Security::Handshaking(_) => None,
        }
    }

    /// TCP is up: writes the ClientHello, where there is to be TLS.
    pub fn begin(&mut self, pool: &mut SendBuffers, scratch: &mut Vec<u8>) -> Result<(), Failure> {
        let Security::Handshaking(handshake) = &mut self.security else { return Ok(()) };
        scratch.clear();
        let outcome = handshake.advance(&[], scratch);
        self.append(scratch, pool)?;
        outcome.map(|_| ()).map_err(Failure::Handshake)
    }

    /// Gathers bytes for the next send.
    pub fn append(&mut self, bytes: &[u8], pool: &mut SendBuffers) -> Result<(), Failure> {
        let session = established(&mut self.security);
        self.egress.append(bytes, pool, session).map_err(Failure::Egress)
    }

    /// Gives the kernel what waits, sealed; nothing before it has given back what it has. Says how many
    /// buffers these are.
    pub fn send_waiting(
        &mut self,
        driver: &mut impl Driver,
        socket: Socket,
        token: Token,
    ) -> Result<usize, Failure> {
        let waiting = self.egress.take_waiting(established(&mut self.security));
        let waiting = waiting.map_err(Failure::Egress)?;
        Ok(waiting.map(|buffer| driver.send(socket, buffer, token)).count())
    }

    /// Takes the rest of the last receive, to be [`joined`] with this one.
    #[must_use]
    pub fn take_carry(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }

    /// Keeps the rest of this one.
    pub fn keep(&mut self, rest: &[u8]) -> Result<(), Failure> {
        if rest.len() > tls::RECORD_BYTES_MAX {
            return Err(Failure::Record(tls::RecordError::RecordOverflow));
        }
        self.carry.extend_from_slice(rest);
        Ok(())
    }

    /// Opens what is sealed, from `at` on, up to the next thing worth telling.
    pub fn open(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        pool: &mut SendBuffers,
        scratch: &mut Vec<u8>,
    ) -> Result<Opened, Failure> {
        while *at < input.len() {
            match &mut self.security {
                Security::Plain => unreachable!("there is nothing to open"),
                Security::Handshaking(handshake) => {
                    scratch.clear();
                    let outcome = handshake.advance(&input[*at..], scratch);
                    self.egress.append(scratch, pool, None).map_err(Failure::Egress)?;
                    let (taken, progress) = outcome.map_err(Failure::Handshake)?;
                    *at += taken;
                    match progress {
                        Progress::NeedInput => break,
                        // Only a server is asked for a key.
                        Progress::NeedPsk => return Err(Failure::Handshake(HandshakeError::Other)),
                        Progress::Done(session) => {
                            self.egress.seal(None).map_err(Failure::Egress)?;
                            self.security = Security::Established(Box::new(session));
                            return Ok(Opened::Secured);
                        }
                    }
                }
                Security::Established(session) => {
                    match session.open(&mut input[*at..]).map_err(Failure::Record)? {
                        tls::Opened::NeedInput => break,
                        tls::Opened::Data { plaintext, consumed } => {
                            let text = *at + plaintext.start..*at + plaintext.end;
                            *at += consumed;
                            return Ok(Opened::Text(text));
                        }
                        tls::Opened::Handled { consumed } => {
                            *at += consumed;
                            let output = session.pending_output();
                            if !output.is_empty() {
                                self.egress
                                    .seal(Some(session))
                                    .and_then(|()| self.egress.append(&output, pool, None))
                                    .and_then(|()| self.egress.seal(None))
                                    .map_err(Failure::Egress)?;
                            }
                        }
                        tls::Opened::CloseNotify { .. } => return Err(Failure::CloseNotify),
                    }
                }
            }
        }
        Ok(Opened::NeedInput)
    }

    /// Says goodbye to TLS, where there is TLS, or what was wrong with it.
    pub fn end(&mut self, failure: Option<&Failure>, pool: &mut SendBuffers) {
        let Security::Established(session) = &mut self.security else { return };
        // Records are numbered as they are sealed, so what waits is sealed before the alert.
        if self.egress.seal(Some(session)).is_err() {
            return;
        }
        let alert = match failure {
            Some(Failure::Record(error)) => session.fatal_alert(*error),
            _ => session.close_notify(),
        };
        // The connection ends; an alert for which there is no memory stays unsaid.
        let _ = self.egress.append(&alert, pool, None);
        let _ = self.egress.seal(None);
    }
}

impl Failure {
    /// What it is called in a report; `None`: the other side has closed.
    #[must_use]
    pub fn verdict(&self) -> Option<(Violation, String)> {
        Some(match self {
            Self::CloseNotify => return None,
            Self::Handshake(error) => (Violation::TlsHandshakeFailed, format!("{error:?}")),
            Self::Record(tls::RecordError::AlertReceived(alert)) => {
                (Violation::UnexpectedClose, format!("TLS alert {alert}"))
            }
            Self::Record(error) => (Violation::Malformed, format!("TLS record: {error:?}")),
            Self::Malformed(reason) => (Violation::Malformed, format!("MSRP: {reason}")),
            Self::Egress(error) => (Violation::GeneratorExhausted, format!("{error:?}")),
        })
    }
}

/// What was kept and what has come.
pub fn joined<'a>(carry: &'a mut Vec<u8>, bytes: &'a mut [u8]) -> &'a mut [u8] {
    if carry.is_empty() {
        return bytes;
    }
    carry.extend_from_slice(bytes);
    carry
}

/// The kernel's words.
#[must_use]
pub fn describe(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.0).to_string()
}

fn established(security: &mut Security) -> Option<&mut Session> {
    match security {
        Security::Established(session) => Some(session),
        Security::Plain | Security::Handshaking(_) => None,
    }
}
