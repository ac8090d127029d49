//! Who connects where: every branch of RFC 6714 section 4, and the roles of RFC 6135.

use std::net::SocketAddr;

use control_api::sdp::{
    AnswerError, Capabilities, MessageDescription, Offer, OfferRules, Offering, Unservable,
};
use mrfp_core::mp::{Direction, Setup};

/// One URI of a path: where an end or a relay is.
const OWN: &str = "198.51.100.10:4000";
const RELAY: &str = "192.0.2.1:2855";
/// What a middlebox writes into c= and m=.
const MIDDLEBOX: &str = "203.0.113.77:9000";

const RULES: OfferRules = OfferRules {
    protection_required: false,
    certificate: false,
    cpim_required: false,
    cema: true,
    message_bytes_max: None,
};

/// A description with this c= and m=, these hosts in its path and these further lines.
fn description(connection: &str, path: &[&str], lines: &str) -> String {
    let (host, port) = connection.rsplit_once(':').expect("a port");
    let family = if host.contains(':') { "IP6" } else { "IP4" };
    let host = host.trim_matches(['[', ']']);
    let uris: Vec<String> = path.iter().map(|host| format!("msrp://{host}/s1;tcp")).collect();
    format!(
        "v=0\r\no=- 1 1 IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\n\
         m=message {port} TCP/MSRP *\r\na=accept-types:message/cpim\r\na=path:{}\r\n{lines}",
        uris.join(" ")
    )
}

fn offered(text: &str, rules: &OfferRules) -> Result<MessageDescription, Unservable> {
    let offer = Offer::parse(text.as_bytes(), rules).expect("an offer");
    offer.media[0].message.clone().map(|message| *message)
}

#[test]
fn answerer_takes_part_or_refuses_as_section_4_3_says() {
    const CEMA: &str = "a=msrp-cema\r\n";
    const ACTIVE: &str = "a=setup:active\r\n";
    const ACTPASS: &str = "a=setup:actpass\r\n";
    let both = |one: &str, other: &str| format!("{one}{other}");
    // c= and m=, path, attributes, and whether our answer has msrp-cema or the offer is refused.
    let table = [
        // The offer has msrp-cema.
        (OWN, vec![OWN], both(CEMA, ACTPASS), Ok(true)),
        (OWN, vec![OWN], both(CEMA, ACTIVE), Ok(true)),
        (MIDDLEBOX, vec![OWN], both(CEMA, ACTPASS), Ok(true)),
        (MIDDLEBOX, vec![OWN], both(CEMA, ACTIVE), Ok(true)),
        (MIDDLEBOX, vec![OWN], CEMA.to_owned(), Ok(true)),
        // A relay on the other side: with actpass it waits for us, else criterion 2 holds.
        (RELAY, vec![RELAY, OWN], both(CEMA, ACTPASS), Ok(true)),
        (MIDDLEBOX, vec![RELAY, OWN], both(CEMA, ACTPASS), Ok(true)),
        (RELAY, vec![RELAY, OWN], both(CEMA, ACTIVE), Ok(false)),
        (RELAY, vec![RELAY, OWN], CEMA.to_owned(), Ok(false)),
        (MIDDLEBOX, vec![RELAY, OWN], both(CEMA, ACTIVE), Ok(false)),
        // It has not.
        (OWN, vec![OWN], ACTPASS.to_owned(), Ok(true)),
        (OWN, vec![OWN], String::new(), Ok(true)),
        (MIDDLEBOX, vec![OWN], ACTPASS.to_owned(), Err(Unservable::AddressMismatch)),
        (MIDDLEBOX, vec![OWN], ACTIVE.to_owned(), Err(Unservable::AddressMismatch)),
        (MIDDLEBOX, vec![RELAY, OWN], ACTPASS.to_owned(), Err(Unservable::AddressMismatch)),
        // RFC 4975 section 8.1 has the endpoint in c= and m=, not its relay.
        (OWN, vec![RELAY, OWN], String::new(), Ok(false)),
        (RELAY, vec![RELAY, OWN], ACTPASS.to_owned(), Ok(true)),
    ];
    for (connection, path, lines, expected) in table {
        let text = description(connection, &path, &lines);
        let cema = offered(&text, &RULES).map(|message| message.answer_with_cema());
        assert_eq!(cema, expected, "{text}");
    }
}

