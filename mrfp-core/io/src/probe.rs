//! Whether this machine can run a ring, told before the first call comes in.

use std::fmt;
use std::io;

use io_uring::{IoUring, opcode, register};

use crate::{Ring, RingConfig};

/// Descriptors below which a node is of no use: a few hundred sessions and their listeners.
const DESCRIPTORS_MIN: u64 = 1024;

/// What the ring asks of the kernel, by the names of `io_uring_enter(2)`.
const OPCODES: [(u8, &str); 7] = [
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// Why no ring can run here. Displays as one line with the remedy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProbeError {
    /// The kernel has no io_uring.
    Missing,
    /// `kernel.io_uring_disabled` (its value) forbids it to this process.
    DisabledBySysctl(u32),
    /// The kernel would, something in between refuses: a seccomp filter, an LSM.
    Forbidden,
    /// The kernel is older than 6.1: it does not know the setup flags of the ring.
    TooOld,
    /// The kernel lacks an operation.
    OperationMissing(&'static str),
    /// The kernel lacks a feature of the ring.
    FeatureMissing(&'static str),
    /// The limit on locked memory (bytes; `RLIMIT_MEMLOCK`) does not hold a ring.
    MemoryLocked(u64),
    /// The limit on open descriptors (`RLIMIT_NOFILE`, hard) is of no use.
    Descriptors(u64),
    /// The ring was refused with another error number.
    Refused(i32),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                formatter,
                "this kernel has no io_uring (ENOSYS); run Linux 6.1 or newer with \
                 CONFIG_IO_URING=y, and outside sandboxes that emulate system calls"
            ),
            Self::DisabledBySysctl(value) => write!(
                formatter,
                "io_uring is disabled by kernel.io_uring_disabled={value}; run `sysctl -w \
                 kernel.io_uring_disabled=0`, or with 1 join the group of \
                 kernel.io_uring_group or grant CAP_SYS_ADMIN"
            ),
            Self::Forbidden => write!(
                formatter,
                "io_uring is forbidden to this process (EPERM), most likely by a container's \
                 seccomp profile; allow io_uring_setup, io_uring_enter and io_uring_register in \
                 it, e.g. `docker run --security-opt seccomp=PROFILE.json`"
            ),
            Self::TooOld => write!(
                formatter,
                "this kernel is too old for the ring (EINVAL for SINGLE_ISSUER and \
                 DEFER_TASKRUN); run Linux 6.1 or newer"
            ),
            Self::OperationMissing(name) => write!(
                formatter,
                "this kernel's io_uring lacks the operation {name}; run Linux 6.1 or newer"
            ),
            Self::FeatureMissing(name) => write!(
                formatter,
                "this kernel's io_uring lacks the feature {name}; run Linux 6.1 or newer"
            ),
            Self::MemoryLocked(bytes) => write!(
                formatter,
                "the limit on locked memory ({bytes} bytes) does not hold a ring; raise it with \
                 `ulimit -l unlimited` or LimitMEMLOCK=infinity"
            ),
            Self::Descriptors(count) => write!(
                formatter,
                "the limit on open descriptors ({count}) is below {DESCRIPTORS_MIN}; raise it \
                 with `ulimit -Hn 1048576` or LimitNOFILE=1048576"
            ),
            Self::Refused(number) => write!(
                formatter,
                "the kernel refused a ring: {}; see io_uring_setup(2)",
                io::Error::from_raw_os_error(*number)
            ),
        }
    }
}

impl std::error::Error for ProbeError {}

