//! Sorts what the kernel side sends by session. A generation belongs to the session of the one that
//! it came from; the record that announces it was reserved before anything could be counted under
//! it, so that its session is known by then.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::PathBuf,
};

use kcap_common::abi::record::{exec_flag, how};

use super::{
    assemble::{Assembler, Executed, line},
    filecaps::Reader,
    inside,
    kernel::{Finish, Raw},
};

/// Commands that have a daemon start a container, with what runs in it at the end of their own
/// command line.
const ENGINES: [&[u8]; 8] = [
    b"docker",
    b"docker-compose",
    b"podman",
    b"nerdctl",
    b"ctr",
    b"crictl",
    b"kubectl",
    b"buildctl",
];
/// Most command lines of clients that are kept for one session.
const CLIENTS: usize = 256;

/// What the rest of kcap is told while it happens.
#[derive(Debug)]
pub enum Seen {
    /// An executor opened a session of its own.
    Opened(u64, Opened),
    /// The executor of a session wrote a line to its log.
    Line(u64, String),
    /// So many checks of a session have been counted until now.
    Checks(u64, u64),
}

/// How a session came to be, where an executor opened it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Lines of `/proc/PID/cgroup` then: they name the container.
    pub cgroups: String,
    /// The command line of the executor.
    pub command: Vec<String>,
}

/// One session's share.
pub struct Session {
    /// What was recorded.
    pub assembler: Assembler,
    /// Set where an executor opened it.
    pub opened: Option<Opened>,
    /// What its first executor builds, where that could be read.
    pub dockerfile: Option<(PathBuf, Vec<u8>)>,
    /// Command lines of the engines' clients that it ran.
    clients: Vec<Vec<String>>,
    looked: bool,
    told: u64,
}

/// Sorts records into sessions.
pub struct Router {
    base: u64,
    sessions: BTreeMap<u64, Session>,
    of_program: HashMap<u32, u64>,
    /// Sessions that nobody wants: others' builds, of which nothing may add up.
    forgotten: HashSet<u64>,
    /// What names a generation that was never announced: its record was lost.
    strays: Assembler,
    files: Reader,
}

