//! From checks to verdicts: one row a rule, the first that applies decides. The order is part of
//! the rules: where a question was asked, then what its answer changes, then what became of it.
//! Recall comes first: a rule answers `unneeded` only where nothing can depend on the answer.

use kcap_common::abi::key::{creds, flag, site};
use kcap_common::decide::argclass::{self, OPAQUE, capset_bits, id, signal, xattr};

use super::facts::{Facts, Overcommit};
use super::syscall::{Outcome, Sysno};
use crate::report::Because::{self, *};
use crate::report::Cap;
use crate::report::Verdict::{self, *};

/// A row of the table.
pub struct Rule {
    /// How documentation and tests name it.
    pub name: &'static str,
    /// What the checks are to the build.
    pub verdict: Verdict,
    /// The mechanism.
    pub because: Because,
    /// One sentence for people.
    pub reason: &'static str,
    /// Kernel functions whose behaviour makes it true. Where a sampled call path passes none of
    /// them the rule does not hold for all checks of its key, and the answer is
    /// [`OUTSIDE`].
    pub functions: &'static [&'static str],
    applies: fn(&Facts<'_>) -> bool,
}

/// What a rule becomes where a sample contradicts it.
pub static OUTSIDE: Rule = Rule {
    name: "outside",
    verdict: Unsure,
    because: Unseen,
    reason: "a sampled call path is not one that this question is known from",
    functions: &[],
    applies: |_| true,
};

