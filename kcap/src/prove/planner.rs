//! Which sets to replay a build with, and what the replays come to: pure, over what they came to so
//! far.
//!
//! The search is a procedure that asks "does this set do?" and stops at the first question that is not
//! answered yet: that is the next replay. It is run again from its start after each answer, so that it
//! has no state but the answers, the order they come in does not matter, and a proof that was interrupted
//! goes on where it was. To run several side by side, the answer that is expected is taken for given,
//! and the search goes on to its next question.

use std::collections::{BTreeMap, BTreeSet};

use crate::{interpret::power, report::Cap};

/// Runs of a set that are believed where nothing explains why it does not do: a requirement that no
/// refusal stands behind could be a network's mood.
const UNEXPLAINED: usize = 3;
/// The same, where a build did not come to an end: each costs ten times a build.
const ENDLESS: usize = 2;
/// The same, where equal builds were seen to come to different things.
const UNEXPLAINED_FLAKY: usize = 5;
/// The same, where each time a refusal explains it.
const EXPLAINED_FLAKY: usize = 3;
/// Builds with the starting set that did, for each that did not, so that the build is not given up.
const STEADY: usize = 4;
/// Runs of a set that once did and once did not, at most.
const MIXED: usize = 5;
/// Runs of a set that told nothing, at most.
const VOID: usize = 2;
/// Runs with the starting set, and of the set that is found, at least.
const CERTAIN: usize = 2;

/// A capability set, a bit for each number.
pub type Set = u64;

/// What one replay came to, beside what was to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended well, with the image of the builds with the starting set.
    Same,
    /// It failed, or its image is another.
    Differs {
        /// Capabilities whose refusal is seen to have done it; none where it may have been something
        /// else.
        refused: Set,
    },
    /// It did not come to an end in many times the time that it takes.
    Endless,
    /// It tells nothing: it was not started, or was killed from outside.
    Void,
}

/// Why a set is to be built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To know what builds with the starting set come to.
    Reference,
    /// What the trace is sure of, alone.
    Sure,
    /// More than that did not do: what else it takes.
    Grow,
    /// Whether it can be left out.
    Without(Cap),
    /// Whether the set that was found does once more.
    Last,
}

/// A replay that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The set to build with.
    pub set: Set,
    /// What for.
    pub purpose: Purpose,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Replays, none of which waits for another; those that run already among them are not counted. None:
    /// wait for those.
    Build(Vec<Trial>),
    /// Nothing: it is found.
    Found(Found),
    /// Nothing: the builds do not allow it.
    Stuck(Stuck),
}

/// A set that is sufficient, and none of which can be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The set.
    pub set: Set,
    /// Equal builds were seen to come to different things.
    pub flaky: bool,
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The build fails with the starting set as well.
    Fails,
    /// Equal builds come to different things: no set can be said to do.
    Unstable(Set),
    /// Builds with this set could not be carried out.
    Void(Set),
}

/// Plans the replays of one Dockerfile.
#[derive(Clone, Debug)]
pub struct Planner {
    start: Set,
    /// What the trace of the first build is sure of; `None` before it was seen.
    sure: Option<Set>,
    /// What it is not sure of, or the kernel was asked for.
    candidates: Set,
    /// How many builds with the starting set it takes to know what equal builds differ in.
    references: usize,
    outcomes: BTreeMap<Set, Vec<Outcome>>,
}

/// Whether a set does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Does,
    DoesNot,
}

/// Why the search cannot go on.
enum Halt {
    /// It is not known whether this set does. What it is expected to come to, where something is.
    Ask(Trial, Option<Answer>),
    Stuck(Stuck),
}

impl Planner {
    /// Begins with this starting set.
    pub fn new(start: Set) -> Self {
        Self {
            start,
            sure: None,
            candidates: 0,
            references: CERTAIN,
            outcomes: BTreeMap::new(),
        }
    }

    /// What the first build's trace says: what is needed for sure, and what may be.
    pub fn expect(&mut self, sure: Set, candidates: Set) {
        self.sure = Some(sure & self.start);
        self.candidates = candidates & self.start;
    }

