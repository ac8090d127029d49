//! TLS with certificates, in memory: our ends with each other and with stock rustls and OpenSSL.

mod tls_common;

use mrfp_protocol::tls::{
    Authorities, CertificateError, CertificateFault, Handshake, HandshakeError, Identity, Opened,
    Profile, ProfileConfig, Progress, Session,
};
use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::version::{TLS12, TLS13};
use tls_common::certificates::{
    Authority, HOST, Issued, Stock, StockConfig, client, host_profile, profile, profile_with,
};
use tls_common::{End, open_all, psk, run, seal, transfer};

/// Both ends must complete the handshake.
fn establish(client: &mut End, server: &mut End) -> (Session, Session) {
    run(client, server);
    assert_eq!((client.error, server.error), (None, None));
    assert!(client.input.is_empty());
    assert!(server.input.is_empty());
    (client.session.take().unwrap(), server.session.take().unwrap())
}

fn server(profile: &Profile) -> End {
    End::server(profile, None)
}

#[test]
fn carries_data_both_ways() {
    let (profile, _) = host_profile();
    let (mut client, mut server) = establish(&mut client(&profile, HOST), &mut server(&profile));
    assert_eq!(client.suite(), server.suite());
    for size in [0, 1, 255, 4096, 16 * 1024] {
        let plaintext = vec![b'p'; size];
        for _ in 0..3 {
            transfer(&mut client, &mut server, &plaintext);
            transfer(&mut server, &mut client, &plaintext);
        }
    }
    let mut close = client.close_notify();
    assert!(matches!(server.open(&mut close), Ok(Opened::CloseNotify { .. })));
}

/// Every suite with both versions, as (version, suite): the suites name their version.
fn stock_configs() -> impl Iterator<Item = StockConfig> {
    ALL_CIPHER_SUITES.iter().map(|&suite| StockConfig {
        versions: vec![if suite.tls13().is_some() { &TLS13 } else { &TLS12 }],
        suites: vec![suite],
        identity: None,
    })
}

/// ECDSA and RSA, so that every suite finds its kind of key.
fn issued_of_both_kinds(authority: &Authority) -> [Issued; 2] {
    let rsa = openssl::rsa::Rsa::generate(2048).unwrap();
    let pem = openssl::pkey::PKey::from_rsa(rsa).unwrap().private_key_to_pem_pkcs8().unwrap();
    let rsa = KeyPair::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
    [authority.issue(&[HOST]), authority.issue_for_key(&[HOST], rsa, |_| {})]
}

fn is_for(config: &StockConfig, kind: usize) -> bool {
    let name = format!("{:?}", config.suites[0].suite());
    let other = if kind == 0 { "_RSA_" } else { "_ECDSA_" };
    !name.contains(other)
}

fn exchange(session: &mut Session, stock: &mut Stock) {
    for size in [1, 16, 300, 16 * 1024, 5] {
        let plaintext = vec![b'p'; size];
        for _ in 0..3 {
            let record = seal(session, &plaintext).unwrap();
            assert_eq!(stock.open(&record, size), plaintext);
            let record = stock.seal(&plaintext);
            assert_eq!(open_all(session, record).unwrap(), plaintext);
        }
    }
}

fn close(session: &mut Session, stock: &mut Stock) {
    stock.0.send_close_notify();
    let mut wire = stock.turn(&[]).unwrap();
    assert!(matches!(session.open(&mut wire), Ok(Opened::CloseNotify { .. })));
    stock.turn(&session.close_notify()).unwrap();
    assert_eq!(std::io::Read::read(&mut stock.0.reader(), &mut [0]).unwrap(), 0);
}

