//! What fuzzing begins with: every message of every exchange, as the parties send it.

use control_api::mikey::codec::{self, KeyData, Message, TicketFlags};
use control_api::mikey::{TransferOptions, sdp_attribute};

use crate::exchange::{Input, Session, asked, begun, called, party, resolving};
use crate::mikey_plain::{self as plain, Way};
use crate::mikey_world::{
    World, alice_key, node_key, now, room_tpk, seconds_later, session_key, tpk, usual_flags,
};
use crate::msrp_interworking_support::NEAR;
use crate::{public_key, tls};

const EXCHANGES: [u8; 6] = [
    0,
    begun::SUITE_256,
    begun::FORKING,
    begun::INITIATOR_KEYS | begun::RESPONDER_KEYS,
    begun::FORKING | begun::INITIATOR_KEYS | begun::RESPONDER_KEYS,
    begun::SUITE_256 | begun::FORKING | begun::INITIATOR_KEYS,
];

fn with(party: u8, begun: u8, message: &[u8]) -> Vec<u8> {
    [&[party, begun][..], message].concat()
}

/// The plain form.
fn plain(bytes: &[u8], turn: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = codec::parse(bytes).expect("ours");
    turn(&mut message);
    codec::encode(&message)
}

fn input(party: u8, begun: u8) -> Input<'static> {
    Input { party, begun, bytes: &[] }
}

/// Every message of the exchanges as it is on the wire.
fn wire() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for begun in EXCHANGES {
        let input = input(0, begun);
        let mut world = input.world();
        let (_, request) = asked(&mut world, input.flags());
        let World { kms, random, .. } = &mut world;
        let response = kms.try_handle(&request, now(), random).expect("granted");
        let (_, resolve) = resolving(&mut world, input.flags());
        let World { kms, random, .. } = &mut world;
        let resolved = kms.try_handle(&resolve, now(), random).expect("resolved");
        let (_, init) = called(&mut world, input.flags());
        let (_, transferred) = world.answer(&init).expect("answered");
        let error = control_api::mikey::Error::Replayed;
        let error = control_api::mikey::error_message(&init, &error, now()).expect("an Error");
        messages.extend([request, response, resolve, resolved, init, transferred, error]);
    }
    messages
}

pub(crate) fn codec() -> Vec<Vec<u8>> {
    let mut seeds = wire();
    for message in public_key::seeds() {
        seeds.push(codec::encode(&message));
    }
    let keys = [session_key(1, 16, &[1]), session_key(2, 32, &[2, 3])];
    seeds.push(codec::encode_key_data(&keys).to_vec());
    seeds
}

pub(crate) fn transfer_init() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for begun in EXCHANGES {
        let input = input(0, begun);
        let mut world = input.world();
        let (_, init) = called(&mut world, input.flags());
        let plain = plain(&init, |message| plain::turn(message, Way::Open));
        for party in [0, party::STRICT, party::RESPONDER_KEYS, party::OTHER_READINGS] {
            seeds.push(with(party, begun, &plain));
        }
        seeds.push(with(party::RAW, begun, &init));
    }
    let mut world = World::plain();
    let local = usual_flags().without(TicketFlags::RESOLVE_MANDATORY);
    let ticket = world.made(local, &[], &room_tpk()).expect("made");
    let (_, init) = world.call(&ticket);
    seeds.push(with(party::HOLDS_KEY, 0, &plain(&init, |it| plain::turn(it, Way::Open))));
    let keys = [session_key(0, 16, &[5]), session_key(2, 16, &[6]), session_key(5, 16, &[7])];
    let ticket = world.made(usual_flags(), &keys, &tpk()).expect("made");
    let options = TransferOptions { session_key: Some(session_key(1, 16, &[9])) };
    let (_, init) = world.try_call(&ticket, options).expect("a call");
    seeds.push(with(0, 0, &plain(&init, |it| plain::turn(it, Way::Open))));
    seeds
}

pub(crate) fn transfer_resp() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for begun in EXCHANGES {
        for party in [0, party::STRICT, party::RESPONDER_KEYS, party::OTHER_READINGS] {
            let input = input(party, begun);
            let mut world = input.world();
            let (_, init) = called(&mut world, input.flags());
            let (_, response) = world.answer(&init).expect("answered");
            let plain = plain(&response, |it| {
                plain::turn_transfer_resp(it, &init, input.covers(), Way::Open);
            });
            seeds.push(with(party, begun, &plain));
        }
    }
    seeds
}

/// Wishes of every kind.
fn wishes() -> [Vec<KeyData>; 3] {
    [
        Vec::new(),
        vec![session_key(2, 16, &[4])],
        vec![session_key(1, 16, &[4]), session_key(5, 16, &[5]), session_key(0, 16, &[6])],
    ]
}

