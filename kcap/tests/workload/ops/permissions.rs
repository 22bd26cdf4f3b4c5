//! Reading what is another's: `generic_permission` and what stands beside it.

use std::ffi::CString;

use kcap_common::abi::key::creds;
use libc::{EACCES, EPERM, O_NOATIME, O_RDONLY, O_WRONLY};

use super::{Op, Worker, cap};
use crate::sys::{self, Res, must, must_end};
use crate::truth::{Expect, check};

/// A file in the run's folder that belongs to another.
fn foreign(w: &Worker, mode: u32) -> Res<CString> {
    let path = w.path("foreign")?;
    must("mknod", sys::mknod(&path, libc::S_IFREG | 0o600, 0))?;
    let fd = must("open", sys::open(&path, O_RDONLY))?;
    must("fchmod", sys::fchmod(fd, mode))?;
    must("fchown", sys::fchown(fd, 4242, 4242))?;
    sys::close(fd);
    Ok(path)
}

fn open(path: &CString, flags: i32, want: i32) -> Res {
    let got = sys::open(path, flags);
    if let Ok(fd) = got {
        sys::close(fd);
    }
    must_end("open", got, want)
}

fn asked(capability: u8, class: i32) -> Expect {
    check(capability, libc::SYS_openat, "generic_permission").class(class as u32)
}

pub const OPS: &[Op] = &[
    Op {
        name: "open-read",
        caps: &[cap::DAC_READ_SEARCH, cap::DAC_OVERRIDE],
        alone: false,
        prepare: |w| {
            let path = foreign(w, 0o600)?;
            // Making it ready has opened it, with the same flags but as its owner.
            let want = if w.refused { EACCES } else { 0 };
            Ok(Box::new(move || open(&path, O_RDONLY, want)))
        },
        truth: |refused| {
            Ok(vec![
                asked(cap::DAC_READ_SEARCH, O_RDONLY).either(refused, EACCES),
                asked(cap::DAC_OVERRIDE, O_RDONLY)
                    .refused(EACCES)
                    .times(u64::from(refused)),
            ])
        },
    },
    // The other half of the same decision: refused, then answered by the other capability, and
    // with O_NOATIME a third one, all in one system call.
    Op {
        name: "open-other",
        caps: &[cap::DAC_READ_SEARCH],
        alone: false,
        prepare: |w| {
            let path = foreign(w, 0o600)?;
            Ok(Box::new(move || open(&path, O_RDONLY | O_NOATIME, 0)))
        },
        truth: |refused| {
            let class = O_RDONLY | O_NOATIME;
            Ok(vec![
                asked(cap::DAC_READ_SEARCH, class).either(refused, 0),
                asked(cap::DAC_OVERRIDE, class).times(u64::from(refused)),
                check(cap::FOWNER, libc::SYS_openat, "may_open").class(class as u32),
            ])
        },
    },
    Op {
        name: "open-write",
        caps: &[cap::DAC_OVERRIDE],
        alone: false,
        prepare: |w| {
            let path = foreign(w, 0o644)?;
            let want = if w.refused { EACCES } else { 0 };
            Ok(Box::new(move || open(&path, O_WRONLY, want)))
        },
        truth: |refused| {
            Ok(vec![
                asked(cap::DAC_OVERRIDE, O_WRONLY).either(refused, EACCES),
                asked(cap::DAC_READ_SEARCH, O_WRONLY).times(0),
            ])
        },
    },
    Op {
        name: "noatime",
        caps: &[cap::FOWNER],
        alone: false,
        prepare: |w| {
            let path = foreign(w, 0o644)?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || open(&path, O_NOATIME, want)))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::FOWNER, libc::SYS_openat, "may_open")
                    .either(refused, EPERM)
                    .class(O_NOATIME as u32),
            ])
        },
    },
    // access(2) asks by the real ids. With another effective id all kernels override the
    // credentials for it, and the real user 0 has its permitted set in them.
    Op {
        name: "access",
        caps: &[cap::DAC_READ_SEARCH, cap::DAC_OVERRIDE],
        alone: false,
        prepare: |w| {
            let path = foreign(w, 0o600)?;
            let want = if w.refused { EACCES } else { 0 };
            Ok(Box::new(move || {
                must("setresuid", sys::setresuid(-1, 1000, -1))?;
                let got = sys::access(&path, libc::R_OK);
                must("setreuid", sys::setreuid(-1, 0))?;
                must_end("access", got, want)
            }))
        },
        truth: |refused| {
            let asked = |capability| {
                check(
                    capability,
                    libc::SYS_access,
                    "generic_permission, by the real ids",
                )
                .class(libc::R_OK as u32)
                .creds(creds::OVERRIDDEN)
            };
            Ok(vec![
                asked(cap::DAC_READ_SEARCH).either(refused, EACCES),
                asked(cap::DAC_OVERRIDE)
                    .refused(EACCES)
                    .times(u64::from(refused)),
            ])
        },
    },
];
