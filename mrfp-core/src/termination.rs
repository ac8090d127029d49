//! One media stream of one party, and how a connection is bound to it.

use std::net::SocketAddr;

use mrfp_io::Key;
use mrfp_protocol::msrp::{Path, Uri};
use mrfp_protocol::tls::{Fingerprint, Psk};

use crate::mp::{
    Direction, ReserveAndConfigure, Security, Setup, TerminationId, TerminationStatistics,
};
use crate::room::Participant;

/// A Termination as its shard holds it.
pub(crate) struct Termination {
    pub(crate) id: TerminationId,
    /// Its Context's slot.
    pub(crate) context: Key,
    /// Its connection: bound, or on its way (as client).
    pub(crate) connection: Option<Key>,
    /// Its own listener, where it has one.
    pub(crate) listener: Option<Key>,
    pub(crate) stage: Stage,
    pub(crate) protection: Protection,
    pub(crate) direction: Direction,
    /// Nobody is to hear it.
    pub(crate) muted: bool,
    /// It was negotiated for a file.
    pub(crate) file_transfer: bool,
    /// In a chat room: who it is there.
    pub(crate) participant: Option<Box<Participant>>,
    /// Which of the room's acceptances is its own.
    pub(crate) acceptance: usize,
    pub(crate) session_id: Vec<u8>,
    /// Our own MSRP URI.
    pub(crate) local_uri: Vec<u8>,
    /// First URI of the peer's path: where responses go (RFC 4975 section 7.2).
    pub(crate) remote_first: Vec<u8>,
    /// To-Path and From-Path lines of every request to the peer, made once.
    pub(crate) request_paths: Vec<u8>,
    /// Messages whose epoch is older began before this member was there.
    pub(crate) joined_epoch: u64,
    /// Until when a connection must be bound.
    pub(crate) establishment_deadline_ns: u64,
    pub(crate) statistics: TerminationStatistics,
}

/// Life of a Termination, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// Reserved and configured, no connection bound.
    Reserved,
    /// Connected, secured where asked; a member of its Context.
    Bound,
    /// The bearer is gone and the controller has been told.
    Released,
    /// Subtracted; waits for its connection to end.
    Subtracted,
}

/// How the stream is protected. A key serves one connection and is forgotten once that is bound.
#[derive(Debug)]
pub(crate) enum Protection {
    Plain,
    TlsPsk { identity: Vec<u8>, psk: Option<Psk> },
    TlsCertificate { fingerprints: Vec<Fingerprint> },
}

/// The peer's path is not one we can send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadRemotePath;

impl Termination {
    /// A Termination in its first stage. `address` is where the peer reaches us.
    pub(crate) fn new(
        reserve: ReserveAndConfigure,
        context: Key,
        participant: Option<Box<Participant>>,
        address: SocketAddr,
        establishment_deadline_ns: u64,
    ) -> Result<Self, BadRemotePath> {
        let (scheme, protection) = match reserve.security {
            Security::Plain => ("msrp", Protection::Plain),
            Security::TlsPsk { identity, psk } => {
                ("msrps", Protection::TlsPsk { identity, psk: Some(psk) })
            }
            Security::TlsCertificate { fingerprints } => {
                ("msrps", Protection::TlsCertificate { fingerprints })
            }
        };
        let local_uri = format!("{scheme}://{address}/{};tcp", reserve.session_id).into_bytes();
        let mut termination = Self {
            id: reserve.termination,
            context,
            connection: None,
            listener: None,
            stage: Stage::Reserved,
            protection,
            direction: reserve.direction,
            muted: reserve.member.muted,
            file_transfer: reserve.file_transfer,
            participant,
            acceptance: 0,
            session_id: reserve.session_id.into_bytes(),
            local_uri,
            remote_first: Vec::new(),
            request_paths: Vec::new(),
            joined_epoch: 0,
            establishment_deadline_ns,
            statistics: TerminationStatistics::default(),
        };
        if let Some(path) = &reserve.remote_path {
            termination.set_remote_path(path.as_bytes())?;
        }
        Ok(termination)
    }

    /// Takes over the peer's `a=path`.
    pub(crate) fn set_remote_path(&mut self, path: &[u8]) -> Result<(), BadRemotePath> {
        for uri in path.split(|&byte| byte == b' ') {
            Uri::parse(uri).map_err(|_| BadRemotePath)?;
        }
        self.remote_first = Path(path).first().to_vec();
        self.request_paths =
            [b"To-Path: ", path, b"\r\nFrom-Path: ", self.local_uri.as_slice(), b"\r\n"].concat();
        Ok(())
    }

    /// Whether this member takes messages that began at `epoch`.
    pub(crate) fn receives(&self, epoch: u64) -> bool {
        self.may_receive() && self.stage == Stage::Bound && self.joined_epoch <= epoch
    }

    /// Whether this member may receive from the others.
    pub(crate) fn may_receive(&self) -> bool {
        match self.direction {
            Direction::SendRecv | Direction::RecvOnly => true,
            Direction::SendOnly | Direction::Inactive => false,
        }
    }

    /// Whether this member may send to the others.
    pub(crate) fn may_send(&self) -> bool {
        match self.direction {
            Direction::SendRecv | Direction::SendOnly => !self.muted,
            Direction::RecvOnly | Direction::Inactive => false,
        }
    }

    /// Whether the first URI of a To-Path names this session (RFC 4975 section 6.1; the session-id
    /// is compared with its case).
    pub(crate) fn is_addressed_by(&self, to_first: &[u8]) -> bool {
        to_first == self.local_uri
            || Uri::parse(to_first).is_ok_and(|uri| {
                uri.session_id == self.session_id
                    && Uri::parse(&self.local_uri).is_ok_and(|own| own.secure == uri.secure)
            })
    }

    /// Whether a connection may claim this Termination by its key.
    pub(crate) fn awaits_tls_client(&self) -> bool {
        self.stage == Stage::Reserved
            && self.connection.is_none()
            && matches!(self.protection, Protection::TlsPsk { psk: Some(_), .. })
    }

    pub(crate) fn psk(&self) -> Option<&Psk> {
        match &self.protection {
            Protection::Plain | Protection::TlsCertificate { .. } => None,
            Protection::TlsPsk { psk, .. } => psk.as_ref(),
        }
    }

    /// Drops (and thereby zeroises) the key.
    pub(crate) fn forget_psk(&mut self) {
        match &mut self.protection {
            Protection::Plain | Protection::TlsCertificate { .. } => {}
            Protection::TlsPsk { psk, .. } => *psk = None,
        }
    }
}

/// Whom the peer must connect to, or where we connect.
pub(crate) fn remote_address(setup: Setup) -> Option<SocketAddr> {
    match setup {
        Setup::Passive => None,
        Setup::Active { remote } => Some(remote),
    }
}
