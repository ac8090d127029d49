//! What has happened, counted.

use std::collections::BTreeMap;

use mrfp_core::mp::{ReleaseCause, TerminationStatistics};

use super::conference_state::Disconnection;

/// Totals since the start.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MrfcCounters {
    /// INVITEs.
    pub calls_invited: u64,
    /// INVITEs answered 200.
    pub calls_accepted: u64,
    /// INVITEs refused, by status.
    pub calls_refused: BTreeMap<u16, u64>,
    /// Calls whose caller gave up before the answer.
    pub calls_abandoned: u64,
    /// Answered calls that their party ended.
    pub calls_ended: u64,
    /// Answered calls that this node ended, by cause.
    pub calls_hung_up: BTreeMap<HangUpCause, u64>,
    /// re-INVITEs answered 200.
    pub reinvites_accepted: u64,
    /// re-INVITEs refused, by status.
    pub reinvites_refused: BTreeMap<u16, u64>,
    /// New keys that peers have agreed on with us.
    pub rekeyings_taken: u64,
    /// New keys that we have offered.
    pub rekeyings_offered: u64,
    /// The same that came to nothing before a connection was to be made, by status.
    pub rekeyings_refused: BTreeMap<u16, u64>,
    /// Calls that MIKEY has failed, by what was wrong.
    pub mikey_failures: BTreeMap<String, u64>,
    /// Calls that failed because the KMS did not answer.
    pub kms_timeouts: u64,
    /// Commands a shard did not answer in time.
    pub shard_timeouts: u64,
    /// Calls that the focus made.
    pub calls_dialled: u64,
    /// The same that led to nothing, by status.
    pub dials_failed: BTreeMap<u16, u64>,
    /// REFERs answered 202.
    pub refers_accepted: u64,
    /// REFERs refused, by status.
    pub refers_refused: BTreeMap<u16, u64>,
    /// SUBSCRIBEs that began a subscription to a conference.
    pub subscriptions_accepted: u64,
    /// The same refused, by status.
    pub subscriptions_refused: BTreeMap<u16, u64>,
    /// Notifications with the whole state of a conference.
    pub notifications_full: u64,
    /// Notifications of changes.
    pub notifications_partial: u64,
    /// Notifications that were refused or not answered.
    pub notifications_failed: u64,
    /// Floor streams that shards have taken.
    pub floor_streams_reserved: u64,
    /// The same that calls went on without.
    pub floor_streams_refused: u64,
    /// Floor streams whose connection did not come up or was lost, by cause; their calls go on.
    pub floor_streams_lost: BTreeMap<ReleaseCause, u64>,
    /// Terminations a shard gave back.
    pub terminations_subtracted: u64,
    /// What those carried.
    pub carried: TerminationStatistics,
}

/// Why this node hung up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HangUpCause {
    /// The media plane lost or dropped the connection.
    Bearer(ReleaseCause),
    /// The shard stopped or does not answer.
    ShardLost,
    /// The answer to our offer leads to no session.
    AnswerUnusable,
    /// The key management in the answer to our offer yields no key.
    KeyManagement,
    /// Somebody else answered than was called.
    UnexpectedResponder,
    /// Whom we called did not answer in time.
    Unanswered,
    /// The operator, or a member by REFER, threw the party out.
    Kicked,
    /// The operator stops the node.
    Shutdown,
}

impl HangUpCause {
    /// Value of a Reason header (RFC 3326); the cause values are those of Q.850.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Bearer(ReleaseCause::TcpEstablishmentFailure) => {
                "Q.850;cause=41;text=\"no MSRP connection\""
            }
            Self::Bearer(ReleaseCause::TlsEstablishmentFailure) => {
                "Q.850;cause=41;text=\"TLS handshake failed\""
            }
            Self::Bearer(ReleaseCause::PeerNotAuthenticated) => {
                "Q.850;cause=41;text=\"peer not authenticated\""
            }
            Self::Bearer(ReleaseCause::PeerClosed) => {
                "Q.850;cause=16;text=\"MSRP connection closed\""
            }
            Self::Bearer(ReleaseCause::ConnectionLost) => "Q.850;cause=41;text=\"media lost\"",
            Self::Bearer(ReleaseCause::ProtocolViolation) => {
                "Q.850;cause=111;text=\"protocol violation\""
            }
            Self::Bearer(ReleaseCause::TooSlow) => "Q.850;cause=42;text=\"receiver too slow\"",
            Self::Bearer(ReleaseCause::Idle) => "Q.850;cause=102;text=\"media idle\"",
            Self::ShardLost => "Q.850;cause=38;text=\"media plane lost\"",
            Self::AnswerUnusable => "SIP;cause=488;text=\"answer not acceptable\"",
            Self::KeyManagement => "SIP;cause=488;text=\"key management failed\"",
            Self::UnexpectedResponder => "SIP;cause=403;text=\"another user answered\"",
            Self::Unanswered => "SIP;cause=408;text=\"no answer\"",
            Self::Kicked => "SIP;cause=403;text=\"thrown out\"",
            Self::Shutdown => "SIP;cause=503;text=\"shutting down\"",
        }
    }
}

impl HangUpCause {
    /// How the others are told that the party went.
    pub(super) fn disconnection(self) -> Disconnection {
        match self {
            Self::Bearer(ReleaseCause::TooSlow) | Self::Kicked | Self::Shutdown => {
                Disconnection::Booted
            }
            Self::Bearer(ReleaseCause::PeerClosed) => Disconnection::Departed,
            Self::Bearer(
                ReleaseCause::TcpEstablishmentFailure
                | ReleaseCause::TlsEstablishmentFailure
                | ReleaseCause::PeerNotAuthenticated
                | ReleaseCause::ConnectionLost
                | ReleaseCause::ProtocolViolation
                | ReleaseCause::Idle,
            )
            | Self::AnswerUnusable
            | Self::KeyManagement
            | Self::UnexpectedResponder
            | Self::Unanswered
            | Self::ShardLost => Disconnection::Failed,
        }
    }
}

impl MrfcCounters {
    pub(super) fn subtracted(&mut self, statistics: TerminationStatistics) {
        self.terminations_subtracted += 1;
        self.carried.messages_received += statistics.messages_received;
        self.carried.messages_sent += statistics.messages_sent;
        self.carried.bytes_received += statistics.bytes_received;
        self.carried.bytes_sent += statistics.bytes_sent;
    }
}

/// One more of a kind.
pub(super) fn count<K: Ord>(counters: &mut BTreeMap<K, u64>, key: K) {
    *counters.entry(key).or_insert(0) += 1;
}
