//! The kernel's edge of the media plane: one io_uring per shard, its buffers, the queues between
//! threads. The only crate of the project with `unsafe`.
//!
//! A shard sees none of that. It sees a [`Driver`]: start an operation with a [`Token`], later
//! match the [`Completion`] that carries the same token. [`Ring`] is the driver of production,
//! [`Simulator`] the one of deterministic tests.
//!
//! # A walk through the crate
//!
//! At the start, [`probe()`] says in one line whether the kernel will play, and
//! [`raise_descriptor_limit`] makes room for sockets. A thread binds itself to one of the
//! [`available_cores`] with [`pin_current_thread`] and builds its ring there, for the kernel
//! accepts submissions from that thread only. Then it turns:
//!
//! ```
//! use mrfp_io::{Completion, Driver, Key, Listen, Operation, Ring, RingConfig, Token};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut ring = Ring::new(RingConfig::default())?;
//! let key = Key { index: 0, generation: 0 };
//! let listen = Listen { backlog: 512, reuse_port: false };
//! let token = Token::new(Operation::Accept, key);
//! let (_listener, address) = ring.listen("127.0.0.1:0".parse().unwrap(), listen, token)?;
//! # let _peer = std::net::TcpStream::connect(address)?;
//! ring.wait(None)?; // the one system call of a turn
//! while let Some(completion) = ring.next_completion() {
//!     match completion {
//!         Completion::Accept { result: Ok(accepted), .. } => println!("{}", accepted.peer),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Bytes in.** Receive memory lies with the kernel until bytes arrive; then a [`RecvBuffer`]
//! names the run, the shard reads or decrypts it in place and gives it back before the turn ends.
//! An idle connection owns no buffer. If the kernel finds none, the receive ends with `ENOBUFS`,
//! and the shard arms it again in a later turn.
//!
//! **Bytes out.** A [`SendBuffer`] from the pool [`SendBuffers`] moves into the driver with
//! [`Driver::send`] and comes back with [`Completion::Send`]. The driver owns what the kernel
//! reads: no caller can free it too early.
//!
//! **Datagrams.** A socket of [`Driver::bind_datagram`] hears nobody before
//! [`Driver::connect_datagram`] names its peer, and then nobody else. Each send is one datagram and each
//! receive brings one; what the network does to them is not reported.
//!
//! **Between threads.** A [`queue()`] carries the items, a [`doorbell()`] wakes the other side if
//! it sleeps. A ring takes the [`DoorbellReceiver`] at its construction
//! ([`Ring::with_doorbell`]); elsewhere it is a pollable descriptor.
//!
//! **The end of a socket.** [`Driver::shutdown`], join what is in flight, [`Driver::close`]. The
//! end of a ring: its drop cancels and joins everything, closes the io_uring, then frees memory.

mod affinity;
mod clock;
mod doorbell;
mod driver;
mod probe;
mod queue;
mod ring;
mod send_buffers;
mod simulator;
mod token;

pub use affinity::{Core, available_cores, pin_current_thread};
pub use clock::monotonic_ns;
pub use doorbell::{Doorbell, DoorbellReceiver, doorbell};
pub use driver::{AcceptedSocket, Completion, Driver, Errno, Listen, RecvBuffer, Socket, Spliced};
pub use probe::{ProbeError, probe, raise_descriptor_limit};
pub use queue::{Consumer, Producer, queue};
pub use ring::{Ring, RingConfig};
pub use send_buffers::{
    DESTINATION_BYTES, SendBuffer, SendBufferClass, SendBuffers, SendBuffersConfig,
};
pub use simulator::{ConnectAnswer, DatagramFaults, Faults, PeerId, Simulator, SimulatorConfig};
pub use token::{Key, Operation, Token};
