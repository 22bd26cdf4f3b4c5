//! Holds a capture against what the workload (`tests/workload`) says must have happened: the counts
//! it expects, and the claim that nothing else happened there.

use kcap::capture::{Capture, Tally};
use serde::Deserialize;

/// Fields that a check has to have; an absent one matches every check.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    cap: Option<u8>,
    syscall: Option<u16>,
    abi: u8,
    unasked: u8,
    result: Option<u8>,
    class: Option<u32>,
    outcome: Option<u8>,
    creds: Option<u8>,
    program: Option<String>,
    blind: Option<String>,
}

/// A line of the workload's output.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Claim {
        claim: Selector,
    },
    Expect {
        expect: Selector,
        count: u64,
        why: String,
    },
    Skip {
        skip: String,
    },
}

/// Why this host cannot perform the operation, where the workload says so.
pub fn skipped(expected: &str) -> Option<String> {
    expected
        .lines()
        .find_map(|line| match serde_json::from_str(line) {
            Ok(Line::Skip { skip }) => Some(skip),
            _ => None,
        })
}

/// Every difference between the workload's output and the capture, each with the tallies that it
/// concerns; empty where the counts are exact. Outcomes are not compared where the capture says that
/// it is blind for them. An output without any expectation is a difference, too.
pub fn compare(expected: &str, capture: &Capture) -> Vec<String> {
    let mut differences = Vec::new();
    let mut claims: Vec<Selector> = Vec::new();
    let mut expects: Vec<(Selector, u64, String)> = Vec::new();
    for line in expected.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Claim { claim }) => claims.push(claim),
            Ok(Line::Expect { expect, count, why }) => expects.push((expect, count, why)),
            Ok(Line::Skip { .. }) => return differences,
            Err(e) => differences.push(format!("not an expectation: {line}: {e}")),
        }
    }
    if expects.is_empty() {
        differences.push("the workload expects nothing: did it run?".to_owned());
    }
    let blind = |what: &str| capture.host.blind.iter().any(|blind| blind == what);
    let counts = |s: &Selector| !s.blind.as_deref().is_some_and(blind);
    claims.retain(counts);
    expects.retain(|(expect, ..)| counts(expect));
    if blind("outcome") {
        expects = without_outcomes(expects);
    }
    for tally in &capture.tallies {
        if tally.failed.values().sum::<u64>() > tally.count {
            differences.push(format!("more outcomes than checks: {tally:?}"));
        }
    }

    for (expect, count, why) in &expects {
        let seen: u64 = capture
            .tallies
            .iter()
            .map(|tally| matching(expect, tally, capture))
            .sum();
        if seen != *count {
            differences.push(format!(
                "{} ({why}): expected {count}, seen {seen}; near it: {}",
                show(expect),
                near(expect, capture),
            ));
        }
    }
    for claim in &claims {
        let seen: u64 = capture
            .tallies
            .iter()
            .map(|tally| matching(claim, tally, capture))
            .sum();
        let expected: u64 = expects
            .iter()
            .filter(|(expect, ..)| within(expect, claim))
            .map(|(_, count, _)| *count)
            .sum();
        if seen != expected {
            differences.push(format!(
                "{}: expected {expected} in all, seen {seen}: {}",
                show(claim),
                near(claim, capture),
            ));
        }
    }
    differences
}

/// The same expectations where nothing is known of outcomes; those that differ by theirs alone
/// become one.
fn without_outcomes(expects: Vec<(Selector, u64, String)>) -> Vec<(Selector, u64, String)> {
    let mut merged: Vec<(Selector, u64, String)> = Vec::new();
    for (expect, count, why) in expects {
        let expect = Selector {
            outcome: None,
            ..expect
        };
        match merged.iter_mut().find(|(other, ..)| *other == expect) {
            Some((_, sum, _)) => *sum += count,
            None => merged.push((expect, count, why)),
        }
    }
    merged
}