#[test]
fn an_end_that_takes_no_part_in_cema_looks_at_the_path_alone() {
    let rules = OfferRules { cema: false, ..RULES };
    let text = description(MIDDLEBOX, &[OWN], "a=setup:passive\r\n");
    assert_eq!(offered(&text, &RULES), Err(Unservable::AddressMismatch));
    let message = offered(&text, &rules).expect("served");
    assert_eq!(message.connect_to(false), OWN.parse().ok());
}

#[test]
fn an_active_answerer_connects_to_the_connection_line() {
    let lines = "a=setup:passive\r\na=msrp-cema\r\n";
    let message = offered(&description(MIDDLEBOX, &[OWN], lines), &RULES).expect("served");
    assert!(message.answer_with_cema());
    assert_eq!(message.connect_to(true), MIDDLEBOX.parse().ok());
}

#[test]
fn addresses_match_as_section_4_4_says() {
    let six = "[2001:db8::10]:4000";
    let table = [
        (OWN, OWN, true),
        (OWN, "198.51.100.11:4000", false),
        (OWN, "198.51.100.10:4001", false),
        (OWN, "198.51.100.10", false),
        // One address in two spellings (RFC 5952).
        (six, "[2001:DB8:0:0::0010]:4000", true),
        (six, "[2001:db8::11]:4000", false),
        // Names are compared with names; against an address only the port can tell.
        ("ue.example.com:4000", "UE.example.com:4000", true),
        ("ue.example.com:4000", "other.example.com:4000", false),
        (OWN, "ue.example.com:4000", true),
        (OWN, "ue.example.com:4001", false),
        ("ue.example.com:4000", OWN, true),
    ];
    for (connection, path, matches) in table {
        let text = description(connection, &[path], "a=setup:actpass\r\n");
        let expected = if matches { None } else { Some(Unservable::AddressMismatch) };
        assert_eq!(offered(&text, &RULES).err(), expected, "{connection} {path}");
    }
    // RFC 4145 section 4.1: an end that only connects writes the discard port.
    let discard = description("198.51.100.10:9", &[OWN], "a=setup:active\r\n");
    assert_eq!(offered(&discard, &RULES).err(), None);
}

fn offering(cema: bool) -> Offering {
    Offering {
        sdp_session_id: 7,
        address: "203.0.113.5:2855".parse().expect("an address"),
        msrp_session_id: "own-session".to_owned(),
        capabilities: Capabilities {
            accept_types: "message/cpim".to_owned(),
            accept_wrapped_types: "*".to_owned(),
            max_size_bytes: None,
            chatroom: None,
        },
        direction: Direction::SendRecv,
        cema,
        file: None,
        key_management: None,
        label: None,
        floor: None,
    }
}

