//! `/metrics` in the OpenMetrics text format.

use std::fmt;
use std::sync::Arc;

use mrfp_core::floor::FloorCounters;
use mrfp_core::metrics::{MetricKind, PublishedMetrics, ShardMetrics};
use mrfp_core::mp::ShardId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::process::ProcessAccounts;
use super::{Family, Sample, floor_metrics};

/// Everything one scrape shows, read at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) shards: Vec<Family>,
    pub(super) control: Vec<Family>,
    pub(super) floor_control: Option<FloorCounters>,
    pub(super) process: Option<ProcessAccounts>,
    pub(super) start_time_seconds: f64,
}

/// The media type of what [`Snapshot::into_text`] returns.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Snapshot {
    /// The scrape's body.
    pub(super) fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// The shards' metrics, one sample per shard in every family.
pub(super) fn shard_families(shards: &[(ShardId, Arc<PublishedMetrics>)]) -> Vec<Family> {
    let read: Vec<_> =
        shards.iter().map(|(shard, metrics)| (shard.0, metrics.read().values())).collect();
    let family = |(index, &(name, help, kind)): (usize, &(&'static str, &'static str, _))| Family {
        name,
        help: help.trim(),
        kind,
        samples: read
            .iter()
            .map(|(shard, values)| Sample {
                labels: vec![("shard", shard.to_string())],
                value: values[index],
            })
            .collect(),
    };
    ShardMetrics::DESCRIPTIONS.iter().enumerate().map(family).collect()
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.shards.iter().chain(&self.control) {
            encode_family(&mut encoder, family)?;
        }
        if let Some(counters) = &self.floor_control {
            floor_metrics::encode_waits(counters, &mut encoder)?;
        }
        self.encode_process(&mut encoder)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder
            .encode_descriptor("mrf_build", "The program that runs", None, MetricType::Info)?
            .encode_info(&version)
    }
}

impl Snapshot {
    /// The names are the ones every process exports by convention, so that stock dashboards work.
    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor(
                "process_start_time_seconds",
                "When the node started, seconds since the epoch",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&self.start_time_seconds)?;
        let Some(process) = self.process else {
            return Ok(());
        };
        let mut cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system time of all threads",
            None,
            MetricType::Counter,
        )?;
        cpu.encode_counter::<NoLabelSet, f64, u64>(&process.cpu_seconds, None)?;
        encoder
            .encode_descriptor(
                "process_resident_memory_bytes",
                "Resident memory",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&process.resident_bytes)?;
        encoder
            .encode_descriptor("process_open_fds", "Descriptors in use", None, MetricType::Gauge)?
            .encode_gauge(&process.open_descriptors)
    }
}

fn encode_family(encoder: &mut DescriptorEncoder<'_>, family: &Family) -> fmt::Result {
    let name = format!("mrf_{}", family.name);
    let metric_type = match family.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(&name, family.help, None, metric_type)?;
    for Sample { labels, value } in &family.samples {
        if labels.is_empty() {
            encode_value(&mut metric, family.kind, *value)?;
        } else {
            encode_value(&mut metric.encode_family(labels)?, family.kind, *value)?;
        }
    }
    Ok(())
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: MetricKind, value: u64) -> fmt::Result {
    match kind {
        MetricKind::Counter => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        MetricKind::Gauge => metric.encode_gauge(&value),
    }
}