#[test]
fn our_server_serves_stock_clients_with_every_suite() {
    let authority = Authority::new("authority");
    let kinds = issued_of_both_kinds(&authority);
    let mut served = 0;
    for (kind, issued) in kinds.iter().enumerate() {
        let profile = profile(issued, &authority);
        for config in stock_configs().filter(|config| is_for(config, kind)) {
            let mut stock = config.client(&authority);
            let mut ours = server(&profile);
            stock.shake(&mut ours);
            let mut session = ours.session.take().unwrap();
            assert!(ours.input.is_empty());
            exchange(&mut session, &mut stock);
            session = session.into_traffic_keys().unwrap().into_session();
            exchange(&mut session, &mut stock);
            close(&mut session, &mut stock);
            served += 1;
        }
    }
    assert_eq!(served, 3 + 6 + 3);
}

#[test]
fn our_client_uses_stock_servers_with_every_suite() {
    let authority = Authority::new("authority");
    let own = authority.issue(&["client.example.com"]);
    let profile = profile(&own, &authority);
    for kind in 0..2 {
        for mut config in stock_configs().filter(|config| is_for(config, kind)) {
            let [ecdsa, rsa] = issued_of_both_kinds(&authority);
            config.identity = Some(if kind == 0 { ecdsa } else { rsa });
            let mut stock = config.server();
            let mut ours = client(&profile, HOST);
            stock.shake(&mut ours);
            let mut session = ours.session.take().unwrap();
            // TLS 1.3: the tickets of the stock server.
            let left = std::mem::take(&mut ours.input);
            assert!(open_all(&mut session, left).unwrap().is_empty());
            exchange(&mut session, &mut stock);
            close(&mut session, &mut stock);
        }
    }
}

/// Each end asks for new keys again and again; the other one answers with new keys of its own.
#[test]
fn keys_are_updated_both_ways() {
    for suite in ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()) {
        for stock_is_server in [false, true] {
            let authority = Authority::new("authority");
            let profile = profile(&authority.issue(&[HOST]), &authority);
            let identity = stock_is_server.then(|| authority.issue(&[HOST]));
            let config = StockConfig { suites: vec![*suite], versions: vec![&TLS13], identity };
            let (mut stock, mut ours) = if stock_is_server {
                (config.server(), client(&profile, HOST))
            } else {
                (config.client(&authority), server(&profile))
            };
            stock.shake(&mut ours);
            let mut session = ours.session.take().unwrap();
            assert!(open_all(&mut session, ours.input).unwrap().is_empty());
            for _ in 0..5 {
                stock.0.refresh_traffic_keys().unwrap();
                let update = stock.turn(&[]).unwrap();
                assert!(open_all(&mut session, update).unwrap().is_empty());
                let answer = session.pending_output();
                assert!(!answer.is_empty(), "the peer asked for an update of ours");
                assert!(stock.turn(&answer).unwrap().is_empty());
                exchange(&mut session, &mut stock);
                // The answer may also go right before data.
                stock.0.refresh_traffic_keys().unwrap();
                let update = stock.turn(&[]).unwrap();
                assert!(open_all(&mut session, update).unwrap().is_empty());
                exchange(&mut session, &mut stock);
            }
        }
    }
}

#[test]
fn works_when_every_byte_arrives_alone() {
    let (profile, _) = host_profile();
    let mut client = client(&profile, HOST);
    let mut server = server(&profile);
    client.work();
    for _ in 0..5 {
        for byte in std::mem::take(&mut client.output) {
            server.input.push(byte);
            server.work();
        }
        for byte in std::mem::take(&mut server.output) {
            client.input.push(byte);
            client.work();
        }
    }
    assert_eq!((client.error, server.error), (None, None));
    transfer(&mut client.session.unwrap(), &mut server.session.unwrap(), b"data");
}

