//! `kcap report` of several: one set for all, in any order, within bounds; ready to paste.

use std::fs;

use serde_json::Value;

use crate::check::{corpus, kcap};
use crate::harness::{Done, Place};
use crate::hostile::bounded;

const NAMES: [&str; 4] = ["chown-run", "scratch-copy", "user-run", "x-edge-proxy"];

fn report(place: &Place, args: &[&str]) -> Done {
    kcap(place, "report", args)
}

/// Reports of real builds, in a folder.
fn reports(place: &Place) {
    fs::create_dir(place.path("reports")).expect("it is ours");
    for name in NAMES {
        let done = report(place, &["--format", "json", &corpus(name)]);
        fs::write(
            place.path(format!("reports/{name}.json")),
            done.output.stdout,
        )
        .expect("it is ours");
    }
}

#[test]
fn several_are_one_set_in_any_order_and_grouping() {
    let place = Place::new();
    reports(&place);
    let file = |name: &str| format!("reports/{name}.json");
    let files = NAMES.map(file);
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    let json = |args: &[&str]| {
        let done = report(&place, &[&["--format", "json"], args].concat());
        assert_eq!(done.code(), Some(0), "{done:?}");
        done.stdout()
    };
    let matrix = json(&all);
    let mut turned = all.clone();
    turned.reverse();
    assert_eq!(json(&turned), matrix);
    assert_eq!(json(&["reports"]), matrix);
    // One twice is one; captures are as good; a matrix can be merged again.
    assert_eq!(json(&["reports", all[0]]), matrix);
    assert_eq!(
        json(&NAMES.map(corpus).each_ref().map(String::as_str)),
        matrix
    );
    fs::write(place.path("half.json"), json(&all[..2])).expect("it is ours");
    assert_eq!(json(&["half.json", all[3], all[2]]), matrix);
    assert_eq!(json(&["half.json"]), json(&all[..2]));

    let value: Value = serde_json::from_str(&matrix).expect("it is JSON");
    assert_eq!(value["schema"], "kcap.matrix/v1");
    assert_eq!(
        value["builds"][0]["dockerfile"],
        "corpus/chown-run/Dockerfile"
    );
    let saving = &value["savings"][0];
    assert_eq!(saving["dockerfiles"][0], "corpus/x-edge-proxy/Dockerfile");
    let drops: Vec<&str> = (saving["drops"].as_array().expect("a list").iter())
        .filter_map(Value::as_str)
        .collect();
    assert!(
        drops.contains(&"SETFCAP") && drops.contains(&"NET_BIND_SERVICE"),
        "{saving}"
    );
}

