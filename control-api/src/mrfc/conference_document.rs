//! `application/conference-info+xml` (RFC 4575 sections 4 to 6), with the nickname of RFC 6501 as
//! RFC 7701 section 7.4 asks.
//!
//! A document is a head, which differs from subscription to subscription by its version, and a
//! content, which is the same for all that have seen as much.

use std::io;

use mrfp_core::mp::Direction;
use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

use super::CallId;
use super::conference_state::{
    ConferenceState, Disconnection, Endpoint, Joining, Status, Summary, User,
};

/// The media type.
pub const CONFERENCE_INFO: &str = "application/conference-info+xml";

const NAMESPACE: &str = "urn:ietf:params:xml:ns:conference-info";
const NAMESPACE_XCON: &str = "urn:ietf:params:xml:ns:xcon-conference-info";

/// `id` and `label` of the one stream there is.
const MEDIA_ID: &str = "1";

type Xml = Writer<Vec<u8>>;

/// How much a document tells (RFC 4575 section 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    Full,
    Partial,
    /// The conference is over.
    Deleted,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Deleted => "deleted",
        }
    }
}

/// A whole document around a content.
pub(super) fn document(uri: &str, extent: Extent, version: u32, content: &[u8]) -> Vec<u8> {
    let mut xml = Writer::new(Vec::with_capacity(HEAD_SIZE_ESTIMATE + content.len()));
    let mut root = BytesStart::new("conference-info");
    root.push_attribute(("xmlns", NAMESPACE));
    root.push_attribute(("xmlns:xcon", NAMESPACE_XCON));
    root.push_attribute(("entity", text(uri).as_str()));
    root.push_attribute(("state", extent.name()));
    root.push_attribute(("version", version.to_string().as_str()));
    let declaration = quick_xml::events::BytesDecl::new("1.0", Some("UTF-8"), None);
    write(|| {
        xml.write_event(Event::Decl(declaration))?;
        xml.write_event(Event::Start(root))?;
        xml.get_mut().extend_from_slice(content);
        xml.write_event(Event::End(BytesEnd::new("conference-info")))
    });
    xml.into_inner()
}

/// Everything there is to tell.
pub(super) fn full_content(state: &ConferenceState) -> Vec<u8> {
    let mut xml = Writer::new(Vec::new());
    write(|| {
        description(&mut xml, state)?;
        host_info(&mut xml, state)?;
        summary(&mut xml, state.summary())?;
        users(&mut xml, Extent::Full, |xml| {
            state.users().try_for_each(|(entity, known)| user(xml, entity, Some(known)))
        })
    });
    xml.into_inner()
}

/// What changed after `seen`.
pub(super) fn partial_content(state: &ConferenceState, seen: u64) -> Vec<u8> {
    let changes = state.changes_after(seen);
    let mut xml = Writer::new(Vec::new());
    write(|| {
        if let Some(changed) = changes.summary {
            summary(&mut xml, changed)?;
        }
        if changes.users.is_empty() {
            return Ok(());
        }
        users(&mut xml, Extent::Partial, |xml| {
            changes.users.iter().try_for_each(|(entity, known)| user(xml, entity, *known))
        })
    });
    xml.into_inner()
}

fn description(xml: &mut Xml, state: &ConferenceState) -> io::Result<()> {
    nested(xml, "conference-description", |xml| {
        leaf(xml, "display-text", &state.display_text)?;
        nested(xml, "conf-uris", |xml| {
            nested(xml, "entry", |xml| {
                leaf(xml, "uri", &state.uri)?;
                leaf(xml, "purpose", "participation")
            })
        })?;
        nested(xml, "service-uris", |xml| {
            nested(xml, "entry", |xml| {
                leaf(xml, "uri", &state.uri)?;
                leaf(xml, "purpose", "event")
            })
        })?;
        leaf(xml, "maximum-user-count", &state.user_count_max.to_string())?;
        nested(xml, "available-media", |xml| {
            xml.create_element("entry")
                .with_attribute(("label", MEDIA_ID))
                .write_inner_content(|xml| {
                    leaf(xml, "type", "message")?;
                    leaf(xml, "status", "sendrecv")
                })
                .map(drop)
        })
    })
}

fn host_info(xml: &mut Xml, state: &ConferenceState) -> io::Result<()> {
    nested(xml, "host-info", |xml| {
        nested(xml, "uris", |xml| nested(xml, "entry", |xml| leaf(xml, "uri", &state.uri)))
    })
}

fn summary(xml: &mut Xml, summary: Summary) -> io::Result<()> {
    nested(xml, "conference-state", |xml| {
        leaf(xml, "user-count", &summary.user_count.to_string())?;
        leaf(xml, "active", if summary.locked { "false" } else { "true" })?;
        leaf(xml, "locked", if summary.locked { "true" } else { "false" })
    })
}

fn users(
    xml: &mut Xml,
    extent: Extent,
    content: impl FnOnce(&mut Xml) -> io::Result<()>,
) -> io::Result<()> {
    let element = xml.create_element("users").with_attribute(("state", extent.name()));
    element.write_inner_content(content).map(drop)
}

