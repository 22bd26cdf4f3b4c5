//! From replays to the report: the first build's trace, with verdicts that replays settled. Pure.

mod settle;

use std::collections::BTreeMap;

use self::settle::{Trials, refute, settle};
use super::{
    judge::{Came, Content, Replay, SHOWN},
    planner::{Found, Set, Stuck},
};
use crate::{
    compare::Noise,
    report::{self, Basis, Cap, Proven, Proving, Repeat, Report, Trial},
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
