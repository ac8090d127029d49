//! An SDP through the border: before and after, each changed line with the clause that asks for it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mrfp_core::mp::{RemoteConnectionPoint, Source};
use mrfp_protocol::tls::Fingerprint;

use super::shown;
use crate::border::sdp::{
    Change, Configured, Description, End, Ends, Exchange, Media, Peer, Plan, Profile, Rewritten,
    Rules, Sent, bearer, read,
};
use crate::border::{MediaSecurity, Refusal, SideRole};

/// The call that the description is from.
#[derive(Clone, Debug)]
pub struct BorderOptions {
    /// The operator's decisions.
    pub rules: Rules,
    /// The side that offers.
    pub from: SideRole,
    /// The one that answers.
    pub to: SideRole,
    /// What the registration of the UE has agreed.
    pub security: MediaSecurity,
    /// Whether UEs may be behind a NAT.
    pub nat: bool,
    /// Whether paths are left to CEMA where it is offered.
    pub cema: bool,
    /// Our connection point for the first m-line, on the side that offers and on the other. The next m-line
    /// has the next port.
    pub ends: [SocketAddr; 2],
    /// Of the certificate that a UE sees.
    pub fingerprint: Fingerprint,
}

/// What a description is to the one who reads it.
struct Passage<'a> {
    options: &'a BorderOptions,
    exchange: Exchange<'a>,
    offer: Description,
    plans: Vec<Plan>,
}

/// Writes what becomes of an offer and, where there is one, of the answer to it. `false`: one of them would
/// be refused.
///
/// # Errors
/// Those of `out`.
pub fn sdp_through_border(
    offer: &[u8],
    answer: Option<&[u8]>,
    options: &BorderOptions,
    out: &mut impl Write,
) -> io::Result<bool> {
    let offer = match read(offer) {
        Ok(offer) => offer,
        Err(refusal) => return write_refusal(out, &refusal),
    };
    let passage = Passage::new(options, offer);
    let [from, to] = [options.from, options.to].map(side_name);
    writeln!(out, "offer, {from} to {to}")?;
    passage.write_plans(out)?;
    match passage.exchange.offer(&passage.offer, &passage.plans, &mut Sent::default()) {
        Ok(rewritten) => write_lines(out, &rewritten)?,
        Err(refusal) => return write_refusal(out, &refusal),
    }
    let Some(answer) = answer else { return Ok(true) };
    writeln!(out, "\nanswer, {to} to {from}")?;
    let answered = read(answer).and_then(|answer| {
        passage.exchange.answer(&passage.offer, &passage.plans, &answer, &mut Sent::default())
    });
    match answered {
        Ok(answered) => {
            for (index, configured) in answered.media.iter().enumerate() {
                passage.write_configured(out, index, configured.as_ref())?;
            }
            write_lines(out, &answered.rewritten)?;
            Ok(true)
        }
        Err(refusal) => write_refusal(out, &refusal),
    }
}

impl<'a> Passage<'a> {
    fn new(options: &'a BorderOptions, offer: Description) -> Self {
        let peer = |role| {
            let is_behind_nat = options.nat && role == SideRole::Access;
            let source = if is_behind_nat { Source::Any } else { Source::Address };
            Peer { role, source, keeps_path: options.cema }
        };
        let (offerer, answerer) = (peer(options.from), peer(options.to));
        let exchange = Exchange { rules: &options.rules, offerer, answerer };
        let plan = |(index, media): (usize, &Media)| {
            let profile = exchange.decide(media, options.security, None);
            let end = |of: usize| {
                let mut address = options.ends[of];
                address.set_port(address.port().wrapping_add(u16::try_from(index).unwrap_or(0)));
                let role = [options.from, options.to][of];
                let is_protected = bearer(media.kind, &profile, role).is_protected();
                let fingerprint = is_protected.then(|| options.fingerprint.clone());
                End { address, fingerprint, tls_id: EXAMPLE_TLS_ID.to_owned() }
            };
            let ends = profile.is_anchored().then(|| Ends { offerer: end(0), answerer: end(1) });
            Plan { profile, ends }
        };
        let plans = offer.media.iter().enumerate().map(plan).collect();
        Self { options, exchange, offer, plans }
    }