/// A user is told whole or as gone: its endpoints are few.
fn user(xml: &mut Xml, entity: &str, known: Option<&User>) -> io::Result<()> {
    let extent = if known.is_some() { Extent::Full } else { Extent::Deleted };
    let entity_text = text(entity);
    let mut element = xml
        .create_element("user")
        .with_attribute(("entity", entity_text.as_str()))
        .with_attribute(("state", extent.name()));
    let Some(known) = known else {
        return element.write_empty().map(drop);
    };
    let nickname = known.endpoints.values().find_map(|endpoint| endpoint.nickname.as_deref());
    if let Some(nickname) = nickname {
        element = element.with_attribute(("xcon:nickname", text(nickname).as_str()));
    }
    element
        .write_inner_content(|xml| {
            let mut names = known.endpoints.values().filter_map(|e| e.display_text.as_deref());
            if let Some(name) = names.next() {
                leaf(xml, "display-text", name)?;
            }
            if let Some(first) = known.endpoints.values().next() {
                nested(xml, "roles", |xml| leaf(xml, "entry", first.role))?;
            }
            known
                .endpoints
                .iter()
                .try_for_each(|(call, known)| endpoint(xml, &endpoint_entity(entity, *call), known))
        })
        .map(drop)
}

fn endpoint(xml: &mut Xml, entity: &str, endpoint: &Endpoint) -> io::Result<()> {
    xml.create_element("endpoint")
        .with_attribute(("entity", text(entity).as_str()))
        .with_attribute(("state", Extent::Full.name()))
        .write_inner_content(|xml| {
            if let Some(by) = &endpoint.referred_by {
                nested(xml, "referred", |xml| leaf(xml, "by", by))?;
            }
            leaf(xml, "status", status_name(endpoint.status))?;
            leaf(xml, "joining-method", joining_name(endpoint.joining))?;
            if let Status::Disconnected(how) = endpoint.status {
                leaf(xml, "disconnection-method", disconnection_name(how))?;
            }
            match endpoint.direction {
                Some(direction) => media(xml, direction),
                None => Ok(()),
            }
        })
        .map(drop)
}

fn media(xml: &mut Xml, direction: Direction) -> io::Result<()> {
    xml.create_element("media")
        .with_attribute(("id", MEDIA_ID))
        .write_inner_content(|xml| {
            leaf(xml, "type", "message")?;
            leaf(xml, "label", MEDIA_ID)?;
            leaf(xml, "status", direction_name(direction))
        })
        .map(drop)
}

/// The key of an endpoint: unique, and without the network address a Contact would give away.
pub(super) fn endpoint_entity(user: &str, call: CallId) -> String {
    format!("{user};endpoint={}", call.0)
}

fn nested(
    xml: &mut Xml,
    name: &str,
    content: impl FnOnce(&mut Xml) -> io::Result<()>,
) -> io::Result<()> {
    xml.create_element(name).write_inner_content(content).map(drop)
}

fn leaf(xml: &mut Xml, name: &str, value: &str) -> io::Result<()> {
    xml.create_element(name).write_text_content(BytesText::new(&text(value))).map(drop)
}

/// What XML 1.0 has no way to write (section 2.2, `Char`) is replaced: names come from the wire.
fn text(value: &str) -> String {
    let writable = |character: char| {
        matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
            || character >= '\u{10000}'
    };
    value.chars().map(|c| if writable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn write(content: impl FnOnce() -> io::Result<()>) {
    content().expect("memory takes everything");
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::DialingOut => "dialing-out",
        Status::Alerting => "alerting",
        Status::Pending => "pending",
        Status::Connected => "connected",
        Status::OnHold => "on-hold",
        Status::MutedViaFocus => "muted-via-focus",
        Status::Disconnected(_) => "disconnected",
    }
}

fn joining_name(joining: Joining) -> &'static str {
    match joining {
        Joining::DialedIn => "dialed-in",
        Joining::DialedOut => "dialed-out",
    }
}

fn disconnection_name(how: Disconnection) -> &'static str {
    match how {
        Disconnection::Departed => "departed",
        Disconnection::Booted => "booted",
        Disconnection::Failed => "failed",
        Disconnection::Busy => "busy",
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}

/// Declaration and root element without the URI.
const HEAD_SIZE_ESTIMATE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_contains_stays_a_name() {
        let mut state = ConferenceState::new("sip:r&d@x".into(), "<r>\u{1}".into(), 3);
        let endpoint = Endpoint {
            display_text: Some("\"Al\" <b>&amp;".into()),
            nickname: Some("a\"b<c>\u{0}".into()),
            role: "participant",
            status: Status::Connected,
            joining: Joining::DialedIn,
            referred_by: None,
            direction: Some(Direction::SendRecv),
        };
        state.set("sip:a'b&c@x", CallId(1), endpoint);
        let content = full_content(&state);
        let whole = document(&state.uri, Extent::Full, 0, &content);
        let whole = String::from_utf8(whole).expect("UTF-8");
        assert!(whole.contains("entity=\"sip:r&amp;d@x\""), "{whole}");
        assert!(whole.contains("<display-text>&lt;r&gt;\u{fffd}</display-text>"), "{whole}");
        assert!(whole.contains("xcon:nickname=\"a&quot;b&lt;c&gt;\u{fffd}\""), "{whole}");
        assert!(whole.contains("&lt;b&gt;&amp;amp;"), "{whole}");
        let mut reader = quick_xml::Reader::from_str(&whole);
        reader.config_mut().check_end_names = true;
        while reader.read_event().expect("well-formed") != Event::Eof {}
    }
}
