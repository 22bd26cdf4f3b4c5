//! `corpus/runs.jsonl`: what reports say, a build a line. Sorted, and without dates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kcap::report::{Because, Loss, Report, Verdict};
use serde::{Deserialize, Serialize};

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The run's name, see [`super::plan`].
    pub run: String,
    /// The Dockerfile's folder in the corpus.
    pub name: String,
    /// `uname -r`.
    pub kernel: String,
    /// The hook that saw the checks.
    pub hook: String,
    /// Of the kernel.
    pub preemption: String,
    /// Of the build; null where its end was not seen.
    pub exit: Option<i32>,
    /// Where it ended, if not with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Nothing was lost.
    pub complete: bool,
    /// What was, and how often, or why completeness cannot be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// What the report requires, by number.
    pub required: Vec<String>,
    /// The part of it that is unsure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<String>,
    /// What the report says of every capability that was asked for in the container.
    pub said: BTreeMap<String, Said>,
    /// What it says stopped the build: only where the build failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<Stopped>,
}

/// What a report says of a capability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Its verdict.
    pub verdict: Verdict,
    /// The mechanism.
    pub because: Because,
    /// The rules that the verdict comes from; of what is required also where they decided.
    pub rules: BTreeSet<String>,
}

/// A refusal in the step in which the build ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stopped {
    /// What was refused.
    pub capability: String,
    /// `refused` or `unasked`.
    pub because: Because,
    /// By this program.
    pub program: String,
    /// In this system call; null where the kernel decided it in an exec.
    pub syscall: Option<String>,
    /// Which ended so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

impl Row {
    /// What a report says.
    pub fn of(run: &str, name: &str, report: &Report) -> Self {
        let step = |index: u32| report.steps.iter().find(|step| step.index == index);
        let place = |index: u32| match step(index) {
            Some(step) => match step.line {
                Some(line) => format!("line {line}, {}", step.kind.to_uppercase()),
                None => step.kind.clone(),
            },
            None => String::new(),
        };
        let outside = |index: u32| step(index).is_some_and(|s| s.kind == "container-start");
        let failed = report.subject.exit_status != Some(0);
        let ended = report.subject.failed_step.filter(|_| failed);
        let mut said = BTreeMap::new();
        let mut stopped = BTreeSet::new();
        for cap in &report.capabilities {
            let inside = (cap.evidence.iter()).filter(|e| e.step.is_none_or(|at| !outside(at)));
            if inside.clone().next().is_none() {
                continue;
            }
            let deciding = inside.clone().filter(|e| e.verdict == Some(cap.verdict));
            // Where nothing is needed, the rule is enough: the memory question is met everywhere.
            let rules = deciding.filter_map(|e| match cap.verdict {
                Verdict::Unneeded => e.rule.clone(),
                _ => Some(format!("{} ({})", e.rule.as_ref()?, place(e.step?))),
            });
            said.insert(
                cap.name.to_string(),
                Said {
                    verdict: cap.verdict,
                    because: cap.because,
                    rules: rules.collect(),
                },
            );
            let refused = |because| matches!(because, Because::Refused | Because::Unasked);
            for e in inside.filter(|_| failed && cap.verdict == Verdict::Needed) {
                let because = e.because.filter(|because| refused(*because));
                if let (Some(because), Some(Verdict::Needed)) = (because, e.verdict)
                    && e.step == ended
                {
                    stopped.insert(Stopped {
                        capability: cap.name.to_string(),
                        because,
                        program: e.program.clone(),
                        syscall: e.syscall.clone(),
                        outcome: e.outcome.clone(),
                    });
                }
            }
        }
        let names = |caps: &[kcap::report::Cap]| caps.iter().map(ToString::to_string).collect();
        Self {
            run: run.to_owned(),
            name: name.to_owned(),
            kernel: report.host.kernel.clone(),
            hook: report.host.hook.clone(),
            preemption: report.host.preemption.clone(),
            exit: report.subject.exit_status,
            ended: ended.map(place),
            complete: report.complete,
            lost: lost(&report.loss),
            required: names(&report.required),
            unsure: names(&report.unsure),
            said,
            stopped: stopped.into_iter().collect(),
        }
    }
}

/// What was lost, by the names that a report has.
fn lost(loss: &Loss) -> Option<String> {
    let counts = [
        ("checks", loss.checks),
        ("evidence", loss.evidence),
        ("execs", loss.execs),
        ("skipped", loss.skipped),
        ("outcomes", loss.outcomes),
        ("file_caps", loss.file_caps),
        ("unasked", loss.unasked),
    ];
    let counts = counts.iter().filter(|(_, n)| *n > 0);
    let mut all: Vec<String> = counts.map(|(name, n)| format!("{name} {n}")).collect();
    all.extend(loss.unproven.clone());
    (!all.is_empty()).then(|| all.join(", "))
}

/// Builds, by run and Dockerfile.
pub type Rows = BTreeMap<(String, String), Row>;

/// Reads the file.
///
/// # Errors
/// Where it cannot be read or understood; one that is not there is empty.
pub fn read(path: &Path) -> Result<Rows> {
    if !path.exists() {
        return Ok(Rows::new());
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let row = |(at, line): (usize, &str)| {
        let row: Row = serde_json::from_str(line)
            .with_context(|| format!("{}, line {}", path.display(), at + 1))?;
        Ok(((row.run.clone(), row.name.clone()), row))
    };
    text.lines().enumerate().map(row).collect()
}

/// The file's text.
///
/// # Errors
/// Never: rows are plain data.
pub fn text(rows: &Rows) -> Result<String> {
    let mut text = String::new();
    for row in rows.values() {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    Ok(text)
}
