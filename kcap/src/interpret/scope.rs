//! Which programs count: needs come only from inside the container. Where the lineage of a
//! program is not known it counts as inside, so that no need is missed.

use std::collections::{HashMap, HashSet};

use crate::capture::{Capture, Exec, Origin, Program};

/// The session's programs, and which of them the container runs.
pub struct Scope<'a> {
    by_id: HashMap<u32, &'a Program>,
    outside: HashSet<u32>,
    /// The phase that follows a generation in the same process.
    next_phase: HashMap<u32, u32>,
    /// The first executor, where one was recognised.
    pub executor: Option<&'a Program>,
    /// The program whose sets and namespaces stand for the container: the executor, or else the
    /// first program executed in it.
    pub root: Option<&'a Program>,
}

impl<'a> Scope<'a> {
    /// Finds out from the programs of a capture.
    pub fn of(capture: &'a Capture) -> Self {
        let by_id: HashMap<u32, &Program> = capture.programs.iter().map(|p| (p.id, p)).collect();
        // A container is told by its mount and user namespace.
        let containers: HashSet<(u64, u64)> = capture
            .programs
            .iter()
            .filter(|p| p.executor)
            .filter_map(|p| p.exec.as_ref().map(|exec| (exec.mnt_ns, exec.user_ns)))
            .collect();
        // An executor whose namespaces could not be read tells nothing apart.
        let told = !containers.is_empty() && containers.iter().all(|(mnt, _)| *mnt != 0);
        let enters = |p: &Program| match &p.exec {
            Some(exec) => !told || containers.contains(&(exec.mnt_ns, exec.user_ns)),
            None => false,
        };

        let mut inside: HashMap<u32, bool> = HashMap::with_capacity(by_id.len());
        let mut chain = Vec::new();
        for program in &capture.programs {
            let mut at = program;
            chain.clear();
            let verdict = loop {
                if let Some(known) = inside.get(&at.id) {
                    break *known;
                }
                chain.push(at.id);
                // Marks the way, so that a cycle ends; it is a contradiction, hence inside.
                inside.insert(at.id, true);
                if enters(at) || at.origin == Origin::Lost {
                    break true;
                }
                match at.parent.map(|parent| by_id.get(&parent)) {
                    Some(Some(parent)) => at = parent,
                    Some(None) => break true,
                    None => break at.origin != Origin::Enter,
                }
            };
            for id in &chain {
                inside.insert(*id, verdict);
            }
        }
        let outside: HashSet<u32> = inside
            .into_iter()
            .filter_map(|(id, inside)| (!inside).then_some(id))
            .collect();

        let first = |wanted: &dyn Fn(&Program) -> bool| {
            capture
                .programs
                .iter()
                .filter(|p| p.exec.is_some() && !outside.contains(&p.id) && wanted(p))
                .min_by_key(|p| (p.start_ns, p.id))
        };
        let executor = first(&|p| p.executor);
        let root = executor.or_else(|| first(&|_| true));
        let next_phase = capture
            .programs
            .iter()
            .filter(|p| p.origin == Origin::Phase)
            .filter_map(|p| Some((p.parent?, p.id)))
            .collect();
        Self {
            by_id,
            outside,
            next_phase,
            executor,
            root,
        }
    }

    /// The program runs in the container, or may.
    pub fn inside(&self, program: u32) -> bool {
        !self.outside.contains(&program)
    }

