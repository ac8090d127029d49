//! What a KMS must not forget: the keys that live tickets need, and what it has accepted.
//!
//! A file in a directory of its own, replaced as a whole. While the KMS runs, the file says a time
//! that no accepted request is later than; it is written ahead of the requests and before they are
//! answered. So after a crash everything up to that time counts as a replay, whether it was seen or
//! not. A KMS that is stopped writes what it has really accepted, user by user, and loses nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::own_keys::{OwnKey, OwnKeys};
use crate::config::Secret;
use crate::mikey::{NtpTime, TicketProtectionKey};

/// The content of the file.
#[derive(Clone, Default, Debug)]
pub(super) struct State {
    pub(super) own_keys: OwnKeys,
    /// No request of anybody's up to this time is taken.
    pub(super) floor: Option<NtpTime>,
    /// The same for single users, by the identity of their key.
    pub(super) marks: BTreeMap<Vec<u8>, NtpTime>,
}

/// The directory, which no other process uses meanwhile.
#[derive(Debug)]
pub(super) struct StateDirectory {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

/// Why the state cannot be used. `Display` says what to do about it.
#[derive(Debug)]
pub enum StateError {
    /// The operating system refuses.
    Io(PathBuf, io::Error),
    /// Another process uses it.
    InUse(PathBuf),
    /// The file is not what was written.
    Damaged(PathBuf),
}

impl StateDirectory {
    /// Makes the directory where there is none, and keeps others out of it.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Io(path.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let lock = options.open(path.join(LOCK_NAME)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// What was written last; `None`: nothing ever was.
    pub(super) fn load(&self) -> Result<Option<State>, StateError> {
        let path = self.path.join(FILE_NAME);
        let failed = |error| StateError::Io(path.clone(), error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        // Room for everything at once: a buffer that grows leaves copies of keys behind.
        let capacity = usize::try_from(length).unwrap_or(usize::MAX).min(FILE_BYTES_MAX);
        let mut text = Zeroizing::new(String::with_capacity(capacity + 1));
        file.read_to_string(&mut text).map_err(failed)?;
        State::parse(&text).map(Some).ok_or(StateError::Damaged(path))
    }

    /// Replaces what is there. When this returns, the new state survives a crash of the machine.
    pub(super) fn store(&self, state: &State) -> Result<(), StateError> {
        self.replace(&state.encode())
            .map_err(|error| StateError::Io(self.path.join(FILE_NAME), error))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.path.join(NEW_NAME);
        // What a crash may have left; its mode may be anybody's.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, self.path.join(FILE_NAME))?;
        // The rename is in the directory.
        File::open(&self.path)?.sync_all()
    }
}

impl State {
    /// The time up to which requests of this user are not taken.
    pub(super) fn floor_of(&self, user: &[u8]) -> Option<NtpTime> {
        later(self.floor, self.marks.get(user).copied())
    }

    fn encode(&self) -> Zeroizing<String> {
        let lines = 2 + self.own_keys.0.len() + self.marks.len();
        let names: usize = self.marks.keys().map(|name| 2 * name.len()).sum();
        let capacity = lines * LINE_BYTES_MAX + names;
        let mut text = Zeroizing::new(String::with_capacity(capacity));
        text.push_str(FIRST_LINE);
        if let Some(floor) = self.floor {
            let _ = writeln!(text, "floor {}", floor.0);
        }
        for (user, mark) in &self.marks {
            text.push_str("mark ");
            push_hex(&mut text, user);
            let _ = writeln!(text, " {}", mark.0);
        }
        for OwnKey { key, made, retires } in &self.own_keys.0 {
            text.push_str("key ");
            push_hex(&mut text, &key.identity);
            text.push(' ');
            push_hex(&mut text, &key.key);
            let retires = retires.map_or("-".to_owned(), |retires| retires.0.to_string());
            let _ = writeln!(text, " {} {retires}", made.0);
        }
        let digest = Sha256::digest(text.as_bytes());
        text.push_str("end ");
        push_hex(&mut text, &digest);
        text.push('\n');
        assert!(text.len() <= capacity);
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, end) = text.split_at_checked(text.rfind("end ")?)?;
        let digest = Secret::from_hex(end.strip_prefix("end ")?.strip_suffix('\n')?)?;
        if !digest.equals(&Sha256::digest(body.as_bytes())) {
            return None;
        }
        let mut state = Self::default();
        for line in body.strip_prefix(FIRST_LINE)?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let time = |text: &str| text.parse().ok().map(NtpTime);
            match words.as_slice() {
                ["floor", floor] => state.floor = Some(time(floor)?),
                ["mark", user, mark] => {
                    state.marks.insert(Secret::from_hex(user)?.expose().to_vec(), time(mark)?);
                }
                ["key", identity, key, made, retires] => state.own_keys.0.push(OwnKey {
                    key: TicketProtectionKey {
                        identity: Secret::from_hex(identity)?.expose().to_vec(),
                        key: Zeroizing::new(Secret::from_hex(key)?.expose().to_vec()),
                    },
                    made: time(made)?,
                    retires: if *retires == "-" { None } else { Some(time(retires)?) },
                }),
                _ => return None,
            }
        }
        Some(state)
    }
}

