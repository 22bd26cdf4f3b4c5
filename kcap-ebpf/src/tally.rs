//! Exact counts: a per-CPU open table of buckets, no hash map in the hot path. A full bucket makes
//! room by handing one entry to userspace through the ring buffer, which adds it up; what remains is
//! read from the table after the programs are detached. Nothing is bounded but the rate.
//!
//! Each table is written by one program only: programs that may be preempted (from 7.0 on, or
//! `fexit` on a fully preemptible kernel) cannot then tear each other's entries, because the kernel
//! never runs the same program twice on one CPU at a time, and counts where it skips one for that.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use kcap_common::abi::{
    Key,
    record::{Bucket, Entry, INLINED_BUCKETS, Tally, WAYS, kind},
};

use crate::{globals, mem::opaque};

/// Everything that goes to userspace while tracing. Its size is set by the loader.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Counts of checks, by [`crate::hooks::cap_capable`].
#[map]
pub static TALLIES: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(1024, 0);

/// Counts of failed outcomes and of needs that ask nothing, by [`crate::hooks::sys_exit`].
#[map]
pub static OUTCOMES: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(256, 0);

/// Counts of inlined checks, [`INLINED_BUCKETS`] a program, by [`crate::hooks::inlined`].
#[map]
pub static INLINED: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(3 * INLINED_BUCKETS, 0);

/// Wakes userspace, whether or not it has caught up (`BPF_RB_FORCE_WAKEUP`).
pub const FORCE_WAKEUP: u64 = 2;

/// Userspace is woken early once a quarter of the ring buffer is in use; below that it comes by
/// itself, and a wake-up would cost the traced program.
#[inline(always)]
pub fn wakeup() -> u64 {
    const NO_WAKEUP: u64 = 1;
    const AVAIL_DATA: u64 = 0;
    const RING_SIZE: u64 = 1;
    let left = RING.query(RING_SIZE) as i64 - 4 * RING.query(AVAIL_DATA) as i64;
    // FORCE_WAKEUP is one more; arithmetic, because a verifier follows each branch.
    NO_WAKEUP + (opaque(left as u64) >> 63)
}

/// Whether a record of so many bytes leaves three quarters of the ring buffer to others.
#[inline(always)]
pub fn has_room(bytes: usize) -> bool {
    const AVAIL_DATA: u64 = 0;
    const RING_SIZE: u64 = 1;
    4 * (RING.query(AVAIL_DATA) + bytes as u64) <= RING.query(RING_SIZE)
}

/// Mixes a key into a bucket number, before masking.
#[inline(always)]
pub fn hash(key: &[u64; 3]) -> u32 {
    let a = (key[0] ^ key[1].rotate_left(23) ^ key[2].rotate_left(41))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (a >> 40) as u32
}

/// 0 where the words are the same. One branch for three comparisons: a verifier follows each.
#[inline(always)]
pub fn difference(a: &[u64; 3], b: &[u64; 3]) -> u64 {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2])
}

/// Adds `n` to the count of `key` in the bucket at `index`; gives the count since the entry was
/// made, or 0 where the bucket does not exist. `lost`: the loss counter for an entry that could not
/// be handed over.
#[inline(always)]
pub fn add(table: &PerCpuArray<Bucket>, index: u32, key: &[u64; 3], n: u64, lost: u32) -> u64 {
    let Some(bucket) = table.get_ptr_mut(index) else {
        globals::count(lost, n);
        return 0;
    };
    // SAFETY: a map value of this CPU, checked not to be null; see the module on who else writes.
    let bucket = unsafe { &mut *bucket };
    // An empty entry is all zero, and no key is: its program generation is above 0.
    let [first, second] = &mut bucket.entries;
    if difference(&first.key, key) == 0 {
        first.count += n;
        return first.count;
    }
    if difference(&second.key, key) == 0 {
        second.count += n;
        return second.count;
    }
    make_room(bucket, key, n, lost);
    n
}

/// Puts a new key into a bucket that does not have it.
#[inline(never)]
fn make_room(bucket: &mut Bucket, key: &[u64; 3], n: u64, lost: u32) {
    const _: () = assert!(WAYS == 2);
    let [first, second] = &bucket.entries;
    // The empty one if there is one; else any will do as long as it is not always the same. Not
    // taken from the key: what indexes memory the verifier tracks precisely, and with it all that the
    // key was made of. And arithmetic, because it follows each branch.
    let occupied = |n: u64| opaque(n | n.wrapping_neg()) >> 63;
    let any = (first.count ^ second.count) & 1;
    let way = occupied(first.count) & (any | (occupied(second.count) ^ 1));
    let entry = &mut bucket.entries[opaque(way) as usize & 1];
    if entry.count != 0 && !hand_over(entry) {
        globals::count(lost, entry.count);
    }
    entry.key = *key;
    entry.count = n;
}

/// Sends an entry to userspace.
#[inline(always)]
pub fn hand_over(entry: &Entry) -> bool {
    let Some(mut record) = RING.reserve::<Tally>(0) else {
        return false;
    };
    record.write(Tally {
        kind: kind::TALLY,
        reserved: 0,
        key: Key::from_words(entry.key),
        count: entry.count,
    });
    record.submit(wakeup());
    true
}
