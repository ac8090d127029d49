//! What our record layer does with a core: one TLS-PSK record sealed by one end and opened by the
//! other, in place, again and again. A line for each size: bytes of plain text, nanoseconds for both.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mrfp_protocol::tls::{
    Handshake, HandshakeError, Opened, Profile, ProfileConfig, Progress, Psk, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};

/// The suite everything else is measured with.
const SUITE: &str = "PSK-AES128-GCM-SHA256";
/// A chat message, one with a head to it, a full record.
const SIZES: [usize; 3] = [200, 1024, 16 * 1024];
/// Of each size; the best of these counts, as whatever disturbs only takes time.
const ROUNDS: u32 = 10;
const ROUND: Duration = Duration::from_millis(30);
/// Records between two looks at the clock, which would otherwise be part of what a small one takes.
const BATCH: u32 = 64;

fn main() -> ExitCode {
    let (mut client, mut server) = match handshake() {
        Ok(sessions) => sessions,
        Err(error) => {
            eprintln!("records: {error:?}");
            return ExitCode::FAILURE;
        }
    };
    for bytes in SIZES {
        match nanoseconds(&mut client, &mut server, bytes) {
            Some(ns) => println!("records {bytes} {ns:.1}"),
            None => {
                eprintln!("records: {bytes} bytes did not come back");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Of one record of so many bytes, sealed and opened.
fn nanoseconds(client: &mut Session, server: &mut Session, bytes: usize) -> Option<f64> {
    let mut memory = vec![b'x'; SEAL_HEADROOM_BYTES + bytes + SEAL_TAILROOM_BYTES];
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (begun, mut records) = (Instant::now(), 0_u32);
        while begun.elapsed() < ROUND {
            for _ in 0..BATCH {
                pass(client, server, &mut memory, bytes)?;
            }
            records += BATCH;
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(records));
    }
    // In place: what was opened lies where it was sealed.
    let plain = &memory[SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + bytes];
    plain.iter().all(|byte| *byte == b'x').then_some(best)
}

fn pass(client: &mut Session, server: &mut Session, memory: &mut [u8], bytes: usize) -> Option<()> {
    let plain = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + bytes;
    let record = client.seal(memory, plain).ok()?;
    match server.open(&mut memory[record]).ok()? {
        Opened::Data { plaintext, .. } if plaintext.len() == bytes => Some(()),
        _ => None,
    }
}

/// Both ends, in memory.
fn handshake() -> Result<(Session, Session), HandshakeError> {
    let config = ProfileConfig { suites: vec![SUITE.to_owned()], tls13: false };
    let profile = Profile::new(&config).map_err(|_| HandshakeError::Other)?;
    let psk = Psk::new(vec![0x5a; 16]).ok_or(HandshakeError::Other)?;
    let mut client = Handshake::client(&profile, b"records", &psk)?;
    let mut server = Handshake::server(&profile)?;
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut one, mut other) = (None, None);
    while one.is_none() || other.is_none() {
        if one.is_none() {
            one = advance(&mut client, &mut to_client, &mut to_server, &psk)?;
        }
        if other.is_none() {
            other = advance(&mut server, &mut to_server, &mut to_client, &psk)?;
        }
    }
    one.zip(other).ok_or(HandshakeError::Other)
}

fn advance(
    end: &mut Handshake,
    input: &mut Vec<u8>,
    output: &mut Vec<u8>,
    psk: &Psk,
) -> Result<Option<Session>, HandshakeError> {
    loop {
        let (taken, progress) = end.advance(input, output)?;
        input.drain(..taken);
        match progress {
            Progress::NeedInput => return Ok(None),
            Progress::NeedPsk => end.provide_psk(Some(psk)),
            Progress::Done(session) => return Ok(Some(session)),
        }
    }
}
