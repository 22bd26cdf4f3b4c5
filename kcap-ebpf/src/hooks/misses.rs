//! A kprobe that does nothing: the loader attaches it, for a moment, where the kernel must skip it,
//! to learn whether this kernel counts the kprobes it skips (6.7 on).

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

/// Entry of any function.
#[kprobe]
pub fn kcap_misses(_: ProbeContext) -> u32 {
    0
}