    /// One build with the starting set less or more is enough to know what equal builds differ in.
    pub fn references(&mut self, count: usize) {
        self.references = count.max(1);
    }

    /// A build with this set came to this.
    pub fn observe(&mut self, set: Set, outcome: Outcome) {
        self.outcomes.entry(set).or_default().push(outcome);
    }

    /// Forgets all that builds came to, since they are judged anew.
    pub fn forget(&mut self) {
        self.outcomes.clear();
    }

    /// What to do next, where builds with the sets in `running` are not over yet. At most `limit` new
    /// replays are wanted.
    pub fn next(&self, running: &[Set], limit: usize) -> Next {
        let mut wanted = vec![];
        let mut left: Vec<Set> = running.to_vec();
        let mut guesses = BTreeMap::new();
        loop {
            let (trial, expected) = match self.search(&guesses) {
                Ok(found) if guesses.is_empty() => return Next::Found(found),
                // What comes after what is expected is not known yet.
                Ok(_) => break,
                Err(Halt::Stuck(why)) if guesses.is_empty() => return Next::Stuck(why),
                Err(Halt::Stuck(_)) => break,
                Err(Halt::Ask(trial, expected)) => (trial, expected),
            };
            if let Some(at) = left.iter().position(|set| *set == trial.set) {
                left.swap_remove(at);
            } else if wanted.len() < limit {
                wanted.push(trial);
            } else {
                break;
            }
            match expected {
                Some(expected) => guesses
                    .entry(trial.set)
                    .or_insert_with(Vec::new)
                    .push(expected),
                None => break,
            }
        }
        Next::Build(wanted)
    }

    /// How many builds it still takes, those that run included, if what is expected comes true.
    pub fn expected(&self) -> usize {
        let mut guesses: BTreeMap<Set, Vec<Answer>> = BTreeMap::new();
        let mut count = 0;
        // The search ends: each question is asked a bounded number of times.
        while let Err(Halt::Ask(trial, expected)) = self.search(&guesses) {
            count += 1;
            let expected = expected.unwrap_or(Answer::Does);
            guesses.entry(trial.set).or_default().push(expected);
        }
        count
    }

    /// The smallest set that did so far, and which of its members are known not to be left out: what is
    /// known where there is no time for more.
    pub fn known(&self) -> (Set, Set) {
        let none = BTreeMap::new();
        let does = |set: &Set| matches!(self.answer(*set, &none), Some(Answer::Does));
        let best = (self.outcomes.keys().copied().filter(does))
            .min_by_key(|set| (set.count_ones(), weight(*set)))
            .unwrap_or(self.start);
        let held = Cap::of_mask(best)
            .filter(|cap| matches!(self.answer(best & !cap.bit(), &none), Some(Answer::DoesNot)));
        (best, held.fold(0, |all, cap| all | cap.bit()))
    }

    /// Whether a set was seen to do and not to do.
    pub fn flaky(&self) -> bool {
        self.outcomes.values().any(|all| mixed(all))
    }

