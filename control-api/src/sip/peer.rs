//! The other end of a dialog: what every request within it needs. A call and the subscriptions made
//! in its dialog share one (RFC 5057), and the last of them keeps it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rsipstack::sip::{Header, HeadersExt, Method, Request, Response, Uri, Version};
use rsipstack::transport::{SipAddr, SipConnection};

/// One dialog (RFC 3261 section 12), without what is done in it.
pub(crate) struct Peer {
    pub(crate) call_id: String,
    pub(crate) local_tag: String,
    pub(crate) remote_tag: String,
    /// From of our requests: the To of the first request with our tag.
    pub(crate) local: String,
    /// To of our requests: the From of the first request.
    pub(crate) remote: String,
    /// Contact of the peer: Request-URI of our requests.
    pub(crate) remote_target: Mutex<Uri>,
    /// Route of our requests, from Record-Route (RFC 3261 section 12.1.1).
    pub(crate) routes: Vec<String>,
    pub(crate) local_cseq: AtomicU32,
    /// The lowest number its next request may have: 0 before it has sent one (RFC 3261 section
    /// 12.2.2).
    pub(crate) remote_cseq_min: AtomicU32,
    pub(crate) connection: SipConnection,
    /// Where the first request came from.
    pub(crate) source: SipAddr,
}

/// The peer's end of a dialog, by its first request.
pub(crate) struct RemoteEnd {
    pub(crate) call_id: String,
    pub(crate) tag: String,
    pub(crate) cseq: u32,
}

impl Peer {
    /// The peer that sent a request outside a dialog, which has our tag in its To already.
    pub(crate) fn new(
        request: &Request,
        local_tag: String,
        connection: SipConnection,
        source: SipAddr,
    ) -> Option<Self> {
        let from = request.from_header().ok()?;
        let remote = RemoteEnd {
            call_id: request.call_id_header().ok()?.value().to_owned(),
            tag: from.tag().ok()??.value().to_owned(),
            cseq: request.cseq_header().ok()?.seq().ok()?,
        };
        Self::of(request, local_tag, remote, connection, source)
    }

    /// The same where what its end of the dialog is called is known.
    pub(crate) fn of(
        request: &Request,
        local_tag: String,
        remote: RemoteEnd,
        connection: SipConnection,
        source: SipAddr,
    ) -> Option<Self> {
        let routes = request.headers.iter().filter_map(|header| match header {
            Header::RecordRoute(route) => Some(route.value().to_owned()),
            _ => None,
        });
        Some(Self {
            call_id: remote.call_id,
            local_tag,
            remote_tag: remote.tag,
            local: request.to_header().ok()?.value().to_owned(),
            remote: request.from_header().ok()?.value().to_owned(),
            remote_target: Mutex::new(contact_uri(request)?),
            routes: routes.collect(),
            local_cseq: AtomicU32::new(0),
            remote_cseq_min: AtomicU32::new(remote.cseq.saturating_add(1)),
            connection,
            source,
        })
    }

    /// The peer that a response to a request of ours makes (RFC 3261 section 12.1.2).
    pub(crate) fn answered(
        request: &Request,
        response: &Response,
        local_tag: String,
        connection: SipConnection,
        source: SipAddr,
    ) -> Option<Self> {
        let routes = response.headers.iter().filter_map(|header| match header {
            Header::RecordRoute(route) => Some(route.value().split(',')),
            _ => None,
        });
        let mut routes: Vec<String> =
            routes.flatten().map(|route| route.trim().to_owned()).collect();
        routes.reverse();
        Some(Self {
            call_id: request.call_id_header().ok()?.value().to_owned(),
            local_tag,
            remote_tag: response.to_header().ok()?.tag().ok()??.value().to_owned(),
            local: request.from_header().ok()?.value().to_owned(),
            remote: response.to_header().ok()?.value().to_owned(),
            remote_target: Mutex::new(contact_of(response.contact_header().ok()?.value())?),
            routes,
            // What follows the request has the next numbers.
            local_cseq: AtomicU32::new(request.cseq_header().ok()?.seq().ok()?),
            remote_cseq_min: AtomicU32::new(0),
            connection,
            source,
        })
    }

