//! What can be told without a log (`-v error` and the like): the executor's children that executed
//! something are the programs of its RUN instructions, in order. Where there are as many of both,
//! each is the other's; where there are not, nothing says which ran.

use std::collections::HashMap;

use super::Told;
use super::place::{Parts, Place, Why};
use super::plan::Plan;
use crate::report::{By, Sharp, State};

/// Said of such a build.
pub const NOTE: &str = "the executor's log was silenced: what it did itself is not told apart by \
                        instruction; build with -v info";

/// Tells RUN instructions by the executor's children.
pub fn tell<'a>(plan: &'a Plan, children: &[u32], completed: bool) -> Told<'a> {
    let mut parts = Parts::of(plan);
    let count = plan.instructions.len() as u32;
    let runs: Vec<u32> = (0..count).filter(|part| parts.runs(*part)).collect();
    let told = runs.len() == children.len();
    let last = runs.last().copied().filter(|_| told);
    for part in 0..count {
        if parts.runs(part) {
            if told {
                parts.set(part, State::Ran, By::Exec, Sharp::Order);
            }
        } else if completed || last.is_some_and(|last| part < last) {
            parts.set(part, State::Ran, By::Unknown, Sharp::Unknown);
        }
    }
    let place = |nth: usize| match runs.get(nth).filter(|_| told) {
        Some(run) => Place::Part(*run),
        None => Place::Unclaimed(Why::Silenced),
    };
    let places: HashMap<u32, Place> = (children.iter().enumerate())
        .map(|(nth, child)| (*child, place(nth)))
        .collect();
    Told {
        parts,
        places,
        last,
        at: None,
    }
}
