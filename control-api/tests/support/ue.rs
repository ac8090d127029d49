//! A UE in a conference: a call and its media.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::io;

use mrfp_protocol::tls::{Handshake, Profile};

use super::msrp::{Head, Reader};
use super::node::Node;
use super::sip::{Call, Transport};
use super::wire::Wire;

/// A member.
pub(crate) struct Ue {
    pub(crate) call: Call,
    pub(crate) wire: Wire,
    reader: Reader,
    heard: VecDeque<(Head, String)>,
    sent: u32,
}

impl Ue {
    /// Calls the room, connects and is bound when this returns.
    pub(crate) fn join(node: &Node, room: &str, name: &str, secure: bool) -> Self {
        Self::join_over(node, Transport::Tcp, room, name, secure)
    }

    pub(crate) fn join_over(
        node: &Node,
        transport: Transport,
        room: &str,
        name: &str,
        secure: bool,
    ) -> Self {
        let call = Call::place(node, transport, room, name, secure);
        Self::connect(call)
    }

    /// The media of a call.
    pub(crate) fn connect(call: Call) -> Self {
        let wire = Wire::connect(call.media(), call.credential.as_ref()).expect("connects");
        Self::bind(call, wire)
    }

    /// A member whose media is secured with certificates; `profile` trusts the node's, which is for
    /// `host`.
    pub(crate) fn join_certified(
        node: &Node,
        room: &str,
        name: &str,
        profile: &Profile,
        host: &str,
    ) -> Self {
        let call = Call::place_certified(node, room, name);
        let handshake = Handshake::certificate_client(profile, host).expect("a name");
        let wire = Wire::connect_with(call.media(), Some(handshake)).expect("connects");
        Self::bind(call, wire)
    }

    /// The media of a call on a connection that is there already, as the one to a relay is.
    pub(crate) fn bind(call: Call, wire: Wire) -> Self {
        let (reader, heard) = (Reader::default(), VecDeque::new());
        let mut ue = Self { call, wire, reader, heard, sent: 0 };
        let id = ue.next_id();
        let bind = ue.call.paths.bind(&id);
        ue.wire.write_all(&bind).expect("sends");
        assert_eq!(ue.await_status(&id).expect("an answer"), 200);
        ue
    }

    pub(crate) fn next_id(&mut self) -> String {
        self.sent += 1;
        format!("t{:07}", self.sent)
    }

    /// Sends a message; the 200 is to be there.
    pub(crate) fn say(&mut self, text: &str) {
        let id = self.next_id();
        let message = self.call.paths.send(&id, text);
        self.wire.write_all(&message).expect("sends");
        assert_eq!(self.await_status(&id).expect("an answer"), 200, "{text}");
    }

    /// The same with a body of any bytes, in one chunk.
    pub(crate) fn say_bytes(&mut self, content_type: &str, body: &[u8]) {
        let id = self.next_id();
        let head = self.call.paths.send_head_of(&id, content_type, Some(body.len() as u64));
        let end = format!("\r\n-------{id}$\r\n");
        let message = [head.as_bytes(), body, end.as_bytes()].concat();
        self.wire.write_all(&message).expect("sends");
        assert_eq!(self.await_status(&id).expect("an answer"), 200);
    }

    /// The same in chunks, each of which is answered before the next is sent.
    pub(crate) fn say_in_chunks(&mut self, content_type: &str, body: &[u8], chunk_bytes: usize) {
        let message_id = self.next_id();
        for start in (0..body.len()).step_by(chunk_bytes) {
            let range = start..(start + chunk_bytes).min(body.len());
            let id = self.next_id();
            let chunk = self.call.paths.chunk(&id, &message_id, content_type, range, body);
            self.wire.write_all(&chunk).expect("sends");
            assert_eq!(self.await_status(&id).expect("an answer"), 200);
        }
    }

    /// The bytes of the next message, which has so many.
    pub(crate) fn hear_all(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        let heard = self.hear_pieces(&mut |at, piece| {
            let at = usize::try_from(at).expect("fits");
            body[at..at + piece.len()].copy_from_slice(piece);
        });
        assert_eq!(heard.expect("received"), length as u64);
        body
    }

    /// Reads up to the response to a request; messages wait for [`Ue::hear`].
    pub(crate) fn await_status(&mut self, id: &str) -> io::Result<u16> {
        loop {
            let (head, body) = self.read_one()?;
            match head.status() {
                Some(status) if head.transaction_id() == id => return Ok(status),
                Some(_) => {}
                None => self.heard.push_back((head, body)),
            }
        }
    }

    /// Waits until these bytes have arrived, of whatever message.
    pub(crate) fn await_bytes(&mut self, bytes: &[u8]) {
        self.reader.await_bytes(&mut self.wire, bytes).expect("they arrive");
    }

    /// Reads up to a request of that method; messages wait for [`Ue::hear`].
    pub(crate) fn await_request(&mut self, method: &str) -> Head {
        let is_it = |(head, _): &(Head, String)| head.method() == method;
        if let Some(at) = self.heard.iter().position(is_it) {
            return self.heard.remove(at).expect("it is there").0;
        }
        loop {
            let (head, body) = self.read_one().expect("a request");
            if head.method() == method {
                return head;
            }
            if head.status().is_none() {
                self.heard.push_back((head, body));
            }
        }
    }

    /// The next message or chunk with its body. It is answered.
    pub(crate) fn hear_chunk(&mut self) -> io::Result<(Head, String)> {
        loop {
            let (head, body) = match self.heard.pop_front() {
                Some(heard) => heard,
                None => self.read_one()?,
            };
            if head.is_send() {
                return Ok((head, body));
            }
        }
    }

    /// The text of the next message.
    pub(crate) fn hear(&mut self) -> String {
        let (head, body) = self.hear_chunk().expect("a message");
        assert_eq!(head.flag, b'$', "{head:?}");
        body
    }

    /// Gets the body of the next message piece by piece, each with its place (from 0).
    pub(crate) fn hear_pieces(&mut self, sink: &mut dyn FnMut(u64, &[u8])) -> io::Result<u64> {
        let mut at = 0;
        loop {
            let head = self.reader.next(&mut self.wire, &mut |piece| {
                sink(at, piece);
                at += piece.len() as u64;
            })?;
            if !head.is_send() {
                continue;
            }
            self.wire.write_all(&self.call.paths.ok(head.transaction_id()))?;
            if head.flag != b'+' {
                assert_eq!(head.flag, b'$');
                return Ok(at);
            }
        }
    }

    fn read_one(&mut self) -> io::Result<(Head, String)> {
        let mut body = Vec::new();
        let head = self.reader.next(&mut self.wire, &mut |piece| body.extend_from_slice(piece))?;
        if head.is_send() {
            self.wire.write_all(&self.call.paths.ok(head.transaction_id()))?;
        }
        Ok((head, String::from_utf8_lossy(&body).into_owned()))
    }
}
