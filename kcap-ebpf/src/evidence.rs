//! Samples that explain tallies: taken at the first few sightings of a key and then at powers of
//! two. A stack costs some 2 µs, so none is taken in the hot path.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_comm, bpf_get_stack, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, LruHashMap},
};
use core::ffi::c_void;
use kcap_common::abi::{
    Key, loss,
    record::{Evidence, STACK_DEPTH, kind},
};

use crate::{globals, mem::Ptr, syscall, tally};

/// Sightings by key without program and slice: what a sample explains does not depend on them. Those of
/// the time since a session opened last: each has samples of its own, however many were before.
#[map]
static SEEN: LruHashMap<[u64; 3], u64> = LruHashMap::with_max_entries(16384, 0);

/// How many sessions were opened.
#[map]
static OPENED: Array<u64> = Array::with_max_entries(1, 0);

/// Another session opens.
#[inline(always)]
pub fn begin() {
    if let Some(opened) = OPENED.get_ptr_mut(0) {
        // SAFETY: an aligned word in a map value. Two that open at once may count as one, and share
        // their beginning.
        unsafe { opened.write_volatile(opened.read_volatile() + 1) };
    }
}

/// Called where a table entry's count has reached a power of two: takes a sample where the key's
/// sightings have, too.
#[inline(never)]
pub fn sample(ctx: *mut c_void, key: &[u64; 3], regs: Ptr, tid: u32, target_ns: u32) -> u64 {
    let opened = match OPENED.get(0) {
        Some(opened) => *opened,
        None => 0,
    };
    let bare = [opened, key[1], key[2]];
    let n = match SEEN.get_ptr_mut(bare) {
        Some(n) => {
            // SAFETY: a map value. CPUs may lose a count to each other: it only spaces samples.
            unsafe {
                *n += 1;
                *n
            }
        }
        None => {
            if SEEN.insert(bare, 1, 0).is_err() {
                globals::count(loss::EVIDENCE, 1);
                return 0;
            }
            1
        }
    };
    // The first four, then powers of two.
    if n > 4 && n & (n - 1) != 0 {
        return 0;
    }
    let Some(mut entry) = tally::RING.reserve::<Evidence>(0) else {
        globals::count(loss::EVIDENCE, 1);
        return 0;
    };
    let e = entry.as_mut_ptr();
    // SAFETY: `e` is the reserved record, written whole: the stack by the helper, which zeroes what
    // it does not fill, and all else here.
    unsafe {
        (*e).kind = kind::EVIDENCE;
        (*e).key = Key::from_words(*key);
        (*e).time = bpf_ktime_get_ns();
        (*e).args = syscall::args(regs);
        (*e).tid = tid;
        (*e).target_ns = target_ns;
        bpf_get_current_comm((&raw mut (*e).comm).cast(), 16);
        let bytes = bpf_get_stack(
            ctx,
            (&raw mut (*e).stack).cast(),
            (8 * STACK_DEPTH) as u32,
            0,
        );
        (*e).depth = if bytes > 0 { (bytes / 8) as u32 } else { 0 };
    }
    entry.submit(tally::wakeup());
    1
}
