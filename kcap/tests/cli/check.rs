//! `kcap check` and `kcap report` of several: policies, baselines, exit codes, hostile files.

use std::fs;
use std::process::Command;

use crate::harness::{Done, Place};

/// A capture of a real build.
pub fn corpus(name: &str) -> String {
    format!(
        "{}/../corpus/{name}/capture.kcap",
        env!("CARGO_MANIFEST_DIR")
    )
}

pub fn kcap(place: &Place, subcommand: &str, args: &[&str]) -> Done {
    let mut command: Command = place.subcommand(subcommand, args);
    place.done(&mut command)
}

fn check(place: &Place, args: &[&str]) -> Done {
    kcap(place, "check", args)
}

#[test]
fn the_exit_code_is_the_answer() {
    let place = Place::new();
    let (edge, failed) = (corpus("x-edge-proxy"), corpus("missing-file"));
    let done = check(&place, &["--policy", "docker-default", &edge]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    let done = check(&place, &["--policy", "article", &edge]);
    assert_eq!(done.code(), Some(1), "{done:?}");
    assert!(done.stdout().starts_with("FAIL"), "{done:?}");
    assert!(
        done.stdout()
            .contains("  NET_BIND_SERVICE        12  proxyd: RUN proxyd")
    );
    // A build that failed proves nothing, unless that is enough.
    let allow = ["--policy", "docker-default", &failed];
    assert_eq!(check(&place, &allow).code(), Some(3));
    let allow = [&allow[..], &["--allow-incomplete"]].concat();
    assert_eq!(check(&place, &allow).code(), Some(0));
    // Over is over, whatever else is incomplete.
    let done = check(&place, &["--allow", "", &failed, &edge]);
    assert_eq!(done.code(), Some(1), "{done:?}");
    let sure = "CHOWN,DAC_OVERRIDE,FOWNER,SETGID,SETUID,NET_BIND_SERVICE,SETFCAP";
    assert_eq!(check(&place, &["--allow", sure, &edge]).code(), Some(1));
    let done = check(&place, &["--allow", sure, "--allow-unsure", &edge]);
    assert_eq!(done.code(), Some(0), "{done:?}");
}

#[test]
fn policies_are_files_of_many_kinds() {
    let place = Place::new();
    let edge = corpus("x-edge-proxy");
    let pod = "spec:\n  containers:\n  - name: kaniko\n    securityContext:\n      capabilities:\n        \
               drop: [ALL]\n        add: [CHOWN, SYS_ADMIN]\n  - name: side\n";
    fs::write(place.path("pod.yaml"), pod).expect("it is ours");
    let line = "docker run --cap-drop=MKNOD -v \"$PWD:/x\" executor --no-push\n";
    fs::write(place.path("run.sh"), line).expect("it is ours");
    fs::write(place.path("list"), "# ours\nchown\n").expect("it is ours");
    let json = kcap(&place, "report", &["--format", "json", &edge]);
    fs::write(place.path("report.json"), json.output.stdout).expect("it is ours");

    let done = check(&place, &["--policy", "pod.yaml", &edge]);
    done.is_error(2, &["pod.yaml", "kaniko, side", "--container"]);
    let args = ["--policy", "pod.yaml", "--container", "kaniko", &edge];
    let done = check(&place, &args);
    assert_eq!(done.code(), Some(1), "{done:?}");
    assert!(done.stdout().contains("SPARE   SYS_ADMIN"), "{done:?}");
    let done = check(&place, &["--policy", "run.sh", &edge]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    for part in [
        "SPARE   SETPCAP NET_RAW SYS_CHROOT",
        "ENOUGH  --cap-drop=all --cap-add=CHOWN",
    ] {
        assert!(done.stdout().contains(part), "{part}: {done:?}");
    }
    assert_eq!(check(&place, &["--policy", "list", &edge]).code(), Some(1));
    let done = check(&place, &["--policy", "report.json", &edge]);
    assert_eq!(done.code(), Some(0), "{done:?}");
}

#[test]
fn a_baseline_is_a_gate() {
    let place = Place::new();
    let old = kcap(
        &place,
        "report",
        &["--format", "json", &corpus("chown-run")],
    );
    let new = kcap(&place, "report", &["--format", "json", &corpus("user-run")]);
    fs::create_dir(place.path("old")).expect("it is ours");
    fs::write(place.path("old/r.json"), &old.output.stdout).expect("it is ours");
    fs::write(place.path("new.json"), &new.output.stdout).expect("it is ours");
    let done = check(&place, &["--baseline", "old", "old/r.json"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.stdout().starts_with("PASS"), "{done:?}");
    let done = check(
        &place,
        &["--baseline", "old", "new.json", "--format", "json"],
    );
    assert_eq!(done.code(), Some(1), "{done:?}");
    let found: serde_json::Value = serde_json::from_str(&done.stdout()).expect("it is JSON");
    let caps: Vec<&str> = (found["over"].as_array().expect("a list").iter())
        .map(|over| over["capability"].as_str().expect("a name"))
        .collect();
    assert_eq!(caps, ["SETGID", "SETUID"], "{found}");
    assert!(found["over"][0]["at"][0]["line"].is_number(), "{found}");
}

#[test]
fn bad_input_is_one_line_and_exit_2() {
    let place = Place::new();
    let edge = corpus("x-edge-proxy");
    fs::write(
        place.path("cut.json"),
        "{\"schema\": \"kcap.report/v1\", \"host\"",
    )
    .expect("ours");
    fs::write(place.path("later.json"), "{\"schema\": \"kcap.report/v2\"}").expect("ours");
    fs::write(place.path("\u{1b}[2J"), "\u{1b}[2J: [").expect("ours");
    fs::create_dir(place.path("none")).expect("ours");
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &["--policy", "dockr-default", &edge],
            &["neither a file", "docker-default, podman"],
        ),
        (&["--allow", "CHWON", &edge], &["CHWON", "no capability"]),
        (
            &["--allow", "CHOWN", "cut.json"],
            &["cannot read cut.json", "malformed"],
        ),
        (
            &["--allow", "CHOWN", "later.json"],
            &["kcap.report/v2", "does not know"],
        ),
        (&["--allow", "CHOWN", "none"], &["no report in none"]),
        (&["--policy", "\u{1b}[2J", &edge], &["cannot take"]),
        (&["--baseline", "nowhere", &edge], &["cannot open nowhere"]),
        (
            &["--policy", "article", "--container", "x", &edge],
            &["named policy"],
        ),
    ];
    for (args, parts) in cases {
        check(&place, args).is_error(2, parts);
    }
    // Two questions at once, or none, is clap's to refuse.
    for args in [
        &["--allow", "CHOWN", "--policy", "article", &edge][..],
        &[&edge],
    ] {
        assert_eq!(check(&place, args).code(), Some(2));
    }
    // Larger than any report, and not read: sparse.
    let file = fs::File::create(place.path("big.json")).expect("ours");
    std::io::Write::write_all(&mut &file, b"{").expect("ours");
    file.set_len(2 << 30).expect("sparse");
    check(&place, &["--allow", "CHOWN", "big.json"]).is_error(2, &["larger than 256 MiB"]);
}
