//! Session descriptions through the border, from text files: what a party sends, and what the other one
//! reads. `tests/border_sdp/README.md` says how they are written.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use control_api::border::sdp::{
    Configured, Description, End, Ends, Exchange, Peer, Plan, Profile, Rewritten, Rules, Sent,
    Start, bearer, is_afresh, read,
};
use control_api::border::{MediaSecurity, Refusal, SideRole};
use control_api::sdp::Fingerprint;
use mrfp_core::mp::{MsrpPaths, RemoteConnectionPoint, Source};
use proptest::prelude::*;

/// One file.
struct Golden {
    path: PathBuf,
    /// Everything before the first section, as it is.
    head: String,
    /// Names and texts of the sections.
    sections: Vec<(String, String)>,
}

/// What a file says about its call, and what is remembered from exchange to exchange.
struct Call {
    rules: Rules,
    security: MediaSecurity,
    caller: Peer,
    callee: Peer,
    /// What the parties were sent last, and have sent last.
    sent: [Sent; 2],
    heard: [Option<Description>; 2],
    previous: Vec<Profile>,
}

#[test]
fn descriptions_become_what_the_files_say() {
    let mut wrong = String::new();
    let files = golden_files();
    assert!(files.len() > 40, "{} files", files.len());
    for path in files {
        let golden = Golden::load(&path);
        let told = golden.replayed();
        if std::env::var_os(WRITE_VARIABLE).is_some() {
            golden.store(&told);
        }
        for ((name, expected), (_, actual)) in golden.sections.iter().zip(&told) {
            if expected != actual {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let _ = writeln!(wrong, "{file}, {name}:\n{}", difference(expected, actual));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n({WRITE_VARIABLE}=1 writes the files anew: read them)");
}

#[test]
fn what_was_written_reads_as_it_was_meant() {
    for path in golden_files() {
        let golden = Golden::load(&path);
        let of = |name: &'static str| {
            golden.sections.iter().filter(move |(own, _)| own.starts_with(name)).map(|it| &it.1)
        };
        let pairs =
            of("offer in").zip(of("offer out")).chain(of("answer in").zip(of("answer out")));
        for (before, after) in pairs.filter(|(_, after)| after.starts_with("v=0")) {
            let [before, after] = [before, after].map(|text| read(crlf(text).as_bytes()));
            let (before, after) = (before.expect("was read"), after.expect("is to be read"));
            assert_eq!(before.media.len(), after.media.len(), "{}", path.display());
            for (old, new) in before.media.iter().zip(&after.media) {
                assert_eq!(old.kind, new.kind, "{}", path.display());
                assert_eq!(old.format, new.format, "{}", path.display());
                assert_eq!(old.key_management, new.key_management, "{}", path.display());
                assert_eq!(old.msrp.is_some(), new.msrp.is_some(), "{}", path.display());
                // What is not anchored is where it was.
                let is_ours =
                    new.address.is_some_and(|address| OURS.contains(&address.to_string().as_str()));
                assert!(is_ours || old.address == new.address, "{}", path.display());
            }
        }
    }
}

#[test]
fn a_description_that_nothing_is_done_to_stays_byte_for_byte() {
    for ending in ["\r\n", "\n"] {
        for path in golden_files() {
            for (name, text) in &Golden::load(&path).sections {
                if name == "plane" || !text.starts_with("v=0") {
                    continue;
                }
                // What is said to us goes no further.
                let lines = text.lines().filter(|line| !line.starts_with("a=3ge2ae"));
                let text: String = lines.flat_map(|line| [line, ending]).collect();
                if let Some(written) = untouched(text.as_bytes()) {
                    assert_eq!(String::from_utf8(written).as_ref(), Ok(&text));
                } else {
                    assert!(path.ends_with("malformed.txt"), "{}", path.display());
                }
            }
        }
    }
    let odd = b"v=0\no=a 1 1 IN IP4 192.0.2.9\ns=\xe4\xf6\xff\r\nx=?\nt=0 0\nm=audio 4 RTP/AVP 0\ny=2\na=";
    assert_eq!(untouched(odd).as_deref(), Some(&odd[..]));
}

proptest! {
    #[test]
    fn garbage_is_refused_or_passes_whole(
        text in prop::collection::vec(prop::sample::select(WORDS), 0..60),
        other in prop::collection::vec(prop::sample::select(WORDS), 0..60),
        head in prop::sample::select(HEADS),
    ) {
        let (text, other) = (format!("v=0\r\n{}", text.concat()), format!("v=0\r\n{}", other.concat()));
        exchange_is_sound(head, &text, &other);
    }

    #[test]
    fn damaged_descriptions_are_refused_or_pass_whole(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 0..6),
        damages_of_answer in prop::collection::vec(damage(), 0..3),
    ) {
        let files = golden_files();
        let golden = Golden::load(&files[file.index(files.len())]);
        let of = |name: &str| {
            let found = golden.sections.iter().find(|(own, _)| own.starts_with(name));
            found.map_or_else(String::new, |(_, text)| crlf(text))
        };
        let damaged = |text: String, damages: &[Damage]| {
            damages.iter().fold(text, |text, damage| damage.done_to(&text))
        };
        let (offer, answer) = (of("offer in"), of("answer in"));
        exchange_is_sound(
            &golden.head,
            &damaged(offer, &damages),
            &damaged(answer, &damages_of_answer),
        );
    }

    #[test]
    fn lines_that_nobody_knows_pass(unknown in "a=[a-bd-z]{9}(:[ -~]{0,40})?", at in 0_usize..20) {
        let text = Golden::load(&directory().join("msrp_e2ae_originated.txt"));
        let offer = &text.sections[0].1;
        let mut lines: Vec<&str> = offer.lines().collect();
        lines.insert(1 + at.min(lines.len() - 1), &unknown);
        let mut call = Call::read(&text.head);
        let (rewritten, ..) = call.offer(0, &crlf(&(lines.join("\n") + "\n"))).expect("passes");
        let written = String::from_utf8(rewritten.sdp()).expect("text");
        prop_assert!(written.split("\r\n").any(|line| line == unknown));
    }
}

/// Something that happens to a description's lines.
#[derive(Clone, Debug)]
enum Damage {
    Lost(prop::sample::Index),
    Twice(prop::sample::Index),
    Moved(prop::sample::Index, prop::sample::Index),
    Strange(prop::sample::Index, &'static str),
    Cut(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        place().prop_map(Damage::Lost),
        place().prop_map(Damage::Twice),
        (place(), place()).prop_map(|(from, to)| Damage::Moved(from, to)),
        (place(), prop::sample::select(WORDS)).prop_map(|(at, word)| Damage::Strange(at, word)),
        (place(), place()).prop_map(|(at, length)| Damage::Cut(at, length)),
    ]
}

impl Damage {
    fn done_to(&self, text: &str) -> String {
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        if lines.is_empty() {
            return String::new();
        }
        let count = lines.len();
        match self {
            Self::Lost(at) => drop(lines.remove(at.index(count))),
            Self::Twice(at) => lines.insert(at.index(count), lines[at.index(count)]),
            Self::Moved(from, to) => {
                let line = lines.remove(from.index(count));
                lines.insert(to.index(count), line);
            }
            Self::Strange(at, word) => lines.insert(at.index(count), word),
            Self::Cut(at, length) => {
                let line = &mut lines[at.index(count)];
                *line = &line[..length.index(line.len())];
            }
        }
        lines.concat()
    }
}

/// Whatever is offered and answered: what passes is a description of the same streams, every stream that is
/// anchored is at our address, protection is where it belongs, and the same again is the same again.
fn exchange_is_sound(head: &str, offer: &str, answer: &str) {
    let mut call = Call::read(head);
    let Ok((rewritten, offer, plans)) = call.offer(0, offer) else { return };
    is_sound(&rewritten, &offer, &offer, &plans, call.callee);
    let exchange = Exchange { rules: &call.rules, offerer: call.caller, answerer: call.callee };
    let again = exchange.offer(&offer, &plans, &mut call.sent[1]).expect("as before");
    assert_eq!(again.sdp(), rewritten.sdp());
    let Ok(answer) = read(answer.as_bytes()) else { return };
    if let Ok(answered) = exchange.answer(&offer, &plans, &answer, &mut call.sent[0]) {
        is_sound(&answered.rewritten, &answer, &offer, &plans, call.caller);
        for (configured, plan) in answered.media.iter().zip(&plans) {
            let Some(configured) = configured else { continue };
            assert!(plan.profile.is_anchored());
            for (point, peer) in
                [(&configured.offerer, call.caller), (&configured.answerer, call.callee)]
            {
                let is_protected =
                    plan.profile == Profile::EndToAccessEdge && peer.role == SideRole::Access;
                assert_eq!(is_protected, !point.fingerprints.is_empty());
            }
        }
    }
}

fn is_sound(
    rewritten: &Rewritten,
    from: &Description,
    offer: &Description,
    plans: &[Plan],
    to: Peer,
) {
    let text = String::from_utf8_lossy(&rewritten.sdp()).into_owned();
    let read = read(text.as_bytes()).unwrap_or_else(|refusal| panic!("{refusal:?}:\n{text}"));
    assert_eq!(read.media.len(), from.media.len(), "{text}");
    for (index, (new, old)) in read.media.iter().zip(&from.media).enumerate() {
        let plan = &plans[index];
        assert_eq!((new.kind, &new.format), (old.kind, &old.format), "{text}");
        let is_live = offer.media[index].port != 0 && old.port != 0;
        if !is_live || !plan.profile.is_anchored() {
            let is_off = new.port == 0 || plan.profile == Profile::Untouched;
            assert!(is_off, "{text}");
            continue;
        }
        let is_ours = new.address.is_some_and(|it| OURS.contains(&it.to_string().as_str()));
        assert!(is_ours || new.address.is_some_and(|it| it.is_unspecified()), "{text}");
        if plan.profile == Profile::EndToAccessEdge {
            let is_protected = to.role == SideRole::Access;
            assert_eq!(new.protected, is_protected, "{text}");
            assert_eq!(new.fingerprints.len(), usize::from(is_protected), "{text}");
            assert!(is_protected || (new.e2ae, &new.tls_id) == (None, &None), "{text}");
        }
    }
}

impl Golden {
    fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("readable");
        let mut parts = text.split("\n--- ");
        let head = parts.next().expect("a head").to_owned() + "\n";
        let sections = parts.map(|part| {
            let (name, text) = part.split_once('\n').unwrap_or((part, ""));
            let text = if text.is_empty() || text.ends_with('\n') {
                text.to_owned()
            } else {
                format!("{text}\n")
            };
            (name.to_owned(), text)
        });
        Self { path: path.to_owned(), head, sections: sections.collect() }
    }

    fn store(&self, sections: &[(String, String)]) {
        let mut text = self.head.trim_end().to_owned() + "\n";
        for (name, section) in sections {
            let _ = write!(text, "--- {name}\n{section}");
        }
        fs::write(&self.path, text).expect("writable");
    }

    /// The sections as they come out; what goes in is as it was.
    fn replayed(&self) -> Vec<(String, String)> {
        let mut call = Call::read(&self.head);
        let mut told: Vec<(String, String)> = Vec::new();
        let mut under_way = None;
        let mut plane = String::new();
        for (name, text) in &self.sections {
            let told_now = match name.as_str() {
                "offer in" | "offer in from the callee" => {
                    let from = usize::from(name.ends_with("callee"));
                    let (outcome, notes) = call.noted_offer(from, &crlf(text));
                    plane = notes;
                    under_way = Some((from, outcome));
                    text.clone()
                }
                "answer in" => text.clone(),
                "offer out" => match &under_way {
                    Some((_, Ok((rewritten, ..)))) => shown(rewritten),
                    Some((_, Err(refusal))) => refused(refusal),
                    None => panic!("{}: nothing was offered", self.path.display()),
                },
                "answer out" => {
                    let (_, answer) = told.last().expect("an answer that came in");
                    let (from, Ok((_, offer, plans))) = under_way.as_ref().expect("an offer")
                    else {
                        panic!("{}: an answer to what was refused", self.path.display());
                    };
                    match call.answer(*from, offer, plans, &crlf(answer)) {
                        Ok((rewritten, notes)) => {
                            plane += &notes;
                            shown(&rewritten)
                        }
                        Err(refusal) => refused(&refusal),
                    }
                }
                "plane" => std::mem::take(&mut plane),
                other => panic!("{}: what is {other:?}?", self.path.display()),
            };
            told.push((name.clone(), told_now));
        }
        told
    }
}

type Offered = (Rewritten, Description, Vec<Plan>);

impl Call {
    fn read(head: &str) -> Self {
        let mut rules = Rules::default();
        let mut security = MediaSecurity::default();
        let mut roles = [SideRole::Access, SideRole::Core];
        let mut access_source = Source::Any;
        let mut keeps_path = [true, true];
        for line in head.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once(": ") else { continue };
            match (key, value) {
                ("offerer", value) => roles[0] = role(value),
                ("answerer", value) => roles[1] = role(value),
                ("security", value) => {
                    let has = |name| value.split(' ').any(|one| one == name);
                    security.msrp_tls = has("msrp-tls");
                    security.bfcp_tls = has("bfcp-tls");
                    security.udptl_dtls = has("udptl-dtls");
                }
                ("nat", "off") => access_source = Source::Address,
                ("path", "ours towards the answerer") => keeps_path[1] = false,
                ("path", "ours") => keeps_path = [false, false],
                ("rules", value) => {
                    for rule in value.split(", ") {
                        match rule {
                            "rcs_compat" => rules.rcs_compat = true,
                            "refuse_other_media" => rules.refuse_other_media = true,
                            "show_topology" => rules.hide_topology = false,
                            "incoming-triggers" => rules.start = Start::IncomingTriggers,
                            "dtls_id" => rules.dtls_id = true,
                            other => panic!("which rule is {other:?}?"),
                        }
                    }
                }
                other => panic!("what is {other:?}?"),
            }
        }
        let peer = |index: usize| {
            let role = roles[index];
            let source = if role == SideRole::Access { access_source } else { Source::Address };
            Peer { role, source, keeps_path: keeps_path[index] }
        };
        let (caller, callee) = (peer(0), peer(1));
        let sent = [Sent::default(), Sent::default()];
        Self { rules, security, caller, callee, sent, heard: [None, None], previous: Vec::new() }
    }

    fn peers(&self, from: usize) -> (Peer, Peer) {
        if from == 0 { (self.caller, self.callee) } else { (self.callee, self.caller) }
    }

    fn offer(&mut self, from: usize, text: &str) -> Result<Offered, Refusal> {
        self.noted_offer(from, text).0
    }

    /// The offer and, per m-line, its profile and what is reserved for it.
    fn noted_offer(&mut self, from: usize, text: &str) -> (Result<Offered, Refusal>, String) {
        let mut notes = String::new();
        let offer = match read(text.as_bytes()) {
            Ok(offer) => offer,
            Err(refusal) => return (Err(refusal), notes),
        };
        let (offerer, answerer) = self.peers(from);
        let exchange = Exchange { rules: &self.rules, offerer, answerer };
        let mut plans = Vec::new();
        for (index, media) in offer.media.iter().enumerate() {
            let profile = exchange.decide(media, self.security, self.previous.get(index));
            let end = |role| end(role, index, bearer(media.kind, &profile, role).is_protected());
            let is_anchored = profile.is_anchored();
            let ends = is_anchored
                .then(|| Ends { offerer: end(offerer.role), answerer: end(answerer.role) });
            let number = index + 1;
            let _ = match &profile {
                Profile::Refused(refusal) => {
                    writeln!(notes, "{number}. {}", refused(refusal).trim())
                }
                profile => writeln!(notes, "{number}. {profile:?}"),
            };
            for (who, role) in [("offerer", offerer.role), ("answerer", answerer.role)] {
                if is_anchored {
                    let _ = writeln!(notes, "   {who}: {:?}", bearer(media.kind, &profile, role));
                }
            }
            if is_anchored && let Some(before) = &self.heard[from] {
                let _ = writeln!(notes, "   offerer: afresh {}", is_afresh(before, &offer, index));
            }
            plans.push(Plan { profile, ends });
        }
        self.previous = plans.iter().map(|plan| plan.profile.clone()).collect();
        let rewritten = exchange.offer(&offer, &plans, &mut self.sent[1 - from]);
        self.heard[from] = Some(offer.clone());
        (rewritten.map(|rewritten| (rewritten, offer, plans)), notes)
    }

    /// The answer and, per m-line, how the connection points are configured.
    fn answer(
        &mut self,
        from: usize,
        offer: &Description,
        plans: &[Plan],
        text: &str,
    ) -> Result<(Rewritten, String), Refusal> {
        let answer = read(text.as_bytes())?;
        let (offerer, answerer) = self.peers(from);
        let exchange = Exchange { rules: &self.rules, offerer, answerer };
        let answered = exchange.answer(offer, plans, &answer, &mut self.sent[from])?;
        let mut notes = String::new();
        for (index, configured) in answered.media.iter().enumerate() {
            let Some(Configured { offerer, answerer }) = configured else { continue };
            let _ = writeln!(notes, "{}. offerer: {}", index + 1, point(offerer));
            let _ = writeln!(notes, "   answerer: {}", point(answerer));
            if let Some(before) = &self.heard[1 - from] {
                let _ =
                    writeln!(notes, "   answerer: afresh {}", is_afresh(before, &answer, index));
            }
        }
        self.heard[1 - from] = Some(answer);
        Ok((answered.rewritten, notes))
    }
}

