//! The io_uring itself: submission and completion queue, entering the kernel.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, opcode, squeue};

use crate::token::{Key, Operation, Token};

/// How often the drain on drop waits for one second before it gives up and leaks.
const DRAIN_ROUNDS_MAX: u32 = 10;

/// How long to sleep, and for how much.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Completions to wake up for; 0 does not sleep.
    pub(super) want: u32,
    /// Wake up after this in any case.
    pub(super) timeout: Option<Duration>,
}

impl Patience {
    pub(super) const NONE: Self = Self { want: 0, timeout: None };
}

/// One ring and the count of what it still owes.
///
/// `register_ring_fd` spares the kernel a descriptor lookup per enter, but the `io-uring` crate
/// keeps the registered index in the [`Submitter`], which borrows the ring. So the ring lives
/// behind a stable pointer and the submitter for as long as it. The registration belongs to the
/// thread, hence a `Kernel` must not leave it: the `NonNull` makes it `!Send`.
pub(super) struct Kernel {
    submitter: Submitter<'static>,
    ring: NonNull<IoUring>,
    /// Entries the kernel would not take yet; in order, before anything newer.
    backlog: VecDeque<squeue::Entry>,
    in_flight: usize,
}

impl Kernel {
    pub(super) fn new(submission_entries: u32, completion_entries: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(completion_entries)
            .dontfork()
            .build(submission_entries)?;
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: the box is leaked, so the ring stays at its address until our `drop` frees it,
        // after the last use of the submitter; from here on only shared references are made.
        let mut submitter = unsafe { ring.as_ref() }.submitter();
        // Only an optimisation: refused where a thread already has 16 rings.
        let _ = submitter.register_ring_fd();
        Ok(Self { submitter, ring, backlog: VecDeque::new(), in_flight: 0 })
    }

    pub(super) fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    /// Queues an entry; enters the kernel when the submission queue is full.
    ///
    /// # Safety
    ///
    /// The memory the entry names stays valid and unaliased by writers until its last completion
    /// has been popped, or for good if [`Kernel::drain`] failed.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
            // An error here (EBUSY, EAGAIN) leaves the entry in the backlog for the next enter.
            let _ = self.submit();
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: `self` is borrowed exclusively and `!Send`, so this is the only view of the
        // submission queue; the entry's memory is promised by the caller of `push`.
        unsafe { self.ring.as_ref().submission_shared().push(entry).is_ok() }
    }

    fn flush_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Hands the queued entries to the kernel without running completions.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        loop {
            self.enter(Patience::NONE, EnterFlags::empty())?;
            let waiting = self.backlog.len();
            self.flush_backlog();
            // Either there is no more, or the kernel takes none before completions are popped.
            if self.backlog.is_empty() || self.backlog.len() == waiting {
                return Ok(());
            }
        }
    }

    /// Submits, runs completions, and waits for them as long as `patience` says.
    pub(super) fn submit_and_wait(&mut self, patience: Patience) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.submit()?;
        }
        let idle = {
            // SAFETY: as in `try_push`; only counters are read.
            let submission = unsafe { self.ring.as_ref().submission_shared() };
            submission.is_empty() && !submission.taskrun() && !submission.cq_overflow()
        };
        if idle && patience.want == 0 {
            return Ok(());
        }
        self.enter(patience, EnterFlags::GETEVENTS)
    }

    fn enter(&mut self, patience: Patience, flags: EnterFlags) -> io::Result<()> {
        let queued = {
            // SAFETY: as in `try_push`; only counters are read.
            let submission = unsafe { self.ring.as_ref().submission_shared() };
            submission.len() as u32
        };
        let timespec = patience.timeout.map(Timespec::from).unwrap_or_default();
        let mut arguments = SubmitArgs::new();
        if patience.timeout.is_some() {
            arguments = arguments.timespec(&timespec);
        }
        let flags = (flags | EnterFlags::EXT_ARG).bits();
        // SAFETY: EXT_ARG goes with a `SubmitArgs` of its own size, which lives across the call.
        let entered =
            unsafe { self.submitter.enter(queued, patience.want, flags, Some(&arguments)) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or completions must be popped first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: `Kernel` is `!Send` and the view ends here, so there is no other.
        !unsafe { self.ring.as_ref().completion_shared() }.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<cqueue::Entry> {
        // SAFETY: as in `try_push`, for the completion queue.
        let entry = unsafe { self.ring.as_ref().completion_shared() }.next()?;
        if !cqueue::more(entry.flags()) {
            assert!(self.in_flight > 0);
            self.in_flight -= 1;
        }
        Some(entry)
    }

    /// Cancels everything and pops until nothing is in flight. After `Ok` the kernel uses no
    /// memory of ours except what is registered.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        for _ in 0..DRAIN_ROUNDS_MAX {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any());
            let token = Token::new(Operation::Cancel, Key { index: 0, generation: 0 });
            // SAFETY: a cancellation names no memory.
            unsafe { self.push(cancel.build().user_data(token.to_user_data())) };
            loop {
                while let Some(entry) = self.pop() {
                    close_accepted(&entry);
                }
                if self.in_flight == 0 {
                    return Ok(());
                }
                let timeout = Some(Duration::from_secs(1));
                self.submit_and_wait(Patience { want: 1, timeout })?;
                if !self.has_completions() {
                    break;
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // The thread's table of registered rings would keep the ring alive.
        let _ = self.submitter.unregister_ring_fd();
        // SAFETY: the pointer came from `Box::leak`; the submitter is not used after this.
        drop(unsafe { Box::from_raw(self.ring.as_ptr()) });
    }
}

/// A connection that was accepted but never delivered must not leak its descriptor.
fn close_accepted(entry: &cqueue::Entry) {
    let operation = Token::from_user_data(entry.user_data()).operation();
    if operation == Some(Operation::Accept) && entry.result() >= 0 {
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(entry.result()) });
    }
}
