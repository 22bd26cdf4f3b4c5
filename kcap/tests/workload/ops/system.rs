//! Names, namespaces, roots, clocks and priorities.

use libc::{CLONE_NEWUTS, EACCES, EINVAL, EPERM, c_int, c_void};

use super::{Op, cap};
use crate::sys::{self, must, must_end};
use crate::truth::check;

/// `kcap_common::decide::argclass::namespaces(CLONE_NEWUTS)`.
const CLASS_UTS: u32 = 1 << 3;

extern "C" fn at_once(_: *mut c_void) -> c_int {
    0
}

pub const OPS: &[Op] = &[
    // The cheapest check that leaves no trace, for load.
    Op {
        name: "clock",
        caps: &[cap::SYS_TIME],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("settimeofday", sys::settimeofday_nothing(), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SYS_TIME, libc::SYS_settimeofday, "cap_settime")
                    .either(refused, EPERM)
                    .class(0),
            ])
        },
    },
    // Granted, and then the system call fails for another reason.
    Op {
        name: "reboot",
        caps: &[cap::SYS_BOOT],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { EINVAL };
            Ok(Box::new(move || {
                must_end("reboot", sys::reboot_without_magic(), want)
            }))
        },
        truth: |refused| {
            let asked = check(
                cap::SYS_BOOT,
                libc::SYS_reboot,
                "asked before the magic numbers are read",
            );
            Ok(vec![if refused {
                asked.refused(EPERM)
            } else {
                asked.ends(EINVAL)
            }])
        },
    },
    Op {
        name: "sethostname",
        caps: &[cap::SYS_ADMIN],
        alone: false,
        prepare: |w| {
            let name = must_read("/proc/sys/kernel/hostname")?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end(
                    "sethostname",
                    sys::sethostname(name.trim_end().as_bytes()),
                    want,
                )
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SYS_ADMIN, libc::SYS_sethostname, "sethostname").either(refused, EPERM),
            ])
        },
    },
    Op {
        name: "unshare",
        caps: &[cap::SYS_ADMIN],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("unshare", sys::unshare(CLONE_NEWUTS), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(
                    cap::SYS_ADMIN,
                    libc::SYS_unshare,
                    "unshare_nsproxy_namespaces",
                )
                .either(refused, EPERM)
                .class(CLASS_UTS),
            ])
        },
    },
    Op {
        name: "setns",
        caps: &[cap::SYS_ADMIN],
        alone: false,
        prepare: |w| {
            let fd = must("open", sys::open(c"/proc/self/ns/uts", libc::O_RDONLY))?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("setns", sys::setns(fd, CLONE_NEWUTS), want)
            }))
        },
        truth: |refused| {
            // In the namespace's owner, then in one's own: refused in the first, done.
            let times = if refused { 1 } else { 2 };
            Ok(vec![
                check(cap::SYS_ADMIN, libc::SYS_setns, "utsns_install")
                    .either(refused, EPERM)
                    .class(CLASS_UTS)
                    .times(times),
            ])
        },
    },
    // The same system call with and without a new namespace. The children share the memory: a
    // copied address space asks for SYS_ADMIN by itself, once for each mapping that is accounted.
    Op {
        name: "clone",
        caps: &[cap::SYS_ADMIN],
        alone: false,
        prepare: |w| {
            let refused = w.refused;
            Ok(Box::new(move || {
                let with = sys::vfork(CLONE_NEWUTS, at_once);
                if let Ok(child) = with {
                    sys::wait_ok(child)?;
                }
                must_end(
                    "clone with CLONE_NEWUTS",
                    with,
                    if refused { EPERM } else { 0 },
                )?;
                sys::wait_ok(must("clone", sys::vfork(0, at_once))?)
            }))
        },
        truth: |refused| {
            let asked = check(
                cap::SYS_ADMIN,
                libc::SYS_clone,
                "copy_namespaces, and nothing without",
            );
            Ok(vec![asked.either(refused, EPERM).class(CLASS_UTS).narrow()])
        },
    },
    Op {
        name: "chroot",
        caps: &[cap::SYS_CHROOT],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("chroot", sys::chroot(c"/"), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SYS_CHROOT, libc::SYS_chroot, "chroot").either(refused, EPERM),
            ])
        },
    },
    // One up is free, one down is asked for, and its refusal is EACCES.
    Op {
        name: "setpriority",
        caps: &[cap::SYS_NICE],
        alone: false,
        prepare: |w| {
            must("setrlimit", sys::setrlimit(libc::RLIMIT_NICE, 0))?;
            let want = if w.refused { EACCES } else { 0 };
            Ok(Box::new(move || {
                must("setpriority 1", sys::setpriority_self(1))?;
                must_end("setpriority 0", sys::setpriority_self(0), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SYS_NICE, libc::SYS_setpriority, "can_nice")
                    .either(refused, EACCES)
                    .class(libc::PRIO_PROCESS),
            ])
        },
    },
];

fn must_read(path: &str) -> sys::Res<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}
