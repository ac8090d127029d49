//! Who asks: by a key that is shared with the KMS, or by a certificate.

use zeroize::Zeroizing;

use super::Kms;
use crate::mikey::codec::code_point::{ROLE_INITIATOR, ROLE_KMS, ROLE_PRE_SHARED_KEY};
use crate::mikey::codec::{DataType, Message, Timestamp};
use crate::mikey::derivation::{KeySource, Prf};
use crate::mikey::exchange::{
    check_key_length, required_rand, required_timestamp, required_uri, uri_of,
};
use crate::mikey::protection::verify;
use crate::mikey::replay::{ReceivedMessage, checked_message_time};
use crate::mikey::request::rands_by_role;
use crate::mikey::uri::normalise;
use crate::mikey::{Error, NtpTime, Suite};

/// A request that passed authentication.
pub(super) struct Authenticated<'a> {
    pub(super) message: Message,
    pub(super) bytes: &'a [u8],
    /// Protects the answer: the shared key, or the one of the envelope.
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) suite: Suite,
    pub(super) uri: String,
    pub(super) role: u8,
    pub(super) rand: Vec<u8>,
    pub(super) timestamp: Timestamp,
}

/// What every request has, before anything of it is proven.
struct Claim {
    uri: String,
    kms_uri: String,
    rand: Vec<u8>,
    timestamp: Timestamp,
}

impl Kms {
    /// Checks who sent the request, that it is fresh, and that they may act as who they say. Nothing
    /// is remembered before it is authentic.
    pub(super) fn authenticate<'a>(
        &mut self,
        message: Message,
        bytes: &'a [u8],
        role: u8,
        now: NtpTime,
    ) -> Result<Authenticated<'a>, Error> {
        let signed =
            matches!(message.header.data_type, DataType::RequestInitPk | DataType::ResolveInitPk);
        let claim = self.claim(&message, role, now)?;
        let (key, suite) = if signed {
            self.authenticate_signed(&message, bytes, &claim, now)?
        } else {
            self.authenticate_shared(&message, bytes, role, &claim, now)?
        };
        let Claim { uri, rand, timestamp, .. } = claim;
        Ok(Authenticated { message, bytes, key, suite, uri, role, rand, timestamp })
    }

    fn claim(&self, message: &Message, role: u8, now: NtpTime) -> Result<Claim, Error> {
        let parameters = &self.config.parameters;
        let timestamp = required_timestamp(message)?;
        checked_message_time(timestamp, now, parameters)?;
        let name = if role == ROLE_INITIATOR { "IDRi" } else { "IDRr" };
        let uri = required_uri(message.identity(role), name)?.to_owned();
        let kms_uri = match message.identity(ROLE_KMS) {
            Some(identity) => uri_of(identity)?.to_owned(),
            None if parameters.strict => return Err(Error::MissingPayload("IDRkms")),
            None => self.config.uri.clone(),
        };
        Ok(Claim { uri, kms_uri, rand: required_rand(message, role)?, timestamp })
    }

    fn authenticate_shared(
        &mut self,
        message: &Message,
        bytes: &[u8],
        role: u8,
        claim: &Claim,
        now: NtpTime,
    ) -> Result<(Zeroizing<Vec<u8>>, Suite), Error> {
        let accepted = &self.config.parameters.accepted_suites;
        let verification = message.verification().ok_or(Error::MissingPayload("V"))?;
        let suite = Suite::of(message.header.prf, verification.algorithm, accepted)?;
        let identity =
            message.identity(ROLE_PRE_SHARED_KEY).ok_or(Error::MissingPayload("IDRpsk"))?;
        let user = self
            .users
            .get(&identity.data)
            .ok_or_else(|| Error::UnknownKeyIdentity(identity.data.escape_ascii().to_string()))?
            .clone();
        check_key_length(&user.key)?;
        let csb_id = message.header.csb_id;
        let [initiator_rand, responder_rand] = rands_by_role(role, &claim.rand);
        let source = KeySource::initial_message(
            suite.prf(),
            &user.key,
            csb_id,
            initiator_rand,
            responder_rand,
        );
        verify(message, bytes, &source, &[claim.uri.as_bytes(), claim.kms_uri.as_bytes()])?;
        self.check_fresh(&user.identity, message, claim, now)?;
        self.check_addressed(claim)?;
        self.check_may_act_as(&user.identity, &claim.uri)?;
        Ok((user.key, suite))
    }

    /// RFC 6043 section 4.2.1.3. Whom a certificate names, its owner may act as.
    fn authenticate_signed(
        &mut self,
        message: &Message,
        bytes: &[u8],
        claim: &Claim,
        now: NtpTime,
    ) -> Result<(Zeroizing<Vec<u8>>, Suite), Error> {
        let data_type = message.header.data_type;
        let service =
            self.public_key_service.as_ref().ok_or(Error::UnexpectedMessage(data_type))?;
        let prf = message.header.prf;
        let prf = Prf::from_code(prf).ok_or(Error::UnsupportedPrf(prf))?;
        let suite = Suite::of_prf(prf);
        if !self.config.parameters.accepted_suites.contains(&suite) {
            return Err(Error::UnsupportedPrf(prf.code()));
        }
        let identities = [claim.uri.as_bytes(), claim.kms_uri.as_bytes()];
        let signed_by = service.authorities.verify(message, bytes, &claim.uri, &identities, now)?;
        let key = service.own.open_envelope(message)?;
        check_key_length(&key)?;
        self.check_fresh(&signed_by.fingerprint, message, claim, now)?;
        self.check_addressed(claim)?;
        Ok((key, suite))
    }

    fn check_fresh(
        &mut self,
        sender: &[u8],
        message: &Message,
        claim: &Claim,
        now: NtpTime,
    ) -> Result<(), Error> {
        let time = checked_message_time(claim.timestamp, now, &self.config.parameters)?;
        let received = ReceivedMessage::new(sender, message.header.csb_id, time);
        self.replay_cache.insert_message(&received, now)
    }

    fn check_addressed(&self, claim: &Claim) -> Result<(), Error> {
        if normalise(&claim.kms_uri) == normalise(&self.config.uri) {
            Ok(())
        } else {
            Err(Error::OtherKms(claim.kms_uri.clone()))
        }
    }
}
