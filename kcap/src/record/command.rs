//! The traced command: started inside its cgroup, waited for, ended where a signal says so.

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeWriter, Read as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    process::Stdio,
    ptr,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Failure,
    signals::{Caught, Signals},
    subject::wall_ns,
    trace::Ended,
};
use crate::host::cgroup::{self, Cgroup};

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most characters of a command's name in an error.
const NAME: usize = 200;

/// A command to start.
pub struct Start<'a> {
    /// Program and arguments.
    pub command: &'a [OsString],
    /// The cgroup that it runs in.
    pub group: &'a Cgroup,
    /// On an interrupt what it started is killed, in place of passing the signal on.
    pub killed: bool,
    /// Its working folder, if not kcap's.
    pub directory: Option<&'a Path>,
    /// Signals that it starts with blocked.
    pub blocked: libc::sigset_t,
    /// How long it may take to end after a signal, before it is killed.
    pub grace: Duration,
    /// How long it may run, before it is killed.
    pub timeout: Option<Duration>,
    /// Where its output goes, standard output and error alike; `None`: where kcap's goes.
    pub output: Option<PipeWriter>,
}

/// Runs the command to its end. A signal to kcap is passed on to it; after a second one, or where it
/// takes longer than the grace time to end, it is killed.
///
/// # Errors
/// Where it could not be started.
pub async fn run(
    start: Start<'_>,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Ended, Failure> {
    let listener = signals.listen().context("cannot listen for signals")?;
    let (send, interrupts) = watch::channel(Interrupts::default());
    let mut running = std::pin::pin!(supervise(start, interrupts, &|| (), note));
    if let Some(caught) = signals.pending() {
        send.send_modify(|interrupts| interrupts.add(caught));
    }
    let mut ended = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            caught = listener.next() => {
                let caught = caught.context("cannot listen for signals")?;
                send.send_modify(|interrupts| interrupts.add(caught));
            }
        }
    };
    // A signal to the whole group can end the command before kcap looks at its own.
    ended.interrupted |= signals.pending().is_some();
    Ok(ended)
}

/// Signals to kcap since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interrupts {
    /// How many.
    pub count: u32,
    last: Option<Caught>,
}

impl Interrupts {
    /// Notes one more.
    pub fn add(&mut self, caught: Caught) {
        self.count += 1;
        self.last = Some(caught);
    }

    /// Why a command is not started any more, where there was one.
    pub fn refusal(&self) -> Option<Failure> {
        let number = self.last?.number;
        let why = anyhow!("interrupted before it was started");
        Some(Failure::Command(128 + number as u8, why))
    }
}

/// Runs a command to its end, minding `interrupts`. `kill` ends what the command started elsewhere,
/// before the command itself is killed.
///
/// # Errors
/// Where it could not be started.
pub async fn supervise(
    start: Start<'_>,
    mut interrupts: watch::Receiver<Interrupts>,
    kill: &dyn Fn(),
    note: &mut dyn FnMut(String),
) -> Result<Ended, Failure> {
    let (group, grace, killed) = (start.group, start.grace, start.killed);
    let limit = start.timeout;
    if let Some(refusal) = interrupts.borrow_and_update().refusal() {
        return Err(refusal);
    }
    let (started_ns, started) = (wall_ns(), std::time::Instant::now());
    let mut child = spawn(start)?;
    let mut interrupted = false;
    let deadline = sleep(limit.unwrap_or(Duration::MAX));
    tokio::pin!(deadline);
    let ended = |status, interrupted, timed_out| Ended {
        status,
        interrupted,
        timed_out,
        started_ns,
        duration: started.elapsed(),
    };
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.context("cannot wait for the command")?;
                return Ok(ended(Some(status), interrupted, false));
            }
            // Where kcap has stopped listening for signals there will be none.
            Ok(()) = interrupts.changed() => {
                let now = *interrupts.borrow_and_update();
                if interrupted || now.count > 1 {
                    break;
                }
                interrupted = true;
                if killed {
                    kill();
                } else if let Some(caught) = now.last {
                    pass_on(&child, caught);
                }
                deadline.as_mut().reset(Instant::now() + grace);
                note(format!(
                    "interrupted: the command has {} s to end; interrupt again to kill it",
                    grace.as_secs_f32()
                ));
            }
            () = &mut deadline, if interrupted || limit.is_some() => break,
        }
    }
    kill();
    // Where it is gone by now there is nothing to kill.
    let _ = child.start_kill();
    let _ = group.kill(PATIENCE);
    let status = match timeout(PATIENCE, child.wait()).await {
        Ok(status) => Some(status.context("cannot wait for the command")?),
        Err(_) => {
            note("the command does not end although it was killed: it is left alone".into());
            None
        }
    };
    Ok(ended(status, interrupted, !interrupted))
}

