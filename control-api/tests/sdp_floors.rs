//! BFCP streams in session descriptions (RFC 8856): offers that are read, and what is written.

use control_api::sdp::{
    Capabilities, ConnectionReuse, FloorConference, FloorDescription, FloorMedia, FloorProtocol,
    FloorRoles, FloorStreamOffer, LocalFloor, MessageSessionOffer, Offer, OfferRules, OfferedSetup,
    Offering, SdpError, Unservable, offer_for_message_session_and_floors, parse_floor_answer,
};
use mrfp_core::mp::Direction;

const HEAD: &str =
    "v=0\r\no=ue 1 9 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n";
const MESSAGE: &str = "m=message 40210 TCP/MSRP *\r\na=setup:actpass\r\n\
    a=accept-types:message/cpim\r\na=path:msrp://198.51.100.10:40210/q7Fz0K2m9XbA;tcp\r\n";
const TCP: &str = "m=application 40211 TCP/BFCP *\r\na=setup:actpass\r\na=connection:new\r\n\
    a=floorctrl:c-only\r\na=bfcpver:1\r\n";
const TLS: &str = "m=application 9 TCP/TLS/BFCP *\r\na=setup:active\r\na=connection:new\r\n\
    a=floorctrl:c-only\r\na=bfcpver:1\r\n";
const UDP: &str = "m=application 40211 UDP/BFCP *\r\na=floorctrl:c-only\r\na=bfcpver:2 1\r\n";
const KEY: &str = "a=key-mgmt:mikey AQ4FgA==\r\n";

const RULES: OfferRules = OfferRules {
    protection_required: false,
    certificate: false,
    cpim_required: false,
    cema: true,
    message_bytes_max: None,
};

fn read(line: &str, rules: &OfferRules) -> Result<Box<FloorDescription>, Unservable> {
    let text = format!("{HEAD}{MESSAGE}{line}");
    let offer = Offer::parse(text.as_bytes(), rules).expect("an offer");
    let floor = offer.media[1].floor.clone().expect("an m-line of BFCP");
    assert_eq!(offer.select_floor(), floor.is_ok().then_some(1));
    if !rules.protection_required {
        // Whatever becomes of it, the messages are served.
        assert_eq!(offer.select(), Ok(0));
    }
    floor
}

