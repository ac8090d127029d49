//! Faxes through gateways: small ones in this process, and the media plane alone.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser as _;
use loadgen::cli::Cli;
use loadgen::expectation::Violation;
use loadgen::report::FaxFigures;
use loadgen::wire::WireReport;
use loadgen::{Error, Outcome};
use mrfp_core::mp::{
    Bearer, Command, ContextId, Establishment, Event, InterfaceId, RealmId, RemoteConnectionPoint,
    ReserveConnectionPoint, Source, TerminationId, TlsRole,
};
use mrfp_core::{Config, GatewayConfig, GatewayProfile, Interface, Limits, Mrfp, ShardConfig};
use mrfp_protocol::tls::dtls::Credentials;
use mrfp_protocol::tls::{Fingerprint, ProfileConfig};

/// Points and certificates; gone with the test.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Files {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fax-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

fn run(points: &str, options: &[&str]) -> WireReport {
    let short = ["--duration", "500ms", "--warmup", "100ms", "--drain-timeout", "500ms"];
    let mut line = vec!["mrf-load", "run", "fax", "--points", points];
    line.extend(short);
    line.extend(options);
    match loadgen::run(Cli::parse_from(&line).command, &[]).unwrap() {
        Outcome::Wire(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn packets(report: &WireReport) -> FaxFigures {
    report.figures.fax.expect("a fax has figures")
}

/// What a gateway does with the tenth datagram of a session to the core side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Repeat,
    Damage,
    Swap,
}

/// Passes datagrams between the ends of one session, whose addresses it learns.
fn forwarder(fault: Fault) -> String {
    let [access, core] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let line = format!("{} {}\n", access.local_addr().unwrap(), core.local_addr().unwrap());
    for socket in [&access, &core] {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    }
    std::thread::spawn(move || {
        let mut peers: [Option<SocketAddr>; 2] = [None; 2];
        let (mut count, mut held) = (0, None::<Vec<u8>>);
        let mut datagram = [0; 2048];
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            for (index, (from, to)) in [(&access, &core), (&core, &access)].into_iter().enumerate()
            {
                let Ok((length, source)) = from.recv_from(&mut datagram) else { continue };
                peers[index] = Some(source);
                let Some(peer) = peers[1 - index] else { continue };
                let mut datagram = datagram[..length].to_vec();
                count += u32::from(index == 0);
                let fault = if index == 0 && count == 10 { fault } else { Fault::None };
                match fault {
                    Fault::None => {}
                    Fault::Lose => continue,
                    Fault::Repeat => drop(to.send_to(&datagram, peer)),
                    Fault::Damage => datagram[length / 2] ^= 1,
                    Fault::Swap => {
                        held = Some(datagram);
                        continue;
                    }
                }
                let _ = to.send_to(&datagram, peer);
                if let Some(held) = held.take_if(|_| index == 0) {
                    let _ = to.send_to(&held, peer);
                }
            }
        }
    });
    line
}

#[test]
fn packets_come_at_their_pace_and_each_is_accounted_for() {
    let files = Files::new();
    let lines: String = (0..3).map(|_| forwarder(Fault::None)).collect();
    let points = files.write("points", &lines);
    let report = run(&points, &["--sessions", "3", "--packet", "10ms", "--redundancy", "3"]);
    assert!(report.passed, "{}", report.to_text());
    let fax = packets(&report);
    // 100 a second of each session for at least 600 ms, and what the others say once a second.
    assert!(fax.sent >= 3 * 50, "{}", report.to_text());
    assert_eq!((fax.received, fax.lost, fax.duplicated, fax.reordered), (fax.sent, 0, 0, 0));
    assert!(fax.jitter_us.is_some());
    assert_eq!(report.figures.sessions, Some(6));
}

#[test]
fn each_fault_of_a_gateway_is_named() {
    for (fault, expected, counts) in [
        (Fault::Lose, Some(Violation::Lost), (1, 0, 0)),
        (Fault::Repeat, Some(Violation::Duplicated), (0, 1, 0)),
        (Fault::Damage, Some(Violation::Corrupted), (1, 0, 0)),
        // The network may do that; what it has done is told.
        (Fault::Swap, None, (0, 0, 1)),
    ] {
        let files = Files::new();
        let points = files.write("points", &forwarder(fault));
        let report = run(&points, &["--sessions", "1", "--packet", "10ms"]);
        assert_eq!(report.passed, expected.is_none(), "{}", report.to_text());
        if let Some(violation) = expected {
            assert_eq!(report.violations.counts.get(&violation), Some(&1), "{}", report.to_text());
        }
        let fax = packets(&report);
        assert_eq!((fax.lost, fax.duplicated, fax.reordered), counts, "{}", report.to_text());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let files = Files::new();
    for content in ["", "127.0.0.1:1 -"] {
        let points = files.write("points", content);
        let line = ["mrf-load", "run", "fax", "--points", &points];
        let refused = loadgen::run(Cli::parse_from(line).command, &[]);
        assert!(matches!(refused, Err(Error::Usage(_))), "{refused:?}");
    }
    for options in [&[][..], &["--target", "sip:fax@127.0.0.1"], &["--packet", "5ms"]] {
        let line = [&["mrf-load", "run", "fax"][..], options].concat();
        assert!(Cli::try_parse_from(line).is_err(), "{options:?}");
    }
}

/// A shard of a gateway with so many Contexts between DTLS and UDP; its points.
fn media_plane(contexts: u32, peer: &Fingerprint, stop: std::sync::mpsc::Receiver<()>) -> String {
    let (ready, lines) = std::sync::mpsc::channel();
    let peer = peer.clone();
    std::thread::spawn(move || {
        let local = [127, 0, 0, 1];
        let side = Interface { listen: local.into(), advertise: None };
        let config = Config {
            shards: vec![ShardConfig { core: None, listen: (local, 0).into(), advertise: None }],
            limits: Limits::default(),
            profile: ProfileConfig::default(),
            certificate: None,
            relay: None,
            gateway: Some(GatewayConfig {
                interfaces: vec![side, side],
                certificates_ready: contexts as usize,
                profile: GatewayProfile::default(),
            }),
        };
        let (bell, _receiver) = mrfp_io::doorbell().unwrap();
        let mut port = Mrfp::start(&config, &bell).unwrap().pop().unwrap();
        let mut points = vec![[const { None }; 2]; contexts as usize];
        for number in 0..2 * contexts {
            let is_access = number.is_multiple_of(2);
            let remote = RemoteConnectionPoint {
                address: None,
                establishment: Establishment::Incoming,
                tls_role: TlsRole::Server,
                fingerprints: if is_access { vec![peer.clone()] } else { Vec::new() },
                source: Source::Any,
                msrp: None,
            };
            let reserve = ReserveConnectionPoint {
                context: ContextId(u64::from(number / 2)),
                termination: TerminationId(u64::from(number)),
                realm: RealmId::default(),
                interface: InterfaceId(u16::from(!is_access)),
                bearer: if is_access { Bearer::DtlsOverUdp } else { Bearer::Udp },
                remote: Some(remote),
            };
            port.send(Command::ReserveConnectionPoint(Box::new(reserve))).unwrap();
        }
        let mut reserved = 0;
        while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            while let Some(event) = port.receive() {
                match event {
                    Event::ConnectionPointReserved { termination, address, fingerprint } => {
                        let number = termination.0 as usize;
                        points[number / 2][number % 2] = Some((address, fingerprint));
                        reserved += 1;
                    }
                    Event::Refused { reason, .. } => panic!("{reason:?}"),
                    _ => {}
                }
                if reserved == 2 * contexts {
                    let line = |point: &[Option<(SocketAddr, Option<Fingerprint>)>; 2]| {
                        let [Some((access, known_by)), Some((core, _))] = point else { panic!() };
                        format!("{access} {core} {}\n", known_by.as_ref().unwrap())
                    };
                    let _ = ready.send(points.iter().map(line).collect::<String>());
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    lines.recv_timeout(Duration::from_secs(20)).expect("the Contexts are reserved")
}

#[test]
fn faxes_pass_the_media_plane_which_takes_dtls_off_them() {
    let files = Files::new();
    let issued = rcgen::generate_simple_self_signed(vec!["ue.invalid".to_owned()]).unwrap();
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let credentials = Credentials::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let (_running, stop) = std::sync::mpsc::channel();
    let points = files.write("points", &media_plane(20, &credentials.fingerprint(), stop));
    let (certificate, key) = (files.write("c.pem", &certificate), files.write("k.pem", &key));
    let own = ["--certificate", certificate.as_str(), "--key", &key];
    let report = run(&points, &[&["--sessions", "20", "--packet", "20ms"][..], &own].concat());
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.figures.sessions, Some(40));
    assert!(report.config.suite.is_some());
    assert_eq!(packets(&report).lost, 0);
    assert!(packets(&report).sent > 20 * 20, "{}", report.to_text());
}