/// Builds a ring, asks it what it can, and drops it.
///
/// # Errors
///
/// The first thing that is missing.
pub fn probe() -> Result<(), ProbeError> {
    let (_, descriptors_hard) = limit(libc::RLIMIT_NOFILE);
    if descriptors_hard < DESCRIPTORS_MIN {
        return Err(ProbeError::Descriptors(descriptors_hard));
    }
    let plain = IoUring::new(2).map_err(|error| explain(&error))?;
    probe_operations(&plain)?;
    let parameters = plain.params();
    let features = [
        (parameters.is_feature_nodrop(), "NODROP"),
        (parameters.is_feature_submit_stable(), "SUBMIT_STABLE"),
        (parameters.is_feature_fast_poll(), "FAST_POLL"),
        (parameters.is_feature_ext_arg(), "EXT_ARG"),
    ];
    if let Some((_, name)) = features.iter().find(|(has, _)| !has) {
        return Err(ProbeError::FeatureMissing(name));
    }
    // The real thing, with its flags and its buffers.
    Ring::new(RingConfig::default()).map_err(|error| explain(&error))?;
    Ok(())
}

fn probe_operations(ring: &IoUring) -> Result<(), ProbeError> {
    let mut known = register::Probe::new();
    let asked = ring.submitter().register_probe(&mut known);
    asked.map_err(|error| explain(&error))?;
    match OPCODES.iter().find(|(code, _)| !known.is_supported(*code)) {
        Some((_, name)) => Err(ProbeError::OperationMissing(name)),
        None => Ok(()),
    }
}

fn explain(error: &io::Error) -> ProbeError {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = sysctl.ok().and_then(|value| value.trim().parse().ok());
    let (memory_locked, _) = limit(libc::RLIMIT_MEMLOCK);
    explain_number(error.raw_os_error().unwrap_or(0), disabled.unwrap_or(0), memory_locked)
}

fn explain_number(number: i32, disabled: u32, memory_locked: u64) -> ProbeError {
    match number {
        libc::ENOSYS => ProbeError::Missing,
        libc::EPERM | libc::EACCES if disabled > 0 => ProbeError::DisabledBySysctl(disabled),
        libc::EPERM | libc::EACCES => ProbeError::Forbidden,
        libc::EINVAL => ProbeError::TooOld,
        libc::ENOMEM => ProbeError::MemoryLocked(memory_locked),
        libc::EMFILE => ProbeError::Descriptors(limit(libc::RLIMIT_NOFILE).0),
        number => ProbeError::Refused(number),
    }
}

/// Raises this process's soft limit on open descriptors to the hard one and returns it.
///
/// # Errors
///
/// Those of `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    if soft < hard {
        let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: the structure is ours and is only read during the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit(libc::RLIMIT_NOFILE).0)
}

/// A soft and a hard limit.
fn limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and lives across the call.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(result, 0);
    (limit.rlim_cur, limit.rlim_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_ring_where_the_tests_run() {
        assert_eq!(probe(), Ok(()));
    }

    #[test]
    fn tells_the_sysctl_from_a_filter() {
        let explained = |number, disabled| explain_number(number, disabled, 0);
        assert_eq!(explained(libc::EPERM, 2), ProbeError::DisabledBySysctl(2));
        assert_eq!(explained(libc::EPERM, 0), ProbeError::Forbidden);
        assert_eq!(explained(libc::ENOSYS, 2), ProbeError::Missing);
        assert_eq!(explained(libc::EINVAL, 0), ProbeError::TooOld);
        assert_eq!(explained(libc::ENFILE, 0), ProbeError::Refused(libc::ENFILE));
    }

    #[test]
    fn says_everything_in_one_line() {
        let errors = [
            ProbeError::Missing,
            ProbeError::DisabledBySysctl(1),
            ProbeError::Forbidden,
            ProbeError::TooOld,
            ProbeError::OperationMissing("SEND"),
            ProbeError::FeatureMissing("EXT_ARG"),
            ProbeError::MemoryLocked(65_536),
            ProbeError::Descriptors(256),
            ProbeError::Refused(libc::ENFILE),
        ];
        for error in errors {
            let line = error.to_string();
            assert!(!line.contains('\n'));
            assert!(!line.contains("  "), "{line}");
        }
    }

    #[test]
    fn raises_the_soft_limit_to_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        assert_eq!((raised, raised), limit(libc::RLIMIT_NOFILE));
    }
}
