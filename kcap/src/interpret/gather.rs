//! Adds up ruled checks: by capability, step, decision and evidence. Whatever goes in is counted
//! once in each, so that all sums of the report agree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::choose;
use super::facts::{Session, parts};
use super::syscall::{self, Outcome};
use super::{decisions, rules, unasked};
use crate::capture::Frame;
use crate::report::{Because, Cap, CapabilityStep, Verdict};

/// What checks share that are shown as one piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    /// What they are to the build.
    pub verdict: Verdict,
    /// The mechanism.
    pub because: Because,
    /// One sentence for people.
    pub reason: &'static str,
    /// Name of the rule that decided.
    pub rule: &'static str,
    /// The answer; `None` without a check.
    pub granted: Option<bool>,
    /// ABI and number of the system call.
    pub call: Option<(u8, u16)>,
    /// How it ended.
    pub outcome: Outcome,
    /// The program's path.
    pub program: &'a str,
    /// Index of the step.
    pub step: u32,
    /// The decision they belong to; empty where nothing depends on them.
    pub any_of: BTreeSet<Cap>,
}

/// How many, and a sample.
#[derive(Clone, Debug, Default)]
pub struct Count<'a> {
    /// Checks.
    pub checks: u64,
    /// Decisions without one.
    pub unasked: u64,
    /// The call path of a sample.
    pub path: &'a [Frame],
}

/// What is counted of one capability.
#[derive(Clone, Debug, Default)]
pub struct Tallied<'a> {
    /// Checks granted.
    pub granted: u64,
    /// Checks refused.
    pub denied: u64,
    /// Decisions without a check.
    pub unasked: u64,
    /// By step.
    pub steps: BTreeMap<u32, CapabilityStep>,
    /// By evidence.
    pub evidence: BTreeMap<Key<'a>, Count<'a>>,
}

/// What the build depended on at one kind of decision.
#[derive(Clone, Debug)]
pub struct Depends {
    /// Needed where any instance was.
    pub verdict: Verdict,
    /// Where it was met.
    pub steps: BTreeSet<u32>,
    /// The capability in the chosen set that answers it.
    pub chosen: Cap,
    /// The mechanism of its weightiest instance, for an answer that was never asked for.
    pub because: Because,
}

/// A session, added up.
#[derive(Default)]
pub struct Gathered<'a> {
    /// By capability.
    pub caps: BTreeMap<Cap, Tallied<'a>>,
    /// By the capabilities that would do.
    pub depends: BTreeMap<BTreeSet<Cap>, Depends>,
    /// The set that answers every decision.
    pub required: BTreeSet<Cap>,
    /// Notes for the reader.
    pub notes: Vec<String>,
}

/// Rules on everything that was seen.
pub fn gather<'a>(session: &Session<'a>) -> Gathered<'a> {
    let mut all = Gathered::default();
    for (index, tally) in session.capture.tallies.iter().enumerate() {
        let Some(cap) = tally.cap.map(Cap).filter(|_| tally.unasked == 0) else {
            continue;
        };
        let samples = session.samples(index);
        let path = samples
            .first()
            .map_or(&[][..], |sample| sample.path.as_slice());
        for part in parts(tally, session.outcomes_seen) {
            let facts = session.facts(index, tally, cap, part);
            let rule = rules::decide(&facts);
            let any_of = match rule.verdict {
                Verdict::Unneeded => BTreeSet::new(),
                Verdict::Unsure | Verdict::Needed => decisions::any_of(&facts),
            };
            let key = Key {
                verdict: rule.verdict,
                because: rule.because,
                reason: rule.reason,
                rule: rule.name,
                granted: Some(facts.granted),
                call: tally.syscall.map(|number| (tally.abi, number)),
                outcome: part.outcome,
                program: session.scope.path(tally.program),
                step: session.step(tally.program),
                any_of,
            };
            all.add(
                cap,
                key,
                Count {
                    checks: part.count,
                    unasked: 0,
                    path,
                },
            );
        }
    }
    let (needs, notes) = unasked::needs(session);
    for need in needs {
        let key = Key {
            verdict: need.rule.verdict,
            because: need.rule.because,
            reason: need.rule.reason,
            rule: need.rule.name,
            granted: None,
            call: need.call,
            outcome: Outcome::NoCall,
            program: session.scope.path(need.program),
            step: session.step(need.program),
            any_of: match need.rule.verdict {
                Verdict::Unneeded => BTreeSet::new(),
                Verdict::Unsure | Verdict::Needed => need.any_of.clone(),
            },
        };
        // Shown under the least powerful of the answers, whichever is chosen in the end.
        if let Some(cap) = need.any_of.iter().min_by_key(|cap| choose::power(**cap)) {
            all.add(
                *cap,
                key,
                Count {
                    checks: 0,
                    unasked: need.times,
                    path: &[],
                },
            );
        }
    }
    all.notes = notes;
    all.choose(session.scope.bounding());
    all
}

