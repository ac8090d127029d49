//! One media stream of one party, and how a connection is bound to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::LazyLock;

use mrfp_io::Key;
use mrfp_protocol::msrp::{Path, Uri};
use mrfp_protocol::tls::{Fingerprint, Psk};
use zeroize::Zeroize;

use crate::floor;
use crate::mp::{
    Direction, REALMS_MAX, RealmId, ReserveAndConfigure, ReserveFloorControl, Security, Setup,
    TerminationId, TerminationStatistics, TlsRole,
};
use crate::room::Participant;

/// A Termination as its shard holds it.
pub(crate) struct Termination {
    pub(crate) id: TerminationId,
    /// Its Context's slot.
    pub(crate) context: Key,
    /// Its connection: bound, or on its way (as client).
    pub(crate) connection: Option<Key>,
    /// Where the peer reaches us, if that is not the shard's port.
    pub(crate) own_port: Option<Box<OwnPort>>,
    /// The connection of a TLS client that was faster than the answer to our offer. Where we are TCP
    /// server and TLS client: the one connection we have taken, until it is bound.
    pub(crate) early: Option<Key>,
    /// A handshake under its key has failed: what is told if none succeeds in time.
    pub(crate) handshake_failed: bool,
    pub(crate) stage: Stage,
    pub(crate) protection: Protection,
    pub(crate) direction: Direction,
    /// Nobody is to hear it.
    pub(crate) muted: bool,
    /// Its Context is moderated, and its user does not hold the floor that is for the messages.
    pub(crate) lacks_floor: bool,
    /// It was negotiated for a file.
    pub(crate) file_transfer: bool,
    /// How large a message may be that its peer takes (`a=max-size`).
    pub(crate) size_bytes_max: u64,
    /// Where its traffic counts.
    pub(crate) realm: RealmId,
    /// In a chat room: who it is there.
    pub(crate) participant: Option<Box<Participant>>,
    /// Which of the room's acceptances is its own.
    pub(crate) acceptance: u32,
    /// Sessions it has had.
    pub(crate) session_number: u32,
    stream: Stream,
    /// Messages whose epoch is older began before this member was there.
    pub(crate) joined_epoch: u64,
    /// Until when a connection must be bound.
    pub(crate) establishment_deadline_ns: u64,
    pub(crate) statistics: TerminationStatistics,
}

/// What is carried, and what only Terminations of that kind have.
enum Stream {
    /// MSRP: the names of both ends.
    Messages(Names),
    /// BFCP.
    FloorControl(Box<FloorSeat>),
}

/// The user of the floors that a Termination for BFCP is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloorSeat {
    /// Who it is to the floor control server.
    pub(crate) participant: floor::Participant,
    /// Which side of TLS we are, where there is TLS.
    pub(crate) tls_role: TlsRole,
    /// An offer of ours is unanswered.
    pub(crate) unanswered: bool,
}

/// A port that is one Termination's alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnPort {
    pub(crate) listener: Key,
    pub(crate) address: SocketAddr,
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

/// How the stream is protected.
#[derive(Debug)]
pub(crate) enum Protection {
    Plain,
    /// A key serves one connection and is forgotten, identity and all, once that is bound.
    TlsPsk(Option<Credentials>),
    TlsCertificate {
        fingerprints: Box<[Fingerprint]>,
    },
}

/// What a peer has to say and to know to be bound: the length of the key (0: it is not here yet), the
/// identity, the key. In one allocation of the shard's own and of just their length, as tens of
/// thousands may wait; zeroised on drop.
pub(crate) struct Credentials {
    memory: Box<[u8]>,
}

impl Credentials {
    /// Copies both; what they came in goes back to the thread that has made it.
    pub(crate) fn new(identity: &[u8], psk: Option<&Psk>) -> Self {
        let key = psk.map_or(&[][..], Psk::expose);
        let key_bytes = u8::try_from(key.len()).expect("a key has 64 bytes at most");
        Self { memory: [&[key_bytes], identity, key].concat().into() }
    }

    fn key_at(&self) -> usize {
        self.memory.len() - usize::from(self.memory[0])
    }

    pub(crate) fn identity(&self) -> &[u8] {
        &self.memory[1..self.key_at()]
    }

    pub(crate) fn has_key(&self) -> bool {
        self.memory[0] > 0
    }

