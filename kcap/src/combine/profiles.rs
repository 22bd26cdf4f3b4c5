//! Few sets for many Dockerfiles: most get by with little, and only those that need more get more.
//!
//! The cost of a grouping is what it grants: the size of each profile's set, once for each of its
//! Dockerfiles. Dockerfiles that depend on the same decisions are one kind. Up to [`EXACT`] kinds
//! the grouping of least cost is found by trying all; beyond that, kinds are put together two by
//! two, always the two that cost least together, and then each is moved to where it costs least
//! until no move helps. Of equal costs the fewest profiles are taken.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Build, candidates};
use crate::interpret::smallest;
use crate::report::Cap;

/// Most kinds of Dockerfiles for which the best grouping is found by trying all.
pub const EXACT: usize = 10;
/// Most kinds that are put together two by two; beyond, the rarest share the last profile.
const KINDS: usize = 400;
/// Most rounds of moves, which end by themselves long before.
const ROUNDS: usize = 50;

/// One set, and the Dockerfiles that it is enough for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    /// What to add after dropping all, by number.
    pub required: Vec<Cap>,
    /// Its Dockerfiles, in the order of the builds.
    pub dockerfiles: Vec<String>,
}

/// Decisions to be answered.
type Decisions = BTreeSet<BTreeSet<Cap>>;

/// Dockerfiles that depend on the same decisions.
#[derive(Clone)]
struct Kind {
    decisions: Decisions,
    members: Vec<usize>,
}

/// The builds that were seen in at most `most` profiles, the smallest set first.
pub(super) fn profiles(builds: &[Build], most: usize) -> Vec<Profile> {
    let mut kinds: BTreeMap<Decisions, Vec<usize>> = BTreeMap::new();
    for (at, build) in builds.iter().enumerate() {
        if build.runs.is_empty() {
            continue;
        }
        let decisions = super::needs(build).map(|(run, need)| candidates(run, need));
        kinds.entry(decisions.collect()).or_default().push(at);
    }
    let kinds: Vec<Kind> = (kinds.into_iter())
        .map(|(decisions, members)| Kind { decisions, members })
        .collect();
    let mut profiles: Vec<Profile> = (group(kinds, most).into_iter())
        .map(|mut kind| {
            kind.members.sort_unstable();
            Profile {
                required: smallest(&kind.decisions).into_iter().collect(),
                dockerfiles: (kind.members.iter())
                    .map(|at| builds[*at].dockerfile.clone())
                    .collect(),
            }
        })
        .collect();
    profiles.sort_by_cached_key(|profile| {
        (
            profile.required.len(),
            profile.required.clone(),
            profile.dockerfiles.clone(),
        )
    });
    profiles
}

fn group(kinds: Vec<Kind>, most: usize) -> Vec<Kind> {
    if kinds.len() <= EXACT {
        exact(&kinds, most)
    } else {
        two_by_two(kinds, most)
    }
}

fn together<'a>(kinds: impl IntoIterator<Item = &'a Kind>) -> Kind {
    let mut all = Kind {
        decisions: Decisions::new(),
        members: vec![],
    };
    for kind in kinds {
        all.decisions.extend(kind.decisions.iter().cloned());
        all.members.extend(&kind.members);
    }
    all
}

fn cost(kind: &Kind) -> usize {
    kind.members.len() * smallest(&kind.decisions).len()
}

