//! Offers of files (RFC 5547), and how they are answered.

use control_api::sdp::{
    FileRange, FileSelector, FileTransfer, LocalDescription, LocalMedia, MediaLine, Offer,
    OfferRules, Unservable,
};

const HEAD: &str =
    "v=0\r\no=alice 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n";
const CHAT: &str = "m=message 7654 TCP/MSRP *\r\na=setup:actpass\r\n\
    a=accept-types:message/cpim\r\na=path:msrp://198.51.100.10:7654/chat;tcp\r\n";
const LINE: &str = "m=message 7654 TCP/MSRP *\r\na=setup:actpass\r\na=sendonly\r\n\
    a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\n\
    a=path:msrp://198.51.100.10:7654/jshA7we;tcp\r\n";
const SELECTOR: &str = "name:\"My cool picture.jpg\" type:image/jpeg size:32349 \
    hash:sha-1:72:24:5F:E8:65:3D:DA:F3:71:36:2F:86:D4:71:91:3E:E4:A2:CE:2E";
const ID: &str = "a=file-transfer-id:vBnG916bdberum2fFEABR1FR3ExZMUrd\r\n";

fn rules(message_bytes_max: Option<u64>) -> OfferRules {
    OfferRules {
        protection_required: false,
        certificate: false,
        cpim_required: false,
        cema: true,
        message_bytes_max,
    }
}

fn parse(text: &str) -> Offer {
    Offer::parse(text.as_bytes(), &rules(None)).expect("an offer")
}

fn file(lines: &str) -> Result<FileTransfer, Unservable> {
    let offer = parse(&format!("{HEAD}{LINE}{lines}"));
    let message = offer.media[0].message.clone()?;
    Ok(message.file.expect("a file"))
}

fn selector(text: &str) -> Result<FileSelector, Unservable> {
    file(&format!("a=file-selector:{text}\r\n{ID}")).map(|file| file.selector)
}

#[test]
fn reads_the_example_of_section_6() {
    let file = file(&format!(
        "a=file-selector:{SELECTOR}\r\n{ID}a=file-disposition:attachment\r\n\
         a=file-date:creation:\"Mon, 15 May 2006 15:01:31 +0300\"\r\n\
         a=file-icon:cid:id2@alicepc.example.com\r\na=file-range:1-32349\r\n"
    ));
    let file = file.expect("taken");
    assert_eq!(file.transfer_id, "vBnG916bdberum2fFEABR1FR3ExZMUrd");
    assert_eq!(file.range, Some(FileRange { start: 1, stop: Some(32_349) }));
    assert_eq!(file.selector.name.as_deref(), Some("My cool picture.jpg"));
    assert_eq!(file.selector.size_bytes, Some(32_349));
    assert_eq!(file.selector.media_type.as_deref(), Some("image/jpeg"));
    assert_eq!(file.selector.hashes.len(), 1);
    assert_eq!(file.selector.hashes[0].0, "sha-1");
}

#[test]
fn reads_selectors_in_every_order_and_no_malformed_one() {
    for text in [
        "size:1",
        "hash:sha-1:00 size:1",
        "hash:sha-1:00 hash:sha-256:01:ff",
        "type:text/plain;charset=\"utf-8\" name:\"a\"",
        "type:text/plain;x=\"a;b c\";y=\"d\" size:3",
        "name:\"a type:b size:c\"",
        "name:\"\u{e4}\u{4e2d}%22.txt\"",
    ] {
        assert!(selector(text).is_ok(), "{text}");
    }
    for text in [
        "size",
        "size:",
        "size:-1",
        "size:1 size:2",
        "size:18446744073709551616",
        "colour:red",
        "name:plain",
        "name:\"\"",
        "name:\"open",
        "name:\"a\" name:\"b\"",
        "type:image",
        "type:image/",
        "type:image/jpeg;x",
        "type:image/jpeg;x=y",
        "hash:sha-1",
        "hash:sha-1:",
        "hash:sha-1:0",
        "hash:sha-1:00:gg",
        "hash:sha-1:00 hash:SHA-1:01",
    ] {
        assert_eq!(selector(text), Err(Unservable::FileAttribute), "{text}");
    }
}

#[test]
fn refuses_what_the_other_attributes_may_not_say() {
    let all = |lines: &str| file(&format!("a=file-selector:size:9\r\n{lines}")).map(|_| ());
    assert_eq!(all(ID), Ok(()));
    for line in [
        "a=file-range:1-*",
        "a=file-range:3-9",
        "a=file-range:9-9",
        "a=file-disposition:render",
        "a=file-date:read:\"x\" creation:\"y\" modification:\"z\"",
        "a=file-icon:CID:x@y",
    ] {
        assert_eq!(all(&format!("{ID}{line}\r\n")), Ok(()), "{line}");
    }
    let malformed = Err(Unservable::FileAttribute);
    // RFC 5547 section 8.1: an offer has the identifier.
    assert_eq!(all(""), malformed);
    assert_eq!(all("a=file-transfer-id:a b\r\n"), malformed);
    assert_eq!(all(&format!("{ID}{ID}")), malformed);
    for line in [
        "a=file-range:0-9",
        "a=file-range:9-8",
        "a=file-range:9",
        "a=file-range:*-9",
        "a=file-disposition:a b",
        "a=file-date:creation:\"x\" creation:\"y\"",
        "a=file-date:burial:\"x\"",
        "a=file-date:creation:x",
        "a=file-date",
        "a=file-icon:http://x",
        "a=file-icon:c",
    ] {
        assert_eq!(all(&format!("{ID}{line}\r\n")), malformed, "{line}");
    }
}

