//! The kernel's edge of the media plane: one io_uring per shard, its buffers, the queues between
//! threads. The only crate of the project with `unsafe`.
//!
//! A shard sees none of that. It sees a [`Driver`]: start an operation with a [`Token`], later
//! match the [`Completion`] that carries the same token. `Ring` is the driver of production,
//! `Simulator` the one of deterministic tests.

mod clock;
mod doorbell;
mod driver;
mod ring;
mod send_buffers;
mod token;

pub use clock::monotonic_ns;
pub use doorbell::{Doorbell, DoorbellReceiver, doorbell};
pub use driver::{AcceptedSocket, Completion, Driver, Errno, Listen, RecvBuffer, Socket};
pub use ring::{Ring, RingConfig};
pub use send_buffers::{SendBuffer, SendBufferClass, SendBuffers, SendBuffersConfig};
pub use token::{Key, Operation, Token};
