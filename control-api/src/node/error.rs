//! Why a node did not start, in one line with a remedy.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use crate::config::Config;

/// A node could not start.
#[derive(Debug)]
pub enum StartError {
    /// The media plane could not.
    Media(mrfp_core::StartError),
    /// An address could not be listened on.
    Listen {
        /// What for: `SIP over UDP`, `HTTP`, …
        purpose: &'static str,
        /// Where.
        address: SocketAddr,
        /// Setting to change.
        setting: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The operating system refused something else.
    System(io::Error),
}

impl StartError {
    pub(super) fn http(config: &Config, error: io::Error) -> Self {
        let address = config.http.listen;
        Self::Listen { purpose: "HTTP", address, setting: "http.listen", error }
    }

    pub(super) fn kms(config: &Config, error: io::Error) -> Self {
        let address = config.kms.listen;
        Self::Listen { purpose: "the KMS", address, setting: "kms.listen", error }
    }

    pub(super) fn sip(config: &Config, error: io::Error) -> Self {
        // The front binds two sockets and reports one error: trying again tells which it was.
        if UdpSocket::bind(config.sip.udp).is_err() {
            let address = config.sip.udp;
            return Self::Listen { purpose: "SIP over UDP", address, setting: "sip.udp", error };
        }
        let address = config.sip.tcp;
        Self::Listen { purpose: "SIP over TCP", address, setting: "sip.tcp", error }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Media(mrfp_core::StartError::Listen { address, error }) => {
                write_listen(f, "media", *address, "media.port", error)
            }
            Self::Media(mrfp_core::StartError::Ring(error)) => write!(
                f,
                "io_uring cannot be used ({error}): run on Linux 6.1 or newer, allow it with \
                 `sysctl kernel.io_uring_disabled=0`, in a container also in its seccomp profile \
                 (Docker's default one forbids it)"
            ),
            Self::Media(error) => write!(f, "{error}"),
            Self::Listen { purpose, address, setting, error } => {
                write_listen(f, purpose, *address, setting, error)
            }
            Self::System(error) => write!(f, "the operating system refuses: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

fn write_listen(
    f: &mut fmt::Formatter<'_>,
    purpose: &str,
    address: SocketAddr,
    setting: &str,
    error: &io::Error,
) -> fmt::Result {
    write!(f, "cannot listen on {address} for {purpose}: ")?;
    match error.kind() {
        io::ErrorKind::AddrInUse => write!(
            f,
            "the port is in use; stop what uses it (ss -lntup shows it) or change {setting}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            write!(f, "this machine has no such address; change {setting}")
        }
        io::ErrorKind::PermissionDenied => write!(
            f,
            "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, or change {setting}"
        ),
        _ => write!(f, "{error}; change {setting}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_io_uring_is_named_with_its_remedies_in_one_line() {
        // What the call gives where a container's seccomp profile or the sysctl forbids it, and
        // where the kernel has none.
        for number in [1, 38] {
            let error = io::Error::from_raw_os_error(number);
            let text = StartError::Media(mrfp_core::StartError::Ring(error)).to_string();
            assert!(text.starts_with("io_uring cannot be used ("), "{text}");
            for remedy in ["Linux 6.1", "kernel.io_uring_disabled", "seccomp"] {
                assert!(text.contains(remedy), "{text}");
            }
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn a_refused_address_is_named_with_its_setting() {
        for (kind, word) in [
            (io::ErrorKind::AddrInUse, "in use"),
            (io::ErrorKind::AddrNotAvailable, "no such address"),
            (io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
        ] {
            let text = StartError::http(&Config::default(), kind.into()).to_string();
            for part in ["127.0.0.1:8080", "HTTP", "http.listen", word] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
