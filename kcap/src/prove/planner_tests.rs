//! Against build functions whose truth is known: any function of the set, flaky ones, wrong and right
//! verdicts to start from, one build at a time and several.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Numbers of the capabilities that the functions are about, of different power.
const CAPS: [u8; 6] = [0, 5, 13, 21, 27, 10];

/// Spreads the bits of a small number over [`CAPS`].
fn set(bits: u8) -> Set {
    let held = CAPS.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
    held.fold(0, |all, (_, number)| all | 1 << number)
}

fn bits(set: Set) -> u8 {
    let held = CAPS.iter().enumerate().filter(|(_, c)| set >> **c & 1 == 1);
    held.fold(0, |all, (n, _)| all | 1 << n)
}

/// A build whose outcome is a function of its set, but for flakes.
#[derive(Clone, Debug)]
struct Truth {
    /// By the bits of a set, whether it does.
    does: Vec<bool>,
    /// By the bits of a set that does not do, what is seen to be refused; it may be nothing, and it
    /// may be what does not help.
    refused: Vec<u8>,
    /// By the bits of a set that does, which of its first runs fail all the same.
    flakes: Vec<u8>,
}

impl Truth {
    fn outcome(&self, set: Set, run: usize) -> Outcome {
        let at = usize::from(bits(set));
        if !self.does[at] {
            let refused = self::set(self.refused[at]) & !set;
            Outcome::Differs { refused }
        } else if run < 8 && self.flakes[at] >> run & 1 == 1 {
            Outcome::Differs { refused: 0 }
        } else {
            Outcome::Same
        }
    }
}

const START: u8 = 0b11_1111;

struct Proof {
    next: Next,
    builds: usize,
    planner: Planner,
}

/// Proves, with up to `parallel` builds at once, of which `turns` says which ends next.
fn prove(truth: &Truth, sure: u8, candidates: u8, parallel: usize, turns: &[usize]) -> Proof {
    let mut planner = Planner::new(set(START));
    let mut running: Vec<Set> = vec![];
    let mut runs: HashMap<Set, usize> = HashMap::new();
    let mut builds = 0;
    loop {
        let next = planner.next(&running, parallel - running.len());
        let Next::Build(trials) = next else {
            return Proof {
                next,
                builds,
                planner,
            };
        };
        assert!(!trials.is_empty() || !running.is_empty(), "nothing to do");
        assert!(trials.len() <= parallel - running.len());
        running.extend(trials.iter().map(|trial| trial.set));
        let turn = turns.get(builds % turns.len().max(1)).copied();
        let ended = running.swap_remove(turn.unwrap_or(0) % running.len());
        let run = runs.entry(ended).or_default();
        planner.observe(ended, truth.outcome(ended, *run));
        *run += 1;
        builds += 1;
        if ended == set(START) {
            planner.expect(set(sure), set(candidates));
        }
        assert!(builds < 2000, "it does not end");
    }
}

