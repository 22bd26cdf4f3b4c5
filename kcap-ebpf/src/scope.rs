//! Which processes are in scope, and as which program generation.
//!
//! One array indexed by process id says both. A process id can only be used again after
//! `task_newtask` announced its new holder, so entries are overwritten there and never cleared:
//! checks that a process makes while it dies are still its own.

use aya_ebpf::{
    helpers::generated::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};

use kcap_common::abi::record::{GIVERS, generation as generation_number};

use crate::{
    globals::{field, setting},
    mem::{Mem, Probed, Ptr},
};

/// Process id to 0, or program generation in bits 0 to 30 and [`SLICED`]. Sized by the loader.
#[map]
static SCOPE: Array<u32> = Array::with_max_entries(1, 0);

/// Cgroups that define a session, by id.
#[map]
static CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(4096, 0);

/// Generations handed out, per CPU and program.
#[map]
static GENERATIONS: PerCpuArray<u32> = PerCpuArray::with_max_entries(GIVERS, 0);

/// The program's tallies are cut into time slices.
pub const SLICED: u32 = 1 << 31;

/// Deepest cgroup nesting looked through.
const DEPTH: u32 = 32;

/// `CLONE_INTO_CGROUP`.
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_THREAD`.
pub const CLONE_THREAD: u64 = 0x1_0000;

/// The scope entry of a process; 0 where it is out of scope.
#[inline(always)]
pub fn of(tgid: u32) -> u32 {
    match SCOPE.get(tgid) {
        Some(v) => *v,
        None => 0,
    }
}

/// Sets the scope entry of a process; false where its id is beyond the table.
#[inline(always)]
pub fn set(tgid: u32, value: u32) -> bool {
    match SCOPE.get_ptr_mut(tgid) {
        Some(p) => {
            // SAFETY: an aligned word in a map value.
            unsafe { p.write_volatile(value) };
            true
        }
        None => false,
    }
}

/// The program generation of a scope entry.
#[inline(always)]
pub const fn program(entry: u32) -> u32 {
    entry & !SLICED
}

/// A new generation, unique across CPUs and givers. Generation 0 is none.
#[inline(always)]
pub fn generation(giver: u32) -> u32 {
    let Some(counter) = GENERATIONS.get_ptr_mut(giver) else {
        return 0;
    };
    // SAFETY: this CPU's value, written by one program only.
    let n = unsafe {
        *counter += 1;
        *counter
    };
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    generation_number(n, giver, setting!(cpus), cpu)
}

/// The session that a cgroup, or one above it, defines: the id of that one.
#[inline(always)]
pub fn session(cgroup: Ptr) -> Option<u64> {
    let mut at = cgroup;
    let mut i = 0;
    while i < DEPTH {
        if at.is_null() {
            return None;
        }
        let id = id(at);
        // SAFETY: the value is read at once.
        if unsafe { CGROUPS.get(id) }.is_some() {
            return Some(id);
        }
        at = parent(at);
        i += 1;
    }
    None
}

/// The cgroup above one; null for the root.
#[inline(always)]
pub fn parent(cgroup: Ptr) -> Ptr {
    let parent = Probed::ptr(cgroup, field!(cgroup_self) + field!(css_parent));
    if parent.is_null() {
        return parent;
    }
    Probed::ptr(parent, field!(css_cgroup))
}

/// Makes a cgroup define a session; false where there is no room.
#[inline(always)]
pub fn define(id: u64) -> bool {
    CGROUPS.insert(id, 1, 0).is_ok()
}

/// Inode number of a task's mount namespace.
#[inline(always)]
pub fn mount_namespace(task: Ptr) -> u32 {
    let mnt = Probed::ptr(Probed::ptr(task, field!(task_nsproxy)), field!(nsproxy_mnt));
    Probed::u32(mnt, field!(mnt_inum))
}

/// A cgroup's id: the inode number of its folder.
#[inline(always)]
pub fn id(cgroup: Ptr) -> u64 {
    Probed::u64(Probed::ptr(cgroup, field!(cgroup_kn)), field!(kn_id))
}

/// Whether a cgroup is of the hierarchy that defines the scope.
#[inline(always)]
pub fn in_hierarchy(cgroup: Ptr) -> bool {
    Probed::u32(
        Probed::ptr(cgroup, field!(cgroup_root)),
        field!(root_hierarchy),
    ) == setting!(hierarchy)
}

/// A task's cgroup in the hierarchy that defines the scope.
#[inline(always)]
pub fn cgroup(task: Ptr) -> Ptr {
    let set = Probed::ptr(task, field!(task_cgroups));
    let subsys = setting!(subsys);
    if subsys == u32::MAX {
        Probed::ptr(set, field!(cset_dfl_cgrp))
    } else {
        let css = Probed::ptr(set, field!(cset_subsys) + 8 * subsys as usize);
        Probed::ptr(css, field!(css_cgroup))
    }
}
