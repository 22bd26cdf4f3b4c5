//! Handing over counts while tracing goes on, so that a build that has ended can be reported while
//! others run. Userspace may not touch a table that a program writes, so it asks the program that
//! owns it: with `sethostname(from, -1)`, on each CPU. The kernel asks for SYS_ADMIN first, which is
//! where the hook hands over; then it refuses the length, and `sys_exit` hands over its own. Programs
//! that see an inlined check are asked by making that check.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use kcap_common::abi::{
    loss,
    record::{Bucket, FLUSHED, INLINED_BUCKETS},
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

/// Where each program that sees an inlined check goes on, by its site.
#[map]
static NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(4, 0);

/// Hands over the next part of such a program's table, from `base`, where kcap asks for it: its checks
/// carry no number.
#[inline(always)]
pub fn asked_inlined(tgid: u32, site: u8, table: &PerCpuArray<Bucket>, base: u32) {
    if setting!(flusher) == 0 || tgid != setting!(flusher) {
        return;
    }
    let Some(next) = NEXT.get_ptr_mut(u32::from(site)) else {
        return;
    };
    // SAFETY: a map value of this CPU, which the calling program alone writes.
    let from = unsafe {
        let from = *next & (INLINED_BUCKETS - 1);
        *next = from + FLUSHED;
        from
    };
    part(table, base + from);
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
    globals::count(loss::PARTS, 1);
    0
}
