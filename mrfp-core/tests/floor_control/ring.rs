//! The same in the kernel: a shard on its ring, and a socket of the loopback interface.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use mrfp_core::mp::*;
use mrfp_core::{Config, Limits, Mrfp, Port, ShardConfig};
use mrfp_io::doorbell;
use mrfp_protocol::bfcp::{Header, Primitive, Transport, Value, Writer};

use crate::common;
use crate::phone::{CONFERENCE, MESSAGES, reservation, room};
use crate::room_support::{client, configure};
use crate::shown::shown;

/// Long enough that only what is lost takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> Config {
    let listen = "127.0.0.1:0".parse().unwrap();
    Config {
        shards: vec![ShardConfig { core: None, listen, advertise: None }],
        limits: Limits { recv_buffers: 16, ..Limits::default() },
        profile: mrfp_protocol::tls::ProfileConfig::default(),
        certificate: None,
        relay: None,
        gateway: None,
    }
}

fn next_event(port: &mut Port) -> Event {
    let begun = Instant::now();
    loop {
        if let Some(event) = port.receive() {
            return event;
        }
        assert!(begun.elapsed() < PATIENCE, "no event");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn message(id: u16, primitive: Primitive, values: &[Value<'_>]) -> Vec<u8> {
    let header = Header::new(Transport::Unreliable, primitive, CONFERENCE, id, 11);
    let mut out = vec![0; 512];
    let mut writer = Writer::new(&mut out, &header).unwrap();
    values.iter().for_each(|value| writer.put(value).unwrap());
    let length = writer.finish();
    out.truncate(length);
    out
}

fn heard(socket: &UdpSocket) -> String {
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).expect("an answer");
    shown(&bytes[..length], Transport::Unreliable)
}

#[test]
fn a_user_is_served_by_udp_on_a_ring() {
    let bell = doorbell().unwrap();
    let mut ports = Mrfp::start(&config(), &bell.0).unwrap();
    let port = &mut ports[0];
    let mut member = common::reservation(1, 1, None);
    configure(&mut member, &room(false), client("ue1"));
    port.send(Command::ReserveAndConfigure(Box::new(member))).unwrap();
    assert!(matches!(next_event(port), Event::Reserved { .. }));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut wanted = reservation(11, Setup::Passive, Security::Plain);
    let remote = Some(socket.local_addr().unwrap());
    wanted.stream.transport = FloorTransport::Udp { remote };
    port.send(Command::ReserveFloorControl(Box::new(wanted))).unwrap();
    let Event::Reserved { address, .. } = next_event(port) else { panic!("not reserved") };
    socket.connect(address).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&message(1, Primitive::Goodbye, &[]), address).unwrap();
    socket.send(&message(1, Primitive::Hello, &[])).unwrap();
    assert_eq!(heard(&socket), "HelloAck 1: primitives 17 attributes 18");
    assert!(matches!(next_event(port), Event::Bound { .. }));
    // What is empty is nothing, and what is no BFCP hurts nobody.
    socket.send(b"").unwrap();
    socket.send(b"hello?").unwrap();
    let request = message(2, Primitive::FloorRequest, &[Value::FloorId(MESSAGES)]);
    for _ in 0..2 {
        socket.send(&request).unwrap();
        assert_eq!(heard(&socket), "FloorRequestStatus 2: #1 Granted (1 Granted)");
    }
    // The last Termination but one: its user is told.
    port.send(Command::Subtract { termination: TerminationId(11) }).unwrap();
    assert_eq!(heard(&socket), "Goodbye 1");
    let Event::Subtracted { statistics, .. } = next_event(port) else { panic!("not subtracted") };
    assert_eq!((statistics.messages_received, statistics.messages_sent), (4, 4));
    port.send(Command::Subtract { termination: TerminationId(1) }).unwrap();
    assert!(matches!(next_event(port), Event::Subtracted { .. }));
    port.send(Command::Stop).unwrap();
    assert!(matches!(next_event(port), Event::Stopped));
    ports.into_iter().for_each(|port| port.join().unwrap());
}
