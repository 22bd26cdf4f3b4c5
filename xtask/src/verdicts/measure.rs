//! One report against one truth: pure counting.

use std::collections::BTreeSet;

use kcap::interpret::rules;
use kcap::report::{Report, Verdict};

use crate::corpus::Expect;
use crate::truth::record::Truth;

/// What replays say of one capability of one Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replays {
    /// The build fails, or gives another image, without it (or without any of its group).
    Needed,
    /// The build does without it.
    Unneeded,
    /// No replay tried it: the build is one that fails, and was never given it.
    Unjudged,
}

/// A capability that a report speaks of.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What kcap says.
    pub verdict: Verdict,
    /// Why, as a report has it.
    pub because: String,
    /// One sentence.
    pub reason: String,
    /// The rules that its verdict comes from.
    pub rules: BTreeSet<String>,
    /// The first instruction or phase in which they decided.
    pub at: String,
    /// A check for it was granted inside the container.
    pub granted: bool,
    /// What replays say.
    pub replays: Replays,
}

/// One Dockerfile.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The folder's name.
    pub name: String,
    /// Every capability of its report.
    pub members: Vec<Member>,
    /// Needs, a group of which any one does counted once.
    pub needs: usize,
    /// Needs that the report does not require.
    pub missed: Vec<String>,
    /// Needs for which no check was granted.
    pub never_granted: Vec<String>,
}

impl Measured {
    /// Holds a report against a truth.
    pub fn of(name: &str, report: &Report, truth: &Truth) -> Self {
        // Whatever answers a need, by name; one for most.
        let single = truth
            .needed
            .iter()
            .map(|need| vec![need.capability.clone()]);
        let needs: Vec<Vec<String>> = single.chain(truth.any_of.iter().cloned()).collect();
        let members: Vec<Member> = (report.capabilities.iter())
            .map(|cap| {
                let name = cap.name.to_string();
                let needed = needs.iter().any(|any_of| any_of.contains(&name));
                let tried = truth.start.contains(&name) || truth.expect == Expect::Success;
                // Not where another capability was chosen for the decision: then no rule said so.
                let deciding = |e: &&kcap::report::Evidence| {
                    let rule = rules::all().find(|rule| e.rule.as_deref() == Some(rule.name));
                    e.verdict == Some(cap.verdict)
                        && rule.is_some_and(|rule| e.because == Some(rule.because))
                };
                let step = |index: u32| report.steps.get(index as usize);
                let outside = |index: u32| step(index).is_some_and(|s| s.kind == "container-start");
                Member {
                    verdict: cap.verdict,
                    because: word(&cap.because),
                    reason: cap.reason.clone(),
                    rules: (cap.evidence.iter().filter(deciding))
                        .filter_map(|e| e.rule.clone())
                        .collect(),
                    at: (cap.evidence.iter().find(deciding))
                        .and_then(|e| step(e.step?))
                        .map(|step| match step.line {
                            Some(line) => format!("line {line}, {}", step.kind.to_uppercase()),
                            None => step.kind.clone(),
                        })
                        .unwrap_or_default(),
                    granted: (cap.steps.iter()).any(|s| s.granted > 0 && !outside(s.step)),
                    replays: match (needed, tried) {
                        (true, _) => Replays::Needed,
                        (false, true) => Replays::Unneeded,
                        (false, false) => Replays::Unjudged,
                    },
                    name,
                }
            })
            .collect();
        let lacking = |answers: &dyn Fn(&Member) -> bool| {
            let answered = |any_of: &&Vec<String>| {
                members
                    .iter()
                    .any(|m| answers(m) && any_of.contains(&m.name))
            };
            (needs.iter().filter(|any_of| !answered(any_of)))
                .map(|any_of| any_of.join(" or "))
                .collect::<Vec<_>>()
        };
        Self {
            missed: lacking(&Member::required),
            never_granted: lacking(&|member| member.granted),
            name: name.to_owned(),
            needs: needs.len(),
            members,
        }
    }
}

impl Member {
    /// kcap says that the build must have it.
    pub fn required(&self) -> bool {
        self.verdict != Verdict::Unneeded
    }
}

/// A value's name in a report.
fn word(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_value(value).ok();
    text.as_ref()
        .and_then(|text| text.as_str())
        .unwrap_or_default()
        .to_owned()
}

/// How often kcap said something, by what replays say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Replays say needed.
    pub needed: usize,
    /// Replays say unneeded.
    pub unneeded: usize,
    /// No replay says.
    pub unjudged: usize,
}

impl Split {
    /// Counts the members that `wanted` picks.
    pub fn of<'a>(
        members: impl Iterator<Item = &'a Member>,
        wanted: impl Fn(&Member) -> bool,
    ) -> Self {
        let mut split = Self::default();
        for member in members.filter(|member| wanted(member)) {
            *match member.replays {
                Replays::Needed => &mut split.needed,
                Replays::Unneeded => &mut split.unneeded,
                Replays::Unjudged => &mut split.unjudged,
            } += 1;
        }
        split
    }

    /// All that were counted.
    pub fn total(self) -> usize {
        self.needed + self.unneeded + self.unjudged
    }

    /// The part of those judged that is needed, from 0 to 1.
    pub fn precision(self) -> f64 {
        ratio(self.needed, self.needed + self.unneeded)
    }
}

/// `part` of `whole`, from 0 to 1; all of nothing.
pub fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

