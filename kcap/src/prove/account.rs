//! From replays to the report: the first build's trace, with verdicts that replays settled. Pure.

use std::collections::BTreeMap;

use super::{
    judge::{Came, Content, Replay, SHOWN},
    planner::{Found, Set, Stuck},
};
use crate::{
    compare::Noise,
    report::{
        self, Basis, Because, Cap, Capability, Decision, Proof, ProofOutcome, Proven, Proving,
        Repeat, Report, Trial, Verdict,
    },
};

/// What stands for a text that must not be shown.
pub const HIDDEN: &str = "***";

/// How a proof ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All questions are answered.
    Found(Found),
    /// The builds do not allow it.
    Stuck(Stuck),
    /// There is no time for more, or kcap was interrupted: why, the smallest set that did, and which of
    /// its members are known to be needed.
    Early {
        /// Why.
        why: String,
        /// The smallest set that was seen to do.
        set: Set,
        /// Its members that were seen to be needed.
        held: Set,
    },
}

/// What is known of a proof beside its replays.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// The set that the first build had.
    pub start: Set,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Equal builds came to different things.
    pub flaky: bool,
    /// What a difference in content alone says.
    pub content: Content,
    /// What it takes to make these builds again.
    pub repeat: Repeat,
}

/// The report: `observed` is what the first build's trace says.
pub fn report(
    mut observed: Report,
    replays: &[Replay],
    noise: &Noise,
    end: &End,
    about: &Circumstances,
) -> Report {
    let judged: Vec<(&Replay, Came)> = replays
        .iter()
        .map(|replay| (replay, replay.came(noise, about.content)))
        .collect();
    let (state, mut reason, set, held) = outcome(end, about.start);
    if let (End::Stuck(Stuck::Void(set)), Some(reason)) = (end, &mut reason) {
        let mut void = replays.iter().filter(|r| r.mask() == *set).rev();
        if let Some(why) = void.find_map(|replay| replay.void.as_ref()) {
            *reason += &format!(": {why}");
        }
    }
    let trials = Trials { all: &judged, set };
    match state {
        Proven::Proved | Proven::Sufficient => {
            settle(&mut observed, &trials, held, state);
        }
        // What was observed stands, but for what replays refuted.
        Proven::Unfinished | Proven::Failed | Proven::Unstable => {
            refute(&mut observed, &judged, about.start);
        }
    }
    if state == Proven::Proved {
        observed.basis = Basis::Proved;
    }
    let untried = match state {
        Proven::Proved => 0,
        Proven::Sufficient => set & !held,
        Proven::Unfinished | Proven::Failed | Proven::Unstable => {
            observed.required.iter().fold(0, |all, cap| all | cap.bit())
        }
    };
    observed.trials = judged
        .iter()
        .map(|(replay, came)| trial(replay, came, noise))
        .collect();
    let kept = replays.iter().filter(|replay| replay.kept).count();
    // The build that a reader would make again: with the set, else with the starting set.
    let first = trials
        .with(about.start)
        .find(|(replay, _)| replay.image.is_some());
    let last = trials.sufficient().or(first.map(|(replay, _)| *replay));
    observed.proof = Some(Proving {
        state,
        reason,
        untried: Cap::of_mask(untried).collect(),
        builds: (replays.len() - kept) as u32,
        kept: kept as u32,
        references: trials.with(about.start).count() as u32,
        seconds: round(about.seconds),
        build_seconds: round(replays.iter().map(|replay| replay.seconds).sum()),
        flaky: about.flaky,
        noise: noise_of(&judged, noise),
        image: last.and_then(|replay| Some(replay.image.as_ref()?.id.clone())),
        repeat: Repeat {
            container: last
                .and_then(|replay| Some(replay.report.as_ref()?.subject.command.clone()))
                .unwrap_or_default(),
            ..about.repeat.clone()
        },
    });
    observed
}

/// How far it came, why no further, the set, and its members that were seen to be needed.
fn outcome(end: &End, start: Set) -> (Proven, Option<String>, Set, Set) {
    match end {
        End::Found(found) => (Proven::Proved, None, found.set, found.set),
        End::Stuck(Stuck::Fails) => (
            Proven::Failed,
            Some(
                "the build fails with the starting set: mend it, or start with more by --cap-add"
                    .into(),
            ),
            start,
            0,
        ),
        End::Stuck(Stuck::Unstable(set)) => (
            Proven::Unstable,
            Some(format!(
                "equal builds with {} come to different things: see what depends on the network, on \
                 time or on chance",
                names(*set)
            )),
            start,
            0,
        ),
        End::Stuck(Stuck::Void(set)) => (
            Proven::Unfinished,
            Some(format!(
                "builds with {} could not be carried out",
                names(*set)
            )),
            start,
            0,
        ),
        // Where no member was tried, that the starting set does is no news.
        End::Early { why, set, held } if *set != start || *held != 0 => {
            (Proven::Sufficient, Some(why.clone()), *set, *held)
        }
        End::Early { why, .. } => (Proven::Unfinished, Some(why.clone()), start, 0),
    }
}

