use super::*;
use crate::capture::{Capture, Exec, Origin, Program, Sets, Tally};
use crate::interpret::interpret;

fn tally(cap: Cap, granted: bool, syscall: u16, count: u64) -> Tally {
    Tally {
        program: 1,
        cap: Some(cap.0),
        result: u8::from(!granted),
        syscall: Some(syscall),
        abi: 1,
        count,
        ..Tally::default()
    }
}

fn capture() -> Capture {
    let caps = Sets {
        bounding: 0xa804_25fb,
        ..Sets::default()
    };
    let mut capture = Capture {
        programs: vec![Program {
            id: 1,
            origin: Origin::Exec,
            path: "/usr/local/lib/some/rather/long/path/bin/chown".to_owned(),
            exec: Some(Exec {
                caps,
                ..Exec::default()
            }),
            ..Program::default()
        }],
        tallies: vec![
            tally(Cap::CHOWN, true, 260, 29),
            tally(Cap::AUDIT_WRITE, true, 44, 3),
            tally(Cap::FSETID, true, 90, 31),
            tally(Cap::SYS_ADMIN, false, 9, 8301),
        ],
        ..Capture::default()
    };
    capture.host.arch = "x86_64".to_owned();
    capture.host.kernel = "6.18.5".to_owned();
    capture.host.hook = "tp_btf".to_owned();
    capture
        .host
        .sysctl
        .insert("vm.overcommit_memory".to_owned(), "0".to_owned());
    capture.subject.dockerfile = Some("services/api/Dockerfile".to_owned());
    capture.subject.exit_status = Some(0);
    capture.subject.duration_ms = 252_000;
    capture
}

