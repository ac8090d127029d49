//! Both drivers, through the seam: the ring against real sockets on the loopback interface, the
//! simulator against peers that the test plays.

mod datagrams;
mod doorbell;
mod harness;
mod ring;
mod ring_bulk;
mod ring_faults;
mod simulator;
mod splice;
