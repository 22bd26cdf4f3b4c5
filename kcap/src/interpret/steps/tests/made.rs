//! Logs and sessions made up: what an author, a pod or a fault can do to a log.

use super::*;

const STAGE: &str = "Building stage 'busybox' [idx: '0', base-idx: '-1']";
const FULL: &str = "Taking snapshot of full filesystem...";
const RUNNING: &str = "Running: [/bin/sh -c x]";

/// Line, kind, state and checks of what is named.
fn step(report: &Report, line: u32, kind: &str) -> (State, By, Sharp, u64) {
    let step = report
        .steps
        .iter()
        .find(|step| step.line == Some(line) && step.kind == kind)
        .unwrap_or_else(|| panic!("line {line} {kind} in\n{}", shown(report)));
    (step.state, step.by, step.sharp, step.checks)
}

fn other(report: &Report, kind: &str) -> Option<(String, u64)> {
    let step = report.steps.iter().find(|step| step.kind == kind)?;
    Some((step.text.clone(), step.checks))
}

#[test]
fn an_instruction_cannot_pass_for_a_phase() {
    let stage = "ENV Building stage 'x' [idx: '1', base-idx: '-1']";
    let snapshot = format!("RUN {FULL}");
    let dockerfile =
        format!("FROM busybox\n{stage}\n{snapshot}\nRUN INFO[0001] {FULL}\nRUN last\n");
    let forged = "Args: [-c x\n\u{1b}[36mINFO\u{1b}[0m[0003] RUN last\nRUN last]";
    let fourth = format!("RUN INFO[0001] {FULL}");
    let log = info(&[
        STAGE,
        stage,
        &snapshot,
        "Cmd: /bin/sh",
        forged,
        RUNNING,
        FULL,
        &fourth,
        RUNNING,
        FULL,
        "RUN last",
        RUNNING,
        FULL,
    ]);
    let mut capture = capture(&dockerfile, &log);
    let report = interpret(&capture);
    assert_eq!(
        step(&report, 2, "env"),
        (State::Ran, By::Log, Sharp::Exact, 1)
    );
    assert_eq!(
        step(&report, 3, "run"),
        (State::Ran, By::Exec, Sharp::Exact, 205)
    );
    assert_eq!(
        step(&report, 4, "run"),
        (State::Ran, By::Exec, Sharp::Exact, 203)
    );
    assert_eq!(
        step(&report, 5, "run"),
        (State::Ran, By::Exec, Sharp::Exact, 203)
    );
    // The rest of a write that was split in two is no line.
    let whole = capture.log[4].clone();
    let rest = LogLine {
        text: info(&["RUN last"])[0].clone(),
        ..whole
    };
    capture.log.insert(5, rest);
    assert_eq!(shown(&interpret(&capture)), shown(&report));
}

#[test]
fn a_base_image_adds_instructions() {
    let dockerfile = "FROM nodejs:onbuild\nRUN mine\nRUN true\n";
    let log = info(&[
        "Executing 2 build triggers",
        STAGE,
        "Unpacking rootfs as cmd COPY . /app requires it.",
        "COPY . /app",
        "Taking snapshot of files...",
        "RUN true",
        RUNNING,
        FULL,
        "RUN mine",
        RUNNING,
        FULL,
        "RUN true",
        RUNNING,
        FULL,
    ]);
    let report = report(dockerfile, &log);
    let shown = shown(&report);
    let expected = "\
0    copy       ran       log     exact   1 COPY . /app
0    snapshot   ran       log     exact   1 the file system is compared after: COPY . /app
0    run        ran       exec    exact 203 RUN true
0    snapshot   ran       log     exact   1 the file system is compared after: RUN true
0  2 run        ran       exec    exact 203 RUN mine
";
    assert!(shown.contains(expected), "{shown}");
    assert_eq!(report.coverage.ran, 5, "{shown}");
    // Where it failed, nothing says how many there are.
    let mut failed = capture(dockerfile, &log[..10]);
    failed.subject.exit_status = Some(1);
    let report = interpret(&failed);
    assert_eq!(
        step(&report, 2, "run"),
        (State::Ran, By::Exec, Sharp::Exact, 203)
    );
    assert_eq!(step(&report, 3, "run").0, State::Unreached);
    // One that is also the first of the Dockerfile.
    let dockerfile = "FROM nodejs:onbuild\nRUN a\nRUN b\n";
    let log = info(&[
        STAGE, "RUN a", RUNNING, "RUN a", RUNNING, FULL, "RUN b", RUNNING,
    ]);
    let report = super::report(dockerfile, &log);
    assert_eq!(step(&report, 2, "run").3, 203);
    assert_eq!(step(&report, 2, "snapshot").3, 1);
}

