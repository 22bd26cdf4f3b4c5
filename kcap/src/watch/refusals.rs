//! Refusals that a set is to blame for, of what a build asked for and was not given: the signal to roll
//! an allowlist back by.

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::{Because, Cap, Report, Verdict};

/// One capability that a build was refused, in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refusal {
    /// The capability.
    pub capability: Cap,
    /// The build failed, in the step where this was refused.
    pub failed: bool,
    /// `needed`, or `unsure` where the build may have gone on as well.
    pub verdict: Verdict,
    /// Why.
    pub because: Because,
    /// Line of the Dockerfile; null where it is not an instruction's.
    pub line: Option<u32>,
    /// The instruction, or the executor's own work.
    pub step: String,
    /// The program that was refused.
    pub program: String,
    /// The system call.
    pub syscall: Option<String>,
    /// How often.
    pub count: u64,
}

/// What the build was refused and its container did not hold, by capability and step. What no build
/// can expect, and every one does without, is left out.
pub fn refusals(report: &Report) -> Vec<Refusal> {
    let mut found: Vec<Refusal> = vec![];
    let built = report.subject.exit_status == Some(0);
    for capability in &report.capabilities {
        if report.subject.capabilities.contains(&capability.name) {
            continue;
        }
        for evidence in &capability.evidence {
            let (Some(verdict), Some(because)) = (evidence.verdict, evidence.because) else {
                continue;
            };
            // What is decided without a check is refused where it is not held.
            let refused = evidence.granted == Some(false) || evidence.unasked > 0;
            if !refused || verdict == Verdict::Unneeded {
                continue;
            }
            let step = evidence
                .step
                .and_then(|index| report.steps.get(index as usize));
            let refusal = Refusal {
                capability: capability.name,
                failed: !built
                    && evidence.step.is_some()
                    && evidence.step == report.subject.failed_step,
                verdict,
                because,
                line: step.and_then(|step| step.line),
                step: step.map_or_else(|| "unknown".to_owned(), |step| step.text.clone()),
                program: evidence.program.clone(),
                syscall: evidence.syscall.clone(),
                count: evidence.count + evidence.unasked,
            };
            let same = found.iter_mut().find(|other| {
                other.capability == refusal.capability
                    && (other.line, &other.step) == (refusal.line, &refusal.step)
            });
            match same {
                Some(other) => {
                    other.count += refusal.count;
                    other.failed |= refusal.failed;
                }
                None => found.push(refusal),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::Capture,
        interpret::interpret,
        report::{By, Capability, Evidence, Sharp, State, Step},
    };

    fn evidence(granted: bool, verdict: Verdict, step: u32) -> Evidence {
        Evidence {
            count: 2,
            unasked: 0,
            granted: Some(granted),
            verdict: Some(verdict),
            because: Some(Because::Refused),
            syscall: Some("fchownat".into()),
            outcome: Some("EPERM".into()),
            program: "/bin/chown".into(),
            path: vec![],
            step: Some(step),
            reason: String::new(),
            rule: None,
            other: false,
        }
    }

    fn report(evidence: Vec<Evidence>) -> Report {
        let mut report = interpret(&Capture::default());
        report.subject.exit_status = Some(1);
        report.subject.failed_step = Some(1);
        report.steps = (0..2)
            .map(|index| Step {
                index,
                stage: Some(0),
                line: Some(10 + index),
                kind: "run".into(),
                text: format!("RUN {index}"),
                state: State::Ran,
                by: By::Exec,
                sharp: Sharp::Exact,
                holds: None,
                checks: 0,
                required: vec![],
            })
            .collect();
        report.capabilities = vec![Capability {
            name: Cap::CHOWN,
            number: 0,
            verdict: Verdict::Needed,
            because: Because::Refused,
            reason: String::new(),
            alternatives: vec![],
            checks: 0,
            granted: 0,
            denied: 0,
            unasked: 0,
            steps: vec![],
            evidence,
            settle: None,
            proof: None,
        }];
        report
    }

    #[test]
    fn what_failed_the_build_is_told_from_what_it_shrugged_off() {
        let report = report(vec![
            evidence(false, Verdict::Unsure, 0),
            evidence(false, Verdict::Needed, 1),
            evidence(false, Verdict::Needed, 1),
            evidence(false, Verdict::Unneeded, 1),
            evidence(true, Verdict::Needed, 1),
        ]);
        let found = refusals(&report);
        let told: Vec<_> = found.iter().map(|r| (r.line, r.failed, r.count)).collect();
        assert_eq!(told, [(Some(10), false, 2), (Some(11), true, 4)]);
    }

    #[test]
    fn a_set_that_holds_it_is_not_to_blame() {
        let mut report = report(vec![evidence(false, Verdict::Needed, 1)]);
        report.subject.capabilities = vec![Cap::CHOWN];
        assert!(refusals(&report).is_empty());
    }
}
