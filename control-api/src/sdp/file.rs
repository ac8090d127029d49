//! The attributes of a file transfer (RFC 5547): one m-line, one MSRP session, one file.

use sdp_types::Attribute;

use super::message::{LIST_SIZE_MAX, Unservable};

/// The file an m-line is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileTransfer {
    /// Which file.
    pub selector: FileSelector,
    /// `a=file-transfer-id`: tells a new transfer from a description that is merely repeated.
    pub transfer_id: String,
    /// `a=file-range`; absent: the whole file.
    pub range: Option<FileRange>,
    /// The lines as they were written, all six kinds.
    lines: Vec<Attribute>,
}

/// `a=file-selector`: what is known of the file, at least one thing.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FileSelector {
    /// `name:`, percent-encoded as it was written.
    pub name: Option<String>,
    /// `size:`, bytes of the whole file.
    pub size_bytes: Option<u64>,
    /// `type:`, with parameters.
    pub media_type: Option<String>,
    /// `hash:`, algorithm and bytes as they were written; one per algorithm.
    pub hashes: Vec<(String, String)>,
}

/// `a=file-range`: bytes of the file, counted from 1, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRange {
    /// First byte.
    pub start: u64,
    /// Last byte; `None`: up to the end, wherever that is.
    pub stop: Option<u64>,
}

impl FileTransfer {
    /// Reads what an m-line says of a file. A selector without a word says only that its author
    /// knows of file transfer (RFC 5547 section 8.5); then there is no file.
    pub(super) fn parse(attributes: &[Attribute]) -> Result<Option<Self>, Unservable> {
        let Some(selector) = value(attributes, "file-selector")?.filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        let selector = FileSelector::parse(selector).ok_or(Unservable::FileAttribute)?;
        let transfer_id = value(attributes, "file-transfer-id")?;
        let transfer_id =
            transfer_id.filter(|id| is_token(id)).ok_or(Unservable::FileAttribute)?.to_owned();
        let range = match value(attributes, "file-range")? {
            None => None,
            Some(text) => Some(FileRange::parse(text).ok_or(Unservable::FileAttribute)?),
        };
        let disposition = value(attributes, "file-disposition")?;
        let date = value(attributes, "file-date")?;
        let icon = value(attributes, "file-icon")?;
        let sound = disposition.is_none_or(is_token)
            && date.is_none_or(are_dates)
            && icon.is_none_or(|url| url.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("cid:")));
        if !sound {
            return Err(Unservable::FileAttribute);
        }
        let lines = attributes.iter().filter(|a| LINES.contains(&a.attribute.as_str()));
        Ok(Some(Self { selector, transfer_id, range, lines: lines.cloned().collect() }))
    }

    /// The lines with which the receiver of the file answers (RFC 5547 section 8.3.1): selector,
    /// identifier and range as they were offered, and none of the others.
    #[must_use]
    pub fn answer(&self) -> Vec<Attribute> {
        let lines = self.lines.iter().filter(|a| ANSWERED.contains(&a.attribute.as_str()));
        lines.cloned().collect()
    }

    /// The lines of an offer of ours for the same file. The icon is a body part of the request that
    /// brought it (section 8.8) and stays behind.
    #[must_use]
    pub fn offer(&self) -> Vec<Attribute> {
        let lines = self.lines.iter().filter(|a| a.attribute != "file-icon");
        lines.cloned().collect()
    }

    /// Bytes of the file that are to come, as far as the description tells.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        match self.range {
            Some(FileRange { start, stop: Some(stop) }) => Some(stop - start + 1),
            Some(FileRange { start, stop: None }) => {
                self.selector.size_bytes.map(|size| size.saturating_sub(start - 1))
            }
            None => self.selector.size_bytes,
        }
    }

    /// RFC 5547 section 8.1, figure 3: the same identifier with another file is an error.
    #[must_use]
    pub fn contradicts(&self, later: &Self) -> bool {
        self.transfer_id == later.transfer_id && !self.selector.agrees(&later.selector)
    }
}

