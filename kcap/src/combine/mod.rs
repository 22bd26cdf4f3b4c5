//! Reports of several builds to one answer: the set that is enough for all of them, and who needs
//! what. Pure functions over owned data.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::interpret::{power, smallest};
use crate::report::{Cap, Report, Tool, Verdict};

/// The schema that this version writes.
pub const SCHEMA: &str = "kcap.matrix/v1";

/// Several builds and what they need. Fields may be added; within v1 none is renamed or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// [`SCHEMA`].
    pub schema: String,
    /// What made it.
    pub tool: Tool,
    /// The set that is enough for all builds.
    pub union: Union,
    /// Every capability that a build asked for or that is in the union, by number.
    pub capabilities: Vec<Column>,
    /// The builds, in the order given.
    pub builds: Vec<Build>,
}

/// What one set has to hold to be enough for every build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Union {
    /// Every build succeeded, has a report, and nothing was lost. Where false, `required` is a
    /// lower bound.
    pub complete: bool,
    /// What to add after dropping all: needed and unsure, by capability number. Chosen again over
    /// the decisions of all builds: the fewest that answer each of them.
    pub required: Vec<Cap>,
    /// The part of `required` that one run cannot settle.
    pub unsure: Vec<Cap>,
    /// What the builds depended on.
    pub decisions: Vec<Answer>,
}

/// One point where any of several capabilities would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The capabilities, by number.
    pub any_of: Vec<Cap>,
    /// The one in `required`.
    pub chosen: Cap,
    /// `needed` or `unsure`.
    pub verdict: Verdict,
    /// Dockerfiles of the builds that met it, in their order.
    pub dockerfiles: Vec<String>,
}

/// One capability, and what it is to the builds once the union is allowed. Dockerfiles are in the
/// order of the builds, each in one list at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Column {
    /// Its name.
    pub name: Cap,
    /// Its number.
    pub number: u8,
    /// The weightiest of its answers.
    pub verdict: Verdict,
    /// Dockerfiles whose builds depend on it.
    pub needed: Vec<String>,
    /// Those where one run cannot settle it.
    pub unsure: Vec<String>,
    /// Those that asked for it without need.
    pub unneeded: Vec<String>,
}

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// The Dockerfile's path as given.
    pub dockerfile: String,
    /// What became of it.
    pub status: Status,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was seen; `null` where nothing was.
    pub report: Option<Report>,
}

/// What became of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It succeeded.
    Built,
    /// It was started, and did not succeed.
    Failed,
    /// A signal to kcap ended it.
    Interrupted,
    /// A signal to kcap came before its turn.
    NotStarted,
    /// It could not be started.
    Error,
}

impl Build {
    /// A build that was traced.
    pub fn traced(dockerfile: String, report: Report) -> Self {
        let status = match (report.interrupted, report.subject.exit_status) {
            (true, _) => Status::Interrupted,
            (false, Some(0)) => Status::Built,
            (false, _) => Status::Failed,
        };
        Self {
            dockerfile,
            status,
            error: None,
            report: Some(report),
        }
    }

    /// A build of which nothing was seen.
    pub fn unseen(dockerfile: String, status: Status, error: String) -> Self {
        Self {
            dockerfile,
            status,
            error: Some(error),
            report: None,
        }
    }

    /// It succeeded, and nothing was lost.
    pub fn is_complete(&self) -> bool {
        self.status == Status::Built && self.report.as_ref().is_some_and(|report| report.complete)
    }
}