#[test]
fn serves_the_streams_it_can_and_names_what_it_cannot() {
    let tcp = |from: &str, to: &str| {
        assert!(TCP.contains(from), "{from}");
        TCP.replacen(from, to, 1)
    };
    let table = [
        (tcp("", ""), Ok(())),
        (tcp("TCP/BFCP", "tcp/bfcp"), Ok(())),
        // "If the fmt list contains any other value, it MUST be ignored" (section 4).
        (tcp("BFCP *", "BFCP 99"), Ok(())),
        (tcp("40211", "0"), Err(Unservable::Disabled)),
        (tcp("TCP/BFCP", "UDP/TLS/BFCP"), Err(Unservable::TransportProtocol)),
        (tcp("TCP/BFCP", "TCP/DTLS/BFCP"), Err(Unservable::TransportProtocol)),
        (tcp("TCP/BFCP", "TCP/WSS/BFCP"), Err(Unservable::TransportProtocol)),
        (tcp("c-only", "s-only"), Err(Unservable::FloorControl)),
        (tcp("c-only", "c-only s-only"), Ok(())),
        (tcp("c-only", "s-only c-only"), Ok(())),
        (tcp("c-only", "c-s"), Ok(())),
        (tcp("c-only", "chair"), Err(Unservable::FloorControl)),
        (tcp("a=floorctrl:c-only\r\n", "a=floorctrl\r\n"), Ok(())),
        (tcp("a=floorctrl:c-only\r\n", ""), Ok(())),
        (tcp("bfcpver:1", "bfcpver:2"), Err(Unservable::BfcpVersion)),
        (tcp("bfcpver:1", "bfcpver:2 1"), Ok(())),
        (tcp("bfcpver:1", "bfcpver:one"), Err(Unservable::BfcpVersion)),
        (tcp("a=bfcpver:1\r\n", ""), Ok(())),
        (tcp("connection:new", "connection:existing"), Ok(())),
        (tcp("connection:new", "connection:old"), Err(Unservable::ConnectionAttribute)),
        (tcp("setup:actpass", "setup:sideways"), Err(Unservable::Setup)),
        (tcp("setup:actpass", "setup:passive"), Ok(())),
        (
            tcp("a=setup:actpass", "c=IN IP4 ue.example.com\r\na=setup:passive"),
            Err(Unservable::DomainName),
        ),
        (tcp("a=bfcpver", "a=floorid:65536\r\na=bfcpver"), Err(Unservable::FloorAttribute)),
        (tcp("a=bfcpver", "a=confid:4294967296\r\na=bfcpver"), Err(Unservable::FloorAttribute)),
        (tcp("a=bfcpver", "a=userid:+1\r\na=bfcpver"), Err(Unservable::FloorAttribute)),
        (tcp("a=bfcpver", "a=floorid:1 stream:10\r\na=bfcpver"), Err(Unservable::FloorAttribute)),
        (format!("{TCP}{KEY}"), Err(Unservable::KeyManagementOnPlain)),
        (TLS.to_owned(), Err(Unservable::KeyManagementMissing)),
        (format!("{TLS}{KEY}"), Ok(())),
        (format!("{TLS}a=key-mgmt:mikey %%\r\n"), Err(Unservable::KeyManagement)),
        (format!("{TLS}a=key-mgmt:other AQ==\r\n"), Err(Unservable::KeyManagement)),
        (UDP.to_owned(), Ok(())),
        (UDP.replace("bfcpver:2 1", "bfcpver:1"), Err(Unservable::BfcpVersion)),
        (UDP.replace("a=bfcpver:2 1\r\n", ""), Ok(())),
    ];
    for (line, expected) in table {
        assert_eq!(read(&line, &RULES).map(|_| ()), expected, "{line}");
    }
}

#[test]
fn where_protection_is_required_only_tls_is_served_and_a_certificate_does_for_a_key() {
    let required = OfferRules { protection_required: true, ..RULES };
    assert_eq!(read(TCP, &required), Err(Unservable::ProtectionRequired));
    assert_eq!(read(UDP, &required), Err(Unservable::ProtectionRequired));
    assert!(read(&format!("{TLS}{KEY}"), &required).is_ok());
    let certified = OfferRules { certificate: true, ..RULES };
    assert!(read(TLS, &certified).is_ok());
}

#[test]
fn the_sessions_key_is_that_of_its_messages_and_of_nothing_else() {
    let secure = MESSAGE.replace("TCP/MSRP", "TCP/TLS/MSRP").replace("msrp://", "msrps://");
    let text = format!("{HEAD}{KEY}{secure}{TLS}");
    let offer = Offer::parse(text.as_bytes(), &RULES).expect("an offer");
    assert_eq!(offer.select(), Ok(0));
    assert_eq!(offer.media[1].floor, Some(Err(Unservable::KeyManagementMissing)));
}

#[test]
fn everything_a_description_says_is_read() {
    let line = "m=application 5070 TCP/TLS/BFCP *\r\nc=IN IP6 2001:db8::7\r\na=setup:passive\r\n\
        a=connection:existing\r\na=floorctrl:c-only s-only\r\na=confid:4321\r\na=userid:1234\r\n\
        a=floorid:1 mstrm:10\r\na=floorid:2 m-stream:11 12\r\na=floorid:3\r\na=bfcpver:1 2\r\n\
        a=key-mgmt:mikey AQ4FgA==\r\n";
    let floor = read(line, &RULES).expect("served");
    assert_eq!(floor.protocol, FloorProtocol::Tls);
    assert_eq!(floor.setup, OfferedSetup::Passive);
    assert_eq!(floor.connection, ConnectionReuse::Existing);
    assert_eq!(floor.roles, Some(FloorRoles { client: true, server: true }));
    assert_eq!((floor.conference_id, floor.user_id), (Some(4321), Some(1234)));
    let media = |floor_id, labels: &[&str]| FloorMedia {
        floor_id,
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    };
    assert_eq!(floor.floors, [media(1, &["10"]), media(2, &["11", "12"]), media(3, &[])]);
    assert_eq!(floor.versions, [1, 2]);
    assert_eq!(floor.remote(), Some("[2001:db8::7]:5070".parse().unwrap()));
    let keys = floor.key_management.expect("there");
    assert_eq!(keys.mikey(), Some(&[1, 14, 5, 128][..]));
}

