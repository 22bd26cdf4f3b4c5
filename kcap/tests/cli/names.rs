//! Names and arguments that whoever writes a build chooses: shown escaped and bounded, kept in JSON
//! that stays valid, and arguments recorded only where asked for.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
};

use crate::harness::{Done, Place, can_trace};

/// A line feed, an escape sequence, one of 8 bits, a mark that turns the direction of text, and bytes
/// that are no UTF-8.
const HOSTILE: &[u8] = b"a\nb\x1b[31m\xc2\x9b2Jc\xe2\x80\xaetxt\xff\xfe";

/// Asserts that nothing but text and line ends reaches the terminal, in lines that fit.
#[track_caller]
fn is_plain(done: &Done, columns: usize) {
    let bad = |c: char| {
        c != '\n'
            && (c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'))
    };
    for text in [done.stdout(), done.stderr()] {
        assert!(!text.contains(bad), "{text:?}");
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.unwrap_or_default() <= columns, "{text}");
    }
}

#[test]
fn a_program_with_a_hostile_name_is_shown_escaped() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let program = place.path(OsStr::from_bytes(HOSTILE));
    fs::copy("/bin/chown", &program).expect("a copy");
    let args: [&OsStr; 9] = [
        "--dockerfile".as_ref(),
        OsStr::from_bytes(b"D\xff\x1b\n"),
        "--report".as_ref(),
        "r".as_ref(),
        "--capture".as_ref(),
        OsStr::from_bytes(b"c\n\x1b\xff"),
        "--".as_ref(),
        program.as_os_str(),
        "1".as_ref(),
    ];
    fs::write(place.path(args[1]), b"FROM x\x1b\xff\n").expect("ours");
    let done = place.done(&mut place.run(args.into_iter().chain([".".as_ref()])));
    // 3 where it was over before the capabilities of its file were read.
    assert!(matches!(done.code(), Some(0 | 3)), "{done:?}");
    is_plain(&done, 80);
    assert!(done.stdout().contains("\\u{1b}"), "{done:?}");
    let json = fs::read_to_string(place.path("r")).expect("it is UTF-8");
    assert!(!json.contains(|c: char| c != '\n' && c.is_control()));
    let report = place.report("r");
    let programs = report.capabilities.iter().flat_map(|c| &c.evidence);
    assert!(
        programs
            .into_iter()
            .any(|e| e.program.contains("a\nb\u{1b}[31m")),
        "the name survives"
    );
    assert!(place.path(args[5]).exists());
}

#[test]
fn errors_escape_and_bound_what_they_quote() {
    let place = Place::new();
    let mut long = b"no/such/".to_vec();
    long.extend_from_slice(HOSTILE);
    long.extend(vec![b'x'; 100_000]);
    for option in ["--report", "--capture", "--dockerfile"] {
        for name in [&long[..], &[b"no/", HOSTILE].concat()] {
            let args = [
                option.as_ref(),
                OsStr::from_bytes(name),
                "--".as_ref(),
                "true".as_ref(),
            ];
            let done = place.done(&mut place.run(args));
            done.is_error(125, &["\\u{1b}"]);
            is_plain(&done, 1100);
        }
    }
    if can_trace() {
        for (name, code) in [(&long[..], 126), (HOSTILE, 127)] {
            let done = place.done(&mut place.run(["--".as_ref(), OsStr::from_bytes(name)]));
            done.is_error(code, &["cannot run", "\\u{1b}"]);
            is_plain(&done, 1100);
        }
    }
}

#[test]
fn a_hundred_kilobytes_of_arguments_are_bounded() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let mut args: Vec<OsString> = ["--argv", "--report=r", "--capture=c", "--", "true"]
        .map(OsString::from)
        .into();
    for _ in 0..1000 {
        let part = [HOSTILE, &[b'y'; 80]].concat();
        args.push(OsStr::from_bytes(&part).to_owned());
    }
    args.push("z".repeat(100_000).into());
    let done = place.done(&mut place.run(&args));
    assert_eq!(done.code(), Some(0), "{done:?}");
    is_plain(&done, 80);
    assert!(done.stdout().len() < 4000, "one screen");
    assert!(place.report("r").complete);
    let capture = place.capture("c");
    let recorded = capture.programs.iter().filter_map(|p| p.argv.as_ref());
    let mut sizes = vec![];
    for argv in recorded {
        assert!(argv.cut, "it says that it was cut");
        sizes.push(argv.args.iter().map(String::len).sum::<usize>());
    }
    assert!(
        !sizes.is_empty() && sizes.iter().all(|&n| n < 40_000),
        "{sizes:?}"
    );
}

#[test]
fn arguments_of_the_build_s_programs_are_recorded_only_where_asked_for() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    // In a file, as the command line of the build itself is no secret of one of its steps.
    fs::write(
        place.path("build"),
        "#!/bin/sh\n/bin/chown 1 . -- s3cret-t0ken\nexit 0\n",
    )
    .expect("ours");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.path("build"), mode).expect("ours");
    let holds = |options: &[&str]| {
        let files = ["--report=r", "--capture=c"];
        let done = place.done(&mut place.run([options, &files, &["--", "./build"]].concat()));
        assert_eq!(done.code(), Some(0), "{done:?}");
        let capture = format!("{:?}", place.capture("c"));
        let report = fs::read_to_string(place.path("r")).expect("made");
        assert!(!done.stdout().contains("s3cret"), "{done:?}");
        assert!(!report.contains("s3cret"));
        capture.contains("s3cret-t0ken")
    };
    assert!(!holds(&[]));
    assert!(holds(&["--argv"]));
}

#[test]
fn values_on_the_command_s_own_line_are_masked() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let options = ["--report=r", "--capture=c", "--"];
    let command = [
        "true",
        "--build-arg",
        "TOKEN=s3cret",
        "--env=KEY=s3cret",
        "-e",
        "A=s3cret",
    ];
    let done = place.done(&mut place.run([&options[..], &command].concat()));
    assert_eq!(done.code(), Some(0), "{done:?}");
    let expected = [
        "true",
        "--build-arg",
        "TOKEN=***",
        "--env=KEY=***",
        "-e",
        "A=***",
    ];
    assert_eq!(place.report("r").subject.command, expected);
    assert!(!format!("{:?}", place.capture("c")).contains("s3cret"));
    assert!(!done.stdout().contains("s3cret"));
}
