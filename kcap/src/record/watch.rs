//! All builds on this host that others start: each executor opens a session in the kernel, and each
//! session is a capture of its own as soon as its container is empty.

use std::{
    collections::{HashMap, VecDeque},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kcap_common::abi::{
    loss,
    record::{TREE, how},
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant as Moment, sleep_until},
};

use super::{
    Failure,
    kernel::{Finish, Open},
    late,
    mask::Mask,
    route::{Denied, Opened, Seen, Session, Sorting},
    session::Options,
    signals::Signals,
    subject::{self, monotonic_ns, wall_ns},
    trace::{Described, Ended, Trace},
};
use crate::{
    capture::{Capture, Subject},
    host::cgroup::pids,
};

/// Between two looks at a session whose last process ends.
const SOON: Duration = Duration::from_millis(4);
/// Between two looks at sessions that are open.
const SWEEP: Duration = Duration::from_millis(250);
/// Between two looks where there is nothing to look at.
const IDLE: Duration = Duration::from_secs(10);
/// How often figures are given while sessions are open.
const FIGURES: Duration = Duration::from_secs(1);
/// How long a session that is over may wait for its counts, where the kernel side has no room to hand
/// them over. Then they are lost, and that is said.
const COUNTS: Duration = Duration::from_secs(10);
/// Snapshots of what was lost that are kept.
const SNAPSHOTS: usize = 16;

/// What to watch, and how much of it.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Most sessions at once: what is beyond is left out, and told.
    pub sessions: usize,
    /// Bytes that a session may take while it is open.
    pub room: usize,
    /// Variables of executors that are wanted.
    pub variables: Vec<String>,
    /// Have the kernel keep account of the time spent in its programs.
    pub run_times: bool,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// It is traced from now on.
    Watching,
    /// A session began.
    Opened(u64, Opened),
    /// It was refused a capability that its container does not hold, for the first time.
    Denied(u64, Denied),
    /// It is over.
    Ended(u64, Box<Over>),
    /// There is no room for a session.
    Refused(Opened),
    /// SIGHUP.
    Reload,
    /// Now and then.
    Figures(Figures),
    /// A line for people.
    Note(String),
}

/// How it stands.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Sessions that are open.
    pub open: usize,
    /// Loss counters since the start, by `kcap_common::abi::loss`.
    pub loss: Vec<u64>,
    /// Programs that the kernel did not run, since the start.
    pub skipped: u64,
    /// Of each program of the kernel side: nanoseconds spent in it, and how often it ran.
    pub programs: Vec<(&'static str, u64, u64)>,
}

/// A session that is over, as it came from the kernel.
pub struct Over {
    session: Session,
    opened: Opened,
    end: Finish,
    trace: Described,
    interrupted: bool,
    started_ns: u64,
    duration: Duration,
}

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Over")
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

impl Over {
    fn new(
        running: Running,
        session: Session,
        end: Finish,
        trace: Described,
        interrupted: bool,
    ) -> Self {
        let took = wall_ns().saturating_sub(running.started_ns);
        Self {
            session,
            end,
            trace,
            interrupted,
            opened: running.opened,
            started_ns: running.started_ns,
            duration: Duration::from_nanos(took),
        }
    }

    /// Bytes that it takes, roughly.
    pub fn size(&self) -> usize {
        self.session.assembler.size()
    }

    /// It took more than it may, and what was beyond is lost.
    pub fn is_over_bounds(&self) -> bool {
        self.session.assembler.is_full()
    }

    /// Puts its capture together; `note` gets lines for people.
    pub fn capture(self, note: &mut dyn FnMut(String)) -> Capture {
        let (shown, secrets) = subject::masked_texts(&self.opened.command);
        let ended = Ended {
            status: None,
            interrupted: self.interrupted,
            timed_out: false,
            started_ns: self.started_ns,
            duration: self.duration,
        };
        let subject = Subject {
            late: self.opened.late,
            ..subject::subject(shown, self.session.dockerfile.as_ref(), None, &ended)
        };
        let mut capture = self.trace.capture(
            self.session.assembler,
            &self.end,
            subject,
            self.interrupted,
            &Mask::new(secrets),
            note,
        );
        capture.subject.exit_status = late::status(&capture);
        capture
    }
}

/// Watches until a signal ends it, and tells what happens. `leave` takes sessions that nobody wants.
///
/// # Errors
/// Where nothing can be traced.
pub fn watch(
    on: &mut dyn FnMut(Event),
    leave: UnboundedReceiver<u64>,
    scope: &Scope,
    options: &Options,
    signals: &Signals,
) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(run(on, leave, scope, options, signals))
}