/// How many checks of the tally the selector matches.
fn matching(s: &Selector, tally: &Tally, capture: &Capture) -> u64 {
    let same = same_place(s, tally)
        && s.result.is_none_or(|result| result == tally.result)
        && s.class.is_none_or(|class| class == tally.class)
        && s.creds.is_none_or(|creds| creds == tally.creds)
        && s.program
            .as_ref()
            .is_none_or(|name| is_program(name, tally.program, capture));
    if !same {
        return 0;
    }
    match s.outcome {
        Some(0) => tally.count.saturating_sub(tally.failed.values().sum()),
        Some(errno) => tally.failed.get(&errno).copied().unwrap_or(0),
        None => tally.count,
    }
}

fn same_place(s: &Selector, tally: &Tally) -> bool {
    s.cap == tally.cap
        && s.syscall == tally.syscall
        && s.abi == tally.abi
        && s.unasked == tally.unasked
}

fn is_program(name: &str, id: u32, capture: &Capture) -> bool {
    capture
        .programs
        .iter()
        .any(|program| program.id == id && program.path.rsplit('/').next() == Some(name))
}

/// Whether all that `expect` matches is claimed by `claim`.
fn within(expect: &Selector, claim: &Selector) -> bool {
    expect.cap == claim.cap
        && expect.syscall == claim.syscall
        && expect.abi == claim.abi
        && expect.unasked == claim.unasked
        && (claim.result.is_none() || claim.result == expect.result)
        && (claim.class.is_none() || claim.class == expect.class)
}

fn show(s: &Selector) -> String {
    let mut text = match s.cap {
        Some(cap) => format!("capability {cap}"),
        None => format!("unasked need {}", s.unasked),
    };
    match s.syscall {
        Some(syscall) => text.push_str(&format!(" in system call {syscall} (abi {})", s.abi)),
        None => text.push_str(" outside of system calls"),
    }
    let numbers = [
        ("result", s.result.map(u32::from)),
        ("class", s.class),
        ("outcome", s.outcome.map(u32::from)),
        ("creds", s.creds.map(u32::from)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            text.push_str(&format!(", {name} {value}"));
        }
    }
    if let Some(program) = &s.program {
        text.push_str(&format!(", program {program}"));
    }
    text
}

