//! The dialog table: what is known of each call between its INVITE and its end.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::{HeadersExt, Method, Request, Response};
use rsipstack::transaction::transaction::TransactionEventSender;
use tokio::time::Instant;

use super::dialing::{Dial, Sent};
use super::peer::Peer;
use super::repeats::{Repeats, RequestName, Shed};
use super::session::{Refresher, Terms};
use super::subscriptions::SubscriptionTable;
use super::way::Way;
use super::wire::{self, Message, Name};
use crate::mrfc::CallId;

/// One call.
pub(super) struct Dialog {
    pub(super) peer: Arc<Peer>,
    /// Our Contact header value.
    pub(super) contact: String,
    pub(super) phase: Phase,
    /// The request that waits for the MRFC's answer.
    pub(super) pending: Option<Pending>,
    /// CSeq number of an INVITE answered with 2xx whose ACK is due.
    pub(super) ack_due: Option<u32>,
    /// That 2xx, where it is ours to repeat.
    unacknowledged: Option<Box<Unacknowledged>>,
    /// Names the INVITE that began the call until it is finished.
    merge_name: Option<RequestName>,
    pub(super) terms: Option<Terms>,
    /// Of a call of ours: the ACK, for when the 2xx comes again.
    pub(super) ack: Option<Sent>,
    /// The 2xx carries an offer of ours: its answer comes with the ACK.
    pub(super) offered: bool,
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
    pub(super) cseq: u32,
    /// Terms the 2xx will carry.
    pub(super) terms: Option<Terms>,
    pub(super) request: Asked,
}

/// What was asked for.
pub(super) enum Asked {
    /// A call.
    Call(Box<Invitation>),
    /// A change of it. A task keeps the transaction.
    Change {
        sender: TransactionEventSender,
        /// A response with the headers every response to that request has.
        template: Response,
        method: Method,
    },
}

/// The INVITE that began a call, unanswered.
pub(super) struct Invitation {
    /// As received, with our tag: what a transaction of the stack is made of.
    pub(super) request: Request,
    pub(super) name: RequestName,
    pub(super) source: SocketAddr,
    pub(super) way: Way,
    /// What every response begins with.
    pub(super) head: Vec<u8>,
    /// The last provisional response.
    pub(super) provisional: Option<Vec<u8>>,
}

/// The 2xx to the INVITE that began a call, until its ACK. To repeat it is on us, over every
/// transport (RFC 3261 section 13.3.1.4).
pub(super) struct Unacknowledged {
    pub(super) response: Vec<u8>,
    pub(super) way: Way,
    /// From this repetition to the next.
    pub(super) interval: Duration,
    /// When the call is given up.
    pub(super) until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Deadline {
    /// Ours to refresh.
    Refresh,
    /// The session is over.
    Expire,
}

impl Dialog {
    /// The dialog of an INVITE; no deadline runs for it yet.
    pub(super) fn new(
        peer: Arc<Peer>,
        contact: String,
        pending: Pending,
        merge_name: RequestName,
    ) -> Self {
        Self {
            peer,
            contact,
            phase: Phase::Early,
            pending: Some(pending),
            ack_due: None,
            unacknowledged: None,
            merge_name: Some(merge_name),
            terms: None,
            ack: None,
            offered: false,
            deadline: None,
        }
    }

    /// The dialog of a call of ours that was answered and acknowledged.
    pub(super) fn confirmed(peer: Arc<Peer>, contact: String, ack: Sent) -> Self {
        Self {
            peer,
            contact,
            phase: Phase::Confirmed,
            pending: None,
            ack_due: None,
            unacknowledged: None,
            merge_name: None,
            terms: None,
            ack: Some(ack),
            offered: false,
            deadline: None,
        }
    }

    /// The ACK of the 2xx that is ours to repeat is due.
    pub(super) fn awaits_ack(&self) -> bool {
        self.unacknowledged.is_some()
    }

