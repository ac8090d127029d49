//! Security mechanisms for media (the `mediasec` header field parameter of RFC 3329's headers, TS 24.229
//! clause 5.2.2 and annex H): agreed between a UE and the border, and nobody else's affair.

use rsipstack::sip::Headers;

use super::super::MediaSecurity;
use super::headers::{split_unquoted, values};

/// What Security-Server says: all that the border does.
pub(super) const SECURITY_SERVER: &str =
    "msrp-tls;mediasec, bfcp-tls;mediasec, udptl-dtls;mediasec";

/// The option tag.
const OPTION: &str = "mediasec";

/// What a UE supports of it, as its Security-Client says. `None`: it says nothing of media.
pub(super) fn supported(headers: &Headers) -> Option<MediaSecurity> {
    named(headers, "Security-Client")
}

/// What a UE says that we do, in Security-Verify: that tells nothing of what it does itself.
pub(super) fn verified(headers: &Headers) -> Option<MediaSecurity> {
    named(headers, "Security-Verify")
}

fn named(headers: &Headers, name: &str) -> Option<MediaSecurity> {
    let mut security = MediaSecurity::default();
    let mut any = false;
    for value in values(headers, name).into_iter().filter(|value| is_for_media(value)) {
        any = true;
        let mechanism = value.split(';').next().unwrap_or_default().trim();
        match mechanism.to_ascii_lowercase().as_str() {
            "msrp-tls" => security.msrp_tls = true,
            "bfcp-tls" => security.bfcp_tls = true,
            "udptl-dtls" => security.udptl_dtls = true,
            // Of a mechanism that is not ours nothing is agreed.
            _ => {}
        }
    }
    any.then_some(security)
}

/// A list of option tags without ours; `None` where no other is left.
pub(super) fn without_option(value: &str) -> Option<String> {
    let kept = value.split(',').map(str::trim).filter(|tag| !tag.eq_ignore_ascii_case(OPTION));
    joined(kept)
}

/// A list of mechanisms without those for media; `None` where no other is left.
pub(super) fn without_media_mechanisms(value: &str) -> Option<String> {
    joined(split_unquoted(value, ',').into_iter().map(str::trim).filter(|it| !is_for_media(it)))
}

fn is_for_media(mechanism: &str) -> bool {
    mechanism.split(';').skip(1).any(|parameter| parameter.trim().eq_ignore_ascii_case(OPTION))
}

fn joined<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

#[cfg(test)]
mod tests {
    use rsipstack::sip::Header;

    use super::*;

    #[test]
    fn only_mechanisms_for_media_are_taken_out() {
        let value = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1, msrp-tls;mediasec, tls;q=0.2";
        assert_eq!(
            without_media_mechanisms(value).as_deref(),
            Some("ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1, tls;q=0.2")
        );
        assert_eq!(without_media_mechanisms("sdes-srtp;mediasec"), None);
        assert_eq!(without_option("mediasec, sec-agree").as_deref(), Some("sec-agree"));
        assert_eq!(without_option("Mediasec"), None);
    }

    #[test]
    fn what_is_not_ours_is_not_agreed() {
        let headers =
            |value: &str| Headers::from(Header::Other("Security-Client".into(), value.into()));
        assert_eq!(supported(&headers("msrp-tls;q=0.1")), None);
        assert_eq!(supported(&headers("sdes-srtp;mediasec")), Some(MediaSecurity::default()));
        let both = MediaSecurity { msrp_tls: true, udptl_dtls: true, ..MediaSecurity::default() };
        assert_eq!(supported(&headers("msrp-tls;mediasec, udptl-dtls ; mediasec")), Some(both));
    }
}
