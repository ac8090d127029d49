//! What operators want to know of MSRP traffic, per realm and per Context, in both directions. Counting
//! is addition; realms are published for readers on other threads with the other metrics.

use mrfp_io::Key;
use mrfp_protocol::cpim::ContentClass;

use crate::plane::Plane;

/// Status codes counted on their own (RFC 4975 section 10, RFC 4976 section 11, RFC 7701 section
/// 9).
pub const RESPONSE_CODES: [u16; 15] =
    [200, 400, 401, 403, 404, 408, 413, 415, 423, 424, 425, 428, 481, 501, 506];

/// MSRP seen in one direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// SEND requests that carry what people write.
    pub send_chat: u64,
    /// SEND requests that say that somebody is writing (RFC 3994).
    pub send_is_composing: u64,
    /// SEND requests with a disposition notification (RFC 5438).
    pub send_imdn: u64,
    /// SEND requests with a part of a file (RFC 5547).
    pub send_file: u64,
    /// SEND requests without a body, which bind a session or keep it alive (RFC 4975 section 5.4).
    pub send_empty: u64,
    /// REPORT requests.
    pub reports: u64,
    /// NICKNAME requests.
    pub nicknames: u64,
    /// AUTH requests.
    pub auths: u64,
    /// Requests of any other method.
    pub others: u64,
    /// Responses, in the order of [`RESPONSE_CODES`].
    pub responses: [u64; RESPONSE_CODES.len()],
    /// Responses with any other code.
    pub responses_other: u64,
    /// Bytes of message bodies.
    pub bytes: u64,
}

/// MSRP in both directions, as seen from the node.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// From the members.
    pub received: Statistics,
    /// To the members.
    pub sent: Statistics,
}

/// What a Context has carried since it was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ContextStatistics {
    /// Requests, responses, bytes.
    pub traffic: Traffic,
    /// Members dropped because they did not keep up.
    pub members_dropped: u64,
    /// Messages not passed to a member because of its accept-wrapped-types or max-size.
    pub messages_skipped: u64,
    /// Messages that reached none of those they were for.
    pub messages_undelivered: u64,
}

/// Realms a shard keeps apart; the default one is among them. Each costs it a kilobyte.
pub const REALMS_MAX: usize = 65;

/// Counters of one direction.
pub(crate) const COUNTERS: usize = 11 + RESPONSE_CODES.len();

impl Statistics {
    /// A SEND with content of that kind.
    pub(crate) fn count_sends(&mut self, class: ContentClass, count: u64) {
        *match class {
            ContentClass::Chat => &mut self.send_chat,
            ContentClass::IsComposing => &mut self.send_is_composing,
            ContentClass::Imdn => &mut self.send_imdn,
            ContentClass::File => &mut self.send_file,
        } += count;
    }

    /// A response.
    pub(crate) fn count_response(&mut self, status: u16) {
        match RESPONSE_CODES.iter().position(|&code| code == status) {
            Some(index) => self.responses[index] += 1,
            None => self.responses_other += 1,
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    fn with(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let (words, others) = (self.to_words(), other.to_words());
        Self::from_words(std::array::from_fn(|index| combine(words[index], others[index])))
    }

    pub(crate) fn to_words(self) -> [u64; COUNTERS] {
        let mut words = [0; COUNTERS];
        let (responses, others) = words.split_at_mut(RESPONSE_CODES.len());
        responses.copy_from_slice(&self.responses);
        others.copy_from_slice(&[
            self.send_chat,
            self.send_is_composing,
            self.send_imdn,
            self.send_file,
            self.send_empty,
            self.reports,
            self.nicknames,
            self.auths,
            self.others,
            self.responses_other,
            self.bytes,
        ]);
        words
    }

    pub(crate) fn from_words(words: [u64; COUNTERS]) -> Self {
        let mut responses = [0; RESPONSE_CODES.len()];
        let (first, others) = words.split_at(responses.len());
        responses.copy_from_slice(first);
        let mut others = others.iter().copied();
        let mut next = || others.next().unwrap_or_default();
        Self {
            send_chat: next(),
            send_is_composing: next(),
            send_imdn: next(),
            send_file: next(),
            send_empty: next(),
            reports: next(),
            nicknames: next(),
            auths: next(),
            others: next(),
            responses,
            responses_other: next(),
            bytes: next(),
        }
    }
}

impl Traffic {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { received: self.received.plus(other.received), sent: self.sent.plus(other.sent) }
    }

    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            received: self.received.since(earlier.received),
            sent: self.sent.since(earlier.sent),
        }
    }
}

impl ContextStatistics {
    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            traffic: self.traffic.since(earlier.traffic),
            members_dropped: self.members_dropped.saturating_sub(earlier.members_dropped),
            messages_skipped: self.messages_skipped.saturating_sub(earlier.messages_skipped),
            messages_undelivered: self
                .messages_undelivered
                .saturating_sub(earlier.messages_undelivered),
        }
    }
}

impl Plane {
    /// Counts something that has come in on a session, for its realm and its Context.
    pub(crate) fn count_received(&mut self, session: Key, count: impl Fn(&mut Statistics)) {
        self.count(session, |traffic| count(&mut traffic.received));
    }

    /// Counts something that goes out on a session.
    pub(crate) fn count_sent(&mut self, session: Key, count: impl Fn(&mut Statistics)) {
        self.count(session, |traffic| count(&mut traffic.sent));
    }

    fn count(&mut self, session: Key, count: impl Fn(&mut Traffic)) {
        let Some(termination) = self.terminations.get(session) else { return };
        count(&mut self.realms[usize::from(termination.realm.0)]);
        if let Some(context) = self.contexts.get_mut(termination.context) {
            count(&mut context.statistics_mut().traffic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_survives_publication() {
        let words = std::array::from_fn(|index| index as u64 + 1);
        assert_eq!(Statistics::from_words(words).to_words(), words);
        assert_eq!(size_of::<Statistics>(), size_of_val(&words), "no counter is left out");
    }

    #[test]
    fn a_code_nobody_knows_is_counted_all_the_same() {
        let mut statistics = Statistics::default();
        RESPONSE_CODES.iter().for_each(|&code| statistics.count_response(code));
        statistics.count_response(599);
        assert_eq!(statistics.responses, [1; RESPONSE_CODES.len()]);
        assert_eq!(statistics.responses_other, 1);
    }
}