#[test]
fn data_right_behind_the_handshake_are_left_in_the_input() {
    let authority = Authority::new("authority");
    let profile = profile(&authority.issue(&[HOST]), &authority);
    let identity = || Some(authority.issue(&[HOST]));

    // A TLS 1.3 client may speak right behind its Finished.
    let mut stock =
        StockConfig { versions: vec![&TLS13], ..StockConfig::default() }.client(&authority);
    let mut ours = server(&profile);
    ours.input = stock.turn(&[]).unwrap();
    ours.work();
    ours.input = stock.turn(&std::mem::take(&mut ours.output)).unwrap();
    ours.input.extend(stock.seal(b"early bird"));
    ours.work();
    let mut session = ours.session.take().unwrap();
    assert_eq!(open_all(&mut session, ours.input).unwrap(), b"early bird");

    // A TLS 1.3 server may speak before it has heard the client's, a TLS 1.2 server right behind its
    // own.
    for (version, flights) in [(&TLS13, 1), (&TLS12, 2)] {
        let config =
            StockConfig { versions: vec![version], identity: identity(), ..StockConfig::default() };
        let mut stock = config.server();
        let mut ours = client(&profile, HOST);
        for _ in 0..flights {
            assert!(ours.session.is_none());
            ours.work();
            ours.input.extend(stock.turn(&std::mem::take(&mut ours.output)).unwrap());
        }
        ours.input.extend(stock.seal(b"early bird"));
        ours.work();
        assert_eq!(ours.error, None);
        let mut session = ours.session.take().unwrap();
        assert_eq!(open_all(&mut session, ours.input).unwrap(), b"early bird");
    }
}

/// What each end says of a server that shows `issued` to a client that trusts `authority`.
fn refusal(
    issued: &Issued,
    authority: &Authority,
    host: &str,
) -> (Option<HandshakeError>, Option<HandshakeError>) {
    let other = Authority::new("authority of the server");
    let mut client = client(&profile(&authority.issue(&["a.example.com"]), authority), host);
    let mut server = server(&profile(issued, &other));
    run(&mut client, &mut server);
    (client.error, server.error)
}

fn alert(description: u8) -> Option<HandshakeError> {
    Some(HandshakeError::AlertReceived(description))
}

