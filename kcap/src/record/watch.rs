//! All builds on this host that others start: each executor opens a session in the kernel, and each
//! session is a capture of its own as soon as its container is empty.

mod losses;
mod over;
mod running;

use std::{
    collections::{HashMap, HashSet, VecDeque},
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

pub use self::over::Over;
use self::{losses::Losses, running::Running};
use super::{
    Failure,
    kernel::{Finish, Open},
    late,
    opened::Opened,
    room::Pool,
    route::{Seen, Sorting},
    session::Options,
    share::Denied,
    signals::{Listener, Signals},
    subject::monotonic_ns,
    trace::{Described, Trace},
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
/// How often what is left of sessions that nobody wants is looked through.
const LEFT: Duration = Duration::from_secs(10);
/// Most sessions at once in one container.
const EACH: usize = 16;

/// What to watch, and how much of it.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Most sessions at once: what is beyond is left out, and told.
    pub sessions: usize,
    /// Bytes that a session may take while it is open.
    pub each: usize,
    /// Bytes that all may take together.
    pub all: usize,
    /// Variables of executors that are wanted.
    pub variables: Vec<String>,
    /// How often figures are given at least, as a sign of life.
    pub alive: Duration,
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
    /// There is no room for a session: why.
    Refused(Opened, &'static str),
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

struct Watch<'a> {
    trace: Trace,
    /// What the trace has to tell.
    seen: UnboundedReceiver<Seen>,
    /// What it told and is to be heard yet.
    later: VecDeque<Seen>,
    on: &'a mut dyn FnMut(Event),
    scope: &'a Scope,
    running: HashMap<u64, Running>,
    losses: Losses,
    described: Described,
    figures: Instant,
    /// When what is left of sessions that nobody wants is to be looked through; none where nothing is.
    left: Option<Instant>,
    /// It was said that counts cannot be had.
    said: bool,
}

async fn run(
    on: &mut dyn FnMut(Event),
    mut leave: UnboundedReceiver<u64>,
    scope: &Scope,
    options: &Options,
    signals: &Signals,
) -> Result<(), Failure> {
    let accounting = (scope.run_times).then(super::kernel::sys::enable_run_times);
    if let Some(Err(why)) = &accounting {
        let line = format!("no figures of the time spent in BPF programs: {why}");
        on(Event::Note(line));
    }
    let sorting = Sorting {
        variables: scope.variables.clone(),
        split: true,
        pool: Pool::new(scope.all, scope.sessions, scope.each),
    };
    let (trace, seen) = Trace::start(options, Open::Executors, sorting, &mut |line| {
        on(Event::Note(line));
    })?;
    let described = trace.describe();
    let mut watch = Watch {
        trace,
        seen,
        later: VecDeque::new(),
        on,
        scope,
        running: HashMap::new(),
        losses: Losses::default(),
        described,
        figures: Instant::now(),
        left: None,
        said: false,
    };
    let listener = signals.listen().context("cannot listen for signals")?;
    let so_far = watch.trace.so_far()?;
    watch.losses.keep(monotonic_ns(), so_far);
    watch.find(&options.matches)?;
    (watch.on)(Event::Watching);
    let went = watch.go(&mut leave, &listener).await;
    // Whatever came of it, what is open is told.
    watch.end()?;
    went.map_err(Failure::from)
}

impl Watch<'_> {
    /// Until a signal ends it.
    async fn go(
        &mut self,
        leave: &mut UnboundedReceiver<u64>,
        listener: &Listener<'_>,
    ) -> Result<()> {
        self.tell_figures()?;
        let mut next = Moment::now();
        loop {
            tokio::select! {
                Some(what) = self.seen.recv() => {
                    self.later.push_back(what);
                    // All that was said, before anything is taken by it.
                    next = next.min(Moment::now() + self.hear_all()?);
                }
                Some(session) = leave.recv() => self.leave(session)?,
                caught = listener.next() => {
                    let caught = caught.context("cannot listen for signals")?;
                    if caught.number != libc::SIGHUP {
                        break;
                    }
                    (self.on)(Event::Reload);
                }
                () = sleep_until(next) => {
                    let swept = self.sweep()?;
                    next = Moment::now() + swept.min(self.hear_all()?);
                }
            }
        }
        self.hear_all()?;
        // What is over by now is no interruption.
        self.sweep()?;
        Ok(())
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
        // Some may have ended since they were looked at.
        self.trace.bury()
    }

    /// All that was told until now; says when to look again.
    fn hear_all(&mut self) -> Result<Duration> {
        let mut next = IDLE;
        while let Some(what) = self.later.pop_front().or_else(|| self.seen.try_recv().ok()) {
            next = next.min(self.hear(what)?);
        }
        Ok(next)
    }

    /// Refusals that were told of these sessions, which are taken out: they come before their reports.
    fn hear_of(&mut self, mut ids: HashSet<u64>) {
        while let Ok(what) = self.seen.try_recv() {
            match what {
                Seen::Denied(id, denied) if ids.contains(&id) => {
                    (self.on)(Event::Denied(id, denied));
                }
                what => {
                    // Its container is used again.
                    if let Seen::Opened(id, _) = &what {
                        ids.remove(id);
                    }
                    self.later.push_back(what);
                }
            }
        }
    }

    /// Something happened; says when to look again.
    fn hear(&mut self, what: Seen) -> Result<Duration> {
        match what {
            Seen::Opened(id, opened) => {
                let of_container = |running: &&Running| {
                    !opened.cgroups.is_empty() && running.opened.container() == opened.container()
                };
                let why = if self.running.len() >= self.scope.sessions {
                    "as many builds as there is room for are being traced (--max-sessions)"
                } else if self.running.values().filter(of_container).count() >= EACH {
                    "its container has as many builds at once as one may"
                } else {
                    ""
                };
                if !why.is_empty() {
                    self.forget(id)?;
                    (self.on)(Event::Refused(opened, why));
                    return Ok(SWEEP);
                }
                let before = self.losses.before(opened.time_ns);
                let running = Running::new(id, opened.clone(), before, &self.trace.layout);
                self.running.insert(id, running);
                (self.on)(Event::Opened(id, opened));
                Ok(SWEEP)
            }
            Seen::Idle(id, last) => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.idle(last);
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

    /// Nobody wants this one.
    fn leave(&mut self, id: u64) -> Result<()> {
        if self.running.remove(&id).is_some() {
            self.forget(id)?;
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) -> Result<()> {
        self.left.get_or_insert_with(|| Instant::now() + LEFT);
        self.trace.forget(id)
    }

    /// Has all counts handed over; false where they cannot be had now, which is said once.
    fn hand_over(&mut self) -> bool {
        match self.trace.hand_over() {
            Ok(handed) => handed,
            Err(why) => {
                if !std::mem::replace(&mut self.said, true) {
                    let line = format!("counts cannot be had while builds run: {why:#}");
                    (self.on)(Event::Note(line));
                }
                false
            }
        }
    }

    /// Takes the sessions that are over; says when to look again.
    fn sweep(&mut self) -> Result<Duration> {
        let now = Instant::now();
        let mut over = vec![];
        let mut soon = false;
        for (&id, running) in &mut self.running {
            if running.is_over(now) {
                over.push(id);
            } else {
                soon |= running.is_ending();
            }
        }
        if !over.is_empty() {
            soon |= !self.take(over)?;
        }
        if self.left.is_some_and(|at| now >= at) {
            self.left = None;
            if self.hand_over() && self.trace.sweep()? > 0 {
                self.left = Some(now + LEFT);
            }
        }
        if self.figures.elapsed() >= FIGURES {
            self.tell_figures()?;
        }
        Ok(match () {
            () if soon => SOON,
            () if self.running.is_empty() => IDLE.min(self.scope.alive),
            () => SWEEP,
        })
    }

    /// Takes these; false where their counts cannot be had yet.
    fn take(&mut self, ids: Vec<u64>) -> Result<bool> {
        for &id in &ids {
            self.trace.unscope(id)?;
        }
        let handed = self.hand_over();
        let so_far = self.trace.so_far()?;
        let mut taken = vec![];
        for id in ids {
            let Some(running) = self.running.get(&id) else {
                continue;
            };
            if !handed && running.waited() < COUNTS {
                continue;
            }
            let Some(running) = self.running.remove(&id) else {
                continue;
            };
            if let Some(session) = self.trace.take_out(id)? {
                taken.push((id, running, session));
            }
        }
        self.hear_of(taken.iter().map(|(id, ..)| *id).collect());
        for (id, running, session) in taken {
            let mut end = so_far.since(&running.before);
            if !handed {
                end.unproven = Some("the kernel side could not hand over all counts".into());
            }
            let over = Over::new(running, session, end, self.described.clone(), false);
            (self.on)(Event::Ended(id, Box::new(over)));
        }
        if handed {
            // The rest of them goes with the next hand-over, at the latest.
            self.left.get_or_insert_with(|| Instant::now() + LEFT);
            self.trace.sweep()?;
        }
        self.losses.keep(monotonic_ns(), so_far);
        Ok(handed)
    }

    fn tell_figures(&mut self) -> Result<()> {
        self.figures = Instant::now();
        let so_far = self.trace.so_far()?;
        // Where records of ends were lost while a session was open, its last process is not told.
        let ends = |lost: &Finish| lost.loss.get(loss::EXECS as usize).copied().unwrap_or(0);
        if (self.running.values()).any(|running| ends(&running.before) < ends(&so_far)) {
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
        self.losses.keep(monotonic_ns(), so_far);
        Ok(())
    }

    /// Ends the trace; what is open is told as it is.
    fn end(mut self) -> Result<()> {
        let running = std::mem::take(&mut self.running);
        let mut finished = self.trace.finish()?;
        while let Ok(what) = self.seen.try_recv() {
            if let Seen::Denied(id, denied) = what
                && running.contains_key(&id)
            {
                (self.on)(Event::Denied(id, denied));
            }
        }
        for (id, mut running) in running {
            let cut = !running.is_over(Instant::now());
            let Some(session) = finished.router.split_off(|other, _| other == id) else {
                continue;
            };
            let end = finished.end.since(&running.before);
            let over = Over::new(running, session, end, self.described.clone(), cut);
            (self.on)(Event::Ended(id, Box::new(over)));
        }
        Ok(())
    }
}
