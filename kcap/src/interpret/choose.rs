//! Which capabilities to require: the smallest set that answers every decision, and among equals
//! the least powerful one.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::report::Cap;

/// Capability numbers from the least to the most powerful: what Pod Security *restricted* lets a
/// pod add, then *baseline*, then the rest of Docker's default, then the others by what they open.
/// One that is not listed counts as more powerful than all of these.
const ORDER: [u8; 41] = [
    10, // NET_BIND_SERVICE: restricted
    29, 0, 1, 3, 4, 5, 27, 31, 6, 8, 7, 18, // baseline, in its own order
    13, // NET_RAW: Docker's default
    35, 36, 28, 14, 11,
    37, // wake-ups, leases, locked memory, broadcast, the audit log's reader
    26, 23, 24, 20, 30,
    25, // terminals, priorities, limits, accounting, audit rules, the clock
    15, 9, 34, 40,
    38, // others' IPC, immutable files, kernel addresses, others' state, profiling
    12, 2, 39, 19, // the network, any file by handle, programs in the kernel, any process
    32, 33, 22, 17, 16, 21, // security policy, kexec, ports, modules, and everything else
];

/// Decisions looked at in the search, after which the best set found so far is taken. Beyond what
/// the families of the kernel can make: a bound on hostile input.
const WORK: usize = 4_000_000;

/// Where a capability stands in the order of power, the least powerful first.
pub fn power(cap: Cap) -> usize {
    let listed = ORDER.iter().position(|number| *number == cap.0);
    listed.unwrap_or(ORDER.len() + usize::from(cap.0))
}

/// How good a set is, less is better: its size, then its members from the most powerful down.
fn cost(set: &[Cap]) -> (usize, Vec<usize>) {
    let mut powers: Vec<usize> = set.iter().map(|cap| power(*cap)).collect();
    powers.sort_unstable_by_key(|power| Reverse(*power));
    (set.len(), powers)
}

/// The smallest set with at least one member of each of `decisions`; between equals, the one whose
/// most powerful members are the least powerful. Empty decisions ask for nothing.
pub fn smallest<'a>(decisions: impl IntoIterator<Item = &'a BTreeSet<Cap>>) -> BTreeSet<Cap> {
    let mut sets: Vec<&BTreeSet<Cap>> = decisions.into_iter().filter(|s| !s.is_empty()).collect();
    sets.sort_unstable_by_key(|set| (set.len(), *set));
    sets.dedup();
    // Whatever answers a set answers its supersets.
    let mut minimal: Vec<&BTreeSet<Cap>> = Vec::new();
    for set in sets {
        if !minimal.iter().any(|smaller| smaller.is_subset(set)) {
            minimal.push(set);
        }
    }
    // One weakest answer each is a set to start from; the search can only better it.
    let start: BTreeSet<Cap> = minimal
        .iter()
        .filter_map(|s| s.iter().copied().min_by_key(|c| power(*c)))
        .collect();
    let mut search = Search {
        best: start.into_iter().collect(),
        work: WORK,
    };
    search.go(&minimal, &mut Vec::new());
    search.best.into_iter().collect()
}

struct Search {
    best: Vec<Cap>,
    work: usize,
}

impl Search {
    fn go(&mut self, open: &[&BTreeSet<Cap>], chosen: &mut Vec<Cap>) {
        let Some(left) = self.work.checked_sub(1 + open.len()) else {
            return;
        };
        self.work = left;
        let Some(next) = open.iter().min_by_key(|set| set.len()) else {
            if cost(chosen) < cost(&self.best) {
                self.best.clone_from(chosen);
            }
            return;
        };
        if chosen.len() + disjoint(open) > self.best.len() {
            return;
        }
        let mut answers: Vec<Cap> = next.iter().copied().collect();
        answers.sort_unstable_by_key(|cap| power(*cap));
        for cap in answers {
            let rest: Vec<&BTreeSet<Cap>> = open
                .iter()
                .copied()
                .filter(|set| !set.contains(&cap))
                .collect();
            chosen.push(cap);
            self.go(&rest, chosen);
            chosen.pop();
        }
    }
}

/// How many of `sets` share no member: each needs an answer of its own.
fn disjoint(sets: &[&BTreeSet<Cap>]) -> usize {
    let mut taken: BTreeSet<Cap> = BTreeSet::new();
    let mut count = 0;
    for set in sets {
        if taken.is_disjoint(set) {
            taken.extend(set.iter());
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn set(caps: &[Cap]) -> BTreeSet<Cap> {
        caps.iter().copied().collect()
    }

    #[test]
    fn a_private_read_takes_what_a_pod_may_have() {
        let read = set(&[Cap::DAC_READ_SEARCH, Cap::DAC_OVERRIDE]);
        assert_eq!(smallest([&read]), set(&[Cap::DAC_OVERRIDE]));
        let handle = set(&[Cap::DAC_READ_SEARCH]);
        assert_eq!(smallest([&read, &handle]), set(&[Cap::DAC_READ_SEARCH]));
    }

    #[test]
    fn one_capability_for_two_decisions_beats_two() {
        let bpf = set(&[Cap::BPF, Cap::SYS_ADMIN]);
        let perfmon = set(&[Cap::PERFMON, Cap::SYS_ADMIN]);
        assert_eq!(smallest([&bpf]), set(&[Cap::BPF]));
        assert_eq!(smallest([&bpf, &perfmon]), set(&[Cap::SYS_ADMIN]));
    }

    #[test]
    fn the_order_holds_every_named_capability_once() {
        let listed: BTreeSet<u8> = ORDER.iter().copied().collect();
        assert_eq!(listed, Cap::known().map(|cap| cap.0).collect());
        assert!(power(Cap::NET_BIND_SERVICE) < power(Cap::AUDIT_WRITE));
        assert!(power(Cap::SYS_CHROOT) < power(Cap::NET_RAW));
        assert!(power(Cap::NET_RAW) < power(Cap::DAC_READ_SEARCH));
        assert!(power(Cap::SYS_ADMIN) < power(Cap(41)));
    }

    #[test]
    fn hostile_input_ends() {
        let sets: Vec<BTreeSet<Cap>> = (0..60u8)
            .flat_map(|a| (0..60u8).map(move |b| set(&[Cap(a), Cap(b), Cap(a ^ b), Cap(255 - a)])))
            .collect();
        let chosen = smallest(&sets);
        assert!(sets.iter().all(|set| !set.is_disjoint(&chosen)));
    }

    fn brute(decisions: &[BTreeSet<Cap>], universe: u8) -> BTreeSet<Cap> {
        let all = (0..1u32 << universe).map(|mask| {
            (0..universe)
                .filter(|i| mask & (1 << i) != 0)
                .map(Cap)
                .collect::<Vec<_>>()
        });
        let answers = |set: &Vec<Cap>| {
            decisions
                .iter()
                .all(|d| d.is_empty() || set.iter().any(|cap| d.contains(cap)))
        };
        all.filter(answers)
            .min_by_key(|set| cost(set))
            .unwrap()
            .into_iter()
            .collect()
    }

    proptest! {
        #[test]
        fn as_brute_force_has_it(
            decisions in vec(btree_set((0u8..9).prop_map(Cap), 0..5), 0..9),
            turn in 0usize..9,
        ) {
            let expected = brute(&decisions, 9);
            prop_assert_eq!(&smallest(&decisions), &expected);
            let mut turned = decisions;
            if !turned.is_empty() {
                let by = turn % turned.len();
                turned.rotate_left(by);
            }
            prop_assert_eq!(smallest(&turned), expected);
        }
    }
}
