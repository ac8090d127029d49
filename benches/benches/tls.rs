//! TLS-PSK: records sealed and opened in place, handshakes in memory.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mrfp_protocol::tls::{
    Handshake, Opened, Profile, ProfileConfig, Progress, Psk, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};

const IDENTITY: &[u8] = b"0a1b2c3d.1";

fn profile(suite: &str) -> Profile {
    let config = ProfileConfig { suites: vec![suite.to_owned()], tls13: false };
    Profile::new(&config).expect("a suite OpenSSL has")
}

fn psk() -> Psk {
    Psk::new(vec![0x5a; 16]).expect("long enough")
}

/// A whole handshake between two ends in memory: client, server.
fn handshake(profile: &Profile, psk: &Psk) -> (Session, Session) {
    let mut client = Handshake::client(profile, IDENTITY, psk).expect("a client");
    let mut server = Handshake::server(profile).expect("a server");
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut client_session, mut server_session) = (None, None);
    while client_session.is_none() || server_session.is_none() {
        if client_session.is_none() {
            client_session = advance(&mut client, &mut to_client, &mut to_server, psk);
        }
        if server_session.is_none() {
            server_session = advance(&mut server, &mut to_server, &mut to_client, psk);
        }
    }
    (client_session.expect("done"), server_session.expect("done"))
}

fn advance(
    end: &mut Handshake,
    input: &mut Vec<u8>,
    output: &mut Vec<u8>,
    psk: &Psk,
) -> Option<Session> {
    loop {
        let (consumed, progress) = end.advance(input, output).expect("both ends agree");
        input.drain(..consumed);
        match progress {
            Progress::NeedInput => return None,
            Progress::NeedPsk => end.provide_psk(Some(psk)),
            Progress::Done(session) => return Some(session),
        }
    }
}

fn records(c: &mut Criterion) {
    for suite in ["ECDHE-PSK-CHACHA20-POLY1305", "DHE-PSK-AES128-GCM-SHA256"] {
        let mut group = c.benchmark_group(format!("tls records {suite}"));
        let (mut client, mut server) = handshake(&profile(suite), &psk());
        for bytes in [256, 1024, 4 * 1024, 16 * 1024] {
            group.throughput(Throughput::Bytes(bytes as u64));
            let mut memory = vec![b'x'; SEAL_HEADROOM_BYTES + bytes + SEAL_TAILROOM_BYTES];
            let plaintext = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + bytes;
            group.bench_function(BenchmarkId::new("seal and open in place", bytes), |b| {
                b.iter(|| {
                    let sealed = client.seal(&mut memory, plaintext.clone()).expect("sealed");
                    match server.open(black_box(&mut memory[sealed])).expect("opened") {
                        Opened::Data { plaintext, .. } => assert_eq!(plaintext.len(), bytes),
                        Opened::NeedInput | Opened::Handled { .. } | Opened::CloseNotify { .. } => {
                            panic!("a data record")
                        }
                    }
                });
            });
        }
        group.finish();
    }
}

/// Both ends together; a node performs one of them.
fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("tls handshake, both ends");
    let psk = psk();
    for suite in
        ["PSK-AES128-GCM-SHA256", "ECDHE-PSK-CHACHA20-POLY1305", "DHE-PSK-AES128-GCM-SHA256"]
    {
        let profile = profile(suite);
        group.bench_function(suite, |b| b.iter(|| handshake(&profile, &psk)));
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = records, handshakes }
criterion_main!(benches);
