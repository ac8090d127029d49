//! Floor control without SIP: the node's floor control server behind a plain TCP loop, and what is
//! wrong with servers that go by other rules than the run expects.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use clap::Parser as _;
use loadgen::Outcome;
use loadgen::cli::Cli;
use loadgen::expectation::Violation;
use loadgen::wire::WireReport;
use mrfp_core::floor::{
    Channel, ConferencePolicy, FloorLimits, FloorOrder, FloorPolicy, FloorServer, HolderChange,
    Output, Participant, REQUEST_BYTES_MAX, Received, ThirdPartyRequests, User,
};
use mrfp_io::Key;
use mrfp_protocol::bfcp::{Framer, Header, Transport};

const CONFERENCES: u32 = 3;
const USERS: u16 = 4;
const FLOORS: u16 = 2;

/// Connections by Termination: where the server's words go.
#[derive(Default)]
struct Streams(HashMap<Key, TcpStream>);

impl Output for Streams {
    fn send(&mut self, termination: Key, bytes: &[u8]) {
        if let Some(stream) = self.0.get_mut(&termination) {
            // Whoever has gone hears nothing.
            let _ = stream.write_all(bytes);
        }
    }

    fn holder_changed(&mut self, _: HolderChange) {}

    fn close(&mut self, _: Key) {}
}

struct Server {
    floors: FloorServer,
    streams: Streams,
    users: HashMap<(u32, u16), (Participant, Key)>,
    begun: Instant,
}

impl Server {
    fn new(policy: &FloorPolicy) -> Self {
        let mut floors = FloorServer::new(FloorLimits::default());
        let mut users = HashMap::new();
        for conference in 1..=CONFERENCES {
            let third_party_requests = ThirdPartyRequests::Nobody;
            let rules = ConferencePolicy { grace_ns: 0, third_party_requests };
            floors.open_conference(conference, rules).unwrap();
            for floor in 1..=FLOORS {
                floors.add_floor(conference, floor, policy.clone()).unwrap();
            }
            for user_id in 1..=USERS {
                let index = conference * 100 + u32::from(user_id);
                let termination = Key { index, generation: 0 };
                let (display_name, uri) = (String::new(), String::new());
                let user = User { user_id, display_name, uri, secured: false, termination };
                let participant = floors.add_user(conference, user).unwrap();
                users.insert((conference, user_id), (participant, termination));
            }
        }
        Self { floors, streams: Streams::default(), users, begun: Instant::now() }
    }

    /// Of the first message of a connection.
    fn connect(&mut self, message: &[u8], stream: &TcpStream) -> Participant {
        let header = Header::parse(message, Transport::Reliable).unwrap();
        let (participant, termination) = self.users[&(header.conference_id, header.user_id)];
        self.streams.0.insert(termination, stream.try_clone().unwrap());
        let channel = Channel { transport: Transport::Reliable, secured: false };
        self.floors.connect(participant, channel);
        participant
    }

    fn receive(&mut self, participant: Participant, message: &[u8]) -> Received {
        let now_ns = self.begun.elapsed().as_nanos() as u64;
        let received = self.floors.receive(participant, message, now_ns, &mut self.streams);
        self.floors.flush(now_ns, &mut self.streams);
        received
    }
}

fn serve(server: &Mutex<Server>, mut stream: TcpStream) {
    let framer = Framer::new(REQUEST_BYTES_MAX);
    let (mut input, mut chunk, mut participant) = (Vec::new(), vec![0; 65536], None);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => input.extend_from_slice(&chunk[..length]),
        }
        let mut at = 0;
        while let Some(message) = framer.next(&input[at..]).unwrap() {
            at += message.len();
            let mut server = server.lock().unwrap();
            let who = *participant.get_or_insert_with(|| server.connect(message, &stream));
            if server.receive(who, message) == Received::Close {
                return;
            }
        }
        input.drain(..at);
    }
}

fn policy() -> FloorPolicy {
    FloorPolicy {
        order: FloorOrder::FirstComeFirstServed,
        holders_max: 1,
        requests_per_user_max: 1,
        holding_max_ns: None,
    }
}

