use super::*;
use crate::report;

/// Reports of real Kaniko builds of the corpus, with less evidence of what was not needed.
fn report(name: &str) -> Report {
    let text = match name {
        "copy-chown" => include_str!("fixtures/copy-chown.json"),
        "user-run" => include_str!("fixtures/user-run.json"),
        "daemon-left-other-user" => include_str!("fixtures/daemon-left-other-user.json"),
        _ => include_str!("fixtures/apt-adds-user.json"),
    };
    report::from_json(text.as_bytes()).unwrap()
}

fn sources(explanation: &Explanation) -> Vec<&str> {
    explanation.known.iter().map(|case| case.source).collect()
}

#[test]
fn copies_with_an_owner() {
    let report = report("copy-chown");
    let chown = explain(&report, Cap::CHOWN);
    assert_eq!(chown.verdict, Some(Verdict::Needed));
    assert_eq!(chown.without, Without::BuildFails);
    let lines: Vec<_> = chown.places.iter().map(|place| place.line).collect();
    assert_eq!(
        lines,
        [Some(2), Some(3), Some(5), Some(4)],
        "weightiest first"
    );
    assert!(chown.avoid[0].starts_with("Lines 2, 3, 4, 5: COPY --chown"));
    assert_eq!(
        sources(&chown),
        [
            "shipwright-io/build #93",
            "GoogleContainerTools/kaniko #778"
        ]
    );
    let avoid = avoid(&report);
    assert_eq!(
        avoid.len(),
        1,
        "one line for what one change avoids: {avoid:?}"
    );
    assert_eq!(
        avoid[0].caps,
        BTreeSet::from([Cap::CHOWN, Cap::DAC_OVERRIDE, Cap::FOWNER])
    );
}

#[test]
fn a_run_after_user() {
    let report = report("user-run");
    for cap in [Cap::SETUID, Cap::SETGID] {
        let explanation = explain(&report, cap);
        assert_eq!(
            explanation.without,
            Without::BuildFails,
            "the executor switches"
        );
        let cause = explanation.places[0].cause.as_deref();
        assert_eq!(cause, Some("after USER, line 3"));
        assert!(sources(&explanation).contains(&"shipwright-io/build #118"));
    }
    let fowner = explain(&report, Cap::FOWNER);
    assert!(fowner.avoid[0].contains("O_NOATIME"), "{:?}", fowner.avoid);
}

#[test]
fn a_daemon_left_by_a_run() {
    let report = report("daemon-left-other-user");
    let kill = explain(&report, Cap::KILL);
    assert_eq!(
        (kill.verdict, kill.without),
        (Some(Verdict::Unsure), Without::Unknown)
    );
    assert_eq!(sources(&kill), ["shipwright-io/build #654"]);
    assert!(kill.avoid[0].contains("daemon"));
    // su, and nothing of Kaniko's: what it makes of the failure is its own.
    assert_eq!(explain(&report, Cap::SETUID).without, Without::LikelyFails);
}

#[test]
fn packages_and_their_base_image() {
    let report = report("apt-adds-user");
    let chown = explain(&report, Cap::CHOWN);
    assert!(sources(&chown).contains(&"GoogleContainerTools/kaniko #1200"));
    assert!(sources(&explain(&report, Cap::FOWNER)).contains(&"GoogleContainerTools/kaniko #1171"));
    assert_eq!(explain(&report, Cap::FSETID).without, Without::MayLoseBits);
    let audit = explain(&report, Cap::AUDIT_WRITE);
    assert_eq!(audit.without, Without::Unknown);
    assert!(audit.user_namespace.starts_with("never asked"));
    // CHOWN has no short advice, as no instruction avoids what the base image brings.
    assert!(
        avoid(&report)
            .iter()
            .all(|avoid| !avoid.caps.contains(&Cap::CHOWN))
    );
}

