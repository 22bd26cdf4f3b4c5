//! Every check that reaches `cap_capable` (security/commoncap.c), by the best hook that the kernel
//! has. The loader attaches one of the three.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fexit, kprobe},
    programs::{BtfTracePointContext, FExitContext, ProbeContext},
};
use kcap_common::abi::key::site;

use super::check::{self, Check, Subject, Table};
use crate::{
    flush,
    globals::setting,
    mem::{Mem, Probed, Ptr, Typed},
    tally::TALLIES,
};

#[inline(always)]
fn table() -> Table {
    Table {
        map: &TALLIES,
        base: 0,
        mask: setting!(tally_mask),
    }
}

#[inline(always)]
fn errno(ret: i32) -> u8 {
    // cap_capable knows 0 and -EPERM.
    if ret == 0 { 0 } else { (-ret) as u8 }
}

#[inline(always)]
fn seen<M: Mem>(ctx: *mut core::ffi::c_void, check: impl FnOnce() -> Check) {
    let (subject, tgid) = Subject::of_current();
    if subject.entry == 0 {
        flush::asked(subject.task, tgid, &TALLIES);
    } else {
        let check = check();
        check::verify::<M>(&check);
        check::record::<M>(ctx, subject, &check, &table());
    }
}

/// `capability:cap_capable`, 6.14 on: `(const struct cred *cred, struct user_namespace *target_ns,
/// const struct user_namespace *capable_ns, int cap, int ret)`. Runs with preemption off up to 6.19.
#[btf_tracepoint(function = "cap_capable")]
pub fn kcap_tp(ctx: BtfTracePointContext) -> i32 {
    seen::<Typed>(ctx.as_ptr(), || Check {
        cred: ctx.arg::<Ptr>(0),
        target: ctx.arg::<Ptr>(1),
        cap: ctx.arg::<i32>(3) as u8,
        result: Some(errno(ctx.arg::<i32>(4))),
        options: 0,
        site: site::CAPABLE,
    });
    0
}

/// Exit of `int cap_capable(const struct cred *cred, struct user_namespace *targ_ns, int cap,
/// unsigned int opts)`; the result is the argument after the last, read so because aya's accessor
/// meets a verifier bug up to 6.7 that can prune the branch of success.
#[fexit(function = "cap_capable")]
pub fn kcap_fexit(ctx: FExitContext) -> i32 {
    seen::<Typed>(ctx.as_ptr(), || Check {
        cred: ctx.arg::<Ptr>(0),
        target: ctx.arg::<Ptr>(1),
        cap: ctx.arg::<i32>(2) as u8,
        result: Some(errno(ctx.arg::<i32>(4))),
        options: ctx.arg::<u32>(3),
        site: site::CAPABLE,
    });
    0
}

/// Entry of the same function; the result is computed. No kretprobe: its pool can run dry unseen.
#[kprobe(function = "cap_capable")]
pub fn kcap_kprobe(ctx: ProbeContext) -> u32 {
    seen::<Probed>(ctx.as_ptr(), || Check {
        cred: ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()),
        target: ctx.arg::<*const u8>(1).unwrap_or(core::ptr::null()),
        cap: ctx.arg::<u64>(2).unwrap_or(0) as u8,
        result: None,
        options: ctx.arg::<u64>(3).unwrap_or(0) as u32,
        site: site::CAPABLE,
    });
    0
}
