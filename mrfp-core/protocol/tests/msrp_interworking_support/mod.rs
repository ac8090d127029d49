//! Runs a stream through one direction of the interworking function and keeps what comes out.

use mrfp_protocol::msrp::{Interworking, Passage, Paths};

/// The paths of what comes from one party, and of the same on its way to the other. The latter are no
/// longer, so that what was no longer than a head may be stays so.
pub(crate) const NEAR: Paths<'_> = Paths {
    to: b"msrp://192.0.2.1:7000/gatewaynear;tcp",
    from: b"msrp://ue.example.com:7654/iau39soe2843z;tcp",
};
pub(crate) const FAR: Paths<'_> = Paths {
    to: b"msrp://[2001:db8::7]:8888/9di4eae923wzd;tcp",
    from: b"msrp://198.51.100.1:7002/gwfar;tcp",
};

/// What left, and what was said to the sender.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Outcome {
    pub(crate) left: Vec<u8>,
    /// Transaction identifier, To-Path and From-Path of each 481, parted by spaces.
    pub(crate) refused: Vec<Vec<u8>>,
    /// Messages that could not be read.
    pub(crate) malformed: usize,
    /// The stream ended there.
    pub(crate) is_lost: bool,
}

pub(crate) fn way_in() -> Interworking {
    Interworking::new(NEAR, FAR).expect("URIs")
}

/// Undoes what [`way_in`] does.
pub(crate) fn way_back() -> Interworking {
    Interworking::new(FAR, NEAR).expect("URIs")
}

/// Feeds the stream in the given segments; what was not consumed is presented again.
pub(crate) fn convert<'a>(
    mut interworking: Interworking,
    segments: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut carry = Vec::new();
    for segment in segments {
        carry.extend_from_slice(segment);
        let mut at = 0;
        while !outcome.is_lost {
            match interworking.next(&carry[at..]) {
                Ok(None) => break,
                Ok(Some(step)) => {
                    assert!(step.consumed > 0 && at + step.consumed <= carry.len());
                    at += step.consumed;
                    match step.passage {
                        Passage::Begins(parts) => outcome.left.extend(parts.concat()),
                        Passage::GoesOn(bytes) => outcome.left.extend_from_slice(bytes),
                        Passage::Nothing => {}
                        Passage::Refused(refusal) => {
                            let answer = [refusal.transaction_id, refusal.to, refusal.from];
                            outcome.refused.push(answer.join(&b' '));
                        }
                    }
                }
                Err(malformed) => {
                    assert!(interworking.is_between_messages());
                    outcome.malformed += 1;
                    at += malformed.consumed.unwrap_or_default();
                    outcome.is_lost = malformed.consumed.is_none();
                }
            }
        }
        carry.drain(..at);
    }
    outcome
}