/// The rule that decides: the first that applies.
pub fn decide(facts: &Facts<'_>) -> &'static Rule {
    let rule = RULES
        .iter()
        .find(|rule| (rule.applies)(facts))
        .unwrap_or(&OUTSIDE);
    // A check inlined into its caller was accounted there: its call path starts above it.
    let inlined = facts.tally.site != site::CAPABLE;
    if !rule.functions.is_empty() && !inlined && facts.sampled_outside(rule.functions) {
        return &OUTSIDE;
    }
    rule
}

const EPERM: u8 = 1;
const ENOENT: u8 = 2;
const EAGAIN: u8 = 11;
const ENOMEM: u8 = 12;
const EACCES: u8 = 13;
const ENOSPC: u8 = 28;
const ENODATA: u8 = 61;
const EDQUOT: u8 = 122;

const CHMOD: &[Sysno] = &[
    Sysno::chmod,
    Sysno::fchmod,
    Sysno::fchmodat,
    Sysno::fchmodat2,
];
const CHOWN: &[Sysno] = &[Sysno::chown, Sysno::fchown, Sysno::lchown, Sysno::fchownat];
const ACCESS: &[Sysno] = &[Sysno::access, Sysno::faccessat, Sysno::faccessat2];
const SEND: &[Sysno] = &[Sysno::sendto, Sysno::sendmsg, Sysno::sendmmsg];
const CLONE: &[Sysno] = &[Sysno::clone, Sysno::clone3];
const SIGNAL: &[Sysno] = &[
    Sysno::kill,
    Sysno::tkill,
    Sysno::tgkill,
    Sysno::rt_sigqueueinfo,
    Sysno::rt_tgsigqueueinfo,
    Sysno::pidfd_send_signal,
];
const XATTR_READ: &[Sysno] = &[Sysno::getxattr, Sysno::lgetxattr, Sysno::fgetxattr];
const XATTR_LIST: &[Sysno] = &[Sysno::listxattr, Sysno::llistxattr, Sysno::flistxattr];
/// Calls that ask before they compare ids, so that holding them makes the answer moot.
const ID_ASKED_FIRST: &[Sysno] = &[Sysno::setresuid, Sysno::setresgid];
const ID_MOVES_SAVED: &[Sysno] = &[Sysno::setuid, Sysno::setgid];
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
const PR_SET_SECCOMP: u32 = 22;

/// The table.
pub static RULES: &[Rule] = &[
    Rule {
        name: "outside-container",
        verdict: Unneeded,
        because: ContainerStart,
        reason: "asked by the container's runtime, outside the container",
        functions: &[],
        applies: |f| !f.inside,
    },
    Rule {
        name: "own-namespace",
        verdict: Unneeded,
        because: OwnNamespace,
        reason: "asked of a user namespace that the build made itself",
        functions: &[],
        applies: |f| {
            let above = |level: u8| u32::from(level) > f.base_level;
            above(f.tally.target_level) && (above(f.tally.creds_level) || f.flagged(flag::BY_OWNER))
        },
    },
    Rule {
        name: "borrowed",
        verdict: Unneeded,
        because: Borrowed,
        reason: "asked of another's credentials (an overlay's mounter, a file's opener)",
        functions: &[],
        applies: |f| {
            matches!(f.tally.creds, creds::OVERRIDDEN | creds::FOREIGN)
                && f.flagged(flag::CREDS_DIFFER)
                // access(2) overrides the credentials itself, with the caller's real ids; calls of
                // another ABI may be it.
                && (f.tally.syscall.is_none() || f.call.is_some())
                && !f.in_call(ACCESS)
        },
    },
    Rule {
        name: "memory-strict",
        verdict: Unsure,
        because: Unseen,
        reason: "memory: decides where vm.overcommit_memory is 2, as it is or may be here",
        functions: &[],
        applies: |f| asks_for_memory(f) && f.overcommit != Overcommit::Lenient,
    },
    Rule {
        name: "memory",
        verdict: Unneeded,
        because: NoEffect,
        reason: "memory: asked on every mapping, and the answer changes nothing",
        functions: &["cap_vm_enough_memory", "security_vm_enough_memory_mm"],
        applies: asks_for_memory,
    },
    Rule {
        name: "given-up",
        verdict: Unneeded,
        because: NoEffect,
        reason: "refused to a program that had given it up: the container holds it",
        functions: &[],
        applies: |f| !f.granted && f.bounding.is_some_and(|set| set & f.cap.bit() != 0),
    },
    Rule {
        name: "done-without",
        verdict: Unneeded,
        because: Tolerated,
        reason: "refused, no engine grants it by default, and the build succeeded without it",
        functions: &[],
        applies: |f| {
            !f.granted
                && f.succeeded
                && f.bounding.is_some()
                && Cap::DOCKER_DEFAULT & f.cap.bit() == 0
        },
    },
    Rule {
        name: "opaque",
        verdict: Unsure,
        because: Unseen,
        reason: "the system call's arguments could not be read",
        functions: &[],
        applies: |f| f.class_has(OPAQUE),
    },
    Rule {
        name: "chmod-without-setgid",
        verdict: Unneeded,
        because: NoEffect,
        reason: "chmod: the mode asked for has no setgid bit",
        functions: &["setattr_prepare", "setattr_copy", "in_group_or_capable"],
        applies: |f| f.cap == Cap::FSETID && f.in_call(CHMOD) && !f.class_has(0o2000),
    },
    Rule {
        name: "capset-within",
        verdict: Unneeded,
        because: NoEffect,
        reason: "capset: the inheritable set asked for is within what is held",
        functions: &["cap_capset", "security_capset"],
        applies: |f| {
            f.cap == Cap::SETPCAP
                && f.in_call(&[Sysno::capset])
                && !f.class_has(capset_bits::INHERITABLE)
        },
    },
    Rule {
        name: "ids-unchanged",
        verdict: Unneeded,
        because: NoEffect,
        reason: "the ids asked for are those held: nothing changes",
        functions: &[],
        applies: |f| {
            asks_for_ids(f)
                && (f.in_call(ID_MOVES_SAVED) || f.in_call(ID_ASKED_FIRST))
                && f.class_has(id::SAME)
        },
    },
    Rule {
        name: "ids-held",
        verdict: Unneeded,
        because: NoEffect,
        reason: "the ids asked for are among those held: anyone may take them",
        functions: &[],
        // Not setuid and setgid, which as root set the saved id too; nor setreuid and setregid,
        // which ask only for an id that they would refuse.
        applies: |f| asks_for_ids(f) && f.in_call(ID_ASKED_FIRST) && f.class_has(id::HELD),
    },
    Rule {
        name: "ids-mapped",
        verdict: Unsure,
        because: Unseen,
        reason: "the ids asked for belong to a user namespace and could not be compared",
        functions: &[],
        applies: |f| {
            asks_for_ids(f)
                && (f.in_call(ID_MOVES_SAVED) || f.in_call(ID_ASKED_FIRST))
                && f.class_has(id::MAPPED)
        },
    },
    Rule {
        name: "audit-message",
        verdict: Unsure,
        because: OutOfBand,
        reason: "audit: the answer comes as a message that may be ignored",
        functions: &[],
        applies: |f| matches!(f.cap, Cap::AUDIT_WRITE | Cap::AUDIT_CONTROL),
    },
    Rule {
        name: "netlink-message",
        verdict: Unsure,
        because: OutOfBand,
        reason: "netlink: the answer comes as a message that may be ignored",
        functions: &[],
        applies: |f| f.cap == Cap::NET_ADMIN && f.in_call(SEND),
    },
    Rule {
        name: "other-answer",
        verdict: Unneeded,
        because: OtherAnswer,
        reason: "refused, and then another capability answered the same decision",
        functions: &[],
        applies: answered_by_another,
    },
    Rule {
        name: "access-asked",
        verdict: Unsure,
        because: Unseen,
        reason: "access: the program only asked whether it could",
        functions: &[],
        applies: |f| f.in_call(ACCESS),
    },
    Rule {
        name: "signal-asked",
        verdict: Unsure,
        because: Unseen,
        reason: "kill: signal 0 only asks whether a signal could be sent",
        functions: &[],
        applies: |f| f.cap == Cap::KILL && f.in_call(SIGNAL) && f.class_has(signal::ASK),
    },
    Rule {
        name: "signal-group",
        verdict: Unsure,
        because: Silent,
        reason: "kill: sent to several processes, and succeeds where any was reached",
        functions: &[],
        applies: |f| {
            f.cap == Cap::KILL
                && f.in_call(&[Sysno::kill])
                && f.outcome == Outcome::Success
                && f.class_has(signal::OWN_GROUP | signal::GROUP)
        },
    },
    Rule {
        name: "signal-granted",
        verdict: Unsure,
        because: Unseen,
        reason: "kill: the process signalled may have been ending by itself",
        functions: &[],
        applies: |f| f.cap == Cap::KILL && f.in_call(SIGNAL) && f.granted,
    },
    Rule {
        name: "chown-setgid",
        verdict: Unsure,
        because: Unseen,
        reason: "chown: decides where the file has the setgid bit, which was not seen",
        functions: &[],
        applies: |f| f.cap == Cap::FSETID && f.in_call(CHOWN) && f.granted,
    },
    Rule {
        name: "filter-hardening",
        verdict: Unsure,
        because: Unseen,
        reason: "a filter was installed: the kernel may have asked only how to compile it",
        functions: &[],
        applies: |f| {
            matches!(f.cap, Cap::BPF | Cap::SYS_ADMIN)
                && f.granted
                && (f.in_call(&[Sysno::seccomp, Sysno::setsockopt])
                    || f.in_call(&[Sysno::prctl]) && f.tally.class == PR_SET_SECCOMP)
        },
    },
    Rule {
        name: "trusted-read",
        verdict: Unsure,
        because: Silent,
        reason: "a trusted attribute was hidden, as if the file had none",
        functions: &[],
        applies: |f| {
            f.cap == Cap::SYS_ADMIN
                && !f.granted
                && f.in_call(XATTR_READ)
                && matches!(f.tally.class, xattr::TRUSTED | xattr::OVERLAY)
                && f.outcome == Outcome::Failed(ENODATA)
        },
    },
    Rule {
        name: "trusted-list",
        verdict: Unsure,
        because: Silent,
        reason: "names of trusted attributes are listed only with it",
        functions: &[],
        applies: |f| {
            f.cap == Cap::SYS_ADMIN && f.in_call(XATTR_LIST) && f.outcome == Outcome::Success
        },
    },
    Rule {
        name: "user-namespace-made",
        verdict: Unsure,
        because: Unseen,
        reason: "asked while the build made a user namespace, which few kernels refuse without it",
        functions: &[],
        applies: |f| {
            f.cap == Cap::SYS_ADMIN
                && f.granted
                && (f.in_call(CLONE) || f.in_call(&[Sysno::unshare]))
                && f.class_has(NEW_USER)
        },
    },
    Rule {
        name: "no-call",
        verdict: Unsure,
        because: Unseen,
        reason: "asked outside any system call: what became of it is not seen",
        functions: &[],
        applies: |f| f.outcome == Outcome::NoCall,
    },
    Rule {
        name: "outcome-unknown",
        verdict: Unsure,
        because: Unseen,
        reason: "how the system call ended was not seen",
        functions: &[],
        applies: |f| matches!(f.outcome, Outcome::Unknown | Outcome::Restarted),
    },
    Rule {
        name: "refused-silently",
        verdict: Unsure,
        because: Silent,
        reason: "refused, yet the system call succeeded: what it left undone may matter",
        functions: &[],
        applies: |f| !f.granted && f.outcome == Outcome::Success,
    },
    Rule {
        name: "refused",
        verdict: Needed,
        because: Refused,
        reason: "refused, and the system call failed for it",
        functions: &[],
        applies: |f| !f.granted && matches!(f.outcome, Outcome::Failed(e) if says_no(f.cap, e)),
    },
    Rule {
        name: "refused-other-error",
        verdict: Unsure,
        because: Unseen,
        reason: "refused, and the system call failed with an error of another kind",
        functions: &[],
        applies: |f| !f.granted,
    },
    Rule {
        name: "granted-yet-failed",
        verdict: Unsure,
        because: Unseen,
        reason: "granted, yet the system call failed: what the grant decided is not seen",
        functions: &[],
        applies: |f| matches!(f.outcome, Outcome::Failed(_)),
    },
    Rule {
        name: "used",
        verdict: Needed,
        because: Used,
        reason: "granted, and the system call succeeded with it",
        functions: &[],
        applies: |f| f.granted && f.outcome == Outcome::Success,
    },
];

const NEW_USER: u32 = argclass::namespaces(0x1000_0000);

/// `cap_vm_enough_memory` asks for SYS_ADMIN wherever memory is accounted.
fn asks_for_memory(f: &Facts<'_>) -> bool {
    f.cap == Cap::SYS_ADMIN
        && (f.in_call(MEMORY)
            || f.in_call(CLONE) && f.tally.class == 0
            || f.tally.syscall.is_none())
}

fn asks_for_ids(f: &Facts<'_>) -> bool {
    matches!(f.cap, Cap::SETUID | Cap::SETGID)
}

/// The refusal was answered by another member of its family, every time.
fn answered_by_another(f: &Facts<'_>) -> bool {
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
        Cap::DAC_READ_SEARCH => {
            answered_by(Cap::DAC_OVERRIDE) && !super::decisions::reads_by_handle(f)
        }
        Cap::BPF | Cap::PERFMON | Cap::CHECKPOINT_RESTORE | Cap::SYSLOG => {
            answered_by(Cap::SYS_ADMIN)
        }
        _ => false,
    }
}

/// The kernel refuses for want of `cap` with this error.
fn says_no(cap: Cap, errno: u8) -> bool {
    match errno {
        EPERM | EACCES => true,
        ENODATA => cap == Cap::SYS_ADMIN,
        ENOENT => cap == Cap::SYS_PTRACE || cap == Cap::DAC_READ_SEARCH,
        EAGAIN => matches!(cap, Cap::SYS_RESOURCE | Cap::SYS_ADMIN | Cap::IPC_LOCK),
        ENOMEM => matches!(cap, Cap::IPC_LOCK | Cap::SYS_RESOURCE | Cap::SYS_ADMIN),
        ENOSPC | EDQUOT => cap == Cap::SYS_RESOURCE,
        _ => false,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
