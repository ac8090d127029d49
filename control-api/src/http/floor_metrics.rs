//! Floor control in `/metrics`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use mrfp_core::floor::{FloorCounters, WAIT_BOUNDS_NS};
use mrfp_core::metrics::{MetricKind, PublishedMetrics};
use mrfp_core::mp::ShardId;
use mrfp_protocol::bfcp::{ErrorCode, Primitive};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::{Family, Sample};

/// What the floor control servers of all shards have counted. Kinds of messages and errors are many:
/// they are not told by shard.
pub(super) fn total(shards: &[(ShardId, Arc<PublishedMetrics>)]) -> FloorCounters {
    let mut total = FloorCounters::default();
    for (_, metrics) in shards {
        let counters = metrics.floor_control();
        add(&mut total.received, &counters.received);
        add(&mut total.sent, &counters.sent);
        add(&mut total.errors, &counters.errors);
        add(&mut total.waits, &counters.waits);
        total.waits_sum_ns += counters.waits_sum_ns;
        total.retransmissions += counters.retransmissions;
    }
    total
}

fn add(total: &mut [u64], counters: &[u64]) {
    for (total, count) in total.iter_mut().zip(counters) {
        *total += count;
    }
}

pub(super) fn families(counters: &FloorCounters) -> Vec<Family> {
    let family = |name, help, samples| Family { name, help, kind: MetricKind::Counter, samples };
    let directions = [("received", &counters.received), ("sent", &counters.sent)];
    let messages = directions.iter().flat_map(|(direction, counts)| {
        let sample = |(code, value): (u8, &u64)| {
            let name = Primitive::from_code(code).map_or("unknown", Primitive::name);
            let labels =
                vec![("direction", (*direction).to_owned()), ("primitive", name.to_owned())];
            Sample { labels, value: *value }
        };
        (0..).zip(counts.iter()).map(sample)
    });
    let errors = ErrorCode::ALL.iter().map(|code| Sample {
        labels: vec![("code", code.code().to_string())],
        value: counters.errors[usize::from(code.code())],
    });
    vec![
        family("bfcp_messages", "BFCP messages by direction and primitive", messages.collect()),
        family("bfcp_errors", "BFCP errors sent, by code", errors.collect()),
        Family::single(
            "bfcp_retransmissions",
            "BFCP datagrams repeated since nobody acknowledged them",
            MetricKind::Counter,
            counters.retransmissions,
        ),
    ]
}

/// How long requests waited for their floors.
pub(super) fn encode_waits(
    counters: &FloorCounters,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let bounds = WAIT_BOUNDS_NS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(counters.waits).collect();
    let no_exemplars: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
    encoder
        .encode_descriptor(
            "mrf_floor_wait_seconds",
            "From a floor request to its grant",
            None,
            MetricType::Histogram,
        )?
        .encode_histogram(
            seconds(counters.waits_sum_ns),
            counters.waits.iter().sum(),
            &buckets,
            no_exemplars,
        )
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Snapshot;
    use super::*;

    #[test]
    fn a_counter_is_told_under_its_name_and_a_wait_in_its_bucket_and_those_above() {
        let mut counters = FloorCounters::default();
        counters.received[usize::from(Primitive::FloorRequest.code())] = 3;
        counters.sent[usize::from(Primitive::FloorRequestStatus.code())] = 5;
        counters.received[0] = 1;
        counters.errors[usize::from(ErrorCode::InvalidFloorId.code())] = 2;
        // One up to a millisecond, two up to five seconds, one beyond them all.
        (counters.waits[0], counters.waits[4]) = (1, 2);
        counters.waits[WAIT_BOUNDS_NS.len()] = 1;
        counters.waits_sum_ns = 406_500_000_000;
        counters.retransmissions = 7;
        let snapshot = Snapshot {
            shards: families(&counters),
            control: Vec::new(),
            floor_control: Some(counters),
            process: None,
            start_time_seconds: 0.0,
        };
        let text = snapshot.into_text().expect("written");
        for expected in [
            "mrf_bfcp_messages_total{direction=\"received\",primitive=\"FloorRequest\"} 3\n",
            "mrf_bfcp_messages_total{direction=\"received\",primitive=\"unknown\"} 1\n",
            "mrf_bfcp_messages_total{direction=\"sent\",primitive=\"FloorRequestStatus\"} 5\n",
            "mrf_bfcp_errors_total{code=\"6\"} 2\n",
            "mrf_bfcp_retransmissions_total 7\n",
            "mrf_floor_wait_seconds_sum 406.5\n",
            "mrf_floor_wait_seconds_count 4\n",
            "mrf_floor_wait_seconds_bucket{le=\"0.001\"} 1\n",
            "mrf_floor_wait_seconds_bucket{le=\"1.0\"} 1\n",
            "mrf_floor_wait_seconds_bucket{le=\"5.0\"} 3\n",
            "mrf_floor_wait_seconds_bucket{le=\"300.0\"} 3\n",
            "mrf_floor_wait_seconds_bucket{le=\"+Inf\"} 4\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing from:\n{text}");
        }
    }
}
