//! Which verdicts replays settle: what the set needs and why, what it does without, and what is refuted.

use super::names;
use crate::{
    prove::{
        judge::{Came, Replay},
        planner::Set,
    },
    report::{Because, Cap, Capability, Decision, Proof, ProofOutcome, Proven, Report, Verdict},
};

/// Replays, and the set that they led to.
pub(super) struct Trials<'a> {
    pub(super) all: &'a [(&'a Replay, Came)],
    pub(super) set: Set,
}

impl<'a> Trials<'a> {
    pub(super) fn with(&self, set: Set) -> impl Iterator<Item = &'a (&'a Replay, Came)> {
        self.all
            .iter()
            .filter(move |(replay, _)| replay.mask() == set)
    }

    /// The one that shows what becomes of the build without a member.
    fn without(&self, cap: Cap) -> Option<&'a (&'a Replay, Came)> {
        let differs = |came: &Came| matches!(came, Came::Failed | Came::Changed(_) | Came::Endless);
        let all = || {
            self.with(self.set & !cap.bit())
                .filter(|(_, came)| differs(came))
        };
        // One whose trace explains it, where there are several.
        let explained = all().find(|(replay, came)| replay.refusal(cap, came).is_some());
        explained.or_else(|| all().next())
    }

    /// The last one that shows that the set does.
    pub(super) fn sufficient(&self) -> Option<&'a Replay> {
        let same = self.with(self.set).filter(|(_, came)| *came == Came::Same);
        same.last().map(|(replay, _)| *replay)
    }
}

/// Puts what replays settled into the report.
pub(super) fn settle(report: &mut Report, trials: &Trials<'_>, held: Set, state: Proven) {
    let set = trials.set;
    report.required = Cap::of_mask(set).collect();
    report
        .unsure
        .retain(|cap| set & cap.bit() != 0 && held & cap.bit() == 0);
    let unseen: Vec<Cap> = Cap::of_mask(set)
        .filter(|cap| report.capabilities.iter().all(|c| c.name != *cap))
        .collect();
    report
        .capabilities
        .extend(unseen.into_iter().map(never_asked));
    report.capabilities.sort_by_key(|c| c.number);
    for capability in &mut report.capabilities {
        if set & capability.name.bit() != 0 {
            needed(capability, trials, held);
        } else {
            unneeded(capability, trials);
        }
    }
    report.unsure = (report.capabilities.iter())
        .filter(|c| set & c.name.bit() != 0 && c.verdict == Verdict::Unsure)
        .map(|c| c.name)
        .collect();
    for step in &mut report.steps {
        step.required.retain(|cap| set & cap.bit() != 0);
        // What only a replay showed to be needed there.
        let shown = report.capabilities.iter().filter(|c| {
            let proof = c
                .proof
                .as_ref()
                .filter(|proof| proof.outcome != ProofOutcome::Same);
            proof.is_some_and(|proof| proof.step == Some(step.index))
        });
        step.required.extend(shown.map(|c| c.name));
        step.required.sort();
        step.required.dedup();
    }
    decisions(report, set, held, state);
    report.notes.extend(shrugged_off_note(report));
}

/// Where a build with what was observed, or more, did not give the same image, nothing less than the
/// starting set is known to be enough.
pub(super) fn refute(report: &mut Report, judged: &[(&Replay, Came)], start: Set) {
    let required = report.required.iter().fold(0, |all, cap| all | cap.bit());
    let differs = |came: &Came| matches!(came, Came::Failed | Came::Changed(_) | Came::Endless);
    let refuted = judged.iter().any(|(replay, came)| {
        let set = replay.mask();
        set != start && set & required == required && differs(came)
    });
    if !refuted || required & start == start {
        return;
    }
    let more: Vec<Cap> = Cap::of_mask(start & !required).collect();
    for cap in more {
        if report.capabilities.iter().all(|c| c.name != cap) {
            report.capabilities.push(never_asked(cap));
        }
        let found = report.capabilities.iter_mut().find(|c| c.name == cap);
        if let Some(capability) = found {
            capability.verdict = Verdict::Unsure;
            capability.because = Because::Unseen;
            capability.reason = "a build without it and others did not give the same image".into();
        }
        report.decisions.push(Decision {
            any_of: vec![cap],
            chosen: cap,
            steps: vec![],
            verdict: Verdict::Unsure,
        });
        report.required.push(cap);
        report.unsure.push(cap);
    }
    report.capabilities.sort_by_key(|c| c.number);
    report.required.sort();
    report.unsure.sort();
    report
        .decisions
        .sort_by(|a, b| (&a.any_of, a.chosen).cmp(&(&b.any_of, b.chosen)));
    report.notes.push(
        "builds with what one run required did not give the same image: all that they started with is kept"
            .to_owned(),
    );
}

