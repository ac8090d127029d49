//! Writes what the other party reads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mrfp_core::mp::{Establishment, MsrpPaths, RemoteConnectionPoint, Source, TlsRole};

use super::super::{Refusal, SideRole};
use super::bandwidth::Towards;
use super::lines::{Section, Text};
use super::read::{Kind, Media, Msrp};
use super::roles::{self, Setup};
use super::{
    Answered, Configured, Description, End, Ends, Exchange, Peer, Plan, Profile, Rewritten, Sent,
    not_acceptable,
};
use crate::sdp::SDP_SIZE_MAX;

/// What the receiver of a description reads under one anchored m-line.
struct Shown<'a> {
    end: &'a End,
    protocol: String,
    setup: SetupLine,
    protection: Protection,
    /// `None`: as it came.
    path: Option<String>,
    /// `a=msrp-cema` is put in where it is not.
    cema: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetupLine {
    Kept,
    Is(Setup),
    Removed,
}

#[derive(Clone, PartialEq, Eq)]
enum Protection {
    /// The parties' own, or none.
    Kept,
    /// Towards the UE.
    Added {
        /// Name and value of the association's identifier.
        tls_id: Option<(&'static str, String)>,
        /// `a=3ge2ae:applied`.
        applied: bool,
    },
    /// Towards the core.
    Removed,
}

impl Exchange<'_> {
    /// What the answerer is sent. `plans` has one entry for each m-line of the offer.
    ///
    /// # Errors
    /// No m-line is left, or what is becomes too long.
    ///
    /// # Panics
    /// `plans` is shorter than the offer, or lacks the ends of an anchored m-line.
    pub fn offer(
        &self,
        offer: &Description,
        plans: &[Plan],
        sent: &mut Sent,
    ) -> Result<Rewritten, Refusal> {
        let refusal = plans.iter().find_map(|plan| match &plan.profile {
            Profile::Refused(refusal) => Some(refusal),
            _ => None,
        });
        let is_left = |(media, plan): (&Media, &Plan)| {
            media.port != 0 && !matches!(plan.profile, Profile::Refused(_))
        };
        if let Some(refusal) = refusal
            && !offer.media.iter().zip(plans).any(is_left)
        {
            return Err(refusal.clone());
        }
        for (media, plan) in offer.media.iter().zip(plans) {
            if let Some(ends) = anchored(media, plan) {
                let is_protected = plan.profile == Profile::EndToAccessEdge;
                let setup = roles::offered(media);
                let ends = [&ends.offerer, &ends.answerer];
                self.offerer.check_place(media, setup, is_protected, ends)?;
            }
        }
        let shown: Vec<Option<Shown<'_>>> = offer
            .media
            .iter()
            .zip(plans)
            .map(|(media, plan)| Some(self.offered(media, plan, anchored(media, plan)?)))
            .collect();
        let mut writer = self.writer(offer, self.answerer.role);
        writer.session(&shown, plans);
        for (index, (line, plan)) in shown.iter().zip(plans).enumerate() {
            match (line, &plan.profile) {
                (Some(line), profile) => writer.media(index, line, profile),
                (None, Profile::Refused(_)) => writer.switch_off(index, None, REFUSED),
                (None, _) => writer.untouched(index),
            }
        }
        writer.finish(&shown, sent)
    }

    /// What the offerer is sent, and how the connection points are configured.
    ///
    /// # Errors
    /// The answer does not fit what the answerer was offered, or becomes too long.
    ///
    /// # Panics
    /// As [`Self::offer`].
    pub fn answer(
        &self,
        offer: &Description,
        plans: &[Plan],
        answer: &Description,
        sent: &mut Sent,
    ) -> Result<Answered, Refusal> {
        if answer.media.len() != offer.media.len() {
            return Err(not_acceptable(format!(
                "{} media lines answer {}",
                answer.media.len(),
                offer.media.len()
            )));
        }
        for (offered, answered) in offer.media.iter().zip(&answer.media) {
            if !answered.media.eq_ignore_ascii_case(&offered.media) {
                let (line, media) = (answered.line_number, &answered.media);
                let what = format!("Line {line}: {media} does not answer {}", offered.media);
                return Err(not_acceptable(what));
            }
        }
        let mut shown = Vec::with_capacity(plans.len());
        let mut configured = Vec::with_capacity(plans.len());
        for ((offered, answered), plan) in offer.media.iter().zip(&answer.media).zip(plans) {
            match anchored(offered, plan) {
                Some(ends) if answered.port != 0 => {
                    let (line, points) = self.answered(offered, answered, plan, ends)?;
                    shown.push(Some(line));
                    configured.push(Some(points));
                }
                _ => {
                    shown.push(None);
                    configured.push(None);
                }
            }
        }
        let mut writer = self.writer(answer, self.offerer.role);
        writer.session(&shown, plans);
        for (index, (line, plan)) in shown.iter().zip(plans).enumerate() {
            let offered = &offer.media[index];
            match (line, &plan.profile) {
                (Some(line), profile) => writer.media(index, line, profile),
                // An m-line that is refused looks like the one that was offered.
                (None, _) if plan.ends.is_some() || matches!(plan.profile, Profile::Refused(_)) => {
                    writer.switch_off(index, Some(offered), AS_OFFERED);
                }
                (None, _) => writer.untouched(index),
            }
        }
        Ok(Answered { rewritten: writer.finish(&shown, sent)?, media: configured })
    }

