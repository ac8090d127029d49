//! Connection points for datagrams, in the clear or with DTLS that ends here (TS 23.334 clause 5.11.2.3). What
//! arrives at one leaves at the other, one for one and in the order it came; what cannot leave is lost, as
//! on any other hop. The peer is where it says, or where it turns out to be ("latching"): in the clear
//! where the first datagram comes from, with DTLS where the first handshake succeeds.

use std::net::{IpAddr, SocketAddr};

use mrfp_io::Key;
use mrfp_protocol::tls::HandshakeError;
use mrfp_protocol::tls::dtls::{
    self, Cookies, Greeting, Handshake, Profile, Progress, ProvenHello, Record, Session,
};

use super::point::Stage;
use crate::config::EGRESS_QUIET_NS;
use crate::mp::{Bearer, Event, ReleaseCause, RemoteConnectionPoint, Source, TlsRole};
use crate::plane::{Plane, network_of};

/// Datagrams that may wait to leave when another comes: one leaves in a turn, and a fax sends one every
/// 30 ms. More would only arrive too late.
const DATAGRAMS_WAITING_MAX: usize = 64;
/// Sources that may be in the middle of a handshake with one connection point; each has shown to be where it
/// says. One of them is the peer.
const CANDIDATES_MAX: usize = 4;
/// The longest datagram that is held for a peer's side that is not known yet: a ClientHello.
const EARLY_BYTES_MAX: usize = 1500;

/// What the DTLS of all connection points of a shard has in common.
pub(super) struct Dtls {
    profile: Profile,
    cookies: Cookies,
}

/// Who a connection point exchanges datagrams with.
#[derive(Default)]
pub(super) struct Association {
    /// Where the peer is, as far as is known.
    peer: Option<SocketAddr>,
    /// Whether it is nowhere else.
    is_latched: bool,
    /// The keys agreed on with it, where DTLS ends here.
    session: Option<Box<Session>>,
    /// Who is in the middle of a handshake.
    candidates: Vec<Candidate>,
    /// The last ClientHello from before the peer's side was known: it may be faster than the answer
    /// (TS 23.334 clause 6.2.10.4.3, NOTE 3).
    early: Option<(SocketAddr, Vec<u8>)>,
    /// Why the last handshake failed, where it may have been a stranger's.
    failure: Option<ReleaseCause>,
    /// From when on nobody else is waited for: it was the peer's, as far as its host tells.
    given_up_ns: Option<u64>,
}

struct Candidate {
    source: SocketAddr,
    handshake: Handshake,
    deadline_ns: u64,
}

impl Dtls {
    pub(super) fn new(profile: Profile) -> Self {
        Self { profile, cookies: Cookies::new() }
    }
}

impl Association {
    /// The peer is where it says, if it says; whether it may turn out to be elsewhere depends.
    fn in_the_clear(remote: &RemoteConnectionPoint) -> Self {
        let is_latched = remote.source == Source::Address;
        Self { peer: remote.address, is_latched, ..Self::default() }
    }

    /// Whether there is a place for one more candidate. A host that has several, as it has many ports, loses
    /// one to a host that has none, so that no stranger alone can take them all.
    fn makes_room(&mut self, host: IpAddr) -> bool {
        let candidates = &mut self.candidates;
        if candidates.len() < CANDIDATES_MAX {
            return true;
        }
        let places = |host| {
            let of_host = |it: &&Candidate| network_of(it.source.ip()) == network_of(host);
            candidates.iter().filter(of_host).count()
        };
        let spare = candidates.iter().position(|it| places(it.source.ip()) > 1);
        match spare {
            Some(spare) if places(host) == 0 => {
                candidates.remove(spare);
                true
            }
            Some(_) | None => false,
        }
    }
}

