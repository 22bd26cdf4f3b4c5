//! One traced command, from before its first instruction to after its last, with the containers
//! that an engine started for it.

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::{
    command::{self, Start},
    kernel::{Choice, Open},
    late,
    mask::Mask,
    opened::Opened,
    route::Sorting,
    signals::Signals,
    subject,
    trace::Trace,
};
use crate::{capture::Capture, host::cgroup::Cgroup};

/// How long the empty cgroup may take to be removable.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a container that outlasts its command.
const PAUSE: Duration = Duration::from_millis(20);

/// How to trace.
#[derive(Clone, Debug)]
pub struct Options {
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
    /// How long a command may take to end after a signal, before it is killed.
    pub grace: Duration,
    /// What is kept of kcap's own capabilities once all is loaded, as a mask; all where `None`.
    pub keep: Option<u64>,
    /// How much to say: 0 what people must know, 1 also how the trace is made, 2 also the log of the
    /// kernel side.
    pub verbosity: u8,
}

/// A command to trace.
#[derive(Clone, Debug)]
pub struct Run {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// The Dockerfile that it builds, if known.
    pub dockerfile: Option<(PathBuf, Vec<u8>)>,
    /// Its build context, if known.
    pub context: Option<String>,
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
    run: &Run,
    options: &Options,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Capture, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(trace(run, options, signals, note))
}

async fn trace(
    run: &Run,
    options: &Options,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Capture, Failure> {
    let (mut trace, told) = Trace::start(options, Open::Executors, Sorting::default(), note)?;
    // Nobody shows progress: the command has the terminal.
    drop(told);
    let group = Cgroup::create(&trace.layout)?;
    trace.scope(group.id())?;
    if options.verbosity > 0 {
        note(format!("scope: {}", group.path().display()));
    }
    let start = Start {
        timeout: None,
        command: &run.command,
        group: &group,
        directory: None,
        killed: false,
        blocked: signals.before(),
        grace: options.grace,
        output: None,
    };
    let ended = command::run(start, signals, note).await;
    // Whatever came of it, nothing is left running.
    command::end_rest(&group, note);
    let mut ended = ended?;
    // A terminal's signal goes to both, and the command may be over before kcap has read its own.
    let failed = !ended.status.is_some_and(|status| status.success());
    ended.interrupted |= failed && signals.pending().is_some();
    let session = group.id();
    let command = (run.command.iter()).map(|arg| arg.to_string_lossy().into_owned());
    let theirs = containers(&trace.opened(session, command.collect())?, note);
    ended.interrupted |= outlast(&trace, &theirs, ended.interrupted, signals, note).await?;
    let finished = trace.finish();
    // What was seen is worth more than a group that stays behind.
    if let Err(e) = group.remove(PATIENCE) {
        note(format!("{e:#}"));
    }
    let mut finished = finished?;
    let (shown, secrets) = subject::masked(&run.command);
    let interrupted = ended.interrupted;
    let is_theirs = move |id| id == session || theirs.contains(&id);
    let dockerfile = (run.dockerfile.clone()).or_else(|| finished.router.dockerfile(&is_theirs));
    let subject = subject::subject(shown, dockerfile.as_ref(), run.context.clone(), &ended);
    Ok(finished.take(
        Box::new(move |id, _| is_theirs(id)),
        subject,
        interrupted,
        &Mask::new(secrets),
        note,
    ))
}

/// Waits for containers that outlast the command, as one that was started in the background does. A
/// signal ends the wait and nothing else; says whether one came.
async fn outlast(
    trace: &Trace,
    theirs: &[u64],
    mut interrupted: bool,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<bool> {
    let listener = signals.listen().context("cannot listen for signals")?;
    let opened = trace.opened(0, vec![])?;
    let mut said = false;
    for (_, opened, _) in opened.iter().filter(|(id, ..)| theirs.contains(id)) {
        let began = Instant::now();
        while !interrupted && late::is_populated(&opened.cgroups, &trace.layout) {
            if !said && began.elapsed() > PATIENCE {
                said = true;
                note("the command has ended and its container has not: waiting for it".into());
            }
            tokio::select! {
                caught = listener.next() => {
                    caught.context("cannot listen for signals")?;
                    interrupted = true;
                }
                () = sleep(PAUSE) => {}
            }
        }
    }
    Ok(interrupted)
}

/// The sessions of containers that a daemon started for the command. Others on this host may have
/// started some at the same time; those are left out.
fn containers(opened: &[(u64, Opened, bool)], note: &mut dyn FnMut(String)) -> Vec<u64> {
    let theirs = (opened.iter()).filter(|(_, _, started)| *started);
    let theirs: Vec<u64> = theirs.map(|(id, ..)| *id).collect();
    let others = opened.len() - theirs.len();
    if others > 0 {
        note(format!(
            "left out {others} of {} containers with an executor that were started meanwhile: no \
             client of an engine that this command ran started them, by its arguments; --container \
             attaches to one",
            opened.len()
        ));
    }
    if theirs.len() > 1 {
        note(format!(
            "{} containers with an executor were started: all of them are in this report",
            theirs.len()
        ));
    }
    theirs
}
