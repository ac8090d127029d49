//! The shards and their load.

use mrfp_core::mp::ShardId;

use super::config::ShardDescription;

/// The shards and their load.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    description: ShardDescription,
    terminations: usize,
    lost: bool,
}

impl Shards {
    pub(crate) fn new(descriptions: &[ShardDescription]) -> Self {
        let shard = |description: &ShardDescription| Shard {
            description: *description,
            terminations: 0,
            lost: false,
        };
        Self { shards: descriptions.iter().map(shard).collect() }
    }

    /// The shard for a new room: the one with the fewest Terminations, the first of equals.
    pub(crate) fn choose(&self) -> Option<ShardId> {
        let usable = self.shards.iter().filter(|shard| !shard.lost);
        usable.min_by_key(|shard| shard.terminations).map(|shard| shard.description.id)
    }

    pub(crate) fn add_termination(&mut self, id: ShardId) {
        self.get_mut(id).terminations += 1;
    }

    pub(crate) fn remove_termination(&mut self, id: ShardId) {
        let shard = self.get_mut(id);
        shard.terminations = shard.terminations.checked_sub(1).expect("counted when added");
    }

    /// The shard takes no more rooms.
    pub(crate) fn set_lost(&mut self, id: ShardId) {
        if let Some(shard) = self.shards.iter_mut().find(|shard| shard.description.id == id) {
            shard.lost = true;
        }
    }

    pub(crate) fn description(&self, id: ShardId) -> ShardDescription {
        let shard = self.shards.iter().find(|shard| shard.description.id == id);
        shard.expect("a call's shard exists").description
    }

    fn get_mut(&mut self, id: ShardId) -> &mut Shard {
        let shard = self.shards.iter_mut().find(|shard| shard.description.id == id);
        shard.expect("a call's shard exists")
    }

    /// Terminations per shard, those included that are being subtracted.
    pub(crate) fn terminations(&self) -> impl Iterator<Item = (ShardId, usize)> {
        self.shards.iter().map(|shard| (shard.description.id, shard.terminations))
    }
}
