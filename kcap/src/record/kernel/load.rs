//! Loads the BPF object, attaches what this kernel needs of it, and reads it out at the end.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FEntry, KProbe, Program},
};
use aya_log::EbpfLogger;
use kcap_common::abi::{
    Fields, Key, Settings,
    key::site,
    loss,
    record::{self, Bucket},
};

use super::{
    btf, calibrate, flush,
    hook::{Choice, Hook},
    raw::{Raw, decode},
    sys,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kcap.bpf.o"));

/// SHA-256 of the BPF object in this binary, hex.
pub const fn object_sha256() -> &'static str {
    env!("KCAP_BPF_SHA256")
}

/// Values that cross into the kernel as bytes.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T: Copy>(T);
// SAFETY: only used with the ABI's structs: `repr(C)`, of integers, without padding.
unsafe impl<T: Copy + 'static> aya::Pod for Plain<T> {}

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
            verify: false,
            open: Open::Moved,
            host_mnt: 0,
            log: false,
            matches: vec![],
            hierarchy: 0,
            subsystem: None,
            clock_base: 0,
            mmap_min_addr: 65536,
            pid_max: 1 << 22,
            cpus: 4096,
            ring_bytes: 8 << 20,
            tally_buckets: 1024,
            slots: 2048,
        }
    }
}

/// How often counts are asked for where the ring buffer was full.
const HAND_OVERS: u32 = 20;
/// Buckets of the outcome table.
const OUTCOME_BUCKETS: u32 = 256;
/// The generation that calibration runs as; handed to no program.
const CALIBRATION: u32 = (1 << 31) - 1;

/// A loaded and attached tracer. Dropping it detaches everything; so does the end of the process.
pub struct Tracer {
    ebpf: Ebpf,
    hook: Hook,
    blind: Vec<String>,
    attached: Vec<&'static str>,
    unproven: Option<String>,
    config: Config,
}

/// What is known once everything is detached.
#[derive(Debug, Default)]
pub struct Finish {
    /// Counts left in the kernel's tables.
    pub tallies: Vec<(Key, u64)>,
    /// Loss counters, by `kcap_common::abi::loss`.
    pub loss: Vec<u64>,
    /// Programs that the kernel did not run, by program.
    pub skipped: BTreeMap<String, u64>,
    /// Why skips could not be counted.
    pub unproven: Option<String>,
}

/// Follows what runs, whichever hook sees checks: program, tracepoint.
const LINEAGE: [(&str, &str); 4] = [
    ("kcap_newtask", "task_newtask"),
    ("kcap_exec", "sched_process_exec"),
    ("kcap_exit", "sched_process_exit"),
    ("kcap_attach", "cgroup_attach_task"),
];

/// Settles outcomes, and recognises needs that ask nothing: program, tracepoint.
const OUTCOMES: (&str, &str) = ("kcap_sys_exit", "sys_exit");

/// Checks that a compiler may have inlined: site, system call that tells, function, programs.
const INLINED: [(u8, u16, &str, &str, &str); 3] = [
    (
        site::CAPSET,
        126,
        "cap_capset",
        "kcap_capset_f",
        "kcap_capset_k",
    ),
    (
        site::PRCTL,
        157,
        "cap_task_prctl",
        "kcap_prctl_f",
        "kcap_prctl_k",
    ),
    (
        site::MMAP_ADDR,
        9,
        "cap_mmap_addr",
        "kcap_mmap_f",
        "kcap_mmap_k",
    ),
];

