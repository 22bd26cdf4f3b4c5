//! Several builds traced at once, by one tracer: each in a cgroup of its own, each to a capture of
//! its own.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    sync::{
        mpsc::{self, UnboundedSender},
        watch,
    },
    task::{JoinHandle, LocalSet, spawn_blocking, spawn_local},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Failure,
    collect::Pick,
    command::{self, Interrupts, Start},
    kernel::Open,
    mask::Mask,
    route::{Opened, Seen},
    session::{Options, PATIENCE},
    signals::Signals,
    subject,
    trace::{Ended, Trace},
};
use crate::{
    capture::{Capture, Subject},
    host::cgroup::Cgroup,
    launch::Launch,
};

/// Longest line of output that is kept, in bytes.
const LINE: usize = 4096;
/// How often the kernel side is asked for counts, for progress.
const REFRESH: Duration = Duration::from_secs(1);
/// How long what an engine does after its container has ended may take.
const CLEAN_UP: Duration = Duration::from_secs(1);
/// How long output may still come once a build has ended and all of its processes are gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A build to trace.
pub struct Job {
    /// The Dockerfile's path as given, and its bytes.
    pub dockerfile: (PathBuf, Vec<u8>),
    /// The build context as given.
    pub context: Option<String>,
    /// Makes its container, when its turn has come or the tracer is being loaded.
    pub launch: Box<dyn FnOnce() -> Result<Launch> + Send>,
}

/// What happens while builds run. Jobs are known by their position.
#[derive(Debug)]
pub enum Event {
    /// Its container is being started.
    Started,
    /// The executor wrote a line to its log; secrets are masked.
    Log(String),
    /// A line of the command's output: the executor's and that of what it runs; secrets are masked.
    Output(String),
    /// So many checks were counted until now, at least.
    Checks(u64),
    /// It ended: what was seen, or why there is nothing.
    Ended(Box<Result<Capture, Failure>>),
    /// A line for people, about no build in particular.
    Note(String),
}

/// Traces builds, at most `parallel` at once, each to a capture of its own. `on` gets what happens,
/// by the job's position; [`Event::Ended`] comes once for each job. After a signal no further build
/// is started, and those that run are ended.
///
/// # Errors
/// Where nothing can be traced; then no build was started.
pub fn build(
    jobs: Vec<Job>,
    parallel: NonZeroUsize,
    options: &Options,
    signals: &Signals,
    on: &mut dyn FnMut(usize, Event),
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let result = LocalSet::new().block_on(&runtime, trace(jobs, parallel, options, signals, on));
    // After a signal, or where nothing can be traced, a container may still be in the making. Nobody runs it, and once it is made it is
    // removed: that is waited for, or it would be left behind.
    runtime.shutdown_timeout(options.grace);
    result
}

/// A build that is to come.
struct Next {
    position: usize,
    dockerfile: (PathBuf, Vec<u8>),
    context: Option<String>,
    launch: Making,
}

/// How its container comes about.
enum Making {
    /// It is being made.
    Begun(JoinHandle<Result<Launch>>),
    /// Not before its turn.
    Later(Box<dyn FnOnce() -> Result<Launch> + Send>),
}

impl Next {
    fn new((position, job): (usize, Job)) -> Self {
        Self {
            position,
            dockerfile: job.dockerfile,
            context: job.context,
            launch: Making::Later(job.launch),
        }
    }

    /// Begins to make its container.
    fn begun(self) -> Self {
        let launch = Making::Begun(self.launch.begin());
        Self { launch, ..self }
    }
}

impl Making {
    fn begin(self) -> JoinHandle<Result<Launch>> {
        match self {
            Self::Begun(making) => making,
            Self::Later(make) => spawn_blocking(make),
        }
    }
}

/// A build that runs.
struct Running {
    position: usize,
    dockerfile: (PathBuf, Vec<u8>),
    context: Option<String>,
    /// Shared with the task that runs it.
    group: Rc<Cgroup>,
    /// Made by that task.
    launch: Rc<OnceCell<Launch>>,
    /// Sessions that executors opened in its container.
    opened: Vec<u64>,
}

impl Running {
    /// It is the container of this build.
    fn is_in(&self, opened: &Opened) -> bool {
        let id = self.launch.get().and_then(|launch| launch.container.id());
        id.is_some_and(|id| opened.is_container(&id))
    }

