//! Needs that the kernel decides without asking.

use kcap_common::abi::key::unasked;
use libc::{ENOSYS, EPERM, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, PR_CAPBSET_READ};

use super::exec::capable;
use super::{Op, cap};
use crate::sys::{self, Res, Sets, must, must_end, must_fail};
use crate::truth::{check, need};

/// Makes `mount` end in EPERM and `clone3` in ENOSYS for the calling thread, as container profiles
/// do.
fn filter() -> Res {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let answer = |errno: i32| op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32);
    let mut program = [
        op(LOAD, 0, 0, 0), // seccomp_data.nr
        op(EQUAL, 0, 1, libc::SYS_mount as u32),
        answer(EPERM),
        op(EQUAL, 0, 1, libc::SYS_clone3 as u32),
        answer(ENOSYS),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    must(
        "PR_SET_NO_NEW_PRIVS",
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
    )?;
    let mode = libc::SECCOMP_MODE_FILTER.into();
    must(
        "PR_SET_SECCOMP",
        sys::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter as u64),
    )
    .map(drop)
}

pub const OPS: &[Op] = &[
    // A program whose file has more than the bounding set, which a full root may not execute.
    Op {
        name: "exec-above",
        caps: &[],
        alone: true,
        prepare: |w| {
            let path = capable(w)?;
            Ok(Box::new(move || {
                sys::wait_ok(sys::fork(|| {
                    must(
                        "PR_CAPBSET_DROP",
                        sys::prctl(PR_CAPBSET_DROP, cap::NET_RAW.into(), 0),
                    )?;
                    let errno = sys::exec(&path, &[c"workload", c"--inner", c"above"]);
                    must_fail("execve", Err::<(), _>(errno), EPERM)
                })?)
            }))
        },
        truth: |_| {
            Ok(vec![
                need(
                    unasked::EXEC,
                    libc::SYS_execve,
                    EPERM,
                    "bprm_caps_from_vfs_caps",
                ),
                check(cap::SETPCAP, libc::SYS_prctl, "cap_prctl_drop")
                    .class(PR_CAPBSET_DROP as u32),
            ])
        },
    },
    // The check is granted, the call refused.
    Op {
        name: "capset-above",
        caps: &[],
        alone: false,
        prepare: |_| {
            sys::give_up(&[cap::LINUX_IMMUTABLE])?;
            let held = must("capget", sys::capget())?;
            let more = Sets {
                permitted: held.permitted | 1 << cap::LINUX_IMMUTABLE,
                ..held
            };
            Ok(Box::new(move || {
                must_fail("capset", sys::capset(more), EPERM)
            }))
        },
        truth: |_| {
            use kcap_common::decide::argclass::capset_bits::PERMITTED;
            Ok(vec![
                check(cap::SETPCAP, libc::SYS_capset, "cap_inh_is_capped")
                    .ends(EPERM)
                    .class(PERMITTED)
                    .narrow(),
                need(
                    unasked::CAPSET,
                    libc::SYS_capset,
                    EPERM,
                    "permitted above what is held",
                )
                .class(1 << cap::LINUX_IMMUTABLE),
            ])
        },
    },
    Op {
        name: "ambient-above",
        caps: &[],
        alone: false,
        prepare: |_| {
            let (raise, raised) = (PR_CAP_AMBIENT_RAISE as u64, cap::LINUX_IMMUTABLE.into());
            sys::give_up(&[cap::LINUX_IMMUTABLE])?;
            Ok(Box::new(move || {
                must_fail(
                    "PR_CAP_AMBIENT_RAISE",
                    sys::prctl(PR_CAP_AMBIENT, raise, raised),
                    EPERM,
                )
            }))
        },
        truth: |_| {
            Ok(vec![
                need(
                    unasked::AMBIENT,
                    libc::SYS_prctl,
                    EPERM,
                    "not permitted and inheritable",
                )
                .class(cap::LINUX_IMMUTABLE.into()),
                check(cap::SETPCAP, libc::SYS_prctl, "ambient sets ask nothing").times(0),
            ])
        },
    },
    // Root mapped into a namespace whose maker had no SETFCAP: SYS_ADMIN is asked for and granted,
    // and the write refused. With SETFCAP it succeeds, and asks no more than that.
    Op {
        name: "idmap",
        caps: &[cap::SETFCAP],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                sys::wait_ok(sys::fork(|| {
                    must("unshare", sys::unshare(libc::CLONE_NEWUSER))?;
                    let fd = must("open", sys::open(c"/proc/self/uid_map", libc::O_WRONLY))?;
                    must_end("write to uid_map", sys::write(fd, b"0 0 1\n"), want)
                })?)
            }))
        },
        truth: |refused| {
            let child = sys::fork(|| must("unshare", sys::unshare(libc::CLONE_NEWUSER)).map(drop))?;
            if sys::wait(child)? != 0 {
                return Err("no user namespaces on this kernel".to_owned());
            }
            let asked = check(cap::SYS_ADMIN, libc::SYS_write, "map_write");
            Ok(vec![
                if refused { asked.ends(EPERM) } else { asked },
                // Told whatever came of it: that it succeeded took SETFCAP, unasked.
                need(
                    unasked::IDMAP,
                    libc::SYS_write,
                    if refused { EPERM } else { 0 },
                    "verify_root_map",
                )
                .class(1),
            ])
        },
    },
    Op {
        name: "seccomp",
        caps: &[],
        alone: false,
        prepare: |_| {
            filter()?;
            Ok(Box::new(|| {
                must_fail("mount", sys::mount_tmpfs(c"/nowhere"), EPERM)?;
                must_fail("clone3", sys::clone3_nothing(), ENOSYS)
            }))
        },
        truth: |_| {
            Ok(vec![
                need(
                    unasked::SECCOMP,
                    libc::SYS_mount,
                    EPERM,
                    "the filter's answer",
                ),
                need(
                    unasked::SECCOMP,
                    libc::SYS_clone3,
                    ENOSYS,
                    "the filter's answer",
                ),
                check(cap::SYS_ADMIN, libc::SYS_mount, "the filter answers before").times(0),
            ])
        },
    },
    Op {
        name: "reads-own",
        caps: &[],
        alone: false,
        prepare: |_| {
            Ok(Box::new(|| {
                must("capget", sys::capget())?;
                must(
                    "PR_CAPBSET_READ",
                    sys::prctl(PR_CAPBSET_READ, cap::NET_RAW.into(), 0),
                )
                .map(drop)
            }))
        },
        truth: |_| {
            Ok(vec![
                need(unasked::READS_OWN, libc::SYS_capget, 0, "capget"),
                need(unasked::READS_OWN, libc::SYS_prctl, 0, "PR_CAPBSET_READ"),
            ])
        },
    },
];
