//! Paths as text.

use mrfp_protocol::msrp::Uri;

/// First URI and, where there are more, the rest.
pub(super) fn split_first(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|&byte| byte == b' ') {
        Some(space) => (&path[..space], Some(&path[space + 1..])),
        None => (path, None),
    }
}

/// Whether both URIs lead to the same place: scheme, host and port.
pub(super) fn same_authority(left: &Uri<'_>, right: &Uri<'_>) -> bool {
    let without_session = |uri: &Uri<'_>| -> (bool, Option<u16>) { (uri.secure, uri.port) };
    without_session(left) == without_session(right) && same_host(left.host, right.host)
}

/// Names without regard to case, addresses by value.
pub(super) fn same_host(left: &[u8], right: &[u8]) -> bool {
    let ip = |host: &[u8]| std::str::from_utf8(host).ok()?.parse::<std::net::IpAddr>().ok();
    match (ip(left), ip(right)) {
        (Some(left), Some(right)) => left == right,
        (None, None) => left.eq_ignore_ascii_case(right),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Use-Path (RFC 4976 section 5.1): the relays the AUTH came through in the order the client uses
/// them, that is the From-Path without the client, reversed; then our own URI.
pub(super) fn use_path(from_path: &[u8], own: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(from_path.len() + 1 + own.len());
    let mut uris = from_path.rsplit(|&byte| byte == b' ');
    // The last URI of the From-Path is the client's.
    uris.next();
    for relay in uris {
        path.extend_from_slice(relay);
        path.push(b' ');
    }
    path.extend_from_slice(own);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_path_lists_the_relays_as_the_client_uses_them() {
        assert_eq!(use_path(b"A", b"R"), b"R");
        assert_eq!(use_path(b"B A", b"C"), b"B C");
        assert_eq!(use_path(b"C B A", b"D"), b"B C D");
    }

    #[test]
    fn authorities_compare_by_scheme_host_and_port() {
        let uri = |text: &'static str| Uri::parse(text.as_bytes()).unwrap();
        let a = uri("msrps://Bob.example:2855/one;tcp");
        assert!(same_authority(&a, &uri("msrps://bob.EXAMPLE:2855/two;tcp")));
        assert!(!same_authority(&a, &uri("msrp://bob.example:2855/one;tcp")));
        assert!(!same_authority(&a, &uri("msrps://bob.example:2856/one;tcp")));
        assert!(!same_authority(&a, &uri("msrps://bob.example/one;tcp")));
        let v6 = uri("msrp://[::1]:1/x;tcp");
        assert!(same_authority(&v6, &uri("msrp://[0:0::1]:1/y;tcp")));
    }

    #[test]
    fn splits_the_first_uri_off() {
        assert_eq!(split_first(b"a b c"), (&b"a"[..], Some(&b"b c"[..])));
        assert_eq!(split_first(b"a"), (&b"a"[..], None));
    }
}
