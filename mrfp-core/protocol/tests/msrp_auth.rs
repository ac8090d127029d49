//! HTTP Digest as a relay uses it (RFC 4976 section 9.1, RFC 7616).

use mrfp_protocol::msrp::auth::{
    Algorithm, Authorization, AuthorizationError, Credentials, NonceState, Nonces,
    authentication_info, challenge, is_valid, response_proof,
};
use proptest::prelude::*;

const URI: &[u8] = b"msrps://alice@intra.example.com;tcp";
const WHOLE: &str = "Digest username=\"Alice\", realm=\"intra.example.com\", nonce=\"dcd98b\", \
    qop=auth, nc=0000000a, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\"";

fn nonces() -> Nonces {
    Nonces::new([7; 32], 300)
}

#[test]
fn reads_parameters_in_any_order_and_case() {
    let in_order = Authorization::parse(WHOLE.as_bytes()).unwrap();
    assert_eq!(in_order.username, b"Alice");
    assert_eq!(in_order.nonce_count, 10);
    assert_eq!(in_order.algorithm, Algorithm::Md5);
    assert_eq!(in_order.uri, None);
    let shuffled = "dIgEsT RESPONSE=6629fae49393a05397450978507c4ef1 ,,cnonce=\"0a4f113b\",\
        NC = 0000000a,future=\"a, \\\"b\\\"\",qop=\"auth\",Nonce=\"dcd98b\",\
        realm=\"intra.example.com\",username=\"Alice\"";
    assert_eq!(Authorization::parse(shuffled.as_bytes()), Ok(in_order));
}

#[test]
fn keeps_commas_and_escapes_inside_quotes() {
    let text = WHOLE.replace("Alice", "A, \\\"l\\\" = ice");
    let authorization = Authorization::parse(text.as_bytes()).unwrap();
    assert_eq!(authorization.username, b"A, \\\"l\\\" = ice");
}

#[test]
fn refuses_what_it_does_not_offer() {
    let parse = |from: &str, to: &str| {
        Authorization::parse(WHOLE.replace(from, to).as_bytes()).unwrap_err()
    };
    assert_eq!(parse("Digest", "Basic"), AuthorizationError::Scheme);
    assert_eq!(parse("qop=auth", "qop=auth-int"), AuthorizationError::Qop);
    for algorithm in ["MD5-sess", "SHA-256-sess", "SHA-512-256", "\"\""] {
        let with = format!("qop=auth, algorithm={algorithm}");
        assert_eq!(parse("qop=auth", &with), AuthorizationError::Algorithm, "{algorithm}");
    }
    assert_eq!(parse("qop=auth", "qop=auth, userhash=true"), AuthorizationError::UserHash);
}

#[test]
fn refuses_a_header_that_lacks_or_repeats_a_parameter() {
    let (scheme, parameters) = WHOLE.split_once(' ').unwrap();
    let parameters: Vec<&str> = parameters.split(", ").collect();
    for left_out in 0..parameters.len() {
        let mut kept = parameters.clone();
        kept.remove(left_out);
        let text = format!("{scheme} {}", kept.join(", "));
        assert_eq!(
            Authorization::parse(text.as_bytes()),
            Err(AuthorizationError::Malformed),
            "{text}"
        );
        let text = format!("{WHOLE}, {}", parameters[left_out]);
        assert_eq!(
            Authorization::parse(text.as_bytes()),
            Err(AuthorizationError::Malformed),
            "{text}"
        );
    }
    for text in ["Digest", "Digest username=\"Alice", "Digest =x", "Digest username=\"a\"b"] {
        assert_eq!(Authorization::parse(text.as_bytes()), Err(AuthorizationError::Malformed));
    }
}

#[test]
fn a_right_password_is_taken_under_both_algorithms_and_a_wrong_one_under_none() {
    let right = Credentials::derive(b"Alice", b"intra.example.com", b"secret");
    let wrong = Credentials::derive(b"Alice", b"intra.example.com", b"Secret");
    for algorithm in ["", ", algorithm=MD5", ", algorithm=\"sha-256\""] {
        let draft = format!("{WHOLE}{algorithm}");
        let proof = {
            // What the client computes: the digest of the request, so "AUTH" is part of it.
            let authorization = Authorization::parse(draft.as_bytes()).unwrap();
            client_proof(&authorization, b"secret")
        };
        let text = draft.replace("6629fae49393a05397450978507c4ef1", &proof);
        let authorization = Authorization::parse(text.as_bytes()).unwrap();
        assert!(is_valid(&right, &authorization, URI), "{text}");
        assert!(!is_valid(&wrong, &authorization, URI));
        assert!(!is_valid(&right, &authorization, b"msrps://extra.example.com;tcp"));
        let upper = text.replace(&proof, &proof.to_uppercase());
        assert!(is_valid(&right, &Authorization::parse(upper.as_bytes()).unwrap(), URI));
    }
}

/// Independent of the code under test but for the hash functions.
fn client_proof(authorization: &Authorization<'_>, password: &[u8]) -> String {
    use sha2::Digest;
    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
    let hash = |text: &[u8]| match authorization.algorithm {
        Algorithm::Md5 => hex(&md5::Md5::digest(text)),
        Algorithm::Sha256 => hex(&sha2::Sha256::digest(text)),
    };
    let ha1 = hash(&[authorization.username, b":", authorization.realm, b":", password].concat());
    let ha2 = hash(&[b"AUTH:", URI].concat());
    let count = std::str::from_utf8(authorization.nonce_count_text).unwrap();
    let nonce = std::str::from_utf8(authorization.nonce).unwrap();
    let cnonce = std::str::from_utf8(authorization.cnonce).unwrap();
    hash(format!("{ha1}:{nonce}:{count}:{cnonce}:auth:{ha2}").as_bytes())
}

