//! From received bytes to pieces of messages: first byte, handshake, records, frames. Everything
//! happens in the buffer the bytes arrived in; what is incomplete waits in a carry buffer.

use mrfp_io::Key;
use mrfp_protocol::msrp::{Malformed, Paths, Piece, Uri};
use mrfp_protocol::tls::{
    Handshake, HandshakeError, Opened, Progress, Psk, RECORD_BYTES_MAX, Session,
};

use crate::carry::CarryBuffer;
use crate::config::RECORD_OUTPUT_BUFFERS_MAX;
use crate::connection::{Claim, Connection, Life, Spoken, Transport};
use crate::mp::{ReleaseCause, TlsRole};
use crate::plane::{Ending, Plane};
use crate::termination::{Protection, Stage, Termination};

/// First byte of a TLS handshake record (RFC 5246 section 6.2.1).
const CONTENT_TYPE_HANDSHAKE: u8 = 0x16;
/// First byte of every MSRP message.
const MSRP_FIRST: u8 = b'M';
/// Bytes of a TLS record header.
const RECORD_HEADER_BYTES: usize = 5;

impl Plane {
    /// Takes what has arrived on a connection.
    pub(crate) fn receive(&mut self, key: Key, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.metrics.bytes_received += bytes.len() as u64;
        connection.received_ns = self.now_ns;
        if !connection.is_alive() {
            return;
        }
        if matches!(connection.transport, Transport::Unknown) && !self.recognise(key, bytes) {
            return;
        }
        let handshake_end = self.receive_handshake(key, bytes);
        let Some(connection) = self.connections.get(key) else { return };
        if !connection.is_alive() {
            return;
        }
        match &connection.transport {
            Transport::Tls(_) => self.receive_records(key, &mut bytes[handshake_end..]),
            Transport::Plain => self.receive_messages(key, bytes),
            Transport::Datagrams if connection.point().is_none() => {
                self.floor_datagram(key, bytes);
            }
            Transport::Datagrams => {}
            Transport::Unknown | Transport::Handshaking(_) => {}
        }
    }

