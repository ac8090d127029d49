//! Comparing the URIs that MIKEY identities are (RFC 6043 section 6.6, TS 23.333 clause 6.2.19).

use mrfp_protocol::user_uri;

use super::error::Error;

/// Longest URI we put into a message; SIP stacks refuse far shorter ones.
pub const URI_BYTES_MAX: usize = 1024;

/// A set of URIs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UriPattern {
    /// This one.
    Exact(String),
    /// Every URI of this host or domain, whatever the user and the port.
    Host(String),
    /// All of them.
    Any,
}

impl UriPattern {
    /// Whether `uri` belongs to the set. Scheme and host compare without regard to case, parameters
    /// do not count (TS 23.333: the identity is the URI of From or To).
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        match self {
            Self::Exact(exact) => normalise(exact) == normalise(uri),
            Self::Host(host) => host_of(uri).is_some_and(|its| its.eq_ignore_ascii_case(host)),
            Self::Any => true,
        }
    }
}

/// The form of `uri` that is the same for all spellings of one identity: without parameters and
/// headers, scheme and host in lower case.
#[must_use]
pub fn normalise(uri: &str) -> String {
    let mut normal = Vec::with_capacity(uri.len());
    user_uri::normalise(uri.as_bytes(), &mut normal);
    // Only ASCII is changed, and only into ASCII.
    String::from_utf8(normal).unwrap_or_else(|error| unreachable!("{error}"))
}

fn split_user(rest: &str) -> (Option<&str>, &str) {
    match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    }
}

/// Host without port; brackets of an IPv6 reference stay.
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once(':')?;
    let (_, host) = split_user(rest);
    let host = host.split([';', '?', '>']).next()?;
    if host.starts_with('[') {
        return host.find(']').map(|end| &host[..=end]);
    }
    host.split(':').next()
}

pub(crate) fn bounded(uri: &str) -> Result<&str, Error> {
    if uri.len() > URI_BYTES_MAX {
        return Err(Error::IdentityTooLong(uri.len()));
    }
    Ok(uri)
}
