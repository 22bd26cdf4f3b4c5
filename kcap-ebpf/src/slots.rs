//! The open checks of system calls under way, until `sys_exit` says what became of them.
//!
//! A slot is owned by the address of the thread's saved registers: unique among living threads, the
//! same for all its system calls, and an argument of `sys_exit`, so that finding the slot there needs
//! no helper. Two threads that share a slot are told apart by a compare-and-swap; the later one's
//! outcomes are then unknown, and counted as such.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{macros::map, maps::Array};
use kcap_common::abi::record::{OPEN, Slot};

use crate::{
    globals::{FIELDS, setting},
    mem::{Ptr, opaque},
    tally,
};

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(2048, 0);

/// A number for the thread whose registers are saved at `regs`. The difference of two pointers is
/// the one way to make a number of a typed pointer that the verifier admits; the other is constant.
#[inline(always)]
pub fn owner(regs: Ptr) -> u64 {
    (regs as u64).wrapping_sub((&raw const FIELDS) as u64)
}

/// The slot that `owner` would use.
#[inline(always)]
pub fn of(owner: u64) -> Option<*mut Slot> {
    // Kernel stacks are at least 16 KiB apart.
    let hash = (owner >> 14).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    SLOTS.get_ptr_mut(hash as u32 & setting!(slot_mask))
}

/// Remembers one check of `key` until the system call ends; false where there is no room.
#[inline(always)]
pub fn open(owner: u64, tid: u32, key: &[u64; 3]) -> bool {
    let Some(slot) = of(owner) else {
        return false;
    };
    // SAFETY: a map value; fields other than `owner` are touched by the owner only.
    let slot = unsafe { &mut *slot };
    // SAFETY: a plain load of a word that others change by compare-and-swap or by storing 0.
    let current = unsafe { (&raw const slot.owner).read_volatile() };
    if current != owner {
        if current != 0 || !claim(&raw mut slot.owner, owner) {
            return false;
        }
        slot.used = 0;
        slot.tid = tid;
    } else if slot.tid != tid {
        // The former owner of this stack ended within a system call.
        slot.used = 0;
        slot.tid = tid;
    }
    let used = u64::from(slot.used);
    let mut i = 0;
    while i < OPEN {
        let open = &mut slot.open[i];
        // All ones beyond the entries in use.
        let beyond = ((used as i64 - 1 - i as i64) >> 63) as u64;
        if tally::difference(&open.key, key) | beyond == 0 {
            open.count += 1;
            return true;
        }
        i += 1;
    }
    let Some(open) = slot.open.get_mut(opaque(used) as usize) else {
        return false;
    };
    open.key = *key;
    open.count = 1;
    slot.used = used as u32 + 1;
    true
}

/// Puts `new` where there is 0; false where there was something else.
#[inline(always)]
fn claim(word: *mut u64, new: u64) -> bool {
    let previous: u64;
    // SAFETY: `word` is an aligned map value; the instruction (v3, 5.12 on) is atomic.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inlateout("r0") 0u64 => previous,
        );
    }
    previous == 0
}

/// Gives the slot back. Only its owner may. Whoever claims it next empties it: a store to it that
/// came after this one would undo theirs.
#[inline(always)]
pub fn release(slot: &mut Slot) {
    compiler_fence(Ordering::Release);
    // SAFETY: a plain store of an aligned word.
    unsafe { (&raw mut slot.owner).write_volatile(0) };
}