/// Some Dockerfiles in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Dockerfiles.
    pub files: usize,
    /// Their needs.
    pub needs: usize,
    /// Of these, left out.
    pub missed: usize,
    /// Called `needed`.
    pub sure: Split,
    /// Called `unsure`.
    pub unsure: Split,
    /// Called `unneeded`.
    pub left_out: Split,
    /// Every capability for which a check was granted.
    pub granted: Split,
    /// Needs for which none was.
    pub never_granted: usize,
}

impl Sum {
    /// Adds up.
    pub fn of(measured: &[&Measured]) -> Self {
        let split = |wanted: &dyn Fn(&Member) -> bool| {
            Split::of(measured.iter().flat_map(|one| &one.members), wanted)
        };
        Self {
            files: measured.len(),
            needs: measured.iter().map(|one| one.needs).sum(),
            missed: measured.iter().map(|one| one.missed.len()).sum(),
            sure: split(&|m| m.verdict == Verdict::Needed),
            unsure: split(&|m| m.verdict == Verdict::Unsure),
            left_out: split(&|m| m.verdict == Verdict::Unneeded),
            granted: split(&|m| m.granted),
            never_granted: measured.iter().map(|one| one.never_granted.len()).sum(),
        }
    }

    /// The part of the needs that is required.
    pub fn recall(self) -> f64 {
        ratio(self.needs - self.missed.min(self.needs), self.needs)
    }

    /// The part of the required members that is unsure.
    pub fn doubt(self) -> f64 {
        match self.sure.total() + self.unsure.total() {
            0 => 0.0,
            required => ratio(self.unsure.total(), required),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn truth(expect: &str, needed: &[&str], any_of: &[&[&str]]) -> Truth {
        let needed: Vec<_> = (needed.iter())
            .map(|name| json!({"capability": name, "outcome": "failed", "witness": {}}))
            .collect();
        let truth = json!({
            "schema": "kcap.truth/v1", "inputs": "", "executor": "", "bases": {},
            "environment": {
                "seccomp": "none", "network": "", "ip_unprivileged_port_start": 1024,
                "ping_group_range": "",
            },
            "expect": expect, "start": ["CHOWN", "DAC_OVERRIDE", "KILL", "SETUID"],
            "needed": needed, "unneeded": [], "any_of": any_of, "sufficient": [],
            "reference": {"stable": true}, "builds": 1,
        });
        serde_json::from_value(truth).unwrap()
    }

    /// A report of these capabilities, with one granted check each.
    fn report(caps: &[(&str, &str)]) -> Report {
        let capabilities: Vec<_> = (caps.iter())
            .map(|(name, verdict)| {
                let because = match *verdict {
                    "needed" => "used",
                    "unsure" => "unseen",
                    _ => "no-effect",
                };
                json!({
                    "name": name, "number": 0, "verdict": verdict, "because": because,
                    "reason": "for a test", "alternatives": [], "checks": 1, "granted": 1,
                    "denied": 0, "unasked": 0, "proof": null,
                    "steps": [{"step": 0, "checks": 1, "granted": 1, "denied": 0}],
                    "evidence": [{
                        "count": 1, "unasked": 0, "granted": true, "verdict": verdict,
                        "because": because, "syscall": null, "outcome": null, "program": "",
                        "path": [], "step": 0, "reason": "", "rule": "used", "other": false,
                    }],
                })
            })
            .collect();
        let mut report = serde_json::to_value(interpret()).unwrap();
        report["capabilities"] = capabilities.into();
        serde_json::from_value(report).unwrap()
    }

    fn interpret() -> Report {
        kcap::interpret::interpret(&kcap::capture::Capture::default())
    }

    #[test]
    fn needs_that_are_not_required_are_missed() {
        let report = report(&[
            ("CHOWN", "needed"),
            ("KILL", "unsure"),
            ("SETUID", "unneeded"),
        ]);
        let all = Measured::of("x", &report, &truth("success", &["CHOWN", "KILL"], &[]));
        assert!(all.missed.is_empty());
        let one = Measured::of(
            "x",
            &report,
            &truth("success", &["SETUID", "DAC_OVERRIDE"], &[]),
        );
        assert_eq!(one.missed, ["SETUID", "DAC_OVERRIDE"]);
        assert_eq!(one.never_granted, ["DAC_OVERRIDE"]);
    }

    #[test]
    fn any_of_a_group_answers_it() {
        let groups: &[&[&str]] = &[&["CHOWN", "SETUID"], &["DAC_OVERRIDE", "KILL"]];
        let truth = truth("success", &[], groups);
        let one = Measured::of("x", &report(&[("CHOWN", "needed")]), &truth);
        assert_eq!(one.needs, 2);
        assert_eq!(one.missed, ["DAC_OVERRIDE or KILL"]);
        assert_eq!(one.members[0].replays, Replays::Needed);
    }

    #[test]
    fn what_no_replay_tried_is_not_judged() {
        let report = report(&[("SYS_ADMIN", "needed"), ("KILL", "needed")]);
        let fails = Measured::of("x", &report, &truth("fail", &[], &[]));
        let sum = Sum::of(&[&fails]);
        assert_eq!((sum.sure.unjudged, sum.sure.unneeded), (1, 1));
        let does = Measured::of("x", &report, &truth("success", &[], &[]));
        assert_eq!(Sum::of(&[&does]).sure.unneeded, 2, "it did without");
    }

    #[test]
    fn parts_of_nothing() {
        let none = Sum::of(&[]);
        assert_eq!(
            (none.recall(), none.doubt(), none.sure.precision()),
            (1.0, 0.0, 1.0)
        );
    }
}