impl Tracer {
    /// Loads and attaches.
    ///
    /// # Errors
    /// One line that names what the kernel refused, and what to do.
    pub fn load(config: Config) -> Result<Self> {
        // aya's loader parses the kernel's BTF, which nothing of ours needs; side by side with what
        // is needed it takes no time of its own.
        let (mut loader, kernel) = std::thread::scope(|scope| {
            let loader = scope.spawn(EbpfLoader::new);
            let kernel = Kernel::read(config.subsystem.as_deref());
            let loader = loader
                .join()
                .map_err(|_| anyhow!("the BPF loader panicked while it read the kernel's BTF"));
            Ok::<_, anyhow::Error>((loader?, kernel?))
        })?;
        let fields = Plain(kernel.fields);
        let settings = Plain(settings(&config, kernel.subsys)?);
        let log_level: u8 = if config.log { 5 } else { 0 };
        let mut ebpf = loader
            .btf(Some(&kernel.index))
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global("FIELDS", &fields, true)
            .override_global("SETTINGS", &settings, true)
            .override_global("AYA_LOG_LEVEL", &log_level, false)
            .map_max_entries("SCOPE", settings.0.pids)
            .map_max_entries("RING", config.ring_bytes)
            .map_max_entries("TALLIES", config.tally_buckets)
            .map_max_entries("SLOTS", config.slots)
            .load(OBJECT)
            .map_err(|e| refused("create kcap's BPF maps", &e))?;

        let mut attached: Vec<_> = LINEAGE.iter().map(|(program, _)| *program).collect();
        if config.outcomes {
            attached.push(OUTCOMES.0);
        }
        let hook = attach_all(&mut ebpf, &config, &kernel)?;
        attached.push(hook.program());

        let mut tracer = Self {
            ebpf,
            hook,
            blind: vec![],
            attached,
            unproven: None,
            config,
        };
        if hook == Hook::TpBtf {
            tracer.blind.push("options".into());
        } else {
            tracer.account_inlined(&kernel.index)?;
            tracer.doubt_kprobes();
        }
        if !tracer.config.outcomes {
            tracer.blind.push("outcome".into());
        }
        Ok(tracer)
    }

    /// The hook in use.
    pub const fn hook(&self) -> Hook {
        self.hook
    }

    /// What this hook cannot see on this kernel.
    pub fn blind(&self) -> &[String] {
        &self.blind
    }

    /// The `n`th generation, from 1, for a process that was there before the trace.
    pub fn generation(&self, n: u32) -> u32 {
        record::generation(n, record::LATE, self.config.cpus.max(1), 0)
    }

    /// Takes a process into scope that was there before the trace, unless the kernel side has. It must
    /// be known whose the generation is by then.
    ///
    /// # Errors
    /// Where its id is beyond the scope table.
    pub fn seed(&mut self, pid: u32, generation: u32, executor: bool) -> Result<()> {
        let scope: Array<_, u32> = Array::try_from(self.map("SCOPE")?)?;
        if scope.get(&pid, 0).is_ok_and(|entry| entry != 0) {
            return Ok(());
        }
        self.set_scope(pid, generation | if executor { 1 << 31 } else { 0 })
    }

    /// Makes a cgroup, by id, define a session.
    ///
    /// # Errors
    /// Where the kernel refuses the map entry.
    pub fn scope_cgroup(&mut self, id: u64) -> Result<()> {
        let mut cgroups: HashMap<_, u64, u32> =
            HashMap::try_from(map_mut(&mut self.ebpf, "CGROUPS")?)?;
        cgroups
            .insert(id, 1, 0)
            .map_err(|e| refused("note the traced cgroup", &e))
    }

    /// The ring buffer. Can be taken once.
    ///
    /// # Errors
    /// Where it was taken already.
    pub fn ring(&mut self) -> Result<Ring> {
        let map = self
            .ebpf
            .take_map("RING")
            .context("the ring buffer was taken already")?;
        let log = if self.config.log {
            let log = EbpfLogger::init_with_logger(&mut self.ebpf, StandardError)
                .context("cannot read what the kernel side logs")?;
            Some(log)
        } else {
            None
        };
        Ok(Ring {
            records: RingBuf::try_from(map)?,
            log,
        })
    }

