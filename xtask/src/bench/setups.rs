//! What is attached while a check is timed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::bpf::{Empty, Program, programs_of};
use super::probe;
use crate::sh;

/// One way to have the check watched, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Nothing attached.
    Nothing,
    /// A program that does nothing, on `cap_capable`.
    Empty,
    /// Two of them: on `cap_capable` and on `sys_exit`.
    TwoEmpty,
    /// bpftrace counting by name, capability and result.
    Bpftrace,
    /// bpftrace counting by the system call's outcome as well.
    BpftraceOutcome,
    /// kcap tracing the process that is measured.
    Kcap { outcomes: bool },
    /// kcap tracing another.
    KcapElsewhere { outcomes: bool },
}

impl Setup {
    /// All, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Empty,
        Self::TwoEmpty,
        Self::Bpftrace,
        Self::BpftraceOutcome,
        Self::Kcap { outcomes: false },
        Self::Kcap { outcomes: true },
        Self::KcapElsewhere { outcomes: false },
        Self::KcapElsewhere { outcomes: true },
    ];

    /// What it is, in a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached (the whole call)",
            Self::Empty => "empty tp_btf",
            Self::TwoEmpty => "empty tp_btf + empty raw_tp/sys_exit",
            Self::Bpftrace => "bpftrace count()",
            Self::BpftraceOutcome => "bpftrace count() with outcome",
            Self::Kcap { outcomes: false } => "kcap, no outcomes",
            Self::Kcap { outcomes: true } => "kcap",
            Self::KcapElsewhere { outcomes: false } => "kcap elsewhere, no outcomes",
            Self::KcapElsewhere { outcomes: true } => "kcap elsewhere",
        }
    }

    /// The script of those that are bpftrace's.
    pub const fn script(self) -> Option<&'static str> {
        match self {
            Self::Bpftrace => Some(
                "tracepoint:capability:cap_capable { @[comm, args->cap, args->ret] = count(); }",
            ),
            // The capability plus one, so that 0 is none; a granted check's result is 0.
            Self::BpftraceOutcome => Some(
                "tracepoint:capability:cap_capable { @open[tid] = args->cap + 1 - (args->ret << 8); } \
                 tracepoint:raw_syscalls:sys_exit /@open[tid]/ { \
                 @[comm, (@open[tid] & 255) - 1, @open[tid] >> 8, args->ret] = count(); \
                 delete(@open[tid]); }",
            ),
            _ => None,
        }
    }
}

/// Where the measured process runs, and what watches it.
pub struct Bench {
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// kcap's binary.
    pub kcap: PathBuf,
}

impl Bench {
    /// Nanoseconds of one call under `setup`, which is undone before this returns.
    ///
    /// # Errors
    /// Where something cannot be attached, or did not see what was measured.
    pub fn measure(&self, setup: Setup) -> Result<f64> {
        match setup {
            Setup::Nothing => self.probe(),
            Setup::Empty => {
                let _check = Empty::on_cap_capable()?;
                self.probe()
            }
            Setup::TwoEmpty => {
                let _check = Empty::on_cap_capable()?;
                let _exit = Empty::on_sys_exit()?;
                self.probe()
            }
            Setup::Bpftrace | Setup::BpftraceOutcome => {
                let bpftrace = Bpftrace::start(setup.script().unwrap_or_default())?;
                let time = self.probe();
                bpftrace.stop()?;
                time
            }
            Setup::Kcap { outcomes } => self.traced(outcomes),
            Setup::KcapElsewhere { outcomes } => {
                let kcap = Kcap::start(&self.kcap, outcomes)?;
                let time = self.probe();
                kcap.stop()?;
                time
            }
        }
        .with_context(|| format!("cannot measure {}", setup.name()))
    }