fn start(policy: &FloorPolicy) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Mutex::new(Server::new(policy)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (server, stream) = (Arc::clone(&server), stream.unwrap());
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || serve(&server, stream));
        }
    });
    address
}

/// All participants of a server that goes by these rules.
fn run(policy: &FloorPolicy, options: &[&str]) -> WireReport {
    let target = format!("tcp://{}", start(policy));
    let mut line = vec!["mrf-load", "run", "bfcp", "--target", &target, "--sessions", "12"];
    line.extend(["--room-size", "4", "--duration", "500ms", "--warmup", "100ms"]);
    line.extend(["--drain-timeout", "1s"]);
    line.extend(options);
    match loadgen::run(Cli::parse_from(&line).command, &[]).unwrap() {
        Outcome::Wire(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn assert_good(report: &WireReport) {
    assert!(report.passed, "{}", report.to_text());
    assert_eq!(report.figures.sessions, Some(12));
    assert!(report.figures.deliveries > Some(10), "{}", report.to_text());
    // Each floor that was granted is two primitives that were answered.
    assert!(report.figures.messages > report.figures.deliveries);
    assert!(report.answer_latency.count > 0 && report.figures.latency_us.is_some());
}

fn assert_found(report: &WireReport, violation: Violation) {
    assert!(!report.passed);
    assert!(report.violations.counts.contains_key(&violation), "{}", report.to_text());
}

#[test]
fn a_good_server_passes_in_the_closed_loop() {
    assert_good(&run(&policy(), &["--window", "2", "--floors", "2"]));
    assert_good(&run(&policy(), &["--floors", "2", "--subscribe", "--threads", "2"]));
}

#[test]
fn several_holders_and_several_requests_pass_where_they_are_expected() {
    let policy = FloorPolicy { holders_max: 3, requests_per_user_max: 4, ..policy() };
    let report = run(&policy, &["--window", "8", "--floors", "2", "--holders", "3"]);
    assert_good(&report);
}

#[test]
fn latency_of_the_open_loop_has_the_wait_for_others_in_it() {
    let report = run(&policy(), &["--message-rate", "10", "--hold", "10ms"]);
    assert_good(&report);
    // Forty floors a second of a conference, 10 ms each: somebody has waited for another one.
    assert!(report.figures.latency_us.unwrap().max >= report.answer_latency.p50_us);
    assert!(report.schedule_slip.count > 0);
}

#[test]
fn silent_participants_say_hello_and_nothing_else() {
    let report = run(&policy(), &["--idle"]);
    assert!(report.passed, "{}", report.to_text());
    assert_eq!((report.figures.sessions, report.figures.deliveries), (Some(12), Some(0)));
}

#[test]
fn more_holders_than_may_are_found() {
    let policy = FloorPolicy { holders_max: 2, ..policy() };
    let report = run(&policy, &["--hold", "5ms"]);
    assert_found(&report, Violation::FloorOverheld);
}

#[test]
fn an_error_for_an_answer_is_found() {
    assert_found(&run(&policy(), &["--floors", "3", "--window", "3"]), Violation::FloorRefused);
    assert_found(&run(&policy(), &["--window", "2"]), Violation::FloorRefused);
}

#[test]
fn floors_that_are_never_granted_or_taken_away_are_found() {
    let nobody_decides = FloorPolicy { order: FloorOrder::Chair, ..policy() };
    assert_found(&run(&nobody_decides, &[]), Violation::FloorNotGranted);
}

#[test]
fn what_is_not_a_server_of_floors_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A HelloAck of another version.
        let _ = stream.write_all(&[0x40, 12, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1]);
        let _ = stream.read(&mut [0; 64]);
        std::thread::sleep(std::time::Duration::from_secs(1));
    });
    let line = ["mrf-load", "run", "bfcp", "--target", &target, "--sessions", "1"];
    let line = line.iter().chain(&["--duration", "100ms", "--drain-timeout", "100ms"]);
    let Outcome::Wire(report) = loadgen::run(Cli::parse_from(line).command, &[]).unwrap() else {
        panic!("another report");
    };
    assert_found(&report, Violation::Malformed);
}