fn role(name: &str) -> SideRole {
    match name {
        "access" => SideRole::Access,
        "core" => SideRole::Core,
        "own" => SideRole::Own,
        "foreign" => SideRole::Foreign,
        other => panic!("which side is {other:?}?"),
    }
}

/// Our connection point for an m-line.
fn end(role: SideRole, index: usize, is_protected: bool) -> End {
    let (host, port) = match role {
        SideRole::Access | SideRole::Foreign => (OURS[0], 30_001),
        SideRole::Core | SideRole::Own => (OURS[1], 40_001),
    };
    let host: IpAddr = host.parse().expect("an address");
    let fingerprint = Fingerprint::parse(FINGERPRINT).expect("a fingerprint");
    End {
        address: SocketAddr::new(host, port + u16::try_from(index).expect("few")),
        fingerprint: is_protected.then_some(fingerprint),
        tls_id: "OurAssociationOf24Letter".to_owned(),
    }
}

fn point(point: &RemoteConnectionPoint) -> String {
    let address = point.address.map_or("nowhere".to_owned(), |address| address.to_string());
    let mut text = format!(
        "{address} {:?}, from {:?}, TLS {:?}, {} fingerprint(s)",
        point.establishment,
        point.source,
        point.tls_role,
        point.fingerprints.len()
    );
    if let Some(MsrpPaths { presented, remote }) = &point.msrp {
        let _ = write!(text, "\n     presented {presented}\n     remote    {remote}");
    }
    text
}

