//! The command line of calls through a border.

use std::net::SocketAddr;

use clap::Args;
use mrfp_protocol::tls::Identity;

use super::wire::parse_address;
use super::{Target, WireOptions, parse_rate, parse_target};
use crate::border::Direction;
use crate::border::messages::identities;
use crate::wire::plan::{Gateway, Plan, Protection, Work};

/// Whom the calls go through, and how.
#[derive(Args, Clone, Debug)]
pub struct ThroughBorder {
    /// The border on its access side, and whom the UEs call there: NAME-0, NAME-1, …
    #[arg(long, value_name = "SIP-URI", value_parser = parse_target)]
    pub target: Target,

    /// Where the border sends what goes to the core, `HOST:PORT` or a port of 127.0.0.1: we listen there,
    /// as its next hop.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub core: SocketAddr,

    /// Calls, each between a UE and a core peer.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sessions: u32,

    /// Calls set up, and later torn down, per second.
    #[arg(long, value_name = "N/s", default_value = "100/s", value_parser = parse_rate)]
    pub rate: f64,

    /// Who calls: the UEs; their peers, for which the UEs register first; or both in turn.
    #[arg(long, value_enum, default_value_t = Direction::Originating)]
    pub direction: Direction,
}

/// `run e2ae`.
#[derive(Args, Clone, Debug)]
pub struct E2aeRun {
    /// Whom the calls go through.
    #[command(flatten)]
    pub border: ThroughBorder,

    /// UEs and peers know CEMA (RFC 6714), so the border may leave paths as they are.
    #[arg(long)]
    pub cema: bool,

    /// The only TLS suite to offer, by OpenSSL name: `TLS_AES_128_GCM_SHA256`. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,

    /// The rest.
    #[command(flatten)]
    pub wire: WireOptions,
}

impl E2aeRun {
    /// What its media come to, and the certificates of the UEs. An error is the user's.
    pub fn plan(&self) -> Result<(Plan, Vec<Identity>), String> {
        let share = self.wire.spread.own();
        if self.wire.spread.to_start().is_some() || self.wire.spread.share.is_some() {
            return Err("--processes: there is one --core for the border to send to".to_owned());
        }
        let identities = identities(self.border.sessions);
        let protection = Protection::announced(identities.clone(), &self.suite)?;
        let work = Work::Gateway(Gateway { points: Vec::new(), sink: None, called: true });
        let targets = vec![self.border.target.address];
        let links = 0..2 * self.border.sessions;
        Ok((self.wire.plan(share, targets, work, protection, links)?, identities))
    }
}
