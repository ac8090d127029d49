//! SDP offer/answer rules for MSRP (RFC 3264, 4145, 4975, 6135).