fn fault(fault: CertificateFault) -> Option<HandshakeError> {
    Some(HandshakeError::Certificate(fault))
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let authority = Authority::new("authority");
    // Same name, other key: the name does not make an issuer.
    for name in ["another authority", "authority"] {
        let issued = Authority::new(name).issue(&[HOST]);
        let (client, server) = refusal(&issued, &authority, HOST);
        assert!(
            client == fault(CertificateFault::UnknownIssuer)
                || client == fault(CertificateFault::Signature),
            "{client:?}"
        );
        assert!(server == alert(48) || server == alert(51), "{server:?}");
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new("authority");
    for (names, host) in [
        (&["other.example.com"][..], HOST),
        (&["*.com"], HOST),
        (&["*.example.com"], "a.relay.example.com"),
        (&[HOST], "example.com"),
        (&["192.0.2.1"], "192.0.2.2"),
        (&[HOST], "192.0.2.1"),
        (&["2001:db8::1"], "[2001:db8::2]"),
        (&[], HOST),
    ] {
        let (client, server) = refusal(&authority.issue(names), &authority, host);
        assert_eq!(client, fault(CertificateFault::NameMismatch), "{names:?} {host}");
        assert_eq!(server, alert(42), "{names:?} {host}");
    }
}

#[test]
fn a_certificate_is_taken_for_each_of_its_names() {
    let authority = Authority::new("authority");
    let names = [HOST, "*.conference.example.com", "192.0.2.1", "2001:db8::1"];
    let profile = profile(&authority.issue(&names), &authority);
    for host in [
        HOST,
        "RELAY.example.COM",
        "a.conference.example.com",
        "192.0.2.1",
        "[2001:db8::1]",
        "2001:db8::1",
    ] {
        let (mut client, mut server) =
            establish(&mut client(&profile, host), &mut server(&profile));
        transfer(&mut client, &mut server, host.as_bytes());
    }
}

#[test]
fn a_host_that_is_no_name_is_refused_before_anything_is_sent() {
    let (profile, _) = host_profile();
    for host in ["", "a b", "[192.0.2.1", "-", "a..b", "[::1]:2855"] {
        let error = Handshake::certificate_client(&profile, host).err();
        assert_eq!(error, Some(HandshakeError::ServerName), "{host}");
    }
}

#[test]
fn a_client_needs_a_profile_with_certificates() {
    let profile = Profile::new(&ProfileConfig::default()).unwrap();
    let error = Handshake::certificate_client(&profile, HOST).err();
    assert_eq!(error, Some(HandshakeError::NotConfigured));
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let authority = Authority::new("authority");
    let expired = authority.issue_with(&[HOST], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let (client, server) = refusal(&expired, &authority, HOST);
    assert_eq!((client, server), (fault(CertificateFault::Expired), alert(45)));
    let future = authority.issue_with(&[HOST], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    let (client, server) = refusal(&future, &authority, HOST);
    assert_eq!(client, fault(CertificateFault::NotYetValid));
    assert!(matches!(server, Some(HandshakeError::AlertReceived(_))));
}

#[test]
fn a_certificate_for_another_purpose_is_refused() {
    let authority = Authority::new("authority");
    let issued = authority.issue_with(&[HOST], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    let (client, _) = refusal(&issued, &authority, HOST);
    assert_eq!(client, fault(CertificateFault::Purpose));
}

#[test]
fn a_refusal_can_be_read() {
    let error = HandshakeError::Certificate(CertificateFault::NameMismatch);
    assert_eq!(error.to_string(), "the certificate of the peer is for another name");
}

#[test]
fn what_a_relay_shows_proves_its_name() {
    let authority = Authority::new("authority");
    let serving = profile(&authority.issue(&[HOST]), &authority);
    // A certificate for servers only is what public authorities make; one for clients is fine too.
    for purposes in [
        vec![ExtendedKeyUsagePurpose::ServerAuth],
        vec![ExtendedKeyUsagePurpose::ClientAuth],
        Vec::new(),
    ] {
        let issued = authority
            .issue_with(&["b.example.com"], |params| params.extended_key_usages = purposes);
        let mut client = client(&profile(&issued, &authority), HOST);
        let mut server = server(&serving);
        establish(&mut client, &mut server);
        let certificate = server.handshake.take_peer_certificate().expect("it was asked for");
        assert!(certificate.proves("b.example.com"));
        assert!(!certificate.proves("c.example.com"));
        assert!(!certificate.proves("no name at all"));
        assert!(client.handshake.take_peer_certificate().is_none());
    }
}

#[test]
fn a_certificate_nobody_vouches_for_proves_nothing_but_does_no_harm() {
    let authority = Authority::new("authority");
    let other = Authority::new("other");
    let serving = profile(&authority.issue(&[HOST]), &authority);
    let expired = authority.issue_with(&["b.example.com"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let coded = authority.issue_with(&["b.example.com"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    for issued in [other.issue(&["b.example.com"]), expired, coded] {
        for version in [&TLS12, &TLS13] {
            let versions = vec![version];
            let identity = Some(Issued { chain: issued.chain.clone(), key: issued.key.clone() });
            let mut stock =
                StockConfig { versions, identity, ..StockConfig::default() }.client(&authority);
            let mut ours = server(&serving);
            stock.shake(&mut ours);
            exchange(&mut ours.session.take().unwrap(), &mut stock);
            let certificate = ours.handshake.take_peer_certificate().expect("it was asked for");
            assert!(!certificate.proves("b.example.com"));
        }
    }
}

#[test]
fn a_fingerprint_makes_up_for_name_issuer_and_time() {
    let nobody = Authority::new("nobody");
    let expired = nobody.issue_with(&["other.example.com"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let announced = [expired.identity().fingerprint()];
    let wrong = [nobody.issue(&[HOST]).identity().fingerprint()];
    let (ours, _) = host_profile();
    let serving = profile(&expired, &nobody);
    for (fingerprints, error) in
        [(&announced, None), (&wrong, fault(CertificateFault::Fingerprint))]
    {
        let handshake = Handshake::fingerprint_client(&ours, HOST, fingerprints).unwrap();
        let (mut client, mut server) = (End::new(handshake, None), server(&serving));
        run(&mut client, &mut server);
        assert_eq!(client.error, error);
        assert_eq!(server.error.is_some(), error.is_some());
    }
}

#[test]
fn a_client_is_known_by_its_fingerprint() {
    let authority = Authority::new("authority");
    let serving = profile(&authority.issue(&[HOST]), &authority);
    let own = Authority::new("nobody").issue(&["b.example.com"]);
    for version in [&TLS12, &TLS13] {
        let versions = vec![version];
        let identity = Some(Issued { chain: own.chain.clone(), key: own.key.clone() });
        let mut stock =
            StockConfig { versions, identity, ..StockConfig::default() }.client(&authority);
        let mut ours = server(&serving);
        stock.shake(&mut ours);
        let shown = ours.handshake.take_peer_certificate().expect("it was asked for");
        assert!(shown.is_known_by(&[own.identity().fingerprint()]));
        assert!(!shown.is_known_by(&[authority.issue(&[HOST]).identity().fingerprint()]));
        assert!(!shown.is_known_by(&[]));
    }
}

#[test]
fn a_client_without_certificate_is_served() {
    let (profile, authority) = host_profile();
    let mut stock = StockConfig::default().client(&authority);
    let mut ours = server(&profile);
    stock.shake(&mut ours);
    assert!(ours.handshake.take_peer_certificate().is_none());
}

#[test]
fn keys_and_certificates_are_served_side_by_side() {
    let authority = Authority::new("authority");
    for tls13 in [false, true] {
        let suites = ProfileConfig::default().suites;
        let both = ProfileConfig { suites, tls13 };
        let profile = profile_with(&both, &authority.issue(&[HOST]), &authority);
        let mut end = End::client(&profile);
        let (mut from, mut to) = establish(&mut end, &mut End::server(&profile, Some(psk())));
        transfer(&mut from, &mut to, b"with a key");
        assert_eq!(from.suite().starts_with("TLS_"), tls13);

        let mut of_unknown = End::client(&profile);
        let mut server_of_unknown = End::server(&profile, None);
        run(&mut of_unknown, &mut server_of_unknown);
        assert_eq!(server_of_unknown.error, Some(HandshakeError::Authentication));

        let (mut from, mut to) = establish(&mut client(&profile, HOST), &mut server(&profile));
        transfer(&mut from, &mut to, b"with a certificate");
    }
}

#[test]
fn a_client_hello_cut_over_many_records_is_recognised() {
    let authority = Authority::new("authority");
    let both = ProfileConfig { tls13: true, ..ProfileConfig::default() };
    let profile = profile_with(&both, &authority.issue(&[HOST]), &authority);
    for size in [1, 7, 50] {
        for key in [None, Some(psk())] {
            let mut client = match key {
                Some(_) => End::client(&profile),
                None => client(&profile, HOST),
            };
            let mut server = End::server(&profile, key);
            client.work();
            let hello = std::mem::take(&mut client.output);
            for part in hello[5..].chunks(size) {
                server.input.extend(&hello[..3]);
                server.input.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
                server.input.extend(part);
                server.work();
            }
            client.input.append(&mut server.output);
            let (mut from, mut to) = establish(&mut client, &mut server);
            transfer(&mut from, &mut to, b"data");
        }
    }
}

#[test]
fn certificates_and_keys_are_checked_when_they_are_read() {
    let authority = Authority::new("authority");
    let (one, two) = (authority.issue(&[HOST]), authority.issue(&[HOST]));
    let read = |chain: &str, key: &str| {
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ()).unwrap_err()
    };
    assert_eq!(read("", &one.key), CertificateError::NoCertificate);
    assert_eq!(read(&one.key, &one.key), CertificateError::NoCertificate);
    assert_eq!(read(&one.chain, ""), CertificateError::NoKey);
    assert_eq!(read(&one.chain, &one.chain), CertificateError::NoKey);
    assert_eq!(read(&one.chain, &two.key), CertificateError::KeyMismatch);
    let cut = &one.chain[..one.chain.len() - 40];
    assert!(matches!(read(cut, &one.key), CertificateError::Pem(_)));
    let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(read(no_der, &one.key), CertificateError::Certificate);
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(read(&one.chain, no_key), CertificateError::Key(_)));
    assert_eq!(Authorities::from_pem(b"").unwrap_err(), CertificateError::NoCertificate);
    assert!(one.identity().is_for(HOST));
    assert!(!one.identity().is_for("other.example.com"));
}

#[test]
fn several_authorities_may_be_trusted() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let both = Authorities::web().and(&one.authorities()).and(&two.authorities());
    let config = mrfp_protocol::tls::CertificateConfig {
        identity: one.issue(&[HOST]).identity(),
        authorities: both,
    };
    let trusting = Profile::new(&ProfileConfig::default()).unwrap();
    let trusting = trusting.with_certificates(&config).unwrap();
    for authority in [&one, &two] {
        let mut server = server(&profile(&authority.issue(&[HOST]), authority));
        establish(&mut client(&trusting, HOST), &mut server);
    }
    // The web alone knows neither.
    let config =
        mrfp_protocol::tls::CertificateConfig { authorities: Authorities::web(), ..config };
    let web = Profile::new(&ProfileConfig::default()).unwrap().with_certificates(&config).unwrap();
    let mut client = client(&web, HOST);
    run(&mut client, &mut server(&profile(&one.issue(&[HOST]), &one)));
    assert_eq!(client.error, fault(CertificateFault::UnknownIssuer));
}

#[test]
fn secrets_are_not_printed() {
    let authority = Authority::new("authority");
    let issued = authority.issue(&[HOST]);
    assert_eq!(format!("{:?}", issued.identity()), "Identity(1 certificates, key redacted)");
    let (profile, _) = host_profile();
    assert_eq!(format!("{:?}", client(&profile, HOST).handshake), "Handshake(certificate)");
}

/// Feeds a handshake whatever it asks for; it must end or ask for more, not panic.
fn drive(handshake: &mut Handshake, mut input: &[u8]) {
    let mut output = Vec::new();
    loop {
        match handshake.advance(input, &mut output) {
            Ok((_, Progress::NeedInput | Progress::Done(_))) | Err(_) => return,
            Ok((consumed, Progress::NeedPsk)) => {
                input = &input[consumed..];
                handshake.provide_psk(None);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn garbage_never_panics_a_handshake(
        mut garbage in proptest::collection::vec(any::<u8>(), 0..400),
        plausible in any::<bool>(),
    ) {
        let (profile, _) = host_profile();
        if plausible && garbage.len() > 9 {
            let length = u16::try_from(garbage.len() - 5).unwrap();
            garbage[..3].copy_from_slice(&[22, 3, 1]);
            garbage[3..5].copy_from_slice(&length.to_be_bytes());
            garbage[5] = 1;
            garbage[6] = 0;
            garbage[7..9].copy_from_slice(&(length - 4).to_be_bytes());
        }
        drive(&mut Handshake::server(&profile).unwrap(), &garbage);
        let mut client = client(&profile, HOST);
        client.work();
        drive(&mut client.handshake, &garbage);
    }

    #[test]
    fn a_mutated_flight_never_panics_a_handshake(
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        flight in 0_usize..3,
    ) {
        let (profile, _) = host_profile();
        let (mut client, mut server) = (client(&profile, HOST), server(&profile));
        client.work();
        let mut ends = [&mut server, &mut client];
        let mut wire = std::mem::take(&mut ends[1].output);
        for number in 0..=flight {
            let end = &mut ends[number % 2];
            if number == flight {
                let at = at.index(wire.len());
                wire[at] = value;
            }
            end.input.append(&mut wire);
            end.work();
            wire = std::mem::take(&mut end.output);
            if end.is_over() || wire.is_empty() {
                break;
            }
        }
    }
}
