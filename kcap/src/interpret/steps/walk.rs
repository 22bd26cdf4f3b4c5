//! Follows the executor's log through the Dockerfile: after each line, whose work is it that comes
//! next? Kaniko does one thing after the other; only layers go to its cache in the background.

use std::collections::{HashMap, HashSet};

use super::events::{self, Kind};
use super::fit;
use super::line::Message;
use super::place::{Order, Part, Parts, Place, Why};
use super::plan::{Link, Plan};
use super::read::Line;
use crate::interpret::dockerfile::Keyword;
use crate::report::{By, Sharp, State};

/// How far ahead in a stage the instruction of a line is looked for.
pub const LOOKAHEAD: usize = 64;

/// What a walk finds out.
pub struct Walked<'a> {
    /// Instructions and what became of them.
    pub parts: Parts<'a>,
    /// Whose work follows each line, by the generation that it begins.
    pub places: HashMap<u32, Place>,
    /// The instruction that was worked on last, where one was.
    pub last: Option<u32>,
    /// Whose work it was when the log ended.
    pub at: Place,
}

/// Follows the log of a build: whether it came to its end by itself, and whether the trace began
/// late, so that the first lines are missing.
pub fn walk<'a>(plan: &'a Plan, lines: &[Line<'_>], completed: bool, late: bool) -> Walked<'a> {
    let mut walk = Walk {
        plan,
        parts: Parts::of(plan),
        places: HashMap::with_capacity(lines.len()),
        at: if late {
            Place::Unclaimed(Why::Late)
        } else {
            Place::Start
        },
        late,
        last: None,
        eliminated: HashSet::new(),
        built: HashSet::new(),
        background: HashSet::new(),
        pending: 0,
    };
    let begins = |line: &Line<'_>| matches!(line.kind, Kind::Stage | Kind::Instruction);
    let first = lines.iter().position(begins).unwrap_or(lines.len());
    walk.before(&lines[..first]);
    let mut rest = &lines[first..];
    while let Some((_, after)) = rest.split_first() {
        let next = after.iter().position(|line| line.kind == Kind::Stage);
        let (segment, after) = rest.split_at(next.map_or(rest.len(), |at| at + 1));
        let last = after.is_empty();
        walk.stage(segment, completed || !last);
        if last && completed && walk.at != Place::Push {
            walk.mix_output();
        }
        rest = after;
    }
    walk.left(completed, late);
    Walked {
        parts: walk.parts,
        places: walk.places,
        last: walk.last,
        at: walk.at,
    }
}

struct Walk<'a> {
    plan: &'a Plan,
    parts: Parts<'a>,
    places: HashMap<u32, Place>,
    /// Whose work it is now.
    at: Place,
    /// Nothing has been seen yet, and something came before.
    late: bool,
    last: Option<u32>,
    eliminated: HashSet<usize>,
    built: HashSet<usize>,
    /// Where layers go in the background.
    background: HashSet<String>,
    /// Layers written to a folder in the background, each of which says that it is not pushed.
    pending: usize,
}

/// A stage while its lines are read.
struct Stage<'s> {
    /// Its number, where it is known.
    number: Option<u32>,
    /// What it will announce.
    chain: Vec<Link>,
    /// The same as parts.
    parts: Vec<u32>,
    /// How many instructions of the base image come first.
    added: usize,
    /// How much of it has been announced.
    next: usize,
    /// Where the search for what the cache has goes on.
    hit: usize,
    /// Parts that the cache has.
    cached: HashSet<u32>,
    /// The instruction that is worked on.
    part: Option<u32>,
    /// The place where what is not in the Dockerfile goes.
    order: Order,
    /// Lines about the instruction that announces itself next.
    ahead: Vec<u32>,
    /// The first snapshot was announced, the line that goes with it not yet.
    scanning: bool,
    /// Said whether the base image is unpacked.
    unpack_told: bool,
    from: Option<u32>,
    lines: &'s [Line<'s>],
}

