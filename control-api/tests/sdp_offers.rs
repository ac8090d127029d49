//! Offers and what becomes of them.

use control_api::sdp::{
    Capabilities, Chatroom, Fingerprint, LocalDescription, LocalMedia, LocalMessage,
    MessageSessionOffer, Offer, OfferRules, OfferedSetup, SDP_SIZE_MAX, SdpError, Unservable,
    offer_for_message_session, parse_answer,
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

const RULES: OfferRules = OfferRules {
    protection_required: false,
    certificate: false,
    cpim_required: false,
    cema: true,
    message_bytes_max: None,
};

fn selected(text: &str) -> Result<usize, Unservable> {
    selected_by(text, &RULES)
}

fn selected_by(text: &str, rules: &OfferRules) -> Result<usize, Unservable> {
    Offer::parse(text.as_bytes(), rules).expect("an offer").select()
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
            // Our answer has msrp-cema, so that c= is where we connect to.
            plain("actpass", "passive").replace("//198.51.100.10", "//ue.example.com"),
            Ok(0),
        ),
        (
            plain("actpass", "passive").replace("198.51.100.10", "ue.example.com"),
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
    let rules = OfferRules { protection_required: true, ..RULES };
    assert_eq!(selected_by(&format!("{HEAD}{MESSAGE}{TLS}{KEY}"), &rules), Ok(1));
    let plain = format!("{HEAD}{MESSAGE}");
    assert_eq!(selected_by(&plain, &rules), Err(Unservable::ProtectionRequired));
}

#[test]
fn with_a_certificate_tls_needs_no_key_but_a_key_that_is_there_must_be_good() {
    let rules = OfferRules { certificate: true, ..RULES };
    assert_eq!(selected_by(&format!("{HEAD}{TLS}"), &rules), Ok(0));
    assert_eq!(selected_by(&format!("{HEAD}{TLS}{KEY}"), &rules), Ok(0));
    let bad = format!("{HEAD}{TLS}a=key-mgmt:mikey %%\r\n");
    assert_eq!(selected_by(&bad, &rules), Err(Unservable::KeyManagement));
    let rules = OfferRules { protection_required: true, ..rules };
    assert_eq!(selected_by(&format!("{HEAD}{TLS}"), &rules), Ok(0));
}

#[test]
fn a_fingerprint_is_read_where_it_stands_and_an_unusable_one_refused() {
    let rules = OfferRules { certificate: true, ..RULES };
    let fingerprints = |text: &str| {
        let offer = Offer::parse(text.as_bytes(), &rules).expect("an offer");
        let message = offer.media[0].message.clone();
        message.map(|message| -> Vec<String> {
            message.fingerprints.iter().map(ToString::to_string).collect()
        })
    };
    let line = |hash: &str, bytes: usize| {
        format!("a=fingerprint:{hash} {}\r\n", vec!["AB"; bytes].join(":"))
    };
    let value = |bytes: usize| vec!["AB"; bytes].join(":");
    let (sha256, sha1, md5) = (line("SHA-256", 32), line("sha-1", 20), line("md5", 16));
    let both = vec![format!("sha-256 {}", value(32)), format!("sha-1 {}", value(20))];
    assert_eq!(fingerprints(&format!("{HEAD}{TLS}")), Ok(Vec::new()));
    assert_eq!(fingerprints(&format!("{HEAD}{TLS}{sha256}{md5}{sha1}")), Ok(both.clone()));
    assert_eq!(fingerprints(&format!("{HEAD}{sha256}{sha1}{TLS}")), Ok(both.clone()));
    assert_eq!(fingerprints(&format!("{HEAD}{sha1}{TLS}{sha256}")), Ok(both[..1].to_vec()));
    for unusable in [md5, line("sha-256", 31), "a=fingerprint\r\n".to_owned()] {
        let told = fingerprints(&format!("{HEAD}{TLS}{unusable}"));
        assert_eq!(told, Err(Unservable::Fingerprint), "{unusable}");
    }
    // Where TLS is not asked for it says nothing.
    assert_eq!(fingerprints(&format!("{HEAD}{MESSAGE}{sha256}")), Ok(Vec::new()));
}

#[test]
fn a_room_that_insists_on_cpim_refuses_who_does_not_list_it() {
    let rules = OfferRules { cpim_required: true, ..RULES };
    for (types, listed) in [
        ("message/cpim", true),
        ("text/plain Message/CPIM", true),
        ("message/cpim;charset=utf-8", true),
        ("text/plain", false),
        ("*", false),
        ("message/*", false),
    ] {
        let text = format!("{HEAD}{}", MESSAGE.replace("message/cpim", types));
        let expected = if listed { Ok(0) } else { Err(Unservable::CpimMissing) };
        assert_eq!(selected_by(&text, &rules), expected, "{types}");
        assert_eq!(selected(&text), Ok(0), "{types}");
    }
    assert!(Unservable::CpimMissing.warning().1.contains("message/cpim"));
}

#[test]
fn chatroom_tokens_are_read_in_every_spelling() {
    let read = |line: &str| {
        let text = format!("{HEAD}{MESSAGE}{line}");
        let offer = Offer::parse(text.as_bytes(), &RULES).unwrap();
        offer.media[0].message.clone().unwrap().chatroom
    };
    let both = Chatroom { nicknames: true, private_messages: true };
    assert_eq!(read(""), None);
    assert_eq!(read("a=chatroom\r\n"), Some(Chatroom::default()));
    assert_eq!(read("a=chatroom:nickname private-messages\r\n"), Some(both));
    assert_eq!(read("a=chatroom:private-messages com.example.foo nicknames\r\n"), Some(both));
    let nicknames = Chatroom { nicknames: true, private_messages: false };
    assert_eq!(read("a=chatroom:nickname\r\n"), Some(nicknames));
}

#[test]
fn session_level_attributes_are_inherited_and_overridden() {
    let session = "a=inactive\r\na=key-mgmt:mikey AQ4FgA==\r\na=key-mgmt:other AQ==\r\n";
    let message = |text: String| {
        let offer = Offer::parse(text.as_bytes(), &RULES).unwrap();
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
    assert_eq!(Offer::parse(&latin, &RULES).unwrap().select(), Ok(0));
}

#[test]
fn refuses_non_ascii_in_a_media_line_and_absurd_sizes() {
    let mut text = format!("{HEAD}{MESSAGE}").into_bytes();
    let media = text.windows(2).position(|pair| pair == b"m=").unwrap();
    text[media + 4] = 0xff;
    assert_eq!(Offer::parse(&text, &RULES), Err(SdpError::MediaLine));
    let long = vec![b'\n'; SDP_SIZE_MAX + 1];
    assert_eq!(Offer::parse(&long, &RULES), Err(SdpError::TooLong));
    let many = format!("{HEAD}{}", "m=audio 4000 RTP/AVP 0\r\n".repeat(33));
    assert_eq!(Offer::parse(many.as_bytes(), &RULES), Err(SdpError::TooManyMedia));
    assert_eq!(Offer::parse(HEAD.as_bytes(), &RULES), Err(SdpError::NoMedia));
    assert_eq!(Offer::parse(b"", &RULES), Err(SdpError::Malformed { line: 0 }));
    let port = format!("{HEAD}{}", MESSAGE.replace("40210 TCP", "99999 TCP"));
    assert_eq!(Offer::parse(port.as_bytes(), &RULES), Err(SdpError::Malformed { line: 6 }));
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
        chatroom: None,
        mikey: Some(&[1, 14, 5]),
    });
    let offer = Offer::parse(&offer, &RULES).unwrap();
    assert_eq!(offer.select(), Ok(0));
    let message = offer.media[0].message.clone().unwrap();
    assert_eq!(message.max_size_bytes, Some(9000));
    let keys = message.key_management.unwrap();
    assert_eq!(keys.mikey(), Some(&[1, 14, 5][..]));

    let answer = LocalDescription {
        session_id: 5,
        address: "[2001:db8::2]:2855".parse().unwrap(),
        times: offer.times,
        key_management: Some((keys.level, "AQ8F".to_owned())),
        media: vec![LocalMedia::Served(Box::new(LocalMessage {
            secure: true,
            fingerprint: Some(Fingerprint::of(b"certificate")),
            label: None,
            session_id: "ownownown".to_owned(),
            setup: OfferedSetup::Passive,
            direction: Direction::SendOnly,
            cema: true,
            capabilities: Capabilities {
                accept_types: "message/cpim".to_owned(),
                accept_wrapped_types: "*".to_owned(),
                max_size_bytes: Some(7000),
                chatroom: Some(Chatroom { nicknames: false, private_messages: true }),
            },
            file: Vec::new(),
        }))],
    };
    let text = String::from_utf8(answer.to_bytes(1)).unwrap();
    // SHA-256 of "certificate", as sha256sum has it.
    assert!(text.contains("a=fingerprint:sha-256 03:D6:6D:D0:88:35:C1:CA:3F:12:8C:CE:AC:D1:F3:1A:C9:41:63:09:6B:20:F4:45:AE:84:28:5B:C0:83:2D:72\r\n"), "{text}");
    let read = parse_answer(text.as_bytes()).unwrap();
    assert_eq!(read.path, "msrps://[2001:db8::2]:2855/ownownown;tcp");
    assert_eq!(read.connect_to, Some(answer.address));
    assert_eq!(read.direction, Direction::SendOnly);
    assert_eq!(read.mikey, Some(vec![1, 15, 5]));
    assert!(read.secure);
    assert!(!read.peer_is_active);
    assert_eq!(read.max_size_bytes, Some(7000));
    assert_eq!(read.chatroom, Some(Chatroom { nicknames: false, private_messages: true }));
    assert_eq!(read.accept_types, "message/cpim");
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
        if let Ok(offer) = Offer::parse(&text, &RULES) {
            let _ = offer.select();
        }
        let _ = parse_answer(&text);
    }
}
