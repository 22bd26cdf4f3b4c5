//! One build's container: made, run to its end, and what it writes passed on. Its task shares nothing with
//! the loop that started it but what it was given, and says what happens.

use std::{cell::OnceCell, io, rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    sync::{mpsc::UnboundedSender, watch},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::{Instant, sleep, timeout},
};

use super::{
    Failure,
    command::{self, Interrupts, Start},
    mask::Mask,
    trace::Ended,
};
use crate::{host::cgroup::Cgroup, launch::Launch};

/// Longest line of output that is kept, in bytes.
const LINE: usize = 4096;
/// How long output may still come once a build has ended and all of its processes are gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long what an engine does after its container has ended may take.
const CLEAN_UP: Duration = Duration::from_secs(1);
/// Between two looks at whether it is done.
const PAUSE: Duration = Duration::from_millis(2);

/// How its container comes about.
pub enum Making {
    /// It is being made.
    Begun(JoinHandle<Result<Launch>>),
    /// Not before its turn.
    Later(Box<dyn FnOnce() -> Result<Launch> + Send>),
}

impl Making {
    /// What makes it, from now on.
    pub fn begin(self) -> JoinHandle<Result<Launch>> {
        match self {
            Self::Begun(making) => making,
            Self::Later(make) => spawn_blocking(make),
        }
    }
}

/// What the task of a build tells the loop.
pub enum Told {
    /// A line of the command's output.
    Output(String),
    /// A line for people.
    Note(String),
    /// Its command has ended, or was not started.
    Ended(Result<Ended, Failure>),
}

/// Where the task of a build says what happens.
#[derive(Clone)]
pub struct Tell {
    /// Which build.
    pub position: usize,
    /// Who listens.
    pub to: UnboundedSender<(usize, Told)>,
}

impl Tell {
    fn say(&self, what: Told) {
        // The loop listens as long as a build runs.
        let _ = self.to.send((self.position, what));
    }
}

/// Runs one build.
pub struct Task {
    /// Where its command runs.
    pub group: Rc<Cgroup>,
    /// Filled once the container is made.
    pub launch: Rc<OnceCell<Launch>>,
    /// Signals that the command starts with blocked.
    pub blocked: libc::sigset_t,
    /// How long it may take to end after a signal.
    pub grace: Duration,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Signals to kcap.
    pub interrupts: watch::Receiver<Interrupts>,
    /// What it tells.
    pub tell: Tell,
}

impl Task {
    /// Runs it; the last thing that it tells is [`Told::Ended`].
    pub async fn run(self, launch: Making) {
        let tell = self.tell.clone();
        let ended = self.build(launch).await;
        // The last thing: by the time the loop hears it, all that was shared is the loop's alone.
        tell.say(Told::Ended(ended));
    }

    async fn build(mut self, launch: Making) -> Result<Ended, Failure> {
        // An image may have to be fetched first, which takes its time.
        let made = tokio::select! {
            made = launch.begin() => made.context("making the container panicked")??,
            Some(refusal) = refused(&mut self.interrupts) => return Err(refusal),
        };
        let launch = self.launch.get_or_init(|| made);
        for line in &launch.notes {
            self.tell.say(Told::Note(line.clone()));
        }
        let mask = Mask::new(launch.secrets.clone());
        let (output, written) = io::pipe().context("cannot make a pipe")?;
        let start = Start {
            command: &launch.command,
            group: &self.group,
            directory: launch.directory.as_deref(),
            killed: launch.container.killed_on_interrupt(),
            blocked: self.blocked,
            grace: self.grace,
            timeout: self.timeout,
            output: Some(written),
        };
        let tell = self.tell.clone();
        let kill = || {
            if let Err(why) = launch.container.kill() {
                tell.say(Told::Note(format!("cannot end the container: {why:#}")));
            }
        };
        let reading = spawn_local(read(output, mask, self.tell.clone()));
        let noting = self.tell.clone();
        let mut note = |line| noting.say(Told::Note(line));
        let ended = command::supervise(start, self.interrupts.clone(), &kill, &mut note).await;
        // What was written last is there by now; something left behind may hold the pipe open.
        let abort = reading.abort_handle();
        if timeout(LAST_WORDS, reading).await.is_err() {
            abort.abort();
        }
        // What an engine does after its container has ended is no part of the build.
        let deadline = Instant::now() + CLEAN_UP;
        while self.group.pids().is_ok_and(|pids| !pids.is_empty()) && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
        ended
    }
}

/// Waits for a signal; `None` where none can come any more.
async fn refused(interrupts: &mut watch::Receiver<Interrupts>) -> Option<Failure> {
    let interrupts = interrupts.wait_for(|interrupts| interrupts.count > 0).await;
    interrupts.ok()?.refusal()
}

/// Passes on what a build writes, line by line.
async fn read(output: io::PipeReader, mask: Mask, tell: Tell) {
    let Ok(mut output) = pipe::Receiver::from_owned_fd(output.into()) else {
        return tell.say(Told::Note("cannot read what the build writes".into()));
    };
    let pass = |line: &[u8]| {
        let mut line = String::from_utf8_lossy(line).trim_end().to_owned();
        mask.hide(&mut line);
        tell.say(Told::Output(line));
    };
    let mut line: Vec<u8> = vec![];
    let mut chunk = vec![0; 16 << 10];
    loop {
        let n = match output.read(&mut chunk).await {
            // Its last writer is gone, or it cannot be read any more: either way there is no more.
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        for &byte in &chunk[..n] {
            if byte == b'\n' {
                pass(&line);
                line.clear();
            } else if line.len() < LINE {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        pass(&line);
    }
}