    /// A copy, for the moment it takes to use it.
    pub(crate) fn psk(&self) -> Option<Psk> {
        let key = self.memory[self.key_at()..].to_vec();
        self.has_key().then(|| Psk::new(key).expect("as long as it was"))
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.memory.zeroize();
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
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
            own_port: None,
            early: None,
            handshake_failed: false,
            stage: Stage::Reserved,
            protection: Protection::Plain,
            direction: reserve.direction,
            muted: reserve.member.muted,
            lacks_floor: false,
            file_transfer: reserve.file_transfer,
            size_bytes_max: reserve.max_size_bytes.unwrap_or(u64::MAX),
            realm: known_realm(reserve.realm),
            participant,
            acceptance: 0,
            session_number: 0,
            stream: Stream::Messages(Names::of_nobody(reserve.accept_types.as_bytes())),
            joined_epoch: 0,
            establishment_deadline_ns,
            statistics: TerminationStatistics::default(),
        };
        let session_id = reserve.session_id.as_bytes();
        let security = reserve.security;
        termination.renew(session_id, security, path, address, establishment_deadline_ns);
        Ok(termination)
    }

    /// A Termination for BFCP in its first stage.
    pub(crate) fn floor_control(
        reserve: &ReserveFloorControl,
        security: Security,
        context: Key,
        participant: floor::Participant,
        establishment_deadline_ns: u64,
    ) -> Self {
        let seat = FloorSeat {
            participant,
            tls_role: reserve.stream.tls_role,
            unanswered: reserve.unanswered,
        };
        Self {
            id: reserve.termination,
            context,
            connection: None,
            own_port: None,
            early: None,
            handshake_failed: false,
            stage: Stage::Reserved,
            protection: Protection::new(security),
            direction: Direction::SendRecv,
            muted: false,
            lacks_floor: false,
            file_transfer: false,
            size_bytes_max: u64::MAX,
            realm: known_realm(reserve.realm),
            participant: None,
            acceptance: 0,
            session_number: 1,
            stream: Stream::FloorControl(Box::new(seat)),
            joined_epoch: 0,
            establishment_deadline_ns,
            statistics: TerminationStatistics::default(),
        }
    }

    /// Begins a session: nothing is bound to it yet. Without `path` (one that has been checked)
    /// nothing can be.
    pub(crate) fn renew(
        &mut self,
        session_id: &[u8],
        security: Security,
        path: Option<&[u8]>,
        address: SocketAddr,
        establishment_deadline_ns: u64,
    ) {
        let protection = Protection::new(security);
        let scheme = if protection.is_tls() { "msrps" } else { "msrp" };
        let origin = format!("{scheme}://{address}/");
        let remote = path.unwrap_or_default();
        let accept_types = self.names().accept_types();
        let names = Names::new(remote, origin.as_bytes(), session_id, accept_types);
        self.stream = Stream::Messages(names);
        self.begin(protection, establishment_deadline_ns);
    }

    /// The same for BFCP: the user stays who it is.
    pub(crate) fn renew_floor_control(
        &mut self,
        tls_role: TlsRole,
        security: Security,
        unanswered: bool,
        establishment_deadline_ns: u64,
    ) {
        let Stream::FloorControl(seat) = &mut self.stream else { return };
        seat.tls_role = tls_role;
        seat.unanswered = unanswered;
        self.begin(Protection::new(security), establishment_deadline_ns);
    }

    fn begin(&mut self, protection: Protection, establishment_deadline_ns: u64) {
        self.session_number = self.session_number.wrapping_add(1);
        self.protection = protection;
        self.handshake_failed = false;
        self.stage = Stage::Reserved;
        self.establishment_deadline_ns = establishment_deadline_ns;
    }

    /// Where it is for BFCP: its user.
    pub(crate) fn floor_seat(&self) -> Option<&FloorSeat> {
        match &self.stream {
            Stream::Messages(_) => None,
            Stream::FloorControl(seat) => Some(seat),
        }
    }

    pub(crate) fn floor_seat_mut(&mut self) -> Option<&mut FloorSeat> {
        match &mut self.stream {
            Stream::Messages(_) => None,
            Stream::FloorControl(seat) => Some(seat),
        }
    }

    pub(crate) fn is_for_floors(&self) -> bool {
        self.floor_seat().is_some()
    }

    /// Which side of TLS we are on a connection: for MSRP the TCP client is the TLS client, for BFCP
    /// the offerer is (RFC 8856 section 8). `None` in the clear.
    pub(crate) fn tls_role(&self, tcp_client: bool) -> Option<TlsRole> {
        let role = match (self.floor_seat(), tcp_client) {
            (Some(seat), _) => seat.tls_role,
            (None, true) => TlsRole::Client,
            (None, false) => TlsRole::Server,
        };
        self.protection.is_tls().then_some(role)
    }

    /// What a user for BFCP is called is known to the floor control server, not here.
    #[inline(always)]
    fn names(&self) -> &Names {
        match &self.stream {
            Stream::Messages(names) => names,
            Stream::FloorControl(_) => nameless(),
        }
    }

    /// Whether the peer's path is known, for BFCP its answer; until then nothing can be bound.
    pub(crate) fn knows_remote(&self) -> bool {
        match &self.stream {
            Stream::Messages(names) => !names.remote_first().is_empty(),
            Stream::FloorControl(seat) => !seat.unanswered,
        }
    }

    /// Whether a connection is still to come.
    pub(crate) fn awaits_connection(&self) -> bool {
        self.stage == Stage::Reserved && self.connection.is_none() && self.knows_remote()
    }

    /// Takes over the peer's `a=path`, which has been checked.
    pub(crate) fn set_remote_path(&mut self, path: &[u8]) {
        if let Stream::Messages(names) = &mut self.stream {
            *names = names.with_remote(path);
        }
    }

    /// What its peer takes (`a=accept-types`).
    pub(crate) fn accept_types(&self) -> &[u8] {
        self.names().accept_types()
    }

    pub(crate) fn set_accept_types(&mut self, accept_types: &[u8]) {
        if accept_types != self.accept_types()
            && let Stream::Messages(names) = &mut self.stream
        {
            *names = names.with_accept_types(accept_types);
        }
    }

    pub(crate) fn session_id(&self) -> &[u8] {
        self.names().session_id()
    }

    /// Our own MSRP URI.
    pub(crate) fn local_uri(&self) -> &[u8] {
        self.names().local_uri()
    }

    /// First URI of the peer's path: where responses go (RFC 4975 section 7.2). Empty: not known yet.
    pub(crate) fn remote_first(&self) -> &[u8] {
        self.names().remote_first()
    }

    /// To-Path and From-Path lines of every request to the peer, made once.
    pub(crate) fn request_paths(&self) -> &[u8] {
        self.names().lines()
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
            Direction::SendRecv | Direction::SendOnly => !self.muted && !self.lacks_floor,
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
        self.awaits_connection() && self.credentials().is_some_and(Credentials::has_key)
    }

    /// Its key, once it is here.
    pub(crate) fn psk(&self) -> Option<Psk> {
        self.credentials().and_then(Credentials::psk)
    }

    /// The name its key goes by, while it has one.
    pub(crate) fn identity(&self) -> &[u8] {
        self.credentials().map_or(&[], Credentials::identity)
    }

    /// Whether a TLS client must be made to wait: the answer to our offer is not here yet.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.stage == Stage::Reserved && !self.knows_remote() && self.credentials().is_some()
    }

    /// Takes the key that was awaited; a session that is bound needs none.
    pub(crate) fn set_psk(&mut self, psk: &Psk) {
        if self.stage == Stage::Reserved
            && let Protection::TlsPsk(Some(credentials)) = &mut self.protection
        {
            *credentials = Credentials::new(credentials.identity(), Some(psk));
        }
    }

    fn credentials(&self) -> Option<&Credentials> {
        match &self.protection {
            Protection::Plain | Protection::TlsCertificate { .. } => None,
            Protection::TlsPsk(credentials) => credentials.as_ref(),
        }
    }

    /// Drops (and thereby zeroises) the key.
    pub(crate) fn forget_credentials(&mut self) {
        match &mut self.protection {
            Protection::Plain | Protection::TlsCertificate { .. } => {}
            Protection::TlsPsk(credentials) => *credentials = None,
        }
    }
}

