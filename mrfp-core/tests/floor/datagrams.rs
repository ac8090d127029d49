//! BFCP over UDP: version 2, transactions of both sides, losses.

use mrfp_core::floor::Received;
use mrfp_protocol::bfcp::{Fragments, Header, Primitive, Transport, Value};

use crate::shown::shown;
use crate::world::{CONFERENCE, SECOND_NS, TCP, UDP, World, termination, user};

fn udp(users: &[u16]) -> World {
    let mut world = World::new();
    users.iter().for_each(|id| world.join(user(*id), UDP));
    world
}

/// Acknowledges the last message a user was sent.
fn acknowledge(world: &mut World, user_id: u16, transaction_id: u16, primitive: Primitive) {
    let header = Header::new(Transport::Unreliable, primitive, CONFERENCE, transaction_id, user_id);
    let mut bytes = [0; 12];
    Header { responder: true, ..header }.write(&mut bytes).unwrap();
    assert_eq!(world.receive(user_id, &bytes), Received::GoOn);
}

#[test]
fn answers_have_the_version_and_the_flag_of_answers() {
    let mut world = udp(&[1]);
    let bytes = world.message(1, Primitive::Hello, &[]);
    let _ = world.receive(1, &bytes);
    let answer = world.taken(1).remove(0);
    assert_eq!(answer[0], 0x50);
    assert_eq!(shown(&answer, Transport::Unreliable), "HelloAck 1: primitives 17 attributes 18");
    let wrong = [&[0x20][..], &bytes[1..]].concat();
    let _ = world.receive(1, &wrong);
    assert_eq!(world.heard(1), ["HelloAck 1: primitives 17 attributes 18"], "a repetition");
    let mut wrong = world.message(1, Primitive::Hello, &[]);
    wrong[0] = 0x20;
    let _ = world.receive(1, &wrong);
    assert_eq!(world.heard(1), ["Error 2: 12"]);
}

#[test]
fn a_request_that_is_repeated_is_answered_again_and_carried_out_once() {
    let mut world = udp(&[1]);
    let request = world.message(1, Primitive::FloorRequest, &[Value::FloorId(1)]);
    let _ = world.receive(1, &request);
    let _ = world.receive(1, &request);
    let granted = "FloorRequestStatus 1: #1 Granted (1 Granted)";
    assert_eq!(world.heard(1), [granted, granted]);
    let second = world.message(1, Primitive::FloorRequest, &[Value::FloorId(1)]);
    let _ = world.receive(1, &second);
    assert_eq!(world.heard(1), ["FloorRequestStatus 2: #2 Accepted@1 (1 Accepted@1)"]);
    // The first one, late on its way: its answer is of interest to nobody.
    let _ = world.receive(1, &request);
    assert_eq!(world.heard(1), [""; 0]);
    // T2 is over: what comes now is taken for a new one.
    world.pass(10 * SECOND_NS);
    let _ = world.receive(1, &second);
    assert_eq!(world.heard(1), ["Error 2: 8"]);
}

#[test]
fn what_the_server_tells_has_identifiers_of_its_own_and_waits_for_its_turn() {
    let mut world = udp(&[1, 2]);
    world.request(1, &[1]);
    world.request(2, &[1]);
    assert_eq!(world.told(), [""; 0]);
    world.query(2, &[1, 2]);
    assert_eq!(world.told(), ["2< FloorStatus 1: floor 2"]);
    world.release(1, 1);
    assert_eq!(world.told(), [""; 0], "one is under way");
    acknowledge(&mut world, 2, 7, Primitive::FloorStatusAck);
    assert_eq!(world.told(), [""; 0], "that was none of its");
    acknowledge(&mut world, 2, 1, Primitive::FloorStatusAck);
    assert_eq!(world.told(), ["2< FloorRequestStatus 2: #2 Granted (1 Granted)"]);
    acknowledge(&mut world, 2, 2, Primitive::FloorRequestStatusAck);
    assert_eq!(world.told(), ["2< FloorStatus 3: floor 1 #2 Granted (1 Granted) for 2"]);
    acknowledge(&mut world, 2, 3, Primitive::FloorStatusAck);
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn what_changed_meanwhile_is_told_as_it_is_then() {
    let mut world = udp(&[9]);
    world.join(user(1), TCP);
    world.query(9, &[1]);
    world.request(1, &[1]);
    assert_eq!(world.told(), ["9< FloorStatus 1: floor 1 #1 Granted (1 Granted) for 1"]);
    for round in 1..5 {
        world.release(1, round);
        world.request(1, &[1]);
        assert_eq!(world.told(), [""; 0]);
    }
    acknowledge(&mut world, 9, 1, Primitive::FloorStatusAck);
    assert_eq!(world.told(), ["9< FloorStatus 2: floor 1 #5 Granted (1 Granted) for 1"]);
}

#[test]
fn the_end_of_a_request_is_told_although_it_is_over() {
    let mut world = udp(&[1]);
    world.join(user(9), TCP);
    world.server.set_chair(CONFERENCE, 4, Some(9)).unwrap();
    world.query(1, &[1, 2]);
    assert_eq!(world.told().len(), 2);
    world.request(1, &[4]);
    world.act(9, 1, &[(4, mrfp_protocol::bfcp::RequestStatus::Denied, 0)]);
    assert_eq!(world.told(), ["9< FloorStatus 0: floor 4"]);
    acknowledge(&mut world, 1, 1, Primitive::FloorStatusAck);
    assert_eq!(world.told(), ["1< FloorRequestStatus 2: #1 Denied (4 Denied)"]);
    assert!(format!("{:?}", world.server).contains("requests: 0"));
}

#[test]
fn what_is_not_acknowledged_is_repeated_three_times_and_the_participant_is_lost() {
    let mut world = udp(&[1]);
    world.query(1, &[1, 2]);
    let first = "1< FloorStatus 1: floor 2";
    assert_eq!(world.told(), [first]);
    // 500 ms, doubled each time (RFC 8855 section 8.3.1).
    for interval_ns in [SECOND_NS / 2, SECOND_NS, 2 * SECOND_NS] {
        world.pass(interval_ns - 1);
        assert_eq!(world.told(), [""; 0]);
        world.pass(1);
        assert_eq!(world.told(), [first]);
    }
    world.pass(4 * SECOND_NS - 1);
    assert!(world.said.closed.is_empty());
    world.pass(1);
    assert_eq!(world.said.closed, [termination(1)]);
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.server.counters().retransmissions, 3);
    // Back again, it is told what it does not know, with new identifiers.
    let (participant, _) = world.users[&1];
    world.server.connect(participant, UDP);
    assert_eq!(world.told(), ["1< FloorStatus 1: floor 1"]);
}

