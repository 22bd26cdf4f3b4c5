//! What a rule may read of some checks: the tally's key, how their system call ended, where their
//! program stands, and what else was asked in the same decision.

use std::collections::{BTreeSet, HashMap};

use kcap_common::abi::key::flag;

use super::fate::{Fates, Orphans};
use super::scope::Scope;
use super::steps::Steps;
use super::syscall::{self, Outcome, Sysno};
use crate::capture::{Capture, Evidence, FileCaps, Tally};
use crate::report::{Cap, Setting};

/// Checks of one tally whose system call ended alike.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// How the system call ended.
    pub outcome: Outcome,
    /// How many.
    pub count: u64,
}

/// Splits a tally by outcome; the counts add up to the tally's.
pub fn parts(tally: &Tally, outcomes_seen: bool) -> Vec<Part> {
    let rest = match tally.syscall {
        None => Outcome::NoCall,
        Some(_) if outcomes_seen => Outcome::Success,
        Some(_) => Outcome::Unknown,
    };
    let mut parts = Vec::with_capacity(1 + tally.failed.len());
    let mut left = tally.count;
    for (code, count) in &tally.failed {
        let count = (*count).min(left);
        if count > 0 {
            left -= count;
            parts.push(Part {
                outcome: Outcome::of(*code),
                count,
            });
        }
    }
    if left > 0 {
        parts.push(Part {
            outcome: rest,
            count: left,
        });
    }
    parts
}

/// Capabilities of which one answers for another: file reading and searching, and those that
/// SYS_ADMIN stands behind.
pub const FAMILY: [Cap; 7] = [
    Cap::DAC_OVERRIDE,
    Cap::DAC_READ_SEARCH,
    Cap::SYS_ADMIN,
    Cap::SYSLOG,
    Cap::PERFMON,
    Cap::BPF,
    Cap::CHECKPOINT_RESTORE,
];

/// What was asked of a family in the same system calls: refused and granted, by member.
#[derive(Clone, Copy, Debug, Default)]
pub struct Siblings([[u64; 2]; FAMILY.len()]);

impl Siblings {
    fn counts(&self, cap: Cap) -> [u64; 2] {
        FAMILY
            .iter()
            .position(|member| *member == cap)
            .map_or([0; 2], |i| self.0[i])
    }

    /// How often `cap` was asked for.
    pub fn asked(&self, cap: Cap) -> u64 {
        let [refused, granted] = self.counts(cap);
        refused.saturating_add(granted)
    }

    /// Every refusal of `cap` was followed by a grant of `other`.
    pub fn answers(&self, cap: Cap, other: Cap) -> bool {
        self.granted(other) >= self.refused(cap)
    }

    /// How often `cap` was granted.
    pub fn granted(&self, cap: Cap) -> u64 {
        self.counts(cap)[1]
    }

    /// How often `cap` was refused.
    pub fn refused(&self, cap: Cap) -> u64 {
        self.counts(cap)[0]
    }

    fn add(&mut self, cap: Cap, granted: bool, count: u64) {
        if let Some(i) = FAMILY.iter().position(|member| *member == cap) {
            let counter = &mut self.0[i][usize::from(granted)];
            *counter = counter.saturating_add(count);
        }
    }
}

/// What system calls must share for their checks to belong to the same decisions. Not the time
/// slice: one may end between two checks of a call.
type Group = (u32, u8, Option<u16>, u32, u8, u8, u8, bool);

fn group(tally: &Tally) -> Group {
    (
        tally.program,
        tally.abi,
        tally.syscall,
        tally.class,
        tally.creds,
        tally.target_level,
        tally.creds_level,
        tally.flags & flag::CREDS_DIFFER != 0,
    )
}

/// How the kernel answers for memory beyond what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overcommit {
    /// SYS_ADMIN raises no limit that matters.
    Lenient,
    /// `vm.overcommit_memory=2`: it opens the reserve.
    Strict,
    /// The setting is not known.
    Unknown,
}

/// A capture with what all its checks share.
pub struct Session<'a> {
    /// As recorded.
    pub capture: &'a Capture,
    /// Which programs count.
    pub scope: Scope<'a>,
    /// Which part of the build they work for.
    pub steps: Steps,
    /// Outcomes of system calls were recorded.
    pub outcomes_seen: bool,
    fates: Fates,
    overcommit: Overcommit,
    siblings: HashMap<(Group, Outcome), Siblings>,
    overall: HashMap<Group, Siblings>,
    samples: HashMap<u32, Vec<&'a Evidence>>,
}

