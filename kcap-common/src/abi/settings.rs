//! What userspace tells the programs at load, as one read-only global.

/// Longest executor path that can be matched, in bytes, with its terminating NUL.
pub const MATCH_LEN: usize = 128;
/// How many executor paths can be matched.
pub const MATCHES: usize = 4;

/// Read-only settings. The verifier folds them into constants, so a feature that is off costs
/// nothing at run time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `CLOCK_MONOTONIC` nanoseconds that time slices count from.
    pub clock_base: u64,
    /// `vm.mmap_min_addr` at load, for the check inlined into `cap_mmap_addr`.
    pub mmap_min_addr: u64,
    /// Id of the cgroup that names of cgroups are told from.
    pub root: u64,
    /// Possible CPUs, for program generations that are unique across CPUs.
    pub cpus: u32,
    /// Entries of the scope table: process ids at or above it cannot be followed.
    pub pids: u32,
    /// Buckets of the tally table less one (a power of two less one).
    pub tally_mask: u32,
    /// Buckets of the outcome table less one.
    pub outcome_mask: u32,
    /// Outcome slots less one.
    pub slot_mask: u32,
    /// Index of the cgroup subsystem whose hierarchy defines the scope on a pure v1 host, or
    /// `u32::MAX` where the unified hierarchy does.
    pub subsys: u32,
    /// 1: settle each check's outcome at `sys_exit`.
    pub outcomes: u32,
    /// 1: record argument vectors of executed programs.
    pub argv: u32,
    /// 1: recompute each result and count disagreements.
    pub verify: u32,
    /// 1: processes that fork or execute in a session's cgroup enter it. 2: and a program executed
    /// under one of `paths` opens a session.
    pub open: u32,
    /// Inode number of the host's mount namespace: what runs in it is in no container.
    pub host_mnt: u32,
    /// 2^n: cut all programs into time slices of 2^n ns, 20 by default. Matched programs only.
    pub slice_shift: u32,
    /// Executor paths in use.
    pub matches: u32,
    /// Hierarchy number of the cgroups that define the scope: 0 for the unified one.
    pub hierarchy: u32,
    /// Process id whose requests to hand over counts are heeded; 0: nobody's.
    pub flusher: u32,
    /// 1: send the environment of executors.
    pub environment: u32,
    /// Executor paths, NUL-terminated: a program executed under one is the executor.
    pub paths: [[u8; MATCH_LEN]; MATCHES],
}

const _: () = assert!(size_of::<Settings>() == 24 + 16 * 4 + MATCH_LEN * MATCHES);
