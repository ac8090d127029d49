//! A peer of the shard: it talks with a window, and answers whatever it hears.

use std::io::Write as _;

use mrfp_io::PeerId;
use mrfp_protocol::msrp::{Framer, Method, Start};
use mrfp_protocol::tls::{
    Handshake, Opened, PLAINTEXT_BYTES_MAX, Progress, SEAL_HEADROOM_BYTES, SEAL_TAILROOM_BYTES,
    Session,
};

use crate::boundary::Boundary;
use crate::world::{ROOM, Talk, user};

/// Messages a phone sends ahead of their answers; they leave in one segment.
pub(crate) const WINDOW: usize = 8;
/// Bytes of a text.
pub(crate) const TEXT_BYTES: usize = 200;

/// What a phone says, again and again.
pub(crate) struct Say {
    pub(crate) content_type: &'static str,
    pub(crate) wrapped: bool,
    /// Where it is not the session the phone has with the shard.
    pub(crate) to: Option<String>,
}

impl Say {
    pub(crate) fn pair(talk: Talk) -> Self {
        match talk {
            Talk::Transparent => Self { content_type: "text/plain", wrapped: false, to: None },
            Talk::Wrapped => Self { content_type: "message/cpim", wrapped: true, to: None },
        }
    }
}

pub(crate) struct Phone {
    pub(crate) number: u64,
    pub(crate) peer: PeerId,
    /// Its session at the shard, and its own.
    pub(crate) remote: String,
    pub(crate) local: String,
    transport: Transport,
    framer: Framer,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    /// The answer to the request whose end has not come, and those that wait to be sent.
    answer: Vec<u8>,
    answers: Vec<u8>,
    say: Option<Say>,
    /// Messages still to be sent, and how many there have been.
    left: usize,
    sent: usize,
    /// Messages whose 200 has not come.
    waiting: usize,
    /// SENDs heard whole.
    pub(crate) heard: usize,
    /// The last head, for whoever logs in.
    pub(crate) last_head: String,
}

enum Transport {
    Plain,
    Handshaking(Box<Handshake>),
    Secured(Box<Session>),
}

impl Phone {
    pub(crate) fn new(
        number: u64,
        peer: PeerId,
        (remote, local): (String, String),
        handshake: Option<Handshake>,
    ) -> Self {
        Self {
            number,
            peer,
            remote,
            local,
            transport: handshake
                .map_or(Transport::Plain, |handshake| Transport::Handshaking(Box::new(handshake))),
            framer: Framer::default(),
            sealed: Vec::new(),
            plain: Vec::new(),
            answer: Vec::new(),
            answers: Vec::new(),
            say: None,
            left: 0,
            sent: 0,
            waiting: 0,
            heard: 0,
            last_head: String::new(),
        }
    }

    pub(crate) fn will_say(&mut self, say: Say) {
        self.say = Some(say);
    }

    /// Grants a talking phone so many more messages.
    pub(crate) fn grant(&mut self, messages: usize) {
        if self.say.is_some() {
            self.left += messages;
        }
    }

