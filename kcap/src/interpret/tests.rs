use proptest::prelude::*;

use super::*;
use crate::capture::{Exec, Origin, Program, Sets, Tally};
use crate::render::{self, Format, Style};
use crate::report;

/// Docker's default set.
const DOCKER: u64 = 0xa804_25fb;

fn session(tallies: Vec<Tally>) -> Capture {
    let program = Program {
        id: 1,
        origin: Origin::Exec,
        path: "/bin/tool".to_owned(),
        exec: Some(Exec {
            caps: Sets {
                bounding: DOCKER,
                ..Sets::default()
            },
            ..Exec::default()
        }),
        ..Program::default()
    };
    let mut capture = Capture {
        programs: vec![program],
        tallies,
        ..Capture::default()
    };
    capture.host.arch = "x86_64".to_owned();
    capture
        .host
        .sysctl
        .insert("vm.overcommit_memory".to_owned(), "0".to_owned());
    capture
}

fn tally(cap: Cap, granted: bool, syscall: u16, class: u32, count: u64) -> Tally {
    Tally {
        program: 1,
        cap: Some(cap.0),
        result: u8::from(!granted),
        syscall: Some(syscall),
        abi: 1,
        class,
        count,
        ..Tally::default()
    }
}

fn failed(mut tally: Tally, errno: u8) -> Tally {
    tally.failed.insert(errno, tally.count);
    tally
}

const OPENAT: u16 = 257;
const FCHOWNAT: u16 = 260;
const LINKAT: u16 = 265;
const MMAP: u16 = 9;
const KILL: u16 = 62;
const FCHMOD: u16 = 91;
const ACCESS: u16 = 21;

fn of(report: &Report, cap: Cap) -> &Capability {
    report.capabilities.iter().find(|c| c.name == cap).unwrap()
}

#[test]
fn a_build_in_small() {
    let report = interpret(&session(vec![
        tally(Cap::CHOWN, true, FCHOWNAT, 0, 29),
        tally(Cap::SYS_ADMIN, false, MMAP, 0, 8301),
        failed(tally(Cap::SYS_RESOURCE, false, 160, 7, 2), 1),
        tally(Cap::AUDIT_WRITE, true, 44, 0, 3),
    ]));
    assert_eq!(
        report.required,
        [Cap::CHOWN, Cap::SYS_RESOURCE, Cap::AUDIT_WRITE]
    );
    assert_eq!(report.unsure, [Cap::AUDIT_WRITE]);
    assert_eq!(report.checks, 29 + 8301 + 2 + 3);
    assert_eq!(of(&report, Cap::CHOWN).because, Because::Used);
    assert_eq!(of(&report, Cap::SYS_RESOURCE).because, Because::Refused);
    assert_eq!(of(&report, Cap::AUDIT_WRITE).because, Because::OutOfBand);
    assert_eq!(of(&report, Cap::SYS_ADMIN).because, Because::NoEffect);
    assert_eq!(report.subject.capabilities.len(), 14);
    assert!(report.complete);
}

#[test]
fn where_outcomes_were_lost_none_is_known() {
    let mut lossy = session(vec![tally(Cap::CHOWN, true, FCHOWNAT, 0, 3)]);
    lossy.loss.outcomes = 1;
    let report = interpret(&lossy);
    assert_eq!(report.required, [Cap::CHOWN]);
    assert_eq!(of(&report, Cap::CHOWN).verdict, Verdict::Unsure);
    assert!(!report.complete);
}

#[test]
fn the_same_read_whatever_the_set_it_was_traced_with() {
    // With Docker's set: refused, then DAC_OVERRIDE.
    let docker = interpret(&session(vec![
        tally(Cap::DAC_OVERRIDE, true, OPENAT, 0, 4),
        tally(Cap::DAC_READ_SEARCH, false, OPENAT, 0, 4),
    ]));
    // With all of them: DAC_READ_SEARCH at once.
    let mut all = session(vec![tally(Cap::DAC_READ_SEARCH, true, OPENAT, 0, 4)]);
    all.programs[0].exec.as_mut().unwrap().caps.bounding = u64::MAX;
    let all = interpret(&all);
    for report in [&docker, &all] {
        assert_eq!(report.required, [Cap::DAC_OVERRIDE]);
        assert_eq!(
            report.decisions[0].any_of,
            [Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH]
        );
        assert_eq!(
            of(report, Cap::DAC_OVERRIDE).alternatives,
            [Cap::DAC_READ_SEARCH]
        );
        assert_eq!(of(report, Cap::DAC_READ_SEARCH).verdict, Verdict::Unneeded);
        assert_eq!(
            of(report, Cap::DAC_READ_SEARCH).because,
            Because::OtherAnswer
        );
    }
    assert_eq!(of(&all, Cap::DAC_OVERRIDE).checks, 0, "never asked for");
    // With DAC_READ_SEARCH only, what answered is what the build had.
    let mut only = session(vec![tally(Cap::DAC_READ_SEARCH, true, OPENAT, 0, 4)]);
    only.programs[0].exec.as_mut().unwrap().caps.bounding = Cap::DAC_READ_SEARCH.bit();
    assert_eq!(interpret(&only).required, [Cap::DAC_READ_SEARCH]);
}

