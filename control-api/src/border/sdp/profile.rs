//! Which profile an m-line gets.

use mrfp_core::mp::Bearer;

use super::super::{MediaSecurity, Refusal, SideRole};
use super::read::{EndToAccessEdge, Kind, Media};
use super::{Exchange, not_acceptable};

/// How the media of an m-line passes the border.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Protected by the parties themselves: bytes or datagrams are passed on, the transport in the SDP
    /// stays, and nothing else is looked at (TR 29.828 clauses 5.2.2.1 and 6.2.1.1).
    Passed,
    /// Protected between the UE and us (TS 23.334 clauses 5.11.2.2 and 5.11.2.3).
    EndToAccessEdge,
    /// Anchored here, not protected.
    Plain,
    /// Not anchored here: other media, or an m-line that is switched off (port 0).
    Untouched,
    /// Switched off by us, why is told where no m-line is left.
    Refused(Refusal),
}

impl Profile {
    /// Whether it takes connection points of ours.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        matches!(self, Self::Passed | Self::EndToAccessEdge | Self::Plain)
    }
}

/// What is reserved for an anchored stream on this side.
#[must_use]
pub fn bearer(kind: Kind, profile: &Profile, side: SideRole) -> Bearer {
    let is_protected = *profile == Profile::EndToAccessEdge && side == SideRole::Access;
    match (kind.is_datagrams(), is_protected) {
        (false, false) => Bearer::Tcp,
        (false, true) => Bearer::TlsOverTcp,
        (true, false) => Bearer::Udp,
        (true, true) => Bearer::DtlsOverUdp,
    }
}

impl Exchange<'_> {
    /// The profile of an offered m-line. `security` is what the registration of the UE has agreed,
    /// whichever of the parties that is; `previous` what the m-line had in the exchange before.
    #[must_use]
    pub fn decide(
        &self,
        media: &Media,
        security: MediaSecurity,
        previous: Option<&Profile>,
    ) -> Profile {
        if media.port == 0 {
            return Profile::Untouched;
        }
        if media.kind == Kind::Other {
            if self.rules.refuse_other_media {
                return Profile::Refused(not_acceptable(format!(
                    "Line {}: {} {} does not pass here",
                    media.line_number, media.media, media.protocol
                )));
            }
            return Profile::Untouched;
        }
        let profile = self.decide_anchored(media, security, previous);
        let needs_path = media.kind == Kind::Msrp && profile != Profile::Passed;
        if needs_path && media.msrp.is_none() && profile.is_anchored() {
            return Profile::Refused(not_acceptable(format!(
                "Line {}: no valid a=path",
                media.line_number
            )));
        }
        profile
    }

    fn decide_anchored(
        &self,
        media: &Media,
        security: MediaSecurity,
        previous: Option<&Profile>,
    ) -> Profile {
        let agreed = agreed(media.kind, security);
        let rcs_compat = self.rules.rcs_compat && media.kind == Kind::Msrp;
        match (self.offerer.role, media.protected) {
            (SideRole::Access, true) => self.protected_by_ue(media, agreed || rcs_compat, previous),
            // Whoever wanted protection for its own link would have offered it.
            (SideRole::Access, false) => Profile::Plain,
            // TR 29.828 clauses 5.2.2.1 and 6.2.1.1: no request for e2ae.
            (_, true) => Profile::Passed,
            (_, false) if self.answerer.role != SideRole::Access => Profile::Plain,
            (_, false) => match previous {
                Some(profile @ (Profile::EndToAccessEdge | Profile::Plain)) => profile.clone(),
                // TR 29.828 clause 4.1.1 b.
                _ if agreed || rcs_compat => Profile::EndToAccessEdge,
                _ => Profile::Plain,
            },
        }
    }

    /// A UE offers (D)TLS: for the access edge, or for the other party?
    fn protected_by_ue(
        &self,
        media: &Media,
        is_expected: bool,
        previous: Option<&Profile>,
    ) -> Profile {
        let is_requested = media.e2ae == Some(EndToAccessEdge::Requested);
        let is_kept = previous == Some(&Profile::EndToAccessEdge) && !media.key_management;
        // What was agreed to be the parties' own is so until the UE asks for something else.
        let is_meant = is_expected
            && previous != Some(&Profile::Passed)
            && !media.key_management
            && !media.fingerprints.is_empty();
        if (is_requested || is_kept) && media.fingerprints.is_empty() {
            return Profile::Refused(not_acceptable(format!(
                "Line {}: e2ae security needs a=fingerprint with a hash that is taken",
                media.line_number
            )));
        }
        if is_requested || is_kept || is_meant { Profile::EndToAccessEdge } else { Profile::Passed }
    }
}

fn agreed(kind: Kind, security: MediaSecurity) -> bool {
    match kind {
        Kind::Msrp => security.msrp_tls,
        Kind::Bfcp => security.bfcp_tls,
        Kind::T38 => security.udptl_dtls,
        Kind::Other => false,
    }
}
