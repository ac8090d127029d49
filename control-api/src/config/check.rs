//! The rules between the values of a configuration.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use mrfp_protocol::tls::{Profile, ProfileConfig};

use super::{Config, KmsMode, SHARDS_MAX, Shards};

/// A rule that is broken.
#[derive(Debug)]
pub(super) struct Finding {
    /// The value that breaks it.
    pub(super) path: Vec<Step>,
    /// How.
    pub(super) message: String,
    /// What to do.
    pub(super) remedy: String,
}

/// One step towards a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Name(&'static str),
    Index(usize),
}

pub(super) type Check = Result<(), Finding>;

impl Config {
    /// Applies every rule; the first that is broken is told.
    pub(super) fn check(&self) -> Check {
        self.check_sip()?;
        self.check_media()?;
        self.check_tls()?;
        self.check_rooms()?;
        self.check_floors()?;
        self.check_realms()?;
        self.check_relay()?;
        self.check_mikey()?;
        self.check_kms()?;
        self.check_timers()?;
        self.check_limits()?;
        self.check_conference()?;
        self.check_events()?;
        self.check_border()?;
        self.check_ports()?;
        self.check_development_credential()?;
        self.check_kms_service()?;
        self.check_certificate()
    }

    fn check_sip(&self) -> Check {
        // RFC 3261 section 17.1.1.2: callers give up after 64 * T1.
        ensure(
            self.sip.queue_delay_max_milliseconds <= 32_000,
            &["sip", "queue_delay_max_milliseconds"],
            || "callers give up after 32 s".to_owned(),
            || "100 answers before a caller repeats itself; 0 refuses nobody".to_owned(),
        )
    }

    fn check_media(&self) -> Check {
        let shards = match self.media.shards {
            Shards::Named(_) => 1,
            Shards::Count(count) => usize::from(count),
        };
        ensure(
            (1..=SHARDS_MAX).contains(&shards),
            &["media", "shards"],
            || format!("{shards} shards cannot be had"),
            || format!("use \"auto\" or a number from 1 to {SHARDS_MAX}"),
        )?;
        ensure(
            self.media.port == 0 || usize::from(self.media.port) + shards - 1 <= 65_535,
            &["media", "port"],
            || format!("the ports of {shards} shards do not fit above {}", self.media.port),
            || "choose a lower port: shard n listens on port + n".to_owned(),
        )?;
        ensure(
            !self.media.listen.is_unspecified() || self.media.advertised.is_some(),
            &["media", "listen"],
            || format!("peers cannot connect to {}", self.media.listen),
            || "listen on one address, or set media.advertised to the one to write into SDP".into(),
        )?;
        ensure(
            self.media.advertised.is_none_or(|address| !address.is_unspecified()),
            &["media", "advertised"],
            || "peers cannot connect to an unspecified address".to_owned(),
            || "name the address under which peers reach this node".to_owned(),
        )
    }