    /// What we offer of an m-line.
    fn offered<'e>(&self, media: &Media, plan: &Plan, ends: &'e Ends) -> Shown<'e> {
        let (end, to) = (&ends.answerer, self.answerer);
        let keeps_path = media.msrp.as_ref().is_some_and(|msrp| msrp.cema && to.keeps_path);
        // Whoever is connected to need not know CEMA to be reached by way of us.
        let offered = roles::to_offer(roles::offered(media), keeps_path && !to.is_behind_nat());
        let (protocol, setup, protection) = match (&plan.profile, to.role) {
            (Profile::EndToAccessEdge, SideRole::Access) => {
                let name = if self.rules.dtls_id { DTLS_ID } else { TLS_ID };
                let tls_id = media.kind.is_datagrams().then(|| (name, end.tls_id.clone()));
                let offered = if media.kind.is_datagrams() { Setup::ActPass } else { offered };
                let protection = Protection::Added { tls_id, applied: true };
                (protected_protocol(media.kind), SetupLine::Is(offered), protection)
            }
            (Profile::EndToAccessEdge, _) => {
                let setup = plain_setup(media.kind, offered);
                (plain_protocol(media), setup, Protection::Removed)
            }
            (Profile::Plain, _) if !media.kind.is_datagrams() => {
                (media.protocol.clone(), SetupLine::Is(offered), Protection::Kept)
            }
            _ => (media.protocol.clone(), self.setup_passed(media), Protection::Kept),
        };
        let is_protected = matches!(protection, Protection::Added { .. });
        let path = media.msrp.as_ref().filter(|_| plan.profile != Profile::Passed);
        let path = path.map(|msrp| presented(msrp, end, keeps_path, is_protected));
        Shown { end, protocol, setup, protection, path, cema: false }
    }

    /// Of an offer whose (D)TLS is not ours.
    fn setup_passed(&self, media: &Media) -> SetupLine {
        match roles::to_offer_passed(media.setup, self.offerer.is_behind_nat()) {
            Some(setup) if media.setup != Some(setup) => SetupLine::Is(setup),
            _ => SetupLine::Kept,
        }
    }

    /// What we answer to an m-line, and how both its connection points are configured.
    fn answered<'e>(
        &self,
        offered: &Media,
        answered: &Media,
        plan: &Plan,
        ends: &'e Ends,
    ) -> Result<(Shown<'e>, Configured), Refusal> {
        let asked = self.offered(offered, plan, ends);
        check(answered, plan, &asked)?;
        let parties = parties(offered, answered, plan, &asked)?;
        let is_protected = plan.profile == Profile::EndToAccessEdge;
        let end = &ends.offerer;
        let own = roles::reversed(parties.offerer);
        let (setup, protection) = match self.offerer.role {
            _ if !is_protected => {
                let is_ours = plan.profile == Profile::Plain && !offered.kind.is_datagrams();
                let setup = if is_ours { SetupLine::Is(own) } else { SetupLine::Kept };
                (setup, Protection::Kept)
            }
            SideRole::Access => {
                // RFC 8842 section 5.3: only where the offer has one.
                let tls_id = offered.tls_id.as_ref().map(|tls_id| {
                    (if tls_id.is_dtls_id { DTLS_ID } else { TLS_ID }, end.tls_id.clone())
                });
                (SetupLine::Is(own), Protection::Added { tls_id, applied: false })
            }
            _ => (plain_setup(offered.kind, own), Protection::Removed),
        };
        let mut shown = Shown {
            end,
            protocol: offered.protocol.clone(),
            setup,
            protection,
            path: None,
            cema: false,
        };
        let mut paths = (None, None);
        if plan.profile != Profile::Passed
            && let (Some(of_offerer), Some(of_answerer)) = (&offered.msrp, &answered.msrp)
        {
            let is_secure = is_protected && self.offerer.role == SideRole::Access;
            let to_offerer =
                presented(of_answerer, end, of_offerer.cema && self.offerer.keeps_path, is_secure);
            // The path that the answerer was sent leads to the offerer itself, and without CEMA that is
            // where it connects: the offerer has to offer again, and so it must be told.
            let to_answerer = asked.path.unwrap_or_default();
            let leads_past = of_offerer.cema
                && self.answerer.keeps_path
                && !of_answerer.cema
                && parties.answerer == Setup::Active;
            shown.cema = of_offerer.cema && !leads_past;
            if to_offerer != of_answerer.path || to_answerer != of_offerer.path {
                let side = |presented: &String, remote: &Msrp| {
                    let (presented, remote) = (presented.clone(), remote.path.clone());
                    Some(MsrpPaths { presented, remote })
                };
                paths = (side(&to_offerer, of_offerer), side(&to_answerer, of_answerer));
            }
            shown.path = Some(to_offerer);
        }
        let (first, second) =
            roles::establishment(parties.offerer, parties.answerer, self.rules.start);
        let point = |peer: Peer, media: &Media, setup: Setup, establishment, msrp| {
            let is_offerer = peer.role == self.offerer.role;
            let address = connect_to(media);
            // Nobody connects to what is on hold, nor begins DTLS with it.
            let is_held = media.is_held_by_address();
            let establishment = if is_held { Establishment::Incoming } else { establishment };
            RemoteConnectionPoint {
                address,
                establishment,
                tls_role: match is_held {
                    true => TlsRole::Server,
                    false => tls_role(media.kind, setup, is_offerer),
                },
                fingerprints: if is_protected && peer.role == SideRole::Access {
                    media.fingerprints.clone()
                } else {
                    Vec::new()
                },
                source: source(peer.source, media, setup, address),
                msrp,
            }
        };
        let (first_end, second_end) = (&ends.offerer, &ends.answerer);
        let ends = [first_end, second_end];
        self.offerer.check_place(offered, parties.offerer, is_protected, ends)?;
        let ends = [second_end, first_end];
        self.answerer.check_place(answered, parties.answerer, is_protected, ends)?;
        let offerer = point(self.offerer, offered, parties.offerer, first, paths.0);
        let answerer = point(self.answerer, answered, parties.answerer, second, paths.1);
        Ok((shown, Configured { offerer, answerer }))
    }

    fn writer<'w>(&'w self, description: &'w Description, to: SideRole) -> Writer<'w> {
        Writer { exchange: self, description, text: description.text.clone(), to }
    }
}

