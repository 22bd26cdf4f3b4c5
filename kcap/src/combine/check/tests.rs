use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::capture::Capture;
use crate::combine::merge;
use crate::interpret::{arbitrary, interpret};
use crate::report::{By, Decision, Report, Sharp, State, Step};

fn need(any_of: &[Cap], line: u32, verdict: Verdict) -> (Vec<Cap>, u32, Verdict) {
    (any_of.to_vec(), line, verdict)
}

/// A report of needs, each met in an instruction of its own.
fn report(path: &str, needs: &[(Vec<Cap>, u32, Verdict)]) -> Report {
    let mut report = interpret(&Capture::default());
    report.subject.exit_status = Some(0);
    report.subject.dockerfile = Some(path.to_owned());
    report.subject.dockerfile_sha256 = Some("ab".repeat(32));
    for (any_of, line, verdict) in needs {
        let index = u32::try_from(report.steps.len()).unwrap();
        report.steps.push(Step {
            index,
            stage: Some(0),
            line: Some(*line),
            kind: "run".to_owned(),
            text: format!("RUN line {line}"),
            state: State::Ran,
            by: By::Log,
            sharp: Sharp::Exact,
            holds: None,
            checks: 0,
            required: vec![any_of[0]],
        });
        report.required.push(any_of[0]);
        if *verdict == Unsure {
            report.unsure.push(any_of[0]);
        }
        report.decisions.push(Decision {
            any_of: any_of.clone(),
            chosen: any_of[0],
            steps: vec![index],
            verdict: *verdict,
        });
    }
    report
}

fn builds(reports: Vec<Report>) -> Vec<Build> {
    let each = reports.into_iter().enumerate();
    merge(each.map(|(i, report)| Build::traced(format!("{i}"), report)))
}

fn allow(names: &str) -> Policy {
    Policy::of_names("--allow", names.split(',').filter(|n| !n.is_empty())).unwrap()
}

/// Dockerfile, capability and lines of what is over.
fn over(over: &[Over]) -> Vec<(&str, Cap, Vec<u32>)> {
    (over.iter())
        .map(|over| {
            let lines = over.at.iter().filter_map(|at| at.line).collect();
            (over.dockerfile.as_str(), over.capability, lines)
        })
        .collect()
}

use Verdict::{Needed, Unsure};

#[test]
fn what_is_over_is_named_with_its_line() {
    let builds = builds(vec![
        report(
            "a",
            &[
                need(&[Cap::CHOWN], 3, Needed),
                need(&[Cap::SETFCAP], 9, Needed),
                need(&[Cap::SETFCAP, Cap::SYS_ADMIN], 12, Unsure),
            ],
        ),
        report("b", &[need(&[Cap::CHOWN], 2, Needed)]),
    ]);
    let check = against_policy(&allow("CHOWN,KILL"), &builds, true);
    assert!(!check.pass && check.complete);
    assert_eq!(over(&check.over), [("a", Cap::SETFCAP, vec![9, 12])]);
    assert_eq!(check.spare, [Cap::KILL]);
    assert_eq!(check.builds[0].required, [Cap::CHOWN, Cap::SETFCAP]);
    assert_eq!(check.builds[1].over, []);
    let check = against_policy(&allow("chown,cap_setfcap"), &builds, true);
    assert!(check.pass && check.spare.is_empty());
}

#[test]
fn whatever_is_allowed_and_answers_is_enough() {
    let read: &[Cap] = &[Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH];
    let builds = builds(vec![report("a", &[need(read, 4, Needed)])]);
    let check = against_policy(&allow("DAC_READ_SEARCH"), &builds, true);
    assert!(check.pass && check.spare.is_empty());
    assert_eq!(check.builds[0].required, [Cap::DAC_READ_SEARCH]);
    // One of the two is spare.
    let check = against_policy(&allow("DAC_READ_SEARCH,DAC_OVERRIDE"), &builds, true);
    assert_eq!(check.spare, [Cap::DAC_READ_SEARCH]);
    let check = against_policy(&allow(""), &builds, true);
    assert_eq!(over(&check.over), [("a", Cap::DAC_OVERRIDE, vec![4])]);
    assert_eq!(check.over[0].any_of, read);
}