fn needed(capability: &mut Capability, trials: &Trials<'_>, held: Set) {
    let cap = capability.name;
    if held & cap.bit() == 0 {
        if capability.verdict == Verdict::Unneeded || capability.evidence.is_empty() {
            capability.verdict = Verdict::Unsure;
            capability.because = Because::Unseen;
            capability.reason = "a build without it and others did not give the same image".into();
        }
        return;
    }
    let Some((replay, came)) = trials.without(cap) else {
        return;
    };
    let (detail, step) = replay.detail(Some(cap), came);
    if capability.verdict != Verdict::Needed {
        capability.verdict = Verdict::Needed;
        capability.because = match replay.refusal(cap, came) {
            Some(e) if e.because == Some(Because::Unasked) => Because::Unasked,
            _ => Because::Refused,
        };
    }
    capability.settle = None;
    capability.reason = format!("proved: without it {detail}");
    capability.proof = Some(Proof {
        outcome: match came {
            Came::Changed(_) => ProofOutcome::Changed,
            _ => ProofOutcome::Failed,
        },
        detail,
        step,
        tolerated: vec![],
    });
}

fn unneeded(capability: &mut Capability, trials: &Trials<'_>) {
    let Some(replay) = trials.sufficient() else {
        return;
    };
    let tolerated = replay.shrugged_off(capability.name);
    capability.settle = None;
    if capability.verdict != Verdict::Unneeded {
        capability.verdict = Verdict::Unneeded;
        capability.because = Because::Tolerated;
        capability.reason = "proved: the build without it gives the same image".to_owned();
        for evidence in &mut capability.evidence {
            if evidence
                .verdict
                .is_some_and(|verdict| verdict != Verdict::Unneeded)
            {
                evidence.verdict = Some(Verdict::Unneeded);
                evidence.because = Some(Because::Tolerated);
            }
        }
    }
    capability.proof = Some(Proof {
        outcome: ProofOutcome::Same,
        detail: format!("same image, built with {}", names(replay.mask())),
        step: None,
        tolerated,
    });
}

/// A capability that is needed although nothing was seen of it.
pub(super) fn never_asked(cap: Cap) -> Capability {
    Capability {
        name: cap,
        number: cap.0,
        verdict: Verdict::Needed,
        because: Because::Unasked,
        reason: String::new(),
        alternatives: vec![],
        checks: 0,
        granted: 0,
        denied: 0,
        unasked: 0,
        steps: vec![],
        evidence: vec![],
        settle: None,
        proof: None,
    }
}

/// Keeps what the set answers, so that reports can be merged: what it does not answer is no need.
fn decisions(report: &mut Report, set: Set, held: Set, state: Proven) {
    let answers = |decision: &Decision| {
        decision
            .any_of
            .iter()
            .find(|cap| set & cap.bit() != 0)
            .copied()
    };
    let mut kept: Vec<Decision> = vec![];
    for mut decision in report.decisions.drain(..) {
        let Some(answer) = answers(&decision) else {
            continue;
        };
        if set & decision.chosen.bit() == 0 {
            decision.chosen = answer;
        }
        if state == Proven::Proved || held & decision.chosen.bit() != 0 {
            decision.verdict = Verdict::Needed;
        }
        kept.push(decision);
    }
    for cap in Cap::of_mask(set) {
        if kept.iter().all(|decision| decision.chosen != cap) {
            let steps = report.capabilities.iter().find(|c| c.name == cap);
            let step = steps
                .and_then(|c| c.proof.as_ref())
                .and_then(|proof| proof.step);
            kept.push(Decision {
                any_of: vec![cap],
                chosen: cap,
                steps: step.into_iter().collect(),
                verdict: Verdict::Needed,
            });
        }
    }
    kept.sort_by(|a, b| (&a.any_of, a.chosen, &a.steps).cmp(&(&b.any_of, b.chosen, &b.steps)));
    report.decisions = kept;
}

/// The same image, yet the reader must know.
fn shrugged_off_note(report: &Report) -> Option<String> {
    let with = report.capabilities.iter().filter_map(|c| {
        let proof = c.proof.as_ref()?;
        (!proof.tolerated.is_empty())
            .then(|| format!("{} ({})", c.name, proof.tolerated.join(", ")))
    });
    let all: Vec<String> = with.collect();
    (!all.is_empty()).then(|| {
        format!(
            "refused without consequence for the image: {}",
            all.join("; ")
        )
    })
}
