//! What operators want to know of MSRP traffic, per realm and per Context, in both directions.

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
