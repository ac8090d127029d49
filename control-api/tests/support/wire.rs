//! A UE's media connection: TCP, in the clear or with TLS-PSK.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use mrfp_protocol::tls::{
    Handshake, Opened, PLAINTEXT_BYTES_MAX, Profile, ProfileConfig, Progress, Psk,
    SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, Session,
};

use super::program::PATIENCE;

/// What a UE knows of its TLS session to come.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) identity: String,
    pub(crate) psk: Psk,
}

impl Credential {
    pub(crate) fn hex(&self) -> String {
        self.psk.expose().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The connection.
pub(crate) struct Wire {
    stream: TcpStream,
    session: Option<Session>,
    /// Received and not opened yet; only used with TLS.
    sealed: Vec<u8>,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects, and makes it secure where there is a key.
    pub(crate) fn connect(
        address: SocketAddr,
        credential: Option<&Credential>,
    ) -> io::Result<Self> {
        let handshake = credential.map(|credential| {
            let suites = ALL_SUITES.map(str::to_owned).to_vec();
            let profile =
                Profile::new(&ProfileConfig { suites, tls13: false }).expect("the suites exist");
            let identity = credential.identity.as_bytes();
            Handshake::client(&profile, identity, &credential.psk).expect("a short identity")
        });
        Self::connect_with(address, handshake)
    }

    /// The same with any handshake.
    pub(crate) fn connect_with(
        address: SocketAddr,
        handshake: Option<Handshake>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        Self::accept(stream, handshake)
    }

    /// The other end of somebody's connection.
    pub(crate) fn accept(stream: TcpStream, handshake: Option<Handshake>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = Self { stream, session: None, sealed: Vec::new(), buffer: Vec::new() };
        if let Some(handshake) = handshake {
            wire.secure(handshake)?;
        }
        Ok(wire)
    }

    fn secure(&mut self, mut handshake: Handshake) -> io::Result<()> {
        loop {
            let mut output = Vec::new();
            let result = handshake.advance(&self.sealed, &mut output);
            self.stream.write_all(&output)?;
            let (consumed, progress) = result.map_err(io::Error::other)?;
            self.sealed.drain(..consumed);
            if let Progress::Done(session) = progress {
                self.session = Some(session);
                return Ok(());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.sealed.extend_from_slice(&buffer[..length]),
            }
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else { return self.stream.write_all(bytes) };
        for part in bytes.chunks(PLAINTEXT_BYTES_MAX) {
            let memory = &mut self.buffer;
            memory.clear();
            memory.resize(SEAL_HEADROOM_BYTES, 0);
            memory.extend_from_slice(part);
            memory.resize(memory.len() + SEAL_TAILROOM_BYTES, 0);
            let plaintext = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + part.len();
            let record = session.seal(memory, plaintext).expect("the session lives");
            self.stream.write_all(&memory[record])?;
        }
        Ok(())
    }

    /// Sends bytes past the TLS session.
    pub(crate) fn write_around(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Appends what arrives next; 0 at the end of the stream.
    pub(crate) fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(length) = self.open(into)? {
                return Ok(length);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(0),
                length if self.session.is_none() => {
                    into.extend_from_slice(&buffer[..length]);
                    return Ok(length);
                }
                length => self.sealed.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Opens every whole record; `None` where more bytes are needed.
    fn open(&mut self, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let Some(session) = &mut self.session else { return Ok(None) };
        let (mut at, mut length) = (0, 0);
        let end = loop {
            let input = &mut self.sealed[at..];
            let opened = session.open(input);
            match opened.map_err(|error| io::Error::other(format!("{error:?}")))? {
                Opened::NeedInput => break None,
                Opened::CloseNotify { .. } => break Some(0),
                Opened::Handled { consumed } => at += consumed,
                Opened::Data { plaintext, consumed } => {
                    length += plaintext.len();
                    into.extend_from_slice(&input[plaintext]);
                    at += consumed;
                }
            }
        };
        self.sealed.drain(..at);
        Ok(if length > 0 { Some(length) } else { end })
    }

    /// The suite in use.
    pub(crate) fn suite(&self) -> &'static str {
        self.session.as_ref().map_or("none", Session::suite)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }

    /// Ends with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("a TCP socket");
    }
}

const ALL_SUITES: [&str; 4] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];
