//! Participants of a chat room, and what they say.
#![allow(unreachable_pub, reason = "shared by test binaries, none of which is a library")]
#![allow(dead_code, reason = "every test binary uses a part of it")]

use mrfp_core::mp::{ChatRoomPolicy, CpimPolicy, Member, ReserveAndConfigure, Switching};
use mrfp_core::mp::{Command, ContextId, ContextStatistics, Event};

use crate::common::{Ue, World};

pub const ROOM: &str = "sip:room@conference.example.com";

/// Everything is allowed, and a wrapper demanded.
pub fn policy() -> ChatRoomPolicy {
    ChatRoomPolicy {
        uris: vec![ROOM.into(), "im:room@conference.example.com".into()],
        nicknames: true,
        nicknames_reserved: vec!["Room".into(), "admin".into()],
        private_messages: true,
        cpim: CpimPolicy::Required,
        accept_types: String::new(),
        accept_wrapped_types: String::new(),
        message_bytes_max: None,
        floors: None,
    }
}

/// Takes bare messages, too.
pub fn wrapping() -> ChatRoomPolicy {
    ChatRoomPolicy { cpim: CpimPolicy::Wrap, ..policy() }
}

/// What a participant's client says of itself.
#[derive(Clone)]
pub struct Client {
    pub uris: Vec<String>,
    pub private_messages: bool,
    pub muted: bool,
    pub accept_types: &'static str,
    pub accept_wrapped_types: &'static str,
    pub max_size_bytes: Option<u64>,
}

pub fn uri(name: &str) -> String {
    format!("sip:{name}@example.com")
}

/// A client that knows RFC 7701.
pub fn client(name: &str) -> Client {
    Client {
        uris: vec![uri(name)],
        private_messages: true,
        muted: false,
        accept_types: "message/cpim",
        accept_wrapped_types: "*",
        max_size_bytes: None,
    }
}

/// A client that knows text and nothing else.
pub fn plain_client(name: &str) -> Client {
    Client {
        private_messages: false,
        accept_types: "text/plain",
        accept_wrapped_types: "",
        ..client(name)
    }
}

pub fn configure(reserve: &mut ReserveAndConfigure, policy: &ChatRoomPolicy, client: Client) {
    reserve.switching = Switching::ChatRoom(Box::new(policy.clone()));
    reserve.member = Member {
        uris: client.uris,
        private_messages: client.private_messages,
        muted: client.muted,
    };
    reserve.accept_types = client.accept_types.into();
    reserve.accept_wrapped_types = client.accept_wrapped_types.into();
    reserve.max_size_bytes = client.max_size_bytes;
}

/// Somebody who has come into the room.
pub fn join(world: &mut World, termination: u64, policy: &ChatRoomPolicy, client: Client) -> Ue {
    let address =
        world.reserve_with(1, termination, None, |reserve| configure(reserve, policy, client));
    let mut ue = world.connect(termination, address, None);
    let bind = ue.empty_send("bind0001");
    assert_eq!(say(world, &mut ue, &bind), [200]);
    ue
}

/// Alice, Bob and Carol, Terminations 1 to 3.
pub fn three(policy: &ChatRoomPolicy) -> (World, Ue, Ue, Ue) {
    let mut world = World::calm();
    let alice = join(&mut world, 1, policy, client("alice"));
    let bob = join(&mut world, 2, policy, client("bob"));
    let carol = join(&mut world, 3, policy, client("carol"));
    (world, alice, bob, carol)
}

/// Sends something and says what came back.
pub fn say(world: &mut World, ue: &mut Ue, message: &[u8]) -> Vec<u16> {
    ue.send_raw(world, message);
    world.settle();
    ue.read(world);
    ue.take_statuses()
}

/// A message in a wrapper.
pub fn cpim(from: &str, to: &str, content: &str) -> Vec<u8> {
    typed_cpim(from, to, "text/plain", content.as_bytes())
}

pub fn typed_cpim(from: &str, to: &str, content_type: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: \"Some One\" <{from}>\r\nTo: <{to}>\r\nDateTime: 2026-05-15T15:02:31-03:00\r\n\r\n\
         Content-Type: {content_type}\r\n\r\n"
    );
    [head.as_bytes(), content].concat()
}

/// A whole SEND.
pub fn send(ue: &Ue, id: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    chunk(ue, id, &format!("1-{length}/{length}"), content_type, body, '$')
}

/// A whole SEND of a message in a wrapper.
pub fn send_cpim(ue: &Ue, id: &str, body: &[u8]) -> Vec<u8> {
    send(ue, id, "message/cpim", body)
}

/// A chunk of a SEND.
pub fn chunk(
    ue: &Ue,
    id: &str,
    byte_range: &str,
    content_type: &str,
    body: &[u8],
    flag: char,
) -> Vec<u8> {
    let (to, from) = (&ue.remote_uri, &ue.local_uri);
    let head = format!(
        "MSRP tran{id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {id}\r\n\
         Byte-Range: {byte_range}\r\nContent-Type: {content_type}\r\n\r\n"
    );
    [head.as_bytes(), body, format!("\r\n-------tran{id}{flag}\r\n").as_bytes()].concat()
}

/// What somebody has heard since it was last asked: bodies.
pub fn heard(world: &mut World, ue: &mut Ue) -> Vec<Vec<u8>> {
    ue.read(world);
    let bodies = ue.bodies();
    ue.received.clear();
    bodies
}

/// What the Context has carried.
pub fn audit(world: &mut World) -> ContextStatistics {
    world.command(Command::Audit { context: ContextId(1) });
    match world.seen.pop() {
        Some(Event::Audited { statistics: Some(statistics), .. }) => *statistics,
        other => panic!("not audited: {other:?}"),
    }
}
