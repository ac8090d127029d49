//! Every error of RFC 8855 section 5.2.6, and which comes first where several are due.

use mrfp_core::floor::{
    ConferencePolicy, FLOORS_PER_REQUEST_MAX, FloorLimits, FloorOrder, FloorPolicy, FloorServer,
    REQUEST_BYTES_MAX, REQUESTS_PER_FLOOR_MAX, Received, ThirdPartyRequests,
};
use mrfp_protocol::bfcp::{ErrorCode, Framer, Header, Primitive, Transport, Value};

use crate::shown::shown;
use crate::world::{CONFERENCE, Said, TCP, TLS, UDP, World, policy, user};

/// Sends it as user 1; what is answered, and what becomes of the connection.
fn answered(world: &mut World, bytes: &[u8]) -> (String, Received) {
    let received = world.receive(1, bytes);
    let answers = world.heard(1);
    assert!(answers.len() <= 1, "{answers:?}");
    (answers.into_iter().next().unwrap_or_default(), received)
}

/// Makes something of a message wrong.
type Flaw = fn(&mut [u8]);

/// A message of one word of payload, with something about it changed.
fn message(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = [0x20, 1, 0, 1, 0, 0, 0x10, 0xe1, 0, 7, 0, 1, 5, 4, 0, 1].to_vec();
    change(&mut bytes);
    bytes
}

#[test]
fn checks_come_in_their_order() {
    let mut world = World::with(&[1, 2]);
    // Each message has the flaws of those after it, too.
    let flaws: [(ErrorCode, Flaw); 7] = [
        (ErrorCode::UnsupportedVersion, |bytes| bytes[0] = 0x40),
        (ErrorCode::IncorrectMessageLength, |bytes| bytes[3] = 2),
        (ErrorCode::UnknownPrimitive, |bytes| bytes[1] = 18),
        (ErrorCode::ConferenceDoesNotExist, |bytes| bytes[7] = 0),
        (ErrorCode::UserDoesNotExist, |bytes| bytes[11] = 77),
        (ErrorCode::UnknownMandatoryAttribute, |bytes| bytes[12] = 0x81),
        (ErrorCode::InvalidFloorId, |bytes| bytes[15] = 9),
    ];
    for first in 0..flaws.len() {
        let bytes = message(|bytes| flaws[first..].iter().for_each(|(_, flaw)| flaw(bytes)));
        let (answer, received) = answered(&mut world, &bytes);
        let code = flaws[first].0.code();
        let details = if code == 4 { " [128]" } else { "" };
        assert_eq!(answer, format!("Error 7: {code}{details}"));
        assert_eq!(received, Received::GoOn);
    }
    assert_eq!(
        answered(&mut world, &message(|_| {})).0,
        "FloorRequestStatus 7: #1 Granted (1 Granted)"
    );
    let errors = world.server.counters().errors;
    let counted: Vec<usize> = (0..15).filter(|code| errors[*code] == 1).collect();
    assert_eq!(counted, [1, 2, 3, 4, 6, 12, 13]);
}

#[test]
fn the_error_names_conference_and_user_of_the_request() {
    let mut world = World::with(&[1]);
    let _ = world.receive(1, &message(|bytes| (bytes[4], bytes[11]) = (9, 77)));
    let header = Header::parse(&world.taken(1)[0], Transport::Reliable).unwrap();
    assert_eq!((header.conference_id, header.transaction_id, header.user_id), (0x0900_10e1, 7, 77));
}

#[test]
fn nobody_speaks_for_another_user() {
    let mut world = World::with(&[1, 2]);
    assert_eq!(answered(&mut world, &message(|bytes| bytes[11] = 2)).0, "Error 7: 5");
    assert_eq!(world.changes(), "");
}

#[test]
fn what_cannot_be_read_is_answered_and_ends_the_connection() {
    let mut world = World::with(&[1]);
    // An attribute beyond the payload, one that is never that long, one that is missing.
    for change in [
        (|bytes: &mut [u8]| bytes[13] = 8) as Flaw,
        |bytes| bytes[13] = 1,
        |bytes| bytes[1] = 2,
        |bytes| bytes[1] = 9,
    ] {
        let (answer, received) = answered(&mut world, &message(change));
        assert_eq!((answer.as_str(), received), ("Error 7: 10", Received::Close));
    }
    // A chair that says nothing of any floor.
    let message = world.action_message(1, 1, &[]);
    world.request(1, &[4]);
    let (answer, received) = answered(&mut world, &message);
    assert!(answer.ends_with(": 10"), "{answer}");
    assert_eq!(received, Received::GoOn);
}

