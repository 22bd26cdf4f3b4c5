//! Checks that a compiler may inline into their callers, where hooks on `cap_capable` do not see
//! them. The loader attaches these only where it has found that the check is missing; the condition
//! of each is the one in security/commoncap.c of 6.1 to 6.12, and the credentials are the task's own.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use kcap_common::abi::{key::site, record::INLINED_BUCKETS};

use super::check::{self, Check, Subject, Table};
use crate::{
    flush,
    globals::{field, setting},
    mem::{Mem, Typed},
    tally::INLINED,
};

const CAP_SETPCAP: u8 = 8;
const CAP_SYS_RAWIO: u8 = 17;
const PR_SET_SECUREBITS: u64 = 28;
const SECURE_ALL_BITS: u64 = 0x55;
const SECURE_ALL_LOCKS: u64 = SECURE_ALL_BITS << 1;

/// Where the counts of a site begin.
#[inline(always)]
fn base(site: u8) -> u32 {
    (u32::from(site) - 1) * INLINED_BUCKETS
}

/// The current task, where it is in scope. kcap's own asks for counts by this.
#[inline(always)]
fn subject(site: u8) -> Option<Subject> {
    let (subject, tgid) = Subject::of_current();
    if subject.entry == 0 {
        flush::asked_inlined(tgid, site, &INLINED, base(site));
        return None;
    }
    Some(subject)
}

#[inline(always)]
fn seen(ctx: *mut c_void, subject: Subject, cap: u8, site: u8, initial: bool) {
    let cred = Typed::ptr(subject.task, field!(task_cred));
    let own = Typed::ptr(cred, field!(cred_user_ns));
    // Asked of the initial namespace, or of the credentials' own. Without an address for the
    // initial one at hand: credentials below it are refused, others are in it.
    let refused_by_level = initial && Typed::u32(own, field!(ns_level)) != 0;
    let raised = Typed::u64(cred, field!(cred_effective)) >> cap & 1 != 0;
    let check = Check {
        cred,
        target: own,
        cap,
        result: Some(u8::from(refused_by_level || !raised)),
        options: 0,
        site,
    };
    let table = Table {
        map: &INLINED,
        base: base(site),
        mask: INLINED_BUCKETS - 1,
    };
    check::record::<Typed>(ctx, subject, &check, &table);
}

/// `cap_capset`: `cap_inh_is_capped()` asks SETPCAP at every call.
#[inline(always)]
fn capset(ctx: *mut c_void) {
    if let Some(subject) = subject(site::CAPSET) {
        seen(ctx, subject, CAP_SETPCAP, site::CAPSET, false);
    }
}

/// `cap_task_prctl(option, arg2, …)`: PR_SET_SECUREBITS asks SETPCAP unless an earlier condition has
/// refused already.
#[inline(always)]
fn prctl(ctx: *mut c_void, option: u64, bits: u64) {
    if option as u32 as u64 != PR_SET_SECUREBITS {
        return;
    }
    if let Some(subject) = subject(site::PRCTL) {
        let cred = Typed::ptr(subject.task, field!(task_cred));
        let old = u64::from(Typed::u32(cred, field!(cred_securebits)));
        let refused = (((old & SECURE_ALL_LOCKS) >> 1) & (old ^ bits)) != 0
            || (old & SECURE_ALL_LOCKS & !bits) != 0
            || (bits & !(SECURE_ALL_LOCKS | SECURE_ALL_BITS)) != 0;
        if !refused {
            seen(ctx, subject, CAP_SETPCAP, site::PRCTL, false);
        }
    }
}

/// `cap_mmap_addr(addr)`: below `dac_mmap_min_addr`, SYS_RAWIO of the initial namespace.
#[inline(always)]
fn mmap_addr(ctx: *mut c_void, addr: u64) {
    if addr >= setting!(mmap_min_addr) {
        return;
    }
    if let Some(subject) = subject(site::MMAP_ADDR) {
        seen(ctx, subject, CAP_SYS_RAWIO, site::MMAP_ADDR, true);
    }
}

#[fentry(function = "cap_capset")]
pub fn kcap_capset_f(ctx: FEntryContext) -> i32 {
    capset(ctx.as_ptr());
    0
}

#[fentry(function = "cap_task_prctl")]
pub fn kcap_prctl_f(ctx: FEntryContext) -> i32 {
    prctl(ctx.as_ptr(), ctx.arg(0), ctx.arg(1));
    0
}

#[fentry(function = "cap_mmap_addr")]
pub fn kcap_mmap_f(ctx: FEntryContext) -> i32 {
    mmap_addr(ctx.as_ptr(), ctx.arg(0));
    0
}

#[kprobe(function = "cap_capset")]
pub fn kcap_capset_k(ctx: ProbeContext) -> u32 {
    capset(ctx.as_ptr());
    0
}

#[kprobe(function = "cap_task_prctl")]
pub fn kcap_prctl_k(ctx: ProbeContext) -> u32 {
    prctl(
        ctx.as_ptr(),
        ctx.arg(0).unwrap_or(0),
        ctx.arg(1).unwrap_or(0),
    );
    0
}

#[kprobe(function = "cap_mmap_addr")]
pub fn kcap_mmap_k(ctx: ProbeContext) -> u32 {
    mmap_addr(ctx.as_ptr(), ctx.arg(0).unwrap_or(u64::MAX));
    0
}
