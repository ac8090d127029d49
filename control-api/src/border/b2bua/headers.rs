//! What crosses the border, header by header. [`RULES`] is the one place that says so: to change what
//! becomes of a header is to change its line, and what has no line is carried as it is.

use std::net::IpAddr;

use rsipstack::sip::{Header, Headers};

use super::super::SideRole;
use super::mediasec;
use super::side::Side;

/// What becomes of a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// Belongs to one side; what the other one needs of the kind is written by us.
    Own,
    /// Names a user: is carried, but a numeric host in it is ours.
    User,
    /// Who the network says it is: believed of trusted sides alone, and told to them and, where no Privacy
    /// forbids it, to UEs (RFC 3325 section 5, TS 24.229 clause 5.2.6).
    Asserted,
    /// What a user would like to be: consumed where its side is not trusted (RFC 3325 section 9.2).
    Preferred,
    /// Of the network: crosses between trusted sides alone (TS 24.229 clause 4.4).
    Network,
    /// For the network: goes to trusted sides alone, wherever it comes from.
    ForNetwork,
    /// Credentials: what a border says in them of how they came is not the user's to say (TS 24.229 clause
    /// 5.2.2).
    Credentials,
    /// Option tags: those that are settled on one side are taken out.
    Options,
    /// Security mechanisms: those for media are settled on one side and taken out (RFC 3329).
    Mechanisms,
    /// Its agent is who adds it to the message: us (RFC 3261 section 20.43).
    Warning,
}

/// Header, compact form, rule.
const RULES: &[(&str, &str, Rule)] = &[
    // RFC 3261: transactions, dialogs and hops.
    ("Via", "v", Rule::Own),
    ("Route", "", Rule::Own),
    ("Record-Route", "", Rule::Own),
    ("Contact", "m", Rule::Own),
    ("Call-ID", "i", Rule::Own),
    ("CSeq", "", Rule::Own),
    ("From", "f", Rule::Own),
    ("To", "t", Rule::Own),
    ("Max-Forwards", "", Rule::Own),
    ("Content-Length", "l", Rule::Own),
    ("Timestamp", "", Rule::Own),
    ("Path", "", Rule::Own),
    ("Service-Route", "", Rule::Own),
    ("RAck", "", Rule::Own),
    // Each names a dialog as this side knows it: there is none of that name on the other (RFC 3891, RFC 3911,
    // RFC 4538).
    ("Replaces", "", Rule::Own),
    ("Join", "", Rule::Own),
    ("Target-Dialog", "", Rule::Own),
    // What we are is no business of the other side, nor is what its user agent is.
    ("User-Agent", "", Rule::Own),
    ("Server", "", Rule::Own),
    ("Organization", "", Rule::Own),
    ("Error-Info", "", Rule::Network),
    ("Alert-Info", "", Rule::Network),
    ("Warning", "", Rule::Warning),
    ("Reply-To", "", Rule::User),
    ("Referred-By", "b", Rule::User),
    ("P-Called-Party-ID", "", Rule::User),
    ("P-Associated-URI", "", Rule::User),
    ("Remote-Party-ID", "", Rule::Asserted),
    ("P-Asserted-Identity", "", Rule::Asserted),
    ("P-Preferred-Identity", "", Rule::Preferred),
    ("History-Info", "", Rule::Network),
    ("Diversion", "", Rule::Network),
    ("P-Charging-Vector", "", Rule::Network),
    ("P-Charging-Function-Addresses", "", Rule::Network),
    ("P-Visited-Network-ID", "", Rule::Network),
    ("P-Served-User", "", Rule::Network),
    ("P-Profile-Key", "", Rule::Network),
    ("P-User-Database", "", Rule::Network),
    ("P-Asserted-Service", "", Rule::Network),
    ("P-Private-Network-Indication", "", Rule::Network),
    ("Session-ID-Vector", "", Rule::Network),
    ("Feature-Caps", "", Rule::Network),
    ("Relayed-Charge", "", Rule::Network),
    ("P-Access-Network-Info", "", Rule::ForNetwork),
    ("Cellular-Network-Info", "", Rule::ForNetwork),
    ("Authorization", "", Rule::Credentials),
    ("Proxy-Authorization", "", Rule::Credentials),
    ("Require", "", Rule::Options),
    ("Proxy-Require", "", Rule::Options),
    ("Supported", "k", Rule::Options),
    ("Security-Client", "", Rule::Mechanisms),
    ("Security-Server", "", Rule::Mechanisms),
    ("Security-Verify", "", Rule::Mechanisms),
];

/// The headers of a message that go on, as they go on.
pub(super) fn cross(headers: &Headers, from: &Side, to: &Side) -> Vec<Header> {
    let private = asks_for_privacy(headers);
    headers.iter().filter_map(|header| cross_one(header, from, to, private)).collect()
}

