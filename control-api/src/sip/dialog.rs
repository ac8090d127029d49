//! The dialog table: what is known of each call between its INVITE and its end.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use rsipstack::sip::{Header, HeadersExt, Method, Request, Response, Uri, Version};
use rsipstack::transaction::transaction::TransactionEventSender;
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::time::Instant;

use super::session::{Refresher, Terms};
use crate::mrfc::CallId;

/// One call.
pub(super) struct Dialog {
    pub(super) call_id: String,
    pub(super) local_tag: String,
    pub(super) remote_tag: String,
    /// From of our requests: the To of the INVITE with our tag.
    pub(super) local: String,
    /// To of our requests: the From of the INVITE.
    pub(super) remote: String,
    /// Contact of the peer: Request-URI of our requests.
    pub(super) remote_target: Uri,
    /// Route of our requests, from Record-Route (RFC 3261 section 12.1.1).
    pub(super) routes: Vec<String>,
    pub(super) local_cseq: u32,
    pub(super) remote_cseq: u32,
    pub(super) connection: SipConnection,
    /// Where the INVITE came from.
    pub(super) source: SipAddr,
    /// Our Contact header value.
    pub(super) contact: String,
    pub(super) phase: Phase,
    /// The request that waits for the MRFC's answer.
    pub(super) pending: Option<Pending>,
    /// CSeq number of an INVITE answered with 2xx whose ACK is due.
    pub(super) ack_due: Option<u32>,
    pub(super) terms: Option<Terms>,
    /// What the sweep does next, and when.
    deadline: Option<(Instant, Deadline)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The INVITE is unanswered.
    Early,
    /// 2xx sent, no ACK yet. A BYE must wait for it (RFC 3261 section 15).
    Answered {
        /// The MRFC hung up already; this is its reason.
        hang_up: Option<String>,
    },
    /// ACK seen.
    Confirmed,
}

/// A request waiting for the MRFC's answer.
pub(super) struct Pending {
    pub(super) sender: TransactionEventSender,
    /// A response with the headers every response to that request has.
    pub(super) template: Response,
    pub(super) method: Method,
    pub(super) cseq: u32,
    /// Terms the 2xx will carry.
    pub(super) terms: Option<Terms>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Deadline {
    /// Ours to refresh.
    Refresh,
    /// The session is over.
    Expire,
}

impl Dialog {
    /// A dialog that no deadline runs for yet.
    pub(super) fn new(request: &Request, identity: Identity, pending: Pending) -> Option<Self> {
        let routes = request.headers.iter().filter_map(|header| match header {
            Header::RecordRoute(route) => Some(route.value().to_owned()),
            _ => None,
        });
        Some(Self {
            call_id: request.call_id_header().ok()?.value().to_owned(),
            local_tag: identity.local_tag,
            remote_tag: request.from_header().ok()?.tag().ok()??.value().to_owned(),
            local: request.to_header().ok()?.value().to_owned(),
            remote: request.from_header().ok()?.value().to_owned(),
            remote_target: contact_uri(request)?,
            routes: routes.collect(),
            local_cseq: 0,
            remote_cseq: pending.cseq,
            connection: identity.connection,
            source: identity.source,
            contact: identity.contact,
            phase: Phase::Early,
            pending: Some(pending),
            ack_due: None,
            terms: None,
            deadline: None,
        })
    }

    /// Whether an in-dialog request belongs here (RFC 3261 section 12.2.2).
    pub(super) fn matches(&self, request: &Request) -> bool {
        let tag = |tag: Option<rsipstack::sip::param::Tag>| tag.map(|tag| tag.value().to_owned());
        let call_id = request.call_id_header().map(|id| id.value() == self.call_id);
        let from = request.from_header().and_then(|from| from.tag()).map(tag);
        let to = request.to_header().and_then(|to| to.tag()).map(tag);
        matches!(call_id, Ok(true))
            && matches!(from, Ok(Some(from)) if from == self.remote_tag)
            && matches!(to, Ok(Some(to)) if to == self.local_tag)
    }