fn shown(rewritten: &Rewritten) -> String {
    let text = String::from_utf8(rewritten.sdp()).expect("text");
    assert!(text.split_inclusive('\n').all(|line| line.ends_with("\r\n")), "{text}");
    let from_changes: String = rewritten
        .lines()
        .into_iter()
        .inspect(|line| assert_eq!(line.clause.is_some(), line.line_before != line.line_after))
        .filter_map(|line| Some(line.line_after? + "\r\n"))
        .collect();
    assert_eq!(from_changes, text, "the changes tell of another text");
    text.replace('\r', "")
}

fn refused(refusal: &Refusal) -> String {
    let (code, text) = refusal.warning.as_ref().expect("says why");
    format!("refused {} Warning {code}: {text}\n", refusal.status)
}

fn untouched(text: &[u8]) -> Option<Vec<u8>> {
    let rules = Rules::default();
    let peer = |role| Peer { role, source: Source::Any, keeps_path: true };
    let exchange =
        Exchange { rules: &rules, offerer: peer(SideRole::Own), answerer: peer(SideRole::Foreign) };
    let description = read(text).ok()?;
    let plan = Plan { profile: Profile::Untouched, ends: None };
    let plans = vec![plan; description.media.len()];
    Some(exchange.offer(&description, &plans, &mut Sent::default()).ok()?.sdp())
}