impl Protection {
    fn new(security: Security) -> Self {
        match security {
            Security::Plain => Self::Plain,
            Security::TlsPsk { identity, psk } => {
                Self::TlsPsk(Some(Credentials::new(&identity, Some(&psk))))
            }
            Security::TlsPskAwaited { identity } => {
                Self::TlsPsk(Some(Credentials::new(&identity, None)))
            }
            Security::TlsCertificate { fingerprints } => {
                Self::TlsCertificate { fingerprints: fingerprints.into() }
            }
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        match self {
            Self::TlsPsk(_) | Self::TlsCertificate { .. } => true,
            Self::Plain => false,
        }
    }
}

/// A realm that is none counts as the first.
pub(crate) fn known_realm(realm: RealmId) -> RealmId {
    if usize::from(realm.0) < REALMS_MAX { realm } else { RealmId::default() }
}

/// What a Termination without names is called. Not where every message looks for the names of its own.
#[cold]
fn nameless() -> &'static Names {
    static NAMELESS: LazyLock<Names> = LazyLock::new(|| Names::of_nobody(b""));
    &NAMELESS
}

/// Both ends' names, as the two header lines of every request to the peer; everything else that is
/// called by a name of its own lies in them. Behind the lines: what the peer takes.
struct Names {
    memory: Box<[u8]>,
    lines_bytes: u32,
    /// Of the peer's path, and of the first URI in it.
    remote_bytes: u32,
    remote_first_bytes: u32,
    session_id_bytes: u32,
}

