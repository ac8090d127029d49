//! `mrf inspect`: says what the node makes of a piece of protocol, for whoever has a trace and a
//! question. It reads with the node's own parsers, and answers with its own logic.

mod bfcp;
mod border;
mod field;
mod mikey;
mod msrp;
mod sdp;
mod table;
mod text;

pub use bfcp::{BfcpOptions, bfcp};
pub use border::{BorderOptions, example_end, example_fingerprint, sdp_through_border};
pub use mikey::{Keys, MikeyOptions, Purpose, mikey};
pub use msrp::msrp;
pub use sdp::sdp;

/// Text from a peer, on its way to a terminal: control characters are spelt out.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}