pub(crate) fn kms() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for begun in EXCHANGES {
        let input = input(0, begun);
        let mut world = input.world();
        let (_, request) = asked(&mut world, input.flags());
        let request = plain(&request, |it| plain::turn(it, Way::Open));
        seeds.push(with(0, begun, &request));
        seeds.push(with(party::STRICT, begun, &request));
        let (_, resolve) = resolving(&mut world, input.flags());
        seeds.push(with(0, begun, &plain(&resolve, |it| plain::turn(it, Way::Open))));
        seeds.push(with(party::RAW, begun, &resolve));
    }
    for wish in wishes() {
        let mut world = World::plain();
        let own = alice_key();
        let local = usual_flags().without(TicketFlags::RESOLVE_MANDATORY);
        let responders = [crate::mikey_world::ROOM];
        let wish = control_api::mikey::TicketWish {
            flags: local,
            session_keys: &wish,
            ..control_api::mikey::TicketWish::new(
                crate::mikey_world::KMS_URI,
                crate::mikey_world::ALICE,
                &responders,
            )
        };
        let World { parameters, random, .. } = &mut world;
        let credentials = control_api::mikey::Credentials::PreShared(&own);
        let ask = control_api::mikey::request::request_ticket;
        let (_, request) = ask(parameters, &wish, credentials, now(), random).expect("asked");
        let request = plain(&request, |it| plain::turn(it, Way::Open));
        seeds.push(with(party::KMS_SHARES_KEY, 0, &request));
    }
    seeds
}

pub(crate) fn kms_resp() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for begun in EXCHANGES {
        for party in [0, party::STRICT, party::OTHER_READINGS] {
            let input = input(party, begun);
            let mut world = input.world();
            let (_, request) = asked(&mut world, input.flags());
            let World { kms, random, .. } = &mut world;
            let response = kms.try_handle(&request, now(), random).expect("granted");
            let open = |request: &[u8], key: &[u8], response: &[u8]| {
                let initial = codec::parse(request).expect("ours");
                plain(response, |it| {
                    plain::turn_ticket(it, Way::Open);
                    plain::turn_kms_resp(it, &initial, key, request, Way::Open);
                })
            };
            seeds.push(with(party, begun, &open(&request, &alice_key().key, &response)));
            let mut world = input.world();
            let (_, resolve) = resolving(&mut world, input.flags());
            let World { kms, random, .. } = &mut world;
            let resolved = kms.try_handle(&resolve, now(), random).expect("resolved");
            let resolved = open(&resolve, &node_key().key, &resolved);
            seeds.push(with(party, begun | begun::RESOLVE, &resolved));
        }
    }
    seeds
}

pub(crate) fn public_key() -> Vec<Vec<u8>> {
    public_key::seeds().iter().map(|message| with(0, 0, &codec::encode(message))).collect()
}

pub(crate) fn update() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for begun in EXCHANGES {
        for at_responder in [true, false] {
            let to = if at_responder { begun::AT_RESPONDER } else { 0 };
            let from = begun::AT_RESPONDER - to;
            let input = input(0, begun);
            let mut session = Session::new(input.world(), input.flags());
            let (_, update) = session.begin(!at_responder);
            let opened = plain(&update, |it| session.turn(it, &[], Way::Open));
            seeds.push(with(0, begun | to, &opened));
            let parameters = session.world.parameters.clone();
            let at = seconds_later(5);
            let answered =
                session.side(at_responder).answer_update(&parameters, &update, "mikey", at);
            let (_, answer) = answered.expect("answered");
            seeds.push(with(
                0,
                begun | from,
                &plain(&answer, |it| session.turn(it, &[], Way::Open)),
            ));
        }
    }
    seeds
}

pub(crate) fn inspect() -> Vec<Vec<u8>> {
    let mut seeds = wire();
    seeds.push(key_mgmt().concat());
    seeds
}

pub(crate) fn key_mgmt() -> Vec<Vec<u8>> {
    let (_, init) = called(&mut World::plain(), usual_flags());
    let attribute = sdp_attribute::encode(&init);
    vec![attribute.clone().into_bytes(), format!(" {attribute}").into_bytes()]
}

pub(crate) fn sdp() -> Vec<Vec<u8>> {
    let key = String::from_utf8(key_mgmt().remove(0)).expect("text");
    let head = "v=0\r\no=ue 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n";
    let media = "m=message 40210 TCP/TLS/MSRP *\r\na=setup:actpass\r\na=msrp-cema\r\n\
         a=accept-types:message/cpim text/plain\r\na=accept-wrapped-types:*\r\na=max-size:65536\r\n\
         a=path:msrps://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\na=chatroom:nicknames\r\n";
    let file = "a=sendonly\r\na=file-selector:name:\"a.txt\" type:text/plain size:32349 \
         hash:sha-1:72:24:5F:E8:65:3D:DA:F3:71:36:2F:86:D4:71:91:3E:E4:A2:CE:2E\r\n\
         a=file-transfer-id:vBnG916bdberum2fFEABR1FR3ExZMUrd\r\na=file-disposition:attachment\r\n";
    let plain = media.replace("TCP/TLS", "TCP").replace("msrps:", "msrp:");
    let print = format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    [
        format!("{head}{media}a=key-mgmt:{key}\r\n"),
        format!("{head}a=key-mgmt:{key}\r\n{media}{plain}"),
        format!("{head}{plain}{file}"),
        format!("{head}{media}{print}"),
        format!("{head}{}", plain.replace("actpass", "active")),
    ]
    .map(String::into_bytes)
    .to_vec()
}