/// Ends what the command left running.
pub fn end_rest(group: &Cgroup, note: &mut dyn FnMut(String)) {
    let left = group.pids().unwrap_or_default().len();
    if left == 0 {
        return;
    }
    match group.kill(PATIENCE) {
        Ok(()) => note(match left {
            1 => "the command left a process running: killed".into(),
            n => format!("the command left {n} processes running: killed"),
        }),
        Err(e) => note(format!("cannot end what the command left running: {e}")),
    }
}

/// Sends the signal to the command, unless the terminal did.
fn pass_on(child: &Child, caught: Caught) {
    let Some(pid) = child.id().map(|pid| pid as i32) else {
        return;
    };
    // SAFETY: numbers only; the child is not reaped yet, so the id is its own.
    unsafe {
        if caught.from_terminal && libc::getpgid(pid) == libc::getpgrp() {
            return;
        }
        libc::kill(pid, caught.number);
    }
}

/// Starts the command inside the cgroup: the child moves itself there before it executes anything,
/// so that its program is in scope from its first instruction.
fn spawn(start: Start<'_>) -> Result<Child, Failure> {
    let Start { group, blocked, .. } = start;
    let (program, args) = start
        .command
        .split_first()
        .context("no command given: kcap run -- COMMAND")?;
    let procs = group
        .procs()
        .try_clone_to_owned()
        .context("cannot keep the cgroup open")?;
    // Tells what failed, where something did: entering the cgroup, or executing the program.
    let (mut entered, enters) = io::pipe().context("cannot make a pipe")?;
    let parent = std::process::id();
    let mut command = Command::new(program);
    command.args(args);
    if let Some(directory) = start.directory {
        command.current_dir(directory);
    }
    if let Some(output) = start.output {
        let again = output.try_clone().context("cannot share a pipe")?;
        // In a group of its own: what a key at the terminal does to it is kcap's to say.
        (command.stdin(Stdio::null()).stdout(output).stderr(again)).process_group(0);
    }
    // SAFETY: between fork and exec, only system calls are made.
    unsafe {
        command.pre_exec(move || {
            // Where kcap is killed, the build is not left running untraced.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut());
            cgroup::enter(procs.as_fd())?;
            libc::write(enters.as_raw_fd(), b"1".as_ptr().cast(), 1);
            Ok(())
        });
    }
    command.spawn().map_err(|error| {
        // With its last writer gone, the pipe ends.
        drop(command);
        match entered.read(&mut [0]) {
            Ok(1) => not_started(program, &error),
            _ => Failure::Kcap(anyhow!(
                "cannot move the command into {}: {error}: see kcap doctor",
                group.path().display()
            )),
        }
    })
}

/// Why the program was not executed, with the code that a shell gives.
fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    let text = program.to_string_lossy();
    let mut name: String = text.chars().take(NAME).collect();
    if name.len() < text.len() {
        name.push('…');
    }
    let is_path = program.as_encoded_bytes().contains(&b'/');
    let (code, why) = match error.kind() {
        io::ErrorKind::NotFound if is_path && Path::new(program).exists() => (
            126,
            "the interpreter or loader that it names does not exist: install it".into(),
        ),
        io::ErrorKind::NotFound if is_path => {
            (127, "there is no such file: correct the path".into())
        }
        io::ErrorKind::NotFound => (
            127,
            "not found: give a path, or a name that is in PATH".into(),
        ),
        io::ErrorKind::PermissionDenied => (
            126,
            "permission denied: give a file that is executable (chmod +x)".into(),
        ),
        io::ErrorKind::ArgumentListTooLong => (
            126,
            "its arguments and environment are too long: shorten them".into(),
        ),
        _ => (126, format!("{error}: try it without kcap")),
    };
    Failure::Command(code, anyhow!("cannot run {name}: {why}"))
}
