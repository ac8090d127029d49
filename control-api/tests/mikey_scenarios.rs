//! Whole exchanges with fixed keys, times and randomness, byte for byte as written down in
//! `data/mikey_scenarios.json`: modes 1, 2 and 4, key forking, 256-bit algorithms, CSB updates.
//!
//! `MRF_UPDATE_VECTORS=1` writes the file anew; what changed in it is then to be reviewed.

mod mikey_world;

use control_api::mikey::codec::{self, TicketFlags};
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    Credentials, GrantedTicket, Parameters, Suite, TicketMaker, TicketWish, UriPattern,
};
use mikey_world::{
    ALICE, KMS_URI, ROOM, World, alice_key, node_key, now, room_tpk, seconds_later, tpk,
    usual_flags,
};
use serde_json::{Map, Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is written down of an exchange, in the order in which it happened.
struct Record(Map<String, Value>);

impl Record {
    fn new(about: &str) -> Self {
        Self(Map::from_iter([("about".to_owned(), json!(about))]))
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        assert!(self.0.insert(name.to_owned(), json!(hex(bytes))).is_none(), "{name} twice");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), json!(text));
    }
}

fn local_flags() -> TicketFlags {
    usual_flags().without(TicketFlags::RESOLVE_MANDATORY)
}

fn world(suite: Suite) -> World {
    World::new(Parameters { suite, ..Parameters::default() })
}

fn request(world: &mut World, flags: TicketFlags, record: &mut Record) -> GrantedTicket {
    let key = alice_key();
    let wish = TicketWish { flags, ..TicketWish::new(KMS_URI, ALICE, &[ROOM]) };
    let World { parameters, random, kms, .. } = world;
    let credentials = Credentials::PreShared(&key);
    let (pending, request) =
        request_ticket(parameters, &wish, credentials, now(), random).expect("a request");
    record.bytes("initiator_psk", &key.key);
    record.bytes("REQUEST_INIT_PSK", &request);
    let response = kms.try_handle(&request, now(), random).expect("granted");
    record.bytes("REQUEST_RESP", &response);
    pending.finish(&response, now()).expect("a ticket")
}

/// The transfer of a ticket, and two updates of what it set up.
fn transfer(world: &mut World, ticket: &GrantedTicket, record: &mut Record) {
    let (initiator, transfer_init) = world.call(ticket);
    record.bytes("TRANSFER_INIT", &transfer_init);
    let World { parameters, random, kms, responder } = world;
    let at = seconds_later(1);
    let checked = responder.check(&transfer_init, "mikey", at).expect("acceptable");
    let finished = if let Some(content) = responder.open(&checked).expect("no refusal") {
        checked.finish(responder, content, at, random)
    } else {
        let (pending, resolve) = responder.ask(checked, at, random).expect("asked");
        record.bytes("responder_psk", &node_key().key);
        record.bytes("RESOLVE_INIT_PSK", &resolve);
        let resolved = kms.try_handle(&resolve, at, random).expect("resolved");
        record.bytes("RESOLVE_RESP", &resolved);
        pending.finish(responder, &resolved, at, random)
    };
    let (mut answered, transfer_resp) = finished.expect("answered");
    record.bytes("TRANSFER_RESP", &transfer_resp);
    let mut established = initiator.finish(&transfer_resp, at).expect("established");
    let tek = mikey_world::assert_same_key(&established, &answered);
    record.bytes("tek", &tek);
    record.text("psk_identity", &established.psk_identity);

    for (index, by_initiator) in [true, false].into_iter().enumerate() {
        let number = index + 1;
        let at = seconds_later(600 * number as u64);
        let (one, other) = if by_initiator {
            (&mut established.bundle, &mut answered.bundle)
        } else {
            (&mut answered.bundle, &mut established.bundle)
        };
        let (pending, update) = one.begin_update(parameters, at, random).expect("an update");
        let (theirs, answer) =
            other.answer_update(parameters, &update, "mikey", at).expect("answered");
        let ours = pending.finish(one, parameters, &answer, at).expect("renewed");
        assert_eq!(ours.psk.expose(), theirs.psk.expose());
        record.bytes(&format!("update_{number}_TRANSFER_INIT"), &update);
        record.bytes(&format!("update_{number}_TRANSFER_RESP"), &answer);
        record.bytes(&format!("update_{number}_tek"), ours.psk.expose());
        record.text(&format!("update_{number}_psk_identity"), &ours.psk_identity);
    }
}

