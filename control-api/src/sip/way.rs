//! The way back: where the responses to a request go.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::gate::Transport;
use super::reply;
use super::station::Station;
use super::wire::Message;
use rsipstack::sip::{self, HeadersExt, Param, Request, ToTypedHeader};
use rsipstack::transport::SipConnection;

/// A message as it came.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) transport: Transport,
    pub(crate) source: SocketAddr,
    /// When the kernel received it.
    pub(crate) received: Instant,
    /// What the stack sends with.
    pub(crate) connection: &'a SipConnection,
    /// Of a stream: what is to be written to it.
    pub(crate) stream: Option<&'a mpsc::Sender<Vec<u8>>>,
}

impl Arrival<'_> {
    /// Where the responses to this request go; `None` where its Via does not say.
    pub(super) fn way_back(&self, message: &Message<'_>) -> Option<Way> {
        match self.stream {
            Some(stream) => Some(Way::Stream(stream.clone())),
            None => reply::destination(message, self.source).map(Way::Datagram),
        }
    }
}

/// Says in the top Via where a request came from: the stack sends its responses there.
#[expect(clippy::result_large_err, reason = "it is what the stack says of a Via it cannot read")]
pub(super) fn mark_source(
    request: &mut Request,
    source: SocketAddr,
    transport: sip::Transport,
) -> rsipstack::Result<()> {
    let via = request.via_header_mut()?;
    let is_rport = |param: &Param| matches!(param, Param::Rport(_));
    let asked = via.first_value()?.typed()?.params.iter().any(is_rport);
    SipConnection::build_via_received(via, source, transport)?;
    if !asked {
        //= RFC 3261 section 18.2.2: using the port indicated in the "sent-by" component
        // The stack puts the source's there, asked or not.
        via.update_first_value(|via| {
            let mut typed = via.typed()?;
            typed.params.retain(|param| !is_rport(param));
            Ok(typed.into())
        })?;
    }
    Ok(())
}

/// Where a response goes.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Datagram(SocketAddr),
    Stream(mpsc::Sender<Vec<u8>>),
}

impl Station {
    /// Sends a response now or never. Where there is no room it is lost like any datagram: a 2xx is
    /// repeated until its ACK, for everything else the peer asks again.
    pub(super) fn send_response(&self, way: &Way, response: Vec<u8>) {
        match way {
            Way::Datagram(destination) => {
                let sent = self.socket.get().map(|it| it.try_send_to(&response, *destination));
                if let Some(Err(error)) = sent {
                    tracing::debug!(%error, "UDP send");
                }
            }
            Way::Stream(stream) => {
                if stream.try_send(response).is_err() {
                    tracing::debug!("the connection takes no response");
                }
            }
        }
    }
}