/// Lines of one that are not in the other, in their places.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let same = old_rest.iter().rev().zip(new_rest.iter().rev());
    let end = same.take_while(|(old, new)| old == new).count();
    let mut text = String::new();
    for line in &old[start.saturating_sub(2)..start] {
        let _ = writeln!(text, "    {line}");
    }
    for line in &old_rest[..old_rest.len() - end] {
        let _ = writeln!(text, "  - {line}");
    }
    for line in &new_rest[..new_rest.len() - end] {
        let _ = writeln!(text, "  + {line}");
    }
    text
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/border_sdp")
}

fn golden_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).expect("the directory");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    files
}

const WRITE_VARIABLE: &str = "MRF_WRITE_BORDER_SDP";

/// Addresses of the border in the files: towards access or foreign, and towards core or own.
const OURS: [&str; 2] = ["203.0.113.1", "192.0.2.1"];

const FINGERPRINT: &str = "sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";

/// Calls that garbage is offered in.
const HEADS: &[&str] = &[
    "offerer: access\nanswerer: core\nsecurity: msrp-tls bfcp-tls udptl-dtls\n",
    "offerer: core\nanswerer: access\nsecurity: msrp-tls bfcp-tls udptl-dtls\n",
    "offerer: core\nanswerer: access\npath: ours\nrules: rcs_compat, refuse_other_media\n",
    "offerer: own\nanswerer: foreign\n",
];