    fn search(&self, guesses: &BTreeMap<Set, Vec<Answer>>) -> Result<Found, Halt> {
        let ask =
            |set, purpose, expected: Option<Answer>| self.ask(guesses, set, purpose, expected);
        self.reference(guesses)?;
        let Some(sure) = self.sure else {
            return Err(Halt::Stuck(Stuck::Void(self.start)));
        };
        let mut set = sure;
        if ask(set, Purpose::Sure, Some(Answer::Does))? == Answer::DoesNot {
            set = self.grow(guesses, set)?;
        }
        'smaller: loop {
            for cap in from_the_most_powerful(set) {
                let without = set & !cap.bit();
                let purpose = Purpose::Without(cap);
                if ask(without, purpose, Some(Answer::DoesNot))? == Answer::Does {
                    set = without;
                    continue 'smaller;
                }
            }
            break;
        }
        if self.seen(guesses, set) < CERTAIN {
            let trial = Trial {
                set,
                purpose: Purpose::Last,
            };
            return Err(Halt::Ask(trial, Some(Answer::Does)));
        }
        Ok(Found {
            set,
            flaky: self.flaky(),
        })
    }

    /// Builds with the starting set, until it is known what they come to.
    fn reference(&self, guesses: &BTreeMap<Set, Vec<Answer>>) -> Result<(), Halt> {
        let runs = self.runs(self.start);
        let did = count(runs, |o| matches!(o, Outcome::Same))
            + (guesses.get(&self.start)).map_or(0, Vec::len);
        let did_not = count(runs, |o| !matches!(o, Outcome::Same | Outcome::Void));
        let void = count(runs, |o| matches!(o, Outcome::Void));
        if void >= VOID {
            return Err(Halt::Stuck(Stuck::Void(self.start)));
        }
        if did == 0 && did_not >= CERTAIN {
            return Err(Halt::Stuck(Stuck::Fails));
        }
        if did_not >= CERTAIN && did < did_not * STEADY {
            return Err(Halt::Stuck(Stuck::Unstable(self.start)));
        }
        if did < self.references + self.unexplained() {
            let trial = Trial {
                set: self.start,
                purpose: Purpose::Reference,
            };
            return Err(Halt::Ask(trial, Some(Answer::Does)));
        }
        Ok(())
    }

    /// How many builds with less did not do, and nothing explains why. Against each stands a build with the
    /// starting set: were it the network, these would fail as well.
    fn unexplained(&self) -> usize {
        let of = |(set, runs): (&Set, &Vec<Outcome>)| {
            count(runs, |o| match o {
                Outcome::Endless => true,
                Outcome::Differs { refused } => refused & !set == 0,
                Outcome::Same | Outcome::Void => false,
            })
        };
        let less = self.outcomes.iter().filter(|(set, _)| **set != self.start);
        less.map(of).sum()
    }

    /// A set that does, from one that does not: what was refused is added; where nothing says what is
    /// missing, it is looked for by halves.
    fn grow(&self, guesses: &BTreeMap<Set, Vec<Answer>>, mut set: Set) -> Result<Set, Halt> {
        let ask = |set, expected: Option<Answer>| self.ask(guesses, set, Purpose::Grow, expected);
        // Known to do; shrinks.
        let mut enough = self.start;
        loop {
            let missing = self.refused(set) & enough & !set;
            if missing != 0 {
                set |= missing;
            } else {
                // Those that may be needed come first, the least powerful of them before the others.
                let mut rest: Vec<Cap> = Cap::of_mask(enough & !set).collect();
                rest.sort_by_key(|cap| (self.candidates & cap.bit() == 0, power(*cap)));
                let with = |n: usize| rest[..n].iter().fold(set, |all, cap| all | cap.bit());
                // With the first `low` it does not do, with the first `high` it does. Nothing is taken for
                // granted about what is between.
                let (mut low, mut high) = (0, rest.len());
                let likely = (rest.iter()).filter(|cap| self.candidates & cap.bit() != 0);
                let mut middle = likely.count();
                while high - low > 1 {
                    if middle <= low || middle >= high {
                        middle = low.midpoint(high);
                    }
                    match ask(with(middle), None)? {
                        Answer::Does => high = middle,
                        Answer::DoesNot => low = middle,
                    }
                    middle = low.midpoint(high);
                }
                let Some(last) = high.checked_sub(1).and_then(|at| rest.get(at)) else {
                    // The set is all of what does, and did not do: equal builds differ.
                    return Err(Halt::Stuck(Stuck::Unstable(set)));
                };
                enough = with(high);
                set |= last.bit();
            }
            if set == enough || ask(set, Some(Answer::Does))? == Answer::Does {
                return Ok(set);
            }
        }
    }

    /// What refusals are seen to have made builds with this set fail.
    fn refused(&self, set: Set) -> Set {
        let runs = self.runs(set).iter();
        runs.fold(0, |all, outcome| match outcome {
            Outcome::Differs { refused } => all | refused,
            _ => all,
        })
    }

    fn ask(
        &self,
        guesses: &BTreeMap<Set, Vec<Answer>>,
        set: Set,
        purpose: Purpose,
        expected: Option<Answer>,
    ) -> Result<Answer, Halt> {
        if let Some(answer) = self.answer(set, guesses) {
            return Ok(answer);
        }
        let runs = self.runs(set);
        if count(runs, |o| matches!(o, Outcome::Void)) >= VOID {
            return Err(Halt::Stuck(Stuck::Void(set)));
        }
        if runs.len() >= MIXED + VOID {
            return Err(Halt::Stuck(Stuck::Unstable(set)));
        }
        // One that did not do, and is looked at again, is expected not to do again.
        let expected = match runs.last() {
            Some(Outcome::Differs { .. } | Outcome::Endless) => Some(Answer::DoesNot),
            _ => expected,
        };
        Err(Halt::Ask(Trial { set, purpose }, expected))
    }

    /// Whether a set does; `None` where more builds have to say so.
    fn answer(&self, set: Set, guesses: &BTreeMap<Set, Vec<Answer>>) -> Option<Answer> {
        if set == self.start {
            return Some(Answer::Does);
        }
        let runs = self.runs(set);
        let guessed = guesses.get(&set).map_or(&[][..], Vec::as_slice);
        let did = count(runs, |o| matches!(o, Outcome::Same))
            + guessed.iter().filter(|a| **a == Answer::Does).count();
        // Where equal builds come to different things, a refusal that a program shrugs off can stand
        // beside a failure by chance.
        let flaky = self.flaky();
        let explained = count(
            runs,
            |o| matches!(o, Outcome::Differs { refused } if *refused & !set != 0),
        );
        let endless = count(runs, |o| matches!(o, Outcome::Endless));
        // A guess is not doubted: it stands for as many builds as it takes.
        let guessed_not = guessed.iter().filter(|a| **a == Answer::DoesNot).count();
        let failed = |o: &Outcome| matches!(o, Outcome::Differs { .. } | Outcome::Endless);
        let did_not = count(runs, failed) + guessed_not;
        let enough = if flaky {
            UNEXPLAINED_FLAKY
        } else {
            UNEXPLAINED
        };
        // Where it fails with everything as well, now and then, that nothing explains it says that it was
        // chance once more.
        let chance = mixed(self.runs(self.start));
        match (did, did_not) {
            (0, 0) => None,
            (0, _) if guessed_not > 0 => Some(Answer::DoesNot),
            (0, _) if explained > 0 && !flaky => Some(Answer::DoesNot),
            (0, n) if explained == n && n >= EXPLAINED_FLAKY => Some(Answer::DoesNot),
            (0, n) if (n >= enough || endless >= ENDLESS) && !chance => Some(Answer::DoesNot),
            (0, _) => None,
            (_, 0) => Some(Answer::Does),
            (did, did_not) if did > did_not => Some(Answer::Does),
            (did, did_not) if did + did_not >= MIXED => Some(Answer::DoesNot),
            _ => None,
        }
    }

    fn runs(&self, set: Set) -> &[Outcome] {
        self.outcomes.get(&set).map_or(&[], Vec::as_slice)
    }

    /// How many builds with this set told something.
    fn seen(&self, guesses: &BTreeMap<Set, Vec<Answer>>, set: Set) -> usize {
        let told = count(self.runs(set), |o| !matches!(o, Outcome::Void));
        told + guesses.get(&set).map_or(0, Vec::len)
    }
}

fn count(runs: &[Outcome], of: impl Fn(&Outcome) -> bool) -> usize {
    runs.iter().filter(|outcome| of(outcome)).count()
}

fn mixed(runs: &[Outcome]) -> bool {
    let told: BTreeSet<bool> = runs
        .iter()
        .filter(|outcome| !matches!(outcome, Outcome::Void))
        .map(|outcome| matches!(outcome, Outcome::Same))
        .collect();
    told.len() > 1
}

/// Less is better, between sets of the same size.
fn weight(set: Set) -> Vec<usize> {
    from_the_most_powerful(set).map(power).collect()
}

fn from_the_most_powerful(set: Set) -> impl Iterator<Item = Cap> {
    let mut caps: Vec<Cap> = Cap::of_mask(set).collect();
    caps.sort_by_key(|cap| std::cmp::Reverse(power(*cap)));
    caps.into_iter()
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
