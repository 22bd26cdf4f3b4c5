//! One traced command, from before its first instruction to after its last.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io::unix::AsyncFd,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    assemble::Assembler,
    filecaps::Reader,
    kernel::{Choice, Config, Tracer, object_sha256},
};
use crate::{
    capture::{Capture, Clock, Host, Subject, Tool},
    host::{
        Facts,
        cgroup::{self, Cgroup, Layout},
        symbols::Symbols,
    },
};

/// How often the ring buffer is looked at where nothing wakes kcap.
const TICK: Duration = Duration::from_millis(20);
/// How long the command may take to end after a signal, before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long processes that were killed may take to be gone.
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
}

/// Why there is no capture.
#[derive(Debug)]
pub enum Failure {
    /// The command could not be started: 126 or 127, as a shell says it.
    Command(u8, anyhow::Error),
    /// kcap itself failed.
    Kcap(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self::Kcap(e)
    }
}

/// Runs the command to its end and gives what was seen. `note` gets lines for people.
///
/// # Errors
/// [`Failure`]; nothing is left behind then.
pub fn run(options: &Options, note: &mut dyn FnMut(String)) -> Result<Capture, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(trace(options, note))
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
        ..Config::default()
    }
}

async fn trace(options: &Options, note: &mut dyn FnMut(String)) -> Result<Capture, Failure> {
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
    let mut tracer = Tracer::load(Config {
        hook: options.hook,
        matches: options.matches.clone(),
        argv: options.argv,
        outcomes: options.outcomes,
        verify: options.verify,
        clock_base: base,
        ring_bytes: options.ring_bytes,
        tally_buckets: options.tally_buckets,
        slots: options.slots,
        ..config(&facts, &layout)
    })?;
    tracer.scope_cgroup(group.id(), 1)?;
    let ring = tracer.ring()?;
    // SAFETY: the descriptor is the map's own, which `Ring` keeps open as long as it lives, and
    // always the same.
    let mut ring = unsafe { AsyncFd::register(ring) }.context("cannot wait for the ring buffer")?;
    let mut signals = Signals::new()?;

    let started = Instant::now();
    let mut child = spawn(options, &group)?;
    let mut assembler = Assembler::new(base);
    let mut files = Reader::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = false;
    let status = loop {
        let mut signalled = None;
        tokio::select! {
            status = child.wait() => break status.context("cannot wait for the command")?,
            guard = ring.readable() => guard.context("cannot wait for the ring buffer")?.clear_ready(),
            _ = tick.tick() => {}
            which = signals.next() => signalled = Some(which),
        }
        drain(&mut ring, &mut assembler, &mut files);
        if let Some(which) = signalled {
            interrupted = true;
            break end(
                &mut child,
                which,
                &group,
                &mut ring,
                &mut assembler,
                &mut files,
            )
            .await?;
        }
    };
    let duration = started.elapsed();
    drain(&mut ring, &mut assembler, &mut files);

    let left = group.pids().unwrap_or_default();
    if !left.is_empty() {
        note(format!(
            "the command left {} processes running: ended",
            left.len()
        ));
        group
            .kill(PATIENCE)
            .context("cannot end what the command left running")?;
        drain(&mut ring, &mut assembler, &mut files);
    }
    let hook = tracer.hook();
    let blind = tracer.blind().to_vec();
    let finish = tracer.finish()?;
    drain(&mut ring, &mut assembler, &mut files);
    if options.verify {
        check_agreement(&finish.loss)?;
    }

    let mut capture = assembler.finish(finish, &mut symbolize);
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
    capture.subject = subject(options, status, base_wall, duration);
    capture.interrupted = interrupted;
    group.remove(PATIENCE)?;
    Ok(capture)
}

/// Hands what is in the ring buffer to the assembler.
fn drain(ring: &mut AsyncFd<super::kernel::Ring>, assembler: &mut Assembler, files: &mut Reader) {
    let unknown = ring
        .get_mut()
        .drain(|raw| assembler.take(raw, &mut |file| files.read(file)));
    assembler.unknown(unknown);
}

/// Starts the command inside the cgroup: the child moves itself there before it executes anything,
/// so that its program is in scope from its first instruction.
fn spawn(options: &Options, group: &Cgroup) -> Result<Child, Failure> {
    let Some((program, args)) = options.command.split_first() else {
        return Err(Failure::Kcap(anyhow!(
            "no command given: kcap run -- COMMAND"
        )));
    };
    let procs = group
        .procs()
        .try_clone_to_owned()
        .context("cannot keep the cgroup open")?;
    let parent = std::process::id();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::inherit());
    // SAFETY: between fork and exec, only system calls are made.
    unsafe {
        command.pre_exec(move || {
            // Where kcap is killed, the build is not left running untraced.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            cgroup::enter(procs.as_fd())
        });
    }
    command.spawn().map_err(|e| {
        let name = program.to_string_lossy();
        let name: String = name
            .chars()
            .flat_map(char::escape_debug)
            .take(200)
            .collect();
        match e.kind() {
            io::ErrorKind::NotFound => Failure::Command(
                127,
                anyhow!("cannot run {name}: not found: give a path, or a name that is in PATH"),
            ),
            io::ErrorKind::PermissionDenied => Failure::Command(
                126,
                anyhow!("cannot run {name}: permission denied: is it an executable file?"),
            ),
            _ => Failure::Command(126, anyhow!("cannot run {name}: {e}")),
        }
    })
}