#[test]
fn unsure_counts_unless_told_otherwise() {
    let builds = builds(vec![report("a", &[need(&[Cap::KILL], 4, Unsure)])]);
    assert!(!against_policy(&allow("CHOWN"), &builds, true).pass);
    assert!(against_policy(&allow("CHOWN"), &builds, false).pass);
    // Allowed, it is in use all the same.
    assert!(
        against_policy(&allow("KILL"), &builds, false)
            .spare
            .is_empty()
    );
}

#[test]
fn what_was_not_seen_to_the_end_proves_nothing() {
    let of = |change: fn(&mut Report)| {
        let mut changed = report("a", &[]);
        change(&mut changed);
        against_policy(&allow(""), &builds(vec![changed]), true)
    };
    assert!(of(|_| {}).complete);
    for change in [
        (|r| r.complete = false) as fn(&mut Report),
        |r| r.interrupted = true,
        |r| r.subject.exit_status = Some(1),
        |r| r.subject.exit_status = None,
        |r| r.subject.late = true,
    ] {
        let check = of(change);
        assert!(check.pass && !check.complete);
        assert!(check.builds[0].incomplete.is_some());
    }
    let unseen = [Build::unseen("x".into(), Status::Error, "gone".into())];
    assert!(!against_policy(&allow(""), &unseen, true).complete);
    let cached = of(|r| r.coverage.cached = 2);
    assert!(cached.complete && cached.notes[0].contains("--cache=false"));
}

#[test]
fn a_baseline_tells_what_came_and_went_and_by_which_line() {
    let old = builds(vec![
        report(
            "a",
            &[
                need(&[Cap::CHOWN], 3, Needed),
                need(&[Cap::KILL], 5, Unsure),
            ],
        ),
        report("b", &[need(&[Cap::SETFCAP], 2, Needed)]),
        report("c", &[]),
    ]);
    let mut changed = report(
        "a",
        &[
            need(&[Cap::CHOWN], 3, Needed),
            need(&[Cap::SETUID], 8, Needed),
        ],
    );
    changed.subject.dockerfile_sha256 = Some("cd".repeat(32));
    let new = builds(vec![
        changed,
        report("c", &[]),
        report("d", &[need(&[Cap::SETFCAP], 2, Needed)]),
    ]);
    let check = against_baseline("old", &old, &new, true);
    assert_eq!(over(&check.over), [("a", Cap::SETUID, vec![8])]);
    assert_eq!(over(&check.went), [("a", Cap::KILL, vec![5])]);
    // What the baseline allows somebody is nothing new for a new one.
    assert_eq!(
        (check.added, check.gone),
        (vec!["d".into()], vec!["b".into()])
    );
    assert!(against_baseline("old", &old, &old, true).pass);

    // One against one is the same Dockerfile, wherever it lies.
    let one = |path| builds(vec![report(path, &[need(&[Cap::CHOWN], 3, Needed)])]);
    let check = against_baseline("old", &one("x/Dockerfile"), &one("/y/Dockerfile"), true);
    assert!(check.pass && check.added.is_empty() && check.gone.is_empty());
    // A build that failed does not tell what went.
    let mut failed = report("a", &[]);
    failed.subject.exit_status = Some(1);
    let check = against_baseline("old", &old[..1], &builds(vec![failed]), true);
    assert!(check.went.is_empty() && !check.complete);
}

#[test]
fn what_the_host_s_settings_hide_is_said() {
    let mut hidden = report("a", &[need(&[Cap::CHOWN], 2, Needed)]);
    hidden.suppressed = [Some(0), None]
        .into_iter()
        .zip([Cap::NET_BIND_SERVICE, Cap::NET_RAW])
        .map(|(step, name)| crate::report::Suppressed {
            name,
            setting: String::new(),
            value: String::new(),
            step,
            reason: String::new(),
        })
        .collect();
    let builds = builds(vec![hidden]);
    let said = |allowed: &str, name: &str| {
        let check = against_policy(&allow(allowed), &builds, true);
        assert!(check.pass);
        check.notes.iter().any(|note| note.starts_with(name))
    };
    assert!(said("CHOWN", "NET_BIND_SERVICE "));
    assert!(!said("CHOWN,NET_BIND_SERVICE", "NET_BIND_SERVICE "));
    // It is not known that the build did this one.
    assert!(!said("CHOWN", "NET_RAW "));
}

