//! Sorts what the kernel side sends by session. A generation belongs to the session of the one that
//! it came from; the record that announces it was reserved before anything could be counted under
//! it, so that its session is known by then.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Instant,
};

use kcap_common::abi::record::{Enter, Exec, TREE, exec_flag, how, kind};

use super::{
    kernel::{Finish, Raw, Starting},
    living::Living,
    opened::Opened,
    reading::{self, Dockerfile},
    room::Pool,
    share::{Denied, Session},
    strays::Strays,
};
use crate::host::cgroup::Layout;

/// What the rest of kcap is told while it happens.
#[derive(Debug)]
pub enum Seen {
    /// An executor opened a session of its own.
    Opened(u64, Opened),
    /// The executor of a session wrote a line to its log.
    Line(u64, String),
    /// So many checks of a session have been counted until now.
    Checks(u64, u64),
    /// A session was refused a capability that its container does not hold, for the first time.
    Denied(u64, Denied),
    /// The last process of a session has ended, or is about to: that one, and those before it.
    Idle(u64, Vec<u32>),
}

/// How to sort.
#[derive(Clone, Debug)]
pub struct Sorting {
    /// Variables of executors that are wanted.
    pub variables: Vec<String>,
    /// A container in which several executors run one after the other, or side by side, is several
    /// sessions: the second and later ones have one each.
    pub split: bool,
    /// Memory that sessions may take.
    pub pool: Pool,
}

impl Default for Sorting {
    fn default() -> Self {
        Self {
            variables: vec![],
            split: false,
            pool: Pool::endless(),
        }
    }
}

/// A session of which nothing is kept any more: its processes that are left.
#[derive(Default)]
struct Gone {
    living: Living,
    /// It had none when counts were handed over last.
    quiet: bool,
}

/// Whose a generation is.
#[derive(Clone, Copy)]
struct Of {
    session: u64,
    /// It is an executor's, or of a process that descends from one.
    built: bool,
    /// Its program holds some capability, as a user's does not.
    power: bool,
}

/// Most executors that are about to run.
const STARTING: usize = 1024;
/// Nanoseconds within which they do.
const SOON: u64 = 1_000_000_000;

/// Sorts records into sessions.
pub struct Router {
    base: u64,
    sorting: Sorting,
    /// Where control groups are found by their ids.
    layout: Option<Layout>,
    sessions: BTreeMap<u64, Session>,
    of_program: HashMap<u32, Of>,
    /// Sessions that nobody wants, or that were taken out: nothing of them may add up.
    gone: HashMap<u64, Gone>,
    /// Generations that ended since the last sweep, and between that and the one before. Not those that
    /// ended by a line of the log: their threads may be in system calls whose outcome is to come.
    ended: Vec<u32>,
    ended_before: Vec<u32>,
    /// Executors that are about to run, by process id, as the kernel side told it.
    starting: HashMap<u32, Starting>,
    /// What names a generation that was never announced: its record was lost.
    strays: Strays,
}

