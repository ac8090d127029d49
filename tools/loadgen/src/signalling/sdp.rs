//! The UE's offer and what it needs of the answer (RFC 4975 section 8, RFC 6135, RFC 4567).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_protocol::msrp::Uri;

/// The UE's MSRP URI.
#[must_use]
pub fn local_path(address: IpAddr, session_id: &str, secure: bool) -> String {
    let scheme = if secure { "msrps" } else { "msrp" };
    let host = bracketed(address);
    // The UE is active and listens nowhere: the discard port (RFC 4145 section 4.1).
    format!("{scheme}://{host}:{DISCARD_PORT}/{session_id};tcp")
}

/// The offer of a chat UE that connects.
#[must_use]
pub fn offer(address: IpAddr, local_path: &str, transfer_init: Option<&[u8]>) -> String {
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let protocol = if transfer_init.is_some() {
        "TCP/TLS/MSRP"
    } else {
        "TCP/MSRP"
    };
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n\
         m=message {DISCARD_PORT} {protocol} *\r\na=setup:active\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:text/plain\r\n\
         a=path:{local_path}\r\n"
    );
    if let Some(message) = transfer_init {
        let _ = write!(sdp, "a=key-mgmt:mikey {}\r\n", STANDARD.encode(message));
    }
    sdp
}

/// What the answer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Where to connect.
    pub address: SocketAddr,
    /// `a=path`.
    pub path: String,
    /// TRANSFER_RESP.
    pub transfer_response: Option<Vec<u8>>,
}

/// Why an answer is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// No SDP, or none with an MSRP media line.
    NoMessageMedia,
    /// The media line was refused (port 0).
    MediaRefused,
    /// Another transport than offered.
    Protocol,
    /// The node wants to connect as well.
    BothActive,
    /// `a=path` is missing or no MSRP URI with a port.
    Path,
    /// Neither `a=path` nor `c=` has an IP address.
    Address,
    /// `a=key-mgmt` is missing or not in base64.
    KeyManagement,
}

/// Reads the answer to an offer of [`offer`].
pub fn answer(sdp: &[u8], secure: bool) -> Result<Answer, Unusable> {
    let sdp = std::str::from_utf8(sdp).map_err(|_| Unusable::NoMessageMedia)?;
    let mut connection = None;
    let mut media = None;
    let mut path = None;
    let mut setup = None;
    let mut transfer_response = None;
    for line in sdp.lines() {
        if let Some(line) = line.strip_prefix("m=") {
            if media.is_some() {
                break;
            }
            media = line.starts_with("message ").then_some(line);
        } else if let Some(line) = line.strip_prefix("c=") {
            connection = line.split(' ').nth(2).and_then(|host| host.parse().ok());
        } else if let Some(value) = line.strip_prefix("a=path:") {
            path = Some(value.trim());
        } else if let Some(value) = line.strip_prefix("a=setup:") {
            setup = Some(value.trim());
        } else if let Some(value) = line.strip_prefix("a=key-mgmt:mikey ") {
            transfer_response = Some(value.trim());
        }
    }
    let mut media = media.ok_or(Unusable::NoMessageMedia)?.split(' ').skip(1);
    let port = media.next().ok_or(Unusable::NoMessageMedia)?;
    if port == "0" {
        return Err(Unusable::MediaRefused);
    }
    let expected = if secure { "TCP/TLS/MSRP" } else { "TCP/MSRP" };
    if media.next() != Some(expected) {
        return Err(Unusable::Protocol);
    }
    if setup == Some("active") {
        return Err(Unusable::BothActive);
    }
    let path = path.ok_or(Unusable::Path)?;
    // The first hop is the one to connect to.
    let first = path.split(' ').next().unwrap_or(path);
    let uri = Uri::parse(first.as_bytes()).map_err(|_| Unusable::Path)?;
    let port = uri.port.ok_or(Unusable::Path)?;
    let host: Option<IpAddr> = std::str::from_utf8(uri.host)
        .ok()
        .and_then(|host| host.parse().ok());
    let host = host.or(connection).ok_or(Unusable::Address)?;
    let transfer_response = match (secure, transfer_response) {
        (false, _) => None,
        (true, None) => return Err(Unusable::KeyManagement),
        (true, Some(text)) => {
            let message = STANDARD.decode(text);
            Some(message.map_err(|_| Unusable::KeyManagement)?)
        }
    };
    Ok(Answer {
        address: SocketAddr::new(host, port),
        path: path.to_owned(),
        transfer_response,
    })
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

const DISCARD_PORT: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.5\r\ns=-\r\nc=IN IP4 192.0.2.5\r\nt=0 0\r\n\
        m=message 2855 TCP/MSRP *\r\na=setup:passive\r\n\
        a=path:msrp://192.0.2.5:2855/Zr81hYp0;tcp\r\na=accept-types:message/cpim\r\n";

    #[test]
    fn reads_where_to_connect() {
        let answer = answer(ANSWER.as_bytes(), false).unwrap();
        assert_eq!(answer.address, "192.0.2.5:2855".parse().unwrap());
        assert_eq!(answer.path, "msrp://192.0.2.5:2855/Zr81hYp0;tcp");
        assert_eq!(answer.transfer_response, None);
    }

    #[test]
    fn says_why_an_answer_is_of_no_use() {
        for (from, to, secure, why) in [
            (
                "m=message 2855",
                "m=message 0",
                false,
                Unusable::MediaRefused,
            ),
            ("m=message", "m=audio", false, Unusable::NoMessageMedia),
            ("a=path", "a=road", false, Unusable::Path),
            (":passive", ":active", false, Unusable::BothActive),
            ("TCP/MSRP", "TCP/TLS/MSRP", false, Unusable::Protocol),
            ("TCP/MSRP", "TCP/TLS/MSRP", true, Unusable::KeyManagement),
        ] {
            let sdp = ANSWER.replacen(from, to, 1);
            assert_eq!(answer(sdp.as_bytes(), secure), Err(why), "{from} -> {to}");
        }
        assert_eq!(answer(b"", false), Err(Unusable::NoMessageMedia));
    }

    #[test]
    fn offers_a_key_only_with_tls() {
        let address = "192.0.2.1".parse().unwrap();
        let path = local_path(address, "abc", true);
        assert_eq!(path, "msrps://192.0.2.1:9/abc;tcp");
        let sdp = offer(address, &path, Some(&[1, 2, 3]));
        assert!(sdp.contains("m=message 9 TCP/TLS/MSRP *\r\n"));
        assert!(sdp.contains("a=key-mgmt:mikey AQID\r\n"));
        assert!(!offer(address, &path, None).contains("key-mgmt"));
    }
}