pub(crate) fn sip() -> Vec<Vec<u8>> {
    let body = String::from_utf8(sdp().remove(0)).expect("text");
    let request = |method: &str, body: &str, more: &str| {
        format!(
            "{method} sip:room@example.com SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.com>;tag=1\r\nTo: <sip:room@example.com>\r\n\
             Call-ID: a@192.0.2.1\r\nCSeq: 1 {method}\r\nContact: <sip:alice@192.0.2.1>\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let parts = format!(
        "--b\r\nContent-Type: application/sdp\r\n\r\n{body}\r\n--b\r\n\
         Content-Type: text/plain\r\nContent-Disposition: icon;handling=optional\r\n\r\nx\r\n\
         --b--\r\n"
    );
    [
        request("INVITE", &body, "Content-Type: application/sdp\r\n"),
        request("INVITE", &parts, "Content-Type: multipart/mixed;boundary=b\r\n"),
        request("BYE", "", "").repeat(2),
        request("REFER", "", "Refer-To: <sip:bob@example.com>\r\n"),
        request("SUBSCRIBE", "", "Event: conference\r\nExpires: 600\r\n"),
        request("INVITE", "", "").replacen(
            "INVITE sip:room@example.com SIP/2.0",
            "SIP/2.0 200 OK",
            1,
        ),
    ]
    .map(String::into_bytes)
    .to_vec()
}

pub(crate) fn msrp() -> Vec<Vec<u8>> {
    let paths = "To-Path: msrp://b.example.com:8888/9di4eae923wzd;tcp\r\n\
         From-Path: msrp://a.example.com:7654/iau39soe2843z;tcp\r\n";
    let plain =
        "Message-ID: 12339sdqwer\r\nByte-Range: 1-16/16\r\nContent-Type: text/plain\r\n\r\n";
    [
        format!("MSRP d93kswow SEND\r\n{paths}{plain}Hi, I'm Alice!\r\n\r\n-------d93kswow$\r\n"),
        format!("MSRP d93kswow 200 OK\r\n{paths}-------d93kswow$\r\n"),
        format!(
            "MSRP dkei38sd SEND\r\n{paths}Message-ID: 4\r\nByte-Range: 1-*/8\r\n\
             Success-Report: yes\r\nFailure-Report: partial\r\nContent-Type: a/b\r\n\r\nabcd\r\n\
             -------dkei38sd+\r\nMSRP dkei38ia REPORT\r\n{paths}Message-ID: 4\r\n\
             Byte-Range: 1-4/8\r\nStatus: 000 200 OK\r\n-------dkei38ia$\r\n"
        ),
        format!(
            "MSRP 49fi AUTH\r\n{paths}Authorization: Digest username=\"Alice\", realm=\"x\", \
             nonce=\"n\", response=\"r\", qop=auth, cnonce=\"c\", nc=1\r\n-------49fi$\r\n"
        ),
        format!(
            "MSRP xy12 NICKNAME\r\n{paths}Use-Nickname: \"Alice the great\"\r\n-------xy12$\r\n"
        ),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// The same between the two parties.
pub(crate) fn msrp_iwf() -> Vec<Vec<u8>> {
    let text = |path| str::from_utf8(path).expect("URIs");
    let between = |message: Vec<u8>| {
        let message = String::from_utf8(message).expect("text");
        let message = message.replace("msrp://b.example.com:8888/9di4eae923wzd;tcp", text(NEAR.to));
        message.replace("msrp://a.example.com:7654/iau39soe2843z;tcp", text(NEAR.from))
    };
    msrp().into_iter().map(|message| between(message).into_bytes()).collect()
}

pub(crate) fn cpim() -> Vec<Vec<u8>> {
    let regular = "From: Alice <sip:alice@example.com>\r\nTo: <sip:room@example.com>\r\n\
         DateTime: 2006-05-15T15:02:31-03:00\r\nSubject:;lang=fr Objet\r\n\
         NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: a1\r\n\
         imdn.Disposition-Notification: positive-delivery, display\r\nRequire: imdn\r\n\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\nhello";
    let block = "To: Bob <sip:bob@example.com>\r\ncc: <sip:c@x>\r\nFrom: Alice <sip:a@x>\r\n\
         DateTime: 2006-05-15T15:02:31-03:00\r\nContent-Type: text/plain\r\n\r\nABCD";
    [
        regular.to_owned(),
        block.to_owned(),
        format!("{regular}\0{regular}"),
        format!("{block}\0{block}"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

pub(crate) fn tls_handshake() -> Vec<Vec<u8>> {
    [0, 60].map(|cut| [&[cut][..], &tls::client_hello()].concat()).to_vec()
}

pub(crate) fn tls_record() -> Vec<Vec<u8>> {
    vec![
        b"\x04\x05hello\x04\x03you\x02\x01a".to_vec(),
        b"\x04\x05hello\x05\x07\x15\x03\x03\x00\x02\x01\x00".to_vec(),
        b"\x02\x03you\x00\x05hello".to_vec(),
    ]
}
