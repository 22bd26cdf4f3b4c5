//! What a Dockerfile lets one expect of the log: its instructions, and for each stage the order in
//! which they are announced.

use std::collections::HashMap;

use super::line::collapsed;
use crate::interpret::dockerfile::{self, Dockerfile, Keyword, ParseError};

/// An instruction of the Dockerfile.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Its stage; `None` before the first FROM.
    pub stage: Option<usize>,
    /// Its line, from 1.
    pub line: u32,
    /// Its keyword.
    pub keyword: Keyword,
    /// In one line, as Kaniko logs it.
    pub text: String,
    /// What an ONBUILD puts off: keyword and text.
    pub trigger: Option<(Keyword, String)>,
    /// It has flags; for a RUN there is work before its program then.
    pub flags: bool,
}

/// A stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Index of its FROM in [`Plan::instructions`].
    pub from: usize,
    /// Index after its last instruction.
    pub end: usize,
    /// The earlier stage that it builds on; `None` for an image, and where a variable hides it.
    pub base: Option<usize>,
}

/// A Dockerfile, in the order of its lines.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// All of its instructions.
    pub instructions: Vec<Instruction>,
    /// All of its stages.
    pub stages: Vec<Stage>,
}

/// What announces itself in a stage: an instruction, or what an earlier stage's ONBUILD put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index in [`Plan::instructions`].
    pub instruction: usize,
    /// It is what that ONBUILD put off.
    pub trigger: bool,
}

/// Most stages squashed into one that are looked for.
const DEEPEST: usize = 16;

impl Plan {
    /// Reads a Dockerfile.
    pub fn of(text: &str) -> Result<Self, ParseError> {
        Ok(Self::from(dockerfile::parse(text.as_bytes())?))
    }

    /// The instruction that a link stands for: keyword, and text as it is compared.
    pub fn link(&self, link: Link) -> (Keyword, &str) {
        let instruction = &self.instructions[link.instruction];
        match &instruction.trigger {
            Some((keyword, text)) if link.trigger => (*keyword, text),
            _ => (instruction.keyword, &instruction.text),
        }
    }

    /// How many stages `stage` builds on, one on the other.
    pub fn depth(&self, stage: usize) -> usize {
        self.bases(stage).count().min(DEEPEST)
    }

    /// How many of them Kaniko squashed into `stage`, which says that it builds on `logged`.
    pub fn squashed(&self, stage: usize, logged: Option<usize>) -> usize {
        // A stage that is kept is named as the base of the next.
        self.bases(stage)
            .position(|base| Some(base) == logged)
            .unwrap_or_else(|| self.depth(stage))
            .min(DEEPEST)
    }

    /// The stages that `stage` builds on, nearest first.
    pub fn bases(&self, stage: usize) -> impl Iterator<Item = usize> {
        let base = |stage: &usize| self.stages.get(*stage).and_then(|s| s.base);
        // A base is an earlier stage, so that this ends.
        std::iter::successors(base(&stage), move |stage| base(stage))
    }

    /// What a stage announces when as many of its bases are squashed into it
    /// (`Squash` in Kaniko's `pkg/dockerfile/dockerfile.go`: their ONBUILDs are left out).
    pub fn chain(&self, stage: usize, squashed: usize) -> Vec<Link> {
        let mut stages: Vec<usize> = self.bases(stage).take(squashed).collect();
        stages.reverse();
        stages.push(stage);
        let mut chain = Vec::new();
        for (nth, at) in stages.iter().enumerate() {
            let Some(stage) = self.stages.get(*at) else {
                continue;
            };
            if let Some(base) = stage.base.and_then(|base| self.stages.get(base)) {
                let puts_off = |i: &usize| self.instructions[*i].trigger.is_some();
                chain.extend(
                    (base.from + 1..base.end)
                        .filter(puts_off)
                        .map(|instruction| Link {
                            instruction,
                            trigger: true,
                        }),
                );
            }
            let last = nth + 1 == stages.len();
            let kept = |i: &usize| last || self.instructions[*i].keyword != Keyword::Onbuild;
            chain.extend(
                (stage.from + 1..stage.end)
                    .filter(kept)
                    .map(|instruction| Link {
                        instruction,
                        trigger: false,
                    }),
            );
        }
        chain
    }
}

impl From<Dockerfile> for Plan {
    fn from(file: Dockerfile) -> Self {
        let mut plan = Self::default();
        let instruction = |stage, from: dockerfile::Instruction| Instruction {
            stage,
            line: from.line,
            keyword: from.keyword,
            text: collapsed(&from.text).into_owned(),
            trigger: (from.trigger.as_deref())
                .map(|t| (t.keyword, collapsed(&t.text).into_owned())),
            flags: !from.flags.is_empty(),
        };
        plan.instructions
            .extend(file.args.into_iter().map(|arg| instruction(None, arg)));
        let mut names: HashMap<String, usize> = HashMap::new();
        for (index, stage) in file.stages.into_iter().enumerate() {
            let from = plan.instructions.len();
            plan.instructions.push(instruction(Some(index), stage.from));
            plan.instructions.extend(
                stage
                    .instructions
                    .into_iter()
                    .map(|i| instruction(Some(index), i)),
            );
            plan.stages.push(Stage {
                from,
                end: plan.instructions.len(),
                base: names.get(&stage.base.to_lowercase()).copied(),
            });
            if let Some(name) = stage.name {
                // The first of a name is the one meant (`baseImageIndex` in Kaniko's
                // `pkg/dockerfile/dockerfile.go`).
                names.entry(name).or_insert(index);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(plan: &Plan, stage: usize, squashed: usize) -> Vec<&str> {
        let chain = plan.chain(stage, squashed);
        chain.iter().map(|link| plan.link(*link).1).collect()
    }

    #[test]
    fn what_a_stage_announces() {
        let plan = Plan::of(
            "ARG B=one\nFROM busybox AS One\nRUN a\nFROM one AS two\nONBUILD RUN t\nRUN b\n\
             FROM ${B}\nRUN c\nFROM two\nRUN d\n",
        )
        .unwrap();
        assert_eq!(plan.stages.len(), 4);
        assert_eq!(plan.depth(3), 2);
        assert_eq!(texts(&plan, 3, 0), ["RUN t", "RUN d"]);
        assert_eq!(texts(&plan, 3, 1), ["RUN b", "RUN t", "RUN d"]);
        assert_eq!(texts(&plan, 3, 2), ["RUN a", "RUN b", "RUN t", "RUN d"]);
        assert_eq!(texts(&plan, 1, 0), ["ONBUILD RUN t", "RUN b"]);
        assert_eq!(plan.squashed(3, None), 2);
        assert_eq!(plan.squashed(3, Some(1)), 0);
        assert_eq!(plan.squashed(3, Some(0)), 1);
        assert_eq!(plan.stages[2].base, None, "a variable hides it");
        assert_eq!(plan.instructions[0].stage, None);
        assert_eq!(plan.instructions[1].line, 2);
    }
}
