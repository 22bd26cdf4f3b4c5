//! What the rows of the table ask of some checks.

use kcap_common::decide::argclass;
pub use kcap_common::decide::argclass::signal;

use super::super::decisions;
use super::super::facts::Facts;
use super::super::syscall::{Outcome, Sysno};
use crate::report::Cap;

pub const EPERM: u8 = 1;
pub const ENOENT: u8 = 2;
pub const EAGAIN: u8 = 11;
pub const ENOMEM: u8 = 12;
pub const EACCES: u8 = 13;
pub const ENOSPC: u8 = 28;
pub const ENODATA: u8 = 61;
pub const EDQUOT: u8 = 122;

pub const CHMOD: &[Sysno] = &[
    Sysno::chmod,
    Sysno::fchmod,
    Sysno::fchmodat,
    Sysno::fchmodat2,
];
pub const CHOWN: &[Sysno] = &[Sysno::chown, Sysno::fchown, Sysno::lchown, Sysno::fchownat];
pub const ACCESS: &[Sysno] = &[Sysno::access, Sysno::faccessat, Sysno::faccessat2];
pub const SEND: &[Sysno] = &[Sysno::sendto, Sysno::sendmsg, Sysno::sendmmsg];
pub const CLONE: &[Sysno] = &[Sysno::clone, Sysno::clone3];
pub const SIGNAL: &[Sysno] = &[
    Sysno::kill,
    Sysno::tkill,
    Sysno::tgkill,
    Sysno::rt_sigqueueinfo,
    Sysno::rt_tgsigqueueinfo,
    Sysno::pidfd_send_signal,
];
const XATTR_SET: &[Sysno] = &[Sysno::setxattr, Sysno::lsetxattr, Sysno::fsetxattr];
pub const XATTR_READ: &[Sysno] = &[Sysno::getxattr, Sysno::lgetxattr, Sysno::fgetxattr];
pub const XATTR_LIST: &[Sysno] = &[Sysno::listxattr, Sysno::llistxattr, Sysno::flistxattr];
/// Calls of the executor that ask who owns a file: of opens that with O_NOATIME.
const OWNED: &[Sysno] = &[
    Sysno::chmod,
    Sysno::fchmod,
    Sysno::fchmodat,
    Sysno::fchmodat2,
    Sysno::utimensat,
    Sysno::openat,
];
/// Calls that ask before they compare ids, so that holding them makes the answer moot.
pub const ID_ASKED_FIRST: &[Sysno] = &[Sysno::setresuid, Sysno::setresgid];
pub const ID_MOVES_SAVED: &[Sysno] = &[Sysno::setuid, Sysno::setgid];
/// Calls by which a process becomes another user.
const IDENTITY: &[Sysno] = &[Sysno::setuid, Sysno::setgid, Sysno::setgroups];
/// Calls that account memory.
const MEMORY: &[Sysno] = &[
    Sysno::mmap,
    Sysno::brk,
    Sysno::mremap,
    Sysno::mprotect,
    Sysno::pkey_mprotect,
    Sysno::execve,
    Sysno::execveat,
    Sysno::fork,
    Sysno::vfork,
    Sysno::shmat,
    Sysno::shmget,
];

/// `PR_SET_SECCOMP` of `prctl`.
pub const PR_SET_SECCOMP: u32 = 22;
/// CLONE_NEWUSER in the class of `clone` and `unshare`.
pub const NEW_USER: u32 = argclass::namespaces(0x1000_0000);
/// SO_SNDBUFFORCE and SO_RCVBUFFORCE of SOL_SOCKET in the class of `setsockopt`.
pub const BUFFER_FORCE: [u32; 2] = [1 | 32 << 16, 1 | 33 << 16];
/// S_ISGID in the class of a `chmod`.
pub const SETGID_BIT: u32 = 0o2000;

