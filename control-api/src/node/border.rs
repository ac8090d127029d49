//! The border beside the conferences: its media logic and the B2BUA in front of it, on the same shards.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mrfp_core::metrics::MetricKind;
use mrfp_core::mp::{Command, Event as MpEvent, ShardId};
use tokio::sync::mpsc;

use super::counters::{counter, gauge};
use crate::border::b2bua::{Addresses, B2buaHandle, Transport};
use crate::border::{
    Action, Border, CallState, CallView, Event, PointState, PointView, SideRole, StreamView,
    release_name,
};
use crate::http::{
    BorderCallDetail, BorderDetail, BorderPointDetail, BorderStreamDetail, Family, NextHopDetail,
    Sample,
};
use crate::random;

/// The border of a node.
pub(super) struct BorderFront {
    border: Border,
    b2bua: B2buaHandle,
    events: mpsc::Receiver<Event>,
    sides: [SideRole; 2],
    drained: bool,
}

impl BorderFront {
    pub(super) fn new(
        border: Border,
        b2bua: B2buaHandle,
        events: mpsc::Receiver<Event>,
        sides: [SideRole; 2],
    ) -> Self {
        Self { border, b2bua, events, sides, drained: false }
    }

    /// Where the sides listen.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (SideRole, Addresses)> {
        self.sides.iter().filter_map(|side| Some((*side, self.b2bua.addresses(*side)?)))
    }

    /// What the B2BUA has to tell.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same where something waits.
    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    pub(super) fn handle(
        &mut self,
        now_ns: u64,
        event: Event,
        command: impl FnMut(ShardId, Command),
    ) {
        self.border.handle(now_ns, &mut random::fill, event);
        self.act(command);
    }

    pub(super) fn handle_timeout(&mut self, now_ns: u64, command: impl FnMut(ShardId, Command)) {
        self.border.handle_timeout(now_ns, &mut random::fill);
        self.act(command);
    }

    fn act(&mut self, mut command: impl FnMut(ShardId, Command)) {
        while let Some(action) = self.border.poll_action() {
            match self.b2bua.act(action) {
                Some(Action::Command { shard, command: what }) => command(shard, what),
                Some(Action::Drained) => self.drained = true,
                Some(action) => unreachable!("{action:?} is for the B2BUA"),
                None => {}
            }
        }
    }

    pub(super) fn timeout_ns(&self) -> Option<u64> {
        self.border.poll_timeout()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    pub(super) fn calls(&self) -> usize {
        self.border.calls()
    }

    pub(super) async fn shutdown(self) {
        self.b2bua.shutdown().await;
    }

    pub(super) fn detail(&self) -> BorderDetail {
        BorderDetail {
            calls: self.border.views().take(CALLS_SHOWN_MAX).map(call_detail).collect(),
            next_hops: self.sides.iter().flat_map(|side| self.next_hops(*side)).collect(),
            registrations: self.b2bua.registrations(),
        }
    }

    fn next_hops(&self, side: SideRole) -> impl Iterator<Item = NextHopDetail> {
        self.b2bua.next_hops(side).into_iter().map(move |state| NextHopDetail {
            side: side.name(),
            address: state.next_hop.address,
            transport: match state.next_hop.transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            },
            alive: state.alive,
            failures: state.failures,
        })
    }

    /// What the border and its B2BUA count.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut families = self.media_families();
        families.extend(self.signalling_families());
        families
    }

    fn media_families(&self) -> Vec<Family> {
        let counters = self.border.counters();
        let of_side = |values: &BTreeMap<SideRole, u64>| {
            values.iter().map(|(side, value)| sample([("side", side.name())], *value)).collect()
        };
        let named = |label, values: &BTreeMap<&'static str, u64>| {
            values.iter().map(|(name, value)| sample([(label, *name)], *value)).collect()
        };
        let refused = counters.refused.iter();
        let refused =
            refused.map(|(status, value)| sample([("status", status.to_string())], *value));
        let established = counters.bearers_established.iter().map(|((side, profile), value)| {
            sample([("side", side.name()), ("profile", profile)], *value)
        });
        let released = counters.bearers_released.iter().map(|((side, profile, cause), value)| {
            let cause = release_name(*cause);
            sample([("side", side.name()), ("profile", profile), ("cause", cause)], *value)
        });
        let carried = counters.carried.iter();
        let received = carried.clone().map(|(side, it)| (side, it.bytes_received));
        let sent = carried.map(|(side, it)| (side, it.bytes_sent));
        let bytes = |values: &mut dyn Iterator<Item = (&SideRole, u64)>| {
            values.map(|(side, value)| sample([("side", side.name())], value)).collect()
        };
        vec![
            gauge(
                "border_calls",
                "Calls through the border, the unanswered ones included",
                self.border.calls() as u64,
            ),
            gauge(
                "border_connection_points",
                "Connection points of the border on the shards",
                self.border.terminations() as u64,
            ),
            counters_of(
                "border_calls_begun",
                "Calls through the border, by the side they came from",
                of_side(&counters.calls),
            ),
            counter("border_calls_ended", "The same that ended", counters.calls_ended),
            counters_of(
                "border_calls_released",
                "The same that the border released",
                named("reason", &counters.calls_released),
            ),
            counters_of(
                "border_offers",
                "Offers that went on, by the side they came from",
                of_side(&counters.offers),
            ),
            counters_of(
                "border_answers",
                "Answers that went back, by the side they came from",
                of_side(&counters.answers),
            ),
            counters_of(
                "border_exchanges_refused",
                "Offers and answers that did not go on",
                refused.collect(),
            ),
            counter(
                "border_exchanges_withdrawn",
                "Offers refused by the other party or taken back",
                counters.withdrawn,
            ),
            counters_of(
                "border_streams",
                "Media streams begun, by how they are protected",
                named("profile", &counters.streams),
            ),
            counters_of(
                "border_bearers_established",
                "Bearers that came up",
                established.collect(),
            ),
            counters_of(
                "border_bearers_released",
                "Bearers that did not come up, were closed or lost",
                released.collect(),
            ),
            counters_of(
                "border_bytes_received",
                "Bytes of media from the parties of calls that are over",
                bytes(&mut received.into_iter()),
            ),
            counters_of(
                "border_bytes_sent",
                "Bytes of media to the parties of calls that are over",
                bytes(&mut sent.into_iter()),
            ),
            counter(
                "border_shard_timeouts",
                "Commands of the border a shard did not answer in time",
                counters.shard_timeouts,
            ),
        ]
    }

    fn signalling_families(&self) -> Vec<Family> {
        let metrics = self.b2bua.metrics();
        let next_hops = self.sides.iter().flat_map(|side| self.next_hops(*side)).map(|next_hop| {
            let address = next_hop.address.to_string();
            let labels = [("side", next_hop.side.to_owned()), ("address", address)];
            sample(labels, u64::from(next_hop.alive))
        });
        vec![
            gauge(
                "border_registrations",
                "Contacts of UEs that are registered through the border",
                self.b2bua.registrations() as u64,
            ),
            Family {
                name: "border_next_hop_up",
                help: "Whether a next hop answers",
                kind: MetricKind::Gauge,
                samples: next_hops.collect(),
            },
            counter("border_calls_answered", "Calls answered 2xx", metrics.calls_answered.get()),
            counter("border_calls_refused", "Calls refused", metrics.calls_refused.get()),
            counter(
                "border_calls_cancelled",
                "Calls their caller gave up",
                metrics.calls_cancelled.get(),
            ),
            counter(
                "border_sessions_expired",
                "Sessions not refreshed in time",
                metrics.sessions_expired.get(),
            ),
            counter(
                "border_acks_missing",
                "Answered calls never acknowledged",
                metrics.acks_missing.get(),
            ),
            counter("border_reroutes", "Calls that took another next hop", metrics.reroutes.get()),
            counter("border_registers", "REGISTERs passed on", metrics.registers.get()),
            counter(
                "border_requests_passed",
                "Requests outside of calls passed on",
                metrics.requests_passed.get(),
            ),
            counter("border_overloads", "Requests shed with 503", metrics.overloads.get()),
            counter("border_loops", "Requests that had been here before", metrics.loops.get()),
        ]
    }
}