/// The cheapest partition, by dynamic programming over subsets: of each subset, the part that holds
/// its first kind is tried in every way.
fn exact(kinds: &[Kind], most: usize) -> Vec<Kind> {
    let all = (1usize << kinds.len()) - 1;
    let of = |mask: usize| {
        let chosen = (kinds.iter().enumerate()).filter(move |(i, _)| mask >> i & 1 == 1);
        chosen.map(|(_, kind)| kind)
    };
    let part: Vec<usize> = (0..=all).map(|mask| cost(&together(of(mask)))).collect();
    // best[n][mask]: least cost of mask in at most n parts, and the part with its first kind.
    let mut best: Vec<Vec<(usize, usize)>> = vec![vec![(usize::MAX, 0); all + 1]];
    best[0][0] = (0, 0);
    for parts in 1..=most.min(kinds.len()) {
        let mut row = best[parts - 1].clone();
        for mask in 1..=all {
            let first = mask & mask.wrapping_neg();
            let mut sub = mask;
            while sub > 0 {
                let rest = best[parts - 1][mask ^ sub].0;
                if sub & first != 0 && rest < usize::MAX {
                    let cost = rest + part[sub];
                    // Only what is cheaper is worth one more profile.
                    if cost < row[mask].0 {
                        row[mask] = (cost, sub);
                    }
                }
                sub = (sub - 1) & mask;
            }
        }
        best.push(row);
    }
    let mut parts = best.len() - 1;
    let mut left = all;
    let mut groups = vec![];
    while left > 0 {
        // The fewest parts of that cost.
        while parts > 1 && best[parts - 1][left].0 == best[parts][left].0 {
            parts -= 1;
        }
        let sub = best[parts][left].1;
        groups.push(together(of(sub)));
        left ^= sub;
        parts -= 1;
    }
    groups
}

fn two_by_two(mut kinds: Vec<Kind>, most: usize) -> Vec<Kind> {
    kinds.sort_by(|a, b| {
        let weight = |kind: &Kind| std::cmp::Reverse(kind.members.len());
        (weight(a), &a.decisions).cmp(&(weight(b), &b.decisions))
    });
    if kinds.len() > KINDS {
        let rare = kinds.split_off(KINDS - 1);
        kinds.push(together(&rare));
    }
    let single = kinds.clone();
    let mut groups: Vec<Option<(Kind, Vec<usize>)>> = (kinds.into_iter().enumerate())
        .map(|(i, kind)| Some((kind, vec![i])))
        .collect();
    let added = |a: &Kind, b: &Kind| cost(&together([a, b])) as i64 - (cost(a) + cost(b)) as i64;
    let mut pairs: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for b in 0..single.len() {
        for a in 0..b {
            pairs.insert((a, b), added(&single[a], &single[b]));
        }
    }
    let mut count = groups.len();
    // Pairs that cost nothing are put together even where more profiles are allowed.
    while let Some((&(a, b), &cost)) = pairs.iter().min_by_key(|(pair, cost)| (**cost, **pair)) {
        if count <= most && cost > 0 {
            break;
        }
        let (Some((second, more)), Some((first, mut ids))) = (groups[b].take(), groups[a].take())
        else {
            break;
        };
        ids.extend(more);
        let merged = together([&first, &second]);
        count -= 1;
        pairs.retain(|(x, y), _| ![a, b].contains(x) && ![a, b].contains(y));
        for (i, other) in groups.iter().enumerate() {
            if let Some((other, _)) = other {
                pairs.insert((i.min(a), i.max(a)), added(other, &merged));
            }
        }
        groups[a] = Some((merged, ids));
    }
    let assigned = groups.into_iter().flatten().map(|(_, ids)| ids).collect();
    moved(&single, assigned)
}

