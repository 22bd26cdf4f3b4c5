//! Which capabilities a build needs: pure, over a function that judges a set.
//!
//! A capability is needed where the whole starting set without it does not do. That is the
//! definition; it says nothing about capabilities that stand in for each other, so afterwards the
//! needed ones alone must do, and where they do not, the search goes on from the other side.

use std::collections::HashMap;

use anyhow::Result;

use super::record::Consequence;
use crate::lab::capabilities::Set;

/// The order in which capabilities are given up, numbers from the most powerful down: what only
/// Docker's default has, then what a pod under Kubernetes' *baseline* may add, then what one under
/// *restricted* may. Those not named open more than any of these, and go first.
const POWER: [usize; 14] = [13, 18, 7, 8, 6, 31, 27, 5, 4, 3, 1, 0, 29, 10];

/// How a build with less than the starting set compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It gives what the starting set gives.
    Same,
    /// It does not.
    Differs(Consequence),
}

/// What the search came to.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Needed, and what becomes of the build without it.
    pub needed: Vec<(usize, Consequence)>,
    /// Not needed, beside all others of the starting set.
    pub unneeded: Set,
    /// Where the needed ones alone do not do: of each group any one is needed as well. The first
    /// is the one in `sufficient`.
    pub any_of: Vec<Vec<usize>>,
    /// A set that does, none of which can be left out.
    pub sufficient: Set,
    /// Needed beside all the others, but not in `sufficient`: the build does otherwise without
    /// those others.
    pub spare: Set,
}

/// Searches, asking `judge` about each set at most once.
///
/// # Errors
/// Those of `judge`.
pub fn search(start: Set, judge: impl FnMut(Set) -> Result<Verdict>) -> Result<Found> {
    let mut asked = Asked {
        judge,
        answers: HashMap::from([(start, Verdict::Same)]),
    };
    let mut found = Found::default();
    for number in start.iter() {
        match asked.verdict(start.without(number))? {
            Verdict::Same => found.unneeded = found.unneeded.with(number),
            Verdict::Differs(consequence) => found.needed.push((number, consequence)),
        }
    }
    let needed: Set = found.needed.iter().map(|(number, _)| *number).collect();
    let mut set = needed;
    if !asked.does(needed)? {
        set = start;
        for number in from_the_most_powerful(found.unneeded) {
            if asked.does(set.without(number))? {
                set = set.without(number);
            }
        }
    }
    // In a set this small one that is needed beside all the others may turn out not to be, and
    // once it is gone, another.
    'smaller: loop {
        for number in from_the_most_powerful(set) {
            if asked.does(set.without(number))? {
                set = set.without(number);
                continue 'smaller;
            }
        }
        break;
    }
    found.sufficient = set;
    found.spare = needed.iter().filter(|&number| !set.has(number)).collect();
    for number in set.iter().filter(|&number| !needed.has(number)) {
        let mut group = vec![number];
        for other in start.iter().filter(|&other| !set.has(other)) {
            if asked.does(set.without(number).with(other))? {
                group.push(other);
            }
        }
        found.any_of.push(group);
    }
    Ok(found)
}

fn from_the_most_powerful(set: Set) -> Vec<usize> {
    let unnamed = set.iter().filter(|number| !POWER.contains(number));
    unnamed
        .chain(POWER.into_iter().filter(|&number| set.has(number)))
        .collect()
}

struct Asked<F> {
    judge: F,
    answers: HashMap<Set, Verdict>,
}

impl<F: FnMut(Set) -> Result<Verdict>> Asked<F> {
    fn verdict(&mut self, set: Set) -> Result<Verdict> {
        if let Some(known) = self.answers.get(&set) {
            return Ok(known.clone());
        }
        let verdict = (self.judge)(set)?;
        self.answers.insert(set, verdict.clone());
        Ok(verdict)
    }

    fn does(&mut self, set: Set) -> Result<bool> {
        Ok(self.verdict(set)? == Verdict::Same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[usize]) -> Set {
        numbers.iter().copied().collect()
    }

    /// Searches for what a build needs that is a function of its set, and counts the builds.
    fn run(start: Set, does: impl Fn(Set) -> bool) -> (Found, usize) {
        let mut builds = 0;
        let found = search(start, |set| {
            builds += 1;
            Ok(match does(set) {
                true => Verdict::Same,
                false => Verdict::Differs(Consequence::default()),
            })
        });
        (found.unwrap(), builds)
    }

    #[test]
    fn order_names_all_of_dockers_default() {
        assert_eq!(POWER.into_iter().collect::<Set>(), Set::DOCKER_DEFAULT);
        let more = Set::DOCKER_DEFAULT.with(21);
        assert_eq!(from_the_most_powerful(more)[..2], [21, 13]);
    }

    #[test]
    fn needs_of_their_own() {
        let needs = set(&[0, 3, 6]);
        let (found, builds) = run(Set::DOCKER_DEFAULT, |set| set.0 & needs.0 == needs.0);
        let numbers: Vec<usize> = found.needed.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 3, 6]);
        assert_eq!(found.sufficient, needs);
        assert_eq!(found.unneeded.iter().count(), 11);
        assert!(found.any_of.is_empty() && found.spare == Set::default());
        assert_eq!(builds, 14 + 1 + 3);
    }

    #[test]
    fn needs_nothing() {
        let (found, builds) = run(Set::DOCKER_DEFAULT, |_| true);
        assert_eq!((found.needed.len(), found.sufficient), (0, Set::default()));
        assert_eq!(builds, 15);
    }

    #[test]
    fn one_stands_in_for_another() {
        let does = |set: Set| set.has(0) && (set.has(1) || set.has(3) || set.has(13));
        let (found, _) = run(Set::DOCKER_DEFAULT, does);
        assert_eq!(found.needed.len(), 1);
        assert_eq!(found.sufficient, set(&[0, 1]));
        assert_eq!(found.any_of, [[1, 3, 13]]);
    }

    #[test]
    fn what_is_needed_only_beside_others_is_spare() {
        // Whoever holds 7 goes a way that takes 5.
        let does = |set: Set| !set.has(7) || set.has(5);
        let (found, _) = run(Set::DOCKER_DEFAULT, does);
        assert_eq!(found.needed.len(), 1);
        assert_eq!((found.sufficient, found.spare), (set(&[]), set(&[5])));
    }

    #[test]
    fn every_function_of_few_gives_a_set_that_is_sufficient_and_minimal() {
        // All monotone functions or not of three capabilities, where the whole set does.
        let (a, b, c) = (0, 13, 27);
        let start = set(&[a, b, c]);
        for table in 0..128_u8 {
            let does = |set: Set| {
                let row = usize::from(set.has(a))
                    + 2 * usize::from(set.has(b))
                    + 4 * usize::from(set.has(c));
                row == 7 || table >> row & 1 == 1
            };
            let (found, _) = run(start, does);
            assert!(does(found.sufficient), "{table}");
            let one_less = |n| does(found.sufficient.without(n));
            assert!(!found.sufficient.iter().any(one_less), "{table}");
            let needed: Set = found.needed.iter().map(|(n, _)| *n).collect();
            let alone: Set = start.iter().filter(|&n| !does(start.without(n))).collect();
            assert_eq!(needed, alone);
            assert_eq!(needed.0 | found.unneeded.0, start.0);
        }
    }
}