impl FileSelector {
    /// Both may mean the same file: nothing that both name differs.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        same(self.name.as_ref(), other.name.as_ref())
            && same(self.size_bytes.as_ref(), other.size_bytes.as_ref())
            && same(self.media_type.as_ref(), other.media_type.as_ref())
            && self.hashes.iter().all(|(algorithm, hash)| {
                let named = other.hashes.iter().find(|(other, _)| other == algorithm);
                named.is_none_or(|(_, other)| other == hash)
            })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut selector = Self::default();
        for word in split(text, ' ') {
            let (kind, value) = word.split_once(':')?;
            let repeated = match kind {
                "name" => selector.name.replace(quoted(value)?.to_owned()).is_some(),
                "size" => selector.size_bytes.replace(number(value)?).is_some(),
                "type" => selector.media_type.replace(media_type(value)?.to_owned()).is_some(),
                "hash" => {
                    let (algorithm, hash) = hash(value)?;
                    let named = selector.hashes.iter().any(|(other, _)| *other == algorithm);
                    selector.hashes.push((algorithm, hash));
                    named
                }
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        (selector != Self::default()).then_some(selector)
    }
}

impl FileRange {
    fn parse(text: &str) -> Option<Self> {
        let (start, stop) = text.split_once('-')?;
        let start = number(start).filter(|start| *start > 0)?;
        let stop = match stop {
            "*" => None,
            stop => Some(number(stop).filter(|stop| *stop >= start)?),
        };
        Some(Self { start, stop })
    }
}

/// What an answer repeats whether it takes the file or refuses it (RFC 5547 section 8.3).
pub(super) fn mirrored(attributes: &[Attribute]) -> Vec<Attribute> {
    let mirrored = |a: &&Attribute| {
        let size = a.value.as_ref().map_or(0, String::len);
        ["file-selector", "file-transfer-id"].contains(&a.attribute.as_str())
            && size <= LIST_SIZE_MAX
    };
    // Twice each, should an offerer have repeated itself, and no more.
    attributes.iter().filter(mirrored).take(4).cloned().collect()
}

/// The value of an attribute that may stand once; `Some("")` where it has none.
fn value<'a>(attributes: &'a [Attribute], name: &str) -> Result<Option<&'a str>, Unservable> {
    let mut named = attributes.iter().filter(|a| a.attribute == name);
    let Some(attribute) = named.next() else {
        return Ok(None);
    };
    let text = attribute.value.as_deref().unwrap_or_default().trim();
    if named.next().is_some() || text.len() > LIST_SIZE_MAX {
        return Err(Unservable::FileAttribute);
    }
    Ok(Some(text))
}

/// What stands between separators outside quotes, empty pieces left out.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let pieces = text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    });
    pieces.filter(|piece| !piece.is_empty())
}

/// What stands between two quotes, not empty.
fn quoted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.is_empty() && !inner.contains('"')).then_some(inner)
}

/// A media type with quoted parameters, `image/jpeg` or `text/plain;charset="utf-8"`.
fn media_type(text: &str) -> Option<&str> {
    let mut parts = split(text, ';');
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let parameters = parts.all(|part| {
        part.split_once('=').is_some_and(|(name, value)| is_token(name) && quoted(value).is_some())
    });
    (is_token(kind) && is_token(subtype) && parameters).then_some(text)
}

/// `sha-1:72:24:…` as algorithm and bytes, the one in lower, the other in upper case.
fn hash(text: &str) -> Option<(String, String)> {
    let (algorithm, bytes) = text.split_once(':')?;
    let is_byte = |byte: &str| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit());
    let sound = is_token(algorithm) && bytes.split(':').all(is_byte);
    sound.then(|| (algorithm.to_ascii_lowercase(), bytes.to_ascii_uppercase()))
}

/// Dates of creation, modification and reading, at most one of each.
fn are_dates(text: &str) -> bool {
    let mut seen = Vec::new();
    let sound = split(text, ' ').all(|word| {
        let Some((kind, date)) = word.split_once(':') else {
            return false;
        };
        let new = ["creation", "modification", "read"].contains(&kind) && !seen.contains(&kind);
        seen.push(kind);
        new && quoted(date).is_some()
    });
    sound && !seen.is_empty()
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// RFC 8866 section 9: token.
fn is_token(text: &str) -> bool {
    let is_token_char =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_char)
}

/// Every line there is.
const LINES: [&str; 6] = [
    "file-selector",
    "file-transfer-id",
    "file-disposition",
    "file-date",
    "file-icon",
    "file-range",
];

/// What the receiver of a file repeats.
const ANSWERED: [&str; 3] = ["file-selector", "file-transfer-id", "file-range"];
