//! Owner, mode and attributes of files. The files are nameless ones in memory (`memfd_create`), so
//! that neither a folder nor an overlay file system asks anything of its own.

use kcap_common::decide::argclass::{id, xattr};
use libc::{ENODATA, EPERM, c_int};

use super::{Op, Worker, cap};
use crate::sys::{self, Res, must, must_end};
use crate::truth::check;

/// A user and a group that root is not in.
const FOREIGN: i32 = 4242;

fn file(user: i32, group: i32) -> Res<c_int> {
    let fd = must("memfd_create", sys::memfd())?;
    must("fchown", sys::fchown(fd, user, group))?;
    Ok(fd)
}

fn has_mode(fd: c_int, want: u32) -> Res {
    match must("fstat", sys::mode_of(fd))? {
        mode if mode == want => Ok(()),
        mode => Err(format!("the mode is {mode:o}, not {want:o}")),
    }
}

/// `security.capability`, revision 2: permitted and effective {NET_RAW}, as the kernel reads it.
pub const FILE_CAPS: [u8; 20] = {
    let mut value = [0; 20];
    value[0] = 1; // VFS_CAP_FLAGS_EFFECTIVE
    value[3] = 2; // VFS_CAP_REVISION_2
    value[5] = (1u32 << cap::NET_RAW >> 8) as u8;
    value
};

pub const OPS: &[Op] = &[
    // The same check, twice in each call (setattr_prepare, setattr_copy), whatever the mode: only
    // the argument class tells that the first decides nothing. A refusal is silent.
    Op {
        name: "chmod",
        caps: &[cap::FSETID],
        alone: false,
        prepare: |w| {
            let fd = file(0, FOREIGN)?;
            let setgid = if w.refused { 0o755 } else { 0o2755 };
            Ok(Box::new(move || {
                must("fchmod 0600", sys::fchmod(fd, 0o600))?;
                has_mode(fd, 0o600)?;
                must("fchmod 02755", sys::fchmod(fd, 0o2755))?;
                has_mode(fd, setgid)
            }))
        },
        truth: |refused| {
            let asked = check(
                cap::FSETID,
                libc::SYS_fchmod,
                "setattr_prepare and setattr_copy",
            )
            .either(refused, 0)
            .times(2);
            Ok(vec![asked.clone().class(0o600), asked.class(0o2755)])
        },
    },
    Op {
        name: "chmod-foreign",
        caps: &[cap::FOWNER],
        alone: false,
        prepare: |w| {
            let fd = file(FOREIGN, 0)?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("fchmod", sys::fchmod(fd, 0o640), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::FOWNER, libc::SYS_fchmod, "inode_owner_or_capable")
                    .either(refused, EPERM)
                    .class(0o640),
            ])
        },
    },
    // Several capabilities in one system call.
    Op {
        name: "nested",
        caps: &[cap::FSETID],
        alone: false,
        prepare: |_| {
            let fd = file(FOREIGN, FOREIGN)?;
            Ok(Box::new(move || {
                must("fchmod", sys::fchmod(fd, 0o2711)).map(drop)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::FOWNER, libc::SYS_fchmod, "inode_owner_or_capable").class(0o2711),
                check(
                    cap::FSETID,
                    libc::SYS_fchmod,
                    "setattr_prepare and setattr_copy",
                )
                .either(refused, 0)
                .class(0o2711)
                .times(2),
            ])
        },
    },
    Op {
        name: "chown",
        caps: &[cap::CHOWN],
        alone: false,
        prepare: |w| {
            let fd = must("memfd_create", sys::memfd())?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("fchown", sys::fchown(fd, FOREIGN, FOREIGN), want)
            }))
        },
        truth: |refused| {
            // Refused for the user, the group is not asked about.
            let times = if refused { 1 } else { 2 };
            Ok(vec![
                check(cap::CHOWN, libc::SYS_fchown, "chown_ok, chgrp_ok")
                    .either(refused, EPERM)
                    .class(id::USER | id::GROUP)
                    .times(times),
            ])
        },
    },
    // A write to a setuid file: asked only where it decides; a refusal takes the bit.
    Op {
        name: "write-setuid",
        caps: &[cap::FSETID],
        alone: false,
        prepare: |w| {
            let fd = file(0, 0)?;
            let after = if w.refused { 0o755 } else { 0o4755 };
            Ok(Box::new(move || {
                must("fchmod", sys::fchmod(fd, 0o4755))?;
                must("write", sys::write(fd, b"x"))?;
                has_mode(fd, after)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::FSETID, libc::SYS_write, "setattr_should_drop_suidgid")
                    .either(refused, 0),
                check(
                    cap::FSETID,
                    libc::SYS_fchmod,
                    "one's own group is not asked about",
                )
                .times(0),
            ])
        },
    },
    Op {
        name: "setcap",
        caps: &[cap::SETFCAP],
        alone: false,
        prepare: |w| {
            let fd = must("memfd_create", sys::memfd())?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end(
                    "fsetxattr",
                    sys::fsetxattr(fd, c"security.capability", &FILE_CAPS),
                    want,
                )
            }))
        },
        truth: |refused| {
            // Against the inode, then against the file system's namespace.
            let times = if refused { 1 } else { 2 };
            Ok(vec![
                check(cap::SETFCAP, libc::SYS_fsetxattr, "cap_convert_nscap")
                    .either(refused, EPERM)
                    .class(xattr::CAPABILITY)
                    .times(times),
            ])
        },
    },
    // Refused reads of trusted.* say that there is nothing.
    Op {
        name: "trusted-xattr",
        caps: &[cap::SYS_ADMIN],
        alone: false,
        prepare: |w| {
            let fd = must("memfd_create", sys::memfd())?;
            must("fsetxattr", sys::fsetxattr(fd, c"trusted.workload", b"1"))?;
            let want = if w.refused { ENODATA } else { 0 };
            Ok(Box::new(move || {
                must_end("fgetxattr", sys::fgetxattr(fd, c"trusted.workload"), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SYS_ADMIN, libc::SYS_fgetxattr, "xattr_permission")
                    .either(refused, ENODATA)
                    .class(xattr::TRUSTED),
            ])
        },
    },
    Op {
        name: "mknod",
        caps: &[cap::MKNOD],
        alone: false,
        prepare: |w: &Worker| {
            let path = w.path("device")?;
            let refused = w.refused;
            Ok(Box::new(move || {
                let null = 0x103; // 1:3
                let got = sys::mknod(&path, libc::S_IFCHR | 0o600, null);
                must_end("mknod of a device", got, if refused { EPERM } else { 0 })?;
                if !refused {
                    must("unlink", sys::unlink(&path))?;
                }
                must(
                    "mknod of a whiteout",
                    sys::mknod(&path, libc::S_IFCHR | 0o600, 0),
                )?;
                must("unlink", sys::unlink(&path)).map(drop)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(
                    cap::MKNOD,
                    libc::SYS_mknod,
                    "vfs_mknod; a whiteout asks nothing",
                )
                .either(refused, EPERM)
                .class(libc::S_IFCHR | 0o600),
            ])
        },
    },
];