/// The later of two times, either of which may be missing.
pub(super) fn later(one: Option<NtpTime>, other: Option<NtpTime>) -> Option<NtpTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if one.is_before(other) { other } else { one }),
        (one, other) => one.or(other),
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(
                f,
                "{}: {error}; kms.state_directory must be a directory this user may write",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{} is in use by another process; each KMS needs a kms.state_directory of its own",
                path.display()
            ),
            Self::Damaged(path) => write!(
                f,
                "{} is damaged; restore it from a backup, or see docs/kms.md on going on without",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateError {}

const FILE_NAME: &str = "kms-state";
const NEW_NAME: &str = "kms-state.new";
const LOCK_NAME: &str = "lock";
const FIRST_LINE: &str = "mrf kms state 1\n";
/// It holds keys.
const FILE_MODE: u32 = 0o600;
/// Longest line but for the name of a user: a key with two times.
const LINE_BYTES_MAX: usize = 192;
/// A hundred thousand users with names of ordinary length; a longer file is read in pieces.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn state() -> State {
        let key = |byte: u8, retires| OwnKey {
            key: TicketProtectionKey {
                identity: vec![byte; 8],
                key: Zeroizing::new(vec![byte; 32]),
            },
            made: NtpTime(u64::MAX),
            retires,
        };
        State {
            own_keys: OwnKeys(vec![key(1, Some(NtpTime(5))), key(2, None)]),
            floor: Some(NtpTime(77)),
            marks: BTreeMap::from([(b"alice".to_vec(), NtpTime(1)), (vec![0xff; 300], NtpTime(2))]),
        }
    }

    #[test]
    fn what_is_stored_is_loaded_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let directory = StateDirectory::open(&path).expect("made");
        assert!(directory.load().expect("readable").is_none());
        directory.store(&state()).expect("stored");
        directory.store(&state()).expect("replaced");
        let loaded = directory.load().expect("readable").expect("there");
        assert_eq!(*loaded.encode(), *state().encode());
        let mode = |name: &str| std::fs::metadata(path.join(name)).expect("there").mode() & 0o777;
        assert_eq!((mode(FILE_NAME), mode(""), mode(LOCK_NAME)), (0o600, 0o700, 0o600));
        assert!(!path.join(NEW_NAME).exists());
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let text = state().encode();
        for length in 0..text.len() {
            assert!(State::parse(&text[..length]).is_none(), "{length}");
        }
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(State::parse(&changed).is_none(), "{at}");
        }
    }

    #[test]
    fn one_process_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = StateDirectory::open(folder.path()).expect("made");
        let second = StateDirectory::open(folder.path()).expect_err("in use");
        assert!(matches!(second, StateError::InUse(_)));
        drop(first);
        StateDirectory::open(folder.path()).expect("free again");
    }

    #[test]
    fn a_user_has_the_later_of_its_own_and_the_common_time() {
        let mut state = state();
        state.marks.insert(b"ahead".to_vec(), NtpTime(99));
        assert_eq!(state.floor_of(b"ahead"), Some(NtpTime(99)));
        assert_eq!(state.floor_of(b"alice"), Some(NtpTime(77)));
        assert_eq!(State::default().floor_of(b"alice"), None);
    }
}