#[test]
fn more_floors_than_a_conference_has_are_no_description() {
    let floors: String = (1..=65).map(|id| format!("a=floorid:{id} mstrm:1{id}\r\n")).collect();
    assert_eq!(read(&format!("{TCP}{floors}"), &RULES), Err(Unservable::FloorAttribute));
}

fn offering() -> Offering {
    Offering {
        sdp_session_id: 7,
        address: "203.0.113.5:2855".parse().unwrap(),
        msrp_session_id: "own-session".to_owned(),
        capabilities: Capabilities {
            accept_types: "message/cpim".to_owned(),
            accept_wrapped_types: "*".to_owned(),
            max_size_bytes: None,
            chatroom: None,
        },
        direction: Direction::SendRecv,
        cema: true,
        file: None,
        key_management: Some("AQID".to_owned()),
        label: Some("10".to_owned()),
        floor: Some(Box::new(LocalFloor {
            protocol: FloorProtocol::Tls,
            address: "203.0.113.5:5070".parse().unwrap(),
            setup: OfferedSetup::ActPass,
            connection: ConnectionReuse::New,
            conference: Some(FloorConference {
                conference_id: 4321,
                user_id: 12,
                floors: vec![
                    FloorMedia { floor_id: 1, labels: vec!["10".to_owned()] },
                    FloorMedia { floor_id: 2, labels: vec!["11".to_owned()] },
                ],
            }),
            fingerprint: None,
            key_management: Some("BAUG".to_owned()),
        })),
    }
}

#[test]
fn an_offer_of_ours_is_that_of_a_floor_control_server() {
    let text = String::from_utf8(offering().description().to_bytes(1)).unwrap();
    assert_eq!(
        text,
        "v=0\r\no=- 7 1 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n\
         m=message 2855 TCP/TLS/MSRP *\r\na=setup:actpass\r\na=accept-types:message/cpim\r\n\
         a=accept-wrapped-types:*\r\na=path:msrps://203.0.113.5:2855/own-session;tcp\r\n\
         a=sendrecv\r\na=label:10\r\na=msrp-cema\r\na=key-mgmt:mikey AQID\r\n\
         m=application 5070 TCP/TLS/BFCP *\r\na=setup:actpass\r\na=connection:new\r\n\
         a=floorctrl:s-only\r\na=confid:4321\r\na=userid:12\r\na=floorid:1 mstrm:10\r\n\
         a=floorid:2 mstrm:11\r\na=bfcpver:1\r\na=key-mgmt:mikey BAUG\r\n"
    );
}

#[test]
fn the_answer_to_it_is_read_and_a_bad_floor_stream_spoils_no_messages() {
    let message = "m=message 9 TCP/TLS/MSRP *\r\na=setup:active\r\na=accept-types:message/cpim\r\n\
        a=path:msrps://198.51.100.10:9/q7Fz0K2m9XbA;tcp\r\na=msrp-cema\r\na=key-mgmt:mikey AQ8F\r\n";
    let line = "m=application 9 TCP/TLS/BFCP *\r\na=setup:active\r\na=connection:new\r\n\
        a=floorctrl:c-only\r\na=bfcpver:1\r\na=key-mgmt:mikey AQ8G\r\n";
    let answered = |line: &str| {
        let text = format!("{HEAD}{message}{line}");
        offering().answered(text.as_bytes()).expect("messages").floor.expect("it was offered")
    };
    let floor = answered(line).expect("taken");
    assert_eq!(floor.setup, OfferedSetup::Active);
    assert_eq!(floor.key_management.expect("there").mikey(), Some(&[1, 15, 6][..]));
    // RFC 4583: without the attribute.
    assert!(answered(&line.replace("a=floorctrl:c-only\r\n", "")).is_ok());
    for (from, to, reason) in [
        ("application 9", "application 0", Unservable::Disabled),
        ("TCP/TLS/BFCP", "TCP/BFCP", Unservable::TransportProtocol),
        ("c-only", "s-only", Unservable::FloorControl),
        ("c-only", "c-only s-only", Unservable::FloorControl),
        ("bfcpver:1", "bfcpver:2", Unservable::BfcpVersion),
        ("setup:active", "setup:actpass", Unservable::Setup),
    ] {
        assert_eq!(answered(&line.replace(from, to)), Err(reason), "{to}");
    }
}