#[test]
fn what_is_not_needed_is_not_avoided() {
    let report = report("apt-adds-user");
    let admin = explain(&report, Cap::SYS_ADMIN);
    assert_eq!(admin.verdict, Some(Verdict::Unneeded));
    assert_eq!(admin.without, Without::Nothing);
    assert!(!admin.required && admin.avoid.is_empty() && admin.known.is_empty());
    assert!(admin.places.iter().all(|place| place.cause.is_none()));
    let time = explain(&report, Cap::SYS_TIME);
    assert_eq!((time.verdict, time.checks), (None, 0));
    assert_eq!(time.summary, "nothing in this build asked for it");
}

#[test]
fn loss_and_what_was_not_seen_take_certainty_away() {
    let mut report = report("user-run");
    report.complete = false;
    let time = explain(&report, Cap::SYS_TIME);
    assert_eq!(time.without, Without::Unknown);
    assert!(time.summary.starts_with("as far as was seen"));
    assert!(time.notes[0].starts_with("not all was seen"));
    report.steps[4].state = State::Cached;
    let line = report.steps[4].line.unwrap();
    let notes = explain(&report, Cap::SYS_TIME).notes;
    assert!(notes.contains(&format!(
        "Line {line} came from a cache: what it asks for was not seen"
    )));
}

#[test]
fn a_refusal_tells_by_how_the_build_ended() {
    let mut report = report("user-run");
    let setuid = report
        .capabilities
        .iter_mut()
        .find(|c| c.name == Cap::SETUID)
        .unwrap();
    for evidence in &mut setuid.evidence {
        if evidence.verdict == Some(Verdict::Needed) {
            evidence.granted = Some(false);
            evidence.because = Some(Because::Refused);
        }
    }
    assert_eq!(explain(&report, Cap::SETUID).without, Without::WentOn);
    report.subject.exit_status = Some(1);
    assert_eq!(explain(&report, Cap::SETUID).without, Without::Unknown);
    let run = report
        .steps
        .iter()
        .find(|step| step.line == Some(4) && step.kind == "run");
    report.subject.last_step = run.map(|step| step.index);
    assert_eq!(explain(&report, Cap::SETUID).without, Without::FailedHere);
}

#[test]
fn the_hosts_namespace_is_told_by_the_call_path() {
    let mut report = report("daemon-left-other-user");
    let before = explain(&report, Cap::KILL).user_namespace;
    assert!(
        !before.contains("sampled"),
        "ns_capable is the object's: {before}"
    );
    for capability in &mut report.capabilities {
        for symbol in capability.evidence.iter_mut().flat_map(|e| &mut e.path) {
            if symbol == "ns_capable" {
                *symbol = "capable".to_owned();
            }
        }
    }
    let after = explain(&report, Cap::KILL).user_namespace;
    assert!(
        after.ends_with("here 1 of 1 sampled call paths ask the host's"),
        "{after}"
    );
}

#[test]
fn what_no_container_with_users_of_its_own_can_have() {
    let mut report = report("copy-chown");
    assert!(host_only(&report).is_empty());
    report.required.push(Cap::MKNOD);
    assert_eq!(host_only(&report), [Cap::MKNOD]);
}

#[test]
fn every_number_is_explained_and_places_are_bounded() {
    let mut report = report("apt-adds-user");
    let chown = report
        .capabilities
        .iter_mut()
        .find(|c| c.name == Cap::CHOWN)
        .unwrap();
    let template = chown.evidence[0].clone();
    for step in 0..100 {
        let mut evidence = template.clone();
        // Steps that the report has not, as only a damaged one does.
        evidence.step = Some(1000 + step);
        chown.evidence.push(evidence);
    }
    for number in 0..64 {
        let explanation = explain(&report, Cap(number));
        assert!(!explanation.allows.is_empty() && !explanation.summary.is_empty());
        assert!(explanation.places.len() <= PLACES.0);
    }
    let chown = explain(&report, Cap::CHOWN);
    assert_eq!(chown.places.len() + chown.more_places, 102);
}