fn cross_one(header: &Header, from: &Side, to: &Side, private: bool) -> Option<Header> {
    let (name, value) = (header.name(), header.value());
    let Some((name, rule)) = rule_of(name) else { return Some(header.clone()) };
    let both_trusted = from.trusted && to.trusted;
    let told = to.trusted || (to.role == SideRole::Access && !private);
    let carried = match rule {
        Rule::Own => None,
        Rule::User => Some(hide_host(value, to)),
        Rule::Asserted => (from.trusted && told).then(|| hide_host(value, to)),
        Rule::Preferred => from.trusted.then(|| hide_host(value, to)),
        Rule::Network => both_trusted.then(|| value.to_owned()),
        Rule::ForNetwork if !to.trusted => None,
        Rule::ForNetwork if from.trusted => Some(value.to_owned()),
        Rule::ForNetwork => without_provided(value),
        Rule::Credentials if from.trusted => Some(value.to_owned()),
        Rule::Credentials => Some(without_protection(value)),
        Rule::Options => mediasec::without_option(value),
        Rule::Mechanisms => mediasec::without_media_mechanisms(value),
        Rule::Warning => Some(warning_of_ours(value, to)),
    };
    carried.map(|value| made(name, value))
}

/// Access network information without what only the network may say of it.
fn without_provided(value: &str) -> Option<String> {
    let said = |it: &&str| !it.to_ascii_lowercase().contains("network-provided");
    let kept: Vec<&str> = split_unquoted(value, ',').into_iter().filter(said).collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Credentials without `integrity-protected`: a registrar that read it of a user's own hand would not ask for a
/// password.
fn without_protection(value: &str) -> String {
    const PROTECTED: &str = "integrity-protected";
    if !value.to_ascii_lowercase().contains(PROTECTED) {
        return value.to_owned();
    }
    let (scheme, parameters) = value.trim().split_once([' ', '\t']).unwrap_or((value, ""));
    let kept = split_quoted(parameters, ',', false).into_iter().map(str::trim).filter(|it| {
        !it.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(PROTECTED)
    });
    format!("{scheme} {}", kept.collect::<Vec<_>>().join(", "))
}

/// A header as the stack keeps one that it has read.
pub(super) fn made(name: &str, value: String) -> Header {
    rsipstack::sip::headers::make_header(name, value)
}

fn rule_of(name: &str) -> Option<(&'static str, Rule)> {
    let is = |long: &str, short: &str| {
        name.eq_ignore_ascii_case(long) || (!short.is_empty() && name.eq_ignore_ascii_case(short))
    };
    RULES.iter().find(|(long, short, _)| is(long, short)).map(|(long, _, rule)| (*long, *rule))
}

//= RFC 3325 section 9.3: The presence of this privacy type in a Privacy header field indicates that the
//= user would like the Network Asserted Identity to be kept private with respect to SIP entities
//= outside the Trust Domain
fn asks_for_privacy(headers: &Headers) -> bool {
    let values = headers.iter().filter(|header| header.name().eq_ignore_ascii_case("Privacy"));
    values.flat_map(|header| header.value().split([';', ','])).any(|priv_value| {
        ["id", "user", "header"].iter().any(|it| priv_value.trim().eq_ignore_ascii_case(it))
    })
}

/// The value of a header that names a user, without an address of the other side in the host of its URI.
pub(super) fn hide_host(value: &str, to: &Side) -> String {
    let Some((begin, end)) = host_range(value) else { return value.to_owned() };
    if !is_numeric(&value[begin..end]) {
        return value.to_owned();
    }
    format!("{}{}{}", &value[..begin], to.contact_udp, &value[end..])
}

/// Where host and port of the first SIP URI of a value are.
pub(super) fn host_range(value: &str) -> Option<(usize, usize)> {
    // A display name may hold anything; the URI behind it is in brackets.
    let bracket = crate::sip::wire::unquoted_position(value.as_bytes(), b'<').flatten();
    let from = bracket.unwrap_or_default();
    let lower = value[from..].to_ascii_lowercase();
    let schemes = ["sip:", "sips:"].iter();
    let uri = from + schemes.filter_map(|it| Some(lower.find(it)? + it.len())).min()?;
    let end = value[uri..].find(['>', '?', ',', ' ']).map_or(value.len(), |at| uri + at);
    let begin = value[uri..end].rfind('@').map_or(uri, |at| uri + at + 1);
    let end = value[begin..end].find(';').map_or(end, |at| begin + at);
    Some((begin, end))
}

/// The URI of a name-addr or an addr-spec, whatever a display name says; `None` where that is not clear.
pub(super) fn uri_of(value: &str) -> Option<&str> {
    let uri = match crate::sip::wire::unquoted_position(value.as_bytes(), b'<')? {
        Some(bracket) => {
            let (uri, behind) = value[bracket + 1..].split_once('>')?;
            let behind = behind.trim_start();
            (behind.is_empty() || behind.starts_with(';')).then_some(uri)?
        }
        None => value.split(';').next()?,
    };
    let uri = uri.trim();
    (!uri.is_empty() && !uri.contains(['<', '"', ' ', '\t'])).then_some(uri)
}

/// Whether `host[:port]` has an address for a host.
pub(super) fn is_numeric(host: &str) -> bool {
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.parse::<IpAddr>().is_ok()
}

fn warning_of_ours(value: &str, to: &Side) -> String {
    let mut parts = value.splitn(3, ' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(code), Some(_), Some(text)) => format!("{code} {} {text}", to.contact_udp),
        _ => value.to_owned(),
    }
}

/// Parameters of a Contact that say what its user agent can do; GRUUs name it on its own side (RFC 5627).
pub(super) fn contact_parameters(headers: &Headers) -> String {
    let contact = headers.iter().find_map(|header| match header {
        Header::Contact(contact) => Some(contact.value()),
        _ => None,
    });
    // A second Contact is none that we answer for.
    let first = contact.and_then(|value| split_unquoted(value, ',').into_iter().next());
    let kept = parameters(first.unwrap_or_default()).into_iter().filter(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default().trim();
        let own = ["pub-gruu", "temp-gruu", "expires", "q"];
        !name.is_empty() && !own.iter().any(|it| name.eq_ignore_ascii_case(it))
    });
    kept.fold(String::new(), |text, parameter| text + ";" + parameter)
}

