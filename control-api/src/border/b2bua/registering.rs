//! REGISTER passes through: the network is told a contact of ours, so that requests to the UE come back
//! through us, and the UE hears of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::{Header, HeadersExt, Request, Response};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::SipConnection;
use tokio::time::Instant;

use super::super::MediaSecurity;
use super::headers::{made, parameters, uri_of, values};
use super::mediasec::{self, SECURITY_SERVER};
use super::passing::{Target, finish};
use super::registrations::{NoRoom, Registration};
use super::side::Side;
use super::transactions::Server;
use crate::sip::peer::contact_of;

/// One Contact of a REGISTER.
struct Registering {
    /// What the network calls it.
    name: String,
    /// The URI as the UE wrote it.
    uri: String,
    parameters: String,
}

impl Side {
    /// Passes a REGISTER of a UE to its network.
    pub(super) fn register(self: &Arc<Self>, transaction: Transaction, source: SocketAddr) {
        self.shared.metrics.registers.increment();
        let side = Arc::clone(self);
        self.spawn(async move {
            let mut server = Server::new(&transaction);
            let Some(other) = side.other() else { return };
            let tag = other.name_for(server.request.to_header().map(|to| to.value()).ok());
            match side.ask_registrar(&other, &server, source).await {
                Ok((contacts, response)) => {
                    let connection = server.connection.clone();
                    let headers =
                        side.registered(&server.request, source, connection, contacts, &response);
                    let mut passed = server.passed(&response, &other, &side, Some(&tag));
                    passed.headers.retain(|header| !matches!(header, Header::Contact(_)));
                    passed.headers.extend(headers);
                    server.respond(passed);
                }
                Err(status) => {
                    let after = side.retry_after_seconds(u64::from(source.port()));
                    let after =
                        (status == 503).then(|| Header::RetryAfter(after.to_string().into()));
                    server.refuse(status, &tag, after.into_iter().collect());
                }
            }
            finish(&side, transaction).await;
        });
    }

