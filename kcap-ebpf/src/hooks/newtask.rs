//! Every new task, before it runs: `task:task_newtask` fires at the end of `copy_process`, for
//! io_uring workers and user workers too, which `sched_process_fork` does not announce.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use kcap_common::abi::{
    loss,
    record::{Fork, how, kind},
};

use super::attach;
use crate::{
    globals::{self, field, setting},
    mem::{Mem, Ptr, Typed},
    scope::{self, CLONE_INTO_CGROUP, CLONE_THREAD},
    tally,
};

/// Giver of generations, see [`scope::generation`].
const GIVER: u32 = 0;

/// `(struct task_struct *task, u64 clone_flags)`.
#[btf_tracepoint(function = "task_newtask")]
pub fn kcap_newtask(ctx: BtfTracePointContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let flags: u64 = ctx.arg(1);
    if flags & CLONE_THREAD != 0 {
        return 0;
    }
    // SAFETY: no arguments; never null.
    let parent = unsafe { bpf_get_current_task_btf() } as Ptr;
    let tgid = Typed::u32(task, field!(task_tgid));
    let above = scope::of(Typed::u32(parent, field!(task_tgid)));
    if above == 0 {
        // Where sessions open by themselves, their cgroups can hold processes that were there before.
        if (flags & CLONE_INTO_CGROUP != 0 || setting!(open) != 0)
            && let Some(session) = scope::session(scope::cgroup(task))
        {
            attach::enter(task, tgid, session, how::CGROUP, GIVER);
        } else if scope::of(tgid) != 0 {
            // The id had a holder in scope.
            scope::set(tgid, 0);
        }
        return 0;
    }
    let generation = scope::generation(GIVER);
    // A child of the executor is the executor until it executes something else. It does not run yet,
    // so that nothing is counted under its generation before the record is there.
    if !scope::set(tgid, generation | (above & scope::SLICED)) {
        globals::count(loss::SCOPE, 1);
        return 0;
    }
    let Some(mut record) = tally::RING.reserve::<Fork>(0) else {
        globals::count(loss::EXECS, 1);
        return 0;
    };
    record.write(Fork {
        kind: kind::FORK,
        program: generation,
        parent: scope::program(above),
        tgid,
        // SAFETY: no arguments.
        time: unsafe { bpf_ktime_get_ns() },
        flags,
    });
    record.submit(tally::wakeup());
    0
}
