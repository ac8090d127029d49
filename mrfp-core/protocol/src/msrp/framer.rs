//! Cutting a byte stream into pieces of messages.

use std::sync::LazyLock;

use memchr::memmem;

use super::head::{HYPHENS, HeadEnd, Tail, parse_start};
use super::{Head, IDENT_BYTES_MAX, Malformed, MalformedReason, Paths};

/// Cuts a byte stream into pieces of MSRP messages. Holds a few dozen bytes between calls; what it
/// did not consume the caller presents again, with more behind it.
///
/// After an error that tells where to go on ([`Malformed::consumed`]) the rest of that message comes
/// without its head; after any other the stream is lost and every further call repeats the reason.
#[derive(Debug, Default)]
pub struct Framer {
    state: State,
}

/// One step through the stream. A short message that lies whole in the input is one piece with
/// `head`, `body` and `end`; a long one is many.
#[derive(Default, Debug)]
pub struct Piece<'a> {
    /// Present where a message begins.
    pub head: Option<Head<'a>>,
    /// The next bytes of the body, maybe none.
    pub body: &'a [u8],
    /// Present where the message ends.
    pub end: Option<Continuation>,
    /// Where a message begins: everything from behind its From-Path line to the end of `body`, as it
    /// stands in the input; otherwise empty. For those who pass it on unchanged.
    pub after_paths: &'a [u8],
    /// Bytes of the input this piece took.
    pub consumed: usize,
}

/// The flag of an end-line (RFC 4975 section 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuation {
    /// `$`: last chunk of the message.
    Last,
    /// `+`: more chunks follow.
    More,
    /// `#`: the sender gives the message up.
    Abort,
}

/// Longest start line plus headers that is accepted, with the empty line (or, without a body, the
/// end-line) behind them. A dozen URIs fit, and a caller that carries an incomplete head needs no
/// more than this.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug)]
enum State {
    Head(Scan),
    Body(Body),
    Lost(MalformedReason),
}

/// How far an incomplete head has been looked through, from the first byte of the input on. Every
/// byte is looked at once, however small the steps in which it comes.
#[derive(Clone, Copy, Default, Debug)]
struct Scan {
    line_start: usize,
    /// No LF between `line_start` and here.
    scanned: usize,
}

/// In the middle of a body: all that is needed to know its end.
#[derive(Debug)]
struct Body {
    transaction_id: [u8; IDENT_BYTES_MAX],
    transaction_id_bytes: u8,
    /// No byte of the body has been handed out.
    at_start: bool,
}

/// The next bytes of a body and, if it is there, its end.
struct Run<'a> {
    body: &'a [u8],
    end: Option<Continuation>,
    consumed: usize,
}

/// How the bytes at some place compare with the end-line.
enum EndLine {
    /// It is one; `bytes` from the first hyphen to the LF.
    Whole { continuation: Continuation, bytes: usize },
    /// It may become one.
    Prefix,
    /// It is something else.
    Other,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Scan::default())
    }
}

