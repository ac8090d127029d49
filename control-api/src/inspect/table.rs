//! A message as the table of its fields, for engineers and for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::field::Field;

/// Values longer than this are cut in text: their length stands beside them, JSON has them whole.
const VALUE_CHARACTERS_MAX: usize = 72;

/// Writes a field with those it consists of.
pub(super) fn write_field(
    out: &mut impl Write,
    field: &Field,
    depth: usize,
    paint: &Paint,
) -> io::Result<()> {
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

/// The same for programs.
pub(super) fn field_value(field: &Field) -> Value {
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
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn red(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(super) fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn cyan(&self, text: &str) -> String {
        self.with("36", text)
    }
}

/// Where values begin.
const NAME_COLUMNS: usize = 26;