#[test]
fn nothing_goes_where_nothing_changed() {
    // The first is answered by what the build held; the second by what it did not hold, which would
    // answer the first as well.
    let read: &[Cap] = &[Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH];
    let handle: &[Cap] = &[Cap::DAC_READ_SEARCH];
    let mut report = report("a", &[need(read, 2, Needed), need(handle, 3, Needed)]);
    report.subject.capabilities = vec![Cap::DAC_OVERRIDE];
    let builds = builds(vec![report]);
    let check = against_baseline("old", &builds, &builds, true);
    assert!(check.pass && check.went.is_empty(), "{check:?}");
}

fn policy(text: &str) -> Policy {
    Policy::of_text("file", text, None).unwrap()
}

fn allowed(text: &str) -> Vec<Cap> {
    policy(text).allowed.into_iter().collect()
}

#[test]
fn lists_take_any_form_of_names() {
    let list = "# ours\nCHOWN\ncap_setuid  # for USER\n\nSETGID, fowner\r\n";
    assert_eq!(
        allowed(list),
        [Cap::CHOWN, Cap::FOWNER, Cap::SETGID, Cap::SETUID]
    );
    assert_eq!(allowed("# nothing\n"), []);
    assert_eq!(allowed("all").len(), 41);
    let error = Policy::of_text("file", "CHOWN\nCHWON\n", None).unwrap_err();
    assert!(error.to_string().contains("CHWON"), "{error}");
    assert!(Policy::of_text("file", " \n", None).is_err());
}

#[test]
fn run_lines_grant_as_docker_does() {
    let article = "docker run --cap-drop=all --cap-add CHOWN --cap-add=SETUID --cap-add=SETGID \\\n  \
                   --cap-add=FOWNER --cap-add=DAC_OVERRIDE -v \"$(pwd)/Dockerfile:/Dockerfile\" \
                   executor:latest -f /Dockerfile --no-push";
    assert_eq!(policy(article).kind, Kind::RunLine);
    assert_eq!(
        policy(article).allowed,
        Policy::named("article").unwrap().allowed
    );
    let default: Vec<Cap> = Cap::of_mask(Cap::DOCKER_DEFAULT).collect();
    assert_eq!(allowed("docker run x"), default);
    assert_eq!(allowed("sudo /usr/bin/podman create x").len(), 11);
    assert_eq!(
        allowed("docker run --cap-drop=KILL --cap-add=BPF x").len(),
        14
    );
    assert_eq!(
        allowed("docker run --cap-add=all --cap-drop=KILL x").len(),
        40
    );
    assert_eq!(
        allowed("docker run --cap-add=all --cap-drop=all x").len(),
        41
    );
    assert_eq!(allowed("docker run --privileged x").len(), 41);
    assert_eq!(allowed("docker container run --cap-drop all x"), []);
    let user = policy("docker run --user 1000:1000 --cap-drop=all x");
    assert!(user.notes[0].contains("another user than root"));
    assert!(policy("docker run -u 0 --cap-drop=all x").notes.is_empty());
    let two = Policy::of_text("f", "docker run a\ndocker run b\n", None).unwrap_err();
    assert!(two.to_string().contains("several"), "{two}");
    assert!(Policy::of_text("f", "docker run --cap-add=NOPE x", None).is_err());
}

const POD: &str = "
apiVersion: batch/v1
kind: CronJob
spec:
  jobTemplate:
    spec:
      template:
        spec:
          initContainers:
          - {name: prepare, securityContext: {privileged: true}}
          containers:
          - name: kaniko
            image: executor
            securityContext: &context
              allowPrivilegeEscalation: false
              capabilities: {drop: [ALL], add: [CHOWN, CAP_SETUID]}
";

