//! Which Dockerfiles a set builds, by what replays found: pure.

use anyhow::{Context, Result, ensure};

use crate::lab::capabilities::{self, Set};
use crate::truth::record::{Outcome, Truth};

/// Most capabilities over which all subsets are tried: a million of them.
const MOST: usize = 20;

/// What one Dockerfile needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Its folder's name.
    pub name: String,
    /// What it cannot be built without.
    pub all: Set,
    /// Of each group it takes any one beside.
    pub any_of: Vec<Set>,
    /// What it takes only where other capabilities are allowed that it does without: with `all` and
    /// nothing more it builds, and with these, and what else is allowed between was not tried.
    pub spare: Set,
    /// Without which the build goes through, and gives another image.
    pub changes: Set,
}

/// Whether a set builds a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The same image as with the whole starting set.
    Builds,
    /// Another, or none.
    Fails,
    /// No replay tells.
    Untold,
}

impl Needs {
    /// What a truth says.
    ///
    /// # Errors
    /// Where it names what is no capability.
    pub fn of(name: &str, truth: &Truth) -> Result<Self> {
        let any_of: Vec<Set> = (truth.any_of.iter())
            .map(|group| set(group))
            .collect::<Result<_>>()?;
        let mut all = set(&truth.sufficient)?;
        // `sufficient` holds the first of each group, in whose place any other would do.
        for number in any_of.iter().flat_map(|group| group.iter()) {
            all = all.without(number);
        }
        let changes: Vec<String> = (truth.needed.iter())
            .filter(|need| need.without.outcome == Outcome::Changed)
            .map(|need| need.capability.clone())
            .collect();
        Ok(Self {
            name: name.to_owned(),
            all,
            any_of,
            spare: set(&truth.spare)?,
            changes: set(&changes)?,
        })
    }

    /// Whether that set builds it, where more than enough is enough: that is taken as given, but for
    /// Dockerfiles of which replays showed that it is not so.
    pub fn answer(&self, allowed: Set) -> Answer {
        let holds = |wanted: Set| wanted.0 & !allowed.0 == 0;
        if !holds(self.all) || self.any_of.iter().any(|group| group.0 & allowed.0 == 0) {
            return Answer::Fails;
        }
        let is_least = allowed.iter().count() == self.all.iter().count() + self.any_of.len();
        if holds(self.spare) || is_least {
            Answer::Builds
        } else {
            Answer::Untold
        }
    }

    /// Whether it can be built without that capability, whatever else is allowed.
    pub fn does_without(&self, number: usize) -> bool {
        !self.all.has(number) && self.any_of.iter().all(|group| *group != Set(1 << number))
    }

    /// Everything that may matter to it.
    pub fn named(&self) -> Set {
        let groups = self.any_of.iter().fold(0, |all, group| all | group.0);
        Set(self.all.0 | groups | self.spare.0)
    }
}

fn set(names: &[String]) -> Result<Set> {
    names
        .iter()
        .map(|name| capabilities::number(name).with_context(|| format!("no capability {name:?}")))
        .collect()
}

/// How many Dockerfiles a set builds.
pub fn built(needs: &[&Needs], allowed: Set) -> usize {
    let builds = |one: &&&Needs| one.answer(allowed) == Answer::Builds;
    needs.iter().filter(builds).count()
}

/// The set of a size that builds most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// The set; of those as good one that holds the best of one less, if there is one.
    pub set: Set,
    /// How many Dockerfiles it builds.
    pub built: usize,
    /// How many other sets of its size build as many.
    pub others: usize,
}

