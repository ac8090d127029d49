//! What was found, as text for engineers and as JSON for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::field::Field;
use super::proof::{Finding, Outcome};
use super::{MikeyOptions, Told, names};

/// Values longer than this are cut in text: their length stands beside them, JSON has them whole.
const VALUE_CHARACTERS_MAX: usize = 72;

/// Writes every message as a table of its fields.
pub(super) fn text(
    told: &[Told],
    options: &MikeyOptions<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint(options.colour);
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

fn write_field(out: &mut impl Write, field: &Field, depth: usize, paint: &Paint) -> io::Result<()> {
    let indent = 2 * depth;
    write!(out, "{} ", paint.dim(&format!("{:>6} {:>6} ", field.offset, field.length)))?;
    if field.code.is_none() && field.text.is_none() {
        write!(out, "{:indent$}{}", "", paint.bold(field.name))?;
    } else {
        // Aligned, whatever the depth.
        let width = NAME_COLUMNS.saturating_sub(indent);
        write!(out, "{:indent$}{:<width$} {}", "", field.name, value_of(field))?;
    }
    if let Some(meaning) = &field.meaning {
        let alarming = meaning.starts_with("CONTRADICTION") || meaning.starts_with("unknown");
        let shown = if alarming { paint.red(meaning) } else { paint.cyan(meaning) };
        write!(out, "  {shown}")?;
    }
    writeln!(out)?;
    field.children.iter().try_for_each(|child| write_field(out, child, depth + 1, paint))
}

fn value_of(field: &Field) -> String {
    match (field.code, &field.text) {
        (Some(code), _) => code.to_string(),
        (None, Some(text)) if text.chars().count() > VALUE_CHARACTERS_MAX => {
            let cut: String = text.chars().take(VALUE_CHARACTERS_MAX).collect();
            format!("{cut}...")
        }
        (None, Some(text)) => text.clone(),
        (None, None) => String::new(),
    }
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

fn field_value(field: &Field) -> Value {
    let mut value = json!({ "name": field.name, "offset": field.offset, "length": field.length });
    let object = value.as_object_mut().expect("made as one");
    if let Some(code) = field.code {
        object.insert("code".to_owned(), code.into());
    }
    if let Some(text) = &field.text {
        object.insert("value".to_owned(), text.trim_matches('"').into());
    }
    if let Some(meaning) = &field.meaning {
        object.insert("meaning".to_owned(), meaning.as_str().into());
    }
    if !field.children.is_empty() {
        let children = field.children.iter().map(field_value).collect::<Vec<_>>();
        object.insert("fields".to_owned(), children.into());
    }
    value
}

/// Colours, where they are wanted.
struct Paint(bool);

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn red(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }

    fn cyan(&self, text: &str) -> String {
        self.with("36", text)
    }
}

/// Where values begin.
const NAME_COLUMNS: usize = 26;