impl Peer {
    fn is_behind_nat(&self) -> bool {
        self.source != Source::Address
    }

    /// Whether a party that we begin with, over TCP or DTLS, says where it is, without a resolver; and whether
    /// what we are to connect or send to may be a party at all. `ends` are ours, the party's first.
    fn check_place(
        &self,
        media: &Media,
        setup: Setup,
        is_protected: bool,
        ends: [&End; 2],
    ) -> Result<(), Refusal> {
        let begins = !media.kind.is_datagrams() || (is_protected && self.role == SideRole::Access);
        let address = connect_to(media);
        let is_somewhere = address.is_some() || media.is_held_by_address();
        let line = media.line_number;
        if begins && setup == Setup::Passive && !is_somewhere {
            return Err(not_acceptable(format!("Line {line}: no address to connect to")));
        }
        // Datagrams in the clear are sent to whoever is named, whatever its role.
        if let Some(address) = address
            && (!begins || setup == Setup::Passive)
            && !may_be_a_party(address, ends)
        {
            return Err(not_acceptable(format!("Line {line}: {address} is nobody's address")));
        }
        Ok(())
    }
}

/// A description must not lead us to services of this host, to our side of the other network, or to
/// everybody on a link: the media of a stranger would reach what no stranger reaches.
fn may_be_a_party(address: SocketAddr, ends: [&End; 2]) -> bool {
    let [own, other] = ends.map(|end| end.address.ip().to_canonical());
    let ip = address.ip().to_canonical();
    let is_host = match ip {
        IpAddr::V4(ip) => ip.octets()[0] != 0 && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified(),
    };
    let is_link_local = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        // RFC 4291 section 2.4: fe80::/10.
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    address.port() != 0
        && is_host
        && !ip.is_multicast()
        && (own.is_loopback() || !ip.is_loopback())
        && (is_link_local(own) || !is_link_local(ip))
        && (ip == own || ip != other)
}

