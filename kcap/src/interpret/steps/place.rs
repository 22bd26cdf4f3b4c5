//! The steps of a build while they are being found out.

use std::collections::HashMap;

use super::plan::{Link, Plan};
use crate::interpret::dockerfile::Keyword;
use crate::report::{By, Sharp, State};

/// What a program generation works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The executor, before it looks for base images.
    Start,
    /// It looks for base images.
    Retrieve,
    /// It puts the build context aside.
    Context,
    /// It unpacks the base image of a stage.
    Unpack(Option<u32>),
    /// An instruction, by its index in [`Parts`].
    Part(u32),
    /// It looks for what changed in the file system.
    Snapshot {
        /// In this stage.
        stage: Option<u32>,
        /// After this part, or before it where it is the first.
        part: Option<u32>,
        /// It is the first look, to compare with later.
        first: bool,
    },
    /// It saves what other stages need, and empties the file system.
    StageEnd(Option<u32>),
    /// It pushes the image.
    Push,
    /// Work of the container around the executor.
    Job,
    /// Work outside the container.
    Outside,
    /// What nothing claims.
    Unclaimed(Why),
}

/// Why nothing claims some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The executor's log was silenced.
    Silenced,
    /// A line of the log was lost.
    LineLost,
    /// The trace began late: what the executor was at is not known.
    Late,
    /// Where the program comes from was not seen.
    Lineage,
}

/// Where a step stands in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(pub u32, pub u32, pub u32);

impl Order {
    /// The place behind this one, before the next instruction of the Dockerfile.
    pub fn next(self) -> Self {
        Self(self.0, self.1.saturating_add(1), self.2)
    }
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its stage.
    pub stage: Option<u32>,
    /// Its line; for what an ONBUILD of the same Dockerfile put off, that one's.
    pub line: Option<u32>,
    /// Its keyword in lower case.
    pub kind: String,
    /// Its text.
    pub text: String,
    /// What became of it.
    pub state: State,
    /// How that is known.
    pub by: By,
    /// How sharply its checks are told from others'.
    pub sharp: Sharp,
    /// Its place in the list.
    pub order: Order,
    keyword: Option<Keyword>,
    flags: bool,
}

impl Part {
    /// One that is not in the Dockerfile.
    pub fn unplanned(kind: &str, text: String, stage: Option<u32>, order: Order) -> Self {
        Self {
            stage,
            line: None,
            kind: kind.to_owned(),
            text,
            state: State::Unreached,
            by: By::Unknown,
            sharp: Sharp::Unknown,
            order,
            keyword: None,
            flags: false,
        }
    }
}

/// All instructions: those of the Dockerfile first, in its order.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    plan: &'a Plan,
    list: Vec<Part>,
    mixed: HashMap<Place, &'static str>,
}

impl<'a> Parts<'a> {
    /// Those of a Dockerfile, none of them reached.
    pub fn of(plan: &'a Plan) -> Self {
        let part = |(index, i): (usize, &super::plan::Instruction)| Part {
            stage: i.stage.and_then(|n| u32::try_from(n).ok()),
            line: Some(i.line),
            keyword: Some(i.keyword),
            flags: i.flags,
            ..Part::unplanned(
                &i.keyword.name().to_ascii_lowercase(),
                i.text.clone(),
                None,
                // 0 is for what comes before all of them.
                Order(index as u32 + 1, 0, 0),
            )
        };
        Self {
            plan,
            list: plan.instructions.iter().enumerate().map(part).collect(),
            mixed: HashMap::new(),
        }
    }

    /// All of them.
    pub fn list(&self) -> &[Part] {
        &self.list
    }

    /// One of them.
    pub fn part(&self, part: u32) -> &Part {
        &self.list[part as usize]
    }

    /// What else a step holds, as the end of a sentence.
    pub fn mixed(&self, place: Place) -> Option<&'static str> {
        self.mixed.get(&place).copied()
    }

    /// Where one stands.
    pub fn order(&self, part: u32) -> Order {
        self.part(part).order
    }

    /// A place behind all of them.
    pub fn next_order(&self) -> Order {
        Order(self.list.len() as u32 + 1, 0, 0)
    }

    /// Adds one, and gives its index.
    pub fn add(&mut self, part: Part) -> u32 {
        self.list.push(part);
        self.list.len() as u32 - 1
    }

    /// Adds what an ONBUILD of this Dockerfile put off, behind `order`.
    pub fn trigger(&mut self, link: Link, stage: Option<u32>, order: &mut Order) -> u32 {
        let (keyword, text) = self.plan.link(link);
        *order = order.next();
        let kind = keyword.name().to_ascii_lowercase();
        let mut part = Part::unplanned(&kind, text.to_owned(), stage, *order);
        part.line = Some(self.plan.instructions[link.instruction].line);
        part.keyword = Some(keyword);
        self.add(part)
    }

    /// Says what became of one.
    pub fn set(&mut self, part: u32, state: State, by: By, sharp: Sharp) {
        let part = &mut self.list[part as usize];
        (part.state, part.by, part.sharp) = (state, by, sharp);
    }

    /// Says that, and leaves how it is known.
    pub fn set_state(&mut self, part: u32, state: State) {
        self.list[part as usize].state = state;
    }

    /// Says that a program of the instruction was seen to run.
    pub fn executed(&mut self, part: u32) {
        let part = &mut self.list[part as usize];
        if part.state == State::Ran && part.by == By::Log {
            part.by = By::Exec;
        }
    }

    /// A step holds other work too.
    pub fn mix(&mut self, place: Place, with: &'static str) {
        self.mixed.entry(place).or_insert(with);
        if let Place::Part(part) = place {
            let part = &mut self.list[part as usize];
            if part.sharp == Sharp::Exact {
                part.sharp = Sharp::Mixed;
            }
        }
    }

    /// There is work between the first snapshot and the program of this one.
    pub fn prepares(&self, part: u32) -> bool {
        let part = self.part(part);
        part.keyword == Some(Keyword::Run) && part.flags
    }

    /// Kaniko leaves it out.
    pub fn silent(&self, part: u32) -> bool {
        self.part(part).keyword == Some(Keyword::Maintainer)
    }

    /// It is a RUN of the Dockerfile.
    pub fn runs(&self, part: u32) -> bool {
        self.part(part).keyword == Some(Keyword::Run)
    }
}
