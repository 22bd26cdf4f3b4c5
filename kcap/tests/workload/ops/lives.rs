//! Odd lives: leaders that end first, borrowed memory, violent ends, interrupted system calls.

use std::ffi::CString;
use std::sync::atomic::{AtomicI32, Ordering};

use kcap_common::abi::key::outcome::RESTARTED;
use libc::{O_NONBLOCK, O_RDONLY, O_WRONLY, SIGKILL, SIGUSR1, c_int, c_void};

use super::{Op, Worker, cap};
use crate::sys::{self, Res, must};
use crate::truth::{Expect, check};

extern "C" fn clock_once(_: *mut c_void) -> c_int {
    c_int::from(sys::settimeofday_nothing().is_err())
}

/// Where [`told`] writes; set in the child that handles the signal.
static TELL: AtomicI32 = AtomicI32::new(-1);

extern "C" fn told(_: c_int) {
    let _ = sys::write(TELL.load(Ordering::Relaxed), b"!");
}

/// A child that waits in `open` of a pipe with a name, which belongs to another and has no writer:
/// the check is made, then the call blocks.
struct Blocked {
    child: i32,
    hears: c_int,
}

fn fifo(w: &Worker) -> Res<CString> {
    let path = w.path("fifo")?;
    must("mknod", sys::mknod(&path, libc::S_IFIFO | 0o600, 0))?;
    let fd = must("open", sys::open(&path, O_RDONLY | O_NONBLOCK))?;
    must("fchown", sys::fchown(fd, 4242, 4242))?;
    sys::close(fd);
    Ok(path)
}

impl Blocked {
    fn start(path: &CString) -> Res<Self> {
        let (hears, tells) = must("pipe", sys::pipe())?;
        let child = sys::fork(|| {
            TELL.store(tells, Ordering::Relaxed);
            restart_on_usr1()?;
            must("write", sys::write(tells, b"."))?;
            must("open", sys::open(path, O_RDONLY)).map(drop)
        })?;
        sys::close(tells);
        let blocked = Self { child, hears };
        blocked.hear()?;
        Ok(blocked)
    }

    /// Waits for the child's word, and until it then sleeps: nothing but `open` makes it sleep.
    fn hear(&self) -> Res {
        if must("read", sys::read_byte(self.hears))? != 1 {
            return Err("the child ended before it waited".to_owned());
        }
        let path = format!("/proc/{}/stat", self.child);
        loop {
            let stat = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
            match stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.trim_start().chars().next())
            {
                Some('S') => return Ok(()),
                Some('Z' | 'X') | None => {
                    return Err("the child ended instead of waiting".to_owned());
                }
                Some(_) => std::thread::yield_now(),
            }
        }
    }

    fn end(self) -> Res<c_int> {
        sys::close(self.hears);
        sys::wait(self.child)
    }
}

/// SIGUSR1 is handled, and interrupted system calls go on after it.
fn restart_on_usr1() -> Res {
    // SAFETY: an all-zero `sigaction` is a value of the type; the handler makes one system call.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = told as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(SIGUSR1, &raw const action, std::ptr::null_mut())
    };
    if done == 0 {
        Ok(())
    } else {
        Err(format!("sigaction: errno {}", sys::errno()))
    }
}

fn interrupted() -> Expect {
    check(
        cap::DAC_READ_SEARCH,
        libc::SYS_openat,
        "asked, then interrupted while it waits",
    )
    .class(O_RDONLY as u32)
    .ends(RESTARTED.into())
}

fn asked_once() -> Vec<Expect> {
    vec![check(cap::SYS_TIME, libc::SYS_settimeofday, "cap_settime").class(0)]
}

pub const OPS: &[Op] = &[
    Op {
        name: "leader-first",
        caps: &[],
        alone: true,
        prepare: |_| {
            Ok(Box::new(|| {
                let leader_gone = |pid: i32| {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                    stat.is_ok_and(|stat| stat.contains(") Z "))
                };
                sys::wait_ok(sys::fork(|| {
                    std::thread::spawn(move || {
                        while !leader_gone(sys::getpid()) {
                            std::thread::yield_now();
                        }
                        sys::exit_group(clock_once(std::ptr::null_mut()))
                    });
                    sys::exit_thread()
                })?)
            }))
        },
        truth: |_| Ok(asked_once()),
    },
    Op {
        name: "vfork",
        caps: &[],
        alone: false,
        prepare: |_| {
            Ok(Box::new(|| {
                sys::wait_ok(must("clone", sys::vfork(0, clock_once))?)
            }))
        },
        truth: |_| Ok(asked_once()),
    },
    // Ends by SIGKILL right after its check.
    Op {
        name: "killed",
        caps: &[],
        alone: false,
        prepare: |_| {
            Ok(Box::new(|| {
                let child = sys::fork(|| {
                    must("settimeofday", sys::settimeofday_nothing())?;
                    must("kill", sys::kill(sys::getpid(), SIGKILL)).map(drop)
                })?;
                match sys::wait(child)? {
                    SIGKILL => Ok(()),
                    status => Err(format!("the child ended with wait status {status:#x}")),
                }
            }))
        },
        truth: |_| Ok(asked_once()),
    },
    // Ends by SIGKILL within the system call that asked.
    Op {
        name: "killed-inside",
        caps: &[],
        alone: true,
        prepare: |w| {
            let path = fifo(w)?;
            Ok(Box::new(move || {
                let blocked = Blocked::start(&path)?;
                must("kill", sys::kill(blocked.child, SIGKILL))?;
                match blocked.end()? {
                    SIGKILL => Ok(()),
                    status => Err(format!("the child ended with wait status {status:#x}")),
                }
            }))
        },
        truth: |_| Ok(vec![interrupted()]),
    },
    // Interrupted by a handled signal, and made again by the kernel: asked twice.
    Op {
        name: "restarted",
        caps: &[],
        alone: true,
        prepare: |w| {
            let path = fifo(w)?;
            Ok(Box::new(move || {
                let blocked = Blocked::start(&path)?;
                must("kill", sys::kill(blocked.child, SIGUSR1))?;
                blocked.hear()?;
                let writer = must("open", sys::open(&path, O_WRONLY | O_NONBLOCK))?;
                let status = blocked.end();
                sys::close(writer);
                match status? {
                    0 => Ok(()),
                    status => Err(format!("the child ended with wait status {status:#x}")),
                }
            }))
        },
        truth: |_| {
            Ok(vec![
                interrupted(),
                check(
                    cap::DAC_READ_SEARCH,
                    libc::SYS_openat,
                    "asked again after the signal",
                )
                .class(O_RDONLY as u32),
            ])
        },
    },
];
