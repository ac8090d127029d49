//! What the connections of a media thread share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hdrhistogram::Histogram;
use mrfp_io::{SendBuffers, SendBuffersConfig};
use mrfp_protocol::tls::{self, Handshake, Profile};

use super::{Event, Set, WorkerConfig, latency_histogram};
use crate::expectation::{FileBook, Ledger, Violation, Violations};
use crate::media::connection::{Heard, Surroundings};
use crate::media::message::{self, Contents};
use crate::media::{Progress, Traffic};
use crate::security::Protection;

/// Everything a connection's event may touch besides the connection.
pub(super) struct Shared {
    pub(super) traffic: Traffic,
    pub(super) contents: Contents,
    pub(super) date_time: String,
    pub(super) profile: Option<Arc<Profile>>,
    pub(super) rooms: Vec<Room>,
    pub(super) room_index: BTreeMap<u32, u32>,
    pub(super) pool: SendBuffers,
    pub(super) scratch: Vec<u8>,
    pub(super) heard: Vec<Heard>,
    /// Connections with output, without repetition.
    pub(super) dirty: Set,
    /// Connections that may be able to send, without repetition.
    pub(super) ready: Set,
    pub(super) due: BinaryHeap<Reverse<(u64, u32)>>,
    pub(super) origin: Instant,
    pub(super) violations: Violations,
    pub(super) delivery_latency: Histogram<u64>,
    /// The same while a receiver is stalled, and before.
    pub(super) stalled_latency: Histogram<u64>,
    pub(super) unstalled_latency: Histogram<u64>,
    pub(super) file_latency: Histogram<u64>,
    /// Bytes of files that the node has answered with 200 while there was talk: to count whole files
    /// would take one more or less for a tenth of a short run.
    pub(super) file_bytes_taken: u64,
    pub(super) answer_latency: Histogram<u64>,
    pub(super) first_answer_latency: Histogram<u64>,
    pub(super) slip: Histogram<u64>,
    pub(super) recent: Histogram<u64>,
    pub(super) progress: Arc<Progress>,
    pub(super) events: Box<dyn Fn(Event) + Send>,
}

/// One room.
pub(super) struct Room {
    pub(super) number: u32,
    /// Connection indices; positions are the ledger's member numbers once talking has begun.
    pub(super) members: Vec<u32>,
    pub(super) ledger: Option<Ledger>,
    pub(super) files: FileBook,
    /// Deliveries of chat messages while there was talk.
    pub(super) delivered: u64,
    /// The sum of their latencies.
    pub(super) latency_ns: u64,
}

impl Room {
    pub(super) fn is_settled(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_settled) && self.files.is_settled()
    }
}

impl Shared {
    pub(super) fn new(config: WorkerConfig, events: impl Fn(Event) + Send + 'static) -> Self {
        let connections_max = config.connections_max as usize;
        Self {
            contents: Contents::new(
                config.traffic.texts.clone(),
                config.traffic.files.map_or(0, |files| files.bytes),
            ),
            traffic: config.traffic,
            date_time: config.date_time,
            profile: config.profile,
            rooms: Vec::new(),
            room_index: BTreeMap::new(),
            pool: SendBuffers::new(SendBuffersConfig {
                small_size_bytes: SMALL_BUFFER_BYTES,
                small_count_max: connections_max * 2 + 64,
                large_size_bytes: LARGE_BUFFER_BYTES,
                large_count_max: connections_max * 2 + 1024,
            }),
            scratch: Vec::with_capacity(2 * message::CHUNK_BODY_BYTES),
            heard: Vec::new(),
            dirty: Set::default(),
            ready: Set::default(),
            due: BinaryHeap::new(),
            origin: config.origin,
            violations: Violations::default(),
            delivery_latency: latency_histogram(),
            stalled_latency: latency_histogram(),
            unstalled_latency: latency_histogram(),
            file_latency: latency_histogram(),
            file_bytes_taken: 0,
            answer_latency: latency_histogram(),
            first_answer_latency: latency_histogram(),
            slip: latency_histogram(),
            recent: latency_histogram(),
            progress: config.progress,
            events: Box::new(events),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    pub(super) fn is_idle(&self) -> bool {
        self.dirty.order.is_empty() && self.ready.order.is_empty()
    }

    pub(super) fn surroundings(&mut self) -> Surroundings<'_> {
        Surroundings {
            pool: &mut self.pool,
            scratch: &mut self.scratch,
            contents: &self.contents,
            heard: &mut self.heard,
        }
    }

    pub(super) fn room(&mut self, number: u32) -> u32 {
        let rooms = &mut self.rooms;
        *self.room_index.entry(number).or_insert_with(|| {
            rooms.push(Room {
                number,
                members: Vec::new(),
                ledger: None,
                files: FileBook::default(),
                delivered: 0,
                latency_ns: 0,
            });
            rooms.len() as u32 - 1
        })
    }

    pub(super) fn handshake(
        &self,
        protection: Protection,
        node: SocketAddr,
    ) -> Result<Option<Handshake>, tls::HandshakeError> {
        let profile = self.profile.as_ref();
        let profile = || profile.ok_or(tls::HandshakeError::NoCommonParameters);
        match protection {
            Protection::Plain => Ok(None),
            Protection::Psk(identity, psk) => {
                Handshake::client(profile()?, &identity, &psk).map(Some)
            }
            Protection::Certificate(fingerprints) => {
                let host = node.ip().to_string();
                Handshake::fingerprint_client(profile()?, &host, &fingerprints).map(Some)
            }
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        for histogram in [&mut self.delivery_latency, &mut self.answer_latency, &mut self.slip] {
            histogram.reset();
        }
        self.file_bytes_taken = 0;
        for room in &mut self.rooms {
            (room.delivered, room.latency_ns) = (0, 0);
        }
    }

    pub(super) fn book_debts(&mut self) {
        for room in &self.rooms {
            let Some(ledger) = &room.ledger else { continue };
            let debts = ledger.debts();
            let number = room.number;
            self.violations.add_many(Violation::Lost, debts.lost, || {
                format!("room {number}: {} deliveries never came", debts.lost)
            });
            self.violations.add_many(Violation::SendUnanswered, debts.unanswered, || {
                format!("room {number}: {} SENDs were never answered", debts.unanswered)
            });
            let debts = room.files.debts();
            self.violations.add_many(Violation::Lost, debts.lost, || {
                format!("room {number}: {} files never came whole", debts.lost)
            });
            self.violations.add_many(Violation::SendUnanswered, debts.unanswered, || {
                format!("room {number}: {} chunks of files were never answered", debts.unanswered)
            });
        }
    }

    pub(super) fn publish(&mut self) {
        let progress = &self.progress;
        progress.violations.store(self.violations.total(), Ordering::Relaxed);
        let now = self.now();
        if !self.recent.is_empty()
            && now > progress.recent_at_ns.load(Ordering::Relaxed) + 1_000_000_000
        {
            let p50 = self.recent.value_at_quantile(0.50);
            let p99 = self.recent.value_at_quantile(0.99);
            progress.recent_p50_ns.store(p50, Ordering::Relaxed);
            progress.recent_p99_ns.store(p99, Ordering::Relaxed);
            progress.recent_at_ns.store(now, Ordering::Relaxed);
            self.recent.reset();
        }
    }
}

/// What a chat UE has to send in a moment: a few answers and messages.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;
/// One full TLS record with what surrounds it.
const LARGE_BUFFER_BYTES: usize =
    tls::SEAL_HEADROOM_BYTES + tls::PLAINTEXT_BYTES_MAX + tls::SEAL_TAILROOM_BYTES;
