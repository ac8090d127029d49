//! URIs, their comparison, and Byte-Range.

use std::net::{IpAddr, Ipv6Addr};

use mrfp_protocol::msrp::{ByteRange, Uri, UriError};

fn parse(text: &str) -> Uri<'_> {
    Uri::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn same(one: &str, other: &str) -> bool {
    let same = parse(one).same_as(&parse(other));
    assert_eq!(same, parse(other).same_as(&parse(one)));
    same
}

#[test]
fn reads_every_part_of_a_uri() {
    let uri = parse("msrps://alice;x@a.example.com:7394/2s93i93idj+=/;tcp;foo=bar;baz");
    assert!(uri.secure);
    assert_eq!(uri.host, b"a.example.com");
    assert_eq!(uri.port, Some(7394));
    assert_eq!(uri.session_id, b"2s93i93idj+=/");
    assert_eq!(uri.transport, b"tcp");
    assert_eq!(uri.text.len(), 64);
}

#[test]
fn reads_an_ipv6_host_without_its_brackets() {
    let uri = parse("msrp://[2001:db8::1]:2855/abc;ws");
    assert_eq!(uri.host, b"2001:db8::1");
    assert_eq!(uri.port, Some(2855));
    assert_eq!(uri.transport, b"ws");
    let address: Ipv6Addr = "2001:db8::1".parse().expect("an address");
    assert_eq!(uri.host_ip(), Some(IpAddr::V6(address)));
}

#[test]
fn reads_a_bare_relay_uri() {
    let uri = parse("msrps://alice@relay.example.com;tcp");
    assert_eq!(uri.port, None);
    assert_eq!(uri.session_id, b"");
    assert_eq!(uri.host_ip(), None);
}

#[test]
fn refuses_uris_that_are_none() {
    for (text, error) in [
        ("", UriError::Scheme),
        ("sip:a@b", UriError::Scheme),
        ("msrpx://a:1/b;tcp", UriError::Scheme),
        ("msrp:/a:1/b;tcp", UriError::Scheme),
        ("msrp://a<@b:1/b;tcp", UriError::UserInfo),
        ("msrp://:1/b;tcp", UriError::Host),
        ("msrp://a b:1/b;tcp", UriError::Host),
        ("msrp://[::1:1/b;tcp", UriError::Host),
        ("msrp://[a]:1/b;tcp", UriError::Host),
        ("msrp://[::1]1/b;tcp", UriError::Host),
        ("msrp://a:/b;tcp", UriError::Port),
        ("msrp://a:0/b;tcp", UriError::Port),
        ("msrp://a:65536/b;tcp", UriError::Port),
        ("msrp://a:1x/b;tcp", UriError::Port),
        ("msrp://a:1/;tcp", UriError::SessionId),
        ("msrp://a:1/b%41;tcp", UriError::SessionId),
        ("msrp://a:1/b", UriError::Transport),
        ("msrp://a", UriError::Transport),
        ("msrp://a:1/b;", UriError::Transport),
        ("msrp://a:1/b;t-p", UriError::Transport),
        ("msrp://a:1/b;tcp;", UriError::Parameter),
        ("msrp://a:1/b;tcp;=x", UriError::Parameter),
        ("msrp://a:1/b;tcp;x=", UriError::Parameter),
        ("msrp://a:1/b;tcp;x=y=z", UriError::Parameter),
    ] {
        assert_eq!(Uri::parse(text.as_bytes()).map(|_| ()), Err(error), "{text}");
    }
}

#[test]
fn asks_an_endpoint_for_port_and_session_id() {
    let of = |text: &'static str| Uri::parse_endpoint(text.as_bytes()).map(|_| ());
    assert_eq!(of("msrp://a:1/b;tcp"), Ok(()));
    assert_eq!(of("msrp://a/b;tcp"), Err(UriError::PortMissing));
    assert_eq!(of("msrp://a:1;tcp"), Err(UriError::SessionIdMissing));
}

#[test]
fn compares_as_rfc_4975_section_6_1_says() {
    assert!(same("msrp://a.example.com:1/b;tcp", "MSRP://A.Example.COM:1/b;TCP"));
    assert!(same("msrp://x@a:1/b;tcp;p=1", "msrp://y@a:1/b;tcp;q"));
    assert!(same("msrp://%61b:1/b;tcp", "msrp://aB:1/b;tcp"));
    assert!(same("msrp://[2001:DB8:0::1]:1/b;tcp", "msrp://[2001:db8::1]:1/b;tcp"));
    assert!(!same("msrp://a:1/b;tcp", "msrps://a:1/b;tcp"));
    assert!(!same("msrp://a:1/b;tcp", "msrp://c:1/b;tcp"));
    assert!(!same("msrp://a:1/b;tcp", "msrp://a:2/b;tcp"));
    assert!(!same("msrp://a:2855/b;tcp", "msrp://a/b;tcp"));
    assert!(!same("msrp://a:1/b;tcp", "msrp://a:1/B;tcp"));
    assert!(!same("msrp://a:1/b;tcp", "msrp://a:1;tcp"));
    assert!(!same("msrp://a:1/b;tcp", "msrp://a:1/b;ws"));
    assert!(!same("msrp://1.2.3.4:1/b;tcp", "msrp://[::1.2.3.4]:1/b;tcp"));
}

#[test]
fn reads_and_writes_ranges() {
    let max = u64::MAX;
    let max_text = format!("{max}-{max}/{max}");
    for (text, start, end, total) in [
        ("1-5/5", 1, Some(5), Some(5)),
        ("1-*/6000", 1, None, Some(6000)),
        ("2501-*/*", 2501, None, None),
        ("1-0/0", 1, Some(0), Some(0)),
        (max_text.as_str(), max, Some(max), Some(max)),
    ] {
        let range = ByteRange { start, end, total };
        assert_eq!(ByteRange::parse(text.as_bytes()), Some(range), "{text}");
        let mut out = [0; 80];
        let length = range.write(&mut out).expect("fits");
        assert_eq!(&out[..length], text.as_bytes());
        assert_eq!(range.write(&mut out[..length - 1]), None);
    }
}

#[test]
fn refuses_ranges_that_are_none() {
    for text in [
        "",
        "-",
        "1-5",
        "1/5",
        "-5/5",
        "1-/5",
        "1-5/",
        "0-5/5",
        "*-5/5",
        "5-3/9",
        "1-5/5 ",
        " 1-5/5",
        "+1-5/5",
        "1--5/5",
        "1-5/5/5",
        "18446744073709551616-*/*",
        "1-99999999999999999999/*",
    ] {
        assert_eq!(ByteRange::parse(text.as_bytes()), None, "{text}");
    }
}