impl Router {
    /// Starts one whose times count from `base`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn new(base: u64) -> Self {
        Self {
            base,
            sessions: BTreeMap::new(),
            of_program: HashMap::new(),
            forgotten: HashSet::new(),
            strays: Assembler::new(base),
            files: Reader::default(),
        }
    }

    /// Takes one record; `tell` hears what others may want to know at once.
    pub fn take(&mut self, raw: Raw, tell: &mut dyn FnMut(Seen)) {
        let session = match &raw {
            Raw::Enter(e) => {
                if e.how == how::OPENED {
                    let opened = Opened::read(e.tgid);
                    tell(Seen::Opened(e.session, opened.clone()));
                    self.session(e.session).opened.get_or_insert(opened);
                }
                self.of_program.insert(e.program, e.session);
                Some(e.session)
            }
            Raw::Fork(f) => self.follow(f.parent, f.program),
            Raw::Exec(e) => {
                let session = self.follow(e.previous, e.program);
                if let Some(session) = session {
                    if self.forgotten.contains(&session) {
                        return;
                    }
                    if e.flags & exec_flag::EXECUTOR != 0 {
                        self.session(session).look(e.tgid);
                    }
                    if is_client(&e.path) {
                        let clients = &mut self.session(session).clients;
                        if clients.len() < CLIENTS {
                            clients.push(inside::command(e.tgid));
                        }
                    }
                }
                session
            }
            Raw::Phase(p) => self.follow(p.previous, p.program),
            Raw::Tally(key, _) => self.of_program.get(&key.program).copied(),
            Raw::Evidence(e) => self.of_program.get(&e.key.program).copied(),
            Raw::Unasked(u) => self.of_program.get(&u.key.program).copied(),
            Raw::Argv { program, .. } => self.of_program.get(program).copied(),
            Raw::Exit(e) => self.of_program.get(&e.program).copied(),
        };
        if session.is_some_and(|id| self.forgotten.contains(&id)) {
            return;
        }
        let files = &mut self.files;
        let read = &mut |file: &Executed<'_>| files.read(file);
        match session {
            Some(id) => {
                let base = self.base;
                let at = self
                    .sessions
                    .entry(id)
                    .or_insert_with(|| Session::new(base));
                if let Raw::Phase(p) = &raw {
                    tell(Seen::Line(id, line(p)));
                }
                at.assembler.take(raw, read);
            }
            None => self.strays.take(raw, read),
        }
    }

    /// Keeps nothing of a session, now and later.
    pub fn forget(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.forgotten.insert(session);
    }

    /// Notes records that were none of ours.
    pub fn unknown(&mut self, n: u64) {
        self.strays.unknown(n);
    }

    /// Tells how many checks were counted, where that has changed.
    pub fn progress(&mut self, tell: &mut dyn FnMut(Seen)) {
        for (id, session) in &mut self.sessions {
            let now = session.assembler.checks();
            if now != session.told {
                session.told = now;
                tell(Seen::Checks(*id, now));
            }
        }
    }

    /// Adds the counts that were left in the kernel.
    pub fn settle(&mut self, left: &Finish) {
        for &(key, n) in &left.tallies {
            self.take(Raw::Tally(key, n), &mut |_| ());
        }
    }

    /// Takes out the sessions that `wanted` picks, put together to one; `None` where there is none.
    /// What could not be told apart is everybody's loss.
    pub fn split_off(
        &mut self,
        mut wanted: impl FnMut(u64, Option<&Opened>) -> bool,
    ) -> Option<Assembler> {
        let ids: Vec<u64> = (self.sessions.iter())
            .filter(|(id, session)| wanted(**id, session.opened.as_ref()))
            .map(|(id, _)| *id)
            .collect();
        let mut all: Option<Assembler> = None;
        for id in ids {
            let Some(session) = self.sessions.remove(&id) else {
                continue;
            };
            match &mut all {
                None => all = Some(session.assembler),
                Some(all) => all.absorb(session.assembler),
            }
        }
        if let Some(all) = &mut all {
            all.suffer(&self.strays);
        }
        all
    }

    /// What the first executor of these sessions builds, where that could be read.
    pub fn dockerfile(&self, wanted: impl Fn(u64) -> bool) -> Option<(PathBuf, Vec<u8>)> {
        (self.sessions.iter())
            .filter(|(id, _)| wanted(**id))
            .find_map(|(_, session)| session.dockerfile.clone())
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
        let base = self.base;
        (self.sessions.entry(id)).or_insert_with(|| Session::new(base))
    }

    fn follow(&mut self, from: u32, to: u32) -> Option<u64> {
        let session = self.of_program.get(&from).copied()?;
        self.of_program.insert(to, session);
        Some(session)
    }
}

/// Whether a path, as the kernel side gives it, is that of an engine's client.
fn is_client(path: &[u8]) -> bool {
    let path = path.split(|&b| b == 0).next().unwrap_or_default();
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    ENGINES.contains(&name)
}

impl Session {
    fn new(base: u64) -> Self {
        Self {
            assembler: Assembler::new(base),
            opened: None,
            dockerfile: None,
            clients: vec![],
            looked: false,
            told: 0,
        }
    }

    /// Reads what the first executor builds.
    fn look(&mut self, pid: u32) {
        if !std::mem::replace(&mut self.looked, true) {
            self.dockerfile = inside::dockerfile(pid, &inside::command(pid));
        }
    }
}

impl Opened {
    /// Looks at a process that is about to run the executor. Empty where it is over already.
    fn read(pid: u32) -> Self {
        Self {
            cgroups: fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default(),
            command: inside::command(pid),
        }
    }

