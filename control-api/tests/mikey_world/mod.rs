//! An initiator, a responder and a KMS in one place, with a clock and randomness that repeat.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::time::Duration;

use control_api::kms::{Kms, KmsConfig, SharedTicketKey};
use control_api::mikey::codec::code_point::ROLE_INITIATOR;
use control_api::mikey::codec::{self, KeyData, KeyValidity, MacAlgorithm, Message, TicketFlags};
use control_api::mikey::derivation::{KeySource, Prf, constant};
use control_api::mikey::protection::{self, Encryption};
use control_api::mikey::request::request_ticket;
use control_api::mikey::{
    Credentials, Error, Established, GrantedTicket, HeldTicketKey, Initiator, NtpTime, Parameters,
    PreSharedKey, Responder, ResponderConfig, Suite, TicketMaker, TicketProtectionKey, TicketWish,
    TransferOptions, UriPattern,
};
use zeroize::Zeroizing;

pub(crate) const ALICE: &str = "sip:alice@example.com";
pub(crate) const ROOM: &str = "sip:room@127.0.0.1";
pub(crate) const KMS_URI: &str = "sip:kms@example.com";

pub(crate) fn now() -> NtpTime {
    NtpTime::from_unix(Duration::from_secs(1_790_000_000))
}

pub(crate) fn seconds_later(seconds: u64) -> NtpTime {
    now().after(Duration::from_secs(seconds))
}

/// Bytes that differ from call to call, the same in every run.
pub(crate) fn counting_random() -> impl FnMut(&mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |out| {
        for byte in out {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 24) as u8;
        }
    }
}

pub(crate) fn key(fill: u8) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![fill; 32])
}

/// Shared by alice and the KMS (mode 3).
pub(crate) fn tpk() -> TicketProtectionKey {
    TicketProtectionKey { identity: b"tpk-alice".to_vec(), key: key(1) }
}

/// Shared by the KMS and the room (mode 2), or by alice and the room (mode 4).
pub(crate) fn room_tpk() -> TicketProtectionKey {
    TicketProtectionKey { identity: b"tpk-room".to_vec(), key: key(4) }
}

pub(crate) fn node_key() -> PreSharedKey {
    PreSharedKey { identity: b"psk-node".to_vec(), key: key(2) }
}

pub(crate) fn alice_key() -> PreSharedKey {
    PreSharedKey { identity: b"psk-alice".to_vec(), key: key(3) }
}

pub(crate) fn session_key(key_type: u8, bytes: usize, spi: &[u8]) -> KeyData {
    let salted = matches!(key_type, 1 | 3 | 5);
    KeyData {
        key_type,
        key: Zeroizing::new(vec![7; bytes]),
        salt: salted.then(|| Zeroizing::new(vec![8; 14])),
        validity: KeyValidity::Spi(spi.to_vec()),
    }
}

/// The usual flags.
pub(crate) fn usual_flags() -> TicketFlags {
    TicketWish::new(KMS_URI, ALICE, &[ROOM]).flags
}

/// A KMS that knows alice, her tickets, and the node with its rooms.
pub(crate) fn kms_config(parameters: Parameters) -> KmsConfig {
    let alice = || vec![UriPattern::Exact(ALICE.to_owned())];
    KmsConfig {
        uri: KMS_URI.to_owned(),
        users: vec![node_key(), alice_key()],
        ticket_protection_keys: vec![tpk()],
        ticket_lifetime: Duration::from_secs(3600),
        may_act_as: BTreeMap::from([
            (b"tpk-alice".to_vec(), alice()),
            (b"psk-alice".to_vec(), alice()),
            (b"psk-node".to_vec(), vec![UriPattern::Host("127.0.0.1".to_owned())]),
        ]),
        groups: BTreeMap::new(),
        parameters,
    }
}

/// The node, for all its rooms.
pub(crate) fn responder_config(parameters: Parameters) -> ResponderConfig {
    ResponderConfig {
        accepted: vec![UriPattern::Host("127.0.0.1".to_owned())],
        answer_as: None,
        kms_uri: KMS_URI.to_owned(),
        kms_key: node_key(),
        parameters,
    }
}

pub(crate) type BoxedRandom = Box<dyn FnMut(&mut [u8])>;

/// The three parties and their randomness.
pub(crate) struct World {
    pub(crate) parameters: Parameters,
    pub(crate) responder: Responder,
    pub(crate) kms: Kms,
    pub(crate) random: BoxedRandom,
}

impl World {
    pub(crate) fn new(parameters: Parameters) -> Self {
        let responder = Responder::new(responder_config(parameters.clone()));
        let kms = Kms::new(kms_config(parameters.clone()));
        Self { parameters, responder, kms, random: Box::new(counting_random()) }
    }

    pub(crate) fn plain() -> Self {
        Self::new(Parameters::default())
    }

    pub(crate) fn with_suite(suite: Suite) -> Self {
        Self::new(Parameters { suite, ..Parameters::default() })
    }

    /// The room opens tickets of its key itself.
    pub(crate) fn room_holds_key(&mut self, maker: TicketMaker) {
        self.responder.hold_ticket_key(HeldTicketKey { key: room_tpk(), maker });
    }

    pub(crate) fn kms_shares_key(&mut self) {
        let responders = vec![UriPattern::Host("127.0.0.1".to_owned())];
        self.kms.share_ticket_key(SharedTicketKey { key: room_tpk(), responders });
    }