/// The parameters of a name-addr; without brackets they are those of its URI.
pub(super) fn parameters(value: &str) -> Vec<&str> {
    let mut parts = split_unquoted(value, ';').into_iter();
    match parts.next() {
        Some(address) if address.contains('<') => parts.map(str::trim).collect(),
        _ => Vec::new(),
    }
}

/// The parts between separators that are in no quoted string and no brackets.
pub(super) fn split_unquoted(value: &str, separator: char) -> Vec<&str> {
    split_quoted(value, separator, true)
}

fn split_quoted(value: &str, separator: char, brackets: bool) -> Vec<&str> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    let parts = value.split(move |character: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match character {
            '\\' if quoted => escaped = true,
            '"' if !bracketed => quoted = !quoted,
            '<' if !quoted => bracketed = brackets,
            '>' if !quoted => bracketed = false,
            _ => {}
        }
        character == separator && !quoted && !bracketed
    });
    parts.collect()
}

/// All values of a header, one by one.
pub(super) fn values<'a>(headers: &'a Headers, name: &str) -> Vec<&'a str> {
    let of_name = headers.iter().filter(|header| header.name().eq_ignore_ascii_case(name));
    of_name.flat_map(|header| split_unquoted(header.value(), ',')).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_user_is_found_behind_whatever_the_display_name_says() {
        for (value, host) in [
            ("\"sip:a@b\" <sip:alice@10.0.0.1:5070;transport=tcp>;tag=1", "10.0.0.1:5070"),
            ("\"<sip:a@b>\" <sip:alice@10.0.0.1>;tag=1", "10.0.0.1"),
            ("<sip:10.0.0.1>", "10.0.0.1"),
            ("sip:alice@[2001:db8::1];tag=1", "[2001:db8::1]"),
            ("<sips:a;x=y@example.com?subject=x>", "example.com"),
        ] {
            let (begin, end) = host_range(value).expect(value);
            assert_eq!(&value[begin..end], host);
        }
        assert_eq!(host_range("<tel:+1234>"), None);
    }

    #[test]
    fn a_display_name_is_no_address() {
        for (value, uri) in [
            ("\"x<sip:a@b>\" <sip:c@d;x=y>;tag=1", Some("sip:c@d;x=y")),
            ("sip:c@d;tag=1", Some("sip:c@d")),
            ("<tel:+49>", Some("tel:+49")),
            ("<sip:a@b> <sip:c@d>", None),
            ("<<sip:a@b>", None),
            ("\"open <sip:a@b>", None),
            ("Alice", Some("Alice")),
        ] {
            assert_eq!(uri_of(value), uri, "{value}");
        }
    }

    #[test]
    fn every_header_has_one_rule() {
        for (at, (name, short, _)) in RULES.iter().enumerate() {
            let again = RULES[at + 1..].iter().any(|(other, compact, _)| {
                other.eq_ignore_ascii_case(name) || (!short.is_empty() && compact == short)
            });
            assert!(!again, "{name}");
        }
    }

    #[test]
    fn separators_in_quotes_and_brackets_separate_nothing() {
        assert_eq!(
            split_unquoted("<sip:a;b>;x=\"1;\\\"2;\";y", ';'),
            ["<sip:a;b>", "x=\"1;\\\"2;\"", "y"]
        );
    }
}