#[test]
fn whoever_connects_has_no_port_and_another_address_has_a_c_line_of_its_own() {
    let mut offering = offering();
    let floor = offering.floor.as_mut().expect("there");
    floor.setup = OfferedSetup::Active;
    floor.address = "203.0.113.6:5070".parse().unwrap();
    let text = String::from_utf8(offering.description().to_bytes(1)).unwrap();
    let line = "m=application 9 TCP/TLS/BFCP *\r\nc=IN IP4 203.0.113.6\r\na=setup:active\r\n";
    assert!(text.contains(line), "{text}");
    let floor = offering.floor.as_mut().expect("there");
    floor.protocol = FloorProtocol::Udp;
    let text = String::from_utf8(offering.description().to_bytes(1)).unwrap();
    let line = "m=application 5070 UDP/BFCP *\r\nc=IN IP4 203.0.113.6\r\na=floorctrl:s-only\r\n";
    assert!(text.contains(line) && text.contains("a=bfcpver:2\r\n"), "{text}");
    assert!(!text.contains("a=connection"), "{text}");
}

#[test]
fn a_ue_offers_a_client_and_reads_what_a_server_answers() {
    let message = MessageSessionOffer {
        session_id: 1,
        session_version: 1,
        address: "198.51.100.10:40210".parse().unwrap(),
        msrp_session_id: "q7Fz0K2m9XbA4cD1",
        secure: true,
        setup: OfferedSetup::ActPass,
        accept_types: "message/cpim",
        accept_wrapped_types: "",
        max_size_bytes: None,
        direction: Direction::SendRecv,
        cema: true,
        chatroom: None,
        mikey: Some(&[1, 14, 5]),
    };
    let floors = FloorStreamOffer {
        address: "198.51.100.10:40211".parse().unwrap(),
        protocol: FloorProtocol::Tls,
        setup: OfferedSetup::Passive,
        connection: ConnectionReuse::New,
        mikey: Some(&[1, 14, 6]),
    };
    let text = offer_for_message_session_and_floors(&message, &floors);
    let offer = Offer::parse(&text, &RULES).expect("an offer");
    assert_eq!((offer.select(), offer.select_floor()), (Ok(0), Some(1)));
    let floor = offer.media[1].floor.clone().expect("there").expect("served");
    assert_eq!(floor.roles, Some(FloorRoles { client: true, server: false }));
    assert_eq!(floor.key_management.as_ref().and_then(|it| it.mikey()), Some(&[1, 14, 6][..]));
    assert_eq!(floor.remote(), Some(floors.address));

    let mut answer = offering();
    answer.floor.as_mut().expect("there").setup = OfferedSetup::Passive;
    let text = answer.description().to_bytes(1);
    let read = parse_floor_answer(&text).expect("floors");
    assert_eq!((read.conference_id, read.user_id, read.floors.len()), (4321, 12, 2));
    assert_eq!(read.connect_to, Some("203.0.113.5:5070".parse().unwrap()));
    assert_eq!(read.mikey.as_deref(), Some(&[4, 5, 6][..]));
    assert!(!read.peer_is_active);
    let text = String::from_utf8(text).unwrap().replace("application 5070", "application 0");
    let refused = parse_floor_answer(text.as_bytes());
    assert_eq!(refused, Err(SdpError::Refused(Unservable::Disabled)));
}
