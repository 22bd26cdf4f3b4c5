//! The table of rules.

use kcap_common::abi::key::{creds, flag};
use kcap_common::decide::argclass::{OPAQUE, capset_bits, id, xattr};

use super::super::facts::Overcommit;
use super::super::syscall::{Outcome, Sysno};
use super::Rule;
use super::asks::*;
use crate::report::Because::*;
use crate::report::Cap;
use crate::report::Verdict::*;

/// The table.
pub static RULES: &[Rule] = &[
    // Where it was asked.
    Rule {
        name: "outside-container",
        verdict: Unneeded,
        because: ContainerStart,
        reason: "asked by the container's runtime, outside the container",
        relies: "lineage: only what descends from a program in the executor's mount and user namespace is inside",
        decides: "runc mounts the container's root",
        leaves: "a RUN mounts something",
        wrong: "a program whose lineage is not known counts as inside",
        functions: &[],
        applies: |f| !f.inside,
    },
    Rule {
        name: "own-namespace",
        verdict: Unneeded,
        because: OwnNamespace,
        reason: "asked of a user namespace that the build made itself",
        relies: "`cap_capable_helper`: within a namespace its creator and its members answer, not the container's set",
        decides: "`unshare -r mount`: the mount",
        leaves: "the write of root's `uid_map`, which takes SETFCAP of the parent",
        wrong: "not known to be",
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
        relies: "`override_creds`, `file_ns_capable`: credentials other than the task's are not what the container is given",
        decides: "overlayfs reads `trusted.overlay.*` with its mounter's credentials",
        leaves: "`access(2)`, which overrides the credentials with the caller's own real ids",
        wrong: "a file that a more powerful program of the same container opened and passed on",
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
    // What the answer changes.
    Rule {
        name: "memory-strict",
        verdict: Unsure,
        because: Unseen,
        reason: "memory: decides where vm.overcommit_memory is 2, as it is or may be here",
        relies: "`__vm_enough_memory`: the reserve for administrators counts in mode 2 only",
        decides: "`mmap` on a host with vm.overcommit_memory=2",
        leaves: "`mmap` on any other",
        wrong: "it hardly ever decides even there",
        functions: &[],
        applies: |f| asks_for_memory(f) && f.overcommit != Overcommit::Lenient,
    },
    Rule {
        name: "memory",
        verdict: Unneeded,
        because: NoEffect,
        reason: "memory: asked on every mapping, and the answer changes nothing",
        relies: "`cap_vm_enough_memory` ← `__vm_enough_memory`: unused in modes 0 and 1",
        decides: "`brk`, `fork`, `execve`",
        leaves: "`clone(CLONE_NEWNS)`, `mmap` of a device that asks by itself",
        wrong: "the mode is read once, when the trace starts",
        functions: &["cap_vm_enough_memory", "security_vm_enough_memory_mm"],
        applies: asks_for_memory,
    },
    Rule {
        name: "other-answer",
        verdict: Unneeded,
        because: OtherAnswer,
        reason: "refused, and then another capability answered the same decision",
        relies: "`generic_permission` asks DAC_READ_SEARCH, then DAC_OVERRIDE; `bpf_capable`, `perfmon_capable`, … ask SYS_ADMIN last",
        decides: "a private file read: DAC_READ_SEARCH refused, DAC_OVERRIDE granted",
        leaves: "`open_by_handle_at`, which asks DAC_READ_SEARCH alone",
        wrong: "told by counts of the same kind of call: as many grants as refusals",
        functions: &[],
        applies: answered_by_another,
    },
    Rule {
        name: "given-up",
        verdict: Unneeded,
        because: NoEffect,
        reason: "refused to a program that had given it up: the container's set has no say",
        relies: "`cap_bprm_creds_from_file`: a program executed by a user other than root gets none, whatever the bounding set",
        decides: "after USER, a private file of root's is read",
        leaves: "root reads it, and the container was not given DAC_OVERRIDE",
        wrong: "a program that looks at its sets and would have kept it",
        functions: &[],
        applies: |f| !f.granted && (f.answer_held() || f.beyond_reach()),
    },
    Rule {
        name: "done-without",
        verdict: Unneeded,
        because: Tolerated,
        reason: "refused, no engine grants it by default, and the build went on without it",
        relies: "the same refusal meets every build under Docker's default set: the image meant is the one made with it",
        decides: "`mount … || true`, and the instruction succeeds",
        leaves: "a refused chown; a mount in the instruction at which the build failed",
        wrong: "a Dockerfile that is meant to be built with more than the default, and hides that it was not",
        functions: &[],
        applies: |f| !f.granted && f.done_without(),
    },
    Rule {
        name: "opaque",
        verdict: Unsure,
        because: Unseen,
        reason: "the system call's arguments could not be read",
        relies: "the argument class says so",
        decides: "`clone3` whose arguments were paged out",
        leaves: "any call whose arguments were read",
        wrong: "never less sure than it could be",
        functions: &[],
        applies: |f| f.class_has(OPAQUE),
    },
    Rule {
        name: "chmod-without-setgid",
        verdict: Unneeded,
        because: NoEffect,
        reason: "chmod: the mode asked for has no setgid bit",
        relies: "`setattr_prepare`, `setattr_copy`: asked of every mode for a foreign group's file, and only clears S_ISGID",
        decides: "`chmod 0640` of a foreign group's file",
        leaves: "`chmod 2755` of it",
        wrong: "not known to be",
        functions: &["setattr_prepare", "setattr_copy", "in_group_or_capable"],
        applies: |f| f.cap == Cap::FSETID && f.in_call(CHMOD) && !f.class_has(SETGID_BIT),
    },
    Rule {
        name: "capset-within",
        verdict: Unneeded,
        because: NoEffect,
        reason: "capset: the inheritable set asked for is within what is held",
        relies: "`cap_capset`: asked first, and used only where the new inheritable set is above the old inheritable and permitted ones",
        decides: "`setpriv` that drops sets",
        leaves: "one that raises an inheritable capability it does not hold",
        wrong: "not known to be",
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
        relies: "`__sys_setuid` and its like: real, effective and saved id are already the one asked for",
        decides: "root calls `setuid(0)`",
        leaves: "`setuid(0)` with another saved id, which it sets too",
        wrong: "not known to be",
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
        relies: "`__sys_setresuid`, `__sys_setresgid`: asked before the ids are compared",
        decides: "`setresuid` back to the saved id",
        leaves: "`setuid`, which as root sets the saved id too; `setreuid`, which asks only where it would refuse",
        wrong: "not known to be",
        functions: &[],
        applies: |f| asks_for_ids(f) && f.in_call(ID_ASKED_FIRST) && f.class_has(id::HELD),
    },
    Rule {
        name: "ids-mapped",
        verdict: Unsure,
        because: Unseen,
        reason: "the ids asked for belong to a user namespace and could not be compared",
        relies: "ids in registers are those of the caller's namespace, ids in credentials are not",
        decides: "`setuid(0)` in a container with a user namespace",
        leaves: "the same in one without",
        wrong: "never less sure than it could be",
        functions: &[],
        applies: |f| {
            asks_for_ids(f)
                && (f.in_call(ID_MOVES_SAVED) || f.in_call(ID_ASKED_FIRST))
                && f.class_has(id::MAPPED)
        },
    },
    Rule {
        name: "buffer-size",
        verdict: Unneeded,
        because: NoEffect,
        reason: "setsockopt: only lets a socket's buffer be larger than the host's limit",
        relies: "`sk_setsockopt`: SO_SNDBUFFORCE and SO_RCVBUFFORCE set a size that no data depends on",
        decides: "a name service client raises its socket's buffers",
        leaves: "SO_MARK; the same refused",
        wrong: "a program that ends where it is refused: it fails under every engine's default set",
        functions: &[],
        applies: |f| {
            f.cap == Cap::NET_ADMIN
                && f.granted
                && f.in_call(&[Sysno::setsockopt])
                && BUFFER_FORCE.contains(&f.tally.class)
        },
    },
    // What cannot be told from one run, whatever became of the system call.
    Rule {
        name: "audit-message",
        verdict: Unsure,
        because: OutOfBand,
        reason: "audit: the answer comes as a message that may be ignored",
        relies: "`audit_receive_msg`: the send succeeds either way",
        decides: "`useradd` sends an audit record",
        leaves: "the same netlink socket asked for NET_ADMIN",
        wrong: "programs that treat the answer as fatal make it a need, those that ignore it none",
        functions: &[],
        applies: |f| matches!(f.cap, Cap::AUDIT_WRITE | Cap::AUDIT_CONTROL),
    },
    Rule {
        name: "netlink-message",
        verdict: Unsure,
        because: OutOfBand,
        reason: "netlink: the answer comes as a message that may be ignored",
        relies: "`netlink_ack`: the send succeeds either way",
        decides: "`ip link add`",
        leaves: "an ioctl for the same",
        wrong: "as with audit records",
        functions: &[],
        applies: |f| f.cap == Cap::NET_ADMIN && f.in_call(SEND),
    },
    Rule {
        name: "access-asked",
        verdict: Unsure,
        because: Unseen,
        reason: "access: the program only asked whether it could",
        relies: "`do_faccessat`: nothing but the answer",
        decides: "a shell looks with `access` for a program in a private folder",
        leaves: "the `open` that follows",
        wrong: "the program may go another way, or ask out of habit",
        functions: &[],
        applies: |f| f.in_call(ACCESS),
    },
    Rule {
        name: "signal-asked",
        verdict: Unsure,
        because: Unseen,
        reason: "kill: signal 0 only asks whether a signal could be sent",
        relies: "`check_kill_permission`: nothing but the answer",
        decides: "`kill -0 $pid`",
        leaves: "`kill $pid`",
        wrong: "EPERM says that the process is there as well as success does; programs differ in what they make of it",
        functions: &[],
        applies: |f| f.cap == Cap::KILL && f.in_call(SIGNAL) && f.class_has(signal::ASK),
    },
    Rule {
        name: "executor-kill",
        verdict: Needed,
        because: Used,
        reason: "Kaniko kills what a RUN left, which was another user's: refused, the build fails",
        relies: "`__kill_pgrp_info` fails where no member was reached; Kaniko's `runCommandInExec` returns any error but ESRCH",
        decides: "a RUN leaves a daemon of another user, and nothing else",
        leaves: "a RUN leaves a process of root's too: the kill succeeds without reaching the other",
        wrong: "a process that the RUN left and whose fork was not seen",
        functions: &[],
        applies: |f| {
            f.cap == Cap::KILL
                && f.granted
                && f.executor
                && f.in_call(&[Sysno::kill])
                && f.class_has(signal::GROUP)
                && f.outcome == Outcome::Success
                && f.killed_others_only()
        },
    },
    Rule {
        name: "signal-group",
        verdict: Unsure,
        because: Silent,
        reason: "kill: sent to several processes, and succeeds where any was reached",
        relies: "`__kill_pgrp_info`, `kill_something_info`",
        decides: "`kill -- -$pgid` with processes of several users",
        leaves: "`kill $pid`",
        wrong: "who was not reached may matter or not",
        functions: &[],
        applies: |f| {
            f.cap == Cap::KILL
                && f.in_call(&[Sysno::kill])
                && f.outcome == Outcome::Success
                && f.class_has(signal::OWN_GROUP | signal::GROUP)
        },
    },
    Rule {
        name: "shrugged-off",
        verdict: Unsure,
        because: ShruggedOff,
        reason: "asked by a program that is known to go on where it is refused",
        relies: "the program's source: a short table of programs and calls",
        decides: "apt signals its helpers; apt hands downloads to its `_apt` user",
        leaves: "the same call by another program",
        wrong: "what is left undone may still be in the image",
        functions: &[],
        applies: shrugged_off,
    },
    Rule {
        name: "signal-granted",
        verdict: Unsure,
        because: Unseen,
        reason: "kill: the process signalled may have been ending by itself",
        relies: "`check_kill_permission` asks for processes that have ended and are not waited for, too",
        decides: "a script stops the helper that it started as another user",
        leaves: "a signal that was refused",
        wrong: "mostly no need: few builds wait for the effect of a signal",
        functions: &[],
        applies: |f| f.cap == Cap::KILL && f.in_call(SIGNAL) && f.granted,
    },
    Rule {
        name: "unpack-setgid",
        verdict: Unsure,
        because: Unseen,
        reason: "unpack: without it base files lose setgid, seen only where a layer takes them up",
        relies: "`setattr_copy` clears S_ISGID in silence; Kaniko compares with a snapshot made after unpacking, so the base's layers stay as they are",
        decides: "Kaniko unpacks a base with /usr/bin/chage, root:shadow 2755",
        leaves: "COPY --chmod=2755, whose file is in the new layer; a RUN's chmod",
        wrong: "a need where a later step changes, copies, lists or executes such a file or makes something in such a folder",
        functions: &[],
        applies: |f| f.executor && f.step == "unpack" && f.granted && sets_setgid(f),
    },
    Rule {
        name: "chown-setgid",
        verdict: Unsure,
        because: Unseen,
        reason: "chown: decides where the file has the setgid bit, which was not seen",
        relies: "`setattr_should_drop_sgid` asks where S_ISGID is set without S_IXGRP; `setattr_prepare` for any setuid file",
        decides: "`chown` of a setuid file to a foreign group",
        leaves: "`chmod 2755`",
        wrong: "a need wherever the file had the bit without group execution",
        functions: &[],
        applies: |f| f.cap == Cap::FSETID && f.in_call(CHOWN) && f.granted,
    },
    Rule {
        name: "filter-hardening",
        verdict: Unsure,
        because: Unseen,
        reason: "a filter was installed: the kernel may have asked only how to compile it",
        relies: "`bpf_jit_blinding_enabled`, `bpf_prog_alloc`: asked for each filter, and nobody's program depends on it",
        decides: "a sandbox installs a seccomp filter",
        leaves: "`bpf(BPF_PROG_LOAD)`",
        wrong: "mostly no need",
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
        relies: "`xattr_permission`: reads of trusted.* are refused with ENODATA",
        decides: "`getxattr trusted.x` without SYS_ADMIN",
        leaves: "`setxattr trusted.x`, refused with EPERM",
        wrong: "the file may have had none",
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
        relies: "`simple_xattr_list`, `trusted_list`: names are left out in silence",
        decides: "`listxattr` on tmpfs",
        leaves: "`getxattr`",
        wrong: "mostly no need: few files have any",
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
        relies: "`create_user_ns` asks nothing; what else the call makes is asked of the new namespace",
        decides: "`unshare(CLONE_NEWUSER | CLONE_NEWNS)` on a kernel that restricts it",
        leaves: "`unshare(CLONE_NEWNS)`",
        wrong: "kernels that allow user namespaces to privileged programs only",
        functions: &[],
        applies: |f| {
            f.cap == Cap::SYS_ADMIN
                && f.granted
                && (f.in_call(CLONE) || f.in_call(&[Sysno::unshare]))
                && f.class_has(NEW_USER)
        },
    },
    // What became of it.
    Rule {
        name: "no-call",
        verdict: Unsure,
        because: Unseen,
        reason: "asked outside any system call: what became of it is not seen",
        relies: "page faults, io_uring workers and kernel threads end in no `sys_exit`",
        decides: "an io_uring worker opens a private file",
        leaves: "`openat` of it",
        wrong: "never less sure than it could be",
        functions: &[],
        applies: |f| f.outcome == Outcome::NoCall,
    },
    Rule {
        name: "outcome-unknown",
        verdict: Unsure,
        because: Unseen,
        reason: "how the system call ended was not seen",
        relies: "what was not seen is never success",
        decides: "a call in which a thread was killed; a hook that is blind to outcomes",
        leaves: "a call that was seen to end",
        wrong: "never less sure than it could be",
        functions: &[],
        applies: |f| matches!(f.outcome, Outcome::Unknown | Outcome::Restarted),
    },
    Rule {
        name: "refused-silently",
        verdict: Unsure,
        because: Silent,
        reason: "refused, yet the system call succeeded: what it left undone may matter",
        relies: "`setattr_copy` and others answer a refusal by doing less",
        decides: "`chmod 2755` of a foreign group's file without FSETID",
        leaves: "one that fails with EPERM",
        wrong: "what was left undone may be undone later anyway",
        functions: &[],
        applies: |f| !f.granted && f.outcome == Outcome::Success,
    },
    Rule {
        name: "refused-unwaited",
        verdict: Unsure,
        because: NobodyWaited,
        reason: "refused, and the system call failed; nobody waited for the program to end",
        relies: "`exit_notify`: its parent when it ended was not the one that forked it",
        decides: "`su nobody -c server &`, refused SETUID, outlives its shell",
        leaves: "the same without `&`",
        wrong: "later commands may rely on what it was to do",
        functions: &[],
        applies: |f| !f.granted && !f.executor && says_no(f) && f.unwaited(),
    },
    Rule {
        name: "refused",
        verdict: Needed,
        because: Refused,
        reason: "refused, and the system call failed for it",
        relies: "the error is one by which the kernel refuses for want of this capability",
        decides: "`chown` without CHOWN: EPERM",
        leaves: "`chown` that fails with ENOSPC",
        wrong: "a program that goes another way; a Dockerfile that ignores the failure",
        functions: &[],
        applies: |f| !f.granted && says_no(f),
    },
    Rule {
        name: "refused-other-error",
        verdict: Unsure,
        because: Unseen,
        reason: "refused, and the system call failed with an error of another kind",
        relies: "another check of the same call may have failed as well",
        decides: "`chown` without CHOWN: ENOSPC",
        leaves: "EPERM",
        wrong: "never less sure than it could be",
        functions: &[],
        applies: |f| !f.granted,
    },
    Rule {
        name: "granted-yet-failed",
        verdict: Unsure,
        because: Unseen,
        reason: "granted, yet the system call failed: what the grant decided is not seen",
        relies: "something behind the check refused: a security module, a file system",
        decides: "`mount` with SYS_ADMIN: EINVAL",
        leaves: "`mount` that succeeds",
        wrong: "the same failure without it may be another error",
        functions: &[],
        applies: |f| matches!(f.outcome, Outcome::Failed(_)),
    },
    Rule {
        name: "executor",
        verdict: Needed,
        because: Used,
        reason: "Kaniko did it by this, and ends the build where it is refused",
        relies: "Kaniko's source returns the error of each of these calls",
        decides: "unpacking chowns a file of the base to its owner",
        leaves: "a RUN's chown",
        wrong: "a Kaniko that is not of version 1.x",
        functions: &[],
        applies: |f| f.granted && f.outcome == Outcome::Success && fatal_to_the_executor(f),
    },
    Rule {
        name: "nobody-waited",
        verdict: Unsure,
        because: NobodyWaited,
        reason: "granted, but nobody waited for the program to end: its failure may go unnoticed",
        relies: "`exit_notify`: its parent when it ended was not the one that forked it",
        decides: "`su nobody -c server &` outlives its shell",
        leaves: "the same without `&`",
        wrong: "later commands may rely on what it did",
        functions: &[],
        applies: |f| f.granted && f.outcome == Outcome::Success && !f.executor && f.unwaited(),
    },
    Rule {
        name: "used",
        verdict: Needed,
        because: Used,
        reason: "granted, and the system call succeeded with it",
        relies: "`capable` and its like: the operation depends on the answer",
        decides: "`chown nobody file` succeeds",
        leaves: "the same refused, or without an end that was seen",
        wrong: "a failure that the Dockerfile ignores and the image does not show",
        functions: &[],
        applies: |f| f.granted && f.outcome == Outcome::Success,
    },
];
