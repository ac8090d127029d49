//! The door to MIKEY-TICKET: from `a=key-mgmt` to a key, by way of the KMS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_core::Psk;

use crate::sdp::KeyManagement;

/// Wall clock time as MIKEY messages carry it.
#[derive(Clone, Copy, Debug)]
pub struct NtpTime(pub u64);

/// Responder.
#[derive(Debug)]
pub enum Responder {}

/// An exchange that waits for the KMS.
#[derive(Debug)]
pub(super) struct Pending(Responder);

/// What the exchange yields.
#[derive(Debug)]
pub(super) struct Keys {
    /// The TEK.
    pub(super) psk: Psk,
    /// What the TLS client will call itself.
    pub(super) identity: Vec<u8>,
    /// TRANSFER_RESP for the answer, base64.
    pub(super) transfer_response: String,
}

pub(super) fn begin(
    responder: &mut Responder,
    _offered: &KeyManagement,
    _now: NtpTime,
    _random: &mut dyn FnMut(&mut [u8]),
) -> Result<(Pending, Vec<u8>), String> {
    match *responder {}
}

impl Pending {
    pub(super) fn finish(
        self,
        _responder: &mut Responder,
        _response: &[u8],
        _now: NtpTime,
        _random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Keys, String> {
        let _ = STANDARD.encode("");
        match self.0 {}
    }
}
