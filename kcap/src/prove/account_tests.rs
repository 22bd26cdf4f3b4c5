//! Replays made of a recorded build of real Kaniko (`corpus/user-switches`): it is known what was
//! observed, and each replay comes to what the test wants.

use std::{fs::File, io::BufReader, path::Path};

use super::{settle::never_asked, *};
use crate::{
    capture,
    compare::{Difference, Mode, Place, What},
    interpret::interpret,
    prove::{judge::Given, planner::Outcome},
    report::{Because, Capability, Evidence, ProofOutcome, State, Verdict},
};

fn observed() -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/user-switches/capture.kcap");
    let file = File::open(path).expect("it is in the repository");
    interpret(&capture::read(BufReader::new(file)).expect("it is a capture"))
}

fn mask(caps: &[Cap]) -> Set {
    caps.iter().fold(0, |all, cap| all | cap.bit())
}

const START: Set = Cap::DOCKER_DEFAULT;

fn same(set: Set) -> Replay {
    Replay {
        set: Cap::of_mask(set).collect(),
        purpose: "sure".into(),
        seconds: 1.5,
        report: Some(observed()),
        image: Some(Given {
            id: "sha256:0".into(),
            differences: vec![],
        }),
        void: None,
        supposed: vec![],
        kept: false,
    }
}

/// One that fails in the first RUN, where this capability is refused.
fn failed(set: Set, cap: Cap) -> Replay {
    let mut replay = same(set);
    replay.image = None;
    replay.purpose = format!("without {cap}");
    let report = replay.report.as_mut().unwrap();
    report.subject.exit_status = Some(1);
    let run = report.steps.iter().find(|s| s.kind == "run").unwrap().index;
    report.subject.last_step = Some(run);
    report.subject.log = vec![
        "INFO[0001] RUN x".into(),
        "useradd: cannot do it".into(),
        "error building image: waiting for process to exit: exit status 7".into(),
    ];
    refuse(report, cap, run, Verdict::Needed, Because::Refused);
    replay
}

fn refuse(report: &mut Report, cap: Cap, step: u32, verdict: Verdict, because: Because) {
    let evidence = Evidence {
        count: 3,
        unasked: 0,
        granted: Some(false),
        verdict: Some(verdict),
        because: Some(because),
        syscall: Some("fchownat".into()),
        outcome: Some("EPERM".into()),
        program: "/usr/sbin/useradd".into(),
        path: vec![],
        step: Some(step),
        reason: String::new(),
        rule: None,
        other: false,
    };
    match report.capabilities.iter_mut().find(|c| c.name == cap) {
        Some(capability) => capability.evidence = vec![evidence],
        None => {
            let mut capability = never_asked(cap);
            capability.evidence = vec![evidence];
            report.capabilities.push(capability);
        }
    }
}

fn proved(set: Set) -> (Report, Vec<Replay>) {
    let mut replays = vec![same(START), same(START), same(set)];
    replays[0].purpose = "reference".into();
    replays[1].purpose = "reference".into();
    replays.extend(Cap::of_mask(set).map(|cap| failed(set & !cap.bit(), cap)));
    let mut last = same(set);
    let traced = last.report.as_mut().unwrap();
    let run = traced.steps.iter().find(|s| s.kind == "run").unwrap().index;
    refuse(
        traced,
        Cap::AUDIT_WRITE,
        run,
        Verdict::Unsure,
        Because::OutOfBand,
    );
    last.purpose = "last".into();
    replays.push(last);
    let end = End::Found(Found { set, flaky: false });
    let about = about(12.0);
    (
        report(observed(), &replays, &Noise::default(), &end, &about),
        replays,
    )
}

fn about(seconds: f64) -> Circumstances {
    Circumstances {
        start: START,
        seconds,
        flaky: false,
        content: Content::Decides,
        repeat: Repeat::default(),
    }
}

const NEEDS: [Cap; 4] = [Cap::CHOWN, Cap::DAC_OVERRIDE, Cap::SETGID, Cap::SETUID];

