//! Requests of ours: over which connection they go, and what comes back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rsipstack::sip::{Header, Request, SipMessage};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::make_via_branch;
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};

use super::agent::Agent;
use super::peer::Peer;
use super::station::{Front, Station};
use super::transport;

/// TCP connections that we have opened, by where they lead.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<SocketAddr, SipConnection>>);

impl Agent {
    /// Sends a request within a dialog; the status of its final response, `None` where there was
    /// none.
    pub(super) async fn transact(self: &Arc<Self>, request: Request, peer: &Peer) -> Option<u16> {
        let size = request.to_string().len() + ADDED_SIZE_ESTIMATE;
        let (connection, next_hop) = way_to(self, &peer.connection, peer.next_hop(), size).await?;
        let mut transaction = self.transaction(request, connection, next_hop)?;
        transaction.send().await.ok()?;
        while let Some(message) = transaction.receive().await {
            if let SipMessage::Response(response) = message {
                let status = response.status_code.code();
                if status >= 200 {
                    return Some(status);
                }
            }
        }
        None
    }
}

impl Station {
    /// A client transaction for a request without Via.
    pub(crate) fn transaction(
        &self,
        request: Request,
        connection: SipConnection,
        next_hop: SipAddr,
    ) -> Option<Transaction> {
        let request = self.with_via(request, &connection);
        let key = TransactionKey::from_request(&request, TransactionRole::Client).ok()?;
        let endpoint = self.endpoint.clone();
        let mut transaction = Transaction::new_client(key, request, endpoint, Some(connection));
        transaction.destination = Some(next_hop);
        Some(transaction)
    }

    /// The request as it leaves on that connection.
    pub(crate) fn with_via(&self, mut request: Request, connection: &SipConnection) -> Request {
        let (transport, sent_by) = match connection {
            SipConnection::Udp(_) => ("UDP", &self.contact_udp),
            _ => ("TCP", &self.contact_tcp),
        };
        let branch = make_via_branch();
        let via = format!("SIP/2.0/{transport} {sent_by}{branch};rport");
        request.headers.push_front(Header::Via(via.into()));
        request.headers.push(Header::UserAgent(self.config.user_agent.clone().into()));
        request
    }
}

/// The connection for so many bytes to that hop: the one given, unless it is closed or the request too
/// large for a datagram.
pub(crate) async fn way_to<F: Front>(
    front: &Arc<F>,
    connection: &SipConnection,
    next_hop: SipAddr,
    size: usize,
) -> Option<(SipConnection, SipAddr)> {
    let datagram = matches!(connection, SipConnection::Udp(_));
    let open = datagram || is_open(connection);
    if open && (!datagram || size <= DATAGRAM_REQUEST_SIZE_MAX) {
        return Some((connection.clone(), next_hop));
    }
    if let Some(opened) = connection_to(front, next_hop.get_socketaddr().ok()?).await {
        return Some((opened, next_hop));
    }
    //= RFC 3261 section 18.1.1: if the attempt to establish the connection [fails], the
    //= element SHOULD retry the request, using UDP.
    (datagram && size <= DATAGRAM_SIZE_MAX).then(|| (connection.clone(), next_hop))
}

/// A TCP connection to that address, open already or opened now.
pub(crate) async fn connection_to<F: Front>(
    front: &Arc<F>,
    address: SocketAddr,
) -> Option<SipConnection> {
    let known = front.connections.get(address);
    if known.is_some() {
        return known;
    }
    let connection = transport::connect(front, address).await?;
    front.connections.insert(address, connection.clone());
    Some(connection)
}

impl Connections {
    fn get(&self, address: SocketAddr) -> Option<SipConnection> {
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.get(&address).filter(|connection| is_open(connection)).cloned()
    }

    fn insert(&self, address: SocketAddr, connection: SipConnection) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed ones go when another comes, so there are never more than were open at once.
        connections.retain(|_, connection| is_open(connection));
        connections.insert(address, connection);
    }
}

fn is_open(connection: &SipConnection) -> bool {
    connection.cancel_token().is_some_and(|token| !token.is_cancelled())
}

/// RFC 3261 section 18.1.1: a request that is larger goes over a transport with congestion control.
const DATAGRAM_REQUEST_SIZE_MAX: usize = 1300;

/// What UDP over IPv4 carries at most.
const DATAGRAM_SIZE_MAX: usize = 65_507;

/// Via, User-Agent and Content-Length, which are added later.
pub(crate) const ADDED_SIZE_ESTIMATE: usize = 200;
