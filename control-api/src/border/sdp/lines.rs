//! A session description as lines, each of which remembers what it was and which clause changed it.

use std::ops::Range;

/// What became of one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// As it came; `None` where it was inserted.
    pub line_before: Option<String>,
    /// As it goes; `None` where it was removed.
    pub line_after: Option<String>,
    /// What asks for it; `None` where nothing was changed.
    pub clause: Option<&'static str>,
}

/// The lines: the session part, then one section for each m-line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    sections: Vec<Vec<Line>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    /// Without what ends the line.
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    /// `\r\n`, `\n`, or nothing at the end of the text.
    ending: &'static str,
    clause: Option<&'static str>,
}

/// Names a section of [`Text`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    /// Before the first m-line.
    Session,
    /// Of this m-line.
    Media(usize),
}

impl Text {
    pub(super) fn read(text: &[u8]) -> Self {
        let mut sections = vec![Vec::new()];
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let (line, ending) = match line.strip_suffix(b"\n") {
                None => (line, ""),
                Some(line) => match line.strip_suffix(b"\r") {
                    None => (line, "\n"),
                    Some(line) => (line, "\r\n"),
                },
            };
            if line.starts_with(b"m=") {
                sections.push(Vec::new());
            }
            let line = Line {
                before: Some(line.to_vec()),
                after: Some(line.to_vec()),
                ending,
                clause: None,
            };
            sections.last_mut().expect("there is the session part").push(line);
        }
        Self { sections }
    }

    pub(super) fn written(&self) -> Vec<u8> {
        let mut written = Vec::new();
        let mut ending = "";
        for line in self.sections.iter().flatten() {
            if let Some(after) = &line.after {
                // What had no end was the last line, and is it no longer.
                if ending.is_empty() && !written.is_empty() {
                    written.extend_from_slice(b"\r\n");
                }
                written.extend_from_slice(after);
                ending = line.ending;
                written.extend_from_slice(ending.as_bytes());
            }
        }
        written
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        let text = |line: &Option<Vec<u8>>| {
            line.as_ref().map(|line| String::from_utf8_lossy(line).into_owned())
        };
        let lines = self.sections.iter().flatten();
        let lines = lines.filter(|line| line.before.is_some() || line.after.is_some());
        lines
            .map(|line| Change {
                line_before: text(&line.before),
                line_after: text(&line.after),
                clause: line.clause,
            })
            .collect()
    }

    /// The lines of a kind (`c=`, `a=setup`), as they are now.
    pub(super) fn all<'a>(
        &'a self,
        section: Section,
        kind: &'a str,
    ) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.section(section).iter();
        lines.filter_map(|line| line.after.as_deref()).filter(move |line| is_kind(line, kind))
    }

    /// Of a section's first line, as it came, counted from 1.
    pub(super) fn line_number(&self, section: Section) -> usize {
        self.sections[..section.index()].iter().map(Vec::len).sum::<usize>() + 1
    }

    /// Whether there is such a line.
    pub(super) fn has(&self, section: Section, kind: &str) -> bool {
        self.all(section, kind).next().is_some()
    }

    /// There is one line of the kind from now on: the first is changed, or one is put where it belongs; more
    /// of them are removed.
    pub(super) fn set(&mut self, section: Section, kind: &str, value: &str, clause: &'static str) {
        let mut value = Some(value.as_bytes().to_vec());
        let lines = self.section_mut(section);
        for line in lines.iter_mut() {
            if line.after.as_deref().is_some_and(|line| is_kind(line, kind)) {
                line.change(value.take(), clause);
            }
        }
        if let Some(value) = value {
            let at = place(lines, kind);
            let ending = if lines.iter().any(|line| line.ending == "\n") { "\n" } else { "\r\n" };
            let clause = Some(clause);
            lines.insert(at, Line { before: None, after: Some(value), ending, clause });
        }
    }

    /// Changes each line of a kind that `changed` has something else for.
    pub(super) fn change_each(
        &mut self,
        section: Section,
        kind: &str,
        clause: &'static str,
        changed: impl Fn(&str) -> Option<String>,
    ) {
        for line in self.section_mut(section) {
            let Some(text) = line.after.as_deref().filter(|text| is_kind(text, kind)) else {
                continue;
            };
            if let Some(new) = std::str::from_utf8(text).ok().and_then(&changed) {
                line.change(Some(new.into_bytes()), clause);
            }
        }
    }

    /// No line of the kind is left.
    pub(super) fn remove(&mut self, section: Section, kind: &str, clause: &'static str) {
        for line in self.section_mut(section) {
            if line.after.as_deref().is_some_and(|line| is_kind(line, kind)) {
                line.change(None, clause);
            }
        }
    }

    /// What stands for the whole session stands under each of these m-lines instead that has no such line
    /// of its own.
    pub(super) fn push_down(
        &mut self,
        kind: &str,
        media: impl Iterator<Item = usize>,
        clause: &'static str,
    ) {
        let lines: Vec<Vec<u8>> = self.all(Section::Session, kind).map(<[u8]>::to_vec).collect();
        if lines.is_empty() {
            return;
        }
        for index in media {
            let section = Section::Media(index);
            if self.has(section, kind) {
                continue;
            }
            let of_section = self.section_mut(section);
            let at = place(of_section, kind);
            let clause = Some(clause);
            let pushed = lines.iter().cloned().map(|line| Line {
                before: None,
                after: Some(line),
                ending: "\r\n",
                clause,
            });
            let nothing: Range<usize> = at..at;
            of_section.splice(nothing, pushed);
        }
        self.remove(Section::Session, kind, clause);
    }

    fn section(&self, section: Section) -> &[Line] {
        &self.sections[section.index()]
    }

    fn section_mut(&mut self, section: Section) -> &mut Vec<Line> {
        &mut self.sections[section.index()]
    }
}

impl Section {
    fn index(self) -> usize {
        match self {
            Self::Session => 0,
            Self::Media(index) => index + 1,
        }
    }
}

impl Line {
    fn change(&mut self, new: Option<Vec<u8>>, clause: &'static str) {
        if self.after != new {
            self.after = new;
            self.clause = (self.after != self.before).then_some(clause);
        }
    }
}

/// `kind` is `c=` and its like, `b=AS`, or an attribute by name, `a=setup`.
fn is_kind(line: &[u8], kind: &str) -> bool {
    line.strip_prefix(kind.as_bytes())
        .is_some_and(|rest| kind.ends_with('=') || rest.first().is_none_or(|byte| *byte == b':'))
}

/// Where a new line of the kind goes: an attribute to the end, `c=` before what comes after it by RFC
/// 8866 section 5.
fn place(lines: &[Line], kind: &str) -> usize {
    if kind.starts_with("a=") {
        // Not behind an empty line that somebody has left at the end.
        let last = lines.iter().rposition(|line| {
            line.before.as_ref().or(line.after.as_ref()).is_some_and(|line| !line.is_empty())
        });
        return last.map_or(lines.len(), |last| last + 1);
    }
    let earlier = |line: &Line| {
        let text = line.before.as_ref().or(line.after.as_ref());
        text.and_then(|text| text.first()).is_some_and(|first| b"vosiuepm".contains(first))
    };
    lines.iter().take_while(|line| earlier(line)).count()
}