    /// Has the kernel side hand over all counts through the ring buffer while it goes on; false where
    /// that cannot be had, and counts are only complete once everything is detached. With the
    /// tracepoint all counts are in two tables, whose programs can be asked.
    ///
    /// # Errors
    /// Where not every CPU could be asked.
    pub fn hand_over(&self) -> Result<bool> {
        if self.hook != Hook::TpBtf || !self.config.outcomes {
            return Ok(false);
        }
        let buckets = self.config.tally_buckets.max(OUTCOME_BUCKETS);
        for _ in 0..HAND_OVERS {
            let before = self.counters()?.get(loss::LEFT as usize).copied();
            flush::hand_over(buckets)?;
            if self.counters()?.get(loss::LEFT as usize).copied() == before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was lost until now.
    ///
    /// # Errors
    /// Where the kernel refuses to be read.
    pub fn so_far(&self) -> Result<Finish> {
        let mut so_far = Finish {
            unproven: self.unproven.clone(),
            loss: self.counters()?,
            ..Finish::default()
        };
        self.read_skips(&mut so_far)?;
        Ok(so_far)
    }

    /// Detaches everything, then reads what is left in the tables: with the programs gone, nothing
    /// changes them, and reading cannot make the kernel skip a kprobe.
    ///
    /// # Errors
    /// Where the kernel refuses to be read.
    pub fn finish(mut self) -> Result<Finish> {
        let mut finish = Finish {
            unproven: self.unproven.take(),
            ..Finish::default()
        };
        self.read_skips(&mut finish)?;
        for name in std::mem::take(&mut self.attached) {
            if let Some(program) = self.ebpf.program_mut(name) {
                unload(program).with_context(|| format!("cannot detach {name}"))?;
            }
        }
        for table in ["TALLIES", "OUTCOMES", "INLINED"] {
            self.read_table(table, |key, n| {
                if key.program != CALIBRATION {
                    finish.tallies.push((key, n));
                }
            })?;
        }
        finish.loss = self.counters()?;
        Ok(finish)
    }

    fn counters(&self) -> Result<Vec<u64>> {
        let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(self.map("LOSS")?)?;
        (counters.iter())
            .map(|values| Ok(values?.iter().sum()))
            .collect()
    }

    /// Adds the programs that the kernel did not run.
    fn read_skips(&self, to: &mut Finish) -> Result<()> {
        for name in &self.attached {
            let Some(program) = self.ebpf.program(name) else {
                continue;
            };
            let Ok(fd) = program.fd() else { continue };
            let info = sys::program_info(fd.as_fd())
                .with_context(|| format!("cannot ask the kernel about program {name}"))?;
            match info.recursion_misses {
                Some(0) => {}
                Some(n) => {
                    to.skipped.insert((*name).into(), n);
                }
                None => {
                    to.unproven = Some("this kernel does not count the programs it skips".into());
                }
            }
        }
        Ok(())
    }

    /// Verified instructions of each attached program, which the benchmarks gate on.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn verified_insns(&self) -> Result<BTreeMap<String, u32>> {
        let mut out = BTreeMap::new();
        for name in &self.attached {
            if let Some(program) = self.ebpf.program(name) {
                let info = sys::program_info(program.fd()?.as_fd())?;
                out.insert((*name).into(), info.verified_insns.unwrap_or(0));
            }
        }
        Ok(out)
    }

    fn map(&self, name: &str) -> Result<&aya::maps::Map> {
        self.ebpf
            .map(name)
            .with_context(|| format!("the BPF object has no map {name}"))
    }

    fn read_table(&self, name: &str, mut each: impl FnMut(Key, u64)) -> Result<()> {
        let table: PerCpuArray<_, Plain<Bucket>> = PerCpuArray::try_from(self.map(name)?)?;
        for bucket in table.iter() {
            for cpu in bucket?.iter() {
                for entry in cpu.0.entries {
                    if entry.count != 0 {
                        each(Key::from_words(entry.key), entry.count);
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds which checks this kernel's compiler inlined, by making each once and looking whether
    /// the hook saw it, and accounts those at their callers.
    fn account_inlined(&mut self, kernel_btf: &Btf) -> Result<()> {
        let pid = std::process::id();
        self.set_scope(pid, CALIBRATION)?;
        let made = calibrate::make_inlined_checks();
        self.set_scope(pid, 0)?;
        let made = made.context("cannot make the checks that calibrate the hook")?;

        let mut seen = vec![];
        self.read_table("TALLIES", |key, _| {
            if key.program == CALIBRATION && key.outcome == 0 && key.unasked == 0 {
                seen.push((key.syscall, key.cap));
            }
        })?;
        const CAP_SYS_ADMIN: u8 = 21;
        if !seen
            .iter()
            .any(|&(nr, cap)| nr == 9 && cap == CAP_SYS_ADMIN)
        {
            self.blind.push("cap_vm_enough_memory".into());
        }
        for (site, nr, function, by_fentry, by_kprobe) in INLINED {
            let cap = if site == site::MMAP_ADDR { 17 } else { 8 };
            if !made.contains(&site) || seen.contains(&(nr, cap)) {
                continue;
            }
            let name = if self.hook == Hook::Fexit {
                by_fentry
            } else {
                by_kprobe
            };
            let program = program_mut(&mut self.ebpf, name)?;
            match program {
                Program::FEntry(p) => load_fentry(p, function, kernel_btf),
                Program::KProbe(p) => load_kprobe(p, function),
                _ => bail!("program {name} is of an unexpected type"),
            }
            .with_context(|| format!("checks that {function} makes cannot be seen"))?;
            self.attached.push(name);
        }
        Ok(())
    }

    /// Kprobes share a per-CPU mark with `bpf(2)` map calls: where a process can be preempted within
    /// one, another's entries on that CPU are skipped. Kernels that do not count them leave a count
    /// unproven, although it is exact as long as nobody else uses BPF maps.
    fn doubt_kprobes(&mut self) {
        let preempts = !matches!(self.config.preemption.as_str(), "voluntary" | "none");
        if self.hook == Hook::Kprobe && preempts && !self.counts_kprobe_misses() {
            self.unproven = Some(
                "this kernel does not count the kprobes that it skips while others use BPF maps"
                    .into(),
            );
        }
    }

    /// Makes the kernel skip a kprobe, within a map update, and looks whether it was counted.
    fn counts_kprobe_misses(&mut self) -> bool {
        const PROGRAM: &str = "kcap_misses";
        let mut counted = || -> Result<bool> {
            let Program::KProbe(probe) = program_mut(&mut self.ebpf, PROGRAM)? else {
                bail!("{PROGRAM} is no kprobe");
            };
            load_kprobe(probe, "htab_map_update_elem")?;
            let mut cgroups: HashMap<_, u64, u32> =
                HashMap::try_from(map_mut(&mut self.ebpf, "CGROUPS")?)?;
            // Id 0 is no cgroup's.
            cgroups.insert(0, 0, 0)?;
            cgroups.remove(&0)?;
            let program = program_mut(&mut self.ebpf, PROGRAM)?;
            let misses = sys::program_info(program.fd()?.as_fd())?.recursion_misses;
            unload(program)?;
            Ok(misses.is_some_and(|n| n > 0))
        };
        // What cannot be found out is taken for no.
        counted().unwrap_or(false)
    }

    fn set_scope(&mut self, tgid: u32, value: u32) -> Result<()> {
        let mut scope: Array<_, u32> = Array::try_from(map_mut(&mut self.ebpf, "SCOPE")?)?;
        scope
            .set(tgid, value, 0)
            .with_context(|| format!("process id {tgid} is beyond kernel.pid_max"))
    }

    /// The configuration it was loaded with.
    pub const fn config(&self) -> &Config {
        &self.config
    }
}

/// Where the kernel side's diagnostics go.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Numbers and texts of ours; nothing can be done where standard error is closed.
        let _ = writeln!(io::stderr(), "kcap: kernel side: {}", record.args());
    }

    fn flush(&self) {}
}

/// The ring buffer's reading side.
pub struct Ring {
    records: RingBuf<MapData>,
    log: Option<EbpfLogger<StandardError>>,
}

impl Ring {
    /// Hands every record that is there to `each`; gives how many were no record of ours.
    pub fn drain(&mut self, mut each: impl FnMut(Raw)) -> u64 {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let mut unknown = 0;
        while let Some(item) = self.records.next() {
            match decode(&item) {
                Some(Raw::Tally(key, _)) if key.program == CALIBRATION => {}
                Some(Raw::Evidence(e)) if e.key.program == CALIBRATION => {}
                Some(Raw::Unasked(u)) if u.key.program == CALIBRATION => {}
                Some(raw) => each(raw),
                None => unknown += 1,
            }
        }
        unknown
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.records.as_raw_fd()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the BPF object has no map {name}"))
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}"))
}

fn settings(config: &Config, subsys: u32) -> Result<Settings> {
    let mut paths = [[0; kcap_common::abi::settings::MATCH_LEN]; 4];
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
        reserved: 0,
        paths,
    })
}

fn mask(entries: u32) -> Result<u32> {
    if !entries.is_power_of_two() {
        bail!("{entries} is no power of two");
    }
    Ok(entries - 1)
}

/// What is to be known of the running kernel before anything is loaded.
struct Kernel {
    fields: Fields,
    /// Number of the cgroup subsystem that defines the scope, or `u32::MAX`.
    subsys: u32,
    /// It has the tracepoint `capability:cap_capable`.
    tracepoint: bool,
    /// `cap_capable` has the parameters that the programs expect.
    signature: bool,
    /// Ids of what programs attach to.
    index: Btf,
}

impl Kernel {
    fn read(subsystem: Option<&str>) -> Result<Self> {
        let image = std::fs::read(btf::VMLINUX).with_context(|| {
            format!(
                "cannot read {}: kcap needs a kernel with CONFIG_DEBUG_INFO_BTF",
                btf::VMLINUX
            )
        })?;
        let kernel = btf::Btf::parse(&image)?;
        let offsets: [u32; Fields::COUNT] = kernel
            .offsets(&Fields::WANTED)?
            .try_into()
            .map_err(|_| anyhow!("BTF gave an unexpected number of offsets"))?;
        let subsys = match subsystem {
            None => u32::MAX,
            Some(name) => kernel
                .enumerator("cgroup_subsys_id", name)
                .and_then(|n| u32::try_from(n).ok())
                .with_context(|| format!("this kernel has no cgroup subsystem {name}"))?,
        };
        let tracepoints: Vec<String> = LINEAGE
            .iter()
            .chain([&OUTCOMES])
            .map(|(_, tracepoint)| *tracepoint)
            .chain(["cap_capable"])
            .map(|tracepoint| format!("btf_trace_{tracepoint}"))
            .collect();
        let typedefs: Vec<&str> = tracepoints.iter().map(String::as_str).collect();
        let functions: Vec<&str> = INLINED
            .iter()
            .map(|(_, _, function, ..)| *function)
            .chain(["cap_capable"])
            .collect();
        let index = kernel.index(&typedefs, &functions);
        Ok(Self {
            fields: Fields::from_array(offsets),
            subsys,
            tracepoint: kernel.has_typedef("btf_trace_cap_capable"),
            signature: kernel.parameters("cap_capable") == Some(4),
            index: Btf::parse(&index, Endianness::default())
                .context("cannot read kcap's own index of the kernel's BTF: please report it")?,
        })
    }
}

/// Loads and attaches everything that is always needed, and the hook. The program on `sys_exit` takes
/// the verifier as long as all others do, so it goes side by side with them.
fn attach_all(ebpf: &mut Ebpf, config: &Config, kernel: &Kernel) -> Result<Hook> {
    let mut programs: std::collections::HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(n, p)| (n.to_owned(), p))
        .collect();
    let mut take = |name: &str| {
        programs
            .remove(name)
            .with_context(|| format!("the BPF object has no program {name}"))
    };
    let outcomes = take(OUTCOMES.0)?;
    let lineage = LINEAGE.map(|(name, tracepoint)| (name, take(name), tracepoint));
    let mut hooks = vec![];
    for hook in config.hook.order(&config.preemption) {
        hooks.push((hook, take(hook.program())?));
    }
    std::thread::scope(|scope| {
        let settling = scope.spawn(|| {
            if config.outcomes {
                attach_tracepoint(OUTCOMES.0, outcomes, OUTCOMES.1, &kernel.index)
            } else {
                Ok(())
            }
        });
        let rest = || {
            for (name, program, tracepoint) in lineage {
                attach_tracepoint(name, program?, tracepoint, &kernel.index)?;
            }
            attach_hook(hooks, kernel)
        };
        let hook = rest();
        settling
            .join()
            .map_err(|_| anyhow!("loading {} panicked", OUTCOMES.0))??;
        hook
    })
}

fn attach_tracepoint(name: &str, program: &mut Program, tracepoint: &str, btf: &Btf) -> Result<()> {
    let program: &mut BtfTracePoint = program.try_into()?;
    program
        .load(tracepoint, btf)
        .map_err(|e| refused(&format!("load program {name}"), &e))?;
    program
        .attach()
        .map_err(|e| refused(&format!("attach to tracepoint {tracepoint}"), &e))?;
    Ok(())
}

fn load_fentry(program: &mut FEntry, function: &str, btf: &Btf) -> Result<()> {
    program
        .load(function, btf)
        .map_err(|e| refused(&format!("load fentry of {function}"), &e))?;
    program
        .attach()
        .map_err(|e| refused(&format!("attach to {function}"), &e))?;
    Ok(())
}

fn load_kprobe(program: &mut KProbe, function: &str) -> Result<()> {
    program
        .load()
        .map_err(|e| refused(&format!("load kprobe of {function}"), &e))?;
    program
        .attach(function, 0)
        .map_err(|e| refused(&format!("attach a kprobe to {function}"), &e))?;
    Ok(())
}

/// Loads and attaches the first hook that works.
fn attach_hook(hooks: Vec<(Hook, &mut Program)>, kernel: &Kernel) -> Result<Hook> {
    let forced = hooks.len() == 1;
    let mut why = vec![];
    for (hook, program) in hooks {
        match try_hook(program, kernel) {
            Ok(()) => return Ok(hook),
            Err(e) if forced => return Err(e.context(format!("cannot use hook {hook}"))),
            Err(e) => why.push(format!("{hook}: {e:#}")),
        }
    }
    bail!(
        "no hook can see cap_capable here ({}): see kcap doctor",
        why.join("; ")
    )
}

fn try_hook(program: &mut Program, kernel: &Kernel) -> Result<()> {
    match program {
        Program::BtfTracePoint(p) => {
            if !kernel.tracepoint {
                bail!("this kernel has no tracepoint capability:cap_capable (6.14 on)");
            }
            p.load("cap_capable", &kernel.index)
                .map_err(|e| refused("load the program", &e))?;
            p.attach().map_err(|e| refused("attach the program", &e))?;
        }
        Program::FExit(p) => {
            if !kernel.signature {
                bail!("cap_capable has an unexpected signature in this kernel's BTF");
            }
            p.load("cap_capable", &kernel.index)
                .map_err(|e| refused("load the program", &e))?;
            p.attach().map_err(|e| refused("attach the program", &e))?;
        }
        Program::KProbe(p) => load_kprobe(p, "cap_capable")?,
        _ => bail!("unexpected program type"),
    }
    Ok(())
}

fn unload(program: &mut Program) -> Result<()> {
    match program {
        Program::BtfTracePoint(p) => p.unload()?,
        Program::FExit(p) => p.unload()?,
        Program::FEntry(p) => p.unload()?,
        Program::KProbe(p) => p.unload()?,
        _ => {}
    }
    Ok(())
}

/// One line for what the kernel refused, with the innermost cause and no verifier log.
fn refused(what: &str, e: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let mut innermost = e;
    let mut errno = None;
    loop {
        if let Some(io) = innermost.downcast_ref::<io::Error>() {
            errno = io.raw_os_error();
        }
        match innermost.source() {
            Some(next) => innermost = next,
            None => break,
        }
    }
    let cause = innermost.to_string().replace('\n', " ");
    let cause: String = cause.chars().take(300).collect();
    let remedy = match errno {
        Some(libc::EPERM | libc::EACCES) => {
            ": run kcap as root on the host, with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN; see kcap doctor"
        }
        Some(libc::ENOSYS) => ": this kernel has no bpf(2): CONFIG_BPF_SYSCALL is needed",
        Some(libc::ENOMEM) => ": free memory, or trace with a smaller --ring-size",
        _ => "",
    };
    anyhow!("the kernel refused to {what}: {cause}{remedy}")
}

/// Tries each hook on its own, detaching at once: what `kcap doctor` reports.
pub fn probe(config: &Config) -> Vec<(Hook, Result<()>)> {
    Hook::ALL
        .into_iter()
        .map(|hook| {
            let config = Config {
                hook: Choice::Forced(hook),
                ..config.clone()
            };
            (hook, Tracer::load(config).map(drop))
        })
        .collect()
}