/// A session that is open.
struct Running {
    opened: Opened,
    /// Where its container's processes are, where it has a cgroup of its own.
    cgroup: Option<PathBuf>,
    /// Processes that ended last, once none was left.
    last: Option<Vec<u32>>,
    /// What was lost before it began.
    before: Finish,
    started_ns: u64,
    /// Seen to be over, and not taken yet.
    over: Option<Instant>,
}

impl Running {
    /// None of its processes is left, nor any in its container.
    fn is_over(&mut self) -> bool {
        match (&self.cgroup, &mut self.last) {
            (Some(cgroup), _) => pids(cgroup).map_or(true, |pids| pids.is_empty()),
            (None, Some(last)) => {
                last.retain(|&pid| !is_gone(pid));
                last.is_empty()
            }
            (None, None) => false,
        }
    }
}

/// Whether a process does nothing any more: there is none, or only what its parent has not read yet.
fn is_gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.trim_start().chars().next());
        matches!(state, None | Some('Z' | 'X'))
    })
}

struct Watch<'a> {
    trace: Trace,
    on: &'a mut dyn FnMut(Event),
    scope: &'a Scope,
    running: HashMap<u64, Running>,
    /// What was lost until when.
    snapshots: VecDeque<(u64, Finish)>,
    described: Described,
    figures: Instant,
}

async fn run(
    on: &mut dyn FnMut(Event),
    mut leave: UnboundedReceiver<u64>,
    scope: &Scope,
    options: &Options,
    signals: &Signals,
) -> Result<(), Failure> {
    let _accounting = scope.run_times.then(super::kernel::sys::enable_run_times);
    let sorting = Sorting {
        variables: scope.variables.clone(),
        split: true,
        room: scope.room,
    };
    let (trace, mut seen) = Trace::start(options, Open::Executors, sorting, &mut |line| {
        on(Event::Note(line));
    })?;
    let described = trace.describe();
    let mut watch = Watch {
        trace,
        on,
        scope,
        running: HashMap::new(),
        snapshots: VecDeque::new(),
        described,
        figures: Instant::now(),
    };
    watch.look()?;
    watch.find(&options.matches)?;
    (watch.on)(Event::Watching);
    watch.tell_figures()?;
    let listener = signals.listen().context("cannot listen for signals")?;
    let mut next = Moment::now();
    loop {
        tokio::select! {
            Some(what) = seen.recv() => {
                next = next.min(Moment::now() + watch.hear(what)?);
            }
            Some(session) = leave.recv() => watch.leave(session)?,
            caught = listener.next() => {
                let caught = caught.context("cannot listen for signals")?;
                if caught.number != libc::SIGHUP {
                    break;
                }
                (watch.on)(Event::Reload);
            }
            () = sleep_until(next) => next = Moment::now() + watch.sweep()?,
        }
    }
    // What was said until now.
    while let Ok(what) = seen.try_recv() {
        watch.hear(what)?;
    }
    watch.end()?;
    Ok(())
}

