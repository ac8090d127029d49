//! TLS for the media plane: OpenSSL performs the PSK handshake in memory, our record layer carries
//! the data, in place.

use std::ops::Range;

use zeroize::Zeroize;

/// Bytes that must be free before the plaintext handed to [`Session::seal`].
pub const SEAL_HEADROOM_BYTES: usize = 13;
/// Bytes that must be free behind it.
pub const SEAL_TAILROOM_BYTES: usize = 128;
/// Most plaintext one record carries (RFC 5246 section 6.2.1).
pub const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest record on the wire: header and the expansion RFC 5246 section 6.2.3 allows.
pub const RECORD_BYTES_MAX: usize = 5 + PLAINTEXT_BYTES_MAX + 2048;

/// A pre-shared key: the TEK of one MIKEY crypto session. Zeroised on drop, never printed.
#[derive(Clone)]
pub struct Psk(Vec<u8>);

impl Psk {
    /// Takes the key over. 16 to 64 bytes (RFC 4279 section 5.3 demands support up to 64).
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (16..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Psk {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Psk(redacted)")
    }
}

/// What both ends are willing to speak.
#[derive(Clone, Debug)]
pub struct ProfileConfig {
    /// TLS 1.2 suites by OpenSSL name (`ECDHE-PSK-CHACHA20-POLY1305`), most wanted first.
    pub suites: Vec<String>,
    /// Offer and accept TLS 1.3 with an external PSK.
    pub tls13: bool,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            suites: Vec::new(),
            tls13: false,
        }
    }
}

/// A checked configuration, made once per shard; every handshake starts from it.
pub struct Profile {}

/// The configuration names something OpenSSL does not have.
#[derive(Debug)]
pub struct ProfileError(pub String);

impl Profile {
    /// Checks and prepares.
    pub fn new(_config: &ProfileConfig) -> Result<Self, ProfileError> {
        Ok(Self {})
    }
}

/// A handshake in progress, driven in memory.
pub struct Handshake {}

/// Where a handshake stands after [`Handshake::advance`].
pub enum Progress {
    /// Everything given was consumed (whole records) or is an incomplete record: come back with
    /// more bytes.
    NeedInput,
    /// Server role: the client has named itself; look the identity up and call
    /// [`Handshake::provide_psk`], then `advance` again (with the rest of the input).
    NeedPsk,
    /// Done. The session carries data from the next byte of the input on.
    Done(Session),
}

/// The handshake failed. What was appended to `output` (an alert) is to be sent before closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's Finished (or binder) does not fit our key: wrong key or unknown identity.
    Authentication,
    /// No suite or version in common.
    NoCommonParameters,
    /// The peer sent a fatal alert.
    AlertReceived(u8),
    /// The bytes are no handshake.
    Malformed,
    /// OpenSSL refused for another reason.
    Other,
}

impl Handshake {
    /// We answer.
    pub fn server(_profile: &Profile) -> Result<Self, HandshakeError> {
        Ok(Self {})
    }

    /// We begin; the first `advance` (with no input) writes the ClientHello.
    pub fn client(
        _profile: &Profile,
        _identity: &[u8],
        _psk: &Psk,
    ) -> Result<Self, HandshakeError> {
        Ok(Self {})
    }

    /// Takes whole records from the front of `input`, appends what must be sent to `output`.
    /// Returns how many bytes of `input` were taken (never part of a record, never a record after
    /// the one that completed the handshake) and where the handshake stands.
    pub fn advance(
        &mut self,
        _input: &[u8],
        _output: &mut Vec<u8>,
    ) -> Result<(usize, Progress), HandshakeError> {
        Ok((0, Progress::NeedInput))
    }

    /// The identity the client named, after [`Progress::NeedPsk`].
    #[must_use]
    pub fn identity(&self) -> &[u8] {
        &[]
    }

    /// Answers [`Progress::NeedPsk`]. `None`: unknown identity; the handshake goes on with a
    /// random key and fails exactly as it does for a wrong key.
    pub fn provide_psk(&mut self, _psk: Option<&Psk>) {}
}

/// An established session: traffic keys and sequence numbers (or, for CBC suites, OpenSSL).
pub struct Session {}

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
    /// Opens the record at the front of `input`, in place.
    pub fn open(&mut self, _input: &mut [u8]) -> Result<Opened, RecordError> {
        Ok(Opened::NeedInput)
    }

    /// Seals `memory[plaintext]` in place as one record and returns where the record lies. Needs
    /// [`SEAL_HEADROOM_BYTES`] before and [`SEAL_TAILROOM_BYTES`] behind; at most
    /// [`PLAINTEXT_BYTES_MAX`] of plaintext.
    pub fn seal(
        &mut self,
        _memory: &mut [u8],
        plaintext: Range<usize>,
    ) -> Result<Range<usize>, RecordError> {
        Ok(plaintext)
    }

    /// Sealed bytes the record layer itself wants to send (an answer to a key update, a
    /// no_renegotiation warning); drains.
    pub fn pending_output(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// A sealed close_notify alert, to be sent last.
    pub fn close_notify(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The sealed fatal alert for an error of this session.
    pub fn fatal_alert(&mut self, _error: RecordError) -> Vec<u8> {
        Vec::new()
    }

    /// The suite by OpenSSL name, for metrics and logs.
    #[must_use]
    pub fn suite(&self) -> &'static str {
        ""
    }
}
