//! What was found, as text for engineers and as JSON for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::proof::{Finding, Outcome};
use super::{MikeyOptions, Told, names};
use crate::inspect::table::{Paint, field_value, write_field};

/// Writes every message as a table of its fields.
pub(super) fn text(
    told: &[Told],
    options: &MikeyOptions<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint::new(options.colour);
    for (index, message) in told.iter().enumerate() {
        let name = message_name(message);
        let bytes = message.found.bytes.len();
        let heading = format!("{}. {name}, {bytes} bytes", index + 1);
        writeln!(out, "{} ({})", paint.bold(&heading), message.found.place)?;
        writeln!(out, "{}", paint.dim("offset length"))?;
        for field in &message.walk.fields {
            write_field(out, field, 0, &paint)?;
        }
        for broken in &message.walk.broken {
            let what =
                format!("broken at byte {} in {}: {}", broken.offset, broken.payload, broken.why);
            writeln!(out, "{}", paint.red(&what))?;
        }
        write_verdict(out, message, &paint)?;
        for finding in &message.findings {
            write_finding(out, finding, &paint)?;
        }
        writeln!(out)?;
    }
    if options.keys.is_empty() {
        writeln!(out, "no keys were given: MACs are not verified (--config, --key-file)")?;
    }
    Ok(())
}

fn write_verdict(out: &mut impl Write, message: &Told, paint: &Paint) -> io::Result<()> {
    match &message.refusal {
        None => writeln!(out, "{}  the node's parser takes it", paint.green("parsed")),
        Some(why) => writeln!(out, "{} the node's parser refuses it: {why}", paint.red("refused")),
    }
}

fn write_finding(out: &mut impl Write, finding: &Finding, paint: &Paint) -> io::Result<()> {
    let word = match finding.outcome {
        Outcome::Right => paint.green("ok     "),
        Outcome::Wrong => paint.red("WRONG  "),
        Outcome::Unknown => paint.yellow("unknown"),
    };
    writeln!(out, "{word} {}: {}", finding.subject, finding.detail)
}

fn message_name(message: &Told) -> String {
    if message.walk.fields.is_empty() || message.walk.fields[0].children.len() < 2 {
        return "no MIKEY message".to_owned();
    }
    let code = message.walk.seen.data_type;
    match names::data_type(u64::from(code)) {
        Some(name) => format!("{name} ({code})"),
        None => format!("message of unknown type {code}"),
    }
}

/// Writes the same as one JSON document.
pub(super) fn json(told: &[Told], out: &mut impl Write) -> io::Result<()> {
    let messages: Vec<Value> = told.iter().map(message_value).collect();
    serde_json::to_writer_pretty(&mut *out, &json!({ "messages": messages }))?;
    writeln!(out)
}

fn message_value(message: &Told) -> Value {
    let broken = message.walk.broken.iter().map(|broken| {
        json!({ "offset": broken.offset, "payload": broken.payload, "reason": broken.why })
    });
    let findings = message.findings.iter().map(|finding| {
        let outcome = match finding.outcome {
            Outcome::Right => "ok",
            Outcome::Wrong => "wrong",
            Outcome::Unknown => "unknown",
        };
        json!({ "outcome": outcome, "subject": finding.subject, "detail": finding.detail })
    });
    json!({
        "place": message.found.place,
        "name": message_name(message),
        "bytes": message.found.bytes.len(),
        "fields": message.walk.fields.iter().map(field_value).collect::<Vec<_>>(),
        "broken": broken.collect::<Vec<_>>(),
        "refused": message.refusal,
        "findings": findings.collect::<Vec<_>>(),
    })
}