    /// A container of this id is in the path of its cgroup.
    pub fn is_container(&self, id: &str) -> bool {
        !id.is_empty() && self.cgroups.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use kcap_common::abi::{Key, record};

    use super::*;

    fn enter(program: u32, session: u64) -> Raw {
        Raw::Enter(record::Enter {
            kind: record::kind::ENTER,
            program,
            tgid: program,
            how: how::CGROUP,
            session,
            time: 0,
            comm: [0; 16],
        })
    }

    fn fork(program: u32, parent: u32) -> Raw {
        Raw::Fork(record::Fork {
            kind: record::kind::FORK,
            program,
            parent,
            tgid: program,
            time: 0,
            flags: 0,
        })
    }

    fn tally(program: u32, count: u64) -> Raw {
        let key = Key {
            program,
            ..Key::default()
        };
        Raw::Tally(key, count)
    }

    fn routed(records: Vec<Raw>) -> Router {
        let mut router = Router::new(0);
        for raw in records {
            router.take(raw, &mut |_| ());
        }
        router
    }

    fn checks(router: &mut Router, session: u64) -> Option<u64> {
        router.split_off(|id, _| id == session).map(|a| a.checks())
    }

    #[test]
    fn counts_go_where_their_lineage_is() {
        let mut router = routed(vec![
            enter(1, 100),
            enter(2, 200),
            fork(3, 1),
            fork(4, 2),
            fork(5, 3),
            tally(5, 7),
            tally(4, 11),
            tally(1, 1),
        ]);
        assert_eq!(checks(&mut router, 100), Some(8));
        assert_eq!(checks(&mut router, 200), Some(11));
        assert_eq!(checks(&mut router, 100), None, "it was taken out");
    }

    #[test]
    fn what_nobody_announced_is_everybodys_loss() {
        let mut router = routed(vec![enter(1, 100), enter(2, 200), tally(9, 5)]);
        for session in [100, 200] {
            let share = router.split_off(|id, _| id == session).unwrap();
            let end = Finish::default();
            let capture = share.finish(&end, &Default::default(), &mut |_| HashMap::new());
            assert_eq!(capture.loss.checks, 5);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_session_that_is_forgotten() {
        let mut router = routed(vec![enter(1, 100), fork(2, 1), tally(2, 3)]);
        router.forget(100);
        for raw in [fork(3, 2), tally(3, 4), tally(2, 5), enter(4, 100)] {
            router.take(raw, &mut |_| ());
        }
        assert_eq!(checks(&mut router, 100), None);
        let mut told = 0;
        router.progress(&mut |_| told += 1);
        assert_eq!(told, 0);
        assert_eq!(router.strays.checks(), 0, "nor is it anybody's loss");
    }

    #[test]
    fn a_container_is_the_commands_whose_client_has_its_arguments() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let mut router = routed(vec![enter(1, 1), enter(2, 20), enter(3, 30)]);
        for (session, command) in [(20, "/kaniko/executor -f a"), (30, "/kaniko/executor -f b")] {
            router.session(session).opened = Some(Opened {
                cgroups: String::new(),
                command: words(command),
            });
        }
        let started = |router: &Router, command: &str| -> Vec<u64> {
            let opened = router.opened(1, &words(command)).into_iter();
            opened
                .filter(|(.., started)| *started)
                .map(|(id, ..)| id)
                .collect()
        };
        assert_eq!(started(&router, "docker run image -f b"), [30]);
        assert_eq!(started(&router, "make"), [0; 0]);
        router
            .session(1)
            .clients
            .push(words("docker run image -f a"));
        assert_eq!(started(&router, "make"), [20]);
        // One that was started by a client whose command line says nothing of it.
        router.forget(20);
        assert_eq!(started(&router, "make"), [30]);
    }

    #[test]
    fn clients_are_known_by_name() {
        assert!(is_client(b"/usr/bin/docker\0rest") && is_client(b"podman"));
        assert!(!is_client(b"/usr/bin/dockerd\0") && !is_client(b"\0"));
    }
}