#[test]
fn a_write_and_a_handle_have_one_answer() {
    // Five questions, four of them after a refused read: one was a write.
    let write = interpret(&session(vec![
        tally(Cap::DAC_OVERRIDE, true, OPENAT, 0, 5),
        tally(Cap::DAC_READ_SEARCH, false, OPENAT, 0, 4),
    ]));
    assert_eq!(write.decisions.len(), 1);
    assert_eq!(write.decisions[0].any_of, [Cap::DAC_OVERRIDE]);
    let mut link = session(vec![tally(Cap::DAC_READ_SEARCH, true, LINKAT, 0x1000, 1)]);
    link.programs[0].exec.as_mut().unwrap().caps.bounding = u64::MAX;
    assert_eq!(interpret(&link).required, [Cap::DAC_READ_SEARCH]);
}

#[test]
fn a_read_refused_by_both_needs_what_a_container_could_give() {
    let mut refused = session(vec![
        failed(tally(Cap::DAC_OVERRIDE, false, OPENAT, 0, 1), 13),
        failed(tally(Cap::DAC_READ_SEARCH, false, OPENAT, 0, 1), 13),
    ]);
    // The container has one of them, so it was the program that had not.
    assert_eq!(interpret(&refused).required, []);
    refused.programs[0].exec.as_mut().unwrap().caps.bounding = 0;
    let report = interpret(&refused);
    assert_eq!(report.required, [Cap::DAC_OVERRIDE]);
    assert!(report.unsure.is_empty());
}

#[test]
fn evidence_is_bounded_and_its_rest_counted() {
    let tallies = (0..200)
        .map(|nr| tally(Cap::CHOWN, true, nr, 0, u64::from(nr) + 1))
        .collect();
    let report = interpret(&session(tallies));
    let evidence = &of(&report, Cap::CHOWN).evidence;
    assert_eq!(evidence.len(), EVIDENCE + 1);
    assert!(evidence[EVIDENCE].other);
    assert!(evidence[..EVIDENCE].is_sorted_by_key(|e| std::cmp::Reverse(e.count)));
}

#[test]
fn an_incomplete_report_says_so_of_what_it_leaves_out() {
    let mut capture = session(vec![tally(Cap::SYS_ADMIN, false, MMAP, 0, 1)]);
    capture.loss.execs = 1;
    let report = interpret(&capture);
    assert!(!report.complete);
    assert!(
        of(&report, Cap::SYS_ADMIN)
            .reason
            .starts_with("as far as was seen: ")
    );
}