#[test]
fn a_text_that_differs_is_told_by_its_turn() {
    // A variable that the log has hidden; a text that is unlike, but whose turn it is.
    let dockerfile = "FROM busybox\nRUN login secret && x\nRUN a\nCOPY b /b\n";
    let log = info(&[
        STAGE,
        "RUN login *** && x",
        RUNNING,
        FULL,
        "RUN  unlike",
        RUNNING,
        FULL,
        "COPY b /b",
    ]);
    let report = report(dockerfile, &log);
    assert_eq!(step(&report, 2, "run").2, Sharp::Exact);
    assert_eq!(
        step(&report, 3, "run"),
        (State::Ran, By::Exec, Sharp::Order, 203)
    );
    assert_eq!(
        step(&report, 4, "copy").2,
        Sharp::Mixed,
        "the image is written after it"
    );
}

#[test]
fn stages_that_are_numbered_without_the_skipped_ones() {
    // GoogleContainerTools 1.24 with --skip-unused-stages: the third stage is its second.
    let dockerfile =
        "FROM a AS one\nRUN one\nFROM a AS two\nRUN two\nFROM a\nCOPY --from=one x y\n";
    let second = "Building stage 'a' [idx: '1', base-idx: '-1']";
    let log = info(&[
        "Resolved base name a to one",
        "Executing 0 build triggers",
        STAGE,
        "Unpacking rootfs as cmd RUN one requires it.",
        "Initializing snapshotter ...",
        FULL,
        "RUN one",
        "Cmd: /bin/sh",
        "Args: [-c one]",
        RUNNING,
        FULL,
        "Saving file x for later use",
        "Deleting filesystem...",
        "Executing 0 build triggers",
        second,
        "Unpacking rootfs as cmd COPY --from=one x y requires it.",
        "COPY --from=one x y",
        "Taking snapshot of files...",
        "Pushing image to registry.example/x",
        "Pushed registry.example/x@sha256:0",
    ]);
    let report = report(dockerfile, &log);
    assert_eq!(step(&report, 2, "run").3, 205);
    assert_eq!(step(&report, 3, "from").0, State::Skipped);
    assert_eq!(step(&report, 4, "run").0, State::Skipped);
    assert_eq!(
        step(&report, 6, "copy"),
        (State::Ran, By::Log, Sharp::Exact, 1)
    );
    assert_eq!(other(&report, "push").unwrap().1, 2);
    assert_eq!(step(&report, 6, "snapshot").2, Sharp::Mixed);
}

/// The same without a log, as with `-v error`.
fn silenced(dockerfile: &str, log: &[String]) -> Capture {
    let mut capture = capture(dockerfile, log);
    capture.log.clear();
    // Without a line no generation begins.
    let phases: Vec<u32> = (capture.programs.iter())
        .filter(|p| p.origin == Origin::Phase)
        .map(|p| p.id)
        .collect();
    capture.programs.retain(|p| p.origin != Origin::Phase);
    for program in &mut capture.programs {
        if program
            .parent
            .is_some_and(|parent| phases.contains(&parent))
        {
            program.parent = Some(ROOT);
        }
    }
    capture.tallies.retain(|t| !phases.contains(&t.program));
    capture
}