    async fn ask_registrar(
        self: &Arc<Self>,
        other: &Arc<Self>,
        server: &Server,
        source: SocketAddr,
    ) -> Result<(Vec<Registering>, Response), u16> {
        let request = &server.request;
        let user = user_of(request).ok_or(400u16)?;
        let mut contacts = Vec::new();
        for value in values(&request.headers, "Contact").into_iter().filter(|value| *value != "*") {
            contacts.push(self.registering(&user, value).ok_or(400u16)?);
        }
        let names = contacts.iter().map(|contact| contact.name.as_str());
        self.shared.registrations().check(names, &user).map_err(|full| match full {
            NoRoom::Registrations => 503u16,
            NoRoom::Contacts => 403,
        })?;
        let star = values(&request.headers, "Contact").contains(&"*");
        let rewritten = |_: &Request, target: &Target| {
            let ours = |contact: &Registering| {
                let uri = other.contact_uri(&contact.name, target.destination.r#type);
                made("Contact", format!("<{uri}>{}", contact.parameters))
            };
            let all = star.then(|| made("Contact", "*".to_owned()));
            all.into_iter().chain(contacts.iter().map(ours)).collect::<Vec<_>>()
        };
        let response = self.forward(other, server, source, rewritten).await?;
        Ok((contacts, response))
    }

    fn registering(&self, user: &str, value: &str) -> Option<Registering> {
        let uri = contact_of(value)?;
        let (written, parameters) = match value.split_once('<') {
            Some((_, rest)) => rest.split_once('>')?,
            None => value.split_at(value.find(';').unwrap_or(value.len())),
        };
        // The same contact has the same name whenever it is registered.
        let name = self.name_for((user, uri.to_string()));
        Some(Registering {
            name,
            uri: written.trim().to_owned(),
            parameters: parameters.trim().to_owned(),
        })
    }

    /// What a final response makes of the registrations of a UE, and the headers that tell it.
    fn registered(
        &self,
        request: &Request,
        source: SocketAddr,
        connection: Option<SipConnection>,
        contacts: Vec<Registering>,
        response: &Response,
    ) -> Vec<Header> {
        let mut headers = Vec::new();
        let status = response.status_code.code();
        let security = mediasec::supported(&request.headers);
        let verified = mediasec::verified(&request.headers);
        //= TS 24.229 clause 5.2.2: the P-CSCF shall [...] insert a Security-Server header field [...] with
        //= the media plane security mechanisms, labelled with the "mediasec" header field parameter
        if security.or(verified).is_some() && (status == 401 || status < 300) {
            headers.push(made("Security-Server", SECURITY_SERVER.to_owned()));
        }
        let (Some(user), Some(flow)) = (user_of(request), connection) else { return headers };
        if status >= 300 {
            return headers;
        }
        if values(&request.headers, "Contact").contains(&"*") {
            self.shared.registrations().remove_user(&user);
        }
        let expires_header = seconds(values(&response.headers, "Expires").first().copied());
        let mut listed = Vec::new();
        for value in values(&response.headers, "Contact") {
            let Some(name) = contact_of(value).and_then(|uri| Some(uri.user()?.to_owned())) else {
                continue;
            };
            let granted = parameter(value, "expires").and_then(|it| seconds(Some(it)));
            let granted = granted.or(expires_header).unwrap_or(EXPIRES_DEFAULT_SECONDS);
            let asked = contacts.iter().find(|contact| contact.name == name);
            if let Some(contact) = asked.filter(|_| granted > 0) {
                let security = security.or_else(|| self.known_security(&name)).or(verified);
                let made = self.registration(&user, contact, source, &flow, response, granted);
                let Some(registration) = made else { continue };
                let security = security.unwrap_or_default();
                let registration = Registration { security, ..registration };
                let taken = self.shared.registrations().insert(name.clone(), registration);
                // The UE is told nothing of a contact that leads nowhere.
                if taken.is_err() {
                    continue;
                }
            }
            let uri = match asked {
                Some(contact) => Some(contact.uri.clone()),
                None => self.shared.registrations().get(&name).map(|it| it.contact.clone()),
            };
            // What was registered elsewhere would say where that is.
            if let Some(uri) = uri.filter(|_| granted > 0) {
                let kept = parameters(value).join(";");
                let separator = if kept.is_empty() { "" } else { ";" };
                headers.push(made("Contact", format!("<{uri}>{separator}{kept}")));
                listed.push(name);
            }
        }
        for contact in contacts.iter().filter(|contact| !listed.contains(&contact.name)) {
            self.shared.registrations().remove(&contact.name);
        }
        headers
    }

    /// What was agreed with a contact before; a REGISTER that says nothing of it changes nothing.
    fn known_security(&self, name: &str) -> Option<MediaSecurity> {
        self.shared.registrations().get(name).map(|it| it.security)
    }

    fn registration(
        &self,
        user: &str,
        contact: &Registering,
        source: SocketAddr,
        flow: &SipConnection,
        response: &Response,
        granted: u32,
    ) -> Option<Registration> {
        let owned = |name| values(&response.headers, name).into_iter().map(str::to_owned).collect();
        let transport = match flow {
            SipConnection::Udp(_) => rsipstack::sip::Transport::Udp,
            _ => rsipstack::sip::Transport::Tcp,
        };
        Some(Registration {
            user: user.to_owned(),
            contact: contact.uri.clone(),
            uri: contact_of(&format!("<{}>", contact.uri))?,
            source,
            destination: rsipstack::transport::SipAddr::new(transport, source.into()),
            flow: flow.clone(),
            security: MediaSecurity::default(),
            identities: owned("P-Associated-URI"),
            service_route: owned("Service-Route"),
            expires: Instant::now() + Duration::from_secs(u64::from(granted)),
        })
    }
}

/// The address of record of a REGISTER, as a name-addr without display name.
fn user_of(request: &Request) -> Option<String> {
    let uri = uri_of(request.to_header().ok()?.value())?;
    Some(format!("<{uri}>"))
}

fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    parameters(value).into_iter().find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn seconds(value: Option<&str>) -> Option<u32> {
    value?.trim().parse().ok()
}

/// RFC 3261 section 10.2: without a word, what registrars usually grant.
const EXPIRES_DEFAULT_SECONDS: u32 = 3600;
