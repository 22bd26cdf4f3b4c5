//! Reports against what is allowed: which needs are over, where they come from, and what is
//! allowed without need. It speaks of capabilities alone. Pure functions over owned data.

mod baseline;
mod grant;
mod named;
mod pod;
mod policy;
mod run_line;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use baseline::against_baseline;
pub use named::{NAMED, Named};
pub use policy::{Kind, Policy, PolicyError};

use super::{Brief, Build, Need, Place, Site, Status, candidates};
use crate::interpret::{power, smallest};
use crate::report::{Because, Cap, Tool, Verdict};

/// The schema that this version writes.
pub const SCHEMA: &str = "kcap.check/v1";
/// What every check says of itself.
const ONLY: &str = "only capabilities were checked: users, mounts, namespaces and seccomp are other \
                    questions";
/// Most places of a need that is over.
const PLACES: usize = 16;

/// What a check found. Fields may be added; within v1 none is renamed or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Name and major version of this format: `kcap.check/v1`.
    pub schema: String,
    /// What made it.
    pub tool: Tool,
    /// What the reports were held against.
    pub against: Against,
    /// No report needs more.
    pub pass: bool,
    /// Every report shows all of a build that succeeded: where false, a pass is not proven.
    pub complete: bool,
    /// Unsure needs count as required.
    pub unsure_counts: bool,
    /// A build that was not seen to the end keeps a pass open.
    pub incomplete_counts: bool,
    /// Needs that are over, by Dockerfile, then capability.
    pub over: Vec<Over>,
    /// What is allowed, and no report needs, by number. For a baseline: empty.
    pub spare: Vec<Cap>,
    /// Against a baseline: what it needed, and its Dockerfiles no longer do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went: Vec<Over>,
    /// Against a baseline: Dockerfiles that it does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Against a baseline: Dockerfiles of it that are not among the reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// The Dockerfiles, in the order of the builds.
    pub builds: Vec<Checked>,
    /// What a reader must know beside.
    pub notes: Vec<String>,
}

impl Check {
    /// Nothing is over, and nothing that counts was left unseen.
    pub fn is_proven(&self) -> bool {
        self.pass && (self.complete || !self.incomplete_counts)
    }
}

/// What reports are held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Against {
    /// A policy's name, a file's, or `--allow`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where a named policy is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What it allows, by number; null for a baseline, which allows each Dockerfile its own.
    pub allowed: Option<Vec<Cap>>,
}

/// One capability that a Dockerfile needs and is not allowed; or, of a baseline, no longer needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Over {
    /// Its Dockerfile, as in `builds`.
    pub dockerfile: String,
    /// The capability; where any of several would do, the least powerful that is enough.
    pub capability: Cap,
    /// All that would do.
    pub any_of: Vec<Cap>,
    /// `needed` or `unsure`.
    pub verdict: Verdict,
    /// Where it is needed, by line; bounded.
    pub at: Vec<At>,
}

/// A place that needs something.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct At {
    /// Line in the Dockerfile; null where it belongs to none.
    pub line: Option<u32>,
    /// Build stage.
    pub stage: Option<u32>,
    /// Lower-case instruction, executor phase, `job` or `other`.
    pub kind: String,
    /// The instruction's text, bounded.
    pub text: String,
    /// Path of the program, where known.
    pub program: Option<String>,
    /// The mechanism, where known.
    pub because: Option<Because>,
}

/// One Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// What it is called in the matrix: its path as given, where that tells it apart.
    pub dockerfile: String,
    /// Its path as given; null where it is not known.
    pub path: Option<String>,
    /// What became of its build.
    pub status: Status,
    /// How many runs of it there are.
    pub runs: usize,
    /// What it needs, within what is allowed where that answers; by number.
    pub required: Vec<Cap>,
    /// The part of it that is not allowed.
    pub over: Vec<Cap>,
    /// Why a pass of it is not proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// The JSON Schema of a check, with one trailing newline.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Check);
    schema.insert("$id".to_owned(), SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}

/// Holds builds against a policy. Their names are to differ, as those of [`super::merge`] do.
pub fn against_policy(policy: &Policy, builds: &[Build], unsure_counts: bool) -> Check {
    let gate = Gate {
        unsure_counts,
        allowed: builds.iter().map(|_| &policy.allowed).collect(),
    };
    let mut check = gate.check(
        builds,
        Against {
            name: policy.name.clone(),
            kind: policy.kind,
            source: policy.source.clone(),
            allowed: Some(policy.allowed.iter().copied().collect()),
        },
    );
    let used: BTreeSet<&Cap> = check.builds.iter().flat_map(|b| &b.required).collect();
    check.spare = (policy.allowed.iter())
        .filter(|cap| !used.contains(cap))
        .copied()
        .collect();
    let hidden: BTreeSet<Cap> = (builds.iter().flat_map(|build| &build.runs))
        .flat_map(|run| &run.suppressed)
        .filter(|cap| !policy.allowed.contains(cap))
        .copied()
        .collect();
    for cap in hidden {
        check.notes.push(format!(
            "{cap} is not allowed, and would be needed on hosts whose settings do not allow without \
             asking what the traced one's do"
        ));
    }
    check.notes.extend(policy.notes.iter().cloned());
    check.notes.push(ONLY.to_owned());
    check
}

/// What each build is allowed.
struct Gate<'a> {
    unsure_counts: bool,
    /// For each build.
    allowed: Vec<&'a BTreeSet<Cap>>,
}