    /// Whether an in-dialog request belongs here (RFC 3261 section 12.2.2).
    pub(crate) fn matches(&self, request: &Request) -> bool {
        let tag = |tag: Option<rsipstack::sip::param::Tag>| tag.map(|tag| tag.value().to_owned());
        let call_id = request.call_id_header().map(|id| id.value() == self.call_id);
        let from = request.from_header().and_then(|from| from.tag()).map(tag);
        let to = request.to_header().and_then(|to| to.tag()).map(tag);
        matches!(call_id, Ok(true))
            && matches!(from, Ok(Some(from)) if from == self.remote_tag)
            && matches!(to, Ok(Some(to)) if to == self.local_tag)
    }

    /// Takes the number of a request; false where it is out of order.
    pub(crate) fn advance(&self, cseq: u32) -> bool {
        self.remote_cseq_min.fetch_max(cseq.saturating_add(1), Ordering::Relaxed) <= cseq
    }

    /// Whether a request of that number comes in order.
    pub(crate) fn is_next(&self, cseq: u32) -> bool {
        //= RFC 3261 section 12.2.2: If [...] the sequence number of the request is lower than
        //= the remote sequence number, the request is out of order and MUST be rejected with a
        //= 500 (Server Internal Error) response.
        self.remote_cseq_min.load(Ordering::Relaxed) <= cseq
    }

    /// A target refresh (RFC 3261 section 12.2.2).
    pub(crate) fn retarget(&self, request: &Request) {
        self.retarget_to(contact_uri(request));
    }

    /// The same by the Contact of a response to a request of ours (section 12.2.1.2).
    pub(crate) fn retarget_to(&self, contact: Option<Uri>) {
        if let Some(uri) = contact {
            *self.remote_target.lock().unwrap_or_else(PoisonError::into_inner) = uri;
        }
    }

    /// What a response that makes the dialog returns to the proxies (RFC 3261 section 12.1.1).
    pub(crate) fn record_route(&self) -> impl Iterator<Item = Header> + '_ {
        self.routes.iter().map(|route| Header::RecordRoute(route.clone().into()))
    }

    /// The number of the next request of ours.
    pub(crate) fn next_cseq(&self) -> u32 {
        self.local_cseq.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The next request of ours in this dialog, without Via.
    pub(crate) fn request(&self, method: Method) -> Request {
        self.numbered(method, self.next_cseq())
    }

    /// A request of ours with that number: an ACK has that of its INVITE (RFC 3261 section 13.2.2.4).
    pub(crate) fn numbered(&self, method: Method, cseq: u32) -> Request {
        let mut headers = vec![
            Header::From(self.local.clone().into()),
            Header::To(self.remote.clone().into()),
            Header::CallId(self.call_id.clone().into()),
            Header::CSeq(format!("{cseq} {method}").into()),
            Header::MaxForwards("70".into()),
        ];
        headers.extend(self.routes.iter().map(|route| Header::Route(route.clone().into())));
        Request {
            method,
            uri: self.remote_target(),
            version: Version::V2,
            headers: headers.into(),
            body: Vec::new(),
        }
    }

    /// Where our requests go: the first route or the remote target where that is an address,
    /// else back to where the first request came from; this node asks no DNS.
    pub(crate) fn next_hop(&self) -> SipAddr {
        let route = self.routes.first().and_then(|route| {
            let uri = route.split(['<', '>']).nth(1).unwrap_or(route);
            Uri::try_from(uri).ok()
        });
        let uri = route.unwrap_or_else(|| self.remote_target());
        let address = SipAddr { r#type: self.source.r#type, addr: uri.host_with_port };
        if address.get_socketaddr().is_ok() { address } else { self.source.clone() }
    }

    fn remote_target(&self) -> Uri {
        self.remote_target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The URI of the first Contact.
pub(crate) fn contact_uri(request: &Request) -> Option<Uri> {
    contact_of(request.contact_header().ok()?.value())
}

/// The URI of a Contact value.
pub(crate) fn contact_of(value: &str) -> Option<Uri> {
    let uri = match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next()?,
        None => value.split(';').next()?,
    };
    let mut uri = Uri::try_from(uri.trim()).ok()?;
    unescape_user(&mut uri);
    Some(uri)
}

/// The stack keeps the user part as received but escapes it when it writes it, so what was
/// escaped must be unescaped in between.
pub(crate) fn unescape_user(uri: &mut Uri) {
    if let Some(auth) = &mut uri.auth
        && let Some(user) = unescape(&auth.user)
    {
        auth.user = user;
    }
}

/// `%HH` resolved; `None` where the result is not UTF-8 or an escape is broken.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
