//! What is wrong with a configuration, said so that it can be mended: file, line, column, the line
//! itself, the reason, the remedy.

use std::fmt;
use std::io;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Finding, Step};

/// A configuration that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file as the operator named it.
    file: String,
    /// Where in the file; `None` where it could not be read.
    place: Option<Place>,
    /// What is wrong.
    message: String,
    /// What to do about it.
    remedy: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    line: usize,
    column: usize,
    text: String,
    /// Characters to underline.
    length: usize,
}

impl Problem {
    pub(super) fn unreadable(file: &str, error: &io::Error) -> Self {
        Self {
            file: file.to_owned(),
            place: None,
            message: format!("cannot be read: {error}"),
            remedy: "name a file that exists and that this user may read; docs/mrf.toml of the \
                     source tree is a complete example"
                .to_owned(),
        }
    }

    pub(super) fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().to_owned();
        Self {
            file: file.to_owned(),
            remedy: remedy_of(&message, text.get(span.clone()).unwrap_or_default()),
            place: Some(Place::of(text, span, hides(&message))),
            message,
        }
    }

    pub(super) fn from_finding(file: &str, text: &str, finding: Finding) -> Self {
        let span = span_of(text, &finding.path).unwrap_or(0..0);
        let secret = matches!(finding.path.last(), Some(Step::Name("key" | "md5" | "sha256")));
        Self {
            file: file.to_owned(),
            place: Some(Place::of(text, span, secret)),
            message: finding.message,
            remedy: finding.remedy,
        }
    }

    /// Line and column, counted from 1; `None` where the file could not be read.
    #[must_use]
    pub fn position(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => writeln!(f, "{}: {}", self.file, self.message)?,
            Some(place) => {
                let Place { line, column, text, length } = place;
                writeln!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
                let margin = line.to_string().len();
                writeln!(f, " {line} | {text}")?;
                let indent = column - 1;
                writeln!(f, " {:margin$} | {:indent$}{}", "", "", "^".repeat(*length))?;
            }
        }
        write!(f, "remedy: {}", self.remedy)
    }
}

impl std::error::Error for Problem {}

impl Place {
    /// The place of a byte range. `secret` keeps quoted text out of what is shown.
    fn of(text: &str, span: Range<usize>, secret: bool) -> Self {
        let start = char_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = char_boundary(text, span.end.clamp(start, line_end));
        let line_text = text[line_start..line_end].trim_end_matches('\r');
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: if secret { redact(line_text) } else { line_text.to_owned() },
            length: text[start..end].chars().count().max(1),
        }
    }
}

/// The last place at or before `index` where `text` may be cut.
fn char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Whether a complaint of the parser is about a key.
fn hides(message: &str) -> bool {
    message.contains("hex digits")
}

/// The line with everything in quotes struck out, character by character, so that columns hold.
fn redact(line: &str) -> String {
    let mut quoted = false;
    let strike = |character: char| match character {
        '"' | '\'' => {
            quoted = !quoted;
            character
        }
        _ if quoted => '*',
        _ => character,
    };
    line.chars().map(strike).collect()
}

fn remedy_of(message: &str, found: &str) -> String {
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        return match closest(message, found.trim_matches(['"', '\''])) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "use one of the names above, or remove it".to_owned(),
        };
    }
    if message.contains("socket address") {
        return "write address and port, as in \"127.0.0.1:5060\" or \"[::1]:5060\"".to_owned();
    }
    if message.contains("IP address") {
        return "write a literal address, as in \"192.0.2.1\" or \"2001:db8::1\"".to_owned();
    }
    if message.contains("hex digits") {
        return "make one with: openssl rand -hex 32".to_owned();
    }
    "see docs/mrf.toml for every setting, its form and its default".to_owned()
}

/// The name the parser expected that is nearest to the one found, where one is near.
fn closest<'a>(message: &'a str, found: &str) -> Option<&'a str> {
    let expected = message.split_once("expected")?.1;
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| (edit_distance(name, found), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3 + 1)
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

/// Where the value that a path names stands, or the nearest thing around it that is in the file.
fn span_of(text: &str, path: &[Step]) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    let mut steps = path.iter();
    let Some(Step::Name(first)) = steps.next() else {
        return None;
    };
    let mut value: &Spanned<DeValue<'_>> = root.get_ref().get(*first)?;
    for step in steps {
        let next = match step {
            Step::Name(name) => value.get_ref().get(*name),
            Step::Index(index) => value.get_ref().get(*index),
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span())
}
