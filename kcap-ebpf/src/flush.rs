//! Handing over counts while tracing goes on, so that a build that has ended can be reported while
//! others run. Userspace may not touch a table that a program writes, so it asks the program that
//! owns it: with `sethostname(from, -1)`, on each CPU. The kernel asks for SYS_ADMIN first, which is
//! where the hook hands over; then it refuses the length, and `sys_exit` hands over its own.

use aya_ebpf::maps::PerCpuArray;
use kcap_common::abi::{
    loss,
    record::{Bucket, FLUSHED},
};

use crate::{
    globals::{self, field, setting},
    mem::{Mem, Ptr, Typed},
    syscall, tally,
};

/// `sethostname`, on x86-64.
pub const SETHOSTNAME: u64 = 170;

/// Hands over a part of the hook's table where the current task, of this process, asks for it.
#[inline(always)]
pub fn asked(task: Ptr, tgid: u32, table: &PerCpuArray<Bucket>) {
    if setting!(flusher) == 0 || tgid != setting!(flusher) {
        return;
    }
    let call = syscall::current(task);
    if u64::from(call.nr) == SETHOSTNAME {
        part(table, Typed::u64(call.regs, field!(regs_a0)) as u32);
    }
}

/// Hands over the entries of [`FLUSHED`] buckets. What the ring buffer has no room for stays, and is
/// counted.
#[inline(never)]
pub fn part(table: &PerCpuArray<Bucket>, from: u32) -> u64 {
    let mut i = 0;
    while i < FLUSHED {
        if let Some(bucket) = table.get_ptr_mut(from.wrapping_add(i)) {
            // SAFETY: a map value of this CPU, which the calling program alone writes.
            let bucket = unsafe { &mut *bucket };
            for entry in &mut bucket.entries {
                if entry.count == 0 {
                    continue;
                }
                if tally::hand_over(entry) {
                    entry.key = [0; 3];
                    entry.count = 0;
                } else {
                    globals::count(loss::LEFT, 1);
                }
            }
        }
        i += 1;
    }
    0
}
