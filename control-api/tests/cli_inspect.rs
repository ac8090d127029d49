//! `mrf inspect`, run as an engineer with a trace runs it.

use std::io::Write;
use std::process::{Command, Stdio};

fn inspect(arguments: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mrf"))
        .arg("inspect")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("piped").write_all(input).expect("read");
    let output = child.wait_with_output().expect("ends");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

const OFFER: &str = "v=0\no=alice 1 1 IN IP4 198.51.100.10\ns=-\nc=IN IP4 198.51.100.10\nt=0 0\n\
    m=audio 4000 RTP/AVP 0\n\
    m=message 7654 TCP/MSRP *\na=setup:actpass\n\
    a=accept-types:message/cpim text/plain\na=path:msrp://198.51.100.10:7654/jshA7we;tcp\n\
    a=chatroom:nickname\n\
    m=message 7654 TCP/MSRP *\na=setup:actpass\na=sendonly\na=accept-types:message/cpim\n\
    a=path:msrp://198.51.100.10:7654/f;tcp\na=file-selector:size:9\na=file-transfer-id:x\n";

#[test]
fn tells_of_every_line_of_an_offer_and_the_answer_to_it() {
    let (code, text) = inspect(&["sdp"], OFFER.as_bytes());
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "1. m=audio RTP/AVP 0\n   refused               Media type not available (Warning 304)\n",
        "2. m=message TCP/MSRP *\n   served ",
        "   path                  msrp://198.51.100.10:7654/jshA7we;tcp\n",
        "   setup                 actpass\n",
        "   chatroom              nicknames yes, private messages no\n",
        "3. m=message TCP/MSRP *\n   refused               One stream of a kind is served",
        "answer: 200\n\nv=0\r\n",
        "m=audio 0 RTP/AVP 0\r\nm=message 2855 TCP/MSRP *\r\na=setup:passive\r\n",
        "m=message 0 TCP/MSRP *\r\na=file-selector:size:9\r\na=file-transfer-id:x\r\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
}

#[test]
fn tells_why_an_offer_would_be_refused() {
    let (code, text) = inspect(&["sdp"], OFFER.replace("a=path", "a=road").as_bytes());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.ends_with("answer: 488, Warning 306: Attribute not understood: path\n"), "{text}");
    let (code, text) = inspect(&["sdp"], b"hello\n");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unreadable: Session description malformed at line 1"), "{text}");
}

#[test]
fn answers_an_offer_by_the_policy_of_the_room_it_calls() {
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    let text = "[rooms]\ncreation = \"closed\"\n[[room]]\nname = \"board\"\ncpim = \"required\"\n";
    config.write_all(text.as_bytes()).expect("written");
    let config = config.path().to_str().expect("text").to_owned();
    let bare = OFFER.replace("message/cpim text/plain", "text/plain");
    let ask = |room, offer: &str| {
        inspect(&["sdp", "--config", &config, "--room", room], offer.as_bytes())
    };
    assert_eq!(ask("board", OFFER).0, Some(0));
    // The file beside it names message/cpim and is served instead.
    let (code, text) = ask(
        "board",
        bare.split("m=message 7654 TCP/MSRP *\na=setup:actpass\na=sendonly").next().expect("text"),
    );
    assert_eq!(code, Some(1));
    assert!(text.contains("answer: 488, Warning 305"), "{text}");
    let (code, text) = ask("pub", OFFER);
    assert_eq!(code, Some(1));
    assert!(text.ends_with("answer: 404\n"), "{text}");
}

#[test]
fn tells_of_the_floor_stream_of_an_offer_where_the_room_has_floors() {
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    let text = "[rooms]\nfloors = [\"messages\"]\n[[room]]\nname = \"free\"\nfloors = []\n";
    config.write_all(text.as_bytes()).expect("written");
    let config = config.path().to_str().expect("text").to_owned();
    let ask = |room, offer: &str| {
        inspect(&["sdp", "--config", &config, "--room", room], offer.as_bytes())
    };
    let line = "m=application 9 TCP/BFCP *\na=setup:active\na=connection:new\n\
        a=floorctrl:c-only\na=bfcpver:1\n";
    let offer = format!("{OFFER}{line}");
    let (code, text) = ask("tea", &offer);
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "4. m=application TCP/BFCP *\n   served ",
        "   floorctrl             client\n",
        "   bfcpver               1\n",
        "m=application 2855 TCP/BFCP *\r\na=setup:passive\r\na=connection:new\r\n",
        "a=userid:1\r\na=floorid:1 mstrm:10\r\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
    let (code, text) = ask("tea", &offer.replace("c-only", "s-only"));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("refused               The node is floor control server"), "{text}");
    assert!(text.contains("m=application 0 TCP/BFCP *\r\n"), "{text}");
    let (code, text) = ask("free", &offer);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("m=application 0 TCP/BFCP *\r\n"), "{text}");
    let keyed = offer.replace("TCP/BFCP", "TCP/TLS/BFCP") + "a=key-mgmt:mikey AQ4FgA==\n";
    assert!(ask("tea", &keyed).1.ends_with("if the KMS resolves the ticket in key-mgmt\n"));
}

#[test]
fn a_protected_offer_depends_on_the_kms() {
    let text = OFFER.replace("m=message 7654 TCP/MSRP", "m=message 7654 TCP/TLS/MSRP");
    let text = text
        .replace("msrp://198", "msrps://198")
        .replace("a=chatroom:nickname", "a=key-mgmt:mikey AQ4FgA==");
    let (code, told) = inspect(&["sdp"], text.as_bytes());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("key-mgmt              mikey"), "{told}");
    assert!(told.contains("if the KMS resolves"), "{told}");
}