/// Programs known to go on where they are refused, by path, with what it is that they shrug off.
/// Short: each entry is what the program's source says, and a test of this table.
const SHRUGS: &[(&str, Cap, &[Sysno])] = &[
    // Ends its helpers with a signal when it has closed their pipes, at which they end by
    // themselves; does not look at what kill(2) says (`pkgAcquire::Worker::~Worker`).
    ("/usr/bin/apt-get", Cap::KILL, SIGNAL),
    ("/usr/bin/apt", Cap::KILL, SIGNAL),
    // Gives what it downloaded to a user of its own, and only warns
    // (`ChangeOwnerAndPermissionOfFile`).
    ("/usr/bin/apt-get", Cap::FOWNER, CHMOD),
    ("/usr/bin/apt", Cap::FOWNER, CHMOD),
    ("/usr/bin/apt-get", Cap::CHOWN, CHOWN),
    ("/usr/bin/apt", Cap::CHOWN, CHOWN),
];

/// The program is in the table of those that shrug this off.
pub fn shrugged_off(f: &Facts<'_>) -> bool {
    SHRUGS
        .iter()
        .any(|(program, cap, calls)| *program == f.program && *cap == f.cap && f.in_call(calls))
}

/// The executor's own work, of which Kaniko checks every step: it ends the build where one fails.
///
/// Unpacking, COPY, ADD and WORKDIR (`setFilePermissions`, `MkdirAllWithPermissions`,
/// `CopyOwnership`, `setFileTimes`, `CopyCapabilities`, `writeSecurityXattrToTarFile`), the
/// snapshot (`NoAtimeFS`) and the switch to USER (`exec.Cmd.Start`).
pub fn fatal_to_the_executor(f: &Facts<'_>) -> bool {
    let calls = match f.cap {
        Cap::CHOWN => CHOWN,
        Cap::FOWNER => OWNED,
        Cap::SETFCAP => XATTR_SET,
        Cap::SETUID | Cap::SETGID => IDENTITY,
        _ => return false,
    };
    f.executor && f.in_call(calls)
}

/// `cap_vm_enough_memory` asks for SYS_ADMIN wherever memory is accounted.
pub fn asks_for_memory(f: &Facts<'_>) -> bool {
    f.cap == Cap::SYS_ADMIN
        && (f.in_call(MEMORY)
            || f.in_call(CLONE) && f.tally.class == 0
            || f.tally.syscall.is_none())
}

pub fn asks_for_ids(f: &Facts<'_>) -> bool {
    matches!(f.cap, Cap::SETUID | Cap::SETGID)
}

/// A chmod that asks whether it may set the setgid bit.
pub fn sets_setgid(f: &Facts<'_>) -> bool {
    f.cap == Cap::FSETID && f.in_call(CHMOD) && f.class_has(SETGID_BIT)
}

/// The refusal was answered by another member of its family, every time.
pub fn answered_by_another(f: &Facts<'_>) -> bool {
    if f.granted {
        return false;
    }
    let answered_by = |other: Cap| {
        f.siblings.answers(f.cap, other)
            // Where an outcome was missed, the two fall apart; without any refusal of the other
            // one they belong together all the same.
            || f.overall.refused(other) == 0 && f.overall.answers(f.cap, other)
    };
    match f.cap {
        Cap::DAC_READ_SEARCH => answered_by(Cap::DAC_OVERRIDE) && !decisions::reads_by_handle(f),
        Cap::BPF | Cap::PERFMON | Cap::CHECKPOINT_RESTORE | Cap::SYSLOG => {
            answered_by(Cap::SYS_ADMIN)
        }
        _ => false,
    }
}

/// The system call failed with an error by which the kernel refuses for want of the capability.
pub fn says_no(f: &Facts<'_>) -> bool {
    let Outcome::Failed(errno) = f.outcome else {
        return false;
    };
    match errno {
        EPERM | EACCES => true,
        ENODATA => f.cap == Cap::SYS_ADMIN,
        ENOENT => f.cap == Cap::SYS_PTRACE || f.cap == Cap::DAC_READ_SEARCH,
        EAGAIN => matches!(f.cap, Cap::SYS_RESOURCE | Cap::SYS_ADMIN | Cap::IPC_LOCK),
        ENOMEM => matches!(f.cap, Cap::IPC_LOCK | Cap::SYS_RESOURCE | Cap::SYS_ADMIN),
        ENOSPC | EDQUOT => f.cap == Cap::SYS_RESOURCE,
        _ => false,
    }
}
