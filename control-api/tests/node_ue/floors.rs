//! A floor control client: BFCP of version 1 over a connection, or of version 2 in datagrams.
#![allow(dead_code, reason = "each test file uses a part of it")]

use mrfp_protocol::bfcp::{
    Attributes, Framer, Group, Header, Payload, Primitive, RequestStatus, Transport, Value, Writer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{PATIENCE, Protected, line};

/// What carries it.
pub(crate) enum Wire {
    Plain(TcpStream),
    Protected(Protected),
    /// Connected to the server's.
    Datagrams(UdpSocket),
}

/// A participant of one conference.
pub(crate) struct Floors {
    wire: Wire,
    conference_id: u32,
    user_id: u16,
    transaction_id: u16,
    input: Vec<u8>,
}

/// What the server has told of a floor request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) request_id: u16,
    pub(crate) status: RequestStatus,
}

impl Floors {
    /// The user that `sdp` tells of.
    pub(crate) fn new(wire: Wire, sdp: &str) -> Self {
        Self {
            wire,
            conference_id: line(sdp, "a=confid:").parse().expect("a number"),
            user_id: line(sdp, "a=userid:").parse().expect("a number"),
            transaction_id: 0,
            input: Vec::new(),
        }
    }

    fn transport(&self) -> Transport {
        match self.wire {
            Wire::Plain(_) | Wire::Protected(_) => Transport::Reliable,
            Wire::Datagrams(_) => Transport::Unreliable,
        }
    }

    pub(crate) async fn send(&mut self, primitive: Primitive, values: &[Value<'_>]) {
        self.transaction_id += 1;
        let header = Header::new(
            self.transport(),
            primitive,
            self.conference_id,
            self.transaction_id,
            self.user_id,
        );
        let mut out = vec![0; 1024];
        let mut writer = Writer::new(&mut out, &header).expect("fits");
        for value in values {
            writer.put(value).expect("fits");
        }
        let length = writer.finish();
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(&out[..length]).await.expect("sent"),
            Wire::Protected(protected) => protected.send_bytes(&out[..length]).await,
            Wire::Datagrams(socket) => {
                assert_eq!(socket.send(&out[..length]).await.expect("sent"), length);
            }
        }
    }

    /// The next message of that primitive; others are passed over.
    pub(crate) async fn receive(&mut self, primitive: Primitive) -> Vec<u8> {
        loop {
            let message = self.next().await;
            let header = Header::parse(&message, self.transport()).expect("a header");
            assert_ne!(header.primitive, Primitive::Error.code(), "{message:?}");
            if header.primitive == primitive.code() {
                return message;
            }
        }
    }

    async fn next(&mut self) -> Vec<u8> {
        let framer = Framer::new(4096);
        loop {
            if let Some(message) = framer.next(&self.input).expect("not too long") {
                let message = message.to_vec();
                self.input.drain(..message.len());
                return message;
            }
            match &mut self.wire {
                Wire::Plain(stream) => {
                    let read = timeout(PATIENCE, stream.read_buf(&mut self.input)).await;
                    assert_ne!(read.expect("in time").expect("received"), 0, "it ended");
                }
                Wire::Protected(protected) => protected.receive_bytes(&mut self.input).await,
                Wire::Datagrams(socket) => {
                    let mut datagram = vec![0; 2048];
                    let received = timeout(PATIENCE, socket.recv(&mut datagram)).await;
                    datagram.truncate(received.expect("in time").expect("received"));
                    return datagram;
                }
            }
        }
    }

    pub(crate) async fn hello(&mut self) {
        self.send(Primitive::Hello, &[]).await;
        self.receive(Primitive::HelloAck).await;
    }

    /// Asks for a floor.
    pub(crate) async fn request(&mut self, floor_id: u16) -> Told {
        self.send(Primitive::FloorRequest, &[Value::FloorId(floor_id)]).await;
        self.told().await
    }

    /// Gives it back.
    pub(crate) async fn release(&mut self, request_id: u16) -> Told {
        self.send(Primitive::FloorRelease, &[Value::FloorRequestId(request_id)]).await;
        self.told().await
    }

    /// The next FloorRequestStatus.
    pub(crate) async fn told(&mut self) -> Told {
        let message = self.receive(Primitive::FloorRequestStatus).await;
        let header = Header::parse(&message, self.transport()).expect("a header");
        let payload = Payload::parse(header.content(&message).expect("whole")).expect("sound");
        told(payload.attributes).expect("a status")
    }
}

fn told(attributes: Attributes<'_>) -> Option<Told> {
    let request = attributes.clone().find_map(|attribute| match attribute.value {
        Value::Grouped(Group::FloorRequestInformation(request_id), inner) => {
            Some((request_id, inner))
        }
        _ => None,
    });
    let (request_id, mut inner) = request?;
    let overall = inner.find_map(|attribute| match attribute.value {
        Value::Grouped(Group::OverallRequestStatus(_), inner) => Some(inner),
        _ => None,
    });
    let status = overall?.find_map(|attribute| match attribute.value {
        Value::RequestStatus { status, .. } => RequestStatus::from_code(status),
        _ => None,
    });
    status.map(|status| Told { request_id, status })
}
