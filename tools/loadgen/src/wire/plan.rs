//! What a run without SIP is to do, checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use mrfp_io::SendBuffersConfig;
use mrfp_protocol::tls::{
    self, Authorities, CertificateConfig, Fingerprint, Handshake, HandshakeError, Identity,
    Profile, ProfileConfig, Psk, dtls,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use super::auth::User;
use super::end::STAMP_BYTES;
use super::link::Link;
use super::lobby::{Invitation, Stream};
use super::participant::{FLOORS_MAX, Place};
use crate::cli::Share;

/// What a run is to do.
#[derive(Debug)]
pub struct Plan {
    /// Where to connect; of several each pair has one, in turn.
    pub targets: Vec<SocketAddr>,
    /// What for.
    pub work: Work,
    /// How connections are protected.
    pub protection: Protection,
    /// Connections.
    pub links: u32,
    /// Number of the first connection, and of the first key; other processes have the others.
    pub first_number: u32,
    /// Which of several processes this is.
    pub share: Share,
    /// Keys that numbered connections share, at least as many as those.
    pub identities: u32,
    /// Media threads.
    pub threads: u32,
    /// What pairs say.
    pub traffic: Traffic,
    /// Nothing is measured before that has passed.
    pub warmup: Duration,
    /// How long it is measured.
    pub duration: Duration,
    /// How long what is on its way is awaited.
    pub drain_timeout: Duration,
    /// Nobody speaks before everybody is connected; then all do at once.
    pub burst: bool,
    /// Our addresses, dealt out to the connections in turn; none: the kernel chooses.
    pub sources: Vec<IpAddr>,
}

/// What the connections are for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// Pairs through a relay of RFC 4976.
    Relay {
        /// Its URI, which AUTH goes to.
        uri: String,
        /// Whom it knows.
        user: Option<User>,
    },
    /// Pairs through whoever joins the first connection with the second.
    Raw,
    /// A stream of chunks, written to the target, which forwards it to a port of ours.
    Bulk {
        /// Where we listen.
        sink: SocketAddr,
    },
    /// Connections that say nothing.
    Idle,
    /// Connections that end when they are secured, and begin again.
    Handshakes,
    /// Participants of floor control (BFCP), and a server of it.
    Floors(Floors),
    /// Pairs of an end on the access side of a gateway and one on its core side.
    Gateway(Gateway),
    /// Such pairs that send datagrams, at the pace of a fax.
    Fax(Fax),
}

/// Ends of a gateway that send each other images.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fax {
    /// Where the gateway is, as for [`Gateway`].
    pub points: Vec<Point>,
    /// Calls bring the ends, and say where they send to.
    pub called: bool,
    /// Our addresses.
    pub access: IpAddr,
    /// On the other side.
    pub core: IpAddr,
    /// Of how many packets before it each has a copy.
    pub redundancy: u8,
}

/// Where a gateway is reached. Even links are on its access side and connect to it; odd ones are on its core
/// side, and connect or are connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// One for each pair, in turn; none where calls say it.
    pub points: Vec<Point>,
    /// Where we listen on the core side; then pairs come up one after the other, as the order tells whose
    /// connection it is.
    pub sink: Option<SocketAddr>,
    /// Calls bring the ends, and say where they connect.
    pub called: bool,
}

/// Where one pair meets the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// On the access side.
    pub access: SocketAddr,
    /// On the core side; where the gateway connects to us there is none.
    pub core: Option<SocketAddr>,
    /// What the gateway is known by on the access side; without it there is no TLS.
    pub fingerprint: Option<Fingerprint>,
}

impl Point {
    /// Reads a line: two addresses, the second of which may be `-`, and `sha-256 4A:AD:…` or nothing.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.trim().splitn(3, ' ');
        let mut address = || {
            let word = words.next().unwrap_or("");
            match word {
                "-" => Ok(None),
                _ => word.parse().map(Some).map_err(|_| format!("{word:?} is no address")),
            }
        };
        let (access, core) = (address()?.ok_or("there is no address to connect to")?, address()?);
        let fingerprint = words.next().map(|text| {
            Fingerprint::parse(text).map_err(|_| format!("{text:?} is no fingerprint"))
        });
        Ok(Self { access, core, fingerprint: fingerprint.transpose()? })
    }
}