impl Walk<'_> {
    /// What comes before the first stage.
    fn before(&mut self, lines: &[Line<'_>]) {
        for line in lines {
            match line.kind {
                Kind::Retrieve => self.at = Place::Retrieve,
                Kind::Context => self.at = Place::Context,
                Kind::StageEnd => self.at = Place::StageEnd(None),
                Kind::Eliminate => {
                    self.eliminated.extend(events::stage(&line.message.text).0);
                }
                _ => {}
            }
            self.places.insert(line.program, self.at);
        }
    }

    /// The lines of one stage; `ended` where more came after it.
    fn stage(&mut self, lines: &[Line<'_>], ended: bool) {
        let mut stage = self.open(lines, ended);
        let begun = lines.first().is_some_and(|line| line.kind == Kind::Stage);
        self.late = self.late && !begun;
        for (index, line) in lines.iter().enumerate() {
            if let Some(at) = self.step(&mut stage, index, line) {
                self.at = at;
            }
            self.places.insert(line.program, self.at);
        }
        self.last = stage.part.or(self.last);
        if let Some(from) = stage.from.filter(|_| begun && !stage.unpack_told) {
            self.parts.mix(
                Place::Part(from),
                "and unpacks its base image, where another stage copies from it",
            );
        }
        let rest: Vec<u32> = stage.parts[stage.next..].to_vec();
        for part in rest {
            if ended {
                self.passed(part);
            }
        }
    }

    /// What comes after the last line of the build proper has no line of its own.
    fn mix_output(&mut self) {
        self.parts.mix(
            self.at,
            "and after it the image is written, which has no line of the log",
        );
    }

    /// Finds out which stage it is, and what it will announce.
    fn open<'s>(&mut self, lines: &'s [Line<'s>], ended: bool) -> Stage<'s> {
        let first = lines.first().filter(|line| line.kind == Kind::Stage);
        let (number, base) = first.map_or((None, None), |l| events::stage(&l.message.text));
        let found = fit::find(self.plan, &self.built, lines, number, base);
        let (number, chain) = match found {
            Some((stage, squashed)) => {
                self.built.insert(stage);
                self.built.extend(self.plan.bases(stage).take(squashed));
                (Some(stage), self.plan.chain(stage, squashed))
            }
            None => (number, Vec::new()),
        };
        let number = number.and_then(|n| u32::try_from(n).ok());
        let mut order = self.parts.next_order();
        let mut from = None;
        if let Some((stage, squashed)) = found {
            let bases: Vec<usize> = self.plan.bases(stage).take(squashed).collect();
            for stage in &bases {
                // Squashing leaves them out; what they put off has its line.
                let stage = &self.plan.stages[*stage];
                for part in stage.from + 1..stage.end {
                    if self.plan.instructions[part].keyword == Keyword::Onbuild {
                        self.passed(part as u32);
                    }
                }
            }
            for stage in bases.into_iter().chain([stage]) {
                let part = self.plan.stages[stage].from as u32;
                if first.is_some() {
                    self.parts.set(part, State::Ran, By::Log, Sharp::Exact);
                }
                (from, order) = (Some(part), self.parts.order(part));
            }
        } else if let Some(line) = first {
            let text = format!("stage {}", line.message.text);
            let part = self.parts.add(Part::unplanned("from", text, number, order));
            self.parts.set(part, State::Ran, By::Log, Sharp::Exact);
            from = Some(part);
        }
        let parts = chain
            .iter()
            .map(|link| match link.trigger {
                false => link.instruction as u32,
                true => self.parts.trigger(*link, number, &mut order),
            })
            .collect();
        Stage {
            added: if ended {
                fit::added(self.plan, lines, &chain)
            } else {
                0
            },
            number,
            chain,
            parts,
            next: 0,
            hit: 0,
            cached: HashSet::new(),
            part: None,
            order,
            ahead: Vec::new(),
            scanning: false,
            unpack_told: false,
            from,
            lines,
        }
    }

    /// Whose work follows a line; `None` where the line says nothing about it.
    fn step(&mut self, stage: &mut Stage<'_>, index: usize, line: &Line<'_>) -> Option<Place> {
        let snapshot = |stage: &Stage<'_>, first| Place::Snapshot {
            stage: stage.number,
            part: stage.part,
            first,
        };
        if !matches!(line.kind, Kind::Ahead | Kind::Instruction) {
            stage.ahead.clear();
        }
        match line.kind {
            Kind::Stage => stage.from.map(Place::Part),
            Kind::Unpack => {
                stage.unpack_told = true;
                Some(Place::Unpack(stage.number))
            }
            Kind::NoUnpack => {
                stage.unpack_told = true;
                None
            }
            Kind::Instruction => {
                let part = self.announced(stage, index, &line.message);
                stage.part = Some(part);
                for program in stage.ahead.drain(..) {
                    self.places.insert(program, Place::Part(part));
                }
                Some(Place::Part(part))
            }
            Kind::Ahead => {
                stage.ahead.push(line.program);
                None
            }
            Kind::FirstSnapshot => {
                stage.scanning = true;
                let place = snapshot(stage, true);
                if stage.part.is_some_and(|part| self.parts.prepares(part)) {
                    self.parts
                        .mix(place, "and then prepares what the RUN mounts");
                }
                Some(place)
            }
            Kind::Snapshot if stage.scanning => {
                stage.scanning = false;
                None
            }
            Kind::Snapshot => Some(snapshot(stage, false)),
            Kind::GoesOn => match (self.at, stage.part) {
                (Place::Snapshot { first: true, .. }, Some(part)) => Some(Place::Part(part)),
                _ => None,
            },
            Kind::CacheHit => {
                self.hit(stage, &line.message);
                None
            }
            Kind::FromCache => {
                let part = stage.part?;
                self.parts.set_state(part, State::Cached);
                None
            }
            Kind::StageEnd => Some(Place::StageEnd(stage.number)),
            Kind::Retrieve => Some(Place::Retrieve),
            Kind::CachePush => {
                self.goes_to_cache(&line.message.text);
                None
            }
            Kind::Push | Kind::NoPush => self.pushed(stage, line),
            Kind::Context | Kind::Eliminate | Kind::Other => None,
        }
    }

    fn goes_to_cache(&mut self, text: &str) {
        let target = text.strip_suffix(" to cache now").or_else(|| {
            let (target, _) = text.split_once(" -> ")?;
            Some(target)
        });
        let Some(target) = target else { return };
        if target.starts_with("oci:") {
            self.pending += 1;
        } else {
            self.background.insert(target.to_owned());
        }
    }

    fn pushed(&mut self, stage: &Stage<'_>, line: &Line<'_>) -> Option<Place> {
        let background = match line.kind {
            Kind::Push => self.background.contains(line.message.text.as_ref()),
            _ if self.pending > 0 => {
                self.pending -= 1;
                true
            }
            _ => false,
        };
        let built = stage.parts[stage.next..]
            .iter()
            .all(|part| self.parts.silent(*part));
        if background || !built {
            return None;
        }
        if self.at != Place::Push {
            self.mix_output();
        }
        Some(Place::Push)
    }

    /// The part that announces itself.
    fn announced(&mut self, stage: &mut Stage<'_>, index: usize, message: &Message<'_>) -> u32 {
        let Some((at, sharp)) = self.turn(stage, index, message) else {
            return self.unplanned(stage, message);
        };
        for passed in stage.next..at {
            self.passed(stage.parts[passed]);
        }
        self.late = false;
        stage.next = at + 1;
        let part = stage.parts[at];
        let state = if stage.cached.contains(&part) {
            State::Cached
        } else {
            State::Ran
        };
        self.parts.set(part, state, By::Log, sharp);
        part
    }

    /// Whose turn it is, by its place in the chain; `None` where the Dockerfile does not have it.
    fn turn(
        &self,
        stage: &mut Stage<'_>,
        index: usize,
        message: &Message<'_>,
    ) -> Option<(usize, Sharp)> {
        if stage.added > 0 {
            stage.added -= 1;
            return None;
        }
        let is = |at: usize, message: &Message<'_>| message.is(self.plan.link(stage.chain[at]).1);
        let silent = |at: &usize| self.parts.silent(stage.parts[*at]);
        let end = stage.chain.len().min(stage.next + LOOKAHEAD);
        let next = (stage.next..end).find(|at| !silent(at))?;
        if is(next, message) {
            return Some((next, Sharp::Exact));
        }
        let mut later = stage.lines[index + 1..]
            .iter()
            .filter(|line| line.kind == Kind::Instruction)
            .take(LOOKAHEAD);
        if later.any(|line| is(next, &line.message)) {
            return None;
        }
        // Lines in between were lost, or this one is written otherwise.
        let found = (next + 1..end).find(|at| is(*at, message));
        let alike = || {
            let keyword = Some(self.plan.link(stage.chain[next]).0);
            (events::keyword(&message.text) == keyword).then_some((next, Sharp::Order))
        };
        found.map(|at| (at, Sharp::Exact)).or_else(alike)
    }

    /// An instruction that the Dockerfile does not have: the base image's ONBUILD put it off, or
    /// there is no Dockerfile.
    fn unplanned(&mut self, stage: &mut Stage<'_>, message: &Message<'_>) -> u32 {
        let keyword = events::keyword(&message.text).map_or("other", Keyword::name);
        let kind = keyword.to_ascii_lowercase();
        stage.order = stage.order.next();
        let text = message.text.clone().into_owned();
        let part = Part::unplanned(&kind, text, stage.number, stage.order);
        let part = self.parts.add(part);
        self.parts.set(part, State::Ran, By::Log, Sharp::Exact);
        part
    }

    /// An instruction without a line of its own, between others that have one.
    fn passed(&mut self, part: u32) {
        if self.late {
            // It may have run, and was not seen.
            return;
        }
        let state = if self.parts.silent(part) {
            State::Skipped
        } else {
            State::Ran
        };
        self.parts.set(part, state, By::Unknown, Sharp::Order);
    }

    fn hit(&mut self, stage: &mut Stage<'_>, message: &Message<'_>) {
        let end = stage.chain.len().min(stage.hit + LOOKAHEAD);
        let ahead = &stage.chain[stage.hit..end];
        if let Some(at) = (ahead.iter()).position(|link| message.is(self.plan.link(*link).1)) {
            stage.cached.insert(stage.parts[stage.hit + at]);
            stage.hit += at + 1;
        }
    }

    /// What became of stages without a line.
    fn left(&mut self, completed: bool, late: bool) {
        let last = self.built.iter().max().copied();
        let first = self.built.iter().min().copied();
        for (number, stage) in self.plan.stages.iter().enumerate() {
            // Of those before the first that was seen, a late trace says nothing.
            let unseen = late && first.is_none_or(|first| number < first);
            if unseen || self.built.contains(&number) {
                continue;
            }
            let state = if self.eliminated.contains(&number) {
                State::Cached
            } else if (completed && last.is_some()) || last.is_some_and(|last| number < last) {
                State::Skipped
            } else {
                State::Unreached
            };
            for part in stage.from..stage.end {
                self.parts.set(part as u32, state, By::Log, Sharp::Exact);
            }
        }
        let global = self.plan.stages.first().map_or(0, |stage| stage.from);
        for part in 0..global {
            let state = if last.is_some() && !late {
                State::Ran
            } else {
                State::Unreached
            };
            self.parts
                .set(part as u32, state, By::Unknown, Sharp::Order);
        }
    }
}
