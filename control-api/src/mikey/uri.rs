//! Comparing the URIs that MIKEY identities are (RFC 6043 section 6.6, TS 23.333 clause 6.2.19).

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

/// `uri` without parameters and headers, scheme and host in lower case.
#[must_use]
pub fn normalise(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return uri.to_owned();
    };
    let (user, host) = split_user(rest);
    // A user part may contain ';' and '?', a host may not.
    let host = host.split([';', '?', '>']).next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    match user {
        Some(user) => format!("{scheme}:{user}@{}", host.to_ascii_lowercase()),
        None => format!("{scheme}:{}", host.to_ascii_lowercase()),
    }
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
