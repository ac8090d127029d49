//! Where requests go, and those that begin neither call nor subscription: they are passed on, and their
//! responses back.

use std::net::SocketAddr;
use std::sync::Arc;

use rsipstack::sip::{Header, HeadersExt, Request, Response, SipMessage, Uri, Version};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::{SipAddr, SipConnection};

use super::super::{MediaSecurity, Party, SideRole};
use super::call::{bare_value, contact, drop_description, forwards_left};
use super::dialogs::cseq_of;
use super::headers::{cross, hide_host, made, uri_of, values};
use super::next_hops::{NextHop, is_answer};
use super::registrations::Registration;
use super::side::Side;
use super::transactions::Server;
use crate::sip::peer::unescape_user;

/// Where a request that begins something may go.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) destination: SipAddr,
    /// The connection of a UE.
    pub(super) flow: Option<SipConnection>,
    pub(super) next_hop: Option<NextHop>,
    pub(super) routes: Vec<String>,
    /// Headers that say who asks.
    pub(super) identity: Vec<Header>,
    security: MediaSecurity,
}

impl Target {
    pub(super) fn party(&self, side: &Side) -> Party {
        Party {
            side: side.role,
            signalling: self.destination.get_socketaddr().ok().map(|address| address.ip()),
            security: self.security,
        }
    }
}

/// Who calls from there.
pub(super) fn caller_of(
    side: &Side,
    source: SocketAddr,
    connection: Option<&SipConnection>,
) -> Party {
    let registrations = side.shared.registrations();
    let mut here = registrations.by_source(source, connection);
    let registered = here.next().filter(|_| side.role == SideRole::Access);
    Party {
        side: side.role,
        signalling: Some(source.ip()),
        security: registered.map(|it| it.security).unwrap_or_default(),
    }
}

impl Side {
    /// Where a request that came from `source` on the side `from` leaves by this one; the status of the refusal
    /// where there is no way.
    pub(super) fn targets(
        &self,
        from: &Self,
        request: &Request,
        source: SocketAddr,
        connection: Option<&SipConnection>,
    ) -> Result<Vec<Target>, u16> {
        let own = from.is_own_host(&request.uri.host_with_port.to_string());
        let registrations = self.shared.registrations();
        if self.role == SideRole::Access && own {
            let user = request.uri.user().unwrap_or_default();
            //= RFC 3261 section 21.4.5: 404 if the domain in the Request-URI does not match any of the
            //= domains handled by the recipient, or the user does not exist in it
            let registered = registrations.get(user).ok_or(404u16)?;
            return Ok(vec![Target {
                uri: registered.uri.clone(),
                destination: registered.destination.clone(),
                flow: Some(registered.flow.clone()),
                next_hop: None,
                routes: Vec::new(),
                identity: Vec::new(),
                security: registered.security,
            }]);
        }
        if self.next_hops.is_empty() {
            return Err(if self.role == SideRole::Access { 404 } else { 503 });
        }
        let (caller, chosen) = match from.role {
            SideRole::Access => caller_among(registrations.by_source(source, connection), request),
            _ => (None, None),
        };
        let identity = caller.filter(|_| self.trusted && !from.trusted).map(|it| {
            let asserted = chosen.or(it.identities.first()).unwrap_or(&it.user);
            made("P-Asserted-Identity", asserted.clone())
        });
        let routes = caller.map(|it| it.service_route.clone()).unwrap_or_default();
        let mut uri = request.uri.clone();
        unescape_user(&mut uri);
        let target = |next_hop: NextHop| {
            let mut uri = uri.clone();
            if own {
                uri.host_with_port = next_hop.address.into();
            }
            Target {
                uri,
                destination: next_hop.destination(),
                flow: None,
                next_hop: Some(next_hop),
                routes: routes.clone(),
                identity: identity.clone().into_iter().collect(),
                security: MediaSecurity::default(),
            }
        };
        Ok(self.next_hops.in_order().into_iter().map(target).collect())
    }

