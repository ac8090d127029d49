//! Offers and what becomes of them.

use control_api::sdp::{
    AnswerDescription, AnswerMedia, MessageSessionOffer, Offer, OfferedSetup, SDP_SIZE_MAX,
    SdpError, ServedMessage, Unservable, offer_for_message_session, parse_answer,
};
use mrfp_core::mp::Direction;
use proptest::prelude::*;

const HEAD: &str =
    "v=0\r\no=ue 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n";
const MESSAGE: &str = "m=message 40210 TCP/MSRP *\r\na=setup:actpass\r\n\
    a=accept-types:message/cpim\r\na=path:msrp://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\n";
const TLS: &str = "m=message 40210 TCP/TLS/MSRP *\r\na=setup:actpass\r\n\
    a=accept-types:message/cpim\r\na=path:msrps://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\n";
const KEY: &str = "a=key-mgmt:mikey AQ4FgA==\r\n";

fn selected(text: &str) -> Result<usize, Unservable> {
    Offer::parse(text.as_bytes()).expect("an offer").select(false)
}

#[test]
fn serves_what_it_can_and_names_what_it_cannot() {
    let plain = |from: &str, to: &str| format!("{HEAD}{}", MESSAGE.replace(from, to));
    let table = [
        (plain("", ""), Ok(0)),
        (plain("m=message 40210", "m=message 0"), Err(Unservable::Disabled)),
        (plain("m=message", "m=text"), Err(Unservable::MediaType)),
        (plain("TCP/MSRP", "UDP/MSRP"), Err(Unservable::TransportProtocol)),
        (plain("TCP/MSRP *", "TCP/MSRP 99"), Err(Unservable::MediaFormat)),
        (plain("a=path", "a=pfad"), Err(Unservable::Path)),
        (plain("msrp://", "msrps://"), Err(Unservable::Path)),
        (plain(";tcp", ";udp"), Err(Unservable::Path)),
        (plain("a=accept-types:message/cpim\r\n", ""), Err(Unservable::AcceptTypes)),
        (plain("message/cpim", "image/png"), Err(Unservable::AcceptTypes)),
        (plain("message/cpim", "image/png *"), Ok(0)),
        (plain("message/cpim", "text/plain"), Ok(0)),
        (plain("setup:actpass", "setup:holdconn"), Ok(0)),
        (plain("setup:actpass", "setup:sideways"), Err(Unservable::Setup)),
        (plain("a=setup", "a=max-size:many\r\na=setup"), Err(Unservable::MaxSize)),
        (plain("10:40210", "99:40210"), Err(Unservable::AddressMismatch)),
        (plain("a=path", "a=msrp-cema\r\na=path").replace("10:40210", "99:40210"), Ok(0)),
        (plain("m=message 40210", "m=message 9"), Err(Unservable::AddressMismatch)),
        (plain("m=message 40210", "m=message 9").replace("actpass", "active"), Ok(0)),
        (
            plain("actpass", "passive").replace("//198.51.100.10", "//ue.example.com"),
            Err(Unservable::DomainName),
        ),
        (format!("{HEAD}{MESSAGE}{KEY}"), Err(Unservable::KeyManagementOnPlain)),
        (format!("{HEAD}{KEY}{MESSAGE}"), Err(Unservable::KeyManagementOnPlain)),
        (format!("{HEAD}{TLS}"), Err(Unservable::KeyManagementMissing)),
        (format!("{HEAD}{TLS}{KEY}"), Ok(0)),
        (format!("{HEAD}{KEY}{TLS}"), Ok(0)),
        (format!("{HEAD}{TLS}a=key-mgmt:mikey %%\r\n"), Err(Unservable::KeyManagement)),
        (format!("{HEAD}{TLS}a=key-mgmt:other AQ==\r\n"), Err(Unservable::KeyManagement)),
        (format!("{HEAD}m=audio 4000 RTP/AVP 0\r\n{MESSAGE}{MESSAGE}"), Ok(1)),
        (format!("{HEAD}m=audio 4000 RTP/AVP 0\r\n"), Err(Unservable::MediaType)),
        (format!("{HEAD}m=audio 4000 RTP/AVP 0\r\n{TLS}"), Err(Unservable::KeyManagementMissing)),
    ];
    for (text, expected) in table {
        assert_eq!(selected(&text), expected, "{text}");
    }
}

#[test]
fn protection_required_refuses_plain_and_takes_tls() {
    let offer = Offer::parse(format!("{HEAD}{MESSAGE}{TLS}{KEY}").as_bytes()).unwrap();
    assert_eq!(offer.select(true), Ok(1));
    let offer = Offer::parse(format!("{HEAD}{MESSAGE}").as_bytes()).unwrap();
    assert_eq!(offer.select(true), Err(Unservable::ProtectionRequired));
}

#[test]
fn session_level_attributes_are_inherited_and_overridden() {
    let session = "a=inactive\r\na=key-mgmt:mikey AQ4FgA==\r\na=key-mgmt:other AQ==\r\n";
    let message = |text: String| {
        let offer = Offer::parse(text.as_bytes()).unwrap();
        offer.media[0].message.clone().unwrap()
    };
    let inherited = message(format!("{HEAD}{session}{TLS}"));
    assert_eq!(inherited.direction, Direction::Inactive);
    assert_eq!(inherited.key_management.unwrap().offered_protocols(), "mikey;other");
    let overridden =
        message(format!("{HEAD}{session}{TLS}a=sendonly\r\na=key-mgmt:mikey AQ8=\r\n"));
    assert_eq!(overridden.direction, Direction::SendOnly);
    assert_eq!(overridden.key_management.unwrap().mikey(), Some(&[1, 15][..]));
}

