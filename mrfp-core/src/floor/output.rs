//! What the floor control server says to the shard.

use mrfp_io::Key;

/// Takes what the server has to say. Nothing is to be called back from in here.
pub trait Output {
    /// A message, or with UDP a datagram, for the connection of a Termination.
    fn send(&mut self, termination: Key, bytes: &[u8]);

    /// Whether the stream of a Termination takes what is to be told of floors now. If not, that is kept
    /// until [`FloorServer::caught_up`](super::FloorServer::caught_up), and told as it is then.
    fn takes(&mut self, _termination: Key) -> bool {
        true
    }

    /// A user holds a floor from now on, or no longer.
    fn holder_changed(&mut self, change: HolderChange);

    /// The association of a participant is over (it said Goodbye, or acknowledges nothing any
    /// more); it is disconnected already. Only with UDP.
    fn close(&mut self, termination: Key);
}

/// A floor has changed hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HolderChange {
    /// `a=confid`.
    pub conference_id: u32,
    /// `a=floorid`.
    pub floor_id: u16,
    /// Who.
    pub user_id: u16,
    /// Has it now, or has not any more.
    pub holds: bool,
}
