//! The dialog table: what is known of each call between its INVITE and its end.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rsipstack::sip::{HeadersExt, Method, Request, Response};
use rsipstack::transaction::transaction::TransactionEventSender;
use tokio::time::Instant;

use super::dialing::{Dial, Sent};
use super::peer::Peer;
use super::session::{Refresher, Terms};
use super::subscriptions::SubscriptionTable;
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
    /// The dialog of an INVITE; no deadline runs for it yet.
    pub(super) fn new(peer: Arc<Peer>, contact: String, pending: Pending) -> Self {
        Self {
            peer,
            contact,
            phase: Phase::Early,
            pending: Some(pending),
            ack_due: None,
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
            terms: None,
            ack: Some(ack),
            offered: false,
            deadline: None,
        }
    }

    fn is_unacknowledged(&self) -> bool {
        matches!(self.phase, Phase::Answered { hang_up: Some(_) })
    }
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
    last_number: u64,
    pub(super) subscriptions: SubscriptionTable,
    /// Calls of ours that are unanswered.
    pub(super) dials: HashMap<CallId, Dial>,
}

/// What an INVITE that came along two paths has in common with itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct MergeKey {
    pub(super) call_id: String,
    pub(super) remote_tag: String,
    pub(super) cseq: u32,
}

impl Table {
    /// Names the next call or subscription; the tag of a dialog leads to the one that began it.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn len(&self) -> usize {
        self.dialogs.len()
    }

    pub(super) fn is_merged(&self, key: &MergeKey) -> bool {
        self.merging.contains_key(key)
    }

    pub(super) fn insert(&mut self, call: CallId, dialog: Dialog) {
        if dialog.phase == Phase::Early {
            self.merging.insert(merge_key(&dialog.peer), call);
            self.unanswered.push_back((Instant::now() + RINGING_AFTER, call));
        }
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
        let call = CallId(dialog_number(request)?);
        self.dialogs.get(&call).is_some_and(|dialog| dialog.peer.matches(request)).then_some(call)
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

/// Our tags begin with the number of what began the dialog.
pub(super) fn dialog_number(request: &Request) -> Option<u64> {
    let tag = request.to_header().ok()?.tag().ok()??;
    u64::from_str_radix(tag.value().split('-').next()?, 16).ok()
}

/// An answer that takes longer is announced with 180: RFC 3261 section 17.2.1 gives the transaction
/// layer 200 ms for the 100, so a caller that has heard nothing else by then wonders.
const RINGING_AFTER: Duration = Duration::from_millis(200);

fn merge_key(peer: &Peer) -> MergeKey {
    MergeKey {
        call_id: peer.call_id.clone(),
        remote_tag: peer.remote_tag.clone(),
        cseq: peer.remote_cseq.load(Ordering::Relaxed),
    }
}
