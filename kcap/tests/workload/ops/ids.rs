//! User and group ids.

use kcap_common::decide::argclass::id;
use libc::EPERM;

use super::{Op, cap};
use crate::sys::{self, must, must_end};
use crate::truth::check;

pub const OPS: &[Op] = &[
    Op {
        name: "setgroups",
        caps: &[cap::SETGID],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("setgroups", sys::setgroups_none(), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SETGID, libc::SYS_setgroups, "may_setgroups")
                    .either(refused, EPERM)
                    .class(0),
            ])
        },
    },
    // One's own id: asked, but held, so that a refusal fails nothing.
    Op {
        name: "setuid",
        caps: &[cap::SETUID],
        alone: false,
        prepare: |_| Ok(Box::new(|| must_end("setuid", sys::setuid(0), 0))),
        truth: |refused| {
            Ok(vec![
                check(cap::SETUID, libc::SYS_setuid, "__sys_setuid asks first")
                    .either(refused, 0)
                    .class(id::HELD | id::SAME | id::USER | id::ROOT),
            ])
        },
    },
    Op {
        name: "setgid",
        caps: &[cap::SETGID],
        alone: false,
        prepare: |_| Ok(Box::new(|| must_end("setgid", sys::setgid(0), 0))),
        truth: |refused| {
            Ok(vec![
                check(cap::SETGID, libc::SYS_setgid, "__sys_setgid asks first")
                    .either(refused, 0)
                    .class(id::HELD | id::SAME | id::GROUP | id::ROOT),
            ])
        },
    },
    // There and back. Back goes by setreuid, which asks nothing for an id that is held; setresuid
    // would ask for it on 6.1 and not on 6.12.
    Op {
        name: "setresuid",
        caps: &[cap::SETUID],
        alone: false,
        prepare: |w| {
            let refused = w.refused;
            Ok(Box::new(move || {
                must_end(
                    "setresuid",
                    sys::setresuid(-1, 1000, -1),
                    if refused { EPERM } else { 0 },
                )?;
                must_end("setreuid", sys::setreuid(-1, 0), 0)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SETUID, libc::SYS_setresuid, "an id that is not held")
                    .either(refused, EPERM)
                    .class(id::USER),
                check(
                    cap::SETUID,
                    libc::SYS_setreuid,
                    "a held id is not asked for",
                )
                .times(0),
            ])
        },
    },
    // A refused setfsuid answers as a granted one does.
    Op {
        name: "setfsuid",
        caps: &[cap::SETUID],
        alone: false,
        prepare: |w| {
            let after = if w.refused { 0 } else { 1000 };
            Ok(Box::new(move || {
                sys::setfsuid(1000);
                match sys::setfsuid(0) {
                    id if id == after => Ok(()),
                    id => Err(format!(
                        "setfsuid: the file system uid was {id}, not {after}"
                    )),
                }
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(
                    cap::SETUID,
                    libc::SYS_setfsuid,
                    "an id that is not held; back is held",
                )
                .either(refused, 0)
                .class(id::USER),
            ])
        },
    },
    // The same by the 32-bit entry: other numbers, arguments not classed.
    Op {
        name: "compat",
        caps: &[cap::SETUID, cap::SYS_TIME],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must("setuid32 by int 0x80", compat(COMPAT_SETUID32, 0, 0))?;
                must_end(
                    "settimeofday by int 0x80",
                    compat(COMPAT_SETTIMEOFDAY, 0, 0),
                    want,
                )
            }))
        },
        truth: |refused| {
            if !compat_works()? {
                return Err("no 32-bit system calls on this kernel".to_owned());
            }
            Ok(vec![
                check(cap::SETUID, COMPAT_SETUID32, "setuid32")
                    .either(refused, 0)
                    .compat(),
                check(cap::SYS_TIME, COMPAT_SETTIMEOFDAY, "settimeofday")
                    .either(refused, EPERM)
                    .compat(),
            ])
        },
    },
];

const COMPAT_GETPID: i64 = 20;
const COMPAT_SETTIMEOFDAY: i64 = 79;
const COMPAT_SETUID32: i64 = 213;

/// A 32-bit system call with plain numbers as arguments.
#[cfg(target_arch = "x86_64")]
fn compat(nr: i64, a: u64, b: u64) -> Result<i64, sys::Errno> {
    let mut value = nr;
    // SAFETY: the calls made here take numbers or null pointers; rbx, which LLVM keeps for itself,
    // is put back, and the registers that the entry may clear are declared.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {a}",
            "int 0x80",
            "xchg rbx, {a}",
            a = inout(reg) a => _,
            inlateout("rax") value,
            in("rcx") b,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let value = i64::from(value as i32);
    if value < 0 {
        Err(-value as sys::Errno)
    } else {
        Ok(value)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn compat(_: i64, _: u64, _: u64) -> Result<i64, sys::Errno> {
    Err(libc::ENOSYS)
}

/// Tried in a child, since a kernel without the entry answers by SIGSEGV.
fn compat_works() -> sys::Res<bool> {
    let child = sys::fork(|| must("getpid by int 0x80", compat(COMPAT_GETPID, 0, 0)).map(drop))?;
    Ok(sys::wait(child)? == 0)
}