#[test]
fn the_screen_says_who_forces_what_and_what_a_few_less_would_save() {
    let place = Place::new();
    reports(&place);
    let done = report(&place, &["reports", "--profiles", "2"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    let text = done.stdout();
    for part in [
        "4 Dockerfiles   4 built",
        "CAP                  FORCED BY     WHERE",
        "SETFCAP              1 of 4        corpus/x-edge-proxy/Dockerfile:2,9",
        "GAIN    without corpus/x-edge-proxy/Dockerfile: no ",
        "PROFILE  DOCKERFILES  SET",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn several_runs_of_a_dockerfile_are_counted() {
    let place = Place::new();
    let done = report(&place, &["--format", "json", &corpus("x-edge-proxy")]);
    let mut value: Value = serde_json::from_str(&done.stdout()).expect("it is JSON");
    fs::write(place.path("1.json"), value.to_string()).expect("it is ours");
    value["subject"]["started"] = "2026-12-01T00:00:00Z".into();
    // What one run could not settle, another did not ask for.
    let unsure = |cap: &Value| value["unsure"].as_array().expect("a list").contains(cap);
    let kept = |list: &Value, of: fn(&Value) -> &Value| -> Vec<Value> {
        (list.as_array().expect("a list").iter())
            .filter(|item| !unsure(of(item)))
            .cloned()
            .collect()
    };
    let decisions = kept(&value["decisions"], |decision| &decision["chosen"]);
    let required = kept(&value["required"], |cap| cap);
    value["decisions"] = decisions.into();
    value["required"] = required.into();
    value["unsure"] = Value::Array(vec![]);
    fs::write(place.path("2.json"), value.to_string()).expect("it is ours");
    let done = report(&place, &["1.json", "2.json"]);
    let text = done.stdout();
    assert!(text.starts_with("1 Dockerfile   1 built"), "{text}");
    assert!(text.contains("ok, 2 runs"), "{text}");
    assert!(
        text.contains("KILL in 1 of 2 runs, last on 2026-11-"),
        "{text}"
    );
}

#[test]
fn incomplete_ones_are_refused_unless_told() {
    let place = Place::new();
    reports(&place);
    let path = place.path("reports/user-run.json");
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(
        &path,
        text.replace("\"complete\": true", "\"complete\": false"),
    )
    .expect("ours");
    let done = report(&place, &["reports"]);
    done.is_error(
        3,
        &["1 of 4", "corpus/user-run/Dockerfile", "--allow-incomplete"],
    );
    let done = report(&place, &["reports", "--allow-incomplete"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.stdout().contains("NEED    at least "), "{done:?}");
    let one = ["reports/user-run.json"];
    assert_eq!(report(&place, &one).code(), Some(3));
    assert_eq!(
        report(&place, &[one[0], "--allow-incomplete"]).code(),
        Some(0)
    );
}

#[test]
fn usage_that_makes_no_sense_is_a_line() {
    let place = Place::new();
    reports(&place);
    let one = "reports/user-run.json";
    let cases: [(&[&str], &str); 4] = [
        (
            &["--why", "CHOWN", "--format", "docker", "reports"],
            "--why has the formats table, json and markdown",
        ),
        (&["--profiles", "2", one], "--profiles is for several"),
        (&["--wrap", "pod", one], "--wrap is for --format kubernetes"),
        (&["reports/none.json"], "cannot open"),
    ];
    for (args, part) in cases {
        report(&place, args).is_error(2, &[part]);
    }
    assert_eq!(report(&place, &[]).code(), Some(2));
    assert_eq!(
        report(&place, &["--profiles", "0", "reports"]).code(),
        Some(2)
    );
}

#[test]
fn a_capability_is_explained_over_several_reports() {
    let place = Place::new();
    reports(&place);
    let done = report(&place, &["--why", "setuid", "reports"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    let text = done.stdout();
    for part in [
        "SETUID             needed by 2 of 4 Dockerfiles\n",
        "corpus/user-run/Dockerfile   build fails\n",
        "      12  RUN proxyd true && ls ",
        "AVOID   Lines 4, 6: Kaniko changes to the user of USER before it executes a RUN.",
        "GAIN    without corpus/user-run/Dockerfile, corpus/x-edge-proxy/Dockerfile: no",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    let wide = text.lines().filter(|line| line.chars().count() > 80);
    assert_eq!(wide.count(), 0, "{text}");

    // In any order, and from the captures, it is the same.
    let json = |files: &[&str]| {
        let done = report(
            &place,
            &[&["--why", "SETUID", "--format", "json"], files].concat(),
        );
        assert_eq!(done.code(), Some(0), "{done:?}");
        done.stdout()
    };
    let all = json(&["reports"]);
    let value: Value = serde_json::from_str(&all).expect("it is JSON");
    assert_eq!(value["schema"], "kcap.explanations/v1");
    let parts = value["dockerfiles"].as_array().expect("a list");
    let lines = |name: &str| {
        let part = parts.iter().find(|part| part["dockerfile"] == name);
        part.expect("it asked")["lines"].clone()
    };
    assert_eq!(
        lines("corpus/user-run/Dockerfile"),
        serde_json::json!([4, 6])
    );
    assert_eq!(
        lines("corpus/x-edge-proxy/Dockerfile"),
        serde_json::json!([2, 12])
    );
    let captures = NAMES.map(corpus);
    let mut captures: Vec<&str> = captures.iter().map(String::as_str).collect();
    captures.reverse();
    assert_eq!(json(&captures), all);

    // A matrix without whole reports says what it knows.
    let done = report(&place, &["--format", "json", "reports"]);
    fs::write(place.path("matrix.json"), done.stdout()).expect("it is ours");
    let reduced: Value = serde_json::from_str(&json(&["matrix.json"])).expect("it is JSON");
    let names = |value: &Value| -> Vec<(Value, Value)> {
        let parts = value["dockerfiles"].as_array().expect("a list");
        (parts.iter())
            .map(|part| (part["dockerfile"].clone(), part["lines"].clone()))
            .collect()
    };
    assert_eq!(names(&reduced), names(&value));
    assert!(
        reduced["notes"]
            .to_string()
            .contains("not all reports are whole"),
        "{reduced}"
    );
}

#[test]
fn markdown_is_a_comment_for_a_merge_request() {
    let place = Place::new();
    reports(&place);
    let one = "reports/user-run.json";
    for (name, args, start, code) in [
        (
            "report",
            &[one][..],
            "### `corpus/user-run/Dockerfile` needs ",
            0,
        ),
        ("report", &["reports"], "### 4 Dockerfiles need ", 0),
        (
            "report",
            &["--why", "SETUID", one],
            "### SETUID is needed by `corpus/user-run/",
            0,
        ),
        (
            "report",
            &["--why", "SETUID", "reports"],
            "### SETUID is needed by 2 of 4 ",
            0,
        ),
        ("check", &["--allow", "CHOWN", "reports"], "### Fail: ", 1),
        ("check", &["--baseline", one, "reports"], "### Fail: ", 1),
        (
            "check",
            &["--policy", "docker-default", "reports"],
            "### Pass: ",
            0,
        ),
    ] {
        let done = kcap(&place, name, &[&["--format", "markdown"], args].concat());
        assert_eq!(done.code(), Some(code), "{done:?}");
        let text = done.stdout();
        assert!(text.starts_with(start), "{start}: {text}");
        assert!(text.contains("\n| --"), "{text}");
    }
}

#[test]
fn each_format_to_paste_holds_the_set() {
    let place = Place::new();
    let edge = corpus("x-edge-proxy");
    for (args, part) in [
        (&["docker"][..], "--cap-drop=all --cap-add=CHOWN "),
        (&["podman"], "--cap-drop=all --cap-add=CHOWN "),
        (&["kubernetes"], "    - NET_BIND_SERVICE\n"),
        (&["kubernetes", "--wrap", "pod"], "kind: Pod\n"),
        (&["tekton"], "- name: build\n"),
        (&["gitlab"], "cap_add = [\"CHOWN\", "),
        (&["kyverno"], "              - SETFCAP\n"),
        (&["openshift"], "allowedCapabilities:\n- CHOWN\n"),
        (&["oci"], "\"CAP_NET_BIND_SERVICE\""),
    ] {
        let done = report(&place, &[&["--format"], args, &[&edge]].concat());
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert!(done.stdout().contains(part), "{part}: {done:?}");
        // The set that is pasted is enough.
        if args == ["kubernetes"] || args == ["docker"] {
            let text = match args[0] {
                "docker" => {
                    let text = done.stdout();
                    let flags = text.lines().last().expect("a line");
                    format!("docker run {flags} image\n")
                }
                _ => done.stdout(),
            };
            fs::write(place.path("policy"), text).expect("it is ours");
            let done = kcap(&place, "check", &["--policy", "policy", &edge]);
            assert_eq!(done.code(), Some(0), "{done:?}");
            assert!(!done.stdout().contains("SPARE"), "{done:?}");
        }
    }
}

/// Most memory that a process held, in KiB; waits for it.
#[expect(
    clippy::zombie_processes,
    reason = "wait4 waits for it, and tells its memory"
)]
fn peak(mut command: std::process::Command) -> (i32, i64) {
    let child = command.spawn().expect("kcap starts");
    let (mut status, id) = (0, i32::try_from(child.id()).expect("it is small"));
    // SAFETY: plain numbers, filled in by the kernel.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our child, which nobody else waits for, and places that outlive the call.
    let ended = unsafe { libc::wait4(id, &raw mut status, 0, &raw mut used) };
    assert_eq!(ended, id);
    (libc::WEXITSTATUS(status), used.ru_maxrss)
}

#[test]
fn memory_does_not_grow_with_what_is_read() {
    let place = Place::new();
    let done = report(&place, &["--format", "json", &corpus("x-edge-proxy")]);
    let text = done.stdout();
    fs::create_dir(place.path("reports")).expect("it is ours");
    for n in 0..600 {
        let text = text.replace("corpus/x-edge-proxy", &format!("team-{n}"));
        fs::write(place.path(format!("reports/{n}.json")), text).expect("it is ours");
    }
    // A file of 2 GiB that takes no room.
    let file = fs::File::create(place.path("big.json")).expect("it is ours");
    std::io::Write::write_all(&mut &file, b"{").expect("it is ours");
    file.set_len(2 << 30).expect("it is sparse");
    let quiet = |args: &[&str]| {
        let mut command = place.subcommand("report", args);
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        peak(command)
    };
    let (code, one) = quiet(&["reports/0.json"]);
    assert_eq!(code, 0);
    let (code, all) = quiet(&["reports"]);
    assert_eq!(code, 0);
    let read = (text.len() * 600 / 1024) as i64;
    assert!(
        all - one < read / 3,
        "{one} KiB for one, {all} for all {read}"
    );
    let (code, big) = quiet(&["big.json"]);
    assert_eq!(code, 2);
    assert!(big < 2 * one, "{big} KiB, and {one} for one");
}

#[test]
fn ten_thousand_reports_fit_into_200_mb() {
    const MOST: i64 = 200 << 10;
    let place = Place::new();
    fs::create_dir(place.path("reports")).expect("it is ours");
    let texts = NAMES.map(|name| {
        let done = report(&place, &["--format", "json", &corpus(name)]);
        let mut value: Value = serde_json::from_str(&done.stdout()).expect("it is JSON");
        value["subject"]["dockerfile"] = "A DOCKERFILE".into();
        value["subject"]["started"] = "A DAY".into();
        // Evidence is most of a report, and passed over: this is about how many there are.
        for capability in value["capabilities"].as_array_mut().expect("a list") {
            let evidence = capability["evidence"].as_array_mut().expect("a list");
            evidence.truncate(2);
        }
        serde_json::to_string(&value).expect("it is JSON")
    });
    // Every other Dockerfile is seen twice, on two days.
    for n in 0..10_000 {
        let text = &texts[n % NAMES.len()];
        let text = text.replace(
            "A DOCKERFILE",
            &format!("team-{}/Dockerfile", n / 6 * 4 + n % 4),
        );
        let text = text.replace("A DAY", &format!("2026-10-{:02}T12:00:00Z", 1 + n % 28));
        fs::write(place.path(format!("reports/{n}.json")), text).expect("it is ours");
    }
    // All that a report of many can hold at once.
    let args = ["reports", "--profiles", "3", "--format", "json"];
    let mut command = place.subcommand("report", args);
    let matrix = fs::File::create(place.path("matrix.json")).expect("it is ours");
    command.stdout(matrix);
    let (code, told, most, _) = bounded(command, None);
    assert_eq!((code, told.as_str()), (0, ""));
    assert!(most > 0 && most < MOST, "{most} KiB");
    let matrix = fs::read(place.path("matrix.json")).expect("it was written");
    let matrix: Value = serde_json::from_slice(&matrix).expect("it is JSON");
    let builds = matrix["builds"].as_array().expect("a list");
    let runs: usize = (builds.iter())
        .map(|build| build["runs"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!((builds.len(), runs), (6_668, 10_000));
}
