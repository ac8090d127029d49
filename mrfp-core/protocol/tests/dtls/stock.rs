//! Our ends with stock OpenSSL ends that keep their own record layer.

use std::io::{self, Read, Write};

use mrfp_protocol::tls::{CertificateFault, HandshakeError};
use openssl::ssl::{
    ErrorCode, Ssl, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode,
};

use crate::associations::End;
use crate::certificates::Certified;

#[derive(Default)]
struct Wire {
    inbound: std::collections::VecDeque<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbound.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbound.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stock(certified: Option<&Certified>, suite: &str, is_server: bool) -> SslStream<Wire> {
    let mut builder = SslContextBuilder::new(SslMethod::dtls()).unwrap();
    builder.set_cipher_list(suite).unwrap();
    builder.set_options(SslOptions::NO_QUERY_MTU);
    builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    let parameters = openssl::dh::Dh::get_2048_256().unwrap();
    builder.set_tmp_dh(&parameters).unwrap();
    if let Some(certified) = certified {
        builder.set_certificate(&certified.certificate).unwrap();
        builder.set_private_key(&certified.key).unwrap();
    }
    let mut ssl = Ssl::new(&builder.build()).unwrap();
    ssl.set_mtu(1400).unwrap();
    if is_server {
        ssl.set_accept_state();
    } else {
        ssl.set_connect_state();
    }
    SslStream::new(ssl, Wire::default()).unwrap()
}

/// Whether stock OpenSSL takes the handshake for complete.
fn shake(ours: &mut End, stock: &mut SslStream<Wire>) -> bool {
    let mut is_done = false;
    for _ in 0..10 {
        stock.get_mut().inbound.extend(ours.take_output());
        while !is_done {
            match stock.do_handshake() {
                Ok(()) => is_done = true,
                Err(error) if error.code() == ErrorCode::WANT_READ => break,
                Err(_) => break,
            }
        }
        std::mem::take(&mut stock.get_mut().outbound).into_iter().for_each(|it| ours.take(it));
    }
    is_done
}

fn exchange(mut ours: End, mut stock: SslStream<Wire>, suite: &str) {
    assert_eq!(ours.session.as_ref().unwrap().suite(), suite);
    for size in [1, 16, 300, 1100] {
        for _ in 0..3 {
            let data = vec![b'p'; size];
            let record = ours.seal(&data);
            stock.get_mut().inbound.push_back(record);
            let mut received = vec![0; size];
            stock.read_exact(&mut received).unwrap();
            assert_eq!(received, data, "{suite}");
            stock.write_all(&data).unwrap();
            std::mem::take(&mut stock.get_mut().outbound).into_iter().for_each(|it| ours.take(it));
            assert_eq!(ours.received.pop(), Some(data), "{suite}");
        }
    }
    let goodbye = ours.session.as_mut().unwrap().close_notify();
    stock.get_mut().inbound.push_back(goodbye);
    assert_eq!(stock.ssl_read(&mut [0; 8]).unwrap_err().code(), ErrorCode::ZERO_RETURN);
}

#[test]
fn we_are_client_of_any_suite() {
    for (suite, is_rsa) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", false),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", false),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", false),
        ("ECDHE-RSA-AES128-GCM-SHA256", true),
        ("ECDHE-RSA-AES256-GCM-SHA384", true),
        ("ECDHE-RSA-CHACHA20-POLY1305", true),
        ("DHE-RSA-AES128-GCM-SHA256", true),
    ] {
        let (own, peer) =
            (Certified::ecdsa(), if is_rsa { Certified::rsa() } else { Certified::ecdsa() });
        let mut ours = End::client(own.credentials(), &[peer.fingerprint()]);
        let mut stock = stock(Some(&peer), suite, true);
        assert!(shake(&mut ours, &mut stock), "{suite}: {:?}", ours.error);
        exchange(ours, stock, suite);
    }
}

#[test]
fn we_are_server_of_any_suite() {
    for (suite, is_rsa) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", false),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", false),
        ("ECDHE-RSA-AES128-GCM-SHA256", true),
        ("DHE-RSA-AES128-GCM-SHA256", true),
    ] {
        let (own, peer) =
            (if is_rsa { Certified::rsa() } else { Certified::ecdsa() }, Certified::rsa());
        let mut ours = End::server(own.credentials(), &[peer.fingerprint()]);
        let mut stock = stock(Some(&peer), suite, false);
        assert!(shake(&mut ours, &mut stock), "{suite}: {:?}", ours.error);
        exchange(ours, stock, suite);
    }
}

#[test]
fn a_client_without_a_certificate_fails() {
    let own = Certified::ecdsa();
    let mut ours = End::server(own.credentials(), &[Certified::ecdsa().fingerprint()]);
    let mut stock = stock(None, "ECDHE-ECDSA-AES128-GCM-SHA256", false);
    assert!(!shake(&mut ours, &mut stock));
    assert_eq!(ours.error, Some(HandshakeError::Certificate(CertificateFault::Missing)));
}

#[test]
fn a_client_without_a_suite_of_ours_fails() {
    let own = Certified::ecdsa();
    let peer = Certified::ecdsa();
    let mut ours = End::server(own.credentials(), &[peer.fingerprint()]);
    let mut stock = stock(Some(&peer), "ECDHE-ECDSA-AES128-SHA256", false);
    assert!(!shake(&mut ours, &mut stock));
    assert_eq!(ours.error, Some(HandshakeError::NoCommonParameters));
}
