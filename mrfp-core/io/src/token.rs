//! What travels through the kernel as `user_data` and comes back with the completion.

/// Names a slot of a fixed table and the tenant of that slot. A late completion for an earlier
/// tenant carries an old generation and misses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Slot, below [`Key::INDEX_MAX`].
    pub index: u32,
    /// Tenant of the slot; wraps.
    pub generation: u32,
}

impl Key {
    /// Slots a table may have: 24 bits of the token.
    pub const INDEX_MAX: u32 = (1 << 24) - 1;
}

/// What kind of operation a token belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// Multishot accept on a listener.
    Accept = 1,
    /// Connect of an outgoing socket.
    Connect = 2,
    /// Multishot receive.
    Recv = 3,
    /// Send of one buffer.
    Send = 4,
    /// Cancellation of another operation.
    Cancel = 5,
    /// Close of a descriptor.
    Close = 6,
    /// Another thread rang.
    Doorbell = 7,
    /// Waiting until there is something to receive.
    Readable = 8,
}

/// Operation (8 bits), slot (24 bits) and generation (32 bits) in one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(u64);

impl Token {
    /// Packs. Panics if `key.index` exceeds [`Key::INDEX_MAX`].
    #[must_use]
    pub fn new(operation: Operation, key: Key) -> Self {
        assert!(key.index <= Key::INDEX_MAX);
        Self((operation as u64) << 56 | u64::from(key.index) << 32 | u64::from(key.generation))
    }

    /// The slot and its tenant.
    #[must_use]
    pub fn key(self) -> Key {
        Key { index: (self.0 >> 32) as u32 & Key::INDEX_MAX, generation: self.0 as u32 }
    }

    /// The word as the kernel carries it.
    #[must_use]
    pub fn to_user_data(self) -> u64 {
        self.0
    }

    /// The word as it came back from the kernel.
    #[must_use]
    pub fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }

    /// The operation, `None` where the word was not made by [`Token::new`].
    #[must_use]
    pub fn operation(self) -> Option<Operation> {
        Some(match self.0 >> 56 {
            1 => Operation::Accept,
            2 => Operation::Connect,
            3 => Operation::Recv,
            4 => Operation::Send,
            5 => Operation::Cancel,
            6 => Operation::Close,
            7 => Operation::Doorbell,
            8 => Operation::Readable,
            _ => return None,
        })
    }
}