impl<'a> Session<'a> {
    /// Reads what all checks of a capture share.
    pub fn of(capture: &'a Capture) -> Self {
        // Where outcomes were lost, a failure may look like success.
        let outcomes_seen =
            capture.loss.outcomes == 0 && !capture.host.blind.iter().any(|what| what == "outcome");
        let mut siblings: HashMap<(Group, Outcome), Siblings> = HashMap::new();
        let mut overall: HashMap<Group, Siblings> = HashMap::new();
        for tally in capture.tallies.iter().filter(|tally| tally.unasked == 0) {
            let Some(cap) = tally.cap.map(Cap).filter(|cap| FAMILY.contains(cap)) else {
                continue;
            };
            let (group, granted) = (group(tally), tally.result == 0);
            overall
                .entry(group)
                .or_default()
                .add(cap, granted, tally.count);
            for part in parts(tally, outcomes_seen) {
                let siblings = siblings.entry((group, part.outcome)).or_default();
                siblings.add(cap, granted, part.count);
            }
        }
        let mut samples: HashMap<u32, Vec<&Evidence>> = HashMap::new();
        for sample in &capture.evidence {
            samples.entry(sample.tally).or_default().push(sample);
        }
        let overcommit = match capture
            .host
            .sysctl
            .get("vm.overcommit_memory")
            .map(|s| s.trim())
        {
            Some("0" | "1") => Overcommit::Lenient,
            Some("2") => Overcommit::Strict,
            _ => Overcommit::Unknown,
        };
        let scope = Scope::of(capture);
        let steps = Steps::of(capture, &scope);
        Self {
            capture,
            scope,
            steps,
            outcomes_seen,
            fates: Fates::of(capture),
            overcommit,
            siblings,
            overall,
            samples,
        }
    }

    /// Index of the step that a program works for.
    pub fn step(&self, program: u32) -> u32 {
        self.steps.of_program(program, self.scope.inside(program))
    }

    /// The samples of a tally, by its index.
    pub fn samples(&self, tally: usize) -> &[&'a Evidence] {
        u32::try_from(tally)
            .ok()
            .and_then(|i| self.samples.get(&i))
            .map_or(&[], Vec::as_slice)
    }

    /// What rules may read of one part of the tally at `index`.
    pub fn facts<'s>(&'s self, index: usize, tally: &'s Tally, cap: Cap, part: Part) -> Facts<'s> {
        let group = group(tally);
        Facts {
            cap,
            granted: tally.result == 0,
            outcome: part.outcome,
            call: syscall::native(tally, &self.capture.host.arch),
            tally,
            inside: self.scope.inside(tally.program),
            base_level: self.scope.base_level(),
            program: self.scope.path(tally.program),
            executor: self
                .scope
                .program(tally.program)
                .is_some_and(|p| p.executor),
            step: self.step_kind(tally.program),
            overcommit: self.overcommit,
            siblings: self
                .siblings
                .get(&(group, part.outcome))
                .copied()
                .unwrap_or_default(),
            overall: self.overall.get(&group).copied().unwrap_or_default(),
            samples: self.samples(index),
            session: self,
        }
    }

    /// The kind of the step that a program works for.
    fn step_kind(&self, program: u32) -> &str {
        let step = self.steps.list.get(self.step(program) as usize);
        step.map_or("", |step| &step.kind)
    }

    /// The set that the build ran with has one of these, so that none of them is refused for its
    /// sake. False where that set was not seen.
    pub fn holds_any(&self, caps: &BTreeSet<Cap>) -> bool {
        let held = self.scope.bounding().unwrap_or(0);
        caps.iter().any(|cap| held & cap.bit() != 0)
    }

    /// The build went on without these, and no engine grants any of them by default: what `program`
    /// works for came to its end, or all of it did.
    pub fn done_without(&self, program: u32, caps: &BTreeSet<Cap>) -> bool {
        let ended = self.capture.subject.exit_status == Some(0)
            || self
                .steps
                .last
                .is_some_and(|last| self.step(program) < last);
        ended
            && self.scope.bounding().is_some()
            && !self.holds_any(caps)
            && caps.iter().all(|cap| Cap::DOCKER_DEFAULT & cap.bit() == 0)
    }
}

/// What a rule may read.
#[derive(Clone)]
pub struct Facts<'a> {
    /// What was asked for.
    pub cap: Cap,
    /// The answer.
    pub granted: bool,
    /// How the system call ended.
    pub outcome: Outcome,
    /// The native system call, whose class can be read.
    pub call: Option<Sysno>,
    /// The key.
    pub tally: &'a Tally,
    /// The program runs in the container, or may.
    pub inside: bool,
    /// Depth of the container's user namespace.
    pub base_level: u32,
    /// The program's path.
    pub program: &'a str,
    /// The program is the executor: its own code, or a child of it that executed nothing yet.
    pub executor: bool,
    /// The kind of step that the program works for.
    pub step: &'a str,
    /// What the kernel's memory question decides.
    pub overcommit: Overcommit,
    /// What else was asked in the same decisions.
    pub siblings: Siblings,
    /// The same, however the system calls ended: some outcomes may not have been seen.
    pub overall: Siblings,
    /// Samples of the tally.
    pub samples: &'a [&'a Evidence],
    session: &'a Session<'a>,
}