impl Matrix {
    /// Combines builds, whose Dockerfiles' paths are to differ. The order decides the order of rows
    /// and names, and nothing else.
    pub fn of(builds: Vec<Build>) -> Self {
        let union = choose(builds.iter().filter_map(|build| build.report.as_ref()));
        let mut decisions: BTreeMap<(BTreeSet<Cap>, Cap), Answer> = BTreeMap::new();
        let mut columns: BTreeMap<Cap, Column> = BTreeMap::new();
        for build in &builds {
            let Some(report) = &build.report else {
                continue;
            };
            for depends in depends(report) {
                let chosen = depends.answer(&union);
                let answer = Answer {
                    any_of: depends.any_of.iter().copied().collect(),
                    chosen,
                    verdict: depends.verdict,
                    dockerfiles: vec![],
                };
                let decision = decisions.entry((depends.any_of, chosen)).or_insert(answer);
                decision.verdict = decision.verdict.max(depends.verdict);
                decision.dockerfiles.push(build.dockerfile.clone());
            }
            for (cap, verdict) in cells(report, &union) {
                let column = columns.entry(cap).or_insert(Column {
                    name: cap,
                    number: cap.0,
                    verdict,
                    needed: vec![],
                    unsure: vec![],
                    unneeded: vec![],
                });
                column.verdict = column.verdict.max(verdict);
                column.list(verdict).push(build.dockerfile.clone());
            }
        }
        let unsure = (columns.values())
            .filter(|column| column.verdict == Verdict::Unsure)
            .map(|column| column.name);
        Self {
            schema: SCHEMA.to_owned(),
            tool: Tool {
                name: "kcap".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            union: Union {
                complete: builds.iter().all(Build::is_complete),
                required: union.iter().copied().collect(),
                unsure: unsure.collect(),
                decisions: decisions.into_values().collect(),
            },
            capabilities: columns.into_values().collect(),
            builds,
        }
    }

    /// What a capability is to a build once the union is allowed; `None` where it neither asked for
    /// it nor needs it.
    pub fn cell(&self, build: &Build, cap: Cap) -> Option<Verdict> {
        let column = self.capabilities.iter().find(|column| column.name == cap)?;
        let has = |list: &[String]| list.contains(&build.dockerfile);
        if has(&column.needed) {
            Some(Verdict::Needed)
        } else if has(&column.unsure) {
            Some(Verdict::Unsure)
        } else if has(&column.unneeded) {
            Some(Verdict::Unneeded)
        } else {
            None
        }
    }
}

impl Column {
    fn list(&mut self, verdict: Verdict) -> &mut Vec<String> {
        match verdict {
            Verdict::Needed => &mut self.needed,
            Verdict::Unsure => &mut self.unsure,
            Verdict::Unneeded => &mut self.unneeded,
        }
    }
}

/// What a build depended on at one kind of decision.
struct Depends {
    /// The capabilities any of which would do.
    any_of: BTreeSet<Cap>,
    /// Those of them to choose from: what the build held, where that answers at all.
    candidates: BTreeSet<Cap>,
    verdict: Verdict,
}

impl Depends {
    /// The capability of a set that answers every decision, which answers this one.
    fn answer(&self, set: &BTreeSet<Cap>) -> Cap {
        (self.candidates.intersection(set))
            .min_by_key(|cap| power(**cap))
            .copied()
            .expect("the set answers every decision, and none is empty")
    }
}

/// The fewest capabilities that answer every decision of every report.
fn choose<'a>(reports: impl Iterator<Item = &'a Report>) -> BTreeSet<Cap> {
    let candidates: BTreeSet<BTreeSet<Cap>> = reports
        .flat_map(depends)
        .map(|depends| depends.candidates)
        .collect();
    smallest(&candidates)
}

/// What each capability is to a build once the union is allowed.
fn cells(report: &Report, union: &BTreeSet<Cap>) -> BTreeMap<Cap, Verdict> {
    let asked = report.capabilities.iter().map(|c| c.name);
    let mut cells: BTreeMap<Cap, Verdict> = asked.map(|cap| (cap, Verdict::Unneeded)).collect();
    for depends in depends(report) {
        let cell = cells
            .entry(depends.answer(union))
            .or_insert(depends.verdict);
        *cell = depends.verdict.max(*cell);
    }
    cells
}

/// What a build depended on, each decision once. A requirement that no decision explains, as a
/// report from elsewhere may have it, is a decision of its own.
fn depends(report: &Report) -> Vec<Depends> {
    let mut decisions: BTreeMap<BTreeSet<Cap>, Verdict> = BTreeMap::new();
    let mut add = |any_of: BTreeSet<Cap>, verdict: Verdict| {
        let known = decisions.entry(any_of).or_insert(verdict);
        *known = verdict.max(*known);
    };
    let mut explained = BTreeSet::new();
    for decision in &report.decisions {
        let mut any_of: BTreeSet<Cap> = decision.any_of.iter().copied().collect();
        any_of.insert(decision.chosen);
        explained.extend(any_of.iter().copied());
        add(any_of, decision.verdict);
    }
    for cap in report.required.iter().filter(|c| !explained.contains(c)) {
        let verdict = if report.unsure.contains(cap) {
            Verdict::Unsure
        } else {
            Verdict::Needed
        };
        add(BTreeSet::from([*cap]), verdict);
    }
    let held: BTreeSet<Cap> = report.subject.capabilities.iter().copied().collect();
    decisions
        .into_iter()
        .map(|(any_of, verdict)| {
            let candidates: BTreeSet<Cap> = any_of.intersection(&held).copied().collect();
            Depends {
                candidates: if candidates.is_empty() {
                    any_of.clone()
                } else {
                    candidates
                },
                any_of,
                verdict,
            }
        })
        .collect()
}
