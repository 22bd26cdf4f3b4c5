//! What a team would gain: which few Dockerfiles alone force which capabilities.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Build, answer, candidates};
use crate::interpret::{power, smallest};
use crate::report::Cap;

/// Without some Dockerfiles, the set that is enough for the others would be smaller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Saving {
    /// Those Dockerfiles, in the order of the builds.
    pub dockerfiles: Vec<String>,
    /// Capabilities that the union would no longer hold, by number.
    pub drops: Vec<Cap>,
    /// How many Dockerfiles would be left.
    pub left: usize,
}

/// One for each capability of the union, and for those that the same Dockerfiles force one
/// together: the fewest Dockerfiles first, among equals the most powerful capabilities.
pub(super) fn savings(builds: &[Build], union: &BTreeSet<Cap>) -> Vec<Saving> {
    // Who forces a capability, and what each kind of decision is met by.
    let mut forced: BTreeMap<Cap, BTreeSet<usize>> = BTreeMap::new();
    let mut met: BTreeMap<BTreeSet<Cap>, BTreeSet<usize>> = BTreeMap::new();
    for (at, build) in builds.iter().enumerate() {
        for (run, need) in super::needs(build) {
            forced
                .entry(answer(run, need, union))
                .or_default()
                .insert(at);
            met.entry(candidates(run, need)).or_default().insert(at);
        }
    }
    let groups: BTreeSet<&BTreeSet<usize>> = forced.values().collect();
    let with_runs = builds.iter().filter(|build| !build.runs.is_empty()).count();
    let mut savings: Vec<Saving> = (groups.into_iter())
        // Without all of them nothing is needed: no news.
        .filter(|group| group.len() < with_runs)
        .map(|group| {
            let rest = smallest(
                (met.iter())
                    .filter(|(_, by)| !by.is_subset(group))
                    .map(|(kind, _)| kind),
            );
            Saving {
                dockerfiles: group
                    .iter()
                    .map(|at| builds[*at].dockerfile.clone())
                    .collect(),
                drops: union.difference(&rest).copied().collect(),
                left: with_runs - group.len(),
            }
        })
        .filter(|saving| !saving.drops.is_empty())
        .collect();
    savings.sort_by_cached_key(|saving| {
        let strongest = saving.drops.iter().map(|cap| power(*cap)).max();
        (
            saving.dockerfiles.len(),
            std::cmp::Reverse(strongest),
            saving.drops.clone(),
            saving.dockerfiles.clone(),
        )
    });
    savings
}
