//! Certificates for connection points. Each is for one media stream (TS 23.334 clause 5.11.2.2.1) and so
//! has to be made for it; a thread of its own makes them ahead of time, as a shard has none to spare.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use mrfp_io::{Consumer, Producer, queue};
use mrfp_protocol::tls::{CertificateKey, Identity};

/// The certificates that are ready for the connection points of one shard.
#[derive(Debug)]
pub struct Certificates {
    ready: Consumer<Identity>,
    maker: Option<MakerHandle>,
}

/// How the one who makes them is told.
#[derive(Debug)]
struct MakerHandle {
    thread: Thread,
    given_up: Arc<AtomicBool>,
}

/// The thread that makes certificates, for all shards.
pub(crate) struct CertificateMaker {
    customers: Vec<Customer>,
    key: CertificateKey,
    /// One for which there was no room.
    spare: Option<Identity>,
}

struct Customer {
    ready: Producer<Identity>,
    given_up: Arc<AtomicBool>,
}

impl Certificates {
    /// Those that somebody puts into a queue, and no others.
    #[must_use]
    pub fn new(ready: Consumer<Identity>) -> Self {
        Self { ready, maker: None }
    }

    /// One that nobody has had.
    pub(super) fn take(&mut self) -> Option<Identity> {
        let identity = self.ready.pop();
        if let Some(maker) = &self.maker {
            maker.thread.unpark();
        }
        identity
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        if let Some(maker) = &self.maker {
            maker.given_up.store(true, Ordering::Relaxed);
            maker.thread.unpark();
        }
    }
}

impl CertificateMaker {
    /// Starts the thread, once each shard has `ready` certificates; it ends with the last of them. A shard
    /// finds so many whenever it looks, unless they are asked for faster than they can be made.
    pub(crate) fn start(
        shards: usize,
        ready: usize,
        key: CertificateKey,
    ) -> io::Result<Vec<Certificates>> {
        let (mut customers, mut consumers) = (Vec::new(), Vec::new());
        for _ in 0..shards {
            let (producer, consumer) = queue(ready.max(1));
            let given_up = Arc::<AtomicBool>::default();
            customers.push(Customer { ready: producer, given_up: Arc::clone(&given_up) });
            consumers.push((consumer, given_up));
        }
        let mut maker = Self { customers, key, spare: None };
        while maker.serve()? {}
        let thread = std::thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || maker.run())?
            .thread()
            .clone();
        let of_shard = |(ready, given_up)| {
            let thread = thread.clone();
            Certificates { ready, maker: Some(MakerHandle { thread, given_up }) }
        };
        Ok(consumers.into_iter().map(of_shard).collect())
    }

    fn run(mut self) {
        while !self.customers.is_empty() {
            self.customers.retain(|customer| !customer.given_up.load(Ordering::Relaxed));
            match self.serve() {
                Ok(true) => {}
                Ok(false) => std::thread::park(),
                Err(error) => {
                    tracing::error!(%error, "no certificate can be made");
                    std::thread::park();
                }
            }
        }
    }

    /// Gives each shard that has room for it one more certificate. False: none has.
    fn serve(&mut self) -> io::Result<bool> {
        let mut given = false;
        for customer in &mut self.customers {
            let identity = match self.spare.take() {
                Some(identity) => identity,
                None => Identity::self_signed_with(&self.key).map_err(io::Error::other)?,
            };
            match customer.ready.push(identity) {
                Ok(()) => given = true,
                Err(identity) => self.spare = Some(identity),
            }
        }
        Ok(given)
    }
}
