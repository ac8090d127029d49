//! Offers of our own, and what is made of the answers to them.

use control_api::mrfc::ChatPolicy;
use control_api::sdp::{AnswerError, Chatroom, Offer, OfferRules, Offering, SdpError, Unservable};
use mrfp_core::mp::{CpimPolicy, Direction, Setup};
use proptest::prelude::*;

const OFFER: &str = "v=0\r\n\
    o=- 7 1 IN IP4 203.0.113.5\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.5\r\n\
    t=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\n\
    a=setup:actpass\r\n\
    a=accept-types:message/cpim text/plain *\r\n\
    a=accept-wrapped-types:*\r\n\
    a=max-size:65536\r\n\
    a=path:msrp://203.0.113.5:2855/own-session;tcp\r\n\
    a=sendrecv\r\n\
    a=msrp-cema\r\n\
    a=chatroom:nickname private-messages\r\n";

const ANSWER: &str = "v=0\r\n\
    o=bob 1 1 IN IP4 198.51.100.10\r\n\
    s=-\r\n\
    c=IN IP4 198.51.100.10\r\n\
    t=0 0\r\n\
    m=message 4000 TCP/MSRP *\r\n\
    a=setup:passive\r\n\
    a=accept-types:message/cpim text/plain\r\n\
    a=accept-wrapped-types:text/plain\r\n\
    a=max-size:9000\r\n\
    a=path:msrp://198.51.100.10:4000/bob;tcp\r\n\
    a=chatroom:private-messages\r\n";

const FILE: &str = "a=file-selector:name:\"b.jpg\" type:image/jpeg size:4092\r\n";

fn offering() -> Offering {
    let policy = ChatPolicy { message_bytes_max: Some(65_536), ..ChatPolicy::default() };
    Offering {
        sdp_session_id: 7,
        address: "203.0.113.5:2855".parse().expect("an address"),
        msrp_session_id: "own-session".to_owned(),
        capabilities: policy.capabilities_offered(),
        direction: Direction::SendRecv,
        cema: true,
        file: None,
        key_management: None,
        label: None,
        floor: None,
    }
}

fn refusal(answer: &str) -> AnswerError {
    offering().answered(answer.as_bytes()).expect_err(answer)
}

fn answer_with(from: &str, to: &str) -> String {
    assert!(ANSWER.contains(from), "{from}");
    ANSWER.replace(from, to)
}

#[test]
fn offer_says_what_the_room_is_like() {
    let text = offering().description().to_bytes(1);
    assert_eq!(String::from_utf8(text).expect("text"), OFFER);
}

#[test]
fn a_room_that_insists_on_cpim_offers_nothing_else() {
    let policy = ChatPolicy {
        cpim: CpimPolicy::Required,
        nicknames: false,
        private_messages: false,
        accept_wrapped_types: "text/plain image/png".to_owned(),
        ..ChatPolicy::default()
    };
    let offering = Offering { capabilities: policy.capabilities_offered(), ..offering() };
    let text = String::from_utf8(offering.description().to_bytes(1)).expect("text");
    assert!(text.contains("a=accept-types:message/cpim\r\n"), "{text}");
    assert!(text.contains("a=accept-wrapped-types:text/plain image/png\r\n"), "{text}");
    assert!(text.contains("a=chatroom\r\n"), "{text}");
    assert!(!text.contains("max-size"), "{text}");
}

#[test]
fn answer_yields_the_peers_end() {
    let answered = offering().answered(ANSWER.as_bytes()).expect("taken");
    let remote = "198.51.100.10:4000".parse().expect("an address");
    assert_eq!(answered.setup, Setup::Active { remote });
    let message = answered.message;
    assert_eq!(message.path, "msrp://198.51.100.10:4000/bob;tcp");
    assert_eq!(message.accept_types, "message/cpim text/plain");
    assert_eq!(message.accept_wrapped_types, "text/plain");
    assert_eq!(message.max_size_bytes, Some(9000));
    assert_eq!(message.direction, Direction::SendRecv);
    assert_eq!(message.chatroom, Some(Chatroom { nicknames: false, private_messages: true }));
    assert!(message.private_messages());
}

