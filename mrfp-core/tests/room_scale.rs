//! A room of 1,000 on one shard.

mod common;
mod room_support;

use common::{Ue, World};
use room_support::{
    Client, ROOM, client, cpim, heard, join, plain_client, say, send_cpim, uri, wrapping,
};

const PARTICIPANTS: u64 = 1_000;

/// One client in ten knows no wrapper, one in ten takes no images.
fn kind(number: u64) -> Client {
    let name = format!("user{number}");
    match number % 10 {
        3 => plain_client(&name),
        7 => Client { accept_wrapped_types: "text/plain", ..client(&name) },
        _ => client(&name),
    }
}

#[test]
fn a_thousand_participants_hear_each_message_once() {
    let mut world = World::calm();
    let mut ues: Vec<Ue> =
        (1..=PARTICIPANTS).map(|n| join(&mut world, n, &wrapping(), kind(n))).collect();
    let body = cpim(&uri("user1"), ROOM, "hello, everybody");
    let message = send_cpim(&ues[0], "message1", &body);
    assert_eq!(say(&mut world, &mut ues[0], &message), [200]);
    let image = room_support::typed_cpim(&uri("user1"), ROOM, "image/png", b"PNG");
    let message = send_cpim(&ues[0], "message2", &image);
    assert_eq!(say(&mut world, &mut ues[0], &message), [200]);
    for (ue, number) in ues.iter_mut().zip(1..).skip(1) {
        let got = heard(&mut world, ue);
        match number % 10 {
            3 => assert_eq!(got, [b"hello, everybody".to_vec()]),
            7 => assert_eq!(got, std::slice::from_ref(&body)),
            _ => assert_eq!(got, [body.clone(), image.clone()]),
        }
    }
    // A private message goes to one of them.
    let body = cpim(&uri("user1"), &uri("user500"), "psst");
    let message = send_cpim(&ues[0], "message3", &body);
    assert_eq!(say(&mut world, &mut ues[0], &message), [200]);
    for (ue, number) in ues.iter_mut().zip(1..) {
        assert_eq!(heard(&mut world, ue).len(), usize::from(number == 500));
    }
    let statistics = room_support::audit(&mut world);
    assert_eq!(statistics.messages_skipped, 200);
    world.subtract_all(1..=PARTICIPANTS);
}