fn table(capture: &Capture, color: bool) -> String {
    let mut out = Vec::new();
    write(&interpret(capture), Style { color }, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_first_screen() {
    let expected = "\
services/api/Dockerfile   build ok 4m12s   seen once, 0 checks lost
NEED    CHOWN + AUDIT_WRITE (unsure)   drops 12 of today's 14
SEEN    8364 checks of 4 capabilities, by tp_btf on 6.18.5

CAP                  LINE  WHY                                   WITHOUT IT
CHOWN                   -  …ather/long/path/bin/chown: fchownat  likely fails
AUDIT_WRITE             -  …/rather/long/path/bin/chown: sendto  unknown

NOT     FSETID 31 (no setgid bit asked for), SYS_ADMIN 8301 (memory)
APPLY   capabilities: {drop: [ALL], add: [CHOWN, AUDIT_WRITE]}
NEXT    kcap prove -f services/api/Dockerfile   about 5 builds
";
    assert_eq!(table(&capture(), false), expected);
}

#[test]
fn loss_comes_first_and_nothing_is_called_not_required() {
    let mut capture = capture();
    capture.loss.checks = 12;
    capture.loss.execs = 1;
    let text = table(&capture, false);
    let second = text.lines().nth(1).unwrap();
    assert!(
        second.starts_with("INCOMPLETE  lost 12 checks, 1 fork, exec or exit records;"),
        "{text}"
    );
    assert!(text.contains("NEED    at least CHOWN"), "{text}");
    assert!(
        !text.contains("\nNOT ") && !text.contains("APPLY") && !text.contains("drops"),
        "{text}"
    );
    assert!(
        text.contains("\nASKED   FSETID 31 (no setgid bit asked for, as far as was seen), "),
        "{text}"
    );
}

/// A build of a Dockerfile with a log, of which the second RUN fails or not.
fn build(last: &str, status: i32) -> Capture {
    let mut capture = capture();
    capture.subject.exit_status = Some(status);
    capture.subject.dockerfile_text = Some(
        "FROM busybox\nCOPY --chown=app . /srv\nRUN one\nUSER app\nRUN npm ci --a-rather-long-option\nCMD a\n"
            .to_owned(),
    );
    capture.programs[0].executor = true;
    let log = [
        "Building stage 'busybox' [idx: '0', base-idx: '-1']",
        "Using caching version of cmd: RUN one",
        "COPY --chown=app . /srv",
        "RUN one",
        "Found cached layer, extracting to filesystem",
        "USER app",
        "RUN npm ci --a-rather-long-option",
        last,
    ];
    for (text, id) in log.iter().zip(2..) {
        let template = capture.programs[0].clone();
        capture.programs.push(Program {
            id,
            origin: Origin::Phase,
            parent: Some(id - 1),
            exec: None,
            ..template
        });
        capture.log.push(crate::capture::LogLine {
            program: id,
            time_ns: u64::from(id),
            text: format!("\u{1b}[36mINFO\u{1b}[0m[0000] {text} "),
            cut: false,
        });
    }
    let at = |program, cap, syscall, count| Tally {
        program,
        ..tally(cap, true, syscall, count)
    };
    capture.tallies = vec![
        at(4, Cap::CHOWN, 260, 2),
        at(5, Cap::CHOWN, 260, 2),
        at(8, Cap::SETUID, 105, 1),
        at(9, Cap::FOWNER, 90, 7),
    ];
    capture
}

#[test]
fn needs_have_the_line_that_they_are_met_in() {
    let text = table(&build("Taking snapshot of full filesystem...", 0), false);
    let expected = "\
SEEN    5 of 6 instructions; line 3 CACHED, not seen

CAP                  LINE  WHY                                   WITHOUT IT
CHOWN                 2+1  COPY --chown=app . /srv               build fails
FOWNER                  5  snapshot RUN npm ci --a-rather-long…  build fails
SETUID                  5  RUN npm ci --a… (after USER, line 4)  build fails

AVOID   SETUID: run line 5 before USER, if root may run it
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_failed_build_shows_its_end() {
    let text = table(&build("Running: [npm \u{1b}]0;x\u{7}]", 1), false);
    let expected = "\
SEEN    4 of 6 instructions; line 3 CACHED, not seen; line 6 UNREACHED, not seen
LAST    line 5: RUN npm ci --a-rather-long-option
LOG     INFO[0000] COPY --chown=app . /srv
        INFO[0000] RUN one
        INFO[0000] Found cached layer, extracting to filesystem
        INFO[0000] USER app
        INFO[0000] RUN npm ci --a-rather-long-option
        INFO[0000] Running: [npm ]0;x\\u{7}]
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn colours_only_where_asked() {
    let plain = table(&capture(), false);
    let colored = table(&capture(), true);
    assert!(!plain.contains('\u{1b}'));
    assert!(colored.contains("\u{1b}[1mNEED    \u{1b}[0m"));
    let mut stripped = colored.replace("\u{1b}[0m", "");
    for code in ["1", "1;31", "32", "33"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(stripped, plain);
}

#[test]
fn what_the_build_chose_is_escaped_and_bounded() {
    let mut capture = capture();
    capture.subject.dockerfile = None;
    capture.subject.command = vec!["\u{1b}]0;x\u{7}".repeat(10_000)];
    capture.programs[0].path = "/a\n\u{202e}\u{9b}31m".repeat(100);
    capture.loss.unproven = Some("x\u{1b}[2J".repeat(1000));
    let text = table(&capture, false);
    assert!(text.len() < 3000);
    for line in text.lines() {
        assert!(
            !line.chars().any(super::super::escape::is_unsafe),
            "{line:?}"
        );
        assert!(width(line) <= COLUMNS, "{line:?}");
    }
}

#[test]
fn a_build_that_needs_nothing() {
    let mut capture = capture();
    capture.tallies.truncate(4);
    capture.tallies.drain(..2);
    let text = table(&capture, false);
    assert!(
        text.contains("NEED    nothing   drops 14 of today's 14\n"),
        "{text}"
    );
    assert!(
        text.contains("APPLY   capabilities: {drop: [ALL], add: []}\n"),
        "{text}"
    );
}

#[test]
fn capabilities_that_share_a_line_and_a_reason_share_a_row() {
    let mut capture = build("Taking snapshot of full filesystem...", 0);
    let template = capture.tallies[2].clone();
    capture.tallies.extend([
        Tally {
            cap: Some(Cap::SETGID.0),
            syscall: Some(106),
            ..template.clone()
        },
        // The same step, and an answer that one run cannot settle.
        Tally {
            cap: Some(Cap::KILL.0),
            syscall: Some(62),
            ..template
        },
    ]);
    let text = table(&capture, false);
    let expected = "\
KILL                    5  RUN npm ci --a-r… (leaves a process)  unknown
SETGID SETUID           5  RUN npm ci --a… (after USER, line 4)  build fails
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("AVOID   SETGID SETUID: run line 5 before USER, if root may run it\n"));
}

#[test]
fn the_executors_version_is_that_of_its_images_tag() {
    let title = |given: &str| {
        let mut capture = build("Taking snapshot of full filesystem...", 0);
        capture.subject.executor = Some(given.to_owned());
        table(&capture, false).lines().next().unwrap().to_owned()
    };
    assert_eq!(
        title("ghcr.io/osscontainertools/kaniko:v1.28.3@sha256:00"),
        "services/api/Docker…   build ok 4m12s   kaniko 1.28.3   seen once, 0 checks lost"
            .replace("services/api/Docker…", "…ices/api/Dockerfile")
    );
    for other in [
        "localhost:5000/kaniko",
        "kaniko:latest",
        "kaniko",
        "/kaniko/executor",
        "example.org/tool:v2",
    ] {
        assert!(title(other).contains("4m12s   seen once"), "{other}");
    }
}

#[test]
fn durations() {
    assert_eq!(duration(340), "340ms");
    assert_eq!(duration(12_345), "12.3s");
    assert_eq!(duration(252_000), "4m12s");
    assert_eq!(duration(3_720_000), "1h02m");
}

#[test]
fn long_words_are_broken() {
    let lines = wrap(&format!("a {} b", "x".repeat(100)), 72);
    assert!(lines.iter().all(|line| width(line) <= 72));
    assert_eq!(lines.concat().matches('x').count(), 100);
}