#[test]
fn without_a_log_programs_tell_the_runs_apart() {
    let dockerfile = "FROM busybox\nCOPY a b\nRUN one\nRUN two\nUSER 1\n";
    let log = [RUNNING.to_owned(), RUNNING.to_owned()];
    let mut capture = silenced(dockerfile, &log);
    let report = interpret(&capture);
    assert_eq!(
        step(&report, 3, "run"),
        (State::Ran, By::Exec, Sharp::Order, 201)
    );
    assert_eq!(
        step(&report, 4, "run"),
        (State::Ran, By::Exec, Sharp::Order, 201)
    );
    assert_eq!(
        step(&report, 2, "copy"),
        (State::Ran, By::Unknown, Sharp::Unknown, 0)
    );
    let (text, checks) = other(&report, "other").unwrap();
    assert!(text.contains("silenced") && checks == 1, "{text} {checks}");
    assert!(report.notes[0].contains("silenced"));

    // It failed after the last: what came then is not known to have run.
    capture.subject.exit_status = Some(1);
    let report = interpret(&capture);
    assert_eq!(step(&report, 2, "copy").0, State::Ran);
    assert_eq!(step(&report, 5, "user").0, State::Unreached);

    // One program for two instructions: nothing says whose it is.
    let report = interpret(&silenced(dockerfile, &log[..1]));
    for line in [3, 4] {
        assert_eq!(
            step(&report, line, "run"),
            (State::Unreached, By::Unknown, Sharp::Unknown, 0)
        );
    }
    assert_eq!(other(&report, "other").unwrap().1, 202);
}

#[test]
fn helpers_are_no_instructions() {
    let dockerfile = "FROM busybox\nRUN one\n";
    let mut capture = silenced(dockerfile, &[RUNNING.to_owned(), RUNNING.to_owned()]);
    let helper = capture
        .programs
        .iter_mut()
        .find(|p| p.path == "/bin/sh")
        .unwrap();
    helper.path = "/kaniko/docker-credential-ecr-login".to_owned();
    let report = interpret(&capture);
    assert_eq!(
        step(&report, 2, "run"),
        (State::Ran, By::Exec, Sharp::Order, 201)
    );
}

#[test]
fn several_executors_in_one_container() {
    let dockerfile = "FROM busybox\nRUN one\n";
    let log = info(&[STAGE, "RUN one", RUNNING, FULL]);
    let mut capture = capture(dockerfile, &log);
    // A shell that runs `executor version` first, and another build after.
    let count = capture.programs.len() as u32;
    let template = capture.programs[1].clone();
    let mut add = |id: u32, parent, executor, start_ns, origin| {
        capture.programs.push(Program {
            id,
            parent: Some(parent),
            executor,
            start_ns,
            origin,
            path: "x".to_owned(),
            exec: template.exec.clone().filter(|_| origin == Origin::Exec),
            ..template.clone()
        });
        capture.tallies.push(Tally {
            program: id,
            cap: Some(0),
            count: 1,
            ..Tally::default()
        });
    };
    let shell = count + 1;
    add(shell, 1, false, 0, Origin::Exec);
    add(shell + 1, shell, true, 0, Origin::Exec);
    add(shell + 2, shell, true, 90, Origin::Exec);
    add(shell + 3, shell + 2, true, 91, Origin::Phase);
    add(shell + 4, shell + 2, true, 92, Origin::Phase);
    capture.programs[1].parent = Some(shell);
    capture.programs[1].start_ns = 1;
    for (program, text) in [(shell + 3, STAGE), (shell + 4, "RUN theirs")] {
        capture.log.push(LogLine {
            time_ns: 100,
            program,
            text: info(&[text])[0].clone(),
            cut: false,
        });
    }
    // And one that the RUN executes, which may say what it wants.
    let shell_of_run = (capture.programs.iter())
        .find(|p| p.path == "/bin/sh")
        .unwrap()
        .id;
    let nested = shell + 5;
    for (id, parent, origin) in [
        (nested, shell_of_run, Origin::Exec),
        (nested + 1, nested, Origin::Phase),
    ] {
        capture.programs.push(Program {
            id,
            parent: Some(parent),
            executor: true,
            origin,
            ..Program::default()
        });
        capture.tallies.push(Tally {
            program: id,
            cap: Some(0),
            count: 10,
            ..Tally::default()
        });
    }
    capture.log.insert(
        2,
        LogLine {
            time_ns: 3,
            program: nested + 1,
            text: info(&[FULL])[0].clone(),
            cut: false,
        },
    );
    let report = interpret(&capture);
    assert_eq!(
        step(&report, 2, "run"),
        (State::Ran, By::Exec, Sharp::Exact, 223)
    );
    assert_eq!(step(&report, 2, "snapshot").3, 1);
    assert_eq!(other(&report, "job").unwrap().1, 5);
    assert!(
        report.notes[0].starts_with("2 more executors"),
        "{:?}",
        report.notes
    );
    assert_eq!(other(&report, "container-start").unwrap().1, 1);
    // With its log silenced it is the first whose log does not show another Dockerfile.
    capture
        .log
        .retain(|line| line.text.contains(STAGE) || line.text.contains("theirs"));
    capture.log.retain(|line| line.time_ns == 100);
    capture.programs[shell as usize].start_ns = 2;
    let report = interpret(&capture);
    assert_eq!(
        step(&report, 2, "run"),
        (State::Ran, By::Exec, Sharp::Order, 221)
    );
}

