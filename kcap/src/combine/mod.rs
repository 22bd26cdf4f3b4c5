//! Reports of several builds to one answer: the set that is enough for all of them, and who needs
//! what. Pure functions over owned data.

mod brief;
pub mod check;
mod merge;
mod profiles;
mod savings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use brief::{Brief, Need, Place, Site, Unseen};
pub(crate) use brief::{are_few, bounded};
pub use merge::merge;
pub use profiles::{EXACT, Profile};
pub use savings::Saving;

use crate::interpret::{power, smallest};
use crate::report::{Cap, ParseError, Report, Tool, Verdict};

/// The schema that this version writes.
pub const SCHEMA: &str = "kcap.matrix/v1";

/// Several builds and what they need. Fields may be added; within v1 none is renamed or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// Name and major version of this format: `kcap.matrix/v1`.
    pub schema: String,
    /// What made it.
    pub tool: Tool,
    /// The set that is enough for all builds.
    pub union: Union,
    /// Every capability that a build asked for or that is in the union, by number.
    pub capabilities: Vec<Column>,
    /// What a few Dockerfiles less would save, the greatest gain first.
    #[serde(default)]
    pub savings: Vec<Saving>,
    /// Sets for groups of Dockerfiles, the smallest set first; only where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// The builds, in the order given.
    pub builds: Vec<Build>,
}

/// A build that a capability is for.
#[derive(Clone, Debug)]
pub struct Forced<'a> {
    /// The build.
    pub build: &'a Build,
    /// `needed` or `unsure`.
    pub verdict: Verdict,
    /// Lines of its Dockerfile where it is needed.
    pub lines: BTreeSet<u32>,
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

/// One Dockerfile and its builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// The Dockerfile's path as given; where several differ under the same path, with the start of
    /// its SHA-256 after `@`; where it is not known, the report's.
    pub dockerfile: String,
    /// What became of it: that it was built, where any run of it was.
    pub status: Status,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its runs, each once, by time; empty where nothing was seen.
    #[serde(default)]
    pub runs: Vec<Brief>,
    /// In how many of its runs each capability was required, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Seen>,
    /// The report of its last run; `null` where nothing was seen, or the report is in a file of its
    /// own.
    pub report: Option<Report>,
}

/// How often a capability was required by the runs of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// The capability.
    pub name: Cap,
    /// Runs that required it.
    pub runs: usize,
    /// All runs.
    pub of: usize,
    /// Day of the last that did, as `2026-11-28`.
    pub last: String,
}

/// What became of a build.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
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

impl Status {
    /// Of a build that was traced.
    pub fn of(interrupted: bool, exit_status: Option<i32>) -> Self {
        match (interrupted, exit_status) {
            (true, _) => Self::Interrupted,
            (false, Some(0)) => Self::Built,
            (false, _) => Self::Failed,
        }
    }
}

impl Build {
    /// A build that was traced, with all of its report.
    pub fn traced(dockerfile: String, report: Report) -> Self {
        Self {
            report: Some(report),
            ..Self::reduced(dockerfile, Vec::new())
        }
        .with_runs_of_report()
    }

    /// A Dockerfile by its runs.
    pub fn reduced(dockerfile: String, runs: Vec<Brief>) -> Self {
        Self {
            dockerfile,
            status: status(&runs),
            error: None,
            runs,
            seen: Vec::new(),
            report: None,
        }
    }

    /// A build of which nothing was seen.
    pub fn unseen(dockerfile: String, status: Status, error: String) -> Self {
        Self {
            status,
            error: Some(error),
            ..Self::reduced(dockerfile, Vec::new())
        }
    }

    /// With the run that its report tells of, which matrices of the first version lack.
    pub(crate) fn with_runs_of_report(mut self) -> Self {
        if let (true, Some(report)) = (self.runs.is_empty(), &self.report) {
            self.runs.push(Brief::of(report));
            self.status = status(&self.runs);
        }
        self
    }

