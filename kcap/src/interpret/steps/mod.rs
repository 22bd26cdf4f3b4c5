//! Which checks belong to which part of the build.
//!
//! The recorder begins a new generation of the executor with every line of its log, so that all
//! that it does between two lines is counted under one of them: `walk` reads the lines in order,
//! with the Dockerfile in the other hand, and says whose work follows each. What a RUN executes is
//! a child of the generation in force, and its descendants come after it by their parents, for as
//! long as they live (`lineage`).
//!
//! `line` takes a line out of its format, `events` knows what Kaniko's lines announce, and `read`
//! puts the two together. `plan` is what a Dockerfile lets one expect, `fit` finds the stage that a
//! part of the log is, `place` holds what is being found out, and `silent` does what can be done
//! without a log.
//!
//! A session can hold several executors, one after the other. The one whose log shows most of the
//! Dockerfile is the build; the others are `job` work, as is all that the container does around it.

mod events;
mod fit;
pub(crate) mod line;
mod lineage;
mod place;
mod plan;
mod read;
mod silent;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet};

use super::scope::Scope;
use crate::capture::{Capture, FileCaps, LogLine};
use crate::report::{By, Coverage, Sharp, State, Step};
use lineage::{Claims, Main, Processes};
use place::{Order, Part, Parts, Place, Why};
use plan::Plan;

/// Most characters of an instruction's text that is kept.
const TEXT: usize = 1024;
/// Most lines of the log of a failed build that are kept, and most characters of each.
const TAIL: (usize, usize) = (20, 400);

/// The steps of a session.
pub struct Steps {
    /// By index; checks and what they require are not filled in yet.
    pub list: Vec<Step>,
    /// What became of the instructions.
    pub coverage: Coverage,
    /// The instruction that was worked on last.
    pub last: Option<u32>,
    /// Where the executor was when its log ended: an instruction, or a phase of its own.
    pub at: Option<u32>,
    /// The last lines of the executor's log, without escapes for terminals.
    pub tail: Vec<String>,
    /// What a reader must know.
    pub notes: Vec<String>,
    of_program: HashMap<u32, u32>,
    outside: u32,
    unknown: u32,
}

impl Steps {
    /// Finds the steps of a capture.
    pub fn of(capture: &Capture, scope: &Scope<'_>) -> Self {
        let mut notes = Vec::new();
        let plan = match capture.subject.dockerfile_text.as_deref().map(Plan::of) {
            Some(Ok(plan)) => plan,
            Some(Err(error)) => {
                notes.push(format!("the Dockerfile could not be read: {error}"));
                Plan::default()
            }
            None => Plan::default(),
        };
        let mut processes = Processes::of(scope);
        let main = lineage::main(capture, scope, &mut processes, &plan);
        let told = tell(capture, &mut processes, main.as_ref(), &plan, &mut notes);
        let tail = tail(main.as_ref().map_or(&[], |main| &main.log));
        collect(capture, scope, main.is_some(), told, tail, notes)
    }

    /// The step of a program, by the id that a tally has.
    pub fn of_program(&self, id: u32, inside: bool) -> u32 {
        let otherwise = if inside { self.unknown } else { self.outside };
        self.of_program.get(&id).copied().unwrap_or(otherwise)
    }
}

/// What the log and the executor's children say.
struct Told<'a> {
    parts: Parts<'a>,
    /// The executor's generations, and children told by themselves.
    places: HashMap<u32, Place>,
    last: Option<u32>,
    /// Where the executor was at the end; `None` where that is not known.
    at: Option<Place>,
}

fn tell<'a>(
    capture: &Capture,
    processes: &mut Processes<'_>,
    main: Option<&Main<'_>>,
    plan: &'a Plan,
    notes: &mut Vec<String>,
) -> Told<'a> {
    let Some(main) = main else {
        return Told {
            parts: Parts::of(plan),
            places: HashMap::new(),
            last: None,
            at: None,
        };
    };
    if main.others > 0 {
        notes.push(format!(
            "{} more executors ran beside the one that built this Dockerfile: their work is a job's",
            main.others
        ));
    }
    let lines = read::read(main.log.iter().copied());
    let completed = completed(capture, processes, main.root);
    if !lines.iter().any(|line| line.info) {
        let children = lineage::children(capture, processes, main.root);
        let mut told = silent::tell(plan, &children, completed);
        own_generations(
            capture,
            processes,
            main.root,
            Why::Silenced,
            &mut told.places,
        );
        notes.push(silent::NOTE.to_owned());
        return told;
    }
    let walked = walk::walk(plan, &lines, completed, capture.subject.late);
    let mut places = walked.places;
    let began = if capture.subject.late {
        Place::Unclaimed(Why::Late)
    } else {
        Place::Start
    };
    places.insert(main.root, began);
    own_generations(capture, processes, main.root, Why::LineLost, &mut places);
    Told {
        parts: walked.parts,
        places,
        last: walked.last,
        at: Some(walked.at),
    }
}