impl<'a> Gathered<'a> {
    fn add(&mut self, cap: Cap, key: Key<'a>, count: Count<'a>) {
        if !key.any_of.is_empty() {
            let depends = self
                .depends
                .entry(key.any_of.clone())
                .or_insert_with(|| Depends {
                    verdict: key.verdict,
                    steps: BTreeSet::new(),
                    chosen: cap,
                    because: key.because,
                });
            // Between equals the same one whatever the order.
            if (key.verdict, Reverse(key.because)) > (depends.verdict, Reverse(depends.because)) {
                (depends.verdict, depends.because) = (key.verdict, key.because);
            }
            depends.steps.insert(key.step);
        }
        let tallied = self.caps.entry(cap).or_default();
        let step = (tallied.steps.entry(key.step)).or_insert(CapabilityStep {
            step: key.step,
            ..CapabilityStep::default()
        });
        let (granted, denied) = match key.granted {
            Some(true) => (count.checks, 0),
            Some(false) => (0, count.checks),
            None => (0, 0),
        };
        // Saturating throughout: sums beyond 64 bits are refused when a capture is read.
        step.granted = step.granted.saturating_add(granted);
        step.denied = step.denied.saturating_add(denied);
        step.checks = step.checks.saturating_add(count.checks);
        tallied.granted = tallied.granted.saturating_add(granted);
        tallied.denied = tallied.denied.saturating_add(denied);
        tallied.unasked = tallied.unasked.saturating_add(count.unasked);
        let evidence = tallied.evidence.entry(key).or_default();
        evidence.checks = evidence.checks.saturating_add(count.checks);
        evidence.unasked = evidence.unasked.saturating_add(count.unasked);
        if evidence.path.is_empty() {
            evidence.path = count.path;
        }
    }

    /// Chooses the set, among what the build held where that answers a decision at all.
    fn choose(&mut self, held: Option<u64>) {
        let holds = |cap: &Cap| held.is_none_or(|held| held & cap.bit() != 0);
        let among = |any_of: &BTreeSet<Cap>| {
            let held: BTreeSet<Cap> = any_of.iter().copied().filter(holds).collect();
            if held.is_empty() {
                any_of.clone()
            } else {
                held
            }
        };
        let candidates: Vec<BTreeSet<Cap>> = self.depends.keys().map(among).collect();
        self.required = choose::smallest(&candidates);
        for (depends, candidates) in self.depends.values_mut().zip(&candidates) {
            let answers = candidates.intersection(&self.required);
            if let Some(cap) = answers.copied().min_by_key(|cap| choose::power(*cap)) {
                depends.chosen = cap;
            }
        }
        for cap in &self.required {
            self.caps.entry(*cap).or_default();
        }
    }
}

/// The name of a system call as evidence gives it.
pub fn call_name(call: Option<(u8, u16)>, arch: &str) -> Option<String> {
    call.map(|(abi, number)| syscall::name(abi, number, arch))
}