#[test]
fn setup_of_an_answer_decides_who_connects() {
    let setup = |line: &str| {
        let text = answer_with("a=setup:passive\r\n", line);
        offering().answered(text.as_bytes()).map(|answered| answered.setup)
    };
    let remote = "198.51.100.10:4000".parse().expect("an address");
    // RFC 4145 section 4.1: absent means passive; RFC 6135 section 4.2.1: holdconn is as absent.
    for line in ["", "a=setup:passive\r\n", "a=setup:holdconn\r\n"] {
        assert_eq!(setup(line), Ok(Setup::Active { remote }), "{line}");
    }
    assert_eq!(setup("a=setup:active\r\n"), Ok(Setup::Passive));
    let malformed = Err(AnswerError::Sdp(SdpError::Refused(Unservable::Setup)));
    assert_eq!(setup("a=setup:actpass\r\n"), malformed);
    assert_eq!(setup("a=setup:sideways\r\n"), malformed);
}

#[test]
fn an_answer_that_breaks_the_rules_is_told_apart() {
    let second = format!("{ANSWER}m=message 4000 TCP/MSRP *\r\n");
    let sdp = |reason| AnswerError::Sdp(SdpError::Refused(reason));
    let own = "msrp://203.0.113.5:2855/own-session;tcp";
    let name = answer_with("198.51.100.10:4000/", "bob.example.com:4000/")
        .replace("c=IN IP4 198.51.100.10", "c=IN IP4 bob.example.com");
    let table = [
        (String::new(), AnswerError::Sdp(SdpError::Malformed { line: 0 })),
        (second, AnswerError::MediaCount),
        (answer_with("m=message 4000", "m=message 0"), AnswerError::Declined),
        (answer_with("m=message 4000", "m=audio 4000"), sdp(Unservable::MediaType)),
        (
            answer_with("TCP/MSRP", "TCP/TLS/MSRP").replace("msrp:", "msrps:"),
            AnswerError::Transport,
        ),
        (answer_with("a=path", "a=road"), sdp(Unservable::Path)),
        (answer_with("msrp://", "msrps://"), sdp(Unservable::Path)),
        (answer_with("/bob;tcp", "/bob;tcp garbage"), sdp(Unservable::Path)),
        (answer_with("msrp://198.51.100.10:4000/bob;tcp", own), AnswerError::OwnUri),
        (answer_with("message/cpim text/plain", "image/png"), AnswerError::AcceptTypes),
        (answer_with("a=accept-types", "a=accepted"), sdp(Unservable::AcceptTypes)),
        (name, AnswerError::DomainName),
        (format!("{ANSWER}{FILE}a=file-transfer-id:x\r\n"), AnswerError::File),
    ];
    for (text, expected) in table {
        assert_eq!(refusal(&text), expected, "{text}");
        assert!(!expected.to_string().is_empty());
    }
}

#[test]
fn an_answer_may_narrow_the_direction_and_never_widen_it() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    let all = [SendRecv, SendOnly, RecvOnly, Inactive];
    let name = |direction| match direction {
        SendRecv => "sendrecv",
        SendOnly => "sendonly",
        RecvOnly => "recvonly",
        Inactive => "inactive",
    };
    let table = [
        (SendRecv, vec![SendRecv, SendOnly, RecvOnly, Inactive]),
        (SendOnly, vec![RecvOnly, Inactive]),
        (RecvOnly, vec![SendOnly, Inactive]),
        (Inactive, vec![Inactive]),
    ];
    for (offered, allowed) in table {
        let offering = Offering { direction: offered, ..offering() };
        for answered in all {
            let text = format!("{ANSWER}a={}\r\n", name(answered));
            let outcome = offering.answered(text.as_bytes());
            if allowed.contains(&answered) {
                assert_eq!(outcome.expect("taken").message.direction, answered);
            } else {
                assert_eq!(outcome, Err(AnswerError::Direction), "{offered:?} {answered:?}");
            }
        }
    }
}

