//! One traced command, from before its first instruction to after its last.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    assemble::Assembler,
    collect::Collector,
    command,
    kernel::{Choice, Config, Tracer, object_sha256},
    signals::Signals,
    subject::{host, monotonic_ns, subject, wall_ns},
};
use crate::{
    capture::{Capture, Clock, Tool},
    host::{
        Facts,
        cgroup::{Cgroup, Layout},
        symbols::Symbols,
    },
};

/// How long the empty cgroup may take to be removable.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to trace, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Hook to use.
    pub hook: Choice,
    /// Paths that make a program the executor.
    pub matches: Vec<String>,
    /// Record argument vectors.
    pub argv: bool,
    /// Settle outcomes at `sys_exit`.
    pub outcomes: bool,
    /// Recompute every result and compare; a disagreement is an error.
    pub verify: bool,
    /// Bytes of the ring buffer.
    pub ring_bytes: u32,
    /// Buckets of the tally table.
    pub tally_buckets: u32,
    /// Outcome slots.
    pub slots: u32,
    /// The Dockerfile that the command builds, if known.
    pub dockerfile: Option<(PathBuf, Vec<u8>)>,
    /// Its build context, if known.
    pub context: Option<String>,
    /// How long the command may take to end after a signal, before it is killed.
    pub grace: Duration,
    /// How much to say: 0 what people must know, 1 also how the trace is made, 2 also the log of the
    /// kernel side.
    pub verbosity: u8,
}

/// Why there is no capture.
#[derive(Debug)]
pub enum Failure {
    /// The command was not started: 126 or 127, or 128 and a signal's number, as a shell says it.
    Command(u8, anyhow::Error),
    /// kcap itself failed.
    Kcap(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self::Kcap(e)
    }
}

/// Runs the command to its end, or to a signal, and gives what was seen. `note` gets lines for
/// people.
///
/// # Errors
/// [`Failure`]; nothing is left behind then.
pub fn run(
    options: &Options,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Capture, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(trace(options, signals, note))
}

/// The settings for a tracer on this host.
///
/// # Errors
/// Where the host's cgroups cannot define a scope.
pub fn config(facts: &Facts, layout: &Layout) -> Config {
    Config {
        preemption: facts.preemption.mode.as_str().into(),
        hierarchy: layout.hierarchy,
        subsystem: layout.subsystem_constant(),
        mmap_min_addr: facts.mmap_min_addr().unwrap_or(0),
        // An unreadable limit is taken for the largest there is.
        pid_max: facts.pid_max.unwrap_or(1 << 22),
        // Not how many there are: numbers can have gaps.
        cpus: facts.cpus.map_or(4096, |cpus| cpus.ids),
        ..Config::default()
    }
}

async fn trace(
    options: &Options,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Capture, Failure> {
    let facts = Facts::read();
    let layout = Layout::detect()?;
    for path in layout.remove_stale() {
        note(format!(
            "removed {}, left behind by a kcap that was killed",
            path.display()
        ));
    }
    let group = Cgroup::create(&layout)?;
    let base = monotonic_ns();
    let base_wall = wall_ns();
    let loading = Instant::now();
    let mut tracer = Tracer::load(Config {
        hook: options.hook,
        matches: options.matches.clone(),
        argv: options.argv,
        outcomes: options.outcomes,
        verify: options.verify,
        log: options.verbosity > 1,
        clock_base: base,
        ring_bytes: options.ring_bytes,
        tally_buckets: options.tally_buckets,
        slots: options.slots,
        ..config(&facts, &layout)
    })?;
    tracer.scope_cgroup(group.id(), 1)?;
    if options.verbosity > 0 {
        describe(&tracer, &group, loading.elapsed(), note);
    }
    let collector = Collector::start(tracer.ring()?, Assembler::new(base))?;

    let started = Instant::now();
    let ended = command::run(&options.command, &group, signals, options.grace, note).await;
    let duration = started.elapsed();
    // Whatever came of it, nothing is left running.
    command::end_rest(&group, note);
    let ended = ended?;

    let hook = tracer.hook();
    let mut blind = tracer.blind().to_vec();
    let finish = tracer.finish()?;
    // What was seen is worth more than a group that stays behind.
    if let Err(e) = group.remove(PATIENCE) {
        note(format!("{e:#}"));
    }
    let assembler = collector.stop()?;
    if options.verify {
        check_agreement(&finish.loss)?;
    }

    let mut capture = assembler.finish(finish, &mut |wanted| {
        symbolize(wanted).unwrap_or_else(|why| {
            note(format!(
                "call paths have no names, and more is unsure: {why:#}"
            ));
            blind.push("symbols".into());
            HashMap::new()
        })
    });
    capture.tool = Tool {
        name: "kcap".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        abi: kcap_common::abi::ABI_VERSION,
        object: object_sha256().into(),
    };
    capture.clock = Clock {
        base_ns: base,
        base_wall_ns: base_wall,
        slice_shift: 20,
    };
    capture.host = host(&facts, &layout, hook.name(), blind, &capture);
    capture.subject = subject(options, ended.status, base_wall, duration);
    capture.interrupted = ended.interrupted;
    Ok(capture)
}

/// Says how the trace is made.
fn describe(tracer: &Tracer, group: &Cgroup, took: Duration, note: &mut dyn FnMut(String)) {
    let blind = match tracer.blind() {
        [] => "nothing".to_owned(),
        what => what.join(", "),
    };
    note(format!("hook: {}, blind to {blind}", tracer.hook()));
    note(format!("scope: {}", group.path().display()));
    note(format!("loaded and attached in {} ms", took.as_millis()));
}

fn check_agreement(counters: &[u64]) -> Result<()> {
    use kcap_common::abi::loss::{COMPARED, DISAGREE};
    let of = |what: u32| counters.get(what as usize).copied().unwrap_or(0);
    if of(DISAGREE) != 0 {
        return Err(anyhow!(
            "the recomputed result differs from the kernel's in {} of {} checks: please report it",
            of(DISAGREE),
            of(COMPARED)
        ));
    }
    if of(COMPARED) == 0 {
        return Err(anyhow!(
            "no result was compared: this hook computes it, or saw no check"
        ));
    }
    Ok(())
}

/// Names addresses by the kernel's own table.
fn symbolize(wanted: &[u64]) -> Result<HashMap<u64, (String, u64)>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let symbols = Symbols::of_kernel(wanted).context("cannot read /proc/kallsyms (mount /proc)")?;
    if symbols.hidden() {
        return Err(anyhow!(
            "the kernel hides its symbols: set kernel.kptr_restrict to 1, and run with CAP_SYSLOG"
        ));
    }
    let named = wanted.iter().filter_map(|&address| {
        let (name, offset) = symbols.get(address)?;
        Some((address, (name.to_owned(), offset)))
    });
    Ok(named.collect())
}