    /// What a response that makes the dialog returns to the proxies (RFC 3261 section 12.1.1).
    pub(super) fn record_route(&self) -> impl Iterator<Item = Header> + '_ {
        self.routes.iter().map(|route| Header::RecordRoute(route.clone().into()))
    }

    fn is_unacknowledged(&self) -> bool {
        matches!(self.phase, Phase::Answered { hang_up: Some(_) })
    }

    /// The next request of ours in this dialog, without Via.
    pub(super) fn request(&mut self, method: Method) -> Request {
        self.local_cseq += 1;
        let mut headers = vec![
            Header::From(self.local.clone().into()),
            Header::To(self.remote.clone().into()),
            Header::CallId(self.call_id.clone().into()),
            Header::CSeq(format!("{} {method}", self.local_cseq).into()),
            Header::MaxForwards("70".into()),
        ];
        headers.extend(self.routes.iter().map(|route| Header::Route(route.clone().into())));
        Request {
            method,
            uri: self.remote_target.clone(),
            version: Version::V2,
            headers: headers.into(),
            body: Vec::new(),
        }
    }

    /// Where our requests go: the first route or the remote target where that is an address,
    /// else back to where the INVITE came from; this node asks no DNS.
    pub(super) fn next_hop(&self) -> SipAddr {
        let route = self.routes.first().and_then(|route| {
            let uri = route.split(['<', '>']).nth(1).unwrap_or(route);
            Uri::try_from(uri).ok()
        });
        let uri = route.as_ref().unwrap_or(&self.remote_target);
        let address = SipAddr { r#type: self.source.r#type, addr: uri.host_with_port.clone() };
        if address.get_socketaddr().is_ok() { address } else { self.source.clone() }
    }
}

/// What a dialog has besides the INVITE.
pub(super) struct Identity {
    pub(super) local_tag: String,
    pub(super) connection: SipConnection,
    pub(super) source: SipAddr,
    pub(super) contact: String,
}

/// The URI of the first Contact.
pub(super) fn contact_uri(request: &Request) -> Option<Uri> {
    let value = request.contact_header().ok()?.value();
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
pub(super) fn unescape_user(uri: &mut Uri) {
    if let Some(auth) = &mut uri.auth
        && let Some(user) = unescape(&auth.user)
    {
        auth.user = user;
    }
}

/// `%HH` resolved; `None` where the result is not UTF-8 or an escape is broken.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// All calls.
#[derive(Default)]
pub(super) struct Table {
    dialogs: HashMap<CallId, Dialog>,
    /// INVITEs that are not finished, for merged requests (RFC 3261 section 8.2.2.2).
    merging: HashMap<MergeKey, CallId>,
    deadlines: BTreeSet<(Instant, CallId)>,
    /// INVITEs in the order they came, until it is time to tell the caller that it takes longer.
    unanswered: VecDeque<(Instant, CallId)>,
    last_call: u64,
}

/// What an INVITE that came along two paths has in common with itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct MergeKey {
    pub(super) call_id: String,
    pub(super) remote_tag: String,
    pub(super) cseq: u32,
}

impl Table {
    pub(super) fn next_call(&mut self) -> CallId {
        self.last_call += 1;
        CallId(self.last_call)
    }

    pub(super) fn len(&self) -> usize {
        self.dialogs.len()
    }

    pub(super) fn is_merged(&self, key: &MergeKey) -> bool {
        self.merging.contains_key(key)
    }

    pub(super) fn insert(&mut self, call: CallId, dialog: Dialog) {
        self.merging.insert(merge_key(&dialog, dialog.remote_cseq), call);
        self.unanswered.push_back((Instant::now() + RINGING_AFTER, call));
        let before = self.dialogs.insert(call, dialog);
        assert!(before.is_none(), "a call id is given once");
    }

    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut Dialog> {
        self.dialogs.get_mut(&call)
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<Dialog> {
        let dialog = self.dialogs.remove(&call)?;
        if let Some((at, _)) = dialog.deadline {
            self.deadlines.remove(&(at, call));
        }
        Some(dialog)
    }

    /// Whether a call that was hung up waits for its ACK.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.dialogs.values().any(Dialog::is_unacknowledged)
    }

