//! What kind of content it is, and whether a list of types has room for it.

use mrfp_protocol::cpim::{ContentClass, Head, accepts, is_cpim};

#[test]
fn tells_kinds_of_content_apart() {
    for (content_type, disposition, class) in [
        ("text/plain; charset=utf-8", None, ContentClass::Chat),
        ("TEXT/HTML", Some("render"), ContentClass::Chat),
        ("multipart/alternative;boundary=x", None, ContentClass::Chat),
        ("application/vnd.example.poll+json", None, ContentClass::Chat),
        ("application/im-iscomposing+xml", None, ContentClass::IsComposing),
        ("Application/IM-isComposing+XML;charset=utf-8", None, ContentClass::IsComposing),
        ("message/imdn+xml", Some("notification"), ContentClass::Imdn),
        ("image/png", None, ContentClass::File),
        ("application/octet-stream", None, ContentClass::File),
        ("text/plain", Some("attachment; filename=\"a.txt\""), ContentClass::File),
        ("xml", None, ContentClass::File),
    ] {
        let found = ContentClass::of(content_type.as_bytes(), disposition.map(str::as_bytes));
        assert_eq!(found, class, "{content_type} {disposition:?}");
    }
}

#[test]
fn what_a_wrapper_holds_counts_and_not_the_wrapper() {
    let of = |content_headers: &str| {
        let text = format!("From: <sip:a@x>\r\nTo: <sip:b@x>\r\n\r\n{content_headers}\r\n");
        let (head, _) = Head::parse(text.as_bytes()).expect("ok").expect("complete");
        let class = ContentClass::of_wrapped(&head);
        assert_eq!(ContentClass::of_unread(text.as_bytes()), class);
        class
    };
    assert_eq!(of("Content-Type: message/imdn+xml\r\n"), ContentClass::Imdn);
    assert_eq!(of(""), ContentClass::Chat);
    assert_eq!(
        of("Content-Disposition: attachment\r\nContent-Type: text/plain\r\n"),
        ContentClass::File
    );
}

#[test]
fn lists_have_room_by_name_by_type_and_for_everything() {
    let list = b"message/cpim text/* image/PNG;q=1";
    for content_type in ["Message/CPIM", "text/plain;charset=utf-8", "TEXT/html", "image/png"] {
        assert!(accepts(list, content_type.as_bytes()), "{content_type}");
    }
    for content_type in ["message/imdn+xml", "image/jpeg", "texts/plain", "text"] {
        assert!(!accepts(list, content_type.as_bytes()), "{content_type}");
    }
    assert!(accepts(b"text/plain *", b"application/x"));
    assert!(!accepts(b"", b"text/plain"));
    assert!(is_cpim(b"message/CPIM; charset=utf-8"));
    assert!(!is_cpim(b"message/cpimx"));
}

#[test]
fn what_is_not_there_yet_is_not_looked_for_in_the_content() {
    let of = |text: &str| ContentClass::of_unread(text.as_bytes());
    let head = "From: <sip:a@x>\r\nTo: <sip:b@x>\r\n\r\n";
    assert_eq!(of(head), ContentClass::Chat);
    assert_eq!(of(&format!("{head}content-TYPE: image/png\r\n\r\n")), ContentClass::File);
    let said = format!("{head}Content-Type: text/plain\r\n\r\nContent-Type: image/png\r\n");
    assert_eq!(of(&said), ContentClass::Chat);
}
