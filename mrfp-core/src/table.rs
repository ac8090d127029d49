//! A table of fixed size whose keys name slot and tenant, so that a late completion for an earlier
//! tenant misses instead of hitting a stranger.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use mrfp_io::Key;

/// Fixed slab. What a shard has one of reserves its addresses at once, so that it never moves; memory is
/// taken as slots are first used and then only reused.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    count_max: usize,
    occupied: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Table<T> {
    /// A table of at most `count_max` entries.
    pub(crate) fn new(count_max: usize) -> Self {
        assert!(count_max <= Key::INDEX_MAX as usize);
        Self { slots: Vec::with_capacity(count_max), free: Vec::new(), count_max, occupied: 0 }
    }

    /// The same for what there are thousands of, with few entries each: it reserves nothing, and
    /// moves as it grows.
    pub(crate) fn growing(count_max: usize) -> Self {
        assert!(count_max <= Key::INDEX_MAX as usize);
        Self { slots: Vec::new(), free: Vec::new(), count_max, occupied: 0 }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.occupied
    }

    /// Slots ever used: the range of indices worth scanning.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The key the next insertion will return, `None` where the table is full. For entries whose
    /// making needs their own key.
    pub(crate) fn vacant(&self) -> Option<Key> {
        if self.occupied == self.count_max {
            return None;
        }
        Some(match self.free.last() {
            Some(&index) => Key { index, generation: self.slots[index as usize].generation },
            None => Key { index: self.slots(), generation: 0 },
        })
    }

    /// Takes a slot; gives the value back where the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.occupied == self.count_max {
            return Err(value);
        }
        self.occupied += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.value.is_none());
        slot.value = Some(value);
        Ok(Key { index, generation: slot.generation })
    }

    /// The entry, if `key` still names its tenant.
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    /// The entry, if `key` still names its tenant.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// Frees the slot; keys to it miss from now on.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        self.occupied -= 1;
        Some(value)
    }

    /// As [`remove`](Self::remove), for an entry that is of no further use: it is not moved.
    pub(crate) fn discard(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key.index as usize) else { return };
        if slot.generation == key.generation && slot.value.is_some() {
            slot.value = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(key.index);
            self.occupied -= 1;
        }
    }

    /// The current tenant's key of a slot, `None` where it is free.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref()?;
        Some(Key { index, generation: slot.generation })
    }

    /// Keys of all entries, by slot.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.slots()).filter_map(|index| self.key_at(index))
    }
}

/// Entries of a table by a name of theirs that strangers choose. It keeps a hash of the name and not the
/// name: 64 bits under a random key, so that nobody finds two names that are taken for one another.
/// Whoever looks up compares with what the entry says of itself, where that matters.
#[derive(Default, Debug)]
pub(crate) struct Index {
    hasher: RandomState,
    keys: HashMap<u64, Key>,
}

impl Index {
    pub(crate) fn insert(&mut self, name: &[u8], key: Key) {
        self.keys.insert(self.hasher.hash_one(name), key);
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<Key> {
        self.keys.get(&self.hasher.hash_one(name)).copied()
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.keys.remove(&self.hasher.hash_one(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_misses_the_next_tenant() {
        let mut table = Table::new(1);
        let vacant = table.vacant();
        let first = table.insert("first").unwrap();
        assert_eq!(vacant, Some(first));
        assert_eq!(table.vacant(), None);
        assert_eq!(table.insert("too many"), Err("too many"));
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second").unwrap();
        assert_eq!(first.index, second.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&"second"));
        assert_eq!(table.len(), 1);
        table.discard(first);
        assert_eq!(table.get(second), Some(&"second"));
        table.discard(second);
        assert_eq!((table.get(second), table.len()), (None, 0));
        table.discard(second);
        let third = table.insert("third").unwrap();
        assert_ne!(third, second);
        assert_eq!(table.len(), 1);
    }
}