impl Names {
    /// Without any but what the peer takes.
    fn of_nobody(accept_types: &[u8]) -> Self {
        Self::new(b"", b"", b"", accept_types)
    }

    fn new(remote: &[u8], origin: &[u8], session_id: &[u8], accept_types: &[u8]) -> Self {
        let lines = [TO_PATH, remote, FROM_PATH, origin, session_id, URI_END, LINE_END];
        Self {
            lines_bytes: lines.iter().map(|part| part.len() as u32).sum(),
            memory: [&lines.concat(), accept_types].concat().into(),
            remote_bytes: remote.len() as u32,
            remote_first_bytes: Path(remote).first().len() as u32,
            session_id_bytes: session_id.len() as u32,
        }
    }

    /// The same with another path of the peer's.
    fn with_remote(&self, remote: &[u8]) -> Self {
        Self::new(remote, self.origin(), self.session_id(), self.accept_types())
    }

    /// The same for a peer that takes something else.
    fn with_accept_types(&self, accept_types: &[u8]) -> Self {
        Self::new(self.remote(), self.origin(), self.session_id(), accept_types)
    }

    fn lines(&self) -> &[u8] {
        &self.memory[..self.lines_bytes as usize]
    }

    fn accept_types(&self) -> &[u8] {
        &self.memory[self.lines_bytes as usize..]
    }

    fn remote(&self) -> &[u8] {
        &self.memory[TO_PATH.len()..][..self.remote_bytes as usize]
    }

    fn remote_first(&self) -> &[u8] {
        &self.memory[TO_PATH.len()..][..self.remote_first_bytes as usize]
    }

    fn local_uri(&self) -> &[u8] {
        let start = TO_PATH.len() + self.remote_bytes as usize + FROM_PATH.len();
        &self.memory[start..self.lines_bytes as usize - LINE_END.len()]
    }

    fn session_id(&self) -> &[u8] {
        let local = self.local_uri();
        let end = local.len() - URI_END.len();
        &local[end - self.session_id_bytes as usize..end]
    }

    /// What our URI has before the session-id.
    fn origin(&self) -> &[u8] {
        let local = self.local_uri();
        &local[..local.len() - URI_END.len() - self.session_id_bytes as usize]
    }
}

const TO_PATH: &[u8] = b"To-Path: ";
const FROM_PATH: &[u8] = b"\r\nFrom-Path: ";
const URI_END: &[u8] = b";tcp";
const LINE_END: &[u8] = b"\r\n";

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
            ("Connection", size_of::<Connection>(), 120),
            ("Termination", size_of::<Termination>(), 192),
            ("Context", size_of::<Context>(), 96),
            ("Passage", size_of::<Passage>(), 472),
            ("Event", size_of::<Event>(), 96),
        ];
        println!("{sizes:?}, transport {}", size_of::<crate::connection::Transport>());
        for (name, bytes, bytes_max) in sizes {
            assert!(bytes <= bytes_max, "{name}: {bytes}");
        }
    }
}