/// What garbage is made of.
const WORDS: &[&str] = &[
    "o=- 1 1 IN IP4 192.0.2.9\r\n",
    "c=IN IP4 198.51.100.7\r\n",
    "c=IN IP4 0.0.0.0\r\n",
    "c=IN IP6 ::1\r\n",
    "c=IN IP4 name.invalid\r\n",
    "m=message 7000 TCP/MSRP *\r\n",
    "m=message 7000 TCP/TLS/MSRP *\r\n",
    "m=message 0 TCP/MSRP *\r\n",
    "m=application 9 TCP/TLS/BFCP *\r\n",
    "m=application 9 TCP/BFCP *\r\n",
    "m=image 6000 UDP/TLS/UDPTL t38\r\n",
    "m=image 6000 udptl t38\r\n",
    "m=audio 6000 RTP/AVP 0\r\n",
    "a=setup:active\r\n",
    "a=setup:passive\r\n",
    "a=setup:actpass\r\n",
    "a=setup:holdconn\r\n",
    "a=setup\r\n",
    "a=setup:\r\n",
    "a=path:msrps://a.invalid/x;tcp\r\n",
    "a=path:msrp://198.51.100.7:7000/x;tcp msrp://10.0.0.1:7000/y;tcp\r\n",
    "a=path:msrp:/x\r\n",
    "a=path\r\n",
    "a=msrp-cema\r\n",
    "a=fingerprint:sha-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB\r\n",
    "a=fingerprint:md5 4A\r\n",
    "a=3ge2ae:requested\r\n",
    "a=3ge2ae:applied\r\n",
    "a=tls-id:abcdefghijklmnopqrstuvwx\r\n",
    "a=dtls-id:\r\n",
    "a=key-mgmt:mikey AQ==\r\n",
    "b=AS:0\r\n",
    "b=TIAS:18446744073709551615\r\n",
    "b=AS:x\r\n",
    "b=CT:3\r\n",
    "\r\n",
    "=\r\n",
    "a=\r\n",
    "\n",
    "\u{fffd}",
];