    /// The programs that kcap attaches.
    ///
    /// # Errors
    /// Where kcap does not start, or its programs cannot be read.
    pub fn programs(&self) -> Result<Vec<Program>> {
        let kcap = Kcap::start(&self.kcap, true)?;
        let programs = programs_of(kcap.child.id());
        kcap.stop()?;
        programs.map(|all| {
            all.into_iter()
                .filter(|p| p.name.starts_with("kcap_"))
                .collect()
        })
    }

    /// Milliseconds that kcap says loading and attaching took, and the most memory in MB that it
    /// ever held, from one run of a command that does nothing.
    ///
    /// # Errors
    /// Where the run fails, or kcap does not say it.
    pub fn load(&self) -> Result<(f64, f64)> {
        let mut command = kcap(&self.kcap, true);
        command.args(["-v", "--", "true"]);
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.kcap.display()))?;
        let mut said = String::new();
        if let Some(stderr) = &mut child.stderr {
            stderr.read_to_string(&mut said)?;
        }
        let (status, kilobytes) = reap(&child)?;
        ensure!(
            status.success(),
            "`kcap run` failed: {status}: {}",
            said.trim_end()
        );
        let ms = said
            .lines()
            .find_map(|line| {
                line.split_once("loaded and attached in ")?
                    .1
                    .strip_suffix(" ms")
            })
            .and_then(|ms| ms.parse().ok())
            .context("`kcap run -v` does not say how long loading took")?;
        Ok((ms, kilobytes as f64 / 1024.0))
    }

    fn command(&self) -> Result<[String; 4]> {
        let own = env::current_exe().context("cannot find this program's file")?;
        let own = own.to_str().context("this program's path is no UTF-8")?;
        Ok([
            own.into(),
            "bench".into(),
            "--probe".into(),
            self.cpu.to_string(),
        ])
    }

    fn probe(&self) -> Result<f64> {
        let [own, args @ ..] = self.command()?;
        parse(&sh::output(Command::new(own).args(args))?)
    }

    /// The measured process as the command that kcap traces; its report must have every check.
    fn traced(&self, outcomes: bool) -> Result<f64> {
        let file = tempfile::NamedTempFile::new().context("cannot make a file for the report")?;
        let mut command = kcap(&self.kcap, outcomes);
        command.arg("--report").arg(file.path()).arg("--");
        let time = parse(&sh::output(command.args(self.command()?))?)?;
        let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(file.path())?)
            .context("kcap's report is no JSON")?;
        let capabilities = report["capabilities"].as_array();
        let counted = capabilities
            .into_iter()
            .flatten()
            .find(|c| c["number"] == probe::CAPABILITY)
            .and_then(|c| c["granted"].as_u64());
        if counted != Some(probe::CHECKS) || report["complete"] != true {
            bail!(
                "kcap counted {} of {} checks (complete: {}): the figure would mean nothing",
                counted.unwrap_or(0),
                probe::CHECKS,
                report["complete"]
            );
        }
        Ok(time)
    }
}

fn parse(output: &str) -> Result<f64> {
    let time: f64 = output
        .trim()
        .parse()
        .with_context(|| format!("{output:?} is no time"))?;
    ensure!(time.is_finite() && time > 0.0, "{time} ns cannot be");
    Ok(time)
}

fn kcap(binary: &Path, outcomes: bool) -> Command {
    let mut command = Command::new(binary);
    command.args(["run", "--quiet"]);
    if !outcomes {
        command.arg("--no-outcome");
    }
    command
}

/// Waits for the end of `child`; its status, and the most memory in kB that it held.
pub(super) fn reap(child: &Child) -> Result<(ExitStatus, i64)> {
    let mut status = 0;
    // SAFETY: all-zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both are written by the kernel and live for the call; nobody else waits for it.
        let r = unsafe {
            libc::wait4(
                child.id() as libc::pid_t,
                &raw mut status,
                0,
                &raw mut usage,
            )
        };
        if r >= 0 {
            return Ok((ExitStatusExt::from_raw(status), usage.ru_maxrss));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for kcap");
        }
    }
}

/// kcap tracing a command that waits.
struct Kcap {
    child: Child,
}