#[test]
fn passes_a_file_on_and_checks_that_the_answer_is_about_it() {
    let file = "a=sendonly\r\n\
        a=file-selector:name:\"a b.jpg\" type:image/jpeg size:4092 hash:sha-1:72:24:5F\r\n\
        a=file-transfer-id:vBnG916bdberum2fFEABR1FR3ExZMUrd\r\n\
        a=file-disposition:attachment\r\n\
        a=file-date:creation:\"Mon, 15 May 2006 15:01:31 +0300\"\r\n\
        a=file-icon:cid:id2@alicepc.example.com\r\n\
        a=file-range:1-4092\r\n";
    let rules = OfferRules {
        protection_required: false,
        certificate: false,
        cpim_required: false,
        cema: true,
        message_bytes_max: None,
    };
    let sender = format!("{}{file}", answer_with("a=setup:passive", "a=setup:active"));
    let offer = Offer::parse(sender.as_bytes(), &rules).expect("an offer");
    let message = offer.media[0].message.clone().expect("served");
    let offering =
        Offering { file: message.file.clone(), direction: Direction::SendOnly, ..offering() };
    let text = String::from_utf8(offering.description().to_bytes(1)).expect("text");
    for line in file.split_inclusive("\r\n") {
        // The icon was a body part of the request it came with.
        assert_eq!(text.contains(line), !line.contains("file-icon"), "{line}{text}");
    }
    let answer = |lines: &str| {
        let text = format!("{ANSWER}a=recvonly\r\n{lines}");
        offering.answered(text.as_bytes()).map(|answered| answered.message.file.is_some())
    };
    let id = "a=file-transfer-id:vBnG916bdberum2fFEABR1FR3ExZMUrd\r\na=file-range:1-4092\r\n";
    assert_eq!(answer(&format!("a=file-selector:type:image/jpeg size:4092\r\n{id}")), Ok(true));
    assert_eq!(answer(""), Ok(false));
    let other = format!("a=file-selector:size:4093\r\n{id}");
    assert_eq!(answer(&other), Err(AnswerError::File));
    let other = id.replace("vBnG", "xxxx");
    let other = format!("a=file-selector:size:4092\r\n{other}");
    assert_eq!(answer(&other), Err(AnswerError::File));
    let part = id.replace("1-4092", "1-4000");
    let other = format!("a=file-selector:size:4092\r\n{part}");
    assert_eq!(answer(&other), Err(AnswerError::File));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_on_damaged_answers(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let file = "a=file-selector:name:\"a\" size:1\r\na=file-transfer-id:x\r\na=file-range:1-1\r\n";
        let mut text = format!("{ANSWER}{file}").into_bytes();
        for (index, byte) in damage {
            let index = index.index(text.len());
            text[index] = byte;
        }
        text.truncate(cut.index(text.len() + 1));
        let _ = offering().answered(&text);
    }
}

fn keyed() -> Offering {
    Offering { key_management: Some("AQID".to_owned()), ..offering() }
}

#[test]
fn an_offer_that_mikey_keys_is_tls_with_one_message_under_its_media() {
    let text = String::from_utf8(keyed().description().to_bytes(1)).expect("text");
    let expected = OFFER.replace("TCP/MSRP", "TCP/TLS/MSRP").replace("msrp://", "msrps://");
    assert_eq!(text, format!("{expected}a=key-mgmt:mikey AQID\r\n"));
    // What we offer we would take.
    let rules = OfferRules {
        protection_required: true,
        certificate: false,
        cpim_required: true,
        cema: true,
        message_bytes_max: None,
    };
    let offer = Offer::parse(text.as_bytes(), &rules).expect("an offer");
    assert_eq!(offer.select(), Ok(0));
}

#[test]
fn the_answer_to_such_an_offer_is_tls_and_has_a_mikey_message() {
    let tls = ANSWER.replace("TCP/MSRP", "TCP/TLS/MSRP").replace("msrp://", "msrps://");
    let taken = |text: String| keyed().answered(text.as_bytes()).map(|answered| answered.message);
    let message = taken(format!("{tls}a=key-mgmt:mikey BAUG\r\n")).expect("taken");
    assert_eq!(message.key_management.expect("there").mikey(), Some(&[4, 5, 6][..]));
    // RFC 4567 section 3.1: at session level it is for every m-line without one of its own.
    let session = "a=key-mgmt:mikey BAUG\r\nm=message";
    assert!(taken(tls.replace("m=message", session)).is_ok());
    assert_eq!(taken(tls.clone()), Err(AnswerError::KeyManagement));
    let other = format!("{tls}a=key-mgmt:keyp1 BAUG\r\n");
    assert_eq!(taken(other), Err(AnswerError::KeyManagement));
    // Bidding down.
    assert_eq!(taken(ANSWER.to_owned()), Err(AnswerError::Transport));
    let down = format!("{ANSWER}a=key-mgmt:mikey BAUG\r\n");
    assert_eq!(taken(down), Err(AnswerError::Transport));
    assert_eq!(refusal(&tls), AnswerError::Transport);
}