/// The best set of each size, from none to where all Dockerfiles build: all sets are tried.
///
/// # Errors
/// Where there are too many capabilities for that.
pub fn best(needs: &[&Needs]) -> Result<Vec<Best>> {
    let named = Set(needs.iter().fold(0, |all, one| all | one.named().0));
    let numbers: Vec<usize> = named.iter().collect();
    ensure!(
        numbers.len() <= MOST,
        "{} capabilities are too many to try all sets of them: write a better search",
        numbers.len()
    );
    let mut sizes: Vec<Vec<(usize, Set)>> = vec![vec![]; numbers.len() + 1];
    for chosen in 0..1_u64 << numbers.len() {
        let members = numbers.iter().enumerate();
        let set: Set = members
            .filter(|(at, _)| chosen >> at & 1 == 1)
            .map(|(_, number)| *number)
            .collect();
        sizes[chosen.count_ones() as usize].push((built(needs, set), set));
    }
    let mut found: Vec<Best> = vec![];
    for sets in sizes {
        let most = sets.iter().map(|(built, _)| *built).max().unwrap_or(0);
        let equals: Vec<Set> = (sets.into_iter())
            .filter(|(built, _)| *built == most)
            .map(|(_, set)| set)
            .collect();
        let before = found.last().map_or(Set::default(), |best| best.set);
        let grown = equals.iter().find(|set| set.0 & before.0 == before.0);
        let Some(set) = grown.or(equals.first()) else {
            break;
        };
        found.push(Best {
            set: *set,
            built: most,
            others: equals.len() - 1,
        });
        if most == needs.len() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[usize]) -> Set {
        numbers.iter().copied().collect()
    }

    fn needs(all: &[usize], any_of: &[&[usize]], spare: &[usize]) -> Needs {
        Needs {
            name: "one".into(),
            all: of(all),
            any_of: any_of.iter().map(|group| of(group)).collect(),
            spare: of(spare),
            changes: Set::default(),
        }
    }

    #[test]
    fn any_of_a_group_does() {
        let one = needs(&[0], &[&[1, 2]], &[]);
        for (allowed, answer) in [
            (&[0, 1][..], Answer::Builds),
            (&[0, 2], Answer::Builds),
            (&[0, 1, 2, 5], Answer::Builds),
            (&[0], Answer::Fails),
            (&[1, 2], Answer::Fails),
        ] {
            assert_eq!(one.answer(of(allowed)), answer, "{allowed:?}");
        }
        assert!(one.does_without(1) && one.does_without(2) && !one.does_without(0));
        let other = needs(&[0], &[&[2, 3]], &[]);
        let best = best(&[&one, &other]).unwrap();
        assert_eq!(best.last().unwrap().set, of(&[0, 2]));
    }

    #[test]
    fn what_is_taken_only_beside_others_is_not_guessed() {
        let one = needs(&[0], &[], &[5]);
        assert_eq!(one.answer(of(&[0])), Answer::Builds);
        assert_eq!(one.answer(of(&[0, 5, 7])), Answer::Builds);
        assert_eq!(one.answer(of(&[0, 7])), Answer::Untold);
        assert_eq!(one.answer(of(&[5, 7])), Answer::Fails);
    }

    #[test]
    fn a_truth_of_groups_is_read() {
        let truth = serde_json::json!({
            "schema": "kcap.truth/v1", "inputs": "", "executor": "", "bases": {},
            "environment": {"seccomp": "none", "network": "", "ip_unprivileged_port_start": 0,
                "ping_group_range": ""},
            "expect": "success", "start": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL"],
            "needed": [{"capability": "CHOWN", "outcome": "changed", "witness": {}}],
            "unneeded": [], "any_of": [["DAC_OVERRIDE", "FOWNER"]],
            "sufficient": ["CHOWN", "DAC_OVERRIDE"], "spare": ["KILL"],
            "reference": {"stable": true}, "builds": 0
        });
        let truth: Truth = serde_json::from_value(truth).unwrap();
        let read = Needs::of("one", &truth).unwrap();
        let wanted = Needs {
            changes: of(&[0]),
            ..needs(&[0], &[&[1, 3]], &[5])
        };
        assert_eq!(read, wanted);
        assert_eq!(read.named(), of(&[0, 1, 3, 5]));
    }

    proptest! {
        /// The search by counting against one that looks at every Dockerfile's needs by name.
        #[test]
        fn no_set_of_a_size_builds_more(
            wants in proptest::collection::vec((0_u64..64, 0_u64..64), 1..8)
        ) {
            let all: Vec<Needs> = (wants.iter())
                .map(|(all, group)| Needs {
                    all: Set(*all),
                    any_of: (*group != 0).then_some(Set(*group)).into_iter().collect(),
                    ..Needs::default()
                })
                .collect();
            let all: Vec<&Needs> = all.iter().collect();
            let found = best(&all).unwrap();
            for (size, best) in found.iter().enumerate() {
                prop_assert_eq!(best.set.iter().count(), size);
                let most = (0_u64..64)
                    .filter(|set| set.count_ones() as usize == size)
                    .map(|set| {
                        let does = |(want, group): &&(u64, u64)| {
                            want & set == *want && (*group == 0 || group & set != 0)
                        };
                        wants.iter().filter(does).count()
                    })
                    .max();
                prop_assert_eq!(Some(best.built), most);
            }
            prop_assert_eq!(found.last().unwrap().built, all.len());
        }
    }
}
