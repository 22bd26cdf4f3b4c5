//! Rules for what the kernel decides without a check. What applies is found in `unasked`: these are
//! the rows that it refers to.

use super::Rule;
use crate::report::Because::{self, *};
use crate::report::Verdict::{self, *};

const fn stated(
    name: &'static str,
    (verdict, because): (Verdict, Because),
    reason: &'static str,
    relies: &'static str,
    (decides, leaves): (&'static str, &'static str),
    wrong: &'static str,
) -> Rule {
    Rule {
        name,
        verdict,
        because,
        reason,
        relies,
        decides,
        leaves,
        wrong,
        functions: &[],
        applies: |_| false,
    }
}

/// A file was executed whose capabilities are all within the bounding set.
pub static EXECUTED: Rule = stated(
    "executed-file",
    (Needed, Unasked),
    "exec: the file has it, and without it the kernel refuses the exec",
    "`bprm_caps_from_vfs_caps`: with the effective bit, EPERM where the bounding set lacks one",
    (
        "a file with `cap_net_raw+ep` is executed",
        "the same with `+p`; one executed from a nosuid mount",
    ),
    "an exec whose failure is ignored",
);
/// The same without the effective bit.
pub static RAISES_ITSELF: Rule = stated(
    "executed-file-permitted",
    (Unsure, Unseen),
    "exec: the file has it, for the program to raise by itself",
    "`bprm_caps_from_vfs_caps`: without the effective bit the program just gets less",
    (
        "a file with `cap_mknod+p` is executed",
        "the same with `+ep`",
    ),
    "a program that never raises it needs it not",
);
/// An exec was refused.
pub static EXEC_REFUSED: Rule = stated(
    "refused-exec",
    (Needed, Unasked),
    "exec: refused, for the file has it and the bounding set has not",
    "`bprm_caps_from_vfs_caps`",
    (
        "a file with `cap_sys_admin+ep` is executed, and the build fails",
        "the same, and the build succeeds",
    ),
    "an exec whose failure is ignored in a build that fails otherwise",
);
/// A set was asked for that holds what the container lacks.
pub static SET_REFUSED: Rule = stated(
    "refused-set",
    (Needed, Unasked),
    "the program asked for a set with it, and was refused",
    "`cap_capset`, `cap_task_prctl` (PR_CAP_AMBIENT_RAISE): above what is held, EPERM without a check",
    (
        "`setpriv --ambient-caps +net_bind_service` in a container without it",
        "the same where the bounding set has it",
    ),
    "a program that goes on with less",
);
/// Root of the parent namespace was mapped.
pub static ROOT_MAPPED: Rule = stated(
    "root-mapped",
    (Needed, Unasked),
    "uid_map: the parent's id 0 is mapped only with it",
    "`verify_root_map`",
    ("`unshare -r` by root", "`unshare -r` by another user"),
    "a RUN that ignores the failure",
);
/// A call that every program has a way around.
pub static CLONE3_HIDDEN: Rule = stated(
    "clone3-hidden",
    (Unneeded, Tolerated),
    "seccomp hides clone3, and programs then use clone",
    "container profiles answer clone3 with ENOSYS for want of SYS_ADMIN; libc falls back",
    ("clone3 ends in ENOSYS", "unshare ends in EPERM"),
    "a program without a fallback",
);
/// Refused without a check, and the build succeeded.
pub static DONE_WITHOUT: Rule = stated(
    "done-without-unasked",
    (Unneeded, Tolerated),
    "refused, no engine grants it by default, and the build went on without it",
    "as done-without, for what seccomp, exec or capset refuse without a check",
    (
        "`mount … || true` under a seccomp profile",
        "`mount` in the instruction at which the build failed",
    ),
    "as done-without",
);
/// A call that the profile opens by capability, in a program that then failed.
pub static SECCOMP_FATAL: Rule = stated(
    "seccomp-fatal",
    (Needed, Unasked),
    "seccomp: refused for want of it, and the program then failed",
    "Docker's, Podman's and containerd's profiles open calls by capability",
    (
        "`mount` under docker's profile ends in EPERM, then exit status 1",
        "the same, then exit status 0",
    ),
    "a profile of another make",
);
/// The same in a program that went on.
pub static SECCOMP_SILENT: Rule = stated(
    "seccomp-passed",
    (Unsure, Silent),
    "seccomp: refused for want of it, and the program went on",
    "as seccomp-fatal",
    (
        "`mount` is refused, the program exits 0, and its instruction fails",
        "the same, and the build succeeds",
    ),
    "a profile of another make; a program that does not need the call",
);

/// All of them.
pub static RULES: [&Rule; 9] = [
    &EXECUTED,
    &RAISES_ITSELF,
    &EXEC_REFUSED,
    &SET_REFUSED,
    &ROOT_MAPPED,
    &CLONE3_HIDDEN,
    &DONE_WITHOUT,
    &SECCOMP_FATAL,
    &SECCOMP_SILENT,
];
