//! What became of processes: who forked them, who was there to wait when they ended, and how they
//! ended. A failure that nobody waited for does not fail the build by itself.

use std::collections::HashMap;

use crate::capture::{Capture, Origin, Program};

/// `SIGKILL`, in the low bits of a wait status.
const KILLED: u32 = 9;

/// One process, over all programs that it ran.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    /// The process that forked it.
    forker: Option<u32>,
    /// The process that was its parent when it ended.
    reaper: Option<u32>,
    /// Its wait status.
    status: Option<u32>,
    /// It ran the executor, and did not only come from it.
    executor: bool,
}

/// All processes of a session, each by its first generation.
pub struct Fates {
    first: HashMap<u32, u32>,
    processes: HashMap<u32, Process>,
}

/// Processes that a part of the build left to the executor, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// By SIGKILL.
    pub killed: u64,
    /// In any other way, or not seen to end.
    pub other: u64,
}

impl Fates {
    /// Finds out from the programs of a capture.
    pub fn of(capture: &Capture) -> Self {
        let by_id: HashMap<u32, &Program> = capture.programs.iter().map(|p| (p.id, p)).collect();
        let mut first = HashMap::with_capacity(by_id.len());
        for program in &capture.programs {
            first_of(program, &by_id, &mut first);
        }
        let mut processes: HashMap<u32, Process> = HashMap::new();
        for program in &capture.programs {
            let Some(root) = first.get(&program.id).copied() else {
                continue;
            };
            let process = processes.entry(root).or_default();
            if program.id == root && program.origin == Origin::Fork {
                process.forker = program.parent.and_then(|id| first.get(&id)).copied();
            }
            if let Some(reaper) = program.reaper {
                process.reaper = first.get(&reaper).copied();
            }
            process.status = process.status.or(program.wait_status);
            process.executor |= program.executor && program.origin != Origin::Fork;
        }
        Self { first, processes }
    }

    fn process(&self, program: u32) -> Option<(u32, &Process)> {
        let root = self.first.get(&program)?;
        Some((*root, self.processes.get(root)?))
    }

    /// The process of a program, or one that it worked for, was left by the one that forked it:
    /// nobody waited for its exit. False where that was not seen.
    pub fn unwaited(&self, program: u32) -> bool {
        let mut at = program;
        // No longer than there are processes, whatever a damaged capture says.
        for _ in 0..self.processes.len() {
            let Some((_, process)) = self.process(at) else {
                return false;
            };
            match (process.forker, process.reaper) {
                _ if process.executor => return false,
                (Some(forker), Some(reaper)) if forker == reaper => at = forker,
                (Some(_), Some(_)) => return true,
                _ => return false,
            }
        }
        false
    }

    /// What was left to the executor that `program` is a generation of, among the processes whose
    /// last program `counts`.
    pub fn orphans(&self, program: u32, counts: impl Fn(u32) -> bool) -> Orphans {
        let mut orphans = Orphans::default();
        let Some((executor, _)) = self.process(program) else {
            return orphans;
        };
        for (first, process) in &self.processes {
            let left = process.reaper == Some(executor) && process.forker != Some(executor);
            if !left || process.executor || !counts(*first) {
                continue;
            }
            match process.status {
                Some(status) if status & 0x7f == KILLED => orphans.killed += 1,
                _ => orphans.other += 1,
            }
        }
        orphans
    }
}

/// The first generation of a program's process.
fn first_of(program: &Program, by_id: &HashMap<u32, &Program>, first: &mut HashMap<u32, u32>) {
    let mut chain = Vec::new();
    let mut at = program;
    let root = loop {
        if let Some(known) = first.get(&at.id) {
            break *known;
        }
        // Marked on the way, so that a cycle ends.
        first.insert(at.id, at.id);
        chain.push(at.id);
        let before = match at.origin {
            Origin::Exec | Origin::Phase => at.parent.and_then(|id| by_id.get(&id)),
            Origin::Enter | Origin::Fork | Origin::Lost => None,
        };
        match before {
            Some(before) => at = before,
            None => break at.id,
        }
    };
    for id in chain {
        first.insert(id, root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, origin: Origin, parent: u32) -> Program {
        Program {
            id,
            origin,
            parent: (parent != 0).then_some(parent),
            ..Program::default()
        }
    }

    fn ended(id: u32, parent: u32, reaper: u32, status: u32) -> Program {
        Program {
            reaper: Some(reaper),
            wait_status: Some(status),
            ..program(id, Origin::Exec, parent)
        }
    }

    /// An executor (1, 2) that runs a shell (3, 4), which runs one program (5, 6) and leaves
    /// another (7, 8), which runs one by itself (9, 10).
    fn fates(change: impl FnOnce(&mut Vec<Program>)) -> Fates {
        let mut programs = vec![
            program(1, Origin::Enter, 0),
            Program {
                executor: true,
                ..program(2, Origin::Exec, 1)
            },
            Program {
                executor: true,
                ..program(3, Origin::Fork, 2)
            },
            ended(4, 3, 11, 0),
            program(5, Origin::Fork, 4),
            ended(6, 5, 4, 0),
            program(7, Origin::Fork, 4),
            ended(8, 7, 11, 9),
            program(9, Origin::Fork, 8),
            ended(10, 9, 8, 0),
            Program {
                executor: true,
                ..program(11, Origin::Phase, 2)
            },
        ];
        change(&mut programs);
        Fates::of(&Capture {
            programs,
            ..Capture::default()
        })
    }

    #[test]
    fn whoever_outlives_its_forker_is_not_waited_for_nor_what_works_for_it() {
        let fates = fates(|_| ());
        for (program, unwaited) in [(2, false), (4, false), (6, false), (8, true), (10, true)] {
            assert_eq!(fates.unwaited(program), unwaited, "{program}");
        }
        assert!(fates.unwaited(7), "the fork is the same process");
        assert!(!fates.unwaited(99), "not seen is not known");
    }

    #[test]
    fn an_end_that_was_not_seen_says_nothing() {
        assert!(!fates(|p| p[7].reaper = None).unwaited(8));
        // A damaged capture: each the other's parent.
        let cycle = fates(|p| {
            p[0] = program(1, Origin::Exec, 2);
            p[1] = program(2, Origin::Exec, 1);
        });
        assert!(!cycle.unwaited(4));
    }

    #[test]
    fn what_a_run_left_is_counted_by_its_end() {
        let left = |fates: Fates| fates.orphans(11, |_| true);
        let one = |killed, other| Orphans { killed, other };
        assert_eq!(left(fates(|_| ())), one(1, 0));
        assert_eq!(left(fates(|p| p[7].wait_status = Some(0))), one(0, 1));
        assert_eq!(fates(|_| ()).orphans(11, |_| false), one(0, 0));
    }
}
