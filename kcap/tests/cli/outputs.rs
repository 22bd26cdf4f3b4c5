//! Where results go: files that are whole or not there, standard output, devices, closed pipes.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use kcap::{capture, report};

use crate::harness::{Place, can_trace};

#[test]
fn a_path_that_cannot_be_written_is_found_out_before_the_build() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).expect("ours");
    symlink("nowhere", place.path("dangling")).expect("ours");
    for option in ["--report", "--capture"] {
        for path in ["missing/r.json", "folder", "/proc/r.json", "dangling", ".."] {
            let done = place.done(&mut place.run([option, path, "--", "touch", "ran"]));
            done.is_error(125, &["cannot write", path, "writable"]);
            assert!(!place.path("ran").exists(), "{option} {path}");
        }
    }
    let done =
        place.done(&mut place.run(["--report", "r", "--capture", "r", "--", "touch", "ran"]));
    done.is_error(125, &["same file", "each its own"]);
    assert!(!place.path("ran").exists() && !place.path("r").exists());
    // The first is fine, and is not left behind when the second is not.
    let args = [
        "--report",
        "r",
        "--capture",
        "missing/c",
        "--",
        "touch",
        "ran",
    ];
    place
        .done(&mut place.run(args))
        .is_error(125, &["missing/c"]);
    assert!(!place.path("r").exists());
}

#[test]
fn files_are_replaced_whole() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    fs::write(place.path("r.json"), "old").expect("ours");
    let script = "cat r.json > seen; touch here; ls -A > listed";
    let args = ["-q", "--report", "r.json", "--capture", "r.gz"];
    let done = place.done(&mut place.script(&args, script));
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert_eq!((done.stdout(), done.stderr()), Default::default());
    assert_eq!(fs::read(place.path("seen")).expect("made"), b"old");
    let listed = fs::read_to_string(place.path("listed")).expect("made");
    assert!(!listed.lines().any(|name| name == "r.gz"), "{listed}");
    let report = place.report("r.json");
    assert!(report.complete && !report.interrupted);
    assert_eq!(kcap::interpret::interpret(&place.capture("r.gz")), report);
    let mode = |name| {
        fs::metadata(place.path(name))
            .expect("made")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("r.gz"), 0o600);
    assert_eq!(mode("r.json") & 0o600, 0o600);
}

#[test]
fn links_are_written_through_and_devices_in_place() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    fs::write(place.path("target"), "x".repeat(1 << 20)).expect("ours");
    symlink("target", place.path("link")).expect("ours");
    let done = place.done(&mut place.run(["-q", "--report", "link", "--", "true"]));
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(place.path("link").is_symlink());
    assert!(place.report("target").complete);
    let args = [
        "-q",
        "--report",
        "/dev/null",
        "--capture",
        "/dev/null",
        "--",
        "true",
    ];
    // Two names of a device are as one, and both are thrown away: still a mistake.
    place
        .done(&mut place.run(args))
        .is_error(125, &["same file"]);
    let args = [
        "-q",
        "--report",
        "r",
        "--capture",
        "/dev/null",
        "--",
        "true",
    ];
    assert_eq!(place.done(&mut place.run(args)).code(), Some(0));
    assert!(!fs::metadata("/dev/null").expect("there").is_file());
}

#[test]
fn standard_output_takes_one_of_table_report_and_capture() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let table = place.done(&mut place.run(["--report", "r", "--", "true"]));
    assert_eq!(table.code(), Some(0), "{table:?}");
    assert!(table.stdout().contains("\nNEED "), "{table:?}");
    assert!(place.report("r").complete);

    for to in ["-", "/dev/stdout"] {
        let json = place.done(&mut place.run(["--report", to, "--", "true"]));
        assert_eq!(json.code(), Some(0), "{json:?}");
        assert!(
            report::from_json(&json.output.stdout)
                .expect("JSON alone")
                .complete
        );

        let packed = place.done(&mut place.run(["--capture", to, "--", "true"]));
        assert_eq!(packed.code(), Some(0));
        let capture = capture::read(&packed.output.stdout[..]).expect("a capture alone");
        assert_eq!(capture.subject.command, ["true"]);
    }
    // Redirected into a file, it is not replaced by one.
    let mut command = place.script(&["--report", "/dev/stdout"], "echo said by the command");
    let file = File::create(place.path("out")).expect("ours");
    assert_eq!(place.done(command.stdout(file)).code(), Some(0));
    let text = fs::read_to_string(place.path("out")).expect("ours");
    let json = text.strip_prefix("said by the command\n").expect("kept");
    assert!(report::from_json(json.as_bytes()).expect("JSON").complete);
    assert!(
        fs::symlink_metadata("/dev/stdout")
            .expect("there")
            .is_symlink()
    );
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    for (options, code) in [
        (&["--report", "r"][..], 0),
        (&["--report", "-"], 7),
        (&["--capture", "-"], 7),
        (&["--format", "json"], 7),
    ] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let done = place.done(
            place
                .script(options, &format!("exit {code}"))
                .stdout(writer),
        );
        assert_eq!(done.code(), Some(code), "{done:?}");
        assert_eq!(done.stderr(), "");
    }
    assert!(place.report("r").complete);
}

#[test]
fn a_full_disk_is_kcap_s_failure() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let full = || {
        File::options()
            .write(true)
            .open("/dev/full")
            .expect("there")
    };
    for options in [&[][..], &["--report", "-"], &["--capture", "-"]] {
        let done = place.done(place.script(options, "exit 7").stdout(full()));
        done.is_error(125, &["cannot write", "standard output", "No space left"]);
    }
    for option in ["--report", "--capture"] {
        let done = place.done(&mut place.run(["-q", option, "/dev/full", "--", "true"]));
        done.is_error(125, &["cannot write /dev/full", "No space left"]);
    }
}

#[test]
fn colours_are_for_terminals_and_not_where_unwanted() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let escapes = |options: &[&str], no_color: Option<&str>, terminal: bool| {
        let mut command = place.script(options, "chown 1 .");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        if !terminal {
            return place.done(&mut command).stdout().contains('\u{1b}');
        }
        let (mut ours, theirs) = super::interrupts::terminal();
        let child = command.stdout(theirs).spawn().expect("kcap starts");
        // The command holds the terminal, too, and must not when it is read to its end.
        drop(command);
        let mut text = vec![];
        let mut part = [0; 4096];
        // With its last user gone, a terminal gives an error.
        while let Ok(n @ 1..) = ours.read(&mut part) {
            text.extend_from_slice(&part[..n]);
        }
        assert_eq!(place.finish(child).code(), Some(0));
        text.contains(&0x1b)
    };
    assert!(escapes(&[], None, true));
    assert!(escapes(&[], Some(""), true));
    assert!(!escapes(&[], Some("1"), true));
    assert!(!escapes(&["--color", "never"], None, true));
    assert!(!escapes(&[], None, false));
    assert!(escapes(&["--color", "always"], Some("1"), false));
}
