//! What every command has in common: colours, closed pipes, help.

use std::{io, path::Path};

use crate::check::{corpus, kcap};
use crate::harness::Place;

/// Commands that print, each with something to print, and the exit codes that they may have here.
fn commands() -> Vec<(&'static str, Vec<String>, Vec<i32>)> {
    let one = corpus("user-run");
    let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
    let other = corpus("chown-run");
    vec![
        ("report", own(&[&one]), vec![0]),
        ("report", own(&[&one, &other]), vec![0]),
        ("report", own(&["--why", "SETUID", &one]), vec![0]),
        ("report", own(&["--why", "SETUID", &one, &other]), vec![0]),
        ("check", own(&["--allow", "CHOWN", &one]), vec![1]),
        ("check", own(&["--policy", "docker-default", &one]), vec![0]),
        ("compare", own(&["a", "b"]), vec![1]),
        // What it says depends on the host.
        ("doctor", own(&[]), vec![0, 1]),
    ]
}

/// A place with the images `a` and `b`.
fn place() -> Place {
    let place = Place::new();
    for (name, user) in [("a", "root"), ("b", "app")] {
        crate::compare::image(&place, name, user, &[&[("x", 0o644, 0, "x")]]);
    }
    place
}

#[test]
fn colours_are_given_only_where_asked_for() {
    let place = place();
    for (name, args, codes) in commands() {
        let shown = |more: &[&str], no_color: Option<&str>| {
            let mut command = place.subcommand(
                name,
                args.iter().map(String::as_str).chain(more.iter().copied()),
            );
            if let Some(value) = no_color {
                command.env("NO_COLOR", value);
            }
            let done = place.done(&mut command);
            assert!(codes.contains(&done.code().unwrap_or(-1)), "{done:?}");
            done.stdout().contains('\u{1b}')
        };
        assert!(!shown(&[], None), "{name} {args:?}: no terminal");
        assert!(!shown(&["--color", "never"], None), "{name} {args:?}");
        assert!(shown(&["--color", "always"], None), "{name} {args:?}");
        assert!(shown(&["--color", "always"], Some("1")), "{name} {args:?}");
        assert!(!shown(&["--color", "auto"], Some("1")), "{name} {args:?}");
        let plain = ["--color", "always", "--format", "json"];
        assert!(!shown(&plain, None), "{name} {args:?}: JSON");
    }
}

#[test]
fn a_reader_that_went_away_changes_no_answer() {
    let place = place();
    for (name, args, codes) in commands() {
        for format in ["table", "json", "markdown"] {
            if name == "doctor" && format == "markdown" {
                continue;
            }
            let (reader, writer) = io::pipe().expect("a pipe");
            drop(reader);
            let mut command = place.subcommand(name, &args);
            let done = place.done(command.args(["--format", format]).stdout(writer));
            assert!(codes.contains(&done.code().unwrap_or(-1)), "{done:?}");
            assert_eq!(done.stderr(), "", "{name} {args:?} {format}");
        }
    }
    for args in [&["completions", "bash"][..], &["schema", "report"]] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let done = place.done(place.subcommand("generate", args).stdout(writer));
        assert_eq!((done.code(), done.stderr().as_str()), (Some(0), ""));
    }
}

#[test]
fn a_full_disk_is_told() {
    let place = place();
    for (name, args, _) in commands() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = place.subcommand(name, &args);
        let done = place.done(command.stdout(full.expect("it is there")));
        assert_eq!(done.code(), Some(2), "{name} {args:?}: {done:?}");
        assert!(done.stderr().contains("No space left"), "{done:?}");
        assert_eq!(done.stderr().lines().count(), 1, "{done:?}");
    }
}

#[test]
fn generated_files_land_where_they_are_wanted() {
    let place = Place::new();
    let done = kcap(&place, "generate", &["all", "share"]);
    assert_eq!(
        (done.code(), done.stdout().as_str()),
        (Some(0), ""),
        "{done:?}"
    );
    for name in [
        "man/kcap-report.1",
        "completions/kcap.bash",
        "completions/_kcap",
        "schemas/kcap.report.v1.json",
    ] {
        assert!(
            place.path(Path::new("share").join(name)).is_file(),
            "{name}"
        );
    }
    let done = kcap(&place, "generate", &["man", "/proc/kcap"]);
    done.is_error(2, &["cannot write /proc/kcap/kcap", "choose a folder"]);
    let done = kcap(&place, "generate", &["schema", "check"]);
    assert!(
        done.stdout().contains("\"$id\": \"kcap.check/v1\""),
        "{done:?}"
    );
}
