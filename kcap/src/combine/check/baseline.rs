//! Reports against earlier ones: what came, what went, and which instruction brought it.
//!
//! A Dockerfile is held against its own needs of before, by its path. One that the baseline does
//! not have is held against what any of the baseline needed: that much is allowed already.

use std::collections::{BTreeMap, BTreeSet};

use super::{Against, At, Check, Gate, Kind, ONLY, Over, place};
use crate::combine::{Build, Status, choose};
use crate::report::{Cap, Verdict};

/// Holds builds against those of the baseline called `name`. Where both are one Dockerfile each,
/// it is taken for the same, whatever its path.
pub fn against_baseline(name: &str, old: &[Build], builds: &[Build], unsure_counts: bool) -> Check {
    let before = by_path(old);
    let sole = match (&before.len(), by_path(builds).len()) {
        (1, 1) => before.values().next(),
        _ => None,
    };
    let everybody: BTreeSet<Cap> = before.values().flat_map(|b| &b.allowed).copied().collect();
    let own = |build: &Build| sole.or_else(|| before.get(path(build)));
    let allowed: Vec<&BTreeSet<Cap>> = (builds.iter())
        .map(|build| own(build).map_or(&everybody, |before| &before.allowed))
        .collect();
    let gate = Gate {
        unsure_counts,
        allowed,
    };
    let against = Against {
        name: name.to_owned(),
        kind: Kind::Baseline,
        source: None,
        allowed: None,
    };
    let mut check = gate.check(builds, against);

    let after = by_path(builds);
    for (path, now) in &after {
        match sole.or_else(|| before.get(path)) {
            None => {
                let names = now.builds.iter().map(|build| build.dockerfile.clone());
                check.added.extend(names);
            }
            // What a build did not get to may still be needed.
            Some(then) if now.builds.iter().all(|b| b.status == Status::Built) => {
                let name = &now.builds[0].dockerfile;
                let gone = then.allowed.difference(&now.allowed);
                check.went.extend(gone.map(|cap| then.over(name, *cap)));
            }
            Some(_) => {}
        }
    }
    if sole.is_none() {
        let gone = before.keys().filter(|path| !after.contains_key(*path));
        check.gone.extend(gone.map(|path| (*path).to_owned()));
    }
    if !check.added.is_empty() {
        check.notes.push(format!(
            "{} not in the baseline: held against what any Dockerfile of it needed",
            check.added.len()
        ));
    }
    if old.iter().any(|build| !build.is_complete()) {
        check.notes.push(
            "the baseline has builds that failed or lost something: what they needed beyond looks \
             new here"
                .to_owned(),
        );
    }
    check.notes.push(ONLY.to_owned());
    check
}

/// A Dockerfile of the baseline.
struct Before<'a> {
    builds: Vec<&'a Build>,
    allowed: BTreeSet<Cap>,
}

impl Before<'_> {
    /// A capability that it needed, with its places of then.
    fn over(&self, dockerfile: &str, capability: Cap) -> Over {
        let mut any_of = BTreeSet::from([capability]);
        let mut verdict = Verdict::Unsure;
        let mut at: BTreeSet<At> = BTreeSet::new();
        for build in &self.builds {
            for (run, need) in super::super::needs(build) {
                if need.any_of.contains(&capability) {
                    any_of.extend(&need.any_of);
                    verdict = verdict.max(need.verdict);
                    at.extend(need.at.iter().map(|site| place(run, site)));
                }
            }
        }
        Over {
            dockerfile: dockerfile.to_owned(),
            capability,
            any_of: any_of.into_iter().collect(),
            verdict,
            at: at.into_iter().take(super::PLACES).collect(),
        }
    }
}

/// The path of a build's Dockerfile, whatever its bytes.
fn path(build: &Build) -> &str {
    let known = build.runs.iter().find_map(|run| run.dockerfile.as_deref());
    known.unwrap_or(&build.dockerfile)
}

fn by_path(builds: &[Build]) -> BTreeMap<&str, Before<'_>> {
    let mut by: BTreeMap<&str, Vec<&Build>> = BTreeMap::new();
    for build in builds {
        by.entry(path(build)).or_default().push(build);
    }
    (by.into_iter())
        .map(|(path, builds)| {
            let allowed = choose(builds.iter().flat_map(|build| &build.runs));
            (path, Before { builds, allowed })
        })
        .collect()
}