#[test]
fn what_was_proved_is_required_and_nothing_else() {
    let before = observed();
    let (after, replays) = proved(mask(&NEEDS));
    assert_eq!(
        (after.basis, &after.required[..]),
        (Basis::Proved, &NEEDS[..])
    );
    assert!(after.unsure.is_empty());
    for capability in &after.capabilities {
        let proof = capability.proof.as_ref().expect("each has one");
        let needed = NEEDS.contains(&capability.name);
        assert_eq!(
            capability.verdict == Verdict::Needed,
            needed,
            "{}",
            capability.name
        );
        assert_eq!(
            proof.outcome == ProofOutcome::Failed,
            needed,
            "{}",
            capability.name
        );
    }
    assert!(
        before.required.contains(&Cap::FOWNER),
        "the rest would prove nothing"
    );
    // Nothing that was counted is changed.
    let sums = |report: &Report| -> Vec<(Cap, u64, u64)> {
        let of = |c: &Capability| (c.name, c.checks, c.evidence.iter().map(|e| e.count).sum());
        report.capabilities.iter().map(of).collect()
    };
    assert_eq!(sums(&before), sums(&after));
    for step in &after.steps {
        assert!(
            step.required.iter().all(|cap| NEEDS.contains(cap)),
            "{}",
            step.text
        );
    }
    for cap in NEEDS {
        assert!(
            after
                .decisions
                .iter()
                .any(|decision| decision.chosen == cap),
            "{cap}"
        );
    }
    assert!(
        after
            .decisions
            .iter()
            .all(|decision| NEEDS.contains(&decision.chosen))
    );

    let proof = after.proof.as_ref().unwrap();
    assert_eq!(
        (proof.builds as usize, proof.kept, proof.references),
        (replays.len(), 0, 2)
    );
    assert_eq!(proof.image.as_deref(), Some("sha256:0"));
    assert_eq!(after.trials.len(), replays.len());
    let text = serde_json::to_vec(&after).unwrap();
    assert_eq!(report::from_json(&text).unwrap(), after);
}

#[test]
fn witnesses_name_instruction_program_and_system_call() {
    let (after, _) = proved(mask(&NEEDS));
    let chown = after
        .capabilities
        .iter()
        .find(|c| c.name == Cap::CHOWN)
        .unwrap();
    let proof = chown.proof.as_ref().unwrap();
    assert_eq!(
        proof.detail,
        "line 2 fails: useradd: cannot do it; fchownat of useradd in line 2 refused"
    );
    // What the build with the proved set went without is said.
    let audit = after
        .capabilities
        .iter()
        .find(|c| c.name == Cap::AUDIT_WRITE)
        .unwrap();
    let tolerated = &audit.proof.as_ref().unwrap().tolerated;
    assert_eq!(tolerated, &["fchownat of useradd in line 2 refused 3x"]);
    assert!(after.notes.iter().any(|note| note.contains("AUDIT_WRITE")));
}

#[test]
fn a_failure_elsewhere_explains_nothing() {
    let set = mask(&NEEDS[1..]);
    let mut replay = failed(set, Cap::CHOWN);
    assert_eq!(
        replay.outcome(&Came::Failed),
        Some(Outcome::Differs {
            refused: Cap::CHOWN.bit()
        })
    );
    let report = replay.report.as_mut().unwrap();
    // Refused in the instruction before, it was not what failed.
    let later = report
        .steps
        .iter()
        .filter(|s| s.state == State::Ran && s.kind == "run")
        .nth(1);
    report.subject.last_step = Some(later.unwrap().index);
    assert_eq!(
        replay.outcome(&Came::Failed),
        Some(Outcome::Differs { refused: 0 })
    );
    // Nor where it was only a message that could be ignored.
    let mut replay = failed(set, Cap::CHOWN);
    let report = replay.report.as_mut().unwrap();
    let run = report.subject.last_step.unwrap();
    refuse(report, Cap::CHOWN, run, Verdict::Unsure, Because::OutOfBand);
    assert_eq!(
        replay.outcome(&Came::Failed),
        Some(Outcome::Differs { refused: 0 })
    );
}