#[test]
fn primitives_of_servers_and_of_version_2_are_unknown_over_tcp() {
    let mut world = World::with(&[1]);
    for &primitive in Primitive::ALL {
        let bytes = message(|bytes| bytes[1] = primitive.code());
        let (answer, received) = answered(&mut world, &bytes);
        match primitive.code() {
            4 | 6 | 8 | 10 | 12 | 14..=17 => {
                assert_eq!((answer.as_str(), received), ("Error 7: 3", Received::GoOn));
            }
            // Errors are not answered with errors.
            13 => assert_eq!((answer.as_str(), received), ("", Received::GoOn)),
            _ => assert_ne!(answer, "Error 7: 3"),
        }
    }
}

#[test]
fn a_message_that_is_too_long_is_answered_before_it_is_there() {
    let mut world = World::with(&[1]);
    let bytes = message(|bytes| bytes[2] = 4);
    let too_long = Framer::new(REQUEST_BYTES_MAX).next(&bytes).unwrap_err();
    let (participant, _) = world.users[&1];
    world.server.receive_too_long(participant, &too_long, world.now_ns, &mut world.said);
    assert_eq!(world.heard(1), ["Error 7: 13"]);
    let fits = message(|bytes| (bytes[2], bytes[3]) = (3, 0xfd));
    assert_eq!(Framer::new(REQUEST_BYTES_MAX).next(&fits), Ok(None));
}

#[test]
fn unknown_attributes_are_listed_if_they_are_mandatory() {
    let mut world = World::with(&[1]);
    let mut bytes = message(|bytes| bytes[3] = 3);
    bytes.extend([0x80, 4, 0, 0, 0x26, 4, 0, 0]);
    assert!(answered(&mut world, &bytes).0.starts_with("FloorRequestStatus 7: #1 Granted"));
    bytes[16] = 0x81;
    bytes[20] = 0x27;
    assert_eq!(answered(&mut world, &bytes).0, "Error 7: 4 [38, 128]");
}

#[test]
fn a_user_that_negotiated_tls_is_not_heard_in_the_clear() {
    let mut world = World::new();
    let secured = |id| mrfp_core::floor::User { secured: true, ..user(id) };
    world.join(secured(1), TCP);
    world.join(secured(2), TLS);
    world.join(secured(3), UDP);
    assert_eq!(world.request(1, &[1]), "Error: 9");
    assert!(world.request(2, &[1]).ends_with("Granted (1 Granted)"));
    assert_eq!(world.request(3, &[1]), "Error: 11");
}

#[test]
fn who_asks_for_too_much_is_told_so() {
    let mut world = World::with(&[1, 2]);
    // Two for one floor, as its policy says.
    assert!(world.request(1, &[1]).contains("Granted"));
    assert!(world.request(1, &[1]).contains("Accepted@1"));
    assert_eq!(world.request(1, &[1]), "Error: 8");
    assert_eq!(world.request(1, &[2, 1]), "Error: 8");
    assert_eq!(world.release(1, 2), "FloorRequestStatus: #2 Cancelled (1 Cancelled)");
    assert!(world.request(1, &[1]).contains("Accepted@1"));
    assert!(world.request(2, &[1]).contains("Accepted@2"), "others may still");
    assert_eq!(world.release(1, 99), "Error: 7");
    let gone = world.ask(1, Primitive::FloorRequestQuery, &[Value::FloorRequestId(2)]);
    assert_eq!(gone, "Error: 7");
    assert_eq!(world.query(1, &[1, 77]), "Error: 6");
    let stranger = world.ask(1, Primitive::UserQuery, &[Value::BeneficiaryId(77)]);
    assert_eq!(stranger, "Error: 2");
}