#[test]
fn offerer_connects_waits_or_offers_again_as_section_4_2_says() {
    const CEMA: &str = "a=msrp-cema\r\n";
    const ACTIVE: &str = "a=setup:active\r\n";
    const PASSIVE: &str = "a=setup:passive\r\n";
    let both = |one: &str, other: &str| format!("{one}{other}");
    let to = |place: &str| Ok(Setup::Active { remote: place.parse::<SocketAddr>().expect("one") });
    let again = Err(AnswerError::OfferAgain);
    let table = [
        // Both take part: to c= and m=, wherever the path points.
        (OWN, vec![OWN], both(CEMA, PASSIVE), to(OWN)),
        (MIDDLEBOX, vec![OWN], both(CEMA, PASSIVE), to(MIDDLEBOX)),
        (MIDDLEBOX, vec![RELAY, OWN], both(CEMA, PASSIVE), to(MIDDLEBOX)),
        (MIDDLEBOX, vec![OWN], both(CEMA, ACTIVE), Ok(Setup::Passive)),
        // The answerer takes no part. Criterion 1: a middlebox, and we would wait.
        (MIDDLEBOX, vec![OWN], ACTIVE.to_owned(), again),
        (MIDDLEBOX, vec![RELAY, OWN], ACTIVE.to_owned(), again),
        // Criterion 3: a middlebox before the answerer's relay, and we would connect.
        (MIDDLEBOX, vec![RELAY, OWN], PASSIVE.to_owned(), again),
        (MIDDLEBOX, vec![RELAY, OWN], String::new(), again),
        // A relay and no middlebox: RFC 4975, without a new offer.
        (RELAY, vec![RELAY, OWN], PASSIVE.to_owned(), to(RELAY)),
        (OWN, vec![RELAY, OWN], PASSIVE.to_owned(), to(RELAY)),
        // None of the criteria.
        (MIDDLEBOX, vec![OWN], PASSIVE.to_owned(), to(MIDDLEBOX)),
        (MIDDLEBOX, vec![OWN], String::new(), to(MIDDLEBOX)),
        (OWN, vec![OWN], PASSIVE.to_owned(), to(OWN)),
        (OWN, vec![OWN], String::new(), to(OWN)),
        (OWN, vec![OWN], ACTIVE.to_owned(), Ok(Setup::Passive)),
        ("198.51.100.10:9", vec![OWN], ACTIVE.to_owned(), Ok(Setup::Passive)),
    ];
    for (connection, path, lines, expected) in table {
        let text = description(connection, &path, &lines);
        let answered = offering(true).answered(text.as_bytes()).map(|answered| answered.setup);
        assert_eq!(answered, expected, "{text}");
        // Offered again, nobody moves c= and m= without moving the path: the path is what counts.
        let again = offering(true).without_cema().answered(text.as_bytes());
        let expected = if lines.contains("active") { Ok(Setup::Passive) } else { to(path[0]) };
        assert_eq!(again.map(|answered| answered.setup), expected, "{text}");
    }
}

#[test]
fn the_offer_takes_part_unless_it_is_made_again() {
    let text = String::from_utf8(offering(true).description().to_bytes(1)).expect("text");
    assert!(text.contains("a=msrp-cema\r\n"), "{text}");
    assert!(text.contains("a=setup:actpass\r\n"), "{text}");
    let text = offering(true).without_cema().description().to_bytes(2);
    let text = String::from_utf8(text).expect("text");
    assert!(!text.contains("msrp-cema"), "{text}");
    assert!(text.contains("a=setup:actpass\r\n"), "{text}");
}

#[test]
fn roles_are_those_of_rfc_6135_with_and_without_tls() {
    // What the offer says, and whether the offerer connects, may, or waits.
    let key = "a=key-mgmt:mikey AQ4FgA==\r\n";
    for (line, passive) in [
        ("", false),
        ("a=setup:active\r\n", false),
        ("a=setup:actpass\r\n", false),
        ("a=setup:holdconn\r\n", false),
        ("a=setup:passive\r\n", true),
        // RFC 6135 section 4.4: a=connection is ignored.
        ("a=setup:actpass\r\na=connection:existing\r\n", false),
    ] {
        let plain = description(OWN, &[OWN], line);
        let tls = description(OWN, &[OWN], &format!("{line}{key}"))
            .replace("TCP/MSRP", "TCP/TLS/MSRP")
            .replace("msrp:", "msrps:");
        for text in [plain, tls] {
            let message = offered(&text, &RULES).expect("served");
            let is_passive = message.setup == control_api::sdp::OfferedSetup::Passive;
            assert_eq!(is_passive, passive, "{text}");
        }
    }
    let sideways = description(OWN, &[OWN], "a=setup:sideways\r\n");
    assert_eq!(offered(&sideways, &RULES), Err(Unservable::Setup));
}