#[test]
fn a_file_is_pushed_and_never_pulled() {
    let selected = |direction: &str| {
        let line = LINE.replace("a=sendonly\r\n", direction);
        parse(&format!("{HEAD}{line}a=file-selector:{SELECTOR}\r\n{ID}")).select()
    };
    assert_eq!(selected("a=sendonly\r\n"), Ok(0));
    assert_eq!(selected("a=recvonly\r\n"), Err(Unservable::FileUnknown));
    assert_eq!(selected("a=inactive\r\n"), Err(Unservable::FileDirection));
    assert_eq!(selected(""), Err(Unservable::FileDirection));
}

#[test]
fn a_file_larger_than_what_is_taken_is_refused_before_it_is_sent() {
    let selected = |lines: &str, max| {
        let text = format!("{HEAD}{LINE}{lines}{ID}");
        Offer::parse(text.as_bytes(), &rules(Some(max))).expect("an offer").select()
    };
    let whole = "a=file-selector:size:1000\r\n";
    assert_eq!(selected(whole, 1000), Ok(0));
    assert_eq!(selected(whole, 999), Err(Unservable::FileTooLarge));
    let tail = "a=file-selector:size:1000\r\na=file-range:901-*\r\n";
    assert_eq!(selected(tail, 100), Ok(0));
    assert_eq!(selected(tail, 99), Err(Unservable::FileTooLarge));
    let part = "a=file-selector:size:1000\r\na=file-range:11-20\r\n";
    assert_eq!(selected(part, 10), Ok(0));
    assert_eq!(selected(part, 9), Err(Unservable::FileTooLarge));
    assert_eq!(selected("a=file-selector:name:\"a\"\r\n", 1), Ok(0));
    let beyond = format!("a=file-selector:size:{0}\r\na=file-range:1-{0}\r\n", u64::MAX);
    assert_eq!(selected(&beyond, 1), Err(Unservable::FileTooLarge));
}

#[test]
fn a_selector_without_a_word_is_a_conversation() {
    for line in ["a=file-selector\r\n", "a=file-selector:\r\n"] {
        let offer = parse(&format!("{HEAD}{CHAT}{line}"));
        assert_eq!(offer.select(), Ok(0));
        assert_eq!(offer.media[0].message.clone().expect("served").file, None);
    }
}

#[test]
fn a_file_needs_nothing_that_its_sender_could_receive() {
    let line = LINE.replace("message/cpim", "image/jpeg");
    let text = format!("{HEAD}{line}a=file-selector:{SELECTOR}\r\n{ID}");
    assert_eq!(parse(&text).select(), Ok(0));
    // But where the room insists on wrappers, its sender must know them.
    let strict = OfferRules { cpim_required: true, ..rules(None) };
    let offer = Offer::parse(text.as_bytes(), &strict).expect("an offer");
    assert_eq!(offer.select(), Err(Unservable::CpimMissing));
}

#[test]
fn the_conversation_is_served_and_files_beside_it_are_refused_by_name() {
    let file = format!("{LINE}a=file-selector:{SELECTOR}\r\n{ID}a=file-disposition:render\r\n");
    for (text, served) in [
        (format!("{HEAD}{CHAT}{file}{file}"), 0),
        (format!("{HEAD}{file}{CHAT}"), 1),
        (format!("{HEAD}{file}{file}"), 0),
    ] {
        assert_eq!(parse(&text).select(), Ok(served), "{text}");
    }
    let lines: Vec<MediaLine> =
        parse(&format!("{HEAD}{file}")).media.into_iter().map(|media| media.line).collect();
    let answer = LocalDescription {
        session_id: 1,
        address: "203.0.113.5:2855".parse().expect("an address"),
        times: Vec::new(),
        key_management: None,
        media: lines.into_iter().map(LocalMedia::Refused).collect(),
    };
    let text = String::from_utf8(answer.to_bytes(1)).expect("text");
    let refused = format!("m=message 0 TCP/MSRP *\r\na=file-selector:{SELECTOR}\r\n{ID}");
    assert!(text.ends_with(&refused), "{text}");
}

#[test]
fn a_malformed_file_is_refused_with_the_words_it_came_with() {
    let offer = parse(&format!("{HEAD}{LINE}a=file-selector:colour:red\r\n{ID}"));
    assert_eq!(offer.select(), Err(Unservable::FileAttribute));
    let mirrored: Vec<String> =
        offer.media[0].line.file.iter().map(|line| line.attribute.clone()).collect();
    assert_eq!(mirrored, ["file-selector", "file-transfer-id"]);
}

#[test]
fn the_same_identifier_for_another_file_is_a_contradiction() {
    let of = |selector: &str, id: &str| {
        file(&format!("a=file-selector:{selector}\r\na=file-transfer-id:{id}\r\n")).expect("taken")
    };
    let first = of("name:\"a\" size:1", "x");
    // Figure 3 of RFC 5547.
    for (later, contradicts) in [
        (of("name:\"a\" size:1", "x"), false),
        (of("name:\"a\" hash:sha-1:00", "x"), false),
        (of("name:\"b\" size:1", "x"), true),
        (of("size:2", "x"), true),
        (of("name:\"b\" size:1", "y"), false),
        (of("name:\"a\" size:1", "y"), false),
    ] {
        assert_eq!(first.contradicts(&later), contradicts, "{later:?}");
    }
    let hashed = of("hash:sha-1:00", "x");
    assert!(hashed.contradicts(&of("hash:SHA-1:01", "x")));
    assert!(!hashed.contradicts(&of("hash:sha-256:01", "x")));
}
