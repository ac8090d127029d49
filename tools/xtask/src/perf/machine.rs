//! The machine, and which processors are whose.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::process::find;
use super::results::{Machine, RecordSpeed};

/// Processors of the node's side and of the generator's.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    /// The node and its peers: the first half of what this process may use.
    pub(crate) node: String,
    /// The generator, and the far ends it brings along.
    pub(crate) generator: String,
    /// Two for two shards: where there are but two processors one is shared with the generator.
    pub(crate) two_shards: String,
}

impl Processors {
    /// `None`: there is but one, and nothing could be told apart.
    pub(crate) fn of_this_process() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Self::split(&parse_list(list.trim())?)
    }

    fn split(processors: &[usize]) -> Option<Self> {
        if processors.len() < 2 {
            return None;
        }
        let (node, generator) = processors.split_at(processors.len() / 2);
        Some(Self {
            node: list(node),
            generator: list(generator),
            two_shards: list(&processors[..2]),
        })
    }
}

/// Looks around.
pub(crate) fn describe(processors: &Processors, records: Option<&Path>) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let about = read("/proc/cpuinfo");
    let model = about.lines().find_map(|line| line.strip_prefix("model name"));
    let memory = read("/proc/meminfo");
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let load = read("/proc/loadavg");
    Machine {
        processor_model: model
            .and_then(|line| line.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned()),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_mib: total
            .and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0)
            / 1024,
        node_processors: processors.node.clone(),
        generator_processors: processors.generator.clone(),
        load_average: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        aes_128_gcm_gbit_per_second: aes_speed(&processors.node),
        records: records.map_or(Vec::new(), |program| record_speed(&processors.node, program)),
    }
}

/// One core's AES-128-GCM over 16 KiB: the floor under everything that encrypts.
fn aes_speed(processors: &str) -> Option<f64> {
    let openssl = find("openssl")?;
    let arguments = ["speed", "-elapsed", "-mr", "-seconds", "1", "-bytes", "16384", "-evp"];
    let first = processors.split([',', '-']).next()?;
    let output = Command::new("taskset")
        .args(["-c", first])
        .arg(Path::new(&openssl))
        .args(arguments)
        .arg("aes-128-gcm")
        .output()
        .ok()?;
    parse_speed(&String::from_utf8_lossy(&output.stdout))
}

/// What our record layer makes of it.
fn record_speed(processors: &str, program: &Path) -> Vec<RecordSpeed> {
    let first = processors.split([',', '-']).next().unwrap_or_default();
    let output = Command::new("taskset").args(["-c", first]).arg(program).output();
    output.map_or(Vec::new(), |output| parse_records(&String::from_utf8_lossy(&output.stdout)))
}

/// `records BYTES NANOSECONDS`.
fn parse_records(output: &str) -> Vec<RecordSpeed> {
    let parse = |line: &str| {
        let (bytes, ns) = line.strip_prefix("records ")?.split_once(' ')?;
        let (bytes, ns): (u32, f64) = (bytes.parse().ok()?, ns.trim().parse().ok()?);
        let gbit_per_second = f64::from(bytes) * 8.0 / ns;
        Some(RecordSpeed { bytes, seal_and_open_ns: ns, gbit_per_second })
    };
    output.lines().filter_map(parse).collect()
}

/// `+F:22:AES-128-GCM:4123456789.01`, in bytes per second.
fn parse_speed(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.starts_with("+F:"))?;
    Some(line.rsplit(':').next()?.trim().parse::<f64>().ok()? * 8.0 / 1e9)
}

/// `0-2,5` as numbers.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut processors = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        processors.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(processors)
}

fn list(processors: &[usize]) -> String {
    processors.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_half_is_the_nodes() {
        let processors = Processors::split(&parse_list("0-3,8").unwrap()).unwrap();
        assert_eq!((processors.node.as_str(), processors.generator.as_str()), ("0,1", "2,3,8"));
        assert_eq!(processors.two_shards, "0,1");
        let processors = Processors::split(&[4, 6]).unwrap();
        assert_eq!((processors.node.as_str(), processors.generator.as_str()), ("4", "6"));
        assert_eq!(processors.two_shards, "4,6");
        assert!(Processors::split(&[0]).is_none());
    }

    #[test]
    fn reads_what_openssl_says_of_its_speed() {
        let output = "Doing AES-128-GCM for 1s\n+H:16384\n+F:22:AES-128-GCM:4096000000.00\n";
        assert!((parse_speed(output).unwrap() - 32.768).abs() < 1e-9);
        assert_eq!(parse_speed("speed: unknown option"), None);
    }

    #[test]
    fn reads_what_records_says_of_our_record_layer() {
        let speeds = parse_records("records 200 400.0\nnoise\nrecords 16384 8192.0\n");
        let rates: Vec<_> = speeds.iter().map(|it| (it.bytes, it.gbit_per_second)).collect();
        assert_eq!(rates, [(200, 4.0), (16_384, 16.0)]);
    }
}