#[test]
fn limits_hold_for_each_user_each_floor_and_each_request() {
    let limits = FloorLimits { requests_per_user_max: 3, ..FloorLimits::default() };
    let mut world = World::new();
    world.server = FloorServer::new(limits);
    let conference =
        ConferencePolicy { grace_ns: 0, third_party_requests: ThirdPartyRequests::Everybody };
    world.server.open_conference(CONFERENCE, conference).unwrap();
    let many =
        FloorPolicy { requests_per_user_max: 200, ..policy(FloorOrder::FirstComeFirstServed) };
    for floor in 1..=FLOORS_PER_REQUEST_MAX as u16 + 1 {
        world.server.add_floor(CONFERENCE, floor, many.clone()).unwrap();
    }
    let all: Vec<u16> = (1..=FLOORS_PER_REQUEST_MAX as u16 + 1).collect();
    world.join(user(1000), TCP);
    assert_eq!(world.request(1000, &all), "Error: 14 \"too many floors in one request\"");
    let most = world.request(1000, &all[1..]);
    assert!(most.starts_with("FloorRequestStatus: #1 Granted (2 Granted) (3 Granted)"), "{most}");
    for _ in 1..3 {
        assert!(world.request(1000, &[2]).contains("Accepted"));
    }
    assert_eq!(world.request(1000, &[2]), "Error: 8", "one user");
    world.join(user(1001), TCP);
    let values = [Value::FloorId(1), Value::BeneficiaryId(1000)];
    let for_another = world.ask(1001, Primitive::FloorRequest, &values);
    assert_eq!(for_another, "Error: 8", "nor does another for it");
    for id in 0..REQUESTS_PER_FLOOR_MAX as u16 {
        world.join(user(id), TCP);
        assert!(world.request(id, &[1]).contains("#"));
    }
    assert_eq!(world.request(1001, &[1]), "Error: 8", "one floor");
}

#[test]
fn a_shard_has_so_many_requests_and_no_more() {
    let mut world = World::new();
    world.server = FloorServer::new(FloorLimits { requests_max: 1, ..FloorLimits::default() });
    let conference =
        ConferencePolicy { grace_ns: 0, third_party_requests: ThirdPartyRequests::Nobody };
    world.server.open_conference(CONFERENCE, conference).unwrap();
    let first = policy(FloorOrder::FirstComeFirstServed);
    world.server.add_floor(CONFERENCE, 1, first.clone()).unwrap();
    world.server.add_floor(CONFERENCE, 2, first).unwrap();
    world.join(user(1), TCP);
    assert!(world.request(1, &[1]).contains("Granted"));
    assert_eq!(world.request(1, &[2]), "Error: 8");
    world.release(1, 1);
    world.told();
    assert!(world.request(1, &[2]).contains("Granted"));
}

#[test]
fn who_comes_in_the_clear_is_known_by_what_it_says_first() {
    let mut world = World::new();
    let participant = world.server.add_user(CONFERENCE, user(1)).unwrap();
    let secured = mrfp_core::floor::User { secured: true, ..user(2) };
    let secured = world.server.add_user(CONFERENCE, secured).unwrap();
    let mut reply = vec![1];
    let mut identify = |server: &mut FloorServer, bytes: &[u8], channel| {
        let found = server.identify(bytes, channel, &mut reply);
        let reply =
            if reply.is_empty() { String::new() } else { shown(&reply, Transport::Reliable) };
        (found, reply)
    };
    let server = &mut world.server;
    assert_eq!(identify(server, &message(|_| {}), TCP), (Some(participant), String::new()));
    assert_eq!(identify(server, &message(|it| it[11] = 2), TLS), (Some(secured), String::new()));
    for (change, expected) in [
        ((|bytes: &mut [u8]| bytes[0] = 0xc0) as Flaw, "Error 7: 12"),
        (|bytes| bytes[3] = 9, "Error 7: 13"),
        (|bytes| bytes[1] = 0, "Error 7: 3"),
        (|bytes| bytes[5] = 1, "Error 7: 1"),
        (|bytes| bytes[11] = 9, "Error 7: 2"),
        (|bytes| bytes[11] = 2, "Error 7: 9"),
        (|bytes| bytes[1] = 13, ""),
    ] {
        assert_eq!(identify(server, &message(change), TCP), (None, expected.to_owned()));
    }
    assert_eq!(identify(server, &[0x20, 1], TCP), (None, String::new()));
    // Whoever is connected is not given away.
    server.connect(participant, TCP);
    assert_eq!(identify(server, &message(|_| {}), TCP), (None, "Error 7: 5".to_owned()));
    server.disconnect(participant, 0);
    assert_eq!(identify(server, &message(|_| {}), TCP), (Some(participant), String::new()));
}

#[test]
fn a_participant_that_is_no_more_is_not_spoken_to() {
    let mut world = World::with(&[1]);
    let (participant, _) = world.users[&1];
    let mut said = Said::default();
    world.server.remove_user(participant, 0, &mut said);
    assert_eq!(world.server.receive(participant, &message(|_| {}), 0, &mut said), Received::GoOn);
    world.server.connect(participant, TCP);
    world.server.disconnect(participant, 0);
    world.server.remove_user(participant, 0, &mut said);
    world.server.flush(0, &mut said);
    assert!(said.messages.is_empty());
    // The next one with its ID is another.
    let other = world.server.add_user(CONFERENCE, user(1)).unwrap();
    assert_ne!(other, participant);
}