impl Facts<'_> {
    /// The session holds one of the capabilities that would answer: where the check was refused, the
    /// program had given it up.
    pub fn answer_held(&self) -> bool {
        self.session.holds_any(&super::decisions::any_of(self))
    }

    /// The build went on without it, and no engine grants it by default.
    pub fn done_without(&self) -> bool {
        let alone = BTreeSet::from([self.cap]);
        self.session.done_without(self.tally.program, &alone)
    }

    /// No capability of a container would reach the program: when it was executed, it was another
    /// user than the one that the container started as, and the kernel left it none.
    pub fn beyond_reach(&self) -> bool {
        let scope = &self.session.scope;
        let Some(container) = scope.root.and_then(|root| root.exec.as_ref()) else {
            return false;
        };
        let exec = scope.executed(self.tally.program);
        exec.is_some_and(|exec| {
            exec.euid != container.euid
                && exec.user_ns == container.user_ns
                && exec.caps.permitted | exec.caps.ambient == 0
                && exec.file == FileCaps::None
        })
    }

    /// Nobody waited for the process to end, or for one that it worked for.
    pub fn unwaited(&self) -> bool {
        self.session.fates.unwaited(self.tally.program)
    }

    /// The executor's signal to a RUN's processes reached none but those that it needed the
    /// capability for: every process that the RUN had left to it was killed, each by a check.
    pub fn killed_others_only(&self) -> bool {
        let session = self.session;
        let of = &self.tally;
        let same = |tally: &&Tally| {
            (
                tally.program,
                tally.cap,
                tally.result,
                tally.syscall,
                tally.abi,
            ) == (of.program, of.cap, of.result, of.syscall, of.abi)
        };
        let checks = (session.capture.tallies.iter().filter(same))
            .fold(0u64, |sum, tally| sum.saturating_add(tally.count));
        let step = session.step(of.program);
        let left = session
            .fates
            .orphans(of.program, |id| session.step(id) == step);
        left == Orphans {
            killed: checks,
            other: 0,
        }
    }

    /// The native call is one of `calls`.
    pub fn in_call(&self, calls: &[Sysno]) -> bool {
        self.call.is_some_and(|call| calls.contains(&call))
    }

    /// The argument class has one of these bits.
    pub fn class_has(&self, bits: u32) -> bool {
        self.tally.class & bits != 0
    }

    /// The key has one of these flags.
    pub fn flagged(&self, flags: u8) -> bool {
        self.tally.flags & flags != 0
    }

    /// A sample's call path passes none of `functions`, so that what is known of these does not
    /// hold for all checks of the tally. Paths without any symbol say nothing.
    pub fn sampled_outside(&self, functions: &[&str]) -> bool {
        self.samples.iter().any(|sample| {
            let mut symbols = sample
                .path
                .iter()
                .filter_map(|f| f.symbol.as_deref())
                .peekable();
            symbols.peek().is_some()
                && !symbols.any(|symbol| {
                    // Compilers append `.isra.0` and the like.
                    let stem = symbol.split('.').next().unwrap_or(symbol);
                    functions.contains(&stem)
                })
        })
    }
}

/// A kernel setting as a report gives it.
pub fn setting(text: &str) -> Setting {
    let text = text.trim();
    text.parse()
        .map_or_else(|_| Setting::Text(text.to_owned()), Setting::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut tally = Tally {
            syscall: Some(90),
            count: 10,
            ..Tally::default()
        };
        tally.failed.extend([(1, 3), (254, 2)]);
        let split = |tally: &Tally, seen| {
            parts(tally, seen)
                .iter()
                .map(|p| (p.outcome, p.count))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            split(&tally, true),
            [
                (Outcome::Failed(1), 3),
                (Outcome::Unknown, 2),
                (Outcome::Success, 5)
            ]
        );
        assert_eq!(
            split(&tally, false)[2],
            (Outcome::Unknown, 5),
            "unseen is never success"
        );
        // More failures than checks, as only a damaged capture has them.
        tally.failed.insert(2, u64::MAX);
        assert_eq!(parts(&tally, true).iter().map(|p| p.count).sum::<u64>(), 10);
        tally.syscall = None;
        tally.failed.clear();
        assert_eq!(split(&tally, true), [(Outcome::NoCall, 10)]);
    }
}
