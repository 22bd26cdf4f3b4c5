//! Which process is the executor whose Dockerfile it is, and what every other program works for by
//! where it comes from.

use std::collections::{HashMap, HashSet};

use super::events::Kind;
use super::place::{Place, Why};
use super::plan::Plan;
use super::read::{self, Line};
use crate::capture::{Capture, LogLine, Origin, Program};
use crate::interpret::scope::Scope;

/// Programs that look up passwords for registries: no RUN is one (Kaniko's `pkg/creds`).
const CREDENTIAL_HELPER: &str = "docker-credential-";

/// The executor that the report is about.
pub struct Main<'a> {
    /// Its first generation.
    pub root: u32,
    /// Its log, and no other's.
    pub log: Vec<&'a LogLine>,
    /// How many more executors there were.
    pub others: usize,
}

/// The first generation of the process that a generation is a phase of.
pub struct Processes<'a> {
    scope: &'a Scope<'a>,
    known: HashMap<u32, u32>,
}

impl<'a> Processes<'a> {
    /// Of a session.
    pub fn of(scope: &'a Scope<'a>) -> Self {
        Self {
            scope,
            known: HashMap::new(),
        }
    }

    /// Of one generation.
    pub fn root(&mut self, id: u32) -> u32 {
        let mut chain = Vec::new();
        let mut at = id;
        let root = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            let program = self.scope.program(at);
            let previous = program
                .filter(|p| p.origin == Origin::Phase)
                .and_then(|p| p.parent);
            // Marked on the way, so that a cycle ends.
            self.known.insert(at, at);
            chain.push(at);
            match previous {
                Some(previous) => at = previous,
                None => break at,
            }
        };
        for id in chain {
            self.known.insert(id, root);
        }
        root
    }
}

/// Generations by which an executor came to be: executed, or met when the trace began.
fn begins(program: &Program) -> bool {
    program.executor && !matches!(program.origin, Origin::Phase | Origin::Fork)
}

/// Chooses among the executors of a session the one whose log shows most of the Dockerfile, and
/// among equals the first; one whose log shows another Dockerfile comes last. One that a RUN
/// executes is that RUN's program, and writes no log that counts.
pub fn main<'a>(
    capture: &'a Capture,
    scope: &Scope<'a>,
    processes: &mut Processes<'_>,
    plan: &Plan,
) -> Option<Main<'a>> {
    let mut outermost = Outermost {
        scope,
        known: HashMap::new(),
    };
    let mut roots: Vec<&Program> = (capture.programs.iter())
        .filter(|p| begins(p) && scope.inside(p.id) && outermost.is(p))
        .collect();
    roots.sort_by_key(|p| (p.start_ns, p.id));
    let ids: HashSet<u32> = roots.iter().map(|p| p.id).collect();
    let mut logs: HashMap<u32, Vec<&LogLine>> = HashMap::new();
    let mut seen = HashSet::new();
    for line in &capture.log {
        let root = processes.root(line.program);
        // One write is one line, whatever line breaks it has; the rest of one that was split says
        // nothing, for it can say what an instruction's author wants it to.
        if ids.contains(&root) && seen.insert(line.program) {
            logs.entry(root).or_default().push(line);
        }
    }
    let texts: HashSet<&str> = plan.instructions.iter().map(|i| i.text.as_str()).collect();
    let shows = |lines: &[Line<'_>]| {
        let announced = || lines.iter().filter(|line| line.kind == Kind::Instruction);
        let ours = |line: &&Line<'_>| texts.contains(line.message.text.as_ref());
        let count = announced().filter(ours).count();
        let begun = if texts.is_empty() {
            lines.iter().any(|line| line.kind == Kind::Stage)
        } else {
            count > 0 || announced().next().is_none()
        };
        (count, begun)
    };
    let others = roots.len().saturating_sub(1);
    let mut best: Option<((usize, bool), u32)> = None;
    for root in roots {
        let log = logs.get(&root.id).filter(|_| others > 0);
        let score = log.map_or_else(|| shows(&[]), |log| shows(&read::read(log.iter().copied())));
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, root.id));
        }
    }
    best.map(|(_, root)| Main {
        root,
        log: logs.remove(&root).unwrap_or_default(),
        others,
    })
}

/// Which executors no other one made.
struct Outermost<'s, 'a> {
    scope: &'s Scope<'a>,
    /// Whether an executor is above a generation or is it.
    known: HashMap<u32, bool>,
}

impl Outermost<'_, '_> {
    fn is(&mut self, program: &Program) -> bool {
        !program.parent.is_some_and(|parent| self.below(parent))
    }

    fn below(&mut self, id: u32) -> bool {
        let mut chain = Vec::new();
        let mut at = id;
        let below = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            self.known.insert(at, false);
            chain.push(at);
            match self.scope.program(at) {
                Some(program) if begins(program) => break true,
                Some(Program {
                    parent: Some(parent),
                    ..
                }) => at = *parent,
                _ => break false,
            }
        };
        for id in chain {
            self.known.insert(id, below);
        }
        below
    }
}

/// The executor's children that executed a program, in order, by their first generation: the
/// programs of RUN instructions, as far as can be told without a log.
pub fn children(capture: &Capture, processes: &mut Processes<'_>, root: u32) -> Vec<u32> {
    let executed: HashSet<u32> = (capture.programs.iter())
        .filter(|p| p.origin == Origin::Exec && !p.path.contains(CREDENTIAL_HELPER))
        .filter_map(|p| p.parent)
        .collect();
    let mut children: Vec<&Program> = (capture.programs.iter())
        .filter(|p| p.origin == Origin::Fork && executed.contains(&p.id))
        .filter(|p| {
            p.parent
                .is_some_and(|parent| processes.root(parent) == root)
        })
        .collect();
    children.sort_by_key(|p| (p.start_ns, p.id));
    children.into_iter().map(|p| p.id).collect()
}

/// What every program works for.
pub struct Claims<'s, 'a> {
    scope: &'s Scope<'a>,
    /// The executor's own generations, and the first ones of RUN programs where these are told by
    /// themselves.
    known: HashMap<u32, Place>,
    /// There is an executor, so that what is unknown may be its work.
    executor: bool,
}

impl<'s, 'a> Claims<'s, 'a> {
    /// From what is known already.
    pub fn new(scope: &'s Scope<'a>, known: HashMap<u32, Place>, executor: bool) -> Self {
        Self {
            scope,
            known,
            executor,
        }
    }

    /// What a generation works for: what the one that it comes from works for.
    pub fn of(&mut self, id: u32) -> Place {
        if !self.scope.inside(id) {
            return Place::Outside;
        }
        let unknown = if self.executor {
            Place::Unclaimed(Why::Lineage)
        } else {
            Place::Job
        };
        let mut chain = Vec::new();
        let mut at = id;
        let place = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            let Some(program) = self.scope.program(at) else {
                break unknown;
            };
            if !self.scope.inside(at) {
                // The first of the container's programs, and no executor.
                break Place::Job;
            }
            // Marked on the way, so that a cycle ends.
            self.known.insert(at, unknown);
            chain.push(at);
            match (program.origin, program.parent) {
                (Origin::Lost, _) => break unknown,
                (_, Some(parent)) => at = parent,
                (Origin::Enter, None) => break Place::Job,
                (_, None) => break unknown,
            }
        };
        for id in chain {
            self.known.insert(id, place);
        }
        place
    }
}