    /// Passes on a request that begins nothing.
    pub(super) fn pass(self: &Arc<Self>, transaction: Transaction, source: SocketAddr) {
        self.shared.metrics.requests_passed.increment();
        let side = Arc::clone(self);
        self.spawn(async move {
            let mut server = Server::new(&transaction);
            let Some(other) = side.other() else { return };
            let contact = |request: &Request, target: &Target| {
                let has = request.headers.iter().any(|it| matches!(it, Header::Contact(_)));
                let uri = other.contact_uri("", target.destination.r#type);
                has.then(|| contact(&uri, &request.headers)).into_iter().collect()
            };
            match side.forward(&other, &server, source, contact).await {
                Ok(mut response) => {
                    drop_description(&mut response);
                    let tag = other.name_for(response.to_header().map(|to| to.value()).ok());
                    let passed = server.passed(&response, &other, &side, Some(&tag));
                    server.respond(passed);
                }
                Err(status) => server.refuse(status, &other.name_for(status), Vec::new()),
            }
            finish(&side, transaction).await;
        });
    }

    /// Sends a request on, to one target after the other; the final response, or the status of ours.
    pub(super) async fn forward(
        self: &Arc<Self>,
        other: &Arc<Self>,
        server: &Server,
        source: SocketAddr,
        contacts: impl Fn(&Request, &Target) -> Vec<Header> + Send,
    ) -> Result<Response, u16> {
        let (request, connection) = (&server.request, server.connection.as_ref());
        let mut last = Err(503);
        for target in other.targets(self, request, source, connection)? {
            let passed = self.passed_outside(other, request, &target, contacts(request, &target));
            let passed = passed.ok_or(400u16)?;
            let response = other.exchange(passed, &target).await;
            let alive = response.as_ref().is_some_and(|it| is_answer(it.status_code.code()));
            if let Some(next_hop) = target.next_hop {
                other.next_hops.saw(next_hop, alive);
            }
            if let Some(response) = response {
                last = Ok(response);
            }
            if alive {
                break;
            }
            self.shared.metrics.reroutes.increment();
        }
        last
    }

    /// A request outside of dialogs as it leaves by the other side. What names it there is the same for
    /// the same request, so that who gets several of one kind (a registrar) sees their order.
    fn passed_outside(
        &self,
        other: &Self,
        request: &Request,
        target: &Target,
        contacts: Vec<Header>,
    ) -> Option<Request> {
        let from = request.from_header().ok()?.value();
        let to = request.to_header().ok()?.value();
        let tag = other.name_for((from, "tag"));
        let call_id = other.name_for(request.call_id_header().ok()?.value());
        let mut headers = vec![
            Header::From(format!("{};tag={tag}", hide_host(&bare_value(from), other)).into()),
            Header::To(hide_host(&bare_value(to), other).into()),
            Header::CallId(call_id.into()),
            Header::CSeq(format!("{} {}", cseq_of(request), request.method).into()),
            Header::MaxForwards(forwards_left(&request.headers).to_string().into()),
        ];
        headers.extend(target.routes.iter().map(|route| Header::Route(route.clone().into())));
        headers.extend(contacts);
        headers.extend(cross(&request.headers, self, other));
        headers.extend(target.identity.clone());
        Some(Request {
            method: request.method,
            uri: target.uri.clone(),
            version: Version::V2,
            headers: headers.into(),
            body: request.body.clone(),
        })
    }

    /// A request and its final response; `None` where there is no way.
    async fn exchange(self: &Arc<Self>, request: Request, target: &Target) -> Option<Response> {
        let transaction = self.client(request, &target.destination, target.flow.as_ref()).await;
        let mut transaction = transaction?;
        transaction.send().await.ok()?;
        while let Some(message) = transaction.receive().await {
            if let SipMessage::Response(response) = message
                && response.status_code.code() >= 200
            {
                return Some(response);
            }
        }
        None
    }
}

/// Lets a transaction send the response it was given; a broken connection takes none.
pub(super) async fn finish(side: &Side, mut transaction: Transaction) {
    let sent = async { while transaction.receive().await.is_some() {} };
    let _ = tokio::time::timeout(side.config.t1 * 64, sent).await;
}

/// Who of those that speak from one place asks, and the identity that it has chosen of its own.
fn caller_among<'a>(
    here: impl Iterator<Item = &'a Registration>,
    request: &Request,
) -> (Option<&'a Registration>, Option<&'a String>) {
    let here: Vec<&Registration> = here.collect();
    //= RFC 3325 section 6: If the user agent server [proxy] can match the P-Preferred-Identity with
    //= one of its identities it asserts that one; else the default
    // As the network has written it: what the user wrote around it is no identity.
    for value in values(&request.headers, "P-Preferred-Identity") {
        let Some(wanted) = uri_in(value) else { continue };
        for it in &here {
            let same = |known: &&String| uri_in(known).as_ref() == Some(&wanted);
            if let Some(chosen) = it.identities.iter().find(same) {
                return (Some(it), Some(chosen));
            }
        }
    }
    let from = request.from_header().ok().and_then(|from| uri_in(from.value()));
    let is_from = |it: &&&Registration| from.is_some() && uri_in(&it.user) == from;
    (here.iter().find(is_from).or(here.first()).copied(), None)
}

/// The URI of a name-addr, without parameters.
fn uri_in(value: &str) -> Option<String> {
    Some(uri_of(value)?.split(';').next()?.to_ascii_lowercase())
}
