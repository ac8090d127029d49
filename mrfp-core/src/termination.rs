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
    /// The connection of a TLS client that was faster than the answer to our offer.
    pub(crate) early: Option<Key>,
    /// A handshake under its key has failed: what is told if none succeeds in time.
    pub(crate) handshake_failed: bool,
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
    /// Sessions it has had.
    pub(crate) session_number: u32,
    paths: Paths,
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
            early: None,
            handshake_failed: false,
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
            session_number: 0,
            paths: Paths::default(),
            joined_epoch: 0,
            establishment_deadline_ns,
            statistics: TerminationStatistics::default(),
        };
        let session_id = reserve.session_id.as_bytes();
        termination.renew(session_id, reserve.security, path, establishment_deadline_ns);
        Ok(termination)
    }

    /// Begins a session: nothing is bound to it yet. Without `path` (one that has been checked)
    /// nothing can be.
    pub(crate) fn renew(
        &mut self,
        session_id: &[u8],
        security: Security,
        path: Option<&[u8]>,
        establishment_deadline_ns: u64,
    ) {
        let (scheme, protection) = match security {
            Security::Plain => ("msrp", Protection::Plain),
            Security::TlsPsk { identity, psk } => {
                ("msrps", Protection::TlsPsk { identity, psk: Some(psk) })
            }
            Security::TlsPskAwaited { identity } => {
                ("msrps", Protection::TlsPsk { identity, psk: None })
            }
            Security::TlsCertificate { fingerprints } => {
                ("msrps", Protection::TlsCertificate { fingerprints })
            }
        };
        let origin = format!("{scheme}://{}/", self.address);
        self.paths = Paths::new(path.unwrap_or_default(), origin.as_bytes(), session_id);
        self.session_number = self.session_number.wrapping_add(1);
        self.protection = protection;
        self.handshake_failed = false;
        self.stage = Stage::Reserved;
        self.establishment_deadline_ns = establishment_deadline_ns;
    }

    /// Whether the peer's path is known; until then nothing can be bound.
    pub(crate) fn knows_remote(&self) -> bool {
        !self.remote_first().is_empty()
    }

    /// Whether a connection is still to come.
    pub(crate) fn awaits_connection(&self) -> bool {
        self.stage == Stage::Reserved && self.connection.is_none() && self.knows_remote()
    }

    /// Takes over the peer's `a=path`, which has been checked.
    pub(crate) fn set_remote_path(&mut self, path: &[u8]) {
        self.paths = self.paths.with_remote(path);
    }

    pub(crate) fn session_id(&self) -> &[u8] {
        self.paths.session_id()
    }

    /// Our own MSRP URI.
    pub(crate) fn local_uri(&self) -> &[u8] {
        self.paths.local_uri()
    }

    /// First URI of the peer's path: where responses go (RFC 4975 section 7.2). Empty: not known yet.
    pub(crate) fn remote_first(&self) -> &[u8] {
        self.paths.remote_first()
    }

    /// To-Path and From-Path lines of every request to the peer, made once.
    pub(crate) fn request_paths(&self) -> &[u8] {
        &self.paths.lines
    }

    /// To-Path and From-Path lines of every response to the peer (RFC 4975 section 7.2), where they
    /// are those of a request: its path has one URI.
    pub(crate) fn response_paths(&self) -> Option<&[u8]> {
        let names_and_ends = b"To-Path: \r\nFrom-Path: \r\n".len();
        let length = names_and_ends + self.remote_first().len() + self.local_uri().len();
        Some(self.request_paths()).filter(|paths| paths.len() == length)
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
        to_first == self.local_uri()
            || Uri::parse(to_first).is_ok_and(|uri| {
                uri.session_id == self.session_id()
                    && Uri::parse(self.local_uri()).is_ok_and(|own| own.secure == uri.secure)
            })
    }

    /// Whether a connection may claim this Termination by its key.
    pub(crate) fn awaits_tls_client(&self) -> bool {
        self.awaits_connection()
            && matches!(self.protection, Protection::TlsPsk { psk: Some(_), .. })
    }

    /// Whether a TLS client must be made to wait: the answer to our offer is not here yet.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.stage == Stage::Reserved
            && !self.knows_remote()
            && matches!(self.protection, Protection::TlsPsk { .. })
    }

    /// Takes the key that was awaited; a session that is bound needs none.
    pub(crate) fn set_psk(&mut self, awaited: &Psk) {
        if self.stage == Stage::Reserved
            && let Protection::TlsPsk { psk, .. } = &mut self.protection
        {
            *psk = Some(awaited.clone());
        }
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

/// Both ends' names, as the two header lines of every request to the peer; everything else that is
/// called by a name of its own lies in them.
#[derive(Default)]
struct Paths {
    lines: Box<[u8]>,
    /// Of the peer's path, and of the first URI in it.
    remote_bytes: u32,
    remote_first_bytes: u32,
    session_id_bytes: u32,
}

impl Paths {
    fn new(remote: &[u8], origin: &[u8], session_id: &[u8]) -> Self {
        let lines = [TO_PATH, remote, FROM_PATH, origin, session_id, URI_END, b"\r\n"].concat();
        Self {
            lines: lines.into(),
            remote_bytes: remote.len() as u32,
            remote_first_bytes: Path(remote).first().len() as u32,
            session_id_bytes: session_id.len() as u32,
        }
    }

    /// The same with another path of the peer's.
    fn with_remote(&self, remote: &[u8]) -> Self {
        let session_id = self.session_id();
        let local = self.local_uri();
        let origin = &local[..local.len() - URI_END.len() - session_id.len()];
        Self::new(remote, origin, session_id)
    }

    fn remote_first(&self) -> &[u8] {
        &self.lines[TO_PATH.len()..][..self.remote_first_bytes as usize]
    }

    fn local_uri(&self) -> &[u8] {
        let start = TO_PATH.len() + self.remote_bytes as usize + FROM_PATH.len();
        &self.lines[start..self.lines.len() - 2]
    }

    fn session_id(&self) -> &[u8] {
        let local = self.local_uri();
        let end = local.len() - URI_END.len();
        &local[end - self.session_id_bytes as usize..end]
    }
}

const TO_PATH: &[u8] = b"To-Path: ";
const FROM_PATH: &[u8] = b"\r\nFrom-Path: ";
const URI_END: &[u8] = b";tcp";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Passage};
    use crate::context::Context;
    use crate::mp::Event;

    #[test]
    fn what_a_session_costs_is_known() {
        let sizes = [
            ("Connection", size_of::<Connection>(), 256),
            ("Termination", size_of::<Termination>(), 320),
            ("Context", size_of::<Context>(), 128),
            ("Passage", size_of::<Passage>(), 640),
            ("Event", size_of::<Event>(), 96),
        ];
        println!("{sizes:?}, transport {}", size_of::<crate::connection::Transport>());
        for (name, bytes, bytes_max) in sizes {
            assert!(bytes <= bytes_max, "{name}: {bytes}");
        }
    }
}