    /// The program, where it is known.
    pub fn program(&self, id: u32) -> Option<&'a Program> {
        self.by_id.get(&id).copied()
    }

    /// How the process ended in which a generation ran the same program to the end, phases of it
    /// included: its wait status, where that was seen.
    pub fn wait_status(&self, id: u32) -> Option<u32> {
        let mut at = id;
        // No longer than there are phases, whatever a damaged capture says.
        for _ in 0..self.next_phase.len() {
            match self.next_phase.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        self.program(at)?.wait_status
    }

    /// The execution that a generation comes from: its own, or that of the one that forked it.
    pub fn executed(&self, id: u32) -> Option<&'a Exec> {
        let mut at = id;
        // No longer than there are programs, whatever a damaged capture says.
        for _ in 0..=self.by_id.len() {
            let program = self.program(at)?;
            if let Some(exec) = &program.exec {
                return Some(exec);
            }
            at = program.parent?;
        }
        None
    }

    /// The program's path, or else its task name; empty where neither is known.
    pub fn path(&self, id: u32) -> &'a str {
        match self.program(id) {
            Some(program) if !program.path.is_empty() => &program.path,
            Some(program) => &program.comm,
            None => "",
        }
    }

    /// Depth of the user namespace that the container runs in.
    pub fn base_level(&self) -> u32 {
        self.root
            .and_then(|p| p.exec.as_ref())
            .map_or(0, |exec| exec.ns_level)
    }

    /// The bounding set that the build ran with; `None` where no execution was seen.
    pub fn bounding(&self) -> Option<u64> {
        self.root
            .and_then(|p| p.exec.as_ref())
            .map(|exec| exec.caps.bounding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, origin: Origin, parent: Option<u32>, mnt_ns: Option<u64>) -> Program {
        Program {
            id,
            origin,
            parent,
            start_ns: u64::from(id),
            exec: mnt_ns.map(|mnt_ns| Exec {
                mnt_ns,
                ..Exec::default()
            }),
            ..Program::default()
        }
    }

    fn inside(programs: Vec<Program>) -> Vec<u32> {
        let capture = Capture {
            programs,
            ..Capture::default()
        };
        let scope = Scope::of(&capture);
        capture
            .programs
            .iter()
            .map(|p| p.id)
            .filter(|id| scope.inside(*id))
            .collect()
    }

    #[test]
    fn with_an_executor_only_its_container_counts() {
        let mut programs = vec![
            program(1, Origin::Enter, None, None),
            program(2, Origin::Exec, Some(1), Some(10)), // runc
            program(3, Origin::Fork, Some(2), None),     // its init
            program(4, Origin::Exec, Some(3), Some(20)), // the job's shell
            program(5, Origin::Fork, Some(4), None),
            program(6, Origin::Exec, Some(5), Some(20)), // the executor
            program(7, Origin::Fork, Some(6), None),
            program(8, Origin::Exec, Some(7), Some(30)), // made a mount namespace of its own
            program(9, Origin::Exec, Some(2), Some(10)), // runc, after
        ];
        programs[5].executor = true;
        assert_eq!(inside(programs), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn without_an_executor_the_first_execution_begins() {
        let programs = vec![
            program(1, Origin::Enter, None, None),
            program(2, Origin::Fork, Some(1), None),
            program(3, Origin::Exec, Some(2), Some(10)),
            program(4, Origin::Fork, Some(3), None),
        ];
        assert_eq!(inside(programs), [3, 4]);
    }

    #[test]
    fn what_is_not_known_counts_as_inside() {
        let mut programs = vec![
            program(1, Origin::Lost, None, None),
            program(2, Origin::Fork, Some(1), None),
            program(3, Origin::Fork, Some(99), None),
            program(4, Origin::Fork, Some(5), None),
            program(5, Origin::Fork, Some(4), None),
            program(6, Origin::Exec, None, Some(7)),
        ];
        programs[5].executor = true;
        assert_eq!(inside(programs), [1, 2, 3, 4, 5, 6]);
        let capture = Capture::default();
        assert!(Scope::of(&capture).inside(12));
    }

    #[test]
    fn a_program_goes_on_through_its_phases() {
        let mut programs = vec![
            program(1, Origin::Exec, None, Some(10)),
            program(2, Origin::Phase, Some(1), None),
            program(3, Origin::Fork, Some(2), None),
            program(4, Origin::Phase, Some(2), None),
            program(5, Origin::Phase, Some(6), None),
            program(6, Origin::Phase, Some(5), None),
        ];
        programs[3].wait_status = Some(256);
        programs[2].wait_status = Some(0);
        assert_eq!(inside(programs.clone()), [1, 2, 3, 4, 5, 6]);
        let capture = Capture {
            programs,
            ..Capture::default()
        };
        let scope = Scope::of(&capture);
        assert_eq!(scope.wait_status(1), Some(256));
        assert_eq!(scope.wait_status(3), Some(0));
        assert_eq!(scope.wait_status(5), None, "a cycle ends");
    }

    #[test]
    fn the_executor_stands_for_the_container() {
        let mut programs = vec![
            program(1, Origin::Exec, None, Some(10)),
            program(2, Origin::Exec, Some(1), Some(10)),
        ];
        programs[0].exec.as_mut().unwrap().caps.bounding = 1;
        programs[1].exec.as_mut().unwrap().caps.bounding = 3;
        let mut capture = Capture {
            programs,
            ..Capture::default()
        };
        assert_eq!(Scope::of(&capture).bounding(), Some(1));
        capture.programs[1].executor = true;
        assert_eq!(Scope::of(&capture).bounding(), Some(3));
    }
}
