//! Every check in the step that it was made for.

use std::{collections::BTreeMap, fs};

use kcap::{
    capture::Capture,
    report::{By, Report},
};

use super::{
    capture,
    counts::{Phase, executors},
    engine::{Engine, said},
    report,
};

/// Capabilities that the known executor asks for; what else a container's start, overlay file systems
/// and memory ask for is not among them, or in steps of its own.
const ASKED: [&str; 4] = ["CHOWN", "FOWNER", "SETGID", "SETUID"];

const DOCKERFILE: &str = "\
# unpack: chown:12 noatime:5@3
# initial: noatime:300@4
FROM scratch AS base
# snapshot: noatime:200@4
RUN truth chown:7 setuid:3
COPY --chown=7:7 chown:5000@2 /srv
# snapshot: fowner:6@2
RUN truth chown:1 setgid:2@3 background sleep:150 fowner:9 setgid:2
USER 1000:1000
RUN truth setuid:4
RUN truth sleep:500
ADD chown:300@5 /srv
ENV chown:70=1
FROM scratch
COPY chown:3 /x
";

/// What its steps ask for, by kind and line of the instruction.
const STEPS: [(&str, Option<u32>, &str, u64); 14] = [
    ("unpack", None, "CHOWN", 12),
    ("unpack", None, "FOWNER", 15),
    ("run", Some(5), "CHOWN", 7),
    ("run", Some(5), "SETUID", 3),
    ("copy", Some(6), "CHOWN", 10_000),
    ("run", Some(8), "CHOWN", 1),
    ("run", Some(8), "SETGID", 8),
    ("run", Some(8), "FOWNER", 9),
    // The user is changed for each RUN.
    ("run", Some(10), "SETGID", 2),
    ("run", Some(10), "SETUID", 5),
    ("run", Some(11), "SETGID", 2),
    ("run", Some(11), "SETUID", 1),
    ("add", Some(12), "CHOWN", 1500),
    ("copy", Some(15), "CHOWN", 3),
];

/// Checks by kind of step, line and capability.
fn steps(report: &Report) -> BTreeMap<(String, Option<u32>, String), u64> {
    let mut found = BTreeMap::new();
    for cap in &report.capabilities {
        let name = cap.name.to_string();
        if !ASKED.contains(&name.as_str()) {
            continue;
        }
        for of in &cap.steps {
            let step = &report.steps[of.step as usize];
            assert_eq!(step.index, of.step, "steps are in order");
            // Of phases, which can come several times, the sum.
            let line = step.line.filter(|_| is_instruction(&step.kind));
            *found
                .entry((step.kind.clone(), line, name.clone()))
                .or_default() += of.checks;
        }
    }
    found
}

fn is_instruction(kind: &str) -> bool {
    ["run", "copy", "add", "user", "env"].contains(&kind)
}

fn is_start(kind: &str) -> bool {
    ["job", "container-start"].contains(&kind)
}

