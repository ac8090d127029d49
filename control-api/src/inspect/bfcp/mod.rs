//! BFCP messages (RFC 8855): every field with its place and what it means.

mod input;
mod walk;

use std::io::{self, Write};

use mrfp_protocol::bfcp::Primitive;
use serde_json::{Value, json};

use self::input::Found;
use self::walk::Walk;
use super::table::{Paint, field_value, write_field};

/// How messages are told.
pub struct BfcpOptions {
    /// For programs.
    pub json: bool,
    /// With the colours of a terminal.
    pub colour: bool,
}

/// Everything that is told of one message.
struct Told {
    found: Found,
    walk: Walk,
}

/// Writes what is in the messages of these inputs, each with its name. `false`: one of them would
/// be refused for its format.
///
/// # Errors
/// Those of `out`; an input without a message.
pub fn bfcp(
    inputs: &[(String, Vec<u8>)],
    options: &BfcpOptions,
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut told = Vec::new();
    for (name, input) in inputs {
        let found = input::find(input, name).map_err(io::Error::other)?;
        told.extend(found.into_iter().map(|found| Told { walk: walk::walk(&found.bytes), found }));
    }
    if options.json {
        let messages: Vec<Value> = told.iter().map(Told::to_json).collect();
        serde_json::to_writer_pretty(&mut *out, &json!({ "messages": messages }))?;
        writeln!(out)?;
    } else {
        let paint = Paint::new(options.colour);
        for (index, message) in told.iter().enumerate() {
            message.write(index + 1, &paint, out)?;
        }
    }
    Ok(told.iter().all(|message| message.walk.refusal.is_none()))
}

impl Told {
    fn write(&self, number: usize, paint: &Paint, out: &mut impl Write) -> io::Result<()> {
        let heading = format!("{number}. {}, {} bytes", self.name(), self.found.bytes.len());
        writeln!(out, "{} ({})", paint.bold(&heading), self.found.place)?;
        writeln!(out, "{}", paint.dim("offset length"))?;
        for field in &self.walk.fields {
            write_field(out, field, 0, paint)?;
        }
        if let Some(broken) = &self.walk.broken {
            let (offset, attribute) = (broken.offset, broken.payload);
            let what = format!("broken at byte {offset} in {attribute}: {}", broken.why);
            writeln!(out, "{}", paint.red(&what))?;
        }
        match &self.walk.refusal {
            None => writeln!(out, "{}  the node's parser takes it\n", paint.green("parsed")),
            Some(why) => {
                writeln!(out, "{} the node's parser refuses it: {why}\n", paint.red("refused"))
            }
        }
    }

    fn name(&self) -> String {
        let code = self.walk.primitive;
        match code.map(|code| (code, Primitive::from_code(code))) {
            Some((code, Some(primitive))) => format!("{} ({code})", primitive.name()),
            Some((code, None)) => format!("message of unknown primitive {code}"),
            None => "no BFCP message".to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        let broken = self.walk.broken.as_ref().map(|broken| {
            json!({ "offset": broken.offset, "attribute": broken.payload, "reason": broken.why })
        });
        json!({
            "place": self.found.place,
            "name": self.name(),
            "bytes": self.found.bytes.len(),
            "fields": self.walk.fields.iter().map(field_value).collect::<Vec<_>>(),
            "broken": broken,
            "refused": self.walk.refusal,
        })
    }
}