/// Passes a signal on, then waits; kills after a second signal or [`GRACE`].
async fn end(
    child: &mut Child,
    which: SignalKind,
    group: &Cgroup,
    ring: &mut AsyncFd<super::kernel::Ring>,
    assembler: &mut Assembler,
    files: &mut Reader,
) -> Result<ExitStatus> {
    let mut signals = Signals::new()?;
    if let Some(pid) = child.id() {
        // SAFETY: the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(pid as i32, which.as_raw_value()) };
    }
    let mut tick = interval(TICK);
    let deadline = tokio::time::sleep(GRACE);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            status = child.wait() => return status.context("cannot wait for the command"),
            _ = tick.tick() => drain(ring, assembler, files),
            _ = signals.next() => break,
            () = &mut deadline => break,
        }
    }
    child.start_kill().ok();
    group.kill(PATIENCE).ok();
    timeout(PATIENCE, child.wait())
        .await
        .map_err(|_| anyhow!("the command does not end although it was killed"))?
        .context("cannot wait for the command")
}

/// The signals that end a trace.
struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            int: on(SignalKind::interrupt())?,
            term: on(SignalKind::terminate())?,
            hup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.int.recv() => SignalKind::interrupt(),
            _ = self.term.recv() => SignalKind::terminate(),
            _ = self.hup.recv() => SignalKind::hangup(),
        }
    }
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

fn symbolize(wanted: &[u64]) -> HashMap<u64, (String, u64)> {
    // Unreadable symbols leave addresses without names, which the report shows as such.
    let Ok(symbols) = Symbols::of_kernel(wanted) else {
        return HashMap::new();
    };
    wanted
        .iter()
        .filter_map(|&a| {
            symbols
                .get(a)
                .map(|(name, offset)| (a, (name.to_owned(), offset)))
        })
        .collect()
}

fn host(
    facts: &Facts,
    layout: &Layout,
    hook: &str,
    mut blind: Vec<String>,
    capture: &Capture,
) -> Host {
    blind.sort();
    let first = capture.programs.iter().find_map(|p| p.exec.as_ref());
    Host {
        kernel: facts.kernel.clone(),
        arch: facts.arch.clone(),
        hook: hook.into(),
        cgroup: layout.kind.as_str().into(),
        blind,
        preemption: facts.preemption.mode.as_str().into(),
        lsm: facts.lsm.clone().unwrap_or_default(),
        seccomp: match first {
            Some(e) if e.seccomp => "filter",
            Some(_) => "none",
            None => "unknown",
        }
        .into(),
        sysctl: facts.sysctl.clone(),
        user_ns: Facts::initial_user_ns_inode(),
    }
}

fn subject(options: &Options, status: ExitStatus, wall_ns: u64, duration: Duration) -> Subject {
    use sha2::{Digest as _, Sha256};
    let dockerfile = options.dockerfile.as_ref();
    Subject {
        command: options
            .command
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect(),
        dockerfile: dockerfile.map(|(path, _)| path.to_string_lossy().into_owned()),
        dockerfile_text: dockerfile.map(|(_, text)| String::from_utf8_lossy(text).into_owned()),
        dockerfile_sha256: dockerfile.map(|(_, text)| {
            Sha256::digest(text)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect()
        }),
        context: options.context.clone(),
        exit_status: Some(
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        ),
        started: rfc3339(wall_ns),
        duration_ms: duration.as_millis() as u64,
    }
}

/// `CLOCK_MONOTONIC`, the clock of every kernel-side time.
fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME`.
fn wall_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both clocks exist on every Linux; `t` is a timespec.
    unsafe { libc::clock_gettime(id, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A time since the epoch as RFC 3339 in UTC, to the millisecond.
fn rfc3339(ns: u64) -> String {
    let (secs, ms) = (ns / 1_000_000_000, ns / 1_000_000 % 1000);
    let (days, rest) = (secs / 86400, secs % 86400);
    // Days to a date, after Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_123_000_000), "2000-02-28T23:59:59.123Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(
            rfc3339(1_798_761_599_999_000_000),
            "2026-12-31T23:59:59.999Z"
        );
    }
}