#[test]
fn round_trips_are_learnt_but_not_from_repetitions() {
    let mut world = udp(&[1]);
    let round = |world: &mut World, transaction, wait_ns| {
        world.query(1, &[1, 2]);
        assert_eq!(world.told().len(), 1);
        world.pass(wait_ns);
        let repeated = world.told().len();
        acknowledge(world, 1, transaction, Primitive::FloorStatusAck);
        repeated
    };
    // 400 ms there and back: T1 is 400 + 4 * 200 = 1200 ms.
    assert_eq!(round(&mut world, 1, 400_000_000), 0);
    assert_eq!(round(&mut world, 2, 1_199_000_000), 0);
    // That was a sample of 1199 ms: T1 is some 500 + 4 * 350 ms.
    assert_eq!(round(&mut world, 3, 1_700_000_000), 0);
    assert_eq!(round(&mut world, 4, 3_500_000_000), 1);
    // Nobody knows which one was acknowledged, so T1 stays as long as it had become.
    assert_eq!(round(&mut world, 5, 3_900_000_000), 0);
}

#[test]
fn who_says_goodbye_gives_everything_back_and_may_repeat_it() {
    let mut world = udp(&[1]);
    world.join(user(2), TCP);
    world.request(1, &[1]);
    world.request(2, &[1]);
    let goodbye = world.message(1, Primitive::Goodbye, &[]);
    assert_eq!(world.receive(1, &goodbye), Received::Close);
    assert_eq!(world.heard(1), ["GoodbyeAck 3"]);
    assert_eq!(world.changes(), "+1/1 -1/1 +2/1");
    assert_eq!(world.said.closed, [termination(1)]);
    assert_eq!(world.told(), ["2< FloorRequestStatus 0: #2 Granted (1 Granted)"]);
    // The acknowledgement was lost: the shard knows nobody at that address any more.
    let mut reply = Vec::new();
    let found = world.server.identify(&goodbye, UDP, &mut reply).expect("it is a user");
    world.server.connect(found, UDP);
    assert_eq!(world.receive(1, &goodbye), Received::Close);
    assert_eq!(world.heard(1), ["GoodbyeAck 3"]);
}

