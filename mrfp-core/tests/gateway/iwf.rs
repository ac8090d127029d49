//! The MSRP interworking function: each party sees the URIs it knows, and nothing else of a message changes.

use mrfp_core::Limits;
use mrfp_core::mp::{
    Bearer, Establishment, MsrpPaths, Refusal, ReleaseCause, RemoteConnectionPoint, TlsRole,
};
use mrfp_io::Simulator;
use mrfp_protocol::tls::Identity;

use crate::world::{ACCESS, CORE, Gateway, Party, incoming, reservation, secured, shakes};

const UE: &str = "msrps://10.0.0.7:2855/iau39soe2843z;tcp";
const PEER: &str = "msrp://peer.example.com:9/9di4eae923wzd;tcp";
const TOWARDS_UE: &str = "msrps://198.18.0.2:4711/gatewayaccess;tcp";
const TOWARDS_PEER: &str = "msrp://198.18.0.1:4712/gatewaycore;tcp";

/// To-Path and From-Path of what one party sends and the other receives.
#[derive(Clone, Copy)]
struct Way {
    sent: [&'static str; 2],
    received: [&'static str; 2],
}

/// Two parties, each with or without CEMA (RFC 6714): who has it keeps the other's path, who has not
/// gets one of ours.
struct Pair {
    gateway: Gateway,
    ue: Party,
    peer: Party,
    up: Way,
    down: Way,
}

impl Pair {
    fn new(mut gateway: Gateway, has_tls: bool, cema: [bool; 2]) -> Self {
        let to_ue = if cema[0] { PEER } else { TOWARDS_UE };
        let to_peer = if cema[1] { UE } else { TOWARDS_PEER };
        let access = paths(to_ue, UE);
        let core = RemoteConnectionPoint { msrp: Some(paths(to_peer, PEER)), ..incoming() };
        let core = gateway.reserve(CORE, Bearer::Tcp, Some(core)).0;
        let ue = if has_tls {
            let identity = Identity::self_signed().unwrap();
            let (address, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
            let role = TlsRole::Server;
            let handshake = shakes(&identity, role, &[fingerprint.unwrap()]);
            let remote = secured(Establishment::Incoming, role, vec![identity.fingerprint()]);
            gateway.configure(ACCESS, RemoteConnectionPoint { msrp: Some(access), ..remote });
            gateway.connect(address, Some(handshake))
        } else {
            let remote = RemoteConnectionPoint { msrp: Some(access), ..incoming() };
            let address = gateway.reserve(ACCESS, Bearer::Tcp, Some(remote)).0;
            gateway.connect(address, None)
        };
        let peer = gateway.connect(core, None);
        assert!(gateway.is_bound(ACCESS) && gateway.is_bound(CORE));
        let up = Way { sent: [to_ue, UE], received: [PEER, to_peer] };
        let down = Way { sent: [to_peer, PEER], received: [UE, to_ue] };
        Self { gateway, ue, peer, up, down }
    }

    fn work(&mut self) {
        self.gateway.work(&mut [&mut self.ue, &mut self.peer]);
    }

    fn ue_sends(&mut self, bytes: &[u8]) {
        self.ue.send(&mut self.gateway, bytes);
    }

    fn peer_sends(&mut self, bytes: &[u8]) {
        self.peer.send(&mut self.gateway, bytes);
    }
}

fn paths(presented: &str, remote: &str) -> MsrpPaths {
    MsrpPaths { presented: presented.to_owned(), remote: remote.to_owned() }
}

/// Without chance, and with a few seeds of it.
fn gateways() -> impl Iterator<Item = Gateway> {
    [Gateway::calm()].into_iter().chain((0..5).map(Gateway::faulty))
}

/// `rest`: what stands between From-Path and the end-line.
fn message(start: &str, [to, from]: [&str; 2], rest: &str, flag: char) -> Vec<u8> {
    let id = start.split(' ').next().unwrap();
    let head = format!("MSRP {start}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n");
    format!("{head}{rest}-------{id}{flag}\r\n").into_bytes()
}

const TEXT: &str = "Message-ID: m1\r\nByte-Range: 1-5/5\r\nSuccess-Report: yes\r\n\
     Content-Type: text/plain\r\n\r\nhello\r\n";
const REPORT: &str = "Message-ID: m1\r\nByte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n";

#[test]
fn a_chat_passes_whoever_has_cema() {
    for (cema, has_tls) in [[true, true], [true, false], [false, true], [false, false]]
        .into_iter()
        .flat_map(|cema| [(cema, false), (cema, true)])
    {
        for gateway in gateways() {
            let mut pair = Pair::new(gateway, has_tls, cema);
            let (up, down) = (pair.up, pair.down);
            pair.ue_sends(&message("tid00001 SEND", up.sent, TEXT, '$'));
            pair.peer_sends(&message("tid00001 SEND", down.sent, TEXT, '+'));
            pair.work();
            assert_eq!(pair.peer.take_received(), message("tid00001 SEND", up.received, TEXT, '$'));
            assert_eq!(pair.ue.take_received(), message("tid00001 SEND", down.received, TEXT, '+'));
            pair.peer_sends(&message("tid00001 200 OK", down.sent, "", '$'));
            pair.peer_sends(&message("tid00002 REPORT", down.sent, REPORT, '$'));
            pair.ue_sends(&message("tid00001 413 Stop Sending", up.sent, "", '$'));
            pair.work();
            let answered = [
                message("tid00001 200 OK", down.received, "", '$'),
                message("tid00002 REPORT", down.received, REPORT, '$'),
            ]
            .concat();
            assert_eq!(pair.ue.take_received(), answered);
            let refused = message("tid00001 413 Stop Sending", up.received, "", '$');
            assert_eq!(pair.peer.take_received(), refused);
            pair.gateway.subtract_both();
        }
    }
}

#[test]
fn looks_at_nothing_where_both_know_each_other() {
    let mut pair = Pair::new(Gateway::calm(), false, [true, true]);
    pair.ue_sends(b"this is no MSRP\n");
    pair.work();
    assert_eq!(pair.peer.received, b"this is no MSRP\n");
    pair.gateway.subtract_both();
}

/// Chunks of 2,000 to 70,000 bytes, each with a success report, and what is compared is every byte.
#[test]
fn a_file_of_100_mib_passes_in_chunks_with_their_reports() {
    const FILE_BYTES: usize = 100 << 20;
    for has_tls in [false, true] {
        let mut pair = Pair::new(Gateway::calm(), has_tls, [false, false]);
        let (up, down) = (pair.up, pair.down);
        let mut at = 0;
        let mut number = 0;
        while at < FILE_BYTES {
            let (mut sent, mut expected, mut reports, mut reported) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            while sent.len() < 1 << 20 && at < FILE_BYTES {
                let count = (2_000 + number * 7_919 % 68_000).min(FILE_BYTES - at);
                let range = format!("{}-{}/{FILE_BYTES}", at + 1, at + count);
                let head = format!("Message-ID: file\r\nByte-Range: {range}\r\n");
                let rest = format!("{head}Success-Report: yes\r\nContent-Type: a/b\r\n\r\n");
                let flag = if at + count == FILE_BYTES { '$' } else { '+' };
                let start = format!("chunk{number:05} SEND");
                // What bodies are made of must not matter: CR, LF and hyphens are among it.
                let body: Vec<u8> =
                    (at..at + count).map(|at| b"\r\n-------chunk0x"[at % 16]).collect();
                for (bytes, paths) in [(&mut sent, up.sent), (&mut expected, up.received)] {
                    let whole = message(&start, paths, &rest, flag);
                    let end = whole.len() - "-------chunk00000$\r\n".len();
                    bytes.extend_from_slice(&whole[..end]);
                    bytes.extend_from_slice(&body);
                    bytes.extend_from_slice(b"\r\n");
                    bytes.extend_from_slice(&whole[end..]);
                }
                let report = format!("{head}Status: 000 200 OK\r\n");
                for (bytes, paths) in [(&mut reports, down.sent), (&mut reported, down.received)] {
                    let response = message(&format!("chunk{number:05} 200 OK"), paths, "", '$');
                    bytes.extend(response);
                    bytes.extend(message(&format!("repor{number:05} REPORT"), paths, &report, '$'));
                }
                at += count;
                number += 1;
            }
            pair.ue_sends(&sent);
            pair.peer_sends(&reports);
            pair.work();
            assert!(pair.peer.take_received() == expected, "up to {at}");
            assert!(pair.ue.take_received() == reported, "up to {at}");
        }
        pair.gateway.subtract_both();
    }
}

#[test]
fn refuses_a_stranger_once_no_message_is_on_its_way_to_it() {
    for has_tls in [false, true] {
        for gateway in gateways() {
            let mut pair = Pair::new(gateway, has_tls, [false, false]);
            let (up, down) = (pair.up, pair.down);
            let long = message("long0001 SEND", down.sent, TEXT, '$');
            let (begun, rest) = long.split_at(long.len() - 25);
            pair.peer_sends(begun);
            pair.work();
            let strange = [TOWARDS_UE, "msrps://10.0.0.8:2855/somebodyelse;tcp"];
            pair.ue_sends(&message("tid00001 SEND", strange, TEXT, '$'));
            pair.ue_sends(&message("tid00002 200 OK", strange, "", '$'));
            pair.ue_sends(&message("tid00003 REPORT", strange, REPORT, '$'));
            pair.ue_sends(&message("tid00004 SEND", up.sent, TEXT, '$'));
            pair.work();
            let passed = message("tid00004 SEND", up.received, TEXT, '$');
            assert_eq!(pair.peer.take_received(), passed, "nothing of the others");
            let arrived = pair.ue.take_received();
            let whole = message("long0001 SEND", down.received, TEXT, '$');
            assert!(whole.starts_with(&arrived) && whole.len() > arrived.len());
            pair.peer_sends(rest);
            pair.work();
            let [to, from] = strange;
            let refusal = message("tid00001 481 No Such Session", [from, to], "", '$');
            let expected = [&whole[arrived.len()..], &refusal].concat();
            assert_eq!(pair.ue.take_received(), expected);
            pair.gateway.subtract_both();
        }
    }
}

#[test]
fn ends_a_session_of_more_refusals_than_are_read() {
    let mut pair = Pair::new(Gateway::calm(), false, [false, false]);
    let down = pair.down;
    let long = message("long0001 SEND", down.sent, TEXT, '$');
    pair.peer_sends(&long[..long.len() - 25]);
    let strange = message("tid00001 SEND", [PEER, UE], TEXT, '$');
    for _ in 0..1_000 {
        pair.ue_sends(&strange);
    }
    pair.work();
    assert_eq!(pair.gateway.causes(ACCESS), [ReleaseCause::ProtocolViolation]);
    pair.gateway.subtract_both();
}

#[test]
fn answers_what_is_malformed_and_goes_on_where_that_can_be_told() {
    for gateway in gateways() {
        let mut pair = Pair::new(gateway, true, [false, false]);
        let up = pair.up;
        let broken = TEXT.replace("1-5/5", "first to last");
        pair.ue_sends(&message("tid00001 SEND", up.sent, &broken, '$'));
        pair.ue_sends(&message("tid00002 SEND", up.sent, TEXT, '$'));
        pair.work();
        let [to, from] = up.sent;
        let refusal = message("tid00001 400 Bad Request", [from, to], "", '$');
        assert_eq!(pair.ue.take_received(), refusal);
        let passed = message("tid00002 SEND", up.received, TEXT, '$');
        assert_eq!(pair.peer.take_received(), passed);
        pair.ue_sends(b"GET / HTTP/1.1\r\n\r\n");
        pair.work();
        assert_eq!(pair.gateway.causes(ACCESS), [ReleaseCause::ProtocolViolation]);
        assert_eq!(pair.peer.take_received(), b"");
        pair.gateway.subtract_both();
    }
}

/// The other side may not even be known when the first message comes with the end of the handshake.
#[test]
fn what_comes_before_the_other_side_is_up_is_changed_too() {
    for mut gateway in gateways() {
        let identity = Identity::self_signed().unwrap();
        let (address, fingerprint) = gateway.reserve(ACCESS, Bearer::TlsOverTcp, None);
        let handshake = shakes(&identity, TlsRole::Server, &[fingerprint.unwrap()]);
        let remote =
            secured(Establishment::Incoming, TlsRole::Server, vec![identity.fingerprint()]);
        let msrp = Some(paths(TOWARDS_UE, UE));
        gateway.configure(ACCESS, RemoteConnectionPoint { msrp, ..remote });
        let mut ue = gateway.connect(address, Some(handshake));
        let sent: Vec<u8> = (0..100)
            .flat_map(|number| {
                message(&format!("tid{number:05} SEND"), [TOWARDS_UE, UE], TEXT, '$')
            })
            .collect();
        ue.send(&mut gateway, &sent);
        gateway.work(&mut [&mut ue]);
        let core = RemoteConnectionPoint { msrp: Some(paths(TOWARDS_PEER, PEER)), ..incoming() };
        let core = gateway.reserve(CORE, Bearer::Tcp, Some(core)).0;
        let mut peer = gateway.connect(core, None);
        gateway.work(&mut [&mut ue, &mut peer]);
        let text = String::from_utf8(peer.take_received()).unwrap();
        let expected = String::from_utf8(sent).unwrap();
        assert_eq!(text, expected.replace(TOWARDS_UE, PEER).replace(UE, TOWARDS_PEER));
        gateway.subtract_both();
    }
}

#[test]
fn a_side_that_does_not_read_holds_the_other_back_and_loses_nothing() {
    let limits = Limits { egress_bytes_max: 64 << 10, ..Limits::default() };
    for has_tls in [false, true] {
        let gateway = Gateway::new(Simulator::without_faults(), limits);
        let mut pair = Pair::new(gateway, has_tls, [false, false]);
        let up = pair.up;
        let driver = pair.gateway.world.shard.driver_mut();
        driver.peer_limit_window(pair.peer.peer, 10_000);
        driver.peer_stop_reading(pair.peer.peer);
        let body = format!("Content-Type: a/b\r\n\r\n{}\r\n", "0123456789".repeat(1_000));
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for number in 0..200 {
            let start = format!("tid{number:05} SEND");
            sent.extend(message(&start, up.sent, &body, '$'));
            expected.extend(message(&start, up.received, &body, '$'));
        }
        pair.ue_sends(&sent);
        pair.work();
        let taken = pair.gateway.world.measure().gateway_bytes_received as usize;
        assert!(taken < sent.len() / 2, "{taken} of {} bytes were read", sent.len());
        pair.gateway.world.shard.driver_mut().peer_resume_reading(pair.peer.peer);
        pair.work();
        assert!(pair.peer.take_received() == expected);
        pair.gateway.subtract_both();
    }
}

#[test]
fn is_refused_what_are_no_paths() {
    let mut gateway = Gateway::calm();
    for bad in ["", "sip:ue@example.com", "msrp://a.example.com:9/x;tcp\r\nX: y"] {
        for msrp in [paths(bad, UE), paths(TOWARDS_UE, bad)] {
            let remote = RemoteConnectionPoint { msrp: Some(msrp), ..incoming() };
            let command = reservation(1, ACCESS, Bearer::Tcp, Some(remote));
            assert_eq!(gateway.refusal(command), Some(Refusal::Transport));
        }
    }
}