/// Conferences with floors, and what their users do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Floors {
    /// Of each conference. The first conference and the first user have number 1.
    pub users: u32,
    /// Of each conference, from 1.
    pub floors: u16,
    /// Who may hold a floor at a time; more is a violation.
    pub holders_max: u16,
    /// How long a floor is held, in nanoseconds.
    pub hold_ns: u64,
    /// Everybody is told who holds what.
    pub subscribes: bool,
    /// Nobody asks for anything.
    pub idle: bool,
    /// Calls bring the participants, and say who they are and where they connect.
    pub called: bool,
}

/// What pairs say.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Closed loop: messages of an end that are not over.
    pub window: u32,
    /// Open loop: time between two messages of an end, in nanoseconds. `None`: closed loop.
    pub interval_ns: Option<u64>,
    /// Bytes of a message's body.
    pub body_bytes: usize,
    /// The ends begin one after the other, over so many nanoseconds.
    pub ramp_ns: u64,
}

/// How connections are protected.
#[derive(Debug)]
pub enum Protection {
    /// TCP.
    Plain,
    /// TLS; the target has a certificate for the host.
    Certificate {
        /// Whom we trust, and the suites.
        profile: Profile,
        /// Whom we want to see.
        host: String,
    },
    /// TLS in which each side's certificate was announced to the other, for those links of a gateway
    /// whose other side has one.
    Announced {
        /// Of the links in turn: each has a certificate of its own.
        profiles: Vec<Profile>,
    },
    /// The same over datagrams.
    Datagrams {
        /// The suites.
        profile: dtls::Profile,
        /// Of the pairs in turn.
        credentials: Vec<dtls::Credentials>,
    },
    /// TLS with a pre-shared key.
    Psk {
        /// The suites.
        profile: Profile,
        /// Whose key.
        keys: Keys,
    },
}

/// Keys of the connections.
pub enum Keys {
    /// Connection n is `perf-{n:08}`, its key the SHA-256 of `perf-key-{n:08}`.
    Numbered,
    /// One for all.
    One {
        /// The identity.
        identity: String,
        /// The key.
        key: Zeroizing<Vec<u8>>,
    },
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered => f.write_str("Numbered"),
            Self::One { identity, .. } => write!(f, "One({identity}, key redacted)"),
        }
    }
}

/// Floors that a conference may have.
pub const FLOORS: std::ops::RangeInclusive<i64> = 1..=FLOORS_MAX as i64;
/// Bodies that a message may have: a stamp; and no more than a relay takes in one SEND.
pub const BODY_BYTES: std::ops::RangeInclusive<usize> = STAMP_BYTES..=64 * 1024;

impl Protection {
    /// Certificates: whoever one of `authorities` (PEM; none: those of the web) vouches for.
    pub fn certificate(
        host: &str,
        authorities: Option<&[u8]>,
        suites: &[String],
    ) -> Result<Self, String> {
        let authorities = match authorities {
            None => Authorities::web(),
            Some(pem) => Authorities::from_pem(pem).map_err(|error| error.to_string())?,
        };
        let profile = certificate_profile(authorities, suites)?;
        Ok(Self::Certificate { profile, host: host.to_owned() })
    }

    /// A certificate that was announced, shown to one that was.
    pub fn announced(identities: Vec<Identity>, suites: &[String]) -> Result<Self, String> {
        let profile = |identity| announced_profile(identity, suites);
        Ok(Self::Announced {
            profiles: identities.into_iter().map(profile).collect::<Result<_, _>>()?,
        })
    }

    /// Keys, with these suites or the usual ones.
    pub fn psk(keys: Keys, suites: &[String]) -> Result<Self, String> {
        let usual = ProfileConfig::default();
        let config = match suites {
            [] => usual,
            _ => ProfileConfig { suites: suites.to_vec(), ..usual },
        };
        let profile = Profile::new(&config).map_err(|error| error.to_string())?;
        Ok(Self::Psk { profile, keys })
    }
}

