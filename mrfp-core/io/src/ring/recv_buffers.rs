//! The provided-buffer rings: receive memory that lies with the kernel until bytes arrive.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Both halves of a buffer ring: the entries that the kernel reads, and the memory they name.
pub(super) struct RecvBuffers {
    group: u16,
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size_bytes: usize,
    tail: u16,
    /// By buffer: bytes delivered and not yet released; `None` while it lies with the kernel.
    lent: Vec<Option<u32>>,
    lent_count: usize,
}

impl RecvBuffers {
    /// All buffers of a group, ready for [`RecvBuffers::register`].
    pub(super) fn new(group: u16, count: u16, size_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        assert!(size_bytes > 0);
        let size_bytes = size_bytes as usize;
        let entry_bytes = size_of::<BufRingEntry>();
        let mut buffers = Self {
            group,
            entries: Mapping::new(usize::from(count) * entry_bytes)?,
            memory: Mapping::new(usize::from(count) * size_bytes)?,
            count,
            size_bytes,
            tail: 0,
            lent: vec![None; usize::from(count)],
            lent_count: 0,
        };
        for id in 0..count {
            buffers.provide(id);
        }
        Ok(buffers)
    }

    /// Shows the ring to the kernel. `self` must outlive the registration; `Ring` drops in that
    /// order.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.address.as_ptr() as u64;
        // SAFETY: the mapping is page-aligned and holds `count` entries; `Ring` unregisters it, or
        // drops the io_uring, before it drops `self`.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, self.group, 0) }
    }

    /// What a receive names to get one of these buffers.
    pub(super) fn group(&self) -> u16 {
        self.group
    }

    pub(super) fn size_bytes(&self) -> u32 {
        self.size_bytes as u32
    }

    /// Notes that the kernel has filled a buffer.
    pub(super) fn lend(&mut self, id: u16, length: u32) {
        assert!(length as usize <= self.size_bytes);
        let slot = &mut self.lent[usize::from(id)];
        assert!(slot.is_none());
        *slot = Some(length);
        self.lent_count += 1;
    }

    /// The bytes in a lent buffer. Panics if it is not lent with this length.
    pub(super) fn bytes(&mut self, id: u16, length: u32) -> &mut [u8] {
        assert_eq!(self.lent[usize::from(id)], Some(length));
        // SAFETY: the buffer lies inside the mapping, which is zero-initialised memory; the kernel
        // does not write a buffer between its completion and `provide`; `&mut self` keeps any
        // second view of it away.
        unsafe {
            let start = self.memory.address.add(usize::from(id) * self.size_bytes);
            std::slice::from_raw_parts_mut(start.as_ptr(), length as usize)
        }
    }

    /// Gives a lent buffer back to the kernel.
    pub(super) fn release(&mut self, id: u16) {
        assert!(self.lent[usize::from(id)].take().is_some());
        self.lent_count -= 1;
        self.provide(id);
    }

    /// Puts a buffer that the kernel took without filling it (an error) back.
    pub(super) fn provide(&mut self, id: u16) {
        assert!(self.lent[usize::from(id)].is_none());
        let base = self.entries.address.cast::<BufRingEntry>();
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies inside the mapping; entries at and
        // after the tail belong to us, the kernel reads only those before it. The fields are set
        // one by one because the tail itself lives in the reserved field of entry 0.
        unsafe {
            let entry = &mut *base.add(slot).as_ptr();
            let start = self.memory.address.add(usize::from(id) * self.size_bytes);
            entry.set_addr(start.as_ptr() as u64);
            entry.set_len(self.size_bytes as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the base is the first entry of the ring, whose tail field is aligned for a u16
        // and is written by nobody but us.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    pub(super) fn lent_count(&self) -> usize {
        self.lent_count
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Keeps the memory for the rest of the process: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.entries.length = 0;
        self.memory.length = 0;
    }
}

/// Anonymous zeroed pages, resident from the beginning: the kernel hands the buffers out in turn, so
/// that the first few thousand receives would touch them all anyway. This way the memory of a node
/// is what it is at the start, and no receive waits for a page.
struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        assert!(length > 0);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Self {
            address: NonNull::new(address.cast()).expect("the kernel never maps page zero"),
            length,
        };
        // A forked child must not share pages that the kernel writes for the parent.
        // SAFETY: the range is the mapping just made.
        if unsafe { libc::madvise(address, length, libc::MADV_DONTFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the range is our own mapping; `Ring` drops it after the io_uring, or leaks
            // it by `length = 0`.
            unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
        }
    }
}
