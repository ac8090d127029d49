//! The UE's offer and what it needs of the answer (RFC 4975 section 8, RFC 6135, RFC 4567).

use std::net::{IpAddr, SocketAddr};

use control_api::sdp::{
    Chatroom, ConnectionReuse, FloorProtocol, FloorStreamOffer, MessageSessionOffer, OfferedSetup,
    SdpError, offer_for_message_session, offer_for_message_session_and_floors, parse_answer,
    parse_floor_answer,
};
use mrfp_core::mp::Direction;
use mrfp_protocol::tls::Fingerprint;

/// The UE's MSRP URI.
#[must_use]
pub fn local_path(address: IpAddr, session_id: &str, secure: bool) -> String {
    let scheme = if secure { "msrps" } else { "msrp" };
    let address = SocketAddr::new(address, DISCARD_PORT);
    format!("{scheme}://{address}/{session_id};tcp")
}

/// The offer of a chat UE that connects; with TRANSFER_INIT one of a session with a key, without of
/// one that is secured by a certificate, if at all. Its path is the [`local_path`] of the same session-id.
#[must_use]
pub fn offer(
    address: IpAddr,
    session_id: &str,
    secure: bool,
    transfer_init: Option<&[u8]>,
) -> Vec<u8> {
    offer_for_message_session(&message_session(address, session_id, secure, transfer_init))
}

/// The same with floor control beside it; each of the two has a TRANSFER_INIT of its own.
#[must_use]
pub fn offer_with_floors(
    address: IpAddr,
    session_id: &str,
    secure: bool,
    transfer_inits: Option<(&[u8], &[u8])>,
) -> Vec<u8> {
    let of_messages = transfer_inits.map(|(of_messages, _)| of_messages);
    let floors = FloorStreamOffer {
        address: SocketAddr::new(address, DISCARD_PORT),
        protocol: if secure { FloorProtocol::Tls } else { FloorProtocol::Tcp },
        setup: OfferedSetup::Active,
        connection: ConnectionReuse::New,
        mikey: transfer_inits.map(|(_, of_floors)| of_floors),
    };
    let messages = message_session(address, session_id, secure, of_messages);
    offer_for_message_session_and_floors(&messages, &floors)
}

fn message_session<'a>(
    address: IpAddr,
    session_id: &'a str,
    secure: bool,
    transfer_init: Option<&'a [u8]>,
) -> MessageSessionOffer<'a> {
    MessageSessionOffer {
        session_id: 1,
        session_version: 1,
        address: SocketAddr::new(address, DISCARD_PORT),
        msrp_session_id: session_id,
        secure,
        setup: OfferedSetup::Active,
        accept_types: "message/cpim",
        accept_wrapped_types: "text/plain application/octet-stream",
        max_size_bytes: None,
        direction: Direction::SendRecv,
        cema: false,
        chatroom: Some(Chatroom::default()),
        mikey: transfer_init,
    }
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
    /// `a=fingerprint`.
    pub fingerprint: Option<Fingerprint>,
}

/// Why an answer is of no use.
#[derive(Debug)]
pub enum Unusable {
    /// It is no SDP, or its media line is refused or wrong.
    Sdp(SdpError),
    /// Protected although plain was offered, or the other way round.
    Protocol,
    /// The node wants to connect as well.
    BothActive,
    /// `a=path` names no IP address.
    Address,
    /// There is no floor to ask for.
    NoFloors,
    /// Neither `a=key-mgmt` nor an `a=fingerprint` that can be read.
    KeyManagement,
}

/// Reads the answer to an offer of [`offer`].
pub fn answer(sdp: &[u8], secure: bool) -> Result<Answer, Unusable> {
    let answer = parse_answer(sdp).map_err(Unusable::Sdp)?;
    if answer.secure != secure {
        return Err(Unusable::Protocol);
    }
    if answer.peer_is_active {
        return Err(Unusable::BothActive);
    }
    let fingerprint = answer.fingerprint.and_then(|text| Fingerprint::parse(&text).ok());
    if secure && answer.mikey.is_none() && fingerprint.is_none() {
        return Err(Unusable::KeyManagement);
    }
    Ok(Answer {
        address: answer.connect_to.ok_or(Unusable::Address)?,
        path: answer.path,
        transfer_response: answer.mikey,
        fingerprint,
    })
}

/// What the answer says of floor control.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorAnswer {
    /// Where to connect.
    pub address: SocketAddr,
    /// `a=confid`.
    pub conference_id: u32,
    /// `a=userid`.
    pub user_id: u16,
    /// `a=floorid`, each.
    pub floor_ids: Vec<u16>,
    /// TRANSFER_RESP.
    pub transfer_response: Option<Vec<u8>>,
}

/// Reads what the answer to an offer of [`offer_with_floors`] says of them.
pub fn floor_answer(sdp: &[u8], secure: bool) -> Result<FloorAnswer, Unusable> {
    let answer = parse_floor_answer(sdp).map_err(Unusable::Sdp)?;
    if (answer.protocol == FloorProtocol::Tls) != secure {
        return Err(Unusable::Protocol);
    }
    if answer.peer_is_active {
        return Err(Unusable::BothActive);
    }
    if secure && answer.mikey.is_none() {
        return Err(Unusable::KeyManagement);
    }
    if answer.floors.is_empty() {
        return Err(Unusable::NoFloors);
    }
    Ok(FloorAnswer {
        address: answer.connect_to.ok_or(Unusable::Address)?,
        conference_id: answer.conference_id,
        user_id: answer.user_id,
        floor_ids: answer.floors.iter().map(|floor| floor.floor_id).collect(),
        transfer_response: answer.mikey,
    })
}

/// The UE is active and listens nowhere: RFC 4145 section 4.1.
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
    fn refuses_an_answer_that_is_of_no_use() {
        for (from, to) in [
            ("m=message 2855", "m=message 0"),
            ("m=message", "m=audio"),
            ("a=path", "a=road"),
            (":passive", ":active"),
        ] {
            let sdp = ANSWER.replacen(from, to, 1);
            assert!(answer(sdp.as_bytes(), false).is_err(), "{from} -> {to}");
        }
        assert!(answer(b"", false).is_err());
        let plain = answer(ANSWER.as_bytes(), true);
        assert!(matches!(plain, Err(Unusable::Protocol)));
    }

    #[test]
    fn offers_the_path_it_later_uses_and_a_key_only_with_tls() {
        let address = "192.0.2.1".parse().unwrap();
        let path = local_path(address, "abc", true);
        assert_eq!(path, "msrps://192.0.2.1:9/abc;tcp");
        let sdp = String::from_utf8(offer(address, "abc", true, Some(&[1, 2, 3]))).unwrap();
        assert!(sdp.contains("m=message 9 TCP/TLS/MSRP *\r\n"));
        assert!(sdp.contains(&format!("a=path:{path}\r\n")));
        assert!(sdp.contains("a=setup:active\r\n"));
        assert!(sdp.contains("a=key-mgmt:mikey AQID\r\n"));
        let plain = String::from_utf8(offer(address, "abc", false, None)).unwrap();
        assert!(!plain.contains("key-mgmt"));
    }
}
