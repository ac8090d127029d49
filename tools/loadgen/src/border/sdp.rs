//! What the ends say of their media, and what they read: one m-line.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use mrfp_protocol::tls::Fingerprint;

/// What the other side has said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Described {
    /// Where it is reached: `c=` and `m=`.
    pub(super) address: SocketAddr,
    /// Of the m-line: `TCP/MSRP`, `UDP/TLS/UDPTL`, …
    pub(super) protocol: String,
    /// `a=path`.
    pub(super) path: Option<String>,
    /// `a=fingerprint`, the first that can be read.
    pub(super) fingerprint: Option<Fingerprint>,
    /// `a=setup`.
    pub(super) setup: Option<String>,
}

/// Reads the first m-line, which must not be refused.
pub(super) fn read(sdp: &[u8]) -> Result<Described, String> {
    let text = std::str::from_utf8(sdp).map_err(|_| "SDP is not UTF-8")?;
    let (mut host, mut media) = (None, None);
    let (mut path, mut fingerprint, mut setup) = (None, None, None);
    for line in text.lines() {
        let Some((kind, value)) = line.split_once('=') else { continue };
        let attribute = |name: &str| value.strip_prefix(name)?.strip_prefix(':').map(str::trim);
        match kind {
            "m" if media.is_some() => break,
            "m" => {
                let mut words = value.split(' ').skip(1);
                let port: Option<u16> = words.next().and_then(|port| port.parse().ok());
                let port = port.ok_or_else(|| format!("no port in {line:?}"))?;
                let protocol = words.next().ok_or_else(|| format!("no protocol in {line:?}"))?;
                if port == 0 {
                    return Err("the m-line is refused".to_owned());
                }
                media = Some((port, protocol.to_owned()));
            }
            "c" => {
                let address = value.split(' ').nth(2).and_then(|address| address.parse().ok());
                host = Some(address.ok_or_else(|| format!("no IP address in {line:?}"))?);
            }
            "a" => {
                path = path.or(attribute("path").map(str::to_owned));
                setup = attribute("setup").map(str::to_owned).or(setup);
                let known_by = attribute("fingerprint");
                fingerprint =
                    fingerprint.or(known_by.and_then(|text| Fingerprint::parse(text).ok()));
            }
            _ => {}
        }
    }
    let (port, protocol) = media.ok_or("no m-line")?;
    let host: IpAddr = host.ok_or("no c= line")?;
    Ok(Described { address: (host, port).into(), protocol, path, fingerprint, setup })
}

/// One m-line of `address`, with its attributes.
pub(super) fn write(address: SocketAddr, media: &str, attributes: &[&str]) -> Vec<u8> {
    let (ip, port) = (address.ip(), address.port());
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let (kind, rest) = media.split_once(' ').unwrap_or((media, ""));
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m={kind} {port} {rest}\r\n"
    );
    for attribute in attributes {
        let _ = write!(sdp, "a={attribute}\r\n");
    }
    sdp.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let address = "192.0.2.1:9".parse().unwrap();
        let digits = vec!["0A"; 32].join(":");
        let known_by = format!("fingerprint:sha-256 {digits}");
        let attributes = ["path:msrps://192.0.2.1:9/x;tcp", "setup:active", &known_by];
        let sdp = write(address, "message TCP/TLS/MSRP *", &attributes);
        let described = read(&sdp).unwrap();
        assert_eq!(described.address, address);
        assert_eq!(described.protocol, "TCP/TLS/MSRP");
        assert_eq!(described.path.as_deref(), Some("msrps://192.0.2.1:9/x;tcp"));
        assert_eq!(described.setup.as_deref(), Some("active"));
        assert_eq!(described.fingerprint.unwrap().to_string(), format!("sha-256 {digits}"));
    }

    #[test]
    fn what_is_of_no_use_is_told() {
        let address = "192.0.2.1:7000".parse().unwrap();
        let text = String::from_utf8(write(address, "image udptl t38", &[])).unwrap();
        assert!(read(text.as_bytes()).is_ok());
        for (from, to) in
            [("7000", "0"), ("7000", "x"), ("c=IN IP4 192.0.2.1", "c=IN IP4 a.b"), ("m=", "x=")]
        {
            assert!(read(text.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
    }
}
