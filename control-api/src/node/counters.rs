//! The control plane's counters as metric families.

use std::collections::BTreeMap;
use std::time::Duration;

use mrfp_core::metrics::MetricKind;
use mrfp_core::mp::ReleaseCause;

use crate::http::{Family, Sample};
use crate::mrfc::{HangUpCause, Mrfc, MrfcCounters};
use crate::sip::SipMetrics;

/// Everything the MRFC, the SIP front and the control loop count.
pub(super) fn families(
    mrfc: &Mrfc,
    sip: &SipMetrics,
    sip_queue_delay: Duration,
    deferred_commands: u64,
) -> Vec<Family> {
    let mut families = vec![
        gauge("calls", "Calls in progress, the unanswered ones included", mrfc.calls() as u64),
        gauge("rooms", "Rooms somebody is in", mrfc.rooms_count() as u64),
        gauge(
            "subscriptions",
            "Subscriptions to the conference event package",
            mrfc.subscriptions() as u64,
        ),
        gauge(
            "commands_deferred",
            "Commands that wait because a shard's queue is full",
            deferred_commands,
        ),
        gauge(
            "sip_queue_delay_microseconds",
            "How long SIP messages wait until they are taken",
            u64::try_from(sip_queue_delay.as_micros()).unwrap_or(u64::MAX),
        ),
    ];
    families.extend(mrfc_families(mrfc.counters()));
    families.extend(sip_families(sip));
    families
}

fn mrfc_families(counters: &MrfcCounters) -> Vec<Family> {
    let hung_up: BTreeMap<_, _> =
        counters.calls_hung_up.iter().map(|(cause, count)| (cause_name(*cause), *count)).collect();
    let floor_streams_lost: BTreeMap<_, _> =
        counters.floor_streams_lost.iter().map(|(cause, n)| (release_name(*cause), *n)).collect();
    let carried = &counters.carried;
    vec![
        counter("calls_invited", "INVITEs", counters.calls_invited),
        counter("calls_accepted", "INVITEs answered 200", counters.calls_accepted),
        labelled("calls_refused", "INVITEs refused", "status", &counters.calls_refused),
        counter(
            "calls_abandoned",
            "Calls whose caller gave up before the answer",
            counters.calls_abandoned,
        ),
        counter("calls_ended", "Answered calls their party ended", counters.calls_ended),
        labelled("calls_hung_up", "Answered calls the node ended", "cause", &hung_up),
        counter("reinvites_accepted", "re-INVITEs answered 200", counters.reinvites_accepted),
        labelled("reinvites_refused", "re-INVITEs refused", "status", &counters.reinvites_refused),
        counter(
            "rekeyings_taken",
            "New keys agreed on by offers of peers",
            counters.rekeyings_taken,
        ),
        counter("rekeyings_offered", "New keys offered to peers", counters.rekeyings_offered),
        labelled(
            "rekeyings_refused",
            "New keys offered to peers that were refused",
            "status",
            &counters.rekeyings_refused,
        ),
        labelled(
            "mikey_failures",
            "Calls that MIKEY has failed",
            "reason",
            &counters.mikey_failures,
        ),
        counter("kms_timeouts", "Calls that failed for want of the KMS", counters.kms_timeouts),
        counter(
            "shard_timeouts",
            "Commands a shard did not answer in time",
            counters.shard_timeouts,
        ),
        counter("calls_dialled", "Calls of the focus", counters.calls_dialled),
        labelled(
            "dials_failed",
            "Calls of the focus that failed",
            "status",
            &counters.dials_failed,
        ),
        counter("refers_accepted", "REFERs answered 202", counters.refers_accepted),
        labelled("refers_refused", "REFERs refused", "status", &counters.refers_refused),
        counter(
            "subscriptions_accepted",
            "Subscriptions to conferences begun",
            counters.subscriptions_accepted,
        ),
        labelled(
            "subscriptions_refused",
            "Subscriptions to conferences refused",
            "status",
            &counters.subscriptions_refused,
        ),
        counter(
            "notifications_full",
            "Notifications of the whole state of a conference",
            counters.notifications_full,
        ),
        counter(
            "notifications_partial",
            "Notifications of changes in a conference",
            counters.notifications_partial,
        ),
        counter(
            "notifications_failed",
            "Notifications refused or not answered",
            counters.notifications_failed,
        ),
        counter(
            "floor_streams_reserved",
            "BFCP streams that shards have taken",
            counters.floor_streams_reserved,
        ),
        counter(
            "floor_streams_refused",
            "BFCP streams that calls went on without",
            counters.floor_streams_refused,
        ),
        labelled(
            "floor_streams_lost",
            "BFCP streams that did not come up or were lost; their calls go on",
            "cause",
            &floor_streams_lost,
        ),
        counter(
            "terminations_subtracted",
            "Terminations given back",
            counters.terminations_subtracted,
        ),
        counter(
            "carried_messages_received",
            "SEND requests received by Terminations given back",
            carried.messages_received,
        ),
        counter(
            "carried_messages_sent",
            "SEND requests sent by Terminations given back",
            carried.messages_sent,
        ),
        counter(
            "carried_bytes_received",
            "Body bytes received by Terminations given back",
            carried.bytes_received,
        ),
        counter(
            "carried_bytes_sent",
            "Body bytes sent by Terminations given back",
            carried.bytes_sent,
        ),
    ]
}