    fn has(&self, session: u64) -> bool {
        self.group.id() == session || self.opened.contains(&session)
    }

    fn mask(&self) -> Mask {
        let secrets = self.launch.get().map(|launch| launch.secrets.clone());
        Mask::new(secrets.unwrap_or_default())
    }
}

/// What the task of a build tells the loop.
enum Told {
    Output(String),
    Note(String),
    Ended(Result<Ended, Failure>),
}

/// A build that has ended, and whose counts are still in the kernel.
struct Waiting {
    position: usize,
    session: u64,
    container: Option<String>,
    subject: Subject,
    interrupted: bool,
    mask: Mask,
}

impl Waiting {
    fn pick(&self) -> Pick {
        let (session, container) = (self.session, self.container.clone());
        Box::new(move |id, opened| {
            id == session
                || match (&container, opened) {
                    (Some(container), Some(opened)) => opened.is_container(container),
                    _ => false,
                }
        })
    }
}

async fn trace(
    jobs: Vec<Job>,
    parallel: NonZeroUsize,
    options: &Options,
    signals: &Signals,
    on: &mut dyn FnMut(usize, Event),
) -> Result<(), Failure> {
    let mut jobs = jobs.into_iter().enumerate().map(Next::new);
    // Loading takes a fifth of a second, and making a container can take as long: side by side.
    let mut ahead: VecDeque<Next> = jobs
        .by_ref()
        .take(parallel.get())
        .map(Next::begun)
        .collect();
    let (mut trace, mut seen) = Trace::start(options, Open::Executors, &mut |line| {
        on(0, Event::Note(line))
    })?;
    let listener = signals.listen().context("cannot listen for signals")?;
    let (interrupt, interrupts) = watch::channel(Interrupts::default());
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut waiting: Vec<Waiting> = vec![];
    let mut running: Vec<Running> = vec![];
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        while running.len() < parallel.get() {
            let Some(next) = ahead.pop_front().or_else(|| jobs.next()) else {
                break;
            };
            let position = next.position;
            if let Some(refusal) = interrupts.borrow().refusal() {
                on(position, Event::Ended(Box::new(Err(refusal))));
                continue;
            }
            on(position, Event::Started);
            let group = match scope(&mut trace) {
                Ok(group) => Rc::new(group),
                Err(why) => {
                    on(position, Event::Ended(Box::new(Err(why.into()))));
                    continue;
                }
            };
            let launch = Rc::new(OnceCell::new());
            let task = Task {
                group: Rc::clone(&group),
                launch: Rc::clone(&launch),
                blocked: signals.before(),
                grace: options.grace,
                interrupts: interrupts.clone(),
                tell: Tell {
                    position,
                    to: tell.clone(),
                },
            };
            spawn_local(task.run(next.launch));
            running.push(Running {
                position,
                dockerfile: next.dockerfile,
                context: next.context,
                group,
                launch,
                opened: vec![],
            });
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            Some((position, what)) = told.recv() => match what {
                Told::Output(line) => on(position, Event::Output(line)),
                Told::Note(line) => on(position, Event::Note(line)),
                Told::Ended(ended) => {
                    let Some(at) = running.iter().position(|build| build.position == position) else {
                        continue;
                    };
                    let mut note = |line| on(position, Event::Note(line));
                    match conclude(running.swap_remove(at), ended, &mut note) {
                        Err(why) => on(position, Event::Ended(Box::new(Err(why)))),
                        Ok(build) => match taken(&trace, &build, &mut note) {
                            Ok(Some(capture)) => on(position, Event::Ended(Box::new(Ok(capture)))),
                            Ok(None) => waiting.push(build),
                            Err(why) => on(position, Event::Ended(Box::new(Err(why.into())))),
                        },
                    }
                }
            },
            Some(what) = seen.recv() => match what {
                Seen::Opened(session, opened) => {
                    if let Some(build) = running.iter_mut().find(|build| build.is_in(&opened)) {
                        build.opened.push(session);
                    }
                }
                Seen::Line(session, mut line) => {
                    if let Some(build) = running.iter().find(|build| build.has(session)) {
                        build.mask().hide(&mut line);
                        on(build.position, Event::Log(line));
                    }
                }
                Seen::Checks(session, checks) => {
                    if let Some(build) = running.iter().find(|build| build.has(session)) {
                        on(build.position, Event::Checks(checks));
                    }
                }
            },
            caught = listener.next() => {
                let caught = caught.context("cannot listen for signals")?;
                interrupt.send_modify(|interrupts| interrupts.add(caught));
            }
            _ = refresh.tick() => {
                let began = Instant::now();
                trace.refresh();
                // At most a hundredth of a CPU, however many there are to ask.
                refresh.reset_after(REFRESH.max(began.elapsed() * 100));
            }
        }
    }
    let mut finished = trace.finish()?;
    for build in waiting {
        let position = build.position;
        let capture = finished.take(
            build.pick(),
            build.subject,
            build.interrupted,
            &build.mask,
            &mut |line| on(position, Event::Note(line)),
        );
        on(position, Event::Ended(Box::new(Ok(capture))));
    }
    Ok(())
}

