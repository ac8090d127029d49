//! DTLS and UDPTL: what strangers send to a server, datagrams of a handshake and of an association, changed.

use std::net::SocketAddr;
use std::sync::OnceLock;

use mrfp_protocol::tls::Identity;
use mrfp_protocol::tls::dtls::{
    Cookies, Credentials, Greeting, Handshake, Profile, Progress, Record, SEAL_HEADROOM_BYTES,
    SEAL_TAILROOM_BYTES, Session,
};
use mrfp_protocol::udptl::{Packet, Receiver, Redundancy, Sender};

/// Two ends, whose certificates are made once.
struct Ends {
    profile: Profile,
    client: (Identity, Credentials),
    server: (Identity, Credentials),
    cookies: Cookies,
}

fn ends() -> &'static Ends {
    static ENDS: OnceLock<Ends> = OnceLock::new();
    ENDS.get_or_init(|| {
        let made = || {
            let identity = Identity::self_signed().expect("made");
            let credentials = identity.for_datagrams().expect("a certificate");
            (identity, credentials)
        };
        let profile = Profile::new().expect("OpenSSL has DTLS");
        Ends { profile, client: made(), server: made(), cookies: Cookies::new() }
    })
}

fn client() -> Handshake {
    let Ends { profile, client, server, .. } = ends();
    Handshake::client(profile, &client.1, &[server.0.fingerprint()]).expect("a client")
}

/// One side of a conversation.
#[derive(Default)]
struct Side {
    handshake: Option<Handshake>,
    session: Option<Box<Session>>,
    output: Vec<Vec<u8>>,
}

impl Side {
    fn take(&mut self, datagram: Option<&[u8]>) -> Option<()> {
        let Some(handshake) = &mut self.handshake else {
            let (Some(datagram), None) = (datagram, &self.session) else { return Some(()) };
            let Ends { profile, client, server, cookies } = ends();
            match cookies.greet(SocketAddr::from(([192, 0, 2, 1], 9)), datagram) {
                Greeting::Nothing => {}
                Greeting::Verify(answer) => self.output.push(answer),
                Greeting::Proven(hello) => {
                    let announced = [client.0.fingerprint()];
                    let made = Handshake::server(profile, &server.1, &announced, hello);
                    self.handshake = Some(made.ok()?);
                    return self.take(None);
                }
            }
            return Some(());
        };
        let progress = match datagram {
            Some(datagram) => handshake.advance(datagram, &mut self.output),
            None => handshake.pass_time(&mut self.output),
        };
        match progress.ok()? {
            Progress::UnderWay => {}
            Progress::Done(session) => {
                self.session = Some(session);
                self.handshake = None;
            }
        }
        Some(())
    }
}

/// A handshake whose datagrams are changed: of each four bytes the first says in which one, the next two where,
/// the last how. Whoever completes it is who was announced, so that both ends have the same keys.
pub(crate) fn handshake(bytes: &[u8]) -> bool {
    let mut ours = Side { handshake: Some(client()), ..Side::default() };
    let mut theirs = Side::default();
    let mut count = 0;
    if ours.take(None).is_none() {
        return false;
    }
    for _ in 0..4 {
        for forth in [true, false] {
            let (from, to) =
                if forth { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
            for mut datagram in std::mem::take(&mut from.output) {
                let changes = bytes.chunks_exact(4).filter(|it| usize::from(it[0]) == count);
                for change in changes {
                    let at = usize::from(u16::from_be_bytes([change[1], change[2]]));
                    let at = at % datagram.len();
                    datagram[at] ^= change[3];
                }
                count += 1;
                if to.take(Some(&datagram)).is_none() {
                    return false;
                }
            }
        }
    }
    let (Some(mut ours), Some(mut theirs)) = (ours.session, theirs.session) else { return false };
    let mut record = sealed(&mut ours, b"fax");
    matches!(theirs.open(&mut record), Some((Record::Data(_), _)))
}

fn sealed(session: &mut Session, plaintext: &[u8]) -> Vec<u8> {
    let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
    let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
    memory[range.clone()].copy_from_slice(plaintext);
    let record = session.seal(&mut memory, range).expect("a fresh session");
    memory[record].to_vec()
}

/// Steps of an association: each is a byte, and what it says of what follows: a genuine record, one that is
/// changed, one that was taken already, or bytes nobody has sealed.
pub(crate) fn record(bytes: &[u8]) -> bool {
    let mut ours = Side { handshake: Some(client()), ..Side::default() };
    let mut theirs = Side::default();
    let begun = ours.take(None);
    for _ in 0..4 {
        for datagram in std::mem::take(&mut ours.output) {
            theirs.take(Some(&datagram)).expect("a good handshake");
        }
        for datagram in std::mem::take(&mut theirs.output) {
            ours.take(Some(&datagram)).expect("a good handshake");
        }
    }
    let (Some(()), Some(mut ours), Some(mut theirs)) = (begun, ours.session, theirs.session) else {
        panic!("no session");
    };
    let mut is_data = false;
    let mut rest = bytes;
    let mut before = Vec::new();
    while let [step, length, behind @ ..] = rest {
        let (piece, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let mut input = match step & 3 {
            0 | 1 => sealed(&mut ours, piece),
            2 => before.clone(),
            _ => piece.to_vec(),
        };
        let is_genuine = step & 3 == 0 && !piece.is_empty();
        if step & 3 == 0 {
            before.clone_from(&input);
        } else if step & 3 == 1 {
            let at = usize::from(step >> 2) % input.len();
            input[at] ^= 1;
        }
        if step >> 7 == 1 {
            theirs.rest();
        }
        let mut at = 0;
        let mut is_taken = false;
        while let Some((record, consumed)) = theirs.open(&mut input[at..]) {
            assert!(consumed > 0);
            if let Record::Data(range) = record {
                assert!(is_genuine, "a record that nobody sealed, or a second time");
                assert_eq!(&input[at..][range], piece);
                is_taken = true;
            }
            at += consumed;
        }
        assert_eq!(is_taken, is_genuine);
        is_data |= is_taken;
    }
    is_data
}

/// A datagram that strangers send to a machine, among good ones.
pub(crate) fn udptl(bytes: &[u8]) -> bool {
    let mut sender = Sender::new(Redundancy::Parity { span: 2, entries: 2 }, 65_530);
    let mut receiver = Receiver::default();
    let stranger = Packet::parse(bytes);
    for number in 0..20_u8 {
        let mut datagram = Vec::new();
        sender.write(&[number], &mut datagram);
        receiver.take(&Packet::parse(&datagram).expect("our own"));
        if number == 10
            && let Ok(packet) = &stranger
        {
            receiver.take(packet);
        }
    }
    stranger.is_ok()
}

pub(crate) fn handshake_seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), vec![0, 0, 10, 0]]
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x00\x05hello\x00\x03you\x02\x00".to_vec(),
        b"\x00\x05hello\x41\x03you\x83\x02ab\x80\x01z".to_vec(),
        b"\x00\x05hello\x03\x0f\x16\xfe\xfd\x00\x01\x00\x00\x00\x00\x00\x09\x00\x02\x01\x00"
            .to_vec(),
    ]
}

pub(crate) fn udptl_seeds() -> Vec<Vec<u8>> {
    [Redundancy::Copies(2), Redundancy::Parity { span: 3, entries: 2 }]
        .map(|redundancy| {
            let mut sender = Sender::new(redundancy, 65_534);
            let mut datagram = Vec::new();
            for length in [1, 5, 200, 7] {
                datagram.clear();
                sender.write(&vec![length; usize::from(length)], &mut datagram);
            }
            datagram
        })
        .to_vec()
}