/// What must hold of every report.
fn check(report: &Report) -> Result<(), TestCaseError> {
    let mut checks = 0;
    for capability in &report.capabilities {
        prop_assert_eq!(capability.checks, capability.granted + capability.denied);
        let by_step: u64 = capability.steps.iter().map(|s| s.checks).sum();
        prop_assert_eq!(capability.checks, by_step);
        prop_assert!(
            capability
                .steps
                .iter()
                .all(|s| s.checks == s.granted + s.denied)
        );
        let by_evidence: u64 = capability.evidence.iter().map(|e| e.count).sum();
        prop_assert_eq!(capability.checks, by_evidence);
        prop_assert!(capability.evidence.len() <= EVIDENCE + 1);
        prop_assert_eq!(
            capability.verdict != Verdict::Unneeded,
            report.required.contains(&capability.name)
        );
        prop_assert_eq!(
            capability.verdict == Verdict::Unsure,
            report.unsure.contains(&capability.name)
        );
        prop_assert!(!capability.alternatives.contains(&capability.name));
        // No piece of evidence outweighs the verdict.
        let heaviest = capability.evidence.iter().filter_map(|e| e.verdict).max();
        prop_assert!(heaviest.is_none_or(|v| v <= capability.verdict));
        checks += capability.checks;
    }
    prop_assert_eq!(report.checks, checks);
    prop_assert_eq!(
        report.checks,
        report.steps.iter().map(|s| s.checks).sum::<u64>()
    );
    for step in &report.steps {
        let of_step = |c: &Capability| {
            c.steps
                .iter()
                .filter(|s| s.step == step.index)
                .map(|s| s.checks)
                .sum::<u64>()
        };
        prop_assert_eq!(
            step.checks,
            report.capabilities.iter().map(of_step).sum::<u64>()
        );
        prop_assert!(
            step.required
                .iter()
                .all(|cap| report.required.contains(cap))
        );
    }
    prop_assert!(report.required.is_sorted() && report.unsure.is_sorted());
    prop_assert!(report.capabilities.is_sorted_by_key(|c| c.number));
    for decision in &report.decisions {
        prop_assert!(decision.any_of.contains(&decision.chosen));
        prop_assert!(report.required.contains(&decision.chosen));
    }
    let chosen: BTreeSet<Cap> = report.decisions.iter().map(|d| d.chosen).collect();
    prop_assert_eq!(
        chosen.into_iter().collect::<Vec<_>>(),
        report.required.clone()
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sums_and_sets_agree(capture in arbitrary::capture()) {
        let report = interpret(&capture);
        let seen: u64 = capture
            .tallies
            .iter()
            .filter(|t| t.unasked == 0 && t.cap.is_some())
            .map(|t| t.count)
            .sum();
        prop_assert_eq!(report.checks, seen);
        check(&report)?;
    }

    #[test]
    fn the_order_of_tallies_does_not_matter(capture in arbitrary::capture()) {
        let mut turned = capture.clone();
        turned.tallies.reverse();
        let last = turned.tallies.len().saturating_sub(1) as u32;
        turned.evidence.iter_mut().for_each(|e| e.tally = last - e.tally);
        turned.unasked.iter_mut().for_each(|u| u.tally = last - u.tally);
        let (mut a, mut b) = (interpret(&capture), interpret(&turned));
        // Which sample is shown may differ.
        for report in [&mut a, &mut b] {
            for capability in &mut report.capabilities {
                capability.evidence.iter_mut().for_each(|e| e.path.clear());
            }
        }
        prop_assert_eq!(a, b);
    }

    #[test]
    fn json_is_read_back_and_the_table_is_safe(capture in arbitrary::capture()) {
        let report = interpret(&capture);
        let mut json = Vec::new();
        render::write(&report, Format::Json, Style::default(), &mut json).unwrap();
        prop_assert_eq!(report::from_json(&json).unwrap(), report.clone());
        let mut table = Vec::new();
        render::write(&report, Format::Table, Style::default(), &mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        for line in table.lines() {
            prop_assert!(!line.contains(char::is_control), "{line:?}");
            prop_assert!(line.chars().count() <= 80, "{line:?}");
        }
    }
}

#[test]
fn an_unsure_capability_says_which_replay_settles_it() {
    let settle = |capture: &Capture| {
        let report = interpret(capture);
        (report.capabilities.iter())
            .filter_map(|c| Some((c.name, c.settle.clone()?)))
            .collect::<Vec<_>>()
    };
    let mut capture = session(vec![
        tally(Cap::KILL, true, KILL, 0, 1),
        tally(Cap::CHOWN, true, FCHOWNAT, 0, 1),
    ]);
    capture.subject.exit_status = Some(0);
    let without = "build again without KILL and compare the images";
    assert_eq!(
        settle(&capture),
        [(Cap::KILL, without.to_owned())],
        "of what is needed, nothing is open"
    );
    // Refused in silence, since the build had it not; and it failed for something else.
    let bounding = &mut capture.programs[0].exec.as_mut().unwrap().caps.bounding;
    *bounding = 0;
    capture.tallies = vec![tally(Cap::FSETID, false, FCHMOD, 0o2755, 1)];
    capture.subject.exit_status = Some(1);
    let with = "once the build succeeds, build again with FSETID and compare the images";
    assert_eq!(settle(&capture), [(Cap::FSETID, with.to_owned())]);
    // Both answer the question: without one, the other would.
    capture = session(vec![
        tally(Cap::DAC_READ_SEARCH, false, ACCESS, 4, 1),
        tally(Cap::DAC_OVERRIDE, true, ACCESS, 4, 1),
    ]);
    capture.subject.exit_status = Some(0);
    let bounding = &mut capture.programs[0].exec.as_mut().unwrap().caps.bounding;
    *bounding |= Cap::DAC_READ_SEARCH.bit();
    let both = "build again without DAC_OVERRIDE and DAC_READ_SEARCH and compare the images";
    assert_eq!(settle(&capture), [(Cap::DAC_OVERRIDE, both.to_owned())]);
}