fn found(proof: &Proof) -> &Found {
    match &proof.next {
        Next::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

/// Any function of six capabilities that the whole set fulfils.
fn function() -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![
        // Any at all.
        vec(any::<bool>(), 64),
        // Where more is never worse: some sets, and all that hold one of them.
        vec(0..=START, 1..4).prop_map(|least| {
            let does = |bits: u8| least.iter().any(|l| bits & l == *l);
            (0..64).map(does).collect()
        }),
    ]
    .prop_map(|mut does| {
        does[usize::from(START)] = true;
        does
    })
}

fn truth(flakes: impl Strategy<Value = u8> + Clone + 'static) -> impl Strategy<Value = Truth> {
    (
        function(),
        vec(0..=START, 64),
        vec(any::<bool>(), 64),
        vec(flakes, 64),
    )
        .prop_map(|(does, refused, silent, flakes)| Truth {
            refused: refused
                .iter()
                .zip(&silent)
                .map(|(refused, silent)| if *silent { 0 } else { *refused })
                .collect(),
            does,
            flakes,
        })
}

fn is_minimal(truth: &Truth, found: Set) -> bool {
    let does = |set| truth.does[usize::from(bits(set))];
    does(found) && Cap::of_mask(found).all(|cap| !does(found & !cap.bit()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_found_does_and_nothing_of_it_can_be_left_out(
        truth in truth(Just(0)),
        sure in 0..=START,
        more in 0..=START,
        parallel in 1usize..4,
        turns in vec(0usize..4, 1..9),
    ) {
        let proof = prove(&truth, sure, sure | more, parallel, &turns);
        let found = found(&proof);
        prop_assert!(is_minimal(&truth, found.set), "{:#x}", found.set);
        prop_assert!(!found.flaky);
        // At worst three looks at each of what is asked: the halves, and the pairs of members.
        // Against each stands one with everything.
        let most = 2 * 3 * (6 * 3 + 6 * 7 / 2 + 6) + 4;
        prop_assert!(proof.builds <= most, "{} builds", proof.builds);
    }

    #[test]
    fn flakes_are_no_requirement(
        // Of the first runs of a set that does, up to two fail.
        truth in truth(prop_oneof![3 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(5)]),
        sure in 0..=START,
        parallel in 1usize..4,
        turns in vec(0usize..4, 1..9),
    ) {
        let mut truth = truth;
        let proof = prove(&truth, sure, sure, parallel, &turns);
        match &proof.next {
            Next::Found(found) => prop_assert!(is_minimal(&truth, found.set)),
            // With the starting set as well, now and then.
            other => prop_assert!(matches!(other, Next::Stuck(_)), "{:?}", other),
        }
        truth.flakes[usize::from(START)] = 0;
        let proof = prove(&truth, sure, sure, parallel, &turns);
        prop_assert!(is_minimal(&truth, found(&proof).set));
    }

    #[test]
    fn whatever_fails_at_random_ends(
        flakes in vec(any::<u8>(), 64),
        does in function(),
        sure in 0..=START,
    ) {
        let truth = Truth { does, refused: vec![0; 64], flakes };
        let proof = prove(&truth, sure, sure, 2, &[0]);
        let mixed = proof.planner.outcomes.values().any(|all| mixed(all));
        match proof.next {
            Next::Found(found) => prop_assert_eq!(found.flaky, mixed),
            Next::Stuck(_) => {}
            Next::Build(_) => unreachable!(),
        }
    }

    #[test]
    fn right_verdicts_take_four_builds_more_than_members(
        needs in 0..=START,
        unsure in 0..=START,
        parallel in 1usize..4,
    ) {
        let does = (0..64).map(|bits: u8| bits & needs == needs).collect();
        let refused = (0..64).map(|bits: u8| needs & !bits).collect();
        let truth = Truth { does, refused, flakes: vec![0; 64] };
        let proof = prove(&truth, needs, needs | unsure, parallel, &[0]);
        prop_assert_eq!(found(&proof).set, set(needs));
        // Where the whole set is needed, the reference builds have shown already that it does.
        let saved = if needs == START { 2 } else { 0 };
        prop_assert_eq!(proof.builds, needs.count_ones() as usize + 4 - saved);
    }

    #[test]
    fn expectations_come_true_where_verdicts_are_right(needs in 0..=START) {
        let does: Vec<bool> = (0..64).map(|bits: u8| bits & needs == needs).collect();
        let refused = (0..64).map(|bits: u8| needs & !bits).collect();
        let truth = Truth { does, refused, flakes: vec![0; 64] };
        let mut planner = Planner::new(set(START));
        planner.observe(set(START), Outcome::Same);
        planner.expect(set(needs), set(needs));
        let mut left = planner.expected();
        loop {
            match planner.next(&[], 1) {
                Next::Build(trials) => {
                    planner.observe(trials[0].set, truth.outcome(trials[0].set, 0));
                    left -= 1;
                    prop_assert_eq!(planner.expected(), left);
                }
                Next::Found(_) => break,
                Next::Stuck(why) => prop_assert!(false, "{:?}", why),
            }
        }
        prop_assert_eq!(left, 0);
    }
}

#[test]
fn the_least_dangerous_of_several_sets_is_found() {
    // Any one of 0, 5, 13 does.
    let does = (0..64).map(|bits: u8| bits & 0b111 != 0).collect();
    let truth = Truth {
        does,
        refused: vec![0; 64],
        flakes: vec![0; 64],
    };
    let proof = prove(&truth, 0b111, 0b111, 1, &[0]);
    assert_eq!(found(&proof).set, 1 << 0);
}

#[test]
fn a_build_that_fails_with_everything_has_no_set() {
    let truth = Truth {
        does: vec![false; 64],
        refused: vec![0; 64],
        flakes: vec![0; 64],
    };
    let proof = prove(&truth, 0, 0, 2, &[0]);
    assert_eq!(proof.next, Next::Stuck(Stuck::Fails));
    assert_eq!(proof.builds, 2);
}

#[test]
fn what_ends_without_an_answer_is_tried_once_more() {
    let mut planner = Planner::new(set(START));
    for _ in 0..2 {
        planner.observe(set(START), Outcome::Same);
    }
    planner.expect(set(1), set(1));
    let trial = |purpose, bits| Trial {
        set: set(bits),
        purpose,
    };
    assert_eq!(
        planner.next(&[], 1),
        Next::Build(vec![trial(Purpose::Sure, 1)])
    );
    planner.observe(set(1), Outcome::Void);
    assert_eq!(
        planner.next(&[], 1),
        Next::Build(vec![trial(Purpose::Sure, 1)])
    );
    let mut void = planner.clone();
    void.observe(set(1), Outcome::Void);
    assert_eq!(void.next(&[], 1), Next::Stuck(Stuck::Void(set(1))));
    planner.observe(set(1), Outcome::Same);
    let without = trial(Purpose::Without(Cap::CHOWN), 0);
    assert_eq!(planner.next(&[], 1), Next::Build(vec![without]));
    // A build that waits for ever is not given up at the first time, nor before one with all ends well.
    let control = trial(Purpose::Reference, START);
    for next in [without, trial(Purpose::Last, 1)] {
        planner.observe(0, Outcome::Endless);
        assert_eq!(planner.next(&[], 1), Next::Build(vec![control]));
        planner.observe(set(START), Outcome::Same);
        assert_eq!(planner.next(&[], 1), Next::Build(vec![next]));
    }
    assert_eq!(
        planner.next(&[], 1),
        Next::Build(vec![trial(Purpose::Last, 1)])
    );
    assert_eq!(planner.known(), (set(1), set(1)));
}

#[test]
fn a_refusal_explains_nothing_where_builds_fail_by_chance() {
    let mut planner = Planner::new(set(START));
    for _ in 0..2 {
        planner.observe(set(START), Outcome::Same);
    }
    planner.expect(0, set(1));
    let refused = Outcome::Differs { refused: set(1) };
    planner.observe(0, refused);
    planner.observe(set(1), Outcome::Same);
    planner.observe(set(1), Outcome::Same);
    let found = |set| {
        let flaky = false;
        Next::Found(Found { set, flaky })
    };
    assert_eq!(planner.next(&[], 1), found(set(1)));
    // Were it not for this one.
    planner.observe(set(1), refused);
    let asked = |planner: &Planner| match planner.next(&[], 1) {
        Next::Build(trials) => trials[0].set,
        other => panic!("it is sure of itself: {other:?}"),
    };
    // First, whether it fails with everything as well.
    assert_eq!(asked(&planner), set(START));
    planner.observe(set(START), Outcome::Same);
    assert_eq!(asked(&planner), 0);
    for _ in 0..2 {
        planner.observe(0, Outcome::Same);
    }
    assert_eq!(planner.known().0, 0);
}

#[test]
fn an_outage_is_no_requirement() {
    // The builds from the third to the eighth fail, whatever they have.
    let mut planner = Planner::new(set(START));
    let mut builds = 0;
    let end = loop {
        let next = planner.next(&[], 1);
        let Next::Build(trials) = next else {
            break next;
        };
        builds += 1;
        let outcome = match builds {
            4..10 => Outcome::Differs { refused: 0 },
            _ => Outcome::Same,
        };
        planner.observe(trials[0].set, outcome);
        planner.expect(0, set(1));
        assert!(builds < 100);
    };
    match end {
        Next::Found(found) => assert_eq!(found.set, 0),
        other => assert!(
            matches!(other, Next::Stuck(Stuck::Unstable(_))),
            "{other:?}"
        ),
    }
}

#[test]
fn what_runs_is_not_wanted_again() {
    let mut planner = Planner::new(set(START));
    let reference = Trial {
        set: set(START),
        purpose: Purpose::Reference,
    };
    assert_eq!(planner.next(&[], 4), Next::Build(vec![reference; 2]));
    assert_eq!(planner.next(&[set(START)], 3), Next::Build(vec![reference]));
    planner.observe(set(START), Outcome::Same);
    planner.expect(set(0b11), set(0b11));
    let Next::Build(trials) = planner.next(&[set(START)], 2) else {
        panic!("nothing wanted");
    };
    let purposes: Vec<Purpose> = trials.iter().map(|trial| trial.purpose).collect();
    // The most powerful first.
    assert_eq!(purposes, [Purpose::Sure, Purpose::Without(Cap::KILL)]);
}
