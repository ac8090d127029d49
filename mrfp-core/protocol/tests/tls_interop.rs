//! Our ends against a stock OpenSSL end that keeps its own record layer.

mod tls_common;

use std::io::{self, Read, Write};

use mrfp_protocol::tls::Opened;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode,
    SslVersion,
};
use tls_common::{End, IDENTITY, KEY, TLS13, all_suites, open_all, profile, psk, seal};

#[derive(Default)]
struct Wire {
    inbound: Vec<u8>,
    outbound: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.inbound.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buffer.len().min(self.inbound.len());
        buffer[..length].copy_from_slice(&self.inbound[..length]);
        self.inbound.drain(..length);
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbound.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stock_builder(suite: &str) -> SslContextBuilder {
    let mut builder = SslContextBuilder::new(SslMethod::tls()).unwrap();
    builder.set_security_level(1);
    builder.set_verify(SslVerifyMode::NONE);
    if suite == TLS13 {
        builder.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
    } else {
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        builder.set_cipher_list(suite).unwrap();
    }
    if suite.starts_with("DHE") {
        let parameters = openssl::dh::Dh::get_2048_256().unwrap();
        builder.set_tmp_dh(&parameters).unwrap();
    }
    builder.set_psk_client_callback(|_, _, identity, key| {
        identity[..IDENTITY.len()].copy_from_slice(IDENTITY);
        key[..KEY.len()].copy_from_slice(&KEY);
        Ok(KEY.len())
    });
    builder.set_psk_server_callback(|_, identity, key| {
        assert_eq!(identity, Some(IDENTITY));
        key[..KEY.len()].copy_from_slice(&KEY);
        Ok(KEY.len())
    });
    builder
}

fn stock(context: &SslContext, server: bool) -> SslStream<Wire> {
    let mut ssl = Ssl::new(context).unwrap();
    if server {
        ssl.set_accept_state();
    } else {
        ssl.set_connect_state();
    }
    SslStream::new(ssl, Wire::default()).unwrap()
}

/// Runs the handshake; both ends must complete it.
fn shake(ours: &mut End, stock: &mut SslStream<Wire>) {
    let mut stock_done = false;
    for _ in 0..10 {
        ours.work();
        stock.get_mut().inbound.append(&mut ours.output);
        if !stock_done {
            match stock.do_handshake() {
                Ok(()) => stock_done = true,
                Err(error) => assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}"),
            }
        }
        ours.input.append(&mut stock.get_mut().outbound);
    }
    assert_eq!(ours.error, None);
    assert!(ours.session.is_some());
    assert!(stock_done);
}

/// Data both ways, many sizes, with whatever else stock OpenSSL sends (tickets).
fn exchange(mut ours: End, mut stock: SslStream<Wire>, suite: &str) {
    let mut session = ours.session.take().unwrap();
    let left = std::mem::take(&mut ours.input);
    assert!(open_all(&mut session, left).unwrap().is_empty());
    for size in [1, 16, 300, 16 * 1024, 5] {
        let plaintext = vec![b'p'; size];
        for _ in 0..3 {
            let record = seal(&mut session, &plaintext).unwrap();
            stock.get_mut().inbound.extend(record);
            let mut received = vec![0; size];
            stock.read_exact(&mut received).unwrap();
            assert_eq!(received, plaintext, "{suite}");
            stock.write_all(&plaintext).unwrap();
            let wire = std::mem::take(&mut stock.get_mut().outbound);
            assert_eq!(open_all(&mut session, wire).unwrap(), plaintext, "{suite}");
        }
    }
    stock.shutdown().unwrap();
    let mut wire = std::mem::take(&mut stock.get_mut().outbound);
    assert!(matches!(session.open(&mut wire), Ok(Opened::CloseNotify { .. })));
    stock.get_mut().inbound.extend(session.close_notify());
    assert_eq!(stock.read(&mut [0; 1]).unwrap(), 0, "{suite}");
}

#[test]
fn our_client_talks_to_a_stock_server() {
    for suite in all_suites() {
        let context = stock_builder(suite).build();
        let mut stock = stock(&context, true);
        let mut ours = End::client(&profile(suite));
        shake(&mut ours, &mut stock);
        exchange(ours, stock, suite);
    }
}

#[test]
fn our_server_talks_to_a_stock_client() {
    for suite in all_suites() {
        let context = stock_builder(suite).build();
        let mut stock = stock(&context, false);
        let mut ours = End::server(&profile(suite), Some(psk()));
        shake(&mut ours, &mut stock);
        exchange(ours, stock, suite);
    }
}

#[test]
fn a_second_hello_after_a_retry_request_is_understood() {
    // The stock end's first key share is of a group we do not have, or accepts only our third.
    for server in [false, true] {
        let mut builder = stock_builder(TLS13);
        builder.set_groups_list(if server { "P-384" } else { "P-521:P-256" }).unwrap();
        let mut stock = stock(&builder.build(), server);
        let mut ours = if server {
            End::client(&profile(TLS13))
        } else {
            End::server(&profile(TLS13), Some(psk()))
        };
        shake(&mut ours, &mut stock);
        let asked = ours.course.matches('k').count();
        assert_eq!(asked, usize::from(!server));
        exchange(ours, stock, TLS13);
    }
}

/// `SSL_OP_NO_EXTENDED_MASTER_SECRET`, which the crate does not name.
const NO_EXTENDED_MASTER_SECRET: u64 = 1;

#[test]
fn a_peer_without_extended_master_secret_is_served() {
    let suite = "PSK-AES128-GCM-SHA256";
    for server in [false, true] {
        let mut builder = stock_builder(suite);
        builder.set_options(SslOptions::from_bits_retain(NO_EXTENDED_MASTER_SECRET));
        let mut stock = stock(&builder.build(), server);
        let mut ours = if server {
            End::client(&profile(suite))
        } else {
            End::server(&profile(suite), Some(psk()))
        };
        shake(&mut ours, &mut stock);
        exchange(ours, stock, suite);
    }
}
