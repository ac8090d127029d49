//! `a=chatroom` (RFC 7701 section 8).

use sdp_types::Attribute;

/// What an end of a chat room's session supports and allows. It is declared, not negotiated: an
/// answer may say more than the offer did, and may have the attribute where the offer had not.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Chatroom {
    /// The method NICKNAME.
    pub nicknames: bool,
    /// Private messages.
    pub private_messages: bool,
}

impl Chatroom {
    /// Reads the attribute, if it is there. Tokens that nobody here knows are extensions.
    pub(super) fn of(attributes: &[Attribute]) -> Option<Self> {
        let attribute = attributes.iter().find(|a| a.attribute == "chatroom")?;
        let mut chatroom = Self::default();
        for token in attribute.value.as_deref().unwrap_or_default().split_ascii_whitespace() {
            match token.to_ascii_lowercase().as_str() {
                // The grammar and the examples of RFC 7701 say `nickname`, its prose `nicknames`.
                "nickname" | "nicknames" => chatroom.nicknames = true,
                "private-messages" => chatroom.private_messages = true,
                _ => (),
            }
        }
        Some(chatroom)
    }

    /// The attribute as the grammar has it.
    pub(super) fn attribute(self) -> Attribute {
        match (self.nicknames, self.private_messages) {
            (false, false) => Attribute::new("chatroom"),
            (true, false) => Attribute::with_value("chatroom", "nickname"),
            (false, true) => Attribute::with_value("chatroom", "private-messages"),
            (true, true) => Attribute::with_value("chatroom", "nickname private-messages"),
        }
    }
}