/// Replays, and the set that they led to.
struct Trials<'a> {
    all: &'a [(&'a Replay, Came)],
    set: Set,
}

impl<'a> Trials<'a> {
    fn with(&self, set: Set) -> impl Iterator<Item = &'a (&'a Replay, Came)> {
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
    fn sufficient(&self) -> Option<&'a Replay> {
        let same = self.with(self.set).filter(|(_, came)| *came == Came::Same);
        same.last().map(|(replay, _)| *replay)
    }
}

/// Puts what replays settled into the report.
fn settle(report: &mut Report, trials: &Trials<'_>, held: Set, state: Proven) {
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
fn refute(report: &mut Report, judged: &[(&Replay, Came)], start: Set) {
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
fn never_asked(cap: Cap) -> Capability {
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

/// Hides texts wherever replays brought them into a report: paths and program output can hold them.
pub fn hide(report: &mut Report, secrets: &[String]) {
    let hide = |text: &mut String| {
        for secret in secrets {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), HIDDEN);
            }
        }
    };
    report.subject.log.iter_mut().for_each(hide);
    report.subject.context.iter_mut().for_each(hide);
    (report.proof.iter_mut())
        .filter_map(|proof| proof.reason.as_mut())
        .for_each(hide);
    for capability in &mut report.capabilities {
        hide(&mut capability.reason);
        if let Some(proof) = &mut capability.proof {
            hide(&mut proof.detail);
            proof.tolerated.iter_mut().for_each(hide);
        }
    }
    report.notes.iter_mut().for_each(hide);
    for trial in &mut report.trials {
        trial.differs.iter_mut().for_each(hide);
    }
    for noise in report.proof.iter_mut().flat_map(|proof| &mut proof.noise) {
        noise.examples.iter_mut().for_each(hide);
    }
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

fn trial(replay: &Replay, came: &Came, noise: &Noise) -> Trial {
    // Content of which nobody knows whether equal builds agree on it.
    let undecided: Vec<String> = (replay.image.iter())
        .flat_map(|image| image.judged(noise).undecided)
        .take(SHOWN)
        .map(|difference| difference.to_string())
        .collect();
    let missing = replay
        .purpose
        .strip_prefix("without ")
        .and_then(|name| name.parse().ok());
    let (detail, step) = replay.detail(missing, came);
    let is_decided = undecided.is_empty();
    let differs = match came {
        Came::Changed(differences) => {
            let shown = differences.iter().take(SHOWN).map(ToString::to_string);
            let more = differences.len().saturating_sub(SHOWN);
            shown
                .chain((more > 0).then(|| format!("and {more} more")))
                .collect()
        }
        Came::Failed | Came::Endless | Came::Void => vec![detail],
        Came::Same | Came::Undecided => undecided,
    };
    Trial {
        set: replay.set.clone(),
        outcome: match came {
            Came::Same if is_decided => "same",
            Came::Same | Came::Undecided => "undecided",
            Came::Changed(_) => "changed",
            Came::Failed => "failed",
            Came::Endless => "endless",
            Came::Void => "void",
        }
        .to_owned(),
        seconds: round(replay.seconds),
        differs,
        purpose: replay.purpose.clone(),
        kept: replay.kept,
        step,
    }
}

/// Differences that decided nothing, by the rule that says so.
fn noise_of(judged: &[(&Replay, Came)], noise: &Noise) -> Vec<report::Noise> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (replay, _) in judged {
        let Some(image) = &replay.image else {
            continue;
        };
        let judged = image.judged(noise);
        let named = judged.noise.iter().map(|(rule, d)| (rule.name(), d));
        let unstable = judged.unstable.iter().map(|d| match d.is_content() {
            true => ("unstable", d),
            false => ("unstable-metadata", d),
        });
        let undecided = judged.undecided.iter().map(|d| ("undecided", d));
        for (rule, difference) in named.chain(unstable).chain(undecided) {
            let places = places.entry(rule.to_owned()).or_default();
            places.push(difference.place.to_string());
        }
    }
    places
        .into_iter()
        .map(|(rule, mut places)| {
            places.sort();
            places.dedup();
            report::Noise {
                rule,
                places: places.len() as u64,
                examples: places.into_iter().take(SHOWN).collect(),
            }
        })
        .collect()
}

/// A set's names, for people.
pub fn names(set: Set) -> String {
    if set == 0 {
        return "no capability".into();
    }
    let names: Vec<String> = Cap::of_mask(set).map(|cap| cap.to_string()).collect();
    names.join(" ")
}

/// To the millisecond: reports are for people, too.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