impl Kcap {
    fn start(binary: &Path, outcomes: bool) -> Result<Self> {
        let mut child = kcap(binary, outcomes)
            .args(["--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        // What comes back has passed through the command: it runs, and everything is attached.
        let mut back = [0; 6];
        let ready = match (&mut child.stdin, &mut child.stdout) {
            (Some(to), Some(from)) => to
                .write_all(b"ready\n")
                .and_then(|()| from.read_exact(&mut back)),
            _ => Ok(()),
        };
        let kcap = Self { child };
        match ready {
            Ok(()) => Ok(kcap),
            Err(error) => {
                // Where kcap itself failed, that is what is to be told.
                kcap.stop()?;
                Err(error).context("the command that kcap traces did not start")
            }
        }
    }

    fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().context("cannot wait for kcap")?;
        ensure!(status.success(), "`kcap run` failed: {status}");
        Ok(())
    }
}

/// A running script of bpftrace's.
struct Bpftrace {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Bpftrace {
    fn start(script: &str) -> Result<Self> {
        // BEGIN runs once everything is attached.
        let script = format!("BEGIN {{ printf(\"ready\\n\"); }} {script}");
        let mut command = Command::new("bpftrace");
        command
            .args(["-B", "line", "-e", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec: system calls only, no allocation.
        unsafe { command.pre_exec(with_tracefs) };
        let mut child = command.spawn().context("cannot run bpftrace")?;
        let output = child.stdout.take().context("bpftrace has no output")?;
        let mut bpftrace = Self {
            child,
            output: BufReader::new(output),
        };
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            if bpftrace.output.read_line(&mut line)? == 0 {
                let status = bpftrace.child.wait()?;
                bail!("bpftrace did not attach: {status}: {script}");
            }
        }
        Ok(bpftrace)
    }

    /// Detaches, and looks whether it has counted what was measured.
    fn stop(mut self) -> Result<()> {
        let (status, text) = thread::scope(|scope| {
            let output = scope.spawn(|| io::read_to_string(&mut self.output));
            let status = end(&mut self.child);
            (status, output.join())
        });
        let status = status.context("cannot end bpftrace")?;
        let text = text.map_err(|_| anyhow!("reading bpftrace's output panicked"))??;
        ensure!(status.success(), "bpftrace failed: {status}");
        let ours = format!(", {}, 0", probe::CAPABILITY);
        let counted: u64 = text
            .lines()
            .filter_map(|line| line.rsplit_once("]: "))
            .filter(|(key, _)| key.contains(&ours))
            .filter_map(|(_, n)| n.parse::<u64>().ok())
            .sum();
        ensure!(
            counted >= probe::CHECKS,
            "bpftrace counted {counted} of {} checks: the figure would mean nothing",
            probe::CHECKS
        );
        Ok(())
    }
}

/// Interrupts bpftrace, once more where that went unheard: a second interrupt while it prints what it
/// has counted would cut that short.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    const ATTEMPTS: u32 = 3;
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..ATTEMPTS {
        // SAFETY: integers; the process is our child and not waited for yet.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
        let interrupted = Instant::now();
        while interrupted.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(PAUSE);
        }
    }
    child.kill()?;
    child.wait()
}

/// Gives this process a tracefs, which bpftrace looks names up in, where the host mounts none: in a
/// mount namespace of its own, so that the host stays as it is.
fn with_tracefs() -> io::Result<()> {
    const PLACE: &std::ffi::CStr = c"/sys/kernel/tracing";
    // SAFETY: the strings are static, and null is allowed where it is given.
    unsafe {
        if libc::access(c"/sys/kernel/tracing/events".as_ptr(), libc::F_OK) == 0 {
            return Ok(());
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let (none, null) = (c"none".as_ptr(), std::ptr::null());
        if libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(none, c"/".as_ptr(), null, private, std::ptr::null()) != 0
            || libc::mount(
                none,
                PLACE.as_ptr(),
                c"tracefs".as_ptr(),
                0,
                std::ptr::null(),
            ) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
