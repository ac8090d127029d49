//! TLS for the media plane: an engine of our own or OpenSSL performs the PSK handshake in memory, rustls
//! the one with certificates, and our record layer carries the data, in place.

use std::ops::Range;

mod announced;
mod certificate;
mod certificate_handshake;
mod client_hello;
pub mod dtls;
mod exchange;
mod fingerprint;
mod handshake;
mod keys;
mod memory_stream;
mod numbers;
mod openssl_session;
mod profile;
mod psk;
mod psk12;
mod psk_handshake;
mod record;
mod ssl_reason;
mod suite;

use numbers::{
    ALERT_BAD_RECORD_MAC, ALERT_CLOSE_NOTIFY, ALERT_INTERNAL_ERROR, ALERT_RECORD_OVERFLOW,
    ALERT_UNEXPECTED_MESSAGE, LEVEL_FATAL, LEVEL_WARNING,
};
use openssl_session::OpenSslSession;
use record::RecordLayer;

pub use announced::{AnnouncedProfile, CertificateKey};
pub use certificate::{
    Authorities, CertificateConfig, CertificateError, Identity, PeerCertificate,
};
pub use fingerprint::{BadFingerprint, Fingerprint};
pub use handshake::{CertificateFault, Handshake, HandshakeError, IDENTITY_BYTES_MAX, Progress};
pub use keys::TrafficKeys;
pub use profile::{Profile, ProfileConfig, ProfileError};
pub use psk::Psk;

/// Bytes that must be free before the plaintext handed to [`Session::seal`].
pub const SEAL_HEADROOM_BYTES: usize = 13;
/// Bytes that must be free behind it.
pub const SEAL_TAILROOM_BYTES: usize = 128;
/// Most plaintext one record carries (RFC 5246 section 6.2.1).
pub const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest record on the wire: header and the expansion RFC 5246 section 6.2.3 allows.
pub const RECORD_BYTES_MAX: usize = 5 + PLAINTEXT_BYTES_MAX + 2048;

/// An established session: traffic keys and sequence numbers (or, for CBC suites, OpenSSL).
///
/// With an AEAD suite the session is the record layer and nothing else: the objects of OpenSSL or
/// rustls and their buffers went with the handshake. Only a CBC suite keeps them.
///
/// The order of calls is the order on the wire: what `seal`, `pending_output`, `close_notify` and
/// `fatal_alert` return must be sent in the order it was returned.
pub struct Session {
    records: Records,
}

/// Who carries the records.
enum Records {
    Own(Box<RecordLayer>),
    OpenSsl(Box<OpenSslSession>),
}

/// What [`Session::open`] found at the front of the input.
#[derive(Debug)]
pub enum Opened {
    /// No whole record yet.
    NeedInput,
    /// Application data, decrypted in place at `plaintext` (a range of the input).
    Data {
        /// Where the plaintext lies.
        plaintext: Range<usize>,
        /// Bytes of the record.
        consumed: usize,
    },
    /// A record of TLS's own (ticket, key update, warning alert) was handled. If
    /// [`Session::pending_output`] is not empty it must be sent.
    Handled {
        /// Bytes of the record.
        consumed: usize,
    },
    /// The peer closed the session properly.
    CloseNotify {
        /// Bytes of the record.
        consumed: usize,
    },
}

/// The session is broken and must be closed; send [`Session::fatal_alert`] first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RecordError {
    /// Authentication of a record failed.
    BadRecordMac,
    /// A record is longer than allowed.
    RecordOverflow,
    /// A record of a type or version that has no place here.
    UnexpectedMessage,
    /// The peer sent a fatal alert.
    AlertReceived(u8),
    /// The sequence number limit of the keys is reached.
    KeysExhausted,
    /// OpenSSL refused.
    Other,
}

impl Session {
    fn from_record_layer(records: Box<RecordLayer>) -> Self {
        Self { records: Records::Own(records) }
    }

    fn from_openssl(records: OpenSslSession) -> Self {
        Self { records: Records::OpenSsl(Box::new(records)) }
    }