#[test]
fn what_cannot_be_told_is_said() {
    let dockerfile = "FROM busybox\nRUN one\n";
    let log = info(&[STAGE, "RUN one", RUNNING, FULL]);
    let mut lost = capture(dockerfile, &log);
    lost.log.retain(|line| !line.text.contains(FULL));
    lost.tallies.push(Tally {
        program: 999,
        cap: Some(0),
        count: 5,
        ..Tally::default()
    });
    let report = interpret(&lost);
    let others: Vec<(&str, u64)> = (report.steps.iter())
        .filter(|step| step.kind == "other")
        .map(|step| (step.text.as_str(), step.checks))
        .collect();
    assert_eq!(
        others,
        [
            ("not told apart: a line of the executor's log was lost", 1),
            ("where these programs come from was not seen", 5),
        ]
    );

    let dockerfile = "ARG A\nFROM a AS zero\nRUN zero\nFROM busybox\nUSER x\nRUN one\n";
    let mut late = capture(dockerfile, &info(&["RUN one", RUNNING, FULL]));
    late.subject.late = true;
    let report = interpret(&late);
    assert_eq!(step(&report, 6, "run").3, 203);
    assert_eq!(report.coverage.ran, 1, "what came before was not seen");
    assert_eq!(report.coverage.unreached, 5);
    assert!(other(&report, "other").unwrap().0.contains("began late"));
    assert!(
        report.subject.late && report.notes[0].contains("was running"),
        "{:?}",
        report.notes
    );
}

#[test]
fn without_a_dockerfile_the_log_names_the_instructions() {
    let log = info(&[STAGE, "RUN one", RUNNING, FULL, "ENV a=b", "CMD x"]);
    for text in [None, Some("FROM\n".to_owned()), Some("\u{0}".to_owned())] {
        let mut capture = capture("", &log);
        capture.subject.dockerfile_text = text.clone();
        let report = interpret(&capture);
        let shown = shown(&report);
        let expected = "\
0    from       ran       log     exact   1 stage 'busybox' [idx: '0', base-idx: '-1']
0    run        ran       exec    exact 203 RUN one
0    snapshot   ran       log     exact   1 the file system is compared after: RUN one
0    env        ran       log     exact   1 ENV a=b
";
        assert!(shown.contains(&expected.replace("from       ran       log     exact", "from       ran       log     mixed").replace("base-idx: '-1']", "base-idx: '-1'] (and unpacks its base image, where another stage copies from it)")), "{shown}");
        assert_eq!(
            report.notes.is_empty(),
            text.is_none(),
            "{:?}",
            report.notes
        );
    }
}

