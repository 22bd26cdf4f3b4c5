use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::capture::Capture;
use crate::interpret::{arbitrary, interpret};
use crate::report::Decision;

fn report(decisions: &[(&[Cap], Cap, Verdict)]) -> Report {
    let mut report = interpret(&Capture::default());
    report.subject.exit_status = Some(0);
    for (any_of, chosen, verdict) in decisions {
        report.required.push(*chosen);
        if *verdict == Verdict::Unsure {
            report.unsure.push(*chosen);
        }
        report.decisions.push(Decision {
            any_of: any_of.to_vec(),
            chosen: *chosen,
            steps: vec![],
            verdict: *verdict,
        });
    }
    report
}

fn builds(reports: impl IntoIterator<Item = Report>) -> Vec<Build> {
    let numbered = reports.into_iter().enumerate();
    numbered
        .map(|(i, report)| Build::traced(format!("{i}/Dockerfile"), report))
        .collect()
}

const READ: &[Cap] = &[Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH];

#[test]
fn the_set_is_chosen_again_over_all_decisions() {
    let matrix = Matrix::of(builds([
        report(&[(READ, Cap::DAC_OVERRIDE, Verdict::Needed)]),
        report(&[(
            &[Cap::DAC_READ_SEARCH],
            Cap::DAC_READ_SEARCH,
            Verdict::Unsure,
        )]),
        report(&[]),
    ]));
    assert_eq!(matrix.union.required, [Cap::DAC_READ_SEARCH]);
    assert_eq!(matrix.union.unsure, []);
    assert!(matrix.union.complete);
    let cells: Vec<_> = matrix
        .builds
        .iter()
        .map(|build| matrix.cell(build, Cap::DAC_READ_SEARCH))
        .collect();
    assert_eq!(cells, [Some(Verdict::Needed), Some(Verdict::Unsure), None]);
    assert_eq!(
        matrix.union.decisions[0].dockerfiles,
        ["0/Dockerfile"],
        "{matrix:?}"
    );
}

#[test]
fn needed_by_one_is_needed_though_unsure_to_another() {
    let kill: &[Cap] = &[Cap::KILL];
    let matrix = Matrix::of(builds([
        report(&[(kill, Cap::KILL, Verdict::Unsure)]),
        report(&[(kill, Cap::KILL, Verdict::Needed)]),
    ]));
    let column = &matrix.capabilities[0];
    assert_eq!(column.verdict, Verdict::Needed);
    assert_eq!(
        (&column.needed[..], &column.unsure[..]),
        (
            &["1/Dockerfile".to_owned()][..],
            &["0/Dockerfile".to_owned()][..]
        )
    );
    assert_eq!(matrix.union.unsure, []);
    assert_eq!(matrix.union.decisions.len(), 1);
}

#[test]
fn what_no_decision_explains_is_required_all_the_same() {
    let mut odd = report(&[]);
    odd.required = vec![Cap::MKNOD, Cap::KILL];
    odd.unsure = vec![Cap::KILL];
    let matrix = Matrix::of(builds([odd]));
    assert_eq!(matrix.union.required, [Cap::KILL, Cap::MKNOD]);
    assert_eq!(matrix.union.unsure, [Cap::KILL]);
}

#[test]
fn whatever_is_missing_makes_the_union_a_lower_bound() {
    let with = |change: fn(&mut Report)| {
        let mut changed = report(&[]);
        change(&mut changed);
        Matrix::of(builds([report(&[]), changed])).union.complete
    };
    assert!(with(|_| {}));
    assert!(!with(|r| r.complete = false));
    assert!(!with(|r| r.interrupted = true));
    assert!(!with(|r| r.subject.exit_status = Some(1)));
    assert!(!with(|r| r.subject.exit_status = None));
    let unseen = Build::unseen("x".into(), Status::Error, "no such file".into());
    assert!(!Matrix::of(vec![unseen]).union.complete);
}

#[test]
fn the_schema_is_that_of_the_types() {
    let matrix = Matrix::of(builds([report(&[(
        READ,
        Cap::DAC_OVERRIDE,
        Verdict::Needed,
    )])]));
    let json = serde_json::to_value(&matrix).unwrap();
    assert_eq!(json["schema"], SCHEMA);
    assert_eq!(json["builds"][0]["status"], "built");
    assert_eq!(json["union"]["required"][0], "DAC_OVERRIDE");
    assert_eq!(serde_json::from_value::<Matrix>(json).unwrap(), matrix);
}

fn set(caps: &[Cap]) -> BTreeSet<Cap> {
    caps.iter().copied().collect()
}

proptest! {
    // Each case interprets several captures.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_report_keeps_its_own_set(capture in arbitrary::capture()) {
        let report = interpret(&capture);
        let matrix = Matrix::of(builds([report.clone()]));
        prop_assert_eq!(&matrix.union.required, &report.required);
        prop_assert_eq!(&matrix.union.unsure, &report.unsure);
        for capability in &report.capabilities {
            let cell = matrix.cell(&matrix.builds[0], capability.name);
            prop_assert_eq!(cell, Some(capability.verdict), "{}", capability.name);
        }
    }

    #[test]
    fn the_union_answers_everybody_in_any_order(
        captures in vec(arbitrary::capture(), 0..5),
        turn in 0usize..5,
    ) {
        let reports: Vec<Report> = captures.iter().map(interpret).collect();
        let given = builds(reports.iter().cloned());
        let mut turned = given.clone();
        if !turned.is_empty() {
            let by = turn % turned.len();
            turned.rotate_left(by);
            turned[by / 2..].reverse();
        }
        let matrix = Matrix::of(given);
        let other = Matrix::of(turned);
        prop_assert_eq!(&matrix.union.required, &other.union.required);
        prop_assert_eq!(&matrix.union.unsure, &other.union.unsure);
        prop_assert_eq!(matrix.union.complete, other.union.complete);
        let verdicts = |m: &Matrix| -> Vec<_> {
            m.capabilities.iter().map(|c| (c.name, c.verdict)).collect()
        };
        prop_assert_eq!(verdicts(&matrix), verdicts(&other));

        let union = set(&matrix.union.required);
        for decision in reports.iter().flat_map(|report| &report.decisions) {
            prop_assert!(!union.is_disjoint(&set(&decision.any_of)));
        }
        let sum: BTreeSet<Cap> = reports.iter().flat_map(|r| &r.required).copied().collect();
        prop_assert!(union.len() <= sum.len());
        // Each member answers something, and each column stands for a member or for none.
        for column in &matrix.capabilities {
            prop_assert_eq!(
                union.contains(&column.name),
                column.verdict != Verdict::Unneeded,
                "{:?}", column
            );
        }
        prop_assert!(matrix.union.unsure.iter().all(|cap| union.contains(cap)));
    }
}