#[test]
fn a_changed_image_is_explained_by_what_comes_of_a_refusal() {
    let set = START & !Cap::FSETID.bit();
    let mut replay = same(set);
    replay.image.as_mut().unwrap().differences = vec![Difference {
        place: Place::Path(b"/usr/bin/x".to_vec().into()),
        what: What::Mode {
            from: Mode(0o6755),
            to: Mode(0o755),
        },
    }];
    let came = replay.came(&Noise::default(), Content::Decides);
    assert!(matches!(came, Came::Changed(_)));
    assert_eq!(replay.outcome(&came), Some(Outcome::Differs { refused: 0 }));
    let report = replay.report.as_mut().unwrap();
    refuse(report, Cap::FSETID, 5, Verdict::Unsure, Because::Silent);
    let refused = Cap::FSETID.bit();
    assert_eq!(replay.outcome(&came), Some(Outcome::Differs { refused }));
    let (detail, step) = replay.detail(Some(Cap::FSETID), &came);
    assert!(detail.starts_with("/usr/bin/x: mode 6755"), "{detail}");
    assert_eq!(step, Some(5));
    // A mode that was lost is not SETFCAP's doing, whatever was refused.
    let report = replay.report.as_mut().unwrap();
    refuse(report, Cap::FSETID, 5, Verdict::Unneeded, Because::NoEffect);
    refuse(report, Cap::SETFCAP, 5, Verdict::Needed, Because::Refused);
    replay.set.retain(|cap| *cap != Cap::SETFCAP);
    assert_eq!(replay.outcome(&came), Some(Outcome::Differs { refused: 0 }));
}

#[test]
fn what_was_not_finished_says_so() {
    let replays = [
        same(START),
        same(mask(&NEEDS)),
        failed(mask(&NEEDS[1..]), Cap::CHOWN),
    ];
    let of = |end: End| {
        let about = about(0.0);
        report(observed(), &replays, &Noise::default(), &end, &about)
    };
    let early = |set, held| End::Early {
        why: "the budget is spent".into(),
        set,
        held,
    };
    let enough = of(early(mask(&NEEDS), Cap::CHOWN.bit()));
    let proof = enough.proof.as_ref().unwrap();
    assert_eq!(
        (enough.basis, proof.state),
        (Basis::Observed, Proven::Sufficient)
    );
    assert_eq!(
        (&enough.required[..], &proof.untried[..]),
        (&NEEDS[..], &NEEDS[1..])
    );
    let nothing = of(early(START, 0));
    assert_eq!(nothing.required, observed().required);
    assert_eq!(nothing.proof.unwrap().state, Proven::Unfinished);
    for (stuck, state) in [
        (Stuck::Fails, Proven::Failed),
        (Stuck::Unstable(START), Proven::Unstable),
        (Stuck::Void(START), Proven::Unfinished),
    ] {
        let report = of(End::Stuck(stuck));
        let proof = report.proof.unwrap();
        assert_eq!(proof.state, state);
        assert!(proof.reason.is_some_and(|why| why.len() > 20));
        assert_eq!(report.required, observed().required);
    }
}

#[test]
fn secrets_are_hidden_wherever_replays_brought_them() {
    let (mut report, _) = proved(mask(&NEEDS));
    let text = |report: &Report| serde_json::to_string(report).unwrap();
    assert!(text(&report).contains("useradd: cannot do it"));
    hide(&mut report, &["cannot do it".to_owned()]);
    let differs: String = report
        .trials
        .iter()
        .flat_map(|t| t.differs.clone())
        .collect();
    assert!(differs.contains("useradd: ***"), "{differs}");
    let own = |c: &Capability| (c.reason.clone(), c.proof.as_ref().map(|p| p.detail.clone()));
    let shown: Vec<_> = report.capabilities.iter().map(own).collect();
    assert!(!format!("{shown:?}").contains("cannot do it"), "{shown:?}");
}

#[test]
fn what_replays_refuted_is_not_recommended() {
    let all = mask(&observed().required);
    let replays = [same(START), failed(all, Cap::SETPCAP)];
    let end = End::Early {
        why: "the budget is spent".into(),
        set: START,
        held: 0,
    };
    let report = report(observed(), &replays, &Noise::default(), &end, &about(1.0));
    assert_eq!(mask(&report.required), START);
    for cap in Cap::of_mask(START & !all) {
        assert!(report.unsure.contains(&cap), "{cap}");
    }
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("did not give the same image"))
    );
}
