//! Which stage of the Dockerfile a stage of the log is.

use std::collections::HashSet;

use super::events::Kind;
use super::line::Message;
use super::plan::{Link, Plan};
use super::read::Line;
use super::walk::LOOKAHEAD;
use crate::interpret::dockerfile::Keyword;

/// Most stages that a stage's log is compared with where its number does not fit.
const STAGES: usize = 64;
/// Most lines of instructions in a stage for that comparison.
const LINES: usize = 2000;

/// The stage that some lines are of, and how many of its bases are squashed into it: what the
/// log says, unless the instructions fit another better. Kaniko of GoogleContainerTools numbers
/// stages without those that it skipped, and a variable can hide what a stage builds on.
pub fn find(
    plan: &Plan,
    built: &HashSet<usize>,
    lines: &[Line<'_>],
    number: Option<usize>,
    base: Option<usize>,
) -> Option<(usize, usize)> {
    let announced: Vec<&Message<'_>> = lines
        .iter()
        .filter(|line| line.kind == Kind::Instruction)
        .map(|line| &line.message)
        .take(LINES + 1)
        .collect();
    let fits = |stage: usize, squashed: usize| {
        let chain = plan.chain(stage, squashed);
        let mut next = 0;
        (announced.iter())
            .filter(|message| {
                let ahead = &chain[next..chain.len().min(next + LOOKAHEAD)];
                let found = ahead.iter().position(|l| message.is(plan.link(*l).1));
                next += found.map_or(0, |at| at + 1);
                found.is_some()
            })
            .count()
    };
    let stages = plan.stages.len();
    let said = number.filter(|n| *n < stages && !built.contains(n));
    let mut best = said.map(|stage| {
        let squashed = plan.squashed(stage, base);
        (fits(stage, squashed), stage, squashed)
    });
    if announced.len() > LINES || best.is_some_and(|(count, ..)| count == announced.len()) {
        return best.map(|(_, stage, squashed)| (stage, squashed));
    }
    let open = (0..stages).filter(|stage| !built.contains(stage));
    for stage in open.take(STAGES) {
        for squashed in 0..=plan.depth(stage) {
            let count = fits(stage, squashed);
            if best.is_none_or(|(most, ..)| count > most) && count > 0 {
                best = Some((count, stage, squashed));
            }
        }
    }
    best.map(|(_, stage, squashed)| (stage, squashed))
}

/// How many instructions the base image put before those of the Dockerfile: where a stage came
/// to its end, what it announced more than there is.
pub fn added(plan: &Plan, lines: &[Line<'_>], chain: &[Link]) -> usize {
    let loud = |link: &&Link| plan.link(**link).0 != Keyword::Maintainer;
    let mut announced = lines.iter().filter(|line| line.kind == Kind::Instruction);
    let all = announced.clone().count();
    let added = all.saturating_sub(chain.iter().filter(loud).count());
    let first = announced.nth(added);
    match (first, chain.iter().find(loud)) {
        (Some(line), Some(link)) if line.message.is(plan.link(*link).1) => added,
        _ => 0,
    }
}