/// A new cgroup that defines a session.
fn scope(trace: &mut Trace) -> Result<Cgroup> {
    let group = Cgroup::create(&trace.layout)?;
    trace.scope(group.id())?;
    Ok(group)
}

fn taken(trace: &Trace, build: &Waiting, note: &mut dyn FnMut(String)) -> Result<Option<Capture>> {
    trace.take(
        build.pick(),
        build.subject.clone(),
        build.interrupted,
        &build.mask,
        note,
    )
}

/// Ends all that is left of a build, and removes what was made for it.
fn conclude(
    build: Running,
    ended: Result<Ended, Failure>,
    note: &mut dyn FnMut(String),
) -> Result<Waiting, Failure> {
    // What an engine does after its container has ended is no part of the build.
    let deadline = Instant::now() + CLEAN_UP;
    while build.group.pids().is_ok_and(|pids| !pids.is_empty()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let mask = build.mask();
    let launch = Rc::into_inner(build.launch).and_then(OnceCell::into_inner);
    // Asked before the container is killed, which removes what is known of it.
    let container = launch.as_ref().map(|launch| &launch.container);
    let not_started = container.and_then(|container| container.not_started());
    let out_of_memory = container.is_some_and(|container| container.out_of_memory());
    if let Some(container) = container
        && ended.as_ref().map_or(true, |ended| ended.interrupted)
        && let Err(why) = container.kill()
    {
        note(format!("cannot end the container: {why:#}"));
    }
    command::end_rest(&build.group, note);
    let concluded = match (ended, not_started) {
        (Err(why), _) => Err(why),
        (Ok(_), Some(why)) => Err(Failure::Kcap(anyhow!("{why}"))),
        (Ok(mut ended), None) => {
            let (shown, engine, executor) = match &launch {
                Some(launch) => (
                    launch.shown.clone(),
                    Some(launch.engine.clone()),
                    Some(launch.executor.clone()),
                ),
                None => (vec![], None, None),
            };
            // Clients of a daemon can end at once, and well, where a signal asks them to.
            if ended.interrupted && ended.status.is_some_and(|status| status.success()) {
                ended.status = None;
            }
            Ok(Waiting {
                position: build.position,
                session: build.group.id(),
                container: container.and_then(|container| container.id()),
                interrupted: ended.interrupted,
                subject: Subject {
                    engine,
                    executor,
                    out_of_memory,
                    ..subject::subject(shown, Some(&build.dockerfile), build.context, &ended)
                },
                mask,
            })
        }
    };
    drop(launch);
    if let Some(group) = Rc::into_inner(build.group)
        && let Err(why) = group.remove(PATIENCE)
    {
        note(format!("{why:#}"));
    }
    concluded
}

/// Where the task of a build says what happens.
#[derive(Clone)]
struct Tell {
    position: usize,
    to: UnboundedSender<(usize, Told)>,
}

impl Tell {
    fn say(&self, what: Told) {
        // The loop listens as long as a build runs.
        let _ = self.to.send((self.position, what));
    }
}

/// Runs one build.
struct Task {
    group: Rc<Cgroup>,
    launch: Rc<OnceCell<Launch>>,
    blocked: libc::sigset_t,
    grace: Duration,
    interrupts: watch::Receiver<Interrupts>,
    tell: Tell,
}

impl Task {
    async fn run(self, launch: Making) {
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
