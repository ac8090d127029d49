//! The door to MIKEY-TICKET: from `a=key-mgmt` to a key, by way of the KMS.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mrfp_core::Psk;

use crate::kms::TicketResolver;
use crate::mikey::uri::normalise;
use crate::mikey::{self, Bundle, Credentials, Established, NtpTime, Random, Responder};
use crate::sdp::KeyManagement;

/// An exchange that waits for the KMS.
pub(super) struct Pending(mikey::Pending);

/// What the exchange yields.
#[derive(Debug)]
pub(super) struct Keys {
    /// The TEK.
    pub(super) psk: Psk,
    /// What the TLS client will call itself.
    pub(super) identity: Vec<u8>,
    /// TRANSFER_RESP for the answer, base64.
    pub(super) transfer_response: String,
    /// What later updates of the key begin with.
    pub(super) bundle: Box<Bundle>,
}

/// Why there is no key.
#[derive(Debug)]
pub(super) enum KeyFailure {
    /// The exchange failed.
    Mikey(mikey::Error),
    /// Whoever holds the key is not who calls.
    OtherCaller,
    /// The ticket was made for another room than the one called.
    OtherRoom,
}

/// How far an exchange has come.
pub(super) enum Agreement {
    /// To its end.
    Reached(Keys),
    /// The KMS elsewhere has to be asked: the exchange, and the message for it.
    Ask(Box<Pending>, Vec<u8>),
}

/// Where keys come from that the responder does not have itself.
pub(super) enum KeySource<'a> {
    /// A KMS in this process.
    Here(&'a dyn TicketResolver),
    /// One elsewhere, which knows us by this; by the responder's own key where there is nothing else.
    Elsewhere(Option<Credentials<'a>>),
}

/// Reads the MIKEY message of the offer and comes as far as it goes without a KMS elsewhere, which is
/// to the end where the ticket can be opened here. Its IDRr must name the room of `called`: a ticket
/// for one room opens no other. Hosts may differ, as a room has several names; which of them are ours
/// the responder checks.
pub(super) fn agree(
    responder: &mut Responder,
    source: KeySource<'_>,
    offered: &KeyManagement,
    parties: &Parties<'_>,
    now: NtpTime,
    random: Random<'_>,
) -> Result<Agreement, KeyFailure> {
    let transfer_init = offered.mikey().expect("an offer without MIKEY is not served");
    let transfer = responder.check(transfer_init, &offered.offered_protocols(), now);
    let transfer = transfer.map_err(KeyFailure::Mikey)?;
    check_room(transfer.requested(), parties.called)?;
    let content = match (responder.open(&transfer).map_err(KeyFailure::Mikey)?, source) {
        (Some(content), _) => content,
        (None, KeySource::Here(kms)) => {
            let (ticket, asked_as) = transfer.question();
            kms.resolve_here(ticket, asked_as, responder.key_identity(), now, &mut *random)
                .map_err(KeyFailure::Mikey)?
        }
        (None, KeySource::Elsewhere(credentials)) => {
            let asked = match credentials {
                Some(credentials) => responder.ask_with(credentials, transfer, now, random),
                None => responder.ask(transfer, now, random),
            };
            let (pending, message) = asked.map_err(KeyFailure::Mikey)?;
            return Ok(Agreement::Ask(Box::new(Pending(pending)), message));
        }
    };
    let finished = transfer.finish(responder, content, now, random);
    Keys::of(finished, parties.caller).map(Agreement::Reached)
}

/// Who wants a key for what.
pub(super) struct Parties<'a> {
    /// Must own the key: see [`Pending::finish`].
    pub(super) caller: &'a str,
    /// Must be what the ticket is for: see [`agree`].
    pub(super) called: &'a str,
}

fn check_room(requested: &str, called: &str) -> Result<(), KeyFailure> {
    if user_part(&normalise(requested)) == user_part(&normalise(called)) {
        Ok(())
    } else {
        Err(KeyFailure::OtherRoom)
    }
}

impl Pending {
    /// Takes the KMS's answer. The key must belong to `caller`: other members will be told that
    /// name, so a key of somebody else's must not open a session under it.
    pub(super) fn finish(
        self,
        responder: &mut Responder,
        resolve_response: &[u8],
        caller: &str,
        now: NtpTime,
        random: Random<'_>,
    ) -> Result<Keys, KeyFailure> {
        Keys::of(self.0.finish(responder, resolve_response, now, random), caller)
    }
}

impl Keys {
    fn of(
        finished: Result<(Established, Vec<u8>), mikey::Error>,
        caller: &str,
    ) -> Result<Self, KeyFailure> {
        let (established, transfer_response) = finished.map_err(KeyFailure::Mikey)?;
        if normalise(&established.peer) != normalise(caller) {
            return Err(KeyFailure::OtherCaller);
        }
        Ok(Self {
            psk: established.psk,
            identity: established.psk_identity.into_bytes(),
            transfer_response: STANDARD.encode(transfer_response),
            bundle: Box::new(established.bundle),
        })
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending(redacted)")
    }
}

impl KeyFailure {
    /// A name for counting.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Mikey(error) => error.name(),
            Self::OtherCaller => "OtherCaller".to_owned(),
            Self::OtherRoom => "OtherRoom".to_owned(),
        }
    }
}

/// Scheme and user of a URI: what stands before the host, all of it where there is no user.
fn user_part(uri: &str) -> &str {
    uri.rsplit_once('@').map_or(uri, |(user, _)| user)
}