    /// A ticket of the KMS.
    pub(crate) fn granted(
        &mut self,
        flags: TicketFlags,
        session_keys: &[KeyData],
    ) -> Result<GrantedTicket, Error> {
        let wish = TicketWish { flags, session_keys, ..TicketWish::new(KMS_URI, ALICE, &[ROOM]) };
        let own = alice_key();
        let credentials = Credentials::PreShared(&own);
        let (pending, request) =
            request_ticket(&self.parameters, &wish, credentials, now(), &mut self.random)?;
        let response = self.kms.try_handle(&request, now(), &mut self.random)?;
        pending.finish(&response, now())
    }

    /// A ticket of alice's own making.
    pub(crate) fn made(
        &mut self,
        flags: TicketFlags,
        session_keys: &[KeyData],
        key: &TicketProtectionKey,
    ) -> Result<GrantedTicket, Error> {
        let wish = TicketWish { flags, session_keys, ..TicketWish::new(KMS_URI, ALICE, &[ROOM]) };
        GrantedTicket::make_as_wished(&self.parameters, &wish, key, now(), &mut self.random)
    }

    pub(crate) fn call(&mut self, ticket: &GrantedTicket) -> (Initiator, Vec<u8>) {
        self.try_call(ticket, TransferOptions::default()).expect("a call")
    }

    pub(crate) fn try_call(
        &mut self,
        ticket: &GrantedTicket,
        options: TransferOptions,
    ) -> Result<(Initiator, Vec<u8>), Error> {
        Initiator::begin(&self.parameters, ticket, ROOM, options, now(), &mut self.random)
    }

    /// As a responder does: opens the ticket itself where it can, and asks the KMS otherwise.
    pub(crate) fn answer(&mut self, transfer_init: &[u8]) -> Result<(Established, Vec<u8>), Error> {
        let transfer = self.responder.check(transfer_init, "mikey", now())?;
        if let Some(content) = self.responder.open(&transfer)? {
            return transfer.finish(&mut self.responder, content, now(), &mut self.random);
        }
        let (pending, resolve) = self.responder.ask(transfer, now(), &mut self.random)?;
        let resolved = self.kms.try_handle(&resolve, now(), &mut self.random)?;
        pending.finish(&mut self.responder, &resolved, now(), &mut self.random)
    }

    /// Without a KMS.
    pub(crate) fn answer_alone(
        &mut self,
        transfer_init: &[u8],
    ) -> Result<(Established, Vec<u8>), Error> {
        let transfer = self.responder.check(transfer_init, "mikey", now())?;
        let content = self.responder.open(&transfer)?.expect("the responder has the key");
        transfer.finish(&mut self.responder, content, now(), &mut self.random)
    }

    /// A whole transfer: both sides have the same key, which is returned.
    pub(crate) fn transfer(&mut self, ticket: &GrantedTicket) -> Vec<u8> {
        let (initiator, transfer_init) = self.call(ticket);
        let (answered, transfer_resp) = self.answer(&transfer_init).expect("answered");
        let established = initiator.finish(&transfer_resp, now()).expect("established");
        assert_same_key(&established, &answered)
    }
}

/// Both sides have the same, which is returned.
pub(crate) fn assert_same_key(initiator: &Established, responder: &Established) -> Vec<u8> {
    assert_eq!(initiator.psk.expose(), responder.psk.expose());
    assert_eq!(initiator.psk_identity, responder.psk_identity);
    assert_eq!(initiator.peer, ROOM);
    assert_eq!(responder.peer, ALICE);
    initiator.psk.expose().to_vec()
}

/// Changes a TRANSFER_INIT with a ticket of alice's making (128-bit algorithms) as she could: with a
/// good MAC.
pub(crate) fn resealed(
    transfer_init: &[u8],
    key: &TicketProtectionKey,
    change: impl FnOnce(&mut Message),
) -> Vec<u8> {
    let mut message = codec::parse(transfer_init).expect("our own message");
    change(&mut message);
    let ticket = codec::parse_base_ticket(&message.ticket().expect("TICKET").data).expect("ours");
    let rand = ticket.rand().expect("RAND");
    let source = KeySource::ticket(Prf::Mikey1, &key.key, rand);
    let mut keys = ticket.kemac().expect("KEMAC").encrypted.clone();
    let time = ticket.timestamp().expect("T").to_bits();
    protection::apply_aes_cm(&source, Encryption::AesCm128, u32::MAX, time, &mut keys);
    let keys = codec::parse_key_data(&keys).expect("keys");
    let source = KeySource::message_protection(Prf::Mikey1, &keys[0].key, rand);
    let mpki = source.derive(constant::MPKI, 16);
    let randri = message.rand(ROLE_INITIATOR).unwrap_or_default().to_vec();
    let csb_id = message.header.csb_id;
    let source = KeySource::initial_message(Prf::Mikey1, &mpki, csb_id, &randri, &[]);
    let covered = codec::encode_without_initiator_data(&message);
    let covered = &covered[..covered.len() - 20];
    let parts = [covered, ALICE.as_bytes(), ROOM.as_bytes()];
    let mac = protection::mac(&source, MacAlgorithm::HmacSha1, &parts);
    let mut bytes = codec::encode(&message);
    let mac_at = bytes.len() - mac.len();
    bytes[mac_at..].copy_from_slice(&mac);
    bytes
}