    /// The first byte tells what is spoken. False: nothing we know; the connection is ending.
    fn recognise(&mut self, key: Key, bytes: &[u8]) -> bool {
        let Some(&first) = bytes.first() else { return false };
        if first != CONTENT_TYPE_HANDSHAKE {
            self.recognise_spoken(key, first);
        }
        let Some(connection) = self.connections.get(key) else { return false };
        // Where we are to send the ClientHello there is none to be had.
        let answers_hello = self.foreseen(connection).is_none_or(|termination| {
            let tcp_client = !connection.sessions.is_empty();
            termination.tls_role(tcp_client) != Some(TlsRole::Client)
        });
        let made = match (first, connection.spoken) {
            (CONTENT_TYPE_HANDSHAKE, _) if answers_hello => {
                Handshake::server(&self.profile).map(Box::new).map(Transport::Handshaking)
            }
            (CONTENT_TYPE_HANDSHAKE, _) | (_, Spoken::Unknown) => {
                self.release(key, ReleaseCause::ProtocolViolation, Ending::Abort);
                return false;
            }
            (MSRP_FIRST, Spoken::Msrp) | (_, Spoken::Bfcp) => Ok(Transport::Plain),
            (_, Spoken::Msrp) => {
                self.release(key, ReleaseCause::ProtocolViolation, Ending::Abort);
                return false;
            }
        };
        match made {
            Ok(transport) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.transport = transport;
                }
                true
            }
            Err(error) => {
                self.handshake_failed(key, error);
                false
            }
        }
    }

    /// As client: begins the TLS handshake on a connection that is up.
    pub(crate) fn start_handshake(&mut self, key: Key, termination_key: Key) {
        let Some(termination) = self.terminations.get(termination_key) else { return };
        let started = match &termination.protection {
            Protection::TlsPsk(credentials) => {
                let next = self.next_credentials(termination_key, key);
                let Some(credentials) = next.or(credentials.as_ref()) else { return };
                let Some(psk) = credentials.psk() else { return };
                Handshake::client(&self.profile, credentials.identity(), &psk)
            }
            Protection::TlsCertificate { fingerprints } => {
                let host = self.peer_host(key, termination);
                Handshake::fingerprint_client(&self.profile, &host, fingerprints)
            }
            Protection::Plain => return,
        };
        self.begin_handshake(key, started);
    }

    /// Whom the certificate of a TLS server has to be for, unless its fingerprint was announced.
    fn peer_host(&self, key: Key, termination: &Termination) -> String {
        if termination.is_for_floors() {
            // BFCP has no URIs: its SDP names an address.
            let origin = self.connections.get(key).and_then(Connection::origin);
            let connected_to = origin.and_then(|origin| origin.connected_to);
            let source = origin.and_then(|origin| origin.unbound_source);
            let address = connected_to.map(|address| address.ip()).or(source);
            return address.map_or_else(String::new, |address| address.to_string());
        }
        let host = Uri::parse(termination.remote_first()).map_or(&b""[..], |uri| uri.host);
        String::from_utf8_lossy(host).into_owned()
    }

    /// As client: sends the first flight of a handshake.
    pub(crate) fn begin_handshake(&mut self, key: Key, started: Result<Handshake, HandshakeError>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match started {
            Ok(handshake) => {
                connection.transport = Transport::Handshaking(Box::new(handshake));
                self.receive_handshake(key, &mut []);
            }
            Err(error) => self.handshake_failed(key, error),
        }
    }

    /// Feeds a handshake. Returns how many of the bytes it took; all of them unless it is over.
    fn receive_handshake(&mut self, key: Key, bytes: &mut [u8]) -> usize {
        let Some(connection) = self.connections.get_mut(key) else { return bytes.len() };
        if !matches!(connection.transport, Transport::Handshaking(_)) {
            return 0;
        }
        let Some(mut carry) = connection.carry_record.take() else {
            let taken = self.advance_handshake(key, bytes);
            return self.keep_record(key, bytes, taken);
        };
        let before = carry.len();
        let appended = carry.append(bytes);
        let taken = self.advance_handshake(key, carry.bytes());
        if taken >= before {
            self.carry_buffers.put(carry);
            // What remains lies in `bytes` again.
            return self.keep_record(key, bytes, taken - before);
        }
        carry.consume(taken);
        match self.connections.get_mut(key) {
            Some(connection) if appended == bytes.len() && connection.life < Life::Draining => {
                connection.carry_record = Some(carry);
            }
            Some(_) | None => {
                self.carry_buffers.put(carry);
                self.release(key, ReleaseCause::ProtocolViolation, Ending::Abort);
            }
        }
        bytes.len()
    }

    /// Keeps the incomplete record behind `taken` while the handshake goes on.
    fn keep_record(&mut self, key: Key, bytes: &[u8], taken: usize) -> usize {
        let Some(connection) = self.connections.get(key) else { return bytes.len() };
        if !connection.is_alive() {
            return bytes.len();
        }
        if matches!(connection.transport, Transport::Handshaking(_)) {
            self.carry_rest(key, &bytes[taken..]);
            return bytes.len();
        }
        taken
    }

    /// Copies the beginning of a record to a carry buffer.
    fn carry_rest(&mut self, key: Key, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let Some(carry) = self.carry(key, rest) else { return };
        match self.connections.get_mut(key) {
            Some(connection) => connection.carry_record = Some(carry),
            None => self.carry_buffers.put(carry),
        }
    }

    /// Lets the handshake take whole records; returns how many bytes that were.
    fn advance_handshake(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return taken };
            let alive = connection.is_alive();
            let Transport::Handshaking(handshake) = &mut connection.transport else {
                return taken;
            };
            if !alive {
                return bytes.len();
            }
            self.handshake_flights += 1;
            let mut wire = std::mem::take(&mut self.scratch.wire);
            wire.clear();
            let result = handshake.advance(&bytes[taken..], &mut wire);
            // A connection of the relay may have messages waiting for the end of the handshake.
            let queued = connection.egress.insert_wire_first(&mut self.send_buffers, &wire);
            self.scratch.wire = wire;
            self.mark(key);
            if queued.is_err() {
                self.release(key, ReleaseCause::TooSlow, Ending::Abort);
                return taken;
            }
            match result {
                Ok((count, Progress::NeedInput)) => return taken + count,
                Ok((count, Progress::NeedPsk)) => {
                    taken += count;
                    if !self.provide_psk(key) {
                        return taken;
                    }
                }
                Ok((count, Progress::Done(session))) => {
                    self.secured(key, session);
                    return taken + count;
                }
                Err(error) => {
                    self.handshake_failed(key, error);
                    return bytes.len();
                }
            }
        }
    }

    /// Looks the client's identity up: on the shared port among all Terminations that wait, on a
    /// port of its own the port is the binding and any identity will do. False: the key is not here
    /// yet, and the handshake waits for it.
    fn provide_psk(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let Transport::Handshaking(handshake) = &connection.transport else { return false };
        let own_port_of = connection.origin().and_then(|origin| origin.own_port_of);
        let claimed = match (&connection.relay, connection.only_session(), own_port_of) {
            // The relay's clients have passwords, not keys (RFC 4976 section 9).
            (Some(_), _, _) => None,
            // As TCP client: the connection is for one Termination and serves no other.
            (None, Some(own), _) => {
                let identity = self.terminations.get(own).map(Termination::identity);
                Some(own).filter(|_| identity == Some(handshake.identity()))
            }
            (None, None, Some(own)) => Some(own),
            (None, None, None) => self.session_by_identity(handshake.identity()),
        };
        if claimed.is_some_and(|termination| self.waits_for_answer(key, termination)) {
            return false;
        }
        let (claimed, psk) = claimed.and_then(|session| self.claim(key, session)).unzip();
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let Transport::Handshaking(handshake) = &mut connection.transport else { return false };
        handshake.provide_psk(psk.as_ref());
        connection.origin_mut().claimed = claimed;
        true
    }

    /// What a TLS client has to know that claims a session: its first key, or its next one.
    fn claim(&self, key: Key, session: Key) -> Option<(Claim, Psk)> {
        let termination = self.terminations.get(session)?;
        let is_made_for_it = termination.connection == Some(key);
        if !is_made_for_it && !termination.awaits_tls_client() {
            return self.next_claim(session);
        }
        let session_number = termination.session_number;
        Some((Claim { termination: session, session_number }, termination.psk()?))
    }

    /// Whether this connection waits for the answer to an offer of ours. The media path is often
    /// shorter than that of the signalling, so the answerer's connection may come first. One waits
    /// for each Termination, and no longer than any connection may remain unbound; whoever else
    /// names the identity meanwhile is a stranger.
    fn waits_for_answer(&mut self, key: Key, termination_key: Key) -> bool {
        let Some(termination) = self.terminations.get_mut(termination_key) else { return false };
        let place = match termination.awaits_answer() {
            true => Some(&mut termination.early),
            false => self.rekeyings.early_place(termination_key),
        };
        let Some(place) = place else { return false };
        let is_alive = |early: &Key| self.connections.get(*early).is_some_and(Connection::is_alive);
        *place = place.filter(is_alive).or(Some(key));
        *place == Some(key)
    }

    /// Lets the handshake go on that waited for the answer to an offer of ours.
    pub(crate) fn resume_early(&mut self, termination_key: Key) {
        let termination = self.terminations.get_mut(termination_key);
        let early = termination.and_then(|termination| termination.early.take());
        let early = early.or_else(|| self.rekeyings.take_early(termination_key));
        let Some(key) = early else { return };
        let connection = self.connections.get(key).filter(|connection| connection.is_alive());
        let Some(connection) = connection else { return };
        let spoken = connection.spoken;
        let is_begun = !matches!(connection.transport, Transport::Unknown);
        match self.terminations.get_mut(termination_key) {
            Some(own) if own.tls_role(false) == Some(TlsRole::Client) => {
                own.early = Some(key);
                if !is_begun {
                    self.begin_as_client(key, termination_key);
                }
            }
            // What it has said waits to be heard.
            Some(_) if spoken == Spoken::Bfcp => self.receive_messages(key, &[]),
            Some(_) | None => {
                self.receive_handshake(key, &mut []);
            }
        }
    }

    /// The handshake is complete; one with a key has proved that the peer has it.
    fn secured(&mut self, key: Key, mut session: Session) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        tracing::debug!(suite = session.suite(), "TLS session established");
        self.metrics.handshakes_completed += 1;
        // Many sessions are set up long before they are used, and many at once: expanded keys that are
        // given back now are the next one's memory.
        session.rest();
        connection.of_handshake = true;
        let secured = Transport::Tls(session);
        let handshaking = std::mem::replace(&mut connection.transport, secured);
        if let Some(point) = connection.point() {
            return self.bearer_up(key, point);
        }
        if connection.relay.is_some() {
            let certificate = match handshaking {
                Transport::Handshaking(mut handshake) => handshake.take_peer_certificate(),
                Transport::Unknown
                | Transport::Plain
                | Transport::Tls(_)
                | Transport::Datagrams => None,
            };
            return self.relay_secured(key, certificate);
        }
        if let Some(termination_key) = connection.only_session() {
            if !self.is_secured_as_asked(termination_key, handshaking) {
                let cause = ReleaseCause::TlsEstablishmentFailure;
                return self.release(key, cause, Ending::Graceful);
            }
            self.bind_secured(key, termination_key);
            return self.send_binding_request(key, termination_key);
        }
        let claimed = connection.origin().and_then(|origin| origin.claimed);
        if claimed.is_none()
            && let Transport::Handshaking(mut handshake) = handshaking
            && handshake.is_with_certificates()
        {
            let certificate = handshake.take_peer_certificate();
            connection.origin_mut().peer_certificate = certificate;
            // The client has proved nothing: its first request names the session, as in the clear.
            return;
        }
        match claimed.filter(|&claim| self.is_open_to(key, claim)) {
            Some(claim) => self.bind_secured(key, claim.termination),
            // Another connection with the same key was faster, or the session is gone.
            None => self.release(key, ReleaseCause::TlsEstablishmentFailure, Ending::Graceful),
        }
    }

    /// Whether nobody else has bound what that claim is to, and its key is still the one.
    fn is_open_to(&self, key: Key, claim: Claim) -> bool {
        let termination = self.terminations.get(claim.termination);
        termination.is_some_and(|termination| {
            let begun_by_us = termination.early == Some(key) && termination.awaits_connection();
            (begun_by_us || termination.awaits_tls_client())
                && termination.session_number == claim.session_number
        }) || self.claims_next(claim)
    }

    /// Whether a connection that we have made is secured as its Termination asks. As TLS client we have
    /// seen to it; as TLS server the kind of handshake was the peer's choice.
    fn is_secured_as_asked(&self, session: Key, handshaking: Transport) -> bool {
        let Some(termination) = self.terminations.get(session) else { return false };
        let Transport::Handshaking(mut handshake) = handshaking else { return false };
        if termination.tls_role(true) != Some(TlsRole::Server) {
            return true;
        }
        match &termination.protection {
            Protection::Plain => false,
            Protection::TlsPsk(_) => !handshake.is_with_certificates(),
            Protection::TlsCertificate { fingerprints } => {
                let shown = handshake.take_peer_certificate();
                handshake.is_with_certificates()
                    && (fingerprints.is_empty()
                        || shown.is_some_and(|shown| shown.is_known_by(fingerprints)))
            }
        }
    }

    /// Binds a connection that is secured with the first key of a session, or with its next one.
    fn bind_secured(&mut self, key: Key, session: Key) {
        match self.terminations.get(session).map(|termination| termination.stage) {
            Some(Stage::Bound) => self.move_over(key, session),
            Some(_) | None => self.bind(key, session),
        }
    }

    fn handshake_failed(&mut self, key: Key, error: HandshakeError) {
        tracing::debug!(%error, "TLS handshake failed");
        match error {
            HandshakeError::Authentication => self.metrics.handshakes_failed_authentication += 1,
            _ => self.metrics.handshakes_failed_other += 1,
        }
        if let Some(connection) = self.connections.get_mut(key) {
            // There is no session to say goodbye in; the alert is queued already.
            connection.close_notify_queued = true;
            // It may have been a stranger, so that the peer may still come; if it does not, this is
            // what went wrong.
            if let Some(claim) = connection.origin().and_then(|origin| origin.claimed) {
                self.next_handshake_failed(claim);
                if let Some(termination) = self.terminations.get_mut(claim.termination) {
                    termination.handshake_failed |=
                        termination.session_number == claim.session_number;
                }
            }
        }
        let of_gateway = self.connections.get(key).is_some_and(|it| it.point().is_some());
        let cause = match error {
            HandshakeError::Certificate(_) if of_gateway => ReleaseCause::PeerNotAuthenticated,
            _ => ReleaseCause::TlsEstablishmentFailure,
        };
        self.release(key, cause, Ending::Graceful);
    }

    /// Opens record after record in place.
    fn receive_records(&mut self, key: Key, bytes: &mut [u8]) {
        let mut rest = bytes;
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            if !connection.is_alive() {
                return;
            }
            if let Some(mut carry) = connection.carry_record.take() {
                let appended = complete_record(&mut carry, rest);
                rest = &mut rest[appended..];
                if rest.is_empty() && record_bytes_missing(carry.bytes()) > 0 {
                    connection.carry_record = Some(carry);
                    return;
                }
                let Transport::Tls(session) = &mut connection.transport else {
                    return self.carry_buffers.put(carry);
                };
                let opened = session.open(carry.bytes_mut());
                self.opened(key, opened, carry.bytes());
                self.carry_buffers.put(carry);
                continue;
            }
            let Transport::Tls(session) = &mut connection.transport else { return };
            match session.open(rest) {
                Ok(Opened::NeedInput) => return self.carry_rest(key, rest),
                opened => {
                    let consumed = self.opened(key, opened, rest);
                    rest = &mut rest[consumed..];
                }
            }
        }
    }

    /// Acts on one opened record; returns how long it was.
    fn opened(
        &mut self,
        key: Key,
        opened: Result<Opened, mrfp_protocol::tls::RecordError>,
        memory: &[u8],
    ) -> usize {
        match opened {
            Ok(Opened::Data { plaintext, consumed }) => {
                self.receive_messages(key, &memory[plaintext]);
                consumed
            }
            Ok(Opened::Handled { consumed }) => {
                self.send_pending_output(key);
                consumed
            }
            // TS 23.333 5.20.2: TCP is released as soon as TLS is.
            Ok(Opened::CloseNotify { consumed }) => {
                self.release(key, ReleaseCause::PeerClosed, Ending::Graceful);
                consumed
            }
            Ok(Opened::NeedInput) => memory.len(),
            Err(error) => {
                self.record_failed(key, error);
                memory.len()
            }
        }
    }

    /// Sends what the record layer wants to say by itself.
    fn send_pending_output(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.egress.queued_buffers() >= RECORD_OUTPUT_BUFFERS_MAX {
            return;
        }
        let Transport::Tls(session) = &mut connection.transport else { return };
        let output = session.pending_output();
        if connection.egress.insert_wire_first(&mut self.send_buffers, &output).is_err() {
            return self.release(key, ReleaseCause::TooSlow, Ending::Abort);
        }
        self.mark(key);
    }

    /// The session is broken: what is queued cannot be trusted to arrive, the alert can.
    pub(crate) fn record_failed(&mut self, key: Key, error: mrfp_protocol::tls::RecordError) {
        tracing::debug!(?error, "TLS session failed");
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Transport::Tls(session) = &mut connection.transport {
            let alert = session.fatal_alert(error);
            connection.egress.discard(&mut self.send_buffers);
            // Without a buffer for the alert the connection just ends.
            let _ = connection.egress.append_wire(&mut self.send_buffers, &alert);
            connection.close_notify_queued = true;
        }
        self.release(key, self.cause_of_record_error(key, error), Ending::Graceful);
    }

    /// Cuts plaintext into pieces of messages.
    fn receive_messages(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(point) = connection.point() {
            return self.gateway_bytes(key, point, bytes);
        }
        let Some(mut carry) = connection.carry_message.take() else {
            let taken = self.frames(key, bytes);
            return self.carry_message(key, &bytes[taken..]);
        };
        let mut rest = bytes;
        loop {
            let before = carry.len();
            let appended = carry.append(rest);
            let taken = self.frames(key, carry.bytes());
            if taken >= before {
                // What remains lies in the received bytes again.
                self.carry_buffers.put(carry);
                let rest = &rest[taken - before..];
                let direct = self.frames(key, rest);
                return self.carry_message(key, &rest[direct..]);
            }
            carry.consume(taken);
            rest = &rest[appended..];
            if rest.is_empty() || (taken == 0 && appended == 0) {
                break;
            }
        }
        let stuck = !rest.is_empty();
        match self.connections.get_mut(key) {
            Some(connection) if connection.life < Life::Draining && !stuck => {
                connection.carry_message = Some(carry);
            }
            Some(_) | None => self.carry_buffers.put(carry),
        }
        if stuck {
            // The framer asks for more than a head can be.
            self.release(key, ReleaseCause::ProtocolViolation, Ending::Abort);
        }
    }

    /// Handles every piece of a run of bytes; returns how many were consumed (all, where the
    /// connection ended meanwhile).
    fn frames(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut taken = 0;
        let mut piece = Piece::default();
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return bytes.len() };
            if !connection.is_alive() {
                return bytes.len();
            }
            match (connection.spoken, bytes.first()) {
                (Spoken::Msrp, _) => {}
                (Spoken::Bfcp, _) => return taken + self.floor_messages(key, &bytes[taken..]),
                (Spoken::Unknown, None) => return 0,
                (Spoken::Unknown, Some(&first)) => {
                    self.recognise_spoken(key, first);
                    continue;
                }
            }
            let is_relay = connection.relay.is_some();
            if let Some(consumed) = self.answered_as_expected(key, &bytes[taken..]) {
                taken += consumed;
                continue;
            }
            let Some(connection) = self.connections.get_mut(key) else { return bytes.len() };
            let session = connection.sessions.first().copied();
            let usual = session.and_then(|session| {
                let termination = self.terminations.get(session)?;
                let (to, from) = (termination.local_uri(), termination.remote_first());
                termination.knows_remote().then_some(Paths { to, from })
            });
            match connection.framer.read(&bytes[taken..], usual, &mut piece) {
                Ok(true) => {
                    taken += piece.consumed;
                    if is_relay {
                        self.relay_piece(key, &piece);
                    } else {
                        self.piece(key, &piece);
                    }
                }
                Ok(false) => return taken,
                Err(malformed) => {
                    self.malformed(key, &bytes[taken..], &malformed);
                    let Some(consumed) = malformed.consumed else { return bytes.len() };
                    taken += consumed;
                }
            }
        }
    }

    fn carry_message(&mut self, key: Key, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        if self.connections.get(key).is_none_or(|connection| !connection.is_alive()) {
            return;
        }
        let Some(carry) = self.carry(key, rest) else { return };
        match self.connections.get_mut(key) {
            Some(connection) => connection.carry_message = Some(carry),
            None => self.carry_buffers.put(carry),
        }
    }

    /// Copies the beginning of a record or message to a buffer. `None`: the connection is ending.
    /// Whom nobody has vouched for may not use the last half of the pool, so that members always
    /// find one.
    fn carry(&mut self, key: Key, rest: &[u8]) -> Option<CarryBuffer> {
        let bound =
            self.connections.get(key).is_some_and(|connection| connection.life == Life::Open);
        let half_out = self.carry_buffers.outstanding() >= self.limits.carry_buffers_max / 2;
        let carry = if bound || !half_out { self.carry_buffers.take() } else { None };
        let Some(mut carry) = carry else {
            self.metrics.connections_refused += 1;
            self.release(key, ReleaseCause::TooSlow, Ending::Abort);
            return None;
        };
        if carry.append(rest) < rest.len() {
            // Records and heads are bounded, so this is neither.
            self.carry_buffers.put(carry);
            self.release(key, ReleaseCause::ProtocolViolation, Ending::Abort);
            return None;
        }
        Some(carry)
    }

    /// A message cannot be understood: a 400 where there is somebody to send it to and, where it
    /// cannot be told how the stream goes on, the end.
    fn malformed(&mut self, key: Key, bytes: &[u8], malformed: &Malformed) {
        tracing::debug!(reason = ?malformed.reason, "malformed MSRP");
        if let Some(answer) = &malformed.answer {
            self.respond(
                key,
                None,
                &bytes[answer.transaction_id.clone()],
                400,
                &bytes[answer.from_first.clone()],
                &bytes[answer.to_first.clone()],
            );
        }
        self.metrics.messages_malformed += 1;
        if malformed.consumed.is_none() {
            self.release(key, ReleaseCause::ProtocolViolation, Ending::Graceful);
        }
    }
}

/// Appends as much as the record in the carry buffer still misses; returns how much that was.
fn complete_record(carry: &mut CarryBuffer, bytes: &[u8]) -> usize {
    let mut appended = 0;
    loop {
        let missing = record_bytes_missing(carry.bytes()).min(bytes.len() - appended);
        if missing == 0 {
            return appended;
        }
        let count = carry.append(&bytes[appended..appended + missing]);
        if count == 0 {
            return appended;
        }
        appended += count;
    }
}

/// Bytes until the record's header, then the record, is whole. A record longer than allowed is
/// "whole" at once: opening it fails as it should.
fn record_bytes_missing(record: &[u8]) -> usize {
    if record.len() < RECORD_HEADER_BYTES {
        return RECORD_HEADER_BYTES - record.len();
    }
    let length = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([record[3], record[4]]));
    if length > RECORD_BYTES_MAX { 0 } else { length.saturating_sub(record.len()) }
}