#[test]
fn a_build_that_ends_early_reached_no_more() {
    let dockerfile =
        "ARG A\nFROM a AS one\nRUN one\nFROM a AS unused\nFROM one\nRUN two\nMAINTAINER x\n";
    let whole = info(&[
        STAGE,
        "RUN one",
        RUNNING,
        FULL,
        "Deleting filesystem...",
        "Building stage 'one' [idx: '2', base-idx: '0']",
        "RUN two",
        RUNNING,
    ]);
    let states = |log: &[String]| {
        let mut capture = capture(dockerfile, log);
        capture.subject.exit_status = None;
        let report = interpret(&capture);
        let coverage = report.coverage;
        (coverage.ran, coverage.skipped, coverage.unreached)
    };
    assert_eq!(states(&whole), (5, 1, 1), "MAINTAINER was not come to");
    assert_eq!(states(&whole[..4]), (3, 0, 4));
    assert_eq!(states(&info(&["Retrieving image manifest a"])), (0, 0, 7));
    // It is the executor's own end that counts, not that of what ran it.
    let mut capture = capture(dockerfile, &whole);
    let last = capture
        .programs
        .iter_mut()
        .rfind(|p| p.origin == Origin::Phase)
        .unwrap();
    last.wait_status = Some(256);
    assert_eq!(interpret(&capture).coverage.unreached, 1);
}

#[test]
fn what_a_run_mounts_is_prepared_after_the_first_snapshot() {
    let run = "RUN --mount=type=cache,target=/c x";
    let dockerfile = format!("FROM busybox\n{run}\n");
    let log = |with: &[&str]| {
        let start = [STAGE, run, "Initializing snapshotter ...", FULL];
        info(&[&start[..], with, &["Cmd: /bin/sh", RUNNING, FULL]].concat())
    };
    let quiet = report(&dockerfile, &log(&[]));
    assert_eq!(step(&quiet, 2, "snapshot").2, Sharp::Mixed);
    assert_eq!(step(&quiet, 2, "run").3, 204);
    let skips = report(
        &dockerfile,
        &log(&["skip mounting \"x\" as it is not available"]),
    );
    assert_eq!(step(&skips, 2, "run").3, 205);
}

#[test]
fn what_a_run_leaves_running_stays_its_own() {
    let dockerfile = "FROM busybox\nRUN daemon &\nRUN two\n";
    let log = info(&[
        STAGE,
        "RUN daemon &",
        RUNNING,
        FULL,
        "RUN two",
        RUNNING,
        FULL,
    ]);
    let mut capture = capture(dockerfile, &log);
    let daemon = capture
        .programs
        .iter()
        .rfind(|p| p.path == "/bin/sh" && p.start_ns == 3);
    let daemon = daemon.unwrap().id;
    let id = capture.programs.len() as u32 + 1;
    capture.programs.push(Program {
        id,
        parent: Some(daemon),
        origin: Origin::Exec,
        start_ns: 1000,
        exec: capture.programs[1].exec.clone(),
        ..Program::default()
    });
    capture.tallies.push(Tally {
        program: id,
        cap: Some(1),
        count: 1000,
        ..Tally::default()
    });
    let report = interpret(&capture);
    assert_eq!(step(&report, 2, "run").3, 1203);
    assert_eq!(step(&report, 3, "run").3, 203);
}

#[test]
fn a_switch_of_user_belongs_to_the_run() {
    // Between fork and exec the child is still the executor's program.
    let dockerfile = "FROM busybox\nUSER 1\nRUN x\n";
    let log = info(&[STAGE, "USER 1", "RUN x", RUNNING, FULL]);
    let mut capture = capture(dockerfile, &log);
    let child = (capture.programs.iter())
        .find(|p| p.origin == Origin::Fork && p.executor)
        .unwrap()
        .id;
    capture.tallies = vec![Tally {
        program: child,
        cap: Some(7),
        count: 1,
        syscall: Some(105),
        abi: 1,
        ..Tally::default()
    }];
    let report = interpret(&capture);
    assert_eq!(step(&report, 3, "run").3, 1);
    assert_eq!(report.checks, 1);
}
