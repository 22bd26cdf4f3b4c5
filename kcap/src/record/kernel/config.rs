//! How to load, and what of it the programs are told.

use anyhow::{Result, bail};
use kcap_common::abi::{Settings, settings::MATCH_LEN};

use super::hook::Choice;

/// Buckets of the outcome table.
pub const OUTCOME_BUCKETS: u32 = 256;

/// Which processes from outside the scope enter it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Open {
    /// Those that are moved into a session's cgroup, or made in it.
    #[default]
    Moved,
    /// Those too that fork or execute in a session's cgroup and were there before.
    Found,
    /// And a matched executor opens a session wherever it is executed.
    Executors,
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hook to use.
    pub hook: Choice,
    /// `full`, `lazy`, `voluntary`, `none` or `unknown`.
    pub preemption: String,
    /// Settle outcomes at `sys_exit`.
    pub outcomes: bool,
    /// Record argument vectors.
    pub argv: bool,
    /// Have the environment of executors.
    pub environment: bool,
    /// Compare each result with a recomputed one.
    pub verify: bool,
    /// Which processes enter by themselves.
    pub open: Open,
    /// Inode number of the host's mount namespace.
    pub host_mnt: u32,
    /// Show what the kernel side logs, on standard error. Off, it costs nothing: the verifier
    /// removes it.
    pub log: bool,
    /// Executor paths.
    pub matches: Vec<String>,
    /// Hierarchy number of the scope's cgroups, and the subsystem that names it on v1.
    pub hierarchy: u32,
    /// Id of the cgroup that names of cgroups are told from.
    pub root: u64,
    /// Constant of that subsystem in `enum cgroup_subsys_id` (`pids_cgrp_id`); `None` where the
    /// unified hierarchy is the scope's.
    pub subsystem: Option<String>,
    /// `CLOCK_MONOTONIC` nanoseconds at the session's start.
    pub clock_base: u64,
    /// `vm.mmap_min_addr`.
    pub mmap_min_addr: u64,
    /// `kernel.pid_max`.
    pub pid_max: u32,
    /// One more than the highest CPU number there can be.
    pub cpus: u32,
    /// Bytes of the ring buffer, a power of two of at least a page.
    pub ring_bytes: u32,
    /// Buckets of the tally table, a power of two.
    pub tally_buckets: u32,
    /// Outcome slots, a power of two.
    pub slots: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hook: Choice::Auto,
            preemption: "unknown".into(),
            outcomes: true,
            argv: false,
            environment: false,
            verify: false,
            open: Open::Moved,
            host_mnt: 0,
            log: false,
            matches: vec![],
            hierarchy: 0,
            root: 1,
            subsystem: None,
            clock_base: 0,
            mmap_min_addr: 65536,
            pid_max: 1 << 22,
            cpus: 4096,
            ring_bytes: 8 << 20,
            tally_buckets: 1024,
            slots: 16384,
        }
    }
}

/// The settings as the programs read them.
///
/// # Errors
/// Where a path cannot be matched, or a size is no power of two.
pub fn settings(config: &Config, subsys: u32) -> Result<Settings> {
    let mut paths = [[0; MATCH_LEN]; 4];
    if config.matches.len() > paths.len() {
        bail!("at most {} paths can be matched", paths.len());
    }
    for (slot, path) in paths.iter_mut().zip(&config.matches) {
        let bytes = path.as_bytes();
        if bytes.is_empty() || bytes.len() >= slot.len() || bytes.contains(&0) {
            bail!(
                "{path:?} cannot be matched: a path of 1 to {} bytes is needed",
                slot.len() - 1
            );
        }
        slot[..bytes.len()].copy_from_slice(bytes);
    }
    Ok(Settings {
        clock_base: config.clock_base,
        mmap_min_addr: config.mmap_min_addr,
        root: config.root,
        cpus: config.cpus.max(1),
        pids: config.pid_max.max(1),
        tally_mask: mask(config.tally_buckets)?,
        outcome_mask: mask(OUTCOME_BUCKETS)?,
        slot_mask: mask(config.slots)?,
        subsys,
        outcomes: config.outcomes.into(),
        argv: config.argv.into(),
        verify: config.verify.into(),
        open: config.open as u32,
        host_mnt: config.host_mnt,
        slice_shift: 20,
        matches: config.matches.len() as u32,
        hierarchy: config.hierarchy,
        flusher: std::process::id(),
        environment: config.environment.into(),
        paths,
    })
}

fn mask(entries: u32) -> Result<u32> {
    if !entries.is_power_of_two() {
        bail!("{entries} is no power of two");
    }
    Ok(entries - 1)
}
