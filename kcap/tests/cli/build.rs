//! `kcap build` up to the first container: what it cannot work with is one line that says what to
//! do, and nothing is left behind. None of it needs root.

use std::fs;

use crate::harness::Place;

const DOCKERFILE: &str = "FROM scratch\nCOPY x /\n";

/// A place with a Dockerfile in each of these folders.
fn place(folders: &[&str]) -> Place {
    let place = Place::new();
    for folder in folders {
        fs::create_dir_all(place.path(folder)).expect("it is ours");
        fs::write(place.path(folder).join("Dockerfile"), DOCKERFILE).expect("it is ours");
    }
    place
}

/// Asserts that `kcap build ARGS` says so in one line, and leaves nothing behind.
#[track_caller]
fn refused(place: &Place, args: &[&str], parts: &[&str]) {
    let list = || -> Vec<_> {
        let entries = fs::read_dir(place.path(".")).expect("it is ours");
        let mut names: Vec<_> = entries
            .map(|e| e.expect("it is ours").file_name())
            .collect();
        names.sort();
        names
    };
    let before = list();
    let mut command = place.build(args);
    // No engine: what is looked at comes before one is asked for.
    command.env("PATH", "/nonexistent");
    place.done(&mut command).is_error(2, parts);
    assert_eq!(list(), before, "{args:?}");
}

#[test]
fn usage_errors_are_clap_s_and_exit_2() {
    let place = place(&["."]);
    for args in [
        &["--no-such-option"][..],
        &["Dockerfile"],
        &["--jobs", "0"],
        &["--cap-add", "NOTHING"],
        &["--cap-drop", ""],
        &["--engine", "lxc"],
        &["--format", "xml"],
        &["--seccomp", "strict"],
        &["--ring-size", "3"],
        &["-q", "-v"],
    ] {
        let done = place.done(&mut place.build(args));
        assert_eq!(done.code(), Some(2), "{args:?} {done:?}");
        assert_eq!(done.stdout(), "", "{args:?}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let place = Place::new();
    let done = place.done(&mut place.build(["--help"]));
    assert_eq!(done.code(), Some(0));
    for part in ["Examples:", "kcap build -f", "Exit code:", "KANIKO-FLAG"] {
        assert!(done.stdout().contains(part), "{part} in {done:?}");
    }
}

#[test]
fn dockerfiles_that_are_not_there() {
    let empty = Place::new();
    refused(&empty, &[], &["no Dockerfile here", "-f"]);
    refused(&empty, &["-f", "."], &["no Dockerfile in the folder", "-f"]);
    refused(
        &empty,
        &["-f", "a/Dockerfile"],
        &["cannot read the Dockerfile a/Dockerfile"],
    );
    refused(
        &empty,
        &["-f", "*/Dockerfile"],
        &["no file matches */Dockerfile"],
    );
    refused(
        &empty,
        &["-f", "/dev/null"],
        &["neither a file nor a folder"],
    );
    let name = "a\u{1b}[2J\n\u{202e}";
    refused(&empty, &["-f", name], &["a\\u{1b}[2J \\u{202e}"]);
}

#[test]
fn a_dockerfile_that_cannot_be_read_as_one_has_a_line_and_a_column() {
    let place = place(&["."]);
    fs::write(place.path("Dockerfile"), "FROM scratch\nRUNN x\n").expect("it is ours");
    refused(&place, &[], &["Dockerfile", "line 2, column 1"]);
    fs::write(place.path("Dockerfile"), "").expect("it is ours");
    refused(&place, &[], &["Dockerfile", "line 1"]);
    fs::write(place.path("Dockerfile"), vec![b'\n'; (4 << 20) + 1]).expect("it is ours");
    refused(&place, &[], &["larger than 4 MiB"]);
}

#[test]
fn contexts_that_are_none() {
    let place = place(&["."]);
    for context in ["nowhere", "git://example.org/x"] {
        refused(&place, &["-c", context], &["context", "-c takes a folder"]);
    }
    refused(
        &place,
        &["-c", "Dockerfile"],
        &["the context Dockerfile is no folder"],
    );
}

#[test]
fn flags_of_kaniko_that_kcap_sets() {
    let place = place(&["."]);
    refused(
        &place,
        &["--", "--dockerfile=x"],
        &["--dockerfile", "before --"],
    );
    refused(&place, &["--", "-c", "x"], &["--context", "before --"]);
    refused(&place, &["--push"], &["--destination=IMAGE"]);
    refused(
        &place,
        &["--push", "--", "--no-push", "-d", "x"],
        &["contradict"],
    );
}

#[test]
fn executors_and_variables_that_are_not_there() {
    let place = place(&["."]);
    refused(
        &place,
        &["--executor", "./nowhere"],
        &["no executor at ./nowhere"],
    );
    refused(&place, &["--executor", "a b"], &["no name of an image"]);
    refused(
        &place,
        &["--executor=--privileged"],
        &["no name of an image"],
    );
    refused(
        &place,
        &["--env", "KCAP_NO_SUCH_VARIABLE"],
        &["no such variable"],
    );
    refused(
        &place,
        &["--cap-add", "63"],
        &["--cap-add 63", "this kernel"],
    );
}

#[test]
fn engines_that_are_not_there() {
    let place = place(&["."]);
    refused(&place, &["--engine", "docker"], &["docker"]);
    refused(&place, &["--engine", "podman"], &["podman"]);
}

#[test]
fn results_that_cannot_be_written() {
    let place = place(&["a", "b"]);
    fs::write(place.path("file"), "kept").expect("it is ours");
    for (args, parts) in [
        (
            &["-f", "a", "b", "--report", "r.json"][..],
            &["--report", "-o"][..],
        ),
        (
            &["-f", "a", "b", "--capture", "-"],
            &["--capture", "folder"],
        ),
        (
            &["-f", "a", "-o", "file"],
            &["cannot write into the folder file"],
        ),
        (
            &["-f", "a", "--report", "no/r.json"],
            &["cannot write no/r.json"],
        ),
        (
            &["-f", "a", "--report", "r", "--capture", "r"],
            &["same file"],
        ),
    ] {
        refused(&place, args, parts);
    }
    assert_eq!(fs::read(place.path("file")).expect("it is kept"), b"kept");
    assert!(!place.path("r.json").exists());
}