/// Moves kinds between groups until none would cost less elsewhere.
fn moved(kinds: &[Kind], mut groups: Vec<Vec<usize>>) -> Vec<Kind> {
    let kind_of = |ids: &[usize]| together(ids.iter().map(|i| &kinds[*i]));
    let price = |ids: &[usize]| cost(&kind_of(ids));
    let mut prices: Vec<usize> = groups.iter().map(|ids| price(ids)).collect();
    for _ in 0..ROUNDS {
        let mut better = false;
        for kind in 0..kinds.len() {
            let Some(from) = groups.iter().position(|ids| ids.contains(&kind)) else {
                continue;
            };
            let left: Vec<usize> = groups[from]
                .iter()
                .copied()
                .filter(|i| *i != kind)
                .collect();
            let saved = prices[from] - price(&left).min(prices[from]);
            let cheapest = (0..groups.len())
                .filter(|to| *to != from)
                .map(|to| {
                    let with: Vec<usize> = groups[to].iter().copied().chain([kind]).collect();
                    (price(&with).saturating_sub(prices[to]), to)
                })
                .min();
            if let Some((added, to)) = cheapest
                && added < saved
            {
                groups[from] = left;
                groups[to].push(kind);
                prices[from] = price(&groups[from]);
                prices[to] = price(&groups[to]);
                better = true;
            }
        }
        if !better {
            break;
        }
    }
    let kept = groups.iter().filter(|ids| !ids.is_empty());
    kept.map(|ids| kind_of(ids)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn kinds(sets: &[(Vec<BTreeSet<u8>>, usize)]) -> Vec<Kind> {
        let mut next = 0;
        let mut by: BTreeMap<Decisions, Vec<usize>> = BTreeMap::new();
        for (decisions, weight) in sets {
            let decisions = decisions
                .iter()
                .map(|d| d.iter().copied().map(Cap).collect());
            let members = by.entry(decisions.collect()).or_default();
            members.extend(next..next + weight);
            next += weight;
        }
        (by.into_iter())
            .map(|(decisions, members)| Kind { decisions, members })
            .collect()
    }

    fn total(groups: &[Kind]) -> usize {
        groups.iter().map(cost).sum()
    }

    /// Least cost and number of groups, by trying all assignments.
    fn brute(kinds: &[Kind], most: usize) -> (usize, usize) {
        fn go(
            kinds: &[Kind],
            at: usize,
            groups: &mut Vec<Vec<usize>>,
            most: usize,
        ) -> (usize, usize) {
            if at == kinds.len() {
                let grouped = groups
                    .iter()
                    .map(|ids| together(ids.iter().map(|i| &kinds[*i])));
                return (grouped.map(|kind| cost(&kind)).sum(), groups.len());
            }
            let mut best = (usize::MAX, 0);
            for i in 0..groups.len() {
                groups[i].push(at);
                best = best.min(go(kinds, at + 1, groups, most));
                groups[i].pop();
            }
            if groups.len() < most {
                groups.push(vec![at]);
                best = best.min(go(kinds, at + 1, groups, most));
                groups.pop();
            }
            best
        }
        go(kinds, 0, &mut vec![], most)
    }

    #[test]
    fn most_get_by_with_nothing() {
        let set = |caps: &[u8]| -> Vec<BTreeSet<u8>> {
            caps.iter().map(|cap| BTreeSet::from([*cap])).collect()
        };
        let given = kinds(&[
            (set(&[]), 67),
            (set(&[0]), 20),
            (set(&[0, 1, 3]), 9),
            (set(&[0, 31]), 4),
        ]);
        let mut groups = exact(&given, 3);
        groups.sort_by_key(|kind| smallest(&kind.decisions).len());
        let shape: Vec<(usize, usize)> = (groups.iter())
            .map(|kind| (smallest(&kind.decisions).len(), kind.members.len()))
            .collect();
        assert_eq!(shape, [(0, 67), (1, 20), (4, 13)]);
        // No more profiles than pay.
        assert_eq!(exact(&given, 9).len(), 4);
        assert_eq!(exact(&[], 3).len(), 0);
    }

    fn sets() -> impl Strategy<Value = Vec<(Vec<BTreeSet<u8>>, usize)>> {
        vec((vec(btree_set(0u8..6, 1..3), 0..4), 1usize..5), 0..7)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn small_is_exact_and_the_rest_is_sound(sets in sets(), most in 1usize..5) {
            let kinds = kinds(&sets);
            let (least, fewest) = brute(&kinds, most);
            let found = exact(&kinds, most);
            prop_assert_eq!((total(&found), found.len()), (least, fewest));
            for groups in [found, two_by_two(kinds.clone(), most)] {
                prop_assert!(groups.len() <= most);
                prop_assert!(total(&groups) <= cost(&together(&kinds)));
                let mut members: Vec<usize> = groups.iter().flat_map(|g| g.members.clone()).collect();
                members.sort_unstable();
                let all: usize = kinds.iter().map(|kind| kind.members.len()).sum();
                prop_assert_eq!(members, (0..all).collect::<Vec<_>>());
            }
        }
    }
}