    fn is_hung_up_unacknowledged(&self) -> bool {
        matches!(self.phase, Phase::Answered { hang_up: Some(_) })
    }
}

/// All calls.
#[derive(Default)]
pub(super) struct Table {
    /// Boxed, as a table that grows moves what is in it.
    dialogs: HashMap<CallId, Box<Dialog>>,
    /// INVITEs that are not finished, by what those have in common that came along two paths
    /// (RFC 3261 section 8.2.2.2).
    merging: HashSet<RequestName>,
    pub(super) repeats: Repeats,
    pub(super) shed: Shed,
    /// When a 2xx is to be repeated; some have their ACK meanwhile.
    unacknowledged: BinaryHeap<Reverse<(Instant, CallId)>>,
    deadlines: BTreeSet<(Instant, CallId)>,
    /// INVITEs in the order they came, until it is time to tell the caller that it takes longer.
    unanswered: VecDeque<(Instant, CallId)>,
    last_number: u64,
    pub(super) subscriptions: SubscriptionTable,
    /// Calls of ours that are unanswered.
    pub(super) dials: HashMap<CallId, Dial>,
}

impl Table {
    /// `t4` is how long a message may be on its way (RFC 3261 section 17.1.2.2).
    pub(super) fn new(t4: Duration) -> Self {
        Self { shed: Shed::new(t4), ..Self::default() }
    }

    /// Names the next call or subscription; the tag of a dialog leads to the one that began it.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn len(&self) -> usize {
        self.dialogs.len()
    }

    /// INVITEs that began a call and have no answer or no ACK yet.
    pub(super) fn open(&self) -> usize {
        self.merging.len()
    }

    pub(super) fn is_merged(&self, name: RequestName) -> bool {
        self.merging.contains(&name)
    }

    pub(super) fn insert(&mut self, call: CallId, dialog: Dialog) {
        if dialog.phase == Phase::Early {
            self.merging.extend(dialog.merge_name);
            self.unanswered.push_back((Instant::now() + RINGING_AFTER, call));
        }
        let before = self.dialogs.insert(call, Box::new(dialog));
        assert!(before.is_none(), "a call id is given once");
    }

    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut Dialog> {
        self.dialogs.get_mut(&call).map(Box::as_mut)
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<Dialog> {
        let dialog = *self.dialogs.remove(&call)?;
        if let Some((at, _)) = dialog.deadline {
            self.deadlines.remove(&(at, call));
        }
        // The same INVITE again is not a merged one any more.
        if let Some(name) = dialog.merge_name {
            self.merging.remove(&name);
        }
        Some(dialog)
    }

    /// Whether a call that was hung up waits for its ACK.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.dialogs.values().any(|dialog| dialog.is_hung_up_unacknowledged())
    }

    /// Takes those calls out, each with the reason it was hung up for.
    pub(super) fn take_unacknowledged(&mut self) -> Vec<(Dialog, String)> {
        let calls = self.dialogs.iter().filter(|(_, dialog)| dialog.is_hung_up_unacknowledged());
        let calls: Vec<CallId> = calls.map(|(call, _)| *call).collect();
        let taken = calls.into_iter().filter_map(|call| self.remove(call));
        let with_reason = taken.filter_map(|mut dialog| match &mut dialog.phase {
            Phase::Answered { hang_up } => hang_up.take().map(|reason| (dialog, reason)),
            Phase::Early | Phase::Confirmed => None,
        });
        with_reason.collect()
    }

    /// The 2xx to the INVITE that began a call went out.
    pub(super) fn await_ack(&mut self, call: CallId, sent: Unacknowledged, now: Instant) {
        if let Some(dialog) = self.dialogs.get_mut(&call) {
            self.unacknowledged.push(Reverse((now + sent.interval, call)));
            dialog.unacknowledged = Some(Box::new(sent));
        }
    }

    /// The ACK has come, if it is this one.
    pub(super) fn acknowledge(&mut self, call: CallId, cseq: u32) -> Option<&mut Dialog> {
        let dialog = self.dialogs.get_mut(&call).filter(|it| it.ack_due == Some(cseq))?;
        dialog.ack_due = None;
        dialog.unacknowledged = None;
        if let Some(name) = dialog.merge_name.take() {
            self.merging.remove(&name);
        }
        Some(dialog)
    }