impl Framer {
    /// Whether nothing is known of a message yet: the next byte is the first of one, and has not been
    /// presented before. A new framer would do as well, and a caller that knows what comes may take that
    /// message itself.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Head(Scan { line_start: 0, scanned: 0 }))
    }

    /// The next piece; `Ok(None)`: nothing can be said before more bytes come. A head longer than
    /// [`HEAD_BYTES_MAX`] is malformed.
    ///
    /// Inside a body at most 43 bytes stay unconsumed: what may turn out to be the end-line.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
        let mut piece = Piece::default();
        Ok(self.read(input, None, &mut piece)?.then_some(piece))
    }

    /// As [`next`](Self::next), into a piece of the caller's, which need not be moved and whatever it
    /// was before. False: nothing can be said before more bytes come.
    ///
    /// `usual` are the paths the next head is expected to have. Where it has them to the letter, which
    /// a comparison tells, they are not read; they must be such as a head may have.
    #[inline]
    pub fn read<'a>(
        &mut self,
        input: &'a [u8],
        usual: Option<Paths<'_>>,
        piece: &mut Piece<'a>,
    ) -> Result<bool, Malformed> {
        match &mut self.state {
            State::Head(scan) => {
                // Nearly every head is whole when it is first seen, and is read in one pass.
                // Whatever else it is, the scan below finds out.
                if scan.scanned == 0
                    && let Ok(Some(end)) =
                        piece.head.insert(Head::NOTHING).read(head_window(input), usual)
                {
                    return self.open(input, piece, &end);
                }
                match scan.find_head_end(input) {
                    Ok(None) => Ok(false),
                    Ok(Some(headers)) => self.read_scanned(input, headers, piece),
                    Err((reason, seen)) => Err(self.lose(reason, &input[..seen])),
                }
            }
            State::Body(body) => {
                *piece = body.next(input);
                if piece.end.is_some() {
                    self.state = State::default();
                }
                Ok(piece.consumed > 0)
            }
            State::Lost(reason) => Err(Malformed { reason: *reason, answer: None, consumed: None }),
        }
    }

    /// Reads a head that the scan has found complete; its header lines end at `headers`.
    #[cold]
    fn read_scanned<'a>(
        &mut self,
        input: &'a [u8],
        headers: usize,
        piece: &mut Piece<'a>,
    ) -> Result<bool, Malformed> {
        match piece.head.insert(Head::NOTHING).read(head_window(input), None) {
            Ok(Some(end)) => self.open(input, piece, &end),
            Ok(None) => unreachable!("the scan has seen the end"),
            Err(reason) => Err(self.refuse(reason, input, headers)),
        }
    }

    /// Begins a message, whose head is in the piece, with as much of the body as is there.
    #[inline(always)]
    fn open<'a>(
        &mut self,
        input: &'a [u8],
        piece: &mut Piece<'a>,
        end: &HeadEnd,
    ) -> Result<bool, Malformed> {
        let Some(head) = &piece.head else { unreachable!("it has been read") };
        let after_paths = end.headers - head.header_lines.len();
        match end.tail {
            Tail::EndLine => match end_line(head.transaction_id, &input[end.headers..end.total]) {
                EndLine::Whole { continuation, .. } => {
                    self.state = State::default();
                    piece.after_paths = &input[after_paths..end.headers];
                    piece.body = &[];
                    piece.end = Some(continuation);
                    piece.consumed = end.total;
                }
                EndLine::Prefix | EndLine::Other => {
                    return Err(self.lose(MalformedReason::EndLine, &input[..end.headers]));
                }
            },
            Tail::Body => {
                let run = next_run(head.transaction_id, true, &input[end.total..]);
                self.state = match run.end {
                    Some(_) => State::default(),
                    None => State::Body(Body::new(head.transaction_id, run.body.is_empty())),
                };
                piece.after_paths = &input[after_paths..end.total + run.body.len()];
                piece.body = run.body;
                piece.end = run.end;
                piece.consumed = end.total + run.consumed;
            }
        }
        Ok(true)
    }

    /// The head is no good, but whole: where its message ends can be told all the same.
    #[cold]
    fn refuse(&mut self, reason: MalformedReason, input: &[u8], headers: usize) -> Malformed {
        let mut malformed = self.lose(reason, &input[..headers]);
        let start_line = input.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let Ok((transaction_id, _)) = parse_start(start_line) else { return malformed };
        let body = Body::new(transaction_id, true);
        if input[headers..].starts_with(b"\r\n") {
            malformed.consumed = Some(headers + 2);
            self.state = State::Body(body);
        } else if let EndLine::Whole { bytes, .. } = end_line(transaction_id, &input[headers..]) {
            malformed.consumed = Some(headers + bytes);
            self.state = State::default();
        }
        malformed
    }

    #[cold]
    fn lose(&mut self, reason: MalformedReason, seen: &[u8]) -> Malformed {
        self.state = State::Lost(reason);
        Malformed::new(reason, seen)
    }
}

impl Scan {
    /// Goes on looking for the end of the head; says where the header lines end. An error comes
    /// with the number of bytes that were looked at: it depends on the stream only, not on how much
    /// of it has come.
    fn find_head_end(&mut self, input: &[u8]) -> Result<Option<usize>, (MalformedReason, usize)> {
        let bytes = head_window(input);
        if self.scanned < START.len() {
            let seen = bytes.len().min(START.len());
            if bytes[..seen] != START[..seen] {
                return Err((MalformedReason::StartLine, 0));
            }
        }
        while let Some(found) = bytes.get(self.scanned..).and_then(|b| memchr::memchr(b'\n', b)) {
            let line_end = self.scanned + found + 1;
            let line = &bytes[self.line_start..line_end];
            if !line.ends_with(b"\r\n") {
                return Err((MalformedReason::LineEnd, self.line_start));
            }
            if line == b"\r\n" || line.starts_with(HYPHENS) {
                return Ok(Some(self.line_start));
            }
            self.line_start = line_end;
            self.scanned = line_end;
        }
        if bytes.len() == HEAD_BYTES_MAX {
            return Err((MalformedReason::HeadTooLong, HEAD_BYTES_MAX));
        }
        self.scanned = self.scanned.max(bytes.len());
        Ok(None)
    }
}

impl Body {
    fn new(transaction_id: &[u8], at_start: bool) -> Self {
        let mut body = Self {
            transaction_id: [0; IDENT_BYTES_MAX],
            transaction_id_bytes: transaction_id.len() as u8,
            at_start,
        };
        body.transaction_id[..transaction_id.len()].copy_from_slice(transaction_id);
        body
    }