#[test]
fn stored_hashes_serve_the_algorithms_they_are_for() {
    let derived = Credentials::derive(b"Mufasa", b"http-auth@example.org", b"Circle of Life");
    let bytes = |algorithm| -> Vec<u8> {
        let hex = derived.ha1(algorithm).unwrap();
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let (sha256, md5) = (bytes(Algorithm::Sha256), bytes(Algorithm::Md5));
    let both = Credentials::from_hashes(Some(&sha256), Some(&md5)).unwrap();
    assert_eq!(both.ha1(Algorithm::Sha256), derived.ha1(Algorithm::Sha256));
    assert_eq!(both.ha1(Algorithm::Md5), derived.ha1(Algorithm::Md5));
    let one = Credentials::from_hashes(None, Some(&md5)).unwrap();
    assert!(one.serves(Algorithm::Md5) && !one.serves(Algorithm::Sha256));
    for (sha256, md5) in [(None, None), (Some(&md5), None), (None, Some(&sha256))] {
        let (sha256, md5) = (sha256.map(Vec::as_slice), md5.map(Vec::as_slice));
        assert!(Credentials::from_hashes(sha256, md5).is_none());
    }
    assert_eq!(format!("{derived:?}"), "Credentials(redacted)");
}

#[test]
fn a_nonce_is_taken_once_per_count_and_only_upwards() {
    let mut nonces = nonces();
    let nonce = nonces.issue(1_000);
    for count in [1, 2, 7] {
        let NonceState::Fresh(fresh) = nonces.check(nonce.as_bytes(), count, 1_010) else {
            panic!("count {count} is new");
        };
        nonces.used(fresh);
        assert_eq!(nonces.check(nonce.as_bytes(), count, 1_010), NonceState::Stale);
    }
    assert_eq!(nonces.check(nonce.as_bytes(), 3, 1_010), NonceState::Stale);
}

#[test]
fn an_old_or_foreign_or_forged_nonce_is_stale() {
    let mut nonces = nonces();
    let nonce = nonces.issue(1_000);
    assert!(matches!(nonces.check(nonce.as_bytes(), 1, 1_300), NonceState::Fresh(_)));
    assert_eq!(nonces.check(nonce.as_bytes(), 1, 1_301), NonceState::Stale);
    let foreign = Nonces::new([8; 32], 300).issue(1_000);
    assert_eq!(nonces.check(foreign.as_bytes(), 1, 1_000), NonceState::Stale);
    for position in 0..nonce.len() {
        let mut forged = nonce.clone().into_bytes();
        forged[position] = if forged[position] == b'0' { b'1' } else { b'0' };
        assert_eq!(nonces.check(&forged, 1, 1_000), NonceState::Stale);
    }
}

#[test]
fn a_nonce_pushed_out_of_memory_cannot_be_replayed() {
    let mut nonces = nonces();
    let first = nonces.issue(1_000);
    let NonceState::Fresh(fresh) = nonces.check(first.as_bytes(), 1, 1_000) else { panic!() };
    nonces.used(fresh);
    for _ in 0..5_000 {
        let next = nonces.issue(1_000);
        let NonceState::Fresh(fresh) = nonces.check(next.as_bytes(), 1, 1_000) else { panic!() };
        nonces.used(fresh);
    }
    assert_eq!(nonces.check(first.as_bytes(), 1, 1_000), NonceState::Stale);
    assert_eq!(nonces.check(first.as_bytes(), 2, 1_000), NonceState::Stale);
}

#[test]
fn challenges_offer_the_stronger_algorithm_first_and_always_opaque() {
    let mut lines = String::new();
    challenge(&mut lines, "relay.example", "abc", false, &[Algorithm::Sha256, Algorithm::Md5]);
    let lines: Vec<&str> = lines.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("algorithm=SHA-256") && lines[1].contains("algorithm=MD5"));
    for line in lines {
        assert!(line.starts_with("WWW-Authenticate: Digest realm=\"relay.example\", qop=\"auth\""));
        assert!(line.contains("nonce=\"abc\"") && line.contains("opaque=\""));
        assert!(!line.contains("stale") && !line.contains("sess") && !line.contains("auth-int"));
    }
    let mut lines = String::new();
    challenge(&mut lines, "relay.example", "abc", true, &[Algorithm::Md5]);
    assert_eq!(lines.matches("WWW-Authenticate").count(), 1);
    assert!(lines.contains("algorithm=MD5, stale=true\r\n"));
}

#[test]
fn authentication_info_proves_that_the_relay_knows_the_user() {
    let credentials = Credentials::derive(b"Alice", b"intra.example.com", b"secret");
    let authorization = Authorization::parse(WHOLE.as_bytes()).unwrap();
    let mut line = String::new();
    authentication_info(&mut line, &credentials, &authorization, URI, "next");
    let proof = response_proof(&credentials, &authorization, URI).unwrap();
    let expected = format!(
        "Authentication-Info: nextnonce=\"next\", qop=auth, rspauth=\"{}\", \
         cnonce=\"0a4f113b\", nc=0000000a\r\n",
        proof.as_str()
    );
    assert_eq!(line, expected);
}

proptest! {
    #[test]
    fn no_header_value_makes_the_parser_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Authorization::parse(&value);
        let _ = Authorization::parse(&[b"Digest ".as_slice(), &value].concat());
    }

    #[test]
    fn a_cut_header_is_never_taken_for_a_whole_one(end in 0..WHOLE.len()) {
        prop_assert!(Authorization::parse(&WHOLE.as_bytes()[..end]).is_err());
    }
}
