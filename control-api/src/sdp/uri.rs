//! MSRP URIs as they stand in `a=path` (RFC 4975 section 6).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The parts of an MSRP URI that session set-up needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsrpUri {
    /// `msrps`.
    pub secure: bool,
    /// Where it points.
    pub host: Host,
    /// Port; RFC 4975 section 6 requires one wherever no relay lookup is wanted.
    pub port: Option<u16>,
    /// Names the session at that host, not empty.
    pub session_id: String,
}

/// An address, or a name nobody here resolves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A domain name, in lower case.
    Name(String),
}

impl MsrpUri {
    /// Reads `msrp[s]://[user@]host[:port]/session-id;tcp[;parameter]`. `None`: not such a URI.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Visible ASCII without the delimiters that RFC 3986 excludes: the text is handed on to the
        // media plane and must not be able to end a line there.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let secure = if scheme.eq_ignore_ascii_case("msrp") {
            false
        } else if scheme.eq_ignore_ascii_case("msrps") {
            true
        } else {
            return None;
        };
        let (authority, resource) = rest.split_once('/')?;
        let mut parameters = resource.split(';');
        let session_id = parameters.next()?;
        let transport = parameters.next()?;
        // RFC 4975 section 6: the transport parameter is mandatory and TCP is the only one that a
        // TCP/MSRP m-line can mean.
        if session_id.is_empty() || !transport.eq_ignore_ascii_case("tcp") {
            return None;
        }
        let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
        let (host, port) = split_host_port(host_port)?;
        Some(Self { secure, host, port, session_id: session_id.to_owned() })
    }

    /// Where it points, if it says so with an address and a port.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(address) => Some(SocketAddr::new(*address, self.port?)),
            Host::Name(_) => None,
        }
    }
}

impl Host {
    /// Reads an address (IPv6 without brackets) or a domain name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Ip(address));
        }
        let is_name = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_name.then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

fn split_host_port(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        (Host::Ip(address.into()), port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Host::parse(host)?, Some(port)),
            None => (Host::parse(text)?, None),
        }
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
        None => None,
    };
    Some((host, port))
}