    fn write_plans(&self, out: &mut impl Write) -> io::Result<()> {
        for (index, (media, plan)) in self.offer.media.iter().zip(&self.plans).enumerate() {
            let (number, protocol) = (index + 1, shown(media.protocol.as_bytes()));
            let profile = match &plan.profile {
                Profile::Passed => "passed, protected by the parties themselves",
                Profile::EndToAccessEdge => "protected up to the access edge (e2ae)",
                Profile::Plain => "anchored, not protected",
                Profile::Untouched if media.port == 0 => "switched off",
                Profile::Untouched => "not anchored, other media",
                Profile::Refused(_) => "refused",
            };
            writeln!(out, "{number}. m={} {protocol}: {profile}", shown(media.media.as_bytes()))?;
            for role in [self.options.from, self.options.to] {
                if plan.profile.is_anchored() {
                    let bearer = bearer(media.kind, &plan.profile, role);
                    writeln!(out, "   {:<8} {bearer:?}", side_name(role))?;
                }
            }
        }
        writeln!(out)
    }

    fn write_configured(
        &self,
        out: &mut impl Write,
        index: usize,
        configured: Option<&Configured>,
    ) -> io::Result<()> {
        let Some(Configured { offerer, answerer }) = configured else {
            return writeln!(out, "{}. no stream of ours", index + 1);
        };
        writeln!(out, "{}.", index + 1)?;
        for (role, point) in [(self.options.from, offerer), (self.options.to, answerer)] {
            let media = &self.offer.media[index];
            let bearer = bearer(media.kind, &self.plans[index].profile, role);
            write!(out, "   {:<8} {}", side_name(role), place(point))?;
            if !bearer.is_datagrams() {
                write!(out, ", TCP {:?}", point.establishment)?;
            }
            if bearer.is_protected() {
                let kind = if bearer.is_datagrams() { "DTLS" } else { "TLS" };
                write!(out, ", we are {kind} {:?}", point.tls_role)?;
            }
            writeln!(out)?;
            if let Some(paths) = &point.msrp {
                writeln!(out, "            To-Path comes as   {}", paths.presented)?;
                writeln!(out, "            From-Path comes as {}", paths.remote)?;
            }
        }
        Ok(())
    }
}

fn place(point: &RemoteConnectionPoint) -> String {
    point.address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
}

/// Unchanged lines, removed ones with `-`, new ones with `+` and the clause.
fn write_lines(out: &mut impl Write, rewritten: &Rewritten) -> io::Result<()> {
    for Change { line_before, line_after, clause } in rewritten.lines() {
        let [before, after] =
            [&line_before, &line_after].map(|it| it.as_ref().map(|it| shown(it.as_bytes())));
        match (before, after, clause) {
            (Some(before), _, None) => writeln!(out, "  {before}")?,
            (before, after, clause) => {
                let clause = clause.unwrap_or_default();
                if let Some(before) = before {
                    let why = if after.is_none() { clause } else { "" };
                    writeln!(out, "{}", format!("- {before:<CLAUSE_COLUMN$}  {why}").trim_end())?;
                }
                if let Some(after) = after {
                    writeln!(out, "+ {after:<CLAUSE_COLUMN$}  {clause}")?;
                }
            }
        }
    }
    Ok(())
}

fn write_refusal(out: &mut impl Write, refusal: &Refusal) -> io::Result<bool> {
    write!(out, "refused: {}", refusal.status)?;
    if let Some((code, text)) = &refusal.warning {
        write!(out, ", Warning {code}: {}", shown(text.as_bytes()))?;
    }
    writeln!(out)?;
    Ok(false)
}

fn side_name(role: SideRole) -> &'static str {
    match role {
        SideRole::Access => "access",
        SideRole::Core => "core",
        SideRole::Own => "own",
        SideRole::Foreign => "foreign",
    }
}

/// Where the clause stands: behind most lines, while a fingerprint may push it away.
const CLAUSE_COLUMN: usize = 58;

/// What stands where the node would put 144 random bits.
const EXAMPLE_TLS_ID: &str = "EXAMPLEofArandom24letter";

/// Of our certificate, where nothing else is said.
#[must_use]
pub fn example_fingerprint() -> Fingerprint {
    let digits: Vec<String> = (0..32).map(|byte| format!("{:02X}", byte % 16 * 0x11)).collect();
    Fingerprint::parse(&format!("sha-256 {}", digits.join(":"))).expect("of the right form")
}

/// Our media address on a side, where nothing else is said: of the documentation networks (RFC 5737).
#[must_use]
pub fn example_end(role: SideRole) -> SocketAddr {
    match role {
        SideRole::Access | SideRole::Foreign => {
            (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 30_001).into()
        }
        SideRole::Core | SideRole::Own => (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_001).into(),
    }
}