    /// The next 2xx that is to be repeated.
    pub(super) fn pop_unacknowledged(&mut self, now: Instant, interval_max: Duration) -> Overdue {
        while let Some(Reverse((at, call))) = self.unacknowledged.peek().copied() {
            if at > now {
                return Overdue::None;
            }
            self.unacknowledged.pop();
            let dialog = self.dialogs.get_mut(&call);
            let Some(sent) = dialog.and_then(|dialog| dialog.unacknowledged.as_mut()) else {
                continue;
            };
            if now >= sent.until {
                return Overdue::GiveUp(call);
            }
            sent.interval = (sent.interval * 2).min(interval_max);
            let next = (now + sent.interval).min(sent.until);
            self.unacknowledged.push(Reverse((next, call)));
            return Overdue::Repeat(sent.way.clone(), sent.response.clone());
        }
        Overdue::None
    }

    /// The same for a message of which only the bytes are known.
    pub(super) fn find_within(&self, within: &Within<'_>) -> Option<CallId> {
        let number = within.local_tag.split(|&byte| byte == b'-').next()?;
        let number = std::str::from_utf8(number).ok()?;
        let call = CallId(u64::from_str_radix(number, 16).ok()?);
        self.dialogs.get(&call).is_some_and(|dialog| within.is_of(&dialog.peer)).then_some(call)
    }

    /// The call an in-dialog request belongs to. Our tags begin with the call's number.
    pub(super) fn find(&self, request: &Request) -> Option<CallId> {
        let call = CallId(dialog_number(request)?);
        self.dialogs.get(&call).is_some_and(|dialog| dialog.peer.matches(request)).then_some(call)
    }

    /// The next INVITE that is unanswered for [`RINGING_AFTER`]; each comes up once.
    pub(super) fn pop_ringing(&mut self, now: Instant) -> Option<&mut Dialog> {
        while let Some((at, call)) = self.unanswered.front().copied() {
            if at > now {
                return None;
            }
            self.unanswered.pop_front();
            // Looked up twice: a borrow that may be returned would last over the loop.
            if self.dialogs.get(&call).is_some_and(|dialog| dialog.phase == Phase::Early) {
                return self.get_mut(call);
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

/// Our tags begin with the number of what began the dialog.
pub(super) fn dialog_number(request: &Request) -> Option<u64> {
    let tag = request.to_header().ok()?.tag().ok()??;
    u64::from_str_radix(tag.value().split('-').next()?, 16).ok()
}

/// What is to be done about a missing ACK.
pub(super) enum Overdue {
    None,
    Repeat(Way, Vec<u8>),
    GiveUp(CallId),
}

/// What says which dialog a request is within (RFC 3261 section 12), as it lies in its bytes.
#[derive(Hash)]
pub(super) struct Within<'a> {
    call_id: &'a [u8],
    local_tag: &'a [u8],
    remote_tag: &'a [u8],
    pub(super) cseq: u32,
}

impl<'a> Within<'a> {
    /// `None` where the request is within no dialog.
    pub(super) fn of(request: &Message<'a>) -> Option<Self> {
        Some(Self {
            call_id: request.first(Name::CallId)?,
            local_tag: wire::tag(request.first(Name::To)?)?,
            remote_tag: wire::tag(request.first(Name::From)?)?,
            cseq: wire::cseq(request.first(Name::CSeq)?)?,
        })
    }

    fn is_of(&self, peer: &Peer) -> bool {
        self.call_id == peer.call_id.as_bytes()
            && self.local_tag == peer.local_tag.as_bytes()
            && self.remote_tag == peer.remote_tag.as_bytes()
    }
}

//= RFC 3261 section 17.2.1: The server transaction MUST generate a 100 (Trying) response unless it
//= knows that the TU will generate a provisional or final response within 200 ms
/// An answer that takes longer is announced with 180. The table is looked at every 100 ms, so that this
/// keeps within those 200 ms and no 100 is needed.
const RINGING_AFTER: Duration = Duration::from_millis(100);