    /// Takes those calls out, each with the reason it was hung up for.
    pub(super) fn take_unacknowledged(&mut self) -> Vec<(Dialog, String)> {
        let calls = self.dialogs.iter().filter(|(_, dialog)| dialog.is_unacknowledged());
        let calls: Vec<CallId> = calls.map(|(call, _)| *call).collect();
        let taken = calls.into_iter().filter_map(|call| self.remove(call));
        let with_reason = taken.filter_map(|mut dialog| match &mut dialog.phase {
            Phase::Answered { hang_up } => hang_up.take().map(|reason| (dialog, reason)),
            Phase::Early | Phase::Confirmed => None,
        });
        with_reason.collect()
    }

    /// The INVITE transaction is over: the same INVITE again is not a merged one any more.
    pub(super) fn unmerge(&mut self, key: &MergeKey) {
        self.merging.remove(key);
    }

    /// The call an in-dialog request belongs to. Our tags begin with the call's number.
    pub(super) fn find(&self, request: &Request) -> Option<CallId> {
        let tag = request.to_header().ok()?.tag().ok()??;
        let number = tag.value().split('-').next()?;
        let call = CallId(u64::from_str_radix(number, 16).ok()?);
        self.dialogs.get(&call).is_some_and(|dialog| dialog.matches(request)).then_some(call)
    }

    /// The next INVITE that is unanswered for [`RINGING_AFTER`]; each comes up once.
    pub(super) fn pop_ringing(&mut self, now: Instant) -> Option<&Dialog> {
        while let Some((at, call)) = self.unanswered.front().copied() {
            if at > now {
                return None;
            }
            self.unanswered.pop_front();
            // Looked up twice: a borrow that may be returned would last over the loop.
            if self.dialogs.get(&call).is_some_and(|dialog| dialog.phase == Phase::Early) {
                return self.dialogs.get(&call);
            }
        }
        None
    }

    /// A 2xx to INVITE or UPDATE agreed on these terms: the clock starts again.
    pub(super) fn start_session(&mut self, call: CallId, terms: Option<Terms>, now: Instant) {
        let next = terms.map(|terms| match terms.refresher {
            Refresher::Peer => (now + terms.expires_after(), Deadline::Expire),
            Refresher::Us => (now + terms.refresh_after(), Deadline::Refresh),
        });
        if let Some(dialog) = self.dialogs.get_mut(&call) {
            dialog.terms = terms;
        }
        self.set_deadline(call, next);
    }

    pub(super) fn set_deadline(&mut self, call: CallId, next: Option<(Instant, Deadline)>) {
        let Some(dialog) = self.dialogs.get_mut(&call) else {
            return;
        };
        if let Some((at, _)) = std::mem::replace(&mut dialog.deadline, next) {
            self.deadlines.remove(&(at, call));
        }
        if let Some((at, _)) = next {
            self.deadlines.insert((at, call));
        }
    }

    /// The next deadline that has passed.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(CallId, Deadline)> {
        let (at, call) = *self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.deadlines.remove(&(at, call));
        let dialog = self.dialogs.get_mut(&call)?;
        dialog.deadline.take().map(|(_, deadline)| (call, deadline))
    }
}

/// An answer that takes longer is announced with 180: RFC 3261 section 17.2.1 gives the transaction
/// layer 200 ms for the 100, so a caller that has heard nothing else by then wonders.
const RINGING_AFTER: Duration = Duration::from_millis(200);

pub(super) fn merge_key(dialog: &Dialog, cseq: u32) -> MergeKey {
    MergeKey { call_id: dialog.call_id.clone(), remote_tag: dialog.remote_tag.clone(), cseq }
}
