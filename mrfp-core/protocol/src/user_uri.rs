//! URIs that name a user or a room (`sip`, `sips`, `tel`, `im`, anonymous ones) as far as telling
//! them apart goes.

/// Appends the form of `uri` that is the same for all spellings of one name, so that two URIs name
/// the same exactly where these bytes are equal.
///
/// - Scheme and host compare without regard to case, the user with it; an escaped character is the
///   character, unless it is reserved (RFC 3261 section 19.1.4).
/// - Parameters and headers say how to reach somebody, not who it is, and do not count.
/// - Of a telephone number the visual separators do not count; what distinguishes a local number or
///   an extension does (RFC 3966 section 5).
///
/// What is no URI is compared as it stands.
pub fn normalise(uri: &[u8], out: &mut Vec<u8>) {
    let Some(colon) = memchr::memchr(b':', uri) else {
        return out.extend_from_slice(uri);
    };
    let (scheme, rest) = (&uri[..colon], &uri[colon + 1..]);
    out.extend(scheme.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    if scheme.eq_ignore_ascii_case(b"tel") {
        return normalise_number(rest, out);
    }
    // A user part may contain ';' and '?', a host may not.
    let host = match memchr::memrchr(b'@', rest) {
        Some(at) => {
            normalise_user(&rest[..at], out);
            out.push(b'@');
            &rest[at + 1..]
        }
        None => rest,
    };
    let end = host.iter().position(|byte| b";?>".contains(byte)).unwrap_or(host.len());
    out.extend(host[..end].iter().map(u8::to_ascii_lowercase));
}

/// Whether both name the same user or room.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let form = |uri: &[u8]| {
        let mut form = Vec::with_capacity(uri.len());
        normalise(uri, &mut form);
        form
    };
    one == other || form(one) == form(other)
}

/// Undoes the escapes that need not be; the digits of those that stay are in upper case.
fn normalise_user(user: &[u8], out: &mut Vec<u8>) {
    let mut rest = user;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, behind @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let value = digit(*high) << 4 | digit(*low);
                if is_unreserved(value) {
                    out.push(value);
                } else {
                    out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
                }
                rest = behind;
            }
            // It escapes nothing, so it stands for itself.
            (b'%', _) => out.extend(b"%25"),
            _ => out.push(byte),
        }
    }
}

/// The digits, then those parameters that make it another number, in an order of ours.
fn normalise_number(rest: &[u8], out: &mut Vec<u8>) {
    const DISTINGUISHING: [&[u8]; 3] = [b"ext", b"isub", b"phone-context"];
    let mut parts = rest.split(|&byte| byte == b';');
    let number = parts.next().unwrap_or_default();
    let digits = number.iter().filter(|byte| !b"-.()".contains(byte));
    out.extend(digits.map(u8::to_ascii_lowercase));
    for name in DISTINGUISHING {
        let found = parts.clone().find(|parameter| {
            let (found, value) = parameter.split_at(name.len().min(parameter.len()));
            found.eq_ignore_ascii_case(name) && value.first() == Some(&b'=')
        });
        if let Some(parameter) = found {
            out.push(b';');
            out.extend(parameter.iter().map(u8::to_ascii_lowercase));
        }
    }
}

fn digit(hex: u8) -> u8 {
    char::from(hex).to_digit(16).map_or(0, |value| value as u8)
}

/// `unreserved` (RFC 3261 section 25.1).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)
}
