//! Key management service: issues and resolves tickets (RFC 6043 section 4.1).
