//! The end of a process in scope: `sched:sched_process_exit` of its last thread. The first thread
//! can end before others, so the end is where `signal->live` has reached 0; two last threads that
//! race may both say so, and userspace keeps the first.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use kcap_common::abi::{
    loss,
    record::{Exit, kind},
};

use crate::{
    globals::{self, field},
    mem::{Mem, Probed, Ptr, Typed},
    scope, tally,
};

/// `SIGNAL_GROUP_EXIT` (include/linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `(struct task_struct *p)`, since 6.16 `(struct task_struct *p, bool group_dead)`.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn kcap_exit(ctx: BtfTracePointContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let tgid = Typed::u32(task, field!(task_tgid));
    let entry = scope::of(tgid);
    if entry == 0 {
        return 0;
    }
    let signal = Probed::ptr(task, field!(task_signal));
    if Probed::u32(signal, field!(signal_live)) != 0 {
        return 0;
    }
    let leader = Probed::ptr(task, field!(task_group_leader));
    // As wait_task_zombie reports it.
    let status = if Probed::u32(signal, field!(signal_flags)) & SIGNAL_GROUP_EXIT != 0 {
        Probed::u32(signal, field!(signal_group_exit_code))
    } else {
        Probed::u32(leader, field!(task_exit_code))
    };
    let parent = Probed::ptr(leader, field!(task_real_parent));
    let ptgid = Probed::u32(parent, field!(task_tgid));
    let Some(mut record) = tally::RING.reserve::<Exit>(0) else {
        globals::count(loss::EXECS, 1);
        return 0;
    };
    record.write(Exit {
        kind: kind::EXIT,
        program: scope::program(entry),
        tgid,
        status,
        // SAFETY: no arguments.
        time: unsafe { bpf_ktime_get_ns() },
        parent: scope::program(scope::of(ptgid)),
        ptgid,
    });
    record.submit(tally::wakeup());
    0
}