/// The tallies of the same place, whatever else they say.
fn near(s: &Selector, capture: &Capture) -> String {
    const SHOWN: usize = 12;
    let tallies: Vec<&Tally> = capture
        .tallies
        .iter()
        .filter(|tally| same_place(s, tally))
        .collect();
    if tallies.is_empty() {
        return "nothing".to_owned();
    }
    let mut shown: Vec<String> = tallies
        .iter()
        .take(SHOWN)
        .map(|t| {
            let path = capture
                .programs
                .iter()
                .find(|program| program.id == t.program)
                .map_or("?", |program| program.path.as_str());
            format!(
                "{} (result {}, class {}, creds {}, failed {:?}, by {} {path:?})",
                t.count, t.result, t.class, t.creds, t.failed, t.program
            )
        })
        .collect();
    if tallies.len() > SHOWN {
        shown.push(format!("and {} more tallies", tallies.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kcap::capture::{Capture, Program, Tally};

    use super::{compare, skipped};

    const EXPECTED: &str = r#"{"claim":{"cap":7,"syscall":105,"abi":1,"unasked":0}}
{"expect":{"cap":7,"syscall":105,"abi":1,"unasked":0,"result":0,"class":39,"outcome":0},"count":40,"why":"x"}
{"expect":{"cap":7,"syscall":105,"abi":1,"unasked":0,"result":1,"outcome":1,"program":"after"},"count":2,"why":"y"}
"#;

    fn tally(cap: u8, syscall: u16, result: u8, count: u64) -> Tally {
        Tally {
            cap: Some(cap),
            syscall: Some(syscall),
            abi: 1,
            result,
            count,
            ..Tally::default()
        }
    }

    /// What [`EXPECTED`] says, in several tallies, among others that nothing is claimed of.
    fn exact() -> Capture {
        Capture {
            programs: vec![Program {
                id: 9,
                path: "/tmp/after".to_owned(),
                ..Program::default()
            }],
            tallies: vec![
                Tally {
                    class: 39,
                    ..tally(7, 105, 0, 30)
                },
                Tally {
                    class: 39,
                    program: 9,
                    ..tally(7, 105, 0, 10)
                },
                Tally {
                    program: 9,
                    failed: BTreeMap::from([(1, 2)]),
                    ..tally(7, 105, 1, 2)
                },
                tally(21, 56, 0, 8),
                tally(1, 257, 0, 1),
            ],
            ..Capture::default()
        }
    }

    #[test]
    fn exact_counts_have_no_differences() {
        assert_eq!(compare(EXPECTED, &exact()), Vec::<String>::new());
    }

    #[test]
    fn one_check_more_or_less_is_a_difference() {
        for change in [-1i64, 1] {
            let mut capture = exact();
            capture.tallies[0].count = capture.tallies[0].count.saturating_add_signed(change);
            let differences = compare(EXPECTED, &capture);
            assert_eq!(differences.len(), 2, "{differences:?}");
            assert!(
                differences[0].contains("expected 40, seen"),
                "{differences:?}"
            );
        }
    }

    #[test]
    fn an_unexpected_class_outcome_or_program_is_a_difference() {
        let mut class = exact();
        class.tallies[1].class = 4;
        assert_eq!(compare(EXPECTED, &class).len(), 1);
        let mut outcome = exact();
        outcome.tallies[2].failed = BTreeMap::from([(1, 1), (254, 1)]);
        assert_eq!(compare(EXPECTED, &outcome).len(), 1);
        let mut program = exact();
        program.programs[0].path = "/tmp/before".to_owned();
        assert_eq!(compare(EXPECTED, &program).len(), 1);
    }

    #[test]
    fn what_is_claimed_admits_nothing_else() {
        let mut capture = exact();
        capture.tallies.push(Tally {
            class: 1,
            ..tally(7, 105, 0, 1)
        });
        let differences = compare(EXPECTED, &capture);
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(
            differences[0].contains("expected 42 in all, seen 43"),
            "{differences:?}"
        );
    }

    #[test]
    fn blindness_is_respected() {
        let expected = r#"{"claim":{"cap":21,"syscall":9,"abi":1,"unasked":0,"result":1,"blind":"vm"}}
{"expect":{"cap":21,"syscall":9,"abi":1,"unasked":0,"result":1,"blind":"vm"},"count":5,"why":"x"}"#;
        let mut capture = Capture::default();
        assert_eq!(compare(expected, &capture).len(), 2);
        capture.host.blind = vec!["vm".to_owned()];
        assert!(compare(expected, &capture).is_empty());
        // An interrupted call asks twice: told apart by nothing but the outcome.
        let expected = r#"{"claim":{"cap":2,"syscall":257,"abi":1,"unasked":0}}
{"expect":{"cap":2,"syscall":257,"abi":1,"unasked":0,"result":0,"outcome":255},"count":5,"why":"x"}
{"expect":{"cap":2,"syscall":257,"abi":1,"unasked":0,"result":0,"outcome":0},"count":5,"why":"y"}"#;
        let mut capture = Capture {
            tallies: vec![tally(2, 257, 0, 10)],
            ..Capture::default()
        };
        assert_eq!(compare(expected, &capture).len(), 2);
        capture.host.blind = vec!["outcome".to_owned()];
        assert!(compare(expected, &capture).is_empty());
    }

    #[test]
    fn outcomes_that_exceed_the_checks_are_a_difference() {
        let mut capture = exact();
        capture.tallies[4].failed = BTreeMap::from([(13, 2)]);
        assert_eq!(compare(EXPECTED, &capture).len(), 1);
    }

    #[test]
    fn output_that_says_nothing_is_a_difference() {
        assert_eq!(compare("", &Capture::default()).len(), 1);
        assert_eq!(compare("oops", &Capture::default()).len(), 2);
        let skip = r#"{"skip":"no \"such\" thing"}"#;
        assert_eq!(skipped(skip).as_deref(), Some("no \"such\" thing"));
        assert!(compare(skip, &Capture::default()).is_empty());
        assert_eq!(skipped(EXPECTED), None);
    }
}
