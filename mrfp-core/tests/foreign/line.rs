//! Between a fax machine, whose packets come by themselves, and a gateway, which has UDPTL, in the clear or
//! with DTLS; and a line that is not a good one.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mrfp_protocol::tls::dtls::{
    Handshake, Profile, Progress, Record, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES, Session,
};
use mrfp_protocol::tls::{Fingerprint, Identity};
use mrfp_protocol::udptl::{Packet, Receiver, Redundancy, Sender};

/// One of so many datagrams is lost, and another is overtaken.
const LOST_ONE_OF: u32 = 100;
const OVERTAKEN_ONE_OF: u32 = 30;
/// Loses one of the first forty datagrams.
const SEED: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// The line of one machine.
pub(crate) struct Line {
    port: u16,
    is_over: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

struct Carrier {
    machine: UdpSocket,
    gateway: UdpSocket,
    session: Option<Box<Session>>,
    sender: Sender,
    receiver: Receiver,
    random: u32,
    /// A datagram that the next one overtakes.
    late: Option<Vec<u8>>,
    lost: Arc<AtomicUsize>,
    /// What has come from the gateway, as it came.
    heard: Vec<Vec<u8>>,
    /// What has come for a machine that has not spoken.
    waiting: Vec<Vec<u8>>,
    is_there: bool,
}

impl Line {
    /// In the clear, over a socket that is connected.
    pub(crate) fn plain(gateway: UdpSocket) -> Self {
        Self::start(gateway, None)
    }

    /// With DTLS, as its client.
    pub(crate) fn secured(
        address: SocketAddr,
        identity: &Identity,
        announced: &Fingerprint,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(address).expect("an address");
        let session = shake(&socket, identity, announced);
        Self::start(socket, Some(session))
    }

    fn start(gateway: UdpSocket, session: Option<Box<Session>>) -> Self {
        let machine = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = machine.local_addr().expect("an address").port();
        machine.set_nonblocking(true).expect("an option");
        gateway.set_nonblocking(true).expect("an option");
        let (is_over, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let carrier = Carrier {
            machine,
            gateway,
            session,
            sender: Sender::new(Redundancy::Copies(3), 65_400),
            receiver: Receiver::default(),
            random: SEED,
            late: None,
            lost: Arc::clone(&lost),
            heard: Vec::new(),
            waiting: Vec::new(),
            is_there: false,
        };
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || carrier.carry(&over));
        Self { port, is_over, lost, thread }
    }

    /// Where the machine sends its packets.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many datagrams were lost on the way to the gateway.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Ends it; what has come from the gateway.
    pub(crate) fn end(self) -> Vec<Vec<u8>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no failure")
    }
}

fn shake(socket: &UdpSocket, identity: &Identity, announced: &Fingerprint) -> Box<Session> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("an option");
    let credentials = identity.for_datagrams().expect("a certificate");
    let announced = std::slice::from_ref(announced);
    let profile = Profile::new().expect("OpenSSL has DTLS");
    let mut handshake = Handshake::client(&profile, &credentials, announced).expect("a client");
    let begun = Instant::now();
    let mut memory = [0; 4096];
    loop {
        assert!(begun.elapsed() < PATIENCE, "no handshake");
        let mut output = Vec::new();
        let progress = match socket.recv(&mut memory) {
            Ok(length) => handshake.advance(&memory[..length], &mut output),
            Err(_) => handshake.pass_time(&mut output),
        };
        output.iter().for_each(|datagram| drop(socket.send(datagram)));
        if let Progress::Done(session) = progress.expect("a good handshake") {
            return session;
        }
    }
}

impl Carrier {
    fn carry(mut self, is_over: &AtomicBool) -> Vec<Vec<u8>> {
        let mut memory = [0; 4096];
        while !is_over.load(Ordering::Relaxed) {
            let mut is_idle = true;
            while let Ok((length, from)) = self.machine.recv_from(&mut memory) {
                is_idle = false;
                if !self.is_there {
                    self.machine.connect(from).expect("an address");
                    self.is_there = true;
                }
                self.pass_out(&memory[2..length]);
            }
            while let Ok(length) = self.gateway.recv(&mut memory) {
                is_idle = false;
                self.pass_in(&mut memory[..length]);
            }
            if self.is_there {
                self.waiting.drain(..).for_each(|packet| drop(self.machine.send(&packet)));
            }
            if is_idle {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        self.heard
    }

    fn pass_out(&mut self, packet: &[u8]) {
        let mut datagram = Vec::new();
        self.sender.write(packet, &mut datagram);
        if let Some(session) = &mut self.session {
            let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + datagram.len();
            let mut sealed = vec![0; range.end + SEAL_TAILROOM_BYTES];
            sealed[range.clone()].copy_from_slice(&datagram);
            let record = session.seal(&mut sealed, range).expect("fresh keys");
            datagram = sealed[record].to_vec();
        }
        if self.happens(LOST_ONE_OF) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else if self.late.is_none() && self.happens(OVERTAKEN_ONE_OF) {
            self.late = Some(datagram);
        } else {
            let _ = self.gateway.send(&datagram);
            self.late.take().into_iter().for_each(|late| drop(self.gateway.send(&late)));
        }
    }

    fn pass_in(&mut self, datagram: &mut [u8]) {
        let datagram = match &mut self.session {
            None => &*datagram,
            Some(session) => match session.open(datagram) {
                Some((Record::Data(range), _)) => &datagram[range],
                _ => return,
            },
        };
        self.heard.push(datagram.to_vec());
        let packet = Packet::parse(datagram).expect("UDPTL");
        for (number, packet) in self.receiver.take(&packet) {
            let numbered = [&(number as u16).to_be_bytes()[..], &packet].concat();
            self.waiting.push(numbered);
        }
    }

    fn happens(&mut self, one_of: u32) -> bool {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.random >> 16).is_multiple_of(one_of)
    }
}