impl Watch<'_> {
    /// Notes what was lost until now.
    fn look(&mut self) -> Result<()> {
        let so_far = self.trace.so_far()?;
        self.keep(so_far);
        Ok(())
    }

    fn keep(&mut self, so_far: Finish) {
        // What it was read at is later than what it says: a session that opened meanwhile may count a
        // loss that was before it, and never misses one.
        self.snapshots.push_back((monotonic_ns(), so_far));
        if self.snapshots.len() > SNAPSHOTS {
            self.snapshots.pop_front();
        }
    }

    /// What was lost before a moment; more than that is not told apart.
    fn before(&self, time_ns: u64) -> Finish {
        let at = (self.snapshots.iter().rev()).find(|(when, _)| *when <= time_ns);
        at.or(self.snapshots.front())
            .map(|(_, lost)| lost.clone())
            .unwrap_or_default()
    }

    /// Takes in builds that run already.
    fn find(&mut self, matches: &[String]) -> Result<()> {
        let mut number = 0;
        for found in late::executors(matches, &self.trace.layout) {
            if found.session & TREE == 0 {
                self.trace.scope(found.session)?;
            }
            for (at, &pid) in found.pids.iter().enumerate() {
                let how = if at == 0 { how::LATE } else { how::CGROUP };
                let trace = &self.trace;
                let records = late::look(pid as i32, found.session, how, matches, &mut || {
                    number += 1;
                    trace.generation(number)
                });
                if let Some(records) = records {
                    self.trace.seed(pid, records)?;
                }
            }
        }
        Ok(())
    }

    /// Something happened; says when to look again.
    fn hear(&mut self, what: Seen) -> Result<Duration> {
        match what {
            Seen::Opened(id, opened) => {
                if self.running.len() >= self.scope.sessions {
                    self.trace.forget(id)?;
                    (self.on)(Event::Refused(opened));
                    return Ok(SWEEP);
                }
                let behind = monotonic_ns().saturating_sub(opened.time_ns);
                let cgroup = (id & TREE == 0).then(|| self.folder(id, &opened)).flatten();
                self.running.insert(
                    id,
                    Running {
                        before: self.before(opened.time_ns),
                        started_ns: wall_ns().saturating_sub(behind),
                        cgroup,
                        last: None,
                        over: None,
                        opened: opened.clone(),
                    },
                );
                (self.on)(Event::Opened(id, opened));
                Ok(SWEEP)
            }
            Seen::Idle(id, last) => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.last = Some(last);
                }
                Ok(Duration::ZERO)
            }
            Seen::Denied(id, denied) => {
                if self.running.contains_key(&id) {
                    (self.on)(Event::Denied(id, denied));
                }
                Ok(SWEEP)
            }
            Seen::Line(..) | Seen::Checks(..) => Ok(SWEEP),
        }
    }

    /// Where the processes of a container are.
    fn folder(&self, id: u64, opened: &Opened) -> Option<PathBuf> {
        let layout = &self.trace.layout;
        layout.folder(id).or_else(|| {
            let place = layout.place(&opened.cgroups)?;
            let path = layout.mount.join(place.strip_prefix("/").unwrap_or(&place));
            // As a cgroup namespace shows it, it can be another's.
            (path.metadata().ok()?.ino() == id).then_some(path)
        })
    }

    /// Nobody wants this one.
    fn leave(&mut self, id: u64) -> Result<()> {
        if self.running.remove(&id).is_some() {
            self.trace.forget(id)?;
        }
        Ok(())
    }

    /// Takes the sessions that are over; says when to look again.
    fn sweep(&mut self) -> Result<Duration> {
        let now = Instant::now();
        let mut over = vec![];
        let mut soon = false;
        for (&id, running) in &mut self.running {
            if running.over.is_some() || running.is_over() {
                running.over.get_or_insert(now);
                over.push(id);
            } else {
                soon |= running.last.is_some() && running.cgroup.is_none();
            }
        }
        if !over.is_empty() {
            soon |= !self.take(over)?;
        }
        if self.figures.elapsed() >= FIGURES {
            self.tell_figures()?;
        }
        Ok(match () {
            () if soon => SOON,
            () if self.running.is_empty() => IDLE,
            () => SWEEP,
        })
    }

    /// Takes these; false where their counts cannot be had yet.
    fn take(&mut self, ids: Vec<u64>) -> Result<bool> {
        for &id in &ids {
            self.trace.unscope(id)?;
        }
        let handed = self.trace.hand_over()?;
        let so_far = self.trace.so_far()?;
        for id in ids {
            let Some(running) = self.running.get(&id) else {
                continue;
            };
            let waited = running.over.map_or(Duration::ZERO, |since| since.elapsed());
            if !handed && waited < COUNTS {
                continue;
            }
            let Some(running) = self.running.remove(&id) else {
                continue;
            };
            let Some(session) = self.trace.take_out(id)? else {
                continue;
            };
            let mut end = so_far.since(&running.before);
            if !handed {
                end.unproven = Some("the kernel side could not hand over all counts".into());
            }
            let over = Over::new(running, session, end, self.described.clone(), false);
            (self.on)(Event::Ended(id, Box::new(over)));
        }
        self.keep(so_far);
        Ok(handed)
    }

    fn tell_figures(&mut self) -> Result<()> {
        self.figures = Instant::now();
        let so_far = self.trace.so_far()?;
        let lost_ends = |lost: &Finish| lost.loss.get(loss::EXECS as usize).copied();
        if self
            .snapshots
            .back()
            .is_some_and(|(_, before)| lost_ends(before) != lost_ends(&so_far))
        {
            self.trace.bury()?;
        }
        let programs = if self.scope.run_times {
            self.trace.run_times()?
        } else {
            vec![]
        };
        (self.on)(Event::Figures(Figures {
            open: self.running.len(),
            loss: so_far.loss.clone(),
            skipped: so_far.skipped.values().sum(),
            programs,
        }));
        self.keep(so_far);
        Ok(())
    }

    /// Ends the trace; what is open is told as it is.
    fn end(mut self) -> Result<()> {
        let running = std::mem::take(&mut self.running);
        let mut finished = self.trace.finish()?;
        for (id, running) in running {
            let Some(session) = finished.router.split_off(|other, _| other == id) else {
                continue;
            };
            let end = finished.end.since(&running.before);
            let over = Over::new(running, session, end, self.described.clone(), true);
            (self.on)(Event::Ended(id, Box::new(over)));
        }
        Ok(())
    }
}