fn mode_1(suite: Suite, flags: TicketFlags, about: &str) -> Value {
    let mut record = Record::new(about);
    let mut world = world(suite);
    let ticket = request(&mut world, flags, &mut record);
    transfer(&mut world, &ticket, &mut record);
    Value::Object(record.0)
}

fn mode_2(suite: Suite) -> Value {
    let mut record = Record::new("ticket of the KMS, opened by the responder");
    let mut world = world(suite);
    world.kms_shares_key();
    world.room_holds_key(TicketMaker::Kms);
    record.bytes("ticket_protection_key", &room_tpk().key);
    let ticket = request(&mut world, local_flags(), &mut record);
    transfer(&mut world, &ticket, &mut record);
    Value::Object(record.0)
}

fn mode_3(suite: Suite, flags: TicketFlags, about: &str) -> Value {
    let mut record = Record::new(about);
    let mut world = world(suite);
    record.bytes("ticket_protection_key", &tpk().key);
    let ticket = world.made(flags, &[], &tpk()).expect("made");
    transfer(&mut world, &ticket, &mut record);
    Value::Object(record.0)
}

fn mode_4(suite: Suite) -> Value {
    let mut record = Record::new("ticket of the initiator's making, opened by the responder");
    let mut world = world(suite);
    let alice = UriPattern::Exact(ALICE.to_owned());
    world.room_holds_key(TicketMaker::Initiators(vec![alice]));
    record.bytes("ticket_protection_key", &room_tpk().key);
    let ticket = world.made(local_flags(), &[], &room_tpk()).expect("made");
    transfer(&mut world, &ticket, &mut record);
    Value::Object(record.0)
}

fn scenarios() -> Value {
    let forking = usual_flags().with(TicketFlags::KEY_FORKING);
    let (short, long) = (Suite::S128, Suite::S256);
    let plain = "ticket of the KMS, resolved by the KMS";
    let forked = "as mode 1, the keys forked";
    let made = "ticket of the initiator's making, its keys forked by the KMS";
    json!({
        "mode_1_128": mode_1(short, usual_flags(), plain),
        "mode_1_256": mode_1(long, usual_flags(), plain),
        "mode_1_forked_128": mode_1(short, forking, forked),
        "mode_1_forked_256": mode_1(long, forking, forked),
        "mode_2_128": mode_2(short),
        "mode_2_256": mode_2(long),
        "mode_3_forked_128": mode_3(short, forking, made),
        "mode_4_128": mode_4(short),
        "mode_4_256": mode_4(long),
    })
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mikey_scenarios.json");

#[test]
fn every_scenario_is_as_written_down() {
    let made = scenarios();
    if std::env::var_os("MRF_UPDATE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("JSON");
        std::fs::write(FILE, text + "\n").expect("the file can be written");
    }
    let text = std::fs::read_to_string(FILE).expect("the vectors");
    let written: Value = serde_json::from_str(&text).expect("JSON");
    for (name, scenario) in made.as_object().expect("an object") {
        for (field, value) in scenario.as_object().expect("an object") {
            assert_eq!(written[name][field], *value, "{name}, {field}");
        }
    }
    assert_eq!(written, made);
}

#[test]
fn every_message_of_the_scenarios_is_read_and_written_back() {
    let mut messages = 0;
    for scenario in scenarios().as_object().expect("an object").values() {
        for (name, value) in scenario.as_object().expect("an object") {
            if !name.contains("_INIT") && !name.contains("_RESP") {
                continue;
            }
            let text = value.as_str().expect("hex digits");
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
            let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
            let message = codec::parse(&bytes).expect(name);
            assert_eq!(message.check_contents(), Ok(()), "{name}");
            assert_eq!(codec::encode(&message), bytes, "{name}");
            messages += 1;
        }
    }
    // Six, two of them for the ticket and two for its resolving, and four of the updates.
    assert_eq!(messages, 4 * 10 + 2 * 8 + 8 + 2 * 6);
}
