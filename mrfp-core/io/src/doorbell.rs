//! Waking another thread after something was put into a queue for it.
//!
//! A bell has three states. The waiting thread moves `AWAKE -> ASLEEP` before it sleeps
//! ([`DoorbellReceiver::arm`]) and whatever it is `-> AWAKE` when it wakes
//! ([`DoorbellReceiver::disarm`]); a ringer moves whatever it is `-> RUNG` and writes to the
//! eventfd only if the bell was `ASLEEP`. So a ring while the other thread is busy costs one
//! atomic exchange and no system call, and it is not lost either: `arm` fails after it.
//!
//! Why no wake-up gets lost. All three are read-modify-writes of one atomic, hence totally
//! ordered, and each synchronises with the one before it. Take a ring, made after its push:
//!
//! - before the waiter's `disarm`: `disarm` reads `RUNG` (from this ring or a later one), and the
//!   queue, drained after `disarm`, shows the push;
//! - between `disarm` and `arm`: `arm` finds `RUNG` and fails, and the waiter goes round again;
//! - after `arm`: the first ring finds `ASLEEP` and writes the eventfd, which wakes the waiter;
//!   later ones find `RUNG`, whose writer has woken it already.
//!
//! The order for the waiter is therefore: `disarm`, drain the queues, `arm`, sleep only if `arm`
//! said so.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const RUNG: u8 = 2;

/// A bell: the side that rings and the side that waits.
///
/// # Errors
///
/// Those of `eventfd(2)`: too many open descriptors.
pub fn doorbell() -> io::Result<(Doorbell, DoorbellReceiver)> {
    // SAFETY: the call takes no memory.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let shared = Arc::new(Shared {
        state: AtomicU8::new(AWAKE),
        // SAFETY: the kernel has just given us this descriptor.
        event: unsafe { OwnedFd::from_raw_fd(descriptor) },
    });
    let ringer = Doorbell { shared: Arc::clone(&shared) };
    Ok((ringer, DoorbellReceiver { shared }))
}

/// Alone on its cache lines (the adjacent-line prefetcher works in pairs): every ring writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Shared {
    state: AtomicU8,
    event: OwnedFd,
}

/// The ringing side. Clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

impl Doorbell {
    /// Wakes the waiting thread, once, if it sleeps. Call it after the push.
    pub fn ring(&self) {
        if self.shared.state.swap(RUNG, Ordering::AcqRel) != ASLEEP {
            return;
        }
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the buffer is valid for 8 bytes during the call and the descriptor is ours.
        let written =
            unsafe { libc::write(self.shared.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        // The one possible failure is a full counter, which has woken the waiter long ago.
        debug_assert!(
            written == 8 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
        );
    }
}

/// The waiting side; there is one. Given to a `Ring` it becomes [`Completion::Doorbell`];
/// elsewhere it is a readable descriptor, e.g. for tokio's `AsyncFd`:
///
/// ```ignore
/// let bell = AsyncFd::with_interest(receiver, Interest::READABLE)?;
/// loop {
///     while let Some(item) = queue.pop() { handle(item); }
///     if bell.get_ref().arm() {
///         bell.readable().await?.clear_ready();
///     }
///     bell.get_ref().drain();
/// }
/// ```
///
/// [`Completion::Doorbell`]: crate::Completion::Doorbell
#[derive(Debug)]
pub struct DoorbellReceiver {
    shared: Arc<Shared>,
}

impl DoorbellReceiver {
    /// Announces sleep. `false`: the bell has rung since the last [`DoorbellReceiver::disarm`], do
    /// not sleep but disarm and look into the queues.
    #[must_use]
    pub fn arm(&self) -> bool {
        let armed =
            self.shared.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        // A second `arm` without a `disarm` finds its own mark.
        matches!(armed, Ok(_) | Err(ASLEEP))
    }

    /// Announces that this thread is awake. `true`: the bell has rung, look into the queues.
    pub fn disarm(&self) -> bool {
        self.shared.state.swap(AWAKE, Ordering::AcqRel) == RUNG
    }

    /// [`DoorbellReceiver::disarm`], and empties the descriptor so that it polls as not readable.
    /// For waiters that poll by level; edge-triggered ones may use either.
    pub fn drain(&self) -> bool {
        let mut count = [0_u8; 8];
        // SAFETY: the buffer is valid for 8 bytes during the call and the descriptor is ours. It
        // is non-blocking, and reading nothing is no error.
        unsafe { libc::read(self.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        self.disarm()
    }
}

impl AsRawFd for DoorbellReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

impl AsFd for DoorbellReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
