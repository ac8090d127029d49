//! AUTH with any relay (RFC 4976 section 5.1): the challenge it answers with, our response.
//!
//! The strongest algorithm it offers is taken, SHA-256 before MD5; `uri` is always there, since
//! relays of RFC 2617's time read it.

use std::fmt::{self, Write as _};

use md5::Md5;
use mrfp_protocol::msrp::auth::{Algorithm, Credentials};
use mrfp_protocol::msrp::{Framer, Start};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Whom the relay knows.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({}, password redacted)", self.name)
    }
}

/// A client on its way to a URI of the relay's.
#[derive(Debug)]
pub(super) struct Registration {
    /// Our own URI.
    pub(super) own: String,
    /// `Use-Path` of the 200, leftmost first.
    pub(super) use_path: Vec<String>,
    transaction: u32,
    tried: bool,
    framer: Framer,
}

/// What the relay's answer asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// Send this.
    Say(String),
    /// We have a URI.
    Registered,
    /// We have not, and why.
    Refused(String),
}

impl Registration {
    pub(super) fn new(own: String) -> Self {
        Self { own, use_path: Vec::new(), transaction: 0, tried: false, framer: Framer::default() }
    }

    /// The first AUTH, without proof.
    pub(super) fn begin(&mut self, relay: &str) -> String {
        self.request(relay, "")
    }

    /// Hears the relay's answer; how many bytes of the input that took.
    pub(super) fn hear(&mut self, input: &[u8], relay: &str, user: Option<&User>) -> (usize, Step) {
        let piece = match self.framer.next(input) {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.framer = Framer::default();
                return (0, Step::Wait);
            }
            Err(error) => return (0, Step::Refused(format!("MSRP: {:?}", error.reason))),
        };
        let Some(head) = piece.head.as_ref() else { return (piece.consumed, Step::Wait) };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let step = match head.start {
            Start::Response(..) if head.transaction_id != self.transaction_id().as_bytes() => {
                Step::Refused("an answer to nothing".to_owned())
            }
            Start::Response(200, _) => {
                let path = head.header(b"Use-Path").map(text).unwrap_or_default();
                self.use_path =
                    path.split(' ').filter(|uri| !uri.is_empty()).map(str::to_owned).collect();
                match self.use_path.is_empty() {
                    true => Step::Refused("200 to AUTH without Use-Path".to_owned()),
                    false => Step::Registered,
                }
            }
            Start::Response(401, _) if !self.tried => {
                let challenges = head.header_values(b"WWW-Authenticate").map(text);
                let challenge = challenges.filter_map(|value| Challenge::parse(&value));
                let best = challenge.max_by_key(|it| it.algorithm == Algorithm::Sha256);
                match (best, user) {
                    (None, _) => Step::Refused("401 without a challenge we know".to_owned()),
                    (_, None) => {
                        Step::Refused("the relay wants to know who we are: --relay-user".to_owned())
                    }
                    (Some(challenge), Some(user)) => {
                        self.tried = true;
                        let cnonce = format!("{:016x}", getrandom::u64().unwrap_or(1));
                        let line = challenge.respond(user, relay, &cnonce);
                        Step::Say(self.request(relay, &line))
                    }
                }
            }
            Start::Response(status, comment) => {
                Step::Refused(format!("AUTH answered {status} {}", text(comment)))
            }
            Start::Request(_) => Step::Refused("a request before the answer to AUTH".to_owned()),
        };
        (piece.consumed, step)
    }

    fn request(&mut self, relay: &str, header_lines: &str) -> String {
        self.transaction += 1;
        let id = self.transaction_id();
        format!(
            "MSRP {id} AUTH\r\nTo-Path: {relay}\r\nFrom-Path: {}\r\n{header_lines}-------{id}$\r\n",
            self.own
        )
    }

    fn transaction_id(&self) -> String {
        format!("auth{:04}", self.transaction)
    }
}

/// What a WWW-Authenticate header says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
}

