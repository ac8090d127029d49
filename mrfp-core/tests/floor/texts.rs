//! Names and reasons: every one whole, in as many groups as it takes, or not at all.

use mrfp_core::floor::{NAME_BYTES_MAX, User};
use mrfp_protocol::bfcp::{Group, Payload, Primitive, Value};

use crate::world::{CONFERENCE, TCP, World, user};

fn named(user_id: u16, name: usize, uri: usize) -> User {
    let (display_name, uri) = ("n".repeat(name), "u".repeat(uri));
    User { display_name, uri, ..user(user_id) }
}

fn request(world: &mut World, user_id: u16, info: &[u8]) -> String {
    let values = [Value::FloorId(1), Value::ParticipantProvidedInfo(info), Value::Priority(3)];
    world.ask(user_id, Primitive::FloorRequest, &values)
}

#[test]
fn short_names_stand_beside_the_status() {
    let mut world = World::with(&[9]);
    world.join(named(1, 3, 5), TCP);
    request(&mut world, 1, b"to speak");
    world.told();
    let status = "#1 Granted (1 Granted) for 1 \"nnn\" \"uuuuu\" High info \"to speak\"";
    assert_eq!(world.query(9, &[1]), format!("FloorStatus: floor 1 {status}"));
    let status = format!("UserStatus: for 1 \"nnn\" \"uuuuu\" {status}");
    assert_eq!(world.ask(9, Primitive::UserQuery, &[Value::BeneficiaryId(1)]), status);
}

/// The groups of a FloorStatus, each with the texts in it.
fn groups(message: &[u8]) -> Vec<Vec<usize>> {
    let payload = Payload::parse(&message[12..]).unwrap();
    let groups = payload.attributes.filter_map(|attribute| match attribute.value {
        Value::Grouped(Group::FloorRequestInformation(_), inner) => Some(inner),
        _ => None,
    });
    let texts = groups.map(|group| {
        let mut texts = Vec::new();
        let mut statuses = 0;
        for attribute in group {
            match attribute.value {
                Value::ParticipantProvidedInfo(info) => texts.push(info.len()),
                Value::Grouped(Group::OverallRequestStatus(_), inner) => {
                    statuses += 1;
                    for attribute in inner {
                        if let Value::StatusInfo(note) = attribute.value {
                            texts.push(note.len());
                        }
                    }
                }
                Value::Grouped(Group::FloorRequestStatus(_), _) => statuses += 1,
                Value::Grouped(_, inner) => {
                    for attribute in inner {
                        match attribute.value {
                            Value::UserDisplayName(text) | Value::UserUri(text) => {
                                texts.push(text.len());
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
                Value::Priority(3) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(statuses >= 2, "every group has what RFC 8855 asks of it");
        texts
    });
    texts.collect()
}

#[test]
fn texts_of_any_length_are_told_whole_in_further_groups_or_not_at_all() {
    let told = |length: usize, max: usize| (length > 0 && length <= max).then_some(length);
    let lengths = [0, 1, 60, 100, 150, NAME_BYTES_MAX, NAME_BYTES_MAX + 1];
    for name in lengths {
        for uri in lengths {
            for info in [0, 2, 95, 200, 230, 231, 251] {
                let mut world = World::with(&[9]);
                world.join(named(1, name, uri), TCP);
                let text = "i".repeat(info);
                assert!(request(&mut world, 1, text.as_bytes()).contains("#1 Granted (1 Granted)"));
                world.told();
                let query = world.message(9, Primitive::FloorQuery, &[Value::FloorId(1)]);
                let _ = world.receive(9, &query);
                let groups = groups(&world.taken(9)[0]);
                let mut found: Vec<usize> = groups.iter().flatten().copied().collect();
                let mut expected: Vec<usize> =
                    [told(name, NAME_BYTES_MAX), told(uri, NAME_BYTES_MAX), told(info, 230)]
                        .into_iter()
                        .flatten()
                        .collect();
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected, "{name} {uri} {info}");
                assert!(groups.len() <= 3);
            }
        }
    }
}

#[test]
fn the_longest_request_with_the_longest_names_fits() {
    let mut world = World::with(&[9]);
    world.join(named(1, NAME_BYTES_MAX, NAME_BYTES_MAX), TCP);
    world.join(named(2, NAME_BYTES_MAX, NAME_BYTES_MAX), TCP);
    let rules = crate::world::policy(mrfp_core::floor::FloorOrder::Chair);
    for floor in 101..=116 {
        world.server.add_floor(CONFERENCE, floor, rules.clone()).unwrap();
        world.server.set_chair(CONFERENCE, floor, Some(2)).unwrap();
    }
    world.told();
    let info = "i".repeat(230);
    let mut values: Vec<Value<'_>> = (101..=116).map(Value::FloorId).collect();
    values.extend([
        Value::BeneficiaryId(1),
        Value::ParticipantProvidedInfo(info.as_bytes()),
        Value::Priority(3),
    ]);
    let answer = world.ask(2, Primitive::FloorRequest, &values);
    // One group only: the numbers have their place whatever else does.
    assert_eq!(answer.matches("Granted").count(), 17);
    assert_eq!(answer.matches('#').count(), 1);
    assert!(answer.contains("for 1") && answer.contains("by 2 High"), "{answer}");
    world.told();
    let query = world.message(9, Primitive::FloorQuery, &[Value::FloorId(101)]);
    let _ = world.receive(9, &query);
    let groups = groups(&world.taken(9)[0]);
    let mut found: Vec<usize> = groups.iter().flatten().copied().collect();
    found.sort_unstable();
    assert_eq!(found, [200, 200, 200, 200, 230]);
}

#[test]
fn what_is_no_text_is_not_passed_on() {
    let mut world = World::with(&[1]);
    let answer = request(&mut world, 1, b"\xff\xfe");
    assert_eq!(answer, "FloorRequestStatus: #1 Granted (1 Granted) High");
}
