//! Several builds traced at once, by one tracer: each in a cgroup of its own, each to a capture of
//! its own.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local},
    time::{MissedTickBehavior, interval},
};

use super::{
    Failure,
    collect::Pick,
    command::{self, Interrupts},
    container::{Making, Task, Tell, Told},
    kernel::Open,
    mask::Mask,
    opened::Opened,
    route::{Seen, Sorting},
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

/// How often the kernel side is asked for counts, for progress.
const REFRESH: Duration = Duration::from_secs(1);

/// A build to trace.
pub struct Job {
    /// The Dockerfile's path as given, and its bytes.
    pub dockerfile: (PathBuf, Vec<u8>),
    /// The build context as given.
    pub context: Option<String>,
    /// Makes its container, when its turn has come or the tracer is being loaded.
    pub launch: Box<dyn FnOnce() -> Result<Launch> + Send>,
    /// How long it may run before it is killed, and its capture says so.
    pub timeout: Option<Duration>,
}

/// Says what to build, and is told what happens. Builds are known by how many came before.
pub trait Builds {
    /// The next build, where there is one now. Asked whenever one could be started: after
    /// [`Event::Ended`] there may be another.
    fn next(&mut self) -> Option<Job>;

    /// Something happened to a build; [`Event::Ended`] comes once for each.
    fn on(&mut self, build: usize, event: Event);
}

/// What happens while builds run.
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

/// Traces builds, at most `parallel` at once, each to a capture of its own, until none runs and none is
/// to come. After a signal no further build is started, and those that run are ended. With hooks whose
/// counts cannot be had while others run, captures come when all builds have ended: there may be more
/// to build then.
///
/// # Errors
/// Where nothing can be traced; then no build was started.
pub fn build(
    builds: &mut dyn Builds,
    parallel: NonZeroUsize,
    options: &Options,
    signals: &Signals,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let result = LocalSet::new().block_on(&runtime, trace(builds, parallel, options, signals));
    // After a signal, or where nothing can be traced, a container may still be in the making. Nobody
    // runs it, and once it is made it is removed: that is waited for, or it would be left behind.
    runtime.shutdown_timeout(options.grace);
    result
}

/// A build that is to come.
struct Next {
    position: usize,
    dockerfile: (PathBuf, Vec<u8>),
    context: Option<String>,
    launch: Making,
    timeout: Option<Duration>,
}

impl Next {
    fn new(position: usize, job: Job) -> Self {
        Self {
            position,
            dockerfile: job.dockerfile,
            context: job.context,
            launch: Making::Later(job.launch),
            timeout: job.timeout,
        }
    }

    /// Begins to make its container.
    fn begun(self) -> Self {
        let launch = Making::Begun(self.launch.begin());
        Self { launch, ..self }
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
    /// Checks counted until now, by session: that of its command, and those that executors opened in
    /// its container.
    sessions: BTreeMap<u64, u64>,
    /// Made once its container is.
    mask: OnceCell<Mask>,
}

impl Running {
    /// It is the container of this build.
    fn is_in(&self, opened: &Opened) -> bool {
        let id = self.launch.get().and_then(|launch| launch.container.id());
        id.is_some_and(|id| opened.is_container(&id))
    }

    /// What must not be shown of it.
    fn mask(&self) -> Mask {
        let of = |launch: &Launch| self.mask.get_or_init(|| Mask::new(launch.secrets.clone()));
        self.launch.get().map(of).cloned().unwrap_or_default()
    }
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
    builds: &mut dyn Builds,
    parallel: NonZeroUsize,
    options: &Options,
    signals: &Signals,
) -> Result<(), Failure> {
    let mut count = 0;
    let mut next = |builds: &mut dyn Builds| {
        let next = Next::new(count, builds.next()?);
        count += 1;
        Some(next)
    };
    // Loading takes a fifth of a second, and making a container can take as long: side by side.
    let mut ahead: VecDeque<Next> = (0..parallel.get())
        .map_while(|_| next(builds))
        .map(Next::begun)
        .collect();
    let (mut trace, mut seen) =
        Trace::start(options, Open::Executors, Sorting::default(), &mut |line| {
            builds.on(0, Event::Note(line))
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
            let Some(next) = ahead.pop_front().or_else(|| next(builds)) else {
                break;
            };
            let position = next.position;
            if let Some(refusal) = interrupts.borrow().refusal() {
                builds.on(position, Event::Ended(Box::new(Err(refusal))));
                continue;
            }
            builds.on(position, Event::Started);
            let group = match scope(&mut trace) {
                Ok(group) => Rc::new(group),
                Err(why) => {
                    builds.on(position, Event::Ended(Box::new(Err(why.into()))));
                    continue;
                }
            };
            let launch = Rc::new(OnceCell::new());
            let task = Task {
                group: Rc::clone(&group),
                launch: Rc::clone(&launch),
                blocked: signals.before(),
                grace: options.grace,
                timeout: next.timeout,
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
                sessions: BTreeMap::from([(group.id(), 0)]),
                mask: OnceCell::new(),
                group,
                launch,
            });
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            Some((position, what)) = told.recv() => match what {
                Told::Output(line) => builds.on(position, Event::Output(line)),
                Told::Note(line) => builds.on(position, Event::Note(line)),
                Told::Ended(ended) => {
                    let Some(at) = running.iter().position(|build| build.position == position) else {
                        continue;
                    };
                    let mut note = |line| builds.on(position, Event::Note(line));
                    match conclude(running.swap_remove(at), ended, &mut note) {
                        Err(why) => builds.on(position, Event::Ended(Box::new(Err(why)))),
                        Ok(build) => match taken(&trace, &build, &mut note) {
                            Ok(Some(capture)) => builds.on(position, Event::Ended(Box::new(Ok(capture)))),
                            Ok(None) => waiting.push(build),
                            Err(why) => builds.on(position, Event::Ended(Box::new(Err(why.into())))),
                        },
                    }
                }
            },
            Some(what) = seen.recv() => match what {
                Seen::Opened(session, opened) => {
                    match running.iter_mut().find(|build| build.is_in(&opened)) {
                        Some(build) => _ = build.sessions.insert(session, 0),
                        // Another's build: nothing of it is kept. One that was over before it could be
                        // looked at may be any.
                        None if !opened.cgroups.is_empty() => trace.forget(session)?,
                        None => {}
                    }
                }
                // The command's end is what counts.
                Seen::Idle(..) | Seen::Denied(..) => {}
                Seen::Line(session, mut line) => {
                    if let Some(build) = running.iter().find(|build| build.sessions.contains_key(&session)) {
                        build.mask().hide(&mut line);
                        builds.on(build.position, Event::Log(line));
                    }
                }
                Seen::Checks(session, checks) => {
                    for build in &mut running {
                        if let Some(counted) = build.sessions.get_mut(&session) {
                            *counted = checks;
                            builds.on(build.position, Event::Checks(build.sessions.values().sum()));
                        }
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
    let finished = trace.finish();
    let mut finished = match finished {
        Ok(finished) => finished,
        Err(why) => {
            for build in waiting {
                let why = anyhow!("{why:#}");
                builds.on(build.position, Event::Ended(Box::new(Err(why.into()))));
            }
            return Ok(());
        }
    };
    for build in waiting {
        let position = build.position;
        let capture = finished.take(
            build.pick(),
            build.subject,
            build.interrupted,
            &build.mask,
            &mut |line| builds.on(position, Event::Note(line)),
        );
        builds.on(position, Event::Ended(Box::new(Ok(capture))));
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
                    timed_out: ended.timed_out,
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