impl Gate<'_> {
    fn check(&self, builds: &[Build], against: Against) -> Check {
        // Chosen over all builds, so that the same decision has the same answer everywhere.
        let more = self.smallest_more(builds);
        let within = self.smallest_within(builds);
        let mut over = Vec::new();
        let mut checked = Vec::new();
        for (build, allowed) in builds.iter().zip(&self.allowed) {
            let found = self.over(build, allowed, &more);
            let mut required: BTreeSet<Cap> = found.iter().map(|over| over.capability).collect();
            for (_, need) in super::needs(build) {
                if let Some(cap) = within_answer(need, &within, allowed) {
                    required.insert(cap);
                }
            }
            checked.push(Checked {
                dockerfile: build.dockerfile.clone(),
                path: build.runs.iter().find_map(|run| run.dockerfile.clone()),
                status: build.status,
                runs: build.runs.len(),
                required: required.into_iter().collect(),
                over: found.iter().map(|over| over.capability).collect(),
                incomplete: incomplete(build),
            });
            over.extend(found);
        }
        Check {
            schema: SCHEMA.to_owned(),
            tool: Tool {
                name: "kcap".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            against,
            pass: over.is_empty(),
            complete: checked.iter().all(|build| build.incomplete.is_none()),
            unsure_counts: self.unsure_counts,
            incomplete_counts: true,
            over,
            spare: vec![],
            went: vec![],
            added: vec![],
            gone: vec![],
            builds: checked,
            notes: unseen(builds).into_iter().collect(),
        }
    }

    /// A need counts that nothing allowed answers.
    fn is_over(&self, need: &Need, allowed: &BTreeSet<Cap>) -> bool {
        need.any_of.is_disjoint(allowed) && (self.unsure_counts || need.verdict == Verdict::Needed)
    }

    /// The fewest capabilities that would have to be allowed beside.
    fn smallest_more(&self, builds: &[Build]) -> BTreeSet<Cap> {
        let mut kinds: BTreeSet<BTreeSet<Cap>> = BTreeSet::new();
        for (build, allowed) in builds.iter().zip(&self.allowed) {
            for (run, need) in super::needs(build) {
                if self.is_over(need, allowed) {
                    kinds.insert(candidates(run, need));
                }
            }
        }
        smallest(&kinds)
    }

    /// The fewest of what is allowed that answer all that it answers.
    fn smallest_within(&self, builds: &[Build]) -> BTreeSet<Cap> {
        let mut kinds: BTreeSet<BTreeSet<Cap>> = BTreeSet::new();
        for (build, allowed) in builds.iter().zip(&self.allowed) {
            for (_, need) in super::needs(build) {
                let answers: BTreeSet<Cap> = need.any_of.intersection(allowed).copied().collect();
                kinds.insert(answers);
            }
        }
        smallest(&kinds)
    }

    /// What is over of one build, each capability once.
    fn over(&self, build: &Build, allowed: &BTreeSet<Cap>, more: &BTreeSet<Cap>) -> Vec<Over> {
        let mut found: BTreeMap<Cap, (Over, BTreeSet<At>)> = BTreeMap::new();
        for (run, need) in super::needs(build) {
            if !self.is_over(need, allowed) {
                continue;
            }
            let capability = super::answer(run, need, more);
            let (over, at) = found.entry(capability).or_insert_with(|| {
                let over = Over {
                    dockerfile: build.dockerfile.clone(),
                    capability,
                    any_of: need.any_of.iter().copied().collect(),
                    verdict: need.verdict,
                    at: vec![],
                };
                (over, BTreeSet::new())
            });
            over.verdict = over.verdict.max(need.verdict);
            // Where decisions differ in what would do, only what answers each of them does.
            over.any_of.retain(|cap| need.any_of.contains(cap));
            at.extend(need.at.iter().map(|site| place(run, site)));
        }
        (found.into_values())
            .map(|(over, at)| Over {
                at: at.into_iter().take(PLACES).collect(),
                ..over
            })
            .collect()
    }
}

/// The capability of `set` that answers a need within what is allowed.
fn within_answer(need: &Need, set: &BTreeSet<Cap>, allowed: &BTreeSet<Cap>) -> Option<Cap> {
    (need.any_of.intersection(allowed))
        .filter(|cap| set.contains(cap))
        .min_by_key(|cap| power(**cap))
        .copied()
}

/// A site with what is known of its step.
fn place(run: &Brief, site: &Site) -> At {
    let step = run.place(site.step);
    let text = |of: fn(&Place) -> &String| step.map_or_else(String::new, |step| of(step).clone());
    At {
        line: step.and_then(|step| step.line),
        stage: step.and_then(|step| step.stage),
        kind: text(|step| &step.kind),
        text: text(|step| &step.text),
        program: site.program.clone(),
        because: site.because,
    }
}

/// Why a pass of a build is not proven.
fn incomplete(build: &Build) -> Option<String> {
    let why = match build.status {
        Status::Built if build.is_lossless() => {
            let late = build.runs.iter().all(|run| run.late || !run.built());
            return late.then(|| "the trace began when the build was running".to_owned());
        }
        Status::Built => "something was lost while it was traced",
        Status::Failed => "it did not build: what it needs beyond was not seen",
        Status::Interrupted => "it was interrupted: what it needs beyond was not seen",
        Status::NotStarted => "it was not started",
        Status::Error => "it could not be started",
    };
    Some(why.to_owned())
}

/// A note on instructions that no run shows.
fn unseen(builds: &[Build]) -> Option<String> {
    let cached = builds
        .iter()
        .filter(|build| build.status == Status::Built && !build.is_covered())
        .count();
    (cached > 0).then(|| {
        format!(
            "{cached} of {} with instructions answered from a cache in every run: what those need \
             was not seen; build with --cache=false",
            builds.len()
        )
    })
}