const STREAM: &str = "MSRP a786hjs2 SEND\r\n\
    To-Path: msrp://198.51.100.10:7654/jshA7we;tcp\r\n\
    From-Path: msrp://203.0.113.5:2855/own;tcp\r\n\
    Message-ID: 87652491\r\nByte-Range: 1-*/*\r\nFailure-Report: partial\r\n\
    Content-Type: message/cpim\r\n\r\n\
    From: <sip:alice@example.com>\r\nTo: <sip:tea@example.com>\r\n\r\n\
    Content-Type: text/plain\r\n\r\nhi \u{1b}[31m\r\n-------a786hjs2+\r\n\
    MSRP a786hjs2 200 OK\r\nTo-Path: msrp://203.0.113.5:2855/own;tcp\r\n\
    From-Path: msrp://198.51.100.10:7654/jshA7we;tcp\r\n-------a786hjs2$\r\n";

#[test]
fn tells_a_stream_message_by_message() {
    let (code, text) = inspect(&["msrp"], STREAM.as_bytes());
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "1. byte 0, line 1\n   request         SEND a786hjs2\n",
        "   To-Path         msrp://198.51.100.10:7654/jshA7we;tcp\n",
        "   Byte-Range      1-*/*\n",
        "   Failure-Report  partial",
        "ended with +, more follows\n",
        "     From          sip:alice@example.com\n     To            sip:tea@example.com\n",
        "     Content-Type  text/plain\n",
        "   response        200 OK to a786hjs2\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
    // A trace that went through an editor.
    let (code, text) = inspect(&["msrp"], STREAM.replace("\r\n", "\n").as_bytes());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("note: every line ends in LF alone"), "{text}");
}

#[test]
fn names_the_place_where_a_stream_breaks() {
    let broken = STREAM.replace("MSRP a786hjs2 200 OK\r\nTo-Path", "MSRP a786hjs2 200 OK\r\nTo");
    let (code, text) = inspect(&["msrp"], broken.as_bytes());
    assert_eq!(code, Some(1));
    let at = broken.find("MSRP a786hjs2 200").expect("there");
    let line = broken[..at].matches('\n').count() + 1;
    let told = format!("malformed: the message at byte {at}, line {line}: To-Path");
    assert!(text.contains(&told), "{text}");
    let (code, text) = inspect(&["msrp"], &STREAM.as_bytes()[..STREAM.len() - 1]);
    assert_eq!(code, Some(1));
    assert!(text.contains("incomplete: "), "{text}");
    let unknown = STREAM.replace("a786hjs2 SEND", "a786hjs2 SHOUT");
    let (code, text) = inspect(&["msrp"], unknown.as_bytes());
    assert_eq!(code, Some(1));
    assert!(text.contains("the node answers 501"), "{text}");
}

#[test]
fn control_characters_of_a_peer_do_not_reach_the_terminal() {
    let hostile = STREAM.replace("87652491", "8765\u{1b}[2J");
    let (_, text) = inspect(&["msrp"], hostile.as_bytes());
    assert!(!text.contains('\u{1b}'), "{text}");
    let hostile =
        OFFER.replace("nickname", "nickname \u{1b}[2J").replace("text/plain", "text/\u{1b}");
    let (_, text) = inspect(&["sdp"], hostile.as_bytes());
    assert!(!text.contains('\u{1b}'), "{text}");
}

const FAX: &str = "v=0\no=ue 1 1 IN IP4 10.0.0.7\ns=-\nc=IN IP4 10.0.0.7\nt=0 0\n\
    m=image 6800 UDP/TLS/UDPTL t38\na=T38FaxVersion:0\na=setup:passive\n\
    a=fingerprint:SHA-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB\n\
    a=3ge2ae:requested\n";

#[test]
fn shows_each_line_that_a_border_changes_and_the_clause() {
    let mut answer = tempfile::NamedTempFile::new().expect("a file");
    let text = "v=0\no=core 1 1 IN IP4 192.0.2.77\ns=-\nc=IN IP4 192.0.2.77\nt=0 0\n\
        m=image 7000 UDPTL t38\n";
    answer.write_all(text.as_bytes()).expect("written");
    let answer = answer.path().to_str().expect("text").to_owned();
    let (code, text) =
        inspect(&["sdp", "--border", "ims-alg", "--answer", &answer], FAX.as_bytes());
    assert_eq!(code, Some(0), "{text}");
    let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "offer, access to core 1. m=image UDP/TLS/UDPTL: protected up to the access edge (e2ae) \
         access DtlsOverUdp core Udp",
        "v=0 - o=ue 1 1 IN IP4 10.0.0.7 + o=ue 1 1 IN IP4 192.0.2.1 hide_topology s=-",
        "- m=image 6800 UDP/TLS/UDPTL t38 + m=image 40001 UDPTL t38 TS 23.334 6.2.10.4.2 \
         a=T38FaxVersion:0 - a=setup:passive TS 23.334 6.2.10.4.2 - a=fingerprint",
        "answer, core to access 1. access 10.0.0.7:6800, we are DTLS Client core 192.0.2.77:7000",
        "+ a=setup:active TS 23.334 6.2.10.4.2 + a=fingerprint:sha-256 00:11:22",
    ] {
        assert!(plain.contains(expected), "{expected:?} is missing from:\n{text}");
    }
}

#[test]
fn tells_what_a_border_refuses_and_which_sides_it_has() {
    let offer = FAX.replace("a=fingerprint", "a=thumbprint");
    let (code, text) = inspect(&["sdp", "--border", "ims-alg"], offer.as_bytes());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("refused: 488, Warning 399: Line 6: e2ae"), "{text}");
    let (code, _) = inspect(&["sdp", "--border", "ibcf", "--from", "core"], FAX.as_bytes());
    assert_eq!(code, Some(2));
}