    /// It succeeded, and in no run of it anything was lost.
    pub fn is_complete(&self) -> bool {
        self.status == Status::Built && self.is_lossless()
    }

    /// In no run of it anything was lost.
    pub fn is_lossless(&self) -> bool {
        self.runs.iter().all(|run| run.complete)
    }

    /// It has runs, and there is a run in which every instruction was seen that the image needed.
    pub fn is_covered(&self) -> bool {
        (self.runs.iter()).any(|run| run.built() && run.coverage.cached == 0 && !run.late)
    }

    /// How often each capability was required.
    fn counted(&self, union: &BTreeSet<Cap>) -> Vec<Seen> {
        if self.runs.len() < 2 {
            return Vec::new();
        }
        let mut seen: BTreeMap<Cap, Seen> = BTreeMap::new();
        for run in &self.runs {
            let answers: BTreeSet<Cap> = (run.needs.iter())
                .map(|need| answer(run, need, union))
                .collect();
            for name in answers {
                let counted = seen.entry(name).or_insert(Seen {
                    name,
                    runs: 0,
                    of: self.runs.len(),
                    last: String::new(),
                });
                counted.runs += 1;
                if counted.last.as_str() < run.day() {
                    counted.last = run.day().to_owned();
                }
            }
        }
        seen.into_values().collect()
    }
}

/// Built, where any run was; else what became of the last.
fn status(runs: &[Brief]) -> Status {
    if runs.iter().any(Brief::built) {
        return Status::Built;
    }
    runs.last().map_or(Status::Error, |run| run.status)
}

