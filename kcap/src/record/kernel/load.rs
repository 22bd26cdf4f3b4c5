//! Loads the BPF object, attaches what this kernel needs of it, and reads it out at the end.

use std::{collections::BTreeMap, io::ErrorKind, os::fd::AsFd as _};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, MapError, PerCpuArray, RingBuf},
    programs::Program,
};
use aya_log::EbpfLogger;
use kcap_common::abi::{
    Key,
    key::site,
    loss,
    record::{self, Bucket},
};

use super::{
    attach::{INLINED, LINEAGE, OUTCOMES, attach_all, load_fentry, load_kprobe, refused, unload},
    calibrate,
    config::{Config, OUTCOME_BUCKETS, settings},
    flush,
    hook::{Choice, Hook},
    ring::{Ring, StandardError},
    sys,
    target::Kernel,
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

/// How often counts are asked for where the ring buffer was full.
const HAND_OVERS: u32 = 20;
/// The generation that calibration runs as; handed to no program.
pub const CALIBRATION: u32 = (1 << 31) - 1;

/// A loaded and attached tracer. Dropping it detaches everything; so does the end of the process.
pub struct Tracer {
    ebpf: Ebpf,
    hook: Hook,
    blind: Vec<String>,
    attached: Vec<&'static str>,
    /// Sites of inlined checks that have a program of their own.
    inlined: Vec<u8>,
    unproven: Option<String>,
    config: Config,
}

/// What is known once everything is detached.
#[derive(Clone, Debug, Default)]
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
            inlined: vec![],
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
            .map_err(|e| refused("note the traced cgroup", &e))?;
        // It has samples of its own.
        let mut opened: Array<_, u64> = Array::try_from(map_mut(&mut self.ebpf, "OPENED")?)?;
        let before = opened.get(&0, 0)?;
        Ok(opened.set(0, before + 1, 0)?)
    }

    /// A process is in scope already.
    pub fn is_scoped(&self, pid: u32) -> bool {
        let scope = self
            .map("SCOPE")
            .and_then(|map| Ok(Array::<_, u32>::try_from(map)?));
        scope.is_ok_and(|scope| scope.get(&pid, 0).is_ok_and(|entry| entry != 0))
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
    /// that could not be had, and counts are only complete once everything is detached. Every table is
    /// written by one program, which is asked on each CPU; a program that the kernel skipped is asked
    /// again.
    ///
    /// # Errors
    /// Where not every CPU could be asked.
    pub fn hand_over(&self) -> Result<bool> {
        let buckets = self.config.tally_buckets.max(OUTCOME_BUCKETS);
        let hooks = 1 + u64::from(self.config.outcomes);
        let counters = || -> Result<(u64, u64)> {
            let counters = self.counters()?;
            let of = |what: u32| counters.get(what as usize).copied().unwrap_or(0);
            Ok((of(loss::LEFT), of(loss::PARTS)))
        };
        let mut before = counters()?;
        for _ in 0..HAND_OVERS {
            let (asked, inlined) = flush::hand_over(buckets, &self.inlined)?;
            let after = counters()?;
            if after.0 == before.0 && after.1 - before.1 >= asked * hooks + inlined {
                return Ok(true);
            }
            before = after;
        }
        Ok(false)
    }

    /// Makes a cgroup, by id, define no session any more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unscope_cgroup(&mut self, id: u64) -> Result<()> {
        let mut cgroups: HashMap<_, u64, u32> =
            HashMap::try_from(map_mut(&mut self.ebpf, "CGROUPS")?)?;
        match cgroups.remove(&id) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(refused("forget a traced cgroup", &e)),
        }
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

    /// Of each attached program: nanoseconds spent in it and how often it ran; both 0 where the
    /// kernel keeps no account (`kernel.bpf_stats_enabled`).
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn run_times(&self) -> Result<Vec<(&'static str, u64, u64)>> {
        let mut out = vec![];
        for name in &self.attached {
            if let Some(program) = self.ebpf.program(name) {
                let info = sys::program_info(program.fd()?.as_fd())?;
                let of = |value: Option<u64>| value.unwrap_or(0);
                out.push((*name, of(info.run_time_ns), of(info.run_cnt)));
            }
        }
        Ok(out)
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
            self.inlined.push(site);
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

fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the BPF object has no map {name}"))
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}"))
}

impl Finish {
    /// Something was lost, or may have been.
    pub fn is_loss(&self) -> bool {
        use loss::{CHECKS, EVIDENCE, EXECS, OUTCOMES, SCOPE, UNASKED};
        let lost = [CHECKS, EVIDENCE, EXECS, OUTCOMES, SCOPE, UNASKED];
        let of = |what: u32| self.loss.get(what as usize).copied().unwrap_or(0);
        lost.into_iter().any(|what| of(what) > 0) || !self.skipped.is_empty()
    }

    /// What came since it was `before`.
    pub fn since(&self, before: &Self) -> Self {
        let was = |what: usize| before.loss.get(what).copied().unwrap_or(0);
        let skipped = self.skipped.iter().filter_map(|(name, n)| {
            let n = n.saturating_sub(before.skipped.get(name).copied().unwrap_or(0));
            (n > 0).then(|| (name.clone(), n))
        });
        Self {
            tallies: vec![],
            loss: (self.loss.iter().enumerate())
                .map(|(what, n)| n.saturating_sub(was(what)))
                .collect(),
            skipped: skipped.collect(),
            unproven: self.unproven.clone(),
        }
    }
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