    /// Opens the record at the front of `input`, in place.
    pub fn open(&mut self, input: &mut [u8]) -> Result<Opened, RecordError> {
        match &mut self.records {
            Records::Own(records) => records.open(input),
            Records::OpenSsl(records) => records.open(input),
        }
    }

    /// Seals `memory[plaintext]` in place as one record and returns where the record lies. Needs
    /// [`SEAL_HEADROOM_BYTES`] before and [`SEAL_TAILROOM_BYTES`] behind; at most
    /// [`PLAINTEXT_BYTES_MAX`] of plaintext. A TLS 1.3 KeyUpdate that is due precedes the record in
    /// the same range.
    ///
    /// # Panics
    /// If the plaintext is too long or has too little room around it.
    pub fn seal(
        &mut self,
        memory: &mut [u8],
        plaintext: Range<usize>,
    ) -> Result<Range<usize>, RecordError> {
        match &mut self.records {
            Records::Own(records) => records.seal(memory, plaintext),
            Records::OpenSsl(records) => records.seal(memory, plaintext),
        }
    }

    /// Sealed bytes the record layer itself wants to send (an answer to a key update, a
    /// no_renegotiation warning); drains.
    pub fn pending_output(&mut self) -> Vec<u8> {
        match &mut self.records {
            Records::Own(records) => records.pending_output(),
            Records::OpenSsl(records) => records.pending_output(),
        }
    }

    /// A sealed close_notify alert, to be sent last.
    pub fn close_notify(&mut self) -> Vec<u8> {
        match &mut self.records {
            Records::Own(records) => records.alert(LEVEL_WARNING, ALERT_CLOSE_NOTIFY),
            Records::OpenSsl(records) => records.close_notify(),
        }
    }

    /// The sealed fatal alert for an error of this session. Empty after an alert of the peer's: an
    /// alert is not answered with one.
    pub fn fatal_alert(&mut self, error: RecordError) -> Vec<u8> {
        let Some(description) = error.alert_description() else {
            return Vec::new();
        };
        match &mut self.records {
            Records::Own(records) => records.alert(LEVEL_FATAL, description),
            // OpenSSL has written its alert when it found the error.
            Records::OpenSsl(records) => records.pending_output(),
        }
    }

    /// For a session nothing has been said in for a while: keeps the raw keys alone, a sixth of what it
    /// has cost. It goes on where it stopped; the next record takes a microsecond more. A session that
    /// OpenSSL carries (CBC) stays as it is.
    pub fn rest(&mut self) {
        match &mut self.records {
            Records::Own(records) => records.rest(),
            Records::OpenSsl(_) => {}
        }
    }

    /// Reduces the session to its raw keys, so that it costs little while idle;
    /// [`TrafficKeys::into_session`] is the way back. A session that OpenSSL carries (CBC), that has
    /// output pending or was closed by the peer cannot be reduced and comes back as it was.
    pub fn into_traffic_keys(self) -> Result<TrafficKeys, Self> {
        match self.records {
            Records::Own(records) => records.into_traffic_keys().map_err(Self::from_record_layer),
            Records::OpenSsl(_) => Err(self),
        }
    }

    /// The suite by OpenSSL name, for metrics and logs.
    #[must_use]
    pub fn suite(&self) -> &'static str {
        match &self.records {
            Records::Own(records) => records.suite(),
            Records::OpenSsl(records) => records.suite(),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, redacted)", self.suite())
    }
}

impl RecordError {
    /// The alert that tells the peer (RFC 5246 section 7.2.2).
    const fn alert_description(self) -> Option<u8> {
        match self {
            Self::UnexpectedMessage => Some(ALERT_UNEXPECTED_MESSAGE),
            Self::BadRecordMac => Some(ALERT_BAD_RECORD_MAC),
            Self::RecordOverflow => Some(ALERT_RECORD_OVERFLOW),
            Self::KeysExhausted | Self::Other => Some(ALERT_INTERNAL_ERROR),
            Self::AlertReceived(_) => None,
        }
    }
}