/// Whether an event is the border's, and not of a conference.
pub(super) fn is_of_border(event: &MpEvent) -> bool {
    match event {
        MpEvent::ConnectionPointReserved { .. } => true,
        MpEvent::Refused { termination, .. }
        | MpEvent::Modified { termination }
        | MpEvent::Subtracted { termination, .. }
        | MpEvent::Bound { termination }
        | MpEvent::BearerReleased { termination, .. } => Border::owns(*termination),
        _ => false,
    }
}

fn call_detail(view: CallView) -> BorderCallDetail {
    BorderCallDetail {
        call: view.call.0,
        caller: view.caller.name(),
        callee: view.callee.name(),
        shard: view.shard.map(|shard| shard.0),
        state: match view.state {
            CallState::Begun => "begun",
            CallState::Agreed => "agreed",
            CallState::Recovering => "recovering",
            CallState::Releasing => "releasing",
        },
        streams: view.streams.into_iter().map(stream_detail).collect(),
    }
}

fn stream_detail((line, view): (usize, StreamView)) -> BorderStreamDetail {
    let [caller, callee] = view.points.map(point_detail);
    BorderStreamDetail { line, kind: view.kind, profile: view.profile, caller, callee }
}

fn point_detail(view: PointView) -> BorderPointDetail {
    BorderPointDetail {
        side: view.side.name(),
        address: view.address.map(|address: SocketAddr| address.to_string()),
        remote: view.remote.map(|address| address.to_string()),
        state: match view.state {
            PointState::Waiting => "waiting",
            PointState::Established => "established",
            PointState::Lost => "lost",
        },
    }
}

fn counters_of(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, kind: MetricKind::Counter, samples }
}

fn sample<const N: usize>(labels: [(&'static str, impl Into<String>); N], value: u64) -> Sample {
    Sample { labels: labels.into_iter().map(|(name, it)| (name, it.into())).collect(), value }
}

/// Calls in one answer of the API, so that a question never holds up calls for long.
const CALLS_SHOWN_MAX: usize = 10_000;
