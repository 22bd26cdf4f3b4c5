//! Processes moved into a cgroup that defines the scope: `cgroup:cgroup_attach_task`.

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use kcap_common::abi::{
    loss,
    record::{Enter, TREE, how, kind},
};

use crate::{
    globals::{self, field},
    mem::{Mem, Ptr, Typed},
    scope, tally,
};

/// Giver of generations, see [`scope::generation`].
const GIVER: u32 = 1;

/// `(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn kcap_attach(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Ptr = ctx.arg(0);
    let task: Ptr = ctx.arg(2);
    let tgid = Typed::u32(task, field!(task_tgid));
    // One that is in scope stays what it is, wherever it is moved.
    if scope::of(tgid) == 0
        && scope::in_hierarchy(cgroup)
        && let Some(session) = scope::session(cgroup)
    {
        debug!(&ctx, "process {} enters session {}", tgid, session);
        enter(task, tgid, session, how::CGROUP, GIVER);
    }
    0
}

/// Takes a process into the scope of a session; gives its generation, 0 where it cannot be followed.
/// The record is reserved before anything can be counted under the generation, so that userspace
/// knows whose it is.
#[inline(always)]
pub fn enter(task: Ptr, tgid: u32, session: u64, how: u32, giver: u32) -> u32 {
    let generation = scope::generation(giver);
    let Some(mut entry) = tally::RING.reserve::<Enter>(0) else {
        globals::count(loss::EXECS, 1);
        return if scope::set(tgid, generation) {
            generation
        } else {
            0
        };
    };
    let e = entry.as_mut_ptr();
    // SAFETY: the reserved record, written whole; the helper checks its source.
    unsafe {
        (*e).kind = kind::ENTER;
        (*e).program = generation;
        (*e).tgid = tgid;
        (*e).how = how;
        (*e).session = if session == TREE {
            TREE | generation as u64
        } else {
            session
        };
        (*e).time = bpf_ktime_get_ns();
        bpf_probe_read_kernel(
            (&raw mut (*e).comm).cast(),
            16,
            task.wrapping_byte_add(field!(task_comm)).cast(),
        );
    }
    let followed = scope::set(tgid, generation);
    entry.submit(tally::wakeup());
    if followed {
        generation
    } else {
        globals::count(loss::SCOPE, 1);
        0
    }
}
