//! AUTH: who may use the relay (RFC 4976 sections 6.3 and 9.1).

use std::collections::HashMap;
use std::fmt::Write;

use mrfp_io::Key;
use mrfp_protocol::msrp::auth::{
    Algorithm, Authorization, AuthorizationError, Credentials, NonceState, authentication_info,
    challenge, is_valid,
};
use mrfp_protocol::msrp::{Head, Uri};

use super::config::{RelayConfig, RelayLimits};
use super::path::{same_host, use_path};
use super::{FAILURES_MAX, Relay};
use crate::connection::Transport;
use crate::plane::Plane;

/// The users, and how much of the relay each has.
pub(super) struct Users {
    users: Vec<User>,
    by_name: HashMap<Vec<u8>, usize>,
    /// Checked where the name is unknown, so that names cannot be told apart by time.
    nobody: Credentials,
    /// The algorithms every user can be checked under, the preferred first.
    algorithms: Vec<Algorithm>,
}

struct User {
    credentials: Credentials,
    registrations: usize,
    connections: usize,
}

/// The answer to an AUTH.
struct Answer {
    status: u16,
    /// Header lines, each with its CRLF.
    lines: String,
    /// The client has shown wrong credentials.
    failure: bool,
}

impl Answer {
    fn plain(status: u16) -> Self {
        Self { status, lines: String::new(), failure: false }
    }
}

impl Users {
    pub(super) fn new(config: &RelayConfig) -> Self {
        let mut users = Vec::with_capacity(config.users.len());
        let mut by_name = HashMap::with_capacity(config.users.len());
        for user in &config.users {
            by_name.insert(user.name.clone().into_bytes(), users.len());
            let credentials = user.credentials.clone();
            users.push(User { credentials, registrations: 0, connections: 0 });
        }
        let mut algorithms = vec![Algorithm::Sha256, Algorithm::Md5];
        algorithms.retain(|&algorithm| users.iter().all(|u| u.credentials.serves(algorithm)));
        let nobody = Credentials::derive(b"", config.realm.as_bytes(), b"");
        Self { users, by_name, nobody, algorithms }
    }

    pub(super) fn registered(&mut self, user: usize) {
        self.users[user].registrations += 1;
    }

    pub(super) fn unregistered(&mut self, user: usize) {
        self.users[user].registrations -= 1;
    }

    pub(super) fn disconnected(&mut self, user: usize) {
        self.users[user].connections -= 1;
    }

    /// Whether a user may have one more URI, on one more connection where `connects`.
    fn admits(&self, user: usize, connects: bool, limits: &RelayLimits) -> bool {
        let user = &self.users[user];
        user.registrations < limits.registrations_per_user_max
            && (!connects || user.connections < limits.connections_per_user_max)
    }
}

/// What is right about the credentials of an AUTH.
enum Proven {
    User(usize),
    /// The password, but not the nonce.
    Stale,
    Nothing,
}

impl Relay {
    fn challenge(&mut self, now_seconds: u64, stale: bool) -> Answer {
        let nonce = self.nonces.issue(now_seconds);
        let mut lines = String::new();
        challenge(&mut lines, &self.config.realm, &nonce, stale, &self.users.algorithms);
        Answer { status: 401, lines, failure: false }
    }

    fn prove(&mut self, given: &Authorization<'_>, uri: &[u8], now_seconds: u64) -> Proven {
        let user = self.users.by_name.get(given.username).copied();
        let credentials =
            user.map_or(&self.users.nobody, |user| &self.users.users[user].credentials);
        let right = is_valid(credentials, given, uri)
            && given.realm == self.config.realm.as_bytes()
            && self.users.algorithms.contains(&given.algorithm);
        let Some(user) = user.filter(|_| right) else { return Proven::Nothing };
        match self.nonces.check(given.nonce, given.nonce_count, now_seconds) {
            NonceState::Fresh(count) => {
                self.nonces.used(count);
                Proven::User(user)
            }
            NonceState::Stale => Proven::Stale,
        }
    }

    /// Validity of a URI in seconds, or the 423 that says what is possible.
    fn expires(&self, head: &Head<'_>) -> Result<u32, Answer> {
        let Some(value) = head.header(b"Expires") else {
            return Ok(self.config.expires_default_seconds);
        };
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Answer::plain(400));
        }
        // What does not fit is more than any maximum.
        let seconds = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        let seconds = seconds.unwrap_or(u32::MAX);
        let mut out_of_bounds = Answer::plain(423);
        let (min, max) = (self.config.expires_min_seconds, self.config.expires_max_seconds);
        // Writing to a String cannot fail.
        let _ = if seconds < min {
            write!(out_of_bounds.lines, "Min-Expires: {min}\r\n")
        } else if seconds > max {
            write!(out_of_bounds.lines, "Max-Expires: {max}\r\n")
        } else {
            return Ok(seconds);
        };
        Err(out_of_bounds)
    }

    /// Whether an AUTH is meant for this relay: by its name or, as long as names do not resolve, by
    /// an address.
    fn is_meant(&self, uri: &Uri<'_>) -> bool {
        same_host(uri.host, self.config.host.as_bytes()) || uri.host_ip().is_some()
    }
}

impl Plane {
    /// Answers an AUTH whose To-Path ends here.
    pub(super) fn authenticate(&mut self, key: Key, head: &Head<'_>) {
        self.metrics.relay_auths_received += 1;
        let answer = self.answer_auth(key, head);
        match answer.status {
            200 => self.metrics.relay_auths_accepted += 1,
            401 => self.metrics.relay_auths_challenged += 1,
            _ => self.metrics.relay_auths_refused += 1,
        }
        // RFC 4975 section 7.2: responses to other methods than SEND go all the way back.
        let to = head.from_path.0;
        self.relay_respond(
            key,
            head.transaction_id,
            answer.status,
            to,
            head.to_path.first(),
            answer.lines.as_bytes(),
        );
        if answer.failure {
            self.relay_failure(key);
        }
    }