#[test]
fn pods_grant_as_runtimes_do() {
    let error = Policy::of_text("f", POD, None).unwrap_err().to_string();
    assert!(
        error.contains("kaniko, prepare") && error.contains("--container"),
        "{error}"
    );
    let kaniko = Policy::of_text("f", POD, Some("kaniko")).unwrap();
    assert_eq!(kaniko.kind, Kind::Pod);
    assert_eq!(Vec::from_iter(kaniko.allowed), [Cap::CHOWN, Cap::SETUID]);
    assert!(kaniko.notes[0].contains("allowPrivilegeEscalation"));
    let prepare = Policy::of_text("f", POD, Some("prepare")).unwrap();
    assert_eq!(prepare.allowed.len(), 41);
    assert!(Policy::of_text("f", POD, Some("other")).is_err());

    let container = "securityContext:\n  capabilities:\n    drop:\n    - NET_RAW\n";
    assert_eq!(allowed(container).len(), 13);
    assert_eq!(policy(container).kind, Kind::Container);
    // What is dropped by name is dropped, added or not; a second document is one more container.
    let json = r#"{"capabilities": {"add": ["ALL", "KILL"], "drop": ["KILL"]}}"#;
    assert_eq!(allowed(json).len(), 40);
    assert_eq!(allowed(r#"{"capabilities": {"drop": ["all"]}}"#), []);
    let two = format!("---\n{container}---\nspec: {{containers: [{{name: x}}]}}\n");
    assert_eq!(allowed(&two).len(), 14);
    assert!(
        policy("runAsNonRoot: true\n")
            .notes
            .iter()
            .any(|n| n.contains("needs root"))
    );
    for odd in [
        "capabilities: {add: CHOWN}",
        "capabilities: {add: [1]}",
        "capabilities: {add: [NOPE]}",
        "a: b",
        "- CHOWN: x",
        "{",
        "\"text",
        "a: &a [*a, *a]",
    ] {
        let error = Policy::of_text("f", odd, None).unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{odd}: {error:?}");
    }
}

#[test]
fn reports_and_matrices_allow_what_they_require() {
    let one = report("a", &[need(&[Cap::CHOWN], 3, Needed)]);
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(allowed(&text), [Cap::CHOWN]);
    let matrix = crate::combine::Matrix::of(builds(vec![one]));
    assert_eq!(
        allowed(&serde_json::to_string(&matrix).unwrap()),
        [Cap::CHOWN]
    );
    let error = Policy::of_text("f", r#"{"schema": "kcap.report/v7"}"#, None).unwrap_err();
    assert!(error.to_string().contains("kcap.report/v7"), "{error}");
}

#[test]
fn a_hostile_yaml_ends() {
    // Aliases of aliases: 9^9 values.
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let before = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(", "));
    }
    let deep = "[".repeat(100_000);
    for text in [bomb.as_str(), deep.as_str()] {
        assert!(Policy::of_text("f", text, None).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn allowing_what_is_over_passes_and_less_does_not(
        captures in vec(arbitrary::capture(), 1..4),
        allowed in btree_set((0u8..41).prop_map(Cap), 0..12),
        unsure_counts in any::<bool>(),
    ) {
        let reports = captures.iter().enumerate().map(|(i, capture)| {
            let mut report = interpret(capture);
            report.subject.dockerfile = Some(format!("{i}"));
            report.subject.dockerfile_sha256 = Some("ab".to_owned());
            report
        });
        let builds = builds(reports.collect());
        let mut policy = allow("");
        policy.allowed = allowed.clone();
        let check = against_policy(&policy, &builds, unsure_counts);
        prop_assert_eq!(check.pass, check.over.is_empty());

        // Exactly the decisions that nothing allowed answers are over.
        let counts = |need: &Need| unsure_counts || need.verdict == Needed;
        let open = builds.iter().flat_map(crate::combine::needs)
            .filter(|(_, need)| counts(need) && need.any_of.is_disjoint(&allowed)).count();
        prop_assert_eq!(check.pass, open == 0);

        let mut wider = policy.clone();
        wider.allowed.extend(check.over.iter().map(|over| over.capability));
        prop_assert!(against_policy(&wider, &builds, unsure_counts).pass);
        // What is spare can go.
        let mut tighter = wider.clone();
        tighter.allowed.retain(|cap| !check.spare.contains(cap));
        prop_assert!(against_policy(&tighter, &builds, unsure_counts).pass);
        // Against itself nothing comes and nothing goes.
        let same = against_baseline("x", &builds, &builds, unsure_counts);
        prop_assert!(same.pass && same.went.is_empty() && same.gone.is_empty());
    }

    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,200}", structured in
        "(docker run |capabilities|securityContext|\\{|\\}|\\[|\\]|: |- |\n|  |CHOWN|ALL|&a|\\*a|\"|'|#){0,40}") {
        for text in [text, structured] {
            if let Err(error) = Policy::of_text("f", &text, Some("x")) {
                prop_assert!(!error.to_string().contains(char::is_control));
            }
        }
    }
}