impl Router {
    /// Starts one whose times count from `base`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn new(base: u64, sorting: Sorting) -> Self {
        Self {
            base,
            sorting,
            layout: None,
            sessions: BTreeMap::new(),
            of_program: HashMap::new(),
            gone: HashMap::new(),
            ended: vec![],
            ended_before: vec![],
            starting: HashMap::new(),
            strays: Strays::default(),
        }
    }

    /// Has it find the control groups of sessions in this hierarchy.
    pub fn within(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Takes one record; `tell` hears what others may want to know at once.
    pub fn take(&mut self, mut raw: Raw, tell: &mut dyn FnMut(Seen)) {
        if let Raw::Executor(starting) = raw {
            self.expect(starting);
            return;
        }
        let place = self.place(&mut raw, tell);
        let starting = match &raw {
            Raw::Exec(e) => self.starting.remove(&e.tgid),
            Raw::Exit(e) => self.starting.remove(&e.tgid),
            _ => None,
        };
        let Some(id) = place else {
            self.strays.take(&raw);
            return;
        };
        self.count_living(id, &raw, tell);
        match &raw {
            Raw::Exec(e) if self.sorting.split => self.ended.push(e.previous),
            Raw::Exit(e) if self.sorting.split => self.ended.push(e.program),
            _ => {}
        }
        if self.gone.contains_key(&id) {
            return;
        }
        let power = match &raw {
            Raw::Evidence(e) => self
                .of_program
                .get(&e.key.program)
                .is_some_and(|of| of.power),
            _ => false,
        };
        let clients = !self.sorting.split;
        let session = self.session(id);
        match &raw {
            // Where all are watched, nobody asks who started which.
            Raw::Exec(e) => session.meet(e, starting, clients),
            Raw::Phase(p) => {
                let line = session.logged(p);
                tell(Seen::Line(id, line));
            }
            Raw::Evidence(e) if power => {
                if let Some(denied) = session.denied(e) {
                    tell(Seen::Denied(id, denied));
                }
            }
            _ => {}
        }
        session.take(raw);
    }

    /// The session that a record belongs to. An executor that has one of its own is told.
    fn place(&mut self, raw: &mut Raw, tell: &mut dyn FnMut(Seen)) -> Option<u64> {
        match raw {
            Raw::Enter(e) => {
                let (session, time) = (e.session, e.time);
                let opens = matches!(e.how, how::OPENED | how::LATE);
                // A container that was empty is used again.
                if opens
                    && self
                        .gone
                        .get(&session)
                        .is_some_and(|g| g.living.alive.is_empty())
                {
                    self.gone.remove(&session);
                }
                // Two that open it at once are told apart when they execute.
                let known = self
                    .sessions
                    .get(&session)
                    .is_some_and(|s| s.opened.is_some());
                if opens && !known && !self.gone.contains_key(&session) {
                    let opened = Opened {
                        late: e.how == how::LATE,
                        ..self.read(session, e.tgid, time)
                    };
                    tell(Seen::Opened(session, opened.clone()));
                    self.session(session).open(opened);
                }
                let of = Of {
                    session,
                    built: false,
                    power: true,
                };
                self.of_program.insert(e.program, of);
                Some(session)
            }
            Raw::Fork(f) => self.follow(f.parent, f.program, |of| of),
            Raw::Exec(e) => {
                let builds = e.flags & exec_flag::EXECUTOR != 0;
                if builds && self.sorting.split {
                    self.split(e, tell);
                }
                let power = e.caps[1] != 0;
                self.follow(e.previous, e.program, |of| Of {
                    built: of.built || builds,
                    power,
                    ..of
                })
            }
            Raw::Phase(p) => self.follow(p.previous, p.program, |of| of),
            Raw::Tally(key, _) => self.of(key.program),
            Raw::Evidence(e) => self.of(e.key.program),
            Raw::Unasked(u) => self.of(u.key.program),
            Raw::Argv { program, .. } => self.of(*program),
            Raw::Exit(e) => self.of(e.program),
            // Of no program yet.
            Raw::Executor(_) => None,
        }
    }

    /// Gives an executor a session of its own where another one ran in its container before, or does
    /// now, unless that one started it.
    fn split(&mut self, e: &mut Exec, tell: &mut dyn FnMut(Seen)) {
        let Some(of) = self.of_program.get(&e.previous).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&of.session) else {
            return;
        };
        // Of those that ran before, it is not known which started which.
        let late = session.opened.as_ref().is_some_and(|opened| opened.late);
        if of.built || !session.is_built() || late {
            return;
        }
        session.assembler.left(e.previous, e.time);
        if session.living.end(e.tgid) {
            tell(Seen::Idle(of.session, vec![]));
        }
        let id = TREE | u64::from(e.program);
        let enter = Enter {
            kind: kind::ENTER,
            // Counts that it has made until now stay where they were.
            program: e.previous,
            tgid: e.tgid,
            how: how::OPENED,
            session: id,
            time: e.time,
            comm: [0; 16],
        };
        let opened = self.read(of.session, e.tgid, e.time);
        tell(Seen::Opened(id, opened.clone()));
        let new = self.session(id);
        new.open(opened);
        new.take(Raw::Enter(enter));
        let of = Of {
            session: id,
            built: true,
            power: true,
        };
        self.of_program.insert(e.program, of);
    }

    /// Keeps account of a session's processes.
    fn count_living(&mut self, id: u64, raw: &Raw, tell: &mut dyn FnMut(Seen)) {
        let living = match self.gone.get_mut(&id) {
            Some(gone) => &mut gone.living,
            None => &mut self.session(id).living,
        };
        if living.take(raw) {
            tell(Seen::Idle(id, living.last()));
        }
    }

    /// Takes for ended what is no more, where records of ends were lost.
    pub fn bury(&mut self, tell: &mut dyn FnMut(Seen)) {
        let all = (self.sessions.iter_mut())
            .map(|(id, session)| (*id, &mut session.living))
            .chain(
                self.gone
                    .iter_mut()
                    .map(|(id, gone)| (*id, &mut gone.living)),
            );
        for (id, living) in all {
            let dead: Vec<u32> = (living.alive.iter())
                .filter(|pid| !Path::new(&format!("/proc/{pid}")).exists())
                .copied()
                .collect();
            if dead.into_iter().fold(false, |_, pid| living.end(pid)) {
                tell(Seen::Idle(id, vec![]));
            }
        }
    }

    /// Keeps nothing of a session, now and later.
    pub fn forget(&mut self, session: u64) {
        let living = self.sessions.remove(&session);
        let gone = Gone {
            living: living.map_or_else(Living::default, |session| session.living),
            quiet: false,
        };
        self.gone.entry(session).or_insert(gone);
    }

    /// Notes records that were none of ours.
    pub fn unknown(&mut self, n: u64) {
        self.strays.samples += n;
    }

    /// Tells how many checks were counted, where that has changed.
    pub fn progress(&mut self, tell: &mut dyn FnMut(Seen)) {
        for (id, session) in &mut self.sessions {
            session.settle();
            if let Some(now) = session.progress() {
                tell(Seen::Checks(*id, now));
            }
        }
    }

    /// No process is followed: nothing comes but what opens a session.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.gone.values().all(|gone| gone.living.alive.is_empty())
    }

    /// Adds the counts that were left in the kernel.
    pub fn settle(&mut self, left: &Finish) {
        for &(key, n) in &left.tallies {
            self.take(Raw::Tally(key, n), &mut |_| ());
        }
    }

    /// Takes out the sessions that `wanted` picks, put together to one; `None` where there is none.
    /// What could not be told apart is everybody's loss. All counts have been handed over.
    pub fn split_off(
        &mut self,
        mut wanted: impl FnMut(u64, Option<&Opened>) -> bool,
    ) -> Option<Session> {
        let ids: Vec<u64> = (self.sessions.iter())
            .filter(|(id, session)| wanted(**id, session.opened.as_ref()))
            .map(|(id, _)| *id)
            .collect();
        let mut all: Option<Session> = None;
        for id in ids {
            let Some(mut session) = self.sessions.remove(&id) else {
                continue;
            };
            let gone = Gone {
                living: std::mem::take(&mut session.living),
                quiet: false,
            };
            self.gone.insert(id, gone);
            match &mut all {
                None => all = Some(session),
                Some(all) => all.absorb(session),
            }
        }
        if let Some(all) = &mut all {
            all.suffer(self.strays);
        }
        all
    }

    /// Forgets that there were sessions of which no process is left, and programs that are over. What those
    /// that ended since counts were handed over last did at their very end is still to come: to be called
    /// once each time that they were, and not otherwise. Gives how many sessions are left of which nothing
    /// is kept.
    pub fn sweep(&mut self) -> usize {
        for program in std::mem::take(&mut self.ended_before) {
            self.of_program.remove(&program);
        }
        self.ended_before = std::mem::take(&mut self.ended);
        let over = |gone: &Gone| gone.quiet && gone.living.alive.is_empty();
        if self.gone.values().any(over) {
            let gone = &self.gone;
            self.of_program
                .retain(|_, of| gone.get(&of.session).is_none_or(|gone| !over(gone)));
            self.gone.retain(|_, gone| !over(gone));
        }
        for gone in self.gone.values_mut() {
            gone.quiet = gone.living.alive.is_empty();
        }
        self.gone.len()
    }

    /// What the first executor of these sessions builds, where that could be read.
    pub fn dockerfile(&mut self, wanted: impl Fn(u64) -> bool) -> Option<Dockerfile> {
        let until = Instant::now() + reading::PATIENCE;
        (self.sessions.iter_mut())
            .filter(|(id, _)| wanted(**id))
            .find_map(|(_, session)| session.dockerfile.end(until).cloned())
    }

    /// The sessions that executors opened, each with whether `session` had it started: the command line
    /// of the client that it ran, or its own `command`, ends with that of what was run. Where just one
    /// was opened, any client will have started it.
    pub fn opened(&self, session: u64, command: &[String]) -> Vec<(u64, Opened, bool)> {
        let clients = (self.sessions.get(&session)).map_or(&[][..], |s| s.clients.as_slice());
        let one = self
            .sessions
            .values()
            .filter(|s| s.opened.is_some())
            .count()
            == 1;
        let started = |opened: &Opened| {
            let args = opened.command.get(1..).unwrap_or_default();
            let fits = |client: &[String]| !args.is_empty() && client.ends_with(args);
            fits(command) || clients.iter().any(|client| fits(client)) || one && !clients.is_empty()
        };
        (self.sessions.iter())
            .filter_map(|(id, session)| {
                let opened = session.opened.clone()?;
                let started = started(&opened);
                Some((*id, opened, started))
            })
            .collect()
    }

    fn session(&mut self, id: u64) -> &mut Session {
        let (base, pool, before) = (self.base, &self.sorting.pool, self.strays);
        (self.sessions.entry(id)).or_insert_with(|| Session::new(base, pool.room(), before))
    }

    fn of(&self, program: u32) -> Option<u64> {
        Some(self.of_program.get(&program)?.session)
    }

    fn follow(&mut self, from: u32, to: u32, change: impl FnOnce(Of) -> Of) -> Option<u64> {
        // A session of its own may have been opened for it.
        let own = self.of_program.get(&to).copied();
        let of = own.or_else(|| self.of_program.get(&from).copied())?;
        self.of_program.insert(to, change(of));
        Some(of.session)
    }

    /// Looks at a process that is about to run the executor, in this session.
    fn read(&self, session: u64, pid: u32, time_ns: u64) -> Opened {
        let (variables, layout) = (&self.sorting.variables, self.layout.as_ref());
        // One that is older was another's, whose own record was lost.
        let told =
            (self.starting.get(&pid)).filter(|told| time_ns.saturating_sub(told.time_ns) < SOON);
        Opened::read(session, pid, time_ns, told, variables, layout)
    }

    /// An executor is about to run.
    fn expect(&mut self, starting: Starting) {
        let now = starting.time_ns;
        // Of others the records that were to follow were lost.
        (self.starting).retain(|_, told| now.saturating_sub(told.time_ns) < SOON);
        self.starting.remove(&starting.pid);
        if self.starting.len() >= STARTING {
            return;
        }
        self.starting.insert(starting.pid, starting);
    }
}

#[cfg(test)]
mod tests;