/// Generations of the executor's process that nothing is known of.
fn own_generations(
    capture: &Capture,
    processes: &mut Processes<'_>,
    root: u32,
    why: Why,
    places: &mut HashMap<u32, Place>,
) {
    for program in &capture.programs {
        if processes.root(program.id) == root {
            places.entry(program.id).or_insert(Place::Unclaimed(why));
        }
    }
}

/// The executor came to its end by itself, with success; where its end was not seen, the command
/// did.
fn completed(capture: &Capture, processes: &mut Processes<'_>, root: u32) -> bool {
    let mut own = capture
        .programs
        .iter()
        .filter(|p| processes.root(p.id) == root);
    match own.find_map(|p| p.wait_status) {
        Some(status) => status == 0,
        None => capture.subject.exit_status == Some(0) && !capture.interrupted,
    }
}

/// Gives every place that is used an index, and every program its place.
fn collect(
    capture: &Capture,
    scope: &Scope<'_>,
    executor: bool,
    told: Told<'_>,
    tail: Vec<String>,
    notes: Vec<String>,
) -> Steps {
    let Told {
        mut parts,
        places,
        last,
        at: ended,
    } = told;
    let count = parts.list().len() as u32;
    let mut used: HashSet<Place> = (0..count).map(Place::Part).collect();
    used.extend(
        places
            .values()
            .copied()
            .filter(|place| !matches!(place, Place::Unclaimed(_))),
    );
    let mut claims = Claims::new(scope, places, executor);
    let mut of_program = HashMap::with_capacity(capture.programs.len());
    for program in &capture.programs {
        let place = claims.of(program.id);
        if let (Place::Part(part), Some(_), false) = (place, &program.exec, program.executor) {
            parts.executed(part);
        }
        of_program.insert(program.id, place);
    }
    // Only what something happened in: a step without any is no help.
    for tally in &capture.tallies {
        used.insert(match of_program.get(&tally.program) {
            Some(place) => *place,
            None => claims.of(tally.program),
        });
    }
    let has = |file: &FileCaps| matches!(file, FileCaps::Has { .. });
    let files = capture
        .programs
        .iter()
        .filter(|p| p.exec.as_ref().is_some_and(|e| has(&e.file)));
    used.extend(files.filter_map(|p| of_program.get(&p.id)).copied());
    if used.is_empty() {
        used.insert(Place::Job);
    }

    let stages = Stages::of(&parts);
    let mut ordered: Vec<(Order, Place)> = used
        .into_iter()
        .map(|place| (stages.order(&parts, place), place))
        .collect();
    ordered.sort_unstable_by_key(|(order, place)| (*order, *place));
    let index: HashMap<Place, u32> = ordered.iter().map(|(_, p)| *p).zip(0..).collect();
    let mut list: Vec<Step> = (ordered.iter())
        .map(|(_, place)| step(&parts, &stages, *place, executor))
        .collect();
    for (step, number) in list.iter_mut().zip(0..) {
        step.index = number;
    }
    let unknown = if executor {
        Place::Unclaimed(Why::Lineage)
    } else {
        Place::Job
    };
    // One that is not used is not asked for.
    let at = |place: Place| index.get(&place).copied().unwrap_or_default();
    Steps {
        coverage: coverage(parts.list()),
        last: last.map(|part| at(Place::Part(part))),
        at: ended.and_then(|place| index.get(&place).copied()),
        tail,
        notes,
        of_program: of_program
            .into_iter()
            .map(|(id, place)| (id, at(place)))
            .collect(),
        outside: at(Place::Outside),
        unknown: at(unknown),
        list,
    }
}

/// The instructions of each stage: its FROM, the first and the last.
struct Stages<'p>(HashMap<u32, [&'p Part; 2]>);

impl<'p> Stages<'p> {
    fn of(parts: &'p Parts<'_>) -> Self {
        let mut stages: HashMap<u32, [&Part; 2]> = HashMap::new();
        for part in parts.list() {
            if let Some(stage) = part.stage {
                let [first, last] = stages.entry(stage).or_insert([part, part]);
                if part.order < first.order {
                    *first = part;
                }
                if part.order > last.order {
                    *last = part;
                }
            }
        }
        Self(stages)
    }

