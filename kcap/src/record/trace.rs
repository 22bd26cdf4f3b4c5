//! A trace in progress: the tracer, the thread that collects, and what turns a session's share into
//! a capture.

use std::{
    collections::HashMap,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use kcap_common::abi::record::{TREE, exec_flag};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::{
    assemble::Assembler,
    collect::{Collector, Pick},
    kernel::{Config, Finish, Open, Raw, Tracer, object_sha256},
    mask::Mask,
    opened::Opened,
    route::{Router, Seen, Sorting},
    session::Options,
    share::Session,
    subject::{self, monotonic_ns, wall_ns},
};
use crate::{
    capture::{Capture, Clock, Subject, Tool},
    host::{Facts, cgroup::Layout, privileges, symbols::Symbols},
};

/// The settings for a tracer on this host.
///
/// # Errors
/// Where the host's cgroups cannot define a scope.
pub fn config(facts: &Facts, layout: &Layout) -> Config {
    Config {
        preemption: facts.preemption.mode.as_str().into(),
        hierarchy: layout.hierarchy,
        subsystem: layout.subsystem_constant(),
        root: layout.top(),
        mmap_min_addr: facts.mmap_min_addr().unwrap_or(0),
        // An unreadable limit is taken for the largest there is.
        pid_max: facts.pid_max.unwrap_or(1 << 22),
        // Not how many there are: numbers can have gaps.
        cpus: facts.cpus.map_or(4096, |cpus| cpus.ids),
        host_mnt: Facts::host_mount_ns_inode(),
        ..Config::default()
    }
}

/// A trace in progress. Dropped, it detaches everything.
pub struct Trace {
    tracer: Tracer,
    collector: Collector,
    facts: Facts,
    /// How cgroups are laid out.
    pub layout: Layout,
    clock: Clock,
    verify: bool,
    names: Names,
}

/// How a build went, as far as it is seen from outside.
pub struct Ended {
    /// Its status, where it was seen to end.
    pub status: Option<ExitStatus>,
    /// A signal to kcap ended it.
    pub interrupted: bool,
    /// It was killed since it took longer than it may.
    pub timed_out: bool,
    /// `CLOCK_REALTIME` nanoseconds at its start.
    pub started_ns: u64,
    /// How long it took.
    pub duration: Duration,
}

impl Trace {
    /// Loads and attaches; what happens from now on is told.
    ///
    /// # Errors
    /// What the kernel refused, and what to do.
    pub fn start(
        options: &Options,
        open: Open,
        sorting: Sorting,
        note: &mut dyn FnMut(String),
    ) -> Result<(Self, UnboundedReceiver<Seen>)> {
        let facts = Facts::read();
        let layout = Layout::detect()?;
        for path in layout.remove_stale() {
            note(format!(
                "removed {}, left behind by a kcap that was killed",
                path.display()
            ));
        }
        let clock = Clock {
            base_ns: monotonic_ns(),
            base_wall_ns: wall_ns(),
            slice_shift: 20,
        };
        let loading = Instant::now();
        let mut tracer = Tracer::load(Config {
            hook: options.hook,
            matches: options.matches.clone(),
            argv: options.argv,
            environment: !sorting.variables.is_empty(),
            outcomes: options.outcomes,
            verify: options.verify,
            log: options.verbosity > 1,
            open,
            clock_base: clock.base_ns,
            ring_bytes: options.ring_bytes,
            tally_buckets: options.tally_buckets,
            slots: options.slots,
            ..config(&facts, &layout)
        })?;
        if options.verbosity > 0 {
            describe(&tracer, loading.elapsed(), note);
        }
        let ring = tracer.ring()?;
        let (tell, told) = mpsc::unbounded_channel();
        let router = Router::new(clock.base_ns, sorting).within(layout.clone());
        let collector = Collector::start(ring, router, tell, options.keep)?;
        if let Some(keep) = options.keep {
            // Before there is any other thread, which would keep its own.
            privileges::limit(keep).context("cannot give up capabilities that are not needed")?;
        }
        let trace = Self {
            tracer,
            collector,
            facts,
            layout,
            clock,
            verify: options.verify,
            names: Names::default(),
        };
        Ok((trace, told))
    }

    /// Makes a cgroup, by id, define a session of the same number.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn scope(&mut self, cgroup: u64) -> Result<()> {
        self.tracer.scope_cgroup(cgroup)
    }

    /// The `n`th generation, from 1, for a process that was there before.
    pub fn generation(&self, n: u32) -> u32 {
        self.tracer.generation(n)
    }

    /// Takes a process into scope that was there before, as these records tell.
    ///
    /// # Errors
    /// Where it cannot be followed.
    pub fn seed(&mut self, pid: u32, records: [Raw; 2]) -> Result<()> {
        let Raw::Exec(exec) = &records[1] else {
            return Ok(());
        };
        // The kernel side was first.
        if self.tracer.is_scoped(pid) {
            return Ok(());
        }
        let (generation, executor) = (exec.program, exec.flags & exec_flag::EXECUTOR != 0);
        self.collector.put(records.into())?;
        self.tracer.seed(pid, generation, executor)
    }

    /// The sessions that executors opened until now, each with whether `session`, of this command,
    /// had it started.
    ///
    /// # Errors
    /// Where the collector has ended.
    pub fn opened(&self, session: u64, command: Vec<String>) -> Result<Vec<(u64, Opened, bool)>> {
        self.collector.opened(session, command)
    }

    /// Gives the sessions that `pick` picks, all of whose processes have ended, put together to one
    /// capture; `None` where this kernel's hook has to be detached first.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn take(
        &self,
        pick: Pick,
        subject: Subject,
        interrupted: bool,
        mask: &Mask,
        note: &mut dyn FnMut(String),
    ) -> Result<Option<Capture>> {
        match self.tracer.hand_over() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(why) => {
                note(format!(
                    "reports are made once all builds have ended: {why:#}"
                ));
                return Ok(None);
            }
        }
        let so_far = self.tracer.so_far()?;
        let share = self.collector.take(pick)?;
        self.collector.sweep()?;
        let share = assembled(share, self.clock.base_ns);
        let capture = self
            .describe()
            .capture(share, &so_far, subject, interrupted, mask, note);
        Ok(Some(capture))
    }

    /// Keeps nothing of a session, now and later.
    ///
    /// # Errors
    /// Where the collector has ended, or the kernel refuses.
    pub fn forget(&mut self, session: u64) -> Result<()> {
        self.collector.forget(session)?;
        self.unscope(session)
    }

    /// Has nothing more enter a session.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unscope(&mut self, session: u64) -> Result<()> {
        if session & TREE == 0 {
            self.tracer.unscope_cgroup(session)?;
        }
        Ok(())
    }

    /// Takes out one session, as it is. All counts have to be handed over before.
    ///
    /// # Errors
    /// Where the collector has ended.
    pub fn take_out(&self, session: u64) -> Result<Option<Session>> {
        self.collector.take(Box::new(move |id, _| id == session))
    }

    /// Forgets what nothing more can come of. Once for each time that all counts were handed over; gives
    /// how many sessions are left of which nothing is kept.
    ///
    /// # Errors
    /// Where the collector has ended.
    pub fn sweep(&self) -> Result<usize> {
        self.collector.sweep()
    }

    /// Has it looked which processes are no more, where records of their ends were lost.
    ///
    /// # Errors
    /// Where the collector has ended.
    pub fn bury(&self) -> Result<()> {
        self.collector.bury()
    }

    /// Has the kernel side hand over all that it counted; false where that could not be had.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn hand_over(&self) -> Result<bool> {
        self.tracer.hand_over()
    }

    /// What was lost until now.
    ///
    /// # Errors
    /// Where the kernel refuses to be read.
    pub fn so_far(&self) -> Result<Finish> {
        self.tracer.so_far()
    }

    /// Nanoseconds spent in each program and how often it ran, where the kernel keeps account of it.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn run_times(&self) -> Result<Vec<(&'static str, u64, u64)>> {
        self.tracer.run_times()
    }

    /// Has the kernel side hand over what it counted, so that progress can be told.
    pub fn refresh(&self) {
        // Where that fails, progress shows less.
        let _ = self.tracer.hand_over();
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// Where the kernel refuses to be read.
    pub fn finish(self) -> Result<Finished> {
        let trace = self.describe();
        let end = self.tracer.finish()?;
        let mut router = self.collector.stop()?;
        router.settle(&end);
        if self.verify {
            check_agreement(&end.loss)?;
        }
        Ok(Finished { trace, router, end })
    }

    /// What all captures of this trace share.
    pub fn describe(&self) -> Described {
        Described {
            hook: self.tracer.hook().to_string(),
            blind: self.tracer.blind().to_vec(),
            facts: self.facts.clone(),
            layout: self.layout.clone(),
            clock: self.clock.clone(),
            names: self.names.clone(),
        }
    }
}