/// TLS in which one of these authorities vouches for the other side.
pub(crate) fn certificate_profile(
    authorities: Authorities,
    suites: &[String],
) -> Result<Profile, String> {
    profile(CertificateConfig { identity: own_identity(), authorities }, suites)
}

/// TLS in which we show this certificate, and nobody vouches for anybody.
fn announced_profile(identity: Identity, suites: &[String]) -> Result<Profile, String> {
    // No authority is asked where a fingerprint decides.
    profile(CertificateConfig { identity, authorities: Authorities::web() }, suites)
}

fn profile(config: CertificateConfig, suites: &[String]) -> Result<Profile, String> {
    Profile::new(&ProfileConfig::default())
        .and_then(|profile| profile.with_certificates_and_suites(&config, suites))
        .map_err(|error| error.to_string())
}

/// A certificate nobody vouches for: relays ask for one and take any (RFC 4976 section 9.2), and to a
/// gateway its fingerprint is announced.
pub(crate) fn own_identity() -> Identity {
    let issued = rcgen::generate_simple_self_signed(vec!["mrf-load.invalid".to_owned()])
        .expect("a name and a fresh key");
    let (chain, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect("just made")
}

impl Plan {
    /// Links that stay together: a pair, or the users of a conference.
    fn group(&self) -> u32 {
        match &self.work {
            Work::Floors(floors) => floors.users,
            _ => 2,
        }
    }

    /// The links of a thread: neighbours stay together.
    pub(super) fn links_of(&self, thread: u32) -> Range<u32> {
        let group = self.group();
        let groups = u64::from(self.links.div_ceil(group));
        let bound = |thread: u32| {
            let first = groups * u64::from(thread) / u64::from(self.threads);
            (group * first as u32).min(self.links)
        };
        bound(thread)..bound(thread + 1)
    }

    /// The keys of a thread.
    pub(super) fn identities_of(&self, thread: u32) -> Range<u32> {
        let bound = |thread: u32| {
            (u64::from(self.identities) * u64::from(thread) / u64::from(self.threads)) as u32
        };
        bound(thread)..bound(thread + 1)
    }

    /// Where a link connects to.
    pub(super) fn target(&self, number: u32) -> SocketAddr {
        let group = (self.first_number + number) / self.group();
        let target = self.targets[group as usize % self.targets.len()];
        match self.point(number) {
            Some(point) if !is_access(number) => point.core.unwrap_or(target),
            _ => target,
        }
    }

    /// Where a pair meets the gateway, if that is known beforehand.
    pub(super) fn point(&self, number: u32) -> Option<&Point> {
        let (Work::Gateway(Gateway { points, .. }) | Work::Fax(Fax { points, .. })) = &self.work
        else {
            return None;
        };
        points.get(((self.first_number + number) / 2) as usize % points.len().max(1))
    }

    /// Where the target connects to the odd links.
    pub(super) fn sink(&self) -> Option<SocketAddr> {
        match &self.work {
            Work::Gateway(gateway) => gateway.sink,
            _ => None,
        }
    }

    /// The order of connections tells which belong together.
    pub(super) fn is_in_order(&self) -> bool {
        self.work == Work::Raw || self.sink().is_some()
    }

    /// Our address for a link.
    pub(super) fn source(&self, number: u32) -> Option<IpAddr> {
        let sources = &self.sources;
        (!sources.is_empty()).then(|| sources[number as usize % sources.len()])
    }

    /// Calls bring the participants.
    pub(super) fn is_called(&self) -> bool {
        matches!(
            self.work,
            Work::Floors(Floors { called: true, .. })
                | Work::Gateway(Gateway { called: true, .. })
                | Work::Fax(Fax { called: true, .. })
        )
    }

    /// The handshake a link begins with.
    pub(super) fn handshake(
        &self,
        number: u32,
        invitation: Option<&Invitation>,
    ) -> Result<Option<Handshake>, HandshakeError> {
        let number = self.first_number + number;
        let brought = invitation.and_then(|invitation| invitation.psk.as_ref());
        match &self.protection {
            Protection::Plain | Protection::Datagrams { .. } => Ok(None),
            Protection::Certificate { profile, host } => {
                Handshake::certificate_client(profile, host).map(Some)
            }
            Protection::Announced { profiles } => {
                let fingerprint = match invitation {
                    Some(invitation) => invitation.fingerprint.as_ref(),
                    None => self
                        .point(number - self.first_number)
                        .and_then(|point| point.fingerprint.as_ref().filter(|_| is_access(number))),
                };
                let Some(fingerprint) = fingerprint else { return Ok(None) };
                let profile = &profiles[(number / 2) as usize % profiles.len()];
                let known_by = std::slice::from_ref(fingerprint);
                Handshake::fingerprint_client(profile, "localhost", known_by).map(Some)
            }
            Protection::Psk { profile, .. } if brought.is_some() => {
                let (identity, key) = brought.ok_or(HandshakeError::Other)?;
                Handshake::client(profile, identity, key).map(Some)
            }
            Protection::Psk { profile, keys } => {
                let (identity, key) = match keys {
                    Keys::Numbered => {
                        let key = Sha256::digest(format!("perf-key-{number:08}"));
                        (format!("perf-{number:08}"), Psk::new(key.to_vec()))
                    }
                    Keys::One { identity, key } => (identity.clone(), Psk::new(key.to_vec())),
                };
                let key = key.ok_or(HandshakeError::Other)?;
                Handshake::client(profile, identity.as_bytes(), &key).map(Some)
            }
        }
    }

    /// Whose floors the user of a link asks for.
    pub(super) fn place(&self, floors: &Floors, number: u32) -> Place {
        let number = self.first_number + number;
        Place {
            conference_id: number / floors.users + 1,
            user_id: (number % floors.users + 1) as u16,
            floor_ids: (1..=floors.floors).collect(),
            subscribes: floors.subscribes,
        }
    }

    /// Requests a participant has at a time: the window; in the open loop one for each floor, as nobody
    /// asks again for what he waits for.
    pub(super) fn cycles(&self, floors: &Floors) -> u32 {
        match self.traffic.interval_ns {
            None => self.traffic.window,
            Some(_) => floors.floors.into(),
        }
    }

    /// Our own URI of a link. All are of one length.
    pub(super) fn own_uri(&self, number: u32) -> String {
        let number = self.first_number + number;
        let scheme = match self.protection {
            Protection::Plain => "msrp",
            Protection::Certificate { .. }
            | Protection::Announced { .. }
            | Protection::Datagrams { .. }
            | Protection::Psk { .. } => "msrps",
        };
        // Nobody connects to it: what is for a client leaves by the client's connection.
        format!("{scheme}://ue.load.example:9/{number:08x}loadgen;tcp")
    }

    /// To-Path and From-Path of both ends of a pair; the indices are those of a thread whose first
    /// link has the number `first`.
    pub(super) fn paths(
        &self,
        first: u32,
        one: u32,
        other: u32,
        links: &[Link],
    ) -> ((String, String), (String, String)) {
        let own = |index: u32| self.own_uri(first + index);
        let from = (own(one), own(other));
        let to = |from: u32, to: u32| {
            let use_path = |index: u32| {
                let registration = links[index as usize].registration.as_ref();
                registration.map_or(&[][..], |registration| &registration.use_path)
            };
            let mut path: Vec<&str> = Vec::new();
            let (here, there) = (&links[from as usize], &links[to as usize]);
            if super::first_hop(here) != super::first_hop(there) {
                path.extend(use_path(from).iter().map(String::as_str));
            }
            path.extend(use_path(to).iter().map(String::as_str));
            let own = own(to);
            path.push(&own);
            path.join(" ")
        };
        // What calls have said of them.
        let said = |index: u32| match links[index as usize].invitation.as_deref() {
            Some(Invitation { stream: Stream::Messages { to_path, from_path }, .. }) => {
                Some((to_path.clone(), from_path.clone()))
            }
            _ => None,
        };
        if let (Some(one), Some(other)) = (said(one), said(other)) {
            return ((one.0, other.0), (one.1, other.1));
        }
        ((to(one, other), to(other, one)), from)
    }

    /// Send buffers of a thread with so many links.
    pub(super) fn buffers(&self, links: u32) -> SendBuffersConfig {
        let links = links as usize;
        SendBuffersConfig {
            small_size_bytes: 4 * 1024,
            small_count_max: links * 2 + 64,
            large_size_bytes: tls::SEAL_HEADROOM_BYTES
                + tls::PLAINTEXT_BYTES_MAX
                + tls::SEAL_TAILROOM_BYTES,
            large_count_max: links * 4 + 1024,
        }
    }
}

/// Even links of a gateway are on its access side.
pub(super) fn is_access(link: u32) -> bool {
    link.is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn plan(links: u32, threads: u32) -> Plan {
        Plan {
            targets: vec!["127.0.0.1:1".parse().unwrap()],
            work: Work::Raw,
            protection: Protection::Plain,
            links,
            first_number: 0,
            share: Share::WHOLE,
            identities: links,
            threads,
            traffic: Traffic { window: 1, interval_ns: None, body_bytes: 200, ramp_ns: 0 },
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            burst: false,
            sources: Vec::new(),
        }
    }

    #[test]
    fn threads_share_all_links_and_part_no_pair() {
        for links in [1, 2, 7, 10, 5_000] {
            for threads in 1..5 {
                let plan = plan(links, threads);
                let mut next = 0;
                for thread in 0..threads {
                    let range = plan.links_of(thread);
                    assert_eq!(range.start, next);
                    assert!(range.start.is_multiple_of(2) || range.start == links);
                    next = range.end;
                }
                assert_eq!(next, links);
            }
        }
    }

    #[test]
    fn threads_part_no_conference_and_users_are_numbered_in_it() {
        let floors = Floors {
            users: 10,
            floors: 2,
            holders_max: 1,
            hold_ns: 0,
            subscribes: false,
            idle: false,
            called: false,
        };
        let plan = Plan { work: Work::Floors(floors.clone()), first_number: 40, ..plan(30, 2) };
        assert_eq!((plan.links_of(0), plan.links_of(1)), (0..10, 10..30));
        let place = plan.place(&floors, 19);
        assert_eq!((place.conference_id, place.user_id), (6, 10));
        assert_eq!(place.floor_ids, [1, 2]);
    }

    #[test]
    fn both_ends_of_a_pair_have_one_target_and_pairs_have_them_in_turn() {
        let targets: Vec<SocketAddr> =
            ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap()).to_vec();
        let plan = Plan { targets, ..plan(6, 1) };
        let ports: Vec<_> = (0..6).map(|number| plan.target(number).port()).collect();
        assert_eq!(ports, [1, 1, 2, 2, 1, 1]);
    }

    #[test]
    fn a_point_says_who_connects_and_who_is_there() {
        let point = Point::parse("127.0.0.1:1 127.0.0.1:2").unwrap();
        assert_eq!((point.access.port(), point.core.map(|core| core.port())), (1, Some(2)));
        assert_eq!(point.fingerprint, None);
        let digits = vec!["0A"; 32].join(":");
        let point = Point::parse(&format!("127.0.0.1:1 - sha-256 {digits}\n")).unwrap();
        assert_eq!(point.core, None);
        assert_eq!(point.fingerprint.unwrap().to_string(), format!("sha-256 {digits}"));
        for wrong in ["", "-", "127.0.0.1:1", "- 127.0.0.1:1", "127.0.0.1:1 - sha-256"] {
            assert!(Point::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_of_our_uris_are_of_one_length() {
        let plan = plan(2, 1);
        assert_eq!(plan.own_uri(0).len(), plan.own_uri(u32::MAX).len());
    }
}