#[test]
fn who_is_removed_is_told_goodbye() {
    let mut world = udp(&[1]);
    world.request(1, &[1]);
    let (participant, _) = world.users[&1];
    world.server.remove_user(participant, world.now_ns, &mut world.said);
    assert_eq!(world.heard(1), ["Goodbye 1"]);
    assert_eq!(world.changes(), "+1/1 -1/1");
    world.users.clear();
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn a_hello_from_elsewhere_moves_the_association() {
    let mut world = udp(&[1]);
    let mut reply = Vec::new();
    let hello = world.message(1, Primitive::Hello, &[]);
    let query = world.message(1, Primitive::UserQuery, &[]);
    let (participant, _) = world.users[&1];
    assert_eq!(world.server.identify(&query, UDP, &mut reply), None);
    assert_eq!(shown(&reply, Transport::Unreliable), "Error 2: 5");
    assert_eq!(world.server.identify(&hello, UDP, &mut reply), Some(participant));
    world.server.connect(participant, UDP);
    let _ = world.receive(1, &hello);
    assert_eq!(world.heard(1).len(), 1);
}

fn fragments(message: &[u8]) -> Vec<Vec<u8>> {
    let mut fragments = Fragments::new(message, 64);
    let mut out = [0; 64];
    let mut cut = Vec::new();
    while let Some(length) = fragments.next(&mut out) {
        cut.push(out[..length].to_vec());
    }
    cut
}

#[test]
fn requests_in_fragments_are_put_together() {
    let mut world = udp(&[1]);
    let info = "x".repeat(100);
    let values = [Value::FloorId(1), Value::ParticipantProvidedInfo(info.as_bytes())];
    let cut = fragments(&world.message(1, Primitive::FloorRequest, &values));
    assert_eq!(cut.len(), 3);
    for index in [2, 0, 2] {
        let _ = world.receive(1, &cut[index]);
        assert_eq!(world.heard(1), [""; 0]);
    }
    let _ = world.receive(1, &cut[1]);
    let granted = format!("FloorRequestStatus 1: #1 Granted (1 Granted) info \"{info}\"");
    assert_eq!(world.heard(1), [granted.as_str()]);
    // The answer was lost: everything comes again, and is answered as before.
    for datagram in &cut {
        let _ = world.receive(1, datagram);
    }
    assert_eq!(world.heard(1), [granted]);
}

#[test]
fn fragments_that_lie_are_refused_and_unfinished_messages_forgotten() {
    let mut world = udp(&[1]);
    let floors: Vec<Value<'_>> = (0..16).map(|_| Value::FloorId(1)).collect();
    let mut cut = fragments(&world.message(1, Primitive::FloorRequest, &floors));
    let mut beyond = cut[1].clone();
    beyond[13] += 9;
    let _ = world.receive(1, &cut[0]);
    let _ = world.receive(1, &beyond);
    assert_eq!(world.heard(1), ["Error 1: 13"]);
    // T2 ends what is not whole by then.
    cut = fragments(&world.message(1, Primitive::FloorRequest, &floors));
    let _ = world.receive(1, &cut[0]);
    world.pass(10 * SECOND_NS);
    let _ = world.receive(1, &cut[1]);
    assert_eq!(world.heard(1), [""; 0]);
}

#[test]
fn long_messages_leave_in_fragments() {
    let mut world = udp(&[100]);
    for id in 0..60 {
        world.join(user(id), TCP);
        world.request(id, &[1]);
    }
    world.server.flush(world.now_ns, &mut world.said);
    world.said.messages.clear();
    let query = world.message(100, Primitive::FloorQuery, &[Value::FloorId(1)]);
    let _ = world.receive(100, &query);
    let datagrams = world.taken(100);
    assert!(datagrams.len() > 1);
    let mut reassembly = mrfp_protocol::bfcp::Reassembly::default();
    let mut whole = None;
    for datagram in &datagrams {
        assert!(datagram.len() <= 1200);
        let header = Header::parse(datagram, Transport::Unreliable).unwrap();
        let content = header.content(datagram).unwrap();
        whole = reassembly.take(&header, content, 65536).unwrap().map(<[u8]>::to_vec);
    }
    let text = shown(&whole.unwrap(), Transport::Unreliable);
    assert_eq!(text.matches('#').count(), 60);
    assert!(text.contains("#60 Accepted@59"), "{text}");
}

#[test]
fn an_answer_that_a_repetition_overtakes_is_told_again() {
    let mut world = udp(&[1]);
    world.join(user(2), TCP);
    world.request(2, &[1]);
    world.request(1, &[1]);
    world.release(2, 1);
    assert_eq!(world.told(), ["1< FloorRequestStatus 1: #2 Granted (1 Granted)"]);
    // That was lost. The release is answered before it is repeated.
    assert_eq!(world.release(1, 2), "FloorRequestStatus: #2 Released (1 Released)");
    world.pass(SECOND_NS / 2);
    assert_eq!(world.told(), ["1< FloorRequestStatus 1: #2 Granted (1 Granted)"]);
    acknowledge(&mut world, 1, 1, Primitive::FloorRequestStatusAck);
    assert_eq!(world.told(), ["1< FloorRequestStatus 2: #2 Released (1 Released)"]);
    acknowledge(&mut world, 1, 2, Primitive::FloorRequestStatusAck);
    // The same with a floor.
    world.query(1, &[1, 2]);
    assert_eq!(world.told(), ["1< FloorStatus 3: floor 2"]);
    world.request(2, &[2]);
    assert_eq!(world.query(1, &[2]), "FloorStatus: floor 2 #3 Granted (2 Granted) for 2");
    acknowledge(&mut world, 1, 3, Primitive::FloorStatusAck);
    assert_eq!(world.told(), ["1< FloorStatus 4: floor 2 #3 Granted (2 Granted) for 2"]);
}