/// Whether an answer is one to what was asked.
fn check(answered: &Media, plan: &Plan, asked: &Shown<'_>) -> Result<(), Refusal> {
    let line = answered.line_number;
    if !answered.protocol.eq_ignore_ascii_case(&asked.protocol) {
        return Err(not_acceptable(format!(
            "Line {line}: {} does not answer {}",
            answered.protocol, asked.protocol
        )));
    }
    let is_added = matches!(asked.protection, Protection::Added { .. });
    if is_added && answered.fingerprints.is_empty() {
        return Err(not_acceptable(format!(
            "Line {line}: e2ae security needs a=fingerprint with a hash that is taken"
        )));
    }
    if asked.path.is_some() && answered.msrp.is_none() && plan.profile != Profile::Passed {
        return Err(not_acceptable(format!("Line {line}: no valid a=path")));
    }
    Ok(())
}

/// What each party does: `Active` connects to us, `Passive` is connected to.
struct Parties {
    offerer: Setup,
    answerer: Setup,
}

fn parties(
    offered: &Media,
    answered: &Media,
    plan: &Plan,
    asked: &Shown<'_>,
) -> Result<Parties, Refusal> {
    let is_passed = plan.profile == Profile::Passed;
    let to_offerer = roles::to_answer(roles::offered(offered));
    let answerer = match asked.setup {
        SetupLine::Is(setup) => roles::answered(answered, setup)?,
        SetupLine::Kept if !offered.kind.is_datagrams() => {
            roles::answered(answered, roles::offered(offered))?
        }
        // Who sends datagrams in the clear needs no role.
        SetupLine::Kept | SetupLine::Removed => Setup::Passive,
    };
    let offerer = match answerer {
        // TLS roles go with it from end to end.
        answerer if is_passed && !offered.kind.is_datagrams() => roles::reversed(answerer),
        Setup::HoldConn => Setup::HoldConn,
        _ => roles::reversed(to_offerer),
    };
    Ok(Parties { offerer, answerer })
}

fn anchored<'p>(media: &Media, plan: &'p Plan) -> Option<&'p Ends> {
    (media.port != 0 && plan.profile.is_anchored())
        .then(|| plan.ends.as_ref().expect("an anchored m-line has its ends"))
}

fn protected_protocol(kind: Kind) -> String {
    match kind {
        Kind::Msrp => "TCP/TLS/MSRP",
        Kind::Bfcp => "TCP/TLS/BFCP",
        Kind::T38 | Kind::Other => "UDP/TLS/UDPTL",
    }
    .to_owned()
}