#[test]
fn takes_bare_line_feeds_ipv6_and_other_charsets() {
    let text = format!("{HEAD}{MESSAGE}");
    assert_eq!(selected(&text.replace("\r\n", "\n")), Ok(0));
    assert_eq!(selected(text.trim_end()), Ok(0));
    let six = text
        .replace("IP4 198.51.100.10", "IP6 2001:db8::10")
        .replace("//198.51.100.10", "//[2001:DB8:0::10]");
    assert_eq!(selected(&six), Ok(0));
    let mut latin = text.into_bytes();
    let name = latin.iter().position(|byte| *byte == b'-').unwrap();
    latin[name] = 0xe9;
    assert_eq!(Offer::parse(&latin).unwrap().select(false), Ok(0));
}

#[test]
fn refuses_non_ascii_in_a_media_line_and_absurd_sizes() {
    let mut text = format!("{HEAD}{MESSAGE}").into_bytes();
    let media = text.windows(2).position(|pair| pair == b"m=").unwrap();
    text[media + 4] = 0xff;
    assert_eq!(Offer::parse(&text), Err(SdpError::MediaLine));
    let long = vec![b'\n'; SDP_SIZE_MAX + 1];
    assert_eq!(Offer::parse(&long), Err(SdpError::TooLong));
    let many = format!("{HEAD}{}", "m=audio 4000 RTP/AVP 0\r\n".repeat(33));
    assert_eq!(Offer::parse(many.as_bytes()), Err(SdpError::TooManyMedia));
    assert_eq!(Offer::parse(HEAD.as_bytes()), Err(SdpError::NoMedia));
    assert_eq!(Offer::parse(b""), Err(SdpError::Malformed { line: 0 }));
    let port = format!("{HEAD}{}", MESSAGE.replace("40210 TCP", "99999 TCP"));
    assert_eq!(Offer::parse(port.as_bytes()), Err(SdpError::Malformed { line: 6 }));
}

#[test]
fn relay_that_will_connect_switches_cema_off() {
    let relay = "msrp://198.51.100.10:40210/r;tcp msrp://192.0.2.1:2855/q;tcp";
    let own = "msrp://198.51.100.10:40210/q7Fz0K2m9XbA;tcp";
    let text = format!("{HEAD}{}", MESSAGE.replace(own, relay));
    let cema = |text: &str| {
        Offer::parse(text.as_bytes()).unwrap().media[0].message.clone().unwrap().answer_with_cema()
    };
    assert!(cema(&text));
    assert!(!cema(&text.replace("actpass", "active")));
}

#[test]
fn ue_reads_back_what_the_answer_says() {
    let offer = offer_for_message_session(&MessageSessionOffer {
        session_id: 7,
        session_version: 1,
        address: "[2001:db8::1]:4000".parse().unwrap(),
        msrp_session_id: "abcdefgh12345678",
        secure: true,
        setup: OfferedSetup::ActPass,
        accept_types: "message/cpim",
        accept_wrapped_types: "text/plain",
        max_size_bytes: Some(9000),
        direction: Direction::RecvOnly,
        cema: true,
        mikey: Some(&[1, 14, 5]),
    });
    let offer = Offer::parse(&offer).unwrap();
    assert_eq!(offer.select(true), Ok(0));
    let message = offer.media[0].message.clone().unwrap();
    assert_eq!(message.max_size_bytes, Some(9000));
    let keys = message.key_management.unwrap();
    assert_eq!(keys.mikey(), Some(&[1, 14, 5][..]));

    let answer = AnswerDescription {
        session_id: 5,
        address: "[2001:db8::2]:2855".parse().unwrap(),
        times: offer.times,
        key_management: Some((keys.level, "AQ8F".to_owned())),
        media: vec![AnswerMedia::Served(ServedMessage {
            secure: true,
            session_id: "ownownown".to_owned(),
            active: false,
            offered_direction: message.direction,
            cema: true,
            max_size_bytes: None,
        })],
    };
    let read = parse_answer(&answer.to_bytes(1)).unwrap();
    assert_eq!(read.path, "msrps://[2001:db8::2]:2855/ownownown;tcp");
    assert_eq!(read.connect_to, Some(answer.address));
    assert_eq!(read.direction, Direction::SendOnly);
    assert_eq!(read.mikey, Some(vec![1, 15, 5]));
    assert!(read.secure);
    assert!(!read.peer_is_active);
    let refusal = format!("{HEAD}m=message 0 TCP/MSRP *\r\n");
    assert_eq!(parse_answer(refusal.as_bytes()), Err(SdpError::Refused(Unservable::Disabled)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_on_damaged_offers(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = format!("{HEAD}{KEY}{MESSAGE}{TLS}{KEY}").into_bytes();
        for (index, byte) in damage {
            let index = index.index(text.len());
            text[index] = byte;
        }
        text.truncate(cut.index(text.len() + 1));
        if let Ok(offer) = Offer::parse(&text) {
            let _ = offer.select(false);
        }
        let _ = parse_answer(&text);
    }
}