impl Challenge {
    fn parse(value: &str) -> Option<Self> {
        let parameters = value.strip_prefix("Digest ")?;
        let find = |name: &str| {
            split_outside_quotes(parameters).find_map(|parameter| {
                let (found, value) = parameter.split_once('=')?;
                found.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
            })
        };
        let algorithm = match find("algorithm") {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        Some(Self {
            realm: find("realm")?.to_owned(),
            nonce: find("nonce")?.to_owned(),
            opaque: find("opaque").map(str::to_owned),
            algorithm,
        })
    }

    /// The Authorization line (RFC 7616 section 3.4, qop=auth, method AUTH).
    fn respond(&self, user: &User, uri: &str, cnonce: &str) -> String {
        let Self { realm, nonce, opaque, algorithm } = self;
        let credentials =
            Credentials::derive(user.name.as_bytes(), realm.as_bytes(), user.password.as_bytes());
        let ha1 = credentials.ha1(*algorithm).expect("derived under both");
        let ha2 = hash(*algorithm, &format!("AUTH:{uri}"));
        let proof =
            Zeroizing::new(format!("{}:{nonce}:00000001:{cnonce}:auth:{ha2}", ha1.as_str()));
        let response = hash(*algorithm, &proof);
        let name = &user.name;
        let mut line = format!(
            "Authorization: Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", \
             uri=\"{uri}\", qop=auth, nc=00000001, cnonce=\"{cnonce}\", response=\"{response}\", \
             algorithm={}",
            algorithm.name()
        );
        if let Some(opaque) = opaque {
            let _ = write!(line, ", opaque=\"{opaque}\"");
        }
        line.push_str("\r\n");
        line
    }
}

fn hash(algorithm: Algorithm, text: &str) -> String {
    let digest: Vec<u8> = match algorithm {
        Algorithm::Sha256 => Sha256::digest(text).to_vec(),
        Algorithm::Md5 => Md5::digest(text).to_vec(),
    };
    digest.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use mrfp_protocol::msrp::auth::{Authorization, is_valid};

    use super::*;

    const RELAY: &str = "msrps://relay.example:2855;tcp";

    fn user() -> User {
        User { name: "alice".to_owned(), password: Zeroizing::new("secret".to_owned()) }
    }

    fn hear(registration: &mut Registration, lines: &str) -> Step {
        let id = registration.transaction_id();
        let (status, lines) = lines.split_once('\n').unwrap();
        let text = format!(
            "MSRP {id} {status}\r\nTo-Path: msrps://a;tcp\r\nFrom-Path: {RELAY}\r\n{lines}-------{id}$\r\n"
        );
        let (taken, step) = registration.hear(text.as_bytes(), RELAY, Some(&user()));
        assert_eq!(taken, text.len());
        step
    }

    /// The relay's own check is the judge.
    fn assert_accepted(challenges: &str, algorithm: Algorithm) {
        let mut registration = Registration::new("msrps://a.example:9/x;tcp".to_owned());
        registration.begin(RELAY);
        let Step::Say(request) =
            hear(&mut registration, &format!("401 Unauthorized\n{challenges}"))
        else {
            panic!("not answered");
        };
        let line = request.lines().find_map(|line| line.strip_prefix("Authorization: ")).unwrap();
        let authorization = Authorization::parse(line.as_bytes()).unwrap();
        assert_eq!(authorization.algorithm, algorithm);
        assert_eq!(authorization.uri, Some(RELAY.as_bytes()));
        let credentials = Credentials::derive(b"alice", b"a, realm", b"secret");
        assert!(is_valid(&credentials, &authorization, RELAY.as_bytes()));
        let granted = "200 OK\nUse-Path: msrps://r:1/one;tcp msrps://s:2/two;tcp\r\n";
        assert_eq!(hear(&mut registration, granted), Step::Registered);
        assert_eq!(registration.use_path, ["msrps://r:1/one;tcp", "msrps://s:2/two;tcp"]);
    }

    #[test]
    fn the_strongest_algorithm_is_answered() {
        let md5 = "WWW-Authenticate: Digest realm=\"a, realm\", qop=\"auth\", nonce=\"n1\"\r\n";
        let sha = "WWW-Authenticate: Digest realm=\"a, realm\", qop=\"auth\", nonce=\"n2\", \
                   opaque=\"6d73\", algorithm=SHA-256\r\n";
        assert_accepted(md5, Algorithm::Md5);
        assert_accepted(&format!("{md5}{sha}"), Algorithm::Sha256);
        assert_accepted(&format!("{sha}{md5}"), Algorithm::Sha256);
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |answer: &str| {
            let mut registration = Registration::new("msrps://a.example:9/x;tcp".to_owned());
            registration.begin(RELAY);
            match hear(&mut registration, answer) {
                Step::Refused(why) => why,
                step => panic!("{step:?}"),
            }
        };
        assert_eq!(refused("403 Forbidden\n"), "AUTH answered 403 Forbidden");
        assert!(refused("200 OK\n").contains("without Use-Path"));
        let unknown = "401 x\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=X\r\n";
        assert!(refused(unknown).contains("challenge"));
    }
}