impl Matrix {
    /// Combines builds, whose Dockerfiles' names are to differ. The order decides the order of rows
    /// and names, and nothing else.
    pub fn of(mut builds: Vec<Build>) -> Self {
        let union = choose(builds.iter().flat_map(|build| &build.runs));
        let mut decisions: BTreeMap<(&BTreeSet<Cap>, Cap), Answer> = BTreeMap::new();
        let mut columns: BTreeMap<Cap, Column> = BTreeMap::new();
        for build in &builds {
            for (run, need) in needs(build) {
                let chosen = answer(run, need, &union);
                let decision = decisions.entry((&need.any_of, chosen)).or_insert(Answer {
                    any_of: need.any_of.iter().copied().collect(),
                    chosen,
                    verdict: need.verdict,
                    dockerfiles: vec![],
                });
                decision.verdict = decision.verdict.max(need.verdict);
                if decision.dockerfiles.last() != Some(&build.dockerfile) {
                    decision.dockerfiles.push(build.dockerfile.clone());
                }
            }
            for (cap, verdict) in cells(build, &union) {
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
        let union_of = Union {
            complete: builds.iter().all(Build::is_complete),
            required: union.iter().copied().collect(),
            unsure: unsure.collect(),
            decisions: decisions.into_values().collect(),
        };
        for build in &mut builds {
            build.seen = build.counted(&union);
        }
        Self {
            schema: SCHEMA.to_owned(),
            tool: Tool {
                name: "kcap".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            savings: savings::savings(&builds, &union),
            union: union_of,
            capabilities: columns.into_values().collect(),
            profiles: vec![],
            builds,
        }
    }

    /// The matrix with the builds grouped into at most that many profiles.
    pub fn with_profiles(mut self, most: std::num::NonZeroUsize) -> Self {
        self.profiles = profiles::profiles(&self.builds, most.get());
        self
    }

    /// The builds that a capability of the union is for, with the lines of their Dockerfiles that
    /// force it; those that need it first.
    pub fn forced(&self, cap: Cap) -> Vec<Forced<'_>> {
        let union: BTreeSet<Cap> = self.union.required.iter().copied().collect();
        let mut forced = Vec::new();
        for build in &self.builds {
            let mut found: Option<Forced<'_>> = None;
            for (run, need) in needs(build) {
                if answer(run, need, &union) != cap {
                    continue;
                }
                let here = found.get_or_insert(Forced {
                    build,
                    verdict: need.verdict,
                    lines: BTreeSet::new(),
                });
                here.verdict = here.verdict.max(need.verdict);
                let lines = need.at.iter().filter_map(|site| run.place(site.step)?.line);
                here.lines.extend(lines);
            }
            forced.extend(found);
        }
        forced.sort_by_key(|forced| std::cmp::Reverse(forced.verdict));
        forced
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

/// What the runs of a build depended on.
fn needs(build: &Build) -> impl Iterator<Item = (&Brief, &Need)> {
    (build.runs.iter()).flat_map(|run| run.needs.iter().map(move |need| (run, need)))
}

/// The capabilities to choose from for a need: what the build held, where that answers at all.
fn candidates(run: &Brief, need: &Need) -> BTreeSet<Cap> {
    let held: BTreeSet<Cap> = (need.any_of.iter())
        .filter(|cap| run.held.contains(cap))
        .copied()
        .collect();
    if held.is_empty() {
        need.any_of.clone()
    } else {
        held
    }
}

/// The capability of a set that answers every need, which answers this one.
fn answer(run: &Brief, need: &Need, set: &BTreeSet<Cap>) -> Cap {
    (candidates(run, need).intersection(set))
        .min_by_key(|cap| power(**cap))
        .copied()
        .expect("the set answers every decision, and none is empty")
}

/// The fewest capabilities that answer every decision of every run.
fn choose<'a>(runs: impl Iterator<Item = &'a Brief>) -> BTreeSet<Cap> {
    let mut kinds: BTreeSet<BTreeSet<Cap>> = BTreeSet::new();
    for run in runs {
        kinds.extend(run.needs.iter().map(|need| candidates(run, need)));
    }
    smallest(&kinds)
}

/// What each capability is to a build once the union is allowed.
fn cells(build: &Build, union: &BTreeSet<Cap>) -> BTreeMap<Cap, Verdict> {
    let asked = build.runs.iter().flat_map(|run| &run.asked);
    let mut cells: BTreeMap<Cap, Verdict> = asked.map(|cap| (*cap, Verdict::Unneeded)).collect();
    for (run, need) in needs(build) {
        let cell = cells
            .entry(answer(run, need, union))
            .or_insert(need.verdict);
        *cell = need.verdict.max(*cell);
    }
    cells
}

/// The JSON Schema of a matrix, with one trailing newline.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Matrix);
    schema.insert("$id".to_owned(), SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}

/// Reads a matrix, the reports in it too where they are wanted; `None` where it is something else.
///
/// # Errors
/// Where it is malformed, or of a version that this kcap does not know.
pub fn from_json(text: &[u8], reports: bool) -> Result<Option<Matrix>, ParseError> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<String>,
    }
    let head: Head = serde_json::from_slice(text).map_err(ParseError::Malformed)?;
    match head.schema.as_deref() {
        Some(SCHEMA) => {}
        Some(other) if other.starts_with("kcap.matrix/") => {
            return Err(ParseError::Version(
                (other.chars().take(64))
                    .flat_map(char::escape_default)
                    .collect(),
            ));
        }
        _ => return Ok(None),
    }
    let mut matrix: Matrix = serde_json::from_slice(text).map_err(ParseError::Malformed)?;
    for build in &mut matrix.builds {
        let whole = std::mem::replace(build, Build::reduced(String::new(), vec![]));
        *build = whole.with_runs_of_report();
        if !reports {
            build.report = None;
        }
        // What nothing would answer is no decision: kcap writes none.
        for run in &mut build.runs {
            run.needs.retain(|need| !need.any_of.is_empty());
        }
    }
    are_few(matrix.builds.iter().flat_map(|build| &build.runs))?;
    Ok(Some(matrix))
}