fn sip_families(sip: &SipMetrics) -> Vec<Family> {
    let answers = BTreeMap::from([
        ("2xx", sip.answers_2xx.get()),
        ("4xx", sip.answers_4xx.get()),
        ("5xx", sip.answers_5xx.get()),
        ("other", sip.answers_other.get()),
    ]);
    let refused = BTreeMap::from([
        ("malformed", sip.gate_malformed.get()),
        ("method", sip.gate_method.get()),
        ("content", sip.gate_content.get()),
        ("scheme", sip.gate_scheme.get()),
        ("extension", sip.gate_extension.get()),
        ("version", sip.gate_version.get()),
        ("stack", sip.stack_refused.get()),
    ]);
    let dropped = BTreeMap::from([
        ("malformed", sip.dropped_malformed.get()),
        ("unanswerable", sip.dropped_unanswerable.get()),
    ]);
    vec![
        counter("sip_messages", "SIP messages received", sip.messages.get()),
        counter("sip_invites", "INVITEs that reached the MRFC", sip.invites.get()),
        counter("sip_ringing", "180 sent because the answer took its time", sip.ringing.get()),
        counter("sip_reinvites", "New offers in a dialog", sip.reinvites.get()),
        counter(
            "sip_reinvites_sent",
            "New offers of the node in a dialog",
            sip.reinvites_sent.get(),
        ),
        labelled("sip_answers", "Final answers to INVITE and UPDATE", "class", &answers),
        labelled("sip_refused", "Requests the validity gate refused", "reason", &refused),
        labelled("sip_dropped", "Messages dropped without an answer", "reason", &dropped),
        counter("sip_invites_sent", "Calls of the node", sip.dials.get()),
        counter("sip_subscribes_accepted", "SUBSCRIBE answered 2xx", sip.subscribes_accepted.get()),
        counter(
            "sip_subscribes_refused",
            "SUBSCRIBE answered otherwise",
            sip.subscribes_refused.get(),
        ),
        counter("sip_notifies_sent", "NOTIFY sent", sip.notifies_sent.get()),
        counter("sip_notifies_failed", "NOTIFY refused or not answered", sip.notifies_failed.get()),
        counter("sip_byes_received", "BYE received", sip.byes_received.get()),
        counter("sip_byes_sent", "BYE sent", sip.byes_sent.get()),
        counter("sip_cancels", "CANCEL that ended a call", sip.cancels.get()),
        counter("sip_acks_missing", "2xx never acknowledged", sip.acks_missing.get()),
        counter("sip_sessions_expired", "Sessions not refreshed", sip.sessions_expired.get()),
        counter("sip_overloads", "Requests shed with 503", sip.overloads.get()),
        counter(
            "sip_invites_shed",
            "New INVITEs refused because they had waited too long",
            sip.invites_shed.get(),
        ),
        counter(
            "sip_datagrams_dropped",
            "Datagrams the kernel dropped because the socket's buffer was full",
            sip.datagrams_dropped.get(),
        ),
        counter(
            "sip_connections_refused",
            "TCP connections refused over the limit",
            sip.connections_refused.get(),
        ),
        counter(
            "sip_connections_closed",
            "TCP connections closed for framing, slowness or idleness",
            sip.connections_closed.get(),
        ),
        gauge("sip_connections", "Open TCP connections", positive(sip.connections_active.get())),
        gauge("sip_dialogs", "SIP dialogs", positive(sip.dialogs_active.get())),
    ]
}

pub(super) fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::single(name, help, MetricKind::Counter, value)
}

pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::single(name, help, MetricKind::Gauge, value)
}

fn labelled<K: ToString>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: &BTreeMap<K, u64>,
) -> Family {
    let sample =
        |(key, value): (&K, &u64)| Sample { labels: vec![(label, key.to_string())], value: *value };
    Family { name, help, kind: MetricKind::Counter, samples: values.iter().map(sample).collect() }
}

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn cause_name(cause: HangUpCause) -> &'static str {
    match cause {
        HangUpCause::Bearer(cause) => release_name(cause),
        HangUpCause::ShardLost => "shard-lost",
        HangUpCause::AnswerUnusable => "answer-unusable",
        HangUpCause::KeyManagement => "key-management",
        HangUpCause::UnexpectedResponder => "unexpected-responder",
        HangUpCause::Unanswered => "unanswered",
        HangUpCause::Kicked => "kicked",
        HangUpCause::Shutdown => "shutdown",
    }
}

fn release_name(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::TcpEstablishmentFailure => "tcp-establishment-failure",
        ReleaseCause::TlsEstablishmentFailure => "tls-establishment-failure",
        ReleaseCause::PeerNotAuthenticated => "peer-not-authenticated",
        ReleaseCause::PeerClosed => "peer-closed",
        ReleaseCause::ConnectionLost => "connection-lost",
        ReleaseCause::ProtocolViolation => "protocol-violation",
        ReleaseCause::TooSlow => "too-slow",
        ReleaseCause::Idle => "idle",
    }
}
