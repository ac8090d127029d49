//! One media stream of one party, and how a connection is bound to it.

use std::net::SocketAddr;

use mrfp_io::Key;
use mrfp_protocol::msrp::{Path, Uri};
use mrfp_protocol::tls::{Fingerprint, Psk};

use crate::mp::{
    Direction, REALMS_MAX, RealmId, ReserveAndConfigure, Security, Setup, TerminationId,
    TerminationStatistics,
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
    /// Where the peer reaches us.
    pub(crate) address: SocketAddr,
    pub(crate) stage: Stage,
    pub(crate) protection: Protection,
    pub(crate) direction: Direction,
    /// Nobody is to hear it.
    pub(crate) muted: bool,
    /// It was negotiated for a file.
    pub(crate) file_transfer: bool,
    /// What its peer takes (`a=accept-types`).
    pub(crate) accept_types: Vec<u8>,
    /// How large a message may be that its peer takes (`a=max-size`).
    pub(crate) size_bytes_max: u64,
    /// Where its traffic counts.
    pub(crate) realm: RealmId,
    /// In a chat room: who it is there.
    pub(crate) participant: Option<Box<Participant>>,
    /// Which of the room's acceptances is its own.
    pub(crate) acceptance: usize,
    pub(crate) session_id: Vec<u8>,
    /// Sessions it has had.
    pub(crate) session_number: u32,
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
        let path = reserve.remote_path.as_ref().map(String::as_bytes);
        path.map_or(Ok(()), check_path)?;
        let mut termination = Self {
            id: reserve.termination,
            context,
            connection: None,
            listener: None,
            address,
            stage: Stage::Reserved,
            protection: Protection::Plain,
            direction: reserve.direction,
            muted: reserve.member.muted,
            file_transfer: reserve.file_transfer,
            accept_types: reserve.accept_types.into_bytes(),
            size_bytes_max: reserve.max_size_bytes.unwrap_or(u64::MAX),
            realm: match usize::from(reserve.realm.0) < REALMS_MAX {
                true => reserve.realm,
                false => RealmId::default(),
            },
            participant,
            acceptance: 0,
            session_id: Vec::new(),
            session_number: 0,
            local_uri: Vec::new(),
            remote_first: Vec::new(),
            request_paths: Vec::new(),
            joined_epoch: 0,
            establishment_deadline_ns,
            statistics: TerminationStatistics::default(),
        };
        let session_id = reserve.session_id.into_bytes();
        termination.renew(session_id, reserve.security, path, establishment_deadline_ns);
        Ok(termination)
    }

    /// Begins a session: nothing is bound to it yet. Without `path` (one that has been checked)
    /// nothing can be.
    pub(crate) fn renew(
        &mut self,
        session_id: Vec<u8>,
        security: Security,
        path: Option<&[u8]>,
        establishment_deadline_ns: u64,
    ) {
        let (scheme, protection) = match security {
            Security::Plain => ("msrp", Protection::Plain),
            Security::TlsPsk { identity, psk } => {
                ("msrps", Protection::TlsPsk { identity, psk: Some(psk) })
            }
            Security::TlsCertificate { fingerprints } => {
                ("msrps", Protection::TlsCertificate { fingerprints })
            }
        };
        let origin = format!("{scheme}://{}/", self.address).into_bytes();
        self.local_uri = [&origin, session_id.as_slice(), b";tcp"].concat();
        self.session_id = session_id;
        self.session_number = self.session_number.wrapping_add(1);
        self.protection = protection;
        self.stage = Stage::Reserved;
        self.establishment_deadline_ns = establishment_deadline_ns;
        self.remote_first.clear();
        self.request_paths.clear();
        if let Some(path) = path {
            self.set_remote_path(path);
        }
    }

    /// Whether the peer's path is known; until then nothing can be bound.
    pub(crate) fn knows_remote(&self) -> bool {
        !self.remote_first.is_empty()
    }

    /// Whether a connection is still to come.
    pub(crate) fn awaits_connection(&self) -> bool {
        self.stage == Stage::Reserved && self.connection.is_none() && self.knows_remote()
    }

    /// Takes over the peer's `a=path`, which has been checked.
    pub(crate) fn set_remote_path(&mut self, path: &[u8]) {
        self.remote_first = Path(path).first().to_vec();
        self.request_paths =
            [b"To-Path: ", path, b"\r\nFrom-Path: ", self.local_uri.as_slice(), b"\r\n"].concat();
    }

    /// To-Path and From-Path lines of every response to the peer (RFC 4975 section 7.2), where they
    /// are those of a request: its path has one URI.
    pub(crate) fn response_paths(&self) -> Option<&[u8]> {
        let names_and_ends = b"To-Path: \r\nFrom-Path: \r\n".len();
        let length = names_and_ends + self.remote_first.len() + self.local_uri.len();
        (self.request_paths.len() == length).then_some(&self.request_paths)
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
        self.awaits_connection()
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

/// Whether a path is one we can send to.
pub(crate) fn check_path(path: &[u8]) -> Result<(), BadRemotePath> {
    let mut uris = path.split(|&byte| byte == b' ');
    if uris.all(|uri| Uri::parse(uri).is_ok()) { Ok(()) } else { Err(BadRemotePath) }
}

/// Whom the peer must connect to, or where we connect.
pub(crate) fn remote_address(setup: Setup) -> Option<SocketAddr> {
    match setup {
        Setup::Passive => None,
        Setup::Active { remote } => Some(remote),
    }
}