pub fn every_check_is_in_its_step(engine: &mut Engine) {
    engine.write("Dockerfile", DOCKERFILE);
    let before = engine.look();
    let output = engine
        .build()
        .args(["-f", "Dockerfile", "--report", "r", "--capture", "c"])
        .output()
        .expect("kcap runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    before.is_all(engine);
    let report = report(&engine.path("r"));
    assert!(report.complete, "{:?}", report.loss);
    let name = report.subject.engine.clone().unwrap_or_default();
    assert!(name.starts_with(engine.kind.name()), "{name}");

    let mut seen = steps(&report);
    // What a container's start asks for is the engine's.
    seen.retain(|(kind, ..), _| !is_start(kind));
    let mut expected: BTreeMap<_, _> = (STEPS.into_iter())
        .map(|(kind, line, cap, n)| ((kind.to_owned(), line, cap.to_owned()), n))
        .collect();
    // Before its first line.
    expected.insert(("start".into(), None, "CHOWN".into()), 1);
    // 1,200 at first, 800 after line 5, 12 after line 8.
    expected.insert(("snapshot".into(), None, "FOWNER".into()), 2012);
    assert_eq!(seen, expected);
    let required: Vec<String> = report.required.iter().map(ToString::to_string).collect();
    assert_eq!(required, ["CHOWN", "FOWNER", "SETGID", "SETUID"]);
}

pub fn an_executor_without_a_log_has_nothing_invented(engine: &mut Engine) {
    engine.write(
        "Dockerfile",
        "# silent\nFROM scratch\nCOPY chown:40 /a\nRUN truth setuid:5\nCOPY fowner:2 /b\n",
    );
    let before = engine.look();
    let output = engine
        .build()
        .args(["-f", "Dockerfile", "--report", "r", "--capture", "c"])
        .output()
        .expect("kcap runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    before.is_all(engine);
    assert!(capture(&engine.path("c")).log.is_empty());
    let report = report(&engine.path("r"));
    for step in &report.steps {
        // The one program that was executed is that of the one RUN.
        if step.kind == "run" {
            assert_eq!(step.by, By::Exec, "{step:?}");
        } else if step.line.is_some() {
            assert_eq!((step.by, step.checks), (By::Unknown, 0), "{step:?}");
        }
    }
    let seen = steps(&report);
    let of = |kind: &str, cap: &str| {
        (seen.iter())
            .filter(|((other, _, name), _)| other == kind && name == cap)
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    assert_eq!(of("run", "SETUID"), 5, "{seen:?}");
    // One more made the executor's file.
    assert_eq!(of("other", "CHOWN"), 41, "{seen:?}");
    assert_eq!(of("other", "FOWNER"), 2, "{seen:?}");
}

/// The checks of an executor, without the start of its container.
fn phases(capture: &Capture) -> Vec<Phase> {
    let mut executors = executors(capture);
    assert_eq!(executors.len(), 1);
    executors.remove(0)
}

pub fn side_by_side_is_as_one_by_one(engine: &mut Engine) {
    const BUILDS: usize = 10;
    for n in 0..BUILDS {
        let (chown, noatime, setuid) = (n + 1, 10 * n + 3, 100 * n + 7);
        let dockerfile = format!(
            "# initial: noatime:{noatime}@3\nFROM scratch\nCOPY chown:{chown}@2 /a\n\
             RUN truth setuid:{setuid}@2 sleep:50\nADD fowner:{chown} /b\n"
        );
        engine.write(&format!("{n}/Dockerfile"), &dockerfile);
    }
    let before = engine.look();
    for jobs in ["1", "10"] {
        let output = engine
            .build()
            .args(["-f", ".", "--jobs", jobs])
            .args(["-o", &format!("out-{jobs}")])
            .args(["--capture", &format!("captures-{jobs}")])
            .output()
            .expect("kcap runs");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        before.is_all(engine);
    }
    for n in 0..BUILDS {
        let of = |jobs| capture(&engine.path(&format!("captures-{jobs}/{n}.kcap")));
        let [one, many] = ["1", "10"].map(|jobs| phases(&of(jobs)));
        assert_eq!(one, many, "build {n}");
        let copy = format!("COPY chown:{}@2 /a", n + 1);
        let expected = Phase::new(&copy, &format!("chown:{}", 2 * (n + 1)), "");
        assert!(one.contains(&expected), "build {n}: {one:#?}");
        let children = format!("setuid:{}@2", 100 * n + 7);
        let expected = Phase::new("", "", &children).children;
        let ran = one.iter().filter(|phase| phase.children == expected);
        assert_eq!(ran.count(), 1, "build {n}: {one:#?}");
        let [one, many] =
            ["1", "10"].map(|jobs| report(&engine.path(&format!("out-{jobs}/{n}.json"))));
        assert_eq!(one.required, many.required, "build {n}");
        let [mut one, mut many] = [&one, &many].map(steps);
        // How a container is started is the engine's.
        for steps in [&mut one, &mut many] {
            steps.retain(|(kind, ..), _| !is_start(kind));
        }
        assert_eq!(one, many, "build {n}");
    }
}

pub fn secrets_are_in_no_file(engine: &mut Engine) {
    // The Dockerfile has the name; what the executor and its children see has the value.
    engine.write(
        "Dockerfile",
        "FROM scratch\nARG TOKEN\nCOPY chown:3 /a\nRUN truth setuid:5\n",
    );
    let before = engine.look();
    let output = engine
        .build()
        .args([
            "-f",
            "Dockerfile",
            "--report",
            "r",
            "--capture",
            "c",
            "-v",
            "--argv",
        ])
        .args(["--env", "PASSWORD=very-secret-word"])
        .args(["--", "--build-arg=TOKEN=very-secret-token"])
        .output()
        .expect("kcap runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    before.is_all(engine);
    // The capture is compressed: its text is what is written again.
    let capture = serde_json::to_string(&capture(&engine.path("c"))).expect("a capture is text");
    let report = fs::read_to_string(engine.path("r")).expect("a report");
    // The executor was given the flag, or nothing was to be hidden.
    assert!(capture.contains("--build-arg"), "{capture}");
    for (what, text) in [
        ("capture", &capture),
        ("report", &report),
        ("output", &said(&output)),
    ] {
        for secret in ["very-secret-word", "very-secret-token"] {
            assert!(!text.contains(secret), "{secret} is in the {what}");
        }
    }
}
