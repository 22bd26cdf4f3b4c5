//! Checks around `execve`: before and after it, by a thread that is not the leader, by a program
//! that has its capability from its file.

use std::ffi::{CStr, CString};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::files::FILE_CAPS;
use super::network::CLASS_RAW;
use super::{Op, Worker, cap};
use crate::sys::{self, Res, must};
use crate::truth::{Expect, check};

/// The name that a program is executed under, so that its checks are told from those before.
const AFTER: &str = "after-exec";
/// The name of the program with file capabilities.
const CAPABLE: &str = "capable";

/// Another name of this program.
fn after(w: &Worker) -> Res<CString> {
    let path = w.dir.join(AFTER);
    let target = std::path::Path::new(w.exe.to_str().map_err(|e| e.to_string())?);
    match symlink(target, &path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(format!("{}: {e}", path.display())),
        _ => sys::c_path(&path),
    }
}

/// A copy of this program with capabilities, in a folder of the worker's own.
pub fn capable(w: &Worker) -> Res<CString> {
    let told = |e: std::io::Error| format!("a copy of the program in {}: {e}", w.dir.display());
    let dir = w.dir.join(format!("bin-{}-{}", w.index, sys::getpid()));
    std::fs::create_dir(&dir).map_err(told)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).map_err(told)?;
    let path = dir.join(CAPABLE);
    std::fs::copy(w.exe.to_str().map_err(|e| e.to_string())?, &path).map_err(told)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(told)?;
    let file = std::fs::File::open(&path).map_err(told)?;
    let value = &FILE_CAPS;
    must(
        "fsetxattr",
        sys::fsetxattr(file.as_raw_fd(), c"security.capability", value),
    )?;
    sys::c_path(&path)
}

/// Executes this program under `path` to perform one of [`inner`].
fn become_inner(path: &CStr, what: &CStr) -> Res {
    let errno = sys::exec(path, &[c"workload", c"--inner", what]);
    must("execve", Err(errno))
}

/// What this program does where another operation executes it.
pub fn inner(what: &str) -> Res {
    match what {
        "clock" => must("settimeofday", sys::settimeofday_nothing()).map(drop),
        "raw" => {
            let got = sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
            must("socket", got).map(drop)
        }
        other => Err(format!("{other}: this program must not have been executed")),
    }
}

fn before_and_after() -> Vec<Expect> {
    vec![
        check(cap::SYS_CHROOT, libc::SYS_chroot, "before execve").by("workload"),
        check(cap::SYS_TIME, libc::SYS_settimeofday, "after execve").by(AFTER),
    ]
}

pub const OPS: &[Op] = &[
    Op {
        name: "exec",
        caps: &[],
        alone: false,
        prepare: |w| {
            let path = after(w)?;
            Ok(Box::new(move || {
                sys::wait_ok(sys::fork(|| {
                    must("chroot", sys::chroot(c"/"))?;
                    become_inner(&path, c"clock")
                })?)
            }))
        },
        truth: |_| Ok(before_and_after()),
    },
    // The thread takes over the leader's id, and the leader is gone.
    Op {
        name: "thread-exec",
        caps: &[],
        alone: true,
        prepare: |w| {
            let path = after(w)?;
            Ok(Box::new(move || {
                let path = path.clone();
                sys::wait_ok(sys::fork(|| {
                    let thread = std::thread::spawn(move || {
                        must("chroot", sys::chroot(c"/"))?;
                        become_inner(&path, c"clock")
                    });
                    thread
                        .join()
                        .map_err(|_| "the thread panicked".to_owned())?
                })?)
            }))
        },
        truth: |_| Ok(before_and_after()),
    },
    // Another user's program has NET_RAW from its file alone.
    Op {
        name: "file-caps",
        caps: &[],
        alone: true,
        prepare: |w| {
            let path = capable(w)?;
            Ok(Box::new(move || {
                sys::wait_ok(sys::fork(|| {
                    must("setresuid", sys::setresuid(1000, 1000, 1000))?;
                    become_inner(&path, c"raw")
                })?)
            }))
        },
        truth: |_| {
            Ok(vec![
                check(cap::NET_RAW, libc::SYS_socket, "inet_create, after execve")
                    .class(CLASS_RAW)
                    .by(CAPABLE),
            ])
        },
    },
];
