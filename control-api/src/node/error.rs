//! Why a node did not start, in one line with a remedy.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use mrfp_io::ProbeError;

use crate::config::{CertificateProblem, Config};

/// A node could not start.
#[derive(Debug)]
pub enum StartError {
    /// This machine, or what confines us on it, does not offer the io_uring we need.
    Ring(ProbeError),
    /// The media plane could not.
    Media(mrfp_core::StartError),
    /// The certificate, which had been good when the configuration was checked, cannot be used.
    Certificate(CertificateProblem),
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
    /// A side of the border could not be listened on.
    Border(io::Error),
    /// The KMS, ours or that of others.
    Kms(String),
    /// The webhook cannot be used.
    Events(String),
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
            Self::Ring(error) => write!(f, "{error}"),
            Self::Certificate(problem) => write!(f, "{problem}"),
            Self::Kms(problem) | Self::Events(problem) => write!(f, "{problem}"),
            Self::Media(mrfp_core::StartError::Listen { address, error }) => {
                write_listen(f, "media", *address, "media.port", error)
            }
            Self::Media(error) => write!(f, "{error}"),
            Self::Listen { purpose, address, setting, error } => {
                write_listen(f, purpose, *address, setting, error)
            }
            Self::Border(error) => {
                write!(f, "cannot listen on a side of the border: {error}; change its udp and tcp")
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
        for (error, remedy) in [
            (ProbeError::Missing, "Linux 6.1"),
            (ProbeError::DisabledBySysctl(2), "sysctl -w kernel.io_uring_disabled=0"),
            (ProbeError::Forbidden, "seccomp=PROFILE.json"),
            (ProbeError::MemoryLocked(65_536), "ulimit -l unlimited"),
        ] {
            let text = StartError::Ring(error).to_string();
            assert!(text.contains(remedy), "{text}");
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