    fn answer_auth(&mut self, key: Key, head: &Head<'_>) -> Answer {
        let now_ns = self.now_ns;
        let now_seconds = now_ns / 1_000_000_000;
        let Some(relay) = &mut self.relay else { return Answer::plain(481) };
        let Some(connection) = self.connections.get(key) else { return Answer::plain(481) };
        let secure = match connection.transport {
            Transport::Tls(_) => true,
            Transport::Unknown
            | Transport::Plain
            | Transport::Handshaking(_)
            | Transport::Datagrams => false,
        };
        //= RFC 4976 section 9.4: between client and relay there is always TLS.
        if !secure && !relay.config.allow_plain {
            return Answer::plain(403);
        }
        let uri_text = head.to_path.last();
        let Ok(uri) = Uri::parse(uri_text) else { return Answer::plain(400) };
        let renewed = relay.named(uri_text, now_ns);
        if renewed.is_none() && !(uri.session_id.is_empty() && relay.is_meant(&uri)) {
            return Answer::plain(481);
        }
        let Some(given) = head.header(b"Authorization") else {
            return relay.challenge(now_seconds, false);
        };
        let given = match Authorization::parse(given) {
            Ok(given) => given,
            Err(AuthorizationError::Malformed) => {
                return Answer { failure: true, ..Answer::plain(400) };
            }
            // What we do not offer is answered with what we do.
            Err(
                AuthorizationError::Scheme
                | AuthorizationError::Algorithm
                | AuthorizationError::Qop
                | AuthorizationError::UserHash,
            ) => return Answer { failure: true, ..relay.challenge(now_seconds, false) },
        };
        // RFC 7616 section 3.4.6: the digest must be of this request and not of another.
        let digest_uri = given.uri.unwrap_or(uri_text);
        if digest_uri != uri_text
            && !Uri::parse(digest_uri).is_ok_and(|digest_uri| digest_uri.same_as(&uri))
        {
            return Answer { failure: true, ..Answer::plain(400) };
        }
        let user = match relay.prove(&given, digest_uri, now_seconds) {
            Proven::User(user) => user,
            Proven::Stale => return relay.challenge(now_seconds, true),
            Proven::Nothing => {
                return Answer { failure: true, ..relay.challenge(now_seconds, false) };
            }
        };
        let seconds = match relay.expires(head) {
            Ok(seconds) => seconds,
            Err(answer) => return answer,
        };
        let expires_ns = now_ns + u64::from(seconds) * 1_000_000_000;
        let Some(registration) = self.grant(key, user, head, renewed, secure, expires_ns) else {
            self.metrics.relay_refused_limit += 1;
            return Answer::plain(403);
        };
        let Some(relay) = &mut self.relay else { return Answer::plain(481) };
        let Some(granted) = relay.registrations.get(registration) else {
            return Answer::plain(481);
        };
        let path = use_path(head.from_path.0, &granted.uri);
        let mut lines = String::with_capacity(512);
        // Writing to a String cannot fail. Paths are ASCII.
        let _ = write!(lines, "Use-Path: {}\r\n", String::from_utf8_lossy(&path));
        let next_nonce = relay.nonces.issue(now_seconds);
        let credentials = &relay.users.users[user].credentials;
        authentication_info(&mut lines, credentials, &given, digest_uri, &next_nonce);
        let _ = write!(lines, "Expires: {seconds}\r\n");
        Answer { status: 200, lines, failure: false }
    }

    /// Gives the client a URI, or prolongs the one it has named. `None`: a limit.
    fn grant(
        &mut self,
        key: Key,
        user: usize,
        head: &Head<'_>,
        renewed: Option<Key>,
        secure: bool,
        expires_ns: u64,
    ) -> Option<Key> {
        let relay = self.relay.as_mut()?;
        let link = self.connections.get_mut(key)?.relay.as_deref_mut()?;
        if let Some(renewed) = renewed {
            let registration = relay.registrations.get_mut(renewed)?;
            // Somebody else's: its secret is out, but not for the taking.
            if registration.client != key || registration.user != user {
                return None;
            }
            registration.expires_ns = expires_ns;
            link.failures = 0;
            return Some(renewed);
        }
        let connects = link.user.is_none();
        // One connection, one user: what is allowed on it must not depend on the order of AUTHs.
        // The connections of other relays carry many users' (RFC 4976 section 5.1).
        let direct = head.from_path.count() == 1;
        if direct && link.user.is_some_and(|other| other != user) {
            return None;
        }
        let certified = !direct && link.is_proven(head.from_path.first());
        if !relay.users.admits(user, connects && direct, &relay.config.limits) {
            return None;
        }
        let registration =
            relay.register(user, key, head.from_path.first(), secure, certified, expires_ns)?;
        if direct && connects {
            link.user = Some(user);
            relay.users.users[user].connections += 1;
        }
        link.registrations.push(registration);
        link.failures = 0;
        self.relay_open(key);
        Some(registration)
    }

    /// RFC 4976 sections 6.1 and 6.3: several failures end the connection.
    pub(super) fn relay_failure(&mut self, key: Key) {
        let Some(link) = self.link_mut(key) else { return };
        link.failures = link.failures.saturating_add(1);
        if link.failures >= FAILURES_MAX && link.registrations.is_empty() && link.target.is_none() {
            self.metrics.connections_refused += 1;
            self.release(
                key,
                crate::mp::ReleaseCause::ProtocolViolation,
                crate::plane::Ending::Graceful,
            );
        }
    }
}
