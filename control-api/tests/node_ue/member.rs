//! A member of a room in the clear, and a node whose calls MIKEY keys.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;

use control_api::config::{Config, DEVELOPMENT_TICKET_KEY_ID};
use control_api::mrfc::{DialSecurity, TicketSource};
use control_api::node::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, Phone, authority, binding_send, config, line, plain_offer, status};

/// A node that keys its calls with tickets of this source.
pub(crate) fn keyed(ticket: TicketSource) -> Config {
    let mut settings = config();
    settings.conference.dial_security = DialSecurity::Mikey;
    settings.conference.dial_ticket = ticket;
    settings.conference.dial_ticket_key = Some(DEVELOPMENT_TICKET_KEY_ID.to_owned());
    settings
}

/// A request from one end of an MSRP session to the other.
pub(crate) fn message(id: &str, to: &str, from: &str, content_type: &str, text: &str) -> String {
    format!(
        "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: m{id}\r\n\
         Byte-Range: 1-{length}/{length}\r\nContent-Type: {content_type}\r\n\r\n{text}\r\n\
         -------{id}$\r\n",
        length = text.len()
    )
}

/// A text in its wrapper (RFC 3862).
pub(crate) fn cpim(from: &str, to: &str, text: &str) -> String {
    format!("From: <{from}>\r\nTo: <{to}>\r\n\r\nContent-Type: text/plain\r\n\r\n{text}")
}

/// A member of a room, in the clear.
pub(crate) struct Member {
    pub(crate) phone: Phone,
    pub(crate) media: TcpStream,
    pub(crate) path: String,
    said: u32,
}

impl Member {
    pub(crate) async fn join(node: &Node, room: &str, from: Option<&str>) -> Self {
        let udp = node.addresses().sip_udp;
        Self::call(udp, &format!("sip:{room}@{udp}"), from).await
    }

    /// Calls a room by its URI at the node that listens there.
    pub(crate) async fn call(udp: SocketAddr, room: &str, from: Option<&str>) -> Self {
        let mut phone = Phone::new(udp).await;
        room.clone_into(&mut phone.to);
        from.into_iter().for_each(|from| phone.from = from.to_owned());
        let answer = phone.invite(&plain_offer()).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let media = TcpStream::connect(authority(&answer)).await.expect("connects");
        let mut member = Self { phone, media, path: line(&answer, "a=path:").to_owned(), said: 0 };
        let bind = binding_send(&answer);
        member.media.write_all(bind.as_bytes()).await.expect("sent");
        member.hear("200 OK").await;
        member
    }

    pub(crate) async fn say(&mut self, content_type: &str, text: &str) {
        let own = "msrp://127.0.0.1:9/phoneSession1;tcp";
        self.said += 1;
        let id = format!("said{:04}", self.said);
        let message = message(&id, &self.path, own, content_type, text);
        self.media.write_all(message.as_bytes()).await.expect("sent");
    }

    /// Reads until `wanted` has come.
    pub(crate) async fn hear(&mut self, wanted: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&heard).into_owned();
            if text.contains(wanted) {
                return text;
            }
            let read = self.media.read_buf(&mut heard);
            let read = timeout(PATIENCE, read).await;
            assert_ne!(read.expect("in time").expect("received"), 0, "{wanted:?}: {text}");
        }
    }

    pub(crate) async fn leave(mut self) {
        assert_eq!(status(&self.phone.ask("BYE", b"").await), 200);
    }
}
