//! Signals to another user's processes.

use std::os::fd::{FromRawFd, OwnedFd};

use kcap_common::decide::argclass::signal;
use libc::{EPERM, SIGURG};

use super::{Op, cap};
use crate::sys::{self, Res, must, must_end};
use crate::truth::check;

/// Another user's processes in a group of their own. They end when the write end of their pipe is
/// closed, since killing them would be a check.
struct Targets {
    leader: i32,
    _lifeline: OwnedFd,
}

fn targets(count: usize) -> Res<Targets> {
    let (lifeline, hold) = must("pipe", sys::pipe())?;
    let (ready, tell) = must("pipe", sys::pipe())?;
    let mut leader = 0;
    for _ in 0..count {
        let child = sys::fork(|| {
            // Forked beside other workers, it holds their write ends, too: a circle that never ends.
            sys::keep_only(lifeline, tell)?;
            must("setpgid", sys::setpgid(0, leader))?;
            must("setresuid", sys::setresuid(1000, 1000, 1000))?;
            must("write", sys::write(1, b"."))?;
            must("read", sys::read_byte(0)).map(drop)
        })?;
        if leader == 0 {
            leader = child;
        }
        if must("read", sys::read_byte(ready))? != 1 {
            return Err("a target ended before it was ready".to_owned());
        }
    }
    sys::close(lifeline);
    sys::close(ready);
    sys::close(tell);
    // SAFETY: `hold` is open and owned by nothing else.
    let lifeline = unsafe { OwnedFd::from_raw_fd(hold) };
    Ok(Targets {
        leader,
        _lifeline: lifeline,
    })
}

const CLASS: u32 = (SIGURG as u32) << signal::SHIFT;
/// Processes in the group of `kill-group`.
const GROUP: usize = 3;

pub const OPS: &[Op] = &[
    Op {
        name: "kill",
        caps: &[cap::KILL],
        alone: false,
        prepare: |w| {
            let targets = targets(1)?;
            let want = if w.refused { EPERM } else { 0 };
            // SIGURG, which is ignored unless handled.
            Ok(Box::new(move || {
                must_end("kill", sys::kill(targets.leader, SIGURG), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::KILL, libc::SYS_kill, "kill_ok_by_cred")
                    .either(refused, EPERM)
                    .class(CLASS | signal::ONE),
            ])
        },
    },
    // The same check several times in one system call.
    Op {
        name: "kill-group",
        caps: &[cap::KILL],
        alone: false,
        prepare: |w| {
            let targets = targets(GROUP)?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end("kill", sys::kill(-targets.leader, SIGURG), want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(
                    cap::KILL,
                    libc::SYS_kill,
                    "kill_ok_by_cred, for each of the group",
                )
                .either(refused, EPERM)
                .class(CLASS | signal::GROUP)
                .times(GROUP as u64),
            ])
        },
    },
];
