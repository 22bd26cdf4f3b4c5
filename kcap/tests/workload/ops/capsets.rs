//! Capability sets, the bounding set and securebits. Some kernels inline `cap_capable` into these.

use kcap_common::decide::argclass::capset_bits;
use libc::{EPERM, PR_CAPBSET_DROP, PR_SET_SECUREBITS};

use super::{Op, cap};
use crate::sys::{self, Sets, must, must_end};
use crate::truth::check;

pub const OPS: &[Op] = &[
    Op {
        name: "bounding-drop",
        caps: &[cap::SETPCAP],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end(
                    "PR_CAPBSET_DROP",
                    sys::prctl(PR_CAPBSET_DROP, cap::WAKE_ALARM.into(), 0),
                    want,
                )
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SETPCAP, libc::SYS_prctl, "cap_prctl_drop")
                    .either(refused, EPERM)
                    .class(PR_CAPBSET_DROP as u32),
            ])
        },
    },
    Op {
        name: "securebits",
        caps: &[cap::SETPCAP],
        alone: false,
        prepare: |w| {
            let held = must(
                "PR_GET_SECUREBITS",
                sys::prctl(libc::PR_GET_SECUREBITS, 0, 0),
            )?;
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                must_end(
                    "PR_SET_SECUREBITS",
                    sys::prctl(PR_SET_SECUREBITS, held as u64, 0),
                    want,
                )
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SETPCAP, libc::SYS_prctl, "cap_task_prctl")
                    .either(refused, EPERM)
                    .class(PR_SET_SECUREBITS as u32),
            ])
        },
    },
    // Every capset asks, whatever it sets: one's own sets again, which nothing refuses. Giving up
    // SETPCAP for the refused ones is itself a granted one, counted by a result of its own.
    Op {
        name: "capset",
        caps: &[cap::SETPCAP],
        alone: false,
        prepare: |_| {
            let mut held: Option<Sets> = None;
            Ok(Box::new(move || {
                let sets = match held {
                    Some(sets) => sets,
                    None => *held.insert(must("capget", sys::capget())?),
                };
                must("capset", sys::capset(sets)).map(drop)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::SETPCAP, libc::SYS_capset, "cap_inh_is_capped")
                    .either(refused, 0)
                    .class(0)
                    .narrow(),
            ])
        },
    },
    // An inheritable set that grows past the permitted one: the only capset that SETPCAP decides.
    Op {
        name: "capset-inheritable",
        caps: &[cap::SETPCAP],
        alone: false,
        prepare: |w| {
            sys::give_up(&[cap::WAKE_ALARM])?;
            let grown = 1 << cap::WAKE_ALARM;
            let refused = w.refused;
            Ok(Box::new(move || {
                let held = must("capget", sys::capget())?;
                let more = Sets {
                    inheritable: held.inheritable | grown,
                    ..held
                };
                must_end("capset", sys::capset(more), if refused { EPERM } else { 0 })?;
                if !refused {
                    must("capset", sys::capset(held))?;
                }
                Ok(())
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(
                    cap::SETPCAP,
                    libc::SYS_capset,
                    "inheritable above permitted",
                )
                .either(refused, EPERM)
                .class(capset_bits::INHERITABLE)
                .narrow(),
            ])
        },
    },
];
