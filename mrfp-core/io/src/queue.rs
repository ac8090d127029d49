//! A bounded queue between two threads: one pushes, one pops, neither waits.
//!
//! Each end keeps a private copy of the other end's index and looks at the shared one only when
//! the copy says full (or empty), so that a busy queue moves a cache line once per batch and not
//! once per item. The shared indices lie 128 bytes apart because the adjacent-line prefetcher
//! fetches 64-byte lines in pairs.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Both ends of a queue for at least `capacity` items (rounded up to a power of two). Panics if
/// `capacity` is 0.
#[must_use]
pub fn queue<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity > 0);
    let slots =
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        slots,
        head: Aligned(AtomicUsize::new(0)),
        tail: Aligned(AtomicUsize::new(0)),
    });
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, head_seen: 0 };
    let consumer = Consumer { shared, head: 0, tail_seen: 0 };
    (producer, consumer)
}

#[repr(align(128))]
struct Aligned(AtomicUsize);

/// Indices count for ever (and wrap); slot is index modulo capacity. The slots from `head` to
/// `tail` hold items.
struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Next to pop; written by the consumer.
    head: Aligned,
    /// Next to push; written by the producer.
    tail: Aligned,
}

// SAFETY: a slot is touched by the producer before it publishes it through `tail` and by the
// consumer after, until that gives it back through `head`: one thread at a time, with a release
// and acquire pair at each hand-over. So items travel between threads (`T: Send`), shared by none.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> *mut MaybeUninit<T> {
        self.slots[index & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = *self.tail.0.get_mut();
        let mut head = *self.head.0.get_mut();
        while head != tail {
            // SAFETY: both ends are gone; slots from head to tail hold items, each dropped once.
            unsafe { (*self.slot(head)).assume_init_drop() };
            head = head.wrapping_add(1);
        }
    }
}

/// The end that pushes.
#[repr(align(128))]
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The consumer's head when last looked at.
    head_seen: usize,
}

impl<T> Producer<T> {
    /// Appends an item.
    ///
    /// # Errors
    ///
    /// Gives the item back when the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(item);
            }
        }
        // SAFETY: the slot is free (the acquire above saw the consumer leave it) and only this
        // end, which is not cloned, writes free slots.
        unsafe { (*self.shared.slot(self.tail)).write(item) };
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

/// The end that pops.
#[repr(align(128))]
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The producer's tail when last looked at.
    tail_seen: usize,
}

impl<T> Consumer<T> {
    /// Takes the oldest item, `None` if there is none.
    #[must_use]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: the slot holds an item (the acquire above saw the producer publish it) and only
        // this end, which is not cloned, takes items; advancing `head` makes that once.
        let item = unsafe { (*self.shared.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(item)
    }
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Consumer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_bounded_deque(
            capacity in 1_usize..20,
            steps in prop::collection::vec(any::<bool>(), 0..400),
        ) {
            let (mut producer, mut consumer) = queue(capacity);
            let mut oracle = VecDeque::new();
            for (number, push) in steps.into_iter().enumerate() {
                if push {
                    let expected = if oracle.len() < capacity.next_power_of_two() {
                        oracle.push_back(number);
                        Ok(())
                    } else {
                        Err(number)
                    };
                    prop_assert_eq!(producer.push(number), expected);
                } else {
                    prop_assert_eq!(consumer.pop(), oracle.pop_front());
                }
            }
        }
    }

    #[test]
    fn keeps_order_between_two_threads() {
        const COUNT: usize = 200_000;
        let (mut producer, mut consumer) = queue(64);
        let pusher = std::thread::spawn(move || {
            for number in 0..COUNT {
                // Boxed, so that a torn or doubled item shows as a memory error.
                let mut item = Box::new(number);
                while let Err(back) = producer.push(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..COUNT {
            let item = loop {
                match consumer.pop() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*item, number);
        }
        pusher.join().unwrap();
        assert!(consumer.pop().is_none());
    }

    #[test]
    fn drops_what_was_never_popped() {
        let witness = Rc::new(());
        let (mut producer, mut consumer) = queue(4);
        for _ in 0..6 {
            let _ = producer.push(Rc::clone(&witness));
            drop(consumer.pop());
        }
        for _ in 0..3 {
            producer.push(Rc::clone(&witness)).unwrap();
        }
        assert_eq!(Rc::strong_count(&witness), 4);
        drop(producer);
        drop(consumer);
        assert_eq!(Rc::strong_count(&witness), 1);
    }
}