    fn from(&self, stage: Option<u32>) -> Option<&'p Part> {
        let [first, _] = self.0.get(&stage?)?;
        Some(*first).filter(|part| part.kind == "from")
    }

    /// Where a place stands in the list.
    fn order(&self, parts: &Parts<'_>, place: Place) -> Order {
        // What belongs to a stage goes with the first or the last of its instructions.
        let stage = |stage: Option<u32>, end: usize| {
            let ends = stage.and_then(|stage| self.0.get(&stage));
            ends.map_or(Order::default(), |ends| ends[end].order)
        };
        match place {
            Place::Start => Order(0, 0, 0),
            Place::Retrieve => Order(0, 0, 1),
            Place::Context => Order(0, 0, 2),
            Place::Part(part) => parts.order(part),
            Place::Unpack(number) => Order(stage(number, 0).0, 0, 1),
            Place::Snapshot {
                stage: number,
                part,
                first,
            } => {
                let Order(a, b, _) = part.map_or_else(|| stage(number, 0), |p| parts.order(p));
                Order(a, b, if first { 2 } else { 3 })
            }
            Place::StageEnd(None) => Order(0, 0, 4),
            Place::StageEnd(number) => Order(stage(number, 1).0, u32::MAX, 4),
            Place::Push => Order(u32::MAX, 0, 0),
            Place::Job => Order(u32::MAX, 1, 0),
            Place::Unclaimed(why) => Order(u32::MAX, 2, why as u32),
            Place::Outside => Order(u32::MAX, 3, 0),
        }
    }
}

/// A place as the report gives it, without its index.
fn step(parts: &Parts<'_>, stages: &Stages<'_>, place: Place, executor: bool) -> Step {
    let new = |kind: &str, text: String| Step {
        index: 0,
        stage: None,
        line: None,
        kind: kind.to_owned(),
        text: super::bounded(&text, TEXT),
        state: State::Ran,
        by: By::Log,
        sharp: if parts.mixed(place).is_some() {
            Sharp::Mixed
        } else {
            Sharp::Exact
        },
        holds: parts.mixed(place).map(str::to_owned),
        checks: 0,
        required: Vec::new(),
    };
    let unknown = |kind: &str, text: &str, by, sharp| Step {
        by,
        sharp,
        ..new(kind, text.to_owned())
    };
    match place {
        Place::Start => new("start", "the executor starts".to_owned()),
        Place::Retrieve => new(
            "retrieve",
            "base images are looked up, and images that COPY --from names are extracted".to_owned(),
        ),
        Place::Context => new("context", "the build context is put aside".to_owned()),
        Place::Unpack(number) => Step {
            stage: number,
            line: stages.from(number).and_then(|part| part.line),
            ..new(
                "unpack",
                match stages.from(number) {
                    Some(part) => format!("the base image is unpacked: {}", part.text),
                    None => "the base image is unpacked".to_owned(),
                },
            )
        },
        Place::Part(part) => {
            let part = parts.part(part);
            Step {
                stage: part.stage,
                line: part.line,
                state: part.state,
                by: part.by,
                sharp: part.sharp,
                ..new(&part.kind, part.text.clone())
            }
        }
        Place::Snapshot { stage, part, first } => {
            let part = part.map(|part| parts.part(part));
            let when = if first {
                "looked at before"
            } else {
                "compared after"
            };
            let what = part.map_or("the stage begins", |part| &part.text);
            Step {
                stage: part.map_or(stage, |part| part.stage),
                line: part.and_then(|part| part.line),
                ..new("snapshot", format!("the file system is {when}: {what}"))
            }
        }
        Place::StageEnd(number) => Step {
            stage: number,
            ..new(
                "stage-end",
                match number {
                    Some(_) => "files for later stages are saved, and the file system is emptied",
                    None => "the file system is emptied before the build",
                }
                .to_owned(),
            )
        },
        Place::Push => new("push", "the image is pushed".to_owned()),
        Place::Job if executor => unknown(
            "job",
            "work of the container around the executor",
            By::Exec,
            Sharp::Exact,
        ),
        Place::Job => unknown("job", "the traced command", By::Unknown, Sharp::Unknown),
        Place::Outside => unknown(
            "container-start",
            "the container's runtime, outside the container",
            By::Exec,
            Sharp::Exact,
        ),
        Place::Unclaimed(why) => unknown(
            "other",
            match why {
                Why::Silenced => "not told apart: the executor's log was silenced",
                Why::LineLost => "not told apart: a line of the executor's log was lost",
                Why::Late => "before the first line of the log that was seen: the trace began late",
                Why::Lineage => "where these programs come from was not seen",
            },
            By::Unknown,
            Sharp::Unknown,
        ),
    }
}

fn coverage(parts: &[Part]) -> Coverage {
    let mut coverage = Coverage::default();
    for part in parts {
        *match part.state {
            State::Ran => &mut coverage.ran,
            State::Cached => &mut coverage.cached,
            State::Skipped => &mut coverage.skipped,
            State::Unreached => &mut coverage.unreached,
        } += 1;
    }
    coverage
}

/// The last lines of a log.
fn tail(log: &[&LogLine]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in log.iter().rev().take(TAIL.0) {
        let text = line::without_ansi(&line.text);
        for part in text.lines().rev() {
            lines.push(super::bounded(part.trim_end(), TAIL.1));
            if lines.len() == TAIL.0 {
                break;
            }
        }
        if lines.len() == TAIL.0 {
            break;
        }
    }
    lines.reverse();
    lines
}
