//! Read-only globals, set by the loader and frozen before the programs are verified, and the loss
//! counters.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use kcap_common::abi::{
    Fields, Settings, loss,
    settings::{MATCH_LEN, MATCHES},
};

/// Placeholder contents keep the globals out of `.bss`; the loader replaces them.
const UNSET: u32 = u32::MAX;

#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub static FIELDS: Fields = Fields::from_array([UNSET; Fields::COUNT]);

#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub static SETTINGS: Settings = Settings {
    clock_base: 0,
    mmap_min_addr: 0,
    root: 0,
    cpus: UNSET,
    pids: UNSET,
    tally_mask: 0,
    outcome_mask: 0,
    slot_mask: 0,
    subsys: UNSET,
    outcomes: 0,
    argv: 0,
    verify: 0,
    open: 0,
    host_mnt: 0,
    slice_shift: 20,
    matches: 0,
    hierarchy: 0,
    flusher: 0,
    environment: 0,
    paths: [[0; MATCH_LEN]; MATCHES],
};

/// Reads one read-only global. Volatile, so that the compiler does not fold the placeholder in; the
/// verifier, which knows the frozen value, does the folding.
#[inline(always)]
pub fn read<T: Copy>(global: &'static T) -> T {
    // SAFETY: a plain load of an initialised, immutable static.
    unsafe { core::ptr::read_volatile(global) }
}

/// The offset of a structure member on this kernel.
macro_rules! field {
    ($name:ident) => {
        $crate::globals::read(&$crate::globals::FIELDS.$name) as usize
    };
}
pub(crate) use field;

/// One setting.
macro_rules! setting {
    ($name:ident) => {
        $crate::globals::read(&$crate::globals::SETTINGS.$name)
    };
}
pub(crate) use setting;

#[map]
static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(loss::COUNT, 0);

/// Counts `n` under one of [`loss`].
#[inline(always)]
pub fn count(what: u32, n: u64) {
    if let Some(counter) = LOSS.get_ptr_mut(what) {
        // SAFETY: the map value lives as long as the map, and this CPU alone writes it.
        unsafe { *counter += n };
    }
}
