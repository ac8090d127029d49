//! The media side of the fleet: pinned threads, each with its own ring and the UEs of some rooms.

pub mod channel;
pub mod connection;
pub mod egress;
pub mod message;
pub mod worker;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;
use mrfp_io::{Doorbell, Ring, RingConfig};

use self::message::TextSizes;
use self::worker::{Command, Event, Worker, WorkerConfig};
use crate::cli::Share;
use crate::expectation::Violations;

/// What the UEs do once they are bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Open loop: time between two messages of a session, in nanoseconds. `None`: closed loop.
    pub interval_ns: Option<u64>,
    /// Closed loop: messages of a session that are not yet over.
    pub window: u32,
    /// A message is over when it was answered, whoever has got it; else when it was answered and
    /// delivered everywhere.
    pub over_when_answered: bool,
    /// Members of a room that send, the first ones; the others listen.
    pub senders: u32,
    /// The binding SEND is a message; nothing else is said.
    pub speaks_once: bool,
    /// Bytes of the messages' texts.
    pub texts: TextSizes,
    /// How long deliveries are awaited after the last message.
    pub drain_timeout: Duration,
    /// The first UE of each room sends files as well.
    pub files: Option<FileTraffic>,
    /// A receiver stops reading. Then only the first UE sends a file, one, to the second.
    pub stall: Option<Stall>,
    /// Nobody speaks, not even to bind, before all connections are up; then all do at once.
    pub burst: bool,
}

/// Files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileTraffic {
    /// Bytes of a file.
    pub bytes: usize,
    /// Chunks of a file that may wait for their answer.
    pub chunks_open_max: usize,
    /// Body bytes of a chunk.
    pub chunk_bytes: usize,
}

/// The second UE reads nothing for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// From the beginning of the talk.
    pub after: Duration,
    /// For so long.
    pub duration: Duration,
}

/// Figures of one media thread while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages sent.
    pub messages: AtomicU64,
    /// Messages received.
    pub deliveries: AtomicU64,
    /// SENDs answered.
    pub answers: AtomicU64,
    /// Violations found.
    pub violations: AtomicU64,
    /// Median delivery latency of the last second, in nanoseconds.
    pub recent_p50_ns: AtomicU64,
    /// 99th percentile of the same.
    pub recent_p99_ns: AtomicU64,
    /// When those two were computed, in nanoseconds of the media clock.
    pub recent_at_ns: AtomicU64,
    /// Processor time of the thread while there was traffic, in nanoseconds.
    pub thread_cpu_ns: AtomicU64,
}

/// What a media thread has measured.
#[derive(Debug)]
pub struct WorkerReport {
    /// What went wrong.
    pub violations: Violations,
    /// From the intended sending of a message to each of its deliveries, in nanoseconds.
    pub delivery_latency: Histogram<u64>,
    /// From the sending of a SEND to its response, in nanoseconds.
    pub answer_latency: Histogram<u64>,
    /// From the first word of a UE to its answer, where all speak at once, in nanoseconds.
    pub first_answer_latency: Histogram<u64>,
    /// How late the open loop was, in nanoseconds.
    pub slip: Histogram<u64>,
    /// Delivery latency before a receiver was stalled, in nanoseconds.
    pub unstalled_latency: Histogram<u64>,
    /// The same while it was.
    pub stalled_latency: Histogram<u64>,
    /// Body bytes of its file that its sender got rid of while it was.
    pub stalled_bytes: u64,
    /// From the first chunk of a file to its last byte, in nanoseconds.
    pub file_latency: Histogram<u64>,
    /// Bytes of files that the node has answered with 200 while there was talk.
    pub file_bytes_taken: u64,
    /// Chat messages delivered in each room while there was talk.
    pub delivered_by_room: Vec<u64>,
    /// The same with the mean latency of the deliveries, in nanoseconds.
    pub latency_by_room: Vec<(u64, f64)>,
}

/// One media thread, seen from the fleet.
pub struct Thread {
    commands: mpsc::Sender<Command>,
    doorbell: Doorbell,
    /// Its figures.
    pub progress: Arc<Progress>,
    handle: JoinHandle<io::Result<()>>,
}

impl Thread {
    /// Starts a thread, pinned where `core` names a processor, with a ring of its own.
    pub fn spawn(
        config: WorkerConfig,
        core: Option<mrfp_io::Core>,
        events: impl Fn(Event) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let (doorbell, bell) = mrfp_io::doorbell()?;
        let progress = Arc::clone(&config.progress);
        let (ready, started) = mpsc::channel();
        let handle = thread::Builder::new().name("media".to_owned()).spawn(move || {
            if let Some(core) = core {
                // Not being pinned costs precision, not correctness.
                let _ = mrfp_io::pin_current_thread(core);
            }
            let ring = RingConfig {
                sockets_expected: config.connections_max as usize,
                ..RingConfig::default()
            };
            match Ring::with_doorbell(ring, bell) {
                Ok(ring) => {
                    let _ = ready.send(Ok(()));
                    Worker::new(ring, config, receiver, events).run()
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { commands, doorbell, progress, handle })
    }

    /// Gives a command.
    pub fn command(&self, command: Command) {
        // A thread that has ended has told so itself.
        let _ = self.commands.send(command);
        self.doorbell.ring();
    }

    /// Waits for the end that [`Command::Finish`] asked for.
    pub fn join(self) -> io::Result<()> {
        drop(self.commands);
        self.doorbell.ring();
        self.handle.join().unwrap_or_else(|_| Err(io::Error::other("a media thread panicked")))
    }
}

/// Processors for the media threads of a process: the first one, then from the last one downwards,
/// as a node beside us pins its shards from the second one upwards and leaves the first to its control
/// plane; processes one after the other, and round again.
pub(crate) fn cores(share: Share, threads: u32) -> Vec<Option<mrfp_io::Core>> {
    let all = mrfp_io::available_cores();
    let order: Vec<_> = all.first().into_iter().chain(all.iter().skip(1).rev()).copied().collect();
    let place = |thread| (share.index * threads + thread) as usize % order.len().max(1);
    (0..threads).map(|thread| order.get(place(thread)).copied()).collect()
}

/// Resident memory of a process, in KiB (`VmRSS`, proc(5)).
#[must_use]
pub fn resident_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