/// Without protection. The letters of UDPTL are as its party has written them.
fn plain_protocol(media: &Media) -> String {
    match media.kind {
        Kind::Msrp => "TCP/MSRP".to_owned(),
        Kind::Bfcp => "TCP/BFCP".to_owned(),
        Kind::T38 | Kind::Other => media.protocol.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// UDPTL without DTLS has no roles (TS 23.334 clause 6.2.10.4.2: "remove the setup SDP attribute").
fn plain_setup(kind: Kind, setup: Setup) -> SetupLine {
    if kind.is_datagrams() { SetupLine::Removed } else { SetupLine::Is(setup) }
}

/// The path of the other party as this one sees it: as it is, but for the scheme of the hop that ends here
/// (RFC 4975 section 8.1: `msrps` goes with TCP/TLS/MSRP), or ours.
fn presented(msrp: &Msrp, end: &End, keeps: bool, is_secure: bool) -> String {
    let scheme = if is_secure { "msrps" } else { "msrp" };
    if !keeps {
        return format!("{scheme}://{}/{};tcp", end.address, msrp.session_id);
    }
    if msrp.first.secure == is_secure {
        return msrp.path.clone();
    }
    let rest = msrp.path.split_once(':').map_or("", |(_, rest)| rest);
    format!("{scheme}:{rest}")
}

/// Where a party is connected to, or sent to: by `c=` and `m=`, but without CEMA by its path.
fn connect_to(media: &Media) -> Option<SocketAddr> {
    let by_path = media.msrp.as_ref().filter(|msrp| !msrp.cema).and_then(|it| it.first.address());
    by_path.or_else(|| media.connection_address())
}

fn tls_role(kind: Kind, peer: Setup, is_offerer: bool) -> TlsRole {
    let is_client = match kind {
        // RFC 8856 section 8: whoever offers is client.
        Kind::Bfcp => is_offerer,
        Kind::Msrp | Kind::T38 | Kind::Other => peer == Setup::Active,
    };
    if is_client { TlsRole::Server } else { TlsRole::Client }
}

/// From where it may come, as far as its description tells enough for that.
fn source(rule: Source, media: &Media, setup: Setup, address: Option<SocketAddr>) -> Source {
    match (rule, address) {
        // Nobody comes from nowhere, as long as that lasts.
        (Source::Address, None) if media.kind.is_datagrams() && media.is_held_by_address() => {
            Source::Host(Ipv4Addr::UNSPECIFIED.into())
        }
        (Source::Address, None) => Source::Any,
        // Whoever connects does so from a port of its kernel's choice.
        (Source::Address, Some(address))
            if !media.kind.is_datagrams() && setup != Setup::Passive =>
        {
            Source::Host(address.ip())
        }
        (rule, _) => rule,
    }
}

/// Changes a description's lines for whoever receives it.
struct Writer<'w> {
    exchange: &'w Exchange<'w>,
    description: &'w Description,
    text: Text,
    to: SideRole,
}

impl Writer<'_> {
    /// The session part, and what of it is not the same for all m-lines any longer.
    fn session(&mut self, shown: &[Option<Shown<'_>>], plans: &[Plan]) {
        let media = &self.description.media;
        let is_live = |index: &usize| {
            let refused = plans.get(*index).map(|plan| &plan.profile);
            media[*index].port != 0 && !matches!(refused, Some(Profile::Refused(_)))
        };
        let live = || (0..media.len()).filter(is_live);
        if shown.iter().flatten().any(|shown| shown.protection == Protection::Removed) {
            for kind in ["a=fingerprint", "a=setup", "a=tls-id", "a=dtls-id"] {
                self.text.push_down(kind, live(), MOVED_DOWN);
            }
        }
        let mut anchored = shown.iter().zip(media).filter_map(|(shown, media)| {
            shown.as_ref().map(|shown| connection_line(shown.end, media))
        });
        if let Some(line) = anchored.next()
            && self.text.has(Section::Session, "c=")
        {
            // Who is not anchored here stays where it is.
            let old = self.text.all(Section::Session, "c=").next().map(<[u8]>::to_vec);
            let old = old.map(|old| String::from_utf8_lossy(&old).into_owned());
            for index in live().filter(|index| shown.get(*index).is_none_or(Option::is_none)) {
                let section = Section::Media(index);
                if let Some(old) = &old
                    && !self.text.has(section, "c=")
                {
                    self.text.set(section, "c=", old, MOVED_DOWN);
                }
            }
            self.text.set(Section::Session, "c=", &line, self.anchoring());
        }
        // What is said of the whole session is about its only stream.
        let mut live = live();
        if let (Some(only), None) = (live.next(), live.next())
            && let Some(Some(shown)) = shown.get(only)
        {
            let kind = media[only].kind;
            self.bandwidth(Section::Session, kind, shown);
        }
    }

    fn media(&mut self, index: usize, shown: &Shown<'_>, profile: &Profile) {
        let media = &self.description.media[index];
        let section = Section::Media(index);
        let anchoring = self.anchoring();
        let protection = if *profile == Profile::EndToAccessEdge {
            self.protection(media.kind)
        } else {
            anchoring
        };
        let setup = match shown.setup {
            SetupLine::Is(setup) => Some(setup),
            SetupLine::Kept => media.setup,
            SetupLine::Removed => None,
        };
        // RFC 4145 section 4.1: who only connects has no port to connect to.
        let is_active = setup == Some(Setup::Active) && !media.kind.is_datagrams();
        let port = if is_active { PORT_DISCARD } else { shown.end.address.port() };
        self.media_line(index, port, &shown.protocol, protection);
        let line = connection_line(shown.end, media);
        let in_effect = [section, Section::Session].into_iter().find(|it| self.text.has(*it, "c="));
        let is_right = in_effect.is_some_and(|section| {
            self.text.all(section, "c=").eq(std::iter::once(line.as_bytes()))
        });
        if !is_right {
            self.text.set(section, "c=", &line, anchoring);
        }
        self.bandwidth(section, media.kind, shown);
        for kind in PAST_THE_BORDER {
            self.text.remove(section, kind, LEADS_PAST);
        }
        if let Some(path) = &shown.path {
            let is_scheme =
                media.msrp.as_ref().is_some_and(|it| it.path.ends_with(after_scheme(path)));
            let clause = if is_scheme { SCHEME } else { INTERWORKING };
            self.text.set(section, "a=path", &format!("a=path:{path}"), clause);
        }
        if shown.cema && !self.text.has(section, "a=msrp-cema") {
            self.text.set(section, "a=msrp-cema", "a=msrp-cema", CEMA);
        }
        match shown.setup {
            SetupLine::Kept => (),
            SetupLine::Is(_) if media.setup == setup => (),
            SetupLine::Is(setup) => {
                let clause = if media.kind.is_datagrams() { protection } else { ROLES };
                self.text.set(section, "a=setup", &format!("a=setup:{}", setup.as_str()), clause);
            }
            SetupLine::Removed => self.text.remove(section, "a=setup", protection),
        }
        self.protected(section, shown, protection);
    }

    fn protected(&mut self, section: Section, shown: &Shown<'_>, clause: &'static str) {
        match &shown.protection {
            Protection::Kept => self.text.remove(section, "a=3ge2ae", ACCESS_ONLY),
            Protection::Removed => {
                for kind in ["a=fingerprint", "a=tls-id", "a=dtls-id"] {
                    self.text.remove(section, kind, clause);
                }
                self.text.remove(section, "a=3ge2ae", ACCESS_ONLY);
            }
            Protection::Added { tls_id, applied } => {
                if let Some(fingerprint) = &shown.end.fingerprint {
                    let line = format!("a=fingerprint:{fingerprint}");
                    self.text.set(section, "a=fingerprint", &line, clause);
                }
                for kind in ["a=tls-id", "a=dtls-id"] {
                    match tls_id {
                        Some((name, value)) if *name == kind => {
                            self.text.set(section, kind, &format!("{name}:{value}"), clause);
                        }
                        _ => self.text.remove(section, kind, clause),
                    }
                }
                if *applied {
                    self.text.set(section, "a=3ge2ae", "a=3ge2ae:applied", clause);
                } else {
                    self.text.remove(section, "a=3ge2ae", ACCESS_ONLY);
                }
            }
        }
    }

    fn bandwidth(&mut self, section: Section, kind: Kind, shown: &Shown<'_>) {
        let towards = match shown.protection {
            Protection::Kept => return,
            Protection::Added { .. } => Towards::Protected,
            Protection::Removed => Towards::Plain,
        };
        let overhead = self.exchange.rules.overhead;
        let is_ipv6 = shown.end.address.is_ipv6();
        let clause = if kind.is_datagrams() { BANDWIDTH_UDP } else { BANDWIDTH_TCP };
        self.text.change_each(section, "b=", clause, |line| {
            overhead.changed(line, kind, is_ipv6, towards)
        });
    }

    /// Media that is not ours. Nobody else applies what the UE has asked of us.
    fn untouched(&mut self, index: usize) {
        self.text.remove(Section::Media(index), "a=3ge2ae", ACCESS_ONLY);
    }

    /// Port 0, and the transport as the receiver has written it.
    fn switch_off(&mut self, index: usize, like: Option<&Media>, clause: &'static str) {
        let protocol = &like.unwrap_or(&self.description.media[index]).protocol;
        self.media_line(index, 0, protocol, clause);
        self.text.remove(Section::Media(index), "a=3ge2ae", ACCESS_ONLY);
    }

    fn media_line(&mut self, index: usize, port: u16, protocol: &str, clause: &'static str) {
        let media = &self.description.media[index];
        let line = format!("m={} {port} {protocol} {}", media.media, media.format);
        self.text.set(Section::Media(index), "m=", &line, clause);
    }

    /// The text with its origin, which is taken down: but for the version it is the same in every
    /// description that a party is sent.
    fn finish(
        mut self,
        shown: &[Option<Shown<'_>>],
        sent: &mut Sent,
    ) -> Result<Rewritten, Refusal> {
        let first = shown.iter().flatten().next().map(|shown| shown.end.address.ip());
        let origin = sent.origin.or(first.filter(|_| self.exchange.rules.hide_topology));
        if let Some(origin) = origin {
            let (family, address) = (family(origin), origin.to_string());
            self.text.change_each(Section::Session, "o=", HIDDEN, |line| {
                let mut words = words(line);
                let [.., old_family, old_address] = words.as_mut_slice() else { return None };
                (*old_family, *old_address) = (family, &address);
                Some(words.join(" "))
            });
        }
        let mut version = self.description.version;
        if !sent.sdp.is_empty() {
            self.version(sent.version);
            version = if self.text.written() == sent.sdp {
                sent.version
            } else {
                version.max(sent.version.saturating_add(1))
            };
        }
        self.version(version);
        let sdp = self.text.written();
        // What was said once for the session may stand under every m-line now.
        if sdp.len() > SDP_SIZE_MAX {
            return Err(not_acceptable("Session description too long for the other party"));
        }
        *sent = Sent { version, origin, sdp };
        Ok(Rewritten { text: self.text })
    }

    fn version(&mut self, version: u64) {
        self.text.change_each(Section::Session, "o=", VERSION, |line| {
            let mut words = words(line);
            let old = words.get_mut(2)?;
            if old.parse() == Ok(version) {
                return None;
            }
            let version = version.to_string();
            *old = &version;
            Some(words.join(" "))
        });
    }

    fn anchoring(&self) -> &'static str {
        match self.to {
            SideRole::Access | SideRole::Core => "TS 23.334 6.2.1",
            SideRole::Own | SideRole::Foreign => "TS 29.162 10.2.5",
        }
    }

    fn protection(&self, kind: Kind) -> &'static str {
        match (kind, self.exchange.offerer.role) {
            (Kind::T38, SideRole::Access) => "TS 23.334 6.2.10.4.2",
            (Kind::T38, _) => "TS 23.334 6.2.10.4.3",
            _ => "TS 23.334 5.11.2.2.1",
        }
    }
}