    /// The next run of the body and, if it is there, its end.
    fn next<'a>(&mut self, input: &'a [u8]) -> Piece<'a> {
        let transaction_id = &self.transaction_id[..usize::from(self.transaction_id_bytes)];
        let Run { body, end, consumed } = next_run(transaction_id, self.at_start, input);
        self.at_start &= body.is_empty();
        Piece { head: None, body, end, after_paths: &[], consumed }
    }
}

/// The next run of the body of the message with this transaction identifier and, if it is there, its
/// end. `at_start`: no byte of the body has been handed out.
#[inline]
fn next_run<'a>(transaction_id: &[u8], at_start: bool, input: &'a [u8]) -> Run<'a> {
    //= RFC 4975 section 7.1: the end-line of a body stands behind a CRLF that is not part of
    //= the body, and the body never contains the end-line. Where a body is empty some senders
    //= leave that CRLF out and let the one of the empty line do.
    if at_start && input.first().is_none_or(|&first| first == b'-') {
        match end_line(transaction_id, input) {
            EndLine::Whole { continuation, bytes } => return run(&[], Some(continuation), bytes),
            EndLine::Prefix => return run(&[], None, 0),
            EndLine::Other => {}
        }
    }
    let mut from = 0;
    while let Some(found) = BEFORE_TRANSACTION_ID.find(&input[from..]) {
        let candidate = from + found;
        match end_line(transaction_id, &input[candidate + 2..]) {
            EndLine::Whole { continuation, bytes } => {
                let consumed = candidate + 2 + bytes;
                return run(&input[..candidate], Some(continuation), consumed);
            }
            EndLine::Prefix => return run(&input[..candidate], None, candidate),
            // The needle does not overlap itself.
            EndLine::Other => from = candidate + CRLF_HYPHENS.len(),
        }
    }
    let free = input.len() - held_back(&input[from..]);
    run(&input[..free], None, free)
}

fn run(body: &[u8], end: Option<Continuation>, consumed: usize) -> Run<'_> {
    Run { body, end, consumed }
}

/// Compares with `"-------" transact-id continuation-flag CRLF`.
#[inline]
fn end_line(transaction_id: &[u8], bytes: &[u8]) -> EndLine {
    let length = HYPHENS.len() + transaction_id.len() + 3;
    let Some(whole) = bytes.get(..length) else { return end_line_prefix(transaction_id, bytes) };
    let (hyphens, rest) = whole.split_at(HYPHENS.len());
    let (found, rest) = rest.split_at(transaction_id.len());
    let [flag, b'\r', b'\n'] = *rest else { return EndLine::Other };
    match Continuation::from_byte(flag) {
        Some(continuation) if hyphens == HYPHENS && found == transaction_id => {
            EndLine::Whole { continuation, bytes: length }
        }
        Some(_) | None => EndLine::Other,
    }
}

/// The same where less has come than an end-line.
#[cold]
fn end_line_prefix(transaction_id: &[u8], bytes: &[u8]) -> EndLine {
    let mut rest = bytes;
    for part in [HYPHENS, transaction_id] {
        let common = part.len().min(rest.len());
        if rest[..common] != part[..common] {
            return EndLine::Other;
        }
        rest = &rest[common..];
    }
    match *rest {
        [] => EndLine::Prefix,
        [flag] | [flag, b'\r'] if Continuation::from_byte(flag).is_some() => EndLine::Prefix,
        [_, ..] => EndLine::Other,
    }
}

impl Continuation {
    /// The flag, `None` for any other character.
    pub fn from_byte(flag: u8) -> Option<Self> {
        match flag {
            b'$' => Some(Self::Last),
            b'+' => Some(Self::More),
            b'#' => Some(Self::Abort),
            _ => None,
        }
    }

    /// The flag as it stands in an end-line.
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Last => b'$',
            Self::More => b'+',
            Self::Abort => b'#',
        }
    }
}

/// How many bytes at the end may be the beginning of CRLF and hyphens. CR stands in that text only
/// once, so the last CR decides.
fn held_back(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len() - bytes.len().min(CRLF_HYPHENS.len() - 1)..];
    match last.iter().rposition(|&byte| byte == b'\r') {
        Some(at) if CRLF_HYPHENS.starts_with(&last[at..]) => last.len() - at,
        Some(_) | None => 0,
    }
}

/// As much of the input as may be head.
fn head_window(input: &[u8]) -> &[u8] {
    &input[..input.len().min(HEAD_BYTES_MAX)]
}

const START: &[u8] = b"MSRP ";
const CRLF_HYPHENS: &[u8] = b"\r\n-------";

/// What all end-lines have in common is searched for, with a searcher that is built once; the
/// transaction identifier is compared where it is found.
static BEFORE_TRANSACTION_ID: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(CRLF_HYPHENS));