impl Plane {
    /// The peer's side has become known, or another.
    pub(super) fn configure_datagrams(&mut self, key: Key, is_new: bool, afresh: bool) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let begins = match (point.stage, point.bearer) {
            (Stage::Reserved, _) => true,
            (Stage::Establishing, _) => is_new || afresh,
            (Stage::Up, Bearer::Udp) if is_new && !afresh => {
                // Nothing has to come up for that.
                if let (Some(association), Some(remote)) = (&mut point.association, &point.remote) {
                    **association = Association::in_the_clear(remote);
                }
                false
            }
            (Stage::Up | Stage::Released, _) => afresh,
            (Stage::Subtracted, _) => false,
        };
        if begins {
            if point.stage == Stage::Up {
                self.end_association(key);
            }
            self.associate(key);
        }
    }

    fn associate(&mut self, key: Key) {
        let deadline_ns = self.now_ns + self.limits.establishment_timeout_ns;
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let (Some(association), Some(remote)) = (&mut point.association, &point.remote) else {
            return;
        };
        let early = association.early.take();
        **association = Association::default();
        point.stage = Stage::Establishing;
        point.deadline_ns = deadline_ns;
        match (point.bearer, remote.tls_role) {
            (Bearer::DtlsOverUdp, TlsRole::Client) => self.begin_association(key),
            (Bearer::DtlsOverUdp, TlsRole::Server) => {
                if let Some((source, datagram)) = early {
                    self.candidate_datagram(key, source, &datagram);
                }
            }
            (Bearer::Udp | Bearer::Tcp | Bearer::TlsOverTcp, _) => {
                **association = Association::in_the_clear(remote);
                if remote.address.is_some() {
                    self.association_up(key);
                }
            }
        }
    }

    /// As client of DTLS: says hello.
    fn begin_association(&mut self, key: Key) {
        let Some(point) = self.gateway.points.get(key) else { return };
        let (Some(identity), Some(remote)) = (&point.identity, &point.remote) else { return };
        let (Some(address), Some(dtls)) = (remote.address, &self.gateway.dtls) else { return };
        let handshake = identity
            .for_datagrams()
            .map_err(|_| HandshakeError::Other)
            .and_then(|it| Handshake::client(&dtls.profile, &it, &remote.fingerprints));
        match handshake {
            Ok(handshake) => self.shake(key, address, handshake),
            Err(error) => self.association_failed(key, address, error),
        }
    }

    /// Somebody at `source` is to prove who it is.
    fn shake(&mut self, key: Key, source: SocketAddr, handshake: Handshake) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let Some(association) = &mut point.association else { return };
        // A client that hears nothing asks again for as long as there is time.
        let deadline_ns = match point.remote.as_ref().map(|remote| remote.tls_role) {
            Some(TlsRole::Client) | None => point.deadline_ns,
            Some(TlsRole::Server) => self.now_ns + self.limits.unbound_timeout_ns,
        };
        association.candidates.push(Candidate { source, handshake, deadline_ns });
        let last = association.candidates.len() - 1;
        // The flight that costs most.
        self.handshake_flights += 1;
        self.advance_candidate(key, last, None);
    }

    /// A datagram has come for a connection point.
    pub(crate) fn gateway_datagram(&mut self, key: Key, source: SocketAddr, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.metrics.bytes_received += bytes.len() as u64;
        connection.received_ns = self.now_ns;
        let Some(point_key) = connection.point().filter(|_| connection.is_alive()) else { return };
        let Some(point) = self.gateway.points.get_mut(point_key) else { return };
        let Some(association) = &mut point.association else { return };
        match (point.stage, point.bearer) {
            (Stage::Reserved, Bearer::DtlsOverUdp) if bytes.len() <= EARLY_BYTES_MAX => {
                let dtls = self.gateway.dtls.as_ref();
                let greeting = dtls.map(|dtls| dtls.cookies.greet(source, bytes));
                if !matches!(greeting, None | Some(Greeting::Nothing)) {
                    association.early = Some((source, bytes.to_vec()));
                }
            }
            (Stage::Establishing, Bearer::DtlsOverUdp) => {
                self.candidate_datagram(point_key, source, bytes);
            }
            (Stage::Up, Bearer::DtlsOverUdp) if association.peer == Some(source) => {
                self.open_records(point_key, bytes);
            }
            (Stage::Establishing | Stage::Up, Bearer::Udp) => {
                if self.latch(point_key, source) {
                    self.pass_datagram(point_key, bytes);
                }
            }
            (_, _) => {}
        }
    }

    /// Whether a datagram in the clear comes from the peer, which the first one finds.
    fn latch(&mut self, key: Key, source: SocketAddr) -> bool {
        let Some(point) = self.gateway.points.get_mut(key) else { return false };
        let (Some(association), Some(remote)) = (&mut point.association, &point.remote) else {
            return false;
        };
        if association.is_latched {
            return association.peer == Some(source);
        }
        if !admits(remote, source) {
            return false;
        }
        association.peer = Some(source);
        association.is_latched = true;
        if point.stage == Stage::Establishing {
            self.association_up(key);
        }
        true
    }

    /// A datagram before the handshake is over: of somebody who is in the middle of it, or wants to begin.
    fn candidate_datagram(&mut self, key: Key, source: SocketAddr, bytes: &[u8]) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let (Some(association), Some(remote)) = (&mut point.association, &point.remote) else {
            return;
        };
        if !admits(remote, source) {
            return;
        }
        let known = association.candidates.iter().position(|it| it.source == source);
        if let Some(index) = known {
            return self.advance_candidate(key, index, Some(bytes));
        }
        let Some(dtls) = &self.gateway.dtls else { return };
        if remote.tls_role == TlsRole::Client {
            return;
        }
        match dtls.cookies.greet(source, bytes) {
            Greeting::Nothing => {}
            Greeting::Verify(answer) => self.send_datagram(key, source, &answer),
            Greeting::Proven(hello) => {
                if association.makes_room(source.ip()) {
                    self.answer_hello(key, source, hello);
                }
            }
        }
    }

    /// As server of DTLS: somebody who is where he says wants to prove who he is.
    fn answer_hello(&mut self, key: Key, source: SocketAddr, hello: ProvenHello) {
        let Some(point) = self.gateway.points.get(key) else { return };
        let (Some(identity), Some(remote)) = (&point.identity, &point.remote) else { return };
        let Some(dtls) = &self.gateway.dtls else { return };
        let handshake = identity
            .for_datagrams()
            .map_err(|_| HandshakeError::Other)
            .and_then(|it| Handshake::server(&dtls.profile, &it, &remote.fingerprints, hello));
        // What is no handshake at all is nobody's.
        if let Ok(handshake) = handshake {
            self.shake(key, source, handshake);
        }
    }

    /// Gives a candidate what has come from it, or the time that has passed.
    fn advance_candidate(&mut self, key: Key, index: usize, datagram: Option<&[u8]>) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let Some(association) = &mut point.association else { return };
        let candidate = &mut association.candidates[index];
        let source = candidate.source;
        let mut output = Vec::new();
        let result = match datagram {
            Some(datagram) => {
                self.handshake_flights += 1;
                candidate.handshake.advance(datagram, &mut output)
            }
            None => candidate.handshake.pass_time(&mut output),
        };
        for datagram in output {
            self.send_datagram(key, source, &datagram);
        }
        match result {
            Ok(Progress::UnderWay) => {}
            Ok(Progress::Done(session)) => self.authenticated(key, source, session),
            Err(error) => {
                let Some(point) = self.gateway.points.get_mut(key) else { return };
                let Some(association) = &mut point.association else { return };
                association.candidates.swap_remove(index);
                self.association_failed(key, source, error);
            }
        }
    }

    /// The peer has been found.
    fn authenticated(&mut self, key: Key, source: SocketAddr, session: Box<Session>) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let Some(association) = &mut point.association else { return };
        **association = Association {
            peer: Some(source),
            is_latched: true,
            session: Some(session),
            ..Association::default()
        };
        self.association_up(key);
    }

    /// A handshake has failed. Where anybody may come it may have been a stranger's, and the peer may still
    /// come; if it does not, this is what went wrong. Another certificate at the peer's own host is most
    /// likely the peer's: one more handshake is waited for, as others may share its NAT.
    fn association_failed(&mut self, key: Key, source: SocketAddr, error: HandshakeError) {
        tracing::debug!(%error, "DTLS handshake failed");
        self.metrics.handshakes_failed_other += 1;
        let cause = match error {
            HandshakeError::Certificate(_) => ReleaseCause::PeerNotAuthenticated,
            _ => ReleaseCause::TlsEstablishmentFailure,
        };
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let (Some(association), Some(remote)) = (&mut point.association, &point.remote) else {
            return;
        };
        if remote.tls_role == TlsRole::Server && remote.source != Source::Address {
            // The word of somebody with a certificate weighs more than that of somebody without.
            association.failure = association.failure.max(Some(cause));
            let is_of_its_host = match remote.source {
                Source::Host(host) => host == source.ip(),
                Source::Any | Source::Address => {
                    remote.address.is_some_and(|address| address.ip() == source.ip())
                }
            };
            if is_of_its_host && cause == ReleaseCause::PeerNotAuthenticated {
                let given_up_ns = self.now_ns + self.limits.unbound_timeout_ns;
                association.given_up_ns.get_or_insert(given_up_ns);
            }
            return;
        }
        self.report_released(key, cause);
    }

    fn association_up(&mut self, key: Key) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        point.stage = Stage::Up;
        point.deadline_ns = u64::MAX;
        self.events.push_back(Event::Bound { termination: point.id });
        self.metrics.gateway_bearers_established += 1;
    }

    /// Opens what the peer has sent in place, and passes on what was in it: one datagram for each record, of
    /// which a peer sends one in each.
    fn open_records(&mut self, key: Key, datagram: &mut [u8]) {
        let mut at = 0;
        loop {
            let Some(point) = self.gateway.points.get_mut(key) else { return };
            let Some(session) = point.association.as_mut().and_then(|it| it.session.as_mut())
            else {
                return;
            };
            let Some((record, consumed)) = session.open(&mut datagram[at..]) else { return };
            match record {
                Record::Data(range) => self.pass_datagram(key, &datagram[at..][range]),
                Record::Nothing => {}
                Record::Repeated => self.repeat_last_flight(key),
                Record::CloseNotify => {
                    self.end_association(key);
                    return self.report_released(key, ReleaseCause::PeerClosed);
                }
                Record::FatalAlert(_) => {
                    self.forget_association(key);
                    return self.report_released(key, ReleaseCause::ConnectionLost);
                }
            }
            at += consumed;
        }
    }

    fn repeat_last_flight(&mut self, key: Key) {
        let association = self.gateway.points.get(key).and_then(|it| it.association.as_ref());
        let Some(association) = association else { return };
        let (Some(peer), Some(session)) = (association.peer, &association.session) else { return };
        for datagram in session.last_flight().to_vec() {
            self.send_datagram(key, peer, &datagram);
        }
    }

    /// Passes on what has come in the clear at `source`, or was opened there.
    fn pass_datagram(&mut self, source: Key, bytes: &[u8]) {
        let count = bytes.len() as u64;
        let Some(point) = self.gateway.points.get_mut(source) else { return };
        point.statistics.bytes_received += count;
        self.realms[usize::from(point.realm.0)].received.bytes += count;
        self.metrics.gateway_bytes_received += count;
        let is_passed = point.other.is_some_and(|other| self.send_media(other, bytes));
        match is_passed {
            true => self.metrics.gateway_datagrams_passed += 1,
            false => self.metrics.gateway_datagrams_dropped += 1,
        }
    }

    /// Sends a datagram to the peer of a connection point, if there is one and it can be queued.
    fn send_media(&mut self, key: Key, bytes: &[u8]) -> bool {
        let is_pressed = self.is_pressed();
        let Some(point) = self.gateway.points.get_mut(key) else { return false };
        let (Stage::Up, Some(association)) = (point.stage, &mut point.association) else {
            return false;
        };
        let (Some(peer), Some(key)) = (association.peer, point.connection) else { return false };
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if is_pressed
            || !connection.is_alive()
            || connection.egress.queued_buffers() >= DATAGRAMS_WAITING_MAX
        {
            return false;
        }
        let session = association.session.as_deref_mut();
        let pool = &mut self.send_buffers;
        if connection.egress.append_datagram(pool, bytes, peer, session).is_err() {
            return false;
        }
        let count = bytes.len() as u64;
        point.statistics.bytes_sent += count;
        self.realms[usize::from(point.realm.0)].sent.bytes += count;
        self.metrics.gateway_bytes_sent += count;
        self.mark(key);
        true
    }

    /// Sends a datagram of DTLS's own.
    fn send_datagram(&mut self, key: Key, to: SocketAddr, bytes: &[u8]) {
        let Some(key) = self.gateway.points.get(key).and_then(|point| point.connection) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_alive() && connection.egress.queued_buffers() < DATAGRAMS_WAITING_MAX {
            // What finds no buffer is lost, and asked for again.
            let _ = connection.egress.append_datagram(&mut self.send_buffers, bytes, to, None);
            self.mark(key);
        }
    }

    /// Says goodbye to the peer, and forgets it.
    pub(super) fn end_association(&mut self, key: Key) {
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let Some(association) = &mut point.association else { return };
        let peer = association.peer;
        let goodbye = association.session.as_mut().map(|session| session.close_notify());
        if let (Some(peer), Some(goodbye)) = (peer, goodbye) {
            self.send_datagram(key, peer, &goodbye);
        }
        self.forget_association(key);
    }

    fn forget_association(&mut self, key: Key) {
        let association = self.gateway.points.get_mut(key).and_then(|it| it.association.as_mut());
        association.into_iter().for_each(|association| **association = Association::default());
    }

    /// The timers of one association.
    pub(super) fn check_association(&mut self, key: Key) {
        let now_ns = self.now_ns;
        let Some(point) = self.gateway.points.get_mut(key) else { return };
        let Some(association) = &mut point.association else { return };
        let is_overdue = now_ns >= point.deadline_ns;
        let is_given_up = association.candidates.is_empty()
            && association.given_up_ns.is_some_and(|given_up_ns| now_ns >= given_up_ns);
        match (point.stage, point.bearer) {
            (Stage::Establishing, Bearer::DtlsOverUdp) if is_overdue || is_given_up => {
                let cause = association.failure.unwrap_or(ReleaseCause::TlsEstablishmentFailure);
                self.metrics.handshakes_timeout += u64::from(is_overdue);
                self.forget_association(key);
                self.report_released(key, cause);
            }
            (Stage::Establishing, Bearer::DtlsOverUdp) => {
                association.candidates.retain(|it| it.deadline_ns > now_ns);
                // From the last one, as whoever has failed makes room for it.
                for index in (0..association.candidates.len()).rev() {
                    let Some(point) = self.gateway.points.get(key) else { return };
                    let left = point.association.as_ref().map_or(0, |it| it.candidates.len());
                    if index < left {
                        self.advance_candidate(key, index, None);
                    }
                }
            }
            (Stage::Up, Bearer::DtlsOverUdp) => {
                let connection = point.connection.and_then(|key| self.connections.get(key));
                let last_ns = connection.map_or(0, |it| it.received_ns.max(it.sent_ns));
                if now_ns - last_ns >= EGRESS_QUIET_NS
                    && let Some(session) = &mut association.session
                {
                    session.rest();
                }
            }
            (_, _) => {}
        }
    }
}

/// Whether the peer may be there.
fn admits(remote: &RemoteConnectionPoint, source: SocketAddr) -> bool {
    match remote.source {
        Source::Any => true,
        Source::Host(host) => host == source.ip().to_canonical(),
        Source::Address => remote.address == Some(source),
    }
}

const _: () = assert!(
    dtls::SEAL_HEADROOM_BYTES + dtls::SEAL_TAILROOM_BYTES
        <= mrfp_protocol::tls::SEAL_HEADROOM_BYTES + mrfp_protocol::tls::SEAL_TAILROOM_BYTES
);