fn connection_line(end: &End, media: &Media) -> String {
    // What is on hold stays so.
    if media.is_held_by_address() {
        return match media.address {
            Some(address) if address.is_ipv6() => "c=IN IP6 ::".to_owned(),
            _ => "c=IN IP4 0.0.0.0".to_owned(),
        };
    }
    format!("c=IN {} {}", family(end.address.ip()), end.address.ip())
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IP6" } else { "IP4" }
}

fn after_scheme(path: &str) -> &str {
    path.split_once(':').map_or(path, |(_, rest)| rest)
}

const TLS_ID: &str = "a=tls-id";
const DTLS_ID: &str = "a=dtls-id";

/// The discard port (RFC 4145 section 4.1).
const PORT_DISCARD: u16 = 9;

/// Other addresses of the party (RFC 8839, RFC 6947): an anchored stream is reached at ours alone.
const PAST_THE_BORDER: [&str; 8] = [
    "a=candidate",
    "a=remote-candidates",
    "a=end-of-candidates",
    "a=ice-ufrag",
    "a=ice-pwd",
    "a=ice-options",
    "a=ice-pacing",
    "a=altc",
];

// The clauses that ask for changes.
const LEADS_PAST: &str = "RFC 8839, RFC 6947: leads past the border";
const MOVED_DOWN: &str = "RFC 8866 5: no longer the same for all media";
const HIDDEN: &str = "hide_topology";
const VERSION: &str = "RFC 3264 8";
const ROLES: &str = "RFC 4145 4.1, RFC 6135 4.2";
const SCHEME: &str = "RFC 4975 8.1";
const INTERWORKING: &str = "TR 29.828 3.1, MSRP IWF";
const CEMA: &str = "RFC 6714 4.3";
const ACCESS_ONLY: &str = "TS 24.229 7.5.2";
const BANDWIDTH_TCP: &str = "TS 23.334 5.11.2.2.1, bandwidth";
const BANDWIDTH_UDP: &str = "TS 23.334 5.11.2.3.1, bandwidth";
const REFUSED: &str = "refused by configuration";
const AS_OFFERED: &str = "RFC 3264 6";