    /// Nothing to say, nothing to answer, no answer awaited.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.waiting == 0 && self.answers.is_empty()
    }

    /// Sends its answers, and as many messages as the window has room for.
    pub(crate) fn speak(&mut self, driver: &mut Boundary) {
        let mut bytes = std::mem::take(&mut self.answers);
        let count = self.left.min(WINDOW - self.waiting.min(WINDOW));
        for _ in 0..count {
            self.write_message(&mut bytes);
        }
        self.left -= count;
        self.waiting += count;
        self.send(driver, &bytes);
    }

    fn write_message(&mut self, out: &mut Vec<u8>) {
        let Some(say) = &self.say else { return };
        let mut body = String::new();
        if say.wrapped {
            // As the load generator writes it.
            body = format!(
                "From: <{}>\r\nTo: <{ROOM}>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n\
                 Content-Type: text/plain; charset=utf-8\r\n\r\n",
                user(self.number)
            );
        }
        body.extend((b'a'..=b'z').cycle().take(TEXT_BYTES).map(char::from));
        let (nonce, sequence, length) = (0x5eed_0000 + self.number, self.sent, body.len());
        let to = say.to.as_ref().unwrap_or(&self.remote);
        let (from, content_type) = (&self.local, say.content_type);
        let id = format!("{nonce:08x}{sequence:08x}00000000");
        let written = write!(
            out,
            "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: {nonce:08x}{sequence:08x}\r\nByte-Range: 1-{length}/{length}\r\n\
             Content-Type: {content_type}\r\n\r\n{body}\r\n-------{id}$\r\n"
        );
        written.expect("a Vec takes everything");
        self.sent += 1;
    }

    /// Sends bytes, protected where there is a session.
    pub(crate) fn send(&mut self, driver: &mut Boundary, bytes: &[u8]) {
        match &mut self.transport {
            Transport::Plain if bytes.is_empty() => {}
            Transport::Plain => driver.0.peer_send(self.peer, bytes),
            Transport::Handshaking(_) => assert!(bytes.is_empty(), "nothing is secured yet"),
            Transport::Secured(session) => {
                for plaintext in bytes.chunks(PLAINTEXT_BYTES_MAX) {
                    let range = SEAL_HEADROOM_BYTES..SEAL_HEADROOM_BYTES + plaintext.len();
                    let mut memory = vec![0; range.end + SEAL_TAILROOM_BYTES];
                    memory[range.clone()].copy_from_slice(plaintext);
                    let record = session.seal(&mut memory, range).expect("sealed");
                    driver.0.peer_send(self.peer, &memory[record]);
                }
            }
        }
    }

    /// Takes what has arrived.
    pub(crate) fn read(&mut self, driver: &mut Boundary) {
        let mut arrived = driver.0.peer_received(self.peer);
        match self.transport {
            Transport::Plain => self.plain.append(&mut arrived),
            Transport::Handshaking(_) | Transport::Secured(_) => {
                self.sealed.append(&mut arrived);
                self.open(driver);
            }
        }
        let plain = std::mem::take(&mut self.plain);
        let taken = self.cut(&plain);
        self.plain.extend_from_slice(&plain[taken..]);
    }

    pub(crate) fn is_secured(&self) -> bool {
        !matches!(self.transport, Transport::Handshaking(_))
    }

    /// Begins the handshake, or goes on with it.
    fn open(&mut self, driver: &mut Boundary) {
        let mut taken = 0;
        loop {
            match &mut self.transport {
                Transport::Plain => break,
                Transport::Handshaking(handshake) => {
                    let mut output = Vec::new();
                    let result = handshake.advance(&self.sealed[taken..], &mut output);
                    driver.0.peer_send(self.peer, &output);
                    let (consumed, progress) = result.expect("both ends agree");
                    taken += consumed;
                    let Progress::Done(session) = progress else { break };
                    self.transport = Transport::Secured(Box::new(session));
                }
                Transport::Secured(session) => match session.open(&mut self.sealed[taken..]) {
                    Ok(Opened::Data { plaintext, consumed }) => {
                        self.plain.extend_from_slice(&self.sealed[taken..][plaintext]);
                        taken += consumed;
                    }
                    Ok(Opened::NeedInput) => break,
                    other => panic!("{other:?}"),
                },
            }
        }
        self.sealed.drain(..taken);
    }

    fn cut(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(piece) = self.framer.next(&bytes[taken..]).expect("well-formed") {
            taken += piece.consumed;
            if let Some(head) = &piece.head {
                self.answer.clear();
                match head.start {
                    Start::Response(200, _) => self.waiting = self.waiting.saturating_sub(1),
                    // The challenge to whoever logs in.
                    Start::Response(401, _) => {}
                    Start::Request(Method::Send) => {
                        let id = String::from_utf8_lossy(head.transaction_id);
                        let from = String::from_utf8_lossy(head.from_path.0);
                        let to = from.split(' ').next().unwrap_or_default();
                        let from = String::from_utf8_lossy(head.to_path.0);
                        let written = write!(
                            self.answer,
                            "MSRP {id} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
                             -------{id}$\r\n"
                        );
                        written.expect("a Vec takes everything");
                    }
                    other => panic!("unexpected: {other:?}"),
                }
                self.last_head = String::from_utf8_lossy(head.header_lines).into_owned();
            }
            if piece.end.is_some() && !self.answer.is_empty() {
                self.heard += 1;
                self.answers.append(&mut self.answer);
            }
        }
        taken
    }
}