    fn check_tls(&self) -> Check {
        ensure(
            self.tls.tls13 || !self.tls.suites.is_empty(),
            &["tls", "suites"],
            || "neither a TLS 1.2 suite nor TLS 1.3 is left".to_owned(),
            || "name a suite, or set tls.tls13 = true".to_owned(),
        )?;
        for (index, suite) in self.tls.suites.iter().enumerate() {
            let profile = ProfileConfig { suites: vec![suite.clone()], tls13: false };
            if let Err(error) = Profile::new(&profile) {
                return Err(Finding {
                    path: vec![Step::Name("tls"), Step::Name("suites"), Step::Index(index)],
                    message: error.0,
                    remedy: "use names of that list".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn check_timers(&self) -> Check {
        let timers = [
            ("shutdown_seconds", self.timers.shutdown_seconds, 1),
            ("unbound_seconds", self.timers.unbound_seconds, 1),
            ("establishment_seconds", self.timers.establishment_seconds, 1),
            ("recovery_seconds", self.timers.recovery_seconds, 0),
            ("rekeying_seconds", self.timers.rekeying_seconds, 0),
            ("idle_seconds", self.timers.idle_seconds, 1),
            ("send_stall_seconds", self.timers.send_stall_seconds, 1),
        ];
        for (name, seconds, seconds_min) in timers {
            ensure(
                (seconds_min..=SECONDS_MAX).contains(&seconds),
                &["timers", name],
                || format!("{seconds} seconds is outside {seconds_min} to {SECONDS_MAX}"),
                || "see docs/mrf.toml for what the timer guards".to_owned(),
            )?;
        }
        ensure(
            (1..=60_000).contains(&self.timers.slow_member_milliseconds),
            &["timers", "slow_member_milliseconds"],
            || "outside 1 to 60000 milliseconds".to_owned(),
            || "the whole conference waits this long for its slowest member".to_owned(),
        )
    }

    fn check_limits(&self) -> Check {
        let limits = &self.limits;
        let counts = [
            ("calls_max", limits.calls_max, 1),
            ("calls_per_user_max", limits.calls_per_user_max, 1),
            ("terminations_per_shard_max", limits.terminations_per_shard_max, 1),
            ("connections_per_shard_max", limits.connections_per_shard_max, 1),
            ("unbound_per_shard_max", limits.unbound_per_shard_max, 1),
            ("unbound_per_source_max", limits.unbound_per_source_max, 1),
            ("egress_bytes_max", limits.egress_bytes_max, EGRESS_BYTES_MIN),
        ];
        for (name, count, count_min) in counts {
            ensure(
                count >= count_min,
                &["limits", name],
                || format!("{count} is less than {count_min}"),
                || format!("use {count_min} or more"),
            )?;
        }
        ensure(
            limits.unbound_per_source_max <= limits.unbound_per_shard_max,
            &["limits", "unbound_per_source_max"],
            || format!("one source may have more than all ({})", limits.unbound_per_shard_max),
            || "keep it below limits.unbound_per_shard_max".to_owned(),
        )?;
        ensure(
            self.http.connections_max >= 1,
            &["http", "connections_max"],
            || "without connections neither health nor metrics can be read".to_owned(),
            || "use 1 or more".to_owned(),
        )?;
        ensure(
            (1..=STATISTICS_WINDOW_SECONDS_MAX).contains(&self.http.statistics_window_seconds),
            &["http", "statistics_window_seconds"],
            || "a window is between a second and a day".to_owned(),
            || "300 is what operators are used to".to_owned(),
        )
    }

    /// Two listeners of ours on one TCP port would fail at start, with less to go by.
    fn check_ports(&self) -> Check {
        let one = |address: SocketAddr| Ports { ip: address.ip(), first: address.port(), count: 1 };
        let shards = match self.media.shards {
            Shards::Named(_) => 1,
            Shards::Count(count) => count,
        };
        let of_shards = |ip, first| Ports { ip, first, count: shards };
        let mut listeners = vec![
            (vec!["sip", "tcp"], one(self.sip.tcp)),
            (vec!["http", "listen"], one(self.http.listen)),
            (vec!["media", "port"], of_shards(self.media.listen, self.media.port)),
        ];
        if self.kms.mode == KmsMode::Embedded {
            listeners.insert(2, (vec!["kms", "listen"], one(self.kms.listen)));
        }
        let relay = &self.relay;
        if relay.is_on() {
            listeners.push((vec!["relay", "listen"], one(relay.listen)));
            let own = of_shards(relay.listen.ip(), relay.own_port_first);
            listeners.push((vec!["relay", "own_port_first"], own));
        }
        for (role, side) in self.border.iter().flat_map(super::Border::sides) {
            listeners.push((vec!["border", role.name(), "tcp"], one(side.tcp)));
        }
        for (index, (path, ports)) in listeners.iter().enumerate() {
            for (earlier_path, earlier) in &listeners[..index] {
                ensure(
                    !ports.collides(earlier),
                    path,
                    || format!("same TCP port as {}", earlier_path.join(".")),
                    || "give each listener its own port, and each shard, too".to_owned(),
                )?;
            }
        }
        Ok(())
    }

    /// The embedded keys are public: whoever has them reads every conference.
    fn check_development_credential(&self) -> Check {
        if !self.has_development_credential() {
            return Ok(());
        }
        let listeners = [
            (["sip", "udp"], self.sip.udp.ip()),
            (["sip", "tcp"], self.sip.tcp.ip()),
            (["media", "listen"], self.media.listen),
            (["kms", "listen"], self.kms.listen.ip()),
        ];
        for (path, address) in listeners {
            ensure(
                address.is_loopback(),
                &path,
                || {
                    format!(
                        "{address} is beyond loopback, but the development credential is in use"
                    )
                },
                || {
                    "the development keys are printed in the source, so anybody could read the \
                     media: set [[kms.user]] and [[kms.ticket_key]] to keys of your own (openssl \
                     rand -hex 32)"
                        .to_owned()
                },
            )?;
        }
        Ok(())
    }
}

/// Consecutive TCP ports of one address.
struct Ports {
    ip: IpAddr,
    first: u16,
    count: u16,
}

impl Ports {
    /// Port 0 is the kernel's choice, which never collides.
    fn collides(&self, other: &Self) -> bool {
        let same_ip = self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified();
        let (own, others) = (self.numbers(), other.numbers());
        same_ip && own.start < others.end && others.start < own.end
    }

    fn numbers(&self) -> Range<u32> {
        let first = u32::from(self.first);
        if first == 0 { 0..0 } else { first..first + u32::from(self.count) }
    }
}

pub(super) fn ensure(
    holds: bool,
    path: &[&'static str],
    message: impl FnOnce() -> String,
    remedy: impl FnOnce() -> String,
) -> Check {
    if holds {
        return Ok(());
    }
    Err(Finding { path: steps(path), message: message(), remedy: remedy() })
}

fn steps(path: &[&'static str]) -> Vec<Step> {
    path.iter().map(|name| Step::Name(name)).collect()
}

/// A day: longer timers are typing errors.
pub(super) const SECONDS_MAX: u64 = 86_400;
/// One whole TLS record and the next must fit, or a member is slow by definition.
const EGRESS_BYTES_MIN: u32 = 64 * 1024;
/// Beyond a day the difference to the lifetime is of little use.
const STATISTICS_WINDOW_SECONDS_MAX: u64 = 86_400;
