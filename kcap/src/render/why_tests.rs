use super::*;
use crate::explain::explain;
use crate::render::escape::{is_unsafe, width};
use crate::render::{self, Format};
use crate::report::{self, Cap, Report};

const PLAIN: Style = Style { color: false };

fn report(json: &str) -> Report {
    report::from_json(json.as_bytes()).unwrap()
}

fn why(report: &Report, cap: Cap) -> String {
    let mut out = Vec::new();
    write(&explain(report, cap), PLAIN, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn screen(report: &Report) -> String {
    let mut out = Vec::new();
    render::write(report, Format::Table, PLAIN, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../explain/fixtures/", $name))
    };
}

/// What `kcap report` prints of reports of real builds. Where the output is meant to change, write
/// the files again with it: `kcap report NAME.json > NAME.txt`.
#[test]
fn screens_of_real_builds() {
    for (json, text) in [
        (fixture!("copy-chown.json"), fixture!("copy-chown.txt")),
        (fixture!("user-run.json"), fixture!("user-run.txt")),
        (
            fixture!("apt-adds-user.json"),
            fixture!("apt-adds-user.txt"),
        ),
        (
            fixture!("daemon-left-other-user.json"),
            fixture!("daemon-left-other-user.txt"),
        ),
    ] {
        assert_eq!(screen(&report(json)), text);
    }
}

/// The same with `--why CAP`, in `NAME.CAP.txt`.
#[test]
fn explanations_of_real_builds() {
    for (json, cap, text) in [
        (
            fixture!("copy-chown.json"),
            Cap::CHOWN,
            fixture!("copy-chown.CHOWN.txt"),
        ),
        (
            fixture!("user-run.json"),
            Cap::SETUID,
            fixture!("user-run.SETUID.txt"),
        ),
        (
            fixture!("daemon-left-other-user.json"),
            Cap::KILL,
            fixture!("daemon-left-other-user.KILL.txt"),
        ),
        (
            fixture!("copy-chown.json"),
            Cap::SYS_TIME,
            fixture!("copy-chown.SYS_TIME.txt"),
        ),
    ] {
        assert_eq!(why(&report(json), cap), text);
    }
}

#[test]
fn what_the_build_chose_is_escaped_and_bounded() {
    let mut report = report(fixture!("user-run.json"));
    let evil = "\u{1b}]0;x\u{7}\n\u{202e}".repeat(2000);
    report.subject.dockerfile = Some(evil.clone());
    report.notes.push(evil.clone());
    for step in &mut report.steps {
        step.text.clone_from(&evil);
    }
    for capability in &mut report.capabilities {
        capability.reason.clone_from(&evil);
        for evidence in &mut capability.evidence {
            evidence.program.clone_from(&evil);
            evidence.reason.clone_from(&evil);
            evidence.syscall = Some(evil.clone());
            evidence.outcome = Some(evil.clone());
            evidence.path = vec![evil.clone(); 9];
        }
    }
    for text in [why(&report, Cap::SETUID), screen(&report)] {
        assert!(text.len() < 60_000, "{}", text.len());
        for line in text.lines() {
            assert!(!line.chars().any(is_unsafe), "{line:?}");
            assert!(width(line) <= COLUMNS, "{line:?}");
        }
    }
}

#[test]
fn colours_go_by_the_answer() {
    let report = report(fixture!("apt-adds-user.json"));
    let coloured = |cap| {
        let mut out = Vec::new();
        write(&explain(&report, cap), Style { color: true }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(coloured(Cap::CHOWN).starts_with("\u{1b}[1mCHOWN"));
    assert!(coloured(Cap::KILL).starts_with("\u{1b}[33mKILL"));
    assert!(coloured(Cap::SYS_ADMIN).starts_with("\u{1b}[32mSYS_ADMIN"));
}
