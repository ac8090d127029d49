//! One session of somebody in a chat room.

use mrfp_protocol::user_uri;

use super::Uri;
use super::acceptance::Accepts;
use super::known_head::KnownHead;
use crate::mp::{Capabilities, ReserveAndConfigure};

/// What a room knows of a Termination.
pub(crate) struct Participant {
    /// By which names it may speak and is found; the first is how the room knows it.
    pub(super) uris: Vec<Uri>,
    /// Its client understands private messages.
    pub(super) private_messages: bool,
    pub(super) accepts: Accepts,
    /// The name it goes by, as it compares.
    pub(super) nickname: Option<String>,
    /// Like what its next message probably begins; nothing while it is quiet.
    pub(super) known_head: Option<Box<KnownHead>>,
}

/// RFC 3323 section 4.1.1.3: stands for whoever does not want to be known.
const ANONYMOUS: &[u8] = b"sip:anonymous@anonymous.invalid";

impl Participant {
    pub(crate) fn new(reserve: &ReserveAndConfigure) -> Self {
        Self {
            uris: reserve.member.uris.iter().cloned().filter_map(Uri::new).collect(),
            private_messages: reserve.member.private_messages,
            accepts: Accepts {
                types: reserve.accept_types.clone().into_bytes(),
                wrapped_types: reserve.accept_wrapped_types.clone().into_bytes(),
                size_bytes_max: reserve.max_size_bytes,
            },
            nickname: None,
            known_head: None,
        }
    }

    /// Its client has said anew what it takes.
    pub(crate) fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.private_messages = capabilities.private_messages;
        self.accepts = Accepts {
            types: capabilities.accept_types.clone().into_bytes(),
            wrapped_types: capabilities.accept_wrapped_types.clone().into_bytes(),
            size_bytes_max: capabilities.max_size_bytes,
        };
    }

    /// It has said nothing for a while.
    pub(crate) fn forget_head(&mut self) {
        self.known_head = None;
    }

    /// Which of its names this is. `normal` is scratch memory.
    pub(super) fn name(&self, uri: &[u8], normal: &mut Vec<u8>) -> Option<usize> {
        if self.uris.first().is_some_and(|own| own.text == uri) {
            return Some(0);
        }
        normal.clear();
        user_uri::normalise(uri, normal);
        self.uris.iter().position(|own| own.normal == *normal)
    }

    /// Its name of that number.
    pub(super) fn uri(&self, name: usize) -> &[u8] {
        self.uris.get(name).map_or(ANONYMOUS, |uri| &uri.text)
    }

    /// Whether both are sessions of one user; whoever shares the name that names nobody is not.
    pub(super) fn is_same_user(&self, normal: &[u8]) -> bool {
        !is_unidentifying(normal) && self.uris.first().is_some_and(|own| own.normal == normal)
    }
}

/// Whether a URI may be anybody's, so that nobody is found under it.
pub(super) fn is_unidentifying(normal: &[u8]) -> bool {
    normal == ANONYMOUS
}
