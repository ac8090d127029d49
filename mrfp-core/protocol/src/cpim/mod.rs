//! CPIM (RFC 3862): as much of the head as switching messages needs.
