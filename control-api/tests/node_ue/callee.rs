//! A phone that the node calls: SIP over UDP, and the responder of MIKEY-TICKET.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_api::config::{DEVELOPMENT_KEY, DEVELOPMENT_KEY_ID};
use control_api::mikey::{
    Established, Parameters, PreSharedKey, Responder, ResponderConfig, UriPattern,
};
use mrfp_protocol::tls::Psk;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{PATIENCE, Phone, line, now};
use crate::support::http::request_raw;

/// A phone that is called: it answers what it is told, and looks at what comes.
pub(crate) struct Callee {
    socket: UdpSocket,
    node: SocketAddr,
}

impl Callee {
    pub(crate) async fn new(node: SocketAddr) -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").await.expect("binds"), node }
    }

    pub(crate) fn uri(&self) -> String {
        format!("sip:bob@{}", self.socket.local_addr().expect("bound"))
    }

    pub(crate) async fn send(&self, message: &str) {
        self.socket.send_to(message.as_bytes(), self.node).await.expect("sent");
    }

    pub(crate) async fn receive(&self, start: &str) -> String {
        let mut buffer = vec![0; 65_536];
        let next = async {
            loop {
                let length = self.socket.recv(&mut buffer).await.expect("received");
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.starts_with(start) {
                    return text;
                }
            }
        };
        timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("{start:?} in time"))
    }

    pub(crate) async fn respond(&self, request: &str, status: &str, body: &str) {
        let names = ["Via:", "From:", "Call-ID:", "CSeq:"];
        let kept: Vec<_> = request
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .collect();
        let to = line(request, "To:").split(";tag=").next().expect("a To").to_owned();
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let response = format!(
            "SIP/2.0 {status}\r\n{}\r\nTo: {to};tag=callee\r\nContact: <{}>\r\n{content_type}\
             Content-Length: {}\r\n\r\n{body}",
            kept.join("\r\n"),
            self.uri(),
            body.len(),
        );
        self.socket.send_to(response.as_bytes(), self.node).await.expect("sent");
    }
}

/// The body of a message.
pub(crate) fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").expect("a body").1
}

/// The MIKEY message of a description.
pub(crate) fn key_management(sdp: &str) -> Vec<u8> {
    STANDARD.decode(line(sdp, "a=key-mgmt:mikey ")).expect("base64")
}

/// What the callee makes of an offer's TRANSFER_INIT, the ticket resolved by that KMS, as `uri`:
/// TRANSFER_RESP and what it has agreed on.
pub(crate) async fn respond(kms: SocketAddr, uri: &str, offer: &str) -> (Vec<u8>, Established) {
    let kms_key = PreSharedKey {
        identity: DEVELOPMENT_KEY_ID.as_bytes().to_vec(),
        key: DEVELOPMENT_KEY.to_vec().into(),
    };
    let mut responder = Responder::new(ResponderConfig {
        accepted: vec![UriPattern::Any],
        answer_as: Some(uri.to_owned()),
        kms_uri: "sip:kms@localhost".to_owned(),
        kms_key,
        parameters: Parameters::default(),
    });
    let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("random bytes");
    let begun = responder.begin(&key_management(offer), "mikey", now(), &mut random);
    let (pending, resolve_init) = begun.expect("a sound TRANSFER_INIT");
    let answer = ask_kms(kms, "ticketresolve", &resolve_init).await;
    let finished = pending.finish(&mut responder, &answer, now(), &mut random);
    let (established, transfer_resp) = finished.expect("the ticket is good");
    (transfer_resp, established)
}

/// What a KMS answers to a message.
pub(crate) async fn ask_kms(kms: SocketAddr, kind: &str, message: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /keymanagement?requesttype={kind} HTTP/1.1\r\nHost: kms\r\n\
         Content-Type: application/mikey\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        message.len()
    );
    let answer = request_raw(kms, &[head.as_bytes(), message].concat()).await;
    assert_eq!(answer.status, 200);
    answer.body
}

/// An answer of TLS with this TRANSFER_RESP; the callee's path names `listen`.
pub(crate) fn keyed_answer(setup: &str, listen: SocketAddr, transfer_resp: &[u8]) -> String {
    format!(
        "v=0\r\no=- 2 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message {} TCP/TLS/MSRP *\r\na=accept-types:message/cpim text/plain\r\n\
         a=setup:{setup}\r\na=path:msrps://{listen}/calleeSession1;tcp\r\n\
         a=key-mgmt:mikey {}\r\n",
        listen.port(),
        STANDARD.encode(transfer_resp)
    )
}

/// Another key than was agreed on.
pub(crate) fn wrong_key() -> Psk {
    Psk::new(vec![0x55; 16]).expect("a key")
}

/// REFER within the call of a member.
pub(crate) async fn refer(phone: &mut Phone, refer_to: &str, extra: &str) -> String {
    phone.cseq += 1;
    let message = String::from_utf8(phone.message("REFER", b"")).expect("text");
    let headers = format!("Refer-To: {refer_to}\r\n{extra}Content-Length: 0");
    let message = message.replace("Content-Length: 0", &headers);
    phone.socket.send_to(message.as_bytes(), phone.node).await.expect("sent");
    phone.answer().await
}
