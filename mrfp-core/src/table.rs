//! A table of fixed size whose keys name slot and tenant, so that a late completion for an earlier
//! tenant misses instead of hitting a stranger.

use std::hash::{BuildHasher, Hash, RandomState};

use mrfp_io::Key;

/// Fixed slab: memory is taken as slots are first used and then only reused.
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
        Self { slots: Vec::new(), free: Vec::new(), count_max, occupied: 0 }
    }

    /// The same for the few tables a shard has one of: the addresses of all entries are reserved at
    /// once, so that it never moves. That may take a huge page (2 MiB) before the first entry.
    pub(crate) fn reserved(count_max: usize) -> Self {
        Self { slots: Vec::with_capacity(count_max), ..Self::new(count_max) }
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

    /// The current tenant of a slot, `None` where it is free.
    fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
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

/// For keys that are known to name an entry.
impl<T> std::ops::Index<Key> for Table<T> {
    type Output = T;

    fn index(&self, key: Key) -> &T {
        self.get(key).expect("an entry of the table")
    }
}

impl<T> std::ops::IndexMut<Key> for Table<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        self.get_mut(key).expect("an entry of the table")
    }
}

/// Entries of a table by a name of theirs. It keeps where they stand, four bytes for each, and asks the
/// entries for their names: whatever is found under a name has it, to the letter. Strangers may choose
/// the names, as the hash has a random key.
///
/// It is as large from the start as it ever gets, since growing would leave its smaller self behind,
/// and what has not been written to takes no memory. Entries stand at their hash or as near behind it
/// as there was room; who leaves lets them move up, so that nothing is left of it.
#[derive(Debug)]
pub(crate) struct Index<T, Name: ?Sized> {
    hasher: RandomState,
    /// One more than the slot in the table, 0 where nobody is: a power of two, a quarter of them free.
    places: Box<[u32]>,
    name_of: fn(&T) -> &Name,
}

impl<T, Name: Hash + Eq + ?Sized> Index<T, Name> {
    /// For `count_max` entries.
    pub(crate) fn reserved(count_max: usize, name_of: fn(&T) -> &Name) -> Self {
        assert!(count_max <= Key::INDEX_MAX as usize);
        let places = (count_max + count_max / 3 + 1).next_power_of_two();
        Self { hasher: RandomState::new(), places: vec![0; places].into(), name_of }
    }

    /// The entry under that name.
    pub(crate) fn get(&self, table: &Table<T>, name: &Name) -> Option<Key> {
        let mut at = self.home(name);
        loop {
            let index = self.places[at].checked_sub(1)?;
            if table.at(index).map(self.name_of) == Some(name) {
                return table.key_at(index);
            }
            at = self.behind(at);
        }
    }

    /// Lists an entry under the name it has now, and must keep until it is removed.
    pub(crate) fn insert(&mut self, table: &Table<T>, key: Key) {
        let Some(entry) = table.get(key) else { return };
        let mut at = self.home((self.name_of)(entry));
        while self.places[at] != 0 {
            assert_ne!(self.places[at], key.index + 1, "it is listed");
            at = self.behind(at);
        }
        self.places[at] = key.index + 1;
    }

    /// Takes an entry off, if it is listed.
    pub(crate) fn remove(&mut self, table: &Table<T>, key: Key) {
        let Some(entry) = table.get(key) else { return };
        let mut at = self.home((self.name_of)(entry));
        while self.places[at] != key.index + 1 {
            if self.places[at] == 0 {
                return;
            }
            at = self.behind(at);
        }
        self.vacate(table, at);
    }

    /// Frees a place; whoever stands behind it for want of room moves up.
    fn vacate(&mut self, table: &Table<T>, place: usize) {
        let mask = self.places.len() - 1;
        let (mut free, mut at) = (place, self.behind(place));
        while let Some(index) = self.places[at].checked_sub(1) {
            let entry = table.at(index).expect("who leaves the table leaves the index before it");
            let home = self.home((self.name_of)(entry));
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(free) & mask) {
                self.places[free] = self.places[at];
                free = at;
            }
            at = self.behind(at);
        }
        self.places[free] = 0;
    }

    fn home(&self, name: &Name) -> usize {
        self.hasher.hash_one(name) as usize & (self.places.len() - 1)
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
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

    #[test]
    fn an_index_finds_by_name_and_only_who_has_it() {
        const COUNT: u32 = 200;
        let mut table = Table::new(COUNT as usize);
        let mut index = Index::reserved(COUNT as usize, |name: &String| name.as_str());
        let is_empty = |index: &Index<String, str>| index.places.iter().all(|&place| place == 0);
        for round in 0..20 {
            for number in 0..COUNT {
                let key = table.insert(format!("{round} {number}")).unwrap();
                index.insert(&table, key);
            }
            for key in table.keys().collect::<Vec<_>>() {
                let name = table.get(key).unwrap().clone();
                assert_eq!(index.get(&table, &name), Some(key));
                // The others are found all the same, whoever has gone.
                index.remove(&table, key);
                assert_eq!(index.get(&table, &name), None);
                index.remove(&table, key);
                table.discard(key);
            }
            assert!(is_empty(&index));
        }
    }

    #[test]
    fn an_entry_that_is_not_listed_leaves_its_namesake_in_peace() {
        let mut table = Table::new(2);
        let mut index = Index::reserved(2, |name: &&str| *name);
        let listed = table.insert("same").unwrap();
        let other = table.insert("same").unwrap();
        index.insert(&table, listed);
        index.remove(&table, other);
        assert_eq!(index.get(&table, "same"), Some(listed));
    }
}