/// An ended trace.
pub struct Finished {
    /// What all captures share.
    pub trace: Described,
    /// The sessions that were not taken yet.
    pub router: Router,
    /// What was lost, in all.
    pub end: Finish,
}

impl Finished {
    /// Gives the sessions that `pick` picks, put together to one capture.
    pub fn take(
        &mut self,
        pick: Pick,
        subject: Subject,
        interrupted: bool,
        mask: &Mask,
        note: &mut dyn FnMut(String),
    ) -> Capture {
        let share = self.router.split_off(pick);
        let share = assembled(share, self.trace.clock.base_ns);
        (self.trace).capture(share, &self.end, subject, interrupted, mask, note)
    }
}

/// What all captures of a trace share.
#[derive(Clone)]
pub struct Described {
    hook: String,
    blind: Vec<String>,
    facts: Facts,
    layout: Layout,
    clock: Clock,
    names: Names,
}

/// Names of addresses, kept: of many builds most are the same, and the kernel's table is long.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<HashMap<u64, (String, u64)>>>);

/// Most names kept.
const NAMES: usize = 1 << 16;

impl Names {
    fn of(&self, wanted: &[u64]) -> Result<HashMap<u64, (String, u64)>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() > NAMES {
            kept.clear();
        }
        let missing: Vec<u64> = (wanted.iter())
            .filter(|address| !kept.contains_key(address))
            .copied()
            .collect();
        kept.extend(symbolize(&missing)?);
        let named = wanted
            .iter()
            .filter_map(|a| Some((*a, kept.get(a)?.clone())));
        Ok(named.collect())
    }
}

impl Described {
    /// Puts a session's share together.
    pub fn capture(
        &self,
        share: Assembler,
        end: &Finish,
        subject: Subject,
        interrupted: bool,
        mask: &Mask,
        note: &mut dyn FnMut(String),
    ) -> Capture {
        let mut blind = self.blind.clone();
        let mut capture = share.finish(end, mask, &mut |wanted| {
            self.names.of(wanted).unwrap_or_else(|why| {
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
        capture.clock = self.clock.clone();
        capture.host = subject::host(&self.facts, &self.layout, &self.hook, blind, &capture);
        capture.subject = subject;
        capture.interrupted = interrupted;
        capture
    }
}

fn assembled(share: Option<Session>, base: u64) -> Assembler {
    share.map_or_else(|| Assembler::new(base), |session| session.assembler)
}

/// Says how the trace is made.
fn describe(tracer: &Tracer, took: Duration, note: &mut dyn FnMut(String)) {
    let blind = match tracer.blind() {
        [] => "nothing".to_owned(),
        what => what.join(", "),
    };
    note(format!("hook: {}, blind to {blind}", tracer.hook()));
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
