//! DTLS 1.2 between our own ends, with stock OpenSSL, and with nobody well-meaning.
#![allow(unreachable_pub, reason = "shared by the modules of a test")]

mod associations;
mod certificates;
mod handshakes;
mod hostile;
mod stock;
