//! Shared by the integration tests.

pub(crate) mod http;
pub(crate) mod mrf;
pub(crate) mod msrp;
pub(crate) mod node;
pub(crate) mod program;
pub(crate) mod random;
pub(crate) mod sip;
pub(crate) mod tshark;
pub(crate) mod ue;
pub(crate) mod wire;
